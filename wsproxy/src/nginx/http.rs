//! The whole configuration, and what holds for all of it.

use super::conditions::Maps;
use super::known;
use super::limits::Zones;
use super::listeners::Plan;
use super::notes::Notes;
use super::parser::Directive;
use super::render::{Entries, Section};
use super::routes::Routes;
use super::scope::Scope;
use super::servers::{self, Server};
use super::units::{WAIT_MAX_MS, bytes, duration, millis, network, size};
use super::upstreams::Upstreams;

/// Our range of `limits.head_bytes`.
const HEAD_BYTES: (u64, u64) = (1 << 10, 1 << 20);
/// Our longest `timeouts.user_timeout`: 24 days.
const USER_TIMEOUT_MAX_MS: u64 = 24 * 86_400_000;
/// Most networks of a list.
const NETWORKS_MAX: usize = 256;

/// The tables of our configuration.
pub(super) fn translate(tree: Vec<Directive>, notes: &Notes) -> Vec<Section> {
    let mut http = Vec::new();
    for directive in tree {
        match directive.block {
            Some(block) if directive.name == "http" => http.extend(block),
            block => http.push(Directive { block, ..directive }),
        }
    }
    known::survey(&http, notes);
    outside(&http, notes);
    let scope = Scope::top(&http);
    let maps = maps(&scope, notes);
    let zones = Zones::of(&scope);
    let mut upstreams = Upstreams::new(scope.own("upstream"), notes);
    let servers: Vec<Server<'_>> =
        scope.own("server").iter().map(|d| servers::server(d, &scope, notes)).collect();
    let plan = Plan::new(&servers, notes);
    let shares = plan.shares(&servers, notes);
    let mut routes = Routes::new(notes, &zones, &maps, &mut upstreams);
    for (server, shares) in servers.iter().zip(&shares) {
        routes.add(server, shares, &plan.listeners);
    }
    let routes = routes.sections(&plan.listeners);
    let trusted = trusted(&scope, &servers, notes);
    let mut sections = Vec::new();
    for listener in &plan.listeners {
        sections.extend(listener.sections(&servers, &trusted.proxies, notes));
    }
    sections.extend(upstreams.sections(notes));
    sections.extend(routes);
    sections.extend(general(&scope, &servers, &zones, trusted, notes));
    sections
}

/// What belongs into a server and stands outside.
fn outside(http: &[Directive], notes: &Notes) {
    for directive in http {
        let name = directive.name.as_str();
        if matches!(name, "location" | "proxy_pass" | "listen" | "server_name" | "return" | "if") {
            notes.unsupported(directive, "left out: it stands outside a server");
        }
    }
}

fn maps<'a>(scope: &Scope<'a>, notes: &Notes) -> Maps<'a> {
    let mut maps = Maps::new();
    for directive in scope.own("map") {
        let (source, made) = (directive.arg(0), directive.arg(1));
        match source {
            "$http_upgrade" => {
                notes.ignored(directive, "not needed: Connection is always sent as it must be");
            }
            "$http_origin" => notes.ignored(directive, "not needed: see route.origins"),
            _ => notes.unsupported(
                directive,
                "left out: there are no variables of one's own; make a [[route]] per case",
            ),
        }
        if let Some(name) = made.strip_prefix('$') {
            maps.insert(name, directive);
        }
    }
    maps
}

/// Proxies in front of us.
#[derive(Debug, Default)]
struct Trusted {
    /// Those that speak the PROXY protocol.
    proxies: Vec<String>,
    /// Those that name the client in a header, and the header.
    header: Option<(Vec<String>, &'static str)>,
}

fn trusted(http: &Scope<'_>, servers: &[Server<'_>], notes: &Notes) -> Trusted {
    let mut networks: Vec<String> = Vec::new();
    let mut from: Option<&Directive> = None;
    let mut header: Option<&Directive> = None;
    let scopes = || std::iter::once(http).chain(servers.iter().map(|server| &*server.scope));
    for scope in scopes() {
        for directive in scope.own("set_real_ip_from") {
            match network(directive.arg(0)).map(|network| network.to_string()) {
                Some(network) if !networks.contains(&network) => {
                    if networks.len() < NETWORKS_MAX {
                        networks.push(network);
                    } else {
                        let message = format!("left out: {NETWORKS_MAX} networks are the most");
                        notes.unsupported(directive, message);
                    }
                }
                Some(_) => {}
                None => notes.unsupported(directive, "left out: not a network or an address"),
            }
            if scope.level != http.level {
                notes.changed(directive, "trusted for all servers");
            }
            from = from.or(Some(directive));
        }
        header = header.or(scope.own("real_ip_header").last().copied());
        for directive in scope.own("real_ip_recursive") {
            if directive.arg(0) == "on" {
                notes.ignored(directive, "not needed: always done");
            } else {
                notes.changed(directive, "always on: the last address that is no proxy's is taken");
            }
        }
    }
    let Some(from) = from.filter(|_| !networks.is_empty()) else { return Trusted::default() };
    let word = header.map_or("X-Real-IP", |directive| directive.arg(0));
    let known = ["X-Forwarded-For", "Forwarded", "X-Real-IP"];
    match known.into_iter().find(|name| name.eq_ignore_ascii_case(word)) {
        Some(name) => Trusted { proxies: networks.clone(), header: Some((networks, name)) },
        None => {
            if word != "proxy_protocol" {
                let message = "left out: a proxy names its client in X-Forwarded-For, Forwarded \
                               or X-Real-IP, see clients.address_header";
                notes.unsupported(header.unwrap_or(from), message);
            }
            Trusted { proxies: networks, header: None }
        }
    }
}

fn general(
    http: &Scope<'_>,
    servers: &[Server<'_>],
    zones: &Zones<'_>,
    trusted: Trusted,
    notes: &Notes,
) -> Vec<Section> {
    let mut timeouts = Section::new("[timeouts]");
    for (name, key, most) in [
        ("client_header_timeout", "request_head", WAIT_MAX_MS),
        ("keepalive_timeout", "keepalive_idle", WAIT_MAX_MS),
        ("send_timeout", "user_timeout", USER_TIMEOUT_MAX_MS),
    ] {
        let least = if key == "user_timeout" { 1_000 } else { 1 };
        let read = |directive: &Directive| match millis(directive.arg(0)) {
            None | Some(0) => {
                notes.unsupported(directive, format!("left out: see timeouts.{key}"));
                None
            }
            Some(wait) => Some(wait.clamp(least, most)),
        };
        let found = largest(http, servers, name, &read, notes);
        timeouts.entries.set_if(key, found.map(duration));
    }
    let mut limits = Section::new("[limits]");
    zones.general(http, &mut limits.entries, notes);
    let head = |directive: &Directive| {
        let number = directive.arg(0).parse::<u64>().ok();
        let total = number.zip(bytes(directive.arg(1))).and_then(|(n, size)| n.checked_mul(size));
        total.map(|total| total.clamp(HEAD_BYTES.0, HEAD_BYTES.1))
    };
    let head = largest(http, servers, "large_client_header_buffers", &head, notes);
    limits.entries.set_if("head_bytes", head.map(size));
    let mut clients = Section::new("[clients]");
    if let Some((networks, header)) = trusted.header {
        clients.entries.set("trusted_proxies", networks);
        clients.entries.set("address_header", header);
    }
    let is_there = |section: &Section| section.entries != Entries::default();
    [timeouts, limits, clients].into_iter().filter(is_there).collect()
}

/// The largest value that a directive has anywhere: it holds for everything here.
fn largest(
    http: &Scope<'_>,
    servers: &[Server<'_>],
    name: &str,
    read: &dyn Fn(&Directive) -> Option<u64>,
    notes: &Notes,
) -> Option<u64> {
    let scopes = std::iter::once(http).chain(servers.iter().map(|server| &*server.scope));
    let all: Vec<&Directive> = scopes.flat_map(|scope| scope.own(name).to_vec()).collect();
    let values: Vec<u64> = all.iter().filter_map(|directive| read(directive)).collect();
    let most = values.iter().copied().max()?;
    if values.iter().any(|value| *value != most) {
        for directive in &all {
            notes.changed(directive, "one value for everything: the largest is taken");
        }
    }
    Some(most)
}
