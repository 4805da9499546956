use super::*;

const HEAD: &str = "# Made of nginx.conf by wsproxy import-nginx.\n\n";

#[test]
fn a_location_behind_tls() {
    let import = imported(include_str!("data/1-tls-location.conf"));
    let expected = r#"# nginx.conf:7: listen 443 ssl
[[listener]]
name = "https"
address = "0.0.0.0:443"
[listener.tls]
certificates = [{ certificate = "/path/to/cert.pem", key = "/path/to/key.pem" }]

# nginx.conf:13: proxy_pass http://127.0.0.1:3000
[[upstream]]
name = "127.0.0.1:3000"
servers = ["127.0.0.1:3000"]

# nginx.conf:12: location /ws/
[[route]]
hosts = ["example.com"]
path = "/ws/"
upstream = "127.0.0.1:3000"
idle = "1h"
"#;
    assert_eq!(import.toml, format!("{HEAD}{expected}"));
    let unsupported = |note: &Note| note.severity == Severity::Unsupported;
    assert!(!import.notes.iter().any(unsupported), "{:?}", import.notes);
}

#[test]
fn every_timeout() {
    let import = imported(include_str!("data/2-complete.conf"));
    let expected = r#"# nginx.conf:6: listen 80
[[listener]]
name = "http"
address = "0.0.0.0:80"

# nginx.conf:9: proxy_pass http://127.0.0.1:8080
[[upstream]]
name = "127.0.0.1:8080"
servers = ["127.0.0.1:8080"]

# nginx.conf:8: location /socket/
[[route]]
hosts = ["example.com"]
path = "/socket/"
upstream = "127.0.0.1:8080"
upstream_connect = "75s"
idle = "1h"
"#;
    assert_eq!(import.toml, format!("{HEAD}{expected}"));
    assert_eq!(
        remarks(&import),
        [
            "5 changed: nginx also gives it the requests for hosts that no server names; here \
             they are answered 404: take `hosts` out of its routes on \"http\" if that was meant",
            "16 changed: became `idle`, of sessions; the wait for the answer to a request is \
             upstream_answer, 30s by default",
            "18 changed: 75s: a connection attempt does not last longer in nginx either; 5s, \
             the default, lets the next server have a try sooner",
        ]
    );
}

#[test]
fn a_chat_beside_its_files() {
    let import = imported(include_str!("data/3-chat-static.conf"));
    let expected = r#"# nginx.conf:2: listen 80
[[listener]]
name = "http"
address = "0.0.0.0:80"

# nginx.conf:10: proxy_pass http://localhost:8080
[[upstream]]
name = "localhost:8080"
servers = ["localhost:8080"]

# nginx.conf:4: location /
[[route]]
hosts = ["chat.example.com"]
path = "/"
files = "/var/www/html"
index = ["index.html"]
fallback = ["$uri", "$uri/", "/index.html"]

# nginx.conf:9: location /ws/
[[route]]
hosts = ["chat.example.com"]
path = "/ws/"
upstream = "localhost:8080"
idle = "1h"
"#;
    assert_eq!(import.toml, format!("{HEAD}{expected}"));
}

#[test]
fn a_group_with_a_limit() {
    let import = imported(include_str!("data/4-load-balance-limit.conf"));
    let expected = r#"# nginx.conf:13: listen 80
[[listener]]
name = "http"
address = "0.0.0.0:80"

# nginx.conf:2: upstream websocket_servers
[[upstream]]
name = "websocket_servers"
servers = [
    "backend1.example.com:8080",
    { address = "backend2.example.com:8080", weight = 2 },
    { address = "backend3.example.com:8080", backup = true },
]
balance = "ip_hash"

# nginx.conf:15: location /ws/
[[route]]
hosts = ["example.com"]
path = "/ws/"
upstream = "websocket_servers"
idle = "1h"
max_sessions_per_client = 10
"#;
    assert_eq!(import.toml, format!("{HEAD}{expected}"));
}

#[test]
fn what_is_always_done_is_a_quiet_note() {
    let import = imported(include_str!("data/1-tls-location.conf"));
    for directive in [
        "proxy_http_version 1.1",
        "proxy_set_header Upgrade $http_upgrade",
        "proxy_set_header Host $host",
        "map $http_upgrade $connection_upgrade",
    ] {
        let note = import.notes.iter().find(|note| note.directive == directive).unwrap();
        assert_eq!(note.severity, Severity::Ignored, "{note}");
        assert!(note.message.starts_with("not needed"), "{note}");
    }
}
