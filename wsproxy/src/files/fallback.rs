//! What is tried for a request, like nginx's `try_files`.

use std::fmt;
use std::str::FromStr;

use hyper::StatusCode;

use super::MAX_NAMES;
use super::path::RelPath;

/// One thing that is tried for a request.
///
/// - `$uri`: the file that the path names;
/// - `$uri/`: the directory that the path names. It is redirected to the form
///   with a slash, or answered with an index file, or 403 where it has none;
/// - `$uri.html`: the file with this at the end of its name;
/// - `/index.html`: this file, whatever the path, with status 200. The path is
///   relative to the root and not percent-encoded;
/// - `=404`: this status, from 400 to 599.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fallback(Kind);

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Kind {
    File,
    Directory,
    Suffixed(String),
    Path(RelPath),
    Status(StatusCode),
}

impl Fallback {
    /// Reads one fallback as it stands in the configuration.
    ///
    /// # Errors
    ///
    /// A sentence that says what is wrong with it.
    pub fn parse(text: &str) -> Result<Self, String> {
        let kind = if let Some(suffix) = text.strip_prefix("$uri") {
            of_uri(suffix)
        } else if let Some(code) = text.strip_prefix('=') {
            status(code).map(Kind::Status)
        } else if text.starts_with('/') {
            RelPath::from_config(text).map(Kind::Path)
        } else {
            Err("it must be \"$uri\", \"$uri/\", a path that starts with \"/\", or a status \
                 like \"=404\"")
        };
        kind.map(Self).map_err(|why| format!("fallback {text:?}: {why}"))
    }

    pub(super) fn kind(&self) -> &Kind {
        &self.0
    }
}

impl FromStr for Fallback {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        Self::parse(text)
    }
}

impl fmt::Display for Fallback {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.0 {
            Kind::File => out.write_str("$uri"),
            Kind::Directory => out.write_str("$uri/"),
            Kind::Suffixed(suffix) => write!(out, "$uri{suffix}"),
            Kind::Path(path) => write!(out, "/{}", path.as_str()),
            Kind::Status(status) => write!(out, "={}", status.as_u16()),
        }
    }
}

fn of_uri(suffix: &str) -> Result<Kind, &'static str> {
    match suffix {
        "" => Ok(Kind::File),
        "/" => Ok(Kind::Directory),
        _ if suffix.contains(['/', '$', '\0']) => {
            Err("after \"$uri\" only \"/\" or the end of a file name may follow")
        }
        _ => Ok(Kind::Suffixed(suffix.to_owned())),
    }
}

fn status(code: &str) -> Result<StatusCode, &'static str> {
    let number = code.parse::<u16>().ok().filter(|number| (400..600).contains(number));
    let status = number.and_then(|number| StatusCode::from_u16(number).ok());
    // "+404" is a number too.
    status.filter(|_| code.len() == 3).ok_or("after \"=\" a status from 400 to 599 must follow")
}

/// The fallbacks of one configuration, checked as a whole.
pub(super) fn chain(fallback: Vec<Fallback>) -> Result<Vec<Fallback>, String> {
    if fallback.is_empty() {
        return Ok(vec![Fallback(Kind::File), Fallback(Kind::Directory)]);
    }
    if fallback.len() > MAX_NAMES {
        return Err(format!("more than {MAX_NAMES} fallbacks"));
    }
    let last = fallback.len() - 1;
    match fallback.iter().position(|one| matches!(one.0, Kind::Status(_))) {
        Some(at) if at < last => Err(format!("fallback \"{}\": it must be the last", fallback[at])),
        _ => Ok(fallback),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn good_fallbacks_read_back_the_same() {
        for text in ["$uri", "$uri/", "$uri.html", "/index.html", "/a/b c.html", "=404", "=503"] {
            let fallback = Fallback::parse(text).unwrap();
            assert_eq!(fallback.to_string(), text);
        }
    }

    #[test]
    fn bad_fallbacks() {
        let bad = [
            "",
            "index.html",
            "$url",
            "$uri/index.html",
            "$uri$uri",
            "/",
            "/../x",
            "//x",
            "/a/",
            "=",
            "=200",
            "=600",
            "=+404",
            "=4040",
            "=abc",
            "@named",
        ];
        for text in bad {
            let why = Fallback::parse(text).unwrap_err();
            assert!(why.starts_with(&format!("fallback {text:?}: ")), "{why}");
        }
    }

    #[test]
    fn a_status_is_the_last() {
        let read = |texts: &[&str]| {
            chain(texts.iter().map(|text| Fallback::parse(text).unwrap()).collect())
        };
        assert!(read(&["$uri", "=404"]).is_ok());
        assert!(read(&["=404"]).is_ok());
        let why = read(&["=404", "$uri"]).unwrap_err();
        assert_eq!(why, "fallback \"=404\": it must be the last");
        assert!(read(&["$uri"; 17]).is_err());
        assert_eq!(read(&[]).unwrap(), read(&["$uri", "$uri/"]).unwrap());
    }
}
