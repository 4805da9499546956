//! Freezing and what undoes it; closing in silence.

use super::*;

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
fn a_silent_close_is_silent() {
    if skipped() {
        return;
    }
    let mut pair = pair(Family::V4);
    greet(&mut pair);
    // Neither bytes that nobody read nor a linger time of 0 make a reset.
    pair.a.write_all(b"unread").unwrap();
    // What is sent again meets nobody, and that is answered.
    eventually("acknowledged", || unacknowledged(pair.a.as_fd()).unwrap() == 0);
    SockRef::from(&pair.b).set_linger(Some(Duration::ZERO)).unwrap();
    close_silently(pair.b.into()).unwrap();
    assert_hears_nothing(&pair.a);
}
