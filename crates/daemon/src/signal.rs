//! Names of signals, as people write them and as we show them.

/// Names and numbers of Linux on x86_64 and aarch64 (they are the same there).
const SIGNALS: &[(&str, i32)] = &[
    ("HUP", 1),
    ("INT", 2),
    ("QUIT", 3),
    ("ILL", 4),
    ("TRAP", 5),
    ("ABRT", 6),
    ("BUS", 7),
    ("FPE", 8),
    ("KILL", 9),
    ("USR1", 10),
    ("SEGV", 11),
    ("USR2", 12),
    ("PIPE", 13),
    ("ALRM", 14),
    ("TERM", 15),
    ("STKFLT", 16),
    ("CHLD", 17),
    ("CONT", 18),
    ("STOP", 19),
    ("TSTP", 20),
    ("TTIN", 21),
    ("TTOU", 22),
    ("URG", 23),
    ("XCPU", 24),
    ("XFSZ", 25),
    ("VTALRM", 26),
    ("PROF", 27),
    ("WINCH", 28),
    ("IO", 29),
    ("PWR", 30),
    ("SYS", 31),
];

/// Highest real-time signal.
const LAST: i32 = 64;

/// First real-time signal that programs may use (glibc keeps two).
const REALTIME_FIRST: i32 = 34;

/// `HUP`, `SIGHUP`, `hup`, `1`, `RTMIN+3`.
pub fn parse(text: &str) -> Option<i32> {
    if let Ok(number) = text.parse::<i32>() {
        return (1..=LAST).contains(&number).then_some(number);
    }
    let upper = text.to_ascii_uppercase();
    let bare = upper.strip_prefix("SIG").unwrap_or(&upper);
    if let Some(rest) = bare.strip_prefix("RTMIN") {
        let offset = if rest.is_empty() {
            0
        } else {
            rest.strip_prefix('+')?.parse::<i32>().ok()?
        };
        let number = REALTIME_FIRST.checked_add(offset)?;
        return (REALTIME_FIRST..=LAST).contains(&number).then_some(number);
    }
    SIGNALS
        .iter()
        .find(|(name, _)| *name == bare)
        .map(|(_, number)| *number)
}

/// `SIGSEGV`; `SIGRTMIN+3`.
pub fn name(signal: i32) -> String {
    match SIGNALS.iter().find(|(_, number)| *number == signal) {
        Some((name, _)) => format!("SIG{name}"),
        None if (REALTIME_FIRST..=LAST).contains(&signal) => format!("SIGRTMIN+{}", signal - REALTIME_FIRST),
        None => format!("signal {signal}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_signal_is_read_in_every_form_and_shown_in_one() {
        for text in ["HUP", "SIGHUP", "hup", "1"] {
            assert_eq!(parse(text), Some(1), "{text}");
        }
        assert_eq!(parse("RTMIN+3").map(name), Some("SIGRTMIN+3".to_owned()));
        for text in ["", "0", "65", "NOPE", "RTMIN+99", "-1"] {
            assert_eq!(parse(text), None, "{text}");
        }
        assert_eq!(name(11), "SIGSEGV");
    }
}
