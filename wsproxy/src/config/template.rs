//! Texts with variables: `https://$host$request_uri`.

use std::borrow::Cow;
use std::fmt;
use std::str::FromStr;

use super::problem::Invalid;
use super::suggest;

macro_rules! variables {
    ($($(#[$doc:meta])* $name:ident => $text:literal,)*) => {
        /// What a `$name` stands for.
        #[derive(Debug, Clone, PartialEq, Eq)]
        pub enum Variable {
            $($(#[$doc])* $name,)*
            /// `$header_NAME`: a header of the request, `-` for `_`.
            Header(String),
            /// `$cookie_NAME`: a cookie of the request.
            Cookie(String),
        }

        const NAMED: &[&str] = &[$($text),*];

        fn named(name: &str) -> Option<Variable> {
            match name {
                $($text => Some(Variable::$name),)*
                _ => None,
            }
        }

        impl fmt::Display for Variable {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                match self {
                    $(Self::$name => f.write_str(concat!("$", $text)),)*
                    Self::Header(name) => write!(f, "$header_{}", name.replace('-', "_")),
                    Self::Cookie(name) => write!(f, "$cookie_{name}"),
                }
            }
        }
    };
}

variables! {
    /// The client's address.
    ClientIp => "client_ip",
    /// The client's port.
    ClientPort => "client_port",
    /// `Host` without its port, in lower case.
    Host => "host",
    /// `Host` as it came.
    HttpHost => "http_host",
    /// `http` or `https`.
    Scheme => "scheme",
    /// The request's id.
    RequestId => "request_id",
    /// Path and query as they came.
    RequestUri => "request_uri",
    /// The path as it came.
    Path => "path",
    /// The query without its `?`.
    Query => "query",
    /// The method.
    Method => "method",
    /// The name that a TLS client asked for.
    TlsName => "tls_name",
    /// `TLSv1.2`, `TLSv1.3`.
    TlsVersion => "tls_version",
    /// The port of the listener.
    ServerPort => "server_port",
    /// The `X-Forwarded-For` that the upstream gets.
    ForwardedFor => "forwarded_for",
    /// The upstream server.
    Upstream => "upstream",
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Part {
    Text(String),
    Variable(Variable),
}

/// A text with variables.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Template {
    parts: Vec<Part>,
}

impl Template {
    /// The text, with what `value` says in the place of each variable.
    pub fn render<'v>(&self, value: impl Fn(&Variable) -> Cow<'v, str>) -> String {
        let mut text = String::new();
        for part in &self.parts {
            match part {
                Part::Text(plain) => text.push_str(plain),
                Part::Variable(variable) => text.push_str(&value(variable)),
            }
        }
        text
    }
}

impl FromStr for Template {
    type Err = Invalid;

    fn from_str(text: &str) -> Result<Self, Invalid> {
        if text.chars().any(|c| c.is_control() && c != '\t') {
            return Err(Invalid::new("a control character in it", "text on one line"));
        }
        let mut parts = Vec::new();
        let mut plain = String::new();
        let mut rest = text;
        while let Some(at) = rest.find('$') {
            plain.push_str(&rest[..at]);
            rest = &rest[at + 1..];
            if let Some(after) = rest.strip_prefix('$') {
                plain.push('$');
                rest = after;
                continue;
            }
            let (name, after) = cut_name(rest)?;
            rest = after;
            if !plain.is_empty() {
                parts.push(Part::Text(std::mem::take(&mut plain)));
            }
            parts.push(Part::Variable(variable(name)?));
        }
        plain.push_str(rest);
        if !plain.is_empty() {
            parts.push(Part::Text(plain));
        }
        Ok(Self { parts })
    }
}

/// `name` or `{name}` at the start of a text, and what follows it.
fn cut_name(text: &str) -> Result<(&str, &str), Invalid> {
    let is_part = |b: u8| b.is_ascii_alphanumeric() || b == b'_';
    if let Some(braced) = text.strip_prefix('{') {
        let malformed = || Invalid::new("a \"${\" without its \"}\"", "${name}");
        return braced.split_once('}').ok_or_else(malformed);
    }
    let length = text.bytes().take_while(|b| is_part(*b)).count();
    if length == 0 {
        return Err(Invalid::new("a \"$\" without a name behind it", "\"$$\" for a dollar"));
    }
    Ok(text.split_at(length))
}

fn variable(name: &str) -> Result<Variable, Invalid> {
    if let Some(known) = named(name) {
        return Ok(known);
    }
    let rest = |prefix| name.strip_prefix(prefix).filter(|rest: &&str| !rest.is_empty());
    if let Some(header) = rest("header_") {
        return Ok(Variable::Header(header.replace('_', "-")));
    }
    if let Some(cookie) = rest("cookie_") {
        return Ok(Variable::Cookie(cookie.to_owned()));
    }
    let expected = match suggest::nearest(name, NAMED.iter().copied()) {
        Some(meant) => format!("perhaps ${meant}"),
        None => format!("${}, $header_NAME or $cookie_NAME", NAMED.join(", $")),
    };
    Err(Invalid::new("an unknown variable", expected))
}

impl fmt::Display for Template {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for part in &self.parts {
            match part {
                Part::Text(plain) => f.write_str(&plain.replace('$', "$$"))?,
                Part::Variable(variable) => write!(f, "{variable}")?,
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rendered(text: &str) -> String {
        let template: Template = text.parse().unwrap();
        template.render(|variable| format!("<{variable}>").into())
    }

    #[test]
    fn variables_are_put_in() {
        for (text, shown) in [
            ("", ""),
            ("plain", "plain"),
            ("https://$host$request_uri", "https://<$host><$request_uri>"),
            ("${host}name $$5", "<$host>name $5"),
            ("$header_user_agent;$cookie_a", "<$header_user_agent>;<$cookie_a>"),
        ] {
            assert_eq!(rendered(text), shown, "{text}");
        }
    }

    #[test]
    fn what_is_no_variable_is_refused() {
        for text in ["$", "a$ b", "${host", "$hots", "$header_", "$1", "a\nb", "a\r"] {
            assert!(text.parse::<Template>().is_err(), "{text:?}");
        }
        let error = "$hosst".parse::<Template>().unwrap_err();
        assert_eq!(error.expected, "perhaps $host");
    }
}
