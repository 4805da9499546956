//! The terminal, and what ends the view from outside.

use std::{io, mem::ManuallyDrop, panic, thread};

use ratatui::{
    Frame, Terminal,
    backend::CrosstermBackend,
    crossterm::{
        cursor::Show,
        event::{self, Event},
        execute,
        terminal::{EnterAlternateScreen, LeaveAlternateScreen, disable_raw_mode, enable_raw_mode},
    },
};
use rustix::{
    event::{PollFd, PollFlags, poll},
    io::Errno,
};
use tokio::{
    signal::unix::{Signal, SignalKind, signal},
    sync::{mpsc, oneshot},
};

/// Keys that wait to be read.
const KEYS: usize = 64;

/// The terminal while it is ours. It is given back when this is dropped, in whatever way.
pub(super) struct Screen {
    // Its own end would complain on standard error of a terminal that is gone, and panic where
    // that can't be written to either. What it undoes, `Restore` does.
    terminal: ManuallyDrop<Terminal<CrosstermBackend<io::Stdout>>>,
    keys: mpsc::Receiver<io::Result<Event>>,
    _restore: Restore,
}

struct Restore;

impl Drop for Restore {
    fn drop(&mut self) {
        restore();
    }
}

/// Each step by itself: without a terminal nothing is left to restore.
fn restore() {
    let _ = disable_raw_mode();
    let _ = execute!(io::stdout(), LeaveAlternateScreen, Show);
}

impl Screen {
    /// # Errors
    /// The terminal does not do what it is told, or there are no keys to read.
    pub(super) fn open() -> io::Result<Self> {
        // What a panic says would be lost with the other screen.
        let say = panic::take_hook();
        panic::set_hook(Box::new(move |info| {
            restore();
            say(info);
        }));
        enable_raw_mode()?;
        // From here on, a step that fails leaves nothing behind.
        let restore = Restore;
        execute!(io::stdout(), EnterAlternateScreen)?;
        let terminal = ManuallyDrop::new(Terminal::new(CrosstermBackend::new(io::stdout()))?);
        Ok(Self { terminal, keys: keys()?, _restore: restore })
    }

    /// # Errors
    /// The terminal is gone.
    pub(super) fn draw(&mut self, draw: impl FnOnce(&mut Frame<'_>)) -> io::Result<()> {
        self.terminal.draw(draw).map(drop)
    }

    /// The next key, or another event of the terminal.
    ///
    /// # Errors
    /// The terminal is gone.
    pub(super) async fn event(&mut self) -> io::Result<Event> {
        self.keys.recv().await.unwrap_or_else(|| Err(io::ErrorKind::UnexpectedEof.into()))
    }
}

/// What is typed, read by a thread of its own: reading blocks. It ends with the program.
fn keys() -> io::Result<mpsc::Receiver<io::Result<Event>>> {
    let (sender, receiver) = mpsc::channel(KEYS);
    thread::Builder::new().name("keys".to_owned()).spawn(move || {
        loop {
            let event = event::read();
            let broken = event.is_err();
            if sender.blocking_send(event).is_err() || broken {
                return;
            }
        }
    })?;
    Ok(receiver)
}

/// What ends the view from outside.
pub(super) struct Ends {
    signals: [Signal; 3],
    hung_up: oneshot::Receiver<()>,
}

impl Ends {
    /// # Errors
    /// No handler or thread can be had.
    pub(super) fn new() -> io::Result<Self> {
        let (term, int) = (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
        let signals = [term, int, signal(SignalKind::hangup())?];
        Ok(Self { signals, hung_up: hung_up()? })
    }

    /// Waits for one of them.
    pub(super) async fn any(&mut self) {
        let [term, int, hang_up] = &mut self.signals;
        tokio::select! {
            _ = term.recv() => {}
            _ = int.recv() => {}
            _ = hang_up.recv() => {}
            _ = &mut self.hung_up => {}
        }
    }
}

/// Comes when nobody is at the other end of the terminal any more. SIGHUP tells that only to the
/// first process of a terminal, and who reads keys does not hear of it: crossterm would read for
/// ever, without a pause.
fn hung_up() -> io::Result<oneshot::Receiver<()>> {
    let (sender, receiver) = oneshot::channel();
    thread::Builder::new().name("hang-up".to_owned()).spawn(move || {
        let terminal = io::stdout();
        // Asked for nothing, it tells of a hang-up alone.
        while poll(&mut [PollFd::new(&terminal, PollFlags::empty())], None) == Err(Errno::INTR) {}
        // The view has ended: nobody is to be told.
        let _ = sender.send(());
    })?;
    Ok(receiver)
}
