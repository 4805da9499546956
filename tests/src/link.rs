//! A lossy link: a tc program of the tests' own (`tests/link-ebpf`) at the egress of a device
//! drops, doubles and holds back TCP's packets by a seeded plan, since netem is not in every
//! kernel. Everything else (ARP, neighbour discovery) passes.
//!
//! A packet's fate is a function of the seed and of its number at that device, so that a run can
//! be repeated; which packet gets which number is the machine's affair. The sender is told that a
//! lost packet was sent, as with a real link, and its TCP finds out in TCP's ways.
//!
//! Held packets go through a *delay line*: a TAP device in the same namespace, from which a thread
//! takes them and gives each back after its time, straight to the link's egress. Only they take
//! that way. What lies there when the link is dropped is lost.
//!
//! A packet here is what the device is given. Where that is up to 64 KiB (segmentation offload), so
//! much is lost at once, and [`Net::one_by_one`] makes nets where it is one segment.

use std::{
    collections::BinaryHeap,
    fmt,
    net::{Ipv4Addr, UdpSocket},
    os::fd::AsRawFd,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering},
        mpsc::{Sender, channel},
    },
    thread::JoinHandle,
    time::{Duration, Instant},
};

use aya::{
    Ebpf,
    maps::{Array, MapData},
    programs::{SchedClassifier, TcAttachType},
};
use smoltcp::{
    phy::{self, Device, Medium, RxToken, TunTapInterface, TxToken},
    time::{Duration as PhyDuration, Instant as PhyInstant},
};

use crate::{
    namespaces::{Entrance, Net, Place, device},
    sessions::Dice,
};

#[path = "../link-ebpf/src/numbers.rs"]
mod numbers;

use numbers::{Count, Setting};

/// Built by `cargo xtask build-ebpf`.
static OBJECT: &[u8] = aya::include_bytes_aligned!("../ebpf-object/link.bpf.o");

/// How long a packet is held so that others overtake it, where the plan names no delay.
const OVERTAKEN: (Duration, Duration) = (Duration::from_millis(1), Duration::from_millis(5));
/// Packets that the delay line holds; more are lost.
const MOST_HELD: usize = 8192;
/// How soon a delay line notices that it is to end.
const NAP: Duration = Duration::from_millis(20);

/// What happens on a link. Shares are of 1; a packet has one fate, so their sum is at most 1.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Plan {
    /// Decides with the packets' numbers.
    pub seed: u64,
    /// Share of packets that are lost.
    pub drop: f64,
    /// Share of packets that come twice.
    pub duplicate: f64,
    /// Share of packets that later ones overtake.
    pub reorder: f64,
    /// Every other packet is held this long, between the two, each drawn anew (so it reorders as
    /// well, unless both are equal). Held 1 to 5 ms longer, or only so long where this is
    /// `None`, is who is to be overtaken.
    pub delay: Option<(Duration, Duration)>,
    /// Only packets from or to this TCP port.
    pub port: Option<u16>,
    /// Only packets with payload.
    pub only_payload: bool,
}

/// Packets by what became of them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Those the plan was for.
    pub seen: u64,
    /// Sent at once, doubled ones counted once.
    pub passed: u64,
    /// Lost.
    pub dropped: u64,
    /// Sent twice.
    pub duplicated: u64,
    /// Given to the delay line.
    pub held: u64,
    /// Given back by it: a train of segments went in as one packet and comes back as its segments.
    pub returned: u64,
    /// Given back after others that came later.
    pub overtaken: u64,
}

type Numbers = Array<MapData, u64>;

/// A link with a plan, in one direction; a link like others when dropped.
pub struct Lossy<'net> {
    // First, so that nothing goes to the line when it ends.
    _programs: Ebpf,
    settings: Numbers,
    counts: Arc<Numbers>,
    line: Line,
    place: Place,
    hop: Place,
    net: &'net Net,
}

impl<'net> Lossy<'net> {
    /// For what `place` sends on the hop between the gateway and `hop`.
    ///
    /// # Panics
    /// When the kernel refuses something, and for a plan that can't be.
    #[must_use]
    pub fn attach(net: &'net Net, place: Place, hop: Place, plan: Plan) -> Self {
        let mut programs = Ebpf::load(OBJECT).expect("the link's BPF object loads");
        let mut numbers = |name: &str| -> Numbers {
            let map = programs.take_map(name).unwrap_or_else(|| panic!("no map {name}"));
            Array::try_from(map).expect("an array of numbers")
        };
        let (settings, counts) = (numbers("SETTINGS"), Arc::new(numbers("COUNTS")));
        let line = Line::start(net, place, hop, Arc::clone(&counts));
        let mut lossy = Self { _programs: programs, settings, counts, line, place, hop, net };
        net.within(place, || lossy.connect());
        lossy.set(plan);
        lossy
    }

    /// The net that it is a link of.
    #[must_use]
    pub fn net(&self) -> &'net Net {
        self.net
    }

    /// In all four places of a net, each with a seed of its own.
    ///
    /// # Panics
    /// As [`Self::attach`] does.
    #[must_use]
    pub fn everywhere(net: &'net Net, plan: Plan) -> [Self; 4] {
        use Place::{Client, Gateway, Server};
        let ends = [(Client, Client), (Gateway, Client), (Gateway, Server), (Server, Server)];
        let mut seed = plan.seed.wrapping_mul(4);
        ends.map(|(place, hop)| {
            seed = seed.wrapping_add(1);
            Self::attach(net, place, hop, Plan { seed, ..plan })
        })
    }

    /// In the namespace: both programs to their devices.
    fn connect(&mut self) {
        let (link, line) = (device(self.hop), line_of(self.hop));
        for (setting, device) in [(Setting::Link, link), (Setting::Line, &line)] {
            self.write(setting, index_of(device));
        }
        for (name, device, at) in
            [("returned", &*line, TcAttachType::Ingress), ("lossy", link, TcAttachType::Egress)]
        {
            let program = self._programs.program_mut(name).expect("a program of the object");
            let program: &mut SchedClassifier = program.try_into().expect("a tc program");
            program.load().unwrap_or_else(|e| panic!("the kernel refuses {name}: {e:?}"));
            program.attach(device, at).unwrap_or_else(|e| panic!("{name} at {device}: {e:?}"));
        }
    }

    /// From now on this plan. Packets are numbered on.
    ///
    /// # Panics
    /// For a plan that can't be.
    pub fn set(&mut self, plan: Plan) {
        self.line.set(plan);
        // Everything is held where there is a delay: who is overtaken is the line's to draw.
        let hold = if plan.delay.is_some() { 1.0 } else { plan.reorder };
        let (lost, doubled) = (plan.drop, plan.drop + plan.duplicate);
        assert!((0.0..=1.0).contains(&(doubled + plan.reorder)), "shares beyond 1: {plan:?}");
        self.write(Setting::Seed, plan.seed);
        self.write(Setting::Port, plan.port.map_or(0, u64::from));
        self.write(Setting::OnlyPayload, u64::from(plan.only_payload));
        self.write(Setting::Drop, of_2_32(lost));
        self.write(Setting::Duplicate, of_2_32(doubled));
        self.write(Setting::Hold, of_2_32(doubled + hold));
    }

    fn write(&mut self, setting: Setting, value: u64) {
        self.settings.set(setting as u32, value, 0).expect("a setting of the link");
    }

    /// What became of the packets so far.
    ///
    /// # Panics
    /// When the kernel does not tell.
    #[must_use]
    pub fn counts(&self) -> Counts {
        let read = |count| read(&self.counts, count);
        Counts {
            seen: read(Count::Seen),
            passed: read(Count::Passed),
            dropped: read(Count::Dropped),
            duplicated: read(Count::Duplicated),
            held: read(Count::Held),
            returned: read(Count::Returned),
            overtaken: self.line.shared.overtaken.load(Ordering::Relaxed),
        }
    }
}

impl fmt::Debug for Lossy<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?} towards {:?}: {:?}", self.place, self.hop, self.counts())
    }
}

impl Drop for Lossy<'_> {
    fn drop(&mut self) {
        self.line.end();
        self.net.remove(self.place, &line_of(self.hop));
    }
}

impl std::ops::Add for Counts {
    type Output = Self;

    fn add(self, other: Self) -> Self {
        Self {
            seen: self.seen + other.seen,
            passed: self.passed + other.passed,
            dropped: self.dropped + other.dropped,
            duplicated: self.duplicated + other.duplicated,
            held: self.held + other.held,
            returned: self.returned + other.returned,
            overtaken: self.overtaken + other.overtaken,
        }
    }
}

/// A share as a threshold for 32 random bits.
fn of_2_32(share: f64) -> u64 {
    (share.min(1.0) * (1_u64 << 32) as f64) as u64
}

fn read(counts: &Numbers, count: Count) -> u64 {
    counts.get(&(count as u32), 0).expect("a count of the link")
}

fn line_of(hop: Place) -> String {
    format!("line-{}", device(hop))
}

/// In this thread's namespace.
fn index_of(device: &str) -> u64 {
    let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0)).expect("a socket to ask with");
    let index = rustix::net::netdevice::name_to_index(&socket, device);
    u64::from(index.unwrap_or_else(|e| panic!("{device}: {e}")))
}

/// The delay line: a TAP device and the thread behind it.
struct Line {
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

/// What the line's thread and its owner both have.
struct Shared {
    plan: Mutex<Plan>,
    ended: AtomicBool,
    overtaken: AtomicU64,
}

impl Line {
    fn start(net: &Net, place: Place, hop: Place, counts: Arc<Numbers>) -> Self {
        let name = line_of(hop);
        net.add_tap(place, &name);
        // Without an address of its own it says nothing of its own.
        net.set_link(place, &name, "addrgenmode none up");
        let shared = Arc::new(Shared {
            plan: Mutex::default(),
            ended: AtomicBool::new(false),
            overtaken: AtomicU64::new(0),
        });
        let (entrance, (open, opened)) = (net.entrance(place), channel());
        let thread = std::thread::spawn({
            let shared = Arc::clone(&shared);
            move || hold_back(entrance, &name, &shared, &counts, open)
        });
        opened.recv().expect("the delay line's device opens");
        Self { shared, thread: Some(thread) }
    }

    fn set(&self, plan: Plan) {
        *self.shared.plan.lock().unwrap_or_else(PoisonError::into_inner) = plan;
    }

    fn end(&mut self) {
        self.shared.ended.store(true, Ordering::Relaxed);
        let ended = self.thread.take().map_or(Ok(()), JoinHandle::join);
        // Its panic was printed; a second one while the first unwinds would abort.
        assert!(ended.is_ok() || std::thread::panicking(), "the delay line broke");
    }
}

/// A packet in the line; the greatest is the one that is due first.
#[derive(PartialEq, Eq, PartialOrd, Ord)]
struct Held {
    due: std::cmp::Reverse<(Instant, u64)>,
    /// Packets that had passed when it came.
    passed: u64,
    frame: Vec<u8>,
}

/// The line's thread.
fn hold_back(entrance: Entrance, name: &str, shared: &Shared, counts: &Numbers, open: Sender<()>) {
    entrance.enter();
    let mut tap = TunTapInterface::new(name, Medium::Ethernet).expect("the TAP device");
    // Whoever started this waits for it.
    let _ = open.send(());
    let mut held: BinaryHeap<Held> = BinaryHeap::new();
    let (mut dice, mut number, mut last_out) = (None, 0, 0);
    while !shared.ended.load(Ordering::Relaxed) {
        let plan = *shared.plan.lock().unwrap_or_else(PoisonError::into_inner);
        let dice = dice.get_or_insert_with(|| Dice::new(plan.seed));
        while let Some((token, _)) = tap.receive(PhyInstant::ZERO) {
            let (frame, passed) = (token.consume(<[u8]>::to_vec), read(counts, Count::Passed));
            number += 1;
            let due = std::cmp::Reverse((Instant::now() + wait_of(&plan, dice), number));
            if held.len() < MOST_HELD {
                held.push(Held { due, passed, frame });
            }
        }
        while held.peek().is_some_and(|h| h.due.0.0 <= Instant::now()) {
            let Some(Held { due, passed, frame }) = held.pop() else { break };
            if due.0.1 < last_out || read(counts, Count::Passed) > passed {
                shared.overtaken.fetch_add(1, Ordering::Relaxed);
            }
            last_out = last_out.max(due.0.1);
            give_back(&mut tap, &frame);
        }
        let due = held.peek().map(|h| h.due.0.0.saturating_duration_since(Instant::now()));
        sleep(&tap, due.unwrap_or(NAP).min(NAP));
    }
}

fn give_back(tap: &mut TunTapInterface, frame: &[u8]) {
    if let Some(token) = tap.transmit(PhyInstant::ZERO) {
        token.consume(frame.len(), |out| out.copy_from_slice(frame));
    }
}

/// Until a packet comes, or `most` is over (in whole milliseconds, rounded up).
fn sleep(tap: &TunTapInterface, most: Duration) {
    let millis = most.as_micros().div_ceil(1000) as u64;
    phy::wait(tap.as_raw_fd(), Some(PhyDuration::from_millis(millis))).expect("select(2)");
}

fn wait_of(plan: &Plan, dice: &mut Dice) -> Duration {
    let Some(delay) = plan.delay else { return between(OVERTAKEN, dice) };
    let chosen = dice.below(1 << 32) < of_2_32(plan.reorder);
    between(delay, dice) + if chosen { between(OVERTAKEN, dice) } else { Duration::ZERO }
}

fn between((least, most): (Duration, Duration), dice: &mut Dice) -> Duration {
    let room = most.saturating_sub(least).as_micros() as u64;
    least + Duration::from_micros(dice.below(room + 1))
}
