//! The headers of W3C Trace Context, by which spans of several programs find each other.

use std::str::FromStr as _;

use opentelemetry::trace::{SpanContext, SpanId, TraceFlags, TraceId, TraceState};

use crate::forwarding::Headers;

const TRACEPARENT: &str = "traceparent";
const TRACESTATE: &str = "tracestate";
/// Length of a `traceparent` of version 00, in bytes (section 3.2.2).
const LENGTH: usize = 55;
/// Longest `tracestate` that is read, in bytes (section 3.3.1.5 asks for 512 at least).
const STATE_MAX: usize = 8 * 1024;

/// The caller's span, if a request has a valid `traceparent`. Else neither header counts
/// (section 4.3).
pub(super) fn read(headers: &impl Headers) -> Option<SpanContext> {
    let mut lines = headers.values(TRACEPARENT);
    let (line, None) = (lines.next()?, lines.next()) else { return None };
    let (trace, span, flags) = parse(std::str::from_utf8(line).ok()?)?;
    let state = state(headers).unwrap_or_default();
    let context = SpanContext::new(trace, span, flags, true, state);
    context.is_valid().then_some(context)
}

/// Section 3.2: lower case, every part of its full length, and behind a higher version's parts
/// more of them, which we don't know.
fn parse(line: &str) -> Option<(TraceId, SpanId, TraceFlags)> {
    let (known, more) = line.split_at_checked(LENGTH)?;
    let mut parts = known.split('-');
    let mut part = |length: usize| {
        let part = parts.next().filter(|part| part.len() == length)?;
        part.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f')).then_some(part)
    };
    let (version, trace, span, flags) = (part(2)?, part(32)?, part(16)?, part(2)?);
    let complete = match version {
        "ff" => false,
        "00" => more.is_empty(),
        _ => more.is_empty() || more.starts_with('-'),
    };
    let flags = TraceFlags::new(u8::from_str_radix(flags, 16).ok()?) & TraceFlags::SAMPLED;
    complete.then_some((TraceId::from_hex(trace).ok()?, SpanId::from_hex(span).ok()?, flags))
}

/// Several lines are one list (section 3.3); a list that can't be read is left out.
fn state(headers: &impl Headers) -> Option<TraceState> {
    let lines: Vec<_> = headers.values(TRACESTATE).collect();
    let line = lines.join(&b","[..]);
    let text = std::str::from_utf8(&line).ok().filter(|text| text.len() <= STATE_MAX)?;
    TraceState::from_str(text).ok()
}

/// Makes `context` the span that the next program's is a child of.
pub(super) fn write(context: &SpanContext, headers: &mut impl Headers) {
    if !context.is_valid() {
        return;
    }
    headers.remove(TRACEPARENT);
    headers.remove(TRACESTATE);
    let (trace, span) = (context.trace_id(), context.span_id());
    let flags = context.trace_flags() & TraceFlags::SAMPLED;
    headers.add(TRACEPARENT, format!("00-{trace}-{span}-{flags:02x}").as_bytes());
    let state = context.trace_state().header();
    if !state.is_empty() {
        headers.add(TRACESTATE, state.as_bytes());
    }
}
