//! Keeps the CPUs from sleeping while a single session is measured.
//!
//! With one message under way at a time each hop begins with a CPU that wakes
//! up, which takes a virtual machine longer than everything else together and
//! hides what is compared. A loop in the scheduling class of idle work keeps
//! them awake: it gives way to everybody at once.

use std::process::{Child, Command, Stdio};

use anyhow::{Context as _, Result};

/// CPUs are kept awake until this is dropped.
#[derive(Debug)]
pub struct Awake(Vec<Child>);

impl Awake {
    /// Starts a loop for each CPU.
    ///
    /// # Errors
    /// `chrt` of util-linux is missing.
    pub fn keep() -> Result<Self> {
        let cpus = std::thread::available_parallelism().map_or(1, usize::from);
        let mut awake = Self(Vec::new());
        for _ in 0..cpus {
            let mut command = Command::new("chrt");
            command.args(["--idle", "0", "sh", "-c", "while :; do :; done"]).stdin(Stdio::null());
            awake.0.push(command.spawn().context("chrt of util-linux is needed")?);
        }
        Ok(awake)
    }
}

impl Drop for Awake {
    fn drop(&mut self) {
        for child in &mut self.0 {
            // It has no state to lose.
            let _gone = child.kill();
            let _status = child.wait();
        }
    }
}
