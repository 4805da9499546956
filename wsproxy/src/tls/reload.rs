//! Configurations that follow their files.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use arc_swap::ArcSwap;
use rustls::{ClientConfig, ServerConfig};

use super::client::{ClientFiles, load_client};
use super::problem::{BadFiles, CertificateFacts, FileProblem, Loaded};
use super::resumption::Resumption;
use super::roots::SystemRoots;
use super::server::{ServerFiles, load_server};

/// The shortest time between two looks at the files.
pub const LOOK_MIN: Duration = Duration::from_millis(10);

/// Where a configuration comes from.
pub trait Source: Send + Sync + 'static {
    /// What is made of the files.
    type Config: Send + Sync + 'static;

    /// The files whose change matters.
    fn paths(&self) -> Vec<PathBuf>;

    /// Reads them.
    ///
    /// # Errors
    ///
    /// All that is wrong with them.
    fn load(&self) -> Result<Loaded<Self::Config>, BadFiles>;
}

/// The files of a listener, and the sessions that outlive them.
#[derive(Debug, Clone)]
pub struct ServerSource {
    /// The files.
    pub files: ServerFiles,
    /// Of this listener alone. Handed on to the next source of the listener,
    /// clients resume over a reload of the whole configuration too.
    pub resumption: Arc<Resumption>,
}

impl Source for ServerSource {
    type Config = ServerConfig;

    fn paths(&self) -> Vec<PathBuf> {
        let pairs = self.files.certificates.iter();
        let mut paths: Vec<PathBuf> =
            pairs.flat_map(|pair| [pair.certificate.clone(), pair.key.clone()]).collect();
        paths.extend(self.files.client_ca.clone());
        paths
    }

    fn load(&self) -> Result<Loaded<ServerConfig>, BadFiles> {
        load_server(&self.files, &self.resumption)
    }
}

/// The files of an upstream. The system's CAs are not looked at again.
#[derive(Debug, Clone)]
pub struct ClientSource {
    /// The files.
    pub files: ClientFiles,
    /// For upstreams without a CA of their own.
    pub system: Arc<SystemRoots>,
}

impl Source for ClientSource {
    type Config = ClientConfig;

    fn paths(&self) -> Vec<PathBuf> {
        let pairs = self.files.certificate.iter();
        let mut paths: Vec<PathBuf> =
            pairs.flat_map(|pair| [pair.certificate.clone(), pair.key.clone()]).collect();
        paths.extend(self.files.ca.clone().filter(|_| self.files.verify));
        paths
    }

    fn load(&self) -> Result<Loaded<ClientConfig>, BadFiles> {
        load_client(&self.files, &self.system)
    }
}

/// What tells one state of a file from another. Symbolic links are followed:
/// Kubernetes changes a secret by turning one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Stamp {
    device: u64,
    inode: u64,
    size: u64,
    modified: (i64, i64),
    changed: (i64, i64),
}

impl Stamp {
    /// None if the file cannot be looked at, which is a state too.
    fn of(path: &Path) -> Option<Self> {
        let found = fs::metadata(path).ok()?;
        Some(Self {
            device: found.dev(),
            inode: found.ino(),
            size: found.size(),
            modified: (found.mtime(), found.mtime_nsec()),
            changed: (found.ctime(), found.ctime_nsec()),
        })
    }
}

type Stamps = Vec<Option<Stamp>>;

/// What was seen of the files.
#[derive(Debug)]
struct Seen {
    /// When they were last read.
    read: Stamps,
    /// At the last look, if that was different.
    changing: Option<Stamps>,
    /// What was wrong, and told, when they were last read; empty: nothing.
    problems: Vec<FileProblem>,
}

impl Seen {
    /// Whether files of these stamps are to be read now: they changed, but not
    /// since the last look, at which somebody may still have been writing; or
    /// they were bad, perhaps for a passing reason.
    fn ready(&mut self, now: Stamps) -> bool {
        if now == self.read {
            self.changing = None;
            return !self.problems.is_empty();
        }
        if self.changing.as_ref() == Some(&now) {
            self.read = now;
            self.changing = None;
            self.problems.clear();
            return true;
        }
        self.changing = Some(now);
        false
    }
}

/// A configuration that follows its files.
#[derive(Debug)]
pub struct Reloading<S: Source> {
    source: S,
    loaded: ArcSwap<Loaded<S::Config>>,
    seen: Mutex<Seen>,
    reloads: AtomicU64,
    failures: AtomicU64,
    failing: AtomicBool,
}

impl<S: Source> Reloading<S> {
    /// Reads the files for the first time. Warnings are logged.
    ///
    /// # Errors
    ///
    /// All that is wrong with them.
    pub fn start(source: S) -> Result<Self, BadFiles> {
        // Before they are read: no change in between gets lost.
        let read = stamps(&source);
        let loaded = source.load()?;
        warn(&loaded.warnings);
        Ok(Self {
            source,
            loaded: ArcSwap::from_pointee(loaded),
            seen: Mutex::new(Seen { read, changing: None, problems: Vec::new() }),
            reloads: AtomicU64::new(0),
            failures: AtomicU64::new(0),
            failing: AtomicBool::new(false),
        })
    }

    /// The configuration for the next connection.
    #[must_use]
    pub fn current(&self) -> Arc<S::Config> {
        Arc::clone(&self.loaded.load().config)
    }

    /// The own certificates in use.
    #[must_use]
    pub fn certificates(&self) -> Vec<CertificateFacts> {
        self.loaded.load().certificates.clone()
    }

    /// How often changed files came into use.
    #[must_use]
    pub fn reloads(&self) -> u64 {
        self.reloads.load(Ordering::Relaxed)
    }

    /// How often changed files could not be used.
    #[must_use]
    pub fn failures(&self) -> u64 {
        self.failures.load(Ordering::Relaxed)
    }

    /// Whether the files as they are cannot be used and older ones are.
    #[must_use]
    pub fn failing(&self) -> bool {
        self.failing.load(Ordering::Relaxed)
    }

    /// Looks at the files every `interval` (at least [`LOOK_MIN`]) and takes
    /// them once they are the same at two looks. Files that cannot be used are
    /// logged once per change, and the configuration stays as it was. Goes on
    /// until it is dropped; a look that has begun then is still finished.
    pub async fn watch(self: Arc<Self>, interval: Duration) {
        loop {
            tokio::time::sleep(interval.max(LOOK_MIN)).await;
            let this = Arc::clone(&self);
            let looked = tokio::task::spawn_blocking(move || this.look()).await;
            if let Err(error) = looked {
                if error.is_cancelled() {
                    return;
                }
                tracing::error!(%error, "looking at TLS files failed");
            }
        }
    }

    /// Looks at the files once. Blocks for as long as reading them takes.
    pub(super) fn look(&self) {
        let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        if !seen.ready(stamps(&self.source)) {
            return;
        }
        let loaded = self.source.load();
        let after = stamps(&self.source);
        if after != seen.read {
            // Changed while they were read: the next looks settle it.
            seen.read.clear();
            seen.changing = Some(after);
            return;
        }
        self.failing.store(loaded.is_err(), Ordering::Relaxed);
        match loaded {
            Ok(loaded) => {
                seen.problems.clear();
                self.take(loaded);
            }
            Err(bad) if bad.problems == seen.problems => {}
            Err(bad) => {
                self.failures.fetch_add(1, Ordering::Relaxed);
                for problem in &bad.problems {
                    tracing::error!(%problem, "changed TLS files are not used");
                }
                seen.problems = bad.problems;
            }
        }
    }

    fn take(&self, loaded: Loaded<S::Config>) {
        warn(&loaded.warnings);
        for certificate in &loaded.certificates {
            let path = certificate.path.display();
            tracing::info!(%path, names = ?certificate.names, "TLS certificate loaded again");
        }
        self.loaded.store(Arc::new(loaded));
        self.reloads.fetch_add(1, Ordering::Relaxed);
    }
}

fn stamps<S: Source>(source: &S) -> Stamps {
    source.paths().iter().map(|path| Stamp::of(path)).collect()
}

fn warn(warnings: &[FileProblem]) {
    for warning in warnings {
        tracing::warn!(%warning, "TLS file");
    }
}
