//! Reads field offsets out of the kernel's own type information
//! (`/sys/kernel/btf/vmlinux`, format in `Documentation/bpf/btf.rst`).
//!
//! Pure: bytes in, offsets out, no panic on any input. Our own because the
//! crates that show struct members are either private about it (aya-obj) or
//! LGPL (btf-rs), and it is a page of code.

use std::collections::HashMap;

use wsproxy_common::layout::SocketOffsets;

const MAGIC: u16 = 0xeb9f;
const KIND_INT: u32 = 1;
const KIND_ARRAY: u32 = 3;
const KIND_STRUCT: u32 = 4;
const KIND_UNION: u32 = 5;
const KIND_ENUM: u32 = 6;
const KIND_FUNC_PROTO: u32 = 13;
const KIND_VAR: u32 = 14;
const KIND_DATASEC: u32 = 15;
const KIND_DECL_TAG: u32 = 17;
const KIND_ENUM64: u32 = 19;
/// Structs nested without a name, deeper than the kernel ever does.
const MAX_NESTING: u32 = 8;

/// Why the offsets could not be read.
#[derive(Clone, Debug, thiserror::Error, PartialEq, Eq)]
pub enum BtfError {
    /// The bytes are not BTF of this machine's byte order.
    #[error("not BTF: {0}")]
    Malformed(&'static str),
    /// A struct or a field in it is not there under this name.
    #[error("no field `{field}` in `struct {name}` of this kernel")]
    NoField {
        /// Name of the struct.
        name: &'static str,
        /// Name of the field.
        field: &'static str,
    },
}

/// Offsets of the fields that the verdict program reads.
///
/// # Errors
/// See [`BtfError`].
pub fn socket_offsets(btf: &[u8]) -> Result<SocketOffsets, BtfError> {
    let index = Index::new(btf)?;
    // `struct sock` is the first member of the first member ... of `struct tcp_sock`.
    Ok(SocketOffsets {
        bytes_acked: index.offset("tcp_sock", "bytes_acked")?,
        write_seq: index.offset("tcp_sock", "write_seq")?,
        snd_una: index.offset("tcp_sock", "snd_una")?,
        copied_seq: index.offset("tcp_sock", "copied_seq")?,
        sk_sndbuf: index.offset("sock", "sk_sndbuf")?,
        sk_wmem_queued: index.offset("sock", "sk_wmem_queued")?,
    })
}

struct Index<'a> {
    strings: &'a [u8],
    /// Byte position of each type, by id (id 0 is void).
    types: Vec<&'a [u8]>,
    structs: HashMap<&'a [u8], usize>,
}

fn u32_at(bytes: &[u8], at: usize) -> Result<u32, BtfError> {
    let word = bytes.get(at..at.saturating_add(4)).and_then(|w| w.try_into().ok());
    word.map(u32::from_ne_bytes).ok_or(BtfError::Malformed("cut short"))
}

fn section(btf: &[u8], start: u32, offset: u32, len: u32) -> Result<&[u8], BtfError> {
    let from = start as usize + offset as usize;
    btf.get(from..from.saturating_add(len as usize))
        .ok_or(BtfError::Malformed("a section lies outside"))
}

/// Bytes that follow the 12-byte head of a type.
fn tail_len(info: u32) -> Result<usize, BtfError> {
    let vlen = (info & 0xffff) as usize;
    Ok(match info >> 24 & 0x1f {
        KIND_INT | KIND_VAR | KIND_DECL_TAG => 4,
        KIND_ARRAY => 12,
        KIND_STRUCT | KIND_UNION | KIND_DATASEC | KIND_ENUM64 => vlen * 12,
        KIND_ENUM | KIND_FUNC_PROTO => vlen * 8,
        kind if kind <= KIND_ENUM64 => 0,
        _ => return Err(BtfError::Malformed("a kind of type that is not known")),
    })
}

impl<'a> Index<'a> {
    fn new(btf: &'a [u8]) -> Result<Self, BtfError> {
        let magic = btf.get(..2).and_then(|m| m.try_into().ok()).map(u16::from_ne_bytes);
        if magic != Some(MAGIC) {
            return Err(BtfError::Malformed("wrong magic number"));
        }
        let head = u32_at(btf, 4)?;
        let mut rest = section(btf, head, u32_at(btf, 8)?, u32_at(btf, 12)?)?;
        let strings = section(btf, head, u32_at(btf, 16)?, u32_at(btf, 20)?)?;
        let mut index = Self { strings, types: vec![&[]], structs: HashMap::new() };
        while !rest.is_empty() {
            let info = u32_at(rest, 4)?;
            let len = 12 + tail_len(info)?;
            let kind = rest.get(..len).ok_or(BtfError::Malformed("a type is cut short"))?;
            if info >> 24 & 0x1f == KIND_STRUCT {
                index.structs.entry(index.string(u32_at(rest, 0)?)).or_insert(index.types.len());
            }
            index.types.push(kind);
            rest = &rest[len..];
        }
        Ok(index)
    }

    fn string(&self, at: u32) -> &'a [u8] {
        let from = self.strings.get(at as usize..).unwrap_or_default();
        from.split(|byte| *byte == 0).next().unwrap_or_default()
    }

    fn offset(&self, name: &'static str, field: &'static str) -> Result<u32, BtfError> {
        let missing = BtfError::NoField { name, field };
        let id = *self.structs.get(name.as_bytes()).ok_or(missing.clone())?;
        let bits = self.member_bits(id, field, 0)?.ok_or(missing.clone())?;
        // A bit field, or an offset past any struct, is not what we look for.
        if bits % 8 == 0 { Ok(bits / 8) } else { Err(missing) }
    }

    /// Bit offset of `field` in the struct or union `id`, unnamed members searched too.
    fn member_bits(&self, id: usize, field: &str, depth: u32) -> Result<Option<u32>, BtfError> {
        let Some(kind) = self.types.get(id).filter(|k| !k.is_empty()) else { return Ok(None) };
        let info = u32_at(kind, 4)?;
        if depth > MAX_NESTING || !matches!(info >> 24 & 0x1f, KIND_STRUCT | KIND_UNION) {
            return Ok(None);
        }
        let bit_fields = info >> 31 == 1;
        for at in (12..kind.len()).step_by(12) {
            let mut bits = u32_at(kind, at + 8)?;
            if bit_fields {
                bits &= 0x00ff_ffff;
            }
            let name = self.string(u32_at(kind, at)?);
            if name == field.as_bytes() {
                return Ok(Some(bits));
            }
            if name.is_empty() {
                let inner = u32_at(kind, at + 4)? as usize;
                if let Some(more) = self.member_bits(inner, field, depth + 1)? {
                    return Ok(bits.checked_add(more));
                }
            }
        }
        Ok(None)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_kernel_has_the_fields_and_they_lie_apart() {
        let Ok(btf) = std::fs::read("/sys/kernel/btf/vmlinux") else {
            eprintln!("SKIPPED: this kernel has no /sys/kernel/btf/vmlinux");
            return;
        };
        let offsets = socket_offsets(&btf).unwrap();
        // `struct sock` comes first in `struct tcp_sock`.
        assert!(offsets.sk_sndbuf < offsets.write_seq);
        assert!(offsets.sk_wmem_queued < offsets.snd_una);
        assert_ne!(offsets.bytes_acked, offsets.write_seq);
    }

    #[test]
    fn broken_input_is_an_error_never_a_panic() {
        let Ok(btf) = std::fs::read("/sys/kernel/btf/vmlinux") else {
            eprintln!("SKIPPED: this kernel has no /sys/kernel/btf/vmlinux");
            return;
        };
        assert_eq!(socket_offsets(b""), Err(BtfError::Malformed("wrong magic number")));
        for cut in [1, 2, 8, 23, 24, 100, btf.len() / 2, btf.len() - 1] {
            assert!(socket_offsets(&btf[..cut]).is_err(), "cut at {cut}");
        }
    }

    proptest::proptest! {
        #[test]
        fn arbitrary_bytes_never_panic(tail in proptest::collection::vec(proptest::num::u8::ANY, 0..400)) {
            let mut btf = MAGIC.to_ne_bytes().to_vec();
            btf.extend([1, 0, 24, 0, 0, 0]);
            btf.extend(tail);
            let _ = socket_offsets(&btf);
        }
    }
}
