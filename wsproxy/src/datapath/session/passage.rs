//! The packet path as a session sees it: getting there, being there, coming back.
//! `ARCHITECTURE.md`, "The packet path", has the rules.

use std::{
    io,
    os::fd::AsFd,
    sync::atomic::{Ordering, fence},
    time::{Duration, Instant},
};

use wsproxy_common::{
    direction::{EXPECTED_KNOWN, WATCH_FIN},
    packet::{self, FLAG_COME_BACK, FLAG_FIN_ACKED, FLAG_RESET, Flow, FlowKey, Pair, State},
};

use super::{CLIENT, Cause, Session, UPSTREAM, moments, now_ns, records};
use crate::{
    datapath::{
        Ending, Farewell, Path, Shared,
        bpf::packet::Packets,
        lane::Lane,
        packet::{
            plan::{self, Ineligible, Plan, SavedLeg},
            socket::{self, Frozen},
        },
    },
    sys::{self, flow::SharedFlow},
};

/// A session that moves bytes and was not quiet in so many tries stays where it is.
const TRIES: u32 = 200;
/// Reads after which a session that came back to be pinged is active again.
const ACTIVE: u64 = 16;
/// How long the addresses of a session are kept after its end: a last acknowledgement may be
/// lost, and the FIN before it come once more.
pub(in crate::datapath) const TIME_WAIT: Duration = Duration::from_secs(2);

/// Where a session is between its sockets and the packet path.
#[derive(Debug)]
enum Stage {
    /// Its packets are noted; its sockets carry it.
    Watched,
    /// Its packets are translated; its sockets are frozen, as they were then, in ns.
    Translated([Frozen; 2], u64),
}

/// What a session has of the packet path.
#[derive(Debug)]
pub(super) struct Passage {
    plan: Plan,
    keys: [FlowKey; 2],
    stage: Stage,
    /// Times that it was not quiet.
    tries: u32,
    /// Runs of the lanes until it is looked at again.
    runs: u32,
    /// Segments that the frozen sockets had got when they were looked at last.
    got: Option<[Option<u32>; 2]>,
}

impl Passage {
    /// Of a session that an earlier process has translated.
    pub(super) fn adopted(plan: Plan, frozen: [Frozen; 2], since: u64) -> Self {
        let keys = plan.keys();
        Self { plan, keys, stage: Stage::Translated(frozen, since), tries: 0, runs: 0, got: None }
    }

    /// What the next process has to know of it, and since when it is translated.
    pub(super) fn saved(&self) -> Option<([SavedLeg; 2], u64)> {
        match &self.stage {
            Stage::Watched => None,
            Stage::Translated(frozen, since) => Some((self.plan.saved(frozen), *since)),
        }
    }
}

/// What the packets of a session have told.
pub(in crate::datapath) enum News {
    /// It goes on.
    Runs,
    /// It is to come back: a packet was dropped that only user space can judge.
    ComeBack,
    /// It is over.
    Over(Cause),
}

/// The addresses of a session that is over, until nothing of it can come any more.
pub(in crate::datapath) struct Remains {
    place: super::Reservation,
    keys: [FlowKey; 2],
}

impl Remains {
    /// Nothing can come any more.
    pub(in crate::datapath) fn bury(self, shared: &Shared) {
        if let Some(packets) = packets(shared) {
            packets.let_go(self.place.slot(), &self.keys);
        }
    }
}

fn packets(shared: &Shared) -> Option<&Packets> {
    shared.kernel.as_ref()?.packets()
}

impl Session {
    /// Whether its packets are translated.
    pub(in crate::datapath) fn is_translated(&self) -> bool {
        self.passage.as_ref().is_some_and(|passage| matches!(passage.stage, Stage::Translated(..)))
    }

    /// Whether its packets are noted, so that they can be translated at a quiet moment.
    pub(in crate::datapath) fn is_watched(&self) -> bool {
        self.passage.as_ref().is_some_and(|passage| matches!(passage.stage, Stage::Watched))
    }

    /// Has its packets noted from now on, if it may go the packet path.
    pub(in crate::datapath) fn watch(&mut self, shared: &Shared) {
        let (Some(kernel), Some(paths)) = (&shared.kernel, &shared.paths) else { return };
        if !self.may_change() || !std::mem::take(&mut self.may_be_translated) {
            return;
        }
        let sockets = self.ends.each_ref().map(AsFd::as_fd);
        let watched = paths.plan(kernel, sockets).and_then(|plan| {
            let keys = plan.keys();
            let packets = kernel.packets().ok_or(Ineligible::NotTcp)?;
            self.place.mark_used();
            for flow in packets.flows(self.place.slot()) {
                flow.store(&Flow::default());
                flow.forget_pair();
                flow.set_state(State::Watch);
            }
            packets.enlist(self.place.slot(), &keys).map_err(Ineligible::Refused)?;
            Ok(Passage { plan, keys, stage: Stage::Watched, tries: 0, runs: 0, got: None })
        });
        match watched {
            Ok(passage) => self.passage = Some(Box::new(passage)),
            Err(reason) => self.not_translated(shared, &reason),
        }
    }

    /// It stays with its sockets from now on: its packets did not come in order, or one of them
    /// was for user space.
    pub(in crate::datapath) fn stay(&mut self, shared: &Shared) {
        self.may_be_translated = false;
        self.not_translated(shared, &Ineligible::CameBack);
    }

    /// It takes another path, and that is said.
    pub(super) fn not_translated(&self, shared: &Shared, reason: &Ineligible) {
        let error = io::Error::other(reason.to_string());
        shared.observer.fell_back(&self.meta, reason.label(), &error);
    }

    /// Nothing about it is in between: no bytes in hand, no end under way.
    fn may_change(&self) -> bool {
        self.has_read_all()
            && self.closing.is_none()
            && self.broken_off.is_none()
            && self.lost.is_none()
            && self.first_finished.is_none()
            && !self.hung_up.contains(&true)
            && self.lanes.iter().all(|lane| {
                lane.may_enter() && lane.in_hand() == 0 && !lane.has_own() && !lane.awaits_answer()
            })
    }

    /// After the lanes ran: whether this may be the moment.
    pub(in crate::datapath) fn is_moment(&mut self, shared: &Shared) -> bool {
        if self.came_back_at.is_some_and(|reads| self.reads() >= reads + ACTIVE) {
            self.came_back_at = None;
            self.watch(shared);
        }
        if !self.is_watched() || !self.may_change() {
            return false;
        }
        let Some(passage) = &mut self.passage else { return false };
        passage.runs = passage.runs.saturating_sub(1);
        passage.runs == 0
    }

    /// Has its packets translated from now on, if nothing of it is on its way. Whether they are.
    pub(in crate::datapath) fn translate(&mut self, shared: &Shared) -> bool {
        let Some(packets) = packets(shared) else { return false };
        if !self.is_watched() || !self.may_change() {
            return false;
        }
        let Some(mut passage) = self.passage.take() else { return false };
        let flows = packets.flows(self.place.slot());
        let pair = flows[CLIENT].pair();
        if !pair.has_heard(0) || !pair.has_heard(1) {
            // Nothing has come from a side since it is watched: what came before may still be on
            // its way to the socket.
            self.passage = Some(passage);
            return false;
        }
        match self.freeze(shared, &passage.plan, flows, pair) {
            Ok(Some(frozen)) => {
                self.count_once(shared, &frozen);
                passage.stage = Stage::Translated(frozen, now_ns());
                passage.tries = 0;
                passage.got = None;
                self.passage = Some(passage);
                self.moved_to(shared, Path::Packet);
                shared.entered.fetch_add(1, Ordering::Relaxed);
                true
            }
            Ok(None) => {
                passage.tries += 1;
                passage.runs = moments::pause(passage.tries);
                let tries = passage.tries;
                self.passage = Some(passage);
                if tries >= TRIES {
                    self.unwatch(shared);
                    self.not_translated(shared, &Ineligible::Busy);
                }
                false
            }
            Err(reason) => {
                self.passage = Some(passage);
                self.unwatch(shared);
                self.not_translated(shared, &reason);
                false
            }
        }
    }

    /// Its packets are not noted any more; they go to its sockets as before.
    pub(super) fn unwatch(&mut self, shared: &Shared) {
        if let Some(passage) = self.passage.take()
            && let Some(packets) = packets(shared)
        {
            packets.let_go(self.place.slot(), &passage.keys);
        }
    }

    /// Freezes both sockets and, if they are where the packets are, has those translated from now
    /// on; if not, nothing has changed. No packet is held back meanwhile: one that comes makes the
    /// last step fail.
    fn freeze(
        &self,
        shared: &Shared,
        plan: &Plan,
        flows: [&SharedFlow; 2],
        pair: Pair,
    ) -> Result<Option<[Frozen; 2]>, Ineligible> {
        let refused = Ineligible::Refused;
        let sockets = self.ends.each_ref().map(AsFd::as_fd);
        let first = socket::freeze(sockets[0]).map_err(refused)?;
        let Some(first) = first else { return Ok(None) };
        let second = socket::freeze(sockets[1]);
        let Ok(Some(second)) = second else {
            socket::unfreeze(sockets[0], &first).map_err(refused)?;
            return second.map_err(refused).map(|_| None);
        };
        let frozen = [first, second];
        let values = flows.map(|flow| flow.value());
        let fits = plan.check_mss(&frozen);
        let at_rest = pair.is_at(0, first.rcv_seq) && pair.is_at(1, second.rcv_seq);
        let timed = !plan.has_timestamps() || values.iter().all(Option::is_some);
        if at_rest && timed && fits.is_ok() {
            let at = plan::Instant { frozen, values: values.map(Option::unwrap_or_default) };
            for (flow, becomes) in flows.into_iter().zip(plan.flows(&at)) {
                flow.store(&becomes);
            }
            self.follow_from(shared, frozen.map(|frozen| frozen.rcv_seq));
            if flows[CLIENT].translate_after(pair) {
                for flow in flows {
                    flow.set_state(State::Forward);
                }
                for (socket, frozen) in sockets.into_iter().zip(&frozen) {
                    // Refused, it is as before: no reason to give the session up.
                    let _deaf = socket::deafen(socket, frozen);
                }
                return Ok(Some(frozen));
            }
        }
        for (socket, frozen) in sockets.into_iter().zip(&frozen) {
            socket::unfreeze(socket, frozen).map_err(refused)?;
        }
        fits.map(|()| None)
    }

    /// What was relayed and not acknowledged is counted once more when it is.
    fn count_once(&self, shared: &Shared, frozen: &[Frozen; 2]) {
        let records = records(shared, self.place.slot());
        for side in [CLIENT, UPSTREAM] {
            let bytes = frozen[1 - side].unacknowledged;
            records[side].relay_bytes.fetch_sub(bytes.into(), Ordering::Relaxed);
        }
    }

    /// Where the frame cursors stand when packets are translated.
    fn follow_from(&self, shared: &Shared, received: [u32; 2]) {
        let records = records(shared, self.place.slot());
        for side in [CLIENT, UPSTREAM] {
            let stands = EXPECTED_KNOWN | u64::from(received[side]);
            records[side].expected_seq.store(stands, Ordering::SeqCst);
            records[side].behind.store(0, Ordering::SeqCst);
            if self.lanes[side].has_gone_code() {
                records[side].follow.fetch_or(WATCH_FIN, Ordering::SeqCst);
            }
        }
    }

    /// Takes from the frozen sockets what their peers have acknowledged since; whether there is
    /// more to take. Until then they send it again if need be: nobody else would, so that only then
    /// the session can outlive this process.
    pub(in crate::datapath) fn clear(&mut self, shared: &Shared) -> bool {
        let Some(packets) = packets(shared) else { return false };
        let flows = packets.flows(self.place.slot());
        let sockets = self.ends.each_ref().map(AsFd::as_fd);
        let Some(Passage { plan, stage: Stage::Translated(frozen, _), got, .. }) =
            self.passage.as_deref_mut()
        else {
            return false;
        };
        for side in [CLIENT, UPSTREAM] {
            // What the other side had said by then is what this socket had sent to this one.
            let all = frozen[1 - side].rcv_seq;
            if frozen[side].unacknowledged == 0 {
                continue;
            }
            if sys::unacknowledged(sockets[side]).is_ok_and(|bytes| bytes == 0) {
                // Its peer told the socket, before packets were translated, and won't say it again.
                let bytes = flows[side].acknowledge(all);
                let record = records(shared, self.place.slot())[1 - side];
                record.packet_bytes.fetch_add(bytes.into(), Ordering::Relaxed);
                frozen[side].unacknowledged = 0;
            } else if flows[side].acked().is_some_and(|acked| !packet::after(all, acked)) {
                frozen[side].unacknowledged = 0;
                *got = None;
                let as_it_was = plan.as_it_was(side, &frozen[side]);
                if let Err(error) = socket::refreeze(sockets[side], &as_it_was) {
                    tracing::warn!(%error, session = self.meta.id, "a frozen socket kept its queue");
                }
            }
            if frozen[side].unacknowledged == 0 {
                flows[side].owes_nothing();
            }
        }
        let owes = frozen.iter().any(|frozen| frozen.unacknowledged > 0);
        if !owes {
            // From here on it needs no process.
            self.keep(shared);
        }
        owes
    }

    fn moved_to(&mut self, shared: &Shared, path: Path) {
        shared.live(self.path).fetch_sub(1, Ordering::Relaxed);
        self.path = path;
        shared.live(path).fetch_add(1, Ordering::Relaxed);
    }

    /// What its packets have told since this was asked last; `from`: a side whose packet it was.
    pub(in crate::datapath) fn news(
        &mut self,
        from: Option<usize>,
        shared: &Shared,
        now: u64,
    ) -> News {
        let Some(packets) = packets(shared).filter(|_| self.is_translated()) else {
            return News::Runs;
        };
        let flows = packets.flows(self.place.slot());
        let flags = flows.map(|flow| flow.flags());
        if self.first_finished.is_none() {
            let mut sides = from.into_iter().chain([CLIENT, UPSTREAM]);
            self.first_finished = sides.find(|side| flows[*side].fin().is_some());
            if self.first_finished.is_some() {
                let record = records(shared, self.place.slot())[CLIENT];
                record.last_activity_ns.store(now, Ordering::Relaxed);
            }
        }
        // A reset may come behind the end: what is late finds a socket that is closed.
        if flags.iter().all(|flags| flags & FLAG_FIN_ACKED != 0) {
            return News::Over(Cause::Finished);
        }
        // The other side may answer a late packet with a reset of its own: the first one counts.
        let mut sides = from.into_iter().chain([CLIENT, UPSTREAM]);
        match sides.find(|side| flags[*side] & FLAG_RESET != 0) {
            Some(side) => {
                let error = io::ErrorKind::ConnectionReset.into();
                News::Over(Cause::Broke { side, error })
            }
            None if flags.iter().any(|flags| flags & FLAG_COME_BACK != 0) => News::ComeBack,
            None => News::Runs,
        }
    }

    /// Lets nothing new in: what is under way comes to its end.
    pub(in crate::datapath) fn settle(&self, shared: &Shared) {
        if let Some(packets) = packets(shared).filter(|_| self.is_translated()) {
            for flow in packets.flows(self.place.slot()) {
                flow.set_state(State::Settle);
            }
        }
    }

    /// A side has sent its FIN, and the other one has it: no socket of ours could take that up.
    pub(in crate::datapath) fn is_half_closed(&self, shared: &Shared) -> bool {
        packets(shared).filter(|_| self.is_translated()).is_some_and(|packets| {
            packets.flows(self.place.slot()).iter().any(|flow| flow.fin().is_some())
        })
    }

    fn reads(&self) -> u64 {
        self.lanes.iter().map(Lane::reads).sum()
    }

    /// When it came back, a side may have had more to say than the other one took.
    pub(in crate::datapath) fn was_held_back(&self) -> bool {
        self.held_back
    }

    /// It came back for a moment: once it is active again its packets may be translated again.
    pub(in crate::datapath) fn may_go_again(&mut self) {
        self.may_be_translated = true;
        self.came_back_at = Some(self.reads());
    }

    /// Segments that the frozen sockets got since this was asked last: they came in where nobody
    /// translates them. Nothing is asked of sessions whose sockets are not frozen.
    pub(in crate::datapath) fn astray(&mut self) -> u64 {
        if !self.is_translated() {
            return 0;
        }
        let got = [CLIENT, UPSTREAM].map(|side| sys::tcp_segments_in(self.socket(side)).ok());
        let Some(passage) = self.passage.as_deref_mut() else { return 0 };
        let Some(before) = passage.got.replace(got) else { return 0 };
        let more = |side: usize| Some(got[side]?.wrapping_sub(before[side]?));
        [CLIENT, UPSTREAM].into_iter().filter_map(more).map(u64::from).sum()
    }

    /// What each side has sent so far.
    pub(in crate::datapath) fn sent(&self, shared: &Shared) -> [Option<u32>; 2] {
        packets(shared).map_or([None; 2], |p| p.flows(self.place.slot()).map(|flow| flow.sent()))
    }

    /// Comes back to user space, if nothing is under way; whether it has. An error: it can't.
    pub(in crate::datapath) fn come_back(&mut self, shared: &Shared) -> io::Result<bool> {
        let Some(packets) = packets(shared).filter(|_| self.is_translated()) else {
            return Ok(true);
        };
        let flows = packets.flows(self.place.slot());
        let quiet = || (0..2).all(|side| flows[side].sent() == flows[1 - side].acked());
        let states = flows.map(|flow| flow.state());
        if !quiet() {
            return Ok(false);
        }
        for flow in flows {
            flow.set_state(State::Hold);
        }
        fence(Ordering::SeqCst);
        // These numbers count, and no later ones: a program that saw the old state may note its
        // packet yet, and drops it.
        let now = flows.map(|flow| flow.load());
        if (0..2).any(|side| now[side].sent != now[1 - side].acked) {
            for (flow, state) in flows.into_iter().zip(states) {
                flow.set_state(state);
            }
            return Ok(false);
        }
        shared.forget(self.place.slot());
        let records = records(shared, self.place.slot());
        let cursors = records.map(|record| record.cursor());
        let revived = self.revive(&now);
        self.held_back = matches!(revived, Ok(true));
        // Nor does what such a program followed of it.
        for (record, cursor) in records.into_iter().zip(&cursors) {
            record.set_cursor(cursor);
        }
        if let Some(passage) = self.passage.take() {
            packets.let_go(self.place.slot(), &passage.keys);
        }
        for record in records {
            record.follow.fetch_and(!WATCH_FIN, Ordering::SeqCst);
        }
        self.moved_to(shared, Path::Relay);
        revived.map(|_| true)
    }

    /// Brings both sockets to life, where the packets are. Whether a side may have more to say than
    /// the other one took.
    fn revive(&self, flows: &[Flow; 2]) -> io::Result<bool> {
        let Some(Passage { plan, stage: Stage::Translated(frozen, since), .. }) =
            self.passage.as_deref()
        else {
            return Ok(false);
        };
        let ms = (now_ns().saturating_sub(*since) / 1_000_000) as u32;
        let mut result = Ok(false);
        for side in [CLIENT, UPSTREAM] {
            let (near, far) = (&flows[side], &flows[1 - side]);
            let revival = plan.revival(side, near, far, &frozen[side], ms);
            let revived = socket::revive(self.socket(side), &revival);
            result = result.and_then(|waits| revived.map(|()| waits || revival.keeps_waiting()));
        }
        result
    }

    /// The session ends: whether by its own packets, or because we say so. In the second case the
    /// sockets come to life, so that closing them resets both sides. What is left of it then.
    pub(super) fn leave_packet_path(
        &mut self,
        shared: &Shared,
        cause: &Cause,
    ) -> Option<[FlowKey; 2]> {
        let translated = self.is_translated();
        let packets = packets(shared)?;
        if translated {
            shared.forget(self.place.slot());
            self.count_under_way(shared, packets);
        }
        let by_peers = matches!(cause, Cause::Finished | Cause::Broke { .. });
        if translated && !by_peers {
            for flow in packets.flows(self.place.slot()) {
                flow.set_state(State::Hold);
            }
            // What can't be brought to life is silent, and its peer is reset by the stack when it
            // says something.
            let _revived = self.revive(&packets.flows(self.place.slot()).map(|flow| flow.load()));
        }
        let passage = self.passage.take()?;
        if translated && by_peers {
            for flow in packets.flows(self.place.slot()) {
                flow.set_state(State::Ended);
            }
            return Some(passage.keys);
        }
        packets.let_go(self.place.slot(), &passage.keys);
        None
    }

    /// Counts what nobody will acknowledge any more: a relay would have moved it too.
    fn count_under_way(&self, shared: &Shared, packets: &Packets) {
        let flows = packets.flows(self.place.slot());
        let records = records(shared, self.place.slot());
        for side in [CLIENT, UPSTREAM] {
            if let (Some(sent), Some(acked)) = (flows[side].sent(), flows[1 - side].acked()) {
                let fin = flows[side].fin().is_some_and(|fin| packet::after(fin, acked));
                let bytes = sent.wrapping_sub(acked).wrapping_sub(fin.into());
                records[side].packet_bytes.fetch_add(bytes.into(), Ordering::Relaxed);
            }
        }
    }

    /// What is left of a session whose packets still go by.
    pub(super) fn remains(place: super::Reservation, keys: [FlowKey; 2]) -> Remains {
        Remains { place, keys }
    }

    /// Routes or devices have changed: packets go where their peers are now.
    pub(in crate::datapath) fn look_at_ways(&mut self, shared: &Shared) {
        let (Some(kernel), Some(paths)) = (&shared.kernel, &shared.paths) else { return };
        let Some(packets) = kernel.packets() else { return };
        let Some(passage) = &mut self.passage else { return };
        if let Ok(devices) = paths.look_again(kernel, &mut passage.plan)
            && matches!(passage.stage, Stage::Translated(..))
        {
            for (flow, device) in packets.flows(self.place.slot()).into_iter().zip(devices) {
                flow.set_device(device);
            }
        }
    }
}

/// What a session comes back from the packet path for.
pub(in crate::datapath) enum Errand {
    /// To be closed, for this reason; what each side is told.
    Close(Ending, [Farewell; 2]),
    /// To be pinged, if that is due.
    Look,
    /// To be pinged, whatever it said lately.
    Ping,
    /// To be carried by its sockets: a packet was dropped that only user space can judge.
    Stay,
}

/// A session that comes back from the packet path.
pub(in crate::datapath) struct Returning {
    pub(in crate::datapath) slot: u32,
    pub(in crate::datapath) id: u64,
    pub(in crate::datapath) errand: Errand,
    /// When it is reset.
    pub(in crate::datapath) deadline: Instant,
    /// When nothing new is let in any more.
    pub(in crate::datapath) insist: Instant,
    /// What each side had sent when it was looked at last.
    pub(in crate::datapath) sent: [Option<u32>; 2],
}
