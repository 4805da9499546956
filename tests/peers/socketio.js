// Socket.IO: `server` prints its port; `client URL COUNT` connects COUNT times, by polling first and
// then upgraded, and exchanges messages with acknowledgements on each.
'use strict';
const [, , role, ...args] = process.argv;

function server() {
  const http = require('node:http').createServer();
  const io = new (require('socket.io').Server)(http);
  io.on('connection', (socket) => {
    socket.on('echo', (data, answer) => answer({ data, by: http.address().port }));
  });
  http.listen(0, '127.0.0.1', () => console.log(`LISTENING ${http.address().port}`));
}

function once(target, event, what) {
  return new Promise((resolve, reject) => {
    const timer = setTimeout(() => reject(new Error(`waited in vain: ${what}`)), 15000);
    target.once(event, (value) => {
      clearTimeout(timer);
      resolve(value);
    });
  });
}

async function one(url) {
  const { io } = require('socket.io-client');
  // The cookie of the gateway brings the polling requests back to their server.
  const socket = io(url, { transports: ['polling', 'websocket'], withCredentials: true, forceNew: true });
  socket.on('connect_error', (error) => {
    throw error;
  });
  await once(socket, 'connect', 'the connection');
  const servers = new Set();
  const echo = async (data) => {
    const answer = await socket.timeout(15000).emitWithAck('echo', data);
    if (JSON.stringify(answer.data) !== JSON.stringify(data)) throw new Error('not what was sent');
    servers.add(answer.by);
  };
  for (let n = 0; n < 5; n += 1) await echo({ n });
  if (socket.io.engine.transport.name !== 'websocket') await once(socket.io.engine, 'upgrade', 'the upgrade');
  for (let n = 0; n < 20; n += 1) await echo({ n, text: 'x'.repeat(n * 997) });
  const transport = socket.io.engine.transport.name;
  socket.disconnect();
  if (servers.size !== 1) throw new Error(`a session at ${servers.size} servers`);
  return { transport, server: [...servers][0] };
}

async function client(url, count) {
  const sessions = await Promise.all(Array.from({ length: Number(count) }, () => one(url)));
  const servers = new Set(sessions.map((session) => session.server));
  const upgraded = sessions.filter((session) => session.transport === 'websocket').length;
  console.log(JSON.stringify({ ok: true, sessions: sessions.length, upgraded, servers: servers.size }));
  process.exit(0);
}

if (role === 'server') server();
else client(...args);
