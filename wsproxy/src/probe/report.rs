//! The report: lines for people as things happen, or one JSON object at the end.

use std::fmt::Write as _;
use std::io::{self, Write};
use std::time::{Duration, Instant};

use serde_json::{Map, Value, json};

use super::outcome::{Finding, Outcome};
use super::shown::shown;
use super::target::MAX_URL_BYTES;

/// Where the text of a line starts: name of the step, time, text.
const INDENT: usize = 22;

/// Why a probe stops early.
#[derive(Debug)]
pub(super) enum Stop {
    /// The report can't be written.
    Write(io::Error),
    /// There is nothing more to try.
    Found(Finding),
}

impl From<io::Error> for Stop {
    fn from(error: io::Error) -> Self {
        Self::Write(error)
    }
}

impl From<Finding> for Stop {
    fn from(finding: Finding) -> Self {
        Self::Found(finding)
    }
}

/// One step of a probe.
#[derive(Debug)]
pub(super) struct Step {
    name: &'static str,
    ok: bool,
    took: Option<Duration>,
    lines: Vec<String>,
    details: Map<String, Value>,
}

impl Step {
    pub(super) fn new(name: &'static str) -> Self {
        Self { name, ok: true, took: None, lines: Vec::new(), details: Map::new() }
    }

    pub(super) fn failed(mut self) -> Self {
        self.ok = false;
        self
    }

    /// It failed, with these words.
    pub(super) fn error(self, words: &str) -> Self {
        self.failed().line(words).detail("error", words)
    }

    pub(super) fn took(mut self, took: Duration) -> Self {
        self.took = Some(took);
        self
    }

    /// Adds a line for people.
    pub(super) fn line(mut self, line: impl Into<String>) -> Self {
        self.lines.push(line.into());
        self
    }

    /// Adds lines for people, each behind `mark`.
    pub(super) fn lines(mut self, mark: &str, lines: &[String]) -> Self {
        self.lines.extend(lines.iter().map(|line| format!("{mark}{line}")));
        self
    }

    /// Adds a field of the JSON object.
    pub(super) fn detail(mut self, name: &str, value: impl Into<Value>) -> Self {
        self.details.insert(name.to_owned(), value.into());
        self
    }

    fn text(&self) -> String {
        let took = self.took.map(millis).unwrap_or_default();
        let mut text = format!("{:<8}{took:>12}  ", self.name);
        for (at, line) in self.lines.iter().enumerate() {
            if at > 0 {
                text.push_str(&" ".repeat(INDENT));
            }
            // Writing to a string can't fail.
            let _ = writeln!(text, "{line}");
        }
        text
    }

    fn json(self) -> Value {
        let mut object = Map::new();
        object.insert("step".to_owned(), self.name.into());
        object.insert("ok".to_owned(), self.ok.into());
        object.insert("us".to_owned(), self.took.map(micros).into());
        object.extend(self.details);
        Value::Object(object)
    }
}

/// The report under way.
pub(super) struct Report<'w, W> {
    out: &'w mut W,
    json: bool,
    url: String,
    started: Instant,
    steps: Vec<Value>,
    /// Lines were written.
    begun: bool,
    notes: Vec<String>,
    /// The `X-Request-ID` of the answer.
    pub(super) request_id: Option<String>,
}

impl<'w, W: Write> Report<'w, W> {
    pub(super) fn new(out: &'w mut W, json: bool, url: &str) -> Self {
        Self {
            out,
            json,
            url: shown(url.as_bytes(), MAX_URL_BYTES),
            started: Instant::now(),
            steps: Vec::new(),
            begun: false,
            notes: Vec::new(),
            request_id: None,
        }
    }

    /// Adds a step: people see it at once.
    pub(super) fn step(&mut self, step: Step) -> io::Result<()> {
        if self.json {
            self.steps.push(step.json());
            return Ok(());
        }
        self.begun = true;
        self.out.write_all(step.text().as_bytes())?;
        self.out.flush()
    }

    /// Adds something that is worth knowing and no failure.
    pub(super) fn note(&mut self, note: impl Into<String>) {
        self.notes.push(note.into());
    }

    /// Writes the verdict.
    pub(super) fn finish(self, finding: &Finding) -> io::Result<Outcome> {
        let outcome = finding.outcome;
        if self.json {
            self.finish_json(finding)?
        } else {
            self.finish_text(finding)?
        }
        Ok(outcome)
    }

    fn finish_text(self, finding: &Finding) -> io::Result<()> {
        let out = self.out;
        let word = finding.outcome.label().replace('_', " ");
        let gap = if self.begun { "\n" } else { "" };
        writeln!(out, "{gap}{word}: {}", finding.summary)?;
        for hint in &finding.hints {
            writeln!(out, "  - {hint}")?;
        }
        for note in &self.notes {
            writeln!(out, "note: {note}")?;
        }
        if let Some(id) = &self.request_id {
            writeln!(out, "request id: {id} (search the server's log for it)")?;
        }
        out.flush()
    }

    fn finish_json(self, finding: &Finding) -> io::Result<()> {
        let object = json!({
            "url": self.url,
            "verdict": finding.outcome.label(),
            "exit_status": finding.outcome.exit_status(),
            "summary": finding.summary,
            "explanation": finding.hints,
            "notes": self.notes,
            "request_id": self.request_id,
            "us": micros(self.started.elapsed()),
            "steps": self.steps,
        });
        serde_json::to_writer_pretty(&mut *self.out, &object)?;
        writeln!(self.out)?;
        self.out.flush()
    }
}

/// Microseconds, as the JSON report has them.
pub(super) fn micros(took: Duration) -> u64 {
    u64::try_from(took.as_micros()).unwrap_or(u64::MAX)
}

/// Milliseconds, as people read them.
pub(super) fn millis(took: Duration) -> String {
    let micros = micros(took);
    format!("{}.{:02} ms", micros / 1000, micros % 1000 / 10)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn written(json: bool) -> String {
        let mut out = Vec::new();
        let mut report = Report::new(&mut out, json, "ws://a/");
        let step = Step::new("connect").took(Duration::from_micros(12_345));
        let step = step.line("first").lines("< ", &["second".into()]).detail("peer", "1.2.3.4:5");
        report.step(step).unwrap();
        report.note("a note");
        report.request_id = Some("id1".into());
        let finding = Finding::new(Outcome::NoPong, "no pong", vec!["a hint".into()]);
        assert_eq!(report.finish(&finding).unwrap(), Outcome::NoPong);
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn text_is_aligned() {
        let indent = " ".repeat(INDENT);
        assert_eq!(
            written(false),
            format!(
                "connect     12.34 ms  first\n{indent}< second\n\nno pong: no pong\n  - a hint\n\
                 note: a note\nrequest id: id1 (search the server's log for it)\n"
            )
        );
    }

    #[test]
    fn json_is_one_object() {
        let value: Value = serde_json::from_str(&written(true)).unwrap();
        assert_eq!(value["verdict"], "no_pong");
        assert_eq!(value["exit_status"], 7);
        assert_eq!(value["explanation"][0], "a hint");
        assert_eq!(value["request_id"], "id1");
        let step = json!({"step": "connect", "ok": true, "us": 12_345, "peer": "1.2.3.4:5"});
        assert_eq!(value["steps"][0], step);
    }
}
