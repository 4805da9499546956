//! The pure modules of wsproxy: what becomes of bytes that a peer has sent. Compiled out of its
//! tree without the rest, since that would take minutes with the compiler's coverage pass; and
//! here they can't name what pure modules know nothing of: tokio, TLS, aya.
#![allow(dead_code, unused_imports, reason = "each target uses a part")]

#[path = "../../wsproxy/src/config/mod.rs"]
pub mod config;
#[path = "../../wsproxy/src/forwarding/mod.rs"]
pub mod forwarding;
#[path = "../../wsproxy/src/handshake/mod.rs"]
pub mod handshake;
#[path = "../../wsproxy/src/routes.rs"]
pub mod routes;
