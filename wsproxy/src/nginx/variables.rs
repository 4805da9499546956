//! nginx's variables in ours.

use std::rc::Rc;

use super::scope::Scope;

/// Most bytes of a translated text.
const TEXT_MAX: usize = 8 << 10;
/// Most `set` variables inside each other.
const SET_DEPTH: usize = 4;

/// A piece of a text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Part {
    Text(String),
    Variable(String),
}

/// The pieces of a text with `$name` and `${name}`.
pub(super) fn parts(text: &str) -> Vec<Part> {
    let mut list = Vec::new();
    let mut plain = String::new();
    let mut rest = text;
    while let Some(at) = rest.find('$') {
        plain.push_str(&rest[..at]);
        rest = &rest[at + 1..];
        let is_part = |b: &u8| b.is_ascii_alphanumeric() || *b == b'_';
        let braced = rest.strip_prefix('{').and_then(|inner| inner.split_once('}'));
        let (name, after) = match braced {
            Some(found) => found,
            None => rest.split_at(rest.bytes().take_while(is_part).count()),
        };
        if name.is_empty() {
            plain.push('$');
            continue;
        }
        if !plain.is_empty() {
            list.push(Part::Text(std::mem::take(&mut plain)));
        }
        list.push(Part::Variable(name.to_owned()));
        rest = after;
    }
    plain.push_str(rest);
    if !plain.is_empty() {
        list.push(Part::Text(plain));
    }
    list
}

/// Where a text stands: what its variables mean.
#[derive(Debug, Clone)]
pub(super) struct Variables<'a> {
    pub scope: Rc<Scope<'a>>,
    /// `$server_name`.
    pub server_name: Option<String>,
}

impl Variables<'_> {
    /// The text in our variables.
    ///
    /// # Errors
    ///
    /// The variable that we have not, with its dollar, or what else is wrong.
    pub(super) fn translated(&self, text: &str) -> Result<String, String> {
        let parts = joined(self.constants_in(parts(text), SET_DEPTH)?);
        let mut out = String::new();
        for (at, part) in parts.iter().enumerate() {
            match part {
                Part::Text(plain) => out.push_str(&plain.replace('$', "$$")),
                Part::Variable(name) => {
                    let ours = ours(name).ok_or_else(|| format!("${name}"))?;
                    let next = match parts.get(at + 1) {
                        Some(Part::Text(plain)) => plain.bytes().next(),
                        _ => None,
                    };
                    // A letter right behind the name would become a part of it.
                    match next.is_some_and(|b| b.is_ascii_alphanumeric() || b == b'_') {
                        true => out.push_str(&format!("${{{ours}}}")),
                        false => out.push_str(&format!("${ours}")),
                    }
                }
            }
        }
        if out.len() > TEXT_MAX || out.chars().any(|c| c.is_control() && c != '\t') {
            return Err("a text that is too long or has control characters".to_owned());
        }
        Ok(out)
    }

    /// The text with what `set` gave its variables; others stay.
    pub(super) fn with_constants(&self, text: &str) -> Vec<Part> {
        joined(self.constants_in(parts(text), SET_DEPTH).unwrap_or_else(|_| parts(text)))
    }

    fn constants_in(&self, parts: Vec<Part>, depth: usize) -> Result<Vec<Part>, String> {
        let mut list = Vec::new();
        let mut bytes = 0;
        for part in parts {
            let known = match &part {
                Part::Variable(name) if depth > 0 => self.constant(name),
                _ => None,
            };
            match known {
                Some(value) => list.extend(self.constants_in(self::parts(&value), depth - 1)?),
                None => list.push(part),
            }
            bytes = list.iter().map(size_of_part).sum::<usize>().max(bytes);
            if bytes > TEXT_MAX {
                return Err("a text that is too long".to_owned());
            }
        }
        Ok(list)
    }

    /// What the only `set` of a variable says.
    fn constant(&self, name: &str) -> Option<String> {
        if name == "server_name" {
            return self.server_name.clone();
        }
        let mut scope = Some(&*self.scope);
        while let Some(here) = scope {
            let mut sets = here.own("set").iter().filter(|set| set.arg(0).get(1..) == Some(name));
            if let Some(set) = sets.next() {
                return sets.next().is_none().then(|| set.arg(1).to_owned());
            }
            scope = here.parent();
        }
        None
    }
}

fn size_of_part(part: &Part) -> usize {
    match part {
        Part::Text(text) | Part::Variable(text) => text.len() + 1,
    }
}

/// With texts side by side as one, and `$uri$is_args$args` as what it is: the request's target.
fn joined(parts: Vec<Part>) -> Vec<Part> {
    let mut list: Vec<Part> = Vec::new();
    for part in parts {
        match (list.last_mut(), &part) {
            (Some(Part::Text(before)), Part::Text(text)) => before.push_str(text),
            _ => list.push(part),
        }
        if let [.., Part::Variable(uri), Part::Variable(is_args), Part::Variable(args)] = &list[..]
            && matches!(uri.as_str(), "uri" | "document_uri")
            && is_args == "is_args"
            && matches!(args.as_str(), "args" | "query_string")
        {
            list.truncate(list.len() - 3);
            list.push(Part::Variable("request_uri".to_owned()));
        }
    }
    list
}

fn ours(name: &str) -> Option<String> {
    let known = match name {
        "remote_addr" | "binary_remote_addr" => "client_ip",
        "remote_port" => "client_port",
        "host" => "host",
        "http_host" => "http_host",
        "scheme" => "scheme",
        "request_uri" => "request_uri",
        "uri" | "document_uri" => "path",
        "request_id" => "request_id",
        "proxy_add_x_forwarded_for" => "forwarded_for",
        "server_port" => "server_port",
        "ssl_server_name" => "tls_name",
        "ssl_protocol" => "tls_version",
        "args" | "query_string" => "query",
        "request_method" => "method",
        "upstream_addr" => "upstream",
        _ => {
            let rest = |prefix| name.strip_prefix(prefix).filter(|rest: &&str| !rest.is_empty());
            let header = rest("http_").map(|header| format!("header_{header}"));
            return header.or_else(|| rest("cookie_").map(|cookie| format!("cookie_{cookie}")));
        }
    };
    Some(known.to_owned())
}

#[cfg(test)]
mod tests {
    use super::super::notes::Notes;
    use super::super::parser;
    use super::super::scope::Level;
    use super::*;

    #[test]
    fn variables_become_ours() {
        let text = "set $a one; set $b \"$a-two\"; set $c 1; set $c 2; set $r \"$r$r\";";
        let tree = parser::parse(&|_| None, &Notes::default(), "n", text).unwrap();
        let scope = Scope::top(&tree).inner(Level::Server, &[]);
        let variables = Variables { scope, server_name: Some("s.example".to_owned()) };
        for (text, ours) in [
            ("", Ok("")),
            ("plain", Ok("plain")),
            ("$remote_addr", Ok("$client_ip")),
            ("${host}x", Ok("${host}x")),
            ("$host-x", Ok("$host-x")),
            ("https://$host$uri$is_args$args", Ok("https://$host$request_uri")),
            ("$http_user_agent;$cookie_a", Ok("$header_user_agent;$cookie_a")),
            ("a$", Ok("a$$")),
            ("$server_name/$b", Ok("s.example/one-two")),
            ("$c", Err("$c")),
            ("$r", Err("$r")),
            ("x$1", Err("$1")),
        ] {
            let expected = ours.map(str::to_owned).map_err(str::to_owned);
            assert_eq!(variables.translated(text), expected, "{text}");
        }
    }
}
