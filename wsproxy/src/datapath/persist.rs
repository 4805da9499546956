//! Sessions on the packet path survive the process: the kernel goes on with maps and program that
//! are pinned, and what only user space knows of a session stands in a file of its own. The next
//! process finds both, and supervises the sessions on. `docs/PACKET-PATH.md`, "Survival".

mod saved;

use std::{
    collections::{BTreeMap, BTreeSet, HashSet},
    fs, io,
    os::{fd::OwnedFd, unix::fs::DirBuilderExt as _, unix::fs::MetadataExt as _},
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

use rustix::fs::{FlockOperation, flock};
use wsproxy_common::{
    Direction,
    direction::{slot_of, to_client, to_upstream},
    packet::{Flow, FlowKey, State},
};

use self::saved::Refused;
pub(super) use self::saved::Saved;
use super::{
    FramePlan, Shared, StartError,
    bpf::{packet::Packets, pins::Pins},
    session::{Session, now_ns},
    slots::SlotPool,
};

/// What the maps mean that are shared with another version: to be counted up when that changes in a
/// way that sizes do not show. Files have a version of their own.
const LAYOUT: u32 = 1;
/// Bytes of a session's file, at most: names, numbers, and what is said of its handshake.
const MOST_BYTES: u64 = 256 * 1024;

/// Where sessions are kept.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Persist {
    /// A folder on a bpffs (`datapath.persist_path`).
    pub pins: PathBuf,
    /// A folder for what only user space knows (`datapath.state_dir`).
    pub state: PathBuf,
}

/// What became of sessions that an earlier process left.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Persisted {
    /// They go on.
    pub adopted: u64,
    /// They were changing their path, or can't go on: their peers get a reset.
    pub let_go: u64,
    /// They go on, but nobody supervises them: they were left under other sizes or by another
    /// version.
    pub left: u64,
}

/// The files of sessions.
#[derive(Debug)]
pub(crate) struct Store {
    root: PathBuf,
    folder: PathBuf,
    /// Sessions are to end with the process.
    released: AtomicBool,
    /// Locked as long as this lives.
    _lock: OwnedFd,
}

/// The name of what processes have in common that can take over from each other: what their maps
/// look like, and the network that their devices are in.
fn generation(slots: u32) -> io::Result<String> {
    let network = fs::metadata("/proc/thread-self/ns/net")?.ino();
    let sizes = [size_of::<Direction>(), size_of::<Flow>(), size_of::<FlowKey>()];
    let [direction, flow, key] = sizes;
    Ok(format!("v{LAYOUT}-{direction}-{flow}-{key}-{slots}-{network}"))
}

/// Opens what an earlier process has left, or makes it.
pub(super) fn open(persist: &Persist, slots: u32) -> Result<(Store, Pins), StartError> {
    let name = generation(slots)?;
    let at = |key, path: &Path| {
        let path = path.to_owned();
        move |error| StartError::Persist { key, path, error }
    };
    let store = Store::open(&persist.state, &name);
    let store = store.map_err(at("datapath.state_dir", &persist.state))?;
    let pins = Pins::open(&persist.pins, &name);
    let pins = pins.map_err(at("datapath.persist_path", &persist.pins))?;
    Ok((store, pins))
}

impl Store {
    fn open(root: &Path, name: &str) -> io::Result<Self> {
        let folder = root.join(name);
        fs::DirBuilder::new().recursive(true).mode(0o700).create(&folder)?;
        let lock = lock(&folder)?.ok_or_else(|| {
            io::Error::other("another wsproxy that runs keeps its sessions there")
        })?;
        Ok(Self { root: root.to_owned(), folder, released: AtomicBool::new(false), _lock: lock })
    }

    fn file(&self, slot: u32) -> PathBuf {
        self.folder.join(slot.to_string())
    }

    /// Keeps what is known of a session.
    pub(super) fn write(&self, slot: u32, saved: &Saved) -> io::Result<()> {
        let text = saved.to_json();
        if text.len() as u64 > MOST_BYTES {
            return Err(io::Error::other(format!("{} bytes are too many to be kept", text.len())));
        }
        let unfinished = self.folder.join(format!("{slot}.new"));
        fs::write(&unfinished, text)?;
        fs::rename(&unfinished, self.file(slot))
    }

    /// Nothing is known of it any more.
    pub(super) fn remove(&self, slot: u32) {
        if let Err(error) = fs::remove_file(self.file(slot))
            && error.kind() != io::ErrorKind::NotFound
        {
            tracing::warn!(%error, slot, "what was kept of a session could not be removed");
        }
    }

    /// What an earlier process has kept; files that can't be understood are removed.
    fn load(&self) -> BTreeMap<u32, Saved> {
        let mut all = BTreeMap::new();
        let mut refused = 0_u64;
        for (path, slot) in sessions(&self.folder) {
            match slot.ok_or(Refused::Damaged).and_then(|slot| Ok((slot, read(&path)?))) {
                Ok((slot, saved)) => {
                    all.insert(slot, saved);
                }
                Err(reason) => {
                    if refused == 0 {
                        tracing::warn!(
                            file = %path.display(), %reason,
                            "what an earlier process kept of a session can't be used: the session \
                             is let go; further ones are only counted"
                        );
                    }
                    refused += 1;
                    let _gone = fs::remove_file(&path);
                }
            }
        }
        if refused > 1 {
            tracing::warn!(files = refused, "files of sessions that can't be used");
        }
        all
    }

    /// Sessions of generations that nobody takes care of.
    fn left(&self) -> u64 {
        let folders = fs::read_dir(&self.root).into_iter().flatten().flatten();
        let folders = folders.map(|entry| entry.path()).filter(|path| *path != self.folder);
        let orphans = folders.filter(|path| matches!(lock(path), Ok(Some(_))));
        orphans.map(|path| sessions(&path).filter(|(_, slot)| slot.is_some()).count() as u64).sum()
    }

    fn leave(&self) {
        for (path, _) in sessions(&self.folder) {
            let _gone = fs::remove_file(path);
        }
        let _gone = fs::remove_file(self.folder.join(LOCK));
        let _gone = fs::remove_dir(&self.folder);
        // Another one's folders are in it.
        let _in_use = fs::remove_dir(&self.root);
    }
}

const LOCK: &str = "lock";

/// Locks a folder against other processes; `None`: another one has it.
fn lock(folder: &Path) -> io::Result<Option<OwnedFd>> {
    let file = fs::File::options().create(true).append(true).open(folder.join(LOCK))?;
    match flock(&file, FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => Ok(Some(file.into())),
        Err(rustix::io::Errno::WOULDBLOCK) => Ok(None),
        Err(error) => Err(error.into()),
    }
}

/// The files of a folder but its lock, and whose session it is; `None`: a file was not finished.
fn sessions(folder: &Path) -> impl Iterator<Item = (PathBuf, Option<u32>)> {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    entries.filter(|entry| entry.file_name() != LOCK).map(|entry| {
        let slot = entry.file_name().to_str().and_then(|name| name.parse().ok());
        (entry.path(), slot)
    })
}

fn read(path: &Path) -> Result<Saved, Refused> {
    let short = fs::metadata(path).is_ok_and(|file| file.len() <= MOST_BYTES);
    let bytes = if short { fs::read(path).ok() } else { None };
    Saved::from_json(&bytes.ok_or(Refused::Damaged)?)
}

/// Sessions that go on.
#[derive(Default)]
pub(super) struct Adopted {
    pub(super) sessions: Vec<Session>,
    pub(super) counts: Persisted,
    /// Behind the highest number that one of them has.
    pub(super) next_id: u64,
}

/// Takes over what an earlier process has left in the kernel. What can't go on is let go.
pub(super) fn adopt(shared: &Arc<Shared>) -> Adopted {
    let mut adopted = Adopted { next_id: 1, ..Adopted::default() };
    let packets = shared.kernel.as_ref().and_then(|kernel| kernel.packets());
    let (Some(store), Some(packets)) = (&shared.store, packets) else { return adopted };
    let mut stored = store.load();
    let found = Found::look(packets);
    let whole = found.whole(&stored);
    packets.sift(|slot| whole.contains(&slot));
    let mut plans = HashSet::new();
    for place in SlotPool::reserve_these(&shared.slots, &whole) {
        let slot = place.slot();
        let Some(mut saved) = stored.remove(&slot) else { continue };
        share_plan(&mut saved, &mut plans);
        let (id, keys) = (saved.id, saved.keys());
        match Session::adopt(shared, place, saved) {
            Ok(session) => {
                adopted.next_id = adopted.next_id.max(id + 1);
                adopted.sessions.push(session);
            }
            Err(error) => {
                tracing::warn!(session = id, %error, "a session could not be taken over");
                packets.let_go(slot, &keys);
                store.remove(slot);
            }
        }
    }
    for slot in stored.into_keys() {
        store.remove(slot);
    }
    let count = adopted.sessions.len() as u64;
    adopted.counts = Persisted {
        adopted: count,
        let_go: found.at_work.len() as u64 - count,
        left: store.left(),
    };
    tell(&adopted.counts, store);
    adopted
}

/// Sessions of a kind have one plan, as those that begin here.
fn share_plan(saved: &mut Saved, plans: &mut HashSet<Arc<FramePlan>>) {
    let Some(frames) = &mut saved.frames else { return };
    match plans.get(frames.plan.as_ref()) {
        Some(plan) => frames.plan = Arc::clone(plan),
        None => {
            plans.insert(Arc::clone(&frames.plan));
        }
    }
}

/// What there is in the kernel.
struct Found {
    /// Keys of places, with the indices that they lead to.
    keys: BTreeMap<u32, Vec<(FlowKey, u32)>>,
    /// Places with keys whose packets are not the stack's.
    at_work: BTreeSet<u32>,
    /// Those among them that were not changing their path.
    settled: BTreeSet<u32>,
}

impl Found {
    fn look(packets: &Packets) -> Self {
        let mut keys: BTreeMap<u32, Vec<_>> = BTreeMap::new();
        for (key, index) in packets.enlisted() {
            keys.entry(slot_of(index)).or_default().push((key, index));
        }
        let both = |slot: u32, is: fn(State) -> bool| {
            packets.flows(slot).into_iter().all(|flow| is(flow.state()))
        };
        let places = |is| keys.keys().copied().filter(|slot| both(*slot, is)).collect();
        let at_work = places(|s| matches!(s, State::Hold | State::Forward | State::Settle));
        let settled = places(|s| matches!(s, State::Forward | State::Settle));
        Self { keys, at_work, settled }
    }

    /// Places of which there is everything: what was kept, both keys, and flows at work.
    fn whole(&self, stored: &BTreeMap<u32, Saved>) -> BTreeSet<u32> {
        let is_whole = |(slot, saved): &(&u32, &Saved)| {
            let [client, upstream] = saved.keys();
            let wanted = [(client, to_upstream(**slot)), (upstream, to_client(**slot))];
            let found = self.keys.get(slot);
            let both = found.is_some_and(|keys| wanted.iter().all(|key| keys.contains(key)));
            both && self.settled.contains(slot)
        };
        stored.iter().filter(is_whole).map(|(slot, _)| *slot).collect()
    }
}

fn tell(counts: &Persisted, store: &Store) {
    let Persisted { adopted, let_go, left } = *counts;
    if adopted > 0 || let_go > 0 {
        tracing::info!(adopted, let_go, "sessions of an earlier process");
    }
    if left > 0 {
        tracing::warn!(
            sessions = left,
            state = %store.root.display(),
            "sessions of an earlier process go on, but nobody supervises them: it had another \
             version or another limits.max_sessions"
        );
    }
}

impl Shared {
    /// Whether sessions on the packet path are to go on when the process ends.
    pub(crate) fn persists(&self) -> bool {
        self.store.as_ref().is_some_and(|store| !store.released.load(Ordering::SeqCst))
    }

    /// Sessions are to end with the process.
    pub(super) fn release(&self) {
        if let Some(store) = &self.store {
            store.released.store(true, Ordering::SeqCst);
        }
    }

    /// The last thing of all: nothing stays, unless sessions are to go on.
    pub(super) fn leave(&self) {
        if self.persists() {
            return;
        }
        // Classical filters stay behind the process, too: nothing but this takes them out.
        if let Some(packets) = self.kernel.as_ref().and_then(|kernel| kernel.packets()) {
            packets.release();
        }
        if let Some(store) = &self.store {
            store.leave();
        }
    }

    /// As [`Self::leave`], while sessions run.
    pub(super) fn cut_off(&self) {
        self.release();
        if let Some(packets) = self.kernel.as_ref().and_then(|kernel| kernel.packets()) {
            packets.sift(|_| false);
        }
        self.leave();
    }

    /// Keeps what is known of a session, if sessions are kept.
    pub(super) fn keep(&self, slot: u32, saved: impl FnOnce(u64) -> Option<Saved>) {
        if let Some(store) = &self.store
            && let Some(saved) = saved(now_ns())
            && let Err(error) = store.write(slot, &saved)
        {
            tracing::warn!(%error, session = saved.id, "a session will not outlive this process");
        }
    }

    /// Nothing is kept of a session any more.
    pub(super) fn forget(&self, slot: u32) {
        if let Some(store) = &self.store {
            store.remove(slot);
        }
    }
}
