//! What an operator does with a running program: reload, questions and orders, imports.
#![cfg(target_os = "linux")]

mod support;
#[path = "support/tls.rs"]
mod tls_support;

use std::{
    fs,
    net::{SocketAddr, TcpStream},
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
    process::{Command, Output},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread,
};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;
use support::{
    BINARY, Peer, Proxy, Server, TempDir, complaint, config, header, request, run, status, switch,
    wait_for, ws::parted,
};
use tls_support::{BOTH, End, authority, client_config, curious_config, secure, shown};

/// A program whose configuration file can be changed.
struct Changing {
    dir: TempDir,
    proxy: Proxy,
}

impl Changing {
    fn start(text: &str) -> Self {
        let dir = TempDir::new();
        let text = text.replace("SOCKET", dir.join("admin.sock").to_str().unwrap());
        fs::write(dir.join("w.toml"), text).unwrap();
        let mut command = Command::new(BINARY);
        command.args(["run", "--datapath", "relay", "--config"]).arg(dir.join("w.toml"));
        let proxy = Proxy::spawn(command).unwrap_or_else(|log| panic!("no start:\n{log}"));
        Self { dir, proxy }
    }

    fn write(&self, text: &str) {
        let text = text.replace("SOCKET", self.dir.join("admin.sock").to_str().unwrap());
        fs::write(self.dir.join("w.toml"), text).unwrap();
    }

    fn ask(&self, args: &[&str]) -> Output {
        let socket = self.dir.join("admin.sock");
        let socket = ["--socket", socket.to_str().unwrap()];
        run(args.iter().chain(socket.iter()).collect::<Vec<_>>())
    }

    fn json(&self, args: &[&str]) -> Value {
        let args: Vec<_> = args.iter().copied().chain(["--json"]).collect();
        let output = self.ask(&args);
        assert!(output.status.success(), "{args:?}: {}", complaint(&output));
        serde_json::from_slice(&output.stdout).unwrap()
    }
}

/// The text of a configuration with an admin socket; a fixed port would collide.
fn with_socket(server: &Server, more: &str) -> String {
    config(&[server.address], more).replace("[admin]\n", "[admin]\nsocket = \"SOCKET\"\n")
}

fn opened(proxy: &Proxy, server: &Server) -> (Peer, Peer) {
    let (client, upstream, _) = support::opened(proxy, server, "");
    (client, upstream)
}

fn answer_of(proxy: &Proxy, path: &str) -> (u16, String) {
    let mut client = proxy.connect();
    let line = format!("GET {path} HTTP/1.1\r\nHost: example.com\r\nConnection: close\r\n\r\n");
    client.send(line.as_bytes());
    let head = client.head();
    (status(&head), client.rest_text())
}

#[test]
fn a_hundred_reloads_under_load_cost_nobody_a_byte() {
    let server = Server::start();
    let text = |n: usize| {
        let routes = format!(
            "[[route]]\nupstream = \"default\"\nmax_sessions = {}\n\
             [[route]]\npath = \"/number\"\nexact = true\nrespond = 200\nbody = \"{n}\"\n",
            1_000 + n
        );
        with_socket(&server, &routes)
    };
    let running = Changing::start(&text(0));
    let stop = Arc::new(AtomicBool::new(false));
    let sessions: Vec<_> = (0..8)
        .map(|number| {
            let (mut client, mut upstream) = opened(&running.proxy, &server);
            let stop = Arc::clone(&stop);
            thread::spawn(move || {
                let mut rounds = 0_usize;
                while !stop.load(Ordering::Relaxed) {
                    let bytes = vec![number as u8; 1 + rounds * 997 % 30_000];
                    client.send(&bytes);
                    upstream.expect(&bytes);
                    upstream.send(&bytes);
                    client.expect(&bytes);
                    rounds += 1;
                }
                client.finish();
                assert_eq!(upstream.rest(), b"");
                rounds
            })
        })
        .collect();
    for n in 1..=100 {
        running.write(&text(n));
        if n % 2 == 0 {
            let output = running.ask(&["reload"]);
            assert!(output.status.success(), "{}", complaint(&output));
        } else {
            let pid = Pid::from_raw(running.proxy.pid() as i32).unwrap();
            kill_process(pid, Signal::HUP).unwrap();
        }
        wait_for("the new answer", || {
            (answer_of(&running.proxy, "/number") == (200, n.to_string())).then_some(())
        });
    }
    // Live sessions of before are counted under the route of now.
    let live = running.json(&["status"])["routes"][0]["sessions"].as_u64().unwrap();
    assert_eq!(live, 8);
    stop.store(true, Ordering::Relaxed);
    let rounds: usize = sessions.into_iter().map(|session| session.join().unwrap()).sum();
    assert!(rounds >= 8, "{rounds}");
    assert_eq!(running.proxy.metric("wsproxy_reloads_total{result=\"ok\"}"), 100);
    running.proxy.stop();
}

#[test]
fn a_bad_configuration_changes_nothing() {
    let server = Server::start();
    let good = with_socket(&server, "[[route]]\nupstream = \"default\"\n");
    let running = Changing::start(&good);
    let (mut client, mut upstream) = opened(&running.proxy, &server);
    for (text, problem) in [
        (good.replace("servers", "server"), "unknown key, did you mean upstream.servers?"),
        (good.clone() + "[[route]]\nfiles = \"/nowhere/at/all\"\npath = \"/f\"\n", "route.files"),
        (
            good.replace("[upstream]", "[listener.tls]\ncertificates = [{ certificate = \"/no\", key = \"/no\" }]\n[upstream]"),
            "listener.tls.certificates.certificate",
        ),
        (
            good.replace("address = \"127.0.0.1:0\"\n[admin]", "name = \"other\"\naddress = \"192.0.2.1:1\"\n[admin]"),
            "cannot listen on 192.0.2.1:1",
        ),
    ] {
        assert_ne!(text, good);
        running.write(&text);
        let output = running.ask(&["reload"]);
        assert!(!output.status.success(), "{text}");
        let said = String::from_utf8(output.stdout).unwrap();
        assert!(said.contains(problem), "{said}\n{problem}");
    }
    assert_eq!(running.proxy.metric("wsproxy_reloads_total{result=\"failed\"}"), 4);
    client.send(b"still here");
    upstream.expect(b"still here");
    opened(&running.proxy, &server);
    running.write(&good);
    assert!(running.ask(&["reload"]).status.success());
    drop((client, upstream));
    running.proxy.stop();
}

#[test]
fn listeners_come_and_go_with_a_reload() {
    let server = Server::start();
    let one = with_socket(&server, "");
    let listeners = |more: &str| {
        one.replace(
            "[listener]\naddress = \"127.0.0.1:0\"\n",
            &format!("[[listener]]\nname = \"main\"\naddress = \"127.0.0.1:0\"\n{more}"),
        )
    };
    let running = Changing::start(&listeners(""));
    // Beside the admin socket: elsewhere Landlock lets nothing be made that was not known before.
    let path = running.dir.join("http.sock");
    let unix = format!("[[listener]]\nname = \"unix\"\naddress = \"unix:{}\"\n", path.display());
    let (mut client, mut upstream) = opened(&running.proxy, &server);
    assert!(!path.exists());
    running.write(&listeners(&unix));
    assert!(running.ask(&["reload"]).status.success());
    assert!(path.exists());
    let mut stream = std::os::unix::net::UnixStream::connect(&path).unwrap();
    std::io::Write::write_all(&mut stream, request("").as_bytes()).unwrap();
    server.accept().head();
    drop(stream);
    running.write(&listeners(""));
    assert!(running.ask(&["reload"]).status.success());
    wait_for("the socket is gone", || (!path.exists()).then_some(()));
    // The listener that stayed is the same one, and so are its sessions.
    client.send(b"x");
    upstream.expect(b"x");
    opened(&running.proxy, &server);
    drop((client, upstream));
    running.proxy.stop();
}

/// Whatever closes them then: a time limit, an operator, a stop.
#[test]
fn a_reload_changes_what_sessions_are_told() {
    let server = Server::start();
    let text = |code: u16, reason: &str, idle: &str| {
        let route = format!("[[route]]\nupstream = \"default\"\nidle = \"{idle}\"\n");
        let drain = format!("[drain]\nwindow = \"off\"\ncode = {code}\nreason = \"{reason}\"\n");
        with_socket(&server, &(route + &drain))
    };
    let running = Changing::start(&text(1001, "as it was", "1h"));
    running.write(&text(1012, "as it is", "1s"));
    assert!(running.ask(&["reload"]).status.success());
    let (mut client, mut upstream) = opened(&running.proxy, &server);
    parted(&mut client, &mut upstream, 1012, "as it is");
    running.write(&text(1012, "as it will be", "1h"));
    assert!(running.ask(&["reload"]).status.success());
    let (mut client, mut upstream) = opened(&running.proxy, &server);
    running.proxy.terminate();
    parted(&mut client, &mut upstream, 1012, "as it will be");
    drop((client, upstream));
    let Changing { mut proxy, .. } = running;
    assert!(proxy.wait().success());
    assert!(!proxy.log_text().contains("takes a restart"), "{}", proxy.log_text());
}

#[test]
fn operators_see_and_steer() {
    let (one, two) = (Server::start(), Server::start());
    let text = config(&[one.address, two.address], "")
        .replace("[admin]\n", "[admin]\nsocket = \"SOCKET\"\n");
    let running = Changing::start(&text);
    let socket = running.dir.join("admin.sock");
    assert_eq!(fs::metadata(&socket).unwrap().permissions().mode() & 0o777, 0o600);
    let (mut client, mut upstream) = opened(&running.proxy, &one);
    let sessions = running.json(&["sessions"]);
    assert_eq!(sessions["total"], 1);
    let session = &sessions["sessions"][0];
    assert_eq!(session["upstream"], one.address.to_string());
    assert_eq!(session["client"], client.stream.local_addr().unwrap().to_string());

    let state = |at: usize| {
        let groups = running.json(&["upstreams"]);
        groups[0]["servers"][at]["state"].as_str().unwrap().to_owned()
    };
    assert_eq!([state(0), state(1)], ["up", "up"]);
    let name = one.address.to_string();
    assert!(running.ask(&["drain", &name]).status.success());
    assert_eq!([state(0), state(1)], ["draining", "up"]);
    for _ in 0..3 {
        opened(&running.proxy, &two);
    }
    assert!(running.ask(&["enable", &name]).status.success());
    assert!(running.ask(&["disable", &two.address.to_string()]).status.success());
    for _ in 0..3 {
        opened(&running.proxy, &one);
    }
    let unknown = running.ask(&["drain", "192.0.2.1:1"]);
    assert!(!unknown.status.success());
    assert!(String::from_utf8(unknown.stdout).unwrap().contains("192.0.2.1:1"));

    let id = session["id"].to_string();
    assert!(running.ask(&["close", &id]).status.success());
    parted(&mut client, &mut upstream, 1001, "going away");
    drop((client, upstream));
    running.proxy.wait_metric("wsproxy_session_ends_total{ending=\"closed\"}", |n| n == 1);
    assert!(!running.ask(&["close", "999"]).status.success());
    let people = String::from_utf8(running.ask(&["upstreams"]).stdout).unwrap();
    assert!(people.contains("disabled"), "{people}");
    running.proxy.stop();
    assert!(!socket.exists(), "the socket is left behind");
    let nobody = run(["status", "--socket", socket.to_str().unwrap()]);
    assert!(!nobody.status.success() && complaint(&nobody).contains("admin.sock"));
}

/// An example of `nginx/tests/data` with its names and ports replaced.
fn imported(dir: &TempDir, example: &str, replace: &[(&str, &str)]) -> PathBuf {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/nginx/tests/data");
    let mut text = fs::read_to_string(folder.join(example)).unwrap();
    for (from, to) in replace {
        assert!(text.contains(from), "{from} is not in {example}");
        text = text.replace(from, to);
    }
    imported_text(dir, &text, &["0.0.0.0:80"])
}

/// An nginx configuration as ours, at free ports instead of at these addresses.
fn imported_text(dir: &TempDir, text: &str, addresses: &[&str]) -> PathBuf {
    let file = dir.join("nginx.conf");
    fs::write(&file, text).unwrap();
    let output = run(["import-nginx", file.to_str().unwrap()]);
    assert!(output.status.success(), "{}", complaint(&output));
    let result = dir.join("imported.toml");
    let mut toml = String::from_utf8(output.stdout).unwrap();
    for address in addresses {
        let listen = format!("address = \"{address}\"");
        assert!(toml.contains(&listen), "{toml}");
        toml = toml.replace(&listen, "address = \"127.0.0.1:0\"");
    }
    let admin = "\n[admin]\naddress = \"127.0.0.1:0\"\n[log]\nformat = \"json\"\n";
    fs::write(&result, toml + admin).unwrap();
    let check = run(["check", result.to_str().unwrap()]);
    assert!(check.status.success(), "{}", complaint(&check));
    result
}

fn run_imported(file: &Path) -> Proxy {
    let mut command = Command::new(BINARY);
    command.args(["run", "--datapath", "relay", "--config"]).arg(file);
    Proxy::spawn(command).unwrap_or_else(|log| panic!("no start:\n{log}"))
}

/// A handshake with a path and a host, through to the server.
fn shakes(proxy: &Proxy, server: &Server, path: &str, host: &str) -> String {
    let text = request("").replace("GET /chat?a=b", &format!("GET {path}"));
    let text = text.replace("Host: example.com", &format!("Host: {host}"));
    let mut client = proxy.connect();
    client.send(text.as_bytes());
    let mut upstream = server.accept();
    let head = upstream.head();
    upstream.send(switch("").as_bytes());
    assert_eq!(status(&client.head()), 101);
    head
}

#[test]
fn what_nginx_guides_configure_works_after_an_import() {
    let (server, other) = (Server::start(), Server::start());
    let port = server.address.port().to_string();
    let names =
        fs::read_dir(Path::new(env!("CARGO_MANIFEST_DIR")).join("src/nginx/tests/data")).unwrap();
    assert!(names.count() >= 4);

    let dir = TempDir::new();
    let file = imported(&dir, "2-complete.conf", &[("8080", &port)]);
    let proxy = run_imported(&file);
    let head = shakes(&proxy, &server, "/socket/x", "example.com");
    assert!(head.starts_with("GET /socket/x HTTP/1.1\r\n"), "{head}");
    assert!(head.contains("X-Real-IP: 127.0.0.1"), "{head}");
    assert_eq!(answer_of(&proxy, "/other").0, 404);

    let root = dir.join("html");
    fs::create_dir(&root).unwrap();
    fs::write(root.join("index.html"), "the page").unwrap();
    let root = root.to_str().unwrap();
    let replace =
        [("8080", port.as_str()), ("/var/www/html", root), ("chat.example.com", "example.com")];
    let file = imported(&dir, "3-chat-static.conf", &replace);
    let proxy = run_imported(&file);
    shakes(&proxy, &server, "/ws/", "example.com");
    for path in ["/", "/index.html", "/some/route/of/the/page"] {
        assert_eq!(answer_of(&proxy, path), (200, "the page".to_owned()), "{path}");
    }

    let (first, second) = (server.address.to_string(), other.address.to_string());
    let replace = [
        ("backend1.example.com:8080", first.as_str()),
        ("backend2.example.com:8080", second.as_str()),
        ("backend3.example.com:8080", "127.0.0.1:1"),
        ("10;", "2;"),
    ];
    let file = imported(&dir, "4-load-balance-limit.conf", &replace);
    let proxy = run_imported(&file);
    let mut held = Vec::new();
    for _ in 0..2 {
        let mut client = proxy.connect();
        client.send(request("").replace("GET /chat?a=b", "GET /ws/").as_bytes());
        let mut upstream = wait_for("one of them", || server.try_accept().or(other.try_accept()));
        upstream.head();
        upstream.send(switch("").as_bytes());
        assert_eq!(status(&client.head()), 101);
        held.push((client, upstream));
    }
    let mut third = proxy.connect();
    third.send(request("").replace("GET /chat?a=b", "GET /ws/").as_bytes());
    assert_eq!(status(&third.head()), 429);
}

/// The guide's first example with a certificate for the host it names, and what stands beside it
/// in practice: files under `/`, and a port that sends plain requests to TLS.
#[test]
fn what_the_guide_to_tls_configures_works_after_an_import() {
    let dir = TempDir::new();
    let files = authority().issue(&["example.com"]).write(&dir, "site");
    let root = dir.join("html");
    fs::create_dir(&root).unwrap();
    fs::write(root.join("index.html"), "the page").unwrap();
    let server = Server::start();
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/nginx/tests/data");
    let example = fs::read_to_string(folder.join("1-tls-location.conf")).unwrap();
    let port = format!(":{};", server.address.port());
    let (certificate, key) = (shown(&files.certificate), shown(&files.key));
    let page = format!("location / {{ root {}; index index.html; }}\n location /ws/", shown(&root));
    let mut text = example;
    for (from, to) in [
        ("/path/to/cert.pem", certificate.as_str()),
        ("/path/to/key.pem", &key),
        (":3000;", &port),
        ("location /ws/", &page),
    ] {
        assert_eq!(text.matches(from).count(), 1, "{from} in {text}");
        text = text.replace(from, to);
    }
    text += "server { listen 80; server_name example.com; return 301 https://$host$request_uri; }";
    let proxy = run_imported(&imported_text(&dir, &text, &["0.0.0.0:80", "0.0.0.0:443"]));
    let at = |name: &str| {
        let opened = proxy.all_logged("listener opened");
        let line = opened.iter().find(|line| line["listener"] == name).expect(name);
        line["address"].as_str().unwrap().parse::<SocketAddr>().unwrap()
    };
    // Trusts the one authority, and no certificate for another name.
    let tls = || {
        let stream = TcpStream::connect(at("https")).unwrap();
        secure(stream, client_config(BOTH, None), "example.com")
    };
    guided_session(End::new(tls()), &server);
    let (head, body) = got(End::new(tls()), "/", "example.com");
    assert_eq!((status(&head), body.as_str()), (200, "the page"));

    let plain = End::new(TcpStream::connect(at("http")).unwrap());
    let (head, _) = got(plain, "/ws/room?a=b", "example.com");
    assert_eq!(status(&head), 301);
    assert_eq!(header(&head, "Location"), ["https://example.com/ws/room?a=b"]);
    // A handshake in plain text is sent there too, and the server hears nothing of it.
    let mut plain = End::new(TcpStream::connect(at("http")).unwrap());
    plain.send(request("").replace("GET /chat?a=b", "GET /ws/").as_bytes());
    assert_eq!(status(&plain.head()), 301);
    assert!(server.try_accept().is_none());
    // nginx gives the hosts that no `server_name` names to the first server; the import says
    // that here they are answered 404.
    let other = secure(TcpStream::connect(at("https")).unwrap(), curious_config(), "other.example");
    assert_eq!(status(&got(End::new(other), "/", "other.example").0), 404);
    assert_eq!(proxy.metric("wsproxy_tls_handshakes_total{result=\"ok\"}"), 3);
    proxy.stop();
}

/// A session below `/ws/` in which bytes go both ways, and what the guide has the server told.
fn guided_session(mut client: End, server: &Server) {
    client.send(request("").replace("GET /chat?a=b", "GET /ws/room?a=b").as_bytes());
    let mut upstream = server.accept();
    let head = upstream.head();
    assert!(head.starts_with("GET /ws/room?a=b HTTP/1.1\r\n"), "{head}");
    assert_eq!(header(&head, "Host"), ["example.com"]);
    assert_eq!(header(&head, "X-Real-IP"), ["127.0.0.1"]);
    assert_eq!(header(&head, "X-Forwarded-Proto"), ["https"]);
    upstream.send(switch("").as_bytes());
    assert_eq!(status(&client.head()), 101);
    client.send(b"to the server");
    upstream.expect(b"to the server");
    upstream.send(b"to the client");
    client.expect(b"to the client");
    client.finish();
    assert_eq!(upstream.rest(), b"");
    drop(upstream);
    assert_eq!(client.rest(), b"");
}

/// The answer to a plain request: its head and its body.
fn got(mut client: End, path: &str, host: &str) -> (String, String) {
    let line = format!("GET {path} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n");
    client.send(line.as_bytes());
    let head = client.head();
    (head, String::from_utf8(client.rest()).unwrap())
}

#[test]
fn what_a_file_may_hold_is_shown() {
    let example = run(["config", "example"]);
    assert!(example.status.success());
    let dir = TempDir::new();
    let file = dir.join("w.toml");
    fs::write(&file, &example.stdout).unwrap();
    let check = run(["check", file.to_str().unwrap()]);
    assert!(check.status.success(), "{}", complaint(&check));
    let schema = run(["config", "schema"]);
    let schema: Value = serde_json::from_slice(&schema.stdout).unwrap();
    assert_eq!(schema["type"], "object");
}

#[test]
fn a_probe_says_what_is_wrong() {
    let server = Server::start();
    let proxy = Proxy::relay(
        &[server.address],
        "[[route]]\nupstream = \"default\"\norigins = [\"https://example.com\"]\n\
         [[route]]\npath = \"/old\"\nredirect = \"/new\"\n",
    );
    let url = |path: &str| format!("ws://{}{path}", proxy.address);
    for (args, code, text) in [
        (vec!["probe".to_owned(), url("/chat")], 5, "403"),
        (vec!["probe".to_owned(), url("/old")], 5, "redirect"),
        (vec!["probe".to_owned(), "ftp://x/".to_owned()], 64, "ws, wss"),
    ] {
        let output = run(&args);
        assert_eq!(output.status.code(), Some(code), "{args:?}");
        let said = String::from_utf8_lossy(&output.stdout).into_owned() + &complaint(&output);
        assert!(said.contains(text), "{args:?}: {said}");
    }
    assert!(server.try_accept().is_none());
}
