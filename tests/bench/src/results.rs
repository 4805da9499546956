//! What a run measured, as it is stored in JSON and read by the report.

use serde::{Deserialize, Serialize};

/// A whole run.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Run {
    /// Where it ran and against what.
    pub environment: Environment,
    /// Every combination of topology, scenario and contender, in the order it was first run.
    pub cells: Vec<Cell>,
    /// Ours beside a third party's load generator.
    pub cross_check: Vec<CrossCheck>,
}

/// The machine, the programs and how they were configured.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Environment {
    /// Day of the run, UTC, `2026-11-21`.
    pub date: String,
    /// The command that repeats the run.
    pub command: String,
    /// `uname -srm`.
    pub kernel: String,
    /// Model of the CPU and how many there are.
    pub cpu: String,
    /// TCP's congestion control in the namespaces.
    #[serde(default)]
    pub congestion_control: String,
    /// Memory of the machine, in MiB.
    pub memory_mib: u64,
    /// Length of one measurement, in s.
    pub seconds: f64,
    /// Rounds: each contender is measured once in each.
    pub rounds: u32,
    /// Who took part, the baseline without a proxy first.
    pub contenders: Vec<Contender>,
    /// Contenders and scenarios that could not be run, and why.
    pub skipped: Vec<String>,
}

/// One way from the client to the server.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Contender {
    /// `direct`, `nginx`, `nginx-64k`, `haproxy`, `haproxy-splice`, `relay`, `sockmap`, `auto`, `packet`,
    /// `packet-no-frames`.
    pub name: String,
    /// What the program says its version is.
    pub version: String,
    /// Its configuration file, word for word; empty for `direct`.
    pub configuration: String,
}

/// One contender in one scenario of one topology.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Cell {
    /// `routed`, `loopback` or `local-server`.
    pub topology: String,
    /// Name of the scenario, such as `echo-64B-64` (payload, sessions).
    pub scenario: String,
    /// Name of the contender.
    pub contender: String,
    /// What each round measured; a round that failed is absent and named in `failures`.
    pub rounds: Vec<Figures>,
    /// Why rounds failed.
    pub failures: Vec<String>,
}

/// One measurement.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Figures {
    /// Number of the round, from 0: ratios are taken within a round.
    pub round: u32,
    /// How long was measured, in s.
    pub seconds: f64,
    /// Messages (or handshakes) that arrived and were what they should be.
    pub messages: u64,
    /// Payload bytes of these.
    pub bytes: u64,
    /// CPU time of the whole machine that was not idle, in s (`/proc/stat`); 0: not known.
    pub cpu_seconds: f64,
    /// Of that, user and system time of the contender's own processes, in s.
    #[serde(default)]
    pub own_cpu_seconds: f64,
    /// Of one message, where the scenario has a latency.
    pub latency: Option<Latency>,
    /// Memory, where the scenario is about memory.
    pub memory: Option<Memory>,
    /// Of wsproxy's bytes, the part that the kernel carried.
    #[serde(default)]
    pub kernel_share: Option<f64>,
    /// Sessions on wsproxy's packet path in the middle of the measured part, where that is asked
    /// for.
    #[serde(default)]
    pub on_packet_path: Option<u64>,
}

/// Latency in us.
#[derive(Clone, Copy, Debug, Default, Serialize, Deserialize)]
pub struct Latency {
    /// Median.
    pub p50: f64,
    /// 99th percentile.
    pub p99: f64,
    /// 99.9th percentile.
    pub p999: f64,
    /// The worst.
    pub max: f64,
}

/// What sessions cost in memory, all of them together, over the state before they were opened.
#[derive(Clone, Copy, Debug, Default, Serialize, Deserialize)]
pub struct Memory {
    /// Sessions that were open.
    pub sessions: u64,
    /// Of the contender's processes (proportional set size), in KiB; 0 for `direct`.
    pub user_kib: f64,
    /// Of the kernel for the whole machine (slab, socket buffers), both peers' sockets included, in KiB.
    pub kernel_kib: f64,
    /// Of that, slab, in KiB.
    #[serde(default)]
    pub slab_kib: f64,
}

/// One measurement by our load generator and by a third party's, over the same way.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct CrossCheck {
    /// Name and version of the other tool.
    pub tool: String,
    /// Name of the contender.
    pub contender: String,
    /// What was run, in words.
    pub what: String,
    /// Messages per second by ours.
    pub ours_per_second: f64,
    /// Messages per second by theirs.
    pub theirs_per_second: f64,
    /// Median latency by ours, in us.
    pub ours_p50: f64,
    /// Median latency by theirs, in us.
    pub theirs_p50: f64,
    /// Messages that the other tool says it got an answer to.
    pub theirs_counted: u64,
    /// Messages that our upstream counted meanwhile.
    pub upstream_counted: u64,
}
