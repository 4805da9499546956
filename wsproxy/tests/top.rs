//! `wsproxy top` on a real terminal, which tmux plays.
#![cfg(target_os = "linux")]

mod support;

use std::{
    cell::Cell,
    fs,
    path::{Path, PathBuf},
    process::{Command, Output},
    time::Instant,
};

use rustix::process::{Pid, Signal, kill_process};
use support::{
    BINARY, PATIENCE, Peer, Proxy, Server, TempDir, complaint, config, run, say, wait_for,
    ws::parted,
};

/// A terminal with a shell in it, on a tmux server of its own.
struct Pane {
    socket: PathBuf,
    /// How often it was asked whether it is usable.
    asked: Cell<u32>,
}

impl Pane {
    /// `None`, said loudly, without tmux; a panic where `CI=true` promises it.
    fn open(dir: &TempDir) -> Option<Self> {
        if Command::new("tmux").arg("-V").output().is_err() {
            let ci = std::env::var_os("CI").is_some_and(|ci| ci == "true");
            assert!(!ci, "tmux is not there");
            say("!!! SKIPPED: `wsproxy top` can't be tested on a terminal: tmux is not there");
            return None;
        }
        let pane = Self { socket: dir.join("tmux.sock"), asked: Cell::new(0) };
        // The shell reads no files of the user, and its prompt is known.
        pane.tmux(&["new-session", "-d", "-x", "150", "-y", "40", "env -u ENV PS1='$ ' sh"]);
        pane.wait("the prompt", |screen| screen.trim_end().ends_with('$'));
        Some(pane)
    }

    fn ask(&self, args: &[&str]) -> Output {
        let mut command = Command::new("tmux");
        command.env_remove("TMUX").args(["-u", "-f", "/dev/null", "-S"]).arg(&self.socket);
        command.args(args).output().unwrap()
    }

    fn tmux(&self, args: &[&str]) -> String {
        let output = self.ask(args);
        assert!(output.status.success(), "{args:?}: {}", complaint(&output));
        String::from_utf8(output.stdout).unwrap()
    }

    /// Text, as it is typed.
    fn text(&self, text: &str) {
        self.tmux(&["send-keys", "-l", "--", text]);
    }

    /// Keys by their names.
    fn keys(&self, names: &[&str]) {
        self.tmux(&[&["send-keys"], names].concat());
    }

    fn command(&self, line: &str) {
        self.text(line);
        self.keys(&["Enter"]);
    }

    fn screen(&self) -> String {
        self.tmux(&["capture-pane", "-p"])
    }

    /// Waits until the screen is as wanted.
    fn wait(&self, what: &str, wanted: impl Fn(&str) -> bool) -> String {
        let end = Instant::now() + PATIENCE;
        loop {
            let screen = self.screen();
            if wanted(&screen) {
                return screen;
            }
            assert!(Instant::now() < end, "waited in vain: {what}\n{screen}");
            std::thread::sleep(std::time::Duration::from_millis(20));
        }
    }

    fn shows(&self, text: &str) -> String {
        self.wait(text, |screen| screen.contains(text))
    }

    /// The shell is back, and the terminal is as it was: lines are read with echo, and neither the
    /// other screen nor a hidden cursor is left.
    fn is_usable(&self) {
        let state = "#{alternate_on} #{cursor_flag}";
        wait_for("the terminal is given back", || {
            let state = self.tmux(&["display-message", "-p", state]);
            (state.trim() == "0 1").then_some(())
        });
        // Text that is not what was typed, and each time another.
        let number = self.asked.get();
        self.asked.set(number + 1);
        self.command(&format!(
            "stty -a | tr ' ;' '\\n\\n' | grep -cxE 'icanon|echo|isig'; echo back$(({number}))"
        ));
        let back = format!("back{number}");
        let screen = self.wait(&back, |screen| screen.lines().any(|line| line == back));
        let before = screen.lines().take_while(|line| *line != back);
        assert_eq!(before.last(), Some("3"), "{screen}");
    }
}

impl Drop for Pane {
    fn drop(&mut self) {
        self.ask(&["kill-server"]);
    }
}

fn start(dir: &TempDir, server: &Server) -> (Proxy, PathBuf) {
    let socket = dir.join("admin.sock");
    let text = config(&[server.address], "[[route]]\nname = \"chat\"\nupstream = \"default\"\n");
    let socket_key = format!("[admin]\nsocket = \"{}\"\n", socket.display());
    fs::write(dir.join("w.toml"), text.replace("[admin]\n", &socket_key)).unwrap();
    (start_again(dir), socket)
}

fn start_again(dir: &TempDir) -> Proxy {
    let mut command = Command::new(BINARY);
    command.args(["run", "--datapath", "relay", "--config"]).arg(dir.join("w.toml"));
    Proxy::spawn(command).unwrap_or_else(|log| panic!("no start:\n{log}"))
}

/// A session that the admin socket knows of.
fn opened(proxy: &Proxy, server: &Server) -> (Peer, Peer) {
    let (client, upstream, _) = support::opened(proxy, server, "");
    (client, upstream)
}

fn name(peer: &Peer) -> String {
    peer.stream.local_addr().unwrap().to_string()
}

fn top(socket: &Path) -> String {
    format!("{BINARY} top --interval 100ms --socket {}", socket.display())
}

#[test]
fn operators_watch_filter_and_close_on_a_terminal() {
    let dir = TempDir::new();
    let Some(pane) = Pane::open(&dir) else { return };
    let server = Server::start();
    let (proxy, socket) = start(&dir, &server);
    let mut sessions: Vec<_> = (0..3).map(|_| opened(&proxy, &server)).collect();
    let clients: Vec<_> = sessions.iter().map(|(client, _)| name(client)).collect();

    pane.command(&top(&socket));
    let screen = pane.wait("three sessions with rates", |screen| {
        clients.iter().all(|client| screen.contains(client))
            && screen.contains("3 of 3 sessions by rate")
            && screen.contains("to servers 0 msg/s 0 B/s")
    });
    assert!(screen.contains("0 in the kernel, 3 relayed"), "{screen}");
    let upstream = server.address.to_string();
    let line = |start: &str| screen.lines().find(|line| line.starts_with(start)).unwrap_or(&screen);
    assert!(line("default").contains(&upstream) && line("default").contains(" up "), "{screen}");
    assert!(line("chat").contains(" 3 "), "{screen}");

    // No size is too small, and what was there is there again.
    pane.tmux(&["resize-window", "-x", "9", "-y", "2"]);
    pane.wait("a small screen", |screen| screen.lines().next() == Some("wsproxy 0"));
    pane.tmux(&["resize-window", "-x", "150", "-y", "40"]);
    pane.shows("3 of 3 sessions by rate");

    pane.text("/");
    pane.shows("filter: _");
    pane.text(&clients[1]);
    pane.keys(&["Enter"]);
    let screen = pane.shows("1 of 3 sessions by rate, filter");
    assert!(!screen.contains(&clients[0]) && screen.contains(&clients[1]), "{screen}");
    pane.keys(&["Down"]);
    pane.shows("idle ");
    pane.text("c");
    pane.shows("close session ");
    pane.text("n");
    pane.shows("idle ");
    pane.text("c");
    pane.shows(&format!("({} to {upstream})? y/n", clients[1]));
    pane.text("y");
    pane.shows(" is being closed");
    let (mut client, mut at_server) = sessions.remove(1);
    parted(&mut client, &mut at_server, 1001, "going away");
    drop((client, at_server));
    pane.shows("0 of 2 sessions");
    // The others go on.
    let (client, at_server) = &mut sessions[0];
    client.send(b"still here");
    at_server.expect(b"still here");
    pane.keys(&["Escape"]);
    pane.shows("2 of 2 sessions by rate");

    pane.text("q");
    pane.is_usable();
    drop(sessions);
    proxy.stop();
}

#[test]
fn it_outlives_the_gateway_and_gives_the_terminal_back_on_a_signal() {
    let dir = TempDir::new();
    let Some(pane) = Pane::open(&dir) else { return };
    let server = Server::start();
    let (proxy, socket) = start(&dir, &server);
    let pid_file = dir.join("pid");
    for signal in [Signal::TERM, Signal::INT] {
        let line = format!("sh -c 'echo $$ > {}; exec {}'", pid_file.display(), top(&socket));
        pane.command(&line);
        pane.shows("0 of 0 sessions by rate");
        let pid = fs::read_to_string(&pid_file).unwrap().trim().parse().unwrap();
        kill_process(Pid::from_raw(pid).unwrap(), signal).unwrap();
        pane.is_usable();
    }
    pane.command(&top(&socket));
    pane.shows("0 of 0 sessions by rate");
    proxy.stop();
    pane.shows("NOT UP TO DATE, trying again: ");
    let proxy = start_again(&dir);
    pane.wait("the new one", |screen| {
        screen.contains("0 of 0 sessions by rate") && !screen.contains("NOT UP TO DATE")
    });
    let session = opened(&proxy, &server);
    pane.shows(&name(&session.0));
    pane.keys(&["C-c"]);
    pane.is_usable();
    drop(session);
    proxy.stop();
    // Nobody there at the start: said as by the other commands, and no terminal is touched.
    pane.command(&format!("{}; echo code$?", top(&socket)));
    let screen = pane.shows("code1");
    assert!(screen.contains("No such file or directory"), "{screen}");
}

/// Also while nothing is asked and drawn, and where no signal comes: the shell before it gets
/// that, which does not pass it on.
#[test]
fn a_terminal_that_goes_away_ends_it_in_order() {
    let dir = TempDir::new();
    let Some(pane) = Pane::open(&dir) else { return };
    let server = Server::start();
    let (proxy, socket) = start(&dir, &server);
    let code = dir.join("code");
    // The shell of the terminal has jobs to look after, which it can't without a terminal.
    let line = format!("trap '' HUP; sh -c '{}; echo $? > {}'", top(&socket), code.display());
    pane.command(&line);
    pane.shows("0 of 0 sessions by rate");
    pane.text("p");
    pane.shows("PAUSED");
    pane.tmux(&["kill-server"]);
    let code =
        wait_for("its end", || fs::read_to_string(&code).ok().filter(|code| code.ends_with('\n')));
    assert_eq!(code, "0\n");
    proxy.stop();
}

#[test]
fn scripts_get_one_frame_as_text() {
    let dir = TempDir::new();
    let server = Server::start();
    let (proxy, socket) = start(&dir, &server);
    let sessions = [opened(&proxy, &server), opened(&proxy, &server)];
    let flags = ["top", "--interval", "100ms", "--socket", socket.to_str().unwrap()];
    // Its standard output is no terminal either way.
    for flags in [&flags[..], &[&flags[..], &["--once"]].concat()] {
        let output = run(flags);
        assert!(output.status.success(), "{}", complaint(&output));
        let text = String::from_utf8(output.stdout).unwrap();
        assert!(text.starts_with("wsproxy ") && !text.contains('\u{1b}'), "{text:?}");
        assert!(text.contains("2 of 2 sessions by rate"), "{text}");
        assert!(sessions.iter().all(|(client, _)| text.contains(&name(client))), "{text}");
        assert!(text.contains("B/s") && text.contains(" 0 B/s"), "{text}");
    }
    for bad in ["0s", "99ms", "2h", "soon"] {
        assert_eq!(run(["top", "--interval", bad]).status.code(), Some(64), "{bad}");
    }
    drop(sessions);
    proxy.stop();
    let nobody = run(flags);
    assert_eq!(nobody.status.code(), Some(1));
    let asked = run(["status", "--socket", socket.to_str().unwrap()]);
    assert_eq!(complaint(&nobody), complaint(&asked));
    assert!(complaint(&nobody).contains("admin.sock"), "{}", complaint(&nobody));
}
