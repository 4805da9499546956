//! What stands between a client and the HTTP library: every head of a connection goes through
//! the same strict parser, so that the library only ever sees requests that have one reading.
//! Where a handshake begins, the library gets no more: its connection ends and ours goes on.

use std::{
    io,
    mem::MaybeUninit,
    pin::Pin,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, AtomicU32, Ordering},
    },
    task::{Context, Poll, ready},
    time::Duration,
};

use hyper::rt::ReadBufCursor;
use tokio::{
    io::{AsyncRead as _, AsyncWrite as _, ReadBuf},
    time::Instant,
};

use super::{stream::Stream, timer::Deadline};
use crate::handshake::{
    BodyFraming, BodyTracker, HeadLimits, Incoming, Progress, Refusal, UpgradeRequest,
    parse_incoming,
};

/// Bytes of one read.
const READ: usize = 16 * 1024;

/// What the library's part of a connection ended with.
#[derive(Debug)]
pub(super) enum Outcome {
    /// A handshake; what follows it is in the bytes received.
    Upgrade(Box<UpgradeRequest>, Instant),
    /// A request that must not get through, and when it began; its head is in the bytes received.
    Refused(Refusal, Instant),
    /// The client is gone, or its time is over.
    Done,
    /// It was answered before the end of its request's body, which nobody reads any more.
    Unread,
}

/// How long a client may take.
#[derive(Clone, Copy, Debug)]
pub(super) struct Patience {
    /// For the next request to begin.
    pub(super) idle: Duration,
    /// From its first byte to the end of its head.
    pub(super) head: Duration,
}

#[derive(Debug)]
enum State {
    /// At the start of a request.
    Head,
    /// This many bytes of a good head, then a body.
    Pass(usize, BodyTracker),
    /// The library gets nothing any more.
    Stopped,
}

/// What the guard and those who serve its requests share.
#[derive(Debug, Default)]
pub(super) struct Shared {
    in_flight: AtomicU32,
    stopped: AtomicBool,
    outcome: Mutex<Option<Outcome>>,
    /// The client's end came while a request was in flight: it will send nothing more.
    finished: AtomicBool,
    /// So did a reset: it will not listen either.
    broke: AtomicBool,
    /// A request was answered since this was last asked.
    answered: AtomicBool,
}

/// A request that is being answered.
#[derive(Debug)]
pub(super) struct InFlight(Arc<Shared>);

impl InFlight {
    /// The client has ended its side of the connection behind this request.
    pub(super) fn client_finished(&self) -> bool {
        self.0.finished.load(Ordering::Relaxed)
    }

    /// The client's connection is broken.
    pub(super) fn client_broke(&self) -> bool {
        self.0.broke.load(Ordering::Relaxed)
    }
}

impl Shared {
    pub(super) fn request(self: &Arc<Self>) -> InFlight {
        self.in_flight.fetch_add(1, Ordering::SeqCst);
        InFlight(Arc::clone(self))
    }

    /// Whether the guard has stopped and every request is answered: both happen while the
    /// connection is polled.
    pub(super) fn is_over(&self) -> bool {
        self.stopped.load(Ordering::SeqCst) && self.in_flight.load(Ordering::SeqCst) == 0
    }

    /// Whether a request was answered since this was last asked: the library has been told that
    /// there is nothing to read, relies on that, and should ask again.
    pub(super) fn was_answered(&self) -> bool {
        self.answered.swap(false, Ordering::SeqCst)
    }

    fn is_answering(&self) -> bool {
        self.in_flight.load(Ordering::SeqCst) > 0
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Option<Outcome>> {
        self.outcome.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for InFlight {
    fn drop(&mut self) {
        self.0.in_flight.fetch_sub(1, Ordering::SeqCst);
        self.0.answered.store(true, Ordering::SeqCst);
    }
}

/// A client's connection as the library reads it.
pub(super) struct Guard {
    stream: Stream,
    /// Received and not passed on, from `given` on.
    received: Vec<u8>,
    given: usize,
    state: State,
    limits: HeadLimits,
    patience: Patience,
    /// When the client must have sent a whole head; from its first byte.
    deadline: Deadline,
    began: Option<Instant>,
    shared: Arc<Shared>,
}

impl Guard {
    /// `received` begins with a request.
    pub(super) fn new(
        stream: Stream,
        received: Vec<u8>,
        limits: HeadLimits,
        patience: Patience,
        shared: Arc<Shared>,
    ) -> Self {
        Self {
            stream,
            received,
            given: 0,
            state: State::Head,
            limits,
            patience,
            deadline: Deadline::default(),
            began: None,
            shared,
        }
    }

    /// The connection, the bytes that nobody has read, and how it ended.
    pub(super) fn into_parts(mut self) -> (Stream, Vec<u8>, Outcome) {
        self.received.drain(..self.given);
        let unread = matches!(self.state, State::Pass(..));
        let ended = if unread { Outcome::Unread } else { Outcome::Done };
        let outcome = self.shared.lock().take().unwrap_or(ended);
        (self.stream, self.received, outcome)
    }

    fn stop(&mut self, outcome: Outcome) {
        self.state = State::Stopped;
        *self.shared.lock() = Some(outcome);
        self.shared.stopped.store(true, Ordering::SeqCst);
    }

    fn refuse(&mut self, refusal: Refusal) {
        self.stop(Outcome::Refused(refusal, self.began.unwrap_or_else(Instant::now)));
    }

    fn at_hand(&self) -> &[u8] {
        &self.received[self.given..]
    }

    /// Looks at what may be a head. `Ok(true)`: go on; `Ok(false)`: more bytes are needed.
    fn look(&mut self) -> bool {
        if self.at_hand().is_empty() {
            return false;
        }
        if self.began.is_none() {
            self.began = Some(Instant::now());
            self.deadline.clear();
        }
        match parse_incoming(self.at_hand(), &self.limits) {
            Ok(Progress::Partial) => return false,
            Ok(Progress::Done { value: Incoming::Plain(plain), consumed }) => {
                let tracker = BodyTracker::new(plain.framing);
                debug_assert_ne!(plain.framing, BodyFraming::UntilClose);
                self.state = State::Pass(consumed, tracker);
                self.began = None;
                self.deadline.clear();
            }
            Ok(Progress::Done { value: Incoming::Upgrade(request), consumed }) => {
                self.given += consumed;
                let began = self.began.unwrap_or_else(Instant::now);
                self.stop(Outcome::Upgrade(request, began));
            }
            Err(refusal) => self.refuse(refusal),
        }
        true
    }

    /// Gives what may be given of what is at hand; 0: nothing is.
    fn give(&mut self, room: usize) -> Result<(usize, usize), Refusal> {
        let State::Pass(head, tracker) = &mut self.state else { return Ok((self.given, 0)) };
        let bytes = &self.received[self.given..];
        let most = bytes.len().min(room);
        let from = self.given;
        let mut count = most.min(*head);
        *head -= count;
        if *head == 0 && count < most && !tracker.is_complete() {
            let body = tracker.feed(&bytes[count..most]);
            count += body.map_err(|bad| Refusal::bad_body(&bad.to_string()))?.used;
        }
        let over = *head == 0 && tracker.is_complete();
        self.given += count;
        if over {
            self.state = State::Head;
        }
        Ok((from, count))
    }

    /// Reads more; 0 is the end of the stream.
    fn poll_more(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<usize>> {
        self.received.drain(..self.given);
        self.given = 0;
        // On the stack, and not cleared: an idle connection holds no buffer.
        let mut room = [const { MaybeUninit::uninit() }; READ];
        let mut buf = ReadBuf::uninit(&mut room);
        let polled = Pin::new(&mut self.stream).poll_read(cx, &mut buf);
        if polled.is_pending() && self.received.is_empty() {
            self.received = Vec::new();
        }
        ready!(polled)?;
        self.received.extend_from_slice(buf.filled());
        Poll::Ready(Ok(buf.filled().len()))
    }

    /// Whether the next request waits for the end of one in flight.
    fn is_behind_a_request(&self) -> bool {
        matches!(self.state, State::Head) && self.shared.is_answering()
    }

    /// Reads behind a request in flight: the end of the connection is news for who waits for the
    /// answer, and the client's time does not run.
    fn poll_behind(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let over = [&self.shared.finished, &self.shared.broke];
        if over.iter().any(|over| over.load(Ordering::Relaxed)) {
            return Poll::Pending;
        }
        match ready!(self.poll_more(cx)) {
            Ok(1..) => return Poll::Ready(()),
            Ok(_) => self.shared.finished.store(true, Ordering::Relaxed),
            Err(_) => self.shared.broke.store(true, Ordering::Relaxed),
        }
        cx.waker().wake_by_ref();
        Poll::Pending
    }

    /// Whether the client's time is over.
    fn poll_deadline(&mut self, cx: &mut Context<'_>) -> bool {
        if !matches!(self.state, State::Head) {
            return false;
        }
        let wait = if self.began.is_some() { self.patience.head } else { self.patience.idle };
        self.deadline.poll_after(wait, cx)
    }
}

impl hyper::rt::Read for Guard {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        mut cursor: ReadBufCursor<'_>,
    ) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        loop {
            match this.state {
                // Whoever serves the connection takes it from here.
                State::Stopped => return Poll::Pending,
                State::Head => {
                    if this.look() {
                        continue;
                    }
                }
                State::Pass(..) => match this.give(cursor.remaining()) {
                    Ok((_, 0)) => {
                        if !matches!(this.state, State::Pass(..)) {
                            continue;
                        }
                    }
                    Ok((from, count)) => {
                        cursor.put_slice(&this.received[from..from + count]);
                        return Poll::Ready(Ok(()));
                    }
                    Err(refusal) => {
                        // The request is half passed on: its answer can't be trusted any more.
                        let error = io::Error::other(refusal.detail);
                        return Poll::Ready(Err(error));
                    }
                },
            }
            if this.is_behind_a_request() {
                ready!(this.poll_behind(cx));
                continue;
            }
            match this.poll_more(cx) {
                Poll::Ready(Ok(0)) => {
                    if matches!(this.state, State::Head) && !this.received.is_empty() {
                        this.stop(Outcome::Done);
                    }
                    // The end, as it is.
                    return Poll::Ready(Ok(()));
                }
                Poll::Ready(Ok(_)) => {}
                Poll::Ready(Err(error)) => return Poll::Ready(Err(error)),
                Poll::Pending if this.poll_deadline(cx) => {
                    if this.began.is_some() {
                        this.refuse(Refusal::timeout());
                        return Poll::Pending;
                    }
                    // Nothing asked, nothing failed.
                    return Poll::Ready(Ok(()));
                }
                Poll::Pending => return Poll::Pending,
            }
        }
    }
}

impl hyper::rt::Write for Guard {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(cx, slices)
    }
}
