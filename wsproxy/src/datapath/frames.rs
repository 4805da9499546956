//! What a session is told about its frames: what is allowed, when to ping, what to say at the end.

use std::{
    hash::{BuildHasher as _, RandomState},
    sync::Arc,
    time::Duration,
};

use wsproxy_common::cursor::{MASKING_FORBIDDEN, MASKING_REQUIRED, Rules, violation};

use super::session::CLIENT;

/// Close codes that we send (RFC 6455 section 7.4.1, and the registry).
pub mod code {
    /// Going away.
    pub const GOING_AWAY: u16 = 1001;
    /// Protocol error.
    pub const PROTOCOL_ERROR: u16 = 1002;
    /// Message too big.
    pub const TOO_BIG: u16 = 1009;
    /// Internal error: for a client whose server does not answer any more.
    pub const INTERNAL: u16 = 1011;
}

/// The frames of a session are followed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Frames {
    /// What holds for all sessions of its kind.
    pub plan: Arc<FramePlan>,
    /// RSV bits that the agreed extensions use: `RSV1` and so on of the cursor.
    pub allowed_rsv: u8,
}

/// What holds for the frames of all sessions of a route.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct FramePlan {
    /// Silent sides are pinged.
    pub ping: Option<PingPlan>,
    /// A side that breaks RFC 6455 is closed with 1002.
    pub enforce: bool,
    /// Payload of a frame, in bytes, beyond which its side is closed with 1009; 0: any.
    pub max_frame: u64,
    /// The same of a message.
    pub max_message: u64,
    /// What a client is told when its server ends without a Close; 0: nothing.
    pub gone_code: u16,
}

/// When to ping.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct PingPlan {
    /// After so long a silence of a side.
    pub interval: Duration,
    /// It is dead when it says nothing for so long after.
    pub timeout: Duration,
    /// Servers too, not only clients.
    pub upstream: bool,
}

/// What a Close frame says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Farewell {
    /// The code.
    pub code: u16,
    /// The reason; what is longer than 123 bytes is cut.
    pub reason: Arc<str>,
}

impl Default for Farewell {
    fn default() -> Self {
        Self::new(code::GOING_AWAY, "going away")
    }
}

impl Farewell {
    /// A code and a reason.
    #[must_use]
    pub fn new(code: u16, reason: &str) -> Self {
        Self { code, reason: reason.into() }
    }
}

impl Frames {
    /// The rules for what a side sends.
    #[must_use]
    pub fn rules(&self, side: usize) -> Rules {
        let plan = &self.plan;
        let masking = if side == CLIENT { MASKING_REQUIRED } else { MASKING_FORBIDDEN };
        let framing = if plan.enforce { violation::OF_FRAMING } else { 0 };
        let limited = plan.max_frame != 0 || plan.max_message != 0;
        let limits = if limited { violation::OF_LIMITS } else { 0 };
        Rules {
            allowed_rsv: self.allowed_rsv,
            enforced: framing | limits,
            max_frame: plan.max_frame,
            max_message: plan.max_message,
            ..Rules::of(masking)
        }
    }
}

/// Numbers that peers can't foresee: masking keys (RFC 6455 section 5.3) and payloads of Pings.
/// Seeded by the system; xorshift64* after that: what the masks hide is our own.
#[derive(Debug)]
pub struct Numbers(u64);

impl Numbers {
    /// Another sequence each time.
    #[must_use]
    pub fn seeded() -> Self {
        // Never 0, from which xorshift would not move.
        Self(RandomState::new().hash_one(0u8) | 1)
    }

    /// The next one.
    pub fn draw(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_F491_4F6C_DD1D)
    }

    /// A key for a frame to this side: clients get unmasked frames.
    pub fn mask_for(&mut self, side: usize) -> Option<[u8; 4]> {
        let key = (self.draw() >> 32) as u32;
        (side != CLIENT).then(|| key.to_ne_bytes())
    }
}
