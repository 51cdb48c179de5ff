//! `observer agent --probe`: what a kubelet runs in the agent's pod, for the API is on a loopback that no kubelet reaches.

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use crate::agent::tls_unchecked;
use crate::cli::CommandError;

/// The agent has this long. A kubelet gives a probe a second, unless its timeoutSeconds says more.
const PATIENCE: Duration = Duration::from_secs(5);

/// More than the answer to a probe ever is.
const LONGEST: u64 = 16 * 1024;

/// `--probe`
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub(super) enum Probe {
    /// Does it live?
    Healthz,
    /// Can its answers be relied on?
    Readyz,
}

impl Probe {
    /// Asks; an error when the answer is no.
    pub(super) fn ask(self, address: SocketAddr, tls: bool) -> Result<(), CommandError> {
        let path = match self {
            Probe::Healthz => "/healthz",
            Probe::Readyz => "/readyz",
        };
        let answer =
            get(address, tls, path).map_err(|error| CommandError::failure(format!("the agent at {address} does not answer: {error}")))?;
        let (head, body) = answer.split_once("\r\n\r\n").unwrap_or((&answer, ""));
        match head.split(' ').nth(1) {
            Some("200") => Ok(()),
            _ => Err(CommandError::failure(format!("{path}: {}", body.trim()))),
        }
    }
}

fn get(address: SocketAddr, tls: bool, path: &str) -> io::Result<String> {
    let stream = TcpStream::connect_timeout(&address, PATIENCE)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.set_write_timeout(Some(PATIENCE))?;
    if tls {
        // Nothing is sent that others may not have, and the answer is a yes or no about this very pod.
        exchange(tls_unchecked(stream).map_err(io::Error::other)?, path)
    } else {
        exchange(stream, path)
    }
}

fn exchange(mut stream: impl Read + Write, path: &str) -> io::Result<String> {
    write!(stream, "GET {path} HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n")?;
    stream.flush()?;
    let mut answer = String::new();
    stream.take(LONGEST).read_to_string(&mut answer)?;
    Ok(answer)
}
