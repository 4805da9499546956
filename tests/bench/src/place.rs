//! Where client, gateway and server are: three network namespaces of our own,
//! so that nothing of the machine's network is touched.

use std::{
    net::{IpAddr, Ipv4Addr, SocketAddr},
    process::Command,
};

use anyhow::{Context as _, Result, ensure};
use serde::{Deserialize, Serialize};
use wsproxy_tests::{
    link::{Lossy, Plan as LossPlan},
    namespaces::{Family, Net, Place, address},
};

/// Port of the upstream.
pub const UPSTREAM: u16 = 9000;
const MTU: u32 = 1500;

/// Settings of each namespace; the port range and its reuse are for the churn, which opens more
/// connections than Linux's defaults leave ports for.
const SYSCTLS: [(&str, &str); 5] = [
    ("net.ipv4.ip_forward", "1"),
    ("net.ipv4.ip_local_port_range", "10240 65535"),
    ("net.ipv4.tcp_tw_reuse", "1"),
    ("net.core.somaxconn", "8192"),
    ("net.ipv4.tcp_max_syn_backlog", "8192"),
];

/// How the three are connected.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "kebab-case")]
pub enum Topology {
    /// Client, gateway and server in a row, joined by veth; `direct` is forwarded by the gateway.
    Routed,
    /// The client is remote, the server on the gateway's loopback.
    LocalServer,
    /// All on one loopback.
    Loopback,
}

impl Topology {
    /// As on the command line.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Routed => "routed",
            Self::LocalServer => "local-server",
            Self::Loopback => "loopback",
        }
    }
}

/// The namespaces, set up.
#[derive(Debug)]
pub struct Site {
    net: Net,
    topology: Topology,
    /// TCP's congestion control in the namespaces.
    pub congestion_control: String,
}

impl Site {
    /// Makes them; needs root.
    ///
    /// # Errors
    /// A setting is refused.
    pub fn new(topology: Topology) -> Result<Self> {
        Self::of(Net::new(MTU), topology)
    }

    /// The same, with packets of one segment each on their links: each is lost alone.
    ///
    /// # Errors
    /// As [`Self::new`].
    pub fn one_by_one(topology: Topology) -> Result<Self> {
        let net = Net::one_by_one(MTU);
        // Loss is recovered from often enough for a short measurement to mean something.
        net.recover_quickly();
        Self::of(net, topology)
    }

    fn of(net: Net, topology: Topology) -> Result<Self> {
        for place in [Place::Client, Place::Gateway, Place::Server] {
            net.within(place, || {
                for (key, value) in SYSCTLS {
                    sysctl(key, value)?;
                }
                choose_congestion_control();
                anyhow::Ok(())
            })?;
        }
        let congestion_control = net.within(Place::Gateway, || std::fs::read_to_string(CONTROL));
        let congestion_control = congestion_control.context(CONTROL)?.trim().to_owned();
        // `direct` crosses the gateway as every contender's bytes do.
        for (place, far) in [(Place::Client, "10.77.2.0/24"), (Place::Server, "10.77.1.0/24")] {
            let via = address(place, Place::Gateway, Family::V4).to_string();
            net.within(place, || run("ip", &["route", "add", far, "via", &via]))?;
        }
        Ok(Self { net, topology, congestion_control })
    }

    /// From now on a share of what the client and the server send is lost, by a plan of that
    /// seed, until this is dropped.
    #[must_use]
    pub fn lose(&self, share: f64, seed: u64) -> [Lossy<'_>; 2] {
        let mut seed = seed.wrapping_mul(2);
        [Place::Client, Place::Server].map(|place| {
            seed = seed.wrapping_add(1);
            Lossy::attach(&self.net, place, place, LossPlan { seed, drop: share, ..<_>::default() })
        })
    }

    /// Runs `work` where the load is made.
    pub fn at_client<T: Send>(&self, work: impl FnOnce() -> T + Send) -> T {
        let loopback = self.topology == Topology::Loopback;
        self.net.within(if loopback { Place::Gateway } else { Place::Client }, work)
    }

    /// Runs `work` where the contenders are.
    pub fn at_gateway<T: Send>(&self, work: impl FnOnce() -> T + Send) -> T {
        self.net.within(Place::Gateway, work)
    }

    /// Runs `work` where the upstream is.
    pub fn at_server<T: Send>(&self, work: impl FnOnce() -> T + Send) -> T {
        let remote = self.topology == Topology::Routed;
        self.net.within(if remote { Place::Server } else { Place::Gateway }, work)
    }

    /// The upstream as contenders reach it.
    #[must_use]
    pub fn upstream(&self) -> SocketAddr {
        let ip = match self.topology {
            Topology::Routed => address(Place::Server, Place::Server, Family::V4),
            Topology::LocalServer | Topology::Loopback => Ipv4Addr::LOCALHOST.into(),
        };
        (ip, UPSTREAM).into()
    }

    /// The upstream as the client reaches it without a proxy.
    #[must_use]
    pub fn direct(&self) -> SocketAddr {
        match self.topology {
            Topology::Routed => self.upstream(),
            Topology::LocalServer | Topology::Loopback => self.contender(UPSTREAM),
        }
    }

    /// What listens on that port of the gateway, as the client reaches it.
    #[must_use]
    pub fn contender(&self, port: u16) -> SocketAddr {
        let ip: IpAddr = match self.topology {
            Topology::Loopback => Ipv4Addr::LOCALHOST.into(),
            _ => address(Place::Client, Place::Gateway, Family::V4),
        };
        (ip, port).into()
    }
}

const CONTROL: &str = "/proc/sys/net/ipv4/tcp_congestion_control";

/// Linux's default whatever the machine is set to, or what behaves like it on a net that loses
/// nothing: a namespace may choose among those only that the machine allows to everybody. With BBR
/// each contender is paced by timers, and they are what is measured.
fn choose_congestion_control() {
    for name in ["cubic", "reno"] {
        if std::fs::write(CONTROL, name).is_ok() {
            return;
        }
    }
}

fn sysctl(key: &str, value: &str) -> Result<()> {
    let path = format!("/proc/sys/{}", key.replace('.', "/"));
    std::fs::write(&path, value).with_context(|| format!("{key} = {value}"))
}

fn run(program: &str, arguments: &[&str]) -> Result<()> {
    let output = Command::new(program).args(arguments).output().context("iproute2 is needed")?;
    let errors = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "{program} {}: {errors}", arguments.join(" "));
    Ok(())
}
