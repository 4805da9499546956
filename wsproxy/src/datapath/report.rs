//! What the datapath tells of its sessions.

use std::{any::Any, io, time::Duration};

use serde_json::Value;
use wsproxy_common::cursor::Counts;

use super::{Companion, Path, SessionMeta, session::CLIENT};
use crate::sys::TcpView;

/// Who ended a session, and how.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ending {
    /// Both streams ended; the client's first.
    ClientFinished,
    /// Both streams ended; the upstream's first.
    UpstreamFinished,
    /// The client's connection broke (reset, or no answer any more).
    ClientBroke,
    /// The upstream's connection broke.
    UpstreamBroke,
    /// Nothing moved for `timeouts.idle`.
    Idle,
    /// It lasted as long as its route lets it.
    Lifetime,
    /// An operator closed it.
    Closed,
    /// Its server was found dead, and the operator wants it closed then.
    ServerDead,
    /// wsproxy is stopping.
    Drained,
    /// A side did not answer a Ping.
    DeadPeer,
    /// A side broke the framing, where that is enforced.
    BadFrame,
    /// A frame or a message was over its limit.
    TooBig,
    /// One side had ended, and nothing moved for `timeouts.half_closed`.
    HalfClosed,
    /// The socket could not be watched (out of memory or descriptors).
    Failed,
}

impl Ending {
    /// All of them.
    pub const ALL: [Self; 14] = [
        Self::ClientFinished,
        Self::UpstreamFinished,
        Self::ClientBroke,
        Self::UpstreamBroke,
        Self::Idle,
        Self::Lifetime,
        Self::Closed,
        Self::ServerDead,
        Self::Drained,
        Self::DeadPeer,
        Self::BadFrame,
        Self::TooBig,
        Self::HalfClosed,
        Self::Failed,
    ];

    /// Label for metrics and logs.
    #[must_use]
    pub const fn label(self) -> &'static str {
        match self {
            Self::ClientFinished => "client_finished",
            Self::UpstreamFinished => "upstream_finished",
            Self::ClientBroke => "client_broke",
            Self::UpstreamBroke => "upstream_broke",
            Self::Idle => "idle_timeout",
            Self::Lifetime => "lifetime",
            Self::Closed => "closed",
            Self::ServerDead => "server_dead",
            Self::Drained => "drained",
            Self::DeadPeer => "dead_peer",
            Self::BadFrame => "bad_frame",
            Self::TooBig => "too_big",
            Self::HalfClosed => "half_closed",
            Self::Failed => "failed",
        }
    }
}

/// Bytes of one direction by what carried them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Carried {
    /// Redirected by BPF.
    pub kernel: u64,
    /// Copied by user space.
    pub relay: u64,
    /// Acknowledged by the receiver, on the packet path.
    pub packet: u64,
}

impl Carried {
    /// All.
    #[must_use]
    pub const fn total(self) -> u64 {
        self.kernel + self.relay + self.packet
    }
}

/// The end of a session.
#[derive(Clone, Debug)]
pub struct SessionEnd {
    /// What was handed over with it.
    pub meta: SessionMeta,
    /// What carried it.
    pub path: Path,
    /// From the hand-over.
    pub duration: Duration,
    /// From client to upstream.
    pub to_upstream: Carried,
    /// From upstream to client.
    pub to_client: Carried,
    /// Who ended it.
    pub ending: Ending,
    /// Ended by a reset, not by FINs.
    pub reset: bool,
    /// The system's word for it, where there is one.
    pub error: Option<String>,
    /// What passed, client's direction first; `None`: its frames were not followed.
    pub counts: Option<[Counts; 2]>,
    /// What each side did wrong: bits of `cursor::violation`.
    pub violations: [u16; 2],
    /// Codes of Close frames.
    pub codes: CloseCodes,
}

/// Codes of the Close frames of a session; 0: none, or one without a code.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CloseCodes {
    /// The client's own.
    pub of_client: u16,
    /// The upstream's own.
    pub of_upstream: u16,
    /// What we told the client.
    pub to_client: u16,
    /// What we told the upstream.
    pub to_upstream: u16,
}

/// A side of a session.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Side {
    /// The client.
    Client,
    /// The upstream server.
    Upstream,
}

impl Side {
    pub(super) const fn of(index: usize) -> Self {
        if index == CLIENT { Self::Client } else { Self::Upstream }
    }

    /// Label for metrics.
    #[must_use]
    pub const fn label(self) -> &'static str {
        match self {
            Self::Client => "client",
            Self::Upstream => "upstream",
        }
    }
}

/// What is known of a session's frames.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FrameState {
    /// They are followed.
    On,
    /// They are not.
    Off,
    /// They were, up to one that makes no sense.
    Lost,
}

impl FrameState {
    /// Label for people.
    #[must_use]
    pub const fn label(self) -> &'static str {
        match self {
            Self::On => "on",
            Self::Off => "off",
            Self::Lost => "lost",
        }
    }
}

/// A running session, for people to look at. Pairs: the client's side or direction first.
#[derive(Clone, Debug)]
pub struct SessionInfo {
    /// What was handed over with it.
    pub meta: SessionMeta,
    /// What carries it.
    pub path: Path,
    /// Since the hand-over.
    pub age: Duration,
    /// From client to upstream.
    pub to_upstream: Carried,
    /// From upstream to client.
    pub to_client: Carried,
    /// Whether the kernel owns each direction at this moment.
    pub in_kernel: [bool; 2],
    /// Since a byte moved.
    pub idle: Duration,
    /// Whether its frames are followed.
    pub frames: FrameState,
    /// What has passed.
    pub counts: [Counts; 2],
    /// Round trip of the last Ping to each side.
    pub ping_rtt: [Option<Duration>; 2],
    /// Times that the kernel gave a direction back.
    pub diversions: u32,
    /// Why it is being closed.
    pub closing: Option<Ending>,
    /// TCP's own view of each side; `None`: not asked for, or no TCP socket.
    pub tcp: [Option<TcpView>; 2],
}

/// Told of what happens, on the datapath's own threads: be quick.
pub trait Observer: Send + Sync {
    /// A session is over.
    fn ended(&self, end: &SessionEnd, companion: Option<Companion>);
    /// A session could not take the kernel path and is relayed.
    fn fell_back(&self, meta: &SessionMeta, reason: &'static str, error: &io::Error);
    /// What the next process needs to make this companion again ([`Self::restored`]); asked for
    /// when the session comes where it can outlive this process ([`super::Options::persist`]).
    fn saved(&self, _companion: &(dyn Any + Send + Sync)) -> Value {
        Value::Null
    }
    /// A session that an earlier process left goes on: its companion, out of what that process
    /// has saved of it. Asked for within [`super::Datapath::start`], on its caller's thread.
    fn restored(&self, _meta: &SessionMeta, _saved: &Value) -> Option<Companion> {
        None
    }
    /// A Ping was sent.
    fn pinged(&self, _to: Side) {}
    /// It was answered, after so long.
    fn answered(&self, _by: Side, _after: Duration) {}
}
