//! What the admin socket says at one moment, as names and numbers. What an older wsproxy does not
//! say is unknown.

use std::time::Duration;

use serde_json::Value;

use crate::probe::shown::shown;

/// Most bytes of a name that are kept.
const MOST: usize = 256;

/// The direction from the client to the server, in each pair here.
pub(super) const TO_SERVER: usize = 0;
/// The direction from the server to the client.
pub(super) const TO_CLIENT: usize = 1;

/// One round of questions.
#[derive(Debug, Clone, Default, PartialEq)]
pub(super) struct Snapshot {
    /// When the sessions were listed, on a clock that only goes on.
    pub at: Duration,
    pub status: Status,
    pub servers: Vec<Server>,
    /// The listed ones, the longest first.
    pub sessions: Vec<Session>,
    /// All sessions; a list is not longer than the server makes it.
    pub total: usize,
}

/// The gateway as a whole.
#[derive(Debug, Clone, Default, PartialEq)]
pub(super) struct Status {
    pub version: String,
    pub uptime_s: Option<u64>,
    pub datapath: String,
    /// Sessions on the packet path; none where wsproxy is too old for it.
    pub translated: Option<u64>,
    pub in_kernel: Option<u64>,
    pub relayed: Option<u64>,
    /// Sessions since the start.
    pub started: Option<u64>,
    pub routes: Vec<Route>,
}

/// A route and its live sessions.
#[derive(Debug, Clone, Default, PartialEq)]
pub(super) struct Route {
    pub name: String,
    pub sessions: Option<u64>,
}

/// A server in an upstream group.
#[derive(Debug, Clone, Default, PartialEq)]
pub(super) struct Server {
    pub group: String,
    /// Handshakes that wait for a place in the group.
    pub waiting: Option<u64>,
    pub name: String,
    pub state: String,
    pub live: Option<u64>,
    pub total: Option<u64>,
    pub failures: Option<u64>,
}

/// Who moves the bytes of a direction.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Carrier {
    Kernel,
    Relay,
    Packet,
}

/// A live session. Pairs are [`TO_SERVER`], [`TO_CLIENT`].
#[derive(Debug, Clone, Default, PartialEq)]
pub(super) struct Session {
    pub id: u64,
    pub client: String,
    pub upstream: String,
    pub route: String,
    pub carriers: [Option<Carrier>; 2],
    pub age_s: Option<u64>,
    pub bytes: [Option<u64>; 2],
    /// Unknown where frames are not followed.
    pub messages: [Option<u64>; 2],
    /// Since a byte moved.
    pub idle_ms: Option<u64>,
    /// Of the last ping: to the client, to the server.
    pub ping_us: [Option<u64>; 2],
    /// Times that a direction was taken from the kernel.
    pub diversions: Option<u64>,
    pub frames: Option<String>,
    pub closing: Option<String>,
    pub request_id: Option<String>,
}

impl Snapshot {
    /// The answers to `status`, `upstreams` and `sessions`.
    pub(super) fn read(at: Duration, status: &Value, upstreams: &Value, sessions: &Value) -> Self {
        let listed: Vec<_> = rows(&sessions["sessions"]).iter().filter_map(session).collect();
        let total = sessions["total"].as_u64().and_then(|total| usize::try_from(total).ok());
        Self {
            at,
            status: read_status(status),
            servers: rows(upstreams).iter().flat_map(read_group).collect(),
            total: total.unwrap_or(listed.len()).max(listed.len()),
            sessions: listed,
        }
    }

    /// Whether there is nothing but what is listed.
    pub(super) fn lists_all(&self) -> bool {
        self.total == self.sessions.len()
    }
}

fn rows(value: &Value) -> &[Value] {
    value.as_array().map_or(&[], Vec::as_slice)
}

/// A name as it may stand on a terminal; some of them come from the network.
pub(super) fn clean(text: &str) -> String {
    shown(text.as_bytes(), MOST)
}

fn name(value: &Value) -> Option<String> {
    value.as_str().map(clean)
}

/// An unknown name as everything unknown is shown.
fn name_or_dash(value: &Value) -> String {
    name(value).unwrap_or_else(|| "-".to_owned())
}

fn read_status(value: &Value) -> Status {
    let routes = rows(&value["routes"]).iter().map(|route| Route {
        name: name_or_dash(&route["name"]),
        sessions: route["sessions"].as_u64(),
    });
    Status {
        version: name_or_dash(&value["version"]),
        uptime_s: value["uptime_s"].as_u64(),
        datapath: name_or_dash(&value["datapath"]),
        translated: value["sessions"]["packet"].as_u64(),
        in_kernel: value["sessions"]["sockmap"].as_u64(),
        relayed: value["sessions"]["relay"].as_u64(),
        started: value["sessions_total"].as_u64(),
        routes: routes.collect(),
    }
}

fn read_group(group: &Value) -> Vec<Server> {
    let server = |server: &Value| Server {
        group: name_or_dash(&group["name"]),
        waiting: group["waiting"].as_u64(),
        name: name_or_dash(&server["name"]),
        state: name_or_dash(&server["state"]),
        live: server["live"].as_u64(),
        total: server["total"].as_u64(),
        failures: server["failures"].as_u64(),
    };
    rows(&group["servers"]).iter().map(server).collect()
}

/// `None` for one without a number: nothing could be said or asked of it.
fn session(value: &Value) -> Option<Session> {
    let number = |key: &str| value[key].as_u64();
    let carrier = |owner: &str, at: usize| match (&value[owner], &value["in_kernel"][at]) {
        (Value::String(owner), _) if owner == "kernel" => Some(Carrier::Kernel),
        (Value::String(owner), _) if owner == "relay" => Some(Carrier::Relay),
        (Value::String(owner), _) if owner == "packet" => Some(Carrier::Packet),
        (_, Value::Bool(true)) => Some(Carrier::Kernel),
        (_, Value::Bool(false)) => Some(Carrier::Relay),
        _ => None,
    };
    Some(Session {
        id: number("id")?,
        client: name_or_dash(&value["client"]),
        upstream: name_or_dash(&value["upstream"]),
        route: name_or_dash(&value["route"]),
        carriers: [carrier("owner_to_upstream", TO_SERVER), carrier("owner_to_client", TO_CLIENT)],
        age_s: number("age_s"),
        bytes: [number("bytes_to_upstream"), number("bytes_to_client")],
        messages: [number("messages_to_upstream"), number("messages_to_client")],
        idle_ms: number("idle_ms"),
        ping_us: [number("ping_rtt_us_client"), number("ping_rtt_us_upstream")],
        diversions: number("diversions"),
        frames: name(&value["frames"]),
        closing: name(&value["closing"]),
        request_id: name(&value["request_id"]),
    })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn read(sessions: &Value) -> Snapshot {
        Snapshot::read(Duration::ZERO, &Value::Null, &Value::Null, sessions)
    }

    #[test]
    fn reads_a_session_of_today_and_one_of_before() {
        let sessions = json!({ "total": 2, "sessions": [
            { "id": 1, "client": "192.0.2.1:5", "upstream": "a:1", "route": "/", "datapath": "relay",
              "age_s": 3, "bytes_to_upstream": 10, "bytes_to_client": 20, "in_kernel": [true, false] },
            { "id": 2, "client": "192.0.2.1:6", "owner_to_upstream": "relay",
              "owner_to_client": "kernel", "in_kernel": [true, false],
              "messages_to_upstream": 4, "messages_to_client": null, "ping_rtt_us_client": 900,
              "ping_rtt_us_upstream": null, "diversions": 1, "idle_ms": 7, "frames": "on",
              "closing": null, "request_id": "abc" },
        ] });
        let snapshot = read(&sessions);
        assert!(snapshot.lists_all());
        let [before, today] = &snapshot.sessions[..] else { panic!("{snapshot:?}") };
        assert_eq!(before.carriers, [Some(Carrier::Kernel), Some(Carrier::Relay)]);
        assert_eq!((before.bytes, before.messages), ([Some(10), Some(20)], [None, None]));
        assert_eq!((before.diversions, &before.frames), (None, &None));
        assert_eq!(today.carriers, [Some(Carrier::Relay), Some(Carrier::Kernel)]);
        assert_eq!((today.messages, today.ping_us), ([Some(4), None], [Some(900), None]));
        assert_eq!((today.upstream.as_str(), today.request_id.as_deref()), ("-", Some("abc")));
        assert_eq!(today.closing, None);
    }

    #[test]
    fn a_session_may_go_the_packet_path() {
        let sessions = json!({ "total": 1, "sessions": [
            { "id": 1, "owner_to_upstream": "packet", "owner_to_client": "packet",
              "in_kernel": [false, false] },
        ] });
        assert_eq!(read(&sessions).sessions[0].carriers, [Some(Carrier::Packet); 2]);
        let status = json!({ "sessions": { "packet": 3, "sockmap": 2, "relay": 1 } });
        let status = read_status(&status);
        let counts = [status.translated, status.in_kernel, status.relayed];
        assert_eq!(counts, [Some(3), Some(2), Some(1)]);
    }

    #[test]
    fn a_list_may_be_shorter_than_what_there_is() {
        let snapshot = read(&json!({ "total": 12_345, "sessions": [{ "id": 1 }, { "no": 1 }] }));
        assert_eq!((snapshot.total, snapshot.sessions.len()), (12_345, 1));
        assert!(!snapshot.lists_all());
        // Nonsense is no more than unknown.
        assert_eq!(read(&json!([1])), read(&Value::Null));
        assert_eq!(read(&json!({ "total": -1, "sessions": 7 })).total, 0);
    }

    #[test]
    fn names_steer_no_terminal() {
        let sessions = json!({ "sessions": [{ "id": 1, "client": "\u{1b}[2J\u{202e}x", "route": "a".repeat(900) }] });
        let session = read(&sessions).sessions.remove(0);
        assert_eq!(session.client, "\\u{1b}[2J\\u{202e}x");
        assert!(session.route.len() < 300);
    }
}
