//! Commands to a running wsproxy, over its admin socket.

use std::{fmt::Write as _, io, path::PathBuf, time::Duration};

use clap::{Args, Subcommand};
use hyper::Method;
use serde_json::Value;

use super::line::{Line, within};

/// Where the socket is unless somebody says otherwise.
pub const SOCKET: &str = "/run/wsproxy/admin.sock";
/// An answer may take this long: a reload reads files and looks names up.
const PATIENCE: Duration = Duration::from_secs(30);

/// Which wsproxy is meant, and how its answer is shown.
#[derive(Debug, Clone, PartialEq, Eq, Args)]
pub struct Where {
    /// The admin socket of the running wsproxy
    #[arg(long, value_name = "PATH", default_value = SOCKET)]
    pub socket: PathBuf,
    /// Print the answer as JSON
    #[arg(long)]
    pub json: bool,
}

/// What is asked or told.
#[derive(Debug, Clone, PartialEq, Eq, Subcommand)]
pub enum Ask {
    /// Tell how a running wsproxy is
    Status {
        /// Which one
        #[command(flatten)]
        to: Where,
    },
    /// List the sessions of a running wsproxy
    Sessions {
        /// With TCP's own view of each side: round trip, retransmissions, unsent bytes (in JSON)
        #[arg(long, requires = "json")]
        tcp: bool,
        /// Which one
        #[command(flatten)]
        to: Where,
    },
    /// List the servers of a running wsproxy and how they are
    Upstreams {
        /// Which one
        #[command(flatten)]
        to: Where,
    },
    /// Give a server no new sessions, except from clients that its cookie brings back; without
    /// a server: close all sessions one by one and stop, as after SIGTERM
    Drain {
        /// Its name, as `wsproxy upstreams` shows it
        server: Option<String>,
        /// Which one
        #[command(flatten)]
        to: Where,
    },
    /// Give a server nothing any more
    Disable {
        /// Its name, as `wsproxy upstreams` shows it
        server: String,
        /// Which one
        #[command(flatten)]
        to: Where,
    },
    /// Give a server new sessions again
    Enable {
        /// Its name, as `wsproxy upstreams` shows it
        server: String,
        /// Which one
        #[command(flatten)]
        to: Where,
    },
    /// Close a session, or all sessions of a server
    Close {
        /// The session's number, or the server's name
        what: String,
        /// The code of the Close frame that both sides of the session get [default: drain.code]
        #[arg(long, value_name = "N")]
        code: Option<u16>,
        /// Its reason [default: drain.reason, or nothing with --code]
        #[arg(long, value_name = "TEXT")]
        reason: Option<String>,
        /// Which one
        #[command(flatten)]
        to: Where,
    },
    /// Let a running wsproxy read its configuration again
    Reload {
        /// Which one
        #[command(flatten)]
        to: Where,
    },
}

/// What to send for it.
struct Question {
    method: Method,
    path: String,
}

impl Ask {
    fn to(&self) -> &Where {
        match self {
            Self::Status { to }
            | Self::Sessions { to, .. }
            | Self::Upstreams { to }
            | Self::Drain { to, .. }
            | Self::Disable { to, .. }
            | Self::Enable { to, .. }
            | Self::Close { to, .. }
            | Self::Reload { to } => to,
        }
    }

    fn question(&self) -> Question {
        let get = |path: &str| Question { method: Method::GET, path: format!("/v1/{path}") };
        let post = |path: String| Question { method: Method::POST, path: format!("/v1/{path}") };
        let order = |order: &str, server: &str| {
            post(format!("servers?order={order}&server={}", encoded(server)))
        };
        match self {
            Self::Status { .. } => get("status"),
            Self::Sessions { tcp: true, .. } => get("sessions?tcp=1"),
            Self::Sessions { .. } => get("sessions"),
            Self::Upstreams { .. } => get("upstreams"),
            Self::Drain { server: Some(server), .. } => order("drain", server),
            Self::Drain { server: None, .. } => post("drain".to_owned()),
            Self::Disable { server, .. } => order("disable", server),
            Self::Enable { server, .. } => order("enable", server),
            Self::Close { what, code, reason, .. } => {
                let kind = if what.parse::<u64>().is_ok() { "session" } else { "server" };
                let mut path = format!("close?{kind}={}", encoded(what));
                if let Some(code) = code {
                    let _ = write!(path, "&code={code}");
                }
                if let Some(reason) = reason {
                    let _ = write!(path, "&reason={}", encoded(reason));
                }
                post(path)
            }
            Self::Reload { .. } => post("reload".to_owned()),
        }
    }
}

/// Everything but letters and digits as `%xx`.
fn encoded(text: &str) -> String {
    text.bytes().fold(String::new(), |mut out, byte| {
        if byte.is_ascii_alphanumeric() {
            out.push(char::from(byte));
        } else {
            let _ = write!(out, "%{byte:02x}");
        }
        out
    })
}

/// Asks, and shows the answer on `out`; false: it was an error, which is shown too.
///
/// # Errors
/// Nobody is at the socket, or says nothing of use.
pub async fn ask(ask: &Ask, out: &mut impl io::Write) -> io::Result<bool> {
    let to = ask.to();
    let asked = async {
        let Question { method, path } = ask.question();
        Line::open(&to.socket).await?.ask(method, &path).await
    };
    let (good, value) = within(PATIENCE, &to.socket, asked).await?;
    if to.json {
        writeln!(out, "{value:#}")?;
    } else {
        out.write_all(shown(ask, &value).as_bytes())?;
    }
    Ok(good)
}

/// The answer for people.
fn shown(ask: &Ask, value: &Value) -> String {
    if let Some(error) = value["error"].as_str() {
        return format!("{error}\n");
    }
    if let Some(problems) = value["problems"].as_array() {
        let lines = problems.iter().filter_map(Value::as_str);
        return lines.fold(String::new(), |text, line| text + line + "\n");
    }
    match ask {
        Ask::Status { .. } => status(value),
        Ask::Sessions { .. } => {
            let columns = [
                "id",
                "client",
                "upstream",
                "route",
                "datapath",
                "age_s",
                "bytes_to_upstream",
                "bytes_to_client",
            ];
            table(&columns, rows(&value["sessions"]))
        }
        Ask::Upstreams { .. } => upstreams(value),
        Ask::Close { .. } => "closed\n".to_owned(),
        Ask::Reload { .. } => "reloaded\n".to_owned(),
        Ask::Drain { server: None, .. } => "draining\n".to_owned(),
        Ask::Drain { .. } | Ask::Disable { .. } | Ask::Enable { .. } => "done\n".to_owned(),
    }
}

fn rows(value: &Value) -> &[Value] {
    value.as_array().map_or(&[], Vec::as_slice)
}

fn cell(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        Value::Null => "-".to_owned(),
        other => other.to_string(),
    }
}

fn table(columns: &[&str], rows: &[Value]) -> String {
    let mut lines = vec![columns.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>()];
    lines.extend(rows.iter().map(|row| columns.iter().map(|name| cell(&row[*name])).collect()));
    let width =
        |at: usize| lines.iter().map(|line| line[at].chars().count()).max().unwrap_or_default();
    let widths: Vec<_> = (0..columns.len()).map(width).collect();
    let mut text = String::new();
    for line in &lines {
        let cells = line.iter().zip(&widths).map(|(cell, width)| format!("{cell:width$}"));
        let line: Vec<_> = cells.collect();
        text.push_str(line.join("  ").trim_end());
        text.push('\n');
    }
    text
}

fn status(value: &Value) -> String {
    let sessions = &value["sessions"];
    let mut text = format!(
        "version   {}\nuptime    {} s\ndatapath  {}\nsessions  {} translated, {} in the kernel, {} relayed, {} \
         since the start\n{}\n",
        cell(&value["version"]),
        value["uptime_s"],
        cell(&value["datapath"]),
        cell(&sessions["packet"]),
        sessions["sockmap"],
        sessions["relay"],
        value["sessions_total"],
        privileges(&value["privileges"]),
    );
    text += &table(&["name", "address", "tls", "sessions"], rows(&value["listeners"]));
    text.push('\n');
    text += &table(&["name", "sessions"], rows(&value["routes"]));
    text
}

/// What the process may still do; nothing of one that does not say it.
fn privileges(value: &Value) -> String {
    let Some(capabilities) = value["capabilities"].as_array() else { return String::new() };
    let names: Vec<_> = capabilities.iter().filter_map(Value::as_str).collect();
    let names = if names.is_empty() { "none".to_owned() } else { names.join(" ") };
    let [user, seccomp, landlock] = ["user", "seccomp", "landlock"].map(|key| cell(&value[key]));
    format!("user      {user}, capabilities: {names}; seccomp {seccomp}, Landlock {landlock}\n")
}

fn upstreams(value: &Value) -> String {
    let columns = ["name", "state", "live", "total", "failures", "weight", "backup"];
    let mut text = String::new();
    for group in rows(value) {
        let (name, waiting) = (cell(&group["name"]), &group["waiting"]);
        let _ = writeln!(text, "[{name}] {waiting} waiting");
        text += &table(&columns, rows(&group["servers"]));
        text.push('\n');
    }
    text
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn tables_are_aligned() {
        let rows = [json!({ "a": "x", "b": 10 }), json!({ "a": "longer", "b": null })];
        assert_eq!(table(&["a", "b"], &rows), "a       b\nx       10\nlonger  -\n");
    }

    #[test]
    fn names_are_encoded() {
        assert_eq!(encoded("a:1 [::1]&x"), "a%3a1%20%5b%3a%3a1%5d%26x");
    }
}
