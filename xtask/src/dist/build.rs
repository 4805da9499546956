//! The program as users get it: stripped, static, and the same wherever it is built.

use std::path::{Path, PathBuf};

use anyhow::Result;

use super::{Arch, folder};
use crate::{arm64, shell};

/// Builds it in `target_folder`.
pub fn release(arch: Arch, target_folder: &Path) -> Result<PathBuf> {
    // glibc, statically: names are looked up by the program itself (src/resolve), which asks the
    // system's resolver, whose modules a static program can't load safely, only without resolv.conf.
    let mut flags = vec!["-Ctarget-feature=+crt-static".to_owned()];
    flags.push(format!("--remap-path-prefix={}=/wsproxy", shell::root().display()));
    flags.push(format!("--remap-path-prefix={}=/cargo", shell::cargo_home()?.display()));
    let mut cargo = shell::cargo();
    if arch == Arch::Arm64 {
        let toolchain = arm64::toolchain(&folder().join("arm64"))?;
        toolchain.apply(&mut cargo);
        flags.extend(toolchain.sysroot.map(|root| format!("--sysroot={}", root.display())));
    }
    cargo.env_remove("RUSTFLAGS").env("CARGO_ENCODED_RUSTFLAGS", flags.join("\x1f"));
    cargo.args(["build", "--locked", "--release", "--package", "wsproxy", "--bin", "wsproxy"]);
    cargo.args(["--target", arch.target(), "--target-dir"]).arg(target_folder);
    println!("building for {}", arch.name());
    shell::run(&mut cargo)?;
    Ok(target_folder.join(arch.target()).join("release/wsproxy"))
}
