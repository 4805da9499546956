//! Headers of requests and answers.

use super::notes::Notes;
use super::parser::Directive;
use super::render::Entries;
use super::units::{authority, is_token};
use super::variables::Variables;

/// Most headers of one list.
const MOST: usize = 64;

/// The headers that say how a message is delimited and where the connection goes; wsproxy sets
/// them itself.
const OURS: [&str; 8] = [
    "connection",
    "content-length",
    "keep-alive",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
    "proxy-connection",
];

/// Changes of the request to the upstream: `host_header`, `set_` and `remove_request_headers`.
pub(super) fn request(
    variables: &Variables<'_>,
    proxy_pass: &Directive,
    is_group: bool,
    entries: &mut Entries,
    notes: &Notes,
) {
    let mut set: Vec<(String, String)> = Vec::new();
    let mut remove: Vec<String> = Vec::new();
    let mut host = None;
    for directive in variables.scope.all("proxy_set_header") {
        let (name, value) = (directive.arg(0), directive.arg(1));
        let lower = name.to_ascii_lowercase();
        if lower == "host" {
            host = Some((*directive, value));
        } else if !needs_saying(directive, &lower, variables, notes) {
        } else if value.is_empty() {
            remove.push(name.to_owned());
        } else if let Some(value) = translated(directive, value, variables, notes) {
            if value.is_empty() {
                remove.push(name.to_owned());
                continue;
            }
            set.retain(|(other, _)| !other.eq_ignore_ascii_case(name));
            set.push((name.to_owned(), value));
        }
    }
    if let Some(word) = host_header(host, proxy_pass, is_group, variables, notes) {
        entries.set("host_header", word);
    }
    bounded(&mut set, proxy_pass, notes);
    bounded(&mut remove, proxy_pass, notes);
    entries.set_some("set_request_headers", set);
    entries.set_some("remove_request_headers", remove);
}

fn bounded<T>(list: &mut Vec<T>, directive: &Directive, notes: &Notes) {
    if list.len() > MOST {
        notes.unsupported(directive, format!("more than {MOST} headers: the rest is left out"));
        list.truncate(MOST);
    }
}

/// Whether a header is neither one that is always sent nor one that cannot be changed.
fn needs_saying(
    directive: &Directive,
    name: &str,
    variables: &Variables<'_>,
    notes: &Notes,
) -> bool {
    if matches!(name, "upgrade" | "connection") {
        notes.ignored(directive, "not needed: always sent as the request needs it");
        return false;
    }
    if !changeable(directive, name, notes) {
        return false;
    }
    let trusts = variables.scope.all("set_real_ip_from").is_empty();
    let usual: &[&str] = match name {
        "x-real-ip" => &["$remote_addr"],
        "x-forwarded-for" if trusts => &["$proxy_add_x_forwarded_for", "$remote_addr"],
        "x-forwarded-for" => &["$proxy_add_x_forwarded_for"],
        "x-forwarded-proto" => &["$scheme"],
        "x-forwarded-host" => &["$host", "$http_host"],
        "x-request-id" => &["$request_id"],
        _ => &[],
    };
    let value = directive.arg(1);
    if usual.contains(&value) {
        notes.ignored(directive, "not needed: always sent");
        return false;
    }
    // A header that the client may have made up is believed from proxies alone.
    let same = format!("$http_{}", name.replace('-', "_"));
    if !usual.is_empty() && value == same {
        notes.changed(
            directive,
            "always sent; what comes in is believed of clients.trusted_proxies",
        );
        return false;
    }
    true
}

fn changeable(directive: &Directive, name: &str, notes: &Notes) -> bool {
    let message = if !is_token(name) {
        "left out: not a name of a header"
    } else if OURS.contains(&name) {
        "left out: wsproxy sets this header itself"
    } else if name.starts_with("sec-websocket-") {
        "left out: the headers of the handshake are passed on as they are"
    } else {
        return true;
    };
    notes.unsupported(directive, message);
    false
}

fn translated(
    directive: &Directive,
    value: &str,
    variables: &Variables<'_>,
    notes: &Notes,
) -> Option<String> {
    match variables.translated(value) {
        Ok(value) => Some(value),
        Err(what) => {
            notes.unsupported(directive, format!("left out: {what} is not known here"));
            None
        }
    }
}

fn host_header(
    given: Option<(&Directive, &str)>,
    proxy_pass: &Directive,
    is_group: bool,
    variables: &Variables<'_>,
    notes: &Notes,
) -> Option<String> {
    let (directive, value) = given.unwrap_or((proxy_pass, "$proxy_host"));
    match value {
        "$host" | "$http_host" | "$host:$server_port" | "$http_host:$server_port" => {
            notes.ignored(directive, "not needed: the client's Host is kept");
            return None;
        }
        "$proxy_host" | "$proxy_host:$proxy_port" => {
            if is_group {
                let message = "the upstream gets the address of its server as Host, where nginx \
                               sends the name of the group; leave host_header out to send the \
                               client's";
                notes.changed(directive, message);
            }
            return Some("upstream".to_owned());
        }
        _ => {}
    }
    match variables.translated(value) {
        // Both words mean something else in `host_header`.
        Ok(fixed) if authority(&fixed, 80).is_some() && !matches!(&*fixed, "keep" | "upstream") => {
            Some(fixed)
        }
        _ => {
            let message = "the Host is the client's, the server's or a fixed one: see \
                           route.host_header; the client's is kept";
            notes.unsupported(directive, message);
            None
        }
    }
}

/// Changes of the answer to the client.
pub(super) fn response(variables: &Variables<'_>, entries: &mut Entries, notes: &Notes) {
    let mut set: Vec<(String, String)> = Vec::new();
    let mut add: Vec<(String, String)> = Vec::new();
    for directive in variables.scope.all("add_header") {
        let (name, value) = (directive.arg(0), directive.arg(1));
        let lower = name.to_ascii_lowercase();
        if !changeable(directive, &lower, notes) || value.is_empty() {
            continue;
        }
        let value = translated(directive, value, variables, notes);
        let Some(value) = value.filter(|value| !value.is_empty()) else { continue };
        if directive.arg(2) != "always" {
            notes.changed(directive, "added to every answer, as nginx does with `always`");
        }
        if add.iter().any(|(other, _)| other.eq_ignore_ascii_case(name)) {
            notes.unsupported(directive, "left out: a header is added once");
        } else if lower == "content-type" {
            set.push((name.to_owned(), value));
        } else {
            add.push((name.to_owned(), value));
        }
    }
    set.truncate(1);
    if let Some(first) = variables.scope.find("add_header") {
        bounded(&mut add, first, notes);
    }
    entries.set_some("set_response_headers", set);
    entries.set_some("add_response_headers", add);
}

/// Headers of the upstream that the client does not get.
pub(super) fn hidden(variables: &Variables<'_>, entries: &mut Entries, notes: &Notes) {
    let mut remove: Vec<String> = Vec::new();
    for directive in variables.scope.all("proxy_hide_header") {
        let name = directive.arg(0);
        let known = remove.iter().any(|other| other.eq_ignore_ascii_case(name));
        if !known && changeable(directive, &name.to_ascii_lowercase(), notes) {
            remove.push(name.to_owned());
        }
        if remove.len() > MOST {
            bounded(&mut remove, directive, notes);
        }
    }
    entries.set_some("remove_response_headers", remove);
}
