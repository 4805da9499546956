use proptest::prelude::*;

use super::*;

fn listen(text: &str) -> ListenAddr {
    text.parse().unwrap_or_else(|error| panic!("{text}: {error}"))
}

fn upstream(text: &str) -> UpstreamAddr {
    text.parse().unwrap_or_else(|error| panic!("{text}: {error}"))
}

#[test]
fn reads_addresses_to_listen_on() {
    for (text, shown, dual, loopback) in [
        (":8080", "[::]:8080", true, false),
        ("[::]:8080", "[::]:8080", true, false),
        ("0.0.0.0:8080", "0.0.0.0:8080", false, false),
        ("127.0.0.1:0", "127.0.0.1:0", false, true),
        ("[::1]:8080", "[::1]:8080", false, true),
        ("[::ffff:127.0.0.1]:80", "[::ffff:127.0.0.1]:80", false, true),
    ] {
        let address = listen(text);
        assert_eq!(
            (address.to_string().as_str(), address.is_dual_stack(), address.is_loopback()),
            (shown, dual, loopback),
            "{text}"
        );
    }
}

#[test]
fn refuses_other_addresses_to_listen_on() {
    for (text, message) in [
        ("", "not an address to listen on"),
        (":", "not a port"),
        (":+80", "not a port"),
        (":65536", "not a port"),
        ("127.0.0.1:http", "not a port"),
        ("8080", "an address without its port, or a port without its colon"),
        ("127.0.0.1", "an address without its port, or a port without its colon"),
        ("::1", "an address without its port, or a port without its colon"),
        ("localhost:80", "a name: only an IP address can be bound"),
        ("*:80", "not an address to listen on"),
        ("1.2.3.400:80", "not an address to listen on"),
        ("ws://127.0.0.1:80", "a URL where an address to listen on belongs"),
    ] {
        let error = text.parse::<ListenAddr>().expect_err(text);
        assert_eq!(error.message, message, "{text}");
    }
}

#[test]
fn reads_upstreams() {
    for (text, shown) in [
        ("127.0.0.1:80", "127.0.0.1:80"),
        ("[::1]:80", "[::1]:80"),
        ("App.Internal:9000", "app.internal:9000"),
        ("app.internal.:9000", "app.internal.:9000"),
        ("my_app-1:1", "my_app-1:1"),
        ("ws://localhost:65535", "localhost:65535"),
        ("HTTP://[2001:db8::1]:80", "[2001:db8::1]:80"),
        ("3com.example:80", "3com.example:80"),
    ] {
        assert_eq!(upstream(text).to_string(), shown, "{text}");
    }
}

#[test]
fn refuses_other_upstreams() {
    const PORT: &str = "not a port: 1 to 65535 are";
    const HOST: &str = "not an IP address or host name before the port";
    const PATH: &str = "a path is not allowed here: each request keeps its own";
    const BRACKETS: &str = "an IPv6 address must stand in brackets, with a port after them";
    for (text, message) in [
        ("", "the port is missing"),
        ("localhost", "the port is missing"),
        ("ws://localhost", "the port is missing"),
        ("[::1]", "the port is missing"),
        ("wss://localhost:443", "not a scheme of an upstream"),
        ("tcp://localhost:1", "not a scheme of an upstream"),
        ("localhost:0", PORT),
        ("localhost:", PORT),
        ("localhost:+80", PORT),
        ("localhost:70000", PORT),
        ("ws://localhost:80/", PATH),
        ("localhost:80/chat", PATH),
        ("localhost:80?x", PATH),
        ("::1", BRACKETS),
        ("fe80::1:2:x:80", BRACKETS),
        ("[fe80::1%eth0]:80", "not an IPv6 address between the brackets"),
        (":80", HOST),
        ("user@host:80", HOST),
        ("a..b:80", HOST),
        ("-a:80", HOST),
        ("a-.b:80", HOST),
        ("ho st:80", HOST),
        ("naïve:80", HOST),
        ("1.2.3:80", HOST),
        ("1.2.3.400:80", HOST),
    ] {
        let error = text.parse::<UpstreamAddr>().expect_err(text);
        assert_eq!(error.message, message, "{text}");
    }
}

#[test]
fn bounds_names() {
    let label = "a".repeat(LABEL_MAX);
    let longest = [label.as_str(); 4].join(".")[..NAME_MAX].to_owned();
    upstream(&format!("{label}:1"));
    upstream(&format!("{longest}:1"));
    upstream(&format!("{longest}.:1"));
    for name in [format!("{label}a"), format!("{longest}a")] {
        assert!(format!("{name}:1").parse::<UpstreamAddr>().is_err());
    }
}

#[test]
fn finds_listeners_that_overlap() {
    for (one, other, overlap) in [
        ("127.0.0.1:80", "127.0.0.1:80", true),
        ("127.0.0.1:80", "127.0.0.1:81", false),
        ("127.0.0.1:80", "127.0.0.2:80", false),
        ("127.0.0.1:0", "127.0.0.1:0", false),
        ("0.0.0.0:80", "127.0.0.1:80", true),
        ("0.0.0.0:80", "[::1]:80", false),
        (":80", "127.0.0.1:80", true),
        (":80", "[::1]:80", true),
        (":80", "0.0.0.0:80", true),
        ("[::ffff:127.0.0.1]:80", "127.0.0.1:80", true),
    ] {
        let (one, other) = (listen(one), listen(other));
        assert_eq!(one.overlaps(other), overlap, "{one} {other}");
        assert_eq!(other.overlaps(one), overlap, "{other} {one}");
    }
}

#[test]
fn finds_upstreams_that_are_the_listener() {
    for (listener, server, reached) in [
        ("127.0.0.1:80", "127.0.0.1:80", true),
        ("127.0.0.1:80", "0.0.0.0:80", true),
        ("127.0.0.1:80", "127.0.0.1:81", false),
        ("127.0.0.1:80", "localhost:80", false),
        ("0.0.0.0:80", "127.0.0.1:80", true),
        ("0.0.0.0:80", "10.0.0.1:80", false),
        ("0.0.0.0:80", "[::1]:80", false),
        ("10.0.0.1:80", "10.0.0.1:80", true),
        (":80", "[::1]:80", true),
        (":80", "127.0.0.1:80", true),
    ] {
        assert_eq!(
            listen(listener).is_reached_by(&upstream(server)),
            reached,
            "{listener} {server}"
        );
    }
}

proptest! {
    #[test]
    fn addresses_read_back(ip: IpAddr, port in 1u16.., name in "[a-z][a-z0-9]{0,8}(\\.[a-z]{1,5}){0,3}") {
        let address = listen(&SocketAddr::new(ip, port).to_string());
        prop_assert_eq!(address.to_string().parse(), Ok(address));
        for host in [Host::Ip(ip), Host::Name(name)] {
            let server = UpstreamAddr { host, port };
            prop_assert_eq!(server.to_string().parse(), Ok(server));
        }
    }

    #[test]
    fn no_text_panics(text in "\\PC*|[\\[\\]:/.a0%-]*") {
        let _ = text.parse::<UpstreamAddr>();
        let _ = text.parse::<ListenAddr>();
    }
}
