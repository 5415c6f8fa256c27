//! Times and durations as people write and read them: wall times in the local zone, durations with units.

use crate::failure::Failure;
use gaffer_config::UnitError;
use jiff::tz::TimeZone;
use jiff::{Timestamp, Zoned};
use std::time::Duration;

/// A duration as `gaffer.toml` writes it: `250ms`, `30s`, `1h30m`, `7d`.
pub fn parse_duration(text: &str) -> Result<Duration, String> {
    gaffer_config::parse_duration(text).map_err(|error| match error {
        UnitError::NoUnit => format!("it needs a unit: write {text}s"),
        other => format!("{other}; examples: 250ms, 30s, 1h30m, 7d"),
    })
}

/// `0.2s`, `41s`, `1m12s`, `2h10m`, `3d4h`: as the daemon words its reasons.
pub fn duration(ms: u64) -> String {
    gaffer_config::format_duration(Duration::from_millis(ms))
}

/// `96M`, `1.2G`.
pub fn size(bytes: u64) -> String {
    gaffer_config::format_size(bytes)
}

fn local(time: &str) -> Option<Zoned> {
    time.parse::<Timestamp>()
        .ok()
        .map(|at| at.to_zoned(TimeZone::system()))
}

/// `14:02:01` in the local zone; the text itself if it is no time.
pub fn clock(time: &str) -> String {
    local(time).map_or_else(|| time.to_owned(), |at| at.strftime("%H:%M:%S").to_string())
}

/// `14:02:18.201` in the local zone.
pub fn clock_ms(time: &str) -> String {
    local(time).map_or_else(|| time.to_owned(), |at| at.strftime("%H:%M:%S.%3f").to_string())
}

/// `14:02:19` for what is less than 24 hours away, `19 Nov 09:12` for what is further.
pub fn date_or_clock(time: &str) -> String {
    let Some(at) = local(time) else {
        return time.to_owned();
    };
    let age_s = Timestamp::now().as_second() - at.timestamp().as_second();
    let form = if age_s.abs() < 86_400 {
        "%H:%M:%S"
    } else {
        "%d %b %H:%M"
    };
    at.strftime(form).to_string()
}

/// Now, `14:02:01`.
pub fn clock_now() -> String {
    Zoned::now().strftime("%H:%M:%S").to_string()
}

/// Milliseconds from one API time to another, 0 if it went backwards.
pub fn between_ms(from: &str, to: &str) -> Option<u64> {
    let from = from.parse::<Timestamp>().ok()?;
    let to = to.parse::<Timestamp>().ok()?;
    u64::try_from(to.as_millisecond() - from.as_millisecond()).ok()
}

/// What `--since` and `--until` take: `10m` (ago), `14:02` or `14:02:18` (today), a date, or RFC 3339. Gives RFC 3339 in UTC.
pub fn instant(text: &str) -> Result<String, Failure> {
    if let Ok(ago) = parse_duration(text) {
        let ago_ms = i64::try_from(ago.as_millis()).unwrap_or(i64::MAX);
        let at = Timestamp::from_millisecond(Timestamp::now().as_millisecond().saturating_sub(ago_ms));
        return at
            .map(|at| at.to_string())
            .map_err(|error| Failure::usage(format!("`{text}` ago is no time: {error}")));
    }
    if let Ok(at) = text.parse::<Timestamp>() {
        return Ok(at.to_string());
    }
    let now = Zoned::now();
    let civil = text
        .parse::<jiff::civil::Time>()
        .map(|time| now.date().to_datetime(time));
    let civil = civil.or_else(|_| text.parse::<jiff::civil::DateTime>());
    let zoned = civil.ok().and_then(|at| at.to_zoned(TimeZone::system()).ok());
    zoned.map(|at| at.timestamp().to_string()).ok_or_else(|| {
        Failure::usage(format!("`{text}` is no time"))
            .hint("write 10m (ago), 14:02, 2026-11-22T14:02 or an RFC 3339 time")
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_duration_without_a_unit_is_answered_with_one() {
        assert_eq!(parse_duration("1h30m"), Ok(Duration::from_secs(5400)));
        assert_eq!(parse_duration("20"), Err("it needs a unit: write 20s".to_owned()));
        assert!(
            parse_duration("1x")
                .unwrap_err()
                .ends_with("examples: 250ms, 30s, 1h30m, 7d")
        );
    }

    #[test]
    fn a_time_may_be_written_in_several_ways() {
        assert!(instant("10m").is_ok());
        assert!(instant("14:02").is_ok());
        assert!(instant("2026-11-22T14:02").is_ok());
        assert_eq!(instant("2026-11-22T14:02:00Z").unwrap(), "2026-11-22T14:02:00Z");
        assert_eq!(instant("soon").unwrap_err().exit, 2);
    }
}
