//! `[[listener]]`: what servers share an address, and which of them gets which host.

use std::collections::{HashMap, HashSet};

use super::notes::Notes;
use super::render::{Entries, Section, Value};
use super::servers::{At, Listen, Server};
use super::units::absolute;

/// Where nginx looks for relative paths, as Linux packages build it.
pub(super) const PREFIX: &str = "/etc/nginx";

/// A listener in the making.
#[derive(Debug)]
pub(super) struct Listener {
    pub name: String,
    pub tls: bool,
    address: String,
    /// Numbers of servers, the default one first.
    servers: Vec<usize>,
    /// Whether one says that it is the default.
    explicit: bool,
    origin: String,
    backlog: Option<u64>,
    reuseport: bool,
    proxy_protocol: bool,
    certificates: Vec<(String, String)>,
}

/// Which requests a server gets.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Share {
    /// Numbers of listeners.
    pub listeners: Vec<usize>,
    /// Empty: every host that nobody else has.
    pub hosts: Vec<String>,
}

/// The listeners of all servers.
#[derive(Debug, Default)]
pub(super) struct Plan {
    pub listeners: Vec<Listener>,
}

impl Plan {
    pub(super) fn new(servers: &[Server<'_>], notes: &Notes) -> Self {
        let wild = wildcards(servers);
        let mut keys: HashMap<At, usize> = HashMap::new();
        let mut groups: Vec<(At, Vec<(usize, &Listen<'_>)>)> = Vec::new();
        for (number, server) in servers.iter().enumerate() {
            for listen in &server.listens {
                let Some(key) = key(listen, &wild, notes) else { continue };
                let at = *keys.entry(key.clone()).or_insert_with(|| {
                    groups.push((key, Vec::new()));
                    groups.len() - 1
                });
                groups[at].1.push((number, listen));
            }
        }
        let mut plan = Self::default();
        for (key, users) in &groups {
            let listener = plan.listener(key, users, servers, wild.get(&port(key)), notes);
            plan.listeners.extend(listener);
        }
        plan
    }

    fn listener(
        &self,
        key: &At,
        users: &[(usize, &Listen<'_>)],
        servers: &[Server<'_>],
        wild: Option<&(bool, bool)>,
        notes: &Notes,
    ) -> Option<Listener> {
        let (_, first) = users.first()?;
        let default = users.iter().find(|(_, listen)| listen.default);
        let explicit = default.is_some();
        let (default, _) = default.or(users.first())?;
        let mut numbers = vec![*default];
        for (number, _) in users {
            if numbers.last() != Some(number) && *number != *default {
                numbers.push(*number);
            }
        }
        let tls = users.iter().any(|(_, listen)| listen.ssl);
        let certificates = if tls { certificates(&numbers, servers, notes) } else { Vec::new() };
        if tls && certificates.is_empty() {
            let message = "left out: it has no certificate, see listener.tls.certificates";
            notes.unsupported(first.directive, message);
            return None;
        }
        let address = match key {
            At::Any { port, .. } => match wild {
                Some((true, true)) => format!(":{port}"),
                Some((false, true)) => format!("[::]:{port}"),
                _ => format!("0.0.0.0:{port}"),
            },
            At::Tcp(address) => address.to_string(),
            At::Unix(path) => format!("unix:{path}"),
        };
        if address.starts_with("[::]:") {
            notes.changed(first.directive, "takes IPv4 too");
        }
        Some(Listener {
            name: self.free_name(&name(key, tls)),
            tls,
            address,
            servers: numbers,
            explicit,
            origin: first.directive.origin(),
            backlog: users.iter().find_map(|(_, listen)| listen.backlog),
            reuseport: users.iter().any(|(_, listen)| listen.reuseport),
            proxy_protocol: users.iter().any(|(_, listen)| listen.proxy_protocol),
            certificates,
        })
    }

    fn free_name(&self, name: &str) -> String {
        let taken = |name: &str| self.listeners.iter().any(|listener| listener.name == name);
        let mut free = name.to_owned();
        let mut number = 2;
        while taken(&free) {
            free = format!("{name}-{number}");
            number += 1;
        }
        free
    }

    /// Which requests each server gets.
    pub(super) fn shares(&self, servers: &[Server<'_>], notes: &Notes) -> Vec<Vec<Share>> {
        let mut shares: Vec<Vec<Share>> = vec![Vec::new(); servers.len()];
        for (at, listener) in self.listeners.iter().enumerate() {
            let mut taken: HashSet<&str> = HashSet::new();
            for (position, number) in listener.servers.iter().enumerate() {
                let server = &servers[*number];
                let hosts: Vec<String> =
                    server.names.iter().filter(|name| taken.insert(name)).cloned().collect();
                if hosts.len() < server.names.len() {
                    let message = "some of its names belong to another server of this address";
                    notes.changed(server.directive, message);
                }
                let is_default = position == 0;
                let others = || listener.servers[1..].iter().map(|number| &servers[*number]);
                let Some(hosts) = listener.hosts(server, hosts, is_default, others, notes) else {
                    continue;
                };
                let list = &mut shares[*number];
                match list.iter_mut().find(|share| share.hosts == hosts) {
                    Some(share) => share.listeners.push(at),
                    None => list.push(Share { listeners: vec![at], hosts }),
                }
            }
        }
        shares
    }
}

impl Listener {
    /// The hosts of a server here; none if it gets nothing.
    fn hosts<'s, I: Iterator<Item = &'s Server<'s>>>(
        &self,
        server: &Server<'_>,
        hosts: Vec<String>,
        is_default: bool,
        others: impl Fn() -> I,
        notes: &Notes,
    ) -> Option<Vec<String>> {
        if hosts.is_empty() {
            if !is_default {
                let message = "left out where it is not the default: no host leads to it";
                notes.ignored(server.directive, message);
            }
            return is_default.then_some(hosts);
        }
        if !is_default {
            return Some(hosts);
        }
        let below: HashSet<&str> =
            others().flat_map(|other| &other.names).filter_map(|n| n.strip_prefix('*')).collect();
        let covered = hosts.iter().any(|host| {
            host.match_indices('.').any(|(at, _)| below.contains(&host[at..]) && at > 0)
        });
        if self.explicit && !covered {
            return Some(Vec::new());
        }
        notes.changed(
            server.directive,
            format!(
                "nginx also gives it the requests for hosts that no server names; here they are \
                 answered 404: take `hosts` out of its routes on \"{}\" if that was meant",
                self.name
            ),
        );
        Some(hosts)
    }

    /// The tables of the listener.
    pub(super) fn sections(
        &self,
        servers: &[Server<'_>],
        proxies: &[String],
        notes: &Notes,
    ) -> Vec<Section> {
        let mut section = Section::new("[[listener]]");
        section.comments.push(self.origin.clone());
        section.entries.set("name", self.name.as_str());
        section.entries.set("address", self.address.as_str());
        section.entries.set_if("backlog", self.backlog);
        if self.reuseport {
            section.entries.set("reuseport", true);
        }
        if self.proxy_protocol {
            section.entries.set_some("proxy_protocol_from", proxies.to_vec());
            if proxies.is_empty() {
                self.ask_for_proxies(&mut section, servers, notes);
            }
        }
        let mut sections = vec![section];
        if self.tls {
            let mut tls = Section::new("[listener.tls]");
            tls.entries = self.tls(servers, notes);
            sections.push(tls);
        }
        sections
    }

    /// Everybody's PROXY header would be believed: the networks are the operator's to name.
    fn ask_for_proxies(&self, section: &mut Section, servers: &[Server<'_>], notes: &Notes) {
        section.comments.push(
            "Name the networks of the proxies: proxy_protocol_from = [\"10.0.0.0/8\"]".to_owned(),
        );
        let listens = self.servers.iter().flat_map(|number| &servers[*number].listens);
        for listen in listens.filter(|listen| listen.proxy_protocol) {
            let message = "proxy_protocol: there is no set_real_ip_from that says from whom; \
                           name the networks in listener.proxy_protocol_from";
            notes.unsupported(listen.directive, message);
        }
    }

    fn tls(&self, servers: &[Server<'_>], notes: &Notes) -> Entries {
        let mut entries = Entries::default();
        let pair = |(certificate, key): &(String, String)| {
            Value::Table(vec![
                ("certificate".to_owned(), certificate.as_str().into()),
                ("key".to_owned(), key.as_str().into()),
            ])
        };
        entries.set("certificates", Value::List(self.certificates.iter().map(pair).collect()));
        self.client_certificates(&mut entries, servers, notes);
        if self.only_tls13(servers, notes) {
            entries.set("min_version", "1.3");
        }
        entries
    }

    /// The strictest server decides: one listener asks every client the same.
    fn client_certificates(&self, entries: &mut Entries, servers: &[Server<'_>], notes: &Notes) {
        let here = || self.servers.iter().map(|number| &servers[*number].scope);
        let asks = |word: &str| here().find(|scope| scope.word("ssl_verify_client") == Some(word));
        let (auth, scope) = match (asks("on"), asks("optional")) {
            (Some(scope), _) => ("require", scope),
            (None, Some(scope)) => ("optional", scope),
            (None, None) => {
                if let Some(directive) =
                    asks("optional_no_ca").and_then(|s| s.find("ssl_verify_client"))
                {
                    let message = "left out: certificates that no authority vouches for are \
                                   not looked at";
                    notes.unsupported(directive, message);
                }
                return;
            }
        };
        let Some(directive) = scope.find("ssl_verify_client") else { return };
        let ca = ["ssl_client_certificate", "ssl_trusted_certificate"]
            .iter()
            .find_map(|name| scope.word(name));
        match ca.and_then(|path| absolute(path, PREFIX)) {
            Some(path) => entries.set("client_ca", path),
            None => {
                let message = "there is no ssl_client_certificate: name a PEM file in client_ca";
                notes.unsupported(directive, message);
                // The gateway does not start without the file: better than without the check.
                entries.set("client_ca", "/etc/wsproxy/name-the-client-ca.pem");
            }
        }
        entries.set("client_auth", auth);
        if here().any(|other| other.word("ssl_verify_client") != scope.word("ssl_verify_client")) {
            let message = "asked of every host of this address: give those without client \
                           certificates a listener of their own";
            notes.changed(directive, message);
        }
    }

    fn only_tls13(&self, servers: &[Server<'_>], notes: &Notes) -> bool {
        let mut verdict = None;
        for number in &self.servers {
            let Some(directive) = servers[*number].scope.find("ssl_protocols") else { continue };
            let has = |version: &str| directive.args.iter().any(|arg| arg == version);
            if has("TLSv1") || has("TLSv1.1") || has("SSLv3") || has("SSLv2") {
                notes.changed(directive, "TLS older than 1.2 is not spoken");
            }
            let only = has("TLSv1.3") && !has("TLSv1.2");
            if !has("TLSv1.3") {
                notes.changed(directive, "TLS 1.3 is spoken too");
            }
            if *verdict.get_or_insert(only) != only {
                let message = "the listener's first server decides for all its hosts";
                notes.changed(directive, message);
            }
        }
        verdict == Some(true)
    }
}

/// Which wildcard addresses a port has: IPv4, IPv6.
fn wildcards(servers: &[Server<'_>]) -> HashMap<u16, (bool, bool)> {
    let mut map: HashMap<u16, (bool, bool)> = HashMap::new();
    for listen in servers.iter().flat_map(|server| &server.listens) {
        if let At::Any { v6, port } = listen.at {
            let entry = map.entry(port).or_default();
            *(if v6 { &mut entry.1 } else { &mut entry.0 }) = true;
        }
    }
    map
}

fn port(at: &At) -> u16 {
    match at {
        At::Any { port, .. } => *port,
        At::Tcp(address) => address.port(),
        At::Unix(_) => 0,
    }
}

/// Both wildcards of a port are one listener; an address beside a wildcard cannot be bound.
fn key(listen: &Listen<'_>, wild: &HashMap<u16, (bool, bool)>, notes: &Notes) -> Option<At> {
    match &listen.at {
        At::Any { port, .. } => Some(At::Any { v6: false, port: *port }),
        At::Tcp(address) => {
            let (v4, v6) = wild.get(&address.port()).copied().unwrap_or_default();
            if v6 || (v4 && address.is_ipv4()) {
                let message = "left out: this port is bound on every address too, which \
                               includes it; give one of them another port, or list the addresses";
                notes.unsupported(listen.directive, message);
                return None;
            }
            Some(At::Tcp(*address))
        }
        unix @ At::Unix(_) => Some(unix.clone()),
    }
}

fn name(key: &At, tls: bool) -> String {
    let scheme = if tls { "https" } else { "http" };
    match key {
        At::Any { port: 443, .. } if tls => scheme.to_owned(),
        At::Any { port: 80, .. } if !tls => scheme.to_owned(),
        At::Any { port, .. } => format!("{scheme}-{port}"),
        At::Tcp(address) => format!("{scheme}-{address}"),
        At::Unix(path) => path.clone(),
    }
}

fn certificates(numbers: &[usize], servers: &[Server<'_>], notes: &Notes) -> Vec<(String, String)> {
    let mut list: Vec<(String, String)> = Vec::new();
    let mut seen = HashSet::new();
    for number in numbers {
        let scope = &servers[*number].scope;
        if let Some(directive) = scope.find("ssl_reject_handshake")
            && directive.arg(0) == "on"
        {
            let message = "a client that names no known host gets the first certificate";
            notes.changed(directive, message);
            continue;
        }
        let keys = scope.all("ssl_certificate_key");
        for (at, directive) in scope.all("ssl_certificate").iter().enumerate() {
            let path = |text: &str| absolute(text, PREFIX);
            let pair = path(directive.arg(0)).zip(keys.get(at).and_then(|key| path(key.arg(0))));
            let Some(pair) = pair else {
                let message = "left out: a certificate and its key are paths of files, without \
                               variables, see listener.tls.certificates";
                notes.unsupported(directive, message);
                continue;
            };
            if !directive.arg(0).starts_with('/') {
                let message = format!("a relative path: taken as below {PREFIX}");
                notes.changed(directive, message);
            }
            if seen.insert(pair.clone()) {
                list.push(pair);
            }
        }
    }
    list
}
