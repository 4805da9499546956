//! Sessions on the packet path survive the program: `datapath.persist`.
#![cfg(target_os = "linux")]

mod support;

use std::{
    collections::BTreeSet,
    fs,
    net::SocketAddr,
    path::{Path, PathBuf},
    process::Command,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    thread::{self, JoinHandle},
    time::Duration,
};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;
use support::{
    BINARY, Peer, Proxy, Server, TempDir, complaint, config, opened, run, say, wait_for,
};

const SESSIONS: usize = 8;

/// A bpffs of its own, which goes away, and what is beside it.
struct Place {
    dir: TempDir,
    bpffs: PathBuf,
}

impl Place {
    /// `None`, said loudly, where nothing can be mounted.
    fn new() -> Option<Self> {
        if !support::is_root() {
            say("!!! SKIPPED: the packet path needs root");
            return None;
        }
        let dir = TempDir::new();
        let bpffs = dir.join("bpf");
        fs::create_dir(&bpffs).unwrap();
        let mounted = Command::new("mount").args(["-t", "bpf", "bpf"]).arg(&bpffs).status();
        assert!(mounted.unwrap().success());
        Some(Self { dir, bpffs })
    }

    fn config(&self, server: &Server, address: SocketAddr, more: &str) -> String {
        let path = |name: &str| self.dir.join(name).display().to_string();
        let text = config(
            &[server.address],
            &format!(
                "[datapath]\npersist = true\npersist_path = \"{}\"\nstate_dir = \"{}\"\n\
                 [[route]]\nupstream = \"default\"\nframes = false\n{more}\n",
                path("bpf/wsproxy"),
                path("state"),
            ),
        );
        let text = text.replacen("127.0.0.1:0", &address.to_string(), 1);
        text.replace("[admin]\n", &format!("[admin]\nsocket = \"{}\"\n", path("admin.sock")))
    }

    /// Runs the program; `address` is what it listens on.
    fn start(&self, server: &Server, address: SocketAddr, more: &str) -> Proxy {
        // Whoever was killed has left it.
        let _gone = fs::remove_file(self.dir.join("admin.sock"));
        let file = self.dir.join("wsproxy.toml");
        fs::write(&file, self.config(server, address, more)).unwrap();
        let mut command = Command::new(BINARY);
        command.args(["run", "--datapath", "packet", "--config"]).arg(&file);
        Proxy::spawn(command).unwrap_or_else(|log| panic!("no start:\n{log}"))
    }

    fn sessions(&self) -> Vec<Value> {
        let socket = self.dir.join("admin.sock");
        let output = run(["sessions", "--json", "--socket", socket.to_str().unwrap()]);
        assert!(output.status.success(), "{}", complaint(&output));
        let answer: Value = serde_json::from_slice(&output.stdout).unwrap();
        let list = answer.as_array().or_else(|| answer["sessions"].as_array());
        list.unwrap_or_else(|| panic!("{answer}")).clone()
    }

    fn numbers(&self) -> BTreeSet<u64> {
        self.sessions().iter().map(|session| session["id"].as_u64().unwrap()).collect()
    }

    fn nothing_is_left(&self) {
        assert!(!self.bpffs.join("wsproxy").exists());
        assert!(!self.dir.join("state").exists());
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        // What was pinned goes with it; a mount that stays fails no test.
        let _ = Command::new("umount").arg(&self.bpffs).status();
    }
}

/// Both ends of a session that talk, each message checked; they come back when told to stop.
struct Talk {
    stop: Arc<AtomicBool>,
    rounds: Arc<AtomicUsize>,
    ends: JoinHandle<(Peer, Peer)>,
}

impl Talk {
    fn start(mut client: Peer, mut upstream: Peer, number: usize) -> Self {
        let (stop, rounds) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicUsize::new(0)));
        let (told, counted) = (Arc::clone(&stop), Arc::clone(&rounds));
        let ends = thread::spawn(move || {
            while !told.load(Ordering::Relaxed) {
                let round = counted.load(Ordering::Relaxed);
                let length = 16 + round * 997 % 5_000;
                let there = format!("{number}>{round:<length$}");
                let back = format!("{number}<{round:<length$}");
                client.send(there.as_bytes());
                upstream.expect(there.as_bytes());
                upstream.send(back.as_bytes());
                client.expect(back.as_bytes());
                counted.fetch_add(1, Ordering::Relaxed);
                thread::sleep(Duration::from_millis(2));
            }
            (client, upstream)
        });
        Self { stop, rounds, ends }
    }

    /// Messages go both ways from now on, a few times.
    fn goes_on(&self) {
        let before = self.rounds.load(Ordering::Relaxed);
        wait_for("messages go both ways", || {
            assert!(!self.ends.is_finished(), "the session has ended");
            (self.rounds.load(Ordering::Relaxed) > before + 20).then_some(())
        });
    }

    fn stop(self) -> (Peer, Peer) {
        self.stop.store(true, Ordering::Relaxed);
        self.ends.join().unwrap()
    }
}

fn talks(proxy: &Proxy, server: &Server) -> Vec<Talk> {
    let talk = |number| {
        let (client, upstream, _) = opened(proxy, server, "");
        Talk::start(client, upstream, number)
    };
    let talks = (0..SESSIONS).map(talk).collect();
    proxy.wait_metric("wsproxy_sessions{datapath=\"packet\"}", |live| live == SESSIONS as u64);
    talks
}

fn adopted(proxy: &Proxy, result: &str) -> u64 {
    proxy.metric(&format!("wsproxy_sessions_adopted_total{{result=\"{result}\"}}"))
}

fn kill(mut proxy: Proxy) {
    kill_process(Pid::from_raw(proxy.pid() as i32).unwrap(), Signal::KILL).unwrap();
    assert!(!proxy.wait().success());
}

/// The program that each attachment runs, by `/proc/PID/fdinfo`.
fn attached(proxy: &Proxy) -> BTreeSet<String> {
    let mut programs = BTreeSet::new();
    for entry in fs::read_dir(format!("/proc/{}/fdinfo", proxy.pid())).unwrap() {
        let Ok(text) = fs::read_to_string(entry.unwrap().path()) else { continue };
        if text.contains("link_type") && text.contains("tcx") {
            programs.extend(text.lines().filter(|l| l.starts_with("prog_id")).map(str::to_owned));
        }
    }
    programs
}

/// A free address of loopback that nobody listens on.
fn any() -> SocketAddr {
    ([127, 0, 0, 1], 0).into()
}

fn drained(place: &Place, mut proxy: Proxy, talks: Vec<Talk>) {
    let mut ends: Vec<_> = talks.into_iter().map(Talk::stop).collect();
    proxy.terminate();
    for (client, upstream) in &mut ends {
        // FIN, not a reset, and nothing that nobody sent.
        assert_eq!((client.rest(), upstream.rest()), (Vec::new(), Vec::new()));
        client.finish();
        upstream.finish();
    }
    assert!(proxy.wait().success(), "{}", proxy.log_text());
    let ended = proxy.all_logged("session ended");
    let in_order = |end: &&Value| end["ended_by"] == "drained" && end["reset"] == false;
    assert_eq!(ended.iter().filter(in_order).count(), ends.len(), "{ended:?}");
    place.nothing_is_left();
}

#[test]
fn a_killed_program_costs_no_session_and_the_next_one_takes_them_over() {
    let Some(place) = Place::new() else { return };
    let server = Server::start();
    let first = place.start(&server, any(), "");
    let talks = talks(&first, &server);
    let (address, numbers, old) = (first.address, place.numbers(), attached(&first));
    assert_eq!((numbers.len(), old.len()), (SESSIONS, 1));
    kill(first);
    talks.iter().for_each(Talk::goes_on);

    let second = place.start(&server, address, "");
    assert_eq!(place.numbers(), numbers);
    assert!(place.sessions().iter().all(|session| session["datapath"] == "packet"));
    assert_eq!((adopted(&second, "adopted"), adopted(&second, "let_go")), (SESSIONS as u64, 0));
    // Its own program, in the attachment that was there.
    let new = attached(&second);
    assert!(new.len() == 1 && new != old, "{new:?}");
    talks.iter().for_each(Talk::goes_on);
    // Another session beside them, under another number.
    let (mut client, mut upstream, _) = opened(&second, &server, "");
    client.send(b"new");
    upstream.expect(b"new");
    assert_eq!(place.numbers().len(), SESSIONS + 1);
    client.finish();
    assert_eq!(upstream.rest(), b"");
    upstream.finish();
    assert_eq!(client.rest(), b"");
    wait_for("it ends", || (place.numbers() == numbers).then_some(()));
    kill(second);

    talks.iter().for_each(Talk::goes_on);
    let third = place.start(&server, address, "");
    assert_eq!(place.numbers(), numbers);
    drained(&place, third, talks);
}

#[test]
fn what_ends_while_nobody_looks_is_noticed_and_limits_go_on() {
    let Some(place) = Place::new() else { return };
    let server = Server::start();
    let first = place.start(&server, any(), "[timeouts]\nidle = \"3s\"");
    let mut talks = talks(&first, &server);
    let address = first.address;
    let numbers = place.numbers();
    kill(first);
    // One ends in order, one breaks, one falls silent, the others go on.
    let (mut client, mut upstream) = talks.remove(0).stop();
    client.finish();
    assert_eq!(upstream.rest(), b"");
    upstream.finish();
    assert_eq!(client.rest(), b"");
    let (client, broken) = talks.remove(0).stop();
    let linger = socket2::SockRef::from(&client.stream).set_linger(Some(Duration::ZERO));
    linger.unwrap();
    drop(client);
    wait_for("a reset", || broken.stream.take_error().unwrap());
    let (mut client, mut upstream) = talks.remove(0).stop();

    let second = place.start(&server, address, "[timeouts]\nidle = \"1h\"");
    assert_eq!(adopted(&second, "adopted"), numbers.len() as u64);
    let ends = |ending: &str| format!("wsproxy_session_ends_total{{ending=\"{ending}\"}}");
    second.wait_metric(&ends("client_finished"), |ends| ends == 1);
    second.wait_metric(&ends("client_broke"), |ends| ends == 1);
    // By the limit that it began with.
    assert_eq!((client.rest(), upstream.rest()), (Vec::new(), Vec::new()));
    client.finish();
    upstream.finish();
    second.wait_metric(&ends("idle_timeout"), |ends| ends == 1);
    talks.iter().for_each(Talk::goes_on);
    drained(&place, second, talks);
}

#[test]
fn other_sizes_leave_the_sessions_alone() {
    let Some(place) = Place::new() else { return };
    let server = Server::start();
    let sizes = |n: usize| format!("[limits]\nmax_sessions = {n}");
    let first = place.start(&server, any(), &sizes(100));
    let talks = talks(&first, &server);
    let address = first.address;
    kill(first);
    let second = place.start(&server, address, &sizes(200));
    assert_eq!((adopted(&second, "adopted"), adopted(&second, "left")), (0, SESSIONS as u64));
    talks.iter().for_each(Talk::goes_on);
    second.stop();
    talks.iter().for_each(Talk::goes_on);
    let third = place.start(&server, address, &sizes(100));
    assert_eq!((adopted(&third, "adopted"), adopted(&third, "left")), (SESSIONS as u64, 0));
    // The running one's sessions are nobody else's.
    let other = Command::new(BINARY)
        .args(["run", "--datapath", "packet", "--config"])
        .arg(place.dir.join("wsproxy.toml"))
        .output()
        .unwrap();
    assert!(!other.status.success());
    assert!(!complaint(&other).is_empty());
    talks.iter().for_each(Talk::goes_on);
    drained(&place, third, talks);
}

#[test]
fn what_is_no_bpffs_is_said() {
    let Some(place) = Place::new() else { return };
    let server = Server::start();
    let text = place.config(&server, any(), "").replace("/bpf/wsproxy", "/none");
    let file = place.dir.join("w.toml");
    fs::write(&file, &text).unwrap();
    let start = |file: &Path, datapath: &str| {
        let file = file.to_str().unwrap();
        let output = run(["run", "--datapath", datapath, "--config", file]);
        assert!(!output.status.success());
        complaint(&output)
    };
    let said = start(&file, "auto");
    assert!(said.contains("datapath.persist_path = ") && said.contains("bpffs"), "{said}");
    let said = start(&file, "relay");
    assert!(said.contains("datapath.persist needs the packet path"), "{said}");
}
