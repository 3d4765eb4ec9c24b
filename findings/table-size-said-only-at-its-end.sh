#!/usr/bin/env bash
# gRPC's C core, told to give up its table of header fields and that it may have it again, says only the second; told both at
# once, it says nothing and keeps its table.
#
# Guess:  a client whose peer says SETTINGS_HEADER_TABLE_SIZE 0 and then 4096, both acknowledged between two requests, gives up
#         its table, and begins its next block of fields with both sizes, the smallest first (RFC 7541, section 4.2).
# Seen:   h2 4.4.1 (python) does: 20 3f e1 1f. grpcio 1.85.3 looks at what its peer's settings have come to when it writes next.
#         Told 4096 when it has acknowledged 0, it says 3f e1 1f, 4096 alone, and its table is empty. Told both in one piece, it
#         acknowledges both, says no size at all, and refers to fields of its old table.
# Why it matters: a server that hands a connection on to one without the client's table must wait for the acknowledgement of 0
#         before it says anything else of it, must not take a missing 0 for a table that was kept, nor an acknowledgement for
#         one that was given up. It has to look at what the client refers to.
# Needs python3 with venv.
set -euo pipefail
T=$(mktemp -d)
trap 'rm -rf "$T"' EXIT
cd "$T"
python3 -m venv v
v/bin/pip -q install --disable-pip-version-check grpcio==1.85.3 h2==4.4.1 hpack==4.2.0
cat >sizes.py <<'PY'
import socket
import threading

import grpc
import h2.connection
import hpack

SETTINGS, HEADERS, DATA, ACK, END_STREAM, END_HEADERS = 4, 1, 0, 1, 1, 4


def frame(kind, flags, stream, payload=b""):
    return len(payload).to_bytes(3, "big") + bytes([kind, flags]) + stream.to_bytes(4, "big") + payload


def table(size):
    return frame(SETTINGS, 0, 0, b"\0\1" + size.to_bytes(4, "big"))


class Server:
    """Answers one connection, and says `between` behind its first request: batches of SETTINGS, each when the one before it
    is acknowledged."""

    def __init__(self, between):
        self.between, self.blocks, self.quiet = between, [], threading.Event()
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.port = self.listener.getsockname()[1]
        threading.Thread(target=self.serve, daemon=True).start()

    def take(self, count):
        data = b""
        while len(data) < count:
            some = self.stream.recv(count - len(data))
            if not some:
                raise SystemExit
            data += some
        return data

    def serve(self):
        self.stream, _ = self.listener.accept()
        self.take(24)
        self.stream.sendall(frame(SETTINGS, 0, 0))
        owed, batches = 1, None
        while True:
            head = self.take(9)
            payload = self.take(int.from_bytes(head[:3], "big"))
            kind, flags, stream = head[3], head[4], int.from_bytes(head[5:], "big")
            if kind == SETTINGS and not flags & ACK:
                self.stream.sendall(frame(SETTINGS, ACK, 0))
            if kind == SETTINGS and flags & ACK:
                owed -= 1
            if kind == HEADERS:
                self.blocks.append(payload)
            if kind in (HEADERS, DATA) and flags & END_STREAM:
                fields = b"\x88\x0f\x10\x10application/grpc"
                trailers = b"\0\x0bgrpc-status\x010"
                self.stream.sendall(frame(HEADERS, END_HEADERS, stream, fields) + frame(DATA, 0, stream, bytes(5)))
                self.stream.sendall(frame(HEADERS, END_HEADERS | END_STREAM, stream, trailers))
                batches = list(self.between) if batches is None else batches
            if owed == 0 and batches is not None:
                if not batches:
                    self.quiet.set()
                    continue
                batch = batches.pop(0)
                owed = len(batch)
                self.stream.sendall(b"".join(batch))


def grpc_asks(server):
    with grpc.insecure_channel(f"127.0.0.1:{server.port}") as channel:
        call = channel.unary_unary("/a/b")
        for _ in range(3):
            assert call(b"") == b""
            assert server.quiet.wait(20)


def h2_asks(server):
    stream = socket.create_connection(("127.0.0.1", server.port))
    client = h2.connection.H2Connection()
    client.initiate_connection()
    fields = [(":method", "GET"), (":scheme", "http"), (":authority", "a"), (":path", "/a"), ("x-a", "b")]
    for number in (1, 3, 5):
        client.send_headers(number, fields, end_stream=True)
        stream.sendall(client.data_to_send())
        stream.settimeout(0.3)
        try:
            while data := stream.recv(65536):
                client.receive_data(data)
                stream.sendall(client.data_to_send())
        except TimeoutError:
            pass
        assert server.quiet.is_set()


def beginning(block):
    """The sizes of the table with which a block begins."""
    end = 0
    while end < len(block) and block[end] & 0xE0 == 0x20:
        end += 3 if block[end] == 0x3F else 1
    return block[:end].hex(" ") or "-"


def is_fresh(block):
    """Whether it can be read by whoever knows nothing of what came before."""
    try:
        return bool(hpack.Decoder().decode(block))
    except hpack.HPACKDecodingError:
        return False


seen = {}
for name, asks in (("grpcio", grpc_asks), ("h2", h2_asks)):
    for what, between in (
        ("0", [[table(0)]]),
        ("0, then 4096", [[table(0)], [table(4096)]]),
        ("0 and 4096", [[table(0), table(4096)]]),
    ):
        server = Server(between)
        asks(server)
        seen[name, what] = beginning(server.blocks[1]), is_fresh(server.blocks[1])
        print(f"{name:6}  told {what:12} says {seen[name, what][0]:14} its old table is {'gone' if seen[name, what][1] else 'used'}")
assert seen == {
    ("grpcio", "0"): ("20", True),
    ("grpcio", "0, then 4096"): ("3f e1 1f", True),
    ("grpcio", "0 and 4096"): ("-", False),
    ("h2", "0"): ("20", True),
    ("h2", "0, then 4096"): ("20 3f e1 1f", True),
    ("h2", "0 and 4096"): ("20 3f e1 1f", True),
}, seen
PY
GRPC_VERBOSITY=NONE v/bin/python sizes.py
