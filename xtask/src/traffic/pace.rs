//! Sending at a rate.

use std::thread;
use std::time::{Duration, Instant};

use anyhow::Result;

/// The most that is sent in one go to catch up: more would be a burst that a queue has to hold.
const BURST: u64 = 64;

/// The shortest sleep: below this, timers and scheduling take longer than asked for.
const NAP: Duration = Duration::from_micros(100);

/// What was sent.
#[derive(Clone, Copy, Debug, Default)]
pub struct Sent {
    /// Packets.
    pub packets: u64,
    /// How long that took.
    pub time: Duration,
}

impl Sent {
    /// Packets per second.
    pub fn rate(&self) -> f64 {
        self.packets as f64 / self.time.as_secs_f64().max(1e-9)
    }
}

/// Calls `send` with the number of the first packet and how many are due, so that `rate` packets go out per second, for `time`. A sender that
/// is too slow falls behind: what was reached stands in the result.
///
/// # Errors
/// Those of `send`.
pub fn paced(rate: f64, time: Duration, mut send: impl FnMut(u64, usize) -> Result<u64>) -> Result<Sent> {
    let begin = Instant::now();
    let mut packets = 0;
    loop {
        let elapsed = begin.elapsed();
        if elapsed >= time {
            return Ok(Sent { packets, time: elapsed });
        }
        // The first is due at once.
        let due = (elapsed.as_secs_f64() * rate) as u64 + 1;
        if due > packets {
            let now = (due - packets).min(BURST);
            packets += send(packets, now as usize)?;
        } else {
            let next = Duration::from_secs_f64(packets as f64 / rate);
            thread::sleep(next.saturating_sub(elapsed).clamp(NAP, Duration::from_millis(20)));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_rate_is_kept_and_packets_are_numbered() -> Result<()> {
        let mut next = 0;
        let sent = paced(2_000.0, Duration::from_millis(200), |first, count| {
            assert_eq!(first, next);
            next += count as u64;
            Ok(count as u64)
        })?;
        assert_eq!(sent.packets, next);
        // A loaded machine may send fewer, never more.
        assert!((1..=402).contains(&sent.packets), "{sent:?}");
        Ok(())
    }
}
