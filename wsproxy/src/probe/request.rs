//! What the flags ask for, and the opening handshake's request (RFC 6455
//! section 4.1).

use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use super::args::ProbeArgs;
use super::shown::header_line;
use super::target::{Place, Target};
use crate::handshake::{self, HeadLimits, UpgradeRequest, is_field_byte, is_host};

/// The most bytes of a request: more no gateway takes that has our defaults.
const MAX_HEAD_BYTES: usize = HeadLimits::DEFAULT.max_bytes;

/// Headers that the handshake itself writes, and what to use instead.
const OWN: [(&str, &str); 10] = [
    ("host", "use --host"),
    ("origin", "use --origin"),
    ("sec-websocket-protocol", "use --subprotocol"),
    ("upgrade", "the handshake sets it"),
    ("connection", "the handshake sets it"),
    ("sec-websocket-key", "the handshake sets it"),
    ("sec-websocket-version", "the handshake sets it"),
    ("sec-websocket-extensions", "this client has no extensions"),
    ("content-length", "the request has no body"),
    ("transfer-encoding", "the request has no body"),
];

/// The flags, checked.
#[derive(Debug, Clone)]
pub(super) struct Plan {
    pub(super) target: Target,
    /// Where to connect, if not to the host of the URL.
    pub(super) instead: Option<Place>,
    pub(super) timeout: Duration,
    host: String,
    origin: Option<String>,
    pub(super) protocols: Vec<String>,
    headers: Vec<(String, String)>,
}

/// The request as sent.
#[derive(Debug, Clone)]
pub(super) struct Request {
    pub(super) head: Vec<u8>,
    /// The `Sec-WebSocket-Key`.
    pub(super) key: String,
}

impl Plan {
    /// Checks the flags; the error is a sentence without its full stop.
    pub(super) fn new(args: &ProbeArgs) -> Result<Self, String> {
        let target = Target::read(&args.url)?;
        let instead = args.resolve.as_deref().map(|text| Place::read(text, target.place.port));
        let instead = instead.transpose().map_err(|error| format!("--resolve: {error}"))?;
        let host = args.host.clone().unwrap_or_else(|| target.authority.clone());
        if !is_host(&host) {
            return Err("--host must be a name or an address, and a port at most".to_owned());
        }
        if args.origin.as_deref().is_some_and(|origin| !is_value(origin)) {
            return Err("--origin contains a control character".to_owned());
        }
        if !args.subprotocols.iter().all(|name| is_token(name)) {
            return Err("--subprotocol must be a token, without spaces and commas".to_owned());
        }
        let headers =
            args.headers.iter().map(|text| header(text)).collect::<Result<Vec<_>, _>>()?;
        let plan = Self {
            target,
            instead,
            timeout: Duration::from_secs(args.timeout),
            host,
            origin: args.origin.clone(),
            protocols: args.subprotocols.clone(),
            headers,
        };
        if plan.request([0; 16]).head.len() > MAX_HEAD_BYTES {
            return Err(format!("the request would be longer than {MAX_HEAD_BYTES} bytes"));
        }
        Ok(plan)
    }

    pub(super) fn has_origin(&self) -> bool {
        self.origin.is_some()
    }

    /// The request with a fresh nonce (RFC 6455 section 4.1, item 7).
    pub(super) fn request(&self, nonce: [u8; 16]) -> Request {
        let key = STANDARD.encode(nonce);
        let mut head = format!("GET {} HTTP/1.1\r\n", self.target.path);
        let mut add = |name: &str, value: &str| {
            for part in [name, ": ", value, "\r\n"] {
                head.push_str(part);
            }
        };
        add("Host", &self.host);
        add("Upgrade", "websocket");
        add("Connection", "Upgrade");
        add("Sec-WebSocket-Key", &key);
        add("Sec-WebSocket-Version", "13");
        if let Some(origin) = &self.origin {
            add("Origin", origin);
        }
        if !self.protocols.is_empty() {
            add("Sec-WebSocket-Protocol", &self.protocols.join(", "));
        }
        let agent = |(name, _): &(String, String)| name.eq_ignore_ascii_case("user-agent");
        if !self.headers.iter().any(agent) {
            add("User-Agent", concat!("wsproxy-probe/", env!("CARGO_PKG_VERSION")));
        }
        for (name, value) in &self.headers {
            add(name, value);
        }
        head.push_str("\r\n");
        Request { head: head.into_bytes(), key }
    }

    /// What an answer to `request` is held against.
    pub(super) fn asked(&self, request: &Request) -> UpgradeRequest {
        let asked = handshake::check_request(&self.target.path, &self.host, &request.key);
        UpgradeRequest { protocols: self.protocols.clone(), ..asked }
    }
}

impl Request {
    /// The lines as they may be shown.
    pub(super) fn lines(&self) -> Vec<String> {
        let lines = self.head.split(|&byte| byte == b'\n');
        let lines = lines.map(|line| line.strip_suffix(b"\r").unwrap_or(line));
        lines.filter(|line| !line.is_empty()).map(header_line).collect()
    }
}

fn header(text: &str) -> Result<(String, String), String> {
    let cut = text.split_once(':').map(|(name, value)| (name.trim(), value.trim()));
    // The value may be a secret: it is in no message.
    let Some((name, value)) = cut else {
        return Err("--header must be NAME:VALUE".to_owned());
    };
    if !is_token(name) {
        return Err("--header: the name contains a character that is not allowed there".to_owned());
    }
    if !is_value(value) {
        return Err(format!("--header: the value of {name} contains a control character"));
    }
    if let Some((_, instead)) = OWN.iter().find(|(own, _)| own.eq_ignore_ascii_case(name)) {
        return Err(format!("--header can't set {name}: {instead}"));
    }
    Ok((name.to_owned(), value.to_owned()))
}

fn is_token(text: &str) -> bool {
    handshake::token(text.as_bytes()).is_some()
}

fn is_value(text: &str) -> bool {
    text.bytes().all(is_field_byte)
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::Parser;

    #[derive(Parser)]
    struct Cli {
        #[command(flatten)]
        args: ProbeArgs,
    }

    fn plan(flags: &[&str]) -> Result<Plan, String> {
        let all = ["probe"].iter().chain(flags).copied();
        Plan::new(&Cli::try_parse_from(all).unwrap().args)
    }

    #[test]
    fn the_request_of_a_browser() {
        let flags = ["ws://a:81/x?y", "--origin", "https://o", "--subprotocol", "b"];
        let more = ["--subprotocol", "c", "--header", "Cookie: s=1", "--header", "User-Agent:u"];
        let plan = plan(&[&flags[..], &more[..]].concat()).unwrap();
        let request = plan.request(*b"the sample nonce");
        assert_eq!(request.key, "dGhlIHNhbXBsZSBub25jZQ==");
        let text = String::from_utf8(request.head.clone()).unwrap();
        assert_eq!(
            text,
            "GET /x?y HTTP/1.1\r\nHost: a:81\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
             Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\
             Origin: https://o\r\nSec-WebSocket-Protocol: b, c\r\nCookie: s=1\r\nUser-Agent: u\r\n\r\n"
        );
        let lines = request.lines();
        assert!(lines.contains(&"Cookie: ...".to_owned()));
        assert!(!lines.iter().any(|line| line.contains("s=1")));
    }

    #[test]
    fn bad_flags_say_why() {
        let long = format!("X-A: {}", "a".repeat(MAX_HEAD_BYTES));
        let cases: &[(&[&str], &str)] = &[
            (&["ws://a", "--header", "X"], "NAME:VALUE"),
            (&["ws://a", "--header", "X Y: z"], "name contains"),
            (&["ws://a", "--header", "X: a\r\nb"], "value of X"),
            (&["ws://a", "--header", "Host: b"], "--host"),
            (&["ws://a", "--header", "connection: close"], "handshake sets it"),
            (&["ws://a", "--header", &long], "longer"),
            (&["ws://a", "--origin", "a\nb"], "--origin"),
            (&["ws://a", "--subprotocol", "a b"], "--subprotocol"),
            (&["ws://a", "--host", "a/b"], "--host"),
            (&["ws://a", "--resolve", "a:b"], "--resolve"),
        ];
        for (flags, why) in cases {
            let error = plan(flags).expect_err(why);
            assert!(error.contains(why), "{flags:?}: {error}");
        }
    }

    #[test]
    fn host_and_place_can_differ_from_the_url() {
        let plan = plan(&["wss://a/", "--host", "b:1", "--resolve", "127.0.0.1"]).unwrap();
        assert_eq!(plan.instead, Some(Place { host: "127.0.0.1".into(), port: 443 }));
        let head = plan.request([0; 16]).head;
        assert!(head.windows(11).any(|at| at == &b"\r\nHost: b:1\r"[..11]));
    }
}
