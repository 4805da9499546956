//! BPF's side: the verdict on S, once per packet, under S's socket lock. One step is one access to shared memory.

use super::Steps;
use super::config::{Config, Mutant};
use super::memory::{Cpu, Var};
use super::state::{Direction, Fault, KERNEL, OUT, RELAY, RESUME, State, V};

/// The verdict's next step on direction `d`.
pub fn steps(state: &State, d: usize, steps: &mut Steps<'_>) {
    let (cfg, convict) = (steps.cfg, steps.mutant == Mutant::None);
    let dir = &state.dirs[d];
    if dir.v != V::Idle && dir.v_generation != dir.generation {
        return steps.go("the verdict of an old session touches the record", |s| {
            s.fail(Fault::StaleVerdict)
        });
    }
    match dir.v {
        V::Idle => {
            if dir.awake && dir.seen < dir.sent && !state.left && !state.reset[d] {
                steps.go("verdict starts", |s| {
                    let dir = &mut s.dirs[d];
                    dir.seen += 1;
                    dir.v_generation = dir.generation;
                    dir.v = V::Look;
                });
            }
        }
        V::Look | V::Compare | V::Swap | V::Add | V::LookAgain => decide(dir, steps),
        V::First | V::Second => admit(dir, steps),
        V::Retract
        | V::Refuse
        | V::Claim
        | V::Notify
        | V::Divert
        | V::LookAfter
        | V::LateClaim
        | V::LateNotify => {
            divert(dir, steps);
        }
        V::Pass => {
            if dir.v_buffer.is_empty() {
                steps.go("passes the packet to S's reader", |s| put(cfg, s, d, d, 0));
            }
        }
        V::Redirect => {
            if dir.v_buffer.is_empty() {
                steps.go("redirects the packet to T", |s| redirect(cfg, s, d, convict));
            }
        }
    }
}

/// From the first look at `owner` to the second.
fn decide(dir: &Direction, steps: &mut Steps<'_>) {
    let (cfg, mutant, d) = (steps.cfg, steps.mutant, steps.d);
    let drained = dir.v_buffer.is_empty();
    match dir.v {
        V::Look => {
            let next = match dir.load(Cpu::Bpf, Var::Owner) {
                RELAY if mutant == Mutant::LookBeforeDivert => V::LookAfter,
                RELAY => V::Divert,
                RESUME => V::Compare,
                _ if mutant == Mutant::LookBeforeAdd => V::LookAgain,
                _ => V::Add,
            };
            steps.go("looks at owner", |s| s.dirs[d].v = next);
        }
        V::Compare => {
            let even = dir.load(Cpu::Bpf, Var::Diverted) == dir.load(Cpu::Bpf, Var::Relayed);
            let next =
                if even || mutant == Mutant::ResumeWithoutCountCheck { V::Swap } else { V::Claim };
            steps.go("compares diverted with relayed", |s| s.dirs[d].v = next);
        }
        V::Swap if mutant == Mutant::ResumeByPlainStore => steps.go("stores owner = Kernel", |s| {
            s.dirs[d].store(cfg.weak, Cpu::Bpf, Var::Owner, KERNEL);
            s.dirs[d].v = V::Add;
        }),
        V::Swap if drained => steps.go("swaps Resume for Kernel", |s| {
            let dir = &mut s.dirs[d];
            let won = dir.owner == RESUME;
            if won {
                dir.owner = KERNEL;
            }
            dir.v = if won { V::Add } else { V::Look };
        }),
        V::Add if drained || mutant == Mutant::RelaxedHanded => steps.go("adds to handed", |s| {
            let dir = &mut s.dirs[d];
            let relaxed = cfg.weak && mutant == Mutant::RelaxedHanded;
            dir.store(relaxed, Cpu::Bpf, Var::Handed, cfg.packet_units);
            dir.v_handed = dir.load(Cpu::Bpf, Var::Handed);
            dir.v = match mutant {
                Mutant::NoSecondLook | Mutant::LookBeforeAdd => V::First,
                _ => V::LookAgain,
            };
        }),
        V::LookAgain => {
            let next = match (dir.load(Cpu::Bpf, Var::Owner) == KERNEL, mutant) {
                (true, Mutant::LookBeforeAdd) => V::Add,
                (true, _) => V::First,
                (false, Mutant::LookBeforeAdd) => V::Divert,
                (false, _) => V::Retract,
            };
            steps.go("looks at owner again", |s| s.dirs[d].v = next);
        }
        _ => {}
    }
}

/// Whether the packet fits T's room, counting what is handed and not yet in T's TCP.
fn admit(dir: &Direction, steps: &mut Steps<'_>) {
    let (cfg, mutant, d) = (steps.cfg, steps.mutant, steps.d);
    let (count, room) = (dir.count, dir.room(cfg));
    let room_first = mutant == Mutant::RoomBeforeCount;
    match dir.v {
        V::First if cfg.capacity.is_some() => steps.go("reads T's byte count", |s| {
            s.dirs[d].v_first = if room_first { room } else { count };
            s.dirs[d].v = V::Second;
        }),
        _ => {
            let (count, room) = if room_first { (count, dir.v_first) } else { (dir.v_first, room) };
            let fits = cfg.capacity.is_none() || dir.v_handed.saturating_sub(count) <= room;
            let next = if fits || mutant == Mutant::NoAdmission { V::Redirect } else { V::Refuse };
            steps.go("reads T's room", |s| decided(&mut s.dirs[d], next));
            if dir.refusals > 0 && next == V::Redirect {
                steps.go("declines for another reason", |s| {
                    s.dirs[d].refusals -= 1;
                    decided(&mut s.dirs[d], V::Refuse);
                });
            }
        }
    }
}

/// Registers that are dead from here on must not tell states apart.
fn decided(dir: &mut Direction, next: V) {
    dir.v = next;
    dir.v_handed = 0;
    dir.v_first = 0;
}

/// Takes back what was added, claims the direction for user space, counts the packet as diverted, looks again.
fn divert(dir: &Direction, steps: &mut Steps<'_>) {
    let (cfg, mutant, d) = (steps.cfg, steps.mutant, steps.d);
    let drained = dir.v_buffer.is_empty();
    match dir.v {
        V::Retract | V::Refuse if drained => steps.go("takes its addition to handed back", |s| {
            let dir = &mut s.dirs[d];
            dir.handed -= cfg.packet_units;
            let next = match mutant {
                _ if dir.v == V::Retract => V::Divert,
                Mutant::RefuseKeepsOwner => V::Notify,
                _ => V::Claim,
            };
            decided(dir, next);
            dir.v_first = u8::from(mutant == Mutant::LookAfterRelayOnly);
        }),
        V::Claim | V::LateClaim => steps.go("stores owner = Relay", |s| {
            let dir = &mut s.dirs[d];
            dir.store(cfg.weak, Cpu::Bpf, Var::Owner, RELAY);
            dir.v_first = u8::from(mutant == Mutant::LookAfterRelayOnly && dir.v == V::Claim);
            dir.v = if dir.v == V::Claim { V::Notify } else { V::LateNotify };
        }),
        V::Notify | V::LateNotify if drained => steps.go("notifies user space", |s| {
            let dir = &mut s.dirs[d];
            dir.notified |= mutant != Mutant::RefuseSilently;
            dir.v = if dir.v == V::Notify { V::Divert } else { V::Pass };
        }),
        V::Divert if drained || mutant == Mutant::RelaxedDiverted => {
            steps.go("adds to diverted", |s| {
                let dir = &mut s.dirs[d];
                let sum = dir.load(Cpu::Bpf, Var::Diverted) + cfg.packet_units;
                dir.store(
                    cfg.weak && mutant == Mutant::RelaxedDiverted,
                    Cpu::Bpf,
                    Var::Diverted,
                    sum,
                );
                dir.v = match mutant {
                    Mutant::NoLookAfterDivert | Mutant::LookBeforeDivert => V::Pass,
                    Mutant::LookAfterRelayOnly if dir.v_first == 1 => V::Pass,
                    _ => V::LookAfter,
                };
                dir.v_first = 0;
            })
        }
        V::LookAfter => {
            let next = match (dir.load(Cpu::Bpf, Var::Owner) == RESUME, mutant) {
                (true, Mutant::LookBeforeDivert) => V::Claim,
                (true, _) => V::LateClaim,
                (false, Mutant::LookBeforeDivert) => V::Divert,
                (false, _) => V::Pass,
            };
            steps.go("looks at owner after the divert", |s| s.dirs[d].v = next);
        }
        _ => {}
    }
}

/// Puts the packet into `socket`'s line; a socket that left the maps has none any more.
fn put(cfg: &Config, state: &mut State, d: usize, socket: usize, mark: u8) {
    let dir = &mut state.dirs[d];
    dir.v = V::Idle;
    if state.left {
        return;
    }
    let first = cfg.leftover + (dir.seen - 1) * cfg.packet_units + 1;
    (first..first + cfg.packet_units).for_each(|unit| state.line[socket].push(unit | mark));
}

/// Advances the frame cursor and puts the packet into T's line. The cursor is only checked in the protocol as it
/// should be: a mutant shall be convicted by what the peers see.
fn redirect(cfg: &Config, state: &mut State, d: usize, check_cursor: bool) {
    put(cfg, state, d, 1 - d, OUT);
    let dir = &mut state.dirs[d];
    let stands = cfg.leftover + (dir.seen - 1) * cfg.packet_units;
    let in_step = dir.cursor == stands;
    dir.cursor = stands + cfg.packet_units;
    let room = dir.room(cfg);
    if check_cursor && !in_step {
        state.fail(Fault::Cursor);
    }
    if state.in_flight(d) > room {
        state.fail(Fault::OverAdmitted);
    }
}
