//! `wsproxy probe URL`: opens a WebSocket as a client does, step by step, and
//! says what each side said, how long it took, and what is wrong in plain words.
//!
//! The steps: `dial` resolves and connects, `tls` speaks TLS, `exchange`
//! sends the request and judges the answer, `session` sends ping and message
//! and closes. `explain` turns failures into words; `report` writes text as
//! it happens, or JSON at the end. What the peer sent is escaped (`shown`).
//!
//! A look-up of a name can't be stopped: it may outlive the probe in a thread of
//! the runtime, which should not wait for it when it shuts down.

mod answer;
mod args;
mod certificate;
mod dial;
mod exchange;
mod explain;
mod frame;
mod judge;
mod link;
mod outcome;
mod report;
mod request;
mod session;
pub(crate) mod shown;
mod target;
#[cfg(test)]
mod tests;
mod tls;

pub use args::ProbeArgs;
pub use outcome::Outcome;

use std::io::{self, Write};

use tokio::time::Instant;

use link::AnyLink;
use outcome::Finding;
use report::{Report, Stop};
use request::Plan;
use session::Session;
use tls::Trust;

/// Probes a URL and writes the report. It takes `args.timeout` seconds and a
/// second for the end of TLS at most.
///
/// # Errors
/// `out` can't be written, or this machine has no random numbers. Everything
/// that is wrong with the server is an [`Outcome`].
pub async fn probe(args: ProbeArgs, out: &mut impl Write) -> Result<Outcome, io::Error> {
    let mut report = Report::new(out, args.json, &args.url);
    let finding = match steps(&args, &mut report).await {
        Ok(summary) => Finding::new(Outcome::Open, summary, Vec::new()),
        Err(Stop::Found(finding)) => finding,
        Err(Stop::Write(error)) => return Err(error),
    };
    report.finish(&finding)
}

/// All steps; the summary if every one went well.
async fn steps<W: Write>(
    args: &ProbeArgs,
    report: &mut Report<'_, W>,
) -> Result<&'static str, Stop> {
    let usage = |why| Stop::Found(Finding::new(Outcome::Usage, why, Vec::new()));
    let plan = Plan::new(args).map_err(usage)?;
    let until = Instant::now() + plan.timeout;
    let trust = if plan.target.tls {
        Some(Trust::load(args.ca.as_deref(), args.insecure).map_err(usage)?)
    } else {
        None
    };
    let addresses = dial::resolve(&plan, report, until).await?;
    let tcp = dial::connect(&addresses, report, until).await?;
    let mut link: AnyLink = match trust {
        None => Box::new(tcp),
        Some(trust) => {
            let host = &plan.target.place.host;
            Box::new(tls::handshake(tcp, host, trust, report, until).await?)
        }
    };
    let request = plan.request(tls::random()?);
    let opened = exchange::exchange(&mut link, &plan, &request, report, until).await?;
    let mut session = Session::new(link, opened.rest, until);
    if !args.no_ping {
        session.ping(report).await?;
    }
    if let Some(text) = &args.message {
        session.message(text, report).await?;
    }
    session.close(report).await?;
    Ok(match (args.no_ping, &args.message) {
        (false, None) => "the tunnel is open and answers pings",
        (false, Some(_)) => "the tunnel is open and answers pings and the message",
        (true, Some(_)) => "the tunnel is open and answers the message",
        (true, None) => "the tunnel is open (nothing was sent through it)",
    })
}
