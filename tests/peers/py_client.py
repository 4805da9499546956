"""A client of README.md's servers on Python's websockets: exits non-zero on any mismatch."""

import argparse
import asyncio
import json
import random
import sys
import time
from urllib.parse import urljoin
from uuid import uuid4

import websockets
from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed

# Around the borders of the three length encodings (RFC 6455, 5.2), then past any buffer.
SIZES = [0, 1, 125, 126, 127, 65535, 65536, 1 << 20, 4 << 20]
FRAGMENT = 1000  # as the servers'
CONCURRENT = 200
LIMIT_S = 120  # a whole mode; a session that hangs is a mismatch too


class Mismatch(Exception):
    pass


def expect(what, got, want):
    if got != want:
        show = lambda v: f"{len(v)} of {v[:40]!r}" if isinstance(v, (str, bytes)) else repr(v)
        raise Mismatch(f"{what}: got {show(got)}, want {show(want)}")


def text(size):
    """Exactly `size` bytes of UTF-8, with characters of 1 to 4 bytes."""
    return "aé€😀" * (size // 10) + "x" * (size % 10)


def binary(size):
    """Bytes that no compression makes smaller, the same in every run."""
    return random.Random(size).randbytes(size)


class Peer:
    def __init__(self, url, compression):
        self.url, self.compression = url, compression
        self.sessions = self.messages = self.bytes = 0

    def open(self, path="/", **options):
        self.sessions += 1
        deflate = "deflate" if self.compression == "on" else None
        return connect(
            urljoin(self.url, path), compression=deflate, max_size=None, open_timeout=30, proxy=None, **options
        )

    def count(self, message):
        self.messages += 1
        self.bytes += len(message.encode()) if isinstance(message, str) else len(message)

    async def round_trip(self, ws, message, want=None):
        await ws.send(message)
        got = await ws.recv()
        want = message if want is None else want
        expect("echo", got, want)
        self.count(want)

    async def echo(self):
        async with self.open() as ws:
            negotiated = [e.name for e in ws.protocol.extensions]
            expect("extensions", negotiated, ["permessage-deflate"] if self.compression == "on" else [])
            for size in SIZES:
                await self.round_trip(ws, text(size))
                await self.round_trip(ws, binary(size))
            # Many in flight: none lost, none out of order.
            burst = [f"{n} {text(n)}" for n in range(1000)]

            async def write():
                for m in burst:
                    await ws.send(m)

            writer = asyncio.create_task(write())
            for m in burst:
                expect("burst", await ws.recv(), m)
                self.count(m)
            await writer

    async def fragments(self):
        async with self.open() as ws:
            for whole in (text(100_000), binary(100_000)):
                parts = [whole[i : i + FRAGMENT] for i in range(0, len(whole), FRAGMENT)]
                await self.round_trip(ws, parts, whole)
                await self.round_trip(ws, [whole[:0], whole[:1], whole[:0], whole[1:]], whole)
        async with self.open("/fragments") as ws:
            for whole in (text(100_000), binary(100_000)):
                await ws.send(whole)
                got = [f async for f in ws.recv_streaming()]
                expect("fragments joined", whole[:0].join(got), whole)
                # Frame by frame as they were sent: a gateway must not join or split them.
                # A server may end with an empty frame that only says FIN.
                want = [FRAGMENT] * (len(whole) // FRAGMENT) + [len(whole) % FRAGMENT]
                expect("fragment sizes", [n for n in map(len, got) if n], [n for n in want if n])
                self.count(whole)

    async def ping(self):
        async with self.open("/control") as ws:
            for payload in (b"", b"x", bytes(125)):
                await asyncio.wait_for(await ws.ping(payload), 10)
            await self.round_trip(ws, "ping", "ponged")  # and the server's to us

    async def close(self):
        for code, reason in ((1000, ""), (1000, "done"), (3000, "über")):
            # Ours, as the server saw it.
            token = uuid4().hex
            async with self.open("/control") as ws:
                await self.round_trip(ws, f"mark {token}", "marked")
                await ws.close(code, reason)
                answer = ws.protocol.close_rcvd  # None: no Close frame came back
                expect("close echoed", answer and answer.code, code)
            async with self.open("/control") as ws:
                for _ in range(50):  # the server notes it a moment after it answers our Close
                    await ws.send(f"seen {token}")
                    if (seen := await ws.recv()) != "open":
                        break
                    await asyncio.sleep(0.1)
                expect("close seen by the server", seen, f"{code} {reason}")
            # The server's, as we see it.
            async with self.open("/control") as ws:
                await ws.send(f"close {code} {reason}")
                try:
                    raise Mismatch(f"message {await ws.recv()!r} instead of a Close")
                except ConnectionClosed as closed:
                    got = closed.rcvd
                    if got is None:
                        raise Mismatch("no Close frame from the server (1006)") from None
                    expect("close from the server", (got.code, got.reason), (code, reason))

    async def subprotocol(self):
        for offer, want in ((["chat"], "chat"), (["other", "chat"], "chat"), (None, None)):
            async with self.open(subprotocols=offer) as ws:
                expect(f"subprotocol of {offer}", ws.subprotocol, want)
                await self.round_trip(ws, "hello")

    async def many(self):
        everyone = asyncio.Barrier(CONCURRENT)  # all are open before the first one closes

        async def one(n):
            async with self.open(f"/many?{n}") as ws:
                await asyncio.wait_for(everyone.wait(), 60)
                for k in range(5):
                    await self.round_trip(ws, f"session {n} message {k}")
                await self.round_trip(ws, binary(4096 + n))

        async with asyncio.TaskGroup() as group:
            for n in range(CONCURRENT):
                group.create_task(one(n))


MODES = ["echo", "fragments", "ping", "close", "subprotocol", "many"]


async def main():
    args = argparse.ArgumentParser()
    args.add_argument("--url", required=True, help="ws://127.0.0.1:PORT/")
    args.add_argument("--mode", choices=["all", *MODES], default="all")
    args.add_argument("--compression", choices=["on", "off", "both"], default="both")
    args = args.parse_args()
    results, failed = [], False
    for compression in ["on", "off"] if args.compression == "both" else [args.compression]:
        for mode in MODES if args.mode == "all" else [args.mode]:
            peer, start = Peer(args.url, compression), time.monotonic()
            row = {"mode": mode, "compression": compression, "ok": True}
            try:
                await asyncio.wait_for(getattr(peer, mode)(), LIMIT_S)
            except (Exception, ExceptionGroup) as error:
                while isinstance(error, ExceptionGroup):
                    error = error.exceptions[0]
                failed = True
                row |= {"ok": False, "error": f"{type(error).__name__}: {error}"}
                print(f"FAIL {mode}, compression {compression}: {row['error']}", file=sys.stderr)
            row |= {"sessions": peer.sessions, "messages": peer.messages, "bytes": peer.bytes}
            results.append(row | {"ms": round((time.monotonic() - start) * 1000)})
    print(json.dumps({
        "client": f"websockets {websockets.__version__}", "url": args.url, "ok": not failed,
        "sessions": sum(r["sessions"] for r in results), "results": results,
    }))
    return 1 if failed else 0


sys.exit(asyncio.run(main()))
