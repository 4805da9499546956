//! Bars, drawn by hand: a plotting library would be larger than all of this.

use std::fmt::{self, Write as _};

use super::{
    group::{self, Figure, Group},
    stats::{Rounds, Spread, spread},
};
use crate::results::Run;

const WIDTH: f64 = 860.0;
const LEFT: f64 = 250.0;
const RIGHT: f64 = 70.0;
const BAR: f64 = 13.0;
const GAP: f64 = 14.0;
const TOP: f64 = 48.0;

/// One bar: what it belongs to, whose it is, how long.
struct Bar {
    group: String,
    contender: String,
    spread: Spread,
}

fn colour(contender: &str) -> &'static str {
    match contender {
        "direct" => "#9a9a9a",
        "nginx" => "#8fb996",
        "nginx-64k" => "#3f7d4f",
        "haproxy" => "#e0b15e",
        "haproxy-splice" => "#b07d1e",
        "relay" => "#9db4e0",
        "sockmap" => "#5b7fd0",
        _ => "#2343a0",
    }
}

/// File names, captions and pictures.
#[must_use]
pub fn plots(run: &Run) -> Vec<(String, String, String)> {
    let mut plots = Vec::new();
    let mut add = |file: &str, caption: &str, bars: Vec<Bar>| {
        if !bars.is_empty() {
            plots.push((file.to_owned(), caption.to_owned(), draw(caption, &bars)));
        }
    };
    let added = |group: &Group<'_>, name: &str| group.added(name, group::cpu);
    let small = ["echo-64B-64", "echo-1KiB-64", "echo-16KiB-64"];
    let caption = "CPU of the whole machine added by the proxy, us per message and answer (routed)";
    add("added-cpu.svg", caption, bars(run, &small, false, &added));
    let of = |figure: Figure| move |group: &Group<'_>, name: &str| group.rounds(name, figure);
    let streams = ["stream-down-64KiB-4", "stream-up-64KiB-4", "echo-256KiB-64"];
    add("throughput.svg", "MB/s (routed)", bars(run, &streams, true, &of(group::megabytes)));
    let latency = ["broadcast-128B-1000", "open-1KiB-64"];
    add(
        "latency.svg",
        "p99, us, at a fixed rate (routed)",
        bars(run, &latency, true, &of(group::p99)),
    );
    let caption = "user-space memory of an idle session, KiB (routed)";
    add("memory.svg", caption, bars(run, &["idle"], false, &of(group::user_memory)));
    plots
}

fn bars(
    run: &Run,
    scenarios: &[&str],
    with_direct: bool,
    of: &dyn Fn(&Group<'_>, &str) -> Rounds,
) -> Vec<Bar> {
    let mut bars = Vec::new();
    for scenario in scenarios {
        let Some(group) = Group::find(run, "routed", scenario) else { continue };
        for cell in &group.cells {
            if cell.contender == group::DIRECT && !with_direct {
                continue;
            }
            let Some(spread) = spread(&of(&group, &cell.contender)) else { continue };
            let (group, contender) = ((*scenario).to_owned(), cell.contender.clone());
            bars.push(Bar { group, contender, spread });
        }
    }
    bars
}

fn draw(caption: &str, bars: &[Bar]) -> String {
    let mut text = String::new();
    // Writing to a string cannot fail.
    let _ = picture(&mut text, caption, bars);
    text
}

fn picture(out: &mut String, caption: &str, bars: &[Bar]) -> fmt::Result {
    let groups = 1 + bars.windows(2).filter(|two| two[0].group != two[1].group).count();
    let height = TOP + bars.len() as f64 * BAR + groups as f64 * GAP + 8.0;
    let longest = bars.iter().map(|bar| bar.spread.most).fold(f64::MIN_POSITIVE, f64::max);
    let scale = (WIDTH - LEFT - RIGHT) / longest;
    writeln!(
        out,
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {height}\" font-family=\"sans-serif\" font-size=\"11\">"
    )?;
    writeln!(out, "<rect width=\"{WIDTH}\" height=\"{height}\" fill=\"#ffffff\"/>")?;
    writeln!(out, "<text x=\"12\" y=\"24\" font-size=\"14\">{}</text>", escaped(caption))?;
    let (mut y, mut last) = (TOP, "");
    for bar in bars {
        if bar.group != last {
            y += GAP;
            last = &bar.group;
            writeln!(out, "<text x=\"12\" y=\"{:.1}\">{}</text>", y + 10.0, escaped(last))?;
        }
        let width = (bar.spread.median.max(0.0) * scale).max(1.0);
        let end = LEFT + width;
        let middle = y + BAR / 2.0;
        writeln!(
            out,
            "<text x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"end\">{}</text>",
            LEFT - 6.0,
            y + 10.0,
            escaped(&bar.contender)
        )?;
        writeln!(
            out,
            "<rect x=\"{LEFT}\" y=\"{:.1}\" width=\"{width:.1}\" height=\"{:.1}\" fill=\"{}\"/>",
            y + 1.0,
            BAR - 2.0,
            colour(&bar.contender)
        )?;
        let (from, to) =
            (LEFT + bar.spread.least.max(0.0) * scale, LEFT + bar.spread.most.max(0.0) * scale);
        writeln!(
            out,
            "<line x1=\"{from:.1}\" x2=\"{to:.1}\" y1=\"{middle:.1}\" y2=\"{middle:.1}\" stroke=\"#222222\"/>"
        )?;
        writeln!(
            out,
            "<text x=\"{:.1}\" y=\"{:.1}\">{}</text>",
            end.max(to) + 5.0,
            y + 10.0,
            short(bar.spread.median)
        )?;
        y += BAR;
    }
    writeln!(out, "</svg>")
}

fn short(value: f64) -> String {
    if value.abs() >= 100.0 { format!("{value:.0}") } else { format!("{value:.2}") }
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn everybody_is_drawn_and_the_tags_are_closed() {
        let costs = [("direct", 8.0), ("nginx", 12.0), ("auto", 20.0)];
        let plots = plots(&group::tests::run(&costs));
        assert_eq!(plots.len(), 1);
        let svg = &plots[0].2;
        assert!(svg.contains(">nginx<") && svg.contains(">auto<") && !svg.contains(">direct<"));
        assert_eq!(svg.matches("<text").count(), svg.matches("</text>").count());
        assert!(svg.trim_end().ends_with("</svg>"));
        assert_eq!(escaped("a<b & c"), "a&lt;b &amp; c");
    }
}
