//! A host beyond a router: one of the namespaces of a [`Net`] forwards, and a fourth one lies
//! behind it. Needs root.

use std::{fs, net::IpAddr, process::Command};

use crate::namespaces::{Entrance, Family, Net, Place, address, device, ip, numbered};

/// The device at either end of the link between router and host.
const LINK: &str = "beyond";

/// The host; gone when dropped.
pub struct Beyond<'net> {
    net: &'net Net,
    router: Place,
    namespace: String,
}

impl<'net> Beyond<'net> {
    /// Makes `router` (the client's or the server's namespace) forward, and a host behind it.
    ///
    /// # Panics
    /// Without the right to.
    #[must_use]
    pub fn add(net: &'net Net, router: Place) -> Self {
        let namespace = format!("{}beyond", net.namespace(router));
        // From here on `Drop` cleans up, however far this comes.
        let beyond = Self { net, router, namespace };
        let (far, near) = (&beyond.namespace, net.namespace(router));
        ip(&format!("netns add {far}"));
        ip(&format!("-n {far} link set lo up"));
        let mtu = net.mtu;
        ip(&format!("link add {LINK} mtu {mtu} netns {far} type veth peer {LINK} netns {near}"));
        net.within(router, || {
            for knob in ["ipv4/ip_forward", "ipv6/conf/all/forwarding"] {
                fs::write(format!("/proc/sys/net/{knob}"), "1").expect("a router forwards");
            }
        });
        for ns in [far, &near] {
            ip(&format!("-n {ns} link set {LINK} mtu {mtu} up"));
        }
        for family in net.families() {
            beyond.connect(*family);
        }
        beyond
    }

    fn connect(&self, family: Family) {
        let (far, near) = (&self.namespace, self.net.namespace(self.router));
        let gateway = self.net.namespace(Place::Gateway);
        let (prefix, flags) = if family == Family::V4 { (24, "") } else { (64, "nodad") };
        let (host, its_router) = (self.address(family), self.number(1, family));
        ip(&format!("-n {near} addr add {its_router}/{prefix} dev {LINK} {flags}"));
        ip(&format!("-n {far} addr add {host}/{prefix} dev {LINK} {flags}"));
        ip(&format!("-n {far} route add default via {its_router}"));
        let (hop, link) = (address(self.router, self.router, family), device(self.router));
        let net = self.number(0, family);
        ip(&format!("-n {gateway} route add {net}/{prefix} via {hop} dev {link}"));
    }

    fn number(&self, host: u8, family: Family) -> IpAddr {
        numbered(if self.router == Place::Client { 5 } else { 6 }, host, family)
    }

    /// Where the host is.
    #[must_use]
    pub fn address(&self, family: Family) -> IpAddr {
        self.number(2, family)
    }

    /// Changes the MTU of the link between router and host.
    ///
    /// # Panics
    /// When the kernel refuses.
    pub fn set_mtu(&self, mtu: u32) {
        for ns in [&self.namespace, &self.net.namespace(self.router)] {
            ip(&format!("-n {ns} link set {LINK} mtu {mtu}"));
        }
    }

    /// The router says of the host that it is unreachable, or not any more.
    ///
    /// # Panics
    /// When the kernel refuses.
    pub fn set_unreachable(&self, family: Family, unreachable: bool) {
        let (router, host) = (self.net.namespace(self.router), self.address(family));
        let verb = if unreachable { "add" } else { "del" };
        let prefix = if family == Family::V4 { 32 } else { 128 };
        // Before the link's own route, which says of one host less than this.
        ip(&format!("-n {router} route {verb} unreachable {host}/{prefix} metric 1"));
    }

    /// Runs `work` on the host, on a thread of its own.
    ///
    /// # Panics
    /// When `work` does.
    pub fn within<T: Send>(&self, work: impl FnOnce() -> T + Send) -> T {
        Entrance::to(&self.namespace).run(work)
    }
}

impl Drop for Beyond<'_> {
    fn drop(&mut self) {
        // May be missing when `add` failed; nothing to add to its panic.
        let _ = Command::new("ip").args(["netns", "del", &self.namespace]).output();
    }
}
