//! What supervision costs, and how even a drain is: wsproxy beside itself with it switched off.

use std::{
    fmt::Write as _, fs, io::Read as _, io::Write as _, net::TcpStream, path::PathBuf,
    time::Duration,
};

use anyhow::{Context as _, Result, bail, ensure};

use crate::{
    contender::process::Process,
    load::{
        Target,
        messages::{self, Messages},
    },
    machine, opening,
    place::{Site, Topology, UPSTREAM},
    poll::{Poll, now, now_or_later},
    report::{
        markdown::spread_text,
        stats::{Rounds, ratio},
    },
    upstream::Upstream,
};

/// Where wsproxy listens.
const PORT: u16 = 8401;
const SECOND: u64 = 1_000_000_000;
/// Sessions of the throughput that is compared.
const TALKERS: usize = 64;
/// How long a drain may take beyond its window.
const PATIENCE: u64 = 15 * SECOND;

/// What to run.
#[derive(Clone, Debug)]
pub struct Plan {
    /// Rounds of the throughput.
    pub rounds: u32,
    /// Length of one measurement of it.
    pub measured: Duration,
    /// Idle sessions that are pinged.
    pub sessions: usize,
    /// `ping.interval`.
    pub interval: Duration,
    /// How long pings are measured.
    pub watched: Duration,
    /// Sessions that are drained.
    pub drained: usize,
    /// `drain.window`.
    pub window: Duration,
    /// The program under test.
    pub wsproxy: PathBuf,
    /// Where it keeps its files.
    pub folder: PathBuf,
}

/// A wsproxy that runs, with its upstream.
struct Bench {
    process: Process,
    _upstream: Upstream,
    site: Site,
}

impl Bench {
    fn start(plan: &Plan, more: &str) -> Result<Self> {
        let site = Site::new(Topology::Loopback)?;
        let upstream = site.at_server(|| Upstream::start(([0, 0, 0, 0], UPSTREAM).into()))?;
        fs::create_dir_all(&plan.folder)?;
        let file = plan.folder.join("configuration");
        let text = format!(
            "[[listener]]\naddress = \"127.0.0.1:{PORT}\"\n[[upstream]]\nname = \"sockets\"\n\
             servers = [\"{}\"]\n[log]\nlevel = \"warn\"\n{more}",
            site.upstream()
        );
        fs::write(&file, text).with_context(|| file.display().to_string())?;
        let arguments = ["run", "--config", &file.to_string_lossy()].map(String::from);
        let mut process = Process::start(&plan.wsproxy, &arguments, &site, &plan.folder)?;
        process.wait_until_it_listens(site.contender(PORT), &site)?;
        Ok(Self { process, _upstream: upstream, site })
    }
}

/// Idle clients that answer Pings and Closes.
struct Clients {
    poll: Poll,
    streams: Vec<Option<TcpStream>>,
    pings: u64,
    /// When each was told to close, in ns after the first of them.
    closes: Vec<u64>,
    left: usize,
}

impl Clients {
    fn open(bench: &Bench, count: usize) -> Result<Self> {
        let poll = Poll::new()?;
        let mut streams = Vec::with_capacity(count);
        for place in 0..count {
            let (stream, early) = opening::open(bench.site.contender(PORT), "/echo")
                .with_context(|| format!("session {place}"))?;
            ensure!(early.is_empty(), "the upstream speaks first");
            poll.add(&stream, place, true, false)?;
            streams.push(Some(stream));
        }
        Ok(Self { poll, streams, pings: 0, closes: Vec::new(), left: count })
    }

    /// Answers until `end`, or until nobody is left.
    fn answer_until(&mut self, end: u64) -> Result<()> {
        while self.left > 0 && now() < end {
            let ready: Vec<_> = self.poll.wait(end)?.iter().map(|ready| ready.place).collect();
            for place in ready {
                self.read(place).with_context(|| format!("session {place}"))?;
            }
        }
        Ok(())
    }

    fn read(&mut self, place: usize) -> Result<()> {
        let Some(stream) = &mut self.streams[place] else { return Ok(()) };
        let mut bytes = [0; 512];
        let Some(count) = now_or_later(stream.read(&mut bytes))? else { return Ok(()) };
        let mut rest = &bytes[..count];
        while let [first, len, body @ ..] = rest {
            let (payload, later) = body
                .split_at_checked(usize::from(*len))
                .context("a frame in pieces, or one that is no control frame")?;
            rest = later;
            // The masking key is zero: the payload goes back as it is.
            let answer = match first {
                0x89 => 0x8A,
                0x88 => 0x88,
                other => bail!("a frame that begins with {other:#x}"),
            };
            let head = [answer, 0x80 | len, 0, 0, 0, 0];
            stream.write_all(&[&head[..], payload].concat())?;
            if *first == 0x89 {
                self.pings += 1;
            } else {
                self.closes.push(now());
            }
        }
        if count == 0 {
            self.streams[place] = None;
            self.left -= 1;
        }
        Ok(())
    }
}

/// CPU in shares of one core.
#[derive(Clone, Copy, Debug)]
struct Cost {
    pings_per_second: f64,
    own: f64,
    machine: f64,
}

fn pings(plan: &Plan, on: bool) -> Result<Cost> {
    let interval =
        if on { format!("\"{}ms\"", plan.interval.as_millis()) } else { "\"off\"".into() };
    // Everybody is in the kernel, where a silent session belongs.
    let more = format!(
        "[ping]\ninterval = {interval}\n[datapath]\nsettle = \"off\"\n[drain]\nwindow = \"off\"\n"
    );
    let bench = Bench::start(plan, &more)?;
    bench.site.at_client(|| {
        let mut clients = Clients::open(&bench, plan.sessions)?;
        // Until every session has been pinged once, and the second round has begun to spread.
        let settle = plan.interval + plan.interval / 5;
        clients.answer_until(now() + settle.as_nanos() as u64)?;
        let processes = bench.process.all();
        let (before, cpu) = (machine::spent_by(&processes)?, machine::Cpu::now()?);
        let (pings, began) = (clients.pings, now());
        clients.answer_until(now() + plan.watched.as_nanos() as u64)?;
        let seconds = (now() - began) as f64 / 1e9;
        ensure!(
            clients.left == plan.sessions,
            "{} sessions are gone",
            plan.sessions - clients.left
        );
        Ok(Cost {
            pings_per_second: (clients.pings - pings) as f64 / seconds,
            own: (machine::spent_by(&processes)? - before) / seconds,
            machine: cpu.until_now()? / seconds,
        })
    })
}

/// Closes per second of a drain, second by second.
fn drain(plan: &Plan) -> Result<Vec<u64>> {
    let window = plan.window.as_millis();
    let more = format!("[drain]\nwindow = \"{window}ms\"\n[ping]\ninterval = \"off\"\n");
    let bench = Bench::start(plan, &more)?;
    bench.site.at_client(|| {
        let mut clients = Clients::open(&bench, plan.drained)?;
        std::thread::sleep(Duration::from_millis(500));
        let began = now();
        bench.process.end()?;
        clients.answer_until(began + plan.window.as_nanos() as u64 + PATIENCE)?;
        ensure!(clients.left == 0, "{} sessions were not closed", clients.left);
        ensure!(clients.closes.len() == plan.drained, "{} Close frames", clients.closes.len());
        let first = clients.closes.first().copied().unwrap_or(began);
        let slots = plan.window.as_secs().max(1);
        let slot = plan.window.as_nanos() as u64 / slots;
        let mut counts = vec![0; slots as usize];
        for at in &clients.closes {
            counts[((at - first) / slot.max(1)).min(slots - 1) as usize] += 1;
        }
        Ok(counts)
    })
}

/// Messages of 64 bytes with the frames followed and not: rates, and CPU per message.
struct Followed {
    mode: &'static str,
    on: Vec<(f64, f64)>,
    off: Vec<(f64, f64)>,
}

fn followed(plan: &Plan, mode: &'static str, datapath: &str) -> Result<Followed> {
    let mut found = Followed { mode, on: Vec::new(), off: Vec::new() };
    for round in 0..plan.rounds {
        for on in [true, false] {
            let more = format!(
                "[[route]]\nupstream = \"sockets\"\nframes = {on}\n[datapath]\n{datapath}\n[drain]\nwindow = \"off\"\n"
            );
            let bench = Bench::start(plan, &more)?;
            let target = Target {
                address: bench.site.contender(PORT),
                upstream: None,
                warm_up: Duration::from_millis(300),
                measured: plan.measured,
                processes: bench.process.all(),
                held: None,
            };
            let load = Messages { payloads: vec![64], sessions: TALKERS, rate: None };
            let figures = bench.site.at_client(|| messages::run(&target, &load))?;
            let rate = figures.messages as f64 / figures.seconds;
            let cpu = figures.cpu_seconds * 1e6 / figures.messages.max(1) as f64;
            eprintln!("{mode:8} round {round} frames {on:5} {rate:8.0} messages/s {cpu:6.2} us");
            if on { &mut found.on } else { &mut found.off }.push((rate, cpu));
        }
    }
    Ok(found)
}

impl Followed {
    /// Medians of the ratios round by round: with the frames followed to without, of the rate and
    /// of the CPU per message.
    fn ratios(&self) -> (Rounds, Rounds) {
        let of = |pick: fn(&(f64, f64)) -> f64| {
            let values = |all: &[(f64, f64)]| {
                all.iter().enumerate().map(|(at, one)| (at as u32, pick(one))).collect::<Rounds>()
            };
            ratio(&values(&self.on), &values(&self.off))
        };
        (of(|one| one.0), of(|one| one.1))
    }
}

/// Runs all of it and writes it down as Markdown.
///
/// # Errors
/// What keeps a measurement from running, and what a session was told that it should not be.
pub fn run(plan: &Plan) -> Result<String> {
    let mut text = String::new();
    let environment = machine::environment();
    let _ =
        writeln!(text, "{} on {}, {}.\n", environment.date, environment.kernel, environment.cpu);
    let _ = writeln!(text, "| what | measured | wanted |\n|---|---|---|");
    for (mode, datapath) in
        [("relay", "mode = \"relay\""), ("sockmap", "mode = \"sockmap\"\nsettle = \"off\"")]
    {
        let found = followed(plan, mode, datapath)?;
        let (rate, cpu) = found.ratios();
        let _ = writeln!(
            text,
            "| {TALKERS} sessions, 64 B echo, {}: throughput with frames followed to without, {} rounds | {} (CPU per message {}) | over 0.95 |",
            found.mode,
            plan.rounds,
            spread(&rate),
            spread(&cpu)
        );
    }
    let (off, on) = (pings(plan, false)?, pings(plan, true)?);
    let _ = writeln!(
        text,
        "| {} idle sessions in the kernel, pinged every {} s ({:.0} Pings/s): CPU of wsproxy's process | {:.1} % of a core ({:.1} % without pings) | under 3 % |",
        plan.sessions,
        plan.interval.as_secs_f64(),
        on.pings_per_second,
        on.own * 100.0,
        off.own * 100.0
    );
    let _ = writeln!(
        text,
        "| the same: CPU of the whole machine more than without pings, the clients' own work in it | {:.1} % of a core | |",
        (on.machine - off.machine) * 100.0
    );
    let counts = drain(plan)?;
    let mean = counts.iter().sum::<u64>() as f64 / counts.len() as f64;
    let most = counts.iter().max().copied().unwrap_or_default();
    let _ = writeln!(
        text,
        "| {} sessions drained over {} s: most Close frames in a second to the mean | {:.2} ({counts:?}) | at most 1.5 |",
        plan.drained,
        plan.window.as_secs(),
        most as f64 / mean
    );
    Ok(text)
}

fn spread(rounds: &Rounds) -> String {
    crate::report::stats::spread(rounds).map_or("-".into(), spread_text)
}
