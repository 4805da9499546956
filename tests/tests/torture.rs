//! The torture run: sessions by dice over the real kernel, for as long as one
//! likes. `WSPROXY_TORTURE_SECONDS` (default 8) is split over the variants;
//! `WSPROXY_TORTURE_SEED` repeats a run's plans, `WSPROXY_TORTURE_PLAN` (the
//! `seed` of a plan that failed) runs one plan over and over.

use std::{
    collections::BTreeMap,
    fmt::Write as _,
    path::PathBuf,
    sync::{
        Mutex,
        atomic::{AtomicU64, Ordering},
    },
    thread,
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use rustix::event::{PollFd, Timespec};
use wsproxy::datapath::{Carried, Entry, Mode, Options, Path};
use wsproxy_common::Reason;
use wsproxy_tests::{
    sessions::{Bench, options, wait_for},
    torture::{
        plan::{Kind, Plan},
        session::{Outcome, Torture},
    },
};

/// Threads that drive sessions, and sessions of each.
const WORKERS: usize = 3;
const SESSIONS: usize = 8;
/// Tests that share the time.
const VARIANTS: u64 = 5;
/// Longest sleep of a worker: nothing tells it that a session has ended.
const LOOK: Duration = Duration::from_millis(10);

#[test]
fn relay() {
    torture("relay", options(Mode::Relay), false);
}

#[test]
fn sockmap() {
    torture("sockmap", options(Mode::Sockmap), false);
}

/// Sessions enter the kernel in the middle of what they do.
#[test]
fn late_entry() {
    let entry = Entry::After(Duration::from_millis(30));
    torture("late entry", Options { entry, ..options(Mode::Sockmap) }, false);
}

/// Packets are translated from the first quiet moment on.
#[test]
fn packet() {
    let entry = Entry::After(Duration::from_millis(5));
    torture("packet", Options { entry, ..options(Mode::Packet) }, false);
}

/// The client's side, the server's or both speak TLS 1.2 or 1.3: the same plans, the same bytes
/// and the same ends. An end in order is a close_notify, for one direction as for both; the
/// gateway sends a FIN behind it, and some clients and servers do.
/// A reset is TCP's: it arrives as one. A side that just closes its socket says no close_notify;
/// the gateway takes that for an end, as without TLS, since whether a WebSocket ended too early
/// is told by its frames.
#[test]
fn tls() {
    torture("tls", options(Mode::Relay), true);
}

fn number(name: &str) -> Option<u64> {
    let text = std::env::var(name).ok()?;
    let number = match text.strip_prefix("0x") {
        Some(hex) => u64::from_str_radix(hex, 16).ok(),
        None => text.parse().ok(),
    };
    Some(number.unwrap_or_else(|| panic!("{name}={text} is no number")))
}

/// What the workers share.
struct Run<'a> {
    bench: &'a Bench,
    seed: u64,
    tls: bool,
    only: Option<u64>,
    end: Instant,
    stall_max: Duration,
    next: AtomicU64,
    failure: Mutex<Option<String>>,
    outcomes: Mutex<Vec<Outcome>>,
}

fn torture(name: &str, options: Options, tls: bool) {
    let Some(bench) = Bench::start(options) else { return };
    let seconds =
        number("WSPROXY_TORTURE_SECONDS").unwrap_or(2 * VARIANTS) as f64 / VARIANTS as f64;
    let time = Duration::from_secs_f64(seconds);
    let clock = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_nanos() as u64;
    let seed = number("WSPROXY_TORTURE_SEED").unwrap_or(clock);
    eprintln!("{name}: WSPROXY_TORTURE_SEED={seed:#x} for {time:?}");
    let descriptors = || open_descriptors().len();
    // One for each device that translated packets come in through.
    let hooks = usize::from(bench.path == Path::Packet);
    let before = descriptors() + hooks;
    let started = Instant::now();
    let run = Run {
        bench: &bench,
        seed,
        tls,
        only: number("WSPROXY_TORTURE_PLAN"),
        end: started + time,
        stall_max: (time / 3).min(Duration::from_secs(2)),
        next: AtomicU64::new(1),
        failure: Mutex::default(),
        outcomes: Mutex::default(),
    };
    thread::scope(|scope| {
        for _ in 0..WORKERS {
            scope.spawn(|| run.work());
        }
    });
    let outcomes = run.outcomes.into_inner().unwrap();
    let took = started.elapsed();
    let report = report(&bench, &outcomes, took);
    eprintln!("{name}: {report}");
    if let Some(failure) = run.failure.into_inner().unwrap() {
        panic!("WSPROXY_TORTURE_SEED={seed:#x}: {failure}\n{report}");
    }
    bench.all_gone();
    // Each was looked at: only sessions that a side had left before they began fall back.
    let relayed = outcomes.iter().filter(|o| o.end.path != bench.path).count();
    let fallbacks = bench.record.fallbacks.lock().unwrap().clone();
    // A late one may also end, or be half closed, before it enters.
    let explained =
        if bench.late { fallbacks.len() <= relayed } else { fallbacks.len() == relayed };
    assert!(explained, "{relayed} relayed, {fallbacks:?}");
    assert_eq!(bench.datapath.healed(), 0, "a notification was lost");
    let left = wait_for(Duration::from_secs(5), || (descriptors() <= before).then_some(()));
    assert!(left.is_some(), "more than {before} descriptors: {:?}", open_descriptors());
    if run.only.is_none() {
        check_paths(&bench, &outcomes);
    }
    if tls && run.only.is_none() {
        check_sides(&outcomes);
    }
}

/// What each descriptor of this process is.
fn open_descriptors() -> Vec<PathBuf> {
    let all = std::fs::read_dir("/proc/self/fd").unwrap().flatten();
    all.filter_map(|one| std::fs::read_link(one.path()).ok()).collect()
}

/// TLS was at the client, at the server and at both.
fn check_sides(outcomes: &[Outcome]) {
    for sides in Plan::TLS {
        let some: Vec<_> = outcomes.iter().filter(|o| o.plan.tls == sides).collect();
        let old = some.iter().filter(|o| o.plan.old_tls).count();
        let bytes = share(some.iter().copied()).total();
        eprintln!("  TLS at {sides:?}: {} sessions ({old} of TLS 1.2), {bytes} bytes", some.len());
        assert!(old > 0 && old < some.len(), "{sides:?}: {old} of {} by TLS 1.2", some.len());
        assert!(bytes > 0, "no bytes where TLS is at {sides:?}");
    }
}

/// The run proves something only if it went where it was meant to go.
fn check_paths(bench: &Bench, outcomes: &[Outcome]) {
    assert!(outcomes.len() >= WORKERS * SESSIONS, "only {} sessions", outcomes.len());
    if bench.path == Path::Relay {
        return;
    }
    let reasons = bench.datapath.reasons();
    if bench.path == Path::Packet {
        let share = share(outcomes.iter());
        assert!(share.packet * 20 > share.total(), "few packets were translated: {share:?}");
        return;
    }
    let count = |reason| reasons.iter().find(|(r, _)| *r == reason).map_or(0, |(_, n)| *n);
    // How often depends on the machine and on how many sessions came late: what must not be is
    // a run that never went there.
    for (reason, sessions) in [(Reason::Redirected, 1), (Reason::Resumed, 8), (Reason::NoRoom, 8)] {
        let least = (outcomes.len() / sessions).max(1) as u64;
        assert!(count(reason) >= least, "{reason:?} under {least} times: {reasons:?}");
    }
    assert_eq!(count(Reason::NotifyLost), 0, "{reasons:?}");
    let share = share(outcomes.iter());
    assert!(share.kernel * 5 > share.total(), "the kernel carried too little: {share:?}");
}

fn share<'a>(outcomes: impl Iterator<Item = &'a Outcome>) -> Carried {
    outcomes.flat_map(|o| [o.end.to_upstream, o.end.to_client]).fold(
        Carried::default(),
        |sum, c| Carried {
            kernel: sum.kernel + c.kernel,
            relay: sum.relay + c.relay,
            packet: sum.packet + c.packet,
        },
    )
}

fn report(bench: &Bench, outcomes: &[Outcome], took: Duration) -> String {
    let mut text = String::new();
    let mut line = |name: &str, some: &[&Outcome]| {
        let sum = share(some.iter().copied());
        let percent = sum.kernel as f64 * 100.0 / sum.total().max(1) as f64;
        let reset = some.iter().filter(|o| o.end.reset).count();
        let (count, total) = (some.len(), sum.total());
        let _ = writeln!(
            text,
            "  {name:<8} {count:>6} sessions ({reset} reset) {total:>13} bytes, \
             {percent:5.1} % by the kernel"
        );
    };
    line("all", &outcomes.iter().collect::<Vec<_>>());
    for kind in Kind::ALL {
        let some: Vec<_> = outcomes.iter().filter(|o| o.plan.kind == kind).collect();
        line(&format!("{kind:?}"), &some);
    }
    let mut endings = BTreeMap::new();
    for outcome in outcomes {
        *endings.entry(outcome.end.ending.label()).or_insert(0) += 1;
    }
    let reasons: Vec<_> =
        bench.datapath.reasons().iter().map(|(r, n)| format!("{} {n}", r.label())).collect();
    format!(
        "{took:.1?}, {} wake-ups, {} healed, {} fell back\n{text}  endings: {endings:?}\n  reasons: {}",
        bench.datapath.wakeups(),
        bench.datapath.healed(),
        bench.record.fallbacks.lock().unwrap().len(),
        reasons.join(", ")
    )
}

impl Run<'_> {
    fn work(&self) {
        let mut buf = vec![0; 256 * 1024];
        let mut live: Vec<Torture> = Vec::new();
        let mut hurried = false;
        loop {
            if self.failure.lock().unwrap().is_some() {
                return;
            }
            let now = Instant::now();
            let over = now >= self.end;
            while !over && live.len() < SESSIONS {
                live.push(self.begin());
            }
            if over && !std::mem::replace(&mut hurried, true) {
                live.iter_mut().for_each(Torture::hurry);
            }
            if live.is_empty() {
                return;
            }
            let mut moved = false;
            for at in (0..live.len()).rev() {
                match live[at].step(self.bench, now, &mut buf) {
                    Ok((progress, None)) => moved |= progress,
                    Ok((_, Some(end))) => {
                        moved = true;
                        let outcome = live.swap_remove(at).outcome(end);
                        self.outcomes.lock().unwrap().push(outcome);
                    }
                    Err(what) => {
                        let text = format!("{what}\n{}", live[at].describe(self.bench));
                        self.failure.lock().unwrap().get_or_insert(text);
                        return;
                    }
                }
            }
            if !moved {
                wait(&live, now);
            }
        }
    }

    fn begin(&self) -> Torture {
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        let seed = self.only.unwrap_or_else(|| self.seed.wrapping_add(number));
        let plan = Plan::roll(seed, self.stall_max);
        Torture::start(self.bench, number, if self.tls { plan.over_tls() } else { plan })
    }
}

/// Waits until one of the sessions can go on.
fn wait(live: &[Torture], now: Instant) {
    let mut fds: Vec<_> = live
        .iter()
        .flat_map(Torture::interests)
        .map(|(fd, flags)| PollFd::from_borrowed_fd(fd, flags))
        .collect();
    let wake = live.iter().filter_map(Torture::wake_at).min();
    let most = wake.map_or(LOOK, |at| at.saturating_duration_since(now).min(LOOK));
    let most = Timespec::try_from(most.max(Duration::from_micros(100))).unwrap();
    // Interrupted or not: the sessions are looked at again.
    let _ = rustix::event::poll(&mut fds, Some(&most));
}
