//! What can be told of a program of ours without running it: for which machine it is, what it needs
//! to run, and that it has the BPF object that is committed.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};

use crate::arch::Arch;
use crate::{digest, shell};

const OBJECT: &str = "wsproxy/ebpf-object/wsproxy.bpf.o";
/// Of a file that names the loader which starts it (`PT_INTERP` of elf(5)).
const INTERPRETER: u32 = 3;

/// A program that was built.
pub struct Program {
    path: PathBuf,
    bytes: Vec<u8>,
}

impl Program {
    /// Reads it.
    pub fn read(path: &Path) -> Result<Self> {
        Ok(Self { path: path.to_owned(), bytes: digest::read(path)? })
    }

    /// Checks what holds for each build: it is for this machine, and it has the committed object.
    pub fn check(&self, arch: Arch) -> Result<()> {
        let name = self.path.display();
        ensure!(self.machine()? == arch.elf(), "{name} is not for {}", arch.name());
        let object = digest::read(&shell::root().join(OBJECT))?;
        ensure!(self.has(&object), "{name} does not have the bytes of {OBJECT}");
        Ok(())
    }

    /// Checks what holds for a release: it needs no library, has no more bytes than this, and names
    /// no folder of this machine.
    pub fn check_release(&self, most: usize) -> Result<()> {
        let name = self.path.display();
        let size = self.bytes.len();
        ensure!(size < most, "{name} has {size} bytes, more than {most}");
        ensure!(self.is_static()?, "{name} needs a loader and libraries");
        for folder in [shell::root(), shell::cargo_home()?] {
            let named = self.has(folder.as_os_str().as_encoded_bytes());
            ensure!(!named, "{name} names {}", folder.display());
        }
        Ok(())
    }

    /// Its size, in bytes.
    pub fn size(&self) -> usize {
        self.bytes.len()
    }

    fn has(&self, part: &[u8]) -> bool {
        !part.is_empty() && self.bytes.windows(part.len()).any(|bytes| bytes == part)
    }

    /// `e_machine` of its header.
    fn machine(&self) -> Result<u16> {
        // 64 bits, the lowest byte first: both machines have that.
        ensure!(self.bytes.starts_with(b"\x7fELF\x02\x01"), "{} is no ELF", self.path.display());
        Ok(u16::from_le_bytes(self.field(18)?))
    }

    /// Whether none of its program headers names a loader.
    fn is_static(&self) -> Result<bool> {
        let start = u64::from_le_bytes(self.field(32)?) as usize;
        let size = usize::from(u16::from_le_bytes(self.field(54)?));
        let count = usize::from(u16::from_le_bytes(self.field(56)?));
        for at in (0..count).map(|number| start + number * size) {
            if u32::from_le_bytes(self.field(at)?) == INTERPRETER {
                return Ok(false);
            }
        }
        Ok(true)
    }

    fn field<const N: usize>(&self, at: usize) -> Result<[u8; N]> {
        let bytes = self.bytes.get(at..).and_then(|rest| rest.first_chunk());
        bytes.copied().with_context(|| format!("{} is cut off", self.path.display()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A header with one program header of this type behind it.
    fn program(machine: u16, kind: u32, behind: &[u8]) -> Program {
        let mut bytes = b"\x7fELF\x02\x01".to_vec();
        bytes.resize(64, 0);
        bytes[18..20].copy_from_slice(&machine.to_le_bytes());
        bytes[32..40].copy_from_slice(&64_u64.to_le_bytes());
        bytes[54..56].copy_from_slice(&56_u16.to_le_bytes());
        bytes[56..58].copy_from_slice(&1_u16.to_le_bytes());
        bytes.extend(kind.to_le_bytes());
        bytes.resize(64 + 56, 0);
        bytes.extend(behind);
        Program { path: "program".into(), bytes }
    }

    #[test]
    fn the_machine_and_the_object_are_looked_at() {
        let object = digest::read(&shell::root().join(OBJECT)).expect("it is committed");
        let good = program(183, 1, &object);
        good.check(Arch::Arm64).expect("all is as it has to be");
        assert!(good.check(Arch::X86_64).is_err());
        let mut changed = object;
        changed[100] ^= 1;
        assert!(program(183, 1, &changed).check(Arch::Arm64).is_err());
        let text = Program { path: "text".into(), bytes: b"#!/bin/sh".to_vec() };
        assert!(text.check(Arch::X86_64).is_err());
    }

    #[test]
    fn a_release_is_static_small_and_without_folders() {
        program(62, 1, b"").check_release(1000).expect("all is as it has to be");
        assert!(program(62, INTERPRETER, b"").check_release(1000).is_err());
        assert!(program(62, 1, &[0; 1000]).check_release(1000).is_err());
        let root = shell::root();
        let path = root.as_os_str().as_encoded_bytes();
        assert!(program(62, 1, path).check_release(1000).is_err());
    }
}
