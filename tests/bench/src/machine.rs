//! What the machine is, and what it spends: CPU time and memory of all of it,
//! since softirqs, kworkers and socket buffers belong to no process.

use std::{fs, process::Command};

use anyhow::{Context as _, Result};

use crate::{poll::now, results::Environment};

/// Ticks of `/proc/stat` in a second (USER_HZ, 100 on every Linux).
const TICKS: f64 = 100.0;

/// What the CPUs of the whole machine did up to some point.
///
/// Busy time is what was not idle. The kernel's own busy fields only sample at each tick, and
/// miss work that a timer starts right after one; its idle time is exact wherever the tick
/// stops in idle (`get_idle_time` in fs/proc/stat.c).
#[derive(Clone, Copy, Debug)]
pub struct Cpu {
    at: u64,
    cpus: u64,
    idle_ticks: u64,
}

impl Cpu {
    /// Up to now.
    ///
    /// # Errors
    /// `/proc/stat` can't be read.
    pub fn now() -> Result<Self> {
        let stat = fs::read_to_string("/proc/stat").context("/proc/stat")?;
        Self::parse(&stat, now()).context("/proc/stat has no line of all CPUs")
    }

    /// The first line: user, nice, system, idle, iowait, irq, softirq, steal (proc_stat(5)).
    /// Time stolen by the hypervisor is nobody's work here.
    fn parse(stat: &str, at: u64) -> Option<Self> {
        let fields = stat.lines().next()?.strip_prefix("cpu ")?;
        let fields: Vec<u64> = fields.split_whitespace().map_while(|f| f.parse().ok()).collect();
        let idle_ticks = [3, 4, 7].iter().map(|at| fields.get(*at).unwrap_or(&0)).sum();
        let is_cpu = |line: &&str| {
            line.strip_prefix("cpu")
                .is_some_and(|rest| rest.starts_with(|c: char| c.is_ascii_digit()))
        };
        let cpus = stat.lines().filter(is_cpu).count() as u64;
        (fields.len() > 3).then_some(Self { at, cpus, idle_ticks })
    }

    /// Time of all CPUs that was not idle from `self` to `later`, in s.
    fn busy_until(self, later: Self) -> f64 {
        let all = (later.at - self.at) as f64 / 1e9 * self.cpus as f64;
        (all - (later.idle_ticks - self.idle_ticks) as f64 / TICKS).max(0.0)
    }

    /// Spent since, in s.
    ///
    /// # Errors
    /// As [`Self::now`].
    pub fn until_now(self) -> Result<f64> {
        Ok(self.busy_until(Self::now()?))
    }
}

/// User and system time that processes spent in all of their threads so far, in s. Work that the
/// kernel does for them in softirqs of others and in its own threads is not in it.
///
/// # Errors
/// A process that is gone.
pub fn spent_by(processes: &[u32]) -> Result<f64> {
    let mut ticks = 0;
    for process in processes {
        let path = format!("/proc/{process}/stat");
        let stat = fs::read_to_string(&path).with_context(|| path.clone())?;
        ticks += own_ticks(&stat).with_context(|| format!("{path} has no times"))?;
    }
    Ok(ticks as f64 / TICKS)
}

/// utime and stime are fields 14 and 15 (proc_pid_stat(5)); the second one, the name in brackets,
/// may hold spaces and brackets itself.
fn own_ticks(stat: &str) -> Option<u64> {
    let (_, after_name) = stat.rsplit_once(')')?;
    let mut times = after_name.split_whitespace().skip(11);
    let user: u64 = times.next()?.parse().ok()?;
    let system: u64 = times.next()?.parse().ok()?;
    Some(user + system)
}

/// Memory in use.
#[derive(Clone, Copy, Debug, Default)]
pub struct Used {
    /// Of some processes, each shared page in proportion, in KiB.
    pub user_kib: f64,
    /// Of the kernel, whole machine, in KiB. Free pages that a CPU keeps for itself are in it,
    /// some MiB that come and go.
    pub kernel_kib: f64,
    /// Of that, the objects that the kernel allocates (slab): sockets, files, small buffers, what
    /// BPF keeps for a socket; in KiB.
    pub slab_kib: f64,
}

impl Used {
    /// Right now.
    ///
    /// # Errors
    /// A process that is gone.
    pub fn now(processes: &[u32]) -> Result<Self> {
        let mut user_kib = 0.0;
        for process in processes {
            let path = format!("/proc/{process}/smaps_rollup");
            let text = fs::read_to_string(&path).with_context(|| path)?;
            user_kib += field(&text, "Pss:").unwrap_or(0.0);
        }
        let text = fs::read_to_string("/proc/meminfo").context("/proc/meminfo")?;
        // What is neither free nor a page of a file or a process: slab, socket buffers and
        // other pages that no line of its own tells of.
        let mut kernel_kib = field(&text, "MemTotal:").context("no MemTotal in /proc/meminfo")?;
        for line in ["MemFree:", "Buffers:", "Cached:", "AnonPages:", "SwapCached:"] {
            kernel_kib -= field(&text, line).unwrap_or(0.0);
        }
        let slab_kib = field(&text, "Slab:").context("no Slab in /proc/meminfo")?;
        Ok(Self { user_kib, kernel_kib, slab_kib })
    }
}

fn field(text: &str, name: &str) -> Option<f64> {
    let line = text.lines().find_map(|line| line.strip_prefix(name))?;
    line.split_whitespace().next()?.parse().ok()
}

/// What a command prints, its first line; `None` if it can't be run.
#[must_use]
pub fn first_line_of(program: &str, arguments: &[&str]) -> Option<String> {
    let output = Command::new(program).args(arguments).output().ok()?;
    // nginx tells its version on the standard error.
    let text = [output.stdout, output.stderr].concat();
    String::from_utf8_lossy(&text).lines().next().map(ToOwned::to_owned)
}

/// Model and number of the CPUs.
#[must_use]
pub fn cpu() -> String {
    let text = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let model = text.lines().find(|line| line.starts_with("model name"));
    let model = model.and_then(|line| line.split(": ").nth(1)).unwrap_or("unknown");
    let count = std::thread::available_parallelism().map_or(1, usize::from);
    format!("{count} x {model}")
}

/// The machine on this day; nothing of a run yet.
#[must_use]
pub fn environment() -> Environment {
    let line = |program, arguments: &[&str]| first_line_of(program, arguments).unwrap_or_default();
    Environment {
        date: line("date", &["-u", "+%F"]),
        kernel: line("uname", &["-srm"]),
        cpu: cpu(),
        memory_mib: memory_mib(),
        ..Environment::default()
    }
}

/// Of the machine, in MiB.
#[must_use]
pub fn memory_mib() -> u64 {
    let text = fs::read_to_string("/proc/meminfo").unwrap_or_default();
    field(&text, "MemTotal:").unwrap_or(0.0) as u64 / 1024
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn busy_is_what_is_neither_idle_nor_stolen() {
        let before = "cpu  100 1 20 1000 50 3 4 70 0 0\ncpu0 1 1 1\ncpu1 1 1 1\nctxt 5\n";
        let after = "cpu  9 9 9 1090 55 9 9 75 0 0\n";
        let before = Cpu::parse(before, 0).expect("it is one");
        let after = Cpu::parse(after, 1_000_000_000).expect("it is one");
        assert!((before.busy_until(after) - 1.0).abs() < 1e-9);
        assert!(Cpu::parse("intr 5\n", 0).is_none());
    }

    #[test]
    fn own_time_is_user_and_system_time() {
        let stat = "7 (a (b) c) S 1 7 7 0 -1 4194560 100 0 3 0 250 50 9 9 20 0 3 0 1 2 3";
        assert_eq!(own_ticks(stat), Some(300));
        assert_eq!(own_ticks("7 (cut) S 1 7 7 0 -1"), None);
        assert!(spent_by(&[std::process::id()]).is_ok_and(|seconds| seconds >= 0.0));
        assert!(spent_by(&[u32::MAX]).is_err(), "no such process");
    }

    #[test]
    fn this_process_uses_memory() {
        let used = Used::now(&[std::process::id()]).expect("we are alive");
        assert!(used.user_kib > 100.0 && used.kernel_kib > used.slab_kib && used.slab_kib > 0.0);
    }
}
