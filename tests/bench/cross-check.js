// The closed loop of `wsproxy-bench load`, by the `ws` package: one session, one message at a
// time. Prints what it counted as JSON.
//
//   node cross-check.js ws://HOST:PORT/echo PAYLOAD SECONDS
'use strict';
const WebSocket = require('ws');

const [url, payload, seconds] = [process.argv[2], Number(process.argv[3]), Number(process.argv[4])];
const message = Buffer.alloc(payload, 'x');
const latencies = [];
let sent = 0n;
let end = 0n;

const socket = new WebSocket(url, { perMessageDeflate: false });
const next = () => {
  sent = process.hrtime.bigint();
  socket.send(message);
};
socket.on('open', () => {
  end = process.hrtime.bigint() + BigInt(Math.round(seconds * 1e9));
  next();
});
socket.on('message', (answer) => {
  const now = process.hrtime.bigint();
  if (!answer.equals(message)) throw new Error('not what was sent');
  latencies.push(Number(now - sent) / 1000);
  if (now < end) return next();
  latencies.sort((a, b) => a - b);
  const version = require('ws/package.json').version;
  const p50 = latencies[Math.floor(latencies.length / 2)];
  console.log(JSON.stringify({ version, messages: latencies.length, p50 }));
  socket.close();
});
socket.on('error', (error) => {
  console.error(String(error));
  process.exit(1);
});
