//! PROXY headers before TLS and before HTTP, and connections that are no TCP.

use std::{
    fs,
    io::{Read as _, Write as _},
    net::{Ipv4Addr, SocketAddr},
    os::unix::net::{UnixListener, UnixStream},
    path::Path,
    process::Command,
    thread,
};

use crate::{
    front::{Front, carries},
    support::{BINARY, Peer, Proxy, Server, TempDir, header, request, status, switch, wait_for},
    tls_support::{
        BOTH, End, accepted, authority, client_config, listener_tls, local, pattern, same, secure,
        server_config, shown, text, write_authority,
    },
};

const V2: &[u8] = b"\r\n\r\n\0\r\nQUIT\n";
const GET: &[u8] = b"GET /page HTTP/1.1\r\nHost: example.com\r\n\r\n";

/// A header of version 2 for IPv4.
fn v2(from: SocketAddr, to: SocketAddr) -> Vec<u8> {
    let ip = |address: SocketAddr| match address.ip() {
        std::net::IpAddr::V4(ip) => ip.octets(),
        std::net::IpAddr::V6(_) => panic!("{address}"),
    };
    let ports = [from, to].map(|address| address.port().to_be_bytes()).concat();
    [V2, b"\x21\x11\0\x0c", &ip(from), &ip(to), &ports].concat()
}

fn v1(from: SocketAddr, to: SocketAddr) -> Vec<u8> {
    let (from_ip, to_ip) = (from.ip(), to.ip());
    format!("PROXY TCP4 {from_ip} {to_ip} {} {}\r\n", from.port(), to.port()).into_bytes()
}

fn strange() -> [SocketAddr; 2] {
    [(Ipv4Addr::new(203, 0, 113, 7), 4711).into(), (Ipv4Addr::new(192, 0, 2, 1), 443).into()]
}

/// A listener with TLS or without, behind one that sends PROXY headers.
fn behind(from: &str, tls: bool, more: &str) -> Front {
    let dir = TempDir::new();
    let files = local().write(&dir, "local");
    let tls = if tls { listener_tls(&[&files], "") } else { String::new() };
    Front::start(dir, &format!("proxy_protocol_from = [\"{from}\"]\n{tls}"), more)
}

#[test]
fn a_header_before_tls_names_the_client() {
    let front = behind("127.0.0.0/8", true, "");
    let [from, to] = strange();
    for (head, client_ip) in [
        (v1(from, to), "203.0.113.7"),
        (v2(from, to), "203.0.113.7"),
        (b"PROXY TCP6 2001:db8::7 2001:db8::1 1 2\r\n".to_vec(), "2001:db8::7"),
        // Nobody is named: it is the connection's own end.
        (b"PROXY UNKNOWN\r\n".to_vec(), "127.0.0.1"),
        ([V2, b"\x20\0\0\0"].concat(), "127.0.0.1"),
    ] {
        for one_by_one in [false, true] {
            let mut stream = front.proxy.connect().stream;
            if one_by_one {
                head.iter().for_each(|byte| stream.write_all(&[*byte]).unwrap());
            }
            let mut client = secure(stream, client_config(BOTH, None), "localhost");
            if !one_by_one {
                // The header and the hello in one segment.
                let mut first = head.clone();
                client.conn.write_tls(&mut first).unwrap();
                client.sock.write_all(&first).unwrap();
            }
            let (mut upstream, asked) = front.open(&mut client);
            assert_eq!(header(&asked, "X-Real-IP"), [client_ip], "{}", head.escape_ascii());
            assert_eq!(header(&asked, "X-Forwarded-For"), [client_ip]);
            assert_eq!(header(&asked, "X-Forwarded-Proto"), ["https"]);
            carries(&mut client, &mut upstream);
        }
    }
}

#[test]
fn a_header_before_http_names_the_client() {
    let front = behind("127.0.0.1", false, "");
    let [from, to] = strange();
    for head in [v1(from, to), v2(from, to)] {
        let mut client = front.proxy.connect();
        client.send(&[&head, request("").as_bytes(), b"early"].concat());
        let mut upstream = front.server.accept();
        let asked = upstream.head();
        assert_eq!(header(&asked, "X-Real-IP"), ["203.0.113.7"]);
        upstream.send(switch("").as_bytes());
        assert_eq!(status(&client.head()), 101);
        upstream.expect(b"early");
        // Requests behind the first one are of the same client.
        let mut client = front.proxy.connect();
        client.send(&head);
        let mut upstream = None;
        for _ in 0..2 {
            client.send(GET);
            let upstream: &mut Peer = upstream.get_or_insert_with(|| front.server.accept());
            assert_eq!(header(&upstream.head(), "X-Real-IP"), ["203.0.113.7"]);
            upstream.send(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok");
            assert_eq!(status(&client.head()), 200);
            client.expect(b"ok");
        }
        // The next header's requests go over a connection of their own.
        drop(upstream);
    }
}

#[test]
fn a_connection_without_its_header_is_closed() {
    for tls in [true, false] {
        let front = behind("127.0.0.1", tls, "[timeouts]\ntls_handshake = \"1s\"\n");
        let wrong = [
            request("").into_bytes(),
            b"\x16\x03\x01\x00\x05hello".to_vec(),
            b"PROXY TCP4 203.0.113.7 192.0.2.1 4711\r\n".to_vec(),
            b"PROXY TCP4 203.0.113.7 nonsense 4711 443\r\n".to_vec(),
            [b"PROXY ".as_slice(), &[b'x'; 200]].concat(),
            [V2, b"\x31\x11\0\x0c"].concat(),
        ];
        for first in &wrong {
            let mut client = front.proxy.connect();
            client.send(first);
            let mut said = Vec::new();
            // Bytes that nobody read make it a reset.
            let _either = client.stream.read_to_end(&mut said);
            assert!(said.is_empty(), "{}", said.escape_ascii());
        }
        wait_for("all are counted", || {
            (front.proxy.failures("proxy_header") == wrong.len() as u64).then_some(())
        });
        let mut silent = front.proxy.connect();
        silent.send(b"PROXY TCP4 203.0");
        assert_eq!(silent.rest(), b"");
        wait_for("it is counted", || {
            (front.proxy.failures("proxy_header_timeout") == 1).then_some(())
        });
        assert!(front.server.try_accept().is_none());
    }
}

#[test]
fn a_header_from_elsewhere_is_no_request() {
    let [from, to] = strange();
    for head in [v1(from, to), v2(from, to)] {
        let front = behind("192.0.2.0/24", false, "");
        let mut client = front.proxy.connect();
        client.send(&[&head, request("").as_bytes()].concat());
        assert_eq!(status(&client.rest_text()), 400);
        let front = behind("192.0.2.0/24", true, "");
        let mut client = front.proxy.connect();
        client.send(&head);
        let said = client.rest();
        assert!(said.is_empty() || said.starts_with(b"\x15\x03"), "{}", said.escape_ascii());
        // It is counted when both have closed.
        drop(client);
        front.shakes("not_tls", 1);
        assert!(front.server.try_accept().is_none());
    }
}

#[test]
fn servers_get_a_header_for_each_client() {
    for (version, write) in [("v1", v1 as fn(_, _) -> _), ("v2", v2)] {
        let dir = TempDir::new();
        let more = format!("proxy_protocol = \"{version}\"\n");
        let front = Front::start(dir, "", &more);
        let expected =
            |client: &Peer| write(client.stream.local_addr().unwrap(), front.proxy.address);

        let mut client = front.proxy.connect();
        client.send(&[request("").as_bytes(), b"early"].concat());
        let mut upstream = front.server.accept();
        upstream.expect(&expected(&client));
        assert!(upstream.head().starts_with("GET /chat"));
        upstream.send(switch("").as_bytes());
        assert_eq!(status(&client.head()), 101);
        upstream.expect(b"early");

        // A connection that names one client serves no other one, nor another request.
        for _ in 0..2 {
            let mut client = front.proxy.connect();
            for _ in 0..2 {
                client.send(GET);
                let mut upstream = front.server.accept();
                upstream.expect(&expected(&client));
                assert!(upstream.head().starts_with("GET /page"));
                upstream.send(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok");
                assert_eq!(status(&client.head()), 200);
                client.expect(b"ok");
            }
        }
        let [from, to] = strange();
        let front = behind("127.0.0.1", false, &more);
        let mut client = front.proxy.connect();
        client.send(&[v1(from, to).as_slice(), GET].concat());
        let mut upstream = front.server.accept();
        upstream.expect(&write(from, to));
        assert_eq!(header(&upstream.head(), "X-Real-IP"), ["203.0.113.7"]);
    }
}

#[test]
fn the_header_stands_before_the_tls_of_a_server() {
    let dir = TempDir::new();
    let ca = shown(&write_authority(&dir, "ca.pem", authority()));
    let server = Server::start();
    let more = format!("proxy_protocol = \"v1\"\n[upstream.tls]\nca = \"{ca}\"\n");
    let text = text("", &format!("\"wss://{}\"", server.address), &more);
    let program = Command::new(BINARY);
    let proxy = Proxy::with_file(program, &text, "relay");
    let mut client = proxy.connect();
    client.send(request("").as_bytes());
    let mut peer = server.accept();
    let expected = v1(client.stream.local_addr().unwrap(), proxy.address);
    let mut found = vec![0; expected.len()];
    peer.stream.read_exact(&mut found).unwrap();
    assert_eq!(found.escape_ascii().to_string(), expected.escape_ascii().to_string());
    let mut upstream = End::new(accepted(peer, &server_config(BOTH, local(), None)));
    upstream.head();
    upstream.send(switch("").as_bytes());
    assert_eq!(status(&client.head()), 101);
    client.send(b"there");
    upstream.expect(b"there");
}

/// A program that listens at a Unix socket too, and whose servers do.
fn unix(dir: TempDir, more: &str) -> (Front, UnixListener) {
    let (here, there) = (shown(&dir.join("here.sock")), shown(&dir.join("there.sock")));
    let upstream = UnixListener::bind(&there).unwrap();
    let text = text("", &format!("\"unix:{there}\""), more).replace("[listener]", "[[listener]]");
    // The one whose address the program tells comes first.
    let text = format!("{text}[[listener]]\nname = \"unix\"\naddress = \"unix:{here}\"\n");
    fs::write(dir.join("wsproxy.toml"), text).unwrap();
    let mut command = Command::new(BINARY);
    command.args(["run", "--datapath", "auto", "--config"]).arg(dir.join("wsproxy.toml"));
    let proxy = Proxy::spawn(command).unwrap_or_else(|log| panic!("{log}"));
    let server = Server::start();
    (Front { dir, proxy, server, reloads: 0 }, upstream)
}

fn unix_session(here: &Path, upstream: &UnixListener) -> (End, End, String) {
    let mut client = End::new(UnixStream::connect(here).unwrap());
    client.send(&[request("").as_bytes(), b"early"].concat());
    let mut upstream = End::new(upstream.accept().unwrap().0);
    let asked = upstream.head();
    upstream.send(switch("").as_bytes());
    assert_eq!(status(&client.head()), 101);
    upstream.expect(b"early");
    (client, upstream, asked)
}

#[test]
fn unix_sockets_carry_sessions() {
    let (front, upstream) = unix(TempDir::new(), "");
    let here = front.dir.join("here.sock");
    for finished_by_client in [true, false] {
        let (mut client, mut server, _) = unix_session(&here, &upstream);
        let relayed = "wsproxy_sessions{datapath=\"relay\"}";
        front.proxy.wait_metric(relayed, |live| live == 1);
        let (there, back) = (pattern(3 << 20, 1), pattern(2 << 20, 2));
        let other = {
            let (there, back) = (there.clone(), back.clone());
            thread::spawn(move || {
                same(&server.exchange(&back, there.len()), &there);
                server
            })
        };
        same(&client.exchange(&there, back.len()), &back);
        server = other.join().unwrap();
        let (mut first, mut second) =
            if finished_by_client { (client, server) } else { (server, client) };
        first.finish();
        assert_eq!(second.rest(), b"");
        second.send(b"behind the end");
        second.finish();
        assert_eq!(first.rest(), b"behind the end");
        front.proxy.wait_metric(relayed, |live| live == 0);
    }
    // From TCP to a Unix socket too.
    let mut client = front.proxy.connect();
    client.send(request("").as_bytes());
    let mut server = End::new(upstream.accept().unwrap().0);
    server.head();
    server.send(switch("").as_bytes());
    assert_eq!(status(&client.head()), 101);
    client.send(b"there");
    server.expect(b"there");
    drop((client, server));
    front.proxy.stop();
    assert!(!here.exists(), "the socket is left behind");
}

/// Who has no address is nobody in a PROXY header.
#[test]
fn a_unix_client_is_nobody_to_servers() {
    for (version, expected) in
        [("v1", b"PROXY UNKNOWN\r\n".to_vec()), ("v2", [V2, b"\x20\0\0\0"].concat())]
    {
        let (front, upstream) = unix(TempDir::new(), &format!("proxy_protocol = \"{version}\"\n"));
        let mut client = UnixStream::connect(front.dir.join("here.sock")).unwrap();
        client.write_all(request("").as_bytes()).unwrap();
        let mut server = End::new(upstream.accept().unwrap().0);
        assert_eq!(server.take(expected.len()), expected);
        assert!(server.head().starts_with("GET /chat"));
    }
}
