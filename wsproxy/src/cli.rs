//! The command line.

use std::ffi::OsString;
use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use clap::{Args, Parser, Subcommand};

use crate::admin::client::Ask;
use crate::config::RunArgs;
use crate::nginx::Included;
use crate::probe::ProbeArgs;
use crate::top::TopArgs;

/// Exit status after bad usage, as in `sysexits.h`.
pub const EX_USAGE: i32 = 64;
/// Largest configuration file that is read, in bytes: 1 MiB.
pub const CONFIG_FILE_MAX: u64 = 1 << 20;

/// A transparent WebSocket gateway for Linux.
#[derive(Debug, Clone, PartialEq, Eq, Parser)]
#[command(name = "wsproxy", version)]
pub struct Cli {
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// What to do.
#[derive(Debug, Clone, PartialEq, Eq, Subcommand)]
pub enum Command {
    /// Run the gateway; without any configuration, on 127.0.0.1:8080 with an
    /// upstream of its own
    Run(RunArgs),
    /// Check a configuration file
    Check {
        /// The file to check
        file: PathBuf,
    },
    /// Print what a configuration may hold
    Config {
        /// In which form
        #[command(subcommand)]
        what: ConfigCommand,
    },
    /// Turn an nginx configuration into one of wsproxy, on standard output
    ImportNginx {
        /// The nginx file; what it includes is read too
        file: PathBuf,
        /// Also say what is not needed any more
        #[arg(long)]
        verbose: bool,
    },
    /// Do a WebSocket handshake step by step, and say what is wrong
    Probe(ProbeArgs),
    /// Questions and orders to a running wsproxy
    #[command(flatten)]
    Ask(Ask),
    /// Watch a running wsproxy: its routes, servers and sessions, live
    Top(TopArgs),
    /// Tell what this machine can do, and what is missing
    Doctor(DoctorArgs),
}

/// Arguments of `wsproxy doctor`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Args)]
pub struct DoctorArgs {
    /// Report as JSON
    #[arg(long)]
    pub json: bool,
    /// Tell instead whether this host has what so many sessions take, and what to change
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..=10_000_000))]
    pub sessions: Option<u64>,
    /// Upstream server addresses (IP and port) that the sessions are spread over
    #[arg(
        long,
        value_name = "N",
        default_value_t = 1,
        requires = "sessions",
        value_parser = clap::value_parser!(u64).range(1..=1_000_000)
    )]
    pub servers: u64,
    /// Clients come by TLS
    #[arg(long, requires = "sessions")]
    pub tls: bool,
}

/// A form of what a configuration may hold.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Subcommand)]
pub enum ConfigCommand {
    /// A commented file with every key
    Example,
    /// A JSON schema, for editors
    Schema,
}

/// The command line of this process. Help and version print and exit 0; bad
/// usage says so on standard error and exits [`EX_USAGE`].
pub fn parse_or_exit() -> Cli {
    match parse_from(std::env::args_os()) {
        Ok(cli) => cli,
        Err(error) => {
            // A closed standard output or error leaves nobody to tell.
            let _ = error.print();
            std::process::exit(exit_status(&error));
        }
    }
}

/// The command line in `args`, of which the first is the program's name.
pub fn parse_from(
    args: impl IntoIterator<Item: Into<OsString> + Clone>,
) -> clap::error::Result<Cli> {
    Cli::try_parse_from(args)
}

/// The exit status that a parse error stands for: 0 for help and version.
pub fn exit_status(error: &clap::Error) -> i32 {
    if error.use_stderr() { EX_USAGE } else { 0 }
}

/// The files that an nginx `include` names: a path, or a pattern with one `*` in its last part,
/// relative to `base`. A pattern may name none, as in nginx. `None` where one can't be read, and
/// of patterns of other kinds.
pub fn read_included(base: &Path, name: &str) -> Option<Vec<Included>> {
    let path = base.join(name);
    if !name.contains(['*', '?', '[']) {
        return Some(vec![included(&path)?]);
    }
    let (folder, pattern) = (path.parent()?, path.file_name()?.to_str()?);
    let (start, end) = pattern.split_once('*')?;
    if name.matches(['*', '?', '[']).count() > 1 {
        return None;
    }
    let entries = match std::fs::read_dir(folder) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Some(Vec::new()),
        Err(_) => return None,
    };
    let mut found: Vec<PathBuf> = entries
        .filter_map(|entry| Some(entry.ok()?.path()))
        .filter(|path| {
            let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
            let long_enough = name.len() >= start.len() + end.len();
            // As the shell has it, `*` means no hidden file.
            let hidden = name.starts_with('.') && start.is_empty();
            long_enough && name.starts_with(start) && name.ends_with(end) && !hidden
        })
        .collect();
    found.sort();
    found.iter().map(|path| included(path)).collect()
}

fn included(path: &Path) -> Option<Included> {
    let text = read_file(path).ok()?;
    Some(Included { file: path.display().to_string(), text })
}

/// The text of a configuration file of at most [`CONFIG_FILE_MAX`] bytes.
pub fn read_file(path: &Path) -> io::Result<String> {
    let mut bytes = Vec::new();
    File::open(path)?.take(CONFIG_FILE_MAX + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > CONFIG_FILE_MAX {
        return Err(io::Error::new(
            io::ErrorKind::FileTooLarge,
            format!("longer than {CONFIG_FILE_MAX} bytes"),
        ));
    }
    String::from_utf8(bytes).map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))
}

#[cfg(test)]
#[path = "cli_tests.rs"]
mod tests;
