//! Keys of a file and flags to a [`Config`], or to everything wrong with them.

use std::path::Path;

use toml::de::DeValue;

use crate::cli::RunArgs;

use super::addr::{ListenAddr, UpstreamAddr};
use super::problem::{Diagnostic, Invalid, Place, Problems};
use super::raw::{Found, Parsed, RawConfig, RawTimeouts, RawUpstream, describe, quote};
use super::value::{array, auto, choice, count, listen, off, period, server, size};
use super::{
    Config, DEFAULT_LISTEN, Datapath, Limits, Listener, Log, SERVERS_MAX, Source, Timeouts,
    Upstreams,
};

const TOO_MANY: &str = "too many servers";

/// A value of the file or of a flag, and where it was given.
struct Given<T> {
    value: T,
    place: Place,
    key: &'static str,
}

impl<T> Given<T> {
    fn flag(value: T, key: &'static str) -> Self {
        Self { value, place: Place::CommandLine, key }
    }

    fn remark(&self, message: impl Into<String>) -> Diagnostic {
        Diagnostic::new(self.place.clone(), message).with_key(self.key)
    }
}

/// `path` is the file that `parsed` came from; without one, what is not given
/// by flags is that of the demo.
pub(super) fn build(
    path: Option<&Path>,
    parsed: Parsed<'_>,
    run: &RunArgs,
) -> Result<Config, Problems> {
    let mut builder = Builder { problems: parsed.problems, warnings: Vec::new() };
    let required_in = path.filter(|_| parsed.complete);
    let config = builder.config(path, required_in, parsed.raw, run);
    match Problems::new(builder.problems) {
        Some(problems) => Err(problems),
        None => Ok(Config { warnings: builder.warnings, ..config }),
    }
}

struct Builder {
    problems: Vec<Diagnostic>,
    warnings: Vec<Diagnostic>,
}

impl Builder {
    /// The configuration; only good when no problem was found on the way.
    fn config(
        &mut self,
        path: Option<&Path>,
        required_in: Option<&Path>,
        raw: RawConfig<'_>,
        run: &RunArgs,
    ) -> Config {
        let listener = self.listener(required_in, raw.listener.address, run);
        let upstreams = self.upstreams(required_in, raw.upstream, run);
        let admin = match (self.given(raw.admin.address, listen), run.admin) {
            (_, Some(flag)) => Some(Given::flag(flag, "--admin")),
            (file, None) => file,
        };
        // A file whose listener is missing or invalid has none to compare.
        let address = match (&listener, path) {
            (Some(given), _) => Some(given.value),
            (None, Some(_)) => None,
            (None, None) => Some(DEFAULT_LISTEN),
        };
        if let Some(address) = address {
            self.compare(address, &upstreams, admin.as_ref());
        }

        let (limits, datapath, log) = (raw.limits, raw.datapath, raw.log);
        let demo = path.is_none() && upstreams.is_empty();
        let mode = self.value(datapath.mode, Datapath::default().mode, choice);
        let format = self.value(log.format, Log::default().format, choice);
        let level = self.value(log.level, Log::default().level, choice);
        Config {
            source: match path {
                Some(path) => Source::File(path.to_owned()),
                None if upstreams.is_empty() => Source::Demo,
                None => Source::Flags,
            },
            listener: Listener {
                address: address.unwrap_or(DEFAULT_LISTEN),
                backlog: self.value(raw.listener.backlog, Listener::default().backlog, count),
            },
            upstreams: if upstreams.is_empty() {
                Upstreams::Embedded
            } else {
                Upstreams::Servers(upstreams.into_iter().map(|given| given.value).collect())
            },
            timeouts: self.timeouts(raw.timeouts),
            limits: Limits {
                max_sessions: self.value(
                    limits.max_sessions,
                    Limits::default().max_sessions,
                    auto(count),
                ),
                head_bytes: self.value(limits.head_bytes, Limits::default().head_bytes, size),
                head_headers: self.value(
                    limits.head_headers,
                    Limits::default().head_headers,
                    count,
                ),
                relay_buffer: self.value(limits.relay_buffer, Limits::default().relay_buffer, size),
            },
            datapath: Datapath {
                mode: run.datapath.unwrap_or(mode),
                workers: self.value(datapath.workers, Datapath::default().workers, auto(count)),
                settle: self
                    .value(datapath.settle, Datapath::default().settle, off(period))
                    .filter(|_| !demo),
            },
            admin: admin.map(|given| given.value),
            log: Log {
                format: run.log_format.unwrap_or(format),
                level: run.log_level.unwrap_or(level),
            },
            warnings: Vec::new(),
        }
    }

    fn timeouts(&mut self, raw: RawTimeouts<'_>) -> Timeouts {
        let default = Timeouts::default();
        Timeouts {
            request_head: self.value(raw.request_head, default.request_head, period),
            upstream_connect: self.value(raw.upstream_connect, default.upstream_connect, period),
            upstream_answer: self.value(raw.upstream_answer, default.upstream_answer, period),
            idle: self.value(raw.idle, default.idle, off(period)),
            drain: self.value(raw.drain, default.drain, period),
            keepalive: self.value(raw.keepalive, default.keepalive, off(period)),
            user_timeout: self.value(raw.user_timeout, default.user_timeout, off(period)),
        }
    }

    /// `required_in` is the file that should have had it.
    fn listener(
        &mut self,
        required_in: Option<&Path>,
        found: Option<Found<'_>>,
        run: &RunArgs,
    ) -> Option<Given<ListenAddr>> {
        let absent = found.is_none();
        let file = self.given(found, listen);
        if let Some(flag) = run.listen {
            return Some(Given::flag(flag, "--listen"));
        }
        if absent && let Some(path) = required_in {
            self.problems.push(
                Diagnostic::new(
                    Place::file(path, None),
                    "no listener is configured: set listener.address or pass --listen",
                )
                .with_key("listener.address")
                .with_found("nothing")
                .with_expected("an address such as \"0.0.0.0:8080\""),
            );
        }
        file
    }

    fn upstreams(
        &mut self,
        required_in: Option<&Path>,
        raw: RawUpstream<'_>,
        run: &RunArgs,
    ) -> Vec<Given<UpstreamAddr>> {
        let absent = raw.servers.is_none();
        let file = raw.servers.map_or_else(Vec::new, |found| self.servers(&found));
        self.unique(&file);
        if !run.upstream.is_empty() {
            let given = |server: &UpstreamAddr| Given::flag(server.clone(), "--upstream");
            let flags: Vec<_> = run.upstream.iter().map(given).collect();
            self.unique(&flags);
            if let Some(over) = flags.get(SERVERS_MAX) {
                self.problems.push(wrong_number(over.remark(TOO_MANY), flags.len()));
            }
            return flags;
        }
        if absent && let Some(path) = required_in {
            self.problems.push(
                Diagnostic::new(
                    Place::file(path, None),
                    "no upstream is configured: set upstream.servers or pass --upstream",
                )
                .with_key("upstream.servers")
                .with_found("nothing")
                .with_expected("a list such as [\"127.0.0.1:9000\"]"),
            );
        }
        file
    }

    fn servers(&mut self, found: &Found<'_>) -> Vec<Given<UpstreamAddr>> {
        let list = match array(&found.value) {
            Ok(list) => list,
            Err(invalid) => {
                self.invalid(found, &found.value, invalid);
                return Vec::new();
            }
        };
        if !(1..=SERVERS_MAX).contains(&list.len()) {
            let message = if list.is_empty() { "no server in the list" } else { TOO_MANY };
            let remark = Diagnostic::new(found.place.clone(), message).with_key(found.key);
            self.problems.push(wrong_number(remark, list.len()));
            return Vec::new();
        }
        let mut servers = Vec::with_capacity(list.len());
        for (index, item) in list.iter().enumerate() {
            let place = found.items.get(index).unwrap_or(&found.place);
            match server(item.get_ref()) {
                Ok(value) => servers.push(Given { value, place: place.clone(), key: found.key }),
                Err(invalid) => self.problems.push(
                    Diagnostic::new(place.clone(), invalid.message)
                        .with_key(found.key)
                        .with_found(describe(item.get_ref()))
                        .with_expected(invalid.expected),
                ),
            }
        }
        servers
    }

    fn unique(&mut self, servers: &[Given<UpstreamAddr>]) {
        for (index, server) in servers.iter().enumerate() {
            if servers[..index].iter().any(|s| s.value == server.value) {
                self.problems.push(
                    server
                        .remark("the same server twice")
                        .with_found(quote(&server.value.to_string()))
                        .with_expected("each server once"),
                );
            }
        }
    }

    /// What only the addresses together can have wrong with them.
    fn compare(
        &mut self,
        address: ListenAddr,
        upstreams: &[Given<UpstreamAddr>],
        admin: Option<&Given<ListenAddr>>,
    ) {
        for server in upstreams {
            if address.is_reached_by(&server.value) {
                self.problems.push(
                    server
                        .remark("the gateway would connect to itself")
                        .with_found(quote(&server.value.to_string()))
                        .with_expected(format!("a server other than the listener, {address}")),
                );
            }
        }
        let Some(admin) = admin else { return };
        if address.overlaps(admin.value) {
            self.problems.push(
                admin
                    .remark("the address of the listener")
                    .with_found(quote(&admin.value.to_string()))
                    .with_expected(format!("an address that does not overlap {address}")),
            );
        } else if !admin.value.is_loopback() {
            self.warnings.push(
                admin
                    .remark(
                        "other machines can reach the admin port, which asks nobody who they are",
                    )
                    .with_found(quote(&admin.value.to_string()))
                    .with_expected("a loopback address such as \"127.0.0.1:9901\""),
            );
        }
    }

    fn given<T>(
        &mut self,
        found: Option<Found<'_>>,
        parse: impl FnOnce(&DeValue<'_>) -> Result<T, Invalid>,
    ) -> Option<Given<T>> {
        let found = found?;
        match parse(&found.value) {
            Ok(value) => Some(Given { value, place: found.place, key: found.key }),
            Err(invalid) => {
                self.invalid(&found, &found.value, invalid);
                None
            }
        }
    }

    fn value<T>(
        &mut self,
        found: Option<Found<'_>>,
        default: T,
        parse: impl FnOnce(&DeValue<'_>) -> Result<T, Invalid>,
    ) -> T {
        self.given(found, parse).map_or(default, |given| given.value)
    }

    fn invalid(&mut self, found: &Found<'_>, value: &DeValue<'_>, invalid: Invalid) {
        self.problems.push(
            Diagnostic::new(found.place.clone(), invalid.message)
                .with_key(found.key)
                .with_found(describe(value))
                .with_expected(invalid.expected),
        );
    }
}

fn wrong_number(remark: Diagnostic, found: usize) -> Diagnostic {
    remark.with_found(found.to_string()).with_expected(format!("1 to {SERVERS_MAX} servers"))
}
