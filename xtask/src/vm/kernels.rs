//! Kernels and a few programs out of Debian's archive, unpacked below target/vm.
//!
//! apt does it, with a state of its own for each suite and architecture: nothing is installed, no
//! root is needed, and what the machine's own apt knows stays as it is.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, SystemTime};

use anyhow::{Context, Result, bail, ensure};
use clap::ValueEnum;

use crate::shell;

const ARCHIVE: &str = "http://deb.debian.org";
/// Of the package debian-archive-keyring.
const KEYRING: &str = "/usr/share/keyrings/debian-archive-keyring.gpg";
/// The suite that the guests' programs come from.
const TOOLS: &str = "trixie";
/// Package lists, and what was chosen by them, are as good as new for so long.
const FRESH: Duration = Duration::from_secs(24 * 60 * 60);
/// For all that apt does in one go.
const LIMIT: Duration = Duration::from_secs(10 * 60);

/// What the guest is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Arch {
    /// The PC.
    #[value(name = "x86_64")]
    X86_64,
    /// The Arm of servers.
    #[value(name = "arm64")]
    Arm64,
}

impl Arch {
    /// All of them.
    pub const ALL: [Self; 2] = [Self::X86_64, Self::Arm64];

    /// As Debian says it.
    pub const fn debian(self) -> &'static str {
        match self {
            Self::X86_64 => "amd64",
            Self::Arm64 => "arm64",
        }
    }

    /// As this program says it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::X86_64 => "x86_64",
            Self::Arm64 => "arm64",
        }
    }
}

/// A kernel by the name that one asks for it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Kernel {
    /// Too old for the kernel's paths: sessions are relayed.
    #[value(name = "5.10")]
    V5_10,
    /// The oldest one with all paths; classical filters instead of tcx.
    #[value(name = "6.1")]
    V6_1,
    /// With tcx.
    #[value(name = "6.12")]
    V6_12,
    /// What Debian has newest.
    Newest,
}

impl Kernel {
    /// All of them, the oldest first.
    pub const ALL: [Self; 4] = [Self::V5_10, Self::V6_1, Self::V6_12, Self::Newest];

    /// The name that one asks for it by.
    pub const fn name(self) -> &'static str {
        match self {
            Self::V5_10 => "5.10",
            Self::V6_1 => "6.1",
            Self::V6_12 => "6.12",
            Self::Newest => "newest",
        }
    }

    /// The suite that has it. The security archive of one that is out of support loses files that
    /// its lists still name, so that one is done without it.
    const fn suite(self) -> Suite {
        match self {
            Self::V5_10 => Suite { name: "bullseye", security: false },
            Self::V6_1 => Suite { name: "bookworm", security: true },
            Self::V6_12 => Suite { name: "trixie", security: true },
            Self::Newest => Suite { name: "sid", security: false },
        }
    }
}

/// A part of the archive.
#[derive(Clone, Copy)]
struct Suite {
    name: &'static str,
    security: bool,
}

/// An unpacked kernel.
pub struct Unpacked {
    /// As `uname -r` says it.
    pub release: String,
    /// Its package's version.
    pub version: String,
    /// The image that a boot loader would start.
    pub image: PathBuf,
    /// Where its modules are.
    pub modules: PathBuf,
}

/// The folder that all of this is in.
pub fn folder() -> PathBuf {
    shell::root().join("target/vm")
}

/// Fetches and unpacks a kernel.
pub fn kernel(kernel: Kernel, arch: Arch) -> Result<Unpacked> {
    let apt = Apt::open(kernel.suite(), arch)?;
    let meta = format!("linux-image-cloud-{}", arch.debian());
    let image = apt
        .depends(&meta)?
        .into_iter()
        .find(|name| name.starts_with("linux-image-"))
        .with_context(|| format!("{meta} depends on no kernel"))?;
    // Since 2026 image and modules are packages that the kernel's own one depends on.
    let mut packages = vec![image.clone()];
    let parts = ["linux-binary-", "linux-modules-"];
    let is_part = |name: &String| parts.iter().any(|part| name.starts_with(part));
    packages.extend(apt.depends(&image)?.into_iter().filter(is_part));
    let release = image.trim_start_matches("linux-image-").to_owned();
    let version = apt.version(&image)?;
    let unpacked = apt.unpack(&format!("kernel-{release}-{version}"), &packages)?;
    let image = unpacked.join("boot").join(format!("vmlinuz-{release}"));
    ensure!(image.exists(), "{} is not there", image.display());
    let modules = ["usr/lib/modules", "lib/modules"]
        .map(|folder| unpacked.join(folder).join(&release))
        .into_iter()
        .find(|folder| folder.exists())
        .with_context(|| format!("{release} has no modules"))?;
    Ok(Unpacked { release, version, image, modules })
}

/// Fetches and unpacks what the guests run besides: busybox, and iproute2 with its libraries.
pub fn tools(arch: Arch) -> Result<PathBuf> {
    let apt = Apt::open(Suite { name: TOOLS, security: false }, arch)?;
    let wanted = ["busybox-static", "iproute2"];
    let packages = apt.closure(&wanted)?;
    apt.unpack(&format!("tools-{}", apt.version("iproute2")?), &packages)
}

/// Fetches and unpacks one package of this version, from this suite; where it is.
pub fn package(suite: &str, arch: Arch, name: &str, version: &str) -> Result<PathBuf> {
    // `Suite` has static names since all others are known here.
    let suite = Suite { name: suite.to_owned().leak(), security: true };
    let apt = Apt::open(suite, arch)?;
    apt.unpack(&format!("{name}-{version}"), &[format!("{name}={version}")])
}

/// apt with a state of its own.
struct Apt {
    folder: PathBuf,
    arch: Arch,
}

impl Apt {
    /// Makes the state, and the package lists anew where they are a day old.
    fn open(suite: Suite, arch: Arch) -> Result<Self> {
        ensure!(shell::find_program(&["apt-get"]).is_some(), "apt-get is not there");
        let name = format!("{}-{}", suite.name, arch.debian());
        let apt = Self { folder: folder().join("apt").join(name), arch };
        for part in ["lists/partial", "archives/partial"] {
            fs::create_dir_all(apt.folder.join(part)).context("a folder for apt")?;
        }
        apt.write("status", "")?;
        let signed = format!("[signed-by={KEYRING}]");
        let mut sources = format!("deb {signed} {ARCHIVE}/debian {} main\n", suite.name);
        if suite.security {
            let name = suite.name;
            sources += &format!("deb {signed} {ARCHIVE}/debian-security {name}-security main\n");
        }
        apt.write("sources.list", &sources)?;
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
    fn depends(&self, package: &str) -> Result<Vec<String>> {
        let text = shell::output(&mut self.command("apt-cache", &["depends", package]))?;
        Ok(depends_in(&text))
    }

    /// The version that would be installed.
    fn version(&self, package: &str) -> Result<String> {
        let text = shell::output(&mut self.command("apt-cache", &["policy", package]))?;
        let line = text.lines().find_map(|line| line.trim().strip_prefix("Candidate: "));
        Ok(line.with_context(|| format!("apt knows no {package}"))?.to_owned())
    }

    /// These packages and all that they need.
    fn closure(&self, wanted: &[&str]) -> Result<Vec<String>> {
        let mut command = self.command("apt-get", &["--simulate", "install"]);
        let text = shell::output(command.args(wanted))?;
        let names = text.lines().filter_map(|line| line.strip_prefix("Inst "));
        Ok(names.filter_map(|line| line.split(' ').next()).map(str::to_owned).collect())
    }

    /// Fetches packages and unpacks them into a folder of this name, if it isn't there yet.
    fn unpack(&self, name: &str, packages: &[String]) -> Result<PathBuf> {
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
}
