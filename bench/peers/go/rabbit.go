package main

import (
	"context"
	"errors"
	"log"
	"net/url"

	amqp "github.com/rabbitmq/amqp091-go"
)

var errRefused = errors.New("a queue refused the message")

// toRabbit publishes on one channel in confirm mode and waits for each message's own deferred confirm.
func toRabbit(broker *url.URL, exchange string) (publish, func(), error) {
	connection, err := amqp.Dial(broker.String())
	if err != nil {
		return nil, nil, err
	}
	channel, err := connection.Channel()
	if err != nil {
		return nil, nil, err
	}
	if err := channel.Confirm(false); err != nil {
		return nil, nil, err
	}
	go endWith(channel.NotifyReturn(make(chan amqp.Return, 1)), channel.NotifyClose(make(chan *amqp.Error, 1)))
	return func(ctx context.Context, message []byte) error {
		sent, err := channel.PublishWithDeferredConfirmWithContext(ctx, exchange, "", true, false, amqp.Publishing{
			ContentType:  "application/json",
			DeliveryMode: amqp.Persistent,
			Body:         message,
		})
		if err != nil {
			return err
		}
		stored, err := sent.WaitContext(ctx)
		if err == nil && !stored {
			return errRefused
		}
		return err
	}, func() { _ = connection.Close() }, nil
}

// endWith ends the process when a message came back, which no queue took and which the server confirms nevertheless.
func endWith(returned <-chan amqp.Return, closed <-chan *amqp.Error) {
	select {
	case message := <-returned:
		log.Fatalf("returned: %s", message.ReplyText)
	case err := <-closed:
		if err != nil {
			log.Fatal(err)
		}
	}
}
