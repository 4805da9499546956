//! How a datapath starts: what carries sessions here, and why something does not.

use std::{
    io,
    path::PathBuf,
    sync::{Arc, Mutex, RwLock, atomic::AtomicU64},
};

use super::{
    Datapath, Mode, Observer, Options, Path, Shared,
    bpf::{self, Kernel, pins::Pins},
    engine, packet,
    persist::{self, Store},
    slots::SlotPool,
};
use crate::sys::DirectionTable;

/// Slots beyond the session limit, for those that wait to be used again.
const SPARE_SLOTS: u32 = 64;

/// The kernel path was wanted and is not there.
#[derive(Debug, thiserror::Error)]
pub enum NoKernelPath {
    /// The object can't be loaded.
    #[error(transparent)]
    Load(#[from] bpf::LoadError),
    /// The self-test moved bytes wrongly.
    #[error("the self-test failed: {0}")]
    SelfTest(String),
}

impl NoKernelPath {
    /// Label for metrics.
    #[must_use]
    pub const fn label(&self) -> &'static str {
        match self {
            Self::Load(e) => e.label(),
            Self::SelfTest(_) => "self_test",
        }
    }
}

/// Why no datapath could be started.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// This path is demanded, and is not there.
    #[error("datapath \"{wanted}\" is demanded, but {missing}; `wsproxy doctor` says more")]
    Kernel {
        /// As the configuration names it.
        wanted: &'static str,
        /// Why it is not.
        missing: NoKernelPath,
    },
    /// Sessions can't be kept over the end of the process.
    #[error("{key} = {path:?}: {error}")]
    Persist {
        /// The key of the configuration.
        key: &'static str,
        /// Its value.
        path: PathBuf,
        /// What is wrong with it.
        error: io::Error,
    },
    /// Sessions are to be kept over the end of the process, and none of them could be.
    #[error(
        "datapath.persist needs the packet path: mode \"auto\" or \"packet\", and datapath.packets"
    )]
    NothingPersists,
    /// A thread, a descriptor or memory was refused.
    #[error("cannot start the datapath: {0}")]
    System(#[from] io::Error),
}

/// What a datapath needs privileges for, had: BPF programs and maps, folders. None of its threads
/// runs yet.
pub struct Prepared {
    loaded: Option<bpf::Loaded>,
    store: Option<Store>,
    fallback: Option<NoKernelPath>,
    options: Options,
}

impl Prepared {
    /// Loads what carries sessions, where `options.mode` wants it and the self-test passes.
    ///
    /// # Errors
    /// See [`StartError`]; with [`Mode::Auto`] a missing kernel path is no error but
    /// [`Datapath::fallback`].
    pub fn load(options: Options) -> Result<Self, StartError> {
        let slots = slots_for(&options);
        let (store, pins) = match &options.persist {
            None => (None, None),
            Some(_) if !options.packets || matches!(options.mode, Mode::Relay | Mode::Sockmap) => {
                return Err(StartError::NothingPersists);
            }
            Some(persist) => {
                let (store, pins) = persist::open(persist, slots)?;
                (Some(store), Some(pins))
            }
        };
        let demanded = options.mode != Mode::Auto || options.persist.is_some();
        let (mut loaded, fallback) = match options.mode {
            Mode::Relay => (None, None),
            Mode::Auto if !demanded => match open_the_best(slots, options.packets) {
                Ok(loaded) => (Some(loaded), None),
                Err(missing) => (None, Some(missing)),
            },
            Mode::Auto | Mode::Sockmap | Mode::Packet => {
                match open_kernel(slots, options.packets, pins) {
                    Ok(loaded) => (Some(loaded), None),
                    Err(missing) => {
                        return Err(StartError::Kernel { wanted: options.mode.label(), missing });
                    }
                }
            }
        };
        if let Some(loaded) = loaded.as_mut().filter(|_| !options.tcx) {
            loaded.kernel.without_tcx();
        }
        Ok(Self { loaded, store, fallback, options })
    }

    /// The best path that there is.
    #[must_use]
    pub fn path(&self) -> Path {
        match &self.loaded {
            None => Path::Relay,
            Some(loaded) if loaded.kernel.packets().is_some() => Path::Packet,
            Some(_) => Path::Sockmap,
        }
    }

    /// Starts the engines over it. Sessions that an earlier process left in the kernel go on
    /// ([`Options::persist`]).
    ///
    /// # Errors
    /// A thread, a descriptor or memory was refused.
    pub fn start(self, observer: Arc<dyn Observer>) -> Result<Datapath, StartError> {
        let Self { loaded, store, fallback, options } = self;
        let mut datapath = Datapath::with_store(loaded, store, options, observer)?;
        datapath.fallback = fallback;
        Ok(datapath)
    }
}

impl Datapath {
    /// Loads and starts in one step.
    ///
    /// # Errors
    /// Those of [`Prepared::load`] and [`Prepared::start`].
    pub fn start(options: Options, observer: Arc<dyn Observer>) -> Result<Self, StartError> {
        Prepared::load(options)?.start(observer)
    }

    /// Starts the engines over what is loaded, for [`slots_for`] these options.
    pub(super) fn over(
        loaded: Option<bpf::Loaded>,
        options: Options,
        observer: Arc<dyn Observer>,
    ) -> io::Result<Self> {
        Self::with_store(loaded, None, options, observer)
    }

    fn with_store(
        loaded: Option<bpf::Loaded>,
        store: Option<Store>,
        options: Options,
        observer: Arc<dyn Observer>,
    ) -> io::Result<Self> {
        let slots = slots_for(&options);
        let (kernel, table, events) = match loaded {
            Some(bpf::Loaded { kernel, table, events }) => (Some(kernel), table, Some(events)),
            None => (None, DirectionTable::map(None, slots as usize * 2)?, None),
        };
        let workers = options.workers.max(1);
        let shared = Arc::new(Shared {
            slots: SlotPool::start(slots, options.max_sessions, kernel.is_some())?,
            closing: RwLock::new((options.farewell.clone(), options.window)),
            paths: match &kernel {
                Some(kernel) if kernel.packets().is_some() => Some(packet::plan::Paths::open()?),
                _ => None,
            },
            options,
            table,
            kernel,
            store,
            observer,
            live: Default::default(),
            started: AtomicU64::new(0),
            healed: AtomicU64::new(0),
            astray: AtomicU64::new(0),
            entered: AtomicU64::new(0),
            diverted_ns: Default::default(),
            folded: Mutex::default(),
        });
        let adopted = persist::adopt(&shared);
        let engines = engine::start(&shared, workers, events)?;
        let persisted = adopted.counts;
        let datapath =
            Self { shared, engines, fallback: None, persisted, next_id: adopted.next_id };
        for session in adopted.sessions {
            datapath.engine_of(session.slot()).go_on(session);
        }
        Ok(datapath)
    }
}

/// Places in the table for these options.
pub(super) fn slots_for(options: &Options) -> u32 {
    let spare = (options.max_sessions / 4).max(SPARE_SLOTS);
    options.max_sessions.saturating_add(spare)
}

/// Lets the object prove itself on a few sessions of its own, and loads it.
fn open_kernel(slots: u32, packets: bool, pins: Option<Pins>) -> Result<bpf::Loaded, NoKernelPath> {
    prove()?;
    Ok(Kernel::load(slots, packets, pins)?)
}

/// The same, without the packet path where only that is missing.
fn open_the_best(slots: u32, packets: bool) -> Result<bpf::Loaded, NoKernelPath> {
    prove()?;
    match Kernel::load(slots, packets, None) {
        Err(missing) if packets => {
            let loaded = Kernel::load(slots, false, None)?;
            tracing::warn!(reason = %missing, "there is no packet path (see `wsproxy doctor`)");
            Ok(loaded)
        }
        loaded => Ok(loaded?),
    }
}

fn prove() -> Result<(), NoKernelPath> {
    match bpf::selftest::run() {
        Ok(_took) => Ok(()),
        Err(bpf::selftest::Failure::Load(e)) => Err(NoKernelPath::Load(e)),
        Err(bpf::selftest::Failure::Wrong(what)) => Err(NoKernelPath::SelfTest(what)),
    }
}
