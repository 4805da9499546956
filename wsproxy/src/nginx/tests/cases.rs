use super::*;

/// The keys of the routes of a server on port 80, one route a line.
fn routes(inside: &str) -> String {
    routes_of(&format!("server {{ {inside} }}"))
}

fn routes_of(text: &str) -> String {
    let toml = imported(text).toml;
    let routes = toml.split("[[route]]\n").skip(1);
    let shown = routes.map(|route| {
        let end = route.find("\n[").unwrap_or(route.len());
        let lines: Vec<_> = bare(&route[..end]).lines().map(str::to_owned).collect();
        lines.join("; ") + "\n"
    });
    shown.collect()
}

/// What a location with `proxy_pass http://a:1` has beside its path and upstream.
fn proxied(more: &str) -> String {
    let route = routes(&format!(
        "location / {{ proxy_pass http://a:1; proxy_set_header Host $host; {more} }}"
    ));
    let head = "path = \"/\"; upstream = \"a:1\"";
    let rest = route.strip_prefix(head).unwrap_or_else(|| panic!("{more}\n{route}"));
    rest.trim_start_matches("; ").trim_end().to_owned()
}

/// The table of that kind, without its first line.
fn table(text: &str, header: &str) -> String {
    let toml = imported(text).toml;
    let (_, rest) = toml.split_once(&format!("{header}\n")).unwrap_or_else(|| panic!("{toml}"));
    bare(rest.split("\n\n").next().unwrap()).trim_end().replace('\n', "; ")
}

#[test]
fn locations() {
    for (inside, expected) in [
        ("location = /a { return 204; }", "path = \"/a\"; exact = true; respond = 204"),
        ("location /a b { return 204; }", ""),
        ("location '/a b' { return 204; }", "path = \"/a%20b\"; respond = 204"),
        ("location ^~ /a/ { return 204; }", "path = \"/a/\"; respond = 204"),
        ("location ~ ^/ws { return 204; }", "path = \"/ws\"; respond = 204"),
        (r"location ~ \.php$ { fastcgi_pass a; }", ""),
        ("location /a/ { fastcgi_pass a; }", "path = \"/a/\"; respond = 501"),
        ("location /a/ { }", "path = \"/a/\"; respond = 404"),
        ("location /a/ { internal; root /d; }", "path = \"/a/\"; respond = 404"),
        (
            "location /a/ { root /d; location /a/b/ { return 204; } }",
            "path = \"/a/\"; files = \"/d/a\"\npath = \"/a/b/\"; respond = 204",
        ),
        (
            "location /a/ { return 204; } location ~ ^/a/ { return 205; }",
            "path = \"/a/\"; respond = 204",
        ),
        (
            "root /d; location /a/ { return 204; }",
            "path = \"/a/\"; respond = 204\npath = \"/\"; files = \"/d\"",
        ),
        ("root /d;", "path = \"/\"; files = \"/d\""),
        ("", ""),
    ] {
        assert_eq!(routes(inside).trim_end(), expected, "{inside}");
    }
}

#[test]
fn files() {
    for (inside, expected) in [
        ("root html;", "path = \"/\"; files = \"/usr/share/nginx/html\""),
        ("root $x;", ""),
        ("location /a/ { alias /d/; }", "path = \"/a/\"; files = \"/d\""),
        (
            "location = /a.txt { root /d; }",
            "path = \"/a.txt\"; exact = true; files = \"/d\"; fallback = [\"/a.txt\"]",
        ),
        (
            "location = /a.txt { alias /d/b.txt; }",
            "path = \"/a.txt\"; exact = true; files = \"/d\"; fallback = [\"/b.txt\"]",
        ),
        (
            "location /app/ { root /d; try_files $uri /app/index.html =404; }",
            "path = \"/app/\"; files = \"/d/app\"; fallback = [\"$uri\", \"/index.html\", \"=404\"]",
        ),
        (
            "location / { root /d; index a.html /b.html; try_files $uri $uri.html /c.html?$args; }",
            "path = \"/\"; files = \"/d\"; index = [\"a.html\"]; fallback = [\"$uri\", \"/c.html\"]",
        ),
        (
            "root /d; location / { try_files $uri @app; } location @app { proxy_pass http://a:1; \
             proxy_set_header Host $http_host; }",
            "path = \"/\"; upstream = \"a:1\"",
        ),
        (
            "root /d; try_files $uri @app; location @app { proxy_pass http://a:1; \
             proxy_set_header Host $http_host; }",
            "path = \"/\"; upstream = \"a:1\"",
        ),
    ] {
        assert_eq!(routes(inside).trim_end(), expected, "{inside}");
    }
}

#[test]
fn redirects_and_answers() {
    for (inside, expected) in [
        (
            "return 301 https://$host$request_uri;",
            "redirect = \"https://$host$request_uri\"; status = 301",
        ),
        ("return https://a;", "redirect = \"https://a\"; status = 302"),
        ("return 308 /new;", "redirect = \"/new\"; status = 308"),
        ("return 301 https://$unknown;", "respond = 501"),
        ("return 200 \"a\\nb\";", "respond = 200; body = \"a\\nb\""),
        ("return 200 $host;", "respond = 200"),
        ("return 444;", "respond = 403"),
        ("return 99;", "respond = 501"),
        (
            "rewrite ^(.*)$ https://a$1 permanent;",
            "redirect = \"https://a$request_uri\"; status = 301",
        ),
        (
            "rewrite ^ https://a$request_uri? redirect;",
            "redirect = \"https://a$request_uri\"; status = 302",
        ),
    ] {
        let expected = format!("path = \"/\"; {expected}");
        assert_eq!(routes(inside).trim_end(), expected, "{inside}");
        let inside = format!("location / {{ {inside} }}");
        assert_eq!(routes(&inside).trim_end(), expected, "{inside}");
    }
    assert_eq!(
        routes("rewrite ^/old$ /new permanent; root /d;"),
        "path = \"/old\"; exact = true; redirect = \"/new\"; status = 301\n\
         path = \"/\"; files = \"/d\"\n"
    );
}

#[test]
fn what_a_proxied_location_says() {
    for (more, expected) in [
        ("", ""),
        ("proxy_read_timeout 90s; proxy_send_timeout 1h30m;", "idle = \"1h30m\""),
        ("proxy_read_timeout 0;", ""),
        ("proxy_read_timeout 60d;", "idle = \"720h\""),
        ("proxy_connect_timeout 500ms;", "upstream_connect = \"500ms\""),
        ("client_max_body_size 0;", "body_limit = \"off\""),
        ("client_max_body_size 10m;", "body_limit = \"10MiB\""),
        ("client_max_body_size 9g;", "body_limit = \"3GiB\""),
        ("proxy_set_header Connection '';", ""),
        ("proxy_set_header Sec-WebSocket-Protocol chat;", ""),
        ("proxy_set_header X-Forwarded-Proto $http_x_forwarded_proto;", ""),
        (
            "proxy_set_header X-Forwarded-Proto https;",
            "set_request_headers = { \"X-Forwarded-Proto\" = \"https\" }",
        ),
        (
            "proxy_set_header X-A \"$remote_addr-$http_user_agent\";",
            "set_request_headers = { \"X-A\" = \"$client_ip-$header_user_agent\" }",
        ),
        ("proxy_set_header X-A $msec;", ""),
        ("set $e ''; proxy_set_header X-A $e;", "remove_request_headers = [\"X-A\"]"),
        ("proxy_set_header Host upstream;", ""),
        ("proxy_set_header X-A '';", "remove_request_headers = [\"X-A\"]"),
        ("proxy_set_header Host $proxy_host;", "host_header = \"upstream\""),
        ("proxy_set_header Host b.example;", "host_header = \"b.example\""),
        ("proxy_hide_header Server;", "remove_response_headers = [\"Server\"]"),
        ("add_header X-A b always;", "add_response_headers = { \"X-A\" = \"b\" }"),
        ("allow 10.0.0.1/8; deny all;", "allow = [\"10.0.0.0/8\"]"),
        ("deny 10.0.0.1; allow all;", "deny = [\"10.0.0.1\"]"),
        ("allow all; deny all;", ""),
        ("deny all;", "deny = [\"0.0.0.0/0\", \"::/0\"]"),
        ("deny nonsense;", "deny = [\"0.0.0.0/0\", \"::/0\"]"),
        ("auth_basic x;", "deny = [\"0.0.0.0/0\", \"::/0\"]"),
        ("auth_basic off;", ""),
        ("if ($http_upgrade != websocket) { return 426; }", "websocket = \"only\""),
        (
            "if ($http_origin != \"https://a.example\") { return 403; }",
            "origins = [\"https://a.example\"]",
        ),
        (
            r"if ($http_origin !~* ^https://(www\.)?a\.example$) { return 403; }",
            "origins = [\"https://a.example\", \"https://www.a.example\"]",
        ),
        ("if ($http_x_key != secret) { return 403; }", "deny = [\"0.0.0.0/0\", \"::/0\"]"),
        ("if ($http_user_agent ~* bot) { return 403; }", ""),
        ("if ($request_method = OPTIONS) { return 204; }", ""),
    ] {
        assert_eq!(proxied(more), expected, "{more}");
    }
}

#[test]
fn headers_are_inherited_as_a_whole() {
    let outer = "proxy_set_header Host $host; proxy_set_header X-A a; proxy_read_timeout 10s;";
    assert_eq!(
        routes(&format!("{outer} location / {{ proxy_pass http://a:1; }}")),
        "path = \"/\"; upstream = \"a:1\"; idle = \"10s\"; \
         set_request_headers = { \"X-A\" = \"a\" }\n"
    );
    assert_eq!(
        routes(&format!("{outer} location / {{ proxy_pass http://a:1; proxy_set_header X-B b; }}")),
        "path = \"/\"; upstream = \"a:1\"; idle = \"10s\"; host_header = \"upstream\"; \
         set_request_headers = { \"X-B\" = \"b\" }\n"
    );
}

#[test]
fn where_requests_go() {
    for (path, inside, expected) in [
        ("/a/", "proxy_pass http://b:1/;", "upstream = \"b:1\"; rewrite = \"/\""),
        ("/a/", "proxy_pass http://b:1/a/;", "upstream = \"b:1\""),
        ("/a/", "proxy_pass http://b;", "upstream = \"b:80\""),
        ("/a/", "proxy_pass http://b:1$request_uri;", "upstream = \"b:1\""),
        ("/a/", "proxy_pass http://unix:/s:/b/;", "upstream = \"unix:/s\"; rewrite = \"/b/\""),
        ("/a/", "proxy_pass http://$x;", "respond = 501"),
        ("/a/", "set $x b:1; proxy_pass http://$x;", "upstream = \"b:1\""),
        (
            "/a/",
            "rewrite ^/a/(.*)$ /$1 break; proxy_pass http://b:1;",
            "upstream = \"b:1\"; rewrite = \"/\"",
        ),
        ("= /a", "proxy_pass http://b:1/c;", "exact = true; upstream = \"b:1\"; rewrite = \"/c\""),
    ] {
        let path_key = path.trim_start_matches("= ");
        let text = format!("location {path} {{ proxy_set_header Host $host; {inside} }}");
        let expected = format!("path = \"{path_key}\"; {expected}\n");
        assert_eq!(routes(&text), expected, "{text}");
    }
}

#[test]
fn upstreams() {
    let of = |block: &str, scheme: &str, more: &str| {
        let text = format!(
            "upstream u {{ {block} }} server {{ location / {{ proxy_pass {scheme}://u; {more} }} }}"
        );
        table(&text, "[[upstream]]\nname = \"u\"")
    };
    let one = "servers = [\"a:80\"]";
    for (block, expected) in [
        ("server a;", one.to_owned()),
        ("server a; server a;", one.to_owned()),
        ("server a resolve;", one.to_owned()),
        ("server a service=http resolve;", "servers = [\"srv://_http._tcp.a\"]".to_owned()),
        (
            "server a; hash $remote_addr;",
            format!("{one}; balance = \"hash\"; hash_key = \"client\""),
        ),
        (
            "server a; hash $http_x_user consistent;",
            format!("{one}; balance = \"hash\"; hash_key = \"header:x-user\""),
        ),
        ("server a; hash $arg_id;", format!("{one}; balance = \"hash\"; hash_key = \"query:id\"")),
        ("server a; hash $request_uri;", one.to_owned()),
        ("server a; random two least_conn;", format!("{one}; balance = \"random\"")),
        ("server a; sticky cookie srv expires=1h;", format!("{one}; sticky_cookie = \"srv\"")),
        (
            "server a max_fails=0 slow_start=30s fail_timeout=1m; keepalive 8; zone z 1m;",
            format!(
                "{one}; max_fails = 0; fail_timeout = \"60s\"; slow_start = \"30s\"; keepalive = 8"
            ),
        ),
    ] {
        assert_eq!(of(block, "http", ""), expected, "{block}");
    }
    assert_eq!(
        of("server a:1;", "https", "proxy_ssl_verify off; proxy_ssl_name b;"),
        "servers = [\"https://a:1\"]; [upstream.tls]; server_name = \"b\"; verify = false"
    );
    assert_eq!(
        routes_of("upstream u { server a down; } server { location / { proxy_pass http://u; } }"),
        "path = \"/\"; respond = 502\n"
    );
}

#[test]
fn listeners() {
    let tls = "ssl_certificate /c; ssl_certificate_key /k;";
    let certificates = "certificates = [{ certificate = \"/c\", key = \"/k\" }]";
    for (inside, expected) in [
        ("", "name = \"http\"; address = \"0.0.0.0:80\"".to_owned()),
        ("listen 80; listen [::]:80;", "name = \"http\"; address = \":80\"".to_owned()),
        ("listen [::]:80;", "name = \"http\"; address = \"[::]:80\"".to_owned()),
        (
            "listen 10.0.0.1:81 backlog=10 reuseport;",
            "name = \"http-10.0.0.1:81\"; address = \"10.0.0.1:81\"; backlog = 10; \
             reuseport = true"
                .to_owned(),
        ),
        ("listen unix:/s;", "name = \"/s\"; address = \"unix:/s\"".to_owned()),
        (
            "listen 82 proxy_protocol; set_real_ip_from 10.0.0.0/8; real_ip_header proxy_protocol;",
            "name = \"http-82\"; address = \"0.0.0.0:82\"; proxy_protocol_from = [\"10.0.0.0/8\"]"
                .to_owned(),
        ),
        ("listen 82 proxy_protocol;", "name = \"http-82\"; address = \"0.0.0.0:82\"".to_owned()),
        (
            "listen 443 ssl; ssl_protocols TLSv1.3; ssl_certificate /c; ssl_certificate_key /k;",
            format!(
                "name = \"https\"; address = \"0.0.0.0:443\"; [listener.tls]; {certificates}; \
                 min_version = \"1.3\""
            ),
        ),
        (
            &format!("listen 443 ssl; {tls} ssl_client_certificate ca.pem; ssl_verify_client on;"),
            format!(
                "name = \"https\"; address = \"0.0.0.0:443\"; [listener.tls]; {certificates}; \
                 client_ca = \"/etc/nginx/ca.pem\"; client_auth = \"require\""
            ),
        ),
    ] {
        let text = format!("server {{ {inside} return 204; }}");
        assert_eq!(table(&text, "[[listener]]"), expected, "{inside}");
    }
    let none = imported("server { listen 443 ssl; return 204; }");
    assert!(!none.toml.contains("[[listener]]"), "{}", none.toml);
    let beside =
        imported("server { listen 80; return 204; } server { listen 10.0.0.1:80; return 205; }");
    assert!(
        !beside.toml.contains("205") && !beside.toml.contains("10.0.0.1:80\""),
        "{}",
        beside.toml
    );
}

#[test]
fn hosts() {
    let two = |first: &str, second: &str| {
        routes_of(&format!("server {{ {first} return 201; }} server {{ {second} return 202; }}"))
            .replace("path = \"/\"; ", "")
    };
    for (first, second, expected) in [
        (
            "server_name a;",
            "server_name B .c;",
            "hosts = [\"a\"]; respond = 201\nhosts = [\"b\", \"c\", \"*.c\"]; respond = 202\n",
        ),
        ("server_name _;", "server_name b;", "respond = 201\nhosts = [\"b\"]; respond = 202\n"),
        (
            "server_name a;",
            "listen 80 default_server; server_name b;",
            "hosts = [\"a\"]; respond = 201\nrespond = 202\n",
        ),
        (
            "listen 80 default_server; server_name x.b;",
            "server_name *.b;",
            "hosts = [\"x.b\"]; respond = 201\nhosts = [\"*.b\"]; respond = 202\n",
        ),
        ("server_name a;", "server_name a;", "hosts = [\"a\"]; respond = 201\n"),
        ("server_name a;", "server_name ~^b;", "hosts = [\"a\"]; respond = 201\n"),
        (
            "server_name a;",
            "listen 81; server_name b;",
            "listeners = [\"http\"]; hosts = [\"a\"]; respond = 201\nlisteners = [\"http-81\"]; hosts = [\"b\"]; respond = 202\n",
        ),
    ] {
        assert_eq!(two(first, second), expected, "{first} {second}");
    }
    let certbot = "listen 80; server_name a b; if ($host = a) { return 301 https://$host$request_uri; } \
                   if ($host = b) { return 301 https://$host$request_uri; } return 404;";
    let sent = "path = \"/\"; redirect = \"https://$host$request_uri\"; status = 301";
    assert_eq!(routes(certbot), format!("hosts = [\"a\"]; {sent}\nhosts = [\"b\"]; {sent}\n"));
    let plain = "listen 80; listen 443 ssl; ssl_certificate /c; ssl_certificate_key /k; root /d; \
                 if ($scheme = http) { return 301 https://$host$request_uri; }";
    assert_eq!(
        routes(plain),
        format!(
            "listeners = [\"https\"]; path = \"/\"; files = \"/d\"\nlisteners = [\"http\"]; {sent}\n"
        )
    );
}

#[test]
fn limits() {
    let zones = "limit_conn_zone $binary_remote_addr zone=c:1m; limit_conn_zone $server_name zone=s:1m; \
                 limit_req_zone $remote_addr zone=r:1m rate=30r/m; limit_conn_zone $cookie_a zone=o:1m;";
    let route = |inside: &str| {
        let text = format!(
            "{zones} server {{ location / {{ proxy_set_header Host $host; proxy_pass http://a:1; {inside} }} }}"
        );
        let route = routes_of(&text);
        route
            .replace("path = \"/\"; upstream = \"a:1\"", "")
            .trim_start_matches("; ")
            .trim_end()
            .to_owned()
    };
    for (inside, expected) in [
        ("limit_conn c 10;", "max_sessions_per_client = 10"),
        ("limit_conn c 10; limit_conn s 100;", "max_sessions_per_client = 10; max_sessions = 100"),
        ("limit_conn o 10;", ""),
        ("limit_req zone=r;", "handshake_rate = \"30/m\"; handshake_burst = 1"),
        ("limit_req zone=r burst=5 nodelay;", "handshake_rate = \"30/m\"; handshake_burst = 5"),
        ("limit_req zone=x;", ""),
    ] {
        assert_eq!(route(inside), expected, "{inside}");
    }
    let general =
        format!("{zones} limit_conn c 9; limit_req zone=r burst=3; server {{ return 204; }}");
    assert_eq!(
        table(&general, "[limits]"),
        "max_sessions_per_client = 9; handshake_rate_per_client = \"30/m\"; handshake_burst = 3"
    );
}

#[test]
fn origins_of_a_map() {
    let of = |map: &str, condition: &str| {
        let text = format!(
            "map $http_origin $ok {{ {map} }} server {{ location / {{ if ({condition}) {{ return 403; }} \
             proxy_set_header Host $host; proxy_pass http://a:1; }} }}"
        );
        let route = routes_of(&text);
        route.replace("path = \"/\"; upstream = \"a:1\"; ", "").trim_end().to_owned()
    };
    let listed = "origins = [\"https://a\", \"https://*.b\"]";
    let closed = "deny = [\"0.0.0.0/0\", \"::/0\"]";
    let map = r#"default 0; https://a 1; "~^https://[^/]+\.b$" 1;"#;
    assert_eq!(of(map, "$ok = 0"), listed);
    assert_eq!(of(map, "$ok != 1"), listed);
    assert_eq!(of(map, "$ok"), closed);
    assert_eq!(
        of("default 1; https://a 0; '' 0;", "$ok"),
        "origins = [\"https://a\", \"missing\"]"
    );
    assert_eq!(of("default 1; https://evil 0;", "$ok = 0"), closed);
    assert_eq!(of("default 0; ~a 1;", "$ok = 0"), closed);
}

#[test]
fn a_left_out_location_opens_nothing() {
    let everybody = "deny = [\"0.0.0.0/0\", \"::/0\"]";
    for (inside, expected) in [
        (
            r"location ~ \.php$ { fastcgi_pass a; } root /d;",
            format!("path = \"/\"; files = \"/d\"; {everybody}"),
        ),
        (
            r"location ~ \.php$ { fastcgi_pass a; } location ^~ /s/ { root /d; }",
            "path = \"/s/\"; files = \"/d/s\"".to_owned(),
        ),
        (
            r"location ~ \.bak$ { deny all; } location / { proxy_pass http://a:1; proxy_set_header Host $host; }",
            format!("path = \"/\"; upstream = \"a:1\"; {everybody}"),
        ),
        (
            r"location ~ ^/x/(a|b) { deny all; } location /y/ { root /d; }",
            "path = \"/y/\"; files = \"/d/y\"".to_owned(),
        ),
        (r"location ~ \.js$ { expires 1d; } root /d;", "path = \"/\"; files = \"/d\"".to_owned()),
        (r"location ~ /\.ht { deny all; } root /d;", "path = \"/\"; files = \"/d\"".to_owned()),
    ] {
        assert_eq!(routes(inside).trim_end(), expected, "{inside}");
    }
}

#[test]
fn unknown_directives_are_noted_with_their_line() {
    let import = imported(
        "server {\n  listen 80;\n  frobnicate on;\n  return 204;\n}\nmail {\n imap on; }\n",
    );
    assert_eq!(
        remarks(&import),
        [
            "3 unsupported: there is nothing like it here",
            "6 unsupported: only HTTP and WebSockets are proxied: keep nginx for this block",
        ]
    );
}
