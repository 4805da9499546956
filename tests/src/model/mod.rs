//! An exhaustive model of the splice protocol (`SPLICE-PROTOCOL.md`): every interleaving of small sessions.
//!
//! # What is modelled
//! A session joins two sockets; direction `d` goes from socket `d` (S) to socket `1 - d` (T). Every step is one access
//! to shared memory or one system call, and any actor that can take a step may be next:
//! - the peers, which send packets and then FIN, take what T sent, and may reset (`world`);
//! - the kworker of each socket, which works its line off: units on their way out to T's TCP, and units passed to the
//!   socket's own reader, behind one another. Hence `diverted` may count what `recv` cannot return yet (`world`);
//! - BPF's verdict on S, under S's socket lock, which `recv` takes too (`verdict`);
//! - user space, one lane per direction, and the slot that serves a second session (`lane`, `world`);
//! - in the weak-memory configurations, store buffers between BPF and user space (`memory`).
//!
//! # What must hold
//! T gets each unit once and in order; inserted frames stand between two frames; FIN comes after the last unit and
//! nothing after FIN; what is in flight to T fits T's room; the frame cursor is right whenever BPF advances it; no verdict of
//! an old session touches a record that serves a new one; and from every state the session can still end well.
//!
//! # Where it departs from the protocol as first written down
//! BPF looks at `owner` once more after it added to `diverted`, and if it finds `Resume`, stores `Relay` and notifies.
//! Without that ([`config::Mutant::NoLookAfterDivert`]) a verdict that read `Relay` before user space stored `Resume`
//! may add to `diverted` after user space compared it: the packet lies in S's queue, `owner` is `Resume`, nobody was
//! told. `lock_trip` is the other repair: user space takes S's socket lock between `Resume` and the comparison.
//!
//! # What is not modelled
//! Reordered loads; a `bytes_acked + outq` that is torn (it can only be too small, which looks like one more turn of
//! the wait); the contents of frames; memory pressure (a pass that fails); time; more than two directions; a fair
//! scheduler (an endless circle is allowed as long as a way out of it stays open).

pub mod config;
pub mod explore;
mod fifo;
mod lane;
mod memory;
mod state;
mod verdict;
mod world;

use config::{Config, Mutant};
use explore::Model;
use memory::Cpu;
use state::{Fault, State, U};

/// The protocol, or a mutant of it, at one size.
pub struct Splice {
    /// What is explored.
    pub cfg: Config,
    /// The rule that is left out, if any.
    pub mutant: Mutant,
}

/// A step's name: the direction it belongs to, and what happens.
pub type Step = (usize, &'static str);

/// Collects the steps that lead out of one state.
struct Steps<'a> {
    cfg: &'a Config,
    mutant: Mutant,
    d: usize,
    state: &'a State,
    out: &'a mut Vec<(Step, State)>,
}

impl Steps<'_> {
    fn go(&mut self, what: &'static str, change: impl FnOnce(&mut State)) {
        let mut state = *self.state;
        change(&mut state);
        self.out.push(((self.d, what), state));
    }
}

impl Model for Splice {
    type State = State;
    type Step = Step;

    fn initial(&self) -> State {
        State::new(&self.cfg)
    }

    fn successors(&self, state: &State, out: &mut Vec<(Step, State)>) {
        for d in 0..2 {
            let mut steps = Steps { cfg: &self.cfg, mutant: self.mutant, d, state, out };
            world::kworker(state, d, &mut steps);
            if self.cfg.packets[d].is_none() {
                continue;
            }
            world::peers(state, d, &mut steps);
            verdict::steps(state, d, &mut steps);
            lane::steps(state, d, &mut steps);
            for cpu in [Cpu::Bpf, Cpu::User] {
                for (var, after) in state.dirs[d].drains(cpu) {
                    steps.go(memory::drain_name(cpu, var), |s| s.dirs[d] = after);
                }
            }
        }
        world::session(state, &mut Steps { cfg: &self.cfg, mutant: self.mutant, d: 0, state, out });
    }

    fn invariant(&self, state: &State) -> Result<(), &'static str> {
        match state.fault {
            Fault::None => Ok(()),
            Fault::Order => Err("order"),
            Fault::InsideFrame => Err("inside a frame"),
            Fault::EarlyFin => Err("early fin"),
            Fault::AfterFin => Err("after fin"),
            Fault::OverAdmitted => Err("over-admitted"),
            Fault::HeadBlocked => Err("head blocked"),
            Fault::StaleVerdict => Err("stale verdict"),
            Fault::Cursor => Err("cursor"),
        }
    }

    fn is_final_ok(&self, state: &State) -> bool {
        let last = u8::from(self.cfg.reuse);
        state.dirs.iter().enumerate().all(|(d, dir)| {
            let whole = dir.fin_out && dir.arrived == self.cfg.total_units(d);
            dir.u == U::Ended
                && dir.generation == last
                && (whole || state.aborted || self.cfg.packets[d].is_none())
        })
    }
}
