//! What a key does.

use ratatui::crossterm::event::{KeyCode, KeyEvent, KeyEventKind, KeyModifiers};

use super::model::{Mode, Model, Move, Sort};

/// Most characters of a filter.
const LONGEST_FILTER: usize = 64;

/// What a key asks of the world beside the screen.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Action {
    /// End the view.
    Leave,
    /// Close the session of this number.
    Close(u64),
}

impl Model {
    /// A key was pressed.
    pub(super) fn press(&mut self, key: KeyEvent) -> Option<Action> {
        if key.kind == KeyEventKind::Release {
            return None;
        }
        self.notice = None;
        let control = key.modifiers.contains(KeyModifiers::CONTROL);
        if control {
            // Control with another letter is not that letter.
            return (key.code == KeyCode::Char('c')).then_some(Action::Leave);
        }
        match self.mode.clone() {
            Mode::Normal => self.normal(key.code),
            Mode::Filter => {
                self.write_filter(key.code);
                None
            }
            Mode::Close(id, _) => {
                self.mode = Mode::Normal;
                let yes = matches!(key.code, KeyCode::Char('y' | 'Y'));
                yes.then_some(Action::Close(id))
            }
            Mode::Help => {
                self.mode = Mode::Normal;
                None
            }
        }
    }

    fn normal(&mut self, key: KeyCode) -> Option<Action> {
        match key {
            KeyCode::Char('q') => return Some(Action::Leave),
            KeyCode::Char('r') => self.sort_by(Sort::Rate),
            KeyCode::Char('a') => self.sort_by(Sort::Age),
            KeyCode::Char('b') => self.sort_by(Sort::Bytes),
            KeyCode::Char('t') => self.sort_by(Sort::RoundTrip),
            KeyCode::Char('d') => self.sort_by(Sort::Diversions),
            KeyCode::Char('/') => self.mode = Mode::Filter,
            KeyCode::Char('?') => self.mode = Mode::Help,
            KeyCode::Char('p') => self.paused = !self.paused,
            KeyCode::Char('c') => self.ask_to_close(),
            KeyCode::Esc if self.filter.is_empty() => self.unselect(),
            KeyCode::Esc => self.set_filter(String::new()),
            KeyCode::Up => self.select(Move::Up),
            KeyCode::Down => self.select(Move::Down),
            KeyCode::PageUp => self.select(Move::PageUp),
            KeyCode::PageDown => self.select(Move::PageDown),
            KeyCode::Home => self.select(Move::Home),
            KeyCode::End => self.select(Move::End),
            _ => {}
        }
        None
    }

    /// The question holds the session, so that a list that moves on can't change the answer.
    fn ask_to_close(&mut self) {
        let question = self.meant().map(|session| {
            let what = format!("{} ({} to {})", session.id, session.client, session.upstream);
            Mode::Close(session.id, what)
        });
        match question {
            Some(question) => self.mode = question,
            None => self.notice = Some("select a session first: arrow keys".to_owned()),
        }
    }

    fn write_filter(&mut self, key: KeyCode) {
        let mut filter = self.filter.clone();
        match key {
            KeyCode::Char(c) if filter.chars().count() < LONGEST_FILTER => filter.push(c),
            KeyCode::Backspace => {
                filter.pop();
            }
            KeyCode::Esc => {
                self.mode = Mode::Normal;
                filter.clear();
            }
            KeyCode::Enter => self.mode = Mode::Normal,
            _ => return,
        }
        self.set_filter(filter);
    }
}
