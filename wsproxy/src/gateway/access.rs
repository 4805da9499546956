//! Lines of the access log: one for each plain request, one for each session when it ends.

use std::{
    borrow::Cow,
    net::IpAddr,
    sync::Arc,
    time::{Duration, Instant, SystemTime},
};

use http::{HeaderMap, Request, Response, Version};
use hyper::body::Incoming;
use serde_json::{Value, json};

use super::{Client, Gateway, body::Upload, connection::Story, setup::Setup, upgrade::Answered};
use crate::{
    access_log::{AccessLog, Entry, Format, SessionPart},
    config,
    datapath::SessionEnd,
    forwarding::{Facts, Headers},
    handshake::{Answer, Glimpse, Refusal, UpgradeRequest},
    telemetry,
};

pub(super) fn format_of(log: &config::AccessLog) -> Format {
    match log.format {
        config::AccessFormat::Json => Format::Json,
        config::AccessFormat::Combined => Format::Combined,
    }
}

/// What a line says of a request, whatever becomes of it.
#[derive(Debug, Clone)]
struct About {
    time: SystemTime,
    client: IpAddr,
    request_id: String,
    method: String,
    target: String,
    http_version: Cow<'static, str>,
    host: String,
    scheme: &'static str,
    tls_version: Option<&'static str>,
    referer: Option<String>,
    user_agent: Option<String>,
}

impl About {
    fn new(facts: &Facts, client: &Client, headers: &impl Headers) -> Self {
        let text = |name: &str| {
            let value = headers.values(name).next()?;
            Some(String::from_utf8_lossy(value).into_owned())
        };
        Self {
            time: SystemTime::now(),
            client: facts.client,
            request_id: facts.request_id.clone(),
            method: facts.method.clone(),
            target: facts.target.clone(),
            http_version: "HTTP/1.1".into(),
            host: facts.http_host.clone(),
            scheme: client.connection.scheme,
            tls_version: client.connection.tls_version,
            referer: text("referer"),
            user_agent: text("user-agent"),
        }
    }

    fn entry(&self) -> Entry<'_> {
        Entry {
            time: self.time,
            client: self.client,
            request_id: &self.request_id,
            method: &self.method,
            target: &self.target,
            http_version: &self.http_version,
            host: &self.host,
            scheme: self.scheme,
            tls_version: self.tls_version,
            referer: self.referer.as_deref(),
            user_agent: self.user_agent.as_deref(),
            status: 0,
            route: "",
            upstream: None,
            bytes_to_client: 0,
            bytes_to_upstream: 0,
            duration: Duration::ZERO,
            upstream_time: None,
            session: None,
        }
    }
}

/// Longest text of a handshake that is kept over the end of the process, in bytes.
const MOST_KEPT: usize = 8 << 10;

/// As much of it as is kept.
fn kept(text: &str) -> &str {
    let most = MOST_KEPT.min(text.len());
    let end = (0..=most).rev().find(|at| text.is_char_boundary(*at));
    text.get(..end.unwrap_or(0)).unwrap_or_default()
}

impl About {
    /// All of it but its client and its id, which its note has too.
    fn saved(&self) -> Value {
        let since = self.time.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        json!({
            "time_us": u64::try_from(since.as_micros()).unwrap_or(u64::MAX),
            "method": kept(&self.method),
            "target": kept(&self.target),
            "http_version": self.http_version,
            "host": kept(&self.host),
            "scheme": self.scheme,
            "tls_version": self.tls_version,
            "referer": self.referer.as_deref().map(kept),
            "user_agent": self.user_agent.as_deref().map(kept),
        })
    }

    fn restored(saved: &Value, client: IpAddr, request_id: &str) -> Option<Self> {
        let text = |key: &str| saved[key].as_str().map(str::to_owned);
        let since = Duration::from_micros(saved["time_us"].as_u64()?);
        Some(Self {
            time: SystemTime::UNIX_EPOCH.checked_add(since)?,
            client,
            request_id: request_id.to_owned(),
            method: text("method")?,
            target: text("target")?,
            http_version: text("http_version")?.into(),
            host: text("host")?,
            scheme: if saved["scheme"] == "https" { "https" } else { "http" },
            tls_version: match saved["tls_version"].as_str() {
                Some("TLSv1.2") => Some("TLSv1.2"),
                Some("TLSv1.3") => Some("TLSv1.3"),
                _ => None,
            },
            referer: text("referer"),
            user_agent: text("user_agent"),
        })
    }
}

/// The status of a request whose client left before it was answered.
const CLIENT_LEFT: u16 = 499;

/// A request whose line is written when its answer ends.
pub(super) struct Pending {
    log: Arc<AccessLog>,
    about: About,
    began: Instant,
    route: Arc<str>,
    upstream: Option<Arc<str>>,
    upstream_time: Option<Duration>,
    upload: Option<u64>,
    status: u16,
    sent: u64,
}

impl Pending {
    /// None where there is no access log.
    pub(super) fn new(
        gateway: &Gateway,
        facts: &Facts,
        client: &Client,
        request: &Request<Incoming>,
    ) -> Option<Box<Self>> {
        let log = Arc::clone(gateway.access_log.as_ref()?);
        let headers: &HeaderMap = request.headers();
        let mut about = About::new(facts, client, headers);
        if request.version() == Version::HTTP_10 {
            about.http_version = "HTTP/1.0".into();
        }
        Some(Box::new(Self {
            log,
            about,
            began: Instant::now(),
            route: "".into(),
            upstream: None,
            upstream_time: None,
            upload: None,
            status: 0,
            sent: 0,
        }))
    }

    pub(super) fn on_route(&mut self, route: &Arc<str>) {
        self.route = Arc::clone(route);
    }

    pub(super) fn at_server(&mut self, server: &Arc<str>) {
        self.upstream = Some(Arc::clone(server));
    }

    pub(super) fn upstream_answered(&mut self, upload: &Upload) {
        self.upstream_time = Some(self.began.elapsed());
        self.upload = Some(upload.bytes());
    }

    pub(super) fn answered(&mut self, status: u16) {
        self.status = status;
    }

    pub(super) fn sent(&mut self, bytes: u64) {
        self.sent += bytes;
    }
}

impl Drop for Pending {
    fn drop(&mut self) {
        self.log.write(&Entry {
            // Dropped without an answer: the client's connection broke while it was waited for.
            status: if self.status == 0 { CLIENT_LEFT } else { self.status },
            route: &self.route,
            upstream: self.upstream.as_deref(),
            bytes_to_client: self.sent,
            bytes_to_upstream: self.upload.unwrap_or(0),
            duration: self.began.elapsed(),
            upstream_time: self.upstream_time,
            ..self.about.entry()
        });
    }
}

/// A request's id, small where it is one of ours.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum RequestId {
    /// The number of the request.
    Ours(u64),
    /// What a trusted proxy called it.
    Foreign(Box<str>),
}

/// What a session keeps for its line: its request's id, and the rest where a log wants it.
#[derive(Debug)]
pub(super) struct Note {
    pub(super) request_id: RequestId,
    /// The client, behind trusted proxies.
    pub(super) client: IpAddr,
    about: Option<Box<(About, Duration)>>,
}

impl Note {
    pub(super) fn new(
        setup: &Setup,
        facts: &Facts,
        client: &Client,
        request: &UpgradeRequest,
        upstream_time: Duration,
    ) -> Self {
        let wanted = setup.config.access_log.is_some();
        let about = || Box::new((About::new(facts, client, &request.headers), upstream_time));
        let request_id = match facts.request_number {
            Some(number) => RequestId::Ours(number),
            None => RequestId::Foreign(facts.request_id.as_str().into()),
        };
        Self { request_id, client: facts.client, about: wanted.then(about) }
    }

    /// For the next process; `id` is the request's.
    pub(super) fn saved(&self, id: &str) -> Value {
        let about = self.about.as_deref().map(|(about, upstream_time)| {
            let us = u64::try_from(upstream_time.as_micros()).unwrap_or(u64::MAX);
            json!({ "request": about.saved(), "upstream_us": us })
        });
        json!({ "request_id": kept(id), "client": self.client.to_string(), "about": about })
    }

    /// Out of what an earlier process has saved; `None`: that is damaged.
    pub(super) fn restored(saved: &Value) -> Option<Self> {
        let id = saved["request_id"].as_str()?;
        let client = saved["client"].as_str()?.parse().ok()?;
        let about = match saved.get("about")? {
            Value::Null => None,
            about => Some(Box::new((
                About::restored(&about["request"], client, id)?,
                Duration::from_micros(about["upstream_us"].as_u64()?),
            ))),
        };
        Some(Self { request_id: RequestId::Foreign(id.into()), client, about })
    }
}

/// The line of a session that is over.
pub(super) fn session_ended(log: &AccessLog, note: &Note, end: &SessionEnd) {
    let Some((about, upstream_time)) = note.about.as_deref() else { return };
    log.write(&Entry {
        status: 101,
        route: &end.meta.route,
        upstream: Some(&end.meta.upstream),
        bytes_to_client: end.to_client.total(),
        bytes_to_upstream: end.to_upstream.total(),
        duration: end.duration,
        upstream_time: Some(*upstream_time),
        session: Some(SessionPart {
            id: end.meta.id,
            datapath: end.path.label(),
            ended_by: end.ending.label(),
            kernel_bytes_to_client: end.to_client.kernel,
            kernel_bytes_to_upstream: end.to_upstream.kernel,
        }),
        ..about.entry()
    });
}

/// Writes the line of a request that was refused for its `head`, as far as that came, and gives
/// the refusal its id. Who stands behind a trusted proxy is not known: the client is the peer.
pub(super) fn bad_head(
    gateway: &Gateway,
    client: &Client,
    head: &[u8],
    refusal: Refusal,
    began: tokio::time::Instant,
) -> Refusal {
    let (request_id, _) = gateway.next_request_id();
    let peer = client.connection.peer.ip().to_canonical();
    telemetry::bad_head(peer, &request_id, &refusal, began);
    if let Some(log) = &gateway.access_log {
        let Glimpse { method, target, version } = Glimpse::of(head);
        let connection = &client.connection;
        let about = About {
            time: SystemTime::now(),
            client: peer,
            request_id: request_id.clone(),
            method,
            target,
            http_version: version.into(),
            host: String::new(),
            scheme: connection.scheme,
            tls_version: connection.tls_version,
            referer: None,
            user_agent: None,
        };
        log.write(&Entry { status: refusal.status, duration: began.elapsed(), ..about.entry() });
    }
    refusal.with_id(&request_id)
}

/// The line of a handshake that was refused.
pub(super) fn refused(story: &Story<'_>, request: &UpgradeRequest, refusal: &Refusal) {
    let Some(log) = &story.gateway.access_log else { return };
    log.write(&Entry {
        status: refusal.status,
        // It may be the route that refused.
        route: story.route().map_or("", |route| &route.name),
        duration: story.began.elapsed(),
        ..About::new(story.facts, story.client, &request.headers).entry()
    });
}

/// The line of a handshake that its route answered by itself.
pub(super) fn local(story: &Story<'_>, request: &UpgradeRequest, answer: &Response<String>) {
    let Some(log) = &story.gateway.access_log else { return };
    log.write(&Entry {
        status: answer.status().as_u16(),
        route: story.route().map_or("", |route| &route.name),
        bytes_to_client: answer.body().len() as u64,
        duration: story.began.elapsed(),
        ..About::new(story.facts, story.client, &request.headers).entry()
    });
}

/// The line of a handshake that a server answered with something else than 101.
pub(super) fn answered(story: &Story<'_>, request: &UpgradeRequest, answered: &Answered) {
    let Some(log) = &story.gateway.access_log else { return };
    let Answer::Other(other) = &answered.answer else { return };
    log.write(&Entry {
        status: other.status,
        route: story.route().map_or("", |route| &route.name),
        upstream: Some(&answered.held.target.name),
        duration: story.began.elapsed(),
        upstream_time: Some(answered.upstream_time),
        ..About::new(story.facts, story.client, &request.headers).entry()
    });
}
