//! What the BPF programs and user space of wsproxy share: the records in the
//! memory that both map, the reasons that both count, and their layout.
//!
//! `no_std`, no dependency, explicit widths, no `bool` and no `enum` in memory.
//! Both sides run on the same machine, so every integer is in its byte order.
#![no_std]
#![forbid(unsafe_code)]

pub mod cursor;
pub mod direction;
pub mod event;
pub mod layout;
pub mod packet;
pub mod reason;

pub use direction::{Direction, Owner};
pub use event::Event;
pub use reason::Reason;
