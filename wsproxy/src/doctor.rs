//! `wsproxy doctor`: what the kernel path needs and what of it is here.

use std::io::{self, Write};

use crate::datapath::bpf::probe::{self, Outcome, Probe};

/// Writes the findings; true when the kernel path would run.
///
/// # Errors
/// `out` can't be written.
pub fn run(json: bool, out: &mut impl Write) -> io::Result<bool> {
    let probes = probe::all();
    let runs = probe::would_run(&probes);
    if json {
        write_json(&probes, runs, out)?
    } else {
        write_text(&probes, runs, out)?
    }
    Ok(runs)
}

fn write_text(probes: &[Probe], runs: bool, out: &mut impl Write) -> io::Result<()> {
    for probe in probes {
        let Probe { name, needed, outcome, detail, remedy } = probe;
        let optional = if *needed { "" } else { " (not needed)" };
        let colon = if detail.is_empty() { "" } else { ": " };
        writeln!(out, "{:<14}  {name}{optional}{colon}{detail}", outcome.word())?;
        if *outcome != Outcome::Yes {
            writeln!(out, "{:<14}    -> {remedy}", "")?;
        }
    }
    let verdict = if runs {
        "The kernel path would run: `wsproxy run` moves sessions inside the kernel."
    } else {
        "The kernel path would not run as this user on this kernel: `wsproxy run` relays sessions in user space."
    };
    writeln!(out, "\n{verdict}")
}

fn write_json(probes: &[Probe], runs: bool, out: &mut impl Write) -> io::Result<()> {
    let list: Vec<_> = probes
        .iter()
        .map(|p| {
            serde_json::json!({
                "name": p.name,
                "needed": p.needed,
                "outcome": p.outcome.word(),
                "detail": p.detail,
                "remedy": if p.outcome == Outcome::Yes { "" } else { p.remedy },
            })
        })
        .collect();
    serde_json::to_writer_pretty(
        &mut *out,
        &serde_json::json!({ "kernel_path": runs, "probes": list }),
    )?;
    writeln!(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn probes() -> Vec<Probe> {
        let one = |outcome, needed, detail: &str| Probe {
            name: "a thing",
            needed,
            outcome,
            detail: detail.into(),
            remedy: "do this",
        };
        vec![
            one(Outcome::Yes, true, ""),
            one(Outcome::No, false, "is off"),
            one(Outcome::Unknown, true, ""),
        ]
    }

    #[test]
    fn a_line_each_with_what_to_do_and_a_verdict() {
        let mut out = Vec::new();
        write_text(&probes(), false, &mut out).unwrap();
        let text = String::from_utf8(out).unwrap();
        let lines: Vec<_> = text.lines().collect();
        assert_eq!(lines[0], "yes             a thing");
        assert_eq!(lines[1], "no              a thing (not needed): is off");
        assert_eq!(lines[2].trim(), "-> do this");
        assert_eq!(lines[3], "could not tell  a thing");
        assert!(lines.last().unwrap().contains("would not run"));
    }

    #[test]
    fn json_says_the_same() {
        let mut out = Vec::new();
        write_json(&probes(), true, &mut out).unwrap();
        let value: serde_json::Value = serde_json::from_slice(&out).unwrap();
        assert_eq!(value["kernel_path"], true);
        assert_eq!(value["probes"][1]["outcome"], "no");
        assert_eq!(value["probes"][0]["remedy"], "");
    }
}
