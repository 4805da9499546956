//! What happens to a packet: a function of the seed and of the packet's number alone.

use crate::maps::{Setting, setting};

/// What happens to a packet.
pub enum Fate {
    Pass,
    Drop,
    Duplicate,
    Hold,
}

/// Draws the fate of the `number`th packet.
#[inline(always)]
pub fn draw(number: u64) -> Fate {
    let random = mix(setting(Setting::Seed).wrapping_add(number.wrapping_mul(GOLDEN))) >> 32;
    if random < setting(Setting::Drop) {
        Fate::Drop
    } else if random < setting(Setting::Duplicate) {
        Fate::Duplicate
    } else if random < setting(Setting::Hold) {
        Fate::Hold
    } else {
        Fate::Pass
    }
}

const GOLDEN: u64 = 0x9e37_79b9_7f4a_7c15;

/// splitmix64's output function.
#[inline(always)]
fn mix(state: u64) -> u64 {
    let z = state.wrapping_add(GOLDEN);
    let z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}
