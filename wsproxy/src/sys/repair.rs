//! Repair mode of TCP sockets (`do_tcp_setsockopt`, `do_tcp_getsockopt` in `net/ipv4/tcp.c`): the
//! state of a connection is read and written, and connections begin and end without a packet.
//! Needs `CAP_NET_ADMIN` in the user namespace of the socket's network (`tcp_can_repair_sock`).

use std::{
    io,
    os::fd::{AsRawFd, BorrowedFd},
};

use super::set_int;

/// How a socket enters and leaves repair mode (`TCP_REPAIR`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Repair {
    /// On. The socket may be bound to an address in use (`SK_FORCE_REUSE`); `close` and
    /// `connect(AF_UNSPEC)` send nothing. What it was asked by `SO_REUSEADDR` is forgotten.
    On,
    /// Off, with a segment that makes the peer say its window (`tcp_send_window_probe`).
    OffWithProbe,
    /// Off, and nothing is sent.
    OffInSilence,
}

/// Which of a socket's two queues (`TCP_REPAIR_QUEUE`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Queue {
    /// `TCP_RECV_QUEUE`: its sequence number is `rcv_nxt`.
    Receive = 1,
    /// `TCP_SEND_QUEUE`: its sequence number is `write_seq`.
    Send = 2,
}

/// `struct tcp_repair_window` (`include/uapi/linux/tcp.h`): windows in bytes, already scaled.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct RepairWindow {
    /// Sequence number of the segment that said the peer's window last.
    pub snd_wl1: u32,
    /// The peer's window, from the last acknowledged byte on.
    pub snd_wnd: u32,
    /// The largest window that the peer ever said.
    pub max_window: u32,
    /// Our window, from `rcv_wup` on.
    pub rcv_wnd: u32,
    /// What we had received when we said our window last.
    pub rcv_wup: u32,
}

/// What both sides agreed on in the handshake (`TCP_REPAIR_OPTIONS`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Agreed {
    /// The largest segment that the peer accepts (`mss_clamp`), in bytes without options.
    pub mss: u16,
    /// Timestamps (RFC 7323 section 3).
    pub timestamps: bool,
    /// Selective acknowledgements (RFC 2018).
    pub sack: bool,
    /// Shifts of the windows (RFC 7323 section 2): the peer's, ours; 14 at most.
    pub window_scale: Option<(u8, u8)>,
}

const TCP_REPAIR_WINDOW: libc::c_int = 29;
const SO_BINDTOIFINDEX: libc::c_int = 62;

/// Turns repair mode on or off.
///
/// # Errors
/// `EPERM` without the privilege, or on a socket that listens.
pub fn repair(socket: BorrowedFd<'_>, how: Repair) -> io::Result<()> {
    let value = match how {
        Repair::On => 1,
        Repair::OffWithProbe => 0,
        Repair::OffInSilence => -1,
    };
    set_int(socket, libc::IPPROTO_TCP, libc::TCP_REPAIR, value)
}

/// The sequence number at the end of a queue.
///
/// # Errors
/// `EPERM` outside of repair mode.
pub fn queue_seq(socket: BorrowedFd<'_>, queue: Queue) -> io::Result<u32> {
    set_int(socket, libc::IPPROTO_TCP, libc::TCP_REPAIR_QUEUE, queue as libc::c_int)?;
    Ok(get::<1>(socket, libc::IPPROTO_TCP, libc::TCP_QUEUE_SEQ)?[0])
}

/// Sets the sequence number of a queue.
///
/// # Errors
/// `EPERM` outside of repair mode, or while the socket is connected.
pub fn set_queue_seq(socket: BorrowedFd<'_>, queue: Queue, seq: u32) -> io::Result<()> {
    set_int(socket, libc::IPPROTO_TCP, libc::TCP_REPAIR_QUEUE, queue as libc::c_int)?;
    set_int(socket, libc::IPPROTO_TCP, libc::TCP_QUEUE_SEQ, seq.cast_signed())
}

/// `TCP_TIMESTAMP`: our clock towards this peer. The lowest bit is no time: it says whether the
/// clock counts us (`tcp_usec_ts`) or, as it nearly always does, ms.
///
/// # Errors
/// What `getsockopt(2)` says.
pub fn timestamp(socket: BorrowedFd<'_>) -> io::Result<u32> {
    Ok(get::<1>(socket, libc::IPPROTO_TCP, libc::TCP_TIMESTAMP)?[0])
}

/// Sets our clock towards this peer; the lowest bit as for [`timestamp`].
///
/// # Errors
/// `EPERM` outside of repair mode.
pub fn set_timestamp(socket: BorrowedFd<'_>, value: u32) -> io::Result<()> {
    set_int(socket, libc::IPPROTO_TCP, libc::TCP_TIMESTAMP, value.cast_signed())
}

/// `TCP_MAXSEG` in repair mode: the largest segment that the peer accepts (`mss_clamp`).
///
/// # Errors
/// What `getsockopt(2)` says.
pub fn peer_mss(socket: BorrowedFd<'_>) -> io::Result<u16> {
    let mss = get::<1>(socket, libc::IPPROTO_TCP, libc::TCP_MAXSEG)?[0];
    Ok(u16::try_from(mss).unwrap_or(u16::MAX))
}

/// `TCP_MAXSEG` before `connect`: no segment of ours is larger. In repair mode it is the only way to
/// segments that are as large as the peer accepts: `tcp_connect_init` reckons with 536 bytes for
/// want of a handshake, and what [`set_agreed`] says later is heeded only when the path's MTU
/// changes (`tcp_current_mss`). The kernel takes 88 to 32767 (`TCP_MIN_MSS`, `MAX_TCP_WINDOW`);
/// `mss` is brought between them.
///
/// # Errors
/// What `setsockopt(2)` says.
pub fn limit_mss(socket: BorrowedFd<'_>, mss: u16) -> io::Result<()> {
    let mss = libc::c_int::from(mss).clamp(88, 32_767);
    set_int(socket, libc::IPPROTO_TCP, libc::TCP_MAXSEG, mss)
}

/// Takes back what [`limit_mss`] said, for what the peer has not answered yet.
///
/// # Errors
/// What `setsockopt(2)` says.
pub fn lift_mss_limit(socket: BorrowedFd<'_>) -> io::Result<()> {
    set_int(socket, libc::IPPROTO_TCP, libc::TCP_MAXSEG, 0)
}

/// The windows of both sides.
///
/// # Errors
/// `EPERM` outside of repair mode; `ENOPROTOOPT` from a kernel before 4.8.
pub fn repair_window(socket: BorrowedFd<'_>) -> io::Result<RepairWindow> {
    let [snd_wl1, snd_wnd, max_window, rcv_wnd, rcv_wup] =
        get(socket, libc::IPPROTO_TCP, TCP_REPAIR_WINDOW)?;
    Ok(RepairWindow { snd_wl1, snd_wnd, max_window, rcv_wnd, rcv_wup })
}

/// Sets the windows of both sides.
///
/// # Errors
/// `EPERM` outside of repair mode; `EINVAL` for windows that contradict each other or the
/// sequence numbers (`tcp_repair_set_window`).
pub fn set_repair_window(socket: BorrowedFd<'_>, window: &RepairWindow) -> io::Result<()> {
    let RepairWindow { snd_wl1, snd_wnd, max_window, rcv_wnd, rcv_wup } = *window;
    let words = [snd_wl1, snd_wnd, max_window, rcv_wnd, rcv_wup];
    set(socket, libc::IPPROTO_TCP, TCP_REPAIR_WINDOW, &words)
}

/// Sets what was agreed on in the handshake.
///
/// # Errors
/// `EPERM` outside of repair mode, on a socket that isn't connected or has sent something;
/// `EFBIG` for a shift over 14.
pub fn set_agreed(socket: BorrowedFd<'_>, agreed: &Agreed) -> io::Result<()> {
    /// Codes of the options in a segment, `TCPOPT_*` of `include/net/tcp.h`.
    const MSS: u32 = 2;
    const WINDOW: u32 = 3;
    const SACK_PERM: u32 = 4;
    const TIMESTAMP: u32 = 8;
    // Pairs of code and value: an array of `struct tcp_repair_opt`.
    let mut words = [0; 8];
    let mut used = 0;
    let mut add = |code, value| {
        words[used..used + 2].copy_from_slice(&[code, value]);
        used += 2;
    };
    add(MSS, u32::from(agreed.mss));
    if let Some((peers, ours)) = agreed.window_scale {
        add(WINDOW, u32::from(peers) | u32::from(ours) << 16);
    }
    if agreed.sack {
        add(SACK_PERM, 0);
    }
    if agreed.timestamps {
        add(TIMESTAMP, 0);
    }
    set(socket, libc::IPPROTO_TCP, libc::TCP_REPAIR_OPTIONS, &words[..used])
}

/// `SO_BINDTOIFINDEX`: the socket uses this network device alone.
///
/// # Errors
/// `ENODEV` where there is no such device.
pub fn bind_to_device(socket: BorrowedFd<'_>, index: u32) -> io::Result<()> {
    set_int(socket, libc::SOL_SOCKET, SO_BINDTOIFINDEX, index.cast_signed())
}

/// Bytes of kernel memory that hold what was received and not read (`SO_MEMINFO`): in order, out
/// of order, or in the backlog of a socket in use.
///
/// # Errors
/// What `getsockopt(2)` says.
pub fn receive_memory(socket: BorrowedFd<'_>) -> io::Result<u32> {
    const RMEM_ALLOC: usize = 0;
    const BACKLOG: usize = 7;
    let words = get::<9>(socket, libc::SOL_SOCKET, libc::SO_MEMINFO)?;
    Ok(words[RMEM_ALLOC].saturating_add(words[BACKLOG]))
}

/// An option of `N` words.
fn get<const N: usize>(
    socket: BorrowedFd<'_>,
    level: libc::c_int,
    option: libc::c_int,
) -> io::Result<[u32; N]> {
    let mut words = [0_u32; N];
    let mut length = size_of_val(&words) as libc::socklen_t;
    // SAFETY: the kernel writes at most `length` bytes to `words`.
    let result = unsafe {
        libc::getsockopt(
            socket.as_raw_fd(),
            level,
            option,
            words.as_mut_ptr().cast(),
            &raw mut length,
        )
    };
    if result == 0 { Ok(words) } else { Err(io::Error::last_os_error()) }
}

fn set(
    socket: BorrowedFd<'_>,
    level: libc::c_int,
    option: libc::c_int,
    words: &[u32],
) -> io::Result<()> {
    let length = size_of_val(words) as libc::socklen_t;
    // SAFETY: the value is `length` bytes of integers that outlive the call.
    let result = unsafe {
        libc::setsockopt(socket.as_raw_fd(), level, option, words.as_ptr().cast(), length)
    };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}
