//! The rules of ARCHITECTURE.md's table, looked for in the sources.

use std::{
    fs,
    path::{Path, PathBuf},
};

/// Files may grow to this before they must be split.
const MOST_LINES: usize = 600;

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

fn sources(folder: &Path, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            sources(&path, found);
        } else if path.extension().is_some_and(|e| e == "rs") {
            found.push(path);
        }
    }
}

/// Code lines without comments, with their numbers.
fn code(text: &str) -> impl Iterator<Item = (usize, &str)> {
    let lines = text.lines().enumerate().map(|(at, line)| (at + 1, line));
    lines.filter(|(_, line)| !line.trim_start().starts_with("//"))
}

/// `word` as a word of its own.
fn has_word(line: &str, word: &str) -> bool {
    let is_part = |c: Option<char>| c.is_some_and(|c| c.is_alphanumeric() || c == '_');
    line.match_indices(word).any(|(at, _)| {
        let (before, after) = (&line[..at], &line[at + word.len()..]);
        !is_part(before.chars().next_back()) && !is_part(after.chars().next())
    })
}

fn offences(text: &str, words: &[&str]) -> Vec<String> {
    // A path of the system is no module.
    let plain = |line: &str| line.replace("/sys/fs/", "");
    code(text)
        .filter(|(_, line)| words.iter().any(|word| has_word(&plain(line), word)))
        .map(|(at, line)| format!("{at}: {}", line.trim()))
        .collect()
}

/// Fails for each file under `folder`, except `but`, that has one of `words` in its code.
fn forbid(folder: &str, words: &[&str], but: &[&str]) {
    let mut files = Vec::new();
    let start = root().join(folder);
    if start.is_file() {
        files.push(start)
    } else {
        sources(&start, &mut files)
    }
    assert!(!files.is_empty(), "{folder} is gone");
    let mut wrong = Vec::new();
    for file in files {
        let name = file.strip_prefix(root()).unwrap().display().to_string();
        if but.iter().any(|b| name.starts_with(b)) {
            continue;
        }
        let found = offences(&fs::read_to_string(&file).unwrap(), words);
        wrong.extend(found.into_iter().map(|line| format!("{name}:{line}")));
    }
    assert!(wrong.is_empty(), "{words:?} in {folder}:\n{}", wrong.join("\n"));
}

#[test]
fn the_rules_would_be_seen_broken() {
    assert_eq!(offences("use aya::Ebpf;\n// aya\nlet ayax = 1;", &["aya"]).len(), 1);
    assert!(has_word("unsafe {", "unsafe") && !has_word("unsafe_code", "unsafe"));
}

#[test]
fn only_the_bpf_module_names_aya() {
    // `sys` implements aya's marker trait for plain data.
    forbid("wsproxy/src", &["aya"], &["wsproxy/src/datapath/bpf", "wsproxy/src/sys"]);
    // The tests have a link of their own, which is none of wsproxy's programs, and look at what is
    // left in the kernel after all of these are gone.
    forbid("tests/src", &["aya"], &["tests/src/link.rs", "tests/src/bin/leftovers.rs"]);
}

#[test]
fn only_one_module_of_user_space_holds_unsafe() {
    forbid("wsproxy/src", &["unsafe"], &["wsproxy/src/sys.rs", "wsproxy/src/sys/"]);
    forbid("wsproxy-common/src", &["unsafe"], &[]);
    forbid("tests/src", &["unsafe"], &[]);
}

#[test]
fn the_pure_parts_stay_pure() {
    // The last is also what a key's type is called.
    const IMPURE: [&str; 11] = [
        "tokio",
        "Instant",
        "SystemTime",
        "OwnedFd",
        "BorrowedFd",
        "TcpStream",
        "rustix",
        "socket2",
        "libc",
        "fs",
        "File",
    ];
    // One test of hashing measures what it costs.
    let but = ["wsproxy/src/balance/tests/hashing.rs"];
    for part in ["handshake", "routes.rs", "forwarding", "balance", "proxy_protocol", "nginx"] {
        forbid(&format!("wsproxy/src/{part}"), &IMPURE, &but);
    }
    // One test of the configuration writes its document.
    forbid("wsproxy/src/config", &IMPURE[..10], &["wsproxy/src/config/tests/document.rs"]);
    forbid("wsproxy-common/src", &IMPURE, &[]);
    // The lane names one errno of libc, and nothing that opens, waits or tells the time.
    forbid("wsproxy/src/datapath/lane.rs", &IMPURE[..8], &[]);
}

#[test]
fn only_where_tls_is_spoken_is_rustls_named() {
    let but = [
        "wsproxy/src/tls/",
        "wsproxy/src/probe/",
        "wsproxy/src/datapath/endpoint.rs",
        "wsproxy/src/gateway/arrival.rs",
        "wsproxy/src/gateway/setup.rs",
        "wsproxy/src/gateway/stream.rs",
        "wsproxy/src/gateway/upstreams/connect.rs",
        "wsproxy/src/gateway/upstreams/mod.rs",
        "wsproxy/src/gateway/upstreams/names.rs",
        // In a sentence for the operator.
        "wsproxy/src/nginx/known.rs",
    ];
    forbid("wsproxy/src", &["rustls", "tokio_rustls", "webpki"], &but);
}

#[test]
fn the_live_view_knows_what_the_admin_socket_says_and_no_more() {
    const TOP: &str = "wsproxy/src/top";
    const IMPURE: [&str; 10] = [
        "hyper",
        "tokio",
        "rustix",
        "thread",
        "Instant",
        "SystemTime",
        "fs",
        "File",
        "Line",
        "stdout",
    ];
    let [shell, terminal] = ["mod.rs", "terminal.rs"].map(|file| format!("{TOP}/{file}"));
    forbid(TOP, &IMPURE, &[&shell, &terminal]);
    // The datapath is a name in an answer elsewhere.
    forbid(TOP, &["gateway", "balance", "Control", "UnixStream"], &[]);
    forbid(&shell, &["datapath"], &[]);
    forbid(&terminal, &["admin", "Line", "model", "view", "datapath"], &[]);
    // Nobody else has a terminal.
    forbid("wsproxy/src", &["ratatui", "crossterm"], &[TOP]);
}

#[test]
fn only_telemetry_names_opentelemetry_and_it_knows_no_gateway() {
    const TELEMETRY: &str = "wsproxy/src/telemetry";
    let crates = ["", "_sdk", "_otlp", "_http"].map(|part| format!("opentelemetry{part}"));
    let crates = crates.each_ref().map(String::as_str);
    forbid("wsproxy/src", &crates, &[TELEMETRY]);
    forbid(TELEMETRY, &["gateway", "datapath", "config"], &[]);
}

#[test]
fn below_the_gateway_nobody_knows_http() {
    forbid("wsproxy/src/datapath", &["handshake", "httparse", "hyper", "config"], &[]);
}

#[test]
fn nothing_is_left_unfinished_and_no_file_is_too_long() {
    for folder in [
        "wsproxy/src",
        "wsproxy-common/src",
        "wsproxy-ebpf/src",
        "xtask/src",
        "tests/link-ebpf/src",
        "tests/src",
    ] {
        forbid(folder, &["todo", "unimplemented", "FIXME", "dbg"], &[]);
        let mut files = Vec::new();
        sources(&root().join(folder), &mut files);
        for file in files {
            let lines = fs::read_to_string(&file).unwrap().lines().count();
            assert!(lines <= MOST_LINES, "{} has {lines} lines", file.display());
        }
    }
}
