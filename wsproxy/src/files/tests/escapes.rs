//! Nothing out of the root is served, and nothing but files.

use std::os::unix::fs::symlink;
use std::os::unix::net::UnixListener;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use proptest::prelude::*;
use rustix::fs::{CWD, FileType, Mode, mknodat};

use super::*;

/// A place with symlinks of all kinds.
fn linked() -> Place {
    let place = Place::new();
    place.write("index.html", "root").write("a/file", "inside");
    let links = [
        ("in", "a/file"),
        ("in-dir", "a"),
        ("a/up", "../index.html"),
        ("out", "../secret"),
        ("out-dir", ".."),
        ("a/out", "../../secret"),
        ("out-and-in", "../root/index.html"),
        ("loop", "loop"),
        ("dangling", "none"),
        ("magic", "/proc/self/root/etc/passwd"),
    ];
    for (name, to) in links {
        symlink(to, place.root.join(name)).unwrap();
    }
    symlink(place.outside().join("secret"), place.root.join("absolute")).unwrap();
    symlink("/", place.root.join("slash")).unwrap();
    place
}

#[test]
fn symlinks_stay_below_the_root() {
    let place = linked();
    let table = [
        ("/in", 200, 404),
        ("/in-dir/file", 200, 404),
        ("/in-dir/up", 200, 404),
        ("/in-dir", 301, 404),
        ("/a/up", 200, 404),
        ("/a/file", 200, 200),
        ("/out", 404, 404),
        ("/out-dir", 404, 404),
        ("/out-dir/", 404, 404),
        ("/out-dir/secret", 404, 404),
        ("/out-dir/root/index.html", 404, 404),
        ("/a/out", 404, 404),
        ("/in-dir/out", 404, 404),
        // Through the outside is outside.
        ("/out-and-in", 404, 404),
        ("/loop", 404, 404),
        ("/dangling", 404, 404),
        ("/absolute", 404, 404),
        ("/magic", 404, 404),
        ("/slash/etc/passwd", 404, 404),
    ];
    for (path, kernel, walk) in table {
        for (resolver, status) in BOTH.into_iter().zip([kernel, walk]) {
            let answer = get(&place.files_with(resolver), path);
            assert_eq!(answer.status, status, "{resolver:?} {path}");
        }
    }
}

#[test]
fn configured_names_stay_below_the_root_too() {
    let place = linked();
    let files = place.files_falling_back(&["/out", "/absolute", "=418"]);
    assert_eq!(get(&files, "/x").status, 418);
    let config = FilesConfig { index: vec!["out".to_owned()], ..place.config() };
    assert_eq!(get(&Files::open(config).unwrap(), "/").status, 403);
}

#[test]
fn dot_segments_are_refused() {
    let place = linked();
    let paths = [
        "/../secret",
        "/..",
        "/a/../../secret",
        "/a/../index.html",
        "/./index.html",
        "/%2e%2e/secret",
        "/.%2e/secret",
        "/%2E%2E/secret",
        "/a/%2e%2e/%2e%2e/secret",
        "/a/..",
        "/a/.",
        "/%2e/index.html",
    ];
    for resolver in BOTH {
        let files = place.files_with(resolver);
        for path in paths {
            assert_eq!(get(&files, path).status, 400, "{path}");
        }
        for path in
            ["/..%2fsecret", "/%2e%2e%2fsecret", "/%252e%252e/secret", "/..%5csecret", "/...."]
        {
            assert_eq!(get(&files, path).status, 404, "{path}");
        }
    }
}

#[test]
fn what_is_no_file_is_not_there_and_does_not_block() {
    let place = Place::new();
    let fifo = place.root.join("fifo");
    mknodat(CWD, &fifo, FileType::Fifo, Mode::RUSR | Mode::WUSR, 0).unwrap();
    symlink("fifo", place.root.join("to-fifo")).unwrap();
    let _socket = UnixListener::bind(place.root.join("socket")).unwrap();
    for resolver in BOTH {
        let files = place.files_with(resolver);
        for path in ["/fifo", "/to-fifo", "/socket", "/fifo/", "/fifo/x"] {
            let answer = run(async {
                let all = async { collect(respond(&files, "GET", path, &[]).await).await };
                tokio::time::timeout(Duration::from_secs(10), all).await
            });
            assert_eq!(answer.unwrap().status, 404, "{resolver:?} {path}");
        }
    }
}

#[test]
fn a_directory_that_turns_into_a_symlink_leads_nowhere() {
    let place = Place::new();
    fs::create_dir(place.outside().join("other")).unwrap();
    fs::write(place.outside().join("other/file"), "SECRET").unwrap();
    place.write("dir/file", "inside");
    symlink(place.outside().join("other"), place.root.join("link")).unwrap();
    let (dir, link) = (place.root.join("dir"), place.root.join("link"));
    let done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let exchange = rustix::fs::RenameFlags::EXCHANGE;
            // Bounded, so that a failed assertion below ends the test.
            for _ in 0..1_000_000 {
                if done.load(Ordering::Relaxed) {
                    break;
                }
                rustix::fs::renameat_with(CWD, &dir, CWD, &link, exchange).unwrap();
            }
        });
        for resolver in BOTH {
            let files = place.files_with(resolver);
            run(async {
                for _ in 0..300 {
                    let answer = collect(respond(&files, "GET", "/dir/file", &[]).await).await;
                    assert!(matches!(answer.status, 200 | 404 | 503), "{answer:?}");
                    assert_ne!(answer.text(), "SECRET");
                }
            });
        }
        done.store(true, Ordering::Relaxed);
    });
}

#[test]
fn no_permission_is_403() {
    use std::os::unix::fs::PermissionsExt as _;
    if rustix::process::geteuid().is_root() {
        return; // nothing is forbidden to root
    }
    let place = Place::new();
    place.write("file", "x").write("dir/index.html", "dir").write("closed/index.html", "x");
    let set = |path: &str, mode| {
        fs::set_permissions(place.root.join(path), fs::Permissions::from_mode(mode)).unwrap();
    };
    set("file", 0o000);
    set("dir", 0o111);
    set("closed", 0o000);
    for resolver in BOTH {
        let files = place.files_with(resolver);
        for (path, status) in [("/file", 403), ("/closed/", 403), ("/dir", 301), ("/dir/", 200)] {
            assert_eq!(get(&files, path).status, status, "{resolver:?} {path}");
        }
    }
    set("closed", 0o755);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn no_path_reaches_the_secret(
        paths in proptest::collection::vec(
            "(/|/|\\.\\.|\\.|%2e|%2f|%00|%5c|%|%25|a|in|out|-dir|secret|root|absolute|slash){0,9}",
            1..12,
        )
    ) {
        let place = linked();
        for resolver in BOTH {
            let files = place.files_with(resolver);
            run(async {
                for path in &paths {
                    let answer = collect(respond(&files, "GET", path, &[]).await).await;
                    assert!(!answer.text().contains("SECRET"), "{resolver:?} {path}");
                    let known = [200, 301, 400, 403, 404].contains(&answer.status);
                    assert!(known, "{path} {answer:?}");
                }
            });
        }
    }

    #[test]
    fn any_path_and_any_header_gets_an_answer(
        path in any::<String>(), original in any::<String>(), query in any::<Option<String>>(),
        range in "bytes=[0-9,-]{0,12}", tag in "[ -~]{0,12}",
    ) {
        let place = linked();
        let target = Target { path: &path, original_path: &original, query: query.as_deref() };
        let headers = header_map(&[("range", &range), ("if-range", &tag), ("if-none-match", &tag)]);
        let answer = run(async {
            collect(place.files().respond(&Method::GET, target, &headers).await).await
        });
        prop_assert!(!answer.text().contains("SECRET"));
        prop_assert!(answer.status < 500);
    }
}
