//! Who is measured: how each is configured, started, watched and stopped.

pub(crate) mod configurations;
pub mod process;

use std::{
    fs,
    io::{Read as _, Write as _},
    net::{SocketAddr, TcpStream},
    path::{Path, PathBuf},
    time::Duration,
};

use anyhow::{Context as _, Result, bail};

use self::process::Process;
use crate::{machine::first_line_of, place::Site, results};

/// The admin port of wsproxy answers within so long.
const ADMIN: Duration = Duration::from_secs(10);

/// One of those that are compared.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Kind {
    /// No proxy.
    Direct,
    /// nginx as packaged.
    Nginx,
    /// nginx with buffers of 64 KiB.
    #[value(name = "nginx-64k")]
    Nginx64k,
    /// HAProxy.
    Haproxy,
    /// HAProxy with `option splice-auto`.
    HaproxySplice,
    /// wsproxy in user space.
    Relay,
    /// wsproxy with every session in the kernel from its first byte.
    Sockmap,
    /// wsproxy as it comes.
    Auto,
    /// wsproxy with every session on the packet path.
    Packet,
    /// The same, with frames not followed (`route.frames`).
    PacketNoFrames,
}

impl Kind {
    /// Those that are compared everywhere, in the order of every round.
    pub const ALL: [Self; 9] = [
        Self::Direct,
        Self::Nginx,
        Self::Nginx64k,
        Self::Haproxy,
        Self::HaproxySplice,
        Self::Relay,
        Self::Sockmap,
        Self::Auto,
        Self::Packet,
    ];

    /// As in the results.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Direct => "direct",
            Self::Nginx => "nginx",
            Self::Nginx64k => "nginx-64k",
            Self::Haproxy => "haproxy",
            Self::HaproxySplice => "haproxy-splice",
            Self::Relay => "relay",
            Self::Sockmap => "sockmap",
            Self::Auto => "auto",
            Self::Packet => "packet",
            Self::PacketNoFrames => "packet-no-frames",
        }
    }

    fn is_wsproxy(self) -> bool {
        !matches!(
            self,
            Self::Direct | Self::Nginx | Self::Nginx64k | Self::Haproxy | Self::HaproxySplice
        )
    }

    /// Whether its sessions are on the packet path.
    #[must_use]
    pub fn is_packet(self) -> bool {
        matches!(self, Self::Packet | Self::PacketNoFrames)
    }

    fn port(self) -> u16 {
        8100 + self as u16
    }

    fn program(self, wsproxy: &Path) -> PathBuf {
        match self {
            Self::Direct => PathBuf::new(),
            Self::Nginx | Self::Nginx64k => "/usr/sbin/nginx".into(),
            Self::Haproxy | Self::HaproxySplice => "/usr/sbin/haproxy".into(),
            _ => wsproxy.into(),
        }
    }

    fn version(self, program: &Path) -> String {
        let flag = if self.is_wsproxy() { "-V" } else { "-v" };
        let line = first_line_of(&program.to_string_lossy(), &[flag]).unwrap_or_default();
        line.trim_start_matches("nginx version: ").to_owned()
    }
}

/// A contender that runs; stopped when dropped.
#[derive(Debug)]
pub struct Contender {
    /// Which.
    pub kind: Kind,
    /// Where the client finds it.
    pub address: SocketAddr,
    /// For the report.
    pub described: results::Contender,
    process: Option<Process>,
    /// Where wsproxy tells its counters, seen from the gateway.
    admin: Option<SocketAddr>,
}

impl Contender {
    /// Starts it at the gateway, with its files in `folder`, and waits until it listens.
    ///
    /// # Errors
    /// The program is missing or says why it doesn't start.
    pub fn start(kind: Kind, site: &Site, folder: &Path, wsproxy: &Path) -> Result<Self> {
        let name = kind.name();
        if kind == Kind::Direct {
            let described =
                results::Contender { name: name.into(), ..results::Contender::default() };
            return Ok(Self {
                kind,
                address: site.direct(),
                described,
                process: None,
                admin: None,
            });
        }
        let program = kind.program(wsproxy);
        if !program.exists() {
            bail!("{} is not installed", program.display());
        }
        let admin =
            kind.is_wsproxy().then(|| SocketAddr::from(([127, 0, 0, 1], kind.port() + 100)));
        let prefix = folder.join(name);
        fs::create_dir_all(&prefix)?;
        let configuration = configurations::of(kind, kind.port(), site.upstream(), &prefix, admin);
        let file = prefix.join("configuration");
        fs::write(&file, &configuration)?;
        let arguments = configurations::arguments(kind, &file, &prefix);
        let mut process = Process::start(&program, &arguments, site, &prefix)?;
        let described = results::Contender {
            name: name.into(),
            version: kind.version(&program),
            configuration,
        };
        let address = site.contender(kind.port());
        process.wait_until_it_listens(address, site).with_context(|| name)?;
        Ok(Self { kind, address, described, process: Some(process), admin })
    }

    /// Its process and the children of it.
    #[must_use]
    pub fn processes(&self) -> Vec<u32> {
        self.process.as_ref().map(Process::all).unwrap_or_default()
    }

    /// Bytes that wsproxy carried so far: in the kernel, and in all. `None` for others.
    #[must_use]
    pub fn carried(&self, site: &Site) -> Option<(f64, f64)> {
        let admin = self.admin?;
        let text = site.at_gateway(|| metrics(admin)).ok()?;
        let mut sums = (0.0, 0.0);
        for line in text.lines().filter(|line| line.starts_with("wsproxy_session_bytes_total")) {
            let value: f64 = line.rsplit(' ').next()?.parse().ok()?;
            if !line.contains("datapath=\"relay\"") {
                sums.0 += value;
            }
            sums.1 += value;
        }
        Some(sums)
    }

    /// Sessions that wsproxy has on the packet path now. `None` for others.
    #[must_use]
    pub fn on_packet_path(&self, site: &Site) -> Option<u64> {
        let admin = self.admin?;
        let text = site.at_gateway(|| metrics(admin)).ok()?;
        packet_sessions(&text)
    }
}

fn packet_sessions(metrics: &str) -> Option<u64> {
    let gauge = "wsproxy_sessions{datapath=\"packet\"} ";
    metrics.lines().find_map(|line| line.strip_prefix(gauge))?.parse().ok()
}

fn metrics(admin: SocketAddr) -> std::io::Result<String> {
    let mut stream = TcpStream::connect(admin)?;
    stream.set_read_timeout(Some(ADMIN))?;
    write!(stream, "GET /metrics HTTP/1.1\r\nHost: {admin}\r\nConnection: close\r\n\r\n")?;
    let mut text = String::new();
    stream.read_to_string(&mut text)?;
    Ok(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sessions_on_the_packet_path_are_told_from_others() {
        let text = "# HELP wsproxy_sessions now\nwsproxy_sessions{datapath=\"relay\"} 3\n\
                    wsproxy_sessions{datapath=\"packet\"} 61\nwsproxy_sessions_total 64\n";
        assert_eq!(packet_sessions(text), Some(61));
        assert_eq!(packet_sessions("wsproxy_sessions{datapath=\"relay\"} 3\n"), None);
    }
}
