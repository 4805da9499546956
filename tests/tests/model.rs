//! The splice protocol, explored exhaustively: each configuration must hold, each mutant must be caught.
//!
//! About 18 s and 0.5 GB on one core with `--release`, three times slower without.

use std::sync::{Mutex, PoisonError};

use wsproxy_tests::model::Splice;
use wsproxy_tests::model::config::Config;
use wsproxy_tests::model::config::Mutant;
use wsproxy_tests::model::config::Pace::{self, Eager, Lockstep};
use wsproxy_tests::model::explore::explore;

static TWO_WAY: Mutex<()> = Mutex::new(());

/// About 1 GB; the largest configuration stays far below it.
const MOST_STATES: usize = 4_000_000;

/// Explores `cfg` to the end: no fault, and at least `states` states, so that a model that stands still is noticed.
fn check_holds(cfg: Config, mutant: Mutant, states: usize) {
    // The large ones one after the other, whatever the number of test threads: it bounds the memory.
    let large =
        cfg.packets[1].is_some().then(|| TWO_WAY.lock().unwrap_or_else(PoisonError::into_inner));
    let report = explore(&Splice { cfg, mutant }, MOST_STATES);
    drop(large);
    println!("{} states", report.states);
    assert_eq!(report.fault(), None, "{cfg:?}\n{report}");
    assert!(report.states >= states, "only {} states, expected {states}: {cfg:?}", report.states);
}

/// Explores `cfg` without one rule of the protocol and expects `fault`.
fn check_caught(cfg: Config, mutant: Mutant, fault: &str) {
    check_holds(cfg, Mutant::None, 1);
    let report = explore(&Splice { cfg, mutant }, MOST_STATES);
    println!("{} states", report.states);
    assert_eq!(report.fault(), Some(fault), "{mutant:?} in {cfg:?}\n{report}");
}

fn one_way(packets: u8, pace: Pace) -> Config {
    Config::one_way(packets, pace)
}

fn two_way(there: u8, back: u8, pace: Pace) -> Config {
    Config { packets: [Some(there), Some(back)], ..one_way(0, pace) }
}

/// Frames of two packets, two insertions.
fn pings() -> Config {
    Config { pings: 2, frame_units: 2, refusals: 1, drops_notes: true, ..one_way(5, Eager) }
}

/// Packets of two units, frames of three: a frame ends inside a packet.
fn frames() -> Config {
    let capacity = Some(3);
    Config {
        pings: 1,
        frame_units: 3,
        packet_units: 2,
        refusals: 1,
        capacity,
        short_writes: true,
        ..one_way(3, Eager)
    }
}

/// A small send buffer on T.
fn room(packets: u8, capacity: u8, pace: Pace) -> Config {
    let base = one_way(packets, pace);
    Config {
        capacity: Some(capacity),
        short_writes: true,
        refusals: 1,
        read_ahead: true,
        pings: 1,
        ..base
    }
}

/// A first hand-over with bytes in the parser's buffer and in the receive queue.
fn early(recv_runs_verdict: bool, pace: Pace) -> Config {
    Config { early: 2, leftover: 2, buffer: 3, recv_runs_verdict, ..room(4, 2, pace) }
}

/// Bytes in the parser's buffer, nothing in the receive queue.
fn leftover(packets: u8) -> Config {
    Config { leftover: 2, ..room(packets, 2, Eager) }
}

/// Short writes into an endless send buffer.
fn short_writes() -> Config {
    Config { short_writes: true, refusals: 1, ..one_way(4, Eager) }
}

fn refusals(pace: Pace) -> Config {
    Config { refusals: 2, drops_notes: true, pings: 1, ..one_way(4, pace) }
}

fn weak(pace: Pace) -> Config {
    Config { weak: true, pings: 1, frame_units: 2, refusals: 1, ..one_way(4, pace) }
}

fn reset(socket: u8) -> Config {
    Config { reset: Some(socket), refusals: 1, pings: 1, ..one_way(3, Eager) }
}

fn reuse() -> Config {
    Config { reuse: true, refusals: 1, pings: 1, ..one_way(3, Eager) }
}

/// The other repair of [`Mutant::NoLookAfterDivert`]: user space takes S's lock once before it looks at `diverted`.
fn lock_trip(pace: Pace) -> Config {
    Config { lock_trip: true, ..weak(pace) }
}

macro_rules! holds {
    ($($name:ident: $cfg:expr, $states:expr;)*) => {
        mod holds {
            use super::*;
            $(#[test] fn $name() { check_holds($cfg, Mutant::None, $states); })*
        }
    };
}

macro_rules! caught {
    ($($name:ident: $mutant:ident in $cfg:expr => $fault:expr;)*) => {
        mod caught {
            use super::*;
            $(#[test] fn $name() { check_caught($cfg, Mutant::$mutant, $fault); })*
        }
    };
}

macro_rules! harmless {
    ($($name:ident: $mutant:ident in [$($cfg:expr),*];)*) => {
        mod harmless {
            use super::*;
            $(#[test] fn $name() { for cfg in [$($cfg),*] { check_holds(cfg, Mutant::$mutant, 1_000); } })*
        }
    };
}

holds! {
    eager: one_way(6, Eager), 56_000;
    lockstep: one_way(6, Lockstep), 3_600;
    nothing_but_fin: one_way(0, Eager), 17;
    pings_between_frames: pings(), 300_000;
    pings_between_frames_lockstep: Config { pace: Lockstep, ..pings() }, 29_000;
    frames_across_packets: frames(), 160_000;
    small_send_buffer: room(4, 2, Eager), 240_000;
    tiny_send_buffer_lockstep: room(4, 1, Lockstep), 28_000;
    short_writes_only: short_writes(), 29_000;
    early_bytes: early(true, Eager), 54_000;
    early_bytes_kick_only: early(false, Eager), 54_000;
    early_bytes_kick_only_lockstep: early(false, Lockstep), 11_000;
    parser_leftover: leftover(3), 110_000;
    parser_leftover_then_fin: leftover(0), 180;
    declined_packets: refusals(Eager), 100_000;
    declined_packets_lockstep: refusals(Lockstep), 14_000;
    weak_memory: weak(Eager), 120_000;
    weak_memory_lockstep: weak(Lockstep), 16_000;
    weak_memory_small_send_buffer: Config { weak: true, ..room(3, 2, Eager) }, 120_000;
    weak_memory_two_way: Config { weak: true, ..two_way(1, 1, Eager) }, 220_000;
    two_way_eager: two_way(2, 2, Eager), 2_800_000;
    two_way_lockstep: two_way(2, 2, Lockstep), 190_000;
    two_way_declined_packet: Config { refusals: 1, ..two_way(2, 1, Eager) }, 1_600_000;
    two_way_tiny_send_buffer: Config { capacity: Some(1), ..two_way(2, 1, Eager) }, 1_000_000;
    two_way_ping: Config { pings: 1, ..two_way(1, 1, Eager) }, 810_000;
    source_resets: reset(0), 73_000;
    target_resets: reset(1), 80_000;
    two_way_reset: Config { reset: Some(1), ..two_way(1, 1, Eager) }, 210_000;
    slot_reuse: reuse(), 51_000;
    slot_reuse_two_way: Config { reuse: true, ..two_way(1, 1, Eager) }, 430_000;
    lock_trip_too: lock_trip(Lockstep), 15_000;
}

caught! {
    resume_without_count_check: ResumeWithoutCountCheck in one_way(4, Eager) => "order";
    resume_by_plain_store: ResumeByPlainStore in pings() => "inside a frame";
    no_second_look: NoSecondLook in one_way(4, Eager) => "order";
    look_before_add: LookBeforeAdd in one_way(4, Eager) => "order";
    // The protocol as first written down: a verdict that read `Relay` before user space stored `Resume` adds to
    // `diverted` after user space compared it. The packet stays with nobody until the next one or FIN comes.
    packet_asleep_between_divert_and_resume: NoLookAfterDivert in one_way(1, Lockstep) => "stuck";
    look_before_divert: LookBeforeDivert in one_way(3, Lockstep) => "stuck";
    no_admission: NoAdmission in room(4, 2, Eager) => "over-admitted";
    room_before_count: RoomBeforeCount in room(4, 2, Eager) => "over-admitted";
    refuse_keeps_owner: RefuseKeepsOwner in refusals(Eager) => "order";
    refuse_silently: RefuseSilently in refusals(Lockstep) => "stuck";
    no_wait: NoWait in one_way(4, Eager) => "order";
    no_wait_before_fin: NoWait in two_way(1, 1, Eager) => "early fin";
    lost_resume_no_wait: LostResumeNoWait in refusals(Eager) => "order";
    lost_resume_keeps_owner: LostResumeKeepsOwner in one_way(6, Eager) => "order";
    give_back_unchecked: GiveBackUnchecked in one_way(3, Lockstep) => "stuck";
    give_back_unflushed: GiveBackUnflushed in leftover(3) => "order";
    reads_unclaimed: ReadsUnclaimed in refusals(Eager) => "order";
    eof_without_diverted: EofWithoutDiverted in one_way(3, Eager) => "early fin";
    eof_without_count: EofWithoutCount in one_way(1, Eager) => "early fin";
    shutdown_unflushed: ShutdownUnflushed in leftover(0) => "early fin";
    short_write_uncorrected: ShortWriteUncorrected in short_writes() => "stuck";
    ping_without_wait: PingWithoutWait in pings() => "inside a frame";
    ping_inside_frame: PingInsideFrame in pings() => "inside a frame";
    no_kick: NoKick in early(false, Lockstep) => "stuck";
    wait_ignores_reset: WaitIgnoresReset in reset(1) => "stuck";
    reset_as_eof: ResetAsEof in reset(0) => "early fin";
    reuse_without_grace: ReuseWithoutGrace in reuse() => "stale verdict";
    no_fence_taking: NoFenceTaking in weak(Eager) => "inside a frame";
    no_fence_taking_order: NoFenceTaking in Config { weak: true, ..one_way(4, Eager) } => "order";
    no_fence_resume: NoFenceResume in weak(Lockstep) => "stuck";
    relaxed_handed: RelaxedHanded in Config { weak: true, ..one_way(4, Eager) } => "order";
    relaxed_diverted: RelaxedDiverted in weak(Lockstep) => "stuck";
}

harmless! {
    handed_after_write: HandedAfterWrite in [room(4, 2, Eager), short_writes(), weak(Lockstep)];
    relayed_counts_reads: RelayedCountsReads in [room(4, 2, Eager), early(true, Eager), leftover(3)];
    look_after_relay_only: LookAfterRelayOnly in [pings(), refusals(Lockstep), weak(Eager), weak(Lockstep)];
    kick_where_recv_runs_the_verdict: NoKick in [early(true, Eager), early(true, Lockstep)];
    lock_trip_instead_of_look: NoLookAfterDivert in [lock_trip(Eager), lock_trip(Lockstep)];
}
