//! The load generator: one thread, one epoll, frames prepared once, every answer checked.

pub mod broadcast;
pub mod churn;
pub mod held;
pub mod messages;
pub mod requests;
pub mod streams;
pub mod wire;

use std::{
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use anyhow::{Result, bail};
use hdrhistogram::Histogram;

use crate::{
    machine,
    poll::now,
    results::{Figures, Latency},
    upstream::Counters,
};

/// Nothing moved for so long: the measurement failed.
const STALL: u64 = 5_000_000_000;
/// Latencies are kept with so many digits, up to a minute.
const DIGITS: u8 = 3;
const LONGEST_NS: u64 = 60_000_000_000;
/// How often is looked whether a warm-up that is held may end, in ns.
const HELD: u64 = 5_000_000;

/// Where the load goes and how long it is measured.
#[derive(Clone, Debug)]
pub struct Target {
    /// The contender, or the upstream itself.
    pub address: SocketAddr,
    /// What the upstream counts; `None` when it is another process.
    pub upstream: Option<Arc<Counters>>,
    /// Not measured yet.
    pub warm_up: Duration,
    /// Measured.
    pub measured: Duration,
    /// Processes whose own CPU time is told beside that of the whole machine.
    pub processes: Vec<u32>,
    /// The warm-up goes on while this is true.
    pub held: Option<Arc<AtomicBool>>,
}

impl Target {
    fn is_held(&self) -> bool {
        self.held.as_ref().is_some_and(|held| held.load(Ordering::Relaxed))
    }
}

/// The begin of the measured part.
struct Started {
    at: u64,
    cpu: machine::Cpu,
    /// What the target's processes had spent until then, in s.
    own_seconds: f64,
}

/// The time of a measurement: warm-up, measured part, end.
pub struct Window {
    begin: u64,
    end: u64,
    started: Option<Started>,
    processes: Vec<u32>,
    histogram: Histogram<u64>,
    messages: u64,
    bytes: u64,
    /// What the upstream had counted when the measured part began.
    upstream_before: (u64, u64),
    last_progress: u64,
}

impl Window {
    /// The warm-up begins now.
    ///
    /// # Errors
    /// The histogram's bounds are refused.
    pub fn new(target: &Target) -> Result<Self> {
        let now = now();
        let begin = now + target.warm_up.as_nanos() as u64;
        Ok(Self {
            begin,
            end: begin + target.measured.as_nanos() as u64,
            started: None,
            processes: target.processes.clone(),
            histogram: Histogram::new_with_bounds(1, LONGEST_NS, DIGITS)?,
            messages: 0,
            bytes: 0,
            upstream_before: (0, 0),
            last_progress: now,
        })
    }

    /// The next point in time at which [`Self::goes_on`] has something to do.
    #[must_use]
    pub fn due(&self) -> u64 {
        if self.started.is_none() { self.begin } else { self.end }
    }

    /// Begins the measured part when it is time; says whether its end is not reached yet.
    ///
    /// # Errors
    /// Nothing moved for a long time.
    pub fn goes_on(&mut self, target: &Target, now: u64) -> Result<bool> {
        if self.started.is_none() && now >= self.begin && target.is_held() {
            let longer = now + HELD - self.begin;
            (self.begin, self.end) = (self.begin + longer, self.end + longer);
        } else if self.started.is_none() && now >= self.begin {
            self.upstream_before = counted(target);
            let own_seconds = machine::spent_by(&self.processes)?;
            self.started = Some(Started { at: now, cpu: machine::Cpu::now()?, own_seconds });
        }
        if now.saturating_sub(self.last_progress) > STALL {
            bail!("nothing arrived for {} s", STALL / 1_000_000_000);
        }
        Ok(now < self.end)
    }

    /// Something arrived that is not a message of its own.
    pub fn progress(&mut self, now: u64) {
        self.last_progress = now;
    }

    /// Messages arrived, whole and right.
    pub fn arrived(&mut self, now: u64, messages: u64, bytes: u64) {
        self.last_progress = now;
        if self.started.is_some() {
            self.messages += messages;
            self.bytes += bytes;
        }
    }

    /// How long one took, in ns.
    pub fn took(&mut self, ns: u64) {
        if self.started.is_some() {
            self.histogram.saturating_record(ns.max(1));
        }
    }

    /// The end of the measured part.
    ///
    /// # Errors
    /// It never began, `/proc/stat` can't be read, or one of the target's processes is gone.
    pub fn finish(self) -> Result<Figures> {
        let Some(started) = self.started else { bail!("the measurement never began") };
        let cpu_seconds = started.cpu.until_now()?;
        let own_cpu_seconds = machine::spent_by(&self.processes)? - started.own_seconds;
        let us = |quantile: f64| self.histogram.value_at_quantile(quantile) as f64 / 1000.0;
        let latency = (!self.histogram.is_empty()).then(|| Latency {
            p50: us(0.5),
            p99: us(0.99),
            p999: us(0.999),
            max: self.histogram.max() as f64 / 1000.0,
        });
        Ok(Figures {
            seconds: (now() - started.at) as f64 / 1e9,
            messages: self.messages,
            bytes: self.bytes,
            cpu_seconds,
            own_cpu_seconds,
            latency,
            ..Figures::default()
        })
    }

    /// As [`Self::finish`], with the messages that the upstream counted meanwhile.
    ///
    /// # Errors
    /// As there.
    pub fn finish_at_upstream(mut self, target: &Target) -> Result<Figures> {
        let (frames, bytes) = counted(target);
        self.messages = frames - self.upstream_before.0;
        self.bytes = bytes - self.upstream_before.1;
        self.finish()
    }
}

fn counted(target: &Target) -> (u64, u64) {
    target.upstream.as_ref().map_or((0, 0), |counters| {
        (counters.frames.load(Ordering::Relaxed), counters.bytes.load(Ordering::Relaxed))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_warm_up_that_is_held_goes_on() {
        let held = Arc::new(AtomicBool::new(true));
        let target = Target {
            address: ([127, 0, 0, 1], 1).into(),
            upstream: None,
            warm_up: Duration::ZERO,
            measured: Duration::from_nanos(HELD),
            processes: Vec::new(),
            held: Some(held.clone()),
        };
        let mut window = Window::new(&target).expect("bounds that are good");
        let late = window.due() + 3 * HELD;
        assert!(window.goes_on(&target, late).expect("nothing stalled") && window.due() > late);
        assert!(window.started.is_none());
        held.store(false, Ordering::Relaxed);
        let begin = window.due();
        assert!(window.goes_on(&target, begin).expect("nothing stalled"));
        assert!(window.started.is_some() && window.due() == begin + HELD);
    }
}
