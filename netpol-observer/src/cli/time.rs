//! Durations and points in time as people type them.

use jiff::civil::DateTime;
use jiff::tz::TimeZone;
use jiff::{SignedDuration, Timestamp};

/// `--since`
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Since {
    /// So long before the end of the recording.
    Ago(SignedDuration),
    /// A point in time.
    At(Timestamp),
}

impl Since {
    /// The point in time, counted back from `end`.
    pub(super) fn before(self, end: Timestamp) -> Timestamp {
        match self {
            Since::Ago(duration) => end.checked_sub(duration).unwrap_or(Timestamp::MIN),
            Since::At(time) => time,
        }
    }
}

/// A duration (`5m`, `1h30m`) or a time (RFC 3339, or without an offset in the time zone of this machine).
pub(super) fn parse_since(text: &str) -> Result<Since, String> {
    if let Ok(time) = text.parse::<Timestamp>() {
        return Ok(Since::At(time));
    }
    if let Ok(local) = text.parse::<DateTime>() {
        return match local.to_zoned(TimeZone::system()) {
            Ok(zoned) => Ok(Since::At(zoned.timestamp())),
            Err(error) => Err(error.to_string()),
        };
    }
    match parse_duration(text) {
        Ok(duration) => Ok(Since::Ago(duration)),
        Err(_) => Err("expected a duration such as 5m or 1h30m, or a time such as 2026-11-23T14:02:00Z".to_owned()),
    }
}

/// A duration above zero.
pub(super) fn parse_duration(text: &str) -> Result<SignedDuration, String> {
    match text.parse::<SignedDuration>() {
        Ok(duration) if duration.is_positive() => Ok(duration),
        Ok(_) => Err("expected more than zero".to_owned()),
        Err(_) => Err("expected a duration such as 500ms, 30s, 5m or 1h30m".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_forms_of_since() {
        assert_eq!(parse_since("5m"), Ok(Since::Ago(SignedDuration::from_mins(5))));
        assert_eq!(parse_since("1h30m"), Ok(Since::Ago(SignedDuration::from_mins(90))));
        let time: Timestamp = "2026-11-23T14:02:00Z".parse().unwrap();
        assert_eq!(parse_since("2026-11-23T15:02:00+01:00"), Ok(Since::At(time)));
        assert!(matches!(parse_since("2026-11-23T14:02"), Ok(Since::At(_))));
        assert!(matches!(parse_since("2026-11-23 14:02:00"), Ok(Since::At(_))));
        for text in ["", "5", "-5m", "0s", "yesterday"] {
            assert!(parse_since(text).is_err(), "{text:?}");
        }
        assert_eq!(Since::Ago(SignedDuration::from_mins(2)).before(time).to_string(), "2026-11-23T14:00:00Z");
        assert_eq!(Since::At(time).before(Timestamp::MAX), time);
    }

    #[test]
    fn durations_are_positive() {
        assert_eq!(parse_duration("500ms"), Ok(SignedDuration::from_millis(500)));
        for text in ["", "0s", "-1s", "5", "soon"] {
            assert!(parse_duration(text).is_err(), "{text:?}");
        }
    }
}
