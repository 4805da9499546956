//! Listening sockets and what comes in at them.

use std::{collections::HashMap, io, net::SocketAddr, sync::Arc, time::Duration};

use tokio::{sync::Semaphore, task::JoinHandle};

use super::{
    Client, Gateway, access,
    arrival::{self, Arrived, Turned},
    connection,
    listen::{self, Accepted, Listening, NewDoor},
    segments,
    setup::Setup,
    stream::{NOWHERE, Stream},
    workers::Workers,
};
use crate::{
    config::{ListenOn, Listener},
    forwarding::Connection,
    handshake::Refusal,
};

/// After a failed accept for want of descriptors or memory.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);
/// Refusals over the session limit at the same time; beyond, connections are just closed.
const REFUSALS_AT_ONCE: usize = 64;
/// What a client over the session limit is told to wait, in s.
const RETRY_AFTER_S: u32 = 5;

/// An address that can't be listened on.
#[derive(Debug)]
pub struct CannotListen {
    /// The address.
    pub address: ListenOn,
    /// Why.
    pub error: io::Error,
}

/// The listening sockets of a gateway, and the threads that accept there and serve.
pub(super) struct Listeners {
    workers: Workers,
    /// By the listener's name; the address it was opened at.
    open: HashMap<String, Open>,
}

struct Open {
    address: ListenOn,
    /// Where it listens indeed.
    at: Option<SocketAddr>,
    tasks: Vec<JoinHandle<()>>,
}

impl Listeners {
    /// None yet.
    pub(super) fn new(workers: Workers) -> Self {
        Self { workers, open: HashMap::new() }
    }

    /// Opens what `setup` has and is not open yet. Nothing changes where one fails.
    pub(super) fn prepare(
        &self,
        setup: &Setup,
    ) -> Result<Vec<(Listener, Listening)>, CannotListen> {
        open_missing(setup, self.workers.count(), |listener| {
            let known = self.open.get(&listener.name);
            known.is_some_and(|open| open.address == listener.address)
        })
    }

    /// Begins to accept at the new sockets, and stops at those that `setup` has not.
    pub(super) fn apply(
        &mut self,
        gateway: &Arc<Gateway>,
        setup: &Setup,
        opened: Vec<(Listener, Listening)>,
    ) {
        self.open.retain(|name, open| {
            let listener = setup.listeners.get(name);
            let stays = listener.is_some_and(|l| l.config.address == open.address);
            if !stays {
                tracing::info!(listener = name, address = %open.address, "listener closed");
                open.close();
            }
            stays
        });
        for (listener, socket) in opened {
            // Port 0 is any free one, so the socket knows better than the configuration.
            let at = socket.address();
            let shown = at.map_or_else(|| listener.address.to_string(), |at| at.to_string());
            let tls = listener.tls.is_some();
            tracing::info!(listener = listener.name, address = shown, tls, "listener opened");
            let refusals = Arc::new(Semaphore::new(REFUSALS_AT_ONCE));
            let serve = |(worker, door)| {
                let (name, refusals) = (listener.name.clone(), Arc::clone(&refusals));
                self.workers.spawn_on(worker, accept(Arc::clone(gateway), name, door, refusals))
            };
            let tasks = socket.doors().into_iter().enumerate().map(serve).collect();
            self.open.insert(listener.name, Open { address: listener.address, at, tasks });
        }
    }

    /// The threads.
    pub(super) const fn workers(&self) -> &Workers {
        &self.workers
    }

    /// Where a listener listens, for those that chose any free port.
    pub(super) fn address(&self, name: &str) -> Option<SocketAddr> {
        self.open.get(name)?.at
    }

    /// Stops accepting; what is being accepted is finished, for as long as the threads are there
    /// that are returned.
    pub(super) async fn close(mut self) -> Workers {
        for (_, mut open) in self.open.drain() {
            open.close();
            for task in open.tasks.drain(..) {
                // Aborted or done, both are the end we want.
                let _ = task.await;
            }
        }
        self.workers
    }
}

/// Opens for so many workers what `setup` has and is not open yet.
pub(super) fn open_missing(
    setup: &Setup,
    workers: usize,
    is_open: impl Fn(&Listener) -> bool,
) -> Result<Vec<(Listener, Listening)>, CannotListen> {
    let mut opened = Vec::new();
    for listener in setup.config.listeners.iter().filter(|listener| !is_open(listener)) {
        let max_segment = segments::of_listener(&setup.config.datapath, listener);
        let socket = listen::open(listener, setup.tcp, max_segment, workers)
            .map_err(|error| CannotListen { address: listener.address.clone(), error })?;
        opened.push((listener.clone(), socket));
    }
    Ok(opened)
}

impl Open {
    fn close(&self) {
        self.tasks.iter().for_each(JoinHandle::abort);
        if let ListenOn::Unix(path) = &self.address {
            // Gone already: that is what we want.
            let _ = std::fs::remove_file(path);
        }
    }
}

async fn accept(gateway: Arc<Gateway>, name: String, door: NewDoor, refusals: Arc<Semaphore>) {
    let door = match door.open() {
        Ok(door) => door,
        Err(error) => {
            tracing::error!(listener = name, %error, "a thread can't accept here");
            return;
        }
    };
    loop {
        let accepted = tokio::select! {
            accepted = door.accept() => accepted,
            () = gateway.until_stopped() => return,
        };
        match accepted {
            Ok(accepted) => {
                gateway.metrics.accepted.inc();
                begin(&gateway, &name, accepted, &refusals);
            }
            Err(error) => {
                let reason = accept_error(&error);
                gateway.metrics.accept_errors.with_label_values(&[reason]).inc();
                if reason != "aborted" {
                    tracing::warn!(listener = name, %error, "accept failed; pausing");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                }
            }
        }
    }
}

fn accept_error(error: &io::Error) -> &'static str {
    match error.raw_os_error() {
        Some(libc::EMFILE | libc::ENFILE) => "descriptors",
        Some(libc::ENOBUFS | libc::ENOMEM) => "memory",
        Some(libc::ECONNABORTED | libc::EPROTO | libc::EPERM) => "aborted",
        _ => "other",
    }
}

fn begin(gateway: &Arc<Gateway>, name: &str, accepted: Accepted, refusals: &Arc<Semaphore>) {
    let setup = gateway.setup.load();
    // Gone from the configuration a moment ago: so is its socket.
    let Some(listener) = setup.listeners.get(name).cloned() else { return };
    drop(setup);
    let gateway = Arc::clone(gateway);
    let Some(place) = gateway.datapath.reserve() else {
        let refusal = Refusal::session_limit(RETRY_AFTER_S);
        let permit = Arc::clone(refusals).try_acquire_owned();
        match (permit, accepted, &listener.tls) {
            // A refusal in plain means nothing to who expects TLS.
            (Ok(permit), Accepted::Tcp(stream, peer), None) => {
                let connection = Connection {
                    peer,
                    local: NOWHERE,
                    scheme: "http",
                    tls_name: None,
                    tls_version: None,
                };
                let client = Client { connection, listener };
                // It has said nothing yet, and nobody waits for it.
                let began = tokio::time::Instant::now();
                let refusal = access::bad_head(&gateway, &client, b"", refusal, began);
                tokio::spawn(async move {
                    let stream = Stream::Tcp(stream);
                    connection::refuse(&gateway, stream, &client, &refusal).await;
                    drop(permit);
                });
            }
            _ => {
                let reason = refusal.reason.label();
                gateway.metrics.handshake_failures.with_label_values(&[reason]).inc();
            }
        }
        return;
    };
    tokio::spawn(async move {
        // TLS handshakes and PROXY headers end with the gateway, requests by themselves.
        let arrived = tokio::select! {
            arrived = arrival::arrive(&gateway, listener, accepted) => arrived,
            () = gateway.until_stopped() => Err(Turned("stopping")),
        };
        match arrived {
            Ok(Arrived { stream, client, received }) => {
                connection::serve(gateway, stream, Arc::new(client), received, place).await;
            }
            Err(Turned(reason)) => {
                gateway.metrics.handshake_failures.with_label_values(&[reason]).inc();
            }
        }
    });
}
