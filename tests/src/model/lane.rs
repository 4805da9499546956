//! User space's side: the lane of one direction. One step is one access to shared memory or one system call.

use super::Steps;
use super::config::{Config, Mutant};
use super::memory::{Cpu, Var};
use super::state::{Direction, Fault, PING, RELAY, RESUME, State, U, V};

/// The lane's next step on direction `d`.
pub fn steps(state: &State, d: usize, steps: &mut Steps<'_>) {
    let (dir, mutant) = (&state.dirs[d], steps.mutant);
    see_reset(state, dir, steps);
    match dir.u {
        U::Kick => steps.go("kicks S", |s| {
            s.dirs[d].awake |= mutant != Mutant::NoKick;
            s.dirs[d].u = next(&s.dirs[d], mutant);
        }),
        U::Owner | U::OwnerFence | U::ReadHanded | U::Wait => take(dir, steps),
        U::Add | U::Write | U::Correct | U::Relayed => write(state, dir, steps),
        U::Recv => {
            insert(dir, steps);
            recv(state, dir, steps);
        }
        U::Zero | U::Again | U::Readable => nothing_read(dir, steps),
        U::Resume | U::ResumeFence | U::LockTrip | U::Check => give_back(dir, steps),
        U::Kernel => away(dir, steps),
        U::Shutdown if dir.u_buffer.is_empty() => shutdown(dir, steps),
        U::Shutdown | U::Ended => {}
    }
    if steps.cfg.drops_notes && dir.notified && matches!(dir.u, U::ReadHanded | U::Recv) {
        steps.go("throws a notification away", |s| s.dirs[d].notified = false);
    }
}

/// What a lane that owns its direction does when nothing else is decided.
fn next(dir: &Direction, mutant: Mutant) -> U {
    if mutant == Mutant::PingWithoutWait && dir.wish && dir.pending.is_empty() {
        U::ReadHanded
    } else if dir.eof && (dir.pending.is_empty() || mutant == Mutant::ShutdownUnflushed) {
        U::Shutdown
    } else if dir.pending.is_empty() {
        U::Recv
    } else {
        U::Add
    }
}

/// An error on either socket ends the session, from wherever the lane waits for something.
fn see_reset(state: &State, dir: &Direction, steps: &mut Steps<'_>) {
    let d = steps.d;
    let waits = match dir.u {
        U::Recv | U::Readable | U::Kernel | U::Write => true,
        U::ReadHanded | U::Wait => steps.mutant != Mutant::WaitIgnoresReset,
        _ => false,
    };
    if !waits || state.reset == [false; 2] {
        return;
    }
    if steps.mutant == Mutant::ResetAsEof && state.reset[d] {
        return steps.go("takes the error for the end of the stream", |s| {
            s.dirs[d].eof = true;
            s.dirs[d].u = U::Shutdown;
        });
    }
    steps.go("sees the error and resets both sockets", |s| {
        s.aborted = true;
        s.dirs.iter_mut().for_each(|dir| dir.u = U::Ended);
    });
}

/// Taking: `owner = Relay`, a fence, and the wait until T's TCP has all that was handed.
fn take(dir: &Direction, steps: &mut Steps<'_>) {
    let (cfg, mutant, d) = (steps.cfg, steps.mutant, steps.d);
    match dir.u {
        U::Owner => steps.go("stores owner = Relay", |s| {
            let dir = &mut s.dirs[d];
            dir.store(cfg.weak, Cpu::User, Var::Owner, RELAY);
            let fence = cfg.weak && mutant != Mutant::NoFenceTaking;
            dir.u = if fence { U::OwnerFence } else { taken(dir, mutant) };
        }),
        U::OwnerFence if dir.u_buffer.is_empty() => {
            steps.go("fence", |s| s.dirs[d].u = taken(&mut s.dirs[d], mutant))
        }
        U::ReadHanded => steps.go("reads handed", |s| {
            let dir = &mut s.dirs[d];
            dir.u_handed = dir.load(Cpu::User, Var::Handed);
            dir.u = U::Wait;
        }),
        U::Wait => steps.go("compares T's byte count with handed", |s| {
            let dir = &mut s.dirs[d];
            let all_there = dir.count >= dir.u_handed;
            dir.u_handed = 0;
            if all_there && mutant == Mutant::PingWithoutWait {
                dir.wish = false;
            }
            dir.u = if all_there { next(dir, mutant) } else { U::ReadHanded };
        }),
        _ => {}
    }
}

/// Where a claim goes on after its fence: to the wait, unless a mutant skips it.
fn taken(dir: &mut Direction, mutant: Mutant) -> U {
    match mutant {
        Mutant::NoWait => U::Recv,
        Mutant::EofWithoutCount if dir.fin => U::Recv,
        Mutant::PingWithoutWait if dir.wish => {
            dir.pings -= 1;
            dir.pending.push(PING);
            U::Add
        }
        _ => U::ReadHanded,
    }
}

/// Hands pending units to T: `handed` before the write, corrected after a short one, `relayed` at the end.
fn write(state: &State, dir: &Direction, steps: &mut Steps<'_>) {
    let (cfg, mutant, d) = (steps.cfg, steps.mutant, steps.d);
    match dir.u {
        U::Add => {
            steps.go("adds to handed", |s| {
                if mutant != Mutant::HandedAfterWrite {
                    s.dirs[d].handed += s.dirs[d].pending.len() as u8;
                }
                s.dirs[d].u = U::Write;
            });
            if cfg.read_ahead && !dir.eof && dir.pending.len() < usize::from(cfg.buffer) {
                steps.go("reads on first", |s| s.dirs[d].u = U::Recv);
            }
        }
        U::Write if dir.u_buffer.is_empty() && !state.reset[1 - d] => {
            let most = dir.room(cfg).min(dir.pending.len() as u8);
            let least = if cfg.short_writes { most.min(1) } else { most };
            for taken in least..=most {
                steps.go("writes to T", |s| {
                    let before = s.dirs[d].pending.len() as u8;
                    for _ in 0..taken {
                        let item =
                            s.dirs[d].pending.pop().expect("no more is written than is pending");
                        s.dirs[d].u_relayed += u8::from(item != PING && item > cfg.leftover);
                        s.deliver(cfg, d, item);
                    }
                    let dir = &mut s.dirs[d];
                    if mutant == Mutant::HandedAfterWrite {
                        dir.u_short = taken;
                        dir.u = U::Correct;
                    } else {
                        dir.u_short = before - taken;
                        dir.u = if dir.u_short > 0 { U::Correct } else { written(dir, mutant) };
                    }
                });
            }
        }
        U::Correct => steps.go("corrects handed after the write", |s| {
            let dir = &mut s.dirs[d];
            match mutant {
                Mutant::ShortWriteUncorrected => {}
                Mutant::HandedAfterWrite => dir.handed += dir.u_short,
                _ => dir.handed -= dir.u_short,
            }
            dir.u_short = 0;
            dir.u = written(dir, mutant);
        }),
        U::Relayed => steps.go("adds to relayed", |s| {
            let dir = &mut s.dirs[d];
            let sum = dir.load(Cpu::User, Var::Relayed) + dir.u_relayed;
            dir.store(cfg.weak, Cpu::User, Var::Relayed, sum);
            dir.u_relayed = 0;
            dir.u = next(dir, mutant);
        }),
        _ => {}
    }
}

fn written(dir: &mut Direction, mutant: Mutant) -> U {
    if mutant == Mutant::RelayedCountsReads {
        dir.u_relayed = 0;
    }
    if dir.u_relayed > 0 { U::Relayed } else { next(dir, mutant) }
}

/// Inserts a frame where the cursor says that none is open.
fn insert(dir: &Direction, steps: &mut Steps<'_>) {
    let d = steps.d;
    let between = at_boundary(dir, steps.cfg) || steps.mutant == Mutant::PingInsideFrame;
    if dir.pings > 0 && dir.pending.is_empty() && between {
        steps.go("inserts a frame", |s| {
            let dir = &mut s.dirs[d];
            dir.pings -= 1;
            dir.wish = false;
            dir.pending.push(PING);
            dir.u = U::Add;
        });
    }
}

fn at_boundary(dir: &Direction, cfg: &Config) -> bool {
    dir.cursor.is_multiple_of(cfg.frame_units)
}

/// `recv` takes S's socket lock: no verdict is under way, and none is left to run except over early packets.
fn recv(state: &State, dir: &Direction, steps: &mut Steps<'_>) {
    let (cfg, mutant, d) = (steps.cfg, steps.mutant, steps.d);
    let must_insert = dir.wish && dir.pings > 0 && dir.pending.is_empty() && at_boundary(dir, cfg);
    let unseen = dir.seen < dir.sent;
    if dir.v != V::Idle
        || !dir.u_buffer.is_empty()
        || must_insert
        || state.reset[d]
        || (dir.awake && unseen)
    {
        return;
    }
    if unseen && cfg.recv_runs_verdict {
        return steps
            .go("recv runs the verdict over the receive queue", |s| s.dirs[d].awake = true);
    }
    let free = usize::from(cfg.buffer).saturating_sub(dir.pending.len());
    let get = dir.readable.len().min(free) as u8;
    if get > 0 {
        steps.go("recv returns units", |s| {
            let dir = &mut s.dirs[d];
            for _ in 0..get {
                let unit = dir.readable.pop().expect("no more is read than is readable");
                dir.pending.push(unit);
            }
            dir.cursor += get;
            if mutant == Mutant::RelayedCountsReads {
                dir.store(cfg.weak, Cpu::User, Var::Relayed, dir.relayed + get);
            }
            dir.u = next(dir, mutant);
        });
    } else if dir.fin {
        steps.go("recv returns 0", |s| s.dirs[d].u = U::Zero);
    } else {
        steps.go("recv returns EAGAIN", |s| s.dirs[d].u = U::Again);
    }
}

/// After `recv` returned nothing: the end, a wait, or the way to `Resume`.
fn nothing_read(dir: &Direction, steps: &mut Steps<'_>) {
    let (mutant, d) = (steps.mutant, steps.d);
    let even = dir.load(Cpu::User, Var::Diverted) == dir.load(Cpu::User, Var::Relayed);
    match dir.u {
        U::Zero => steps.go("compares diverted with relayed after 0", |s| {
            let dir = &mut s.dirs[d];
            dir.eof = even || mutant == Mutant::EofWithoutDiverted;
            dir.u = if dir.eof { next(dir, mutant) } else { U::Readable };
        }),
        U::Again => {
            let flushed = dir.pending.is_empty() || mutant == Mutant::GiveBackUnflushed;
            steps.go("compares diverted with relayed after EAGAIN", |s| {
                let dir = &mut s.dirs[d];
                dir.u = match () {
                    () if !even => U::Readable,
                    () if !flushed => U::Add,
                    () if dir.wish => U::Readable,
                    () => U::Resume,
                };
            });
        }
        _ => {
            if !dir.readable.is_empty() || dir.fin {
                steps.go("S is readable", |s| s.dirs[d].u = U::Recv);
            }
            if !dir.pending.is_empty() {
                steps.go("T is writable", |s| s.dirs[d].u = U::Add);
            }
        }
    }
}

/// `owner = Resume`, a fence, and the look at what BPF diverted meanwhile.
fn give_back(dir: &Direction, steps: &mut Steps<'_>) {
    let (cfg, mutant, d) = (steps.cfg, steps.mutant, steps.d);
    let fenced = if cfg.lock_trip { U::LockTrip } else { U::Check };
    match dir.u {
        U::Resume => steps.go("stores owner = Resume", |s| {
            let dir = &mut s.dirs[d];
            dir.store(cfg.weak, Cpu::User, Var::Owner, RESUME);
            let fence = cfg.weak && mutant != Mutant::NoFenceResume;
            dir.u = match mutant {
                Mutant::GiveBackUnchecked => U::Kernel,
                _ if fence => U::ResumeFence,
                _ => fenced,
            };
        }),
        U::ResumeFence if dir.u_buffer.is_empty() => steps.go("fence", |s| s.dirs[d].u = fenced),
        U::LockTrip if dir.v == V::Idle => {
            steps.go("takes and leaves S's lock", |s| s.dirs[d].u = U::Check)
        }
        U::Check => {
            let even = dir.load(Cpu::User, Var::Diverted) == dir.load(Cpu::User, Var::Relayed);
            steps.go("compares diverted with relayed after Resume", |s| {
                let dir = &mut s.dirs[d];
                dir.u = match mutant {
                    _ if even => U::Kernel,
                    Mutant::LostResumeKeepsOwner => U::Recv,
                    Mutant::LostResumeNoWait => {
                        dir.store(false, Cpu::User, Var::Owner, RELAY);
                        U::Recv
                    }
                    _ => U::Owner,
                };
            });
        }
        _ => {}
    }
}

/// The kernel owns the direction: what brings user space back.
fn away(dir: &Direction, steps: &mut Steps<'_>) {
    let (mutant, d) = (steps.mutant, steps.d);
    if dir.notified {
        steps.go("gets a notification", |s| {
            s.dirs[d].notified = false;
            s.dirs[d].u = U::Owner;
        });
    }
    if dir.fin {
        steps.go("sees RDHUP", |s| s.dirs[d].u = U::Owner);
    }
    if dir.pings > 0 {
        steps.go("wants to insert a frame", |s| {
            s.dirs[d].wish = true;
            s.dirs[d].u = U::Owner;
        });
    }
    if mutant == Mutant::ReadsUnclaimed && !dir.readable.is_empty() {
        steps.go("reads without claiming", |s| s.dirs[d].u = U::Recv);
    }
}

/// FIN for T.
fn shutdown(dir: &Direction, steps: &mut Steps<'_>) {
    let (d, early) = (steps.d, dir.arrived < steps.cfg.total_units(steps.d));
    steps.go("shuts T down", |s| {
        s.dirs[d].fin_out = true;
        s.dirs[d].wish = false;
        s.dirs[d].u = U::Ended;
        if early {
            s.fail(Fault::EarlyFin);
        }
    });
}
