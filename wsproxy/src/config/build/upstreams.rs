//! `[[upstream]]`

use crate::config::RunArgs;

use super::super::model::{
    Balance, Certificate, HashKey, Health, HealthKind, Listener, ProxyVersion, Server, Upstream,
    UpstreamTls,
};
use super::super::problem::{Diagnostic, Invalid, Place};
use super::super::reader::{Given, Item, Section, quote};
use super::super::value::{count, flag, off, path, period, server, text, url_path, wait, word};
use super::super::{
    Count, DAY_MS, SERVERS_MAX, ServerAddr, UPSTREAMS_MAX, WAIT_MAX_MS, Wait, Weight, is_token,
};
use super::checks::no_loop;
use super::{Givens, file_place, missing, names_once};

/// A group, and where its name was given, or the group itself.
pub(super) type GivenUpstream = Given<Upstream>;

/// The groups of the file, with `--upstream` in the place of the only one's servers.
pub(super) fn read(
    top: &Section<'_, '_>,
    run: &RunArgs,
    listeners: &[Given<Listener>],
) -> Givens<Upstream> {
    let sections = top.tables("upstream", "upstream", UPSTREAMS_MAX);
    let report = |problem| top.reader().report(problem);
    let flags: Vec<_> = run.upstream.iter().map(|s| Given::flag(s.clone(), "--upstream")).collect();
    if sections.len() > 1 && !flags.is_empty() {
        let problem = flags[0].remark("the file has several upstreams: which one is meant?");
        report(problem.with_expected("no flag, or a file with one upstream"));
    }
    check_servers(&flags, &mut |problem| report(problem));
    let over = if sections.len() > 1 { Vec::new() } else { flags };
    let mut groups: Givens<Upstream> =
        sections.iter().map(|section| upstream(section, &over, listeners)).collect();
    loops(listeners, &over, &report);
    if sections.is_empty() {
        if let Some(first) = over.first() {
            groups.push(first.with(Upstream::of("default", plain(&over))));
        } else if !top.has("upstream") && !top.has("route") && top.reader().is_complete() {
            report(none_configured(file_place(top)));
        }
    }
    names_once(&groups, |group| &group.name, report);
    groups
}

/// A server that is a listener would connect in a circle.
fn loops(
    listeners: &[Given<Listener>],
    servers: &[Given<ServerAddr>],
    report: &dyn Fn(Diagnostic),
) {
    for listener in listeners {
        no_loop(&listener.value, servers, &mut |problem| report(problem));
    }
}

fn none_configured(place: Place) -> Diagnostic {
    Diagnostic::new(place, "no upstream is configured: set upstream.servers or pass --upstream")
        .with_key("upstream.servers")
        .with_found("nothing")
        .with_expected("a list such as [\"127.0.0.1:9000\"]")
}

/// Servers without settings of their own.
pub(super) fn plain(servers: &[Given<ServerAddr>]) -> Vec<Server> {
    servers.iter().map(|given| Server::at(given.value.clone())).collect()
}

/// Each server once, and not too many.
pub(super) fn check_servers(servers: &[Given<ServerAddr>], report: &mut dyn FnMut(Diagnostic)) {
    for (index, server) in servers.iter().enumerate() {
        if servers[..index].iter().any(|s| s.value == server.value) {
            report(
                server
                    .remark("the same server twice")
                    .with_found(quote(&server.value.to_string()))
                    .with_expected("each server once"),
            );
        }
    }
    if let Some(over) = servers.get(SERVERS_MAX) {
        report(
            over.remark("too many servers")
                .with_found(servers.len().to_string())
                .with_expected(format!("1 to {SERVERS_MAX} servers")),
        );
    }
}

fn upstream(
    section: &Section<'_, '_>,
    over: &[Given<ServerAddr>],
    listeners: &[Given<Listener>],
) -> GivenUpstream {
    let name = section.get("name", text);
    let in_file = servers(section, listeners);
    let servers = if over.is_empty() { in_file } else { plain(over) };
    if over.is_empty() && !section.has("servers") && section.reader().is_complete() {
        section.reader().report(none_configured(section.place()));
    }
    let default = Upstream::of("default", servers);
    let group = Upstream {
        name: name.as_ref().map_or_else(|| default.name.clone(), |given| given.value.clone()),
        balance: balance(section),
        sticky_cookie: section.value("sticky_cookie", None, off(token)),
        max_fails: section.value("max_fails", Count::<0, 1_000>::of::<1>(), count).get(),
        fail_timeout: section.value("fail_timeout", default.fail_timeout, period),
        queue: section.value("queue", Count::<0, 100_000>::of::<0>(), count).get(),
        queue_timeout: section.value("queue_timeout", default.queue_timeout, period),
        slow_start: section.value("slow_start", None, off(period)),
        keepalive: section.value("keepalive", Count::<0, 10_000>::of::<32>(), count).get(),
        proxy_protocol: section.value("proxy_protocol", None, word(PROXY)),
        transparent: section.value("transparent", false, flag),
        close_dead: section.value("close_dead", false, flag),
        gone_code: section.value("gone_code", default.gone_code, word(GONE)),
        // A name server is not to be asked all the time.
        resolve: section.value("resolve", default.resolve, wait::<1_000, WAIT_MAX_MS, 1>),
        tls: tls(section),
        health: health(&section.table("health", "upstream.health")),
        ..default
    };
    let place = name.map_or_else(|| section.place(), |given| given.place);
    Given { value: group, place, key: "upstream.name".to_owned() }
}

const GONE: &[(&str, Option<u16>)] = &[("1014", Some(1014)), ("1001", Some(1001)), ("off", None)];
const PROXY: &[(&str, Option<ProxyVersion>)] =
    &[("off", None), ("v1", Some(ProxyVersion::V1)), ("v2", Some(ProxyVersion::V2))];

fn token(value: &toml::de::DeValue<'_>) -> Result<String, Invalid> {
    let name = text(value)?;
    if is_token(&name) {
        return Ok(name);
    }
    Err(Invalid::new("not a name", "letters, digits and any of !#$%&'*+-.^_`|~"))
}

fn servers(section: &Section<'_, '_>, listeners: &[Given<Listener>]) -> Vec<Server> {
    let items = section.items("servers", (1, SERVERS_MAX), "servers").unwrap_or_default();
    let mut addresses = Vec::new();
    let mut servers = Vec::new();
    for item in items {
        match section.item("servers", "upstream.servers", item, server) {
            Some(Item::Value(address)) => {
                servers.push(Server::at(address.value.clone()));
                addresses.push(address);
            }
            Some(Item::Table(table)) => {
                missing(&table, "address", "an address such as \"127.0.0.1:9000\"");
                let address = table.get("address", server);
                let at = |address: ServerAddr| Server {
                    weight: table.value("weight", Weight::of::<1>(), count),
                    backup: table.value("backup", false, flag),
                    max_connections: table.value("max_connections", None, off(count)),
                    disabled: table.value("disabled", false, flag),
                    ..Server::at(address)
                };
                if let Some(address) = address {
                    servers.push(at(address.value.clone()));
                    addresses.push(Given { key: "upstream.servers".to_owned(), ..address });
                }
            }
            None => {}
        }
    }
    check_servers(&addresses, &mut |problem| section.reader().report(problem));
    loops(listeners, &addresses, &|problem| section.reader().report(problem));
    if !servers.is_empty()
        && servers.iter().all(|server| server.disabled)
        && let Some(first) = addresses.first()
    {
        let problem = first.remark("every server is disabled");
        section.reader().report(problem.with_expected("at least one that is not"));
    }
    servers
}

fn balance(section: &Section<'_, '_>) -> Balance {
    #[derive(Clone, Copy, PartialEq)]
    enum Word {
        RoundRobin,
        LeastConnections,
        Random,
        IpHash,
        Hash,
    }
    const WORDS: &[(&str, Word)] = &[
        ("round_robin", Word::RoundRobin),
        ("least_conn", Word::LeastConnections),
        ("random", Word::Random),
        ("ip_hash", Word::IpHash),
        ("hash", Word::Hash),
    ];
    let found = section.value("balance", Word::RoundRobin, word(WORDS));
    let key = section.get("hash_key", hash_key);
    if let Some(key) = &key
        && found != Word::Hash
    {
        let problem = key.remark("without balance = \"hash\" it does nothing");
        section.reader().report(problem.with_expected("balance = \"hash\" beside it"));
    }
    match found {
        Word::RoundRobin => Balance::RoundRobin,
        Word::LeastConnections => Balance::LeastConnections,
        Word::Random => Balance::Random,
        Word::IpHash => Balance::IpHash,
        Word::Hash => Balance::Hash(key.map_or(HashKey::Client, |given| given.value)),
    }
}

fn hash_key(value: &toml::de::DeValue<'_>) -> Result<HashKey, Invalid> {
    let expected = "\"client\", \"header:NAME\", \"cookie:NAME\" or \"query:NAME\"";
    let text = value.as_str().unwrap_or_default();
    if text == "client" {
        return Ok(HashKey::Client);
    }
    match text.split_once(':') {
        Some(("header", name)) if is_token(name) => Ok(HashKey::Header(name.to_owned())),
        Some(("cookie", name)) if is_token(name) => Ok(HashKey::Cookie(name.to_owned())),
        Some(("query", name)) if !name.is_empty() => Ok(HashKey::Query(name.to_owned())),
        _ => Err(Invalid::new("not a key to hash by", expected)),
    }
}

fn tls(section: &Section<'_, '_>) -> UpstreamTls {
    let table = section.table("tls", "upstream.tls");
    let (certificate, key) = (table.get("certificate", path), table.get("key", path));
    if certificate.is_some() && !table.has("key") {
        missing(&table, "key", "the private key of the certificate");
    }
    if key.is_some() && !table.has("certificate") {
        missing(&table, "certificate", "the certificate of the key");
    }
    let pair = certificate.zip(key);
    UpstreamTls {
        ca: table.get("ca", path),
        server_name: table.get("server_name", text).map(|given| given.value),
        verify: table.value("verify", true, flag),
        certificate: pair.map(|(certificate, key)| Certificate { certificate, key }),
    }
}

fn health(section: &Section<'_, '_>) -> Option<Health> {
    const KINDS: &[(&str, Option<HealthKind>)] = &[
        ("off", None),
        ("tcp", Some(HealthKind::Tcp)),
        ("http", Some(HealthKind::Http)),
        ("websocket", Some(HealthKind::WebSocket)),
    ];
    let kind = section.value("kind", None, word(KINDS));
    let path = section.value("path", "/".to_owned(), url_path);
    let interval = section.value("interval", Wait::of::<5_000>(), wait::<100, DAY_MS, 1>);
    let timeout = section.value("timeout", Wait::of::<2_000>(), period);
    let rise = section.value("rise", Count::<1, 100>::of::<2>(), count).get();
    let fall = section.value("fall", Count::<1, 100>::of::<3>(), count).get();
    kind.map(|kind| Health { kind, path, interval, timeout, rise, fall })
}
