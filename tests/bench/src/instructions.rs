//! How many instructions the pure parts take, counted by callgrind and compared with the counts
//! in `instructions.toml`. Unlike a time, such a count is the same on a busy machine.

use std::{
    collections::BTreeMap,
    env, fs,
    path::{Path, PathBuf},
    process::{self, Command},
};

use anyhow::{Context as _, Result, bail, ensure};
use serde::{Deserialize, Serialize};

use crate::pure;

/// The committed counts.
const FILE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/instructions.toml");

/// What to do about counts that are to be replaced.
const UPDATE: &str = "run `wsproxy-bench instructions --update` and commit instructions.toml";

/// How much more or less than before is no news, in percent, with the same compiler.
const SAME_COMPILER_PERCENT: u64 = 3;

/// How much more than before is let pass, in percent, with another compiler.
const OTHER_COMPILER_PERCENT: u64 = 15;

/// What stands above the written counts.
const PREFACE: &str = "\
# Instructions that each part of tests/bench/src/pure.rs takes under callgrind.
# Written by `wsproxy-bench instructions --update`.

";

/// A set of counts.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Counts {
    /// The compiler that made the counted program.
    rustc: String,
    /// Instructions by the name of the part.
    counts: BTreeMap<String, u64>,
}

/// What a comparison says.
#[derive(Debug, Default, PartialEq, Eq)]
struct Verdict {
    /// One line for each part.
    table: Vec<String>,
    /// What is worth saying, but no failure.
    notices: Vec<String>,
    /// What makes the comparison fail.
    failures: Vec<String>,
}

/// Counts all parts, and compares the counts with the committed ones or replaces those.
///
/// # Errors
/// A part could not be counted, or takes more than it may.
pub fn run(update: bool) -> Result<()> {
    ensure!(
        !cfg!(debug_assertions),
        "this is a debug build, whose counts say nothing: build with `--profile bench-tool`"
    );
    let new = count_all()?;
    if update {
        fs::write(FILE, render(&new)?).with_context(|| format!("cannot write {FILE}"))?;
        for (name, count) in &new.counts {
            println!("{name:<16}{count:>12}");
        }
        println!("written to {FILE}");
        return Ok(());
    }
    let text = fs::read_to_string(FILE).with_context(|| format!("cannot read {FILE}: {UPDATE}"))?;
    let old: Counts = toml::from_str(&text).with_context(|| format!("cannot understand {FILE}"))?;
    let verdict = compare(&old, &new);
    for line in verdict.table.iter().chain(&verdict.notices) {
        println!("{line}");
    }
    ensure!(verdict.failures.is_empty(), "{}", verdict.failures.join("\n"));
    Ok(())
}

/// Counts every part of this program.
fn count_all() -> Result<Counts> {
    let valgrind = find_valgrind(&env::var_os("PATH").unwrap_or_default())?;
    let program = env::current_exe().context("cannot tell where this program lies")?;
    let folder = Folder::create()?;
    let mut counts = BTreeMap::new();
    for part in pure::PARTS {
        let count = count(&valgrind, &program, &folder, part.name)
            .with_context(|| format!("cannot count the part \"{}\"", part.name))?;
        counts.insert(part.name.to_owned(), count);
    }
    Ok(Counts { rustc: compiler()?, counts })
}

/// Where `valgrind` is on a search path.
fn find_valgrind(path: &std::ffi::OsStr) -> Result<PathBuf> {
    let mut places = env::split_paths(path).map(|folder| folder.join("valgrind"));
    places.find(|place| place.is_absolute() && place.is_file()).context(
        "valgrind is not on PATH: install the package `valgrind` (`apt-get install valgrind`)",
    )
}

/// The compiler and what it compiles for, as far as it matters to the counts.
fn compiler() -> Result<String> {
    // In this folder, so that a toolchain file of the workspace counts.
    let output = Command::new("rustc").arg("-V").current_dir(env!("CARGO_MANIFEST_DIR")).output();
    let output = output.context("cannot run `rustc -V`")?;
    ensure!(output.status.success(), "`rustc -V` failed: {}", output.status);
    let version = String::from_utf8(output.stdout).context("`rustc -V` wrote no text")?;
    Ok(format!("{} for {}", version.trim(), env::consts::ARCH))
}

/// Counts one part of `program`.
fn count(valgrind: &Path, program: &Path, folder: &Folder, name: &str) -> Result<u64> {
    let written = folder.0.join(name);
    // Environment and folder lie on the program's stack, and where that begins decides how
    // copies are aligned: the same for everyone.
    let output = Command::new(valgrind)
        .env_clear()
        .current_dir("/")
        .args(["--quiet", "--tool=callgrind"])
        .arg(format!("--toggle-collect=*counted_{name}*"))
        .arg(format!("--callgrind-out-file={}", written.display()))
        .arg(program)
        .args(["pure", name])
        .output()
        .with_context(|| format!("cannot run {}", valgrind.display()))?;
    if !output.status.success() {
        bail!("valgrind: {}\n{}", output.status, String::from_utf8_lossy(&output.stderr).trim());
    }
    let text = fs::read_to_string(&written).context("callgrind left no readable file")?;
    match sum(&text)? {
        0 => bail!(
            "callgrind saw no function called counted_{name}: symbols are missing, build with \
             `--profile bench-tool`"
        ),
        count => Ok(count),
    }
}

/// The sum in a file that callgrind wrote.
fn sum(text: &str) -> Result<u64> {
    let field = |name| text.lines().find_map(|line: &str| line.strip_prefix(name)).map(str::trim);
    let events = field("events:").context("callgrind's file does not say what it counted")?;
    ensure!(events == "Ir", "callgrind counted \"{events}\" and not instructions (\"Ir\") alone");
    let sum = field("totals:").or_else(|| field("summary:"));
    let sum = sum.context("callgrind's file has no sum")?;
    sum.parse().with_context(|| format!("callgrind's sum \"{sum}\" is no number"))
}

/// The text of the file of counts.
fn render(counts: &Counts) -> Result<String> {
    let body = toml::to_string(counts).context("cannot write the counts as TOML")?;
    Ok(format!("{PREFACE}{body}"))
}

/// Holds new counts against the committed ones.
fn compare(old: &Counts, new: &Counts) -> Verdict {
    let mut verdict = Verdict::default();
    let same_compiler = old.rustc == new.rustc;
    let most = if same_compiler { SAME_COMPILER_PERCENT } else { OTHER_COMPILER_PERCENT };
    if !same_compiler {
        verdict.table.push(format!(
            "The committed counts are of \"{}\", these of \"{}\": up to {most} % more pass.",
            old.rustc, new.rustc
        ));
    }
    for (name, &now) in &new.counts {
        let Some(&before) = old.counts.get(name) else {
            verdict.failures.push(format!("{name} is not in instructions.toml: {UPDATE}"));
            continue;
        };
        let change = change(before, now);
        verdict.table.push(format!("{name:<16}{before:>12} -> {now:>12}  {change}"));
        let story = format!("{before} instructions before, {now} now ({change})");
        if is_more(before, now, most) {
            verdict.failures.push(format!("{name} got dearer by more than {most} %: {story}"));
        } else if same_compiler && is_less(before, now, most) {
            verdict.notices.push(format!("{name} got cheaper: {story}; {UPDATE}"));
        }
    }
    for name in old.counts.keys().filter(|name| !new.counts.contains_key(*name)) {
        verdict.failures.push(format!(
            "{name} is in instructions.toml but no part of pure.rs: put it back there, or {UPDATE}"
        ));
    }
    verdict
}

/// Whether `now` is more than `percent` above `before`.
fn is_more(before: u64, now: u64, percent: u64) -> bool {
    u128::from(now) * 100 > u128::from(before) * u128::from(100 + percent)
}

/// Whether `now` is more than `percent` below `before`; `percent` is at most 100.
fn is_less(before: u64, now: u64, percent: u64) -> bool {
    u128::from(now) * 100 < u128::from(before) * u128::from(100 - percent)
}

/// The change in percent, for people.
fn change(before: u64, now: u64) -> String {
    format!("{:+.2} %", (now as f64 / before as f64 - 1.0) * 100.0)
}

/// A folder of our own for callgrind's files, gone when this is dropped.
#[derive(Debug)]
struct Folder(PathBuf);

impl Folder {
    /// Makes it.
    fn create() -> Result<Self> {
        let path = env::temp_dir().join(format!("wsproxy-bench-{}", process::id()));
        fs::create_dir(&path).with_context(|| format!("cannot make {}", path.display()))?;
        Ok(Self(path))
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        // What stays behind does no harm.
        let _ = fs::remove_dir_all(&self.0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn counts(rustc: &str, counts: &[(&str, u64)]) -> Counts {
        let counts = counts.iter().map(|&(name, count)| (name.to_owned(), count)).collect();
        Counts { rustc: rustc.to_owned(), counts }
    }

    fn against_100_000(rustc: &str, now: u64) -> Verdict {
        compare(&counts("a", &[("walk", 100_000)]), &counts(rustc, &[("walk", now)]))
    }

    #[test]
    fn up_to_three_percent_is_no_news() {
        for now in [97_000, 100_000, 103_000] {
            let verdict = against_100_000("a", now);
            assert_eq!((verdict.notices.len(), verdict.failures.len()), (0, 0), "{now}");
            assert_eq!(verdict.table.len(), 1);
        }
    }

    #[test]
    fn more_than_three_percent_up_fails_with_name_and_counts() {
        let verdict = against_100_000("a", 103_001);
        let [failure] = &verdict.failures[..] else { panic!("{verdict:?}") };
        for part in ["walk", "100000", "103001", "+3.00 %"] {
            assert!(failure.contains(part), "{part}: {failure}");
        }
    }

    #[test]
    fn more_than_three_percent_down_asks_for_an_update() {
        let verdict = against_100_000("a", 96_999);
        assert_eq!(verdict.failures, [""; 0]);
        assert!(verdict.notices[0].contains("walk") && verdict.notices[0].contains("--update"));
    }

    #[test]
    fn another_compiler_has_more_room_and_is_named() {
        for now in [1, 115_000] {
            let verdict = against_100_000("b", now);
            assert_eq!((verdict.notices.len(), verdict.failures.len()), (0, 0), "{now}");
            assert!(verdict.table[0].contains("\"b\""));
        }
        assert_eq!(against_100_000("b", 115_001).failures.len(), 1);
    }

    #[test]
    fn a_part_that_only_one_side_has_is_a_failure() {
        let one = counts("a", &[("walk", 1)]);
        let two = counts("a", &[("walk", 1), ("parse", 2)]);
        let added = compare(&one, &two).failures;
        assert!(added.len() == 1 && added[0].contains("parse is not in instructions.toml"));
        let removed = compare(&two, &one).failures;
        assert!(removed.len() == 1 && removed[0].contains("no part of pure.rs"), "{removed:?}");
    }

    #[test]
    fn a_count_from_nothing_and_the_largest_do_no_harm() {
        assert!(is_more(0, 1, 3) && !is_more(0, 0, 3) && !is_less(0, 0, 3));
        assert!(!is_more(u64::MAX, u64::MAX, 15) && is_less(u64::MAX, 0, 3));
    }

    #[test]
    fn the_sum_is_read_from_callgrinds_file() {
        let file = "version: 1\nevents: Ir\nsummary: 41\n\nfn=(1) x\n3 7\n\ntotals: 42\n";
        assert_eq!(sum(file).unwrap(), 42);
        assert_eq!(sum("events: Ir\nsummary: 41\n").unwrap(), 41);
        for (wrong, why) in [
            ("summary: 41\n", "what it counted"),
            ("events: Ir\n", "no sum"),
            ("events: Ir Dr\ntotals: 1 2\n", "Ir Dr"),
            ("events: Ir\ntotals: many\n", "many"),
        ] {
            let error = sum(wrong).unwrap_err().to_string();
            assert!(error.contains(why), "{error}");
        }
    }

    #[test]
    fn what_is_written_reads_back() {
        let made = counts("rustc 1.2.3", &[("walk", 7), ("parse", u64::from(u32::MAX))]);
        let text = render(&made).unwrap();
        assert!(text.starts_with('#') && text.contains("walk = 7"), "{text}");
        assert_eq!(toml::from_str::<Counts>(&text).unwrap(), made);
        toml::from_str::<Counts>("rustc = \"a\"\nother = 1\n[counts]\n").unwrap_err();
    }

    #[test]
    fn a_missing_valgrind_is_explained_with_its_package() {
        let error = find_valgrind(std::ffi::OsStr::new("/nowhere")).unwrap_err().to_string();
        assert!(error.contains("apt-get install valgrind"), "{error}");
    }
}
