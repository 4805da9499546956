//! Shared memory with store buffers.
//!
//! Each of BPF and user space has a buffer of stores that the other does not see yet. Stores to one variable leave it
//! in order, stores to different variables in any order (weaker than x86, like arm64's stores); own loads see own
//! stores. A fence, an atomic operation with a result, and whatever hands data over through a lock (a redirect, a
//! pass, `recv`, a write, `shutdown`) only proceed once the buffer is empty: the latter because a lock's release
//! makes earlier stores visible to whoever takes the lock next.

use super::state::Direction;

/// A shared variable of a direction's record.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Var {
    Owner,
    /// Buffered stores to it are additions.
    Handed,
    Diverted,
    Relayed,
}

const VARS: [Var; 4] = [Var::Owner, Var::Handed, Var::Diverted, Var::Relayed];

/// Who accesses memory.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Cpu {
    Bpf,
    User,
}

/// Up to four stores, oldest first. A byte each: 1, the variable (2 bits), the value (5 bits).
#[derive(Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct Buffer([u8; 4]);

impl Buffer {
    pub fn is_empty(self) -> bool {
        self.0[0] == 0
    }

    fn stores(self) -> impl Iterator<Item = (Var, u8)> {
        self.0
            .into_iter()
            .take_while(|byte| *byte != 0)
            .map(|byte| (VARS[usize::from(byte >> 5 & 3)], byte & 31))
    }

    fn push(&mut self, var: Var, value: u8) {
        let free = self
            .0
            .iter()
            .position(|byte| *byte == 0)
            .expect("four stores are enough between two fences");
        assert!(value < 32);
        self.0[free] = 0x80 | (var as u8) << 5 | value;
    }

    fn remove(&mut self, at: usize) {
        self.0.copy_within(at + 1.., at);
        self.0[3] = 0;
    }
}

impl std::fmt::Debug for Buffer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_list().entries(self.stores()).finish()
    }
}

impl Direction {
    fn buffer(&mut self, cpu: Cpu) -> &mut Buffer {
        match cpu {
            Cpu::Bpf => &mut self.v_buffer,
            Cpu::User => &mut self.u_buffer,
        }
    }

    fn memory(&mut self, var: Var) -> &mut u8 {
        match var {
            Var::Owner => &mut self.owner,
            Var::Handed => &mut self.handed,
            Var::Diverted => &mut self.diverted,
            Var::Relayed => &mut self.relayed,
        }
    }

    /// What `cpu` sees in `var`.
    pub fn load(mut self, cpu: Cpu, var: Var) -> u8 {
        let buffer = *self.buffer(cpu);
        let memory = *self.memory(var);
        buffer.stores().filter(|(stored, _)| *stored == var).fold(memory, |seen, (_, value)| {
            match var {
                Var::Handed => seen + value,
                _ => value,
            }
        })
    }

    /// A plain store, or for `handed` a relaxed addition.
    pub fn store(&mut self, weak: bool, cpu: Cpu, var: Var, value: u8) {
        if weak {
            self.buffer(cpu).push(var, value);
        } else if var == Var::Handed {
            self.handed += value;
        } else {
            *self.memory(var) = value;
        }
    }

    /// Every way in which one store of `cpu` can become visible.
    pub fn drains(mut self, cpu: Cpu) -> impl Iterator<Item = (Var, Direction)> {
        let stores: Vec<_> = self.buffer(cpu).stores().collect();
        let first: Vec<_> = (0..stores.len())
            .filter(|&i| stores[..i].iter().all(|(var, _)| *var != stores[i].0))
            .collect();
        first.into_iter().map(move |i| {
            let (var, value) = stores[i];
            let mut after = self;
            after.buffer(cpu).remove(i);
            after.store(false, cpu, var, value);
            (var, after)
        })
    }
}

/// What a store that becomes visible is called in a trace.
pub fn drain_name(cpu: Cpu, var: Var) -> &'static str {
    match (cpu, var) {
        (Cpu::Bpf, Var::Owner) => "BPF's store to owner becomes visible",
        (Cpu::Bpf, Var::Handed) => "BPF's addition to handed becomes visible",
        (Cpu::Bpf, _) => "BPF's addition to diverted becomes visible",
        (Cpu::User, Var::Owner) => "user space's store to owner becomes visible",
        (Cpu::User, _) => "user space's store to relayed becomes visible",
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::config::{Config, Pace};

    #[test]
    fn stores_are_seen_by_their_own_cpu_first_and_leave_in_order_per_variable() {
        let mut dir = Direction::new(&Config::one_way(1, Pace::Eager), 0, 0);
        dir.store(true, Cpu::User, Var::Owner, 1);
        dir.store(true, Cpu::User, Var::Owner, 2);
        dir.store(true, Cpu::User, Var::Relayed, 3);
        assert_eq!((dir.load(Cpu::User, Var::Owner), dir.load(Cpu::Bpf, Var::Owner)), (2, 0));
        let seen: Vec<_> =
            dir.drains(Cpu::User).map(|(_, after)| (after.owner, after.relayed)).collect();
        assert_eq!(seen, [(1, 0), (0, 3)], "the second store to owner waits for the first");
    }

    #[test]
    fn buffered_additions_to_handed_do_not_undo_the_other_side() {
        let mut dir = Direction::new(&Config::one_way(1, Pace::Eager), 0, 0);
        dir.store(true, Cpu::Bpf, Var::Handed, 2);
        dir.store(false, Cpu::User, Var::Handed, 5);
        assert_eq!((dir.load(Cpu::Bpf, Var::Handed), dir.load(Cpu::User, Var::Handed)), (7, 5));
        assert!(
            dir.drains(Cpu::Bpf).all(|(_, after)| after.handed == 7 && after.v_buffer.is_empty())
        );
    }
}
