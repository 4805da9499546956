//! TLS to a server that is no upstream: over connections that others have made.

use std::{io, path::PathBuf, sync::Arc};

use rustls::{ClientConfig, pki_types::ServerName};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio_rustls::{TlsConnector, client::TlsStream};

use super::{ClientFiles, SystemRoots, load_client};

/// Speaks TLS as a client that shows no certificate.
#[derive(Debug, Clone)]
pub(crate) struct Outbound(Arc<ClientConfig>);

impl Outbound {
    /// Trusts the CAs of a file, or the system's.
    ///
    /// # Errors
    /// What is wrong with them.
    pub(crate) fn load(ca: Option<PathBuf>) -> io::Result<Self> {
        let files = ClientFiles { ca, ..ClientFiles::default() };
        let loaded = load_client(&files, &SystemRoots::default()).map_err(|found| {
            let one = |problem: &super::FileProblem| {
                format!("{}: {}", problem.path.display(), problem.message)
            };
            let all: Vec<_> = found.problems.iter().map(one).collect();
            io::Error::new(io::ErrorKind::InvalidInput, all.join("; "))
        })?;
        Ok(Self(loaded.config))
    }

    /// Shakes hands with the server that `stream` leads to; `host` must be in its certificate.
    ///
    /// # Errors
    /// The stream's, and everything that is wrong with the certificate.
    pub(crate) async fn connect<S>(&self, host: &str, stream: S) -> io::Result<TlsStream<S>>
    where
        S: AsyncRead + AsyncWrite + Unpin,
    {
        let name = ServerName::try_from(host.to_owned()).map_err(io::Error::other)?;
        TlsConnector::from(Arc::clone(&self.0)).connect(name, stream).await
    }
}
