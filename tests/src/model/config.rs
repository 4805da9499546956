//! What a run explores ([`Config`]) and which single rule of the protocol it leaves out ([`Mutant`]).

/// When a peer sends.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Pace {
    /// At any time: every interleaving of arrivals.
    Eager,
    /// The next packet, or the FIN, only after the previous packet came out at the other end. No later arrival can
    /// then wake a direction that fell asleep, so anything left behind shows as a deadlock.
    Lockstep,
}

/// The size of what is explored. One unit stands for some bytes of a stream.
#[derive(Clone, Copy, Debug)]
pub struct Config {
    /// Packets that each direction carries; `None` for a direction that is left out.
    pub packets: [Option<u8>; 2],
    /// Units of one packet (skb): they leave the kernel's queue one by one, like page fragments.
    pub packet_units: u8,
    /// Units of one WebSocket frame, counted from the start of the stream.
    pub frame_units: u8,
    /// When the peers send.
    pub pace: Pace,
    /// Packets that came before the verdict was attached: nothing runs on them until a kick, a `recv` or an arrival.
    pub early: u8,
    /// Units that user space holds already, from the buffer of its HTTP parser. `diverted` never counted them.
    pub leftover: u8,
    /// Whether `recv` runs the verdict over the receive queue (kernels from mid-2023 on).
    pub recv_runs_verdict: bool,
    /// Frames that user space inserts, per direction.
    pub pings: u8,
    /// Packets that BPF declines for a reason outside the model (frame rules, T gone, helper failed), per direction.
    pub refusals: u8,
    /// Units that fit T's send buffer; `None`: endless.
    pub capacity: Option<u8>,
    /// Whether user space's writes may be shorter than they need be.
    pub short_writes: bool,
    /// Units that user space reads at once, and holds at most.
    pub buffer: u8,
    /// Whether user space may read on while it holds units that T would not take.
    pub read_ahead: bool,
    /// Whether a lane that owns its direction may throw away notifications.
    pub drops_notes: bool,
    /// Socket that its peer may reset, once, at any time.
    pub reset: Option<u8>,
    /// Whether user space may abandon the session at any time, and the slot serves a second session afterwards.
    pub reuse: bool,
    /// Whether stores wait in a store buffer before others see them.
    pub weak: bool,
    /// Whether user space takes S's socket lock once between `owner = Resume` and the look at `diverted`.
    pub lock_trip: bool,
}

impl Config {
    /// One direction of `packets` packets of one unit, and nothing else going on.
    pub const fn one_way(packets: u8, pace: Pace) -> Self {
        Self {
            packets: [Some(packets), None],
            packet_units: 1,
            frame_units: 1,
            pace,
            early: 0,
            leftover: 0,
            recv_runs_verdict: true,
            pings: 0,
            refusals: 0,
            capacity: None,
            short_writes: false,
            buffer: 2,
            read_ahead: false,
            drops_notes: false,
            reset: None,
            reuse: false,
            weak: false,
            lock_trip: false,
        }
    }

    /// Units in a direction's whole stream.
    pub fn total_units(&self, direction: usize) -> u8 {
        self.packets[direction].map_or(0, |packets| packets * self.packet_units + self.leftover)
    }
}

/// One rule of the protocol taken out.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Mutant {
    /// The protocol as it should be.
    None,

    // Rules of the verdict.
    /// BPF takes over in `Resume` without comparing `diverted` with `relayed`.
    ResumeWithoutCountCheck,
    /// BPF takes over in `Resume` with a plain store instead of a compare-and-swap.
    ResumeByPlainStore,
    /// BPF does not look at `owner` again after it added to `handed`.
    NoSecondLook,
    /// BPF takes its second look before it adds to `handed`.
    LookBeforeAdd,
    /// BPF does not look at `owner` again after it added to `diverted`: the protocol as first written down.
    NoLookAfterDivert,
    /// BPF takes its look after a divert before it adds to `diverted`.
    LookBeforeDivert,
    /// BPF redirects without looking at T's room.
    NoAdmission,
    /// BPF reads T's room first and T's byte count after it.
    RoomBeforeCount,
    /// BPF declines a packet and diverts it, but leaves `owner` at `Kernel`.
    RefuseKeepsOwner,
    /// BPF declines a packet and diverts it, but tells nobody.
    RefuseSilently,

    // Rules of the lane.
    /// User space reads as soon as it has set `owner = Relay`, without waiting for T's byte count.
    NoWait,
    /// The same, only after a `Resume` that was lost: it claims the direction but does not take it.
    LostResumeNoWait,
    /// A `Resume` that was lost: user space reads on in `Resume`, without claiming the direction.
    LostResumeKeepsOwner,
    /// User space leaves without looking at `diverted` after it set `owner = Resume`.
    GiveBackUnchecked,
    /// User space gives the direction back while T has not taken all it read.
    GiveBackUnflushed,
    /// User space reads what becomes readable after it gave the direction back, without claiming it first.
    ReadsUnclaimed,
    /// `recv() == 0` counts as the end although diverted packets are still on their way to the reader.
    EofWithoutDiverted,
    /// `EPOLLRDHUP`, then `recv() == 0`, count as the end although redirected packets are still on their way to T.
    EofWithoutCount,
    /// `shutdown(T)` while T has not taken all that was read.
    ShutdownUnflushed,
    /// `handed` keeps what a short write did not write.
    ShortWriteUncorrected,
    /// User space inserts a frame right after `owner = Relay`, without waiting.
    PingWithoutWait,
    /// User space inserts a frame wherever it stands.
    PingInsideFrame,
    /// No `SO_RCVLOWAT` kick at the first hand-over.
    NoKick,
    /// The wait for T's byte count does not watch for errors.
    WaitIgnoresReset,
    /// An error on S is treated as the end of its stream.
    ResetAsEof,
    /// The slot is used again while a verdict of the old session may still run.
    ReuseWithoutGrace,

    // Fences and atomics, with store buffers.
    /// No fence between `owner = Relay` and the look at `handed`.
    NoFenceTaking,
    /// No fence between `owner = Resume` and the look at `diverted`.
    NoFenceResume,
    /// BPF's addition to `handed` is relaxed (no fetch).
    RelaxedHanded,
    /// BPF's addition to `diverted` is relaxed (no fetch).
    RelaxedDiverted,

    // Not faults: what order and progress do not depend on. They must hold.
    /// `handed` is added after user space's write instead of before it.
    HandedAfterWrite,
    /// `relayed` counts what was read, not what T took: enough, since no lane gives back or ends with units pending.
    RelayedCountsReads,
    /// BPF looks at `owner` after a divert only if its first look said `Relay`.
    LookAfterRelayOnly,
}
