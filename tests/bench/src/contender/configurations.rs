//! The configuration of every contender, as its own guide for WebSockets has
//! it, with logs off and as many workers as there are CPUs.

use std::{net::SocketAddr, path::Path};

use super::Kind;

/// Descriptors that a contender may use: the hard limit of the machine the figures were made on.
const DESCRIPTORS: u32 = 20_000;

/// The text of the file.
pub fn of(
    kind: Kind,
    port: u16,
    upstream: SocketAddr,
    prefix: &Path,
    admin: Option<SocketAddr>,
) -> String {
    match kind {
        Kind::Direct => String::new(),
        Kind::Nginx => nginx(port, upstream, prefix, ""),
        Kind::Nginx64k => nginx(
            port,
            upstream,
            prefix,
            "      proxy_buffer_size 64k;\n      proxy_buffers 8 64k;\n      \
             proxy_busy_buffers_size 128k;\n",
        ),
        Kind::Haproxy => haproxy(port, upstream, ""),
        Kind::HaproxySplice => haproxy(port, upstream, "  option splice-auto\n"),
        Kind::Relay => wsproxy(port, upstream, "mode = \"relay\"", admin),
        Kind::Sockmap => wsproxy(port, upstream, "mode = \"sockmap\"\nsettle = \"off\"", admin),
        Kind::Auto => wsproxy(port, upstream, "mode = \"auto\"", admin),
        Kind::Packet => wsproxy(port, upstream, "mode = \"packet\"", admin),
        Kind::PacketNoFrames => {
            let datapath = "mode = \"packet\"\n[route]\nupstream = \"servers\"\nframes = false";
            wsproxy(port, upstream, datapath, admin)
        }
    }
}

/// What the program is started with; it stays in the foreground.
pub fn arguments(kind: Kind, file: &Path, prefix: &Path) -> Vec<String> {
    let text = file.to_string_lossy().into_owned();
    match kind {
        Kind::Direct => Vec::new(),
        Kind::Nginx | Kind::Nginx64k => nginx_arguments(prefix, file),
        Kind::Haproxy | Kind::HaproxySplice => vec!["-db".into(), "-f".into(), text],
        Kind::Relay | Kind::Sockmap | Kind::Auto | Kind::Packet | Kind::PacketNoFrames => {
            vec!["run".into(), "--config".into(), text]
        }
    }
}

/// What nginx is started with: its folder and its file.
pub fn nginx_arguments(prefix: &Path, file: &Path) -> Vec<String> {
    let [prefix, file] = [prefix, file].map(|path| path.to_string_lossy().into_owned());
    vec!["-p".into(), prefix, "-c".into(), file]
}

/// A whole file of nginx's around what its `http` has.
pub fn nginx_file(prefix: &Path, http: &str) -> String {
    let prefix = prefix.display();
    format!(
        "daemon off;
pid {prefix}/pid;
error_log {prefix}/error.log error;
worker_processes auto;
worker_rlimit_nofile {DESCRIPTORS};
events {{ worker_connections {DESCRIPTORS}; }}
http {{
  access_log off;
  client_body_temp_path {prefix}/body;
  proxy_temp_path {prefix}/proxy;
  fastcgi_temp_path {prefix}/fastcgi;
  uwsgi_temp_path {prefix}/uwsgi;
  scgi_temp_path {prefix}/scgi;
{http}}}
"
    )
}

fn nginx(port: u16, upstream: SocketAddr, prefix: &Path, buffers: &str) -> String {
    let http = format!(
        "  map $http_upgrade $connection_upgrade {{ default upgrade; '' close; }}
  server {{
    listen {port} backlog=4096;
    location / {{
      proxy_pass http://{upstream};
      proxy_http_version 1.1;
      proxy_set_header Upgrade $http_upgrade;
      proxy_set_header Connection $connection_upgrade;
      proxy_set_header Host $host;
      proxy_set_header X-Real-IP $remote_addr;
      proxy_set_header X-Forwarded-For $proxy_add_x_forwarded_for;
      proxy_read_timeout 1h;
      proxy_send_timeout 1h;
{buffers}    }}
  }}
"
    );
    nginx_file(prefix, &http)
}

fn haproxy(port: u16, upstream: SocketAddr, splice: &str) -> String {
    format!(
        "global
  fd-hard-limit {DESCRIPTORS}
defaults
  mode http
  option forwardfor
  timeout connect 5s
  timeout client 1h
  timeout server 1h
  timeout tunnel 1h
{splice}frontend clients
  bind :{port} backlog 4096
  default_backend servers
backend servers
  server one {upstream}
"
    )
}

fn wsproxy(port: u16, upstream: SocketAddr, datapath: &str, admin: Option<SocketAddr>) -> String {
    let admin = admin.map_or(String::new(), |at| format!("[admin]\naddress = \"{at}\"\n"));
    format!(
        "[listener]
address = \"0.0.0.0:{port}\"
[upstream]
name = \"servers\"
servers = [\"{upstream}\"]
[datapath]
{datapath}
{admin}[log]
level = \"warn\"
"
    )
}
