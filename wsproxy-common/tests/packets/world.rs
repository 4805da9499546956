//! Both directions of a session as the BPF program leads them, without concurrency, and two peers
//! that talk over a link that loses, doubles and reorders.

use std::collections::BTreeMap;

use wsproxy_common::packet::{
    FLAG_FIN_ACKED, Flow, KNOWN, Moves, RST, Seen, Segment, after, observe,
};

pub const FIN: u8 = 1;
pub const ACK: u8 = 16;

/// What is known of a session, and what was counted.
#[derive(Clone, Debug)]
pub struct World {
    pub flows: [Flow; 2],
    /// Bytes of each side that the other one has acknowledged.
    pub bytes: [u64; 2],
    pub fins: [u32; 2],
}

impl World {
    /// As when it was frozen: all that a side has sent is acknowledged.
    pub fn new(flows: [Flow; 2]) -> Self {
        Self { flows, bytes: [0; 2], fins: [0; 2] }
    }

    /// A segment of `side` comes by; what it moves is written down as BPF does it.
    pub fn see(&mut self, side: usize, segment: &Segment) -> Moves {
        let [near, far] = [self.flows[side], self.flows[1 - side]];
        let seen = Seen {
            sent: near.sent,
            acked: near.acked,
            edge: near.edge,
            fin: near.fin,
            their_sent: far.sent,
            their_acked: far.acked,
            their_edge: far.edge,
            their_fin: far.fin,
        };
        let ack = segment.ack.wrapping_add(near.ack_add);
        let moves = observe(&seen, segment, ack, near.scale);
        let flow = &mut self.flows[side];
        if let Some(sent) = moves.sent {
            assert!(after(sent, flow.sent as u32), "numbers only move forward");
            flow.sent = KNOWN | u64::from(sent);
        }
        if let Some(edge) = moves.edge {
            assert!(after(edge, flow.edge as u32));
            flow.edge = KNOWN | u64::from(edge);
        }
        if let Some(acked) = moves.acked {
            let before = flow.acked as u32;
            assert!(after(acked, before));
            let fin = u32::from(far.fin == KNOWN | u64::from(acked));
            self.bytes[1 - side] += u64::from(acked.wrapping_sub(before).wrapping_sub(fin));
            flow.acked = KNOWN | u64::from(acked);
        }
        if let Some(fin) = moves.fin {
            flow.fin = KNOWN | u64::from(fin);
            self.fins[side] += 1;
        }
        flow.flags |= moves.flags;
        moves
    }

    /// Nothing is under way, as user space asks it before it takes the session back.
    pub fn is_quiet(&self) -> bool {
        (0..2).all(|side| self.flows[side].sent == self.flows[1 - side].acked)
    }

    pub fn both_ended(&self) -> bool {
        self.flows.iter().all(|flow| flow.flags & FLAG_FIN_ACKED != 0)
    }
}

/// Chance, from a seed.
#[derive(Clone, Debug)]
pub struct Chance(pub u64);

impl Chance {
    /// A number below `n`.
    pub fn below(&mut self, n: u32) -> u32 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        ((self.0 >> 33) as u32) % n
    }

    pub fn one_in(&mut self, n: u32) -> bool {
        self.below(n) == 0
    }
}

/// A TCP peer; numbers are counted from the moment that the session was frozen.
#[derive(Clone, Debug)]
pub struct Peer {
    /// Its first byte's number, the first byte's of the other side as it sees it.
    pub first: u32,
    pub their_first: u32,
    pub scale: u8,
    /// Bytes that it has to send; the FIN is behind them.
    length: u32,
    sent: u32,
    pub acked: u32,
    /// Up to where it may send.
    edge: u32,
    /// What it has received in order, FIN included, and parts behind holes (begin, end).
    pub received: u32,
    parts: BTreeMap<u32, u32>,
    their_length: u32,
    /// Bytes that its application has not read; room for bytes.
    unread: u32,
    room: u32,
    /// How far it has let the other side send.
    told: u32,
}

impl Peer {
    pub fn new(
        first: u32,
        their_first: u32,
        scale: u8,
        length: u32,
        their_length: u32,
        room: u32,
    ) -> Self {
        Self {
            first,
            their_first,
            scale,
            length,
            sent: 0,
            acked: 0,
            edge: 0,
            received: 0,
            parts: BTreeMap::new(),
            their_length,
            unread: 0,
            room,
            told: 0,
        }
    }

    pub fn has_ended(&self) -> bool {
        self.acked == self.length + 1 && self.received == self.their_length + 1
    }

    pub fn read(&mut self, bytes: u32) {
        self.unread -= bytes.min(self.unread);
    }

    /// Room that it tells of: it never takes back what it has told (RFC 9293, section 3.8.6).
    fn window(&mut self) -> u16 {
        let open = self.received + self.room.saturating_sub(self.unread);
        let field = (open.max(self.told) - self.received) >> self.scale;
        let field = field.min(0xffff);
        self.told = self.told.max(self.received + (field << self.scale));
        field as u16
    }

    fn segment(&mut self, begin: u32, end: u32) -> Segment {
        let fin = end > self.length && end > begin;
        Segment {
            seq: self.first.wrapping_add(begin),
            ack: self.their_first.wrapping_add(self.received),
            payload: end - begin - u32::from(fin),
            flags: ACK | if fin { FIN } else { 0 },
            options: 0,
            window: self.window(),
        }
    }

    pub fn acknowledge(&mut self) -> Segment {
        self.segment(self.sent, self.sent)
    }

    /// The next new data that the window lets go; a byte behind a closed window now and then.
    pub fn send(&mut self, chance: &mut Chance) -> Option<Segment> {
        let begin = self.sent;
        let mut limit = (self.length + 1).min(self.edge);
        if limit <= begin && self.acked == begin && chance.one_in(4) {
            limit = (self.length + 1).min(begin + 1);
        }
        if limit <= begin {
            return None;
        }
        let end = (begin + 1 + chance.below(3_000)).min(limit);
        self.sent = end;
        Some(self.segment(begin, end))
    }

    /// Something that is not acknowledged, once more; where it is cut is chance.
    pub fn send_again(&mut self, chance: &mut Chance) -> Option<Segment> {
        if self.acked == self.sent {
            return None;
        }
        let begin = self.acked.saturating_sub(chance.below(3));
        let end = (self.acked + 1 + chance.below(4_000)).min(self.sent);
        Some(self.segment(begin, end))
    }

    /// Takes a segment; whether it is to be acknowledged at once.
    pub fn take(&mut self, segment: &Segment, their_scale: u8) -> bool {
        let ack = segment.ack.wrapping_sub(self.first);
        assert!(ack as i32 <= self.sent as i32, "acknowledged what was never sent");
        if ack as i32 > self.acked as i32 {
            self.acked = ack;
        }
        let edge = ack.wrapping_add(u32::from(segment.window) << their_scale);
        // No window is taken from an old acknowledgement (RFC 9293, section 3.10.7.4).
        if ack == self.acked && edge as i32 > self.edge as i32 {
            self.edge = edge;
        }
        let begin = segment.seq.wrapping_sub(self.their_first);
        let end = begin.wrapping_add(segment.length());
        let limit = self.told.max(self.received);
        if begin as i32 > limit as i32 || end as i32 <= self.received as i32 {
            return segment.length() != 0;
        }
        let end = if segment.has(FIN) && end == limit + 1 { end } else { end.min(limit) };
        if end > begin {
            let known = self.parts.entry(begin).or_default();
            *known = end.max(*known);
        }
        let before = self.received;
        while let Some((&begin, &end)) = self.parts.first_key_value() {
            if begin > self.received {
                break;
            }
            self.parts.pop_first();
            self.received = self.received.max(end);
        }
        let bytes = self.received.min(self.their_length) - before.min(self.their_length);
        self.unread += bytes;
        segment.length() != 0
    }
}

/// A reset from `side`, with that number.
pub fn reset(seq: u32) -> Segment {
    Segment { seq, flags: RST, ..Segment::default() }
}
