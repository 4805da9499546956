//! A program whose configuration can be changed, in front of a server without TLS.

use std::{
    fs,
    io::{self, Read as _, Write as _},
    process::Command,
};

use rustix::process::{Pid, Signal, kill_process};
use rustls::{AlertDescription, ClientConfig};

use crate::{
    support::{BINARY, Proxy, Server, TempDir, request, status, switch},
    tls_support::{Client, End, secure, shake, text},
};

pub struct Front {
    pub dir: TempDir,
    pub proxy: Proxy,
    pub server: Server,
    pub reloads: u64,
}

impl Front {
    /// `listener` stands behind the address of the listener, `more` behind the servers.
    pub fn start(dir: TempDir, listener: &str, more: &str) -> Self {
        let server = Server::start();
        let file = dir.join("wsproxy.toml");
        fs::write(&file, text(listener, &format!("\"{}\"", server.address), more)).unwrap();
        let mut command = Command::new(BINARY);
        command.args(["run", "--datapath", "relay", "--config"]).arg(&file);
        let proxy = Proxy::spawn(command).unwrap_or_else(|log| panic!("no start:\n{log}"));
        Self { dir, proxy, server, reloads: 0 }
    }

    /// Takes another configuration by SIGHUP.
    pub fn reload(&mut self, listener: &str, more: &str) {
        let text = text(listener, &format!("\"{}\"", self.server.address), more);
        fs::write(self.dir.join("wsproxy.toml"), text).unwrap();
        let pid = Pid::from_raw(self.proxy.pid() as i32).unwrap();
        kill_process(pid, Signal::HUP).unwrap();
        self.reloads += 1;
        let reloads = self.reloads;
        self.proxy.wait_metric("wsproxy_reloads_total{result=\"ok\"}", |count| count == reloads);
    }

    /// A client before its handshake.
    pub fn client(&self, config: &ClientConfig, name: &str) -> Client {
        secure(self.proxy.connect().stream, config.clone(), name)
    }

    /// A client after its handshake.
    pub fn shaken(&self, config: &ClientConfig, name: &str) -> Client {
        let mut client = self.client(config, name);
        shake(&mut client).unwrap();
        client
    }

    /// Opens a session on a client's connection; also what the server was asked.
    pub fn open(&self, client: &mut Client) -> (End, String) {
        open(client, &self.server)
    }

    /// What a client is told that must not be let in, although it does not wait with its request,
    /// as browsers do not.
    pub fn refusal(&self, config: &ClientConfig) -> AlertDescription {
        let mut client = self.client(config, "localhost");
        let asked = shake(&mut client).and_then(|()| client.write_all(request("").as_bytes()));
        let error = asked.and_then(|()| client.read(&mut [0]));
        alert(&error.expect_err("it was let in"))
    }

    /// TLS handshakes with this result.
    pub fn shakes(&self, result: &str, count: u64) {
        let series = format!("wsproxy_tls_handshakes_total{{result=\"{result}\"}}");
        self.proxy.wait_metric(&series, |seen| seen == count);
    }
}

/// Opens a session on a client's connection; the server's end, and what it was asked.
pub fn open(client: &mut Client, server: &Server) -> (End, String) {
    client.write_all(request("").as_bytes()).unwrap();
    let mut upstream = End::new(server.accept().stream);
    let asked = upstream.head();
    upstream.send(switch("").as_bytes());
    assert_eq!(status(&head_of(client)), 101);
    (upstream, asked)
}

/// A few bytes there and back.
pub fn carries(client: &mut Client, upstream: &mut End) {
    client.write_all(b"there").unwrap();
    upstream.expect(b"there");
    upstream.send(b"back");
    let mut found = [0; 4];
    client.read_exact(&mut found).unwrap();
    assert_eq!(&found, b"back");
}

/// The next head, and not a byte more.
pub fn head_of(stream: &mut impl io::Read) -> String {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        let mut byte = [0];
        stream.read_exact(&mut byte).unwrap();
        head.push(byte[0]);
    }
    String::from_utf8(head).unwrap()
}

/// The alert behind an error of a stream.
pub fn alert(error: &io::Error) -> AlertDescription {
    let inner = error.get_ref().and_then(|inner| inner.downcast_ref::<rustls::Error>());
    match inner {
        Some(rustls::Error::AlertReceived(alert)) => *alert,
        _ => panic!("no alert: {error:?}"),
    }
}
