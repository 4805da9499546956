//! The program as users get it: stripped, static, and the same wherever it is built.

use std::path::{Path, PathBuf};

use anyhow::Result;

use crate::arch::Arch;
use crate::cross::Toolchain;
use crate::shell;

/// Builds it in `target_folder`.
pub fn release(arch: Arch, target_folder: &Path) -> Result<PathBuf> {
    // glibc, statically: names are looked up by the program itself (src/resolve), which asks the
    // system's resolver, whose modules a static program can't load safely, only without resolv.conf.
    let flags = [
        "-Ctarget-feature=+crt-static".to_owned(),
        format!("--remap-path-prefix={}=/wsproxy", shell::root().display()),
        format!("--remap-path-prefix={}=/cargo", shell::cargo_home()?.display()),
    ];
    let mut cargo = Toolchain::of(arch)?.cargo_build(&flags.each_ref().map(String::as_str));
    cargo.args(["--release", "--package", "wsproxy", "--bin", "wsproxy"]);
    cargo.arg("--target-dir").arg(target_folder);
    println!("building for {}", arch.name());
    shell::run(&mut cargo)?;
    Ok(target_folder.join(arch.target()).join("release/wsproxy"))
}
