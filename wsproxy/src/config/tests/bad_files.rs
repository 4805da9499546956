//! Bad files, and everything that is said of each.

use proptest::prelude::*;

use super::*;
use crate::config::keys::names_in;

/// Line, column and key of a problem; zeros and "" for those it has not.
type Expected<'a> = (usize, usize, &'a str);

fn check(text: &str, expected: &[Expected<'_>]) {
    let problems = match super::super::check(path(), text) {
        Ok(config) => panic!("is valid:\n{text}\n{config:?}"),
        Err(problems) => problems,
    };
    let found: Vec<Expected<'_>> = problems
        .iter()
        .map(|problem| {
            let (line, column) = problem.place.position().map_or((0, 0), |at| (at.line, at.column));
            (line, column, problem.key.as_deref().unwrap_or_default())
        })
        .collect();
    assert_eq!(found, expected, "\n{problems}\n--\n{text}");
    // One line per problem, whatever the file holds.
    assert_eq!(problems.to_string().lines().count(), expected.len());
}

/// What is said of the text put after the valid file of four lines.
fn check_after_valid(text: &str, expected: &[Expected<'_>]) {
    check(&format!("{VALID}{text}"), expected);
}

fn said(text: &str) -> String {
    match super::super::check(path(), &format!("{VALID}{text}")) {
        Ok(config) => panic!("is valid:\n{text}\n{config:?}"),
        Err(problems) => problems.to_string(),
    }
}

#[test]
fn required_keys() {
    const LISTENER: Expected<'_> = (0, 0, "listener.address");
    const UPSTREAM: Expected<'_> = (0, 0, "upstream.servers");
    for (text, expected) in [
        ("", &[LISTENER, UPSTREAM][..]),
        ("[listener]\n[upstream]\n", &[(1, 1, "listener.address"), (2, 1, "upstream.servers")]),
        ("[listener]\naddress = \":1\"\n", &[UPSTREAM]),
        ("[upstream]\nservers = [\"a:1\"]\n", &[LISTENER]),
        // One that is there but invalid is not missing too.
        ("[listener]\naddress = 1\n", &[(2, 11, "listener.address"), UPSTREAM]),
        ("upstream.servers = 1\n", &[(1, 20, "upstream.servers"), LISTENER]),
    ] {
        check(text, expected);
    }
}

#[test]
fn unknown_keys_and_sections() {
    for (text, line) in [
        (
            "adress = 1\n",
            "w.toml:5:1: upstream.adress: unknown key, did you mean listener.address?",
        ),
        (
            "[timeouts]\nilde = \"1h\"\n",
            "w.toml:6:1: timeouts.ilde: unknown key, did you mean timeouts.idle?",
        ),
        (
            "[timeouts]\nrequest-head = \"1h\"\n",
            "w.toml:6:1: timeouts.request-head: unknown key, did you mean timeouts.request_head?",
        ),
        (
            "[limits]\n  idle = \"1h\"\n",
            "w.toml:6:3: limits.idle: unknown key, did you mean timeouts.idle?",
        ),
        (
            "[limits]\npong = 1\n[timeouts]\n",
            "w.toml:6:1: limits.pong: unknown key, did you mean ping?",
        ),
        (
            "[limits]\ndrain = \"5s\"\n",
            "w.toml:6:1: limits.drain: unknown key, did you mean timeouts.drain?",
        ),
        ("[limits]\ncolour = 1\n", "w.toml:6:1: limits.colour: unknown key"),
        (
            "[timeout]\nidle = \"1h\"\n",
            "w.toml:5:2: timeout: unknown section, did you mean timeouts?",
        ),
        ("[quic]\n", "w.toml:5:2: quic: unknown section"),
        ("[log]\n\"a\\nb\" = 1\n", "w.toml:6:1: log.a\\nb: unknown key"),
        ("[log.extra]\nx = 1\n", "w.toml:5:6: log.extra: unknown key"),
    ] {
        assert_eq!(said(text), line);
    }
    check(
        "\u{feff}ilde = \"1h\"\nlistener = 5\nlog = 1\n[[upstream]]\nservers = [\"a:1\"]\n",
        &[(1, 1, "ilde"), (2, 1, "listener"), (3, 1, "log")],
    );
}

/// Sections without tables inside them and without rules of their own.
const PLAIN: [&str; 8] =
    ["timeouts", "ping", "drain", "limits", "clients", "access_log", "datapath", "log"];

#[test]
fn every_key_is_read_and_refuses_a_wrong_type() {
    for wrong in ["1979-05-27", "{ a = 1 }", "nan"] {
        let mut text = String::from(VALID);
        let mut expected = Vec::new();
        let keys = PLAIN.iter().flat_map(|s| names_in(s).map(move |name| format!("{s}.{name}")));
        for (line, key) in keys.enumerate() {
            text += &format!("{key} = {wrong}\n");
            expected.push((line + 1, key.len() + 4, key));
        }
        // Dotted keys stand before the first section.
        let text = text.replacen(VALID, "", 1) + VALID;
        let expected: Vec<Expected<'_>> =
            expected.iter().map(|(l, c, key)| (*l, *c, &**key)).collect();
        check(&text, &expected);
    }
}

#[test]
fn values_out_of_range() {
    for (section, key, values) in [
        ("listener", "backlog", &["0", "65536", "-1", "\"1\"", "1.0"][..]),
        ("upstream", "gone_code", &["\"1006\"", "1014", "false", "\"1000\""]),
        ("timeouts", "request_head", &["\"0s\"", "\"31d\"", "10", "\"off\"", "\"\""]),
        ("timeouts", "upstream_connect", &["\"0ms\"", "\"off\""]),
        ("timeouts", "upstream_answer", &["\"1 s\"", "\"off\""]),
        ("timeouts", "idle", &["\"0s\"", "\"OFF\"", "0", "false"]),
        ("timeouts", "half_closed", &["\"0s\"", "\"31d\"", "60", "false"]),
        ("timeouts", "drain", &["\"720h1ms\"", "\"off\""]),
        ("timeouts", "keepalive", &["\"999ms\"", "\"1500ms\"", "\"9h1s\""]),
        ("timeouts", "user_timeout", &["\"999ms\"", "\"24d1ms\""]),
        ("ping", "interval", &["\"9ms\"", "\"24h1ms\"", "\"no\"", "30"]),
        ("ping", "timeout", &["\"99ms\"", "\"1h1ms\"", "\"off\"", "10"]),
        ("ping", "upstream", &["\"yes\"", "1"]),
        ("drain", "window", &["\"0ms\"", "\"1h1ms\"", "10"]),
        ("drain", "code", &["1000", "1002", "1011", "1013", "\"1001\"", "70000"]),
        ("drain", "reason", &[&format!("\"{}\"", "é".repeat(62)), "\"a\\nb\"", "1"]),
        ("drain", "retry_after", &["\"0s\"", "\"1500ms\"", "\"3601s\"", "\"off\""]),
        (
            "limits",
            "max_sessions",
            &["0", "1_000_001", "\"all\"", "99999999999999999999999999999999999999999"],
        ),
        ("limits", "head_bytes", &["1023", "\"1025KiB\"", "\"16KB\"", "-5", "\"off\""]),
        ("limits", "head_headers", &["7", "1025", "\"auto\""]),
        ("limits", "relay_buffer", &["\"16383\"", "\"17MiB\""]),
        ("datapath", "mode", &["\"Auto\"", "\"bpf\"", "1"]),
        ("datapath", "workers", &["0", "65", "\"two\""]),
        ("datapath", "settle", &["\"0ms\"", "100", "\"31d\""]),
        ("admin", "address", &["\"localhost:1\"", "9901", "\"\""]),
        ("admin", "socket", &["\"relative\"", "1"]),
        ("clients", "trusted_proxies", &["\"10.0.0.0/8\""]),
        ("clients", "address_header", &["\"X-Client\"", "1"]),
        ("limits", "handshake_rate", &["\"10\"", "10", "\"0/s\"", "\"1/d\""]),
        ("limits", "ipv6_prefix", &["0", "129", "\"64\""]),
        ("access_log", "format", &["\"xml\"", "true"]),
        ("access_log", "path", &["\"access.log\""]),
        ("listener", "reuseport", &["1", "\"yes\""]),
        ("listener", "packets", &["0", "\"off\""]),
        ("datapath", "packets", &["1", "\"on\""]),
        ("log", "format", &["\"xml\""]),
        ("log", "level", &["\"warning\"", "\"INFO\""]),
    ] {
        for value in values {
            // The key comes first, so that its line is known.
            let required = match section {
                "listener" => "listener.address = \":1\"\n[upstream]\nservers = [\"a:1\"]\n",
                "upstream" => "upstream.servers = [\"a:1\"]\n[listener]\naddress = \":1\"\n",
                _ => VALID,
            };
            let text = format!("{section}.{key} = {value}\n{required}");
            let whole = format!("{section}.{key}");
            check(&text, &[(1, whole.len() + 4, &whole)]);
        }
    }
}

#[test]
fn messages_say_what_was_found_and_expected() {
    for (text, line) in [
        (
            "[timeouts]\nidle = \"0s\"",
            "w.toml:6:8: timeouts.idle: too small (found \"0s\", expected 1ms to 30d or \"off\")",
        ),
        (
            "[timeouts]\ndrain = \"off\"",
            "w.toml:6:9: timeouts.drain: cannot be turned off (found \"off\", expected a duration \
             such as \"250ms\", \"10s\", \"5m\" or \"2h30m\")",
        ),
        (
            "[timeouts]\ndrain = 10",
            "w.toml:6:9: timeouts.drain: a number without its unit (found 10, expected a duration \
             such as \"250ms\", \"10s\", \"5m\" or \"2h30m\")",
        ),
        (
            "[ping]\ninterval = \"1ms\"",
            "w.toml:6:12: ping.interval: too small (found \"1ms\", expected 10ms to 1d or \"off\")",
        ),
        (
            "[ping]\ntimeout = \"2h\"",
            "w.toml:6:11: ping.timeout: too large (found \"2h\", expected 100ms to 1h)",
        ),
        (
            "[drain]\nwindow = \"0s\"",
            "w.toml:6:10: drain.window: too small (found \"0s\", expected 1ms to 1h or \"off\")",
        ),
        (
            "[drain]\ncode = 1000",
            "w.toml:6:8: drain.code: too small (found 1000, expected 1001 or 1012)",
        ),
        (
            "[drain]\ncode = 1006",
            "w.toml:6:8: drain.code: not a code for sessions that have to go (found 1006, expected \
             1001 or 1012)",
        ),
        (
            "[drain]\nretry_after = \"1500ms\"",
            "w.toml:6:15: drain.retry_after: too fine (found \"1500ms\", expected a multiple of 1s)",
        ),
        (
            "[limits]\nhead_bytes = 10",
            "w.toml:6:14: limits.head_bytes: too small (found 10, expected 1KiB to 1MiB)",
        ),
        (
            "[limits]\nmax_sessions = 0x0",
            "w.toml:6:16: limits.max_sessions: too small (found 0x0, expected 1 to 1000000 or \
             \"auto\")",
        ),
        (
            "[datapath]\nmode = \"bpf\"",
            "w.toml:6:8: datapath.mode: not one of its values (found \"bpf\", expected \"auto\", \
             \"sockmap\", \"packet\", \"relay\")",
        ),
        (
            "[admin]\naddress = \":80\"",
            "w.toml:6:11: admin.address: the address of the listener (found \"[::]:80\", expected \
             an address that does not overlap 127.0.0.1:80)",
        ),
    ] {
        assert_eq!(said(text), line);
    }
}

#[test]
fn servers() {
    let listener = "[listener]\naddress = \"127.0.0.1:80\"\n[upstream]\n";
    const KEY: &str = "upstream.servers";
    for (servers, expected) in [
        ("servers = []", &[(4, 11, KEY)][..]),
        ("servers = \"a:1\"", &[(4, 11, KEY)]),
        (
            "servers = [1, \"a:1\", \"ftp://b:1\", \"a:1/x\"]",
            &[(4, 12, KEY), (4, 22, KEY), (4, 35, KEY)],
        ),
        (
            "servers = [\n  \"a:1\",\n  \"ws://A:1\", # again\n  \"127.0.0.1:80\",\n]",
            &[(6, 3, KEY), (7, 3, KEY)],
        ),
    ] {
        check(&format!("{listener}{servers}\n"), expected);
    }
    let list = |count: usize| -> String {
        let items: Vec<_> = (0..count).map(|n| format!("\"s{n}x:1\"")).collect();
        format!("{listener}servers = [{}]\n", items.join(","))
    };
    valid(&list(SERVERS_MAX));
    check(&list(SERVERS_MAX + 1), &[(4, 11, KEY)]);
}

#[test]
fn the_same_address_for_both_ports() {
    for (address, same) in
        [("127.0.0.1:80", true), (":80", true), ("127.0.0.1:81", false), ("127.0.0.2:80", false)]
    {
        let text = format!("[admin]\naddress = \"{address}\"\n");
        if same {
            check_after_valid(&text, &[(6, 11, "admin.address")]);
        } else {
            valid_with(&text);
        }
    }
}

#[test]
fn syntax_errors() {
    for (text, expected) in [
        ("[timeouts\nidle = \"1h\"\n", &[(5, 10, "")][..]),
        ("[timeouts]\nidle = 1h\n", &[(6, 8, "")]),
        ("[timeouts]\nidle = \"1h\n", &[(6, 11, "")]),
        ("[timeouts]\nidle\n", &[(6, 5, "")]),
        ("[timeouts]\nidle = \"1h\"\nidle = \"2h\"\n", &[(7, 1, "")]),
        ("[listener]\n", &[(5, 2, "")]),
        // What comes before the error is checked too, what comes after is not.
        ("[log]\nlevel = \"loud\"\nformat = \nx = 1\n", &[(6, 9, "log.level"), (7, 10, "")]),
        // A list that is not closed is not looked into.
        ("[log]\nlevel = [\n  1,\n[limits]\nhead_bytes = 1\n", &[(8, 2, ""), (9, 1, "")]),
        // Columns count characters.
        ("[log] # für alle\n\"ü\" = ü\n", &[(6, 7, "")]),
    ] {
        check_after_valid(text, expected);
    }
    // A listener that an error hides is not reported as missing.
    check("[listener\n", &[(1, 10, "")]);
}

#[test]
fn everything_at_once_in_the_order_of_the_file() {
    check(
        "[log]\nlevel = 1\nlvl = 2\n[timeouts]\nuser_timeout = \"1ms\"\nidle = \"x\"\n\
         [upstream]\nservers = [\"a\", \"b:0\"]\n[listner]\n[limits]\nhead_bytes = 1\n",
        &[
            (2, 9, "log.level"),
            (3, 1, "log.lvl"),
            (5, 16, "timeouts.user_timeout"),
            (6, 8, "timeouts.idle"),
            (8, 12, "upstream.servers"),
            (8, 17, "upstream.servers"),
            (9, 2, "listner"),
            (11, 14, "limits.head_bytes"),
            (0, 0, "listener.address"),
        ],
    );
}

/// Lines that are nearly right, to get past the syntax.
fn line() -> impl Strategy<Value = String> {
    let keys: Vec<String> = KEYS
        .iter()
        .flat_map(|key| {
            let section = key.section;
            [key.whole(), format!("[{section}]"), format!("[[{section}]]"), format!("{section}x")]
        })
        .collect();
    let value = prop_oneof![
        any::<i64>().prop_map(|n| n.to_string()),
        any::<String>().prop_map(|text| format!("{text:?}")),
        "\"[0-9]{1,25}(ms|s|m|h|d|k|KiB|)\"",
        "\\[(\"[a-z:0-9]{0,6}\",){0,3}\\]",
        "\\PC*",
    ];
    (proptest::sample::select(keys), value).prop_map(|(key, value)| {
        if key.starts_with('[') { key } else { format!("{key} = {value}") }
    })
}

fn never_panics(text: &str) -> Result<(), TestCaseError> {
    if let Err(problems) = super::super::check(path(), text) {
        let lines = problems.to_string().lines().count();
        prop_assert_eq!(lines, problems.iter().count());
        for at in problems.iter().filter_map(|p| p.place.position()) {
            prop_assert!(at.line <= text.matches('\n').count() + 1);
        }
    }
    Ok(())
}

proptest! {
    #[test]
    fn no_text_panics(text: String) {
        never_panics(&text)?;
    }

    #[test]
    fn no_text_of_tokens_panics(text in "([\\[\\]{}=,.\"'#\n\r\u{feff}é0-9a-z_ -]|\"\"\"|listener|address){0,40}") {
        never_panics(&text)?;
    }

    #[test]
    fn no_file_of_nearly_right_lines_panics(lines in proptest::collection::vec(line(), 0..12)) {
        never_panics(&lines.join("\n"))?;
    }
}
