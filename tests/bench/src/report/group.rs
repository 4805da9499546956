//! All contenders of one scenario in one topology, and what is derived from them.

use super::stats::{self, Rounds};
use crate::results::{Cell, Figures, Run};

/// The baseline.
pub const DIRECT: &str = "direct";
/// nginx as packaged and with larger buffers.
pub const NGINX: [&str; 2] = ["nginx", "nginx-64k"];
/// Everybody else's.
pub const PEERS: [&str; 4] = ["nginx", "nginx-64k", "haproxy", "haproxy-splice"];

/// What was measured beside each other.
#[derive(Debug)]
pub struct Group<'a> {
    /// Name of the topology.
    pub topology: &'a str,
    /// Name of the scenario.
    pub scenario: &'a str,
    /// One of each contender.
    pub cells: Vec<&'a Cell>,
}

/// A figure of one measurement.
pub type Figure = fn(&Figures) -> Option<f64>;

/// Messages per second.
pub fn rate(figures: &Figures) -> Option<f64> {
    (figures.seconds > 0.0).then(|| figures.messages as f64 / figures.seconds)
}

/// Payload per second, in MB.
pub fn megabytes(figures: &Figures) -> Option<f64> {
    (figures.seconds > 0.0 && figures.bytes > 0)
        .then(|| figures.bytes as f64 / figures.seconds / 1e6)
}

/// CPU time of the whole machine for one message, in us.
pub fn cpu(figures: &Figures) -> Option<f64> {
    // Where the CPUs are kept awake nothing is known of it.
    (figures.messages > 0 && figures.cpu_seconds > 0.0)
        .then(|| figures.cpu_seconds * 1e6 / figures.messages as f64)
}

/// Median latency, in us.
pub fn p50(figures: &Figures) -> Option<f64> {
    figures.latency.map(|latency| latency.p50)
}

/// 99th percentile of the latency, in us.
pub fn p99(figures: &Figures) -> Option<f64> {
    figures.latency.map(|latency| latency.p99)
}

/// 99.9th percentile of the latency, in us.
pub fn p999(figures: &Figures) -> Option<f64> {
    figures.latency.map(|latency| latency.p999)
}

/// Memory of the contender's processes for one session, in KiB.
pub fn user_memory(figures: &Figures) -> Option<f64> {
    figures.memory.map(|memory| memory.user_kib / memory.sessions.max(1) as f64)
}

/// Memory of the kernel for one session, in KiB.
pub fn kernel_memory(figures: &Figures) -> Option<f64> {
    figures.memory.map(|memory| memory.kernel_kib / memory.sessions.max(1) as f64)
}

/// Slab of the kernel for one session, in KiB.
pub fn slab(figures: &Figures) -> Option<f64> {
    figures.memory.map(|memory| memory.slab_kib / memory.sessions.max(1) as f64)
}

/// Share of wsproxy's bytes that the kernel carried, in percent.
pub fn kernel_share(figures: &Figures) -> Option<f64> {
    figures.kernel_share.map(|share| share * 100.0)
}

impl<'a> Group<'a> {
    /// The groups of a run, in its order.
    #[must_use]
    pub fn all(run: &'a Run) -> Vec<Self> {
        let mut groups: Vec<Self> = Vec::new();
        for cell in &run.cells {
            let (topology, scenario) = (cell.topology.as_str(), cell.scenario.as_str());
            match groups.iter_mut().find(|g| (g.topology, g.scenario) == (topology, scenario)) {
                Some(group) => group.cells.push(cell),
                None => groups.push(Self { topology, scenario, cells: vec![cell] }),
            }
        }
        groups
    }

    /// The group of that name.
    #[must_use]
    pub fn find(run: &'a Run, topology: &str, scenario: &str) -> Option<Self> {
        let is = |group: &Self| group.topology == topology && group.scenario == scenario;
        Self::all(run).into_iter().find(is)
    }

    /// A figure of a contender in each round.
    #[must_use]
    pub fn rounds(&self, contender: &str, figure: Figure) -> Rounds {
        let cell = self.cells.iter().find(|cell| cell.contender == contender);
        let rounds = cell.map_or(&[] as &[Figures], |cell| &cell.rounds);
        rounds.iter().filter_map(|f| Some((f.round, figure(f)?))).collect()
    }

    /// The part of a figure that the contender adds to what there is without a proxy.
    #[must_use]
    pub fn added(&self, contender: &str, figure: Figure) -> Rounds {
        let direct = self.rounds(DIRECT, figure);
        stats::difference(&self.rounds(contender, figure), &direct)
    }

    /// Of some contenders the one whose median is the least (or the most).
    #[must_use]
    pub fn best(
        &self,
        of: &[&'static str],
        least: bool,
        rounds: impl Fn(&str) -> Rounds,
    ) -> Option<(&'static str, f64)> {
        let median = |name: &&'static str| Some((*name, stats::spread(&rounds(name))?.median));
        let sign = if least { 1.0 } else { -1.0 };
        of.iter().filter_map(median).min_by(|a, b| (a.1 * sign).total_cmp(&(b.1 * sign)))
    }

    /// CPU added over direct, by that of the better nginx.
    #[must_use]
    pub fn added_cpu_ratio(&self, contender: &str) -> Rounds {
        let added = |name: &str| self.added(name, cpu);
        let Some((nginx, _)) = self.best(&NGINX, true, added) else { return Vec::new() };
        stats::ratio(&added(contender), &added(nginx))
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    /// A run of two rounds in which a message costs this much CPU, in us.
    pub fn run(costs: &[(&str, f64)]) -> Run {
        let cell = |(name, us): &(&str, f64)| {
            let round = |round: u32| Figures {
                round,
                seconds: 2.0,
                messages: 1000,
                bytes: 64_000,
                cpu_seconds: us * (1.0 + f64::from(round)) / 1000.0,
                ..Figures::default()
            };
            Cell {
                topology: "routed".into(),
                scenario: "echo-64B-64".into(),
                contender: (*name).into(),
                rounds: vec![round(0), round(1)],
                failures: Vec::new(),
            }
        };
        Run { cells: costs.iter().map(cell).collect(), ..Run::default() }
    }

    #[test]
    fn the_added_part_is_compared_with_the_better_nginx() {
        let run = run(&[("direct", 8.0), ("nginx", 13.0), ("nginx-64k", 12.0), ("auto", 10.0)]);
        let group = Group::find(&run, "routed", "echo-64B-64").expect("it is there");
        assert_eq!(group.added("auto", cpu), [(0, 2.0), (1, 4.0)]);
        assert_eq!(group.added_cpu_ratio("auto"), [(0, 0.5), (1, 0.5)]);
        assert!(group.added_cpu_ratio("haproxy").is_empty());
    }

    #[test]
    fn without_a_baseline_nothing_is_added() {
        let run = run(&[("nginx", 13.0), ("auto", 10.0)]);
        assert!(Group::all(&run)[0].added_cpu_ratio("auto").is_empty());
    }
}
