//! The change to the packet path and back, explored exhaustively: it must hold, and each mutant
//! must be caught. About 10 s without `--release`.

use wsproxy_tests::{
    model::explore::explore,
    model_switch::{Mutant, Switch},
};

const MOST_STATES: usize = 1_000_000;

const SHORT: Switch =
    Switch { packets: [2, 1], early: false, one_cpu: false, lossy: false, mutant: Mutant::None };
const ORDERLY: Switch = Switch { one_cpu: true, ..SHORT };
const LOSSY: Switch = Switch { packets: [2, 2], lossy: true, ..ORDERLY };
const EARLY: Switch = Switch { early: true, ..ORDERLY };

fn check(switch: Switch, fault: Option<&str>, states: usize) {
    let report = explore(&switch, MOST_STATES);
    println!("{} states", report.states);
    assert_eq!(report.fault(), fault, "{switch:?}\n{report}");
    assert!(report.states >= states, "only {} states: {switch:?}", report.states);
}

/// What the rule keeps from happening happens without it.
fn caught(switch: Switch, mutant: Mutant, fault: &str) {
    check(Switch { mutant, ..switch }, Some(fault), 1);
}

#[test]
fn it_holds() {
    check(SHORT, None, 400_000);
    check(LOSSY, None, 40_000);
    check(EARLY, None, 15_000);
    check(Switch { packets: [2, 2], ..ORDERLY }, None, 80_000);
}

#[test]
fn every_rule_is_needed() {
    caught(SHORT, Mutant::ProgramStores, "missing");
    caught(SHORT, Mutant::UserStores, "missing");
    caught(SHORT, Mutant::NotesAfterPassing, "missing");
    caught(SHORT, Mutant::StatesFirst, "bypassed");
    caught(SHORT, Mutant::OneSide, "missing");
    caught(EARLY, Mutant::UnheardIsQuiet, "missing");
    caught(SHORT, Mutant::UnreadIsQuiet, "not relayed");
    caught(LOSSY, Mutant::ForgetsQueue, "stuck");
    caught(ORDERLY, Mutant::NoSecondLook, "bypassed");
    caught(ORDERLY, Mutant::BackWithoutHold, "bypassed");
    caught(ORDERLY, Mutant::BackUnchecked, "invented");
    caught(ORDERLY, Mutant::NoFence, "bypassed");
}

/// As it was first written: a program that looked before `Hold` may note its packet after user
/// space found all quiet; it drops the packet, and nobody must count it as received.
#[test]
fn what_is_noted_after_the_look_does_not_count() {
    caught(ORDERLY, Mutant::RevivedFromLaterNotes, "invented");
}

/// As it was first written: T acknowledged to the frozen socket, a moment before it would have been
/// seen on its way. It does not say that again, and the session was never quiet.
#[test]
fn what_the_frozen_socket_was_told_counts() {
    caught(LOSSY, Mutant::FrozenIsDeaf, "stuck");
}

/// As it was first written, on a machine whose loads overtake each other: the copy of a packet goes
/// on although the session is held, and the packet itself was dropped.
#[test]
fn a_copy_looks_after_its_note() {
    caught(SHORT, Mutant::CopiesLookEarly, "bypassed");
}

/// What passed before anything was noted is known to have arrived only because the packets of a
/// connection come one after the other: a repeated packet's note may equal what the socket has.
#[test]
fn packets_of_before_need_one_cpu() {
    check(Switch { one_cpu: false, ..EARLY }, Some("missing"), 1);
}
