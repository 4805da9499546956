//! The lane over sockets that are scripts: no descriptor, no clock.

use std::{
    collections::VecDeque,
    io,
    sync::atomic::Ordering::{Relaxed, SeqCst},
};

use proptest::prelude::*;

use super::*;
use crate::sys::DirectionTable;

/// S and T in memory. What T takes is bounded by `room`; what the kernel has
/// redirected but not sent is in `in_kernel`.
#[derive(Default)]
pub(super) struct Sockets {
    source: VecDeque<Vec<u8>>,
    pub(super) fin: bool,
    broken: bool,
    pub(super) target: Vec<u8>,
    pub(super) room: usize,
    in_kernel: u64,
    pub(super) finished: bool,
}

impl Wire for Sockets {
    fn recv(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        if self.broken {
            return Err(io::ErrorKind::ConnectionReset.into());
        }
        match self.source.pop_front() {
            Some(mut piece) => {
                let n = piece.len().min(buf.len());
                buf[..n].copy_from_slice(&piece[..n]);
                piece.drain(..n);
                if !piece.is_empty() {
                    self.source.push_front(piece);
                }
                Ok(n)
            }
            None if self.fin => Ok(0),
            None => Err(io::ErrorKind::WouldBlock.into()),
        }
    }

    fn send(&mut self, bytes: &[u8]) -> io::Result<usize> {
        assert!(!self.finished, "bytes behind the FIN");
        let n = bytes.len().min(self.room);
        if n == 0 {
            return Err(io::ErrorKind::WouldBlock.into());
        }
        self.room -= n;
        self.target.extend(&bytes[..n]);
        Ok(n)
    }

    fn target_count(&mut self) -> io::Result<u64> {
        Ok(self.target.len() as u64 - self.in_kernel)
    }

    fn target_room(&mut self) -> usize {
        self.room
    }

    fn finish_target(&mut self, _: bool) -> io::Result<()> {
        self.finished = true;
        Ok(())
    }
}

pub(super) struct Rig {
    pub(super) table: DirectionTable,
    pub(super) lane: Lane,
    pub(super) sockets: Sockets,
}

impl Rig {
    pub(super) fn new(attachment: Attachment, early: &[u8]) -> Self {
        let table = DirectionTable::map(None, 1).unwrap();
        table.records()[0].diverted.store(early.len() as u64, SeqCst);
        let sockets = Sockets { room: usize::MAX, ..Sockets::default() };
        Self { lane: Lane::new(attachment, early), table, sockets }
    }

    pub(super) fn record(&self) -> &SharedDirection {
        &self.table.records()[0]
    }

    /// S gets bytes, and BPF counts them as passed where it looks at S.
    pub(super) fn pass(&mut self, bytes: &[u8]) {
        self.record().diverted.fetch_add(bytes.len() as u64, SeqCst);
        self.sockets.source.push_back(bytes.to_vec());
    }

    /// Both sockets come into the socket map; BPF counts what S has received already.
    fn enter(&mut self) {
        let received: usize = self.sockets.source.iter().map(Vec::len).sum();
        let record = &self.table.records()[0];
        record.diverted.store(self.lane.in_hand() + received as u64, SeqCst);
        record.relayed.store(0, SeqCst);
        record.handed.store(self.sockets.target.len() as u64, SeqCst);
        self.lane.enter(Attachment::Full);
    }

    pub(super) fn run(&mut self) -> Result<Want, Fault> {
        let mut buf = [0; 16];
        let record = &self.table.records()[0];
        self.lane.run(&mut self.sockets, record, &mut buf, 1, false)
    }

    pub(super) fn wants(&mut self, want: Want) {
        assert_eq!(self.run().unwrap(), want);
    }

    fn owner(&self) -> Owner {
        Owner::from_word(self.record().owner.load(SeqCst))
    }
}

#[test]
fn early_bytes_go_first_then_the_kernel_is_offered_the_direction() {
    let mut rig = Rig::new(Attachment::Full, b"early, ");
    rig.pass(b"then this");
    rig.wants(Want::Hangup);
    assert_eq!(rig.sockets.target, b"early, then this");
    assert_eq!(rig.owner(), Owner::Resume);
    assert_eq!(rig.record().handed.load(Relaxed), 16);
    assert_eq!(rig.record().relayed.load(Relaxed), rig.record().diverted.load(Relaxed));
}

#[test]
fn a_lane_that_may_not_offer_never_does() {
    for attachment in [Attachment::None, Attachment::Counted] {
        let mut rig = Rig::new(attachment, b"");
        rig.pass(b"abc");
        rig.wants(Want::Readable);
        assert_eq!(rig.owner(), Owner::Relay);
        assert_eq!(rig.sockets.target, b"abc");
    }
}

#[test]
fn a_full_target_keeps_the_rest_and_stops_the_reading() {
    let mut rig = Rig::new(Attachment::Full, b"");
    rig.sockets.room = 4;
    rig.pass(b"0123456789");
    rig.pass(b"abc");
    rig.wants(Want::Writable);
    rig.wants(Want::Writable);
    // Corrected after the short write, and nothing more was read.
    assert_eq!(rig.record().handed.load(Relaxed), 4);
    assert_eq!(rig.sockets.source.len(), 1);
    rig.sockets.room = 100;
    rig.wants(Want::Hangup);
    assert_eq!(rig.sockets.target, b"0123456789abc");
}

#[test]
fn diverted_but_not_readable_yet_means_waiting_not_offering() {
    let mut rig = Rig::new(Attachment::Full, b"");
    rig.record().diverted.store(5, SeqCst);
    rig.wants(Want::Readable);
    assert_eq!(rig.owner(), Owner::Relay);
    rig.sockets.source.push_back(b"12345".to_vec());
    rig.wants(Want::Hangup);
}

#[test]
fn an_end_with_diverted_bytes_outstanding_is_not_the_end() {
    let mut rig = Rig::new(Attachment::Full, b"");
    rig.record().diverted.store(3, SeqCst);
    rig.sockets.fin = true;
    rig.wants(Want::Moment);
    assert!(!rig.sockets.finished);
    rig.sockets.source.push_back(b"end".to_vec());
    rig.wants(Want::Nothing);
    assert!(rig.sockets.finished && rig.lane.is_ended());
    assert_eq!(rig.sockets.target, b"end");
}

#[test]
fn a_taken_lane_waits_for_what_the_kernel_has_under_way() {
    let mut rig = Rig::new(Attachment::Full, b"");
    rig.wants(Want::Hangup);
    // BPF took it, redirected 10 bytes, and the worker has sent none of them yet.
    rig.record().owner.store(Owner::Kernel as u64, SeqCst);
    rig.record().handed.fetch_add(10, SeqCst);
    rig.sockets.target = vec![0; 10];
    rig.sockets.in_kernel = 10;
    let record = &rig.table.records()[0];
    rig.lane.take(record);
    assert_eq!(rig.owner(), Owner::Relay);
    rig.pass(b"behind");
    rig.wants(Want::Moment);
    assert_eq!(rig.sockets.source.len(), 1, "read S too early");
    rig.sockets.in_kernel = 0;
    rig.wants(Want::Hangup);
    assert_eq!(&rig.sockets.target[10..], b"behind");
}

#[test]
fn closing_sends_the_fin_behind_what_is_at_hand_and_throws_the_rest_away() {
    let mut rig = Rig::new(Attachment::Full, b"");
    rig.wants(Want::Hangup);
    let record = &rig.table.records()[0];
    rig.lane.close(record, None);
    rig.pass(b"last");
    rig.wants(Want::Readable);
    assert!(rig.sockets.finished && rig.lane.is_finished() && !rig.lane.is_ended());
    assert_eq!(rig.sockets.target, b"last");
    rig.pass(b"too late");
    rig.wants(Want::Readable);
    rig.sockets.fin = true;
    rig.wants(Want::Nothing);
    assert_eq!(rig.sockets.target, b"last");
}

#[test]
fn faults_name_the_side() {
    let mut rig = Rig::new(Attachment::None, b"");
    rig.sockets.broken = true;
    assert!(matches!(rig.run(), Err(Fault::Source(_))));
}

#[test]
fn one_session_does_not_keep_the_others_waiting() {
    let mut rig = Rig::new(Attachment::None, b"");
    for _ in 0..100 {
        rig.pass(b"0123456789abcdef");
    }
    rig.wants(Want::Turn);
    assert!(rig.sockets.target.len() < 1600);
    while rig.run().unwrap() == Want::Turn {}
    assert_eq!(rig.sockets.target.len(), 1600);
}

proptest! {
    /// Whatever comes in which pieces, and however little T takes at a time:
    /// all of it, in order, then the FIN, and the counters agree.
    #[test]
    fn everything_arrives_in_order(
        pieces in proptest::collection::vec(proptest::collection::vec(any::<u8>(), 1..60), 0..20),
        rooms in proptest::collection::vec(1usize..40, 1..40),
        early in proptest::collection::vec(any::<u8>(), 0..30),
        enters in proptest::option::of(0_usize..60),
    ) {
        let attachment = if enters == Some(0) { Attachment::Full } else { Attachment::None };
        let mut rig = Rig::new(attachment, &early);
        let sent = [early, pieces.concat()].concat();
        rig.sockets.room = 0;
        let mut rooms = rooms.into_iter().cycle();
        let mut pieces = pieces.into_iter();
        for step in 0..4000 {
            if enters.is_some_and(|at| at <= step) && rig.lane.may_enter() {
                rig.enter();
            }
            match rig.run().unwrap() {
                Want::Writable => rig.sockets.room = rooms.next().unwrap_or(1),
                Want::Turn => {}
                Want::Nothing => break,
                Want::Readable | Want::Hangup | Want::Moment => {
                    let record = &rig.table.records()[0];
                    rig.lane.take(record);
                    match pieces.next() {
                        Some(piece) => rig.pass(&piece),
                        None => rig.sockets.fin = true,
                    }
                }
            }
        }
        prop_assert!(rig.sockets.finished && rig.lane.is_ended());
        prop_assert_eq!(&rig.sockets.target, &sent);
        if rig.lane.attachment == Attachment::Full {
            prop_assert_eq!(rig.record().handed.load(Relaxed), sent.len() as u64);
        }
        prop_assert_eq!(rig.record().relay_bytes.load(Relaxed), sent.len() as u64);
    }
}
