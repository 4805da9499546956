use proptest::prelude::*;
use serde_json::Value;

use super::{super::Kind, *};

#[test]
fn a_request_in_json() {
    assert_eq!(
        line(Format::Json, &entry()),
        concat!(
            r#"{"time":"2026-10-10T13:55:36.789Z","kind":"request","client":"192.0.2.7","#,
            r#""request_id":"abc","method":"GET","target":"/a?b=c","http_version":"HTTP/1.1","#,
            r#""host":"example.com","status":200,"route":"chat","upstream":"127.0.0.1:9000","#,
            r#""bytes_to_client":12,"bytes_to_upstream":3,"duration_ms":1234.567,"#,
            r#""upstream_ms":0.070,"referer":null,"user_agent":"curl/8","scheme":"https","#,
            r#""tls_version":"TLSv1.3"}"#,
            "\n"
        )
    );
}

#[test]
fn a_session_in_json() {
    let entry = Entry {
        client: "2001:db8::1".parse().unwrap(),
        upstream: None,
        upstream_time: None,
        tls_version: None,
        user_agent: None,
        referer: Some("https://a/"),
        session: Some(session()),
        ..entry()
    };
    assert_eq!(entry.kind(), Kind::Session);
    assert_eq!(
        line(Format::Json, &entry),
        concat!(
            r#"{"time":"2026-10-10T13:55:36.789Z","kind":"session","client":"2001:db8::1","#,
            r#""request_id":"abc","method":"GET","target":"/a?b=c","http_version":"HTTP/1.1","#,
            r#""host":"example.com","status":200,"route":"chat","upstream":null,"#,
            r#""bytes_to_client":12,"bytes_to_upstream":3,"duration_ms":1234.567,"#,
            r#""upstream_ms":null,"referer":"https://a/","user_agent":null,"scheme":"https","#,
            r#""tls_version":null,"session":7,"datapath":"sockmap","#,
            r#""ended_by":"client_finished","kernel_bytes_to_client":1,"#,
            r#""kernel_bytes_to_upstream":18446744073709551615}"#,
            "\n"
        )
    );
}

#[test]
fn combined_lines() {
    let plain = entry();
    let bare = Entry { referer: Some(""), user_agent: None, method: "", ..entry() };
    let v6 = Entry { client: "2001:db8::1".parse().unwrap(), ..entry() };
    let of_session = Entry { status: 101, session: Some(session()), ..entry() };
    for (entry, expected) in [
        (plain, r#"192.0.2.7 - - [T] "GET /a?b=c HTTP/1.1" 200 12 "-" "curl/8""#),
        (bare, r#"192.0.2.7 - - [T] " /a?b=c HTTP/1.1" 200 12 "" "-""#),
        (v6, r#"2001:db8::1 - - [T] "GET /a?b=c HTTP/1.1" 200 12 "-" "curl/8""#),
        (of_session, r#"192.0.2.7 - - [T] "GET /a?b=c HTTP/1.1" 101 12 "-" "curl/8""#),
    ] {
        let expected = expected.replace("[T]", "[10/Oct/2026:13:55:36 +0000]") + "\n";
        assert_eq!(line(Format::Combined, &entry), expected);
    }
}

#[test]
fn no_request_forges_a_line() {
    for (text, in_json, in_combined) in [
        ("a\nb", r"a\nb", r"a\x0Ab"),
        ("a\r\nb", r"a\r\nb", r"a\x0D\x0Ab"),
        ("a\" 200 0 \"-\" \"x", r#"a\" 200 0 \"-\" \"x"#, r"a\x22 200 0 \x22-\x22 \x22x"),
        (r"a\", r"a\\", r"a\x5C"),
        (r"\x0A", r"\\x0A", r"\x5Cx0A"),
        ("\0\u{1b}[2J\u{7f}", "\\u0000\\u001b[2J\u{7f}", r"\x00\x1B[2J\x7F"),
        ("é\u{2028}", "é\u{2028}", r"\xC3\xA9\xE2\x80\xA8"),
        (r#"","status":500,"a":""#, r#"\",\"status\":500,\"a\":\""#, {
            r"\x22,\x22status\x22:500,\x22a\x22:\x22"
        }),
    ] {
        let forged = Entry { user_agent: Some(text), ..entry() };
        let json = line(Format::Json, &forged);
        let honest = line(Format::Json, &entry());
        assert_eq!(json, honest.replace("curl/8", in_json), "{text:?}");
        let combined = line(Format::Combined, &forged);
        let honest = line(Format::Combined, &entry());
        assert_eq!(combined, honest.replace("curl/8", in_combined), "{text:?}");
    }
}

fn text() -> impl Strategy<Value = String> {
    let bytes = proptest::collection::vec(any::<u8>(), 0..64);
    prop_oneof![
        bytes.prop_map(|bytes| String::from_utf8_lossy(&bytes).into_owned()),
        any::<String>(),
        "[\"\\\\\r\n\t{}, -]{0,20}",
    ]
}

proptest! {
    #[test]
    fn one_entry_is_one_line(texts in proptest::collection::vec(text(), 13), in_session: bool) {
        let [id, method, target, version, host, scheme, tls, referer, agent, route, upstream, path,
            ending] = &texts[..] else { unreachable!() };
        let part = SessionPart { datapath: path, ended_by: ending, ..session() };
        let entry = Entry {
            request_id: id, method, target, http_version: version, host, scheme, route,
            tls_version: Some(tls), referer: Some(referer), user_agent: Some(agent),
            upstream: Some(upstream), session: in_session.then_some(part), ..entry()
        };
        for format in [Format::Json, Format::Combined] {
            let line = line(format, &entry);
            let inner = line.strip_suffix('\n').unwrap();
            prop_assert!(inner.bytes().all(|byte| byte >= b' '), "{inner}");
        }
        let value: Value = serde_json::from_str(&line(Format::Json, &entry)).unwrap();
        let object = value.as_object().unwrap();
        prop_assert_eq!(object.len(), if in_session { 24 } else { 19 });
        for (key, expected) in [
            ("request_id", id), ("method", method), ("target", target), ("host", host),
            ("http_version", version), ("scheme", scheme), ("route", route),
            ("tls_version", tls), ("referer", referer), ("user_agent", agent),
            ("upstream", upstream),
        ] {
            prop_assert_eq!(&value[key], expected.as_str());
        }
        // What stands between quotes has none: there are always the same number.
        let combined = line(Format::Combined, &entry);
        prop_assert_eq!(combined.matches('"').count(), 6);
        prop_assert!(combined.trim_end_matches('\n').bytes().all(|byte| byte.is_ascii_graphic()
            || byte == b' '));
    }
}
