//! What is found for a path, and the head of the answer.

use std::os::unix::fs::symlink;
use std::time::{Duration, UNIX_EPOCH};

use super::*;

#[test]
fn a_file_with_all_its_headers() {
    let place = Place::new();
    place.write("a/page.html", "<p>hello</p>");
    let file = fs::File::options().write(true).open(place.root.join("a/page.html")).unwrap();
    file.set_modified(UNIX_EPOCH + Duration::new(784_111_777, 5)).unwrap();
    for resolver in BOTH {
        let answer = get(&place.files_with(resolver), "/a/page.html?x=1");
        assert_eq!((answer.status, answer.text()), (200, "<p>hello</p>"));
        let expected = [
            ("content-type", "text/html; charset=utf-8"),
            ("content-length", "12"),
            ("etag", "\"ae1b981bc490a05-c\""),
            ("last-modified", "Sun, 06 Nov 1994 08:49:37 GMT"),
            ("accept-ranges", "bytes"),
            ("x-content-type-options", "nosniff"),
        ];
        for (name, value) in expected {
            assert_eq!(answer.header(name), value, "{name}");
        }
        assert_eq!(answer.headers.len(), expected.len());
    }
}

#[test]
fn head_has_the_same_headers_and_no_body() {
    let place = Place::new();
    place.write("a.txt", "hello").write("big", pattern(200_000));
    fs::create_dir(place.root.join("dir")).unwrap();
    let files = place.files();
    for path in ["/a.txt", "/big", "/none", "/dir", "/dir/", "/%zz"] {
        let (get, head) = (get(&files, path), ask(&files, "HEAD", path, &[]));
        assert_eq!((head.status, head.headers), (get.status, get.headers), "{path}");
        assert!(head.body.is_empty() && !get.body.is_empty(), "{path}");
    }
    // Ranges are for GET alone.
    let part = ask(&files, "HEAD", "/a.txt", &[("range", "bytes=0-1")]);
    assert_eq!((part.status, part.header("content-length")), (200, "5"));
}

#[test]
fn errors_are_short_texts() {
    let place = Place::new();
    fs::create_dir(place.root.join("dir")).unwrap();
    let files = place.files();
    let table = [
        ("/none", 404, "404 Not Found\n"),
        ("/dir/", 403, "403 Forbidden\n"),
        ("/..", 400, "400 Bad Request\n"),
    ];
    for (path, status, text) in table {
        let answer = get(&files, path);
        assert_eq!((answer.status, answer.text()), (status, text), "{path}");
        assert_eq!(answer.header("content-length"), text.len().to_string());
        assert_eq!(answer.header("content-type"), "text/plain; charset=utf-8");
        assert_eq!(answer.header("x-content-type-options"), "nosniff");
        assert_eq!(answer.header("etag"), "");
    }
}

#[test]
fn other_methods_are_refused() {
    let place = Place::new();
    place.write("a.txt", "hello");
    for method in ["POST", "PUT", "DELETE", "OPTIONS", "PATCH", "PROPFIND", "get"] {
        let answer = ask(&place.files(), method, "/a.txt", &[]);
        assert_eq!((answer.status, answer.header("allow")), (405, "GET, HEAD"), "{method}");
    }
}

#[test]
fn paths() {
    let place = Place::new();
    place
        .write("index.html", "root")
        .write("a b/ä.txt", "umlaut")
        .write("a%20b", "percent")
        .write("empty", "")
        .write("dir/index.html", "dir")
        .write("bare/file", "x")
        .write(".well-known/acme-challenge/token", "token")
        .write(".hidden", "no")
        .write("dir/.git/config", "no");
    let long = format!("/{}", "a".repeat(300));
    let table = [
        ("/", 200, "root"),
        ("", 301, "301 Moved Permanently\n"),
        ("/index.html", 200, "root"),
        ("/a%20b/%C3%A4.txt", 200, "umlaut"),
        ("/%61%20b/ä.txt", 200, "umlaut"),
        ("/a%2520b", 200, "percent"),
        ("/empty", 200, ""),
        ("/dir/", 200, "dir"),
        ("/bare/", 403, "403 Forbidden\n"),
        ("/.well-known/acme-challenge/token", 200, "token"),
        ("/.well-known/", 403, "403 Forbidden\n"),
        ("/.hidden", 404, "404 Not Found\n"),
        ("/dir/.git/config", 404, "404 Not Found\n"),
        ("/index.html/", 404, "404 Not Found\n"),
        ("/index.html/x", 404, "404 Not Found\n"),
        ("/dir//index.html", 404, "404 Not Found\n"),
        ("//index.html", 404, "404 Not Found\n"),
        ("/dir%2findex.html", 404, "404 Not Found\n"),
        ("/INDEX.html", 404, "404 Not Found\n"),
        ("/index.html%00.txt", 400, "400 Bad Request\n"),
        (long.as_str(), 404, "404 Not Found\n"),
    ];
    for resolver in BOTH {
        let files = place.files_with(resolver);
        for (path, status, text) in table {
            let answer = get(&files, path);
            assert_eq!((answer.status, answer.text()), (status, text), "{resolver:?} {path}");
        }
    }
}

#[test]
fn a_directory_is_redirected_to_its_slash() {
    let place = Place::new();
    fs::create_dir_all(place.root.join("a b/c")).unwrap();
    let files = place.files();
    let table = [
        ("/a%20b", "/a%20b/"),
        ("/a%20b/c?x=%2f&y", "/a%20b/c/?x=%2f&y"),
        ("/a%20b/c?", "/a%20b/c/?"),
    ];
    for (path, location) in table {
        let answer = get(&files, path);
        assert_eq!((answer.status, answer.header("location")), (301, location), "{path}");
        assert_eq!(answer.header("content-length"), answer.body.len().to_string());
    }
}

#[test]
fn a_route_may_take_its_prefix_away() {
    let place = Place::new();
    place.write("index.html", "root").write("a/x", "x");
    let files = place.files();
    let table = [
        ("", "/static", 301, "/static/"),
        ("", "/static/", 200, ""),
        ("/", "/static/", 200, ""),
        ("a/x", "/static/a/x", 200, ""),
        ("/a/x", "/static/a/x", 200, ""),
        ("a", "/static/a", 301, "/static/a/"),
        ("a/", "/static/a/", 403, ""),
    ];
    for (path, original_path, status, location) in table {
        let target = Target { path, original_path, query: None };
        let response = run(files.respond(&Method::GET, target, &HeaderMap::new()));
        let answer = run(collect(response));
        assert_eq!((answer.status, answer.header("location")), (status, location), "{path}");
    }
}

#[test]
fn indexes_are_tried_in_order() {
    let place = Place::new();
    place.write("a/index.htm", "htm").write("b/index.htm", "htm").write("b/index.html", "html");
    fs::create_dir_all(place.root.join("c/index.html")).unwrap();
    place.write("c/index.htm", "htm");
    let index = vec!["index.html".to_owned(), "index.htm".to_owned()];
    let files = Files::open(FilesConfig { index, ..place.config() }).unwrap();
    for (path, text) in [("/a/", "htm"), ("/b/", "html"), ("/c/", "htm")] {
        assert_eq!(get(&files, path).text(), text, "{path}");
    }
    let none = Files::open(FilesConfig { index: Vec::new(), ..place.config() }).unwrap();
    assert_eq!(get(&none, "/b/").status, 403);
}

#[test]
fn fallbacks() {
    let place = Place::new();
    place.write("index.html", "app").write("page.html", "page").write("dir/a", "a");
    let app: &[&str] = &["$uri", "$uri/", "/index.html"];
    let pages: &[&str] = &["$uri", "$uri.html", "=410"];
    let files_only: &[&str] = &["$uri", "=404"];
    let table = [
        (app, "/page.html", 200, "page"),
        (app, "/any/where", 200, "app"),
        (app, "/any/where/", 200, "app"),
        (app, "/dir/b", 200, "app"),
        (app, "/dir/", 403, "403 Forbidden\n"),
        (app, "/dir", 301, "301 Moved Permanently\n"),
        // What is refused gets to no fallback.
        (app, "/.git", 404, "404 Not Found\n"),
        (app, "/a%2fb", 404, "404 Not Found\n"),
        (app, "/../x", 400, "400 Bad Request\n"),
        (pages, "/page", 200, "page"),
        (pages, "/page/", 410, "410 Gone\n"),
        (pages, "/", 410, "410 Gone\n"),
        (pages, "/none", 410, "410 Gone\n"),
        (files_only, "/dir", 404, "404 Not Found\n"),
        (files_only, "/dir/", 404, "404 Not Found\n"),
        (&["/none.html", "/page.html"], "/x", 200, "page"),
        (&["/none.html"], "/x", 404, "404 Not Found\n"),
        (&["/dir"], "/x", 404, "404 Not Found\n"),
    ];
    for (fallback, path, status, text) in table {
        let answer = get(&place.files_falling_back(fallback), path);
        assert_eq!((answer.status, answer.text()), (status, text), "{fallback:?} {path}");
    }
    let answer = get(&place.files_falling_back(app), "/any.png");
    assert_eq!(answer.header("content-type"), "text/html; charset=utf-8");
}

#[test]
fn the_root_is_held_open() {
    let place = Place::new();
    place.write("a", "old");
    let link = place.outside().join("current");
    symlink("root", &link).unwrap();
    let files = Files::open(FilesConfig::new(&link)).unwrap();
    fs::create_dir(place.outside().join("new")).unwrap();
    fs::write(place.outside().join("new/a"), "new").unwrap();
    fs::remove_file(&link).unwrap();
    symlink("new", &link).unwrap();
    assert_eq!(get(&files, "/a").text(), "old");
    assert_eq!(get(&Files::open(FilesConfig::new(&link)).unwrap(), "/a").text(), "new");
    // A file that is replaced is seen at once.
    place.write("b", "newer");
    fs::rename(place.root.join("b"), place.root.join("a")).unwrap();
    assert_eq!(get(&files, "/a").text(), "newer");
}

#[test]
fn bad_configurations() {
    let place = Place::new();
    place.write("file", "x");
    let missing = Files::open(FilesConfig::new(place.root.join("none"))).unwrap_err();
    assert_eq!(missing.kind(), io::ErrorKind::NotFound);
    assert!(missing.to_string().contains("root/none: "), "{missing}");
    let file = Files::open(FilesConfig::new(place.root.join("file"))).unwrap_err();
    assert_eq!(file.kind(), io::ErrorKind::NotADirectory);
    for index in ["", "..", "a/b", "/index.html", "a\0"] {
        let config = FilesConfig { index: vec![index.to_owned()], ..place.config() };
        let why = Files::open(config).unwrap_err();
        assert_eq!(why.kind(), io::ErrorKind::InvalidInput, "{index}");
    }
    let fallback = ["=404", "$uri"].map(|text| Fallback::parse(text).unwrap()).to_vec();
    let config = FilesConfig { fallback, ..place.config() };
    assert_eq!(Files::open(config).unwrap_err().kind(), io::ErrorKind::InvalidInput);
}

#[test]
fn a_time_that_no_date_names_is_left_out() {
    let place = Place::new();
    place.write("a", "x");
    let file = fs::File::options().write(true).open(place.root.join("a")).unwrap();
    file.set_modified(UNIX_EPOCH - Duration::from_secs(10)).unwrap();
    let answer = get(&place.files(), "/a");
    assert_eq!((answer.status, answer.header("last-modified")), (200, ""));
    assert!(!answer.header("etag").is_empty());
}

#[test]
fn without_a_runtime_the_answer_is_500() {
    use std::task::{Context, Poll, Waker};
    let place = Place::new();
    let files = place.files();
    let headers = HeaderMap::new();
    let mut future = Box::pin(files.respond(&Method::GET, whole_path("/a"), &headers));
    match future.as_mut().poll(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(response) => assert_eq!(response.status(), 500),
        Poll::Pending => unreachable!("it waits for a runtime"),
    }
}

#[test]
fn the_future_can_be_sent() {
    fn sent<T: Send>(_: &T) {}
    let place = Place::new();
    let (files, headers) = (place.files(), HeaderMap::new());
    sent(&files.respond(&Method::GET, whole_path("/"), &headers));
    sent(&FileBody::default());
}
