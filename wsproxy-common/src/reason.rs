//! Every way a packet can leave the verdict program, each with a counter.

/// Why the verdict program did what it did with an skb; index into the
/// per-CPU array of counters.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub enum Reason {
    /// Redirected to the target.
    Redirected = 0,
    /// Dropped: an skb without bytes (a bare FIN). The only exit that drops.
    Empty = 1,
    /// Passed: user space owns the direction.
    RelayOwns = 2,
    /// Passed: user space offered the direction, but something was diverted since.
    ResumeLost = 3,
    /// Passed: user space took the direction while this skb was being looked at.
    TakenMeanwhile = 4,
    /// Passed and taken from the kernel: the target is not in the map.
    TargetGone = 5,
    /// Passed and taken from the kernel: the target's send buffer has no room (back-pressure).
    NoRoom = 6,
    /// Passed: no direction is known for this socket.
    Unknown = 7,
    /// Not an exit: the kernel took over an offered direction.
    Resumed = 8,
    /// Not an exit: an skb with page fragments was made linear before its redirect.
    Linearised = 9,
    /// Not an exit: an skb could not be made linear and was redirected in pieces.
    LineariseFailed = 10,
    /// Not an exit: the ring buffer was full; user space finds the direction by its sweep.
    NotifyLost = 11,
    /// Not an exit: the front of an skb had come before (a retransmission merged with new
    /// data) and was cut off.
    Trimmed = 12,
    /// Passed and taken from the kernel: the front could not be cut off; user space ends the
    /// session in a reset.
    TrimFailed = 13,
    /// Passed and taken from the kernel: a Pong that user space waits for may be in it.
    Pong = 14,
    /// Passed and taken from the kernel: a frame breaks a rule that is enforced, or a limit.
    Forbidden = 15,
    /// Passed and taken from the kernel: more frames than [`crate::layout::FRAMES_MAX`].
    ManyFrames = 16,
    /// Passed and taken from the kernel: a frame's header could not be read.
    HeaderUnread = 17,
    /// Packet path: translated and sent on.
    Translated = 18,
    /// Packet path, dropped: the session is changing its path. TCP sends it again.
    Held = 19,
    /// Packet path, dropped: new data, while what was sent before comes to its end.
    Settled = 20,
    /// Packet path, dropped: it could not be translated.
    Untranslated = 21,
    /// Packet path, not an exit: one side has sent its FIN.
    Finished = 22,
    /// Packet path, not an exit: a reset, or the acknowledgement of a FIN.
    Over = 23,
    /// Packet path, dropped: a packet that only user space can judge; the session comes back.
    ForUserSpace = 24,
    /// Packet path: an ICMP error about a packet that was translated; translated and sent on.
    ErrorTranslated = 25,
    /// Packet path, dropped: an ICMP error about a packet of a session that is not under way.
    ErrorAstray = 26,
    /// Packet path, not an exit: a copy was kept of a packet that went on behind a frame header
    /// that has not come.
    Kept = 27,
    /// Packet path, dropped: the same, where no copy could be kept; or another CPU was too long at a
    /// packet of the same direction. TCP sends it again.
    NotKept = 28,
}

impl Reason {
    /// How many there are; the length of the counter array.
    pub const COUNT: u32 = 29;

    /// All of them, in the order of their numbers.
    pub const ALL: [Self; Self::COUNT as usize] = [
        Self::Redirected,
        Self::Empty,
        Self::RelayOwns,
        Self::ResumeLost,
        Self::TakenMeanwhile,
        Self::TargetGone,
        Self::NoRoom,
        Self::Unknown,
        Self::Resumed,
        Self::Linearised,
        Self::LineariseFailed,
        Self::NotifyLost,
        Self::Trimmed,
        Self::TrimFailed,
        Self::Pong,
        Self::Forbidden,
        Self::ManyFrames,
        Self::HeaderUnread,
        Self::Translated,
        Self::Held,
        Self::Settled,
        Self::Untranslated,
        Self::Finished,
        Self::Over,
        Self::ForUserSpace,
        Self::ErrorTranslated,
        Self::ErrorAstray,
        Self::Kept,
        Self::NotKept,
    ];

    /// The label under which metrics and logs name it.
    #[must_use]
    pub const fn label(self) -> &'static str {
        match self {
            Self::Redirected => "redirected",
            Self::Empty => "empty",
            Self::RelayOwns => "relay_owns",
            Self::ResumeLost => "resume_lost",
            Self::TakenMeanwhile => "taken_meanwhile",
            Self::TargetGone => "target_gone",
            Self::NoRoom => "no_room",
            Self::Unknown => "unknown_socket",
            Self::Resumed => "resumed",
            Self::Linearised => "linearised",
            Self::LineariseFailed => "linearise_failed",
            Self::NotifyLost => "notify_lost",
            Self::Trimmed => "trimmed",
            Self::TrimFailed => "trim_failed",
            Self::Pong => "pong",
            Self::Forbidden => "forbidden_frame",
            Self::ManyFrames => "many_frames",
            Self::HeaderUnread => "header_unread",
            Self::Translated => "translated",
            Self::Held => "held",
            Self::Settled => "settled",
            Self::Untranslated => "untranslated",
            Self::Finished => "finished",
            Self::Over => "over",
            Self::ForUserSpace => "for_user_space",
            Self::ErrorTranslated => "icmp_translated",
            Self::ErrorAstray => "icmp_astray",
            Self::Kept => "kept",
            Self::NotKept => "not_kept",
        }
    }

    /// Whether it takes the direction from the kernel and gives it to user space.
    #[must_use]
    pub const fn is_diversion(self) -> bool {
        matches!(
            self,
            Self::ResumeLost
                | Self::TargetGone
                | Self::NoRoom
                | Self::TrimFailed
                | Self::Pong
                | Self::Forbidden
                | Self::ManyFrames
                | Self::HeaderUnread
        )
    }

    /// The reason with this number.
    #[must_use]
    pub fn from_number(number: u32) -> Option<Self> {
        Self::ALL.get(number as usize).copied()
    }
}
