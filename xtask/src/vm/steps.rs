//! What runs in a guest, and what each of it needs of the guest's kernel.

use super::expected::Expected;

/// What a step needs of the kernel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Needs {
    /// Nothing.
    Nothing,
    /// Sessions in the socket map.
    Sockmap,
    /// Sessions on the packet path.
    Packets,
    /// Attachments that outlive the process.
    Tcx,
}

/// A command that the guest runs.
#[derive(Clone, Copy, Debug)]
pub struct Step {
    /// Its name, in reports.
    pub name: &'static str,
    /// What it needs.
    needs: Needs,
    /// After so many seconds it is ended, and has failed.
    pub limit: u32,
    /// For the guest's shell.
    pub command: &'static str,
}

/// The report of the probes, which is compared with what is known of the kernel's version.
pub const DOCTOR: &str = "doctor";
/// What `mode = "auto"` chooses, which is compared too.
pub const AUTO: &str = "auto";
/// Notes what is in the kernel before anything of ours was.
pub const BASELINE: &str = "baseline";
/// What CI has the time for of the suite on the packet path; the whole suite is a step of its own.
pub const SHORT: &str = "packet, short";
/// Compares with that.
pub const LEFTOVERS: &str = "nothing is left";

impl Step {
    /// Whether it is a program of tests, which has to run at least one.
    pub fn is_tests(&self) -> bool {
        ![BASELINE, DOCTOR, AUTO, LEFTOVERS].contains(&self.name)
    }

    /// What it starts: the first words of its commands.
    pub fn programs(&self) -> impl Iterator<Item = &'static str> {
        let commands = self.command.split("&&").flat_map(|part| part.split("||"));
        commands.filter_map(|command| command.split_whitespace().next())
    }
}

const fn step(name: &'static str, needs: Needs, limit: u32, command: &'static str) -> Step {
    Step { name, needs, limit, command }
}

/// All steps, in order. Emulation is slow, and slower where others use the machine: the limits are
/// many times what a step takes.
pub const STEPS: [Step; 18] = [
    step(BASELINE, Needs::Nothing, 60, "leftovers --note /run/loaded"),
    // It fails, rightly, where there is no kernel path: what counts is what it says.
    step(DOCTOR, Needs::Nothing, 120, "wsproxy doctor --json || [ $? = 1 ]"),
    step(AUTO, Needs::Nothing, 180, "auto"),
    step("relay", Needs::Nothing, 1200, "behaviour relay"),
    step("sockmap", Needs::Sockmap, 1200, "behaviour sockmap"),
    step("packet", Needs::Packets, 1200, "behaviour packet"),
    step(
        SHORT,
        Needs::Packets,
        300,
        "behaviour packet::all_families packet::early_bytes packet::echoes packet::half_close \
         packet::ping_pong packet::reset_travels",
    ),
    step("frames, relay", Needs::Nothing, 600, "frames relay"),
    step("frames, sockmap", Needs::Sockmap, 600, "frames sockmap"),
    step("frames, packet", Needs::Packets, 600, "frames packet"),
    step("namespaces, relay", Needs::Nothing, 600, "namespaces relay"),
    step("namespaces, sockmap", Needs::Sockmap, 600, "namespaces sockmap"),
    step("namespaces, packet", Needs::Packets, 900, "namespaces packet && packet"),
    step("program, packet", Needs::Packets, 600, "program-packet"),
    step("program, survival", Needs::Tcx, 600, "program-persist"),
    step("torture, relay", Needs::Nothing, 600, "torture relay"),
    step("torture, kernel", Needs::Packets, 900, "torture sockmap late_entry packet"),
    step(LEFTOVERS, Needs::Nothing, 120, "leftovers --compare /run/loaded"),
];

/// What a guest runs, and what it does not.
pub struct Plan {
    /// The steps that it runs.
    pub run: Vec<Step>,
    /// Those that its kernel can't, and why.
    pub skipped: Vec<(&'static str, String)>,
}

/// The steps of this filter, which has names or parts of names: a whole name means only that step.
/// Without any it is all of them but the short one, which has to be named; the comparison of what is
/// left is always there.
pub fn wanted(filter: &[String]) -> Vec<Step> {
    let matches = |name: &str, part: &String| {
        let whole = STEPS.iter().any(|step| step.name == part);
        if whole { name == part } else { name != SHORT && name.contains(part.as_str()) }
    };
    let wanted = |step: &Step| {
        let always = [BASELINE, LEFTOVERS].contains(&step.name);
        let all = filter.is_empty() && step.name != SHORT;
        always || all || filter.iter().any(|part| matches(step.name, part))
    };
    STEPS.into_iter().filter(wanted).collect()
}

/// Which of these steps a kernel can run, of which this is expected.
pub fn plan(expected: &Expected, wanted: &[Step]) -> Plan {
    let mut plan = Plan { run: Vec::new(), skipped: Vec::new() };
    for step in wanted {
        match expected.lacks(step.needs) {
            None => plan.run.push(*step),
            Some(why) => plan.skipped.push((step.name, why)),
        }
    }
    plan
}

/// The file that the guest's first process reads: name, seconds and command of each step.
pub fn file(steps: &[Step]) -> String {
    let line = |step: &Step| format!("{}|{}|{}\n", step.name, step.limit, step.command);
    steps.iter().map(line).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_kernel_is_spared_what_it_cannot_do_and_says_so() {
        let old = plan(&Expected::of((5, 10)), &STEPS);
        assert!(old.run.iter().all(|step| step.needs == Needs::Nothing));
        assert!(old.skipped.iter().any(|(name, why)| *name == "sockmap" && !why.is_empty()));
        let middle = plan(&Expected::of((6, 1)), &STEPS);
        assert_eq!(middle.skipped.len(), 1, "{:?}", middle.skipped);
        assert!(plan(&Expected::of((6, 12)), &STEPS).skipped.is_empty());
    }

    #[test]
    fn a_filter_leaves_the_comparison() {
        let names_of = |filter: &str| {
            wanted(&[filter.to_owned()]).iter().map(|step| step.name).collect::<Vec<_>>()
        };
        let frames = ["frames, relay", "frames, sockmap", "frames, packet"];
        assert_eq!(names_of("frames"), [&[BASELINE], &frames[..], &[LEFTOVERS]].concat());
        assert_eq!(names_of("packet"), [BASELINE, "packet", LEFTOVERS]);
        assert_eq!(names_of(SHORT), [BASELINE, SHORT, LEFTOVERS]);
        assert_eq!(wanted(&[]).len(), STEPS.len() - 1);
    }

    #[test]
    fn a_step_names_its_programs() {
        let of = |name: &str| {
            let step = STEPS.iter().find(|step| step.name == name).expect(name);
            step.programs().collect::<Vec<_>>()
        };
        assert_eq!(of("sockmap"), ["behaviour"]);
        assert_eq!(of("namespaces, packet"), ["namespaces", "packet"]);
        assert_eq!(of(DOCTOR)[0], "wsproxy");
    }

    #[test]
    fn the_shell_can_take_the_lines_apart() {
        for line in file(&STEPS).lines() {
            let parts: Vec<_> = line.splitn(3, '|').collect();
            assert!(parts.len() == 3 && parts[1].parse::<u32>().is_ok(), "{line}");
            assert!(!parts[0].contains('|') && !parts[0].is_empty(), "{line}");
        }
    }
}
