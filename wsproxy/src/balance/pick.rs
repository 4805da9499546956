//! How each method picks among the servers that are ready. Every function
//! passes over the servers once or a few times and allocates nothing.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use super::hash::{GOLDEN, ln, mix, unit};
use super::server::{Admin, FailPolicy, Server};
use super::types::Request;

/// A server with what the configuration says about it.
#[derive(Debug)]
pub(super) struct Member {
    pub(super) server: Arc<Server>,
    pub(super) weight: u32,
    pub(super) backup: bool,
    pub(super) max_connections: Option<u32>,
    /// As configured: a reload that changes it changes the server's state.
    pub(super) disabled: bool,
}

impl Member {
    pub(super) fn limit(&self) -> u32 {
        self.max_connections.unwrap_or(u32::MAX)
    }
}

/// Whether a server may get a request, the best last.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Fitness {
    Unusable,
    /// Usable, but at `max_connections`.
    Full,
    Ready,
}

/// The group's settings that every method looks at.
#[derive(Debug, Clone, Copy)]
pub(super) struct Rules {
    pub(super) policy: FailPolicy,
    pub(super) slow_start: Option<Duration>,
}

/// Smooth weighted round robin: what each server is ahead of its share.
pub(super) type Turns = Mutex<Vec<i64>>;

/// Whether `member` may get the request; a sticky client's request also when
/// the server drains.
pub(super) fn fitness(
    member: &Member,
    request: &Request<'_>,
    rules: Rules,
    sticky: bool,
) -> Fitness {
    let server = &member.server;
    let wanted = match server.admin() {
        Admin::Enabled => true,
        Admin::Draining => sticky,
        Admin::Disabled => false,
    };
    let usable = wanted
        && server.is_healthy()
        && server.out_for(request.now, rules.policy).is_none()
        && !request.tried.contains(&server.id);
    match usable {
        false => Fitness::Unusable,
        true if server.live() >= member.limit() => Fitness::Full,
        true => Fitness::Ready,
    }
}

/// The servers to pick from: the primary ones, or the backups.
#[derive(Debug, Clone, Copy)]
pub(super) struct Tier<'a> {
    pub(super) members: &'a [Member],
    /// The index of the first one in the group.
    pub(super) first: usize,
    pub(super) request: &'a Request<'a>,
    pub(super) rules: Rules,
}

impl<'a> Tier<'a> {
    fn fitness(&self, member: &Member) -> Fitness {
        fitness(member, self.request, self.rules, false)
    }

    /// The best that can be said of its servers.
    pub(super) fn best(&self) -> Fitness {
        let all = self.members.iter().map(|member| self.fitness(member));
        all.max().unwrap_or(Fitness::Unusable)
    }

    /// The members that are ready, with their index in the group.
    fn ready(self) -> impl Iterator<Item = (usize, &'a Member)> {
        (self.first..)
            .zip(self.members)
            .filter(move |(_, member)| self.fitness(member) == Fitness::Ready)
    }

    /// The weight that counts by now, in thousandths and at least 1.
    fn weight(&self, member: &Member) -> u64 {
        let share = member.server.share(self.request.now, self.rules.slow_start);
        u64::from(member.weight) * share
    }

    /// Live connections for its weight, to be compared by [`less_loaded`].
    fn load(&self, member: &Member) -> Load {
        Load { live: u64::from(member.server.live()), weight: self.weight(member) }
    }
}

/// See [`Tier::load`]. 32 bits times 20: the products fit.
#[derive(Debug, Clone, Copy)]
struct Load {
    live: u64,
    weight: u64,
}

fn less_loaded(one: Load, other: Load) -> bool {
    one.live * other.weight < other.live * one.weight
}

/// Smooth weighted round robin.
pub(super) fn round_robin(tier: Tier<'_>, turns: &Turns) -> Option<usize> {
    let ready = tier.ready().map(|(index, member)| (index, tier.weight(member)));
    take_turns(ready, turns)
}

/// All of `servers` come nearer to their turn by their weight, the nearest one
/// gets it and steps back by the weight of all.
fn take_turns(servers: impl Iterator<Item = (usize, u64)>, turns: &Turns) -> Option<usize> {
    // Whatever the numbers are, the next rounds even them out.
    let mut turns = turns.lock().unwrap_or_else(PoisonError::into_inner);
    let mut total = 0;
    let mut best: Option<(usize, i64)> = None;
    for (index, weight) in servers {
        let weight = i64::try_from(weight).unwrap_or(i64::MAX);
        let Some(turn) = turns.get_mut(index) else { continue };
        *turn = turn.saturating_add(weight);
        total += weight;
        if best.is_none_or(|(_, most)| *turn > most) {
            best = Some((index, *turn));
        }
    }
    let (index, _) = best?;
    if let Some(turn) = turns.get_mut(index) {
        *turn = turn.saturating_sub(total);
    }
    Some(index)
}

/// The fewest live connections for the weight; among equals round robin.
pub(super) fn least_connections(tier: Tier<'_>, turns: &Turns) -> Option<usize> {
    let mut least: Option<(usize, Load)> = None;
    let mut ties = 0;
    for (index, member) in tier.ready() {
        let load = tier.load(member);
        match least {
            Some((_, best)) if less_loaded(best, load) => {}
            Some((_, best)) if !less_loaded(load, best) => ties += 1,
            _ => {
                least = Some((index, load));
                ties = 0;
            }
        }
    }
    let (index, best) = least?;
    if ties == 0 {
        return Some(index);
    }
    let equals = tier
        .ready()
        .filter(|(_, member)| !less_loaded(best, tier.load(member)))
        .map(|(index, member)| (index, tier.weight(member)));
    // Connections of other threads may have made all of them busier since.
    take_turns(equals, turns).or(Some(index))
}

/// The less loaded of two servers drawn by weight.
pub(super) fn best_of_two(tier: Tier<'_>, random: &AtomicU64) -> Option<usize> {
    let (first, one) = draw(tier, random, None)?;
    let Some((second, other)) = draw(tier, random, Some(first)) else { return Some(first) };
    Some(if less_loaded(tier.load(other), tier.load(one)) { second } else { first })
}

fn draw<'a>(
    tier: Tier<'a>,
    random: &AtomicU64,
    except: Option<usize>,
) -> Option<(usize, &'a Member)> {
    let field = || tier.ready().filter(|(index, _)| Some(*index) != except);
    let total: u64 = field().map(|(_, member)| tier.weight(member)).sum();
    let mut rest = below(total, splitmix(random));
    let mut last = None;
    for (index, member) in field() {
        let weight = tier.weight(member);
        if rest < weight {
            return Some((index, member));
        }
        rest -= weight;
        last = Some((index, member));
    }
    // Only when another thread changed the field in between.
    last
}

/// The next number of splitmix64: one atomic addition.
fn splitmix(state: &AtomicU64) -> u64 {
    mix(state.fetch_add(GOLDEN, Relaxed).wrapping_add(GOLDEN))
}

/// A number below `bound`, evenly spread to within `bound` / 2^64.
fn below(bound: u64, random: u64) -> u64 {
    u64::try_from((u128::from(bound) * u128::from(random)) >> 64).unwrap_or(0)
}

/// Weighted rendezvous hashing: the server with the least -ln(u) / weight,
/// where u in (0, 1) is the hash of the key and the server. It looks at the
/// configured weight only: a gateway that saw a server come back earlier must
/// not choose otherwise.
pub(super) fn rendezvous(tier: Tier<'_>, key: u64) -> Option<usize> {
    /// Covers the rounding of the shortcut below.
    const SAFE: f64 = 1.0 - 1e-6;
    let key = mix(key);
    let mut best: Option<(f64, usize, &Member)> = None;
    for (index, member) in (tier.first..).zip(tier.members) {
        let spread = unit(mix(key ^ member.server.id.0));
        let weight = f64::from(member.weight);
        // 1 - u is never more than -ln(u): most servers need no logarithm.
        if best.is_some_and(|(least, ..)| (1.0 - spread) * SAFE > least * weight) {
            continue;
        }
        let cost = -ln(spread) / weight;
        let wins = best
            .is_none_or(|(least, _, other)| (cost, member.server.id) < (least, other.server.id));
        if wins && tier.fitness(member) == Fitness::Ready {
            best = Some((cost, index, member));
        }
    }
    best.map(|(_, index, _)| index)
}
