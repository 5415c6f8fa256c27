//! Signals by name and number: those of Linux on x86-64 and aarch64, where they are the same.

/// Names without `SIG`, by number from 1.
pub const NAMES: [&str; 31] = [
    "HUP", "INT", "QUIT", "ILL", "TRAP", "ABRT", "BUS", "FPE", "KILL", "USR1", "SEGV", "USR2", "PIPE",
    "ALRM", "TERM", "STKFLT", "CHLD", "CONT", "STOP", "TSTP", "TTIN", "TTOU", "URG", "XCPU", "XFSZ",
    "VTALRM", "PROF", "WINCH", "IO", "PWR", "SYS",
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
        let offset = match rest {
            "" => 0,
            _ => rest.strip_prefix('+')?.parse::<i32>().ok()?,
        };
        let number = REALTIME_FIRST.checked_add(offset)?;
        return (REALTIME_FIRST..=LAST).contains(&number).then_some(number);
    }
    let at = NAMES.iter().position(|name| *name == bare)?;
    i32::try_from(at + 1).ok()
}

/// `TERM` of 15; none for those without a name of their own.
pub fn short(signal: i32) -> Option<&'static str> {
    let at = usize::try_from(signal).ok()?.checked_sub(1)?;
    NAMES.get(at).copied()
}

/// `SIGSEGV`; `SIGRTMIN+3`.
pub fn name(signal: i32) -> String {
    match short(signal) {
        Some(name) => format!("SIG{name}"),
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
        assert_eq!(
            (name(11), name(31), name(64)),
            ("SIGSEGV".into(), "SIGSYS".into(), "SIGRTMIN+30".into())
        );
        assert_eq!(
            (name(0), name(-1), name(32)),
            ("signal 0".into(), "signal -1".into(), "signal 32".into())
        );
        assert_eq!(
            (short(15), short(0), short(34), short(i32::MIN)),
            (Some("TERM"), None, None, None)
        );
    }
}
