//! How long after a packet was sent its explanation is there to be read.

use std::collections::HashMap;
use std::io::{BufRead as _, BufReader};
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use serde_json::Value;
use xtask::tail::Tail;
use xtask::traffic::{Forger, paced};

use crate::report::{Cell, Part};
use crate::scene::{DENIED, Scene, all_different};
use crate::statistics::quantile;
use crate::{Effort, progress};

/// Milliseconds that 99 of 100 should not take longer than.
const AIM: f64 = 20.0;

pub(crate) fn measure(scene: &Scene, observer: &Path, effort: Effort) -> Result<Part> {
    let mut part = Part::new(
        "latency",
        "from just before a packet is sent to its line in the pipe's reader, each packet another flow",
        &["packets", "p50", "p99", "worst"],
    );
    for (rate, seconds) in [(1.0, effort.pick(20, 5)), (100.0, effort.pick(10, 3)), (1_000.0, effort.pick(10, 3))] {
        progress(&format!("latency: {rate} drops per second, for {seconds} s"));
        let mut times = round(scene, observer, rate, Duration::from_secs(seconds))?;
        times.sort_by(f64::total_cmp);
        let p99 = quantile(&times, 0.99);
        let cells = vec![
            Cell::Count(times.len() as u64),
            Cell::Milliseconds(quantile(&times, 0.5)),
            Cell::Milliseconds(p99),
            Cell::Milliseconds(quantile(&times, 1.0)),
        ];
        part.row_with_aim(format!("{rate} drops per second"), cells, format!("p99 {AIM} ms"), p99 <= AIM);
    }
    Ok(part)
}

/// Milliseconds, one for each packet.
fn round(scene: &Scene, observer: &Path, rate: f64, time: Duration) -> Result<Vec<f64>> {
    scene.rules("")?;
    let arguments = ["-o".into(), "json".into(), "--manifests".into(), scene.manifests().to_owned()];
    let mut tail = Tail::start::<PathBuf>(observer, arguments, Stdio::piped())?;
    let output = tail.process().child().stdout.take().context("its output is piped")?;
    let reader = thread::spawn(move || {
        let mut output = BufReader::with_capacity(1 << 20, output);
        let mut lines: Vec<(Instant, String)> = Vec::new();
        loop {
            let mut line = String::new();
            match output.read_line(&mut line) {
                Ok(0) | Err(_) => return lines,
                Ok(_) => lines.push((Instant::now(), line)),
            }
        }
    });
    let sent = scene.sender.in_ns(|| -> Result<Vec<Instant>> {
        let mut forger = Forger::new()?;
        let mut sent = Vec::new();
        paced(rate, time, |first, count| {
            for i in first..first + count as u64 {
                sent.push(Instant::now());
                forger.send(i, 1, all_different)?;
            }
            Ok(count as u64)
        })?;
        Ok(sent)
    })??;
    tail.stop()?;
    let lines = reader.join().ok().context("the thread that reads the output panicked")?;
    let mut numbers: HashMap<(Ipv4Addr, Ipv4Addr, u64), usize> = HashMap::new();
    for i in 0..sent.len() {
        let datagram = all_different(i as u64);
        numbers.insert((datagram.source, datagram.destination, datagram.port.into()), i);
    }
    let mut times = Vec::new();
    for (read, line) in lines {
        let line: Value = serde_json::from_str(&line).with_context(|| format!("the observer wrote {line}"))?;
        if line["type"] == "denial"
            && let Some(i) = packet(&line).and_then(|packet| numbers.remove(&packet))
        {
            times.push((read - sent[i]).as_secs_f64() * 1e3);
        }
    }
    ensure!(numbers.is_empty(), "of {} packets {} were not printed", sent.len(), numbers.len());
    Ok(times)
}

fn packet(line: &Value) -> Option<(Ipv4Addr, Ipv4Addr, u64)> {
    let ip = |party: &str| line[party]["ip"].as_str()?.parse().ok();
    let port = line["server"]["port"].as_u64()?;
    (port >= u64::from(DENIED)).then_some((ip("client")?, ip("server")?, port))
}
