//! The benchmark: builds what it needs, runs it, and puts the newest run into the documents.

use std::fs;
use std::path::Path;
use std::process::Command;

use anyhow::{Context as _, Result, ensure};

use crate::{setup, shell};

/// Where a run's files are left.
const OUT: &str = "target/bench";
/// The profile with the names that callgrind looks for.
const WITH_NAMES: &str = "bench-tool";
/// Where the documents keep the plots.
const PLOTS: &str = "docs/benchmarks";
/// What is between these lines is the newest run's.
const BEGIN: &str = "<!-- newest run: written by `cargo xtask bench --publish` -->";
const END: &str = "<!-- end of the newest run -->";

/// Runs the benchmark with further arguments for `wsproxy-bench run`.
pub fn main(quick: bool, publish: bool, arguments: &[String]) -> Result<()> {
    shell::run(shell::cargo().args(["build", "--release", "--locked"]).args([
        "--package",
        "wsproxy",
        "--package",
        "wsproxy-bench",
    ]))?;
    let mut bench = Command::new(shell::root().join("target/release/wsproxy-bench"));
    bench.current_dir(shell::root()).args(["run", "--out", OUT]);
    let peers = setup::default_folder();
    if peers.join("node_modules/ws").exists() {
        bench.arg("--peers").arg(&peers);
    }
    if quick {
        bench.arg("--quick");
    }
    bench.args(arguments);
    shell::run(&mut bench)?;
    if publish { self::publish() } else { Ok(()) }
}

/// Counts the instructions of the pure parts under callgrind.
pub fn instructions(update: bool) -> Result<()> {
    let build = ["build", "--locked", "--profile", WITH_NAMES, "--package", "wsproxy-bench"];
    shell::run(shell::cargo().args(build))?;
    let mut bench =
        Command::new(shell::root().join("target").join(WITH_NAMES).join("wsproxy-bench"));
    bench.arg("instructions");
    if update {
        bench.arg("--update");
    }
    shell::run(&mut bench)
}

/// Copies the newest run into docs/BENCHMARKS.md and the README.
fn publish() -> Result<()> {
    let out = shell::root().join(OUT);
    let plots = shell::root().join(PLOTS);
    fs::create_dir_all(&plots).context(PLOTS)?;
    for entry in fs::read_dir(&out).with_context(|| out.display().to_string())? {
        let path = entry?.path();
        let is_ours = path.extension().is_some_and(|kind| kind == "svg" || kind == "json");
        if let (true, Some(name)) = (is_ours, path.file_name()) {
            fs::copy(&path, plots.join(name)).with_context(|| path.display().to_string())?;
        }
    }
    let report = read(&out.join("report.md"))?.replace("](", "](benchmarks/");
    put(&shell::root().join("docs/BENCHMARKS.md"), &report)?;
    put(&shell::root().join("README.md"), &read(&out.join("extract.md"))?)
}

fn read(path: &Path) -> Result<String> {
    fs::read_to_string(path).with_context(|| path.display().to_string())
}

/// Replaces what is between the two lines of a document.
fn put(path: &Path, text: &str) -> Result<()> {
    let name = path.display();
    let replaced = between(&read(path)?, text).with_context(|| format!("{name}: the marks"))?;
    fs::write(path, replaced).with_context(|| name.to_string())
}

fn between(document: &str, text: &str) -> Result<String> {
    let (before, rest) = document.split_once(BEGIN).context("there is no line of the beginning")?;
    let (old, after) = rest.split_once(END).context("there is no line of the end")?;
    ensure!(!old.contains(BEGIN), "two beginnings");
    Ok(format!("{before}{BEGIN}\n\n{}\n\n{END}{after}", text.trim()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_is_between_the_marks_is_replaced() {
        let document = format!("a\n{BEGIN}\nold\n{END}\nz\n");
        let new = between(&document, "new\n").expect("the marks are there");
        assert_eq!(new, format!("a\n{BEGIN}\n\nnew\n\n{END}\nz\n"));
        assert!(between("nothing", "new").is_err());
    }
}
