//! `wsproxy doctor`: what the kernel path needs and what of it is here.

use std::io::{self, Write};

use crate::{
    datapath::bpf::probe::{self, Outcome, Probe},
    privileges::Offer,
};

/// Writes the findings; true when the kernel path would run.
///
/// # Errors
/// `out` can't be written.
pub fn run(json: bool, out: &mut impl Write) -> io::Result<bool> {
    let probes = probe::all();
    let runs = probe::would_run(&probes);
    let offer = Offer::look(probes.iter().all(|probe| probe.outcome == Outcome::Yes));
    if json {
        write_json(&probes, runs, &offer, out)?
    } else {
        write_text(&probes, runs, out)?;
        write_offer(&offer, out)?;
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

/// What would be left of this user's privileges once sessions are served.
fn write_offer(offer: &Offer, out: &mut impl Write) -> io::Result<()> {
    let list = |names: &[&str]| match names {
        [] => "no capability".to_owned(),
        names => names.join(" "),
    };
    let Offer { user, capabilities, kept, seccomp, landlock } = offer;
    writeln!(out, "\nOf {} ({user}) `wsproxy run` keeps {}.", list(capabilities), list(kept))?;
    let seccomp = if *seccomp { "yes" } else { "no, this kernel has none" };
    let landlock = match landlock {
        Ok(version) => format!("yes (ABI {version})"),
        Err(why) => format!("no ({why}): add landlock to lsm= on the kernel's command line"),
    };
    writeln!(out, "System calls are filtered (seccomp): {seccomp}. Files (Landlock): {landlock}.")
}

fn write_json(probes: &[Probe], runs: bool, offer: &Offer, out: &mut impl Write) -> io::Result<()> {
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
        &serde_json::json!({
            "kernel_path": runs,
            "probes": list,
            "privileges": {
                "user": offer.user,
                "capabilities": offer.capabilities,
                "kept": offer.kept,
                "seccomp": offer.seccomp,
                "landlock": offer.landlock.as_ref().ok(),
            },
        }),
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
        write_json(&probes(), true, &offer(), &mut out).unwrap();
        let value: serde_json::Value = serde_json::from_slice(&out).unwrap();
        assert_eq!(value["kernel_path"], true);
        assert_eq!(value["probes"][1]["outcome"], "no");
        assert_eq!(value["probes"][0]["remedy"], "");
        assert_eq!(value["privileges"]["kept"], serde_json::json!(["CAP_NET_ADMIN"]));
    }

    fn offer() -> Offer {
        Offer {
            user: "wsproxy".into(),
            capabilities: vec!["CAP_NET_ADMIN", "CAP_BPF"],
            kept: vec!["CAP_NET_ADMIN"],
            seccomp: true,
            landlock: Err("not here".into()),
        }
    }

    #[test]
    fn what_would_be_kept_is_said() {
        let mut out = Vec::new();
        write_offer(&offer(), &mut out).unwrap();
        let text = String::from_utf8(out).unwrap();
        assert!(text.contains("Of CAP_NET_ADMIN CAP_BPF (wsproxy)"), "{text}");
        assert!(text.contains("keeps CAP_NET_ADMIN."), "{text}");
        assert!(text.contains("(seccomp): yes.") && text.contains("no (not here)"), "{text}");
    }
}
