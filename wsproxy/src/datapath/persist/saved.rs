//! What only user space knows of a session on the packet path, as a file.

use std::net::SocketAddr;

use serde_json::{Value, json};
use wsproxy_common::packet::FlowKey;

use crate::datapath::{
    Carried,
    packet::plan::{self, SavedLeg},
};

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
    /// Totals of the place before this session.
    pub(in crate::datapath) before: [Carried; 2],
    /// The client's connection, the upstream's.
    pub(in crate::datapath) legs: [SavedLeg; 2],
}

impl Saved {
    /// Who sends to whom.
    pub(super) fn keys(&self) -> [FlowKey; 2] {
        plan::saved_keys(&self.legs)
    }

    pub(super) fn to_json(&self) -> String {
        json!({
            "id": self.id,
            "client": self.client.to_string(),
            "local": self.local.to_string(),
            "upstream": self.upstream,
            "route": self.route,
            "started_ns": self.started_ns,
            "frozen_ns": self.frozen_ns,
            "limits_ms": self.limits_ms,
            "before": self.before.map(|carried| [carried.kernel, carried.relay, carried.packet]),
            "legs": self.legs.each_ref().map(leg_to_json),
        })
        .to_string()
    }

    /// `None`: it is none, or not whole.
    pub(super) fn from_json(bytes: &[u8]) -> Option<Self> {
        let file: Value = serde_json::from_slice(bytes).ok()?;
        Some(Self {
            id: file["id"].as_u64()?,
            client: address(&file["client"])?,
            local: address(&file["local"])?,
            upstream: file["upstream"].as_str()?.to_owned(),
            route: file["route"].as_str()?.to_owned(),
            started_ns: file["started_ns"].as_u64()?,
            frozen_ns: file["frozen_ns"].as_u64()?,
            limits_ms: list(&file["limits_ms"], word)?,
            before: list(&file["before"], |carried| {
                let [kernel, relay, packet] = list(carried, Value::as_u64)?;
                Some(Carried { kernel, relay, packet })
            })?,
            legs: list(&file["legs"], leg_from_json)?,
        })
    }
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
    let small = |value: &Value| u8::try_from(value.as_u64()?).ok();
    let window_scale = match &leg["window_scale"] {
        Value::Null => None,
        scales => Some(list(scales, small)?.into()),
    };
    Some(SavedLeg {
        local: address(&leg["local"])?,
        peer: address(&leg["peer"])?,
        timestamps: leg["timestamps"].as_bool()?,
        sack: leg["sack"].as_bool()?,
        window_scale,
        clock: word(&leg["clock"])?,
        max_window: word(&leg["max_window"])?,
        mss: u16::try_from(leg["mss"].as_u64()?).ok()?,
        keepalive: leg["keepalive"].as_bool()?,
    })
}

fn address(value: &Value) -> Option<SocketAddr> {
    value.as_str()?.parse().ok()
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
            legs: [leg(80, Some((7, 9))), leg(81, None)],
        }
    }

    #[test]
    fn what_is_written_is_read() {
        let saved = saved();
        assert_eq!(Saved::from_json(saved.to_json().as_bytes()).as_ref(), Some(&saved));
    }

    #[test]
    fn what_is_not_whole_is_nothing() {
        let text = saved().to_json();
        assert_eq!(Saved::from_json(&text.as_bytes()[..text.len() - 1]), None);
        let file: Value = serde_json::from_str(&text).unwrap();
        for key in file.as_object().unwrap().keys() {
            let mut less = file.clone();
            less.as_object_mut().unwrap().remove(key);
            assert_eq!(Saved::from_json(less.to_string().as_bytes()), None, "{key}");
        }
        assert_eq!(Saved::from_json(b"[]"), None);
    }
}
