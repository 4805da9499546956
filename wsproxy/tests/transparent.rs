//! `upstream.transparent`: servers see the client's own address. A client, the real program and
//! a server, each in a network namespace of its own, with the routes that CONFIGURATION.md gives.
#![cfg(target_os = "linux")]

#[allow(dead_code, reason = "other tests use the rest of it")]
#[path = "../../tests/src/namespaces.rs"]
mod namespaces;
mod support;

use std::{
    fs,
    net::{IpAddr, Ipv6Addr, SocketAddr, TcpListener, TcpStream},
    process::Command,
    thread,
};

use namespaces::{Family, Net, Place, address};
use socket2::{Domain, Socket, Type};
use support::{
    BINARY, Peer, Proxy, Server, TempDir, config,
    http::{answer, get, pattern},
    is_root,
    persist::{Home, Talk, kill},
    request, say, status, switch, unprivileged, wait_for,
};

/// The servers' port and the link to them, as the document has them.
const PORT: u16 = 9000;
const LINK: &str = "eth1";
/// The gateway as servers know it: what the document calls it, and what it is here.
const GATEWAYS: [(&str, Family); 2] = [("192.0.2.1", Family::V4), ("2001:db8::1", Family::V6)];
const TOO_MANY: &str = "too many failures: the server gets nothing for upstream.fail_timeout";

/// The commands of CONFIGURATION.md: for a server, and for the gateway.
fn documented() -> [Vec<String>; 2] {
    let text = include_str!("../CONFIGURATION.md");
    let (_, section) = text.split_once("\n## Transparent connections\n").unwrap();
    let (section, _) = section.split_once("\n## ").unwrap();
    let blocks = section.split("```sh\n").skip(1).map(|rest| rest.split_once("```").unwrap().0);
    let commands = |block: &str| {
        let mut block = block.replace(LINK, "server");
        for (name, family) in GATEWAYS {
            let here = address(Place::Server, Place::Gateway, family).to_string();
            block = block.replace(name, &here);
        }
        block.lines().map(str::to_owned).collect::<Vec<_>>()
    };
    let found: Vec<_> = blocks.map(commands).collect();
    found.try_into().expect("two blocks of commands")
}

/// Runs a command in the namespace of this thread.
fn run(command: &str) {
    let mut words = command.split_whitespace();
    let output = Command::new(words.next().unwrap()).args(words).output().unwrap();
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{command}: {errors}");
}

/// Makes the namespaces as the document has it, and runs `test` in the gateway.
fn with_net(test: impl FnOnce(&Net) + Send) {
    if !is_root() {
        let promised = std::env::var_os("CI").is_some_and(|ci| ci == "true");
        assert!(!promised, "network namespaces need root");
        say("!!! SKIPPED: transparent connections need root (sudo)");
        return;
    }
    let net = Net::new(1500);
    let [server, gateway] = documented();
    for (place, commands) in [(Place::Server, server), (Place::Gateway, gateway)] {
        net.within(place, || {
            // As strict as routers are: what comes from an address must come the way back to it.
            fs::write("/proc/sys/net/ipv4/conf/all/rp_filter", "1").unwrap();
            commands.iter().for_each(|command| run(command));
        });
    }
    net.within(Place::Gateway, || test(&net));
}

/// A server in its namespace.
fn server(net: &Net, ip: IpAddr) -> Server {
    Server::of(net.within(Place::Server, || TcpListener::bind((ip, PORT)).unwrap()))
}

fn server_of(net: &Net, family: Family) -> Server {
    server(net, address(Place::Server, Place::Server, family))
}

/// The configuration: a listener for both families, and these servers.
fn transparent(servers: &[SocketAddr], more: &str) -> String {
    let text = config(servers, more).replacen("\"127.0.0.1:0\"", "\":0\"", 1);
    text.replace("[upstream]\n", "[upstream]\ntransparent = true\n")
}

fn start(servers: &[&Server], datapath: &str) -> Proxy {
    let servers: Vec<_> = servers.iter().map(|server| server.address).collect();
    let text = transparent(&servers, "[datapath]\nsettle = \"off\"");
    Proxy::with_file(Command::new(BINARY), &text, datapath)
}

/// A client's connection to the gateway, from this address of its namespace.
fn connect(net: &Net, proxy: &Proxy, from: IpAddr) -> Peer {
    let family = if from.is_ipv4() { Family::V4 } else { Family::V6 };
    let gateway = address(Place::Client, Place::Gateway, family);
    let to = SocketAddr::new(gateway, proxy.address.port());
    Peer::new(net.within(Place::Client, || {
        let socket = Socket::new(Domain::for_address(to), Type::STREAM, None).unwrap();
        socket.bind(&SocketAddr::new(from, 0).into()).unwrap();
        socket.connect(&to.into()).unwrap();
        TcpStream::from(socket)
    }))
}

/// What the server sees is the client's address.
fn check_source(upstream: &Peer, client: IpAddr) {
    assert_eq!(upstream.stream.peer_addr().unwrap().ip(), client);
}

/// A session of this client with one of the servers.
fn session(net: &Net, proxy: &Proxy, servers: &[&Server], from: IpAddr) -> (Peer, Peer) {
    let mut client = connect(net, proxy, from);
    client.send(request("").as_bytes());
    let accepted = || servers.iter().find_map(|server| server.try_accept());
    let mut upstream = wait_for("a connection to a server", accepted);
    check_source(&upstream, from);
    upstream.head();
    upstream.send(switch("").as_bytes());
    assert_eq!(status(&client.head()), 101);
    (client, upstream)
}

/// `bytes` from one to the other and back.
fn echo(from: &mut Peer, to: &mut Peer, bytes: &[u8]) {
    thread::scope(|scope| {
        scope.spawn(|| {
            to.expect(bytes);
            to.send(bytes);
        });
        from.send(bytes);
        from.expect(bytes);
    });
}

fn finish(mut client: Peer, mut upstream: Peer) {
    client.finish();
    assert!(upstream.rest().is_empty());
    upstream.finish();
    assert!(client.rest().is_empty());
}

fn moved(proxy: &Proxy, datapath: &str) -> u64 {
    let of = |direction: &str| {
        let labels = format!("datapath=\"{datapath}\",direction=\"{direction}\"");
        proxy.metric(&format!("wsproxy_session_bytes_total{{{labels}}}"))
    };
    of("to_upstream") + of("to_client")
}

/// Clients of both families before a group that has servers of both.
fn servers_see_the_client(datapath: &str) {
    with_net(|net| {
        let servers = [Family::V4, Family::V6].map(|family| server_of(net, family));
        let proxy = start(&servers.each_ref(), datapath);
        let bytes = pattern(1 << 20);
        for (family, server) in [Family::V4, Family::V6].into_iter().zip(&servers) {
            let from = address(Place::Client, Place::Client, family);
            // More than once: a server of the other family is passed over, not taken for bad.
            for _ in 0..3 {
                let before = moved(&proxy, datapath);
                let (mut client, mut upstream) = session(net, &proxy, &[server], from);
                let live = format!("wsproxy_sessions{{datapath=\"{datapath}\"}}");
                proxy.wait_metric(&live, |n| n == 1);
                // Messages that fit into a fresh send buffer: the kernel moves them all.
                for message in bytes.chunks(16 << 10) {
                    echo(&mut client, &mut upstream, message);
                    echo(&mut upstream, &mut client, message);
                }
                let sent = 4 * bytes.len() as u64;
                assert!(moved(&proxy, datapath) - before > sent / 2, "{datapath} moved too little");
                finish(client, upstream);
                proxy.wait_metric(&live, |n| n == 0);
            }
        }
        assert!(proxy.logged(TOO_MANY).is_none(), "no server did anything wrong");
        proxy.stop();
    });
}

#[test]
fn servers_see_the_client_through_the_kernel() {
    servers_see_the_client("sockmap");
}

#[test]
fn servers_see_the_client_through_the_relay() {
    servers_see_the_client("relay");
}

/// Sessions are kept, and their frames not followed.
fn kept(home: &Home) -> String {
    format!("{}[[route]]\nupstream = \"default\"\nframes = false\n", home.datapath())
}

/// Over real links: the gateway's sockets have the client's address, before and after.
#[test]
fn sessions_on_the_packet_path_outlive_the_program() {
    with_net(|net| {
        for family in [Family::V4, Family::V6] {
            let (home, server) = (Home::new(), server_of(net, family));
            let more =
                format!("{}[[route]]\nupstream = \"default\"\nframes = false\n", home.datapath());
            let text = transparent(&[server.address], &more);
            let start = || Proxy::with_file(Command::new(BINARY), &text, "packet");
            let first = start();
            let from = address(Place::Client, Place::Client, family);
            let (client, upstream) = session(net, &first, &[&server], from);
            let talk = Talk::start(client, upstream, 1);
            home.keeps(1);
            kill(first);
            talk.goes_on();

            let mut second = start();
            let adopted = "wsproxy_sessions_adopted_total{result=\"adopted\"}";
            assert_eq!(second.metric(adopted), 1, "{}", second.log_text());
            talk.goes_on();
            let (mut client, mut upstream) = talk.stop();
            second.terminate();
            // From sockets that the second one made: FIN, not a reset.
            assert_eq!((client.rest(), upstream.rest()), (Vec::new(), Vec::new()));
            finish(client, upstream);
            assert!(second.wait().success());
            assert!(home.is_empty());
        }
    });
}

/// What the program was attached to is gone when the next one starts: so are the sessions.
#[test]
fn a_device_that_is_gone_takes_its_sessions_with_it() {
    with_net(|net| {
        let (home, server) = (Home::new(), server_of(net, Family::V4));
        let text = transparent(&[server.address], &kept(&home));
        let start = || Proxy::with_file(Command::new(BINARY), &text, "packet");
        let first = start();
        let from = address(Place::Client, Place::Client, Family::V4);
        let (client, upstream) = session(net, &first, &[&server], from);
        let talk = Talk::start(client, upstream, 1);
        home.keeps(1);
        let _ends = talk.stop();
        kill(first);
        run("ip link del client");

        let second = start();
        let result =
            |of: &str| second.metric(&format!("wsproxy_sessions_adopted_total{{result=\"{of}\"}}"));
        assert_eq!((result("adopted"), result("let_go")), (0, 1), "{}", second.log_text());
        assert!(second.logged("an attachment could not be taken over").is_some());
        assert!(home.files().is_empty());
        second.stop();
        assert!(home.is_empty());
    });
}

#[test]
fn servers_see_the_client_of_a_plain_request() {
    with_net(|net| {
        // Two clients: no connection that was made for one may serve the other.
        net.within(Place::Client, || {
            run("ip addr add 10.77.1.3/24 dev client");
            run("ip addr add fd77:1::3/64 dev client nodad");
        });
        for (family, other) in [(Family::V4, "10.77.1.3"), (Family::V6, "fd77:1::3")] {
            let server = server_of(net, family);
            let proxy = start(&[&server], "relay");
            let clients = [address(Place::Client, Place::Client, family), other.parse().unwrap()];
            let mut open = Vec::new();
            for from in clients.into_iter().cycle().take(6) {
                let mut client = connect(net, &proxy, from);
                client.send(get("/", "").as_bytes());
                let mut upstream = server.accept();
                check_source(&upstream, from);
                upstream.head();
                upstream.send(answer("", "hello").as_bytes());
                assert_eq!(status(&client.head()), 200);
                client.expect(b"hello");
                open.push((client, upstream));
            }
            drop(open);
            proxy.stop();
        }
    });
}

/// A client has as many connections to each server as there are ports, not to all of them.
#[test]
fn one_client_may_have_many_sessions() {
    const PORTS: &str = "40000 40063";
    const SESSIONS: usize = 100;
    with_net(|net| {
        fs::write("/proc/sys/net/ipv4/ip_local_port_range", PORTS).unwrap();
        net.within(Place::Server, || {
            run("ip addr add 10.77.2.3/24 dev server");
            run("ip addr add fd77:2::3/64 dev server nodad");
        });
        for (family, second) in [(Family::V4, "10.77.2.3"), (Family::V6, "fd77:2::3")] {
            let servers = [server_of(net, family), server(net, second.parse().unwrap())];
            let servers = servers.each_ref();
            let proxy = start(&servers, "sockmap");
            let from = address(Place::Client, Place::Client, family);
            let mut sessions: Vec<_> =
                (0..SESSIONS).map(|_| session(net, &proxy, &servers, from)).collect();
            // All are there at once, and each has its own bytes.
            for (number, (client, upstream)) in sessions.iter_mut().enumerate() {
                let bytes = format!("this is session {number}");
                echo(client, upstream, bytes.as_bytes());
                echo(upstream, client, bytes.as_bytes());
            }
            sessions.into_iter().for_each(|(client, upstream)| finish(client, upstream));
            proxy.stop();
        }
    });
}

/// What the operator is told of handshakes and plain requests that no server was
/// asked for; the servers are not taken for bad.
fn check_complaints(proxy: &Proxy, wanted: &[&str]) {
    let to = SocketAddr::from(([127, 0, 0, 1], proxy.address.port()));
    for _ in 0..3 {
        for sent in [request(""), get("/", "")] {
            let mut client = Peer::new(TcpStream::connect(to).unwrap());
            client.send(sent.as_bytes());
            assert_eq!(status(&client.head()), 502);
        }
    }
    for message in ["no server took the handshake", "no server answered a request"] {
        let lines = wait_for(message, || Some(proxy.all_logged(message)).filter(|l| l.len() == 3));
        for line in lines {
            let error = line["error"].as_str().unwrap();
            assert!(wanted.iter().all(|wanted| error.contains(wanted)), "{error}");
        }
    }
    assert!(proxy.logged(TOO_MANY).is_none(), "the servers were not even asked");
}

#[test]
fn without_privilege_the_log_says_what_is_missing() {
    let (dir, servers) = (TempDir::new(), [Server::start(), Server::start()]);
    let text = transparent(&servers.each_ref().map(|server| server.address), "");
    let proxy = Proxy::with_file(unprivileged(&dir), &text, "relay");
    check_complaints(&proxy, &["upstream.transparent", "CAP_NET_ADMIN or CAP_NET_RAW"]);
    proxy.stop();
}

#[test]
fn a_server_of_another_family_is_said_to_be_one() {
    let listen = || Server::of(TcpListener::bind((Ipv6Addr::LOCALHOST, 0)).unwrap());
    let servers = [listen(), listen()];
    let text = transparent(&servers.each_ref().map(|server| server.address), "");
    let proxy = Proxy::with_file(Command::new(BINARY), &text, "relay");
    check_complaints(&proxy, &["upstream.transparent", "127.0.0.1", "::1", "family"]);
    proxy.stop();
}
