//! What is done to each contender.

use anyhow::Result;

use crate::{
    awake::Awake,
    load::{
        Target, broadcast, churn, held,
        messages::{self, Messages},
        streams,
        wire::Transport,
    },
    results::Figures,
};

/// One kind of load.
#[derive(Clone, Debug, PartialEq)]
pub enum Scenario {
    /// Echo in a closed loop: payload in bytes, sessions.
    Echo(usize, usize),
    /// Echo in an open loop: payload in bytes, sessions, messages per second in all.
    Open(usize, usize, u32),
    /// From the server as fast as it goes: payload, sessions.
    Down(usize, usize),
    /// From the client as fast as it goes: payload, sessions.
    Up(usize, usize),
    /// The same message to everybody: payload, sessions, times per second.
    Broadcast(usize, usize, u32),
    /// Handshake and close: sessions at once.
    Handshake(usize),
    /// Sessions that do nothing: how many.
    Idle(usize),
    /// Readers that never read.
    SlowReaders(usize),
    /// Small and large messages side by side: sessions.
    Mix(usize),
}

/// Ten small ones, four of 1 KiB, one of 16 KiB and one of 256 KiB in sixteen.
const MIX: [usize; 16] =
    [64, 64, 1024, 64, 64, 1024, 64, 16 << 10, 64, 64, 1024, 64, 64, 1024, 64, 256 << 10];

fn size(bytes: usize) -> String {
    if bytes >= 1024 { format!("{}KiB", bytes / 1024) } else { format!("{bytes}B") }
}

impl Scenario {
    /// As in the results and for `--only`.
    #[must_use]
    pub fn name(&self) -> String {
        match *self {
            Self::Echo(payload, sessions) => format!("echo-{}-{sessions}", size(payload)),
            Self::Open(payload, sessions, _) => format!("open-{}-{sessions}", size(payload)),
            Self::Down(payload, sessions) => format!("stream-down-{}-{sessions}", size(payload)),
            Self::Up(payload, sessions) => format!("stream-up-{}-{sessions}", size(payload)),
            Self::Broadcast(payload, sessions, _) => {
                format!("broadcast-{}-{sessions}", size(payload))
            }
            Self::Handshake(_) => "handshake".into(),
            Self::Idle(_) => "idle".into(),
            Self::SlowReaders(_) => "slow-readers".into(),
            Self::Mix(_) => "mix".into(),
        }
    }

    /// Runs it once, at the client.
    ///
    /// # Errors
    /// As the load.
    pub fn run(&self, target: &Target, processes: &[u32]) -> Result<Figures> {
        let echo = |payloads: Vec<usize>, sessions, rate| {
            messages::run(target, &Messages { payloads, sessions, rate })
        };
        match *self {
            Self::Echo(payload, 1) => {
                let _awake = Awake::keep()?;
                let figures = echo(vec![payload], 1, None)?;
                Ok(Figures { cpu_seconds: 0.0, ..figures })
            }
            Self::Echo(payload, sessions) => echo(vec![payload], sessions, None),
            Self::Open(payload, sessions, rate) => {
                echo(vec![payload], sessions, Some(f64::from(rate)))
            }
            Self::Mix(sessions) => echo(MIX.to_vec(), sessions, None),
            Self::Down(payload, sessions) => streams::down(target, payload, sessions),
            Self::Up(payload, sessions) => streams::up(target, payload, sessions),
            Self::Broadcast(payload, sessions, rate) => {
                broadcast::run(target, payload, sessions, rate)
            }
            Self::Handshake(at_once) => churn::run(target, &Transport::Plain, at_once),
            Self::Idle(sessions) => held::idle(target, sessions, processes),
            Self::SlowReaders(slow) => held::slow_readers(target, slow, processes),
        }
    }
}

/// Every scenario: all payloads and numbers of sessions where the server is remote, the ones that
/// tell most elsewhere.
#[must_use]
pub fn all(whole: bool) -> Vec<Scenario> {
    const PAYLOADS: [usize; 4] = [64, 1 << 10, 16 << 10, 256 << 10];
    let mut all = Vec::new();
    for payload in PAYLOADS {
        for sessions in [1, 64, 1000] {
            if whole || sessions == 64 || (sessions, payload) == (1, 64) {
                all.push(Scenario::Echo(payload, sessions));
            }
        }
    }
    all.extend([Scenario::Down(64 << 10, 4), Scenario::Up(64 << 10, 4)]);
    if whole {
        all.extend([
            Scenario::Down(1 << 10, 4),
            Scenario::Open(1 << 10, 64, 15_000),
            Scenario::Open(64, 64, 2000),
        ]);
        all.push(Scenario::Broadcast(128, 1000, 25));
    }
    all.push(Scenario::Handshake(16));
    if whole {
        all.extend([Scenario::Mix(64), Scenario::SlowReaders(64), Scenario::Idle(7500)]);
    }
    all
}

/// One of each kind, small.
#[must_use]
pub fn quick() -> Vec<Scenario> {
    vec![
        Scenario::Echo(64, 1),
        Scenario::Echo(64, 64),
        Scenario::Echo(16 << 10, 64),
        Scenario::Open(1 << 10, 64, 5000),
        Scenario::Down(64 << 10, 4),
        Scenario::Up(64 << 10, 4),
        Scenario::Broadcast(128, 200, 25),
        Scenario::Handshake(16),
        Scenario::Mix(32),
        Scenario::SlowReaders(8),
        Scenario::Idle(500),
    ]
}
