//! `cargo xtask vm`: wsproxy on other kernels and on arm64, in guests of qemu.
//!
//! A guest is a kernel of Debian's and a file system in memory with our programs; it runs its steps,
//! writes what comes of them to its console, and turns itself off.

mod build;
mod cpio;
mod expected;
mod guest;
mod kernels;
mod modules;
mod publish;
mod qemu;
mod report;
mod steps;

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::fs;
use std::str::FromStr;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use clap::ValueEnum;

use build::Programs;
use expected::Expected;
use report::Report;
use steps::{Plan, Step};

use crate::arch::Arch;
use crate::{apt, cross, shell};

pub use kernels::Kernel;
pub use steps::{AUTO, DOCTOR, SHORT};

/// Architectures by name: one, or all of them.
#[derive(Clone, Debug)]
pub struct Archs(pub Vec<Arch>);

/// Kernels by name: one, or all of them.
#[derive(Clone, Debug)]
pub struct Kernels(pub Vec<Kernel>);

impl FromStr for Archs {
    type Err = String;

    fn from_str(name: &str) -> std::result::Result<Self, String> {
        if name == "all" {
            return Ok(Self(Arch::ALL.to_vec()));
        }
        Ok(Self(vec![Arch::from_str(name, false)?]))
    }
}

impl FromStr for Kernels {
    type Err = String;

    fn from_str(name: &str) -> std::result::Result<Self, String> {
        if name == "all" {
            return Ok(Self(Kernel::ALL.to_vec()));
        }
        Ok(Self(vec![Kernel::from_str(name, false)?]))
    }
}

/// A guest may take this besides its steps: the boot, and the end.
const BOOT: Duration = Duration::from_secs(240);
/// Whatever the steps' limits are together, a guest is ended after this.
const GUEST_LIMIT: Duration = Duration::from_secs(90 * 60);
/// Lines that are shown of a step that failed, and of a console.
const SHOWN: usize = 60;

/// A kernel in a guest, and what came of it.
pub struct Boot {
    /// The guest's architecture.
    pub arch: Arch,
    /// The version of the kernel's package.
    pub version: String,
    /// What came of it.
    pub report: Report,
    /// Steps that this kernel can't run, and why.
    pub skipped: Vec<(&'static str, String)>,
    /// How long it took.
    pub took: Duration,
}

/// What is missing here to run guests of these architectures, if something is.
pub fn missing(archs: &[Arch]) -> Option<String> {
    if shell::find_program(&["xz"]).is_none() {
        return Some("xz is not there; install it with `apt-get install xz-utils`".into());
    }
    let of = |arch: &Arch| qemu::missing(*arch).or_else(|| cross::missing(*arch));
    archs.iter().find_map(of).or_else(apt::missing)
}

/// `cargo xtask vm`.
pub fn main(archs: &[Arch], kernels: &[Kernel], filter: &[String], publishes: bool) -> Result<()> {
    if let Some(what) = missing(archs) {
        bail!("{what}");
    }
    let mut boots = Vec::new();
    for arch in archs {
        for kernel in kernels {
            boots.push((*kernel, *arch));
        }
    }
    let boots = run(&boots, filter)?;
    if publishes {
        publish::write(&boots)?;
    }
    let failed: Vec<_> =
        boots.iter().filter(|boot| !boot.report.passed()).map(Boot::name).collect();
    if failed.is_empty() { Ok(()) } else { bail!("failed: {}", failed.join(", ")) }
}

/// Boots these one after the other, whatever comes of each; prints what did.
fn run(wanted: &[(Kernel, Arch)], filter: &[String]) -> Result<Vec<Boot>> {
    let steps = steps::wanted(filter);
    let mut built: BTreeMap<Arch, Programs> = BTreeMap::new();
    let mut boots = Vec::new();
    for &(kernel, arch) in wanted {
        let programs = match built.entry(arch) {
            Entry::Occupied(there) => there.into_mut(),
            Entry::Vacant(place) => place.insert(build::programs(arch, &steps)?),
        };
        let boot = one(kernel, arch, programs, &steps)
            .with_context(|| format!("Linux {} on {}", kernel.name(), arch.name()))?;
        boot.print();
        boots.push(boot);
    }
    Ok(boots)
}

fn one(kernel: Kernel, arch: Arch, programs: &Programs, steps: &[Step]) -> Result<Boot> {
    let unpacked = kernels::kernel(kernel, arch)?;
    let tools = kernels::tools(arch)?;
    let expected = Expected::of_release(&unpacked.release)?;
    let Plan { run, skipped } = steps::plan(&expected, steps);
    let name = format!("{}-{}", kernel.name(), arch.name());
    let runs = kernels::folder().join("run");
    fs::create_dir_all(&runs).context("a folder for runs")?;
    let (files, log) = (runs.join(format!("{name}.cpio")), runs.join(format!("{name}.log")));
    guest::write(&files, &run, programs, &modules::wanted(&unpacked.modules)?, &tools)?;
    println!("booting Linux {} on {}: {}", unpacked.release, arch.name(), log.display());
    let started = Instant::now();
    let limit = limit(&run);
    let (console, in_time) = qemu::boot(arch, &unpacked.image, &files, &log, limit)?;
    fs::remove_file(&files).context("the guest's files")?;
    let report = Report::read(&console, in_time, &run, &expected);
    if !report.complaints.is_empty() {
        println!("{}\nthe console ended so", report::tail(&console, SHOWN));
    }
    let took = started.elapsed();
    Ok(Boot { arch, version: unpacked.version, report, skipped, took })
}

fn limit(steps: &[Step]) -> Duration {
    let steps: u32 = steps.iter().map(|step| step.limit).sum();
    (BOOT + Duration::from_secs(steps.into())).min(GUEST_LIMIT)
}

impl Boot {
    fn name(&self) -> String {
        format!("{} on {}", self.report.release, self.arch.name())
    }

    fn print(&self) {
        for step in self.report.ran.iter().filter(|step| step.failure.is_some()) {
            println!("--- {} failed:\n{}", step.name, report::tail(&step.output, SHOWN));
        }
        println!("Linux {}, {:.0} s", self.name(), self.took.as_secs_f64());
        for step in &self.report.ran {
            let tests =
                if step.tests > 0 { format!("{} tests", step.tests) } else { String::new() };
            let (word, why) = match &step.failure {
                None => ("passed", tests.as_str()),
                Some(why) => ("FAILED", why.as_str()),
            };
            println!("  {:<22} {word}  {why}", step.name);
        }
        for (name, why) in &self.skipped {
            println!("  {name:<22} skipped  {why}");
        }
        for fault in &self.report.known {
            println!("  met: {fault}");
        }
        for complaint in &self.report.complaints {
            println!("  COMPLAINT: {complaint}");
        }
    }
}
