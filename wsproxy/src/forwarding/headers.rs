//! Headers as lists of lines, whichever library keeps them, and what is done to them.

use http::{HeaderMap, HeaderName, HeaderValue};

use super::facts::{Connection, Facts};
use crate::config::{HeaderChanges, HostHeader};

/// Header lines of a message.
pub trait Headers {
    /// The values of every line of that name.
    fn values<'h>(&'h self, name: &str) -> Box<dyn Iterator<Item = &'h [u8]> + 'h>;
    /// Takes every line of that name away.
    fn remove(&mut self, name: &str);
    /// As `remove`, and the spellings with `_` for `-` too: servers that make variables of headers
    /// (CGI, WSGI, PHP) take both for one.
    fn remove_alike(&mut self, name: &str);
    /// Adds a line; one that is no valid header is left out.
    fn add(&mut self, name: &str, value: &[u8]);
    /// Takes away every line that this hop writes itself, however it is spelled.
    fn remove_written(&mut self);
    /// Adds a line of this hop.
    fn write(&mut self, line: &Written, value: &[u8]);
}

impl Headers for Vec<(String, Vec<u8>)> {
    fn values<'h>(&'h self, name: &str) -> Box<dyn Iterator<Item = &'h [u8]> + 'h> {
        let name = name.to_owned();
        let lines = self.iter().filter(move |(n, _)| n.eq_ignore_ascii_case(&name));
        Box::new(lines.map(|(_, value)| value.as_slice()))
    }

    fn remove(&mut self, name: &str) {
        self.retain(|(n, _)| !n.eq_ignore_ascii_case(name));
    }

    fn remove_alike(&mut self, name: &str) {
        self.retain(|(n, _)| !n.eq_ignore_ascii_case(name) && !is_alike(n, name));
    }

    fn add(&mut self, name: &str, value: &[u8]) {
        // The values come from texts and requests that were checked: this is the last look.
        if HeaderValue::from_bytes(value).is_ok() {
            self.push((name.to_owned(), value.to_vec()));
        }
    }

    fn remove_written(&mut self) {
        self.retain(|(name, _)| !is_written(&name.to_ascii_lowercase()));
    }

    fn write(&mut self, line: &Written, value: &[u8]) {
        self.add(line.spelled, value);
    }
}

impl Headers for HeaderMap {
    fn values<'h>(&'h self, name: &str) -> Box<dyn Iterator<Item = &'h [u8]> + 'h> {
        Box::new(self.get_all(name).iter().map(HeaderValue::as_bytes))
    }

    fn remove(&mut self, name: &str) {
        HeaderMap::remove(self, name);
    }

    fn remove_alike(&mut self, name: &str) {
        HeaderMap::remove(self, name);
        while let Some(other) = self.keys().find(|n| is_alike(n.as_str(), name)).cloned() {
            HeaderMap::remove(self, other);
        }
    }

    fn add(&mut self, name: &str, value: &[u8]) {
        if let (Ok(name), Ok(value)) =
            (HeaderName::from_bytes(name.as_bytes()), HeaderValue::from_bytes(value))
        {
            self.append(name, value);
        }
    }

    fn remove_written(&mut self) {
        while let Some(name) = self.keys().find(|name| is_written(name.as_str())).cloned() {
            HeaderMap::remove(self, name);
        }
    }

    fn write(&mut self, line: &Written, value: &[u8]) {
        if let Ok(value) = HeaderValue::from_bytes(value) {
            self.append(&line.name, value);
        }
    }
}

/// A header that this hop writes itself, whoever wrote it before.
#[derive(Debug)]
pub struct Written {
    spelled: &'static str,
    name: HeaderName,
}

impl Written {
    const fn new(spelled: &'static str, lower: &'static str) -> Self {
        Self { spelled, name: HeaderName::from_static(lower) }
    }
}

static X_FORWARDED_FOR: Written = Written::new("X-Forwarded-For", "x-forwarded-for");
static X_FORWARDED_PROTO: Written = Written::new("X-Forwarded-Proto", "x-forwarded-proto");
static X_FORWARDED_HOST: Written = Written::new("X-Forwarded-Host", "x-forwarded-host");
static X_REAL_IP: Written = Written::new("X-Real-IP", "x-real-ip");
static X_REQUEST_ID: Written = Written::new("X-Request-ID", "x-request-id");
static FORWARDED: Written = Written::new("Forwarded", "forwarded");

/// Whether this hop writes the line itself; `name` is in lower case.
fn is_written(name: &str) -> bool {
    // Most names are told by their first letter.
    let ours = [&X_FORWARDED_FOR, &X_FORWARDED_PROTO, &X_FORWARDED_HOST, &X_REAL_IP, &X_REQUEST_ID];
    match name.as_bytes().first() {
        Some(b'x') => {
            ours.iter().map(|line| line.name.as_str()).any(|n| n == name || is_alike(name, n))
        }
        Some(b'f') => name == FORWARDED.name.as_str(),
        _ => false,
    }
}

/// Whether `line` is `name` with `_` for some `-`.
fn is_alike(line: &str, name: &str) -> bool {
    let dashed = |byte: u8| if byte == b'_' { b'-' } else { byte.to_ascii_lowercase() };
    line.len() == name.len()
        && line.contains('_')
        && line.bytes().map(dashed).eq(name.bytes().map(|byte| byte.to_ascii_lowercase()))
}

/// The value of a cookie of the request (RFC 6265 section 4.2.1).
pub fn cookie<'h>(headers: &'h impl Headers, name: &str) -> Option<&'h str> {
    for line in headers.values("cookie") {
        let Ok(text) = std::str::from_utf8(line) else { continue };
        let pairs = text.split(';').filter_map(|pair| pair.trim().split_once('='));
        if let Some((_, value)) = pairs.into_iter().find(|(n, _)| *n == name) {
            return Some(value);
        }
    }
    None
}

/// The value of a parameter of a query, as it came.
#[must_use]
pub fn query_value<'q>(query: &'q str, name: &str) -> Option<&'q str> {
    let pairs = query.split('&').map(|pair| pair.split_once('=').unwrap_or((pair, "")));
    pairs.into_iter().find(|(n, _)| *n == name).map(|(_, value)| value)
}

/// Changes whose texts are known.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Rendered {
    set: Vec<(String, String)>,
    add: Vec<(String, String)>,
    remove: Vec<String>,
}

impl Rendered {
    /// Puts what is known of the request into the texts.
    pub fn new(
        changes: &HeaderChanges,
        facts: &Facts,
        connection: &Connection,
        headers: &impl Headers,
        upstream: &str,
    ) -> Self {
        let render = |list: &[(String, crate::config::Template)]| {
            let one = |(name, text): &(String, crate::config::Template)| {
                let value = text.render(|v| facts.value(v, connection, headers, upstream));
                (name.clone(), value)
            };
            list.iter().map(one).collect()
        };
        Self {
            set: render(&changes.set),
            add: render(&changes.add),
            remove: changes.remove.clone(),
        }
    }

    /// Changes the headers. A `set` to nothing takes the header away.
    pub fn apply(&self, headers: &mut impl Headers) {
        for name in &self.remove {
            headers.remove_alike(name);
        }
        for (name, value) in &self.set {
            headers.remove_alike(name);
            if !value.is_empty() {
                headers.add(name, value.as_bytes());
            }
        }
        for (name, value) in self.add.iter().filter(|(_, value)| !value.is_empty()) {
            headers.add(name, value.as_bytes());
        }
    }
}

/// Makes of the headers that came those that the upstream gets. `server` is its own address,
/// for [`HostHeader::Upstream`].
pub fn prepare_request(
    headers: &mut impl Headers,
    facts: &Facts,
    connection: &Connection,
    host: &HostHeader,
    server: &str,
    changes: &Rendered,
) {
    let host = match host {
        HostHeader::Keep => None,
        HostHeader::Upstream => Some(server),
        HostHeader::Fixed(name) => Some(name.as_str()),
    };
    if let Some(host) = host {
        headers.remove("host");
        headers.add("Host", host.as_bytes());
    }
    let said = |name: &str| headers.values(name).next().map(<[u8]>::to_vec);
    let forwarded_host = if facts.trusted { said("x-forwarded-host") } else { None };
    let forwarded = facts.trusted.then(|| {
        let lines: Vec<_> = headers.values("forwarded").filter(|line| !line.is_empty()).collect();
        lines.join(&b", "[..])
    });
    headers.remove_written();
    headers.write(&X_FORWARDED_FOR, facts.forwarded_for.as_bytes());
    headers.write(&X_FORWARDED_PROTO, facts.scheme.as_bytes());
    let forwarded_host = forwarded_host.as_deref().unwrap_or(facts.http_host.as_bytes());
    if !forwarded_host.is_empty() {
        headers.write(&X_FORWARDED_HOST, forwarded_host);
    }
    if facts.trusted {
        headers.write(&X_REAL_IP, facts.client.to_string().as_bytes());
    } else {
        headers.write(&X_REAL_IP, facts.peer_text().as_bytes());
    }
    headers.write(&X_REQUEST_ID, facts.request_id.as_bytes());
    headers.write(&FORWARDED, &forwarded_line(forwarded, facts, connection));
    changes.apply(headers);
}

/// `Forwarded` with our element at its end (RFC 7239 section 4).
fn forwarded_line(before: Option<Vec<u8>>, facts: &Facts, connection: &Connection) -> Vec<u8> {
    let peer = facts.peer_text();
    let (open, close) = if peer.contains(':') { ("\"[", "]\"") } else { ("", "") };
    let host = facts.http_host.as_str();
    let (host_is, host_ends) = if host.is_empty() { ("", "") } else { (";host=\"", "\"") };
    let ours = ["for=", open, peer, close, host_is, host, host_ends, ";proto=", connection.scheme];
    let mut line = before.filter(|value| !value.is_empty()).unwrap_or_default();
    let comma: &[u8] = if line.is_empty() { b"" } else { b", " };
    line.reserve_exact(comma.len() + ours.iter().map(|part| part.len()).sum::<usize>());
    line.extend_from_slice(comma);
    for part in ours {
        line.extend_from_slice(part.as_bytes());
    }
    line
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Clients;

    fn lines(list: &[(&str, &str)]) -> Vec<(String, Vec<u8>)> {
        list.iter().map(|(n, v)| ((*n).to_owned(), v.as_bytes().to_vec())).collect()
    }

    fn connection() -> Connection {
        Connection {
            peer: "10.0.0.1:5".parse().unwrap(),
            local: "10.0.0.2:80".parse().unwrap(),
            scheme: "http",
            tls_name: None,
            tls_version: None,
        }
    }

    fn facts(headers: &Vec<(String, Vec<u8>)>, clients: &Clients) -> Facts {
        Facts::new(&connection(), clients, headers, ("GET", "/a?b=c", "h:1"), || {
            ("id".into(), None)
        })
    }

    #[test]
    fn cookies_and_queries() {
        let headers = lines(&[("Cookie", "a=1; bb=2"), ("cookie", "c=3=4")]);
        for (name, value) in [("a", Some("1")), ("bb", Some("2")), ("c", Some("3=4")), ("b", None)]
        {
            assert_eq!(cookie(&headers, name), value, "{name}");
        }
        for (name, value) in [("x", Some("1")), ("y", Some("")), ("z", None)] {
            assert_eq!(query_value("x=1&y&x=2", name), value, "{name}");
        }
    }

    #[test]
    fn what_strangers_say_of_themselves_is_replaced() {
        let clients = Clients::default();
        let mut headers = lines(&[
            ("Host", "h:1"),
            ("X-Real-IP", "6.6.6.6"),
            ("X-Forwarded-For", "6.6.6.6"),
            ("Forwarded", "for=6.6.6.6"),
            ("X-Forwarded-Host", "evil"),
            ("X-Request-ID", "evil"),
        ]);
        let facts = facts(&headers, &clients);
        let none = Rendered::default();
        prepare_request(&mut headers, &facts, &connection(), &HostHeader::Keep, "s:1", &none);
        let expected = lines(&[
            ("Host", "h:1"),
            ("X-Forwarded-For", "10.0.0.1"),
            ("X-Forwarded-Proto", "http"),
            ("X-Forwarded-Host", "h:1"),
            ("X-Real-IP", "10.0.0.1"),
            ("X-Request-ID", "id"),
            ("Forwarded", "for=10.0.0.1;host=\"h:1\";proto=http"),
        ]);
        assert_eq!(headers, expected);
    }

    #[test]
    fn what_a_trusted_proxy_says_is_kept() {
        let trusted = "10.0.0.0/8".parse().unwrap();
        let clients = Clients { trusted_proxies: vec![trusted], ..Clients::default() };
        let mut headers = lines(&[
            ("X-Forwarded-For", "6.6.6.6"),
            ("Forwarded", "for=6.6.6.6"),
            ("X-Forwarded-Host", "public"),
        ]);
        let facts = facts(&headers, &clients);
        let none = Rendered::default();
        let host = HostHeader::Upstream;
        prepare_request(&mut headers, &facts, &connection(), &host, "s:1", &none);
        let expected = lines(&[
            ("Host", "s:1"),
            ("X-Forwarded-For", "6.6.6.6, 10.0.0.1"),
            ("X-Forwarded-Proto", "http"),
            ("X-Forwarded-Host", "public"),
            ("X-Real-IP", "6.6.6.6"),
            ("X-Request-ID", "id"),
            ("Forwarded", "for=6.6.6.6, for=10.0.0.1;host=\"h:1\";proto=http"),
        ]);
        assert_eq!(headers, expected);
    }

    #[test]
    fn the_configuration_has_the_last_word() {
        let parse = |text: &str| text.parse().unwrap();
        let changes = HeaderChanges {
            set: vec![
                ("X-A".into(), parse("$client_ip/$cookie_c/$header_x_b")),
                ("X-Gone".into(), parse("$cookie_none")),
            ],
            add: vec![("X-B".into(), parse("two"))],
            remove: vec!["x-real-ip".into()],
        };
        let mut headers =
            lines(&[("X-A", "old"), ("X-B", "one"), ("X-Gone", "1"), ("Cookie", "c=d")]);
        let rendered = Rendered::new(
            &changes,
            &facts(&headers, &Clients::default()),
            &connection(),
            &headers,
            "s:1",
        );
        rendered.apply(&mut headers);
        let expected =
            lines(&[("X-B", "one"), ("Cookie", "c=d"), ("X-A", "10.0.0.1/d/one"), ("X-B", "two")]);
        assert_eq!(headers, expected);
        let mut map = HeaderMap::new();
        map.insert("x-a", HeaderValue::from_static("old"));
        rendered.apply(&mut map);
        assert_eq!(map["x-a"], "10.0.0.1/d/one");
    }
}
