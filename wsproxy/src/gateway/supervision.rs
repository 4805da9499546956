//! What a configuration says of sessions' frames, and how sessions are brought to an end.

use std::{sync::Arc, time::Duration};

use wsproxy_common::cursor::{RSV1, RSV2, RSV3};

use crate::{
    config::{Drain, Forward},
    datapath::{Farewell, FramePlan, Frames, PingPlan},
    handshake::{Refusal, RefusalReason},
};

/// What holds for the frames of a route's sessions; `None`: they are not followed.
pub(super) fn frame_plan(forward: &Forward, gone_code: Option<u16>) -> Option<Arc<FramePlan>> {
    if !forward.frames {
        return None;
    }
    let ping = &forward.ping;
    Some(Arc::new(FramePlan {
        ping: ping.interval.map(|interval| PingPlan {
            interval: interval.get(),
            timeout: ping.timeout.get(),
            upstream: ping.upstream,
        }),
        enforce: forward.enforce_framing,
        max_frame: forward.max_frame.map_or(0, |limit| limit.get()),
        max_message: forward.max_message.map_or(0, |limit| limit.get()),
        gone_code: gone_code.unwrap_or(0),
    }))
}

/// The frames of a session with these extensions.
pub(super) fn frames(plan: &Option<Arc<FramePlan>>, extensions: &[String]) -> Option<Frames> {
    let plan = Arc::clone(plan.as_ref()?);
    Some(Frames { plan, allowed_rsv: allowed_rsv(extensions) })
}

/// RSV bits that agreed extensions may use. One that we do not know may use all of them.
fn allowed_rsv(extensions: &[String]) -> u8 {
    extensions.iter().fold(0, |bits, name| {
        bits | if name.eq_ignore_ascii_case("permessage-deflate") {
            RSV1
        } else {
            RSV1 | RSV2 | RSV3
        }
    })
}

/// What peers are told when wsproxy ends their session.
pub(super) fn farewell(drain: &Drain) -> Farewell {
    Farewell::new(drain.code, &drain.reason)
}

/// Over how long sessions are closed.
pub(super) fn window(drain: &Drain) -> Duration {
    drain.window.map(|window| window.get()).unwrap_or_default()
}

/// The answer to a handshake that comes while sessions are closed: the client is to come back
/// after half to one and a half of `drain.retry_after`; `draw` is any number.
pub(super) fn draining(drain: &Drain, draw: u64) -> Refusal {
    let usual = drain.retry_after.get().as_secs().max(1);
    let seconds = usual.div_ceil(2) + draw % (usual + 1);
    let detail = "This gateway is about to stop.";
    Refusal::by_rule(503, RefusalReason::Draining, detail, Some(seconds))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn extensions_say_which_bits_may_be_set() {
        let of = |names: &[&str]| {
            allowed_rsv(&names.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>())
        };
        assert_eq!(of(&[]), 0);
        assert_eq!(of(&["Permessage-Deflate"]), RSV1);
        assert_eq!(of(&["permessage-deflate", "x-unknown"]), RSV1 | RSV2 | RSV3);
    }

    #[test]
    fn a_route_without_frames_has_no_plan() {
        let mut forward = Forward::to("default");
        let plan = frame_plan(&forward, Some(1014)).unwrap();
        assert_eq!((plan.gone_code, plan.enforce, plan.max_message), (1014, false, 0));
        assert_eq!(plan.ping.unwrap().interval, Duration::from_secs(30));
        forward.frames = false;
        assert!(frame_plan(&forward, Some(1014)).is_none());
    }

    #[test]
    fn those_turned_away_come_back_at_different_times() {
        let drain = Drain::default();
        let mut seen = std::collections::HashSet::new();
        for draw in 0..100 {
            let head = String::from_utf8(draining(&drain, draw).to_bytes()).unwrap();
            let (_, after) = head.split_once("Retry-After: ").unwrap();
            let after: u64 = after.split("\r\n").next().unwrap().parse().unwrap();
            assert!((5..=15).contains(&after), "{after}");
            seen.insert(after);
        }
        assert_eq!(seen.len(), 11);
    }
}
