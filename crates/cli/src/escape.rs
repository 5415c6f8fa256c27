//! Control sequences of a program must not reach the terminal of whoever looks at its output: a log line could
//! otherwise clear the screen, rename the window or type for its reader (hazards B).

use std::borrow::Cow;

/// Text with every control character shown instead of obeyed; tabs stay.
///
/// Escaped are C0 and C1 controls, DEL, and the Unicode characters that reorder or hide text.
pub fn escape(text: &str) -> Cow<'_, str> {
    if !text.chars().any(is_unsafe) {
        return Cow::Borrowed(text);
    }
    let mut shown = String::with_capacity(text.len() + 16);
    for c in text.chars() {
        match c {
            '\r' => shown.push_str("\\r"),
            '\n' => shown.push_str("\\n"),
            '\u{1b}' => shown.push_str("\\e"),
            c if is_unsafe(c) && u32::from(c) < 0x100 => shown.push_str(&format!("\\x{:02x}", u32::from(c))),
            c if is_unsafe(c) => shown.push_str(&format!("\\u{{{:x}}}", u32::from(c))),
            c => shown.push(c),
        }
    }
    Cow::Owned(shown)
}

/// Text of one line of a program: a carriage return before its end belongs to the line's end.
pub fn line(text: &str) -> Cow<'_, str> {
    escape(text.strip_suffix('\n').unwrap_or(text).trim_end_matches('\r'))
}

fn is_unsafe(c: char) -> bool {
    (c.is_control() && c != '\t')
        || matches!(c, '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{2069}' | '\u{feff}')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hazard_32_a_program_cannot_talk_to_the_terminal() {
        assert_eq!(
            escape("\u{1b}[2Jhi\u{7}\u{9b}1m\u{7f}"),
            "\\e[2Jhi\\x07\\x9b1m\\x7f"
        );
        assert_eq!(escape("a\u{202e}b"), "a\\u{202e}b");
    }

    #[test]
    fn plain_text_and_tabs_stay() {
        assert!(matches!(escape("a\tb ü €"), Cow::Borrowed("a\tb ü €")));
    }

    #[test]
    fn the_end_of_a_line_is_not_shown() {
        assert_eq!(line("ready\r\n"), "ready");
        assert_eq!(line("10%\r20%"), "10%\\r20%");
    }
}
