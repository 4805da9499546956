//! The datapaths between links that lose, double, delay and reorder packets. Needs root.
//!
//! `WSPROXY_LOSSY_SECONDS` runs them for so long, all together, over one seed after another, and
//! `WSPROXY_LOSSY_SEED` with that seed alone. The output names each seed.

use std::{
    env,
    io::{ErrorKind, Read, Write},
    net::TcpStream,
    sync::{Mutex, PoisonError},
    thread,
    time::{Duration, Instant},
};

use socket2::SockRef;
use wsproxy::datapath::{Ending, Mode, Path};
use wsproxy_tests::{
    link::{Counts, Lossy, Plan},
    namespaces::{Family, Net, Place, address, retransmissions},
    routed::{Gateway, PATIENCE, both_ways, connect, converse, drain, listen, patient, push},
    sessions::{Stream, kernel_expected, wait_for},
};

const KIB: usize = 1 << 10;

/// One test a plan for each datapath.
macro_rules! over_all {
    ($($mode:ident: $variant:ident),*; $plans:tt) => {
        $(over_all!(tests $mode $variant $plans);)*
        /// How many share the time.
        const TESTS: u32 = ([$(stringify!($mode)),*].len() * over_all!(count $plans)) as u32;
    };
    (tests $mode:ident $variant:ident { $($name:ident: $plan:expr,)* }) => {
        mod $mode { $(#[test] fn $name() { super::run(super::Mode::$variant, $plan); })* }
    };
    (count { $($name:ident: $plan:expr,)* }) => { [$(stringify!($name)),*].len() };
}

over_all!(relay: Relay, sockmap: Sockmap, packet: Packet; {
    loses_little: super::LITTLE,
    loses_much: super::MUCH,
    doubles: super::DOUBLES,
    reorders: super::REORDERS,
    does_everything: super::EVERYTHING,
});

const GOOD: Plan = Plan {
    seed: 0,
    drop: 0.0,
    duplicate: 0.0,
    reorder: 0.0,
    delay: None,
    port: None,
    only_payload: false,
};
const LITTLE: Plan = Plan { drop: 0.01, ..GOOD };
const MUCH: Plan = Plan { drop: 0.05, ..GOOD };
const DOUBLES: Plan = Plan { duplicate: 0.05, ..GOOD };
const REORDERS: Plan = Plan { reorder: 0.1, ..GOOD };
const EVERYTHING: Plan = Plan { drop: 0.02, duplicate: 0.05, reorder: 0.1, ..GOOD };

fn setting(name: &str) -> Option<u64> {
    let value = env::var(name).ok()?;
    Some(value.parse().unwrap_or_else(|e| panic!("{name}={value}: {e}")))
}

/// One seed, a given one, or as many as there is time for.
fn run(mode: Mode, plan: Plan) {
    // The relay too: namespaces need root.
    if !kernel_expected() {
        return;
    }
    // Whoever waits spends none of its time.
    static ALONE: Mutex<()> = Mutex::new(());
    let _alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
    let given = setting("WSPROXY_LOSSY_SEED");
    let seconds = setting("WSPROXY_LOSSY_SECONDS").filter(|_| given.is_none());
    let until = Instant::now() + Duration::from_secs(seconds.unwrap_or(0)) / TESTS;
    let mut seed = given.unwrap_or(1);
    loop {
        with_seed(mode, Plan { seed, ..plan });
        seed += 1;
        if Instant::now() >= until {
            break;
        }
    }
}

/// Says which run failed.
struct Named(String);

impl Drop for Named {
    fn drop(&mut self) {
        if thread::panicking() {
            eprintln!("FAILED: {}", self.0);
        }
    }
}

fn with_seed(mode: Mode, plan: Plan) {
    let name = format!("{mode:?}, WSPROXY_LOSSY_SEED={}, {plan:?}", plan.seed);
    eprintln!("{name}");
    let _named = Named(name);
    // Single segments for one seed, whole trains for the next.
    let net = if plan.seed % 2 == 1 { Net::one_by_one(1500) } else { Net::new(1500) };
    net.recover_quickly();
    let before = Instant::now();
    Gateway::run(&net, mode, |gateway| {
        let mut links = Lossy::everywhere(&net, GOOD);
        for family in net.families() {
            talks(gateway, *family, &mut links, plan);
            breaks(gateway, *family, &mut links, plan);
        }
        let counts = links.iter().map(Lossy::counts).fold(Counts::default(), |a, b| a + b);
        let twice: u64 = Place::ALL.map(|place| net.within(place, retransmissions)).iter().sum();
        eprintln!("{counts:?}, {twice} segments sent twice, {:?}", before.elapsed());
        happened(plan, counts);
        assert!(counts.dropped <= ENOUGH || twice > 0, "nothing had to be sent again");
    });
}

/// The connections are made over a good link (a lost SYN costs a second), and everything after
/// them happens over a bad one.
fn session(
    gateway: &Gateway<'_>,
    family: Family,
    links: &mut [Lossy<'_>],
    plan: Plan,
) -> (u64, TcpStream, TcpStream) {
    set(links, GOOD);
    gateway.session_after(family, None, || set(links, plan))
}

fn set(links: &mut [Lossy<'_>], plan: Plan) {
    for (link, number) in links.iter_mut().zip(0..) {
        link.set(Plan { seed: plan.seed.wrapping_mul(4).wrapping_add(number), ..plan });
    }
}

/// An echo, streams both ways, and an orderly end each way.
fn talks(gateway: &Gateway<'_>, family: Family, links: &mut [Lossy<'_>], plan: Plan) {
    let total = 256 * KIB;
    let mut sizes = vec![100; 10];
    sizes.extend([16 * KIB; 4]);
    let (id, client, server) = session(gateway, family, links, plan);
    converse(&client, &server, plan.seed, &sizes);
    both_ways(&client, &server, plan.seed, total);
    let end = gateway.finish(id, &client, &server);
    let said = (total + sizes.iter().sum::<usize>()) as u64;
    for carried in [end.to_upstream, end.to_client] {
        assert_eq!(carried.total(), said, "{end:?}");
        match gateway.bench.path {
            Path::Sockmap => assert!(carried.kernel > 0, "{end:?}"),
            Path::Packet => assert_eq!(carried.packet, said, "{end:?}"),
            Path::Relay => {}
        }
    }
}

/// One side breaks in the middle of streams both ways: the other one learns of it, and what it got
/// is right.
fn breaks(gateway: &Gateway<'_>, family: Family, links: &mut [Lossy<'_>], plan: Plan) {
    for (gone, ending) in
        [(Place::Client, Ending::ClientBroke), (Place::Server, Ending::UpstreamBroke)]
    {
        let (id, client, server) = session(gateway, family, links, plan);
        let (breaking, other) =
            if gone == Place::Client { (client, server) } else { (server, client) };
        thread::scope(|scope| {
            let sender = scope.spawn(|| push(&other, plan.seed + 1));
            let reader = scope.spawn(|| drain(&other, plan.seed));
            scope.spawn(|| talk_and_break(breaking, plan.seed));
            let ends = [sender.join().unwrap(), reader.join().unwrap()];
            // Whoever looks first is told of the reset, who looks later of an end.
            assert!(ends.contains(&ErrorKind::ConnectionReset), "{ends:?}");
        });
        let end = gateway.end_of(id);
        assert_eq!(end.ending, ending, "{end:?}");
        assert!(end.reset, "{end:?}");
    }
}

/// Sends and gets some, and is gone without a FIN, with more on its way here. A reset that is lost
/// comes again when that arrives.
fn talk_and_break(mut socket: TcpStream, seed: u64) {
    const SOME: usize = 64 * KIB;
    socket.write_all(&Stream::new(seed).take(SOME)).unwrap();
    let (mut stream, mut got) = (Stream::new(seed + 1), vec![0; SOME]);
    socket.read_exact(&mut got).unwrap();
    stream.check(&got);
    SockRef::from(&socket).set_linger(Some(Duration::ZERO)).unwrap();
}

/// Of fewer packets chance may say anything: those that are trains of segments are few.
const ENOUGH: u64 = 20;

/// What the plan says really happened.
fn happened(plan: Plan, counts: Counts) {
    for (what, share, count) in [
        ("lost", plan.drop, counts.dropped),
        ("doubled", plan.duplicate, counts.duplicated),
        ("held", plan.reorder, counts.held),
    ] {
        // Connections were made over a good link, and chance has its part.
        let expected = (share * counts.seen as f64) as u64;
        assert!(count >= (expected / 2).saturating_sub(ENOUGH / 2), "too few {what}: {counts:?}");
        assert!(share > 0.0 || count == 0, "{what}, unplanned: {counts:?}");
    }
    assert!(counts.held <= ENOUGH || counts.overtaken > 0, "none overtaken: {counts:?}");
}

/// A connection without a datapath, from the client to the gateway.
fn straight(net: &Net, family: Family) -> (TcpStream, TcpStream) {
    let ip = address(Place::Client, Place::Gateway, family);
    let (listener, to) = net.within(Place::Gateway, || listen(ip));
    let client = net.within(Place::Client, || connect(to));
    let (gateway, _) = listener.accept().unwrap();
    patient(&gateway);
    (client, gateway)
}

/// The fate of a packet, as `tests/link-ebpf/src/fate.rs` draws it, as a share of 1.
fn drawn(seed: u64, number: u64) -> f64 {
    const GOLDEN: u64 = 0x9e37_79b9_7f4a_7c15;
    let z = seed.wrapping_add(number.wrapping_mul(GOLDEN)).wrapping_add(GOLDEN);
    let z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    ((z ^ (z >> 31)) >> 32) as f64 / (1_u64 << 32) as f64
}

#[test]
fn a_seed_decides_every_fate() {
    if !kernel_expected() {
        return;
    }
    let net = Net::one_by_one(1500);
    net.recover_quickly();
    let plan = Plan { seed: 77, drop: 0.03, duplicate: 0.05, reorder: 0.1, ..GOOD };
    for family in net.families() {
        let (client, gateway) = straight(&net, *family);
        let link = Lossy::attach(&net, Place::Client, Place::Client, plan);
        both_ways(&client, &gateway, 1, 256 * KIB);
        drop((client, gateway));
        let counts = settled(&link);
        let draws: Vec<_> = (0..counts.seen).map(|number| drawn(plan.seed, number)).collect();
        let between = |from, to| draws.iter().filter(|d| (from..to).contains(*d)).count() as u64;
        assert_eq!(counts.dropped, between(0.0, 0.03), "{counts:?}");
        assert_eq!(counts.duplicated, between(0.03, 0.08), "{counts:?}");
        assert_eq!(counts.held, between(0.08, 0.18), "{counts:?}");
        assert_eq!(counts.passed, between(0.18, 1.0) + counts.duplicated, "{counts:?}");
        assert!(counts.seen > 100 && counts.returned == counts.held, "{counts:?}");
    }
}

/// The counts when nothing is under way any more.
fn settled(link: &Lossy<'_>) -> Counts {
    let mut last = None;
    let same = || {
        let counts = link.counts();
        (last.replace(counts) == Some(counts) && counts.returned == counts.held).then(|| {
            // Whatever TCP has still to send again comes within this time.
            thread::sleep(Duration::from_millis(300));
            (link.counts() == counts).then_some(counts)
        })?
    };
    wait_for(PATIENCE, same).unwrap_or_else(|| panic!("{link:?}"))
}

#[test]
fn a_delay_delays_and_keeps_the_order() {
    if !kernel_expected() {
        return;
    }
    let net = Net::one_by_one(1500);
    let delay = Duration::from_millis(15);
    for family in net.families() {
        let (client, gateway) = straight(&net, *family);
        let plan = Plan { delay: Some((delay, delay)), ..GOOD };
        let mut link = Lossy::attach(&net, Place::Client, Place::Client, plan);
        let before = Instant::now();
        converse(&client, &gateway, 1, &[1; 5]);
        assert!(before.elapsed() >= 5 * delay, "only {:?}", before.elapsed());
        both_ways(&client, &gateway, 3, 64 * KIB);
        let counts = link.counts();
        assert!(counts.held == counts.seen && counts.overtaken == 0, "{counts:?}");
        // Another port is none of the plan's business.
        let port = client.local_addr().unwrap().port();
        link.set(Plan { port: Some(port ^ 1), ..plan });
        converse(&client, &gateway, 1, &[1; 5]);
        assert_eq!(link.counts().seen, counts.seen, "{link:?}");
        link.set(Plan { drop: 1.0, only_payload: true, ..GOOD });
        (&client).write_all(b"lost").unwrap();
        let lost = || (link.counts().dropped > 0).then_some(());
        assert!(wait_for(PATIENCE, lost).is_some(), "{link:?}");
        drop(link);
        // It was sent, and is sent again.
        (&gateway).read_exact(&mut [0; 4]).unwrap();
    }
}
