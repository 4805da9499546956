//! The Debian package from its installation to its purge, in a copy of this system: an overlay over
//! `/` in namespaces of mounts, network and processes, so that nothing of it is left. The program is
//! started as the unit starts it, by the unit's own lines: user, capabilities, command.

use std::fs;
use std::io::ErrorKind;
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::net::UnixDatagram;
use std::path::{Path, PathBuf};
use std::process::{Child, Command};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};

use crate::arch::Arch;
use crate::dist::{self, inspect};
use crate::shell;

/// How long anything may take that must happen.
const PATIENCE: Duration = Duration::from_secs(60);
/// The names of the packages in the folder of the test.
const PACKAGES: [&str; 2] = ["first.deb", "second.deb"];
const CONFIGURATION: &str = "/etc/wsproxy/wsproxy.toml";
const UNIT: &str = "/usr/lib/systemd/system/wsproxy.service";
/// The least exposed is 0; systemd calls 2.5 and below "OK" still. Times ten.
const MOST_EXPOSED: &str = "25";

/// `cargo xtask package-test`.
pub fn main(deb: Option<&Path>) -> Result<()> {
    if let Some(missing) = missing() {
        bail!("{missing}");
    }
    let folder = shell::root().join("target/package-test");
    dist::fresh(&folder)?;
    let version = dist::Release::current()?.version;
    if let Some(deb) = deb {
        let arch = inspect::machine(deb)?;
        let files = inspect::package(deb, arch, &version)?;
        println!("{}: {} files, as they have to be", deb.display(), files.len());
        if arch.is_foreign() {
            println!("it is for {}: it was looked into, and not installed", arch.name());
            return Ok(());
        }
    }
    let next = format!("{version}+1");
    let program = folder.join("wsproxy");
    let built = match deb {
        None => {
            let built = shell::root().join("target/tests/wsproxy");
            shell::run(Command::new("strip").arg("-o").arg(&program).arg(&built))?;
            dist::packages(&program, &[&version, &next], &folder.join("packages"))?
        }
        Some(deb) => {
            let unpacked = folder.join("unpacked");
            shell::run(Command::new("dpkg-deb").arg("-x").arg(deb).arg(&unpacked))?;
            let program = unpacked.join("usr/bin/wsproxy");
            let mut built = vec![deb.to_owned()];
            built.extend(dist::packages(&program, &[&next], &folder.join("packages"))?);
            built
        }
    };
    for ((package, name), version) in built.iter().zip(PACKAGES).zip([&version, &next]) {
        inspect::package(package, Arch::of_host()?, version)?;
        fs::copy(package, folder.join(name)).with_context(|| package.display().to_string())?;
    }
    check_texts(&dist::folder().join("manual"))?;
    check_unit(&shell::root().join("packaging/wsproxy.service"))?;
    let mut unshare = Command::new("unshare");
    unshare.args(["--mount", "--net", "--pid", "--ipc", "--uts", "--fork", "--kill-child"]);
    unshare.args(["--propagation", "private", "--"]);
    unshare.arg(std::env::current_exe().context("this program")?);
    shell::run(unshare.args(["package-test", "--inside"]).arg(&folder))
}

/// What this machine lacks for it.
pub fn missing() -> Option<String> {
    let programs = ["dpkg", "dpkg-deb", "unshare", "setpriv", "chroot", "strip", "systemd-analyze"];
    let programs = programs.into_iter().chain(["groff", "ip"]);
    let absent: Vec<_> =
        programs.filter(|program| shell::find_program(&[program]).is_none()).collect();
    if !absent.is_empty() {
        return Some(format!("not there: {}", absent.join(", ")));
    }
    let is_root = shell::output(Command::new("id").arg("-u")).is_ok_and(|id| id.trim() == "0");
    (!is_root).then(|| "the test of the package needs root".to_owned())
}

/// Man pages without warnings, completions that their shells can read.
fn check_texts(manual: &Path) -> Result<()> {
    for page in fs::read_dir(manual.join("man")).context("man pages")?.flatten() {
        let mut groff = Command::new("groff");
        groff.args(["-man", "-ww", "-Tutf8", "-Kutf8", "-z"]).arg(page.path());
        let output = groff.output().context("groff")?;
        let said = String::from_utf8_lossy(&output.stderr);
        ensure!(output.status.success() && said.trim().is_empty(), "{said}");
    }
    let completions = manual.join("completions");
    for (shell, file) in [("bash", "wsproxy.bash"), ("zsh", "_wsproxy"), ("fish", "wsproxy.fish")] {
        if shell::find_program(&[shell]).is_none() {
            println!("{shell} is not there: its completions were not read");
            continue;
        }
        shell::run(Command::new(shell).arg("-n").arg(completions.join(file)))?;
    }
    Ok(())
}

/// What systemd says of the unit, without running it.
fn check_unit(unit: &Path) -> Result<()> {
    let folder = shell::root().join("target/package-test/unit");
    dist::fresh(&folder)?;
    // The program is not installed here, and its absence would be all that is said.
    let text = fs::read_to_string(unit).context("the unit")?;
    let copy = folder.join("wsproxy.service");
    fs::write(&copy, text.replace("/usr/bin/wsproxy", "/bin/true")).context("a copy of it")?;
    let mut verify = Command::new("systemd-analyze");
    let verified = verify.args(["verify", "--man=no"]).arg(&copy).output().context("verify")?;
    let said = String::from_utf8_lossy(&verified.stderr);
    ensure!(verified.status.success() && !said.contains("wsproxy.service"), "{said}");
    let mut security = Command::new("systemd-analyze");
    security.args(["security", "--offline=true", "--no-pager", "--threshold", MOST_EXPOSED]);
    let said = shell::output(security.arg(&copy))?;
    println!("{}", said.lines().last().unwrap_or_default().trim());
    Ok(())
}

/// The same, in the namespaces.
pub fn inside(folder: &Path) -> Result<()> {
    let copy = Copy::new(folder)?;
    let demo = copy.demo()?;
    let began = Instant::now();
    copy.run(&["dpkg", "-i", "/tmp/first.deb"])?;
    let installed = began.elapsed();
    let unit = Unit::read(&copy)?;
    let (running, ready) = copy.start(&unit)?;
    copy.message("installed")?;
    println!(
        "from `dpkg -i` to the first message {:.2} s, of which `dpkg -i` took {:.2} s and the \
         program from start to ready {} ms",
        began.elapsed().as_secs_f64(),
        installed.as_secs_f64(),
        ready.as_millis()
    );
    copy.run(&["/usr/bin/wsproxy", "check", CONFIGURATION])?;
    copy.can_what_root_can(&unit)?;
    copy.has_only(&unit, running.0.id())?;
    println!("{}", copy.output(&["wsproxy", "status"])?.trim());

    let mine = format!("# mine\n{}", copy.read(CONFIGURATION)?);
    fs::write(copy.path(CONFIGURATION), &mine).context("a changed configuration")?;
    copy.run(&["dpkg", "-i", "/tmp/second.deb"])?;
    let version = copy.output(&["dpkg-query", "-W", "-f", "${Version}", "wsproxy"])?;
    ensure!(version.ends_with("+1"), "{version}");
    ensure!(copy.read(CONFIGURATION)? == mine, "an upgrade has changed the configuration");
    copy.message("beside an upgrade")?;
    running.stop()?;
    let (running, _) = copy.start(&unit)?;
    copy.message("upgraded")?;
    running.stop()?;
    copy.run(&["dpkg", "--verify", "wsproxy"])?;

    copy.run(&["dpkg", "-r", "wsproxy"])?;
    ensure!(!copy.path("/usr/bin/wsproxy").exists(), "the program was not removed");
    ensure!(copy.read(CONFIGURATION)? == mine, "a removal has changed the configuration");
    demo.stop()?;
    copy.run(&["dpkg", "-P", "wsproxy"])?;
    copy.is_empty()
}

/// The lines of the unit that the test follows.
struct Unit {
    user: String,
    capabilities: Vec<String>,
    start: Vec<String>,
}

impl Unit {
    fn read(copy: &Copy) -> Result<Self> {
        let text = copy.read(UNIT)?;
        let value = |key: &str| {
            let line = text.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix('='));
            line.with_context(|| format!("{key}= is not in the unit"))
        };
        let words = |text: &str| text.split(' ').map(str::to_owned).collect::<Vec<_>>();
        let bounding = value("CapabilityBoundingSet")?;
        ensure!(bounding == value("AmbientCapabilities")?, "two sets of capabilities");
        Ok(Self {
            user: value("User")?.to_owned(),
            capabilities: words(bounding),
            start: words(value("ExecStart")?),
        })
    }

    /// What runs a program as the unit would.
    fn surroundings(&self) -> Vec<String> {
        let lower = |name: &String| format!("+{}", name.trim_start_matches("CAP_").to_lowercase());
        let set: Vec<_> = self.capabilities.iter().map(lower).collect();
        let set = format!("-all,{}", set.join(","));
        let user = &self.user;
        let mut words = vec!["setpriv".to_owned()];
        words.push(format!("--reuid={user}"));
        words.push(format!("--regid={user}"));
        words.extend(["--clear-groups".into(), "--no-new-privs".into()]);
        for kind in ["inh-caps", "ambient-caps", "bounding-set"] {
            words.push(format!("--{kind}={set}"));
        }
        words.push("--".into());
        words
    }
}

/// A program that is ended with the test, at the latest.
struct Running(Child);

impl Running {
    fn stop(mut self) -> Result<()> {
        shell::run(Command::new("kill").arg(self.0.id().to_string()))?;
        let end = Instant::now() + PATIENCE;
        loop {
            if let Some(status) = self.0.try_wait().context("waiting for the program")? {
                ensure!(status.success(), "the program ended with {status}");
                return Ok(());
            }
            ensure!(Instant::now() < end, "the program does not end");
            std::thread::sleep(Duration::from_millis(10));
        }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // It has ended, or does now.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// A copy of this system; it is gone with its namespaces.
struct Copy {
    root: PathBuf,
    upper: PathBuf,
}

impl Copy {
    fn new(folder: &Path) -> Result<Self> {
        let memory = folder.join("memory");
        fs::create_dir_all(&memory).context("a folder for the copy")?;
        mount(&["-t", "tmpfs", "none"], &memory)?;
        let [root, upper, work] = ["root", "upper", "work"].map(|name| memory.join(name));
        for folder in [&root, &upper, &work] {
            fs::create_dir(folder).with_context(|| folder.display().to_string())?;
        }
        let layers = format!("lowerdir=/,upperdir={},workdir={}", upper.display(), work.display());
        mount(&["-t", "overlay", "-o", &layers, "overlay"], &root)?;
        let copy = Self { root, upper };
        for (kind, place) in
            [("proc", "/proc"), ("sysfs", "/sys"), ("bpf", "/sys/fs/bpf"), ("tmpfs", "/run")]
        {
            mount(&["-t", kind, kind], &copy.path(place))?;
        }
        mount(&["-t", "tmpfs", "-o", "mode=1777", "tmpfs"], &copy.path("/tmp"))?;
        mount(&["--rbind", "/dev"], &copy.path("/dev"))?;
        shell::run(Command::new("ip").args(["link", "set", "lo", "up"]))?;
        // This machine may have one of its own.
        copy.output(&["dpkg", "--purge", "wsproxy"])?;
        let _absent = fs::remove_dir_all(copy.path("/etc/wsproxy"));
        for name in PACKAGES {
            fs::copy(folder.join(name), copy.path("/tmp").join(name)).context("a package")?;
        }
        Ok(copy)
    }

    /// Where something of the copy is.
    fn path(&self, absolute: &str) -> PathBuf {
        self.root.join(absolute.trim_start_matches('/'))
    }

    fn read(&self, absolute: &str) -> Result<String> {
        fs::read_to_string(self.path(absolute)).with_context(|| absolute.to_owned())
    }

    fn command<S: AsRef<std::ffi::OsStr>>(&self, words: &[S]) -> Command {
        let mut command = Command::new("chroot");
        command.arg(&self.root).args(words).env("DEBIAN_FRONTEND", "noninteractive");
        // dpkg looks for programs there, and a user's PATH may lack them.
        command.env("PATH", "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin");
        command.current_dir("/");
        command
    }

    fn run(&self, words: &[&str]) -> Result<()> {
        shell::run(&mut self.command(words))
    }

    fn output(&self, words: &[&str]) -> Result<String> {
        shell::output(&mut self.command(words))
    }

    /// The embedded echo server of the program behind the installed one.
    fn demo(&self) -> Result<Running> {
        let folder = self.path("/tmp/demo");
        let package = self.path("/tmp").join(PACKAGES[0]);
        shell::run(Command::new("dpkg-deb").arg("-x").arg(package).arg(&folder))?;
        let words = ["/tmp/demo/usr/bin/wsproxy", "run", "--listen", "127.0.0.1:9000"];
        let mut command = self.command(&words);
        command.args(["--datapath", "relay", "--log-level", "warn"]);
        let demo = Running(command.spawn().context("the demo")?);
        let end = Instant::now() + PATIENCE;
        while std::net::TcpStream::connect("127.0.0.1:9000").is_err() {
            ensure!(Instant::now() < end, "the demo does not listen");
            std::thread::sleep(Duration::from_millis(5));
        }
        Ok(demo)
    }

    /// The capabilities of the unit are enough, if root's are.
    fn can_what_root_can(&self, unit: &Unit) -> Result<()> {
        if let Err(error) = self.output(&["wsproxy", "doctor"]) {
            println!("the kernel path is not here, even for root: {error:#}");
            return Ok(());
        }
        let words = unit.surroundings();
        let words: Vec<_> = words.iter().map(String::as_str).chain(["wsproxy", "doctor"]).collect();
        self.output(&words).context("as the unit's user").map(drop)
    }

    /// Starts it as the unit would; how long it took until it said that it is ready.
    fn start(&self, unit: &Unit) -> Result<(Running, Duration)> {
        let runtime = self.path("/run/wsproxy");
        if !runtime.exists() {
            let words = ["install", "-d", "-o", &unit.user, "-g", &unit.user, "/run/wsproxy"];
            self.run(&words)?;
        }
        let place = self.path("/run/notify");
        let _absent = fs::remove_file(&place);
        let socket = UnixDatagram::bind(&place).context("a socket for READY")?;
        fs::set_permissions(&place, fs::Permissions::from_mode(0o777)).context("its mode")?;
        socket.set_read_timeout(Some(Duration::from_millis(100))).context("its time limit")?;
        let words: Vec<_> = unit.surroundings().into_iter().chain(unit.start.clone()).collect();
        let mut command = self.command(&words);
        command.env("NOTIFY_SOCKET", "/run/notify");
        let began = Instant::now();
        let mut running = Running(command.spawn().context("the program")?);
        let mut text = [0; 256];
        loop {
            match socket.recv(&mut text) {
                Ok(length) if text[..length].starts_with(b"READY=1") => break,
                Ok(_) => {}
                Err(error) if matches!(error.kind(), ErrorKind::WouldBlock) => {}
                Err(error) => return Err(error).context("the socket for READY"),
            }
            let ended = running.0.try_wait().context("the program")?;
            ensure!(ended.is_none(), "it ended instead of being ready: {ended:?}");
            ensure!(began.elapsed() < PATIENCE, "it is not ready");
        }
        Ok((running, began.elapsed()))
    }

    /// A WebSocket message through it, and back.
    fn message(&self, text: &str) -> Result<()> {
        let words = ["wsproxy", "probe", "--message", text, "ws://127.0.0.1:8080/ws"];
        self.output(&words).context("a message").map(drop)
    }

    /// It runs as the unit's user, with the unit's capabilities and no others.
    fn has_only(&self, unit: &Unit, pid: u32) -> Result<()> {
        let status = self.read(&format!("/proc/{pid}/status"))?;
        let field = |name: &str| {
            let line = status.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
            line.map(str::trim).with_context(|| format!("{name} is not in the status"))
        };
        let user = self.output(&["id", "-u", &unit.user])?;
        let users: Vec<_> = field("Uid")?.split_whitespace().collect();
        ensure!(users == [user.trim(); 4], "it runs as {users:?}");
        for set in ["CapPrm", "CapEff", "CapBnd", "CapAmb"] {
            let bits = u64::from_str_radix(field(set)?, 16).context("capabilities")?;
            let count = bits.count_ones() as usize;
            ensure!(count <= unit.capabilities.len(), "{set} has {count} capabilities");
        }
        Ok(())
    }

    /// Nothing is left of the package but dpkg's own notes.
    fn is_empty(&self) -> Result<()> {
        let found =
            shell::output(Command::new("find").arg(&self.upper).args(["-name", "*wsproxy*"]))?;
        ensure!(found.trim().is_empty(), "left:\n{found}");
        for database in ["passwd", "group"] {
            let left = self.output(&["getent", database, "wsproxy"]);
            ensure!(left.is_err(), "the {database} database still has the user");
        }
        Ok(())
    }
}

fn mount(options: &[&str], place: &Path) -> Result<()> {
    shell::run(Command::new("mount").args(options).arg(place))
}
