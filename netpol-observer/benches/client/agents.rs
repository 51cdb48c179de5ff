//! Agents in memory: HTTP/1.1 over a pipe, frames of a size as denials have.

use std::fmt::Write as _;
use std::future::Future;
use std::pin::Pin;
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use netpol_observer::client::{Agent, Dial, Dialled, Sighting, Unreached};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, DuplexStream, duplex};
use tokio::time::{Instant, sleep_until};

/// What the agents send.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Load {
    /// So many frames per second, spread evenly, for so long.
    Rate { per_agent: f64, seconds: u64 },
    /// So many frames that were kept, as fast as they are taken.
    Burst { frames: u64 },
}

/// Makes an agent for each connection.
pub(crate) struct Piped {
    load: Load,
    began: Timestamp,
}

/// What an agent's pod looks like.
pub(crate) fn sighting(number: usize) -> Sighting {
    Sighting::Agent(Agent {
        uid: format!("uid-{number}"),
        namespace: "netpol-observer".to_owned(),
        pod: format!("agent-{number}"),
        node: format!("node-{number}"),
        ready: true,
        running: true,
        ending: false,
    })
}

/// A pipe holds what a port-forward of kube's client does.
const PIPE: usize = 1024 * 1024;

/// Bytes of a denial.
const PADDING: usize = 2500;

/// An agent tells how far it is so often.
const WATERMARK: Duration = Duration::from_millis(250);

impl Piped {
    pub(crate) fn new(load: Load) -> Piped {
        Piped { load, began: Timestamp::now() }
    }
}

impl Dial for Piped {
    fn dial<'a>(&'a self, agent: &'a Agent) -> Pin<Box<dyn Future<Output = Result<Dialled, Unreached>> + Send + 'a>> {
        let (ours, theirs) = duplex(PIPE);
        let (load, began) = (self.load, self.began);
        let number = agent.uid.bytes().fold(0u64, |hash, byte| hash.wrapping_mul(31).wrapping_add(u64::from(byte)));
        // It ends when the reader goes.
        tokio::spawn(async move { serve(theirs, load, began, number).await });
        Box::pin(async move { Ok(Dialled { link: Box::new(ours), trouble: Box::pin(std::future::pending()) }) })
    }
}

async fn serve(mut pipe: DuplexStream, load: Load, began: Timestamp, number: u64) -> std::io::Result<()> {
    let mut request = Vec::new();
    while !request.ends_with(b"\r\n\r\n") {
        request.push(pipe.read_u8().await?);
    }
    pipe.write_all(b"HTTP/1.1 200 OK\r\ncontent-type: application/x-ndjson\r\ntransfer-encoding: chunked\r\n\r\n").await?;
    let padding = "x".repeat(PADDING);
    let now = Timestamp::now();
    chunk(&mut pipe, &format!("{{\"frame\":\"hello\",\"version\":\"0.1.0\",\"time\":\"{now:.9}\"}}\n")).await?;
    match load {
        Load::Burst { frames } => {
            let mut text = String::new();
            for frame in 0..frames {
                let order =
                    began - SignedDuration::from_hours(1) + SignedDuration::from_micros((frame * 1000 + number % 1000).cast_signed());
                item(&mut text, order, &padding);
                if frame % 16 == 15 || frame + 1 == frames {
                    chunk(&mut pipe, &text).await?;
                    text.clear();
                }
                if frame % 256 == 255 {
                    chunk(&mut pipe, &watermark(order)).await?;
                }
            }
            chunk(&mut pipe, &watermark(Timestamp::now())).await?;
            chunk(&mut pipe, "{\"frame\":\"ledger\",\"line\":{\"type\":\"ledger\"}}\n").await?;
            pipe.write_all(b"0\r\n\r\n").await
        }
        Load::Rate { per_agent, .. } => {
            let step = Duration::from_secs_f64(1.0 / per_agent);
            let start = Instant::now();
            // Agents do not all send at the same moment.
            let mut next = start + step.mul_f64((number % 1000) as f64 / 1000.0);
            let mut told = start + WATERMARK.mul_f64((number % 997) as f64 / 997.0);
            loop {
                sleep_until(next.min(told)).await;
                let mut text = String::new();
                if Instant::now() >= next {
                    next += step;
                    item(&mut text, Timestamp::now(), &padding);
                }
                if Instant::now() >= told {
                    told += WATERMARK;
                    text.push_str(&watermark(Timestamp::now()));
                }
                if !text.is_empty() {
                    chunk(&mut pipe, &text).await?;
                }
            }
        }
    }
}

fn item(text: &mut String, order: Timestamp, padding: &str) {
    let line = format!("{{\"type\":\"denial\",\"time\":\"{order:.9}\",\"padding\":\"{padding}\"}}");
    // Writing to a string does not fail.
    _ = writeln!(text, "{{\"frame\":\"item\",\"order\":\"{order:.9}\",\"line\":{line}}}");
}

fn watermark(order: Timestamp) -> String {
    format!("{{\"frame\":\"watermark\",\"order\":\"{order:.9}\"}}\n")
}

async fn chunk(pipe: &mut DuplexStream, text: &str) -> std::io::Result<()> {
    pipe.write_all(format!("{:x}\r\n{text}\r\n", text.len()).as_bytes()).await
}
