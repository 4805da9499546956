//! The numbers of settings and counts, for the programs and for user space (`tests/src/link.rs`).

/// Index into the settings.
#[derive(Clone, Copy)]
#[repr(u32)]
pub enum Setting {
    /// Decides every packet's fate, together with its number.
    Seed = 0,
    /// Out of 2^32 packets, so many are lost.
    Drop = 1,
    /// Out of 2^32, so many are lost or doubled.
    Duplicate = 2,
    /// Out of 2^32, so many are lost, doubled or held back.
    Hold = 3,
    /// The device that held packets go to; 0: there is none.
    Line = 4,
    /// The device that they come back to.
    Link = 5,
    /// Only packets from or to this TCP port; 0: all.
    Port = 6,
    /// Not 0: only packets with payload.
    OnlyPayload = 7,
}

/// Index into the counts.
#[derive(Clone, Copy)]
#[repr(u32)]
pub enum Count {
    /// Packets that a fate was drawn for.
    Seen = 0,
    /// Passed on at once, doubled ones included.
    Passed = 1,
    /// Lost.
    Dropped = 2,
    /// Sent twice.
    Duplicated = 3,
    /// Given to the delay line.
    Held = 4,
    /// Come back from it.
    Returned = 5,
}
