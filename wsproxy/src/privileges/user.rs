//! The user that the process becomes. Users and groups are those of `/etc/passwd` and
//! `/etc/group`, or numbers: NSS would load libraries, and ask over the network, as root.

use std::{
    fmt,
    fs::{self, File, OpenOptions},
    io,
    os::unix::fs::OpenOptionsExt as _,
    path::{Path, PathBuf},
};

use rustix::{
    fs::{Access, AtFlags, CWD, accessat, chownat},
    process::{Gid, Uid, getegid, geteuid, getgroups},
    thread::{set_thread_groups, set_thread_res_gid, set_thread_res_uid},
};

use super::{PrivilegeError, system};

const PASSWD: &str = "/etc/passwd";
const GROUP: &str = "/etc/group";
/// How deep the folders are that are made for sessions that are kept.
const DEEPEST: u32 = 3;

/// Somebody.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct User {
    name: String,
    uid: Uid,
    gid: Gid,
    /// All of its groups.
    groups: Vec<Gid>,
}

impl fmt::Display for User {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.name)
    }
}

/// The user that the process is, by name where it has one.
pub(super) fn current() -> String {
    let uid = geteuid().as_raw();
    let text = fs::read_to_string(PASSWD).unwrap_or_default();
    let line = lines(&text).find(|fields| number(fields, 2) == Some(uid));
    line.map_or_else(|| uid.to_string(), |fields| fields[0].to_owned())
}

/// Lines of `name:...`, split.
fn lines(text: &str) -> impl Iterator<Item = Vec<&str>> {
    text.lines().map(|line| line.split(':').collect())
}

fn number(fields: &[&str], at: usize) -> Option<u32> {
    fields.get(at)?.parse().ok()
}

impl User {
    /// The user of that name or number, with `group` as its only group, if that is given.
    pub(super) fn find(name: &str, group: Option<&str>) -> Result<Self, PrivilegeError> {
        let read = |path: &'static str| fs::read_to_string(path).map_err(system(path));
        // An image with nothing but the program has neither file.
        let or_none = |read: Result<String, PrivilegeError>| read.unwrap_or_default();
        Self::among(&or_none(read(PASSWD)), &or_none(read(GROUP)), name, group)
    }

    fn among(
        passwd: &str,
        groups: &str,
        name: &str,
        group: Option<&str>,
    ) -> Result<Self, PrivilegeError> {
        let unknown = |key, name: &str, what, file| PrivilegeError::Unknown {
            key,
            name: name.to_owned(),
            what,
            file,
        };
        let wanted = name.parse::<u32>().ok();
        let line = lines(passwd)
            .find(|line| line[0] == name || wanted.is_some() && number(line, 2) == wanted);
        let (name, uid, own) = match &line {
            Some(line) => (line[0], number(line, 2), number(line, 3)),
            // A number needs no entry, and has the group of the same number.
            None => (name, wanted, wanted),
        };
        let no_user = || unknown("process.user", name, "user", PASSWD);
        let (uid, own) = (uid.ok_or_else(no_user)?, own.ok_or_else(no_user)?);
        let (gid, groups) = match group {
            Some(group) => {
                let line = lines(groups).find(|line| line[0] == group);
                let gid = line.and_then(|line| number(&line, 2)).or_else(|| group.parse().ok());
                let gid = gid.ok_or_else(|| unknown("process.group", group, "group", GROUP))?;
                (gid, vec![gid])
            }
            None => {
                let has = |line: &Vec<&str>| {
                    line.get(3).is_some_and(|users| users.split(',').any(|user| user == name))
                };
                let more = lines(groups).filter(has).filter_map(|line| number(&line, 2));
                let mut all: Vec<_> = std::iter::once(own).chain(more).collect();
                all.sort_unstable();
                all.dedup();
                (own, all)
            }
        };
        Ok(Self {
            name: name.to_owned(),
            uid: Uid::from_raw(uid),
            gid: Gid::from_raw(gid),
            groups: groups.into_iter().map(Gid::from_raw).collect(),
        })
    }

    /// Whether the process is this user already.
    pub(super) fn is_current(&self) -> bool {
        self.uid == geteuid() && self.gid == getegid()
    }

    /// Becomes this user, for good.
    pub(super) fn become_it(&self) -> Result<(), PrivilegeError> {
        let (uid, gid) = (self.uid, self.gid);
        set_thread_groups(&self.groups).map_err(system("setgroups"))?;
        set_thread_res_gid(gid, gid, gid).map_err(system("setresgid"))?;
        set_thread_res_uid(uid, uid, uid).map_err(system("setresuid"))
    }

    /// The first of what is to be read, and of folders to be written to, that this user can't use,
    /// and why: tried as this user, for a moment.
    pub(super) fn cannot(
        &self,
        reads: &[PathBuf],
        writes: &[PathBuf],
    ) -> Result<Option<(PathBuf, io::Error)>, PrivilegeError> {
        let groups = getgroups().map_err(system("getgroups"))?;
        let (uid, gid) = (geteuid(), getegid());
        set_thread_groups(&self.groups).map_err(system("setgroups"))?;
        set_thread_res_gid(None, self.gid, None).map_err(system("setresgid"))?;
        // The effective capabilities of root go with its number, and come back with it.
        set_thread_res_uid(None, self.uid, None).map_err(system("setresuid"))?;
        let read = reads.iter().map(|path| (path, can_read(path)));
        let mut all = read.chain(writes.iter().map(|path| (path, can_write(path))));
        let found = all.find_map(|(path, tried)| Some((path.clone(), tried.err()?)));
        set_thread_res_uid(None, uid, None).map_err(system("setresuid"))?;
        set_thread_res_gid(None, gid, None).map_err(system("setresgid"))?;
        set_thread_groups(&groups).map_err(system("setgroups"))?;
        Ok(found)
    }

    /// Gives what was made for the process to this user; what is not there is passed over.
    pub(super) fn own(&self, paths: &[PathBuf]) {
        for path in paths {
            self.own_one(path, DEEPEST);
        }
    }

    fn own_one(&self, path: &Path, deeper: u32) {
        let Ok(found) = fs::symlink_metadata(path) else { return };
        let changed = chownat(CWD, path, Some(self.uid), Some(self.gid), AtFlags::SYMLINK_NOFOLLOW);
        if let Err(error) = changed {
            tracing::warn!(path = %path.display(), %error, "cannot be given to {self}");
        }
        if found.is_dir() && deeper > 0 {
            for entry in fs::read_dir(path).into_iter().flatten().flatten() {
                self.own_one(&entry.path(), deeper - 1);
            }
        }
    }
}

/// Opens it: the kernel's word counts, with ACLs and security modules. A FIFO's writer is not
/// waited for.
fn can_read(path: &Path) -> io::Result<File> {
    OpenOptions::new().read(true).custom_flags(libc::O_NONBLOCK | libc::O_CLOEXEC).open(path)
}

fn can_write(path: &Path) -> io::Result<File> {
    accessat(CWD, path, Access::WRITE_OK | Access::EXEC_OK, AtFlags::EACCESS)?;
    can_read(path)
}

#[cfg(test)]
mod tests {
    use super::*;

    const PASSWD: &str = "root:x:0:0:root:/root:/bin/sh\nwsproxy:x:997:996::/:/bin/false\nbad\n";
    const GROUP: &str =
        "root:x:0:\nssl-cert:x:110:other,wsproxy\nlog:x:4:wsproxy2\nadm:x:5:wsproxy\n";

    fn find(name: &str, group: Option<&str>) -> Result<(u32, u32, Vec<u32>), String> {
        let user = User::among(PASSWD, GROUP, name, group).map_err(|error| error.to_string())?;
        let groups = user.groups.iter().map(|gid| gid.as_raw()).collect();
        Ok((user.uid.as_raw(), user.gid.as_raw(), groups))
    }

    #[test]
    fn users_are_found_with_their_groups() {
        for name in ["wsproxy", "997"] {
            assert_eq!(find(name, None), Ok((997, 996, vec![5, 110, 996])), "{name}");
            assert_eq!(find(name, Some("ssl-cert")), Ok((997, 110, vec![110])), "{name}");
        }
        assert_eq!(find("root", None), Ok((0, 0, vec![0])));
        assert_eq!(find("1234", None), Ok((1234, 1234, vec![1234])));
        assert_eq!(find("1234", Some("77")), Ok((1234, 77, vec![77])));
    }

    #[test]
    fn who_is_not_there_is_named() {
        let error = find("nobody", None).unwrap_err();
        assert!(error.starts_with("process.user = \"nobody\": "), "{error}");
        let error = find("wsproxy", Some("www")).unwrap_err();
        assert!(error.starts_with("process.group = \"www\": "), "{error}");
        assert!(find("bad", None).is_err());
    }
}
