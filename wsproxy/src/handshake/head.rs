//! A complete head: its start line and its header lines.

use super::HeadLimits;
use super::fields::Fields;
use super::scan::{HeadError, HeadFault, Kind, scan};

/// A complete head that keeps the grammar, borrowed from the buffer.
pub(crate) struct Head<'a> {
    /// The start line without its CR LF. The scanner has checked its form, so
    /// its parts can be cut out at the spaces.
    pub(crate) line: &'a [u8],
    pub(crate) fields: Fields<'a>,
    /// The length of the head in the buffer.
    pub(crate) consumed: usize,
}

impl<'a> Head<'a> {
    /// Reads the head at the start of `buf`; `None` while it is not complete.
    pub(crate) fn read(
        buf: &'a [u8],
        kind: Kind,
        limits: &HeadLimits,
    ) -> Result<Option<Self>, HeadError> {
        let Some(extent) = scan(buf, kind, limits)? else {
            return Ok(None);
        };
        let lines = &buf[extent.fields..extent.end];
        let mut slots = vec![httparse::EMPTY_HEADER; extent.count];
        // Two readers of one grammar: should they ever disagree about a head,
        // it is refused.
        let parsed = match httparse::parse_headers(lines, &mut slots) {
            Ok(httparse::Status::Complete((end, parsed))) if end == lines.len() => parsed,
            Ok(_) | Err(_) => {
                let fault = HeadFault::NameByte;
                return Err(HeadError { fault, line: 2, excerpt: String::new() });
            }
        };
        let fields = Fields::new(parsed.iter().map(|h| (h.name, h.value)).collect());
        let line = &buf[extent.start..extent.fields - 2];
        Ok(Some(Self { line, fields, consumed: extent.end }))
    }
}
