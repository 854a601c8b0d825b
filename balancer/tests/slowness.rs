//! Clients and instances that take their time: what is borne, what is cut, and how a cut looks.
#![expect(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod support;

use balancer::Limits;
use domain::units::parse_duration;
use std::io::ErrorKind;
use std::time::Duration;
use support::{Backend, Running, Setup, front, ok, read_until};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use wire::quantity::{Q, Span};

fn limits(change: impl Fn(&mut Limits)) -> Setup {
    let mut limits = Limits::default();
    change(&mut limits);
    Setup { limits, ..Setup::default() }
}

fn time(text: &str) -> Q<Span> {
    Q(Span(parse_duration(text).unwrap()))
}

#[tokio::test]
async fn an_upload_may_take_longer_than_an_answer() {
    let running = Running::with(limits(|l| l.answer_time = time("500ms"))).await;
    let backend = Backend::answering(|_| ok("taken")).await;
    running.publish(&front("up"), &[backend.address]).await;
    let mut stream = TcpStream::connect(running.address).await.unwrap();
    let head = "POST / HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\n";
    stream.write_all(head.as_bytes()).await.unwrap();
    for _ in 0..20 {
        stream.write_all(b"5\r\nhello\r\n").await.unwrap();
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    stream.write_all(b"0\r\n\r\n").await.unwrap();
    let answer = read_until(&mut stream, "taken").await;
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
}

#[tokio::test]
async fn a_client_that_ended_its_side_is_answered() {
    let running = Running::start().await;
    let backend = Backend::raw(|mut stream, _| async move {
        read_until(&mut stream, "\r\n\r\n").await;
        tokio::time::sleep(Duration::from_millis(200)).await;
        stream.write_all(ok("for you").as_bytes()).await.unwrap();
    })
    .await;
    running.publish(&front("half"), &[backend.address]).await;
    let mut stream = TcpStream::connect(running.address).await.unwrap();
    stream.write_all(b"GET / HTTP/1.1\r\nhost: x\r\n\r\n").await.unwrap();
    stream.shutdown().await.unwrap();
    let mut text = String::new();
    stream.read_to_string(&mut text).await.unwrap();
    assert!(text.starts_with("HTTP/1.1 200") && text.ends_with("for you"), "{text}");
}

#[tokio::test]
async fn an_old_client_never_takes_a_part_for_the_whole() {
    let running = Running::with(limits(|l| l.stall_time = time("500ms"))).await;
    // Sends a part of its answer in chunks, which HTTP/1.0 does not know, and falls silent.
    let backend = Backend::raw(|mut stream, _| async move {
        read_until(&mut stream, "\r\n\r\n").await;
        let part = "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n4\r\npart\r\n";
        stream.write_all(part.as_bytes()).await.unwrap();
        let _silent = stream.read_u8().await;
    })
    .await;
    running.publish(&front("old"), &[backend.address]).await;
    let mut stream = TcpStream::connect(running.address).await.unwrap();
    stream.write_all(b"GET / HTTP/1.0\r\nhost: x\r\n\r\n").await.unwrap();
    let mut bytes = Vec::new();
    let ended = stream.read_to_end(&mut bytes).await;
    assert_eq!(ended.map_err(|e| e.kind()), Err(ErrorKind::ConnectionReset), "a break, no end");
}

#[tokio::test]
async fn a_whole_answer_ends_plainly_for_an_old_client() {
    let running = Running::start().await;
    let backend = Backend::answering(|_| {
        "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n5\r\nwhole\r\n0\r\n\r\n".to_owned()
    })
    .await;
    running.publish(&front("old"), &[backend.address]).await;
    let answer = running.send("GET / HTTP/1.0\r\n\r\n").await;
    assert_eq!((answer.status(), answer.body()), (200, "whole"));
}

#[tokio::test]
async fn no_tunnel_opens_before_the_request_is_out() {
    let running = Running::start().await;
    let backend = Backend::raw(|mut stream, _| async move {
        read_until(&mut stream, "\r\n\r\n").await;
        let early = "HTTP/1.1 101 Go\r\nconnection: upgrade\r\nupgrade: x\r\n\r\n";
        stream.write_all(early.as_bytes()).await.unwrap();
        let _kept = stream.read_u8().await;
        tokio::time::sleep(Duration::from_secs(5)).await;
    })
    .await;
    running.publish(&front("early"), &[backend.address]).await;
    let head = "POST / HTTP/1.1\r\nhost: x\r\nconnection: upgrade\r\nupgrade: x\r\n\
                transfer-encoding: chunked\r\n\r\n5\r\nhello\r\n";
    let answer = running.send(head).await;
    assert_eq!(answer.status(), 502, "{answer:?}");
}
