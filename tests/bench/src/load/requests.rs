//! Plain HTTP requests on connections that stay open, each answer checked.

use anyhow::{Context as _, Result, bail, ensure};

use super::{
    Target, Window,
    wire::{Received, Transport, Wire},
};
use crate::{
    opening::{self, MOST_HEAD},
    poll::{Poll, now},
    results::Figures,
};

/// What is asked for, and the body that must come.
#[derive(Clone, Debug)]
pub struct Page {
    /// Path of the request.
    pub path: String,
    /// The whole body.
    pub body: String,
}

struct Connection {
    wire: Wire,
    connected: bool,
    bytes: Vec<u8>,
    /// When the request went out.
    asked: u64,
}

/// Keeps one request under way on each of so many connections. The latency is from the request to
/// the last byte of its answer.
///
/// # Errors
/// An answer that is not the page's, and a connection that ends.
pub fn run(
    target: &Target,
    transport: &Transport,
    page: &Page,
    connections: usize,
) -> Result<Figures> {
    let mut poll = Poll::new()?;
    let request = request(target, &page.path);
    let mut all = Vec::new();
    for place in 0..connections {
        let wire = Wire::connect(target.address, transport).context("connect")?;
        poll.add(wire.socket(), place, false, true)?;
        all.push(Connection { wire, connected: false, bytes: Vec::new(), asked: 0 });
    }
    let mut window = Window::new(target)?;
    let mut ready = Vec::new();
    loop {
        ready.clear();
        ready.extend_from_slice(poll.wait(window.due())?);
        for socket in &ready {
            let connection = &mut all[socket.place];
            if connection.connected {
                connection.receive(request.as_bytes(), page, &mut window)
            } else {
                poll.set(connection.wire.socket(), socket.place, true, false)?;
                connection.begin(request.as_bytes())
            }
            .context("a connection with requests")?;
        }
        if !window.goes_on(target, now())? {
            return window.finish();
        }
    }
}

fn request(target: &Target, path: &str) -> String {
    let host = target.address;
    format!(
        "GET {path} HTTP/1.1\r\nHost: {host}\r\nUser-Agent: wsproxy-bench\r\nAccept: */*\r\n\r\n"
    )
}

impl Connection {
    fn begin(&mut self, request: &[u8]) -> Result<()> {
        self.wire.connected().context("connect")?;
        self.connected = true;
        self.ask(request)
    }

    fn ask(&mut self, request: &[u8]) -> Result<()> {
        self.asked = now();
        Ok(self.wire.send(request)?)
    }

    fn receive(&mut self, request: &[u8], page: &Page, window: &mut Window) -> Result<()> {
        match self.wire.receive(&mut self.bytes)? {
            Received::Nothing => return Ok(()),
            Received::End => bail!("the connection ended"),
            Received::Bytes => {}
        }
        if !is_whole(&self.bytes, page.body.as_bytes())? {
            return Ok(());
        }
        let now = now();
        window.took(now - self.asked);
        window.arrived(now, 1, page.body.len() as u64);
        self.bytes.clear();
        self.ask(request)
    }
}

/// Whether the answer is all there: 200, as long as the body by its Content-Length (RFC 9110,
/// section 8.6), the body, nothing behind it, on a connection that stays open.
fn is_whole(bytes: &[u8], body: &[u8]) -> Result<bool> {
    let Some(length) = opening::head_length(bytes) else {
        ensure!(bytes.len() <= MOST_HEAD, "the answer's head does not end");
        return Ok(false);
    };
    let (head, got) = bytes.split_at(length);
    let head = std::str::from_utf8(head).context("the answer's head is no text")?;
    let status = head.lines().next().unwrap_or_default();
    ensure!(status.starts_with("HTTP/1.1 200 "), "the request was answered by: {status}");
    let fields = head.lines().skip(1).filter_map(|line| line.split_once(':'));
    let mut lengths = 0;
    for (name, value) in fields {
        let is = |other: &str| name.eq_ignore_ascii_case(other);
        let value = value.trim();
        if is("content-length") {
            ensure!(value.parse() == Ok(body.len()), "the body's length is {value}");
            lengths += 1;
        }
        ensure!(!is("transfer-encoding"), "the body comes as {value}");
        let closes = is("connection") && value.eq_ignore_ascii_case("close");
        ensure!(!closes, "the connection is not kept open");
    }
    ensure!(lengths == 1, "{lengths} Content-Length fields");
    ensure!(got.len() <= body.len(), "{} bytes too many", got.len() - body.len());
    ensure!(body.starts_with(got), "the body is not the page's");
    Ok(got.len() == body.len())
}

#[cfg(test)]
mod tests {
    use super::*;

    const HEAD: &str = "HTTP/1.1 200 OK\r\nServer: x\r\ncontent-length: 5\r\n\r\n";

    fn judged(answer: &str) -> std::result::Result<bool, String> {
        is_whole(answer.as_bytes(), b"hello").map_err(|error| error.to_string())
    }

    #[test]
    fn an_answer_is_whole_at_its_last_byte_and_not_before() {
        let answer = format!("{HEAD}hello");
        for end in 0..answer.len() {
            assert_eq!(judged(&answer[..end]), Ok(false), "{end} bytes");
        }
        assert_eq!(judged(&answer), Ok(true));
    }

    #[test]
    fn every_other_answer_is_refused() {
        let endless = "x".repeat(MOST_HEAD + 1);
        let plus = |field: &str| HEAD.replace("Server: x", field);
        for (answer, why) in [
            (HEAD.replace("200 OK", "502 Bad Gateway"), "HTTP/1.1 502 Bad Gateway"),
            (HEAD.replace("1.1", "1.0"), "HTTP/1.0 200 OK"),
            (HEAD.replace("length: 5", "length: 6"), "the body's length is 6"),
            (HEAD.replace("content-length: 5", "X-Y: z"), "0 Content-Length fields"),
            (plus("Content-Length: 5"), "2 Content-Length fields"),
            (plus("Transfer-Encoding: chunked"), "the body comes as chunked"),
            (plus("Connection: close"), "not kept open"),
            (format!("{HEAD}hullo"), "not the page's"),
            (format!("{HEAD}hu"), "not the page's"),
            (format!("{HEAD}hello!"), "1 bytes too many"),
            (endless, "does not end"),
        ] {
            let said = judged(&answer).expect_err("it is wrong");
            assert!(said.contains(why), "{said}, not {why}");
        }
    }
}
