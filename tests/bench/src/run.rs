//! A whole run: topologies, rounds, scenarios and contenders, interleaved.

use std::{
    path::{Path, PathBuf},
    sync::atomic::Ordering,
    thread::sleep,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result};

use crate::{
    contender::{Contender, Kind},
    cross_check,
    load::Target,
    machine,
    place::{Site, Topology, UPSTREAM},
    results::{Cell, Environment, Figures, Run},
    scenario::{self, Scenario},
    upstream::Upstream,
};

/// Sessions of one measurement are gone after so long, or the next one is disturbed.
const SETTLE: Duration = Duration::from_secs(10);

/// What to run.
#[derive(Clone, Debug)]
pub struct Plan {
    /// One after the other; the first is run in full.
    pub topologies: Vec<Topology>,
    /// In this order within a round.
    pub contenders: Vec<Kind>,
    /// Only scenarios whose name contains one of these; all if empty.
    pub only: Vec<String>,
    /// A few small scenarios.
    pub quick: bool,
    /// Rounds.
    pub rounds: u32,
    /// Length of a measurement.
    pub measured: Duration,
    /// Before each.
    pub warm_up: Duration,
    /// The program under test.
    pub wsproxy: PathBuf,
    /// Where the third-party load generator is.
    pub peers: Option<PathBuf>,
    /// Where contenders keep their files.
    pub folder: PathBuf,
}

/// Runs the plan, telling its progress on the standard error.
///
/// # Errors
/// What keeps the whole from running; a single failed measurement is only noted.
pub fn run(plan: &Plan) -> Result<Run> {
    let mut run = Run { environment: environment(plan), ..Run::default() };
    for topology in &plan.topologies {
        in_topology(plan, *topology, &mut run)
            .with_context(|| format!("topology {}", topology.name()))?;
    }
    Ok(run)
}

fn environment(plan: &Plan) -> Environment {
    Environment {
        seconds: plan.measured.as_secs_f64(),
        rounds: plan.rounds,
        ..machine::environment()
    }
}

fn in_topology(plan: &Plan, topology: Topology, run: &mut Run) -> Result<()> {
    let site = Site::new(topology)?;
    run.environment.congestion_control.clone_from(&site.congestion_control);
    let upstream = site.at_server(|| Upstream::start(([0, 0, 0, 0], UPSTREAM).into()))?;
    let mut contenders = Vec::new();
    for kind in &plan.contenders {
        match Contender::start(*kind, &site, &plan.folder.join(topology.name()), &plan.wsproxy) {
            Ok(contender) => {
                if !run.environment.contenders.iter().any(|c| c.name == kind.name()) {
                    run.environment.contenders.push(contender.described.clone());
                }
                contenders.push(contender);
            }
            Err(error) => {
                let why = format!("{} in {}: {error:#}", kind.name(), topology.name());
                eprintln!("skipped: {why}");
                run.environment.skipped.push(why);
            }
        }
    }
    let whole = plan.topologies.first() == Some(&topology);
    let scenarios = if plan.quick { scenario::quick() } else { scenario::all(whole) };
    let wanted = |scenario: &Scenario| {
        plan.only.is_empty() || plan.only.iter().any(|part| scenario.name().contains(part))
    };
    if whole && plan.only.is_empty() {
        cross_check(plan, &site, &upstream, &contenders, run);
    }
    for scenario in scenarios.into_iter().filter(wanted) {
        // Memory does not vary as time does.
        let rounds = match scenario {
            Scenario::Idle(_) | Scenario::SlowReaders(_) => plan.rounds.min(2),
            _ => plan.rounds,
        };
        for round in 0..rounds {
            for contender in &contenders {
                let result = measure(plan, &site, &upstream, contender, &scenario);
                note(run, topology.name(), &scenario, contender.kind, round, result);
            }
        }
    }
    Ok(())
}

fn cross_check(
    plan: &Plan,
    site: &Site,
    upstream: &Upstream,
    contenders: &[Contender],
    run: &mut Run,
) {
    let Some(peers) = &plan.peers else {
        run.environment.skipped.push("the cross-check: no --peers".into());
        return;
    };
    for contender in contenders {
        if !matches!(contender.kind, Kind::Direct | Kind::Nginx | Kind::Auto) {
            continue;
        }
        match cross_check::run(site, upstream, contender, peers, plan.measured) {
            Ok(check) => run.cross_check.push(check),
            Err(error) => {
                let why = format!("the cross-check of {}: {error:#}", contender.kind.name());
                eprintln!("skipped: {why}");
                run.environment.skipped.push(why);
            }
        }
    }
}

fn measure(
    plan: &Plan,
    site: &Site,
    upstream: &Upstream,
    contender: &Contender,
    scenario: &Scenario,
) -> Result<Figures> {
    let processes = contender.processes();
    let target = Target {
        address: contender.address,
        upstream: Some(upstream.counters.clone()),
        warm_up: plan.warm_up,
        measured: plan.measured,
        processes: processes.clone(),
        held: None,
    };
    let wrong_before = upstream.counters.wrong.load(Ordering::Relaxed);
    let carried_before = contender.carried(site);
    let figures = site.at_client(|| scenario.run(&target, &processes));
    settle(upstream);
    let mut figures = figures?;
    let wrong = upstream.counters.wrong.load(Ordering::Relaxed) - wrong_before;
    anyhow::ensure!(wrong == 0, "the upstream got wrong bytes in {wrong} sessions");
    if let (Some(before), Some(after)) = (carried_before, contender.carried(site)) {
        let all = after.1 - before.1;
        figures.kernel_share = (all > 0.0).then(|| (after.0 - before.0) / all);
    }
    Ok(figures)
}

/// Waits until the sessions of a measurement are gone.
pub(crate) fn settle(upstream: &Upstream) {
    let deadline = Instant::now() + SETTLE;
    while upstream.counters.open.load(Ordering::Relaxed) > 0 && Instant::now() < deadline {
        sleep(Duration::from_millis(5));
    }
    sleep(Duration::from_millis(50));
}

/// Adds what a round measured, and says so.
pub(crate) fn note(
    run: &mut Run,
    topology: &str,
    scenario: &Scenario,
    kind: Kind,
    round: u32,
    result: Result<Figures>,
) {
    let (scenario, contender) = (scenario.name(), kind.name());
    let same = |cell: &&mut Cell| {
        (cell.topology.as_str(), cell.scenario.as_str(), cell.contender.as_str())
            == (topology, scenario.as_str(), contender)
    };
    let at = match run.cells.iter_mut().find(same) {
        Some(cell) => cell,
        None => {
            run.cells.push(Cell {
                topology: topology.into(),
                scenario: scenario.clone(),
                contender: contender.into(),
                ..Cell::default()
            });
            let last = run.cells.len() - 1;
            &mut run.cells[last]
        }
    };
    let prefix = format!("{topology:12} {scenario:20} round {round} {contender:14}");
    match result {
        Ok(mut figures) => {
            figures.round = round;
            eprintln!("{prefix} {}", line(&figures));
            at.rounds.push(figures);
        }
        Err(error) => {
            eprintln!("{prefix} FAILED: {error:#}");
            at.failures.push(format!("round {round}: {error:#}"));
        }
    }
}

/// What was measured, for the one who waits.
pub(crate) fn line(figures: &Figures) -> String {
    let mut words = Vec::new();
    if figures.seconds > 0.0 {
        let rate = figures.messages as f64 / figures.seconds;
        words.push(format!("{rate:8.0}/s"));
        words.push(format!("{:7.1} MB/s", figures.bytes as f64 / figures.seconds / 1e6));
        let cost = figures.cpu_seconds * 1e6 / figures.messages.max(1) as f64;
        words.push(format!("{cost:7.2} us CPU"));
    }
    if let Some(latency) = figures.latency {
        words.push(format!("p50 {:.0} p99 {:.0} us", latency.p50, latency.p99));
    }
    if let Some(memory) = figures.memory {
        let per = |kib: f64| kib / memory.sessions.max(1) as f64;
        let (user, kernel) = (per(memory.user_kib), per(memory.kernel_kib));
        let slab = per(memory.slab_kib);
        words.push(format!("{user:.2} + {kernel:.2} (slab {slab:.2}) KiB/session"));
    }
    if let Some(share) = figures.kernel_share {
        words.push(format!("{:.0} % in the kernel", share * 100.0));
    }
    if let Some(count) = figures.on_packet_path {
        words.push(format!("{count} on the packet path"));
    }
    words.join(", ")
}

/// The program beside this one.
///
/// # Errors
/// It is not there.
pub fn wsproxy() -> Result<PathBuf> {
    let ours = std::env::current_exe()?;
    let beside = ours.parent().unwrap_or(Path::new(".")).join("wsproxy");
    anyhow::ensure!(beside.exists(), "{} is not built: use `cargo xtask bench`", beside.display());
    Ok(beside)
}
