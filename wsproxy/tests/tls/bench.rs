//! A program with TLS on one side or on both, and the two ends of its sessions.

use std::{fs, net::TcpStream, process::Command, sync::Arc, thread};

use rustls::{ServerConfig, version};

use crate::{
    support::{BINARY, Proxy, Server, TempDir, request, status, switch},
    tls_support::{
        End, Versions, accepted, authority, client_config, listener_tls, local, secure,
        server_config, shown, text, write_authority,
    },
};

/// Which side speaks TLS, and which versions of it.
#[derive(Clone, Copy, Debug)]
pub struct Variant {
    pub front: bool,
    pub back: bool,
    pub versions: Versions<'static>,
}

const TLS13: Versions<'static> = &[&version::TLS13];
const TLS12: Versions<'static> = &[&version::TLS12];

pub const VARIANTS: [Variant; 4] = [
    Variant { front: true, back: false, versions: TLS13 },
    Variant { front: false, back: true, versions: TLS13 },
    Variant { front: true, back: true, versions: TLS12 },
    Variant { front: true, back: true, versions: TLS13 },
];

/// Runs a test with each of them at the same time: for one that is mostly waiting.
pub fn at_once(test: impl Fn(Variant) + Sync) {
    thread::scope(|scope| {
        for variant in VARIANTS {
            let thread = thread::Builder::new().name(format!("{variant:?}"));
            let test = &test;
            thread.spawn_scoped(scope, move || test(variant)).unwrap();
        }
    });
}

pub struct Bench {
    pub proxy: Proxy,
    pub server: Server,
    variant: Variant,
    config: Arc<ServerConfig>,
    _dir: TempDir,
}

impl Bench {
    /// `more` is the rest of the configuration, which begins inside of `[upstream]`.
    pub fn start(variant: Variant, more: &str) -> Self {
        let dir = TempDir::new();
        let files = local().write(&dir, "local");
        let ca = shown(&write_authority(&dir, "ca.pem", authority()));
        let server = Server::start();
        let listener = if variant.front { listener_tls(&[&files], "") } else { String::new() };
        let scheme = if variant.back { "wss" } else { "ws" };
        let servers = format!("\"{scheme}://{}\"", server.address);
        let more = format!("{more}\n[upstream.tls]\nca = \"{ca}\"\n");
        let text = text(&listener, &servers, &more);
        // `auto`: sessions with TLS are relayed also where the kernel path is there.
        let proxy = Proxy::with_file(Command::new(BINARY), &text, "auto");
        let config = server_config(variant.versions, local(), None);
        Self { proxy, server, variant, config, _dir: dir }
    }

    pub fn client(&self) -> End {
        let stream = TcpStream::connect(self.proxy.address).unwrap();
        stream.set_nodelay(true).unwrap();
        if !self.variant.front {
            return End::new(stream);
        }
        End::new(secure(stream, client_config(self.variant.versions, None), "localhost"))
    }

    pub fn upstream(&self) -> End {
        let peer = self.server.accept();
        if self.variant.back {
            End::new(accepted(peer, &self.config))
        } else {
            End::new(peer.stream)
        }
    }

    /// A session with bytes right behind the request and right behind the 101.
    pub fn session_with(&self, there: &[u8], back: &[u8]) -> (End, End) {
        let mut client = self.client();
        client.send(&[request("").as_bytes(), there].concat());
        let mut upstream = self.upstream();
        upstream.head();
        upstream.send(&[switch("").as_bytes(), back].concat());
        assert_eq!(status(&client.head()), 101);
        (client, upstream)
    }

    pub fn session(&self) -> (End, End) {
        self.session_with(b"", b"")
    }

    /// The series of relayed sessions is at `count`; none is anywhere else.
    pub fn running(&self, count: u64) {
        self.proxy.wait_metric("wsproxy_sessions{datapath=\"relay\"}", |live| live == count);
        assert_eq!(self.proxy.metric("wsproxy_sessions{datapath=\"sockmap\"}"), 0);
    }

    pub fn ends(&self, ending: &str, count: u64) {
        let series = format!("wsproxy_session_ends_total{{ending=\"{ending}\"}}");
        self.proxy.wait_metric(&series, |ended| ended == count);
    }

    pub fn descriptors(&self) -> usize {
        // Our own question for metrics is over, but its connection may not be.
        fs::read_dir(format!("/proc/{}/fd", self.proxy.pid())).unwrap().count()
    }
}
