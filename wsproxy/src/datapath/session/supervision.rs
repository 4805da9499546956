//! Frames of a running session: pings and their answers, and what is forbidden.

use std::time::Duration;

use wsproxy_common::cursor::{FrameCursor, violation};

use super::{CLIENT, Progress, Session, UPSTREAM, now_ns, records};
use crate::datapath::{
    Ending, FrameState, SessionInfo, Shared, Side,
    control_frame::{self, PING_PAYLOAD},
    frames::{Farewell, Numbers, PingPlan, code},
    lane::{Fault, Lane, Want},
    pings::{Step, nanos},
    session::precise_ns,
};
use crate::sys;

/// What a session wants of its engine after it was looked at.
pub(in crate::datapath) enum Look {
    /// To be looked at again then, in ns of `CLOCK_MONOTONIC`.
    At(u64),
    /// Nothing more.
    Done,
    /// It is to come back from the packet path to be pinged, and to be looked at again then.
    ComeBack,
    /// Both lanes are to be run, and it is to be looked at again then.
    Run(u64),
}

impl Session {
    /// After a lane ran: what it found out about its frames.
    pub(in crate::datapath) fn supervise(
        &mut self,
        side: usize,
        shared: &Shared,
    ) -> Option<Progress> {
        self.frames.as_ref()?;
        let record = records(shared, self.place.slot())[side];
        if self.lanes[side].take_answer(record) {
            let trip = self.pings[side].answered(now_ns(), precise_ns());
            shared.observer.answered(Side::of(side), Duration::from_nanos(trip));
        }
        let other = 1 - side;
        // This lane writes to the other side, a Ping perhaps.
        if self.pings[other].is_waiting() && !self.lanes[side].has_own() {
            if self.lanes[side].has_said_own() {
                self.pings[other].sent(now_ns(), precise_ns());
                shared.observer.pinged(Side::of(other));
            } else {
                self.pings[other].given_up();
            }
        }
        if self.closing.is_none() && self.lanes[side].forbidden() != 0 {
            return Some(Progress::Forbidden { side, violations: self.lanes[side].forbidden() });
        }
        if self.closing.is_none() && self.lanes[side].is_parting() {
            return Some(Progress::Gone { side });
        }
        if self.closing.is_some() { self.part(shared) } else { None }
    }

    /// Sends FIN to a side with which Close frames were exchanged.
    fn part(&mut self, shared: &Shared) -> Option<Progress> {
        for to in [CLIENT, UPSTREAM] {
            let heard = self.lanes[to].has_heard_all(records(shared, self.place.slot())[to]);
            if !heard || !self.lanes[1 - to].is_parting() {
                continue;
            }
            if let Err(Fault::Source(error) | Fault::Target(error)) =
                self.along(1 - to, shared, |lane, pair, _| lane.part(pair))
            {
                return Some(Progress::Broken { side: to, error });
            }
        }
        None
    }

    /// When it wants to be looked at for the first time.
    pub(in crate::datapath) fn first_look(&self, now: u64) -> Option<u64> {
        let plan = self.frames.as_ref()?.plan.ping?;
        Some(now + nanos(plan.interval / 2))
    }

    /// Pings what has been silent for too long; the dead side, if one is.
    pub(in crate::datapath) fn look(
        &mut self,
        shared: &Shared,
        now: u64,
        numbers: &mut Numbers,
    ) -> Result<Look, usize> {
        let Some(plan) = self.frames.as_ref().and_then(|frames| frames.plan.ping) else {
            return Ok(Look::Done);
        };
        let records = records(shared, self.place.slot());
        let cursors = records.map(|record| record.cursor());
        if !self.may_be_pinged(&cursors) {
            return Ok(Look::Done);
        }
        let (mut next, mut run) = (u64::MAX, false);
        let sides: &[usize] = if plan.upstream { &[CLIENT, UPSTREAM] } else { &[CLIENT] };
        for &side in sides {
            if self.wants[side] == Want::Writable || !cursors[side].at_boundary() {
                // It is not read from, since the other side takes nothing, or it is inside a
                // frame, where it may not answer (RFC 6455 section 5.4): silence says nothing.
                next = next.min(now + until_next(&plan));
                continue;
            }
            let heard = records[side].last_activity_ns.load(std::sync::atomic::Ordering::Relaxed);
            match self.pings[side].step(&plan, heard, now, numbers.draw()) {
                Step::At(at) => next = next.min(at),
                Step::Dead => return Err(side),
                Step::Ping if self.is_translated() => {
                    return Ok(Look::ComeBack);
                }
                Step::Ping => {
                    self.ping(side, shared, now, numbers);
                    next = next.min(now + until_next(&plan));
                    run = true;
                }
            }
        }
        Ok(if run { Look::Run(next) } else { Look::At(next) })
    }

    /// Pings both sides, whatever they have said lately; but not one that has a Ping to answer.
    /// Whether there is anything to send.
    pub(in crate::datapath) fn ping_now(
        &mut self,
        shared: &Shared,
        now: u64,
        numbers: &mut Numbers,
    ) -> bool {
        let cursors = records(shared, self.place.slot()).map(|record| record.cursor());
        if self.frames.is_none() || !self.may_be_pinged(&cursors) {
            return false;
        }
        for side in [CLIENT, UPSTREAM] {
            if !self.pings[side].is_waiting() && !self.lanes[side].awaits_answer() {
                self.ping(side, shared, now, numbers);
            }
        }
        true
    }

    /// The session is not about to end, and its frames are understood.
    fn may_be_pinged(&self, cursors: &[FrameCursor; 2]) -> bool {
        self.closing.is_none()
            && self.broken_off.is_none()
            && self.first_finished.is_none()
            && cursors.iter().all(|cursor| cursor.counts.closes == 0 && !cursor.is_lost())
    }

    fn ping(&mut self, side: usize, shared: &Shared, now: u64, numbers: &mut Numbers) {
        let records = records(shared, self.place.slot());
        let payload: [u8; PING_PAYLOAD] = numbers.draw().to_ne_bytes();
        let frame = control_frame::ping(payload, numbers.mask_for(side));
        self.lanes[side].await_answer(records[side], payload);
        let to = 1 - side;
        self.take(to, shared, now);
        self.lanes[to].insert(records[to], &frame);
        self.pings[side].queued();
    }

    /// How the engine shows it.
    pub(in crate::datapath) fn info(&self, shared: &Shared, now: u64, tcp: bool) -> SessionInfo {
        let [to_upstream, to_client] = self.moved(shared);
        let cursors = records(shared, self.place.slot()).map(|record| record.cursor());
        let frames = match &self.frames {
            None => FrameState::Off,
            Some(_) if cursors.iter().any(|cursor| cursor.is_lost()) => FrameState::Lost,
            Some(_) => FrameState::On,
        };
        SessionInfo {
            meta: self.meta.clone(),
            path: self.path,
            age: self.started.elapsed(),
            to_upstream,
            to_client,
            in_kernel: self.lanes.each_ref().map(Lane::is_kernel),
            idle: Duration::from_nanos(self.idle_ns(shared, now)),
            frames,
            counts: cursors.map(|cursor| cursor.counts),
            ping_rtt: self
                .pings
                .map(|pings| pings.rtt_us().map(|us| Duration::from_micros(us.into()))),
            diversions: self.diversions,
            closing: self.closing.map(|closing| closing.why),
            tcp: [CLIENT, UPSTREAM]
                .map(|side| tcp.then(|| sys::tcp_view(self.socket(side)).ok()).flatten()),
        }
    }

    /// What each side is told when one of them has broken a rule.
    pub(in crate::datapath) fn verdict(side: usize, violations: u16) -> (Ending, [Farewell; 2]) {
        let names: Vec<_> = violation::NAMES
            .iter()
            .filter(|(bit, _)| violations & bit != 0)
            .map(|(_, name)| *name)
            .collect();
        let names = names.join(", ");
        let (why, theirs) = if violations & violation::OF_FRAMING != 0 {
            (Ending::BadFrame, Farewell::new(code::PROTOCOL_ERROR, &names))
        } else {
            (Ending::TooBig, Farewell::new(code::TOO_BIG, &names))
        };
        let others = Farewell::new(code::GOING_AWAY, "the peer broke a rule");
        (why, if side == CLIENT { [theirs, others] } else { [others, theirs] })
    }

    /// A side does not answer: the other one is told, and it is given up. False: the other one
    /// can't be told.
    pub(in crate::datapath) fn bury(
        &mut self,
        side: usize,
        shared: &Shared,
        numbers: &mut Numbers,
    ) -> bool {
        let (code, reason) = if side == CLIENT {
            (code::GOING_AWAY, "the client does not answer")
        } else {
            (code::INTERNAL, "the server does not answer")
        };
        self.lose(side, shared, code, reason, numbers.mask_for(1 - side))
    }

    /// Nothing more comes from `side`, and nothing more goes there; the other side is told so,
    /// between two frames. False: that can't be.
    pub(in crate::datapath) fn lose(
        &mut self,
        side: usize,
        shared: &Shared,
        code: u16,
        reason: &str,
        mask: control_frame::Mask,
    ) -> bool {
        let records = records(shared, self.place.slot());
        let frame = control_frame::close(code, reason, mask);
        if self.lost.is_some() || !self.lanes[side].source_lost(records[side], (code, &frame)) {
            return false;
        }
        self.lost = Some(side);
        self.lanes[1 - side].target_broke(records[1 - side]);
        true
    }
}

/// ns after a Ping until something can be due: its answer, or the next one.
fn until_next(plan: &PingPlan) -> u64 {
    nanos(plan.timeout.min(plan.interval))
}
