// A net/http service: one publish per request, answered once the broker has confirmed it. Each client is used as its
// documentation shows it for that.
//
//	go-peer PORT BROKER_URL DESTINATION
package main

import (
	"context"
	"encoding/json"
	"errors"
	"log"
	"net/http"
	"net/url"
	"os"
	"os/signal"
	"strconv"
	"syscall"
	"time"
)

const (
	drain          = 8 * time.Second
	confirmTimeout = 5 * time.Second
)

type rate struct {
	Rate    int    `json:"rate"`
	Subject string `json:"subject"`
}

// publish returns once the broker has confirmed the message.
type publish func(ctx context.Context, message []byte) error

// connect returns how to publish to destination, and how to end that.
type connect func(broker *url.URL, destination string) (publish, func(), error)

var brokers = map[string]connect{"nats": toNats, "kafka": toKafka, "amqp": toRabbit}

func main() {
	log.SetFlags(0)
	if len(os.Args) != 4 {
		log.Fatal("usage: go-peer PORT BROKER_URL DESTINATION")
	}
	broker, err := url.Parse(os.Args[2])
	if err != nil {
		log.Fatal(err)
	}
	to, known := brokers[broker.Scheme]
	if !known {
		log.Fatalf("no publisher for %s://", broker.Scheme)
	}
	publish, end, err := to(broker, os.Args[3])
	if err != nil {
		log.Fatal(err)
	}
	serve("127.0.0.1:"+os.Args[1], publish)
	end()
}

// serve returns after SIGTERM, when the requests under way are answered.
func serve(address string, publish publish) {
	mux := http.NewServeMux()
	mux.HandleFunc("POST /rate", func(response http.ResponseWriter, request *http.Request) { take(response, request, publish) })
	server := &http.Server{Addr: address, Handler: mux}
	stopped, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, syscall.SIGINT)
	defer stop()
	ended := make(chan error, 1)
	go func() {
		<-stopped.Done()
		within, cancel := context.WithTimeout(context.Background(), drain)
		defer cancel()
		ended <- server.Shutdown(within)
	}()
	if err := server.ListenAndServe(); !errors.Is(err, http.ErrServerClosed) {
		log.Fatal(err)
	}
	if err := <-ended; err != nil {
		log.Print(err)
	}
}

func take(response http.ResponseWriter, request *http.Request, publish publish) {
	query := request.URL.Query()
	value, err := strconv.Atoi(query.Get("rate"))
	if err != nil {
		http.Error(response, err.Error(), http.StatusBadRequest)
		return
	}
	message, err := json.Marshal(rate{value, query.Get("subject")})
	if err != nil {
		http.Error(response, err.Error(), http.StatusBadRequest)
		return
	}
	within, cancel := context.WithTimeout(request.Context(), confirmTimeout)
	defer cancel()
	if err := publish(within, message); err != nil {
		log.Print(err)
		http.Error(response, err.Error(), http.StatusServiceUnavailable)
	}
}
