//! The third-party WebSocket peers of the tests: Python's, Node's and a browser.

use std::fmt;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};

use crate::{digest, shell};

const REQUIREMENTS: &str = "tests/peers/requirements.txt";
const LINTERS: &str = "packaging/lint-requirements.txt";
const PACKAGE: &str = "tests/peers/package.json";
const LOCK: &str = "tests/peers/package-lock.json";
/// The names under which Chromium or Chrome is installed.
const BROWSERS: [&str; 4] = ["chromium", "chromium-browser", "google-chrome", "chrome"];

/// What could not be had, and how to get it.
pub struct Missing {
    what: String,
    how: &'static str,
}

impl fmt::Display for Missing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}; {}", self.what, self.how)
    }
}

/// `cargo xtask setup`.
pub fn main(folder: Option<PathBuf>) -> Result<()> {
    let folder = match folder {
        Some(folder) => std::path::absolute(folder).context("the folder of --dir")?,
        None => default_folder(),
    };
    let missing = peers(&folder)?;
    if missing.is_empty() {
        println!("the peers are in {}", folder.display());
        return Ok(());
    }
    for one in &missing {
        eprintln!("missing: {one}");
    }
    bail!("{} of the peers could not be set up", missing.len());
}

/// Where the tests look for the peers.
pub fn default_folder() -> PathBuf {
    shell::root().join("target/peers")
}

/// Puts the peers into a folder, and tells what could not be had.
pub fn peers(folder: &Path) -> Result<Vec<Missing>> {
    fs::create_dir_all(folder).with_context(|| format!("cannot make {}", folder.display()))?;
    let steps = [python(folder)?, node(folder)?, browser()];
    Ok(steps.into_iter().flatten().collect())
}

fn python(folder: &Path) -> Result<Option<Missing>> {
    venv(folder, REQUIREMENTS, "the Python peers")
}

/// Puts the linters of the examples into a folder of `target`; the folder, or what is missing.
pub fn linters() -> Result<std::result::Result<PathBuf, Missing>> {
    let folder = shell::root().join("target/linters");
    fs::create_dir_all(&folder).with_context(|| format!("cannot make {}", folder.display()))?;
    let missing = venv(&folder, LINTERS, "the linters of the examples")?;
    Ok(missing.map_or_else(|| Ok(folder.join("bin")), Err))
}

/// Installs `what`, by a file of requirements, into a folder, unless it is there.
fn venv(folder: &Path, requirements: &str, what: &str) -> Result<Option<Missing>> {
    let how = "install it with `apt-get install python3 python3-venv`";
    let Some(python) = shell::find_program(&["python3"]) else {
        return Ok(Some(Missing { what: "python3 is not there".into(), how }));
    };
    let version = match shell::output(Command::new(&python).arg("--version")) {
        Ok(version) => version,
        Err(error) => return Ok(Some(Missing { what: format!("{error:#}"), how })),
    };
    let requirements = shell::root().join(requirements);
    let wanted = stamp(&version, &[&requirements], folder)?;
    let stamp_file = folder.join("python.stamp");
    if is_current(&stamp_file, &wanted) {
        return Ok(None);
    }
    println!("installing {what}");
    // The Node peers live in the same folder as Python's, so `venv --clear` is out of the question.
    for old in ["bin", "include", "lib", "lib64", "pyvenv.cfg"] {
        remove(&folder.join(old))?;
    }
    if let Err(error) = shell::run(Command::new(&python).args(["-m", "venv"]).arg(folder)) {
        return Ok(Some(Missing { what: format!("{error:#}"), how }));
    }
    let installed = shell::run(
        Command::new(folder.join("bin/python"))
            .args(["-m", "pip", "install", "--quiet", "--disable-pip-version-check", "-r"])
            .arg(&requirements),
    );
    if let Err(error) = installed {
        let how = "is PyPI or a mirror of it in reach?";
        return Ok(Some(Missing { what: format!("{error:#}"), how }));
    }
    fs::write(&stamp_file, wanted).with_context(|| format!("writing {}", stamp_file.display()))?;
    Ok(None)
}

fn node(folder: &Path) -> Result<Option<Missing>> {
    let how = "install them with `apt-get install nodejs npm`";
    let (Some(node), Some(npm)) = (shell::find_program(&["node"]), shell::find_program(&["npm"]))
    else {
        return Ok(Some(Missing { what: "node or npm is not there".into(), how }));
    };
    let version = match shell::output(Command::new(node).arg("--version")) {
        Ok(version) => version,
        Err(error) => return Ok(Some(Missing { what: format!("{error:#}"), how })),
    };
    let inputs = [PACKAGE, LOCK].map(|name| shell::root().join(name));
    let wanted = stamp(&version, &[&inputs[0], &inputs[1]], folder)?;
    let stamp_file = folder.join("node.stamp");
    if is_current(&stamp_file, &wanted) {
        return Ok(None);
    }
    println!("installing the Node peers");
    for input in &inputs {
        let name = input.file_name().context("a file without a name")?;
        fs::copy(input, folder.join(name))
            .with_context(|| format!("cannot copy {}", input.display()))?;
    }
    let mut command = Command::new(npm);
    command.args(["ci", "--silent", "--no-audit", "--no-fund", "--ignore-scripts"]);
    if let Err(error) = shell::run(command.current_dir(folder)) {
        let how = "is the npm registry or a mirror of it in reach? Without --silent npm says more";
        return Ok(Some(Missing { what: format!("{error:#}"), how }));
    }
    fs::write(&stamp_file, wanted).context("writing the stamp of the Node peers")?;
    Ok(None)
}

fn browser() -> Option<Missing> {
    let how = "install it with `apt-get install chromium`";
    let missing = || Missing { what: "no Chromium is there".into(), how };
    shell::find_program(&BROWSERS).is_none().then(missing)
}

/// What an installation depends on: a changed stamp means to install again.
fn stamp(version: &str, inputs: &[&Path], folder: &Path) -> Result<String> {
    // A venv holds its own path.
    let mut stamp = format!("{}\n{}\n", version.trim(), folder.display());
    for input in inputs {
        stamp.push_str(&digest::of_bytes(&digest::read(input)?));
        stamp.push('\n');
    }
    Ok(stamp)
}

fn is_current(stamp_file: &Path, wanted: &str) -> bool {
    fs::read_to_string(stamp_file).is_ok_and(|found| found == wanted)
}

/// Removes a file, a link or a folder, if it is there.
fn remove(path: &Path) -> Result<()> {
    let removed = match fs::symlink_metadata(path) {
        Err(_) => return Ok(()),
        Ok(found) if found.is_dir() => fs::remove_dir_all(path),
        Ok(_) => fs::remove_file(path),
    };
    removed.with_context(|| format!("cannot remove {}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stamp_follows_its_inputs() {
        let folder = std::env::temp_dir().join(format!("xtask-setup-{}", std::process::id()));
        fs::create_dir_all(&folder).expect("a temporary folder");
        let input = folder.join("requirements.txt");
        let stamp_of = |version: &str, content: &str, folder: &Path| {
            fs::write(&input, content).expect("a temporary file");
            stamp(version, &[&input], folder).expect("a stamp")
        };
        let first = stamp_of("Python 3.11.7", "websockets==1", &folder);
        assert_eq!(stamp_of("Python 3.11.7\n", "websockets==1", &folder), first);
        assert_ne!(stamp_of("Python 3.12.0", "websockets==1", &folder), first);
        assert_ne!(stamp_of("Python 3.11.7", "websockets==2", &folder), first);
        assert_ne!(stamp_of("Python 3.11.7", "websockets==1", Path::new("/else")), first);

        let stamp_file = folder.join("python.stamp");
        assert!(!is_current(&stamp_file, &first));
        fs::write(&stamp_file, &first).expect("a temporary file");
        assert!(is_current(&stamp_file, &first));
        fs::remove_dir_all(&folder).expect("the temporary folder");
    }
}
