//! The model, the keys and the screen, without a socket and a terminal.

use std::time::Duration;

use ratatui::{
    Terminal,
    backend::TestBackend,
    crossterm::event::{KeyCode, KeyEvent, KeyEventKind, KeyModifiers},
    style::Modifier,
};
use serde_json::{Value, json};

use super::{
    draw,
    keys::Action,
    model::{Mode, Model, Sort},
    rates::{Rates, Sum},
    snapshot::Snapshot,
    view,
};

fn session(id: u64, client: &str, bytes: u64) -> Value {
    json!({ "id": id, "client": client, "upstream": format!("10.0.0.{}:9000", id % 2),
            "route": if id.is_multiple_of(2) { "/even" } else { "/odd" }, "datapath": "sockmap",
            "age_s": 100 - id, "bytes_to_upstream": bytes, "bytes_to_client": 2 * bytes,
            "messages_to_upstream": bytes / 10, "messages_to_client": null,
            "in_kernel": [true, id != 3], "diversions": id % 3,
            "ping_rtt_us_client": if id == 2 { Value::Null } else { json!(1000 * id) },
            "ping_rtt_us_upstream": null, "idle_ms": 1500, "frames": "on", "closing": null,
            "request_id": "req-1" })
}

fn status(uptime: u64) -> Value {
    json!({ "version": "0.1.0", "uptime_s": uptime, "datapath": "sockmap",
            "sessions": { "sockmap": 3, "relay": 0 }, "sessions_total": uptime,
            "listeners": [],
            "routes": [{ "name": "/odd", "sessions": 2 }, { "name": "/even", "sessions": 1 }] })
}

fn upstreams() -> Value {
    let server = |name: &str, state: &str| {
        json!({ "name": name, "state": state, "live": 2, "total": 9, "failures": 4, "weight": 1,
                "backup": false, "max_connections": null })
    };
    json!([{ "name": "default", "waiting": 5,
             "servers": [server("10.0.0.0:9000", "up"), server("10.0.0.1:9000", "draining")] }])
}

/// After so many seconds; the clock of the view began when wsproxy did.
fn snapshot(seconds: u64, sessions: Vec<Value>) -> Snapshot {
    let list = json!({ "total": sessions.len(), "sessions": sessions });
    Snapshot::read(Duration::from_secs(seconds), &status(seconds), &upstreams(), &list)
}

/// Three sessions, of which the second is the busiest, seen twice within two seconds.
fn busy() -> Model {
    let mut model = Model::default();
    model.apply(snapshot(10, (1..=3).map(|id| session(id, "192.0.2.1:5", 100)).collect()));
    let later = [(1, 110), (2, 900), (3, 300)];
    let later = later.map(|(id, bytes)| session(id, &format!("192.0.2.1:{id}"), bytes));
    model.apply(snapshot(12, later.into()));
    // The first round knew other clients by these numbers.
    assert_eq!(model.traffic.each, [Rates::default(); 3]);
    let mut model = Model::default();
    model.apply(snapshot(10, three([100; 3])));
    model.apply(snapshot(12, three([110, 900, 300])));
    model
}

fn three(bytes: [u64; 3]) -> Vec<Value> {
    let sessions = (1..=3).zip(bytes);
    sessions.map(|(id, bytes)| session(id, &format!("192.0.2.1:{id}"), bytes)).collect()
}

fn ids(model: &Model) -> Vec<u64> {
    model.all().map(|(session, ..)| session.id).collect()
}

fn selected(model: &Model) -> Option<u64> {
    model.selected().map(|session| session.id)
}

fn press(model: &mut Model, code: KeyCode) -> Option<Action> {
    model.press(KeyEvent::new(code, KeyModifiers::NONE))
}

fn type_in(model: &mut Model, text: &str) {
    for c in text.chars() {
        assert_eq!(press(model, KeyCode::Char(c)), None, "{c}");
    }
}

fn screen(model: &mut Model, width: u16, height: u16) -> Vec<String> {
    let mut terminal = Terminal::new(TestBackend::new(width, height)).unwrap();
    terminal.draw(|frame| draw::draw(frame, model)).unwrap();
    let buffer = terminal.backend().buffer();
    let line = |y| (0..width).map(|x| buffer[(x, y)].symbol()).collect::<String>();
    (0..height).map(|y| line(y).trim_end().to_owned()).collect()
}

#[test]
fn rates_are_what_came_between_two_rounds() {
    let model = busy();
    let [one, two, three] = &model.traffic.each[..] else { panic!() };
    assert_eq!((one.bytes, one.messages), ([Some(5.0), Some(10.0)], [Some(0.5), None]));
    assert_eq!(two.bytes, [Some(400.0), Some(800.0)]);
    assert_eq!(three.bytes, [Some(100.0), Some(200.0)]);
    let all = model.traffic.all;
    assert_eq!(all.bytes[0], Sum { known: Some(505.0), partial: false });
    assert_eq!(all.messages[1], Sum { known: None, partial: true });
    assert_eq!(model.traffic.routes["/odd"].bytes[0].known, Some(105.0));
    assert_eq!(model.traffic.servers["10.0.0.0:9000"].bytes[1].known, Some(800.0));
}

#[test]
fn a_new_session_counts_from_nothing_if_all_were_known() {
    let mut model = busy();
    let mut sessions = three([110, 900, 300]);
    sessions.push(session(4, "192.0.2.1:4", 50));
    model.apply(snapshot(17, sessions.clone()));
    assert_eq!(model.traffic.each[3].bytes, [Some(10.0), Some(20.0)]);
    assert_eq!(model.traffic.each[0].bytes, [Some(0.0), Some(0.0)]);
    // The list was cut: it may have been there before.
    let list = json!({ "total": 99, "sessions": three([110, 900, 300]) });
    model.apply(Snapshot::read(Duration::from_secs(18), &status(18), &upstreams(), &list));
    model.apply(snapshot(19, sessions));
    assert_eq!(model.traffic.each[3].bytes, [None, None]);
    assert!(model.traffic.all.bytes[0].partial);
}

#[test]
fn what_has_no_session_moves_nothing() {
    let mut model = Model::default();
    let head = |model: &Model| view::head(model)[1].clone();
    model.apply(snapshot(10, Vec::new()));
    assert_eq!(head(&model), "to servers - msg/s - B/s   to clients - msg/s - B/s");
    assert!(view::routes(&model, None)[1].ends_with("  -"));
    model.apply(snapshot(11, vec![session(1, "192.0.2.1:1", 0)]));
    let [odd, even] = ["/odd", "/even"]
        .map(|route| model.traffic.of(&model.traffic.routes, route).messages.map(|sum| sum.known));
    assert_eq!((odd, even), ([Some(0.0), None], [Some(0.0); 2]));
    model.apply(snapshot(12, Vec::new()));
    assert_eq!(head(&model), "to servers 0 msg/s 0 B/s   to clients 0 msg/s 0 B/s");
    // Sessions that are not listed may move as much as they like.
    let list = json!({ "total": 9, "sessions": [] });
    model.apply(Snapshot::read(Duration::from_secs(13), &status(13), &upstreams(), &list));
    assert_eq!(head(&model), "to servers - msg/s - B/s   to clients - msg/s - B/s");
    assert!(view::servers(&model, None)[1].ends_with("  -"));
}

#[test]
fn another_wsproxy_or_no_time_has_no_rates() {
    let mut model = busy();
    let list = json!({ "total": 3, "sessions": three([200, 1000, 400]) });
    // It was started again: it has run for a second.
    model.apply(Snapshot::read(Duration::from_secs(14), &status(1), &upstreams(), &list));
    assert_eq!(model.traffic.each, [Rates::default(); 3]);
    model.apply(Snapshot::read(Duration::from_secs(14), &status(1), &upstreams(), &list));
    assert_eq!(model.traffic.each, [Rates::default(); 3]);
    // Counters never go back.
    let list = json!({ "total": 3, "sessions": three([1, 2000, 400]) });
    model.apply(Snapshot::read(Duration::from_secs(16), &status(3), &upstreams(), &list));
    let bytes: Vec<_> = model.traffic.each.iter().map(|rates| rates.bytes[0]).collect();
    assert_eq!(bytes, [None, Some(500.0), Some(0.0)]);
}

#[test]
fn each_key_sorts_and_again_turns_it_round() {
    let mut model = busy();
    assert_eq!((model.sort, ids(&model)), (Sort::Rate, vec![2, 3, 1]));
    for (key, once, again) in [
        ('a', [1, 2, 3], [3, 2, 1]),
        ('b', [2, 3, 1], [1, 3, 2]),
        // Nothing is known of the second one's.
        ('t', [3, 1, 2], [1, 3, 2]),
        ('d', [2, 1, 3], [3, 1, 2]),
        ('r', [2, 3, 1], [1, 3, 2]),
    ] {
        type_in(&mut model, &key.to_string());
        assert_eq!(ids(&model), once, "{key}");
        type_in(&mut model, &key.to_string());
        assert_eq!(ids(&model), again, "{key} again");
        type_in(&mut model, &key.to_string());
        assert_eq!(ids(&model), once, "{key} a third time");
    }
}

#[test]
fn the_selection_is_a_session_and_no_row() {
    let mut model = busy();
    assert_eq!(selected(&model), None);
    press(&mut model, KeyCode::Down);
    assert_eq!(selected(&model), Some(2));
    press(&mut model, KeyCode::Down);
    assert_eq!(selected(&model), Some(3));
    // It becomes the last, and the selection with it.
    model.apply(snapshot(14, three([500, 1900, 300])));
    assert_eq!((ids(&model), selected(&model)), (vec![2, 1, 3], Some(3)));
    press(&mut model, KeyCode::Up);
    assert_eq!(selected(&model), Some(1));
    // It ends: nothing else is selected in its place, but the keys go on from there.
    model.apply(snapshot(16, three([500, 2900, 300]).split_off(1)));
    assert_eq!((ids(&model), selected(&model)), (vec![2, 3], None));
    press(&mut model, KeyCode::Down);
    assert_eq!(selected(&model), Some(3));
    press(&mut model, KeyCode::Home);
    assert_eq!(selected(&model), Some(2));
    press(&mut model, KeyCode::End);
    press(&mut model, KeyCode::Down);
    assert_eq!(selected(&model), Some(3));
    press(&mut model, KeyCode::Esc);
    assert_eq!(selected(&model), None);
    model.apply(snapshot(18, Vec::new()));
    for key in [KeyCode::Up, KeyCode::Down, KeyCode::PageDown, KeyCode::End] {
        press(&mut model, key);
        assert_eq!(selected(&model), None);
    }
}

#[test]
fn a_filter_looks_at_client_route_and_upstream() {
    let mut model = busy();
    for (text, left) in [
        ("192.0.2.1:3", vec![3]),
        ("EVEN", vec![2]),
        ("10.0.0.1:", vec![3, 1]),
        ("nothing", vec![]),
        // No key while a filter is written is an order.
        ("qcp?", vec![]),
    ] {
        type_in(&mut model, "/");
        type_in(&mut model, text);
        assert_eq!(ids(&model), left, "{text}");
        assert_eq!(press(&mut model, KeyCode::Enter), None);
        assert_eq!((&model.mode, ids(&model)), (&Mode::Normal, left), "{text}");
        press(&mut model, KeyCode::Esc);
        assert_eq!(ids(&model), [2, 3, 1]);
    }
    type_in(&mut model, "/odd!");
    press(&mut model, KeyCode::Backspace);
    assert_eq!((ids(&model), model.filter.as_str()), (vec![3, 1], "odd"));
    type_in(&mut model, &"x".repeat(100));
    assert_eq!(model.filter.len(), 64);
    press(&mut model, KeyCode::Esc);
    assert_eq!((&model.mode, model.filter.as_str()), (&Mode::Normal, ""));
    // What is filtered out is not selected any more.
    press(&mut model, KeyCode::Home);
    type_in(&mut model, "/odd");
    assert_eq!(selected(&model), None);
}

#[test]
fn only_yes_closes_and_only_what_was_asked_about() {
    let mut model = busy();
    type_in(&mut model, "c");
    assert_eq!((&model.mode, model.notice.is_some()), (&Mode::Normal, true));
    press(&mut model, KeyCode::Down);
    for no in [KeyCode::Char('n'), KeyCode::Esc, KeyCode::Enter, KeyCode::Char('q')] {
        type_in(&mut model, "c");
        assert!(matches!(&model.mode, Mode::Close(2, what) if what.contains("192.0.2.1:2")));
        assert_eq!(press(&mut model, no), None);
        assert_eq!(model.mode, Mode::Normal);
    }
    type_in(&mut model, "c");
    // It ends meanwhile, and another one stands there: the question is still about the first.
    model.apply(snapshot(14, three([110, 900, 300]).split_off(2)));
    assert_eq!(press(&mut model, KeyCode::Char('y')), Some(Action::Close(2)));
    assert_eq!(press(&mut model, KeyCode::Char('y')), None);
    // The only one shown needs no selection.
    type_in(&mut model, "c");
    assert_eq!(press(&mut model, KeyCode::Char('Y')), Some(Action::Close(3)));
}

#[test]
fn leaving_pausing_and_help() {
    let mut model = busy();
    let control_c = KeyEvent::new(KeyCode::Char('c'), KeyModifiers::CONTROL);
    for mode in [Mode::Normal, Mode::Filter, Mode::Help, Mode::Close(1, String::new())] {
        model.mode = mode;
        assert_eq!(model.press(control_c), Some(Action::Leave));
    }
    model.mode = Mode::Normal;
    let control_q = KeyEvent::new(KeyCode::Char('q'), KeyModifiers::CONTROL);
    assert_eq!(model.press(control_q), None);
    let released = KeyEvent { kind: KeyEventKind::Release, ..KeyEvent::from(KeyCode::Char('q')) };
    assert_eq!(model.press(released), None);
    type_in(&mut model, "p");
    assert!(model.paused && view::head(&model)[1].contains("PAUSED"));
    type_in(&mut model, "p?");
    assert!(!model.paused && model.mode == Mode::Help);
    assert!(screen(&mut model, 100, 30).iter().any(|line| line.starts_with("q, Ctrl-C")));
    assert_eq!(press(&mut model, KeyCode::Char('q')), None);
    assert_eq!(press(&mut model, KeyCode::Char('q')), Some(Action::Leave));
}

#[test]
fn the_head_counts_what_is_translated() {
    let mut model = busy();
    model.snapshot.status.translated = Some(2);
    let head = &screen(&mut model, 140, 30)[0];
    assert!(head.contains("sessions: 2 translated, 3 in the kernel, 0 relayed, 12"), "{head}");
}

#[test]
fn the_screen_shows_everything() {
    let mut model = busy();
    press(&mut model, KeyCode::Down);
    let expected = [
        "wsproxy 0.1.0  up 12s  datapath sockmap  sessions: 3 in the kernel, 0 relayed, 12 since the start",
        "to servers 50 msg/s 505 B/s   to clients - msg/s 1.0k B/s",
        "route  sessions  >msg/s  <msg/s  >B/s  <B/s",
        "/odd          2      10       -   105   210",
        "/even         1      40       -   400   800",
        "upstream  server         state     live  total  failures  waiting  >msg/s  <msg/s  >B/s  <B/s",
        "default   10.0.0.0:9000  up           2      9         4        5      40       -   400   800",
        "default   10.0.0.1:9000  draining     2      9         4        5      10       -   105   210",
        "3 of 3 sessions by rate",
        "id  client       route  upstream       path      age  >msg/s  <msg/s  >B/s  <B/s  bytes  ping c  ping s  div",
        " 2  192.0.2.1:2  /even  10.0.0.0:9000  kernel  1m38s      40       -   400   800   2.7k       -       -    2",
        " 3  192.0.2.1:3  /odd   10.0.0.1:9000  k/r     1m37s      10       -   100   200    900   3.0ms       -    0",
        " 1  192.0.2.1:1  /odd   10.0.0.1:9000  kernel  1m39s     0.5       -     5    10    330   1.0ms       -    1",
    ];
    let lines = screen(&mut model, 120, 24);
    assert_eq!(lines[..expected.len()], expected);
    assert_eq!(lines[23], "session 2: idle 1.5s, frames on, request req-1, closing -");
    let whole = view::whole(&model);
    let printed: Vec<_> = whole.lines().filter(|line| !line.is_empty()).collect();
    assert_eq!(printed, lines[..expected.len()]);
}

#[test]
fn the_selected_row_and_what_is_wrong_stand_out() {
    let mut model = busy();
    press(&mut model, KeyCode::End);
    model.trouble = Some("connection refused".to_owned());
    let mut terminal = Terminal::new(TestBackend::new(120, 24)).unwrap();
    terminal.draw(|frame| draw::draw(frame, &mut model)).unwrap();
    let buffer = terminal.backend().buffer();
    let text = |y: u16| (0..120).map(|x| buffer[(x, y)].symbol()).collect::<String>();
    let reversed = (0..24).filter(|&y| {
        // To the end of the line.
        [0, 119].iter().all(|&x| buffer[(x, y)].modifier.contains(Modifier::REVERSED))
    });
    let reversed: Vec<_> = reversed.map(text).collect();
    assert_eq!(reversed.len(), 2, "{reversed:?}");
    assert!(reversed[0].starts_with("NOT UP TO DATE, trying again: connection refused"));
    assert!(reversed[1].starts_with(" 1  192.0.2.1:1"));
    // The next good round ends it.
    model.apply(snapshot(14, three([110, 900, 300])));
    assert!(!screen(&mut model, 120, 24).join("\n").contains("NOT UP TO DATE"));
}

#[test]
fn a_long_list_follows_the_selection() {
    let mut model = Model::default();
    let sessions = |many: u64| (1..=many).map(|id| session(id, "192.0.2.1:1", 0)).collect();
    model.apply(snapshot(1, sessions(90)));
    type_in(&mut model, "a");
    let first = |model: &mut Model| {
        let lines = screen(model, 120, 20);
        let head = lines.iter().position(|line| line.contains("ping c")).unwrap();
        let rows = &lines[head + 1..19];
        let id = |line: &String| line.split_whitespace().next().unwrap().parse::<u64>().unwrap();
        assert!(rows.windows(2).all(|pair| id(&pair[0]) + 1 == id(&pair[1])), "{rows:?}");
        (id(&rows[0]), rows.len() as u64)
    };
    let (top, page) = first(&mut model);
    assert!(top == 1 && page >= 6, "{top} {page}");
    press(&mut model, KeyCode::End);
    assert_eq!(first(&mut model).0, 91 - page);
    press(&mut model, KeyCode::PageUp);
    assert_eq!((selected(&model), first(&mut model).0), (Some(90 - page), 90 - page));
    press(&mut model, KeyCode::Home);
    assert_eq!(first(&mut model).0, 1);
    press(&mut model, KeyCode::PageDown);
    assert_eq!((selected(&model), first(&mut model).0), (Some(1 + page), 2));
    press(&mut model, KeyCode::End);
    // Most are gone: the screen stays full.
    model.apply(snapshot(2, sessions(page + 1)));
    assert_eq!(first(&mut model).0, 2);
}

#[test]
fn a_list_that_was_cut_says_so() {
    let mut model = busy();
    let list = json!({ "total": 12_345, "sessions": three([110, 900, 300]) });
    model.apply(Snapshot::read(Duration::from_secs(14), &status(14), &upstreams(), &list));
    let text = screen(&mut model, 120, 24).join("\n");
    assert!(text.contains("3 of 12345 sessions by rate; wsproxy lists only 3"), "{text}");
    assert!(text.contains("to servers 0+ msg/s 0+ B/s   to clients - msg/s 0+ B/s"), "{text}");
    assert_eq!(text.lines().filter(|line| line.ends_with("  0+    0+")).count(), 4, "{text}");
}

#[test]
fn an_older_wsproxy_or_none_shows_dashes() {
    let mut model = Model::default();
    let list = json!({ "sessions": [{ "id": 7 }] });
    model.apply(Snapshot::read(Duration::ZERO, &Value::Null, &Value::Null, &list));
    let text = view::whole(&model);
    assert!(text.contains("wsproxy -  up -  datapath -  sessions: - in the kernel"), "{text}");
    let row = text.lines().last().unwrap().split_whitespace().collect::<Vec<_>>();
    assert_eq!(row[0], "7");
    assert_eq!(row[1..], ["-"; 13]);
}

#[test]
fn no_terminal_is_too_small() {
    let mut model = busy();
    let many = (0..50).map(|n| json!({ "name": format!("/\u{4e16}{n}"), "sessions": n }));
    let mut crowded = status(14);
    crowded["routes"] = many.collect();
    let list = json!({ "total": 3, "sessions": three([110, 900, 300]) });
    model.apply(Snapshot::read(Duration::from_secs(14), &crowded, &upstreams(), &list));
    model.trouble = Some("gone".to_owned());
    let modes = [Mode::Normal, Mode::Filter, Mode::Help, Mode::Close(1, "1".to_owned())];
    for mode in modes {
        model.mode = mode;
        for height in 0..26 {
            for width in [0, 1, 2, 3, 7, 20, 41, 80, 200] {
                press_arrow(&mut model);
                screen(&mut model, width, height);
            }
        }
    }
    // A table that has no room for all its rows says how many are left out.
    model.mode = Mode::Normal;
    let lines = screen(&mut model, 120, 24);
    assert!(lines.iter().any(|line| line.starts_with("... ") && line.ends_with(" more")));
    assert!(lines.iter().any(|line| line.starts_with(" 2  192.0.2.1:2")), "{lines:#?}");
    // The last line is what the operator is asked.
    model.mode = Mode::Close(1, "1 (a to b)".to_owned());
    assert_eq!(screen(&mut model, 40, 1), ["close session 1 (a to b)? y/n"]);
}

fn press_arrow(model: &mut Model) {
    model.select(super::model::Move::Down);
}

#[test]
fn what_names_hold_is_no_order_to_the_terminal() {
    let mut model = Model::default();
    let nasty = "\u{1b}]0;x\u{7}\r\n\u{9b}2J\u{202e}";
    let mut bad = session(1, nasty, 0);
    for key in ["route", "upstream", "frames", "closing", "request_id"] {
        bad[key] = json!(nasty);
    }
    let named = json!([{ "name": nasty, "servers": [{ "name": nasty, "state": nasty }] }]);
    let status = json!({ "version": nasty, "datapath": nasty, "routes": [{ "name": nasty }] });
    let list = json!({ "sessions": [bad] });
    model.apply(Snapshot::read(Duration::ZERO, &status, &named, &list));
    press(&mut model, KeyCode::Down);
    type_in(&mut model, "c");
    let question = view::foot(&model);
    press(&mut model, KeyCode::Esc);
    let texts = [question, view::foot(&model), view::whole(&model)];
    for text in texts {
        let steers = |c: char| c.is_control() && c != '\n' || c == '\u{202e}';
        assert!(!text.contains(steers), "{text:?}");
        assert!(text.contains("\\u{1b}]0;x"), "{text}");
    }
    let words = view::whole(&model);
    assert_eq!(words.lines().filter(|line| line.contains("\\u{1b}")).count(), 4, "{words}");
}
