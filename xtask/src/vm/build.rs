//! The programs that a guest runs, for its architecture and without a library.

use std::collections::BTreeMap;
use std::env;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, ensure};
use serde_json::Value;

use super::kernels::{self, Arch};
use crate::shell;

/// Tests of the package wsproxy-tests.
const TESTS: [&str; 5] = ["behaviour", "frames", "namespaces", "packet", "torture"];
/// Tests of the program itself; in the guest their names have `program-` in front.
const PROGRAM_TESTS: [&str; 2] = ["packet", "persist"];
/// Static, so that the guest needs no library, and without a warning.
const FLAGS: &str = "-Ctarget-feature=+crt-static -Dwarnings";
/// Debian's compiler, whose libraries for other architectures are packages.
const DISTRIBUTION_RUSTC: &str = "/usr/bin/rustc";
/// Libraries of Rust by Debian: with the compiler rustc-web, and with the compiler rustc.
const LIBRARIES: [&str; 2] = ["libstd-rust-web-dev", "libstd-rust-dev"];
const CROSS_LINKER: &str = "aarch64-linux-gnu-gcc";

impl Arch {
    /// The target's name, for the compiler.
    const fn target(self) -> &'static str {
        match self {
            Self::X86_64 => "x86_64-unknown-linux-gnu",
            Self::Arm64 => "aarch64-unknown-linux-gnu",
        }
    }
}

/// What was built: names in the guest, and files here.
pub struct Programs {
    /// By name.
    pub files: BTreeMap<String, PathBuf>,
}

impl Programs {
    /// The program itself.
    pub fn wsproxy(&self) -> Result<&Path> {
        Ok(self.files.get("wsproxy").context("wsproxy was not built")?)
    }
}

/// Builds them.
pub fn programs(arch: Arch) -> Result<Programs> {
    println!("building for {}", arch.name());
    let mut cargo = compiler(arch)?;
    // The linker strips what goes into the guest's memory.
    cargo.args(["build", "--locked", "--profile", "tests", "--target", arch.target()]);
    cargo.args(["--config", "profile.tests.strip='symbols'"]);
    cargo.arg("--target-dir").arg(kernels::folder().join("build"));
    cargo.args(["--message-format", "json-render-diagnostics"]);
    cargo.args(["--package", "wsproxy", "--package", "wsproxy-tests", "--bins"]);
    let tests = TESTS.iter().chain(&PROGRAM_TESTS);
    tests.for_each(|test| {
        cargo.args(["--test", test]);
    });
    let output = cargo.stderr(Stdio::inherit()).output().context("could not start cargo")?;
    ensure!(output.status.success(), "building for {} failed", arch.name());
    let files = executables(&String::from_utf8_lossy(&output.stdout));
    let programs = Programs { files };
    programs.wsproxy()?;
    Ok(programs)
}

/// The programs in cargo's messages, by the names that they get in the guest.
fn executables(messages: &str) -> BTreeMap<String, PathBuf> {
    let mut found = BTreeMap::new();
    for message in messages.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok()) {
        let target = &message["target"];
        let (Some(path), Some(name), Some(package)) = (
            message["executable"].as_str(),
            target["name"].as_str(),
            message["package_id"].as_str(),
        ) else {
            continue;
        };
        let is_test = target["kind"][0] == "test";
        let of_program = is_test && !package.contains("#wsproxy-tests@");
        let prefix = if of_program { "program-" } else { "" };
        found.insert(format!("{prefix}{name}"), PathBuf::from(path));
    }
    found
}

/// A cargo that builds for this architecture; its sub-command is still to be added.
fn compiler(arch: Arch) -> Result<Command> {
    let mut cargo = shell::cargo();
    cargo.env_remove("RUSTFLAGS").env_remove("CARGO_ENCODED_RUSTFLAGS");
    let name = |what: &str| {
        let target = arch.target().to_uppercase().replace('-', "_");
        format!("CARGO_TARGET_{target}_{what}")
    };
    let mut flags = FLAGS.to_owned();
    if shell::host()? != arch.target() {
        cargo.env(name("LINKER"), CROSS_LINKER);
        if !has_libraries(Path::new("rustc"), arch, None) {
            let root = distribution_libraries(arch)?;
            flags = format!("{flags} --sysroot={}", root.display());
            cargo.env("RUSTC", DISTRIBUTION_RUSTC);
        }
    }
    cargo.env(name("RUSTFLAGS"), flags);
    Ok(cargo)
}

/// Whether a compiler has Rust's library for this architecture.
fn has_libraries(rustc: &Path, arch: Arch, root: Option<&Path>) -> bool {
    let mut command = Command::new(rustc);
    command.args(["--print", "target-libdir", "--target", arch.target()]);
    if let Some(root) = root {
        command.arg("--sysroot").arg(root);
    }
    let folder = shell::output(&mut command).unwrap_or_default();
    Path::new(folder.trim()).read_dir().is_ok_and(|mut files| {
        files.any(|file| {
            file.is_ok_and(|file| file.file_name().to_string_lossy().starts_with("libstd-"))
        })
    })
}

/// Debian's library for another architecture, unpacked: a folder for `--sysroot`. It has to be of
/// the version that the compiler has.
fn distribution_libraries(arch: Arch) -> Result<PathBuf> {
    let (package, version) = LIBRARIES
        .into_iter()
        .find_map(|name| Some((name, installed_version(name)?)))
        .with_context(|| cross_help(arch))?;
    let suite = distribution().with_context(|| cross_help(arch))?;
    let unpacked = kernels::package(&suite, arch, package, &version)?;
    let root = kernels::folder().join(format!("sysroot-{}-{version}", arch.name()));
    let libraries = root.join("lib/rustlib");
    fs::create_dir_all(&libraries).context("a folder for Rust's libraries")?;
    let link = libraries.join(arch.target());
    if !link.exists() {
        let found = find_library(&unpacked.join("usr"), arch).with_context(|| cross_help(arch))?;
        std::os::unix::fs::symlink(found, &link).context("a link to Rust's libraries")?;
    }
    ensure!(
        has_libraries(Path::new(DISTRIBUTION_RUSTC), arch, Some(&root)),
        "{package} {version} has no library for {}",
        arch.name()
    );
    Ok(root)
}

/// The folder `rustlib/TARGET` in an unpacked package.
fn find_library(usr: &Path, arch: Arch) -> Option<PathBuf> {
    let folders = ["lib".into(), format!("lib/{}-linux-gnu", "aarch64"), "lib/rust-web".into()];
    let places = folders.map(|folder: String| usr.join(folder).join("rustlib").join(arch.target()));
    places.into_iter().find(|place| place.exists())
}

/// The version of a package that is installed.
fn installed_version(package: &str) -> Option<String> {
    let format = "${db:Status-Status} ${Version}";
    let said =
        shell::output(Command::new("dpkg-query").args(["-W", "-f", format, package])).ok()?;
    said.trim().strip_prefix("installed ").map(str::to_owned)
}

/// The name of this machine's suite of Debian.
fn distribution() -> Option<String> {
    let text = fs::read_to_string("/etc/os-release").ok()?;
    let line = text.lines().find_map(|line| line.strip_prefix("VERSION_CODENAME="))?;
    Some(line.trim_matches('"').to_owned())
}

fn cross_help(arch: Arch) -> String {
    format!("Rust's library is not there; get it with `rustup target add {}`", arch.target())
}

/// What is missing to build for this architecture, if something is.
pub fn missing(arch: Arch) -> Option<String> {
    let foreign = shell::host().is_ok_and(|host| host != arch.target());
    if !foreign {
        return None;
    }
    if arch != Arch::Arm64 {
        return Some(format!("programs for {} are built only there", arch.name()));
    }
    if shell::find_program(&[CROSS_LINKER]).is_none() {
        let packages = "gcc-aarch64-linux-gnu libc6-dev-arm64-cross";
        let how = format!("install it with `apt-get install {packages}`");
        return Some(format!("{CROSS_LINKER} is not there; {how}"));
    }
    let known = has_libraries(Path::new("rustc"), arch, None)
        || (Path::new(DISTRIBUTION_RUSTC).exists()
            && LIBRARIES.iter().any(|name| installed_version(name).is_some()));
    (!known).then(|| cross_help(arch))
}

/// Whether this is a machine with apt, which kernels are fetched by.
pub fn has_apt() -> bool {
    ["apt-get", "apt-cache", "dpkg-deb", "xz", "timeout"]
        .iter()
        .all(|program| shell::find_program(&[program]).is_some())
        && env::consts::OS == "linux"
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn programs_are_found_in_cargos_messages() {
        let message = |name: &str, kind: &str, package: &str, path: &str| {
            let target = serde_json::json!({ "name": name, "kind": [kind] });
            let message = serde_json::json!({
                "target": target, "package_id": package, "executable": path,
            });
            message.to_string()
        };
        let (tests, program) = (
            "path+file:///wsproxy/tests#wsproxy-tests@0.1.0",
            "path+file:///wsproxy/wsproxy#0.1.0",
        );
        let messages = [
            message("packet", "test", tests, "/t/packet-1"),
            message("packet", "test", program, "/t/packet-2"),
            message("wsproxy", "bin", program, "/t/wsproxy"),
            r#"{"reason":"build-finished","success":true}"#.to_owned(),
            "not JSON".to_owned(),
        ];
        let found = executables(&messages.join("\n"));
        let names: Vec<_> = found.keys().map(String::as_str).collect();
        assert_eq!(names, ["packet", "program-packet", "wsproxy"]);
        assert_eq!(found["program-packet"], Path::new("/t/packet-2"));
    }
}
