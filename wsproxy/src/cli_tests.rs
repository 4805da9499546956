use super::*;
use crate::config::{DatapathMode, LogFormat, LogLevel};

fn parse(line: &str) -> clap::error::Result<Cli> {
    parse_from(line.split_whitespace())
}

#[test]
fn the_definition_is_sound() {
    use clap::CommandFactory;
    Cli::command().debug_assert();
}

#[test]
fn reads_every_flag_of_run() {
    let cli = parse(
        "wsproxy run --listen :8080 --upstream a:1 --upstream ws://b:2 --datapath relay \
         --admin 127.0.0.1:9901 --config f.toml --log-format json --log-level trace",
    )
    .unwrap();
    let expected = RunArgs {
        listen: Some(":8080".parse().unwrap()),
        upstream: vec!["a:1".parse().unwrap(), "b:2".parse().unwrap()],
        datapath: Some(DatapathMode::Relay),
        admin: Some("127.0.0.1:9901".parse().unwrap()),
        config: Some("f.toml".into()),
        log_format: Some(LogFormat::Json),
        log_level: Some(LogLevel::Trace),
    };
    assert_eq!(cli.command, Command::Run(expected));
}

#[test]
fn reads_every_command() {
    let doctor =
        |json, sessions, servers, tls| Command::Doctor(DoctorArgs { json, sessions, servers, tls });
    for (line, command) in [
        ("wsproxy run", Command::Run(RunArgs::default())),
        ("wsproxy check f.toml", Command::Check { file: "f.toml".into() }),
        (
            "wsproxy top",
            Command::Top(TopArgs {
                socket: "/run/wsproxy/admin.sock".into(),
                interval: "1s".parse().unwrap(),
                once: false,
            }),
        ),
        (
            "wsproxy top --socket s --interval 250ms --once",
            Command::Top(TopArgs {
                socket: "s".into(),
                interval: "250ms".parse().unwrap(),
                once: true,
            }),
        ),
        ("wsproxy doctor", doctor(false, None, 1, false)),
        ("wsproxy doctor --json", doctor(true, None, 1, false)),
        ("wsproxy doctor --sessions 9", doctor(false, Some(9), 1, false)),
        ("wsproxy doctor --sessions 9 --servers 2 --tls", doctor(false, Some(9), 2, true)),
    ] {
        assert_eq!(parse(line).unwrap().command, command, "{line}");
    }
}

#[test]
fn tells_help_from_bad_usage() {
    for (line, status) in [
        ("wsproxy --help", 0),
        ("wsproxy help run", 0),
        ("wsproxy run --help", 0),
        ("wsproxy --version", 0),
        ("wsproxy", EX_USAGE),
        ("wsproxy walk", EX_USAGE),
        ("wsproxy check", EX_USAGE),
        ("wsproxy doctor --xml", EX_USAGE),
        ("wsproxy doctor --sessions 0", EX_USAGE),
        ("wsproxy doctor --servers 2", EX_USAGE),
        ("wsproxy run extra", EX_USAGE),
        ("wsproxy run --listen", EX_USAGE),
        ("wsproxy run --listen localhost:80", EX_USAGE),
        ("wsproxy run --listen :1 --listen :2", EX_USAGE),
        ("wsproxy run --datapath fast", EX_USAGE),
    ] {
        assert_eq!(exit_status(&parse(line).unwrap_err()), status, "{line}");
    }
}

#[test]
fn every_way_of_moving_bytes_is_a_flag_and_explained() {
    for (word, mode) in [
        ("auto", DatapathMode::Auto),
        ("sockmap", DatapathMode::Sockmap),
        ("packet", DatapathMode::Packet),
        ("relay", DatapathMode::Relay),
    ] {
        let cli = parse(&format!("wsproxy run --datapath {word}")).unwrap();
        let expected = RunArgs { datapath: Some(mode), ..RunArgs::default() };
        assert_eq!(cli.command, Command::Run(expected));
        let help = parse("wsproxy run --help").unwrap_err().to_string();
        assert!(help.contains(&format!("- {word}:")), "{help}");
    }
}

#[test]
fn says_why_a_server_is_refused() {
    let error = parse("wsproxy run --upstream a:443/chat").unwrap_err();
    let text = error.to_string();
    assert_eq!(exit_status(&error), EX_USAGE);
    assert!(text.contains("a path is not allowed here"), "{text}");
    assert!(text.contains("--upstream"), "{text}");
}

#[test]
fn reads_files_up_to_the_limit() {
    let path = std::env::temp_dir().join(format!("wsproxy-cli-test-{}", std::process::id()));
    for (length, kind) in [
        (0, None),
        (CONFIG_FILE_MAX as usize, None),
        (CONFIG_FILE_MAX as usize + 1, Some(io::ErrorKind::FileTooLarge)),
    ] {
        std::fs::write(&path, "#".repeat(length)).unwrap();
        let read = read_file(&path);
        assert_eq!(read.as_ref().err().map(io::Error::kind), kind, "{length}");
        assert!(read.is_err() || read.is_ok_and(|text| text.len() == length));
    }
    std::fs::write(&path, [0xff]).unwrap();
    assert_eq!(read_file(&path).unwrap_err().kind(), io::ErrorKind::InvalidData);
    std::fs::remove_file(&path).unwrap();
    assert_eq!(read_file(&path).unwrap_err().kind(), io::ErrorKind::NotFound);
}

#[test]
fn finds_what_nginx_includes() {
    let folder = tempfile::TempDir::new().unwrap();
    std::fs::create_dir(folder.path().join("sites")).unwrap();
    for name in ["b.conf", "a.conf", ".hidden.conf", "a.conf.off"] {
        std::fs::write(folder.path().join("sites").join(name), name).unwrap();
    }
    let found = |name: &str| {
        let files = read_included(folder.path(), name)?;
        let under = format!("{}/", folder.path().display());
        let name = |file: &Included| file.file.strip_prefix(&under).unwrap().to_owned();
        assert!(files.iter().all(|file| name(file) == format!("sites/{}", file.text)));
        Some(files.iter().map(name).collect::<Vec<_>>())
    };
    let some = |names: &[&str]| Some(names.iter().map(ToString::to_string).collect::<Vec<_>>());
    assert_eq!(found("sites/a.conf"), some(&["sites/a.conf"]));
    assert_eq!(found("sites/*.conf"), some(&["sites/a.conf", "sites/b.conf"]));
    let all = ["sites/a.conf", "sites/a.conf.off", "sites/b.conf"];
    assert_eq!(found("sites/*"), some(&all));
    // A pattern that fits nothing is no mistake, a name that is not there is one.
    assert_eq!(found("sites/*.none"), some(&[]));
    assert_eq!(found("nowhere/*.conf"), some(&[]));
    assert_eq!(found("sites/none"), None);
    for pattern in ["*/a.conf", "sites/*.*", "sites/?.conf", "sites/[ab].conf"] {
        assert_eq!(found(pattern), None, "{pattern}");
    }
    std::fs::create_dir(folder.path().join("sites/dir.conf")).unwrap();
    assert_eq!(found("sites/*.conf"), None);
}
