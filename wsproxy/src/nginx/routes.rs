//! `[[route]]`: of locations, and of what a server does without one.

use std::collections::HashSet;
use std::rc::Rc;

use super::access::{self, Access};
use super::conditions::{self, Checks, Maps, Split};
use super::drafts::{Draft, Drafts, everything, nobody, status};
use super::limits::{self, Zones};
use super::listeners::{Listener, Share};
use super::lost::Lost;
use super::notes::Notes;
use super::parser::Directive;
use super::pattern::{self, Kind, Pattern};
use super::redirect::{self, Rewrite};
use super::render::{Entries, Section};
use super::scope::{Level, Scope};
use super::servers::Server;
use super::upstreams::Upstreams;
use super::variables::Variables;
use super::{files, forward, headers};

/// Most routes of our configuration.
const MOST: usize = 1_024;

/// Directives that answer a request in a way that we have not.
const OTHER_HANDLERS: [&str; 9] = [
    "fastcgi_pass",
    "uwsgi_pass",
    "scgi_pass",
    "grpc_pass",
    "memcached_pass",
    "stub_status",
    "empty_gif",
    "content_by_lua_block",
    "content_by_lua_file",
];

/// A route.
#[derive(Debug)]
struct Route {
    share: Share,
    draft: Draft,
}

/// The routes of all servers.
#[derive(Debug)]
pub(super) struct Routes<'c, 'a> {
    pub notes: &'c Notes,
    pub zones: &'c Zones<'a>,
    pub maps: &'c Maps<'a>,
    pub upstreams: &'c mut Upstreams<'a>,
    list: Vec<Route>,
    /// Listener, host, path, exact.
    taken: HashSet<(usize, String, String, bool)>,
}

impl<'c, 'a> Routes<'c, 'a> {
    pub(super) fn new(
        notes: &'c Notes,
        zones: &'c Zones<'a>,
        maps: &'c Maps<'a>,
        upstreams: &'c mut Upstreams<'a>,
    ) -> Self {
        Self { notes, zones, maps, upstreams, list: Vec::new(), taken: HashSet::new() }
    }

    /// Adds the routes of a server.
    pub(super) fn add(&mut self, server: &Server<'a>, shares: &[Share], listeners: &[Listener]) {
        if shares.is_empty() {
            return;
        }
        let mut drafts = Drafts::default();
        self.of_server(server, &mut drafts);
        for (host, draft) in &drafts.hosts {
            for share in shares {
                let share = Share { hosts: vec![host.clone()], ..share.clone() };
                self.push(share, draft, server);
            }
        }
        for share in shares {
            let named = !share.hosts.is_empty();
            let left = |host: &String| !drafts.hosts.iter().any(|(own, _)| own == host);
            let hosts: Vec<String> = share.hosts.iter().filter(|h| left(h)).cloned().collect();
            if named && hosts.is_empty() {
                continue;
            }
            let (tls, plain): (Vec<usize>, Vec<usize>) =
                share.listeners.iter().partition(|at| listeners[**at].tls);
            let groups = match &drafts.plain {
                Some(draft) => {
                    vec![(tls, drafts.main.as_slice()), (plain, std::slice::from_ref(draft))]
                }
                None => vec![(share.listeners.clone(), drafts.main.as_slice())],
            };
            for (listeners, drafts) in groups {
                if listeners.is_empty() {
                    continue;
                }
                for draft in drafts {
                    let share = Share { listeners: listeners.clone(), hosts: hosts.clone() };
                    self.push(share, draft, server);
                }
            }
        }
    }

    fn push(&mut self, share: Share, draft: &Draft, server: &Server<'_>) {
        if self.list.len() >= MOST {
            let message = format!("more than {MOST} routes: the rest of it is left out");
            self.notes.unsupported(server.directive, message);
            return;
        }
        let Pattern { path, exact, .. } = &draft.pattern;
        let hosts: Vec<&str> = match share.hosts.as_slice() {
            [] => vec![""],
            hosts => hosts.iter().map(String::as_str).collect(),
        };
        let mut keys = Vec::new();
        for listener in &share.listeners {
            let key = |host: &&str| (*listener, (*host).to_owned(), path.clone(), *exact);
            keys.extend(hosts.iter().map(key));
        }
        if keys.iter().any(|key| self.taken.contains(key)) {
            let message = format!(
                "the route of line {} for {path} is left out: there is one \
                                   for this path already",
                draft.line
            );
            self.notes.changed(server.directive, message);
            return;
        }
        self.taken.extend(keys);
        self.list.push(Route { share, draft: draft.clone() });
    }

    fn of_server(&mut self, server: &Server<'a>, drafts: &mut Drafts<'a>) {
        let scope = &server.scope;
        let variables =
            Variables { scope: Rc::clone(scope), server_name: server.names.first().cloned() };
        let mut ifs: Vec<&'a Directive> = Vec::new();
        for directive in scope.own("if") {
            match (conditions::split(directive), conditions::only_return(directive)) {
                (Some(split), Some(what)) => {
                    let Some(entries) = self.sent_away(what, &variables) else { continue };
                    let draft = Draft::new(everything(), directive, entries);
                    match split {
                        Split::Host(host) => drafts.hosts.push((host, draft)),
                        Split::Plain => drafts.plain = Some(draft),
                    }
                }
                _ => ifs.push(directive),
            }
        }
        if let Some(directive) = scope.own("return").first() {
            let entries = redirect::of_return(directive, &variables, self.notes);
            drafts.main.push(self.finished(entries, directive, everything(), &variables, &ifs));
            self.note_unreached(scope);
            return;
        }
        for directive in scope.own("rewrite") {
            match redirect::of_rewrite(directive, &variables, self.notes) {
                Rewrite::All(entries) => {
                    let pattern = everything();
                    drafts.main.push(self.finished(entries, directive, pattern, &variables, &ifs));
                    self.note_unreached(scope);
                    return;
                }
                Rewrite::Path(path, entries) => {
                    let pattern = Pattern::exact(path);
                    drafts.main.push(self.finished(entries, directive, pattern, &variables, &ifs));
                }
                Rewrite::Replace(..) => self.notes.unsupported(
                    directive,
                    "left out: see route.rewrite of the route with this path",
                ),
                Rewrite::Other => {}
            }
        }
        self.locations(scope, &variables, &ifs, drafts);
        self.rest_of(server, &variables, &ifs, drafts);
        for draft in &mut drafts.main {
            draft.close_for(&drafts.lost, self.notes);
        }
    }

    /// The answer of a block that does nothing but send away or refuse.
    fn sent_away(&self, directive: &Directive, variables: &Variables<'_>) -> Option<Entries> {
        if directive.name == "return" {
            return Some(redirect::of_return(directive, variables, self.notes));
        }
        match redirect::of_rewrite(directive, variables, self.notes) {
            Rewrite::All(entries) => Some(entries),
            _ => None,
        }
    }

    fn note_unreached(&self, scope: &Scope<'_>) {
        for location in scope.own("location") {
            self.notes.ignored(location, "left out: the server answers before any location");
        }
    }

    fn locations(
        &mut self,
        scope: &Rc<Scope<'a>>,
        variables: &Variables<'a>,
        ifs: &[&'a Directive],
        drafts: &mut Drafts<'a>,
    ) {
        for directive in scope.own("location") {
            let Kind::Path(pattern) = pattern::of_location(directive, self.notes) else {
                drafts.lost.extend(Lost::of(directive));
                continue;
            };
            let inner = scope.inner(Level::Location, directive.children());
            let variables = Variables { scope: Rc::clone(&inner), ..variables.clone() };
            let draft = if inner.has("internal") {
                self.notes.ignored(directive, "answers 404: only nginx itself goes there");
                Draft::new(pattern, directive, status(404))
            } else {
                self.location(directive, pattern, &variables, ifs)
            };
            drafts.main.push(draft);
            self.locations(&inner, &variables, ifs, drafts);
        }
    }

    /// What a server does with requests that no location takes.
    fn rest_of(
        &mut self,
        server: &Server<'a>,
        variables: &Variables<'a>,
        ifs: &[&'a Directive],
        drafts: &mut Drafts<'a>,
    ) {
        if drafts.main.iter().any(|draft| draft.pattern == everything()) {
            return;
        }
        let scope = &server.scope;
        if let Some(named) = self.backend(scope) {
            let draft = self.location(named, everything(), variables, ifs);
            drafts.main.push(draft);
            return;
        }
        let Some(root) = scope.find("root") else {
            if drafts.main.is_empty() && drafts.hosts.is_empty() && drafts.plain.is_none() {
                let message = "it does nothing that was translated: its hosts are answered 404";
                self.notes.unsupported(server.directive, message);
            }
            return;
        };
        if let Some(entries) = files::of(scope, &everything(), self.notes) {
            let draft = self.finished(entries, root, everything(), variables, ifs);
            drafts.main.push(draft);
        }
    }

    /// The named location that gets what is no file, if `try_files` ends with one.
    fn backend(&self, scope: &Scope<'a>) -> Option<&'a Directive> {
        let tries = scope.own("try_files").last()?;
        let name = tries.args.last().filter(|name| name.starts_with('@'))?;
        let found = scope.server().own("location").iter().find(|l| l.arg(0) == name)?;
        self.notes.changed(
            tries,
            "everything goes to the upstream: files are not tried first; make a [[route]] with \
             `files` for the paths of static files",
        );
        Some(found)
    }

    fn location(
        &mut self,
        directive: &'a Directive,
        pattern: Pattern,
        variables: &Variables<'a>,
        ifs: &[&'a Directive],
    ) -> Draft {
        let scope = &variables.scope;
        if let Some(named) = self.backend(scope) {
            let server = Rc::clone(scope);
            let inner = server.inner(Level::Location, named.children());
            let variables = Variables { scope: inner, ..variables.clone() };
            let mut draft = self.plain_location(named, pattern, &variables, ifs);
            draft.comments.insert(0, directive.origin());
            return draft;
        }
        self.plain_location(directive, pattern, variables, ifs)
    }

    fn plain_location(
        &mut self,
        directive: &'a Directive,
        pattern: Pattern,
        variables: &Variables<'a>,
        server_ifs: &[&'a Directive],
    ) -> Draft {
        let scope = &variables.scope;
        let ifs = [server_ifs, scope.own("if")].concat();
        if let Some(answer) = scope.own("return").first() {
            let entries = redirect::of_return(answer, variables, self.notes);
            return self.finished(entries, directive, pattern, variables, &ifs);
        }
        let mut replaced = None;
        for rewrite in scope.own("rewrite") {
            match redirect::of_rewrite(rewrite, variables, self.notes) {
                Rewrite::All(entries) => {
                    return self.finished(entries, directive, pattern, variables, &ifs);
                }
                Rewrite::Replace(from, to) if fits(&from, &pattern) && scope.has("proxy_pass") => {
                    replaced = Some(to);
                }
                Rewrite::Path(path, entries) if path == pattern.path && pattern.exact => {
                    return self.finished(entries, directive, pattern, variables, &ifs);
                }
                Rewrite::Other => {}
                _ => self.notes.unsupported(
                    rewrite,
                    "left out: it is not about the whole path of this location; see route.rewrite",
                ),
            }
        }
        if let Some(proxy_pass) = scope.own("proxy_pass").last().copied() {
            return self.proxied(directive, proxy_pass, pattern, replaced, variables, &ifs);
        }
        let entries = self.local(directive, &pattern, scope);
        self.finished(entries, directive, pattern, variables, &ifs)
    }

    /// A location without an upstream.
    fn local(&self, directive: &Directive, pattern: &Pattern, scope: &Scope<'a>) -> Entries {
        limits::without_sessions(scope, self.notes);
        let other = OTHER_HANDLERS.iter().find_map(|name| scope.own(name).first());
        if let Some(handler) = other {
            let message = match handler.name.as_str() {
                "stub_status" => "answers 501: numbers are at /metrics of admin.address",
                _ => "answers 501: only HTTP servers, files and fixed answers are there",
            };
            self.notes.unsupported(handler, message);
            return status(501);
        }
        if let Some(entries) = files::of(scope, pattern, self.notes) {
            return entries;
        }
        self.notes.unsupported(directive, "it has neither proxy_pass nor a root: answers 404");
        status(404)
    }

    fn proxied(
        &mut self,
        directive: &Directive,
        proxy_pass: &'a Directive,
        pattern: Pattern,
        replaced: Option<String>,
        variables: &Variables<'a>,
        ifs: &[&'a Directive],
    ) -> Draft {
        let scope = &variables.scope;
        let (mut access, checks) = self.guards(access::of(scope, self.notes), ifs);
        if let Some(limit) = scope.find("limit_except") {
            access.close(limit);
            let message = "methods are not looked at: nobody gets in (`deny`) until the \
                           application does and you take that line out";
            self.notes.unsupported(limit, message);
        }
        let made =
            forward::of(proxy_pass, variables, &pattern, self.upstreams, &checks, self.notes);
        let Some(mut entries) = made else {
            let entries = status(if self.upstreams_down(proxy_pass) { 502 } else { 501 });
            return self.closed_or_open(entries, directive, pattern, variables, &access);
        };
        if let Some(to) = replaced
            && !entries.has("rewrite")
        {
            entries.0.insert(1, ("rewrite", to.into()));
        }
        self.zones.of_route(scope, &mut entries, self.notes);
        headers::hidden(variables, &mut entries, self.notes);
        self.closed_or_open(entries, directive, pattern, variables, &access)
    }

    fn upstreams_down(&self, proxy_pass: &Directive) -> bool {
        let url = proxy_pass.arg(0);
        let host = url.split_once("://").map_or("", |(_, rest)| rest);
        self.upstreams.has_block(host.split('/').next().unwrap_or(host))
    }

    /// What `if` blocks ask, beside what `access` does.
    fn guards(&self, mut access: Access, ifs: &[&'a Directive]) -> (Access, Checks) {
        let mut checks = Checks::default();
        for directive in ifs {
            conditions::add(directive, self.maps, &mut checks, &mut access, self.notes);
        }
        (access, checks)
    }

    /// A route that is not to an upstream.
    fn finished(
        &self,
        entries: Entries,
        directive: &Directive,
        pattern: Pattern,
        variables: &Variables<'a>,
        ifs: &[&'a Directive],
    ) -> Draft {
        // `return` comes before `allow`, `deny` and passwords in nginx, behind `if`.
        let answers = entries.has("redirect") || entries.has("respond");
        let access =
            if answers { Access::default() } else { access::of(&variables.scope, self.notes) };
        let (mut access, checks) = self.guards(access, ifs);
        if checks.origins.is_some()
            && let Some(why) = ifs.first()
        {
            access.close(why);
            let message = "origins are those of handshakes with an upstream: nobody gets in";
            self.notes.unsupported(why, message);
        }
        self.closed_or_open(entries, directive, pattern, variables, &access)
    }

    fn closed_or_open(
        &self,
        mut entries: Entries,
        directive: &Directive,
        pattern: Pattern,
        variables: &Variables<'a>,
        access: &Access,
    ) -> Draft {
        entries.set_some("allow", access.allow.clone());
        entries.set_some("deny", access.denied());
        headers::response(variables, &mut entries, self.notes);
        let mut draft = Draft::new(pattern, directive, entries);
        if let Some(why) = &access.closed {
            draft.comments.push(nobody(why));
        }
        draft
    }

    /// The tables of the routes.
    pub(super) fn sections(self, listeners: &[Listener]) -> Vec<Section> {
        let section = |Route { share, draft }: Route| {
            let mut section = Section { comments: draft.comments, ..Section::new("[[route]]") };
            if share.listeners.len() < listeners.len() {
                let name = |at: &usize| listeners[*at].name.clone();
                section
                    .entries
                    .set_some("listeners", share.listeners.iter().map(name).collect::<Vec<_>>());
            }
            section.entries.set_some("hosts", share.hosts);
            section.entries.set("path", draft.pattern.path);
            if draft.pattern.exact {
                section.entries.set("exact", true);
            }
            section.entries.0.extend(draft.entries.0);
            section
        };
        self.list.into_iter().map(section).collect()
    }
}

/// Whether a prefix that a `rewrite` takes away is that of the location.
fn fits(from: &str, pattern: &Pattern) -> bool {
    !pattern.exact && pattern.path.trim_end_matches('/') == from.trim_end_matches('/')
}
