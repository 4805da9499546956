//! Sessions with TLS on either side: every byte, every end.

use std::{
    io::{ErrorKind, Read as _, Write as _},
    net::Shutdown,
    process::Command,
    thread,
};

use rustls::version;

use crate::{
    bench::{Bench, VARIANTS, at_once},
    front::open,
    support::{
        BINARY, Proxy, Server, TempDir, request, status, switch, wait_for,
        ws::{FROM_CLIENT, FROM_SERVER, Frames as _, TEXT, close, frame, parted},
    },
    tls_support::{End, client_config, listener_tls, local, pattern, same, secure, shake, text},
};

/// Most bytes that may be taken from a sender whose receiver reads nothing: the kernel's buffers
/// of two connections, and ours.
const STOPPED_BY: usize = 48 << 20;

fn moved(bench: &Bench, direction: &str, datapath: &str) -> u64 {
    let labels = format!("datapath=\"{datapath}\",direction=\"{direction}\"");
    bench.proxy.metric(&format!("wsproxy_session_bytes_total{{{labels}}}"))
}

#[test]
fn every_byte_arrives_in_both_directions_at_once() {
    for variant in VARIANTS {
        let bench = Bench::start(variant, "");
        let (mut client, mut upstream) = bench.session();
        bench.running(1);
        let sizes =
            [1, 2, 125, 126, 4_096, 16_383, 16_384, 16_385, 65_537, 262_145, 1 << 20, 5 << 20];
        let mut sum = 0;
        for (round, length) in sizes.into_iter().enumerate() {
            let there = pattern(length, round as u8);
            let back = pattern(length, round as u8 ^ 0xa5);
            let (their_there, their_back) = (there.clone(), back.clone());
            let other = thread::spawn(move || {
                same(&upstream.exchange(&their_back, their_there.len()), &their_there);
                upstream
            });
            same(&client.exchange(&there, back.len()), &back);
            upstream = other.join().unwrap();
            sum += length as u64;
        }
        for n in 0..300_u32 {
            let message = n.to_be_bytes();
            client.send(&message);
            upstream.expect(&message);
            upstream.send(&message);
            client.expect(&message);
            sum += 4;
        }
        client.finish();
        assert_eq!(upstream.rest(), b"");
        upstream.finish();
        assert_eq!(client.rest(), b"");
        bench.running(0);
        for direction in ["to_upstream", "to_client"] {
            assert_eq!(moved(&bench, direction, "relay"), sum, "{direction} {variant:?}");
            assert_eq!(moved(&bench, direction, "sockmap"), 0, "{direction} {variant:?}");
        }
        bench.proxy.stop();
    }
}

#[test]
fn early_bytes_arrive_without_anything_behind_them() {
    for variant in VARIANTS {
        let bench = Bench::start(variant, "");
        // Longer ones than a read of the handshake takes: the rest is in the TLS connection's own
        // buffers when the session begins, where no event of a socket tells of it.
        for length in [1, 100, 8_000, 9_000, 16_384, 20_000, 70_000] {
            let (there, back) = (pattern(length, 1), pattern(length, 2));
            let (mut client, mut upstream) = bench.session_with(&there, &back);
            upstream.expect(&there);
            client.expect(&back);
            client.send(b"and on");
            upstream.expect(b"and on");
            client.finish();
            assert_eq!(upstream.rest(), b"");
        }
        bench.running(0);
    }
}

#[test]
fn an_end_right_behind_the_request_is_not_lost() {
    for variant in VARIANTS {
        let bench = Bench::start(variant, "");
        let mut client = bench.client();
        client.send(&[request("").as_bytes(), b"all there is"].concat());
        client.finish();
        let mut upstream = bench.upstream();
        upstream.head();
        upstream.send(&[switch("").as_bytes(), b"all from here"].concat());
        upstream.finish();
        assert_eq!(status(&client.head()), 101);
        assert_eq!(client.rest(), b"all from here");
        assert_eq!(upstream.rest(), b"all there is");
        bench.running(0);
    }
}

#[test]
fn one_direction_ends_and_the_other_goes_on() {
    for variant in VARIANTS {
        let bench = Bench::start(variant, "");
        let last = pattern(400_000, 3);
        for client_first in [true, false] {
            let (client, upstream) = bench.session();
            let (mut first, mut second) =
                if client_first { (client, upstream) } else { (upstream, client) };
            first.send(b"my last words");
            first.finish();
            assert_eq!(second.rest(), b"my last words");
            for _ in 0..3 {
                second.send(b"but mine are not");
                first.expect(b"but mine are not");
            }
            let behind = last.clone();
            let writer = thread::spawn(move || {
                second.send(&behind);
                second.finish();
                second
            });
            same(&first.rest(), &last);
            drop(writer.join().unwrap());
        }
        bench.ends("client_finished", 1);
        bench.ends("upstream_finished", 1);
        bench.running(0);
    }
}

/// A FIN without a close_notify is an end like another: the frames tell whether it came too early.
#[test]
fn a_fin_without_a_close_notify_is_an_end() {
    for variant in VARIANTS {
        let bench = Bench::start(variant, "");
        for client_first in [true, false] {
            let (client, upstream) = bench.session();
            let (mut first, mut second) =
                if client_first { (client, upstream) } else { (upstream, client) };
            first.send(b"gone");
            first.link.socket().shutdown(Shutdown::Write).unwrap();
            assert_eq!(second.rest(), b"gone");
            second.send(b"still here");
            first.expect(b"still here");
            second.finish();
            assert_eq!(first.rest(), b"");
        }
        bench.running(0);
    }
}

#[test]
fn a_reset_reaches_the_other_side_as_one() {
    for variant in VARIANTS {
        let bench = Bench::start(variant, "gone_code = \"off\"");
        for client_first in [true, false] {
            let (mut client, mut upstream) = bench.session();
            client.send(b"ping");
            upstream.expect(b"ping");
            let (first, mut second) =
                if client_first { (client, upstream) } else { (upstream, client) };
            first.reset();
            assert_eq!(second.failure(), ErrorKind::ConnectionReset, "{variant:?}");
        }
        bench.ends("client_broke", 1);
        bench.ends("upstream_broke", 1);
        bench.running(0);
    }
}

/// The client hears of it in a Close frame and gets a close_notify; a server gets the reset.
#[test]
fn a_reset_between_frames_is_told_to_the_client() {
    for variant in VARIANTS {
        let bench = Bench::start(variant, "");
        for client_first in [true, false] {
            let (mut client, mut upstream) = bench.session();
            upstream.send(&frame(TEXT, FROM_SERVER, b"hello"));
            client.expect_frame(TEXT, FROM_SERVER, b"hello");
            if client_first {
                client.reset();
                assert_eq!(upstream.failure(), ErrorKind::ConnectionReset, "{variant:?}");
            } else {
                upstream.reset();
                client.expect_close(FROM_SERVER, 1014, "");
                client.send(&close(FROM_CLIENT, 1014, ""));
                assert_eq!(client.rest(), b"", "{variant:?}");
            }
        }
        bench.ends("client_broke", 1);
        bench.ends("upstream_broke", 1);
        bench.running(0);
    }
}

#[test]
fn who_is_not_read_is_stopped_and_loses_nothing() {
    for variant in &VARIANTS[..2] {
        let bench = Bench::start(*variant, "");
        for client_writes in [true, false] {
            let (client, upstream) = bench.session();
            let (mut writer, mut reader) =
                if client_writes { (client, upstream) } else { (upstream, client) };
            let bytes = pattern(1 << 20, client_writes.into());
            let sent = writer.send_until_stopped(&bytes, STOPPED_BY);
            // The other direction is not stopped.
            let against = b"against the stream";
            reader.send(against);
            same(&writer.exchange(b"", against.len()), against);
            let reading = thread::spawn(move || {
                let all = reader.rest();
                (all, reader)
            });
            writer.finish();
            let (all, mut reader) = reading.join().unwrap();
            assert_eq!(all.len(), sent);
            for part in all.chunks(bytes.len()) {
                same(part, &bytes[..part.len()]);
            }
            reader.finish();
            assert_eq!(writer.rest(), b"");
        }
        bench.running(0);
    }
}

#[test]
fn two_hundred_sessions_at_once_leave_nothing() {
    let bench = Bench::start(VARIANTS[3], "");
    // Whatever is opened once is open after this one.
    drop(bench.session());
    bench.running(0);
    let before = bench.descriptors();
    let mut groups: Vec<Vec<(End, End)>> = (0..8).map(|_| Vec::new()).collect();
    for number in 0..200 {
        groups[number % 8].push(bench.session());
    }
    bench.running(200);
    let threads: Vec<_> = groups
        .into_iter()
        .enumerate()
        .map(|(group, mut sessions)| {
            thread::spawn(move || {
                for round in 0..4 {
                    // All of a group are on their way before the first one is read.
                    let bytes = |at: usize| pattern(1_000 * (round + 1) + at, (group * 31) as u8);
                    for (at, (client, upstream)) in sessions.iter_mut().enumerate() {
                        client.send(&bytes(at));
                        upstream.send(&bytes(at + 1));
                    }
                    for (at, (client, upstream)) in sessions.iter_mut().enumerate() {
                        upstream.expect(&bytes(at));
                        client.expect(&bytes(at + 1));
                    }
                }
                for (client, upstream) in &mut sessions {
                    client.finish();
                    upstream.finish();
                    assert_eq!(client.rest(), b"");
                    assert_eq!(upstream.rest(), b"");
                }
            })
        })
        .collect();
    threads.into_iter().for_each(|thread| thread.join().unwrap());
    bench.running(0);
    assert_eq!(bench.proxy.metric("wsproxy_sessions_total"), 201);
    wait_for("descriptors as before", || (bench.descriptors() <= before).then_some(()));
    bench.proxy.stop();
}

#[test]
fn limits_of_time_close_in_order() {
    at_once(|variant| {
        for (more, ending) in [
            ("[timeouts]\nidle = \"300ms\"\n", "idle_timeout"),
            ("[route]\nupstream = \"default\"\nlifetime = \"1s\"\n", "lifetime"),
        ] {
            let bench = Bench::start(variant, more);
            let (mut client, mut upstream) = bench.session();
            client.send(&frame(TEXT, FROM_CLIENT, b"once"));
            upstream.expect_frame(TEXT, FROM_CLIENT, b"once");
            // An end without a close_notify would be an error here.
            parted(&mut client, &mut upstream, 1001, "going away");
            drop((client, upstream));
            bench.ends(ending, 1);
            bench.running(0);
        }
    });
}

#[test]
fn a_stop_ends_sessions_with_a_close_notify() {
    at_once(|variant| {
        for frames in [true, false] {
            let route = format!("[route]\nupstream = \"default\"\nframes = {frames}\n");
            stops(Bench::start(variant, &route), frames);
        }
    });
}

/// Sessions whose frames are not followed get no Close.
fn stops(bench: Bench, frames: bool) {
    let mut sessions: Vec<_> = (0..5).map(|_| bench.session()).collect();
    for (client, upstream) in &mut sessions {
        client.send(&frame(TEXT, FROM_CLIENT, b"there"));
        upstream.expect_frame(TEXT, FROM_CLIENT, b"there");
    }
    bench.running(5);
    bench.proxy.terminate();
    for (client, upstream) in &mut sessions {
        if frames {
            parted(client, upstream, 1001, "going away");
        } else {
            assert_eq!((client.rest(), upstream.rest()), (Vec::new(), Vec::new()));
        }
    }
    drop(sessions);
    let Bench { mut proxy, .. } = bench;
    assert!(proxy.wait().success());
    let ends = proxy.all_logged("session ended");
    assert_eq!(ends.len(), 5);
    for end in ends {
        assert_eq!(end["ended_by"], "drained", "{end}");
        assert_eq!(end["reset"], false, "{end}");
    }
}

/// RFC 8446 section 4.6.3: either side may change its keys at any time.
#[test]
fn keys_may_change_in_a_session() {
    let dir = TempDir::new();
    let files = local().write(&dir, "local");
    let server = Server::start();
    let text = text(&listener_tls(&[&files], ""), &format!("\"{}\"", server.address), "");
    let proxy = Proxy::with_file(Command::new(BINARY), &text, "relay");
    let stream = proxy.connect().stream;
    let mut client = secure(stream, client_config(&[&version::TLS13], None), "localhost");
    shake(&mut client).unwrap();
    let mut upstream = open(&mut client, &server).0;
    for round in 0..20 {
        client.conn.refresh_traffic_keys().unwrap();
        let bytes = pattern(30_000, round);
        client.write_all(&bytes).unwrap();
        same(&upstream.take(bytes.len()), &bytes);
        upstream.send(&bytes);
        let mut back = vec![0; bytes.len()];
        client.read_exact(&mut back).unwrap();
        same(&back, &bytes);
    }
}
