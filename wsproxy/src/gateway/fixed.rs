//! Answers that a route gives by itself: redirects and fixed texts. The same to every request,
//! handshakes among them.

use http::{HeaderMap, HeaderValue, Response, StatusCode, header};

use super::setup::RouteSetup;
use crate::{
    config::Action,
    forwarding::{Connection, Facts, Headers, Rendered},
};

/// The answer of a route that needs neither a server nor a file, the route's changes of its
/// headers made; none of other routes.
pub(super) fn answer(
    route: &RouteSetup,
    facts: &Facts,
    connection: &Connection,
    request: &impl Headers,
) -> Option<Response<String>> {
    let mut response = match &route.config.action {
        Action::Redirect { to, status } => {
            let place = to.render(|v| facts.value(v, connection, request, ""));
            let mut response = Response::new(String::new());
            *response.status_mut() = StatusCode::from_u16(*status).unwrap_or(StatusCode::FOUND);
            if let Ok(place) = HeaderValue::from_str(&place) {
                response.headers_mut().insert(header::LOCATION, place);
            }
            response
        }
        Action::Respond { status, body } => {
            let status = StatusCode::from_u16(*status).unwrap_or(StatusCode::NOT_FOUND);
            let body = if has_content(status) { body.clone() } else { String::new() };
            let mut response = Response::new(body);
            *response.status_mut() = status;
            let kind = HeaderValue::from_static("text/plain; charset=utf-8");
            response.headers_mut().insert(header::CONTENT_TYPE, kind);
            response
        }
        Action::Upstream(_) | Action::Files { .. } => return None,
    };
    change(route, facts, connection, request, response.headers_mut());
    Some(response)
}

/// The route's changes of an answer that no server gave.
pub(super) fn change(
    route: &RouteSetup,
    facts: &Facts,
    connection: &Connection,
    request: &impl Headers,
    answer: &mut HeaderMap,
) {
    let changes = &route.config.response_headers;
    if !changes.is_empty() {
        Rendered::new(changes, facts, connection, request, "").apply(answer);
    }
}

/// RFC 9110 sections 15.3.5, 15.3.6 and 15.4.5.
fn has_content(status: StatusCode) -> bool {
    !matches!(status, StatusCode::NO_CONTENT | StatusCode::RESET_CONTENT | StatusCode::NOT_MODIFIED)
}

/// An answer as it goes over the wire, the last one of its connection.
pub(super) fn to_bytes(response: &Response<String>, request_id: &str) -> Vec<u8> {
    let (status, body) = (response.status(), response.body());
    let phrase = status.canonical_reason().unwrap_or("Answer");
    let mut out = format!("HTTP/1.1 {} {phrase}\r\n", status.as_u16()).into_bytes();
    let mut line = |name: &str, value: &[u8]| {
        for part in [name.as_bytes(), b": ", value, b"\r\n"] {
            out.extend_from_slice(part);
        }
    };
    // Rules can't set what says where a message ends: the configuration refuses that.
    for (name, value) in response.headers().iter().filter(|(name, _)| *name != "x-request-id") {
        line(name.as_str(), value.as_bytes());
    }
    line("X-Request-ID", request_id.as_bytes());
    // RFC 9110 section 8.6: a 204 must not have it, and that of a 304 would be another answer's.
    if !matches!(status, StatusCode::NO_CONTENT | StatusCode::NOT_MODIFIED) {
        line("Content-Length", body.len().to_string().as_bytes());
    }
    line("Connection", b"close");
    out.extend_from_slice(b"\r\n");
    out.extend_from_slice(body.as_bytes());
    out
}
