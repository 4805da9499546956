//! Bodies of files that change, and of clients that are slow.

use hyper::body::Body as _;

use super::*;

const BIG: usize = 300_000;

async fn open(files: &Files) -> FileBody {
    respond(files, "GET", "/big", &[]).await.into_body()
}

#[test]
fn files_of_many_sizes() {
    let place = Place::new();
    for size in [0, 1, 65_535, 65_536, 65_537, 131_072, 200_000] {
        let content = pattern(size);
        place.write("big", &content);
        let answer = get(&place.files(), "/big");
        assert_eq!((answer.status, answer.body.len()), (200, size));
        assert_eq!(answer.body, content);
        assert_eq!(answer.header("content-length"), size.to_string());
    }
}

#[test]
fn a_small_file_is_in_memory_with_the_answer() {
    let place = Place::new();
    place.write("big", pattern(65_536));
    run(async {
        let body = open(&place.files()).await;
        assert_eq!((body.stored(), body.remaining()), (0, 65_536));
        place.write("big", pattern(65_537));
        let body = open(&place.files()).await;
        assert_eq!((body.stored(), body.remaining()), (65_537, 65_537));
    });
}

#[test]
fn a_large_file_is_read_as_it_is_taken() {
    let place = Place::new();
    place.write("big", pattern(BIG));
    run(async {
        let mut body = open(&place.files()).await;
        let (mut left, mut frames) = (BIG as u64, 0);
        assert_eq!(body.stored(), left);
        while let Some(frame) = body.frame().await {
            let bytes = frame.unwrap().into_data().unwrap();
            assert!((1..=65_536).contains(&bytes.len()));
            left -= bytes.len() as u64;
            // Nothing is read ahead.
            assert_eq!((body.stored(), body.size_hint().exact()), (left, Some(left)));
            frames += 1;
        }
        assert_eq!((left, frames, body.is_end_stream()), (0, 5, true));
    });
}

#[test]
fn a_file_that_grows_is_sent_as_announced() {
    let place = Place::new();
    let content = pattern(BIG);
    place.write("big", &content);
    run(async {
        let body = open(&place.files()).await;
        place.write("big", pattern(BIG * 2));
        assert_eq!(body.collect().await.unwrap().to_bytes(), content);
    });
}

#[test]
fn a_file_that_becomes_shorter_is_an_error() {
    let place = Place::new();
    place.write("big", pattern(BIG));
    run(async {
        let mut body = open(&place.files()).await;
        let file = fs::File::options().write(true).open(place.root.join("big")).unwrap();
        file.set_len(100_000).unwrap();
        let first = body.frame().await.unwrap().unwrap();
        assert_eq!(first.into_data().unwrap().len(), 65_536);
        let failed = body.frame().await.unwrap().unwrap_err();
        assert_eq!(failed.kind(), io::ErrorKind::UnexpectedEof);
        assert!(body.frame().await.is_none(), "it ends there");
    });
}

#[test]
fn a_small_file_that_becomes_shorter_is_not_loaded() {
    let place = Place::new();
    place.write("small", "hello");
    run(async {
        let file = Arc::new(fs::File::open(place.root.join("small")).unwrap());
        let runtime = Handle::current();
        let mut body = FileBody::default();
        body.push_stored(body::Stored { file, runtime, offset: 2, length: 4 });
        assert_eq!(body.load().unwrap_err().kind(), io::ErrorKind::UnexpectedEof);
    });
}

#[test]
fn a_file_that_is_replaced_or_removed_is_sent_to_its_end() {
    let place = Place::new();
    let content = pattern(BIG);
    place.write("big", &content);
    run(async {
        let body = open(&place.files()).await;
        fs::remove_file(place.root.join("big")).unwrap();
        place.write("big", "new");
        assert_eq!(body.collect().await.unwrap().to_bytes(), content);
    });
}

#[test]
fn a_body_that_is_dropped_closes_its_file() {
    let place = Place::new();
    place.write("big", pattern(BIG));
    let holds_it = || {
        let path = fs::canonicalize(place.root.join("big")).unwrap();
        let all = fs::read_dir("/proc/self/fd").unwrap().flatten();
        all.filter_map(|fd| fs::read_link(fd.path()).ok()).any(|target| target == path)
    };
    run(async {
        let mut body = open(&place.files()).await;
        assert!(holds_it());
        body.frame().await.unwrap().unwrap();
        drop(body);
        assert!(!holds_it());
        // For HEAD and 304 the file is closed at once.
        let head = respond(&place.files(), "HEAD", "/big", &[]).await;
        let same = respond(&place.files(), "GET", "/big", &[("if-none-match", "*")]).await;
        assert_eq!((head.status().as_u16(), same.status().as_u16(), holds_it()), (200, 304, false));
    });
}
