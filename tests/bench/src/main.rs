//! `wsproxy-bench`; `cargo xtask bench` builds and runs it.

use std::{net::SocketAddr, path::PathBuf, process::ExitCode, time::Duration};

use anyhow::{Result, ensure};
use clap::{Args, Parser, Subcommand};
use wsproxy_bench::{
    contender::Kind,
    gateway, instructions,
    load::{
        Target,
        messages::{self, Messages},
    },
    packet,
    place::Topology,
    pure, report,
    run::{self, Plan},
    supervision,
    upstream::Upstream,
};

/// wsproxy beside nginx, HAProxy and no proxy at all, measured in one run.
#[derive(Parser)]
#[command(name = "wsproxy-bench")]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Measure all contenders in all scenarios; needs root
    Run(RunArguments),
    /// Measure wsproxy beside nginx in handshakes, plain requests and idle sessions, with and
    /// without TLS; needs root
    Gateway(GatewayArguments),
    /// Measure what following frames and pings cost, and how even a drain is; needs root
    Supervision(SupervisionArguments),
    /// Measure the packet path beside no proxy and nginx; needs root
    Packet(PacketArguments),
    /// Count the instructions of the pure parts under callgrind and compare them with the
    /// committed counts
    Instructions {
        /// Write the counts instead of comparing them
        #[arg(long)]
        update: bool,
    },
    /// Run one pure part, for callgrind to count
    #[command(hide = true)]
    Pure {
        /// The part's name
        name: String,
    },
    /// Serve as the upstream until ended
    Upstream {
        /// Where to listen
        #[arg(long, default_value = "127.0.0.1:9000")]
        listen: SocketAddr,
    },
    /// Send messages to an upstream, or to a gateway before one, and print what was measured
    Load {
        /// Where to
        address: SocketAddr,
        /// Bytes of a message
        #[arg(long, default_value_t = 64)]
        payload: usize,
        /// Sessions at once
        #[arg(long, default_value_t = 64)]
        sessions: usize,
        /// Messages per second of all sessions [default: as fast as answers come]
        #[arg(long)]
        rate: Option<f64>,
        /// How long, in s
        #[arg(long, default_value_t = 5.0)]
        seconds: f64,
    },
}

#[derive(Args)]
struct RunArguments {
    /// A few small scenarios, once: shows that everything works, not how fast it is
    #[arg(long)]
    quick: bool,
    /// Rounds: every contender is measured once in each
    #[arg(long, default_value_t = 5)]
    rounds: u32,
    /// Length of a measurement, in s
    #[arg(long, default_value_t = 2.0)]
    seconds: f64,
    /// Only scenarios whose name contains this; may be given again
    #[arg(long)]
    only: Vec<String>,
    /// Only these contenders; may be given again
    #[arg(long, value_enum)]
    contender: Vec<Kind>,
    /// Only these topologies; the first is run in full
    #[arg(long, value_enum)]
    topology: Vec<Topology>,
    /// The wsproxy under test [default: the one beside this program]
    #[arg(long)]
    wsproxy: Option<PathBuf>,
    /// Where `cargo xtask setup` put the third-party load generator [default: no cross-check]
    #[arg(long)]
    peers: Option<PathBuf>,
    /// Where the results go
    #[arg(long, default_value = "target/bench")]
    out: PathBuf,
}

#[derive(Args)]
struct GatewayArguments {
    /// One short round with few idle sessions: shows that everything works, not how fast it is
    #[arg(long)]
    quick: bool,
    /// Rounds: both are measured once in each
    #[arg(long, default_value_t = 3)]
    rounds: u32,
    /// Length of a measurement, in s
    #[arg(long, default_value_t = 2.0)]
    seconds: f64,
    /// Idle sessions
    #[arg(long, default_value_t = 8000)]
    sessions: usize,
    /// Only measurements whose name contains this; may be given again
    #[arg(long)]
    only: Vec<String>,
    /// The wsproxy under test [default: the one beside this program]
    #[arg(long)]
    wsproxy: Option<PathBuf>,
    /// Where the results go
    #[arg(long, default_value = "target/bench")]
    out: PathBuf,
}

#[derive(Args)]
struct SupervisionArguments {
    /// Short and with few sessions: shows that everything works, not how fast it is
    #[arg(long)]
    quick: bool,
    /// Rounds of the throughput with frames followed and not
    #[arg(long, default_value_t = 5)]
    rounds: u32,
    /// The wsproxy under test [default: the one beside this program]
    #[arg(long)]
    wsproxy: Option<PathBuf>,
    /// Where the results go
    #[arg(long, default_value = "target/bench")]
    out: PathBuf,
}

#[derive(Args)]
struct PacketArguments {
    /// One short round: shows that everything works, not how fast it is
    #[arg(long)]
    quick: bool,
    /// Rounds: every contender is measured once in each
    #[arg(long, default_value_t = 3)]
    rounds: u32,
    /// Length of a measurement, in s
    #[arg(long, default_value_t = 1.0)]
    seconds: f64,
    /// Idle sessions whose memory is measured
    #[arg(long, default_value_t = 2000)]
    sessions: usize,
    /// Only scenarios whose name contains this, or `loss`, or `memory`; may be given again
    #[arg(long)]
    only: Vec<String>,
    /// Only these contenders [default: direct, both nginx, packet, packet-no-frames]; may be given
    /// again
    #[arg(long, value_enum)]
    contender: Vec<Kind>,
    /// Only these topologies [default: routed, local-server]; may be given again
    #[arg(long, value_enum)]
    topology: Vec<Topology>,
    /// The wsproxy under test [default: the one beside this program]
    #[arg(long)]
    wsproxy: Option<PathBuf>,
    /// Where the results go
    #[arg(long, default_value = "target/bench")]
    out: PathBuf,
}

fn main() -> ExitCode {
    let _in_force = wsproxy::limits::raise_descriptors(0);
    let done = match Cli::parse().command {
        Command::Run(arguments) => run(arguments),
        Command::Gateway(arguments) => gateway(arguments),
        Command::Supervision(arguments) => supervision(arguments),
        Command::Packet(arguments) => packet_path(arguments),
        Command::Instructions { update } => instructions::run(update),
        Command::Pure { name } => pure::run(&name),
        Command::Upstream { listen } => Upstream::start(listen).map(Upstream::join),
        Command::Load { address, payload, sessions, rate, seconds } => {
            let target = Target {
                address,
                upstream: None,
                warm_up: Duration::from_millis(500),
                measured: Duration::from_secs_f64(seconds),
                processes: Vec::new(),
                held: None,
            };
            let messages = Messages { payloads: vec![payload], sessions, rate };
            messages::run(&target, &messages).and_then(|figures| {
                println!("{}", serde_json::to_string_pretty(&figures)?);
                Ok(())
            })
        }
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(arguments: RunArguments) -> Result<()> {
    let or_all = |chosen: Vec<Kind>| if chosen.is_empty() { Kind::ALL.to_vec() } else { chosen };
    let topologies = match (arguments.topology.is_empty(), arguments.quick) {
        (false, _) => arguments.topology,
        (true, true) => vec![Topology::Routed],
        (true, false) => vec![Topology::Routed, Topology::LocalServer, Topology::Loopback],
    };
    let plan = Plan {
        topologies,
        contenders: or_all(arguments.contender),
        only: arguments.only,
        quick: arguments.quick,
        rounds: if arguments.quick { 1 } else { arguments.rounds },
        measured: Duration::from_secs_f64(if arguments.quick { 0.5 } else { arguments.seconds }),
        warm_up: Duration::from_millis(if arguments.quick { 100 } else { 500 }),
        wsproxy: arguments.wsproxy.map_or_else(run::wsproxy, Ok)?,
        peers: arguments.peers,
        folder: arguments.out.join("files"),
    };
    std::fs::create_dir_all(&arguments.out)?;
    let folder = std::path::absolute(&plan.folder)?;
    let plan = Plan { folder, ..plan };
    let mut result = run::run(&plan)?;
    result.environment.command = std::env::args().skip(1).collect::<Vec<_>>().join(" ").replacen(
        "run",
        "cargo xtask bench",
        1,
    );
    report::write(&result, &arguments.out)?;
    println!("{}", report::markdown::extract(&result));
    println!("the whole report: {}", arguments.out.join("report.md").display());
    // Numbers are no failure, a contender that could not be measured is one.
    let failures = result.cells.iter().map(|cell| cell.failures.len()).sum::<usize>();
    ensure!(failures == 0, "{failures} measurements failed: see above");
    Ok(())
}

fn gateway(arguments: GatewayArguments) -> Result<()> {
    let quick = arguments.quick;
    std::fs::create_dir_all(&arguments.out)?;
    let plan = gateway::Plan {
        rounds: if quick { 1 } else { arguments.rounds },
        measured: Duration::from_secs_f64(if quick { 0.5 } else { arguments.seconds }),
        warm_up: Duration::from_millis(if quick { 100 } else { 500 }),
        sessions: if quick { 200 } else { arguments.sessions },
        only: arguments.only,
        wsproxy: std::path::absolute(arguments.wsproxy.map_or_else(run::wsproxy, Ok)?)?,
        folder: std::path::absolute(arguments.out.join("gateway"))?,
    };
    let result = gateway::run(&plan)?;
    let document = gateway::document(&result);
    let path = arguments.out.join("gateway.md");
    std::fs::write(&path, &document)?;
    println!("{document}\nalso in {}", path.display());
    // Numbers are no failure, a contender that could not be measured is one.
    let failures = result.measured.iter().map(|measured| measured.failures.len()).sum::<usize>();
    ensure!(failures == 0, "{failures} measurements failed: see above");
    Ok(())
}

fn supervision(arguments: SupervisionArguments) -> Result<()> {
    let quick = arguments.quick;
    std::fs::create_dir_all(&arguments.out)?;
    let seconds = |full: u64, quickly: u64| Duration::from_secs(if quick { quickly } else { full });
    let plan = supervision::Plan {
        rounds: if quick { 1 } else { arguments.rounds },
        measured: Duration::from_millis(if quick { 300 } else { 2000 }),
        sessions: if quick { 100 } else { 8000 },
        interval: seconds(10, 1),
        watched: seconds(30, 2),
        drained: if quick { 100 } else { 5000 },
        window: seconds(10, 2),
        wsproxy: std::path::absolute(arguments.wsproxy.map_or_else(run::wsproxy, Ok)?)?,
        folder: std::path::absolute(arguments.out.join("supervision"))?,
    };
    let report = supervision::run(&plan)?;
    let path = arguments.out.join("supervision.md");
    std::fs::write(&path, &report)?;
    println!("{report}\nalso in {}", path.display());
    Ok(())
}

fn packet_path(arguments: PacketArguments) -> Result<()> {
    let quick = arguments.quick;
    let or = |given: Vec<_>, all: &[_]| if given.is_empty() { all.to_vec() } else { given };
    std::fs::create_dir_all(&arguments.out)?;
    let plan = packet::Plan {
        topologies: match arguments.topology {
            given if given.is_empty() => vec![Topology::Routed, Topology::LocalServer],
            given => given,
        },
        contenders: or(arguments.contender, &packet::CONTENDERS),
        only: arguments.only,
        rounds: if quick { 1 } else { arguments.rounds },
        measured: Duration::from_secs_f64(if quick { 0.3 } else { arguments.seconds }),
        warm_up: Duration::from_millis(500),
        idle: if quick { 100 } else { arguments.sessions },
        wsproxy: std::path::absolute(arguments.wsproxy.map_or_else(run::wsproxy, Ok)?)?,
        folder: std::path::absolute(arguments.out.join("packet"))?,
    };
    let measured = packet::run(&plan)?;
    let document = packet::report::document(&measured);
    let path = packet::report_path(&arguments.out);
    std::fs::write(&path, &document)?;
    println!("{document}\nalso in {}", path.display());
    // Numbers are no failure; what could not be measured, or was not on the path, is one.
    let failures = measured.run.cells.iter().map(|cell| cell.failures.len()).sum::<usize>();
    ensure!(failures == 0, "{failures} measurements failed: see above");
    let strays = packet::strays(&measured.run);
    ensure!(strays.is_empty(), "not on the packet path: {}", strays.join("; "));
    Ok(())
}
