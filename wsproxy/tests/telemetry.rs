//! What an OpenTelemetry collector gets, and what a build without the feature says about that.
#![cfg(target_os = "linux")]

mod support;

#[cfg(not(feature = "otel"))]
#[path = "telemetry/absent.rs"]
mod absent;
#[cfg(feature = "otel")]
#[path = "telemetry/collector.rs"]
mod collector;
#[cfg(feature = "otel")]
#[path = "telemetry/exported.rs"]
mod exported;
#[cfg(feature = "otel")]
#[path = "support/tls.rs"]
mod tls_support;

use std::{net::SocketAddr, process::Command};

use support::{BINARY, Proxy, config};

/// What a caller says of its span.
const TRACE: &str = "0af7651916cd43dd8448eb211c80319c";
const CALLER: &str = "b7ad6b7169203331";

/// The program before `servers`, with these of OpenTelemetry's variables and no others.
fn start(servers: &[SocketAddr], more: &str, variables: &[(&str, &str)]) -> Proxy {
    let mut program = Command::new(BINARY);
    for (name, _) in std::env::vars_os() {
        if name.as_encoded_bytes().starts_with(b"OTEL_") {
            program.env_remove(name);
        }
    }
    program.envs(variables.iter().copied());
    Proxy::with_file(program, &config(servers, more), "relay")
}
