//! What `wsproxy doctor` must say on a kernel of some version: a run fails when a probe says no
//! where the kernel has the thing, and when it says yes where it has not.

use std::fmt::Write as _;

use anyhow::{Context, Result};
use serde_json::Value;

use super::steps::Needs;

/// Major and minor.
pub type Version = (u32, u32);

/// The first kernel with each thing that is probed, by the probe's name. A thing that is there in
/// all kernels that anybody runs has 4.0. The source is the commit that brought it, as
/// <https://docs.ebpf.io> has them, but for what depends on many things at once.
const SINCE: [(&str, Version); 23] = [
    ("CAP_BPF", (5, 8)),
    ("CAP_NET_ADMIN", (4, 0)),
    ("CAP_PERFMON", (5, 8)),
    ("kernel types (BTF)", (5, 4)),
    ("BPF compiled to machine code (JIT)", (4, 0)),
    ("socket map (SOCKMAP)", (4, 14)),
    ("ring buffer", (5, 8)),
    ("sk_skb programs", (4, 14)),
    ("helper bpf_sk_redirect_map", (4, 14)),
    ("helper bpf_skc_to_tcp_sock", (5, 9)),
    ("helper bpf_skb_pull_data", (4, 9)),
    ("helper bpf_ktime_get_coarse_ns", (5, 11)),
    ("helper bpf_loop", (5, 17)),
    (OBJECT_MAPS, LOADS),
    (OBJECT, LOADS),
    (SELF_TEST, LOADS),
    ("packet path: tc programs (sched_cls)", (4, 1)),
    ("packet path: helper bpf_redirect_neigh", (5, 10)),
    ("packet path: helper bpf_l4_csum_replace", (4, 1)),
    ("packet path: sockets can be frozen (TCP_REPAIR)", (4, 0)),
    (PACKETS, LOADS),
    (TCX, (6, 6)),
    // Not a probe: the verdict over all of them.
    ("kernel_path", LOADS),
];

const OBJECT_MAPS: &str = "mmapable array, shared with BPF";
const OBJECT: &str = "verdict program without a parser";
const SELF_TEST: &str = "self-test";
const PACKETS: &str = "packet path: its program loads";
const TCX: &str = "packet path: attachments outlive the process (tcx)";
/// Found by running: 5.10 does not, 6.1 does; nothing between them was tried.
const LOADS: Version = (6, 1);

/// Instructions that the verifier follows at most before it takes a program, of the million at
/// which it gives up: room for what the next kernels find out about it.
const EASY: u32 = 200_000;

/// Complaints of kernels about faults of their own: what stands in the line, what in the trace behind
/// it, the first version without it, and what it is. Whoever meets one is told, and the run does not
/// fail.
const FAULTS: [(&str, &str, Version, &str); 1] = [(
    "inet_sock_destruct+",
    "sk_psock_destroy+",
    (6, 16),
    "a socket's memory account is not even (mended by \"bpf, sockmap: Fix concurrency issues \
     between memory charge and uncharge\")",
)];

/// The number in a probe's detail, if that is it.
fn verified(detail: &str) -> Option<u32> {
    detail.strip_suffix(" instructions verified")?.parse().ok()
}

/// What is known of a kernel before it has started.
#[derive(Clone, Copy, Debug)]
pub struct Expected {
    version: Version,
}

impl Expected {
    /// Of a kernel of this version.
    pub const fn of(version: Version) -> Self {
        Self { version }
    }

    /// Of the kernel with this name (`uname -r`).
    pub fn of_release(release: &str) -> Result<Self> {
        let mut numbers = release.split(|c: char| !c.is_ascii_digit()).map(str::parse);
        let mut next = || numbers.next()?.ok();
        let version = next().zip(next());
        version.map(Self::of).with_context(|| format!("{release} is no kernel's name"))
    }

    /// Why a step can't run, if it can't.
    pub fn lacks(&self, needs: Needs) -> Option<String> {
        let thing = match needs {
            Needs::Nothing => return None,
            Needs::Sockmap => OBJECT,
            Needs::Packets => PACKETS,
            Needs::Tcx => TCX,
        };
        let (_, since) = SINCE.iter().find(|(name, _)| *name == thing)?;
        let lacking = self.version < *since;
        lacking.then(|| format!("no \"{thing}\" before Linux {}.{}", since.0, since.1))
    }

    /// What `mode = "auto"` chooses, and the reason if that is the relay.
    pub fn chosen(&self) -> &'static str {
        if self.version < LOADS { "relay load_refused" } else { "packet none" }
    }

    /// What a complaint with this trace is, where this kernel is known for it.
    pub fn known_fault(&self, complaint: &str, trace: &str) -> Option<String> {
        let (_, _, (major, minor), what) = FAULTS.iter().find(|(sign, by, until, _)| {
            complaint.contains(sign) && trace.contains(by) && self.version < *until
        })?;
        Some(format!("a fault of the kernel before {major}.{minor}: {what}"))
    }

    /// Where the report of the probes differs from what is known, a line each.
    pub fn compare(&self, report: &str) -> Result<String> {
        let start = report.find('{').context("the report has no JSON")?;
        let mut values = serde_json::Deserializer::from_str(&report[start..]).into_iter();
        let report: Value = values.next().context("the report is empty")??;
        let probes = report["probes"].as_array().context("the report has no probes")?;
        let mut wrong = String::new();
        for probe in probes {
            let name = probe["name"].as_str().unwrap_or_default();
            let said = probe["outcome"].as_str().unwrap_or_default();
            let detail = probe["detail"].as_str().unwrap_or_default();
            // Writing to a String cannot fail.
            let _ = match SINCE.iter().find(|(known, _)| *known == name) {
                None => writeln!(wrong, "{name}: xtask/src/vm/expected.rs does not know it"),
                Some((_, since)) => self.judge(&mut wrong, name, *since, said, detail),
            };
            let verified = verified(detail).unwrap_or_default();
            if verified > EASY {
                let _ = writeln!(wrong, "{name}: {verified} instructions verified, over {EASY}");
            }
        }
        let path = report["kernel_path"].as_bool().context("the report has no verdict")?;
        if path != (self.version >= LOADS) {
            let _ = writeln!(wrong, "the kernel path would run: {path}");
        }
        Ok(wrong)
    }

    fn judge(
        &self,
        wrong: &mut String,
        name: &str,
        since: Version,
        said: &str,
        detail: &str,
    ) -> std::fmt::Result {
        let there = self.version >= since;
        // Where something else is missing, what builds on it can't be tried.
        let fits = if there { said == "yes" } else { said == "no" || said == "could not tell" };
        if fits {
            return Ok(());
        }
        let (major, minor) = since;
        writeln!(wrong, "{name} is there since {major}.{minor}, the probe said {said} ({detail})")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn report(outcome: &str, path: bool) -> String {
        let probe = serde_json::json!({
            "name": "helper bpf_loop", "needed": true, "outcome": outcome, "detail": "",
        });
        let report = serde_json::json!({ "kernel_path": path, "probes": [probe] });
        format!("something before\n{report}\nsomething behind")
    }

    #[test]
    fn both_kinds_of_lies_are_seen() {
        let compare = |version, outcome, path| {
            Expected::of(version).compare(&report(outcome, path)).expect("it can be read")
        };
        assert_eq!(compare((6, 1), "yes", true), "");
        assert_eq!(compare((5, 10), "no", false), "");
        assert_eq!(compare((5, 10), "could not tell", false), "");
        assert!(compare((6, 1), "no", true).contains("bpf_loop"));
        assert!(compare((6, 1), "could not tell", true).contains("bpf_loop"));
        assert!(compare((5, 10), "yes", false).contains("bpf_loop"));
        assert!(compare((5, 10), "no", true).contains("would run"));
        assert!(Expected::of((6, 1)).compare("no report").is_err());
    }

    #[test]
    fn a_probe_that_nobody_knows_is_seen() {
        let text = report("yes", true).replace("bpf_loop", "bpf_new");
        let wrong = Expected::of((6, 1)).compare(&text).expect("it can be read");
        assert!(wrong.contains("does not know it"), "{wrong}");
    }

    #[test]
    fn a_program_that_is_hard_to_verify_is_seen() {
        for (count, seen) in [(EASY, false), (EASY + 1, true)] {
            let detail = format!("\"detail\":\"{count} instructions verified\"");
            let text = report("yes", true).replace("\"detail\":\"\"", &detail);
            let wrong = Expected::of((6, 1)).compare(&text).expect("it can be read");
            assert_eq!(wrong.contains("instructions verified, over"), seen, "{text}: {wrong}");
        }
    }

    #[test]
    fn versions_are_read_from_releases() {
        for (release, version) in
            [("6.1.0-56-cloud-amd64", (6, 1)), ("6.12.117+deb13-cloud-arm64", (6, 12))]
        {
            assert_eq!(Expected::of_release(release).expect(release).version, version);
        }
        assert!(Expected::of_release("linux").is_err());
    }
}
