//! `process_*`, as Prometheus' clients have them: what the program takes of its node.

use std::fs;

use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::metrics::gauge::ConstGauge;
use prometheus_client::registry::Registry;

/// Read from /proc; what cannot be read there is left out.
pub(super) fn registry() -> Registry {
    let mut registry = Registry::default();
    if let Some(Stat { cpu, threads, resident, virtual_bytes }) = stat() {
        registry.register("process_cpu_seconds", "User and system CPU time", ConstCounter::new(cpu));
        registry.register("process_threads", "Threads", ConstGauge::new(threads));
        registry.register("process_resident_memory_bytes", "Resident memory", ConstGauge::new(resident));
        registry.register("process_virtual_memory_bytes", "Virtual memory", ConstGauge::new(virtual_bytes));
    }
    if let Ok(open) = fs::read_dir("/proc/self/fd") {
        // One of them is that of the directory.
        let open = open.count().saturating_sub(1);
        registry.register("process_open_fds", "Open file descriptors", ConstGauge::new(i64::try_from(open).unwrap_or(i64::MAX)));
    }
    registry
}

struct Stat {
    cpu: f64,
    threads: i64,
    resident: i64,
    virtual_bytes: i64,
}

/// Ticks per second in /proc: `USER_HZ` is 100 on every architecture that Kubernetes runs on.
const TICKS: f64 = 100.0;

fn stat() -> Option<Stat> {
    parse(&fs::read_to_string("/proc/self/stat").ok()?, &fs::read_to_string("/proc/self/status").ok()?)
}

/// proc(5): behind the name, which may hold anything, utime and stime are fields 12 and 13, `num_threads` is the 18th.
fn parse(stat: &str, status: &str) -> Option<Stat> {
    let (_, rest) = stat.rsplit_once(')')?;
    let fields: Vec<&str> = rest.split_whitespace().collect();
    let number = |place: usize| fields.get(place)?.parse::<i64>().ok();
    let kibibytes = |name: &str| {
        let line = status.lines().find_map(|line| line.strip_prefix(name))?;
        line.trim_start_matches(':').split_whitespace().next()?.parse::<i64>().ok()
    };
    let ticks = i32::try_from(number(11)? + number(12)?).map_or(f64::from(i32::MAX), f64::from);
    Some(Stat {
        cpu: ticks / TICKS,
        threads: number(17)?,
        resident: kibibytes("VmRSS")? * 1024,
        virtual_bytes: kibibytes("VmSize")? * 1024,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_proc_says() {
        let stat = "4242 (a name) with) R 1 2 3 4 5 6 7 8 9 10 150 50 0 0 20 0 12 0 77";
        let parsed = parse(stat, "Name:\tobserver\nVmSize:\t    2048 kB\nVmRSS:\t 100 kB\n").unwrap();
        assert_eq!((parsed.cpu, parsed.threads, parsed.resident, parsed.virtual_bytes), (2.0, 12, 102_400, 2_097_152));
        assert!(parse("", "").is_none() && parse(stat, "").is_none());
        assert!(super::stat().is_some_and(|stat| stat.resident > 0 && stat.threads > 0), "of this process");
    }
}
