//! What of the packet path stays in the kernel when its process dies: files on a bpffs that hold
//! the maps and the attachments of the program. Programs go with the attachments.

use std::{
    collections::BTreeMap,
    error::Error,
    fs, io,
    path::{Path, PathBuf},
};

use aya::programs::{
    LinkOrder, SchedClassifier, TcAttachType,
    links::{FdLink, PinnedLink},
    tc::{SchedClassifierLink, TcAttachOptions},
};

use super::classical::Classical;

/// `BPF_FS_MAGIC` (`include/uapi/linux/magic.h`).
const BPF_FS_MAGIC: u32 = 0xcafe_4a11;
/// A name in a bpffs has no dot (`bpf_lookup`).
const LINK: &str = "link-";

/// A folder on a bpffs that holds what stays.
#[derive(Debug)]
pub struct Pins {
    root: PathBuf,
    folder: PathBuf,
}

impl Pins {
    /// The folder `name` below `root`; it is made where it isn't there.
    ///
    /// # Errors
    /// `root` is on no bpffs; what `mkdir(2)` says.
    pub fn open(root: &Path, name: &str) -> io::Result<Self> {
        let there = root.ancestors().find(|path| path.exists()).unwrap_or(root);
        if rustix::fs::statfs(there)?.f_type as u32 != BPF_FS_MAGIC {
            let text = "it is on no bpffs (`mount -t bpf bpf /sys/fs/bpf`)";
            return Err(io::Error::other(text));
        }
        let folder = root.join(name);
        fs::create_dir_all(&folder)?;
        Ok(Self { root: root.to_owned(), folder })
    }

    /// Where a map is kept.
    #[must_use]
    pub fn map(&self, name: &str) -> PathBuf {
        self.folder.join(name)
    }

    fn link(&self, device: u32) -> PathBuf {
        self.folder.join(format!("{LINK}{device}"))
    }

    /// The attachments that are kept, by index of device.
    fn links(&self) -> Vec<(u32, PathBuf)> {
        let entries = fs::read_dir(&self.folder).into_iter().flatten().flatten();
        let link = |entry: fs::DirEntry| {
            let device = entry.file_name().to_str()?.strip_prefix(LINK)?.parse().ok()?;
            Some((device, entry.path()))
        };
        entries.filter_map(link).collect()
    }

    /// Nothing stays any more.
    pub(super) fn remove(&self) {
        for entry in fs::read_dir(&self.folder).into_iter().flatten().flatten() {
            gone(&entry.path(), fs::remove_file(entry.path()));
        }
        gone(&self.folder, fs::remove_dir(&self.folder));
        // Another one's folders are in it, or it is where the bpffs is mounted.
        let _in_use = fs::remove_dir(&self.root);
    }

    /// Has `program` do what the program did that was attached before: no packet falls between.
    pub(super) fn take_over(&self, program: &mut SchedClassifier) -> BTreeMap<u32, Hook> {
        let mut hooks = BTreeMap::new();
        for (device, path) in self.links() {
            match replace(program, &path) {
                Ok(link) => {
                    hooks.insert(device, Hook::Kept(link));
                }
                Err(error) => {
                    // ENOLINK: the device is gone.
                    tracing::warn!(device, error, "an attachment could not be taken over");
                    gone(&path, fs::remove_file(&path));
                }
            }
        }
        hooks
    }

    /// Keeps an attachment.
    pub(super) fn keep(&self, device: u32, link: SchedClassifierLink) -> io::Result<Hook> {
        let link = FdLink::try_from(link).map_err(io::Error::other)?;
        let link = link.pin(self.link(device)).map_err(io::Error::other)?;
        Ok(Hook::Kept(link))
    }
}

/// Whether attachments can be kept: those of classical filters can't.
pub(super) fn try_to_keep(program: &mut SchedClassifier) -> Result<(), String> {
    let tcx = TcAttachOptions::TcxOrder(LinkOrder::default());
    let attached = program.attach_with_options("lo", TcAttachType::Egress, tcx);
    let detached = attached.and_then(|link| program.detach(link));
    detached.map_err(|error| describe(&error))
}

fn replace(program: &mut SchedClassifier, path: &Path) -> Result<PinnedLink, String> {
    let mut replaced = || -> Result<PinnedLink, Box<dyn Error>> {
        let link = FdLink::from(PinnedLink::from_pin(path)?);
        let id = program.attach_to_link(SchedClassifierLink::try_from(link)?)?;
        // A descriptor; the file keeps the link.
        drop(program.take_link(id)?);
        Ok(PinnedLink::from_pin(path)?)
    };
    replaced().map_err(|error| describe(error.as_ref()))
}

fn describe(error: &dyn Error) -> String {
    match error.source() {
        Some(source) => format!("{error}: {source}"),
        None => error.to_string(),
    }
}

fn gone(path: &Path, removed: io::Result<()>) {
    if let Err(error) = removed
        && error.kind() != io::ErrorKind::NotFound
    {
        tracing::warn!(path = %path.display(), %error, "could not be removed");
    }
}

/// Where the program is attached.
#[derive(Debug)]
pub(super) enum Hook {
    /// As long as this lives.
    Ours { _link: SchedClassifierLink },
    /// As long as this lives, on a kernel without tcx.
    Classical { _filter: Classical },
    /// Until its file is removed.
    Kept(PinnedLink),
}

impl Hook {
    /// Takes the program off.
    pub(super) fn take_off(self) {
        if let Self::Kept(link) = self
            && let Err(error) = link.unpin()
        {
            tracing::warn!(%error, "an attachment could not be taken off");
        }
    }
}
