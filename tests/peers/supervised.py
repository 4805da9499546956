"""Python's websockets as a server and as a client that count what they get, for what the gateway
does to frames: README.md says what each mode does."""

import asyncio
import json
import logging
import random
import sys

from websockets.asyncio.client import ClientConnection, connect
from websockets.asyncio.server import ServerConnection, serve
from websockets.exceptions import ConnectionClosed
from websockets.frames import Frame, Opcode

PINGS = 10  # of the gateway, to each side
MESSAGES = 40
SESSIONS = 6  # half of them compressed; of those that end late, half are silent
IN_FLIGHT = 4
LIMIT_S = 60  # each wait
LARGEST = 17  # sizes are below two to the power of this


class Counting:
    """Counts what passes. Pings of the gateway have 8 bytes, those of the peers others."""

    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        self.sent = {"text": 0, "binary": 0, "pings": 0}
        self.got = {"text": 0, "binary": 0, "pongs": 0, "pings": 0, "gateway_pings": 0}
        self.pinged = asyncio.Event()

    def process_event(self, event):
        if isinstance(event, Frame):
            if event.opcode is Opcode.PONG:
                self.got["pongs"] += 1
            elif event.opcode is Opcode.PING:
                ours = len(event.data) == 8
                self.got["gateway_pings" if ours else "pings"] += 1
                if self.got["gateway_pings"] >= PINGS:
                    self.pinged.set()
        super().process_event(event)

    async def say(self, message, fragmented=False):
        self.sent["text" if isinstance(message, str) else "binary"] += 1
        if fragmented:
            cut = len(message) // 2
            message = [message[:cut], message[cut:]]
        await self.send(message)

    async def hear(self):
        message = await self.recv()
        self.got["text" if isinstance(message, str) else "binary"] += 1
        return message

    async def ask(self):
        """A Ping; the answer is awaited by who wants to."""
        self.sent["pings"] += 1
        return await self.ping(f"ping {self.sent['pings']} of a peer")

    async def end(self):
        await self.wait_closed()
        # The Close frames themselves: close_code would be 1006 or ours without one.
        got, sent = self.protocol.close_rcvd, self.protocol.close_sent
        error = self.protocol.parser_exc
        return json.dumps({
            "compressed": bool(self.protocol.extensions), "sent": self.sent, "got": self.got,
            "code": got.code if got else 1006, "reason": got.reason if got else "",
            "clean": got is not None and sent is not None and got.code == sent.code,
            "error": str(error) if error else None,
        })  # fmt: skip


class Server(Counting, ServerConnection):
    pass


class Client(Counting, ClientConnection):
    pass


async def handle(ws):
    try:
        while True:
            message = await ws.hear()
            if message == "wait":
                await ws.pinged.wait()
                await ws.say("pinged")
                continue
            # Its answer comes before the client's next message.
            if ws.got["binary"] % 7 == 3:
                await ws.ask()
            await ws.say(message)
    except ConnectionClosed:
        pass
    print(await ws.end(), flush=True)


async def server():
    logging.getLogger("websockets").setLevel(logging.CRITICAL)
    listener = await serve(
        handle, "127.0.0.1", 0, create_connection=Server, max_size=None, ping_interval=None
    )
    print("LISTENING", listener.sockets[0].getsockname()[1], flush=True)
    await listener.serve_forever()


async def open_session(url, compressed):
    ws = await connect(
        url,
        create_connection=Client,
        compression="deflate" if compressed else None,
        ping_interval=None,
        max_size=None,
        proxy=None,
    )
    assert bool(ws.protocol.extensions) == compressed, ws.protocol.extensions
    return ws


def message():
    size = random.randrange(2 ** random.randint(0, LARGEST))
    return random.randbytes(size) if random.random() < 0.5 else "aé€😀" * (size // 10)


async def pinged(ws, _nth, _ready):
    """Silent until both sides were pinged, then echoes."""
    await ws.say("wait")
    assert await ws.hear() == "pinged"
    await ws.pinged.wait()
    for n in range(MESSAGES):
        said = message()
        await ws.say(said, fragmented=n % 5 == 0)
        heard = await ws.hear()
        assert heard == said, f"echo of {len(said)}"
        if n % 4 == 0:
            await (await ws.ask())
    await ws.close(1000, "done")


async def until_closed(ws, nth, ready):
    """A few echoes, and then, until somebody closes the session, more of them or silence."""
    talks = nth % 4 < 2
    for _ in range(IN_FLIGHT):
        await ws.say("first")
    echoes = 0
    try:
        while True:
            await ws.hear()
            echoes += 1
            if echoes == 4 * IN_FLIGHT:
                ready()
            if talks or echoes <= 3 * IN_FLIGHT:
                await ws.say("x" * random.randrange(500))
    except ConnectionClosed:
        pass


async def client(mode, url):
    sessions = await asyncio.gather(*(open_session(url, n % 2 == 0) for n in range(SESSIONS)))
    unready = SESSIONS

    def ready():
        nonlocal unready
        unready -= 1
        if unready == 0:
            print("READY", flush=True)

    act = pinged if mode == "pinged" else until_closed
    async with asyncio.TaskGroup() as group:
        for nth, ws in enumerate(sessions):
            group.create_task(act(ws, nth, ready))
    for ws in sessions:
        print(await ws.end())


role, *args = sys.argv[1:]
asyncio.run(server() if role == "server" else asyncio.wait_for(client(role, *args), LIMIT_S))
