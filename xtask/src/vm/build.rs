//! The programs that a guest runs. On the machine that it is like they are those that
//! `cargo xtask test` builds anyhow, with the libraries that they load here; for another one they
//! are built without a need for any.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, ensure};
use serde_json::Value;

use super::kernels;
use super::steps::Step;
use crate::arch::Arch;
use crate::cross::Toolchain;
use crate::program::Program;
use crate::shell;

/// Tests of the package wsproxy-tests.
const TESTS: [&str; 5] = ["behaviour", "frames", "namespaces", "packet", "torture"];
/// Tests of the program itself, by their names in the guest, where two names would be equal.
const PROGRAM_TESTS: [(&str, &str); 2] =
    [("program-packet", "packet"), ("program-persist", "persist")];
/// What is there whatever the steps are.
const BINARIES: [&str; 2] = ["wsproxy", "leftovers"];
/// Static, so that the guest needs no library, and without a warning.
const FLAGS: [&str; 2] = ["-Ctarget-feature=+crt-static", "-Dwarnings"];

/// What was built.
pub struct Programs {
    /// Files here, by their names in the guest.
    pub files: BTreeMap<String, PathBuf>,
    /// What they load, by where they look for it; the loader is among them.
    pub libraries: BTreeSet<PathBuf>,
}

impl Programs {
    /// The program itself.
    pub fn wsproxy(&self) -> Result<&Path> {
        Ok(self.files.get("wsproxy").context("wsproxy was not built")?)
    }
}

/// Builds what these steps run.
pub fn programs(arch: Arch, steps: &[Step]) -> Result<Programs> {
    println!("building for {}", arch.name());
    let started: BTreeSet<_> = steps.iter().flat_map(Step::programs).collect();
    let wanted = |name: &str| BINARIES.contains(&name) || started.contains(name);
    let mut cargo = if arch.is_foreign() { foreign(arch)? } else { own() };
    cargo.args(["--message-format", "json-render-diagnostics"]);
    cargo.args(BINARIES.iter().flat_map(|name| ["--bin", name]));
    let tests = TESTS.iter().map(|name| (*name, *name)).chain(PROGRAM_TESTS);
    for (_, test) in tests.filter(|(name, _)| wanted(name)) {
        cargo.args(["--test", test]);
    }
    let output = cargo.stderr(Stdio::inherit()).output().context("could not start cargo")?;
    ensure!(output.status.success(), "building for {} failed", arch.name());
    let mut files = executables(&String::from_utf8_lossy(&output.stdout));
    files.retain(|name, _| wanted(name));
    let mut libraries = BTreeSet::new();
    if !arch.is_foreign() {
        for file in files.values() {
            let said = shell::output(Command::new("ldd").arg(file).env("LC_ALL", "C"))?;
            libraries.extend(loaded(&said));
        }
    }
    let programs = Programs { files, libraries };
    Program::read(programs.wsproxy()?)?.check(arch)?;
    Ok(programs)
}

/// The build of the tests: with the same features, which depend on what is built together.
fn own() -> Command {
    let mut cargo = shell::cargo();
    cargo.args(["build", "--locked", "--workspace", "--profile", "tests"]);
    cargo
}

fn foreign(arch: Arch) -> Result<Command> {
    let mut cargo = Toolchain::of(arch)?.cargo_build(&FLAGS);
    cargo.args(["--profile", "guest", "--package", "wsproxy", "--package", "wsproxy-tests"]);
    cargo.arg("--target-dir").arg(kernels::folder().join("build"));
    Ok(cargo)
}

/// The files in what `ldd` says; the kernel's own one is none.
fn loaded(said: &str) -> impl Iterator<Item = PathBuf> {
    let words = said.lines().filter_map(|line| {
        let place = line.split_once("=>").map_or(line, |(_, place)| place);
        place.split_whitespace().next()
    });
    words.filter(|word| word.starts_with('/')).map(PathBuf::from)
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
        let in_guest = PROGRAM_TESTS.iter().find(|(_, test)| of_program && *test == name);
        let in_guest = in_guest.map_or(name, |(in_guest, _)| *in_guest);
        found.insert(in_guest.to_owned(), PathBuf::from(path));
    }
    found
}

#[cfg(test)]
mod tests {
    use super::super::steps::STEPS;
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

    #[test]
    fn libraries_are_found_in_what_ldd_says() {
        let said = "\tlinux-vdso.so.1 (0x00007ffc)\n\tlibc.so.6 => /lib/x/libc.so.6 (0x00007f)\n\
                    \t/lib64/ld-linux-x86-64.so.2 (0x00007f)\n";
        let found: Vec<_> = loaded(said).collect();
        assert_eq!(found, [Path::new("/lib/x/libc.so.6"), "/lib64/ld-linux-x86-64.so.2".as_ref()]);
        assert_eq!(loaded("\tstatically linked\n").count(), 0);
    }

    #[test]
    fn each_program_of_a_step_is_known() {
        let scripts = ["auto", "["];
        for program in STEPS.iter().flat_map(Step::programs) {
            let is_test = TESTS.contains(&program)
                || PROGRAM_TESTS.iter().any(|(in_guest, _)| *in_guest == program);
            let known = is_test || BINARIES.contains(&program) || scripts.contains(&program);
            assert!(known, "{program}");
        }
    }
}
