//! Both ends talk all the time, and wsproxy talks in between.

use super::*;

over_all!(pings_at_random_and_a_drain_in_the_middle);

/// One end of a session in the torture: what it said, and what it heard.
struct Party {
    socket: TcpStream,
    reader: Reader,
    talk: Talk,
    dice: Dice,
    masked: bool,
}

/// What an end said and heard but for Close frames, our Pings and the answers to them.
struct Heard {
    said: Vec<u8>,
    heard: Vec<u8>,
    pings: usize,
    /// The Close that ended it.
    close: Option<u16>,
}

impl Party {
    fn new(socket: &TcpStream, reader: Reader, masked: bool, seed: u64) -> Self {
        let (talk, dice) = (Talk::new(seed, masked, 6000), Dice::new(seed));
        Self { socket: socket.try_clone().unwrap(), reader, talk, dice, masked }
    }

    /// Talks and listens until a Close comes, or `until` and its own Close was answered.
    fn live(mut self, messages: usize) -> Heard {
        let lock = std::sync::Mutex::new(());
        let quiet = std::sync::atomic::AtomicBool::new(false);
        let (talk, dice, masked) = (&mut self.talk, &mut self.dice, self.masked);
        let (socket, reader, lock, quiet) = (&self.socket, &mut self.reader, &lock, &quiet);
        thread::scope(|scope| {
            let talker = scope.spawn(move || {
                let mut said = Vec::new();
                for _ in 0..messages {
                    let _whole = lock.lock().unwrap();
                    if quiet.load(std::sync::atomic::Ordering::SeqCst) {
                        return said;
                    }
                    let message = talk.message();
                    said.extend(&message);
                    write_in_pieces(socket, &message, dice, 4000);
                }
                let _whole = lock.lock().unwrap();
                if !quiet.load(std::sync::atomic::Ordering::SeqCst) {
                    (&mut &*socket).write_all(&close(masked, 1000, "")).unwrap();
                    quiet.store(true, std::sync::atomic::Ordering::SeqCst);
                }
                said
            });
            let mut slow = Dice::new(messages as u64);
            let (mut heard, mut pings, mut code) = (Vec::new(), 0, None);
            while let Some(next) = reader.frame() {
                if slow.below(200) == 0 {
                    thread::sleep(Duration::from_millis(slow.below(30)));
                }
                if is_ours(&next) {
                    pings += 1;
                    let _whole = lock.lock().unwrap();
                    if !quiet.load(std::sync::atomic::Ordering::SeqCst) {
                        (&mut &*socket).write_all(&frame(0x8A, masked, &next.payload)).unwrap();
                    }
                    continue;
                }
                if let Some((found, _)) = next.close() {
                    code = Some(found);
                    let _whole = lock.lock().unwrap();
                    // One Close of each side, whoever began.
                    if !quiet.swap(true, std::sync::atomic::Ordering::SeqCst) {
                        (&mut &*socket).write_all(&close(masked, found, "")).unwrap();
                    }
                    socket.shutdown(Shutdown::Write).unwrap();
                    continue;
                }
                heard.extend(frame(next.first, !masked, &next.payload));
            }
            Heard { said: talker.join().unwrap(), heard, pings, close: code }
        })
    }
}

/// Streams are equal but for our own frames; a drain cuts them between two frames.
fn pings_at_random_and_a_drain_in_the_middle(mode: Mode) {
    const SESSIONS: usize = 12;
    // Some read slowly what was sent before the Close.
    let patient = Options { drain: Duration::from_secs(60), ..options(mode) };
    let Some(bench) = Bench::start(patient) else { return };
    for drained in [false, true] {
        let parties: Vec<_> = (0..SESSIONS as u64)
            .map(|seed| {
                let Ends { client, server, to_client, to_server } = open(&bench, terms(PLAN));
                let seed = seed * 2 + 100 * u64::from(drained);
                [
                    Party::new(&client, to_client, true, seed),
                    Party::new(&server, to_server, false, seed + 1),
                ]
            })
            .collect();
        let all_over = bench.ends().len() + SESSIONS;
        let results: Vec<[Heard; 2]> = thread::scope(|scope| {
            let bench = &bench;
            scope.spawn(move || {
                let began = Instant::now();
                let all: Which = Arc::new(|_| true);
                while bench.ends().len() < all_over {
                    bench.datapath.ping(&all);
                    thread::sleep(Duration::from_millis(3));
                    if drained && began.elapsed() > Duration::from_millis(700) {
                        close_all(bench, &Farewell::default());
                        return;
                    }
                }
            });
            let messages = if drained { usize::MAX } else { 1500 };
            let talks: Vec<_> = parties
                .into_iter()
                .map(|pair| pair.map(|party| scope.spawn(move || party.live(messages))))
                .collect();
            talks.into_iter().map(|pair| pair.map(|talk| talk.join().unwrap())).collect()
        });
        let mut pings = 0;
        for pair in &results {
            for (from, to) in [(&pair[0], &pair[1]), (&pair[1], &pair[0])] {
                pings += to.pings;
                let heard = &to.heard;
                assert!(from.said.starts_with(heard), "{} of {}", heard.len(), from.said.len());
                assert!(drained || from.said.len() == heard.len(), "the end is missing");
                assert_eq!(to.close, Some(if drained { 1001 } else { 1000 }));
            }
        }
        assert!(pings >= SESSIONS, "{pings} pings");
        bench.all_gone();
    }
}
