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
    /// Whether a segment of S brings bytes, or a FIN, that were not there before.
    #[must_use]
    #[inline(always)]
    pub fn is_fresh(&self, segment: &Segment) -> bool {
        let end = segment.seq.wrapping_add(segment.length());
        // One byte may come behind a closed window: its sender probes it.
        let upper = (self.their_edge as u32).wrapping_add(1 + segment.has(FIN) as u32);
        let lower = (self.their_acked as u32).wrapping_sub(LARGEST_WINDOW);
        let inside = !after(end, upper) && !after(lower, end);
        !segment.has(SYN) && !segment.has(RST) && inside && after(end, self.sent as u32)
    }
}

/// What a segment from S changes. `ack` is its acknowledgement number in T's numbers, `scale` the
/// window scale of S.
#[must_use]
#[inline(always)]
pub fn observe(seen: &Seen, segment: &Segment, ack: u32, scale: u8) -> Moves {
    let mut moves = Moves::default();
    let end = segment.seq.wrapping_add(segment.length());
    let sent = seen.sent as u32;
    let lower = seen.their_acked as u32;
    if segment.has(RST) {
        // A reset that its receiver obeys has the number that it waits for (RFC 5961, section
        // 3.2): what is acknowledged, or, of what was sent since, something.
        if !after(lower, segment.seq) && !after(segment.seq, sent) {
            moves.flags = FLAG_RESET;
        }
        return moves;
    }
    if segment.has(SYN) {
        return moves;
    }
    if seen.is_fresh(segment) {
        moves.sent = Some(end);
        if segment.has(FIN) {
            moves.fin = Some(end);
        }
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

/// The largest window there is (RFC 7323, section 2.2).
const LARGEST_WINDOW: u32 = 1 << 30;
