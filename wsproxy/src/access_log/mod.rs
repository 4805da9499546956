//! Lines about requests and sessions, for people who keep them: JSON, or the "combined" form
//! that Apache and nginx write.

mod civil;
mod format;
mod log;
mod queue;
mod writer;

#[cfg(test)]
mod tests;

use std::{
    net::IpAddr,
    time::{Duration, SystemTime},
};

pub use format::{combined, json};
pub use log::AccessLog;

/// Most lines that may wait to be written.
pub const MAX_WAITING_LINES: usize = 8_192;
/// Most bytes that may wait to be written: 8 MiB.
pub const MAX_WAITING_BYTES: usize = 8 << 20;

/// What a line looks like.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    /// One JSON object (RFC 8259).
    Json,
    /// As Apache and nginx write it.
    Combined,
}

/// What a line is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// A request that was answered, or a handshake that was refused.
    Request,
    /// A session that is over.
    Session,
}

impl Kind {
    /// As lines say it.
    #[must_use]
    pub const fn label(self) -> &'static str {
        match self {
            Self::Request => "request",
            Self::Session => "session",
        }
    }
}

/// What a line says.
#[derive(Debug, Clone)]
pub struct Entry<'a> {
    /// When the request came.
    pub time: SystemTime,
    /// The client, behind trusted proxies.
    pub client: IpAddr,
    /// The request's id.
    pub request_id: &'a str,
    /// The method.
    pub method: &'a str,
    /// Path and query as they came.
    pub target: &'a str,
    /// Such as `HTTP/1.1`.
    pub http_version: &'a str,
    /// `Host` as it came.
    pub host: &'a str,
    /// `http` or `https`.
    pub scheme: &'a str,
    /// Such as `TLSv1.3`; none without TLS.
    pub tls_version: Option<&'a str>,
    /// `Referer`.
    pub referer: Option<&'a str>,
    /// `User-Agent`.
    pub user_agent: Option<&'a str>,
    /// The status of the answer; 101 for a session.
    pub status: u16,
    /// The route's name; empty where none took it.
    pub route: &'a str,
    /// The server that answered.
    pub upstream: Option<&'a str>,
    /// Bytes of the answer's body or of the session, without heads.
    pub bytes_to_client: u64,
    /// Bytes of the request's body or of the session, without heads.
    pub bytes_to_upstream: u64,
    /// From the request to the end of the answer, or of the session.
    pub duration: Duration,
    /// From the request until the server had answered.
    pub upstream_time: Option<Duration>,
    /// Makes it the line of a session.
    pub session: Option<SessionPart<'a>>,
}

impl Entry<'_> {
    /// What the line is about.
    #[must_use]
    pub const fn kind(&self) -> Kind {
        if self.session.is_some() { Kind::Session } else { Kind::Request }
    }
}

/// What a line says of a session besides.
#[derive(Debug, Clone)]
pub struct SessionPart<'a> {
    /// Its number.
    pub id: u64,
    /// What carried it.
    pub datapath: &'a str,
    /// How it ended.
    pub ended_by: &'a str,
    /// Bytes that the kernel moved to the client.
    pub kernel_bytes_to_client: u64,
    /// Bytes that the kernel moved to the server.
    pub kernel_bytes_to_upstream: u64,
}
