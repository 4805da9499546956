//! One entry as one line. Whatever a client wrote, it can't begin a line of its own.

use std::{fmt, io::Write as _, time::Duration};

use super::{Entry, civil::Civil};

/// Appends an entry as one JSON object and the end of its line.
///
/// Keys come in the same order in every line; those of a session are missing from the line of a
/// request, others without a value are `null`. Times are milliseconds with three decimals.
pub fn json(entry: &Entry<'_>, line: &mut Vec<u8>) {
    let mut object = Object::begin(line);
    object.shown("time", Civil::of(entry.time).rfc3339());
    object.text("kind", entry.kind().label());
    object.shown("client", entry.client);
    object.text("request_id", entry.request_id);
    object.text("method", entry.method);
    object.text("target", entry.target);
    object.text("http_version", entry.http_version);
    object.text("host", entry.host);
    object.bare("status", entry.status);
    object.text("route", entry.route);
    object.optional("upstream", entry.upstream);
    object.bare("bytes_to_client", entry.bytes_to_client);
    object.bare("bytes_to_upstream", entry.bytes_to_upstream);
    object.bare("duration_ms", Millis(entry.duration));
    match entry.upstream_time {
        Some(time) => object.bare("upstream_ms", Millis(time)),
        None => object.optional("upstream_ms", None),
    }
    object.optional("referer", entry.referer);
    object.optional("user_agent", entry.user_agent);
    object.text("scheme", entry.scheme);
    object.optional("tls_version", entry.tls_version);
    if let Some(session) = &entry.session {
        object.bare("session", session.id);
        object.text("datapath", session.datapath);
        object.text("ended_by", session.ended_by);
        object.bare("kernel_bytes_to_client", session.kernel_bytes_to_client);
        object.bare("kernel_bytes_to_upstream", session.kernel_bytes_to_upstream);
    }
    object.end();
}

/// Appends an entry as `client - - [time] "request" status bytes "referer" "user agent"` and the
/// end of its line. What has no value is `-`; no byte but printable ASCII stands for itself.
pub fn combined(entry: &Entry<'_>, line: &mut Vec<u8>) {
    print(line, format_args!("{} - - [{}] \"", entry.client, Civil::of(entry.time).common()));
    for part in [entry.method, " ", entry.target, " ", entry.http_version] {
        escape(part, line);
    }
    print(line, format_args!("\" {} {} \"", entry.status, entry.bytes_to_client));
    escape(entry.referer.unwrap_or("-"), line);
    line.extend_from_slice(b"\" \"");
    escape(entry.user_agent.unwrap_or("-"), line);
    line.extend_from_slice(b"\"\n");
}

/// Quotes, backslashes, and all that is not printable ASCII, as `\xHH`: as nginx does.
fn escape(text: &str, line: &mut Vec<u8>) {
    for &byte in text.as_bytes() {
        match byte {
            b' '..=b'~' if byte != b'"' && byte != b'\\' => line.push(byte),
            _ => print(line, format_args!("\\x{byte:02X}")),
        }
    }
}

fn print(line: &mut Vec<u8>, text: fmt::Arguments<'_>) {
    // Writing into memory does not fail.
    let _ = line.write_fmt(text);
}

/// Milliseconds with three decimals.
struct Millis(Duration);

impl fmt::Display for Millis {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let micros = self.0.as_micros();
        write!(f, "{}.{:03}", micros / 1_000, micros % 1_000)
    }
}

/// A JSON object under way. Keys are literals that need no escapes.
struct Object<'a> {
    line: &'a mut Vec<u8>,
    separator: u8,
}

impl<'a> Object<'a> {
    fn begin(line: &'a mut Vec<u8>) -> Self {
        Self { line, separator: b'{' }
    }

    fn key(&mut self, key: &'static str) {
        self.line.push(self.separator);
        self.separator = b',';
        print(self.line, format_args!("\"{key}\":"));
    }

    /// Text that comes from elsewhere.
    fn text(&mut self, key: &'static str, value: &str) {
        self.key(key);
        // Neither writing into memory nor a string fails.
        let _ = serde_json::to_writer(&mut *self.line, value);
    }

    fn optional(&mut self, key: &'static str, value: Option<&str>) {
        match value {
            Some(value) => self.text(key, value),
            None => self.bare(key, "null"),
        }
    }

    /// What is written without quotes.
    fn bare(&mut self, key: &'static str, value: impl fmt::Display) {
        self.key(key);
        print(self.line, format_args!("{value}"));
    }

    /// What is written within quotes and needs no escapes.
    fn shown(&mut self, key: &'static str, value: impl fmt::Display) {
        self.key(key);
        print(self.line, format_args!("\"{value}\""));
    }

    fn end(self) {
        self.line.extend_from_slice(b"}\n");
    }
}
