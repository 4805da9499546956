//! Every check there is, in order.

use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, ensure};

use crate::arch::Arch;
use crate::steps::{Outcome, Steps, command};
use crate::{bench, ebpf, fuzz, package_test, setup, shell, vm};

/// The crates that are not members of the workspace, each with a lock of its own.
const SEPARATE_CRATES: [&str; 3] =
    ["wsproxy-ebpf/Cargo.toml", "tests/link-ebpf/Cargo.toml", "fuzz/Cargo.toml"];
const FUZZ_SECONDS: u32 = 10;
const NOT_BUILT: &str = "it needs target/tests/wsproxy, which could not be built: see above";
/// What the tests are built with. The release profile is the benchmark's, which runs too.
const PROFILE: &str = "tests";

/// `cargo xtask test`.
pub fn main(torture_seconds: u32) -> Result<()> {
    let mut steps = Steps::new(shell::in_ci());
    steps.run("format", format);
    steps.run("clippy", clippy);
    steps.run("documentation", documentation);
    steps.run("licences, bans, sources", dependencies);
    steps.run("BPF objects", bpf_objects);
    steps.run("deployment examples", examples);
    // Before the build, which leaves the program without the feature for the steps behind it.
    steps.run("telemetry", telemetry);
    let built = steps.run("build", || command(cargo(&["build", "--package", "wsproxy"])))
        == Outcome::Passed;
    let kernel = steps.run("kernel datapath at hand", || kernel(built)) == Outcome::Passed;
    steps.run("workspace tests", || workspace_tests(torture_seconds, kernel));
    steps.run("torture", || torture(torture_seconds, kernel));
    steps.run("oldest kernel", oldest_kernel);
    steps.run("arm64", arm64);
    steps.run("third-party peers", || peers(built, kernel));
    steps.run("package", || package(built));
    steps.run("instruction counts", instructions);
    steps.run("benchmark, quick", || quick_benchmark(kernel));
    steps.run("fuzz", || fuzz::main(None, FUZZ_SECONDS).map(|()| Outcome::Passed));
    if !steps.finish() {
        // The counts stay the last line; the caller prints no error after them.
        std::process::exit(1);
    }
    Ok(())
}

fn format() -> Result<Outcome> {
    shell::run(shell::cargo().args(["fmt", "--all", "--check"]))?;
    for manifest in SEPARATE_CRATES {
        shell::run(shell::cargo().args(["fmt", "--check", "--manifest-path", manifest]))?;
    }
    Ok(Outcome::Passed)
}

fn clippy() -> Result<Outcome> {
    let arguments = ["--all-targets", "--locked", "--", "-Dwarnings"];
    shell::run(shell::cargo().args(["clippy", "--workspace"]).args(arguments))?;
    let telemetry = ["clippy", "--package", "wsproxy", "--features", "otel"];
    command(shell::cargo().args(telemetry).args(arguments))
}

fn documentation() -> Result<Outcome> {
    let arguments = ["doc", "--workspace", "--no-deps", "--locked"];
    command(shell::cargo().args(arguments).env("RUSTDOCFLAGS", "-Dwarnings"))
}

/// Not `advisories`, which needs a database from the network.
fn dependencies() -> Result<Outcome> {
    if shell::output(shell::cargo().args(["deny", "--version"])).is_err() {
        let why = "cargo-deny is not there; install it with `cargo install cargo-deny --locked`";
        return Ok(Outcome::Skipped(why.into()));
    }
    for manifest in ["Cargo.toml"].into_iter().chain(SEPARATE_CRATES) {
        println!("{manifest}");
        let mut deny = shell::cargo();
        deny.args([
            "deny",
            "--locked",
            "--all-features",
            "--log-level",
            "error",
            "--config",
            "deny.toml",
        ]);
        deny.args(["--manifest-path", manifest, "check", "licenses", "bans", "sources"]);
        shell::run(&mut deny).with_context(|| format!("the dependencies of {manifest}"))?;
    }
    Ok(Outcome::Passed)
}

/// The tests of the feature `otel`; those of a build without it are among the workspace's.
fn telemetry() -> Result<Outcome> {
    command(cargo(&["test", "--package", "wsproxy", "--features", "otel", "--test", "telemetry"]))
}

/// The form of what lies under `packaging`; whether the program takes it is a test of its own.
fn examples() -> Result<Outcome> {
    let programs = match setup::linters()? {
        Ok(programs) => programs,
        Err(missing) => return Ok(Outcome::Skipped(missing.to_string())),
    };
    let program = |name: &str, arguments: &[&str]| {
        let mut command = Command::new(programs.join(name));
        command.current_dir(shell::root().join("packaging")).args(arguments);
        shell::run(&mut command)
    };
    program("hadolint", &["container/Containerfile"])?;
    program("yamllint", &["--strict", "kubernetes", "compose"])?;
    let manifests = ["kubernetes/daemonset.yaml", "kubernetes/sidecar.yaml"];
    program("kubernetes-validate", &[&["--strict", "--quiet"], &manifests[..]].concat())?;
    Ok(Outcome::Passed)
}

fn bpf_objects() -> Result<Outcome> {
    Ok(match ebpf::check()? {
        ebpf::Checked::Same => Outcome::Passed,
        ebpf::Checked::NotCompared(why) => Outcome::Skipped(why),
    })
}

/// Whether the tests of the kernel's datapath can run, by what the program itself says.
fn kernel(built: bool) -> Result<Outcome> {
    ensure!(built, NOT_BUILT);
    let user = fs::metadata("/proc/self").context("cannot tell who runs this")?.uid();
    if user != 0 {
        let why = "the tests of the kernel's datapath need root: run this as root";
        return Ok(Outcome::Skipped(why.into()));
    }
    match shell::run(Command::new(binary()).arg("doctor")) {
        Ok(()) => Ok(Outcome::Passed),
        Err(error) => Ok(Outcome::Skipped(format!(
            "the tests of the kernel's datapath do not run, since this machine cannot do what \
             they need: {error:#}"
        ))),
    }
}

/// With `--long`, when the torture has minutes, the lossy links have as many.
fn workspace_tests(torture_seconds: u32, kernel: bool) -> Result<Outcome> {
    // All that fails is to be known at once.
    let mut cargo = cargo(&["test", "--workspace", "--no-fail-fast"]);
    if torture_seconds >= 60 {
        cargo.env("WSPROXY_LOSSY_SECONDS", torture_seconds.to_string());
    }
    // In CI a test that lacks its surroundings fails. Here that would be those of the peers,
    // and a missing kernel: both have steps of their own, which fail in CI.
    cargo.env_remove("CI");
    command(with_kernel(cargo, kernel))
}

fn torture(seconds: u32, kernel: bool) -> Result<Outcome> {
    let mut cargo = cargo(&["test", "--package", "wsproxy-tests", "--test", "torture"]);
    cargo.args(["--", "--nocapture"]).env("WSPROXY_TORTURE_SECONDS", seconds.to_string());
    command(with_kernel(cargo, kernel))
}

fn peers(built: bool, kernel: bool) -> Result<Outcome> {
    ensure!(built, NOT_BUILT);
    let folder = setup::default_folder();
    let missing = setup::peers(&folder)?;
    if !missing.is_empty() {
        let list: Vec<String> = missing.iter().map(ToString::to_string).collect();
        return Ok(Outcome::Skipped(list.join("\n")));
    }
    let mut cargo = cargo(&["test", "--package", "wsproxy-tests", "--test", "peers"]);
    cargo.env("WSPROXY_PEERS", folder).env("WSPROXY_BIN", binary());
    command(with_kernel(cargo, kernel))
}

/// The oldest kernel with all datapaths, in a guest: what its verifier takes, the self-test, what
/// `auto` chooses, and a part of the suite on the packet path. `cargo xtask vm --kernel all` runs
/// all suites, which emulation makes long.
fn oldest_kernel() -> Result<Outcome> {
    guest(Arch::of_host()?, vm::Kernel::V6_1)
}

/// Builds for arm64 and runs it there: the compiler of the kernel's BPF and the sizes and orders of
/// things are others.
fn arm64() -> Result<Outcome> {
    guest(Arch::Arm64, vm::Kernel::V6_12)
}

fn guest(arch: Arch, kernel: vm::Kernel) -> Result<Outcome> {
    if let Some(what) = vm::missing(&[arch]) {
        return Ok(Outcome::Skipped(what));
    }
    let steps = [vm::DOCTOR, vm::AUTO, vm::SHORT].map(str::to_owned);
    vm::main(&[arch], &[kernel], &steps, false).map(|()| Outcome::Passed)
}

/// The package of the program that was tested; the static ones of `cargo xtask dist` take longer to
/// build than all the rest.
fn package(built: bool) -> Result<Outcome> {
    ensure!(built, NOT_BUILT);
    match package_test::missing() {
        Some(missing) => Ok(Outcome::Skipped(missing)),
        None => package_test::main(None).map(|()| Outcome::Passed),
    }
}

fn instructions() -> Result<Outcome> {
    if shell::output(Command::new("valgrind").arg("--version")).is_err() {
        let why = "valgrind is not there; install it with `apt-get install valgrind`";
        return Ok(Outcome::Skipped(why.into()));
    }
    bench::instructions(false).map(|()| Outcome::Passed)
}

/// Shows that everybody can be measured; how fast they are is not looked at.
fn quick_benchmark(kernel: bool) -> Result<Outcome> {
    if !kernel {
        return Ok(Outcome::Skipped("it needs root and the kernel's datapath".into()));
    }
    let missing: Vec<&str> = ["/usr/sbin/nginx", "/usr/sbin/haproxy"]
        .into_iter()
        .filter(|path| !Path::new(path).exists())
        .collect();
    if !missing.is_empty() {
        return Ok(Outcome::Skipped(format!("not installed: {}", missing.join(", "))));
    }
    bench::main(true, false, &[])?;
    bench::gateway(true, false, &[])?;
    bench::supervision(true, false, &[]).map(|()| Outcome::Passed)
}

/// A cargo command on the locked build of the tests.
fn cargo(arguments: &[&str]) -> Command {
    let mut cargo = shell::cargo();
    cargo.args(arguments).args(["--locked", "--profile", PROFILE]);
    cargo
}

/// Tells the tests that what they need of the kernel is there, and a skip is a failure.
fn with_kernel(mut command: Command, kernel: bool) -> Command {
    if kernel {
        command.env("WSPROXY_KERNEL", "1");
    } else {
        command.env_remove("WSPROXY_KERNEL");
    }
    command
}

fn binary() -> PathBuf {
    shell::root().join("target").join(PROFILE).join("wsproxy")
}
