//! Ranges and conditions over a file on disk.

use std::time::{Duration, SystemTime};

use proptest::prelude::*;

use super::*;

const TEXT: &str = "0123456789";

fn digits() -> Place {
    let place = Place::new();
    place.write("digits.txt", TEXT);
    let file = fs::File::options().write(true).open(place.root.join("digits.txt")).unwrap();
    file.set_modified(SystemTime::now() - Duration::from_secs(3600)).unwrap();
    place
}

#[test]
fn single_ranges() {
    let place = digits();
    let files = place.files();
    let table = [
        ("bytes=0-0", 206, "0", "bytes 0-0/10"),
        ("bytes=2-4", 206, "234", "bytes 2-4/10"),
        ("bytes=7-", 206, "789", "bytes 7-9/10"),
        ("bytes=0-", 206, TEXT, "bytes 0-9/10"),
        ("bytes=-2", 206, "89", "bytes 8-9/10"),
        ("bytes=-20", 206, TEXT, "bytes 0-9/10"),
        ("bytes=5-99", 206, "56789", "bytes 5-9/10"),
        ("bytes=1-2,20-30", 206, "12", "bytes 1-2/10"),
        ("bytes=10-", 416, "416 Range Not Satisfiable\n", "bytes */10"),
        ("bytes=-0", 416, "416 Range Not Satisfiable\n", "bytes */10"),
        ("bytes=4-2", 200, TEXT, ""),
        ("bytes=x", 200, TEXT, ""),
        ("chars=0-1", 200, TEXT, ""),
        ("bytes=0-,0-,0-", 200, TEXT, ""),
        ("bytes=0-0,2-2,4-4,6-6,8-8,1-1,3-3,5-5,7-7", 200, TEXT, ""),
    ];
    for (range, status, text, content_range) in table {
        let answer = ask(&files, "GET", "/digits.txt", &[("range", range)]);
        assert_eq!((answer.status, answer.text()), (status, text), "{range}");
        assert_eq!(answer.header("content-range"), content_range, "{range}");
        assert_eq!(answer.header("content-length"), text.len().to_string(), "{range}");
        assert_eq!(answer.header("accept-ranges"), "bytes", "{range}");
        assert_eq!(answer.header("etag").is_empty(), status == 416, "{range}");
        assert_eq!(answer.header("content-type"), "text/plain; charset=utf-8", "{range}");
    }
}

/// The parts of a multipart body: the `Content-Range` and the bytes of each.
fn split(answer: &Answer) -> Vec<(String, Vec<u8>)> {
    let boundary = answer.header("content-type").split_once("; boundary=").unwrap().1;
    let mut rest = &answer.body[..];
    let mut parts = Vec::new();
    let mut between = format!("--{boundary}");
    loop {
        rest = rest.strip_prefix(between.as_bytes()).expect("a boundary");
        if rest == b"--\r\n" {
            return parts;
        }
        let end = rest.windows(4).position(|four| four == b"\r\n\r\n").expect("a head");
        let head = std::str::from_utf8(&rest[..end]).unwrap().to_owned();
        let value = head.split_once("Content-Range: bytes ").unwrap().1.to_owned();
        let (first, after) = value.split_once('-').unwrap();
        let last = after.split_once('/').unwrap().0;
        let length = last.parse::<usize>().unwrap() - first.parse::<usize>().unwrap() + 1;
        rest = &rest[end + 4..];
        parts.push((value, rest[..length].to_vec()));
        rest = &rest[length..];
        between = format!("\r\n--{boundary}");
    }
}

#[test]
fn several_ranges() {
    let place = digits();
    let files = place.files();
    let answer = ask(&files, "GET", "/digits.txt", &[("range", "bytes=7-8, 0-1, -1, 40-")]);
    assert_eq!(answer.status, 206);
    assert!(answer.header("content-type").starts_with("multipart/byteranges; boundary="));
    assert_eq!(answer.header("content-range"), "");
    assert_eq!(answer.header("content-length"), answer.body.len().to_string());
    let expected = [("7-8/10", "78"), ("0-1/10", "01"), ("9-9/10", "9")];
    let expected = expected.map(|(range, text)| (range.to_owned(), text.as_bytes().to_vec()));
    assert_eq!(split(&answer), expected);
    assert!(answer.text().contains("\r\nContent-Type: text/plain; charset=utf-8\r\n"));
    let again = ask(&files, "GET", "/digits.txt", &[("range", "bytes=7-8, 0-1")]);
    assert_ne!(again.header("content-type"), answer.header("content-type"), "the boundary");
}

#[test]
fn parts_of_a_large_file() {
    let place = Place::new();
    let content = pattern(300_000);
    place.write("big", &content);
    let files = place.files();
    let one = ask(&files, "GET", "/big", &[("range", "bytes=1000-250000")]);
    assert_eq!((one.status, &one.body[..]), (206, &content[1000..=250_000]));
    let two = ask(&files, "GET", "/big", &[("range", "bytes=100-199999,250000-")]);
    let parts = split(&two);
    assert_eq!(parts[0].1, &content[100..200_000]);
    assert_eq!(parts[1].1, &content[250_000..]);
}

#[test]
fn conditions_over_a_file() {
    let place = digits();
    let files = place.files();
    let first = get(&files, "/digits.txt");
    let (etag, date) = (first.header("etag"), first.header("last-modified"));
    let old = "Sun, 06 Nov 1994 08:49:37 GMT";
    let weak = format!("W/{etag}");
    let part = ("range", "bytes=0-1");
    let table: &[(&[(&str, &str)], u16)] = &[
        (&[("if-none-match", etag)], 304),
        (&[("if-none-match", etag), part], 304),
        (&[("if-modified-since", date)], 304),
        (&[("if-modified-since", old)], 200),
        (&[("if-match", etag)], 200),
        (&[("if-match", "\"x\"")], 412),
        (&[("if-match", "\"x\""), part], 412),
        (&[("if-unmodified-since", old)], 412),
        (&[("if-unmodified-since", date), part], 206),
        (&[part, ("if-range", etag)], 206),
        (&[part, ("if-range", &weak)], 200),
        (&[part, ("if-range", date)], 206),
        (&[part, ("if-range", old)], 200),
        (&[("range", "bytes=20-"), ("if-range", etag)], 416),
        (&[("range", "bytes=20-"), ("if-range", "\"x\"")], 200),
    ];
    for (lines, status) in table {
        let answer = ask(&files, "GET", "/digits.txt", lines);
        assert_eq!(answer.status, *status, "{lines:?}");
        if *status == 304 {
            assert!(answer.body.is_empty() && answer.header("content-length").is_empty());
            assert_eq!((answer.header("etag"), answer.header("last-modified")), (etag, date));
        }
        let head = ask(&files, "HEAD", "/digits.txt", lines).status;
        let without_ranges = if matches!(status, 206 | 416) { 200 } else { *status };
        assert_eq!(head, without_ranges, "HEAD {lines:?}");
    }
}

#[test]
fn conditions_mean_nothing_for_other_answers() {
    let place = digits();
    let files = place.files();
    let lines = [("if-none-match", "*"), ("range", "bytes=90-")];
    for (path, status) in [("/none", 404), ("/", 403), ("", 301)] {
        assert_eq!(ask(&files, "GET", path, &lines).status, status, "{path}");
    }
}

#[test]
fn a_change_gives_a_new_tag() {
    let place = digits();
    let files = place.files();
    let before = get(&files, "/digits.txt");
    place.write("digits.txt", "abcdefghij");
    let after = get(&files, "/digits.txt");
    assert_ne!(before.header("etag"), after.header("etag"));
    let part = [("range", "bytes=0-1"), ("if-range", before.header("etag"))];
    let whole = ask(&files, "GET", "/digits.txt", &part);
    assert_eq!((whole.status, whole.text()), (200, "abcdefghij"));
}

#[test]
fn a_time_in_the_future_is_no_last_change() {
    let place = digits();
    let file = fs::File::options().write(true).open(place.root.join("digits.txt")).unwrap();
    file.set_modified(SystemTime::now() + Duration::from_secs(86_400)).unwrap();
    let answer = get(&place.files(), "/digits.txt");
    let date = httpdate::parse_http_date(answer.header("last-modified")).unwrap();
    assert!(date <= SystemTime::now());
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn parts_are_slices_of_the_file(
        range in "bytes=([0-9]{1,6}-[0-9]{0,6}|-[0-9]{1,6})(, ?([0-9]{1,6}-[0-9]{0,6})){0,3}",
        size in 0usize..200_000,
    ) {
        let place = Place::new();
        let content = pattern(size);
        place.write("big", &content);
        let answer = ask(&place.files(), "GET", "/big", &[("range", &range)]);
        let check = |value: &str, bytes: &[u8]| {
            let (first, last) = value.split_once('/').unwrap().0.split_once('-').unwrap();
            let (first, last): (usize, usize) = (first.parse().unwrap(), last.parse().unwrap());
            assert_eq!(bytes, &content[first..=last], "{range}");
        };
        match answer.status {
            200 => prop_assert_eq!(&answer.body[..], &content[..]),
            416 => prop_assert_eq!(answer.header("content-range"), format!("bytes */{size}")),
            206 if answer.headers.contains_key("content-range") => {
                check(&answer.header("content-range")["bytes ".len()..], &answer.body);
            }
            206 => split(&answer).iter().for_each(|(value, bytes)| check(value, bytes)),
            other => prop_assert!(false, "{other}"),
        }
    }
}
