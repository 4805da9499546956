// Talks to the echo server behind /ws of the page's own origin, and writes what came of it into
// #result: "ok ..." or "failed ...".
const LARGE = 300_000; // bytes: several TLS records, and more than one read of the gateway

function opened(socket) {
  return new Promise((resolve, reject) => {
    socket.onopen = resolve;
    socket.onerror = () => reject(new Error('no session'));
  });
}

function echoed(socket, message) {
  return new Promise((resolve, reject) => {
    socket.onmessage = (event) => resolve(event.data);
    socket.onclose = (event) => reject(new Error(`closed: ${event.code}`));
    socket.send(message);
  });
}

function closed(socket) {
  return new Promise((resolve) => {
    socket.onclose = resolve;
    socket.close(1000, 'done');
  });
}

async function talk() {
  const socket = new WebSocket(`wss://${location.host}/ws`);
  socket.binaryType = 'arraybuffer';
  await opened(socket);
  for (const text of ['hello', 'größe 😀', '']) {
    const answer = await echoed(socket, text);
    if (answer !== text) throw new Error(`${text} came back as ${answer}`);
  }
  const bytes = new Uint8Array(LARGE).map((_, at) => (at * 31) % 251);
  const back = new Uint8Array(await echoed(socket, bytes));
  if (back.length !== LARGE || back.some((byte, at) => byte !== bytes[at])) {
    throw new Error(`${back.length} other bytes came back`);
  }
  const end = await closed(socket);
  if (!end.wasClean || end.code !== 1000) throw new Error(`ended with ${end.code}`);
  return `ok ${socket.url}`;
}

const result = document.querySelector('#result');
talk().then((text) => { result.textContent = text; },
  (error) => { result.textContent = `failed ${error.message}`; });
