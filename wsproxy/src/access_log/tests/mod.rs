mod formats;
mod logs;

use std::time::{Duration, UNIX_EPOCH};

use super::{Entry, Format, SessionPart, combined, json};

/// 2026-10-10T13:55:36.789Z, in every line.
pub(super) fn entry<'a>() -> Entry<'a> {
    Entry {
        time: UNIX_EPOCH + Duration::from_millis(1_791_640_536_789),
        client: [192, 0, 2, 7].into(),
        request_id: "abc",
        method: "GET",
        target: "/a?b=c",
        http_version: "HTTP/1.1",
        host: "example.com",
        scheme: "https",
        tls_version: Some("TLSv1.3"),
        referer: None,
        user_agent: Some("curl/8"),
        status: 200,
        route: "chat",
        upstream: Some("127.0.0.1:9000"),
        bytes_to_client: 12,
        bytes_to_upstream: 3,
        duration: Duration::from_nanos(1_234_567_890),
        upstream_time: Some(Duration::from_micros(70)),
        session: None,
    }
}

pub(super) fn session() -> SessionPart<'static> {
    SessionPart {
        id: 7,
        datapath: "sockmap",
        ended_by: "client_finished",
        kernel_bytes_to_client: 1,
        kernel_bytes_to_upstream: u64::MAX,
    }
}

fn line(format: Format, entry: &Entry<'_>) -> String {
    let mut line = b"kept".to_vec();
    match format {
        Format::Json => json(entry, &mut line),
        Format::Combined => combined(entry, &mut line),
    }
    String::from_utf8(line).unwrap().strip_prefix("kept").unwrap().to_owned()
}
