//! Names of servers to addresses: A, AAAA and SRV records, with the time that they are good for.

mod answer;

use std::{net::SocketAddr, time::Duration};

use hickory_resolver::{TokioResolver, net::NetError, proto::rr::RData};

pub use answer::{Answer, Resolved};
use answer::{Service, of_addresses, of_services};

/// How long an answer of the system's own resolver is taken to be good: it does not say.
const UNKNOWN: Duration = Duration::from_secs(30);

/// Why a name has no addresses.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ResolveError {
    /// No such name, or none of the records that are asked for.
    #[error("\"{name}\" has no addresses")]
    NoAddresses {
        /// The name.
        name: String,
    },
    /// The name servers said nothing, or nothing of use.
    #[error("no name server answers for \"{name}\"")]
    NoAnswer {
        /// The name.
        name: String,
    },
    /// Something else.
    #[error("\"{name}\" can't be looked up: {why}")]
    Failed {
        /// The name.
        name: String,
        /// Why.
        why: String,
    },
}

/// Looks names up as the system is configured to.
#[derive(Debug)]
pub struct Resolver {
    /// None where the system's configuration can't be read: then the system is asked itself.
    hickory: Option<TokioResolver>,
}

impl Resolver {
    /// By `/etc/resolv.conf` and `/etc/hosts`.
    #[must_use]
    pub fn system() -> Self {
        let built = TokioResolver::builder_tokio().and_then(|builder| builder.build());
        let hickory = built
            .inspect_err(|error| tracing::warn!(%error, "no resolv.conf: the system is asked"))
            .ok();
        Self { hickory }
    }

    /// The addresses of a name, with `port`.
    ///
    /// # Errors
    /// See [`ResolveError`].
    pub async fn addresses(&self, name: &str, port: u16) -> Result<Answer, ResolveError> {
        let Some(hickory) = self.hickory.as_ref().filter(|_| !is_local(name)) else {
            let found = tokio::net::lookup_host((name, port)).await;
            let found = found.map_err(|_| ResolveError::NoAddresses { name: name.to_owned() })?;
            return of_addresses(name, found.collect(), UNKNOWN);
        };
        let looked = hickory.lookup_ip(name).await.map_err(|error| failed(name, &error))?;
        let addresses = looked.iter().map(|ip| SocketAddr::new(ip, port)).collect();
        let valid_for = looked.valid_until().saturating_duration_since(std::time::Instant::now());
        of_addresses(name, addresses, valid_for)
    }

    /// The servers of a service (RFC 2782).
    ///
    /// # Errors
    /// See [`ResolveError`].
    pub async fn service(&self, name: &str) -> Result<Answer, ResolveError> {
        let Some(hickory) = &self.hickory else {
            return Err(ResolveError::NoAnswer { name: name.to_owned() });
        };
        let looked = hickory.srv_lookup(name).await.map_err(|error| failed(name, &error))?;
        let mut valid_for =
            looked.valid_until().saturating_duration_since(std::time::Instant::now());
        let mut services = Vec::new();
        for record in looked.answers() {
            let RData::SRV(srv) = &record.data else { continue };
            let target = srv.target.to_utf8();
            // One target that can't be found is no reason to leave the others out.
            if let Ok(found) = self.addresses(target.trim_end_matches('.'), srv.port).await {
                valid_for = valid_for.min(found.valid_for);
                services.push(Service {
                    priority: srv.priority,
                    weight: srv.weight,
                    addresses: found.servers.iter().map(|server| server.address).collect(),
                });
            }
        }
        of_services(name, services, valid_for)
    }
}

/// Names that mean this machine, and addresses: nobody else is asked about them.
fn is_local(name: &str) -> bool {
    let name = name.trim_end_matches('.').to_ascii_lowercase();
    name == "localhost" || name.ends_with(".localhost") || name.parse::<std::net::IpAddr>().is_ok()
}

fn failed(name: &str, error: &NetError) -> ResolveError {
    let name = name.to_owned();
    if error.is_nx_domain() || error.is_no_records_found() {
        ResolveError::NoAddresses { name }
    } else if matches!(error, NetError::Timeout | NetError::NoConnections) {
        ResolveError::NoAnswer { name }
    } else {
        ResolveError::Failed { name, why: error.to_string() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn this_machine_and_addresses_need_no_name_server() {
        let resolver = Resolver { hickory: None };
        for name in ["localhost", "127.0.0.1", "::1"] {
            let answer = resolver.addresses(name, 80).await.unwrap();
            assert!(answer.servers.iter().all(|s| s.address.ip().is_loopback()), "{name}");
            assert!(answer.servers.iter().all(|s| s.address.port() == 80));
        }
        assert!(is_local("a.localhost.") && !is_local("localhost.example"));
    }
}
