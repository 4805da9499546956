//! One torture session: both ends, the session between them, and what must
//! hold of it.

use std::{
    io::ErrorKind,
    net::TcpStream,
    os::fd::BorrowedFd,
    time::{Duration, Instant},
};

use rustix::{event::PollFlags, net::sockopt};
use wsproxy::datapath::{
    ClientSocket, Ending, Handover, Path, SessionEnd, SessionMeta, Terms, UpstreamSocket,
};

use super::{
    peer::Peer,
    plan::{CLIENT, Fate, Plan, SERVER},
    wire::{Wire, handshake},
};
use crate::sessions::{Bench, hop, wait_for};

/// A session in which nothing moves for so long is stuck: four times the
/// longest pause of a plan and the retransmissions behind it.
const PATIENCE: Duration = Duration::from_secs(20);

/// A running session.
#[derive(Debug)]
pub struct Torture {
    id: u64,
    plan: Plan,
    peers: [Peer; 2],
    started: Instant,
    last_progress: Instant,
    /// When the side that is to vanish does.
    vanish_at: Option<Instant>,
    /// The side that broke the session.
    broken: Option<usize>,
    /// Whether the broken side's FIN had to be expected before.
    closed: bool,
}

/// What became of a session.
#[derive(Debug)]
pub struct Outcome {
    /// What it was to do.
    pub plan: Plan,
    /// What the datapath said of it.
    pub end: SessionEnd,
}

/// Reads what the handshake's reader reads behind the bytes it has in hand.
fn read_early(ours: &mut Wire, bytes: usize, in_hand: &mut Vec<u8>) {
    if bytes == 0 {
        return;
    }
    let before = in_hand.len();
    in_hand.resize(before + bytes, 0);
    // Nothing there yet: nothing is read.
    let read = ours.read(&mut in_hand[before..]).unwrap_or(0);
    in_hand.truncate(before + read);
}

fn prepare(socket: &TcpStream, send_buffer: Option<usize>) {
    socket.set_nonblocking(true).unwrap();
    socket.set_nodelay(true).unwrap();
    if let Some(bytes) = send_buffer {
        sockopt::set_socket_send_buffer_size(socket, bytes).unwrap();
    }
}

fn prepare_peer(socket: &TcpStream, buffers: [Option<usize>; 2]) {
    socket.set_nonblocking(true).unwrap();
    socket.set_nodelay(true).unwrap();
    if let Some(bytes) = buffers[0] {
        sockopt::set_socket_send_buffer_size(socket, bytes).unwrap();
    }
    if let Some(bytes) = buffers[1] {
        sockopt::set_socket_recv_buffer_size(socket, bytes).unwrap();
    }
}

impl Torture {
    /// Opens the connections and hands the session over.
    #[must_use]
    pub fn start(bench: &Bench, id: u64, plan: Plan) -> Self {
        let (client, ours_client, client_addr) = hop(plan.hops.client);
        let (ours_upstream, server, _) = hop(plan.hops.server);
        // TLS is there already: a handshake that fails is for other tests.
        let tls = plan.tls.map(|tls| match tls {
            true => handshake(plan.old_tls).map(Some),
            false => [None, None],
        });
        let [[client_tls, ours_client_tls], [ours_upstream_tls, server_tls]] = tls;
        let local = ours_upstream.local_addr().unwrap();
        let [client_side, server_side] = plan.sides.clone();
        prepare_peer(&client, client_side.buffers);
        prepare_peer(&server, server_side.buffers);
        let read = [client_side.read_early, server_side.read_early];
        prepare(&ours_client, client_side.our_send_buffer);
        prepare(&ours_upstream, server_side.our_send_buffer);
        let [client, server] = [
            (client, client_tls, plan.without_fin[CLIENT]),
            (server, server_tls, plan.without_fin[SERVER]),
        ]
        .map(|(socket, tls, without_fin)| {
            let wire = Wire::new(socket, tls);
            if without_fin { wire.without_fin() } else { wire }
        });
        let mut ours_client = Wire::new(ours_client, ours_client_tls);
        let mut ours_upstream = Wire::new(ours_upstream, ours_upstream_tls);
        let seeds = [plan.seed, !plan.seed];
        let (mut client, mut early_to_upstream) = Peer::new(client, client_side, seeds);
        let (mut server, mut early_to_client) =
            Peer::new(server, server_side, [seeds[1], seeds[0]]);
        client.send_early();
        server.send_early();
        read_early(&mut ours_client, read[CLIENT], &mut early_to_upstream);
        read_early(&mut ours_upstream, read[SERVER], &mut early_to_client);
        let place = wait_for(Duration::from_secs(20), || bench.datapath.reserve())
            .expect("a place for a session");
        bench.datapath.take_over(
            place,
            Handover {
                client: ClientSocket(ours_client.into_endpoint()),
                upstream: UpstreamSocket(ours_upstream.into_endpoint()),
                early_to_upstream,
                early_to_client,
                meta: SessionMeta {
                    id,
                    client: client_addr,
                    local,
                    upstream: "torture".into(),
                    route: "default".into(),
                },
                terms: Terms::default(),
            },
        );
        let now = Instant::now();
        Self {
            id,
            plan,
            peers: [client, server],
            started: now,
            last_progress: now,
            vanish_at: None,
            broken: None,
            closed: false,
        }
    }

    /// Ends soon, by the plan's fate.
    pub fn hurry(&mut self) {
        self.peers.iter_mut().for_each(Peer::hurry);
        self.plan.fate = match self.plan.fate {
            Fate::Orderly => Fate::Orderly,
            Fate::Reset { side, .. } => Fate::Reset { side, after: 0 },
            Fate::Drop { side, linger, .. } => Fate::Drop { side, after: 0, linger },
        };
    }

    /// Descriptors to wait for, and until when at most.
    pub fn interests(&self) -> impl Iterator<Item = (BorrowedFd<'_>, PollFlags)> {
        self.peers.iter().filter_map(|p| p.interest().0)
    }

    /// When it has to run again although nothing came.
    #[must_use]
    pub fn wake_at(&self) -> Option<Instant> {
        let own = self.peers.iter().filter_map(|p| p.interest().1);
        own.chain(self.vanish_at).min()
    }

    /// Runs it; whether something moved, and the outcome once there is one.
    ///
    /// # Errors
    /// What did not hold.
    pub fn step(
        &mut self,
        bench: &Bench,
        now: Instant,
        buf: &mut [u8],
    ) -> Result<(bool, Option<SessionEnd>), String> {
        let mut moved = self.meet_fate(now);
        for (at, peer) in self.peers.iter_mut().enumerate() {
            moved |= peer.step(now, buf).map_err(|e| format!("side {at}: {e}"))?;
            if let Some(error) = &peer.error
                && self.broken.is_none()
            {
                return Err(format!("side {at} failed, and nobody broke the session: {error}"));
            }
        }
        if self.peers.iter().all(Peer::is_done) && !self.closed {
            self.check_ends()?;
            self.peers.iter_mut().for_each(|p| p.close(false));
            self.closed = true;
            moved = true;
        }
        if moved {
            self.last_progress = now;
        }
        if self.closed {
            let ends = bench.record.ends.lock().unwrap();
            if let Some(end) = ends.iter().rev().find(|e| e.meta.id == self.id).cloned() {
                drop(ends);
                self.check_report(bench, &end)?;
                return Ok((true, Some(end)));
            }
        }
        if now - self.last_progress > PATIENCE {
            return Err(format!("stuck for {PATIENCE:?}"));
        }
        Ok((moved, None))
    }

    /// Everything about it, for a failure.
    #[must_use]
    pub fn describe(&self, bench: &Bench) -> String {
        let sessions = bench.datapath.sessions();
        let info = sessions.iter().find(|s| s.meta.id == self.id);
        let ends = bench.ends();
        let end = ends.iter().find(|s| s.meta.id == self.id);
        let peers = self.peers.each_ref().map(|p| {
            let (sent, received) = (p.sent, p.received);
            format!(
                "sent {sent} received {received} finished {} ended {} error {:?}",
                p.finished, p.ended, p.error
            )
        });
        format!(
            "session {} after {:?}\n  plan: {:?}\n  client: {}\n  server: {}\n  broken by: {:?}, \
             closed: {}\n  info: {info:?}\n  end: {end:?}",
            self.id,
            self.started.elapsed(),
            self.plan,
            peers[CLIENT],
            peers[SERVER],
            self.broken,
            self.closed
        )
    }

    /// The outcome of a session that ended as `end`.
    #[must_use]
    pub fn outcome(self, end: SessionEnd) -> Outcome {
        Outcome { plan: self.plan, end }
    }

    /// Breaks the session when it is time; whether it did something.
    fn meet_fate(&mut self, now: Instant) -> bool {
        let (side, after) = match self.plan.fate {
            Fate::Orderly => return false,
            Fate::Reset { side, after } | Fate::Drop { side, after, .. } => (side, after),
        };
        let peer = &mut self.peers[side];
        // After its FIN a side can't break an orderly end any more.
        let possible = self.broken.is_none() && !peer.finishes();
        let due = peer.sent + peer.received >= after || peer.would_finish(now);
        match self.plan.fate {
            Fate::Reset { .. } if possible && due => {
                peer.close(true);
                self.broken = Some(side);
                true
            }
            Fate::Drop { linger, .. } if possible && self.vanish_at.is_none() && due => {
                // What comes from now on stays unread, and a close over it is a reset.
                peer.stop_reading();
                self.vanish_at = Some(now + linger);
                true
            }
            Fate::Drop { .. } if self.vanish_at.is_some_and(|at| now >= at) => {
                self.vanish_at = None;
                self.broken = Some(side);
                peer.close(false);
                true
            }
            _ => false,
        }
    }

    /// Both ends are done: is what they saw right?
    fn check_ends(&self) -> Result<(), String> {
        for (from, to) in [(CLIENT, SERVER), (SERVER, CLIENT)] {
            let (sent, received) = (self.peers[from].sent, self.peers[to].received);
            let right = match self.broken {
                None => sent == received,
                Some(_) => received <= sent,
            };
            if !right {
                return Err(format!("{received} of {sent} bytes arrived at side {to}"));
            }
        }
        let (Fate::Reset { side, .. }, Some(_)) = (self.plan.fate, self.broken) else {
            return Ok(());
        };
        match &self.peers[1 - side].error {
            None => Err("a reset arrived as an orderly end".into()),
            // TLS has no resets of its own, and needs none: TCP's travels as without it.
            Some(error) if error.kind() == ErrorKind::UnexpectedEof => {
                Err("a reset arrived as a FIN without a close_notify".into())
            }
            Some(_) => Ok(()),
        }
    }

    /// Does the datapath's report fit what both ends saw?
    fn check_report(&self, bench: &Bench, end: &SessionEnd) -> Result<(), String> {
        let wrong = |what: &str| Err(format!("{what}: {end:?}"));
        // The socket map takes established sockets alone: a side that has left already makes
        // the session one for the relay. The end is younger than we know, so this is the
        // latest moment at which the session can have begun.
        let begun = Instant::now() - end.duration;
        let left_before = self.peers.iter().any(|p| p.left_at.is_some_and(|at| at <= begun));
        if end.path != bench.path && !left_before && !bench.late {
            return wrong("another path");
        }
        if end.path == Path::Relay && end.to_upstream.kernel + end.to_client.kernel > 0 {
            return wrong("the relay reports bytes of the kernel");
        }
        let reported = [end.to_upstream.total(), end.to_client.total()];
        let sent = self.peers.each_ref().map(|p| p.sent);
        let [to_client, to_upstream] = self.peers.each_ref().map(|p| p.received);
        let arrived = [to_upstream, to_client];
        let counts = match self.broken {
            None => reported == sent && reported == arrived,
            Some(_) => (0..2).all(|d| arrived[d] <= reported[d] && reported[d] <= sent[d]),
        };
        if !counts {
            return wrong(&format!("counts do not fit: sent {sent:?} arrived {arrived:?}"));
        }
        let ends = match (self.broken, self.plan.fate) {
            (None, _) => {
                !end.reset
                    && end.error.is_none()
                    && matches!(end.ending, Ending::ClientFinished | Ending::UpstreamFinished)
            }
            (Some(side), Fate::Reset { .. }) => {
                let expected =
                    if side == CLIENT { Ending::ClientBroke } else { Ending::UpstreamBroke };
                end.ending == expected && end.reset
            }
            // Closed over unread data it is a reset, else an end: both are right.
            (Some(_), _) => true,
        };
        if ends { Ok(()) } else { wrong("another ending than the test made") }
    }
}
