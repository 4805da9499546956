//! Upstream servers that write down every byte they get, and two readings of what they wrote
//! down: a strict one and a lax one. Where both find the same requests nobody behind the gateway
//! can be talked into a request that the gateway does not know of.

use std::{
    io::{Read as _, Write as _},
    net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream},
    sync::{Arc, Mutex},
    thread,
};

use super::support::{PATIENCE, header, status, wait_for};

/// How a server reads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reading {
    /// By RFC 9112, and nothing else.
    Strict,
    /// As forgiving as servers have been: lines end with LF, names may have white space around
    /// them, anything that mentions "chunked" is chunked, a length is the digits in it.
    Lax,
}

/// A request as a server reads it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Seen {
    pub method: String,
    pub target: String,
    /// Names in lower case.
    pub headers: Vec<(String, String)>,
    pub body: Vec<u8>,
}

impl Seen {
    pub fn line(&self) -> String {
        format!("{} {}", self.method, self.target)
    }

    /// The values of a header, in their order.
    pub fn header(&self, name: &str) -> Vec<&str> {
        let lines = self.headers.iter().filter(|(n, _)| n.eq_ignore_ascii_case(name));
        lines.map(|(_, value)| value.as_str()).collect()
    }
}

/// What stands at the start of some bytes.
pub enum Step {
    /// Half a request.
    More,
    /// A request, so many bytes long.
    Got(Seen, usize),
    /// None.
    Bad,
}

pub fn step(bytes: &[u8], reading: Reading) -> Step {
    match read(bytes, reading) {
        Ok(Some((seen, length))) => Step::Got(seen, length),
        Ok(None) => Step::More,
        Err(_) => Step::Bad,
    }
}

/// All requests of a connection, and the bytes behind them that are none (yet).
pub fn all(bytes: &[u8], reading: Reading) -> (Vec<Seen>, &[u8]) {
    let (mut found, mut at) = (Vec::new(), 0);
    while let Step::Got(seen, length) = step(&bytes[at..], reading) {
        found.push(seen);
        at += length;
    }
    (found, &bytes[at..])
}

type Parsed<T> = Result<Option<T>, String>;

fn read(bytes: &[u8], reading: Reading) -> Parsed<(Seen, usize)> {
    if bytes.is_empty() {
        return Ok(None);
    }
    let Some((head, body_at)) = head(bytes, reading) else { return Ok(None) };
    let text = String::from_utf8_lossy(head);
    let mut lines = text.split(if reading == Reading::Strict { "\r\n" } else { "\n" });
    let first = lines.next().unwrap_or_default().trim_end_matches('\r');
    let parts: Vec<_> = first.split(' ').collect();
    let [method, target, version] = parts[..] else { return Err(format!("line {first:?}")) };
    let mut headers = Vec::new();
    for line in lines {
        let line = line.trim_end_matches('\r');
        let (name, value) = line.split_once(':').ok_or_else(|| format!("header {line:?}"))?;
        if reading == Reading::Strict && !is_token(name) {
            return Err(format!("name {name:?}"));
        }
        headers.push((name.trim().to_ascii_lowercase(), value.trim().to_owned()));
    }
    let mut seen = Seen { method: method.into(), target: target.into(), headers, body: Vec::new() };
    if reading == Reading::Strict {
        check(head, version, &seen)?;
    }
    let Some((body, length)) = body(&bytes[body_at..], &seen, reading)? else { return Ok(None) };
    seen.body = body;
    Ok(Some((seen, body_at + length)))
}

/// The head without its last line end, and where the body begins.
fn head(bytes: &[u8], reading: Reading) -> Option<(&[u8], usize)> {
    let find = |end: &[u8]| Some((bytes.windows(end.len()).position(|w| w == end)?, end.len()));
    let strict = find(b"\r\n\r\n");
    let found = match reading {
        Reading::Strict => strict,
        Reading::Lax => [strict, find(b"\n\n"), find(b"\n\r\n")].into_iter().flatten().min(),
    };
    found.map(|(at, length)| (&bytes[..at], at + length))
}

fn is_token(text: &str) -> bool {
    let good = |b: u8| b.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&b);
    !text.is_empty() && text.bytes().all(good)
}

fn check(head: &[u8], version: &str, seen: &Seen) -> Result<(), String> {
    let lines = head.windows(2).filter(|w| w == b"\r\n").count();
    let ends = head.iter().filter(|&&b| b == b'\r' || b == b'\n').count();
    let control = head.iter().any(|&b| (b < b' ' && !b"\r\n\t".contains(&b)) || b == 0x7f);
    let (lengths, codings) = (seen.header("content-length"), seen.header("transfer-encoding"));
    let digits = |text: &&str| !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
    for (good, what) in [
        (version == "HTTP/1.1", "version"),
        (ends == 2 * lines && !control, "control bytes"),
        (is_token(&seen.method), "method"),
        (seen.target.starts_with('/') || seen.target == "*", "target"),
        (seen.header("host").len() == 1, "host"),
        (lengths.len() + codings.len() <= 1, "two lengths"),
        (lengths.iter().all(digits), "length"),
        (codings.iter().all(|coding| *coding == "chunked"), "coding"),
    ] {
        if !good {
            return Err(format!("{what} in {:?}", head.escape_ascii().to_string()));
        }
    }
    Ok(())
}

/// The body, decoded, and how many bytes it took.
fn body(bytes: &[u8], seen: &Seen, reading: Reading) -> Parsed<(Vec<u8>, usize)> {
    let chunked =
        seen.header("transfer-encoding").iter().any(|c| c.to_lowercase().contains("chunked"));
    if chunked {
        return chunks(bytes, reading);
    }
    let digits = |text: &&str| text.chars().filter(char::is_ascii_digit).collect::<String>();
    let length = seen.header("content-length").last().map_or(String::new(), digits);
    let length = length.parse::<usize>().unwrap_or(0);
    Ok(bytes.get(..length).map(|body| (body.to_vec(), length)))
}

pub fn chunks(bytes: &[u8], reading: Reading) -> Parsed<(Vec<u8>, usize)> {
    let (mut body, mut at) = (Vec::new(), 0);
    loop {
        let Some(end) = bytes[at..].windows(2).position(|w| w == b"\r\n") else { return Ok(None) };
        let line = String::from_utf8_lossy(&bytes[at..at + end]).into_owned();
        let digits = match reading {
            Reading::Strict => &line,
            Reading::Lax => line.split([';', ' ']).next().unwrap_or_default(),
        };
        let size = usize::from_str_radix(digits, 16).map_err(|_| format!("chunk {line:?}"))?;
        at += end + 2;
        if size == 0 {
            break;
        }
        let Some(data) = bytes.get(at..at.saturating_add(size)) else { return Ok(None) };
        body.extend_from_slice(data);
        at += size;
        match bytes.get(at..at + 2) {
            None => return Ok(None),
            Some(b"\r\n") => at += 2,
            Some(_) => return Err("no line end behind a chunk".to_owned()),
        }
    }
    // Trailers, up to an empty line.
    loop {
        let Some(end) = bytes[at..].windows(2).position(|w| w == b"\r\n") else { return Ok(None) };
        at += end + 2;
        if end == 0 {
            return Ok(Some((body, at)));
        }
    }
}

/// What a recorder answers.
pub struct Reply {
    pub bytes: Vec<u8>,
    /// It closes behind it.
    pub close: bool,
}

type Answer = dyn Fn(&Seen) -> Reply + Send + Sync;

/// What a connection brought, and whether it is over.
type Connection = (Vec<u8>, bool);

/// A server, connection by connection a thread of its own.
pub struct Recorder {
    pub address: SocketAddr,
    connections: Arc<Mutex<Vec<Connection>>>,
}

/// What ends a record: nothing that the gateway could send.
const FENCE: &[u8] = b"\0fence\0";

impl Recorder {
    /// Answers every request that it reads. What it can't read it does not answer: it closes.
    pub fn start(
        reading: Reading,
        answer: impl Fn(&Seen) -> Reply + Send + Sync + 'static,
    ) -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let address = listener.local_addr().unwrap();
        let connections = Arc::new(Mutex::new(Vec::new()));
        let list = Arc::clone(&connections);
        let answer: Arc<Answer> = Arc::new(answer);
        thread::spawn(move || {
            for stream in listener.incoming().map_while(Result::ok) {
                let number = {
                    let mut list = list.lock().unwrap();
                    list.push((Vec::new(), false));
                    list.len() - 1
                };
                let (list, answer) = (Arc::clone(&list), Arc::clone(&answer));
                thread::spawn(move || {
                    serve(stream, reading, &*answer, &|bytes| {
                        list.lock().unwrap()[number].0.extend_from_slice(bytes);
                    });
                    list.lock().unwrap()[number].1 = true;
                });
            }
        });
        Self { address, connections }
    }

    /// The bytes of every connection. The gateway must be gone: then whatever it sent is here.
    pub fn finish(self) -> Vec<Vec<u8>> {
        // Whoever connected before is accepted before.
        TcpStream::connect(self.address).unwrap().write_all(FENCE).unwrap();
        wait_for("every connection of a recorder ends", || {
            let list = self.connections.lock().unwrap();
            let fenced = list.iter().any(|(bytes, _)| bytes == FENCE);
            (fenced && list.iter().all(|(_, over)| *over)).then_some(())
        });
        let list = std::mem::take(&mut *self.connections.lock().unwrap());
        list.into_iter().map(|(bytes, _)| bytes).filter(|bytes| bytes != FENCE).collect()
    }
}

fn serve(mut stream: TcpStream, reading: Reading, answer: &Answer, note: &dyn Fn(&[u8])) {
    // One that hangs fails the test that waits for its end.
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    let (mut bytes, mut at, mut silent) = (Vec::new(), 0, false);
    let mut buffer = [0; 16 * 1024];
    loop {
        let Ok(n @ 1..) = stream.read(&mut buffer) else { return };
        note(&buffer[..n]);
        bytes.extend_from_slice(&buffer[..n]);
        while !silent {
            match step(&bytes[at..], reading) {
                Step::More => break,
                Step::Bad => silent = true,
                Step::Got(seen, length) => {
                    at += length;
                    let reply = answer(&seen);
                    silent = stream.write_all(&reply.bytes).is_err() || reply.close;
                }
            }
        }
        if silent {
            // No answers any more; what still comes is written down.
            let _ = stream.shutdown(std::net::Shutdown::Write);
        }
    }
}

/// What a client got: each answer's status and body, and what of one is left that did not end.
/// Panics where it is no answer by RFC 9112.
pub fn answers(mut bytes: &[u8]) -> (Vec<(u16, String)>, Option<u16>) {
    let mut found = Vec::new();
    while !bytes.is_empty() {
        let at = bytes.windows(4).position(|w| w == b"\r\n\r\n");
        let at = at.unwrap_or_else(|| panic!("no head: {}", bytes.escape_ascii()));
        let head = String::from_utf8(bytes[..at + 4].to_vec()).unwrap();
        // What an HTTP/1.0 client gets.
        let head = head.replacen("HTTP/1.0 ", "HTTP/1.1 ", 1);
        let (code, rest) = (status(&head), &bytes[at + 4..]);
        let (lengths, codings) =
            (header(&head, "content-length"), header(&head, "transfer-encoding"));
        assert!(lengths.len() + codings.len() <= 1, "two lengths: {head}");
        let body = match (lengths.first(), codings.first()) {
            (Some(_), _) if code == 304 => Some((Vec::new(), 0)),
            (Some(length), _) => {
                let length = length.parse().unwrap();
                rest.get(..length).map(|body| (body.to_vec(), length))
            }
            (None, Some(_)) => chunks(rest, Reading::Strict).unwrap(),
            (None, None) if matches!(code, 100..=199 | 204 | 304) => Some((Vec::new(), 0)),
            (None, None) => Some((rest.to_vec(), rest.len())),
        };
        let Some((body, length)) = body else { return (found, Some(code)) };
        found.push((code, String::from_utf8(body).unwrap()));
        bytes = &rest[length..];
    }
    (found, None)
}

/// Sends everything and no more, and reads to the end, whichever it is.
pub fn exchange(address: SocketAddr, bytes: &[u8]) -> Vec<u8> {
    let mut stream = TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    // It may have been closed before it was all sent.
    let _ = stream.write_all(bytes);
    let _ = stream.shutdown(std::net::Shutdown::Write);
    let mut got = Vec::new();
    match stream.read_to_end(&mut got) {
        Err(error) if error.kind() != std::io::ErrorKind::ConnectionReset => {
            panic!("{error} behind {}", got.escape_ascii())
        }
        _ => got,
    }
}
