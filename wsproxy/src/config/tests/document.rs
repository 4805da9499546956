//! The document and the program say the same.

use super::*;

/// The one place that knows where the document is.
const DOCUMENT: &str = include_str!("../../../CONFIGURATION.md");

#[test]
fn the_document_has_the_tables_of_the_keys() {
    let (_, rest) = DOCUMENT.split_once("<!-- keys: begin -->\n").unwrap();
    let (tables, _) = rest.split_once("<!-- keys: end -->").unwrap();
    let expected = reference();
    if tables.trim() != expected.trim() && std::env::var_os("WSPROXY_WRITE_DOCUMENT").is_some() {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/CONFIGURATION.md");
        let (before, _) = DOCUMENT.split_once(tables).unwrap();
        let after = &DOCUMENT[before.len() + tables.len()..];
        let text = format!("{before}{}\n{after}", expected.trim());
        std::fs::write(path, text).unwrap();
    }
    assert!(
        tables.trim() == expected.trim(),
        "CONFIGURATION.md is not up to date: run this test with WSPROXY_WRITE_DOCUMENT=1"
    );
}

/// The code blocks of a language.
fn blocks(language: &str) -> impl Iterator<Item = &'static str> {
    let starts = DOCUMENT.split(&format!("```{language}\n")).skip(1).collect::<Vec<_>>();
    starts.into_iter().map(|rest| rest.split_once("```").unwrap().0)
}

#[test]
fn every_example_of_the_document_is_valid() {
    assert!(blocks("toml").count() >= 6);
    for example in blocks("toml") {
        let config = valid(example);
        assert!(config.warnings.is_empty(), "{:?} in\n{example}", config.warnings);
    }
}

#[test]
fn the_commented_example_is_the_defaults() {
    let text = example();
    let config = valid(&text);
    assert!(config.warnings.is_empty());
    let expected = Config {
        source: Source::File(path().to_owned()),
        listeners: listeners("0.0.0.0:8080"),
        upstreams: servers(&["127.0.0.1:9000"]),
        routes: vec![Route { name: "/".into(), ..Route::everything_to("default") }],
        datapath: Datapath::default(),
        ..Config::demo()
    };
    assert_eq!(config, expected);
    // Without the marks in front of them, all optional keys are valid too, one at a time.
    for key in KEYS {
        let line = format!("{} = ", key.name);
        let shown = text.lines().any(|l| l.trim_start_matches("# ").starts_with(&line));
        let inside = matches!(key.kind, Kind::Table(_) | Kind::Tables(_))
            || ["upstream.servers", "listener.tls.certificates"].contains(&key.section);
        assert!(shown || inside, "{} is not in the example", key.whole());
    }
}

#[test]
fn every_example_value_is_valid() {
    for key in KEYS.iter().filter(|key| !key.example.is_empty()) {
        let (section, name, value) = (key.section, key.name, key.example);
        let pair = "certificate = \"/a.pem\"\nkey = \"/a.key\"\n";
        let text = match section {
            "listener" | "upstream" | "listener.tls.certificates" | "upstream.servers" => continue,
            "listener.tls" => format!(
                "{VALID_LISTENER}[listener.tls]\ncertificates = [{{ certificate = \"/a\", key = \"/b\" }}]\n{name} = {value}\n{VALID_UPSTREAM}"
            ),
            "upstream.tls" if name != "certificate" && name != "key" => {
                format!("{VALID}[upstream.tls]\n{name} = {value}\n")
            }
            "upstream.tls" => format!("{VALID}[upstream.tls]\n{pair}"),
            "route" if name == "listeners" => continue,
            "route" => {
                let own = ["files", "redirect", "respond", "upstream"].contains(&name);
                let action = match name {
                    _ if own => "",
                    "fallback" => "files = \"/srv\"\n",
                    "body" => "respond = 404\n",
                    _ => "upstream = \"default\"\n",
                };
                format!("{VALID}[[route]]\n{action}{name} = {value}\n")
            }
            "route.ping" => {
                format!("{VALID}[route]\nupstream = \"default\"\n[{section}]\n{name} = {value}\n")
            }
            _ => format!("{VALID}[{section}]\n{name} = {value}\n"),
        };
        valid(&text);
    }
}

const VALID_LISTENER: &str = "[listener]\naddress = \"127.0.0.1:80\"\n";
const VALID_UPSTREAM: &str = "[upstream]\nservers = [\"a:1\"]\n";

#[test]
fn the_schema_knows_every_key() {
    let schema = schema();
    for key in KEYS.iter().filter(|key| key.section.is_empty()) {
        assert!(schema["properties"][key.name].is_object(), "{}", key.name);
    }
    let route = &schema["properties"]["route"]["anyOf"][0]["properties"];
    for key in KEYS.iter().filter(|key| key.section == "route") {
        assert!(route[key.name]["description"].is_string(), "{}", key.name);
    }
    assert_eq!(route["ping"]["properties"]["upstream"]["type"], "boolean");
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
