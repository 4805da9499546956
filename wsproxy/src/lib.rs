//! wsproxy: a transparent WebSocket gateway that moves the bytes of its
//! sessions inside the kernel. `ARCHITECTURE.md` is the map of this crate.
#![deny(unsafe_code)]

pub mod admin;
pub mod cli;
pub mod config;
pub mod datapath;
pub mod demo;
pub mod doctor;
pub mod gateway;
pub mod handshake;
pub mod limits;
pub mod logging;
pub mod metrics;
pub mod sys;
