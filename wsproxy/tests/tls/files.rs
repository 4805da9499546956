//! What `wsproxy check` and a start say about files that can't be used.

use std::fs;

use rcgen::KeyPair;

use crate::{
    support::{TempDir, complaint, run},
    tls_support::{Files, authority, listener_tls, local, shown, text},
};

/// Line and column of a text in a configuration, as a problem names them.
fn place(config: &str, value: &str) -> String {
    let at = config.find(value).unwrap();
    let line = config[..at].lines().count();
    let column = at - config[..at].rfind('\n').map_or(0, |end| end + 1) + 1;
    format!("{line}:{column}")
}

/// The complaint about `config` must name the place of `value`, and say `message`.
fn complains(dir: &TempDir, config: &str, value: &str, key: &str, message: &str) {
    let file = dir.join("wsproxy.toml");
    fs::write(&file, config).unwrap();
    let place = format!("{}:{}: {key}: ", file.display(), place(config, &format!("\"{value}\"")));
    for command in [&["check"][..], &["run", "--config"]] {
        let output = run(command.iter().map(|&word| word.into()).chain([file.clone()]));
        let said = complaint(&output);
        let line = said.lines().find(|line| line.contains(&place));
        let line = line.unwrap_or_else(|| panic!("{command:?}: no {place} in {said}"));
        assert!(line.contains(message), "{command:?}: {line}");
        assert!(!output.status.success());
        if command[0] == "check" {
            assert_eq!(output.status.code(), Some(78), "{said}");
            assert_eq!(said.lines().count(), 1, "{said}");
        }
    }
}

const CERTIFICATE: &str = "listener.tls.certificates.certificate";
const KEY: &str = "listener.tls.certificates.key";

#[test]
fn files_that_cannot_be_used_are_named_with_line_and_column() {
    let dir = TempDir::new();
    let good = local().write(&dir, "good");
    let put = |name: &str, text: &str| {
        let path = dir.join(name);
        fs::write(&path, text).unwrap();
        path
    };
    let certificate = |path| Files { certificate: path, key: good.key.clone() };
    let key = |path| Files { certificate: good.certificate.clone(), key: path };
    let other = KeyPair::generate().unwrap().serialize_pem();
    let encrypted = local().key_pem.replace("PRIVATE KEY", "ENCRYPTED PRIVATE KEY");
    let cut = &local().pem[..local().pem.len() / 2];
    let damaged = local().key_pem.replace("MIG", "MIH");
    let foreign = authority().issue(&["other.example"]).pem;
    for (pair, what, message) in [
        (certificate(dir.join("nowhere.pem")), CERTIFICATE, "there is no such file"),
        (certificate(put("empty.pem", "")), CERTIFICATE, "is empty"),
        (certificate(put("text.pem", "hello\n")), CERTIFICATE, "has no certificate in PEM"),
        (certificate(put("cut.pem", cut)), CERTIFICATE, "a PEM section has no end"),
        (
            certificate(put("key.pem", &local().key_pem)),
            CERTIFICATE,
            "has no certificate, but: PRIVATE KEY",
        ),
        (key(dir.join("nowhere.key")), KEY, "there is no such file"),
        (key(put("swapped.key", &local().pem)), KEY, "has no private key, but: CERTIFICATE"),
        (key(put("encrypted.key", &encrypted)), KEY, "the private key is encrypted"),
        (key(put("damaged.key", &damaged)), KEY, "the private key is damaged"),
        (key(put("other.key", &other)), KEY, "the private key does not belong to"),
        (
            Files {
                certificate: put("foreign.pem", &foreign),
                key: put("a.key", &local().key_pem),
            },
            KEY,
            "the private key does not belong to the certificate of",
        ),
    ] {
        let config = text(&listener_tls(&[&good, &pair], ""), "\"127.0.0.1:9\"", "");
        let path = if what == KEY { &pair.key } else { &pair.certificate };
        complains(&dir, &config, &shown(path), what, message);
    }
    let directory = shown(&good.certificate.parent().unwrap().join("sub"));
    fs::create_dir(&directory).unwrap();
    let pair = certificate(directory.clone().into());
    let config = text(&listener_tls(&[&good, &pair], ""), "\"127.0.0.1:9\"", "");
    complains(&dir, &config, &directory, CERTIFICATE, "is not a file");

    let nothing = shown(&dir.join("no-ca.pem"));
    let tls = listener_tls(&[&good], &format!("client_ca = \"{nothing}\""));
    let config = text(&tls, "\"127.0.0.1:9\"", "");
    complains(&dir, &config, &nothing, "listener.tls.client_ca", "there is no such file");

    let mut upstream = format!("[upstream.tls]\nca = \"{nothing}\"\n");
    let config = text("", "\"wss://127.0.0.1:9\"", &upstream);
    complains(&dir, &config, &nothing, "upstream.tls.ca", "there is no such file");
    let (shown_pem, wrong) = (shown(&good.certificate), shown(&dir.join("other.key")));
    upstream = format!("[upstream.tls]\nverify = false\ncertificate = \"{shown_pem}\"\n");
    upstream.push_str(&format!("key = \"{wrong}\"\n"));
    let config = text("", "\"wss://127.0.0.1:9\"", &upstream);
    complains(&dir, &config, &wrong, "upstream.tls.key", "the private key does not belong to");
}

#[test]
fn several_bad_files_are_named_at_once() {
    let dir = TempDir::new();
    let file = dir.join("wsproxy.toml");
    let pairs = ["one", "two"].map(|name| Files {
        certificate: dir.join(&format!("{name}.pem")),
        key: dir.join(&format!("{name}.key")),
    });
    let config = text(&listener_tls(&[&pairs[0], &pairs[1]], ""), "\"127.0.0.1:9\"", "");
    fs::write(&file, config).unwrap();
    let output = run([&"check".into(), &file]);
    let said = complaint(&output);
    assert_eq!(said.lines().count(), 4, "{said}");
    for pair in &pairs {
        for path in [&pair.certificate, &pair.key] {
            assert!(said.contains(&shown(path)), "{said}");
        }
    }
    let good = local().write(&dir, "good");
    fs::write(&file, text(&listener_tls(&[&good], ""), "\"127.0.0.1:9\"", "")).unwrap();
    let output = run([&"check".into(), &file]);
    assert!(output.status.success(), "{}", complaint(&output));
}
