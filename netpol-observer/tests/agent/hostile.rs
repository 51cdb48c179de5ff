//! Callers that mean harm, or are broken: the agent refuses, and goes on.

use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use crate::http::{PATIENCE, connect, head, send};
use crate::process::Agent;
use crate::scene::{DROPS, Scene};

/// Sends bytes; what comes back until the connection ends.
fn raw(agent: &Agent, bytes: &[u8]) -> String {
    let mut stream = connect(agent.address);
    // The agent may have hung up in the middle.
    _ = stream.write_all(bytes);
    let mut answer = Vec::new();
    _ = stream.read_to_end(&mut answer);
    String::from_utf8_lossy(&answer).into_owned()
}

fn assert_lives(agent: &Agent) {
    assert_eq!(agent.get("/healthz").code, 200);
    let ledger = &agent.status()["ledger"];
    assert_eq!(ledger["records"].as_u64().unwrap() + ledger["counted"].as_u64().unwrap(), DROPS);
}

#[test]
fn what_is_no_request() {
    let scene = Scene::new();
    let agent = scene.open_agent(&[]);
    let long_header = format!("GET /healthz HTTP/1.1\r\nhost: localhost\r\nx: {}\r\n\r\n", "x".repeat(200_000));
    let long_path = format!("GET /{} HTTP/1.1\r\nhost: localhost\r\n\r\n", "x".repeat(200_000));
    let many_headers = format!("GET /healthz HTTP/1.1\r\nhost: localhost\r\n{}\r\n", "a: b\r\n".repeat(500));
    for (bytes, code) in [
        (&b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03"[..], Some("400")),
        (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0", None),
        (b"GET / HTTP/1.1\nhost localhost\n\n", Some("400")),
        (b"GET /\0 HTTP/1.1\r\nhost: localhost\r\n\r\n", Some("400")),
        (b"GET /healthz HTTP/1.1\r\nhost: localhost\r\nhost\0: x\r\n\r\n", Some("400")),
        (b"\r\n\r\n\r\n\r\nhello", None),
        (long_header.as_bytes(), Some("431")),
        (long_path.as_bytes(), Some("4")),
        (many_headers.as_bytes(), Some("431")),
        (b"POST /v1/explain HTTP/1.1\r\nhost: localhost\r\ncontent-length: -1\r\n\r\n", Some("400")),
        (b"POST /v1/explain HTTP/1.1\r\nhost: localhost\r\ncontent-length: 5\r\ntransfer-encoding: chunked\r\nconnection: close\r\n\r\n0\r\n\r\n", Some("400")),
        (b"POST /v1/explain HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\ntransfer-encoding: chunked\r\n\r\nffffffffffffffffff\r\n", Some("400")),
        (b"GET /healthz HTTP/1.1\r\nconnection: close\r\n\r\n", Some("400")),
    ] {
        let answer = raw(&agent, bytes);
        let shown = String::from_utf8_lossy(&bytes[..bytes.len().min(80)]).into_owned();
        if let Some(code) = code {
            assert!(answer.starts_with(&format!("HTTP/1.1 {code}")), "{shown:?}: {answer}");
        } else {
            assert!(!answer.contains("200 OK"), "{shown:?}: {answer}");
        }
    }
    assert_lives(&agent);
}

#[test]
fn bodies_that_are_none() {
    let scene = Scene::new();
    let agent = scene.open_agent(&[]);
    let deep = format!(r#"{{"args":{}"#, "[".repeat(30_000));
    let large = format!(r#"{{"args":["{}"]}}"#, "x".repeat(100_000));
    let words = format!(r#"{{"args":[{}"--port"]}}"#, r#""--port","#.repeat(5000));
    for body in ["{}", "[]", "null", "\"", "{\"args\":5}", "{\"args\":[],\"files\":[]}", "{\"args\":[],\"form\":\"yaml\"}", &deep, &large] {
        let answer = send(connect(agent.address), "POST", "/v1/explain", &[("content-type", "application/json")], body);
        assert_eq!(answer.code, 400, "{body:.60}");
    }
    let answer = send(connect(agent.address), "POST", "/v1/explain", &[("content-type", "application/json")], &words);
    assert_eq!((answer.code, &answer.json()["exit"]), (200, &2.into()));
    // A form on a web page can send this, but not JSON.
    let answer = send(connect(agent.address), "POST", "/v1/explain", &[("content-type", "text/plain")], r#"{"args":[]}"#);
    assert_eq!(answer.code, 400);
    assert_lives(&agent);
}

#[test]
fn web_pages_get_nothing() {
    let scene = Scene::new();
    let agent = scene.open_agent(&[]);
    for path in ["/v1/status", "/v1/drops", "/v1/drops?follow=true", "/healthz"] {
        for headers in [
            &[("host", "evil.example")][..],
            &[("host", "localhost.evil.example:9470")],
            &[("host", "localhost"), ("origin", "https://evil.example")],
            &[("host", "localhost"), ("origin", "http://localhost")],
            &[("host", "localhost"), ("sec-fetch-site", "cross-site")],
            &[("host", "localhost"), ("sec-fetch-site", "same-site")],
        ] {
            let answer = send(connect(agent.address), "GET", path, headers, "");
            assert_eq!(answer.code, 403, "{path} {headers:?}");
            assert!(!answer.headers.iter().any(|(name, _)| name.starts_with("access-control")));
            assert!(!answer.text().contains("shop"));
        }
    }
    let allowed = send(connect(agent.address), "GET", "/v1/status", &[("host", "127.0.0.1:12345"), ("sec-fetch-site", "none")], "");
    assert_eq!(allowed.code, 200);
}

/// A caller that says nothing, or says it slowly, is not waited for; others are served meanwhile.
#[test]
fn callers_that_take_their_time() {
    let scene = Scene::new();
    let agent = scene.open_agent(&[]);
    let mut silent = connect(agent.address);
    let mut slow = connect(agent.address);
    slow.write_all(b"GET /healthz HTTP/1.1\r\nhost: loc").unwrap();
    let mut body = connect(agent.address);
    let start = b"POST /v1/explain HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\ncontent-length: 100\r\n\r\n{";
    body.write_all(start).unwrap();
    // A connection that is kept alive and not used.
    let mut kept = connect(agent.address);
    kept.write_all(b"GET /healthz HTTP/1.1\r\nhost: localhost\r\n\r\n").unwrap();
    assert_lives(&agent);
    let begin = Instant::now();
    for stream in [&mut silent, &mut slow, &mut kept] {
        let mut rest = Vec::new();
        // Ended or reset, by the agent: the time limit of the test's own side would be an error.
        stream.read_to_end(&mut rest).unwrap();
    }
    assert_eq!(head(Box::new(body)).code, 400);
    assert!(begin.elapsed() < PATIENCE);
    assert_lives(&agent);
}

#[test]
fn more_connections_than_there_may_be() {
    let scene = Scene::new();
    let agent = scene.open_agent(&["--max-readers", "3"]);
    let readers: Vec<_> = (0..3)
        .map(|_| {
            let mut frames = agent.drops("follow=true");
            frames.until("hello", |frame| frame["frame"] == "hello");
            frames
        })
        .collect();
    let refused = agent.get("/v1/drops?follow=true");
    assert_eq!(refused.code, 503);
    assert!(refused.json()["error"].as_str().unwrap().contains("3 readers"));
    assert_eq!(agent.status()["clients"]["refused"], 1);
    drop(readers);
    // A reader that has gone is noticed when it is written to.
    let end = Instant::now() + PATIENCE;
    while agent.get("/v1/drops").code != 200 {
        assert!(Instant::now() < end);
        std::thread::sleep(Duration::from_millis(50));
    }
    // Far more than are served at once: they wait for those that say nothing to be ended.
    let idle: Vec<TcpStream> = (0..400).map(|_| connect(agent.address)).collect();
    assert_lives(&agent);
    drop(idle);
    assert_lives(&agent);
}
