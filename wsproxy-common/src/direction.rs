//! The record of one direction of a session (source socket S to target socket
//! T), in an mmapable array that BPF and user space both map.
//!
//! `ARCHITECTURE.md` ("The splice protocol") says who may write which field
//! when. In short: whoever is the owner moves the bytes; `handed`, `diverted`
//! and `relayed` prove that nothing is on the way when the owner changes.

use crate::cursor::{FrameCursor, Rules};

/// Who moves the bytes of a direction. Stored as `u64` because both sides
/// compare-and-swap it and BPF has 64-bit atomics on every supported kernel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u64)]
pub enum Owner {
    /// User space: BPF passes every byte to S's own reader and counts it in
    /// [`Direction::diverted`]. All-zero memory means this.
    Relay = 0,
    /// The kernel: BPF redirects every admitted skb to T.
    Kernel = 1,
    /// User space has read everything it knows of and offers the direction to
    /// the kernel; BPF takes it at the next skb if nothing was diverted since.
    Resume = 2,
}

/// One direction: a cache line that BPF writes per packet, one that only user space writes, and
/// the frame cursor.
#[derive(Debug, Default)]
#[repr(C, align(64))]
pub struct Direction {
    /// Bytes put on their way to T's TCP since the connection began, in T's
    /// own count (`bytes_acked + write_seq - snd_una`): added to BEFORE the
    /// bytes go, corrected when they did not. Written by both, atomically.
    pub handed: u64,
    /// An [`Owner`]. Written by both.
    pub owner: u64,
    /// Bytes that BPF passed to S's own reader. Written by BPF.
    pub diverted: u64,
    /// Bytes that BPF redirected over the life of this slot (never reset, so
    /// that sums over all slots only grow). Written by BPF.
    pub kernel_bytes: u64,
    /// Packets (skbs) that BPF redirected over the life of this slot.
    pub kernel_skbs: u64,
    /// `CLOCK_MONOTONIC` in ns, coarse, when a byte last moved. Written by the owner.
    pub last_activity_ns: u64,
    /// TCP sequence number behind the last skb of S, with
    /// [`EXPECTED_KNOWN`] set once there was one; on the packet path where the frame cursor
    /// stands. Written by BPF.
    pub expected_seq: u64,
    /// Not 0: BPF could not cut a retransmission off the front of an skb, so
    /// that bytes came twice. The session must end in a reset. Written by BPF.
    pub broken: u64,

    /// Diverted bytes that user space has read AND written to T. Written by user space.
    pub relayed: u64,
    /// Bytes that user space wrote to T over the life of this slot (never reset).
    pub relay_bytes: u64,
    /// Bumped whenever the slot gets new sockets; events carry it.
    pub generation: u64,
    /// [`FOLLOW_FRAMES`] and other bits; 0: BPF does not look at frames. Written by user space.
    pub follow: u64,
    /// What the frames of S may look like. Written by user space before the sockets enter.
    pub rules: Rules,
    /// Bytes that T acknowledged on the packet path, over the life of this slot (never reset).
    /// Written by BPF.
    pub packet_bytes: u64,

    /// Where the stream stands in its frames, and what has passed, as of the bytes in `handed`
    /// that come from S. Written by the owner: by BPF after it has announced a packet in `handed`
    /// and before that can be in T's TCP.
    pub cursor: FrameCursor,
    /// On the packet path, behind a frame header that has not come: index of the shelf on which
    /// copies of what was sent on meanwhile lie (`wsproxy-ebpf/src/behind.rs`), with
    /// [`KEEPS`] while there are some; with [`BUSY`]. Written by BPF, and by user space before
    /// packets are translated.
    pub behind: u64,
    /// Bytes of the packet under way that the cursor was led over; of no meaning between packets.
    /// Written by BPF.
    pub offset: u32,
    /// Bytes of that packet that it is still to be led over.
    pub left: u32,
}

/// Bit of [`Direction::behind`]: its lower half is the index of a shelf.
pub const KEEPS: u64 = 1 << 32;
/// Bit of [`Direction::behind`]: a CPU leads the frame cursor over a packet of the direction; no
/// other one does meanwhile.
pub const BUSY: u64 = 1 << 33;

/// Bit of [`Direction::follow`]: the frames of this direction are followed.
pub const FOLLOW_FRAMES: u64 = 1;
/// Bit of [`Direction::follow`]: a Pong, or the begin of one, is for user space to look at.
pub const WATCH_PONGS: u64 = 2;
/// Bit of [`Direction::follow`]: on the packet path, a FIN without a Close before it is for user
/// space to look at.
pub const WATCH_FIN: u64 = 4;

/// Bit of [`Direction::expected_seq`] that says that its lower half counts.
pub const EXPECTED_KNOWN: u64 = 1 << 32;

const _: () = assert!(size_of::<Direction>() == 384 && align_of::<Direction>() == 64);

impl Owner {
    /// The owner that a record's word stands for; anything unknown is
    /// [`Owner::Relay`], which is always safe.
    #[must_use]
    pub const fn from_word(word: u64) -> Self {
        match word {
            1 => Self::Kernel,
            2 => Self::Resume,
            _ => Self::Relay,
        }
    }
}

/// Index of the record of a slot's direction from client to upstream. Its
/// socket in the socket map, under the same index, is the client's.
#[must_use]
pub const fn to_upstream(slot: u32) -> u32 {
    slot * 2
}

/// Index of the record of a slot's direction from upstream to client. Its
/// socket in the socket map, under the same index, is the upstream's.
#[must_use]
pub const fn to_client(slot: u32) -> u32 {
    slot * 2 + 1
}

/// The other direction of the same session; under this index the socket map
/// holds the target of a direction.
#[must_use]
pub const fn opposite(direction: u32) -> u32 {
    direction ^ 1
}

/// The slot a direction belongs to.
#[must_use]
pub const fn slot_of(direction: u32) -> u32 {
    direction / 2
}
