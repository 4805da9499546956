//! A plan that outlives its process.

use std::net::SocketAddr;

use wsproxy_common::packet::{Flow, FlowKey};

use super::{Leg, Plan, ports, words};
use crate::datapath::packet::{
    socket::{Facts, Frozen, RepairWindow},
    ways::Way,
};

/// What a connection of ours was when it was frozen, as far as the kernel's records don't tell.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SavedLeg {
    /// Our address.
    pub local: SocketAddr,
    /// The peer's address.
    pub peer: SocketAddr,
    /// Timestamps were agreed on.
    pub timestamps: bool,
    /// Selective acknowledgements were agreed on.
    pub sack: bool,
    /// Shifts of the windows, if agreed on: the peer's, ours.
    pub window_scale: Option<(u8, u8)>,
    /// [`Frozen::timestamp`].
    pub clock: u32,
    /// [`RepairWindow::max_window`].
    pub max_window: u32,
    /// [`Frozen::mss`].
    pub mss: u16,
    /// [`Frozen::keepalive`].
    pub keepalive: bool,
}

/// Who sends to whom when packets of the client, of the upstream, come in.
#[must_use]
pub fn saved_keys(legs: &[SavedLeg; 2]) -> [FlowKey; 2] {
    legs.each_ref().map(|leg| key(leg.local, leg.peer))
}

pub(super) fn key(local: SocketAddr, peer: SocketAddr) -> FlowKey {
    FlowKey { source: words(peer.ip()), destination: words(local.ip()), ports: ports(peer, local) }
}

impl Plan {
    /// What is to be kept of both sides.
    #[must_use]
    pub fn saved(&self, frozen: &[Frozen; 2]) -> [SavedLeg; 2] {
        std::array::from_fn(|side| {
            let (leg, frozen) = (&self.legs[side], &frozen[side]);
            SavedLeg {
                local: leg.local,
                peer: leg.peer,
                timestamps: leg.facts.timestamps,
                sack: leg.facts.sack,
                window_scale: leg.facts.window_scale,
                clock: frozen.timestamp,
                max_window: frozen.window.max_window,
                mss: frozen.mss,
                keepalive: frozen.keepalive,
            }
        })
    }

    /// A plan out of what was kept, and of what is done with packets of the client, of the
    /// upstream. What nobody needs of a session that is translated is not in it.
    #[must_use]
    pub fn restored(saved: &[SavedLeg; 2], flows: &[Flow; 2]) -> (Self, [Frozen; 2]) {
        let legs = std::array::from_fn(|side| {
            let SavedLeg { local, peer, timestamps, sack, window_scale, .. } = saved[side];
            let facts =
                Facts { established: true, timestamps, sack, window_scale, ..Facts::default() };
            // The other side's packets go out to this one.
            let to = &flows[1 - side];
            let way = Way { device: to.device, local: to.local != 0, gateway: None, mtu: 0 };
            Leg { local, peer, facts, way }
        });
        let frozen = saved.each_ref().map(|leg| Frozen {
            snd_seq: 0,
            unacknowledged: 0,
            rcv_seq: 0,
            timestamp: leg.clock,
            window: RepairWindow {
                snd_wl1: 0,
                snd_wnd: 0,
                max_window: leg.max_window,
                rcv_wnd: 0,
                rcv_wup: 0,
            },
            mss: leg.mss,
            keepalive: leg.keepalive,
            reuse_address: true,
        });
        (Self { legs }, frozen)
    }
}
