//! Kernels and a few programs out of Debian's archive.

use std::path::PathBuf;

use anyhow::{Context, Result};
use clap::ValueEnum;

use crate::apt::{Apt, Suite};
use crate::arch::Arch;
use crate::shell;

/// The suite that the guests' programs come from.
const TOOLS: &str = "trixie";

/// A kernel by the name that one asks for it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Kernel {
    /// Too old for the kernel's paths: sessions are relayed.
    #[value(name = "5.10")]
    V5_10,
    /// The oldest one with all paths; classical filters instead of tcx.
    #[value(name = "6.1")]
    V6_1,
    /// With tcx.
    #[value(name = "6.12")]
    V6_12,
    /// What Debian has newest.
    Newest,
}

impl Kernel {
    /// All of them, the oldest first.
    pub const ALL: [Self; 4] = [Self::V5_10, Self::V6_1, Self::V6_12, Self::Newest];

    /// The name that one asks for it by.
    pub const fn name(self) -> &'static str {
        match self {
            Self::V5_10 => "5.10",
            Self::V6_1 => "6.1",
            Self::V6_12 => "6.12",
            Self::Newest => "newest",
        }
    }

    /// The suite that has it. The security archive of one that is out of support loses files that
    /// its lists still name, so that one is done without it.
    const fn suite(self) -> Suite<'static> {
        match self {
            Self::V5_10 => Suite { name: "bullseye", security: false },
            Self::V6_1 => Suite { name: "bookworm", security: true },
            Self::V6_12 => Suite { name: "trixie", security: true },
            Self::Newest => Suite { name: "sid", security: false },
        }
    }
}

/// An unpacked kernel.
pub struct Unpacked {
    /// As `uname -r` says it.
    pub release: String,
    /// Its package's version.
    pub version: String,
    /// The image that a boot loader would start.
    pub image: PathBuf,
    /// Where its modules are.
    pub modules: PathBuf,
}

/// The folder that all of this is in.
pub fn folder() -> PathBuf {
    shell::root().join("target/vm")
}

/// Fetches and unpacks a kernel.
pub fn kernel(kernel: Kernel, arch: Arch) -> Result<Unpacked> {
    let apt = Apt::open(kernel.suite(), arch)?;
    let meta = format!("linux-image-cloud-{}", arch.debian());
    let image = apt
        .depends(&meta)?
        .into_iter()
        .find(|name| name.starts_with("linux-image-"))
        .with_context(|| format!("{meta} depends on no kernel"))?;
    // Since 2026 image and modules are packages that the kernel's own one depends on.
    let mut packages = vec![image.clone()];
    let parts = ["linux-binary-", "linux-modules-"];
    let is_part = |name: &String| parts.iter().any(|part| name.starts_with(part));
    packages.extend(apt.depends(&image)?.into_iter().filter(is_part));
    let release = image.trim_start_matches("linux-image-").to_owned();
    let version = apt.version(&image)?;
    let unpacked = apt.unpack(&format!("kernel-{release}-{version}"), &packages)?;
    let modules = ["usr/lib/modules", "lib/modules"]
        .map(|folder| unpacked.join(folder).join(&release))
        .into_iter()
        .find(|folder| folder.exists())
        .with_context(|| format!("{release} has no modules"))?;
    // Since Linux 7 it lies beside the modules.
    let image = [unpacked.join("boot").join(format!("vmlinuz-{release}")), modules.join("vmlinuz")]
        .into_iter()
        .find(|image| image.exists())
        .with_context(|| format!("{release} has no image"))?;
    Ok(Unpacked { release, version, image, modules })
}

/// Fetches and unpacks what the guests run besides: busybox, and iproute2 with its libraries.
pub fn tools(arch: Arch) -> Result<PathBuf> {
    let apt = Apt::open(Suite { name: TOOLS, security: false }, arch)?;
    let wanted = ["busybox-static", "iproute2"];
    let packages = apt.closure(&wanted)?;
    apt.unpack(&format!("tools-{}", apt.version("iproute2")?), &packages)
}
