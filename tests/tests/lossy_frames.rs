//! Frames followed on the packet path between links that lose packets: a lost frame header keeps
//! nothing from going on. Needs root.

use std::{
    net::{Shutdown, TcpStream},
    sync::Arc,
    thread,
    time::{Duration, Instant},
};

use wsproxy::datapath::{Ending, Farewell, FramePlan, Frames, Mode, Path, Terms, Which};
use wsproxy_common::{Reason, layout::PIECES};
use wsproxy_tests::{
    frames::{Reader, Sent, Talk, close, counted, frame},
    link::{Lossy, Plan},
    namespaces::{Family, Net},
    routed::{End as _, Gateway, PATIENCE},
    sessions::{kernel_expected, wait_for},
};

/// Messages that each side sends before it is looked what was lost.
const MESSAGES: usize = 60;
/// A header that was lost has to be seen in this time; it takes a second.
const LATEST: Duration = Duration::from_secs(60);

/// Payload of the last frame of a talk.
const NO_MORE: &[u8] = b"no more";

fn terms() -> Terms {
    terms_of(false)
}

fn terms_of(enforce: bool) -> Terms {
    let plan = FramePlan { ping: None, enforce, max_frame: 0, max_message: 0, gone_code: 1014 };
    Terms { frames: Some(Frames { plan: Arc::new(plan), allowed_rsv: 0 }), ..Terms::default() }
}

/// One end of a session: what it says, and what it hears.
struct Party {
    socket: TcpStream,
    reader: Reader,
    talk: Talk,
    masked: bool,
}

impl Party {
    fn new(socket: &TcpStream, masked: bool, seed: u64, most: usize) -> Self {
        Self {
            socket: socket.try_clone().unwrap(),
            reader: Reader::new(socket, !masked),
            talk: Talk::new(seed, masked, most),
            masked,
        }
    }

    fn say(&mut self, bytes: &[u8]) {
        self.socket.send(bytes).unwrap();
    }

    /// Counts a frame that the random talk has not made.
    fn greet(&mut self) {
        self.say(&frame(0x81, self.masked, b"hello"));
        self.talk.sent.frames += 1;
        self.talk.sent.texts += 1;
        self.talk.sent.text_bytes += 5;
    }

    /// A Pong that says that this was all; no other one has so many bytes.
    fn say_that_this_was_all(&mut self) {
        self.say(&frame(0x8A, self.masked, NO_MORE));
        self.talk.sent.frames += 1;
        self.talk.sent.pongs += 1;
        self.talk.sent.control_bytes += NO_MORE.len() as u64;
    }

    fn say_goodbye(&mut self, code: u16) {
        self.say(&close(self.masked, code, ""));
        self.talk.sent.frames += 1;
        self.talk.sent.control_bytes += 2;
    }

    fn hear_all(&mut self) {
        while self.reader.frame().expect("a frame").payload != NO_MORE {}
    }

    fn hear(&mut self) -> u8 {
        self.reader.frame().expect("a frame").opcode()
    }
}

fn path(gateway: &Gateway<'_>, id: u64) -> Option<Path> {
    let sessions = gateway.bench.datapath.sessions();
    sessions.iter().find(|session| session.meta.id == id).map(|session| session.path)
}

/// Greetings to and fro until the packets are translated.
fn warm(gateway: &Gateway<'_>, id: u64, [client, server]: [&mut Party; 2]) {
    let there = wait_for(PATIENCE, || {
        client.greet();
        server.hear();
        server.greet();
        client.hear();
        (path(gateway, id) == Some(Path::Packet)).then_some(())
    });
    there.unwrap_or_else(|| panic!("{:?}", gateway.bench.datapath.sessions()));
}

/// Both sides talk at once, without waiting for each other.
fn talk(parties: [&mut Party; 2]) {
    let sockets = parties.each_ref().map(|party| party.socket.try_clone().unwrap());
    let [client, server] = parties;
    thread::scope(|scope| {
        for (party, socket) in [(client, &sockets[0]), (server, &sockets[1])] {
            let Party { reader, talk, .. } = party;
            scope.spawn(move || {
                for _ in 0..MESSAGES {
                    socket.send(&talk.message()).unwrap();
                }
                socket.send(&frame(0x8A, talk.is_masked(), NO_MORE)).unwrap();
                talk.sent.frames += 1;
                talk.sent.pongs += 1;
                talk.sent.control_bytes += NO_MORE.len() as u64;
            });
            scope.spawn(move || while reader.frame().expect("a frame").payload != NO_MORE {});
        }
    });
}

fn reason(gateway: &Gateway<'_>, which: Reason) -> u64 {
    let reasons = gateway.bench.datapath.reasons();
    reasons.iter().find(|(reason, _)| *reason == which).map_or(0, |(_, count)| *count)
}

/// Talks over bad links until headers were lost, and compares what was counted.
fn with_frames_of(most: usize, plan: Plan) {
    if !kernel_expected() {
        return;
    }
    let net = Net::one_by_one(1500);
    net.recover_quickly();
    Gateway::run(&net, Mode::Packet, |gateway| {
        let mut links = Lossy::everywhere(&net, Plan::default());
        for family in net.families() {
            let (id, client, server) = gateway.framed_session(*family, terms());
            let [mut client, mut server] = [(client, true, 1), (server, false, 2)]
                .map(|(socket, masked, seed)| Party::new(&socket, masked, seed, most));
            warm(gateway, id, [&mut client, &mut server]);
            let set = |links: &mut [Lossy<'_>], plan: Plan| {
                for (link, number) in links.iter_mut().zip(1..) {
                    link.set(Plan { seed: plan.seed * 4 + number, ..plan });
                }
            };
            set(&mut links, plan);
            let (before, begin) = (reason(gateway, Reason::Kept), Instant::now());
            while reason(gateway, Reason::Kept) < before + 5 {
                assert!(begin.elapsed() < LATEST, "no header was lost: {links:?}");
                talk([&mut client, &mut server]);
                assert_eq!(path(gateway, id), Some(Path::Packet), "it left the packet path");
            }
            set(&mut links, Plan::default());
            end_in_order(gateway, id, client, server);
        }
    });
}

/// Close frames to and fro; all that was sent was counted, and nothing else.
fn end_in_order(gateway: &Gateway<'_>, id: u64, mut client: Party, mut server: Party) {
    let last = path(gateway, id);
    for (party, code) in [(&mut client, 1000), (&mut server, 1001)] {
        party.say_goodbye(code);
    }
    assert_eq!((client.hear(), server.hear()), (8, 8));
    client.socket.shutdown(Shutdown::Write).unwrap();
    server.socket.shutdown(Shutdown::Write).unwrap();
    let end = gateway.end_of(id);
    let sent = (client.talk.sent, server.talk.sent);
    assert_eq!((counted(&end, 0), counted(&end, 1)), sent, "{end:?}");
    assert_eq!((end.codes.of_client, end.codes.of_upstream), (1000, 1001));
    assert_eq!((end.violations, Some(end.path)), ([0; 2], last), "{end:?}");
}

const LOSS: Plan = Plan {
    seed: 5,
    drop: 0.02,
    duplicate: 0.0,
    reorder: 0.0,
    delay: None,
    port: None,
    only_payload: false,
};

/// Many headers in a packet, and what is behind a lost one has to be read from what was kept.
#[test]
fn small_frames_over_a_lossy_link() {
    with_frames_of(300, LOSS);
}

#[test]
fn large_frames_over_a_lossy_link() {
    with_frames_of(64 << 10, LOSS);
}

#[test]
fn frames_of_every_size_where_packets_come_twice_and_late() {
    with_frames_of(8 << 10, Plan { seed: 9, duplicate: 0.05, reorder: 0.05, ..LOSS });
}

/// A frame of the client that is lost, and `after` more that are not, at once: each in a packet of
/// its own, as far as TCP lets so many go. The client hears of the hole so late that it does not
/// fill it before they have gone.
fn lose_one(links: &mut [Lossy<'_>; 4], client: &mut Party, after: usize) {
    const LATE: Duration = Duration::from_millis(100);
    links[1].set(Plan { delay: Some((LATE, LATE)), ..Plan::default() });
    links[0].set(Plan { drop: 1.0, only_payload: true, ..Plan::default() });
    client.greet();
    links[0].set(Plan::default());
    for _ in 0..after {
        client.greet();
    }
}

/// Loses frames of the client until copies are kept of what came behind one; that hole stays open.
fn open_hole(
    gateway: &Gateway<'_>,
    links: &mut [Lossy<'_>; 4],
    client: &mut Party,
    server: &mut Party,
) {
    let begin = Instant::now();
    while reason(gateway, Reason::Kept) == 0 {
        assert!(begin.elapsed() < LATEST, "no header was lost: {links:?}");
        lose_one(links, client, 5);
        client.say_that_this_was_all();
        if reason(gateway, Reason::Kept) == 0 {
            server.hear_all();
        }
    }
}

/// What is lost on four links that lose nothing by themselves.
fn with_holes(terms: Terms, test: impl FnOnce(&Gateway<'_>, &mut [Lossy<'_>; 4], Talkers) + Send) {
    if !kernel_expected() {
        return;
    }
    let net = Net::one_by_one(1500);
    Gateway::run(&net, Mode::Packet, |gateway| {
        let mut links = Lossy::everywhere(&net, Plan::default());
        let (id, client, server) = gateway.framed_session(Family::V4, terms);
        let [mut client, mut server] = [(client, true, 1), (server, false, 2)]
            .map(|(socket, masked, seed)| Party::new(&socket, masked, seed, 64 << 10));
        warm(gateway, id, [&mut client, &mut server]);
        test(gateway, &mut links, Talkers { id, client, server });
    });
}

/// A session on the packet path.
struct Talkers {
    id: u64,
    client: Party,
    server: Party,
}

/// More packets behind a hole than there is room for: those are dropped, and come again.
#[test]
fn what_finds_no_room_comes_again() {
    with_holes(terms(), |gateway, links, Talkers { id, mut client, mut server }| {
        let begin = Instant::now();
        while reason(gateway, Reason::NotKept) == 0 {
            assert!(begin.elapsed() < LATEST, "there was room for all: {links:?}");
            links[1].set(Plan::default());
            // So that TCP lets many packets go.
            talk([&mut client, &mut server]);
            lose_one(links, &mut client, 3 * PIECES);
            client.say_that_this_was_all();
            server.hear_all();
        }
        assert!(reason(gateway, Reason::Kept) >= PIECES as u64);
        assert_eq!(path(gateway, id), Some(Path::Packet), "it left the packet path");
        links[1].set(Plan::default());
        end_in_order(gateway, id, client, server);
    });
}

/// Nothing goes on behind a hole where a rule is enforced: the session leaves the packet path.
#[test]
fn where_rules_are_enforced_the_session_comes_back() {
    with_holes(terms_of(true), |gateway, links, Talkers { id, mut client, mut server }| {
        let begin = Instant::now();
        while path(gateway, id) == Some(Path::Packet) {
            assert!(begin.elapsed() < LATEST, "no header was lost: {links:?}");
            lose_one(links, &mut client, 5);
            client.say_that_this_was_all();
            server.hear_all();
        }
        assert_eq!((reason(gateway, Reason::Kept), reason(gateway, Reason::NotKept)), (0, 0));
        let fell_back = std::mem::take(&mut *gateway.bench.record.fallbacks.lock().unwrap());
        assert_eq!(fell_back, ["packet_came_back"]);
        links[1].set(Plan::default());
        end_in_order(gateway, id, client, server);
    });
}

/// The gateway closes a session of which copies are kept: it comes back to its sockets when the
/// hole is filled, and its cursor stands where the sockets do.
#[test]
fn a_session_with_a_hole_comes_back_when_that_is_filled() {
    with_holes(terms(), |gateway, links, Talkers { id, mut client, mut server }| {
        open_hole(gateway, links, &mut client, &mut server);
        let all: Which = Arc::new(|_| true);
        let now = Some(Duration::ZERO);
        gateway.bench.datapath.close(&all, Ending::Closed, &Farewell::default(), now);
        server.hear_all();
        assert_eq!((client.hear(), server.hear()), (8, 8));
        for party in [&mut client, &mut server] {
            party.say_goodbye(1001);
        }
        links[1].set(Plan::default());
        client.socket.shutdown(Shutdown::Write).unwrap();
        assert_eq!((client.reader.frame(), server.reader.frame()), (None, None));
        server.socket.shutdown(Shutdown::Write).unwrap();
        let end = gateway.end_of(id);
        assert_eq!((end.ending, end.reset), (Ending::Closed, false));
        assert_ne!(end.path, Path::Packet);
        // Answers to a Close of ours are in no count.
        let of = |sent: Sent| (sent.texts, sent.text_bytes, sent.binaries, sent.pongs);
        assert_eq!(of(counted(&end, 0)), of(client.talk.sent), "{end:?}");
        assert_eq!(end.violations, [0; 2]);
    });
}

/// A session that breaks while copies of it are kept leaves nothing that the next one stumbles
/// over.
#[test]
fn a_session_may_end_with_a_hole() {
    with_holes(terms(), |gateway, links, Talkers { id, mut client, mut server }| {
        let begin = Instant::now();
        open_hole(gateway, links, &mut client, &mut server);
        let linger = socket2::SockRef::from(&server.socket).set_linger(Some(Duration::ZERO));
        linger.unwrap();
        drop(server);
        assert_eq!(gateway.end_of(id).ending, Ending::UpstreamBroke);
        links[1].set(Plan::default());
        let (id, client, server) = gateway.framed_session(Family::V4, terms());
        let [mut client, mut server] = [(client, true, 3), (server, false, 4)]
            .map(|(socket, masked, seed)| Party::new(&socket, masked, seed, 300));
        warm(gateway, id, [&mut client, &mut server]);
        let before = reason(gateway, Reason::Kept);
        while reason(gateway, Reason::Kept) == before {
            assert!(begin.elapsed() < LATEST, "no header was lost: {links:?}");
            lose_one(links, &mut client, 5);
            client.say_that_this_was_all();
            server.hear_all();
        }
        links[1].set(Plan::default());
        end_in_order(gateway, id, client, server);
    });
}

/// A server that ends after its client has, without a Close on either side: nobody has to be told,
/// so its FIN goes on.
#[test]
fn a_fin_that_answers_one_is_not_held() {
    if !kernel_expected() {
        return;
    }
    Gateway::run(&Net::new(1500), Mode::Packet, |gateway| {
        let (id, client, server) = gateway.framed_session(Family::V4, terms());
        let mut parties = [(&client, true), (&server, false)]
            .map(|(socket, masked)| Party::new(socket, masked, 1, 100));
        let [one, other] = &mut parties;
        warm(gateway, id, [one, other]);
        client.finish().unwrap();
        assert_eq!(other.reader.frame(), None);
        server.finish().unwrap();
        assert_eq!(one.reader.frame(), None);
        let end = gateway.end_of(id);
        assert_eq!((end.ending, end.path), (Ending::ClientFinished, Path::Packet), "{end:?}");
    });
}
