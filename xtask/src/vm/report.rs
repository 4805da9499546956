//! What a guest's console says came of its steps.

use super::expected::Expected;
use super::steps::{AUTO, DOCTOR, Step};

/// What the kernel says when something is wrong with it, in whatever line.
const COMPLAINTS: [&str; 18] = [
    "WARNING: CPU:",
    "WARNING: possible",
    "WARNING: suspicious",
    "WARNING: inconsistent",
    "BUG: ",
    "BUG at ",
    "Oops",
    "Kernel panic",
    "general protection fault",
    "Unable to handle kernel",
    "detected stall",
    "self-detected stall",
    "soft lockup",
    "hard LOCKUP",
    "blocked for more than",
    "refcount_t:",
    "unregister_netdevice: waiting for",
    "UBSAN:",
];

/// What came of a step.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ran {
    /// Its name.
    pub name: String,
    /// Why it failed, if it did.
    pub failure: Option<String>,
    /// Tests that passed in it.
    pub tests: u32,
    /// What it printed.
    pub output: String,
}

/// What came of a boot.
#[derive(Clone, Debug, Default)]
pub struct Report {
    /// `uname -r` of the guest.
    pub release: String,
    /// The steps that ran, and those that should have.
    pub ran: Vec<Ran>,
    /// The kernel's complaints, and the guest's.
    pub complaints: Vec<String>,
    /// Faults of the kernel that showed themselves and that others have mended since, and when.
    pub known: Vec<String>,
}

impl Report {
    /// Whether nothing is wrong.
    pub fn passed(&self) -> bool {
        self.complaints.is_empty() && self.ran.iter().all(|step| step.failure.is_none())
    }

    /// Reads a console: of the steps that should run, on a kernel of which this is expected.
    pub fn read(console: &str, in_time: bool, steps: &[Step], expected: &Expected) -> Self {
        let mut report = Self::default();
        for (complaint, trace) in complaints(console) {
            match expected.known_fault(complaint, trace) {
                Some(fault) => report.known.push(fault),
                None => report.complaints.push(complaint.to_owned()),
            }
        }
        let kernel = marks(console).find_map(|mark| mark.strip_prefix("kernel "));
        report.release = kernel.and_then(|text| text.split(' ').next()).unwrap_or("?").to_owned();
        report.ran = steps.iter().map(|step| ran(step, console, expected)).collect();
        if !in_time {
            report.complaints.push("the guest was ended at its time limit".into());
        } else if !marks(console).any(|mark| mark == "over") {
            report.complaints.push("the guest ended before its last step".into());
        }
        report
    }
}

/// The guest's own lines.
fn marks(console: &str) -> impl Iterator<Item = &str> {
    console.lines().filter_map(|line| line.strip_prefix("@@ ")).map(str::trim_end)
}

/// The lines that complain, each with what the kernel says of it until the end of its trace: nothing
/// where it has no trace, nor of a guest's own.
fn complaints(console: &str) -> Vec<(&str, &str)> {
    let guests = marks(console).filter_map(|mark| mark.strip_prefix("complaint "));
    let is_one = |line: &&str| COMPLAINTS.iter().any(|sign| line.contains(sign));
    // The kernel's lines begin with the time in brackets; a test may say such words too.
    let kernels = console.lines().filter(|line| line.starts_with('[')).filter(is_one);
    let traces = kernels.map(|line| {
        let behind = console.split_once(line).map_or("", |(_, behind)| behind);
        (line, behind.split_once("---[ end trace").map_or("", |(trace, _)| trace))
    });
    guests.map(|line| (line, "")).chain(traces).collect()
}

fn ran(step: &Step, console: &str, expected: &Expected) -> Ran {
    let begin = format!("@@ begin {}\n", step.name);
    let end = format!("@@ end {} ", step.name);
    let mut ran =
        Ran { name: step.name.to_owned(), failure: None, tests: 0, output: String::new() };
    let Some((_, behind)) = console.split_once(&begin) else {
        ran.failure = Some("it did not begin".into());
        return ran;
    };
    let (output, code) = match behind.split_once(&end) {
        Some((output, rest)) => (output, rest.lines().next().unwrap_or_default().trim()),
        None => (behind, "none: it did not end"),
    };
    ran.output = output.trim().to_owned();
    ran.tests = summaries(output).sum();
    ran.failure = match code {
        "0" => judge(step, output, expected),
        "137" => Some(format!("ended after its {} s", step.limit)),
        code => Some(format!("exit status {code}")),
    };
    if step.is_tests() && ran.failure.is_none() && ran.tests == 0 {
        ran.failure = Some("it ran no test".into());
    }
    ran
}

/// What is wrong with a step that ended well.
fn judge(step: &Step, output: &str, expected: &Expected) -> Option<String> {
    match step.name {
        DOCTOR => match expected.compare(output) {
            Ok(wrong) => (!wrong.is_empty()).then(|| wrong.trim_end().to_owned()),
            Err(error) => Some(format!("{error:#}")),
        },
        AUTO => {
            let chosen = marks(output).find_map(|mark| mark.strip_prefix("datapath "));
            let (chosen, wanted) = (chosen.unwrap_or("nothing"), expected.chosen());
            (chosen != wanted).then(|| format!("chosen was {chosen}, not {wanted}"))
        }
        _ if output.contains("!!! SKIPPED") => Some("a test skipped itself".into()),
        _ => None,
    }
}

/// How many tests passed, by each summary of a test program.
fn summaries(output: &str) -> impl Iterator<Item = u32> {
    let lines = output.lines().filter_map(|line| line.split_once("test result: ok. "));
    lines.filter_map(|(_, rest)| rest.split(' ').next()?.parse().ok())
}

/// The last lines of a text.
pub fn tail(text: &str, lines: usize) -> String {
    let all: Vec<_> = text.lines().collect();
    all[all.len().saturating_sub(lines)..].join("\n")
}

#[cfg(test)]
mod tests {
    use super::super::steps::STEPS;
    use super::*;

    fn steps(names: &[&str]) -> Vec<Step> {
        STEPS.into_iter().filter(|step| names.contains(&step.name)).collect()
    }

    fn read(console: &str, names: &[&str]) -> Report {
        Report::read(console, true, &steps(names), &Expected::of((6, 1)))
    }

    const GOOD: &str = "[    1.0] booting\n@@ kernel 6.1.0-9-cloud-amd64 x86_64\n@@ begin relay\n\
                        test a ... ok\ntest result: ok. 2 passed; 0 failed\n@@ end relay 0\n\
                        @@ begin auto\n@@ datapath packet none\n@@ end auto 0\n@@ over\n";

    #[test]
    fn a_good_boot_has_all_steps_and_no_complaint() {
        let report = read(GOOD, &["relay", AUTO]);
        assert!(report.passed(), "{report:?}");
        assert_eq!(report.release, "6.1.0-9-cloud-amd64");
        assert_eq!(report.ran[1].tests, 2);
        assert_eq!(report.ran[1].name, "relay");
    }

    #[test]
    fn what_a_kernel_is_known_for_is_told_and_forgiven_it_alone() {
        let read = |version, by: &str| {
            let said = format!(
                "[    9.0] WARNING: CPU: 0 PID: 9 at net/ipv4/af_inet.c:9 inet_sock_destruct+0x1\n\
                 [    9.0]  {by}+0x1\n[    9.0] ---[ end trace 0 ]---"
            );
            let text = GOOD.replace("[    1.0] booting", &said);
            Report::read(&text, true, &steps(&["relay"]), &Expected::of(version))
        };
        let report = read((6, 1), "sk_psock_destroy");
        assert!(report.passed() && report.known.len() == 1, "{report:?}");
        for report in [read((6, 16), "sk_psock_destroy"), read((6, 1), "tcp_v4_destroy_sock")] {
            assert!(!report.passed() && report.known.is_empty(), "{report:?}");
        }
    }

    #[test]
    fn whatever_is_wrong_is_seen() {
        let fails = |from: &str, to: &str| {
            let report = read(&GOOD.replace(from, to), &["relay", AUTO]);
            assert!(!report.passed(), "{to}: {report:?}");
        };
        fails("end relay 0", "end relay 101");
        fails("end relay 0", "end relay 137");
        fails("@@ end relay 0\n", "");
        fails("@@ begin relay\n", "");
        fails("packet none", "sockmap none");
        fails("@@ over\n", "");
        fails("2 passed", "0 passed");
        fails("test a ... ok", "!!! SKIPPED: no");
        fails("[    1.0] booting", "[    1.0] WARNING: CPU: 1 PID: 7 at net/core/skmsg.c:5");
        fails("[    1.0] booting", "[    1.0] rcu: INFO: rcu_sched self-detected stall on CPU");
        fails("[    1.0] booting", "@@ complaint insmod veth.ko failed");
        let late = Report::read(GOOD, false, &steps(&["relay"]), &Expected::of((6, 1)));
        assert!(!late.passed());
    }
}
