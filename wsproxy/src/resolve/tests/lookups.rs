use std::{net::UdpSocket, time::Instant};

use hickory_resolver::proto::op::ResponseCode;
use tokio::time::timeout;

use super::{
    super::*,
    server::{Known, Server, alias, ips, srv},
};

fn resolver(server: &Server) -> Resolver {
    Resolver::with_name_servers(&[server.address], "/nowhere/hosts".into()).unwrap()
}

/// Seconds, rounded up: some time has passed since the answer came.
fn seconds(answer: &Answer) -> u64 {
    answer.valid_for.as_secs() + u64::from(answer.valid_for.subsec_nanos() > 0)
}

/// Address, weight and `b` for a backup.
fn shown(answer: &Answer) -> Vec<String> {
    let one = |server: &Resolved| {
        let backup = if server.backup { " b" } else { "" };
        format!("{} {}{backup}", server.address, server.weight)
    };
    answer.servers.iter().map(one).collect()
}

#[tokio::test]
async fn names_have_addresses_of_both_families() {
    let server = Server::start(vec![
        ("both.example.", ips(30, &["192.0.2.2", "2001:db8::1", "192.0.2.1"])),
        ("four.example.", ips(7_200, &["192.0.2.1"])),
        ("six.example.", ips(0, &["2001:db8::1", "::ffff:192.0.2.9"])),
        ("my_service.", ips(5, &["192.0.2.3"])),
        ("alias.example.", alias(9, "both.example.")),
        ("xn--bcher-kva.example.", ips(5, &["192.0.2.4"])),
    ])
    .await;
    let resolver = resolver(&server);
    for (name, servers, valid_for) in [
        ("both.example", &["192.0.2.1:80 1", "192.0.2.2:80 1", "[2001:db8::1]:80 1"][..], 30),
        ("Both.Example.", &["192.0.2.1:80 1", "192.0.2.2:80 1", "[2001:db8::1]:80 1"], 30),
        ("four.example", &["192.0.2.1:80 1"], 3_600),
        ("six.example", &["192.0.2.9:80 1", "[2001:db8::1]:80 1"], 1),
        ("my_service", &["192.0.2.3:80 1"], 5),
        ("alias.example", &["192.0.2.1:80 1", "192.0.2.2:80 1", "[2001:db8::1]:80 1"], 9),
        ("bücher.example", &["192.0.2.4:80 1"], 5),
    ] {
        let answer = resolver.addresses(name, 80).await.unwrap();
        assert_eq!(shown(&answer), servers, "{name}");
        assert_eq!(seconds(&answer), valid_for, "{name}");
    }
}

#[tokio::test]
async fn an_answer_is_kept_for_as_long_as_it_is_good() {
    let server = Server::start(vec![("a.example.", ips(1, &["192.0.2.1"]))]).await;
    let resolver = resolver(&server);
    let began = Instant::now();
    let mut questions = 0;
    while began.elapsed() < Duration::from_millis(1_300) {
        assert_eq!(shown(&resolver.addresses("a.example", 1).await.unwrap()), ["192.0.2.1:1 1"]);
        questions = server.asked().iter().filter(|asked| *asked == "a.example. A").count();
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    assert!((2..=3).contains(&questions), "{questions}");
}

#[tokio::test]
async fn failures_have_plain_words() {
    let server = Server::start(vec![
        ("empty.example.", Known::Records(Vec::new())),
        ("refused.example.", Known::Failure(ResponseCode::Refused)),
        ("failed.example.", Known::Failure(ResponseCode::ServFail)),
        ("_dead._tcp.example.", srv(30, &[(1, 1, 1, "empty.example.")])),
        ("_refused._tcp.example.", Known::Failure(ResponseCode::Refused)),
        ("_none._tcp.example.", srv(30, &[(0, 0, 0, ".")])),
    ])
    .await;
    let resolver = resolver(&server);
    for (name, text) in [
        ("no.example", "\"no.example\" does not exist"),
        ("empty.example", "\"empty.example\" has no addresses"),
        ("refused.example", "the name servers refuse to answer for \"refused.example\""),
        (
            "failed.example",
            "\"failed.example\" can't be looked up: the name servers say \"Server Failure\"",
        ),
        ("127.1", "\"127.1\" can't be looked up: it is neither an address nor a name"),
    ] {
        let error = resolver.addresses(name, 80).await.unwrap_err();
        assert_eq!(error.to_string(), text);
    }
    for (name, text) in [
        ("no.example", "\"no.example\" does not exist"),
        ("_dead._tcp.example", "\"empty.example.\" has no addresses"),
        (
            "_none._tcp.example",
            "\"_none._tcp.example\" has no servers: it needs SRV records that name some",
        ),
        ("empty.example", "\"empty.example\" has no servers: it needs SRV records that name some"),
        ("localhost", "\"localhost\" has no servers: it needs SRV records that name some"),
        (
            "_refused._tcp.example",
            "the name servers refuse to answer for \"_refused._tcp.example\"",
        ),
        ("a b", "\"a b\" can't be looked up: it has characters that no name has"),
    ] {
        assert_eq!(resolver.service(name).await.unwrap_err().to_string(), text);
    }
}

#[tokio::test]
async fn name_servers_that_are_not_there_do_not_answer() {
    let closed = UdpSocket::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let dns = Dns::of(&[closed], |options| {
        options.timeout = Duration::from_millis(50);
        options.attempts = 0;
    });
    let resolver = Resolver { dns: dns.ok(), hosts: Hosts::new("/nowhere/hosts".into()) };
    let error = resolver.addresses("a.example", 80).await.unwrap_err();
    assert_eq!(error, ResolveError::NoAnswer { name: "a.example".into() });
    let error = resolver.service("_a._tcp.example").await.unwrap_err();
    assert_eq!(error, ResolveError::NoAnswer { name: "_a._tcp.example".into() });
}

#[tokio::test]
async fn a_question_can_be_given_up() {
    let server = Server::start(vec![
        ("silent.example.", Known::Silence),
        ("a.example.", ips(30, &["192.0.2.1"])),
    ])
    .await;
    let resolver = resolver(&server);
    let patience = Duration::from_millis(200);
    assert!(timeout(patience, resolver.addresses("silent.example", 1)).await.is_err());
    // Which is no loss for others.
    assert_eq!(shown(&resolver.addresses("a.example", 1).await.unwrap()), ["192.0.2.1:1 1"]);
}

#[tokio::test]
async fn nobody_is_asked_about_this_machine_and_addresses() {
    let server = Server::start(Vec::new()).await;
    let resolver = resolver(&server);
    for (name, servers) in [
        ("localhost", &["127.0.0.1:80 1", "[::1]:80 1"][..]),
        ("LOCALHOST.", &["127.0.0.1:80 1", "[::1]:80 1"]),
        ("a.localhost", &["127.0.0.1:80 1", "[::1]:80 1"]),
        ("192.0.2.1", &["192.0.2.1:80 1"]),
        ("2001:db8::1", &["[2001:db8::1]:80 1"]),
        ("[2001:db8::1]", &["[2001:db8::1]:80 1"]),
        ("::ffff:192.0.2.1", &["192.0.2.1:80 1"]),
    ] {
        let answer = resolver.addresses(name, 80).await.unwrap();
        assert_eq!(shown(&answer), servers, "{name}");
    }
    for name in ["", "127.1", "a..b", "fe80::1%lo", "1.2.3.4.5"] {
        resolver.addresses(name, 80).await.unwrap_err();
    }
    assert_eq!(server.asked(), Vec::<String>::new());
}

#[tokio::test]
async fn the_file_of_hosts_comes_first() {
    let file = tempfile::NamedTempFile::new().unwrap();
    let text = "127.0.0.1 localhost\n192.0.2.9 localhost own.localhost\n192.0.2.5 db.example db\n";
    std::fs::write(file.path(), text).unwrap();
    let server = Server::start(vec![
        ("db.example.", ips(5, &["2001:db8::1"])),
        ("_db._tcp.example.", srv(300, &[(1, 1, 5_432, "db.example.")])),
    ])
    .await;
    let resolver = Resolver::with_name_servers(&[server.address], file.path().into()).unwrap();
    for (name, servers) in [
        ("db", &["192.0.2.5:80 1"]),
        ("DB.example.", &["192.0.2.5:80 1"]),
        ("localhost", &["127.0.0.1:80 1"]),
        ("a.localhost", &["127.0.0.1:80 1"]),
    ] {
        let answer = resolver.addresses(name, 80).await.unwrap();
        assert_eq!(shown(&answer), servers, "{name}");
        assert_eq!(answer.valid_for, UNKNOWN);
    }
    assert_eq!(server.asked(), Vec::<String>::new());
    let answer = resolver.service("_db._tcp.example").await.unwrap();
    assert_eq!(shown(&answer), ["192.0.2.5:5432 1"]);
    assert_eq!(server.asked(), ["_db._tcp.example. SRV"]);
}

#[tokio::test]
async fn services_have_priorities_weights_and_addresses() {
    let server = Server::start(vec![
        ("a.example.", ips(60, &["192.0.2.1"])),
        ("b.example.", ips(20, &["192.0.2.2", "2001:db8::2"])),
        ("c.example.", ips(60, &["192.0.2.3"])),
        (
            "_ws._tcp.example.",
            srv(
                40,
                &[
                    (20, 7, 83, "c.example."),
                    (10, 10, 81, "a.example."),
                    (10, 20, 82, "b.example."),
                    (1, 1, 80, "gone.example."),
                    (1, 1, 80, "."),
                    (1, 1, 0, "a.example."),
                ],
            ),
        ),
        ("_alias._tcp.example.", alias(10, "_again._tcp.example.")),
        ("_again._tcp.example.", alias(300, "_ws._tcp.example.")),
    ])
    .await;
    let resolver = resolver(&server);
    for (name, valid_for) in
        [("_ws._tcp.example", 20), ("_alias._tcp.example", 10), ("_WS._TCP.example.", 20)]
    {
        let answer = resolver.service(name).await.unwrap();
        let servers =
            ["192.0.2.1:81 1000", "192.0.2.2:82 1000", "[2001:db8::2]:82 1000", "192.0.2.3:83 7 b"];
        assert_eq!(shown(&answer), servers, "{name}");
        assert_eq!(seconds(&answer), valid_for, "{name}");
    }
}

#[tokio::test]
async fn a_target_that_cannot_be_looked_up_is_left_out() {
    let server = Server::start(vec![
        ("a.example.", ips(60, &["192.0.2.1"])),
        ("bad.example.", Known::Failure(ResponseCode::ServFail)),
        ("_ws._tcp.example.", srv(60, &[(1, 1, 80, "bad.example."), (2, 1, 80, "a.example.")])),
        ("_bad._tcp.example.", srv(60, &[(1, 1, 80, "bad.example.")])),
        ("_loop._tcp.example.", alias(60, "_loop._tcp.example.")),
    ])
    .await;
    let resolver = resolver(&server);
    let answer = resolver.service("_ws._tcp.example").await.unwrap();
    assert_eq!(shown(&answer), ["192.0.2.1:80 1"]);
    assert_eq!(answer.valid_for, INCOMPLETE);
    let error = resolver.service("_bad._tcp.example").await.unwrap_err();
    assert!(error.to_string().contains("\"bad.example.\""), "{error}");
    resolver.service("_loop._tcp.example").await.unwrap_err();
}

#[tokio::test]
async fn many_targets_are_looked_up() {
    let records: Vec<_> = (0..40).map(|n| (1, 1, 1_000 + n, "a.example.")).collect();
    let server = Server::start(vec![
        ("a.example.", ips(60, &["192.0.2.1"])),
        ("_ws._tcp.example.", srv(60, &records)),
    ])
    .await;
    let answer = resolver(&server).service("_ws._tcp.example").await.unwrap();
    assert_eq!(answer.servers.len(), 40);
}

#[tokio::test]
async fn without_name_servers_the_system_is_asked() {
    let resolver = Resolver { dns: None, hosts: Hosts::new("/nowhere/hosts".into()) };
    assert_eq!(resolver.addresses("localhost", 1).await.unwrap().servers.len(), 2);
    let error = resolver.service("_ws._tcp.example").await.unwrap_err();
    assert!(error.to_string().contains("resolv.conf"), "{error}");
    // Where /etc/hosts names this machine, no name server is asked by the system either.
    let own = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap();
    if !Hosts::new("/etc/hosts".into()).addresses(own.trim()).await.is_empty() {
        let answer = resolver.addresses(own.trim(), 1).await.unwrap();
        assert_eq!(answer.valid_for, UNKNOWN);
    }
}

#[tokio::test]
async fn the_systems_resolver_can_be_had() {
    let answer = Resolver::system().addresses("127.0.0.1", 80).await.unwrap();
    assert_eq!(shown(&answer), ["127.0.0.1:80 1"]);
    assert_eq!(answer.valid_for, LONGEST);
}
