// npm's ws as a server and as a client that count what they get, for what the gateway does to
// frames: README.md says what each mode does.
'use strict';
const WebSocket = require('ws');
const { once } = require('node:events');
const { setTimeout: sleep } = require('node:timers/promises');

const PINGS = 10; // of the gateway, to each side
const MESSAGES = 40;
const SESSIONS = 6; // half of them compressed; of those that end late, half are silent
const IN_FLIGHT = 4;
const LIMIT_MS = 60_000; // each wait
const LARGEST = 17; // sizes are below two to the power of this

const kind = (binary) => (binary ? 'binary' : 'text');

// Counts what passes on a socket. Pings of the gateway have 8 bytes, those of the peers others.
class Counted {
  sent = { text: 0, binary: 0, pings: 0 };
  got = { text: 0, binary: 0, pongs: 0, pings: 0, gateway_pings: 0 };
  error = null;
  inbox = [];
  waiting = [];

  constructor(ws) {
    this.ws = ws;
    this.compressed = ws.extensions.includes('permessage-deflate');
    ws.on('message', (data, binary) => {
      this.got[kind(binary)] += 1;
      this.onMessage?.(data, binary);
    });
    ws.on('pong', () => (this.got.pongs += 1));
    ws.on('ping', (data) => {
      this.got[data.length === 8 ? 'gateway_pings' : 'pings'] += 1;
      if (this.got.gateway_pings === PINGS) this.onPinged?.();
    });
    ws.on('error', (error) => (this.error = error.message));
    this.closed = new Promise((resolve) => ws.addEventListener('close', resolve));
  }

  send(data, binary, fragmented = false) {
    this.sent[kind(binary)] += 1;
    if (!fragmented) return this.ws.send(data, { binary });
    const cut = Math.floor(data.length / 2);
    this.ws.send(data.subarray(0, cut), { binary, fin: false });
    this.ws.send(data.subarray(cut), { binary, fin: true });
  }

  ping() {
    this.sent.pings += 1;
    this.ws.ping(`ping ${this.sent.pings} of a peer`);
  }

  async end() {
    const { code, reason, wasClean } = await this.closed;
    const { sent, got, compressed, error } = this;
    return { compressed, sent, got, code, reason, clean: wasClean, error };
  }
}

function serve(ws) {
  const session = new Counted(ws);
  const pinged = new Promise((resolve) => (session.onPinged = resolve));
  session.onMessage = async (data, binary) => {
    if (!binary && data.toString() === 'wait') {
      await pinged;
      session.send('pinged', false);
      return;
    }
    // Its answer comes before the client's next message.
    if (session.got.binary % 7 === 3) session.ping();
    session.send(data, binary);
  };
  session.end().then((end) => console.log(JSON.stringify(end)));
}

function server() {
  const listener = new WebSocket.Server({
    host: '127.0.0.1', port: 0, perMessageDeflate: { threshold: 0 },
  });
  listener.on('connection', serve);
  listener.on('listening', () => console.log(`LISTENING ${listener.address().port}`));
}

async function open(url, compressed) {
  const ws = new WebSocket(url, { perMessageDeflate: compressed && { threshold: 0 } });
  const session = new Counted(ws);
  await once(ws, 'open');
  session.compressed = ws.extensions.includes('permessage-deflate');
  if (session.compressed !== compressed) throw new Error(`extensions: ${ws.extensions}`);
  return session;
}

const random = (below) => Math.floor(Math.random() * below);
function message() {
  const data = Buffer.alloc(random(2 ** random(LARGEST + 1)), 'aé€😀');
  const binary = random(2) === 1;
  // Text may not end inside a character.
  return { binary, data: binary ? data : Buffer.from(data.toString().replaceAll('\ufffd', '?')) };
}

const next = (session) => new Promise((resolve) => {
  session.onMessage = (data, binary) => resolve({ data, binary });
});

// Silent until both sides were pinged, then echoes.
async function pinged(session) {
  const ours = new Promise((resolve) => (session.onPinged = resolve));
  let answer = next(session);
  session.send('wait', false);
  if ((await answer).data.toString() !== 'pinged') throw new Error('not the answer to "wait"');
  if (session.got.gateway_pings < PINGS) await ours;
  for (let n = 0; n < MESSAGES; n += 1) {
    const { data, binary } = message();
    answer = next(session);
    session.send(data, binary, n % 5 === 0);
    const got = await answer;
    if (got.binary !== binary || !data.equals(got.data)) throw new Error(`echo of ${data.length} bytes`);
    if (n % 4 === 0) {
      const pong = once(session.ws, 'pong');
      session.ping();
      if (!(await pong)[0].toString().endsWith('of a peer')) throw new Error('a pong for somebody else');
    }
  }
  session.ws.close(1000, 'done');
}

// A few echoes, and then, until somebody closes the session, more of them or silence.
async function untilClosed(session, nth, ready) {
  const talks = nth % 4 < 2;
  let echoes = 0;
  await new Promise((resolve) => {
    session.onMessage = () => {
      echoes += 1;
      if (echoes === 4 * IN_FLIGHT) resolve();
      if ((talks || echoes <= 3 * IN_FLIGHT) && session.ws.readyState === WebSocket.OPEN) {
        session.send(Buffer.alloc(random(500), 'x'), random(2) === 1);
      }
    };
    for (let n = 0; n < IN_FLIGHT; n += 1) session.send(Buffer.from('first'), false);
  });
  ready();
}

async function client(mode, url) {
  const opened = Array.from({ length: SESSIONS }, (_, n) => open(url, n % 2 === 0));
  const sessions = await Promise.all(opened);
  let unready = SESSIONS;
  const ready = () => --unready === 0 && console.log('READY');
  const act = mode === 'pinged' ? pinged : untilClosed;
  await Promise.all(sessions.map((session, nth) => act(session, nth, ready)));
  for (const session of sessions) console.log(JSON.stringify(await session.end()));
}

const [, , role, ...args] = process.argv;
if (role === 'server') {
  server();
} else {
  const late = sleep(LIMIT_MS).then(() => { throw new Error(`not done in ${LIMIT_MS} ms`); });
  Promise.race([client(role, ...args), late]).then(() => process.exit(0), (error) => {
    console.error(error);
    process.exit(1);
  });
}
