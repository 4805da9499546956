//! The upstream's side of the opening handshake: RFC 6455 section 4.1 on top of
//! RFC 9112.

use super::answer::{Answer, OtherAnswer, Switched};
use super::bad_answer::BadAnswer;
use super::body::BodyFraming;
use super::extensions::extension_names;
use super::fields::{Duplicate, Fields};
use super::head::Head;
use super::request::UpgradeRequest;
use super::scan::Kind;
use super::{HeadLimits, Progress, accept_for_key, show};

/// Reads the answer to `req` at the start of `buf`. Interim answers (1xx other
/// than 101, RFC 9110 section 15.2) are stepped over.
///
/// Call it again with a longer buffer, from the same first byte on, while it
/// returns [`Progress::Partial`].
///
/// # Errors
///
/// The answer must not reach the client.
pub fn parse_response(
    buf: &[u8],
    req: &UpgradeRequest,
    limits: &HeadLimits,
) -> Result<Progress<Answer>, BadAnswer> {
    let mut consumed = 0;
    loop {
        let left = HeadLimits { max_bytes: limits.max_bytes.saturating_sub(consumed), ..*limits };
        let head = Head::read(&buf[consumed..], Kind::Response, &left)?;
        let Some(head) = head else { return Ok(Progress::Partial) };
        consumed += head.consumed;
        let line = StatusLine::cut(head.line)?;
        let value = match line.status {
            101 => Answer::Switched(switched(&line, &head.fields, req)?),
            100..=199 => {
                check_no_body(&line, &head.fields)?;
                continue;
            }
            _ => Answer::Other(other(&line, &head.fields)?),
        };
        return Ok(Progress::Done { value, consumed });
    }
}

/// `HTTP-version SP status-code SP [ reason-phrase ]` (RFC 9112 section 4).
pub(crate) struct StatusLine<'a> {
    pub(crate) http_1_0: bool,
    /// From 100 to 599.
    pub(crate) status: u16,
    pub(crate) reason: &'a [u8],
}

impl<'a> StatusLine<'a> {
    /// Cuts a line whose form the scanner has checked.
    pub(crate) fn cut(line: &'a [u8]) -> Result<Self, BadAnswer> {
        let mut parts = line.splitn(3, |&b| b == b' ');
        let mut part = || parts.next().unwrap_or_default();
        let (version, status, reason) = (part(), part(), part());
        let http_1_0 = match version {
            b"HTTP/1.1" => false,
            b"HTTP/1.0" => true,
            other => return Err(BadAnswer::HttpVersion { found: show(other) }),
        };
        let digits = std::str::from_utf8(status).ok().and_then(|s| s.parse().ok());
        match digits.unwrap_or_default() {
            status @ 100..=599 => Ok(Self { http_1_0, status, reason }),
            found => Err(BadAnswer::Status { found }),
        }
    }
}

/// A 1xx ends with its head (RFC 9110 sections 8.6 and 15.2).
fn check_no_body(line: &StatusLine<'_>, fields: &Fields<'_>) -> Result<(), BadAnswer> {
    let status = line.status;
    if fields.has("transfer-encoding") {
        return Err(BadAnswer::BodyNotAllowed { status, name: "Transfer-Encoding" });
    }
    match length(fields)? {
        Some(n) if n > 0 => Err(BadAnswer::BodyNotAllowed { status, name: "Content-Length" }),
        _ => Ok(()),
    }
}

/// The 101 (RFC 6455 section 4.1, the list of what a client checks).
pub(crate) fn switched(
    line: &StatusLine<'_>,
    fields: &Fields<'_>,
    req: &UpgradeRequest,
) -> Result<Switched, BadAnswer> {
    if line.http_1_0 {
        return Err(BadAnswer::SwitchedInHttp10);
    }
    check_no_body(line, fields)?;
    let found = |name: &str| show(&fields.joined(name));
    // One protocol is switched to (RFC 9110 section 7.8).
    let upgrades = fields.elements("upgrade").count();
    if upgrades != 1 || !fields.lists("upgrade", "websocket") {
        return Err(BadAnswer::Upgrade { found: found("upgrade") });
    }
    let bad_connection = || BadAnswer::Connection { found: found("connection") };
    let options = fields.tokens("connection").map_err(|_| bad_connection())?;
    if !options.iter().any(|option| option.eq_ignore_ascii_case("upgrade")) {
        return Err(bad_connection());
    }
    check_accept(fields, req)?;
    let protocol = check_protocol(fields, req)?;
    // RFC 6455 section 11.3.2: an answer has this header once.
    if fields.at_most_one("sec-websocket-extensions").is_err() {
        return Err(BadAnswer::Duplicate { name: "Sec-WebSocket-Extensions" });
    }
    let mut extensions = Vec::new();
    for value in fields.all("sec-websocket-extensions") {
        let names =
            extension_names(value).ok_or_else(|| BadAnswer::Extensions { found: show(value) })?;
        for name in names {
            if !req.extensions.iter().any(|offered| offered.eq_ignore_ascii_case(&name)) {
                return Err(BadAnswer::ExtensionNotOffered { found: show(name.as_bytes()) });
            }
            extensions.push(name);
        }
    }
    Ok(Switched { protocol, extensions, headers: fields.end_to_end(&options) })
}

fn check_accept(fields: &Fields<'_>, req: &UpgradeRequest) -> Result<(), BadAnswer> {
    const NAME: &str = "Sec-WebSocket-Accept";
    let expected = accept_for_key(&req.key);
    match fields.at_most_one(NAME) {
        Err(Duplicate) => Err(BadAnswer::Duplicate { name: NAME }),
        Ok(None) => Err(BadAnswer::AcceptMissing),
        Ok(Some(found)) if found == expected.as_bytes() => Ok(()),
        Ok(Some(found)) => Err(BadAnswer::AcceptWrong { expected, found: show(found) }),
    }
}

fn check_protocol(fields: &Fields<'_>, req: &UpgradeRequest) -> Result<Option<String>, BadAnswer> {
    const NAME: &str = "Sec-WebSocket-Protocol";
    match fields.at_most_one(NAME) {
        Err(Duplicate) => Err(BadAnswer::Duplicate { name: NAME }),
        Ok(None) => Ok(None),
        Ok(Some(chosen)) => {
            let offered = req.protocols.iter().find(|p| p.as_bytes() == chosen);
            let unknown = || BadAnswer::ProtocolNotOffered { found: show(chosen) };
            offered.cloned().map(Some).ok_or_else(unknown)
        }
    }
}

fn length(fields: &Fields<'_>) -> Result<Option<u64>, BadAnswer> {
    let length = fields.content_length();
    let length = length.map_err(|bad| BadAnswer::ContentLength { found: show(bad.0) })?;
    Ok(length.map(|l| l.value))
}

/// The framing of an answer to a GET (RFC 9112 section 6.3).
fn other(line: &StatusLine<'_>, fields: &Fields<'_>) -> Result<OtherAnswer, BadAnswer> {
    let announced = length(fields)?;
    let coded = fields.has("transfer-encoding");
    if coded && line.http_1_0 {
        return Err(BadAnswer::CodingInHttp10);
    }
    if coded && announced.is_some() {
        return Err(BadAnswer::TwoLengths);
    }
    let bodiless = matches!(line.status, 204 | 304);
    let framing = if coded {
        let coding = fields.joined("transfer-encoding");
        if !coding.eq_ignore_ascii_case(b"chunked") {
            return Err(BadAnswer::TransferCoding { found: show(&coding) });
        }
        if bodiless { BodyFraming::None } else { BodyFraming::Chunked }
    } else {
        match announced {
            _ if bodiless => BodyFraming::None,
            Some(n) => BodyFraming::Length(n),
            None => BodyFraming::UntilClose,
        }
    };
    // RFC 9110 section 8.6: 204 must not have a length, 304 may.
    let announced = announced.filter(|_| line.status == 304);
    let options = fields.tokens("connection").unwrap_or_default();
    Ok(OtherAnswer {
        status: line.status,
        reason: line.reason.to_vec(),
        headers: fields.end_to_end(&options),
        framing,
        announced,
        // RFC 9110 section 15.5.22: a 426 says with it what to upgrade to.
        upgrade: (line.status == 426).then(|| fields.joined("upgrade")).filter(|u| !u.is_empty()),
    })
}
