//! `wsproxy doctor --sessions N`: whether this host has what so many sessions take, and what to
//! change where it has not. The arithmetic is here, what the host has is read in [`host`], and
//! `docs/TUNING.md` explains both.

pub mod host;
mod needs;
#[cfg(test)]
mod tests;

use std::io::{self, Write};

pub use host::Host;
pub use needs::{PORT_SHARE, descriptors_needed, needs};

/// What is planned.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Plan {
    /// Sessions at a time.
    pub sessions: u64,
    /// Addresses (IP and port) of upstream servers that they are spread over.
    pub servers: u64,
    /// Clients come by TLS.
    pub tls: bool,
}

/// Whether there is enough.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// There is.
    Enough,
    /// So many sessions can't be open at a time.
    TooLittle,
    /// They can, but something that goes with so many gets slow or is lost.
    Advice,
    /// The host does not say what it has.
    Unknown,
}

impl Verdict {
    /// As it is printed.
    #[must_use]
    pub const fn word(self) -> &'static str {
        match self {
            Self::Enough => "enough",
            Self::TooLittle => "too little",
            Self::Advice => "advice",
            Self::Unknown => "unknown",
        }
    }
}

/// One thing that sessions take.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Need {
    /// What it is.
    pub what: &'static str,
    /// Whether there is enough.
    pub verdict: Verdict,
    /// How much is needed, in `unit`.
    pub needed: u64,
    /// How much there is; none where the host does not say.
    pub there: Option<u64>,
    /// What is counted.
    pub unit: &'static str,
    /// How `needed` comes about.
    pub because: String,
    /// What to do; empty where there is enough.
    pub remedy: String,
}

/// Writes what was found; true when nothing is too little.
///
/// # Errors
/// `out` can't be written.
pub fn run(plan: &Plan, host: &Host, json: bool, out: &mut impl Write) -> io::Result<bool> {
    let found = needs(plan, host);
    let fits = found.iter().all(|need| need.verdict != Verdict::TooLittle);
    if json {
        write_json(plan, &found, fits, out)?;
    } else {
        write_text(plan, &found, out)?;
    }
    Ok(fits)
}

fn write_text(plan: &Plan, found: &[Need], out: &mut impl Write) -> io::Result<()> {
    for need in found {
        let there = need.there.map_or_else(|| "not known".into(), grouped);
        let Need { what, verdict, needed, unit, because, remedy, .. } = need;
        writeln!(
            out,
            "{:<10}  {what}: {} {unit} needed, there: {there}  ({because})",
            verdict.word(),
            grouped(*needed)
        )?;
        if !remedy.is_empty() {
            writeln!(out, "{:<10}    -> {remedy}", "")?;
        }
    }
    let missing = found.iter().filter(|need| need.verdict == Verdict::TooLittle).count();
    let sessions = grouped(plan.sessions);
    if missing == 0 {
        writeln!(out, "\n{sessions} sessions fit on this host. docs/TUNING.md has the arithmetic.")
    } else {
        writeln!(
            out,
            "\n{sessions} sessions do not fit on this host: {missing} of {} things are too little. \
             docs/TUNING.md has the arithmetic.",
            found.len()
        )
    }
}

fn write_json(plan: &Plan, found: &[Need], fits: bool, out: &mut impl Write) -> io::Result<()> {
    let needs: Vec<_> = found
        .iter()
        .map(|need| {
            serde_json::json!({
                "what": need.what,
                "verdict": need.verdict.word(),
                "needed": need.needed,
                "there": need.there,
                "unit": need.unit,
                "because": need.because,
                "remedy": need.remedy,
            })
        })
        .collect();
    let plan = serde_json::json!({
        "sessions": plan.sessions, "servers": plan.servers, "tls": plan.tls,
    });
    let all = serde_json::json!({ "fits": fits, "plan": plan, "needs": needs });
    serde_json::to_writer_pretty(&mut *out, &all)?;
    writeln!(out)
}

/// A number with its thousands apart.
#[must_use]
pub fn grouped(n: u64) -> String {
    let digits = n.to_string();
    let mut text = String::with_capacity(digits.len() + digits.len() / 3);
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}
