//! TLS towards servers: whom we believe, and what we show.

use std::{io::ErrorKind, process::Command};

use rustls::version;

use crate::{
    support::{BINARY, Proxy, Server, TempDir, request, status, switch, wait_for},
    tls_support::{
        Accepted, Authority, BOTH, End, Identity, Versions, accepted, authority, local,
        server_config, shake_server, shown, text, write_authority,
    },
};

const GET: &[u8] = b"GET /page HTTP/1.1\r\nHost: example.com\r\nConnection: close\r\n\r\n";

struct Case {
    proxy: Proxy,
    server: Server,
    _dir: TempDir,
}

/// A program before a server that speaks TLS, with these keys in `[upstream.tls]`; in them `CA`
/// is the right authority's file, `PEM` and `KEY` are a client's.
fn start(host: &str, tls: &str, more: &str) -> Case {
    let dir = TempDir::new();
    let server = Server::start();
    let ca = shown(&write_authority(&dir, "ca.pem", authority()));
    let own = authority().issue(&["gateway"]).write(&dir, "own");
    let tls = tls.replace("CA", &ca).replace("PEM", &shown(&own.certificate));
    let tls = tls.replace("KEY", &shown(&own.key));
    let servers = format!("\"wss://{host}:{}\"", server.address.port());
    let more = format!("max_fails = 0\n[upstream.tls]\n{tls}\n{more}");
    let proxy = Proxy::with_file(Command::new(BINARY), &text("", &servers, &more), "relay");
    Case { proxy, server, _dir: dir }
}

impl Case {
    /// The server's end of the next connection, after its handshake.
    fn accept(
        &self,
        identity: &Identity,
        versions: Versions<'_>,
        clients: Option<&Authority>,
    ) -> std::io::Result<Accepted> {
        let peer = self.server.accept();
        let mut stream = accepted(peer, &server_config(versions, identity, clients));
        shake_server(&mut stream)?;
        Ok(stream)
    }

    /// A session; what the server saw of us: the name that was asked for, our certificate.
    fn works(
        &self,
        identity: &Identity,
        versions: Versions<'_>,
        clients: Option<&Authority>,
    ) -> Seen {
        let mut client = self.proxy.connect();
        client.send(request("").as_bytes());
        let stream = self.accept(identity, versions, clients).unwrap();
        let seen = Seen {
            name: stream.conn.server_name().map(str::to_owned),
            certificates: stream.conn.peer_certificates().map_or(0, <[_]>::len),
            alpn: stream.conn.alpn_protocol().map(<[_]>::to_vec),
        };
        let mut upstream = End::new(stream);
        upstream.head();
        upstream.send(switch("").as_bytes());
        assert_eq!(status(&client.head()), 101);
        client.send(b"there");
        upstream.expect(b"there");
        upstream.send(b"back");
        client.expect(b"back");
        client.finish();
        assert_eq!(upstream.rest(), b"");
        upstream.finish();
        assert_eq!(client.rest(), b"");
        seen
    }

    /// Handshakes and plain requests are answered 502, and the log says why.
    fn refuses(&self, identity: &Identity, clients: Option<&Authority>, why: &str) {
        for (request, message) in [
            (request("").as_bytes(), "no server took the handshake"),
            (GET, "no server answered a request"),
        ] {
            let mut client = self.proxy.connect();
            client.send(request);
            // Who is not believed, or does not believe us, hears of it at different times.
            let _either = self.accept(identity, BOTH, clients);
            let answer = client.rest_text();
            assert_eq!(status(&answer), 502, "{answer}");
            assert!(!answer.contains(why), "the client learns of our servers: {answer}");
            let said = wait_for(message, || self.proxy.logged(message));
            let error = said["error"].as_str().unwrap();
            assert!(error.contains(why), "{message}: {error}");
            assert_eq!(said["level"], "WARN", "{said}");
        }
        assert_eq!(self.proxy.failures("bad_gateway"), 1);
        assert_eq!(self.proxy.request_failures("bad_gateway"), 1);
    }
}

struct Seen {
    name: Option<String>,
    certificates: usize,
    alpn: Option<Vec<u8>>,
}

#[test]
fn a_server_whose_own_certificate_is_the_ca_is_used() {
    let dir = TempDir::new();
    let own = Identity::of_its_own(&["localhost", "127.0.0.1"]);
    let ca = format!("ca = \"{}\"", shown(&own.write(&dir, "own").certificate));
    for versions in [BOTH, &[&version::TLS12][..]] {
        let case = start("localhost", &ca, "");
        let seen = case.works(&own, versions, None);
        assert_eq!(seen.name.as_deref(), Some("localhost"));
    }
    // Another one, made in the same way for the same names, is nobody.
    let twin = Identity::of_its_own(&["localhost", "127.0.0.1"]);
    start("localhost", &ca, "").refuses(&twin, None, "CaUsedAsEndEntity");
}

#[test]
fn servers_whose_certificate_is_right_are_used() {
    let inner = authority().issue(&["inner.example"]);
    let self_signed = Authority::new("nobody").issue(&["nowhere.example"]);
    for (host, tls, identity, name) in [
        ("127.0.0.1", "ca = \"CA\"", local(), None),
        ("localhost", "ca = \"CA\"", local(), Some("localhost")),
        (
            "127.0.0.1",
            "ca = \"CA\"\nserver_name = \"inner.example\"",
            &inner,
            Some("inner.example"),
        ),
        ("127.0.0.1", "verify = false", &self_signed, None),
        ("localhost", "verify = false", &self_signed, Some("localhost")),
    ] {
        let case = start(host, tls, "");
        for versions in [BOTH, &[&version::TLS12], &[&version::TLS13]] {
            let seen = case.works(identity, versions, None);
            assert_eq!(seen.name.as_deref(), name, "{host} {tls}");
            assert_eq!(seen.certificates, 0);
            // A server that offers no protocol chooses none.
            assert_eq!(seen.alpn, None);
        }
    }
}

#[test]
fn servers_whose_certificate_is_wrong_are_not() {
    let stranger = Authority::new("a stranger").issue(&["localhost", "127.0.0.1"]);
    let elsewhere = authority().issue(&["elsewhere.example"]);
    for (host, tls, identity, why) in [
        ("127.0.0.1", "ca = \"CA\"", &stranger, "UnknownIssuer"),
        ("localhost", "ca = \"CA\"", &elsewhere, "not valid for name"),
        ("127.0.0.1", "ca = \"CA\"", &elsewhere, "not valid for name"),
        ("127.0.0.1", "ca = \"CA\"\nserver_name = \"other\"", local(), "not valid for name"),
    ] {
        start(host, tls, "").refuses(identity, None, why);
    }
}

#[test]
fn our_certificate_is_shown_to_servers_that_ask() {
    let with = "ca = \"CA\"\ncertificate = \"PEM\"\nkey = \"KEY\"";
    let case = start("127.0.0.1", with, "");
    for versions in [&[&version::TLS12][..], &[&version::TLS13]] {
        assert_eq!(case.works(local(), versions, Some(authority())).certificates, 1);
    }
    // Not to who does not ask.
    assert_eq!(case.works(local(), BOTH, None).certificates, 0);
    let without = start("127.0.0.1", "ca = \"CA\"", "");
    without.refuses(local(), Some(authority()), "CertificateRequired");
}

#[test]
fn servers_that_do_not_speak_tls() {
    let case = start("127.0.0.1", "ca = \"CA\"", "[timeouts]\nupstream_connect = \"500ms\"\n");
    let mut client = case.proxy.connect();
    client.send(request("").as_bytes());
    let mut upstream = case.server.accept();
    upstream.send(b"HTTP/1.1 400 Bad Request\r\n\r\n");
    assert_eq!(status(&client.rest_text()), 502);
    let mut client = case.proxy.connect();
    client.send(request("").as_bytes());
    let _silent = case.server.accept();
    assert_eq!(status(&client.rest_text()), 504);
    let mut client = case.proxy.connect();
    client.send(request("").as_bytes());
    drop(case.server.accept());
    assert_eq!(status(&client.rest_text()), 502);
    // And it goes on with one that does.
    case.works(local(), BOTH, None);
}

#[test]
fn plain_requests_share_a_connection() {
    // Each worker has connections of its own.
    let case = start("127.0.0.1", "ca = \"CA\"", "[datapath]\nworkers = 1");
    let mut upstream = None;
    for round in 0..3 {
        let mut client = case.proxy.connect();
        client.send(GET);
        let upstream: &mut End =
            upstream.get_or_insert_with(|| End::new(case.accept(local(), BOTH, None).unwrap()));
        let head = upstream.head();
        assert!(head.starts_with("GET /page HTTP/1.1\r\n"), "{head}");
        upstream.send(format!("HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\n{round}").as_bytes());
        let answer = client.rest_text();
        assert_eq!(status(&answer), 200);
        assert!(answer.ends_with(&format!("\r\n\r\n{round}")), "{answer}");
    }
    assert!(case.server.try_accept().is_none());
}

/// An answer without a length ends with a close_notify; a FIN alone may have been put there by
/// somebody in between.
#[test]
fn an_answer_that_is_cut_off_is_not_whole() {
    let case = start("127.0.0.1", "ca = \"CA\"", "");
    for orderly in [true, false] {
        let mut client = case.proxy.connect();
        client.send(GET);
        let mut upstream = case.accept(local(), BOTH, None).map(End::new).unwrap();
        upstream.head();
        upstream.send(b"HTTP/1.1 200 OK\r\n\r\nhalf of it");
        if orderly {
            upstream.finish();
        }
        upstream.link.socket().shutdown(std::net::Shutdown::Write).unwrap();
        let mut answer = Vec::new();
        let end = std::io::Read::read_to_end(&mut client.stream, &mut answer);
        let answer = String::from_utf8(answer).unwrap();
        let whole = match end {
            // Cut off before the gateway had passed anything on: no answer at all.
            Ok(_) if answer.is_empty() => false,
            Ok(_) => answer.ends_with("\r\n0\r\n\r\n") || !answer.contains("chunked"),
            Err(error) => {
                assert_eq!(error.kind(), ErrorKind::ConnectionReset);
                false
            }
        };
        assert_eq!(whole, orderly, "{answer}");
    }
}
