//! The gateway between two servers that write everything down.

use std::{fs, net::SocketAddr, process::Command};

use serde_json::Value;

use super::{
    record::{Reading, Recorder, Reply, Seen, all, answers, exchange},
    support::{BINARY, KEY, Proxy, TempDir},
};

/// Stands in tables for what can't be said of a case in advance: its request may begin at the
/// server, and must not become whole there.
pub const BROKEN: &[u16] = &[];

/// A gateway between two servers, and all that must have come through it.
pub struct Round {
    proxy: Proxy,
    dir: TempDir,
    servers: [Recorder; 2],
    /// Request lines by server.
    expected: [Vec<String>; 2],
    /// Beginnings of requests that may be at a server by half.
    broken: Vec<String>,
    cases: usize,
    /// Cases that went wrong.
    wrong: Vec<String>,
}

/// The hosts of the two servers.
pub const HOSTS: [&str; 2] = ["strict.example", "lax.example"];

/// Refuses handshakes; its other answers name the request.
fn plain_answer(seen: &Seen, close: bool) -> Reply {
    let (status, body) = match seen.header("upgrade").is_empty() {
        true => ("200 OK", seen.line()),
        false => ("403 Forbidden", "no".to_owned()),
    };
    let connection = if close { "Connection: close\r\n" } else { "" };
    let length = body.len();
    let head = format!("HTTP/1.1 {status}\r\nContent-Length: {length}\r\n{connection}\r\n");
    Reply { bytes: [head, body].concat().into_bytes(), close }
}

/// The configuration: a route for each of `HOSTS`, and `more`.
fn config(servers: [SocketAddr; 2], dir: &TempDir, more: &str) -> String {
    let mut text = String::from(
        "[listener]\naddress = \"127.0.0.1:0\"\n[admin]\naddress = \"127.0.0.1:0\"\n\
         [log]\nformat = \"json\"\nlevel = \"debug\"\n",
    );
    for (host, server) in HOSTS.iter().zip(servers) {
        text += &format!("[[upstream]]\nname = \"{host}\"\nservers = [\"{server}\"]\n");
        text += &format!("[[route]]\nhosts = [\"{host}\"]\nupstream = \"{host}\"\n");
        // Routes of that host, below its first one.
        text += &more.replace("{host}", host);
    }
    let path = dir.join("access.log");
    text + &format!("[access_log]\nformat = \"json\"\npath = \"{}\"\n", path.display())
}

impl Round {
    pub fn new(more: &str) -> Self {
        let servers = [
            Recorder::start(Reading::Strict, |seen| plain_answer(seen, false)),
            Recorder::start(Reading::Lax, |seen| plain_answer(seen, true)),
        ];
        let dir = TempDir::new();
        let text = config([servers[0].address, servers[1].address], &dir, more);
        let proxy = Proxy::with_file(Command::new(BINARY), &text, "relay");
        Self {
            proxy,
            dir,
            servers,
            expected: [vec![], vec![]],
            broken: vec![],
            cases: 0,
            wrong: vec![],
        }
    }

    /// Sends `text` and says what must come of it: the statuses of the answers, and the request
    /// lines at the server of this host. In the text `|` is CR LF, `{h}` the host, `{n}` the
    /// number of the case.
    pub fn case(&mut self, host: usize, text: &str, statuses: &[u16], lines: &[&str]) {
        self.cases += 1;
        let number = self.cases.to_string();
        let fill = |text: &str| {
            let text = text.replace("{post}", POST).replace("{get}", GET).replace("{ws}", WS);
            let text = text.replace("{evil}", EVIL).replace('|', "\r\n").replace("{key}", KEY);
            text.replace("{h}", HOSTS[host]).replace("{n}", &number)
        };
        let sent = fill(text);
        let (got, cut) = answers(&exchange(self.proxy.address, sent.as_bytes()));
        let found: Vec<u16> = got.iter().map(|(status, _)| *status).collect();
        let lines: Vec<String> = lines.iter().map(|line| fill(line)).collect();
        if statuses == BROKEN {
            if !(found.is_empty() || found[0] >= 400 && found.len() == 1) {
                self.wrong.push(format!("{sent:?}: {got:?}, not a refusal or nothing"));
            }
            self.broken.push(format!("POST /{number} "));
            return;
        }
        if found != statuses || cut.is_some() {
            self.wrong.push(format!("{sent:?}: {got:?}, not {statuses:?}"));
        }
        // Each answer is the one to its own request.
        let good: Vec<_> = got.iter().filter(|(s, _)| *s == 200).map(|(_, body)| body).collect();
        let plain: Vec<_> = lines.iter().take(good.len()).collect();
        if good != plain {
            self.wrong.push(format!("{sent:?}: answers to {good:?}, not to {plain:?}"));
        }
        self.expected[host].extend(lines);
    }

    pub fn address(&self) -> SocketAddr {
        self.proxy.address
    }

    /// A request that was sent beside the cases.
    pub fn expect(&mut self, host: usize, line: &str) {
        self.expected[host].push(line.to_owned());
    }

    /// Ends the gateway, and compares: what was expected, what the servers got in both readings,
    /// what the gateway logged. Returns what the servers saw.
    pub fn finish(self) -> Vec<Seen> {
        let Self { proxy, dir, servers, mut expected, broken, wrong, .. } = self;
        let addresses = [servers[0].address, servers[1].address].map(|a| a.to_string());
        proxy.stop();
        let log = fs::read_to_string(dir.join("access.log")).unwrap();
        let log: Vec<Value> = log.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        assert!(wrong.is_empty(), "{}", wrong.join("\n"));
        let mut found = Vec::new();
        for (at, server) in servers.into_iter().enumerate() {
            let (mut strict, mut lax) = (Vec::new(), Vec::new());
            for bytes in server.finish() {
                let (seen, rest) = all(&bytes, Reading::Strict);
                lax.extend(all(&bytes, Reading::Lax).0.iter().map(Seen::line));
                strict.extend(seen.iter().map(Seen::line));
                found.extend(seen);
                let known = broken.iter().any(|start| rest.starts_with(start.as_bytes()));
                assert!(rest.is_empty() || known, "no request: {}", rest.escape_ascii());
            }
            let of_server = log.iter().filter(|line| line["upstream"] == addresses[at]);
            let logged = of_server.map(|line| {
                let text = |name: &str| line[name].as_str().unwrap().to_owned();
                [text("method"), text("target")].join(" ")
            });
            let is_broken = |line: &String| broken.iter().any(|b| *b == format!("{line} "));
            let mut logged: Vec<_> = logged.filter(|line| !is_broken(line)).collect();
            for list in [&mut strict, &mut lax, &mut logged, &mut expected[at]] {
                list.sort();
            }
            assert_eq!(strict, expected[at], "what {} got", HOSTS[at]);
            assert_eq!(lax, expected[at], "what {} got, read by a lax server", HOSTS[at]);
            assert_eq!(logged, expected[at], "what was logged of {}", HOSTS[at]);
        }
        found
    }
}

const POST: &str = "POST /{n} HTTP/1.1|Host: {h}|";
const GET: &str = "GET /{n} HTTP/1.1|Host: {h}|";
/// What is to become a request of its own, or not.
const EVIL: &str = "GET /evil{n} HTTP/1.1|Host: {h}||";
pub const WS: &str = "GET /{n} HTTP/1.1|Host: {h}|Upgrade: websocket|Connection: Upgrade|\
                  Sec-WebSocket-Key: {key}|Sec-WebSocket-Version: 13|";
