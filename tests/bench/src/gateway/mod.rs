//! wsproxy beside nginx in what a gateway does apart from moving the bytes of sessions: handshakes,
//! plain requests and idle sessions, each with and without TLS towards the client.

mod certificate;
mod contenders;
mod report;

use std::{fs, path::PathBuf, sync::atomic::Ordering, time::Duration};

use anyhow::{Context as _, Result, ensure};
use rustix::process::{Resource, getrlimit};

pub use self::report::document;
use self::{
    certificate::Certificate,
    contenders::{PLAIN, TLS, Who},
};
use crate::{
    load::{Target, churn, held, requests, wire::Transport},
    machine,
    place::{Site, Topology, UPSTREAM},
    results::{Contender, Environment, Figures},
    run::line,
    upstream::Upstream,
};

/// Sessions that are opened and closed at once.
const HANDSHAKES: usize = 16;
/// Connections with a request under way.
const CONNECTIONS: usize = 64;
/// Descriptors of this process that are no session's.
const OTHER_DESCRIPTORS: u64 = 256;

/// What to run.
#[derive(Clone, Debug)]
pub struct Plan {
    /// Rounds: both are measured once in each.
    pub rounds: u32,
    /// Length of a measurement.
    pub measured: Duration,
    /// Before each.
    pub warm_up: Duration,
    /// Idle sessions.
    pub sessions: usize,
    /// Only measurements whose name contains one of these; all if empty.
    pub only: Vec<String>,
    /// The program under test.
    pub wsproxy: PathBuf,
    /// Where the contenders keep their files.
    pub folder: PathBuf,
}

/// What is done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Load {
    /// WebSocket sessions are opened and closed in order.
    Handshake,
    /// Plain HTTP on connections that stay open.
    Requests,
    /// Sessions that are only there.
    Idle,
}

/// One measurement.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Measurement {
    /// What is done.
    pub load: Load,
    /// Whether the client speaks TLS.
    pub tls: bool,
}

impl Measurement {
    /// All, in the order of the report.
    pub const ALL: [Self; 6] = [
        Self { load: Load::Handshake, tls: false },
        Self { load: Load::Handshake, tls: true },
        Self { load: Load::Requests, tls: false },
        Self { load: Load::Requests, tls: true },
        Self { load: Load::Idle, tls: false },
        Self { load: Load::Idle, tls: true },
    ];

    /// As in the report and for `--only`.
    #[must_use]
    pub fn name(self) -> &'static str {
        match (self.load, self.tls) {
            (Load::Handshake, false) => "handshake, plain",
            (Load::Handshake, true) => "handshake, TLS",
            (Load::Requests, false) => "requests, plain HTTP",
            (Load::Requests, true) => "requests, TLS",
            (Load::Idle, false) => "idle sessions, plain",
            (Load::Idle, true) => "idle sessions, TLS",
        }
    }

    /// Memory does not vary as time does.
    fn rounds(self, rounds: u32) -> u32 {
        if self.load == Load::Idle { rounds.min(2) } else { rounds }
    }

    fn run(self, target: &Target, transport: &Transport, sessions: usize) -> Result<Figures> {
        match self.load {
            Load::Handshake => churn::run(target, transport, HANDSHAKES),
            Load::Requests => requests::run(target, transport, &contenders::page(), CONNECTIONS),
            Load::Idle => held::idle_after_a_message(target, transport, sessions),
        }
    }
}

/// What one measurement brought.
#[derive(Clone, Debug)]
pub struct Measured {
    /// Which.
    pub measurement: Measurement,
    /// Of nginx, round by round.
    pub nginx: Vec<Figures>,
    /// Of wsproxy, round by round.
    pub wsproxy: Vec<Figures>,
    /// What failed, and why.
    pub failures: Vec<String>,
}

/// A whole run.
#[derive(Clone, Debug, Default)]
pub struct Run {
    /// Where it ran and against what.
    pub environment: Environment,
    /// Idle sessions in each measurement of these.
    pub sessions: usize,
    /// In the order in which they were made.
    pub measured: Vec<Measured>,
}

/// Runs the plan, telling its progress on the standard error.
///
/// # Errors
/// What keeps the whole from running; a single failed measurement is only noted.
pub fn run(plan: &Plan) -> Result<Run> {
    let descriptors = getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX);
    // Client and server of each session are in this process.
    let needed = 2 * plan.sessions as u64 + OTHER_DESCRIPTORS;
    ensure!(needed <= descriptors, "{needed} descriptors are needed, the limit is {descriptors}");
    fs::create_dir_all(&plan.folder).with_context(|| plan.folder.display().to_string())?;
    let certificate = Certificate::new(&plan.folder)?;
    let environment = Environment {
        seconds: plan.measured.as_secs_f64(),
        rounds: plan.rounds,
        ..machine::environment()
    };
    let mut run = Run { environment, sessions: plan.sessions, measured: Vec::new() };
    let wanted = |measurement: &Measurement| {
        plan.only.is_empty() || plan.only.iter().any(|part| measurement.name().contains(part))
    };
    ensure!(Measurement::ALL.iter().any(wanted), "no measurement is called like that");
    for measurement in Measurement::ALL.into_iter().filter(wanted) {
        let mut measured =
            Measured { measurement, nginx: Vec::new(), wsproxy: Vec::new(), failures: Vec::new() };
        for round in 0..measurement.rounds(plan.rounds) {
            for who in [Who::Nginx, Who::Wsproxy] {
                let sample = sample(plan, &certificate, measurement, who, &mut run.environment);
                measured.note(who, round, sample);
            }
        }
        run.measured.push(measured);
    }
    Ok(run)
}

/// Everything is new for each: memory that an earlier measurement left to a process, or ports in
/// TIME_WAIT, would be mistaken for this one's.
fn sample(
    plan: &Plan,
    certificate: &Certificate,
    measurement: Measurement,
    who: Who,
    environment: &mut Environment,
) -> Result<Figures> {
    let site = Site::new(Topology::Loopback)?;
    environment.congestion_control.clone_from(&site.congestion_control);
    let upstream = site.at_server(|| Upstream::start(([0, 0, 0, 0], UPSTREAM).into()))?;
    let _pages = contenders::pages(&site, &plan.folder)?;
    let gateway = contenders::start(who, &site, &plan.folder, &plan.wsproxy, certificate)?;
    describe(environment, &gateway.described);
    let target = Target {
        address: site.contender(if measurement.tls { TLS } else { PLAIN }),
        upstream: Some(upstream.counters.clone()),
        warm_up: plan.warm_up,
        measured: plan.measured,
        processes: gateway.process.all(),
        held: None,
    };
    let transport = if measurement.tls { &certificate.transport } else { &Transport::Plain };
    let figures = site.at_client(|| measurement.run(&target, transport, plan.sessions))?;
    let wrong = upstream.counters.wrong.load(Ordering::Relaxed);
    ensure!(wrong == 0, "the upstream got wrong bytes in {wrong} sessions");
    Ok(figures)
}

fn describe(environment: &mut Environment, contender: &Contender) {
    if !environment.contenders.iter().any(|known| known.name == contender.name) {
        environment.contenders.push(contender.clone());
    }
}

impl Measured {
    fn note(&mut self, who: Who, round: u32, sample: Result<Figures>) {
        let prefix = format!("{:21} round {round} {:8}", self.measurement.name(), who.name());
        match sample {
            Ok(figures) => {
                eprintln!("{prefix} {}", line(&figures));
                let rounds = match who {
                    Who::Nginx => &mut self.nginx,
                    Who::Wsproxy => &mut self.wsproxy,
                };
                rounds.push(Figures { round, ..figures });
            }
            Err(error) => {
                eprintln!("{prefix} FAILED: {error:#}");
                self.failures.push(format!("{} in round {round}: {error:#}", who.name()));
            }
        }
    }
}
