use std::{
    collections::BTreeSet,
    fs,
    io::{self, Read as _},
    os::{fd::OwnedFd, unix::fs::PermissionsExt as _},
    path::{Path, PathBuf},
    sync::atomic::{AtomicBool, Ordering},
    thread,
    time::Instant,
};

use super::{
    super::{AccessLog, MAX_WAITING_LINES},
    *,
};

fn write(log: &AccessLog, id: impl ToString) {
    log.write(&Entry { request_id: &id.to_string(), ..entry() });
}

fn ids(path: &Path) -> Vec<u64> {
    let text = fs::read_to_string(path).unwrap();
    assert!(text.is_empty() || text.ends_with('\n'));
    let id = |line: &str| {
        let value: serde_json::Value = serde_json::from_str(line).unwrap();
        value["request_id"].as_str().unwrap().parse().unwrap()
    };
    text.lines().map(id).collect()
}

fn in_folder() -> (tempfile::TempDir, PathBuf) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("access.log");
    (folder, path)
}

fn eventually(what: &str, mut holds: impl FnMut() -> bool) {
    let began = Instant::now();
    while !holds() {
        assert!(began.elapsed() < Duration::from_secs(20), "waited for {what}");
        thread::sleep(Duration::from_millis(1));
    }
}

#[test]
fn lines_go_behind_the_end_of_the_file() {
    let (_folder, path) = in_folder();
    for n in 0..3 {
        let log = AccessLog::open(Format::Json, Some(path.clone())).unwrap();
        write(&log, 2 * n);
        write(&log, 2 * n + 1);
    }
    assert_eq!(ids(&path), [0, 1, 2, 3, 4, 5]);
    // The process's mask may take more away.
    let mode = fs::metadata(&path).unwrap().permissions().mode() & 0o777;
    assert_eq!(mode & !0o640, 0, "{mode:o}");
}

#[test]
fn both_formats_can_be_written() {
    let (_folder, path) = in_folder();
    AccessLog::open(Format::Combined, Some(path.clone())).unwrap().write(&entry());
    assert_eq!(fs::read_to_string(&path).unwrap(), line(Format::Combined, &entry()));
    // Nothing is written here, for the output of tests is not its own.
    let log = AccessLog::open(Format::Json, None).unwrap();
    log.reopen();
    assert_eq!(format!("{log:?}"), "AccessLog { format: Json, .. }");
}

#[test]
fn a_file_that_cannot_be_opened_is_an_error() {
    let (folder, path) = in_folder();
    let error = AccessLog::open(Format::Json, Some(path.join("x"))).unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::NotFound);
    let error = AccessLog::open(Format::Json, Some(folder.path().into())).unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::IsADirectory);
}

#[test]
fn what_was_queued_before_goes_into_the_old_file() {
    let (folder, path) = in_folder();
    let aside = folder.path().join("access.log.1");
    let log = AccessLog::open(Format::Json, Some(path.clone())).unwrap();
    (0..1_000).for_each(|n| write(&log, n));
    fs::rename(&path, &aside).unwrap();
    log.reopen();
    (1_000..2_000).for_each(|n| write(&log, n));
    drop(log);
    assert_eq!(ids(&aside), (0..1_000).collect::<Vec<_>>());
    assert_eq!(ids(&path), (1_000..2_000).collect::<Vec<_>>());
}

#[test]
fn rotation_under_load_loses_and_doubles_no_line() {
    const THREADS: u64 = 4;
    const LINES: u64 = 10_000;
    let (folder, path) = in_folder();
    let log = AccessLog::open(Format::Json, Some(path.clone())).unwrap();
    let over = AtomicBool::new(false);
    let produce = |thread: u64| {
        for n in 0..LINES {
            // So that none is dropped.
            eventually("room", || log.queue.waiting() < MAX_WAITING_LINES / 2);
            write(&log, thread * LINES + n);
        }
    };
    let rotations = thread::scope(|scope| {
        let rotating = scope.spawn(|| {
            let mut rotations = 0;
            while !over.load(Ordering::Relaxed) {
                let aside = folder.path().join(format!("access.log.{rotations}"));
                fs::rename(&path, &aside).unwrap();
                log.reopen();
                eventually("the new file", || path.exists());
                rotations += 1;
            }
            rotations
        });
        let produce = &produce;
        let threads: Vec<_> =
            (0..THREADS).map(|thread| scope.spawn(move || produce(thread))).collect();
        threads.into_iter().for_each(|thread| thread.join().unwrap());
        over.store(true, Ordering::Relaxed);
        rotating.join().unwrap()
    });
    assert_eq!((log.dropped(), log.lost(), log.write_errors()), (0, 0, 0));
    drop(log);
    let mut all = Vec::new();
    for file in fs::read_dir(folder.path()).unwrap() {
        all.extend(ids(&file.unwrap().path()));
    }
    assert!(rotations > 3, "{rotations}");
    assert_eq!(all.len() as u64, THREADS * LINES);
    assert_eq!(all.into_iter().collect::<BTreeSet<_>>().len() as u64, THREADS * LINES);
}

#[test]
fn a_file_that_cannot_be_opened_again_leaves_the_old_one() {
    let (folder, _) = in_folder();
    let (there, gone) = (folder.path().join("there"), folder.path().join("gone"));
    fs::create_dir(&there).unwrap();
    let log = AccessLog::open(Format::Json, Some(there.join("access.log"))).unwrap();
    write(&log, 0);
    fs::rename(&there, &gone).unwrap();
    log.reopen();
    write(&log, 1);
    eventually("both lines", || ids(&gone.join("access.log")).len() == 2);
    fs::create_dir(&there).unwrap();
    log.reopen();
    write(&log, 2);
    drop(log);
    assert_eq!(ids(&gone.join("access.log")), [0, 1]);
    assert_eq!(ids(&there.join("access.log")), [2]);
}

#[test]
fn a_reader_that_hangs_holds_nobody_up() {
    let (mut reader, pipe) = io::pipe().unwrap();
    let log = AccessLog::start(Format::Json, None, OwnedFd::from(pipe).into()).unwrap();
    let began = Instant::now();
    let mut written = 0;
    while log.dropped() < 100 {
        write(&log, written);
        written += 1;
    }
    // The pipe, a batch under way and the queue.
    assert!(written >= MAX_WAITING_LINES as u64 + 100, "{written}");
    assert!(began.elapsed() < Duration::from_secs(10), "{:?}", began.elapsed());
    let began = Instant::now();
    drop(log);
    let took = began.elapsed();
    assert!(took > Duration::from_millis(1_900) && took < Duration::from_secs(4), "{took:?}");
    // What the thread has in hand is still written once somebody reads, and then it is gone.
    let mut text = String::new();
    reader.read_to_string(&mut text).unwrap();
    assert!(text.ends_with('\n'));
}

#[test]
fn a_slow_reader_gets_whole_lines_and_the_rest_is_counted() {
    let (reader, pipe) = io::pipe().unwrap();
    let log = AccessLog::start(Format::Json, None, OwnedFd::from(pipe).into()).unwrap();
    let mut written: u64 = 0;
    while log.dropped() < 10 {
        write(&log, written);
        written += 1;
    }
    let read = thread::spawn(|| io::read_to_string(reader).unwrap());
    let dropped = log.dropped();
    drop(log);
    let text = read.join().unwrap();
    assert_eq!(text.lines().count() as u64 + dropped, written);
    assert!(text.lines().all(|line| serde_json::from_str::<serde_json::Value>(line).is_ok()));
}

#[test]
fn failing_writes_are_counted() {
    let (reader, pipe) = io::pipe().unwrap();
    drop(reader);
    let full = fs::OpenOptions::new().append(true).open("/dev/full").unwrap();
    for file in [OwnedFd::from(pipe).into(), full] {
        let log = AccessLog::start(Format::Json, None, file).unwrap();
        for n in 1..=3 {
            write(&log, n);
            eventually("a lost line", || log.lost() == n && log.write_errors() == n);
        }
        assert_eq!(log.dropped(), 0);
    }
}
