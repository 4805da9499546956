//! The packet path: a session's packets, translated instead of terminated.
//!
//! After the handshake both TCP connections of a session carry the same byte stream, shifted by
//! constants. What a packet of one becomes in the other is computed here, without memory of its
//! own and without the kernel: BPF and the tests run the same code.
//! `ARCHITECTURE.md` ("The packet path") has the rules.

mod flow;
mod headers;
mod observe;
mod options;
mod sum;
pub mod whole;

pub use flow::{
    BUSY, FLAG_COME_BACK, FLAG_FIN_ACKED, FLAG_RESET, Flow, FlowKey, KNOWN, Pair, State,
};
pub use headers::{
    ACK, FIN, HEADERS, Headers, JUMBO, RST, SYN, Segment, TCP_AT, V4_AT, V4_LENGTH, V6_LENGTH,
    mapped,
};
pub use observe::{Moves, Seen, observe};
pub use options::{OPTIONS, Options};
pub use sum::Sum;

/// Whether sequence number `a` lies behind `b` (RFC 9293, section 3.4).
#[must_use]
#[inline(always)]
pub const fn after(a: u32, b: u32) -> bool {
    (b.wrapping_sub(a) as i32) < 0
}

/// What the checksum of a translated segment changes by.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Change {
    /// By what stands in the pseudo-header: the addresses.
    pub addresses: u32,
    /// By what stands in the segment itself.
    pub segment: u32,
}
