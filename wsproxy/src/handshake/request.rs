//! The client's side of the opening handshake: RFC 6455 section 4.2.1 on top of
//! RFC 9110 and RFC 9112.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use super::body::BodyFraming;
use super::extensions::extension_names;
use super::fields::{Duplicate, Fields};
use super::head::Head;
use super::refusal::{Refusal, RefusalReason};
use super::scan::Kind;
use super::target::{TargetFault, host, origin_form};
use super::{HeadLimits, Progress, show};

/// A well-formed request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Incoming {
    /// A valid opening handshake.
    Upgrade(Box<UpgradeRequest>),
    /// Anything else.
    Plain(PlainRequest),
}

/// A well-formed request that is no opening handshake.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PlainRequest {
    /// The method.
    pub method: String,
    /// How its body is delimited; never until close.
    pub framing: BodyFraming,
}

/// A valid opening handshake of a client (RFC 6455 section 4.2.1).
///
/// `Debug` prints header values too, cookies and credentials among them: do not
/// log it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UpgradeRequest {
    /// The request target in origin form (RFC 9112 section 3.2.1).
    pub target: String,
    /// The value of `Host` (RFC 9110 section 7.2).
    pub host: String,
    /// The value of `Sec-WebSocket-Key` (RFC 6455 section 11.3.1).
    pub key: String,
    /// The offered subprotocols in the client's order, without duplicates (RFC
    /// 6455 section 11.3.4).
    pub protocols: Vec<String>,
    /// The names of the offered extensions in the client's order; one may be
    /// offered more than once with different parameters (RFC 6455 section 9.1).
    pub extensions: Vec<String>,
    /// The `Sec-WebSocket-Extensions` values as they came, line by line.
    pub extension_values: Vec<String>,
    /// Every end-to-end header, `Host` and `Sec-WebSocket-*` included, in the
    /// order and with the names as they came (RFC 9110 section 7.6.1 says which
    /// end at this hop).
    pub headers: Vec<(String, Vec<u8>)>,
    /// Whether the connection may go on after an answer other than 101: no
    /// `close` in `Connection` (RFC 9112 section 9.3).
    pub keep_alive: bool,
    /// The value of `Origin`, which browsers send (RFC 6454 section 7, RFC 6455
    /// section 10.2).
    pub origin: Option<String>,
}

/// The handshake that we send ourselves, for [`parse_response`](super::parse_response) to hold
/// the answer against.
#[must_use]
pub fn check_request(target: &str, host: &str, key: &str) -> UpgradeRequest {
    UpgradeRequest {
        target: target.to_owned(),
        host: host.to_owned(),
        key: key.to_owned(),
        protocols: Vec::new(),
        extensions: Vec::new(),
        extension_values: Vec::new(),
        headers: Vec::new(),
        keep_alive: false,
        origin: None,
    }
}

/// Reads the request at the start of `buf`.
///
/// Call it again with a longer buffer, from the same first byte on, while it
/// returns [`Progress::Partial`]. A head may be refused before it is complete.
/// The verdict never depends on how the bytes were split over calls. The scan
/// starts anew with each call, so what bounds the work of a client that drips
/// bytes is [`HeadLimits::max_bytes`] and the caller's timeout.
///
/// # Errors
///
/// The [`Refusal`] to send to the client before closing the connection.
pub fn parse_incoming(buf: &[u8], limits: &HeadLimits) -> Result<Progress<Incoming>, Refusal> {
    let Some(head) = Head::read(buf, Kind::Request, limits)? else {
        return Ok(Progress::Partial);
    };
    let line = RequestLine::cut(head.line);
    match judge(&line, &head.fields) {
        Ok(value) => Ok(Progress::Done { value, consumed: head.consumed }),
        Err(mut refusal) => {
            refusal.bodiless = line.method == "HEAD";
            Err(refusal)
        }
    }
}

/// As [`parse_incoming`], where nothing but the opening handshake will do (RFC 6455 section
/// 4.2.1).
///
/// # Errors
///
/// The [`Refusal`] to send to the client before closing the connection.
pub fn parse_request(buf: &[u8], limits: &HeadLimits) -> Result<Progress<UpgradeRequest>, Refusal> {
    match parse_incoming(buf, limits)? {
        Progress::Partial => Ok(Progress::Partial),
        Progress::Done { value: Incoming::Upgrade(request), consumed } => {
            Ok(Progress::Done { value: *request, consumed })
        }
        Progress::Done { value: Incoming::Plain(plain), .. } => {
            Err(Refusal::not_websocket(&plain.method))
        }
    }
}

/// `method SP request-target SP HTTP-version` (RFC 9112 section 3).
#[derive(Clone, Copy)]
struct RequestLine<'a> {
    method: &'a str,
    target: &'a str,
    version: &'a str,
}

impl<'a> RequestLine<'a> {
    /// Cuts a line that the scanner has let pass: three parts of visible ASCII.
    fn cut(line: &'a [u8]) -> Self {
        let text = std::str::from_utf8(line).unwrap_or_default();
        let mut parts = text.split(' ');
        let mut part = || parts.next().unwrap_or_default();
        Self { method: part(), target: part(), version: part() }
    }
}

/// The order matters: what is no well-formed HTTP message comes first, whatever
/// it asks for; then what asks for a WebSocket in a wrong way.
fn judge(line: &RequestLine<'_>, fields: &Fields<'_>) -> Result<Incoming, Refusal> {
    let is_http_1_0 = line.version == "HTTP/1.0";
    if !is_http_1_0 && line.version != "HTTP/1.1" {
        return Err(wrong_version(line.version));
    }
    check_length(fields)?;
    let host = check_host(fields, is_http_1_0)?;
    if !fields.lists("upgrade", "websocket") {
        return plain(line, fields, host).map(Incoming::Plain);
    }
    if is_http_1_0 {
        return Err(wrong_version(line.version));
    }
    if line.method != "GET" {
        let what = show(line.method.as_bytes());
        let detail = format!("A WebSocket handshake is a GET request, not {what}.");
        return Err(Refusal::new(405, RefusalReason::Method, detail).with("Allow", "GET"));
    }
    check_no_body(fields)?;
    let target = check_target(line, host)?;
    let options = check_connection(fields)?;
    check_websocket_version(fields)?;
    let key = check_key(fields)?;
    let (extensions, extension_values) = check_extensions(fields)?;
    Ok(Incoming::Upgrade(Box::new(UpgradeRequest {
        target,
        host: host.to_owned(),
        key,
        protocols: check_protocols(fields)?,
        extensions,
        extension_values,
        headers: fields.end_to_end(&options),
        keep_alive: !options.iter().any(|option| option.eq_ignore_ascii_case("close")),
        origin: check_origin(fields)?,
    })))
}

fn check_target(line: &RequestLine<'_>, host: &str) -> Result<String, Refusal> {
    origin_form(line.target, host).map_err(|fault| bad_target(line.target, fault))
}

fn bad_target(target: &str, fault: TargetFault) -> Refusal {
    let detail =
        format!("Bad request target \"{}\": {}.", show(target.as_bytes()), fault.explain());
    Refusal::new(400, RefusalReason::Target, detail)
}

/// A request that asks for no tunnel: what every HTTP server behind us must read in the same
/// way as we do.
fn plain(line: &RequestLine<'_>, fields: &Fields<'_>, host: &str) -> Result<PlainRequest, Refusal> {
    // RFC 9110 sections 9.3.6 and 9.3.8: a tunnel by another name, and an echo of what proxies add.
    if matches!(line.method, "CONNECT" | "TRACE") {
        let detail = format!("This gateway does not serve {}.", line.method);
        return Err(Refusal::new(405, RefusalReason::Method, detail)
            .with("Allow", "GET, HEAD, POST, PUT, DELETE, OPTIONS, PATCH"));
    }
    // RFC 9112 section 3.2.4.
    if !(line.target == "*" && line.method == "OPTIONS") {
        check_target(line, host)?;
    }
    if fields.tokens("connection").is_err() {
        let value = fields.joined("connection");
        let why = "It must be a list of tokens";
        return Err(Refusal::header(RefusalReason::Connection, "Connection", &value, why));
    }
    Ok(PlainRequest { method: line.method.to_owned(), framing: framing(line, fields)? })
}

/// RFC 9112 section 6.3, without its repairs.
fn framing(line: &RequestLine<'_>, fields: &Fields<'_>) -> Result<BodyFraming, Refusal> {
    if fields.has("transfer-encoding") {
        let coding = fields.joined("transfer-encoding");
        let why = if line.version == "HTTP/1.0" {
            "HTTP/1.0 has none"
        } else if coding.eq_ignore_ascii_case(b"chunked") {
            return Ok(BodyFraming::Chunked);
        } else {
            "Only \"chunked\" is served"
        };
        let reason = RefusalReason::TransferEncoding;
        return Err(Refusal::header(reason, "Transfer-Encoding", &coding, why));
    }
    match fields.content_length() {
        Ok(Some(length)) if length.value > 0 => Ok(BodyFraming::Length(length.value)),
        _ => Ok(BodyFraming::None),
    }
}

fn wrong_version(version: &str) -> Refusal {
    let shown = show(version.as_bytes());
    let detail = format!("This gateway speaks HTTP/1.1 only, and the request says {shown}.");
    Refusal::new(505, RefusalReason::HttpVersion, detail)
}

/// RFC 9112 section 6.3 allows to repair some of these; each of them is a
/// request that two servers may delimit differently.
fn check_length(fields: &Fields<'_>) -> Result<(), Refusal> {
    let bad = |why| {
        let value = fields.joined("content-length");
        Err(Refusal::header(RefusalReason::ContentLength, "Content-Length", &value, why))
    };
    match fields.content_length() {
        Err(_) => bad("It must be one number"),
        Ok(Some(length)) if length.times > 1 => bad("It must come once"),
        Ok(Some(_)) if fields.has("transfer-encoding") => {
            bad("It must not come together with Transfer-Encoding")
        }
        Ok(_) => Ok(()),
    }
}

/// RFC 9112 section 3.2. HTTP/1.0 knows no `Host`, and such a request is
/// refused for that later.
fn check_host<'a>(fields: &Fields<'a>, may_miss: bool) -> Result<&'a str, Refusal> {
    let bad = |why| {
        let value = fields.joined("host");
        Err(Refusal::header(RefusalReason::Host, "Host", &value, why))
    };
    match fields.at_most_one("host") {
        Err(Duplicate) => bad("It must come once"),
        Ok(None) if may_miss => Ok(""),
        Ok(None) => {
            let detail = "The request has no Host header.";
            Err(Refusal::new(400, RefusalReason::Host, detail))
        }
        Ok(Some(value)) => match host(value) {
            Some(host) => Ok(host),
            None => bad("It must be a host name or an address, and a port at most"),
        },
    }
}

/// The tunnel starts right behind the head. With a body there, gateway and
/// upstream server could take different bytes for the first frame.
fn check_no_body(fields: &Fields<'_>) -> Result<(), Refusal> {
    let why = "A WebSocket handshake has no body";
    let bad = |name: &str| {
        let value = fields.joined(name);
        Err(Refusal::header(RefusalReason::Body, name, &value, why))
    };
    if fields.has("transfer-encoding") {
        return bad("Transfer-Encoding");
    }
    match fields.content_length() {
        Ok(Some(length)) if length.value > 0 => bad("Content-Length"),
        _ => Ok(()),
    }
}

/// RFC 6455 section 4.2.1, item 4. Returns the connection options.
fn check_connection<'a>(fields: &Fields<'a>) -> Result<Vec<&'a str>, Refusal> {
    let reason = RefusalReason::Connection;
    let value = || fields.joined("connection");
    let options = fields.tokens("connection").map_err(|_| {
        Refusal::header(reason, "Connection", &value(), "It must be a list of tokens")
    })?;
    if options.iter().any(|option| option.eq_ignore_ascii_case("upgrade")) {
        Ok(options)
    } else {
        Err(Refusal::header(reason, "Connection", &value(), "It must contain \"Upgrade\""))
    }
}

/// RFC 6455 section 4.2.1, item 6, and section 4.4.
fn check_websocket_version(fields: &Fields<'_>) -> Result<(), Refusal> {
    const NAME: &str = "Sec-WebSocket-Version";
    let reason = RefusalReason::WebSocketVersion;
    let refusal = match fields.at_most_one(NAME) {
        Ok(Some(b"13")) => return Ok(()),
        Ok(Some(other)) => {
            let shown = show(other);
            let detail = format!("{NAME} is \"{shown}\", and this gateway speaks version 13 only.");
            Refusal::new(426, reason, detail).with("Upgrade", "websocket")
        }
        Ok(None) => Refusal::new(400, reason, format!("The request has no {NAME} header.")),
        Err(Duplicate) => Refusal::header(reason, NAME, &fields.joined(NAME), "It must come once"),
    };
    Err(refusal.with(NAME, "13"))
}

/// RFC 6455 section 4.2.1, item 5: 16 bytes in base64, in their one canonical
/// form.
fn check_key(fields: &Fields<'_>) -> Result<String, Refusal> {
    const NAME: &str = "Sec-WebSocket-Key";
    let reason = RefusalReason::Key;
    let bad = |why| Err(Refusal::header(reason, NAME, &fields.joined(NAME), why));
    match fields.at_most_one(NAME) {
        Err(Duplicate) => bad("It must come once"),
        Ok(None) => Err(Refusal::new(400, reason, format!("The request has no {NAME} header."))),
        Ok(Some(value)) => match (STANDARD.decode(value), std::str::from_utf8(value)) {
            (Ok(nonce), Ok(key)) if nonce.len() == 16 => Ok(key.to_owned()),
            _ => bad("It must be 16 bytes in base64"),
        },
    }
}

/// RFC 6455 section 4.1, item 10 of the requirements: tokens, all different. An
/// empty header offers nothing; it is what some clients send for an empty list.
fn check_protocols(fields: &Fields<'_>) -> Result<Vec<String>, Refusal> {
    const NAME: &str = "Sec-WebSocket-Protocol";
    let bad = |why| Refusal::header(RefusalReason::Protocols, NAME, &fields.joined(NAME), why);
    let offered = fields.tokens(NAME).map_err(|_| bad("It must be a list of tokens"))?;
    for (at, protocol) in offered.iter().enumerate() {
        if offered[..at].contains(protocol) {
            return Err(bad("It must not name a protocol twice"));
        }
    }
    Ok(offered.into_iter().map(str::to_owned).collect())
}

/// RFC 6455 section 9.1. Returns the names and the values.
fn check_extensions(fields: &Fields<'_>) -> Result<(Vec<String>, Vec<String>), Refusal> {
    const NAME: &str = "Sec-WebSocket-Extensions";
    let (mut names, mut values) = (Vec::new(), Vec::new());
    for line in fields.all(NAME) {
        let (Some(found), Ok(value)) = (extension_names(line), std::str::from_utf8(line)) else {
            let why = "It must be a list of extensions with their parameters";
            return Err(Refusal::header(RefusalReason::Extensions, NAME, line, why));
        };
        names.extend(found);
        values.push(value.to_owned());
    }
    Ok((names, values))
}

/// RFC 6454 section 7. A second `Origin` could slip past whoever checks one.
fn check_origin(fields: &Fields<'_>) -> Result<Option<String>, Refusal> {
    let bad = |why| {
        let value = fields.joined("origin");
        Err(Refusal::header(RefusalReason::Origin, "Origin", &value, why))
    };
    match fields.at_most_one("origin") {
        Err(Duplicate) => bad("It must come once"),
        Ok(None) => Ok(None),
        Ok(Some(value)) => match std::str::from_utf8(value) {
            Ok(origin) if origin.is_ascii() => Ok(Some(origin.to_owned())),
            _ => bad("It must be ASCII"),
        },
    }
}
