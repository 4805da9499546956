//! The packet path in the kernel: the program, the devices it is attached to, the keys that it
//! finds sessions by, and what it does with their packets.

use std::{
    collections::BTreeMap,
    io,
    os::fd::AsFd,
    sync::{Mutex, MutexGuard, PoisonError},
};

use aya::{
    Ebpf,
    maps::{HashMap, Map, MapData},
    programs::{
        LinkOrder, SchedClassifier,
        tc::{SchedClassifierLink, TcAttachOptions, TcAttachType},
    },
};
use wsproxy_common::{
    direction::{slot_of, to_client, to_upstream},
    layout::{PACKET_PROGRAM, maps},
    packet::{FlowKey, State},
};

use super::{
    Kernel, LoadError,
    classical::Classical,
    map_error,
    pins::{self, Hook, Pins},
    take,
};
use crate::sys::{
    FlowTable,
    flow::{Key, SharedFlow},
};

/// The packet path. It lets all packets go by when this is dropped.
pub struct Packets {
    keys: Mutex<HashMap<MapData, Key, u32>>,
    flows: FlowTable,
    /// Where the program is attached, by index of device.
    hooks: Mutex<BTreeMap<u32, Hook>>,
    /// Where maps and attachments are kept when the process dies.
    pins: Option<Pins>,
    /// Whether tcx is used where the kernel has it.
    tcx: bool,
}

impl Packets {
    pub(super) fn load(
        object: &mut Ebpf,
        directions: u32,
        pins: Option<Pins>,
    ) -> Result<Self, LoadError> {
        let keys = take(object, maps::KEYS)?;
        let flows = object.take_map(maps::FLOWS).ok_or(LoadError::Missing(maps::FLOWS))?;
        let Map::Array(flows) = &flows else {
            return Err(LoadError::Missing(maps::FLOWS));
        };
        let flows = FlowTable::map(Some(flows.fd().as_fd()), directions as usize)
            .map_err(LoadError::Map)?;
        let program: &mut SchedClassifier = object
            .program_mut(PACKET_PROGRAM)
            .ok_or(LoadError::Missing(PACKET_PROGRAM))?
            .try_into()
            .map_err(|e: aya::programs::ProgramError| LoadError::refused(&e))?;
        program.load().map_err(|e| LoadError::refused(&e))?;
        let hooks = match &pins {
            Some(pins) => {
                pins::try_to_keep(program).map_err(LoadError::NotKept)?;
                pins.take_over(program)
            }
            None => BTreeMap::new(),
        };
        Ok(Self { keys: Mutex::new(keys), flows, hooks: Mutex::new(hooks), pins, tcx: true })
    }

    /// What is done with packets of a session: of those from the client, from the upstream.
    #[must_use]
    pub fn flows(&self, slot: u32) -> [&SharedFlow; 2] {
        let all = self.flows.records();
        [&all[to_upstream(slot) as usize], &all[to_client(slot) as usize]]
    }

    fn keys(&self) -> MutexGuard<'_, HashMap<MapData, Key, u32>> {
        self.keys.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Has the program look at the packets of a session.
    ///
    /// # Errors
    /// What `bpf(2)` says: `EEXIST` when another session has these addresses and ports, `E2BIG`
    /// or `ENOMEM`. Nothing has changed then.
    pub fn enlist(&self, slot: u32, of: &[FlowKey; 2]) -> io::Result<()> {
        /// `BPF_NOEXIST`.
        const NEW: u64 = 1;
        let mut keys = self.keys();
        keys.insert(Key(of[0]), to_upstream(slot), NEW).map_err(map_error)?;
        keys.insert(Key(of[1]), to_client(slot), NEW).map_err(|error| {
            let _removed = keys.remove(&Key(of[0]));
            map_error(error)
        })
    }

    fn dismiss(&self, of: &[FlowKey; 2]) {
        let mut keys = self.keys();
        for key in of {
            let _removed = keys.remove(&Key(*key));
        }
    }

    /// Is done with a session: its packets go to the stack, and its place may be used again.
    pub fn let_go(&self, slot: u32, keys: &[FlowKey; 2]) {
        self.dismiss(keys);
        for flow in self.flows(slot) {
            flow.set_state(State::Off);
        }
    }

    /// Keys in the map, for tests: 0 when no session is on the packet path.
    #[must_use]
    pub fn entries(&self) -> usize {
        self.keys().keys().filter(Result::is_ok).count()
    }

    /// What the keys that are there lead to: index of the direction, by key.
    #[must_use]
    pub fn enlisted(&self) -> Vec<(FlowKey, u32)> {
        let keys = self.keys();
        keys.iter().flatten().map(|(key, index)| (key.0, index)).collect()
    }

    /// Lets the packets of all sessions go to the stack but of those in places that `stay`.
    pub fn sift(&self, stay: impl Fn(u32) -> bool) {
        for (key, index) in self.enlisted() {
            if !stay(slot_of(index)) {
                let _removed = self.keys().remove(&Key(key));
            }
        }
        for (index, flow) in (0..).zip(self.flows.records()) {
            if flow.state() != State::Off && !stay(slot_of(index)) {
                flow.set_state(State::Off);
            }
        }
    }

    /// Nothing of it stays in the kernel when the process ends.
    pub fn release(&self) {
        for hook in std::mem::take(&mut *self.hooks()).into_values() {
            hook.take_off();
        }
        if let Some(pins) = &self.pins {
            pins.remove();
        }
    }

    fn hooks(&self) -> MutexGuard<'_, BTreeMap<u32, Hook>> {
        self.hooks.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Forgets devices that are gone: their index may be another one's later.
    pub fn keep(&self, exists: impl Fn(u32) -> bool) {
        let mut hooks = self.hooks();
        let gone: Vec<_> = hooks.keys().copied().filter(|device| !exists(*device)).collect();
        for hook in gone.into_iter().filter_map(|device| hooks.remove(&device)) {
            hook.take_off();
        }
    }

    /// Whether the program looks at the packets of a device.
    #[must_use]
    pub fn is_attached(&self, device: u32) -> bool {
        self.hooks().contains_key(&device)
    }
}

impl Kernel {
    /// Whether the packet path's program can be attached so that it outlives the process, tried
    /// at loopback.
    ///
    /// # Errors
    /// Why not, in words.
    pub fn can_outlive(&self) -> Result<(), String> {
        let mut object = self.object.lock().unwrap_or_else(PoisonError::into_inner);
        let program = object.program_mut(PACKET_PROGRAM).ok_or("the packet path is not loaded")?;
        let program: &mut SchedClassifier = program.try_into().map_err(|_| "no tc program")?;
        pins::try_to_keep(program)
    }

    /// Has the packet path's program see what comes in over a device; of loopback, what goes out.
    ///
    /// # Errors
    /// What the kernel says; `Unsupported` without the packet path.
    pub fn attach_to_device(&self, device: u32, name: &str, loopback: bool) -> io::Result<()> {
        let unsupported = || io::Error::from(io::ErrorKind::Unsupported);
        let packets = self.packets.as_ref().ok_or_else(unsupported)?;
        let mut hooks = packets.hooks();
        if hooks.contains_key(&device) {
            return Ok(());
        }
        let mut object = self.object.lock().unwrap_or_else(PoisonError::into_inner);
        let program = object.program_mut(PACKET_PROGRAM).ok_or_else(unsupported)?;
        let program: &mut SchedClassifier = program.try_into().map_err(io::Error::other)?;
        let place = place_at(loopback);
        let link = if packets.tcx { attach_tcx(program, name, place) } else { Err(unsupported()) };
        let hook = match (link, &packets.pins) {
            (Ok(link), Some(pins)) => pins.keep(device, link)?,
            (Ok(link), None) => Hook::Ours { _link: link },
            (Err(no_tcx), Some(_)) => return Err(no_tcx),
            // A kernel before 6.6.
            (Err(_), None) => {
                Hook::Classical { _filter: Classical::attach(program, device, name, place)? }
            }
        };
        hooks.insert(device, hook);
        Ok(())
    }

    /// Does without tcx, as on a kernel before Linux 6.6.
    pub fn without_tcx(&mut self) {
        if let Some(packets) = &mut self.packets {
            packets.tcx = false;
        }
    }

    #[cfg(test)]
    pub(super) fn attach_classical(
        &self,
        device: u32,
        name: &str,
        loopback: bool,
    ) -> io::Result<Classical> {
        let mut object = self.object.lock().unwrap();
        let program = object.program_mut(PACKET_PROGRAM).unwrap().try_into().unwrap();
        Classical::attach(program, device, name, place_at(loopback))
    }
}

fn attach_tcx(
    program: &mut SchedClassifier,
    name: &str,
    place: TcAttachType,
) -> io::Result<SchedClassifierLink> {
    let tcx = TcAttachOptions::TcxOrder(LinkOrder::default());
    let attached = program.attach_with_options(name, place, tcx);
    attached.and_then(|link| program.take_link(link)).map_err(refusal)
}

/// Of loopback, what goes out.
const fn place_at(loopback: bool) -> TcAttachType {
    if loopback { TcAttachType::Egress } else { TcAttachType::Ingress }
}

pub(super) fn refusal(error: aya::programs::ProgramError) -> io::Error {
    io::Error::other(super::first_line(&error))
}
