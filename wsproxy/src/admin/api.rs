//! What the admin socket is asked: JSON over HTTP.

use http_body_util::Full;
use hyper::{
    Method, Request, Response, StatusCode,
    body::{Bytes, Incoming},
    header::{ALLOW, CONTENT_TYPE, HeaderValue},
};
use serde_json::{Value, json};

use crate::{
    forwarding::query_value,
    gateway::{Control, NoSuch},
    handshake::percent_decoded,
};

/// What can be asked and told; `None` for what is not ours.
pub(super) async fn answer(
    control: &Control,
    request: &Request<Incoming>,
) -> Option<Response<Full<Bytes>>> {
    let path = request.uri().path().strip_prefix("/v1/")?;
    let query = request.uri().query().unwrap_or_default();
    let given = |name: &str| {
        let value = query_value(query, name)?;
        String::from_utf8(percent_decoded(value)).ok()
    };
    let is_order = matches!(path, "servers" | "close" | "reload" | "drain");
    let wanted = if is_order { Method::POST } else { Method::GET };
    if *request.method() != wanted {
        let mut response = say(StatusCode::METHOD_NOT_ALLOWED, &json!({ "error": "wrong method" }));
        let allow = if is_order { "POST" } else { "GET" };
        response.headers_mut().insert(ALLOW, HeaderValue::from_static(allow));
        return Some(response);
    }
    let answer = match path {
        "status" => Ok(control.status()),
        "upstreams" => Ok(control.upstreams()),
        "sessions" => {
            // Asking the threads that own them blocks.
            let control = control.clone();
            let with_tcp = given("tcp").is_some_and(|tcp| tcp == "1");
            let asked = tokio::task::spawn_blocking(move || control.sessions(with_tcp)).await;
            asked.map_err(|error| NoSuch(error.to_string()))
        }
        "servers" => match (given("order"), given("server")) {
            (Some(order), Some(server)) => {
                control.order(&order, &server, given("upstream").as_deref())
            }
            _ => return Some(bad("order and server are needed")),
        },
        "close" => match (given("session").map(|id| id.parse()), given("server")) {
            (Some(Ok(id)), None) => {
                let code = match given("code").map(|code| code.parse()) {
                    None => None,
                    Some(Ok(code)) => Some(code),
                    Some(Err(_)) => return Some(bad("a code is a number")),
                };
                let reason = given("reason");
                blocking(control, move |c| c.close_session(id, code, reason.as_deref())).await
            }
            (None, Some(_)) if given("code").is_some() || given("reason").is_some() => {
                return Some(bad("code and reason are for one session; [drain] has those for all"));
            }
            (None, Some(server)) => blocking(control, move |c| c.close_sessions_of(&server)).await,
            _ => return Some(bad("a session's number or a server is needed")),
        },
        "drain" => control.drain().await,
        "reload" => match control.reload().await {
            Ok(()) => Ok(json!({ "reloaded": true })),
            Err(problems) => {
                let problems: Vec<_> = problems.lines().collect();
                return Some(say(StatusCode::CONFLICT, &json!({ "problems": problems })));
            }
        },
        _ => return None,
    };
    Some(match answer {
        Ok(value) => say(StatusCode::OK, &value),
        Err(NoSuch(what)) => say(StatusCode::NOT_FOUND, &json!({ "error": what })),
    })
}

async fn blocking(
    control: &Control,
    ask: impl FnOnce(&Control) -> Result<Value, NoSuch> + Send + 'static,
) -> Result<Value, NoSuch> {
    let control = control.clone();
    let asked = tokio::task::spawn_blocking(move || ask(&control)).await;
    asked.unwrap_or_else(|error| Err(NoSuch(error.to_string())))
}

fn bad(what: &str) -> Response<Full<Bytes>> {
    say(StatusCode::BAD_REQUEST, &json!({ "error": what }))
}

fn say(status: StatusCode, value: &Value) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(Bytes::from(format!("{value}\n"))));
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    response
}
