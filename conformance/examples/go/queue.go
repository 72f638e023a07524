// A durable message queue over HTTP in 220 lines: a starting point for authors. It needs nothing but Go's standard library.
//
// The queue is one log of records. Each record has its length and a checksum, and is synced before it is answered:
//
//	type 1 byte ('P' put, 'D' done), length of id 2, length of body 4, id, body, CRC-32 of all that (big-endian)
package main

import (
	"encoding/binary"
	"errors"
	"flag"
	"fmt"
	"hash/crc32"
	"io"
	"io/fs"
	"log"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"time"
)

const (
	headBytes = 7
	sumBytes  = 4
	leaseTime = 2 * time.Second
)

func encode(kind byte, id string, body []byte) []byte {
	record := append(make([]byte, 0, headBytes+len(id)+len(body)+sumBytes), kind)
	record = binary.BigEndian.AppendUint16(record, uint16(len(id)))
	record = binary.BigEndian.AppendUint32(record, uint32(len(body)))
	record = append(append(record, id...), body...)
	return binary.BigEndian.AppendUint32(record, crc32.ChecksumIEEE(record))
}

// decode calls found for each whole record from the start of the log. The bytes after them were torn by a crash and never
// confirmed.
func decode(bytes []byte, found func(kind byte, id string, body []byte)) {
	for len(bytes) >= headBytes+sumBytes {
		middle := headBytes + int(binary.BigEndian.Uint16(bytes[1:]))
		end := middle + int(binary.BigEndian.Uint32(bytes[3:]))
		if end+sumBytes > len(bytes) || crc32.ChecksumIEEE(bytes[:end]) != binary.BigEndian.Uint32(bytes[end:]) {
			return
		}
		found(bytes[0], string(bytes[headBytes:middle]), bytes[middle:end])
		bytes = bytes[end+sumBytes:]
	}
}

type lease struct {
	id    string
	until time.Time
}

type queue struct {
	mutex   sync.Mutex
	log     *os.File
	bodies  map[string][]byte
	waiting []string // ids of messages that are not leased, in order
	leases  map[string]lease
	leased  int
	wake    chan struct{} // has an element when a message was put
}

func open(data string) (*queue, error) {
	q := &queue{bodies: map[string][]byte{}, leases: map[string]lease{}, wake: make(chan struct{}, 1)}
	path := filepath.Join(data, "log")
	old, err := os.ReadFile(path)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	var order []string
	decode(old, func(kind byte, id string, body []byte) {
		if kind == 'P' {
			q.bodies[id] = body
			order = append(order, id)
		} else {
			delete(q.bodies, id)
		}
	})
	// Write the live messages to a new log, under another name until all of it is on the disk. Then no record is ever
	// appended behind a torn record, or behind a record whose sync failed.
	if q.log, err = os.Create(path + ".new"); err != nil {
		return nil, err
	}
	written := map[string]bool{}
	for _, id := range order {
		if body, live := q.bodies[id]; live && !written[id] {
			written[id] = true
			q.waiting = append(q.waiting, id)
			if _, err = q.log.Write(encode('P', id, body)); err != nil {
				return nil, err
			}
		}
	}
	if err = q.log.Sync(); err != nil {
		return nil, err
	}
	if err = os.Rename(path+".new", path); err != nil {
		return nil, err
	}
	// Sync the directory: without it the new name could be lost in a power cut.
	directory, err := os.Open(data)
	if err != nil {
		return nil, err
	}
	defer directory.Close()
	return q, directory.Sync()
}

func (q *queue) append(record []byte) {
	_, err := q.log.Write(record)
	if err == nil {
		err = q.log.Sync()
	}
	if err != nil {
		// Exit: the content of the disk is unknown now, and a second sync could succeed without writing the data. The
		// next start reads the log from the disk.
		log.Fatal(err)
	}
}

func (q *queue) put(id string, body []byte) {
	q.mutex.Lock()
	defer q.mutex.Unlock()
	// A producer repeats a submit if the answer was lost. Store the message only once.
	if _, known := q.bodies[id]; known {
		return
	}
	q.append(encode('P', id, body))
	q.bodies[id] = body
	q.waiting = append(q.waiting, id)
	select {
	case q.wake <- struct{}{}:
	default:
	}
}

func (q *queue) tryLease() (key, id string, body []byte) {
	q.mutex.Lock()
	defer q.mutex.Unlock()
	now := time.Now()
	for old, held := range q.leases {
		if held.until.Before(now) {
			delete(q.leases, old)
			q.waiting = append(q.waiting, held.id)
		}
	}
	if len(q.waiting) == 0 {
		return "", "", nil
	}
	id, q.waiting = q.waiting[0], q.waiting[1:]
	q.leased++
	key = fmt.Sprintf("%d-%d", os.Getpid(), q.leased)
	q.leases[key] = lease{id, now.Add(leaseTime)}
	return key, id, q.bodies[id]
}

func (q *queue) lease(wait time.Duration) (key, id string, body []byte) {
	end := time.Now().Add(wait)
	for {
		key, id, body = q.tryLease()
		if key != "" || !time.Now().Before(end) {
			return key, id, body
		}
		select {
		case <-q.wake:
		case <-time.After(100 * time.Millisecond): // A lease may have ended.
		}
	}
}

func (q *queue) consume(key string) bool {
	q.mutex.Lock()
	defer q.mutex.Unlock()
	held, known := q.leases[key]
	if !known {
		return false
	}
	q.append(encode('D', held.id, nil))
	delete(q.leases, key)
	delete(q.bodies, held.id)
	return true
}

func (q *queue) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	body, err := io.ReadAll(r.Body)
	if err != nil { // The producer hung up inside its message. Nothing was submitted.
		panic(http.ErrAbortHandler)
	}
	name := r.URL.Path[strings.LastIndex(r.URL.Path, "/")+1:]
	switch {
	case r.Method == "PUT":
		q.put(name, body)
		w.WriteHeader(http.StatusCreated)
	case r.Method == "POST":
		ms, _ := strconv.Atoi(r.URL.Query().Get("wait"))
		key, id, body := q.lease(time.Duration(ms) * time.Millisecond)
		if key == "" {
			w.WriteHeader(http.StatusNoContent)
			return
		}
		w.Header().Set("message-id", id)
		w.Header().Set("lease", key)
		w.Header().Set("content-length", strconv.Itoa(len(body)))
		w.Write(body)
	case r.Method == "DELETE" && q.consume(name):
		w.WriteHeader(http.StatusNoContent)
	case r.Method == "GET" && name == "ready":
	default:
		w.WriteHeader(http.StatusNotFound)
	}
}

func main() {
	data, port := flag.String("data", "", "directory of the log"), flag.Int("port", 0, "port of the HTTP server")
	flag.Parse()
	q, err := open(*data)
	if err != nil {
		log.Fatal(err)
	}
	log.Fatal(http.ListenAndServe(fmt.Sprintf("127.0.0.1:%d", *port), q))
}
