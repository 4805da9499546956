//! Everything around BPF and the lanes: the peers, the kworkers, and the session as a whole.

use super::Steps;
use super::config::{Mutant, Pace};
use super::fifo::Fifo;
use super::memory::Buffer;
use super::state::{Direction, Fault, OUT, State, U, V};

/// S's peer sends and may reset; T's peer takes what came.
pub fn peers(state: &State, d: usize, steps: &mut Steps<'_>) {
    let (cfg, dir) = (steps.cfg, &state.dirs[d]);
    let packets = cfg.packets[d].unwrap_or(0);
    if !state.left && !state.reset[d] {
        let came_out = dir.arrived >= cfg.leftover + dir.sent * cfg.packet_units;
        let may_send = cfg.pace == Pace::Eager || came_out;
        if dir.sent < packets && may_send {
            steps.go("a packet reaches S", |s| {
                s.dirs[d].sent += 1;
                s.dirs[d].awake = true;
            });
        }
        if dir.sent == packets && may_send && !dir.fin {
            steps.go("FIN reaches S", |s| {
                s.dirs[d].fin = true;
                s.dirs[d].awake = true;
            });
        }
    }
    for socket in 0..2 {
        let ended = state.dirs[socket].fin && state.dirs[1 - socket].fin_out;
        if cfg.reset == Some(socket as u8)
            && socket == d
            && !ended
            && !state.reset[socket]
            && !state.aborted
        {
            steps.go("S's peer resets", |s| s.reset[socket] = true);
        }
        if cfg.reset == Some(socket as u8)
            && socket != d
            && !state.reset[socket]
            && !state.aborted
            && !dir.fin_out
        {
            steps.go("T's peer resets", |s| s.reset[socket] = true);
        }
    }
    if dir.acked < dir.count && !state.reset[1 - d] {
        steps.go("T's peer takes some", |s| s.dirs[d].acked += 1);
    }
}

/// The kworker of socket `socket` works off the head of its line.
pub fn kworker(state: &State, socket: usize, steps: &mut Steps<'_>) {
    let Some(item) = state.line[socket].front() else { return };
    let (cfg, d) = (steps.cfg, 1 - socket);
    if item & OUT == 0 {
        return steps.go("kworker: a passed unit becomes readable", |s| {
            s.line[socket].pop();
            s.dirs[socket].readable.push(item);
        });
    }
    steps.d = d;
    if state.reset[socket] {
        steps.go("kworker: T was reset, the unit is dropped", |s| {
            s.line[socket].pop();
        });
    } else if state.dirs[d].room(cfg) == 0 {
        steps.go("kworker: T is full, the line waits", |s| s.fail(Fault::HeadBlocked));
    } else {
        steps.go("kworker: T's TCP takes a redirected unit", |s| {
            s.line[socket].pop();
            s.deliver(cfg, d, item & !OUT);
        });
    }
    steps.d = socket;
}

/// The session ends, its sockets leave the maps, and its slot serves a second session.
pub fn session(state: &State, steps: &mut Steps<'_>) {
    let (cfg, mutant) = (steps.cfg, steps.mutant);
    let first = state.dirs[0].generation == 0;
    if !cfg.reuse || !first {
        return;
    }
    if !state.left {
        let ended = state.dirs.iter().all(|dir| dir.u == U::Ended);
        let what = if ended {
            "both ended: the sockets leave the maps"
        } else {
            "abandoned: the sockets leave the maps"
        };
        return steps.go(what, |s| {
            s.left = true;
            s.line = [Fifo::default(); 2];
            for dir in &mut s.dirs {
                dir.u = U::Ended;
                dir.readable = Fifo::default();
                dir.pending = Fifo::default();
                dir.u_buffer = Buffer::default();
            }
        });
    }
    let quiet = state.dirs.iter().all(|dir| dir.v == V::Idle && dir.v_buffer.is_empty());
    if quiet || mutant == Mutant::ReuseWithoutGrace {
        steps.go("the slot serves a new session", |s| {
            let old = s.dirs;
            *s = State::new(cfg);
            for (d, (dir, old)) in s.dirs.iter_mut().zip(old).enumerate() {
                *dir = Direction {
                    v: old.v,
                    v_handed: old.v_handed,
                    v_first: old.v_first,
                    v_generation: old.v_generation,
                    // A late notification of the old session is only a spurious one for the new.
                    notified: old.notified,
                    ..Direction::new(cfg, d, 1)
                };
            }
        });
    }
}
