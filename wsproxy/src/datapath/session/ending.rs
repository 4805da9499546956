//! The end of a session: what is closed, what is reset, what is told.

use std::{io, os::fd::AsFd, time::Duration};

use rustix::net::sockopt;

use super::{CLIENT, Remains, Session, UPSTREAM, broke, records};
use crate::{
    datapath::{CloseCodes, Ending, SessionEnd, Shared},
    sys,
};

impl Session {
    /// Ends the session: out of the maps, sockets closed or reset, told.
    /// What is left of it, if its packets may still go by.
    pub(in crate::datapath) fn end(mut self, shared: &Shared, cause: Cause) -> Option<Remains> {
        let left = self.leave_packet_path(shared, &cause);
        if self.inside.contains(&true)
            && let Some(kernel) = &shared.kernel
        {
            kernel.detach(self.place.slot(), self.socket(CLIENT), self.socket(UPSTREAM));
        }
        let reset = match &cause {
            // A dead side may still be there, and not have got what we sent.
            Cause::Finished => [CLIENT, UPSTREAM].map(|side| self.lost == Some(side)),
            Cause::Late | Cause::Failed(_) => [true; 2],
            // The other side is reset too, unless it has already been sent all of the broken
            // side's bytes and its FIN: those must still arrive, the reset behind them.
            Cause::Broke { side, .. } => {
                let mut reset = [true; 2];
                let lane = &self.lanes[*side];
                reset[1 - side] = !lane.is_finished() && !lane.is_parting();
                reset
            }
        };
        for (end, reset) in self.ends.iter().zip(reset) {
            let socket = end.as_fd();
            if reset {
                // Linger 0: close sends RST and drops what is queued.
                let _ = sockopt::set_socket_linger(socket, Some(Duration::ZERO));
            } else if matches!(cause, Cause::Broke { .. }) {
                // The kernel would answer NEW data with a reset, but a side whose window we
                // have closed sends none, and would wait for as long as the socket lingers.
                let _ = sys::reset_behind_fin(socket);
            }
        }
        let [to_upstream, to_client] = self.moved(shared);
        let cursors = records(shared, self.place.slot()).map(|record| record.cursor());
        let codes = CloseCodes {
            of_client: cursors[CLIENT].close_code,
            of_upstream: cursors[UPSTREAM].close_code,
            to_client: self.lanes[UPSTREAM].told(),
            to_upstream: self.lanes[CLIENT].told(),
        };
        let end = SessionEnd {
            path: self.path,
            duration: self.started.elapsed(),
            to_upstream,
            to_client,
            ending: self.ending(&cause),
            reset: reset.contains(&true),
            error: match &cause {
                Cause::Broke { side, .. } if self.is_gone(*side) => None,
                _ => cause.error(),
            }
            .or_else(|| self.error.as_ref().map(ToString::to_string)),
            counts: self.frames.as_ref().map(|_| cursors.map(|cursor| cursor.counts)),
            // The frame that broke an enforced rule did not pass: the cursor stands before it.
            violations: [CLIENT, UPSTREAM]
                .map(|side| cursors[side].violations | self.lanes[side].forbidden()),
            codes,
            meta: self.meta,
        };
        let live = shared.live(self.path);
        // Sockets first, then the place, then the news: who hears of the end finds nothing left.
        drop(self.ends);
        let remains = left.map(|keys| Self::remains(self.place, keys));
        live.fetch_sub(1, std::sync::atomic::Ordering::Relaxed);
        shared.observer.ended(&end, self.companion);
        remains
    }

    fn ending(&self, cause: &Cause) -> Ending {
        match (cause, self.closing) {
            (Cause::Failed(_), _) => Ending::Failed,
            (_, Some(closing)) => closing.why,
            (Cause::Broke { side, .. }, None) => broke(*side),
            (Cause::Finished | Cause::Late, None) => match self.first_finished {
                Some(UPSTREAM) => Ending::UpstreamFinished,
                _ => Ending::ClientFinished,
            },
        }
    }

    /// The side had left in order, and the other one was told so: that it takes nothing any more
    /// is no news.
    fn is_gone(&self, side: usize) -> bool {
        let left = |why| matches!(why, Ending::ClientFinished | Ending::UpstreamFinished);
        self.lanes[side].told() != 0 && self.closing.is_some_and(|closing| left(closing.why))
    }
}

/// Why [`Session::end`] is called.
#[derive(Debug)]
pub(in crate::datapath) enum Cause {
    /// Both streams are at their end.
    Finished,
    /// One side broke.
    Broke {
        /// [`CLIENT`] or [`UPSTREAM`].
        side: usize,
        /// How.
        error: io::Error,
    },
    /// An orderly close took too long.
    Late,
    /// The engine can't watch its sockets.
    Failed(io::Error),
}

impl Cause {
    fn error(&self) -> Option<String> {
        match self {
            Self::Finished => None,
            Self::Late => Some("did not close in time".into()),
            Self::Broke { error, .. } | Self::Failed(error) => Some(error.to_string()),
        }
    }
}
