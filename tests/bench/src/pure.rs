//! The pure parts of wsproxy, each as one function that does a fixed piece of work.
//!
//! Callgrind counts between entering and leaving a function whose name begins with `counted_`
//! (see `instructions.rs`). Three rules keep the counts the same from run to run:
//!
//! - the input is made before, outside of the counted function;
//! - a counted function has no closure and no generic helper of its own: their names would
//!   contain its name too, and the counting would stop where they begin;
//! - what depends on the machine's moods (a clock, a `HashMap`, a thread) stays outside.

use std::{hint::black_box, time::Duration};

use anyhow::{Context as _, Result, bail, ensure};
use wsproxy::balance::{Choice, Group, GroupConfig, Method, Request, ServerConfig};
use wsproxy::config::{Clients, HostHeader};
use wsproxy::forwarding::{Connection, Facts, Rendered, prepare_request};
use wsproxy::handshake::{
    Answer, HeadLimits, Progress, Switched, UpgradeRequest, accept_for_key, build_request,
    parse_request, parse_response,
};
use wsproxy_common::cursor::{FrameCursor, Rules};

/// How often a counted function repeats its work, so that what only a first call costs is lost
/// in the sum.
const ROUNDS: u64 = 100;

/// The frames of [`small_frames`].
const SMALL_FRAMES: u64 = 100;

/// The payload of [`large_frame`] in bytes.
const LARGE_PAYLOAD: usize = 64 * 1024;

/// In how many pieces the large frame arrives.
const PIECES: usize = 16;

/// The mask of all frames. The cursor does not look at what it is.
const MASK: [u8; 4] = [0x37, 0xFA, 0x21, 0x3D];

/// What Chromium sends when a page opens a WebSocket through a TLS-terminating front.
const BROWSER_REQUEST: &str = "\
    GET /live/rooms/42?token=eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiI0MiJ9&v=3 HTTP/1.1\r\n\
    Host: chat.example.com\r\n\
    Connection: Upgrade\r\n\
    Pragma: no-cache\r\n\
    Cache-Control: no-cache\r\n\
    User-Agent: Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko) \
    Chrome/138.0.0.0 Safari/537.36\r\n\
    Upgrade: websocket\r\n\
    Origin: https://chat.example.com\r\n\
    Sec-WebSocket-Version: 13\r\n\
    Accept-Encoding: gzip, deflate, br, zstd\r\n\
    Accept-Language: en-GB,en;q=0.9,de;q=0.8\r\n\
    Cookie: session=6f1c2f0e9a7b4d3c8e5f; theme=dark; consent=analytics%3D0\r\n\
    Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\
    Sec-WebSocket-Protocol: chat.v2, chat.v1\r\n\
    Sec-WebSocket-Extensions: permessage-deflate; client_max_window_bits\r\n\
    X-Forwarded-For: 203.0.113.7\r\n\
    \r\n";

/// One piece of pure work that is counted by itself.
#[derive(Debug, Clone, Copy)]
pub struct Part {
    /// The name: the counted function is called `counted_` and this. No name may begin with
    /// another one.
    pub name: &'static str,
    /// Makes the input, does the work once, and checks what came of it.
    work: fn() -> Result<()>,
}

/// All parts.
pub const PARTS: [Part; 7] = [
    Part { name: "parse_request", work: request_parsing },
    Part { name: "build_request", work: request_building },
    Part { name: "choose_server", work: choosing },
    Part { name: "parse_answer", work: answer_parsing },
    Part { name: "build_answer", work: answer_building },
    Part { name: "small_frames", work: small_frames },
    Part { name: "large_frame", work: large_frame },
];

/// Does the work of the part called `name`.
///
/// # Errors
/// There is no such part, or its work came out wrong.
pub fn run(name: &str) -> Result<()> {
    let part = PARTS.iter().find(|part| part.name == name);
    let part = part.with_context(|| format!("there is no part \"{name}\" in pure.rs"))?;
    (part.work)().with_context(|| format!("the part \"{name}\" did not do its work"))
}

/// Reads the browser's request.
#[inline(never)]
fn counted_parse_request(head: &[u8], limits: &HeadLimits) -> u64 {
    let mut good = 0;
    for _ in 0..ROUNDS {
        let parsed = black_box(parse_request(black_box(head), limits));
        good += u64::from(matches!(parsed, Ok(Progress::Done { .. })));
    }
    good
}

/// Renders the request for the upstream server, with the headers of this hop.
#[inline(never)]
fn counted_build_request(request: &UpgradeRequest, connection: &Connection) -> u64 {
    let clients = Clients::default();
    let changes = Rendered::default();
    let mut bytes = 0;
    for _ in 0..ROUNDS {
        let request = black_box(request);
        let line = ("GET", request.target.as_str(), request.host.as_str());
        let facts =
            Facts::new(connection, &clients, &request.headers, line, || (String::new(), None));
        let mut headers = request.headers.clone();
        prepare_request(&mut headers, &facts, connection, &HostHeader::Keep, "", &changes);
        bytes += black_box(build_request(&request.target, &headers)).len() as u64;
    }
    bytes
}

/// Chooses among the servers of a group.
#[inline(never)]
fn counted_choose_server(group: &Group) -> u64 {
    let mut chosen = 0;
    for round in 0..ROUNDS {
        let request = Request { key: Some(round), ..Request::default() };
        chosen += u64::from(matches!(black_box(group.choose(&request)), Choice::Server(_)));
    }
    chosen
}

/// Reads the upstream's 101 and checks it against the request.
#[inline(never)]
fn counted_parse_answer(head: &[u8], request: &UpgradeRequest, limits: &HeadLimits) -> u64 {
    let mut good = 0;
    for _ in 0..ROUNDS {
        let parsed = black_box(parse_response(black_box(head), request, limits));
        good += u64::from(matches!(parsed, Ok(Progress::Done { .. })));
    }
    good
}

/// Renders the 101 for the client.
#[inline(never)]
fn counted_build_answer(switched: &Switched) -> u64 {
    let mut bytes = 0;
    for _ in 0..ROUNDS {
        bytes += black_box(black_box(switched).to_bytes()).len() as u64;
    }
    bytes
}

/// Follows many small frames that came in one read.
#[inline(never)]
fn counted_small_frames(stream: &[u8]) -> u64 {
    let mut frames = 0;
    for _ in 0..ROUNDS {
        let mut cursor = FrameCursor::default();
        cursor.advance(black_box(stream), Rules::FROM_CLIENT);
        frames += black_box(cursor).counts.frames;
    }
    frames
}

/// Follows one large frame that came in many reads.
#[inline(never)]
fn counted_large_frame(pieces: &[&[u8]]) -> u64 {
    let mut bytes = 0;
    for _ in 0..ROUNDS {
        let mut cursor = FrameCursor::default();
        for piece in black_box(pieces) {
            cursor.advance(piece, Rules::FROM_CLIENT);
        }
        bytes += black_box(cursor).counts.payload_bytes();
    }
    bytes
}

/// The part `parse_request`.
fn request_parsing() -> Result<()> {
    let limits = HeadLimits::default();
    expect(counted_parse_request(BROWSER_REQUEST.as_bytes(), &limits), ROUNDS)
}

/// The part `build_request`.
fn request_building() -> Result<()> {
    let peer = ([198, 51, 100, 24], 4711).into();
    let connection =
        Connection { peer, local: peer, scheme: "http", tls_name: None, tls_version: None };
    let request = browser_request()?;
    let once = counted_build_request(&request, &connection);
    ensure!(once > ROUNDS * request.target.len() as u64, "the request was not rendered");
    Ok(())
}

/// Ten servers, chosen by `method`.
fn group(method: Method) -> Result<Group> {
    let server = |n: u32| ServerConfig {
        name: format!("192.0.2.{n}:8080").into(),
        weight: 1 + n % 3,
        backup: false,
        max_connections: None,
        disabled: false,
    };
    let config = GroupConfig {
        method,
        servers: (0..10).map(server).collect(),
        max_fails: 1,
        fail_timeout: Duration::from_secs(10),
        slow_start: None,
    };
    Ok(Group::new(config, 1)?)
}

/// The part `choose_server`: consistent hashing, the dearest of the methods.
fn choosing() -> Result<()> {
    expect(counted_choose_server(&group(Method::Hash)?), ROUNDS)
}

/// The part `parse_answer`.
fn answer_parsing() -> Result<()> {
    let request = browser_request()?;
    let head = switching(&request);
    let good = counted_parse_answer(head.as_bytes(), &request, &HeadLimits::default());
    expect(good, ROUNDS)
}

/// The part `build_answer`.
fn answer_building() -> Result<()> {
    let request = browser_request()?;
    let head = switching(&request);
    let switched = match parse_response(head.as_bytes(), &request, &HeadLimits::default()) {
        Ok(Progress::Done { value: Answer::Switched(switched), .. }) => switched,
        other => bail!("the 101 was not taken: {other:?}"),
    };
    let length = switched.to_bytes().len() as u64;
    expect(counted_build_answer(&switched), ROUNDS * length)
}

/// The part `small_frames`.
fn small_frames() -> Result<()> {
    let mut stream = Vec::new();
    for at in 0..SMALL_FRAMES {
        // Chat-like: 16 to 65 bytes of text each.
        let length = 16 + (at * 7 % 50) as u8;
        stream.extend_from_slice(&[0x81, 0x80 | length]);
        stream.extend_from_slice(&MASK);
        stream.resize(stream.len() + usize::from(length), b'x');
    }
    expect(counted_small_frames(&stream), ROUNDS * SMALL_FRAMES)
}

/// The part `large_frame`.
fn large_frame() -> Result<()> {
    let mut stream = vec![0x82, 0x80 | 127];
    stream.extend_from_slice(&(LARGE_PAYLOAD as u64).to_be_bytes());
    stream.extend_from_slice(&MASK);
    stream.resize(stream.len() + LARGE_PAYLOAD, b'x');
    let pieces: Vec<&[u8]> = stream.chunks(stream.len().div_ceil(PIECES)).collect();
    ensure!(pieces.len() == PIECES, "the frame was cut in {} pieces", pieces.len());
    expect(counted_large_frame(&pieces), ROUNDS * LARGE_PAYLOAD as u64)
}

/// The browser's request, read.
fn browser_request() -> Result<UpgradeRequest> {
    match parse_request(BROWSER_REQUEST.as_bytes(), &HeadLimits::default()) {
        Ok(Progress::Done { value, .. }) => Ok(value),
        Ok(Progress::Partial) => bail!("the request has no end"),
        Err(refusal) => bail!("the request was refused: {refusal:?}"),
    }
}

/// An upstream server's 101 to the browser's request.
fn switching(request: &UpgradeRequest) -> String {
    let accept = accept_for_key(&request.key);
    format!(
        "HTTP/1.1 101 Switching Protocols\r\n\
         Server: nginx/1.26.2\r\n\
         Date: Tue, 01 Jul 2025 10:00:00 GMT\r\n\
         Connection: upgrade\r\n\
         Upgrade: websocket\r\n\
         Sec-WebSocket-Accept: {accept}\r\n\
         Sec-WebSocket-Protocol: chat.v2\r\n\
         Sec-WebSocket-Extensions: permessage-deflate; server_no_context_takeover\r\n\
         Set-Cookie: lb=b7; Path=/; HttpOnly; Secure\r\n\
         \r\n"
    )
}

/// Work that came out wrong must not be counted as if it were the work.
fn expect(came_out: u64, should: u64) -> Result<()> {
    ensure!(came_out == should, "{came_out} came out where {should} should");
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_part_does_its_work() {
        for part in PARTS {
            run(part.name).unwrap();
        }
    }

    #[test]
    fn a_name_that_is_no_part_is_named() {
        let error = run("nothing").unwrap_err().to_string();
        assert!(error.contains("\"nothing\""), "{error}");
    }

    #[test]
    fn no_name_begins_with_another_one() {
        for (at, part) in PARTS.iter().enumerate() {
            for (other_at, other) in PARTS.iter().enumerate() {
                assert!(at == other_at || !other.name.starts_with(part.name), "{}", part.name);
            }
        }
    }
}
