//! `[[listener]]`

use crate::config::RunArgs;

use super::super::model::{Certificate, Listener, ListenerTls};
use super::super::problem::Diagnostic;
use super::super::reader::{Given, Section};
use super::super::value::{count, flag, off, parsed, path, text, word};
use super::super::{Backlog, LISTENERS_MAX, ListenOn};
use super::{Givens, TRUSTED_MAX, access, file_place, missing, names_once, networks};

/// Most certificates of a listener.
const CERTIFICATES_MAX: usize = 1_024;

/// The listeners of the file, with `--listen` in the place of the only one's address.
pub(super) fn read(top: &Section<'_, '_>, run: &RunArgs) -> Givens<Listener> {
    let sections = top.tables("listener", "listener", LISTENERS_MAX);
    let several = sections.len() > 1;
    if several && let Some(address) = run.listen {
        let given = Given::flag(address, "--listen");
        let problem = given.remark("the file has several listeners: which one is meant?");
        top.reader().report(problem.with_expected("no flag, or a file with one listener"));
    }
    let flag = run.listen.filter(|_| !several).map(|a| Given::flag(ListenOn::Tcp(a), "--listen"));
    let mut listeners: Givens<Listener> =
        sections.iter().filter_map(|section| listener(section, flag.as_ref())).collect();
    if sections.is_empty() {
        match flag {
            Some(flag) => {
                let listener = run.listen.map(Listener::at);
                listeners.extend(listener.map(|listener| flag.with(listener)));
            }
            None => complain_of_none(top),
        }
    }
    names_once(&listeners, |l| &l.name, |problem| top.reader().report(problem));
    listeners
}

fn complain_of_none(top: &Section<'_, '_>) {
    if top.has("listener") || !top.reader().is_complete() {
        return;
    }
    let message = "no listener is configured: set listener.address or pass --listen";
    top.reader().report(
        Diagnostic::new(file_place(top), message)
            .with_key("listener.address")
            .with_found("nothing")
            .with_expected("an address such as \"0.0.0.0:8080\""),
    );
}

fn listener(section: &Section<'_, '_>, over: Option<&Given<ListenOn>>) -> Option<Given<Listener>> {
    let in_file = section.get("address", parsed::<ListenOn>);
    let address = match over {
        Some(flag) => Some(flag.clone()),
        None => {
            if !section.has("address") {
                complain_of_none_in(section);
            }
            in_file
        }
    };
    let name = section.get("name", text).map(|given| given.value);
    let backlog = section.value("backlog", Backlog::of::<4_096>(), count);
    let reuseport = section.value("reuseport", false, flag);
    let proxy_protocol_from = networks(section, "proxy_protocol_from", TRUSTED_MAX);
    let max_sessions = section.value("max_sessions", None, off(count));
    let access = access(section);
    let packets = section.value("packets", true, flag);
    let tls = section.table("tls", "listener.tls");
    let tls = tls.is_there().then(|| listener_tls(&tls));
    let address = address?;
    let name = name.unwrap_or_else(|| address.value.to_string());
    Some(address.with(Listener {
        name,
        address: address.value.clone(),
        backlog,
        reuseport,
        proxy_protocol_from,
        max_sessions,
        access,
        packets,
        tls,
    }))
}

fn complain_of_none_in(section: &Section<'_, '_>) {
    if !section.reader().is_complete() {
        return;
    }
    let message = "no listener is configured: set listener.address or pass --listen";
    section.reader().report(
        Diagnostic::new(section.place(), message)
            .with_key("listener.address")
            .with_found("nothing")
            .with_expected("an address such as \"0.0.0.0:8080\""),
    );
}

fn listener_tls(section: &Section<'_, '_>) -> ListenerTls {
    let of = "listener.tls.certificates";
    let list = section.tables("certificates", of, CERTIFICATES_MAX);
    if list.is_empty() {
        let expected = "a list such as [{ certificate = \"/a.pem\", key = \"/a.key\" }]";
        missing(section, "certificates", expected);
    }
    let certificates = list.iter().filter_map(certificate).collect();
    let client_ca = section.get("client_ca", path);
    const AUTH: &[(&str, bool)] = &[("require", false), ("optional", true)];
    let auth = section.get("client_auth", word(AUTH));
    if let Some(auth) = &auth
        && client_ca.is_none()
        && !section.has("client_ca")
    {
        let problem = auth.remark("without listener.tls.client_ca it does nothing");
        section.reader().report(problem.with_expected("client_ca beside it"));
    }
    const VERSIONS: &[(&str, bool)] = &[("1.2", false), ("1.3", true)];
    ListenerTls {
        certificates,
        client_ca,
        client_optional: auth.is_some_and(|auth| auth.value),
        only_tls13: section.value("min_version", false, word(VERSIONS)),
    }
}

/// A certificate and its key, from a section that has both keys.
fn certificate(section: &Section<'_, '_>) -> Option<Certificate> {
    missing(section, "certificate", "a path of a PEM file");
    missing(section, "key", "a path of a PEM file");
    let (certificate, key) = (section.get("certificate", path), section.get("key", path));
    Some(Certificate { certificate: certificate?, key: key? })
}
