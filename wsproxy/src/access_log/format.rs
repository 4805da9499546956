//! One entry as one line. Whatever a client wrote, it can't begin a line of its own.

use std::{
    io::Write as _,
    time::{SystemTime, UNIX_EPOCH},
};

use serde_json::json;

use super::{Entry, Format};

/// Appends the line of an entry, its end included.
pub(super) fn write(format: Format, entry: &Entry<'_>, line: &mut Vec<u8>) {
    match format {
        Format::Json => json(entry, line),
        Format::Combined => combined(entry, line),
    }
    line.push(b'\n');
}

fn json(entry: &Entry<'_>, line: &mut Vec<u8>) {
    let time = Civil::of(entry.time);
    let millis = |duration: std::time::Duration| duration.as_secs_f64() * 1_000.0;
    let mut value = json!({
        "time": time.rfc3339(),
        "kind": if entry.session.is_some() { "session" } else { "request" },
        "client": entry.client.to_string(),
        "request": entry.request_id,
        "method": entry.method,
        "host": entry.host,
        "target": entry.target,
        "scheme": entry.scheme,
        "status": entry.status,
        "route": entry.route,
        "upstream": entry.upstream,
        "bytes_to_client": entry.bytes_to_client,
        "bytes_to_upstream": entry.bytes_to_upstream,
        "duration_ms": millis(entry.duration),
        "upstream_ms": entry.upstream_time.map(millis),
        "tls": entry.tls_version,
        "referer": entry.referer,
        "user_agent": entry.user_agent,
    });
    if let Some(session) = &entry.session {
        value["session"] = json!(session.id);
        value["datapath"] = json!(session.datapath);
        value["ended_by"] = json!(session.ended_by);
        value["kernel_bytes_to_client"] = json!(session.kernel_bytes_to_client);
        value["kernel_bytes_to_upstream"] = json!(session.kernel_bytes_to_upstream);
    }
    // Writing into memory does not fail, and every value above is one that JSON has.
    let _ = serde_json::to_writer(line, &value);
}

/// `client - - [time] "request" status bytes "referer" "user agent"`.
fn combined(entry: &Entry<'_>, line: &mut Vec<u8>) {
    let time = Civil::of(entry.time).common();
    let _ = write!(line, "{} - - [{time}] \"", entry.client);
    for part in [entry.method, " ", entry.target, " ", entry.http_version] {
        escape(part, line);
    }
    let _ = write!(line, "\" {} {} \"", entry.status, entry.bytes_to_client);
    escape(entry.referer.unwrap_or("-"), line);
    line.extend_from_slice(b"\" \"");
    escape(entry.user_agent.unwrap_or("-"), line);
    line.push(b'"');
}

/// Quotes, backslashes, and all that is not printable ASCII, as `\xHH`.
fn escape(text: &str, line: &mut Vec<u8>) {
    for &byte in text.as_bytes() {
        match byte {
            b'"' | b'\\' => {
                let _ = write!(line, "\\x{byte:02X}");
            }
            0x20..=0x7e => line.push(byte),
            _ => {
                let _ = write!(line, "\\x{byte:02X}");
            }
        }
    }
}

/// A moment in the calendar, in UTC.
struct Civil {
    year: i64,
    month: usize,
    day: i64,
    hour: u64,
    minute: u64,
    second: u64,
    millis: u32,
}

const MONTHS: [&str; 12] =
    ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"];

impl Civil {
    fn of(time: SystemTime) -> Self {
        let since = time.duration_since(UNIX_EPOCH).unwrap_or_default();
        let (days, rest) = (since.as_secs() / 86_400, since.as_secs() % 86_400);
        // Days into eras of 400 years that begin in March, so that a leap day comes last.
        let shifted = i64::try_from(days).unwrap_or(0) + 719_468;
        let (era, of_era) = (shifted.div_euclid(146_097), shifted.rem_euclid(146_097));
        let year_of_era = (of_era - of_era / 1_460 + of_era / 36_524 - of_era / 146_096) / 365;
        let of_year = of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
        let from_march = (5 * of_year + 2) / 153;
        let month = if from_march < 10 { from_march + 3 } else { from_march - 9 };
        Self {
            year: year_of_era + era * 400 + i64::from(month <= 2),
            month: usize::try_from(month).unwrap_or(1),
            day: of_year - (153 * from_march + 2) / 5 + 1,
            hour: rest / 3_600,
            minute: rest / 60 % 60,
            second: rest % 60,
            millis: since.subsec_millis(),
        }
    }

    fn rfc3339(&self) -> String {
        let Self { year, month, day, hour, minute, second, millis } = self;
        format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}.{millis:03}Z")
    }

    fn common(&self) -> String {
        let Self { year, month, day, hour, minute, second, .. } = self;
        let month = MONTHS.get(month - 1).copied().unwrap_or("Jan");
        format!("{day:02}/{month}/{year:04}:{hour:02}:{minute:02}:{second:02} +0000")
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use proptest::prelude::*;

    use super::super::SessionPart;
    use super::*;

    fn entry<'a>(target: &'a str, agent: &'a str) -> Entry<'a> {
        Entry {
            time: UNIX_EPOCH + Duration::from_millis(1_792_239_336_789),
            client: "192.0.2.7".parse().unwrap(),
            request_id: "abc",
            method: "GET",
            target,
            http_version: "HTTP/1.1",
            host: "example.com",
            scheme: "http",
            tls_version: None,
            referer: None,
            user_agent: Some(agent),
            status: 200,
            route: "/",
            upstream: Some("127.0.0.1:1"),
            bytes_to_client: 12,
            bytes_to_upstream: 3,
            duration: Duration::from_micros(1_500),
            upstream_time: None,
            session: None,
        }
    }

    fn line(format: Format, entry: &Entry<'_>) -> String {
        let mut line = Vec::new();
        write(format, entry, &mut line);
        String::from_utf8(line).unwrap()
    }

    #[test]
    fn lines() {
        assert_eq!(
            line(Format::Combined, &entry("/a?b", "curl \"x\" \\ \u{e9}\n")),
            "192.0.2.7 - - [17/Oct/2026:12:15:36 +0000] \"GET /a?b HTTP/1.1\" 200 12 \"-\" \
             \"curl \\x22x\\x22 \\x5C \\xC3\\xA9\\x0A\"\n"
        );
        let mut session = entry("/ws", "a");
        session.session = Some(SessionPart {
            id: 7,
            datapath: "sockmap",
            ended_by: "client_finished",
            kernel_bytes_to_client: 1,
            kernel_bytes_to_upstream: 2,
        });
        let value: serde_json::Value = serde_json::from_str(&line(Format::Json, &session)).unwrap();
        assert_eq!(value["time"], "2026-10-17T12:15:36.789Z");
        assert_eq!(value["kind"], "session");
        assert_eq!(value["duration_ms"], 1.5);
        assert_eq!(value["datapath"], "sockmap");
        assert!(value["referer"].is_null());
    }

    #[test]
    fn days_of_the_calendar() {
        for (seconds, date) in [
            (0, "1970-01-01T00:00:00.000Z"),
            (951_782_400, "2000-02-29T00:00:00.000Z"),
            (1_709_164_799, "2024-02-28T23:59:59.000Z"),
            (1_709_251_199, "2024-02-29T23:59:59.000Z"),
            (4_107_542_400, "2100-03-01T00:00:00.000Z"),
        ] {
            assert_eq!(Civil::of(UNIX_EPOCH + Duration::from_secs(seconds)).rfc3339(), date);
        }
    }

    proptest! {
        #[test]
        fn one_entry_is_one_line(target: String, agent: String) {
            for format in [Format::Json, Format::Combined] {
                let line = line(format, &entry(&target, &agent));
                prop_assert_eq!(line.lines().count(), 1);
                prop_assert!(line.ends_with('\n'));
                prop_assert!(!line[..line.len() - 1].contains(|c: char| c.is_ascii_control()));
            }
        }
    }
}
