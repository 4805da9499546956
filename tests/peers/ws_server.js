// The echo server of README.md on npm's ws.
'use strict';
const { WebSocketServer } = require('ws');
const { parseArgs } = require('node:util');

const { values: args } = parseArgs({
  options: { port: { type: 'string', default: '0' }, compression: { type: 'string', default: 'on' } },
});
const FRAGMENT = 1000;
const ends = new Map(); // token -> "CODE REASON" of the session that marked itself with it

function control(ws, message) {
  const [word, ...rest] = message.toString().split(' ');
  if (word === 'ping') {
    ws.once('pong', () => ws.send('ponged'));
    ws.ping('from the server');
  } else if (word === 'close') {
    ws.close(Number(rest[0]), rest.slice(1).join(' '));
  } else if (word === 'mark') {
    ends.set(rest[0], 'open');
    ws.once('close', (code, reason) => ends.set(rest[0], `${code} ${reason}`));
    ws.send('marked');
  } else if (word === 'seen') {
    ws.send(ends.get(rest[0]) ?? 'unknown');
  } else {
    ws.close(1008, 'unknown command');
  }
}

function fragments(ws, data, binary) {
  // Text is cut between characters: ws hands over bytes, so back to code points first.
  const whole = binary ? data : [...data.toString()];
  for (let at = 0; at === 0 || at < whole.length; at += FRAGMENT) {
    const part = whole.slice(at, at + FRAGMENT);
    ws.send(binary ? part : part.join(''), { binary, fin: at + FRAGMENT >= whole.length });
  }
}

const server = new WebSocketServer({
  host: '127.0.0.1',
  port: Number(args.port),
  // threshold 0: compress the small ones too, else nearly nothing would be.
  perMessageDeflate: args.compression === 'on' && { threshold: 0 },
  // Autobahn's 9.3.1 and 9.4.1 send 65,536 fragments; ws stops at 16,384 by default.
  maxFragments: 0,
  maxBufferedChunks: 0,
  handleProtocols: (offered) => (offered.has('chat') ? 'chat' : false),
});
server.on('connection', (ws, request) => {
  const path = request.url.split('?')[0];
  ws.on('error', () => {}); // a client that breaks the protocol is what Autobahn is for
  ws.on('message', (data, binary) => {
    if (path === '/control') control(ws, data);
    else if (path === '/fragments') fragments(ws, data, binary);
    else ws.send(data, { binary });
  });
});
server.on('listening', () => console.log('LISTENING', server.address().port));
