//! Checks run one after the other, and the table of what came of them.

use std::borrow::BorrowMut;
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::Result;

use crate::shell;

/// In CI a step that hangs must not take the other steps' results with it.
const CI_STEP_LIMIT: Duration = Duration::from_secs(30 * 60);

/// What came of a step.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// All of it ran and passed.
    Passed,
    /// It ran and failed, or must not be skipped here.
    Failed(String),
    /// It did not run, and why.
    Skipped(String),
}

/// The steps that ran so far.
pub struct Steps {
    /// Whether a skipped step counts as a failure.
    strict: bool,
    done: Vec<(&'static str, Outcome, Duration)>,
}

impl Steps {
    /// No step yet.
    pub fn new(strict: bool) -> Self {
        Self { strict, done: Vec::new() }
    }

    /// Runs a step under a heading; an error is its failure.
    pub fn run(&mut self, name: &'static str, step: impl FnOnce() -> Result<Outcome>) -> Outcome {
        println!("\n=== {name}");
        let start = Instant::now();
        let outcome = match step() {
            Ok(Outcome::Skipped(why)) if self.strict => {
                Outcome::Failed(format!("CI must not skip this: {why}"))
            }
            Ok(outcome) => outcome,
            Err(error) => Outcome::Failed(format!("{error:#}")),
        };
        let time = start.elapsed();
        match &outcome {
            Outcome::Passed => println!("--- passed: {name} ({})", seconds(time)),
            Outcome::Failed(why) => {
                println!("--- FAILED: {name} ({})\n{why}", seconds(time));
            }
            Outcome::Skipped(why) => {
                println!("--- SKIPPED, NOTHING WAS CHECKED: {name}\n{why}");
            }
        }
        self.done.push((name, outcome.clone(), time));
        outcome
    }

    /// Prints the table and, as the very last line, the counts. Returns whether nothing failed.
    pub fn finish(&self) -> bool {
        println!("\n=== summary");
        let width = self.done.iter().map(|(name, ..)| name.len()).max().unwrap_or_default();
        for (name, outcome, time) in &self.done {
            let (verdict, why) = match outcome {
                Outcome::Passed => ("passed", ""),
                Outcome::Failed(why) => ("FAILED", first_line(why)),
                Outcome::Skipped(why) => ("SKIPPED", first_line(why)),
            };
            let line = format!("{name:width$}  {:>8}  {verdict:<7}  {why}", seconds(*time));
            println!("{}", line.trim_end());
        }
        println!("{}", self.counts());
        !self.done.iter().any(|(_, outcome, _)| matches!(outcome, Outcome::Failed(_)))
    }

    fn counts(&self) -> String {
        let count = |wanted: fn(&Outcome) -> bool| {
            self.done.iter().filter(|(_, outcome, _)| wanted(outcome)).count()
        };
        format!(
            "{} passed, {} failed, {} skipped",
            count(|outcome| matches!(outcome, Outcome::Passed)),
            count(|outcome| matches!(outcome, Outcome::Failed(_))),
            count(|outcome| matches!(outcome, Outcome::Skipped(_))),
        )
    }
}

/// Runs a command that is a whole step, in CI with a limit on its time.
pub fn command(mut command: impl BorrowMut<Command>) -> Result<Outcome> {
    let command = command.borrow_mut();
    if shell::in_ci() {
        shell::run(&mut limited(command, CI_STEP_LIMIT))?;
    } else {
        shell::run(command)?;
    }
    Ok(Outcome::Passed)
}

/// The same command under `timeout`, which also ends what the command started.
fn limited(command: &Command, limit: Duration) -> Command {
    let mut timeout = Command::new("timeout");
    timeout.arg("--kill-after=10").arg(limit.as_secs_f64().to_string());
    timeout.arg(command.get_program()).args(command.get_args());
    for (key, value) in command.get_envs() {
        match value {
            Some(value) => timeout.env(key, value),
            None => timeout.env_remove(key),
        };
    }
    if let Some(folder) = command.get_current_dir() {
        timeout.current_dir(folder);
    }
    timeout
}

fn first_line(text: &str) -> &str {
    text.lines().next().unwrap_or_default()
}

fn seconds(time: Duration) -> String {
    format!("{:.1} s", time.as_secs_f64())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn three(strict: bool) -> Steps {
        let mut steps = Steps::new(strict);
        steps.run("good", || Ok(Outcome::Passed));
        steps.run("absent", || Ok(Outcome::Skipped("no kernel".into())));
        steps
    }

    #[test]
    fn a_skip_is_no_failure_for_a_developer() {
        let steps = three(false);
        assert_eq!(steps.counts(), "1 passed, 0 failed, 1 skipped");
        assert!(steps.finish());
    }

    #[test]
    fn a_skip_is_a_failure_in_ci() {
        let steps = three(true);
        assert_eq!(steps.counts(), "1 passed, 1 failed, 0 skipped");
        assert!(!steps.finish());
    }

    #[test]
    fn an_error_is_a_failure_and_the_next_step_runs() {
        let mut steps = Steps::new(false);
        steps.run("broken", || anyhow::bail!("no such crate"));
        steps.run("good", || Ok(Outcome::Passed));
        assert_eq!(steps.done[0].1, Outcome::Failed("no such crate".into()));
        assert_eq!(steps.counts(), "1 passed, 1 failed, 0 skipped");
        assert!(!steps.finish());
    }

    #[test]
    fn a_command_over_its_limit_is_ended() {
        let mut sleep = Command::new("sleep");
        let start = Instant::now();
        let error = shell::run(&mut limited(sleep.arg("20"), Duration::from_millis(100)))
            .expect_err("it was ended");
        assert!(start.elapsed() < Duration::from_secs(15), "{error}");
        // `timeout` says 124 for a command that it ended.
        assert!(error.to_string().contains("124"), "{error}");
    }

    #[test]
    fn a_limited_command_keeps_its_surroundings() {
        let mut shell_command = Command::new("sh");
        shell_command.args(["-c", "echo $WSPROXY_XTASK; pwd"]);
        shell_command.env("WSPROXY_XTASK", "kept").current_dir("/");
        let said = shell::output(&mut limited(&shell_command, Duration::from_secs(20)));
        assert_eq!(said.expect("it ran"), "kept\n/\n");
    }
}
