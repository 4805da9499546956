//! Sessions with TLS on either side carry every byte, whatever their ends do.
#![cfg(target_os = "linux")]

mod support;

use std::{
    fs,
    io::{ErrorKind, Read as _, Write as _},
    net::{SocketAddr, TcpListener, TcpStream},
    path::Path,
    process::Command,
    sync::{Arc, OnceLock},
    thread,
    time::Duration,
};

use rustls::{
    ClientConfig, ClientConnection, RootCertStore, ServerConfig, ServerConnection, StreamOwned,
    crypto::{CryptoProvider, ring},
    pki_types::{PrivateKeyDer, ServerName},
};
use support::{BINARY, PATIENCE, Proxy, TempDir, request, status, switch, wait_for};

type Client = StreamOwned<ClientConnection, TcpStream>;
type Upstream = StreamOwned<ServerConnection, TcpStream>;

/// One certificate for all: for `localhost`, its own authority.
struct Identity {
    certificate: rcgen::Certificate,
    key: rcgen::KeyPair,
}

fn identity() -> &'static Identity {
    static IDENTITY: OnceLock<Identity> = OnceLock::new();
    IDENTITY.get_or_init(|| {
        let key = rcgen::KeyPair::generate().unwrap();
        let names = vec!["localhost".to_owned(), "127.0.0.1".to_owned()];
        let certificate = rcgen::CertificateParams::new(names).unwrap().self_signed(&key).unwrap();
        Identity { certificate, key }
    })
}

fn provider() -> Arc<CryptoProvider> {
    Arc::new(ring::default_provider())
}

fn client_config() -> Arc<ClientConfig> {
    let mut roots = RootCertStore::empty();
    roots.add(identity().certificate.der().clone()).unwrap();
    let config = ClientConfig::builder_with_provider(provider());
    let config = config.with_safe_default_protocol_versions().unwrap();
    Arc::new(config.with_root_certificates(roots).with_no_client_auth())
}

fn server_config() -> Arc<ServerConfig> {
    let Identity { certificate, key } = identity();
    let key = PrivateKeyDer::try_from(key.serialize_der()).unwrap();
    let config = ServerConfig::builder_with_provider(provider());
    let config = config.with_safe_default_protocol_versions().unwrap().with_no_client_auth();
    Arc::new(config.with_single_cert(vec![certificate.der().clone()], key).unwrap())
}

fn prepared(stream: &TcpStream) {
    stream.set_nonblocking(false).unwrap();
    stream.set_nodelay(true).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream.set_write_timeout(Some(PATIENCE)).unwrap();
}

/// A proxy with TLS on both sides, and the listener of its upstream.
struct Bench {
    proxy: Proxy,
    upstream: TcpListener,
    _dir: TempDir,
}

impl Bench {
    fn start(more: &str) -> Self {
        let dir = TempDir::new();
        let (certificate, key) = (dir.join("c.pem"), dir.join("k.pem"));
        fs::write(&certificate, identity().certificate.pem()).unwrap();
        fs::write(&key, identity().key.serialize_pem()).unwrap();
        let upstream = TcpListener::bind("127.0.0.1:0").unwrap();
        let text = text(&certificate, &key, upstream.local_addr().unwrap(), more);
        let proxy = Proxy::with_file(Command::new(BINARY), &text, "auto");
        upstream.set_nonblocking(true).unwrap();
        Self { proxy, upstream, _dir: dir }
    }

    fn connect(&self) -> Client {
        let stream = TcpStream::connect(self.proxy.address).unwrap();
        prepared(&stream);
        let name = ServerName::try_from("localhost").unwrap();
        StreamOwned::new(ClientConnection::new(client_config(), name).unwrap(), stream)
    }

    fn accept(&self) -> Upstream {
        let stream = wait_for("a connection to the upstream", || match self.upstream.accept() {
            Ok((stream, _)) => Some(stream),
            Err(error) if error.kind() == ErrorKind::WouldBlock => None,
            Err(error) => panic!("{error}"),
        });
        prepared(&stream);
        StreamOwned::new(ServerConnection::new(server_config()).unwrap(), stream)
    }

    /// A session, with bytes behind the request and the 101.
    fn session(&self) -> (Client, Upstream) {
        let mut client = self.connect();
        client.write_all(request("").as_bytes()).unwrap();
        client.write_all(b"early there").unwrap();
        let mut upstream = self.accept();
        let head = head(&mut upstream);
        assert!(head.contains("X-Forwarded-Proto: https\r\n"), "{head}");
        upstream.write_all(switch("").as_bytes()).unwrap();
        upstream.write_all(b"early back").unwrap();
        assert_eq!(status(&self::head(&mut client)), 101);
        expect(&mut client, b"early back");
        expect(&mut upstream, b"early there");
        (client, upstream)
    }

    fn nothing_left(&self) {
        self.proxy.wait_metric("wsproxy_sessions{datapath=\"relay\"}", |live| live == 0);
    }
}

fn text(certificate: &Path, key: &Path, upstream: SocketAddr, more: &str) -> String {
    let (certificate, key) = (certificate.display(), key.display());
    format!(
        "[listener]\naddress = \"127.0.0.1:0\"\n[listener.tls]\n\
         certificates = [{{ certificate = \"{certificate}\", key = \"{key}\" }}]\n\
         [upstream]\nservers = [\"wss://{upstream}\"]\n[upstream.tls]\nca = \"{certificate}\"\n\
         [admin]\naddress = \"127.0.0.1:0\"\n[log]\nformat = \"json\"\nlevel = \"debug\"\n{more}\n"
    )
}

fn head(stream: &mut impl std::io::Read) -> String {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        let mut byte = [0];
        assert_eq!(stream.read(&mut byte).unwrap(), 1, "the end in a head");
        head.push(byte[0]);
    }
    String::from_utf8(head).unwrap()
}

fn expect(stream: &mut impl std::io::Read, bytes: &[u8]) {
    let mut found = vec![0; bytes.len()];
    stream.read_exact(&mut found).unwrap();
    assert!(found == bytes, "{} bytes are not what was sent", bytes.len());
}

/// Bytes that differ from place to place.
fn pattern(length: usize, seed: u8) -> Vec<u8> {
    (0..length).map(|at| (at / 7) as u8 ^ (at >> 9) as u8 ^ seed).collect()
}

/// Reads to the end of the stream, with a close_notify or without.
fn rest(stream: &mut impl std::io::Read) -> Vec<u8> {
    let mut rest = Vec::new();
    match stream.read_to_end(&mut rest) {
        Ok(_) => {}
        Err(error) if error.kind() == ErrorKind::UnexpectedEof => {}
        Err(error) => panic!("{error}"),
    }
    rest
}

#[test]
fn bytes_arrive_as_they_were_sent() {
    let bench = Bench::start("");
    let (mut client, mut upstream) = bench.session();
    for (round, length) in
        [1, 2, 100, 4_096, 16_384, 16_385, 70_000, 300_000, 5_000_000].into_iter().enumerate()
    {
        let bytes = pattern(length, round as u8);
        let (there, back) = (bytes.clone(), bytes.clone());
        // Both directions at once; each end reads what the other one writes meanwhile.
        let upstream_half = thread::spawn(move || {
            expect(&mut upstream, &there);
            upstream.write_all(&back).unwrap();
            upstream
        });
        client.write_all(&bytes).unwrap();
        expect(&mut client, &bytes);
        upstream = upstream_half.join().unwrap();
    }
    for n in 0..500_u32 {
        let message = n.to_be_bytes();
        client.write_all(&message).unwrap();
        expect(&mut upstream, &message);
        upstream.write_all(&message).unwrap();
        expect(&mut client, &message);
    }
    drop((client, upstream));
    bench.nothing_left();
    let carried = "wsproxy_session_bytes_total{datapath=\"relay\",direction=\"to_client\"}";
    assert!(bench.proxy.metric(carried) > 5_000_000);
    bench.proxy.stop();
}

#[test]
fn a_reader_that_stops_stops_the_writer_and_loses_nothing() {
    let bench = Bench::start("");
    let (mut client, mut upstream) = bench.session();
    // More than all buffers on the way hold, and so it stops.
    const MOST: usize = 64 << 20;
    for (from_client, seed) in [(true, 1), (false, 2)] {
        let bytes = pattern(1 << 20, seed);
        let mut sent = 0;
        let stream = if from_client { &client.sock } else { &upstream.sock };
        stream.set_write_timeout(Some(Duration::from_millis(300))).unwrap();
        let stopped = loop {
            let written = if from_client {
                client.write(&bytes[sent % bytes.len()..])
            } else {
                upstream.write(&bytes[sent % bytes.len()..])
            };
            match written {
                Ok(n) => sent += n,
                Err(e) if matches!(e.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {
                    break true;
                }
                Err(e) => panic!("{e}"),
            }
            if sent > MOST {
                break false;
            }
        };
        assert!(stopped, "{sent} bytes were taken from who nobody reads");
        let stream = if from_client { &client.sock } else { &upstream.sock };
        stream.set_write_timeout(Some(PATIENCE)).unwrap();
        // What rustls holds goes out while the other end reads.
        let expected: Vec<u8> = bytes.iter().copied().cycle().take(sent).collect();
        if from_client {
            let reader = thread::spawn(move || {
                expect(&mut upstream, &expected);
                upstream
            });
            client.flush().unwrap();
            upstream = reader.join().unwrap();
        } else {
            let reader = thread::spawn(move || {
                expect(&mut client, &expected);
                client
            });
            upstream.flush().unwrap();
            client = reader.join().unwrap();
        }
    }
    drop((client, upstream));
    bench.nothing_left();
}

#[test]
fn one_direction_may_end_before_the_other() {
    let bench = Bench::start("");
    for client_first in [true, false] {
        let (mut client, mut upstream) = bench.session();
        let last = pattern(200_000, 9);
        if client_first {
            client.write_all(b"the last there").unwrap();
            client.conn.send_close_notify();
            client.flush().unwrap();
            assert_eq!(rest(&mut upstream), b"the last there");
            upstream.write_all(&last).unwrap();
            upstream.conn.send_close_notify();
            upstream.flush().unwrap();
            assert!(rest(&mut client) == last);
        } else {
            upstream.write_all(b"the last back").unwrap();
            upstream.conn.send_close_notify();
            upstream.flush().unwrap();
            assert_eq!(rest(&mut client), b"the last back");
            client.write_all(&last).unwrap();
            client.conn.send_close_notify();
            client.flush().unwrap();
            assert!(rest(&mut upstream) == last);
        }
        drop((client, upstream));
        bench.nothing_left();
    }
}

#[test]
fn a_stop_ends_sessions_in_order() {
    let bench = Bench::start("");
    let (mut client, mut upstream) = bench.session();
    client.write_all(b"on its way").unwrap();
    expect(&mut upstream, b"on its way");
    bench.proxy.terminate();
    let mut end = [0];
    // `Ok(0)` is a close_notify; an end without one would be an error here.
    assert_eq!(client.read(&mut end).unwrap(), 0);
    assert_eq!(upstream.read(&mut end).unwrap(), 0);
    drop((client, upstream));
    let mut proxy = bench.proxy;
    assert!(proxy.wait().success());
}

#[test]
fn many_sessions_at_once() {
    let bench = Bench::start("");
    let sessions: Vec<_> = (0..100).map(|_| bench.session()).collect();
    let running: Vec<_> = sessions
        .into_iter()
        .enumerate()
        .map(|(number, (mut client, mut upstream))| {
            thread::spawn(move || {
                let bytes = pattern(50_000, number as u8);
                for _ in 0..5 {
                    client.write_all(&bytes).unwrap();
                    expect(&mut upstream, &bytes);
                    upstream.write_all(&bytes).unwrap();
                    expect(&mut client, &bytes);
                }
            })
        })
        .collect();
    running.into_iter().for_each(|session| session.join().unwrap());
    bench.nothing_left();
    assert_eq!(bench.proxy.metric("wsproxy_tls_handshakes_total{result=\"ok\"}"), 100);
}
