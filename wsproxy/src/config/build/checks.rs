//! What only several values together can have wrong with them.

use super::super::model::{Listener, Upstream};
use super::super::problem::Diagnostic;
use super::super::reader::{Given, Reader, quote};
use super::super::routing::{Action, Route};
use super::super::{ListenAddr, ListenOn, ServerAddr, ServerPlace};

/// Addresses that exclude each other.
pub(super) fn addresses(
    reader: &Reader<'_, '_>,
    listeners: &[Given<Listener>],
    admin: Option<&Given<ListenAddr>>,
    warnings: &mut Vec<Diagnostic>,
) {
    for (at, listener) in listeners.iter().enumerate() {
        let mine = &listener.value.address;
        let taken = listeners[..at].iter().find(|other| other.value.address.overlaps(mine));
        if let Some(taken) = taken {
            let expected = format!("an address that does not overlap {}", taken.value.address);
            reader.report(
                listener
                    .remark("the address of another listener")
                    .with_found(quote(&mine.to_string()))
                    .with_expected(expected),
            );
        }
    }
    if let Some(admin) = admin {
        admin_address(listeners, admin, &mut |problem| reader.report(problem), warnings);
    }
}

/// An admin address of its own, and one that others can't reach.
pub(super) fn admin_address(
    listeners: &[Given<Listener>],
    admin: &Given<ListenAddr>,
    report: &mut dyn FnMut(Diagnostic),
    warnings: &mut Vec<Diagnostic>,
) {
    let mine = ListenOn::Tcp(admin.value);
    if let Some(taken) = listeners.iter().find(|l| l.value.address.overlaps(&mine)) {
        let expected = format!("an address that does not overlap {}", taken.value.address);
        report(
            admin
                .remark("the address of the listener")
                .with_found(quote(&admin.value.to_string()))
                .with_expected(expected),
        );
    } else if !admin.value.is_loopback() {
        warnings.push(
            admin
                .remark("other machines can reach the admin port, which asks nobody who they are")
                .with_found(quote(&admin.value.to_string()))
                .with_expected("a loopback address such as \"127.0.0.1:9901\""),
        );
    }
}

/// A server that is the listener would connect in a circle until descriptors run out.
pub(super) fn no_loop(
    listener: &Listener,
    servers: &[Given<ServerAddr>],
    report: &mut dyn FnMut(Diagnostic),
) {
    for server in servers {
        let loops = match (&listener.address, &server.value.place) {
            (ListenOn::Tcp(address), ServerPlace::Tcp(upstream)) => address.is_reached_by(upstream),
            (ListenOn::Unix(here), ServerPlace::Unix(there)) => here == there,
            _ => false,
        };
        if loops {
            report(
                server
                    .remark("the gateway would connect to itself")
                    .with_found(quote(&server.value.to_string()))
                    .with_expected(format!(
                        "a server other than the listener, {}",
                        listener.address
                    )),
            );
        }
    }
}

/// Groups that no route names.
pub(super) fn unused(
    upstreams: &[Given<Upstream>],
    routes: &[Given<Route>],
    warnings: &mut Vec<Diagnostic>,
) {
    for group in upstreams {
        let name = &group.value.name;
        let used = routes
            .iter()
            .any(|route| matches!(&route.value.action, Action::Upstream(f) if f.upstream == *name));
        if !used {
            let warning = group.remark("no route uses this upstream").with_found(quote(name));
            warnings.push(warning.with_expected("a route with it, or no such upstream"));
        }
    }
}
