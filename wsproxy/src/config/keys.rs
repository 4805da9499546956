//! Every key of the file, once: what reads the file knows its keys from here, and the document,
//! the commented example and the JSON schema are made of it.

use Kind::{
    Address, Bool, Choice, Duration, File, Integer, List, Network, Pairs, Rate, Server, Size,
    Status, Table, Tables, Text,
};

/// What a value looks like.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// `"ip:port"`, `":port"` or `"unix:/path"`.
    Address,
    /// `"host:port"`.
    Server,
    /// Text.
    Text,
    /// A path.
    File,
    /// A length of time.
    Duration,
    /// A number of bytes.
    Size,
    /// A whole number.
    Integer,
    /// `true` or `false`.
    Bool,
    /// One of these words.
    Choice(&'static [&'static str]),
    /// `"10/s"`, `"300/m"`.
    Rate,
    /// `"10.0.0.0/8"`, `"::1"`.
    Network,
    /// An HTTP status.
    Status,
    /// Several of a kind.
    List(&'static Kind),
    /// Names and texts.
    Pairs,
    /// A table with keys of its own, of this name.
    Table(&'static str),
    /// Several of them.
    Tables(&'static str),
}

/// One key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Key {
    /// `upstream.tls`; empty for the file itself.
    pub section: &'static str,
    /// The key in its section.
    pub name: &'static str,
    /// What its value looks like.
    pub kind: Kind,
    /// Its default as it would stand in a file; empty: there is none, and `range` says what then.
    pub default: &'static str,
    /// What it may be, beyond its kind.
    pub range: &'static str,
    /// What it does, and what happens at the limit.
    pub what: &'static str,
    /// A value for the example, where the default is none.
    pub example: &'static str,
}

impl Key {
    /// `section.name`.
    #[must_use]
    pub fn whole(&self) -> String {
        if self.section.is_empty() {
            self.name.to_owned()
        } else {
            format!("{}.{}", self.section, self.name)
        }
    }
}

const fn key(
    section: &'static str,
    name: &'static str,
    kind: Kind,
    default: &'static str,
    range: &'static str,
    what: &'static str,
) -> Key {
    Key { section, name, kind, default, range, what, example: "" }
}

impl Key {
    const fn such_as(self, example: &'static str) -> Self {
        Self { example, ..self }
    }
}

/// The key of that name, where it is declared.
pub(super) fn find(section: &str, name: &str) -> Option<&'static Key> {
    KEYS.iter().find(|key| key.section == section && key.name == name)
}

/// Whether a section may hold this key.
pub(super) fn knows(section: &str, name: &str) -> bool {
    find(section, name).is_some()
}

/// The names of a section's keys.
pub(super) fn names_in(section: &str) -> impl Iterator<Item = &'static str> {
    KEYS.iter().filter(move |key| key.section == section).map(|key| key.name)
}

/// Every key, in the order of the document.
pub const KEYS: &[Key] = &[
    key("", "listener", Tables("listener"), "", "1 to 64", "what clients connect to"),
    key("", "upstream", Tables("upstream"), "", "at most 256", "groups of servers"),
    key("", "route", Tables("route"), "", "at most 1024; without any, everything goes to the one upstream", "which request goes where"),
    key("", "timeouts", Table("timeouts"), "", "", "how long to wait"),
    key("", "ping", Table("ping"), "", "", "whether silent sides of sessions are alive"),
    key("", "drain", Table("drain"), "", "", "how sessions are closed when they have to go"),
    key("", "limits", Table("limits"), "", "", "how much at a time"),
    key("", "clients", Table("clients"), "", "", "who a client is"),
    key("", "access_log", Table("access_log"), "", "", "a line per request and session"),
    key("", "datapath", Table("datapath"), "", "", "how bytes are moved"),
    key("", "admin", Table("admin"), "", "", "metrics, and commands to a running wsproxy"),
    key("", "process", Table("process"), "", "", "what the process may still do once it serves"),
    key("", "log", Table("log"), "", "", "messages of wsproxy itself"),
    //
    key("listener", "name", Text, "", "none twice; without one, its address", "what routes and the log call it").such_as("\"public\""),
    key("listener", "address", Address, "", "required (or `--listen`); none overlaps another one or `admin.address`", "where to listen; an address that cannot be bound ends the start with an error").such_as("\"0.0.0.0:8080\""),
    key("listener", "backlog", Integer, "4096", "`1` to `65535`", "connections that may wait to be accepted; those that find the queue full are dropped by the kernel and tried again by their clients; the kernel lowers the value to `net.core.somaxconn`"),
    key("listener", "reuseport", Bool, "false", "", "another process may listen on the same address (`SO_REUSEPORT`); the kernel spreads connections over both"),
    key("listener", "proxy_protocol_from", List(&Network), "[]", "at most 256 networks", "addresses that begin each connection with a PROXY header (v1 or v2) which names the client; a connection from there without a valid one is closed; from elsewhere a PROXY header is no valid request").such_as("[\"10.0.0.0/8\"]"),
    key("listener", "max_sessions", Integer, "\"off\"", "`1` to `1000000`, or `\"off\"`", "live sessions that came in here; a further handshake is answered 503"),
    key("listener", "allow", List(&Network), "[]", "at most 1024 networks", "if any, every other address is closed without an answer").such_as("[\"10.0.0.0/8\"]"),
    key("listener", "deny", List(&Network), "[]", "at most 1024 networks", "addresses that are closed without an answer; looked at before `allow`").such_as("[\"192.0.2.0/24\"]"),
    key("listener", "packets", Bool, "true", "", "`false`: packets of its sessions are not translated, whatever `datapath.packets` or `datapath.mode` say (see `docs/PACKET-PATH.md`)"),
    key("listener", "tls", Table("listener.tls"), "", "", "makes it a TLS listener"),
    key("listener.tls", "certificates", Tables("listener.tls.certificates"), "", "1 to 1024", "chosen by the name that the client asks for; the first one is for every other name"),
    key("listener.tls.certificates", "certificate", File, "", "required", "PEM file with the certificate and those between it and the root; read again when it changes").such_as("\"/etc/ssl/example.com.pem\""),
    key("listener.tls.certificates", "key", File, "", "required", "PEM file with its private key").such_as("\"/etc/ssl/example.com.key\""),
    key("listener.tls", "client_ca", File, "", "without it, clients are asked for no certificate", "PEM file with the authorities that client certificates are checked against").such_as("\"/etc/ssl/clients.pem\""),
    key("listener.tls", "client_auth", Choice(&["require", "optional"]), "\"require\"", "", "whether a client without a certificate is refused; needs `client_ca`"),
    key("listener.tls", "min_version", Choice(&["1.2", "1.3"]), "\"1.2\"", "", "the oldest TLS that is spoken"),
    //
    key("upstream", "name", Text, "\"default\"", "none twice", "what routes call it"),
    key("upstream", "servers", List(&Server), "", "required (or `--upstream`), 1 to 1024, none twice, none a listener", "where requests go: `\"host:port\"`, with `wss://` or `https://` before it over TLS, `\"unix:/path\"`, `\"srv://name\"` for SRV records; or a table with the keys below").such_as("[\"127.0.0.1:9000\"]"),
    key("upstream.servers", "address", Server, "", "required", "the server").such_as("\"127.0.0.1:9000\""),
    key("upstream.servers", "weight", Integer, "1", "`1` to `1000`", "its share of requests"),
    key("upstream.servers", "backup", Bool, "false", "", "used only when no other server is usable"),
    key("upstream.servers", "max_connections", Integer, "\"off\"", "`1` to `1000000`, or `\"off\"`", "sessions and requests at a time; beyond, another server is taken"),
    key("upstream.servers", "disabled", Bool, "false", "", "gets nothing"),
    key("upstream", "balance", Choice(&["round_robin", "least_conn", "random", "ip_hash", "hash"]), "\"round_robin\"", "", "`random`: the less busy of two; `ip_hash`: by the client's address (IPv6: its /64); `hash`: by `hash_key`. Both hashes are consistent: every gateway with the same servers chooses alike, and a server that leaves moves only its own clients"),
    key("upstream", "hash_key", Text, "\"client\"", "`\"client\"`, `\"header:NAME\"`, `\"cookie:NAME\"`, `\"query:NAME\"`", "what `hash` looks at; a request without it is spread by round robin"),
    key("upstream", "sticky_cookie", Text, "\"off\"", "a name, or `\"off\"`", "a cookie that brings a client back to its server as long as that is usable"),
    key("upstream", "max_fails", Integer, "1", "`0` to `1000`; `0`: never", "failed connections and handshakes within `fail_timeout` that take a server out for `fail_timeout`; the only server of a group stays in"),
    key("upstream", "fail_timeout", Duration, "\"10s\"", "`1ms` to `30d`", "see `max_fails`"),
    key("upstream", "queue", Integer, "0", "`0` to `100000`", "requests that may wait when every server is at `max_connections`; beyond, 503"),
    key("upstream", "queue_timeout", Duration, "\"5s\"", "`1ms` to `30d`", "how long one waits there; then 503"),
    key("upstream", "slow_start", Duration, "\"off\"", "`1ms` to `30d`, or `\"off\"`", "how long the weight of a server that came back grows to its full value"),
    key("upstream", "keepalive", Integer, "32", "`0` to `10000`", "idle HTTP connections that each worker keeps to each server"),
    key("upstream", "proxy_protocol", Choice(&["off", "v1", "v2"]), "\"off\"", "", "each connection to a server begins with this PROXY header, which names the client"),
    key("upstream", "transparent", Bool, "false", "", "connect from the client's own address (`IP_TRANSPARENT`); needs CAP_NET_ADMIN or CAP_NET_RAW, and routing, see Transparent connections"),
    key("upstream", "close_dead", Bool, "false", "", "close the sessions of a server that its health check finds dead"),
    key("upstream", "gone_code", Choice(&["1014", "1001", "off"]), "\"1014\"", "", "a server that ends a session, or breaks it off, without a Close frame: the client gets this code instead of 1006, unless it had ended its own side before"),
    key("upstream", "resolve", Duration, "\"30s\"", "`1s` to `30d`", "names of servers are resolved again when their records expire, and at the latest after this; servers that vanish keep their sessions and get no new ones"),
    key("upstream", "tls", Table("upstream.tls"), "", "", "for `wss://` and `https://` servers"),
    key("upstream.tls", "ca", File, "", "without it, the system's authorities", "PEM file with the authorities that vouch for the servers; a server's own certificate in it is trusted as it is, also a self-signed one").such_as("\"/etc/ssl/internal-ca.pem\""),
    key("upstream.tls", "server_name", Text, "", "without it, the server's host", "the name that the certificate must have").such_as("\"app.internal\""),
    key("upstream.tls", "verify", Bool, "true", "", "`false` takes any certificate: whoever is in between can read and change everything"),
    key("upstream.tls", "certificate", File, "", "with `key`", "PEM file with the certificate that is shown to a server that asks").such_as("\"/etc/ssl/gateway.pem\""),
    key("upstream.tls", "key", File, "", "with `certificate`", "PEM file with its private key").such_as("\"/etc/ssl/gateway.key\""),
    key("upstream", "health", Table("upstream.health"), "", "", "servers are asked whether they are well"),
    key("upstream.health", "kind", Choice(&["off", "tcp", "http", "websocket"]), "\"off\"", "", "a connection; a GET answered 200 to 399; a WebSocket handshake"),
    key("upstream.health", "path", Text, "\"/\"", "begins with `/`", "what is asked for"),
    key("upstream.health", "interval", Duration, "\"5s\"", "`100ms` to `1d`", "between two checks of a server, give or take a tenth"),
    key("upstream.health", "timeout", Duration, "\"2s\"", "`1ms` to `30d`", "a check that takes longer has failed"),
    key("upstream.health", "rise", Integer, "2", "`1` to `100`", "checks in a row that bring a server back"),
    key("upstream.health", "fall", Integer, "3", "`1` to `100`", "failed checks in a row that take a server out"),
    //
    key("route", "name", Text, "", "none twice; without one, its host and path", "what the log and metrics call it").such_as("\"chat\""),
    key("route", "listeners", List(&Text), "", "names of listeners; without it, all", "where its requests come in").such_as("[\"public\"]"),
    key("route", "hosts", List(&Text), "", "names, `\"*.name\"`; without it, every host", "which hosts; an exact name wins over a wildcard, the longest wildcard over others").such_as("[\"example.com\", \"*.example.com\"]"),
    key("route", "path", Text, "\"/\"", "begins with `/`", "a prefix by whole segments: `/ws` takes `/ws` and `/ws/x`, not `/wsx`; the longest wins"),
    key("route", "exact", Bool, "false", "", "`path` alone, nothing below; wins over every prefix"),
    key("route", "upstream", Text, "", "one of `upstream`, `files`, `redirect`, `respond`", "the group of servers").such_as("\"default\""),
    key("route", "files", File, "", "an absolute path", "the directory whose files are served below `path`; names that begin with a dot are not, except `.well-known`").such_as("\"/var/www/html\""),
    key("route", "redirect", Text, "", "with variables", "where the client is sent").such_as("\"https://$host$request_uri\""),
    key("route", "respond", Status, "", "`200` to `599`", "the status of a fixed answer").such_as("404"),
    key("route", "rewrite", Text, "", "begins with `/`; without it, the path stays", "what stands in the place of `path` towards the upstream; `\"/\"` strips it").such_as("\"/\""),
    key("route", "websocket", Choice(&["allow", "only", "deny"]), "\"allow\"", "", "`only`: plain requests are answered 426; `deny`: handshakes are answered 403"),
    key("route", "host_header", Text, "\"keep\"", "`\"keep\"`, `\"upstream\"` or a name", "the `Host` that the upstream sees: the client's, the server's own, or this one"),
    key("route", "origins", List(&Text), "", "origins, with `*.` for subdomains, `\"null\"`, `\"missing\"`; without it, every origin", "handshakes with another `Origin` are answered 403; `\"missing\"` lets programs in that send none").such_as("[\"https://example.com\", \"https://*.example.com\"]"),
    key("route", "subprotocols", List(&Text), "", "names; without it, all", "only these are passed on; a handshake that offers none of them is answered 400").such_as("[\"chat\"]"),
    key("route", "upstream_connect", Duration, "", "`1ms` to `30d`; without it, `timeouts.upstream_connect`", "to connect to a server").such_as("\"5s\""),
    key("route", "upstream_answer", Duration, "", "`1ms` to `30d`; without it, `timeouts.upstream_answer`", "for a server to answer").such_as("\"30s\""),
    key("route", "idle", Duration, "", "`1ms` to `30d`, or `\"off\"`; without it, `timeouts.idle`", "a session in which nothing moves for so long is closed").such_as("\"1h\""),
    key("route", "lifetime", Duration, "\"off\"", "`1s` to `30d`, or `\"off\"`", "a session older than this is closed"),
    key("route", "ping", Table("route.ping"), "", "", "in the place of `[ping]`, key by key"),
    key("route", "frames", Bool, "true", "", "follow the frames of sessions: `false` saves a little CPU and gives up pings, Close frames and message counts for the route"),
    key("route", "enforce_framing", Bool, "false", "needs `frames`", "a side that breaks RFC 6455's framing is closed with 1002"),
    key("route", "max_message", Size, "\"off\"", "`1B` to `1TiB`, or `\"off\"`; needs `frames`", "a side whose message is longer is closed with 1009"),
    key("route", "max_frame", Size, "\"off\"", "`1B` to `1TiB`, or `\"off\"`; needs `frames`", "a side that sends a longer frame is closed with 1009"),
    key("route", "packets", Bool, "true", "", "`false`: packets of its sessions are not translated, whatever `datapath.packets` or `datapath.mode` say (see `docs/PACKET-PATH.md`)"),
    key("route", "body_limit", Size, "\"1MiB\"", "`0` to `3GiB`, or `\"off\"`", "a plain request with a longer body is answered 413"),
    key("route", "index", List(&Text), "[\"index.html\"]", "names", "with `files`: what is served for a directory"),
    key("route", "fallback", List(&Text), "", "`\"$uri\"`, `\"$uri/\"`, paths, `\"=404\"` at the end", "with `files`: what is tried in turn, as nginx's `try_files`").such_as("[\"$uri\", \"$uri/\", \"/index.html\"]"),
    key("route", "status", Status, "301", "`301`, `302`, `303`, `307`, `308`", "with `redirect`: its status"),
    key("route", "body", Text, "", "at most 64 KiB; without it, a line that names the status", "with `respond`: its text").such_as("\"not here\\n\""),
    key("route", "allow", List(&Network), "[]", "at most 1024 networks", "if any, every other client is answered 403").such_as("[\"10.0.0.0/8\"]"),
    key("route", "deny", List(&Network), "[]", "at most 1024 networks", "clients that are answered 403; looked at before `allow`").such_as("[\"192.0.2.0/24\"]"),
    key("route", "max_sessions", Integer, "\"off\"", "`1` to `1000000`, or `\"off\"`", "live sessions of this route; a further handshake is answered 503"),
    key("route", "max_sessions_per_client", Integer, "\"off\"", "`1` to `1000000`, or `\"off\"`", "live sessions of one client address on this route; a further handshake is answered 429"),
    key("route", "handshake_rate", Rate, "\"off\"", "`\"1/h\"` to `\"1000000/s\"`, or `\"off\"`", "handshakes of one client address on this route; beyond, 429 with `Retry-After`"),
    key("route", "handshake_burst", Integer, "20", "`1` to `1000000`", "handshakes that may come at once before `handshake_rate` is looked at"),
    key("route", "set_request_headers", Pairs, "{}", "at most 64, with variables", "headers of the request to the upstream, in place of those that came").such_as("{ \"X-Client\" = \"$client_ip\" }"),
    key("route", "add_request_headers", Pairs, "{}", "at most 64, with variables", "headers added to the request"),
    key("route", "remove_request_headers", List(&Text), "[]", "at most 64", "headers that the upstream does not get"),
    key("route", "set_response_headers", Pairs, "{}", "at most 64, with variables", "headers of the answer to the client, in place of those that came"),
    key("route", "add_response_headers", Pairs, "{}", "at most 64, with variables", "headers added to the answer"),
    key("route", "remove_response_headers", List(&Text), "[]", "at most 64", "headers that the client does not get"),
    //
    key("route.ping", "interval", Duration, "", "`10ms` to `1d`, or `\"off\"`; without it, `ping.interval`", "a side that was silent for so long is sent a Ping; `\"off\"`: no pings").such_as("\"30s\""),
    key("route.ping", "timeout", Duration, "", "`100ms` to `1h`; without it, `ping.timeout`", "a side that says nothing for so long after a Ping is dead: the session is closed").such_as("\"10s\""),
    key("route.ping", "upstream", Bool, "", "without it, `ping.upstream`", "servers are pinged too, not only clients").such_as("false"),
    //
    key("timeouts", "request_head", Duration, "\"10s\"", "`1ms` to `30d`", "a client that has not sent its whole request head by then is answered 408 and closed"),
    key("timeouts", "tls_handshake", Duration, "\"10s\"", "`1ms` to `30d`", "a TLS handshake, or a PROXY header, that takes longer is closed"),
    key("timeouts", "keepalive_idle", Duration, "\"75s\"", "`1ms` to `30d`", "a client's connection is closed when its next request does not begin by then"),
    key("timeouts", "request_body", Duration, "\"60s\"", "`1ms` to `30d`", "the longest pause inside the body of a plain request; then the connection is closed"),
    key("timeouts", "upstream_connect", Duration, "\"5s\"", "`1ms` to `30d`", "to connect to a server, its name resolved; then the next server is tried, and when none is left the client is answered 504"),
    key("timeouts", "upstream_answer", Duration, "\"30s\"", "`1ms` to `30d`", "an upstream that has not sent its whole answer head by then is closed; the client is answered 504. A plain request is given up before that (499) when its client resets the connection, or 5 s after it has ended its side of it"),
    key("timeouts", "idle", Duration, "\"1h\"", "`1ms` to `30d`, or `\"off\"`", "a session in which nothing moved in either direction for so long is closed, and so is a plain answer that pauses for so long; `\"off\"`: never"),
    key("timeouts", "half_closed", Duration, "\"60s\"", "`1ms` to `30d`, or `\"off\"`", "a session of which one side has ended its direction, and in which nothing moved for so long since, is closed"),
    key("timeouts", "drain", Duration, "\"10s\"", "`1ms` to `30d`", "a session that is being closed (at a stop, by an operator, by a time limit, with its server) and has not answered the Close frame and ended so long after it is cut off; a stop takes `drain.window` and this at most"),
    key("timeouts", "keepalive", Duration, "\"60s\"", "`1s` to `9h`, whole seconds, or `\"off\"`", "a connection silent for so long is probed by TCP, on both sockets; one that does not answer is closed as broken; `\"off\"`: no probes"),
    key("timeouts", "user_timeout", Duration, "\"60s\"", "`1s` to `24d`, or `\"off\"`", "a connection whose sent data stays unacknowledged, or whose receiver keeps its window shut, for so long is closed as broken (`TCP_USER_TIMEOUT`); `\"off\"`: when the kernel gives up resending"),
    //
    key("ping", "interval", Duration, "\"30s\"", "`10ms` to `1d`, or `\"off\"`", "a side that was silent for so long is sent a Ping; `\"off\"`: no pings"),
    key("ping", "timeout", Duration, "\"10s\"", "`100ms` to `1h`", "a side that says nothing for so long after a Ping is dead: the session is closed"),
    key("ping", "upstream", Bool, "false", "", "servers are pinged too, not only clients"),
    //
    key("drain", "window", Duration, "\"10s\"", "`1ms` to `1h`, or `\"off\"`", "the sessions to be closed at SIGTERM, by `wsproxy drain` or with their server are closed one by one, evenly over so long; `\"off\"`: all at once"),
    key("drain", "code", Integer, "1001", "`1001` (going away) or `1012` (service restart)", "what the Close frame says then"),
    key("drain", "reason", Text, "\"going away\"", "at most 123 bytes of UTF-8 on one line; may be empty", "the reason in that Close frame"),
    key("drain", "retry_after", Duration, "\"10s\"", "`1s` to `1h`, whole seconds", "handshakes refused meanwhile are told to come back after half to one and a half of this, at random (`Retry-After`)"),
    //
    key("limits", "max_sessions", Integer, "\"auto\"", "`1` to `1000000`, or `\"auto\"`: as many as the limit on descriptors allows", "connections and sessions at a time; a further client is answered 503 and closed"),
    key("limits", "max_sessions_per_client", Integer, "\"off\"", "`1` to `1000000`, or `\"off\"`", "live sessions of one client address; a further handshake is answered 429"),
    key("limits", "ipv6_prefix", Integer, "64", "`1` to `128`", "IPv6 clients in a network of this prefix length count as one"),
    key("limits", "handshake_rate", Rate, "\"off\"", "`\"1/h\"` to `\"1000000/s\"`, or `\"off\"`", "handshakes of all clients; beyond, 503 with `Retry-After`"),
    key("limits", "handshake_rate_per_client", Rate, "\"off\"", "`\"1/h\"` to `\"1000000/s\"`, or `\"off\"`", "handshakes of one client address; beyond, 429 with `Retry-After`"),
    key("limits", "handshake_burst", Integer, "20", "`1` to `1000000`", "handshakes that may come at once before a rate is looked at"),
    key("limits", "head_bytes", Size, "\"16KiB\"", "`1KiB` to `1MiB`", "a longer request head is answered 431; a longer answer head of the upstream makes the answer 502"),
    key("limits", "head_headers", Integer, "100", "`8` to `1024`", "header lines; more in a request are answered 431; more in the upstream's answer make the answer 502"),
    key("limits", "relay_buffer", Size, "\"256KiB\"", "`16KiB` to `16MiB`", "a direction that holds so much in user space is not read from until its receiver takes some; also the size of each worker's read buffer"),
    //
    key("clients", "trusted_proxies", List(&Network), "[]", "at most 256 networks", "addresses whose `X-Forwarded-*`, `Forwarded` and `X-Request-ID` are believed; from elsewhere they are replaced").such_as("[\"10.0.0.0/8\"]"),
    key("clients", "address_header", Choice(&["X-Forwarded-For", "Forwarded", "X-Real-IP"]), "\"X-Forwarded-For\"", "", "where such a proxy says who the client is; in a list, the last address that is not itself a trusted proxy"),
    //
    key("access_log", "format", Choice(&["off", "json", "combined"]), "\"off\"", "", "a line for each plain request and for each session when it ends"),
    key("access_log", "path", File, "", "without it, standard output", "the file, opened again on SIGUSR1").such_as("\"/var/log/wsproxy/access.log\""),
    //
    key("datapath", "mode", Choice(&["auto", "packet", "sockmap", "relay"]), "\"auto\"", "", "`\"packet\"` and `\"sockmap\"` where the kernel cannot end the start with an error; `\"auto\"` takes, for each session, the best of them that is possible (see `docs/PACKET-PATH.md`)"),
    key("datapath", "packets", Bool, "true", "", "whether `\"auto\"` may translate packets of sessions instead of terminating their TCP: they bypass iptables, nftables and conntrack then (see `docs/PACKET-PATH.md`)"),
    key("datapath", "persist", Bool, "false", "", "whether sessions on the packet path outlive the process: one that is killed (`SIGKILL`) or crashes leaves them to the kernel, and the next start, of another version too, takes them over; an orderly stop still ends them. Needs Linux 6.6; sessions that are relayed or in the socket map end with the process (see `docs/PACKET-PATH.md`)"),
    key("datapath", "persist_path", File, "\"/sys/fs/bpf/wsproxy\"", "a folder on a bpffs, made where it is missing", "where `persist` keeps the maps and the attachments of its program"),
    key("datapath", "state_dir", File, "\"/run/wsproxy/sessions\"", "a folder, made where it is missing; only wsproxy may enter it", "where `persist` keeps a small file for each session; of the running wsproxy alone"),
    key("datapath", "workers", Integer, "\"auto\"", "`1` to `64`, or `\"auto\"`: the number of CPUs", "threads of each kind: so many accept connections and serve HTTP, so many carry sessions; each has its connections, or its sessions, for as long as they last"),
    key("datapath", "settle", Duration, "\"100ms\"", "`1ms` to `30d`, or `\"off\"`", "a session younger than this is relayed in user space; an older one enters the kernel at the first moment when that is the cheaper path for it: it is silent for a second, or its messages are small and come one at a time. Where one wake-up of a worker serves many sockets, and for bulk, user space is cheaper (see `docs/BENCHMARKS.md`). `\"off\"`, and in the demo: every session enters the kernel at once, whatever it does"),
    //
    key("admin", "address", Address, "", "none: no admin port; must not overlap a listener", "where `/metrics`, `/healthz` and `/readyz` are; an address that is not loopback is a warning: the admin port asks nobody who they are").such_as("\"127.0.0.1:9901\""),
    key("admin", "socket", File, "", "without it, there is none", "a Unix socket for `wsproxy top`, `status`, `sessions`, `upstreams`, `drain`, `disable`, `enable`, `close` and `reload`; only its owner may use it; its directory must exist").such_as("\"/run/wsproxy/admin.sock\""),
    //
    key("process", "user", Text, "\"auto\"", "a user's name or number, or `\"auto\"`: `wsproxy` where that user exists and can read what the configuration names, else the one it was started as", "started as root, wsproxy becomes this user before it serves anybody, and keeps no capability that it does not need; see Privileges. A named user that cannot read the certificates, keys and directories of the configuration ends the start with an error"),
    key("process", "group", Text, "", "a group's name or number; without it, the user's groups", "the only group then").such_as("\"wsproxy\""),
    key("process", "seccomp", Bool, "true", "", "whether the kernel refuses every system call that wsproxy has no use for, where the kernel can; see Privileges"),
    key("process", "landlock", Bool, "true", "", "whether the kernel keeps wsproxy from every file that the configuration does not name and the system's libraries do not read, where the kernel can; a reload that names a new folder needs a restart then; see Privileges"),
    //
    key("log", "format", Choice(&["text", "json"]), "\"text\"", "", "what a line looks like"),
    key("log", "level", Choice(&["error", "warn", "info", "debug", "trace"]), "\"info\"", "", "less important messages are not written"),
];
