//! What is watched about live sessions, and how they are closed: `[ping]`, `[route.ping]`,
//! `[drain]`, and what routes say of frames.

use toml::de::DeValue;

use super::super::model::{Drain, Ping};
use super::super::problem::{Diagnostic, Invalid};
use super::super::reader::{Given, Section};
use super::super::routing::Forward;
use super::super::value::{count, flag, off, one_line, size, wait};
use super::super::{Count, DAY_MS};

/// An hour in milliseconds.
const HOUR_MS: u32 = 3_600_000;
/// Most bytes of a Close frame's reason: a control frame carries 125 (RFC 6455 section 5.5), two
/// of which are the status code.
const REASON_MAX: usize = 123;

/// `[ping]` over the defaults, `[route.ping]` over `[ping]`.
pub(super) fn ping(section: &Section<'_, '_>, otherwise: Ping) -> Ping {
    Ping {
        interval: section.value("interval", otherwise.interval, off(wait::<10, DAY_MS, 1>)),
        timeout: section.value("timeout", otherwise.timeout, wait::<100, HOUR_MS, 1>),
        upstream: section.value("upstream", otherwise.upstream, flag),
    }
}

/// What a route says of the frames of its sessions, and of pings, which are frames too.
pub(super) fn frames(section: &Section<'_, '_>, default: Forward, general: Ping) -> Forward {
    let frames = section.value("frames", default.frames, flag);
    let table = section.table("ping", "route.ping");
    let ping = ping(&table, general);
    let enforce = section.get("enforce_framing", flag);
    let max_message = section.get("max_message", off(size));
    let max_frame = section.get("max_frame", off(size));
    // Elsewhere these keys are misplaced altogether.
    if !frames && section.has("upstream") {
        needs_frames(section, enforce.as_ref().filter(|given| given.value));
        needs_frames(section, max_message.as_ref().filter(|given| given.value.is_some()));
        needs_frames(section, max_frame.as_ref().filter(|given| given.value.is_some()));
        if table.is_there() {
            let problem = Diagnostic::new(table.place(), NEEDS_FRAMES).with_key(table.name());
            section.reader().report(problem.with_expected(WITH_FRAMES));
        }
    }
    Forward {
        frames,
        enforce_framing: enforce.is_some_and(|given| given.value),
        max_message: max_message.and_then(|given| given.value),
        max_frame: max_frame.and_then(|given| given.value),
        ping: if frames { ping } else { Ping { interval: None, ..ping } },
        ..default
    }
}

const NEEDS_FRAMES: &str = "it does nothing with route.frames = false";
const WITH_FRAMES: &str = "frames = true, or a route without this";

fn needs_frames<T>(section: &Section<'_, '_>, given: Option<&Given<T>>) {
    if let Some(given) = given {
        section.reader().report(given.remark(NEEDS_FRAMES).with_expected(WITH_FRAMES));
    }
}

/// `[drain]`
pub(super) fn drain(section: &Section<'_, '_>) -> Drain {
    let default = Drain::default();
    Drain {
        window: section.value("window", default.window, off(wait::<1, HOUR_MS, 1>)),
        code: section.value("code", default.code, close_code),
        reason: section.value("reason", default.reason, reason),
        retry_after: section.value(
            "retry_after",
            default.retry_after,
            wait::<1_000, HOUR_MS, 1_000>,
        ),
    }
}

fn close_code(value: &DeValue<'_>) -> Result<u16, Invalid> {
    const EXPECTED: &str = "1001 or 1012";
    let code: Count<1001, 1012> =
        count(value).map_err(|error| Invalid { expected: EXPECTED.into(), ..error })?;
    match code.get() {
        1001 => Ok(1001),
        1012 => Ok(1012),
        _ => Err(Invalid::new("not a code for sessions that have to go", EXPECTED)),
    }
}

fn reason(value: &DeValue<'_>) -> Result<String, Invalid> {
    let reason = one_line(value)?;
    if reason.len() > REASON_MAX {
        return Err(Invalid::new("too long", format!("at most {REASON_MAX} bytes")));
    }
    Ok(reason)
}
