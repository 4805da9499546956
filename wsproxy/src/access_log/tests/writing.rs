use std::{io::Read as _, sync::Mutex};

use super::*;

/// Takes so many bytes with each write, or fails.
#[derive(Default)]
struct Script {
    steps: Vec<Result<usize, ErrorKind>>,
    taken: Vec<u8>,
}

impl Write for Script {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let step = if self.steps.is_empty() { Ok(usize::MAX) } else { self.steps.remove(0) };
        let taken = step.map_err(io::Error::from)?.min(bytes.len());
        self.taken.extend_from_slice(&bytes[..taken]);
        Ok(taken)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[test]
fn a_line_that_was_torn_is_finished_first() {
    use ErrorKind::{BrokenPipe, Interrupted, StorageFull, WouldBlock, WriteZero};
    for (steps, results, taken) in [
        (vec![], [None, None], "aa\nbb\ncc\ndd\n"),
        (vec![Ok(1), Err(Interrupted), Err(WouldBlock), Ok(3)], [None, None], {
            "aa\nbb\ncc\ndd\n"
        }),
        (vec![Err(BrokenPipe)], [Some((BrokenPipe, 2)), None], "cc\ndd\n"),
        (vec![Ok(0)], [Some((WriteZero, 2)), None], "cc\ndd\n"),
        (vec![Ok(3), Err(StorageFull)], [Some((StorageFull, 1)), None], "aa\ncc\ndd\n"),
        (vec![Ok(2), Err(StorageFull)], [Some((StorageFull, 1)), None], "aa\ncc\ndd\n"),
        (vec![Ok(5), Err(StorageFull)], [Some((StorageFull, 0)), None], "aa\nbb\ncc\ndd\n"),
        (
            vec![Ok(1), Err(StorageFull), Ok(1), Err(StorageFull)],
            [Some((StorageFull, 1)), Some((StorageFull, 2))],
            "aa",
        ),
    ] {
        let mut output = Output::new(Script { steps, taken: Vec::new() });
        let mut write = |lines: &[u8]| {
            let result = output.write(lines, || false);
            result.err().map(|(error, lost)| (error.kind(), lost))
        };
        assert_eq!([write(b"aa\nbb\n"), write(b"cc\ndd\n")], results, "{taken:?}");
        assert_eq!(String::from_utf8(output.to.taken).unwrap(), taken);
    }
}

#[test]
fn nobody_waits_for_ever() {
    let script = Script { steps: vec![Ok(1), Err(ErrorKind::WouldBlock)], ..Script::default() };
    let (error, lost) = Output::new(script).write(b"a\n", || true).unwrap_err();
    assert_eq!((error.kind(), lost), (ErrorKind::WouldBlock, 0));
}

/// What is said while something runs on this thread.
fn said(run: impl FnOnce()) -> Vec<String> {
    let text = Arc::new(Mutex::new(Vec::new()));
    let subscriber = tracing_subscriber::fmt()
        .with_ansi(false)
        .with_writer({
            let text = Arc::clone(&text);
            move || Shared(Arc::clone(&text))
        })
        .finish();
    tracing::subscriber::with_default(subscriber, run);
    let text = text.lock().unwrap();
    String::from_utf8_lossy(&text).lines().map(str::to_owned).collect()
}

struct Shared(Arc<Mutex<Vec<u8>>>);

impl Write for Shared {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap().write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

fn writer(path: Option<PathBuf>, file: File) -> Writer {
    Writer::new(Arc::default(), Arc::default(), path, file)
}

#[test]
fn each_kind_of_failure_is_said_once() {
    let full = || OpenOptions::new().append(true).open("/dev/full").unwrap();
    let mut writer = writer(Some("/dev/full".into()), full());
    let failures = Arc::clone(&writer.failures);
    let lines = said(|| {
        writer.write(b"a\n");
        writer.write(b"b\n");
        let (reader, pipe) = io::pipe().unwrap();
        drop(reader);
        writer.output.to = std::os::fd::OwnedFd::from(pipe).into();
        writer.write(b"c\n");
        writer.write(b"d\n");
        writer.reopen();
        writer.write(b"e\n");
    });
    let kinds: Vec<_> = lines.iter().map(|line| line.contains("No space left")).collect();
    assert_eq!(kinds, [true, false, true], "{lines:#?}");
    assert!(lines[1].contains("Broken pipe"), "{lines:#?}");
    assert!(lines.iter().all(|line| line.contains("ERROR") && line.contains("/dev/full")));
    assert_eq!((failures.errors(), failures.lost()), (5, 5));
}

#[test]
fn a_file_that_cannot_be_opened_again_is_said() {
    let (mut reader, pipe) = io::pipe().unwrap();
    let pipe = std::os::fd::OwnedFd::from(pipe).into();
    let mut writer = writer(Some("/nowhere/access.log".into()), pipe);
    let lines = said(|| {
        writer.reopen();
        writer.write(b"a\n");
        drop(writer);
    });
    assert_eq!(lines.len(), 1, "{lines:#?}");
    assert!(lines[0].contains("/nowhere/access.log") && lines[0].contains("No such file"));
    let mut text = String::new();
    reader.read_to_string(&mut text).unwrap();
    assert_eq!(text, "a\n");
}

#[test]
fn dropped_lines_are_said_once() {
    let (_reader, pipe) = io::pipe().unwrap();
    let writer = writer(None, std::os::fd::OwnedFd::from(pipe).into());
    let queue = Arc::clone(&writer.queue);
    let drop_some = |queue: &Queue| {
        queue.push(&vec![b'a'; super::super::MAX_WAITING_BYTES + 1]);
        queue.push(b"a\n");
    };
    drop_some(&queue);
    drop_some(&queue);
    assert_eq!(queue.close(Duration::ZERO), Err(2));
    queue.push(b"a\n");
    let lines = said(|| writer.run());
    assert_eq!(lines.len(), 1, "{lines:#?}");
    assert!(lines[0].contains("dropped=2") && lines[0].contains("standard output"), "{lines:#?}");
}
