//! The chat room: what is said reaches every member, and a member who does
//! not keep up loses the oldest messages rather than holding memory.

use std::future::pending;

use tokio::sync::broadcast;
use tokio::sync::broadcast::error::RecvError;
use tokio_tungstenite::tungstenite::Utf8Bytes;

use super::protocol;

/// Messages the room remembers for its slowest member. With the text limit
/// of the protocol this is at most about 3 MiB, shared by all members.
const BACKLOG_MESSAGES: usize = 256;

/// One room of members.
pub(super) struct Room {
    said: broadcast::Sender<Utf8Bytes>,
}

/// One end that hears the room.
pub(super) struct Member {
    heard: Option<broadcast::Receiver<Utf8Bytes>>,
}

impl Room {
    pub(super) fn new() -> Self {
        Self { said: broadcast::Sender::new(BACKLOG_MESSAGES) }
    }

    /// Hears everything said from now on.
    pub(super) fn join(&self) -> Member {
        Member { heard: Some(self.said.subscribe()) }
    }

    /// Says it to every member, the speaker included.
    pub(super) fn say(&self, message: Utf8Bytes) {
        // An error only tells that nobody listens.
        let _ = self.said.send(message);
    }
}

impl Member {
    /// A member who hears nothing, for a session that stays out of the chat.
    pub(super) fn deaf() -> Self {
        Self { heard: None }
    }

    /// The next message, or a notice of how many were lost. Cancel safe.
    pub(super) async fn next(&mut self) -> Utf8Bytes {
        let Some(heard) = &mut self.heard else {
            return pending().await;
        };
        match heard.recv().await {
            Ok(message) => message,
            Err(RecvError::Lagged(missed)) => protocol::lagged(missed),
            Err(RecvError::Closed) => pending().await,
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    #[tokio::test]
    async fn a_member_who_lags_is_told_how_much_it_missed() {
        const SAID: usize = BACKLOG_MESSAGES + 100;
        let room = Room::new();
        let mut slow = room.join();
        for i in 0..SAID {
            room.say(i.to_string().into());
        }
        let notice: Value = serde_json::from_str(&slow.next().await).unwrap();
        assert_eq!(notice, json!({ "type": "lagged", "missed": 100 }));
        for i in 100..SAID {
            assert_eq!(slow.next().await, i.to_string());
        }
    }
}
