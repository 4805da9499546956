//! The BPF object in the kernel: loading it, putting pairs of sockets into its
//! maps and taking them out, its counters and notifications. The only module
//! that knows aya.

pub mod btf;
mod classical;
#[cfg(feature = "bpf-log")]
mod debug;
pub mod packet;
pub mod pins;
pub mod probe;
pub mod selftest;

use std::{
    borrow::Cow,
    io,
    os::fd::{AsFd, AsRawFd, BorrowedFd},
    path::Path,
    sync::{Mutex, PoisonError, atomic::Ordering},
};

use aya::{
    Ebpf, EbpfLoader,
    maps::{HashMap, Map, MapData, MapError, PerCpuArray, RingBuf, SockMap},
    programs::SkSkb,
};
use wsproxy_common::{
    Event, Owner, Reason,
    direction::{to_client, to_upstream},
    layout::{self, maps},
};

use crate::{
    privileges::{self, CapabilitySet},
    sys::{self, DirectionTable, SharedDirection},
};

/// The object that `cargo xtask build-ebpf` made.
static OBJECT: &[u8] = aya::include_bytes_aligned!("../../../ebpf-object/wsproxy.bpf.o");

/// Where the running kernel describes its types.
pub const BTF_PATH: &str = "/sys/kernel/btf/vmlinux";

/// What loading takes; found by trying each subset on 6.18, with `kernel.unprivileged_bpf_disabled`
/// at 2. Creating a SOCKMAP takes CAP_BPF and CAP_NET_ADMIN, reading a socket's fields in the
/// program takes CAP_PERFMON. What is loaded is used by its descriptors, which takes none of them
/// (Linux 5.19); attaching to another device takes CAP_NET_ADMIN.
pub const NEEDED: CapabilitySet =
    CapabilitySet::BPF.union(CapabilitySet::NET_ADMIN).union(CapabilitySet::PERFMON);

/// Which of them this thread lacks, as a part of a sentence.
fn lacking() -> String {
    match privileges::names(privileges::missing(NEEDED)) {
        // A container's own user namespace, a security module.
        none if none.is_empty() => " (all capabilities are here that it needs)".to_owned(),
        some => format!(" (needs root, or the capabilities that are missing: {})", some.join(", ")),
    }
}

/// Why the kernel path can't be set up.
#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    /// The kernel's type information can't be read.
    #[error("cannot read {BTF_PATH}: {0} (the kernel needs CONFIG_DEBUG_INFO_BTF)")]
    Btf(#[source] io::Error),
    /// The type information lacks what the program reads.
    #[error("{BTF_PATH}: {0}")]
    Offsets(#[from] btf::BtfError),
    /// The kernel refused a map or the program.
    #[error("the kernel refused the BPF object: {0}")]
    Refused(String),
    /// It refused, and a capability is missing, or it said EPERM.
    #[error("no permission to load BPF programs{0}")]
    Forbidden(String),
    /// A name in the object is not what the loader expects.
    #[error("the BPF object lacks `{0}`")]
    Missing(&'static str),
    /// What is attached can't outlive the process.
    #[error("attachments that outlive the process need Linux 6.6 (tcx): {0}")]
    NotKept(String),
    /// The records can't be mapped.
    #[error("cannot map the direction records: {0}")]
    Map(#[source] io::Error),
}

impl LoadError {
    /// Label for metrics.
    #[must_use]
    pub const fn label(&self) -> &'static str {
        match self {
            Self::Btf(_) | Self::Offsets(_) => "no_btf",
            Self::Refused(_) => "load_refused",
            Self::Forbidden(_) => "no_permission",
            Self::Missing(_) | Self::NotKept(_) | Self::Map(_) => "load_failed",
        }
    }

    /// aya's Display shows one level, and a verifier log may follow; the errno is in the sources.
    fn refused(error: &(dyn std::error::Error + 'static)) -> Self {
        let mut text = summary(&error.to_string());
        // A program that may not read what it reads is refused with EINVAL, as a bad one is.
        let mut forbidden = !privileges::missing(NEEDED).is_empty();
        let mut source = error.source();
        while let Some(inner) = source {
            if let Some(io) = inner.downcast_ref::<io::Error>() {
                // EACCES is the verifier's no, which has the same kind.
                forbidden |= io.raw_os_error() == Some(rustix::io::Errno::PERM.raw_os_error());
            }
            let line = first_line(inner);
            if !text.contains(&line) {
                text = format!("{text}: {line}");
            }
            source = inner.source();
        }
        if forbidden {
            Self::Forbidden(format!("{}: {text}", lacking()))
        } else {
            Self::Refused(text)
        }
    }
}

#[cfg(not(feature = "bpf-log"))]
fn object_bytes() -> Cow<'static, [u8]> {
    OBJECT.into()
}

#[cfg(feature = "bpf-log")]
fn object_bytes() -> Cow<'static, [u8]> {
    debug::object().unwrap_or(OBJECT.into())
}

fn first_line(error: &dyn std::error::Error) -> String {
    error.to_string().lines().next().unwrap_or_default().trim_end().to_owned()
}

/// The first line of a text, and of a verifier's log that it ends with the reason: that is the
/// last line but for the verifier's statistics.
fn summary(text: &str) -> String {
    const LOG: &str = "Verifier output:";
    let Some((error, log)) = text.split_once(LOG) else {
        return text.lines().next().unwrap_or_default().trim_end().to_owned();
    };
    const STATISTICS: [&str; 3] = ["verification time ", "stack depth ", "processed "];
    let is_reason =
        |line: &&str| !line.is_empty() && !STATISTICS.iter().any(|start| line.starts_with(start));
    let reason = log.lines().map(str::trim).rfind(is_reason).unwrap_or_default();
    format!("{} The verifier says: {reason}", error.trim())
}

struct SocketMaps {
    sockets: SockMap<MapData>,
    by_cookie: HashMap<MapData, u64, u32>,
}

/// The loaded object. Everything of it leaves the kernel when this is dropped.
pub struct Kernel {
    maps: Mutex<SocketMaps>,
    reasons: PerCpuArray<MapData, u64>,
    packets: Option<packet::Packets>,
    /// Keeps the programs, their attachments and the remaining maps alive.
    object: Mutex<Ebpf>,
}

/// What [`Kernel::load`] gives.
pub struct Loaded {
    /// The kernel side.
    pub kernel: Kernel,
    /// The records, shared with it.
    pub table: DirectionTable,
    /// Its notifications.
    pub events: Events,
}

/// The ring buffer of notifications, with one reader.
pub struct Events(RingBuf<MapData>);

impl Events {
    /// The next notification, if there is one; never waits.
    pub fn take(&mut self) -> Option<Event> {
        while let Some(item) = self.0.next() {
            if let Some(event) = Event::from_bytes(&item) {
                return Some(event);
            }
        }
        None
    }
}

impl AsFd for Events {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

/// Bytes of ring buffer that hold one event of every direction at the same
/// time: each direction can be given back once before user space reacts, and
/// an entry has a head of 8 bytes.
fn ring_bytes(directions: u32) -> u32 {
    const ENTRY: u32 = 8 + size_of::<Event>() as u32;
    const PAGE: u32 = 4096;
    (directions.saturating_mul(2).saturating_mul(ENTRY)).max(PAGE).next_power_of_two()
}

/// Of the machines that this is built for, x86_64 keeps loads in their order.
const WEAK_MEMORY: u32 = if cfg!(target_arch = "x86_64") { 0 } else { 1 };

impl Kernel {
    /// Loads the object for `slots` sessions and attaches the verdict program; with `packets` the
    /// packet path too. What `pins` hold of an earlier process is used again; with them,
    /// [`packet::Packets::release`] is what takes the packet path out of the kernel.
    ///
    /// # Errors
    /// See [`LoadError`].
    pub fn load(slots: u32, packets: bool, pins: Option<pins::Pins>) -> Result<Loaded, LoadError> {
        let types = std::fs::read(Path::new(BTF_PATH)).map_err(LoadError::Btf)?;
        let offsets = sys::Offsets(btf::socket_offsets(&types)?);
        drop(types);
        let directions = slots * 2;
        let mut loader = EbpfLoader::new();
        if let Some(pins) = &pins {
            for name in [maps::KEYS, maps::FLOWS, maps::DIRECTIONS] {
                loader.map_pin_path(name, pins.map(name));
            }
        }
        let mut object = loader
            .override_global(layout::SOCKET_OFFSETS, &offsets, true)
            .override_global(layout::WEAK_MEMORY, &WEAK_MEMORY, true)
            .map_max_entries(maps::SOCKETS, directions)
            .map_max_entries(maps::DIRECTIONS, directions)
            .map_max_entries(maps::BY_COOKIE, directions)
            .map_max_entries(maps::KEYS, if packets { directions } else { 1 })
            .map_max_entries(maps::FLOWS, if packets { directions } else { 1 })
            .map_max_entries(maps::SHELVES, if packets { layout::SHELVES } else { 1 })
            .map_max_entries(maps::EVENTS, ring_bytes(directions))
            .load(&object_bytes())
            .map_err(|e| LoadError::refused(&e))?;
        #[cfg(feature = "bpf-log")]
        debug::follow(&mut object);

        let sockets: SockMap<MapData> = take(&mut object, maps::SOCKETS)?;
        let by_cookie = take(&mut object, maps::BY_COOKIE)?;
        let reasons = take(&mut object, maps::REASONS)?;
        let events = Events(take(&mut object, maps::EVENTS)?);
        let records =
            object.take_map(maps::DIRECTIONS).ok_or(LoadError::Missing(maps::DIRECTIONS))?;
        let Map::Array(records) = &records else {
            return Err(LoadError::Missing(maps::DIRECTIONS));
        };
        let table = DirectionTable::map(Some(records.fd().as_fd()), directions as usize)
            .map_err(LoadError::Map)?;

        let program: &mut SkSkb = object
            .program_mut(layout::SPLICE_PROGRAM)
            .ok_or(LoadError::Missing(layout::SPLICE_PROGRAM))?
            .try_into()
            .map_err(|e: aya::programs::ProgramError| LoadError::refused(&e))?;
        program.load().map_err(|e| LoadError::refused(&e))?;
        program.attach(sockets.fd()).map_err(|e| LoadError::refused(&e))?;
        let maps = Mutex::new(SocketMaps { sockets, by_cookie });
        let packets = if packets {
            Some(packet::Packets::load(&mut object, directions, pins)?)
        } else {
            None
        };
        Ok(Loaded {
            kernel: Self { maps, reasons, packets, object: Mutex::new(object) },
            table,
            events,
        })
    }

    /// How many instructions the kernel's verifier followed until it took a program; `None`: the
    /// kernel doesn't say, or the program is not loaded. At a million it gives up.
    #[must_use]
    pub fn verified(&self, program: &str) -> Option<u32> {
        let object = self.object.lock().unwrap_or_else(PoisonError::into_inner);
        object.program(program)?.info().ok()?.verified_instruction_count()
    }

    /// The packet path, where it was asked for.
    #[must_use]
    pub fn packets(&self) -> Option<&packet::Packets> {
        self.packets.as_ref()
    }

    /// Puts the two sockets of a session into the maps, with user space as the
    /// owner of both directions, and has the kernel look at what they have
    /// received already. `early` are the bytes of each direction that user
    /// space holds: read before, not yet written.
    ///
    /// Nothing may have been read from or written to the sockets that is not
    /// either in `early` or in the target's TCP.
    pub fn attach(
        &self,
        slot: u32,
        records: [&SharedDirection; 2],
        sockets: [BorrowedFd<'_>; 2],
        early: [u64; 2],
    ) -> Attached {
        match self.prepare(records, sockets, early) {
            Ok(cookies) => self.insert(slot, cookies, sockets),
            Err(error) => Attached { inside: [false; 2], error: Some(error) },
        }
    }

    /// Sets the records up; gives the sockets' cookies.
    fn prepare(
        &self,
        records: [&SharedDirection; 2],
        sockets: [BorrowedFd<'_>; 2],
        early: [u64; 2],
    ) -> io::Result<[u64; 2]> {
        for socket in sockets {
            // `sock_map_sk_state_allowed` takes established sockets only. Known before anything
            // is inserted, this costs nothing; see `Attached` for when it is not.
            if !sys::tcp_is_established(socket)? {
                return Err(io::ErrorKind::NotConnected.into());
            }
        }
        for (at, record) in records.into_iter().enumerate() {
            record.owner.store(Owner::Relay as u64, Ordering::SeqCst);
            record.diverted.store(early[at], Ordering::SeqCst);
            record.relayed.store(0, Ordering::SeqCst);
            record.expected_seq.store(0, Ordering::SeqCst);
            record.broken.store(0, Ordering::SeqCst);
            record.handed.store(exact_count(sockets[1 - at])?, Ordering::SeqCst);
        }
        Ok([sys::socket_cookie(sockets[0])?, sys::socket_cookie(sockets[1])?])
    }

    fn insert(&self, slot: u32, cookies: [u64; 2], sockets: [BorrowedFd<'_>; 2]) -> Attached {
        let indices = [to_upstream(slot), to_client(slot)];
        let mut attached = Attached { inside: [false; 2], error: None };
        let mut maps = self.maps.lock().unwrap_or_else(PoisonError::into_inner);
        for at in 0..2 {
            let inserted = maps
                .by_cookie
                .insert(cookies[at], indices[at], 0)
                .and_then(|()| maps.sockets.set(indices[at], &sockets[at].as_raw_fd(), 0));
            match inserted {
                Ok(()) => attached.inside[at] = true,
                Err(error) => {
                    let _gone = maps.by_cookie.remove(&cookies[at]);
                    attached.error = Some(map_error(error));
                    break;
                }
            }
        }
        drop(maps);
        let inside = sockets.into_iter().zip(attached.inside).filter(|(_, inside)| *inside);
        for (socket, _) in inside {
            if let Err(error) = sys::kick_receive_queue(socket) {
                attached.error.get_or_insert(error);
            }
        }
        attached
    }

    fn remove(&self, slot: u32, cookies: [u64; 2]) {
        let mut maps = self.maps.lock().unwrap_or_else(PoisonError::into_inner);
        for (index, cookie) in [(to_upstream(slot), cookies[0]), (to_client(slot), cookies[1])] {
            // Both may be gone: a socket leaves the map by itself when it is reset.
            let _gone = maps.by_cookie.remove(&cookie);
            let _gone = maps.sockets.clear_index(&index);
        }
    }

    /// Takes the sockets of a session out of the maps. Verdicts may still be
    /// running: the slot may be used again only after
    /// [`sys::wait_for_running_programs`].
    pub fn detach(&self, slot: u32, client: BorrowedFd<'_>, upstream: BorrowedFd<'_>) {
        let cookies = [client, upstream].map(|s| sys::socket_cookie(s).unwrap_or_default());
        self.remove(slot, cookies);
    }

    /// Sockets and cookies in the maps, for tests: both 0 when no session is spliced.
    #[must_use]
    pub fn entries(&self) -> usize {
        let maps = self.maps.lock().unwrap_or_else(PoisonError::into_inner);
        maps.by_cookie.keys().filter(Result::is_ok).count()
    }

    /// How often the verdict program took each exit.
    #[must_use]
    pub fn reason_counts(&self) -> [(Reason, u64); Reason::COUNT as usize] {
        Reason::ALL.map(|reason| {
            let count = match self.reasons.get(&(reason as u32), 0) {
                Ok(per_cpu) => per_cpu.iter().sum(),
                Err(_) => 0,
            };
            (reason, count)
        })
    }
}

fn take<T: TryFrom<Map, Error = MapError>>(
    object: &mut Ebpf,
    name: &'static str,
) -> Result<T, LoadError> {
    let map = object.take_map(name).ok_or(LoadError::Missing(name))?;
    T::try_from(map).map_err(|e| LoadError::refused(&e))
}

fn map_error(error: MapError) -> io::Error {
    match error {
        MapError::SyscallError(e) => e.io_error,
        other => io::Error::other(other),
    }
}

/// Which sockets of a session are in the map. One that is stays there until
/// the session ends, even where the other was refused: bytes may already wait in
/// the queue that the map has given it, and they are lost when it leaves.
#[derive(Debug)]
pub struct Attached {
    /// The client's, the upstream's.
    pub inside: [bool; 2],
    /// Why the session must be relayed, unless both are in.
    pub error: Option<io::Error>,
}

/// Bytes ever given to the socket's TCP, exactly; nobody may write to it meanwhile.
fn exact_count(socket: BorrowedFd<'_>) -> io::Result<u64> {
    let mut before = sys::tcp_bytes_acked(socket)?;
    loop {
        let queued = sys::tcp_unacknowledged(socket)?;
        let after = sys::tcp_bytes_acked(socket)?;
        if before == after {
            return Ok(before + u64::from(queued));
        }
        before = after;
    }
}
