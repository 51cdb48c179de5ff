//! The memory of a process that does nothing but load a cluster and answer.

use std::path::Path;
use std::process::{Command, Stdio};

use netpol_observer::cluster::manifests::load;
use netpol_observer::policy::{Engine, Profile};

use crate::Failure;
use crate::cluster::Shape;
use crate::figures::{Figure, Unit};
use crate::flows::Flows;

/// Verdicts that the process answers.
const VERDICTS: usize = 10_000;

/// Starts the process and reads what it says: bytes before loading, at the end, and the most in between.
pub(super) fn measure(manifests: &Path, seed: u64, shape: &Shape) -> Result<Vec<Figure>, Failure> {
    let mut command = Command::new(std::env::current_exe()?);
    command.arg("--memory").arg(manifests).arg("--seed").arg(seed.to_string());
    let output = command.stderr(Stdio::inherit()).output()?;
    let text = String::from_utf8_lossy(&output.stdout);
    let bytes: Vec<f64> = text.split_whitespace().filter_map(|word| word.parse().ok()).collect();
    let [before, after, peak] = bytes[..] else {
        return Err(format!("the process whose memory is measured ended with {} and said {text:?}", output.status).into());
    };
    let peak = Figure::new("peak memory", Unit::Bytes, peak, format!("{VERDICTS} verdicts; reading included"));
    let peak = if shape.pods == 10_000 { peak.aim(60.0 * 1024.0 * 1024.0) } else { peak };
    let per_pod = (after - before) / shape.pods as f64;
    Ok(vec![
        peak,
        Figure::new("memory afterwards", Unit::Bytes, after, format!("{} of it before loading", Unit::Bytes.show(before))),
        Figure::new("memory per pod", Unit::Bytes, per_pod, "policies and the rest included"),
    ])
}

/// The process itself.
pub(crate) fn child(manifests: &Path, seed: u64) -> Result<(), Failure> {
    let [before, _] = memory()?;
    let mut engine = Engine::new(Profile::default());
    let loaded = load(&[manifests.to_owned()], &mut std::io::empty())?;
    engine.reset(loaded.objects);
    let flows = Flows::new(engine.index(), seed).draw(VERDICTS);
    for flow in &flows {
        std::hint::black_box(flow.verdict(&engine));
    }
    drop(flows);
    let [after, peak] = memory()?;
    println!("{before} {after} {peak}");
    Ok(())
}

/// `VmRSS` and `VmHWM` of /proc/self/status, in bytes.
fn memory() -> Result<[u64; 2], Failure> {
    let status = std::fs::read_to_string("/proc/self/status")?;
    let kib = |name: &str| {
        let line = status.lines().find_map(|line| line.strip_prefix(name))?;
        line.split_whitespace().next()?.parse::<u64>().ok()
    };
    match [kib("VmRSS:"), kib("VmHWM:")] {
        [Some(now), Some(most)] => Ok([now * 1024, most * 1024]),
        _ => Err("/proc/self/status does not tell VmRSS and VmHWM".into()),
    }
}
