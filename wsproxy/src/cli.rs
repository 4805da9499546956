//! The command line.

use std::ffi::OsString;
use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use clap::{Args, Parser, Subcommand};

use crate::config::{DatapathMode, ListenAddr, LogFormat, LogLevel, UpstreamAddr};

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
    /// Tell what this machine can do, and what is missing
    Doctor {
        /// Report as JSON
        #[arg(long)]
        json: bool,
    },
}

/// The flags of `wsproxy run`. Each wins over its key in the file.
#[derive(Debug, Clone, Default, PartialEq, Eq, Args)]
pub struct RunArgs {
    /// Listen on ip:port, or on :port of every address
    #[arg(long, value_name = "ADDR")]
    pub listen: Option<ListenAddr>,
    /// Forward to host:port; given more than once, to each in turn
    #[arg(long, value_name = "ADDR")]
    pub upstream: Vec<UpstreamAddr>,
    /// How to move bytes
    #[arg(long, value_enum, value_name = "MODE")]
    pub datapath: Option<DatapathMode>,
    /// Open the admin port on ip:port
    #[arg(long, value_name = "ADDR")]
    pub admin: Option<ListenAddr>,
    /// Read this file [default: /etc/wsproxy/wsproxy.toml if it exists]
    #[arg(long, value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// What a line of the log looks like
    #[arg(long, value_enum, value_name = "FORMAT")]
    pub log_format: Option<LogFormat>,
    /// The least important messages that are logged
    #[arg(long, value_enum, value_name = "LEVEL")]
    pub log_level: Option<LogLevel>,
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
