use std::thread;

use rustls::version::TLS12;

use super::*;

async fn kind(server: &Arc<ServerConfig>, client: &Arc<ClientConfig>) -> Option<HandshakeKind> {
    let shaken = shake(server, client, "a.example").await;
    let kind = shaken.server.unwrap().kind;
    assert_eq!(kind, shaken.client.unwrap().kind);
    kind
}

/// As [`Authority::client`], with TLS 1.2 alone.
fn old_client(authority: &Authority, tickets: bool) -> ClientConfig {
    let mut roots = rustls::RootCertStore::empty();
    roots.add(authority.certificate().der().clone()).unwrap();
    let mut client = ClientConfig::builder_with_provider(provider())
        .with_protocol_versions(&[&TLS12])
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    if !tickets {
        client.resumption =
            client.resumption.tls12_resumption(rustls::client::Tls12Resumption::SessionIdOnly);
    }
    client
}

#[tokio::test]
async fn sessions_survive_new_certificates() {
    let authority = Authority::new();
    for client in [authority.client(), old_client(&authority, true), old_client(&authority, false)]
    {
        let client = Arc::new(client);
        let own = authority.issue("server", &["a.example"]);
        let files = server_files(&[&own]);
        let resumption = Resumption::default();
        let before = load_server(&files, &resumption).unwrap().config;
        assert_eq!(kind(&before, &client).await, Some(HandshakeKind::Full));
        assert_eq!(kind(&before, &client).await, Some(HandshakeKind::Resumed));

        authority.issue("server", &["a.example"]);
        let after = load_server(&files, &resumption).unwrap().config;
        assert_eq!(kind(&after, &client).await, Some(HandshakeKind::Resumed));
        // Another listener knows nothing of them.
        let other = server(&files);
        assert_eq!(kind(&other, &client).await, Some(HandshakeKind::Full));
    }
}

/// A session from before the rule must not get past it.
#[tokio::test]
async fn sessions_do_not_survive_a_new_rule_for_clients() {
    let authority = Authority::new();
    let second = Authority::named("second CA");
    let own = authority.issue("server", &["a.example"]);
    let shown = authority.issue("client", &["client"]);
    let open = server_files(&[&own]);
    let optional = ServerFiles {
        client_ca: Some(authority.ca()),
        client_optional: true,
        ..server_files(&[&own])
    };
    let required = ServerFiles { client_optional: false, ..optional.clone() };
    let moved = ServerFiles { client_ca: Some(second.ca()), ..required.clone() };
    let none = ClientFiles { ca: Some(authority.ca()), ..ClientFiles::default() };
    let own = ClientFiles { certificate: Some(shown.files), ..none.clone() };

    let table = [
        ("asked for now", &none, &open, &required, false),
        ("required now", &none, &optional, &required, false),
        ("another CA", &own, &required, &moved, false),
        ("the same", &own, &required, &required, true),
    ];
    for (what, files, before, after, let_in) in table {
        let client = Arc::new(client(files));
        let resumption = Resumption::default();
        let before = load_server(before, &resumption).unwrap().config;
        kind(&before, &client).await;
        let after = load_server(after, &resumption).unwrap().config;
        let shaken = shake(&after, &client, "a.example").await;
        let kind = shaken.server.map(|side| side.kind);
        assert_eq!(kind.is_ok(), let_in, "{what}");
        if let_in {
            assert_eq!(kind.unwrap(), Some(HandshakeKind::Resumed), "{what}");
        }
    }
}

#[test]
fn the_order_of_authorities_is_no_new_rule() {
    let authority = Authority::new();
    let second = Authority::named("second CA");
    let own = authority.issue("server", &["a.example"]);
    let (a, b) = (authority.certificate().pem(), second.certificate().pem());
    let files = ServerFiles { client_ca: Some(authority.ca()), ..server_files(&[&own]) };
    let resumption = Resumption::default();
    let load = |bundle: String| {
        authority.write("ca.pem", bundle);
        load_server(&files, &resumption).unwrap().config
    };
    let first = load(format!("{a}{b}"));
    let turned = load(format!("{b}{a}{a}"));
    let fewer = load(a.clone());
    assert!(Arc::ptr_eq(&first.ticketer, &turned.ticketer));
    assert!(!Arc::ptr_eq(&first.ticketer, &fewer.ticketer));
}

#[test]
fn threads_share_one() {
    let authority = Authority::new();
    let own = authority.issue("server", &["a.example"]);
    let files = server_files(&[&own]);
    let resumption = Resumption::default();
    let configs: Vec<_> = thread::scope(|scope| {
        let load = || load_server(&files, &resumption).unwrap().config;
        let threads: Vec<_> = (0..4).map(|_| scope.spawn(load)).collect();
        threads.into_iter().map(|thread| thread.join().unwrap()).collect()
    });
    for config in &configs {
        assert!(Arc::ptr_eq(&config.session_storage, &configs[0].session_storage));
    }
}
