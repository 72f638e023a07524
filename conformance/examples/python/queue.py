"""A durable message queue over HTTP in 160 lines: a starting point for authors. It needs nothing but Python 3.

The queue is one log of records. Each record has its length and a checksum, and is synced before it is answered:

    type 1 byte ('P' put, 'D' done), length of id 2, length of body 4, id, body, CRC-32 of all that (big-endian)
"""
import argparse
import os
import struct
import threading
import time
import uuid
import zlib
from collections import deque
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs, unquote, urlparse

HEAD = struct.Struct(">cHI")
LEASE_SECONDS = 2


def encode(kind, name, body=b""):
    record = HEAD.pack(kind, len(name), len(body)) + name + body
    return record + struct.pack(">I", zlib.crc32(record))


def decode(log):
    """Yields the whole records from the start of the log. The bytes behind them were torn by a crash and never confirmed."""
    at = 0
    while at + HEAD.size + 4 <= len(log):
        kind, name_size, body_size = HEAD.unpack_from(log, at)
        middle = at + HEAD.size + name_size
        end = middle + body_size
        if end + 4 > len(log) or log[end:end + 4] != struct.pack(">I", zlib.crc32(log[at:end])):
            return
        yield kind, log[at + HEAD.size:middle], log[middle:end]
        at = end + 4


class Queue:
    def __init__(self, data):
        self.changed = threading.Condition()
        self.bodies = {}
        self.leases = {}
        path = os.path.join(data, "log")
        if os.path.exists(path):
            with open(path, "rb") as log:
                for kind, name, body in decode(log.read()):
                    if kind == b"P":
                        self.bodies[name] = body
                    else:
                        self.bodies.pop(name, None)
        self.waiting = deque(self.bodies)
        # Write the live messages to a new log, under another name until all of it is on the disk. Then no record is ever
        # appended behind a torn record, or behind a record whose sync failed.
        self.log = os.open(path + ".new", os.O_RDWR | os.O_CREAT | os.O_TRUNC, 0o600)
        for name, body in self.bodies.items():
            self.write(encode(b"P", name, body))
        os.fsync(self.log)
        os.rename(path + ".new", path)
        # Sync the directory: without it the new name could be lost in a power cut.
        directory = os.open(data, os.O_RDONLY)
        os.fsync(directory)
        os.close(directory)

    def write(self, record):
        while record:
            record = record[os.write(self.log, record):]

    def append(self, record):
        try:
            self.write(record)
            os.fsync(self.log)
        except OSError:
            # Exit: the content of the disk is unknown now, and a second sync could succeed without writing the data. The
            # next start reads the log from the disk.
            os._exit(1)

    def put(self, name, body):
        with self.changed:
            # A producer repeats a submit if the answer was lost. Store the message only once.
            if name not in self.bodies:
                self.append(encode(b"P", name, body))
                self.bodies[name] = body
                self.waiting.append(name)
                self.changed.notify()

    def lease(self, seconds):
        end = time.monotonic() + seconds
        with self.changed:
            while True:
                now = time.monotonic()
                for key in [key for key, (_, until) in self.leases.items() if until < now]:
                    self.waiting.append(self.leases.pop(key)[0])
                if self.waiting:
                    name, key = self.waiting.popleft(), uuid.uuid4().hex
                    self.leases[key] = (name, now + LEASE_SECONDS)
                    return key, name, self.bodies[name]
                if now >= end:
                    return None
                self.changed.wait(min(end - now, 0.1))

    def consume(self, key):
        with self.changed:
            name, _ = self.leases.pop(key, (None, 0))
            if name is None:
                return False
            self.append(encode(b"D", name))
            del self.bodies[name]
            return True


class Front(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True

    def answer(self, status, body=b"", **headers):
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), value)
        if status != 204:
            self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def do_PUT(self):
        size = int(self.headers["content-length"])
        body = self.rfile.read(size)
        if len(body) < size:  # The producer hung up inside its message.
            self.close_connection = True
            return
        queue.put(unquote(urlparse(self.path).path.rsplit("/", 1)[1]).encode(), body)
        self.answer(201)

    def do_POST(self):
        wait = parse_qs(urlparse(self.path).query).get("wait", ["0"])[0]
        leased = queue.lease(int(wait) / 1000)
        if leased is None:
            self.answer(204)
        else:
            key, name, body = leased
            self.answer(200, body, message_id=name.decode(), lease=key)

    def do_DELETE(self):
        self.answer(204 if queue.consume(self.path.rsplit("/", 1)[1]) else 404)

    def do_GET(self):
        self.answer(200 if self.path == "/ready" else 404)

    def log_message(self, *_):
        pass


flags = argparse.ArgumentParser()
flags.add_argument("--data", required=True)
flags.add_argument("--port", type=int, required=True)
given = flags.parse_args()
queue = Queue(given.data)
ThreadingHTTPServer(("127.0.0.1", given.port), Front).serve_forever()
