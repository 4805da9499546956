//! The machines that wsproxy is built for.

use anyhow::{Context, Result};
use clap::ValueEnum;

use crate::shell;

/// A machine that there are programs, packages and guests for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, ValueEnum)]
pub enum Arch {
    /// The PC.
    #[value(name = "x86_64", alias = "amd64")]
    X86_64,
    /// The Arm of servers.
    #[value(name = "arm64", alias = "aarch64")]
    Arm64,
}

impl Arch {
    /// All of them.
    pub const ALL: [Self; 2] = [Self::X86_64, Self::Arm64];

    /// This machine's.
    pub fn of_host() -> Result<Self> {
        let host = shell::host()?;
        let found = Self::ALL.into_iter().find(|arch| arch.target() == host);
        found.with_context(|| format!("nothing is built for {host}"))
    }

    /// As this program says it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::X86_64 => "x86_64",
            Self::Arm64 => "arm64",
        }
    }

    /// As Debian says it.
    pub const fn debian(self) -> &'static str {
        match self {
            Self::X86_64 => "amd64",
            Self::Arm64 => "arm64",
        }
    }

    /// As the compiler says it.
    pub const fn target(self) -> &'static str {
        match self {
            Self::X86_64 => "x86_64-unknown-linux-gnu",
            Self::Arm64 => "aarch64-unknown-linux-gnu",
        }
    }

    /// As an ELF file says it (`e_machine` of elf(5)).
    pub const fn elf(self) -> u16 {
        match self {
            Self::X86_64 => 62,
            Self::Arm64 => 183,
        }
    }

    /// Whether this is another machine's.
    pub fn is_foreign(self) -> bool {
        Self::of_host().map_or(true, |host| host != self)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_of_a_machines_names_are_taken() {
        for (name, arch) in [
            ("x86_64", Arch::X86_64),
            ("amd64", Arch::X86_64),
            ("arm64", Arch::Arm64),
            ("aarch64", Arch::Arm64),
        ] {
            assert_eq!(Arch::from_str(name, false), Ok(arch));
        }
        assert!(Arch::from_str("riscv64", false).is_err());
    }
}
