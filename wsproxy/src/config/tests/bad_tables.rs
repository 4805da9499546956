//! What can be wrong with listeners, upstreams and routes, and what is said of it.

use super::*;

const LISTENER: &str = "[[listener]]\nname = \"l\"\naddress = \"127.0.0.1:80\"\n";
const UPSTREAM: &str = "[[upstream]]\nname = \"u\"\nservers = [\"a:1\"]\n";

/// What is said of a text behind a listener and an upstream of three lines each.
fn said(more: &str) -> Vec<String> {
    let text = format!("{LISTENER}{UPSTREAM}{more}");
    match check(path(), &text) {
        Ok(config) => panic!("is valid:\n{text}\n{config:?}"),
        Err(problems) => problems.iter().map(ToString::to_string).collect(),
    }
}

#[test]
fn routes() {
    let route = |more: &str| format!("[[route]]\n{more}\n");
    for (text, problem) in [
        (
            "path = \"/a\"",
            "w.toml:7:1: route: nothing is done with its requests (found nothing, expected one of upstream, files, redirect, respond)",
        ),
        (
            "upstream = \"u\"\nrespond = 404",
            "w.toml:7:1: route: several things to do with its requests (found upstream, respond, expected one of upstream, files, redirect, respond)",
        ),
        (
            "upstream = \"uu\"",
            "w.toml:8:12: route.upstream: no upstream has this name, did you mean \"u\"? (found \"uu\", expected \"u\")",
        ),
        (
            "upstream = \"u\"\nlisteners = [\"x1\"]",
            "w.toml:9:14: route.listeners: no listener has this name (found \"x1\", expected \"l\")",
        ),
        (
            "upstream = \"u\"\npath = \"a\"",
            "w.toml:9:8: route.path: not a path (found \"a\", expected a path such as \"/ws\", without \"?\", \"#\" and dot segments)",
        ),
        (
            "upstream = \"u\"\nindex = [\"a\"]",
            "w.toml:9:9: route.index: it does nothing without route.files (expected a route with files, which this one has not)",
        ),
        (
            "respond = 404\norigins = [\"null\"]",
            "w.toml:9:11: route.origins: it does nothing without route.upstream (expected a route with upstream, which this one has not)",
        ),
        (
            "upstream = \"u\"\nping = { interval = \"0s\" }",
            "w.toml:9:21: route.ping.interval: too small (found \"0s\", expected 10ms to 1d or \"off\")",
        ),
        (
            "upstream = \"u\"\nping = { timeout = \"off\" }",
            "w.toml:9:20: route.ping.timeout: cannot be turned off (found \"off\", expected a duration such as \"250ms\", \"10s\", \"5m\" or \"2h30m\")",
        ),
        (
            "upstream = \"u\"\nping = { upstream = \"u\" }",
            "w.toml:9:21: route.ping.upstream: neither true nor false (found \"u\", expected true or false)",
        ),
        (
            "upstream = \"u\"\nping = \"30s\"",
            "w.toml:9:1: route.ping: not a section (found \"30s\", expected one section [route.ping])",
        ),
        (
            "respond = 404\n[route.ping]",
            "w.toml:9:1: route.ping: it does nothing without route.upstream (expected a route with upstream, which this one has not)",
        ),
        (
            "upstream = \"u\"\nframes = false\nenforce_framing = true",
            "w.toml:10:19: route.enforce_framing: it does nothing with route.frames = false (expected frames = true, or a route without this)",
        ),
        (
            "upstream = \"u\"\nframes = false\nmax_message = \"1MiB\"",
            "w.toml:10:15: route.max_message: it does nothing with route.frames = false (expected frames = true, or a route without this)",
        ),
        (
            "upstream = \"u\"\nframes = false\nmax_frame = 125",
            "w.toml:10:13: route.max_frame: it does nothing with route.frames = false (expected frames = true, or a route without this)",
        ),
        (
            "upstream = \"u\"\nframes = false\n[route.ping]\ninterval = \"off\"",
            "w.toml:10:1: route.ping: it does nothing with route.frames = false (expected frames = true, or a route without this)",
        ),
        (
            "upstream = \"u\"\npackets = \"off\"",
            "w.toml:9:11: route.packets: neither true nor false (found \"off\", expected true or false)",
        ),
        (
            "files = \"/srv\"\npackets = true",
            "w.toml:9:11: route.packets: it does nothing without route.upstream (expected a route with upstream, which this one has not)",
        ),
        (
            "upstream = \"u\"\nframes = \"on\"",
            "w.toml:9:10: route.frames: neither true nor false (found \"on\", expected true or false)",
        ),
        (
            "upstream = \"u\"\nenforce_framing = 1",
            "w.toml:9:19: route.enforce_framing: neither true nor false (found 1, expected true or false)",
        ),
        (
            "upstream = \"u\"\nmax_message = 0",
            "w.toml:9:15: route.max_message: too small (found 0, expected 1B to 1TiB or \"off\")",
        ),
        (
            "upstream = \"u\"\nmax_message = \"1025GiB\"",
            "w.toml:9:15: route.max_message: too large (found \"1025GiB\", expected 1B to 1TiB or \"off\")",
        ),
        (
            "upstream = \"u\"\nmax_frame = \"0B\"",
            "w.toml:9:13: route.max_frame: too small (found \"0B\", expected 1B to 1TiB or \"off\")",
        ),
        (
            "upstream = \"u\"\nmax_frame = 1099511627777",
            "w.toml:9:13: route.max_frame: too large (found 1099511627777, expected 1B to 1TiB or \"off\")",
        ),
        (
            "files = \"/srv\"\nframes = false",
            "w.toml:9:10: route.frames: it does nothing without route.upstream (expected a route with upstream, which this one has not)",
        ),
        (
            "files = \"/srv\"\nenforce_framing = true",
            "w.toml:9:19: route.enforce_framing: it does nothing without route.upstream (expected a route with upstream, which this one has not)",
        ),
        (
            "files = \"/srv\"\nmax_message = 1",
            "w.toml:9:15: route.max_message: it does nothing without route.upstream (expected a route with upstream, which this one has not)",
        ),
        (
            "files = \"/srv\"\nmax_frame = 1",
            "w.toml:9:13: route.max_frame: it does nothing without route.upstream (expected a route with upstream, which this one has not)",
        ),
        (
            "redirect = \"https://$hots/\"",
            "w.toml:8:12: route.redirect: an unknown variable (found \"https://$hots/\", expected perhaps $host)",
        ),
        (
            "redirect = \"/x\"\nstatus = 304",
            "w.toml:9:10: route.status: not a status of a redirect (found 304, expected 301, 302, 303, 307 or 308)",
        ),
        (
            "upstream = \"u\"\nset_request_headers = { \"Connection\" = \"x\" }",
            "w.toml:9:25: route.set_request_headers: wsproxy sets this header itself (found \"Connection\", expected another header; for Host there is route.host_header)",
        ),
        (
            "upstream = \"u\"\nadd_response_headers = { \"a b\" = \"x\" }",
            "w.toml:9:26: route.add_response_headers: not a name of a header (found \"a b\", expected letters, digits and any of !#$%&'*+-.^_`|~)",
        ),
        (
            "upstream = \"u\"\nhosts = [\"exa mple\"]",
            "w.toml:9:10: route.hosts: not a host (found \"exa mple\", expected a name such as \"example.com\" or \"*.example.com\", without a port)",
        ),
        (
            "upstream = \"u\"\norigins = [\"example.com\"]",
            "w.toml:9:12: route.origins: not an origin (found \"example.com\", expected an origin such as \"https://example.com\" or \"https://*.example.com:8443\", \"null\" or \"missing\")",
        ),
        (
            "upstream = \"u\"\nhandshake_rate = \"fast\"",
            "w.toml:9:18: route.handshake_rate: not a rate (found \"fast\", expected a rate such as \"10/s\", \"300/m\" or \"1000/h\" or \"off\")",
        ),
        (
            "upstream = \"u\"\nallow = [\"10.0.0.1/8\"]",
            "w.toml:9:10: route.allow: an address inside the network where its first one belongs (found \"10.0.0.1/8\", expected \"10.0.0.0/8\")",
        ),
    ] {
        assert_eq!(said(&route(text)), [problem], "{text}");
    }
}

#[test]
fn two_routes_for_the_same_requests() {
    let two = |one: &str, other: &str| {
        format!("[[route]]\nupstream = \"u\"\n{one}\n[[route]]\nrespond = 404\n{other}\n")
    };
    for (one, other) in [
        ("path = \"/a\"", "path = \"/a\""),
        ("hosts = [\"a\", \"b\"]", "hosts = [\"B\"]"),
        ("listeners = [\"l\"]", ""),
    ] {
        let problems = said(&two(one, other));
        assert_eq!(problems.len(), 1, "{problems:?}");
        assert!(problems[0].contains("the same requests as the route in line"), "{problems:?}");
    }
    for (one, other) in [
        ("path = \"/a\"", "path = \"/a/\""),
        ("path = \"/a\"", "path = \"/a\"\nexact = true"),
        ("path = \"/a\"", "path = \"/a\"\nhosts = [\"b\"]"),
    ] {
        valid(&format!("{LISTENER}{UPSTREAM}{}", two(one, other)));
    }
}

#[test]
fn listeners_and_upstreams() {
    for (text, problem) in [
        (
            "[[listener]]\nname = \"l\"\naddress = \"127.0.0.1:81\"\n",
            "w.toml:9:11: listener.address: the same name twice",
        ),
        (
            "[[listener]]\naddress = \":80\"\n",
            "w.toml:8:11: listener.address: the address of another listener",
        ),
        (
            "[[listener]]\naddress = \"unix:x\"\n",
            "w.toml:8:11: listener.address: not a path of a Unix socket",
        ),
        (
            "[[listener]]\naddress = \":81\"\n[listener.tls]\n",
            "w.toml:9:1: listener.tls.certificates: missing",
        ),
        (
            "[[listener]]\naddress = \":81\"\n[listener.tls]\ncertificates = [{ certificate = \"/a\" }]\n",
            "w.toml:10:17: listener.tls.certificates.key: missing",
        ),
        (
            "[[listener]]\naddress = \":81\"\ntls = { certificates = [{ certificate = \"/a\", key = \"/b\" }], client_auth = \"require\" }\n",
            "w.toml:9:76: listener.tls.client_auth: without listener.tls.client_ca it does nothing",
        ),
        (
            "[[upstream]]\nname = \"u\"\nservers = [\"b:1\"]\n[[route]]\nupstream = \"u\"\n",
            "w.toml:8:8: upstream.name: the same name twice",
        ),
        (
            "[[upstream]]\nname = \"v\"\nservers = [\"b:1\"]\n",
            "w.toml:8:8: upstream.name: several upstreams, and no route says which gets what",
        ),
        (
            "[[upstream]]\nname = \"v\"\nservers = [{ weight = 2 }]\n[[route]]\nupstream = \"u\"\n",
            "w.toml:9:12: upstream.servers.address: missing",
        ),
        (
            "[[upstream]]\nname = \"v\"\nservers = [{ address = \"a:1\", wait = 2 }]\n[[route]]\nupstream = \"u\"\n",
            "w.toml:9:31: upstream.servers.wait: unknown key",
        ),
        (
            "[[upstream]]\nname = \"v\"\nservers = [{ address = \"a:1\", disabled = true }]\n[[route]]\nupstream = \"u\"\n",
            "w.toml:9:24: upstream.servers: every server is disabled",
        ),
        (
            "[[upstream]]\nname = \"v\"\nservers = [\"b:1\"]\nhash_key = \"client\"\n[[route]]\nupstream = \"u\"\n",
            "w.toml:10:12: upstream.hash_key: without balance = \"hash\" it does nothing",
        ),
        (
            "[[upstream]]\nname = \"v\"\nservers = [\"b:1\"]\n[upstream.tls]\nkey = \"/a\"\n[[route]]\nupstream = \"u\"\n",
            "w.toml:10:1: upstream.tls.certificate: missing",
        ),
    ] {
        let problems = said(text);
        assert_eq!(problems.len(), 1, "{problems:?}");
        assert!(problems[0].starts_with(problem), "{}\n{problem}", problems[0]);
    }
}

#[test]
fn an_upstream_that_nobody_uses_is_a_warning() {
    let more = "[[upstream]]\nname = \"v\"\nservers = [\"b:1\"]\n[[route]]\nupstream = \"u\"\n";
    let config = valid(&format!("{LISTENER}{UPSTREAM}{more}"));
    let warnings: Vec<_> = config.warnings.iter().map(ToString::to_string).collect();
    assert_eq!(warnings.len(), 1, "{warnings:?}");
    assert!(warnings[0].starts_with("w.toml:8:8: upstream.name: no route uses this upstream"));
}

#[test]
fn servers_of_every_kind() {
    let text = "[listener]\naddress = \":80\"\n[upstream]\nservers = [\"wss://a:1\", \
                \"https://b\", \"unix:/run/x.sock\", \"srv://_ws._tcp.example\", \"ws://c:2\"]\n";
    let config = valid(text);
    let shown: Vec<_> = config.upstreams[0].servers.iter().map(|s| s.address.to_string()).collect();
    assert_eq!(
        shown,
        ["wss://a:1", "wss://b:443", "unix:/run/x.sock", "srv://_ws._tcp.example", "c:2"]
    );
}

#[test]
fn one_table_is_a_list_of_one() {
    let one = "[listener]\naddress = \":1\"\n[upstream]\nservers = [\"a:2\"]\n[route]\nupstream = \"default\"\n";
    let many = one.replace("[listener]", "[[listener]]").replace("[upstream]", "[[upstream]]");
    assert_eq!(valid(one), valid(&many.replace("[route]", "[[route]]")));
}
