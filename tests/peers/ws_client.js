// A client of README.md's servers on npm's ws: exits non-zero on any mismatch.
'use strict';
const WebSocket = require('ws');
const crypto = require('node:crypto');
const { parseArgs } = require('node:util');
const { once } = require('node:events');
const { setTimeout: sleep } = require('node:timers/promises');

// Around the borders of the three length encodings (RFC 6455, 5.2), then past any buffer.
const SIZES = [0, 1, 125, 126, 127, 65535, 65536, 1 << 20, 4 << 20];
const CONCURRENT = 200;
const LIMIT_MS = 120_000; // a whole mode; a session that hangs is a mismatch too

const show = (v) => (v?.length > 60 ? `${v.length} of ${v.slice(0, 40).toString()}` : JSON.stringify(v));
function expect(what, got, want) {
  const same = Buffer.isBuffer(want) ? Buffer.isBuffer(got) && want.equals(got) : got === want;
  if (!same) throw new Error(`${what}: got ${show(got)}, want ${show(want)}`);
}
// Exactly `size` bytes of UTF-8, with characters of 1 to 4 bytes.
const text = (size) => 'aé€😀'.repeat(Math.floor(size / 10)) + 'x'.repeat(size % 10);
// Bytes that no compression makes smaller, the same in every run.
const binary = (size) =>
  crypto.createCipheriv('aes-128-ctr', Buffer.alloc(16), Buffer.alloc(16)).update(Buffer.alloc(size));

class Peer {
  sessions = 0; messages = 0; bytes = 0;
  constructor(url, compression) { Object.assign(this, { url, compression }); }

  // An open socket with `next()`: the next message, a string or a Buffer; fails on an early close.
  async open(path = '/', protocols = []) {
    this.sessions++;
    const ws = new WebSocket(new URL(path, this.url), protocols, {
      perMessageDeflate: this.compression === 'on' && { threshold: 0 }, handshakeTimeout: 30_000,
    });
    const got = [], waiting = [];
    ws.on('message', (data, bin) => {
      const message = bin ? data : data.toString();
      waiting.length ? waiting.shift().resolve(message) : got.push(message);
    });
    ws.closed = new Promise((resolve) => ws.on('close', (code, reason) => resolve(`${code} ${reason}`)));
    ws.closed.then((why) => waiting.splice(0).forEach((w) => w.reject(new Error(`closed early: ${why}`))));
    ws.next = () => {
      if (got.length) return Promise.resolve(got.shift());
      if (ws.readyState === WebSocket.CLOSED) return Promise.reject(new Error('closed early'));
      return new Promise((resolve, reject) => waiting.push({ resolve, reject }));
    };
    await once(ws, 'open'); // an 'error' before it rejects, with the response's status
    ws.on('error', () => {}); // later ones end in a close, which next() reports
    return ws;
  }
  async close(ws, code = 1000, reason = '') {
    ws.close(code, reason);
    expect('close echoed', (await ws.closed).split(' ')[0], String(code));
  }
  count(message) { this.messages++; this.bytes += Buffer.byteLength(message); }
  async roundTrip(ws, message, want = message) {
    ws.send(message);
    expect('echo', await ws.next(), want);
    this.count(want);
  }

  modes = {
    echo: async () => {
      const ws = await this.open();
      expect('extensions', ws.extensions.split(';')[0], this.compression === 'on' ? 'permessage-deflate' : '');
      for (const size of SIZES) {
        await this.roundTrip(ws, text(size));
        await this.roundTrip(ws, binary(size));
      }
      // Many in flight: none lost, none out of order.
      const burst = Array.from({ length: 1000 }, (_, n) => `${n} ${text(n)}`);
      for (const m of burst) ws.send(m);
      for (const m of burst) { expect('burst', await ws.next(), m); this.count(m); }
      await this.close(ws);
    },
    fragments: async () => {
      // ws hides fragments from a receiver: here only the whole counts, py_client.py counts frames.
      for (const path of ['/', '/fragments']) {
        const ws = await this.open(path);
        for (const whole of [Buffer.from(text(100_000)), binary(100_000)]) {
          const bin = whole.equals(binary(100_000));
          for (const cuts of [[0, 1, 1, 7], Array.from({ length: 100 }, (_, n) => n * 1000)]) {
            // Frames may end inside a character (RFC 6455, 5.6), so text is cut as bytes.
            cuts.forEach((at, n) =>
              ws.send(whole.subarray(at, cuts[n + 1]), { binary: bin, fin: n === cuts.length - 1 }));
            expect('fragments', await ws.next(), bin ? whole : whole.toString());
            this.count(whole);
          }
        }
        await this.close(ws);
      }
    },
    ping: async () => {
      const ws = await this.open('/control');
      for (const payload of [Buffer.alloc(0), Buffer.from('x'), Buffer.alloc(125)]) {
        const pong = once(ws, 'pong', { signal: AbortSignal.timeout(10_000) });
        ws.ping(payload);
        expect('pong', (await pong)[0], payload);
      }
      await this.roundTrip(ws, 'ping', 'ponged'); // and the server's to us
      await this.close(ws);
    },
    close: async () => {
      for (const [code, reason] of [[1000, ''], [1000, 'done'], [3000, 'über']]) {
        // Ours, as the server saw it.
        const token = crypto.randomUUID();
        const ours = await this.open('/control');
        await this.roundTrip(ours, `mark ${token}`, 'marked');
        await this.close(ours, code, reason);
        const asking = await this.open('/control');
        let seen = 'open';
        for (let n = 0; n < 50 && seen === 'open'; n++) { // noted a moment after our Close is answered
          if (n) await sleep(100);
          asking.send(`seen ${token}`);
          seen = await asking.next();
        }
        expect('close seen by the server', seen, `${code} ${reason}`);
        await this.close(asking);
        // The server's, as we see it.
        const theirs = await this.open('/control');
        theirs.send(`close ${code} ${reason}`);
        expect('close from the server', await theirs.closed, `${code} ${reason}`);
      }
    },
    subprotocol: async () => {
      for (const [offer, want] of [[['chat'], 'chat'], [['other', 'chat'], 'chat'], [[], '']]) {
        const ws = await this.open('/', offer);
        expect(`subprotocol of ${offer}`, ws.protocol, want);
        await this.roundTrip(ws, 'hello');
        await this.close(ws);
      }
    },
    many: async () => {
      const numbers = Array.from({ length: CONCURRENT }, (_, n) => n);
      const all = await Promise.all(numbers.map((n) => this.open(`/many?${n}`)));
      await Promise.all(all.map(async (ws, n) => { // all are open before the first one closes
        for (let k = 0; k < 5; k++) await this.roundTrip(ws, `session ${n} message ${k}`);
        await this.roundTrip(ws, binary(4096 + n));
        await this.close(ws);
      }));
    },
  };
}

async function main() {
  const { values: args } = parseArgs({
    options: {
      url: { type: 'string' }, mode: { type: 'string', default: 'all' },
      compression: { type: 'string', default: 'both' },
    },
  });
  const known = Object.keys(new Peer().modes);
  if (!args.url || ![...known, 'all'].includes(args.mode) || !['on', 'off', 'both'].includes(args.compression)) {
    console.error(`usage: ws_client.js --url ws://127.0.0.1:PORT/ [--mode all|${known.join('|')}] [--compression on|off|both]`);
    return 64;
  }
  const results = [];
  for (const compression of args.compression === 'both' ? ['on', 'off'] : [args.compression]) {
    for (const mode of args.mode === 'all' ? known : [args.mode]) {
      const peer = new Peer(args.url, compression), start = performance.now();
      const row = { mode, compression, ok: true };
      const late = new AbortController();
      try {
        await Promise.race([
          peer.modes[mode](),
          sleep(LIMIT_MS, null, late).then(() => { throw new Error(`not done in ${LIMIT_MS} ms`); }, () => {}),
        ]);
      } catch (error) {
        Object.assign(row, { ok: false, error: error.message });
        console.error(`FAIL ${mode}, compression ${compression}: ${error.message}`);
      } finally {
        late.abort();
      }
      const { sessions, messages, bytes } = peer;
      results.push({ ...row, sessions, messages, bytes, ms: Math.round(performance.now() - start) });
    }
  }
  const ok = results.every((r) => r.ok);
  const sessions = results.reduce((n, r) => n + r.sessions, 0);
  console.log(JSON.stringify({
    client: `ws ${require('ws/package.json').version}`, url: args.url, ok, sessions, results }));
  return ok ? 0 : 1;
}

// exit, not exitCode: a session left hanging by a failure must not keep the process.
main().then((code) => process.exit(code), (error) => { console.error(error); process.exit(1); });
