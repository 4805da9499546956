//! What a valid configuration says about routes.

use std::path::PathBuf;

use super::model::Ping;
use super::network::Access;
use super::rate::Rate;
use super::reader::Given;
use super::template::Template;
use super::{BodyLimit, Burst, MaxSessions, MessageLimit, Wait};

/// `[[route]]`
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Route {
    /// What the log calls it.
    pub name: String,
    /// Names of listeners; empty: all.
    pub listeners: Vec<String>,
    /// Empty: every host.
    pub hosts: Vec<HostPattern>,
    /// Begins with `/`.
    pub path: String,
    /// `path` alone.
    pub exact: bool,
    /// What is done.
    pub action: Action,
    /// Who may.
    pub access: Access,
    /// Live sessions.
    pub max_sessions: Option<MaxSessions>,
    /// Of one client.
    pub max_sessions_per_client: Option<MaxSessions>,
    /// Of one client.
    pub handshake_rate: Option<Rate>,
    /// At once.
    pub handshake_burst: Burst,
    /// Of the request to the upstream.
    pub request_headers: HeaderChanges,
    /// Of the answer to the client.
    pub response_headers: HeaderChanges,
}

impl Route {
    /// Everything, to one upstream.
    #[must_use]
    pub fn everything_to(upstream: impl Into<String>) -> Self {
        Self {
            name: "default".to_owned(),
            listeners: Vec::new(),
            hosts: Vec::new(),
            path: "/".to_owned(),
            exact: false,
            action: Action::Upstream(Forward::to(upstream)),
            access: Access::default(),
            max_sessions: None,
            max_sessions_per_client: None,
            handshake_rate: None,
            handshake_burst: Burst::of::<20>(),
            request_headers: HeaderChanges::default(),
            response_headers: HeaderChanges::default(),
        }
    }
}

/// Which hosts.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum HostPattern {
    /// This one; in lower case, without a port.
    Exact(String),
    /// `*.suffix`: everything that ends with `.suffix`.
    Below(String),
}

/// What is done with a request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Action {
    /// A server gets it.
    Upstream(Forward),
    /// Files below a directory.
    Files {
        /// The directory.
        root: Given<PathBuf>,
        /// For a directory.
        index: Vec<String>,
        /// What is tried in turn.
        fallback: Vec<String>,
    },
    /// Somewhere else.
    Redirect {
        /// Where.
        to: Template,
        /// How.
        status: u16,
    },
    /// A fixed answer.
    Respond {
        /// Its status.
        status: u16,
        /// Its text.
        body: String,
    },
}

/// How a request goes to an upstream.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Forward {
    /// The group's name.
    pub upstream: String,
    /// In the place of the route's path.
    pub rewrite: Option<String>,
    /// Which requests.
    pub websocket: WebSocketRule,
    /// `Host`.
    pub host: HostHeader,
    /// Which origins; none: every one.
    pub origins: Option<Vec<Origin>>,
    /// Which subprotocols; none: all.
    pub subprotocols: Option<Vec<String>>,
    /// Instead of the general one.
    pub connect: Option<Wait>,
    /// Instead of the general one.
    pub answer: Option<Wait>,
    /// Instead of the general one.
    pub idle: Option<Option<Wait>>,
    /// Longest session.
    pub lifetime: Option<Wait>,
    /// Whether the frames of sessions are followed; what follows here needs it.
    pub frames: bool,
    /// A side that breaks the framing (RFC 6455 section 5) is closed with 1002.
    pub enforce_framing: bool,
    /// A side whose message is longer is closed with 1009; none: any length.
    pub max_message: Option<MessageLimit>,
    /// A side that sends a longer frame is closed with 1009; none: any length.
    pub max_frame: Option<MessageLimit>,
    /// Whether silent sides are alive; what the route does not say is the general one's. Never
    /// with an interval where `frames` is false.
    pub ping: Ping,
    /// Whether its sessions may go the packet path.
    pub packets: bool,
    /// Longest body of a plain request; none: any.
    pub body_limit: Option<BodyLimit>,
}

impl Forward {
    /// With the defaults.
    #[must_use]
    pub fn to(upstream: impl Into<String>) -> Self {
        Self {
            upstream: upstream.into(),
            rewrite: None,
            websocket: WebSocketRule::Allow,
            host: HostHeader::Keep,
            origins: None,
            subprotocols: None,
            connect: None,
            answer: None,
            idle: None,
            lifetime: None,
            frames: true,
            enforce_framing: false,
            max_message: None,
            max_frame: None,
            ping: Ping::default(),
            packets: true,
            body_limit: Some(BodyLimit::of::<{ 1 << 20 }>()),
        }
    }
}

/// Which requests a route takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum WebSocketRule {
    /// Handshakes and others.
    Allow,
    /// Handshakes.
    Only,
    /// Others.
    Deny,
}

/// The `Host` that the upstream sees.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum HostHeader {
    /// The client's.
    Keep,
    /// The server's own address.
    Upstream,
    /// This one.
    Fixed(String),
}

/// An `Origin` that is let in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Origin {
    /// This one, in lower case.
    Exact(String),
    /// `scheme://*.rest`: every subdomain.
    Below {
        /// With `://`.
        scheme: String,
        /// With the dot in front of it, and the port.
        suffix: String,
    },
    /// The word `null`.
    Null,
    /// None at all.
    Missing,
}

/// What is changed about headers.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct HeaderChanges {
    /// In place of those that are there.
    pub set: Vec<(String, Template)>,
    /// Beside those that are there.
    pub add: Vec<(String, Template)>,
    /// In lower case.
    pub remove: Vec<String>,
}

impl HeaderChanges {
    /// Whether there is anything to do.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.set.is_empty() && self.add.is_empty() && self.remove.is_empty()
    }
}
