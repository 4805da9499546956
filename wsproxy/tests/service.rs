//! What the service manager is told, and what its watchdog may rely on.
#![cfg(target_os = "linux")]

mod support;

use std::{
    fs, io,
    os::unix::net::UnixDatagram,
    process::Command,
    sync::{Arc, mpsc},
    time::Duration,
};

use rustix::process::{Pid, Signal, kill_process};
use support::{BINARY, PATIENCE, Proxy, Server, TempDir, config};
use wsproxy::datapath::{
    Companion, Datapath, Entry, Farewell, Mode, Observer, Options, SessionEnd, SessionMeta,
};

/// A service manager that only listens.
struct Manager {
    dir: TempDir,
    socket: UnixDatagram,
}

impl Manager {
    fn new() -> Self {
        let dir = TempDir::new();
        let socket = UnixDatagram::bind(dir.join("notify")).unwrap();
        socket.set_read_timeout(Some(PATIENCE)).unwrap();
        Self { dir, socket }
    }

    fn program(&self) -> Command {
        let mut program = Command::new(BINARY);
        program.env("NOTIFY_SOCKET", self.dir.join("notify"));
        program
    }

    fn hear(&self) -> String {
        let mut text = [0; 256];
        let length = self.socket.recv(&mut text).unwrap();
        String::from_utf8(text[..length].to_vec()).unwrap().trim_end().to_owned()
    }
}

#[test]
fn a_reload_is_told_with_its_time() {
    let (manager, server) = (Manager::new(), Server::start());
    let file = manager.dir.join("w.toml");
    fs::write(&file, config(&[server.address], "")).unwrap();
    let mut program = manager.program();
    program.args(["run", "--datapath", "relay", "--config"]).arg(&file);
    let proxy = Proxy::spawn(program).unwrap();
    assert_eq!(manager.hear(), "READY=1");
    let monotonic = || {
        let now = rustix::time::clock_gettime(rustix::time::ClockId::Monotonic);
        now.tv_sec * 1_000_000 + now.tv_nsec / 1_000
    };
    for good in [true, false] {
        if !good {
            fs::write(&file, "nonsense").unwrap();
        }
        let before = monotonic();
        let pid = Pid::from_raw(proxy.pid() as i32).unwrap();
        kill_process(pid, Signal::HUP).unwrap();
        let told = manager.hear();
        let time = told.strip_prefix("RELOADING=1\nMONOTONIC_USEC=");
        let time: i64 = time.unwrap_or_else(|| panic!("{told}")).parse().unwrap();
        assert!((before..=monotonic()).contains(&time), "{before} {time}");
        // The old configuration goes on where the new one is wrong: ready either way.
        assert_eq!(manager.hear(), "READY=1");
    }
}

#[test]
fn the_watchdog_hears_of_a_program_that_works() {
    let (manager, server) = (Manager::new(), Server::start());
    let mut program = manager.program();
    program.env("WATCHDOG_USEC", "200000").env_remove("WATCHDOG_PID");
    let proxy = Proxy::with_file(program, &config(&[server.address], ""), "relay");
    assert_eq!(manager.hear(), "READY=1");
    for _ in 0..4 {
        assert_eq!(manager.hear(), "WATCHDOG=1");
    }
    proxy.terminate();
    loop {
        match manager.hear().as_str() {
            "WATCHDOG=1" => {}
            told => break assert!(told.starts_with("STOPPING=1"), "{told}"),
        }
    }
}

#[test]
fn nobody_hears_a_watchdog_that_was_not_asked_for() {
    let (manager, server) = (Manager::new(), Server::start());
    let mut program = manager.program();
    program.env_remove("WATCHDOG_USEC");
    let proxy = Proxy::with_file(program, &config(&[server.address], ""), "relay");
    assert_eq!(manager.hear(), "READY=1");
    proxy.terminate();
    let told = manager.hear();
    assert!(told.starts_with("STOPPING=1"), "{told}");
}

struct Deaf;

impl Observer for Deaf {
    fn ended(&self, end: &SessionEnd, _: Option<Companion>) {
        panic!("{end:?}");
    }

    fn fell_back(&self, _: &SessionMeta, reason: &'static str, error: &io::Error) {
        panic!("{reason}: {error}");
    }
}

#[test]
fn an_engine_that_hangs_gives_no_sign_of_life() {
    let options = Options {
        mode: Mode::Relay,
        max_sessions: 8,
        workers: 2,
        relay_buffer: 64 << 10,
        idle: None,
        drain: Duration::from_secs(5),
        farewell: Farewell::default(),
        window: Duration::ZERO,
        entry: Entry::AtOnce,
        packets: false,
        tcx: true,
        persist: None,
    };
    let datapath = Datapath::start(options, Arc::new(Deaf)).unwrap();
    let pulses = datapath.pulses();
    let ask = |engine: usize| {
        let (sender, answer) = mpsc::channel();
        // Who asked may be gone.
        pulses[engine].ask(Box::new(move || sender.send(()).unwrap_or_default()));
        answer
    };
    for engine in 0..2 {
        ask(engine).recv_timeout(PATIENCE).unwrap();
    }
    let (go_on, wait) = mpsc::channel::<()>();
    pulses[0].ask(Box::new(move || wait.recv().unwrap_or_default()));
    let late = ask(0);
    ask(1).recv_timeout(PATIENCE).unwrap();
    assert!(late.recv_timeout(Duration::from_millis(50)).is_err());
    drop(go_on);
    late.recv_timeout(PATIENCE).unwrap();
}
