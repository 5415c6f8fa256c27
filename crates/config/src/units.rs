//! Durations, sizes and words: how they are written in files and said in messages.
//!
//! | kind | read | written |
//! |---|---|---|
//! | duration | `250ms 30s 1h30m 7d 2w 1.5s` | `0.3s`, `1.1s`, `41m`, `2h10m`, `3d4h` |
//! | size | `100B 64K 512M 2G 1T`, 1024-based | `100B`, `2.1M`, `512M` |

use std::time::Duration;

/// A text that is not what it should be.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum UnitError {
    /// `20`: which unit?
    #[error("it needs a unit")]
    NoUnit,
    /// `5x`.
    #[error("`{0}` is not a unit; there are {1}")]
    UnknownUnit(String, &'static str),
    /// Nothing, or no number where one must be.
    #[error("there is no number in it")]
    NoNumber,
    /// `-5s`.
    #[error("it must not be negative")]
    Negative,
    /// Beyond what can be counted.
    #[error("it is too large")]
    TooLarge,
}

const DURATION_UNITS: &str = "ms, s, m, h, d and w";
const SIZE_UNITS: &str = "B, K, M, G and T";
/// A hundred years: more is a mistake, and sums of such durations still fit the 64-bit nanoseconds of the core.
const DURATION_MAX: Duration = Duration::from_secs(100 * 366 * 86_400);

/// Reads `250ms`, `30s`, `1h30m`, `7d`; units ms s m h d w, largest first is not required.
pub fn parse_duration(text: &str) -> Result<Duration, UnitError> {
    let mut rest = text.trim();
    if rest.starts_with('-') {
        return Err(UnitError::Negative);
    }
    let mut total = Duration::ZERO;
    let mut any = false;
    while !rest.is_empty() {
        let (number, after) = split_number(rest)?;
        let after = after.trim_start();
        let letters = after
            .find(|c: char| !c.is_ascii_alphabetic())
            .unwrap_or(after.len());
        let (unit, next) = after.split_at(letters);
        let millis: u64 = match unit {
            "ms" => 1,
            "s" => 1_000,
            "m" => 60_000,
            "h" => 3_600_000,
            "d" => 86_400_000,
            "w" => 604_800_000,
            "" if after.is_empty() => return Err(UnitError::NoUnit),
            "" => {
                let first = after.chars().take(1).collect();
                return Err(UnitError::UnknownUnit(first, DURATION_UNITS));
            }
            other => return Err(UnitError::UnknownUnit(other.to_owned(), DURATION_UNITS)),
        };
        let nanos = scaled(number, u128::from(millis) * 1_000_000).ok_or(UnitError::TooLarge)?;
        let part = Duration::from_nanos(u64::try_from(nanos).map_err(|_| UnitError::TooLarge)?);
        total = total.checked_add(part).ok_or(UnitError::TooLarge)?;
        any = true;
        rest = next.trim_start();
    }
    if !any {
        return Err(UnitError::NoNumber);
    }
    if total > DURATION_MAX {
        return Err(UnitError::TooLarge);
    }
    Ok(total)
}

/// Reads `512M`, `2G`, `64K`, `100B`, `1.5G` as bytes.
pub fn parse_size(text: &str) -> Result<u64, UnitError> {
    let text = text.trim();
    if text.starts_with('-') {
        return Err(UnitError::Negative);
    }
    let (number, unit) = split_number(text)?;
    let factor: u128 = match unit.trim() {
        "B" | "b" => 1,
        "K" | "k" | "KiB" | "KB" | "kB" => 1 << 10,
        "M" | "MiB" | "MB" => 1 << 20,
        "G" | "GiB" | "GB" => 1 << 30,
        "T" | "TiB" | "TB" => 1 << 40,
        "" => return Err(UnitError::NoUnit),
        other => {
            let shown = other.chars().take(20).collect();
            return Err(UnitError::UnknownUnit(shown, SIZE_UNITS));
        }
    };
    let bytes = scaled(number, factor).ok_or(UnitError::TooLarge)?;
    match u64::try_from(bytes) {
        // i64 is what files, the store and the API count bytes with.
        Ok(bytes) if bytes <= i64::MAX as u64 => Ok(bytes),
        _ => Err(UnitError::TooLarge),
    }
}

/// The number that a text begins with, and what follows it.
fn split_number(text: &str) -> Result<(&str, &str), UnitError> {
    let end = text
        .find(|c: char| !c.is_ascii_digit() && c != '.')
        .unwrap_or(text.len());
    let (number, rest) = text.split_at(end);
    let digits = number.bytes().filter(u8::is_ascii_digit).count();
    if digits == 0 || number.bytes().filter(|&b| b == b'.').count() > 1 {
        return Err(UnitError::NoNumber);
    }
    Ok((number, rest))
}

/// A decimal number times a factor, exact (rounded down), without floating point.
fn scaled(number: &str, factor: u128) -> Option<u128> {
    let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
    let whole: u128 = if whole.is_empty() { 0 } else { whole.parse().ok()? };
    let fraction = &fraction[..fraction.len().min(18)];
    let mut total = whole.checked_mul(factor)?;
    if !fraction.is_empty() {
        let numerator: u128 = fraction.parse().ok()?;
        let denominator = 10u128.pow(u32::try_from(fraction.len()).ok()?);
        total = total.checked_add(numerator.checked_mul(factor)? / denominator)?;
    }
    Some(total)
}

/// As people are told: `0s`, `20ms`, `0.3s`, `1.1s`, `41s`, `1m12s`, `41m`, `2h10m`, `3d4h`.
pub fn format_duration(duration: Duration) -> String {
    let millis = duration.as_millis();
    if millis == 0 {
        return "0s".to_owned();
    }
    if millis < 100 {
        return format!("{millis}ms");
    }
    // 59.96s must not become `60.0s`.
    if millis < 9_950 {
        let tenths = (millis + 50) / 100;
        return if tenths.is_multiple_of(10) {
            format!("{}s", tenths / 10)
        } else {
            format!("{}.{}s", tenths / 10, tenths % 10)
        };
    }
    let secs = (millis + 500) / 1_000;
    let two = |big: u128, unit: &str, small: u128, sub: &str| {
        if small == 0 {
            format!("{big}{unit}")
        } else {
            format!("{big}{unit}{small}{sub}")
        }
    };
    match secs {
        0..60 => format!("{secs}s"),
        60..600 => two(secs / 60, "m", secs % 60, "s"),
        600..3_600 => format!("{}m", secs / 60),
        3_600..86_400 => two(secs / 3_600, "h", secs % 3_600 / 60, "m"),
        _ => two(secs / 86_400, "d", secs % 86_400 / 3_600, "h"),
    }
}

/// As people are told: `100B`, `12K`, `2.1M`, `512M`, `1.2G`.
pub fn format_size(bytes: u64) -> String {
    let units = ["B", "K", "M", "G", "T", "P", "E"];
    let mut at = 0;
    // Tenths of the unit, rounded: 1023.97K must not become `1024K`.
    while at + 1 < units.len() && (tenths(bytes, at) + 5) / 10 >= 1_024 {
        at += 1;
    }
    let tenths = tenths(bytes, at);
    if at == 0 || tenths >= 100 || tenths.is_multiple_of(10) {
        format!("{}{}", (tenths + 5) / 10, units[at])
    } else {
        format!("{}.{}{}", tenths / 10, tenths % 10, units[at])
    }
}

fn tenths(bytes: u64, at: usize) -> u128 {
    let unit = 1u128 << (10 * at);
    (u128::from(bytes) * 10 + unit / 2) / unit
}

/// Exactly, in the units of the file: `1h30m`, `250ms`, `0s`. [`parse_duration`] gives the same back.
pub(crate) fn exact_duration(duration: Duration) -> String {
    let mut rest = duration.as_nanos();
    if rest == 0 {
        return "0s".to_owned();
    }
    let mut out = String::new();
    for (unit, nanos) in [
        ("d", 86_400_000_000_000u128),
        ("h", 3_600_000_000_000),
        ("m", 60_000_000_000),
        ("s", 1_000_000_000),
    ] {
        if rest >= nanos {
            out.push_str(&format!("{}{unit}", rest / nanos));
            rest %= nanos;
        }
    }
    if rest.is_multiple_of(1_000_000) {
        if rest > 0 {
            out.push_str(&format!("{}ms", rest / 1_000_000));
        }
    } else {
        let fraction = format!("{:06}", rest % 1_000_000);
        out.push_str(&format!(
            "{}.{}ms",
            rest / 1_000_000,
            fraction.trim_end_matches('0')
        ));
    }
    out
}

/// Exactly, in the largest unit that leaves a whole number.
pub(crate) fn exact_size(bytes: u64) -> String {
    for (shift, unit) in [(40, "T"), (30, "G"), (20, "M"), (10, "K")] {
        if bytes > 0 && bytes.trailing_zeros() >= shift {
            return format!("{}{unit}", bytes >> shift);
        }
    }
    format!("{bytes}B")
}

/// One word for a POSIX shell, quoted only where it must be.
pub fn shell_quote(word: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "_-./=:@%+,".contains(c);
    if !word.is_empty() && word.chars().all(plain) {
        return word.to_owned();
    }
    format!("'{}'", word.replace('\'', "'\\''"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_read_with_units_only() {
        assert_eq!(parse_duration("1h30m"), Ok(Duration::from_secs(5_400)));
        assert_eq!(parse_duration("250ms"), Ok(Duration::from_millis(250)));
        assert_eq!(parse_duration("1.5s"), Ok(Duration::from_millis(1_500)));
        assert_eq!(parse_duration("20"), Err(UnitError::NoUnit));
        assert_eq!(parse_duration("-1s"), Err(UnitError::Negative));
        assert_eq!(parse_duration(""), Err(UnitError::NoNumber));
        assert!(matches!(
            parse_duration("5 parsecs"),
            Err(UnitError::UnknownUnit(..))
        ));
        assert_eq!(parse_duration("99999999999999999w"), Err(UnitError::TooLarge));
    }

    #[test]
    fn sizes_are_1024_based() {
        assert_eq!(parse_size("512M"), Ok(512 << 20));
        assert_eq!(parse_size("1.5G"), Ok(3 << 29));
        assert_eq!(parse_size("100"), Err(UnitError::NoUnit));
        assert_eq!(parse_size("99999999T"), Err(UnitError::TooLarge));
    }

    #[test]
    fn lengths_are_said_as_on_the_screens() {
        let said = |millis| format_duration(Duration::from_millis(millis));
        assert_eq!(said(300), "0.3s");
        assert_eq!(said(1_100), "1.1s");
        assert_eq!(said(12_000), "12s");
        assert_eq!(said(72_000), "1m12s");
        assert_eq!(said(2_460_000), "41m");
        assert_eq!(said(7_800_000), "2h10m");
        assert_eq!(said(273_600_000), "3d4h");
        assert_eq!(said(59_960), "1m");
        assert_eq!(said(0), "0s");
    }

    #[test]
    fn sizes_are_said_as_on_the_screens() {
        assert_eq!(format_size(512 << 20), "512M");
        assert_eq!(format_size(2_202_010), "2.1M");
        assert_eq!(format_size(1_048_575), "1M");
        assert_eq!(format_size(0), "0B");
        assert_eq!(format_size(u64::MAX), "16E");
    }

    #[test]
    fn exact_text_is_read_back() {
        for millis in [0, 1, 999, 1_000, 90_000, 5_400_000, 86_400_000, 93_784_005] {
            let duration = Duration::from_millis(millis);
            assert_eq!(parse_duration(&exact_duration(duration)), Ok(duration));
        }
        for bytes in [0, 1, 1_024, 1_025, 8 << 20, 3 << 40] {
            assert_eq!(parse_size(&exact_size(bytes)), Ok(bytes));
        }
    }

    #[test]
    fn words_are_quoted_for_a_shell() {
        assert_eq!(shell_quote("a-b"), "a-b");
        assert_eq!(shell_quote("it's"), "'it'\\''s'");
        assert_eq!(shell_quote(""), "''");
    }
}
