//! The programs that a guest runs, for its architecture and without a library.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Stdio;

use anyhow::{Context, Result, ensure};
use serde_json::Value;

use super::kernels;
use crate::arch::Arch;
use crate::cross::Toolchain;

/// Tests of the package wsproxy-tests.
const TESTS: [&str; 5] = ["behaviour", "frames", "namespaces", "packet", "torture"];
/// Tests of the program itself; in the guest their names have `program-` in front.
const PROGRAM_TESTS: [&str; 2] = ["packet", "persist"];
/// Static, so that the guest needs no library, and without a warning.
const FLAGS: [&str; 2] = ["-Ctarget-feature=+crt-static", "-Dwarnings"];

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
    let mut cargo = Toolchain::of(arch)?.cargo_build(&FLAGS);
    // The linker strips what goes into the guest's memory.
    cargo.args(["--profile", "tests", "--config", "profile.tests.strip='symbols'"]);
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
