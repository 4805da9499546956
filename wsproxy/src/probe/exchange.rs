//! Request and answer (RFC 6455 section 4).

use std::io::Write;
use std::time::{Duration, Instant};

use serde_json::json;
use tokio::time;

use super::answer::{Answer, Head};
use super::explain::{self, Refused};
use super::judge::judge;
use super::link::{AnyLink, Lost, read_some, send};
use super::report::{Report, Step, Stop, micros, millis};
use super::request::{Plan, Request};
use super::shown::{header_line, shown, shown_lines};

/// The most bytes of a body that are shown.
const MAX_BODY_BYTES: usize = 4 * 1024;
/// The most bytes of a body that are read: its framing comes on top.
const MAX_RAW_BODY_BYTES: usize = 2 * MAX_BODY_BYTES;
/// How long the body may take, which is there for the reader only.
const BODY_PATIENCE: Duration = Duration::from_secs(1);
/// How long to wait for more of an answer that is wrong already.
const LINGER: Duration = Duration::from_millis(200);
/// The most bytes that are shown of what is no head.
const MAX_SHOWN_BYTES: usize = 512;
/// The most bytes that are shown of one value.
const MAX_VALUE_BYTES: usize = 256;

/// An open tunnel.
pub(super) struct Opened {
    /// What came behind the head: the first frames.
    pub(super) rest: Vec<u8>,
}

/// What came until the head was complete.
struct Received {
    answer: Answer,
    /// When the first byte came, and when the head was complete.
    first_byte: Duration,
    complete: Duration,
}

/// Sends the request and judges the answer.
pub(super) async fn exchange<W: Write>(
    link: &mut AnyLink,
    plan: &Plan,
    request: &Request,
    report: &mut Report<'_, W>,
    until: time::Instant,
) -> Result<Opened, Stop> {
    let lines = request.lines();
    report.step(Step::new("request").lines("> ", &lines).detail("lines", lines))?;
    let mut buf = Vec::new();
    let received = receive(link, plan, request, report, until, &mut buf).await?;
    let rest = buf.split_off(received.answer.end);
    report.request_id =
        received.answer.head.first("x-request-id").map(|id| shown(id, MAX_VALUE_BYTES));
    if received.answer.head.status == 101 {
        return switched(&buf, &received, rest, plan, request, report);
    }
    let (body, whole) = body(link, &received.answer.head, rest, until).await;
    let text = shown(&body, MAX_BODY_BYTES);
    let mut step = head_step(&buf, &received).failed();
    if !body.is_empty() {
        step = step.line("<").lines("< ", &shown_lines(&body, MAX_BODY_BYTES));
    }
    step = step.detail("body", text.as_str()).detail("body_complete", whole);
    report.step(step)?;
    Err(explain::refused(&refused(&received.answer.head, plan, text)).into())
}

/// Reads up to the end of the final head.
async fn receive<W: Write>(
    link: &mut AnyLink,
    plan: &Plan,
    request: &Request,
    report: &mut Report<'_, W>,
    until: time::Instant,
    buf: &mut Vec<u8>,
) -> Result<Received, Stop> {
    let tls = plan.target.tls;
    let started = Instant::now();
    let mut first_byte = None;
    let mut result = match send(link, &request.head, until).await {
        // Who refuses early may have closed, and still have said why.
        Err(Lost::Io(_)) => Ok(()),
        sent => sent,
    };
    let finding = loop {
        match Answer::read(buf) {
            Err(fault) => {
                linger(link, buf, until).await;
                break explain::bad_head(&fault, buf, tls);
            }
            Ok(Some(answer)) => {
                let complete = started.elapsed();
                let first_byte = first_byte.unwrap_or(complete);
                return Ok(Received { answer, first_byte, complete });
            }
            Ok(None) => {}
        }
        if result.is_ok() {
            result = read_some(link, buf, until).await;
        }
        match &result {
            Ok(()) => first_byte = first_byte.or_else(|| Some(started.elapsed())),
            Err(lost) => break explain::lost(lost, buf.len(), tls),
        }
    };
    let lines: Vec<_> = raw_lines(buf);
    let step = Step::new("answer").failed().took(started.elapsed()).lines("< ", &lines);
    let step = if lines.is_empty() { step.line("nothing") } else { step };
    report.step(step.detail("lines", lines).detail("bytes", buf.len()))?;
    Err(finding.into())
}

/// What is no answer is told by more than its first byte.
async fn linger(link: &mut AnyLink, buf: &mut Vec<u8>, until: time::Instant) {
    let until = until.min(time::Instant::now() + LINGER);
    while buf.len() < MAX_SHOWN_BYTES && read_some(link, buf, until).await.is_ok() {}
}

fn switched<W: Write>(
    buf: &[u8],
    received: &Received,
    rest: Vec<u8>,
    plan: &Plan,
    request: &Request,
    report: &mut Report<'_, W>,
) -> Result<Opened, Stop> {
    let judged = judge(&received.answer.head, &plan.asked(request));
    let step = head_step(buf, received);
    match judged {
        Err(fault) => {
            report.step(step.failed())?;
            Err(explain::fault(&fault, &request.key).into())
        }
        Ok(protocol) => {
            if protocol.is_none() && !plan.protocols.is_empty() {
                report.note("the server selected no subprotocol: browsers end the session here");
            }
            report.step(step.detail("subprotocol", protocol))?;
            Ok(Opened { rest })
        }
    }
}

fn head_step(buf: &[u8], received: &Received) -> Step {
    let lines = raw_lines(buf);
    let (head, first_byte) = (&received.answer.head, received.first_byte);
    let mut step = Step::new("answer").took(received.complete).lines("< ", &lines);
    // Worth a line where the head came in pieces.
    if received.complete.saturating_sub(first_byte) > Duration::from_millis(100) {
        step = step.line(format!("(the first byte came after {})", millis(first_byte)));
    }
    step.detail("status", head.status)
        .detail("lines", lines)
        .detail("interim", json!(received.answer.interim))
        .detail("first_byte_us", micros(first_byte))
}

/// The lines of one or more heads, or what was sent instead.
fn raw_lines(buf: &[u8]) -> Vec<String> {
    if !buf.starts_with(b"HTTP/") {
        return shown_lines(buf, MAX_SHOWN_BYTES);
    }
    let mut lines: Vec<_> = buf.split(|&byte| byte == b'\n').collect();
    if lines.last().is_some_and(|line| line.is_empty()) {
        lines.pop();
    }
    let cut = |line: &'_ [u8]| header_line(line.strip_suffix(b"\r").unwrap_or(line));
    let mut lines: Vec<_> = lines.into_iter().map(cut).collect();
    if lines.last().is_some_and(String::is_empty) {
        lines.pop();
    }
    lines
}

/// The start of the body, and whether it is all of it.
async fn body(
    link: &mut AnyLink,
    head: &Head,
    mut raw: Vec<u8>,
    until: time::Instant,
) -> (Vec<u8>, bool) {
    let until = until.min(time::Instant::now() + BODY_PATIENCE);
    loop {
        let (body, complete) = head.body(&raw);
        if complete || body.len() >= MAX_BODY_BYTES || raw.len() >= MAX_RAW_BODY_BYTES {
            return (body, complete);
        }
        if let Err(lost) = read_some(link, &mut raw, until).await {
            // Without a length the end of the connection is the end.
            let framed =
                head.content_length().is_some() || head.lists("transfer-encoding", "chunked");
            let whole = !framed && matches!(lost, Lost::Ended);
            return (body, whole);
        }
    }
}

fn refused<'a>(head: &Head, plan: &'a Plan, body: String) -> Refused<'a> {
    let value = |name: &str| head.first(name).map(|value| shown(value, MAX_VALUE_BYTES));
    Refused {
        status: head.status,
        reason: shown(&head.reason, MAX_VALUE_BYTES),
        http_1_0: head.http_1_0,
        target: &plan.target,
        origin_given: plan.has_origin(),
        location: value("location"),
        retry_after: value("retry-after"),
        challenge: value("www-authenticate"),
        versions: value("sec-websocket-version"),
        body,
    }
}
