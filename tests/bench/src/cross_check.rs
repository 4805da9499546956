//! Our load generator beside one that others wrote, over the same way: the
//! `ws` package for Node, installed by `cargo xtask setup`.

use std::{path::Path, process::Command, sync::atomic::Ordering, time::Duration};

use anyhow::{Context as _, Result, bail, ensure};
use serde::Deserialize;

use crate::{
    awake::Awake,
    contender::Contender,
    load::{
        Target,
        messages::{self, Messages},
    },
    place::Site,
    results::CrossCheck,
    upstream::Upstream,
};

const SCRIPT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/cross-check.js");
const PAYLOAD: usize = 64;

/// What the script prints.
#[derive(Debug, Deserialize)]
struct Said {
    version: String,
    messages: u64,
    p50: f64,
}

/// Measures one contender with both.
///
/// # Errors
/// Node or the package is missing, a session broke, or the counts of both ends differ.
pub fn run(
    site: &Site,
    upstream: &Upstream,
    contender: &Contender,
    peers: &Path,
    measured: Duration,
) -> Result<CrossCheck> {
    let counters = &upstream.counters;
    let modules = peers.join("node_modules");
    ensure!(modules.join("ws").exists(), "the `ws` package is not there: run `cargo xtask setup`");
    let _awake = Awake::keep()?;
    let before = counters.frames.load(Ordering::Relaxed);
    let mut node = Command::new("node");
    node.arg(SCRIPT).arg(format!("ws://{}/echo", contender.address));
    node.args([PAYLOAD.to_string(), measured.as_secs_f64().to_string()]);
    node.env("NODE_PATH", modules);
    let output = site.at_client(|| node.output()).context("node cannot be run")?;
    if !output.status.success() {
        bail!("node: {}", String::from_utf8_lossy(&output.stderr).trim());
    }
    let said: Said = serde_json::from_slice(&output.stdout).context("what cross-check.js said")?;
    // The Close is a frame too.
    let counted = counters.frames.load(Ordering::Relaxed) - before - 1;
    ensure!(
        counted == said.messages,
        "{counted} messages arrived, {} were answered",
        said.messages
    );
    let target = Target {
        address: contender.address,
        upstream: None,
        warm_up: Duration::from_millis(100),
        measured,
        processes: Vec::new(),
        held: None,
    };
    let messages = Messages { payloads: vec![PAYLOAD], sessions: 1, rate: None };
    let ours = site.at_client(|| messages::run(&target, &messages))?;
    Ok(CrossCheck {
        tool: format!("ws {}", said.version),
        contender: contender.kind.name().into(),
        what: format!("one session, {PAYLOAD} B, closed loop"),
        ours_per_second: ours.messages as f64 / ours.seconds,
        theirs_per_second: said.messages as f64 / measured.as_secs_f64(),
        ours_p50: ours.latency.map_or(0.0, |latency| latency.p50),
        theirs_p50: said.p50,
        theirs_counted: said.messages,
        upstream_counted: counted,
    })
}
