//! The gateway between programs that know nothing of it: Socket.IO over two servers, nginx as an
//! upstream, curl, openssl, a browser that comes by TLS.

use std::{
    fs,
    net::SocketAddr,
    path::Path,
    process::Command,
    thread::sleep,
    time::{Duration, Instant},
};

use super::{Bench, Datapath, METRICS_LIMIT, Peer, Proxy, Started, free_addresses, loopback};

fn configured(bench: &Bench, datapath: Datapath, text: &str) -> Proxy {
    let [listen, admin] = free_addresses();
    let file = bench.logs.join(format!("{}.toml", listen.port()));
    let text = text.replace("LISTEN", &listen.to_string());
    fs::write(&file, text.replace("PORT", &listen.port().to_string())).unwrap();
    let mut command = Command::new(&bench.wsproxy);
    command.args(["run", "--datapath", datapath.name(), "--config"]).arg(file);
    command.args(["--admin", &admin.to_string()]);
    Proxy::spawn(bench, command, listen, admin)
}

/// A self-signed certificate for this machine, made by openssl.
fn certificate(bench: &Bench) -> [String; 2] {
    let [certificate, key] =
        ["c.pem", "k.pem"].map(|name| bench.logs.join(name).to_str().unwrap().to_owned());
    let mut command = Command::new("openssl");
    command.args(["req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256"]);
    command.args(["-nodes", "-days", "2", "-subj", "/CN=localhost"]);
    command.args(["-addext", "subjectAltName=DNS:localhost,IP:127.0.0.1"]);
    command.args(["-addext", "basicConstraints=critical,CA:FALSE"]);
    command.args(["-keyout", &key, "-out", &certificate]);
    bench.finish(&mut command);
    [certificate, key]
}

pub(super) fn listening(server: &mut Started) -> SocketAddr {
    let mut port = None;
    server.wait_until("prints LISTENING port", |server| {
        let printed = server.stdout();
        let line = printed.strip_prefix("LISTENING ").and_then(|l| l.strip_suffix('\n'));
        port = line.map(|p| p.parse::<u16>().expect("a port"));
        port.is_some()
    });
    loopback(port.unwrap())
}

fn socket_io(datapath: Datapath) {
    let Some(bench) = Bench::new(datapath) else { return };
    let mut servers: Vec<_> = (0..2)
        .map(|_| {
            let mut command = bench.script(Peer::Node, "", "socketio.js");
            Started::new(command.arg("server"), &bench.logs)
        })
        .collect();
    let [one, two] = [0, 1].map(|at| listening(&mut servers[at]));
    let proxy = configured(
        &bench,
        datapath,
        &format!(
            "[listener]\naddress = \"LISTEN\"\n[upstream]\nservers = [\"{one}\", \"{two}\"]\n\
             sticky_cookie = \"where\"\n[datapath]\nsettle = \"off\"\n"
        ),
    );
    let before = proxy.metrics();
    let mut command = bench.script(Peer::Node, "", "socketio.js");
    let printed = bench.finish(command.args(["client", &format!("http://{}", proxy.listen), "8"]));
    let summary: serde_json::Value = serde_json::from_str(&printed).expect("JSON");
    assert_eq!(summary["upgraded"], 8, "{printed}");
    assert_eq!(summary["servers"], 2, "{printed}");
    proxy.assert_carried(datapath, &before, 8.0);
}

#[test]
fn relay_socket_io_over_two_servers() {
    socket_io(Datapath::Relay);
}

#[test]
fn sockmap_socket_io_over_two_servers() {
    socket_io(Datapath::Sockmap);
}

#[test]
fn curl_and_openssl_by_tls_with_nginx_behind() {
    let Some(bench) = Bench::new(Datapath::Relay) else { return };
    let [certificate, key] = certificate(&bench);
    let [nginx_at, _] = free_addresses();
    let folder = bench.logs.display();
    let body = "0123456789".repeat(20_000);
    fs::write(bench.logs.join("large.txt"), &body).unwrap();
    let conf = format!(
        "daemon off; master_process off; pid {folder}/nginx.pid; error_log {folder}/error.log;\n\
         events {{}}\nhttp {{ access_log off; client_body_temp_path {folder}/b;\n\
         proxy_temp_path {folder}/p; fastcgi_temp_path {folder}/f; uwsgi_temp_path {folder}/u;\n\
         scgi_temp_path {folder}/s; server {{ listen {nginx_at}; root {folder};\n\
         location /who {{ return 200 \"$http_x_forwarded_proto $http_x_real_ip $http_host\\n\"; }} }} }}\n"
    );
    let file = bench.logs.join("nginx.conf");
    fs::write(&file, conf).unwrap();
    let mut nginx = Command::new("nginx");
    let mut nginx = Started::new(nginx.arg("-c").arg(file), &bench.logs);
    nginx.wait_until("listens", |_| std::net::TcpStream::connect(nginx_at).is_ok());
    let proxy = configured(
        &bench,
        Datapath::Relay,
        &format!(
            "[listener]\naddress = \"LISTEN\"\n[listener.tls]\n\
             certificates = [{{ certificate = \"{certificate}\", key = \"{key}\" }}]\n\
             [upstream]\nservers = [\"{nginx_at}\"]\n"
        ),
    );
    let url = |path: &str| format!("https://localhost:{}{path}", proxy.listen.port());
    let curl = |args: &[&str]| {
        let mut command = Command::new("curl");
        command.args(["--silent", "--show-error", "--cacert", &certificate]).args(args);
        bench.finish(&mut command)
    };
    let who = curl(&[&url("/who")]);
    assert_eq!(who, format!("https 127.0.0.1 localhost:{}\n", proxy.listen.port()));
    assert_eq!(curl(&[&url("/large.txt")]), body);
    assert_eq!(curl(&["--range", "5-9", &url("/large.txt")]), "56789");
    assert_eq!(
        curl(&["--http1.0", "--output", "/dev/null", "-w", "%{http_code}", &url("/no")]),
        "404"
    );
    let upload = bench.logs.join("large.txt");
    let upload = upload.to_str().unwrap();
    // nginx has nothing that takes an upload: it says so only after it has read it.
    for chunked in [false, true] {
        let mut args = vec!["--upload-file", upload, "-w", "%{http_code}", "--output", "/dev/null"];
        if chunked {
            args.extend(["-H", "Transfer-Encoding: chunked"]);
        }
        let url = url("/large.txt");
        args.push(&url);
        assert_eq!(curl(&args), "405", "{chunked}");
    }
    let mut openssl = Command::new("openssl");
    openssl.args(["s_client", "-connect", &proxy.listen.to_string(), "-servername", "localhost"]);
    openssl.args(["-CAfile", &certificate, "-verify_return_error", "-alpn", "h2,http/1.1"]);
    let said = bench.finish(&mut openssl);
    assert!(said.contains("Verify return code: 0 (ok)"), "{said}");
    assert!(said.contains("ALPN protocol: http/1.1"), "{said}");
}

#[test]
fn relay_chromium_on_a_static_page_by_tls() {
    chromium_by_tls(Datapath::Relay);
}

#[test]
fn sockmap_chromium_on_a_static_page_by_tls() {
    chromium_by_tls(Datapath::Sockmap);
}

/// A browser gets a page, its style and its script from a directory, and the script talks to the
/// server behind `/ws`, all through one TLS listener. Twice: the second time it has the files.
fn chromium_by_tls(datapath: Datapath) {
    let Some(bench) = Bench::new(datapath) else { return };
    let [certificate, key] = certificate(&bench);
    let (_server, upstream) = bench.server(Peer::Node);
    let page = bench.scripts.join("page");
    let log = bench.logs.join("access.log");
    let proxy = configured(
        &bench,
        datapath,
        &format!(
            "[listener]\naddress = \"LISTEN\"\n[listener.tls]\n\
             certificates = [{{ certificate = \"{certificate}\", key = \"{key}\" }}]\n\
             [upstream]\nservers = [\"{upstream}\"]\n\
             [[route]]\nname = \"echo\"\npath = \"/ws\"\nupstream = \"default\"\n\
             websocket = \"only\"\norigins = [\"https://localhost:PORT\"]\n\
             [[route]]\nname = \"page\"\nfiles = \"{}\"\n\
             [access_log]\nformat = \"json\"\npath = \"{}\"\n",
            page.display(),
            log.display(),
        ),
    );
    let before = proxy.metrics();
    let url = format!("https://localhost:{}/", proxy.listen.port());
    let mut command = bench.script(Peer::Node, "", "chromium_tls.js");
    let printed = bench.finish(command.args(["--url", &url, "--certificate", &certificate]));
    let summary: serde_json::Value = serde_json::from_str(&printed).expect("JSON");
    assert_eq!(summary["said"], format!("ok wss://localhost:{}/ws", proxy.listen.port()));
    assert_eq!(summary["protocol"], "TLS 1.3", "{printed}");
    // Whichever path was asked for: the kernel has no keys.
    proxy.assert_carried(Datapath::Relay, &before, 2.0);
    let after = proxy.metrics();
    let handshakes = "wsproxy_tls_handshakes_total{result=\"ok\"} ";
    assert!(sample(&after, handshakes) >= 1.0, "{after}");
    let served = "wsproxy_requests_total{route=\"page\",status=\"2xx\"} ";
    assert!(sample(&after, served) >= 3.0, "{after}");

    let entries = entries(&log, 2);
    let of = |kind: &str, target: &str, status: u16| -> Vec<&serde_json::Value> {
        let is = |entry: &&serde_json::Value| {
            entry["kind"] == kind && entry["target"] == target && entry["status"] == status
        };
        entries.iter().filter(is).collect()
    };
    for entry in &entries {
        assert_eq!(entry["scheme"], "https", "{entry}");
        assert_eq!(entry["tls_version"], "TLSv1.3", "{entry}");
    }
    for target in ["/", "/page.css", "/page.js"] {
        assert_eq!(of("request", target, 200).len(), 1, "{target}: {entries:?}");
    }
    assert!(!of("request", "/", 304).is_empty(), "{entries:?}");
    let sessions = of("session", "/ws", 101);
    assert_eq!(sessions.len(), 2, "{entries:?}");
    for session in sessions {
        assert_eq!(session["datapath"], "relay");
        assert_eq!(session["route"], "echo");
        assert_eq!(session["upstream"], upstream.to_string());
        let bytes = |key: &str| session[key].as_u64().unwrap();
        assert!(bytes("bytes_to_client") > 0 && bytes("bytes_to_upstream") > 0, "{session}");
        assert_eq!(bytes("kernel_bytes_to_client"), 0, "{session}");
    }
}

fn sample(metrics: &str, name: &str) -> f64 {
    metrics.lines().find_map(|line| line.strip_prefix(name)?.parse().ok()).unwrap_or(0.0)
}

/// The lines of an access log, once so many sessions are in it: it is written behind the traffic.
fn entries(log: &Path, sessions: usize) -> Vec<serde_json::Value> {
    let deadline = Instant::now() + METRICS_LIMIT;
    loop {
        let text = fs::read_to_string(log).unwrap_or_default();
        // The last line may be under way.
        let whole = text.rsplit_once('\n').map_or("", |(whole, _)| whole);
        let read = |line| serde_json::from_str::<serde_json::Value>(line).expect("a line of JSON");
        let entries: Vec<_> = whole.lines().map(read).collect();
        if entries.iter().filter(|entry| entry["kind"] == "session").count() >= sessions {
            return entries;
        }
        assert!(Instant::now() < deadline, "fewer than {sessions} sessions in:\n{text}");
        sleep(Duration::from_millis(50));
    }
}
