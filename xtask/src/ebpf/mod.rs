//! The BPF objects: building them, and checking the committed ones.

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

/// A BPF object that is committed, and what it is made of.
struct Object {
    /// The package and its program, which have one name; also the folder below target/ebpf.
    package: &'static str,
    /// The package's folder.
    folder: &'static str,
    /// The committed object.
    path: &'static str,
    /// What is known about its making.
    stamp: &'static str,
    /// Files and folders that it is made of.
    sources: &'static [&'static str],
}

/// wsproxy's own. wsproxy-common has no dependency, so no lock of its own.
const WSPROXY: Object = Object {
    package: "wsproxy-ebpf",
    folder: "wsproxy-ebpf",
    path: "wsproxy/ebpf-object/wsproxy.bpf.o",
    stamp: "wsproxy/ebpf-object/STAMP",
    sources: &[
        "wsproxy-common/Cargo.toml",
        "wsproxy-common/src",
        "wsproxy-ebpf/Cargo.lock",
        "wsproxy-ebpf/Cargo.toml",
        "wsproxy-ebpf/src",
    ],
};

/// The tests' lossy link, which is no part of wsproxy.
const LINK: Object = Object {
    package: "link-ebpf",
    folder: "tests/link-ebpf",
    path: "tests/ebpf-object/link.bpf.o",
    stamp: "tests/ebpf-object/STAMP",
    sources: &["tests/link-ebpf/Cargo.lock", "tests/link-ebpf/Cargo.toml", "tests/link-ebpf/src"],
};

const OBJECTS: [&Object; 2] = [&WSPROXY, &LINK];

/// What a check of the committed objects found out.
pub enum Checked {
    /// The committed objects are what their sources give.
    Same,
    /// One or more were not compared, and why.
    NotCompared(String),
}

/// `cargo xtask build-ebpf`.
pub fn main(check_only: bool) -> Result<()> {
    if !check_only {
        return update();
    }
    match check()? {
        Checked::Same => println!("the committed objects are what their sources give"),
        Checked::NotCompared(why) => {
            ensure!(!shell::in_ci(), "NOTHING WAS COMPARED, which CI must not accept: {why}");
            println!("NOTHING WAS COMPARED: {why}");
        }
    }
    Ok(())
}

/// Compares the committed objects with their stamps, their sources and fresh builds.
pub fn check() -> Result<Checked> {
    let stamps = OBJECTS.map(Object::stamp_that_fits);
    let toolchain = match Toolchain::find() {
        Ok(toolchain) => toolchain,
        Err(none) => {
            // What needs no toolchain was checked.
            stamps.into_iter().collect::<Result<Vec<_>>>()?;
            return Ok(Checked::NotCompared(format!("{none:#}")));
        }
    };
    let mut not_compared = Vec::new();
    for (object, stamp) in OBJECTS.into_iter().zip(stamps) {
        if let Checked::NotCompared(why) = object.compare(&stamp?, &toolchain)? {
            not_compared.push(why);
        }
    }
    if not_compared.is_empty() {
        return Ok(Checked::Same);
    }
    Ok(Checked::NotCompared(not_compared.join("\n")))
}

/// `cargo xtask build-ebpf --log`.
pub fn build_logging() -> Result<()> {
    let folder = shell::root().join("target/ebpf-log");
    let stripped = WSPROXY.build(&Toolchain::find()?, &folder, &["--features", "log"])?;
    println!(
        "{0} logs each packet. To read it: cargo build --release --features bpf-log, then \n\
         sudo env WSPROXY_LOG=debug WSPROXY_BPF_OBJECT={0} target/release/wsproxy run",
        stripped.display()
    );
    Ok(())
}

fn update() -> Result<()> {
    let toolchain = Toolchain::find()?;
    println!("building with {} ({})", toolchain.versions, toolchain.name());
    OBJECTS.into_iter().try_for_each(|object| object.update(&toolchain))
}

impl Object {
    /// The stamp, if the committed object and the sources are those that it speaks of.
    fn stamp_that_fits(&self) -> Result<Stamp> {
        let Self { path, stamp: stamp_path, folder, .. } = self;
        let (root, renew) = (shell::root(), self.how_to_renew());
        let committed = digest::read(&root.join(path)).with_context(|| renew.clone())?;
        let text = fs::read_to_string(root.join(stamp_path)).context(*stamp_path);
        let stamp = Stamp::parse(&text.with_context(|| renew.clone())?)?;
        ensure!(
            stamp.object == digest::of_bytes(&committed),
            "{path} is not the one {stamp_path} speaks of: {renew}"
        );
        ensure!(
            stamp.sources == digest::of_tree(&root, self.sources)?,
            "{folder}, or what it is built with, changed after {path} was built: {renew}"
        );
        Ok(stamp)
    }

    /// Compares the committed object with a fresh one.
    fn compare(&self, stamp: &Stamp, toolchain: &Toolchain) -> Result<Checked> {
        let (root, renew) = (shell::root(), self.how_to_renew());
        let differences = stamp.differences(&toolchain.versions);
        if !differences.is_empty() {
            return Ok(Checked::NotCompared(format!(
                "{} was built by other versions. {}. To renew it, {renew}",
                self.path,
                differences.join("; ")
            )));
        }
        let fresh = self.build(toolchain, &self.target_folder(), &[])?;
        ensure!(
            digest::read(&fresh)? == digest::read(&root.join(self.path))?,
            "{} is not what its sources give with the very same toolchain. The fresh one is \
             {}. If the sources are right, {renew}",
            self.path,
            fresh.display()
        );
        Ok(Checked::Same)
    }

    /// Builds it, and writes it and its stamp where they are committed.
    fn update(&self, toolchain: &Toolchain) -> Result<()> {
        let Self { path, stamp: stamp_path, .. } = self;
        let root = shell::root();
        let sources = digest::of_tree(&root, self.sources)?;
        let object = digest::read(&self.build(toolchain, &self.target_folder(), &[])?)?;
        let hash = digest::of_bytes(&object);
        let size = object.len();
        let stamp = Stamp { versions: toolchain.versions.clone(), object: hash, sources };

        let folder = root.join(path).parent().map(PathBuf::from).context("no folder")?;
        fs::create_dir_all(&folder).with_context(|| format!("cannot make {}", folder.display()))?;
        let changed = fs::read(root.join(path)).is_ok_and(|old| old != object);
        fs::write(root.join(path), object).context(*path)?;
        fs::write(root.join(stamp_path), stamp.to_string()).context(*stamp_path)?;
        let news = if changed { "changed" } else { "written" };
        println!("{path} {news}: {size} bytes, sha256 {}", stamp.object);
        Ok(())
    }

    /// Builds the crate and strips its debug information, which leaves BTF; where that is.
    fn build(
        &self,
        toolchain: &Toolchain,
        target_dir: &Path,
        features: &[&str],
    ) -> Result<PathBuf> {
        let Self { package, folder, path, .. } = self;
        let source = shell::root().join(folder);
        // Fetching unpacks the sources into the folders that `rust_flags` names.
        shell::run(
            shell::cargo()
                .args(["fetch", "--quiet", "--locked", "--manifest-path"])
                .arg(source.join("Cargo.toml")),
        )
        .with_context(|| {
            format!("is {folder}/Cargo.lock up to date, and a package registry in reach?")
        })?;

        // What an older build left could be of another linker, which cargo would not notice.
        let built = target_dir.join(toolchain::TARGET);
        if built.exists() {
            fs::remove_dir_all(&built)
                .with_context(|| format!("cannot remove {}", built.display()))?;
        }
        let mut cargo = toolchain.cargo();
        wrapper::put_before_rustc(&mut cargo)?;
        cargo
            .args(["build", "--quiet", "--locked", "--release", "--target", toolchain::TARGET])
            .args(features)
            .current_dir(source)
            .env("CARGO_TARGET_DIR", target_dir)
            .env("CARGO_ENCODED_RUSTFLAGS", rust_flags(toolchain)?.join("\x1f"))
            .env_remove("RUSTFLAGS");
        shell::run(&mut cargo).with_context(|| {
            format!("building {package} with {} ({})", toolchain.versions, toolchain.name())
        })?;
        let name = Path::new(path).file_name().context("no name")?;
        strip(toolchain, &built.join("release").join(package), target_dir.join(name))
    }

    fn target_folder(&self) -> PathBuf {
        shell::root().join("target/ebpf").join(self.package)
    }

    fn how_to_renew(&self) -> String {
        format!("run `cargo xtask build-ebpf` and commit {} and {}", self.path, self.stamp)
    }
}

fn strip(toolchain: &Toolchain, linked: &Path, stripped: PathBuf) -> Result<PathBuf> {
    let mut objcopy = Command::new(&toolchain.objcopy.program);
    if let Some(libraries) = &toolchain.objcopy.libraries {
        objcopy.env("LD_LIBRARY_PATH", libraries);
    }
    shell::run(objcopy.arg("--strip-debug").arg(linked).arg(&stripped))?;
    Ok(stripped)
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
        for part in OBJECTS.iter().flat_map(|object| object.sources) {
            assert!(root.join(part).exists(), "{part} is not there");
        }
        for folder in ["wsproxy-common"].into_iter().chain(OBJECTS.map(|object| object.folder)) {
            let extra = root.join(folder).join("build.rs");
            assert!(!extra.exists(), "{} must be part of the sources", extra.display());
        }
    }

    #[test]
    fn the_committed_objects_have_btf_and_no_path_of_a_machine() {
        for Object { path, .. } in OBJECTS {
            let object = digest::read(&shell::root().join(path)).expect("the committed object");
            let holds =
                |text: &str| object.windows(text.len()).any(|bytes| bytes == text.as_bytes());
            assert!(holds(".BTF.ext"), "{path}: no BTF");
            assert!(!holds(".debug_info"), "{path}: debug information was not stripped");
            for trace in ["/home/", "/root/", "/work/", "/tmp/", ".cargo", "index."] {
                assert!(!holds(trace), "{path}: {trace} shows where it was built");
            }
        }
    }
}
