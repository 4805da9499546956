//! The file system that a guest runs from.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

use super::build::Programs;
use super::cpio::Archive;
use super::modules::Module;
use super::steps::{self, Step};

/// Where packages have programs.
const PROGRAM_FOLDERS: [&str; 4] = ["usr/bin", "bin", "usr/sbin", "sbin"];
/// What `ip` and `tc` load, by the beginnings of names.
const LIBRARIES: [&str; 12] = [
    LOADER,
    "libbpf.",
    "libc.",
    "libcap.",
    "libelf.",
    "libm.",
    "libmnl.",
    "libpcre2-8.",
    "libselinux.",
    "libxtables.",
    "libz.",
    "libzstd.",
];
/// How its name begins.
const LOADER: &str = "ld-linux";
/// Where these are in the guest.
const TOOLS: &str = "tools";

/// Writes it.
pub fn write(
    to: &Path,
    run: &[Step],
    programs: &Programs,
    modules: &[Module],
    tools: &Path,
) -> Result<()> {
    let file = File::create(to).with_context(|| format!("cannot write {}", to.display()))?;
    let mut archive = Archive::new(BufWriter::new(file));
    archive.program("init", include_bytes!("init.sh"))?;
    archive.program("bin/auto", include_bytes!("auto.sh"))?;
    archive.file("steps", steps::file(run).as_bytes())?;
    for folder in ["proc", "sys", "dev", "run", "tmp", "etc"] {
        archive.folder(folder)?;
    }
    for (name, path) in &programs.files {
        archive.program(&format!("bin/{name}"), &read(path)?)?;
    }
    // The tests of the program start it by the path that it was built at.
    let built = programs.wsproxy()?.to_string_lossy().into_owned();
    archive.link(built.trim_start_matches('/'), "/bin/wsproxy")?;
    for path in &programs.libraries {
        archive.program(path.to_string_lossy().trim_start_matches('/'), &read(path)?)?;
    }
    let order: String = modules.iter().map(|module| format!("{}\n", module.file)).collect();
    archive.file("modules/order", order.as_bytes())?;
    for module in modules {
        archive.file(&format!("modules/{}", module.file), &module.content)?;
    }
    write_tools(&mut archive, tools)?;
    archive.finish()?;
    Ok(())
}

/// busybox, which is static, and `ip` and `tc`, each with the loader and the libraries that it was
/// built with: our programs may have been built with other ones.
fn write_tools<W: Write>(archive: &mut Archive<W>, tools: &Path) -> Result<()> {
    archive.program("bin/busybox", &read(&find(tools, "busybox")?)?)?;
    let libraries = libraries(tools)?;
    let is_loader = |name: &&String| name.starts_with(LOADER);
    let loader = libraries.keys().find(is_loader).context("the packages have no loader")?;
    for name in ["ip", "tc"] {
        archive.program(&format!("{TOOLS}/{name}"), &read(&find(tools, name)?)?)?;
        let start = format!("/{TOOLS}/{loader} --library-path /{TOOLS} /{TOOLS}/{name}");
        let script = format!("#!/bin/busybox sh\nexec {start} \"$@\"\n");
        archive.program(&format!("bin/{name}"), script.as_bytes())?;
    }
    for (name, path) in &libraries {
        archive.program(&format!("{TOOLS}/{name}"), &read(path)?)?;
    }
    Ok(())
}

fn find(tools: &Path, name: &str) -> Result<PathBuf> {
    let places = PROGRAM_FOLDERS.map(|folder| tools.join(folder).join(name));
    let path = places.into_iter().find(|path| path.is_file());
    path.with_context(|| format!("the packages have no {name}"))
}

/// The libraries of a tree of packages, by the names that programs know them by.
fn libraries(tools: &Path) -> Result<BTreeMap<String, PathBuf>> {
    let cannot = || format!("the libraries in {}", tools.display());
    let mut found = BTreeMap::new();
    for folder in fs::read_dir(tools.join("usr/lib")).with_context(cannot)?.flatten() {
        if !folder.path().join("libc.so.6").exists() {
            continue;
        }
        for entry in fs::read_dir(folder.path()).with_context(cannot)?.flatten() {
            let name = entry.file_name().to_string_lossy().into_owned();
            let known = LIBRARIES.iter().any(|start| name.starts_with(start));
            if known && name.contains(".so.") && entry.path().is_file() {
                found.insert(name, entry.path());
            }
        }
    }
    Ok(found)
}

/// What a file, or what a link leads to, has in it.
fn read(path: &Path) -> Result<Vec<u8>> {
    fs::read(path).with_context(|| format!("cannot read {}", path.display()))
}
