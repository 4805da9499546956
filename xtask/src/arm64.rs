//! Building programs for arm64 on another machine: GNU's linker, and Rust's library for arm64 from
//! rustup or, without that, from Debian's archive.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, ensure};

use crate::shell;

/// The compiler's name for it.
pub const TARGET: &str = "aarch64-unknown-linux-gnu";
const LINKER: &str = "aarch64-linux-gnu-gcc";
/// Debian's compiler, and the package with the library that fits it.
const RUSTC: &str = "/usr/bin/rustc";
const LIBRARIES: [&str; 2] = ["libstd-rust-web-dev", "libstd-rust-dev"];

/// What cargo has to be told.
pub struct Toolchain {
    /// Another compiler than cargo's own.
    pub rustc: Option<&'static str>,
    /// Where Rust's library is, if it is not the compiler's own.
    pub sysroot: Option<PathBuf>,
}

impl Toolchain {
    /// Tells it to cargo; the flag for the library is for the caller to put with the others.
    pub fn apply(&self, cargo: &mut Command) {
        if shell::host().is_ok_and(|host| host != TARGET) {
            cargo.env("CARGO_TARGET_AARCH64_UNKNOWN_LINUX_GNU_LINKER", LINKER);
        }
        if let Some(rustc) = self.rustc {
            cargo.env("RUSTC", rustc);
        }
    }
}

/// What is there for it; `folder` keeps what has to be fetched.
pub fn toolchain(folder: &Path) -> Result<Toolchain> {
    let own = Toolchain { rustc: None, sysroot: None };
    if shell::host()? == TARGET {
        return Ok(own);
    }
    ensure!(
        shell::find_program(&[LINKER]).is_some(),
        "{LINKER} is not there; install it with \
         `apt-get install gcc-aarch64-linux-gnu libc6-dev-arm64-cross`"
    );
    if has_library("rustc", None) {
        return Ok(own);
    }
    let how = format!("Rust has no library for arm64; get it with `rustup target add {TARGET}`");
    let (package, version) = installed().with_context(|| how.clone())?;
    let sysroot = folder.join(format!("sysroot-{version}"));
    if !has_library(RUSTC, Some(&sysroot)) {
        fetch(&package, &version, folder, &sysroot).with_context(|| how.clone())?;
    }
    ensure!(has_library(RUSTC, Some(&sysroot)), "{how}");
    Ok(Toolchain { rustc: Some(RUSTC), sysroot: Some(sysroot) })
}

fn has_library(rustc: &str, sysroot: Option<&Path>) -> bool {
    let mut command = Command::new(rustc);
    command.args(["--print", "target-libdir", "--target", TARGET]);
    if let Some(root) = sysroot {
        command.arg("--sysroot").arg(root);
    }
    let folder = shell::output(&mut command).unwrap_or_default();
    let mut files = Path::new(folder.trim()).read_dir().into_iter().flatten().flatten();
    files.any(|file| file.file_name().to_string_lossy().starts_with("libstd-"))
}

/// The library of this machine that is installed, and its version: that for arm64 must be equal.
fn installed() -> Option<(String, String)> {
    LIBRARIES.iter().find_map(|package| {
        let mut query = Command::new("dpkg-query");
        query.args(["-W", "-f", "${db:Status-Status} ${Version}", package]);
        let version = shell::output(&mut query).ok()?;
        let version = version.trim().strip_prefix("installed ")?;
        Some(((*package).to_owned(), version.to_owned()))
    })
}

/// Unpacks the package beside the system, by a state of apt's own.
fn fetch(package: &str, version: &str, folder: &Path, sysroot: &Path) -> Result<()> {
    let apt = folder.join("apt");
    for part in ["state/lists/partial", "cache/archives/partial"] {
        fs::create_dir_all(apt.join(part)).context("a folder for apt")?;
    }
    fs::write(apt.join("status"), "").context("apt's status")?;
    let options = [
        "APT::Architecture=arm64".to_owned(),
        "APT::Architectures::=arm64".to_owned(),
        "APT::Sandbox::User=root".to_owned(),
        format!("Dir::State={}", apt.join("state").display()),
        format!("Dir::State::status={}", apt.join("status").display()),
        format!("Dir::Cache={}", apt.join("cache").display()),
    ];
    let run = |arguments: &[&str]| {
        let mut command = Command::new("apt-get");
        options.iter().for_each(|option| {
            command.arg("-o").arg(option);
        });
        shell::run(command.args(arguments).current_dir(&apt))
    };
    run(&["-qq", "update"])?;
    run(&["-qq", "download", &format!("{package}:arm64={version}")])?;
    let files = fs::read_dir(&apt).context("apt's folder")?.flatten().map(|file| file.path());
    let package = files.filter(|path| path.extension().is_some_and(|kind| kind == "deb")).max();
    let package = package.context("apt has downloaded nothing")?;
    let unpacked = folder.join(format!("unpacked-{version}"));
    shell::run(Command::new("dpkg-deb").arg("-x").arg(package).arg(&unpacked))?;
    let libraries = sysroot.join("lib/rustlib");
    fs::create_dir_all(&libraries).context("a folder for Rust's library")?;
    let places = ["usr/lib/rustlib", "usr/lib/rust-web/rustlib", "usr/lib/rust/rustlib"];
    let places = places.map(|place| unpacked.join(place).join(TARGET));
    let found = places.into_iter().find(|place| place.exists());
    let found = found.context("the package has no library for arm64")?;
    let link = libraries.join(TARGET);
    // From an attempt that broke off.
    let _gone = fs::remove_file(&link);
    std::os::unix::fs::symlink(found, link).context("a link to Rust's library")
}
