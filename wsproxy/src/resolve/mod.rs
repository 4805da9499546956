//! Names of servers to addresses: A, AAAA and SRV records, with the time that they are good for.
//!
//! Nothing here has a timeout of its own but those of `resolv.conf` between a question and the
//! next try: callers set theirs.

mod answer;
mod dns;
mod error;
mod hosts;
mod names;

#[cfg(test)]
mod tests;

use std::{
    io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    path::PathBuf,
    time::Duration,
};

use futures_util::future::join_all;
use hickory_resolver::proto::rr::{Name, rdata::SRV};

pub use answer::{Answer, LONGEST, MAX_ADDRESSES, MAX_WEIGHT, Resolved, SHORTEST};
use answer::{Service, of_addresses, of_services};
use dns::Dns;
pub use error::ResolveError;
use hosts::Hosts;
use names::{Named, named};

/// How long an answer of `/etc/hosts` or of the system's own resolver is taken to be good: they do
/// not say.
pub const UNKNOWN: Duration = Duration::from_secs(30);
/// How long an answer is good that lacks servers whose names could not be looked up just now.
pub const INCOMPLETE: Duration = Duration::from_secs(5);

/// So many targets of SRV records are looked up at once.
const AT_ONCE: usize = 16;

/// Looks names up as the system is configured to.
#[derive(Debug)]
pub struct Resolver {
    /// None where the system's configuration can't be read: then the system is asked itself.
    dns: Option<Dns>,
    hosts: Hosts,
}

impl Resolver {
    /// By `/etc/resolv.conf`, read now, and `/etc/hosts`. Without a usable `resolv.conf` the system
    /// is asked for addresses, which are taken to be good for [`UNKNOWN`], and nobody for SRV.
    #[must_use]
    pub fn system() -> Self {
        let dns = Dns::system().inspect_err(|error| {
            tracing::warn!(%error, "/etc/resolv.conf can't be used: the system is asked for names");
        });
        Self { dns: dns.ok(), hosts: Hosts::new("/etc/hosts".into()) }
    }

    /// By these name servers, over UDP and TCP, and by this file in the place of `/etc/hosts`.
    ///
    /// # Errors
    /// The resolver can't be set up.
    pub fn with_name_servers(servers: &[SocketAddr], hosts: PathBuf) -> io::Result<Self> {
        Ok(Self { dns: Some(Dns::of(servers, |_| {})?), hosts: Hosts::new(hosts) })
    }

    /// The IPv4 and IPv6 addresses of a name, with `port`, all of weight 1. Addresses and
    /// `localhost` are answered without asking a name server.
    ///
    /// # Errors
    /// See [`ResolveError`].
    pub async fn addresses(&self, name: &str, port: u16) -> Result<Answer, ResolveError> {
        let named = named(name).map_err(|why| ResolveError::failed(name, why))?;
        let (ips, valid_for) = match named {
            Named::Address(ip) => (vec![ip], LONGEST),
            Named::Localhost => (self.localhost(name).await, UNKNOWN),
            Named::Name(asked) => self.look_up(name, asked).await?,
        };
        let addresses = ips.into_iter().map(|ip| SocketAddr::new(ip.to_canonical(), port));
        of_addresses(addresses.collect(), valid_for)
            .ok_or_else(|| ResolveError::NoAddresses { name: name.to_owned() })
    }

    async fn look_up(
        &self,
        name: &str,
        asked: Name,
    ) -> Result<(Vec<IpAddr>, Duration), ResolveError> {
        let ips = self.hosts.addresses(name).await;
        if !ips.is_empty() {
            return Ok((ips, UNKNOWN));
        }
        let Some(dns) = &self.dns else {
            // The port is not looked up: any will do.
            let found = tokio::net::lookup_host((name, 0)).await;
            let found = found.map_err(|error| ResolveError::of_system(name, &error))?;
            return Ok((found.map(|address| address.ip()).collect(), UNKNOWN));
        };
        dns.addresses(asked).await.map_err(|error| ResolveError::of_dns(name, &error))
    }

    /// What `/etc/hosts` says, for it leaves `::1` out where there is no IPv6; but never another
    /// machine (RFC 6761, section 6.3).
    async fn localhost(&self, name: &str) -> Vec<IpAddr> {
        let mut ips = self.hosts.addresses(name).await;
        if ips.is_empty() {
            ips = self.hosts.addresses("localhost").await;
        }
        ips.retain(IpAddr::is_loopback);
        if ips.is_empty() {
            ips = vec![Ipv4Addr::LOCALHOST.into(), Ipv6Addr::LOCALHOST.into()];
        }
        ips
    }

    /// The servers of a service (RFC 2782): the targets of its SRV records, with their addresses.
    ///
    /// Targets that can't be looked up are left out; unless they do not exist, the answer is then
    /// good for [`INCOMPLETE`] at most.
    ///
    /// # Errors
    /// See [`ResolveError`]. When no target has addresses, it is the first target's.
    pub async fn service(&self, name: &str) -> Result<Answer, ResolveError> {
        let no_service = || ResolveError::NoService { name: name.to_owned() };
        let asked = match named(name) {
            Ok(Named::Name(asked)) => asked,
            Ok(Named::Address(_) | Named::Localhost) => return Err(no_service()),
            Err(why) => return Err(ResolveError::failed(name, why)),
        };
        let Some(dns) = &self.dns else {
            let why = "SRV records need name servers, and /etc/resolv.conf can't be used";
            return Err(ResolveError::failed(name, why));
        };
        let (records, valid_for) = dns.services(asked).await.map_err(|error| {
            match ResolveError::of_dns(name, &error) {
                ResolveError::NoAddresses { .. } => no_service(),
                error => error,
            }
        })?;
        self.targets(usable(records), valid_for).await.unwrap_or_else(|| Err(no_service()))
    }

    /// None where there are no records.
    async fn targets(
        &self,
        records: Vec<SRV>,
        mut valid_for: Duration,
    ) -> Option<Result<Answer, ResolveError>> {
        let (mut services, mut found, mut failure) = (Vec::new(), 0, None);
        for records in records.chunks(AT_ONCE) {
            let answers = join_all(records.iter().map(|srv| self.target(srv))).await;
            for (srv, answer) in records.iter().zip(answers) {
                match answer {
                    Ok(answer) => {
                        valid_for = valid_for.min(answer.valid_for);
                        found += answer.servers.len();
                        services.push(service_of(srv, &answer));
                    }
                    Err(error) => {
                        if may_pass(&error) {
                            valid_for = valid_for.min(INCOMPLETE);
                        }
                        failure.get_or_insert(error);
                    }
                }
            }
            // The others are of no lower priority number: there is no room for them.
            if found >= MAX_ADDRESSES {
                break;
            }
        }
        of_services(services, valid_for).map(Ok).or_else(|| failure.map(Err))
    }

    async fn target(&self, srv: &SRV) -> Result<Answer, ResolveError> {
        // With the dot at its end: the search list of resolv.conf is not for it.
        self.addresses(&srv.target.to_ascii(), srv.port).await
    }
}

/// Records of a service that is offered, the lowest priority number first.
fn usable(mut records: Vec<SRV>) -> Vec<SRV> {
    records.retain(|srv| !srv.target.is_root() && srv.port != 0);
    records.sort_by(|one, other| {
        (one.priority, other.weight, &one.target, one.port).cmp(&(
            other.priority,
            one.weight,
            &other.target,
            other.port,
        ))
    });
    records.truncate(MAX_ADDRESSES);
    records
}

fn service_of(srv: &SRV, answer: &Answer) -> Service {
    Service {
        priority: srv.priority,
        weight: srv.weight,
        addresses: answer.servers.iter().map(|server| server.address).collect(),
    }
}

/// Whether the same question may soon have another answer.
const fn may_pass(error: &ResolveError) -> bool {
    !matches!(error, ResolveError::NotFound { .. } | ResolveError::NoAddresses { .. })
}
