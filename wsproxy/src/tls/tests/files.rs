use std::os::unix::fs::PermissionsExt;
use std::time::{Duration, UNIX_EPOCH};

use rcgen::date_time_ymd;

use super::super::server::load_at;
use super::*;

const DAY: i64 = 86_400;
/// 2026-01-01.
const END: i64 = 1_767_225_600;

fn load(certificate: PathBuf, key: PathBuf) -> Result<Loaded<ServerConfig>, BadFiles> {
    let certificates = vec![CertificateFiles { certificate, key }];
    load_server(&ServerFiles { certificates, ..ServerFiles::default() }, &Resumption::default())
}

fn one_problem(result: Result<Loaded<ServerConfig>, BadFiles>) -> (PathBuf, String) {
    let bad = result.unwrap_err();
    assert_eq!(bad.problems.len(), 1, "{bad}");
    let problem = bad.problems.into_iter().next().unwrap();
    (problem.path, problem.message)
}

fn section(label: &str) -> String {
    format!("-----BEGIN {label}-----\nMAA=\n-----END {label}-----\n")
}

#[test]
fn bad_certificates() {
    let authority = Authority::new();
    let good = authority.issue("good", &["a.example"]);
    let pem = fs::read_to_string(&good.files.certificate).unwrap();
    let key = fs::read_to_string(&good.files.key).unwrap();
    let long = "# much text\n".repeat(400_000);
    let half = pem[..pem.len() / 2].to_owned();
    let table = [
        (Vec::new(), "is empty"),
        (b" \n".to_vec(), "is empty"),
        (b"hello".to_vec(), "has no certificate in PEM"),
        (good.der.to_vec(), "is binary (DER or PKCS #12): a certificate in PEM is needed"),
        (key.into(), "has no certificate, but: PRIVATE KEY"),
        (section("CERTIFICATE REQUEST").into(), "has no certificate, but: CERTIFICATE REQUEST"),
        (section("TRUSTED CERTIFICATE").into(), "has no certificate, but: TRUSTED CERTIFICATE"),
        (half.into(), "a PEM section has no end"),
        (pem.replace('M', "?").into(), "a PEM section is not valid base64"),
        (pem.replace("TE-----", "TE----").into(), "a -----BEGIN line is malformed"),
        (long.into(), "has more than 4 MiB"),
        (pem.repeat(17).into(), "has 17 certificates: a chain has 16 at most"),
        (section("CERTIFICATE").into(), "the certificate and its names cannot be read: BadDer"),
    ];
    for (bytes, expected) in table {
        let path = authority.write("bad.pem", bytes);
        let (at, message) = one_problem(load(path.clone(), good.files.key.clone()));
        assert_eq!(at, path);
        assert_eq!(message, expected);
    }
}

#[test]
fn bad_keys() {
    let authority = Authority::new();
    let good = authority.issue("good", &["a.example"]);
    let pem = fs::read_to_string(&good.files.certificate).unwrap();
    let old = "-----BEGIN RSA PRIVATE KEY-----\nProc-Type: 4,ENCRYPTED\n\
               DEK-Info: AES-256-CBC,00\n\nMAA=\n-----END RSA PRIVATE KEY-----\n";
    let encrypted = "the private key is encrypted, which is not supported: \
                     write it without a passphrase (openssl pkey)";
    let foreign = KeyPair::generate().unwrap().serialize_pem();
    let mismatch = format!(
        "the private key does not belong to the certificate of {}",
        good.files.certificate.display()
    );
    let table: &[(&str, &str)] = &[
        ("", "is empty"),
        (&pem, "has no private key, but: CERTIFICATE"),
        (&section("PUBLIC KEY"), "has no private key, but: PUBLIC KEY"),
        (&section("ENCRYPTED PRIVATE KEY"), encrypted),
        (old, encrypted),
        (
            &section("PRIVATE KEY"),
            "the private key is damaged or of a kind that is not supported: RSA with 2048 to \
             8192 bits, ECDSA with P-256 or P-384 and Ed25519 are",
        ),
        (&foreign, &mismatch),
    ];
    for (text, expected) in table {
        let path = authority.write("bad.key", text);
        let (at, message) = one_problem(load(good.files.certificate.clone(), path.clone()));
        assert_eq!(at, path);
        assert_eq!(message, *expected);
    }
}

#[test]
fn the_order_of_a_chain() {
    let authority = Authority::new();
    let good = authority.issue("good", &["a.example"]);
    let pem = fs::read_to_string(&good.files.certificate).unwrap();
    let ca = authority.certificate().pem();
    let chain = authority.write("chain.pem", format!("{ca}{pem}"));
    let (at, message) = one_problem(load(chain.clone(), good.files.key.clone()));
    assert_eq!(at, good.files.key);
    let expected = format!(
        "the private key belongs to certificate 2 of {}: that one must come first",
        chain.display()
    );
    assert_eq!(message, expected);

    authority.write("chain.pem", format!("{pem}{ca}"));
    let loaded = load(chain.clone(), good.files.key.clone()).unwrap();
    assert_eq!(loaded.warnings, []);

    let stranger = Authority::named("stranger");
    authority.write("chain.pem", format!("{pem}{}", stranger.certificate().pem()));
    let loaded = load(chain, good.files.key).unwrap();
    assert_eq!(loaded.warnings.len(), 1);
    let message = &loaded.warnings[0].message;
    assert!(message.starts_with("certificate 2 of the chain did not issue"), "{message}");
}

#[test]
fn files_that_cannot_be_read() {
    let authority = Authority::new();
    let good = authority.issue("good", &["a.example"]);
    let missing = authority.path("missing.pem");
    let folder = authority.folder.path().to_path_buf();
    let pipe = authority.path("pipe");
    let made = Command::new("mkfifo").arg(&pipe).status().is_ok_and(|status| status.success());
    let mut table = vec![
        (missing, "there is no such file"),
        (folder, "is not a file"),
        (PathBuf::from("/dev/null"), "is not a file"),
    ];
    if made {
        table.push((pipe, "is not a file"));
    }
    for (path, expected) in table {
        for (certificate, key) in [(&path, &good.files.key), (&good.files.certificate, &path)] {
            let (at, message) = one_problem(load(certificate.clone(), key.clone()));
            assert_eq!((&at, message.as_str()), (&path, expected));
        }
    }
    // Root may read all.
    let closed = good.files.key;
    fs::set_permissions(&closed, fs::Permissions::from_mode(0o000)).unwrap();
    if fs::read(&closed).is_err() {
        let (_, message) = one_problem(load(good.files.certificate, closed));
        assert_eq!(message, "this user may not read it");
    }
}

#[test]
fn all_problems_at_once() {
    let authority = Authority::new();
    let good = authority.issue("good", &["a.example"]);
    let files = ServerFiles {
        certificates: vec![
            CertificateFiles { certificate: "/no/a.pem".into(), key: "/no/a.key".into() },
            good.files.clone(),
            CertificateFiles { certificate: good.files.certificate.clone(), key: authority.ca() },
        ],
        client_ca: Some(good.files.key.clone()),
        ..ServerFiles::default()
    };
    let bad = load_server(&files, &Resumption::default()).unwrap_err();
    let expected = format!(
        "/no/a.pem: there is no such file; /no/a.key: there is no such file; \
         {}: has no private key, but: CERTIFICATE; {}: has no certificate, but: PRIVATE KEY",
        authority.ca().display(),
        good.files.key.display()
    );
    assert_eq!(bad.to_string(), expected);
}

#[test]
fn the_number_of_certificates_is_bounded() {
    let pair = CertificateFiles { certificate: "/no/a".into(), key: "/no/b".into() };
    for count in [0, CERTIFICATES_MAX + 1] {
        let files =
            ServerFiles { certificates: vec![pair.clone(); count], ..ServerFiles::default() };
        let (at, message) = one_problem(load_server(&files, &Resumption::default()));
        assert_eq!(at, PathBuf::new());
        assert_eq!(message, format!("a TLS listener has 1 to 1024 certificates, not {count}"));
    }
}

#[test]
fn authorities_that_cannot_be_read() {
    let authority = Authority::new();
    let good = authority.issue("good", &["a.example"]);
    let ca = authority.certificate().pem();
    let damaged = section("CERTIFICATE");
    let load = |text: &str| {
        let client_ca = Some(authority.write("clients.pem", text));
        load_server(&ServerFiles { client_ca, ..server_files(&[&good]) }, &Resumption::default())
    };
    let (at, message) = one_problem(load(&damaged));
    assert_eq!(at, authority.path("clients.pem"));
    assert_eq!(message, "none of the certificates can be read");
    let warnings = load(&format!("{damaged}{ca}")).unwrap().warnings;
    assert_eq!(warnings.len(), 1);
    assert_eq!(warnings[0].message, "1 certificates cannot be read and are not trusted");
    assert_eq!(load(&ca).unwrap().warnings, []);
}

#[test]
fn warnings() {
    let authority = Authority::new();
    let key = KeyPair::generate().unwrap();
    let mut params = params(&["A.example", "*.b.example"]);
    params.not_before = date_time_ymd(2025, 1, 1);
    params.not_after = date_time_ymd(2026, 1, 1);
    let certificate = params.signed_by(&key, &authority.issuer).unwrap();
    let files = CertificateFiles {
        certificate: authority.write("a.pem", certificate.pem()),
        key: authority.write("a.key", key.serialize_pem()),
    };
    let files = ServerFiles { certificates: vec![files], ..ServerFiles::default() };
    let table = [
        (END - 300 * DAY, None),
        (END - 15 * DAY, None),
        (END - 13 * DAY, Some("the certificate expires in 13 days")),
        (END + 3 * DAY, Some("the certificate expired 3 days ago")),
        (END - 367 * DAY, Some("the certificate is not yet valid, only in 2 days")),
    ];
    for (now, expected) in table {
        let loaded = load_at(&files, &Resumption::default(), now).unwrap();
        let warnings: Vec<&str> =
            loaded.warnings.iter().map(|warning| warning.message.as_str()).collect();
        assert_eq!(warnings, expected.into_iter().collect::<Vec<_>>());
        let facts = &loaded.certificates[0];
        assert_eq!(facts.names, ["a.example", "*.b.example"]);
        let end = UNIX_EPOCH + Duration::from_secs(END.unsigned_abs());
        assert_eq!(facts.expires, Some(end));
    }

    for (mode, warned) in [(0o600, false), (0o640, false), (0o644, true)] {
        let path = authority.path("a.key");
        fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
        let loaded = load_at(&files, &Resumption::default(), END - 300 * DAY).unwrap();
        let told = loaded.warnings.iter().any(|warning| {
            warning.path == path && warning.message.starts_with("every user can read")
        });
        assert_eq!(told, warned, "{mode:o}");
    }
}

#[test]
fn a_certificate_that_is_never_shown() {
    let authority = Authority::new();
    let named = authority.issue("named", &["a.example"]);
    let address = authority.issue("address", &["192.0.2.1"]);
    let load =
        |files: &[&Issued]| load_server(&server_files(files), &Resumption::default()).unwrap();
    assert_eq!(load(&[&address, &named]).warnings, []);
    let warnings = load(&[&named, &address]).warnings;
    assert_eq!(warnings.len(), 1);
    assert_eq!(warnings[0].path, address.files.certificate);
    assert!(warnings[0].message.starts_with("no client is shown"), "{}", warnings[0]);
}

#[test]
fn one_file_may_hold_both() {
    let authority = Authority::new();
    let good = authority.issue("good", &["a.example"]);
    let both = [&good.files.key, &good.files.certificate].map(|path| fs::read(path).unwrap());
    let path = authority.write("both.pem", both.concat());
    assert_eq!(load(path.clone(), path.clone()).unwrap().warnings, []);
    // Windows line ends.
    let text = String::from_utf8(both.concat()).unwrap().replace('\n', "\r\n");
    authority.write("both.pem", text);
    load(path.clone(), path).unwrap();
}
