//! What the running program may do: nothing that it does not need, in every thread, and all that
//! it does need. Asked of the kernel (`/proc`), not of the program.
#![cfg(target_os = "linux")]

mod support;

use std::{
    fs,
    os::unix::fs::{PermissionsExt as _, chown},
    path::Path,
    process::{Command, Output},
};

use rustix::process::{Pid, Signal, kill_process};
use support::{
    BINARY, Peer, Proxy, Server, TempDir, complaint, config, finish, is_root,
    persist::{Home, Talk, kill},
    say, unprivileged, wait_for,
    ws::{FROM_CLIENT, FROM_SERVER, TEXT, frame},
};

/// A user without an entry, without any right.
const NOBODY: u32 = 65_534;
/// Bits of `CapEff` (`include/uapi/linux/capability.h`).
const NET_BIND_SERVICE: u64 = 1 << 10;
const NET_ADMIN: u64 = 1 << 12;
const NET_RAW: u64 = 1 << 13;
/// Every session goes to the kernel as soon as it can.
const AT_ONCE: &str = "[drain]\nwindow = \"off\"\n[datapath]\nsettle = \"off\"\n";

fn root() -> bool {
    if !is_root() {
        let promised = std::env::var_os("CI").is_some_and(|ci| ci == "true");
        assert!(!promised, "giving privileges up needs some");
        say("!!! SKIPPED: giving privileges up needs root (sudo)");
    }
    is_root()
}

/// A thread as the kernel sees it.
#[derive(Debug)]
struct Thread(String);

impl Thread {
    fn field(&self, name: &str) -> &str {
        let line = self.0.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
        line.unwrap_or_else(|| panic!("no {name} in {}", self.0)).trim()
    }

    fn set(&self, name: &str) -> u64 {
        u64::from_str_radix(self.field(name), 16).unwrap()
    }
}

/// All threads of a process; those that end meanwhile are left out.
fn threads(proxy: &Proxy) -> Vec<Thread> {
    let folder = format!("/proc/{}/task", proxy.pid());
    let tasks = fs::read_dir(folder).unwrap().flatten();
    tasks
        .filter_map(|task| fs::read_to_string(task.path().join("status")).ok().map(Thread))
        .collect()
}

/// Every thread has these capabilities, can get no others, and is this user.
fn assert_reduced(proxy: &Proxy, uid: u32, kept: u64, bounded: bool) {
    let threads = threads(proxy);
    // The main one, one for the rest, and two workers of each kind at the least.
    assert!(threads.len() >= 4, "{threads:?}");
    for thread in &threads {
        for set in ["CapEff", "CapPrm"] {
            assert_eq!(thread.set(set), kept, "{set} of {thread:?}");
        }
        for set in ["CapInh", "CapAmb"] {
            assert_eq!(thread.set(set), 0, "{set} of {thread:?}");
        }
        if bounded {
            assert_eq!(thread.set("CapBnd"), kept, "{thread:?}");
        }
        assert_eq!(thread.field("NoNewPrivs"), "1", "{thread:?}");
        // SECCOMP_MODE_FILTER
        assert_eq!(thread.field("Seccomp"), "2", "{thread:?}");
        let ids: Vec<u32> =
            thread.field("Uid").split_whitespace().map(|id| id.parse().unwrap()).collect();
        assert_eq!(ids, [uid; 4], "{thread:?}");
        let ids: Vec<u32> =
            thread.field("Gid").split_whitespace().map(|id| id.parse().unwrap()).collect();
        assert_eq!(ids, [uid; 4], "{thread:?}");
    }
}

/// Everybody may run it, as nobody and with these capabilities alone.
fn with_capabilities(dir: &TempDir, names: &[&str]) -> Command {
    let copy = dir.join("wsproxy");
    let status = Command::new("install").args(["-m", "755", BINARY]).arg(&copy).status().unwrap();
    assert!(status.success());
    let mut command = Command::new("setpriv");
    let user = NOBODY.to_string();
    command.args(["--reuid", &user, "--regid", &user, "--clear-groups"]);
    let set = names.iter().fold("-all".to_owned(), |set, name| format!("{set},+{name}"));
    for kind in ["--inh-caps", "--ambient-caps", "--bounding-set"] {
        command.args([kind, &set]);
    }
    command.arg("--").arg(copy);
    command
}

/// A run that is to end with an error.
fn refused(mut command: Command, dir: &TempDir, text: &str, datapath: &str) -> Output {
    let file = dir.join("refused.toml");
    fs::write(&file, text).unwrap();
    let output = finish(command.args(["run", "--datapath", datapath, "--config"]).arg(file));
    assert!(!output.status.success(), "{}", complaint(&output));
    output
}

/// Bytes of ended and living sessions that `path` carried to the server.
fn carried(proxy: &Proxy, path: &str) -> u64 {
    let labels = format!("datapath=\"{path}\",direction=\"to_upstream\"");
    proxy.metric(&format!("wsproxy_session_bytes_total{{{labels}}}"))
}

/// A message each way.
fn message(client: &mut Peer, server: &mut Peer) {
    let there = frame(TEXT, FROM_CLIENT, b"to the server");
    client.send(&there);
    server.expect(&there);
    let back = frame(TEXT, FROM_SERVER, b"to the client");
    server.send(&back);
    client.expect(&back);
}

/// A session whose messages come to be carried by `path`.
fn carries(proxy: &Proxy, server: &Server, path: &str) -> (Peer, Peer) {
    let (mut client, mut upstream, _) = support::opened(proxy, server, "");
    wait_for("the path carries bytes", || {
        message(&mut client, &mut upstream);
        (carried(proxy, path) > 0).then_some(())
    });
    (client, upstream)
}

#[test]
fn without_any_right_it_relays_and_says_what_is_missing() {
    let (server, dir) = (Server::start(), TempDir::new());
    let text = config(&[server.address], AT_ONCE);
    let proxy = Proxy::with_file(unprivileged(&dir), &text, "auto");
    carries(&proxy, &server, "relay");
    assert_eq!(proxy.metric("wsproxy_datapath_fallback_total{reason=\"no_permission\"}"), 1);
    for thread in threads(&proxy) {
        assert_eq!(thread.set("CapPrm"), 0, "{thread:?}");
        assert_eq!(thread.field("NoNewPrivs"), "1", "{thread:?}");
    }
    proxy.stop();
    for datapath in ["sockmap", "packet"] {
        let said = complaint(&refused(unprivileged(&dir), &dir, &text, datapath));
        for name in ["CAP_BPF", "CAP_NET_ADMIN", "CAP_PERFMON"] {
            assert!(said.contains(name), "{datapath}: {said}");
        }
    }
}

#[test]
fn the_one_capability_that_is_missing_is_named() {
    if !root() {
        return;
    }
    let (server, dir) = (Server::start(), TempDir::new());
    let text = config(&[server.address], "");
    const ALL: [&str; 3] = ["bpf", "net_admin", "perfmon"];
    for missing in ALL {
        let others: Vec<_> = ALL.into_iter().filter(|name| *name != missing).collect();
        let said = complaint(&refused(with_capabilities(&dir, &others), &dir, &text, "sockmap"));
        for name in ALL {
            let named = said.contains(&format!("CAP_{}", name.to_uppercase()));
            assert_eq!(named, name == missing, "without {missing}: {said}");
        }
    }
}

#[test]
fn with_capabilities_alone_the_kernel_carries_and_the_rest_is_dropped() {
    if !root() {
        return;
    }
    let (server, dir) = (Server::start(), TempDir::new());
    let text = config(&[server.address], AT_ONCE);
    let names = ["bpf", "net_admin", "perfmon", "net_bind_service"];
    for (path, kept) in [("sockmap", NET_BIND_SERVICE), ("packet", NET_BIND_SERVICE | NET_ADMIN)] {
        let proxy = Proxy::with_file(with_capabilities(&dir, &names), &text, path);
        let _session = carries(&proxy, &server, path);
        // Without CAP_SETPCAP the bounding set is as it was given.
        assert_reduced(&proxy, NOBODY, kept, false);
        proxy.stop();
    }
}

#[test]
fn root_without_a_user_keeps_its_number_and_nothing_else() {
    if !root() {
        return;
    }
    let (server, dir) = (Server::start(), TempDir::new());
    let file = dir.join("wsproxy.toml");
    let with_user = |more: &str| {
        let user = "[process]\nuser = \"root\"\n";
        fs::write(&file, config(&[server.address], &format!("{AT_ONCE}{user}{more}"))).unwrap();
    };
    with_user("");
    let mut command = Command::new(BINARY);
    command.args(["run", "--datapath", "sockmap", "--config"]).arg(&file);
    let proxy = Proxy::spawn(command).unwrap();
    let session = carries(&proxy, &server, "sockmap");
    assert_reduced(&proxy, 0, NET_BIND_SERVICE, true);
    // A reload is done by the same process; what it gave up it has not.
    let change = |message: &str, before: usize| {
        let pid = Pid::from_raw(proxy.pid() as i32).unwrap();
        kill_process(pid, Signal::HUP).unwrap();
        wait_for(message, || (proxy.all_logged(message).len() > before).then_some(()));
    };
    with_user("[timeouts]\nhalf_closed = \"50s\"\n");
    change("configuration reloaded", 0);
    let text = fs::read_to_string(&file).unwrap();
    fs::write(&file, text.replace("[upstream]\n", "[upstream]\ntransparent = true\n")).unwrap();
    change("the configuration was not reloaded; the old one stays in force", 0);
    let said = proxy.log_text();
    assert!(said.contains("upstream.transparent needs a restart"), "{said}");
    let (mut client, mut upstream) = session;
    message(&mut client, &mut upstream);
    assert_reduced(&proxy, 0, NET_BIND_SERVICE, true);
    drop((client, upstream));
    proxy.stop();
}

#[test]
fn transparent_connections_keep_the_lesser_capability() {
    if !root() {
        return;
    }
    let (server, dir) = (Server::start(), TempDir::new());
    let text = config(&[server.address], "");
    let text = text.replace("[upstream]\n", "[upstream]\ntransparent = true\n");
    let proxy = Proxy::with_file(Command::new(BINARY), &text, "relay");
    assert_reduced(&proxy, 0, NET_BIND_SERVICE | NET_RAW, true);
    carries(&proxy, &server, "relay");
    drop(dir);
    proxy.stop();
}

/// As another user: what a running program still has to do with files and sockets.
#[test]
fn as_its_user_it_reloads_reopens_and_opens_low_ports() {
    if !root() {
        return;
    }
    let (server, dir) = (Server::start(), TempDir::new());
    let logs = dir.join("logs");
    fs::create_dir(&logs).unwrap();
    chown(&logs, Some(NOBODY), Some(NOBODY)).unwrap();
    let (file, log, socket) =
        (dir.join("w.toml"), logs.join("access.log"), logs.join("admin.sock"));
    let text = config(&[server.address], AT_ONCE)
        .replace("[admin]\n", &format!("[admin]\nsocket = \"{}\"\n", socket.display()))
        + &format!(
            "[process]\nuser = \"{NOBODY}\"\n[access_log]\nformat = \"json\"\npath = \"{}\"\n",
            log.display()
        );
    fs::write(&file, &text).unwrap();
    let mut command = Command::new(BINARY);
    command.args(["run", "--datapath", "packet", "--config"]).arg(&file);
    let proxy = Proxy::spawn(command).unwrap();
    let pid = Pid::from_raw(proxy.pid() as i32).unwrap();
    let kept = NET_BIND_SERVICE | NET_ADMIN;
    drop(carries(&proxy, &server, "packet"));
    assert_reduced(&proxy, NOBODY, kept, true);

    let written = |path: &Path| fs::read_to_string(path).is_ok_and(|text| !text.is_empty());
    wait_for("a line of the session", || written(&log).then_some(()));
    fs::rename(&log, logs.join("old")).unwrap();
    kill_process(pid, Signal::USR1).unwrap();
    wait_for("a new log", || log.exists().then_some(()));
    drop(carries(&proxy, &server, "packet"));
    wait_for("a line in it", || written(&log).then_some(()));

    let low =
        (900..1024).rev().find(|port| std::net::TcpListener::bind(("127.0.0.1", *port)).is_ok());
    let low = low.expect("a free low port");
    let more = format!("{text}[[listener]]\nname = \"low\"\naddress = \"127.0.0.1:{low}\"\n");
    fs::write(&file, more.replacen("[listener]\n", "[[listener]]\nname = \"high\"\n", 1)).unwrap();
    kill_process(pid, Signal::HUP).unwrap();
    wait_for("the low port", || std::net::TcpStream::connect(("127.0.0.1", low)).ok());
    assert_reduced(&proxy, NOBODY, kept, true);
    assert!(socket.exists());
    proxy.stop();
    assert!(!socket.exists(), "the admin socket stays");
}

#[test]
fn a_user_who_cannot_read_a_certificate_is_refused_before_it_matters() {
    if !root() {
        return;
    }
    let (server, dir) = (Server::start(), TempDir::new());
    let secret = dir.join("secret");
    fs::create_dir(&secret).unwrap();
    fs::set_permissions(&secret, fs::Permissions::from_mode(0o700)).unwrap();
    let route = format!(
        "[process]\nuser = \"{NOBODY}\"\n[[route]]\npath = \"/\"\nfiles = \"{}\"\n",
        secret.display()
    );
    let text = config(&[server.address], &route);
    let said = complaint(&refused(Command::new(BINARY), &dir, &text, "relay"));
    assert!(said.contains(&secret.display().to_string()), "{said}");
    assert!(said.contains("cannot be read by this user"), "{said}");
    let check = finish(Command::new(BINARY).arg("check").arg(dir.join("refused.toml")));
    assert_eq!(check.status.code(), Some(78), "{}", complaint(&check));
    assert!(complaint(&check).contains("cannot be read by this user"), "{}", complaint(&check));

    for (line, expected) in [
        ("user = \"nobody-knows\"", "process.user = \"nobody-knows\": there is no such user"),
        ("user = \"1\"\ngroup = \"nobody-knows\"", "process.group = \"nobody-knows\""),
    ] {
        let text = config(&[server.address], &format!("[process]\n{line}\n"));
        let said = complaint(&refused(Command::new(BINARY), &dir, &text, "relay"));
        assert!(said.contains(expected), "{said}");
    }
    // Who is not root can't become anybody else.
    let text = config(&[server.address], "[process]\nuser = \"1\"\n");
    let said = complaint(&refused(unprivileged(&dir), &dir, &text, "relay"));
    assert!(said.contains("CAP_SETUID"), "{said}");
}

/// Runs with a log in a folder of its own; `process` are keys of `[process]`.
fn with_log(dir: &TempDir, server: &Server, process: &str) -> Proxy {
    let logs = dir.join("logs");
    // It may be there from another run.
    let _there = fs::create_dir(&logs);
    let more = format!(
        "[process]\nuser = \"root\"\n{process}\n[access_log]\nformat = \"json\"\npath = \"{}\"\n",
        logs.join("access.log").display()
    );
    let file = dir.join("w.toml");
    fs::write(&file, config(&[server.address], &more)).unwrap();
    let mut command = Command::new(BINARY);
    command.args(["run", "--datapath", "relay", "--config"]).arg(&file);
    Proxy::spawn(command).unwrap_or_else(|log| panic!("no start:\n{log}"))
}

fn signal(proxy: &Proxy, signal: Signal) {
    kill_process(Pid::from_raw(proxy.pid() as i32).unwrap(), signal).unwrap();
}

/// The kernel's own refusal: the log is opened through a link that somebody has put there.
#[test]
fn a_link_out_of_the_folders_of_the_configuration_leads_nowhere() {
    if !root() {
        return;
    }
    let (server, dir) = (Server::start(), TempDir::new());
    let (outside, log) = (dir.join("outside"), dir.join("logs/access.log"));
    fs::create_dir(&outside).unwrap();
    const REFUSED: &str = "the access log can't be opened again: the old file stays in use";
    for landlock in [true, false] {
        let proxy = with_log(&dir, &server, &format!("landlock = {landlock}"));
        let told = proxy.logged("privileges given up").unwrap();
        if landlock && !told["landlock"].as_str().unwrap().starts_with("on") {
            say("!!! SKIPPED: this kernel has no Landlock");
            return;
        }
        fs::rename(&log, dir.join("logs/old")).unwrap();
        let target = outside.join("written");
        std::os::unix::fs::symlink(&target, &log).unwrap();
        signal(&proxy, Signal::USR1);
        wait_for("an answer to SIGUSR1", || {
            (proxy.logged(REFUSED).is_some() || target.exists()).then_some(())
        });
        assert_eq!(target.exists(), !landlock);
        fs::remove_file(&log).unwrap();
        proxy.stop();
    }
}

#[test]
fn a_reload_that_names_a_new_folder_needs_a_restart() {
    if !root() {
        return;
    }
    let (server, dir) = (Server::start(), TempDir::new());
    let proxy = with_log(&dir, &server, "");
    let file = dir.join("w.toml");
    let text = fs::read_to_string(&file).unwrap();
    // Beside the configuration: it may be read as that is.
    let inside = dir.join("html");
    fs::create_dir(&inside).unwrap();
    let reload = |folder: &Path| {
        let route = format!("[[route]]\npath = \"/f\"\nfiles = \"{}\"\n", folder.display());
        fs::write(&file, format!("{text}{route}[[route]]\nupstream = \"default\"\n")).unwrap();
        signal(&proxy, Signal::HUP);
    };
    reload(&inside);
    wait_for("a reload", || proxy.logged("configuration reloaded"));
    let elsewhere = TempDir::new();
    reload(&elsewhere.join(""));
    const KEPT: &str = "the configuration was not reloaded; the old one stays in force";
    wait_for("a refusal", || proxy.logged(KEPT));
    let said = proxy.log_text();
    assert!(said.contains("route.files: outside of what this process may read"), "{said}");
    assert!(said.contains("needs a restart"), "{said}");
    proxy.stop();
}

#[test]
fn what_is_not_wanted_is_off() {
    if !root() {
        return;
    }
    let (server, dir) = (Server::start(), TempDir::new());
    let proxy = with_log(&dir, &server, "seccomp = false\nlandlock = false");
    let told = proxy.logged("privileges given up").unwrap();
    assert_eq!((&told["seccomp"], &told["landlock"]), (&"off".into(), &"off".into()));
    for thread in threads(&proxy) {
        assert_eq!(thread.field("Seccomp"), "0", "{thread:?}");
    }
    proxy.stop();
}

#[test]
fn sessions_are_taken_over_by_a_process_of_another_user() {
    if !root() {
        return;
    }
    let (home, server) = (Home::new(), Server::start());
    let file = home.dir.join("wsproxy.toml");
    let process = format!("[process]\nuser = \"{NOBODY}\"\n");
    let more =
        format!("{}settle = \"off\"\n[limits]\nmax_sessions = 64\n{process}", home.datapath());
    let start = || {
        let mut command = Command::new(BINARY);
        command.args(["run", "--datapath", "packet", "--config"]).arg(&file);
        fs::write(&file, config(&[server.address], &more)).unwrap();
        Proxy::spawn(command).unwrap_or_else(|log| panic!("no start:\n{log}"))
    };
    let first = start();
    let (client, upstream, _) = support::opened(&first, &server, "");
    let talk = Talk::start(client, upstream, 1);
    home.keeps(1);
    assert_reduced(&first, NOBODY, NET_BIND_SERVICE | NET_ADMIN, true);
    kill(first);
    talk.goes_on();
    let second = start();
    talk.goes_on();
    assert_eq!(second.metric("wsproxy_sessions_adopted_total{result=\"adopted\"}"), 1);
    assert_reduced(&second, NOBODY, NET_BIND_SERVICE | NET_ADMIN, true);
    drop(talk.stop());
    wait_for("the session is over", || home.files().is_empty().then_some(()));
    second.stop();
}
