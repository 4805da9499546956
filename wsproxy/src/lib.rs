//! wsproxy: a transparent WebSocket gateway that moves the bytes of its
//! sessions inside the kernel. `ARCHITECTURE.md` is the map of this crate.
#![deny(unsafe_code)]

pub mod datapath;
pub mod sys;
