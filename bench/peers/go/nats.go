package main

import (
	"context"
	"net/url"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
)

// toNats waits for the PubAck of each message, while the messages of other requests follow on the same connection.
func toNats(broker *url.URL, subject string) (publish, func(), error) {
	connection, err := nats.Connect(broker.String())
	if err != nil {
		return nil, nil, err
	}
	stream, err := jetstream.New(connection)
	if err != nil {
		return nil, nil, err
	}
	return func(ctx context.Context, message []byte) error {
		sent, err := stream.PublishAsync(subject, message)
		if err != nil {
			return err
		}
		select {
		case <-sent.Ok():
			return nil
		case err := <-sent.Err():
			return err
		case <-ctx.Done():
			return ctx.Err()
		}
	}, connection.Close, nil
}
