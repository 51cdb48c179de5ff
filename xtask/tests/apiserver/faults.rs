//! Faults, as a client without any cleverness sees them.

use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use xtask::apiserver::{Fault, Scope, Server};

use crate::raw::{PATIENCE, get, server, watch, with_pods};

/// What a connection gives until it ends; and how it ends.
fn exchange(server: &Server, path: &str) -> (String, std::io::Result<usize>) {
    let mut stream = TcpStream::connect(server.address()).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    write!(stream, "GET {path} HTTP/1.1\r\nHost: test\r\nAuthorization: Bearer admin-token\r\nConnection: close\r\n\r\n").unwrap();
    let mut all = Vec::new();
    let ended = stream.read_to_end(&mut all);
    (String::from_utf8_lossy(&all).into_owned(), ended)
}

#[test]
fn refusals_come_with_their_headers_and_pass() {
    let server = with_pods(&["a"]);
    server.fail_next(Scope::resource("pods"), 2, Fault::TooManyRequests(7));
    for _ in 0..2 {
        let answer = get(&server, "/api/v1/pods");
        assert_eq!((answer.code, answer.body.as_str()), (429, Some("Too many requests, please try again later.\n")));
        assert_eq!(answer.headers["retry-after"], "7");
        assert_eq!(get(&server, "/api/v1/nodes").code, 200);
    }
    assert_eq!(get(&server, "/api/v1/pods").code, 200);
    let stats = server.stats();
    let codes: Vec<_> = stats.by.iter().filter(|(asked, _)| asked.resource == "pods").map(|(_, count)| count.codes.clone()).collect();
    assert_eq!(codes, [[(200, 1), (429, 2)].into()]);
}

#[test]
fn connections_break_as_asked() {
    let server = with_pods(&["a"]);
    let whole = exchange(&server, "/api/v1/pods").0;
    server.fail_next(Scope::default(), 1, Fault::Truncate);
    let (half, _) = exchange(&server, "/api/v1/pods");
    assert!(half.starts_with("HTTP/1.1 200 OK\r\n"), "{half}");
    assert!(half.len() < whole.len() && half.contains("\"kind\":\"PodList\""), "{half}");

    server.fail_next(Scope::default(), 1, Fault::Reset);
    let (nothing, ended) = exchange(&server, "/api/v1/pods");
    assert_eq!((nothing.as_str(), ended.unwrap_err().kind()), ("", std::io::ErrorKind::ConnectionReset));

    server.fail_next(Scope::default(), 1, Fault::Hang);
    let mut stream = TcpStream::connect(server.address()).unwrap();
    stream.set_read_timeout(Some(Duration::from_millis(200))).unwrap();
    write!(stream, "GET /version HTTP/1.1\r\nHost: test\r\n\r\n").unwrap();
    let kind = stream.read(&mut [0; 1]).unwrap_err().kind();
    assert!(matches!(kind, std::io::ErrorKind::WouldBlock | std::io::ErrorKind::TimedOut), "{kind}");
}

#[test]
fn slow_answers_and_slow_watches() {
    let server = with_pods(&["a"]);
    let delay = Duration::from_millis(150);
    server.fail_next(Scope::resource("pods"), 2, Fault::Slow(delay));
    let start = Instant::now();
    assert_eq!(get(&server, "/api/v1/pods").names(), ["a"]);
    assert!(start.elapsed() >= delay);
    let start = Instant::now();
    assert_eq!(watch(&server, "/api/v1/pods?watch=1").brief().unwrap().1, "a");
    assert!(start.elapsed() >= delay * 2);
}

#[test]
fn a_server_that_is_away_comes_back_on_its_port_with_its_objects() {
    let server = with_pods(&["a"]);
    let mut open = watch(&server, &format!("/api/v1/pods?watch=1&resourceVersion={}", server.revision()));
    server.go_away().unwrap();
    assert!(open.line().unwrap().is_err());
    assert_eq!(TcpStream::connect(server.address()).unwrap_err().kind(), std::io::ErrorKind::ConnectionRefused);
    server.come_back().unwrap();
    assert_eq!(get(&server, "/api/v1/pods").names(), ["a"]);

    server.go_deaf().unwrap();
    let mut stream = TcpStream::connect(server.address()).unwrap();
    stream.set_read_timeout(Some(Duration::from_millis(200))).unwrap();
    write!(stream, "GET /version HTTP/1.1\r\nHost: test\r\n\r\n").unwrap();
    assert!(stream.read(&mut [0; 1]).is_err());
    server.come_back().unwrap();
    assert_eq!(get(&server, "/api/v1/pods").names(), ["a"]);
}

#[test]
fn the_clock_is_off_as_asked() {
    let server = server();
    server.set_clock_skew(-3600);
    let answer = get(&server, "/version");
    let date = jiff::fmt::rfc2822::parse(answer.headers["date"].to_str().unwrap()).unwrap().timestamp();
    let behind = jiff::Timestamp::now().duration_since(date).as_secs();
    assert!((3595..3700).contains(&behind), "{behind}");
    server.create(serde_json::json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "old"}})).unwrap();
    let created = server.get("v1", "Namespace", "", "old").unwrap()["metadata"]["creationTimestamp"].as_str().unwrap().to_owned();
    let created: jiff::Timestamp = created.parse().unwrap();
    assert!(jiff::Timestamp::now().duration_since(created).as_secs() >= 3595);
}

#[test]
fn dropping_the_server_closes_its_port() {
    let server = server();
    let address = server.address();
    let mut open = watch(&server, "/api/v1/pods?watch=1");
    drop(server);
    let end = Instant::now() + PATIENCE;
    while TcpStream::connect(address).is_ok() {
        assert!(Instant::now() < end, "{address} still answers");
    }
    assert!(open.line().is_none_or(|line| line.is_err()));
}
