//! `wsproxy top`: a running wsproxy, live on a terminal.
//!
//! A round of questions to the admin socket is a `snapshot`; two make `rates`; the `model` keeps
//! what is shown, sorted, filtered and selected, and `keys` change it; `view` and `text` put it
//! into lines, which `draw` colours. All these are pure. Here are the clock and the socket; in
//! `terminal` what its name says, and signals. What is shown of names is escaped (`snapshot`).

mod draw;
mod keys;
mod model;
mod rates;
mod snapshot;
mod terminal;
#[cfg(test)]
mod tests;
mod text;
mod view;

use std::{
    io::{self, IsTerminal as _, Write as _},
    path::PathBuf,
    time::Duration,
};

use clap::Args;
use hyper::Method;
use ratatui::crossterm::event::Event;
use serde_json::Value;
use tokio::{
    task::JoinHandle,
    time::{Instant, Interval, MissedTickBehavior, interval, sleep},
};

use crate::{
    admin::{
        client::SOCKET,
        line::{Line, within},
    },
    config::Period,
};
use keys::Action;
use model::Model;
use snapshot::{Snapshot, clean};
use terminal::{Ends, Screen};

/// A round of questions or an order may take this long; the list of sessions alone may take 2 s.
const PATIENCE: Duration = Duration::from_secs(10);

/// Between two rounds of questions.
pub type Pace = Period<100, 3_600_000>;

/// The flags of `wsproxy top`.
#[derive(Debug, Clone, PartialEq, Eq, Args)]
pub struct TopArgs {
    /// The admin socket of the running wsproxy
    #[arg(long, value_name = "PATH", default_value = SOCKET)]
    pub socket: PathBuf,
    /// Ask so often, from 100ms to 1h
    #[arg(long, value_name = "TIME", default_value = "1s")]
    pub interval: Pace,
    /// Print once, as text, what two questions an interval apart tell; what happens anyhow where
    /// standard output is no terminal
    #[arg(long)]
    pub once: bool,
}

/// Shows a running wsproxy until the operator leaves or a signal ends it; with `once`, or where
/// standard output is no terminal, prints it once.
///
/// # Errors
/// Nobody answers at the socket at the start, or the terminal can't be used.
pub async fn run(args: TopArgs) -> io::Result<()> {
    let asker = Asker { socket: args.socket, began: Instant::now() };
    let mut model = Model::default();
    model.apply(asker.round().await?);
    if args.once || !io::stdout().is_terminal() {
        sleep(args.interval.get()).await;
        model.apply(asker.round().await?);
        return io::stdout().lock().write_all(view::whole(&model).as_bytes());
    }
    let mut ends = Ends::new()?;
    let mut screen = Screen::open()?;
    Live { asker, model, ticks: ticks(args.interval.get()), round: None, order: None }
        .run(&mut screen, &mut ends)
        .await
}

/// The first after a whole pace: a round has just been.
fn ticks(pace: Duration) -> Interval {
    let mut ticks = interval(pace);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    ticks.reset();
    ticks
}

/// Asks the admin socket. Each round has a connection of its own, so that none of the few that
/// the socket serves at a time is held while nothing is asked.
#[derive(Debug, Clone)]
struct Asker {
    socket: PathBuf,
    began: Instant,
}

impl Asker {
    async fn round(&self) -> io::Result<Snapshot> {
        within(PATIENCE, &self.socket, async {
            let mut line = Line::open(&self.socket).await?;
            let status = good(line.ask(Method::GET, "/v1/status").await?)?;
            let upstreams = good(line.ask(Method::GET, "/v1/upstreams").await?)?;
            let sessions = good(line.ask(Method::GET, "/v1/sessions").await?)?;
            Ok(Snapshot::read(self.began.elapsed(), &status, &upstreams, &sessions))
        })
        .await
    }

    async fn close(&self, id: u64) -> io::Result<()> {
        let order = format!("/v1/close?session={id}");
        let asked = async { Line::open(&self.socket).await?.ask(Method::POST, &order).await };
        good(within(PATIENCE, &self.socket, asked).await?).map(drop)
    }
}

/// The answer, if it is none of an error.
fn good((good, answer): (bool, Value)) -> io::Result<Value> {
    if good {
        return Ok(answer);
    }
    let why = answer["error"].as_str().unwrap_or("an answer that says no");
    Err(io::Error::other(why.to_owned()))
}

/// The view while it runs.
struct Live {
    asker: Asker,
    model: Model,
    ticks: Interval,
    /// The questions under way.
    round: Option<JoinHandle<io::Result<Snapshot>>>,
    /// The order under way, and the session it is about.
    order: Option<(u64, JoinHandle<io::Result<()>>)>,
}

impl Live {
    async fn run(mut self, screen: &mut Screen, ends: &mut Ends) -> io::Result<()> {
        loop {
            let model = &mut self.model;
            screen.draw(|frame| draw::draw(frame, model))?;
            tokio::select! {
                () = ends.any() => return Ok(()),
                event = screen.event() => if self.typed(&event?) { return Ok(()) },
                round = finished(self.round.as_mut()) => self.answered(round),
                order = finished(self.order.as_mut().map(|(_, order)| order)) => self.ordered(order),
                _ = self.ticks.tick(), if self.round.is_none() && !self.model.paused => self.ask(),
            }
        }
    }

    /// True to leave. A new size needs no more than the next frame.
    fn typed(&mut self, event: &Event) -> bool {
        let Event::Key(key) = event else { return false };
        match self.model.press(*key) {
            Some(Action::Leave) => return true,
            Some(Action::Close(id)) => self.close(id),
            None => {}
        }
        if self.model.paused
            && let Some(round) = self.round.take()
        {
            round.abort();
        }
        false
    }

    fn ask(&mut self) {
        let asker = self.asker.clone();
        self.round = Some(tokio::spawn(async move { asker.round().await }));
    }

    fn answered(&mut self, round: io::Result<Snapshot>) {
        self.round = None;
        match round {
            Ok(snapshot) => self.model.apply(snapshot),
            Err(error) => self.model.trouble = Some(clean(&error.to_string())),
        }
    }

    fn close(&mut self, id: u64) {
        if let Some((other, _)) = &self.order {
            self.model.notice = Some(format!("session {other} is still being closed"));
            return;
        }
        let asker = self.asker.clone();
        self.order = Some((id, tokio::spawn(async move { asker.close(id).await })));
    }

    fn ordered(&mut self, order: io::Result<()>) {
        let Some((id, _)) = self.order.take() else { return };
        self.model.notice = Some(match order {
            // It ends when both sides have heard of it.
            Ok(()) => format!("session {id} is being closed"),
            Err(error) => format!("session {id} is not closed: {}", clean(&error.to_string())),
        });
        // Let the screen show it.
        self.ticks.reset_immediately();
    }
}

/// What a task came to; without one, never.
async fn finished<T>(task: Option<&mut JoinHandle<io::Result<T>>>) -> io::Result<T> {
    match task {
        Some(task) => task.await.unwrap_or_else(|error| Err(io::Error::other(error))),
        None => std::future::pending().await,
    }
}
