//! `wsproxy close`: one session or those of a server, with words of the operator's.

use crate::{
    bench::{Bench, Carrier},
    support::{run, wait_for, ws::parted},
};

over! {
    all:;
    plain: a_session_is_closed_with_the_operators_words, the_sessions_of_a_server_are_closed;
}

fn a_session_is_closed_with_the_operators_words(carrier: Carrier) {
    let Some(bench) = Bench::start(carrier, "", "[drain]\ncode = 1012\nreason = \"as usual\"\n")
    else {
        return;
    };
    let mut other = bench.session();
    // 123 bytes are as long as a reason may be.
    let long = "é".repeat(61) + "!";
    for (flags, code, reason) in [
        (&["--code", "4001", "--reason", "bye"][..], 4001, "bye"),
        (&["--code", "1000"], 1000, ""),
        (&["--reason", "50% & +1 – là?"], 1012, "50% & +1 – là?"),
        (&["--reason", &long], 1012, &long),
        (&[], 1012, "as usual"),
    ] {
        let mut ends = bench.session();
        ends.greet();
        let id = bench.sessions().last().unwrap()["id"].to_string();
        bench.order(&[&["close", &id], flags].concat());
        parted(&mut ends.client, &mut ends.server, code, reason);
    }
    bench.ends("closed", 5);
    let told = bench.lines(5);
    let told: Vec<_> = told.iter().map(|line| line["close_to_client"].as_u64()).collect();
    assert_eq!(told, [4001, 1000, 1012, 1012, 1012].map(Some));
    for whom in ["client", "upstream"] {
        let labels = format!("code=\"4xxx\",from=\"wsproxy_to_{whom}\"");
        assert_eq!(bench.proxy.metric(&format!("wsproxy_close_codes_total{{{labels}}}")), 1);
    }
    other.greet();
}

#[test]
fn words_that_no_close_can_carry_are_refused() {
    let Some(bench) = Bench::start(Carrier::Relay, "", "") else { return };
    let mut ends = bench.session();
    ends.greet();
    let id = bench.sessions()[0]["id"].to_string();
    let codes = "a Close frame has a code from 1000 to 1003, 1007 to 1014 or 3000 to 4999\n";
    let reasons = "a reason has at most 123 bytes\n";
    let one = "code and reason are for one session; [drain] has those for all\n";
    let long = "x".repeat(124);
    let server = bench.server.address.to_string();
    for (what, flags, said) in [
        (&id, ["--code", "1005"], codes),
        (&id, ["--code", "1006"], codes),
        (&id, ["--code", "1015"], codes),
        (&id, ["--code", "999"], codes),
        (&id, ["--code", "5000"], codes),
        (&id, ["--code", "0"], codes),
        (&id, ["--reason", &long], reasons),
        (&server, ["--code", "4001"], one),
        (&server, ["--reason", "bye"], one),
        (&"999".to_owned(), ["--code", "4001"], "no session has the number 999\n"),
    ] {
        let output = bench.ask(&[&["close", what], &flags[..]].concat());
        assert_eq!(output.status.code(), Some(1), "{what} {flags:?}");
        assert_eq!(String::from_utf8(output.stdout).unwrap(), said, "{what} {flags:?}");
    }
    // No number at all is wrong usage.
    for code in ["65536", "-1", "bye"] {
        assert_eq!(run(["close", &id, "--code", code]).status.code(), Some(64), "{code}");
    }
    ends.greet();
    assert_eq!(bench.sessions().len(), 1);
    assert_eq!(bench.proxy.logged("session ended"), None);
}

fn the_sessions_of_a_server_are_closed(carrier: Carrier) {
    let more = "[drain]\nwindow = \"off\"\ncode = 1012\nreason = \"moving\"\n";
    let Some(bench) = Bench::start(carrier, "", more) else { return };
    let mut all: Vec<_> = (0..3).map(|_| bench.session()).collect();
    all.iter_mut().for_each(|ends| ends.greet());
    let server = bench.server.address.to_string();
    let elsewhere = bench.ask(&["close", "192.0.2.1:9"]);
    assert_eq!(elsewhere.status.code(), Some(1));
    bench.order(&["close", &server]);
    wait_for("they are shown as what they are until they have answered", || {
        bench.sessions().iter().all(|session| session["closing"] == "closed").then_some(())
    });
    assert_eq!(bench.sessions().len(), 3);
    for ends in &mut all {
        parted(&mut ends.client, &mut ends.server, 1012, "moving");
    }
    drop(all);
    bench.ends("closed", 3);
    // The server is as good as before.
    bench.session().greet();
    bench.proxy.stop();
}
