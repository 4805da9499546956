//! The record of one direction of a session on the packet path: from S, who sends, to T.

/// Who sends to whom, as packets say it when they arrive. IPv4 addresses stand as IPv6 ones
/// (`::ffff:a.b.c.d`); all words are in network order.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[repr(C)]
pub struct FlowKey {
    /// Address of S.
    pub source: [u32; 4],
    /// Our address.
    pub destination: [u32; 4],
    /// Port of S, our port: as they lie in a packet.
    pub ports: u32,
}

const _: () = assert!(size_of::<FlowKey>() == 36);

/// What is done with the packets of a direction. All-zero memory is [`State::Off`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u64)]
pub enum State {
    /// They go to the stack.
    Off = 0,
    /// They go to the stack, and what they say is noted.
    Watch = 1,
    /// They are dropped: TCP sends them again. For microseconds, while a session changes its path.
    Hold = 2,
    /// They are translated and sent on.
    Forward = 3,
    /// As [`State::Forward`], but nothing new is let in: what was sent before comes to its end,
    /// and the session can change its path.
    Settle = 4,
    /// As [`State::Forward`], but the session is over: a new SYN goes to the stack.
    Ended = 5,
}

impl State {
    /// The state that a record's word stands for; anything unknown is [`State::Off`].
    #[must_use]
    #[inline(always)]
    pub const fn from_word(word: u64) -> Self {
        match word {
            1 => Self::Watch,
            2 => Self::Hold,
            3 => Self::Forward,
            4 => Self::Settle,
            5 => Self::Ended,
            _ => Self::Off,
        }
    }

    /// Whether packets are translated.
    #[must_use]
    #[inline(always)]
    pub const fn is_translated(self) -> bool {
        matches!(self, Self::Forward | Self::Settle | Self::Ended)
    }
}

/// Bit of [`Flow::sent`], [`Flow::acked`], [`Flow::value`] and [`Flow::fin`]: the lower half counts.
pub const KNOWN: u64 = 1 << 32;

/// Bit of [`Flow::behind`]: a CPU leads the frame cursor over a packet of the direction; no other
/// one does meanwhile.
pub const BUSY: u64 = 1 << 33;

/// Bit of [`Flow::flags`]: S has reset the connection.
pub const FLAG_RESET: u32 = 1;
/// Bit of [`Flow::flags`]: S has acknowledged the FIN of T.
pub const FLAG_FIN_ACKED: u32 = 2;

/// Bit of [`Flow::flags`]: a packet of S was dropped that only user space can judge.
pub const FLAG_COME_BACK: u32 = 4;

/// One direction. The upper part is written by user space while the state is not
/// [`State::Forward`], the lower one by BPF. Sequence numbers are in the numbers of whoever sent
/// what they count, unless it says otherwise.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C, align(64))]
pub struct Flow {
    /// A [`State`].
    pub state: u64,
    /// The source address that T sees: ours.
    pub source: [u32; 4],
    /// Address of T.
    pub destination: [u32; 4],
    /// The source port that T sees, the port of T: as they lie in a packet.
    pub ports: u32,
    /// Index of the device that T is reached through.
    pub device: u32,
    /// Added to sequence numbers.
    pub seq_add: u32,
    /// Added to acknowledgement numbers.
    pub ack_add: u32,
    /// Added to TSval (RFC 7323).
    pub value_add: u32,
    /// Added to TSecr.
    pub echo_add: u32,
    /// Window scale of S: what its window field is shifted left by.
    pub scale: u8,
    /// Window scale that T believes in: what it shifts left by.
    pub told_scale: u8,
    /// 1: addresses are IPv6.
    pub v6: u8,
    /// 1: T is on this host.
    pub local: u8,
    /// [`FLAG_RESET`] and other bits. Written by BPF.
    pub flags: u32,

    /// Behind the last byte of S, its FIN included; with [`KNOWN`].
    pub sent: u64,
    /// What S has acknowledged, in T's numbers; with [`KNOWN`].
    pub acked: u64,
    /// Up to where S lets T send, in T's numbers.
    pub edge: u64,
    /// The last TSval of S; with [`KNOWN`].
    pub value: u64,
    /// Behind the FIN of S; with [`KNOWN`] once it was sent.
    pub fin: u64,
    /// While packets are noted: a [`Pair`] of both directions, in the record of the client's.
    pub pair: u64,
    /// Behind a frame header that has not come: index of the shelf on which copies of what was sent
    /// on meanwhile lie (`wsproxy-ebpf/src/behind.rs`); with [`KNOWN`] while there are some. With
    /// [`BUSY`].
    pub behind: u64,
}

const _: () = assert!(size_of::<Flow>() == 128 && align_of::<Flow>() == 64);

/// How far both sides of a session have come as the program has seen it, and whether their packets
/// are translated: one word, so that the decision is one step for both directions. Sequence numbers
/// stand in it without their two upper bits; windows are smaller than that.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Pair(pub u64);

impl Pair {
    const BITS: u32 = 30;
    const MASK: u64 = (1 << Self::BITS) - 1;
    const TRANSLATED: u64 = 1 << 63;

    /// Whether packets are translated from now on.
    #[must_use]
    #[inline(always)]
    pub const fn is_translated(self) -> bool {
        self.0 & Self::TRANSLATED != 0
    }

    /// The same, but packets are translated.
    #[must_use]
    #[inline(always)]
    pub const fn translated(self) -> Self {
        Self(self.0 | Self::TRANSLATED)
    }

    /// Whether something was heard of a side: 0 is the client, 1 the upstream.
    #[must_use]
    #[inline(always)]
    pub const fn has_heard(self, side: u32) -> bool {
        self.0 & 1 << (60 + (side & 1)) != 0
    }

    /// Whether a side has come exactly so far.
    #[must_use]
    #[inline(always)]
    pub const fn is_at(self, side: u32, seq: u32) -> bool {
        let at = self.0 >> (Self::BITS * (side & 1)) & Self::MASK;
        self.has_heard(side) && at == seq as u64 & Self::MASK
    }

    /// A side has come so far; `None`: it had already.
    #[must_use]
    #[inline(always)]
    pub const fn moved(self, side: u32, seq: u32) -> Option<Self> {
        let shift = Self::BITS * (side & 1);
        let ahead = (seq as u64).wrapping_sub(self.0 >> shift) & Self::MASK;
        if self.has_heard(side) && (ahead == 0 || ahead > Self::MASK / 2) {
            return None;
        }
        let others = self.0 & !(Self::MASK << shift);
        let heard = 1 << (60 + (side & 1));
        Some(Self(others | heard | (seq as u64 & Self::MASK) << shift))
    }
}
