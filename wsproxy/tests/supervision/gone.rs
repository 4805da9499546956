//! A server that leaves without a Close, between two frames: what its client is told.

use std::io::{ErrorKind, Read as _};

use crate::{
    bench::{Bench, Carrier, Ends},
    support::ws::{CLOSE, FROM_CLIENT, FROM_SERVER, Frames as _, close},
};

over! {
    all: a_client_is_told_that_its_server_left, a_client_that_leaves_is_not_spoken_for;
    plain:;
}

fn a_client_is_told_that_its_server_left(carrier: Carrier) {
    for (key, told) in
        [("", Some(1014)), ("gone_code = \"1001\"", Some(1001)), ("gone_code = \"off\"", None)]
    {
        let Some(bench) = Bench::start(carrier, key, "") else { return };
        let mut ends = bench.session();
        ends.greet();
        leaves_with_a_fin(ends, told);
        bench.ends("upstream_finished", 1);
        let mut ends = bench.session();
        ends.greet();
        leaves_with_a_reset(ends, told);
        bench.ends("upstream_broke", 1);
        let lines = bench.lines(2);
        let codes: Vec<_> = lines.iter().map(|line| line["close_to_client"].as_u64()).collect();
        assert_eq!(codes, [told.map(u64::from); 2], "{key}");
        let labels = |code| format!("code=\"{code}\",from=\"wsproxy_to_client\"");
        for code in [1001, 1014] {
            let series = format!("wsproxy_close_codes_total{{{}}}", labels(code));
            let count = if told == Some(code) { 2 } else { 0 };
            assert_eq!(bench.proxy.metric(&series), count, "{key}");
        }
    }
}

/// The server still reads: it gets the client's answer as what it is.
fn leaves_with_a_fin(mut ends: Ends, told: Option<u16>) {
    ends.server.finish();
    if let Some(code) = told {
        ends.client.expect_close(FROM_SERVER, code, "");
        ends.client.send(&close(FROM_CLIENT, code, "so long"));
        let payload = [&code.to_be_bytes()[..], b"so long"].concat();
        ends.server.expect_frame(CLOSE, FROM_CLIENT, &payload);
        assert_eq!(ends.client.rest(), b"");
    } else {
        assert_eq!(ends.client.rest(), b"");
    }
    ends.client.finish();
    assert_eq!(ends.server.rest(), b"");
}

fn leaves_with_a_reset(mut ends: Ends, told: Option<u16>) {
    ends.server.reset();
    if let Some(code) = told {
        ends.client.expect_close(FROM_SERVER, code, "");
        ends.client.send(&close(FROM_CLIENT, code, ""));
        assert_eq!(ends.client.rest(), b"");
        ends.client.finish();
    } else {
        assert_eq!(ends.client.failure(), ErrorKind::ConnectionReset);
    }
}

/// Its server sees a FIN or a reset, as without a gateway; and the client, whose turn it was to
/// say a Close, is told nothing when the server leaves after it.
fn a_client_that_leaves_is_not_spoken_for(carrier: Carrier) {
    let Some(bench) = Bench::start(carrier, "", "") else { return };
    let mut ends = bench.session();
    ends.greet();
    ends.client.finish();
    assert_eq!(ends.server.rest(), b"");
    ends.server.finish();
    assert_eq!(ends.client.rest(), b"");
    bench.ends("client_finished", 1);
    // One that does not even read any more would answer with a reset.
    for nth in 2..12 {
        let Ends { client, mut server } = bench.session();
        drop(client);
        let _end = server.link.read(&mut [0]);
        drop(server);
        bench.ends("client_finished", nth);
    }
    let mut ends = bench.session();
    ends.greet();
    ends.client.reset();
    assert_eq!(ends.server.failure(), ErrorKind::ConnectionReset);
    bench.ends("client_broke", 1);
    assert!(bench.lines(12).iter().all(|line| line["close_to_client"].is_null()));
}
