//! What a segment tells about its session. State moves only by segments that lie in the windows
//! of both sides: what a stranger sends who does not see the session moves nothing (RFC 5961).

use super::{
    FLAG_FIN_ACKED, FLAG_RESET, KNOWN, Segment, after,
    headers::{ACK, FIN, RST, SYN},
};

/// What is known of both directions: of the one that the segment belongs to, from S to T, and of
/// the opposite one.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Seen {
    /// `sent` of S.
    pub sent: u64,
    /// What S has acknowledged, in T's numbers.
    pub acked: u64,
    /// Up to where S lets T send, in T's numbers.
    pub edge: u64,
    /// The FIN of S.
    pub fin: u64,
    /// `sent` of T.
    pub their_sent: u64,
    /// What T has acknowledged, in S's numbers.
    pub their_acked: u64,
    /// Up to where T lets S send, in S's numbers.
    pub their_edge: u64,
    /// The FIN of T.
    pub their_fin: u64,
}

/// What a segment changes. Only for fields that change there is something.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Moves {
    /// New `sent` of S.
    pub sent: Option<u32>,
    /// New `acked` of S.
    pub acked: Option<u32>,
    /// New `edge` of S.
    pub edge: Option<u32>,
    /// S has sent its FIN; this stands behind it.
    pub fin: Option<u32>,
    /// Bits of [`super::Flow::flags`] that are to be set.
    pub flags: u32,
}

impl Seen {
    /// Whether a segment lies in the windows of both sides.
    #[inline(always)]
    fn is_near(&self, segment: &Segment, ack: u32) -> bool {
        let end = segment.seq.wrapping_add(segment.length());
        let (acked, lower) = (self.acked as u32, self.their_acked as u32);
        // What acknowledges nothing is dropped by its receiver (RFC 9293, section 3.10.7.4), and
        // so is what acknowledges what nobody who sees the session would (RFC 5961, section 5): a
        // stranger has to guess both numbers.
        segment.has(ACK)
            && !segment.has(SYN)
            && !segment.has(RST)
            && is_near(ack, acked, self.their_sent as u32)
            && is_near(end, lower, self.upper())
    }

    /// Up to where T takes what S sends.
    #[inline(always)]
    fn upper(&self) -> u32 {
        (self.their_edge as u32).wrapping_add(BEYOND)
    }

    /// Whether a segment of S brings bytes, or a FIN, that were not there before. `ack` is its
    /// acknowledgement number in T's numbers.
    #[must_use]
    #[inline(always)]
    pub fn is_fresh(&self, segment: &Segment, ack: u32) -> bool {
        let end = segment.seq.wrapping_add(segment.length());
        // A bare acknowledgement stands behind all that was sent, whether it came by here or not.
        segment.length() != 0
            && after(end, self.sent as u32)
            && !after(end, self.upper())
            && self.is_near(segment, ack)
    }

    /// Whether it brings bytes behind `stands`, whatever was sent already: those that the frame
    /// cursor has not been led over.
    #[must_use]
    #[inline(always)]
    pub fn is_behind(&self, segment: &Segment, ack: u32, stands: u32) -> bool {
        Self { sent: stands as u64, ..*self }.is_fresh(segment, ack)
    }
}

/// What a segment from S changes. `ack` is its acknowledgement number in T's numbers, `scale` the
/// window scale of S.
#[must_use]
#[inline(always)]
pub fn observe(seen: &Seen, segment: &Segment, ack: u32, scale: u8) -> Moves {
    let mut moves = Moves::default();
    let end = segment.seq.wrapping_add(segment.length());
    let (sent, acked) = (seen.sent as u32, seen.acked as u32);
    if segment.has(RST) {
        // A reset that its receiver obeys has the number that it waits for (RFC 5961, section
        // 3.2): what is acknowledged, or, of what was sent since, something.
        if !after(seen.their_acked as u32, segment.seq) && !after(segment.seq, sent) {
            moves.flags = FLAG_RESET;
        }
        return moves;
    }
    if !seen.is_near(segment, ack) {
        return moves;
    }
    if seen.is_fresh(segment, ack) {
        moves.sent = Some(end);
    }
    // Its number may have been noted, and the FIN dropped, when the session changed its path.
    let inside = !after(end, seen.upper()) && !after(sent, end);
    if segment.has(FIN) && inside && seen.fin & KNOWN == 0 {
        moves.fin = Some(end);
    }
    let acknowledges = !after(ack, seen.their_sent as u32);
    if acknowledges && after(ack, acked) {
        moves.acked = Some(ack);
        if seen.their_fin == KNOWN | ack as u64 {
            moves.flags |= FLAG_FIN_ACKED;
        }
    }
    let edge = ack.wrapping_add((segment.window as u32) << (scale & 15));
    if acknowledges && !after(acked, ack) && after(edge, seen.edge as u32) {
        moves.edge = Some(edge);
    }
    moves
}

/// Whether a number lies between two others, or not further from them than what may be under way.
/// That much room on both sides: a segment that was not noted must not keep the next ones, which
/// tell of it, from being noted.
#[inline(always)]
const fn is_near(number: u32, from: u32, to: u32) -> bool {
    !after(from.wrapping_sub(UNDER_WAY), number) && !after(number, to.wrapping_add(UNDER_WAY))
}

/// What may come behind the window: a byte that probes a closed one, a FIN, and what rounding took
/// from it since S was told (RFC 7323, section 2.4), if the two acknowledgements changed places.
const BEYOND: u32 = 2 + (1 << 14);

/// More than is under way in a connection, and little of all the numbers there are.
const UNDER_WAY: u32 = 1 << 26;
