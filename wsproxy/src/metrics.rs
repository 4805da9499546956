//! Counters for Prometheus. `docs/METRICS.md` has the table; a test keeps it complete.

mod frames;

use std::{
    fmt,
    sync::{Arc, PoisonError, RwLock},
    time::Duration,
};

use prometheus::{
    Encoder as _, Histogram, HistogramOpts, IntCounter, IntCounterVec, IntGauge, IntGaugeVec, Opts,
    Registry, TextEncoder,
};

use self::frames::FrameMetrics;
pub use self::frames::LiveCounts;
use crate::datapath::{Datapath, Ending, Path, Persisted, SessionEnd, Side};

/// Content type of [`Metrics::text`] (Prometheus text format 0.0.4).
pub const CONTENT_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";

/// Seconds; a handshake over loopback takes well under a millisecond, one
/// around the world a second.
const HANDSHAKE_BUCKETS: [f64; 14] =
    [0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0];

/// All metrics of a process.
pub struct Metrics {
    registry: Registry,
    /// Handshakes that did not open a tunnel, by reason.
    pub handshake_failures: IntCounterVec,
    /// From accept to the 101, in seconds.
    pub handshake_seconds: Histogram,
    /// Sessions that did not take the kernel path although it was wanted.
    pub datapath_fallback: IntCounterVec,
    /// Ended sessions, by how.
    pub session_ends: IntCounterVec,
    /// Connections accepted.
    pub accepted: IntCounter,
    /// `accept` failures by kind.
    pub accept_errors: IntCounterVec,
    /// Failures of upstream servers, by server.
    pub upstream_failures: IntCounterVec,
    /// Plain requests answered, by route and class of status.
    pub requests: IntCounterVec,
    /// Plain requests that wsproxy itself answered with an error, by reason.
    pub request_failures: IntCounterVec,
    /// TLS handshakes with clients, by result.
    pub tls_handshakes: IntCounterVec,
    /// Configurations that were to replace the running one, by result.
    pub reloads: IntCounterVec,
    frames: FrameMetrics,
    live: Live,
}

/// Tells what runs now.
pub type AskCounts = Arc<dyn Fn() -> LiveCounts + Send + Sync>;

/// What is read from the datapath when somebody asks.
struct Live {
    datapath: RwLock<Option<Arc<Datapath>>>,
    counts: RwLock<Option<AskCounts>>,
    sessions: IntGaugeVec,
    connections: IntGauge,
    limit: IntGauge,
    started: IntCounter,
    bytes: IntCounterVec,
    diversions: IntCounterVec,
    verdicts: IntCounterVec,
    healed: IntCounter,
    astray: IntCounter,
    entered: IntCounter,
    persisted: IntCounterVec,
    wakeups: IntCounter,
}

impl fmt::Debug for Metrics {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Metrics").finish_non_exhaustive()
    }
}

/// Metrics are registered once, with constant names: this can't fail at run time.
fn registered<M: prometheus::core::Collector + Clone + 'static>(
    registry: &Registry,
    metric: prometheus::Result<M>,
) -> prometheus::Result<M> {
    let metric = metric?;
    registry.register(Box::new(metric.clone()))?;
    Ok(metric)
}

impl Metrics {
    /// All metrics, at zero.
    ///
    /// # Errors
    /// A metric's name or labels are invalid: a mistake in this file.
    pub fn new() -> prometheus::Result<Self> {
        let registry = Registry::new();
        let r = &registry;
        let counter = |name: &str, help: &str| registered(r, IntCounter::new(name, help));
        let gauge = |name: &str, help: &str| registered(r, IntGauge::new(name, help));
        let counters = |name: &str, help: &str, labels: &[&str]| {
            registered(r, IntCounterVec::new(Opts::new(name, help), labels))
        };
        let metrics = Self {
            handshake_failures: counters(
                "wsproxy_handshake_failures_total",
                "Handshakes that did not open a tunnel.",
                &["reason"],
            )?,
            handshake_seconds: registered(
                r,
                Histogram::with_opts(
                    HistogramOpts::new(
                        "wsproxy_handshake_seconds",
                        "From the first byte of a request to its 101.",
                    )
                    .buckets(HANDSHAKE_BUCKETS.to_vec()),
                ),
            )?,
            datapath_fallback: counters(
                "wsproxy_datapath_fallback_total",
                "Times the kernel path was wanted and the relay taken instead.",
                &["reason"],
            )?,
            session_ends: counters(
                "wsproxy_session_ends_total",
                "Ended sessions, by who ended them.",
                &["ending"],
            )?,
            accepted: counter("wsproxy_accepted_total", "Connections accepted.")?,
            accept_errors: counters(
                "wsproxy_accept_errors_total",
                "Failed accepts; the listener pauses and goes on.",
                &["reason"],
            )?,
            upstream_failures: counters(
                "wsproxy_upstream_failures_total",
                "Times an upstream server failed a handshake or a plain request.",
                &["upstream"],
            )?,
            requests: counters(
                "wsproxy_requests_total",
                "Plain requests answered.",
                &["route", "status"],
            )?,
            request_failures: counters(
                "wsproxy_request_failures_total",
                "Plain requests that wsproxy itself answered with an error.",
                &["reason"],
            )?,
            tls_handshakes: counters(
                "wsproxy_tls_handshakes_total",
                "TLS handshakes with clients.",
                &["result"],
            )?,
            reloads: counters(
                "wsproxy_reloads_total",
                "Configurations that were to replace the running one.",
                &["result"],
            )?,
            frames: FrameMetrics::new(r)?,
            live: Live {
                datapath: RwLock::default(),
                counts: RwLock::default(),
                sessions: registered(
                    r,
                    IntGaugeVec::new(
                        Opts::new("wsproxy_sessions", "Sessions running now."),
                        &["datapath"],
                    ),
                )?,
                connections: gauge(
                    "wsproxy_connections",
                    "Client connections open now, sessions among them.",
                )?,
                limit: gauge(
                    "wsproxy_sessions_limit",
                    "Client connections and sessions that may be open at a time.",
                )?,
                started: counter("wsproxy_sessions_total", "Sessions begun.")?,
                bytes: counters(
                    "wsproxy_session_bytes_total",
                    "Bytes moved, running sessions included, by what carried them.",
                    &["direction", "datapath"],
                )?,
                diversions: counters(
                    "wsproxy_diversions_total",
                    "Times a direction was taken from the kernel and given to user space.",
                    &["reason"],
                )?,
                verdicts: counters(
                    "wsproxy_kernel_verdicts_total",
                    "What the BPF program did with the packets it saw.",
                    &["verdict"],
                )?,
                healed: counter(
                    "wsproxy_lost_notifications_total",
                    "Directions found diverted without a notification.",
                )?,
                astray: counter(
                    "wsproxy_astray_segments_total",
                    "Segments of translated sessions that came in where nobody translates them.",
                )?,
                entered: counter(
                    "wsproxy_sessions_entered_kernel_total",
                    "Sessions that entered the kernel.",
                )?,
                persisted: counters(
                    "wsproxy_sessions_adopted_total",
                    "Sessions that an earlier process had left in the kernel.",
                    &["result"],
                )?,
                wakeups: counter(
                    "wsproxy_engine_wakeups_total",
                    "Times a thread that owns sessions woke up.",
                )?,
            },
            registry,
        };
        metrics.begin_at_zero();
        Ok(metrics)
    }

    /// Shows counters that alert rules watch before they count anything: `increase()` of
    /// PromQL does not see the first event of a series that begins with it.
    fn begin_at_zero(&self) {
        for ending in Ending::ALL {
            self.session_ends.with_label_values(&[ending.label()]);
        }
        for result in ["ok", "failed"] {
            self.reloads.with_label_values(&[result]);
        }
        for reason in ["descriptors", "memory", "aborted", "other"] {
            self.accept_errors.with_label_values(&[reason]);
        }
    }

    /// From now on the datapath's own counters are shown too.
    pub fn watch(&self, datapath: &Arc<Datapath>) {
        *self.live.datapath.write().unwrap_or_else(PoisonError::into_inner) =
            Some(Arc::clone(datapath));
    }

    /// From now on `ask` says how many sessions routes and servers have.
    pub fn watch_counts(&self, ask: AskCounts) {
        *self.live.counts.write().unwrap_or_else(PoisonError::into_inner) = Some(ask);
    }

    /// Lets go of the datapath and of who tells the counts, so that they can be dropped.
    pub fn unwatch(&self) {
        *self.live.counts.write().unwrap_or_else(PoisonError::into_inner) = None;
        *self.live.datapath.write().unwrap_or_else(PoisonError::into_inner) = None;
    }

    /// Counts the end of a session.
    pub fn session_ended(&self, end: &SessionEnd) {
        self.session_ends.with_label_values(&[end.ending.label()]).inc();
        self.frames.session_ended(end);
    }

    /// Counts a Ping.
    pub fn pinged(&self, to: Side) {
        self.frames.pinged(to);
    }

    /// Counts the answer to one.
    pub fn ping_answered(&self, by: Side, after: Duration) {
        self.frames.answered(by, after);
    }

    /// Everything in the Prometheus text format.
    ///
    /// # Errors
    /// A metric can't be rendered.
    pub fn text(&self) -> prometheus::Result<Vec<u8>> {
        let datapath = self.live.datapath.read().unwrap_or_else(PoisonError::into_inner).clone();
        if let Some(datapath) = datapath {
            self.live.read(&datapath);
            let ask = self.live.counts.read().unwrap_or_else(PoisonError::into_inner).clone();
            self.frames.read(&datapath, ask.map(|ask| ask()).as_ref());
        }
        let mut out = Vec::with_capacity(8 * 1024);
        TextEncoder::new().encode(&self.registry.gather(), &mut out)?;
        Ok(out)
    }
}

/// Brings a counter up to a total that is kept elsewhere and only grows.
fn raise(counter: &IntCounter, total: u64) {
    counter.inc_by(total.saturating_sub(counter.get()));
}

impl Live {
    fn read(&self, datapath: &Datapath) {
        for path in Path::ALL {
            self.sessions.with_label_values(&[path.label()]).set(datapath.live(path));
        }
        self.connections.set(i64::from(datapath.taken()));
        self.limit.set(i64::from(datapath.limit()));
        raise(&self.started, datapath.started());
        raise(&self.healed, datapath.healed());
        raise(&self.astray, datapath.astray());
        raise(&self.entered, datapath.entered());
        raise(&self.wakeups, datapath.wakeups());
        let Persisted { adopted, let_go, left } = datapath.persisted();
        for (result, count) in [("adopted", adopted), ("let_go", let_go), ("left", left)] {
            raise(&self.persisted.with_label_values(&[result]), count);
        }
        let totals = datapath.totals();
        for (direction, carried) in
            [("to_upstream", totals.to_upstream), ("to_client", totals.to_client)]
        {
            let bytes = |path: Path| self.bytes.with_label_values(&[direction, path.label()]);
            raise(&bytes(Path::Sockmap), carried.kernel);
            raise(&bytes(Path::Relay), carried.relay);
            raise(&bytes(Path::Packet), carried.packet);
        }
        for (reason, count) in datapath.reasons() {
            raise(&self.verdicts.with_label_values(&[reason.label()]), count);
            if reason.is_diversion() {
                raise(&self.diversions.with_label_values(&[reason.label()]), count);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_documented_table_has_every_metric_and_no_other() {
        let documented = include_str!("../../docs/METRICS.md");
        let metrics = Metrics::new().unwrap();
        // A family shows only once it has a label.
        metrics.handshake_failures.with_label_values(&["x"]);
        metrics.datapath_fallback.with_label_values(&["x"]);
        metrics.accept_errors.with_label_values(&["x"]);
        metrics.upstream_failures.with_label_values(&["x"]);
        metrics.requests.with_label_values(&["x", "y"]);
        metrics.request_failures.with_label_values(&["x"]);
        metrics.tls_handshakes.with_label_values(&["x"]);
        metrics.reloads.with_label_values(&["x"]);
        metrics.live.bytes.with_label_values(&["x", "y"]);
        metrics.live.diversions.with_label_values(&["x"]);
        metrics.live.verdicts.with_label_values(&["x"]);
        metrics.live.sessions.with_label_values(&["x"]);
        metrics.live.persisted.with_label_values(&["x"]);
        metrics.frames.touch();
        let text = String::from_utf8(metrics.text().unwrap()).unwrap();
        let names: Vec<_> =
            text.lines().filter_map(|l| l.strip_prefix("# TYPE ")?.split(' ').next()).collect();
        assert!(names.len() >= 14, "{names:?}");
        let rows: Vec<_> = documented
            .lines()
            .filter_map(|line| line.strip_prefix("| `")?.split_once('`'))
            .map(|(name, _)| name)
            .collect();
        for name in &names {
            assert!(rows.contains(name), "{name} is not in docs/METRICS.md");
        }
        for row in rows {
            assert!(names.contains(&row), "{row} of docs/METRICS.md is no metric");
        }
    }

    #[test]
    fn what_alerts_watch_is_there_before_it_happens() {
        let text = String::from_utf8(Metrics::new().unwrap().text().unwrap()).unwrap();
        for series in [
            "wsproxy_session_ends_total{ending=\"dead_peer\"}",
            "wsproxy_reloads_total{result=\"failed\"}",
            "wsproxy_accept_errors_total{reason=\"descriptors\"}",
        ] {
            assert!(text.contains(&format!("{series} 0\n")), "{series}: {text}");
        }
    }

    #[test]
    fn totals_kept_elsewhere_never_go_back() {
        let counter = IntCounter::new("a", "b").unwrap();
        for (total, shown) in [(5, 5), (5, 5), (9, 9), (3, 9)] {
            raise(&counter, total);
            assert_eq!(counter.get(), shown);
        }
    }
}
