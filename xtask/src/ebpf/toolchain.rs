//! Finding a compiler and a linker for BPF.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, anyhow, bail, ensure};

use super::stamp::Versions;
use crate::{digest, shell};

/// The target's name, for the compiler.
pub const TARGET: &str = "bpfel-unknown-none";

/// Where Debian and Ubuntu install their compiler; rustup's comes first on the PATH.
const DISTRIBUTION_RUSTC: &str = "/usr/bin/rustc";

const HOW_TO_GET_ONE: &str = "\
To get one:
  on Debian or Ubuntu, as root: xtask/setup-debian.sh
  elsewhere: rustup toolchain install nightly --component rust-src
             cargo install bpf-linker --version 0.13.0 --locked
             (with `--no-default-features --features llvm-NN`, NN being the LLVM major that
             `rustc +nightly -vV` names)";

/// A compiler and a linker that fit each other.
pub struct Toolchain {
    kind: Kind,
    /// What decides the object's bytes.
    pub versions: Versions,
    /// The program that strips debug information.
    pub objcopy: Objcopy,
    /// Where the standard library's sources are, if it is built along.
    pub library_sources: Option<PathBuf>,
}

enum Kind {
    /// Has a ready `core` for the target.
    Distribution,
    /// rustup's name of a nightly toolchain, which builds `core` along.
    Nightly(String),
}

/// The program that strips debug information. Which one it is makes no difference.
pub struct Objcopy {
    /// `llvm-objcopy`, or `rust-objcopy` of the Rust toolchain.
    pub program: PathBuf,
    /// Where it has its libraries, if not where every program has them.
    pub libraries: Option<PathBuf>,
}

impl Toolchain {
    /// The distribution's toolchain or else rustup's nightly; the error says how to get one.
    pub fn find() -> Result<Self> {
        let none = |what: String| anyhow!("{what}\n{HOW_TO_GET_ONE}");
        let (linker, linker_version) = find_linker().map_err(|error| none(format!("{error:#}")))?;
        let objcopy = find_objcopy().map_err(|error| none(format!("{error:#}")))?;
        let linker_llvm = linked_llvm_major(&digest::read(&linker)?);

        let mut refusals = String::from("no compiler for BPF is here:");
        for found in [find_distribution(), find_nightly()] {
            match found.and_then(|compiler| compiler.fits(linker_llvm)) {
                Ok(Compiler { kind, rustc, llvm, library_sources }) => {
                    let versions = Versions { rustc, llvm, bpf_linker: linker_version };
                    return Ok(Self { kind, versions, objcopy, library_sources });
                }
                Err(refusal) => refusals.push_str(&format!("\n  {refusal:#}")),
            }
        }
        Err(none(refusals))
    }

    /// Which of the two ways this is.
    pub fn name(&self) -> String {
        match &self.kind {
            Kind::Distribution => format!("{DISTRIBUTION_RUSTC} with its own core"),
            Kind::Nightly(name) => format!("rustup's {name} with -Z build-std=core"),
        }
    }

    /// A cargo that compiles with this toolchain; its sub-command is still to be added.
    pub fn cargo(&self) -> Command {
        match &self.kind {
            Kind::Distribution => {
                let mut cargo = shell::cargo();
                // The crate uses an unstable intrinsic; no other build may.
                cargo.env("RUSTC", DISTRIBUTION_RUSTC).env("RUSTC_BOOTSTRAP", "1");
                cargo
            }
            Kind::Nightly(name) => {
                let mut rustup = Command::new("rustup");
                rustup.args(["run", name, "cargo", "-Zbuild-std=core"]).env_remove("RUSTC");
                rustup
            }
        }
    }
}

struct Compiler {
    kind: Kind,
    rustc: String,
    llvm: String,
    library_sources: Option<PathBuf>,
}

impl Compiler {
    /// The linker reads LLVM's bitcode, which only the same major version is sure to read.
    fn fits(self, linker_llvm: Option<u32>) -> Result<Self> {
        let major = self.llvm.split('.').next().and_then(|major| major.parse().ok());
        ensure!(
            linker_llvm.is_none() || major == linker_llvm,
            "{} has LLVM {}, but bpf-linker was built for LLVM {}",
            self.rustc,
            self.llvm,
            linker_llvm.unwrap_or_default()
        );
        Ok(self)
    }
}

fn find_distribution() -> Result<Compiler> {
    ensure!(Path::new(DISTRIBUTION_RUSTC).exists(), "{DISTRIBUTION_RUSTC} is not there");
    let rustc = || Command::new(DISTRIBUTION_RUSTC);
    let folder = shell::output(rustc().args(["--print", "target-libdir", "--target", TARGET]))
        .unwrap_or_default();
    let has_core = Path::new(folder.trim()).read_dir().is_ok_and(|entries| {
        entries.flatten().any(|entry| entry.file_name().to_string_lossy().starts_with("libcore-"))
    });
    ensure!(has_core, "{DISTRIBUTION_RUSTC} has no core library for {TARGET}");
    let (rustc, llvm) = versions(&mut rustc())?;
    Ok(Compiler { kind: Kind::Distribution, rustc, llvm, library_sources: None })
}

fn find_nightly() -> Result<Compiler> {
    let list = shell::output(Command::new("rustup").args(["toolchain", "list"]))
        .map_err(|_| anyhow!("rustup is not there"))?;
    let names = list.lines().filter_map(|line| line.split_whitespace().next());
    for name in names.filter(|name| name.starts_with("nightly")) {
        let rustc = || {
            let mut command = Command::new("rustup");
            command.args(["run", name, "rustc"]);
            command
        };
        let sysroot = shell::output(rustc().args(["--print", "sysroot"]))?;
        let sources = Path::new(sysroot.trim()).join("lib/rustlib/src/rust");
        if sources.join("library/core/src/lib.rs").exists() {
            let (version, llvm) = versions(&mut rustc())?;
            let kind = Kind::Nightly(name.to_owned());
            return Ok(Compiler { kind, rustc: version, llvm, library_sources: Some(sources) });
        }
    }
    bail!("rustup has no nightly toolchain with the component rust-src")
}

/// The compiler's and its LLVM's versions.
fn versions(rustc: &mut Command) -> Result<(String, String)> {
    let text = shell::output(rustc.arg("-vV"))?;
    let version = text.lines().next().context("rustc tells no version")?;
    let llvm = text
        .lines()
        .find_map(|line| line.strip_prefix("LLVM version: "))
        .context("rustc tells no LLVM version")?;
    Ok((version.to_owned(), llvm.to_owned()))
}

fn find_linker() -> Result<(PathBuf, String)> {
    let linker = shell::find_program(&["bpf-linker"]).context("bpf-linker is not on the PATH")?;
    let said = shell::output(Command::new(&linker).arg("--version"))
        .context("bpf-linker does not start; its LLVM library may be gone")?;
    let version = said.trim().strip_prefix("bpf-linker ").unwrap_or(said.trim()).to_owned();
    Ok((linker, version))
}

fn find_objcopy() -> Result<Objcopy> {
    if let Some(program) = shell::find_program(&["llvm-objcopy"]) {
        return Ok(Objcopy { program, libraries: None });
    }
    let printed = shell::output(Command::new("rustc").args(["--print", "sysroot"]))?;
    let sysroot = Path::new(printed.trim());
    let program = sysroot.join("lib/rustlib").join(shell::host()?).join("bin/rust-objcopy");
    ensure!(program.exists(), "neither llvm-objcopy nor rust-objcopy is there");
    Ok(Objcopy { program, libraries: Some(sysroot.join("lib")) })
}

/// The major version of the LLVM library that a program names as its need; none when it
/// names none, as a statically linked one does.
fn linked_llvm_major(program: &[u8]) -> Option<u32> {
    // libLLVM.so.22.1, libLLVM-22.so
    [b"libLLVM.so.".as_slice(), b"libLLVM-"].into_iter().find_map(|prefix| {
        let at = program.windows(prefix.len()).position(|bytes| bytes == prefix)?;
        let digits = program[at + prefix.len()..].iter().take_while(|byte| byte.is_ascii_digit());
        String::from_utf8(digits.copied().collect()).ok()?.parse().ok()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_linker_names_its_llvm() {
        for (program, major) in [
            ("\0libc.so.6\0libLLVM.so.22.1\0", Some(22)),
            ("\0libLLVM-19.so\0", Some(19)),
            ("\0libLLVM.so.21.1-rust-1.91.0-nightly\0", Some(21)),
            ("\0libc.so.6\0", None),
            ("libLLVM.so.", None),
        ] {
            assert_eq!(linked_llvm_major(program.as_bytes()), major, "{program:?}");
        }
    }

    #[test]
    fn another_llvm_major_does_not_fit() {
        let compiler = |llvm: &str| Compiler {
            kind: Kind::Distribution,
            rustc: "rustc 1.96.0".into(),
            llvm: llvm.into(),
            library_sources: None,
        };
        assert!(compiler("22.1.8").fits(Some(22)).is_ok());
        assert!(compiler("22.1.8").fits(None).is_ok());
        let refusal = compiler("23.0.0").fits(Some(22)).err().expect("a refusal");
        assert!(refusal.to_string().contains("LLVM 23.0.0"), "{refusal}");
    }
}
