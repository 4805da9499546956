//! What the program is made of: a bill of materials (CycloneDX 1.5), and the licences of all crates
//! that are linked into it with their texts. Made of `cargo metadata` and the lock file.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::fs;
use std::path::Path;

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};

use super::Release;
use crate::arch::Arch;
use crate::shell;

/// Files of a crate that say under which terms it comes begin like this.
const TEXTS: [&str; 5] = ["license", "licence", "copying", "notice", "unlicense"];

/// A crate that is linked into the program.
struct Part<'a> {
    package: &'a Value,
    needs: Vec<String>,
}

/// The bill of materials, and the licences with their texts.
pub fn of(arch: Arch, release: &Release) -> Result<(String, String)> {
    let mut cargo = shell::cargo();
    cargo.args(["metadata", "--locked", "--format-version", "1", "--filter-platform"]);
    let text = shell::output(cargo.arg(arch.target()))?;
    let metadata: Value = serde_json::from_str(&text).context("`cargo metadata`")?;
    let parts = linked(&metadata)?;
    let lock = fs::read_to_string(shell::root().join("Cargo.lock")).context("Cargo.lock")?;
    Ok((bill(&parts, release, &checksums(&lock))?, licences(&parts)?))
}

/// The program and all that it depends on, but for what only builds it; by id.
fn linked(metadata: &Value) -> Result<BTreeMap<String, Part<'_>>> {
    let list = |value: &'_ Value| value.as_array().cloned().unwrap_or_default();
    let packages = metadata["packages"].as_array().context("no packages")?;
    let package = |id: &str| packages.iter().find(|package| package["id"] == id);
    let start = packages.iter().find(|package| package["name"] == "wsproxy");
    let start = start.and_then(|package| package["id"].as_str()).context("no wsproxy")?;
    let nodes = list(&metadata["resolve"]["nodes"]);
    let mut found = BTreeMap::new();
    let mut ahead = vec![start.to_owned()];
    while let Some(id) = ahead.pop() {
        if found.contains_key(&id) {
            continue;
        }
        let node = nodes.iter().find(|node| node["id"] == id.as_str()).context("a lost node")?;
        let is_linked = |dep: &&Value| list(&dep["dep_kinds"]).iter().any(|k| k["kind"].is_null());
        let deps = list(&node["deps"]);
        let needs = deps.iter().filter(is_linked).filter_map(|dep| dep["pkg"].as_str());
        let needs: Vec<String> = needs.map(str::to_owned).collect();
        // Macros run in the compiler, and so does all that they need.
        let package = package(&id).context("a lost package")?;
        let kinds = list(&package["targets"]);
        let is_macro = kinds.iter().any(|target| target["kind"][0] == "proc-macro");
        if is_macro {
            continue;
        }
        ahead.extend(needs.iter().cloned());
        found.insert(id, Part { package, needs });
    }
    Ok(found)
}

/// By name and version, as the lock file has them.
fn checksums(lock: &str) -> BTreeMap<(String, String), String> {
    let value = |block: &str, key: &str| {
        let line = block.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix(" = "));
        line.map(|text| text.trim_matches('"').to_owned())
    };
    let blocks = lock.split("[[package]]");
    let one = |block: &str| {
        let name = (value(block, "name")?, value(block, "version")?);
        Some((name, value(block, "checksum")?))
    };
    blocks.filter_map(one).collect()
}

fn text<'a>(package: &'a Value, key: &str) -> &'a str {
    package[key].as_str().unwrap_or_default()
}

/// A crate's address as package managers know it.
fn purl(package: &Value) -> String {
    format!("pkg:cargo/{}@{}", text(package, "name"), text(package, "version"))
}

fn bill(
    parts: &BTreeMap<String, Part<'_>>,
    release: &Release,
    checksums: &BTreeMap<(String, String), String>,
) -> Result<String> {
    let component = |part: &Part<'_>| {
        let (name, version) = (text(part.package, "name"), text(part.package, "version"));
        let mut component = json!({
            "type": if name == "wsproxy" { "application" } else { "library" },
            "bom-ref": purl(part.package), "name": name, "version": version,
            "purl": purl(part.package),
            "licenses": [{ "expression": expression(part.package) }],
        });
        if let Some(sum) = checksums.get(&(name.to_owned(), version.to_owned())) {
            component["hashes"] = json!([{ "alg": "SHA-256", "content": sum }]);
        }
        component
    };
    let (program, libraries): (Vec<_>, Vec<_>) =
        parts.values().partition(|part| text(part.package, "name") == "wsproxy");
    let reference = |id: &String| parts.get(id).map(|part| purl(part.package));
    let dependencies = parts.values().map(|part| {
        let needs: BTreeSet<String> = part.needs.iter().filter_map(reference).collect();
        json!({ "ref": purl(part.package), "dependsOn": needs })
    });
    let program = program.first().context("the program is missing")?;
    let bill = json!({
        "bomFormat": "CycloneDX", "specVersion": "1.5", "version": 1,
        "metadata": {
            "timestamp": release.date("+%Y-%m-%dT%H:%M:%SZ")?,
            "component": component(program),
        },
        "components": libraries.into_iter().map(component).collect::<Vec<_>>(),
        "dependencies": dependencies.collect::<Vec<_>>(),
    });
    Ok(format!("{bill:#}\n"))
}

/// As SPDX has it; some crates still write a slash for "or".
fn expression(package: &Value) -> String {
    text(package, "license").replace('/', " OR ").replace("  ", " ")
}

fn licences(parts: &BTreeMap<String, Part<'_>>) -> Result<String> {
    let mut texts: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    let mut list = String::new();
    let mut named: Vec<_> =
        parts.values().filter(|part| !part.package["source"].is_null()).collect();
    named.sort_by_key(|part| purl(part.package));
    for part in named {
        let name = format!("{} {}", text(part.package, "name"), text(part.package, "version"));
        let licence = expression(part.package);
        ensure!(!licence.is_empty(), "{name} names no licence");
        writeln!(list, "{name}: {licence}")?;
        let manifest = Path::new(text(part.package, "manifest_path"));
        let folder = manifest.parent().context("a manifest without a folder")?;
        for file in fs::read_dir(folder).with_context(|| folder.display().to_string())?.flatten() {
            let file_name = file.file_name().to_string_lossy().to_lowercase();
            let Ok(content) = fs::read_to_string(file.path()) else { continue };
            if TEXTS.iter().any(|start| file_name.starts_with(start)) {
                let content = content.replace('\r', "").trim().to_owned();
                texts.entry(content).or_default().insert(name.clone());
            }
        }
    }
    let mut all = format!("Crates that are linked into wsproxy, and their licences.\n\n{list}");
    for (content, names) in texts {
        let names: Vec<_> = names.into_iter().collect();
        write!(all, "\n{}\n{}:\n\n{content}\n", "-".repeat(79), names.join(", "))?;
    }
    Ok(all)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_bill_has_what_is_linked_and_nothing_else() {
        let release = Release { version: "1".into(), epoch: 0 };
        let (bill, licences) = of(Arch::X86_64, &release).expect("the workspace has metadata");
        let bill: Value = serde_json::from_str(&bill).expect("it is JSON");
        assert_eq!(bill["metadata"]["component"]["name"], "wsproxy");
        assert_eq!(bill["metadata"]["timestamp"], "1970-01-01T00:00:00Z");
        let components = bill["components"].as_array().expect("there are components");
        let names: Vec<_> = components.iter().map(|one| text(one, "name")).collect();
        for linked in ["aya", "rustls", "tokio", "wsproxy-common"] {
            assert!(names.contains(&linked), "{linked}");
        }
        // Tests', macros', other systems' and build scripts'.
        for other in ["proptest", "serde_derive", "clap_mangen", "windows-sys", "cc"] {
            assert!(!names.contains(&other), "{other}");
        }
        let tokio = components.iter().find(|one| one["name"] == "tokio").expect("it is linked");
        assert_eq!(tokio["hashes"][0]["content"].as_str().map(str::len), Some(64));
        assert!(
            licences.contains("\ntokio 1.") && licences.contains("Permission is hereby granted")
        );
    }

    #[test]
    fn checksums_are_found_by_name_and_version() {
        let lock = "version = 4\n\n[[package]]\nname = \"a\"\nversion = \"1\"\n\n[[package]]\n\
                    name = \"b\"\nversion = \"2\"\nchecksum = \"cafe\"\n";
        let found = checksums(lock);
        assert_eq!(found.len(), 1);
        assert_eq!(found[&("b".to_owned(), "2".to_owned())], "cafe");
    }
}
