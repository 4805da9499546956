//! The only module of user space that holds `unsafe`: memory shared with BPF,
//! and the few system calls that no safe wrapper offers. Everything exported
//! here is safe to call with any arguments.
#![allow(unsafe_code)]

pub mod flow;
pub mod repair;
mod seccomp;
pub mod signals;
mod tcp_info;

use std::{
    io,
    os::fd::{AsFd, AsRawFd, BorrowedFd},
    ptr::NonNull,
    sync::atomic::{AtomicU64, Ordering},
};

pub use self::{
    seccomp::{can_filter_system_calls, filter_system_calls, landlock_version},
    tcp_info::{
        Facts, TcpView, facts, tcp_bytes_acked, tcp_is_established, tcp_segments_in, tcp_view,
    },
};
use wsproxy_common::{
    Direction,
    cursor::{FrameCursor, Rules},
};

/// [`Direction`] as user space sees it: the same words, accessed atomically,
/// because BPF programs on other CPUs change them at any time.
#[derive(Debug)]
#[repr(C, align(64))]
#[allow(missing_docs, reason = "documented at wsproxy_common::Direction")]
pub struct SharedDirection {
    pub handed: AtomicU64,
    pub owner: AtomicU64,
    pub diverted: AtomicU64,
    pub kernel_bytes: AtomicU64,
    pub kernel_skbs: AtomicU64,
    pub last_activity_ns: AtomicU64,
    pub expected_seq: AtomicU64,
    pub broken: AtomicU64,
    pub relayed: AtomicU64,
    pub relay_bytes: AtomicU64,
    pub generation: AtomicU64,
    pub follow: AtomicU64,
    rules: [AtomicU64; RULES_WORDS],
    pub packet_bytes: AtomicU64,
    cursor: [AtomicU64; CURSOR_WORDS],
    pub behind: AtomicU64,
}

const RULES_WORDS: usize = size_of::<Rules>() / 8;
const CURSOR_WORDS: usize = size_of::<FrameCursor>() / 8;

impl SharedDirection {
    /// The frame cursor. Whole only for the owner of the direction; the counters of others are
    /// those of some moment, one by one.
    #[must_use]
    pub fn cursor(&self) -> FrameCursor {
        let words = self.cursor.each_ref().map(|word| word.load(Ordering::Relaxed));
        // SAFETY: `FrameCursor` is `repr(C)`, has this size, no padding, and every bit pattern is
        // a value of it.
        unsafe { std::mem::transmute::<[u64; CURSOR_WORDS], FrameCursor>(words) }
    }

    /// Sets the frame cursor: for the owner of the direction.
    pub fn set_cursor(&self, cursor: &FrameCursor) {
        // SAFETY: as above: no padding, so every byte is initialised.
        let words = unsafe { std::mem::transmute::<FrameCursor, [u64; CURSOR_WORDS]>(*cursor) };
        for (word, value) in self.cursor.iter().zip(words) {
            word.store(value, Ordering::Relaxed);
        }
    }

    /// What the frames may look like.
    #[must_use]
    pub fn rules(&self) -> Rules {
        let words = self.rules.each_ref().map(|word| word.load(Ordering::Relaxed));
        // SAFETY: as for the cursor.
        unsafe { std::mem::transmute::<[u64; RULES_WORDS], Rules>(words) }
    }

    /// Sets what the frames may look like: before the direction enters the kernel.
    pub fn set_rules(&self, rules: &Rules) {
        // SAFETY: as for the cursor.
        let words = unsafe { std::mem::transmute::<Rules, [u64; RULES_WORDS]>(*rules) };
        for (word, value) in self.rules.iter().zip(words) {
            word.store(value, Ordering::Relaxed);
        }
    }
}

const _: () = {
    use std::mem::offset_of;
    assert!(size_of::<SharedDirection>() == size_of::<Direction>());
    assert!(offset_of!(SharedDirection, handed) == offset_of!(Direction, handed));
    assert!(offset_of!(SharedDirection, owner) == offset_of!(Direction, owner));
    assert!(offset_of!(SharedDirection, diverted) == offset_of!(Direction, diverted));
    assert!(offset_of!(SharedDirection, kernel_bytes) == offset_of!(Direction, kernel_bytes));
    assert!(offset_of!(SharedDirection, kernel_skbs) == offset_of!(Direction, kernel_skbs));
    assert!(
        offset_of!(SharedDirection, last_activity_ns) == offset_of!(Direction, last_activity_ns)
    );
    assert!(offset_of!(SharedDirection, expected_seq) == offset_of!(Direction, expected_seq));
    assert!(offset_of!(SharedDirection, broken) == offset_of!(Direction, broken));
    assert!(offset_of!(SharedDirection, relayed) == offset_of!(Direction, relayed));
    assert!(offset_of!(SharedDirection, relay_bytes) == offset_of!(Direction, relay_bytes));
    assert!(offset_of!(SharedDirection, generation) == offset_of!(Direction, generation));
    assert!(offset_of!(SharedDirection, follow) == offset_of!(Direction, follow));
    assert!(offset_of!(SharedDirection, rules) == offset_of!(Direction, rules));
    assert!(offset_of!(SharedDirection, packet_bytes) == offset_of!(Direction, packet_bytes));
    assert!(offset_of!(SharedDirection, cursor) == offset_of!(Direction, cursor));
    assert!(offset_of!(SharedDirection, behind) == offset_of!(Direction, behind));
};

/// A type whose values may lie in memory that is shared with BPF programs: atomics only, all-zero
/// memory is a value.
trait Shared {}
impl Shared for SharedDirection {}
impl Shared for flow::SharedFlow {}

/// An array of records: a mapping of a BPF map, or private memory where there is no BPF. All zero
/// at the start.
#[derive(Debug)]
pub struct Table<T> {
    start: NonNull<T>,
    records: usize,
}

/// The records of all directions.
pub type DirectionTable = Table<SharedDirection>;
/// What is done with packets of each direction.
pub type FlowTable = Table<flow::SharedFlow>;

// SAFETY: the mapping is owned, lives as long as the value, and is only ever
// read and written through atomics.
unsafe impl<T: Sync> Send for Table<T> {}
// SAFETY: as above.
unsafe impl<T: Sync> Sync for Table<T> {}

#[allow(private_bounds, reason = "what may be mapped is for this module to say")]
impl<T: Shared> Table<T> {
    /// Maps `records` records; `map` is the mmapable ARRAY of the BPF object that has as many, or
    /// `None` for private memory.
    ///
    /// # Errors
    /// What `mmap(2)` says.
    pub fn map(map: Option<BorrowedFd<'_>>, records: usize) -> io::Result<Self> {
        use rustix::mm::{MapFlags, ProtFlags, mmap, mmap_anonymous};
        let bytes = Self::bytes(records);
        let prot = ProtFlags::READ | ProtFlags::WRITE;
        // SAFETY: a fresh mapping at an address the kernel chooses; the kernel refuses a
        // length over the map's.
        let start = unsafe {
            match map {
                Some(fd) => mmap(std::ptr::null_mut(), bytes, prot, MapFlags::SHARED, fd, 0)?,
                None => mmap_anonymous(std::ptr::null_mut(), bytes, prot, MapFlags::PRIVATE)?,
            }
        };
        let start = NonNull::new(start.cast()).ok_or(io::ErrorKind::OutOfMemory)?;
        Ok(Self { start, records })
    }
}

impl<T> Table<T> {
    fn bytes(records: usize) -> usize {
        (records * size_of::<T>()).max(1)
    }

    /// All records, by index of direction.
    #[must_use]
    pub fn records(&self) -> &[T] {
        // SAFETY: the mapping holds this many records, is page aligned, zeroed, valid for
        // every bit pattern (`Shared`), and lives as long as `self`.
        unsafe { std::slice::from_raw_parts(self.start.as_ptr(), self.records) }
    }
}

impl<T> Drop for Table<T> {
    fn drop(&mut self) {
        // SAFETY: mapped by `map` with this length; no reference outlives `self`.
        let unmapped =
            unsafe { rustix::mm::munmap(self.start.as_ptr().cast(), Self::bytes(self.records)) };
        debug_assert!(unmapped.is_ok());
    }
}

/// `SIOCOUTQ`: bytes in the send queue that are not acknowledged yet.
///
/// # Errors
/// What `ioctl(2)` says.
pub fn tcp_unacknowledged(socket: BorrowedFd<'_>) -> io::Result<u32> {
    let mut bytes: libc::c_int = 0;
    // SAFETY: TIOCOUTQ (= SIOCOUTQ) writes one int.
    let result = unsafe { libc::ioctl(socket.as_raw_fd(), libc::TIOCOUTQ, &raw mut bytes) };
    if result != 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(u32::try_from(bytes).unwrap_or(0))
}

/// What the socket's send buffer still takes, in bytes of kernel memory (`SO_MEMINFO`, which
/// fills the array of linux/sock_diag.h): payload takes some more than its length.
///
/// # Errors
/// What `getsockopt(2)` says.
pub fn send_room(socket: BorrowedFd<'_>) -> io::Result<usize> {
    const SNDBUF: usize = 3;
    const WMEM_QUEUED: usize = 5;
    let mut words = [0_u32; 9];
    let mut length = size_of_val(&words) as libc::socklen_t;
    // SAFETY: the kernel writes at most `length` bytes to `words`.
    let result = unsafe {
        libc::getsockopt(
            socket.as_raw_fd(),
            libc::SOL_SOCKET,
            libc::SO_MEMINFO,
            words.as_mut_ptr().cast(),
            &raw mut length,
        )
    };
    if result != 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(words[SNDBUF].saturating_sub(words[WMEM_QUEUED]) as usize)
}

/// `setsockopt(SO_RCVLOWAT, 1)`: makes the kernel run the verdict program over
/// what is already in the receive queue (`tcp_set_rcvlowat` calls
/// `tcp_data_ready`).
///
/// # Errors
/// What `setsockopt(2)` says.
pub fn kick_receive_queue(socket: BorrowedFd<'_>) -> io::Result<()> {
    set_int(socket, libc::SOL_SOCKET, libc::SO_RCVLOWAT, 1)
}

/// `setsockopt(TCP_LINGER2, -1)`: once this socket is closed and its FIN is
/// acknowledged, its peer gets a reset, instead of `tcp_fin_timeout` seconds
/// of silence (`tcp_rcv_state_process`, `__tcp_close`).
///
/// # Errors
/// What `setsockopt(2)` says.
pub fn reset_behind_fin(socket: BorrowedFd<'_>) -> io::Result<()> {
    set_int(socket, libc::IPPROTO_TCP, libc::TCP_LINGER2, -1)
}

/// `ioctl(SIOCOUTQ)`: bytes that the peer has not acknowledged, its FIN among them (tcp(7)); of a
/// Unix socket those that it has not read.
///
/// # Errors
/// What `ioctl(2)` says.
pub fn unacknowledged(socket: BorrowedFd<'_>) -> io::Result<u32> {
    let mut bytes: libc::c_int = 0;
    // SAFETY: the request writes one int, which outlives the call.
    let result = unsafe { libc::ioctl(socket.as_raw_fd(), libc::TIOCOUTQ, &raw mut bytes) };
    if result < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(u32::try_from(bytes).unwrap_or(0))
}

/// `setsockopt(IP_BIND_ADDRESS_NO_PORT, 1)`, for IPv6 too: `bind` to port 0 takes the address
/// alone, and `connect` a port that is free towards that peer (ip(7)).
///
/// # Errors
/// What `setsockopt(2)` says.
pub fn bind_without_port(socket: BorrowedFd<'_>) -> io::Result<()> {
    set_int(socket, libc::IPPROTO_IP, libc::IP_BIND_ADDRESS_NO_PORT, 1)
}

fn set_int(
    socket: BorrowedFd<'_>,
    level: libc::c_int,
    option: libc::c_int,
    value: libc::c_int,
) -> io::Result<()> {
    // SAFETY: the option value is one int that outlives the call.
    let result = unsafe {
        libc::setsockopt(
            socket.as_raw_fd(),
            level,
            option,
            (&raw const value).cast(),
            size_of::<libc::c_int>() as libc::socklen_t,
        )
    };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// Waits until every BPF program that runs now has finished:
/// `membarrier(MEMBARRIER_CMD_GLOBAL)` is `synchronize_rcu()`
/// (`kernel/sched/membarrier.c`), and programs run inside RCU read sections.
/// Takes tens of milliseconds.
///
/// # Errors
/// `EINVAL` on kernels with full dynticks, where the call does not exist.
pub fn wait_for_running_programs() -> io::Result<()> {
    const MEMBARRIER_CMD_GLOBAL: libc::c_int = 1;
    // SAFETY: the call takes no pointers.
    let result = unsafe { libc::syscall(libc::SYS_membarrier, MEMBARRIER_CMD_GLOBAL, 0, 0) };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// Gives memory that was used and freed back to the system, where the C
/// library can: reading the kernel's types takes tens of MB for a moment.
pub fn release_free_memory() {
    #[cfg(target_env = "gnu")]
    // SAFETY: touches only memory that the allocator knows to be free.
    unsafe {
        libc::malloc_trim(0);
    }
}

/// The cookie of a socket, as `bpf_get_socket_cookie` gives it.
///
/// # Errors
/// What `getsockopt(2)` says.
pub fn socket_cookie(socket: impl AsFd) -> io::Result<u64> {
    Ok(rustix::net::sockopt::socket_cookie(socket)?)
}

// SAFETY: integers only, no padding (all u32), every bit pattern is valid.
unsafe impl aya::Pod for Offsets {}

/// `wsproxy_common::layout::SocketOffsets`, in a type of this crate, as aya
/// wants it for writing into the object's `.rodata`.
#[derive(Clone, Copy, Debug)]
#[repr(transparent)]
pub struct Offsets(pub wsproxy_common::layout::SocketOffsets);
