//! The target socket's own view: how many bytes its TCP has, how much room.

use aya_ebpf::helpers::generated::{bpf_map_lookup_elem, bpf_sk_release, bpf_skc_to_tcp_sock};
use wsproxy_common::layout::SocketOffsets;

use crate::{atomic, maps::SOCKETS};

/// Written by the loader from the kernel's BTF before the object is loaded.
#[unsafe(no_mangle)]
static SOCKET_OFFSETS: SocketOffsets = SocketOffsets {
    bytes_acked: 0,
    write_seq: 0,
    snd_una: 0,
    copied_seq: 0,
    sk_sndbuf: 0,
    sk_wmem_queued: 0,
};

/// What the target's TCP has and can take, in bytes.
pub struct Target {
    /// All bytes ever handed to it: acknowledged, sent and queued.
    pub count: u64,
    /// `sk_sndbuf - sk_wmem_queued`; negative when over-full.
    pub room: i64,
}

#[inline(always)]
unsafe fn field<T: Copy>(base: *const u8, offset: *const u32) -> T {
    unsafe { base.add(offset.read_volatile() as usize).cast::<T>().read_volatile() }
}

/// Reads fields of the socket at `index`; `None` when it is not in the map.
///
/// # Safety
/// `read` may only read at offsets from [`SOCKET_OFFSETS`].
#[inline(always)]
unsafe fn with_tcp<T>(index: u32, read: impl FnOnce(*const u8) -> T) -> Option<T> {
    // SAFETY: a lookup in a SOCKMAP gives a referenced socket or null; it is released on
    // every path below. The offsets come from this kernel's BTF, and the verifier checks
    // each read against it.
    unsafe {
        let socket =
            bpf_map_lookup_elem((&raw const SOCKETS).cast_mut().cast(), (&raw const index).cast());
        if socket.is_null() {
            return None;
        }
        let tcp = bpf_skc_to_tcp_sock(socket).cast::<u8>().cast_const();
        let found = if tcp.is_null() { None } else { Some(read(tcp)) };
        bpf_sk_release(socket);
        found
    }
}

/// Looks the target up; `None` when it is not in the map.
///
/// # Safety
/// `word` is one of a map's; see [`atomic::order_loads`].
#[inline(always)]
pub unsafe fn look(index: u32, word: *mut u64) -> Option<Target> {
    // SAFETY: the offsets are those of the fields' types.
    unsafe {
        with_tcp(index, |tcp| {
            // `bytes_acked` first: an acknowledgement between the reads then makes the sum too
            // small (the packet waits for the next look), not too large. The count before the
            // room: what the worker moves in between is then in both, not in neither.
            let acked: u64 = field(tcp, &raw const SOCKET_OFFSETS.bytes_acked);
            atomic::order_loads(word);
            let write_seq: u32 = field(tcp, &raw const SOCKET_OFFSETS.write_seq);
            let snd_una: u32 = field(tcp, &raw const SOCKET_OFFSETS.snd_una);
            atomic::order_loads(word);
            let sndbuf: i32 = field(tcp, &raw const SOCKET_OFFSETS.sk_sndbuf);
            let queued: i32 = field(tcp, &raw const SOCKET_OFFSETS.sk_wmem_queued);
            Target {
                count: acked.wrapping_add(u64::from(write_seq.wrapping_sub(snd_una))),
                room: i64::from(sndbuf) - i64::from(queued),
            }
        })
    }
}

/// Sequence number up to which the socket at `index` was read.
#[inline(always)]
pub fn read_up_to(index: u32) -> Option<u32> {
    // SAFETY: the offset is that of a u32.
    unsafe { with_tcp(index, |tcp| field(tcp, &raw const SOCKET_OFFSETS.copied_seq)) }
}
