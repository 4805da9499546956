//! Three network namespaces in a row (client, gateway, server), joined by two
//! veth pairs. A socket belongs to the namespace of the thread that opened it,
//! whoever uses it later: short-lived threads open the peers' sockets, and the
//! test itself lives in the gateway.

use std::{
    fs::{self, File},
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    os::fd::AsFd,
    process::Command,
    sync::atomic::{AtomicU32, Ordering},
    thread,
};

use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

/// One of the three.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
    /// Where clients are.
    Client,
    /// Where the datapath runs.
    Gateway,
    /// Where servers are.
    Server,
}

impl Place {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Client, Self::Gateway, Self::Server];
}

/// Address family of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Family {
    /// IPv4.
    V4,
    /// IPv6.
    V6,
}

/// The namespaces; gone when dropped, the links with them.
#[derive(Debug)]
pub struct Net {
    name: String,
    /// Largest packet.
    pub mtu: u32,
    /// No packet is larger, not even on its way through a stack.
    one_by_one: bool,
}

/// A way into a namespace, for a thread that stays there.
#[derive(Debug)]
pub struct Entrance(File);

impl Entrance {
    /// The way into the namespace of this name.
    pub(crate) fn to(namespace: &str) -> Self {
        let path = format!("/run/netns/{namespace}");
        Self(File::open(&path).unwrap_or_else(|e| panic!("{path}: {e}")))
    }

    /// Runs `work` there, on a thread of its own.
    pub(crate) fn run<T: Send>(self, work: impl FnOnce() -> T + Send) -> T {
        let result = thread::scope(|scope| {
            let work = scope.spawn(|| {
                self.enter();
                work()
            });
            work.join()
        });
        // The message was printed by that thread already.
        result.unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    }

    /// Moves this thread into the namespace.
    ///
    /// # Panics
    /// Without the right to.
    pub fn enter(self) {
        let network = Some(LinkNameSpaceType::Network);
        move_into_link_name_space(self.0.as_fd(), network).expect("setns(2)");
    }
}

/// MTU below which Linux has no IPv6 on a link (RFC 8200, section 5).
const V6_MTU: u32 = 1280;

pub(crate) fn ip(words: &str) {
    let output = Command::new("ip")
        .args(words.split_whitespace())
        .output()
        .unwrap_or_else(|e| panic!("ip (iproute2) is needed: {e}"));
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "ip {words}: {errors}");
}

impl Net {
    /// Makes them. With an MTU below Ethernet's, packets really are that
    /// small: veth would pass 64 KiB at once whatever its MTU.
    #[must_use]
    pub fn new(mtu: u32) -> Self {
        Self::build(mtu, mtu < 1500)
    }

    /// The same, with small packets whatever the MTU: each is lost or comes alone.
    #[must_use]
    pub fn one_by_one(mtu: u32) -> Self {
        Self::build(mtu, true)
    }

    fn build(mtu: u32, one_by_one: bool) -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let name = format!("wsp{}n{number}", std::process::id());
        // From here on `Drop` cleans up, however far this comes.
        let net = Self { name, mtu, one_by_one };
        for place in Place::ALL {
            let ns = net.namespace(place);
            ip(&format!("netns add {ns}"));
            ip(&format!("-n {ns} link set lo up"));
        }
        net.join(Place::Client);
        net.join(Place::Server);
        net
    }

    fn join(&self, place: Place) {
        let link = device(place);
        let (far, gateway) = (self.namespace(place), self.namespace(Place::Gateway));
        let mtu = self.mtu;
        ip(&format!("link add {link} mtu {mtu} netns {far} type veth peer {link} netns {gateway}"));
        for at in [place, Place::Gateway] {
            self.set_link(at, link, &format!("mtu {mtu}"));
            if self.one_by_one {
                self.set_link(at, link, "gso_max_segs 1");
            }
            self.set_link(at, link, "up");
            for family in self.families() {
                self.add_address(at, link, address(place, at, *family));
            }
        }
    }

    /// Gives a device an address, usable at once: nobody else has it.
    pub(crate) fn add_address(&self, place: Place, link: &str, address: IpAddr) {
        let (prefix, flags) = if address.is_ipv4() { (24, "") } else { (64, "nodad") };
        let ns = self.namespace(place);
        ip(&format!("-n {ns} addr add {address}/{prefix} dev {link} {flags}"));
    }

    /// Announces a smaller MSS to that host.
    pub(crate) fn announce(&self, place: Place, link: &str, host: IpAddr, mss: u32) {
        let (ns, prefix) = (self.namespace(place), if host.is_ipv4() { 32 } else { 128 });
        ip(&format!("-n {ns} route add {host}/{prefix} dev {link} advmss {mss}"));
    }

    /// `ip link set`.
    pub(crate) fn set_link(&self, place: Place, link: &str, words: &str) {
        ip(&format!("-n {} link set {link} {words}", self.namespace(place)));
    }

    /// The name of a namespace, for `ip -n`.
    #[must_use]
    pub fn namespace(&self, place: Place) -> String {
        format!("{}{place:?}", self.name)
    }

    /// Families that this net speaks.
    #[must_use]
    pub fn families(&self) -> &'static [Family] {
        if self.mtu >= V6_MTU { &[Family::V4, Family::V6] } else { &[Family::V4] }
    }

    /// Runs `work` in a namespace, on a thread of its own.
    ///
    /// # Panics
    /// When `work` does.
    pub fn within<T: Send>(&self, place: Place, work: impl FnOnce() -> T + Send) -> T {
        self.entrance(place).run(work)
    }

    /// The way into a namespace.
    ///
    /// # Panics
    /// When it is gone.
    #[must_use]
    pub fn entrance(&self, place: Place) -> Entrance {
        Entrance::to(&self.namespace(place))
    }

    /// A TAP device that is there until [`Self::remove`], for smoltcp's `TunTapInterface` to open.
    pub(crate) fn add_tap(&self, place: Place, name: &str) {
        ip(&format!("-n {} tuntap add dev {name} mode tap", self.namespace(place)));
        self.set_link(place, name, &format!("mtu {}", self.mtu));
    }

    pub(crate) fn remove(&self, place: Place, name: &str) {
        ip(&format!("-n {} link del {name}", self.namespace(place)));
    }

    /// Makes TCP send again after 20 ms of silence at the earliest, not 200, where the kernel can
    /// (Linux 6.11): tests of loss are short.
    pub fn recover_quickly(&self) {
        for place in Place::ALL {
            self.within(place, || {
                // A knob; without it, tests only take longer.
                let _ = fs::write("/proc/sys/net/ipv4/tcp_rto_min_us", "20000");
            });
        }
    }

    /// Takes the cable out at the client or the server.
    pub fn unplug(&self, place: Place) {
        self.set_link(place, device(place), "down");
    }
}

/// Segments that this thread's namespace has sent twice.
///
/// # Panics
/// When the kernel does not tell.
#[must_use]
pub fn retransmissions() -> u64 {
    tcp_counter("RetransSegs")
}

/// What TCP of this thread's namespace has counted under this name, of both families.
///
/// # Panics
/// When the kernel does not tell.
#[must_use]
pub fn tcp_counter(name: &str) -> u64 {
    let text = fs::read_to_string("/proc/thread-self/net/snmp").unwrap();
    let rows: Vec<Vec<_>> = text
        .lines()
        .filter(|l| l.starts_with("Tcp:"))
        .map(|l| l.split_whitespace().collect())
        .collect();
    let at = rows[0].iter().position(|w| *w == name).unwrap();
    rows[1][at].parse().unwrap()
}

/// The device at either end of the hop between the gateway and `hop`.
#[must_use]
pub fn device(hop: Place) -> &'static str {
    if hop == Place::Client { "client" } else { "server" }
}

/// The address on the hop between the gateway and `hop`, of the one or the other.
#[must_use]
pub fn address(hop: Place, at: Place, family: Family) -> IpAddr {
    let host = if at == Place::Gateway { 1 } else { 2 };
    numbered(if hop == Place::Client { 1 } else { 2 }, host, family)
}

/// A host of one of the small nets that are used here.
pub(crate) fn numbered(net: u8, host: u8, family: Family) -> IpAddr {
    match family {
        Family::V4 => Ipv4Addr::new(10, 77, net, host).into(),
        Family::V6 => Ipv6Addr::new(0xfd77, net.into(), 0, 0, 0, 0, 0, host.into()).into(),
    }
}

impl Drop for Net {
    fn drop(&mut self) {
        for place in Place::ALL {
            // May be missing when `new` failed; nothing to add to its panic.
            let _ = Command::new("ip").args(["netns", "del", &self.namespace(place)]).output();
        }
    }
}
