//! One state of the whole system: two sockets, two directions, and what every actor is about to do.

use std::fmt;

use super::config::Config;
use super::fifo::Fifo;
use super::memory::Buffer;

/// An inserted frame in a lane's pending queue; units are numbered from 1 and stay below it.
pub const PING: u8 = 15;
/// Marks a unit in a socket's line as leaving that socket, not as passed to its reader.
pub const OUT: u8 = 8;

/// Who a direction belongs to.
pub const RELAY: u8 = 0;
pub const RESUME: u8 = 1;
pub const KERNEL: u8 = 2;

/// What a verdict does next.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum V {
    Idle,
    Look,
    Compare,
    Swap,
    Add,
    LookAgain,
    Retract,
    First,
    Second,
    Refuse,
    Claim,
    Notify,
    Divert,
    LookAfter,
    LateClaim,
    LateNotify,
    Pass,
    Redirect,
}

/// What a lane of user space does next.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum U {
    Kick,
    Owner,
    OwnerFence,
    ReadHanded,
    Wait,
    Add,
    Write,
    Correct,
    Relayed,
    Recv,
    Zero,
    Again,
    Readable,
    Resume,
    ResumeFence,
    LockTrip,
    Check,
    Kernel,
    Shutdown,
    Ended,
}

/// What can go wrong with what the peers see, or with somebody else's memory.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Fault {
    None,
    Order,
    InsideFrame,
    EarlyFin,
    AfterFin,
    OverAdmitted,
    HeadBlocked,
    StaleVerdict,
    Cursor,
}

/// A direction: socket `d` is S, socket `1 - d` is T.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Direction {
    // The shared record.
    pub owner: u8,
    pub handed: u8,
    pub diverted: u8,
    pub relayed: u8,
    pub cursor: u8,
    pub generation: u8,
    // The sender, and S's receive queue: packets that arrived and that no verdict has seen.
    pub sent: u8,
    pub seen: u8,
    pub fin: bool,
    pub awake: bool,
    // The verdict on S.
    pub v: V,
    pub v_handed: u8,
    pub v_first: u8,
    pub v_generation: u8,
    pub v_buffer: Buffer,
    pub refusals: u8,
    pub notified: bool,
    // T's TCP: units in order, bytes ever handed to it, bytes its peer has taken.
    pub arrived: u8,
    pub count: u8,
    pub acked: u8,
    pub fin_out: bool,
    // The lane of user space.
    pub u: U,
    pub u_handed: u8,
    pub u_short: u8,
    pub u_relayed: u8,
    pub u_buffer: Buffer,
    pub pending: Fifo,
    pub eof: bool,
    pub wish: bool,
    pub pings: u8,
    /// S's queue of passed units that `recv` can return.
    pub readable: Fifo,
}

/// Everything.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct State {
    pub dirs: [Direction; 2],
    /// Each socket's `ingress_skb`: units passed to its reader and units on their way out of it, in one line.
    pub line: [Fifo; 2],
    /// Sockets that their peer reset.
    pub reset: [bool; 2],
    /// The session ended with an error that both sides see.
    pub aborted: bool,
    /// The sockets have left the maps.
    pub left: bool,
    pub fault: Fault,
}

impl Direction {
    /// A direction at its first hand-over, or one that is left out.
    pub fn new(cfg: &Config, d: usize, generation: u8) -> Self {
        let mut pending = Fifo::default();
        if cfg.packets[d].is_some() {
            (1..=cfg.leftover).for_each(|unit| pending.push(unit));
        }
        let early = cfg.early.min(cfg.packets[d].unwrap_or(0));
        Self {
            owner: RELAY,
            handed: 0,
            diverted: 0,
            relayed: 0,
            cursor: pending.len() as u8,
            generation,
            sent: early,
            seen: 0,
            fin: false,
            awake: early == 0,
            v: V::Idle,
            v_handed: 0,
            v_first: 0,
            v_generation: 0,
            v_buffer: Buffer::default(),
            refusals: if generation == 0 { cfg.refusals } else { 0 },
            notified: false,
            arrived: 0,
            count: 0,
            acked: 0,
            fin_out: false,
            u: if cfg.packets[d].is_some() { U::Kick } else { U::Ended },
            u_handed: 0,
            u_short: 0,
            u_relayed: 0,
            u_buffer: Buffer::default(),
            pending,
            eof: false,
            wish: false,
            pings: if generation == 0 { cfg.pings } else { 0 },
            readable: Fifo::default(),
        }
    }

    /// Room in T's send buffer.
    pub fn room(&self, cfg: &Config) -> u8 {
        cfg.capacity.map_or(u8::MAX, |capacity| capacity.saturating_sub(self.count - self.acked))
    }
}

impl State {
    pub fn new(cfg: &Config) -> Self {
        Self {
            dirs: [0, 1].map(|d| Direction::new(cfg, d, 0)),
            line: [Fifo::default(); 2],
            reset: [false; 2],
            aborted: false,
            left: false,
            fault: Fault::None,
        }
    }

    /// Units of direction `d` that were redirected and that T's TCP does not have yet.
    pub fn in_flight(&self, d: usize) -> u8 {
        self.line[1 - d].iter().filter(|item| item & OUT != 0).count() as u8
    }

    /// Remembers the first thing that went wrong.
    pub fn fail(&mut self, fault: Fault) {
        if self.fault == Fault::None {
            self.fault = fault;
        }
    }

    /// T's TCP takes `item`, a unit or an inserted frame.
    pub fn deliver(&mut self, cfg: &Config, d: usize, item: u8) {
        let dir = &mut self.dirs[d];
        let fault = if dir.fin_out {
            Fault::AfterFin
        } else if item == PING && !dir.arrived.is_multiple_of(cfg.frame_units) {
            Fault::InsideFrame
        } else if item != PING && item != dir.arrived + 1 {
            Fault::Order
        } else {
            Fault::None
        };
        dir.count += 1;
        if item != PING {
            dir.arrived += 1;
        }
        if cfg.capacity.is_none() {
            dir.acked = dir.count;
        }
        if fault != Fault::None {
            self.fail(fault);
        }
    }
}

/// One line per direction, for traces. A direction that is left out has nothing to say.
impl fmt::Debug for State {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (d, dir) in self.dirs.iter().enumerate() {
            if d == 1 && dir.u == U::Ended && dir.sent == 0 && !dir.fin && dir.v == V::Idle {
                continue;
            }
            let owner = ["Relay", "Resume", "Kernel"][usize::from(dir.owner)];
            write!(
                f,
                "[{d}] {owner} handed {} diverted {} relayed {}",
                dir.handed, dir.diverted, dir.relayed
            )?;
            write!(f, " | S sent {} seen {} fin {}", dir.sent, dir.seen, dir.fin)?;
            write!(f, " | BPF {:?} {:?} notified {}", dir.v, dir.v_buffer, dir.notified)?;
            write!(
                f,
                " | lane {:?} {:?} pending {:?} readable {:?}",
                dir.u, dir.u_buffer, dir.pending, dir.readable
            )?;
            write!(
                f,
                " | T has {} units, {} in all, {} in flight; ",
                dir.arrived,
                dir.count,
                self.in_flight(d)
            )?;
        }
        write!(f, "lines {:?}", self.line)?;
        if self.fault == Fault::None { Ok(()) } else { write!(f, " FAULT {:?}", self.fault) }
    }
}
