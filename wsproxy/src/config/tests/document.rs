//! The document and the program say the same.

use super::*;
use crate::config::raw::SCHEMA;

/// The one place that knows where the document is.
const DOCUMENT: &str = include_str!("../../../CONFIGURATION.md");

fn row(key: &str) -> &'static str {
    let start = format!("| `{key}` |");
    let mut rows = DOCUMENT.lines().filter(|line| line.starts_with(&start));
    let row = rows.next().unwrap_or_else(|| panic!("no row for {key}"));
    assert_eq!(rows.next(), None, "two rows for {key}");
    row
}

#[test]
fn every_key_has_its_row_and_every_row_its_key() {
    let mut keys = 0;
    for (section, names) in SCHEMA {
        for name in *names {
            row(&format!("{section}.{name}"));
            keys += 1;
        }
    }
    let rows = DOCUMENT.lines().filter(|line| {
        line.strip_prefix("| `")
            .and_then(|rest| rest.split('`').next())
            .is_some_and(|first| first.contains('.') && !first.contains(' '))
    });
    assert_eq!(rows.count(), keys);
}

fn example() -> &'static str {
    let (_, rest) = DOCUMENT.split_once("```toml\n").unwrap();
    rest.split_once("```").unwrap().0
}

#[test]
fn the_example_is_the_defaults() {
    let expected = Config {
        source: Source::File(path().to_owned()),
        listener: Listener { address: addr("0.0.0.0:8080"), ..Listener::default() },
        upstreams: servers(&["127.0.0.1:9000"]),
        admin: Some(addr("127.0.0.1:9901")),
        datapath: Datapath::default(),
        ..Config::demo()
    };
    assert_eq!(valid(example()), expected);
}

#[test]
fn the_example_and_the_rows_show_every_default() {
    for (section, names) in SCHEMA {
        let (_, rest) = example().split_once(&format!("[{section}]\n")).unwrap();
        let body = rest.split("\n[").next().unwrap();
        for name in *names {
            let start = format!("{name} = ");
            let value = body.lines().find_map(|line| line.strip_prefix(&start));
            let value = value.unwrap_or_else(|| panic!("{section}.{name} is not in the example"));
            if !["address", "servers"].contains(name) {
                let row = row(&format!("{section}.{name}"));
                assert!(row.contains(&format!("| `{value}` |")), "{row}");
            }
        }
    }
}

#[test]
fn the_rows_show_the_ranges() {
    fn wait<const MIN: u32, const MAX: u32, const STEP: u32>(
        _: impl Fn(u64) -> Result<Period<MIN, MAX, STEP>, Invalid>,
    ) -> String {
        let shown = |millis: u32| Period::<MIN, MAX, STEP>::new(millis.into()).unwrap();
        format!("`{}` to `{}`", shown(MIN), shown(MAX))
    }
    fn size<const MIN: u32, const MAX: u32>(
        _: impl Fn(i128) -> Result<Size<MIN, MAX>, Invalid>,
    ) -> String {
        let shown = |bytes: u32| Size::<MIN, MAX>::new(bytes.into()).unwrap();
        format!("`{}` to `{}`", shown(MIN), shown(MAX))
    }
    fn count<const MIN: u32, const MAX: u32>(
        _: impl Fn(i128) -> Result<Count<MIN, MAX>, Invalid>,
    ) -> String {
        format!("`{MIN}` to `{MAX}`")
    }
    for (key, range) in [
        ("listener.backlog", count(Backlog::new)),
        ("upstream.servers", format!("1 to {SERVERS_MAX} servers")),
        ("timeouts.request_head", wait(Wait::new)),
        ("timeouts.upstream_connect", wait(Wait::new)),
        ("timeouts.upstream_answer", wait(Wait::new)),
        ("timeouts.idle", wait(Wait::new)),
        ("timeouts.drain", wait(Wait::new)),
        ("timeouts.keepalive", wait(Keepalive::new)),
        ("timeouts.user_timeout", wait(UserTimeout::new)),
        ("limits.max_sessions", count(MaxSessions::new)),
        ("limits.head_bytes", size(HeadBytes::new)),
        ("limits.head_headers", count(HeadHeaders::new)),
        ("limits.relay_buffer", size(RelayBuffer::new)),
        ("datapath.workers", count(Workers::new)),
        ("datapath.settle", wait(Wait::new)),
    ] {
        assert!(row(key).contains(&range), "{key}: {range}");
    }
    assert!(DOCUMENT.contains(DEFAULT_FILE));
    assert!(DOCUMENT.contains(&DEFAULT_LISTEN.to_string()));
}

/// The sample of messages is what the program says.
#[test]
fn the_sample_problems_are_real() {
    let text = "[listener]\naddress = \"localhost:8080\"\nbacklog = 1\n[timeouts]\nilde = \"1h\"\n\
                [upstream]\nservers = [\"a:1\"]\n";
    let problems = check(Path::new("wsproxy.toml"), text).unwrap_err();
    assert!(DOCUMENT.contains(&problems.to_string()), "{problems}");
}
