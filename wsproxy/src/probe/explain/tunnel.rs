//! Frames and close codes.

use super::super::frame::FrameFault;

/// The registered close codes (RFC 6455 section 7.4.1 and its IANA registry).
const CLOSE_CODES: &[(u16, &str)] = &[
    (1000, "normal closure"),
    (1001, "going away: the server stops, or the page was left"),
    (1002, "protocol error"),
    (1003, "a kind of data that it does not take"),
    (1005, "no code"),
    (1006, "no close frame"),
    (1007, "data that does not fit its kind, as text that is no UTF-8"),
    (1008, "against its policy: often no permission"),
    (1009, "message too big"),
    (1010, "an extension is missing"),
    (1011, "internal error of the server"),
    (1012, "the server restarts"),
    (1013, "overloaded: try again later"),
    (1014, "bad gateway: the answer of its upstream server is invalid"),
    (1015, "TLS failed"),
    (3000, "unauthorized"),
    (3003, "forbidden"),
    (3008, "timeout"),
];

/// What a close code means.
pub(in super::super) fn close_code(code: u16) -> &'static str {
    let known = CLOSE_CODES.iter().find(|(known, _)| *known == code);
    known.map_or_else(|| close_range(code), |(_, words)| words)
}

fn close_range(code: u16) -> &'static str {
    match code {
        3000..=3999 => "a code of a library or framework",
        4000..=4999 => "a code of the application: see its documentation",
        _ => "a code that must not be sent",
    }
}

/// What to try after the server closed the session with `code` early.
pub(in super::super) fn closed(code: Option<u16>) -> &'static str {
    match code {
        Some(1008 | 3000 | 3003) => {
            "The server lets the tunnel open and then refuses: it may want a log-in, an Origin or a subprotocol."
        }
        Some(1001 | 1012 | 1013 | 1014) => "Try again later, or look after the server.",
        Some(1002 | 1003 | 1007 | 1009 | 1010) => {
            "The server did not understand what was sent: try --no-ping, --subprotocol or another --message."
        }
        Some(1011) => "Search the log of the server.",
        _ => {
            "The application ends the session: it may expect a message, a log-in or a subprotocol."
        }
    }
}

/// What the server got wrong about its frames.
pub(in super::super) fn frame_fault(fault: FrameFault) -> String {
    let words = match fault {
        FrameFault::Masked => "it is masked, and only clients mask (RFC 6455 section 5.1)",
        FrameFault::Reserved => {
            "a reserved bit is set, as compression does, but no extension was agreed on (RFC 6455 section 5.2)"
        }
        FrameFault::Opcode(opcode) => {
            return format!("its opcode {opcode} is not assigned (RFC 6455 section 5.2)");
        }
        FrameFault::Control => {
            "it is a control frame in fragments or of more than 125 bytes (RFC 6455 section 5.5)"
        }
        FrameFault::Length => "its length is not in its shortest form (RFC 6455 section 5.2)",
        FrameFault::Order => "fragments of messages are out of order (RFC 6455 section 5.4)",
        FrameFault::Close => {
            "it is a close frame with a code that must not be sent (RFC 6455 section 7.4)"
        }
    };
    words.to_owned()
}
