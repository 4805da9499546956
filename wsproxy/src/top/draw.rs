//! The screen, drawn.

use ratatui::{
    Frame,
    style::{Color, Modifier, Style},
};

use super::{
    model::{Mode, Model},
    view,
};

/// The state of a server to which nothing is the matter.
const GOOD: &str = "up";

/// Lines and how they look, from the top.
type Lines = Vec<(String, Style)>;

fn plain() -> Style {
    Style::new()
}

fn title() -> Style {
    plain().add_modifier(Modifier::BOLD | Modifier::UNDERLINED)
}

fn bold() -> Style {
    plain().add_modifier(Modifier::BOLD)
}

fn reversed() -> Style {
    plain().add_modifier(Modifier::REVERSED)
}

/// Draws everything, and tells the model how many sessions there is room for. Any size will do.
pub(super) fn draw(frame: &mut Frame<'_>, model: &mut Model) {
    let area = frame.area();
    let (height, width) = (usize::from(area.height), usize::from(area.width));
    let mut lines = body(model, height.saturating_sub(1), width);
    // Where there is one line only, a question is more than who asks.
    let foot = (view::foot(model), foot_style(model));
    if height > 1 {
        lines.resize(height - 1, (String::new(), plain()));
        lines.push(foot);
    } else {
        lines = vec![foot];
    }
    let buffer = frame.buffer_mut();
    for (y, (line, style)) in (area.top()..area.bottom()).zip(lines) {
        buffer.set_stringn(area.left(), y, &line, width, style);
        if style.add_modifier.contains(Modifier::REVERSED) {
            let row = ratatui::layout::Rect { y, height: 1, ..area };
            buffer.set_style(row, style);
        }
    }
}

fn foot_style(model: &Model) -> Style {
    match (&model.mode, &model.notice) {
        (Mode::Close(..), _) => reversed().fg(Color::Yellow),
        (Mode::Filter, _) | (_, Some(_)) => bold(),
        _ => plain().add_modifier(Modifier::DIM),
    }
}

/// Everything but the last line, in `height` lines.
fn body(model: &mut Model, height: usize, width: usize) -> Lines {
    let mut lines: Lines = view::head(model).into_iter().map(|line| (line, bold())).collect();
    if let Some(trouble) = view::trouble(model) {
        lines.push((trouble, reversed().fg(Color::Red)));
    }
    if model.mode == Mode::Help {
        lines.push((String::new(), plain()));
        lines.extend(view::HELP.map(|line| (line.to_owned(), plain())));
        lines.truncate(height);
        return lines;
    }
    // The sessions get half of what is left at least, of which two lines are no sessions.
    let rest = height.saturating_sub(lines.len());
    let wanted = [model.snapshot.status.routes.len() + 1, model.snapshot.servers.len() + 1];
    let [routes, servers] = shares(rest / 2, wanted);
    lines.extend(cut(view::routes(model, Some(width)), routes, |_| plain()));
    let states: Vec<_> = model.snapshot.servers.iter().map(|s| s.state == GOOD).collect();
    let state = |at: usize| {
        let good = states.get(at).is_none_or(|good| *good);
        if good { plain() } else { plain().fg(Color::Yellow) }
    };
    lines.extend(cut(view::servers(model, Some(width)), servers, state));
    model.set_page(height.saturating_sub(lines.len() + 2));
    lines.push((view::caption(model), bold()));
    let selected: Vec<_> = model.page().map(|(_, _, selected)| selected).collect();
    let table = view::sessions(model.page(), Some(width));
    let look = |at: usize| {
        if selected.get(at).is_some_and(|selected| *selected) { reversed() } else { plain() }
    };
    lines.extend(cut(table, usize::MAX, look));
    lines.truncate(height);
    lines
}

/// The lines that two tables get of `all`, of which they want `wanted`: none rather than a head
/// alone, and what one does not need is the other's.
fn shares(all: usize, wanted: [usize; 2]) -> [usize; 2] {
    let second = wanted[1].min((all / 2).max(all.saturating_sub(wanted[0])));
    let first = wanted[0].min(all - second);
    [first, second].map(|share| if share < 2 { 0 } else { share })
}

/// A table in at most `most` lines: its head, rows, and how many more there would be.
fn cut(table: Vec<String>, most: usize, style: impl Fn(usize) -> Style) -> Lines {
    let whole = table.len();
    let kept = if whole > most { most.saturating_sub(1) } else { whole };
    let mut lines = Vec::with_capacity(kept + 1);
    for (at, line) in table.into_iter().take(kept).enumerate() {
        lines.push((line, at.checked_sub(1).map_or_else(title, &style)));
    }
    if kept < whole && most > 0 {
        lines.push((format!("... {} more", whole - kept), plain().add_modifier(Modifier::DIM)));
    }
    lines
}
