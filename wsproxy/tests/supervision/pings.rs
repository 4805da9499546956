//! `[ping]`: who is asked whether he is still there, and what becomes of who does not answer.

use std::io::ErrorKind;

use crate::{
    bench::{Bench, Carrier, Ends},
    support::{
        wait_for,
        ws::{CLOSE, FROM_CLIENT, FROM_SERVER, Frame, Frames as _, PING, PONG, TEXT, close, frame},
    },
    tls_support::End,
};

over! {
    all: a_silent_client_answers_and_stays, a_client_that_does_not_answer_is_dead;
    plain: servers_are_pinged_too, without_frames_nothing_is_said,
        pings_keep_no_idle_session_alive;
}

/// Patient with who does not answer at once.
const ASKED: &str = "[ping]\ninterval = \"1s\"\ntimeout = \"1m\"\n";

/// One end of a session as the program pings it.
struct Pinged<'a> {
    end: &'a mut End,
    /// What side it is.
    is_client: bool,
    answered: u64,
}

impl<'a> Pinged<'a> {
    fn client(end: &'a mut End) -> Self {
        Self { end, is_client: true, answered: 0 }
    }

    fn server(end: &'a mut End) -> Self {
        Self { end, is_client: false, answered: 0 }
    }

    /// The next frame; a Ping of the program's is answered.
    fn frame(&mut self) -> Frame {
        let next = self.end.frame();
        // Servers get masked frames, clients do not, whoever made them.
        assert_eq!(next.masked, !self.is_client, "{next:?}");
        if next.first == PING {
            assert_eq!(next.payload.len(), 8);
            self.end.send(&frame(PONG, self.is_client, &next.payload));
            self.answered += 1;
        }
        next
    }

    /// The next one that is none.
    fn said(&mut self) -> Frame {
        loop {
            let next = self.frame();
            if next.first != PING {
                return next;
            }
        }
    }
}

fn count(bench: &Bench, what: &str, side: &str) -> u64 {
    bench.proxy.metric(&format!("wsproxy_{what}{{side=\"{side}\"}}"))
}

fn a_silent_client_answers_and_stays(carrier: Carrier) {
    let Some(bench) = Bench::start(carrier, "", ASKED) else { return };
    let Ends { mut client, mut server } = bench.session();
    let mut pinged = Pinged::client(&mut client);
    let mut payloads = std::collections::HashSet::new();
    for _ in 0..2 {
        let ping = pinged.frame();
        assert_eq!(ping.first, PING);
        payloads.insert(ping.payload);
    }
    assert_eq!(payloads.len(), 2, "a Ping that can be foreseen");
    let session = wait_for("its round trip is known", || {
        bench.sessions().pop().filter(|session| session["ping_rtt_us_client"].is_u64())
    });
    assert!(session["ping_rtt_us_client"].as_u64().unwrap() > 0, "{session}");
    assert!(session["ping_rtt_us_upstream"].is_null(), "{session}");
    // It goes on; the server has got no answer that it did not ask for.
    pinged.end.send(&frame(TEXT, FROM_CLIENT, b"still here"));
    server.expect_frame(TEXT, FROM_CLIENT, b"still here");
    server.send(&close(FROM_SERVER, 1000, ""));
    assert_eq!(pinged.said().first, CLOSE);
    let answered = pinged.answered;
    client.send(&close(FROM_CLIENT, 1000, ""));
    server.expect_frame(CLOSE, FROM_CLIENT, &1000_u16.to_be_bytes());
    server.finish();
    assert_eq!(client.rest(), b"");
    client.finish();
    bench.ends("upstream_finished", 1);
    assert_eq!(count(&bench, "pings_total", "client"), answered);
    assert_eq!(count(&bench, "ping_seconds_count", "client"), answered);
    assert_eq!(count(&bench, "pings_total", "upstream"), 0);
    let pongs = "wsproxy_control_frames_total{direction=\"to_upstream\",opcode=\"pong\"}";
    assert_eq!(bench.proxy.metric(pongs), 0);
    bench.proxy.stop();
}

fn a_client_that_does_not_answer_is_dead(carrier: Carrier) {
    let more = "[ping]\ninterval = \"1s\"\ntimeout = \"1s\"\n";
    let Some(bench) = Bench::start(carrier, "", more) else { return };
    let Ends { mut client, mut server } = bench.session();
    server.expect_close(FROM_CLIENT, 1001, "the client does not answer");
    server.send(&close(FROM_SERVER, 1001, ""));
    assert_eq!(server.rest(), b"");
    server.finish();
    assert_eq!(client.frame().first, PING);
    assert_eq!(client.failure(), ErrorKind::ConnectionReset);
    bench.ends("dead_peer", 1);
    let line = &bench.lines(1)[0];
    assert_eq!(line["ended_by"], "dead_peer", "{line}");
    assert_eq!(line["close_to_upstream"], 1001, "{line}");
    assert!(line["close_to_client"].is_null(), "{line}");
    assert_eq!(count(&bench, "pings_total", "client"), 1);
    assert_eq!(count(&bench, "ping_seconds_count", "client"), 0);
    bench.proxy.stop();
}

fn servers_are_pinged_too(carrier: Carrier) {
    let more = format!("{ASKED}upstream = true\n");
    let Some(bench) = Bench::start(carrier, "", &more) else { return };
    let Ends { mut client, mut server } = bench.session();
    let mut pinged = Pinged::server(&mut server);
    for _ in 0..2 {
        assert_eq!(pinged.frame().first, PING);
    }
    let session = wait_for("its round trip is known", || {
        bench.sessions().pop().filter(|session| session["ping_rtt_us_upstream"].is_u64())
    });
    // The client has had its Ping too, and takes its time.
    assert!(session["ping_rtt_us_client"].is_null(), "{session}");
    pinged.end.send(&frame(TEXT, FROM_SERVER, b"still here"));
    let mut pinged = Pinged::client(&mut client);
    assert_eq!(pinged.said().payload, b"still here");
    assert!(pinged.answered > 0);
    wait_for("an answer of each", || {
        let counts = ["client", "upstream"].map(|side| count(&bench, "ping_seconds_count", side));
        counts.iter().all(|count| *count > 0).then_some(())
    });
}

/// They are no use that is made of it.
fn pings_keep_no_idle_session_alive(carrier: Carrier) {
    let more = format!("{ASKED}[timeouts]\nidle = \"2s\"\n");
    let Some(bench) = Bench::start(carrier, "", &more) else { return };
    let Ends { mut client, mut server } = bench.session();
    let mut pinged = Pinged::client(&mut client);
    let told = pinged.said();
    assert_eq!((told.first, &told.payload[..2]), (CLOSE, &1001_u16.to_be_bytes()[..]));
    assert!(pinged.answered > 0);
    server.expect_close(FROM_CLIENT, 1001, "going away");
    bench.ends("idle_timeout", 0);
    drop((client, server));
    bench.ends("idle_timeout", 1);
}

/// `route.frames = false`: the bytes of its sessions are nobody's business.
fn without_frames_nothing_is_said(carrier: Carrier) {
    let more = format!(
        "{ASKED}[drain]\nwindow = \"off\"\n[[route]]\nname = \"raw\"\npath = \"/raw\"\n\
         upstream = \"default\"\nframes = false\n\
         [[route]]\nname = \"seen\"\nupstream = \"default\"\n"
    );
    let Some(bench) = Bench::start(carrier, "", &more) else { return };
    let mut raw = bench.session_at("/raw", "");
    let mut seen = bench.session_at("/seen", "");
    raw.greet();
    // By the time the other client has been pinged twice, this one would have been once.
    let mut pinged = Pinged::client(&mut seen.client);
    for _ in 0..2 {
        assert_eq!(pinged.frame().first, PING);
    }
    let sessions = bench.sessions();
    let of = |route: &str| sessions.iter().find(|session| session["route"] == route).unwrap();
    assert_eq!((&of("raw")["frames"], &of("seen")["frames"]), (&"off".into(), &"on".into()));
    for direction in ["messages_to_upstream", "messages_to_client"] {
        assert!(of("raw")[direction].is_null() && of("seen")[direction].is_u64(), "{sessions:?}");
    }
    assert!(of("raw")["ping_rtt_us_client"].is_null());
    bench.proxy.terminate();
    // FINs, and not a byte before them.
    assert_eq!((raw.client.rest(), raw.server.rest()), (Vec::new(), Vec::new()));
    drop(raw);
    assert_eq!(pinged.said().first, CLOSE);
    seen.client.send(&close(FROM_CLIENT, 1001, ""));
    seen.server.expect_close(FROM_CLIENT, 1001, "going away");
    seen.server.send(&close(FROM_SERVER, 1001, ""));
    drop(seen);
    let mut bench = bench;
    assert_eq!(bench.proxy.wait().code(), Some(0));
    let lines = bench.lines(2);
    let raw = lines.iter().find(|line| line["route"] == "raw").unwrap();
    assert_eq!((&raw["ended_by"], &raw["reset"]), (&"drained".into(), &false.into()), "{raw}");
    for field in ["messages_to_upstream", "messages_to_client", "close_to_client"] {
        assert!(raw[field].is_null(), "{raw}");
    }
}
