//! The maps. Sizes are set by the loader (`datapath::bpf::load`); what stands
//! here is the least that loads.

use aya_ebpf::{
    bindings::{BPF_F_MMAPABLE, BPF_F_NO_PREALLOC},
    macros::map,
    maps::{Array, HashMap, PerCpuArray, RingBuf, SockMap},
};
use wsproxy_common::{
    Direction, Event, Reason,
    cursor::FrameCursor,
    packet::{Flow, FlowKey, Headers, Options, Seen, Segment},
};

use crate::behind::{Course, Shelf};

/// Index of a direction to its source socket.
#[map]
pub static SOCKETS: SockMap = SockMap::with_max_entries(2, 0);

/// The records, shared with user space as memory.
#[map]
pub static DIRECTIONS: Array<Direction> = Array::with_max_entries(2, BPF_F_MMAPABLE);

/// Socket cookie to index of the direction it is the source of.
#[map]
pub static BY_COOKIE: HashMap<u64, u32> = HashMap::with_max_entries(2, 0);

/// Directions given to user space.
#[map]
pub static EVENTS: RingBuf = RingBuf::with_byte_size(4096, 0);

/// Who sends to whom, as packets of sessions on the packet path say it, to index of the direction.
/// Memory is taken for each session, not for all that there could be.
#[map]
pub static KEYS: HashMap<FlowKey, u32> = HashMap::with_max_entries(2, BPF_F_NO_PREALLOC);

/// What is done with packets of a direction, shared with user space as memory.
#[map]
pub static FLOWS: Array<Flow> = Array::with_max_entries(2, BPF_F_MMAPABLE);

/// One counter a [`Reason`].
#[map]
pub static REASONS: PerCpuArray<u64> = PerCpuArray::with_max_entries(Reason::COUNT, 0);

/// What is kept of packets behind a lost frame header.
#[map]
pub static SHELVES: Array<Shelf> = Array::with_max_entries(1, 0);

/// Counts one `reason`.
#[inline(always)]
pub fn count(reason: Reason) {
    if let Some(n) = REASONS.get_ptr_mut(reason as u32) {
        // SAFETY: the slot is this CPU's own, and the program is not preempted on it by itself.
        unsafe { *n += 1 }
    }
}

/// Tells user space that `index` is its own now, and why.
#[inline(always)]
pub fn notify(index: u32, generation: u64, reason: Reason) {
    match EVENTS.reserve::<Event>(0) {
        Some(mut entry) => {
            entry.write(Event { direction: index, reason: reason as u32, generation });
            entry.submit(0);
        }
        None => count(Reason::NotifyLost),
    }
}

/// What the packet path works on; too much for the stack. One a CPU: programs of tc don't nest.
#[repr(C)]
pub struct Work {
    /// The headers of the packet.
    pub headers: Headers,
    /// The headers of a packet that it quotes.
    pub quoted: Headers,
    /// Its options.
    pub options: Options,
    /// Who sends it to whom.
    pub key: FlowKey,
    /// What its TCP header says.
    pub segment: Segment,
    /// How far its session is.
    pub known: Seen,
    /// 1: it brings the first FIN of the session.
    pub fin: u32,
    /// The frame cursor before the packet.
    pub before: FrameCursor,
    /// Of no meaning: for [`crate::atomic::order_loads`].
    pub order: u64,
    /// What is done with a shelf.
    pub course: Course,
}

/// See [`Work`].
#[map]
pub static WORK: PerCpuArray<Work> = PerCpuArray::with_max_entries(1, 0);
