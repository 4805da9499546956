//! What of BPF is in the kernel: `--note FILE` writes it down, `--compare FILE` waits until nothing
//! else is there. For a machine that nobody else uses, as a guest of `cargo xtask vm` is.

use std::{
    collections::BTreeSet,
    fmt::Debug,
    fs,
    process::{Command, ExitCode},
    thread,
    time::{Duration, Instant},
};

use aya::{
    maps::loaded_maps,
    programs::{loaded_links, loaded_programs},
};

/// The kernel frees maps and programs some time after the last use.
const PATIENCE: Duration = Duration::from_secs(60);

fn main() -> ExitCode {
    let arguments: Vec<_> = std::env::args().skip(1).collect();
    match arguments.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        ["--note", file] => match fs::write(file, lines(&loaded())) {
            Ok(()) => ExitCode::SUCCESS,
            Err(error) => failed(&format!("{file}: {error}")),
        },
        ["--compare", file] => match fs::read_to_string(file) {
            Ok(noted) => compare(&noted.lines().map(str::to_owned).collect()),
            Err(error) => failed(&format!("{file}: {error}")),
        },
        _ => failed("usage: leftovers --note FILE | --compare FILE"),
    }
}

fn failed(why: &str) -> ExitCode {
    eprintln!("{why}");
    ExitCode::FAILURE
}

fn compare(noted: &BTreeSet<String>) -> ExitCode {
    let end = Instant::now() + PATIENCE;
    loop {
        let left: BTreeSet<_> = loaded().difference(noted).cloned().collect();
        if left.is_empty() {
            println!("nothing is left beside {} things that were there", noted.len());
            return ExitCode::SUCCESS;
        }
        if Instant::now() >= end {
            return failed(&format!("this is left:\n{}", lines(&left)));
        }
        thread::sleep(Duration::from_millis(100));
    }
}

fn lines(things: &BTreeSet<String>) -> String {
    things.iter().map(|thing| format!("{thing}\n")).collect()
}

/// Programs, maps and links by number and name, files on the bpffs, and queueing disciplines that
/// hold filters.
fn loaded() -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    let mut note = |what: &str, id: u32, name: &str| {
        found.insert(format!("{what} {id} {name}"));
    };
    for program in told(loaded_programs()) {
        note("program", program.id(), program.name_as_str().unwrap_or_default());
    }
    for map in told(loaded_maps()) {
        note("map", map.id(), map.name_as_str().unwrap_or_default());
    }
    for link in told(loaded_links()) {
        note("link", link.id(), "");
    }
    for entry in fs::read_dir("/sys/fs/bpf").into_iter().flatten().flatten() {
        found.insert(format!("file {}", entry.path().display()));
    }
    found.extend(disciplines());
    found
}

/// What went away meanwhile can't be told.
fn told<T, E: Debug>(all: impl Iterator<Item = Result<T, E>>) -> impl Iterator<Item = T> {
    all.filter_map(|one| one.inspect_err(|error| eprintln!("not told: {error:?}")).ok())
}

/// Devices of this network namespace whose packets a classical filter may look at: the kernel
/// shows the discipline in a device's list of them.
fn disciplines() -> Vec<String> {
    let output = Command::new("tc").args(["qdisc", "show"]).output();
    let text = output.map(|output| String::from_utf8_lossy(&output.stdout).into_owned());
    let text = text.unwrap_or_default();
    let holds = |line: &&str| line.contains("clsact") || line.contains("ingress");
    text.lines().filter(holds).map(str::to_owned).collect()
}
