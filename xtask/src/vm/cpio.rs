//! An archive in the kernel's format for its first file system ("newc",
//! Documentation/driver-api/early-userspace/buffer-format.rst), written without root.

use std::collections::BTreeSet;
use std::io::{self, Write};

/// The last entry's name.
const TRAILER: &str = "TRAILER!!!";
const FOLDER: u32 = 0o040_755;
const FILE: u32 = 0o100_644;
const PROGRAM: u32 = 0o100_755;
const LINK: u32 = 0o120_777;

/// An archive that is being written.
pub struct Archive<W> {
    to: W,
    next: u32,
    folders: BTreeSet<String>,
}

impl<W: Write> Archive<W> {
    /// An empty one.
    pub fn new(to: W) -> Self {
        Self { to, next: 1, folders: BTreeSet::new() }
    }

    /// A file that is only read. Names have no slash in front.
    ///
    /// # Errors
    /// It can't be written.
    pub fn file(&mut self, name: &str, content: &[u8]) -> io::Result<()> {
        self.entry(name, FILE, content)
    }

    /// A file that can be started.
    ///
    /// # Errors
    /// It can't be written.
    pub fn program(&mut self, name: &str, content: &[u8]) -> io::Result<()> {
        self.entry(name, PROGRAM, content)
    }

    /// A symbolic link.
    ///
    /// # Errors
    /// It can't be written.
    pub fn link(&mut self, name: &str, to: &str) -> io::Result<()> {
        self.entry(name, LINK, to.as_bytes())
    }

    /// An empty folder.
    ///
    /// # Errors
    /// It can't be written.
    pub fn folder(&mut self, name: &str) -> io::Result<()> {
        self.parents(&format!("{name}/"))
    }

    /// The end.
    ///
    /// # Errors
    /// It can't be written.
    pub fn finish(mut self) -> io::Result<W> {
        self.header(TRAILER, 0, 0)?;
        self.to.flush()?;
        Ok(self.to)
    }

    fn entry(&mut self, name: &str, mode: u32, content: &[u8]) -> io::Result<()> {
        self.parents(name)?;
        self.header(name, mode, content.len())?;
        self.to.write_all(content)?;
        self.pad(content.len())
    }

    /// The kernel makes no folders by itself.
    fn parents(&mut self, name: &str) -> io::Result<()> {
        for (at, _) in name.match_indices('/') {
            let folder = &name[..at];
            if self.folders.insert(folder.to_owned()) {
                self.header(folder, FOLDER, 0)?;
            }
        }
        Ok(())
    }

    fn header(&mut self, name: &str, mode: u32, size: usize) -> io::Result<()> {
        let size = u32::try_from(size).map_err(|_| io::ErrorKind::FileTooLarge)?;
        let name_size = name.len() as u32 + 1;
        let inode = self.next;
        self.next += 1;
        // Magic, then: inode, mode, uid, gid, links, time, size, device (2), of a device (2),
        // size of the name, sum.
        let fields = [inode, mode, 0, 0, 1, 0, size, 0, 0, 0, 0, name_size, 0];
        write!(self.to, "070701")?;
        for field in fields {
            write!(self.to, "{field:08X}")?;
        }
        self.to.write_all(name.as_bytes())?;
        self.to.write_all(&[0])?;
        self.pad(6 + 8 * fields.len() + name.len() + 1)
    }

    fn pad(&mut self, written: usize) -> io::Result<()> {
        self.to.write_all(&[0; 3][..written.next_multiple_of(4) - written])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn entries_are_aligned_and_folders_come_first_and_once() {
        let mut archive = Archive::new(Vec::new());
        archive.program("bin/a", b"12345").expect("a vector");
        archive.file("bin/b", b"").expect("a vector");
        archive.link("bin/deep/c", "../a").expect("a vector");
        let bytes = archive.finish().expect("a vector");
        assert_eq!(bytes.len() % 4, 0);
        let at = |name: &str| {
            let name = [name.as_bytes(), &[0]].concat();
            let found: Vec<_> =
                (0..bytes.len()).filter(|at| bytes[*at..].starts_with(&name)).collect();
            assert_eq!(found.len(), 1, "{name:?}");
            assert_eq!(&bytes[found[0] - 110..found[0] - 104], b"070701");
            found[0]
        };
        let order = ["bin", "bin/a", "bin/b", "bin/deep", "bin/deep/c", TRAILER].map(at);
        assert!(order.is_sorted(), "{order:?}");
        let content = (at("bin/a") + 6).next_multiple_of(4) - (at("bin/a") - 110) % 4;
        assert!(bytes[content..].starts_with(b"12345") || content % 4 == 0);
    }
}
