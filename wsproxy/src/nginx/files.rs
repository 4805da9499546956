//! `root`, `alias`, `index` and `try_files`.
//!
//! A route with `files` looks below its directory for what stands behind its path, like `alias`.

use super::notes::Notes;
use super::parser::Directive;
use super::pattern::Pattern;
use super::render::Entries;
use super::scope::Scope;
use super::units::absolute;

/// Where nginx looks for a relative root, as Linux packages build it.
const PREFIX: &str = "/usr/share/nginx";
/// Most names of a list.
const MOST: usize = 16;

/// The keys of a location that serves files; none if it has no directory.
pub(super) fn of(scope: &Scope<'_>, pattern: &Pattern, notes: &Notes) -> Option<Entries> {
    let path = decoded(&pattern.path);
    let alias = scope.own("alias").last().copied();
    let (directive, place) = match alias {
        Some(directive) => (directive, aliased(directive, pattern, &path, notes)?),
        None => {
            let directive = scope.find("root")?;
            (directive, rooted(directory(directive, notes)?, pattern, &path))
        }
    };
    if alias.is_none() && path != "/" && !pattern.exact {
        let message = format!("with the path behind it: {} for {}", place.directory, pattern.path);
        notes.changed(directive, message);
    }
    let mut entries = Entries::default();
    entries.set("files", place.directory.as_str());
    entries.set_some("index", index(scope, notes));
    let mut fallback = fallback(scope, &place.mount, notes);
    if fallback.is_empty() {
        fallback.extend(place.file);
    }
    entries.set_some("fallback", fallback);
    Some(entries)
}

/// A directory, and how paths lie in it.
#[derive(Debug, PartialEq, Eq)]
struct Place {
    directory: String,
    /// The path that is the directory.
    mount: String,
    /// The only file, below the directory.
    file: Option<String>,
}

/// `root`: the whole path lies below it.
fn rooted(root: String, pattern: &Pattern, path: &str) -> Place {
    let file = (pattern.exact && !path.ends_with('/')).then(|| path.to_owned());
    if file.is_some() || path == "/" {
        return Place { directory: root, mount: "/".to_owned(), file };
    }
    let directory = format!("{}{}", root.trim_end_matches('/'), path.trim_end_matches('/'));
    Place { directory, mount: path.to_owned(), file: None }
}

/// `alias`: what is behind the location's path lies below it.
fn aliased(directive: &Directive, pattern: &Pattern, path: &str, notes: &Notes) -> Option<Place> {
    let alias = directory(directive, notes)?;
    if pattern.exact && !path.ends_with('/') {
        let (directory, file) = alias.rsplit_once('/')?;
        let directory = if directory.is_empty() { "/" } else { directory }.to_owned();
        return Some(Place { directory, mount: "/".to_owned(), file: Some(format!("/{file}")) });
    }
    Some(Place { directory: alias, mount: path.to_owned(), file: None })
}

fn directory(directive: &Directive, notes: &Notes) -> Option<String> {
    let text = directive.arg(0);
    let Some(path) = absolute(text, PREFIX) else {
        notes.unsupported(directive, "left out: a directory is a path without variables");
        return None;
    };
    if !text.starts_with('/') {
        notes.changed(directive, format!("a relative path: taken as below {PREFIX}"));
    }
    let path = if path.len() > 1 { path.trim_end_matches('/') } else { &path };
    Some(if path.is_empty() { "/" } else { path }.to_owned())
}

fn index(scope: &Scope<'_>, notes: &Notes) -> Vec<String> {
    let mut list: Vec<String> = Vec::new();
    for directive in scope.all("index") {
        for name in &directive.args {
            if name.is_empty() || name.contains(['/', '$']) || name.starts_with('.') {
                notes.unsupported(
                    directive,
                    format!("{name}: left out: not a plain name of a file"),
                );
            } else if list.len() < MOST && !list.contains(name) {
                list.push(name.clone());
            }
        }
    }
    list
}

fn fallback(scope: &Scope<'_>, mount: &str, notes: &Notes) -> Vec<String> {
    let mut list: Vec<String> = Vec::new();
    let Some(directive) = scope.own("try_files").last() else { return list };
    for text in directive.args.iter().take(MOST) {
        match tried(text, mount) {
            Ok(text) => list.push(text),
            Err(why) => notes.unsupported(directive, format!("{text}: left out: {why}")),
        }
    }
    // A status ends the list.
    if let Some(at) = list.iter().position(|text| text.starts_with('=')) {
        list.truncate(at + 1);
    }
    list
}

fn tried(text: &str, mount: &str) -> Result<String, &'static str> {
    if matches!(text, "$uri" | "$uri/") {
        return Ok(text.to_owned());
    }
    if let Some(code) = text.strip_prefix('=') {
        let is_error = code.len() == 3 && code.parse().is_ok_and(|c: u16| (400..600).contains(&c));
        return if is_error { Ok(text.to_owned()) } else { Err("a status is from 400 to 599") };
    }
    let text = text.strip_suffix("?$args").unwrap_or(text);
    let text = text.strip_suffix("?$query_string").unwrap_or(text);
    let text = text.strip_suffix("$is_args$args").unwrap_or(text);
    let dots = text.split('/').any(|segment| segment == "." || segment == "..");
    if !text.starts_with('/') || text.contains(['$', '?']) || dots || text.ends_with('/') {
        return Err("what is tried is $uri, $uri/, a path of a file or a status");
    }
    if text.ends_with(".php") {
        return Err("there is no FastCGI");
    }
    // Below the route's directory, not below the root.
    match text.strip_prefix(mount.trim_end_matches('/')) {
        Some(rest) if rest.starts_with('/') => Ok(rest.to_owned()),
        _ => Err("it is not below the directory of this route"),
    }
}

/// A path of a URL as a path of files.
fn decoded(path: &str) -> String {
    let bytes = path.as_bytes();
    let mut out = Vec::with_capacity(bytes.len());
    let mut at = 0;
    while at < bytes.len() {
        let code = path.get(at + 1..at + 3).and_then(|hex| u8::from_str_radix(hex, 16).ok());
        match code.filter(|_| bytes[at] == b'%') {
            Some(byte) => {
                out.push(byte);
                at += 3;
            }
            None => {
                out.push(bytes[at]);
                at += 1;
            }
        }
    }
    String::from_utf8_lossy(&out).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_tried() {
        for (text, mount, expected) in [
            ("$uri", "/", Some("$uri")),
            ("$uri/", "/app/", Some("$uri/")),
            ("/index.html", "/", Some("/index.html")),
            ("/index.html?$args", "/", Some("/index.html")),
            ("/app/index.html", "/app/", Some("/index.html")),
            ("/app/index.html", "/app", Some("/index.html")),
            ("/apple.html", "/app", None),
            ("/index.html", "/app/", None),
            ("=404", "/", Some("=404")),
            ("=200", "/", None),
            ("$uri.html", "/", None),
            ("/index.php?$args", "/", None),
            ("@app", "/", None),
            ("/../x", "/", None),
        ] {
            assert_eq!(tried(text, mount).ok().as_deref(), expected, "{text} {mount}");
        }
    }

    #[test]
    fn paths_are_decoded() {
        for (path, expected) in [("/a%20b", "/a b"), ("/%C3%A9%", "/é%"), ("/%zz", "/%zz")] {
            assert_eq!(decoded(path), expected);
        }
    }
}
