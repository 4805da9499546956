//! `limit_conn` and `limit_req`.

use std::collections::HashMap;

use super::notes::Notes;
use super::parser::Directive;
use super::render::Entries;
use super::scope::{Level, Scope};

/// Most sessions, and most handshakes at once.
const MOST: u64 = 1_000_000;

/// What a zone counts by.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum By {
    Client,
    Server,
    Other,
}

/// What the zones of an http block count.
#[derive(Debug, Default)]
pub(super) struct Zones<'a> {
    connections: HashMap<&'a str, By>,
    requests: HashMap<&'a str, (By, Option<String>)>,
}

impl<'a> Zones<'a> {
    pub(super) fn of(http: &Scope<'a>) -> Self {
        let mut zones = Self::default();
        for directive in http.own("limit_conn_zone") {
            if let Some(name) = zone_name(directive) {
                zones.connections.insert(name, by(directive.arg(0)));
            }
        }
        for directive in http.own("limit_req_zone") {
            if let Some(name) = zone_name(directive) {
                zones.requests.insert(name, (by(directive.arg(0)), rate(directive)));
            }
        }
        zones
    }

    /// Keys of a route for the limits that hold in a location; those of the http block hold for
    /// all routes together, see [`Zones::general`].
    pub(super) fn of_route(&self, scope: &Scope<'_>, entries: &mut Entries, notes: &Notes) {
        if scope.level_of("limit_conn") != Some(Level::Http) {
            for directive in scope.all("limit_conn") {
                self.sessions(directive, [Some("max_sessions_per_client"), Some("max_sessions")])
                    .apply(directive, scope, "limit_conn", entries, notes);
            }
        }
        if scope.level_of("limit_req") != Some(Level::Http) {
            for directive in scope.all("limit_req") {
                self.handshakes(directive, [Some("handshake_rate"), None]).apply(
                    directive,
                    scope,
                    "limit_req",
                    entries,
                    notes,
                );
            }
        }
    }

    /// Keys of `[limits]` for what holds everywhere.
    pub(super) fn general(&self, http: &Scope<'_>, entries: &mut Entries, notes: &Notes) {
        for directive in http.own("limit_conn") {
            self.sessions(directive, [Some("max_sessions_per_client"), None]).apply(
                directive,
                http,
                "limit_conn",
                entries,
                notes,
            );
        }
        for directive in http.own("limit_req") {
            let keys = [Some("handshake_rate_per_client"), Some("handshake_rate")];
            self.handshakes(directive, keys).apply(directive, http, "limit_req", entries, notes);
        }
    }

    /// `limit_conn zone number;` with the keys for a client's and for a server's sessions.
    fn sessions(&self, directive: &Directive, keys: [Option<&'static str>; 2]) -> Limit {
        let number = directive.arg(1).parse::<u64>().ok().filter(|number| *number > 0);
        let Some(key) = pick(self.connections.get(directive.arg(0)).copied(), keys) else {
            return Limit::unsupported(
                "only sessions are counted, by client address or by route: see \
                 route.max_sessions_per_client and max_sessions",
            );
        };
        match number {
            Some(number) => Limit { key: Some((key, number.min(MOST).into())), ..Limit::default() },
            None => Limit::unsupported("not a number"),
        }
    }

    /// `limit_req zone=name burst=number;`
    fn handshakes(&self, directive: &Directive, keys: [Option<&'static str>; 2]) -> Limit {
        let option = |name| directive.args.iter().find_map(|arg| arg.strip_prefix(name));
        let zone = option("zone=").and_then(|name: &str| self.requests.get(name));
        let key = pick(zone.map(|(by, _)| *by), keys);
        let (Some(key), Some((_, Some(rate)))) = (key, zone) else {
            return Limit::unsupported(
                "only handshakes are counted, by client address or all of them: see \
                 route.handshake_rate and limits.handshake_rate",
            );
        };
        let burst = option("burst=").and_then(|burst| burst.parse().ok()).unwrap_or(0u64);
        Limit {
            key: Some((key, rate.as_str().into())),
            burst: Some(burst.clamp(1, MOST)),
            message: Some("counts handshakes only; plain requests are not limited"),
            ..Limit::default()
        }
    }
}

/// What a limit became.
#[derive(Debug, Default)]
struct Limit {
    key: Option<(&'static str, super::render::Value)>,
    burst: Option<u64>,
    message: Option<&'static str>,
    unsupported: bool,
}

impl Limit {
    fn unsupported(message: &'static str) -> Self {
        Self { message: Some(message), unsupported: true, ..Self::default() }
    }

    fn apply(
        self,
        directive: &Directive,
        scope: &Scope<'_>,
        name: &str,
        entries: &mut Entries,
        notes: &Notes,
    ) {
        match self.message {
            Some(message) if self.unsupported => notes.unsupported(directive, message),
            Some(message) => notes.changed(directive, message),
            None => {}
        }
        let Some((key, value)) = self.key else { return };
        if entries.has(key) {
            let message = "left out: there is one such limit already, and each may stand once";
            notes.unsupported(directive, message);
            return;
        }
        if scope.level == Level::Location && scope.level_of(name) != Some(Level::Location) {
            notes.changed(directive, "counted for each route by itself");
        }
        entries.set(key, value);
        entries.set_if("handshake_burst", self.burst.filter(|_| !entries.has("handshake_burst")));
    }
}

fn pick(by: Option<By>, [client, server]: [Option<&'static str>; 2]) -> Option<&'static str> {
    match by? {
        By::Client => client,
        By::Server => server,
        By::Other => None,
    }
}

fn by(key: &str) -> By {
    match key {
        "$binary_remote_addr" | "$remote_addr" => By::Client,
        "$server_name" | "$host" | "$http_host" => By::Server,
        _ => By::Other,
    }
}

fn zone_name(directive: &Directive) -> Option<&str> {
    let zone = directive.args.iter().find_map(|arg| arg.strip_prefix("zone="))?;
    Some(zone.split(':').next().unwrap_or(zone))
}

/// `10/s` of `rate=10r/s`.
fn rate(directive: &Directive) -> Option<String> {
    let rate = directive.args.iter().find_map(|arg| arg.strip_prefix("rate="))?;
    let (number, unit) = rate.split_once("r/")?;
    let number: u64 = number.parse().ok().filter(|number| *number > 0)?;
    matches!(unit, "s" | "m").then(|| format!("{}/{unit}", number.min(MOST)))
}

/// Says that limits hold for sessions alone, where a location has them and no sessions.
pub(super) fn without_sessions(scope: &Scope<'_>, notes: &Notes) {
    for name in ["limit_conn", "limit_req"] {
        for directive in scope.own(name) {
            notes.unsupported(directive, "left out: only sessions with an upstream are limited");
        }
    }
}
