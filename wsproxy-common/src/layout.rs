//! Names and sizes on which the BPF object and its loader must agree.

/// Offsets, in bytes, of the kernel's fields that the verdict program reads
/// from the target socket. User space takes them from the running kernel's
/// BTF and writes them into the object's `.rodata` before it is loaded; the
/// verifier then sees constants.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct SocketOffsets {
    /// `tcp_sock.bytes_acked`, u64.
    pub bytes_acked: u32,
    /// `tcp_sock.write_seq`, u32.
    pub write_seq: u32,
    /// `tcp_sock.snd_una`, u32.
    pub snd_una: u32,
    /// `tcp_sock.copied_seq`, u32.
    pub copied_seq: u32,
    /// `sock.sk_sndbuf`, int.
    pub sk_sndbuf: u32,
    /// `sock.sk_wmem_queued`, int.
    pub sk_wmem_queued: u32,
}

/// Largest skb, in bytes, that the verdict program makes linear before it
/// redirects it. Linear data goes to T in one `sendmsg`; each page fragment
/// of a non-linear skb would go in one of its own (`skb_send_sock`).
pub const LINEARISE_MAX: u32 = 32 * 1024;

/// Smallest skb, in bytes, that is worth making linear: below, it is one
/// fragment nearly always, and goes in one call as it is.
pub const LINEARISE_MIN: u32 = 4 * 1024;

/// Most frames (or pieces of their headers) that the verdict program follows in one skb: some
/// 100 us. A packet with more goes to user space.
pub const FRAMES_MAX: u32 = 1024;

/// Packets, or pieces of one, that are kept of a direction whose next frame header was lost.
pub const PIECES: usize = 64;

/// Most bytes of such a piece. A power of two that a full segment of Ethernet fits in.
pub const PIECE: usize = 2048;

/// Directions of which packets can be kept at a time, of all sessions: some 130 KB of the
/// kernel's memory each. A hole is mended within a round trip, nearly always.
pub const SHELVES: u32 = 64;

/// Name of the [`SocketOffsets`] global in the object's `.rodata`.
pub const SOCKET_OFFSETS: &str = "SOCKET_OFFSETS";

/// Name of the u32 in the object's `.rodata` that says whether loads may overtake each other here.
pub const WEAK_MEMORY: &str = "WEAK_MEMORY";

/// Name of the verdict program in the object.
pub const SPLICE_PROGRAM: &str = "wsproxy_splice";

/// Name of the program that translates packets.
pub const PACKET_PROGRAM: &str = "wsproxy_packet";

/// Map names in the object.
pub mod maps {
    /// SOCKMAP: index of a direction to its SOURCE socket.
    pub const SOCKETS: &str = "SOCKETS";
    /// Mmapable ARRAY of [`crate::Direction`].
    pub const DIRECTIONS: &str = "DIRECTIONS";
    /// HASH: socket cookie to index of the direction it is the source of.
    pub const BY_COOKIE: &str = "BY_COOKIE";
    /// Ring buffer of [`crate::Event`].
    pub const EVENTS: &str = "EVENTS";
    /// HASH: [`crate::packet::FlowKey`] to index of the direction.
    pub const KEYS: &str = "KEYS";
    /// Mmapable ARRAY of [`crate::packet::Flow`].
    pub const FLOWS: &str = "FLOWS";
    /// ARRAY of what is kept of packets behind a lost frame header.
    pub const SHELVES: &str = "SHELVES";
    /// Per-CPU ARRAY of counters, one a [`crate::Reason`].
    pub const REASONS: &str = "REASONS";
}
