//! What is watched about live sessions: `[ping]`, `[route.ping]`, and what routes say of frames.

use super::super::DAY_MS;
use super::super::model::Ping;
use super::super::problem::Diagnostic;
use super::super::reader::{Given, Section};
use super::super::routing::Forward;
use super::super::value::{flag, off, size, wait};

/// An hour in milliseconds.
const HOUR_MS: u32 = 3_600_000;

/// `[ping]` over the defaults, `[route.ping]` over `[ping]`.
pub(super) fn ping(section: &Section<'_, '_>, otherwise: Ping) -> Ping {
    Ping {
        interval: section.value("interval", otherwise.interval, off(wait::<1_000, DAY_MS, 1>)),
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
