//! Request heads: no panic, the same verdict however the bytes arrive, and what
//! is accepted can be rebuilt into something that is accepted; the routes and the
//! headers of the next hop are made of it too.
#![no_main]

use libfuzzer_sys::fuzz_target;
use wsproxy_fuzz::{
    config::{Clients, HostHeader, Route},
    forwarding::{Connection, Facts, Rendered, prepare_request},
    handshake::{HeadLimits, Incoming, Progress, build_request, parse_incoming, parse_request},
    routes::{Router, rewritten},
};

fuzz_target!(|data: &[u8]| {
    let Some((split, head)) = data.split_first() else { return };
    let limits = HeadLimits { max_bytes: 4096, max_headers: 16 };
    let cut = usize::from(*split).min(head.len());
    let part = parse_request(&head[..cut], &limits);
    let whole = parse_request(head, &limits);
    if !matches!(part, Ok(Progress::Partial)) {
        assert_eq!(part.is_ok(), whole.is_ok(), "more bytes changed the verdict");
    }
    if let (
        Ok(Progress::Done { value: a, consumed: n }),
        Ok(Progress::Done { value: b, consumed: m }),
    ) = (&part, &whole)
    {
        assert_eq!((a, n), (b, m));
    }
    let incoming = parse_incoming(head, &limits);
    let is_upgrade = matches!(&incoming, Ok(Progress::Done { value: Incoming::Upgrade(_), .. }));
    let whole_is_upgrade = matches!(&whole, Ok(Progress::Done { .. }));
    assert_eq!(is_upgrade, whole_is_upgrade, "two readings of one head");
    if let Ok(Progress::Done { value, .. }) = whole {
        let peer = ([192, 0, 2, 1], 5).into();
        let connection =
            Connection { peer, local: peer, scheme: "http", tls_name: None, tls_version: None };
        let clients = Clients {
            trusted_proxies: vec!["192.0.2.0/24".parse().unwrap()],
            ..Clients::default()
        };
        let line = ("GET", value.target.as_str(), value.host.as_str());
        let facts = Facts::new(&connection, &clients, &value.headers, line, || ("id".into(), None));
        let route = Route { path: "/a/b".into(), ..Route::everything_to("u") };
        let target =
            match Router::new(std::slice::from_ref(&route), "l").find(&facts.host, facts.path()) {
                Some(_) => rewritten(&route, "/c", &value.target),
                None => value.target.clone(),
            };
        let mut headers = value.headers.clone();
        let none = Rendered::default();
        prepare_request(&mut headers, &facts, &connection, &HostHeader::Keep, "s:1", &none);
        let rebuilt = build_request(&target, &headers);
        let roomy = HeadLimits { max_bytes: 64 * 1024, max_headers: 64 };
        match parse_request(&rebuilt, &roomy) {
            Ok(Progress::Done { value: again, consumed }) => {
                assert_eq!(consumed, rebuilt.len());
                assert_eq!((again.target, again.host, again.key), (target, value.host, value.key));
            }
            other => panic!("what was rebuilt is not accepted: {other:?}"),
        }
    }
});
