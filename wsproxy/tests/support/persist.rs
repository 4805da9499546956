//! A program that keeps sessions over its end (`datapath.persist`), and sessions that notice.

use std::{
    fs,
    path::PathBuf,
    process::Command,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    thread::{self, JoinHandle},
    time::Duration,
};

use rustix::process::{Pid, Signal, kill_process};

use super::{
    Peer, Proxy, TempDir, wait_for,
    ws::{FROM_CLIENT, FROM_SERVER, TEXT, frame},
};

/// A bpffs of its own, which goes away, and what is beside it.
pub struct Home {
    pub dir: TempDir,
    bpffs: PathBuf,
}

impl Home {
    /// Needs root.
    pub fn new() -> Self {
        let dir = TempDir::new();
        let bpffs = dir.join("bpf");
        fs::create_dir(&bpffs).unwrap();
        let mounted = Command::new("mount").args(["-t", "bpf", "bpf"]).arg(&bpffs).status();
        assert!(mounted.unwrap().success());
        Self { dir, bpffs }
    }

    /// A part of the configuration.
    pub fn datapath(&self) -> String {
        let path = |name: &str| self.dir.join(name).display().to_string();
        let (pins, state) = (path("bpf/wsproxy"), path("state"));
        format!("[datapath]\npersist = true\npersist_path = \"{pins}\"\nstate_dir = \"{state}\"\n")
    }

    /// What is kept of sessions, by place.
    pub fn files(&self) -> Vec<PathBuf> {
        let generations = fs::read_dir(self.dir.join("state")).unwrap();
        let files = generations.flat_map(|folder| fs::read_dir(folder.unwrap().path()).unwrap());
        let mut files: Vec<_> = files.map(|file| file.unwrap().path()).collect();
        files.retain(|file| {
            let name = file.file_name().and_then(|name| name.to_str());
            name.is_some_and(|name| name != "lock" && !name.ends_with(".new"))
        });
        files.sort();
        files
    }

    /// Waits until that many sessions need no process any more.
    pub fn keeps(&self, sessions: usize) {
        wait_for("sessions are kept", || (self.files().len() == sessions).then_some(()));
    }

    /// Where a map is pinned.
    pub fn pin(&self, map: &str) -> PathBuf {
        let generations = fs::read_dir(self.bpffs.join("wsproxy")).unwrap();
        let mut pins = generations.map(|folder| folder.unwrap().path().join(map));
        pins.find(|pin| pin.exists()).unwrap()
    }

    /// Nothing of it is left.
    pub fn is_empty(&self) -> bool {
        !self.bpffs.join("wsproxy").exists() && !self.dir.join("state").exists()
    }
}

impl Drop for Home {
    fn drop(&mut self) {
        // What was pinned goes with it; a mount that stays fails no test.
        let _ = Command::new("umount").arg(&self.bpffs).status();
    }
}

/// Both ends of a session that talk, each message checked; they come back when told to stop.
pub struct Talk {
    stop: Arc<AtomicBool>,
    rounds: Arc<AtomicUsize>,
    ends: JoinHandle<((Peer, Peer), Said)>,
}

/// What was said of both ends, the client's first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct Said {
    pub messages: u64,
    pub bytes: [u64; 2],
}

impl Talk {
    pub fn start(client: Peer, upstream: Peer, number: usize) -> Self {
        Self::start_again(((client, upstream), Said::default()), number)
    }

    /// Goes on with what was stopped.
    pub fn start_again(ends: ((Peer, Peer), Said), number: usize) -> Self {
        let ((mut client, mut upstream), mut said) = ends;
        let (stop, rounds) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicUsize::new(0)));
        let (told, counted) = (Arc::clone(&stop), Arc::clone(&rounds));
        let ends = thread::spawn(move || {
            while !told.load(Ordering::Relaxed) {
                let round = counted.load(Ordering::Relaxed);
                let length = 16 + round * 997 % 5_000;
                let there = format!("{number}>{round:<length$}");
                let there = frame(TEXT, FROM_CLIENT, there.as_bytes());
                let back = format!("{number}<{round:<length$}");
                let back = frame(TEXT, FROM_SERVER, back.as_bytes());
                client.send(&there);
                upstream.expect(&there);
                upstream.send(&back);
                client.expect(&back);
                said.messages += 1;
                said.bytes[0] += there.len() as u64;
                said.bytes[1] += back.len() as u64;
                counted.fetch_add(1, Ordering::Relaxed);
                thread::sleep(Duration::from_millis(2));
            }
            ((client, upstream), said)
        });
        Self { stop, rounds, ends }
    }

    /// Messages go both ways from now on, a few times.
    pub fn goes_on(&self) {
        let before = self.rounds.load(Ordering::Relaxed);
        wait_for("messages go both ways", || {
            assert!(!self.ends.is_finished(), "the session has ended");
            (self.rounds.load(Ordering::Relaxed) > before + 20).then_some(())
        });
    }

    pub fn stop(self) -> (Peer, Peer) {
        self.stop_and_count().0
    }

    /// The same, and what they have said.
    pub fn stop_and_count(self) -> ((Peer, Peer), Said) {
        self.stop.store(true, Ordering::Relaxed);
        self.ends.join().unwrap()
    }
}

/// Ends the program in the hardest way.
pub fn kill(mut proxy: Proxy) {
    kill_process(Pid::from_raw(proxy.pid() as i32).unwrap(), Signal::KILL).unwrap();
    assert!(!proxy.wait().success());
}
