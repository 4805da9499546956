//! nginx and wsproxy as gateways for the same things: WebSockets and plain HTTP, with and without
//! TLS; and the HTTP server behind them.

use std::{
    fs,
    net::SocketAddr,
    path::{Path, PathBuf},
};

use anyhow::{Context as _, Result, ensure};

use super::certificate::Certificate;
use crate::{
    contender::{
        configurations::{self, nginx_arguments},
        process::Process,
    },
    load::requests::Page,
    machine::first_line_of,
    place::Site,
    results::Contender,
};

/// Where each gateway listens.
pub const PLAIN: u16 = 8301;
/// The same over TLS.
pub const TLS: u16 = 8302;
/// Port of the HTTP server behind them.
const PAGES: u16 = 9001;
const NGINX: &str = "/usr/sbin/nginx";
/// Idle connections that are kept to the HTTP server.
const KEEPALIVE: u32 = 64;
/// nginx closes a connection after so many requests; its default, 1000, would mix new connections
/// into what is measured.
const REQUESTS: u32 = 1_000_000_000;

/// One of the two.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Who {
    /// nginx as packaged.
    Nginx,
    /// wsproxy as it comes.
    Wsproxy,
}

impl Who {
    /// As in the report.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Nginx => "nginx",
            Self::Wsproxy => "wsproxy",
        }
    }
}

/// What is asked for by plain requests.
#[must_use]
pub fn page() -> Page {
    Page { path: "/http".into(), body: "A page of one hundred bytes. ".repeat(4)[..100].into() }
}

/// A gateway that runs, and what to tell of it.
#[derive(Debug)]
pub struct Gateway {
    /// Its processes.
    pub process: Process,
    /// For the report.
    pub described: Contender,
}

/// Starts one at the site's gateway and waits until it listens on both ports.
///
/// # Errors
/// It is not installed or does not start.
pub fn start(
    who: Who,
    site: &Site,
    folder: &Path,
    wsproxy: &Path,
    certificate: &Certificate,
) -> Result<Gateway> {
    let folder = folder.join(who.name());
    fs::create_dir_all(&folder)?;
    let pages = pages_address(site);
    let (program, flag, configuration) = match who {
        Who::Nginx => (Path::new(NGINX), "-v", nginx(&folder, site.upstream(), pages, certificate)),
        Who::Wsproxy => (wsproxy, "-V", self::wsproxy(site.upstream(), pages, certificate)),
    };
    let file = write(&folder, &configuration)?;
    let arguments = match who {
        Who::Nginx => nginx_arguments(&folder, &file),
        Who::Wsproxy => ["run", "--config", &file.to_string_lossy()].map(Into::into).to_vec(),
    };
    let process = run(program, &arguments, site, &folder, &[PLAIN, TLS])?;
    let version = first_line_of(&program.to_string_lossy(), &[flag]).unwrap_or_default();
    let version = version.trim_start_matches("nginx version: ").to_owned();
    let described = Contender { name: who.name().into(), version, configuration };
    Ok(Gateway { process, described })
}

/// Starts the HTTP server behind both.
///
/// # Errors
/// nginx is not installed or does not start.
pub fn pages(site: &Site, folder: &Path) -> Result<Process> {
    let folder = folder.join("pages");
    fs::create_dir_all(&folder)?;
    let Page { path, body } = page();
    let server = format!(
        "  server {{
    listen {PAGES} backlog=4096;
    location {path} {{ default_type text/plain; return 200 \"{body}\"; }}
  }}
"
    );
    let file = write(&folder, &nginx_file(&folder, &server))?;
    run(Path::new(NGINX), &nginx_arguments(&folder, &file), site, &folder, &[PAGES])
}

fn pages_address(site: &Site) -> SocketAddr {
    SocketAddr::new(site.upstream().ip(), PAGES)
}

fn write(folder: &Path, configuration: &str) -> Result<PathBuf> {
    let file = folder.join("configuration");
    fs::write(&file, configuration).with_context(|| file.display().to_string())?;
    Ok(file)
}

fn run(
    program: &Path,
    arguments: &[String],
    site: &Site,
    folder: &Path,
    ports: &[u16],
) -> Result<Process> {
    ensure!(program.exists(), "{} is not installed", program.display());
    let mut process = Process::start(program, arguments, site, folder)?;
    for port in ports {
        process.wait_until_it_listens(site.contender(*port), site)?;
    }
    Ok(process)
}

/// A whole file around its servers.
fn nginx_file(folder: &Path, servers: &str) -> String {
    let http = format!("  keepalive_requests {REQUESTS};\n{servers}");
    configurations::nginx_file(folder, &http)
}

/// As nginx's guides for WebSockets, for keeping connections to servers, and for HTTPS have it.
fn nginx(
    folder: &Path,
    sockets: SocketAddr,
    pages: SocketAddr,
    certificate: &Certificate,
) -> String {
    let Certificate { certificate, key, .. } = certificate;
    let servers = format!(
        "  map $http_upgrade $connection_upgrade {{ default upgrade; '' close; }}
  upstream pages {{
    server {pages};
    keepalive {KEEPALIVE};
    keepalive_requests {REQUESTS};
  }}
  server {{
    listen {PLAIN} backlog=4096;
    listen {TLS} ssl backlog=4096;
    ssl_certificate {};
    ssl_certificate_key {};
    ssl_protocols TLSv1.3 TLSv1.2;
    proxy_http_version 1.1;
    location /echo {{
      proxy_pass http://{sockets};
      proxy_set_header Upgrade $http_upgrade;
      proxy_set_header Connection $connection_upgrade;
      proxy_set_header Host $host;
      proxy_set_header X-Real-IP $remote_addr;
      proxy_set_header X-Forwarded-For $proxy_add_x_forwarded_for;
      proxy_read_timeout 1h;
      proxy_send_timeout 1h;
    }}
    location {} {{
      proxy_pass http://pages;
      proxy_set_header Connection \"\";
      proxy_set_header Host $host;
      proxy_set_header X-Real-IP $remote_addr;
      proxy_set_header X-Forwarded-For $proxy_add_x_forwarded_for;
    }}
  }}
",
        certificate.display(),
        key.display(),
        page().path
    );
    nginx_file(folder, &servers)
}

fn wsproxy(sockets: SocketAddr, pages: SocketAddr, certificate: &Certificate) -> String {
    let Certificate { certificate, key, .. } = certificate;
    format!(
        "[[listener]]
address = \"0.0.0.0:{PLAIN}\"
[[listener]]
address = \"0.0.0.0:{TLS}\"
[[listener.tls.certificates]]
certificate = \"{}\"
key = \"{}\"
[[upstream]]
name = \"sockets\"
servers = [\"{sockets}\"]
[[upstream]]
name = \"pages\"
servers = [\"{pages}\"]
keepalive = {KEEPALIVE}
[[route]]
path = \"/echo\"
upstream = \"sockets\"
[[route]]
path = \"{}\"
upstream = \"pages\"
[log]
level = \"warn\"
",
        certificate.display(),
        key.display(),
        page().path
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_page_has_as_many_bytes_as_it_says() {
        assert_eq!(page().body.len(), 100);
    }
}
