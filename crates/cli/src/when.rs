//! Times and durations as people write and read them: wall times in the local zone, durations with units.

use crate::failure::Failure;
use jiff::tz::TimeZone;
use jiff::{Timestamp, Zoned};
use std::time::Duration;

/// A duration as `gaffer.toml` writes it: `250ms`, `30s`, `1h30m`, `7d`.
pub fn parse_duration(text: &str) -> Result<Duration, String> {
    let mut total_ms: u64 = 0;
    let mut rest = text;
    if text.bytes().all(|b| b.is_ascii_digit()) && !text.is_empty() {
        return Err(format!("`{text}` needs a unit: write \"{text}s\""));
    }
    let wrong = || format!("`{text}` is not a duration; examples: 250ms, 30s, 1h30m, 7d");
    while !rest.is_empty() {
        let digits = rest.bytes().take_while(u8::is_ascii_digit).count();
        let after = &rest[digits..];
        let letters = after.bytes().take_while(u8::is_ascii_alphabetic).count();
        let count: u64 = rest[..digits].parse().map_err(|_| wrong())?;
        let unit_ms = match &after[..letters] {
            "ms" => 1,
            "s" => 1_000,
            "m" => 60_000,
            "h" => 3_600_000,
            "d" => 86_400_000,
            "w" => 7 * 86_400_000,
            _ => return Err(wrong()),
        };
        total_ms = count
            .checked_mul(unit_ms)
            .and_then(|ms| ms.checked_add(total_ms))
            .ok_or_else(wrong)?;
        rest = &after[letters..];
    }
    if text.is_empty() {
        Err(wrong())
    } else {
        Ok(Duration::from_millis(total_ms))
    }
}

/// `0.2s`, `41.2s`, `1m12s`, `2h10m`, `3d4h`: two units at most, tenths below a minute.
pub fn duration(ms: u64) -> String {
    let seconds = ms / 1000;
    let pair = |big: u64, big_unit: &str, small: u64, small_unit: &str| match small {
        0 => format!("{big}{big_unit}"),
        _ => format!("{big}{big_unit}{small}{small_unit}"),
    };
    match seconds {
        0..60 => {
            let tenths = (ms + 50) / 100;
            if tenths >= 600 {
                "1m".to_owned()
            } else {
                format!("{}.{}s", tenths / 10, tenths % 10)
            }
        }
        60..3600 => pair(seconds / 60, "m", seconds % 60, "s"),
        3600..86_400 => pair(seconds / 3600, "h", seconds / 60 % 60, "m"),
        _ => pair(seconds / 86_400, "d", seconds / 3600 % 24, "h"),
    }
}

/// `96M`, `1.2G`: 1024-based, at most one digit after the point.
pub fn size(bytes: u64) -> String {
    const UNITS: [(&str, u64); 4] = [("T", 1 << 40), ("G", 1 << 30), ("M", 1 << 20), ("K", 1 << 10)];
    for (unit, one) in UNITS {
        if bytes >= one {
            let tenths = bytes / (one / 10).max(1);
            return if tenths < 100 && !tenths.is_multiple_of(10) && one > 1 << 20 {
                format!("{}.{}{unit}", tenths / 10, tenths % 10)
            } else {
                format!("{}{unit}", bytes / one)
            };
        }
    }
    format!("{bytes}B")
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

/// `14:02:19` for the last 24 hours, `19 Nov 09:12` for what is older.
pub fn date_or_clock(time: &str) -> String {
    let Some(at) = local(time) else {
        return time.to_owned();
    };
    let age_s = Timestamp::now().as_second() - at.timestamp().as_second();
    let form = if age_s < 86_400 { "%H:%M:%S" } else { "%d %b %H:%M" };
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
    fn durations_need_units() {
        assert_eq!(parse_duration("1h30m"), Ok(Duration::from_secs(5400)));
        assert_eq!(parse_duration("250ms"), Ok(Duration::from_millis(250)));
        assert_eq!(parse_duration("0s"), Ok(Duration::ZERO));
        assert_eq!(
            parse_duration("20").unwrap_err(),
            "`20` needs a unit: write \"20s\""
        );
        for wrong in ["", "s", "1x", "-1s", "1.5s", "99999999999999999999s"] {
            assert!(parse_duration(wrong).is_err(), "{wrong} was taken");
        }
    }

    #[test]
    fn durations_are_shown_in_two_units_at_most() {
        let shown: Vec<String> = [0, 240, 1_100, 59_960, 72_000, 7_800_000, 273_600_000, 86_400_000]
            .map(duration)
            .into();
        assert_eq!(
            shown,
            ["0.0s", "0.2s", "1.1s", "1m", "1m12s", "2h10m", "3d4h", "1d"]
        );
    }

    #[test]
    fn sizes_are_short() {
        assert_eq!(
            [500, 4096, 12 << 20, 1_288_490_189].map(size),
            ["500B", "4K", "12M", "1.2G"]
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
