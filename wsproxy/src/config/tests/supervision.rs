//! What is watched about live sessions.

use super::*;

#[test]
fn what_a_client_is_told_whose_server_is_gone() {
    for (key, expected) in [
        ("", Some(1014)),
        ("gone_code = \"1014\"", Some(1014)),
        ("gone_code = \"1001\"", Some(1001)),
        ("gone_code = \"off\"", None),
    ] {
        // The upstream is the last table of the valid file.
        let config = valid_with(&format!("{key}\n"));
        assert_eq!(config.upstreams[0].gone_code, expected, "{key}");
    }
}

#[test]
fn how_long_a_session_may_be_half_closed() {
    for (key, expected) in [
        ("", Some(Wait::of::<60_000>())),
        ("half_closed = \"1ms\"", Some(Wait::of::<1>())),
        ("half_closed = \"30d\"", Some(Wait::of::<WAIT_MAX_MS>())),
        ("half_closed = \"off\"", None),
    ] {
        assert_eq!(valid_with(&format!("[timeouts]\n{key}\n")).timeouts.half_closed, expected);
    }
}

/// How the first route forwards.
fn forward(config: &Config) -> &Forward {
    match &config.routes[0].action {
        Action::Upstream(forward) => forward,
        other => panic!("{other:?}"),
    }
}

const ROUTE: &str = "[route]\nupstream = \"default\"\n";

#[test]
fn a_route_pings_as_the_file_says_unless_it_says_more() {
    let default = Ping::default();
    let general = "[ping]\ninterval = \"1d\"\ntimeout = \"100ms\"\nupstream = true\n";
    let said = Ping {
        interval: Some(Wait::of::<86_400_000>()),
        timeout: Wait::of::<100>(),
        upstream: true,
    };
    for (file, route, of_file, of_route) in [
        ("", "", default, default),
        (general, "", said, said),
        (general, ROUTE, said, said),
        (general, "interval = \"10ms\"", said, Ping { interval: Some(Wait::of::<10>()), ..said }),
        (general, "interval = \"off\"", said, Ping { interval: None, ..said }),
        (general, "timeout = \"1h\"", said, Ping { timeout: Wait::of::<3_600_000>(), ..said }),
        (general, "upstream = false", said, Ping { upstream: false, ..said }),
        ("", "upstream = true", default, Ping { upstream: true, ..default }),
        (
            "[ping]\ninterval = \"off\"\n",
            "interval = \"5s\"",
            Ping { interval: None, ..default },
            Ping { interval: Some(Wait::of::<5_000>()), ..default },
        ),
    ] {
        let route = match route {
            "" | ROUTE => route.to_owned(),
            keys => format!("{ROUTE}[route.ping]\n{keys}\n"),
        };
        let config = valid_with(&format!("{file}{route}"));
        assert_eq!((config.ping, forward(&config).ping), (of_file, of_route), "{file}{route}");
    }
}

#[test]
fn what_routes_say_of_frames() {
    let read = |keys: &str| {
        let forward = forward(&valid_with(&format!("{ROUTE}{keys}\n"))).clone();
        let limits = [forward.max_message, forward.max_frame].map(|limit| limit.map(Size::get));
        (forward.frames, forward.enforce_framing, limits)
    };
    for (keys, expected) in [
        ("", (true, false, [None, None])),
        ("enforce_framing = true", (true, true, [None, None])),
        ("max_message = 1", (true, false, [Some(1), None])),
        ("max_message = \"1TiB\"", (true, false, [Some(1 << 40), None])),
        ("max_frame = \"1B\"\nmax_message = \"off\"", (true, false, [None, Some(1)])),
        ("max_frame = \"8GiB\"", (true, false, [None, Some(8 << 30)])),
        ("frames = false", (false, false, [None, None])),
        // Who says what is so without frames contradicts nobody.
        (
            "frames = false\nenforce_framing = false\nmax_message = \"off\"\nmax_frame = \"off\"",
            (false, false, [None, None]),
        ),
    ] {
        assert_eq!(read(keys), expected, "{keys}");
    }
}

#[test]
fn who_may_go_the_packet_path() {
    for (keys, expected) in [
        ("", [true; 3]),
        ("listener.packets = false\n", [false, true, true]),
        ("route.packets = false\n", [true, false, true]),
        ("datapath.packets = false\n", [true, true, false]),
        ("listener.packets = true\nroute.packets = true\ndatapath.packets = true\n", [true; 3]),
    ] {
        let text = format!(
            "{keys}listener.address = \":1\"\nupstream.servers = [\"a:1\"]\n\
             route.upstream = \"default\"\n"
        );
        let config = check(path(), &text).unwrap_or_else(|problems| panic!("{problems}"));
        let said = [config.listeners[0].packets, forward(&config).packets, config.datapath.packets];
        assert_eq!(said, expected, "{keys}");
    }
}

#[test]
fn a_route_without_frames_has_no_pings() {
    let config = valid_with(&format!("[ping]\nupstream = true\n{ROUTE}frames = false\n"));
    assert_eq!(config.ping.interval, Ping::default().interval);
    assert_eq!(forward(&config).ping, Ping { interval: None, ..config.ping });
}

#[test]
fn everything_that_needs_frames_is_named_at_once() {
    let text = format!(
        "{VALID}{ROUTE}frames = false\nenforce_framing = true\nmax_message = 1\nmax_frame = 1\n\
         [route.ping]\n"
    );
    let problems = check(path(), &text).unwrap_err();
    let keys: Vec<_> = problems.iter().filter_map(|problem| problem.key.as_deref()).collect();
    let expected = ["route.enforce_framing", "route.max_message", "route.max_frame", "route.ping"];
    assert_eq!(keys, expected, "{problems}");
}

#[test]
fn how_sessions_are_drained() {
    let default = Drain::default();
    let longest = "é".repeat(61) + "!";
    for (keys, expected) in [
        (String::new(), default.clone()),
        ("window = \"off\"".into(), Drain { window: None, ..default.clone() }),
        (
            "window = \"1ms\"\nretry_after = \"1s\"".into(),
            Drain {
                window: Some(Wait::of::<1>()),
                retry_after: Wait::of::<1_000>(),
                ..default.clone()
            },
        ),
        (
            "window = \"1h\"\nretry_after = \"1h\"".into(),
            Drain {
                window: Some(Wait::of::<3_600_000>()),
                retry_after: Wait::of::<3_600_000>(),
                ..default.clone()
            },
        ),
        ("code = 1001".into(), default.clone()),
        ("code = 1012".into(), Drain { code: 1012, ..default.clone() }),
        ("reason = \"\"".into(), Drain { reason: String::new(), ..default.clone() }),
        // 123 bytes: as many as a Close frame has room for.
        (format!("reason = \"{longest}\""), Drain { reason: longest, ..default.clone() }),
    ] {
        assert_eq!(valid_with(&format!("[drain]\n{keys}\n")).drain, expected, "{keys}");
    }
}
