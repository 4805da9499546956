//! What only user space knows of a session on the packet path, as a file.

use std::{net::SocketAddr, sync::Arc, time::Duration};

use serde_json::{Value, json};
use wsproxy_common::packet::FlowKey;

use crate::datapath::{
    Carried, FramePlan, Frames, PingPlan,
    packet::plan::{self, SavedLeg},
    pings::nanos,
};

/// What files look like: to be counted up when a process can't understand an earlier one's.
const VERSION: u64 = 2;

/// Why a file is not used.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum Refused {
    /// Of another version of this program.
    #[error("it is of version {0}, and only version {VERSION} is understood")]
    Version(u64),
    /// It is none, or not whole.
    #[error("it is damaged")]
    Damaged,
}

/// A session on the packet path. Times are `CLOCK_MONOTONIC`, which goes on as long as the
/// connections can.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::datapath) struct Saved {
    /// Number of the session.
    pub(in crate::datapath) id: u64,
    /// The client's address.
    pub(in crate::datapath) client: SocketAddr,
    /// Our own address towards the upstream.
    pub(in crate::datapath) local: SocketAddr,
    /// The upstream server, as configured.
    pub(in crate::datapath) upstream: String,
    /// The route's name.
    pub(in crate::datapath) route: String,
    /// When it began, in ns.
    pub(in crate::datapath) started_ns: u64,
    /// When its sockets were frozen, in ns.
    pub(in crate::datapath) frozen_ns: u64,
    /// Its limits in ms; 0: none. Idle, lifetime, half-closed.
    pub(in crate::datapath) limits_ms: [u32; 3],
    /// What is known and wanted of its frames; `None`: they are not followed.
    pub(in crate::datapath) frames: Option<Frames>,
    /// Totals of the place before this session.
    pub(in crate::datapath) before: [Carried; 2],
    /// The client's connection, the upstream's.
    pub(in crate::datapath) legs: [SavedLeg; 2],
    /// What the observer needs of it ([`Observer::saved`](crate::datapath::Observer::saved)).
    pub(in crate::datapath) companion: Value,
}

impl Saved {
    /// Who sends to whom.
    pub(super) fn keys(&self) -> [FlowKey; 2] {
        plan::saved_keys(&self.legs)
    }

    pub(super) fn to_json(&self) -> String {
        json!({
            "version": VERSION,
            "id": self.id,
            "client": self.client.to_string(),
            "local": self.local.to_string(),
            "upstream": self.upstream,
            "route": self.route,
            "started_ns": self.started_ns,
            "frozen_ns": self.frozen_ns,
            "limits_ms": self.limits_ms,
            "frames": self.frames.as_ref().map(frames_to_json),
            "before": self.before.map(|carried| [carried.kernel, carried.relay, carried.packet]),
            "legs": self.legs.each_ref().map(leg_to_json),
            "companion": self.companion,
        })
        .to_string()
    }

    /// # Errors
    /// See [`Refused`].
    pub(super) fn from_json(bytes: &[u8]) -> Result<Self, Refused> {
        let file: Value = serde_json::from_slice(bytes).map_err(|_| Refused::Damaged)?;
        // The first version did not say which it is.
        let version = file.get("version").map_or(Some(1), Value::as_u64);
        match version.ok_or(Refused::Damaged)? {
            VERSION => Self::from_value(&file).ok_or(Refused::Damaged),
            other => Err(Refused::Version(other)),
        }
    }

    fn from_value(file: &Value) -> Option<Self> {
        Some(Self {
            id: file["id"].as_u64()?,
            client: address(&file["client"])?,
            local: address(&file["local"])?,
            upstream: file["upstream"].as_str()?.to_owned(),
            route: file["route"].as_str()?.to_owned(),
            started_ns: file["started_ns"].as_u64()?,
            frozen_ns: file["frozen_ns"].as_u64()?,
            limits_ms: list(&file["limits_ms"], word)?,
            frames: optional(file.get("frames")?, frames_from_json)?,
            before: list(&file["before"], |carried| {
                let [kernel, relay, packet] = list(carried, Value::as_u64)?;
                Some(Carried { kernel, relay, packet })
            })?,
            legs: list(&file["legs"], leg_from_json)?,
            companion: file.get("companion")?.clone(),
        })
    }
}

fn frames_to_json(frames: &Frames) -> Value {
    let FramePlan { ping, enforce, max_frame, max_message, gone_code } = &*frames.plan;
    let ping = ping.map(|ping| {
        let PingPlan { interval, timeout, upstream } = ping;
        json!({ "interval_ns": nanos(interval), "timeout_ns": nanos(timeout), "upstream": upstream })
    });
    json!({
        "allowed_rsv": frames.allowed_rsv,
        "ping": ping,
        "enforce": enforce,
        "max_frame": max_frame,
        "max_message": max_message,
        "gone_code": gone_code,
    })
}

fn frames_from_json(frames: &Value) -> Option<Frames> {
    let period = |value: &Value| value.as_u64().map(Duration::from_nanos);
    let ping = |ping: &Value| {
        Some(PingPlan {
            interval: period(&ping["interval_ns"])?,
            timeout: period(&ping["timeout_ns"])?,
            upstream: ping["upstream"].as_bool()?,
        })
    };
    let plan = FramePlan {
        ping: optional(frames.get("ping")?, ping)?,
        enforce: frames["enforce"].as_bool()?,
        max_frame: frames["max_frame"].as_u64()?,
        max_message: frames["max_message"].as_u64()?,
        gone_code: u16::try_from(frames["gone_code"].as_u64()?).ok()?,
    };
    Some(Frames { plan: Arc::new(plan), allowed_rsv: small(&frames["allowed_rsv"])? })
}

fn leg_to_json(leg: &SavedLeg) -> Value {
    json!({
        "local": leg.local.to_string(),
        "peer": leg.peer.to_string(),
        "timestamps": leg.timestamps,
        "sack": leg.sack,
        "window_scale": leg.window_scale.map(|(peer, ours)| [peer, ours]),
        "clock": leg.clock,
        "max_window": leg.max_window,
        "mss": leg.mss,
        "keepalive": leg.keepalive,
    })
}

fn leg_from_json(leg: &Value) -> Option<SavedLeg> {
    let scales = |scales: &Value| list(scales, small).map(Into::into);
    Some(SavedLeg {
        local: address(&leg["local"])?,
        peer: address(&leg["peer"])?,
        timestamps: leg["timestamps"].as_bool()?,
        sack: leg["sack"].as_bool()?,
        window_scale: optional(leg.get("window_scale")?, scales)?,
        clock: word(&leg["clock"])?,
        max_window: word(&leg["max_window"])?,
        mss: u16::try_from(leg["mss"].as_u64()?).ok()?,
        keepalive: leg["keepalive"].as_bool()?,
    })
}

fn address(value: &Value) -> Option<SocketAddr> {
    value.as_str()?.parse().ok()
}

/// `None` where there is something else than nothing and `item`.
fn optional<T>(value: &Value, item: impl Fn(&Value) -> Option<T>) -> Option<Option<T>> {
    if value.is_null() { Some(None) } else { item(value).map(Some) }
}

fn small(value: &Value) -> Option<u8> {
    u8::try_from(value.as_u64()?).ok()
}

fn word(value: &Value) -> Option<u32> {
    u32::try_from(value.as_u64()?).ok()
}

fn list<T, const N: usize>(value: &Value, item: impl Fn(&Value) -> Option<T>) -> Option<[T; N]> {
    let items: Vec<_> = value.as_array()?.iter().map(item).collect::<Option<_>>()?;
    items.try_into().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn leg(port: u16, window_scale: Option<(u8, u8)>) -> SavedLeg {
        SavedLeg {
            local: ([10, 0, 0, 1], port).into(),
            peer: ([10, 0, 0, 2], 4000).into(),
            timestamps: true,
            sack: false,
            window_scale,
            clock: u32::MAX,
            max_window: 65_535,
            mss: 1448,
            keepalive: true,
        }
    }

    fn saved() -> Saved {
        Saved {
            id: u64::MAX,
            client: "[2001:db8::1]:1".parse().unwrap(),
            local: ([127, 0, 0, 1], 2).into(),
            upstream: "a \"server\"".into(),
            route: String::new(),
            started_ns: 1,
            frozen_ns: u64::MAX - 1,
            limits_ms: [0, 1, u32::MAX],
            before: [
                Carried { kernel: 1, relay: 2, packet: 3 },
                Carried { kernel: 0, relay: u64::MAX, packet: 5 },
            ],
            frames: Some(Frames {
                plan: Arc::new(FramePlan {
                    ping: Some(PingPlan {
                        interval: Duration::from_nanos(1_500_000_001),
                        timeout: Duration::from_secs(7),
                        upstream: true,
                    }),
                    enforce: true,
                    max_frame: u64::MAX,
                    max_message: 5,
                    gone_code: 1014,
                }),
                allowed_rsv: 4,
            }),
            legs: [leg(80, Some((7, 9))), leg(81, None)],
            companion: json!({ "of": ["the", "observer"] }),
        }
    }

    #[test]
    fn what_is_written_is_read() {
        let saved = saved();
        assert_eq!(Saved::from_json(saved.to_json().as_bytes()).as_ref(), Ok(&saved));
        let (mut silent, mut plain) = (saved.clone(), saved);
        let frames = silent.frames.as_mut().unwrap();
        frames.plan = Arc::new(FramePlan { ping: None, ..(*frames.plan).clone() });
        plain.frames = None;
        for saved in [silent, plain] {
            assert_eq!(Saved::from_json(saved.to_json().as_bytes()), Ok(saved));
        }
    }

    #[test]
    fn other_versions_are_not_understood() {
        let mut file: Value = serde_json::from_str(&saved().to_json()).unwrap();
        file["version"] = json!(VERSION + 1);
        let read = |file: &Value| Saved::from_json(file.to_string().as_bytes());
        assert_eq!(read(&file), Err(Refused::Version(VERSION + 1)));
        file.as_object_mut().unwrap().remove("version");
        assert_eq!(read(&file), Err(Refused::Version(1)));
        file["version"] = json!("2");
        assert_eq!(read(&file), Err(Refused::Damaged));
    }

    #[test]
    fn what_is_not_whole_is_nothing() {
        let text = saved().to_json();
        assert_eq!(Saved::from_json(&text.as_bytes()[..text.len() - 1]), Err(Refused::Damaged));
        let file: Value = serde_json::from_str(&text).unwrap();
        for key in file.as_object().unwrap().keys() {
            let mut less = file.clone();
            less.as_object_mut().unwrap().remove(key);
            assert!(Saved::from_json(less.to_string().as_bytes()).is_err(), "{key}");
        }
        let part_of = |parent: &str, key: &str| {
            let mut less = file.clone();
            less[parent].as_object_mut().unwrap().remove(key).unwrap();
            Saved::from_json(less.to_string().as_bytes())
        };
        for key in file["frames"].as_object().unwrap().keys() {
            assert_eq!(part_of("frames", key), Err(Refused::Damaged), "{key}");
        }
        assert!(Saved::from_json(b"[]").is_err());
    }
}
