//! Whole configurations; the parts have their tests beside them.

mod cases;
mod examples;
mod full;
mod properties;
mod syntax;

use super::*;

/// The keys of our configuration, by table.
const KEYS: &[(&str, &[&str])] = &[
    ("", &["listener", "upstream", "route", "timeouts", "limits", "clients"]),
    (
        "listener",
        &["name", "address", "backlog", "reuseport", "proxy_protocol_from", "max_sessions", "tls"],
    ),
    ("listener.tls", &["certificates", "client_ca", "client_auth", "min_version"]),
    ("listener.tls.certificates", &["certificate", "key"]),
    (
        "upstream",
        &[
            "name",
            "servers",
            "balance",
            "hash_key",
            "sticky_cookie",
            "max_fails",
            "fail_timeout",
            "queue",
            "queue_timeout",
            "slow_start",
            "keepalive",
            "proxy_protocol",
            "transparent",
            "close_dead",
            "resolve",
            "tls",
            "health",
        ],
    ),
    ("upstream.servers", &["address", "weight", "backup", "max_connections", "disabled"]),
    ("upstream.tls", &["ca", "server_name", "verify", "certificate", "key"]),
    (
        "route",
        &[
            "name",
            "listeners",
            "hosts",
            "path",
            "exact",
            "upstream",
            "files",
            "redirect",
            "respond",
            "rewrite",
            "websocket",
            "host_header",
            "origins",
            "subprotocols",
            "upstream_connect",
            "upstream_answer",
            "idle",
            "lifetime",
            "body_limit",
            "index",
            "fallback",
            "status",
            "body",
            "allow",
            "deny",
            "max_sessions",
            "max_sessions_per_client",
            "handshake_rate",
            "handshake_burst",
            "set_request_headers",
            "add_request_headers",
            "remove_request_headers",
            "set_response_headers",
            "add_response_headers",
            "remove_response_headers",
        ],
    ),
    (
        "timeouts",
        &[
            "request_head",
            "tls_handshake",
            "upstream_connect",
            "upstream_answer",
            "idle",
            "keepalive_idle",
            "drain",
            "keepalive",
            "user_timeout",
        ],
    ),
    (
        "limits",
        &[
            "max_sessions",
            "max_connections",
            "max_sessions_per_client",
            "ipv6_prefix",
            "handshake_rate",
            "handshake_rate_per_client",
            "handshake_burst",
            "head_bytes",
            "head_headers",
            "relay_buffer",
        ],
    ),
    ("clients", &["trusted_proxies", "address_header"]),
];

/// The import of a text without includes, its TOML checked.
fn imported(text: &str) -> Import {
    let import = import(&|_| None, "nginx.conf", text).unwrap_or_else(|e| panic!("{e}\n{text}"));
    check(&import.toml);
    import
}

/// Without comments and the blank lines of the document.
fn bare(toml: &str) -> String {
    let lines = toml.lines().filter(|line| !line.starts_with('#') && !line.is_empty());
    lines.fold(String::new(), |text, line| text + line + "\n")
}

/// It reads as TOML, has only keys of ours, one action per route, and names only what is there.
fn check(toml: &str) {
    let table: toml::Table = toml.parse().unwrap_or_else(|error| panic!("{error}\n{toml}"));
    check_keys("", &table, toml);
    let names = |kind: &str| -> Vec<String> {
        list(&table, kind).iter().map(|t| t["name"].as_str().unwrap().to_owned()).collect()
    };
    let (listeners, upstreams) = (names("listener"), names("upstream"));
    let mut once = std::collections::HashSet::new();
    assert!(listeners.iter().all(|name| once.insert(name)), "{toml}");
    let mut once = std::collections::HashSet::new();
    assert!(upstreams.iter().all(|name| once.insert(name)), "{toml}");
    for route in list(&table, "route") {
        let actions = ["upstream", "files", "redirect", "respond"];
        assert_eq!(actions.iter().filter(|key| route.contains_key(**key)).count(), 1, "{toml}");
        if let Some(upstream) = route.get("upstream") {
            assert!(
                upstreams.iter().any(|name| Some(name.as_str()) == upstream.as_str()),
                "{toml}"
            );
        }
        for name in route.get("listeners").and_then(|l| l.as_array()).into_iter().flatten() {
            assert!(listeners.iter().any(|known| Some(known.as_str()) == name.as_str()), "{toml}");
        }
    }
}

fn list<'t>(table: &'t toml::Table, kind: &str) -> Vec<&'t toml::Table> {
    let list = table.get(kind).and_then(|value| value.as_array());
    list.into_iter().flatten().filter_map(|item| item.as_table()).collect()
}

fn check_keys(section: &str, table: &toml::Table, toml: &str) {
    // Their keys are names of headers.
    if section.ends_with("_headers") {
        return;
    }
    let known = KEYS.iter().find(|(name, _)| *name == section);
    let (_, known) = known.unwrap_or_else(|| panic!("no section {section}\n{toml}"));
    for (key, value) in table {
        assert!(known.contains(&key.as_str()), "no key {section}.{key}\n{toml}");
        let inner = if section.is_empty() { key.clone() } else { format!("{section}.{key}") };
        match value {
            toml::Value::Table(table) => check_keys(&inner, table, toml),
            toml::Value::Array(list) => {
                for table in list.iter().filter_map(|item| item.as_table()) {
                    check_keys(&inner, table, toml);
                }
            }
            _ => {}
        }
    }
}

/// `line severity: message` of the notes that need a look.
fn remarks(import: &Import) -> Vec<String> {
    let matter = import.notes.iter().filter(|note| note.severity != Severity::Ignored);
    matter.map(|note| format!("{} {}: {}", note.line, note.severity, note.message)).collect()
}
