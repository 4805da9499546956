//! Which certificate is shown, and files that change.

use std::fs;

use rustls::pki_types::CertificateDer;

use crate::{
    front::{Front, carries},
    support::{TempDir, wait_for},
    tls_support::{
        BOTH, Client, Identity, authority, client_config, curious_config, listener_tls, local,
    },
};

fn shown(client: &Client) -> CertificateDer<'static> {
    client.conn.peer_certificates().unwrap()[0].clone()
}

#[test]
fn the_name_chooses_the_certificate() {
    let dir = TempDir::new();
    let first = authority().issue(&["first.example", "shared.example"]);
    let second = authority().issue(&["second.example", "Mixed.Example"]);
    let wild = authority().issue(&["*.wild.example"]);
    let deep = authority().issue(&["deep.wild.example"]);
    let all = [("first", &first), ("second", &second), ("wild", &wild), ("deep", &deep)];
    let files: Vec<_> = all.iter().map(|(name, identity)| identity.write(&dir, name)).collect();
    let listener = listener_tls(&files.iter().collect::<Vec<_>>(), "");
    let front = Front::start(dir, &listener, "");
    let mut config = curious_config();
    let ask = |config: &rustls::ClientConfig, name: &str| shown(&front.shaken(config, name));
    for (name, expected) in [
        ("first.example", &first),
        ("shared.example", &first),
        ("second.example", &second),
        ("mixed.example", &second),
        ("any.wild.example", &wild),
        ("deep.wild.example", &deep),
        // A wildcard stands for one label.
        ("too.any.wild.example", &first),
        ("wild.example", &first),
        ("unknown.example", &first),
        ("127.0.0.1", &first),
    ] {
        let found = ask(&config, name);
        let at = all.iter().find(|(_, identity)| identity.certificate == found);
        assert!(found == expected.certificate, "{name} gets {:?}", at.map(|(file, _)| file));
    }
    config.enable_sni = false;
    assert!(ask(&config, "second.example") == first.certificate);
    // It is also one that a client accepts who looks closely.
    for name in ["first.example", "second.example", "any.wild.example", "deep.wild.example"] {
        front.shaken(&client_config(BOTH, None), name);
    }
}

/// Puts a certificate in the place of another one, as ACME clients do: two files, one by one.
fn replace(front: &Front, identity: &Identity) {
    for (name, text) in [("local.pem", &identity.pem), ("local.key", &identity.key_pem)] {
        let new = front.dir.join("new");
        fs::write(&new, text).unwrap();
        fs::rename(&new, front.dir.join(name)).unwrap();
    }
}

#[test]
fn certificates_follow_their_files_while_a_session_goes_on() {
    let dir = TempDir::new();
    let files = local().write(&dir, "local");
    let front = Front::start(dir, &listener_tls(&[&files], ""), "");
    let config = curious_config();
    let mut client = front.client(&config, "localhost");
    let (mut upstream, _) = front.open(&mut client);
    carries(&mut client, &mut upstream);
    assert!(shown(&client) == local().certificate);

    // What can't be used is said once and not used.
    fs::write(&files.key, "no key").unwrap();
    let said = wait_for("the log says it", || front.proxy.logged("changed TLS files are not used"));
    assert!(said.to_string().contains("local.key"), "{said}");
    assert!(shown(&front.shaken(&curious_config(), "localhost")) == local().certificate);
    carries(&mut client, &mut upstream);

    let new = authority().issue(&["localhost"]);
    replace(&front, &new);
    wait_for("the new certificate", || {
        carries(&mut client, &mut upstream);
        let found = shown(&front.shaken(&curious_config(), "localhost"));
        assert!(found == new.certificate || found == local().certificate);
        (found == new.certificate).then_some(())
    });
    carries(&mut client, &mut upstream);
    assert_eq!(front.proxy.metric("wsproxy_reloads_total{result=\"ok\"}"), 0);
    assert_eq!(front.proxy.all_logged("changed TLS files are not used").len(), 1);
}

#[test]
fn a_reload_takes_new_certificates_at_once() {
    let dir = TempDir::new();
    let files = local().write(&dir, "local");
    let listener = listener_tls(&[&files], "");
    let mut front = Front::start(dir, &listener, "");
    let mut client = front.client(&curious_config(), "localhost");
    let (mut upstream, _) = front.open(&mut client);
    let new = authority().issue(&["localhost"]);
    replace(&front, &new);
    front.reload(&listener, "");
    assert!(shown(&front.shaken(&curious_config(), "localhost")) == new.certificate);
    carries(&mut client, &mut upstream);
}
