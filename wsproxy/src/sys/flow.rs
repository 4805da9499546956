//! [`Flow`] as user space sees it, and what aya wants of the types of its maps.

use std::sync::atomic::{AtomicU64, Ordering};

use wsproxy_common::packet::{Flow, FlowKey, KNOWN, Pair, State, after};

const WORDS: usize = size_of::<Flow>() / 8;

/// A [`Flow`] in memory that BPF programs on other CPUs read and write.
#[derive(Debug)]
#[repr(C, align(64))]
pub struct SharedFlow([AtomicU64; WORDS]);

const _: () = assert!(size_of::<SharedFlow>() == size_of::<Flow>());

impl SharedFlow {
    const STATE: usize = std::mem::offset_of!(Flow, state) / 8;
    const PAIR: usize = std::mem::offset_of!(Flow, pair) / 8;

    /// What is there now, word by word.
    #[must_use]
    pub fn load(&self) -> Flow {
        let words = self.0.each_ref().map(|word| word.load(Ordering::SeqCst));
        // SAFETY: `Flow` is `repr(C)`, has this size and alignment or less, no padding, and every
        // bit pattern is a value of it.
        unsafe { std::mem::transmute::<[u64; WORDS], Flow>(words) }
    }

    /// Writes everything but the state and the pair: for who has seen to it that BPF does not look.
    pub fn store(&self, flow: &Flow) {
        // SAFETY: as above: no padding, so every byte is initialised.
        let words = unsafe { std::mem::transmute::<Flow, [u64; WORDS]>(*flow) };
        for (at, (word, value)) in self.0.iter().zip(words).enumerate() {
            if at != Self::STATE && at != Self::PAIR {
                word.store(value, Ordering::SeqCst);
            }
        }
    }

    /// What BPF does with packets from now on.
    pub fn set_state(&self, state: State) {
        self.0[Self::STATE].store(state as u64, Ordering::SeqCst);
    }

    /// What BPF does with packets.
    #[must_use]
    pub fn state(&self) -> State {
        State::from_word(self.0[Self::STATE].load(Ordering::SeqCst))
    }

    fn number(&self, offset: usize) -> Option<u32> {
        let word = self.0[offset / 8].load(Ordering::SeqCst);
        (word & KNOWN != 0).then_some(word as u32)
    }

    /// Behind the last byte that S has sent.
    #[must_use]
    pub fn sent(&self) -> Option<u32> {
        self.number(std::mem::offset_of!(Flow, sent))
    }

    /// What S has acknowledged, in T's numbers.
    #[must_use]
    pub fn acked(&self) -> Option<u32> {
        self.number(std::mem::offset_of!(Flow, acked))
    }

    /// S has acknowledged so much, in T's numbers, and BPF did not see it. By how many bytes that is
    /// more than what it saw.
    pub fn acknowledge(&self, to: u32) -> u32 {
        const AT: usize = std::mem::offset_of!(Flow, acked) / 8;
        let moved = self.0[AT].fetch_update(Ordering::SeqCst, Ordering::SeqCst, |old| {
            after(to, old as u32).then_some(KNOWN | u64::from(to))
        });
        moved.map_or(0, |old| to.wrapping_sub(old as u32))
    }

    /// Our own socket towards S has nothing under way any more.
    pub fn owes_nothing(&self) {
        const AT: usize = std::mem::offset_of!(Flow, owed) / 8;
        self.0[AT].store(0, Ordering::SeqCst);
    }

    /// The last TSval of S.
    #[must_use]
    pub fn value(&self) -> Option<u32> {
        self.number(std::mem::offset_of!(Flow, value))
    }

    /// Behind the FIN of S.
    #[must_use]
    pub fn fin(&self) -> Option<u32> {
        self.number(std::mem::offset_of!(Flow, fin))
    }

    /// [`Flow::flags`].
    #[must_use]
    pub fn flags(&self) -> u32 {
        self.load().flags
    }

    /// How far both sides have come; in the record of the client's direction.
    #[must_use]
    pub fn pair(&self) -> Pair {
        Pair(self.0[Self::PAIR].load(Ordering::SeqCst))
    }

    /// Forgets how far both sides have come.
    pub fn forget_pair(&self) {
        self.0[Self::PAIR].store(0, Ordering::SeqCst);
    }

    /// Has packets translated from now on, if nothing was noted since `pair`.
    #[must_use]
    pub fn translate_after(&self, pair: Pair) -> bool {
        let (old, new) = (pair.0, pair.translated().0);
        self.0[Self::PAIR].compare_exchange(old, new, Ordering::SeqCst, Ordering::SeqCst).is_ok()
    }

    /// Changes the device that T is reached through.
    pub fn set_device(&self, device: u32) {
        const AT: usize = std::mem::offset_of!(Flow, device) / 8;
        let mut flow = self.load();
        flow.device = device;
        // SAFETY: as in `store`.
        let words = unsafe { std::mem::transmute::<Flow, [u64; WORDS]>(flow) };
        self.0[AT].store(words[AT], Ordering::SeqCst);
    }
}

// SAFETY: integers only, no padding (nine u32), every bit pattern is valid.
unsafe impl aya::Pod for Key {}

/// [`FlowKey`], in a type of this crate, as aya wants it.
#[derive(Clone, Copy, Debug)]
#[repr(transparent)]
pub struct Key(pub FlowKey);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_acknowledged_only_moves_forward() {
        let flow = SharedFlow(std::array::from_fn(|_| AtomicU64::new(0)));
        let acked = KNOWN | u64::from(u32::MAX - 1);
        flow.store(&Flow { acked, flags: 3, ..Flow::default() });
        assert_eq!(flow.acknowledge(3), 5, "over the end of the numbers");
        assert_eq!((flow.acked(), flow.flags(), flow.sent()), (Some(3), 3, None));
        assert_eq!(flow.acknowledge(3), 0, "BPF was first");
        assert_eq!(flow.acknowledge(u32::MAX), 0, "BPF was further");
        assert_eq!(flow.acked(), Some(3));
    }
}
