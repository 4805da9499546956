//! A session on the packet path outlives its process: what is kept of it, and how the next process
//! goes on with it.

use std::{
    io,
    os::fd::OwnedFd,
    sync::atomic::Ordering,
    time::{Duration, Instant},
};

use serde_json::Value;
use wsproxy_common::{
    direction::{FOLLOW_FRAMES, WATCH_FIN},
    packet::State,
};

use super::{CLIENT, Session, UPSTREAM, now_ns, passage::Passage, records};
use crate::datapath::{
    Endpoint, Frames, Path, Reservation, SessionMeta, Shared,
    lane::{Attachment, Lane},
    packet::{
        plan::Plan,
        socket::{self, Revival},
    },
    persist::Saved,
};
use crate::sys::SharedDirection;

impl Session {
    /// Keeps what the next process has to know of it.
    pub(super) fn keep(&self, shared: &Shared) {
        shared.keep(self.place.slot(), |now| {
            let (legs, frozen_ns) = self.passage.as_deref()?.saved()?;
            let age = u64::try_from(self.started.elapsed().as_nanos()).unwrap_or(u64::MAX);
            Some(Saved {
                id: self.meta.id,
                client: self.meta.client,
                local: self.meta.local,
                upstream: self.meta.upstream.to_string(),
                route: self.meta.route.to_string(),
                started_ns: now.saturating_sub(age),
                frozen_ns,
                limits_ms: [self.idle_ms, self.lifetime_ms, self.half_closed_ms],
                frames: self.frames.clone(),
                before: self.before,
                legs,
                companion: match &self.companion {
                    Some(companion) => shared.observer.saved(companion.as_ref()),
                    None => Value::Null,
                },
            })
        });
    }

    /// Goes on with a session of an earlier process, whose packets are translated. Its frames were
    /// followed meanwhile, if they were before: the cursors are in the kernel.
    ///
    /// # Errors
    /// A socket with its addresses and ports can't be made.
    pub(in crate::datapath) fn adopt(
        shared: &Shared,
        place: Reservation,
        saved: Saved,
    ) -> io::Result<Self> {
        let packets = shared.kernel.as_ref().and_then(|kernel| kernel.packets());
        let packets = packets.ok_or(io::ErrorKind::Unsupported)?;
        let flows = packets.flows(place.slot());
        let state = flows.map(|flow| flow.load());
        let (plan, frozen) = Plan::restored(&saved.legs, &state);
        let ms = (now_ns().saturating_sub(saved.frozen_ns) / 1_000_000) as u32;
        let socket = |side: usize| {
            let (near, far) = (&state[side], &state[1 - side]);
            let mut revival = plan.revival(side, near, far, &frozen[side], ms);
            // Deaf, as every frozen socket.
            revival.window.rcv_wnd = 0;
            frozen_socket(revival)
        };
        let ends = [Endpoint::tcp(socket(CLIENT)?), Endpoint::tcp(socket(UPSTREAM)?)];
        for flow in flows {
            // Whoever wanted to close it is gone.
            flow.set_state(State::Forward);
        }
        shared.live(Path::Packet).fetch_add(1, Ordering::Relaxed);
        shared.started.fetch_add(1, Ordering::Relaxed);
        let passage = Passage::adopted(plan, frozen, saved.frozen_ns);
        let mut session = Self::translated(shared, place, ends, saved);
        session.passage = Some(Box::new(passage));
        session.look_at_ways(shared);
        Ok(session)
    }

    /// A session about which nothing is under way.
    fn translated(shared: &Shared, place: Reservation, ends: [Endpoint; 2], saved: Saved) -> Self {
        let age = Duration::from_nanos(now_ns().saturating_sub(saved.started_ns));
        let meta = SessionMeta {
            id: saved.id,
            client: saved.client,
            local: saved.local,
            upstream: saved.upstream.into(),
            route: saved.route.into(),
        };
        let companion = shared.observer.restored(&meta, &saved.companion);
        let (frames, gone_code) = frames_of(records(shared, place.slot()), saved.frames);
        let lane = || Lane::new(Attachment::None, &[]);
        Self {
            path: Path::Packet,
            lanes: [lane(), lane().with_gone_code(gone_code)],
            frames,
            companion,
            started: Instant::now().checked_sub(age).unwrap_or_else(Instant::now),
            ..Self::new(place, ends, meta, saved.limits_ms, saved.before)
        }
    }
}

/// What is known and wanted of a session's frames, and what its client is told when its server ends
/// without a Close; 0: nothing.
fn frames_of(records: [&SharedDirection; 2], saved: Option<Frames>) -> (Option<Frames>, u16) {
    let follow = records.map(|record| record.follow.load(Ordering::SeqCst));
    let followed = follow.iter().all(|follow| follow & FOLLOW_FRAMES != 0);
    match saved.filter(|_| followed) {
        Some(frames) => {
            let told = follow[UPSTREAM] & WATCH_FIN != 0;
            let gone_code = if told { frames.plan.gone_code } else { 0 };
            (Some(frames), gone_code)
        }
        None => {
            for record in records {
                record.follow.store(0, Ordering::SeqCst);
            }
            (None, 0)
        }
    }
}

/// A frozen socket in the place of one that died with its process.
fn frozen_socket(mut revival: Revival) -> io::Result<OwnedFd> {
    match socket::rebuild_frozen(&revival) {
        Err(error) if error.kind() == io::ErrorKind::AddrNotAvailable => {
            // The client's address, perhaps, in the place of ours (`upstream.transparent`).
            revival.transparent = true;
            socket::rebuild_frozen(&revival)
        }
        made => made,
    }
}
