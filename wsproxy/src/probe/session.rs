//! What happens in the open tunnel: ping, message, close (RFC 6455 sections 5
//! and 7).

use std::io::{self, Write};
use std::time::{Duration, Instant};

use tokio::io::AsyncWriteExt as _;
use tokio::time::{self, timeout};

use super::explain;
use super::frame::{
    Decoder, Frame, FrameFault, Joiner, KEPT_BYTES, MAX_CONTROL_BYTES, Message, Opcode,
    close_payload, encode, read_close,
};
use super::link::{AnyLink, Lost, read_some, send};
use super::outcome::{Finding, Outcome};
use super::report::{Report, Step, Stop};
use super::shown::shown;
use super::tls::random;

/// How long the server may take to answer a close frame.
const CLOSE_PATIENCE: Duration = Duration::from_secs(1);
/// The most frames that are reported of one step.
const MAX_EVENTS: usize = 20;
/// The most bytes that are shown of a message that nobody waits for.
const MAX_EVENT_BYTES: usize = 256;

/// What is waited for.
enum Wanted<'a> {
    Pong(&'a [u8]),
    Message,
    Close,
}

/// What came of it.
enum Got {
    Pong,
    Message(Message),
    Close(Closed),
}

/// The server's close frame in words.
struct Closed {
    code: Option<u16>,
    words: String,
}

/// Why what was waited for will not come.
enum End {
    Lost(Lost),
    Fault(FrameFault),
    Closed(Closed),
}

impl From<Lost> for End {
    fn from(lost: Lost) -> Self {
        Self::Lost(lost)
    }
}

impl From<FrameFault> for End {
    fn from(fault: FrameFault) -> Self {
        Self::Fault(fault)
    }
}

/// An open tunnel.
pub(super) struct Session {
    link: AnyLink,
    input: Vec<u8>,
    decoder: Decoder,
    joiner: Joiner,
    /// The frames that nobody waited for.
    events: Vec<String>,
    more_events: usize,
    until: time::Instant,
}

impl Session {
    /// `rest` is what came behind the head.
    pub(super) fn new(link: AnyLink, rest: Vec<u8>, until: time::Instant) -> Self {
        Self {
            link,
            input: rest,
            decoder: Decoder::default(),
            joiner: Joiner::default(),
            events: Vec::new(),
            more_events: 0,
            until,
        }
    }

    /// Sends a ping and waits for its pong (RFC 6455 section 5.5.2).
    pub(super) async fn ping<W: Write>(&mut self, report: &mut Report<'_, W>) -> Result<(), Stop> {
        // Only the pong to this ping can have these bytes.
        let mark = u32::from_be_bytes(random()?);
        let payload = format!("wsproxy-probe-{mark:08x}");
        let started = Instant::now();
        let result = self.ask(Opcode::Ping, payload.as_bytes(), Wanted::Pong(payload.as_bytes()));
        let result = result.await?;
        let step = Step::new("ping").took(started.elapsed()).detail("payload", payload.as_str());
        match result {
            Ok(_) => {
                let step = step.line(format!("pong with the same {} bytes", payload.len()));
                report.step(self.with_events(step))?;
                Ok(())
            }
            Err(end) => self.fail(step, end, "pong", report).await,
        }
    }

    /// Sends a text message and waits for one message.
    pub(super) async fn message<W: Write>(
        &mut self,
        text: &str,
        report: &mut Report<'_, W>,
    ) -> Result<(), Stop> {
        let started = Instant::now();
        let result = self.ask(Opcode::Text, text.as_bytes(), Wanted::Message).await?;
        let step = Step::new("message").took(started.elapsed()).detail("sent_bytes", text.len());
        let step = step.line(format!("> text, {} bytes", text.len()));
        match result {
            Ok(Got::Message(message)) => {
                let step = step.line(format!("< {}", in_words(&message, KEPT_BYTES)));
                let step = step
                    .detail("kind", kind(&message))
                    .detail("bytes", message.len)
                    .detail("answer", shown(&message.payload, KEPT_BYTES));
                report.step(self.with_events(step))?;
                Ok(())
            }
            Ok(_) => Ok(()),
            Err(end) => self.fail(step, end, "answer to the message", report).await,
        }
    }

    /// Ends the session in order (RFC 6455 section 7.1.2). What goes wrong here
    /// is a note and no failure.
    pub(super) async fn close<W: Write>(mut self, report: &mut Report<'_, W>) -> Result<(), Stop> {
        self.until = self.until.min(time::Instant::now() + CLOSE_PATIENCE);
        let started = Instant::now();
        let result = self.ask(Opcode::Close, &close_payload(1000), Wanted::Close).await?;
        let step = Step::new("close").took(started.elapsed()).line("> close 1000 (normal closure)");
        let step = match result {
            Ok(Got::Close(closed)) => {
                let words = format!("< {}", closed.words);
                step.line(words).detail("code", closed.code)
            }
            Ok(_) => step,
            Err(end) => {
                let words = match &end {
                    End::Lost(Lost::Timeout) => "no close frame came back".to_owned(),
                    other => words(other),
                };
                report.note(format!("the session did not close in order: {words}"));
                step.error(&words)
            }
        };
        report.step(self.with_events(step))?;
        // The peer may be gone already.
        let _ = timeout(CLOSE_PATIENCE, self.link.shutdown()).await;
        Ok(())
    }

    /// Reports a failed step and leaves politely.
    async fn fail<W: Write>(
        &mut self,
        step: Step,
        end: End,
        wanted: &str,
        report: &mut Report<'_, W>,
    ) -> Result<(), Stop> {
        let words = words(&end);
        report.step(self.with_events(step.error(&words)))?;
        let hint = match &end {
            End::Closed(closed) => explain::closed(closed.code),
            End::Fault(_) => "Clients end the session here: repair the server.",
            End::Lost(Lost::Timeout) if wanted == "pong" => {
                "Something on the way may take the 101 and then not pass on frames; or the server does not answer pings (try --message)."
            }
            End::Lost(Lost::Timeout) => {
                "The application may not answer such a message, or want a log-in or subprotocol first."
            }
            End::Lost(_) => {
                "The server, or something on the way, broke the session off: search its log."
            }
        };
        let code = match &end {
            End::Fault(_) => Some(1002),
            End::Lost(Lost::Timeout) => Some(1000),
            _ => None,
        };
        if let Some(code) = code {
            self.goodbye(code).await?;
        }
        let summary = format!("the tunnel opened, but no {wanted} came: {words}");
        Err(Finding::new(Outcome::NoPong, summary, vec![hint.to_owned()]).into())
    }

    /// A close frame that waits for no answer: the time may be over.
    async fn goodbye(&mut self, code: u16) -> io::Result<()> {
        let frame = encode(Opcode::Close, &close_payload(code), random()?);
        let soon = time::Instant::now() + Duration::from_millis(100);
        // The connection ends either way.
        let _ = send(&mut self.link, &frame, soon).await;
        Ok(())
    }

    /// Sends a frame and waits. The outer error is of this machine.
    async fn ask(
        &mut self,
        opcode: Opcode,
        payload: &[u8],
        wanted: Wanted<'_>,
    ) -> io::Result<Result<Got, End>> {
        let frame = encode(opcode, payload, random()?);
        if let Err(lost) = send(&mut self.link, &frame, self.until).await {
            return Ok(Err(lost.into()));
        }
        loop {
            let frame = match self.frame().await {
                Ok(frame) => frame,
                Err(end) => return Ok(Err(end)),
            };
            // What a ping gets back, too, needs a mask.
            let mask = random()?;
            match self.take(frame, &wanted, mask).await {
                Ok(None) => {}
                Ok(Some(got)) => return Ok(Ok(got)),
                Err(end) => return Ok(Err(end)),
            }
        }
    }

    /// The next frame.
    async fn frame(&mut self) -> Result<Frame, End> {
        loop {
            if let Some(frame) = self.decoder.next(&mut self.input)? {
                return Ok(frame);
            }
            read_some(&mut self.link, &mut self.input, self.until).await?;
        }
    }

    /// Does with a frame what is due; `Some` if it is what was waited for.
    async fn take(
        &mut self,
        frame: Frame,
        wanted: &Wanted<'_>,
        mask: [u8; 4],
    ) -> Result<Option<Got>, End> {
        let payload = &frame.payload;
        match (frame.opcode, wanted) {
            (Opcode::Pong, Wanted::Pong(sent)) if payload == sent => return Ok(Some(Got::Pong)),
            (Opcode::Pong, _) => {
                self.event(format!("< pong to no ping: \"{}\"", shown(payload, MAX_CONTROL_BYTES)));
            }
            (Opcode::Ping, _) => {
                let pong = encode(Opcode::Pong, payload, mask);
                send(&mut self.link, &pong, self.until).await?;
                self.event(format!("< ping, {} bytes, answered", frame.len));
            }
            (Opcode::Close, wanted) => {
                let closed = closed(payload)?;
                if matches!(wanted, Wanted::Close) {
                    return Ok(Some(Got::Close(closed)));
                }
                // RFC 6455 section 5.5.1: answered with the code it has.
                let echo = encode(Opcode::Close, payload.get(..2).unwrap_or_default(), mask);
                let _ = send(&mut self.link, &echo, self.until).await;
                return Err(End::Closed(closed));
            }
            (_, wanted) => {
                let message = self.joiner.push(frame)?;
                match (message, wanted) {
                    (Some(message), Wanted::Message) => return Ok(Some(Got::Message(message))),
                    (Some(message), _) => {
                        self.event(format!("< {}", in_words(&message, MAX_EVENT_BYTES)));
                    }
                    (None, _) => {}
                }
            }
        }
        Ok(None)
    }

    fn event(&mut self, event: String) {
        if self.events.len() < MAX_EVENTS {
            self.events.push(event);
        } else {
            self.more_events += 1;
        }
    }

    /// Adds to a step what else came meanwhile.
    fn with_events(&mut self, step: Step) -> Step {
        let mut events = std::mem::take(&mut self.events);
        let more = std::mem::take(&mut self.more_events);
        if more > 0 {
            events.push(format!("and {more} more"));
        }
        step.lines("meanwhile ", &events).detail("meanwhile", events)
    }
}

fn closed(payload: &[u8]) -> Result<Closed, FrameFault> {
    let (code, reason) = read_close(payload)?;
    let reason = match reason {
        [] => String::new(),
        reason => format!(": \"{}\"", shown(reason, MAX_CONTROL_BYTES)),
    };
    let words = match code {
        None => "close without a code".to_owned(),
        Some(code) => format!("close {code} ({}){reason}", explain::close_code(code)),
    };
    Ok(Closed { code, words })
}

fn words(end: &End) -> String {
    match end {
        End::Lost(Lost::Timeout) => "nothing came in time".to_owned(),
        End::Lost(Lost::Ended) => "the connection ended without a close frame".to_owned(),
        End::Lost(Lost::Io(error)) => {
            format!("the connection broke: {}", shown(error.to_string().as_bytes(), 512))
        }
        End::Fault(fault) => format!("a frame is wrong: {}", explain::frame_fault(*fault)),
        End::Closed(closed) => format!("the server sent {}", closed.words),
    }
}

fn kind(message: &Message) -> &'static str {
    if message.text { "text" } else { "binary" }
}

fn in_words(message: &Message, most: usize) -> String {
    let frames = match message.frames {
        1 => String::new(),
        frames => format!(" in {frames} frames"),
    };
    let whole = message.payload.len() as u64 == message.len;
    let bad = message.text && whole && std::str::from_utf8(&message.payload).is_err();
    let bad = if bad { " (text must be UTF-8, and this is not)" } else { "" };
    let dots = if whole || message.payload.len() > most { "" } else { "..." };
    let (kind, len) = (kind(message), message.len);
    format!("{kind}, {len} bytes{frames}: \"{}{dots}\"{bad}", shown(&message.payload, most))
}
