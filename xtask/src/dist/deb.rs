//! A Debian package, put together by dpkg-deb. cargo-deb would be one more program to build and to
//! pin, for what is a folder with a control file; and the archive is made of the same folder.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};

use super::{Release, tree};
use crate::arch::Arch;
use crate::shell;

/// Who answers for it.
pub const MAINTAINER: &str = "wsproxy maintainers <maintainers@wsproxy.invalid>";
/// What dpkg runs, by name.
pub const SCRIPTS: [&str; 3] = ["postinst", "prerm", "postrm"];

/// How hard to compress.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pack {
    /// For users.
    Small,
    /// For a test.
    Quick,
}

/// Makes the package of what lies in `root`, which stays as it is; returns its file.
pub fn build(
    root: &Path,
    out: &Path,
    arch: Arch,
    release: &Release,
    pack: Pack,
) -> Result<PathBuf> {
    let control = root.join("DEBIAN");
    fs::create_dir_all(&control).context("DEBIAN")?;
    for script in SCRIPTS {
        let from = shell::root().join("packaging/debian").join(script);
        fs::copy(&from, control.join(script)).with_context(|| from.display().to_string())?;
        let bits = fs::Permissions::from_mode(0o755);
        fs::set_permissions(control.join(script), bits).context("a maintainer script")?;
    }
    fs::write(control.join("conffiles"), "/etc/wsproxy/wsproxy.toml\n").context("conffiles")?;
    fs::write(control.join("control"), description(root, arch, release)?).context("control")?;
    fs::write(control.join("md5sums"), sums(root)?).context("md5sums")?;
    settle(root, release)?;
    let file = out.join(format!("wsproxy_{}_{}.deb", release.version, arch.debian()));
    let mut dpkg = Command::new("dpkg-deb");
    dpkg.env("SOURCE_DATE_EPOCH", release.epoch.to_string());
    // One thread: how many there are decides how the compressor cuts its input.
    let compressor: &[&str] = match pack {
        Pack::Small => &["-Zxz", "--threads-max=1"],
        Pack::Quick => &["-Zgzip", "-z1"],
    };
    dpkg.arg("--root-owner-group").args(compressor).arg("--build");
    // What it prints would name a folder of no interest.
    shell::output(dpkg.arg(root).arg(&file))?;
    fs::remove_dir_all(&control).context("DEBIAN")?;
    println!("{}", file.display());
    Ok(file)
}

fn description(root: &Path, arch: Arch, release: &Release) -> Result<String> {
    let mut bytes = 0;
    for path in tree::below(root)? {
        bytes += fs::symlink_metadata(&path).context("a file of the package")?.len();
    }
    Ok(format!(
        "Package: wsproxy\nVersion: {}\nArchitecture: {}\nMaintainer: {MAINTAINER}\n\
         Installed-Size: {}\nDepends: passwd\nRecommends: ca-certificates, systemd\n\
         Section: net\nPriority: optional\nHomepage: https://github.com/wsproxy/wsproxy\n\
         Description: WebSocket gateway that moves bytes inside the kernel\n \
         Completes WebSocket handshakes in user space, strictly, and has eBPF programs\n \
         move the bytes of the sessions: routing, TLS, balancing, limits, health checks,\n \
         metrics, and reloads that live sessions do not notice.\n",
        release.version,
        arch.debian(),
        bytes.div_ceil(1024)
    ))
}

/// For `dpkg --verify`.
fn sums(root: &Path) -> Result<String> {
    let files = tree::below(root)?.into_iter().filter(|path| path.is_file());
    let names = files.filter_map(|path| Some(path.strip_prefix(root).ok()?.to_owned()));
    // Changes of the configuration are no damage.
    let names = names.filter(|name| !name.starts_with("DEBIAN") && !name.starts_with("etc"));
    shell::output(Command::new("md5sum").current_dir(root).args(names))
}

/// Gives everything the release's time, and folders the usual mode whatever the umask is.
pub fn settle(root: &Path, release: &Release) -> Result<()> {
    let time = std::time::UNIX_EPOCH + std::time::Duration::from_secs(release.epoch);
    let mut paths = tree::below(root)?;
    paths.push(root.to_owned());
    // From the inside out: what happens in a folder changes its time.
    for path in paths.iter().rev() {
        let name = || path.display().to_string();
        if path.is_dir() {
            let bits = fs::Permissions::from_mode(0o755);
            fs::set_permissions(path, bits).with_context(name)?;
        }
        fs::File::open(path).and_then(|file| file.set_modified(time)).with_context(name)?;
    }
    Ok(())
}
