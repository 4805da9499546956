//! A program that is measured: started in the gateway's namespace, waited for, stopped.

use std::{
    fs,
    net::{SocketAddr, TcpStream},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    thread::sleep,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, bail};

use crate::place::Site;

/// A program that doesn't listen after so long has not started.
const START: Duration = Duration::from_secs(10);
/// One that doesn't end after so long is killed.
const STOP: Duration = Duration::from_secs(5);

/// It runs; stopped when dropped.
#[derive(Debug)]
pub struct Process {
    child: Child,
    /// Where its output goes.
    log: PathBuf,
}

impl Process {
    /// Starts it at the gateway; what it says goes to `log` in `folder`.
    ///
    /// # Errors
    /// The program is missing.
    pub fn start(program: &Path, arguments: &[String], site: &Site, folder: &Path) -> Result<Self> {
        let path = folder.join("log");
        let log = fs::File::create(&path).with_context(|| path.display().to_string())?;
        let mut command = Command::new(program);
        command.args(arguments);
        command.stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log);
        // A child lives in the namespace of the thread that starts it.
        let child = site.at_gateway(|| command.spawn());
        let child = child.with_context(|| format!("{} does not start", program.display()))?;
        Ok(Self { child, log: path })
    }

    /// Waits until the client can connect to it there.
    ///
    /// # Errors
    /// It ended or takes too long; with what it said.
    pub fn wait_until_it_listens(&mut self, address: SocketAddr, site: &Site) -> Result<()> {
        let deadline = Instant::now() + START;
        while site.at_client(|| TcpStream::connect(address)).is_err() {
            let ended = self.child.try_wait().ok().flatten();
            if ended.is_some() || Instant::now() > deadline {
                let said = fs::read_to_string(&self.log).unwrap_or_default();
                bail!("nobody listens on {address}: {}", said.trim());
            }
            sleep(Duration::from_millis(20));
        }
        Ok(())
    }

    /// Asks it to end, and does not wait.
    ///
    /// # Errors
    /// It has ended already.
    pub fn end(&self) -> Result<()> {
        let id = rustix::process::Pid::from_child(&self.child);
        Ok(rustix::process::kill_process(id, rustix::process::Signal::TERM)?)
    }

    /// It and the children of it.
    #[must_use]
    pub fn all(&self) -> Vec<u32> {
        let main = self.child.id();
        let path = format!("/proc/{main}/task/{main}/children");
        let children = fs::read_to_string(path).unwrap_or_default();
        let children = children.split_whitespace().filter_map(|id| id.parse().ok());
        std::iter::once(main).chain(children).collect()
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let id = rustix::process::Pid::from_child(&self.child);
        // It may be gone already: then there is nobody to wait for either.
        let _gone = rustix::process::kill_process(id, rustix::process::Signal::TERM);
        let deadline = Instant::now() + STOP;
        while Instant::now() < deadline {
            if !matches!(self.child.try_wait(), Ok(None)) {
                return;
            }
            sleep(Duration::from_millis(20));
        }
        let _gone = self.child.kill();
        let _status = self.child.wait();
    }
}
