//! The metrics that there are: the table of `docs/METRICS.md`, and what a scrape shows.

use std::collections::{BTreeMap, BTreeSet};

use super::promql::{self, Query, Selector};

/// Labels of the scrape itself, which each series has.
const TARGET: [&str; 2] = ["instance", "job"];

/// A metric with all its series.
#[derive(Debug)]
pub struct Family {
    pub kind: String,
    pub labels: BTreeSet<String>,
    /// What the document says of it.
    row: String,
}

/// All of them by name.
pub type Families = BTreeMap<String, Family>;

/// Those of the document's table.
pub fn documented(text: &str) -> Families {
    let rows = text.lines().filter(|line| line.starts_with("| `wsproxy_"));
    rows.map(|row| {
        let cells: Vec<_> = row.split('|').map(str::trim).collect();
        let labels = labels_of(cells[3]);
        (
            ticked(cells[1])[0].to_owned(),
            Family { kind: cells[2].to_owned(), labels, row: row.to_owned() },
        )
    })
    .collect()
}

/// `a`: `x`, `y`; `b`, `c`: each part names labels, or one and behind a colon its values.
fn labels_of(cell: &str) -> BTreeSet<String> {
    let names = cell.split(';').flat_map(|part| ticked(part.split(':').next().unwrap_or(part)));
    names.map(str::to_owned).collect()
}

/// What stands in backticks.
pub fn ticked(text: &str) -> Vec<&str> {
    text.split('`').skip(1).step_by(2).collect()
}

/// Kinds and labels in the Prometheus text format.
pub fn shown(text: &str) -> BTreeMap<String, (String, BTreeSet<String>)> {
    let mut found = BTreeMap::new();
    for line in text.lines() {
        if let Some(kind) = line.strip_prefix("# TYPE ") {
            let (name, kind) = kind.split_once(' ').unwrap();
            found.insert(name.to_owned(), (kind.to_owned(), BTreeSet::new()));
        } else if !line.starts_with('#') {
            let (name, labels) = series(line);
            let is_it = |&family: &&String| part_of(&name, family).is_some();
            // The longest: `wsproxy_sessions` begins like `wsproxy_sessions_total`.
            let family = found.keys().filter(is_it).max_by_key(|name| name.len()).cloned().unwrap();
            found.get_mut(&family).unwrap().1.extend(labels.into_iter().filter(|l| l != "le"));
        }
    }
    found
}

/// The name and the labels of a line; Prometheus text and a PromQL selector look alike.
fn series(line: &str) -> (String, Vec<String>) {
    let (series, _value) = line.rsplit_once(' ').unwrap();
    let Selector { name, matchers, .. } = promql::read(series).unwrap().selectors.remove(0);
    (name, matchers.into_iter().map(|(label, _)| label).collect())
}

/// What a name of a series has behind the name of its family.
fn part_of<'a>(series: &'a str, family: &str) -> Option<&'a str> {
    let part = series.strip_prefix(family)?;
    ["", "_bucket", "_sum", "_count"].contains(&part).then_some(part)
}

/// The family that a selector chooses from.
pub fn family_of<'a>(selector: &Selector, families: &'a Families) -> Option<(&'a str, &'a Family)> {
    families.iter().map(|(name, family)| (&**name, family)).find(|(name, family)| {
        let is_histogram = family.kind == "histogram";
        part_of(&selector.name, name).is_some_and(|part| is_histogram != part.is_empty())
    })
}

fn has_label(selector: &Selector, family: &Family, label: &str) -> bool {
    let is_limit = label == "le" && selector.name.ends_with("_bucket");
    TARGET.contains(&label) || is_limit || family.labels.contains(label)
}

/// What a query asks for that is not there.
pub fn faults(text: &str, families: &Families) -> Vec<String> {
    let query = match promql::read(text) {
        Ok(query) if query.selectors.is_empty() => return vec!["no metric at all".to_owned()],
        Ok(query) => query,
        Err(fault) => return vec![fault],
    };
    let mut faults: Vec<_> =
        query.selectors.iter().flat_map(|selector| faults_of(selector, families)).collect();
    faults.extend(faults_of_groupings(&query, families));
    faults
}

fn faults_of(selector: &Selector, families: &Families) -> Vec<String> {
    let name = &selector.name;
    let Some((_, family)) = family_of(selector, families) else {
        return vec![format!("no metric {name}")];
    };
    let mut faults = Vec::new();
    // Prometheus would take either without a word.
    match (&*family.kind, selector.over_time) {
        ("gauge", true) => faults.push(format!("{name} is no counter")),
        ("histogram", false) => faults.push(format!("{name} since the start")),
        _ => {}
    }
    for (label, values) in &selector.matchers {
        if !has_label(selector, family, label) {
            faults.push(format!("{name} has no label {label}"));
        }
        if TARGET.contains(&&**label) {
            continue;
        }
        let known = ticked(&family.row);
        let unknown = values.split('|').filter(|value| !known.contains(value));
        faults.extend(unknown.map(|value| format!("{label} of {name} is never {value:?}")));
    }
    faults
}

fn faults_of_groupings(query: &Query, families: &Families) -> Vec<String> {
    let mut faults = Vec::new();
    for grouping in &query.groupings {
        for &at in &grouping.about {
            let selector = &query.selectors[at];
            let Some((_, family)) = family_of(selector, families) else { continue };
            let missing = grouping.labels.iter().filter(|l| !has_label(selector, family, l));
            faults.extend(missing.map(|l| format!("{} has no label {l}", selector.name)));
        }
        if grouping.about.is_empty() {
            faults.push(format!("{:?} of nothing", grouping.labels));
        }
    }
    faults
}

/// The labels that the result of a query may have.
pub fn labels_left(text: &str, families: &Families) -> BTreeSet<String> {
    let query = promql::read(text).unwrap();
    let leaving: Vec<_> = query.groupings.iter().filter(|grouping| grouping.leaves).collect();
    let of_metrics = query.selectors.iter().filter_map(|s| family_of(s, families));
    if leaving.is_empty() {
        let labels = of_metrics.flat_map(|(_, family)| family.labels.iter().cloned());
        return labels.chain(TARGET.map(str::to_owned)).collect();
    }
    leaving.into_iter().flat_map(|grouping| grouping.labels.iter().cloned()).collect()
}
