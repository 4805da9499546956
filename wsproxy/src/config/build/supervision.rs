//! What is watched about live sessions: `[ping]`, `[route.ping]`.

use super::super::DAY_MS;
use super::super::model::Ping;
use super::super::reader::Section;
use super::super::value::{flag, off, wait};

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
