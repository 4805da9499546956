//! TLS through the real program: at its listeners, towards its servers, in its sessions; and what
//! else may stand before HTTP.
#![cfg(target_os = "linux")]

#[path = "tls/arrival.rs"]
mod arrival;
#[path = "tls/bench.rs"]
mod bench;
#[path = "tls/certificates.rs"]
mod certificates;
#[path = "tls/files.rs"]
mod files;
#[path = "tls/front.rs"]
mod front;
#[path = "tls/listener.rs"]
mod listener;
#[path = "tls/sessions.rs"]
mod sessions;
mod support;
#[path = "support/tls.rs"]
mod tls_support;
#[path = "tls/upstream.rs"]
mod upstream;
