//! Whether a session can go the packet path, and what becomes of its packets there.

mod saved;

use std::{
    io,
    net::{IpAddr, SocketAddr},
    os::fd::BorrowedFd,
    sync::{
        Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
};

use rustix::net::{getpeername, getsockname};
use wsproxy_common::packet::{Flow, FlowKey, KNOWN, mapped};

pub use self::saved::{SavedLeg, saved_keys};
use super::{
    socket::{Facts, Frozen, RepairWindow, Revival, facts},
    ways::{NoWay, Way, Ways},
};
use crate::datapath::bpf::Kernel;

/// Bytes of options that timestamps take in each segment (RFC 7323, appendix A).
const TIMESTAMPS: u32 = 12;

/// Why a session does not go the packet path.
#[derive(Debug, thiserror::Error)]
pub enum Ineligible {
    /// A side is TLS or no TCP.
    #[error("a side is no plain TCP connection")]
    NotTcp,
    /// IPv4 on one side, IPv6 on the other.
    #[error("one side is IPv4, the other IPv6")]
    Family,
    /// The sides agreed on different options.
    #[error("the two connections differ in TCP's {0}")]
    Options(&'static str),
    /// One side may send larger segments than the other one takes.
    #[error("a segment of {sent} bytes can come in, and {taken} can go out")]
    Mss {
        /// Bytes.
        sent: u32,
        /// Bytes.
        taken: u32,
    },
    /// No way that packets could go.
    #[error("{0}")]
    Way(#[from] NoWay),
    /// The program can't be attached to a device, or the key is taken.
    #[error("the kernel refused: {0}")]
    Refused(io::Error),
    /// It came back.
    #[error("packets were lost where frames begin, or only user space could judge them")]
    CameBack,
    /// It was never quiet.
    #[error("there was never a quiet moment")]
    Busy,
}

impl Ineligible {
    /// Label for metrics.
    #[must_use]
    pub const fn label(&self) -> &'static str {
        match self {
            Self::NotTcp => "packet_not_tcp",
            Self::Family => "packet_family",
            Self::Options(_) => "packet_options",
            Self::Mss { .. } => "packet_mss",
            Self::Way(no) => no.label(),
            Self::Refused(_) => "packet_refused",
            Self::CameBack => "packet_came_back",
            Self::Busy => "packet_busy",
        }
    }
}

/// One side: a connection of ours.
#[derive(Clone, Debug)]
pub struct Leg {
    local: SocketAddr,
    peer: SocketAddr,
    facts: Facts,
    way: Way,
}

/// What becomes of the packets of a session.
#[derive(Clone, Debug)]
pub struct Plan {
    legs: [Leg; 2],
}

/// The ways to peers, for all sessions.
#[derive(Debug)]
pub struct Paths {
    ways: Mutex<Ways>,
    changes: AtomicU64,
}

impl Paths {
    /// For the network namespace of this thread.
    ///
    /// # Errors
    /// The kernel gives no netlink socket.
    pub fn open() -> io::Result<Self> {
        Ok(Self { ways: Mutex::new(Ways::open()?), changes: AtomicU64::new(0) })
    }

    fn ways(&self) -> MutexGuard<'_, Ways> {
        self.ways.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Looks at both connections of a session, and has the program look at the devices that its
    /// packets come in through.
    ///
    /// # Errors
    /// See [`Ineligible`].
    pub fn plan(&self, kernel: &Kernel, sockets: [BorrowedFd<'_>; 2]) -> Result<Plan, Ineligible> {
        let mut ways = self.ways();
        let [client, upstream] = sockets;
        let legs = [leg(&mut ways, client)?, leg(&mut ways, upstream)?];
        check(&legs)?;
        for leg in &legs {
            attach(&mut ways, kernel, leg.way.device)?;
        }
        Ok(Plan { legs })
    }

    /// How often routes, addresses or devices have changed so far, as far as was noticed. Whoever
    /// notices it forgets the devices that are gone.
    pub fn changes(&self, kernel: &Kernel) -> u64 {
        // Under the lock: whoever reads the news counts them before anybody else looks.
        let mut ways = self.ways();
        if ways.has_changed() {
            self.changes.fetch_add(1, Ordering::Relaxed);
            if let (Some(packets), Ok(devices)) = (kernel.packets(), ways.devices()) {
                packets.keep(|index| devices.iter().any(|device| device.index == index));
            }
        }
        self.changes.load(Ordering::Relaxed)
    }

    /// Has the program look at all devices that packets may come in through: those of a session
    /// seem to come by another one than before.
    ///
    /// # Errors
    /// The kernel could not be asked, or refused; other devices were attached to all the same.
    pub fn attach_everywhere(&self, kernel: &Kernel) -> io::Result<()> {
        let mut result = Ok(());
        for device in self.ways().devices()?.iter().filter(|device| device.up) {
            let attached = kernel.attach_to_device(device.index, &device.name, device.loopback);
            result = result.and(attached);
        }
        result
    }

    /// Asks again how the peers of a session are reached.
    ///
    /// # Errors
    /// There is no way any more.
    pub fn look_again(&self, kernel: &Kernel, plan: &mut Plan) -> Result<[u32; 2], Ineligible> {
        let mut ways = self.ways();
        for leg in &mut plan.legs {
            leg.way = ways.to(leg.peer.ip(), leg.local.ip())?;
            attach(&mut ways, kernel, leg.way.device)?;
        }
        let [client, upstream] = &plan.legs;
        Ok([upstream.way.device, client.way.device])
    }
}

fn attach(ways: &mut Ways, kernel: &Kernel, index: u32) -> Result<(), Ineligible> {
    if kernel.packets().is_some_and(|packets| packets.is_attached(index)) {
        return Ok(());
    }
    let devices = ways.devices().map_err(Ineligible::Refused)?;
    let device = devices.into_iter().find(|device| device.index == index).ok_or(NoWay::Gone)?;
    kernel
        .attach_to_device(device.index, &device.name, device.loopback)
        .map_err(Ineligible::Refused)
}

fn leg(ways: &mut Ways, socket: BorrowedFd<'_>) -> Result<Leg, Ineligible> {
    let refused = |error: rustix::io::Errno| Ineligible::Refused(error.into());
    let address = |any: rustix::net::SocketAddrAny| {
        let address = SocketAddr::try_from(any).map_err(|_| Ineligible::NotTcp)?;
        Ok::<_, Ineligible>(SocketAddr::new(address.ip().to_canonical(), address.port()))
    };
    let local = address(getsockname(socket).map_err(refused)?)?;
    let peer = address(getpeername(socket).map_err(refused)?.ok_or(Ineligible::NotTcp)?)?;
    let facts = facts(socket).map_err(Ineligible::Refused)?;
    let way = ways.to(peer.ip(), local.ip())?;
    Ok(Leg { local, peer, facts, way })
}

/// Bytes of a segment, header excluded and options included, that the way of a side takes.
fn room(leg: &Leg) -> u32 {
    let headers = if leg.peer.is_ipv4() { 40 } else { 60 };
    leg.facts.pmtu.min(leg.way.mtu).saturating_sub(headers)
}

/// Bytes of a segment, options included, that a side may send: what we told it. `advmss` has gone
/// down by the timestamps since (`tcp_rcv_synsent_state_process`, `tcp_rcv_state_process`).
fn sent_by(leg: &Leg) -> u32 {
    leg.facts.advmss + if leg.facts.timestamps { TIMESTAMPS } else { 0 }
}

fn check(legs: &[Leg; 2]) -> Result<(), Ineligible> {
    let [client, upstream] = legs;
    if client.peer.is_ipv4() != upstream.peer.is_ipv4() {
        return Err(Ineligible::Family);
    }
    let (a, b) = (&client.facts, &upstream.facts);
    if !a.established || !b.established {
        return Err(Ineligible::NotTcp);
    }
    if (a.timestamps, a.microseconds) != (b.timestamps, b.microseconds) {
        return Err(Ineligible::Options("timestamps"));
    }
    if a.sack != b.sack {
        return Err(Ineligible::Options("selective acknowledgements"));
    }
    if a.ecn || b.ecn {
        return Err(Ineligible::Options("ECN"));
    }
    for (from, to) in [(client, upstream), (upstream, client)] {
        fits(sent_by(from), room(to))?;
    }
    Ok(())
}

fn fits(sent: u32, taken: u32) -> Result<(), Ineligible> {
    if sent <= taken { Ok(()) } else { Err(Ineligible::Mss { sent, taken }) }
}

fn words(address: IpAddr) -> [u32; 4] {
    match address {
        IpAddr::V4(v4) => mapped(u32::from_ne_bytes(v4.octets())),
        IpAddr::V6(v6) => {
            let bytes = v6.octets();
            std::array::from_fn(|at| {
                let word = [bytes[4 * at], bytes[4 * at + 1], bytes[4 * at + 2], bytes[4 * at + 3]];
                u32::from_ne_bytes(word)
            })
        }
    }
}

/// Two ports as they lie in a packet.
fn ports(source: SocketAddr, destination: SocketAddr) -> u32 {
    (u32::from(source.port()) << 16 | u32::from(destination.port())).to_be()
}

/// What both sockets were when they were frozen, and what the program had seen.
#[derive(Clone, Copy, Debug)]
pub struct Instant {
    /// The client's, the upstream's.
    pub frozen: [Frozen; 2],
    /// The last TSval of each side.
    pub values: [u32; 2],
}

impl Plan {
    /// Who sends to whom when packets of the client, of the upstream, come in.
    #[must_use]
    pub fn keys(&self) -> [FlowKey; 2] {
        self.legs.each_ref().map(|leg| saved::key(leg.local, leg.peer))
    }

    /// Whether timestamps were agreed on.
    #[must_use]
    pub fn has_timestamps(&self) -> bool {
        self.legs[0].facts.timestamps
    }

    /// Whether what each side may send is taken by the other one, as it said itself. What is on
    /// this host takes whatever loopback does: `mss` may be no more than what we told it
    /// ourselves, since the kernel remembers the smaller number (`tcp_parse_options`).
    ///
    /// # Errors
    /// It is not.
    pub fn check_mss(&self, frozen: &[Frozen; 2]) -> Result<(), Ineligible> {
        for (from, to) in [(0, 1), (1, 0)] {
            let said = u32::from(frozen[to].mss);
            let leg = &self.legs[to];
            let taken = if leg.way.local { said.max(room(leg)) } else { said };
            fits(sent_by(&self.legs[from]), taken)?;
        }
        Ok(())
    }

    /// What is done with packets of the client, of the upstream, from that moment on.
    #[must_use]
    pub fn flows(&self, at: &Instant) -> [Flow; 2] {
        std::array::from_fn(|side| {
            let (here, there) = (&self.legs[side], &self.legs[1 - side]);
            let (near, far) = (&at.frozen[side], &at.frozen[1 - side]);
            Flow {
                source: words(there.local.ip()),
                destination: words(there.peer.ip()),
                ports: ports(there.local, there.peer),
                device: there.way.device,
                seq_add: far.snd_seq.wrapping_sub(near.rcv_seq),
                ack_add: far.rcv_seq.wrapping_sub(near.snd_seq),
                // Our clock towards the other side went on from what that side saw last.
                value_add: far.timestamp.wrapping_sub(at.values[side]),
                echo_add: at.values[1 - side].wrapping_sub(near.timestamp),
                scale: here.facts.window_scale.map_or(0, |(peer, _)| peer),
                told_scale: there.facts.window_scale.map_or(0, |(_, ours)| ours),
                v6: u8::from(here.peer.is_ipv6()),
                local: u8::from(there.way.local),
                sent: KNOWN | u64::from(near.rcv_seq),
                // What this side has acknowledged of the other one's bytes.
                acked: KNOWN | u64::from(far.rcv_seq.wrapping_sub(near.unacknowledged)),
                edge: KNOWN | u64::from(edge(near, far)),
                value: KNOWN | u64::from(at.values[side]),
                owed: if near.unacknowledged == 0 { 0 } else { KNOWN | u64::from(far.rcv_seq) },
                ..Flow::default()
            }
        })
    }

    /// The connection to a side as it stands now: `flows` are what is done with packets of this
    /// side, of the other one.
    #[must_use]
    pub fn revival(
        &self,
        side: usize,
        near: &Flow,
        far: &Flow,
        frozen: &Frozen,
        ms: u32,
    ) -> Revival {
        let rcv_seq = near.sent as u32;
        let snd_seq = (far.sent as u32).wrapping_add(far.seq_add);
        let theirs = (near.edge as u32).wrapping_sub(near.acked as u32);
        let ours = (far.edge as u32).wrapping_sub(near.sent as u32);
        // No TSval may be older than the last one this side has seen.
        let clock = frozen.timestamp.wrapping_add(ms);
        let said = (far.value as u32).wrapping_add(far.value_add).wrapping_add(1);
        let later = (clock.wrapping_sub(said) as i32) > 0;
        let positive = |window: u32| if (window as i32) < 0 { 0 } else { window };
        Revival {
            snd_seq,
            rcv_seq,
            timestamps: self.has_timestamps().then_some(if later { clock } else { said }),
            window: RepairWindow {
                snd_wl1: rcv_seq,
                snd_wnd: positive(theirs),
                max_window: frozen.window.max_window.max(positive(theirs)),
                rcv_wnd: positive(ours),
                rcv_wup: rcv_seq,
            },
            ..self.as_it_was(side, frozen)
        }
    }

    /// The connection to a side as it was, but without what was under way in it; deaf.
    #[must_use]
    pub fn as_it_was(&self, side: usize, frozen: &Frozen) -> Revival {
        let leg = &self.legs[side];
        Revival {
            local: leg.local,
            peer: leg.peer,
            snd_seq: frozen.snd_seq,
            rcv_seq: frozen.rcv_seq,
            mss: frozen.mss,
            timestamps: leg.facts.timestamps.then_some(frozen.timestamp),
            sack: leg.facts.sack,
            window_scale: leg.facts.window_scale,
            window: frozen.deaf(),
            keepalive: frozen.keepalive,
            transparent: false,
            device: None,
        }
    }
}

/// Up to where a side lets the other one send, in the other one's numbers: what it said itself,
/// or what we said to the other one, whatever is further.
fn edge(near: &Frozen, far: &Frozen) -> u32 {
    let said = far.rcv_seq.wrapping_add(near.window.snd_wnd);
    let ours = far.window.rcv_wup.wrapping_add(far.window.rcv_wnd);
    if (ours.wrapping_sub(said) as i32) > 0 { ours } else { said }
}
