//! A run as Markdown: one table, the targets in it, and the configurations.

use std::fmt::{self, Write as _};

use super::{Load, Measured, Run};
use crate::{
    report::{
        group::{self, Figure},
        markdown::{spread_text, versions},
        stats::{Rounds, Spread, ratio, spread},
    },
    results::Figures,
};

/// Handshakes per CPU-second by nginx's: at least so much is wanted.
const HANDSHAKES_PER_CPU: f64 = 1.0;
/// Requests per second by nginx's: at least so much is wanted.
const REQUESTS_PER_SECOND: f64 = 0.7;

/// A row of a measurement.
struct Quantity {
    name: &'static str,
    of: Figure,
    /// Least ratio to nginx's that is wanted.
    wanted: Option<f64>,
}

const fn row(name: &'static str, of: Figure) -> Quantity {
    Quantity { name, of, wanted: None }
}

impl Quantity {
    const fn at_least(self, ratio: f64) -> Self {
        Self { wanted: Some(ratio), ..self }
    }
}

const HANDSHAKE: [Quantity; 6] = [
    row("handshakes per s", group::rate),
    row("handshakes per CPU-second of the machine", per_cpu_second).at_least(HANDSHAKES_PER_CPU),
    row("CPU us per handshake, whole machine", group::cpu),
    row("CPU us per handshake, the gateway's processes", own_cpu),
    row("p50 us, connect to 101", group::p50),
    row("p99 us, connect to 101", group::p99),
];

const REQUESTS: [Quantity; 5] = [
    row("requests per s", group::rate).at_least(REQUESTS_PER_SECOND),
    row("CPU us per request, whole machine", group::cpu),
    row("CPU us per request, the gateway's processes", own_cpu),
    row("p50 us", group::p50),
    row("p99 us", group::p99),
];

const IDLE: [Quantity; 2] = [
    row("KiB per session, the gateway's processes", group::user_memory),
    row("KiB per session, slab of the kernel", group::slab),
];

fn quantities(load: Load) -> &'static [Quantity] {
    match load {
        Load::Handshake => &HANDSHAKE,
        Load::Requests => &REQUESTS,
        Load::Idle => &IDLE,
    }
}

/// What a second of CPU time of the whole machine is enough for.
fn per_cpu_second(figures: &Figures) -> Option<f64> {
    (figures.messages > 0 && figures.cpu_seconds > 0.0)
        .then(|| figures.messages as f64 / figures.cpu_seconds)
}

/// CPU time of the gateway's processes for one message, in us.
fn own_cpu(figures: &Figures) -> Option<f64> {
    (figures.messages > 0).then(|| figures.own_cpu_seconds * 1e6 / figures.messages as f64)
}

/// The whole document.
#[must_use]
pub fn document(run: &Run) -> String {
    let mut text = String::new();
    // Writing to a string cannot fail.
    let _ = whole(&mut text, run);
    text
}

fn whole(out: &mut String, run: &Run) -> fmt::Result {
    let e = &run.environment;
    writeln!(
        out,
        "Run of {}, `{}`, {} MiB of memory, Linux `{}`; all on one loopback, TCP congestion control `{}`.",
        e.date, e.cpu, e.memory_mib, e.kernel, e.congestion_control
    )?;
    writeln!(
        out,
        "{} rounds of {} s for each of both, interleaved (idle sessions: at most two rounds); {} idle sessions.",
        e.rounds, e.seconds, run.sessions
    )?;
    writeln!(
        out,
        "Medians over the rounds, in brackets the least and the most; ratios are taken within a round.\n"
    )?;
    writeln!(out, "{NOTES}\n")?;
    writeln!(out, "| | nginx | wsproxy | wsproxy by nginx | wanted | |")?;
    writeln!(out, "|---|---:|---:|---:|---:|---|")?;
    for measured in &run.measured {
        rows(out, measured)?;
    }
    for measured in &run.measured {
        for failure in &measured.failures {
            writeln!(out, "\n{}: {failure}", measured.measurement.name())?;
        }
    }
    writeln!(out)?;
    versions(out, &e.contenders)
}

const NOTES: &str = "\
- CPU of the whole machine holds the load, the servers behind and the kernel too, and with TLS the client's side of it: that is the same work for both.
- CPU of the gateway's processes is their own user and system time. What the kernel does for them in softirqs and in threads of its own is in the other figure only.
- TLS is 1.3 with X25519, AES-256-GCM and a certificate for ECDSA on P-256; each handshake is a full one.
- Handshake: 16 sessions at once, each opened, closed in order and opened again.
- Requests: 64 connections, a GET of 100 bytes that an nginx answers; connections stay open on both sides.
- Idle sessions: both sides sent one message. Memory of the gateway's processes is their proportional set size. That of the kernel is slab (sockets, files, small \
buffers, what BPF keeps for a socket), of client, gateway and server together: what else the kernel takes cannot be told from free pages that a CPU keeps back for itself.";

fn rows(out: &mut String, measured: &Measured) -> fmt::Result {
    writeln!(out, "| **{}** | | | | | |", measured.measurement.name())?;
    for quantity in quantities(measured.measurement.load) {
        let of = |all: &[Figures]| -> Rounds {
            all.iter().filter_map(|f| Some((f.round, (quantity.of)(f)?))).collect()
        };
        let (nginx, wsproxy) = (of(&measured.nginx), of(&measured.wsproxy));
        let by_nginx = spread(&ratio(&wsproxy, &nginx));
        let text = |spread: Option<Spread>| spread.map_or_else(|| "-".into(), spread_text);
        let (wanted, verdict) = verdict(quantity.wanted, by_nginx);
        writeln!(
            out,
            "| {} | {} | {} | {} | {wanted} | {verdict} |",
            quantity.name,
            text(spread(&nginx)),
            text(spread(&wsproxy)),
            text(by_nginx)
        )?;
    }
    Ok(())
}

/// What is wanted, and whether the median is it.
fn verdict(wanted: Option<f64>, by_nginx: Option<Spread>) -> (String, &'static str) {
    let Some(least) = wanted else { return (String::new(), "") };
    let verdict = match by_nginx {
        None => "not measured",
        Some(spread) if spread.median >= least => "reached",
        Some(_) => "**not reached**",
    };
    (format!("≥ {least:.2}"), verdict)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        gateway::Measurement,
        results::{Contender, Latency, Memory},
    };

    fn busy(round: u32, messages: u64, cpu_seconds: f64) -> Figures {
        let own_cpu_seconds = cpu_seconds / 4.0;
        let latency = Some(Latency { p50: 100.0, p99: 900.0, p999: 1e3, max: 1e3 });
        let seconds = 2.0;
        Figures {
            round,
            seconds,
            messages,
            cpu_seconds,
            own_cpu_seconds,
            latency,
            ..Figures::default()
        }
    }

    fn measured(measurement: Measurement, nginx: Vec<Figures>, wsproxy: Vec<Figures>) -> Measured {
        Measured { measurement, nginx, wsproxy, failures: Vec::new() }
    }

    fn run(measured: Vec<Measured>) -> String {
        let mut run = Run { measured, ..Run::default() };
        let configuration = "the file\n".to_owned();
        run.environment.contenders =
            vec![Contender { name: "nginx".into(), configuration, ..Contender::default() }];
        document(&run)
    }

    fn has(document: &str, line: &str) {
        assert!(document.lines().any(|other| other == line), "no line {line} in\n{document}");
    }

    #[test]
    fn handshakes_are_judged_by_cpu_and_within_rounds() {
        let nginx = vec![busy(0, 10_000, 2.0), busy(1, 8_000, 1.0), busy(2, 9_000, 1.0)];
        // 1.5, 0.5 and, without a round of nginx's, no ratio.
        let wsproxy = vec![busy(0, 7_500, 1.0), busy(1, 4_000, 1.0), busy(3, 9_000, 1.0)];
        let text = run(vec![measured(Measurement::ALL[0], nginx, wsproxy)]);
        has(&text, "| **handshake, plain** | | | | | |");
        has(
            &text,
            "| handshakes per CPU-second of the machine | 8000 (5000 to 9000) | 7500 (4000 to 9000) \
             | 1.00 (0.50 to 1.50) | ≥ 1.00 | reached |",
        );
        has(
            &text,
            "| CPU us per handshake, the gateway's processes | 31.2 (27.8 to 50.0) \
             | 33.3 (27.8 to 62.5) | 1.33 (0.67 to 2.00) |  |  |",
        );
    }

    #[test]
    fn requests_are_judged_by_their_rate() {
        let of = |requests| vec![busy(0, requests, 1.0)];
        let text = run(vec![measured(Measurement::ALL[3], of(10_000), of(6_900))]);
        has(
            &text,
            "| requests per s | 5000 (5000 to 5000) | 3450 (3450 to 3450) | 0.69 (0.69 to 0.69) \
             | ≥ 0.70 | **not reached** |",
        );
        let text = run(vec![measured(Measurement::ALL[3], of(10_000), of(7_000))]);
        assert!(text.contains("| ≥ 0.70 | reached |"), "{text}");
    }

    #[test]
    fn what_failed_is_told_and_not_judged() {
        let failed = Measured {
            failures: vec!["wsproxy in round 0: no 101".into()],
            ..measured(Measurement::ALL[1], vec![busy(0, 10, 1.0)], Vec::new())
        };
        let text = run(vec![failed]);
        has(
            &text,
            "| handshakes per CPU-second of the machine | 10.0 (10.0 to 10.0) | - | - | ≥ 1.00 \
             | not measured |",
        );
        has(&text, "handshake, TLS: wsproxy in round 0: no 101");
    }

    #[test]
    fn idle_sessions_are_told_by_their_memory() {
        let of = |user_kib| {
            let memory = Memory { sessions: 100, user_kib, kernel_kib: 1000.0, slab_kib: 800.0 };
            vec![Figures { memory: Some(memory), ..Figures::default() }]
        };
        let text = run(vec![measured(Measurement::ALL[4], of(400.0), of(100.0))]);
        has(
            &text,
            "| KiB per session, the gateway's processes | 4.00 (4.00 to 4.00) \
             | 1.00 (1.00 to 1.00) | 0.25 (0.25 to 0.25) |  |  |",
        );
        has(
            &text,
            "| KiB per session, slab of the kernel | 8.00 (8.00 to 8.00) | 8.00 (8.00 to 8.00) \
             | 1.00 (1.00 to 1.00) |  |  |",
        );
        assert!(text.contains("the file\n"), "the configurations are told: {text}");
    }
}
