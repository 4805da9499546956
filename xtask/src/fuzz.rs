//! Fuzzing on stable Rust: the compiler's own coverage pass and libFuzzer, without cargo-fuzz.

use std::env;
use std::fmt;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail, ensure};
use clap::ValueEnum;

use crate::shell;

/// Coverage of edges with 8-bit counters, and the operands of comparisons: what libFuzzer
/// steers by. One codegen unit, since the linker drops duplicates of the counters' tables.
const RUST_FLAGS: [&str; 9] = [
    "-Cpasses=sancov-module",
    "-Cllvm-args=-sanitizer-coverage-level=4",
    "-Cllvm-args=-sanitizer-coverage-inline-8bit-counters",
    "-Cllvm-args=-sanitizer-coverage-pc-table",
    "-Cllvm-args=-sanitizer-coverage-trace-compares",
    // Left as calls, comparisons of slices are seen by libFuzzer, which then tries their operands.
    "-Cllvm-args=-max-loads-per-memcmp=0",
    "-Ccodegen-units=1",
    "--cfg",
    "fuzzing",
];
const MEMORY_LIMIT_MB: u32 = 2048;
/// A single input that takes so long is a finding.
const INPUT_LIMIT_SECONDS: u32 = 10;
/// How much of a failed run's log to show.
const LOG_LINES: usize = 40;

/// What is fuzzed; the names of the programs in fuzz/Cargo.toml.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
#[value(rename_all = "snake_case")]
pub enum Target {
    /// The head of a client's request.
    RequestHead,
    /// The head of an upstream's response.
    ResponseHead,
    /// The body of an upstream's refusal.
    Body,
    /// The WebSocket frame cursor that BPF and user space share.
    FrameCursor,
    /// The translation of packets that BPF and user space share.
    Packet,
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::RequestHead => "request_head",
            Self::ResponseHead => "response_head",
            Self::Body => "body",
            Self::FrameCursor => "frame_cursor",
            Self::Packet => "packet",
        })
    }
}

/// `cargo xtask fuzz`.
pub fn main(target: Option<Target>, seconds: u32) -> Result<()> {
    let targets = target.map_or_else(|| Target::value_variants().to_vec(), |one| vec![one]);
    let folder = build(&targets)?;
    let mut failed = Vec::new();
    for target in targets {
        if let Err(error) = fuzz(&folder, target, seconds) {
            eprintln!("{error:#}");
            failed.push(target.to_string());
        }
    }
    ensure!(failed.is_empty(), "fuzzing failed: {}", failed.join(", "));
    Ok(())
}

/// Where everything goes that fuzzing writes.
fn output_folder() -> PathBuf {
    shell::root().join("target/fuzz")
}

/// Builds the targets and returns the folder of the programs.
fn build(targets: &[Target]) -> Result<PathBuf> {
    let host = shell::host()?;
    let mut cargo = shell::cargo();
    cargo
        .args(["build", "--quiet", "--release", "--locked", "--manifest-path", "fuzz/Cargo.toml"])
        // With a target named, the flags leave build scripts alone.
        .args(["--target", &host])
        .env("CARGO_TARGET_DIR", output_folder())
        .env("CARGO_ENCODED_RUSTFLAGS", RUST_FLAGS.join("\x1f"))
        .env_remove("RUSTFLAGS");
    for target in targets {
        cargo.args(["--bin", &target.to_string()]);
    }
    shell::run(&mut cargo)
        .context("building the fuzz targets; libFuzzer needs a C++ compiler (build-essential)")?;
    Ok(output_folder().join(host).join("release"))
}

fn fuzz(programs: &Path, target: Target, seconds: u32) -> Result<()> {
    let corpus = copy_corpus(target)?;
    let replayed = run(programs, target, "corpus", &["-runs=0".into()], &corpus.folder)?;
    println!("{target}: {} inputs of the corpus, {replayed} runs", corpus.inputs);
    if seconds > 0 {
        let limit = format!("-max_total_time={seconds}");
        let runs = run(programs, target, "search", &[limit], &corpus.folder)?;
        println!("{target}: {runs} runs in {seconds} s");
    }
    Ok(())
}

struct Corpus {
    folder: PathBuf,
    inputs: usize,
}

/// libFuzzer writes what it finds into the corpus, so it gets a copy.
fn copy_corpus(target: Target) -> Result<Corpus> {
    let committed = shell::root().join(format!("fuzz/corpus/{target}"));
    let folder = output_folder().join(format!("corpus/{target}"));
    if folder.exists() {
        fs::remove_dir_all(&folder).with_context(|| format!("removing {}", folder.display()))?;
    }
    fs::create_dir_all(&folder).with_context(|| format!("making {}", folder.display()))?;
    let mut inputs = 0;
    let cannot_list = || format!("cannot list the corpus {}", committed.display());
    for entry in fs::read_dir(&committed).with_context(cannot_list)? {
        let entry = entry.with_context(cannot_list)?;
        fs::copy(entry.path(), folder.join(entry.file_name()))
            .with_context(|| format!("cannot copy {}", entry.path().display()))?;
        inputs += 1;
    }
    ensure!(inputs > 0, "the corpus {} is empty: add inputs to it", committed.display());
    Ok(Corpus { folder, inputs })
}

/// Runs libFuzzer with its chatter in a log, and returns how many inputs it ran.
fn run(
    programs: &Path,
    target: Target,
    what: &str,
    flags: &[String],
    corpus: &Path,
) -> Result<u64> {
    let findings = output_folder().join(format!("findings/{target}"));
    fs::create_dir_all(&findings).with_context(|| format!("making {}", findings.display()))?;
    let log_file = output_folder().join(format!("{target}-{what}.log"));
    let log = File::create(&log_file).with_context(|| format!("making {}", log_file.display()))?;
    let status = Command::new(programs.join(target.to_string()))
        .arg(format!("-rss_limit_mb={MEMORY_LIMIT_MB}"))
        .arg(format!("-timeout={INPUT_LIMIT_SECONDS}"))
        .arg(format!("-artifact_prefix={}/", findings.display()))
        .arg("-print_final_stats=1")
        .args(flags)
        .arg(corpus)
        .env("RUST_BACKTRACE", env::var_os("RUST_BACKTRACE").unwrap_or_else(|| "1".into()))
        .stdout(log.try_clone().context("the log of the fuzzer")?)
        .stderr(log)
        .status()
        .with_context(|| format!("could not start the fuzz target {target}"))?;
    let log = String::from_utf8_lossy(&fs::read(&log_file)?).into_owned();
    if !status.success() {
        bail!(
            "{target} found something ({status}); the input is in {}, the log in {}:\n{}",
            findings.display(),
            log_file.display(),
            failure(&log)
        );
    }
    let runs = executed_units(&log).context("libFuzzer told no number of runs")?;
    ensure!(runs > 0, "{target} ran nothing");
    Ok(runs)
}

/// How many inputs libFuzzer says it ran.
fn executed_units(log: &str) -> Option<u64> {
    log.lines()
        .find_map(|line| line.strip_prefix("stat::number_of_executed_units:")?.trim().parse().ok())
}

/// The part of a failed run's log to show: from the panic on, or else the end.
fn failure(log: &str) -> String {
    let lines: Vec<&str> = log.lines().collect();
    let start = lines
        .iter()
        .position(|line| line.contains("panicked at"))
        .unwrap_or(lines.len().saturating_sub(LOG_LINES));
    lines[start..].iter().take(LOG_LINES).copied().collect::<Vec<_>>().join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_target_is_a_program_with_a_source_and_a_corpus() {
        let fuzz = shell::root().join("fuzz");
        let manifest = fs::read_to_string(fuzz.join("Cargo.toml")).expect("fuzz/Cargo.toml");
        for target in Target::value_variants() {
            assert!(manifest.contains(&format!("name = \"{target}\"")), "{target}: no program");
            let source = fuzz.join(format!("fuzz_targets/{target}.rs"));
            assert!(source.exists(), "{} is not there", source.display());
            let corpus = fuzz.join(format!("corpus/{target}"));
            let inputs = corpus.read_dir().map_or(0, Iterator::count);
            assert!(inputs > 0, "{} holds no input", corpus.display());
        }
        assert_eq!(manifest.matches("[[bin]]").count(), Target::value_variants().len());
    }

    #[test]
    fn the_command_line_takes_the_programs_names() {
        for target in Target::value_variants() {
            assert_eq!(Target::from_str(&target.to_string(), false), Ok(*target));
        }
    }

    #[test]
    fn the_number_of_runs_is_read() {
        let log = "#2\tINITED\nstat::number_of_executed_units: 4711\nstat::peak_rss_mb: 31\n";
        assert_eq!(executed_units(log), Some(4711));
        assert_eq!(executed_units("#2\tINITED\n"), None);
    }

    #[test]
    fn a_log_is_cut_to_the_failure() {
        assert_eq!(failure("#1 NEW\npanicked at a.rs\nwhy"), "panicked at a.rs\nwhy");
        let long: Vec<String> = (0..100).map(|number| number.to_string()).collect();
        let shown = failure(&long.join("\n"));
        assert!(shown.starts_with("60\n") && shown.ends_with("\n99"), "{shown}");
    }
}
