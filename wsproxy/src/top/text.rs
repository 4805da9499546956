//! Numbers and names in few columns, and tables of them.

use std::time::Duration;

use ratatui::text::Span;

use super::rates::Sum;

/// Between two columns.
const GAP: usize = 2;
/// A name is not made narrower than this, as long as there are columns to leave out.
const NARROWEST: usize = 12;

/// Columns that `text` takes on a terminal.
pub(super) fn width(text: &str) -> usize {
    Span::raw(text).width()
}

/// `text` in at most `most` columns; where it is cut, a `~` says so.
pub(super) fn fit(text: &str, most: usize) -> String {
    if width(text) <= most {
        return text.to_owned();
    }
    let mut cut = String::new();
    for c in text.chars() {
        cut.push(c);
        if width(&cut) >= most {
            cut.pop();
            break;
        }
    }
    if most > 0 {
        cut.push('~');
    }
    cut
}

fn pad(text: &str, to: usize, right: bool) -> String {
    let blanks = " ".repeat(to.saturating_sub(width(text)));
    if right { blanks + text } else { text.to_owned() + &blanks }
}

/// A number in at most five columns: `999`, `1.2k`, `34M`; 1k is 1000.
pub(super) fn short(number: f64) -> String {
    let mut rest = number.max(0.0);
    for unit in ["", "k", "M", "G", "T", "P"] {
        // What would be rounded up to 1000 is the next unit's.
        if rest < 999.5 || unit == "P" {
            let digits = usize::from(rest < 9.95 && !(unit.is_empty() && rest.fract() == 0.0));
            return format!("{rest:.digits$}{unit}");
        }
        rest /= 1000.0;
    }
    String::new()
}

/// [`short`], or a dash for the unknown.
pub(super) fn short_or_dash(number: Option<f64>) -> String {
    number.map_or_else(dash, short)
}

/// A sum, with a `+` where it is at least so much.
pub(super) fn sum(sum: Sum) -> String {
    match sum.known {
        Some(known) if sum.partial => short(known) + "+",
        known => short_or_dash(known),
    }
}

/// A whole number, or a dash for the unknown.
pub(super) fn count(number: Option<u64>) -> String {
    number.map_or_else(dash, |number| number.to_string())
}

pub(super) fn dash() -> String {
    "-".to_owned()
}

/// `42s`, `3m07s`, `5h02m`, `12d03h`.
pub(super) fn age(seconds: u64) -> String {
    let (minutes, hours, days) = (seconds / 60, seconds / 3600, seconds / 86_400);
    match seconds {
        0..60 => format!("{seconds}s"),
        60..3600 => format!("{minutes}m{:02}s", seconds % 60),
        3600..86_400 => format!("{hours}h{:02}m", minutes % 60),
        _ => format!("{days}d{:02}h", hours % 24),
    }
}

/// A round trip: `870us`, `1.2ms`, `34ms`, `2.0s`.
pub(super) fn round_trip(micros: u64) -> String {
    let time = Duration::from_micros(micros);
    let millis = micros as f64 / 1e3;
    match micros {
        0..1000 => format!("{micros}us"),
        1000..9950 => format!("{millis:.1}ms"),
        9950..999_500 => format!("{millis:.0}ms"),
        _ => format!("{:.1}s", time.as_secs_f64()),
    }
}

/// A column of a table.
#[derive(Debug)]
pub(super) struct Column {
    pub title: &'static str,
    /// A name, which may be cut; numbers never are.
    pub name: bool,
    /// Where there is no room, the greatest goes first.
    pub rank: u8,
}

impl Column {
    pub(super) const fn name(title: &'static str, rank: u8) -> Self {
        Self { title, name: true, rank }
    }

    pub(super) const fn number(title: &'static str, rank: u8) -> Self {
        Self { title, name: false, rank }
    }
}

/// A table: the head, then a line for each of `rows`, in at most `most` columns of the terminal.
pub(super) fn table(columns: &[Column], rows: &[Vec<String>], most: Option<usize>) -> Vec<String> {
    let mut natural: Vec<_> = columns.iter().map(|column| width(column.title)).collect();
    for row in rows {
        for (natural, cell) in natural.iter_mut().zip(row) {
            *natural = (*natural).max(width(cell));
        }
    }
    let widths = widths(columns, &natural, most);
    let titles = columns.iter().map(|column| column.title).collect::<Vec<_>>();
    let mut lines = vec![line(columns, &titles, &widths)];
    lines.extend(rows.iter().map(|row| line(columns, row, &widths)));
    lines
}

fn line<T: AsRef<str>>(columns: &[Column], cells: &[T], widths: &[Option<usize>]) -> String {
    let shown = columns.iter().zip(cells).zip(widths).filter_map(|((column, cell), width)| {
        Some(pad(&fit(cell.as_ref(), (*width)?), (*width)?, !column.name))
    });
    let line = shown.collect::<Vec<_>>().join(&" ".repeat(GAP));
    line.trim_end().to_owned()
}

/// The columns' widths; `None` for those that are left out.
fn widths(columns: &[Column], natural: &[usize], most: Option<usize>) -> Vec<Option<usize>> {
    let Some(most) = most else { return natural.iter().copied().map(Some).collect() };
    let least = |at: usize| {
        if columns[at].name { natural[at].min(NARROWEST) } else { natural[at] }
    };
    let mut kept: Vec<_> = (0..columns.len()).collect();
    let needed = |kept: &[usize]| {
        let gaps = GAP * kept.len().saturating_sub(1);
        kept.iter().map(|&at| least(at)).sum::<usize>() + gaps
    };
    while kept.len() > 1 && needed(&kept) > most {
        let last = kept.iter().copied().max_by_key(|&at| columns[at].rank);
        kept.retain(|&at| Some(at) != last);
    }
    let mut spare = most.saturating_sub(needed(&kept));
    let mut widths = vec![None; columns.len()];
    for &at in &kept {
        widths[at] = Some(least(at).min(most));
    }
    // Names get what is left, the narrowest first.
    while spare > 0 {
        let wanting = kept.iter().copied().filter(|&at| widths[at] < Some(natural[at]));
        let Some(at) = wanting.min_by_key(|&at| widths[at]) else { break };
        widths[at] = widths[at].map(|width| width + 1);
        spare -= 1;
    }
    widths
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_short() {
        for (number, text) in [
            (0.0, "0"),
            (0.25, "0.2"),
            (7.0, "7"),
            (9.96, "10"),
            (999.4, "999"),
            (999.6, "1.0k"),
            (12_345.0, "12k"),
            (999_499.0, "999k"),
            (999_500.0, "1.0M"),
            (5e9, "5.0G"),
            (2e18, "2000P"),
            (-1.0, "0"),
        ] {
            assert_eq!(short(number), text, "{number}");
        }
        let of = |known, partial| sum(Sum { known, partial });
        assert_eq!([of(Some(5.0), false), of(Some(5.0), true), of(None, true)], ["5", "5+", "-"]);
    }

    #[test]
    fn times_are_short() {
        let ages =
            [(59, "59s"), (60, "1m00s"), (3599, "59m59s"), (3600, "1h00m"), (90_000, "1d01h")];
        for (seconds, text) in ages {
            assert_eq!(age(seconds), text);
        }
        let trips = [
            (0, "0us"),
            (999, "999us"),
            (1000, "1.0ms"),
            (9_949, "9.9ms"),
            (9_950, "10ms"),
            (2_000_000, "2.0s"),
        ];
        for (micros, text) in trips {
            assert_eq!(round_trip(micros), text);
        }
    }

    #[test]
    fn cuts_between_characters() {
        assert_eq!(fit("short", 5), "short");
        assert_eq!(fit("longer", 5), "long~");
        assert_eq!(fit("longer", 1), "~");
        assert_eq!(fit("longer", 0), "");
        // Two columns each: one that would be cut in half is left out.
        assert_eq!(fit("\u{4e16}\u{754c}\u{4e16}", 4), "\u{4e16}~");
        assert_eq!(fit("\u{4e16}\u{754c}\u{4e16}", 5), "\u{4e16}\u{754c}~");
        // A mark that combines stays with its letter.
        assert_eq!(fit("e\u{301}abc", 3), "e\u{301}a~");
        for most in 0..8 {
            assert!(width(&fit("\u{1f980}x\u{e9}\u{4e16}abc", most)) <= most);
        }
    }

    const COLUMNS: [Column; 3] =
        [Column::number("id", 0), Column::name("client", 1), Column::number("bytes", 2)];

    fn shown(most: Option<usize>) -> Vec<String> {
        let row = |id: &str, client: &str, bytes: &str| {
            [id, client, bytes].iter().map(ToString::to_string).collect::<Vec<_>>()
        };
        let rows = [row("1", "198.51.100.100:65535", "5"), row("10", "\u{4e16}", "123456")];
        table(&COLUMNS, &rows, most)
    }

    #[test]
    fn tables_are_aligned_and_as_narrow_as_the_terminal() {
        let whole = [
            "id  client                 bytes",
            " 1  198.51.100.100:65535       5",
            "10  \u{4e16}                    123456",
        ];
        assert_eq!(shown(None), whole);
        assert_eq!(shown(Some(200)), whole);
        let names_cut = ["id  client             bytes", " 1  198.51.100.100:~       5"];
        assert_eq!(shown(Some(28))[..2], names_cut);
        // The last column is left out; then the names are cut as far as it takes.
        assert_eq!(shown(Some(20))[..2], ["id  client", " 1  198.51.100.100:~"]);
        assert_eq!(shown(Some(3))[..2], ["id", " 1"]);
        for most in 0..40 {
            assert!(shown(Some(most)).iter().all(|line| width(line) <= most), "{most}");
        }
    }
}
