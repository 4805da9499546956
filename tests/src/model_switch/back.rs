//! The way back to the sockets.

use super::{Mutant, Side, State, Switch, User, Word, up_to};

impl Switch {
    /// The next step of user space from the packet path on, if it can take one.
    pub(super) fn come_back(&self, state: &State) -> Option<State> {
        let mut s = *state;
        let quiet = state.sides.iter().all(Side::is_quiet);
        s.user = match state.user {
            User::Translated if !quiet => return None,
            User::Translated if self.is(Mutant::NoFence) => User::Snapshot(0),
            User::Translated => User::Hold(0),
            User::Hold(d) => {
                if !self.is(Mutant::BackWithoutHold) {
                    s.sides[d].word = Word::Hold;
                }
                match d {
                    0 => User::Hold(1),
                    _ if self.is(Mutant::NoFence) => User::Check,
                    _ => User::Snapshot(0),
                }
            }
            User::Snapshot(d) => {
                // A record has what its side sent, and what that side acknowledged of the other's.
                s.sides[d].snapshot.0 = state.sides[d].noted;
                s.sides[1 - d].snapshot.1 = state.sides[1 - d].acked;
                match d {
                    0 => User::Snapshot(1),
                    _ if self.is(Mutant::NoFence) => User::Hold(0),
                    _ => User::Check,
                }
            }
            User::Check => {
                let same = state.sides.iter().all(|side| side.snapshot.0 == side.snapshot.1);
                if same || self.is(Mutant::BackUnchecked) {
                    User::Revive
                } else {
                    s.words(Word::Forward);
                    s.sides.iter_mut().for_each(|side| side.snapshot = (0, 0));
                    User::Translated
                }
            }
            User::Revive => {
                for side in &mut s.sides {
                    let again = self.is(Mutant::RevivedFromLaterNotes);
                    let noted = if again { side.noted } else { side.snapshot.0 };
                    if side.has >> noted != 0 {
                        s.fault = Some("bypassed");
                    } else if up_to(noted) & !side.has != 0 {
                        s.fault = Some("invented");
                    }
                    side.revived = noted;
                    side.got |= up_to(noted);
                    (side.relayed, side.cleared) = (noted, noted);
                    side.frozen = false;
                }
                s.lives = true;
                User::Leave
            }
            User::Leave => {
                s.words(Word::Off);
                for side in &mut s.sides {
                    side.relay(self.lossy);
                    (side.noted, side.acked, side.snapshot) = (0, 0, (0, 0));
                }
                User::Done
            }
            _ => return None,
        };
        Some(s)
    }
}
