//! The log: `tracing` to standard error, text or JSON.

use std::io::IsTerminal as _;

use tracing_subscriber::{EnvFilter, fmt};

use crate::config::{Log, LogFormat};

/// Environment variable that overrides `log.level`, in `tracing`'s filter syntax.
pub const FILTER_ENV: &str = "WSPROXY_LOG";

/// Starts the log. A second call changes nothing.
pub fn start(log: &Log) {
    let filter = EnvFilter::try_from_env(FILTER_ENV)
        .unwrap_or_else(|_| EnvFilter::new(format!("wsproxy={}", log.level)));
    let builder = fmt().with_env_filter(filter).with_writer(std::io::stderr);
    // Ignored: a log that is there already is the one that is wanted.
    let _already = match log.format {
        LogFormat::Json => builder.json().flatten_event(true).with_target(false).try_init(),
        LogFormat::Text => {
            builder.with_ansi(std::io::stderr().is_terminal()).with_target(false).try_init()
        }
    };
}
