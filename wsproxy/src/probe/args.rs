//! The command line of `wsproxy probe`.

use std::path::PathBuf;

use clap::Args;

/// The flags of `wsproxy probe`.
#[derive(Debug, Clone, PartialEq, Eq, Args)]
pub struct ProbeArgs {
    /// The URL to open: ws://, wss://, http:// or https://
    pub url: String,
    /// Send this header, too; may be given more than once
    #[arg(long = "header", value_name = "NAME:VALUE")]
    pub headers: Vec<String>,
    /// Send this Origin, as a browser does [default: none]
    #[arg(long)]
    pub origin: Option<String>,
    /// Offer this subprotocol; may be given more than once
    #[arg(long = "subprotocol", value_name = "NAME")]
    pub subprotocols: Vec<String>,
    /// Connect to ip, ip:port, name or name:port instead of the URL's host
    #[arg(long, value_name = "ADDR")]
    pub resolve: Option<String>,
    /// Send this Host; the name that TLS checks stays the URL's [default: of the URL]
    #[arg(long)]
    pub host: Option<String>,
    /// Go on when the certificate can't be verified
    #[arg(long)]
    pub insecure: bool,
    /// Trust the CA certificates of this PEM file instead of the system's
    #[arg(long, value_name = "FILE")]
    pub ca: Option<PathBuf>,
    /// Seconds that the whole may take
    #[arg(long, value_name = "SECONDS", default_value_t = 10,
        value_parser = clap::value_parser!(u64).range(1..=3600))]
    pub timeout: u64,
    /// Report as JSON
    #[arg(long)]
    pub json: bool,
    /// Send no ping
    #[arg(long)]
    pub no_ping: bool,
    /// Send this text message and wait for one message
    #[arg(long, value_name = "TEXT", allow_hyphen_values = true)]
    pub message: Option<String>,
}
