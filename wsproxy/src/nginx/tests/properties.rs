use proptest::prelude::*;

use super::*;

/// Words that the translation looks at, in any order.
fn word() -> impl Strategy<Value = String> {
    prop_oneof![
        4 => proptest::sample::select(vec![
            "server", "location", "upstream", "http", "listen", "server_name", "proxy_pass", "if",
            "return", "rewrite", "map", "set", "root", "alias", "index", "try_files",
            "proxy_set_header", "add_header", "allow", "deny", "limit_conn", "limit_req", "ssl",
            "limit_conn_zone", "limit_req_zone", "ssl_certificate", "ssl_certificate_key",
            "proxy_read_timeout", "client_max_body_size", "set_real_ip_from", "real_ip_header",
            "hash", "sticky", "keepalive", "auth_basic", "ssl_verify_client", "proxy_ssl_verify",
        ]).prop_map(str::to_owned),
        4 => proptest::sample::select(vec![
            "/", "/a", "/a/", "=", "~", "^/a(.*)$", "@x", "80", "443", "[::]:80", "127.0.0.1:80",
            "unix:/s", "ssl", "default_server", "proxy_protocol", "_", "a.b", "*.b", ".b", "http://x",
            "http://x/y", "https://a.b:1/", "http://$h", "$h", "$host", "$remote_addr", "all",
            "10.0.0.0/8", "::/0", "301", "404", "https://$host$request_uri", "permanent", "break",
            "/$1", "$uri", "$uri/", "=404", "x", "Host", "X-A", "", "1m", "10s", "0", "zone=x:1m",
            "rate=1r/s", "burst=5", "($h", "=", "x)", "($http_origin", "!~", "cookie", "/c.pem",
            "$http_origin", "$$", "${", "%", "\\", "\"", "weight=2", "backup", "down",
        ]).prop_map(|text| format!("'{}'", text.replace('\\', "\\\\").replace('\'', "\\'"))),
        1 => any::<String>().prop_map(|text| format!("'{}'", text.replace(['\\', '\''], ""))),
    ]
}

fn directives(depth: u32) -> BoxedStrategy<String> {
    let words = || proptest::collection::vec(word(), 1..5).prop_map(|words| words.join(" "));
    let simple = words().prop_map(|text| text + ";\n");
    if depth == 0 {
        return simple.boxed();
    }
    let inner = proptest::collection::vec(directives(depth - 1), 0..6);
    let block =
        (words(), inner).prop_map(|(head, inner)| format!("{head} {{\n{}}}\n", inner.concat()));
    prop_oneof![simple, block].boxed()
}

/// Servers and locations of real shape with anything in them.
fn sites() -> impl Strategy<Value = String> {
    let inside = || proptest::collection::vec(directives(1), 0..8).prop_map(|list| list.concat());
    let location = (word(), word(), inside()).prop_map(|(a, b, inside)| {
        format!("location {a} {b} {{ {inside} }}\nlocation /{{{inside}}}")
    });
    let locations = proptest::collection::vec(location, 0..4).prop_map(|list| list.concat());
    let server = (inside(), locations)
        .prop_map(|(inside, locations)| format!("server {{ {inside} {locations} }}\n"));
    let servers = proptest::collection::vec(server, 1..4).prop_map(|list| list.concat());
    (inside(), servers).prop_map(|(inside, servers)| format!("{inside} {servers}"))
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    #[test]
    fn no_text_panics(text in "\\PC*|[ \\n;{}'\"\\\\$#a-c/=~^()]*") {
        if let Ok(import) = import(&|_| None, "n", &text) {
            check(&import.toml);
        }
    }

    #[test]
    fn no_directives_panic(list in proptest::collection::vec(directives(3), 0..12)) {
        imported(&list.concat());
    }

    #[test]
    fn what_comes_out_is_a_configuration(text in sites()) {
        imported(&text);
    }
}

#[test]
fn many_of_everything_take_no_long_time() {
    let many = |text: &str| text.repeat(TEXT_MAX / 2 / text.len());
    for text in [
        many("server{}"),
        many("server{server_name a;return 404;}"),
        format!("server{{ {} }}", many("location /a{}")),
        format!("server{{ {} location /{{proxy_pass http://a;}} }}", many("deny 10.0.0.1;")),
        format!("server{{ server_name {}; }}", many("a.b *.c ")),
        format!("server{{ {} location / {{ proxy_pass http://a; }} }}", many("if ($a) {}")),
        format!("server{{ {} }}", many("listen 80;")),
        format!("upstream u {{ {} }}", many("server a:1;")),
        many("a;"),
    ] {
        imported(&text);
    }
}
