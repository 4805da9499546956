//! Name to addresses, and addresses to a TCP connection.

use std::io::{self, Write};
use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tokio::net::{TcpStream, lookup_host};
use tokio::time::{self, timeout, timeout_at};

use super::explain;
use super::outcome::{Finding, Outcome};
use super::report::{Report, Step, Stop, micros, millis};
use super::request::Plan;

/// The most addresses that are tried.
const MAX_ADDRESSES: usize = 16;

/// The addresses to try, at least one.
pub(super) async fn resolve<W: Write>(
    plan: &Plan,
    report: &mut Report<'_, W>,
    until: time::Instant,
) -> Result<Vec<SocketAddr>, Stop> {
    let place = plan.instead.as_ref().unwrap_or(&plan.target.place);
    let step = Step::new("resolve").detail("host", place.host.as_str());
    let step = match &plan.instead {
        Some(_) => step.line(format!("--resolve: in place of {}", plan.target.place.host)),
        None => step,
    };
    if let Ok(address) = place.host.parse::<IpAddr>() {
        let address = SocketAddr::new(address, place.port);
        let step = step.line(format!("{} is an address", address.ip()));
        report.step(step.detail("addresses", vec![address.ip().to_string()]))?;
        return Ok(vec![address]);
    }
    let started = Instant::now();
    let found = timeout_at(until, lookup_host((place.host.as_str(), place.port))).await;
    let step = step.took(started.elapsed());
    let mut addresses = Vec::new();
    match found {
        Err(_) => {
            report.step(step.error("no answer"))?;
            return Err(explain::timeout(explain::Phase::Resolve).into());
        }
        Ok(Err(error)) => {
            report.step(step.error(&error.to_string()))?;
            return Err(unresolved(&place.host, explain::resolve(&error.to_string())));
        }
        Ok(Ok(found)) => {
            for address in found {
                if addresses.len() < MAX_ADDRESSES && !addresses.contains(&address) {
                    addresses.push(address);
                }
            }
        }
    }
    if addresses.is_empty() {
        report.step(step.error("no address"))?;
        return Err(unresolved(&place.host, explain::resolve("")));
    }
    let list: Vec<_> = addresses.iter().map(|address| address.ip().to_string()).collect();
    let step = step.line(format!("{}: {}", place.host, list.join(", ")));
    report.step(step.detail("addresses", list))?;
    Ok(addresses)
}

fn unresolved(host: &str, hints: Vec<String>) -> Stop {
    Finding::new(Outcome::Resolve, format!("no address found for {host}"), hints).into()
}

/// The first connection that comes about. Every address gets its share of the
/// time that is left, so that a silent one leaves some for the next.
pub(super) async fn connect<W: Write>(
    addresses: &[SocketAddr],
    report: &mut Report<'_, W>,
    until: time::Instant,
) -> Result<TcpStream, Stop> {
    let mut step = Step::new("connect");
    let mut attempts: Vec<Value> = Vec::new();
    let mut last = None;
    let started = Instant::now();
    for (tried, address) in addresses.iter().enumerate() {
        let share = share(until, addresses.len() - tried);
        let began = Instant::now();
        let result = match timeout(share, TcpStream::connect(address)).await {
            Err(_) => Err(io::ErrorKind::TimedOut.into()),
            Ok(result) => result,
        };
        let took = began.elapsed();
        attempts.push(json!({
            "address": address.to_string(),
            "us": micros(took),
            "error": result.as_ref().err().map(ToString::to_string),
        }));
        match result {
            Ok(stream) => {
                let local = stream.local_addr()?.to_string();
                let line = format!("{address} from {local}");
                let step = step.line(line).took(started.elapsed()).detail("attempts", attempts);
                let step = step.detail("peer", address.to_string()).detail("local", local);
                report.step(step)?;
                // Only the timings would suffer.
                let _ = stream.set_nodelay(true);
                return Ok(stream);
            }
            Err(error) => {
                let why = explain::connect_words(&error);
                step = step.line(format!("{address}: {why} ({})", millis(took)));
                last = preferred(last, error);
            }
        }
    }
    report.step(step.failed().took(started.elapsed()).detail("attempts", attempts))?;
    Err(explain::connect(last.as_ref()).into())
}

fn share(until: time::Instant, addresses: usize) -> Duration {
    let left = until.saturating_duration_since(time::Instant::now());
    left / u32::try_from(addresses).unwrap_or(u32::MAX).max(1)
}

/// Of two errors the one that says more: anything but silence.
fn preferred(before: Option<io::Error>, error: io::Error) -> Option<io::Error> {
    match before {
        Some(before) if before.kind() != io::ErrorKind::TimedOut => Some(before),
        _ => Some(error),
    }
}
