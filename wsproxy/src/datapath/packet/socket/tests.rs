//! Real sockets on loopback: A is the peer, which knows of nothing; B is ours, accepted from a
//! listener that goes on listening on the same port.

use std::{
    io::{ErrorKind, Read, Write},
    net::{Ipv4Addr, Ipv6Addr, Shutdown, TcpListener, TcpStream},
    os::fd::AsRawFd,
    thread,
    time::{Duration, Instant},
};

use socket2::{Domain, Socket, TcpKeepalive, Type};

use super::*;

/// How long the peer is listened to where nothing may come.
const SILENCE: Duration = Duration::from_millis(200);
/// How long anything that must come may take.
const DEADLINE: Duration = Duration::from_secs(20);

/// Whether there is no privilege to test with; root must have it.
fn skipped() -> bool {
    let skipped = !rustix::process::geteuid().is_root();
    if skipped {
        eprintln!("!!! SKIPPED: repair mode needs root");
    }
    skipped
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Family {
    V4,
    V6,
    /// IPv4, accepted by an IPv6 socket.
    Mapped,
}

const FAMILIES: [Family; 3] = [Family::V4, Family::V6, Family::Mapped];

struct Pair {
    listener: TcpListener,
    a: TcpStream,
    b: TcpStream,
}

fn listen(family: Family, port: u16) -> TcpListener {
    let (domain, address): (_, SocketAddr) = match family {
        Family::V4 => (Domain::IPV4, (Ipv4Addr::LOCALHOST, port).into()),
        Family::V6 => (Domain::IPV6, (Ipv6Addr::LOCALHOST, port).into()),
        Family::Mapped => (Domain::IPV6, (Ipv6Addr::UNSPECIFIED, port).into()),
    };
    let socket = Socket::new(domain, Type::STREAM, None).unwrap();
    socket.set_reuse_address(true).unwrap();
    if family == Family::Mapped {
        socket.set_only_v6(false).unwrap();
    }
    socket.bind(&address.into()).unwrap();
    socket.listen(16).unwrap();
    socket.into()
}

fn pair(family: Family) -> Pair {
    pair_with(family, None)
}

/// `mss`: the most that A accepts in a segment.
fn pair_with(family: Family, mss: Option<u32>) -> Pair {
    let listener = listen(family, 0);
    let port = listener.local_addr().unwrap().port();
    let ip: IpAddr = match family {
        Family::V6 => Ipv6Addr::LOCALHOST.into(),
        Family::V4 | Family::Mapped => Ipv4Addr::LOCALHOST.into(),
    };
    let a = Socket::new(Domain::for_address((ip, port).into()), Type::STREAM, None).unwrap();
    if let Some(mss) = mss {
        a.set_tcp_mss(mss).unwrap();
    }
    a.connect(&SocketAddr::from((ip, port)).into()).unwrap();
    let a = TcpStream::from(a);
    let (b, _) = listener.accept().unwrap();
    for end in [&a, &b] {
        end.set_read_timeout(Some(DEADLINE)).unwrap();
        end.set_write_timeout(Some(DEADLINE)).unwrap();
        end.set_nodelay(true).unwrap();
    }
    Pair { listener, a, b }
}

fn freeze_soon(socket: &TcpStream) -> Frozen {
    let end = Instant::now() + DEADLINE;
    loop {
        if let Some(frozen) = freeze(socket.as_fd()).unwrap() {
            return frozen;
        }
        assert!(Instant::now() < end, "never quiet: {:?}", facts(socket.as_fd()));
        thread::sleep(Duration::from_millis(1));
    }
}

/// The same connection again.
fn again(socket: &TcpStream, frozen: &Frozen) -> Revival {
    let facts = facts(socket.as_fd()).unwrap();
    Revival {
        local: socket.local_addr().unwrap(),
        peer: socket.peer_addr().unwrap(),
        snd_seq: frozen.snd_seq,
        rcv_seq: frozen.rcv_seq,
        mss: frozen.mss,
        timestamps: facts.timestamps.then_some(frozen.timestamp),
        sack: facts.sack,
        window_scale: facts.window_scale,
        window: frozen.window,
        keepalive: frozen.keepalive,
        transparent: false,
        device: None,
    }
}

fn say(from: &mut TcpStream, to: &mut TcpStream, what: &[u8]) {
    from.write_all(what).unwrap();
    let mut got = vec![0; what.len()];
    to.read_exact(&mut got).unwrap();
    assert_eq!(got, what);
}

/// A few bytes both ways, so that the sequence numbers are not those of the handshake.
fn greet(pair: &mut Pair) {
    say(&mut pair.a, &mut pair.b, b"from a");
    say(&mut pair.b, &mut pair.a, b"from b");
}

/// `bytes` from one to the other, while the other reads.
fn stream(mut from: &TcpStream, mut to: &TcpStream, bytes: usize) {
    let sent: Vec<u8> = (0..bytes).map(|at| ((at * 31) >> 3) as u8).collect();
    thread::scope(|scope| {
        scope.spawn(|| from.write_all(&sent).unwrap());
        let mut got = vec![0; bytes];
        to.read_exact(&mut got).unwrap();
        assert!(got == sent);
    });
}

fn end_in_order(pair: &mut Pair) {
    let Pair { a, b, .. } = pair;
    b.shutdown(Shutdown::Write).unwrap();
    assert_eq!(a.read(&mut [0; 8]).unwrap(), 0);
    say(a, b, b"the other way still goes");
    a.shutdown(Shutdown::Write).unwrap();
    assert_eq!(b.read(&mut [0; 8]).unwrap(), 0);
}

fn assert_hears_nothing(mut end: &TcpStream) {
    end.set_read_timeout(Some(SILENCE)).unwrap();
    let error = end.read(&mut [0; 8]).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::WouldBlock, "{error}");
    end.set_read_timeout(Some(DEADLINE)).unwrap();
}

fn eventually(what: &str, mut holds: impl FnMut() -> bool) {
    let end = Instant::now() + DEADLINE;
    while !holds() {
        assert!(Instant::now() < end, "never: {what}");
        thread::sleep(Duration::from_millis(1));
    }
}

#[test]
fn facts_of_both_ends_agree() {
    for family in FAMILIES {
        let mut pair = pair(family);
        greet(&mut pair);
        let (a, b) = (facts(pair.a.as_fd()).unwrap(), facts(pair.b.as_fd()).unwrap());
        assert!(a.established && b.established && !a.microseconds);
        let setting = |name: &str| {
            let text = std::fs::read_to_string(format!("/proc/sys/net/ipv4/{name}")).unwrap();
            text.trim() != "0"
        };
        assert_eq!((a.timestamps, b.timestamps), (setting("tcp_timestamps"), a.timestamps));
        assert_eq!((a.sack, b.sack), (setting("tcp_sack"), a.sack));
        assert_eq!(a.window_scale.is_some(), setting("tcp_window_scaling"));
        assert_eq!(a.window_scale.map(|(snd, rcv)| (rcv, snd)), b.window_scale);
        assert_eq!(a.ecn, b.ecn);
        assert!(a.pmtu > 1000 && a.snd_mss < a.pmtu && a.advmss < a.pmtu && a.rcv_mss > 0);
        eventually("acknowledged", || facts(pair.b.as_fd()).unwrap().unacknowledged == 0);
        pair.a.shutdown(Shutdown::Write).unwrap();
        eventually("CLOSE_WAIT", || !facts(pair.b.as_fd()).unwrap().established);
    }
}

#[test]
fn a_frozen_socket_thaws_where_it_was() {
    if skipped() {
        return;
    }
    for family in FAMILIES {
        let mut pair = pair(family);
        greet(&mut pair);
        let frozen = freeze_soon(&pair.b);
        assert!(frozen.is_still_quiet(pair.b.as_fd()).unwrap());
        assert!(frozen.reuse_address && !frozen.keepalive);
        assert_hears_nothing(&pair.a);
        unfreeze(pair.b.as_fd(), &frozen).unwrap();
        assert!(SockRef::from(&pair.b).reuse_address().unwrap());
        greet(&mut pair);
        end_in_order(&mut pair);
    }
}

#[test]
fn what_comes_to_a_frozen_socket_is_seen_and_kept() {
    if skipped() {
        return;
    }
    let mut pair = pair(Family::V4);
    greet(&mut pair);
    let frozen = freeze_soon(&pair.b);
    pair.a.write_all(b"late").unwrap();
    eventually("not quiet", || !frozen.is_still_quiet(pair.b.as_fd()).unwrap());
    unfreeze(pair.b.as_fd(), &frozen).unwrap();
    let mut got = [0; 4];
    pair.b.read_exact(&mut got).unwrap();
    assert_eq!(&got, b"late");
}

#[test]
fn unread_bytes_keep_a_socket_from_freezing() {
    if skipped() {
        return;
    }
    let mut pair = pair(Family::V4);
    greet(&mut pair);
    SockRef::from(&pair.b).set_keepalive(true).unwrap();
    pair.a.write_all(b"unread").unwrap();
    eventually("arrived", || pair.b.peek(&mut [0; 8]).unwrap() == 6);
    assert_eq!(freeze(pair.b.as_fd()).unwrap(), None);
    let options = SockRef::from(&pair.b);
    assert!(options.keepalive().unwrap() && options.reuse_address().unwrap());
    let mut got = [0; 6];
    pair.b.read_exact(&mut got).unwrap();
    assert_eq!(&got, b"unread");
    greet(&mut pair);
}

#[test]
fn unacknowledged_bytes_keep_a_socket_from_freezing() {
    if skipped() {
        return;
    }
    let mut pair = pair(Family::V4);
    pair.b.set_nonblocking(true).unwrap();
    let mut sent = 0;
    // Until A's window is closed.
    loop {
        match pair.b.write(&[7; 1 << 16]) {
            Ok(n) => sent += n,
            Err(error) if error.kind() == ErrorKind::WouldBlock => break,
            Err(error) => panic!("{error}"),
        }
    }
    pair.b.set_nonblocking(false).unwrap();
    assert_eq!(freeze(pair.b.as_fd()).unwrap(), None);
    let mut got = vec![0; sent];
    pair.a.read_exact(&mut got).unwrap();
    assert!(got.iter().all(|byte| *byte == 7));
    let frozen = freeze_soon(&pair.b);
    unfreeze(pair.b.as_fd(), &frozen).unwrap();
    greet(&mut pair);
}

/// Bytes behind a hole are in no queue that `SIOCINQ` counts, but their sender may have been told
/// that they are here.
#[test]
fn bytes_behind_a_hole_keep_a_socket_from_freezing() {
    if skipped() {
        return;
    }
    let mut pair = pair(Family::V4);
    greet(&mut pair);
    let frozen = freeze_soon(&pair.a);
    let mut ahead = again(&pair.a, &frozen);
    ahead.snd_seq = ahead.snd_seq.wrapping_add(10);
    revive(pair.a.as_fd(), &ahead).unwrap();
    pair.a.write_all(b"ahead").unwrap();
    eventually("not quiet", || match freeze(pair.b.as_fd()).unwrap() {
        Some(frozen) => {
            unfreeze(pair.b.as_fd(), &frozen).unwrap();
            false
        }
        None => true,
    });
    assert_eq!(rustix::io::ioctl_fionread(&pair.b).unwrap(), 0);
}

#[test]
fn a_half_closed_socket_is_not_frozen() {
    if skipped() {
        return;
    }
    for ours in [true, false] {
        let mut pair = pair(Family::V4);
        greet(&mut pair);
        if ours { &pair.b } else { &pair.a }.shutdown(Shutdown::Write).unwrap();
        eventually("not ESTABLISHED", || !facts(pair.b.as_fd()).unwrap().established);
        eventually("acknowledged", || unacknowledged(pair.b.as_fd()).unwrap() == 0);
        assert_eq!(freeze(pair.b.as_fd()).unwrap(), None);
    }
}

/// A delayed acknowledgement takes 40 ms at least. One round in which it came at once is proof,
/// however busy the machine is.
#[test]
fn freezing_sends_the_acknowledgement_that_the_peer_waits_for() {
    if skipped() {
        return;
    }
    let mut pair = pair(Family::V4);
    greet(&mut pair);
    let at_once = (0..50).any(|_| {
        sockopt::set_tcp_quickack(&pair.b, false).unwrap();
        say(&mut pair.a, &mut pair.b, b"x");
        let start = Instant::now();
        let frozen = freeze(pair.b.as_fd()).unwrap();
        eventually("acknowledged", || unacknowledged(pair.a.as_fd()).unwrap() == 0);
        let took = start.elapsed();
        if let Some(frozen) = frozen {
            unfreeze(pair.b.as_fd(), &frozen).unwrap();
        }
        frozen.is_some() && took < Duration::from_millis(20)
    });
    assert!(at_once);
}

#[test]
fn freezing_is_quick() {
    if skipped() {
        return;
    }
    let mut pair = pair(Family::V4);
    greet(&mut pair);
    let mut took: Vec<(Duration, Duration)> = (0..500)
        .map(|_| {
            let start = Instant::now();
            let frozen = freeze_soon(&pair.b);
            let frozen_after = start.elapsed();
            unfreeze(pair.b.as_fd(), &frozen).unwrap();
            (frozen_after, start.elapsed() - frozen_after)
        })
        .collect();
    took.sort();
    eprintln!("freeze, unfreeze: median {:?}, slowest {:?}", took[250], took[499]);
}

#[test]
fn a_socket_is_revived_in_place() {
    if skipped() {
        return;
    }
    for family in FAMILIES {
        let mut pair = pair(family);
        greet(&mut pair);
        let before = facts(pair.b.as_fd()).unwrap();
        let frozen = freeze_soon(&pair.b);
        let revival = again(&pair.b, &frozen);
        revive(pair.b.as_fd(), &revival).unwrap();
        let after = facts(pair.b.as_fd()).unwrap();
        let agreed = |facts: Facts| (facts.timestamps, facts.sack, facts.window_scale, facts.pmtu);
        assert!(after.established);
        assert_eq!(agreed(after), agreed(before));
        assert_eq!(pair.b.local_addr().unwrap(), revival.local);
        assert_eq!(pair.b.peer_addr().unwrap(), revival.peer);
        greet(&mut pair);
        stream(&pair.b, &pair.a, 1 << 20);
        stream(&pair.a, &pair.b, 1 << 20);
        end_in_order(&mut pair);
    }
}

/// Without a handshake the kernel reckons with 536 bytes.
#[test]
fn segments_are_as_large_as_before() {
    if skipped() {
        return;
    }
    for family in FAMILIES {
        for mss in [1380, 32_000] {
            let mut pair = pair_with(family, Some(mss));
            greet(&mut pair);
            let before = facts(pair.b.as_fd()).unwrap();
            let frozen = freeze_soon(&pair.b);
            assert_eq!(u32::from(frozen.mss), mss);
            revive(pair.b.as_fd(), &again(&pair.b, &frozen)).unwrap();
            greet(&mut pair);
            assert_eq!(facts(pair.b.as_fd()).unwrap().snd_mss, before.snd_mss);
            let now = freeze_soon(&pair.b);
            assert_eq!(now.mss, frozen.mss);
        }
    }
}

#[test]
fn a_socket_is_revived_many_times_and_its_listener_can_be_replaced() {
    if skipped() {
        return;
    }
    let mut pair = pair(Family::V4);
    for _ in 0..5 {
        greet(&mut pair);
        let frozen = freeze_soon(&pair.b);
        revive(pair.b.as_fd(), &again(&pair.b, &frozen)).unwrap();
    }
    let port = pair.listener.local_addr().unwrap().port();
    drop(pair.listener);
    pair.listener = listen(Family::V4, port);
    let frozen = freeze_soon(&pair.b);
    let revival = again(&pair.b, &frozen);
    drop(pair.listener);
    pair.listener = listen(Family::V4, port);
    revive(pair.b.as_fd(), &revival).unwrap();
    greet(&mut pair);
    end_in_order(&mut pair);
}

#[test]
fn an_outgoing_connection_is_revived_too() {
    if skipped() {
        return;
    }
    for family in FAMILIES {
        let mut pair = pair(family);
        greet(&mut pair);
        let frozen = freeze_soon(&pair.a);
        revive(pair.a.as_fd(), &again(&pair.a, &frozen)).unwrap();
        greet(&mut pair);
        stream(&pair.a, &pair.b, 1 << 20);
        end_in_order(&mut pair);
    }
}

#[test]
fn wrong_numbers_do_not_work() {
    if skipped() {
        return;
    }
    let mut pair = pair(Family::V4);
    greet(&mut pair);
    let frozen = freeze_soon(&pair.b);
    let mut wrong = again(&pair.b, &frozen);
    wrong.snd_seq = wrong.snd_seq.wrapping_add(1000);
    revive(pair.b.as_fd(), &wrong).unwrap();
    pair.b.write_all(b"nobody knows these").unwrap();
    assert_hears_nothing(&pair.a);
    wrong.window.max_window = wrong.window.snd_wnd - 1;
    assert!(revive(pair.b.as_fd(), &wrong).is_err());
}

#[test]
fn a_closed_window_is_asked_about() {
    if skipped() {
        return;
    }
    let mut pair = pair(Family::V4);
    greet(&mut pair);
    let frozen = freeze_soon(&pair.b);
    let mut closed = again(&pair.b, &frozen);
    closed.window.snd_wnd = 0;
    revive(pair.b.as_fd(), &closed).unwrap();
    // The peer's answer to the probe says it, although nothing was sent.
    eventually("the window is known", || {
        let now = freeze_soon(&pair.b);
        unfreeze(pair.b.as_fd(), &now).unwrap();
        now.window.snd_wnd != 0
    });
    greet(&mut pair);
}

#[test]
fn epoll_goes_on_watching_a_revived_socket() {
    use rustix::event::{Timespec, epoll};
    if skipped() {
        return;
    }
    let mut pair = pair(Family::V4);
    greet(&mut pair);
    let watch = epoll::create(epoll::CreateFlags::CLOEXEC).unwrap();
    let flags = epoll::EventFlags::IN | epoll::EventFlags::RDHUP | epoll::EventFlags::ET;
    epoll::add(&watch, &pair.b, epoll::EventData::new_u64(7), flags).unwrap();
    let wait = |within: Duration| {
        let mut events = Vec::with_capacity(8);
        let within = Timespec::try_from(within).unwrap();
        epoll::wait(&watch, rustix::buffer::spare_capacity(&mut events), Some(&within)).unwrap();
        events.iter().map(|event| (event.data.u64(), event.flags)).collect::<Vec<_>>()
    };
    let frozen = freeze_soon(&pair.b);
    revive(pair.b.as_fd(), &again(&pair.b, &frozen)).unwrap();
    assert_eq!(wait(SILENCE), [], "the revival itself must not look like an event");
    pair.a.write_all(b"x").unwrap();
    assert_eq!(wait(DEADLINE), [(7, epoll::EventFlags::IN)]);
    pair.b.read_exact(&mut [0]).unwrap();
    pair.a.shutdown(Shutdown::Write).unwrap();
    assert_eq!(wait(DEADLINE), [(7, epoll::EventFlags::IN | epoll::EventFlags::RDHUP)]);
}

#[test]
fn options_stay_as_they_were() {
    if skipped() {
        return;
    }
    let mut pair = pair(Family::V4);
    greet(&mut pair);
    let options = SockRef::from(&pair.b);
    let keepalive = TcpKeepalive::new()
        .with_time(Duration::from_secs(77))
        .with_interval(Duration::from_secs(11))
        .with_retries(5);
    options.set_tcp_keepalive(&keepalive).unwrap();
    options.set_tcp_user_timeout(Some(Duration::from_secs(33))).unwrap();
    options.set_tcp_notsent_lowat(12_345).unwrap();
    options.set_recv_buffer_size(100_000).unwrap();
    options.set_send_buffer_size(100_000).unwrap();
    options.set_tos_v4(0x10).unwrap();
    options.set_nonblocking(true).unwrap();
    let all = |socket: &TcpStream| {
        let s = SockRef::from(socket);
        let numbers = [
            u64::from(s.keepalive().unwrap()),
            u64::from(s.reuse_address().unwrap()),
            u64::from(s.tcp_nodelay().unwrap()),
            s.tcp_keepalive_time().unwrap().as_secs(),
            s.tcp_keepalive_interval().unwrap().as_secs(),
            u64::from(s.tcp_keepalive_retries().unwrap()),
            s.tcp_user_timeout().unwrap().unwrap().as_secs(),
            u64::from(s.tcp_notsent_lowat().unwrap()),
            s.recv_buffer_size().unwrap() as u64,
            s.send_buffer_size().unwrap() as u64,
            u64::from(s.tos_v4().unwrap()),
            u64::from(s.nonblocking().unwrap()),
        ];
        (numbers, s.tcp_congestion().unwrap(), socket.as_raw_fd())
    };
    let before = all(&pair.b);
    let frozen = freeze_soon(&pair.b);
    assert!(frozen.keepalive && !SockRef::from(&pair.b).keepalive().unwrap());
    unfreeze(pair.b.as_fd(), &frozen).unwrap();
    assert_eq!(all(&pair.b), before);
    let frozen = freeze_soon(&pair.b);
    revive(pair.b.as_fd(), &again(&pair.b, &frozen)).unwrap();
    assert_eq!(all(&pair.b), before);
}

#[test]
fn a_lost_socket_is_rebuilt() {
    if skipped() {
        return;
    }
    for family in FAMILIES {
        for stay_frozen in [false, true] {
            let mut pair = pair(family);
            greet(&mut pair);
            let frozen = freeze_soon(&pair.b);
            let revival = again(&pair.b, &frozen);
            close_silently(pair.b.into()).unwrap();
            let rebuilt = if stay_frozen {
                let rebuilt = rebuild_frozen(&revival).unwrap();
                assert_hears_nothing(&pair.a);
                // As it would come back from the packet path.
                revive(rebuilt.as_fd(), &revival).unwrap();
                rebuilt
            } else {
                rebuild(&revival).unwrap()
            };
            let flags = rustix::io::fcntl_getfd(&rebuilt).unwrap();
            assert!(flags.contains(rustix::io::FdFlags::CLOEXEC));
            pair.b = rebuilt.into();
            assert!(pair.b.nodelay().unwrap() && SockRef::from(&pair.b).nonblocking().unwrap());
            pair.b.set_nonblocking(false).unwrap();
            pair.b.set_read_timeout(Some(DEADLINE)).unwrap();
            greet(&mut pair);
            stream(&pair.b, &pair.a, 1 << 20);
            stream(&pair.a, &pair.b, 1 << 20);
            end_in_order(&mut pair);
        }
    }
}

#[test]
fn a_connection_that_is_there_is_not_rebuilt() {
    if skipped() {
        return;
    }
    let mut pair = pair(Family::V4);
    greet(&mut pair);
    let frozen = freeze_soon(&pair.b);
    let revival = again(&pair.b, &frozen);
    assert_eq!(rebuild(&revival).unwrap_err().raw_os_error(), Some(libc::EADDRNOTAVAIL));
    unfreeze(pair.b.as_fd(), &frozen).unwrap();
    greet(&mut pair);
}

#[test]
fn a_silent_close_is_silent() {
    if skipped() {
        return;
    }
    let mut pair = pair(Family::V4);
    greet(&mut pair);
    // Neither bytes that nobody read nor a linger time of 0 make a reset.
    pair.a.write_all(b"unread").unwrap();
    SockRef::from(&pair.b).set_linger(Some(Duration::ZERO)).unwrap();
    close_silently(pair.b.into()).unwrap();
    assert_hears_nothing(&pair.a);
}

#[test]
fn a_reset_of_a_revived_socket_reaches_the_peer() {
    if skipped() {
        return;
    }
    let mut pair = pair(Family::V4);
    greet(&mut pair);
    let frozen = freeze_soon(&pair.b);
    revive(pair.b.as_fd(), &again(&pair.b, &frozen)).unwrap();
    SockRef::from(&pair.b).set_linger(Some(Duration::ZERO)).unwrap();
    drop(pair.b);
    let error = pair.a.read(&mut [0; 8]).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::ConnectionReset, "{error}");
}

#[test]
fn foreign_addresses_and_devices_are_bound_to() {
    if skipped() {
        return;
    }
    const LOOPBACK: u32 = 1;
    for (local, peer) in [("192.0.2.1:40000", "127.0.0.1:9"), ("[2001:db8::1]:40000", "[::1]:9")] {
        let window = RepairWindow { snd_wnd: 9000, max_window: 9000, ..RepairWindow::default() };
        let mut revival = Revival {
            local: local.parse().unwrap(),
            peer: peer.parse().unwrap(),
            snd_seq: 1,
            rcv_seq: 1,
            mss: 1400,
            timestamps: None,
            sack: false,
            window_scale: None,
            window,
            keepalive: false,
            transparent: true,
            device: Some(LOOPBACK),
        };
        let socket = rebuild_frozen(&revival).unwrap();
        let end = TcpStream::from(socket);
        assert_eq!(end.local_addr().unwrap(), revival.local);
        assert_eq!(SockRef::from(&end).device().unwrap(), Some(b"lo".to_vec()));
        let facts = facts(end.as_fd()).unwrap();
        assert!(facts.established && !facts.timestamps && !facts.sack);
        assert_eq!(facts.window_scale, None);
        close_silently(end.into()).unwrap();
        revival.transparent = false;
        let refused = rebuild_frozen(&revival).unwrap_err();
        assert_eq!(refused.raw_os_error(), Some(libc::EADDRNOTAVAIL), "{refused}");
    }
}
