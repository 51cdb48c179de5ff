//! What the agent takes of a CPU at a given load, and its memory.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use aya::maps::{Map, MapData, MapInfo, PerCpuArray};
use xtask::tail::Tail;
use xtask::traffic::{Forger, Sent, paced};
use xtask::usage;

use crate::report::{Cell, Part};
use crate::scene::{Scene, of_flows};
use crate::{Effort, progress};

/// What the load runs for before it is measured.
const WARM_UP: Duration = Duration::from_secs(2);

pub(crate) fn measure(scene: &Scene, observer: &Path, effort: Effort) -> Result<Part> {
    let mut part = Part::new(
        "cpu",
        "`observer tail -o json` to /dev/null: its share of one CPU and its resident memory",
        &["reached", "user", "system", "both", "memory", "reported", "folded", "lost"],
    );
    for rate in [1_000.0, 10_000.0, 100_000.0] {
        for flows in [10, 10_000] {
            let what = format!("{rate:.0} drops per second from {flows} flows");
            progress(&format!("cpu: {what}"));
            part.row(what, load(scene, observer, rate, flows, effort.pick(Duration::from_secs(8), Duration::from_secs(2)))?);
        }
    }
    part.note("time in the eBPF programs is not the agent's but of whoever drops: see *program*");
    Ok(part)
}

fn load(scene: &Scene, observer: &Path, rate: f64, flows: u64, time: Duration) -> Result<Vec<Cell>> {
    scene.rules("")?;
    let arguments = ["-o".into(), "json".into(), "--manifests".into(), scene.manifests().to_owned()];
    let tail = Tail::start::<PathBuf>(observer, arguments, Stdio::null())?;
    let counters = Counters::of(tail.id())?;
    let (sent, before, after, elapsed) = thread::scope(|scope| -> Result<_> {
        let sender = scope.spawn(|| {
            scene.sender.in_ns(|| -> Result<Sent> {
                let mut forger = Forger::new()?;
                paced(rate, WARM_UP + time, |first, count| forger.send(first, count, of_flows(flows)))
            })
        });
        thread::sleep(WARM_UP);
        let (begin, before) = (Instant::now(), usage::of(tail.id())?);
        thread::sleep(time.saturating_sub(Duration::from_millis(50)));
        let (elapsed, after) = (begin.elapsed(), usage::of(tail.id())?);
        let sent = sender.join().ok().context("the sender panicked")???;
        Ok((sent, before, after, elapsed))
    })?;
    let [_, reported, folded, ring_full, _] = counters.read()?;
    tail.stop()?;
    let share = |after: Duration, before: Duration| 100.0 * (after - before).as_secs_f64() / elapsed.as_secs_f64();
    let (user, system) = (share(after.user, before.user), share(after.system, before.system));
    Ok(vec![
        Cell::PerSecond(sent.rate()),
        Cell::Percent(user),
        Cell::Percent(system),
        Cell::Percent(user + system),
        Cell::Bytes(after.resident),
        Cell::Count(reported),
        Cell::Count(folded),
        Cell::Count(ring_full),
    ])
}

/// The kernel side's counters of another process, read from its map: what it writes goes to /dev/null.
struct Counters(PerCpuArray<MapData, [u64; 5]>);

impl Counters {
    fn of(pid: u32) -> Result<Self> {
        let directory = format!("/proc/{pid}/fdinfo");
        let mut maps = BTreeSet::new();
        for entry in fs::read_dir(&directory).with_context(|| format!("cannot list {directory}"))?.flatten() {
            let info = fs::read_to_string(entry.path()).unwrap_or_default();
            maps.extend(info.lines().find_map(|line| line.strip_prefix("map_id:")?.trim().parse::<u32>().ok()));
        }
        let is_it = |id: &u32| MapInfo::from_id(*id).is_ok_and(|info| info.name_as_str() == Some("COUNTERS"));
        let id = maps.into_iter().find(is_it).with_context(|| format!("process {pid} has no map COUNTERS"))?;
        Ok(Counters(PerCpuArray::try_from(Map::PerCpuArray(MapData::from_id(id)?))?))
    }

    /// Seen, reported, folded, ring full, unfolded.
    fn read(&self) -> Result<[u64; 5]> {
        let mut sum = [0; 5];
        for cpu in self.0.get(&0, 0)?.iter() {
            sum.iter_mut().zip(cpu).for_each(|(sum, value)| *sum += value);
        }
        Ok(sum)
    }
}
