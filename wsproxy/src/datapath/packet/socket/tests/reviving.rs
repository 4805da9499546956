//! Connections that come to life without a handshake.

use std::os::fd::AsRawFd;

use socket2::TcpKeepalive;

use super::*;

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
        let agreed = |facts: Facts| {
            let Facts { timestamps, microseconds, sack, window_scale, pmtu, .. } = facts;
            (timestamps, microseconds, sack, window_scale, pmtu)
        };
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

/// Its window, as the socket notes it, grows when the peer is told.
#[test]
fn a_peer_that_waits_for_a_window_is_told() {
    if skipped() {
        return;
    }
    for family in FAMILIES {
        let mut pair = pair(family);
        greet(&mut pair);
        let frozen = freeze_soon(&pair.b);
        let mut revival = again(&pair.b, &frozen);
        revival.window = frozen.deaf();
        assert!(revival.keeps_waiting());
        revive(pair.b.as_fd(), &revival).unwrap();
        let now = freeze_soon(&pair.b);
        assert!(now.window.rcv_wnd > 0, "{now:?}");
        assert_eq!((now.rcv_seq, now.snd_seq), (frozen.rcv_seq, frozen.snd_seq));
        unfreeze(pair.b.as_fd(), &now).unwrap();
        greet(&mut pair);
        stream(&pair.a, &pair.b, 1 << 20);
        end_in_order(&mut pair);
    }
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
        let mut pair = pair(family);
        greet(&mut pair);
        let frozen = freeze_soon(&pair.b);
        let revival = again(&pair.b, &frozen);
        close_silently(pair.b.into()).unwrap();
        let rebuilt = rebuild_soon(&revival);
        assert_hears_nothing(&pair.a);
        // As it would come back from the packet path.
        revive(rebuilt.as_fd(), &revival).unwrap();
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

#[test]
fn a_connection_that_is_there_is_not_rebuilt() {
    if skipped() {
        return;
    }
    let mut pair = pair(Family::V4);
    greet(&mut pair);
    let frozen = freeze_soon(&pair.b);
    let revival = again(&pair.b, &frozen);
    assert_eq!(rebuild_frozen(&revival).unwrap_err().raw_os_error(), Some(libc::EADDRNOTAVAIL));
    unfreeze(pair.b.as_fd(), &frozen).unwrap();
    greet(&mut pair);
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
    // Another process may run this test too.
    let port = 20_000 + std::process::id() % 40_000;
    for (local, peer) in [("192.0.2.1", "127.0.0.1:9"), ("[2001:db8::1]", "[::1]:9")] {
        let window = RepairWindow { snd_wnd: 9000, max_window: 9000, ..RepairWindow::default() };
        let mut revival = Revival {
            local: format!("{local}:{port}").parse().unwrap(),
            peer: peer.parse().unwrap(),
            snd_seq: 1,
            rcv_seq: 1,
            mss: 1400,
            timestamps: None,
            sack: false,
            window_scale: Some((3, 9)),
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
        assert_eq!(facts.window_scale, revival.window_scale);
        close_silently(end.into()).unwrap();
        revival.transparent = false;
        let refused = rebuild_frozen(&revival).unwrap_err();
        assert_eq!(refused.raw_os_error(), Some(libc::EADDRNOTAVAIL), "{refused}");
    }
}

/// What reaches a host that knows no such connection is answered by a reset.
#[test]
fn nothing_is_sent_without_need() {
    if skipped() {
        return;
    }
    let mut pair = pair(Family::V4);
    greet(&mut pair);
    let frozen = freeze_soon(&pair.b);
    let acknowledged = freeze_soon(&pair.a);
    assert!(acknowledged.is_still_quiet(pair.a.as_fd()).unwrap());
    close_silently(pair.a.into()).unwrap();
    unfreeze(pair.b.as_fd(), &frozen).unwrap();
    assert_hears_nothing(&pair.b);
    let frozen = freeze_soon(&pair.b);
    let revival = again(&pair.b, &frozen);
    revive(pair.b.as_fd(), &revival).unwrap();
    assert_hears_nothing(&pair.b);
    close_silently(pair.b.into()).unwrap();
    let rebuilt = TcpStream::from(rebuild_soon(&revival));
    revive(rebuilt.as_fd(), &revival).unwrap();
    rebuilt.set_nonblocking(false).unwrap();
    assert_hears_nothing(&rebuilt);
}
