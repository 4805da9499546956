//! Tiny queues that fit a machine word, so that a state stays small and hashes fast.

/// A queue of up to eight items in `1..=15`.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct Fifo(u32);

impl Fifo {
    pub const CAPACITY: usize = 8;

    pub fn len(self) -> usize {
        (u32::BITS - self.0.leading_zeros()).div_ceil(4) as usize
    }

    pub fn is_empty(self) -> bool {
        self.0 == 0
    }

    pub fn push(&mut self, item: u8) {
        let at = self.len();
        assert!((1..=15).contains(&item) && at < Self::CAPACITY, "queue item {item} at {at}");
        self.0 |= u32::from(item) << (4 * at);
    }

    pub fn front(self) -> Option<u8> {
        (self.0 != 0).then_some((self.0 & 15) as u8)
    }

    pub fn pop(&mut self) -> Option<u8> {
        let item = self.front()?;
        self.0 >>= 4;
        Some(item)
    }

    pub fn iter(self) -> impl Iterator<Item = u8> {
        let mut rest = self;
        std::iter::from_fn(move || rest.pop())
    }
}

impl std::fmt::Debug for Fifo {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_list().entries(self.iter()).finish()
    }
}
