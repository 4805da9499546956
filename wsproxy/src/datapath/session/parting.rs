//! How a session comes to its end: Close frames, time limits, a side that broke.

use std::{
    io,
    os::fd::AsFd,
    time::{Duration, Instant},
};

use super::{
    BrokenOff, CLIENT, Cause, Closing, Progress, READS_PER_TURN, Session, UPSTREAM, broke, records,
};
use crate::{
    datapath::{
        Ending, Shared, control_frame,
        frames::{Farewell, Numbers},
        lane::Want,
    },
    sys,
};

impl Session {
    /// A side broke: whether the session is over. It is not while the other side is still to get
    /// what was said in order before; by `deadline` it is.
    pub(in crate::datapath) fn break_off(
        &mut self,
        side: usize,
        shared: &Shared,
        error: io::Error,
        deadline: Instant,
    ) -> Option<Cause> {
        if let Some(first) = &mut self.broken_off {
            let error = first.error.take().unwrap_or(error);
            return Some(Cause::Broke { side: first.side, error });
        }
        let other = 1 - side;
        let code = (side == UPSTREAM).then(|| self.lanes[side].take_gone_code()).flatten();
        if let Some(code) = code
            && self.lose(side, shared, code, "", None)
        {
            self.close_lost(broke(side), Some(error), deadline);
            return None;
        }
        if self.lanes[side].is_parting() && self.lost.is_none() {
            // The other side has got our Close, and is to answer it all the same.
            self.lost = Some(side);
            self.lanes[side].source_is_gone();
            self.lanes[other].target_broke(records(shared, self.place.slot())[other]);
            return None;
        }
        let said = self.lanes[side].is_finished() || self.lanes[side].is_parting();
        if !said || self.has_got_all(other) {
            return Some(Cause::Broke { side, error });
        }
        self.wants[side] = Want::Writable;
        self.wants[other] = Want::Readable;
        self.closing.get_or_insert(Closing { why: broke(side), deadline });
        self.broken_off = Some(Box::new(BrokenOff { side, error: Some(error) }));
        None
    }

    /// One side broke, and the other one has not acknowledged all: no event tells when it has.
    pub(in crate::datapath) fn says_last_words(&self) -> bool {
        self.broken_off.is_some()
    }

    /// Whether everything written to this side has been acknowledged, or nothing can be any more.
    fn has_got_all(&self, side: usize) -> bool {
        let end = &self.ends[side];
        !end.has_pending() && !sys::unacknowledged(end.as_fd()).is_ok_and(|bytes| bytes > 0)
    }

    /// Writes what TLS holds for the side that is not `broken`, and throws away what that says:
    /// a socket that is closed with unread bytes, or gets some afterwards, resets, and what it
    /// was still to send is lost (`__tcp_close`, `tcp_rcv_state_process`).
    pub(in crate::datapath) fn say_the_rest(
        &mut self,
        broken: usize,
        side: usize,
        buf: &mut [u8],
    ) -> Progress {
        let end = &mut self.ends[1 - broken];
        if side != broken {
            let reads = (0..READS_PER_TURN).take_while(|_| end.recv(buf).is_ok_and(|n| n > 0));
            let all = reads.count() == READS_PER_TURN;
            self.wants[side] = if all { Want::Turn } else { Want::Readable };
        }
        if end.flush().is_ok() && !self.has_got_all(1 - broken) {
            return Progress::Runs;
        }
        let error = self.broken_off.as_mut().and_then(|broken| broken.error.take());
        let error = error.unwrap_or_else(|| io::ErrorKind::BrokenPipe.into());
        Progress::Broken { side: broken, error }
    }

    /// Starts an orderly close: each side gets its Close frame behind the frame that it is being
    /// sent, where the frames are followed; else a FIN behind the last byte at hand.
    pub(in crate::datapath) fn close(
        &mut self,
        shared: &Shared,
        why: Ending,
        farewells: [&Farewell; 2],
        deadline: Instant,
        numbers: &mut Numbers,
    ) {
        if self.closing.is_some() {
            return;
        }
        let records = records(shared, self.place.slot());
        for side in [CLIENT, UPSTREAM] {
            let to = 1 - side;
            let Farewell { code, reason } = farewells[to];
            let frame = control_frame::close(*code, reason, numbers.mask_for(to));
            self.lanes[side].close(records[side], Some((*code, &frame)));
        }
        self.closing = Some(Closing { why, deadline });
    }

    /// A side has ended without a Close, and the other one was told so: it is to answer by
    /// `deadline`. Its answer goes on to the side that ended, which may be reading still.
    pub(in crate::datapath) fn close_after(
        &mut self,
        side: usize,
        shared: &Shared,
        deadline: Instant,
    ) {
        let why = if side == CLIENT { Ending::ClientFinished } else { Ending::UpstreamFinished };
        let other = 1 - side;
        self.lanes[other].stay(records(shared, self.place.slot())[other]);
        self.closing.get_or_insert(Closing { why, deadline });
    }

    /// A side is lost, and the other one is being told.
    pub(in crate::datapath) fn close_lost(
        &mut self,
        why: Ending,
        error: Option<io::Error>,
        deadline: Instant,
    ) {
        self.closing.get_or_insert(Closing { why, deadline });
        self.error = error.map(Box::new);
        self.wants = [Want::Readable; 2];
    }

    /// It ends for this reason, without an orderly close.
    pub(in crate::datapath) fn ends_as(&mut self, why: Ending, deadline: Instant) {
        self.closing.get_or_insert(Closing { why, deadline });
    }

    /// When an orderly close becomes a reset.
    pub(in crate::datapath) fn deadline(&self) -> Option<Instant> {
        self.closing.map(|c| c.deadline)
    }

    /// Whether a time limit of the session is over, and which.
    pub(in crate::datapath) fn is_due(
        &self,
        shared: &Shared,
        clock: Instant,
        now: u64,
    ) -> Option<Ending> {
        let over = |limit_ms: u32, passed: Duration| {
            limit_ms > 0 && passed >= Duration::from_millis(limit_ms.into())
        };
        let silence = Duration::from_nanos(self.idle_ns(shared, now));
        if over(self.idle_ms, silence) {
            return Some(Ending::Idle);
        }
        if self.first_finished.is_some() && over(self.half_closed_ms, silence) {
            return Some(Ending::HalfClosed);
        }
        let age = clock.saturating_duration_since(self.started);
        over(self.lifetime_ms, age).then_some(Ending::Lifetime)
    }
}
