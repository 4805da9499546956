//! A collector: OTLP over HTTP, as far as spans need it.

use std::{
    collections::HashMap,
    io::{BufRead as _, BufReader, Read, Write},
    net::{Ipv4Addr, TcpListener, TcpStream},
    sync::{Arc, Mutex},
    thread,
};

use crate::{
    support::{PATIENCE, Peer, wait_for},
    tls_support::{BOTH, accepted, local, server_config},
};

/// A span as it arrived.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Span {
    pub name: String,
    pub trace: String,
    pub id: String,
    /// Empty: it has none.
    pub parent: String,
    pub trace_state: String,
    /// 2: server, 3: client.
    pub kind: u64,
    /// In ns since 1970.
    pub start: u64,
    pub end: u64,
    /// Numbers as text.
    pub attributes: HashMap<String, String>,
    /// Of its resource.
    pub service: String,
    pub is_error: bool,
    pub message: String,
}

impl Span {
    pub fn get(&self, key: &str) -> &str {
        self.attributes.get(key).map_or("", String::as_str)
    }
}

/// Takes what is posted to it until the test ends.
pub struct Collector {
    pub url: String,
    got: Arc<Mutex<Got>>,
}

#[derive(Default)]
struct Got {
    /// The first lines of requests.
    lines: Vec<String>,
    spans: Vec<Span>,
}

impl Collector {
    pub fn start() -> Self {
        Self::with("http", exchange)
    }

    /// One that speaks TLS, with a certificate of the tests' own authority.
    pub fn secure() -> Self {
        let config = server_config(BOTH, local(), None);
        Self::with("https", move |stream| exchange(accepted(Peer::new(stream), &config)))
    }

    fn with(
        scheme: &str,
        serve: impl Fn(TcpStream) -> Option<(String, Vec<u8>)> + Send + 'static,
    ) -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let url = format!("{scheme}://{}", listener.local_addr().unwrap());
        let got = Arc::<Mutex<Got>>::default();
        let to = Arc::clone(&got);
        // It ends with the test's process.
        thread::spawn(move || {
            for stream in listener.incoming() {
                let stream = stream.unwrap();
                stream.set_read_timeout(Some(PATIENCE)).unwrap();
                let Some((line, body)) = serve(stream) else { continue };
                let mut got = to.lock().unwrap();
                got.lines.push(line);
                got.spans.extend(export_request(&body));
            }
        });
        Self { url, got }
    }

    /// All spans so far.
    pub fn spans(&self) -> Vec<Span> {
        self.got.lock().unwrap().spans.clone()
    }

    /// The request lines so far.
    pub fn lines(&self) -> Vec<String> {
        self.got.lock().unwrap().lines.clone()
    }

    /// The handshake that `wanted` knows, once it is here, and its servers' spans in their order.
    pub fn handshake(&self, wanted: impl Fn(&Span) -> bool) -> (Span, Vec<Span>) {
        // A child ends before its parent, and spans come in the order of their ends.
        let found = wait_for("the span of the handshake", || {
            self.spans().into_iter().find(|span| span.name == "handshake" && wanted(span))
        });
        let is_child = |span: &Span| span.parent == found.id && span.trace == found.trace;
        let children = self.spans().into_iter().filter(is_child).collect();
        (found, children)
    }
}

/// Reads one request, if one comes, and answers it; returns its first line and its body.
fn exchange(stream: impl Read + Write) -> Option<(String, Vec<u8>)> {
    let mut reader = BufReader::new(stream);
    let (mut first, mut length) = (String::new(), 0);
    loop {
        let mut line = String::new();
        // Who does not trust our certificate says no more.
        if !reader.read_line(&mut line).is_ok_and(|n| n > 0) {
            return None;
        }
        let line = line.trim_end();
        if line.is_empty() {
            break;
        }
        if first.is_empty() {
            first = line.to_owned();
        }
        if let Some((name, value)) = line.split_once(": ")
            && name.eq_ignore_ascii_case("content-length")
        {
            length = value.parse().unwrap();
        }
    }
    let mut body = vec![0; length];
    reader.read_exact(&mut body).unwrap();
    let answer = "HTTP/1.1 200 OK\r\nContent-Type: application/x-protobuf\r\n\
                  Content-Length: 0\r\nConnection: close\r\n\r\n";
    reader.get_mut().write_all(answer.as_bytes()).unwrap();
    Some((first, body))
}

/// A field's value on the wire of Protocol Buffers.
enum Field<'a> {
    Number(u64),
    Bytes(&'a [u8]),
}

impl<'a> Field<'a> {
    fn bytes(&self) -> &'a [u8] {
        match self {
            Self::Bytes(bytes) => bytes,
            Self::Number(_) => panic!("a number where a message should be"),
        }
    }

    fn number(&self) -> u64 {
        match self {
            Self::Number(number) => *number,
            Self::Bytes(_) => panic!("a message where a number should be"),
        }
    }

    fn text(&self) -> String {
        String::from_utf8(self.bytes().to_vec()).unwrap()
    }

    fn hex(&self) -> String {
        self.bytes().iter().map(|byte| format!("{byte:02x}")).collect()
    }
}

fn varint(rest: &mut &[u8]) -> u64 {
    let mut value = 0;
    for shift in (0..64).step_by(7) {
        let byte = cut(rest, 1)[0];
        value |= u64::from(byte & 0x7f) << shift;
        if byte < 0x80 {
            break;
        }
    }
    value
}

fn cut<'a>(rest: &mut &'a [u8], length: usize) -> &'a [u8] {
    let (front, back) = rest.split_at(length);
    *rest = back;
    front
}

/// The fields of a message with their numbers.
fn fields(mut rest: &[u8]) -> Vec<(u64, Field<'_>)> {
    let mut found = Vec::new();
    while !rest.is_empty() {
        let tag = varint(&mut rest);
        let value = match tag & 7 {
            0 => Field::Number(varint(&mut rest)),
            1 => Field::Number(u64::from_le_bytes(cut(&mut rest, 8).try_into().unwrap())),
            2 => {
                let length = varint(&mut rest) as usize;
                Field::Bytes(cut(&mut rest, length))
            }
            5 => Field::Number(u32::from_le_bytes(cut(&mut rest, 4).try_into().unwrap()).into()),
            other => panic!("wire type {other}"),
        };
        found.push((tag >> 3, value));
    }
    found
}

/// The submessages of that number.
fn all(message: &[u8], number: u64) -> Vec<&[u8]> {
    let wanted = fields(message).into_iter().filter(|(n, _)| *n == number);
    wanted.map(|(_, field)| field.bytes()).collect()
}

/// `ExportTraceServiceRequest` of opentelemetry-proto; the numbers are those of its `trace.proto`,
/// `common.proto` and `resource.proto`.
fn export_request(body: &[u8]) -> Vec<Span> {
    let mut found = Vec::new();
    for resource_spans in all(body, 1) {
        let resource = all(resource_spans, 1).into_iter().flat_map(|r| all(r, 1));
        let resource: HashMap<_, _> = resource.map(attribute).collect();
        let service = resource.get("service.name").cloned().unwrap_or_default();
        for span in all(resource_spans, 2).into_iter().flat_map(|scope| all(scope, 2)) {
            found.push(Span { service: service.clone(), ..self::span(span) });
        }
    }
    found
}

fn span(message: &[u8]) -> Span {
    let mut span = Span::default();
    for (number, field) in fields(message) {
        match number {
            1 => span.trace = field.hex(),
            2 => span.id = field.hex(),
            3 => span.trace_state = field.text(),
            4 => span.parent = field.hex(),
            5 => span.name = field.text(),
            6 => span.kind = field.number(),
            7 => span.start = field.number(),
            8 => span.end = field.number(),
            9 => {
                let (key, value) = attribute(field.bytes());
                assert!(span.attributes.insert(key.clone(), value).is_none(), "twice: {key}");
            }
            15 => {
                for (number, field) in fields(field.bytes()) {
                    match number {
                        2 => span.message = field.text(),
                        3 => span.is_error = field.number() == 2,
                        _ => {}
                    }
                }
            }
            _ => {}
        }
    }
    span
}

/// A `KeyValue` with a text or a number.
fn attribute(message: &[u8]) -> (String, String) {
    let (mut key, mut value) = (String::new(), String::new());
    for (number, field) in fields(message) {
        match number {
            1 => key = field.text(),
            2 => {
                for (number, field) in fields(field.bytes()) {
                    match number {
                        1 => value = field.text(),
                        3 => value = field.number().to_string(),
                        _ => {}
                    }
                }
            }
            _ => {}
        }
    }
    (key, value)
}
