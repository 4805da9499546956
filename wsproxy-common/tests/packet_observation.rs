//! What segments move: case by case, for strangers, and for two peers over a bad link.

mod packets;
#[path = "packets/world.rs"]
mod world;

use packets::{Leg, flows};
use proptest::prelude::*;
use world::{ACK, Chance, FIN, Peer, World, reset};
use wsproxy_common::packet::{FLAG_FIN_ACKED, FLAG_RESET, Flow, KNOWN, Moves, Segment};

/// A session whose S stands at `at` and whose T stands at `back`, both in their own numbers;
/// windows are 1000.
fn world(at: u32, back: u32) -> World {
    let mut flows = [Flow::default(); 2];
    for (side, (mine, theirs)) in [(at, back), (back, at)].into_iter().enumerate() {
        flows[side].sent = KNOWN | u64::from(mine);
        flows[side].acked = KNOWN | u64::from(theirs);
        flows[side].edge = KNOWN | u64::from(theirs.wrapping_add(1000));
        // S knows T under other numbers than T itself.
        flows[side].seq_add = 77_u32.wrapping_sub(mine);
        flows[side].ack_add = theirs;
    }
    World::new(flows)
}

/// A segment of a side that has `sent` bytes, with `payload` more; it acknowledges `acked` bytes.
fn segment(base: u32, sent: u32, payload: u32, acked: u32, flags: u8) -> Segment {
    Segment {
        seq: base.wrapping_add(sent),
        ack: acked,
        payload,
        flags: flags | ACK,
        options: 0,
        window: 1000,
    }
}

fn sent(world: &World, side: usize, base: u32) -> u32 {
    (world.flows[side].sent as u32).wrapping_sub(base)
}

/// All cases at numbers that wrap in the middle of them, and at others.
fn everywhere(case: impl Fn(u32, u32)) {
    for at in [0, 100, u32::MAX, u32::MAX - 300, (1 << 31) - 1, 1 << 31] {
        for back in [0, u32::MAX - 5, (1 << 31) - 10] {
            case(at, back);
        }
    }
}

#[test]
fn a_stream_in_order_moves_everything_exactly_once() {
    everywhere(|at, back| {
        let mut world = world(at, back);
        let first = world.see(0, &segment(at, 0, 300, 0, 0));
        assert_eq!(first.sent, Some(at.wrapping_add(300)));
        assert!(!world.is_quiet());
        let again = world.see(0, &segment(at, 0, 300, 0, 0));
        assert_eq!(again, Moves::default());
        assert_eq!(world.see(1, &segment(back, 0, 0, 200, 0)).acked, Some(at.wrapping_add(200)));
        assert_eq!(world.bytes, [200, 0]);
        let partly_old = world.see(0, &segment(at, 200, 150, 0, 0));
        assert_eq!(partly_old.sent, Some(at.wrapping_add(350)));
        world.see(1, &segment(back, 0, 0, 350, 0));
        // An old acknowledgement moves nothing back.
        assert_eq!(world.see(1, &segment(back, 0, 0, 200, 0)).acked, None);
        assert_eq!((world.bytes, world.is_quiet()), ([350, 0], true));
        assert_eq!(world.flows[1].edge as u32, at.wrapping_add(1350));
    });
}

#[test]
fn both_sides_end() {
    everywhere(|at, back| {
        let mut world = world(at, back);
        let end = world.see(0, &segment(at, 0, 10, 0, FIN));
        assert_eq!((end.fin, end.sent), (Some(at.wrapping_add(11)), Some(at.wrapping_add(11))));
        assert_eq!(world.see(0, &segment(at, 0, 10, 0, FIN)).fin, None, "once");
        assert_eq!(world.see(1, &segment(back, 0, 0, 10, 0)).flags, 0, "but for the FIN");
        assert_eq!(world.see(1, &segment(back, 0, 5, 11, 0)).flags, FLAG_FIN_ACKED);
        world.see(1, &segment(back, 5, 0, 11, FIN));
        assert!(!world.both_ended());
        world.see(0, &segment(at, 11, 0, 6, 0));
        assert!(world.both_ended() && world.is_quiet());
        assert_eq!(world.bytes, [10, 5], "a FIN is no byte");
    });
}

#[test]
fn both_sides_end_at_once() {
    everywhere(|at, back| {
        let mut world = world(at, back);
        world.see(0, &segment(at, 0, 0, 0, FIN));
        world.see(1, &segment(back, 0, 0, 0, FIN));
        // Each acknowledges the other's; one of them repeats its FIN while it does.
        world.see(0, &segment(at, 0, 0, 1, FIN));
        world.see(1, &segment(back, 1, 0, 1, 0));
        assert!(world.both_ended() && world.is_quiet());
        assert_eq!((world.bytes, world.fins), ([0, 0], [1, 1]));
    });
}

#[test]
fn what_is_beyond_the_window_moves_nothing() {
    everywhere(|at, back| {
        let moved = |begin: u32, payload: u32, flags: u8| {
            world(at, back).see(0, &segment(at, begin, payload, 0, flags)).sent.is_some()
        };
        assert!(moved(0, 1000, 0), "all of the window");
        assert!(moved(1000, 1, 0), "a closed window is probed with one byte");
        assert!(moved(1000, 1, FIN), "and that was the last one");
        let rounding = 1 << 14;
        assert!(moved(1000 + rounding, 1, FIN));
        assert!(!moved(1000 + rounding, 2, FIN) && !moved(1000 + rounding, 3, 0));
        assert!(!moved(1 << 31, 1, 0) && !moved(1 << 31, 0, 0) && !moved((1 << 31) + 1, 1, 0));
        assert!(!moved(0u32.wrapping_sub(5), 5, 0), "old");
    });
}

#[test]
fn an_acknowledgement_of_what_was_never_sent_moves_nothing() {
    everywhere(|at, back| {
        let mut world = world(at, back);
        world.see(0, &segment(at, 0, 100, 0, 0));
        for acked in [101, 1 << 20, 1 << 31, (1 << 31) + 100, u32::MAX - (1 << 27)] {
            let moves = world.see(1, &segment(back, 0, 0, acked, 0));
            assert_eq!((moves.acked, moves.edge, moves.flags), (None, None, 0), "{acked}");
        }
        assert_eq!(world.bytes, [0, 0]);
    });
}

#[test]
fn a_stranger_who_knows_one_of_the_numbers_moves_nothing() {
    everywhere(|at, back| {
        let mut world = world(at, back);
        world.see(1, &segment(back, 0, 500, 0, 0));
        let nothing = |moves: Moves| moves == Moves::default();
        for far in [1 << 27, 1 << 30, 1 << 31, u32::MAX - (1 << 27)] {
            let data = segment(at, 0, 100, far, FIN);
            assert!(nothing(world.clone().see(0, &data)), "acknowledgement {far}");
            let acknowledgement = segment(at, far, 0, 500, 0);
            assert!(nothing(world.clone().see(0, &acknowledgement)), "sequence number {far}");
        }
        let unsaid = Segment { flags: FIN, ..segment(at, 0, 100, 0, 0) };
        assert!(nothing(world.see(0, &unsaid)), "no ACK");
        let syn = segment(at, 0, 100, 500, 2);
        assert!(nothing(world.see(0, &syn)), "SYN");
    });
}

#[test]
fn a_segment_that_was_not_noted_does_not_keep_the_next_ones_away() {
    everywhere(|at, back| {
        let mut world = world(at, back);
        // What S sent by another way, T acknowledges; and the other way round.
        let data = world.see(1, &segment(back, 0, 50, 400, 0));
        assert_eq!((data.sent, data.acked), (Some(back.wrapping_add(50)), None));
        let data = world.see(0, &segment(at, 400, 10, 90, 0));
        assert_eq!((data.sent, data.acked), (Some(at.wrapping_add(410)), None));
        world.see(1, &segment(back, 90, 10, 410, 0));
        world.see(0, &segment(at, 410, 0, 100, 0));
        assert!(world.is_quiet());
        assert_eq!(world.bytes, [410, 100]);
    });
}

#[test]
fn a_reset_counts_where_its_receiver_waits() {
    everywhere(|at, back| {
        let mut world = world(at, back);
        world.see(0, &segment(at, 0, 100, 0, 0));
        for (offset, counts) in [
            (0, true),
            (50, true),
            (100, true),
            (101, false),
            (u32::MAX, false),
            (1 << 31, false),
            (1 << 30, false),
        ] {
            let moves = world.clone().see(0, &reset(at.wrapping_add(offset)));
            assert_eq!(moves.flags == FLAG_RESET, counts, "{offset}");
            assert_eq!((moves.sent, moves.acked, moves.edge, moves.fin), (None, None, None, None));
        }
    });
}

#[test]
fn a_bare_acknowledgement_does_not_stand_for_what_was_lost() {
    everywhere(|at, back| {
        let mut world = world(at, back);
        // Ten bytes and a FIN were lost on their way here.
        let bare = world.see(0, &segment(at, 11, 0, 0, 0));
        assert_eq!(bare.sent, None);
        assert!(world.is_quiet(), "nothing of them can be under way to T");
        let end = world.see(0, &segment(at, 0, 10, 0, FIN));
        assert_eq!((end.fin, end.sent.is_some()), (Some(at.wrapping_add(11)), true));
        world.see(1, &segment(back, 0, 0, 11, 0));
        assert_eq!((world.bytes, world.flows[1].flags), ([10, 0], FLAG_FIN_ACKED));
    });
}

#[test]
fn a_fin_is_noted_whose_number_was_noted_before() {
    everywhere(|at, back| {
        let mut world = world(at, back);
        world.flows[0].sent = KNOWN | u64::from(at.wrapping_add(11));
        let end = world.see(0, &segment(at, 0, 10, 0, FIN));
        assert_eq!((end.sent, end.fin), (None, Some(at.wrapping_add(11))));
        assert_eq!(world.see(0, &segment(at, 0, 10, 0, FIN)).fin, None, "once");
        assert_eq!(world.see(1, &segment(back, 0, 0, 11, 0)).flags, FLAG_FIN_ACKED);
    });
}

#[test]
fn windows_are_scaled_and_never_taken_back() {
    everywhere(|at, back| {
        let mut world = world(at, back);
        world.flows[1].scale = 7;
        let window = |window: u16| Segment { window, ..segment(back, 0, 0, 0, 0) };
        assert_eq!(world.see(1, &window(100)).edge, Some(at.wrapping_add(12_800)));
        assert_eq!(world.see(1, &window(0)).edge, None);
        assert_eq!(world.see(1, &window(0xffff)).edge, Some(at.wrapping_add(0xffff << 7)));
        // Of an old acknowledgement, which a stranger guesses more easily, nothing is taken.
        world.see(0, &segment(at, 0, 100, 0, 0));
        world.see(1, &segment(back, 0, 0, 100, 0));
        world.flows[1].scale = 14;
        assert_eq!(world.see(1, &window(0xffff)).edge, None);
        let window = |window: u16| Segment { window, ..segment(back, 0, 0, 100, 0) };
        assert_eq!(world.see(1, &window(0xffff)).edge, Some(at.wrapping_add(100 + (0xffff << 14))));
        // Nor of one that acknowledges what is not there.
        let early = Segment { window: 0xffff, ..segment(back, 0, 0, 101, 0) };
        assert_eq!(world.see(1, &early).edge, None);
    });
}

/// Two peers and the link between them, the hook in its middle.
struct Link {
    peers: [Peer; 2],
    world: World,
    /// Before the hook, behind it; of each side.
    before: [Vec<Segment>; 2],
    behind: [Vec<Segment>; 2],
    chance: Chance,
    /// One of so many is lost; 0: none.
    loss: u32,
}

impl Link {
    fn new(legs: &[Leg; 2], lengths: [u32; 2], rooms: [u32; 2], seed: u64) -> Self {
        let mut flows = flows(legs, false);
        let peers = [0, 1].map(|side| {
            let leg = &legs[side];
            // Nothing is let in before a window was told.
            flows[side].edge = KNOWN | u64::from(legs[1 - side].rcv_seq);
            let (mine, theirs) = (lengths[side], lengths[1 - side]);
            Peer::new(leg.rcv_seq, leg.snd_seq, leg.scales.0, mine, theirs, rooms[side])
        });
        Self {
            peers,
            world: World::new(flows),
            before: [Vec::new(), Vec::new()],
            behind: [Vec::new(), Vec::new()],
            chance: Chance(seed | 1),
            loss: 8,
        }
    }

    /// Takes one from a line, any of the first few; it may be lost, or stay there as well.
    fn take(line: &mut Vec<Segment>, chance: &mut Chance, loss: u32) -> Option<Segment> {
        let at = chance.below(line.len().clamp(1, 4) as u32) as usize;
        let segment = *line.get(at)?;
        let is_lost = loss != 0 && chance.one_in(loss);
        if is_lost || !chance.one_in(10) {
            line.remove(at);
        }
        (!is_lost).then_some(segment)
    }

    fn step(&mut self) {
        let side = self.chance.below(2) as usize;
        let chance = &mut self.chance;
        match chance.below(8) {
            0 => self.before[side].extend(self.peers[side].send(chance)),
            1 if chance.one_in(3) => self.before[side].extend(self.peers[side].send_again(chance)),
            2 if chance.one_in(4) => {
                let segment = self.peers[side].acknowledge();
                self.before[side].push(segment);
            }
            3 => self.peers[side].read(chance.below(5_000)),
            4 | 5 => {
                let segment = Self::take(&mut self.before[side], chance, self.loss);
                if let Some(segment) = segment {
                    self.pass_the_hook(side, segment);
                }
            }
            _ => {
                let segment = Self::take(&mut self.behind[side], chance, self.loss);
                if let Some(segment) = segment {
                    self.arrive(1 - side, &segment);
                }
            }
        }
        self.check();
    }

    fn pass_the_hook(&mut self, side: usize, segment: Segment) {
        self.world.see(side, &segment);
        let flow = &self.world.flows[side];
        self.behind[side].push(Segment {
            seq: segment.seq.wrapping_add(flow.seq_add),
            ack: segment.ack.wrapping_add(flow.ack_add),
            window: flow.window(segment.window),
            ..segment
        });
    }

    fn arrive(&mut self, side: usize, segment: &Segment) {
        let scale = self.world.flows[1 - side].told_scale;
        let answer = self.peers[side].take(segment, scale);
        if answer {
            let segment = self.peers[side].acknowledge();
            self.before[side].push(segment);
        }
    }

    fn check(&self) {
        for side in 0..2 {
            let (peer, other) = (&self.peers[side], &self.peers[1 - side]);
            let acked = (self.world.flows[1 - side].acked as u32).wrapping_sub(peer.first);
            assert!(acked <= other.received && acked >= peer.acked);
        }
        if !self.world.is_quiet() {
            return;
        }
        for side in 0..2 {
            let other = &self.peers[1 - side];
            let sent = (self.world.flows[side].sent as u32).wrapping_sub(self.peers[side].first);
            assert_eq!(sent, other.received, "quiet, and T has not what S sent");
            for segment in self.behind[side].iter().filter(|segment| segment.length() != 0) {
                let end =
                    segment.seq.wrapping_add(segment.length()).wrapping_sub(other.their_first);
                assert!(
                    end as i32 <= other.received as i32,
                    "something new under way {segment:?} {:?}\n{:?}",
                    self.peers,
                    self.world.flows
                );
            }
        }
    }
}

fn leg() -> impl Strategy<Value = Leg> {
    let number = || prop_oneof![any::<u32>(), (0u32..200_000).prop_map(|n| 0u32.wrapping_sub(n))];
    (number(), number(), (0u8..9, 0u8..9)).prop_map(|(snd_seq, rcv_seq, scales)| Leg {
        peer: [1; 16],
        local: [2; 16],
        peer_port: 1,
        local_port: 2,
        snd_seq,
        rcv_seq,
        clock: 0,
        value: 0,
        scales,
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    #[test]
    fn two_peers_over_a_bad_link(
        legs in [leg(), leg()],
        lengths in [0u32..60_000, 0u32..60_000],
        rooms in [2_000u32..70_000, 2_000u32..70_000],
        seed: u64,
    ) {
        let mut link = Link::new(&legs, lengths, rooms, seed);
        let mut steps = 0;
        while !link.peers.iter().all(Peer::has_ended) {
            link.step();
            steps += 1;
            prop_assert!(steps < 1_000_000, "no end: {:?}", link.peers);
        }
        // What is still under way comes by, too.
        link.loss = 0;
        while !link.before.iter().chain(&link.behind).all(Vec::is_empty) {
            for side in 0..2 {
                if let Some(segment) = link.before[side].pop() {
                    link.pass_the_hook(side, segment);
                }
                if let Some(segment) = link.behind[side].pop() {
                    link.arrive(1 - side, &segment);
                }
                link.check();
            }
        }
        prop_assert!(link.world.is_quiet() && link.world.both_ended(), "{:?}\n{:?}", link.peers, link.world);
        prop_assert_eq!(link.world.bytes, lengths.map(u64::from));
        prop_assert_eq!(link.world.fins, [1, 1]);
        for side in 0..2 {
            let end = legs[side].rcv_seq.wrapping_add(lengths[side] + 1);
            prop_assert_eq!(link.world.flows[side].sent, KNOWN | u64::from(end));
            prop_assert_eq!(sent(&link.world, side, legs[side].rcv_seq), lengths[side] + 1);
        }
    }

    #[test]
    fn any_segment_moves_numbers_only_forward_and_only_to_what_is_there(
        at: u32, back: u32, offsets in prop::collection::vec((any::<u32>(), any::<u32>(), 0u32..3_000, any::<u8>(), any::<u16>(), any::<bool>(), any::<bool>()), 1..60),
    ) {
        let mut world = world(at, back);
        for (seq, ack, payload, flags, window, near, side) in offsets {
            let side = usize::from(side);
            let cut = |n: u32| if near { n % 4_000 } else { n };
            let base = world.flows[side].sent as u32;
            let segment = Segment {
                seq: base.wrapping_add(cut(seq)).wrapping_sub(1_000),
                ack: (world.flows[1 - side].sent as u32)
                    .wrapping_sub(world.flows[side].ack_add)
                    .wrapping_sub(cut(ack)),
                payload, flags, options: 0, window,
            };
            let before = world.clone();
            let moves = world.see(side, &segment);
            if let Some(sent) = moves.sent {
                let edge = before.flows[1 - side].edge as u32;
                prop_assert!(edge.wrapping_add(2 + (1 << 14)).wrapping_sub(sent) as i32 >= 0);
            }
            if let Some(acked) = moves.acked {
                let sent = before.flows[1 - side].sent as u32;
                prop_assert!(sent.wrapping_sub(acked) as i32 >= 0);
            }
            // Once more, it is nothing new.
            let again = world.see(side, &segment);
            prop_assert_eq!((again.sent, again.acked, again.fin), (None, None, None));
        }
    }
}
