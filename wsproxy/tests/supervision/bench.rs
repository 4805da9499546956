//! A program on one of its datapaths, and sessions of it with real frames.

use std::{
    net::TcpStream,
    process::{Command, Output},
    sync::Arc,
    thread,
};

use rustls::ServerConfig;
use serde_json::Value;

use crate::{
    support::{
        BINARY, Proxy, Server, TempDir, complaint, request, run, sockmap_with, status, switch,
        wait_for,
        ws::{FROM_CLIENT, FROM_SERVER, Frames as _, TEXT, frame},
    },
    tls_support::{
        BOTH, End, accepted, authority, client_config, listener_tls, local, secure, server_config,
        shown, write_authority,
    },
};

/// What carries the bytes of sessions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Carrier {
    Relay,
    /// BPF, from the first byte. Tests of it need root; what is missing is said loudly.
    Kernel,
    /// The relay, with TLS on both sides.
    Tls,
}

impl Carrier {
    /// All of them, that with TLS last.
    pub const ALL: [Self; 3] = [Self::Relay, Self::Kernel, Self::Tls];
}

/// Runs a test on each of them at the same time: much of it is waiting. The name of a thread that
/// panics says which one it was.
pub fn on_each(carriers: &[Carrier], test: fn(Carrier)) {
    let threads = carriers.iter().map(|&carrier| {
        let thread = thread::Builder::new().name(format!("{carrier:?}"));
        (carrier, thread.spawn(move || test(carrier)).unwrap())
    });
    let threads: Vec<_> = threads.collect();
    let ended = threads.into_iter().map(|(carrier, thread)| (carrier, thread.join().is_ok()));
    let failed: Vec<_> = ended.filter(|(_, good)| !good).map(|(carrier, _)| carrier).collect();
    assert!(failed.is_empty(), "it failed on {failed:?}");
}

pub struct Bench {
    pub proxy: Proxy,
    pub server: Server,
    carrier: Carrier,
    tls: Arc<ServerConfig>,
    pub dir: TempDir,
}

/// Both ends of a session.
pub struct Ends {
    pub client: End,
    pub server: End,
}

impl Bench {
    /// `upstream` has keys of `[upstream]`, `more` other tables. `None`: there is no kernel path.
    pub fn start(carrier: Carrier, upstream: &str, more: &str) -> Option<Self> {
        let server = Server::start();
        let dir = TempDir::new();
        let text = config(carrier, &server, &dir, upstream, more);
        let proxy = match carrier {
            Carrier::Kernel => sockmap_with(&text)?,
            Carrier::Relay | Carrier::Tls => Proxy::with_file(Command::new(BINARY), &text, "relay"),
        };
        let tls = server_config(BOTH, local(), None);
        Some(Self { proxy, server, carrier, tls, dir })
    }

    /// A client's connection.
    pub fn client(&self) -> End {
        let stream = TcpStream::connect(self.proxy.address).unwrap();
        stream.set_nodelay(true).unwrap();
        match self.carrier {
            Carrier::Tls => End::new(secure(stream, client_config(BOTH, None), "localhost")),
            _ => End::new(stream),
        }
    }

    /// The server's end of the next connection.
    pub fn upstream(&self) -> End {
        let peer = self.server.accept();
        match self.carrier {
            Carrier::Tls => End::new(accepted(peer, &self.tls)),
            _ => End::new(peer.stream),
        }
    }

    /// A session in which nothing has been said.
    pub fn session(&self) -> Ends {
        self.session_at("/chat", "")
    }

    /// The same at a path, both of whose heads have `more` lines.
    pub fn session_at(&self, path: &str, more: &str) -> Ends {
        let begun = self.begun();
        let mut client = self.client();
        client.send(request(more).replace("/chat?a=b", path).as_bytes());
        let mut server = self.upstream();
        server.head();
        server.send(switch(more).as_bytes());
        assert_eq!(status(&client.head()), 101);
        // The client may have its 101 a moment before the datapath has the session.
        wait_for("the session runs where it is to run", || (self.begun() > begun).then_some(()));
        Ends { client, server }
    }

    /// Sessions that were carried as they are to be.
    fn begun(&self) -> u64 {
        self.proxy.metric(match self.carrier {
            Carrier::Kernel => "wsproxy_sessions_entered_kernel_total",
            Carrier::Relay | Carrier::Tls => "wsproxy_sessions_total",
        })
    }

    /// Sessions that ended so.
    pub fn ends(&self, ending: &str, count: u64) {
        let series = format!("wsproxy_session_ends_total{{ending=\"{ending}\"}}");
        self.proxy.wait_metric(&series, |ended| ended == count);
    }

    /// The lines of the sessions that have ended, once there are so many.
    pub fn lines(&self, count: usize) -> Vec<Value> {
        wait_for("a line of each session", || {
            let lines = self.proxy.all_logged("session ended");
            (lines.len() == count).then_some(lines)
        })
    }

    /// Asks the admin socket, by a command of the program.
    pub fn ask(&self, args: &[&str]) -> Output {
        let socket = self.dir.join("admin.sock");
        run(args.iter().chain(&["--socket", socket.to_str().unwrap()]))
    }

    /// An order that is carried out.
    pub fn order(&self, args: &[&str]) {
        let output = self.ask(args);
        assert!(output.status.success(), "{args:?}: {output:?}");
    }

    /// What `wsproxy sessions` knows of the running ones.
    pub fn sessions(&self) -> Vec<Value> {
        let output = self.ask(&["sessions", "--json"]);
        assert!(output.status.success(), "{}", complaint(&output));
        let answer: Value = serde_json::from_slice(&output.stdout).unwrap();
        answer["sessions"].as_array().unwrap().clone()
    }
}

fn config(carrier: Carrier, server: &Server, dir: &TempDir, upstream: &str, more: &str) -> String {
    let (listener, scheme, ca) = if carrier == Carrier::Tls {
        let files = local().write(dir, "local");
        let ca = shown(&write_authority(dir, "ca.pem", authority()));
        let ca = format!("[upstream.tls]\nca = \"{ca}\"\n");
        (listener_tls(&[&files], ""), "wss", ca)
    } else {
        (String::new(), "ws", String::new())
    };
    format!(
        "[log]\nformat = \"json\"\nlevel = \"debug\"\n\
         [admin]\naddress = \"127.0.0.1:0\"\nsocket = \"{}\"\n\
         [listener]\naddress = \"127.0.0.1:0\"\n{listener}\n\
         [upstream]\nservers = [\"{scheme}://{}\"]\n{upstream}\n{ca}\
         [datapath]\nsettle = \"off\"\n[limits]\nmax_sessions = 64\n{more}\n",
        dir.join("admin.sock").display(),
        server.address,
    )
}

impl Ends {
    /// Messages both ways.
    pub fn greet(&mut self) {
        for _ in 0..2 {
            self.client.send(&frame(TEXT, FROM_CLIENT, b"hello"));
            self.server.expect_frame(TEXT, FROM_CLIENT, b"hello");
            self.server.send(&frame(TEXT, FROM_SERVER, b"welcome"));
            self.client.expect_frame(TEXT, FROM_SERVER, b"welcome");
        }
    }
}
