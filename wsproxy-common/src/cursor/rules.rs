//! What a direction is allowed to send, and the names of what it may do wrong.

/// `Rules::must_be_masked`: frames of a server (RFC 6455 section 5.1).
pub const MASKING_FORBIDDEN: u8 = 0;
/// `Rules::must_be_masked`: frames of a client (section 5.1).
pub const MASKING_REQUIRED: u8 = 1;
/// `Rules::must_be_masked`: do not look.
pub const MASKING_EITHER: u8 = 2;

/// RSV1 in `Rules::allowed_rsv`, at its place in the first byte of a frame (section 5.2);
/// permessage-deflate uses it (RFC 7692 section 6).
pub const RSV1: u8 = 0x40;
/// RSV2 in `Rules::allowed_rsv`.
pub const RSV2: u8 = 0x20;
/// RSV3 in `Rules::allowed_rsv`.
pub const RSV3: u8 = 0x10;

/// What the frames of one direction may look like: a matter of the role, of the extensions that
/// the handshake agreed on, and of limits. Explicit widths, so that it can lie in a map beside the
/// cursor. All zero but the masking: nothing is enforced, nothing limited.
#[repr(C)]
#[derive(Clone, Copy, Default, PartialEq, Eq, Debug)]
pub struct Rules {
    /// Any of `RSV1`, `RSV2`, `RSV3`; checked per frame, whatever the frame's kind.
    pub allowed_rsv: u8,
    /// `MASKING_FORBIDDEN`, `MASKING_REQUIRED` or `MASKING_EITHER`.
    pub must_be_masked: u8,
    /// Violations at which a walk stops.
    pub enforced: u16,
    /// Room.
    pub reserved: u32,
    /// Most bytes of payload of one frame; 0: any.
    pub max_frame: u64,
    /// Most bytes of payload of one message; 0: any. Compressed messages count as they travel.
    pub max_message: u64,
}

impl Rules {
    /// Client to server, no extensions.
    pub const FROM_CLIENT: Self = Self::of(MASKING_REQUIRED);
    /// Server to client, no extensions.
    pub const FROM_SERVER: Self = Self::of(MASKING_FORBIDDEN);

    /// No extensions, nothing enforced, no limits.
    pub const fn of(must_be_masked: u8) -> Self {
        Self {
            allowed_rsv: 0,
            must_be_masked,
            enforced: 0,
            reserved: 0,
            max_frame: 0,
            max_message: 0,
        }
    }
}

/// The bits of `FrameCursor::violations`.
pub mod violation {
    /// An RSV bit that no agreed extension gives a meaning (RFC 6455 section 5.2).
    pub const RSV: u16 = 1 << 0;
    /// Opcode 3 to 7 or 11 to 15 (section 5.2).
    pub const RESERVED_OPCODE: u16 = 1 << 1;
    /// A control frame without FIN (section 5.5).
    pub const CONTROL_FRAGMENTED: u16 = 1 << 2;
    /// A control frame with more than 125 bytes of payload (section 5.5).
    pub const CONTROL_TOO_LONG: u16 = 1 << 3;
    /// A client frame without a mask or a server frame with one (section 5.1).
    pub const MASKING: u16 = 1 << 4;
    /// A longer form of the length than it needs (section 5.2).
    pub const LENGTH_NOT_MINIMAL: u16 = 1 << 5;
    /// A 64-bit length with the top bit set (section 5.2): the cursor is lost from here on.
    pub const LENGTH_TOP_BIT: u16 = 1 << 6;
    /// A continuation frame with nothing to continue (section 5.4).
    pub const CONTINUATION_WITHOUT_START: u16 = 1 << 7;
    /// A text or binary frame before the fragmented message has ended (section 5.4).
    pub const DATA_INSIDE_MESSAGE: u16 = 1 << 8;
    /// A Close with one byte of payload: half a code (section 5.5.1).
    pub const CLOSE_ONE_BYTE: u16 = 1 << 9;
    /// A close code that must not travel (section 7.4).
    pub const CLOSE_CODE_INVALID: u16 = 1 << 10;
    /// A frame longer than `Rules::max_frame`.
    pub const FRAME_TOO_LONG: u16 = 1 << 11;
    /// A message longer than `Rules::max_message`.
    pub const MESSAGE_TOO_LONG: u16 = 1 << 12;
    /// No violation, and in no label: bytes went by unseen, and the cursor is lost from here on
    /// (`wsproxy-ebpf/src/behind.rs`).
    pub const UNSEEN: u16 = 1 << 15;

    /// The bits that break RFC 6455, whatever our limits are.
    pub const OF_FRAMING: u16 = FRAME_TOO_LONG - 1;
    /// The bits that break our limits.
    pub const OF_LIMITS: u16 = FRAME_TOO_LONG | MESSAGE_TOO_LONG;

    /// Every bit with its name, for labels and logs.
    pub const NAMES: [(u16, &str); 13] = [
        (RSV, "rsv"),
        (RESERVED_OPCODE, "reserved_opcode"),
        (CONTROL_FRAGMENTED, "control_fragmented"),
        (CONTROL_TOO_LONG, "control_too_long"),
        (MASKING, "masking"),
        (LENGTH_NOT_MINIMAL, "length_not_minimal"),
        (LENGTH_TOP_BIT, "length_top_bit"),
        (CONTINUATION_WITHOUT_START, "continuation_without_start"),
        (DATA_INSIDE_MESSAGE, "data_inside_message"),
        (CLOSE_ONE_BYTE, "close_one_byte"),
        (CLOSE_CODE_INVALID, "close_code_invalid"),
        (FRAME_TOO_LONG, "frame_too_long"),
        (MESSAGE_TOO_LONG, "message_too_long"),
    ];
}

/// Whether an endpoint may send this code in a Close frame: section 7.4.1, the registry's later
/// 1012 (service restart), 1013 (try again later) and 1014 (bad gateway), and section 7.4.2 for
/// 3000 to 4999. Not 1004, 1005, 1006 and 1015, which never travel.
#[inline(always)]
pub const fn close_code_may_travel(code: u16) -> bool {
    matches!(code, 1000..=1003 | 1007..=1014 | 3000..=4999)
}
