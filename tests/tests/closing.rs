//! The packet path when both sides end a session at the same time: each FIN is sent before the other
//! one has come (RFC 9293, section 3.6, figure 13). Needs root.

use std::{net::TcpStream, process::Command, time::Duration};

use wsproxy::datapath::{Ending, Mode, SessionEnd};
use wsproxy_common::Reason;
use wsproxy_tests::{
    link::{Lossy, Plan},
    namespaces::{Family, Net, Place},
    routed::{End as _, Gateway, PATIENCE, converse},
    sessions::{kernel_expected, wait_for},
};

/// Held for so long, both FINs are under way before one of them arrives.
const HELD: Duration = Duration::from_millis(400);
/// A machine that stands still for longer than that tries again.
const TRIES: u32 = 10;

/// What Linux says of an end's connection.
fn state(net: &Net, place: Place, end: &TcpStream) -> String {
    let ports = [end.local_addr().unwrap().port(), end.peer_addr().unwrap().port()];
    let filter = format!("sport = :{} and dport = :{}", ports[0], ports[1]);
    let said = net.within(place, || Command::new("ss").args(["-tanHO", &filter]).output());
    let said = said.expect("ss (iproute2)").stdout;
    String::from_utf8_lossy(&said).split_whitespace().next().unwrap_or_default().to_owned()
}

/// Whether each has sent its FIN and heard nothing since: neither the other one's FIN nor an
/// acknowledgement.
fn both_wait(net: &Net, client: &TcpStream, server: &TcpStream) -> bool {
    [(Place::Client, client), (Place::Server, server)]
        .into_iter()
        .all(|(place, end)| state(net, place, end) == "FIN-WAIT-1")
}

fn counted(gateway: &Gateway<'_>, reason: Reason) -> u64 {
    let reasons = gateway.bench.datapath.reasons();
    reasons.into_iter().find(|(counted, _)| *counted == reason).map_or(0, |(_, n)| n)
}

/// Both ends are told of an end, no side of a reset, and the program has seen both FINs and both
/// acknowledgements.
fn check(gateway: &Gateway<'_>, before: [u64; 2], end: &SessionEnd, ends: [&TcpStream; 2]) {
    for socket in ends {
        assert_eq!(socket.receive(&mut [0]).unwrap(), 0, "an end in order");
        assert!(socket.take_error().unwrap().is_none());
    }
    let finished = [Ending::ClientFinished, Ending::UpstreamFinished];
    assert!(finished.contains(&end.ending) && !end.reset && end.error.is_none(), "{end:?}");
    let [fins, over] = [Reason::Finished, Reason::Over].map(|reason| counted(gateway, reason));
    assert_eq!(fins - before[0], 2, "FINs");
    assert!(over - before[1] >= 2, "acknowledgements of FINs");
    assert_eq!(gateway.net.within(Place::Client, resets), 0);
    assert_eq!(gateway.net.within(Place::Server, resets), 0);
}

/// Resets that this thread's namespace has sent.
fn resets() -> u64 {
    wsproxy_tests::namespaces::tcp_counter("OutRsts")
}

/// Runs `close` on sessions of both families; it says whether the FINs have crossed.
fn with_sessions(close: impl Fn(&mut [Lossy<'_>; 2], &TcpStream, &TcpStream) -> bool + Sync) {
    if !kernel_expected() {
        return;
    }
    let net = Net::new(1500);
    net.recover_quickly();
    Gateway::run(&net, Mode::Packet, |gateway| {
        for family in [Family::V4, Family::V6] {
            let crossed = (0..TRIES).any(|_| {
                let (id, client, server) = gateway.session(family, None);
                converse(&client, &server, 1, &[1000; 4]);
                let before =
                    [Reason::Finished, Reason::Over].map(|reason| counted(gateway, reason));
                let mut links = [Place::Client, Place::Server]
                    .map(|at| Lossy::attach(&net, at, at, Plan::default()));
                let crossed = close(&mut links, &client, &server);
                let end = gateway.end_of(id);
                check(gateway, before, &end, [&client, &server]);
                crossed
            });
            assert!(crossed, "the FINs never crossed");
        }
    });
}

/// Both FINs come by before the acknowledgement of one of them does.
#[test]
fn fins_cross_beyond_the_gateway() {
    with_sessions(|links, client, server| {
        let held = Plan { delay: Some((HELD, HELD)), ..Plan::default() };
        links.iter_mut().for_each(|link| link.set(held));
        client.finish().unwrap();
        server.finish().unwrap();
        both_wait(links[0].net(), client, server)
    });
}

/// Both FINs are lost, and each side sends its own again without having seen the other one's: the
/// acknowledgement of the first one that comes by stands behind a FIN that nobody has seen.
#[test]
fn fins_are_lost_on_both_sides() {
    with_sessions(|links, client, server| {
        let lost = Plan { drop: 1.0, ..Plan::default() };
        links.iter_mut().for_each(|link| link.set(lost));
        client.finish().unwrap();
        server.finish().unwrap();
        let net = links[0].net();
        let waits = wait_for(PATIENCE, || both_wait(net, client, server).then_some(()));
        assert!(waits.is_some(), "a FIN has come through");
        links.iter_mut().for_each(|link| link.set(Plan::default()));
        true
    });
}
