//! `share/grafana-dashboard.json` and `share/alerts.yaml` beside the metrics of the real program.
#![cfg(target_os = "linux")]

#[path = "dashboard/families.rs"]
mod families;
#[path = "dashboard/promql.rs"]
mod promql;
mod support;

use std::{
    collections::{BTreeSet, HashSet},
    fs, io,
    path::{Path, PathBuf},
    process::Command,
};

use families::{Families, documented, family_of, faults, labels_left, shown, ticked};
use saphyr::{LoadableYamlNode as _, Yaml};
use serde_json::{Value, json};
use support::{
    Proxy, Server, TempDir, complaint, finish, http::get, request, say, status, wait_for,
};

const ALERTS: &str = include_str!("../share/alerts.yaml");
const CONFIGURATION: &str = include_str!("../CONFIGURATION.md");
const SEVERITIES: [&str; 2] = ["critical", "warning"];

fn metrics_of_the_document() -> Families {
    documented(include_str!("../../docs/METRICS.md"))
}

fn dashboard() -> Value {
    serde_json::from_str(include_str!("../share/grafana-dashboard.json")).unwrap()
}

fn text<'a>(value: &'a Value, name: &str) -> &'a str {
    value[name].as_str().unwrap_or_else(|| panic!("no {name} in {value:#}"))
}

/// Panels that show something.
fn panels(dashboard: &Value) -> Vec<&Value> {
    let panels = dashboard["panels"].as_array().unwrap().iter();
    panels.filter(|panel| panel["type"] != "row").collect()
}

/// Panel's title, query, legend.
fn queries(dashboard: &Value) -> Vec<(&str, &str, &str)> {
    let targets = panels(dashboard).into_iter().flat_map(|panel| {
        let targets = panel["targets"].as_array().unwrap().iter();
        targets.map(move |target| (text(panel, "title"), target))
    });
    targets.map(|(title, t)| (title, text(t, "expr"), text(t, "legendFormat"))).collect()
}

struct Alert {
    name: String,
    query: String,
    /// Summary and description.
    words: [String; 2],
}

fn alerts() -> Vec<Alert> {
    let documents = Yaml::load_from_str(ALERTS).unwrap();
    let field = |yaml: &Yaml<'_>, name: &str| {
        let value = yaml.as_mapping_get(name).and_then(|value| value.as_str());
        value.unwrap_or_else(|| panic!("no {name} in {yaml:?}")).to_owned()
    };
    let groups = documents[0]["groups"].as_vec().unwrap().iter();
    let rules = groups.flat_map(|group| group["rules"].as_vec().unwrap());
    rules
        .map(|rule| {
            let name = field(rule, "alert");
            let patience = field(rule, "for");
            let number = patience.trim_end_matches(['s', 'm', 'h']);
            assert!(number.parse::<u32>().is_ok() && number != patience, "{name}: {patience}");
            let severity = field(&rule["labels"], "severity");
            assert!(SEVERITIES.contains(&&*severity), "{name}: {severity}");
            let words = ["summary", "description"].map(|word| field(&rule["annotations"], word));
            Alert { query: field(rule, "expr"), name, words }
        })
        .collect()
}

/// A session with a message and a Close, a plain request, a handshake without its key.
fn scrape_after_traffic() -> String {
    let server = Server::start();
    let proxy = Proxy::relay(&[server.address], "[limits]\nmax_sessions = 100");
    let (mut client, mut upstream) = proxy.session(&server);
    assert_eq!(proxy.metric("wsproxy_sessions_limit"), 100);
    assert_eq!(proxy.metric("wsproxy_connections"), 1);
    // "hi" and 1000 with the masking key 0 (RFC 6455 section 5.3).
    let said = b"\x81\x82\0\0\0\0hi\x88\x82\0\0\0\0\x03\xe8";
    client.send(said);
    upstream.expect(said);
    upstream.send(b"\x88\x02\x03\xe8");
    upstream.finish();
    client.expect(b"\x88\x02\x03\xe8");
    client.finish();
    let mut client = proxy.connect();
    client.send(get("/", "Connection: close\r\n").as_bytes());
    let mut upstream = server.accept();
    upstream.head();
    upstream.send(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n");
    assert_eq!(status(&client.head()), 200);
    let (answered, ..) = proxy.ask(&request("").replace("Sec-WebSocket-Key", "X-Key"));
    assert_eq!(answered, 400);
    // All are counted once nobody is connected any more.
    wait_for("all has ended", || {
        let codes = proxy.metric("wsproxy_close_codes_total{code=\"1000\",from=\"client\"}");
        (codes == 1 && proxy.metric("wsproxy_connections") == 0).then_some(())
    });
    let scrape = proxy.metrics();
    proxy.stop();
    scrape
}

#[test]
fn kinds_and_labels_of_real_metrics_are_those_of_the_document() {
    let documented = metrics_of_the_document();
    let shown = shown(&scrape_after_traffic());
    for (name, (kind, labels)) in &shown {
        let family = documented.get(name).unwrap_or_else(|| panic!("{name} is not documented"));
        assert_eq!((kind, labels), (&family.kind, &family.labels), "{name}");
    }
    for name in ["messages", "handshake_failures", "requests", "close_codes", "session_bytes"] {
        let name = format!("wsproxy_{name}_total");
        assert!(shown.contains_key(&name), "{name} does not show");
    }
    assert!(shown.len() >= 25, "{:?}", shown.keys());
}

#[test]
fn queries_ask_for_what_there_is() {
    let families = metrics_of_the_document();
    let dashboard = dashboard();
    let mut found = Vec::new();
    let of_panels = queries(&dashboard).into_iter().map(|(title, query, _)| (title, query));
    let alerts = alerts();
    let of_alerts = alerts.iter().map(|alert| (&*alert.name, &*alert.query));
    for (place, query) in of_panels.chain(of_alerts) {
        let faults = faults(query, &families).into_iter();
        found.extend(faults.map(|fault| format!("{place}: {fault}\n    {query}")));
    }
    assert!(found.is_empty(), "{}", found.join("\n"));
}

#[test]
fn what_is_not_there_would_be_seen() {
    let families = metrics_of_the_document();
    let fault = |query| faults(query, &families).join("; ");
    let good = "sum by (reason) (rate(wsproxy_diversions_total{reason=~\"no_room|pong\"}[5m]))";
    assert_eq!(fault(good), "");
    for (query, wanted) in [
        ("wsproxy_session", "no metric wsproxy_session"),
        ("rate(wsproxy_ping_seconds[5m])", "no metric wsproxy_ping_seconds"),
        ("rate(wsproxy_reloads_total_count[5m])", "no metric wsproxy_reloads_total_count"),
        ("up", "no metric up"),
        ("1 + 1", "no metric at all"),
        ("wsproxy_sessions{path=\"relay\"}", "has no label path"),
        ("wsproxy_sessions{datapath=\"xdp\"}", "datapath of wsproxy_sessions is never \"xdp\""),
        ("sum by (route) (wsproxy_sessions)", "wsproxy_sessions has no label route"),
        ("sum(wsproxy_sessions) by (le)", "wsproxy_sessions has no label le"),
        ("wsproxy_draining / on (route) wsproxy_sessions", "wsproxy_draining has no label route"),
        ("rate(wsproxy_connections[5m])", "wsproxy_connections is no counter"),
        ("sum(wsproxy_ping_seconds_bucket)", "wsproxy_ping_seconds_bucket since the start"),
    ] {
        assert!(fault(query).contains(wanted), "{query}: {:?}", fault(query));
    }
}

#[test]
fn the_dashboard_shows_each_metric_of_the_document() {
    let families = metrics_of_the_document();
    let dashboard = dashboard();
    let mut left: BTreeSet<_> = families.keys().map(String::as_str).collect();
    for (_, query, _) in queries(&dashboard) {
        for selector in &promql::read(query).unwrap().selectors {
            left.remove(family_of(selector, &families).unwrap().0);
        }
    }
    assert!(left.is_empty(), "on no panel: {left:?}");
}

#[test]
fn panels_can_be_read() {
    let dashboard = dashboard();
    let mut ids = HashSet::new();
    let mut squares = HashSet::new();
    for panel in dashboard["panels"].as_array().unwrap() {
        let title = text(panel, "title");
        assert!(ids.insert(panel["id"].as_u64().unwrap()), "{title}: its id is another's");
        let [x, y, w, h] = ["x", "y", "w", "h"].map(|n| panel["gridPos"][n].as_u64().unwrap());
        assert!(x + w <= 24, "{title} does not fit");
        for square in (x..x + w).flat_map(|x| (y..y + h).map(move |y| (x, y))) {
            assert!(squares.insert(square), "{title} covers another panel");
        }
    }
    let titles: HashSet<_> =
        panels(&dashboard).into_iter().map(|panel| text(panel, "title")).collect();
    for panel in panels(&dashboard) {
        let title = text(panel, "title");
        assert!(!text(&panel["fieldConfig"]["defaults"], "unit").is_empty(), "{title}");
        assert!(text(panel, "description").len() >= 60, "{title}: what is to be done?");
        assert_eq!(panel["datasource"]["uid"], "${datasource}", "{title}");
    }
    assert_eq!(titles.len(), panels(&dashboard).len(), "two panels have one title");
}

#[test]
fn panels_follow_the_variables() {
    let dashboard = dashboard();
    let families = metrics_of_the_document();
    let variables = dashboard["templating"]["list"].as_array().unwrap();
    let variable = |name: &str| variables.iter().find(|v| v["name"] == name).unwrap();
    assert_eq!(variable("datasource")["type"], "datasource");
    let instance = variable("instance");
    assert_eq!(instance["multi"], true);
    let metric = text(&instance["query"], "query").strip_prefix("label_values(").unwrap();
    let metric = metric.strip_suffix(", instance)").unwrap();
    assert_eq!(faults(metric, &families), [""; 0]);
    for (title, query, legend) in queries(&dashboard) {
        for selector in promql::read(query).unwrap().selectors {
            let wanted = ("instance".to_owned(), "$instance".to_owned());
            assert!(selector.matchers.contains(&wanted), "{title}: {query}");
        }
        let known = labels_left(query, &families);
        for label in legend.split("{{").skip(1).map(|rest| rest.split("}}").next().unwrap()) {
            assert!(known.contains(label), "{title}: no {label} is left by {query}");
        }
    }
}

/// Names in `text` that stand behind `start`.
fn named<'a>(text: &'a str, start: &str) -> Vec<&'a str> {
    let rest = text.split(start).skip(1);
    rest.map(|rest| rest.split(|c: char| !c.is_ascii_lowercase() && c != '_').next().unwrap())
        .collect()
}

#[test]
fn what_is_to_be_done_can_be_done() {
    let dashboard = dashboard();
    let alerts = alerts();
    let titles: HashSet<_> =
        panels(&dashboard).into_iter().map(|panel| text(panel, "title")).collect();
    let mut words: Vec<_> =
        panels(&dashboard).into_iter().map(|panel| text(panel, "description")).collect();
    words.extend(alerts.iter().flat_map(|alert| alert.words.iter().map(String::as_str)));
    let keys: HashSet<_> = ticked(CONFIGURATION).into_iter().collect();
    let help = String::from_utf8(support::run(["--help"]).stdout).unwrap();
    let commands: HashSet<_> =
        help.lines().filter_map(|line| line.strip_prefix("  ")?.split(' ').next()).collect();
    let mut seen = [0; 3];
    for words in words {
        for section in ["datapath", "drain", "limits", "ping", "route", "timeouts", "upstream"] {
            // A section may be the last word of a sentence.
            let keys_of = named(words, &format!("{section}.")).into_iter();
            for key in keys_of.filter(|key| !key.is_empty()) {
                seen[0] += 1;
                let key = format!("{section}.{key}");
                assert!(keys.contains(&*key), "there is no key {key}: {words}");
            }
        }
        for command in named(words, "`wsproxy ") {
            seen[1] += 1;
            assert!(commands.contains(command), "there is no wsproxy {command}: {words}");
        }
        let quoted = words.split('"').skip(1).step_by(2);
        for title in quoted.filter(|q| q.starts_with(|c: char| c.is_ascii_uppercase())) {
            seen[2] += 1;
            assert!(titles.contains(title), "there is no panel {title:?}: {words}");
        }
    }
    assert!(seen.into_iter().all(|seen| seen >= 5), "{seen:?}");
}

#[test]
fn alerts_speak_of_labels_that_their_query_leaves() {
    let families = metrics_of_the_document();
    let alerts = alerts();
    assert!(alerts.len() >= 11);
    let names: HashSet<_> = alerts.iter().map(|alert| &alert.name).collect();
    assert_eq!(names.len(), alerts.len());
    for Alert { name, query, words } in &alerts {
        let known = labels_left(query, &families);
        for label in words.iter().flat_map(|words| named(words, "$labels.")) {
            assert!(known.contains(label), "{name}: no {label} is left by {query}");
        }
    }
}

/// Runs it over `file`, where it is installed.
fn promtool(what: &str, file: &Path) {
    let output = match Command::new("promtool").arg("--version").output() {
        Ok(_) => finish(Command::new("promtool").args([what, "rules"]).arg(file)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            return say("!!! SKIPPED: no promtool here (Debian: prometheus)");
        }
        Err(error) => panic!("{error}"),
    };
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{said}{}", complaint(&output));
}

fn here(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(path)
}

#[test]
fn prometheus_takes_each_query() {
    promtool("check", &here("share/alerts.yaml"));
    // A rule of each query of the dashboard; JSON is YAML.
    let dashboard = dashboard();
    let rules: Vec<_> = queries(&dashboard)
        .into_iter()
        .enumerate()
        .map(|(number, (_, query, _))| {
            let query = query.replace("$__rate_interval", "5m").replace("$__range", "6h");
            json!({ "record": format!("query_{number}"), "expr": query })
        })
        .collect();
    let dir = TempDir::new();
    let file = dir.join("dashboard.yaml");
    fs::write(&file, json!({ "groups": [{ "name": "g", "rules": rules }] }).to_string()).unwrap();
    promtool("check", &file);
}

#[test]
fn alerts_fire_when_they_should_and_else_not() {
    promtool("test", &here("tests/dashboard/alerts_test.yaml"));
}
