//! What is watched about live sessions.

use super::*;

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
        (general, "interval = \"1s\"", said, Ping { interval: Some(Wait::of::<1_000>()), ..said }),
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
