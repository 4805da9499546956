//! What the process may do once it serves: a user, capabilities. Everything is given up in one step
//! by the only thread there is, before any other begins: users, capabilities and Landlock's rules
//! are each thread's own in Linux, and threads have what the one had that began them.

mod capabilities;
mod landlock;
mod seccomp;
mod user;

use std::{
    fs, io,
    path::{Path, PathBuf},
    thread,
    time::{Duration, Instant},
};

pub use rustix::thread::CapabilitySet;
use serde_json::{Value, json};

use crate::config::{Config, Process, Setting};
pub use capabilities::{effective, missing, names};
use landlock::{Allowed, Landlock};
use seccomp::Seccomp;
use user::User;

/// Threads of the self-test may still be ending; none takes so long.
const ALONE: Duration = Duration::from_secs(15);
/// Between two looks.
const LOOK: Duration = Duration::from_millis(1);
/// The user of [`Setting::Auto`].
const USER: &str = "wsproxy";

/// What has to be possible from now on.
#[derive(Clone, Debug)]
pub struct Needs {
    /// To be kept, as far as they are there.
    pub capabilities: CapabilitySet,
    /// Connections from others' addresses are wanted (`IP_TRANSPARENT`).
    pub transparent: bool,
    /// Files and folders that are read again later.
    pub reads: Vec<PathBuf>,
    /// Folders in which files are made later.
    pub writes: Vec<PathBuf>,
    /// What was made for this process, and is removed by it.
    pub owns: Vec<PathBuf>,
    /// Folders of sessions that outlive the process: everything in them is its own.
    pub keeps: Vec<PathBuf>,
    /// BPF maps and programs are used.
    pub bpf: bool,
}

/// Why privileges could not be given up.
#[derive(Debug, thiserror::Error)]
pub enum PrivilegeError {
    /// There is no such user, or group.
    #[error("{key} = {name:?}: there is no such {what} in {file}")]
    Unknown {
        /// The key of the configuration.
        key: &'static str,
        /// Its value.
        name: String,
        /// A user or a group.
        what: &'static str,
        /// Where it was looked for.
        file: &'static str,
    },
    /// Only root, or who has the capabilities, can become somebody else.
    #[error(
        "process.user = {0:?}: to become another user takes root, or CAP_SETUID and CAP_SETGID: \
         start wsproxy as that user, or leave the key out"
    )]
    NotRoot(String),
    /// The user could not do what the configuration wants of it.
    #[error(
        "process.user = {user:?}: {}: cannot be read by this user ({error}), so that no reload and \
         no renewed certificate could be taken: give its group the right to read (chgrp, chmod \
         g+r), or set process.user = \"root\"", path.display()
    )]
    Unreadable {
        /// The user.
        user: String,
        /// What it can't read.
        path: PathBuf,
        /// Why.
        error: io::Error,
    },
    /// Something else runs in this process, and would keep what it has.
    #[error("{0} threads run before privileges were given up: this is a bug, please report it")]
    Threads(usize),
    /// The kernel refused.
    #[error("cannot give up privileges ({what}): {error}")]
    System {
        /// What was tried.
        what: &'static str,
        /// What it said.
        error: io::Error,
    },
}

/// What was refused, by what it was.
fn system<E: Into<io::Error>>(what: &'static str) -> impl Fn(E) -> PrivilegeError {
    move |error| PrivilegeError::System { what, error: error.into() }
}

/// What the process may still do.
#[derive(Clone, Debug)]
pub struct Privileges {
    user: String,
    /// Why it is not another one, where that was to be expected.
    stayed: Option<String>,
    kept: CapabilitySet,
    no_new_privileges: bool,
    landlock: Landlock,
    seccomp: Seccomp,
    /// What Landlock lets through.
    allowed: Allowed,
}

impl Privileges {
    /// Whether a path that a new configuration names can be read. What is kept out by Landlock is
    /// so for good; what is kept out otherwise is found out by reading.
    #[must_use]
    pub fn may_read(&self, path: &Path) -> bool {
        !self.landlock.is_on() || self.allowed.may_read(path)
    }

    /// Whether sockets may be made in a folder, as far as Landlock is concerned.
    #[must_use]
    pub fn may_listen(&self, folder: &Path) -> bool {
        !self.landlock.is_on() || self.allowed.may_listen(folder)
    }

    /// Whether connections from others' addresses can be made (`ip_setsockopt`).
    #[must_use]
    pub const fn can_be_transparent(&self) -> bool {
        self.kept.intersects(CapabilitySet::NET_ADMIN.union(CapabilitySet::NET_RAW))
    }

    /// The capabilities that were kept.
    #[must_use]
    pub fn capabilities(&self) -> Vec<&'static str> {
        names(self.kept)
    }

    /// For the operator.
    #[must_use]
    pub fn status(&self) -> Value {
        json!({
            "user": self.user,
            "capabilities": self.capabilities(),
            "no_new_privileges": self.no_new_privileges,
            "landlock": self.landlock.text(),
            "seccomp": self.seccomp.text(),
        })
    }

    /// Says once in the log what is left.
    fn tell(&self) {
        if let Some(reason) = &self.stayed {
            tracing::warn!(user = self.user, "wsproxy does not become another user: {reason}");
        }
        let capabilities = self.capabilities().join(" ");
        tracing::info!(
            user = self.user,
            capabilities,
            no_new_privileges = self.no_new_privileges,
            landlock = self.landlock.text(),
            seccomp = self.seccomp.text(),
            "privileges given up"
        );
    }
}

/// Gives up everything but what is needed, for good. No other thread may run.
///
/// # Errors
/// See [`PrivilegeError`]: the process is to end then, since it may have given up a part.
pub fn reduce(process: &Process, needs: &Needs) -> Result<Privileges, PrivilegeError> {
    be_alone()?;
    let (user, stayed) = choose(process, needs)?;
    let permitted = rustix::thread::capabilities(None).map_err(system("capget"))?.permitted;
    let kept = kept(needs, permitted);
    capabilities::close_the_way_back(kept)?;
    if let Some(user) = &user {
        user.own(&needs.owns);
        user.own(&needs.keeps);
        user.become_it()?;
    }
    capabilities::keep(kept)?;
    let no_new_privileges = rustix::thread::set_no_new_privs(true).is_ok();
    let user = user.map_or_else(user::current, |user| user.to_string());
    let allowed = Allowed::of(needs);
    let landlock = if process.landlock { confine(&allowed) } else { Landlock::Off };
    let seccomp = if process.seccomp { seccomp::enforce(needs.bpf) } else { Seccomp::Off };
    let privileges =
        Privileges { user, stayed, kept, no_new_privileges, landlock, seccomp, allowed };
    privileges.tell();
    Ok(privileges)
}

/// What this host offers, and what a process of this user would keep on the best path.
#[derive(Clone, Debug)]
pub struct Offer {
    /// The user that it would begin as.
    pub user: String,
    /// The capabilities that it would begin with, those that matter here.
    pub capabilities: Vec<&'static str>,
    /// Those that would be left.
    pub kept: Vec<&'static str>,
    /// Filters over system calls.
    pub seccomp: bool,
    /// The version of Landlock; why there is none.
    pub landlock: Result<u32, String>,
}

impl Offer {
    /// Looks; `packets`: the packet path would run.
    #[must_use]
    pub fn look(packets: bool) -> Self {
        let effective = effective();
        Self {
            user: user::current(),
            capabilities: names(effective),
            kept: names(wanted(packets) & effective),
            seccomp: seccomp::is_offered(),
            landlock: crate::sys::landlock_version().map_err(|error| error.to_string()),
        }
    }
}

/// The capabilities that a serving gateway needs; `packets`: with the packet path.
#[must_use]
pub fn wanted(packets: bool) -> CapabilitySet {
    // A reload may bring a listener with a low port at any time.
    let mut capabilities = CapabilitySet::NET_BIND_SERVICE;
    // `TCP_REPAIR` (`tcp_can_repair_sock`), and attaching to devices that sessions come to use.
    capabilities.set(CapabilitySet::NET_ADMIN, packets);
    capabilities
}

/// Takes the files away that are not `allowed`, where the kernel can.
fn confine(allowed: &Allowed) -> Landlock {
    allowed.enforce().unwrap_or_else(|error| {
        tracing::warn!(%error, "Landlock's rules could not be made: all files may be used");
        Landlock::Missing("refused by the kernel")
    })
}

/// What is kept of what is there.
fn kept(needs: &Needs, permitted: CapabilitySet) -> CapabilitySet {
    let mut wanted = needs.capabilities;
    if needs.transparent && !wanted.contains(CapabilitySet::NET_ADMIN) {
        let raw = permitted.contains(CapabilitySet::NET_RAW);
        wanted |= if raw { CapabilitySet::NET_RAW } else { CapabilitySet::NET_ADMIN };
    }
    wanted & permitted
}

/// Waits for the end of threads that are ending.
fn be_alone() -> Result<(), PrivilegeError> {
    let count = || fs::read_dir("/proc/self/task").map(Iterator::count);
    let end = Instant::now() + ALONE;
    loop {
        match count().map_err(system("/proc/self/task"))? {
            1 => return Ok(()),
            more if Instant::now() > end => return Err(PrivilegeError::Threads(more)),
            _ => thread::sleep(LOOK),
        }
    }
}

/// Who to become, or why nobody else.
fn choose(
    process: &Process,
    needs: &Needs,
) -> Result<(Option<User>, Option<String>), PrivilegeError> {
    let is_root = rustix::process::geteuid().is_root();
    match &process.user {
        Setting::Fixed(name) => {
            let user = User::find(name, process.group.as_deref())?;
            if user.is_current() {
                return Ok((None, None));
            }
            if !capabilities::may_change_user() {
                return Err(PrivilegeError::NotRoot(name.clone()));
            }
            if let Some((path, error)) = user.cannot(&needs.reads, &[])? {
                return Err(PrivilegeError::Unreadable { user: name.clone(), path, error });
            }
            if let Some((path, error)) = user.cannot(&[], &needs.writes)? {
                let path = path.display();
                tracing::warn!("{path}: process.user = {name:?} cannot make files there: {error}");
            }
            Ok((Some(user), None))
        }
        Setting::Auto if is_root && capabilities::may_change_user() => {
            let Ok(user) = User::find(USER, process.group.as_deref()) else {
                let reason = "there is no user \"wsproxy\" (process.user names another one)";
                return Ok((None, Some(reason.to_owned())));
            };
            match user.cannot(&needs.reads, &needs.writes)? {
                None => Ok((Some(user), None)),
                Some((path, error)) => {
                    let path = path.display();
                    let reason = format!(
                        "the user \"wsproxy\" cannot use {path} ({error}), which a reload would need"
                    );
                    Ok((None, Some(reason)))
                }
            }
        }
        Setting::Auto => Ok((None, None)),
    }
}

/// What is wrong with the users that a configuration names, as a start would find it.
///
/// # Errors
/// See [`PrivilegeError`].
pub fn check(config: &Config) -> Result<(), PrivilegeError> {
    let Setting::Fixed(name) = &config.process.user else { return Ok(()) };
    let user = User::find(name, config.process.group.as_deref())?;
    if user.is_current() || !capabilities::may_change_user() {
        return Ok(());
    }
    let reads: Vec<_> = config.files().into_iter().map(|file| file.value.clone()).collect();
    match user.cannot(&reads, &[])? {
        None => Ok(()),
        Some((path, error)) => Err(PrivilegeError::Unreadable { user: name.clone(), path, error }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_kept_is_what_is_needed_and_there() {
        const ADMIN: CapabilitySet = CapabilitySet::NET_ADMIN;
        const RAW: CapabilitySet = CapabilitySet::NET_RAW;
        const PORTS: CapabilitySet = CapabilitySet::NET_BIND_SERVICE;
        let all = CapabilitySet::all();
        let with = |capabilities, transparent| Needs {
            capabilities,
            transparent,
            reads: Vec::new(),
            writes: Vec::new(),
            owns: Vec::new(),
            keeps: Vec::new(),
            bpf: false,
        };
        for (needs, permitted, expected) in [
            (with(PORTS, false), all, PORTS),
            (with(PORTS, false), CapabilitySet::empty(), CapabilitySet::empty()),
            (with(PORTS | ADMIN, false), all, PORTS | ADMIN),
            (with(PORTS | ADMIN, true), all, PORTS | ADMIN),
            // The lesser one, where there is a choice.
            (with(PORTS, true), all, PORTS | RAW),
            (with(PORTS, true), ADMIN, ADMIN),
            (with(PORTS, true), PORTS, PORTS),
        ] {
            assert_eq!(kept(&needs, permitted), expected, "{needs:?} {permitted:?}");
        }
    }
}
