//! The benchmark: builds what it needs, runs it, and puts the newest run into the documents.

use std::fs;
use std::path::Path;
use std::process::Command;

use anyhow::{Context as _, Result, ensure};

use crate::{setup, shell};

/// Where a run's files are left.
const OUT: &str = "target/bench";
/// The release profile with the names that callgrind looks for: one build does for all.
const PROFILE: &str = "bench-tool";
/// Where the documents keep the plots.
const PLOTS: &str = "docs/benchmarks";
const BENCHMARKS: &str = "docs/BENCHMARKS.md";

/// What is between these two lines of a document is the newest run's.
struct Marks {
    begin: &'static str,
    end: &'static str,
}

const RUN: Marks = Marks {
    begin: "<!-- newest run: written by `cargo xtask bench --publish` -->",
    end: "<!-- end of the newest run -->",
};
const GATEWAY: Marks = Marks {
    begin: "<!-- newest run: written by `cargo xtask bench --gateway --publish` -->",
    end: "<!-- end of the newest run of the gateway -->",
};

const SUPERVISION: Marks = Marks {
    begin: "<!-- newest run: written by `cargo xtask bench --supervision --publish` -->",
    end: "<!-- end of the newest run of supervision -->",
};

const PACKET: Marks = Marks {
    begin: "<!-- newest run: written by `cargo xtask bench --packet --publish` -->",
    end: "<!-- end of the newest run of the packet path -->",
};

/// Runs the benchmark with further arguments for `wsproxy-bench run`.
pub fn main(quick: bool, publish: bool, arguments: &[String]) -> Result<()> {
    build()?;
    let mut bench = bench("run");
    let peers = setup::default_folder();
    if peers.join("node_modules/ws").exists() {
        bench.arg("--peers").arg(&peers);
    }
    run(bench, quick, arguments)?;
    if publish { self::publish() } else { Ok(()) }
}

/// Measures handshakes, plain requests and idle sessions beside nginx, with further arguments for
/// `wsproxy-bench gateway`.
pub fn gateway(quick: bool, publish: bool, arguments: &[String]) -> Result<()> {
    build()?;
    run(bench("gateway"), quick, arguments)?;
    if !publish {
        return Ok(());
    }
    let report = read(&shell::root().join(OUT).join("gateway.md"))?;
    put(&shell::root().join(BENCHMARKS), &GATEWAY, &report)
}

/// Measures what following frames and pings cost, with further arguments for
/// `wsproxy-bench supervision`.
pub fn supervision(quick: bool, publish: bool, arguments: &[String]) -> Result<()> {
    build()?;
    run(bench("supervision"), quick, arguments)?;
    if !publish {
        return Ok(());
    }
    let report = read(&shell::root().join(OUT).join("supervision.md"))?;
    put(&shell::root().join(BENCHMARKS), &SUPERVISION, &report)
}

/// Measures the packet path beside no proxy and nginx, with further arguments for
/// `wsproxy-bench packet`.
pub fn packet(quick: bool, publish: bool, arguments: &[String]) -> Result<()> {
    build()?;
    run(bench("packet"), quick, arguments)?;
    if !publish {
        return Ok(());
    }
    let report = read(&shell::root().join(OUT).join("packet.md"))?;
    put(&shell::root().join(BENCHMARKS), &PACKET, &report)
}

fn build() -> Result<()> {
    let build = ["build", "--locked", "--profile", PROFILE];
    let packages = ["--package", "wsproxy", "--package", "wsproxy-bench"];
    shell::run(shell::cargo().args(build).args(packages))
}

fn tool() -> Command {
    Command::new(shell::root().join("target").join(PROFILE).join("wsproxy-bench"))
}

fn bench(command: &str) -> Command {
    let mut bench = tool();
    bench.current_dir(shell::root()).args([command, "--out", OUT]);
    bench
}

fn run(mut bench: Command, quick: bool, arguments: &[String]) -> Result<()> {
    if quick {
        bench.arg("--quick");
    }
    shell::run(bench.args(arguments))
}

/// Counts the instructions of the pure parts under callgrind.
pub fn instructions(update: bool) -> Result<()> {
    build()?;
    let mut bench = tool();
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
    put(&shell::root().join(BENCHMARKS), &RUN, &report)?;
    put(&shell::root().join("README.md"), &RUN, &read(&out.join("extract.md"))?)
}

fn read(path: &Path) -> Result<String> {
    fs::read_to_string(path).with_context(|| path.display().to_string())
}

/// Replaces what is between the two lines of a document.
fn put(path: &Path, marks: &Marks, text: &str) -> Result<()> {
    let name = path.display();
    let replaced =
        between(&read(path)?, marks, text).with_context(|| format!("{name}: the marks"))?;
    fs::write(path, replaced).with_context(|| name.to_string())
}

fn between(document: &str, marks: &Marks, text: &str) -> Result<String> {
    let Marks { begin, end } = marks;
    let (before, rest) = document.split_once(begin).context("there is no line of the beginning")?;
    let (old, after) = rest.split_once(end).context("there is no line of the end")?;
    ensure!(!old.contains(begin), "two beginnings");
    Ok(format!("{before}{begin}\n\n{}\n\n{end}{after}", text.trim()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_is_between_the_marks_is_replaced() {
        let section = |marks: &Marks, text: &str| format!("{}{text}{}", marks.begin, marks.end);
        let gateway = section(&GATEWAY, "\nold\n");
        let document = format!("a\n{}\nb\n{gateway}\nz\n", section(&RUN, "\nold\n"));
        let new = between(&document, &RUN, "new\n").expect("the marks are there");
        let replaced = format!("a\n{}\nb\n{gateway}\nz\n", section(&RUN, "\n\nnew\n\n"));
        assert_eq!(new, replaced);
        let new = between(&document, &GATEWAY, "new\n").expect("the marks are there");
        assert_eq!(new, document.replace(&gateway, &section(&GATEWAY, "\n\nnew\n\n")));
        assert!(between("nothing", &RUN, "new").is_err());
    }

    #[test]
    fn the_documents_have_the_marks() {
        for (path, marks) in [
            ("README.md", RUN),
            (BENCHMARKS, RUN),
            (BENCHMARKS, GATEWAY),
            (BENCHMARKS, SUPERVISION),
            (BENCHMARKS, PACKET),
        ] {
            let document = read(&shell::root().join(path)).expect("it is there");
            assert!(between(&document, &marks, "new").is_ok(), "{path}: {}", marks.begin);
        }
    }
}
