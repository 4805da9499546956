//! What hyper makes of the answers on a connection.

use std::convert::Infallible;

use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, DuplexStream};

use super::*;

fn serve(files: Files) -> DuplexStream {
    let (client, server) = tokio::io::duplex(16 * 1024);
    let service = service_fn(move |request: hyper::Request<Incoming>| {
        let files = files.clone();
        async move {
            let target = Target::of(request.uri());
            Ok::<_, Infallible>(files.respond(request.method(), target, request.headers()).await)
        }
    });
    tokio::spawn(http1::Builder::new().serve_connection(TokioIo::new(server), service));
    client
}

/// Sends requests on one connection and reads until it is closed.
fn exchange(files: Files, requests: &str) -> String {
    run(async {
        let mut client = serve(files);
        client.write_all(requests.as_bytes()).await.unwrap();
        let mut answers = Vec::new();
        client.read_to_end(&mut answers).await.unwrap();
        String::from_utf8_lossy(&answers).into_owned()
    })
}

#[test]
fn answers_on_one_connection() {
    let place = Place::new();
    place.write("a.txt", "hello");
    let requests = [
        "HEAD /a.txt HTTP/1.1\r\nHost: x\r\n\r\n",
        "GET /a.txt HTTP/1.1\r\nHost: x\r\nIf-None-Match: *\r\n\r\n",
        "DELETE /a.txt HTTP/1.1\r\nHost: x\r\n\r\n",
        "HEAD /none HTTP/1.1\r\nHost: x\r\n\r\n",
        "GET /a.txt HTTP/1.1\r\nHost: x\r\nRange: bytes=0-0,4-4\r\n\r\n",
        "GET /a.txt?x HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n",
    ];
    let answers = exchange(place.files(), &requests.concat());
    let statuses: Vec<&str> =
        answers.lines().filter_map(|line| line.split("HTTP/1.1 ").nth(1)).collect();
    let expected = [
        "200 OK",
        "304 Not Modified",
        "405 Method Not Allowed",
        "404 Not Found",
        "206 Partial Content",
        "200 OK",
    ];
    assert_eq!(statuses, expected, "{answers}");
    assert!(answers.contains("content-length: 5\r\n"), "{answers}");
    assert!(!answers.contains("chunked"), "{answers}");
    assert!(answers.ends_with("\r\n\r\nhello"), "{answers}");
}

#[test]
fn a_file_that_becomes_shorter_closes_the_connection() {
    let place = Place::new();
    place.write("big", pattern(1_000_000));
    let answer = run(async {
        let mut client = serve(place.files());
        client.write_all(b"GET /big HTTP/1.1\r\nHost: x\r\n\r\n").await.unwrap();
        let mut answer = vec![0; 1000];
        client.read_exact(&mut answer).await.unwrap();
        let file = fs::File::options().write(true).open(place.root.join("big")).unwrap();
        file.set_len(700_000).unwrap();
        client.read_to_end(&mut answer).await.unwrap();
        answer
    });
    assert!(answer.starts_with(b"HTTP/1.1 200 OK\r\n"));
    assert!(answer.len() < 1_000_000, "{} bytes", answer.len());
}

#[test]
fn a_client_that_does_not_read_holds_little() {
    let place = Place::new();
    place.write("big", pattern(4_000_000));
    run(async {
        let mut client = serve(place.files());
        client.write_all(b"GET /big HTTP/1.1\r\nHost: x\r\n\r\n").await.unwrap();
        tokio::time::sleep(std::time::Duration::from_millis(300)).await;
        let file = fs::File::options().write(true).open(place.root.join("big")).unwrap();
        file.set_len(0).unwrap();
        let mut answer = Vec::new();
        client.read_to_end(&mut answer).await.unwrap();
        // hyper's own buffer is about 400 KiB, and one read is 64 KiB.
        assert!(answer.len() < 1_000_000, "{} bytes were read ahead", answer.len());
    });
}
