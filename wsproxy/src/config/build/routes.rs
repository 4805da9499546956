//! `[[route]]`

use super::super::model::{Listener, Ping, Upstream};
use super::super::problem::{Diagnostic, Invalid};
use super::super::reader::{Given, Section, quote};
use super::super::routing::{
    Action, Forward, HeaderChanges, HostHeader, HostPattern, Origin, Route, WebSocketRule,
};
use super::super::suggest;
use super::super::template::Template;
use super::super::value::{
    body, count, flag, off, parsed, path, period, size, text, url_path, wait, word,
};
use super::super::{Burst, ROUTES_MAX, Statuses, WAIT_MAX_MS, is_host_name, is_token};
use super::{GivenRoute, Givens, access, supervision};

/// Most items of a route's small lists.
const LIST_MAX: usize = 64;
/// Most hosts, origins of a route.
const HOSTS_MAX: usize = 1_024;

/// The keys that make an action.
const ACTIONS: [&str; 4] = ["upstream", "files", "redirect", "respond"];
/// The keys that belong to one of them.
const ONLY_WITH: &[(&str, &[&str])] = &[
    (
        "upstream",
        &[
            "rewrite",
            "websocket",
            "host_header",
            "origins",
            "subprotocols",
            "upstream_connect",
            "upstream_answer",
            "idle",
            "lifetime",
            "ping",
            "frames",
            "enforce_framing",
            "max_message",
            "max_frame",
            "packets",
            "body_limit",
            "set_request_headers",
            "add_request_headers",
            "remove_request_headers",
            "max_sessions",
            "max_sessions_per_client",
            "handshake_rate",
            "handshake_burst",
        ],
    ),
    ("files", &["index", "fallback"]),
    ("redirect", &["status"]),
    ("respond", &["body"]),
];

/// The routes of the file; without any, everything goes to the only upstream.
pub(super) fn read(
    top: &Section<'_, '_>,
    listeners: &[Given<Listener>],
    upstreams: &[Given<Upstream>],
    ping: Ping,
) -> Givens<Route> {
    let sections = top.tables("route", "route", ROUTES_MAX);
    if sections.is_empty() {
        return everything(top, upstreams, ping);
    }
    let names = |kind: &'static str| match kind {
        "listener" => listeners.iter().map(|l| l.value.name.as_str()).collect::<Vec<_>>(),
        _ => upstreams.iter().map(|u| u.value.name.as_str()).collect(),
    };
    let (listener_names, upstream_names) = (names("listener"), names("upstream"));
    let routes: Givens<Route> = sections
        .iter()
        .filter_map(|section| route(section, &listener_names, &upstream_names, ping))
        .collect();
    duplicates(top, &routes);
    routes
}

fn everything(top: &Section<'_, '_>, upstreams: &[Given<Upstream>], ping: Ping) -> Givens<Route> {
    if let [_, second, ..] = upstreams {
        let problem = second.remark("several upstreams, and no route says which gets what");
        top.reader().report(problem.with_expected("a [[route]] for each"));
    }
    let route = |name: &str| Route {
        action: Action::Upstream(Forward { ping, ..Forward::to(name) }),
        ..Route::everything_to(name)
    };
    let first = upstreams.first();
    first.map(|group| group.with(route(&group.value.name))).into_iter().collect()
}

fn route(
    section: &Section<'_, '_>,
    listeners: &[&str],
    upstreams: &[&str],
    ping: Ping,
) -> Option<GivenRoute> {
    let name = section.get("name", text);
    let on = known_names(section, "listeners", "listener", listeners);
    let hosts: Vec<Given<HostPattern>> =
        section.list("hosts", (1, HOSTS_MAX), "hosts", host_pattern).unwrap_or_default();
    let path_given = section.get("path", url_path);
    let path = path_given.as_ref().map_or_else(|| "/".to_owned(), |given| given.value.clone());
    let exact = section.value("exact", false, flag);
    let action = action(section, upstreams, ping);
    let hosts: Vec<_> = hosts.into_iter().map(|given| given.value).collect();
    let label = name.as_ref().map(|given| given.value.clone());
    let label = label.unwrap_or_else(|| default_name(&hosts, &path, exact));
    let route = Route {
        name: label,
        listeners: on,
        hosts,
        path,
        exact,
        access: access(section),
        max_sessions: section.value("max_sessions", None, off(count)),
        max_sessions_per_client: section.value("max_sessions_per_client", None, off(count)),
        handshake_rate: section.value("handshake_rate", None, off(parsed)),
        handshake_burst: section.value("handshake_burst", Burst::of::<20>(), count),
        request_headers: changes(
            section,
            ["set_request_headers", "add_request_headers", "remove_request_headers"],
        ),
        response_headers: changes(
            section,
            ["set_response_headers", "add_response_headers", "remove_response_headers"],
        ),
        action: action?,
    };
    let place = path_given.map_or_else(|| section.place(), |given| given.place);
    Some(Given { value: route, place, key: "route.path".to_owned() })
}

fn default_name(hosts: &[HostPattern], path: &str, exact: bool) -> String {
    let host = match hosts.first() {
        Some(HostPattern::Exact(host)) => host.clone(),
        Some(HostPattern::Below(suffix)) => format!("*{suffix}"),
        None => String::new(),
    };
    format!("{host}{}{path}", if exact { "=" } else { "" })
}

/// Names that must be those of listeners.
fn known_names(
    section: &Section<'_, '_>,
    key: &'static str,
    kind: &str,
    known: &[&str],
) -> Vec<String> {
    let names = section.list(key, (1, LIST_MAX), "names", text).unwrap_or_default();
    for name in &names {
        check_known(section, name, kind, known);
    }
    names.into_iter().map(|given| given.value).collect()
}

fn check_known(section: &Section<'_, '_>, name: &Given<String>, kind: &str, known: &[&str]) {
    // One that a syntax error hides is not unknown.
    if known.contains(&name.value.as_str()) || !section.reader().is_complete() {
        return;
    }
    let meant = suggest::nearest(&name.value, known.iter().copied());
    let message = match meant {
        Some(meant) => format!("no {kind} has this name, did you mean \"{meant}\"?"),
        None => format!("no {kind} has this name"),
    };
    let names: Vec<_> = known.iter().take(8).map(|name| quote(name)).collect();
    let expected = if names.is_empty() { format!("a [[{kind}]]") } else { names.join(", ") };
    let problem = name.remark(message).with_found(quote(&name.value)).with_expected(expected);
    section.reader().report(problem);
}

fn action(section: &Section<'_, '_>, upstreams: &[&str], ping: Ping) -> Option<Action> {
    let given: Vec<&str> = ACTIONS.iter().copied().filter(|key| section.has(key)).collect();
    let (upstream, files) = (section.get("upstream", text), section.get("files", path));
    let redirect = section.get("redirect", parsed::<Template>);
    let respond = section.get("respond", count::<200, 599>);
    let forward = forward(section, ping);
    let index = section.list("index", (1, LIST_MAX), "names", file_name);
    let fallback = section.list("fallback", (1, LIST_MAX), "names", fallback).unwrap_or_default();
    let status: Statuses = section.value("status", Statuses::of::<301>(), redirect_status);
    let body = section.get("body", body);
    if let Some(upstream) = &upstream {
        check_known(section, upstream, "upstream", upstreams);
    }
    let kind = match given[..] {
        [one] => one,
        [] => {
            if section.reader().is_complete() {
                complain(section, "nothing is done with its requests", "nothing".to_owned());
            }
            return None;
        }
        _ => {
            complain(section, "several things to do with its requests", given.join(", "));
            return None;
        }
    };
    misplaced(section, kind);
    let texts = |list: Vec<Given<String>>| list.into_iter().map(|given| given.value).collect();
    Some(match kind {
        "upstream" => Action::Upstream(Forward { upstream: upstream?.value, ..forward }),
        "files" => Action::Files {
            root: files?,
            index: index.map_or_else(|| vec!["index.html".to_owned()], texts),
            fallback: texts(fallback),
        },
        "redirect" => {
            let status = u16::try_from(status.get()).unwrap_or(301);
            Action::Redirect { to: redirect?.value, status }
        }
        _ => {
            let status = u16::try_from(respond?.value.get()).unwrap_or(404);
            let text = body.map_or_else(|| format!("{status}\n"), |given| given.value);
            Action::Respond { status, body: text }
        }
    })
}

fn complain(section: &Section<'_, '_>, message: &str, found: String) {
    section.reader().report(
        Diagnostic::new(section.place(), message.to_owned())
            .with_key("route")
            .with_found(found)
            .with_expected("one of upstream, files, redirect, respond"),
    );
}

/// Keys that do nothing with this action are most often a mistake about what it does.
fn misplaced(section: &Section<'_, '_>, kind: &str) {
    for (owner, keys) in ONLY_WITH.iter().filter(|(owner, _)| *owner != kind) {
        for key in keys.iter().filter(|key| section.has(key)) {
            let Some(place) = section.place_of(key) else { continue };
            section.reader().report(
                Diagnostic::new(place, format!("it does nothing without route.{owner}"))
                    .with_key(format!("route.{key}"))
                    .with_expected(format!("a route with {owner}, which this one has not")),
            );
        }
    }
}

/// All but the name of the upstream.
fn forward(section: &Section<'_, '_>, ping: Ping) -> Forward {
    const WEBSOCKET: &[(&str, WebSocketRule)] = &[
        ("allow", WebSocketRule::Allow),
        ("only", WebSocketRule::Only),
        ("deny", WebSocketRule::Deny),
    ];
    let default = Forward::to(String::new());
    let texts = |list: Vec<Given<String>>| list.into_iter().map(|given| given.value).collect();
    let origins = section.list("origins", (1, HOSTS_MAX), "origins", origin);
    let protocols = section.list("subprotocols", (1, LIST_MAX), "names", token);
    Forward {
        rewrite: section.get("rewrite", url_path).map(|given| given.value),
        websocket: section.value("websocket", default.websocket, word(WEBSOCKET)),
        host: section.value("host_header", HostHeader::Keep, host_header),
        origins: origins.map(|list| list.into_iter().map(|given| given.value).collect()),
        subprotocols: protocols.map(texts),
        connect: section.get("upstream_connect", period).map(|given| given.value),
        answer: section.get("upstream_answer", period).map(|given| given.value),
        idle: section.get("idle", off(period)).map(|given| given.value),
        lifetime: section.value("lifetime", None, off(wait::<1_000, WAIT_MAX_MS, 1>)),
        packets: section.value("packets", default.packets, flag),
        body_limit: section.value("body_limit", default.body_limit, off(size)),
        ..supervision::frames(section, default, ping)
    }
}

fn redirect_status(value: &toml::de::DeValue<'_>) -> Result<Statuses, Invalid> {
    let expected = "301, 302, 303, 307 or 308";
    let status: Statuses = count(value).map_err(|e| Invalid { expected: expected.into(), ..e })?;
    match status.get() {
        301 | 302 | 303 | 307 | 308 => Ok(status),
        _ => Err(Invalid::new("not a status of a redirect", expected)),
    }
}

fn host_pattern(value: &toml::de::DeValue<'_>) -> Result<HostPattern, Invalid> {
    let expected = "a name such as \"example.com\" or \"*.example.com\", without a port";
    let text = text(value)?.to_ascii_lowercase();
    let host = text.trim_end_matches('.');
    let bare = host.trim_start_matches('[').trim_end_matches(']');
    match host.strip_prefix("*.") {
        Some(rest) if is_host_name(rest) => Ok(HostPattern::Below(format!(".{rest}"))),
        None if is_host_name(host) || bare.parse::<std::net::IpAddr>().is_ok() => {
            Ok(HostPattern::Exact(host.to_owned()))
        }
        _ => Err(Invalid::new("not a host", expected)),
    }
}

fn host_header(value: &toml::de::DeValue<'_>) -> Result<HostHeader, Invalid> {
    let text = text(value)?;
    match text.as_str() {
        "keep" => Ok(HostHeader::Keep),
        "upstream" => Ok(HostHeader::Upstream),
        name if crate::handshake::is_host(name) => Ok(HostHeader::Fixed(text)),
        _ => {
            Err(Invalid::new("not a host", "\"keep\", \"upstream\" or a name with a port at most"))
        }
    }
}

fn origin(value: &toml::de::DeValue<'_>) -> Result<Origin, Invalid> {
    let expected = "an origin such as \"https://example.com\" or \"https://*.example.com:8443\", \
                    \"null\" or \"missing\"";
    let malformed = || Invalid::new("not an origin", expected);
    let text = text(value)?.to_ascii_lowercase();
    match text.as_str() {
        "null" => return Ok(Origin::Null),
        "missing" => return Ok(Origin::Missing),
        _ => {}
    }
    let (scheme, host) = text.split_once("://").ok_or_else(malformed)?;
    let is_scheme = |b: u8| b.is_ascii_alphanumeric() || b"+-.".contains(&b);
    let (bare, below) = match host.strip_prefix("*.") {
        Some(rest) => (rest, true),
        None => (host, false),
    };
    if scheme.is_empty() || !scheme.bytes().all(is_scheme) || !crate::handshake::is_host(bare) {
        return Err(malformed());
    }
    Ok(if below {
        Origin::Below { scheme: format!("{scheme}://"), suffix: format!(".{bare}") }
    } else {
        Origin::Exact(text)
    })
}

fn token(value: &toml::de::DeValue<'_>) -> Result<String, Invalid> {
    let name = text(value)?;
    if is_token(&name) {
        return Ok(name);
    }
    Err(Invalid::new("not a name", "letters, digits and any of !#$%&'*+-.^_`|~"))
}

fn file_name(value: &toml::de::DeValue<'_>) -> Result<String, Invalid> {
    let name = text(value)?;
    if name.contains('/') || name.starts_with('.') {
        return Err(Invalid::new("not a file's name", "a name such as \"index.html\""));
    }
    Ok(name)
}

fn fallback(value: &toml::de::DeValue<'_>) -> Result<String, Invalid> {
    let text = text(value)?;
    let is_status = |digits: &str| digits.parse::<u16>().is_ok_and(|s| (200..600).contains(&s));
    let known = matches!(text.as_str(), "$uri" | "$uri/")
        || text.strip_prefix('=').is_some_and(is_status)
        || (text.starts_with('/') && !text.split('/').any(|s| s == ".." || s == "."));
    if known {
        return Ok(text);
    }
    let expected = "\"$uri\", \"$uri/\", a path such as \"/index.html\", or \"=404\"";
    Err(Invalid::new("not something to try", expected))
}

/// The headers that say how a message is delimited and where the connection goes; what is
/// sent of them is not the configuration's to choose.
const OURS: [&str; 9] = [
    "connection",
    "content-length",
    "host",
    "keep-alive",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
    "proxy-connection",
];

fn check_name(section: &Section<'_, '_>, name: &Given<String>) -> bool {
    let lower = name.value.to_ascii_lowercase();
    let (message, expected) = if !is_token(&name.value) {
        ("not a name of a header", "letters, digits and any of !#$%&'*+-.^_`|~")
    } else if OURS.contains(&lower.as_str()) {
        ("wsproxy sets this header itself", "another header; for Host there is route.host_header")
    } else if lower.starts_with("sec-websocket-") {
        ("this header belongs to the handshake", "another header")
    } else {
        return true;
    };
    let problem = name.remark(message).with_found(quote(&name.value)).with_expected(expected);
    section.reader().report(problem);
    false
}

fn changes(section: &Section<'_, '_>, [set, add, remove]: [&'static str; 3]) -> HeaderChanges {
    let pairs = |key| -> Vec<(String, Template)> {
        let pair = |(name, value): (Given<String>, Given<String>)| {
            let fine = check_name(section, &name);
            match value.value.parse() {
                Ok(template) if fine => Some((name.value, template)),
                Ok(_) => None,
                Err(invalid) => {
                    let Invalid { message, expected } = invalid;
                    let problem = value.remark(message).with_found(quote(&value.value));
                    section.reader().report(problem.with_expected(expected));
                    None
                }
            }
        };
        section.pairs(key).into_iter().filter_map(pair).collect()
    };
    let removed = section.list(remove, (0, LIST_MAX), "names", text).unwrap_or_default();
    HeaderChanges {
        set: pairs(set),
        add: pairs(add),
        remove: removed
            .into_iter()
            .filter(|name| check_name(section, name))
            .map(|name| name.value.to_ascii_lowercase())
            .collect(),
    }
}

/// Two routes that take the same requests: nobody could say which one gets them.
fn duplicates(top: &Section<'_, '_>, routes: &[GivenRoute]) {
    let share = |a: &[String], b: &[String]| {
        a.is_empty() || b.is_empty() || a.iter().any(|name| b.contains(name))
    };
    let same_host = |a: &Route, b: &Route| {
        (a.hosts.is_empty() && b.hosts.is_empty()) || a.hosts.iter().any(|h| b.hosts.contains(h))
    };
    let normal = |route: &Route| {
        if route.exact { route.path.clone() } else { route.path.trim_end_matches('/').to_owned() }
    };
    for (at, given) in routes.iter().enumerate() {
        let route = &given.value;
        let before = routes[..at].iter().find(|other| {
            let other = &other.value;
            route.exact == other.exact
                && same_host(route, other)
                && share(&route.listeners, &other.listeners)
                && (route.path == other.path
                    || (normal(route) == normal(other)
                        && route.path.ends_with('/') == other.path.ends_with('/')))
        });
        if let Some(before) = before {
            let line = before.place.position().map_or(0, |at| at.line);
            let problem = given.remark(format!("the same requests as the route in line {line}"));
            top.reader().report(
                problem
                    .with_found(quote(&route.path))
                    .with_expected("another path, host or listener"),
            );
        }
        if let Some(before) = routes[..at].iter().find(|o| o.value.name == route.name)
            && before.value.path != route.path
        {
            let problem = given.remark("the name of another route");
            top.reader().report(problem.with_found(quote(&route.name)));
        }
    }
}
