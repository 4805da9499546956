//! The lines of the screen: what stands where, in words. Which are coloured is `draw`'s.

use super::{
    model::{Mode, Model},
    rates::{Rates, Totals},
    snapshot::{Carrier, Session, TO_CLIENT, TO_SERVER},
    text::{self, Column, count, dash, short, short_or_dash, sum},
};

/// `>` is to the server, `<` to the client.
const RATES: [&str; 4] = [">msg/s", "<msg/s", ">B/s", "<B/s"];

const ROUTES: [Column; 6] = [
    Column::name("route", 0),
    Column::number("sessions", 1),
    Column::number(RATES[0], 4),
    Column::number(RATES[1], 5),
    Column::number(RATES[2], 2),
    Column::number(RATES[3], 3),
];

const SERVERS: [Column; 11] = [
    Column::name("upstream", 2),
    Column::name("server", 0),
    Column::name("state", 1),
    Column::number("live", 3),
    Column::number("total", 6),
    Column::number("failures", 4),
    Column::number("waiting", 5),
    Column::number(RATES[0], 9),
    Column::number(RATES[1], 10),
    Column::number(RATES[2], 7),
    Column::number(RATES[3], 8),
];

const SESSIONS: [Column; 14] = [
    Column::number("id", 0),
    Column::name("client", 1),
    Column::name("route", 9),
    Column::name("upstream", 4),
    Column::name("path", 5),
    Column::number("age", 6),
    Column::number(RATES[0], 12),
    Column::number(RATES[1], 13),
    Column::number(RATES[2], 2),
    Column::number(RATES[3], 3),
    Column::number("bytes", 7),
    Column::number("ping c", 10),
    Column::number("ping s", 11),
    Column::number("div", 8),
];

/// Two lines: who this is, and what moves in all.
pub(super) fn head(model: &Model) -> [String; 2] {
    let status = &model.snapshot.status;
    let uptime = status.uptime_s.map_or_else(dash, text::age);
    let translated =
        status.translated.map_or_else(String::new, |count| format!("{count} translated, "));
    let who = format!(
        "wsproxy {}  up {uptime}  datapath {}  sessions: {translated}{} in the kernel, {} relayed, {} since the start",
        status.version,
        status.datapath,
        count(status.in_kernel),
        count(status.relayed),
        count(status.started),
    );
    let all = &model.traffic.all;
    let way = |at: usize| format!("{} msg/s {} B/s", sum(all.messages[at]), sum(all.bytes[at]));
    let paused = if model.paused { "   PAUSED (p goes on)" } else { "" };
    [who, format!("to servers {}   to clients {}{paused}", way(TO_SERVER), way(TO_CLIENT))]
}

/// Why there is nothing newer.
pub(super) fn trouble(model: &Model) -> Option<String> {
    let trouble = model.trouble.as_ref()?;
    Some(format!("NOT UP TO DATE, trying again: {trouble}"))
}

fn totals(totals: &Totals) -> [String; 4] {
    let [to_server, to_client] = totals.messages;
    [to_server, to_client, totals.bytes[TO_SERVER], totals.bytes[TO_CLIENT]].map(sum)
}

/// The routes, in the order of the configuration.
pub(super) fn routes(model: &Model, most: Option<usize>) -> Vec<String> {
    let traffic = &model.traffic;
    let rows = model.snapshot.status.routes.iter().map(|route| {
        let mut row = vec![route.name.clone(), count(route.sessions)];
        row.extend(totals(&traffic.of(&traffic.routes, &route.name)));
        row
    });
    text::table(&ROUTES, &rows.collect::<Vec<_>>(), most)
}

/// The servers, in the order of the configuration. One that is in several groups has the same
/// rates in each: those of all its sessions.
pub(super) fn servers(model: &Model, most: Option<usize>) -> Vec<String> {
    let traffic = &model.traffic;
    let rows = model.snapshot.servers.iter().map(|server| {
        let mut row = vec![server.group.clone(), server.name.clone(), server.state.clone()];
        let counts = [server.live, server.total, server.failures, server.waiting];
        row.extend(counts.map(count));
        row.extend(totals(&traffic.of(&traffic.servers, &server.name)));
        row
    });
    text::table(&SERVERS, &rows.collect::<Vec<_>>(), most)
}

/// One line: how many sessions the table has, and why not all.
pub(super) fn caption(model: &Model) -> String {
    let (total, listed) = (model.snapshot.total, model.snapshot.sessions.len());
    let turned = if model.reversed { ", the least first" } else { "" };
    let mut line =
        format!("{} of {total} sessions by {}{turned}", model.shown(), model.sort.label());
    if !model.filter.is_empty() && model.mode != Mode::Filter {
        line += &format!(", filter \"{}\"", model.filter);
    }
    if !model.snapshot.lists_all() {
        line += &format!("; wsproxy lists only {listed}, the longest: rates are theirs");
    }
    line
}

/// Who carries both directions, or each: kernel/relay, to the server first.
fn path(session: &Session) -> String {
    let word = |carrier: Option<Carrier>| match carrier {
        Some(Carrier::Kernel) => "kernel",
        Some(Carrier::Relay) => "relay",
        Some(Carrier::Packet) => "packet",
        None => "-",
    };
    let [to_server, to_client] = session.carriers;
    if to_server == to_client {
        return word(to_server).to_owned();
    }
    let letter = |carrier| word(carrier).chars().next().unwrap_or('-');
    format!("{}/{}", letter(to_server), letter(to_client))
}

fn row(session: &Session, rates: &Rates) -> Vec<String> {
    let bytes = session.bytes.into_iter().flatten().reduce(u64::saturating_add);
    let ping = |at: usize| session.ping_us[at].map_or_else(dash, text::round_trip);
    let mut row = vec![
        session.id.to_string(),
        session.client.clone(),
        session.route.clone(),
        session.upstream.clone(),
        path(session),
        session.age_s.map_or_else(dash, text::age),
    ];
    row.extend(rates.messages.map(short_or_dash));
    row.extend(rates.bytes.map(short_or_dash));
    row.push(bytes.map_or_else(dash, |bytes| short(bytes as f64)));
    row.extend([ping(0), ping(1), count(session.diversions)]);
    row
}

/// The head of the sessions' table and its lines.
pub(super) fn sessions<'a>(
    rows: impl Iterator<Item = (&'a Session, Rates, bool)>,
    most: Option<usize>,
) -> Vec<String> {
    let rows: Vec<_> = rows.map(|(session, rates, _)| row(session, &rates)).collect();
    text::table(&SESSIONS, &rows, most)
}

/// What the table has no room for, of the selected session.
fn details(session: &Session) -> String {
    let idle = session.idle_ms.map_or_else(dash, |ms| format!("{:.1}s", ms as f64 / 1e3));
    let or_dash = |text: &Option<String>| text.clone().unwrap_or_else(dash);
    format!(
        "session {}: idle {idle}, frames {}, request {}, closing {}",
        session.id,
        or_dash(&session.frames),
        or_dash(&session.request_id),
        or_dash(&session.closing),
    )
}

/// The last line: what is asked of the operator, or said, or what can be done.
pub(super) fn foot(model: &Model) -> String {
    const KEYS: &str = "q quit  ? help  / filter  r a b t d sort  c close  p pause";
    match (&model.mode, &model.notice) {
        (Mode::Filter, _) => format!("filter: {}_  (Enter keeps it, Esc clears it)", model.filter),
        (Mode::Close(_, what), _) => format!("close session {what}? y/n"),
        (_, Some(notice)) => notice.clone(),
        (Mode::Help, _) => "any key goes back".to_owned(),
        (Mode::Normal, None) => model.selected().map_or_else(|| KEYS.to_owned(), details),
    }
}

/// What the keys and the columns mean.
pub(super) const HELP: [&str; 24] = [
    "r a b t d     sort by rate, age, bytes, round trip, diversions; again: the other way round",
    "/             show only sessions whose client, route or upstream has a text; Esc clears it",
    "Up Down PageUp PageDown Home End   select a session; the selection stays with it; Esc ends it",
    "c             close the selected session, after a question",
    "p             pause: nothing changes until p is pressed again",
    "q, Ctrl-C     leave",
    "",
    "> is to the server, < to the client. 1k is 1000, 1M is 1000k.",
    "-             unknown: not seen twice yet, or this wsproxy does not tell",
    "5+            at least so much: of some sessions it is unknown",
    "~             a name was cut",
    "",
    "path          who moves the bytes; k/r: the kernel to the server, the relay to the client",
    "msg/s         messages; only of sessions whose frames are followed",
    "B/s           bytes, of a session or of all together",
    "bytes         both ways since the session began",
    "ping c        round trip of the last ping to the client",
    "ping s        the same to the server",
    "div           times that a direction was taken from the kernel",
    "waiting       handshakes that wait for a place in this upstream",
    "",
    "A server in several upstreams has the rates of all its sessions in each.",
    "Columns that have no room are left out: a wider terminal shows more.",
    "The list of sessions has 10,000 at most, the longest.",
];

/// Everything as text, with nothing cut: a frame for scripts.
pub(super) fn whole(model: &Model) -> String {
    let [who, traffic] = head(model);
    let blank = || vec![String::new()];
    let parts = [
        vec![who, traffic],
        blank(),
        routes(model, None),
        blank(),
        servers(model, None),
        blank(),
        vec![caption(model)],
        sessions(model.all(), None),
    ];
    parts.concat().iter().fold(String::new(), |text, line| text + line + "\n")
}
