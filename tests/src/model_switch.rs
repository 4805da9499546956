//! An exhaustive model of how a session changes to the packet path and back: every interleaving of
//! the tc program and user space (`wsproxy-ebpf/src/packet.rs`, `passage.rs` of the datapath).
//!
//! # What is modelled
//! One direction. S sends numbered packets and repeats what is not acknowledged. Two CPUs run the
//! program; what it passes lies on its way to the socket, in any order, until it is delivered. User
//! space's stores to the state wait in a store buffer until a fence; the program's notes are
//! compare-and-swaps, which are fences themselves.
//!
//! # What must hold
//! Once packets are translated, none that passed the program before is missing in the numbers that
//! user space has read, and no new one is delivered to the frozen socket; once the sockets live
//! again, nothing new is translated; and from every state all packets can still come to T.
//!
//! # What is not modelled
//! Reordered loads; acknowledgements, which nobody loses for good; the opposite direction, which is
//! the same; a slot that serves another session (the model of the splice protocol has that).

use crate::model::explore::Model;

/// The word that says what is done with packets.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
enum Word {
    Off,
    Watch,
    Hold,
    Forward,
}

/// What the program does next with a packet.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
enum Hook {
    Idle,
    /// It saw this word; it notes the packet.
    Note(Word, u8),
    /// It looks again.
    Look(Word, u8),
    /// [`Mutant::LookBeforeNote`]: it has looked, notes and goes on.
    NoteLate(Word, u8),
}

/// What user space does next.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
enum User {
    Enlist,
    Hold,
    HoldFence,
    Freeze,
    ReadSocket,
    ReadNoted,
    Decide,
    Undo,
    Prepare,
    Forward,
    Translated,
    BackFence,
    BackCheck,
    Revive,
    Leave,
    Done,
}

/// One rule taken out.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Mutant {
    /// The switch as it should be.
    None,
    /// The program does not look again.
    NoSecondLook,
    /// It looks again for `Hold` alone: as it was first written.
    LooksForHoldAlone,
    /// It looks again before it notes the packet.
    LookBeforeNote,
    /// User space reads without a fence behind its store.
    NoFence,
    /// User space does not compare what was noted with what the socket has.
    NoComparison,
    /// User space does not wait until something was noted.
    UnseenIsQuiet,
    /// User space does not look whether bytes wait in the socket.
    UnreadIsQuiet,
    /// Coming back, user space does not hold packets.
    BackWithoutHold,
    /// Coming back, user space does not look again whether all is quiet.
    BackUnchecked,
    /// Coming back, user space reads once more what was noted, after it looked whether all is
    /// quiet: as it was first written.
    RevivedFromLaterNotes,
}

/// What is explored.
#[derive(Clone, Copy, Debug)]
pub struct Switch {
    /// Packets that S sends.
    pub packets: u8,
    /// Whether packets passed before any were noted.
    pub early: bool,
    /// Whether the packets of a connection stay on one CPU: each is delivered before the next one
    /// comes to the program.
    pub one_cpu: bool,
    /// The rule that is left out.
    pub mutant: Mutant,
}

/// Everything. Sets of packets are masks: bit 0 is packet 1.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct State {
    word: Word,
    /// Stores of user space that nobody else sees yet, oldest first.
    stores: [Option<Word>; 2],
    /// The highest packet that the program noted; 0: none.
    noted: u8,
    /// The last packet that T has acknowledged, as the program noted.
    acked: u8,
    hooks: [Hook; 2],
    /// S: sent so far, acknowledged to it.
    sent: u8,
    done: u8,
    /// On their way to the socket.
    under_way: u8,
    /// What the socket has got; whether user space has yet to read of it.
    got: u8,
    unread: bool,
    frozen: bool,
    /// What a revived socket counts as received.
    revived: u8,
    /// What T has.
    has: u8,
    user: User,
    tries: u8,
    read_socket: u8,
    read_quiet: bool,
    read_noted: u8,
    /// The sockets live again.
    is_back: bool,
    fault: Option<&'static str>,
}

fn bit(packet: u8) -> u8 {
    1 << (packet - 1)
}

/// How many packets are there without a hole.
fn in_order(set: u8) -> u8 {
    set.trailing_ones() as u8
}

impl State {
    /// A plain store of user space.
    fn store(&mut self, word: Word) {
        let free = self.stores.iter_mut().find(|store| store.is_none());
        *free.expect("two stores are enough between two fences") = Some(word);
    }

    fn is_fenced(&self) -> bool {
        self.stores[0].is_none()
    }

    fn is_quiet(&self) -> bool {
        self.noted == self.acked
    }

    fn deliver(&mut self, packet: u8) {
        self.under_way &= !bit(packet);
        let is_new = packet > in_order(self.got);
        if is_new && self.frozen && matches!(self.user, User::Translated | User::BackFence) {
            self.fault = Some("swallowed");
        }
        self.got |= bit(packet);
        self.done = self.done.max(in_order(self.got));
        if self.frozen {
            self.unread |= is_new;
        } else {
            self.relay();
        }
    }

    /// User space sends on what it reads.
    fn relay(&mut self) {
        self.has |= ((1 << in_order(self.got)) - 1) & !self.revived;
        self.unread = false;
    }
}

impl Switch {
    /// Looks again, and does with the packet what is to be done: `None` is to drop it.
    fn second_look(&self, saw: Word, now: Word) -> Option<Word> {
        let is_right = match self.mutant {
            Mutant::NoSecondLook => true,
            Mutant::LooksForHoldAlone => now != Word::Hold,
            _ if saw == Word::Watch => matches!(now, Word::Watch | Word::Off),
            _ => now == saw,
        };
        is_right.then_some(saw)
    }

    fn hook(&self, state: &State, cpu: usize, out: &mut Vec<(&'static str, State)>) {
        let mut s = *state;
        s.hooks[cpu] = Hook::Idle;
        match state.hooks[cpu] {
            Hook::Idle => return self.arrivals(state, cpu, out),
            Hook::Note(saw, packet) if self.mutant == Mutant::LookBeforeNote => {
                if self.second_look(saw, state.word).is_some() {
                    s.hooks[cpu] = Hook::NoteLate(saw, packet);
                }
            }
            Hook::Note(saw, packet) => {
                s.noted = s.noted.max(packet);
                s.hooks[cpu] = Hook::Look(saw, packet);
            }
            Hook::NoteLate(saw, packet) => {
                s.noted = s.noted.max(packet);
                return Self::send_on(s, saw, packet, out);
            }
            Hook::Look(saw, packet) => match self.second_look(saw, state.word) {
                Some(saw) => return Self::send_on(s, saw, packet, out),
                None => return out.push(("it looks again: dropped", s)),
            },
        }
        out.push(("the program goes on", s));
    }

    /// A packet comes in, new or once more, and the program looks at the word.
    fn arrivals(&self, state: &State, cpu: usize, out: &mut Vec<(&'static str, State)>) {
        let is_busy = state.under_way != 0 || state.hooks != [Hook::Idle; 2];
        if self.one_cpu && is_busy {
            return;
        }
        // An acknowledgement may be late: what S repeats was perhaps received already.
        for packet in state.done.max(1)..=(state.sent + 1).min(self.packets) {
            let mut s = *state;
            s.sent = s.sent.max(packet);
            match state.word {
                Word::Off => Self::send_on(s, Word::Off, packet, out),
                Word::Hold => {}
                saw => {
                    s.hooks[cpu] = Hook::Note(saw, packet);
                    out.push(("a packet comes", s));
                }
            }
        }
    }

    fn send_on(mut s: State, saw: Word, packet: u8, out: &mut Vec<(&'static str, State)>) {
        if saw != Word::Forward {
            s.under_way |= bit(packet);
            return out.push(("passed to the stack", s));
        }
        out.push(("translated, but lost behind us", s));
        if s.is_back && packet > in_order(s.got) {
            s.fault = Some("bypassed");
        }
        s.has |= bit(packet);
        out.push(("translated", s));
    }

    /// The next step of user space, if it can take one.
    fn user(&self, state: &State) -> Option<State> {
        let mut s = *state;
        let fenced = state.is_fenced() || self.mutant == Mutant::NoFence;
        s.user = match state.user {
            User::Enlist => {
                s.store(Word::Watch);
                User::Hold
            }
            User::Hold => {
                let seen = state.noted != 0 || self.mutant == Mutant::UnseenIsQuiet;
                if !seen || !state.is_fenced() {
                    return None;
                }
                s.store(Word::Hold);
                User::HoldFence
            }
            User::HoldFence => fenced.then_some(User::Freeze)?,
            User::Freeze => {
                s.frozen = true;
                User::ReadSocket
            }
            User::ReadSocket => {
                s.read_socket = in_order(state.got);
                let whole = state.got == (1 << in_order(state.got)) - 1;
                s.read_quiet = whole && (!state.unread || self.mutant == Mutant::UnreadIsQuiet);
                User::ReadNoted
            }
            User::ReadNoted => {
                s.read_noted = state.noted;
                User::Decide
            }
            User::Decide => {
                let seen = state.read_noted != 0 || self.mutant != Mutant::UnseenIsQuiet;
                let same = !seen || state.read_noted == state.read_socket;
                let same = same || self.mutant == Mutant::NoComparison;
                if same && state.read_quiet { User::Prepare } else { User::Undo }
            }
            User::Undo => {
                s.frozen = false;
                s.relay();
                s.tries += 1;
                s.store(if s.tries < 2 { Word::Watch } else { Word::Off });
                if s.tries < 2 { User::Hold } else { User::Done }
            }
            User::Prepare => {
                s.noted = state.read_socket;
                s.acked = state.read_socket;
                User::Forward
            }
            User::Forward => {
                if !state.is_fenced() {
                    return None;
                }
                if (state.under_way | state.got) >> state.read_socket != 0 {
                    s.fault = Some("missing");
                }
                s.store(Word::Forward);
                User::Translated
            }
            User::Translated => {
                if !state.is_fenced() || !state.is_quiet() {
                    return None;
                }
                if self.mutant != Mutant::BackWithoutHold {
                    s.store(Word::Hold);
                }
                User::BackFence
            }
            User::BackFence => fenced.then_some(User::BackCheck)?,
            User::BackCheck => {
                s.read_noted = state.noted;
                if state.is_quiet() || self.mutant == Mutant::BackUnchecked {
                    User::Revive
                } else {
                    s.store(Word::Forward);
                    User::Translated
                }
            }
            User::Revive => {
                let again = self.mutant == Mutant::RevivedFromLaterNotes;
                let noted = if again { state.noted } else { state.read_noted };
                s.revived = (1 << noted) - 1;
                s.got |= s.revived;
                s.frozen = false;
                s.is_back = true;
                User::Leave
            }
            User::Leave => {
                s.store(Word::Off);
                User::Done
            }
            User::Done => return None,
        };
        Some(s)
    }
}

impl Model for Switch {
    type State = State;
    type Step = &'static str;

    fn initial(&self) -> State {
        State {
            word: if self.early { Word::Off } else { Word::Watch },
            stores: [None; 2],
            noted: 0,
            acked: 0,
            hooks: [Hook::Idle; 2],
            sent: 0,
            done: 0,
            under_way: 0,
            got: 0,
            unread: false,
            frozen: false,
            revived: 0,
            has: 0,
            user: if self.early { User::Enlist } else { User::Hold },
            tries: 0,
            read_socket: 0,
            read_quiet: false,
            read_noted: 0,
            is_back: false,
            fault: None,
        }
    }

    fn successors(&self, state: &State, out: &mut Vec<(&'static str, State)>) {
        for cpu in 0..2 {
            self.hook(state, cpu, out);
        }
        for packet in (1..=self.packets).filter(|packet| state.under_way & bit(*packet) != 0) {
            let mut s = *state;
            s.deliver(packet);
            out.push(("delivered to the socket", s));
        }
        if let Some(word) = state.stores[0] {
            let mut s = *state;
            s.word = word;
            s.stores = [state.stores[1], None];
            out.push(("user space's store becomes visible", s));
        }
        if state.word == Word::Forward && in_order(state.has) > state.acked {
            let mut s = *state;
            s.acked = in_order(s.has);
            s.done = s.done.max(s.acked);
            out.push(("T's acknowledgement comes by", s));
        }
        out.extend(self.user(state).map(|s| ("user space", s)));
    }

    fn invariant(&self, state: &State) -> Result<(), &'static str> {
        state.fault.map_or(Ok(()), Err)
    }

    fn is_final_ok(&self, state: &State) -> bool {
        state.has == (1 << self.packets) - 1 && matches!(state.user, User::Done | User::Hold)
    }
}
