// The front of a queue of two services: it accepts the requests and passes each to the store, which is ../queue.go.
// It keeps nothing, so a crash of it loses nothing. Only an answer of the store confirms a message.
package main

import (
	"errors"
	"flag"
	"fmt"
	"log"
	"net/http"
	"net/http/httputil"
	"net/url"
	"syscall"
)

func main() {
	port, store := flag.Int("port", 0, "port of the front"), flag.Int("store", 0, "port of the store")
	flag.Parse()
	relay := httputil.NewSingleHostReverseProxy(&url.URL{Scheme: "http", Host: fmt.Sprintf("127.0.0.1:%d", *store)})
	// Open a new connection for each request: a crash of the store breaks its old connections.
	relay.Transport = &http.Transport{DisableKeepAlives: true}
	relay.ErrorHandler = func(w http.ResponseWriter, _ *http.Request, err error) {
		if errors.Is(err, syscall.ECONNREFUSED) {
			// The store got nothing. This is a clear no: the producer may send the message elsewhere.
			w.WriteHeader(http.StatusServiceUnavailable)
			return
		}
		// The store may have stored the message before it crashed. Say neither yes nor no.
		w.WriteHeader(http.StatusBadGateway)
	}
	log.Fatal(http.ListenAndServe(fmt.Sprintf("127.0.0.1:%d", *port), relay))
}
