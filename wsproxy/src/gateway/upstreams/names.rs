//! What the servers of a configuration are in addresses.

use std::{
    collections::HashMap,
    net::SocketAddr,
    sync::{Arc, OnceLock, Weak},
    time::Duration,
};

use rustls::pki_types::ServerName;
use tokio::time::sleep;

use super::{
    UpstreamGroup,
    connect::{Target, TargetPlace},
};
use crate::{
    balance::{MAX_SERVERS, ServerConfig, ServerId},
    config::{self, Host, ServerPlace},
    resolve::{Answer, ResolveError, Resolver},
};

/// Before a name that could not be looked up is tried again.
const AGAIN: Duration = Duration::from_secs(2);
/// A look-up may take this long.
const PATIENCE: Duration = Duration::from_secs(10);

/// A server as it is balanced, and where it is.
#[derive(Debug, Clone)]
pub(super) struct Found {
    pub(super) server: ServerConfig,
    target: Arc<Target>,
}

/// Whether any server has to be looked up.
pub(super) fn has_names(config: &config::Upstream) -> bool {
    config.servers.iter().any(is_name)
}

fn is_name(server: &config::Server) -> bool {
    match &server.address.place {
        ServerPlace::Tcp(address) => matches!(address.host(), Host::Name(_)),
        ServerPlace::Srv(_) => true,
        ServerPlace::Unix(_) => false,
    }
}

/// Whether any server speaks TLS.
pub(super) fn needs_tls(config: &config::Upstream) -> bool {
    config.servers.iter().any(|server| server.address.tls)
}

/// Whether two configurations of a group list the same servers.
pub(super) fn same_names(one: &config::Upstream, other: &config::Upstream) -> bool {
    let addresses = |config: &config::Upstream| -> Vec<_> {
        config.servers.iter().map(|server| server.address.clone()).collect()
    };
    addresses(one) == addresses(other) && one.tls == other.tls
}

/// The servers that need no look-up.
pub(super) fn literal(config: &config::Upstream) -> Vec<Found> {
    config.servers.iter().filter_map(|server| literal_server(config, server)).collect()
}

fn literal_server(config: &config::Upstream, server: &config::Server) -> Option<Found> {
    let name = server.address.to_string();
    let place = match &server.address.place {
        ServerPlace::Unix(path) => TargetPlace::Unix(path.clone()),
        ServerPlace::Tcp(address) => match address.host() {
            Host::Ip(ip) => TargetPlace::Tcp(vec![SocketAddr::new(*ip, address.port())]),
            Host::Name(_) => return None,
        },
        ServerPlace::Srv(_) => return None,
    };
    Some(found(config, server, name, place, server.weight.get(), server.backup))
}

fn found(
    config: &config::Upstream,
    server: &config::Server,
    name: String,
    place: TargetPlace,
    weight: u32,
    backup: bool,
) -> Found {
    let name: Arc<str> = name.into();
    let host = match &server.address.place {
        ServerPlace::Tcp(address) => address.to_string(),
        ServerPlace::Srv(name) => name.clone(),
        ServerPlace::Unix(_) => "localhost".to_owned(),
    };
    let tls = server.address.tls.then(|| tls_name(config, server)).flatten();
    let target = Target { id: ServerId::of(&name), name: Arc::clone(&name), place, tls, host };
    Found {
        server: ServerConfig {
            name,
            weight,
            backup,
            max_connections: server.max_connections.map(config::Count::get),
            disabled: server.disabled,
        },
        target: Arc::new(target),
    }
}

fn tls_name(config: &config::Upstream, server: &config::Server) -> Option<ServerName<'static>> {
    let name = match (&config.tls.server_name, &server.address.place) {
        (Some(name), _) => name.clone(),
        (None, ServerPlace::Tcp(address)) => match address.host() {
            Host::Ip(ip) => ip.to_string(),
            Host::Name(name) => name.clone(),
        },
        (None, ServerPlace::Srv(name)) => name.clone(),
        (None, ServerPlace::Unix(_)) => return None,
    };
    ServerName::try_from(name).ok()
}

/// Where each of them is.
pub(super) fn targets(found: &[Found]) -> HashMap<ServerId, Arc<Target>> {
    found.iter().map(|found| (found.target.id, Arc::clone(&found.target))).collect()
}

/// The servers of a configuration at the places that are known of them.
pub(super) fn again(config: &config::Upstream, known: &[Arc<Target>]) -> Vec<Found> {
    let mut all = literal(config);
    for server in config.servers.iter().filter(|server| is_name(server)) {
        let prefix = format!("{} ", server.address);
        for target in known.iter().filter(|t| t.name.starts_with(&prefix)) {
            let weight = server.weight.get();
            let name = target.name.to_string();
            all.push(found(config, server, name, target.place.clone(), weight, server.backup));
        }
    }
    all
}

/// The resolver of this process.
fn resolver() -> &'static Resolver {
    static RESOLVER: OnceLock<Resolver> = OnceLock::new();
    RESOLVER.get_or_init(Resolver::system)
}

async fn ask(server: &config::Server) -> Result<Answer, ResolveError> {
    let question = async {
        match &server.address.place {
            ServerPlace::Srv(name) => resolver().service(name).await,
            ServerPlace::Tcp(address) => {
                let host = address.host().to_string();
                resolver().addresses(&host, address.port()).await
            }
            ServerPlace::Unix(_) => Err(ResolveError::NoAddresses { name: String::new() }),
        }
    };
    let late = || ResolveError::NoAnswer { name: server.address.to_string() };
    tokio::time::timeout(PATIENCE, question).await.unwrap_or_else(|_| Err(late()))
}

/// The servers that an answer stands for: one for each address, but a name of this machine is
/// one server, however many families it has.
fn of_answer(config: &config::Upstream, server: &config::Server, answer: &Answer) -> Vec<Found> {
    let local = answer.servers.iter().all(|resolved| resolved.address.ip().is_loopback());
    if local {
        let addresses: Vec<_> = answer.servers.iter().map(|resolved| resolved.address).collect();
        let name = format!("{} ", server.address).trim_end().to_owned();
        let place = TargetPlace::Tcp(addresses);
        return vec![found(config, server, name, place, server.weight.get(), server.backup)];
    }
    let is_srv = matches!(server.address.place, ServerPlace::Srv(_));
    let one = |resolved: &crate::resolve::Resolved| {
        let name = format!("{} {}", server.address, resolved.address);
        let weight = if is_srv { resolved.weight } else { server.weight.get() };
        let backup = server.backup || (is_srv && resolved.backup);
        found(config, server, name, TargetPlace::Tcp(vec![resolved.address]), weight, backup)
    };
    answer.servers.iter().map(one).collect()
}

/// Looks all names of a group up and puts what was found into it; returns when to do so again.
pub(super) async fn look_up(group: &Arc<UpstreamGroup>) -> Duration {
    let config = &group.config;
    let named: Vec<_> = config.servers.iter().filter(|server| is_name(server)).collect();
    let answers = futures_util::future::join_all(named.iter().map(|server| ask(server))).await;
    let known: Vec<_> = group.state.load().targets.values().cloned().collect();
    let mut next = config.resolve.get();
    let mut all = literal(config);
    for (server, answer) in named.iter().zip(answers) {
        match answer {
            Ok(answer) => {
                next = next.min(answer.valid_for);
                all.extend(of_answer(config, server, &answer));
            }
            Err(error) => {
                tracing::warn!(upstream = %config.name, server = %server.address, %error,
                    "the name of a server can't be looked up; what was known of it stays");
                next = next.min(AGAIN);
                let exact = server.address.to_string();
                let prefix = format!("{exact} ");
                let mine = |t: &&Arc<Target>| *t.name == *exact || t.name.starts_with(&prefix);
                for target in known.iter().filter(mine) {
                    let (name, place) = (target.name.to_string(), target.place.clone());
                    let weight = server.weight.get();
                    all.push(found(config, server, name, place, weight, server.backup));
                }
            }
        }
    }
    all.truncate(MAX_SERVERS);
    if changed(&known, &all) {
        tracing::info!(upstream = %config.name, servers = all.len(), "servers looked up");
        group.replace(&all);
    }
    next
}

/// Whether what was found differs from what is known.
fn changed(known: &[Arc<Target>], found: &[Found]) -> bool {
    let same = |found: &Found| {
        known.iter().any(|t| t.id == found.target.id && t.place == found.target.place)
    };
    known.len() != found.len() || !found.iter().all(same)
}

/// Looks a group's names up for as long as it exists.
pub(super) async fn follow(group: Weak<UpstreamGroup>) {
    loop {
        let Some(strong) = group.upgrade() else { return };
        let next = look_up(&strong).await;
        drop(strong);
        sleep(next).await;
    }
}
