//! Where the body of an ordinary answer ends (RFC 9112 sections 6 and 7). The
//! bytes are passed on as they are; this only counts them.

use std::fmt;

/// The most bytes of one chunk-size or trailer line.
pub const MAX_LINE_BYTES: usize = 4 * 1024;
/// The most bytes of all trailer lines together.
pub const MAX_TRAILER_BYTES: usize = 16 * 1024;

/// How a body is delimited (RFC 9112 section 6.3).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BodyFraming {
    /// There is none.
    None,
    /// So many bytes.
    Length(u64),
    /// Chunks (RFC 9112 section 7.1).
    Chunked,
    /// Up to the end of the connection.
    UntilClose,
}

/// What [`BodyTracker::feed`] found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BodyProgress {
    /// How many of the bytes belong to the body.
    pub used: usize,
    /// The body is complete with them.
    pub complete: bool,
}

/// A chunked body that breaks the grammar (RFC 9112 section 7.1).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BadBody {
    /// No chunk size where one must be, or one that fits no 64 bits.
    ChunkSize,
    /// A chunk's data is not followed by CR LF.
    ChunkEnd,
    /// A control character, a bare CR or a bare LF in a line.
    LineByte,
    /// A line over [`MAX_LINE_BYTES`].
    LineTooLong,
    /// Trailers over [`MAX_TRAILER_BYTES`].
    TrailersTooLong,
}

impl fmt::Display for BadBody {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::ChunkSize => "a chunk size is missing or too large",
            Self::ChunkEnd => "a chunk does not end with CR LF",
            Self::LineByte => "a chunk line has a byte that it must not have",
            Self::LineTooLong => "a chunk or trailer line is too long",
            Self::TrailersTooLong => "the trailers are too long",
        })
    }
}

impl std::error::Error for BadBody {}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Complete,
    Left(u64),
    UntilClose,
    /// In the hexadecimal size; whether a digit came.
    Size {
        value: u64,
        digits: bool,
        line: usize,
    },
    /// In the extensions behind the size.
    Extension {
        size: u64,
        line: usize,
    },
    /// Behind the CR of a size line.
    SizeLf {
        size: u64,
    },
    Data {
        left: u64,
    },
    DataCr,
    DataLf,
    /// In a trailer line; `line` bytes of it came, `total` of all.
    Trailer {
        line: usize,
        total: usize,
    },
    /// Behind the CR of a trailer line of this length.
    TrailerLf {
        line: usize,
        total: usize,
    },
}

/// Follows a body over any split of its bytes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BodyTracker {
    state: State,
}

const NEW_SIZE: State = State::Size { value: 0, digits: false, line: 0 };

impl BodyTracker {
    /// At the first byte of a body.
    #[must_use]
    pub fn new(framing: BodyFraming) -> Self {
        let state = match framing {
            BodyFraming::None | BodyFraming::Length(0) => State::Complete,
            BodyFraming::Length(left) => State::Left(left),
            BodyFraming::Chunked => NEW_SIZE,
            BodyFraming::UntilClose => State::UntilClose,
        };
        Self { state }
    }

    /// The body is complete. One that lasts until the close never is.
    #[must_use]
    pub fn is_complete(&self) -> bool {
        self.state == State::Complete
    }

    /// Follows the next bytes.
    ///
    /// # Errors
    /// A chunked body is broken; the connection is of no more use.
    pub fn feed(&mut self, bytes: &[u8]) -> Result<BodyProgress, BadBody> {
        let mut used = 0;
        while used < bytes.len() && !self.is_complete() {
            let rest = &bytes[used..];
            used += match &mut self.state {
                State::UntilClose => rest.len(),
                State::Left(left) | State::Data { left } => {
                    let n = usize::try_from(*left).map_or(rest.len(), |l| l.min(rest.len()));
                    *left -= n as u64;
                    n
                }
                _ => {
                    self.state = self.step(rest[0])?;
                    1
                }
            };
            self.state = match self.state {
                State::Left(0) => State::Complete,
                State::Data { left: 0 } => State::DataCr,
                other => other,
            };
        }
        Ok(BodyProgress { used, complete: self.is_complete() })
    }

    /// One byte of chunked framing.
    fn step(&self, byte: u8) -> Result<State, BadBody> {
        Ok(match self.state {
            State::Size { value, digits, line } => size_byte(value, digits, line, byte)?,
            State::Extension { size, line } => match byte {
                b'\r' => State::SizeLf { size },
                _ => State::Extension { size, line: line_byte(line, byte)? },
            },
            State::SizeLf { size } => match (byte, size) {
                (b'\n', 0) => State::Trailer { line: 0, total: 0 },
                (b'\n', left) => State::Data { left },
                _ => return Err(BadBody::LineByte),
            },
            State::DataCr if byte == b'\r' => State::DataLf,
            State::DataLf if byte == b'\n' => NEW_SIZE,
            State::DataCr | State::DataLf => return Err(BadBody::ChunkEnd),
            State::Trailer { line, total } if byte == b'\r' => State::TrailerLf { line, total },
            State::Trailer { total, .. } if total >= MAX_TRAILER_BYTES => {
                return Err(BadBody::TrailersTooLong);
            }
            State::Trailer { line, total } => {
                State::Trailer { line: line_byte(line, byte)?, total: total + 1 }
            }
            State::TrailerLf { line, total } => match (byte, line) {
                (b'\n', 0) => State::Complete,
                (b'\n', _) => State::Trailer { line: 0, total },
                _ => return Err(BadBody::LineByte),
            },
            // Counted in runs by `feed`.
            same @ (State::Complete | State::Left(_) | State::UntilClose | State::Data { .. }) => {
                same
            }
        })
    }
}

fn size_byte(value: u64, digits: bool, line: usize, byte: u8) -> Result<State, BadBody> {
    if let Some(digit) = char::from(byte).to_digit(16) {
        let shifted = value.checked_mul(16).ok_or(BadBody::ChunkSize)?;
        // No carry: the lowest four bits are free.
        let value = shifted | u64::from(digit);
        // Leading zeros are digits too, and must not go on for ever.
        return Ok(State::Size { value, digits: true, line: line_byte(line, byte)? });
    }
    match byte {
        _ if !digits => Err(BadBody::ChunkSize),
        b'\r' => Ok(State::SizeLf { size: value }),
        b';' | b' ' | b'\t' => Ok(State::Extension { size: value, line: line_byte(line, byte)? }),
        _ => Err(BadBody::ChunkSize),
    }
}

/// Counts one byte of a line that may have no control characters but a tab.
fn line_byte(line: usize, byte: u8) -> Result<usize, BadBody> {
    if (byte < b' ' && byte != b'\t') || byte == 0x7f {
        return Err(BadBody::LineByte);
    }
    if line >= MAX_LINE_BYTES { Err(BadBody::LineTooLong) } else { Ok(line + 1) }
}
