//! The examples under `packaging/`: what they give the program it takes, and what they say of
//! capabilities, ports and names fits together. Linters look at their form (`cargo xtask test`).

use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use saphyr::{LoadableYamlNode as _, Yaml};

/// What the kernel path needs, and ports below 1024.
const CAPABILITIES: [&str; 4] = ["BPF", "PERFMON", "NET_ADMIN", "NET_BIND_SERVICE"];

fn packaging() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../packaging")
}

fn read(name: &str) -> String {
    fs::read_to_string(packaging().join(name)).unwrap()
}

/// `wsproxy check`; what it says.
fn check(name: &str, text: &str) -> String {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("wsproxy.toml");
    fs::write(&file, text).unwrap();
    let done =
        Command::new(env!("CARGO_BIN_EXE_wsproxy")).arg("check").arg(&file).output().unwrap();
    let said = String::from_utf8_lossy(&done.stderr).into_owned();
    assert!(done.status.success(), "{name}: {said}");
    said
}

/// Visits every mapping of a document.
fn each<'a>(node: &'a Yaml<'a>, look: &mut impl FnMut(&'a Yaml<'a>)) {
    look(node);
    for (_, value) in node.as_mapping().into_iter().flatten() {
        each(value, look);
    }
    for value in node.as_sequence().into_iter().flatten() {
        each(value, look);
    }
}

fn texts<'a>(node: Option<&'a Yaml<'a>>) -> BTreeSet<&'a str> {
    let list = node.and_then(Yaml::as_sequence).into_iter().flatten();
    list.filter_map(Yaml::as_str).collect()
}

fn get<'a>(node: &'a Yaml<'a>, path: &[&str]) -> Option<&'a Yaml<'a>> {
    path.iter().try_fold(node, |node, key| node.as_mapping_get(key))
}

#[test]
fn every_configuration_is_accepted() {
    for name in ["container/wsproxy.toml", "compose/wsproxy.toml"] {
        check(name, &read(name));
    }
    for name in ["kubernetes/daemonset.yaml", "kubernetes/sidecar.yaml"] {
        let text = read(name);
        let mut found = 0;
        for document in Yaml::load_from_str(&text).unwrap() {
            if let Some(text) = get(&document, &["data", "wsproxy.toml"]).and_then(Yaml::as_str) {
                check(name, text);
                found += 1;
                // With what is commented out in it, too.
                let all: String = text.lines().map(|line| uncommented(line) + "\n").collect();
                check(name, &all);
            }
        }
        assert_eq!(found, 1, "{name}");
    }
}

/// A key or a section that is commented out, put in.
fn uncommented(line: &str) -> String {
    match line.strip_prefix("# ") {
        Some(rest) if rest.starts_with('[') || rest.contains(" = ") => rest.to_owned(),
        _ => line.to_owned(),
    }
}

#[test]
fn capabilities_are_those_that_are_needed_and_no_more() {
    let wanted = BTreeSet::from(CAPABILITIES);
    for name in ["kubernetes/daemonset.yaml", "kubernetes/sidecar.yaml"] {
        let text = read(name);
        let mut found = 0;
        for document in &Yaml::load_from_str(&text).unwrap() {
            each(document, &mut |node| {
                let Some(context) = get(node, &["securityContext"]) else { return };
                let dropped = texts(get(context, &["capabilities", "drop"]));
                assert_eq!(dropped, BTreeSet::from(["ALL"]), "{name}");
                let added = texts(get(context, &["capabilities", "add"]));
                let is_ours = get(node, &["name"]).and_then(Yaml::as_str) == Some("wsproxy");
                assert_eq!(added, if is_ours { wanted.clone() } else { BTreeSet::new() }, "{name}");
                // The program's file gives them, which no_new_privs would keep it from.
                let may_rise = get(context, &["allowPrivilegeEscalation"]);
                assert_eq!(may_rise.and_then(Yaml::as_bool), Some(is_ours), "{name}");
                found += usize::from(is_ours);
            });
        }
        assert_eq!(found, 1, "{name}");
    }
    let text = read("compose/compose.yaml");
    let compose = &Yaml::load_from_str(&text).unwrap()[0];
    assert_eq!(texts(get(compose, &["services", "wsproxy", "cap_add"])), wanted);
    assert_eq!(texts(get(compose, &["services", "wsproxy", "cap_drop"])), BTreeSet::from(["ALL"]));
    let line = CAPABILITIES.map(|name| format!("cap_{}", name.to_lowercase())).join(",");
    assert!(read("container/Containerfile").contains(&format!("setcap {line}=ep")), "{line}");
}

/// Ports that are published are listened on.
#[test]
fn ports_fit_together() {
    for (toml, file) in [
        ("container/wsproxy.toml", "container/Containerfile"),
        ("compose/wsproxy.toml", "compose/compose.yaml"),
    ] {
        assert!(read(toml).contains("0.0.0.0:8080"), "{toml}");
        assert!(read(file).contains("8080"), "{file}");
    }
    for name in ["kubernetes/daemonset.yaml", "kubernetes/sidecar.yaml"] {
        let text = read(name);
        assert!(text.contains("address = \"0.0.0.0:8080\""), "{name}");
        let mut ports = BTreeSet::new();
        for document in &Yaml::load_from_str(&text).unwrap() {
            each(document, &mut |node| {
                ports.extend(get(node, &["containerPort"]).and_then(Yaml::as_integer));
                if let Some(probe) = get(node, &["httpGet", "path"]).and_then(Yaml::as_str) {
                    assert!(["/healthz", "/readyz"].contains(&probe), "{name}: {probe}");
                }
            });
        }
        assert!(ports.contains(&8080), "{name}: {ports:?}");
    }
}
