//! Where somebody else is better than wsproxy as it comes, worst first.

use super::{
    group::{self, Figure, Group, PEERS},
    stats::spread,
};
use crate::results::Run;

/// Differences below this are noise on any machine.
const NOTEWORTHY: f64 = 1.03;
/// wsproxy as it comes.
const OURS: &str = "auto";

/// A figure in which a peer is better.
#[derive(Debug)]
pub struct Loss {
    /// `topology scenario`.
    pub place: String,
    /// What was compared.
    pub what: &'static str,
    /// Ours, the median.
    pub ours: f64,
    /// The peer.
    pub peer: &'static str,
    /// Its median.
    pub theirs: f64,
    /// How many times worse ours is.
    pub times: f64,
    /// The rounds of both overlap: it may be noise.
    pub doubtful: bool,
}

/// A name, the figure, and whether less of it is better.
const COMPARED: [(&str, Figure, bool); 6] = [
    ("messages/s", group::rate, false),
    ("CPU us/message", group::cpu, true),
    ("p50 us", group::p50, true),
    ("p99 us", group::p99, true),
    ("user KiB/session", group::user_memory, true),
    ("kernel KiB/session", group::kernel_memory, true),
];

/// All of them.
#[must_use]
pub fn all(run: &Run) -> Vec<Loss> {
    let mut losses: Vec<Loss> = Group::all(run).iter().flat_map(of_group).collect();
    losses.sort_by(|a, b| b.times.total_cmp(&a.times));
    losses
}

fn of_group(group: &Group<'_>) -> Vec<Loss> {
    let compare = |(what, figure, least): &(&'static str, Figure, bool)| {
        let ours = spread(&group.rounds(OURS, *figure))?;
        let (peer, theirs) = group.best(&PEERS, *least, |name| group.rounds(name, *figure))?;
        let peers = spread(&group.rounds(peer, *figure))?;
        if ours.median <= 0.0 || theirs <= 0.0 {
            return None;
        }
        let times = if *least { ours.median / theirs } else { theirs / ours.median };
        let overlap = ours.least <= peers.most && peers.least <= ours.most;
        (times > NOTEWORTHY).then(|| Loss {
            place: format!("{} {}", group.topology, group.scenario),
            what,
            ours: ours.median,
            peer,
            theirs,
            times,
            doubtful: overlap,
        })
    };
    // At a fixed rate the throughput says nothing.
    let fixed = ["open-", "broadcast-"].iter().any(|kind| group.scenario.starts_with(kind));
    COMPARED
        .iter()
        .filter(|(what, ..)| !(fixed && *what == "messages/s"))
        .filter_map(compare)
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_peer_does_better_is_told_worst_first() {
        let costs = [("direct", 8.0), ("nginx", 12.0), ("haproxy", 11.0), ("auto", 22.0)];
        let run = group::tests::run(&costs);
        let all = all(&run);
        assert_eq!(all.len(), 1, "{all:?}");
        assert_eq!((all[0].peer, all[0].what, all[0].times), ("haproxy", "CPU us/message", 2.0));
        let costs = [("nginx", 12.0), ("auto", 11.0)];
        assert!(super::all(&group::tests::run(&costs)).is_empty());
    }
}
