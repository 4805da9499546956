//! The chores of wsproxy, run as `cargo xtask <command>`.
//!
//! Nothing here is part of the program. `test` runs every check there is, the
//! other commands are its steps that are worth running alone.

mod apt;
mod arch;
mod bench;
mod cross;
mod digest;
mod dist;
mod ebpf;
mod fuzz;
mod package_test;
mod program;
mod setup;
mod shell;
mod steps;
mod test;
mod vm;

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Parser, Subcommand};

use arch::Arch;

/// The chores of wsproxy.
#[derive(Parser)]
#[command(name = "cargo xtask", bin_name = "cargo xtask")]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Build the BPF object that wsproxy embeds and that of the tests, or check the committed ones
    ///
    /// Writes wsproxy/ebpf-object/wsproxy.bpf.o and tests/ebpf-object/link.bpf.o, and beside
    /// each a STAMP that names the toolchain and the sources it came from. Only who changes
    /// wsproxy-ebpf, wsproxy-common or tests/link-ebpf needs this: everybody else builds with
    /// the committed objects.
    BuildEbpf {
        /// Write nothing: rebuild into target/ and compare with the committed objects
        #[arg(long)]
        check: bool,
        /// Build an object of wsproxy that logs each packet, for debugging, into target/
        #[arg(long, conflicts_with = "check")]
        log: bool,
    },
    /// Install the third-party WebSocket peers of the tests into the build folder
    ///
    /// A Python venv from tests/peers/requirements.txt and the packages of
    /// tests/peers/package-lock.json; does nothing while these are unchanged.
    Setup {
        /// Where to put them [default: target/peers]
        #[arg(long, value_name = "DIR")]
        dir: Option<PathBuf>,
    },
    /// Fuzz the parsers: first the committed corpus, then new inputs for a while
    ///
    /// Runs on stable Rust, without cargo-fuzz. New inputs stay in target/fuzz; the
    /// committed corpus is never written to.
    Fuzz {
        /// How long to look for new inputs, for each target; 0: the corpus only
        #[arg(long, value_name = "N", default_value_t = 30)]
        seconds: u32,
        /// Only this target [default: each of them]
        #[arg(value_enum)]
        target: Option<fuzz::Target>,
    },
    /// Measure wsproxy beside nginx, HAProxy and no proxy at all; needs root
    ///
    /// The report goes to target/bench. nginx and HAProxy are Debian's packages; what is not
    /// installed is skipped. `--quick` shows that everything works, not how fast it is.
    Bench {
        /// A few small scenarios, once
        #[arg(long)]
        quick: bool,
        /// Put the run into docs/BENCHMARKS.md and, unless it is that of `--gateway`,
        /// `--supervision` or `--packet`, the README
        #[arg(long, conflicts_with_all = ["quick", "instructions"])]
        publish: bool,
        /// Measure handshakes, plain requests and idle sessions beside nginx instead, with and
        /// without TLS; the report is target/bench/gateway.md
        #[arg(long, conflicts_with = "instructions")]
        gateway: bool,
        /// Measure instead what following frames and pings cost, and how even a drain is; the
        /// report is target/bench/supervision.md
        #[arg(long, conflicts_with_all = ["instructions", "gateway"])]
        supervision: bool,
        /// Measure instead the packet path beside no proxy and nginx; the report is
        /// target/bench/packet.md
        #[arg(long, conflicts_with_all = ["instructions", "gateway", "supervision"])]
        packet: bool,
        /// Count the instructions of the pure parts under callgrind instead, and compare them
        /// with the committed counts
        #[arg(long, conflicts_with = "quick")]
        instructions: bool,
        /// Write the counts instead of comparing them
        #[arg(long, requires = "instructions")]
        update: bool,
        /// Further arguments: see `target/bench-tool/wsproxy-bench run --help`, or `gateway --help`
        #[arg(last = true)]
        arguments: Vec<String>,
    },
    /// Run wsproxy on other kernels and on arm64, in guests of qemu
    ///
    /// Kernels of Debian's archive, under emulation: needs neither root nor KVM, and installs
    /// nothing. What is fetched and built stays in target/vm; consoles are in target/vm/run.
    Vm {
        /// The guest's architecture, or "all"
        #[arg(long, value_name = "ARCH", default_value = "x86_64")]
        arch: vm::Archs,
        /// 5.10, 6.1, 6.12, newest, or "all"
        #[arg(long, value_name = "KERNEL", default_value = "6.1")]
        kernel: vm::Kernels,
        /// Write what came of it to docs/KERNELS.md
        #[arg(long)]
        publish: bool,
        /// Only these steps, by name, or those whose names have one of these parts
        #[arg(last = true)]
        filter: Vec<String>,
    },
    /// Make what users install, into target/dist/out: static programs, packages, archives
    ///
    /// With man pages, completions, a bill of materials, licences and checksums. The same commit
    /// gives the same bytes.
    Dist {
        /// Only for this machine; may be given more than once [default: each]
        #[arg(long, value_enum)]
        arch: Vec<Arch>,
        /// Build each program a second time, in another folder, and compare
        #[arg(long)]
        check: bool,
    },
    /// Install, run, upgrade, remove and purge the package, in a copy of this system; needs root
    ///
    /// The copy is an overlay in namespaces, of which nothing is left. Packages the program of
    /// target/tests if no package is named.
    PackageTest {
        /// Test this package instead, of `cargo xtask dist`; one of another machine is looked into only
        #[arg(long, value_name = "FILE")]
        deb: Option<PathBuf>,
        /// In the namespaces already: where the copy and the packages are
        #[arg(long, value_name = "DIR", hide = true)]
        inside: Option<PathBuf>,
    },
    /// Run every check there is and print a summary
    ///
    /// Goes on after a failure. What this machine cannot run is skipped loudly, and is a
    /// failure where CI=true. The kernel's datapath needs root.
    Test {
        /// Torture for 10 minutes
        #[arg(long)]
        long: bool,
        /// Torture for so long [default: 20, with --long: 600]
        #[arg(long, value_name = "N")]
        torture_seconds: Option<u32>,
    },
}

fn main() -> ExitCode {
    if let Some(failure) = ebpf::become_rustc_if_asked() {
        return failure;
    }
    let done = match Cli::parse().command {
        Command::BuildEbpf { check: _, log: true } => ebpf::build_logging(),
        Command::BuildEbpf { check, log: false } => ebpf::main(check),
        Command::Setup { dir } => setup::main(dir),
        Command::Fuzz { seconds, target } => fuzz::main(target, seconds),
        Command::Bench { instructions: true, update, .. } => bench::instructions(update),
        Command::Bench { gateway: true, quick, publish, arguments, .. } => {
            bench::gateway(quick, publish, &arguments)
        }
        Command::Bench { supervision: true, quick, publish, arguments, .. } => {
            bench::supervision(quick, publish, &arguments)
        }
        Command::Bench { packet: true, quick, publish, arguments, .. } => {
            bench::packet(quick, publish, &arguments)
        }
        Command::Bench { quick, publish, arguments, .. } => bench::main(quick, publish, &arguments),
        Command::Vm { arch, kernel, publish, filter } => {
            vm::main(&arch.0, &kernel.0, &filter, publish)
        }
        Command::Dist { arch, check } => {
            dist::main(if arch.is_empty() { &Arch::ALL } else { &arch }, check)
        }
        Command::PackageTest { inside: Some(folder), .. } => package_test::inside(&folder),
        Command::PackageTest { deb, inside: None } => package_test::main(deb.as_deref()),
        Command::Test { long, torture_seconds } => {
            test::main(torture_seconds.unwrap_or(if long { 600 } else { 20 }))
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
