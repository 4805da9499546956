//! The packet path beside no proxy and nginx: what issue 6 promises of it, in one short run.
//!
//! Every contender has namespaces of its own: the packet path's program at a device costs
//! everybody who uses that device a look into a map, `direct` too.

pub mod memory;
pub mod report;

use std::{
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread::{self, sleep},
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, ensure};

use crate::{
    contender::{Contender, Kind},
    load::Target,
    machine,
    place::{Site, Topology, UPSTREAM},
    results::{Environment, Figures, Run},
    run::{note, settle},
    scenario::Scenario,
    upstream::Upstream,
};

/// Where packets are lost, in the results: [`Topology::Routed`] otherwise.
pub const LOSSY: &str = "routed, 1 % lost";
const LOST: f64 = 0.01;
/// What is compared there: 64 KiB, so that a third of the messages loses something.
pub const LOSSY_LOAD: Scenario = Scenario::Echo(64 << 10, 16);
/// A measurement with loss takes that many times as long as others: waiting comes in lumps.
const LOSSY_LENGTH: u32 = 2;
/// How often is looked whether all sessions are open, and on the packet path.
const LOOK: Duration = Duration::from_millis(20);
/// Sessions that are not on the packet path after so long are waited for no more.
const LATEST: Duration = Duration::from_secs(8);

/// Who takes part if nobody else is named.
pub const CONTENDERS: [Kind; 5] =
    [Kind::Direct, Kind::Nginx, Kind::Nginx64k, Kind::Packet, Kind::PacketNoFrames];
/// What is done to them; those with many sessions first.
pub const SCENARIOS: [Scenario; 5] = [
    Scenario::Echo(64, 64),
    Scenario::Echo(1 << 10, 64),
    Scenario::Echo(16 << 10, 16),
    Scenario::Echo(256 << 10, 16),
    Scenario::Echo(64, 1),
];

/// What to run.
#[derive(Clone, Debug)]
pub struct Plan {
    /// One after the other.
    pub topologies: Vec<Topology>,
    /// In this order within a round.
    pub contenders: Vec<Kind>,
    /// Only scenarios whose name contains one of these (`loss` and `memory` too); all if empty.
    pub only: Vec<String>,
    /// Rounds.
    pub rounds: u32,
    /// Length of a measurement.
    pub measured: Duration,
    /// Before each; sessions come onto the packet path in it.
    pub warm_up: Duration,
    /// Idle sessions whose memory is measured.
    pub idle: usize,
    /// The program under test.
    pub wsproxy: PathBuf,
    /// Where contenders keep their files.
    pub folder: PathBuf,
}

/// What was measured.
#[derive(Debug, Default)]
pub struct Measured {
    /// Everything but memory.
    pub run: Run,
    /// `None`: not asked for.
    pub memory: Option<memory::Idle>,
}

impl Plan {
    fn wants(&self, name: &str) -> bool {
        self.only.is_empty() || self.only.iter().any(|part| name.contains(part.as_str()))
    }
}

/// Runs the plan, telling its progress on the standard error.
///
/// # Errors
/// What keeps the whole from running; a single failed measurement is only noted.
pub fn run(plan: &Plan) -> Result<Measured> {
    let environment = Environment {
        seconds: plan.measured.as_secs_f64(),
        rounds: plan.rounds,
        ..machine::environment()
    };
    let mut measured = Measured { run: Run { environment, ..Run::default() }, memory: None };
    for topology in &plan.topologies {
        let wanted = SCENARIOS.iter().filter(|scenario| plan.wants(&scenario.name()));
        let wanted: Vec<_> = wanted.collect();
        if wanted.is_empty() {
            continue;
        }
        let places = places(plan, topology.name(), |_| true, || Site::new(*topology))?;
        for scenario in wanted {
            rounds(plan, &places, scenario, &mut measured.run);
        }
    }
    if plan.wants("loss") {
        // Loss is compared with `direct` alone.
        let compared = |kind: Kind| kind == Kind::Direct || kind.is_packet();
        let places = places(plan, LOSSY, compared, || Site::one_by_one(Topology::Routed))?;
        let plan = Plan { measured: plan.measured * LOSSY_LENGTH, ..plan.clone() };
        rounds(&plan, &places, &LOSSY_LOAD, &mut measured.run);
    }
    if plan.wants("memory") {
        measured.memory = Some(memory::measure(plan).context("memory of idle sessions")?);
    }
    Ok(measured)
}

/// Where one contender is measured, with an upstream of its own.
struct Place {
    name: &'static str,
    contender: Contender,
    upstream: Upstream,
    site: Site,
}

impl Place {
    fn is_lossy(&self) -> bool {
        self.name == LOSSY
    }
}

fn places(
    plan: &Plan,
    name: &'static str,
    compared: impl Fn(Kind) -> bool,
    site: impl Fn() -> Result<Site>,
) -> Result<Vec<Place>> {
    let one = |kind: &Kind| {
        let site = site()?;
        let upstream = site.at_server(|| Upstream::start(([0, 0, 0, 0], UPSTREAM).into()))?;
        let contender = Contender::start(*kind, &site, &plan.folder.join(name), &plan.wsproxy)?;
        Ok(Place { name, contender, upstream, site })
    };
    plan.contenders.iter().filter(|kind| compared(**kind)).map(one).collect()
}

fn rounds(plan: &Plan, places: &[Place], scenario: &Scenario, run: &mut Run) {
    if let Some(place) = places.first() {
        run.environment.congestion_control.clone_from(&place.site.congestion_control);
    }
    for round in 0..plan.rounds {
        for place in places {
            let result = measure(plan, place, scenario, round);
            note(run, place.name, scenario, place.contender.kind, round, result);
        }
    }
}

fn measure(plan: &Plan, place: &Place, scenario: &Scenario, round: u32) -> Result<Figures> {
    let Place { site, upstream, contender, .. } = place;
    let processes = contender.processes();
    let target = Target {
        address: contender.address,
        upstream: Some(upstream.counters.clone()),
        warm_up: plan.warm_up,
        measured: plan.measured,
        processes: processes.clone(),
        held: Some(Arc::new(AtomicBool::new(contender.kind.is_packet()))),
    };
    let wrong_before = upstream.counters.wrong.load(Ordering::Relaxed);
    // The same packets by number are lost to everybody in a round.
    let loss = place.is_lossy().then(|| site.lose(LOST, round.into()));
    let done = AtomicBool::new(false);
    let (figures, on_packet_path) = thread::scope(|scope| {
        let looking = scope.spawn(|| look(&target, place, scenario, &done));
        let figures = site.at_client(|| scenario.run(&target, &processes));
        done.store(true, Ordering::Relaxed);
        (figures, looking.join().ok().flatten())
    });
    if let Some(loss) = &loss {
        eprintln!("{}", lost(loss.iter().map(|link| link.counts()).fold((0, 0), sum)));
    }
    drop(loss);
    settle(upstream);
    let wrong = upstream.counters.wrong.load(Ordering::Relaxed) - wrong_before;
    ensure!(wrong == 0, "the upstream got wrong bytes in {wrong} sessions");
    Ok(Figures { on_packet_path, ..figures? })
}

fn sum(so_far: (u64, u64), link: wsproxy_tests::link::Counts) -> (u64, u64) {
    (so_far.0 + link.seen, so_far.1 + link.dropped)
}

fn lost((seen, dropped): (u64, u64)) -> String {
    format!("{dropped} packets of {seen} were lost")
}

/// Holds the warm-up until all sessions are on the packet path. Sessions there in the middle of
/// the measured part.
fn look(target: &Target, place: &Place, scenario: &Scenario, done: &AtomicBool) -> Option<u64> {
    let contender = &place.contender;
    if !contender.kind.is_packet() {
        return None;
    }
    let open = &place.upstream.counters.open;
    while open.load(Ordering::Relaxed) < sessions(scenario) {
        if done.load(Ordering::Relaxed) {
            return None;
        }
        sleep(LOOK);
    }
    let (begin, ask) = (Instant::now(), || contender.on_packet_path(&place.site));
    while ask() != Some(sessions(scenario)) && begin.elapsed() < LATEST {
        sleep(LOOK);
    }
    let warm = begin.elapsed();
    if let Some(held) = &target.held {
        held.store(false, Ordering::Relaxed);
    }
    sleep(target.warm_up.saturating_sub(warm) + target.measured / 2);
    (!done.load(Ordering::Relaxed)).then(ask).flatten()
}

/// Sessions of a scenario.
#[must_use]
pub fn sessions(scenario: &Scenario) -> u64 {
    match scenario {
        Scenario::Echo(_, sessions) => *sessions as u64,
        _ => 0,
    }
}

/// Measurements in which not all sessions were on the packet path: what they say is not about it.
#[must_use]
pub fn strays(run: &Run) -> Vec<String> {
    let mut strays = Vec::new();
    let known = SCENARIOS.iter().chain([&LOSSY_LOAD]);
    let wanted = |name: &str| known.clone().find(|s| s.name() == name).map_or(0, sessions);
    for cell in run.cells.iter().filter(|cell| cell.contender.starts_with("packet")) {
        let all = wanted(&cell.scenario);
        for figures in &cell.rounds {
            if figures.on_packet_path != Some(all) {
                let at = figures.on_packet_path.map_or("nobody knows".into(), |n| n.to_string());
                let (place, scenario, who) = (&cell.topology, &cell.scenario, &cell.contender);
                let round = figures.round;
                strays.push(format!("{place} {scenario} {who} round {round}: {at} of {all}"));
            }
        }
    }
    strays
}

/// The file that a plan's report goes to.
#[must_use]
pub fn report_path(out: &Path) -> PathBuf {
    out.join("packet.md")
}
