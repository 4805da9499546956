//! The line grammar of a head (RFC 9112 sections 2 to 5), byte by byte.
//!
//! httparse takes a bare LF for a line end, any number of empty lines before
//! the start line, and tells little about what it refuses. So this scanner goes
//! first: it finds where the head ends, and the first byte that has no business
//! where it stands. Its verdict depends on no byte behind that one, hence not
//! on how the bytes were split over reads.

use std::fmt;

use super::{HeadLimits, show};

/// Which start line a head has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    /// A request line (RFC 9112 section 3).
    Request,
    /// A status line (RFC 9112 section 4).
    Response,
}

/// What is wrong with the bytes of a head.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum HeadFault {
    /// The first byte is that of a TLS record (RFC 8446 section 5.1).
    Tls,
    /// The start line is none of HTTP/1 (RFC 9112 sections 3 and 4).
    StartLine,
    /// A byte of the request target that no URI may contain (RFC 3986 section 2).
    TargetByte,
    /// A LF without a CR before it. RFC 9112 section 2.2 lets a recipient take
    /// it for a line end; those that do and those that do not read two
    /// different messages.
    BareLf,
    /// A CR without a LF after it (RFC 9112 section 2.2).
    BareCr,
    /// NUL or another control character in a header value (RFC 9110 section 5.5).
    ControlByte,
    /// A line that starts with white space: obs-fold (RFC 9112 section 5.2).
    ObsFold,
    /// White space between a header name and its colon (RFC 9112 section 5.1).
    SpaceBeforeColon,
    /// A header line that starts with its colon.
    EmptyName,
    /// A byte in a header name that no token may contain (RFC 9110 section 5.6.2).
    NameByte,
    /// A header line without a colon.
    MissingColon,
    /// The head is longer than [`HeadLimits::max_bytes`].
    TooLarge,
    /// The head has more lines than [`HeadLimits::max_headers`].
    TooManyHeaders,
}

impl HeadFault {
    /// What is wrong, as the middle of a sentence.
    #[must_use]
    pub fn explain(self) -> &'static str {
        match self {
            Self::Tls => "it starts like TLS, but this is a plain-text port",
            Self::StartLine => "the first line is no start line of HTTP/1",
            Self::TargetByte => "the request target contains a byte that must be percent-encoded",
            Self::BareLf => "a line ends with LF alone instead of CR LF",
            Self::BareCr => "a CR is not followed by LF",
            Self::ControlByte => "a header value contains a control character",
            Self::ObsFold => "a header line starts with white space (obsolete line folding)",
            Self::SpaceBeforeColon => "there is white space between a header name and its colon",
            Self::EmptyName => "a header line has no name before its colon",
            Self::NameByte => "a header name contains a character that is not allowed there",
            Self::MissingColon => "a header line has no colon",
            Self::TooLarge => "the head is larger than this gateway accepts",
            Self::TooManyHeaders => "the head has more header lines than this gateway accepts",
        }
    }

    /// The name of the fault in a metric.
    #[must_use]
    pub fn label(self) -> &'static str {
        match self {
            Self::Tls => "tls",
            Self::StartLine => "start_line",
            Self::TargetByte => "target_byte",
            Self::BareLf => "bare_lf",
            Self::BareCr => "bare_cr",
            Self::ControlByte => "control_byte",
            Self::ObsFold => "obs_fold",
            Self::SpaceBeforeColon => "space_before_colon",
            Self::EmptyName => "empty_name",
            Self::NameByte => "name_byte",
            Self::MissingColon => "missing_colon",
            Self::TooLarge => "too_large",
            Self::TooManyHeaders => "too_many_headers",
        }
    }
}

/// A head whose bytes break the grammar or the limits, and where.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HeadError {
    /// What is wrong.
    pub fault: HeadFault,
    /// The line that shows it; the start line is 1.
    pub line: usize,
    /// That line up to the offending byte, escaped and cut. Empty where the
    /// fault is of the whole head.
    pub excerpt: String,
}

impl fmt::Display for HeadError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.fault.explain())?;
        if !self.excerpt.is_empty() {
            write!(f, " (line {}: \"{}\")", self.line, self.excerpt)?;
        }
        Ok(())
    }
}

impl std::error::Error for HeadError {}

/// Where a complete head lies in the buffer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Extent {
    /// The first byte of the start line.
    pub(super) start: usize,
    /// The first byte of the header lines.
    pub(super) fields: usize,
    /// The first byte behind the final empty line.
    pub(super) end: usize,
    /// How many header lines there are.
    pub(super) count: usize,
}

#[derive(Debug, Clone, Copy)]
enum State {
    /// Before the first byte; one empty line may still precede a request.
    Lead,
    /// Behind the CR of that empty line.
    LeadLf,
    /// In the method, the target or the version of a request line, so many
    /// bytes in.
    Method(usize),
    Target(usize),
    Version(usize),
    /// In a status line, so many bytes in.
    Status(usize),
    /// Behind the CR of a line.
    LineLf,
    /// At the start of a header line.
    LineStart,
    Name,
    Value,
    /// Behind the CR of the final empty line.
    EndLf,
    End,
}

/// Finds the end of the head at the start of `buf`; `None` while it has not
/// arrived.
pub(super) fn scan(
    buf: &[u8],
    kind: Kind,
    limits: &HeadLimits,
) -> Result<Option<Extent>, HeadError> {
    let mut state = State::Lead;
    let mut extent = Extent { start: 0, fields: 0, end: 0, count: 0 };
    let (mut line, mut line_start) = (1, 0);
    let head = &buf[..buf.len().min(limits.max_bytes)];
    let mut at = 0;
    while let Some(&byte) = head.get(at) {
        let error = |fault| {
            // The CR is what is wrong, not the byte that proves it.
            let shown = if fault == HeadFault::BareCr { at } else { at + 1 };
            HeadError { fault, line, excerpt: show(&buf[line_start..shown]) }
        };
        let next = step(state, byte, kind).map_err(error)?;
        match (state, next) {
            (State::LeadLf, _) => {
                extent.start = at + 1;
                line_start = at + 1;
            }
            (State::LineLf, _) => {
                if line == 1 {
                    extent.fields = at + 1;
                }
                line += 1;
                line_start = at + 1;
            }
            (State::LineStart, State::Name) => {
                extent.count += 1;
                if extent.count > limits.max_headers {
                    let fault = HeadFault::TooManyHeaders;
                    return Err(HeadError { fault, line, excerpt: String::new() });
                }
            }
            (_, State::End) => {
                extent.end = at + 1;
                return Ok(Some(extent));
            }
            _ => {}
        }
        state = next;
        at += 1 + run(state, &head[at + 1..]);
    }
    if buf.len() >= limits.max_bytes {
        return Err(HeadError { fault: HeadFault::TooLarge, line, excerpt: String::new() });
    }
    Ok(None)
}

/// How many bytes follow that [`step`] would take without leaving `state`: most of a head lies in
/// such runs.
fn run(state: State, bytes: &[u8]) -> usize {
    let of = |keeps: fn(u8) -> bool| bytes.iter().take_while(|byte| keeps(**byte)).count();
    match state {
        State::Name => of(is_tchar),
        State::Value => of(is_field_byte),
        // Once it has a first byte, its length plays no part.
        State::Target(1..) => of(|byte| matches!(byte, b'!'..=b'~')),
        _ => 0,
    }
}

fn step(state: State, byte: u8, kind: Kind) -> Result<State, HeadFault> {
    match state {
        State::Lead => lead(byte, kind),
        // RFC 9112 section 2.2: ignore at least one empty line before a
        // request. Exactly one, and the request line must follow.
        State::LeadLf if byte == b'\n' => Ok(State::Method(0)),
        State::Method(len) => method(byte, len),
        State::Target(len) => target(byte, len),
        State::Version(len) => match byte {
            b'\r' if len == VERSION.len() => Ok(State::LineLf),
            b'\n' if len == VERSION.len() => Err(HeadFault::BareLf),
            _ if version_byte(byte, len) => Ok(State::Version(len + 1)),
            _ => Err(HeadFault::StartLine),
        },
        State::Status(len) => status(byte, len),
        State::LineLf if byte == b'\n' => Ok(State::LineStart),
        State::LineStart => match byte {
            b'\r' => Ok(State::EndLf),
            b'\n' => Err(HeadFault::BareLf),
            b' ' | b'\t' => Err(HeadFault::ObsFold),
            b':' => Err(HeadFault::EmptyName),
            _ if is_tchar(byte) => Ok(State::Name),
            _ => Err(HeadFault::NameByte),
        },
        State::Name => match byte {
            b':' => Ok(State::Value),
            b' ' | b'\t' => Err(HeadFault::SpaceBeforeColon),
            b'\r' | b'\n' => Err(HeadFault::MissingColon),
            _ if is_tchar(byte) => Ok(State::Name),
            _ => Err(HeadFault::NameByte),
        },
        State::Value => match byte {
            b'\r' => Ok(State::LineLf),
            b'\n' => Err(HeadFault::BareLf),
            _ if is_field_byte(byte) => Ok(State::Value),
            _ => Err(HeadFault::ControlByte),
        },
        State::EndLf if byte == b'\n' => Ok(State::End),
        State::LeadLf | State::LineLf | State::EndLf => Err(HeadFault::BareCr),
        State::End => Ok(State::End),
    }
}

fn lead(byte: u8, kind: Kind) -> Result<State, HeadFault> {
    match (byte, kind) {
        // Handshake and alert: what a TLS client sends first, and what a TLS
        // server answers to plain text.
        (0x15 | 0x16, _) => Err(HeadFault::Tls),
        (b'\r', Kind::Request) => Ok(State::LeadLf),
        (b'\n', Kind::Request) => Err(HeadFault::BareLf),
        (_, Kind::Request) => method(byte, 0),
        (_, Kind::Response) => status(byte, 0),
    }
}

fn method(byte: u8, len: usize) -> Result<State, HeadFault> {
    match byte {
        b' ' if len > 0 => Ok(State::Target(0)),
        _ if is_tchar(byte) => Ok(State::Method(len + 1)),
        _ => Err(HeadFault::StartLine),
    }
}

fn target(byte: u8, len: usize) -> Result<State, HeadFault> {
    match byte {
        b' ' if len > 0 => Ok(State::Version(0)),
        b'!'..=b'~' => Ok(State::Target(len + 1)),
        b' ' | b'\r' | b'\n' => Err(HeadFault::StartLine),
        _ => Err(HeadFault::TargetByte),
    }
}

/// `HTTP/1.1`, with `d` for a digit.
const VERSION: &[u8; 8] = b"HTTP/d.d";

fn version_byte(byte: u8, at: usize) -> bool {
    match VERSION.get(at) {
        Some(b'd') => byte.is_ascii_digit(),
        Some(&wanted) => byte == wanted,
        None => false,
    }
}

/// `HTTP/1.1 101 Switching Protocols`. The space before the reason phrase may
/// be missing together with the phrase: servers do that, and it is read the
/// same by everybody.
fn status(byte: u8, len: usize) -> Result<State, HeadFault> {
    let fits = match len {
        0..=7 => version_byte(byte, len),
        8 => byte == b' ',
        9..=11 => byte.is_ascii_digit(),
        12 => byte == b' ' || byte == b'\r',
        _ => is_field_byte(byte) || byte == b'\r',
    };
    match byte {
        b'\n' if len >= 12 => Err(HeadFault::BareLf),
        _ if !fits => Err(HeadFault::StartLine),
        b'\r' => Ok(State::LineLf),
        _ => Ok(State::Status(len + 1)),
    }
}

static TCHAR: [bool; 256] = {
    let mut table = [false; 256];
    let mut byte = 0;
    while byte < 128 {
        table[byte as usize] = matches!(byte,
            b'0'..=b'9' | b'A'..=b'Z' | b'a'..=b'z' | b'!' | b'#' | b'$' | b'%' | b'&' | b'\''
            | b'*' | b'+' | b'-' | b'.' | b'^' | b'_' | b'`' | b'|' | b'~');
        byte += 1;
    }
    table
};

/// A character of a token (RFC 9110 section 5.6.2).
pub(super) fn is_tchar(byte: u8) -> bool {
    TCHAR[usize::from(byte)]
}

/// A byte of a header value (RFC 9110 section 5.5): visible, white space, or
/// obs-text.
pub(crate) fn is_field_byte(byte: u8) -> bool {
    byte == b'\t' || (byte >= b' ' && byte != 0x7f)
}
