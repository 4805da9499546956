//! WebSocket programs that this project did not write, through `wsproxy`, on each datapath.
//!
//! Needs `WSPROXY_BIN` (the binary) and `WSPROXY_PEERS` (the folder with the venv and
//! `node_modules`, see `peers/README.md`); the kernel's datapath also `WSPROXY_KERNEL=1`.
//! What is missing skips a test loudly, and fails it in CI.

use std::fs::{self, File};
use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::thread::sleep;
use std::time::{Duration, Instant};
use std::{env, io, process};

#[path = "peers/gateway.rs"]
mod gateway;
#[path = "peers/supervised.rs"]
mod supervised;

const START_LIMIT: Duration = Duration::from_secs(15);
/// The slowest client took 2.4 s and Autobahn 11 s on two idle cores.
const CLIENT_LIMIT: Duration = Duration::from_secs(240);
/// Counters may be gathered a moment after the sessions they count.
const METRICS_LIMIT: Duration = Duration::from_secs(5);
/// Both sides of a session are pinged, often. Who answers late on a busy machine is not dead.
const PINGS: &str = "[ping]\ninterval = \"50ms\"\ntimeout = \"60s\"\nupstream = true\n";
/// Cases that pause for a second inside a frame: kosoku answers a Ping just there, which RFC 6455
/// section 5.4 forbids, and so spoils its own frame.
const ANSWERS_INSIDE_A_FRAME: [&str; 2] = ["6.4.3", "6.4.4"];

#[derive(Clone, Copy, PartialEq)]
enum Datapath {
    Relay,
    Sockmap,
}

impl Datapath {
    fn name(self) -> &'static str {
        match self {
            Datapath::Relay => "relay",
            Datapath::Sockmap => "sockmap",
        }
    }
}

#[derive(Clone, Copy)]
enum Peer {
    Python,
    Node,
}

#[test]
fn relay_python_client_python_server() {
    through_proxy(Datapath::Relay, Peer::Python, Peer::Python);
}
#[test]
fn relay_python_client_node_server() {
    through_proxy(Datapath::Relay, Peer::Python, Peer::Node);
}
#[test]
fn relay_node_client_python_server() {
    through_proxy(Datapath::Relay, Peer::Node, Peer::Python);
}
#[test]
fn relay_node_client_node_server() {
    through_proxy(Datapath::Relay, Peer::Node, Peer::Node);
}
#[test]
fn sockmap_python_client_python_server() {
    through_proxy(Datapath::Sockmap, Peer::Python, Peer::Python);
}
#[test]
fn sockmap_python_client_node_server() {
    through_proxy(Datapath::Sockmap, Peer::Python, Peer::Node);
}
#[test]
fn sockmap_node_client_python_server() {
    through_proxy(Datapath::Sockmap, Peer::Node, Peer::Python);
}
#[test]
fn sockmap_node_client_node_server() {
    through_proxy(Datapath::Sockmap, Peer::Node, Peer::Node);
}
#[test]
fn relay_autobahn_equals_direct() {
    autobahn_equals_direct(Datapath::Relay, false);
}
#[test]
fn sockmap_autobahn_equals_direct() {
    autobahn_equals_direct(Datapath::Sockmap, false);
}

#[test]
fn relay_chromium_on_the_demo_page() {
    chromium_on_the_demo_page(Datapath::Relay, "relay");
}
#[test]
fn sockmap_chromium_on_the_demo_page() {
    chromium_on_the_demo_page(Datapath::Sockmap, "kernel");
}

/// A browser opens the embedded page, talks through the embedded server, and the page names
/// what carries its session.
fn chromium_on_the_demo_page(datapath: Datapath, path: &str) {
    let Some(bench) = Bench::new(datapath) else {
        return;
    };
    let proxy = Proxy::start(&bench, datapath, None);
    let before = proxy.metrics();
    let screenshot = bench.logs.join("demo.png");
    let mut command = bench.script(Peer::Node, "", "chromium.js");
    let page = format!("http://{}/", proxy.listen);
    command.args(["--url", &page, "--path", path, "--screenshot"]).arg(&screenshot);
    let printed = bench.finish(&mut command);
    let summary: serde_json::Value = serde_json::from_str(&printed).expect("JSON");
    assert!(summary["ok"] == true && summary["path"] == path, "{printed}");
    assert!(fs::metadata(&screenshot).is_ok_and(|m| m.len() > 1000), "no screenshot");
    proxy.assert_carried(datapath, &before, 1.0);
}

fn through_proxy(datapath: Datapath, client: Peer, server: Peer) {
    let Some(bench) = Bench::new(datapath) else {
        return;
    };
    let (_server, upstream) = bench.server(server);
    let proxy = Proxy::start(&bench, datapath, Some(upstream));
    let before = proxy.metrics();

    let mut command = bench.script(client, "py_client.py", "ws_client.js");
    let printed = bench.finish(command.args(["--url", &url(proxy.listen)]));
    let summary: serde_json::Value = serde_json::from_str(&printed).expect("a client prints JSON");
    let sessions = summary["sessions"].as_f64().expect("a number of sessions");
    assert!(summary["ok"] == true && sessions > 0.0, "{printed}");

    proxy.assert_carried(datapath, &before, sessions);
}

/// With `pinged`, both sides of every session are pinged meanwhile: to a case, which counts what
/// comes, the Pings are not shown, and nothing else is to be different.
fn autobahn_equals_direct(datapath: Datapath, pinged: bool) {
    let Some(mut bench) = Bench::new(datapath) else {
        return;
    };
    // ws, not websockets: it passes every case (websockets fails 7.1.5, 9.3.1 and others).
    let (_server, upstream) = bench.server(Peer::Node);
    let pings = if pinged { PINGS } else { "" };
    let proxy = Proxy::start_with(&bench, datapath, Some(upstream), pings);
    let before = proxy.metrics();
    let report = |name: &str, address| {
        let path = bench.logs.join(name);
        let mut command = bench.python("autobahn.py");
        command.arg(url(address)).arg(&path);
        let printed = bench.finish(command.args(pinged.then_some("--pinged")));
        let summary: serde_json::Value = serde_json::from_str(&printed).expect("JSON");
        (path, ["cases", "pings"].map(|key| summary[key].as_f64().expect("a number")))
    };
    let (proxied, [cases, pings]) = report("proxied.json", proxy.listen);
    // Once a process: runners with a process a test make it for each.
    let direct = bench.logs.join("direct.json");
    let made = match &*bench.turn {
        Some(made) => made.clone(),
        None => fs::read_to_string(report("direct.json", upstream).0).unwrap(),
    };
    fs::write(&direct, &made).unwrap();
    let mut compare = bench.python("compare.py");
    compare.args([&direct, &proxied]);
    bench.finish(compare.args(if pinged { &ANSWERS_INSIDE_A_FRAME[..] } else { &[] }));
    proxy.assert_carried(datapath, &before, cases);
    let sent = |side| total(&proxy.metrics(), "wsproxy_pings_total", &[side]);
    let (clients, upstreams) = (sent("client"), sent("upstream"));
    // A case may leave before it has read a Ping.
    assert!(pings <= clients, "{pings} Pings came, {clients} were sent");
    assert_eq!([pings, clients, upstreams].map(|pings| pings > 0.0), [pinged; 3]);
    *bench.turn = Some(made);
}

/// What every test needs, and its turn: the machine has two cores and the peers use them.
struct Bench {
    wsproxy: PathBuf,
    peers: PathBuf,
    scripts: PathBuf,
    /// Outputs of what this test starts; kept when it fails.
    logs: PathBuf,
    turn: MutexGuard<'static, Option<String>>,
}

/// Whose turn it is; inside, Autobahn's direct report once a test has made it.
static TURN: Mutex<Option<String>> = Mutex::new(None);
static STARTED: AtomicUsize = AtomicUsize::new(0);

impl Bench {
    fn new(datapath: Datapath) -> Option<Bench> {
        let (Some(wsproxy), Some(peers)) =
            (env::var_os("WSPROXY_BIN"), env::var_os("WSPROXY_PEERS"))
        else {
            return skip("WSPROXY_BIN or WSPROXY_PEERS is not set");
        };
        let kernel = env::var("WSPROXY_KERNEL").is_ok_and(|v| v == "1");
        if datapath == Datapath::Sockmap && !kernel {
            return skip("WSPROXY_KERNEL is not 1: the kernel's datapath is not tested");
        }
        // A test that failed has poisoned nothing that the next one reads.
        let turn = TURN.lock().unwrap_or_else(PoisonError::into_inner);
        let number = STARTED.fetch_add(1, Ordering::Relaxed);
        let logs = env::temp_dir().join(format!("wsproxy-peers-{}-{number}", process::id()));
        fs::create_dir_all(&logs).unwrap();
        Some(Bench {
            wsproxy: wsproxy.into(),
            peers: fs::canonicalize(peers).expect("WSPROXY_PEERS is a folder"),
            scripts: scripts(),
            logs,
            turn,
        })
    }

    fn python(&self, script: &str) -> Command {
        let mut command = Command::new(self.peers.join("bin/python"));
        command.arg(self.scripts.join(script));
        command
    }

    fn script(&self, peer: Peer, python: &str, node: &str) -> Command {
        match peer {
            Peer::Python => self.python(python),
            Peer::Node => {
                let mut command = Command::new("node");
                command.env("NODE_PATH", self.peers.join("node_modules"));
                command.arg(self.scripts.join(node));
                command
            }
        }
    }

    fn server(&self, peer: Peer) -> (Started, SocketAddr) {
        let mut command = self.script(peer, "py_server.py", "ws_server.js");
        let mut server = Started::new(&mut command, &self.logs);
        let mut port = None;
        server.wait_until("prints LISTENING port", |server| {
            // The line's end too, or half a port could be read.
            let printed = server.stdout();
            let line = printed.strip_prefix("LISTENING ").and_then(|l| l.strip_suffix('\n'));
            port = line.map(|p| p.parse::<u16>().expect("a port"));
            port.is_some()
        });
        (server, loopback(port.unwrap()))
    }

    /// Runs to the end, asserts exit 0, returns what it printed.
    fn finish(&self, command: &mut Command) -> String {
        self.finished(Started::new(command, &self.logs), Started::stdout)
    }

    /// The same of what runs already, with `look` at what it left behind.
    fn finished<T>(&self, mut child: Started, look: impl FnOnce(&Started) -> T) -> T {
        let status = poll(CLIENT_LIMIT, || child.status());
        let success = status.is_some_and(|status| status.success());
        assert!(success, "{status:?} within {CLIENT_LIMIT:?}: {child}");
        look(&child)
    }
}

impl Drop for Bench {
    fn drop(&mut self) {
        if !std::thread::panicking() {
            let _ = fs::remove_dir_all(&self.logs);
        }
    }
}

/// `wsproxy run` in front of an upstream.
struct Proxy {
    process: Started,
    listen: SocketAddr,
    admin: SocketAddr,
}

impl Proxy {
    /// In front of `upstream`, or of the embedded server.
    fn start(bench: &Bench, datapath: Datapath, upstream: Option<SocketAddr>) -> Proxy {
        Self::start_with(bench, datapath, upstream, "")
    }

    /// The same with more in its configuration; there is none for the embedded server.
    fn start_with(
        bench: &Bench,
        datapath: Datapath,
        upstream: Option<SocketAddr>,
        more: &str,
    ) -> Proxy {
        let [listen, admin] = free_addresses();
        let mut command = Command::new(&bench.wsproxy);
        command.arg("run").args(["--datapath", datapath.name()]);
        if upstream.is_some() {
            // What is short-lived here is to go through the kernel all the same.
            let file = bench.logs.join(format!("{}.toml", listen.port()));
            fs::write(&file, format!("[datapath]\nsettle = \"off\"\n{more}")).unwrap();
            command.arg("--config").arg(file);
        }
        let upstream = upstream.map(|address| ("--upstream", address));
        for (flag, address) in
            [("--listen", listen), ("--admin", admin)].into_iter().chain(upstream)
        {
            command.arg(flag).arg(address.to_string());
        }
        Self::spawn(bench, command, listen, admin)
    }

    fn spawn(bench: &Bench, mut command: Command, listen: SocketAddr, admin: SocketAddr) -> Proxy {
        let mut process = Started::new(&mut command, &bench.logs);
        process.wait_until("listens on both ports", |_| {
            get_metrics(admin).is_ok() && TcpStream::connect(listen).is_ok()
        });
        Proxy { process, listen, admin }
    }

    fn metrics(&self) -> String {
        get_metrics(self.admin).expect("/metrics answers")
    }

    /// The counters say that the sessions went through here, and by which path.
    fn assert_carried(&self, datapath: Datapath, before: &str, sessions: f64) {
        let kernel = r#"datapath="sockmap""#;
        let deadline = Instant::now() + METRICS_LIMIT;
        loop {
            let after = self.metrics();
            let grown = |name, labels| total(&after, name, labels) - total(before, name, labels);
            let counted = grown("wsproxy_sessions_total", &[]);
            let spliced = grown("wsproxy_session_bytes_total", &[kernel]);
            let right_path = (spliced > 0.0) == (datapath == Datapath::Sockmap);
            if counted >= sessions && right_path {
                return;
            }
            assert!(
                Instant::now() < deadline,
                "{}: {counted} of {sessions} sessions counted, {spliced} bytes in the kernel\n{after}",
                datapath.name(),
            );
            sleep(Duration::from_millis(100));
        }
    }
}

/// A child process, killed when dropped; its output goes to files, where it can't block it.
struct Started {
    child: Child,
    name: String,
    stdout: PathBuf,
    stderr: PathBuf,
}

impl Started {
    fn new(command: &mut Command, logs: &Path) -> Started {
        let number = STARTED.fetch_add(1, Ordering::Relaxed);
        let [stdout, stderr] = ["stdout", "stderr"].map(|n| logs.join(format!("{number}.{n}")));
        command
            .stdin(Stdio::null())
            .stdout(File::create(&stdout).unwrap())
            .stderr(File::create(&stderr).unwrap());
        let name = format!("{command:?}");
        let child = command.spawn().unwrap_or_else(|error| panic!("{name}: {error}"));
        Started { child, name, stdout, stderr }
    }

    fn status(&mut self) -> Option<ExitStatus> {
        self.child.try_wait().expect("a child can be waited for")
    }

    fn stdout(&self) -> String {
        fs::read_to_string(&self.stdout).unwrap_or_default()
    }

    fn wait_until(&mut self, what: &str, mut reached: impl FnMut(&Started) -> bool) {
        let deadline = Instant::now() + START_LIMIT;
        while !reached(self) {
            if let Some(status) = self.status() {
                panic!("ended before it {what}, {status}: {self}");
            }
            assert!(Instant::now() < deadline, "not within {START_LIMIT:?}: {what}: {self}");
            sleep(Duration::from_millis(20));
        }
    }
}

impl std::fmt::Display for Started {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let stderr = fs::read_to_string(&self.stderr).unwrap_or_default();
        write!(f, "{}\nstdout: {}\nstderr: {stderr}", self.name, self.stdout())
    }
}

impl Drop for Started {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The folder with the scripts: `peers/` beside this crate's manifest, or `WSPROXY_PEER_SCRIPTS`.
fn scripts() -> PathBuf {
    env::var_os("WSPROXY_PEER_SCRIPTS")
        .map_or_else(|| Path::new(env!("CARGO_MANIFEST_DIR")).join("peers"), PathBuf::from)
}

/// To the real standard error: libtest hides what a passing test prints by macro.
fn skip<T>(why: &str) -> Option<T> {
    assert!(!env::var("CI").is_ok_and(|v| v == "true"), "must not be skipped in CI: {why}");
    let name = std::thread::current().name().unwrap_or("?").to_owned();
    let _ = writeln!(io::stderr(), "\n!!! SKIPPED {name}: {why}");
    None
}

/// The sum of a metric's samples with all these in their labels.
fn total(metrics: &str, name: &str, labels: &[&str]) -> f64 {
    let of_name =
        |line: &&str| line.strip_prefix(name).is_some_and(|rest| rest.starts_with(['{', ' ']));
    metrics
        .lines()
        .filter(of_name)
        .filter(|line| labels.iter().all(|label| line.contains(label)))
        // A sample may end with a timestamp: the value is what follows the labels.
        .filter_map(|line| {
            line.rsplit('}').next()?.split_whitespace().find_map(|v| v.parse::<f64>().ok())
        })
        .sum()
}

/// Looks until there is something, for so long.
fn poll<T>(limit: Duration, mut look: impl FnMut() -> Option<T>) -> Option<T> {
    let deadline = Instant::now() + limit;
    loop {
        let found = look();
        if found.is_some() || Instant::now() >= deadline {
            return found;
        }
        sleep(Duration::from_millis(20));
    }
}

fn loopback(port: u16) -> SocketAddr {
    (Ipv4Addr::LOCALHOST, port).into()
}

fn url(address: SocketAddr) -> String {
    format!("ws://{address}/")
}

/// Bound together, so that they differ; free again when this returns.
fn free_addresses() -> [SocketAddr; 2] {
    [(); 2].map(|()| TcpListener::bind(loopback(0)).unwrap()).map(|l| l.local_addr().unwrap())
}

fn get_metrics(admin: SocketAddr) -> io::Result<String> {
    let mut stream = TcpStream::connect_timeout(&admin, Duration::from_secs(2))?;
    stream.set_read_timeout(Some(Duration::from_secs(5)))?;
    // HTTP/1.0: the answer is not chunked and ends with the connection.
    write!(stream, "GET /metrics HTTP/1.0\r\nHost: {admin}\r\n\r\n")?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    match answer.split_once("\r\n\r\n") {
        Some((head, body)) if head.split(' ').nth(1) == Some("200") => Ok(body.to_owned()),
        _ => Err(io::Error::other(answer)),
    }
}
