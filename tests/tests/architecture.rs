//! The rules of ARCHITECTURE.md's table, looked for in the sources. What code says counts, not what its comments and
//! texts say.

use std::{
    fmt, fs,
    path::{Path, PathBuf},
};

/// Lines of a file, at most: beyond, it does more than one thing.
const MOST_LINES: usize = 600;

/// Which files a rule is about: paths from the root of the tree, a directory with its slash.
struct Scope {
    inside: &'static [&'static str],
    except: &'static [&'static str],
}

/// A part of the program and the words it must not use.
struct Rule {
    why: &'static str,
    scope: Scope,
    words: &'static [&'static str],
}

/// What only code with a runtime, a clock or descriptors names.
const OUTSIDE_WORLD: &[&str] = &[
    "tokio",
    "hyper",
    "rustix",
    "libc",
    "socket2",
    "Instant",
    "SystemTime",
    "OwnedFd",
    "BorrowedFd",
    "RawFd",
    "AsFd",
    "AsRawFd",
    "FromRawFd",
    "IntoRawFd",
    "TcpStream",
    "TcpListener",
    "UnixStream",
    "sleep",
    "unsafe",
];

const RULES: &[Rule] = &[
    Rule {
        why: "only datapath/bpf names aya",
        scope: Scope {
            inside: &["wsproxy/src/", "wsproxy-common/", "xtask/", "tests/"],
            except: &["wsproxy/src/datapath/bpf/", "wsproxy/src/sys.rs"],
        },
        words: &["aya", "aya_obj", "aya_ebpf"],
    },
    Rule {
        why: "only sys.rs holds unsafe",
        scope: Scope {
            inside: &["wsproxy/", "wsproxy-common/", "xtask/", "tests/"],
            except: &["wsproxy/src/sys.rs"],
        },
        words: &["unsafe"],
    },
    Rule {
        why: "the handshake is a function of bytes",
        scope: Scope { inside: &["wsproxy/src/handshake/"], except: &[] },
        words: OUTSIDE_WORLD,
    },
    Rule {
        why: "the configuration is a function of text and flags",
        scope: Scope { inside: &["wsproxy/src/config/", "wsproxy/src/cli.rs"], except: &[] },
        words: OUTSIDE_WORLD,
    },
    Rule {
        why: "a lane is a pure state machine",
        scope: Scope { inside: &["wsproxy/src/datapath/lane.rs"], except: &[] },
        words: OUTSIDE_WORLD,
    },
    Rule {
        why: "a lane knows neither threads nor BPF",
        scope: Scope { inside: &["wsproxy/src/datapath/lane.rs"], except: &[] },
        words: &["thread", "Mutex", "bpf", "aya"],
    },
    Rule {
        why: "the shared crate runs in the kernel too",
        scope: Scope { inside: &["wsproxy-common/src/"], except: &[] },
        words: OUTSIDE_WORLD,
    },
    Rule {
        why: "the shared crate is no_std",
        scope: Scope { inside: &["wsproxy-common/src/"], except: &[] },
        words: &["std", "alloc", "Vec", "String", "Box"],
    },
    Rule {
        why: "the datapath knows no HTTP and no configuration file",
        scope: Scope { inside: &["wsproxy/src/datapath/"], except: &[] },
        words: &["handshake", "config", "gateway", "hyper", "httparse", "toml", "tokio"],
    },
    Rule {
        why: "the gateway does not know how bytes travel",
        scope: Scope { inside: &["wsproxy/src/gateway/"], except: &[] },
        words: &["bpf", "lane", "engine", "slots", "sys"],
    },
    Rule {
        why: "nothing is left undone",
        scope: Scope { inside: &[""], except: &[] },
        words: &["todo!", "unimplemented!"],
    },
];

/// A rule that a line breaks.
#[derive(Debug, PartialEq, Eq)]
struct Finding {
    path: String,
    line: usize,
    what: String,
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}: {}", self.path, self.line, self.what)
    }
}

impl Scope {
    fn holds(&self, path: &str) -> bool {
        let any = |of: &[&str]| of.iter().any(|start| path.starts_with(start));
        any(self.inside) && !any(self.except)
    }
}

/// Everything that one file breaks.
fn findings(path: &str, source: &str) -> Vec<Finding> {
    let code = code_of(source);
    let mut found = Vec::new();
    let mut find = |line: usize, what: String| {
        found.push(Finding { path: path.to_owned(), line, what });
    };
    for rule in RULES.iter().filter(|rule| rule.scope.holds(path)) {
        for (at, line) in code.lines().enumerate() {
            // The number of an error is a number.
            let line = &line.replace("libc::E", "E");
            for word in rule.words.iter().filter(|word| names(line, word)) {
                find(at + 1, format!("`{word}`: {}", rule.why));
            }
        }
    }
    if path == "wsproxy/src/sys.rs" {
        for (at, line) in code.lines().enumerate() {
            if names(line, "aya") && !line.contains("unsafe impl aya::Pod for ") {
                find(at + 1, "`aya`: sys.rs implements its Pod and no more".to_owned());
            }
        }
    }
    for (at, line) in source.lines().enumerate() {
        // In comments too: that is where it stands.
        if line.contains(concat!("FIX", "ME")) {
            find(at + 1, "something is left to fix".to_owned());
        }
    }
    let lines = source.lines().count();
    if lines > MOST_LINES {
        find(lines, format!("longer than {MOST_LINES} lines"));
    }
    found
}

/// Whether a line of code has this word: an identifier, or a macro's name with its `!`.
fn names(line: &str, word: &str) -> bool {
    let part_of_word = |c: char| c.is_alphanumeric() || c == '_';
    line.match_indices(word).any(|(at, _)| {
        let before = line[..at].chars().next_back();
        let after = line[at + word.len()..].chars().next();
        !before.is_some_and(part_of_word)
            && (word.ends_with('!') || !after.is_some_and(part_of_word))
    })
}

/// The source without its comments and the insides of its texts; lines stay where they are.
fn code_of(source: &str) -> String {
    let mut code = String::with_capacity(source.len());
    let mut rest = source;
    while let Some(first) = rest.chars().next() {
        let word_before = code.chars().next_back().is_some_and(|c| c.is_alphanumeric() || c == '_');
        let skipped = match first {
            '/' => comment(rest),
            '"' => Some(text(rest)),
            'r' if !word_before || ends_with_prefix(&code) => raw_text(rest),
            '\'' => character(rest),
            _ => None,
        };
        let length = skipped.unwrap_or(first.len_utf8());
        let (piece, after) = rest.split_at(length);
        match skipped {
            None => code.push_str(piece),
            Some(_) => {
                code.push(' ');
                code.extend(piece.chars().filter(|&c| c == '\n'));
            }
        }
        rest = after;
    }
    code
}

/// `br"..."` and `cr"..."`: the letter before the `r` is part of the literal.
fn ends_with_prefix(code: &str) -> bool {
    let mut back = code.chars().rev();
    let prefix = matches!(back.next(), Some('b' | 'c'));
    prefix && !back.next().is_some_and(|c| c.is_alphanumeric() || c == '_')
}

fn comment(rest: &str) -> Option<usize> {
    if rest.starts_with("//") {
        return Some(rest.find('\n').unwrap_or(rest.len()));
    }
    rest.starts_with("/*").then_some(())?;
    let (mut depth, mut at) = (0, 0);
    while at < rest.len() {
        let bytes = &rest.as_bytes()[at..];
        at += match bytes {
            [b'/', b'*', ..] => {
                depth += 1;
                2
            }
            [b'*', b'/', ..] => {
                depth -= 1;
                2
            }
            _ => 1,
        };
        if depth == 0 {
            return Some(at);
        }
    }
    Some(rest.len())
}

/// Up to behind the closing quote of a text that starts here.
fn text(rest: &str) -> usize {
    let mut escaped = false;
    for (at, byte) in rest.bytes().enumerate().skip(1) {
        match byte {
            _ if escaped => escaped = false,
            b'\\' => escaped = true,
            b'"' => return at + 1,
            _ => {}
        }
    }
    rest.len()
}

fn raw_text(rest: &str) -> Option<usize> {
    let hashes = rest[1..].bytes().take_while(|&b| b == b'#').count();
    let inside = rest[1 + hashes..].strip_prefix('"')?;
    let close = format!("\"{}", "#".repeat(hashes));
    let start = rest.len() - inside.len();
    Some(inside.find(&close).map_or(rest.len(), |at| start + at + close.len()))
}

/// A character literal; `None` for a lifetime.
fn character(rest: &str) -> Option<usize> {
    let mut inside = rest.char_indices().skip(1);
    let (_, first) = inside.next()?;
    if first == '\\' {
        inside.next()?;
        return inside.find(|&(_, c)| c == '\'').map(|(at, _)| at + 1);
    }
    let (at, close) = inside.next()?;
    (close == '\'').then_some(at + 1)
}

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

/// Every Rust source under `dir`, by its path from the root.
fn sources(dir: &Path, name: &str, out: &mut Vec<(String, String)>) {
    let entries = fs::read_dir(dir).unwrap_or_else(|e| panic!("{}: {e}", dir.display()));
    for entry in entries {
        let entry = entry.unwrap();
        let file = entry.file_name().into_string().unwrap();
        let path = if name.is_empty() { file.clone() } else { format!("{name}/{file}") };
        let kind = entry.file_type().unwrap();
        if kind.is_dir() && file != "target" && !file.starts_with('.') {
            sources(&entry.path(), &path, out);
        } else if kind.is_file() && file.ends_with(".rs") {
            let text = fs::read_to_string(entry.path()).unwrap();
            out.push((path, text));
        }
    }
}

#[test]
fn the_tree_keeps_the_rules_of_its_architecture() {
    let mut files = Vec::new();
    sources(&root(), "", &mut files);
    for rule in RULES {
        // A scope that nothing is in would keep every rule.
        for start in rule.scope.inside.iter().chain(rule.scope.except) {
            assert!(
                files.iter().any(|(path, _)| path.starts_with(start)),
                "{}: nothing is in {start}",
                rule.why
            );
        }
    }
    let found: Vec<_> = files.iter().flat_map(|(path, text)| findings(path, text)).collect();
    let list = found.iter().map(|f| format!("\n  {f}")).collect::<String>();
    assert!(found.is_empty(), "{} lines break a rule of ARCHITECTURE.md:{list}", found.len());
}

#[test]
fn a_broken_rule_is_found() {
    let check = |path: &str, source: &str, lines: &[usize]| {
        let found = findings(path, source);
        let at: Vec<_> = found.iter().map(|f| f.line).collect();
        assert_eq!(at, lines, "{path}: {source}\n{found:?}");
    };
    let in_gateway = "wsproxy/src/gateway/mod.rs";
    let in_handshake = "wsproxy/src/handshake/request.rs";
    let in_lane = "wsproxy/src/datapath/lane.rs";
    let in_bpf = "wsproxy/src/datapath/bpf/mod.rs";
    check(in_gateway, "fn a() {}\nuse aya::Ebpf;\n", &[2]);
    check("wsproxy/src/main.rs", "let x = aya::maps::loaded_maps();", &[1]);
    check(in_bpf, "use aya::Ebpf;", &[]);
    check("wsproxy/src/sys.rs", "unsafe impl aya::Pod for Offsets {}", &[]);
    check("wsproxy/src/sys.rs", "use aya::Ebpf;\nunsafe { f() }", &[1]);
    check(in_bpf, "unsafe { f() }", &[1]);
    check("tests/src/lib.rs", "pub unsafe fn f() {}", &[1]);
    check("wsproxy/src/lib.rs", "#![deny(unsafe_code)]", &[]);
    check(in_handshake, "use std::time::Instant;", &[1]);
    check(in_handshake, "use std::time::Duration;\nuse tokio::time;\n", &[2]);
    check("wsproxy/src/handshake/tests/mod.rs", "fn f(fd: OwnedFd) {}", &[1]);
    check("wsproxy/src/config/mod.rs", "let at = SystemTime::now();", &[1]);
    check("wsproxy/src/cli.rs", "use std::fs::File;", &[]);
    check("wsproxy/src/cli.rs", "use std::os::fd::AsFd;", &[1]);
    check(in_lane, "use std::thread;", &[1]);
    check(in_lane, "e == libc::ENOTCONN;\nlibc::recv()", &[2]);
    check(in_lane, "fn f(socket: BorrowedFd<'_>) {}", &[1]);
    check("wsproxy/src/datapath/engine.rs", "use std::time::Instant;", &[]);
    check("wsproxy/src/datapath/engine.rs", "use crate::config::Config;", &[1]);
    check("wsproxy-common/src/cursor.rs", "use std::time::Instant;", &[1, 1]);
    check("wsproxy-common/src/cursor.rs", "use core::fmt;", &[]);
    check(in_gateway, "use crate::datapath::lane::Lane;", &[1]);
    check("xtask/src/main.rs", "fn f() { todo!() }\nfn g() { unimplemented!(\"x\") }", &[1, 2]);
    check("xtask/src/main.rs", "let todo = 1; let not_todo = todo != 2;", &[]);
    check("xtask/src/main.rs", concat!("// FIX", "ME: later"), &[1]);
    let long = "\n".repeat(MOST_LINES);
    check("xtask/src/main.rs", &long, &[]);
    check("xtask/src/main.rs", &format!("{long}\n"), &[MOST_LINES + 1]);
}

#[test]
fn comments_and_texts_are_no_code() {
    let check = |source: &str, code: &str| assert_eq!(code_of(source), code, "{source}");
    check("a // unsafe\nb", "a  \nb");
    check("/// unsafe\nb", " \nb");
    check("a /* un /* safe */\n */ b", "a  \n b");
    check("f(\"unsafe \\\" unsafe\"); b", "f( ); b");
    check("f(r#\"unsafe \" unsafe\"#); b", "f( ); b");
    check("f(br\"unsafe\\\", b)", "f(b , b)");
    check("'\"' unsafe '\\'' '\\u{22}'", "  unsafe    ");
    check("fn f<'a>(x: &'a str) -> u8 { b'/' }", "fn f<'a>(x: &'a str) -> u8 { b  }");
    check("var\"x\" // \"", "var   ");
    check("\"a\nb\" c", " \n c");
}
