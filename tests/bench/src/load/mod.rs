//! The load generator: one thread, one epoll, frames prepared once, every answer checked.

pub mod broadcast;
pub mod churn;
pub mod held;
pub mod messages;
pub mod streams;

use std::{
    net::SocketAddr,
    sync::{Arc, atomic::Ordering},
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
}

/// The time of a measurement: warm-up, measured part, end.
pub struct Window {
    begin: u64,
    end: u64,
    started: Option<(u64, machine::Cpu)>,
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
        if self.started.is_none() && now >= self.begin {
            self.upstream_before = counted(target);
            self.started = Some((now, machine::Cpu::now()?));
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
    /// It never began, or `/proc/stat` can't be read.
    pub fn finish(self) -> Result<Figures> {
        let Some((began, cpu)) = self.started else { bail!("the measurement never began") };
        let cpu_seconds = cpu.until_now()?;
        let us = |quantile: f64| self.histogram.value_at_quantile(quantile) as f64 / 1000.0;
        let latency = (!self.histogram.is_empty()).then(|| Latency {
            p50: us(0.5),
            p99: us(0.99),
            p999: us(0.999),
            max: self.histogram.max() as f64 / 1000.0,
        });
        Ok(Figures {
            seconds: (now() - began) as f64 / 1e9,
            messages: self.messages,
            bytes: self.bytes,
            cpu_seconds,
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
