//! Colours by role (ux.md 4.4): a colour never carries a meaning alone, so that everything reads the same without.

use anstyle::{AnsiColor, Color, Style};
use std::sync::OnceLock;

/// What a piece of text is, which decides its colour.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// Good: green.
    Ok,
    /// In progress: blue.
    Busy,
    /// Needs a look: yellow.
    Warn,
    /// Wrong: red.
    Bad,
    /// Beside the point: grey.
    Dim,
    /// What the eye should find: bold.
    Key,
    /// As it is.
    Plain,
}

/// The colours of names, by hash. Red and yellow are left out: they mean something.
const NAMES: [AnsiColor; 8] = [
    AnsiColor::Cyan,
    AnsiColor::Green,
    AnsiColor::Magenta,
    AnsiColor::Blue,
    AnsiColor::BrightCyan,
    AnsiColor::BrightGreen,
    AnsiColor::BrightMagenta,
    AnsiColor::BrightBlue,
];

/// Paints, or does not.
#[derive(Clone, Copy, Debug)]
pub struct Paint {
    on: bool,
}

impl Paint {
    /// Colours if `on`.
    pub fn new(on: bool) -> Paint {
        Paint { on }
    }

    /// Never colours.
    #[cfg(test)]
    pub fn off() -> Paint {
        Paint::new(false)
    }

    /// Whether it colours.
    pub fn is_on(&self) -> bool {
        self.on
    }

    /// Text in the colour of a role.
    pub fn role(&self, role: Role, text: &str) -> String {
        let style = match role {
            Role::Ok => colour(AnsiColor::Green),
            Role::Busy => colour(AnsiColor::Blue),
            Role::Warn => colour(AnsiColor::Yellow),
            Role::Bad => colour(AnsiColor::Red).bold(),
            Role::Dim => colour(AnsiColor::BrightBlack),
            Role::Key => Style::new().bold(),
            Role::Plain => return text.to_owned(),
        };
        self.styled(style, text)
    }

    /// Text in the colour of a name. The instances of a job share one colour.
    pub fn name(&self, name: &str, text: &str) -> String {
        let job = name
            .rsplit_once('.')
            .filter(|(_, n)| n.bytes().all(|b| b.is_ascii_digit()))
            .map_or(name, |(job, _)| job);
        self.styled(colour(NAMES[(fnv(job) % NAMES.len() as u64) as usize]), text)
    }

    fn styled(&self, style: Style, text: &str) -> String {
        if !self.on || text.is_empty() {
            return text.to_owned();
        }
        format!("{style}{text}{style:#}")
    }
}

fn colour(colour: AnsiColor) -> Style {
    Style::new().fg_color(Some(Color::Ansi(colour)))
}

/// FNV-1a: the same name has the same colour in every command and every version.
fn fnv(text: &str) -> u64 {
    text.bytes().fold(0xcbf2_9ce4_8422_2325, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
    })
}

/// Glyph and role of a state word (ux.md 6.2).
pub fn state(state: &str) -> (&'static str, Role) {
    let (glyph, role) = state_in_utf8(state);
    match is_utf8() {
        true => (glyph, role),
        false => (in_ascii(glyph), role),
    }
}

/// Does the locale take UTF-8? One that nobody set does: only a locale that says otherwise is believed.
pub fn is_utf8() -> bool {
    static KNOWN: OnceLock<bool> = OnceLock::new();
    *KNOWN.get_or_init(|| {
        let mut set = ["LC_ALL", "LC_CTYPE", "LANG"]
            .into_iter()
            .filter_map(|name| std::env::var(name).ok());
        takes_utf8(set.find(|value| !value.is_empty()).as_deref())
    })
}

fn takes_utf8(locale: Option<&str>) -> bool {
    locale.is_none_or(|locale| {
        let plain = locale.to_ascii_lowercase().replace('-', "");
        plain.contains("utf8")
    })
}

fn in_ascii(glyph: &'static str) -> &'static str {
    match glyph {
        "●" => "*",
        "○" => "o",
        "◐" => "~",
        "✗" => "x",
        other => other,
    }
}

fn state_in_utf8(state: &str) -> (&'static str, Role) {
    match state {
        "running" | "success" | "done" | "good" => ("●", Role::Ok),
        "starting" | "stopping" | "pending" | "active" | "cleaning" | "finalizing" => ("◐", Role::Busy),
        "degraded" | "paused" | "limited" => ("◐", Role::Warn),
        "backoff" | "flapping" | "failed" | "stop-stuck" | "unreachable" | "unknown" | "bad" | "killed"
        | "lost" | "corrupt" => ("✗", Role::Bad),
        "waiting" => ("○", Role::Busy),
        _ => ("○", Role::Dim),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn instances_of_a_job_share_a_colour() {
        let paint = Paint::new(true);
        assert_eq!(paint.name("web.1", "x"), paint.name("web.12", "x"));
        assert_eq!(paint.name("web.1", "x"), paint.name("web", "x"));
    }

    #[test]
    fn a_locale_without_utf8_gets_letters() {
        assert!(takes_utf8(None) && takes_utf8(Some("de_DE.UTF-8")) && takes_utf8(Some("C.utf8")));
        assert!(!takes_utf8(Some("C")) && !takes_utf8(Some("en_US.ISO-8859-1")));
        let glyphs =
            ["running", "waiting", "starting", "failed"].map(|state| in_ascii(state_in_utf8(state).0));
        assert_eq!(glyphs, ["*", "o", "~", "x"]);
    }

    #[test]
    fn nothing_is_painted_when_off() {
        assert_eq!(Paint::off().role(Role::Bad, "error"), "error");
        assert_eq!(Paint::off().name("web", "web"), "web");
    }
}
