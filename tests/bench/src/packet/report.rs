//! The packet path's run as Markdown.

use std::fmt::Write as _;

use super::{LOSSY, LOSSY_LOAD, Measured, SCENARIOS, memory::Idle, sessions, strays};
use crate::{
    contender::Kind,
    report::{
        group::{self, DIRECT, Figure, Group},
        markdown::{number, spread_text},
        stats::{self, Rounds, Spread, spread},
    },
    results::Run,
    scenario::Scenario,
};

/// Ours; with frames followed first.
const OURS: [Kind; 2] = [Kind::Packet, Kind::PacketNoFrames];
/// Bytes of an idle session.
const MEMORY: f64 = 512.0;

/// One line of the table of targets.
struct Row {
    place: &'static str,
    what: String,
    at_most: bool,
    bound: f64,
    measured: [Option<Spread>; 2],
}

type Compare = fn(&Group<'_>, &str) -> Rounds;

fn share_of_direct(group: &Group<'_>, name: &str) -> Rounds {
    stats::ratio(&group.rounds(name, group::rate), &group.rounds(DIRECT, group::rate))
}

fn cpu_added(group: &Group<'_>, name: &str) -> Rounds {
    group.added_cpu_ratio(name)
}

fn p50_added(group: &Group<'_>, name: &str) -> Rounds {
    group.added(name, group::p50)
}

/// What issue 6 promises: what is compared, how, at most or at least, how much.
fn promises(place: &str, scenario: &Scenario) -> Vec<(&'static str, Compare, bool, f64)> {
    const SHARE: &str = "throughput, share of direct";
    const CPU: &str = "CPU added per message, by the better nginx's";
    match *scenario {
        _ if place == LOSSY => vec![(SHARE, share_of_direct, false, 0.95)],
        Scenario::Echo(_, 1) => vec![("p50 added over direct, us", p50_added, true, 2.0)],
        Scenario::Echo(payload, _) => {
            let share = if payload > 1 << 10 { 0.9 } else { 0.95 };
            vec![(SHARE, share_of_direct, false, share), (CPU, cpu_added, true, 0.1)]
        }
        _ => Vec::new(),
    }
}

fn rows(run: &Run) -> Vec<Row> {
    let mut rows = Vec::new();
    let ordinary = ["routed", "local-server", "loopback"];
    let pairs = ordinary.iter().flat_map(|place| SCENARIOS.iter().map(move |s| (*place, s)));
    for (place, scenario) in pairs.chain([(LOSSY, &LOSSY_LOAD)]) {
        let Some(group) = Group::find(run, place, &scenario.name()) else { continue };
        for (what, compare, at_most, bound) in promises(place, scenario) {
            let measured = OURS.map(|kind| spread(&compare(&group, kind.name())));
            let what = format!("{}: {what}", scenario.name());
            rows.push(Row { place, what, at_most, bound, measured });
        }
    }
    rows
}

impl Row {
    fn text(&self) -> String {
        let sign = if self.at_most { "≤" } else { "≥" };
        let measured = self.measured.map(|spread| spread.map_or("-".into(), spread_text));
        let [packet, no_frames] = measured;
        let judged = self.measured[0].map_or("", |spread| {
            let good = if self.at_most {
                spread.median <= self.bound
            } else {
                spread.median >= self.bound
            };
            judged(good)
        });
        let Self { place, what, bound, .. } = self;
        format!("| {place} | {what} | {sign} {bound} | {packet} | {no_frames} | {judged} |")
    }
}

fn judged(good: bool) -> &'static str {
    if good { "reached" } else { "**not reached**" }
}

/// The whole text.
#[must_use]
pub fn document(measured: &Measured) -> String {
    let Measured { run, memory } = measured;
    let environment = &run.environment;
    let mut text = format!(
        "{} on {}, {}; TCP congestion control `{}`. {} rounds of {} s for each contender, \
         interleaved, each in namespaces of its own. Medians over the rounds of ratios and \
         differences within a round, in brackets the least and the most.\n\n",
        environment.date,
        environment.kernel,
        environment.cpu,
        environment.congestion_control,
        environment.rounds,
        environment.seconds
    );
    text +=
        "| where | what | wanted | `packet` | `packet-no-frames` | |\n|---|---|---|---|---|---|\n";
    for row in rows(run) {
        let _ = writeln!(text, "{}", row.text());
    }
    if let Some(idle) = memory {
        let (all, reached) = (idle.all(), judged(idle.all() < MEMORY));
        let what = "kernel memory of an idle session above its frozen sockets, bytes";
        let _ = writeln!(text, "| routed | {what} | < {MEMORY} | {all:.0} | same | {reached} |");
    }
    let strays = strays(run);
    if strays.is_empty() {
        text += "\nEvery session of `packet` and `packet-no-frames` was on the packet path in the \
                 middle of every measurement (`wsproxy_sessions`).\n";
    } else {
        let _ = writeln!(
            text,
            "\n**Sessions that were not on the packet path**, so that these figures are not about it:\n"
        );
        for stray in strays {
            let _ = writeln!(text, "- {stray}");
        }
    }
    if let Some(idle) = memory {
        text += &told(idle);
    }
    text + &everything(run)
}

fn told(idle: &Idle) -> String {
    let Idle { sessions, records, keys, buckets, shared } = idle;
    format!(
        "\nMemory: {records:.0} bytes of records (`FLOWS`, two directions; their size, computed), \
         {keys:.0} of keys (`KEYS`, `memlock` in `/proc/PID/fdinfo` with {sessions} idle sessions \
         less that with one, for each) and {buckets:.0} of the keys' empty map (`memlock`, by the \
         places there may be). Not in it: the two frozen sockets, and {shared:.0} bytes of records \
         that every place has whatever its path (`DIRECTIONS`, with the frame cursors).\n"
    )
}

/// Medians of everybody.
fn everything(run: &Run) -> String {
    let mut text = String::from(
        "\n| where | load | contender | per s | CPU us each | p50 us | on the packet path |\n\
         |---|---|---|---:|---:|---:|---:|\n",
    );
    let known = SCENARIOS.iter().chain([&LOSSY_LOAD]);
    for group in Group::all(run) {
        let all = known.clone().find(|s| s.name() == group.scenario).map_or(0, sessions);
        for cell in &group.cells {
            let name = cell.contender.as_str();
            let median = |figure: Figure| {
                let spread = spread(&group.rounds(name, figure));
                spread.map_or(String::new(), |spread| number(spread.median))
            };
            let (rate, cpu, p50) = (median(group::rate), median(group::cpu), median(group::p50));
            let least = cell.rounds.iter().filter_map(|figures| figures.on_packet_path).min();
            let path = least.map_or(String::new(), |least| format!("{least} of {all}"));
            let _ = writeln!(
                text,
                "| {} | {} | `{name}` | {rate} | {cpu} | {p50} | {path} |",
                group.topology, group.scenario
            );
        }
    }
    for cell in &run.cells {
        for failure in &cell.failures {
            let (place, scenario, who) = (&cell.topology, &cell.scenario, &cell.contender);
            let _ = writeln!(text, "\nFailed: {place} {scenario} `{who}` {failure}");
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::results::{Cell, Figures};

    fn cell(contender: &str, messages: u64, cpu_seconds: f64, on: Option<u64>) -> Cell {
        let figures = Figures {
            seconds: 1.0,
            messages,
            cpu_seconds,
            on_packet_path: on,
            ..Figures::default()
        };
        Cell {
            topology: "routed".into(),
            scenario: "echo-64B-64".into(),
            contender: contender.into(),
            rounds: vec![figures],
            ..Cell::default()
        }
    }

    fn measured(on: u64) -> Measured {
        let cells = vec![
            cell("direct", 1_000_000, 8.0, None),
            cell("nginx", 500_000, 8.0, None),
            cell("packet", 960_000, 8.448, Some(on)),
        ];
        let memory =
            Idle { sessions: 10, records: 304.0, keys: 192.0, buckets: 20.0, shared: 768.0 };
        Measured { run: Run { cells, ..Run::default() }, memory: Some(memory) }
    }

    #[test]
    fn figures_are_set_beside_what_was_promised() {
        let text = document(&measured(64));
        for line in [
            "share of direct | ≥ 0.95 | 0.96 (0.96 to 0.96) | - | reached |",
            // 8.8 us less 8 to 16 us less 8.
            "by the better nginx's | ≤ 0.1 | 0.10 (0.10 to 0.10) | - |",
            "| < 512 | 516 | same | **not reached** |",
            "| `packet` | 960000 | 8.80 |  | 64 of 64 |",
            "Every session of `packet`",
        ] {
            assert!(text.contains(line), "{line} in\n{text}");
        }
    }

    #[test]
    fn sessions_elsewhere_are_told() {
        let text = document(&measured(63));
        assert!(text.contains("- routed echo-64B-64 packet round 0: 63 of 64\n"), "{text}");
        assert!(!text.contains("Every session of `packet`"), "{text}");
    }
}
