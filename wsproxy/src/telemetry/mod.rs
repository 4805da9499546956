//! Spans of handshakes for OpenTelemetry: one for each handshake, and under it one for each server
//! that is asked. Where they go is said by OpenTelemetry's own environment variables.
//!
//! The rest of the program knows [`start`], `Handshake` and `Asked`. Without the feature
//! `otel` these do nothing, have no size and need no crate; with it, and with no collector to send
//! to, a handshake costs one look at a pointer. No name of OpenTelemetry's crates leaves this
//! folder.

#[cfg(not(feature = "otel"))]
mod absent;
#[cfg(feature = "otel")]
mod export;
#[cfg(feature = "otel")]
mod post;
#[cfg(feature = "otel")]
mod spans;
#[cfg(feature = "otel")]
mod trace_context;

#[cfg(not(feature = "otel"))]
pub(crate) use absent::{Asked, Handshake, bad_head};
#[cfg(not(feature = "otel"))]
pub use absent::{Exporting, start};
#[cfg(feature = "otel")]
pub use export::{Exporting, start};
#[cfg(feature = "otel")]
pub(crate) use spans::{Asked, Handshake, bad_head};

/// Where all signals go, and where spans alone go: whoever sets one of them wants spans exported.
const ENDPOINTS: [&str; 2] = ["OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "OTEL_EXPORTER_OTLP_ENDPOINT"];

/// A variable that is set; an empty one counts as not set, as the specification of OpenTelemetry's
/// environment variables has it.
fn variable(name: &str) -> Option<String> {
    std::env::var(name).ok().filter(|value| !value.is_empty())
}

/// The collector that spans are wanted at, as the environment says.
fn collector() -> Option<String> {
    let disabled = variable("OTEL_SDK_DISABLED").is_some_and(|v| v.eq_ignore_ascii_case("true"));
    let nowhere = variable("OTEL_TRACES_EXPORTER").is_some_and(|exporter| exporter == "none");
    if disabled || nowhere { None } else { ENDPOINTS.iter().find_map(|name| variable(name)) }
}

/// A URL for the log: what may be secret in it, before an `@` and behind a `?`, is left out.
fn shown(url: &str) -> String {
    let url = url.split(['?', '#']).next().unwrap_or_default();
    let (scheme, rest) = url.split_once("://").unwrap_or(("", url));
    let (authority, path) = rest.split_at(rest.find('/').unwrap_or(rest.len()));
    let host = authority.rsplit('@').next().unwrap_or_default();
    let mark = if scheme.is_empty() { "" } else { "://" };
    format!("{scheme}{mark}{host}{path}")
}

#[cfg(test)]
mod tests {
    use super::shown;

    #[test]
    fn the_log_gets_no_secrets() {
        let cases = [
            ("http://127.0.0.1:4318", "http://127.0.0.1:4318"),
            ("https://me:se@cret@[::1]:1/v1/a@b?key=x", "https://[::1]:1/v1/a@b"),
            ("http://h#x@y", "http://h"),
            ("me:secret@host", "host"),
            ("", ""),
        ];
        for (url, expected) in cases {
            assert_eq!(shown(url), expected, "{url}");
        }
    }
}
