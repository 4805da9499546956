//! The note beside the committed object: what built it, and from what.

use std::fmt;

use anyhow::{Context, Result};

/// What decides the object's bytes, next to its sources.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Versions {
    /// The compiler, as `rustc --version` says it.
    pub rustc: String,
    /// The LLVM of the compiler.
    pub llvm: String,
    /// The linker, which generates the code.
    pub bpf_linker: String,
}

/// The content of the stamp file.
#[derive(Debug, PartialEq, Eq)]
pub struct Stamp {
    /// What built the object.
    pub versions: Versions,
    /// The object's SHA-256.
    pub object: String,
    /// The SHA-256 over the sources' names and contents.
    pub sources: String,
}

impl Stamp {
    /// Reads a stamp file.
    pub fn parse(text: &str) -> Result<Self> {
        let field = |key: &str| {
            text.lines()
                .filter_map(|line| line.split_once(" = "))
                .find_map(|(name, value)| (name == key).then(|| value.to_owned()))
                .with_context(|| format!("the STAMP of the BPF object has no line `{key} = ...`"))
        };
        Ok(Self {
            versions: Versions {
                rustc: field("rustc")?,
                llvm: field("llvm")?,
                bpf_linker: field("bpf-linker")?,
            },
            object: field("object-sha256")?,
            sources: field("sources-sha256")?,
        })
    }

    /// In what the toolchain at hand differs from the one that built the object.
    pub fn differences(&self, here: &Versions) -> Vec<String> {
        [
            ("rustc", &self.versions.rustc, &here.rustc),
            ("LLVM", &self.versions.llvm, &here.llvm),
            ("bpf-linker", &self.versions.bpf_linker, &here.bpf_linker),
        ]
        .into_iter()
        .filter(|(_, stamped, here)| stamped != here)
        .map(|(what, stamped, here)| format!("{what}: {stamped} then, {here} here"))
        .collect()
    }
}

impl fmt::Display for Stamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Versions { rustc, llvm, bpf_linker } = &self.versions;
        writeln!(f, "# Written by `cargo xtask build-ebpf`, checked by `build-ebpf --check`.")?;
        writeln!(f, "rustc = {rustc}")?;
        writeln!(f, "llvm = {llvm}")?;
        writeln!(f, "bpf-linker = {bpf_linker}")?;
        writeln!(f, "object-sha256 = {}", self.object)?;
        writeln!(f, "sources-sha256 = {}", self.sources)
    }
}

impl fmt::Display for Versions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}, LLVM {}, bpf-linker {}", self.rustc, self.llvm, self.bpf_linker)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stamp() -> Stamp {
        Stamp {
            versions: Versions {
                rustc: "rustc 1.96.0 (abc 2026-05-25)".into(),
                llvm: "22.1.8".into(),
                bpf_linker: "0.13.0".into(),
            },
            object: "aa".into(),
            sources: "bb".into(),
        }
    }

    #[test]
    fn what_is_written_is_read() {
        assert_eq!(Stamp::parse(&stamp().to_string()).expect("a stamp"), stamp());
    }

    #[test]
    fn a_missing_line_is_named() {
        let text = stamp().to_string().replace("llvm = 22.1.8\n", "");
        let error = Stamp::parse(&text).expect_err("no LLVM version");
        assert!(error.to_string().contains("`llvm = ...`"), "{error}");
    }

    #[test]
    fn each_version_counts() {
        let stamp = stamp();
        let here = &stamp.versions;
        assert!(stamp.differences(here).is_empty());
        for other in [
            Versions { rustc: "rustc 1.97.0".into(), ..here.clone() },
            Versions { llvm: "22.1.9".into(), ..here.clone() },
            Versions { bpf_linker: "0.14.0".into(), ..here.clone() },
        ] {
            assert_eq!(stamp.differences(&other).len(), 1, "{other}");
        }
    }
}
