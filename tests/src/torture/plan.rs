//! What a torture session is to do: a pure function of its seed, so that a
//! plan that failed can be run again.

use std::{fmt, time::Duration};

use crate::sessions::{Dice, FAMILIES, Hops};

/// Index of the client among the two sides of a session.
pub const CLIENT: usize = 0;
/// Index of the server.
pub const SERVER: usize = 1;

const KIB: u64 = 1 << 10;
const MIB: u64 = 1 << 20;
/// Largest message.
const MESSAGE_MAX: u64 = 4 * MIB;
/// Most bytes of one direction.
const TOTAL_MAX: u64 = 20 * MIB;
/// Most messages of one direction: one-byte messages end in this century too.
const MESSAGES_MAX: u64 = 4_000;
/// A window of a few KiB on loopback (MSS 64 KiB) moves by probes and delayed
/// acknowledgements; a direction read through one is kept this short.
const TINY_TOTAL_MAX: u64 = 96 * KIB;

/// The shape of a conversation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Both sides send as fast as they can, at once.
    Both,
    /// The server answers each message before the next one comes.
    Answers,
    /// One side sends, the other only ends.
    OneWay,
    /// One side sends and ends, then the other begins.
    TalkOn,
    /// Bursts that do not fit, with silence in between: the owner of a
    /// direction changes as often as can be.
    Churn,
}

impl Kind {
    /// All of them.
    pub const ALL: [Self; 5] = [Self::Both, Self::Answers, Self::OneWay, Self::TalkOn, Self::Churn];
}

/// When a message may go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Gate {
    /// At once.
    Open,
    /// When this many bytes have been received.
    Received(u64),
    /// When the other side has ended.
    OtherEnded,
}

/// One message.
#[derive(Clone, Copy, Debug)]
pub struct Message {
    /// Its bytes.
    pub size: u64,
    /// When it may go.
    pub gate: Gate,
    /// Silence before it, once it may go.
    pub pause: Duration,
}

/// The messages of one side, in order.
#[derive(Clone, Default)]
pub struct Script(pub Vec<Message>);

impl Script {
    /// Bytes of all messages.
    #[must_use]
    pub fn total(&self) -> u64 {
        self.0.iter().map(|m| m.size).sum()
    }
}

impl fmt::Debug for Script {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let largest = self.0.iter().map(|m| m.size).max().unwrap_or(0);
        let silence: Duration = self.0.iter().map(|m| m.pause).sum();
        let (count, total) = (self.0.len(), self.total());
        write!(f, "{count} messages, {total} bytes, largest {largest}, silence {silence:?}")
    }
}

/// How a side reads.
#[derive(Clone, Copy, Debug)]
pub struct Reader {
    /// Bytes of one read.
    pub chunk: usize,
    /// Pause after each.
    pub delay: Duration,
    /// A longer pause each time this many bytes more have come.
    pub stall_every: u64,
    /// How long that is.
    pub stall: Duration,
}

impl Reader {
    const FAST: Self = Self {
        chunk: 256 * 1024,
        delay: Duration::ZERO,
        stall_every: u64::MAX,
        stall: Duration::ZERO,
    };
}

/// One side's part.
#[derive(Clone, Debug)]
pub struct Side {
    /// What it says.
    pub script: Script,
    /// Bytes that the handshake's reader has read too far.
    pub in_hand: usize,
    /// Bytes sent before the datapath has the sockets.
    pub in_socket: u64,
    /// Bytes of these that the handshake's reader reads: it stops inside a packet.
    pub read_early: usize,
    /// Bytes of one write.
    pub write_max: usize,
    /// Ends only after the other side has; else right behind the last byte.
    pub ends_last: bool,
    /// Does not end sooner after its beginning than this: a socket that has seen a FIN
    /// before the datapath has it is not taken by the socket map.
    pub life: Duration,
    /// How it reads.
    pub reader: Reader,
    /// `SO_SNDBUF` and `SO_RCVBUF` of its own socket.
    pub buffers: [Option<usize>; 2],
    /// `SO_SNDBUF` of our socket towards it.
    pub our_send_buffer: Option<usize>,
}

/// How the session ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fate {
    /// FIN behind the last byte, both ways.
    Orderly,
    /// `side` sends a reset when so many bytes have passed it.
    Reset {
        /// Which.
        side: usize,
        /// Sent and received.
        after: u64,
    },
    /// `side` stops reading then, and a moment later closes its socket.
    Drop {
        /// Which.
        side: usize,
        /// Sent and received.
        after: u64,
        /// The moment.
        linger: Duration,
    },
}

/// A session.
#[derive(Clone, Debug)]
pub struct Plan {
    /// All else follows from this.
    pub seed: u64,
    /// Shape.
    pub kind: Kind,
    /// Address families.
    pub hops: Hops,
    /// Client and server.
    pub sides: [Side; 2],
    /// Which of them speak TLS.
    pub tls: [bool; 2],
    /// TLS 1.2 instead of TLS 1.3.
    pub old_tls: bool,
    /// Whose FIN does not come with the close_notify.
    pub without_fin: [bool; 2],
    /// End.
    pub fate: Fate,
}

fn chance(dice: &mut Dice, percent: u64) -> bool {
    dice.below(100) < percent
}

fn millis(dice: &mut Dice, below: u64) -> Duration {
    Duration::from_millis(dice.below(below.max(1)))
}

impl Plan {
    /// The plan of this seed; no single wait in it is longer than `stall_max`.
    #[must_use]
    pub fn roll(seed: u64, stall_max: Duration) -> Self {
        // Seeds of neighbouring sessions differ in a bit or two: stir.
        let mut dice = Dice::new(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15));
        for _ in 0..8 {
            dice.below(2);
        }
        let dice = &mut dice;
        let kind = Kind::ALL[dice.below(Kind::ALL.len() as u64) as usize];
        let hops = FAMILIES[dice.below(FAMILIES.len() as u64) as usize];
        let tiny = [chance(dice, 12), chance(dice, 12)];
        // What a side says is read by the other one.
        let limits =
            [tiny[SERVER], tiny[CLIENT]].map(|tiny| if tiny { TINY_TOTAL_MAX } else { TOTAL_MAX });
        let scripts = scripts(dice, kind, limits);
        let first = dice.below(2) as usize;
        let [a, b] = [script_length(&scripts[0]), script_length(&scripts[1])];
        let mut sides = scripts.map(|script| Side {
            script: Script(script),
            in_hand: 0,
            in_socket: 0,
            read_early: 0,
            write_max: [512, 1_400, 16_384, 65_536, MESSAGE_MAX as usize][dice.below(5) as usize],
            ends_last: false,
            life: Duration::ZERO,
            reader: Reader::FAST,
            buffers: [None; 2],
            our_send_buffer: None,
        });
        for (at, side) in sides.iter_mut().enumerate() {
            let incoming = if at == CLIENT { b } else { a };
            side.reader = reader(dice, kind, incoming, stall_max);
            if chance(dice, 75) {
                side.life = Duration::from_millis(5) + millis(dice, 50);
            }
            side.buffers = [send_buffer(dice, 20), None];
            side.our_send_buffer = send_buffer(dice, if kind == Kind::Churn { 85 } else { 25 });
            if tiny[at] {
                side.buffers[1] = Some(1 + dice.below(8 * KIB) as usize);
                // Slow enough by itself.
                side.reader.delay = Duration::ZERO;
            }
            early(dice, side);
        }
        // Both waiting for the other to end first would wait for ever.
        if kind == Kind::TalkOn {
            let last =
                usize::from(sides[SERVER].script.0.iter().any(|m| m.gate == Gate::OtherEnded));
            sides[last].ends_last = true;
        } else if chance(dice, 40) {
            sides[first].ends_last = true;
        }
        let fate = match fate(dice, a + b) {
            // A reset is sent once. Behind data that a tiny window refused it is outside that
            // window, so TCP ignores it (RFC 9293, 3.10.7.4), and a silent reader never learns.
            Fate::Reset { side, .. } | Fate::Drop { side, .. } if tiny[1 - side] => Fate::Orderly,
            fate => fate,
        };
        Self {
            seed,
            kind,
            hops,
            sides,
            tls: [false; 2],
            old_tls: false,
            without_fin: [false; 2],
            fate,
        }
    }

    /// The same with TLS at the client, the server or both, in turn.
    #[must_use]
    pub fn over_tls(mut self) -> Self {
        self.tls = Self::TLS[(self.seed % 3) as usize];
        self.old_tls = (self.seed / 3) % 2 == 1;
        self.without_fin = [(self.seed / 6) % 2 == 1, (self.seed / 12) % 2 == 1];
        self
    }

    /// Where [`Self::over_tls`] puts TLS.
    pub const TLS: [[bool; 2]; 3] = [[true, false], [false, true], [true, true]];
}

fn script_length(script: &[Message]) -> u64 {
    script.iter().map(|m| m.size).sum()
}

/// Messages of random sizes up to a random size.
fn talk(dice: &mut Dice, limit: u64) -> Vec<Message> {
    let largest = dice.size(MESSAGE_MAX.min(limit) as usize);
    // Half of the totals as likely large as small, half of them mostly large.
    let total = if chance(dice, 50) { dice.size(limit as usize) as u64 } else { dice.below(limit) };
    let silent = dice.below(4);
    let (mut script, mut sum) = (Vec::new(), 0);
    while sum < total && (script.len() as u64) < MESSAGES_MAX {
        let size = (dice.size(largest) as u64).min(total - sum);
        let pause = if dice.below(200) < silent { millis(dice, 120) } else { Duration::ZERO };
        script.push(Message { size, gate: Gate::Open, pause });
        sum += size;
    }
    script
}

/// Messages that do not fit into a small send buffer, silence between them.
fn bursts(dice: &mut Dice, limit: u64) -> Vec<Message> {
    let largest = limit.min(512 * KIB);
    let count = (limit / largest).clamp(1, 4) * (5 + dice.below(20));
    let mut left = limit;
    let mut script = Vec::new();
    for _ in 0..count {
        let size = (dice.size(largest as usize) as u64).min(left);
        if size == 0 {
            break;
        }
        left -= size;
        script.push(Message { size, gate: Gate::Open, pause: millis(dice, 50) });
    }
    script
}

fn scripts(dice: &mut Dice, kind: Kind, limits: [u64; 2]) -> [Vec<Message>; 2] {
    let one = dice.below(2) as usize;
    match kind {
        Kind::Both => limits.map(|limit| talk(dice, limit)),
        Kind::OneWay => {
            let mut scripts = [Vec::new(), Vec::new()];
            scripts[one] = talk(dice, limits[one]);
            scripts
        }
        Kind::TalkOn => {
            let mut scripts = limits.map(|limit| talk(dice, limit));
            // The second one says a little at once, and the rest when the first has ended.
            for message in scripts[1 - one].iter_mut().skip(1) {
                message.gate = Gate::OtherEnded;
            }
            if let Some(message) = scripts[1 - one].first_mut() {
                message.gate = Gate::OtherEnded;
            }
            scripts
        }
        Kind::Answers => {
            let limits = limits.map(|l| l / 2);
            ping_pong(limits.map(|limit| talk(dice, limit)))
        }
        Kind::Churn => {
            let scripts = limits.map(|limit| bursts(dice, limit));
            if chance(dice, 50) { ping_pong(scripts) } else { scripts }
        }
    }
}

/// Makes each message of the server the answer to one of the client, and each
/// message of the client wait for the answer before.
fn ping_pong(mut scripts: [Vec<Message>; 2]) -> [Vec<Message>; 2] {
    let rounds = scripts[0].len().min(scripts[1].len());
    let [client, server] = &mut scripts;
    client.truncate(rounds);
    server.truncate(rounds);
    let (mut asked, mut answered) = (0, 0);
    for (request, answer) in client.iter_mut().zip(server) {
        asked += request.size;
        request.gate = Gate::Received(answered);
        answer.gate = Gate::Received(asked);
        answered += answer.size;
    }
    scripts
}

fn reader(dice: &mut Dice, kind: Kind, incoming: u64, stall_max: Duration) -> Reader {
    let mut reader = Reader::FAST;
    if kind == Kind::Churn {
        reader.stall_every = 16 * KIB + dice.below(400 * KIB);
        reader.stall = Duration::from_millis(1) + millis(dice, 25);
        return reader;
    }
    match dice.below(4) {
        0 | 1 => {}
        2 => {
            reader.chunk = dice.size(64 * 1024).max(512);
            // About as long in all as one long stall.
            let reads = (incoming / reader.chunk as u64).max(1) as u32;
            reader.delay = (stall_max / reads).min(Duration::from_millis(20));
        }
        _ => {
            reader.stall_every = incoming / (1 + dice.below(3)) + 1;
            reader.stall = millis(dice, stall_max.as_millis() as u64);
        }
    }
    reader
}

/// Tiny, or large, or (mostly) what the system gives.
fn send_buffer(dice: &mut Dice, percent: u64) -> Option<usize> {
    chance(dice, percent).then(|| match dice.below(3) {
        0 => 1 + dice.below(8 * KIB) as usize,
        1 => (16 * KIB + dice.below(100 * KIB)) as usize,
        _ => (MIB + dice.below(3 * MIB)) as usize,
    })
}

/// Moves the beginning of what `side` says to before the hand-over.
fn early(dice: &mut Dice, side: &mut Side) {
    let Some(first) = side.script.0.first() else { return };
    // Only what may go at once can be early.
    if matches!(first.gate, Gate::Open | Gate::Received(0)) {
        if chance(dice, 35) {
            side.in_hand = dice.size(300_000).min(first.size as usize);
        }
        if chance(dice, 35) {
            side.in_socket = dice.size(MIB as usize) as u64;
            side.read_early = if chance(dice, 50) { dice.size(64 * 1024) } else { 0 };
        }
    }
}

fn fate(dice: &mut Dice, bytes: u64) -> Fate {
    let side = dice.below(2) as usize;
    let after = dice.below(bytes.max(1));
    match dice.below(20) {
        0..=2 => Fate::Reset { side, after },
        3..=5 => Fate::Drop { side, after, linger: millis(dice, 80) },
        _ => Fate::Orderly,
    }
}
