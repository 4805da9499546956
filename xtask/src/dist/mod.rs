//! What is given to users: static programs, Debian packages and archives, with what they are made
//! of and under which licences. The same commit gives the same bytes.

mod archive;
mod build;
mod deb;
pub mod inspect;
mod materials;
mod tree;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, ensure};

use crate::arch::Arch;
use crate::program::Program;
use crate::{digest, shell};
use deb::Pack;

/// A larger program means that something has come in which nobody wanted, in bytes.
const MOST: usize = 15_000_000;

/// What every file of a release says of itself.
pub struct Release {
    /// As in Cargo.toml.
    pub version: String,
    /// Seconds since 1970: of all files.
    pub epoch: u64,
}

impl Release {
    /// That of the commit which is checked out, or of `SOURCE_DATE_EPOCH`.
    pub fn current() -> Result<Self> {
        let text = fs::read_to_string(shell::root().join("Cargo.toml")).context("Cargo.toml")?;
        let version = text.lines().find_map(|line| line.strip_prefix("version = "));
        let version = version.context("Cargo.toml has no version")?.trim_matches('"').to_owned();
        let epoch = match std::env::var("SOURCE_DATE_EPOCH") {
            Ok(epoch) => epoch,
            Err(_) => {
                let mut git = Command::new("git");
                git.current_dir(shell::root()).args(["log", "-1", "--format=%ct"]);
                shell::output(&mut git).context("without git, set SOURCE_DATE_EPOCH")?
            }
        };
        Ok(Self { version, epoch: epoch.trim().parse().context("SOURCE_DATE_EPOCH")? })
    }

    /// The time as `date` formats it.
    pub fn date(&self, format: &str) -> Result<String> {
        let mut date = Command::new("date");
        date.env("LC_ALL", "C").args(["-u", "-d"]).arg(format!("@{}", self.epoch)).arg(format);
        Ok(shell::output(&mut date)?.trim().to_owned())
    }
}

/// Where it all goes.
pub fn folder() -> PathBuf {
    shell::root().join("target/dist")
}

/// `cargo xtask dist`.
pub fn main(archs: &[Arch], check: bool) -> Result<()> {
    let release = Release::current()?;
    let out = folder().join("out");
    fresh(&out)?;
    let manual = manual()?;
    let mut contents = Vec::new();
    for &arch in archs {
        let program = program(arch, check)?;
        let root = folder().join(format!("tree-{}", arch.debian()));
        tree::lay(&root, arch, &release, &program, &manual)?;
        let package = deb::build(&root, &out, arch, &release, Pack::Small)?;
        contents.push(inspect::package(&package, arch, &release.version)?);
        archive::build(&root, &out, arch, &release)?;
        let bill = format!("wsproxy-{}-{}.cdx.json", release.version, arch.debian());
        fs::copy(root.join(tree::BILL), out.join(bill)).context("the bill of materials")?;
    }
    let alike = contents.iter().all(|names| *names == contents[0]);
    ensure!(alike, "the packages have different files: {contents:#?}");
    sums(&out)?;
    println!("all is in {}", out.display());
    Ok(())
}

/// Builds the program, and a second time if that is to be compared.
fn program(arch: Arch, check: bool) -> Result<PathBuf> {
    let path = build::release(arch, &folder().join("build"))?;
    let program = Program::read(&path)?;
    println!("{}: the program has {:.1} MB", arch.name(), program.size() as f64 / 1e6);
    program.check(arch)?;
    program.check_release(MOST)?;
    if check {
        let again = build::release(arch, &folder().join("build-again"))?;
        ensure!(
            digest::read(&again)? == digest::read(&path)?,
            "{}: two builds differ",
            arch.name()
        );
        println!("{}: a second build is the same", arch.name());
    }
    Ok(path)
}

/// The package of a program that is there already, under these versions; for the test of packages.
pub fn packages(program: &Path, versions: &[&str], out: &Path) -> Result<Vec<PathBuf>> {
    fresh(out)?;
    let root = folder().join("tree-test");
    let (arch, release, manual) = (Arch::of_host()?, Release::current()?, manual()?);
    let one = |version: &&str| {
        let release = Release { version: (*version).to_owned(), ..release };
        tree::lay(&root, arch, &release, program, &manual)?;
        deb::build(&root, out, arch, &release, Pack::Quick)
    };
    versions.iter().map(one).collect()
}

/// Man pages, completions and the example, made by the crate itself.
pub fn manual() -> Result<PathBuf> {
    let manual = folder().join("manual");
    fresh(&manual)?;
    let mut cargo = shell::cargo();
    cargo.args(["run", "--quiet", "--locked", "--profile", "tests", "--package", "wsproxy"]);
    shell::run(cargo.args(["--example", "manual", "--"]).arg(&manual))?;
    Ok(manual)
}

fn sums(out: &Path) -> Result<()> {
    let mut names: Vec<_> = files(out)?.into_iter().filter(|name| name != "SHA256SUMS").collect();
    names.sort();
    let line = |name: &String| {
        Ok(format!("{}  {name}\n", digest::of_bytes(&digest::read(&out.join(name))?)))
    };
    let text = names.iter().map(line).collect::<Result<String>>()?;
    fs::write(out.join("SHA256SUMS"), text).context("SHA256SUMS")
}

fn files(folder: &Path) -> Result<Vec<String>> {
    let entries = fs::read_dir(folder).with_context(|| folder.display().to_string())?;
    Ok(entries.flatten().map(|entry| entry.file_name().to_string_lossy().into_owned()).collect())
}

/// An empty folder.
pub fn fresh(folder: &Path) -> Result<()> {
    if folder.exists() {
        fs::remove_dir_all(folder).with_context(|| folder.display().to_string())?;
    }
    fs::create_dir_all(folder).with_context(|| folder.display().to_string())
}
