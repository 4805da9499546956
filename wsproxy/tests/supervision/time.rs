//! Time limits of sessions: each ends in Close frames.

use crate::{
    bench::{Bench, Carrier},
    support::ws::{FROM_CLIENT, FROM_SERVER, Frames as _, TEXT, close, frame, parted},
};

over! {
    all:;
    plain: a_silent_session_is_closed, an_old_session_is_closed, a_half_closed_session_is_closed, what_a_leaving_server_leaves_half_closed_is_closed;
}

impl Bench {
    /// The only session has ended so, in order; which codes its sides were told.
    fn ended(&self, ending: &str, to_client: u16, to_upstream: Option<u16>) {
        self.ends(ending, 1);
        let line = &self.lines(1)[0];
        assert_eq!((&line["ended_by"], &line["reset"]), (&ending.into(), &false.into()), "{line}");
        assert_eq!(line["close_to_client"], to_client, "{line}");
        assert_eq!(line["close_to_upstream"].as_u64(), to_upstream.map(u64::from), "{line}");
        let told = |code: u16, whom: &str| {
            let labels = format!("code=\"{code}\",from=\"wsproxy_to_{whom}\"");
            self.proxy.metric(&format!("wsproxy_close_codes_total{{{labels}}}"))
        };
        assert_eq!(told(to_client, "client"), 1);
        if let Some(code) = to_upstream {
            assert_eq!(told(code, "upstream"), 1);
        }
    }
}

fn a_silent_session_is_closed(carrier: Carrier) {
    let more = "[timeouts]\nidle = \"1s\"\n[drain]\ncode = 1012\nreason = \"\"\n";
    let Some(bench) = Bench::start(carrier, "", more) else { return };
    let mut ends = bench.session();
    ends.greet();
    parted(&mut ends.client, &mut ends.server, 1012, "");
    drop(ends);
    bench.ended("idle_timeout", 1012, Some(1012));
    bench.proxy.stop();
}

/// However much it says; it is told between two frames.
fn an_old_session_is_closed(carrier: Carrier) {
    let more = "[route]\nupstream = \"default\"\nlifetime = \"1s\"\n";
    let Some(bench) = Bench::start(carrier, "", more) else { return };
    let mut ends = bench.session();
    ends.greet();
    loop {
        ends.client.send(&frame(TEXT, FROM_CLIENT, b"and another thing"));
        let next = ends.server.frame();
        if next.first != TEXT {
            assert_eq!(next.payload, [&1001_u16.to_be_bytes()[..], b"going away"].concat());
            assert!(next.masked);
            break;
        }
        assert_eq!(next.payload, b"and another thing");
    }
    ends.client.expect_close(FROM_SERVER, 1001, "going away");
    ends.client.send(&close(FROM_CLIENT, 1001, ""));
    ends.server.send(&close(FROM_SERVER, 1001, ""));
    assert_eq!((ends.client.rest(), ends.server.rest()), (Vec::new(), Vec::new()));
    drop(ends);
    bench.ended("lifetime", 1001, Some(1001));
    bench.proxy.stop();
}

/// The server has got the client's FIN and says nothing more.
fn a_half_closed_session_is_closed(carrier: Carrier) {
    let more = "[timeouts]\nhalf_closed = \"1s\"\n";
    let Some(bench) = Bench::start(carrier, "", more) else { return };
    let mut ends = bench.session();
    ends.greet();
    ends.client.finish();
    assert_eq!(ends.server.rest(), b"");
    ends.client.expect_close(FROM_SERVER, 1001, "going away");
    // The client has nothing more to say: its end is at once.
    assert_eq!(ends.client.rest(), b"");
    drop(ends);
    bench.ended("half_closed", 1001, None);
    bench.proxy.stop();
}

/// A client that does not even answer the Close that stands for its server's.
fn what_a_leaving_server_leaves_half_closed_is_closed(carrier: Carrier) {
    let more = "[timeouts]\nhalf_closed = \"1s\"\n";
    let Some(bench) = Bench::start(carrier, "gone_code = \"off\"", more) else { return };
    let mut ends = bench.session();
    ends.greet();
    ends.server.finish();
    assert_eq!(ends.client.rest(), b"");
    ends.server.expect_close(FROM_CLIENT, 1001, "going away");
    assert_eq!(ends.server.rest(), b"");
    drop(ends);
    bench.ends("half_closed", 1);
    let line = &bench.lines(1)[0];
    assert_eq!(line["close_to_upstream"], 1001, "{line}");
    assert!(line["close_to_client"].is_null(), "{line}");
    bench.proxy.stop();
}
