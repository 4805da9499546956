"""The echo server of README.md on Python's websockets."""

import argparse
import asyncio
import logging

from websockets.asyncio.server import serve
from websockets.exceptions import ConnectionClosed

FRAGMENT = 1000
ends = {}  # token -> "CODE REASON" of the session that marked itself with it


async def control(ws):
    token = None
    try:
        async for message in ws:
            word, _, rest = message.partition(" ")
            if word == "ping":
                await (await ws.ping(b"from the server"))
                await ws.send("ponged")
            elif word == "close":
                code, _, reason = rest.partition(" ")
                await ws.close(int(code), reason)
            elif word == "mark":
                token = rest
                ends[token] = "open"
                await ws.send("marked")
            elif word == "seen":
                await ws.send(ends.get(rest, "unknown"))
            else:
                await ws.close(1008, "unknown command")
    finally:
        if token:
            # From the Close frame itself: close_code would be 1006 or ours without one.
            got = ws.protocol.close_rcvd
            ends[token] = f"{got.code} {got.reason}" if got else "no Close frame"


async def handle(ws):
    path = ws.request.path.partition("?")[0]
    try:
        if path == "/control":
            await control(ws)
        elif path == "/fragments":
            async for m in ws:
                await ws.send([m[i : i + FRAGMENT] for i in range(0, len(m), FRAGMENT)])
        else:
            async for m in ws:
                await ws.send(m)
    except ConnectionClosed:
        pass  # a client that breaks the protocol is what Autobahn is for


async def main():
    args = argparse.ArgumentParser()
    args.add_argument("--port", type=int, default=0)
    args.add_argument("--compression", choices=["on", "off"], default="on")
    args = args.parse_args()
    logging.getLogger("websockets").setLevel(logging.CRITICAL)
    deflate = "deflate" if args.compression == "on" else None
    server = await serve(
        handle,
        "127.0.0.1",
        args.port,
        # Not `subprotocols=["chat"]`: websockets then answers 400 to who offers none.
        select_subprotocol=lambda ws, offered: "chat" if "chat" in offered else None,
        compression=deflate,
        max_size=None,
        backlog=512,  # the default 100 drops SYNs of 200 clients at once: a second each
    )
    print("LISTENING", server.sockets[0].getsockname()[1], flush=True)
    await server.serve_forever()


asyncio.run(main())
