//! When a session that was not quiet is looked at again.

/// Runs of the lanes until the next look, by the tries that were in vain; the last one for good.
///
/// Peers that take turns are quiet behind one message and not behind another, whose answer comes
/// quicker than both sockets can be frozen: on a slow or a busy machine always. Pauses that are
/// multiples of the turns would find the same message for ever, as powers of two did. A machine may be
/// busy with other things for a second: the later pauses are long enough for a session of 20,000
/// messages a second not to have used up its tries by then.
const PAUSES: [u32; 8] = [1, 3, 7, 13, 29, 61, 127, 251];

/// Runs of the lanes until the next look at a session that was not quiet in so many tries.
pub(super) fn pause(tries: u32) -> u32 {
    let at = (tries.max(1) as usize).min(PAUSES.len()) - 1;
    PAUSES[at]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whatever_the_turns_the_quiet_one_is_found() {
        const TRIES: u32 = 30;
        for turns in 2..=24 {
            for quiet in 0..turns {
                let mut run = 0;
                let found = (1..=TRIES).any(|tries| {
                    run += pause(tries);
                    run % turns == quiet
                });
                assert!(found, "turn {quiet} of {turns}");
            }
        }
    }
}
