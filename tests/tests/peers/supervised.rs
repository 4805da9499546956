//! What the gateway does to frames, as programs see it that know nothing of it: Pings and their
//! answers, Close frames at a drain and behind a killed server, counts of messages.

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

use super::{
    Bench, Datapath, METRICS_LIMIT, PINGS, Peer, Proxy, START_LIMIT, Started,
    autobahn_equals_direct, gateway::listening, poll, total, url,
};

/// Sessions of a client, as in `supervised.js` and `supervised.py`.
const SESSIONS: usize = 6;
/// Pings that each side of a session waits for in silence, as there.
const PINGED: f64 = 10.0;

/// A test a datapath for each client and server.
macro_rules! over_all {
    ($($test:ident: $datapath:ident $client:ident $server:ident;)*) => {
        $(
            mod $test {
                #[test]
                fn pings_and_counts() {
                    super::pings_and_counts(super::$datapath, super::$client, super::$server);
                }
                #[test]
                fn drain() {
                    super::drain(super::$datapath, super::$client, super::$server);
                }
                #[test]
                fn killed_server() {
                    super::killed_server(super::$datapath, super::$client, super::$server);
                }
            }
        )*
    };
}

const RELAY: Datapath = Datapath::Relay;
const SOCKMAP: Datapath = Datapath::Sockmap;
const PYTHON: Peer = Peer::Python;
const NODE: Peer = Peer::Node;

over_all! {
    relay_python_python: RELAY PYTHON PYTHON;
    relay_python_node: RELAY PYTHON NODE;
    relay_node_python: RELAY NODE PYTHON;
    relay_node_node: RELAY NODE NODE;
    sockmap_python_python: SOCKMAP PYTHON PYTHON;
    sockmap_python_node: SOCKMAP PYTHON NODE;
    sockmap_node_python: SOCKMAP NODE PYTHON;
    sockmap_node_node: SOCKMAP NODE NODE;
}

#[test]
fn relay_autobahn_pinged_equals_direct() {
    autobahn_equals_direct(RELAY, true);
}
#[test]
fn sockmap_autobahn_pinged_equals_direct() {
    autobahn_equals_direct(SOCKMAP, true);
}

#[test]
fn relay_chromium_pinged() {
    chromium_pinged(RELAY);
}
#[test]
fn sockmap_chromium_pinged() {
    chromium_pinged(SOCKMAP);
}

/// A browser on the demo page of one gateway through another one, which pings both, and for which
/// the page waits until the browser has answered.
fn chromium_pinged(datapath: Datapath) {
    let Some(bench) = Bench::new(datapath) else { return };
    let demo = Proxy::start(&bench, datapath, None);
    let proxy = Proxy::start_with(&bench, datapath, Some(demo.listen), PINGS);
    let before = proxy.metrics();
    let mut command = bench.script(NODE, "", "chromium.js");
    command.args(["--url", &format!("http://{}/", proxy.listen)]);
    command.args(["--answered", &format!("http://{}/metrics", proxy.admin)]);
    command.arg("--screenshot").arg(bench.logs.join("pinged.png"));
    let printed = bench.finish(&mut command);
    let summary: Value = serde_json::from_str(&printed).expect("JSON");
    assert!(summary["ok"] == true, "{printed}");
    proxy.assert_carried(datapath, &before, 1.0);
    // The embedded server has answered too, by way of the other gateway.
    let answers = total(&proxy.metrics(), "wsproxy_ping_seconds_count", &["upstream"]);
    let passed = total(&demo.metrics(), "wsproxy_control_frames_total", &["to_client", "pong"]);
    assert!(answers > 0.0 && passed >= answers, "{answers} answers, {passed} passed");
}

/// A server that counts, and a gateway in front of it that pings.
fn in_front_of(bench: &Bench, datapath: Datapath, server: Peer, more: &str) -> (Proxy, Started) {
    let mut command = bench.script(server, "supervised.py", "supervised.js");
    let mut server = Started::new(command.arg("server"), &bench.logs);
    let upstream = listening(&mut server);
    (Proxy::start_with(bench, datapath, Some(upstream), &format!("{PINGS}{more}")), server)
}

fn client(bench: &Bench, client: Peer, mode: &str, proxy: &Proxy) -> Started {
    let mut command = bench.script(client, "supervised.py", "supervised.js");
    Started::new(command.args([mode, &url(proxy.listen)]), &bench.logs)
}

/// What a client or a server says of its sessions, once so many have ended.
fn sessions_of(peer: &Started) -> Vec<Value> {
    let read = || {
        let printed = peer.stdout();
        let whole = printed.rsplit_once('\n').map_or("", |(whole, _)| whole);
        let ends = whole.lines().filter(|line| line.starts_with('{'));
        let ends: Vec<Value> = ends.map(|line| serde_json::from_str(line).expect("JSON")).collect();
        (ends.len() == SESSIONS).then_some(ends)
    };
    poll(START_LIMIT, read).unwrap_or_else(|| panic!("not {SESSIONS} sessions: {peer}"))
}

fn sum(sessions: &[Value], what: &str) -> f64 {
    sessions.iter().map(|s| s.pointer(what).and_then(Value::as_f64).expect("a number")).sum()
}

/// Waits until the counters have this value, and never have more.
fn assert_counted(proxy: &Proxy, name: &str, labels: &[&str], expected: f64) {
    let counted = || {
        let count = total(&proxy.metrics(), name, labels);
        assert!(count <= expected, "{name} {labels:?} is {count}, not {expected}");
        (count == expected).then_some(())
    };
    let reached = poll(METRICS_LIMIT, counted).is_some();
    assert!(reached, "{name} {labels:?} is not {expected} in\n{}", proxy.metrics());
}

/// Both sides are pinged while they are silent, then they talk, with and without compression, and
/// ping each other: nothing is lost, added or wrong, and all agree on how much it was.
fn pings_and_counts(datapath: Datapath, client_peer: Peer, server_peer: Peer) {
    let Some(bench) = Bench::new(datapath) else { return };
    let (proxy, server) = in_front_of(&bench, datapath, server_peer, "");
    let before = proxy.metrics();
    let client = client(&bench, client_peer, "pinged", &proxy);
    bench.finished(client, |client| {
        let (ours, theirs) = (sessions_of(client), sessions_of(&server));
        for end in ours.iter().chain(&theirs) {
            let clean = end["clean"] == true && end["error"].is_null();
            assert!(clean && end["code"] == 1000, "{end}");
            assert!(end["got"]["gateway_pings"].as_f64() >= Some(PINGED), "{end}");
        }
        let compressed = |end: &&Value| end["compressed"] == true;
        assert_eq!(ours.iter().filter(compressed).count(), SESSIONS / 2);
        proxy.assert_carried(datapath, &before, SESSIONS as f64);
        all_agree(&proxy, &ours, &theirs);
    });
}

fn all_agree(proxy: &Proxy, clients: &[Value], servers: &[Value]) {
    let directions =
        [("to_upstream", "client", clients, servers), ("to_client", "upstream", servers, clients)];
    for (direction, from, senders, receivers) in directions {
        let to = if from == "client" { "upstream" } else { "client" };
        for opcode in ["text", "binary"] {
            let sent = sum(senders, &format!("/sent/{opcode}"));
            assert_eq!(sum(receivers, &format!("/got/{opcode}")), sent, "{direction} {opcode}");
            assert_counted(proxy, "wsproxy_messages_total", &[direction, opcode], sent);
        }
        let (sent, got) = (sum(senders, "/sent/pings"), sum(receivers, "/got/pings"));
        let pongs = sum(senders, "/got/pongs");
        assert!(sent > 0.0 && got == sent && pongs == sent, "{from}: {sent} {got} {pongs}");
        let frames = "wsproxy_control_frames_total";
        assert_counted(proxy, frames, &[direction, "ping"], sent);
        let answers = sum(receivers, "/sent/pings");
        assert_counted(proxy, frames, &[direction, "pong"], answers);
        assert_counted(proxy, frames, &[direction, "close"], SESSIONS as f64);
        let closer = format!("from=\"{from}\"");
        assert_counted(proxy, "wsproxy_close_codes_total", &[&closer, "1000"], SESSIONS as f64);
        let pings = sum(receivers, "/got/gateway_pings");
        assert_counted(proxy, "wsproxy_pings_total", &[to], pings);
    }
    let violations = total(&proxy.metrics(), "wsproxy_framing_violations_total", &[]);
    assert_eq!(violations, 0.0, "{}", proxy.metrics());
}

/// SIGTERM while some sessions talk and others are silent: both sides of each are told why, and
/// answer.
fn drain(datapath: Datapath, client_peer: Peer, server_peer: Peer) {
    let Some(bench) = Bench::new(datapath) else { return };
    // Each library gets each code, on both sides.
    let (code, reason) = match (client_peer, server_peer) {
        (Peer::Python, Peer::Python) | (Peer::Node, Peer::Node) => (1001, "going away"),
        _ => (1012, "größer wieder da 😀"),
    };
    let more = format!("[drain]\ncode = {code}\nreason = \"{reason}\"\nwindow = \"200ms\"\n");
    let (mut proxy, server) = in_front_of(&bench, datapath, server_peer, &more);
    let mut client = client(&bench, client_peer, "until-closed", &proxy);
    client.wait_until("talks", |client| client.stdout().starts_with("READY\n"));
    kill_process(Pid::from_child(&proxy.process.child), Signal::TERM).unwrap();
    bench.finished(client, |client| {
        for end in sessions_of(client).iter().chain(&sessions_of(&server)) {
            let told = end["code"] == code && end["reason"] == reason;
            assert!(told && end["clean"] == true && end["error"].is_null(), "{end}");
        }
    });
    let status = poll(START_LIMIT, || proxy.process.status());
    assert!(status.is_some_and(|status| status.success()), "{status:?}: {}", proxy.process);
}

/// The server is killed while some sessions talk and others are silent: clients are told so.
fn killed_server(datapath: Datapath, client_peer: Peer, server_peer: Peer) {
    let Some(bench) = Bench::new(datapath) else { return };
    let (proxy, mut server) = in_front_of(&bench, datapath, server_peer, "");
    let mut client = client(&bench, client_peer, "until-closed", &proxy);
    client.wait_until("talks", |client| client.stdout().starts_with("READY\n"));
    server.child.kill().unwrap();
    bench.finished(client, |client| {
        for end in sessions_of(client) {
            // The FIN is right behind the Close: a client that is compressing a message may have
            // no time to answer it, so not each end is "clean".
            let told = end["code"] == 1014 && end["reason"] == "";
            assert!(told && end["error"].is_null(), "{end}");
        }
    });
    let told = ["wsproxy_to_client", "1014"];
    assert_counted(&proxy, "wsproxy_close_codes_total", &told, SESSIONS as f64);
}
