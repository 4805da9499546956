//! What the command line may say instead of the file.

use std::path::PathBuf;

use clap::Args;

use super::{DatapathMode, ListenAddr, LogFormat, LogLevel, ServerAddr};

/// The flags of `wsproxy run`. Each wins over its key in the file.
#[derive(Debug, Clone, Default, PartialEq, Eq, Args)]
pub struct RunArgs {
    /// Listen on ip:port, or on :port of every address
    #[arg(long, value_name = "ADDR")]
    pub listen: Option<ListenAddr>,
    /// Forward to host:port; given more than once, to each in turn
    #[arg(long, value_name = "ADDR")]
    pub upstream: Vec<ServerAddr>,
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
