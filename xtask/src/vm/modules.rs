//! Kernel modules and what they need, in the order in which they have to be inserted.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, ensure};

/// What the guests need; a kernel that has one of them built in names it in `modules.builtin`.
const WANTED: [&str; 4] = ["veth", "tun", "sch_ingress", "cls_bpf"];
/// How deep modules need others.
const DEPTH: u32 = 8;

/// A module's file name and content, ready to be inserted.
pub struct Module {
    /// With the extension `.ko`.
    pub file: String,
    /// Not compressed.
    pub content: Vec<u8>,
}

/// All that is needed from a folder `lib/modules/RELEASE`, the needed ones first.
pub fn wanted(folder: &Path) -> Result<Vec<Module>> {
    let mut files = BTreeMap::new();
    collect(folder, &mut files)?;
    let builtin = fs::read_to_string(folder.join("modules.builtin")).unwrap_or_default();
    let mut chosen = Vec::new();
    for name in WANTED {
        let file = format!("/{name}.ko");
        if builtin.lines().any(|line| line.replace('-', "_").ends_with(&file)) {
            continue;
        }
        choose(name, &files, &mut chosen, DEPTH)?;
    }
    Ok(chosen)
}

/// Adds a module behind those that it needs.
fn choose(
    name: &str,
    files: &BTreeMap<String, PathBuf>,
    chosen: &mut Vec<Module>,
    depth: u32,
) -> Result<()> {
    ensure!(depth > 0, "the modules below {name} need each other in a circle");
    let file = format!("{name}.ko");
    if chosen.iter().any(|module| module.file == file) {
        return Ok(());
    }
    let path = files.get(name).with_context(|| format!("the kernel has no module {name}"))?;
    let content = read(path)?;
    for need in needs(&content) {
        choose(&need, files, chosen, depth - 1)?;
    }
    chosen.push(Module { file, content });
    Ok(())
}

/// Module files by name; names have underscores only, as in `/proc/modules`.
fn collect(folder: &Path, files: &mut BTreeMap<String, PathBuf>) -> Result<()> {
    let entries = fs::read_dir(folder).with_context(|| format!("{}", folder.display()))?;
    for entry in entries.flatten() {
        let path = entry.path();
        // `build` is a link to headers, which are not there.
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            collect(&path, files)?;
        } else if let Some((name, "ko" | "ko.xz" | "ko.zst" | "ko.gz")) =
            entry.file_name().to_string_lossy().split_once('.')
        {
            files.insert(name.replace('-', "_"), path);
        }
    }
    Ok(())
}

fn read(path: &Path) -> Result<Vec<u8>> {
    let unpack = match path.extension().and_then(|end| end.to_str()) {
        Some("xz") => "xz",
        Some("zst") => "zstd",
        Some("gz") => "gzip",
        _ => return fs::read(path).with_context(|| format!("{}", path.display())),
    };
    let output = Command::new(unpack).arg("-dc").arg(path).output();
    let output = output.with_context(|| format!("{unpack} is needed for {}", path.display()))?;
    ensure!(output.status.success(), "{unpack} -dc {} failed", path.display());
    Ok(output.stdout)
}

/// The modules that a module names in its section `.modinfo` (`MODULE_INFO(depends, ...)`).
fn needs(module: &[u8]) -> Vec<String> {
    const KEY: &[u8] = b"\0depends=";
    let Some(at) = module.windows(KEY.len()).position(|bytes| bytes == KEY) else {
        return Vec::new();
    };
    let value = &module[at + KEY.len()..];
    let end = value.iter().position(|byte| *byte == 0).unwrap_or(value.len());
    let text = String::from_utf8_lossy(&value[..end]);
    text.split(',').filter(|name| !name.is_empty()).map(|name| name.replace('-', "_")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_module_comes_behind_what_it_needs() {
        let folder = std::env::temp_dir().join(format!("xtask-modules-{}", std::process::id()));
        fs::create_dir_all(folder.join("kernel/net")).expect("a temporary folder");
        for (name, depends) in
            [("veth", ""), ("tun", "udp-tunnel"), ("udp-tunnel", ""), ("sch_ingress", "")]
        {
            let content = format!("x\0license=GPL\0depends={depends}\0name={name}\0");
            let path = folder.join("kernel/net").join(format!("{name}.ko"));
            fs::write(path, content).expect("a temporary file");
        }
        fs::write(folder.join("modules.builtin"), "kernel/net/sched/cls_bpf.ko\n")
            .expect("a temporary file");
        let modules = wanted(&folder).expect("they are all there");
        let names: Vec<_> = modules.iter().map(|module| module.file.as_str()).collect();
        assert_eq!(names, ["veth.ko", "udp_tunnel.ko", "tun.ko", "sch_ingress.ko"]);
        fs::remove_dir_all(&folder).expect("the temporary folder");
        assert!(wanted(&folder).is_err());
    }
}
