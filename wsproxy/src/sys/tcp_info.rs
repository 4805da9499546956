//! What `TCP_INFO` says of a connection (`struct tcp_info`, `include/uapi/linux/tcp.h`).

use std::{
    io,
    os::fd::{AsRawFd, BorrowedFd},
};

/// Offsets in `struct tcp_info`.
mod at {
    pub(super) const STATE: usize = 0;
    pub(super) const OPTIONS: usize = 5;
    pub(super) const WSCALES: usize = 6;
    pub(super) const SND_MSS: usize = 16;
    pub(super) const RCV_MSS: usize = 20;
    pub(super) const UNACKED: usize = 24;
    pub(super) const PMTU: usize = 60;
    pub(super) const RTT: usize = 68;
    pub(super) const ADVMSS: usize = 84;
    pub(super) const TOTAL_RETRANS: usize = 100;
    pub(super) const BYTES_ACKED: usize = 120;
    pub(super) const SEGS_IN: usize = 140;
    pub(super) const NOTSENT_BYTES: usize = 144;
}

/// `tcpi_state` of an established connection (`include/net/tcp_states.h`).
const TCP_ESTABLISHED: u8 = 1;

/// The first `N` bytes of `TCP_INFO`.
struct Info<const N: usize>([u8; N]);

impl<const N: usize> Info<N> {
    fn of(socket: BorrowedFd<'_>) -> io::Result<Self> {
        let mut info = [0u8; N];
        let mut len = N as libc::socklen_t;
        // SAFETY: the buffer is writable for `len` bytes; the kernel writes at most that.
        let result = unsafe {
            libc::getsockopt(
                socket.as_raw_fd(),
                libc::IPPROTO_TCP,
                libc::TCP_INFO,
                info.as_mut_ptr().cast(),
                &raw mut len,
            )
        };
        if result != 0 {
            return Err(io::Error::last_os_error());
        }
        if (len as usize) < N {
            return Err(io::ErrorKind::Unsupported.into());
        }
        Ok(Self(info))
    }

    /// `M` bytes from `at` on; zeros behind what was asked for.
    fn bytes<const M: usize>(&self, at: usize) -> [u8; M] {
        std::array::from_fn(|nth| self.0.get(at + nth).copied().unwrap_or(0))
    }

    fn byte(&self, at: usize) -> u8 {
        u8::from_ne_bytes(self.bytes(at))
    }

    fn word(&self, at: usize) -> u32 {
        u32::from_ne_bytes(self.bytes(at))
    }

    fn long(&self, at: usize) -> u64 {
        u64::from_ne_bytes(self.bytes(at))
    }
}

/// `tcpi_bytes_acked`: bytes of ours that the peer has acknowledged.
///
/// # Errors
/// What `getsockopt(2)` says; `Unsupported` from a kernel before 4.1.
pub fn tcp_bytes_acked(socket: BorrowedFd<'_>) -> io::Result<u64> {
    Ok(Info::<{ at::BYTES_ACKED + 8 }>::of(socket)?.long(at::BYTES_ACKED))
}

/// `tcpi_segs_in`: segments that came in.
///
/// # Errors
/// What `getsockopt(2)` says; `Unsupported` from a kernel before 4.2.
pub fn tcp_segments_in(socket: BorrowedFd<'_>) -> io::Result<u32> {
    Ok(Info::<{ at::SEGS_IN + 4 }>::of(socket)?.word(at::SEGS_IN))
}

/// Whether the connection is in state ESTABLISHED (`tcpi_state`).
///
/// # Errors
/// What `getsockopt(2)` says.
pub fn tcp_is_established(socket: BorrowedFd<'_>) -> io::Result<bool> {
    Ok(Info::<{ at::STATE + 1 }>::of(socket)?.byte(at::STATE) == TCP_ESTABLISHED)
}

/// What TCP itself knows of a connection.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TcpView {
    /// Smoothed round trip, in us (`tcpi_rtt`).
    pub rtt_us: u32,
    /// Segments that were sent again since the connection began (`tcpi_total_retrans`).
    pub retransmissions: u32,
    /// Bytes that wait for their first sending (`tcpi_notsent_bytes`).
    pub unsent: u32,
}

/// TCP's own view of a connection.
///
/// # Errors
/// What `getsockopt(2)` says: the socket is no TCP socket; `Unsupported` from a kernel before 4.6.
pub fn tcp_view(socket: BorrowedFd<'_>) -> io::Result<TcpView> {
    let info = Info::<{ at::NOTSENT_BYTES + 4 }>::of(socket)?;
    Ok(TcpView {
        rtt_us: info.word(at::RTT),
        retransmissions: info.word(at::TOTAL_RETRANS),
        unsent: info.word(at::NOTSENT_BYTES),
    })
}

/// What a connection agreed on, and what it waits for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Facts {
    /// In state ESTABLISHED.
    pub established: bool,
    /// Timestamps were agreed on (RFC 7323 section 3).
    pub timestamps: bool,
    /// The timestamps count us: a route asked for it (`RTAX_FEATURE_TCP_USEC_TS`, Linux 6.7).
    pub microseconds: bool,
    /// Selective acknowledgements were agreed on (RFC 2018).
    pub sack: bool,
    /// ECN was agreed on, or marks were seen (RFC 3168).
    pub ecn: bool,
    /// Shifts of the windows (RFC 7323 section 2), if agreed on: the peer's, ours.
    pub window_scale: Option<(u8, u8)>,
    /// Bytes of payload in a segment that we send, as it is reckoned now.
    pub snd_mss: u32,
    /// Bytes of payload in the peer's segments, as guessed from those that came.
    pub rcv_mss: u32,
    /// What we told the peer that we accept.
    pub advmss: u32,
    /// The path's MTU.
    pub pmtu: u32,
    /// Bytes that wait for their first sending.
    pub unsent: u32,
    /// Segments that are sent and not acknowledged.
    pub unacknowledged: u32,
}

/// What a connection agreed on, out of one `TCP_INFO`.
///
/// # Errors
/// What `getsockopt(2)` says: the socket is no TCP socket; `Unsupported` from a kernel before 4.6.
pub fn facts(socket: BorrowedFd<'_>) -> io::Result<Facts> {
    /// Bits of `tcpi_options`: `TCPI_OPT_*`.
    const TIMESTAMPS: u8 = 1;
    const SACK: u8 = 2;
    const WSCALE: u8 = 4;
    const ECN_OR_SEEN: u8 = 8 | 16;
    const USEC_TS: u8 = 64;
    let info = Info::<{ at::NOTSENT_BYTES + 4 }>::of(socket)?;
    let has = |bits: u8| info.byte(at::OPTIONS) & bits != 0;
    let scales = info.byte(at::WSCALES);
    let (low, high) = (scales & 0xf, scales >> 4);
    // Two bit fields: the peer's comes first, wherever "first" is.
    let scales = if cfg!(target_endian = "little") { (low, high) } else { (high, low) };
    Ok(Facts {
        established: info.byte(at::STATE) == TCP_ESTABLISHED,
        timestamps: has(TIMESTAMPS),
        sack: has(SACK),
        window_scale: has(WSCALE).then_some(scales),
        ecn: has(ECN_OR_SEEN),
        microseconds: has(USEC_TS),
        snd_mss: info.word(at::SND_MSS),
        rcv_mss: info.word(at::RCV_MSS),
        unacknowledged: info.word(at::UNACKED),
        pmtu: info.word(at::PMTU),
        advmss: info.word(at::ADVMSS),
        unsent: info.word(at::NOTSENT_BYTES),
    })
}
