//! Notifications from BPF, through one ring buffer.

/// A direction was given to user space by BPF.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C)]
pub struct Event {
    /// Index of the [`crate::Direction`].
    pub direction: u32,
    /// A [`crate::Reason`] as a number.
    pub reason: u32,
    /// The record's generation when it happened; older ones are ignored.
    pub generation: u64,
}

const _: () = assert!(size_of::<Event>() == 16);

impl Event {
    /// The event in the 16 bytes of a ring-buffer entry; `None` if the length is another.
    #[must_use]
    pub fn from_bytes(bytes: &[u8]) -> Option<Self> {
        let bytes: &[u8; 16] = bytes.try_into().ok()?;
        let [d0, d1, d2, d3, r0, r1, r2, r3, generation @ ..] = *bytes;
        Some(Self {
            direction: u32::from_ne_bytes([d0, d1, d2, d3]),
            reason: u32::from_ne_bytes([r0, r1, r2, r3]),
            generation: u64::from_ne_bytes(generation),
        })
    }
}
