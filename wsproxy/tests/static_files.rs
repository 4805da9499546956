//! Static files through the gateway, and the access log as a file.
#![cfg(target_os = "linux")]

mod support;

use std::{fs, os::unix::fs::symlink, path::Path, process::Command};

use rustix::process::{Pid, Signal, kill_process};
use support::{
    BINARY, Proxy, TempDir, config, header,
    http::{Origin, get, pattern, plain},
    request, status, wait_for,
};

/// Files to serve, and some beside them that nobody may see.
fn site() -> TempDir {
    let dir = TempDir::new();
    let root = dir.join("root");
    fs::create_dir_all(root.join("sub/empty")).unwrap();
    fs::write(root.join("index.html"), "the index").unwrap();
    fs::write(root.join("app.js"), "0123456789").unwrap();
    fs::write(root.join("with space.txt"), "a space").unwrap();
    fs::write(root.join(".hidden"), "TOP-SECRET").unwrap();
    fs::write(root.join("sub/index.html"), "the index below").unwrap();
    fs::write(root.join("large.bin"), pattern(3 << 20)).unwrap();
    fs::write(dir.join("secret.txt"), "TOP-SECRET").unwrap();
    fs::create_dir(dir.join("root-2")).unwrap();
    fs::write(dir.join("root-2/secret.txt"), "TOP-SECRET").unwrap();
    symlink(dir.join("secret.txt"), root.join("out")).unwrap();
    symlink("../secret.txt", root.join("out-relative")).unwrap();
    symlink("..", root.join("up")).unwrap();
    symlink("app.js", root.join("in.js")).unwrap();
    dir
}

/// The proxy without an upstream.
fn serving(routes: &str) -> Proxy {
    let text = config(&[], routes).replace("[upstream]\nservers = []\n", "");
    Proxy::with_file(Command::new(BINARY), &text, "relay")
}

fn route(path: &str, root: &Path, more: &str) -> String {
    format!("[[route]]\npath = \"{path}\"\nfiles = \"{}\"\n{more}\n", root.display())
}

#[test]
fn files_are_served() {
    let dir = site();
    let root = dir.join("root");
    let keys = "set_response_headers = { \"Cache-Control\" = \"max-age=9\" }";
    let proxy = serving(&route("/", &root, keys));
    let mut client = proxy.connect();
    for (path, kind, text) in [
        ("/", "text/html", "the index"),
        ("/index.html", "text/html", "the index"),
        ("/app.js", "text/javascript", "0123456789"),
        ("/app.js?v=1", "text/javascript", "0123456789"),
        ("/in.js", "text/javascript", "0123456789"),
        ("/with%20space.txt", "text/plain", "a space"),
        ("/sub/", "text/html", "the index below"),
    ] {
        let (code, head, body) = client.ask(&get(path, ""));
        assert_eq!((code, &*body), (200, text), "{path}");
        assert!(header(&head, "Content-Type")[0].starts_with(kind), "{path}: {head}");
        assert_eq!(header(&head, "Content-Length"), [text.len().to_string()], "{path}: {head}");
        assert_eq!(header(&head, "Cache-Control"), ["max-age=9"], "{path}: {head}");
        assert_eq!(header(&head, "X-Request-ID").len(), 1, "{path}: {head}");
        client.send(plain("HEAD", path, "", "").as_bytes());
        let head = client.head();
        assert_eq!(status(&head), 200, "{path}");
        assert_eq!(header(&head, "Content-Length"), [text.len().to_string()], "{path}: {head}");
    }
    let (code, head, _) = client.ask(&get("/sub?a=b", ""));
    assert_eq!(code, 301);
    assert_eq!(header(&head, "Location"), ["/sub/?a=b"], "{head}");
    let (code, head, _) = client.ask(&plain("POST", "/app.js", "", "body"));
    assert_eq!(code, 405);
    assert_eq!(header(&head, "Allow"), ["GET, HEAD"], "{head}");
    client.send(get("/large.bin", "").as_bytes());
    let head = client.head();
    assert!(client.body(&head) == pattern(3 << 20), "a large file was changed");
    // A file is no tunnel.
    client.send(request("").as_bytes());
    assert_eq!(status(&client.head()), 403);
    assert_eq!(proxy.failures("websocket_refused"), 1);
}

#[test]
fn nobody_gets_out_of_the_root() {
    let dir = site();
    let root = dir.join("root");
    let proxy = serving(&(route("/", &root, "") + &route("/below", &root, "")));
    for prefix in ["", "/below", "/below/sub"] {
        for (path, codes) in [
            ("/../secret.txt", &[400][..]),
            ("/%2e%2e/secret.txt", &[400]),
            ("/.%2E/secret.txt", &[400]),
            ("/sub/../../secret.txt", &[400]),
            ("/..", &[400]),
            ("/..%2fsecret.txt", &[400, 404]),
            ("/..%5csecret.txt", &[400, 404]),
            ("/%252e%252e/secret.txt", &[404]),
            ("/..;/secret.txt", &[400, 404]),
            ("-2/secret.txt", &[404]),
            ("/out", &[403, 404]),
            ("/out-relative", &[403, 404]),
            ("/up/secret.txt", &[403, 404]),
            ("/.hidden", &[404]),
            ("/%2ehidden", &[404]),
            ("/app.js%00", &[400]),
            ("/app.js/", &[404]),
            ("/sub/empty/", &[403, 404]),
        ] {
            let target = format!("{prefix}{path}");
            let target = if target.starts_with('/') { target } else { format!("/{target}") };
            let (code, _, body) = proxy.ask(&get(&target, ""));
            assert!(!body.contains("TOP-SECRET"), "{target}: {code} {body}");
            // Deeper down there is nothing of that name anyway.
            let nothing = prefix.ends_with("sub") && code == 404;
            assert!(codes.contains(&code) || nothing, "{target}: {code}");
        }
    }
}

#[test]
fn a_directory_may_be_served_below_a_path() {
    let dir = site();
    let root = dir.join("root");
    let routes = route("/assets", &root, "index = [\"app.js\"]")
        + &route("/slash/", &root, "")
        + &route("/app", &root, "fallback = [\"$uri\", \"$uri/\", \"/index.html\"]")
        + &route("/none", &root, "fallback = [\"$uri\", \"=404\"]");
    let proxy = serving(&routes);
    let mut client = proxy.connect();
    for (path, code, text) in [
        ("/assets/app.js", 200, "0123456789"),
        ("/assets/", 200, "0123456789"),
        ("/assets/sub/index.html", 200, "the index below"),
        ("/assets/assets/app.js", 404, ""),
        ("/%61ssets/app.js", 200, "0123456789"),
        ("/assetsapp.js", 404, ""),
        ("/slash/app.js", 200, "0123456789"),
        ("/slash/", 200, "the index"),
        ("/app/app.js", 200, "0123456789"),
        ("/app/some/page", 200, "the index"),
        ("/app/sub/", 200, "the index below"),
        ("/none/app.js", 200, "0123456789"),
        ("/none/page", 404, ""),
    ] {
        let (got, head, body) = client.ask(&get(path, ""));
        assert_eq!(got, code, "{path}: {head}");
        assert!(code == 404 || body == text, "{path}: {body}");
    }
    for (path, location) in [("/assets", "/assets/"), ("/assets/sub", "/assets/sub/")] {
        let (code, head, _) = client.ask(&get(path, ""));
        assert_eq!(code, 301, "{path}: {head}");
        assert_eq!(header(&head, "Location"), [location], "{head}");
    }
}

#[test]
fn parts_and_conditions() {
    let dir = site();
    let proxy = serving(&route("/", &dir.join("root"), ""));
    let mut client = proxy.connect();
    let (_, head, _) = client.ask(&get("/app.js", ""));
    let tag = header(&head, "ETag")[0].to_owned();
    let modified = header(&head, "Last-Modified")[0].to_owned();
    assert_eq!(header(&head, "Accept-Ranges"), ["bytes"], "{head}");
    for (more, code, range, text) in [
        ("Range: bytes=2-4\r\n".to_owned(), 206, "bytes 2-4/10", "234"),
        ("Range: bytes=-3\r\n".to_owned(), 206, "bytes 7-9/10", "789"),
        ("Range: bytes=8-99\r\n".to_owned(), 206, "bytes 8-9/10", "89"),
        ("Range: bytes=10-\r\n".to_owned(), 416, "bytes */10", ""),
        ("Range: lines=1-2\r\n".to_owned(), 200, "", "0123456789"),
        (format!("Range: bytes=0-0\r\nIf-Range: {tag}\r\n"), 206, "bytes 0-0/10", "0"),
        ("Range: bytes=0-0\r\nIf-Range: \"x\"\r\n".to_owned(), 200, "", "0123456789"),
        (format!("If-None-Match: {tag}\r\n"), 304, "", ""),
        ("If-None-Match: \"x\"\r\n".to_owned(), 200, "", "0123456789"),
        (format!("If-Modified-Since: {modified}\r\n"), 304, "", ""),
        ("If-Match: \"x\"\r\n".to_owned(), 412, "", ""),
    ] {
        client.send(get("/app.js", &more).as_bytes());
        let head = client.head();
        assert_eq!(status(&head), code, "{more}: {head}");
        let found = header(&head, "Content-Range").join("");
        assert_eq!(found, range, "{more}: {head}");
        if code == 304 {
            assert_eq!(header(&head, "ETag"), [&*tag], "{head}");
            continue;
        }
        let body = client.body(&head);
        assert!(code >= 400 || body == text.as_bytes(), "{more}: {}", body.escape_ascii());
    }
    // A file that changes is another one.
    fs::write(dir.join("root/app.js"), "changed text").unwrap();
    let (code, head, body) = client.ask(&get("/app.js", &format!("If-None-Match: {tag}\r\n")));
    assert_eq!((code, &*body), (200, "changed text"));
    assert_ne!(header(&head, "ETag"), [&*tag]);
}

#[test]
fn the_access_log_is_combined_and_opened_again() {
    let dir = TempDir::new();
    let log = dir.join("access.log");
    let origin = Origin::echo("");
    let more = format!("[access_log]\nformat = \"combined\"\npath = \"{}\"", log.display());
    let proxy = Proxy::relay(&[origin.address], &more);
    let mut client = proxy.connect();
    // The whole file, once a line begins with what is looked for.
    let wait_line = |what: &str| {
        wait_for("a line in the access log", || {
            let text = fs::read_to_string(&log).ok()?;
            let line = text.lines().find(|line| line.contains(what))?.to_owned();
            text.ends_with('\n').then_some((line, text))
        })
    };
    let (_, _, body) =
        client.ask(&get("/a?b=c", "Referer: http://r/\r\nUser-Agent: an \"agent\" \\\r\n"));
    let (line, _) = wait_line("/a?b=c");
    let (before, after) = line.split_once(" [").unwrap();
    assert_eq!(before, "127.0.0.1 - -");
    let (time, after) = after.split_once("] ").unwrap();
    // 10/Oct/2000:13:55:36 +0000
    let shape: String = time.chars().map(|c| if c.is_ascii_digit() { '9' } else { c }).collect();
    assert!(shape.ends_with("/9999:99:99:99 +9999") && shape.starts_with("99/"), "{time}");
    let length = body.len();
    let expected =
        format!("\"GET /a?b=c HTTP/1.1\" 200 {length} \"http://r/\" \"an \\x22agent\\x22 \\x5C\"");
    assert_eq!(after, expected);
    let mut old = proxy.connect();
    old.send(b"HEAD /old HTTP/1.0\r\n\r\n");
    old.rest();
    let (line, _) = wait_line("/old");
    assert!(line.ends_with("\"HEAD /old HTTP/1.0\" 200 0 \"-\" \"-\""), "{line}");

    // As logrotate does it.
    let moved = dir.join("access.log.1");
    fs::rename(&log, &moved).unwrap();
    client.ask(&get("/before", ""));
    wait_for("it is still written to", || {
        fs::read_to_string(&moved).unwrap().contains("/before").then_some(())
    });
    assert!(!log.exists(), "nobody has asked for a new file");
    let pid = Pid::from_raw(i32::try_from(proxy.pid()).unwrap()).unwrap();
    kill_process(pid, Signal::USR1).unwrap();
    wait_for("a new file", || log.exists().then_some(()));
    client.ask(&get("/after", ""));
    let (_, text) = wait_line("/after");
    assert_eq!(text.lines().count(), 1, "{text}");
    assert_eq!(fs::read_to_string(&moved).unwrap().lines().count(), 3);
    proxy.stop();
}
