//! A package that is looked into without being installed, so that it may be another machine's.

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result, ensure};
use serde_json::Value;

use super::{deb, folder, fresh, tree};
use crate::arch::Arch;
use crate::program::Program;
use crate::shell;

/// The machine that a package is for.
pub fn machine(package: &Path) -> Result<Arch> {
    let name = field(package, "Architecture")?;
    let found = Arch::ALL.into_iter().find(|arch| arch.debian() == name);
    found.with_context(|| format!("{} is for {name}", package.display()))
}

/// Checks a package of this version; the names of the files in it.
pub fn package(package: &Path, arch: Arch, version: &str) -> Result<BTreeSet<String>> {
    for (key, wanted) in
        [("Package", "wsproxy"), ("Version", version), ("Architecture", arch.debian())]
    {
        let found = field(package, key)?;
        ensure!(found == wanted, "{}: {key} is {found}, not {wanted}", package.display());
    }
    let root = folder().join(format!("inspected-{}", arch.debian()));
    fresh(&root)?;
    shell::run(Command::new("dpkg-deb").arg("-R").arg(package).arg(&root))?;
    control(&root.join("DEBIAN"))?;
    sums(&root)?;
    Program::read(&root.join("usr/bin/wsproxy"))?.check(arch)?;
    let bill = fs::read_to_string(root.join(tree::BILL)).context(tree::BILL)?;
    let bill: Value = serde_json::from_str(&bill).context(tree::BILL)?;
    let component = &bill["metadata"]["component"];
    ensure!(component["name"] == "wsproxy", "the bill of materials is of {component}");
    let names = tree::below(&root)?.into_iter();
    let names = names.filter_map(|path| Some(path.strip_prefix(&root).ok()?.to_owned()));
    Ok(names.map(|path| path.to_string_lossy().into_owned()).collect())
}

fn field(package: &Path, key: &str) -> Result<String> {
    let text = shell::output(Command::new("dpkg-deb").arg("-f").arg(package).arg(key))?;
    Ok(text.trim().to_owned())
}

/// The scripts can be started and read, and each conffile is a file of the package.
fn control(folder: &Path) -> Result<()> {
    for script in deb::SCRIPTS {
        let path = folder.join(script);
        let bits = fs::metadata(&path).context(script)?.permissions().mode();
        ensure!(bits & 0o111 == 0o111, "{script} can't be started");
        shell::run(Command::new("sh").arg("-n").arg(&path))?;
    }
    let root = folder.parent().context("a folder without a parent")?;
    let files = fs::read_to_string(folder.join("conffiles")).context("conffiles")?;
    for file in files.lines() {
        ensure!(root.join(file.trim_start_matches('/')).is_file(), "{file} is not there");
    }
    Ok(())
}

/// All files but the conffiles have the sums that the package says.
fn sums(root: &Path) -> Result<()> {
    let mut check = Command::new("md5sum");
    shell::run(check.current_dir(root).args(["--check", "--strict", "--quiet", "DEBIAN/md5sums"]))?;
    let text = fs::read_to_string(root.join("DEBIAN/md5sums")).context("md5sums")?;
    let named: BTreeSet<_> = text.lines().filter_map(|line| line.split_once("  ")).collect();
    let files = tree::below(root)?.into_iter().filter(|path| path.is_file());
    let names = files.filter_map(|path| Some(path.strip_prefix(root).ok()?.to_owned()));
    for name in names.filter(|name| !name.starts_with("DEBIAN") && !name.starts_with("etc")) {
        let has = named.iter().any(|(_, file)| Path::new(file) == name);
        ensure!(has, "{} has no sum", name.display());
    }
    Ok(())
}
