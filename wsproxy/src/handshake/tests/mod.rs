//! Tables and properties of the handshake.

mod answers;
mod bodies;
mod properties;
mod requests;

use super::*;

/// The sample key of RFC 6455 section 1.3.
const KEY: &str = "dGhlIHNhbXBsZSBub25jZQ==";

fn request_text(more: &str) -> String {
    format!(
        "GET /chat?x=1 HTTP/1.1\r\nHost: example.com\r\nUpgrade: websocket\r\n\
         Connection: Upgrade\r\nSec-WebSocket-Key: {KEY}\r\nSec-WebSocket-Version: 13\r\n{more}\r\n"
    )
}

fn request(more: &str) -> UpgradeRequest {
    match parse_request(request_text(more).as_bytes(), &HeadLimits::default()) {
        Ok(Progress::Done { value, .. }) => value,
        other => panic!("{other:?}"),
    }
}

#[test]
fn the_sample_of_the_rfc() {
    assert_eq!(accept_for_key(KEY), "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=");
}
