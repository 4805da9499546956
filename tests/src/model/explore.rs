//! A breadth-first explorer of every reachable state of a [`Model`].
//!
//! Two things are proved when [`explore`] says [`Outcome::Holds`]: no reachable state breaks the invariant, and from
//! EVERY reachable state a good end can still be reached. The second covers deadlocks and also circles that nothing
//! leads out of, which a search for states without successors would miss.

use std::fmt::{self, Debug, Write as _};
use std::hash::{BuildHasher, BuildHasherDefault, Hash, Hasher};

/// A system of states and atomic steps.
pub trait Model {
    /// Everything that a step may depend on.
    type State: Copy + Eq + Hash + Debug;
    /// What a step is called in a trace.
    type Step: Copy + Debug;

    /// Where every exploration starts.
    fn initial(&self) -> Self::State;
    /// Every step that some actor can take in `state`.
    fn successors(&self, state: &Self::State, out: &mut Vec<(Self::Step, Self::State)>);
    /// What is wrong with `state`, if anything.
    fn invariant(&self, state: &Self::State) -> Result<(), &'static str>;
    /// Whether everything is done and done well. Such a state needs no successors.
    fn is_final_ok(&self, state: &Self::State) -> bool;
}

/// How an exploration ended.
pub enum Outcome {
    /// Every state was seen; all hold, and all can reach a good end.
    Holds,
    /// The invariant broke: what, and the shortest way there.
    Broken {
        /// What the invariant said.
        why: &'static str,
        /// Every step and state of the way.
        trace: String,
    },
    /// A state from which no good end can be reached, and the shortest way there.
    Stuck {
        /// Every step and state of the way.
        trace: String,
    },
    /// More states than allowed: nothing is proved.
    TooLarge,
}

/// What an exploration saw.
pub struct Report {
    /// States found, each counted once.
    pub states: usize,
    /// Steps between them.
    pub steps: usize,
    /// What that proves.
    pub outcome: Outcome,
}

impl Report {
    /// `None` when the model holds, else what is wrong with it in a word.
    pub fn fault(&self) -> Option<&'static str> {
        match self.outcome {
            Outcome::Holds => None,
            Outcome::Broken { why, .. } => Some(why),
            Outcome::Stuck { .. } => Some("stuck"),
            Outcome::TooLarge => Some("too large"),
        }
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            f,
            "{} states, {} steps: {}",
            self.states,
            self.steps,
            self.fault().unwrap_or("holds")
        )?;
        match &self.outcome {
            Outcome::Holds | Outcome::TooLarge => Ok(()),
            Outcome::Broken { trace, .. } | Outcome::Stuck { trace } => f.write_str(trace),
        }
    }
}

/// Visits every reachable state of `model`, nearest first, up to `limit` states.
pub fn explore<M: Model>(model: &M, limit: usize) -> Report {
    let mut seen = Seen::new(model.initial());
    let mut edges = Edges::default();
    let mut next = Vec::new();
    let mut at = 0;
    while at < seen.states.len() {
        let state = seen.states[at];
        if let Err(why) = model.invariant(&state) {
            let trace = seen.trace(model, at);
            return Report {
                states: seen.states.len(),
                steps: edges.to.len(),
                outcome: Outcome::Broken { why, trace },
            };
        }
        model.successors(&state, &mut next);
        for (_, successor) in next.drain(..) {
            edges.to.push(seen.index_of(successor, at));
        }
        edges.ends.push(edges.to.len() as u32);
        if seen.states.len() > limit {
            return Report {
                states: seen.states.len(),
                steps: edges.to.len(),
                outcome: Outcome::TooLarge,
            };
        }
        at += 1;
    }
    let outcome = match edges.first_hopeless(|i| model.is_final_ok(&seen.states[i])) {
        None => Outcome::Holds,
        Some(i) => Outcome::Stuck { trace: seen.trace(model, i) },
    };
    Report { states: seen.states.len(), steps: edges.to.len(), outcome }
}

/// The states seen so far in the order they were found, and an open-addressing index over them.
struct Seen<S> {
    states: Vec<S>,
    parents: Vec<u32>,
    /// Index into `states` plus one; zero is a free place.
    table: Vec<u32>,
}

impl<S: Copy + Eq + Hash + Debug> Seen<S> {
    fn new(initial: S) -> Self {
        let mut seen = Seen { states: Vec::new(), parents: Vec::new(), table: vec![0; 1 << 12] };
        seen.index_of(initial, 0);
        seen
    }

    fn index_of(&mut self, state: S, parent: usize) -> u32 {
        if (self.states.len() + 1) * 2 > self.table.len() {
            self.grow();
        }
        let place = self.place(&state);
        if self.table[place] == 0 {
            self.states.push(state);
            self.parents.push(parent as u32);
            self.table[place] = self.states.len() as u32;
        }
        self.table[place] - 1
    }

    fn place(&self, state: &S) -> usize {
        let mask = self.table.len() - 1;
        let mut place = BuildHasherDefault::<Mix>::default().hash_one(state) as usize & mask;
        while self.table[place] != 0 && self.states[self.table[place] as usize - 1] != *state {
            place = (place + 1) & mask;
        }
        place
    }

    fn grow(&mut self) {
        self.table = vec![0; self.table.len() * 2];
        for i in 0..self.states.len() {
            let place = self.place(&self.states[i]);
            self.table[place] = i as u32 + 1;
        }
    }

    /// The shortest way to `target`. Step names are found again instead of being stored for every state.
    fn trace<M: Model<State = S>>(&self, model: &M, target: usize) -> String {
        let mut path = vec![target];
        while path[path.len() - 1] != 0 {
            path.push(self.parents[path[path.len() - 1]] as usize);
        }
        path.reverse();
        let mut text = format!("     {:?}\n", self.states[0]);
        let mut steps = Vec::new();
        for (n, pair) in path.windows(2).enumerate() {
            let (from, to) = (self.states[pair[0]], self.states[pair[1]]);
            steps.clear();
            model.successors(&from, &mut steps);
            let step = steps.iter().find(|(_, state)| *state == to).map(|(step, _)| *step);
            let _ = writeln!(
                text,
                "{:3}. {:?}\n     {:?}",
                n + 1,
                step.expect("a step leads to its successor"),
                to
            );
        }
        text
    }
}

/// Every step as a pair of state numbers; the steps of state `i` end at `ends[i]`.
#[derive(Default)]
struct Edges {
    to: Vec<u32>,
    ends: Vec<u32>,
}

impl Edges {
    /// The first state from which no good state can be reached: walks backwards from the good ones.
    fn first_hopeless(&self, is_good: impl Fn(usize) -> bool) -> Option<usize> {
        let count = self.ends.len();
        let mut starts = vec![0u32; count + 1];
        for &to in &self.to {
            starts[to as usize + 1] += 1;
        }
        for i in 0..count {
            starts[i + 1] += starts[i];
        }
        let mut fill = starts.clone();
        let mut from = vec![0u32; self.to.len()];
        let mut edge = 0;
        for i in 0..count {
            while edge < self.ends[i] as usize {
                let slot = &mut fill[self.to[edge] as usize];
                from[*slot as usize] = i as u32;
                *slot += 1;
                edge += 1;
            }
        }
        let mut hopeful = vec![false; count];
        let mut work: Vec<usize> = (0..count).filter(|&i| is_good(i)).collect();
        for &i in &work {
            hopeful[i] = true;
        }
        while let Some(i) = work.pop() {
            for &before in &from[starts[i] as usize..starts[i + 1] as usize] {
                if !std::mem::replace(&mut hopeful[before as usize], true) {
                    work.push(before as usize);
                }
            }
        }
        hopeful.iter().position(|&hope| !hope)
    }
}

/// A multiply-and-rotate hasher: states are small and nobody chooses them against us.
#[derive(Default)]
struct Mix(u64);

impl Hasher for Mix {
    fn write(&mut self, bytes: &[u8]) {
        let mut chunks = bytes.chunks_exact(8);
        for chunk in &mut chunks {
            self.write_u64(u64::from_ne_bytes(chunk.try_into().expect("eight bytes")));
        }
        for &byte in chunks.remainder() {
            self.write_u64(u64::from(byte));
        }
    }
    fn write_u8(&mut self, n: u8) {
        self.write_u64(u64::from(n));
    }
    fn write_u32(&mut self, n: u32) {
        self.write_u64(u64::from(n));
    }
    fn write_u64(&mut self, n: u64) {
        // The odd constant is 2^64 / golden ratio (Knuth, TAOCP 6.4).
        self.0 = (self.0.rotate_left(23) ^ n).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    }
    fn finish(&self) -> u64 {
        self.0 ^ (self.0 >> 32)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Counts from 0 by 2 or 3 up to 20; `bad` breaks the invariant, `pit` can only lead to itself.
    struct Count {
        bad: u8,
        pit: u8,
    }

    impl Model for Count {
        type State = u8;
        type Step = u8;
        fn initial(&self) -> u8 {
            0
        }
        fn successors(&self, state: &u8, out: &mut Vec<(u8, u8)>) {
            let by: &[u8] = if *state == self.pit { &[0] } else { &[2, 3] };
            out.extend(by.iter().map(|by| (*by, state + by)).filter(|(_, to)| *to <= 20));
        }
        fn invariant(&self, state: &u8) -> Result<(), &'static str> {
            if *state == self.bad { Err("bad") } else { Ok(()) }
        }
        fn is_final_ok(&self, state: &u8) -> bool {
            *state >= 19
        }
    }

    #[test]
    fn sees_every_state_once() {
        let report = explore(&Count { bad: 99, pit: 99 }, 100);
        assert_eq!((report.states, report.fault()), (20, None), "all of 0..=20 but 1");
    }

    #[test]
    fn finds_the_shortest_way_to_a_broken_state() {
        let Outcome::Broken { trace, .. } = explore(&Count { bad: 6, pit: 99 }, 100).outcome else {
            panic!("6 is reachable")
        };
        assert_eq!(trace, "     0\n  1. 3\n     3\n  2. 3\n     6\n");
    }

    #[test]
    fn finds_a_circle_that_nothing_leads_out_of() {
        assert_eq!(explore(&Count { bad: 99, pit: 7 }, 100).fault(), Some("stuck"));
    }

    #[test]
    fn says_when_it_has_not_seen_everything() {
        assert_eq!(explore(&Count { bad: 99, pit: 99 }, 5).fault(), Some("too large"));
    }
}
