//! What we want to reach, and whether this run did.

use super::{
    group::{self, Figure, Group, NGINX},
    stats::{self, Rounds, Spread, spread},
};
use crate::results::Run;

/// One line of the table.
#[derive(Debug)]
pub struct Target {
    /// What is compared.
    pub what: String,
    /// The bound, and whether the figure has to stay below it (or above).
    pub bound: f64,
    /// Lower is better.
    pub at_most: bool,
    /// By contender of ours.
    pub measured: Vec<(&'static str, Option<Spread>)>,
}

const ROUTED: &str = "routed";
/// The paths that are meant to win, pure and as the program comes.
const KERNEL: [&str; 2] = ["sockmap", "auto"];

/// All of them.
#[must_use]
pub fn all(run: &Run) -> Vec<Target> {
    let mut targets = Vec::new();
    let mut add = |scenario: &str,
                   what: &str,
                   bound: f64,
                   at_most: bool,
                   ours: &[&'static str],
                   compare: &dyn Fn(&Group<'_>, &str) -> Rounds| {
        let group = Group::find(run, ROUTED, scenario);
        let of = |name: &&'static str| {
            (*name, group.as_ref().and_then(|group| spread(&compare(group, name))))
        };
        let measured = ours.iter().map(of).collect();
        targets.push(Target { what: format!("{scenario}: {what}"), bound, at_most, measured });
    };
    let cpu = "CPU added over direct, by the better nginx's";
    let added_cpu = |group: &Group<'_>, name: &str| group.added_cpu_ratio(name);
    for (scenario, bound) in [
        ("echo-64B-64", 1.0),
        ("echo-1KiB-64", 1.0),
        ("echo-16KiB-64", 0.8),
        ("echo-256KiB-64", 0.8),
    ] {
        add(scenario, cpu, bound, true, &KERNEL, &added_cpu);
    }
    for scenario in ["stream-down-64KiB-4", "stream-up-64KiB-4", "stream-down-1KiB-4"] {
        add(scenario, cpu, 0.5, true, &KERNEL, &added_cpu);
    }
    for payload in ["64B", "1KiB", "16KiB", "256KiB"] {
        for sessions in ["1", "64", "1000"] {
            let against = |group: &Group<'_>, name: &str| {
                against_nginx(group, name, group::rate, false, false)
            };
            let scenario = format!("echo-{payload}-{sessions}");
            add(&scenario, "throughput, by the better nginx's", 0.95, false, &["relay"], &against);
        }
    }
    let p50 = |group: &Group<'_>, name: &str| against_nginx(group, name, group::p50, true, true);
    add("echo-64B-1", "p50 added over direct, by the better nginx's", 0.8, true, &KERNEL, &p50);
    let memory =
        |group: &Group<'_>, name: &str| against_nginx(group, name, group::user_memory, true, false);
    let bound = 1.0 / 30.0;
    add("idle", "user-space memory of a session, by nginx's", bound, true, &KERNEL, &memory);
    let p99 = |group: &Group<'_>, name: &str| against_nginx(group, name, group::p99, true, false);
    add("broadcast-128B-1000", "p99, by the better nginx's", 1.0, true, &KERNEL, &p99);
    let per_cpu = |group: &Group<'_>, name: &str| {
        let Some((nginx, _)) = group.best(&NGINX, true, |n| group.added(n, group::cpu)) else {
            return Vec::new();
        };
        stats::ratio(&group.added(nginx, group::cpu), &group.added(name, group::cpu))
    };
    let what = "handshakes per second of CPU added over direct, by the better nginx's";
    add("handshake", what, 1.5, false, &["sockmap", "auto", "relay"], &per_cpu);
    targets
}

fn against_nginx(
    group: &Group<'_>,
    ours: &str,
    figure: Figure,
    least: bool,
    added: bool,
) -> Rounds {
    let rounds = |name: &str| {
        if added { group.added(name, figure) } else { group.rounds(name, figure) }
    };
    let Some((nginx, _)) = group.best(&NGINX, least, rounds) else { return Vec::new() };
    stats::ratio(&rounds(ours), &rounds(nginx))
}

impl Target {
    /// Whether a figure is within the bound.
    #[must_use]
    pub fn is_reached(&self, spread: Spread) -> bool {
        if self.at_most { spread.median <= self.bound } else { spread.median >= self.bound }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_target_is_judged_by_the_median() {
        let costs = [("direct", 8.0), ("nginx", 12.0), ("sockmap", 16.0), ("auto", 11.0)];
        let run = group::tests::run(&costs);
        let all = all(&run);
        let echo = &all[0];
        let judged: Vec<_> = echo
            .measured
            .iter()
            .map(|(name, spread)| (*name, spread.map(|s| (s.median, echo.is_reached(s)))))
            .collect();
        assert_eq!(judged, [("sockmap", Some((2.0, false))), ("auto", Some((0.75, true)))]);
        assert!(all[1].measured.iter().all(|(_, spread)| spread.is_none()), "not measured");
    }
}
