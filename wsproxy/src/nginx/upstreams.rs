//! `[[upstream]]`: of `upstream` blocks, and of the hosts that `proxy_pass` names.

use std::collections::HashMap;

use super::dial::Dial;
use super::notes::Notes;
use super::parser::Directive;
use super::render::{Entries, Section, Value};
use super::units::{WAIT_MAX_MS, authority, duration, is_host_name, is_token, millis};

/// Port of a server without one.
const PORT: u16 = 80;

/// The upstreams that routes name.
#[derive(Debug)]
pub(super) struct Upstreams<'a> {
    blocks: HashMap<String, &'a Directive>,
    made: Vec<Made>,
}

#[derive(Debug)]
struct Made {
    name: String,
    /// The block or address that it is made of.
    target: String,
    dial: Dial,
    section: Section,
}

/// One `server` of a block.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
struct Server {
    address: String,
    weight: Option<u64>,
    max_connections: Option<u64>,
    backup: bool,
    disabled: bool,
    max_fails: Option<u64>,
    fail_timeout: Option<u64>,
    slow_start: Option<u64>,
}

impl<'a> Upstreams<'a> {
    pub(super) fn new(blocks: &[&'a Directive], notes: &Notes) -> Self {
        let mut map = HashMap::new();
        for block in blocks {
            if map.insert(block.arg(0).to_ascii_lowercase(), *block).is_some() {
                notes.unsupported(
                    block,
                    "an upstream of this name was there before: this one is used",
                );
            }
        }
        Self { blocks: map, made: Vec::new() }
    }

    /// Whether there is a block of this name.
    pub(super) fn has_block(&self, name: &str) -> bool {
        self.blocks.contains_key(&name.to_ascii_lowercase())
    }

    /// The name of the upstream for a block and a way to connect; none if no server is left.
    pub(super) fn block(&mut self, name: &str, dial: &Dial, notes: &Notes) -> Option<String> {
        let target = name.to_ascii_lowercase();
        let block = *self.blocks.get(&target)?;
        if let Some(name) = self.known(&target, dial) {
            return Some(name);
        }
        let mut section = Section::new("[[upstream]]");
        section.comments.push(block.origin());
        section.entries = read(block, dial, notes)?;
        Some(self.add(target, block.arg(0), dial, section))
    }

    /// The name of the upstream for one address: `host:port` or `unix:/path`.
    pub(super) fn address(&mut self, address: &str, dial: &Dial, why: &Directive) -> String {
        if let Some(name) = self.known(address, dial) {
            return name;
        }
        let mut section = Section::new("[[upstream]]");
        section.comments.push(why.origin());
        let servers = vec![with_scheme(address, dial)];
        section.entries.set("servers", servers);
        transparent(&mut section.entries, dial);
        self.add(address.to_owned(), address, dial, section)
    }

    fn known(&self, target: &str, dial: &Dial) -> Option<String> {
        let same = |made: &&Made| made.target == target && made.dial == *dial;
        self.made.iter().find(same).map(|made| made.name.clone())
    }

    fn add(&mut self, target: String, name: &str, dial: &Dial, mut section: Section) -> String {
        let taken = |name: &str| self.made.iter().any(|made| made.name == name);
        let mut free = name.to_owned();
        let mut number = 2;
        while taken(&free) {
            free = format!("{name}-{number}");
            number += 1;
        }
        section.entries.0.insert(0, ("name", free.as_str().into()));
        self.made.push(Made { name: free.clone(), target, dial: dial.clone(), section });
        free
    }

    /// The tables, and a note for each block that no location needs.
    pub(super) fn sections(self, notes: &Notes) -> Vec<Section> {
        for (target, block) in &self.blocks {
            if !self.made.iter().any(|made| made.target == *target) {
                notes.ignored(block, "left out: no location that was translated uses it");
            }
        }
        let mut sections = Vec::new();
        for made in self.made {
            sections.push(made.section);
            sections.extend(made.dial.section());
        }
        sections
    }
}

fn with_scheme(address: &str, dial: &Dial) -> String {
    let plain = !dial.tls || address.contains("://") || address.starts_with("unix:");
    if plain { address.to_owned() } else { format!("https://{address}") }
}

fn transparent(entries: &mut Entries, dial: &Dial) {
    if dial.transparent {
        entries.set("transparent", true);
    }
}

fn read(block: &Directive, dial: &Dial, notes: &Notes) -> Option<Entries> {
    let mut servers: Vec<Server> = Vec::new();
    let mut known = HashMap::new();
    for directive in block.children().iter().filter(|d| d.name == "server") {
        let Some(server) = server(directive, notes) else { continue };
        if known.insert(server.address.clone(), ()).is_some() {
            notes.changed(directive, "left out: the same server twice; raise its weight instead");
            continue;
        }
        servers.push(server);
    }
    if servers.iter().all(|server| server.disabled) {
        notes.unsupported(block, "no server that could be used: its routes answer 502");
        return None;
    }
    let mut entries = Entries::default();
    let list = servers.iter().map(|server| server.value(dial)).collect();
    entries.set("servers", Value::List(list));
    balance(block, &servers, &mut entries, notes);
    shared(block, &servers, &mut entries, notes);
    rest(block, &mut entries, notes);
    transparent(&mut entries, dial);
    Some(entries)
}

impl Server {
    fn value(&self, dial: &Dial) -> Value {
        let address = with_scheme(&self.address, dial);
        let mut pairs = vec![("address".to_owned(), address.as_str().into())];
        let mut put = |key: &str, value: Option<Value>| {
            pairs.extend(value.map(|value| (key.to_owned(), value)));
        };
        put("weight", self.weight.map(Value::from));
        put("backup", self.backup.then(|| true.into()));
        put("max_connections", self.max_connections.map(Value::from));
        put("disabled", self.disabled.then(|| true.into()));
        if pairs.len() == 1 { address.into() } else { Value::Table(pairs) }
    }
}

fn server(directive: &Directive, notes: &Notes) -> Option<Server> {
    let mut server = Server::default();
    let mut service = None;
    for option in directive.args.iter().skip(1) {
        let (name, value) = option.split_once('=').unwrap_or((option, ""));
        let number = || value.parse::<u64>().ok();
        let wait = || millis(value).map(|wait| wait.clamp(1, WAIT_MAX_MS));
        match name {
            "weight" => server.weight = number().map(|n| n.clamp(1, 1_000)),
            "max_conns" => {
                server.max_connections = number().filter(|n| *n > 0).map(|n| n.min(1_000_000));
            }
            "max_fails" => server.max_fails = number().map(|n| n.min(1_000)),
            "fail_timeout" => server.fail_timeout = wait(),
            "slow_start" => server.slow_start = wait(),
            "backup" => server.backup = true,
            "down" => server.disabled = true,
            "service" => service = Some(value),
            "resolve" => {
                notes.ignored(directive, "resolve: always done, see upstream.resolve");
            }
            _ => notes.unsupported(directive, format!("{option}: there is nothing like it here")),
        }
    }
    match address(directive.arg(0), service) {
        Some(address) => Some(Server { address, ..server }),
        None => {
            notes.unsupported(directive, "left out: not an address of a server");
            None
        }
    }
}

fn address(text: &str, service: Option<&str>) -> Option<String> {
    if let Some(path) = text.strip_prefix("unix:") {
        return (path.starts_with('/') && path.len() <= 107).then(|| text.to_owned());
    }
    let Some(service) = service else { return authority(text, PORT) };
    // `service=http` asks for `_http._tcp.name`; one with dots or `_` is the whole prefix.
    let prefix = match service.contains('.') || service.starts_with('_') {
        true => service.to_owned(),
        false => format!("_{service}._tcp"),
    };
    let name = format!("{prefix}.{text}").to_ascii_lowercase();
    is_host_name(&name).then(|| format!("srv://{name}"))
}

fn balance(block: &Directive, servers: &[Server], entries: &mut Entries, notes: &Notes) {
    const ANEW: &str = "clients are spread anew: most get another server than with nginx";
    for directive in block.children() {
        let word = match directive.name.as_str() {
            "least_conn" => "least_conn",
            "least_time" => {
                notes.changed(directive, "became least_conn: times are not compared");
                "least_conn"
            }
            "random" => "random",
            "ip_hash" => {
                notes.changed(directive, ANEW);
                "ip_hash"
            }
            "hash" => {
                let Some(key) = hash_key(directive.arg(0)) else {
                    let message = "left out: a hash is of the client's address, a header, a \
                                   cookie or a part of the query, see upstream.hash_key";
                    notes.unsupported(directive, message);
                    continue;
                };
                notes.changed(directive, ANEW);
                if !entries.has("balance") {
                    entries.set("balance", "hash");
                    entries.set("hash_key", key);
                }
                continue;
            }
            _ => continue,
        };
        if !entries.has("balance") {
            entries.set("balance", word);
        }
        if matches!(word, "ip_hash" | "random") && servers.iter().any(|server| server.backup) {
            let message = "nginx takes no `backup` beside it; here a backup server is used when \
                           no other is usable";
            notes.changed(directive, message);
        }
    }
}

fn hash_key(text: &str) -> Option<String> {
    let name = text.strip_prefix('$')?;
    if matches!(name, "remote_addr" | "binary_remote_addr") {
        return Some("client".to_owned());
    }
    let kinds = [("http_", "header"), ("cookie_", "cookie"), ("arg_", "query")];
    kinds.iter().find_map(|(prefix, kind)| {
        let rest = name.strip_prefix(prefix).filter(|rest| is_token(rest))?;
        let rest = if *kind == "header" { rest.replace('_', "-") } else { rest.to_owned() };
        Some(format!("{kind}:{rest}"))
    })
}

/// What nginx says of each server and we say of all.
fn shared(block: &Directive, servers: &[Server], entries: &mut Entries, notes: &Notes) {
    let one = |name: &'static str, of: &dyn Fn(&Server) -> Option<u64>| {
        let first = servers.iter().find_map(of)?;
        if servers.iter().any(|server| of(server) != Some(first)) {
            notes.changed(block, format!("{name} is the same for all servers: the first is taken"));
        }
        Some(first)
    };
    let max_fails = one("max_fails", &|server| server.max_fails);
    let fail_timeout = one("fail_timeout", &|server| server.fail_timeout);
    let slow_start = one("slow_start", &|server| server.slow_start);
    if let Some(cookie) = sticky(block, notes) {
        entries.set("sticky_cookie", cookie);
    }
    entries.set_if("max_fails", max_fails);
    entries.set_if("fail_timeout", fail_timeout.map(duration));
    entries.set_if("slow_start", slow_start.map(duration));
}

fn sticky(block: &Directive, notes: &Notes) -> Option<String> {
    let directive = block.children().iter().find(|d| d.name == "sticky")?;
    let name = directive.arg(1);
    if directive.arg(0) == "cookie" && is_token(name) {
        notes.changed(directive, "the cookie is another one: clients are spread anew");
        return Some(name.to_owned());
    }
    notes.unsupported(directive, "left out: only `sticky cookie NAME`, see upstream.sticky_cookie");
    None
}

fn rest(block: &Directive, entries: &mut Entries, notes: &Notes) {
    for directive in block.children() {
        let number = directive.arg(0).parse::<u64>().ok();
        match directive.name.as_str() {
            "keepalive" => {
                if let Some(number) = number {
                    entries.set("keepalive", number.min(10_000));
                }
            }
            "queue" => {
                entries.set_if("queue", number.map(|number| number.min(100_000)));
                let wait = directive.args.iter().find_map(|arg| arg.strip_prefix("timeout="));
                let wait = wait.and_then(millis).map(|wait| wait.clamp(1, WAIT_MAX_MS));
                entries.set_if("queue_timeout", wait.map(duration));
            }
            "server" | "least_conn" | "least_time" | "random" | "ip_hash" | "hash" | "sticky" => {}
            "zone" | "keepalive_timeout" | "keepalive_requests" | "keepalive_time" | "resolver"
            | "resolver_timeout" | "state" | "ntlm" => notes.ignored(directive, "not needed"),
            "check" | "health_check" => notes.unsupported(directive, "see [upstream.health]"),
            _ => notes.unsupported(directive, "there is nothing like it here"),
        }
    }
}
