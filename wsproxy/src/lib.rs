//! wsproxy: a transparent WebSocket gateway that moves the bytes of its
//! sessions inside the kernel. `ARCHITECTURE.md` is the map of this crate.
#![deny(unsafe_code)]

pub mod access_log;
pub mod admin;
pub mod balance;
pub mod capacity;
pub mod cli;
pub mod config;
pub mod datapath;
pub mod demo;
pub mod doctor;
pub mod files;
pub mod forwarding;
pub mod gateway;
pub mod handshake;
pub mod limits;
pub mod logging;
pub mod metrics;
pub mod nginx;
pub mod privileges;
pub mod probe;
pub mod proxy_protocol;
pub mod resolve;
pub mod routes;
pub mod service;
pub mod sys;
pub mod telemetry;
pub mod tls;
pub mod top;
