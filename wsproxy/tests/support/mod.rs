//! The real program on loopback, and raw peers for it.
#![allow(dead_code, reason = "each test program uses a part of it")]

use std::{
    ffi::OsStr,
    fs,
    io::{self, BufRead as _, BufReader, Read as _, Write as _},
    net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream},
    path::{Path, PathBuf},
    process::{Child, Command, ExitStatus, Output, Stdio},
    sync::{
        Arc, Mutex,
        atomic::{AtomicU64, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;
use socket2::{Domain, Socket, Type};

/// How long anything may take that must happen.
pub const PATIENCE: Duration = Duration::from_secs(20);
/// The program.
pub const BINARY: &str = env!("CARGO_BIN_EXE_wsproxy");
/// The key of RFC 6455 section 1.3, and what it must be answered with.
pub const KEY: &str = "dGhlIHNhbXBsZSBub25jZQ==";
/// See [`KEY`].
pub const ACCEPT: &str = "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=";

/// Repeats `look` until it finds something or [`PATIENCE`] is over.
pub fn wait_for<T>(what: &str, mut look: impl FnMut() -> Option<T>) -> T {
    let end = Instant::now() + PATIENCE;
    loop {
        if let Some(found) = look() {
            return found;
        }
        assert!(Instant::now() < end, "waited {PATIENCE:?} in vain: {what}");
        thread::sleep(Duration::from_millis(5));
    }
}

/// Says something past the test harness, which would swallow it.
pub fn say(text: &str) {
    // Nobody reads standard error: nobody is to be told.
    let _ = writeln!(io::stderr(), "{text}");
}

/// A directory that goes away.
pub struct TempDir(PathBuf);

impl TempDir {
    /// Everybody may look into it.
    pub fn new() -> Self {
        use std::os::unix::fs::PermissionsExt as _;
        static NEXT: AtomicU64 = AtomicU64::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let name = format!("wsproxy-test-{}-{number}", std::process::id());
        let path = std::env::temp_dir().join(name);
        fs::create_dir(&path).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
        Self(path)
    }

    pub fn join(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }
}

impl Drop for TempDir {
    fn drop(&mut self) {
        // What is left in /tmp fails no test.
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// The program, running.
pub struct Proxy {
    child: Child,
    log: Arc<Mutex<Vec<String>>>,
    /// Reads its log, to the end of the program.
    reader: thread::JoinHandle<()>,
    pub address: SocketAddr,
    pub admin: SocketAddr,
    _dir: Option<TempDir>,
}

/// A configuration file's text: free ports, these servers, and `more`.
pub fn config(servers: &[SocketAddr], more: &str) -> String {
    let servers: Vec<_> = servers.iter().map(|s| format!("\"{s}\"")).collect();
    format!(
        "[listener]\naddress = \"127.0.0.1:0\"\n[admin]\naddress = \"127.0.0.1:0\"\n\
         [upstream]\nservers = [{}]\n[log]\nformat = \"json\"\nlevel = \"debug\"\n{more}\n",
        servers.join(", ")
    )
}

impl Proxy {
    /// Relays to `servers`; `more` is the rest of the configuration file.
    pub fn relay(servers: &[SocketAddr], more: &str) -> Self {
        Self::with_file(Command::new(BINARY), &config(servers, more), "relay")
    }

    /// `program` is the start of the command line.
    pub fn with_file(mut program: Command, text: &str, datapath: &str) -> Self {
        let dir = TempDir::new();
        let file = dir.join("wsproxy.toml");
        fs::write(&file, text).unwrap();
        program.args(["run", "--datapath", datapath, "--config"]).arg(file);
        let mut proxy = Self::spawn(program).unwrap_or_else(|log| panic!("no start:\n{log}"));
        proxy._dir = Some(dir);
        proxy
    }

    /// Runs a whole command line with an admin port and a JSON log; the error is what it said
    /// before it ended.
    pub fn spawn(mut command: Command) -> Result<Self, String> {
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped());
        command.env_remove("WSPROXY_LOG");
        let mut child = command.spawn().expect("the program starts");
        let log = Arc::new(Mutex::new(Vec::new()));
        let stderr = BufReader::new(child.stderr.take().unwrap());
        let lines = Arc::clone(&log);
        let reader = thread::spawn(move || {
            for line in stderr.lines().map_while(Result::ok) {
                lines.lock().unwrap().push(line);
            }
        });
        let unknown = SocketAddr::from((Ipv4Addr::UNSPECIFIED, 0));
        let mut proxy = Self { child, log, reader, address: unknown, admin: unknown, _dir: None };
        let listening = wait_for("it listens, or ends", || {
            proxy.logged("listening").map(Some).or_else(|| {
                let ended = proxy.reader.is_finished() && proxy.child.try_wait().unwrap().is_some();
                ended.then_some(None)
            })
        });
        let Some(listening) = listening else { return Err(proxy.log_text()) };
        let field = |name: &str| listening[name].as_str().unwrap().parse().unwrap();
        proxy.address = field("address");
        proxy.admin = field("admin");
        Ok(proxy)
    }

    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// The whole log so far.
    pub fn log_text(&self) -> String {
        self.log.lock().unwrap().join("\n")
    }

    /// Lines of the log with this message.
    pub fn all_logged(&self, message: &str) -> Vec<Value> {
        let lines = self.log.lock().unwrap();
        let lines = lines.iter().filter_map(|line| serde_json::from_str::<Value>(line).ok());
        lines.filter(|line| line["message"] == message).collect()
    }

    pub fn logged(&self, message: &str) -> Option<Value> {
        self.all_logged(message).into_iter().next()
    }

    /// Asks the admin address.
    pub fn get(&self, path: &str) -> io::Result<(u16, String)> {
        let mut stream = TcpStream::connect(self.admin)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        write!(stream, "GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer)?;
        let (head, body) = answer.split_once("\r\n\r\n").ok_or(io::ErrorKind::UnexpectedEof)?;
        Ok((status(head), body.to_owned()))
    }

    pub fn metrics(&self) -> String {
        let (status, text) = self.get("/metrics").unwrap();
        assert_eq!(status, 200);
        text
    }

    /// One series, by its name with labels; 0 while it does not show.
    pub fn metric(&self, series: &str) -> u64 {
        let text = self.metrics();
        let value = text.lines().find_map(|line| line.strip_prefix(series)?.strip_prefix(' '));
        value.map_or(0, |v| v.parse().unwrap())
    }

    pub fn wait_metric(&self, series: &str, wanted: impl Fn(u64) -> bool) -> u64 {
        wait_for(series, || Some(self.metric(series)).filter(|&value| wanted(value)))
    }

    pub fn failures(&self, reason: &str) -> u64 {
        self.metric(&format!("wsproxy_handshake_failures_total{{reason=\"{reason}\"}}"))
    }

    pub fn request_failures(&self, reason: &str) -> u64 {
        self.metric(&format!("wsproxy_request_failures_total{{reason=\"{reason}\"}}"))
    }

    /// A connection of a client.
    pub fn connect(&self) -> Peer {
        Peer::new(TcpStream::connect(self.address).unwrap())
    }

    /// A session: the client's and the server's end.
    pub fn session(&self, server: &Server) -> (Peer, Peer) {
        let mut client = self.connect();
        client.send(request("").as_bytes());
        let mut upstream = server.accept();
        upstream.head();
        upstream.send(switch("").as_bytes());
        assert_eq!(status(&client.head()), 101);
        // The client may have its 101 a moment before the datapath has the session.
        wait_for("the session runs", || {
            let live = |path| self.metric(&format!("wsproxy_sessions{{datapath=\"{path}\"}}"));
            (live("sockmap") + live("relay") > 0).then_some(())
        });
        (client, upstream)
    }

    pub fn terminate(&self) {
        kill_process(Pid::from_child(&self.child), Signal::TERM).unwrap();
    }

    /// Whether it has ended.
    pub fn ended(&mut self) -> Option<ExitStatus> {
        self.child.try_wait().unwrap()
    }

    /// Waits for its end; the log is whole then.
    pub fn wait(&mut self) -> ExitStatus {
        let status = wait_for("it ends", || self.ended());
        wait_for("the end of its log", || self.reader.is_finished().then_some(()));
        status
    }

    /// SIGTERM, and an orderly end.
    pub fn stop(mut self) {
        self.terminate();
        let status = self.wait();
        assert!(status.success(), "{status}\n{}", self.log_text());
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        // It has ended, or does now.
        let _ = self.child.kill();
        let _ = self.child.wait();
        if thread::panicking() {
            say(&format!("--- log of the program\n{}\n---", self.log_text()));
        }
    }
}

/// Runs the program to its end.
pub fn run<A: AsRef<OsStr>>(args: impl IntoIterator<Item = A>) -> Output {
    finish(Command::new(BINARY).args(args))
}

/// Runs a command to its end, which must come.
pub fn finish(command: &mut Command) -> Output {
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().unwrap();
    let end = Instant::now() + PATIENCE;
    // What it prints fits into a pipe.
    while child.try_wait().unwrap().is_none() {
        if Instant::now() > end {
            let _ = child.kill();
            let output = child.wait_with_output().unwrap();
            panic!("it does not end: {}", String::from_utf8_lossy(&output.stderr));
        }
        thread::sleep(Duration::from_millis(5));
    }
    child.wait_with_output().unwrap()
}

/// What a program said to its standard error.
pub fn complaint(output: &Output) -> String {
    String::from_utf8(output.stderr.clone()).unwrap()
}

/// An upstream server whose part the test plays.
pub struct Server {
    listener: TcpListener,
    pub address: SocketAddr,
}

impl Server {
    pub fn start() -> Self {
        Self::of(TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap())
    }

    /// One that listens already.
    pub fn of(listener: TcpListener) -> Self {
        listener.set_nonblocking(true).unwrap();
        let address = listener.local_addr().unwrap();
        Self { listener, address }
    }

    pub fn accept(&self) -> Peer {
        wait_for("a connection to the upstream", || self.try_accept())
    }

    pub fn try_accept(&self) -> Option<Peer> {
        match self.listener.accept() {
            Ok((stream, _)) => Some(Peer::new(stream)),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => None,
            Err(error) => panic!("{error}"),
        }
    }
}

/// An address where nobody listens, for as long as the socket lives.
pub fn refusing() -> (Socket, SocketAddr) {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
    socket.bind(&SocketAddr::from((Ipv4Addr::LOCALHOST, 0)).into()).unwrap();
    let address = socket.local_addr().unwrap().as_socket().unwrap();
    (socket, address)
}

/// One end of a TCP connection. Nothing it does takes longer than [`PATIENCE`].
pub struct Peer {
    pub stream: TcpStream,
    ahead: Vec<u8>,
}

impl Peer {
    pub fn new(stream: TcpStream) -> Self {
        stream.set_nonblocking(false).unwrap();
        stream.set_nodelay(true).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream.set_write_timeout(Some(PATIENCE)).unwrap();
        Self { stream, ahead: Vec::new() }
    }

    pub fn send(&mut self, bytes: &[u8]) {
        self.stream.write_all(bytes).unwrap();
    }

    /// Reads once more; false at the end.
    fn more(&mut self) -> bool {
        let mut buffer = [0; 4096];
        let n = loop {
            match self.stream.read(&mut buffer) {
                // Whoever stops and continues this process ends waits that have a limit (signal(7)).
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                read => break read.expect("bytes or an orderly end"),
            }
        };
        self.ahead.extend_from_slice(&buffer[..n]);
        n > 0
    }

    /// The next head, its empty line included.
    pub fn head(&mut self) -> String {
        loop {
            if let Some(at) = self.ahead.windows(4).position(|w| w == b"\r\n\r\n") {
                let rest = self.ahead.split_off(at + 4);
                return String::from_utf8(std::mem::replace(&mut self.ahead, rest)).unwrap();
            }
            assert!(self.more(), "the end in a head: {:?}", self.ahead.escape_ascii().to_string());
        }
    }

    /// The next `n` bytes.
    pub fn take(&mut self, n: usize) -> Vec<u8> {
        while self.ahead.len() < n {
            assert!(self.more(), "the end after {} bytes of {n}", self.ahead.len());
        }
        let rest = self.ahead.split_off(n);
        std::mem::replace(&mut self.ahead, rest)
    }

    /// Everything up to an orderly end.
    pub fn rest(&mut self) -> Vec<u8> {
        while self.more() {}
        std::mem::take(&mut self.ahead)
    }

    /// Up to an orderly end, as text.
    pub fn rest_text(&mut self) -> String {
        String::from_utf8(self.rest()).unwrap()
    }

    /// Panics unless the next bytes are these.
    pub fn expect(&mut self, bytes: &[u8]) {
        let got = self.take(bytes.len());
        assert!(got == bytes, "{} is not {}", got.escape_ascii(), bytes.escape_ascii());
    }

    /// No more bytes from us.
    pub fn finish(&self) {
        self.stream.shutdown(std::net::Shutdown::Write).unwrap();
    }
}

/// The status code in an answer's head.
pub fn status(head: &str) -> u16 {
    let code = head.strip_prefix("HTTP/1.1 ").and_then(|rest| rest.get(..3));
    code.and_then(|c| c.parse().ok()).unwrap_or_else(|| panic!("no answer: {head:?}"))
}

/// The values of a header, in their order.
pub fn header<'a>(head: &'a str, name: &str) -> Vec<&'a str> {
    let lines = head.lines().filter_map(|line| line.split_once(": "));
    lines.filter(|(n, _)| n.eq_ignore_ascii_case(name)).map(|(_, value)| value).collect()
}

/// A good opening handshake, with `more` lines (each with its CR LF).
pub fn request(more: &str) -> String {
    format!(
        "GET /chat?a=b HTTP/1.1\r\nHost: example.com\r\nUpgrade: websocket\r\n\
         Connection: Upgrade\r\nSec-WebSocket-Key: {KEY}\r\nSec-WebSocket-Version: 13\r\n\
         {more}\r\n"
    )
}

/// A good answer to it, with `more` lines.
pub fn switch(more: &str) -> String {
    format!(
        "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
         Sec-WebSocket-Accept: {ACCEPT}\r\n{more}\r\n"
    )
}

/// Whether this process may do everything.
pub fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}

/// The program without any privilege: a copy that everybody may run, as nobody where we are root.
pub fn unprivileged(dir: &TempDir) -> Command {
    let copy = dir.join("wsproxy");
    // By another process: a descriptor of ours that a child of another thread inherits for a
    // moment would make it "text file busy".
    let status = Command::new("install").args(["-m", "755", BINARY]).arg(&copy).status().unwrap();
    assert!(status.success());
    if !is_root() {
        return Command::new(copy);
    }
    let mut command = Command::new("setpriv");
    let drop = ["--inh-caps=-all", "--bounding-set=-all"];
    command.args(["--reuid=65534", "--regid=65534", "--clear-groups"]).args(drop).arg(copy);
    command
}

/// Runs the program over `servers` with the kernel path, which needs root and a kernel that can.
/// `None`, said loudly, elsewhere; where `CI=true` and `WSPROXY_KERNEL=1` promise both, a panic.
pub fn sockmap(servers: &[SocketAddr], more: &str) -> Option<Proxy> {
    sockmap_with(&config(servers, more))
}

/// The same with a whole configuration.
pub fn sockmap_with(text: &str) -> Option<Proxy> {
    let dir = TempDir::new();
    let file = dir.join("wsproxy.toml");
    fs::write(&file, text).unwrap();
    let mut command = Command::new(BINARY);
    command.args(["run", "--datapath", "sockmap", "--config"]).arg(&file);
    match Proxy::spawn(command) {
        Ok(mut proxy) => {
            proxy._dir = Some(dir);
            Some(proxy)
        }
        Err(log) => {
            let is = |name: &str, value: &str| std::env::var_os(name).is_some_and(|v| v == value);
            assert!(!(is("CI", "true") && is("WSPROXY_KERNEL", "1")), "no kernel path: {log}");
            say(&format!("!!! SKIPPED: the kernel path can't be tested here: {log}"));
            None
        }
    }
}

/// The ids of BPF programs and maps that a process holds: `prog_id` and `map_id` lines of its
/// descriptors.
pub fn bpf_ids(process: &Path) -> io::Result<Vec<String>> {
    let mut ids = Vec::new();
    for entry in fs::read_dir(process.join("fdinfo"))? {
        // A descriptor may be closed meanwhile.
        let Ok(text) = fs::read_to_string(entry?.path()) else { continue };
        let lines = text.lines().map(|line| line.replace('\t', " "));
        ids.extend(lines.filter(|l| l.starts_with("prog_id:") || l.starts_with("map_id:")));
    }
    Ok(ids)
}

pub mod datapath;
pub mod http;
pub mod persist;
pub mod ws;

/// A session whose server answers at once, of a handshake with `more` headers: both ends, and the
/// head that the server got.
pub fn opened(proxy: &Proxy, server: &Server, more: &str) -> (Peer, Peer, String) {
    let mut client = proxy.connect();
    client.send(request(more).as_bytes());
    let mut upstream = server.accept();
    let head = upstream.head();
    upstream.send(switch("").as_bytes());
    assert_eq!(status(&client.head()), 101);
    (client, upstream, head)
}
