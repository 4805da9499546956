//! Sessions on the packet path survive the program: `datapath.persist`.
#![cfg(target_os = "linux")]

#[path = "persist/adopted.rs"]
mod adopted;
mod support;

use std::{
    collections::BTreeSet,
    fs,
    io::{self, Write as _},
    mem,
    net::SocketAddr,
    os::fd::AsFd as _,
    path::Path,
    process::Command,
    thread,
    time::Duration,
};

use aya::maps::{Array, Map, MapData};
use serde_json::Value;
use support::{
    BINARY, Peer, Proxy, Server, complaint, config, datapath, opened,
    persist::{Home, Talk, kill},
    run, say, wait_for,
    ws::{FROM_CLIENT, FROM_SERVER, Frames as _, TEXT, close, frame, parted},
};
use wsproxy::{
    datapath::{Mode, Options, Persist},
    sys::unacknowledged,
};
use wsproxy_common::{
    Direction,
    direction::KEEPS,
    layout,
    packet::{Flow, State},
};

const SESSIONS: usize = 8;

/// `None`, said loudly, where nothing can be mounted.
fn home() -> Option<Home> {
    let root = support::is_root();
    if !root {
        say("!!! SKIPPED: the packet path needs root");
    }
    root.then(Home::new)
}

fn text_of(home: &Home, server: &Server, address: SocketAddr, more: &str) -> String {
    let more = format!("{}{more}", home.datapath());
    let text = config(&[server.address], &more);
    let text = text.replacen("127.0.0.1:0", &address.to_string(), 1);
    let text = text.replace("[listener]\n", "[listener]\nname = \"door\"\n");
    let socket = home.dir.join("admin.sock").display().to_string();
    text.replace("[admin]\n", &format!("[admin]\nsocket = \"{socket}\"\n"))
}

/// Runs the program; `address` is what it listens on.
fn start(home: &Home, server: &Server, address: SocketAddr, more: &str) -> Proxy {
    // Whoever was killed has left it.
    let _gone = fs::remove_file(home.dir.join("admin.sock"));
    let file = home.dir.join("wsproxy.toml");
    fs::write(&file, text_of(home, server, address, more)).unwrap();
    let mut command = Command::new(BINARY);
    command.args(["run", "--datapath", "packet", "--config"]).arg(&file);
    Proxy::spawn(command).unwrap_or_else(|log| panic!("no start:\n{log}"))
}

fn sessions(home: &Home) -> Vec<Value> {
    let socket = home.dir.join("admin.sock");
    let output = run(["sessions", "--json", "--socket", socket.to_str().unwrap()]);
    assert!(output.status.success(), "{}", complaint(&output));
    let answer: Value = serde_json::from_slice(&output.stdout).unwrap();
    let list = answer.as_array().or_else(|| answer["sessions"].as_array());
    list.unwrap_or_else(|| panic!("{answer}")).clone()
}

fn numbers(home: &Home) -> BTreeSet<u64> {
    sessions(home).iter().map(|session| session["id"].as_u64().unwrap()).collect()
}

fn talks(home: &Home, proxy: &Proxy, server: &Server) -> Vec<Talk> {
    let talk = |number| {
        let (client, upstream, _) = opened(proxy, server, "");
        Talk::start(client, upstream, number)
    };
    let talks = (0..SESSIONS).map(talk).collect();
    home.keeps(SESSIONS);
    talks
}

fn adopted(proxy: &Proxy, result: &str) -> u64 {
    proxy.metric(&format!("wsproxy_sessions_adopted_total{{result=\"{result}\"}}"))
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

/// How sessions end that are drained.
#[derive(Clone, Copy, PartialEq)]
enum Told {
    /// Their frames are followed: by Close frames.
    Close,
    Fin,
}

/// A stop ends all sessions in order, and their lines have all that was ever said in them.
fn drained(home: &Home, mut proxy: Proxy, talks: Vec<Talk>, told: Told) {
    let mut ends: Vec<_> = talks.into_iter().map(Talk::stop_and_count).collect();
    proxy.terminate();
    for ((client, upstream), _) in &mut ends {
        match told {
            Told::Close => parted(client, upstream, 1001, "going away"),
            // FIN, not a reset, and nothing that nobody sent.
            Told::Fin => assert_eq!((client.rest(), upstream.rest()), (Vec::new(), Vec::new())),
        }
        client.finish();
        upstream.finish();
    }
    assert!(proxy.wait().success(), "{}", proxy.log_text());
    let mut ended = proxy.all_logged("session ended");
    ended.retain(|end| end["ended_by"] == "drained" && end["reset"] == false);
    assert_eq!(ended.len(), ends.len(), "{}", proxy.log_text());
    // Their numbers need not be in the order in which they were opened.
    ended.sort_by_key(bytes_of);
    ends.sort_by_key(|(_, said)| said.bytes);
    for (end, (_, said)) in ended.iter().zip(ends) {
        assert_eq!(bytes_of(end), said.bytes, "{end}");
        if told == Told::Close {
            let messages = ["messages_to_upstream", "messages_to_client"].map(|key| &end[key]);
            assert_eq!(messages, [said.messages; 2], "{end}");
        }
    }
    assert!(home.is_empty());
}

/// Bytes of both directions in the line of a session.
fn bytes_of(end: &Value) -> [u64; 2] {
    ["to_upstream", "to_client"].map(|way| {
        let of = |path| end[format!("{way}_{path}_bytes")].as_u64().unwrap();
        of("kernel") + of("relay") + of("packet")
    })
}

/// Their frames are not followed.
const PLAIN: &str = "[[route]]\nupstream = \"default\"\nframes = false\n";

#[test]
fn a_killed_program_costs_no_session_and_the_next_one_takes_them_over() {
    survive(PLAIN, Told::Fin);
}

#[test]
fn sessions_whose_frames_were_followed_go_on_too() {
    survive("", Told::Close);
}

fn survive(route: &str, told: Told) {
    let Some(home) = home() else { return };
    let server = Server::start();
    let first = start(&home, &server, any(), route);
    let talks = talks(&home, &first, &server);
    let (address, all, old) = (first.address, numbers(&home), attached(&first));
    assert_eq!((all.len(), old.len()), (SESSIONS, 1));
    kill(first);
    talks.iter().for_each(Talk::goes_on);

    let second = start(&home, &server, address, route);
    assert_eq!(numbers(&home), all);
    let frames = if told == Told::Close { "on" } else { "off" };
    let is_as_it_was = |s: &Value| s["datapath"] == "packet" && s["frames"] == frames;
    assert!(sessions(&home).iter().all(is_as_it_was), "{:?}", sessions(&home));
    assert_eq!((adopted(&second, "adopted"), adopted(&second, "let_go")), (SESSIONS as u64, 0));
    // Its own program, in the attachment that was there.
    let new = attached(&second);
    assert!(new.len() == 1 && new != old, "{new:?}");
    talks.iter().for_each(Talk::goes_on);
    // Another session beside them, under another number.
    let (mut client, mut upstream, _) = opened(&second, &server, "");
    let message = frame(TEXT, FROM_CLIENT, b"new");
    client.send(&message);
    upstream.expect(&message);
    assert_eq!(numbers(&home).len(), SESSIONS + 1);
    client.finish();
    assert_eq!(upstream.rest(), b"");
    upstream.finish();
    assert_eq!(client.rest(), b"");
    wait_for("it ends", || (numbers(&home) == all).then_some(()));
    home.keeps(SESSIONS);
    kill(second);

    talks.iter().for_each(Talk::goes_on);
    let third = start(&home, &server, address, route);
    assert_eq!(numbers(&home), all);
    drained(&home, third, talks, told);
}

#[test]
fn what_ends_while_nobody_looks_is_noticed_and_limits_go_on() {
    let Some(home) = home() else { return };
    let server = Server::start();
    let first = start(&home, &server, any(), &format!("{PLAIN}[timeouts]\nidle = \"3s\""));
    let mut talks = talks(&home, &first, &server);
    let address = first.address;
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

    let second = start(&home, &server, address, &format!("{PLAIN}[timeouts]\nidle = \"1h\""));
    assert_eq!(adopted(&second, "adopted"), SESSIONS as u64);
    let ends = |ending: &str| format!("wsproxy_session_ends_total{{ending=\"{ending}\"}}");
    second.wait_metric(&ends("client_finished"), |ends| ends == 1);
    second.wait_metric(&ends("client_broke"), |ends| ends == 1);
    // By the limit that it began with.
    assert_eq!((client.rest(), upstream.rest()), (Vec::new(), Vec::new()));
    client.finish();
    upstream.finish();
    second.wait_metric(&ends("idle_timeout"), |ends| ends == 1);
    home.keeps(SESSIONS - 3);
    talks.iter().for_each(Talk::goes_on);
    drained(&home, second, talks, Told::Fin);
}

/// Waits until both have acknowledged all: an acknowledgement that comes with a packet which is
/// dropped is none.
fn quiet(client: &Peer, upstream: &Peer) {
    wait_for("acknowledgements", || {
        let has_all = |peer: &Peer| unacknowledged(peer.stream.as_fd()).unwrap() == 0;
        (has_all(client) && has_all(upstream)).then_some(())
    });
}

/// The next packet of a client's peer may be long in coming: TCP doubles its pauses between
/// repetitions while no process runs, and a start takes seconds on a busy machine.
fn patient(client: &Peer) {
    client.stream.set_read_timeout(Some(Duration::from_secs(120))).unwrap();
}

/// For so long a program may be away whatever a session's peers do meanwhile, those on this host
/// too: their TCP gives up after 15 tries, of 500 ms each where it knows that its packets are
/// dropped (`tcp_probe_timer`, `TCP_RESOURCE_PROBE_INTERVAL`), in a quarter of an hour where they
/// are lost.
const AWAY: Duration = Duration::from_secs(10);

/// However long it takes here, who is silent is asked nothing.
const NO_PINGS: &str = "[ping]\ninterval = \"off\"\n";

/// The program drops a FIN without a Close where frames are followed: user space has to judge it.
#[test]
fn what_waits_for_user_space_waits_for_the_next_one() {
    let Some(home) = home() else { return };
    let server = Server::start();
    let first = start(&home, &server, any(), NO_PINGS);
    let mut talks = talks(&home, &first, &server);
    let address = first.address;
    kill(first);
    let (mut client, mut upstream) = talks.remove(0).stop();
    quiet(&client, &upstream);
    upstream.finish();
    talks.iter().for_each(Talk::goes_on);
    thread::sleep(AWAY);

    let second = start(&home, &server, address, NO_PINGS);
    assert_eq!(adopted(&second, "adopted"), SESSIONS as u64);
    // It left without a word.
    patient(&client);
    client.expect_close(FROM_SERVER, 1014, "");
    client.send(&close(FROM_CLIENT, 1014, ""));
    assert_eq!(client.rest(), b"");
    client.finish();
    // It still listens.
    assert_eq!(upstream.rest(), close(FROM_CLIENT, 1014, ""));
    let ended = "wsproxy_session_ends_total{ending=\"upstream_finished\"}";
    second.wait_metric(ended, |ends| ends == 1);
    home.keeps(SESSIONS - 1);
    drained(&home, second, talks, Told::Close);
}

/// A hole in the frames of each session is open, as the records say, but what was kept behind it is
/// not there (it went with a program, or was forgotten): the sessions go on, and are followed no
/// more.
#[test]
fn what_is_kept_nowhere_stops_nobody() {
    let Some(home) = home() else { return };
    let server = Server::start();
    let first = start(&home, &server, any(), "");
    let all = talks(&home, &first, &server);
    let address = first.address;
    kill(first);
    let ends: Vec<_> = all.into_iter().map(Talk::stop_and_count).collect();
    open_holes(&home);
    let all: Vec<_> = (0..).zip(ends).map(|(nth, ends)| Talk::start_again(ends, nth)).collect();
    all.iter().for_each(Talk::goes_on);

    let second = start(&home, &server, address, "");
    assert_eq!(adopted(&second, "adopted"), SESSIONS as u64);
    all.iter().for_each(Talk::goes_on);
    drained(&home, second, all, Told::Fin);
}

/// Has the records of all sessions say that something is kept of them.
fn open_holes(home: &Home) {
    const SENT: usize = mem::offset_of!(Flow, sent) / 8;
    const ACKED: usize = mem::offset_of!(Flow, acked) / 8;
    const BEHIND: usize = mem::offset_of!(Direction, behind) / 8;
    let flows = records::<{ size_of::<Flow>() / 8 }>(home, layout::maps::FLOWS);
    let mut directions = records::<{ size_of::<Direction>() / 8 }>(home, layout::maps::DIRECTIONS);
    let mut opened = 0;
    for index in 0..flows.len() {
        // A whole record is written: nothing must be under way.
        let state = wait_for("a quiet session", || {
            let [near, far] = [index, index ^ 1].map(|index| flows.get(&index, 0).unwrap());
            (near[SENT] == far[ACKED] && near[ACKED] == far[SENT]).then_some(near[0])
        });
        if State::from_word(state).is_translated() {
            let mut words = directions.get(&index, 0).unwrap();
            words[BEHIND] = KEEPS | 7;
            directions.set(index, words, 0).unwrap();
            opened += 1;
        }
    }
    assert_eq!(opened, 2 * SESSIONS);
}

/// A pinned map of records of so many words.
fn records<const WORDS: usize>(home: &Home, name: &str) -> Array<MapData, [u64; WORDS]> {
    let map = MapData::from_pin(home.pin(name)).unwrap();
    Array::try_from(Map::Array(map)).unwrap()
}

#[test]
fn other_sizes_leave_the_sessions_alone() {
    let Some(home) = home() else { return };
    let server = Server::start();
    let sizes = |n: usize| format!("[limits]\nmax_sessions = {n}");
    let first = start(&home, &server, any(), &sizes(100));
    let talks = talks(&home, &first, &server);
    let address = first.address;
    kill(first);
    let second = start(&home, &server, address, &sizes(200));
    assert_eq!((adopted(&second, "adopted"), adopted(&second, "left")), (0, SESSIONS as u64));
    talks.iter().for_each(Talk::goes_on);
    second.stop();
    talks.iter().for_each(Talk::goes_on);
    let third = start(&home, &server, address, &sizes(100));
    assert_eq!((adopted(&third, "adopted"), adopted(&third, "left")), (SESSIONS as u64, 0));
    // The running one's sessions are nobody else's.
    let other = Command::new(BINARY)
        .args(["run", "--datapath", "packet", "--config"])
        .arg(home.dir.join("wsproxy.toml"))
        .output()
        .unwrap();
    assert!(!other.status.success());
    assert!(!complaint(&other).is_empty());
    talks.iter().for_each(Talk::goes_on);
    drained(&home, third, talks, Told::Close);
}

#[test]
fn who_cuts_sessions_off_leaves_nothing() {
    let Some(home) = home() else { return };
    let server = Server::start();
    let mut proxy = start(&home, &server, any(), "");
    let talks = talks(&home, &proxy, &server);
    let ends: Vec<_> = talks.into_iter().map(Talk::stop).collect();
    proxy.terminate();
    // Nobody answers its FIN.
    wait_for("it drains", || proxy.logged("draining"));
    proxy.terminate();
    let _status = proxy.wait();
    assert!(home.is_empty());
    drop(ends);
}

/// A client that says something is told that nobody is there any more.
fn is_reset((mut client, _upstream): (Peer, Peer)) {
    let told = |error: &io::Error| {
        matches!(error.kind(), io::ErrorKind::ConnectionReset | io::ErrorKind::BrokenPipe)
    };
    wait_for("a reset", || {
        let sent = client.stream.write_all(b"?");
        sent.err().map(|error| assert!(told(&error), "{error}"))
    });
}

#[test]
fn what_is_not_whole_is_let_go() {
    let Some(home) = home() else { return };
    let server = Server::start();
    let first = start(&home, &server, any(), "");
    let mut talks = talks(&home, &first, &server);
    let address = first.address;
    kill(first);
    // As if it had been killed while it wrote them: the oldest ones.
    let mut files = home.files();
    assert_eq!(files.len(), SESSIONS);
    files.sort_by_key(|file| {
        let kept: Value = serde_json::from_slice(&fs::read(file).unwrap()).unwrap();
        kept["id"].as_u64()
    });
    let half = fs::read(&files[0]).unwrap();
    fs::write(&files[0], &half[..half.len() / 2]).unwrap();
    fs::rename(&files[1], files[1].with_extension("new")).unwrap();
    // Of another version.
    let mut other: Value = serde_json::from_slice(&fs::read(&files[2]).unwrap()).unwrap();
    other["version"] = 1.into();
    fs::write(&files[2], other.to_string()).unwrap();
    // And one of a session that there is not.
    fs::copy(&files[3], files[3].with_file_name("40")).unwrap();
    talks.iter().for_each(Talk::goes_on);
    let lost: Vec<_> = talks.drain(..3).collect();
    let lost: Vec<_> = lost.into_iter().map(Talk::stop).collect();

    let second = start(&home, &server, address, "");
    assert_eq!((adopted(&second, "adopted"), adopted(&second, "let_go")), (SESSIONS as u64 - 3, 3));
    assert_eq!(home.files().len(), SESSIONS - 3);
    let said = second.logged(
        "what an earlier process kept of a session can't be used: the session is let go; further \
         ones are only counted",
    );
    assert!(said.is_some(), "{}", second.log_text());
    lost.into_iter().for_each(is_reset);
    drained(&home, second, talks, Told::Close);
}

/// A start that fails after it has taken sessions over, or is broken off.
#[test]
fn without_a_drain_sessions_are_left_as_they_were_found() {
    const PLACES: u32 = 100;
    let Some(home) = home() else { return };
    let server = Server::start();
    let sizes = format!("[limits]\nmax_sessions = {PLACES}");
    let first = start(&home, &server, any(), &sizes);
    let talks = talks(&home, &first, &server);
    let address = first.address;
    kill(first);
    let options = Options {
        max_sessions: PLACES,
        workers: 3,
        persist: Some(Persist {
            pins: home.dir.join("bpf/wsproxy"),
            state: home.dir.join("state"),
        }),
        ..datapath::options(Mode::Packet)
    };
    let datapath = datapath::start(options);
    assert_eq!(datapath.sessions().len(), SESSIONS);
    assert_eq!((datapath.taken(), datapath.map_entries()), (SESSIONS as u32, 2 * SESSIONS));
    talks.iter().for_each(Talk::goes_on);
    drop(datapath);
    talks.iter().for_each(Talk::goes_on);
    let second = start(&home, &server, address, &sizes);
    assert_eq!(adopted(&second, "adopted"), SESSIONS as u64);
    drained(&home, second, talks, Told::Close);
}

#[test]
fn what_is_no_bpffs_is_said() {
    let Some(home) = home() else { return };
    let server = Server::start();
    let text = text_of(&home, &server, any(), "").replace("/bpf/wsproxy", "/none");
    let file = home.dir.join("w.toml");
    fs::write(&file, &text).unwrap();
    let refused = |file: &Path, datapath: &str| {
        let file = file.to_str().unwrap();
        let output = run(["run", "--datapath", datapath, "--config", file]);
        assert!(!output.status.success());
        complaint(&output)
    };
    let said = refused(&file, "auto");
    assert!(said.contains("datapath.persist_path = ") && said.contains("bpffs"), "{said}");
    let said = refused(&file, "relay");
    assert!(said.contains("datapath.persist needs the packet path"), "{said}");
}
