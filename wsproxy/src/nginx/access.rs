//! `allow`, `deny`, and what else keeps clients out.

use super::notes::Notes;
use super::parser::Directive;
use super::scope::Scope;
use super::units::{Network, network};

/// What keeps clients out of a route.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Access {
    pub allow: Vec<String>,
    pub deny: Vec<String>,
    /// Why nobody gets in, if something that we have not kept clients out.
    pub closed: Option<String>,
}

impl Access {
    /// Nobody gets in, for a reason that the first caller knows.
    pub(super) fn close(&mut self, why: &Directive) {
        self.closed.get_or_insert_with(|| why.origin());
    }

    /// `deny` of the route.
    pub(super) fn denied(&self) -> Vec<String> {
        match self.closed {
            Some(_) => everybody(),
            None => self.deny.clone(),
        }
    }
}

/// Every address.
pub(super) fn everybody() -> Vec<String> {
    vec!["0.0.0.0/0".to_owned(), "::/0".to_owned()]
}

/// Directives that ask for more than an address.
const AUTH: [&str; 5] =
    ["auth_basic", "auth_request", "auth_jwt", "access_by_lua_block", "access_by_lua_file"];

/// Who may use a location.
pub(super) fn of(scope: &Scope<'_>, notes: &Notes) -> Access {
    let mut access = rules(scope, notes);
    for name in AUTH {
        let Some(directive) = scope.find(name).filter(|d| d.arg(0) != "off") else { continue };
        access.close(directive);
        notes.unsupported(
            directive,
            "wsproxy cannot ask for this: nobody gets in (`deny`) until the application checks \
             its clients itself and you take that line out",
        );
    }
    access
}

/// The first rule that fits decides in nginx; here `deny` comes first, and `allow` is all there
/// is.
fn rules(scope: &Scope<'_>, notes: &Notes) -> Access {
    // Both are one list: the innermost block that has either.
    let mut here = Some(scope);
    while let Some(scope) = here {
        if scope.has("allow") || scope.has("deny") {
            break;
        }
        here = scope.parent();
    }
    let Some(scope) = here else { return Access::default() };
    let mut access = Access::default();
    let mut allowed: Vec<Network> = Vec::new();
    let mut denied: Vec<(&Directive, Network)> = Vec::new();
    let mut denied_before_allow = 0;
    let mut open = true;
    for rule in scope.either("allow", "deny") {
        if rule.arg(0) == "all" {
            open = rule.name == "allow";
            break;
        }
        let Some(found) = network(rule.arg(0)) else {
            unreadable(rule, &mut access, notes);
            continue;
        };
        if rule.name == "allow" {
            allowed.push(found);
            denied_before_allow = denied.len();
        } else {
            if allowed.iter().any(|allow| allow.overlaps(found)) {
                notes.changed(rule, "`deny` is looked at first here: it wins over the allow above");
            }
            denied.push((rule, found));
        }
    }
    if open {
        access.deny = denied.iter().map(|(_, found)| found.to_string()).collect();
    } else if allowed.is_empty() {
        access.deny = everybody();
    } else {
        // Those behind the last allow are refused anyway.
        let denied = &denied[..denied_before_allow];
        access.deny = denied.iter().map(|(_, found)| found.to_string()).collect();
        access.allow = allowed.iter().map(Network::to_string).collect();
    }
    access
}

fn unreadable(rule: &Directive, access: &mut Access, notes: &Notes) {
    notes.unsupported(rule, "left out: not a network or an address");
    // A refusal that cannot be said must not open the route; clients of Unix sockets have no
    // address.
    if rule.name == "deny" && rule.arg(0) != "unix:" {
        access.close(rule);
    }
}
