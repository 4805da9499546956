//! Plain HTTP by hand: requests, answers, and a server that answers by itself.

use std::{
    fs,
    net::SocketAddr,
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    thread,
    time::Duration,
};

use serde_json::Value;

use super::{Peer, Proxy, Server, header, status, wait_for};

/// A GET with `more` lines (each with its CR LF).
pub fn get(path: &str, more: &str) -> String {
    plain("GET", path, more, "")
}

/// A request for `example.com`; a body comes with its length.
pub fn plain(method: &str, path: &str, more: &str, body: &str) -> String {
    let length = match body.len() {
        0 => String::new(),
        length => format!("Content-Length: {length}\r\n"),
    };
    format!("{method} {path} HTTP/1.1\r\nHost: example.com\r\n{length}{more}\r\n{body}")
}

/// An answer 200 with `more` lines and its length.
pub fn answer(more: &str, body: &str) -> String {
    format!("HTTP/1.1 200 OK\r\n{more}Content-Length: {}\r\n\r\n{body}", body.len())
}

/// Bytes that no shift or loss leaves as they are.
pub fn pattern(length: usize) -> Vec<u8> {
    (0..length).map(|n| (n % 251) as u8 ^ (n >> 12) as u8).collect()
}

/// A body in chunks of `size` bytes, without its last chunk.
pub fn chunks(body: &[u8], size: usize) -> Vec<u8> {
    let mut out = Vec::with_capacity(body.len() + 64);
    for chunk in body.chunks(size) {
        out.extend_from_slice(format!("{:x}\r\n", chunk.len()).as_bytes());
        out.extend_from_slice(chunk);
        out.extend_from_slice(b"\r\n");
    }
    out
}

/// The lines of an access log in JSON, once there are so many.
pub fn lines(path: &Path, count: usize) -> Vec<Value> {
    wait_for("lines in the access log", || {
        let text = fs::read_to_string(path).ok()?;
        // The last one may be on its way.
        let whole = text.split_inclusive('\n').filter(|line| line.ends_with('\n'));
        let found: Vec<_> = whole.map(|line| serde_json::from_str(line).unwrap()).collect();
        (found.len() >= count).then_some(found)
    })
}

impl Peer {
    /// The next head, or `None` at an orderly or a broken end.
    pub fn try_head(&mut self) -> Option<String> {
        use std::io::Read as _;
        loop {
            if let Some(at) = self.ahead.windows(4).position(|w| w == b"\r\n\r\n") {
                let rest = self.ahead.split_off(at + 4);
                return String::from_utf8(std::mem::replace(&mut self.ahead, rest)).ok();
            }
            let mut buffer = [0; 4096];
            match self.stream.read(&mut buffer) {
                Ok(n) if n > 0 => self.ahead.extend_from_slice(&buffer[..n]),
                _ => return None,
            }
        }
    }

    /// Everything up to the end, in order or by a reset.
    pub fn rest_or_reset(&mut self) -> Vec<u8> {
        use std::io::{ErrorKind, Read as _};
        let mut buffer = [0; 4096];
        loop {
            match self.stream.read(&mut buffer) {
                Ok(0) => return std::mem::take(&mut self.ahead),
                Ok(n) => self.ahead.extend_from_slice(&buffer[..n]),
                Err(error) if error.kind() == ErrorKind::ConnectionReset => {
                    return std::mem::take(&mut self.ahead);
                }
                Err(error) => panic!("no end: {error}"),
            }
        }
    }

    /// Forgets what was read and not taken; how much that was.
    pub fn take_ahead(&mut self) -> usize {
        std::mem::take(&mut self.ahead).len()
    }

    /// The next line, without its CR LF.
    pub fn line(&mut self) -> String {
        let mut line = Vec::new();
        while !line.ends_with(b"\r\n") {
            line.extend(self.take(1));
        }
        line.truncate(line.len() - 2);
        String::from_utf8(line).unwrap()
    }

    /// A chunked body, and the trailer lines behind it.
    pub fn chunked(&mut self) -> (Vec<u8>, Vec<String>) {
        let mut body = Vec::new();
        loop {
            let line = self.line();
            let size = usize::from_str_radix(&line, 16).unwrap_or_else(|_| panic!("size {line:?}"));
            if size == 0 {
                break;
            }
            body.extend(self.take(size));
            assert_eq!(self.line(), "");
        }
        let mut trailers = Vec::new();
        loop {
            match self.line() {
                line if line.is_empty() => return (body, trailers),
                line => trailers.push(line),
            }
        }
    }

    /// The body behind this head, by its own framing.
    pub fn body(&mut self, head: &str) -> Vec<u8> {
        if header(head, "Transfer-Encoding") == ["chunked"] {
            return self.chunked().0;
        }
        let length = header(head, "Content-Length");
        assert!(length.len() <= 1, "{head}");
        self.take(length.first().map_or(0, |length| length.parse().unwrap()))
    }

    /// A whole answer to a request that is not HEAD.
    pub fn answer(&mut self) -> (String, String) {
        let head = self.head();
        let body = self.body(&head);
        (head, String::from_utf8(body).unwrap())
    }

    /// Sends a request and reads its answer.
    pub fn ask(&mut self, request: &str) -> (u16, String, String) {
        self.send(request.as_bytes());
        let (head, body) = self.answer();
        (status(&head), head, body)
    }
}

impl Proxy {
    /// One request on a connection of its own.
    pub fn ask(&self, request: &str) -> (u16, String, String) {
        self.connect().ask(request)
    }
}

/// What a server does with a request: its connection's number, the head, the connection to
/// answer on. False: it closes.
pub type Answering = dyn Fn(usize, &str, &mut Peer) -> bool + Send + Sync;

/// A server that answers by itself, for tests that are not about its side.
pub struct Origin {
    pub address: SocketAddr,
    over: Arc<AtomicBool>,
    accepting: Option<thread::JoinHandle<()>>,
}

impl Origin {
    pub fn start(
        answering: impl Fn(usize, &str, &mut Peer) -> bool + Send + Sync + 'static,
    ) -> Self {
        let server = Server::start();
        let address = server.address;
        let over = Arc::new(AtomicBool::new(false));
        let (answering, is_over): (Arc<Answering>, _) = (Arc::new(answering), Arc::clone(&over));
        let count = AtomicUsize::new(0);
        let accepting = thread::spawn(move || {
            while !is_over.load(Ordering::Relaxed) {
                let Some(mut peer) = server.try_accept() else {
                    thread::sleep(Duration::from_millis(1));
                    continue;
                };
                let number = count.fetch_add(1, Ordering::Relaxed);
                let answering = Arc::clone(&answering);
                // It ends with the gateway's end of the connection.
                thread::spawn(move || {
                    while let Some(head) = peer.try_head() {
                        if !answering(number, &head, &mut peer) {
                            break;
                        }
                    }
                });
            }
        });
        Self { address, over, accepting: Some(accepting) }
    }

    /// Answers each request with its own head and body, and `more` lines; `X-Connection` says
    /// which connection it came on.
    pub fn echo(more: &'static str) -> Self {
        Self::start(move |number, head, peer| {
            let body = String::from_utf8(peer.body(head)).unwrap();
            let more = format!("X-Connection: {number}\r\n{more}");
            peer.send(answer(&more, &format!("{head}{body}")).as_bytes());
            true
        })
    }
}

impl Drop for Origin {
    fn drop(&mut self) {
        self.over.store(true, Ordering::Relaxed);
        if let Some(accepting) = self.accepting.take() {
            // A panic there has been told already.
            let _ = accepting.join();
        }
    }
}
