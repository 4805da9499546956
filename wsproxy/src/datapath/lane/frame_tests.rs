//! A lane whose frames are followed, over sockets that are scripts.

use proptest::prelude::*;
use wsproxy_common::cursor::{FrameCursor, Rules, violation};

use super::{tests::Rig, *};
use crate::datapath::control_frame;
use wsproxy_common::direction::FOLLOW_FRAMES;

const RULES: Rules = Rules::FROM_SERVER;
const PAYLOAD: [u8; 8] = *b"our ping";

fn rig(rules: Rules) -> Rig {
    let rig = Rig::new(Attachment::Full, b"");
    rig.record().set_rules(&rules);
    rig.record().follow.store(FOLLOW_FRAMES, Ordering::SeqCst);
    rig
}

fn text(payload: &[u8]) -> Vec<u8> {
    [&[0x81, payload.len() as u8][..], payload].concat()
}

#[test]
fn a_farewell_stands_behind_the_frame_under_way_and_nothing_behind_it() {
    let mut rig = rig(RULES);
    let whole = text(b"hello, world");
    rig.pass(&whole[..5]);
    rig.wants(Want::Hangup);
    let frame = control_frame::close(1001, "bye", None);
    let record = &rig.table.records()[0];
    rig.lane.close(record, Some((1001, &frame)));
    rig.wants(Want::Readable);
    assert!(!rig.lane.has_said_farewell());
    rig.pass(&[&whole[5..], &text(b"too late")].concat());
    rig.wants(Want::Readable);
    assert_eq!(rig.sockets.target, [whole, frame].concat());
    assert!(rig.lane.is_parting() && rig.lane.told() == 1001 && !rig.sockets.finished);
    // Its answer lets T have its FIN.
    assert!(!rig.lane.has_heard_all(rig.record()));
    rig.pass(&control_frame::close(1001, "", None));
    rig.wants(Want::Readable);
    assert!(rig.lane.has_heard_all(rig.record()));
    rig.lane.part(&mut rig.sockets).unwrap();
    assert!(rig.sockets.finished && rig.lane.is_finished());
    rig.sockets.fin = true;
    rig.wants(Want::Nothing);
    assert!(rig.lane.is_ended());
}

#[test]
fn a_farewell_that_does_not_fit_waits_for_room() {
    let mut rig = rig(RULES);
    rig.wants(Want::Hangup);
    rig.sockets.room = 3;
    let frame = control_frame::close(1012, "restart", None);
    let record = &rig.table.records()[0];
    rig.lane.close(record, Some((1012, &frame)));
    rig.wants(Want::Writable);
    rig.pass(&text(b"never"));
    rig.sockets.room = 100;
    rig.wants(Want::Readable);
    assert_eq!(rig.sockets.target, frame);
    assert_eq!(rig.record().handed.load(Ordering::Relaxed), frame.len() as u64);
}

#[test]
fn behind_the_peers_close_we_say_nothing() {
    let mut rig = rig(RULES);
    let close = control_frame::close(1000, "", None);
    rig.pass(&close);
    rig.wants(Want::Hangup);
    let record = &rig.table.records()[0];
    rig.lane.insert(record, &control_frame::ping(PAYLOAD, None));
    rig.lane.close(record, Some((1001, &control_frame::close(1001, "", None))));
    rig.wants(Want::Readable);
    assert_eq!(rig.sockets.target, close);
    assert!(rig.sockets.finished, "a FIN instead");
}

#[test]
fn a_source_that_leaves_without_a_close_is_explained_between_frames_only() {
    for (sent, told) in [(text(b"whole"), 1014), (text(b"half")[..3].to_vec(), 0)] {
        let mut rig = rig(RULES);
        rig.lane = Lane::new(Attachment::Full, b"").with_gone_code(1014);
        rig.pass(&sent);
        rig.sockets.fin = true;
        rig.wants(Want::Nothing);
        if told != 0 {
            // T's answer lets it have its FIN.
            assert!(rig.lane.is_parting() && !rig.sockets.finished);
            rig.lane.part(&mut rig.sockets).unwrap();
        }
        assert!(rig.sockets.finished && rig.lane.is_ended());
        assert_eq!(rig.lane.told(), told);
        let expected = if told == 0 { vec![] } else { control_frame::close(told, "", None) };
        assert_eq!(rig.sockets.target, [sent, expected].concat());
    }
}

#[test]
fn what_is_forbidden_is_not_passed_on() {
    let rules = Rules { enforced: violation::OF_FRAMING, ..RULES };
    let good = text(b"good");
    let mut rig = rig(rules);
    rig.pass(&[&good[..], b"\x83\x03bad", &good].concat());
    rig.wants(Want::Readable);
    assert_eq!(rig.lane.forbidden(), violation::RESERVED_OPCODE);
    assert_eq!(rig.sockets.target, good);
    let close = control_frame::close(1001, "", None);
    let record = &rig.table.records()[0];
    rig.lane.close(record, Some((1001, &close)));
    rig.pass(&good);
    rig.wants(Want::Readable);
    assert_eq!(rig.sockets.target, [good, close].concat());
    assert!(rig.lane.has_heard_all(rig.record()), "nothing it says counts");
}

#[test]
fn the_answer_to_a_ping_is_kept_from_the_target_in_any_pieces() {
    let answer = [b"\x8a\x08", &PAYLOAD[..]].concat();
    for cut in 0..=answer.len() {
        let mut rig = rig(RULES);
        rig.wants(Want::Hangup);
        let record = &rig.table.records()[0];
        rig.lane.await_answer(record, PAYLOAD);
        rig.lane.take(record);
        rig.pass(&[&text(b"a")[..], &answer[..cut]].concat());
        let _ = rig.run().unwrap();
        rig.pass(&[&answer[cut..], &text(b"b")].concat());
        let record = &rig.table.records()[0];
        rig.lane.take(record);
        rig.wants(Want::Hangup);
        assert_eq!(rig.sockets.target, [text(b"a"), text(b"b")].concat(), "cut at {cut}");
        assert!(rig.lane.take_answer(&rig.table.records()[0]));
        assert_eq!(rig.record().cursor().counts.pongs, 0);
    }
}

#[test]
fn what_only_began_like_an_answer_is_passed_on_at_the_end() {
    let mut rig = rig(RULES);
    let record = &rig.table.records()[0];
    rig.lane.await_answer(record, PAYLOAD);
    rig.pass(b"\x8a\x08our");
    rig.wants(Want::Readable);
    assert_eq!(rig.sockets.target, b"");
    rig.sockets.fin = true;
    rig.wants(Want::Nothing);
    assert_eq!(rig.sockets.target, b"\x8a\x08our");
}

/// What T has got, frame by frame; the last one may be a part.
fn frames_of(bytes: &[u8]) -> Vec<Vec<u8>> {
    let (mut cursor, mut frames, mut rest) = (FrameCursor::default(), Vec::new(), bytes);
    while !rest.is_empty() {
        cursor.advance(&rest[..1], RULES);
        let len = 1 + cursor.advance_to_boundary(&rest[1..], RULES);
        frames.push(rest[..len].to_vec());
        rest = &rest[len..];
    }
    frames
}

proptest! {
    /// Whatever comes in which pieces, however little T takes, and whenever pings and a close are
    /// put in: T gets S's frames in order, ours between them, and behind our Close nothing.
    #[test]
    fn our_frames_stand_between_theirs(
        payloads in proptest::collection::vec(0_usize..40, 1..30),
        answers in proptest::collection::vec(any::<bool>(), 30),
        cuts in proptest::collection::vec(1_usize..25, 1..20),
        rooms in proptest::collection::vec(1_usize..30, 1..20),
        pings in proptest::collection::btree_set(0_usize..60, 0..12),
        close in proptest::option::of(0_usize..80),
    ) {
        let mut rig = rig(RULES);
        let ping = control_frame::ping(*b"to the T", None);
        let farewell = control_frame::close(1001, "", None);
        let answer = [b"\x8a\x08", &PAYLOAD[..]].concat();
        let (mut sent, mut kept) = (Vec::new(), Vec::new());
        for (nth, len) in payloads.iter().enumerate() {
            let frame = text(&vec![nth as u8; *len]);
            sent.extend(&frame);
            kept.push(frame);
            if answers[nth] {
                sent.extend(&answer);
            }
        }
        let mut cuts = cuts.into_iter().cycle();
        let mut rooms = rooms.into_iter().cycle();
        let mut rest = &sent[..];
        rig.sockets.room = 0;
        for step in 0..3000 {
            let record = &rig.table.records()[0];
            // Always one is awaited: every answer in the stream is one.
            let _ = rig.lane.take_answer(record);
            if !rig.lane.awaits_answer() {
                rig.lane.await_answer(record, PAYLOAD);
            }
            if pings.contains(&step) {
                rig.lane.insert(record, &ping);
            }
            if close == Some(step) {
                rig.lane.close(record, Some((1001, &farewell)));
            }
            match rig.run().unwrap() {
                Want::Writable => rig.sockets.room = rooms.next().unwrap_or(1),
                Want::Nothing => break,
                Want::Turn => {}
                Want::Readable | Want::Hangup | Want::Moment => {
                    let record = &rig.table.records()[0];
                    rig.lane.take(record);
                    let (piece, later) = rest.split_at(cuts.next().unwrap_or(1).min(rest.len()));
                    rest = later;
                    if piece.is_empty() {
                        rig.sockets.fin = true;
                    } else {
                        rig.pass(piece);
                    }
                }
            }
        }
        let mut came = frames_of(&rig.sockets.target);
        if rig.lane.has_said_farewell() {
            prop_assert_eq!(came.pop(), Some(farewell));
        } else {
            prop_assert!(rig.lane.is_ended());
        }
        // Of two answers in one read the second answers nothing any more.
        came.retain(|frame| *frame != ping && *frame != answer);
        prop_assert!(kept.starts_with(&came), "{:?} is no begin of {:?}", came, kept);
        if !rig.lane.has_said_farewell() {
            prop_assert_eq!(&came, &kept);
        }
        let record = rig.record();
        prop_assert_eq!(record.cursor().counts.text_messages, came.len() as u64);
        prop_assert_eq!(record.handed.load(Ordering::Relaxed), rig.sockets.target.len() as u64);
    }
}
