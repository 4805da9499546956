//! Keys of a file and flags to a [`Config`], or to everything wrong with them.

mod checks;
mod listeners;
mod routes;
mod supervision;
mod upstreams;

use std::cell::RefCell;

use crate::config::RunArgs;

use super::model::{
    AccessFormat, AccessLog, Admin, Clients, Config, Datapath, Limits, Listener, Log, Ping,
    Process, Timeouts, Upstream,
};
use super::problem::{Diagnostic, Place, Problems};
use super::reader::{Given, Reader, Section};
use super::routing::Route;
use super::value::{auto, choice, count, flag, off, parsed, path, period, size, text, word};
use super::{DEFAULT_LISTEN, ListenAddr, Setting, Source};

/// Most networks in a list of trusted ones.
const TRUSTED_MAX: usize = 256;
/// Most networks in a list of those that may or may not.
const ACCESS_MAX: usize = 1_024;

/// The configuration without a file.
pub(super) fn without_file(run: &RunArgs) -> Result<Config, Problems> {
    let mut config = Config::demo();
    let problems: RefCell<Vec<Diagnostic>> = RefCell::default();
    let mut report = |problem| problems.borrow_mut().push(problem);
    let listener = Listener::at(run.listen.unwrap_or(DEFAULT_LISTEN));
    let flags: Vec<_> = run.upstream.iter().map(|s| Given::flag(s.clone(), "--upstream")).collect();
    if !flags.is_empty() {
        config.source = Source::Flags;
        config.datapath = Datapath::default();
        upstreams::check_servers(&flags, &mut report);
        checks::no_loop(&listener, &flags, &mut report);
        config.upstreams = vec![Upstream::of("default", upstreams::plain(&flags))];
    }
    if let Some(address) = run.admin {
        let (admin, listener) = (Given::flag(address, "--admin"), listener.clone());
        let listener = Given::flag(listener, "--listen");
        checks::admin_address(&[listener], &admin, &mut report, &mut config.warnings);
    }
    config.listeners = vec![listener];
    finish(config, run, problems.into_inner())
}

/// The configuration of a file, with flags over it.
pub(super) fn with_file(
    reader: Reader<'_, '_>,
    document: &toml::de::DeTable<'_>,
    run: &RunArgs,
) -> Result<Config, Problems> {
    let config = from_file(&reader, document, run);
    finish(config, run, reader.into_problems())
}

/// Flags that need nothing of the file, and the verdict.
fn finish(
    mut config: Config,
    run: &RunArgs,
    problems: Vec<Diagnostic>,
) -> Result<Config, Problems> {
    if let Some(mode) = run.datapath {
        config.datapath.mode = mode;
    }
    if let Some(format) = run.log_format {
        config.log.format = format;
    }
    if let Some(level) = run.log_level {
        config.log.level = level;
    }
    if let Some(address) = run.admin {
        config.admin.address = Some(address);
    }
    match Problems::new(problems) {
        Some(problems) => Err(problems),
        None => Ok(config),
    }
}

fn from_file(reader: &Reader<'_, '_>, document: &toml::de::DeTable<'_>, run: &RunArgs) -> Config {
    let top = Section::top(reader, document);
    let listeners = listeners::read(&top, run);
    let upstreams = upstreams::read(&top, run, &listeners);
    let ping = supervision::ping(&top.table("ping", "ping"), Ping::default());
    let routes = routes::read(&top, &listeners, &upstreams, ping);
    let admin = top.table("admin", "admin");
    let admin_file = admin.get("address", parsed::<ListenAddr>);
    let admin_address = run.admin.map(|a| Given::flag(a, "--admin")).or(admin_file);
    let mut warnings = Vec::new();
    checks::addresses(reader, &listeners, admin_address.as_ref(), &mut warnings);
    checks::unused(&upstreams, &routes, &mut warnings);
    let limits = top.table("limits", "limits");
    let plain = |givens: Vec<Given<Listener>>| -> Vec<Listener> {
        let values: Vec<_> = givens.into_iter().map(|given| given.value).collect();
        if values.is_empty() { vec![Listener::at(DEFAULT_LISTEN)] } else { values }
    };
    Config {
        source: Source::File(reader.path().to_owned()),
        listeners: plain(listeners),
        upstreams: upstreams.into_iter().map(|group| group.value).collect(),
        routes: routes.into_iter().map(|route| route.value).collect(),
        timeouts: timeouts(&top.table("timeouts", "timeouts")),
        ping,
        drain: supervision::drain(&top.table("drain", "drain")),
        limits: limits_of(&limits),
        clients: clients(&top.table("clients", "clients")),
        access_log: access_log(&top.table("access_log", "access_log")),
        datapath: datapath(&top.table("datapath", "datapath")),
        admin: Admin {
            address: admin_address.map(|given| given.value),
            socket: admin.get("socket", path).map(|given| given.value),
        },
        process: process(&top.table("process", "process")),
        log: log(&top.table("log", "log")),
        warnings,
    }
}

fn timeouts(section: &Section<'_, '_>) -> Timeouts {
    let default = Timeouts::default();
    Timeouts {
        request_head: section.value("request_head", default.request_head, period),
        tls_handshake: section.value("tls_handshake", default.tls_handshake, period),
        keepalive_idle: section.value("keepalive_idle", default.keepalive_idle, period),
        request_body: section.value("request_body", default.request_body, period),
        upstream_connect: section.value("upstream_connect", default.upstream_connect, period),
        upstream_answer: section.value("upstream_answer", default.upstream_answer, period),
        idle: section.value("idle", default.idle, off(period)),
        half_closed: section.value("half_closed", default.half_closed, off(period)),
        drain: section.value("drain", default.drain, period),
        keepalive: section.value("keepalive", default.keepalive, off(period)),
        user_timeout: section.value("user_timeout", default.user_timeout, off(period)),
    }
}

fn limits_of(section: &Section<'_, '_>) -> Limits {
    let default = Limits::default();
    let per_client = section.value("max_sessions_per_client", None, off(count));
    let prefix = section.value("ipv6_prefix", super::Prefix::of::<64>(), count);
    Limits {
        max_sessions: section.value("max_sessions", default.max_sessions, auto(count)),
        max_sessions_per_client: per_client,
        ipv6_prefix: u8::try_from(prefix.get()).unwrap_or(u8::MAX),
        handshake_rate: section.value("handshake_rate", None, off(parsed)),
        handshake_rate_per_client: section.value("handshake_rate_per_client", None, off(parsed)),
        handshake_burst: section.value("handshake_burst", default.handshake_burst, count),
        head_bytes: section.value("head_bytes", default.head_bytes, size),
        head_headers: section.value("head_headers", default.head_headers, count),
        relay_buffer: section.value("relay_buffer", default.relay_buffer, size),
    }
}

fn clients(section: &Section<'_, '_>) -> Clients {
    use super::model::AddressHeader::{Forwarded, XForwardedFor, XRealIp};
    const HEADERS: &[(&str, super::model::AddressHeader)] =
        &[("X-Forwarded-For", XForwardedFor), ("Forwarded", Forwarded), ("X-Real-IP", XRealIp)];
    Clients {
        trusted_proxies: networks(section, "trusted_proxies", TRUSTED_MAX),
        address_header: section.value("address_header", XForwardedFor, word(HEADERS)),
    }
}

fn networks(
    section: &Section<'_, '_>,
    key: &'static str,
    most: usize,
) -> Vec<super::network::Network> {
    let list = section.list(key, (0, most), "networks", parsed);
    list.unwrap_or_default().into_iter().map(|given| given.value).collect()
}

fn access(section: &Section<'_, '_>) -> super::network::Access {
    super::network::Access {
        allow: networks(section, "allow", ACCESS_MAX),
        deny: networks(section, "deny", ACCESS_MAX),
    }
}

fn access_log(section: &Section<'_, '_>) -> Option<AccessLog> {
    const FORMATS: &[(&str, Option<AccessFormat>)] = &[
        ("off", None),
        ("json", Some(AccessFormat::Json)),
        ("combined", Some(AccessFormat::Combined)),
    ];
    let format = section.value("format", None, word(FORMATS));
    let path = section.get("path", path).map(|given| given.value);
    format.map(|format| AccessLog { format, path })
}

fn datapath(section: &Section<'_, '_>) -> Datapath {
    let default = Datapath::default();
    Datapath {
        mode: section.value("mode", default.mode, choice),
        workers: section.value("workers", default.workers, auto(count)),
        settle: section.value("settle", default.settle, off(period)),
        packets: section.value("packets", default.packets, flag),
        persist: section.value("persist", default.persist, flag),
        persist_path: section.value("persist_path", default.persist_path, path),
        state_dir: section.value("state_dir", default.state_dir, path),
    }
}

fn process(section: &Section<'_, '_>) -> Process {
    let group = section.get("group", text).map(|given| given.value);
    Process {
        user: section.value("user", Setting::Auto, auto(text)),
        group,
        seccomp: section.value("seccomp", true, flag),
        landlock: section.value("landlock", true, flag),
    }
}

fn log(section: &Section<'_, '_>) -> Log {
    let default = Log::default();
    Log {
        format: section.value("format", default.format, choice),
        level: section.value("level", default.level, choice),
    }
}

/// Says that a required key is not in its section, unless a syntax error may hide it.
fn missing(section: &Section<'_, '_>, key: &'static str, expected: &str) {
    if section.has(key) || !section.reader().is_complete() {
        return;
    }
    let problem = Diagnostic::new(section.place(), "missing").with_key(whole(section, key));
    section.reader().report(problem.with_found("nothing").with_expected(expected.to_owned()));
}

fn whole(section: &Section<'_, '_>, key: &str) -> String {
    format!("{}.{key}", section.name())
}

/// Reports each value whose name an earlier one has.
fn names_once<T>(givens: &[Given<T>], name: impl Fn(&T) -> &str, report: impl Fn(Diagnostic)) {
    for (at, given) in givens.iter().enumerate() {
        let mine = name(&given.value);
        if givens[..at].iter().any(|other| name(&other.value) == mine) {
            let problem = given.remark("the same name twice");
            report(problem.with_found(super::reader::quote(mine)).with_expected("each name once"));
        }
    }
}

/// Things of the file with their places.
type Givens<T> = Vec<Given<T>>;

/// A route with the place where it begins.
type GivenRoute = Given<Route>;

/// The place of the file as a whole.
fn file_place(section: &Section<'_, '_>) -> Place {
    Place::file(section.reader().path(), None)
}
