//! The BPF object: building it, and checking the committed one.

mod stamp;
mod toolchain;
mod wrapper;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, ensure};

use crate::{digest, shell};
use stamp::Stamp;
use toolchain::Toolchain;

pub use wrapper::become_rustc_if_asked;

const OBJECT: &str = "wsproxy/ebpf-object/wsproxy.bpf.o";
const STAMP: &str = "wsproxy/ebpf-object/STAMP";
/// What the object is made of. wsproxy-common has no dependency, so no lock of its own.
const SOURCES: [&str; 5] = [
    "wsproxy-common/Cargo.toml",
    "wsproxy-common/src",
    "wsproxy-ebpf/Cargo.lock",
    "wsproxy-ebpf/Cargo.toml",
    "wsproxy-ebpf/src",
];
const RENEW: &str = "run `cargo xtask build-ebpf` and commit wsproxy/ebpf-object";

/// What a check of the committed object found out.
pub enum Checked {
    /// The committed object is what its sources give.
    Same,
    /// Nothing was compared, and why.
    NotCompared(String),
}

/// `cargo xtask build-ebpf`.
pub fn main(check_only: bool) -> Result<()> {
    if !check_only {
        return update();
    }
    match check()? {
        Checked::Same => println!("{OBJECT} is what its sources give, byte for byte"),
        Checked::NotCompared(why) => {
            ensure!(!shell::in_ci(), "NOTHING WAS COMPARED, which CI must not accept: {why}");
            println!("NOTHING WAS COMPARED: {why}");
        }
    }
    Ok(())
}

/// Compares the committed object with its stamp, its sources and a fresh build.
pub fn check() -> Result<Checked> {
    let root = shell::root();
    let committed = digest::read(&root.join(OBJECT)).context(RENEW)?;
    let stamp = Stamp::parse(&fs::read_to_string(root.join(STAMP)).context(STAMP).context(RENEW)?)?;
    ensure!(
        stamp.object == digest::of_bytes(&committed),
        "{OBJECT} is not the one {STAMP} speaks of: {RENEW}"
    );
    ensure!(
        stamp.sources == digest::of_tree(&root, &SOURCES)?,
        "wsproxy-ebpf or wsproxy-common changed after {OBJECT} was built: {RENEW}"
    );
    let toolchain = match Toolchain::find() {
        Ok(toolchain) => toolchain,
        Err(none) => return Ok(Checked::NotCompared(format!("{none:#}"))),
    };
    let differences = stamp.differences(&toolchain.versions);
    if !differences.is_empty() {
        return Ok(Checked::NotCompared(format!(
            "the committed object was built by other versions. {}. To renew it, {RENEW}",
            differences.join("; ")
        )));
    }
    let built = build(&toolchain, &root.join("target/ebpf"), &[])?;
    let copy = root.join("target/ebpf/wsproxy.bpf.o");
    ensure!(
        built == committed,
        "{OBJECT} is not what its sources give with the very same toolchain. The fresh one is \
         {}. If the sources are right, {RENEW}",
        copy.display()
    );
    Ok(Checked::Same)
}

/// `cargo xtask build-ebpf --log`.
pub fn build_logging() -> Result<()> {
    let folder = shell::root().join("target/ebpf-log");
    build(&Toolchain::find()?, &folder, &["--features", "log"])?;
    println!(
        "{0} logs each packet. To read it: cargo build --release --features bpf-log, then \n\
         sudo env WSPROXY_LOG=debug WSPROXY_BPF_OBJECT={0} target/release/wsproxy run",
        folder.join("wsproxy.bpf.o").display()
    );
    Ok(())
}

fn update() -> Result<()> {
    let root = shell::root();
    let toolchain = Toolchain::find()?;
    println!("building with {} ({})", toolchain.versions, toolchain.name());
    let sources = digest::of_tree(&root, &SOURCES)?;
    let object = build(&toolchain, &root.join("target/ebpf"), &[])?;
    let hash = digest::of_bytes(&object);
    let size = object.len();
    let stamp = Stamp { versions: toolchain.versions, object: hash, sources };

    let folder = root.join(OBJECT).parent().map(PathBuf::from).context("no folder")?;
    fs::create_dir_all(&folder).with_context(|| format!("cannot make {}", folder.display()))?;
    let changed = fs::read(root.join(OBJECT)).is_ok_and(|old| old != object);
    fs::write(root.join(OBJECT), object).context(OBJECT)?;
    fs::write(root.join(STAMP), stamp.to_string()).context(STAMP)?;
    let news = if changed { "changed" } else { "written" };
    println!("{OBJECT} {news}: {size} bytes, sha256 {}", stamp.object);
    Ok(())
}

/// Builds the crate and strips its debug information, which leaves BTF.
fn build(toolchain: &Toolchain, target_dir: &Path, features: &[&str]) -> Result<Vec<u8>> {
    let root = shell::root();
    // Fetching unpacks the sources into the folders that `rust_flags` names.
    shell::run(
        shell::cargo()
            .args(["fetch", "--quiet", "--locked", "--manifest-path"])
            .arg(root.join("wsproxy-ebpf/Cargo.toml")),
    )
    .context("is wsproxy-ebpf/Cargo.lock up to date, and a package registry in reach?")?;

    // What an older build left could be of another linker, which cargo would not notice.
    let folder = target_dir.join(toolchain::TARGET);
    if folder.exists() {
        fs::remove_dir_all(&folder)
            .with_context(|| format!("cannot remove {}", folder.display()))?;
    }
    let mut cargo = toolchain.cargo();
    wrapper::put_before_rustc(&mut cargo)?;
    cargo
        .args(["build", "--quiet", "--locked", "--release", "--target", toolchain::TARGET])
        .args(features)
        .current_dir(root.join("wsproxy-ebpf"))
        .env("CARGO_TARGET_DIR", target_dir)
        .env("CARGO_ENCODED_RUSTFLAGS", rust_flags(toolchain)?.join("\x1f"))
        .env_remove("RUSTFLAGS");
    shell::run(&mut cargo).with_context(|| {
        format!("building wsproxy-ebpf with {} ({})", toolchain.versions, toolchain.name())
    })?;

    let linked = folder.join("release/wsproxy-ebpf");
    let stripped = target_dir.join("wsproxy.bpf.o");
    let mut objcopy = Command::new(&toolchain.objcopy.program);
    if let Some(libraries) = &toolchain.objcopy.libraries {
        objcopy.env("LD_LIBRARY_PATH", libraries);
    }
    shell::run(objcopy.arg("--strip-debug").arg(&linked).arg(&stripped))?;
    digest::read(&stripped)
}

/// The compiler's flags. They are part of what the object is: the same for every toolchain
/// and machine, but for the folders that are taken out of the object's paths.
fn rust_flags(toolchain: &Toolchain) -> Result<Vec<String>> {
    let mut flags: Vec<String> = [
        // One object serves every architecture; the name of the architecture ends up in its
        // line information, so it is always the same one.
        "--cfg=bpf_target_arch=\"x86_64\"",
        // BTF is made from debug information.
        "-Cdebuginfo=2",
        // Atomics that return a result.
        "-Ctarget-cpu=v3",
        "-Clink-arg=--btf",
    ]
    .map(String::from)
    .into();
    let mut remap = |from: &Path, to: &str| {
        flags.push(format!("--remap-path-prefix={}={to}", from.display()));
        match from.canonicalize() {
            Ok(real) if real != from => {
                flags.push(format!("--remap-path-prefix={}={to}", real.display()));
            }
            _ => {}
        }
    };
    remap(&shell::root(), "/wsproxy");
    // The folders' names hold the registry's host name.
    let registries = shell::cargo_home()?.join("registry/src");
    let listed = fs::read_dir(&registries)
        .with_context(|| format!("no crates were unpacked in {}", registries.display()))?;
    for registry in listed {
        remap(&registry.context("cannot list the registries")?.path(), "/registry");
    }
    if let Some(library) = &toolchain.library_sources {
        remap(library, "/rust");
    }
    Ok(flags)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_source_is_forgotten() {
        let root = shell::root();
        for part in SOURCES {
            assert!(root.join(part).exists(), "{part} is not there");
        }
        for extra in ["wsproxy-ebpf/build.rs", "wsproxy-common/build.rs"] {
            assert!(!root.join(extra).exists(), "{extra} must be part of SOURCES");
        }
    }

    #[test]
    fn the_committed_object_has_btf_and_no_path_of_a_machine() {
        let object = digest::read(&shell::root().join(OBJECT)).expect("the committed object");
        let holds = |text: &str| object.windows(text.len()).any(|bytes| bytes == text.as_bytes());
        assert!(holds(".BTF.ext"), "no BTF");
        assert!(!holds(".debug_info"), "debug information was not stripped");
        for trace in ["/home/", "/root/", "/work/", "/tmp/", ".cargo", "index."] {
            assert!(!holds(trace), "{trace} shows where it was built");
        }
    }
}
