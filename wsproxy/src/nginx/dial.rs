//! How servers of an upstream are connected to: in nginx a matter of locations, here of the
//! upstream.

use super::listeners::PREFIX;
use super::notes::Notes;
use super::parser::Directive;
use super::render::{Entries, Section};
use super::scope::Scope;
use super::units::{absolute, is_host_name};

/// How to connect.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Dial {
    pub tls: bool,
    ca: Option<String>,
    server_name: Option<String>,
    unverified: bool,
    certificate: Option<(String, String)>,
    pub transparent: bool,
}

impl Dial {
    /// What a location says about it.
    pub(super) fn of(scope: &Scope<'_>, tls: bool, proxy_pass: &Directive, notes: &Notes) -> Self {
        let mut dial = Self { tls, transparent: transparent(scope, notes), ..Self::default() };
        if !tls {
            return dial;
        }
        let path = |name| scope.word(name).and_then(|path| absolute(path, PREFIX));
        dial.ca = path("proxy_ssl_trusted_certificate");
        dial.certificate = path("proxy_ssl_certificate").zip(path("proxy_ssl_certificate_key"));
        dial.server_name = scope.word("proxy_ssl_name").filter(|n| is_host_name(n)).map(Into::into);
        match scope.find("proxy_ssl_verify") {
            Some(directive) if directive.arg(0) == "off" => {
                dial.unverified = true;
                let message = "as written: whoever is between could read and change everything";
                notes.changed(directive, message);
            }
            Some(_) => {}
            None => notes.changed(
                proxy_pass,
                "the server's certificate is verified, which nginx does not by default: name \
                 its authority in upstream.tls.ca if it is not one of the system's",
            ),
        }
        dial
    }

    /// `[upstream.tls]`, if there is anything to say.
    pub(super) fn section(&self) -> Option<Section> {
        let mut entries = Entries::default();
        entries.set_if("ca", self.ca.clone());
        entries.set_if("server_name", self.server_name.clone());
        if self.unverified {
            entries.set("verify", false);
        }
        if let Some((certificate, key)) = &self.certificate {
            entries.set("certificate", certificate.as_str());
            entries.set("key", key.as_str());
        }
        let is_there = !entries.0.is_empty();
        is_there.then(|| Section { entries, ..Section::new("[upstream.tls]") })
    }
}

fn transparent(scope: &Scope<'_>, notes: &Notes) -> bool {
    let Some(directive) = scope.find("proxy_bind") else { return false };
    match directive.arg(0) {
        "off" => false,
        "$remote_addr" | "$remote_addr:$remote_port" if directive.arg(1) == "transparent" => true,
        _ => {
            let message = "left out: the system chooses the address to connect from, unless it \
                           is the client's";
            notes.unsupported(directive, message);
            false
        }
    }
}
