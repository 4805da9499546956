//! PEM files (RFC 7468): reading them and saying what they hold.

use std::fs::{self, File, Metadata};
use std::io::{self, Read};
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use rustls::pki_types::pem::{self, PemObject, SectionKind};
use rustls::pki_types::{CertificateDer, PrivateKeyDer};

/// The most bytes of a PEM file: 4 MiB. A bundle of all public CAs has less
/// than one.
pub const FILE_BYTES_MAX: u64 = 4 << 20;
/// How many kinds of sections a message names.
const LABELS_MAX: usize = 4;
/// The most bytes of a section's label that a message shows.
const LABEL_BYTES_MAX: usize = 40;
/// The header of keys that OpenSSL encrypted in the old way (RFC 1421 section
/// 4.6.1.1).
const OLD_ENCRYPTION: &[u8] = b"Proc-Type: 4,ENCRYPTED";

const ENCRYPTED: &str = "the private key is encrypted, which is not supported: \
                         write it without a passphrase (openssl pkey)";

/// All certificates of a file, at least one; or what is wrong with it.
pub(super) fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, String> {
    let (bytes, _) = read(path)?;
    let found: Vec<_> = sections(&bytes)?
        .into_iter()
        .filter(|(kind, _)| *kind == SectionKind::Certificate)
        .map(|(_, der)| CertificateDer::from(der))
        .collect();
    if found.is_empty() { Err(missing("certificate", &bytes)) } else { Ok(found) }
}

/// A private key.
pub(super) struct Key {
    pub(super) der: PrivateKeyDer<'static>,
    /// Every user of the machine can read the file.
    pub(super) open_to_all: bool,
}

/// The first private key of a file; or what is wrong with it.
pub(super) fn key(path: &Path) -> Result<Key, String> {
    let (bytes, metadata) = read(path)?;
    if bytes.windows(OLD_ENCRYPTION.len()).any(|window| window == OLD_ENCRYPTION) {
        return Err(ENCRYPTED.to_owned());
    }
    let der = sections(&bytes)?
        .into_iter()
        .find_map(|(kind, der)| PrivateKeyDer::from_pem(kind, der))
        .ok_or_else(|| {
            if labels(&bytes).iter().any(|label| label == "ENCRYPTED PRIVATE KEY") {
                ENCRYPTED.to_owned()
            } else {
                missing("private key", &bytes)
            }
        })?;
    Ok(Key { der, open_to_all: metadata.mode() & 0o004 != 0 })
}

fn read(path: &Path) -> Result<(Vec<u8>, Metadata), String> {
    // Asked before it is opened: opening a named pipe would wait for a writer.
    if !fs::metadata(path).map_err(|error| unreadable(&error))?.is_file() {
        return Err("is not a file".to_owned());
    }
    let file = File::open(path).map_err(|error| unreadable(&error))?;
    let metadata = file.metadata().map_err(|error| unreadable(&error))?;
    let mut bytes = Vec::new();
    file.take(FILE_BYTES_MAX + 1).read_to_end(&mut bytes).map_err(|error| unreadable(&error))?;
    if bytes.len() as u64 > FILE_BYTES_MAX {
        return Err(format!("has more than {} MiB", FILE_BYTES_MAX >> 20));
    }
    Ok((bytes, metadata))
}

fn unreadable(error: &io::Error) -> String {
    match error.kind() {
        io::ErrorKind::NotFound => "there is no such file".to_owned(),
        io::ErrorKind::PermissionDenied => "this user may not read it".to_owned(),
        _ => format!("cannot be read: {error}"),
    }
}

fn sections(bytes: &[u8]) -> Result<Vec<(SectionKind, Vec<u8>)>, String> {
    <(SectionKind, Vec<u8>)>::pem_slice_iter(bytes).collect::<Result<_, _>>().map_err(|error| {
        match error {
            pem::Error::MissingSectionEnd { .. } => "a PEM section has no end".to_owned(),
            pem::Error::IllegalSectionStart { .. } => "a -----BEGIN line is malformed".to_owned(),
            pem::Error::Base64Decode(_) => "a PEM section is not valid base64".to_owned(),
            other => format!("is not valid PEM: {other}"),
        }
    })
}

/// Says what a file holds in the place of what it should.
fn missing(wanted: &str, bytes: &[u8]) -> String {
    let labels = labels(bytes);
    if !labels.is_empty() {
        return format!("has no {wanted}, but: {}", labels.join(", "));
    }
    match bytes.trim_ascii().first() {
        None => "is empty".to_owned(),
        // A SEQUENCE: X.690 section 8.9.1.
        Some(0x30) => format!("is binary (DER or PKCS #12): a {wanted} in PEM is needed"),
        Some(_) => format!("has no {wanted} in PEM"),
    }
}

/// The different labels of the sections, in order, cut to the printable.
fn labels(bytes: &[u8]) -> Vec<String> {
    let mut labels = Vec::new();
    for line in bytes.split(|&byte| byte == b'\n') {
        let label = line
            .trim_ascii()
            .strip_prefix(b"-----BEGIN ")
            .and_then(|line| line.strip_suffix(b"-----"));
        let Some(label) = label else { continue };
        let label: String = label
            .iter()
            .take(LABEL_BYTES_MAX)
            .filter(|byte| (b' '..=b'~').contains(byte))
            .map(|&byte| char::from(byte))
            .collect();
        if !labels.contains(&label) {
            labels.push(label);
        }
        if labels.len() == LABELS_MAX {
            break;
        }
    }
    labels
}
