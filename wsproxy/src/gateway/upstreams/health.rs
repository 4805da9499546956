//! Asking servers whether they are well.

use std::{
    collections::HashMap,
    io,
    sync::{Arc, Weak},
    time::Duration,
};

use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    task::JoinSet,
    time::{sleep, timeout},
};

use super::{Target, UpstreamGroup, Via};
use crate::{
    balance::ServerId,
    config::{Health, HealthKind},
    datapath::{Datapath, Ending, Farewell, Which, frames::code},
    gateway::{listen::TcpOptions, stream::Stream},
    handshake::{
        Answer, HeadLimits, Progress, accept_for_key, build_request, check_request, parse_response,
    },
};

/// Checks of one group at the same time.
const AT_ONCE: usize = 64;
/// The longest answer head that is read.
const HEAD_BYTES: usize = 16 * 1024;

/// Checks in a row with the same result.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
struct Streak {
    down: bool,
    against: u32,
}

impl Streak {
    /// One more result; whether that changes what we think of the server.
    fn note(&mut self, well: bool, rise: u32, fall: u32) -> bool {
        if well != self.down {
            self.against = 0;
            return false;
        }
        self.against += 1;
        let enough = if self.down { rise } else { fall };
        if self.against < enough {
            return false;
        }
        self.against = 0;
        self.down = !self.down;
        true
    }
}

/// Checks the servers of a group for as long as it exists.
pub(super) async fn follow(group: Weak<UpstreamGroup>, health: Health, datapath: Weak<Datapath>) {
    let mut streaks: HashMap<ServerId, Streak> = HashMap::new();
    let mut round: u64 = 0;
    loop {
        let Some(strong) = group.upgrade() else { return };
        let targets: Vec<_> = strong.state.load().targets.values().cloned().collect();
        streaks.retain(|id, _| targets.iter().any(|target| target.id == *id));
        let results = check_all(&strong, &health, targets).await;
        for (target, result) in results {
            let streak = streaks.entry(target.id).or_default();
            if streak.note(result.is_ok(), health.rise, health.fall) {
                tell(&strong, &target, &result);
                let changed = strong.state.load().group.set_health(
                    target.id,
                    result.is_ok(),
                    strong.epoch.elapsed(),
                );
                if changed && result.is_err() && strong.config.close_dead {
                    close_sessions(&datapath, &target);
                }
            }
        }
        drop(strong);
        round += 1;
        sleep(jittered(health.interval.get(), round)).await;
    }
}

fn tell(group: &UpstreamGroup, target: &Target, result: &io::Result<()>) {
    match result {
        Ok(()) => tracing::info!(upstream = %group.config.name, server = %target.name,
            "the server is well again"),
        Err(error) => tracing::warn!(upstream = %group.config.name, server = %target.name, %error,
            "the server fails its health checks"),
    }
}

fn close_sessions(datapath: &Weak<Datapath>, target: &Target) {
    let Some(datapath) = datapath.upgrade() else { return };
    let name = Arc::clone(&target.name);
    let at_server: Which = Arc::new(move |meta| meta.upstream == name);
    let farewell = Farewell::new(code::GOING_AWAY, "the server is gone");
    datapath.close(&at_server, Ending::ServerDead, &farewell, None);
}

/// Give or take a tenth, so that gateways do not all ask in the same moment.
fn jittered(interval: Duration, round: u64) -> Duration {
    let drawn = round.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 40;
    let part = f64::from(u32::try_from(drawn).unwrap_or(0)) / f64::from(1u32 << 24);
    interval.mul_f64(0.9 + 0.2 * part)
}

async fn check_all(
    group: &Arc<UpstreamGroup>,
    health: &Health,
    targets: Vec<Arc<Target>>,
) -> Vec<(Arc<Target>, io::Result<()>)> {
    let mut results = Vec::with_capacity(targets.len());
    let mut running = JoinSet::new();
    for target in targets {
        if running.len() >= AT_ONCE
            && let Some(Ok(result)) = running.join_next().await
        {
            results.push(result);
        }
        let (group, health) = (Arc::clone(group), health.clone());
        running.spawn(async move {
            let checked = timeout(health.timeout.get(), check(&group, &health, &target)).await;
            let late = || Err(io::Error::from(io::ErrorKind::TimedOut));
            (target, checked.unwrap_or_else(|_| late()))
        });
    }
    while let Some(result) = running.join_next().await {
        results.extend(result.ok());
    }
    results
}

async fn check(group: &UpstreamGroup, health: &Health, target: &Target) -> io::Result<()> {
    let via = Via { tcp: TcpOptions::none(), client: None, max_segment: None };
    let mut stream = group.connect(target, &via).await?;
    match health.kind {
        HealthKind::Tcp => Ok(()),
        HealthKind::Http => {
            let request = format!(
                "GET {} HTTP/1.1\r\nHost: {}\r\nUser-Agent: wsproxy-health\r\n\
                 Connection: close\r\n\r\n",
                health.path, target.host
            );
            stream.write_all(request.as_bytes()).await?;
            let status = status(&mut stream).await?;
            if (200..400).contains(&status) { Ok(()) } else { Err(answered(status)) }
        }
        HealthKind::WebSocket => websocket(&mut stream, health, target).await,
    }
}

fn answered(status: u16) -> io::Error {
    io::Error::other(format!("it answered {status}"))
}

async fn status(stream: &mut Stream) -> io::Result<u16> {
    let mut received = Vec::with_capacity(512);
    loop {
        if stream.read_buf(&mut received).await? == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        let mut headers = [httparse::EMPTY_HEADER; 100];
        let mut response = httparse::Response::new(&mut headers);
        match response.parse(&received) {
            Ok(_) if response.code.is_some() => return Ok(response.code.unwrap_or_default()),
            Ok(_) if received.len() < HEAD_BYTES => {}
            Ok(_) => return Err(io::Error::other("its answer's head is too long")),
            Err(error) => return Err(io::Error::other(error)),
        }
    }
}

/// A key of ours: nothing depends on its being secret.
const KEY: &str = "d3Nwcm94eSBoZWFsdGghIQ==";

async fn websocket(stream: &mut Stream, health: &Health, target: &Target) -> io::Result<()> {
    let headers = [
        ("Host", target.host.as_str()),
        ("User-Agent", "wsproxy-health"),
        ("Sec-WebSocket-Key", KEY),
        ("Sec-WebSocket-Version", "13"),
    ];
    let headers = headers.map(|(name, value)| (name.to_owned(), value.as_bytes().to_vec()));
    stream.write_all(&build_request(&health.path, &headers)).await?;
    let request = check_request(&health.path, &target.host, KEY);
    debug_assert_eq!(accept_for_key(KEY).len(), 28);
    let limits = HeadLimits { max_bytes: HEAD_BYTES, ..HeadLimits::default() };
    let mut received = Vec::with_capacity(512);
    loop {
        if stream.read_buf(&mut received).await? == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        match parse_response(&received, &request, &limits) {
            Ok(Progress::Partial) => {}
            Ok(Progress::Done { value: Answer::Switched(_), .. }) => break,
            Ok(Progress::Done { value: Answer::Other(other), .. }) => {
                return Err(answered(other.status));
            }
            Err(bad) => return Err(io::Error::other(bad)),
        }
    }
    // An empty Close with the code 1000, masked with zeros, so that the server's log stays clean.
    stream.write_all(&[0x88, 0x82, 0, 0, 0, 0, 0x03, 0xe8]).await
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_change_takes_several_in_a_row() {
        let mut streak = Streak::default();
        let results = [false, false, true, false, false, false, true, false, true, true, true];
        let changes: Vec<_> = results.map(|well| streak.note(well, 2, 3)).to_vec();
        let at = |wanted: bool| changes.iter().positions_of(wanted);
        assert_eq!(at(true), [5, 9]);
        assert!(!streak.down);
    }

    trait PositionsOf {
        fn positions_of(self, wanted: bool) -> Vec<usize>;
    }

    impl<'a, I: Iterator<Item = &'a bool>> PositionsOf for I {
        fn positions_of(self, wanted: bool) -> Vec<usize> {
            self.enumerate().filter(|(_, b)| **b == wanted).map(|(at, _)| at).collect()
        }
    }

    #[test]
    fn jitter_stays_within_a_tenth() {
        let second = Duration::from_secs(1);
        let drawn: Vec<_> = (0..1000).map(|round| jittered(second, round)).collect();
        assert!(drawn.iter().all(|d| (900..=1100).contains(&d.as_millis())));
        assert!(drawn.iter().any(|d| d.as_millis() < 950));
        assert!(drawn.iter().any(|d| d.as_millis() > 1050));
    }
}
