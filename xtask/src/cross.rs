//! Building programs for arm64 on another machine: GNU's linker, and Rust's library for arm64 from
//! rustup or, without that, from Debian's archive.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail, ensure};

use crate::apt::{Apt, Suite};
use crate::arch::Arch;
use crate::shell;

const LINKER: &str = "aarch64-linux-gnu-gcc";
/// Debian's compiler, whose libraries for other machines are packages.
const RUSTC: &str = "/usr/bin/rustc";
/// Packages of Rust's library: of the compiler rustc-web, and of the compiler rustc.
const LIBRARIES: [&str; 2] = ["libstd-rust-web-dev", "libstd-rust-dev"];
/// Where these packages have it.
const PLACES: [&str; 4] =
    ["usr/lib", "usr/lib/aarch64-linux-gnu", "usr/lib/rust-web", "usr/lib/rust"];

/// What builds programs for a machine.
pub struct Toolchain {
    arch: Arch,
    /// Another compiler than cargo's own.
    rustc: Option<&'static str>,
    /// Where Rust's library is, if it is not the compiler's own.
    sysroot: Option<PathBuf>,
}

impl Toolchain {
    /// What is there for this machine; what has to be fetched is below `target/apt`.
    pub fn of(arch: Arch) -> Result<Self> {
        if let Some(what) = missing(arch) {
            bail!("{what}");
        }
        let own = Self { arch, rustc: None, sysroot: None };
        if !arch.is_foreign() || has_library("rustc", arch, None) {
            return Ok(own);
        }
        let sysroot = distribution_library(arch).with_context(|| advice(arch))?;
        Ok(Self { rustc: Some(RUSTC), sysroot: Some(sysroot), ..own })
    }

    /// A `cargo build` for this machine, with these flags for the compiler and none of the user's.
    pub fn cargo_build(&self, flags: &[&str]) -> Command {
        let mut cargo = shell::cargo();
        cargo.args(["build", "--locked", "--target", self.arch.target()]);
        if self.arch.is_foreign() {
            cargo.env("CARGO_TARGET_AARCH64_UNKNOWN_LINUX_GNU_LINKER", LINKER);
        }
        if let Some(rustc) = self.rustc {
            cargo.env("RUSTC", rustc);
        }
        let mut flags: Vec<_> = flags.iter().map(|flag| (*flag).to_owned()).collect();
        flags.extend(self.sysroot.iter().map(|root| format!("--sysroot={}", root.display())));
        // It goes before all other places that a user may have flags in.
        cargo.env("CARGO_ENCODED_RUSTFLAGS", flags.join("\x1f"));
        cargo
    }
}

/// What is missing to build for this machine, if something is.
pub fn missing(arch: Arch) -> Option<String> {
    if !arch.is_foreign() {
        return None;
    }
    if arch != Arch::Arm64 {
        return Some(format!("programs for {} are built only there", arch.name()));
    }
    if shell::find_program(&[LINKER]).is_none() {
        let packages = "gcc-aarch64-linux-gnu libc6-dev-arm64-cross";
        let how = format!("install it with `apt-get install {packages}`");
        return Some(format!("{LINKER} is not there; {how}"));
    }
    let known = has_library("rustc", arch, None)
        || (Path::new(RUSTC).exists() && installed_library().is_some());
    (!known).then(|| advice(arch))
}

fn advice(arch: Arch) -> String {
    let (name, target) = (arch.name(), arch.target());
    format!("Rust has no library for {name}; get it with `rustup target add {target}`")
}

/// Whether a compiler has Rust's library for this machine.
fn has_library(rustc: &str, arch: Arch, sysroot: Option<&Path>) -> bool {
    let mut command = Command::new(rustc);
    command.args(["--print", "target-libdir", "--target", arch.target()]);
    if let Some(root) = sysroot {
        command.arg("--sysroot").arg(root);
    }
    let folder = shell::output(&mut command).unwrap_or_default();
    let mut files = Path::new(folder.trim()).read_dir().into_iter().flatten().flatten();
    files.any(|file| file.file_name().to_string_lossy().starts_with("libstd-"))
}

/// Debian's library, unpacked: a folder for `--sysroot`. It has to be of the version that the
/// compiler has.
fn distribution_library(arch: Arch) -> Result<PathBuf> {
    let (package, version) = installed_library().context("Debian's compiler is not installed")?;
    let suite = codename().context("/etc/os-release has no VERSION_CODENAME")?;
    let apt = Apt::open(Suite { name: &suite, security: true }, arch)?;
    let unpacked =
        apt.unpack(&format!("{package}-{version}"), &[format!("{package}={version}")])?;
    let sysroot = unpacked.join("sysroot");
    let link = sysroot.join("lib/rustlib").join(arch.target());
    if !link.exists() {
        let places = PLACES.map(|place| unpacked.join(place).join("rustlib").join(arch.target()));
        let found = places.into_iter().find(|place| place.exists());
        let found = found.with_context(|| format!("{package} {version} has no library"))?;
        fs::create_dir_all(sysroot.join("lib/rustlib")).context("a folder for Rust's library")?;
        // From an attempt that broke off.
        let _gone = fs::remove_file(&link);
        std::os::unix::fs::symlink(found, &link).context("a link to Rust's library")?;
    }
    let name = arch.name();
    ensure!(has_library(RUSTC, arch, Some(&sysroot)), "{package} {version} is not for {name}");
    Ok(sysroot)
}

/// The library of this machine that is installed, and its version.
fn installed_library() -> Option<(&'static str, String)> {
    LIBRARIES.into_iter().find_map(|package| {
        let mut query = Command::new("dpkg-query");
        query.args(["-W", "-f", "${db:Status-Status} ${Version}", package]);
        let said = shell::output(&mut query).ok()?;
        Some((package, said.trim().strip_prefix("installed ")?.to_owned()))
    })
}

/// The name of this machine's suite of Debian.
fn codename() -> Option<String> {
    let text = fs::read_to_string("/etc/os-release").ok()?;
    let line = text.lines().find_map(|line| line.strip_prefix("VERSION_CODENAME="))?;
    Some(line.trim_matches('"').to_owned())
}
