//! What is on the screen: the sessions that pass the filter in their order, which of them is
//! selected, and what the operator is about to do. Knows no terminal, no socket and no clock.

use std::cmp::Ordering;

use super::{
    rates::{Rates, Traffic},
    snapshot::{Session, Snapshot},
};

/// What sessions are ordered by, the most first.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) enum Sort {
    /// Bytes per second, both ways.
    #[default]
    Rate,
    Age,
    /// Both ways.
    Bytes,
    /// Of the last pings, to the client and to the server.
    RoundTrip,
    Diversions,
}

impl Sort {
    pub(super) const fn label(self) -> &'static str {
        match self {
            Self::Rate => "rate",
            Self::Age => "age",
            Self::Bytes => "bytes",
            Self::RoundTrip => "round trip",
            Self::Diversions => "diversions",
        }
    }

    /// What it goes by; unknown sorts last.
    fn measure(self, session: &Session, rates: &Rates) -> Option<f64> {
        let number = |n: u64| n as f64;
        let sum = |pair: [Option<f64>; 2]| pair.into_iter().flatten().reduce(|a, b| a + b);
        match self {
            Self::Rate => sum(rates.bytes),
            Self::Age => session.age_s.map(number),
            Self::Bytes => sum(session.bytes.map(|n| n.map(number))),
            Self::RoundTrip => sum(session.ping_us.map(|n| n.map(number))),
            Self::Diversions => session.diversions.map(number),
        }
    }
}

/// What the keys mean at the moment.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) enum Mode {
    #[default]
    Normal,
    /// The filter is being written.
    Filter,
    /// Whether to close the session of this number, which is this one.
    Close(u64, String),
    Help,
}

/// How far the selection goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Move {
    Up,
    Down,
    PageUp,
    PageDown,
    Home,
    End,
}

/// Everything on the screen.
#[derive(Debug, Default)]
pub(super) struct Model {
    pub snapshot: Snapshot,
    pub traffic: Traffic,
    pub sort: Sort,
    pub reversed: bool,
    pub filter: String,
    pub mode: Mode,
    pub paused: bool,
    /// Why there is nothing newer than what is shown.
    pub trouble: Option<String>,
    /// What came of the last order, until the next key.
    pub notice: Option<String>,
    /// There is a snapshot.
    asked: bool,
    /// Places in the snapshot: what passes the filter, in order.
    order: Vec<usize>,
    selected: Option<u64>,
    /// The selected row, or where it was.
    row: usize,
    /// The first row on the screen.
    top: usize,
    /// Rows of sessions that the screen has.
    page: usize,
}

impl Model {
    /// Takes what has been asked just now.
    pub(super) fn apply(&mut self, snapshot: Snapshot) {
        let before = self.asked.then_some(&self.snapshot);
        self.traffic = Traffic::between(before, &snapshot);
        self.snapshot = snapshot;
        self.asked = true;
        self.trouble = None;
        self.arrange();
    }

    /// Filters and sorts again.
    pub(super) fn arrange(&mut self) {
        let wanted = self.filter.to_lowercase();
        let passes = |session: &Session| {
            let names = [&session.client, &session.route, &session.upstream];
            wanted.is_empty() || names.iter().any(|name| name.to_lowercase().contains(&wanted))
        };
        let sessions = &self.snapshot.sessions;
        let mut keyed: Vec<_> = (0..sessions.len())
            .filter(|&at| passes(&sessions[at]))
            .map(|at| (self.measure(at), sessions[at].id, at))
            .collect();
        keyed.sort_unstable_by(|a, b| {
            let ordering = unknown_last(a.0, b.0, self.reversed);
            // Equals in the order in which they began, or the other way round.
            let by_age = if self.reversed { b.1.cmp(&a.1) } else { a.1.cmp(&b.1) };
            ordering.then(by_age)
        });
        self.order = keyed.into_iter().map(|(_, _, at)| at).collect();
        self.find_selected();
    }

    fn measure(&self, at: usize) -> Option<f64> {
        let rates = self.traffic.each.get(at).copied().unwrap_or_default();
        self.sort.measure(&self.snapshot.sessions[at], &rates)
    }

    /// The selection is a session: it moves with it, and ends with it.
    fn find_selected(&mut self) {
        let sessions = &self.snapshot.sessions;
        let found =
            self.selected.and_then(|id| self.order.iter().position(|&at| sessions[at].id == id));
        match found {
            Some(row) => self.row = row,
            None => {
                self.selected = None;
                self.row = self.row.min(self.order.len().saturating_sub(1));
            }
        }
        self.scroll();
    }

    /// By this key; by the same again: the other way round.
    pub(super) fn sort_by(&mut self, sort: Sort) {
        self.reversed = self.sort == sort && !self.reversed;
        self.sort = sort;
        self.arrange();
    }

    pub(super) fn set_filter(&mut self, filter: String) {
        self.filter = filter;
        self.arrange();
    }

    /// Moves the selection, or begins one where it was.
    pub(super) fn select(&mut self, step: Move) {
        let last = self.order.len().saturating_sub(1);
        let (page, begun) = (self.page.max(1), self.selected.is_some());
        self.row = match step {
            Move::Home => 0,
            Move::End => last,
            Move::Up | Move::Down if !begun => self.row,
            Move::Up => self.row.saturating_sub(1),
            Move::Down => self.row + 1,
            Move::PageUp => self.row.saturating_sub(page),
            Move::PageDown => self.row + page,
        }
        .min(last);
        self.selected = self.order.get(self.row).map(|&at| self.snapshot.sessions[at].id);
        self.scroll();
    }

    pub(super) fn unselect(&mut self) {
        self.selected = None;
    }

    /// The selected session.
    pub(super) fn selected(&self) -> Option<&Session> {
        self.meant().filter(|session| self.selected == Some(session.id))
    }

    /// The selected session; where there is none and only one is shown, that.
    pub(super) fn meant(&self) -> Option<&Session> {
        let only = || self.order.first().filter(|_| self.order.len() == 1);
        let at = match self.selected {
            Some(_) => self.order.get(self.row),
            None => only(),
        };
        at.map(|&at| &self.snapshot.sessions[at])
    }

    /// The screen has room for so many sessions.
    pub(super) fn set_page(&mut self, page: usize) {
        self.page = page;
        self.scroll();
    }

    /// Keeps the selection, or where it was, on the screen, and the screen full.
    fn scroll(&mut self) {
        let page = self.page.max(1);
        let top = self.top.min(self.row).max((self.row + 1).saturating_sub(page));
        self.top = top.min(self.order.len().saturating_sub(page));
    }

    /// How many sessions pass the filter.
    pub(super) fn shown(&self) -> usize {
        self.order.len()
    }

    /// The sessions on the screen, with their rates and whether they are selected.
    pub(super) fn page(&self) -> impl Iterator<Item = (&Session, Rates, bool)> {
        self.all().skip(self.top).take(self.page)
    }

    /// All sessions that pass the filter, in order.
    pub(super) fn all(&self) -> impl Iterator<Item = (&Session, Rates, bool)> {
        self.order.iter().map(|&at| {
            let session = &self.snapshot.sessions[at];
            let rates = self.traffic.each.get(at).copied().unwrap_or_default();
            (session, rates, self.selected == Some(session.id))
        })
    }
}

/// The most first, or the least if `reversed`; the unknown behind everything either way.
fn unknown_last(a: Option<f64>, b: Option<f64>, reversed: bool) -> Ordering {
    match (a, b) {
        (Some(a), Some(b)) if reversed => a.total_cmp(&b),
        (Some(a), Some(b)) => b.total_cmp(&a),
        (a, b) => b.is_some().cmp(&a.is_some()),
    }
}
