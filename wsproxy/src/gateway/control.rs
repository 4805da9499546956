//! What an operator may ask of a running gateway, and tell it: the admin socket's questions.

use std::{sync::Arc, time::Duration};

use serde_json::{Value, json};

use tokio::sync::{mpsc, oneshot};

use wsproxy_common::cursor::close_code_may_travel;

use super::{Gateway, supervision, upstreams::Order};
use crate::{
    datapath::{Ending, Farewell, FrameState, MOST_REASON, Path, SessionInfo, Which},
    sys::TcpView,
};

/// Most sessions that are listed at a time.
const MOST_LISTED: usize = 10_000;

/// An order that could not be carried out: what is told to the operator.
#[derive(Debug, PartialEq, Eq)]
pub struct NoSuch(pub String);

/// What an operator wants of the whole process.
#[derive(Debug)]
pub enum OperatorOrder {
    /// The configuration is to be read again; who asked waits to hear how that went.
    Reload(oneshot::Sender<Result<(), String>>),
    /// An orderly stop, as after SIGTERM.
    Stop,
}

/// A running gateway as its operator sees it.
#[derive(Clone)]
pub struct Control {
    pub(super) gateway: Arc<Gateway>,
    pub(super) orders: mpsc::Sender<OperatorOrder>,
}

impl Control {
    /// Lets the configuration be read again.
    ///
    /// # Errors
    /// Everything wrong with it; the old one stays in force.
    pub async fn reload(&self) -> Result<(), String> {
        let gone = || "wsproxy is stopping".to_owned();
        let (sender, answer) = oneshot::channel();
        self.orders.send(OperatorOrder::Reload(sender)).await.map_err(|_| gone())?;
        answer.await.unwrap_or_else(|_| Err(gone()))
    }

    /// Stops the gateway as SIGTERM does: sessions are closed one by one, then the process ends.
    ///
    /// # Errors
    /// It is stopping already.
    pub async fn drain(&self) -> Result<Value, NoSuch> {
        let sent = self.orders.send(OperatorOrder::Stop).await;
        sent.map_err(|_| NoSuch("wsproxy is stopping".to_owned()))?;
        Ok(json!({ "draining": true }))
    }

    /// How the gateway is.
    #[must_use]
    pub fn status(&self) -> Value {
        let gateway = &self.gateway;
        let setup = gateway.setup.load();
        let live = |path| gateway.datapath.live(path);
        let listeners = setup.config.listeners.iter().map(|listener| {
            let count = setup.listeners.get(&listener.name).map_or(0, |l| l.count.live());
            json!({ "name": listener.name, "address": listener.address.to_string(),
                    "tls": listener.tls.is_some(), "sessions": count })
        });
        let routes = setup
            .routes
            .iter()
            .map(|route| json!({ "name": &*route.name, "sessions": route.count.live() }));
        json!({
            "version": env!("CARGO_PKG_VERSION"),
            "uptime_s": gateway.epoch.elapsed().as_secs(),
            "datapath": gateway.datapath.path().label(),
            "sessions": {
                "sockmap": live(Path::Sockmap),
                "relay": live(Path::Relay),
                "packet": live(Path::Packet),
            },
            "privileges": gateway.privileges.status(),
            "sessions_total": gateway.datapath.started(),
            "listeners": listeners.collect::<Vec<_>>(),
            "routes": routes.collect::<Vec<_>>(),
        })
    }

    /// The groups and their servers.
    #[must_use]
    pub fn upstreams(&self) -> Value {
        let setup = self.gateway.setup.load();
        let groups = setup.config.upstreams.iter().filter_map(|config| {
            let group = setup.upstreams.get(&config.name)?;
            let servers = group.status().into_iter().map(|server| {
                json!({ "name": &*server.name, "state": server.state.label(),
                        "live": server.live, "total": server.total,
                        "failures": server.failures, "weight": server.weight,
                        "backup": server.backup, "max_connections": server.max_connections })
            });
            Some(json!({ "name": config.name, "waiting": group.waiting(), "servers": servers.collect::<Vec<_>>() }))
        });
        Value::Array(groups.collect())
    }

    /// The running sessions, the longest first, with TCP's own view of them if wanted. Asks the
    /// threads that own them: may take 2 s.
    #[must_use]
    pub fn sessions(&self, with_tcp: bool) -> Value {
        let datapath = &self.gateway.datapath;
        let mut sessions =
            if with_tcp { datapath.sessions_with_tcp() } else { datapath.sessions() };
        sessions.sort_by_key(|session| session.meta.id);
        let total = sessions.len();
        let listed = sessions.into_iter().take(MOST_LISTED).map(|session| {
            let mut shown = json!({
                "id": session.meta.id,
                "client": session.meta.client.to_string(),
                "upstream": &*session.meta.upstream,
                "route": &*session.meta.route,
                "datapath": session.path.label(),
                "age_s": session.age.as_secs(),
                "bytes_to_upstream": session.to_upstream.total(),
                "bytes_to_client": session.to_client.total(),
                "packet_bytes_to_upstream": session.to_upstream.packet,
                "packet_bytes_to_client": session.to_client.packet,
                "in_kernel": session.in_kernel,
                "owner_to_upstream": owner(&session, 0),
                "owner_to_client": owner(&session, 1),
                "idle_ms": u64::try_from(session.idle.as_millis()).unwrap_or(u64::MAX),
                "frames": session.frames.label(),
                "messages_to_upstream": messages(&session, 0),
                "messages_to_client": messages(&session, 1),
                "ping_rtt_us_client": session.ping_rtt[0].map(|rtt| rtt.as_micros() as u64),
                "ping_rtt_us_upstream": session.ping_rtt[1].map(|rtt| rtt.as_micros() as u64),
                "diversions": session.diversions,
                "closing": session.closing.map(Ending::label),
            });
            if with_tcp {
                shown["tcp"] =
                    json!({ "client": tcp(session.tcp[0]), "upstream": tcp(session.tcp[1]) });
            }
            shown
        });
        json!({ "total": total, "sessions": listed.collect::<Vec<_>>() })
    }

    /// `enable`, `drain` or `disable` for a server, in every group that has it, or in `group`.
    /// A server is meant by its name or by the address in the configuration.
    ///
    /// # Errors
    /// No server has this name, or there is no such order.
    pub fn order(&self, order: &str, server: &str, group: Option<&str>) -> Result<Value, NoSuch> {
        let order = match order {
            "enable" => Order::Enable,
            "drain" => Order::Drain,
            "disable" => Order::Disable,
            other => return Err(NoSuch(format!("no such order: {other}"))),
        };
        let setup = self.gateway.setup.load();
        let chosen =
            setup.upstreams.iter().filter(|g| group.is_none_or(|name| g.config.name == name));
        let told: usize = chosen.map(|group| group.order(server, order)).sum();
        if told == 0 {
            return Err(NoSuch(format!("no server has the name {server}")));
        }
        tracing::info!(server, ?order, servers = told, "an order of the operator");
        Ok(json!({ "servers": told }))
    }

    /// Closes a session in order; both sides are told `code` and `reason`, or what `[drain]` says.
    ///
    /// # Errors
    /// There is none of this number, or the code or the reason can't be sent.
    pub fn close_session(
        &self,
        id: u64,
        code: Option<u16>,
        reason: Option<&str>,
    ) -> Result<Value, NoSuch> {
        if code.is_some_and(|code| !close_code_may_travel(code)) {
            let text = "a Close frame has a code from 1000 to 1003, 1007 to 1014 or 3000 to 4999";
            return Err(NoSuch(text.to_owned()));
        }
        if reason.is_some_and(|reason| reason.len() > MOST_REASON) {
            return Err(NoSuch(format!("a reason has at most {MOST_REASON} bytes")));
        }
        if !self.gateway.datapath.sessions().iter().any(|session| session.meta.id == id) {
            return Err(NoSuch(format!("no session has the number {id}")));
        }
        let which: Which = Arc::new(move |meta| meta.id == id);
        let setup = self.gateway.setup.load();
        let mut farewell = supervision::farewell(&setup.config.drain);
        if let Some(code) = code {
            farewell = Farewell::new(code, reason.unwrap_or_default());
        } else if let Some(reason) = reason {
            farewell.reason = reason.into();
        }
        self.gateway.datapath.close(&which, Ending::Closed, &farewell, Some(Duration::ZERO));
        tracing::info!(session = id, "closed by the operator");
        Ok(json!({ "closed": id }))
    }

    /// Closes the sessions of a server in order.
    ///
    /// # Errors
    /// It has none.
    pub fn close_sessions_of(&self, server: &str) -> Result<Value, NoSuch> {
        let sessions = self.gateway.datapath.sessions();
        let count = sessions.iter().filter(|session| *session.meta.upstream == *server).count();
        if count == 0 {
            return Err(NoSuch(format!("no session is at a server of the name {server}")));
        }
        let name = server.to_owned();
        let which: Which = Arc::new(move |meta| *meta.upstream == *name);
        let setup = self.gateway.setup.load();
        let drain = &setup.config.drain;
        let (farewell, window) = (supervision::farewell(drain), supervision::window(drain));
        self.gateway.datapath.close(&which, Ending::Closed, &farewell, Some(window));
        tracing::info!(server, sessions = count, "closed by the operator");
        Ok(json!({ "closed": count }))
    }
}

/// What carries a direction now.
fn owner(session: &SessionInfo, direction: usize) -> &'static str {
    match (session.path, session.in_kernel[direction]) {
        (Path::Packet, _) => "packet",
        (_, true) => "kernel",
        (_, false) => "relay",
    }
}

/// TCP's view of a side; null where there is none.
fn tcp(view: Option<TcpView>) -> Value {
    view.map_or(Value::Null, |view| {
        json!({ "rtt_us": view.rtt_us, "retransmissions": view.retransmissions,
                "unsent": view.unsent })
    })
}

/// Messages of a direction; `None` where they are not counted.
fn messages(session: &SessionInfo, direction: usize) -> Option<u64> {
    (session.frames != FrameState::Off).then(|| session.counts[direction].messages())
}
