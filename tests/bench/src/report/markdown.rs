//! A run as Markdown: what is lost first, then the targets, then everything.

use std::fmt::{self, Write as _};

use super::{
    group::{self, Figure, Group},
    losses,
    stats::{Rounds, Spread, spread},
    targets,
};
use crate::results::{Contender, Run};

/// Losses that are listed.
const LOSSES: usize = 40;

/// The whole document; `plots` are files beside it, with their captions.
#[must_use]
pub fn document(run: &Run, plots: &[(String, String)]) -> String {
    let mut text = String::new();
    // Writing to a string cannot fail.
    let _ = whole(&mut text, run, plots);
    text
}

fn whole(out: &mut String, run: &Run, plots: &[(String, String)]) -> fmt::Result {
    environment(out, run)?;
    writeln!(out, "## Where wsproxy loses\n")?;
    lost(out, run)?;
    writeln!(out, "\n## Targets\n")?;
    table_of_targets(out, run)?;
    for (file, caption) in plots {
        writeln!(out, "\n![{caption}]({file})")?;
    }
    writeln!(out, "\n## Everything\n")?;
    let mut topology = "";
    for group in Group::all(run) {
        if group.topology != topology {
            topology = group.topology;
            writeln!(out, "### Topology `{topology}`\n")?;
        }
        table(out, &group)?;
    }
    cross_check(out, run)?;
    appendix(out, run)
}

fn environment(out: &mut String, run: &Run) -> fmt::Result {
    let e = &run.environment;
    writeln!(
        out,
        "Run of {}, `{}`, {} MiB of memory, Linux `{}`.",
        e.date, e.cpu, e.memory_mib, e.kernel
    )?;
    writeln!(
        out,
        "{} rounds of {} s for each contender, interleaved; TCP congestion control `{}`.\n",
        e.rounds, e.seconds, e.congestion_control
    )?;
    writeln!(out, "Medians over the rounds, in brackets the least and the most.\n")
}

fn lost(out: &mut String, run: &Run) -> fmt::Result {
    let losses = losses::all(run);
    if losses.is_empty() {
        return writeln!(out, "Nowhere in this run.");
    }
    writeln!(
        out,
        "`auto`, wsproxy as it comes, against the best of nginx and HAProxy. \"in doubt\": the rounds of both overlap.\n"
    )?;
    writeln!(
        out,
        "| where | what | `auto` | best peer | times worse | |\n|---|---|---:|---:|---:|---|"
    )?;
    for loss in losses.iter().take(LOSSES) {
        let doubt = if loss.doubtful { "in doubt" } else { "" };
        writeln!(
            out,
            "| {} | {} | {} | {} (`{}`) | {:.2} | {doubt} |",
            loss.place,
            loss.what,
            number(loss.ours),
            number(loss.theirs),
            loss.peer,
            loss.times
        )?;
    }
    if losses.len() > LOSSES {
        writeln!(out, "\nand {} smaller ones.", losses.len() - LOSSES)?;
    }
    Ok(())
}

fn table_of_targets(out: &mut String, run: &Run) -> fmt::Result {
    writeln!(
        out,
        "`sockmap`: every session in the kernel from its first byte. `auto`: as it comes. Topology `routed`.\n"
    )?;
    writeln!(out, "| what | wanted | measured | |\n|---|---|---|---|")?;
    for target in targets::all(run) {
        let sign = if target.at_most { "≤" } else { "≥" };
        for (name, measured) in &target.measured {
            let (figure, verdict) = match measured {
                None => ("not measured".to_owned(), ""),
                Some(s) => (
                    spread_text(*s),
                    if target.is_reached(*s) { "reached" } else { "**not reached**" },
                ),
            };
            writeln!(
                out,
                "| `{name}`, {} | {sign} {:.2} | {figure} | {verdict} |",
                target.what, target.bound
            )?;
        }
    }
    Ok(())
}

/// A column: its title and what it shows of a contender.
type Column<'a> = (&'a str, Box<dyn Fn(&str) -> Rounds + 'a>);

fn table(out: &mut String, group: &Group<'_>) -> fmt::Result {
    let plain = |title, figure: Figure| -> Column<'_> {
        (title, Box::new(move |name: &str| group.rounds(name, figure)))
    };
    let mut columns = vec![
        plain("per s", group::rate),
        plain("MB/s", group::megabytes),
        plain("p50 us", group::p50),
        plain("p99 us", group::p99),
        plain("p99.9 us", group::p999),
        plain("CPU us each", group::cpu),
        ("added", Box::new(|name: &str| group.added(name, group::cpu))),
        ("by better nginx", Box::new(|name: &str| group.added_cpu_ratio(name))),
        plain("user KiB/session", group::user_memory),
        plain("kernel KiB/session", group::kernel_memory),
        plain("% in kernel", group::kernel_share),
    ];
    // What no contender has is no column.
    columns.retain(|(_, of)| group.cells.iter().any(|cell| !of(&cell.contender).is_empty()));
    writeln!(out, "**{}**\n", group.scenario)?;
    let titles: Vec<_> = columns.iter().map(|(title, _)| *title).collect();
    writeln!(out, "| | {} |", titles.join(" | "))?;
    writeln!(out, "|---|{}", "---:|".repeat(columns.len()))?;
    for cell in &group.cells {
        write!(out, "| `{}` |", cell.contender)?;
        for (title, of) in &columns {
            let text = match spread(&of(&cell.contender)) {
                None => String::new(),
                Some(s) if *title == "by better nginx" || *title == "per s" => spread_text(s),
                Some(s) => number(s.median),
            };
            write!(out, " {text} |")?;
        }
        writeln!(out)?;
    }
    for cell in &group.cells {
        for failure in &cell.failures {
            writeln!(out, "\n`{}` failed in {failure}", cell.contender)?;
        }
    }
    writeln!(out)
}

fn cross_check(out: &mut String, run: &Run) -> fmt::Result {
    writeln!(out, "## Cross-check of the load generator\n")?;
    if run.cross_check.is_empty() {
        return writeln!(out, "Not made in this run: see the skipped things below.\n");
    }
    writeln!(
        out,
        "| tool | contender | what | theirs: per s, p50 us | ours: per s, p50 us | answers it counted | the upstream counted |\n|---|---|---|---:|---:|---:|---:|"
    )?;
    for c in &run.cross_check {
        writeln!(
            out,
            "| {} | `{}` | {} | {}, {} | {}, {} | {} | {} |",
            c.tool,
            c.contender,
            c.what,
            number(c.theirs_per_second),
            number(c.theirs_p50),
            number(c.ours_per_second),
            number(c.ours_p50),
            c.theirs_counted,
            c.upstream_counted
        )?;
    }
    writeln!(out)
}

fn appendix(out: &mut String, run: &Run) -> fmt::Result {
    writeln!(out, "## Skipped\n")?;
    if run.environment.skipped.is_empty() {
        writeln!(out, "Nothing.\n")?;
    }
    for what in &run.environment.skipped {
        writeln!(out, "- {what}")?;
    }
    writeln!(out, "\n## Versions and configurations\n")?;
    versions(out, &run.environment.contenders)
}

/// Version and configuration of each, folded.
pub(crate) fn versions(out: &mut String, contenders: &[Contender]) -> fmt::Result {
    for contender in contenders {
        if contender.configuration.is_empty() {
            continue;
        }
        writeln!(
            out,
            "<details><summary><code>{}</code>: {}</summary>\n",
            contender.name, contender.version
        )?;
        writeln!(out, "```\n{}```\n\n</details>\n", contender.configuration)?;
    }
    Ok(())
}

/// A few lines for the README.
#[must_use]
pub fn extract(run: &Run) -> String {
    let mut text = String::new();
    let _ = short(&mut text, run);
    text
}

const SHORT: [(&str, &str, Figure); 7] = [
    ("echo-64B-64", "64 B echo, 64 sessions: messages/s", group::rate),
    ("echo-16KiB-64", "16 KiB echo, 64 sessions: messages/s", group::rate),
    ("echo-256KiB-64", "256 KiB echo, 64 sessions: MB/s", group::megabytes),
    ("echo-64B-1", "64 B echo, one session: p50 us", group::p50),
    ("stream-down-64KiB-4", "4 streams to the client: MB/s", group::megabytes),
    ("handshake", "handshakes and closes per s", group::rate),
    ("idle", "idle session: user-space KiB", group::user_memory),
];

fn short(out: &mut String, run: &Run) -> fmt::Result {
    let names = ["direct", "nginx", "nginx-64k", "haproxy", "auto"];
    writeln!(out, "| | no proxy | nginx | nginx, 64k buffers | HAProxy | wsproxy |")?;
    writeln!(out, "|---|---:|---:|---:|---:|---:|")?;
    for (scenario, title, figure) in SHORT {
        let Some(group) = Group::find(run, "routed", scenario) else { continue };
        write!(out, "| {title} |")?;
        for name in names {
            let median = spread(&group.rounds(name, figure)).map(|s| number(s.median));
            write!(out, " {} |", median.unwrap_or_else(|| "-".into()))?;
        }
        writeln!(out)?;
    }
    if let Some(worst) = losses::all(run).iter().find(|loss| !loss.doubtful) {
        writeln!(
            out,
            "\nThe worst loss of that run: {}, {}: {} against {} of {}.",
            worst.place,
            worst.what,
            number(worst.ours),
            number(worst.theirs),
            worst.peer
        )?;
    }
    Ok(())
}

/// The median and, in brackets, the least and the most.
pub(crate) fn spread_text(s: Spread) -> String {
    format!("{} ({} to {})", number(s.median), number(s.least), number(s.most))
}

/// Three digits that matter.
pub(crate) fn number(value: f64) -> String {
    match value.abs() {
        x if x >= 100.0 => format!("{value:.0}"),
        x if x >= 10.0 => format!("{value:.1}"),
        x if x >= 0.095 => format!("{value:.2}"),
        _ => format!("{value:.3}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_document_begins_with_what_is_lost() {
        let costs = [("direct", 8.0), ("nginx", 12.0), ("auto", 60.0), ("relay", 11.0)];
        let run = group::tests::run(&costs);
        let text = document(&run, &[("a.svg".into(), "A".into())]);
        let at = |what: &str| text.find(what).unwrap_or_else(|| panic!("no {what}: {text}"));
        assert!(at("Where wsproxy loses") < at("## Targets"));
        assert!(at("| routed echo-64B-64 | CPU us/message |") < at("## Targets"));
        assert!(at("**not reached**") < at("## Everything"));
        assert!(text.contains("![A](a.svg)"));
        assert!(extract(&run).contains("64 B echo, 64 sessions"));
        assert!(extract(&run).contains("The worst loss"));
    }
}
