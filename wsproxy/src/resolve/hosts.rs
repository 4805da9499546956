//! `/etc/hosts`.
//!
//! Read here and not by the resolver library: it would ask name servers for the IPv6 address of
//! a name whose IPv4 address the file has, and would not see when the file changes.

use std::{
    collections::HashMap,
    fs::File,
    io::{self, Read as _},
    net::IpAddr,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

/// So much of the file is read: 4 MiB.
const MOST_BYTES: u64 = 4 << 20;
/// The file is read again when it was read longer ago.
const FRESH: Duration = Duration::from_secs(5);

/// Names in lower case, without a dot at the end.
type Names = HashMap<Box<str>, Vec<IpAddr>>;

/// The file's names, as of a few seconds ago.
#[derive(Debug)]
pub(super) struct Hosts {
    path: PathBuf,
    known: Mutex<Option<(Instant, Arc<Names>)>>,
}

impl Hosts {
    pub(super) const fn new(path: PathBuf) -> Self {
        Self { path, known: Mutex::new(None) }
    }

    /// The addresses of a name; none where the file does not name it or can't be read.
    pub(super) async fn addresses(&self, name: &str) -> Vec<IpAddr> {
        let name = name.strip_suffix('.').unwrap_or(name).to_lowercase();
        self.names().await.get(&*name).cloned().unwrap_or_default()
    }

    async fn names(&self) -> Arc<Names> {
        let known = self.known.lock().unwrap_or_else(PoisonError::into_inner).clone();
        if let Some((_, names)) = known.filter(|(read, _)| read.elapsed() < FRESH) {
            return names;
        }
        let path = self.path.clone();
        let read = tokio::task::spawn_blocking(move || read(&path).map(|text| parse(&text)));
        // A file that is not there is an empty one.
        let names = Arc::new(read.await.ok().and_then(Result::ok).unwrap_or_default());
        *self.known.lock().unwrap_or_else(PoisonError::into_inner) =
            Some((Instant::now(), Arc::clone(&names)));
        names
    }
}

fn read(path: &Path) -> io::Result<String> {
    let mut bytes = Vec::new();
    File::open(path)?.take(MOST_BYTES).read_to_end(&mut bytes)?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

/// Lines of an address and its names; `#` begins a comment. What is not so is passed over.
fn parse(text: &str) -> Names {
    let mut names = Names::new();
    for line in text.lines() {
        let line = line.split('#').next().unwrap_or_default();
        let mut words = line.split_whitespace();
        let Some(address) = words.next().and_then(|word| word.parse::<IpAddr>().ok()) else {
            continue;
        };
        for name in words {
            let name = name.strip_suffix('.').unwrap_or(name).to_lowercase();
            let addresses = names.entry(name.into()).or_default();
            if !addresses.contains(&address) {
                addresses.push(address);
            }
        }
    }
    names
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const FILE: &str = "\
        # of this machine\n\
        127.0.0.1\tlocalhost  box\n\
        ::1 localhost # and no.example\n\
        \n\
        192.0.2.1 DB.example. db\r\n\
        2001:db8::1 db.example\n\
        192.0.2.1 db.example\n\
        192.0.2.300 bad\n\
        192.0.2.2\n\
        fe80::1%lo bad\n";

    #[test]
    fn names_have_all_their_addresses() {
        let names = parse(FILE);
        let shown = |name: &str| {
            let addresses = names.get(name).into_iter().flatten();
            addresses.map(ToString::to_string).collect::<Vec<_>>().join(" ")
        };
        for (name, addresses) in [
            ("localhost", "127.0.0.1 ::1"),
            ("box", "127.0.0.1"),
            ("db.example", "192.0.2.1 2001:db8::1"),
            ("db", "192.0.2.1"),
            ("bad", ""),
            ("no.example", ""),
            ("#", ""),
        ] {
            assert_eq!(shown(name), addresses, "{name}");
        }
        assert_eq!(names.len(), 4);
    }

    #[tokio::test]
    async fn the_file_is_read_again() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let hosts = Hosts::new(file.path().into());
        assert!(hosts.addresses("db.example").await.is_empty());
        std::fs::write(file.path(), FILE).unwrap();
        assert!(hosts.addresses("db.example").await.is_empty());
        let long_ago = Instant::now().checked_sub(FRESH).unwrap();
        hosts.known.lock().unwrap().as_mut().unwrap().0 = long_ago;
        assert_eq!(hosts.addresses("DB.example.").await.len(), 2);
        let nowhere = Hosts::new("/nowhere/hosts".into());
        assert!(nowhere.addresses("db.example").await.is_empty());
    }

    proptest! {
        #[test]
        fn no_text_panics(text: String) {
            parse(&text);
        }
    }
}
