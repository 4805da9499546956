//! What a build without OpenTelemetry has in its place: nothing.

use std::sync::Arc;

use tokio::{runtime, time::Instant};

use crate::{
    forwarding::{Facts, Headers},
    handshake::Refusal,
};

/// Nothing is exported.
#[derive(Debug)]
pub struct Exporting;

/// Says so where spans are wanted.
pub fn start(_runtime: &runtime::Handle) -> Exporting {
    if let Some(collector) = super::collector() {
        tracing::warn!(
            collector = super::shown(&collector),
            "this build has no OpenTelemetry (cargo feature \"otel\"): no spans are exported"
        );
    }
    Exporting
}

impl Exporting {
    /// Nothing is to be sent.
    pub fn stop(self) {}
}

/// The span of a handshake.
pub(crate) struct Handshake;

impl Handshake {
    pub(crate) fn begin(_: &Facts, _: &impl Headers, _: Instant) -> Self {
        Self
    }

    pub(crate) fn on_route(&mut self, _: &Arc<str>) {}

    pub(crate) fn ask(&mut self, _: &Arc<str>) -> Asked {
        Asked
    }

    pub(crate) fn answered(&mut self, _: u16) {}

    pub(crate) fn refused(&mut self, _: &Refusal) {}

    pub(crate) fn broke(&mut self, _: &'static str) {}

    pub(crate) fn switched(self, _: u64) {}
}

/// The span of one server's part in it.
pub(crate) struct Asked;

impl Asked {
    pub(crate) fn write(&self, _: &mut impl Headers) {}

    pub(crate) fn answered(self, _: u16) {}

    pub(crate) fn failed(self, _: &str) {}
}

pub(crate) fn bad_head(_: std::net::IpAddr, _: &str, _: &Refusal, _: Instant) {}
