//! HTTP answers other than 101.

use super::super::outcome::{Finding, Outcome};
use super::super::target::Target;

const UPGRADE_LOST: &str = "The headers Upgrade and Connection may get lost on the way: a reverse proxy must pass them on (in nginx: proxy_http_version 1.1; proxy_set_header Upgrade $http_upgrade; proxy_set_header Connection \"upgrade\";).";
const NOT_AN_ENDPOINT: &str =
    "This path may be no WebSocket endpoint: check the path, and the route that takes it.";
const LOG: &str = "Search the log of the server, or of the gateway, for the request.";

/// What a status means here. Where a code is missing, its class speaks.
const STATUSES: &[(u16, &[&str])] = &[
    (200, &["It is the answer to a plain HTTP request.", NOT_AN_ENDPOINT, UPGRADE_LOST]),
    (204, &["It is the answer to a plain HTTP request.", NOT_AN_ENDPOINT, UPGRADE_LOST]),
    (
        400,
        &["The request was not taken for a WebSocket handshake, or is incomplete.", UPGRADE_LOST],
    ),
    (
        401,
        &["A log-in is wanted: give --header \"Authorization: ...\" or --header \"Cookie: ...\"."],
    ),
    (
        404,
        &[
            "Nothing has this path: check its spelling, its slash at the end, and the route that takes it.",
            "The Host decides, too, which site answers: see --host.",
        ],
    ),
    (405, &["The path takes other methods, and a WebSocket handshake is a GET.", NOT_AN_ENDPOINT]),
    (407, &["A proxy on the way wants a log-in."]),
    (408, &["The server took the request for incomplete: something holds back its end."]),
    (410, &["What had this path is gone: check the path."]),
    (414, &["The URL is too long for the server."]),
    (
        421,
        &["Host and TLS name (SNI) do not fit together for this server: see --host and --resolve."],
    ),
    (426, &["The server wants an upgrade and saw none that suits it.", UPGRADE_LOST]),
    (429, &["A limit was reached: too many requests or sessions from this address."]),
    (431, &["The headers are too large for the server: cookies often are."]),
    (500, &["Something failed in the server.", LOG]),
    (501, &["The server, or a proxy on the way, does not know WebSocket.", UPGRADE_LOST]),
    (502, &["The upstream server behind the gateway is down, or its answer is invalid.", LOG]),
    (
        503,
        &[
            "A limit was reached, or the server, or the upstream server behind the gateway, is not ready.",
        ],
    ),
    (504, &["The upstream server behind the gateway is too slow, or unreachable from there.", LOG]),
    (505, &["The server, or a proxy on the way, does not take HTTP/1.1."]),
    (511, &["A captive portal of the network wants a log-in first."]),
    (520, &["Cloudflare got an answer from the server that it does not understand."]),
    (521, &["Cloudflare can't connect to the server: it is down, or refuses Cloudflare."]),
    (522, &["Cloudflare can't connect to the server: it does not answer."]),
    (525, &["Cloudflare can't speak TLS to the server."]),
    (526, &["Cloudflare can't verify the certificate of the server."]),
];

/// What servers write who get plain HTTP on a TLS port.
const WANTS_TLS: &[&str] = &[
    "plain http request was sent to https port",
    "http request to an https server",
    "plain http to an ssl-enabled server port",
    "requires tls",
    "client sent an http request to a tls",
    "this port speaks tls",
];

/// The facts of an answer. Its texts are escaped.
#[derive(Debug, Clone)]
pub(in super::super) struct Refused<'a> {
    pub(in super::super) status: u16,
    pub(in super::super) reason: String,
    pub(in super::super) http_1_0: bool,
    /// What the client asked for.
    pub(in super::super) target: &'a Target,
    pub(in super::super) origin_given: bool,
    pub(in super::super) location: Option<String>,
    pub(in super::super) retry_after: Option<String>,
    /// `WWW-Authenticate`.
    pub(in super::super) challenge: Option<String>,
    /// `Sec-WebSocket-Version`.
    pub(in super::super) versions: Option<String>,
    /// The start of the body.
    pub(in super::super) body: String,
}

/// What an HTTP answer other than 101 means.
pub(in super::super) fn refused(answer: &Refused<'_>) -> Finding {
    let mut summary = format!("the server answered {}", answer.status);
    if !answer.reason.is_empty() {
        summary = format!("{summary} {}", answer.reason);
    }
    Finding::new(Outcome::Refused, summary, hints(answer))
}

fn hints(answer: &Refused<'_>) -> Vec<String> {
    let body = answer.body.to_ascii_lowercase();
    let says = |text: &&str| body.contains(text);
    if answer.status == 400 && !answer.target.tls && WANTS_TLS.iter().any(says) {
        return vec!["It is a TLS port that was spoken to in plain: use wss://.".to_owned()];
    }
    let mut hints = match answer.status {
        300..=399 => redirect(answer),
        403 => vec![forbidden(answer.origin_given).to_owned()],
        400 | 426 if other_versions(answer).is_some() => Vec::new(),
        status => general(status),
    };
    hints.extend(other_versions(answer));
    if let Some(challenge) = &answer.challenge {
        hints.push(format!("It asks for: {challenge}."));
    }
    hints.extend(answer.retry_after.as_deref().map(retry));
    if answer.http_1_0 {
        let proxy = "The answer is in HTTP/1.0: a proxy on the way may have turned the request into HTTP/1.0, which has no upgrades.";
        hints.push(proxy.to_owned());
    }
    hints
}

fn general(status: u16) -> Vec<String> {
    let known = STATUSES.iter().find(|(known, _)| *known == status).map(|(_, hints)| *hints);
    let class: &[&str] = match status {
        200..=299 => &["It is an answer to a plain HTTP request.", NOT_AN_ENDPOINT, UPGRADE_LOST],
        400..=499 => &["The server does not take this request.", LOG],
        _ => &["Something failed in the server, or behind it.", LOG],
    };
    known.unwrap_or(class).iter().map(|&hint| hint.to_owned()).collect()
}

fn forbidden(origin_given: bool) -> &'static str {
    if origin_given {
        "The Origin, the address of this machine or the log-in is not allowed there."
    } else {
        "An Origin may be wanted, as browsers send it: try --origin with the page's (https://HOST). Or the address of this machine, or a missing log-in, is not allowed."
    }
}

fn other_versions(answer: &Refused<'_>) -> Option<String> {
    let versions = answer.versions.as_deref()?;
    let ours = versions.split(',').any(|version| version.trim() == "13");
    (!ours).then(|| {
        format!(
            "The server speaks WebSocket version {versions}, and the standard is 13 (RFC 6455)."
        )
    })
}

fn retry(value: &str) -> String {
    let seconds = !value.is_empty() && value.bytes().all(|byte| byte.is_ascii_digit());
    let unit = if seconds { "in " } else { "" };
    let end = if seconds { " s" } else { "" };
    format!("Try again {unit}{value}{end} (Retry-After).")
}

/// Browsers do not follow redirects of a handshake: the URL must be corrected.
fn redirect(answer: &Refused<'_>) -> Vec<String> {
    let Some(location) = answer.location.as_deref() else {
        return vec!["It is a redirect without a Location.".to_owned(), LOG.to_owned()];
    };
    let mut hints = vec![
        format!("It is a redirect to {location}."),
        "WebSocket clients do not follow redirects: the URL itself must be the final one."
            .to_owned(),
    ];
    let lower = location.to_ascii_lowercase();
    if ["login", "log-in", "signin", "sign-in", "/auth", "oauth"]
        .iter()
        .any(|at| lower.contains(at))
    {
        let log_in = "It looks like a log-in page: give --header \"Cookie: ...\" or --header \"Authorization: ...\".";
        hints.push(log_in.to_owned());
    } else if let Ok(there) = Target::read(&absolute(location, answer.target)) {
        hints.push(difference(answer.target, &there));
    }
    hints
}

/// A `Location` as a URL (RFC 3986 section 5.2, without dot segments).
fn absolute(location: &str, base: &Target) -> String {
    let scheme = if base.tls { "wss" } else { "ws" };
    let location = location.split('#').next().unwrap_or_default();
    if location.contains("://") {
        location.to_owned()
    } else if location.starts_with("//") {
        format!("{scheme}:{location}")
    } else if location.starts_with('/') {
        format!("{scheme}://{}{location}", base.authority)
    } else {
        let path = base.path.split('?').next().unwrap_or_default();
        let folder = path.rsplit_once('/').map_or("", |(folder, _)| folder);
        format!("{scheme}://{}{folder}/{location}", base.authority)
    }
}

fn difference(here: &Target, there: &Target) -> String {
    let url = there.url();
    if here.url() == url {
        return "It leads to the same URL: an endless redirect. Behind a gateway, the server may not know that the client came by TLS (X-Forwarded-Proto).".to_owned();
    }
    let slash = there.path == format!("{}/", here.path) || here.path == format!("{}/", there.path);
    if !here.tls && there.tls && here.path == there.path {
        format!("It wants TLS: try {url}")
    } else if slash {
        format!("Only the slash at the end of the path is different: try {url}")
    } else {
        format!("Try {url}")
    }
}
