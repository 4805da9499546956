//! The demo's JSON messages: what a client may ask and what it is answered.
//! Knows no socket.

use serde_json::{Number, Value, json};
use tokio_tungstenite::tungstenite::Utf8Bytes;

use super::Carrier;

/// Characters of a chat message; the rest is cut off.
pub(super) const MAX_CHAT_CHARS: usize = 2_000;

/// A text longer than this is not looked at as JSON, only echoed: the tree of
/// a hostile document is many times its text. The longest useful chat, 2,000
/// characters each escaped as a surrogate pair of 12 bytes, fits.
const MAX_COMMAND_BYTES: usize = 32 * 1024;

/// What a client asks by a JSON text.
#[derive(Debug, PartialEq)]
pub(super) enum Command {
    /// `{"type":"ping","t":1}`: answered with the same `t` and the path.
    Ping { t: Number },
    /// `{"type":"chat","text":"…"}`: said to the room.
    Chat { text: String },
    /// `{"type":"echo","text":"…"}`: answered with the same.
    Echo { text: String },
}

impl Command {
    /// Reads a command, `None` for any other text: that is echoed as it is.
    pub(super) fn parse(text: &str) -> Option<Self> {
        if text.len() > MAX_COMMAND_BYTES || !text.trim_ascii_start().starts_with('{') {
            return None;
        }
        let Ok(Value::Object(mut fields)) = serde_json::from_str(text) else {
            return None;
        };
        let (t, text) = (fields.remove("t"), fields.remove("text"));
        match (fields.get("type")?.as_str()?, t, text) {
            ("ping", Some(Value::Number(t)), _) => Some(Self::Ping { t }),
            ("chat", _, Some(Value::String(mut text))) => {
                if let Some((end, _)) = text.char_indices().nth(MAX_CHAT_CHARS) {
                    text.truncate(end);
                }
                Some(Self::Chat { text })
            }
            ("echo", _, Some(Value::String(text))) => Some(Self::Echo { text }),
            _ => None,
        }
    }
}

/// The answer to a ping.
pub(super) fn pong(t: Number, path: Option<Carrier>) -> Utf8Bytes {
    let path = path.map_or("unknown", Carrier::name);
    text(json!({ "type": "pong", "t": t, "path": path }))
}

/// What the room hears of a chat message.
pub(super) fn chat(from: &str, said: &str) -> Utf8Bytes {
    text(json!({ "type": "chat", "from": from, "text": said }))
}

/// The answer to an echo.
pub(super) fn echo(said: &str) -> Utf8Bytes {
    text(json!({ "type": "echo", "text": said }))
}

/// Tells a slow member how many chat messages it missed.
pub(super) fn lagged(missed: u64) -> Utf8Bytes {
    text(json!({ "type": "lagged", "missed": missed }))
}

fn text(value: Value) -> Utf8Bytes {
    value.to_string().into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn commands() {
        let text = || "hi".to_owned();
        let table = [
            (r#"{"type":"ping","t":1}"#, Some(Command::Ping { t: 1.into() })),
            (r#" { "t": 7, "more": [], "type": "ping" }"#, Some(Command::Ping { t: 7.into() })),
            (r#"{"type":"chat","text":"hi"}"#, Some(Command::Chat { text: text() })),
            (r#"{"type":"echo","text":"hi","t":1}"#, Some(Command::Echo { text: text() })),
            (r#"{"type":"ping"}"#, None),
            (r#"{"type":"ping","t":"1"}"#, None),
            (r#"{"type":"chat","text":1}"#, None),
            (r#"{"type":["chat"],"text":"hi"}"#, None),
            (r#"{"type":"pong","t":1}"#, None),
            (r#""ping""#, None),
            ("ping", None),
            ("", None),
        ];
        for (input, expected) in table {
            assert_eq!(Command::parse(input), expected, "{input}");
        }
        let longest =
            format!(r#"{{"type":"chat","text":"{}"}}"#, r"\ud83d\ude00".repeat(MAX_CHAT_CHARS));
        let expected = Command::Chat { text: "\u{1f600}".repeat(MAX_CHAT_CHARS) };
        assert_eq!(Command::parse(&longest), Some(expected));
        assert_eq!(Command::parse(&format!("{longest}{}", " ".repeat(32 * 1024))), None);
    }
}
