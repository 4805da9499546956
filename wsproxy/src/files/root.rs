//! Opening files below the root directory, and nowhere else.

use std::fs::File;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;

use hyper::StatusCode;
use rustix::fs::{CWD, Mode, OFlags, ResolveFlags, openat, openat2};
use rustix::io::{Errno, retry_on_intr};

use super::path::RelPath;

/// No path of the file system leads out of the root. Magic links (those of
/// /proc) name files without a path, so that nothing could hold them back.
const BELOW: ResolveFlags = ResolveFlags::BENEATH.union(ResolveFlags::NO_MAGICLINKS);

/// For reading. The open of a FIFO must not wait for its writer, and that of a
/// terminal must not make it ours.
const READ: OFlags =
    OFlags::RDONLY.union(OFlags::NONBLOCK).union(OFlags::NOCTTY).union(OFlags::CLOEXEC);

/// For looking only, which needs no permission on the file itself.
const LOOK: OFlags = OFlags::PATH.union(OFlags::CLOEXEC);

/// How often an open is tried again when somebody renames directories at the
/// same time (openat2(2), EAGAIN).
const MAX_TRIES: u32 = 16;

/// How a path is kept below the root.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Resolver {
    /// The kernel does it; symlinks that stay below the root are followed.
    Kernel,
    /// One directory after the other, without any symlink: for kernels without
    /// openat2 (before 5.6), and sandboxes that hide it.
    Walk,
}

/// The root directory, open.
#[derive(Debug)]
pub(super) struct Root {
    fd: OwnedFd,
    resolver: Resolver,
}

/// A regular file that is open for reading, and what was said of it then.
#[derive(Debug)]
pub(super) struct OpenFile {
    pub(super) file: File,
    /// In bytes.
    pub(super) size: u64,
    /// The last change: seconds since 1970, before it below zero.
    pub(super) modified: i64,
    /// The nanoseconds of that second.
    pub(super) modified_nanos: u32,
}

/// What a path leads to.
#[derive(Debug)]
pub(super) enum Node {
    File(OpenFile),
    Directory,
}

/// Why a path leads to nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Miss {
    /// Nothing there that may be served, or it is out of the root.
    Missing,
    /// No permission.
    Forbidden,
    /// The system has no means to open it now.
    Busy,
    /// Any other error.
    Failed,
}

impl Miss {
    pub(super) fn status(self) -> StatusCode {
        match self {
            Self::Missing => StatusCode::NOT_FOUND,
            Self::Forbidden => StatusCode::FORBIDDEN,
            Self::Busy => StatusCode::SERVICE_UNAVAILABLE,
            Self::Failed => StatusCode::INTERNAL_SERVER_ERROR,
        }
    }
}

impl From<Errno> for Miss {
    fn from(errno: Errno) -> Self {
        match errno {
            // XDEV and LOOP: a symlink that leads out of the root, or in circles,
            // or one that the walk does not follow. NXIO: a socket.
            Errno::NOENT
            | Errno::NOTDIR
            | Errno::NAMETOOLONG
            | Errno::XDEV
            | Errno::LOOP
            | Errno::NXIO
            | Errno::NODEV => Self::Missing,
            Errno::ACCESS | Errno::PERM => Self::Forbidden,
            Errno::AGAIN | Errno::MFILE | Errno::NFILE | Errno::NOMEM => Self::Busy,
            _ => Self::Failed,
        }
    }
}

impl Root {
    /// Opens the directory and finds out what the kernel can do.
    pub(super) fn open(path: &Path) -> io::Result<Self> {
        let fd = open_root(path)?;
        let resolver = match openat2(&fd, ".", LOOK, Mode::empty(), BELOW) {
            Ok(_) => Resolver::Kernel,
            // PERM: how older seccomp filters refuse calls that they do not know.
            Err(Errno::NOSYS | Errno::PERM | Errno::INVAL) => Resolver::Walk,
            Err(errno) => return Err(errno.into()),
        };
        Ok(Self { fd, resolver })
    }

    /// Opens the directory for one way to keep paths below it.
    #[cfg(test)]
    pub(super) fn open_with(path: &Path, resolver: Resolver) -> io::Result<Self> {
        Ok(Self { fd: open_root(path)?, resolver })
    }

    /// Opens what the path leads to. May block on a slow disk.
    pub(super) fn node(&self, path: &RelPath) -> Result<Node, Miss> {
        match self.descriptor(path, READ) {
            Ok(fd) => node_of(fd),
            // A directory that can be passed through but not listed.
            Err(Errno::ACCESS) if self.is_directory(path) => Ok(Node::Directory),
            Err(errno) => Err(errno.into()),
        }
    }

    fn is_directory(&self, path: &RelPath) -> bool {
        self.descriptor(path, LOOK | OFlags::DIRECTORY).is_ok()
    }

    fn descriptor(&self, path: &RelPath, flags: OFlags) -> Result<OwnedFd, Errno> {
        match self.resolver {
            Resolver::Kernel => self.resolved(path, flags),
            Resolver::Walk => self.walked(path, flags),
        }
    }

    fn resolved(&self, path: &RelPath, flags: OFlags) -> Result<OwnedFd, Errno> {
        let mut tries = 1;
        loop {
            match openat2(&self.fd, path.as_path(), flags, Mode::empty(), BELOW) {
                Err(Errno::AGAIN | Errno::INTR) if tries < MAX_TRIES => tries += 1,
                done => return done,
            }
        }
    }

    fn walked(&self, path: &RelPath, flags: OFlags) -> Result<OwnedFd, Errno> {
        let step = |at: Option<&OwnedFd>, name: &str, flags: OFlags| {
            let at = at.unwrap_or(&self.fd);
            retry_on_intr(|| openat(at, name, flags | OFlags::NOFOLLOW, Mode::empty()))
        };
        let mut above: Option<OwnedFd> = None;
        let mut name = ".";
        for next in path.segments() {
            if name != "." {
                above = Some(step(above.as_ref(), name, LOOK | OFlags::DIRECTORY)?);
            }
            name = next;
        }
        step(above.as_ref(), name, flags)
    }
}

fn open_root(path: &Path) -> io::Result<OwnedFd> {
    let flags = LOOK | OFlags::DIRECTORY;
    retry_on_intr(|| openat(CWD, path, flags, Mode::empty())).map_err(|errno| {
        let why = io::Error::from(errno);
        io::Error::new(why.kind(), format!("{}: {why}", path.display()))
    })
}

/// Looks at what was opened before anything is read of it: a read of a FIFO or
/// of a device could do harm or never end.
fn node_of(fd: OwnedFd) -> Result<Node, Miss> {
    let file = File::from(fd);
    let metadata = file.metadata().map_err(|_| Miss::Failed)?;
    if metadata.is_dir() {
        return Ok(Node::Directory);
    }
    if !metadata.is_file() {
        return Err(Miss::Missing);
    }
    Ok(Node::File(OpenFile {
        size: metadata.len(),
        modified: metadata.mtime(),
        modified_nanos: u32::try_from(metadata.mtime_nsec()).unwrap_or(0),
        file,
    }))
}
