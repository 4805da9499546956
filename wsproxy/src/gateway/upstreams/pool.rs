//! HTTP connections to servers, in use and idle.
//!
//! A connection has no task of its own: whoever uses it drives it, in the task of the client's
//! connection. So no request is handed from thread to thread and back. An idle one is driven by
//! nobody; a look at it before its next use, and now and then, finds out whether it is still good.

use std::{
    collections::HashMap,
    pin::Pin,
    sync::{Mutex, MutexGuard, PoisonError},
    task::{Context, Poll, Waker},
    time::{Duration, Instant},
};

use bytes::Bytes;
use http::{Request, Response};
use http_body::{Body as _, Frame};
use hyper::{
    body::Incoming,
    client::conn::{
        TrySendError,
        http1::{Builder, Connection, SendRequest},
    },
};
use hyper_util::rt::TokioIo;

use crate::{
    balance::ServerId,
    gateway::{
        body::{RequestBody, Upload},
        stream::Stream,
        timer::Deadline,
        workers::{self, MOST_WORKERS},
    },
    handshake::HeadLimits,
};

/// A connection idle for longer is not used again: servers close theirs after 60 s and more.
const IDLE: Duration = Duration::from_secs(50);
/// The least that the library takes as the size of its buffer, in bytes.
const MIN_BUFFER: usize = 8 * 1024;

/// What moves the bytes of a connection when it is driven.
type Driver = Pin<Box<Connection<TokioIo<Stream>, RequestBody>>>;

/// A connection to a server.
pub(crate) struct Sender {
    requests: SendRequest<RequestBody>,
    /// None once it has ended.
    connection: Option<Driver>,
    /// Of the answer that is waited for.
    deadline: Deadline,
}

impl Sender {
    /// Over a stream that nothing was sent on.
    pub(crate) async fn new(stream: Stream, limits: HeadLimits) -> hyper::Result<Self> {
        let (requests, connection) = Builder::new()
            .max_headers(limits.max_headers)
            .max_buf_size(limits.max_bytes.max(MIN_BUFFER))
            .handshake(TokioIo::new(stream))
            .await?;
        Ok(Self { requests, connection: Some(Box::pin(connection)), deadline: Deadline::default() })
    }

    /// The next of an answer's body.
    pub(crate) fn poll_body(
        &mut self,
        body: &mut Incoming,
        cx: &mut Context<'_>,
    ) -> Poll<Option<hyper::Result<Frame<Bytes>>>> {
        let mut body = Pin::new(body);
        if self.connection.is_none() {
            return body.poll_frame(cx);
        }
        // What comes, comes because the connection is driven: see `send`.
        let at_hand = body.as_mut().poll_frame(&mut asleep());
        if at_hand.is_ready() {
            return at_hand;
        }
        drive(&mut self.connection, cx);
        body.poll_frame(&mut asleep())
    }

    /// Sends a request and waits for the head of its answer, until nothing of the upload has
    /// moved for `patience`: None then.
    pub(crate) async fn send(
        &mut self,
        request: Request<RequestBody>,
        upload: &Upload,
        patience: Duration,
    ) -> Option<Result<Response<Incoming>, TrySendError<Request<RequestBody>>>> {
        let mut answer = std::pin::pin!(self.requests.try_send_request(request));
        let (connection, deadline) = (&mut self.connection, &mut self.deadline);
        let mut steps = upload.steps();
        deadline.set(patience);
        let mut woken = false;
        std::future::poll_fn(|cx| {
            // What is ready is so because we have just driven the connection: to be woken for it
            // would be once too often. So who was woken looks for the answer first, and asks to
            // be woken again only where it is not there.
            let mut look = |cx: &mut Context<'_>| {
                drive(connection, cx);
                answer.as_mut().poll(&mut asleep())
            };
            let mut looked = if woken { look(&mut asleep()) } else { Poll::Pending };
            if looked.is_pending() {
                looked = look(cx);
            }
            if let Poll::Ready(answer) = looked {
                return Poll::Ready(Some(answer));
            }
            woken = true;
            while deadline.poll_passed(cx) {
                // A client may pause for longer: `timeouts.request_body` is for that.
                if upload.steps() == steps && !upload.is_awaited() {
                    return Poll::Ready(None);
                }
                steps = upload.steps();
                deadline.set(patience);
            }
            Poll::Pending
        })
        .await
    }

    /// Gives the connection a task of its own: its request's body is to go on whether or not the
    /// client takes the answer. It serves no other request then.
    pub(crate) fn detach(&mut self) {
        if let Some(connection) = self.connection.take() {
            tokio::spawn(async move {
                if let Err(error) = connection.await {
                    tracing::debug!(%error, "a connection to a server broke");
                }
            });
        }
    }

    /// Whether it takes another request; finds out what happened since it was last driven.
    fn is_good(&mut self) -> bool {
        drive(&mut self.connection, &mut asleep());
        self.connection.is_some() && self.requests.is_ready()
    }
}

/// The context of somebody who is not to be woken.
pub(crate) fn asleep() -> Context<'static> {
    Context::from_waker(Waker::noop())
}

/// One that has ended is let go of at once: what waits for its answer hears of it only then.
fn drive(connection: &mut Option<Driver>, cx: &mut Context<'_>) {
    if let Some(driver) = connection
        && let Poll::Ready(ended) = driver.as_mut().poll(cx)
    {
        if let Err(error) = ended {
            tracing::debug!(%error, "a connection to a server broke");
        }
        *connection = None;
    }
}

fn lock(idle: &Mutex<ByServer>) -> MutexGuard<'_, ByServer> {
    idle.lock().unwrap_or_else(PoisonError::into_inner)
}

struct Idle {
    sender: Sender,
    since: Instant,
}

impl Idle {
    fn is_good(&mut self) -> bool {
        self.since.elapsed() < IDLE && self.sender.is_good()
    }
}

/// Idle connections by server, at most so many each, of each worker: a connection is in the
/// reactor of the worker that made it.
pub(crate) struct Pool {
    most: usize,
    idle: Vec<Mutex<ByServer>>,
}

type ByServer = HashMap<ServerId, Vec<Idle>>;

impl Pool {
    pub(super) fn new(most: u32) -> Self {
        let idle = (0..MOST_WORKERS).map(|_| Mutex::default()).collect();
        Self { most: most as usize, idle }
    }

    /// This worker's.
    fn lock(&self) -> MutexGuard<'_, ByServer> {
        lock(&self.idle[workers::current() % MOST_WORKERS])
    }

    /// A connection to this server that is good for another request: the one that was used last.
    pub(crate) fn take(&self, id: ServerId) -> Option<Sender> {
        loop {
            let mut entry = self.lock().get_mut(&id)?.pop()?;
            if entry.is_good() {
                return Some(entry.sender);
            }
        }
    }

    /// Keeps a connection for later, unless there are enough. Whether it is still good is looked
    /// at when it is taken.
    pub(crate) fn put(&self, id: ServerId, sender: Sender) {
        if self.most == 0 || sender.connection.is_none() {
            return;
        }
        let mut all = self.lock();
        let idle = all.entry(id).or_default();
        if idle.len() < self.most {
            idle.push(Idle { sender, since: Instant::now() });
        }
    }

    /// Lets go of connections that are no good any more.
    pub(super) fn sweep(&self) {
        for worker in &self.idle {
            lock(worker).retain(|_, idle| {
                idle.retain_mut(Idle::is_good);
                !idle.is_empty()
            });
        }
    }
}
