//! What an upstream server may get wrong.

use std::fmt;

use super::refusal::Refusal;
use super::scan::HeadError;

/// An answer of the upstream server that must not reach the client: the client
/// gets a 502 instead (RFC 9110 section 15.6.3). What was received is escaped
/// and cut in every field.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum BadAnswer {
    /// The head breaks the grammar or the limits (RFC 9112 sections 2 to 5).
    Head(HeadError),
    /// Neither HTTP/1.0 nor HTTP/1.1.
    HttpVersion {
        /// The version of the status line.
        found: String,
    },
    /// A status code outside of 100 to 599 (RFC 9110 section 15).
    Status {
        /// The status code.
        found: u16,
    },
    /// 101 in HTTP/1.0, which has no upgrades (RFC 9110 section 7.8).
    SwitchedInHttp10,
    /// 101 without `websocket` in `Upgrade` (RFC 6455 section 4.1).
    Upgrade {
        /// The value of `Upgrade`, empty if there is none.
        found: String,
    },
    /// 101 without `upgrade` in `Connection` (RFC 6455 section 4.1).
    Connection {
        /// The value of `Connection`, empty if there is none.
        found: String,
    },
    /// 101 without `Sec-WebSocket-Accept` (RFC 6455 section 4.1).
    AcceptMissing,
    /// 101 with a wrong `Sec-WebSocket-Accept` (RFC 6455 section 4.1).
    AcceptWrong {
        /// What the client's key asks for.
        expected: String,
        /// What came.
        found: String,
    },
    /// 101 with a header twice that may come once (RFC 6455 section 11.3).
    Duplicate {
        /// The name of the header.
        name: &'static str,
    },
    /// 101 with a subprotocol that the client did not offer (RFC 6455 section
    /// 4.1).
    ProtocolNotOffered {
        /// The subprotocol.
        found: String,
    },
    /// 101 with an extension that the client did not offer (RFC 6455 section
    /// 4.1).
    ExtensionNotOffered {
        /// The name of the extension.
        found: String,
    },
    /// 101 with a `Sec-WebSocket-Extensions` against its grammar (RFC 6455
    /// section 9.1).
    Extensions {
        /// The value of the header.
        found: String,
    },
    /// A 1xx answer that announces a body (RFC 9110 section 8.6, RFC 9112
    /// section 6.1).
    BodyNotAllowed {
        /// The status code.
        status: u16,
        /// The header that announces it.
        name: &'static str,
    },
    /// `Transfer-Encoding` beside `Content-Length` (RFC 9112 section 6.3).
    TwoLengths,
    /// `Content-Length` that is no number, or numbers that differ (RFC 9112
    /// section 6.3).
    ContentLength {
        /// The value of the header.
        found: String,
    },
    /// A transfer coding other than `chunked` alone (RFC 9112 section 6.1).
    TransferCoding {
        /// The value of the header.
        found: String,
    },
    /// `Transfer-Encoding` in HTTP/1.0, whose framing is to be taken for faulty
    /// (RFC 9112 section 6.1).
    CodingInHttp10,
}

impl BadAnswer {
    /// The kind of the fault as a metric label, in snake_case.
    #[must_use]
    pub fn label(&self) -> &'static str {
        match self {
            Self::Head(error) => error.fault.label(),
            Self::HttpVersion { .. } => "http_version",
            Self::Status { .. } => "status",
            Self::SwitchedInHttp10 => "switched_in_http10",
            Self::Upgrade { .. } => "upgrade",
            Self::Connection { .. } => "connection",
            Self::AcceptMissing => "accept_missing",
            Self::AcceptWrong { .. } => "accept_wrong",
            Self::Duplicate { .. } => "duplicate",
            Self::ProtocolNotOffered { .. } => "protocol_not_offered",
            Self::ExtensionNotOffered { .. } => "extension_not_offered",
            Self::Extensions { .. } => "extensions",
            Self::BodyNotAllowed { .. } => "body_not_allowed",
            Self::TwoLengths => "two_lengths",
            Self::ContentLength { .. } => "content_length",
            Self::TransferCoding { .. } => "transfer_coding",
            Self::CodingInHttp10 => "coding_in_http10",
        }
    }

    /// What the client gets: 502 (RFC 9110 section 15.6.3).
    #[must_use]
    pub fn refusal(&self) -> Refusal {
        Refusal::bad_gateway(format!("The answer of the upstream server is invalid: {self}."))
    }
}

impl fmt::Display for BadAnswer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Head(error) => error.fmt(f),
            Self::HttpVersion { found } => write!(f, "its version is {found}"),
            Self::Status { found } => write!(f, "its status is {found:03}"),
            Self::SwitchedInHttp10 => f.write_str("it is a 101 in HTTP/1.0"),
            Self::Upgrade { found } => write!(f, "it is a 101 with Upgrade \"{found}\""),
            Self::Connection { found } => write!(f, "it is a 101 with Connection \"{found}\""),
            Self::AcceptMissing => f.write_str("it is a 101 without Sec-WebSocket-Accept"),
            Self::AcceptWrong { expected, found } => {
                write!(f, "its Sec-WebSocket-Accept is \"{found}\" instead of \"{expected}\"")
            }
            Self::Duplicate { name } => write!(f, "it has {name} more than once"),
            Self::ProtocolNotOffered { found } => {
                write!(f, "it selects subprotocol \"{found}\", which was not offered")
            }
            Self::ExtensionNotOffered { found } => {
                write!(f, "it selects extension \"{found}\", which was not offered")
            }
            Self::Extensions { found } => {
                write!(f, "its Sec-WebSocket-Extensions \"{found}\" is malformed")
            }
            Self::BodyNotAllowed { status, name } => {
                write!(f, "it is a {status} with {name}, which announces a body")
            }
            Self::TwoLengths => f.write_str("it has both a Transfer-Encoding and a Content-Length"),
            Self::ContentLength { found } => write!(f, "its Content-Length is \"{found}\""),
            Self::TransferCoding { found } => {
                write!(f, "its Transfer-Encoding is \"{found}\", and only \"chunked\" is known")
            }
            Self::CodingInHttp10 => f.write_str("it has a Transfer-Encoding in HTTP/1.0"),
        }
    }
}

impl std::error::Error for BadAnswer {}

impl From<HeadError> for BadAnswer {
    fn from(error: HeadError) -> Self {
        Self::Head(error)
    }
}
