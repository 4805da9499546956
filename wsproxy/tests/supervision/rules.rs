//! `route.enforce_framing`, `max_message` and `max_frame`: who breaks a rule is told which.

use crate::{
    bench::{Bench, Carrier, Ends},
    support::ws::{
        BINARY_MESSAGE, CLOSE, FROM_CLIENT, FROM_SERVER, Frames as _, TEXT, close, frame,
    },
};

over! {
    all: a_client_that_breaks_a_rule_is_told_which;
    plain: a_server_that_breaks_a_rule_is_told_which, limits_of_size_hold, what_an_extension_allows_is_no_violation, without_enforcement_everything_passes;
}

const ROUTES: &str = "[[route]]\nname = \"strict\"\npath = \"/strict\"\nupstream = \"default\"\n\
    enforce_framing = true\n\
    [[route]]\nname = \"message\"\npath = \"/message\"\nupstream = \"default\"\n\
    max_message = 1000\n\
    [[route]]\nname = \"frame\"\npath = \"/frame\"\nupstream = \"default\"\nmax_frame = 1000\n\
    [[route]]\nname = \"lax\"\nupstream = \"default\"\n";

/// RSV1 of section 5.2, which permessage-deflate uses for "compressed" (RFC 7692 section 6).
const RSV1: u8 = 0x40;
const RSV2: u8 = 0x20;

fn violations(bench: &Bench, side: &str, violation: &str) -> u64 {
    let labels = format!("side=\"{side}\",violation=\"{violation}\"");
    bench.proxy.metric(&format!("wsproxy_framing_violations_total{{{labels}}}"))
}

/// The client is told `code`, its server that it is gone; the line of the session says `ending`.
fn refused(bench: &Bench, mut ends: Ends, by_client: bool, code: u16, what: &str) {
    let before = violations(bench, if by_client { "client" } else { "upstream" }, what);
    let seen = bench.proxy.all_logged("session ended").len();
    let (other, reason) = (1001, "the peer broke a rule");
    let (client, server) =
        if by_client { ((code, what), (other, reason)) } else { ((other, reason), (code, what)) };
    ends.client.expect_close(FROM_SERVER, client.0, client.1);
    ends.server.expect_close(FROM_CLIENT, server.0, server.1);
    // Who broke the rule is not understood any more: no answer of his is waited for.
    if by_client {
        assert_eq!(ends.client.rest(), b"");
        ends.server.send(&close(FROM_SERVER, other, ""));
        assert_eq!(ends.server.rest(), b"");
    } else {
        assert_eq!(ends.server.rest(), b"");
        ends.client.send(&close(FROM_CLIENT, other, ""));
        assert_eq!(ends.client.rest(), b"");
    }
    drop(ends);
    let line = &bench.lines(seen + 1)[seen];
    let ending = if code == 1009 { "too_big" } else { "bad_frame" };
    assert_eq!(line["ended_by"], ending, "{line}");
    assert_eq!(line["close_to_client"], client.0, "{line}");
    assert_eq!(line["close_to_upstream"], server.0, "{line}");
    let side = if by_client { "client" } else { "upstream" };
    assert_eq!(violations(bench, side, what), before + 1, "{side} {what}");
}

fn a_client_that_breaks_a_rule_is_told_which(carrier: Carrier) {
    let Some(bench) = Bench::start(carrier, "", ROUTES) else { return };
    let long = frame(0x89, FROM_CLIENT, &[0; 126]);
    let cases = [
        (frame(0x83, FROM_CLIENT, b"opcode 3"), "reserved_opcode"),
        (frame(TEXT, FROM_SERVER, b"no mask"), "masking"),
        (frame(TEXT | RSV1, FROM_CLIENT, b"RSV1"), "rsv"),
        (frame(0x80, FROM_CLIENT, b"of what?"), "continuation_without_start"),
        (frame(0x09, FROM_CLIENT, b"half"), "control_fragmented"),
        (long, "control_too_long"),
    ];
    let count = cases.len() as u64;
    for (bad, what) in cases {
        let mut ends = bench.session_at("/strict", "");
        ends.greet();
        // What stands before it passes, what stands behind it does not.
        let good = frame(TEXT, FROM_CLIENT, b"good");
        ends.client.send(&[&good[..], &bad, &good].concat());
        ends.server.expect_frame(TEXT, FROM_CLIENT, b"good");
        refused(&bench, ends, true, 1002, what);
    }
    bench.ends("bad_frame", count);
    bench.proxy.stop();
}

fn a_server_that_breaks_a_rule_is_told_which(carrier: Carrier) {
    let Some(bench) = Bench::start(carrier, "", ROUTES) else { return };
    let mut ends = bench.session_at("/strict", "");
    ends.greet();
    ends.server.send(&frame(TEXT, FROM_CLIENT, b"a mask"));
    refused(&bench, ends, false, 1002, "masking");
    let mut ends = bench.session_at("/strict", "");
    ends.greet();
    // Inside of a message another one.
    ends.server.send(&frame(0x01, FROM_SERVER, b"begin"));
    ends.client.expect_frame(0x01, FROM_SERVER, b"begin");
    ends.server.send(&frame(TEXT, FROM_SERVER, b"another"));
    refused(&bench, ends, false, 1002, "data_inside_message");
    bench.ends("bad_frame", 2);
}

fn limits_of_size_hold(carrier: Carrier) {
    let Some(bench) = Bench::start(carrier, "", ROUTES) else { return };
    for (path, what) in [("/message", "message_too_long"), ("/frame", "frame_too_long")] {
        let mut ends = bench.session_at(path, "");
        ends.greet();
        for length in [999, 1000] {
            let payload = vec![7; length];
            ends.client.send(&frame(BINARY_MESSAGE, FROM_CLIENT, &payload));
            ends.server.expect_frame(BINARY_MESSAGE, FROM_CLIENT, &payload);
            ends.server.send(&frame(BINARY_MESSAGE, FROM_SERVER, &payload));
            ends.client.expect_frame(BINARY_MESSAGE, FROM_SERVER, &payload);
        }
        ends.client.send(&frame(BINARY_MESSAGE, FROM_CLIENT, &[7; 1001]));
        refused(&bench, ends, true, 1009, what);
    }
    // A message of fragments is as long as they are together; frames are counted one by one.
    let (begin, end) = (frame(0x02, FROM_SERVER, &[1; 600]), frame(0x80, FROM_SERVER, &[2; 600]));
    let mut ends = bench.session_at("/frame", "");
    ends.server.send(&[&begin[..], &end].concat());
    ends.client.expect_frame(0x02, FROM_SERVER, &[1; 600]);
    ends.client.expect_frame(0x80, FROM_SERVER, &[2; 600]);
    ends.greet();
    let mut ends = bench.session_at("/message", "");
    ends.server.send(&[&begin[..], &end].concat());
    ends.client.expect_frame(0x02, FROM_SERVER, &[1; 600]);
    refused(&bench, ends, false, 1009, "message_too_long");
    bench.ends("too_big", 3);
}

fn what_an_extension_allows_is_no_violation(carrier: Carrier) {
    let Some(bench) = Bench::start(carrier, "", ROUTES) else { return };
    let deflate = "Sec-WebSocket-Extensions: permessage-deflate\r\n";
    let mut ends = bench.session_at("/strict", deflate);
    for _ in 0..3 {
        ends.client.send(&frame(TEXT | RSV1, FROM_CLIENT, b"compressed"));
        ends.server.expect_frame(TEXT | RSV1, FROM_CLIENT, b"compressed");
        ends.server.send(&frame(TEXT | RSV1, FROM_SERVER, b"compressed"));
        ends.client.expect_frame(TEXT | RSV1, FROM_SERVER, b"compressed");
    }
    // It uses no other bit.
    ends.client.send(&frame(TEXT | RSV2, FROM_CLIENT, b"what?"));
    refused(&bench, ends, true, 1002, "rsv");
    bench.ends("bad_frame", 1);
    assert_eq!(violations(&bench, "upstream", "rsv"), 0);
}

/// What breaks a rule is counted all the same.
fn without_enforcement_everything_passes(carrier: Carrier) {
    let Some(bench) = Bench::start(carrier, "", ROUTES) else { return };
    let mut ends = bench.session();
    ends.greet();
    ends.client.send(&frame(TEXT | RSV1, FROM_CLIENT, b"RSV1"));
    ends.server.expect_frame(TEXT | RSV1, FROM_CLIENT, b"RSV1");
    ends.server.send(&frame(TEXT, FROM_CLIENT, b"a mask"));
    ends.client.expect_frame(TEXT, FROM_CLIENT, b"a mask");
    ends.greet();
    ends.client.send(&close(FROM_CLIENT, 1000, ""));
    ends.server.expect_frame(CLOSE, FROM_CLIENT, &1000_u16.to_be_bytes());
    drop(ends);
    assert_eq!(bench.lines(1)[0]["close_of_client"], 1000);
    assert_eq!(violations(&bench, "client", "rsv"), 1);
    assert_eq!(violations(&bench, "upstream", "masking"), 1);
}
