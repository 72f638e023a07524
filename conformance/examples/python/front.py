"""The front of a queue of two services: it accepts the requests and passes each to the store, which is queue.py.

It keeps nothing, so a crash of it loses nothing. Only an answer of the store confirms a message.
"""
import argparse
from http.client import HTTPConnection, HTTPException
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


class Front(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True

    def relay(self):
        size = int(self.headers.get("content-length", 0))
        body = self.rfile.read(size)
        if len(body) < size:  # The producer hung up inside its message. The store must not get a part of it.
            self.close_connection = True
            return
        # Open a new connection for each request: a crash of the store breaks its old connections.
        store = HTTPConnection("127.0.0.1", given.store)
        try:
            store.connect()
        except OSError:
            # The store got nothing. This is a clear no: the producer may send the message elsewhere.
            self.answer(503)
            return
        try:
            store.request(self.command, self.path, body)
            response = store.getresponse()
            self.answer(response.status, response.read(), response.headers)
        except (OSError, HTTPException):
            # The store may have stored the message before it crashed. Say neither yes nor no.
            self.close_connection = True
        finally:
            store.close()

    do_PUT = do_POST = do_DELETE = do_GET = relay

    def answer(self, status, body=b"", headers=()):
        self.send_response(status)
        for name in ("message-id", "lease"):
            if name in headers:
                self.send_header(name, headers[name])
        if status != 204:
            self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_):
        pass


flags = argparse.ArgumentParser()
flags.add_argument("--port", type=int, required=True)
flags.add_argument("--store", type=int, required=True)
given = flags.parse_args()
ThreadingHTTPServer(("127.0.0.1", given.port), Front).serve_forever()
