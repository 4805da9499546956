//! `proxy_pass` and what goes with it.

use super::conditions::Checks;
use super::dial::Dial;
use super::headers;
use super::notes::Notes;
use super::parser::Directive;
use super::pattern::Pattern;
use super::render::Entries;
use super::scope::Scope;
use super::units::{WAIT_MAX_MS, authority, bytes, duration, millis, size, url_path};
use super::upstreams::Upstreams;
use super::variables::{Part, Variables};

/// No connection attempt lasts longer in nginx either, as its documentation says.
const CONNECT_MAX_MS: u64 = 75_000;
/// Our longest body.
const BODY_MAX: u64 = 3 << 30;

/// A `proxy_pass` taken apart.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Target {
    tls: bool,
    /// `host`, `host:port`, `unix:/path`.
    place: String,
    /// What stands in the place of the location's path.
    uri: Option<String>,
}

/// The keys of a location with `proxy_pass`; none if it cannot be said.
pub(super) fn of(
    directive: &Directive,
    variables: &Variables<'_>,
    pattern: &Pattern,
    upstreams: &mut Upstreams<'_>,
    checks: &Checks,
    notes: &Notes,
) -> Option<Entries> {
    let scope = &*variables.scope;
    let Some(target) = target(directive.arg(0), variables) else {
        notes.unsupported(
            directive,
            "not a fixed host: answers 501; name the servers in an [[upstream]] and make a \
             [[route]] for each case of the variable",
        );
        return None;
    };
    let dial = Dial::of(scope, target.tls, directive, notes);
    let is_group = upstreams.has_block(&target.place);
    let upstream = if is_group {
        upstreams.block(&target.place, &dial, notes)?
    } else {
        let port = if target.tls { 443 } else { 80 };
        let address = match target.place.starts_with("unix:") {
            true => Some(target.place.clone()),
            false => authority(&target.place, port),
        };
        let Some(address) = address else {
            notes.unsupported(directive, "not an address of a server: answers 501");
            return None;
        };
        upstreams.address(&address, &dial, directive)
    };
    let mut entries = Entries::default();
    entries.set("upstream", upstream);
    entries.set_if("rewrite", rewrite(directive, target.uri.as_deref(), pattern, notes));
    if checks.websocket_only {
        entries.set("websocket", "only");
    }
    entries.set_some("origins", checks.origins.clone().unwrap_or_default());
    waits(scope, &mut entries, notes);
    body_limit(scope, &mut entries, notes);
    headers::request(variables, directive, is_group, &mut entries, notes);
    next_upstream(scope, notes);
    Some(entries)
}

fn target(text: &str, variables: &Variables<'_>) -> Option<Target> {
    let parts = variables.with_constants(text);
    let (first, rest) = parts.split_first()?;
    let Part::Text(url) = first else { return None };
    let (tls, rest_of_url) = match url.split_once("://")? {
        ("http", rest) => (false, rest),
        ("https", rest) => (true, rest),
        _ => return None,
    };
    let (place, uri) = match rest_of_url.strip_prefix("unix:") {
        Some(path) => match path.split_once(':') {
            Some((path, uri)) => (format!("unix:{path}"), uri),
            None => (format!("unix:{path}"), ""),
        },
        None => {
            let end = rest_of_url.find('/').unwrap_or(rest_of_url.len());
            (rest_of_url[..end].to_owned(), &rest_of_url[end..])
        }
    };
    let whole = |part: &Part| matches!(part, Part::Variable(name) if matches!(name.as_str(), "request_uri" | "uri"));
    let uri = match rest {
        [] => (!uri.is_empty()).then(|| uri.to_owned()),
        // The path as it came is what is sent without any.
        [part] if whole(part) && uri.is_empty() => None,
        _ => return None,
    };
    let known = place.strip_prefix("unix:").is_none_or(|path| path.starts_with('/'));
    known.then_some(Target { tls, place, uri })
}

fn rewrite(
    directive: &Directive,
    uri: Option<&str>,
    pattern: &Pattern,
    notes: &Notes,
) -> Option<String> {
    let uri = uri?;
    let Some(path) = url_path(uri).filter(|_| !uri.contains('?')) else {
        notes
            .unsupported(directive, "its path is left out: one without a query, see route.rewrite");
        return None;
    };
    if path == pattern.path {
        return None;
    }
    if !pattern.exact && pattern.path.ends_with('/') != path.ends_with('/') {
        notes.changed(directive, "the paths are joined with one slash between them");
    }
    Some(path)
}

fn wait(directive: &Directive, notes: &Notes) -> Option<u64> {
    match millis(directive.arg(0)) {
        Some(0) | None => {
            notes.unsupported(directive, "left out: not a time above 0");
            None
        }
        Some(wait) => Some(wait.min(WAIT_MAX_MS)),
    }
}

fn waits(scope: &Scope<'_>, entries: &mut Entries, notes: &Notes) {
    if let Some(directive) = scope.find("proxy_connect_timeout")
        && let Some(mut connect) = wait(directive, notes)
    {
        if connect > CONNECT_MAX_MS {
            notes.changed(
                directive,
                "75s: a connection attempt does not last longer in nginx either; 5s, the \
                 default, lets the next server have a try sooner",
            );
            connect = CONNECT_MAX_MS;
        }
        entries.set("upstream_connect", duration(connect));
    }
    let read = scope.find("proxy_read_timeout");
    let send = scope.find("proxy_send_timeout");
    if let Some(directive) = read {
        let message = "became `idle`, of sessions; the wait for the answer to a request is \
                       upstream_answer, 30s by default";
        notes.changed(directive, message);
    }
    let longest = [read, send].into_iter().flatten().filter_map(|d| wait(d, notes)).max();
    entries.set_if("idle", longest.map(duration));
}

fn body_limit(scope: &Scope<'_>, entries: &mut Entries, notes: &Notes) {
    let Some(directive) = scope.find("client_max_body_size") else { return };
    match bytes(directive.arg(0)) {
        Some(0) => entries.set("body_limit", "off"),
        Some(limit) => {
            if limit > BODY_MAX {
                notes.changed(directive, "3GiB is the most, or \"off\"");
            }
            entries.set("body_limit", size(limit.min(BODY_MAX)));
        }
        None => notes.unsupported(directive, "left out: not a size"),
    }
}

fn next_upstream(scope: &Scope<'_>, notes: &Notes) {
    if let Some(directive) = scope.find("proxy_next_upstream") {
        if directive.arg(0) == "off" {
            let message = "another server is tried when one cannot be connected to";
            notes.changed(directive, message);
        } else {
            let message = "not needed: another server is tried as long as nothing was sent to \
                           the first one";
            notes.ignored(directive, message);
        }
    }
    if let Some(directive) = scope.find("proxy_redirect") {
        match directive.arg(0) {
            "off" | "default" => notes.ignored(directive, "not needed: Location is passed on"),
            _ => notes.unsupported(directive, "left out: Location is passed on as it is"),
        }
    }
}
