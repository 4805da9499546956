//! The same files as a tar archive, for systems without dpkg.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::Result;

use super::{Release, deb};
use crate::arch::Arch;
use crate::shell;

/// Makes the archive of what lies in `root`.
pub fn build(root: &Path, out: &Path, arch: Arch, release: &Release) -> Result<PathBuf> {
    deb::settle(root, release)?;
    let name = format!("wsproxy-{}-linux-{}", release.version, arch.debian());
    let file = out.join(format!("{name}.tar"));
    let mut tar = Command::new("tar");
    tar.args(["--sort=name", "--format=gnu", "--owner=0", "--group=0", "--numeric-owner"]);
    tar.arg(format!("--mtime=@{}", release.epoch));
    tar.arg(format!("--transform=s,^\\.,{name},"));
    shell::run(tar.arg("-cf").arg(&file).arg("-C").arg(root).arg("."))?;
    shell::run(Command::new("gzip").args(["-9", "-n", "-f"]).arg(&file))?;
    let file = file.with_extension("tar.gz");
    println!("{}", file.display());
    Ok(file)
}
