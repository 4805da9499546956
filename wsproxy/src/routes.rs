//! Which route a request takes. Pure.
//!
//! The host decides first: the routes of an exact name, else those of the longest wildcard
//! that fits, else those without a host. Among them an exact path wins, else the longest prefix.
//! Routes of a less fitting host are not looked at: what a host serves is written in one place.

use std::borrow::Cow;
use std::collections::HashMap;

use crate::config::{HostPattern, Route};
use crate::handshake::percent_decoded;

/// The routes of one listener.
#[derive(Debug, Default)]
pub struct Router {
    exact: HashMap<String, Paths>,
    /// Suffixes with their dot, the longest first.
    below: Vec<(String, Paths)>,
    rest: Paths,
}

/// Paths of one host, with numbers of routes.
#[derive(Debug, Default)]
struct Paths {
    exact: HashMap<Vec<u8>, usize>,
    /// The longest first.
    prefixes: Vec<(Vec<u8>, usize)>,
}

impl Paths {
    fn add(&mut self, route: &Route, number: usize) {
        let path = normal(&route.path).into_owned();
        if route.exact {
            self.exact.entry(path).or_insert(number);
        } else {
            let at = self.prefixes.partition_point(|(other, _)| other.len() >= path.len());
            self.prefixes.insert(at, (path, number));
        }
    }

    fn find(&self, path: &[u8]) -> Option<usize> {
        if let Some(number) = self.exact.get(path) {
            return Some(*number);
        }
        let fits = |prefix: &[u8]| {
            let whole =
                |rest: &[u8]| rest.is_empty() || rest[0] == b'/' || prefix.last() == Some(&b'/');
            path.strip_prefix(prefix).is_some_and(whole)
        };
        self.prefixes.iter().find(|(prefix, _)| fits(prefix)).map(|(_, number)| *number)
    }
}

impl Router {
    /// Of those `routes` that listen on `listener`; they keep their numbers.
    #[must_use]
    pub fn new(routes: &[Route], listener: &str) -> Self {
        let mut router = Self::default();
        for (number, route) in routes.iter().enumerate() {
            let here = route.listeners.is_empty() || route.listeners.iter().any(|l| l == listener);
            if here {
                router.add(route, number);
            }
        }
        router.below.sort_by_key(|(suffix, _)| std::cmp::Reverse(suffix.len()));
        router
    }

    fn add(&mut self, route: &Route, number: usize) {
        if route.hosts.is_empty() {
            self.rest.add(route, number);
        }
        for host in &route.hosts {
            match host {
                HostPattern::Exact(name) => {
                    self.exact.entry(name.clone()).or_default().add(route, number);
                }
                HostPattern::Below(suffix) => {
                    let at = self.below.iter().position(|(other, _)| other == suffix);
                    let at = at.unwrap_or_else(|| {
                        self.below.push((suffix.clone(), Paths::default()));
                        self.below.len() - 1
                    });
                    self.below[at].1.add(route, number);
                }
            }
        }
    }

    /// The number of the route for a host (in lower case, without port) and a path.
    #[must_use]
    pub fn find(&self, host: &str, path: &str) -> Option<usize> {
        let path = normal(path);
        let paths = self.exact.get(host).or_else(|| {
            let fits = |suffix: &str| host.len() > suffix.len() && host.ends_with(suffix);
            self.below.iter().find(|(suffix, _)| fits(suffix)).map(|(_, paths)| paths)
        });
        paths.unwrap_or(&self.rest).find(&path)
    }
}

/// A path as it is compared: decoded once, with single slashes. So no other spelling of a path
/// slips past a route that was made for it.
fn normal(path: &str) -> Cow<'_, [u8]> {
    if !path.contains('%') && !path.contains("//") {
        return Cow::Borrowed(path.as_bytes());
    }
    let mut decoded = percent_decoded(path);
    decoded.dedup_by(|b, a| *a == b'/' && *b == b'/');
    Cow::Owned(decoded)
}

/// The target that an upstream gets: `with` in the place of the route's path. Spellings that
/// [`Router::find`] took for the path are not cut byte by byte but by segments.
#[must_use]
pub fn rewritten(route: &Route, with: &str, target: &str) -> String {
    let (path, query) = match target.split_once('?') {
        Some((path, query)) => (path, Some(query)),
        None => (target, None),
    };
    let rest = if route.exact { "" } else { behind(&route.path, path) };
    let mut out = String::with_capacity(target.len() + with.len());
    out.push_str(with);
    // One slash between the two, none doubled, none lost.
    match (out.ends_with('/'), rest.starts_with('/')) {
        (true, true) => out.push_str(&rest[1..]),
        (false, false) if !rest.is_empty() => {
            out.push('/');
            out.push_str(rest);
        }
        _ => out.push_str(rest),
    }
    if let Some(query) = query {
        out.push('?');
        out.push_str(query);
    }
    out
}

/// What of `path` stands behind the `prefix` that it begins with, in whichever spelling.
pub(crate) fn behind<'p>(prefix: &str, path: &'p str) -> &'p str {
    if let Some(rest) = path.strip_prefix(prefix) {
        return rest;
    }
    let wanted = normal(prefix).len();
    let end = (0..=path.len())
        .filter(|at| path.is_char_boundary(*at))
        .find(|at| normal(&path[..*at]).len() >= wanted && !cuts_a_code(path, *at));
    end.map_or("", |at| &path[at..])
}

/// Whether a cut at `at` goes through a `%xx`.
fn cuts_a_code(path: &str, at: usize) -> bool {
    let bytes = path.as_bytes();
    (1..=2).any(|back| at >= back && bytes.get(at - back) == Some(&b'%') && at < bytes.len() + 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn route(hosts: &[&str], path: &str, exact: bool) -> Route {
        let host = |text: &&str| match text.strip_prefix('*') {
            Some(suffix) => HostPattern::Below(suffix.to_owned()),
            None => HostPattern::Exact((*text).to_owned()),
        };
        let hosts = hosts.iter().map(host).collect();
        Route { hosts, path: path.to_owned(), exact, ..Route::everything_to("u") }
    }

    #[test]
    fn the_most_fitting_host_and_then_path_wins() {
        let routes = [
            route(&[], "/", false),
            route(&["a.example"], "/", false),
            route(&["a.example"], "/ws", false),
            route(&["a.example"], "/ws/", true),
            route(&["*.example"], "/x/", false),
            route(&["*.b.example"], "/", false),
        ];
        let router = Router::new(&routes, "l");
        for (host, path, number) in [
            ("other", "/", Some(0)),
            ("other", "/ws", Some(0)),
            ("a.example", "/", Some(1)),
            ("a.example", "/wsx", Some(1)),
            ("a.example", "/ws", Some(2)),
            ("a.example", "/ws/y", Some(2)),
            ("a.example", "/ws/", Some(3)),
            ("a.example", "//ws", Some(2)),
            ("a.example", "/%77s", Some(2)),
            ("c.example", "/x/", Some(4)),
            ("c.example", "/x", None),
            ("c.example", "/", None),
            ("z.b.example", "/", Some(5)),
            (".example", "/x/", Some(0)),
            ("example", "/x/", Some(0)),
        ] {
            assert_eq!(router.find(host, path), number, "{host} {path}");
        }
    }

    #[test]
    fn a_route_may_belong_to_a_listener() {
        let mine = Route { listeners: vec!["one".into()], ..route(&[], "/", false) };
        assert_eq!(Router::new(std::slice::from_ref(&mine), "one").find("h", "/"), Some(0));
        assert_eq!(Router::new(&[mine], "two").find("h", "/"), None);
    }

    #[test]
    fn rewriting_keeps_what_is_behind_the_path() {
        for (path, with, target, expected) in [
            ("/ws/", "/", "/ws/a?b=c", "/a?b=c"),
            ("/ws", "/", "/ws/a", "/a"),
            ("/ws", "/", "/ws", "/"),
            ("/ws", "/app", "/ws/a", "/app/a"),
            ("/ws/", "/app", "/ws/a", "/app/a"),
            ("/ws/", "/app/", "/ws/", "/app/"),
            ("/", "/app/", "/a", "/app/a"),
            ("/ws", "/", "/%77s/a", "/a"),
            ("/ws", "/", "//ws/%2fa", "/%2fa"),
            ("/ws", "/", "/ws?x", "/?x"),
        ] {
            let route = route(&[], path, false);
            assert_eq!(rewritten(&route, with, target), expected, "{path} {with} {target}");
        }
        let only = route(&[], "/ws", true);
        assert_eq!(rewritten(&only, "/other", "/ws?x"), "/other?x");
    }
}
