//! Questions to name servers.

use std::{
    io,
    net::{IpAddr, SocketAddr},
    time::{Duration, Instant},
};

use hickory_resolver::{
    ResolverBuilder, TokioResolver,
    config::{
        ConnectionConfig, LookupIpStrategy, NameServerConfig, ResolveHosts, ResolverConfig,
        ResolverOpts,
    },
    lookup::Lookup,
    net::{NetError, runtime::TokioRuntimeProvider},
    proto::rr::{Name, RData, RecordType, rdata::SRV},
};

use super::LONGEST;

/// A name that was not there is asked for again after this long at the latest, whatever its zone
/// says: it may be that of a server which is being started.
const NOT_FOUND: Duration = Duration::from_secs(10);
/// A service's name may be an alias of an alias, so many times.
const ALIASES: usize = 8;

/// Name servers, and what they said lately.
#[derive(Debug)]
pub(super) struct Dns(TokioResolver);

impl Dns {
    /// Those of `/etc/resolv.conf`.
    pub(super) fn system() -> io::Result<Self> {
        TokioResolver::builder_tokio().map_err(io::Error::other).and_then(Self::build)
    }

    pub(super) fn of(
        servers: &[SocketAddr],
        configure: impl FnOnce(&mut ResolverOpts),
    ) -> io::Result<Self> {
        let servers = servers.iter().map(|server| {
            let connections = [ConnectionConfig::udp(), ConnectionConfig::tcp()];
            let at = |mut connection: ConnectionConfig| {
                connection.port = server.port();
                connection
            };
            NameServerConfig::new(server.ip(), true, connections.map(at).into())
        });
        let config = ResolverConfig::from_name_servers(servers.collect());
        let provider = TokioRuntimeProvider::default();
        let mut builder = TokioResolver::builder_with_config(config, provider);
        configure(builder.options_mut());
        Self::build(builder)
    }

    fn build(mut builder: ResolverBuilder<TokioRuntimeProvider>) -> io::Result<Self> {
        let options = builder.options_mut();
        options.ip_strategy = LookupIpStrategy::Ipv4AndIpv6;
        options.use_hosts_file = ResolveHosts::Never;
        options.positive_max_ttl = Some(LONGEST);
        options.negative_max_ttl = Some(NOT_FOUND);
        builder.build().map(Self).map_err(io::Error::other)
    }

    /// A and AAAA records, and for how long they are good.
    pub(super) async fn addresses(&self, name: Name) -> Result<(Vec<IpAddr>, Duration), NetError> {
        let looked = self.0.lookup_ip(name).await?;
        Ok((looked.iter().collect(), left(looked.valid_until())))
    }

    /// SRV records, and for how long they are good.
    pub(super) async fn services(&self, name: Name) -> Result<(Vec<SRV>, Duration), NetError> {
        let (mut name, mut valid_for) = (name, Duration::MAX);
        for _ in 0..ALIASES {
            let error = match self.0.srv_lookup(name.clone()).await {
                Ok(looked) => {
                    return Ok((services(&looked), valid_for.min(left(looked.valid_until()))));
                }
                Err(error) => error,
            };
            // The resolver library loses SRV records behind an alias (CNAME): it is followed here.
            let alias = match &error {
                error if error.is_no_records_found() => self.alias(name).await,
                _ => None,
            };
            let Some((target, alias_for)) = alias else { return Err(error) };
            (name, valid_for) = (target, valid_for.min(alias_for));
        }
        Err(NetError::Message("it is an alias of too many others"))
    }

    async fn alias(&self, name: Name) -> Option<(Name, Duration)> {
        let looked = self.0.lookup(name, RecordType::CNAME).await.ok()?;
        let target = looked.answers().iter().find_map(|record| match &record.data {
            RData::CNAME(target) => Some(target.0.clone()),
            _ => None,
        })?;
        Some((target, left(looked.valid_until())))
    }
}

fn services(looked: &Lookup) -> Vec<SRV> {
    let data = looked.answers().iter().map(|record| &record.data);
    data.filter_map(|data| if let RData::SRV(srv) = data { Some(srv.clone()) } else { None })
        .collect()
}

fn left(until: Instant) -> Duration {
    until.saturating_duration_since(Instant::now())
}
