//! One boot of a guest, under emulation: KVM would need rights, and cannot do other architectures.

use std::fs::{self, File};
use std::io::{Read as _, Seek as _, SeekFrom};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};

use crate::arch::Arch;
use crate::shell;

/// How often it is looked whether the guest is done.
const LOOK: Duration = Duration::from_millis(200);
const CPUS: &str = "2";
const MEMORY: &str = "2048";

impl Arch {
    /// The emulator.
    pub const fn qemu(self) -> &'static str {
        match self {
            Self::X86_64 => "qemu-system-x86_64",
            Self::Arm64 => "qemu-system-aarch64",
        }
    }

    /// The package of Debian that has it.
    pub const fn qemu_package(self) -> &'static str {
        match self {
            Self::X86_64 => "qemu-system-x86",
            Self::Arm64 => "qemu-system-arm",
        }
    }

    /// The machine. Arm's has the atomic instructions of ARMv8.1, which the kernel's BPF compiler
    /// uses where they are. The PC has no CMPXCHG16B, which the kernel can do without: behind one of
    /// QEMU 7.2 the flags were an address, and Linux 6.12 ended in a double fault.
    const fn machine(self) -> [&'static str; 4] {
        match self {
            Self::X86_64 => ["-machine", "q35", "-cpu", "Nehalem,+rdrand,-cx16"],
            Self::Arm64 => ["-machine", "virt", "-cpu", "neoverse-n1"],
        }
    }

    const fn console(self) -> &'static str {
        match self {
            Self::X86_64 => "ttyS0",
            Self::Arm64 => "ttyAMA0",
        }
    }
}

/// Boots a guest and waits until it has turned itself off, for `limit` at most; its console goes
/// to `log`, and into what is returned.
pub fn boot(
    arch: Arch,
    image: &Path,
    files: &Path,
    log: &Path,
    limit: Duration,
) -> Result<(String, bool)> {
    let console = File::create(log).with_context(|| format!("cannot write {}", log.display()))?;
    // Complaints of the kernel are on the console, talk is not. A panic ends the guest. The
    // detectors of stalls wait longer than they would: the host may have others to serve.
    let words = format!(
        "console={} loglevel=5 panic=-1 rdinit=/init rcupdate.rcu_cpu_stall_timeout=60 \
         watchdog_thresh=30 random.trust_cpu=on",
        arch.console()
    );
    let mut command = Command::new(arch.qemu());
    command.args(arch.machine()).args(["-accel", "tcg,thread=multi"]);
    command.args(["-smp", CPUS, "-m", MEMORY, "-nodefaults", "-no-user-config", "-no-reboot"]);
    command.args(["-display", "none", "-serial", "stdio"]);
    command.arg("-kernel").arg(image).arg("-initrd").arg(files).args(["-append", &words]);
    let errors = console.try_clone().context("the log")?;
    command.stdin(Stdio::null()).stdout(console).stderr(errors);
    let mut child = command.spawn().with_context(|| format!("could not start {}", arch.qemu()))?;
    let in_time = wait(&mut child, log, limit);
    let bytes = fs::read(log).context("the guest's console")?;
    let text = String::from_utf8_lossy(&bytes).replace('\r', "");
    Ok((text, in_time?))
}

/// Waits for the end, showing where the guest is; ends it at the limit. Whether it ended itself.
fn wait(child: &mut Child, log: &Path, limit: Duration) -> Result<bool> {
    let end = Instant::now() + limit;
    let mut shown = 0;
    loop {
        let status = child.try_wait().context("waiting for the emulator")?;
        shown = show(log, shown)?;
        if let Some(status) = status {
            ensure!(status.success(), "the emulator failed ({status}): see {}", log.display());
            return Ok(true);
        }
        if Instant::now() >= end {
            child.kill().context("ending the emulator")?;
            child.wait().context("ending the emulator")?;
            return Ok(false);
        }
        thread::sleep(LOOK);
    }
}

/// Prints the names of steps that came to the console since `from`; where to go on.
fn show(log: &Path, from: u64) -> Result<u64> {
    let mut file = File::open(log).context("the guest's console")?;
    file.seek(SeekFrom::Start(from)).context("the guest's console")?;
    let mut bytes = Vec::new();
    file.read_to_end(&mut bytes).context("the guest's console")?;
    // Only whole lines.
    let whole = bytes.iter().rposition(|byte| *byte == b'\n').map_or(0, |at| at + 1);
    for line in String::from_utf8_lossy(&bytes[..whole]).lines() {
        if let Some(news) = line.trim_end().strip_prefix("@@ ")
            && ["end", "complaint"].iter().any(|word| news.starts_with(word))
        {
            println!("  {news}");
        }
    }
    Ok(from + whole as u64)
}

/// What is missing to run guests of this architecture, if something is.
pub fn missing(arch: Arch) -> Option<String> {
    let (program, package) = (arch.qemu(), arch.qemu_package());
    let absent = shell::find_program(&[program]).is_none();
    absent.then(|| format!("{program} is not there; install it with `apt-get install {package}`"))
}
