//! docs/KERNELS.md: what was run on which kernel, and what came of it. Only what stands between two
//! marks is written; the rest is people's.

use std::fs;
use std::process::Command;

use anyhow::{Context, Result};

use super::Boot;
use crate::shell;

const FILE: &str = "docs/KERNELS.md";
const BEGIN: &str = "<!-- newest run: written by `cargo xtask vm --publish` -->\n";
const END: &str = "<!-- end of the newest run -->";

/// Writes it.
pub fn write(boots: &[Boot]) -> Result<()> {
    let date = shell::output(Command::new("date").args(["-u", "+%Y-%m-%d"]))?;
    let qemu = boots.first().map(|boot| boot.arch.qemu()).context("nothing was run")?;
    let emulator = shell::output(Command::new(qemu).arg("--version"))?;
    let emulator = emulator.lines().next().unwrap_or_default();
    let path = shell::root().join(FILE);
    let document = fs::read_to_string(&path).with_context(|| format!("cannot read {FILE}"))?;
    let document = placed(&document, &text(boots, date.trim(), emulator))?;
    fs::write(&path, document).with_context(|| format!("cannot write {FILE}"))?;
    println!("{FILE} is written");
    Ok(())
}

/// The document with this text between the marks.
fn placed(document: &str, text: &str) -> Result<String> {
    let parts = document.split_once(BEGIN).and_then(|(before, rest)| {
        let (_, after) = rest.split_once(END)?;
        Some((before, after))
    });
    let marks = || format!("{FILE} does not have the marks {BEGIN:?} and {END:?}");
    let (before, after) = parts.with_context(marks)?;
    Ok(format!("{before}{BEGIN}\n{text}\n{END}{after}"))
}

fn text(boots: &[Boot], date: &str, emulator: &str) -> String {
    let mut text = format!(
        "On {date}, with Debian's cloud kernels under emulation ({emulator}), two CPUs each.\n\n\
         | kernel | package | machine | result | passed | |\n|---|---|---|---|---|---|\n"
    );
    text.extend(boots.iter().map(row));
    text
}

fn row(boot: &Boot) -> String {
    let verdict = if boot.report.passed() { "passed" } else { "**failed**" };
    let (mut passed, mut notes) = (Vec::new(), Vec::new());
    for step in &boot.report.ran {
        match &step.failure {
            None if step.tests > 0 => passed.push(format!("{} ({} tests)", step.name, step.tests)),
            None => passed.push(step.name.clone()),
            Some(why) => notes.push(format!("{} **failed**: {why}", step.name)),
        }
    }
    notes.extend(boot.skipped.iter().map(|(name, why)| format!("{name} is skipped: {why}")));
    let quoted = |complaint: &String| format!("complaint: `{}`", complaint.replace('`', "'"));
    notes.extend(boot.report.complaints.iter().map(quoted));
    notes.extend(boot.report.known.iter().cloned());
    format!(
        "| {} | {} | {} | {verdict}, {} s | {} | {} |\n",
        boot.report.release,
        boot.version,
        boot.arch.name(),
        boot.took.as_secs(),
        in_a_cell(&passed.join("; ")),
        in_a_cell(&notes.join("; ")),
    )
}

fn in_a_cell(text: &str) -> String {
    text.lines().collect::<Vec<_>>().join("; ").replace('|', "/")
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::super::report::{Ran, Report};
    use super::*;
    use crate::arch::Arch;

    #[test]
    fn what_people_wrote_stays() {
        let document = format!("# Kernels\n\nBefore.\n\n{BEGIN}old\n{END}\n\nAfter.\n");
        let placed = placed(&document, "new").expect("it has the marks");
        assert_eq!(placed, format!("# Kernels\n\nBefore.\n\n{BEGIN}\nnew\n{END}\n\nAfter.\n"));
        assert!(super::placed("# Kernels\n", "new").is_err());
        let document = fs::read_to_string(shell::root().join(FILE)).expect(FILE);
        assert!(super::placed(&document, "new").is_ok(), "{FILE} has no place for a run");
    }

    #[test]
    fn what_failed_and_what_was_skipped_is_told() {
        let ran = |name: &str, failure: Option<&str>, tests| Ran {
            name: name.into(),
            failure: failure.map(str::to_owned),
            tests,
            output: String::new(),
        };
        let report = Report {
            release: "6.1.0".into(),
            ran: vec![ran("relay", None, 13), ran("packet", Some("a|b\nc"), 0)],
            complaints: vec!["[1] WARNING: CPU: 0".into()],
            known: vec!["a fault of the kernel".into()],
        };
        let boot = Boot {
            arch: Arch::Arm64,
            version: "6.1.1-1".into(),
            report,
            skipped: vec![("program, survival", "no tcx".into())],
            took: Duration::from_secs(7),
        };
        let text = text(&[boot], "2026-01-01", "QEMU 7");
        for part in [
            "| 6.1.0 | 6.1.1-1 | arm64 | **failed**, 7 s | relay (13 tests) |",
            "packet **failed**: a/b; c; ",
            "program, survival is skipped: no tcx; ",
            "WARNING: CPU: 0`; a fault of the kernel |",
        ] {
            assert!(text.contains(part), "{part}\n{text}");
        }
    }
}
