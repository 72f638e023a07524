"""A durable message queue on two nodes over HTTP: a primary and its synchronous backup. It needs nothing but Python 3.

The primary confirms a message when both nodes have synced it to their disks. It tells the consumer of a consumption under the
same condition. The backup answers 503 to producers and consumers.

Mode of a node: `new` (its disk is empty), `primary`, `alone` (a primary that an operator has promoted: it confirms without the
other node until that node has caught up), `backup` (it holds everything that was confirmed), `stale` (it may lack something).

Epoch: a pair (promotion, link). Each promotion raises the first number. Each connection that a primary makes to its backup
raises the second. A node stores a higher epoch before it uses it, and refuses whatever comes with a lower one: this stops a
former primary, and bytes that arrive late on a connection that was given up.

Log: one record after the other, from both nodes alike (big-endian):

    type 1 byte ('P' put, 'D' done, 'M' mode), length of id 2, length of body 4, id, body, CRC-32 of all that
"""
import argparse
import json
import os
import struct
import sys
import threading
import time
import uuid
import zlib
from collections import deque
from http.client import HTTPConnection, HTTPException
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs, unquote, urlparse

HEAD = struct.Struct(">cHI")
LEASE_SECONDS = 2
CONNECT_SECONDS = 0.5  # Longest wait for a connection to the other node.
LINK_SECONDS = 2  # Longest wait for an answer of the other node.
FRAME_BYTES = 1 << 22  # A copy of the queue goes over the link in frames of about this size.


def encode(kind, name, body=b""):
    record = HEAD.pack(kind, len(name), len(body)) + name + body
    return record + struct.pack(">I", zlib.crc32(record))


def encode_mode(mode, epoch):
    return encode(b"M", json.dumps([mode, *epoch]).encode())


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


class Refused(Exception):
    """This node must not do what it is asked. It has changed nothing."""


class Unanswered(Exception):
    """The record is in the log of this node. The other node may have it or not. Say neither yes nor no."""


class Store:
    """The log of one node, and what it says: the messages, the mode and the epoch."""

    def __init__(self, data):
        self.data, self.path = data, os.path.join(data, "log")
        self.bodies, self.mode, self.epoch = {}, "new", (0, 0)
        if os.path.exists(self.path):
            with open(self.path, "rb") as log:
                self.apply(log.read())

    def open(self):
        # Write the live messages to a new log, under another name until all of it is on the disk. Then no record is ever
        # appended behind a torn record, or behind a record whose sync failed.
        self.log = os.open(self.path + ".new", os.O_RDWR | os.O_CREAT | os.O_TRUNC, 0o600)
        self.write(encode_mode(self.mode, self.epoch))
        for name, body in self.bodies.items():
            self.write(encode(b"P", name, body))
        os.fsync(self.log)
        os.rename(self.path + ".new", self.path)
        # Sync the directory: without it the new name could be lost in a power cut.
        directory = os.open(self.data, os.O_RDONLY)
        os.fsync(directory)
        os.close(directory)

    def write(self, records):
        while records:
            records = records[os.write(self.log, records):]

    def apply(self, records):
        for kind, name, body in decode(records):
            if kind == b"P":
                self.bodies[name] = body
            elif kind == b"D":
                self.bodies.pop(name, None)
            else:
                self.mode, *epoch = json.loads(name)
                self.epoch = tuple(epoch)

    def append(self, records):
        try:
            self.write(records)
            os.fsync(self.log)
        except OSError:
            # Exit: the content of the disk is unknown now, and a second sync could succeed without writing the data. The
            # next start reads the log from the disk.
            os._exit(1)
        self.apply(records)


class Node:
    """One node of the queue. Every change is made under the lock `changed`."""

    def __init__(self, store, is_first, peer):
        self.store, self.is_first, self.peer = store, is_first, peer
        self.changed = threading.Condition()
        self.link = None  # The connection to a backup that holds everything; only a primary has one.
        self.waiting, self.leases = deque(store.bodies), {}

    # What both kinds of node do.

    def become(self, mode, epoch):
        """Stores a new mode and epoch. All leases end, because another node may have given out the same messages."""
        self.store.append(encode_mode(mode, epoch))
        self.unlink()
        self.waiting, self.leases = deque(self.store.bodies), {}

    def take_over(self, mode):
        """Becomes primary. One node takes odd numbers and the other even ones, so they never use the same epoch."""
        promotion = self.store.epoch[0] + 1
        self.become(mode, (promotion + (promotion % 2 != self.is_first), 0))

    def promote(self):
        """Makes this node primary, by order of an operator. It confirms alone until the other node has caught up."""
        with self.changed:
            if self.store.mode in ("new", "stale"):
                raise Refused(f"this node is {self.store.mode}: it does not hold everything that was confirmed")
            self.take_over("alone")

    def meet(self):
        """Asks the other node for its state, and does what follows from it."""
        link = HTTPConnection(*self.peer, timeout=CONNECT_SECONDS)
        link.connect()
        link.sock.settimeout(LINK_SECONDS)
        peer_mode, *peer_epoch = json.loads(ask(link, "GET", "/link"))
        with self.changed:
            mode, epoch = self.store.mode, self.store.epoch
            if peer_epoch[0] > epoch[0]:
                # The other node was promoted while this one could not reach it.
                if mode not in ("new", "stale"):
                    self.become("stale", epoch)
            elif mode in ("primary", "alone"):
                self.catch_up(link)
            elif peer_mode == "new" and (mode == "backup" or (mode == "new" and self.is_first)):
                # The first start of both, or the primary has lost its disk. It can confirm nothing any more.
                self.take_over("primary")

    # What a primary does.

    def serves(self):
        return self.store.mode == "alone" or (self.store.mode == "primary" and self.link is not None)

    def unlink(self):
        if self.link:
            self.link.close()
        self.link = None

    def catch_up(self, link):
        """Gives the other node what it lacks, and makes it the backup."""
        promotion, number = self.store.epoch
        self.store.append(encode_mode(self.store.mode, (promotion, number + 1)))
        held = {bytes.fromhex(name) for name in json.loads(self.send(link, b"", "/link/begin"))}
        frame = b"".join(encode(b"D", name) for name in held - self.store.bodies.keys())
        for name, body in self.store.bodies.items():
            if name not in held:
                frame += encode(b"P", name, body)
            if len(frame) >= FRAME_BYTES:
                self.send(link, frame)
                frame = b""
        self.send(link, frame)
        # From here on this node must not confirm alone, not even after a crash: the other one may be promoted.
        self.store.append(encode_mode("primary", self.store.epoch))
        self.send(link, encode_mode("backup", self.store.epoch))
        self.link = link
        self.changed.notify_all()

    def send(self, link, records, path="/link/records"):
        return ask(link, "POST", path, records, {"epoch": json.dumps(self.store.epoch)})

    def replicate(self, records):
        """Returns when the backup has synced the records. Without records, it proves that this node is still primary."""
        if self.store.mode == "alone":
            return
        try:
            self.send(self.link, records)
        except (OSError, HTTPException, Refused):
            self.unlink()
            raise Unanswered from None

    def check_link(self):
        with self.changed:
            if self.link:
                self.replicate(b"")

    def put(self, name, body):
        with self.changed:
            self.demand_primary()
            # A producer repeats a submit if the answer was lost. Store the message only once.
            if name not in self.store.bodies:
                self.store.append(encode(b"P", name, body))
                self.waiting.append(name)
                self.changed.notify()
                self.replicate(encode(b"P", name, body))

    def lease(self, seconds):
        end = time.monotonic() + seconds
        with self.changed:
            while True:
                self.demand_primary()
                now = time.monotonic()
                for key in [key for key, (_, until) in self.leases.items() if until < now]:
                    self.waiting.append(self.leases.pop(key)[0])
                if self.waiting:
                    # A former primary must not give out what the new one has already delivered.
                    self.replicate(b"")
                    name, key = self.waiting.popleft(), uuid.uuid4().hex
                    self.leases[key] = (name, now + LEASE_SECONDS)
                    return key, name, self.store.bodies[name]
                if now >= end:
                    return None
                self.changed.wait(min(end - now, 0.1))

    def consume(self, key):
        with self.changed:
            self.demand_primary()
            name, _ = self.leases.pop(key, (None, 0))
            if name is None:
                return False
            self.store.append(encode(b"D", name))
            self.replicate(encode(b"D", name))
            return True

    def demand_primary(self):
        if not self.serves():
            raise Refused(f"this node is {self.store.mode} and does not serve now")

    # What a backup does.

    def begin(self, epoch):
        """A primary connects with a new epoch. Returns the names of the messages that this node holds."""
        with self.changed:
            if epoch <= self.store.epoch:
                raise Refused(f"the epoch of this node is {self.store.epoch}")
            same_primary = self.store.mode == "backup" and epoch[0] == self.store.epoch[0]
            self.become("backup" if same_primary else "stale", epoch)
            return [name.hex() for name in self.store.bodies]

    def receive(self, epoch, records):
        # Check also before waiting for the lock: two nodes that both call the other one must not wait for each other.
        self.demand_link(epoch)
        with self.changed:
            self.demand_link(epoch)
            if records:
                self.store.append(records)

    def demand_link(self, epoch):
        if epoch != self.store.epoch or self.store.mode not in ("backup", "stale"):
            raise Refused(f"this node is {self.store.mode}, and its epoch is {self.store.epoch}")


def ask(link, method, path, body=b"", headers=None):
    """Returns the body of the answer of the other node. Raises Refused when it says no."""
    link.request(method, path, body, headers or {})
    response = link.getresponse()
    answer = response.read()
    if response.status != 200:
        raise Refused(answer.decode())
    return answer


def keep_in_touch(node):
    while True:
        try:
            if node.link:
                node.check_link()
            else:
                node.meet()
        except (OSError, HTTPException, Refused, Unanswered):
            pass
        time.sleep(0.1)


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

    def handle_request(self):
        size = int(self.headers.get("content-length", 0))
        body = self.rfile.read(size)
        if len(body) < size:  # The producer hung up inside its message, or the link broke inside a frame.
            self.close_connection = True
            return
        try:
            self.route(urlparse(self.path), body)
        except Refused as no:
            self.answer(503, str(no).encode())
        except Unanswered:
            self.close_connection = True

    do_PUT = do_POST = do_DELETE = do_GET = handle_request

    def route(self, url, body):
        call, last = f"{self.command} {url.path}", unquote(url.path.rsplit("/", 1)[1])
        if call == "GET /ready":
            self.answer(200 if node.serves() else 503)
        elif call == "GET /link":
            self.answer(200, json.dumps([node.store.mode, *node.store.epoch]).encode())
        elif call == "POST /link/begin":
            self.answer(200, json.dumps(node.begin(tuple(json.loads(self.headers["epoch"])))).encode())
        elif call == "POST /link/records":
            node.receive(tuple(json.loads(self.headers["epoch"])), body)
            self.answer(200)
        elif call == "POST /promote":
            node.promote()
            self.answer(200)
        elif call == "POST /leases":
            leased = node.lease(int(parse_qs(url.query).get("wait", ["0"])[0]) / 1000)
            if leased is None:
                self.answer(204)
            else:
                key, name, message = leased
                self.answer(200, message, message_id=name.decode(), lease=key)
        elif self.command == "PUT":
            node.put(last.encode(), body)
            self.answer(201)
        elif self.command == "DELETE":
            self.answer(204 if node.consume(last) else 404)
        else:
            self.answer(404)

    def log_message(self, *_):
        pass


flags = argparse.ArgumentParser()
flags.add_argument("order", choices=["serve", "promote", "verify"])
flags.add_argument("--data", help="directory of this node")
flags.add_argument("--name", help="name of this node")
flags.add_argument("--host", help="address of this node")
flags.add_argument("--peer", help="NAME=ADDRESS of the other node")
flags.add_argument("--port", type=int, help="port of both nodes")
given = flags.parse_args()
if given.order == "promote":
    try:
        ask(HTTPConnection(given.host, given.port, timeout=10), "POST", "/promote")
    except (OSError, HTTPException, Refused) as problem:
        sys.exit(f"promote: {problem}")
elif given.order == "verify":
    print(json.dumps({"ok": True, "problems": [], "keptAside": 0, "live": len(Store(given.data).bodies)}))
else:
    store = Store(given.data)
    store.open()
    peer_name, peer_host = given.peer.split("=")
    node = Node(store, given.name < peer_name, (peer_host, given.port))
    threading.Thread(target=keep_in_touch, args=(node,), daemon=True).start()
    ThreadingHTTPServer((given.host, given.port), Front).serve_forever()
