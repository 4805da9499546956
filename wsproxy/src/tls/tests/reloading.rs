use std::os::unix::fs::symlink;
use std::sync::atomic::{AtomicUsize, Ordering};

use super::*;

fn start(files: &ServerFiles) -> Reloading<ServerSource> {
    let resumption = Arc::new(Resumption::default());
    Reloading::start(ServerSource { files: files.clone(), resumption }).unwrap()
}

/// The certificate in use.
async fn in_use(reloading: &Reloading<ServerSource>) -> CertificateDer<'static> {
    shown(&reloading.current(), &Arc::new(anyone()), "a.example").await
}

#[tokio::test]
async fn a_change_is_taken_when_it_is_settled() {
    let authority = Authority::new();
    let own = authority.issue("server", &["a.example"]);
    let files = server_files(&[&own]);
    let reloading = start(&files);
    let before = reloading.current();
    for _ in 0..3 {
        reloading.look();
    }
    assert!(Arc::ptr_eq(&before, &reloading.current()));

    let new = authority.issue("server", &["a.example", "b.example"]);
    reloading.look();
    assert!(Arc::ptr_eq(&before, &reloading.current()));
    reloading.look();
    assert!(in_use(&reloading).await == new.der);
    assert!(Arc::ptr_eq(&before.ticketer, &reloading.current().ticketer));
    assert!(Arc::ptr_eq(&before.session_storage, &reloading.current().session_storage));
    assert_eq!(reloading.certificates()[0].names, ["a.example", "b.example"]);
    for _ in 0..3 {
        reloading.look();
    }
    assert_eq!((reloading.reloads(), reloading.failures()), (1, 0));
}

#[tokio::test]
async fn a_file_in_the_middle_of_writing_waits() {
    let authority = Authority::new();
    let own = authority.issue("server", &["a.example"]);
    let reloading = start(&server_files(&[&own]));
    let key = KeyPair::generate().unwrap();
    // Of another size: the clock of files is coarse.
    let new = authority.sign(&["a.example", "b.example"], &key);
    let pem = new.pem();
    for part in [0, 40, 200, pem.len()] {
        authority.write("server.pem", &pem[..part]);
        reloading.look();
    }
    authority.write("server.key", key.serialize_pem());
    reloading.look();
    assert_eq!((reloading.reloads(), reloading.failures()), (0, 0));
    reloading.look();
    assert_eq!((reloading.reloads(), reloading.failures()), (1, 0));
    assert!(in_use(&reloading).await == *new.der());
}

#[tokio::test]
async fn bad_files_change_nothing() {
    let authority = Authority::new();
    let own = authority.issue("server", &["a.example"]);
    let reloading = start(&server_files(&[&own]));
    let key = fs::read(&own.files.key).unwrap();

    fs::remove_file(&own.files.key).unwrap();
    for _ in 0..5 {
        reloading.look();
    }
    // Told once.
    assert_eq!((reloading.reloads(), reloading.failures()), (0, 1));
    assert!(reloading.failing());
    authority.write("server.key", "half of a key");
    for _ in 0..5 {
        reloading.look();
    }
    assert_eq!((reloading.reloads(), reloading.failures()), (0, 2));
    // The same problem after another change is told again.
    authority.write("server.key", "half a key");
    for _ in 0..5 {
        reloading.look();
    }
    assert_eq!((reloading.reloads(), reloading.failures()), (0, 3));
    assert!(in_use(&reloading).await == own.der);

    authority.write("server.key", key);
    for _ in 0..5 {
        reloading.look();
    }
    assert_eq!((reloading.reloads(), reloading.failures()), (1, 3));
    assert!(!reloading.failing());
}

/// The layout of a Kubernetes secret: `server.pem -> ..data/server.pem`,
/// `..data -> ..1`.
#[tokio::test]
async fn symbolic_links_are_followed() {
    let authority = Authority::new();
    let mut issued = Vec::new();
    for version in ["..1", "..2"] {
        fs::create_dir(authority.path(version)).unwrap();
        issued.push(authority.issue(&format!("{version}/server"), &["a.example"]));
    }
    symlink("..1", authority.path("..data")).unwrap();
    for file in ["server.pem", "server.key"] {
        symlink(format!("..data/{file}"), authority.path(file)).unwrap();
    }
    let files = ServerFiles {
        certificates: vec![CertificateFiles {
            certificate: authority.path("server.pem"),
            key: authority.path("server.key"),
        }],
        ..ServerFiles::default()
    };
    let reloading = start(&files);
    assert!(in_use(&reloading).await == issued[0].der);
    symlink("..2", authority.path("..data_tmp")).unwrap();
    fs::rename(authority.path("..data_tmp"), authority.path("..data")).unwrap();
    reloading.look();
    reloading.look();
    assert!(in_use(&reloading).await == issued[1].der);
}

#[tokio::test]
async fn the_task_sees_changes() {
    let authority = Authority::new();
    let own = authority.issue("server", &["a.example"]);
    let reloading = Arc::new(start(&server_files(&[&own])));
    let task = tokio::spawn(Arc::clone(&reloading).watch(Duration::ZERO));
    // Of another size: the clock of files is coarse.
    let new = authority.issue("server", &["a.example", "b.example"]);
    for _ in 0..1_000 {
        if reloading.reloads() > 0 && in_use(&reloading).await == new.der {
            break;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    assert!(in_use(&reloading).await == new.der);
    assert!(!task.is_finished());
    task.abort();
    assert!(task.await.unwrap_err().is_cancelled());
    // A look that had begun may still be finished.
    for _ in 0..1_000 {
        if Arc::strong_count(&reloading) == 1 {
            return;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    panic!("the task still holds the configuration");
}

#[test]
fn upstreams_follow_their_files_too() {
    let authority = Authority::new();
    let own = authority.issue("client", &["client"]);
    let files = ClientFiles {
        ca: Some(authority.ca()),
        verify: true,
        certificate: Some(own.files.clone()),
    };
    let system = Arc::new(SystemRoots::default());
    let source = ClientSource { files: files.clone(), system };
    assert_eq!(source.paths(), [own.files.certificate, own.files.key, authority.ca()]);
    let reloading = Reloading::start(source).unwrap();
    let before = reloading.current();
    let other = Authority::named("other CA");
    authority.write("ca.pem", other.certificate().pem());
    reloading.look();
    reloading.look();
    assert!(!Arc::ptr_eq(&before, &reloading.current()));
}

#[test]
fn start_needs_good_files() {
    let files = ServerFiles {
        certificates: vec![CertificateFiles { certificate: "/no/a".into(), key: "/no/b".into() }],
        ..ServerFiles::default()
    };
    let resumption = Arc::new(Resumption::default());
    let bad = Reloading::start(ServerSource { files, resumption }).unwrap_err();
    assert_eq!(bad.problems.len(), 2);
}

/// Numbers, from a file that does what the test wants while it is read.
struct Scripted {
    path: PathBuf,
    reads: AtomicUsize,
    /// At this read the file changes.
    changes_at: usize,
    /// At this read something fails that has nothing to do with the file.
    fails_at: usize,
}

impl Source for Scripted {
    type Config = usize;

    fn paths(&self) -> Vec<PathBuf> {
        vec![self.path.clone()]
    }

    fn load(&self) -> Result<Loaded<usize>, BadFiles> {
        let read = self.reads.fetch_add(1, Ordering::Relaxed);
        if read == self.changes_at {
            fs::write(&self.path, "changed while it was read").unwrap();
        }
        if read == self.fails_at {
            let problem = FileProblem { path: self.path.clone(), message: "no memory".into() };
            return Err(BadFiles { problems: vec![problem], warnings: Vec::new() });
        }
        Ok(Loaded { config: Arc::new(read), certificates: Vec::new(), warnings: Vec::new() })
    }
}

fn scripted(folder: &TempDir, changes_at: usize, fails_at: usize) -> Reloading<Scripted> {
    let path = folder.path().join("file");
    fs::write(&path, "first").unwrap();
    let reads = AtomicUsize::new(0);
    let started = Reloading::start(Scripted { path: path.clone(), reads, changes_at, fails_at });
    fs::write(path, "second one").unwrap();
    started.unwrap()
}

#[test]
fn a_change_while_the_files_are_read_is_read_again() {
    let folder = TempDir::new().unwrap();
    let reloading = scripted(&folder, 1, usize::MAX);
    let mut states = Vec::new();
    for _ in 0..5 {
        reloading.look();
        states.push((*reloading.current(), reloading.reloads()));
    }
    assert_eq!(states, [(0, 0), (0, 0), (2, 1), (2, 1), (2, 1)]);
}

#[test]
fn a_passing_failure_is_tried_again() {
    let folder = TempDir::new().unwrap();
    let reloading = scripted(&folder, usize::MAX, 1);
    let mut states = Vec::new();
    for _ in 0..4 {
        reloading.look();
        states.push((*reloading.current(), reloading.failures(), reloading.failing()));
    }
    assert_eq!(states, [(0, 0, false), (0, 1, true), (2, 1, false), (2, 1, false)]);
}
