//! Which files the process may use (Landlock, landlock(7)): what the configuration names and what
//! the system's libraries read. As much of it as the kernel has.

use std::{
    env,
    path::{Path, PathBuf},
};

use landlock::{
    ABI, Access as _, AccessFs, BitFlags, LandlockStatus, PathBeneath, PathFd, Ruleset,
    RulesetAttr as _, RulesetCreatedAttr as _, RulesetStatus,
};

use super::Needs;

/// Rights up to this version are taken away; later ones speak of more than files (connecting to
/// Unix sockets, since 9), or are not known yet.
const VERSION: ABI = ABI::V5;
/// What is read for names of servers (`/etc/hosts`, `/etc/resolv.conf`, NSS and its modules), for
/// the system's certificates, of the process itself, and to attach to devices.
const SYSTEM: [&str; 15] = [
    "/etc",
    "/usr",
    "/lib",
    "/lib64",
    "/nix/store",
    "/run/systemd/resolve",
    "/run/systemd/machines",
    "/run/resolvconf",
    "/run/NetworkManager",
    "/run/nscd",
    "/proc/self",
    "/proc/version",
    "/proc/version_signature",
    "/sys/devices/system/cpu",
    "/dev/urandom",
];
/// Environment variables that name certificates (`rustls-native-certs`, `telemetry`).
const VARIABLES: [&str; 4] = [
    "SSL_CERT_FILE",
    "SSL_CERT_DIR",
    "OTEL_EXPORTER_OTLP_CERTIFICATE",
    "OTEL_EXPORTER_OTLP_TRACES_CERTIFICATE",
];

/// What may be used, and for what.
#[derive(Clone, Debug, Default)]
pub(super) struct Allowed {
    /// Read, with all below.
    reads: Vec<PathBuf>,
    /// Folders in which files are made, changed and removed.
    writes: Vec<PathBuf>,
    /// Folders in which an empty folder or a file is removed, or a socket made, and no more.
    removals: Vec<PathBuf>,
}

/// What became of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Landlock {
    /// In force, to this version of what Landlock can.
    On(String),
    /// The configuration does not want it.
    Off,
    /// The kernel has none of it.
    Missing(&'static str),
}

/// Folders whose files stand for `path`, so that one that takes its place may be read too: that of
/// the path, and that of what links lead to (certbot turns links in `live` to files in `archive`;
/// Kubernetes turns a link beside the file).
fn folders_of(path: &Path) -> Vec<PathBuf> {
    let real = path.canonicalize().unwrap_or_else(|_| path.to_owned());
    let is_link = real != path;
    if real.is_dir() {
        // A link to a folder that is turned leads beside itself, mostly.
        let beside = path.parent().filter(|_| is_link).map(Path::to_owned);
        return beside.into_iter().chain([real]).collect();
    }
    let parents = [path, &real].map(|path| path.parent().unwrap_or(path).to_owned());
    // The whole file system is not to be allowed because of one file in its root.
    let or_file = |parent: PathBuf| if parent == Path::new("/") { real.clone() } else { parent };
    parents.into_iter().map(or_file).collect()
}

impl Allowed {
    /// What these needs come to.
    pub(super) fn of(needs: &Needs) -> Self {
        let named = needs.reads.iter().flat_map(|path| folders_of(path));
        let variables = VARIABLES.iter().filter_map(env::var_os).map(PathBuf::from);
        let system = SYSTEM.iter().map(PathBuf::from).chain(variables);
        let followed = ["/etc/resolv.conf", "/etc/hosts"].map(Path::new);
        let followed = followed.into_iter().flat_map(folders_of);
        let folder = |path: &PathBuf| path.parent().map(Path::to_owned);
        let kept = needs.keeps.iter().cloned();
        Self {
            reads: named.chain(system).chain(followed).collect(),
            writes: needs.writes.iter().cloned().chain(kept).collect(),
            removals: needs.owns.iter().chain(&needs.keeps).filter_map(folder).collect(),
        }
    }

    /// Whether a path may be read, as far as this is concerned.
    pub(super) fn may_read(&self, path: &Path) -> bool {
        is_below(path, &self.reads)
    }

    /// Whether sockets may be made in a folder.
    pub(super) fn may_listen(&self, folder: &Path) -> bool {
        is_below(folder, &self.writes) || is_below(folder, &self.removals)
    }

    /// Takes every other file away from this thread, and those that it begins.
    ///
    /// # Errors
    /// What Landlock's system calls say.
    pub(super) fn enforce(&self) -> Result<Landlock, landlock::RulesetError> {
        let every = AccessFs::from_all(VERSION);
        let read = AccessFs::ReadFile | AccessFs::ReadDir;
        let remove = AccessFs::RemoveDir | AccessFs::RemoveFile | AccessFs::MakeSock;
        let make = AccessFs::MakeReg | AccessFs::MakeDir;
        let write = read | remove | make | AccessFs::WriteFile | AccessFs::Truncate;
        let mut rules = Ruleset::default().handle_access(every)?.create()?;
        for (paths, access) in
            [(&self.reads, read), (&self.writes, write), (&self.removals, remove)]
        {
            for path in paths {
                rules = match rule(path, access) {
                    Some(rule) => rules.add_rule(rule)?,
                    // Nothing is there: nothing is to be had there.
                    None => rules,
                };
            }
        }
        let status = rules.restrict_self()?;
        Ok(match (status.ruleset, status.landlock) {
            (RulesetStatus::NotEnforced, LandlockStatus::NotEnabled) => {
                Landlock::Missing("not enabled (lsm= on the kernel's command line)")
            }
            (RulesetStatus::NotEnforced, _) => Landlock::Missing("not in this kernel"),
            (_, LandlockStatus::Available { effective_abi, kernel_abi }) => {
                let version = kernel_abi.unwrap_or(effective_abi as i32);
                Landlock::On(format!("ABI {version}"))
            }
            (_, _) => Landlock::On(String::new()),
        })
    }
}

/// A rule for what is there; a file that is no folder has fewer rights.
fn rule(path: &Path, access: BitFlags<AccessFs>) -> Option<PathBeneath<PathFd>> {
    let access = if path.is_dir() { access } else { access & AccessFs::from_file(VERSION) };
    (!access.is_empty()).then_some(())?;
    Some(PathBeneath::new(PathFd::new(path).ok()?, access))
}

/// Links are followed, as the kernel does: a rule holds for what there is below a folder.
fn is_below(path: &Path, folders: &[PathBuf]) -> bool {
    // Somebody else will say that it is not there.
    let Ok(real) = path.canonicalize() else { return true };
    let below = |folder: &PathBuf| {
        folder.canonicalize().is_ok_and(|real_folder| real.starts_with(real_folder))
    };
    folders.iter().any(below)
}

impl Landlock {
    /// One word, and the detail where there is one.
    pub(super) fn text(&self) -> String {
        match self {
            Self::On(version) if version.is_empty() => "on".to_owned(),
            Self::On(version) => format!("on ({version})"),
            Self::Off => "off".to_owned(),
            Self::Missing(why) => format!("missing: {why}"),
        }
    }

    pub(super) const fn is_on(&self) -> bool {
        matches!(self, Self::On(_))
    }
}

#[cfg(test)]
mod tests {
    use std::{fs, os::unix::fs::symlink};

    use super::*;

    #[test]
    fn what_takes_a_files_place_may_be_read_too() {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path().canonicalize().unwrap();
        for folder in ["live", "archive", "site/one", "other"] {
            fs::create_dir_all(root.join(folder)).unwrap();
        }
        fs::write(root.join("archive/key1.pem"), "").unwrap();
        fs::write(root.join("archive/key2.pem"), "").unwrap();
        fs::write(root.join("other/key.pem"), "").unwrap();
        symlink("../archive/key1.pem", root.join("live/key.pem")).unwrap();
        symlink("one", root.join("site/current")).unwrap();
        let of = |path: &str| Allowed { reads: folders_of(&root.join(path)), ..Allowed::default() };

        let key = of("live/key.pem");
        for (path, expected) in [
            ("live/key.pem", true),
            ("archive/key2.pem", true),
            ("other/key.pem", false),
            ("site/one", false),
        ] {
            assert_eq!(key.may_read(&root.join(path)), expected, "{path}");
        }
        let site = of("site/current");
        fs::create_dir(root.join("site/two")).unwrap();
        assert!(site.may_read(&root.join("site/two")) && !site.may_read(&root.join("other")));
        // What is in the root stands for itself.
        assert_eq!(folders_of(Path::new("/etc")), [Path::new("/etc")]);
        assert_eq!(folders_of(Path::new("/none.pem")), [Path::new("/none.pem"); 2]);
    }
}
