//! Tables of RFC 9110 section 13.

use proptest::prelude::*;

use super::*;
use crate::files::range::ByteRange;

const BEFORE: &str = "Sun, 06 Nov 1994 08:49:36 GMT";
const AT: &str = "Sun, 06 Nov 1994 08:49:37 GMT";
const AFTER: &str = "Sun, 06 Nov 1994 08:49:38 GMT";
const MODIFIED: u64 = 784_111_777;

/// Header lines: names and values.
type Lines<'a> = &'a [(&'a str, &'a str)];

fn file() -> Validators {
    Validators { etag: "\"1-a\"".to_owned(), modified: Some(MODIFIED) }
}

fn conditions(lines: Lines<'_>) -> Conditions {
    let mut headers = HeaderMap::new();
    for (name, value) in lines {
        let name = HeaderName::from_bytes(name.as_bytes()).unwrap();
        headers.append(name, HeaderValue::from_str(value).unwrap());
    }
    Conditions::from_headers(&headers)
}

#[test]
fn verdicts() {
    use Verdict::{Failed, NotModified, Proceed};
    let (im, inm) = ("if-match", "if-none-match");
    let (ius, ims) = ("if-unmodified-since", "if-modified-since");
    let table: &[(Lines<'_>, Verdict)] = &[
        (&[], Proceed),
        (&[(im, "*")], Proceed),
        (&[(im, "\"1-a\"")], Proceed),
        (&[(im, "\"x\", \"1-a\"")], Proceed),
        (&[(im, "\"x\""), (im, "\"1-a\"")], Proceed),
        (&[(im, "\"x\"")], Failed),
        (&[(im, "W/\"1-a\"")], Failed),
        (&[(im, "1-a")], Failed),
        (&[(im, "")], Failed),
        (&[(im, "\"a,\"1-a\"")], Failed),
        (&[(ius, AT)], Proceed),
        (&[(ius, AFTER)], Proceed),
        (&[(ius, BEFORE)], Failed),
        (&[(ius, "never")], Proceed),
        (&[(ius, BEFORE), (ius, BEFORE)], Proceed),
        (&[(inm, "*")], NotModified),
        (&[(inm, " * ")], NotModified),
        (&[(inm, "\"1-a\"")], NotModified),
        (&[(inm, "W/\"1-a\"")], NotModified),
        (&[(inm, "\"x,y\",,\t\"1-a\" ,")], NotModified),
        (&[(inm, "\"x\""), (inm, "\"1-a\"")], NotModified),
        (&[(inm, "\"x\"")], Proceed),
        (&[(inm, "w/\"1-a\"")], Proceed),
        (&[(inm, "\"1-a")], Proceed),
        (&[(inm, "*, \"x\"")], Proceed),
        (&[(ims, AT)], NotModified),
        (&[(ims, AFTER)], NotModified),
        (&[(ims, BEFORE)], Proceed),
        (&[(ims, "now")], Proceed),
        (&[(ims, "Sunday, 06-Nov-94 08:49:37 GMT")], NotModified),
        // Precedence: a tag makes the date of its kind mean nothing.
        (&[(im, "\"1-a\""), (ius, BEFORE)], Proceed),
        (&[(im, "\"x\""), (ius, AFTER)], Failed),
        (&[(inm, "\"x\""), (ims, AFTER)], Proceed),
        (&[(inm, "\"1-a\""), (ims, BEFORE)], NotModified),
        // The first step that fails answers.
        (&[(im, "\"x\""), (inm, "\"1-a\"")], Failed),
        (&[(im, "\"1-a\""), (inm, "\"1-a\"")], NotModified),
        (&[(im, "*"), (ims, AT)], NotModified),
        (&[(ius, BEFORE), (ims, AFTER)], Failed),
        (&[(ius, AT), (ims, AT)], NotModified),
        (&[(ius, AT), (inm, "\"x\"")], Proceed),
    ];
    for (lines, verdict) in table {
        assert_eq!(conditions(lines).verdict(&file()), *verdict, "{lines:?}");
    }
}

#[test]
fn dates_mean_nothing_for_a_file_without_one() {
    let file = Validators { modified: None, ..file() };
    for name in ["if-modified-since", "if-unmodified-since"] {
        assert_eq!(conditions(&[(name, AT)]).verdict(&file), Verdict::Proceed, "{name}");
    }
}

#[test]
fn if_range() {
    let part = Selection::Ranges(vec![ByteRange { first: 0, last: 1 }]);
    let table: &[(Lines<'_>, u64, bool)] = &[
        (&[], MODIFIED, true),
        (&[("if-range", "\"1-a\"")], MODIFIED, true),
        (&[("if-range", "W/\"1-a\"")], MODIFIED, false),
        (&[("if-range", "\"x\"")], MODIFIED, false),
        (&[("if-range", "\"1-a\", \"x\"")], MODIFIED, false),
        (&[("if-range", AT)], MODIFIED + 1, true),
        (&[("if-range", AT)], MODIFIED, false),
        (&[("if-range", BEFORE)], MODIFIED + 9, false),
        (&[("if-range", AFTER)], MODIFIED + 9, false),
        (&[("if-range", "")], MODIFIED, false),
        (&[("if-range", "*")], MODIFIED, false),
        (&[("if-range", "\"1-a\""), ("if-range", "\"1-a\"")], MODIFIED, false),
    ];
    for (lines, now, holds) in table {
        let all: Vec<_> = lines.iter().copied().chain([("range", "bytes=0-1")]).collect();
        let selection = conditions(&all).selection(&file(), 10, *now);
        assert_eq!(selection == part, *holds, "{lines:?}");
        assert_eq!(selection == Selection::Whole, !*holds, "{lines:?}");
    }
}

#[test]
fn ranges_are_taken_from_one_line_only() {
    let two = conditions(&[("range", "bytes=0-1"), ("range", "bytes=3-4")]);
    assert_eq!(two.selection(&file(), 10, 0), Selection::Whole);
    let alone = conditions(&[("if-range", "\"1-a\"")]);
    assert_eq!(alone.selection(&file(), 10, 0), Selection::Whole);
}

proptest! {
    #[test]
    fn arbitrary_lines_never_panic(
        line in proptest::collection::vec(any::<u8>(), 0..40), list in "(W/|\"|,| |a|\\*){0,20}"
    ) {
        for line in [line.as_slice(), list.as_bytes()] {
            let Ok(value) = HeaderValue::from_bytes(line) else { continue };
            let mut headers = HeaderMap::new();
            for name in [IF_MATCH, IF_NONE_MATCH, IF_RANGE, RANGE, IF_MODIFIED_SINCE] {
                headers.insert(name, value.clone());
            }
            let conditions = Conditions::from_headers(&headers);
            let _ = (conditions.verdict(&file()), conditions.selection(&file(), 10, MODIFIED));
        }
    }

    #[test]
    fn a_tag_is_found_anywhere_in_a_list(
        others in proptest::collection::vec("[!#-~]{0,8}", 0..5),
        at in 0usize..6,
        weak in any::<bool>(),
    ) {
        let mut all: Vec<String> = others.iter().map(|text| format!("\"{text}\"")).collect();
        let tag = if weak { "W/\"1-a\"" } else { "\"1-a\"" };
        all.insert(at.min(all.len()), tag.to_owned());
        let list = all.join(", ");
        let none_match = conditions(&[("if-none-match", &list)]).verdict(&file());
        prop_assert_eq!(none_match, Verdict::NotModified);
        let strong = conditions(&[("if-match", &list)]).verdict(&file());
        let holds = !weak || others.iter().any(|text| text == "1-a");
        prop_assert_eq!(strong == Verdict::Proceed, holds);
    }
}
