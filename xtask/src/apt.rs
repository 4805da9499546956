//! Packages of Debian's archive, fetched and unpacked below `target/apt`.
//!
//! apt does it, with a state of its own for each suite and architecture: nothing is installed, no
//! root is needed, and what the machine's own apt knows stays as it is. Where the archive is, the
//! machine's own apt is asked.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, SystemTime};

use anyhow::{Context, Result, bail};

use crate::arch::Arch;
use crate::shell;

/// Of the package debian-archive-keyring.
const KEYRING: &str = "/usr/share/keyrings/debian-archive-keyring.gpg";
/// How the addresses of the archive and of its security updates end.
const MAIN: &str = "/debian/";
const SECURITY: &str = "/debian-security/";
/// Package lists, and what was chosen by them, are as good as new for so long.
const FRESH: Duration = Duration::from_secs(24 * 60 * 60);
/// For all that apt does in one go.
const LIMIT: Duration = Duration::from_secs(10 * 60);
/// What is started here.
const PROGRAMS: [&str; 4] = ["apt-get", "apt-cache", "dpkg-deb", "timeout"];

/// A part of the archive.
#[derive(Clone, Copy)]
pub struct Suite<'a> {
    /// Its name in the archive.
    pub name: &'a str,
    /// Whether its security updates are part of it.
    pub security: bool,
}

/// What this machine lacks for it, if something is missing.
pub fn missing() -> Option<String> {
    if let Some(program) = PROGRAMS.iter().find(|name| shell::find_program(&[name]).is_none()) {
        return Some(format!("{program} is not there, which fetches packages of Debian's archive"));
    }
    if !Path::new(KEYRING).exists() {
        let how = "install it with `apt-get install debian-archive-keyring`";
        return Some(format!("{KEYRING} is not there; {how}"));
    }
    Mirrors::known().err().map(|error| format!("{error:#}"))
}

/// Where the archive is.
#[derive(Debug, PartialEq, Eq)]
struct Mirrors {
    main: String,
    security: String,
}

impl Mirrors {
    /// Those that this machine's apt has.
    fn known() -> Result<Self> {
        let mut apt = Command::new("apt-get");
        apt.args(["indextargets", "--format", "$(REPO_URI)"]).env("LC_ALL", "C");
        Self::among(&shell::output(&mut apt)?)
    }

    /// The first ones among these addresses, a line each.
    fn among(addresses: &str) -> Result<Self> {
        let first = |end: &str| {
            let found = addresses.lines().map(str::trim).find(|address| address.ends_with(end));
            found.map(str::to_owned).with_context(|| {
                format!("this machine's apt has no Debian archive (no address ends in {end})")
            })
        };
        Ok(Self { main: first(MAIN)?, security: first(SECURITY)? })
    }

    /// The lines of a `sources.list`.
    fn sources(&self, suite: Suite<'_>) -> String {
        let (signed, name) = (format!("[signed-by={KEYRING}]"), suite.name);
        let mut text = format!("deb {signed} {} {name} main\n", self.main);
        if suite.security {
            text += &format!("deb {signed} {} {name}-security main\n", self.security);
        }
        text
    }
}

/// Where all of this is.
fn folder() -> PathBuf {
    shell::root().join("target/apt")
}

/// apt with a state of its own.
pub struct Apt {
    folder: PathBuf,
    arch: Arch,
}

impl Apt {
    /// Makes the state, and the package lists anew where they are a day old.
    pub fn open(suite: Suite<'_>, arch: Arch) -> Result<Self> {
        if let Some(what) = missing() {
            bail!("{what}");
        }
        let name = format!("{}-{}", suite.name, arch.debian());
        let apt = Self { folder: folder().join(name), arch };
        for part in ["lists/partial", "archives/partial"] {
            fs::create_dir_all(apt.folder.join(part)).context("a folder for apt")?;
        }
        apt.write("status", "")?;
        apt.write("sources.list", &Mirrors::known()?.sources(suite))?;
        apt.write("apt.conf", &apt.configuration())?;
        // Read after the machine's own configuration, whose hooks are about the machine's state.
        let hooks = ["APT::Update::Pre-Invoke", "APT::Update::Post-Invoke"];
        let more = ["APT::Update::Post-Invoke-Success", "DPkg::Post-Invoke"];
        let clear = hooks.iter().chain(&more).map(|hook| format!("#clear {hook};\n"));
        apt.write("hooks.conf", &clear.collect::<String>())?;
        let stamp = apt.folder.join("updated");
        if !is_fresh(&stamp) {
            println!("fetching the package lists of {} ({})", suite.name, arch.debian());
            shell::run(&mut apt.command("apt-get", &["-qq", "update"]))?;
            fs::write(stamp, "").context("the time of an update")?;
        }
        Ok(apt)
    }

    fn write(&self, name: &str, text: &str) -> Result<()> {
        let path = self.folder.join(name);
        fs::write(&path, text).with_context(|| format!("cannot write {}", path.display()))
    }

    fn configuration(&self) -> String {
        let (here, arch) = (self.folder.display(), self.arch.debian());
        format!(
            "Dir::State \"{here}\";\nDir::State::lists \"{here}/lists\";\n\
             Dir::State::status \"{here}/status\";\nDir::Cache \"{here}\";\n\
             Dir::Cache::archives \"{here}/archives\";\n\
             Dir::Etc::SourceList \"{here}/sources.list\";\n\
             Dir::Etc::SourceParts \"/dev/null\";\nDir::Etc::Main \"{here}/hooks.conf\";\n\
             Dir::Etc::Preferences \"/dev/null\";\nDir::Etc::PreferencesParts \"/dev/null\";\n\
             APT::Architecture \"{arch}\";\nAPT::Architectures {{ \"{arch}\"; }};\n\
             APT::Sandbox::User \"\";\nAcquire::Languages \"none\";\n\
             Acquire::Retries \"3\";\nAPT::Install-Recommends \"false\";\n"
        )
    }

    /// A program of apt on this state, under a time limit.
    fn command(&self, program: &str, arguments: &[&str]) -> Command {
        let mut command = Command::new("timeout");
        command.arg("--kill-after=10").arg(LIMIT.as_secs().to_string());
        command.arg(program).args(arguments);
        command.env("APT_CONFIG", self.folder.join("apt.conf")).env("LC_ALL", "C");
        command.current_dir(self.folder.join("archives"));
        command
    }

    /// What a package depends on, without alternatives.
    pub fn depends(&self, package: &str) -> Result<Vec<String>> {
        let text = shell::output(&mut self.command("apt-cache", &["depends", package]))?;
        Ok(depends_in(&text))
    }

    /// The version that would be installed.
    pub fn version(&self, package: &str) -> Result<String> {
        let text = shell::output(&mut self.command("apt-cache", &["policy", package]))?;
        let line = text.lines().find_map(|line| line.trim().strip_prefix("Candidate: "));
        Ok(line.with_context(|| format!("apt knows no {package}"))?.to_owned())
    }

    /// These packages and all that they need.
    pub fn closure(&self, wanted: &[&str]) -> Result<Vec<String>> {
        let mut command = self.command("apt-get", &["--simulate", "install"]);
        let text = shell::output(command.args(wanted))?;
        let names = text.lines().filter_map(|line| line.strip_prefix("Inst "));
        Ok(names.filter_map(|line| line.split(' ').next()).map(str::to_owned).collect())
    }

    /// Fetches packages and unpacks them into a folder of this name, if it isn't there yet.
    pub fn unpack(&self, name: &str, packages: &[String]) -> Result<PathBuf> {
        let name: String = name.replace(['/', ':'], "_");
        let done = folder().join("unpacked").join(format!("{name}-{}", self.arch.debian()));
        if done.exists() {
            return Ok(done);
        }
        println!("fetching {}", packages.join(" "));
        let fetched = self.folder.join("archives");
        for old in debs_in(&fetched)? {
            fs::remove_file(&old).with_context(|| format!("cannot remove {}", old.display()))?;
        }
        shell::run(self.command("apt-get", &["-qq", "download"]).args(packages))?;
        let partial = done.with_extension("partial");
        if partial.exists() {
            fs::remove_dir_all(&partial).context("what an earlier run left")?;
        }
        fs::create_dir_all(&partial).context("a folder to unpack into")?;
        let debs = debs_in(&fetched)?;
        if debs.len() != packages.len() {
            bail!("{} packages were asked for, {} are here", packages.len(), debs.len());
        }
        for deb in debs {
            shell::run(Command::new("dpkg-deb").arg("-x").arg(&deb).arg(&partial))?;
            fs::remove_file(&deb).with_context(|| format!("cannot remove {}", deb.display()))?;
        }
        fs::rename(&partial, &done).context("a folder that was unpacked into")?;
        Ok(done)
    }
}

fn debs_in(folder: &Path) -> Result<Vec<PathBuf>> {
    let entries = fs::read_dir(folder).with_context(|| format!("{}", folder.display()))?;
    let paths = entries.flatten().map(|entry| entry.path());
    Ok(paths.filter(|path| path.extension().is_some_and(|end| end == "deb")).collect())
}

fn is_fresh(stamp: &Path) -> bool {
    let age = |written: SystemTime| SystemTime::now().duration_since(written).ok();
    let written = fs::metadata(stamp).and_then(|file| file.modified()).ok();
    written.and_then(age).is_some_and(|age| age < FRESH)
}

/// The packages that `apt-cache depends` names, without alternatives (`|`) and virtual ones.
fn depends_in(text: &str) -> Vec<String> {
    let lines = text.lines().filter_map(|line| line.strip_prefix("  Depends: "));
    lines.filter(|name| !name.starts_with('<')).map(str::to_owned).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn real_dependencies_are_told_from_alternatives() {
        let text = "linux-image-cloud-amd64\n  Depends: linux-image-6.1.0-9-cloud-amd64\n \
                    |Depends: dracut\n  Depends: <linux-initramfs-tool>\n    dracut\n  \
                    Suggests: grub-pc\n";
        assert_eq!(depends_in(text), ["linux-image-6.1.0-9-cloud-amd64"]);
        assert!(depends_in("").is_empty());
    }

    #[test]
    fn the_archive_is_where_the_machines_own_apt_has_it() {
        let own = "https://a.invalid/extras/\nhttps://b.invalid/debian/\n\
                   https://b.invalid/debian-security/\nhttps://c.invalid/debian/\n";
        let mirrors = Mirrors::among(own).expect("both are there");
        let both = mirrors.sources(Suite { name: "one", security: true });
        let lines: Vec<_> = both.lines().filter_map(|line| line.split_once("] ")).collect();
        let places = lines.iter().map(|(_, place)| *place).collect::<Vec<_>>();
        let security = "https://b.invalid/debian-security/ one-security main";
        assert_eq!(places, ["https://b.invalid/debian/ one main", security]);
        let main = mirrors.sources(Suite { name: "one", security: false });
        assert_eq!(main.lines().count(), 1);
        let error = Mirrors::among("https://a.invalid/ubuntu/\n").expect_err("it is not Debian");
        assert!(error.to_string().contains("no Debian archive"), "{error}");
    }
}
