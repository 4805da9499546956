//! Sessions that were taken over are whole sessions: counted, logged, judged, pinged.

use std::{fs, thread, time::Instant};

use serde_json::Value;

use super::{
    AWAY, SESSIONS, Told, adopted, any, drained, home, patient, quiet, sessions, start,
    support::{
        Peer, Proxy, Server, complaint, header, opened,
        persist::{Home, Talk, kill},
        request, run, status, wait_for,
        ws::{CLOSE, FROM_CLIENT, FROM_SERVER, Frames as _, PING, PONG, TEXT, close, frame},
    },
    talks,
};

fn from(client: &str) -> String {
    format!("X-Forwarded-For: {client}\r\nUser-Agent: of {client}\r\n")
}

/// How a handshake of this client is answered by a program that asks no server.
fn refused(proxy: &Proxy, client: &str) -> u16 {
    let mut peer = proxy.connect();
    peer.send(request(&from(client)).as_bytes());
    status(&peer.head())
}

fn sessions_of_listener(home: &Home) -> u64 {
    let socket = home.dir.join("admin.sock");
    let output = run(["status", "--json", "--socket", socket.to_str().unwrap()]);
    assert!(output.status.success(), "{}", complaint(&output));
    let answer: Value = serde_json::from_slice(&output.stdout).unwrap();
    answer["listeners"][0]["sessions"].as_u64().unwrap()
}

#[test]
fn sessions_that_were_taken_over_count_and_are_logged() {
    let Some(home) = home() else { return };
    let server = Server::start();
    let log = home.dir.join("access.log");
    let more = |route: &str| {
        format!(
            "[[route]]\nname = \"{route}\"\nupstream = \"default\"\nmax_sessions = 4\n\
             [limits]\nmax_sessions_per_client = 2\n\
             [clients]\ntrusted_proxies = [\"127.0.0.0/8\"]\n\
             [access_log]\nformat = \"json\"\npath = \"{}\"\n",
            log.display()
        )
    };
    let first = start(&home, &server, any(), &more("chat"));
    let (mut talks, mut requests) = (Vec::new(), Vec::new());
    for (number, client) in ["192.0.2.1", "192.0.2.1", "192.0.2.2"].into_iter().enumerate() {
        let (client, upstream, head) = opened(&first, &server, &from(client));
        requests.push(header(&head, "x-request-id")[0].to_owned());
        talks.push(Talk::start(client, upstream, number));
    }
    home.keeps(3);
    let (address, began) = (first.address, Instant::now());
    kill(first);
    talks.iter().for_each(Talk::goes_on);

    let second = start(&home, &server, address, &more("chat"));
    let age = began.elapsed();
    assert!(sessions(&home).iter().all(|s| s["age_s"].as_u64().unwrap() >= age.as_secs()));
    let of_route = |name: &str| format!("wsproxy_route_sessions{{route=\"{name}\"}}");
    let of_server =
        format!("wsproxy_upstream_sessions{{server=\"{}\",upstream=\"default\"}}", server.address);
    assert_eq!((second.metric(&of_route("chat")), second.metric(&of_server)), (3, 3));
    assert_eq!(sessions_of_listener(&home), 3);
    assert_eq!(refused(&second, "192.0.2.1"), 429);
    let one_more = opened(&second, &server, &from("192.0.2.2"));
    assert_eq!(refused(&second, "192.0.2.3"), 503);
    drop(one_more);
    second.wait_metric(&of_route("chat"), |sessions| sessions == 3);

    let ((mut client, mut upstream), said) = talks.remove(0).stop_and_count();
    let (goodbye, answer) = (close(FROM_CLIENT, 1000, ""), close(FROM_SERVER, 1000, ""));
    client.send(&goodbye);
    upstream.expect(&goodbye);
    upstream.send(&answer);
    client.expect(&answer);
    client.finish();
    assert_eq!(upstream.rest(), b"");
    upstream.finish();
    assert_eq!(client.rest(), b"");
    second.wait_metric(&of_route("chat"), |sessions| sessions == 2);
    assert_eq!((second.metric(&of_server), sessions_of_listener(&home)), (2, 2));
    let line = wait_for("its line", || {
        let text = fs::read_to_string(&log).unwrap();
        let mut lines = text.lines().map(|line| serde_json::from_str::<Value>(line).unwrap());
        lines.find(|line| line["kind"] == "session" && line["request_id"] == *requests[0])
    });
    let texts = ["client", "route", "target", "user_agent", "datapath", "ended_by"];
    let texts = texts.map(|key| line[key].as_str().unwrap());
    let expected = ["192.0.2.1", "chat", "/chat?a=b", "of 192.0.2.1", "packet", "client_finished"];
    assert_eq!(texts, expected);
    assert_eq!(line["upstream"], server.address.to_string());
    let bytes = ["bytes_to_upstream", "bytes_to_client"].map(|key| line[key].as_u64().unwrap());
    let closes = [goodbye.len() as u64, answer.len() as u64];
    assert_eq!(bytes, [said.bytes[0] + closes[0], said.bytes[1] + closes[1]]);
    assert!(line["duration_ms"].as_f64().unwrap() >= age.as_secs_f64() * 1e3, "{line}");
    let end = second.all_logged("session ended");
    let end = end.iter().find(|end| end["request"] == *requests[0]).unwrap();
    assert_eq!(
        (&end["messages_to_client"], &end["close_of_client"]),
        (&said.messages.into(), &1000.into())
    );
    // Its place is free.
    let again = opened(&second, &server, &from("192.0.2.1"));
    drop(again);
    second.wait_metric(&of_route("chat"), |sessions| sessions == 2);
    kill(second);

    // Without their route.
    let third = start(&home, &server, address, &more("other"));
    assert_eq!((third.metric(&of_route("other")), third.metric(&of_server)), (0, 2));
    let said = third.all_logged(
        "a session of an earlier process belongs to what this configuration does not have: it is \
         counted there no more; further ones are not named",
    );
    assert_eq!(said.len(), 1, "{said:?}");
    assert_eq!((&said[0]["missing"], &said[0]["name"]), (&"route".into(), &"chat".into()));
    drained(&home, third, talks, Told::Close);
}

/// The client breaks a rule, and both are told.
fn forbidden(mut client: Peer, mut upstream: Peer) {
    patient(&client);
    let told = client.frame();
    assert_eq!((told.first, &told.payload[..2]), (CLOSE, &1002_u16.to_be_bytes()[..]), "{told:?}");
    let told = upstream.frame();
    assert_eq!((told.first, &told.payload[..2]), (CLOSE, &1001_u16.to_be_bytes()[..]), "{told:?}");
    client.send(&close(FROM_CLIENT, 1002, ""));
    upstream.send(&close(FROM_SERVER, 1001, ""));
    assert_eq!((client.rest(), upstream.rest()), (Vec::new(), Vec::new()));
    client.finish();
    upstream.finish();
}

#[test]
fn frames_of_sessions_that_were_taken_over_are_judged() {
    let Some(home) = home() else { return };
    let server = Server::start();
    let rules = "[[route]]\nupstream = \"default\"\nenforce_framing = true\n";
    let first = start(&home, &server, any(), rules);
    let mut talks = talks(&home, &first, &server);
    let address = first.address;
    kill(first);
    // Reserved bit, no extension: nobody is there to say so.
    let bad = frame(TEXT | 0x40, FROM_CLIENT, b"bad");
    let (mut client, upstream) = talks.remove(0).stop();
    quiet(&client, &upstream);
    client.send(&bad);
    talks.iter().for_each(Talk::goes_on);
    thread::sleep(AWAY);

    let second = start(&home, &server, address, rules);
    assert_eq!(adopted(&second, "adopted"), SESSIONS as u64);
    forbidden(client, upstream);
    talks.iter().for_each(Talk::goes_on);
    let (mut client, upstream) = talks.remove(0).stop();
    quiet(&client, &upstream);
    client.send(&bad);
    forbidden(client, upstream);
    let ended = "wsproxy_session_ends_total{ending=\"bad_frame\"}";
    second.wait_metric(ended, |ends| ends == 2);
    drained(&home, second, talks, Told::Close);
}

#[test]
fn a_session_that_was_taken_over_is_pinged_and_goes_the_packet_path_again() {
    let Some(home) = home() else { return };
    let server = Server::start();
    let pings = "[ping]\ninterval = \"2s\"\ntimeout = \"60s\"\n";
    let first = start(&home, &server, any(), pings);
    let (client, upstream, _) = opened(&first, &server, "");
    let talk = Talk::start(client, upstream, 0);
    home.keeps(1);
    let address = first.address;
    kill(first);
    let (mut client, upstream) = talk.stop();

    let second = start(&home, &server, address, pings);
    let ping = client.frame();
    assert_eq!(ping.first, PING);
    client.send(&frame(PONG, FROM_CLIENT, &ping.payload));
    second.wait_metric("wsproxy_ping_seconds_count{side=\"client\"}", |pings| pings == 1);
    let talk = Talk::start(client, upstream, 1);
    home.keeps(1);
    let session = &sessions(&home)[0];
    assert_eq!((&session["datapath"], &session["frames"]), (&"packet".into(), &"on".into()));
    kill(second);
    talk.goes_on();
    let third = start(&home, &server, address, pings);
    assert_eq!(adopted(&third, "adopted"), 1);
    talk.goes_on();
    talk.stop();
}
