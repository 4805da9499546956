//! The change to the packet path and back, explored exhaustively: it must hold, and each mutant
//! must be caught. About 10 s without `--release`.

use wsproxy_tests::{
    model::explore::explore,
    model_switch::{Mutant, Switch},
};

const MOST_STATES: usize = 2_000_000;

const NOTED: Switch = Switch { packets: 3, early: false, one_cpu: false, mutant: Mutant::None };
const EARLY: Switch = Switch { early: true, one_cpu: true, ..NOTED };

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
    check(NOTED, None, 300_000);
    check(EARLY, None, 5_000);
}

#[test]
fn every_rule_is_needed() {
    caught(NOTED, Mutant::NoSecondLook, "missing");
    caught(NOTED, Mutant::LookBeforeNote, "missing");
    caught(NOTED, Mutant::NoFence, "missing");
    caught(NOTED, Mutant::NoComparison, "missing");
    caught(NOTED, Mutant::UnreadIsQuiet, "stuck");
    caught(EARLY, Mutant::UnseenIsQuiet, "missing");
    caught(NOTED, Mutant::BackWithoutHold, "bypassed");
    caught(NOTED, Mutant::BackUnchecked, "stuck");
}

/// As it was first written: between the program's two looks user space may get past `Hold`.
#[test]
fn a_second_look_for_hold_alone_is_not_enough() {
    caught(NOTED, Mutant::LooksForHoldAlone, "swallowed");
}

/// As it was first written: a program that looked before `Hold` may note its packet after user
/// space found all quiet; it drops the packet, and nobody must count it as received.
#[test]
fn what_is_noted_after_the_look_does_not_count() {
    caught(NOTED, Mutant::RevivedFromLaterNotes, "stuck");
}

/// What passed before anything was noted is known to have arrived only because the packets of a
/// connection come one after the other: a repeated packet's note may equal what the socket has.
#[test]
fn packets_of_before_need_one_cpu() {
    check(Switch { one_cpu: false, ..EARLY }, Some("missing"), 1);
}
