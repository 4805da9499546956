//! Bodies of plain requests on their way to a server, and of answers on their way to a client.

use std::{
    io,
    pin::Pin,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    task::{Context, Poll, ready},
    time::Duration,
};

use bytes::Bytes;
use http::{HeaderMap, header};
use http_body::{Body, Frame, SizeHint};
use http_body_util::Full;
use hyper::body::Incoming;

use super::{
    access::Pending,
    guard::InFlight,
    timer::Deadline,
    upstreams::{Held, Sender, UpstreamGroup},
};
use crate::files::FileBody;

/// What both ends of an exchange know of its request's body.
#[derive(Debug, Default)]
pub(super) struct Upload {
    /// Bytes passed on.
    bytes: AtomicU64,
    /// Frames passed on, the end included: whether anything moved.
    steps: AtomicU64,
    /// It was longer than its route lets it.
    too_large: AtomicBool,
    /// The next of it is the client's to send.
    awaited: AtomicBool,
    /// All of it is passed on.
    over: AtomicBool,
    /// What the client did instead.
    fault: Mutex<Option<ClientFault>>,
}

/// Why the rest of a request's body does not come: not the server's fault.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum ClientFault {
    /// It paused for too long.
    Late,
    /// It left, or sent nonsense.
    Broken,
}

impl Upload {
    pub(super) fn bytes(&self) -> u64 {
        self.bytes.load(Ordering::Relaxed)
    }

    pub(super) fn steps(&self) -> u64 {
        self.steps.load(Ordering::Relaxed)
    }

    pub(super) fn is_too_large(&self) -> bool {
        self.too_large.load(Ordering::Relaxed)
    }

    pub(super) fn is_over(&self) -> bool {
        self.over.load(Ordering::Relaxed)
    }

    pub(super) fn is_awaited(&self) -> bool {
        self.awaited.load(Ordering::Relaxed)
    }

    pub(super) fn fault(&self) -> Option<ClientFault> {
        *self.lock()
    }

    fn lock(&self) -> MutexGuard<'_, Option<ClientFault>> {
        self.fault.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Whether an answer says in one way where it ends. The library would choose one of several.
pub(super) fn has_one_length(headers: &HeaderMap) -> bool {
    let mut codings = headers.get_all(header::TRANSFER_ENCODING).iter();
    match (codings.next(), codings.next()) {
        (None, _) => true,
        (Some(coding), None) => {
            coding.as_bytes().eq_ignore_ascii_case(b"chunked")
                && !headers.contains_key(header::CONTENT_LENGTH)
        }
        (Some(_), Some(_)) => false,
    }
}

/// The body of a request: as long as it may be, without long pauses.
pub(crate) struct RequestBody {
    /// None where there is no body to wait for.
    inner: Option<Incoming>,
    left: u64,
    pause: Duration,
    deadline: Deadline,
    upload: Arc<Upload>,
}

impl RequestBody {
    pub(super) fn new(
        inner: Incoming,
        limit: Option<u64>,
        pause: Duration,
        upload: &Arc<Upload>,
    ) -> Self {
        let left = limit.unwrap_or(u64::MAX);
        let inner = Some(inner).filter(|inner| !inner.is_end_stream());
        upload.over.store(inner.is_none(), Ordering::Relaxed);
        Self { inner, left, pause, deadline: Deadline::default(), upload: Arc::clone(upload) }
    }

    /// The same body once more, where there is none.
    pub(super) fn again(&self, upload: &Arc<Upload>) -> Option<Self> {
        let again = || Self {
            inner: None,
            left: self.left,
            pause: self.pause,
            deadline: Deadline::default(),
            upload: Arc::clone(upload),
        };
        self.inner.is_none().then(again)
    }
}

impl Body for RequestBody {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, io::Error>>> {
        let this = &mut *self;
        let Some(inner) = &mut this.inner else { return Poll::Ready(None) };
        let Poll::Ready(frame) = Pin::new(&mut *inner).poll_frame(cx) else {
            this.upload.awaited.store(true, Ordering::Relaxed);
            if this.deadline.poll_after(this.pause, cx) {
                *this.upload.lock() = Some(ClientFault::Late);
                let error = io::Error::new(io::ErrorKind::TimedOut, "the client stopped sending");
                return Poll::Ready(Some(Err(error)));
            }
            return Poll::Pending;
        };
        this.deadline.clear();
        this.upload.awaited.store(false, Ordering::Relaxed);
        this.upload.steps.fetch_add(1, Ordering::Relaxed);
        this.upload.over.store(frame.is_none() || inner.is_end_stream(), Ordering::Relaxed);
        let Some(frame) = frame else { return Poll::Ready(None) };
        let frame = frame.map_err(|error| {
            *this.upload.lock() = Some(ClientFault::Broken);
            io::Error::other(error)
        })?;
        if let Some(data) = frame.data_ref() {
            let length = data.len() as u64;
            if length > this.left {
                this.upload.too_large.store(true, Ordering::Relaxed);
                let error = io::Error::other("the body is longer than route.body_limit");
                return Poll::Ready(Some(Err(error)));
            }
            this.left -= length;
            this.upload.bytes.fetch_add(length, Ordering::Relaxed);
        }
        Poll::Ready(Some(Ok(frame)))
    }

    fn is_end_stream(&self) -> bool {
        self.inner.as_ref().is_none_or(Incoming::is_end_stream)
    }

    fn size_hint(&self) -> SizeHint {
        self.inner.as_ref().map_or_else(|| SizeHint::with_exact(0), Body::size_hint)
    }
}

enum Kind {
    Text(Full<Bytes>),
    File(FileBody),
    Upstream(Box<Download>),
}

/// The body of a server's answer, with what is to be kept until its end.
struct Download {
    inner: Incoming,
    pause: Option<Duration>,
    deadline: Deadline,
    /// The connection; back into its group's pool when the body was read to its end.
    sender: Option<Sender>,
    group: Arc<UpstreamGroup>,
    /// The place at the server.
    held: Held,
    /// What was read before.
    first: First,
    /// It has broken off: said when what came before it is on its way.
    broken: Option<io::Error>,
}

/// What is known of the beginning of an answer's body.
pub(super) enum First {
    /// Nothing yet.
    Unknown,
    Frame(Frame<Bytes>),
    /// It is over.
    End,
}

/// The body of an answer to a client. When it ends, however it ends, the request is over: it is
/// logged, and its places are free.
pub(super) struct ReplyBody {
    kind: Kind,
    pending: Option<Box<Pending>>,
    _in_flight: Option<InFlight>,
}

impl ReplyBody {
    pub(super) fn text(text: impl Into<Bytes>) -> Self {
        Self::of(Kind::Text(Full::new(text.into())))
    }

    pub(super) fn file(body: FileBody) -> Self {
        Self::of(Kind::File(body))
    }

    /// Of a server's answer. `pause`: the longest one without a byte.
    pub(super) fn upstream(
        inner: Incoming,
        pause: Option<Duration>,
        held: Held,
        group: Arc<UpstreamGroup>,
        sender: Sender,
    ) -> Self {
        let sender = Some(sender);
        let (first, broken, deadline) = (First::Unknown, None, Deadline::default());
        let download = Download { inner, pause, deadline, sender, group, held, first, broken };
        let mut download = Box::new(download);
        // hyper does not ask for the frames of an empty body.
        if download.inner.is_end_stream() {
            download.give_back();
        }
        Self::of(Kind::Upstream(download))
    }

    fn of(kind: Kind) -> Self {
        Self { kind, pending: None, _in_flight: None }
    }

    /// What was read of a server's answer already.
    pub(super) fn begin_with(&mut self, first: First) {
        if let Kind::Upstream(download) = &mut self.kind {
            if matches!(first, First::End) {
                download.give_back();
            }
            download.first = first;
        }
    }

    /// Ties the end of the request to the end of this body.
    pub(super) fn until_its_end(
        mut self,
        pending: Option<Box<Pending>>,
        request: InFlight,
    ) -> Self {
        self.pending = pending;
        self._in_flight = Some(request);
        self
    }
}

impl Body for ReplyBody {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, io::Error>>> {
        let frame = match &mut self.kind {
            Kind::Text(body) => {
                let frame = ready!(Pin::new(body).poll_frame(cx));
                frame.map(|frame| frame.map_err(|never| match never {}))
            }
            Kind::File(body) => ready!(Pin::new(body).poll_frame(cx)),
            Kind::Upstream(download) => ready!(download.poll_frame(cx)),
        };
        if let Some(Ok(frame)) = &frame
            && let Some(data) = frame.data_ref()
        {
            let length = data.len() as u64;
            if let Some(pending) = &mut self.pending {
                pending.sent(length);
            }
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        match &self.kind {
            Kind::Text(body) => body.is_end_stream(),
            Kind::File(body) => body.is_end_stream(),
            Kind::Upstream(download) => download.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match &self.kind {
            Kind::Text(body) => body.size_hint(),
            Kind::File(body) => body.size_hint(),
            Kind::Upstream(download) => download.size_hint(),
        }
    }
}

impl Download {
    fn poll_frame(
        &mut self,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, io::Error>>> {
        if let Some(error) = self.broken.take() {
            return Poll::Ready(Some(Err(error)));
        }
        if let Some(first) = self.take_first() {
            return Poll::Ready(first.map(Ok));
        }
        let Poll::Ready(frame) = self.poll_inner(cx) else {
            if let Some(pause) = self.pause
                && self.deadline.poll_after(pause, cx)
            {
                let error = io::Error::new(io::ErrorKind::TimedOut, "the server stopped sending");
                return Poll::Ready(Some(Err(error)));
            }
            return Poll::Pending;
        };
        self.deadline.clear();
        if frame.is_none() || self.inner.is_end_stream() {
            self.give_back();
        }
        if let Some(Err(error)) = frame {
            // The library drops what it has not sent yet when it hears of an error; it sends it
            // when there is nothing to do. So the client sees an answer that is cut off.
            self.broken = Some(io::Error::other(error));
            cx.waker().wake_by_ref();
            return Poll::Pending;
        }
        Poll::Ready(frame.map(|frame| frame.map_err(io::Error::other)))
    }

    fn poll_inner(
        &mut self,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        match &mut self.sender {
            Some(sender) => sender.poll_body(&mut self.inner, cx),
            None => Pin::new(&mut self.inner).poll_frame(cx),
        }
    }

    /// What was read before, once: the end is `None` in it.
    fn take_first(&mut self) -> Option<Option<Frame<Bytes>>> {
        let first = match std::mem::replace(&mut self.first, First::Unknown) {
            First::Unknown => return None,
            First::Frame(frame) => Some(frame),
            First::End => None,
        };
        if self.inner.is_end_stream() {
            self.give_back();
        }
        Some(first)
    }

    fn is_end_stream(&self) -> bool {
        match self.first {
            First::Unknown => self.inner.is_end_stream(),
            First::Frame(_) => false,
            First::End => true,
        }
    }

    fn size_hint(&self) -> SizeHint {
        let mut hint = self.inner.size_hint();
        if let First::Frame(frame) = &self.first {
            let length = frame.data_ref().map_or(0, |data| data.len() as u64);
            if let Some(upper) = hint.upper() {
                hint.set_upper(upper.saturating_add(length));
            }
            hint.set_lower(hint.lower().saturating_add(length));
        }
        hint
    }

    /// The body is over: the connection may serve another request.
    fn give_back(&mut self) {
        if let Some(sender) = self.sender.take().filter(|_| self.group.may_pool()) {
            self.group.pool.put(self.held.target.id, sender);
        }
    }
}
