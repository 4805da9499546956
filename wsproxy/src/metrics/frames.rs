//! Counters of what sessions say: messages, control frames, close codes, pings.

use std::sync::{Mutex, PoisonError};

use prometheus::{
    CounterVec, HistogramOpts, HistogramVec, IntCounterVec, IntGauge, IntGaugeVec, Opts, Registry,
    core::{Collector, Desc},
    proto,
};
use wsproxy_common::cursor::{Counts, SIZES, size_limit, violation};

use super::{raise, registered};
use crate::datapath::{Datapath, SessionEnd, Side};

/// Seconds; from a peer in the same rack to one behind a satellite.
const TRIP_BUCKETS: [f64; 14] =
    [0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 5.0];
/// Seconds; from one request to a week.
const DURATION_BUCKETS: [f64; 12] = [
    0.1, 1.0, 10.0, 60.0, 300.0, 900.0, 3600.0, 14_400.0, 43_200.0, 86_400.0, 259_200.0, 604_800.0,
];

const DIRECTIONS: [&str; 2] = ["to_upstream", "to_client"];

/// Live sessions by what the configuration names.
#[derive(Debug, Default)]
pub struct LiveCounts {
    /// Route, sessions.
    pub routes: Vec<(String, u64)>,
    /// Upstream group, server, sessions and requests.
    pub servers: Vec<(String, String, u64)>,
    /// Sessions are being closed.
    pub draining: bool,
}

/// The metrics of sessions' frames.
pub(super) struct FrameMetrics {
    messages: IntCounterVec,
    payload: IntCounterVec,
    control: IntCounterVec,
    sizes: MessageSizes,
    trips: HistogramVec,
    pings: IntCounterVec,
    codes: IntCounterVec,
    violations: IntCounterVec,
    durations: HistogramVec,
    diverted: CounterVec,
    by_route: IntGaugeVec,
    by_server: IntGaugeVec,
    self_test: IntGauge,
    draining: IntGauge,
}

impl FrameMetrics {
    pub(super) fn new(registry: &Registry) -> prometheus::Result<Self> {
        let r = registry;
        let counters = |name: &str, help: &str, labels: &[&str]| {
            registered(r, IntCounterVec::new(Opts::new(name, help), labels))
        };
        let gauges = |name: &str, help: &str, labels: &[&str]| {
            registered(r, IntGaugeVec::new(Opts::new(name, help), labels))
        };
        let gauge = |name: &str, help: &str| registered(r, IntGauge::new(name, help));
        let histograms = |name: &str, help: &str, buckets: &[f64], label: &str| {
            let opts = HistogramOpts::new(name, help).buckets(buckets.to_vec());
            registered(r, HistogramVec::new(opts, &[label]))
        };
        Ok(Self {
            messages: counters(
                "wsproxy_messages_total",
                "Messages that passed, running sessions included.",
                &["direction", "opcode"],
            )?,
            payload: counters(
                "wsproxy_payload_bytes_total",
                "Payload bytes that passed, running sessions included.",
                &["direction", "opcode"],
            )?,
            control: counters(
                "wsproxy_control_frames_total",
                "Control frames of peers that passed.",
                &["direction", "opcode"],
            )?,
            sizes: registered(r, MessageSizes::new())?,
            trips: histograms(
                "wsproxy_ping_seconds",
                "From a Ping of wsproxy to its answer.",
                &TRIP_BUCKETS,
                "side",
            )?,
            pings: counters("wsproxy_pings_total", "Pings that wsproxy sent.", &["side"])?,
            codes: counters(
                "wsproxy_close_codes_total",
                "Close frames of ended sessions, by who sent them first.",
                &["from", "code"],
            )?,
            violations: counters(
                "wsproxy_framing_violations_total",
                "Ended sessions in which a side broke a rule of framing.",
                &["side", "violation"],
            )?,
            durations: histograms(
                "wsproxy_session_seconds",
                "How long ended sessions lasted.",
                &DURATION_BUCKETS,
                "route",
            )?,
            diverted: registered(
                r,
                CounterVec::new(
                    Opts::new(
                        "wsproxy_diverted_seconds_total",
                        "Time that directions of sessions in the kernel were in user space.",
                    ),
                    &["direction"],
                ),
            )?,
            by_route: gauges("wsproxy_route_sessions", "Sessions running now.", &["route"])?,
            by_server: gauges(
                "wsproxy_upstream_sessions",
                "Sessions and requests at a server now.",
                &["upstream", "server"],
            )?,
            self_test: gauge(
                "wsproxy_self_test_passed",
                "1: the kernel path has passed its self-test at the start.",
            )?,
            draining: gauge("wsproxy_draining", "1: sessions are being closed before a stop.")?,
        })
    }

    /// Shows every family, for the test of the documentation.
    #[cfg(test)]
    pub(super) fn touch(&self) {
        let pairs = [&self.messages, &self.payload, &self.control, &self.codes, &self.violations];
        for family in pairs {
            family.with_label_values(&["x", "y"]);
        }
        self.trips.with_label_values(&["x"]);
        self.pings.with_label_values(&["x"]);
        self.durations.with_label_values(&["x"]);
        self.diverted.with_label_values(&["x"]);
        self.by_route.with_label_values(&["x"]);
        self.by_server.with_label_values(&["x", "y"]);
    }

    pub(super) fn pinged(&self, to: Side) {
        self.pings.with_label_values(&[to.label()]).inc();
    }

    pub(super) fn answered(&self, by: Side, after: std::time::Duration) {
        self.trips.with_label_values(&[by.label()]).observe(after.as_secs_f64());
    }

    pub(super) fn session_ended(&self, end: &SessionEnd) {
        let seconds = end.duration.as_secs_f64();
        self.durations.with_label_values(&[&*end.meta.route]).observe(seconds);
        let codes = &end.codes;
        let said = [
            ("client", codes.of_client),
            ("upstream", codes.of_upstream),
            ("wsproxy_to_client", codes.to_client),
            ("wsproxy_to_upstream", codes.to_upstream),
        ];
        for (from, code) in said.into_iter().filter(|(_, code)| *code != 0) {
            self.codes.with_label_values(&[from, code_label(code)]).inc();
        }
        for (side, found) in ["client", "upstream"].into_iter().zip(end.violations) {
            for (bit, name) in violation::NAMES {
                if found & bit != 0 {
                    self.violations.with_label_values(&[side, name]).inc();
                }
            }
        }
    }

    pub(super) fn read(&self, datapath: &Datapath, live: Option<&LiveCounts>) {
        let counts = datapath.counts();
        self.self_test.set(i64::from(datapath.path() != crate::datapath::Path::Relay));
        for (at, direction) in DIRECTIONS.into_iter().enumerate() {
            let counts = &counts[at];
            for (counter, opcode, total) in [
                (&self.messages, "text", counts.text_messages),
                (&self.messages, "binary", counts.binary_messages),
                (&self.payload, "text", counts.text_bytes),
                (&self.payload, "binary", counts.binary_bytes),
                (&self.payload, "other", counts.other_bytes),
                (&self.control, "ping", counts.pings),
                (&self.control, "pong", counts.pongs),
                (&self.control, "close", counts.closes),
            ] {
                raise(&counter.with_label_values(&[direction, opcode]), total);
            }
            let diverted = self.diverted.with_label_values(&[direction]);
            let more = datapath.diverted()[at].as_secs_f64() - diverted.get();
            diverted.inc_by(more.max(0.0));
        }
        self.sizes.set(counts);
        let Some(live) = live else { return };
        self.draining.set(i64::from(live.draining));
        self.by_route.reset();
        for (route, sessions) in &live.routes {
            self.by_route.with_label_values(&[route]).set(*sessions as i64);
        }
        self.by_server.reset();
        for (group, server, sessions) in &live.servers {
            self.by_server.with_label_values(&[group, server]).set(*sessions as i64);
        }
    }
}

/// A close code as a label: those of RFC 6455 and its registry by number, others by their range.
fn code_label(code: u16) -> &'static str {
    const KNOWN: [(u16, &str); 13] = [
        (1000, "1000"),
        (1001, "1001"),
        (1002, "1002"),
        (1003, "1003"),
        (1007, "1007"),
        (1008, "1008"),
        (1009, "1009"),
        (1010, "1010"),
        (1011, "1011"),
        (1012, "1012"),
        (1013, "1013"),
        (1014, "1014"),
        (1005, "1005"),
    ];
    match (KNOWN.iter().find(|(known, _)| *known == code), code) {
        (Some((_, label)), _) => label,
        (None, 3000..=3999) => "3xxx",
        (None, 4000..=4999) => "4xxx",
        _ => "other",
    }
}

/// Sizes of messages, as the frame cursors have counted them.
#[derive(Clone)]
struct MessageSizes {
    desc: Desc,
    counts: std::sync::Arc<Mutex<[Counts; 2]>>,
}

impl MessageSizes {
    const NAME: &str = "wsproxy_message_bytes";
    const HELP: &str = "Payload of messages that passed, running sessions included.";

    fn new() -> prometheus::Result<Self> {
        let label = vec!["direction".to_owned()];
        let desc =
            Desc::new(Self::NAME.to_owned(), Self::HELP.to_owned(), label, Default::default());
        Ok(Self { desc: desc?, counts: Default::default() })
    }

    fn set(&self, counts: [Counts; 2]) {
        *self.counts.lock().unwrap_or_else(PoisonError::into_inner) = counts;
    }
}

impl Collector for MessageSizes {
    fn desc(&self) -> Vec<&Desc> {
        vec![&self.desc]
    }

    fn collect(&self) -> Vec<proto::MetricFamily> {
        let counts = *self.counts.lock().unwrap_or_else(PoisonError::into_inner);
        let metrics = DIRECTIONS.into_iter().zip(counts).map(|(direction, counts)| {
            let mut label = proto::LabelPair::default();
            label.set_name("direction".to_owned());
            label.set_value(direction.to_owned());
            let mut metric = proto::Metric::from_label(vec![label]);
            metric.set_histogram(histogram(&counts));
            metric
        });
        let mut family = proto::MetricFamily::default();
        family.set_name(Self::NAME.to_owned());
        family.set_help(Self::HELP.to_owned());
        family.set_field_type(proto::MetricType::HISTOGRAM);
        family.set_metric(metrics.collect());
        vec![family]
    }
}

/// Cumulative, as Prometheus wants it.
fn histogram(counts: &Counts) -> proto::Histogram {
    let mut histogram = proto::Histogram::default();
    let mut below = 0u64;
    let mut buckets = Vec::with_capacity(SIZES);
    for (class, count) in counts.sizes.iter().enumerate() {
        below += count;
        if let Some(limit) = size_limit(class) {
            let mut bucket = proto::Bucket::default();
            bucket.set_upper_bound(limit as f64);
            bucket.set_cumulative_count(below);
            buckets.push(bucket);
        }
    }
    histogram.set_bucket(buckets);
    histogram.set_sample_count(below);
    histogram.set_sample_sum((counts.text_bytes + counts.binary_bytes) as f64);
    histogram
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_shown_as_a_histogram() {
        let mut counts = Counts { text_bytes: 10, binary_bytes: 70, ..Counts::default() };
        (counts.sizes[0], counts.sizes[3], counts.sizes[SIZES - 1]) = (2, 1, 1);
        let shown = histogram(&counts);
        assert_eq!((shown.get_sample_count(), shown.get_sample_sum()), (4, 80.0));
        let buckets = shown.get_bucket();
        assert_eq!(buckets.len(), SIZES - 1);
        assert_eq!((buckets[0].upper_bound(), buckets[0].cumulative_count()), (4.0, 2));
        assert_eq!((buckets[3].upper_bound(), buckets[3].cumulative_count()), (256.0, 3));
        assert_eq!(buckets[14].cumulative_count(), 3, "one is above all limits");
    }

    #[test]
    fn labels_of_codes_are_bounded() {
        let labels: std::collections::HashSet<_> = (0..=u16::MAX).map(code_label).collect();
        assert!(labels.len() <= 16, "{labels:?}");
        assert_eq!((code_label(1001), code_label(4999), code_label(77)), ("1001", "4xxx", "other"));
    }
}
