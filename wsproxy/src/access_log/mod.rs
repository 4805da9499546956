//! Lines about requests and sessions, for people who keep them: JSON, or the "combined" form
//! that other servers write.

mod format;
mod writer;

use std::{
    net::IpAddr,
    time::{Duration, SystemTime},
};

pub use writer::AccessLog;

/// What a line looks like.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    /// One JSON object.
    Json,
    /// As Apache and nginx write it.
    Combined,
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
    /// `HTTP/1.1`.
    pub http_version: &'a str,
    /// `Host` as it came.
    pub host: &'a str,
    /// `http` or `https`.
    pub scheme: &'a str,
    /// `TLSv1.3`.
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
    /// Bytes of bodies or of the session, without heads.
    pub bytes_to_client: u64,
    /// See above.
    pub bytes_to_upstream: u64,
    /// From the request to the end of the answer, or of the session.
    pub duration: Duration,
    /// Until the server had answered.
    pub upstream_time: Option<Duration>,
    /// Where a session began.
    pub session: Option<SessionPart<'a>>,
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
    /// Bytes that the kernel moved.
    pub kernel_bytes_to_client: u64,
    /// See above.
    pub kernel_bytes_to_upstream: u64,
}
