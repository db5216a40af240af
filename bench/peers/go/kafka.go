package main

import (
	"context"
	"net/url"
	"strings"

	"github.com/twmb/franz-go/pkg/kgo"
)

// toKafka leaves the defaults, an idempotent producer and acks=all, but for the linger of 10 ms: with it, a request that
// waits for its confirm would never take less.
func toKafka(broker *url.URL, topic string) (publish, func(), error) {
	client, err := kgo.NewClient(
		kgo.SeedBrokers(strings.Split(broker.Host, ",")...),
		kgo.DefaultProduceTopic(topic),
		kgo.RequiredAcks(kgo.AllISRAcks()),
		kgo.ProducerLinger(0),
	)
	if err != nil {
		return nil, nil, err
	}
	within, cancel := context.WithTimeout(context.Background(), confirmTimeout)
	defer cancel()
	if err := client.Ping(within); err != nil {
		return nil, nil, err
	}
	return func(ctx context.Context, message []byte) error {
		return client.ProduceSync(ctx, &kgo.Record{Value: message}).FirstErr()
	}, client.Close, nil
}
