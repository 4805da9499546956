//! Counters of `/metrics` and of `wsproxy sessions`: they are what the test has sent.

use std::time::Instant;

use crate::{
    bench::{Bench, Carrier, Ends},
    support::{
        PATIENCE,
        ws::{
            BINARY_MESSAGE, CLOSE, FROM_CLIENT, FROM_SERVER, Frames as _, PING, PONG, TEXT, close,
            frame,
        },
    },
};

over! {
    all: counters_are_what_was_sent;
    plain:;
}

/// What one side says, as (first byte, bytes of payload), and what it comes to.
struct Script {
    frames: &'static [(u8, usize)],
    texts: u64,
    binaries: u64,
    text_bytes: u64,
    binary_bytes: u64,
    /// Payload of control frames, the Close included.
    other_bytes: u64,
    pings: u64,
    pongs: u64,
    /// Messages of at most 4, 16, 64 and 256 bytes.
    small: [u64; 4],
}

/// Both end with a Close of 2 bytes.
const OF_CLIENT: Script = Script {
    frames: &[
        (TEXT, 0),
        (TEXT, 4),
        (TEXT, 16),
        (0x01, 100),
        (PING, 3),
        (0x00, 0),
        (0x80, 26),
        (BINARY_MESSAGE, 70_000),
        (PONG, 125),
    ],
    texts: 4,
    binaries: 1,
    text_bytes: 4 + 16 + 126,
    binary_bytes: 70_000,
    other_bytes: 3 + 125 + 2,
    pings: 1,
    pongs: 1,
    small: [2, 3, 3, 4],
};
const OF_SERVER: Script = Script {
    frames: &[
        (BINARY_MESSAGE, 1),
        (PONG, 0),
        (BINARY_MESSAGE, 126),
        (0x02, 65_536),
        (0x80, 1),
        (PING, 5),
        (PING, 0),
        (TEXT, 300),
    ],
    texts: 1,
    binaries: 3,
    text_bytes: 300,
    binary_bytes: 1 + 126 + 65_537,
    other_bytes: 5 + 2,
    pings: 2,
    pongs: 1,
    small: [1, 1, 1, 2],
};

impl Script {
    /// What is to be found of the direction, `rounds` times said.
    fn expected(&self, direction: &str, rounds: u64, closes: u64) -> Vec<(String, u64)> {
        let of = |family: &str, opcode: &str, count: u64| {
            let labels = format!("direction=\"{direction}\",opcode=\"{opcode}\"");
            (format!("wsproxy_{family}{{{labels}}}"), count)
        };
        let other = rounds * (self.other_bytes - 2) + closes * 2;
        let mut all = vec![
            of("messages_total", "text", rounds * self.texts),
            of("messages_total", "binary", rounds * self.binaries),
            of("payload_bytes_total", "text", rounds * self.text_bytes),
            of("payload_bytes_total", "binary", rounds * self.binary_bytes),
            of("payload_bytes_total", "other", other),
            of("control_frames_total", "ping", rounds * self.pings),
            of("control_frames_total", "pong", rounds * self.pongs),
            of("control_frames_total", "close", closes),
        ];
        let sizes =
            |name: &str| format!("wsproxy_message_bytes_{name}{{direction=\"{direction}\"}}");
        all.push((sizes("count"), rounds * (self.texts + self.binaries)));
        all.push((sizes("sum"), rounds * (self.text_bytes + self.binary_bytes)));
        for (limit, count) in ["4", "16", "64", "256"].into_iter().zip(self.small) {
            let labels = format!("direction=\"{direction}\",le=\"{limit}\"");
            all.push((format!("wsproxy_message_bytes_bucket{{{labels}}}"), rounds * count));
        }
        all
    }
}

/// All of a script, frame by frame, so that every one of them is one that came last.
fn say(ends: &mut Ends) {
    for (at, (first, length)) in OF_CLIENT.frames.iter().enumerate() {
        let payload = vec![at as u8; *length];
        ends.client.send(&frame(*first, FROM_CLIENT, &payload));
        ends.server.expect_frame(*first, FROM_CLIENT, &payload);
    }
    for (at, (first, length)) in OF_SERVER.frames.iter().enumerate() {
        let payload = vec![at as u8; *length];
        ends.server.send(&frame(*first, FROM_SERVER, &payload));
        ends.client.expect_frame(*first, FROM_SERVER, &payload);
    }
}

/// As [`say`], all in one piece.
fn blurt(ends: &mut Ends) {
    let bytes = |script: &Script, masked: bool| {
        let frames = script.frames.iter();
        frames.flat_map(|(first, length)| frame(*first, masked, &vec![9; *length])).collect()
    };
    let (there, back): (Vec<u8>, Vec<u8>) =
        (bytes(&OF_CLIENT, FROM_CLIENT), bytes(&OF_SERVER, FROM_SERVER));
    ends.client.send(&there);
    ends.server.expect(&there);
    ends.server.send(&back);
    ends.client.expect(&back);
}

/// Waits until every series is as expected: a reader may have a byte a moment before it is
/// counted. One that has become too large never is.
fn check(bench: &Bench, rounds: u64, closes: u64) {
    let directions = [(&OF_CLIENT, "to_upstream"), (&OF_SERVER, "to_client")];
    let expected = directions.map(|(script, name)| script.expected(name, rounds, closes)).concat();
    let end = Instant::now() + PATIENCE;
    loop {
        let text = bench.proxy.metrics();
        let found = |series: &str| -> u64 {
            let value = text.lines().find_map(|line| line.strip_prefix(series)?.strip_prefix(' '));
            value.map_or(0, |value| value.parse().unwrap())
        };
        let Some((series, count)) = expected.iter().find(|(s, count)| found(s) != *count) else {
            return;
        };
        assert!(Instant::now() < end, "{series} is {}, not {count}", found(series));
    }
}

fn counters_are_what_was_sent(carrier: Carrier) {
    let Some(bench) = Bench::start(carrier, "", "") else { return };
    let mut ends = bench.session();
    say(&mut ends);
    say(&mut ends);
    blurt(&mut ends);
    // Of a running session.
    check(&bench, 3, 0);
    let session = bench.sessions().pop().unwrap();
    assert_eq!(session["frames"], "on", "{session}");
    for (field, script) in
        [("messages_to_upstream", &OF_CLIENT), ("messages_to_client", &OF_SERVER)]
    {
        assert_eq!(session[field], 3 * (script.texts + script.binaries), "{session}");
    }
    // Another one adds to it, also after the end of the first.
    finish(ends);
    bench.ends("client_finished", 1);
    check(&bench, 3, 1);
    let mut ends = bench.session();
    say(&mut ends);
    finish(ends);
    bench.ends("client_finished", 2);
    check(&bench, 4, 2);
    for (from, code, count) in [("client", "1000", 2), ("upstream", "4xxx", 2)] {
        let labels = format!("code=\"{code}\",from=\"{from}\"");
        let series = format!("wsproxy_close_codes_total{{{labels}}}");
        assert_eq!(bench.proxy.metric(&series), count, "{series}");
    }
    assert!(!bench.proxy.metrics().contains("from=\"wsproxy_to"), "it had nothing to say");
    assert!(!bench.proxy.metrics().contains("wsproxy_framing_violations_total{"));
    let line = &bench.lines(2)[0];
    for (field, value) in [
        ("messages_to_upstream", 3 * (OF_CLIENT.texts + OF_CLIENT.binaries)),
        ("messages_to_client", 3 * (OF_SERVER.texts + OF_SERVER.binaries)),
        ("close_of_client", 1000),
        ("close_of_upstream", 4321),
    ] {
        assert_eq!(line[field], value, "{field} of {line}");
    }
    if carrier == Carrier::Kernel {
        for direction in ["to_upstream", "to_client"] {
            let bytes = line[format!("{direction}_kernel_bytes")].as_u64().unwrap();
            assert!(bytes > 0, "the kernel has carried nothing: {line}");
        }
    }
    bench.proxy.stop();
}

/// The client closes, its server answers with another code; both end.
fn finish(mut ends: Ends) {
    ends.client.send(&close(FROM_CLIENT, 1000, ""));
    ends.server.expect_frame(CLOSE, FROM_CLIENT, &1000_u16.to_be_bytes());
    ends.server.send(&close(FROM_SERVER, 4321, ""));
    ends.client.expect_frame(CLOSE, FROM_SERVER, &4321_u16.to_be_bytes());
    ends.client.finish();
    assert_eq!(ends.server.rest(), b"");
    ends.server.finish();
    assert_eq!(ends.client.rest(), b"");
}
