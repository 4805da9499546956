//! An exhaustive model of how a session changes to the packet path and back: every interleaving of
//! the tc program and user space (`wsproxy-ebpf/src/packet.rs`, `passage.rs` of the datapath).
//!
//! # What is modelled
//! Both directions. Each S sends numbered packets and repeats what is not acknowledged. Two CPUs run
//! the program; what it passes lies on its way to the socket, in any order, until it is delivered.
//! How far both sides have come, and whether packets are translated, is one word, changed by
//! compare-and-swap alone; what is done with the packets of a direction is a word of its own each.
//! What user space relays, its socket sends again until T's acknowledgement has come to that
//! socket; the tc program may have that acknowledgement instead. T acknowledges what comes, once.
//!
//! # What must hold
//! Once packets are translated, none that passed the program before is missing in the numbers that
//! user space has read, and no new one is delivered to a frozen socket; while the sockets live,
//! before and after, nothing new is translated; and from every state all packets can still come to
//! T, and the session back to its sockets.
//!
//! # What is not modelled
//! Reordered loads, but for one mutant (what orders them is in `ARCHITECTURE.md`, "Memory
//! ordering"); an acknowledgement that is lost behind us; a program that is held up until the
//! session goes there a second time; a slot that serves another session (the model of the splice
//! protocol has that).

mod back;

use crate::model::explore::Model;

/// What is done with the packets of a direction.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
enum Word {
    Off,
    Watch,
    Hold,
    Forward,
}

/// How far both sides have come, as the program has seen it; 0: nothing was heard.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
struct Pair {
    at: [u8; 2],
    translated: bool,
}

impl Pair {
    const UNHEARD: Self = Self { at: [0; 2], translated: false };

    fn moved(mut self, side: usize, packet: u8) -> Self {
        self.at[side] = packet;
        self
    }
}

/// What the program does next with a packet.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
enum Hook {
    Idle,
    /// It saw `Watch`: it reads the pair.
    Read(usize, u8),
    /// It has read the pair, and swaps it if it is still that.
    Swap(usize, u8, Pair),
    /// The packet is to go to the stack.
    Pass(usize, u8),
    /// It saw `Forward`; it notes the packet.
    Note(usize, u8),
    /// It looks again.
    Look(usize, u8),
}

impl Hook {
    fn packet(self) -> Option<(usize, u8)> {
        match self {
            Self::Idle => None,
            Self::Read(side, packet)
            | Self::Swap(side, packet, _)
            | Self::Pass(side, packet)
            | Self::Note(side, packet)
            | Self::Look(side, packet) => Some((side, packet)),
        }
    }
}

/// What user space does next.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
enum User {
    Enlist,
    Begin,
    Freeze(usize),
    Empty(usize),
    Decide,
    Commit,
    Undo,
    Forward(usize),
    Translated,
    Hold(usize),
    Snapshot(usize),
    Check,
    Revive,
    Leave,
    Done,
}

/// One rule taken out.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Mutant {
    /// The switch as it should be.
    None,
    /// The program stores the pair, whatever it has become.
    ProgramStores,
    /// User space stores the pair, whatever it has become.
    UserStores,
    /// The program passes a packet before it notes it.
    NotesAfterPassing,
    /// The states are set before the pair.
    StatesFirst,
    /// One side's number is compared with what its socket has.
    OneSide,
    /// User space does not wait until something was heard of both sides.
    UnheardIsQuiet,
    /// User space does not look whether bytes wait in a socket.
    UnreadIsQuiet,
    /// A frozen socket sends nothing again.
    ForgetsQueue,
    /// What T has acknowledged to the frozen socket counts for nothing: as it was first written.
    FrozenIsDeaf,
    /// The program, translating, does not look again.
    NoSecondLook,
    /// A copy of a packet that another CPU has noted needs no swap, and without a barrier the second
    /// look may come before the note was seen (arm64): as it was first written.
    CopiesLookEarly,
    /// Coming back, user space does not hold packets.
    BackWithoutHold,
    /// Coming back, user space does not look again whether all is quiet.
    BackUnchecked,
    /// Coming back, user space reads the numbers before its states are seen.
    NoFence,
    /// Coming back, user space reads once more what was noted, after it looked whether all is
    /// quiet: as it was first written.
    RevivedFromLaterNotes,
}

/// What is explored.
#[derive(Clone, Copy, Debug)]
pub struct Switch {
    /// Packets that each side sends.
    pub packets: [u8; 2],
    /// Whether packets passed before any were noted.
    pub early: bool,
    /// Whether the packets of a connection stay on one CPU: each is delivered before the next one
    /// comes to the program.
    pub one_cpu: bool,
    /// Whether what is relayed may be lost, and its acknowledgement be late.
    pub lossy: bool,
    /// The rule that is left out.
    pub mutant: Mutant,
}

/// One direction: S sends, T gets. Sets of packets are masks: bit 0 is packet 1.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
struct Side {
    word: Word,
    /// Translated: the highest packet that the program noted, the last acknowledged to it by T.
    noted: u8,
    acked: u8,
    /// S: sent so far, acknowledged to it.
    sent: u8,
    done: u8,
    /// On their way to the socket of S.
    under_way: u8,
    /// What that socket has got; whether user space has yet to read of it.
    got: u8,
    unread: bool,
    frozen: bool,
    /// What a revived socket counts as received.
    revived: u8,
    /// What user space has written to the socket of T; what T has acknowledged to that one.
    relayed: u8,
    cleared: u8,
    /// What T has; whether it is to acknowledge it.
    has: u8,
    answers: bool,
    /// What user space has read: of the frozen socket, then of what was noted and acknowledged.
    read: u8,
    snapshot: (u8, u8),
}

impl Side {
    fn new(word: Word) -> Self {
        Self {
            word,
            noted: 0,
            acked: 0,
            sent: 0,
            done: 0,
            under_way: 0,
            got: 0,
            unread: false,
            frozen: false,
            revived: 0,
            relayed: 0,
            cleared: 0,
            has: 0,
            answers: false,
            read: 0,
            snapshot: (0, 0),
        }
    }

    fn is_quiet(&self) -> bool {
        self.noted == self.acked
    }

    fn is_whole(&self) -> bool {
        self.got == up_to(in_order(self.got))
    }

    /// User space sends on what it reads.
    fn relay(&mut self, lossy: bool) {
        self.relayed = in_order(self.got);
        self.unread = !self.is_whole();
        if !lossy {
            self.has |= up_to(self.relayed) & !up_to(self.revived);
            self.cleared = self.relayed;
        }
    }
}

/// Everything.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct State {
    sides: [Side; 2],
    pair: Pair,
    hooks: [Hook; 2],
    user: User,
    tries: u8,
    /// The pair that user space has read.
    seen: Pair,
    /// The sockets live: not yet frozen for good, or again.
    lives: bool,
    fault: Option<&'static str>,
}

fn bit(packet: u8) -> u8 {
    1 << (packet - 1)
}

fn up_to(packet: u8) -> u8 {
    (1 << packet) - 1
}

/// How many packets are there without a hole.
fn in_order(set: u8) -> u8 {
    set.trailing_ones() as u8
}

impl State {
    fn words(&mut self, word: Word) {
        self.sides.iter_mut().for_each(|side| side.word = word);
    }

    /// Whether a packet has passed the program, or will, that a frozen socket had not got.
    fn is_missing(&self) -> bool {
        let beyond = |d: usize, set: u8| set >> self.sides[d].read != 0;
        let passing = self
            .hooks
            .iter()
            .any(|hook| matches!(*hook, Hook::Pass(d, packet) if packet > self.sides[d].read));
        passing || (0..2).any(|d| beyond(d, self.sides[d].under_way | self.sides[d].got))
    }

    fn is_comparable(&self, d: usize, mutant: Mutant) -> bool {
        let unheard = mutant == Mutant::UnheardIsQuiet && self.seen.at[d] == 0;
        let left_out = mutant == Mutant::OneSide && d == 1;
        unheard || left_out || self.seen.at[d] == self.sides[d].read
    }
}

type Steps = Vec<(&'static str, State)>;

impl Switch {
    fn is(&self, mutant: Mutant) -> bool {
        self.mutant == mutant
    }

    fn hook(&self, state: &State, cpu: usize, out: &mut Steps) {
        let mut s = *state;
        s.hooks[cpu] = Hook::Idle;
        match state.hooks[cpu] {
            Hook::Idle => (0..2).for_each(|d| self.arrivals(state, cpu, d, out)),
            Hook::Read(d, packet) => self.read(s, cpu, d, packet, out),
            Hook::Swap(d, packet, seen) => self.swap(s, cpu, (d, packet, seen), out),
            Hook::Pass(d, packet) => {
                s.sides[d].under_way |= bit(packet);
                out.push(("passed to the stack", s));
            }
            Hook::Note(d, packet) => {
                if s.sides[d].noted >= packet && self.is(Mutant::CopiesLookEarly) {
                    Self::translate(s, d, packet, out);
                }
                s.sides[d].noted = s.sides[d].noted.max(packet);
                s.hooks[cpu] = Hook::Look(d, packet);
                out.push(("noted", s));
            }
            Hook::Look(d, packet) => {
                if state.sides[d].word == Word::Forward || self.is(Mutant::NoSecondLook) {
                    Self::translate(s, d, packet, out);
                } else {
                    out.push(("it looks again: dropped", s));
                }
            }
        }
    }

    /// A packet comes in, new or once more, and the program looks at the state.
    fn arrivals(&self, state: &State, cpu: usize, d: usize, out: &mut Steps) {
        let side = &state.sides[d];
        let is_here = |hook: &Hook| hook.packet().is_some_and(|(of, _)| of == d);
        if self.one_cpu && (side.under_way != 0 || state.hooks.iter().any(is_here)) {
            return;
        }
        // An acknowledgement may be late: what S repeats was perhaps received already. But nobody
        // may wait for that.
        let first = if self.lossy { side.done + 1 } else { side.done.max(1) };
        for packet in first..=(side.sent + 1).min(self.packets[d]) {
            let mut s = *state;
            s.sides[d].sent = side.sent.max(packet);
            s.hooks[cpu] = match side.word {
                Word::Hold => continue,
                Word::Off => Hook::Pass(d, packet),
                Word::Watch => Hook::Read(d, packet),
                Word::Forward => Hook::Note(d, packet),
            };
            out.push(("a packet comes", s));
        }
    }

    /// The program reads the pair: the packet may be none that has to be noted.
    fn read(&self, mut s: State, cpu: usize, d: usize, packet: u8, out: &mut Steps) {
        if s.pair.translated {
            return out.push(("translated by now: dropped", s));
        }
        let is_noted = packet <= s.pair.at[d];
        if self.is(Mutant::NotesAfterPassing) {
            s.sides[d].under_way |= bit(packet);
        }
        s.hooks[cpu] = match is_noted {
            true if self.is(Mutant::NotesAfterPassing) => Hook::Idle,
            true => Hook::Pass(d, packet),
            false => Hook::Swap(d, packet, s.pair),
        };
        out.push(("it reads how far both sides are", s));
    }

    fn swap(&self, mut s: State, cpu: usize, what: (usize, u8, Pair), out: &mut Steps) {
        let (d, packet, seen) = what;
        if s.pair == seen || self.is(Mutant::ProgramStores) {
            s.pair = seen.moved(d, packet);
            if !self.is(Mutant::NotesAfterPassing) {
                s.hooks[cpu] = Hook::Pass(d, packet);
            }
            return out.push(("swapped", s));
        }
        if !self.is(Mutant::NotesAfterPassing) {
            out.push(("swapped by another, once too often: dropped", s));
        }
        s.hooks[cpu] = Hook::Read(d, packet);
        out.push(("swapped by another: once more", s));
    }

    fn translate(mut s: State, d: usize, packet: u8, out: &mut Steps) {
        let side = &mut s.sides[d];
        if s.lives && packet > in_order(side.got) {
            s.fault = Some("bypassed");
        }
        out.push(("translated, but lost behind us", s));
        let side = &mut s.sides[d];
        side.has |= bit(packet);
        side.answers = true;
        out.push(("translated", s));
    }

    fn deliver(&self, state: &State, d: usize, packet: u8) -> State {
        let mut s = *state;
        let side = &mut s.sides[d];
        side.under_way &= !bit(packet);
        let is_new = packet > in_order(side.got);
        if is_new && side.frozen && !state.lives {
            s.fault = Some("swallowed");
        }
        side.got |= bit(packet);
        side.done = side.done.max(in_order(side.got));
        side.unread |= is_new;
        if matches!(state.user, User::Enlist | User::Begin | User::Done) {
            side.relay(self.lossy);
        }
        s
    }

    /// T's side of direction `d`: it gets what is sent again, and acknowledges.
    fn far(&self, state: &State, d: usize, out: &mut Steps) {
        let side = &state.sides[d];
        let sends = !(side.frozen && self.is(Mutant::ForgetsQueue));
        if sends && side.cleared < side.relayed {
            let mut s = *state;
            s.sides[d].has |= up_to(side.relayed) & !up_to(side.revived);
            s.sides[d].answers = true;
            out.push(("the socket sends, once more perhaps", s));
        }
        if !side.answers {
            return;
        }
        let mut s = *state;
        s.sides[d].answers = false;
        let number = in_order(side.has);
        // It comes as a packet of the other direction.
        match state.sides[1 - d].word {
            Word::Hold => {}
            Word::Watch if state.pair.translated => {}
            Word::Watch | Word::Off => {
                // Never more than was written to this socket.
                s.sides[d].cleared = side.cleared.max(number.min(side.relayed));
            }
            Word::Forward => {
                s.sides[d].acked = side.acked.max(number);
                s.sides[d].done = side.done.max(number);
            }
        }
        out.push(("T acknowledges", s));
    }

    /// Takes from the frozen socket what T has acknowledged, to whomever.
    fn clear(&self, state: &State, d: usize, out: &mut Steps) {
        let side = &state.sides[d];
        if !side.frozen || state.user != User::Translated {
            return;
        }
        let mut s = *state;
        if side.cleared < side.relayed && side.acked >= side.relayed {
            s.sides[d].cleared = side.relayed;
            out.push(("user space clears a queue", s));
        } else if side.cleared == side.relayed
            && side.acked < side.relayed
            && !self.is(Mutant::FrozenIsDeaf)
        {
            s.sides[d].acked = side.relayed;
            out.push(("user space finds a queue empty", s));
        }
    }

    /// The next step of user space, if it can take one.
    fn user(&self, state: &State) -> Option<State> {
        let mut s = *state;
        s.user = match state.user {
            User::Enlist => {
                s.words(Word::Watch);
                User::Begin
            }
            User::Begin => {
                let heard = state.pair.at.iter().all(|at| *at != 0);
                if !heard && !self.is(Mutant::UnheardIsQuiet) {
                    return None;
                }
                s.seen = state.pair;
                User::Freeze(0)
            }
            User::Freeze(d) => {
                s.sides[d].frozen = true;
                s.sides[d].read = in_order(state.sides[d].got);
                User::Empty(d)
            }
            User::Empty(d) => {
                let side = &state.sides[d];
                let is_empty = !side.unread && side.is_whole();
                match is_empty || self.is(Mutant::UnreadIsQuiet) {
                    false => User::Undo,
                    true if d == 0 => User::Freeze(1),
                    true => User::Decide,
                }
            }
            User::Decide => self.decide(&mut s),
            User::Commit => self.commit(&mut s),
            User::Undo => {
                for side in &mut s.sides {
                    side.frozen = false;
                    side.relay(self.lossy);
                    (side.noted, side.acked, side.read) = (0, 0, 0);
                }
                s.seen = Pair::UNHEARD;
                s.tries += 1;
                s.words(if s.tries < 2 { Word::Watch } else { Word::Off });
                if s.tries < 2 { User::Begin } else { User::Done }
            }
            User::Forward(d) => {
                s.sides[d].word = Word::Forward;
                if d == 0 { User::Forward(1) } else { User::Translated }
            }
            _ => return self.come_back(state),
        };
        Some(s)
    }

    fn decide(&self, s: &mut State) -> User {
        if !(0..2).all(|d| s.is_comparable(d, self.mutant)) {
            return User::Undo;
        }
        for side in &mut s.sides {
            side.noted = side.read;
            side.acked = side.cleared;
        }
        if self.is(Mutant::StatesFirst) {
            s.words(Word::Forward);
        }
        User::Commit
    }

    fn commit(&self, s: &mut State) -> User {
        if s.pair != s.seen && !self.is(Mutant::UserStores) {
            return User::Undo;
        }
        s.lives = false;
        if s.is_missing() {
            s.fault = Some("missing");
        } else if s.sides.iter().any(|side| side.relayed != side.read) {
            s.fault = Some("not relayed");
        }
        // The numbers don't count any more.
        s.pair = Pair { translated: true, ..Pair::UNHEARD };
        s.seen = Pair::UNHEARD;
        s.tries = 0;
        s.sides.iter_mut().for_each(|side| side.read = 0);
        User::Forward(0)
    }
}

impl Model for Switch {
    type State = State;
    type Step = &'static str;

    fn initial(&self) -> State {
        State {
            sides: [Side::new(if self.early { Word::Off } else { Word::Watch }); 2],
            pair: Pair::UNHEARD,
            hooks: [Hook::Idle; 2],
            user: if self.early { User::Enlist } else { User::Begin },
            tries: 0,
            seen: Pair::UNHEARD,
            lives: true,
            fault: None,
        }
    }

    fn successors(&self, state: &State, out: &mut Steps) {
        for cpu in 0..2 {
            self.hook(state, cpu, out);
        }
        for d in 0..2 {
            let under_way = state.sides[d].under_way;
            let packets = (1..=self.packets[d]).filter(|packet| under_way & bit(*packet) != 0);
            out.extend(packets.map(|packet| ("delivered", self.deliver(state, d, packet))));
            self.far(state, d, out);
            self.clear(state, d, out);
        }
        out.extend(self.user(state).map(|s| ("user space", s)));
        // One CPU is as good as the other.
        out.iter_mut().for_each(|(_, s)| s.hooks.sort_unstable());
    }

    fn invariant(&self, state: &State) -> Result<(), &'static str> {
        state.fault.map_or(Ok(()), Err)
    }

    fn is_final_ok(&self, state: &State) -> bool {
        let all = (0..2).all(|d| state.sides[d].has == up_to(self.packets[d]));
        all && matches!(state.user, User::Done | User::Begin)
    }
}
