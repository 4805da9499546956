//! Which of file, flags and demo the configuration comes from.

use super::*;
use crate::cli::{Cli, Command, parse_from};

fn run(flags: &str) -> RunArgs {
    let line = format!("wsproxy run {flags}");
    match parse_from(line.split_whitespace()) {
        Ok(Cli { command: Command::Run(args) }) => args,
        other => panic!("{flags}: {other:?}"),
    }
}

/// Loads with the one file that there is.
fn load_with(flags: &str, file: Option<(&str, &str)>) -> Result<Config, Problems> {
    load(&run(flags), |path| match file {
        Some((name, text)) if path == Path::new(name) => Ok(text.to_owned()),
        _ => Err(io::ErrorKind::NotFound.into()),
    })
}

fn without_file(flags: &str) -> Config {
    load_with(flags, None).unwrap_or_else(|problems| panic!("{flags}: {problems}"))
}

#[test]
fn nothing_at_all_is_the_demo() {
    assert_eq!(without_file(""), Config::demo());
}

#[test]
fn flags_alone_change_the_demo() {
    let demo = Config::demo;
    for (flags, expected) in [
        (
            "--datapath packet",
            Config {
                datapath: Datapath { mode: DatapathMode::Packet, ..demo().datapath },
                ..demo()
            },
        ),
        (
            "--datapath relay",
            Config {
                datapath: Datapath { mode: DatapathMode::Relay, ..demo().datapath },
                ..demo()
            },
        ),
        (
            "--admin 127.0.0.1:9901",
            Config {
                admin: Admin { address: Some(addr("127.0.0.1:9901")), socket: None },
                ..demo()
            },
        ),
        (
            "--log-format json --log-level debug",
            Config { log: Log { format: LogFormat::Json, level: LogLevel::Debug }, ..demo() },
        ),
        ("--listen :80", Config { listeners: listeners("[::]:80"), ..demo() }),
        (
            "--upstream b:2 --upstream a:1",
            Config {
                source: Source::Flags,
                upstreams: servers(&["b:2", "a:1"]),
                datapath: Datapath::default(),
                ..demo()
            },
        ),
    ] {
        assert_eq!(without_file(flags), expected, "{flags}");
    }
}

#[test]
fn the_default_file_is_read_when_it_exists() {
    let config = load_with("", Some((DEFAULT_FILE, VALID))).unwrap();
    assert_eq!(config.source, Source::File(DEFAULT_FILE.into()));
    assert_eq!(config.upstreams, servers(&["a:1"]));
}

#[test]
fn the_named_file_is_read_instead() {
    let config = load_with("--config f.toml", Some(("f.toml", VALID))).unwrap();
    assert_eq!(config.source, Source::File("f.toml".into()));
}

#[test]
fn flags_win_over_the_file() {
    let text = format!(
        "{VALID}[datapath]\nmode = \"sockmap\"\n[admin]\naddress = \":1\"\n\
         [log]\nformat = \"text\"\nlevel = \"warn\"\n[timeouts]\nidle = \"5s\"\n"
    );
    let flags = "--config f --listen 127.0.0.1:81 --upstream b:2 --datapath relay \
                 --admin 127.0.0.1:2 --log-format json --log-level trace";
    let config = load_with(flags, Some(("f", &text))).unwrap();
    let expected = Config {
        source: Source::File("f".into()),
        listeners: vec![Listener {
            name: "127.0.0.1:81".into(),
            ..listeners("127.0.0.1:81").remove(0)
        }],
        upstreams: servers(&["b:2"]),
        timeouts: Timeouts { idle: Some(Wait::of::<5_000>()), ..Timeouts::default() },
        datapath: Datapath { mode: DatapathMode::Relay, ..Datapath::default() },
        admin: Admin { address: Some(addr("127.0.0.1:2")), socket: None },
        log: Log { format: LogFormat::Json, level: LogLevel::Trace },
        ..Config::demo()
    };
    assert_eq!(config, expected);
}

#[test]
fn flags_stand_in_for_required_keys() {
    let config = load_with("--config f --listen :1 --upstream a:2", Some(("f", ""))).unwrap();
    assert_eq!(config.listeners, listeners(":1"));
    for (flags, missing) in [
        ("--config f --listen :1", vec!["upstream.servers"]),
        ("--config f --upstream a:2", vec!["listener.address"]),
        ("--config f", vec!["listener.address", "upstream.servers"]),
    ] {
        let problems = load_with(flags, Some(("f", ""))).unwrap_err();
        let keys: Vec<_> = problems.iter().filter_map(|p| p.key.as_deref()).collect();
        assert_eq!(keys, missing, "{flags}");
        for problem in &problems {
            let flag = if problem.key.as_deref() == Some("upstream.servers") {
                "--upstream"
            } else {
                "--listen"
            };
            assert!(problem.to_string().contains(flag), "{problem}");
        }
    }
}

#[test]
fn what_a_flag_overrides_is_still_checked() {
    let text = "[listener]\naddress = 1\n[upstream]\nservers = [\"a\"]\n";
    let problems =
        load_with("--config f --listen :1 --upstream a:2", Some(("f", text))).unwrap_err();
    assert_eq!(problems.iter().count(), 2, "{problems}");
}

#[test]
fn an_unreadable_file_is_an_error() {
    let problems = load_with("--config f", None).unwrap_err();
    assert_eq!(problems.to_string(), "f: cannot be read: entity not found");
    for flags in ["", "--upstream a:1"] {
        let problems =
            load(&run(flags), |_| Err(io::ErrorKind::PermissionDenied.into())).unwrap_err();
        assert_eq!(
            problems.to_string(),
            format!("{DEFAULT_FILE}: cannot be read: permission denied")
        );
    }
}

#[test]
fn problems_of_flags_come_after_those_of_the_file() {
    let problems = load_with(
        "--config f --upstream a:1 --upstream A:1 --admin :80",
        Some(("f", &format!("{VALID}[lo]\n"))),
    )
    .unwrap_err();
    assert_eq!(
        problems.to_string(),
        "f:5:2: lo: unknown section, did you mean log?\n\
         command line: --upstream: the same server twice (found \"a:1\", expected each server \
         once)\n\
         command line: --admin: the address of the listener (found \"[::]:80\", expected an \
         address that does not overlap 127.0.0.1:80)"
    );
}

#[test]
fn the_gateway_is_not_its_own_upstream() {
    for (flags, refused) in [
        ("--upstream 127.0.0.1:8080", true),
        ("--upstream 127.0.0.1:8081", false),
        ("--listen :9000 --upstream [::1]:9000", true),
        ("--listen :9000 --upstream 192.0.2.1:9000", false),
    ] {
        assert_eq!(load_with(flags, None).is_err(), refused, "{flags}");
    }
}

#[test]
fn an_admin_port_for_others_is_a_warning() {
    for (more, position) in [
        ("", None),
        ("[admin]\naddress = \"127.0.0.1:9\"\n", None),
        ("[admin]\naddress = \"[::1]:9\"\n", None),
        ("[admin]\naddress = \":9\"\n", Some((6, 11))),
        ("[admin]\naddress = \"10.0.0.1:9\"\n", Some((6, 11))),
    ] {
        let config = valid_with(more);
        let found: Vec<_> = config
            .warnings
            .iter()
            .map(|w| w.place.position().map(|at| (at.line, at.column)))
            .collect();
        assert_eq!(found, Vec::from_iter(position.map(Some)), "{more}");
    }
    let config = without_file("--admin 0.0.0.0:9901");
    assert_eq!(config.warnings[0].place, Place::CommandLine);
    assert_eq!(config.warnings[0].key.as_deref(), Some("--admin"));
}

#[test]
fn every_kind_of_value_is_read() {
    let config = valid_with(
        "[timeouts]\nrequest_head = \"1ms\"\nidle = \"off\"\nkeepalive = \"off\"\n\
         user_timeout = \"off\"\ndrain = \"30d\"\n\
         [limits]\nmax_sessions = 1_000_000\nhead_bytes = 0x400\nrelay_buffer = \"16MiB\"\n\
         [datapath]\nworkers = 64\n",
    );
    assert_eq!(config.timeouts.request_head, Wait::of::<1>());
    assert_eq!(config.timeouts.drain, Wait::of::<WAIT_MAX_MS>());
    assert_eq!(
        (config.timeouts.idle, config.timeouts.keepalive, config.timeouts.user_timeout),
        (None, None, None)
    );
    assert_eq!(config.limits.max_sessions, Setting::Fixed(MaxSessions::of::<1_000_000>()));
    assert_eq!(config.limits.head_bytes.get(), 1_024);
    assert_eq!(config.limits.relay_buffer.as_usize(), 16 << 20);
    assert_eq!(config.datapath.workers, Setting::Fixed(Workers::of::<64>()));
}

#[test]
fn other_ways_to_write_tables_are_read() {
    let text = "listener.address = \":1\"\nupstream = { servers = ['a:2'] }\n";
    let config = valid(text);
    assert_eq!(config.listeners, listeners(":1"));
    assert_eq!(config.upstreams, servers(&["a:2"]));
    assert_eq!(valid(&text.replace('\n', "\r\n")), config);
    assert_eq!(valid(&format!("\u{feff}{text}")), config);
}
