//! `logs.redact`: what is masked in the output of a job before anybody gets to see it.
//!
//! An entry that is a plain word names a JSON field, whose value is masked wherever it stands in a line; anything else is
//! a regular expression, and what it matches is masked. Every masked byte becomes one `*`: offsets stay what they are on
//! disk. Patterns are matched in linear time, a line at a time.

use regex_lite::{Regex, RegexBuilder};
use std::ops::Range;

/// Entries that a job may have.
pub const ENTRIES_MAX: usize = 64;

/// Longest entry.
const ENTRY_BYTES_MAX: usize = 1024;

/// Memory of one compiled pattern.
const COMPILED_BYTES_MAX: usize = 1 << 20;

/// What takes the place of a masked byte.
const MASK: u8 = b'*';

/// The entries of one job, ready to be used.
#[derive(Clone, Debug, Default)]
pub struct Redaction {
    /// `"name"`, with its quotes.
    fields: Vec<String>,
    patterns: Vec<Regex>,
    all: bool,
}

impl Redaction {
    /// Compiles entries; the error says what is wrong with the first that cannot be used.
    pub fn new<'a>(entries: impl IntoIterator<Item = &'a str>) -> Result<Redaction, String> {
        let mut redaction = Redaction::default();
        for (number, entry) in entries.into_iter().enumerate() {
            if number >= ENTRIES_MAX {
                return Err(format!("has more than {ENTRIES_MAX} entries"));
            }
            redaction.add(entry)?;
        }
        Ok(redaction)
    }

    fn add(&mut self, entry: &str) -> Result<(), String> {
        if entry.is_empty() {
            return Err("has an entry that is empty".to_owned());
        }
        if entry.len() > ENTRY_BYTES_MAX {
            return Err(format!("has an entry of more than {ENTRY_BYTES_MAX} bytes"));
        }
        if is_field(entry) {
            self.fields.push(format!("\"{entry}\""));
            return Ok(());
        }
        let pattern = RegexBuilder::new(entry)
            .size_limit(COMPILED_BYTES_MAX)
            .build()
            .map_err(|error| format!("has `{entry}`, which is not a regular expression: {error}"))?;
        self.patterns.push(pattern);
        Ok(())
    }

    /// Masks whatever there is.
    pub fn everything() -> Redaction {
        Redaction {
            all: true,
            ..Redaction::default()
        }
    }

    /// Is there nothing to mask?
    pub fn is_empty(&self) -> bool {
        !self.all && self.fields.is_empty() && self.patterns.is_empty()
    }

    /// Masks a line (without its line feed) in place. Its length stays.
    pub fn mask(&self, line: &mut [u8]) {
        if self.all {
            return line.fill(MASK);
        }
        let text = same_length_text(line);
        let mut spans: Vec<Range<usize>> = Vec::new();
        for field in &self.fields {
            values(&text, field, &mut spans);
        }
        for pattern in &self.patterns {
            spans.extend(pattern.find_iter(&text).map(|found| found.range()));
        }
        for span in spans {
            if let Some(bytes) = line.get_mut(span) {
                bytes.fill(MASK);
            }
        }
    }
}

/// Is it the name of a field, not a pattern?
fn is_field(entry: &str) -> bool {
    entry
        .bytes()
        .all(|byte| byte.is_ascii_alphanumeric() || b"_-".contains(&byte))
}

/// The line as text, a byte that is no UTF-8 replaced by one that is: places in it are places in the line.
fn same_length_text(line: &[u8]) -> String {
    let mut text = String::with_capacity(line.len());
    for chunk in line.utf8_chunks() {
        text.push_str(chunk.valid());
        text.extend(std::iter::repeat_n('?', chunk.invalid().len()));
    }
    text
}

/// Where the values of a field are. A value that does not end reaches to the end of the line.
fn values(text: &str, field: &str, spans: &mut Vec<Range<usize>>) {
    let bytes = text.as_bytes();
    let blanks = |at: usize| {
        bytes
            .iter()
            .skip(at)
            .take_while(|byte| byte.is_ascii_whitespace())
            .count()
    };
    let mut from = 0;
    while let Some(found) = text.get(from..).and_then(|rest| rest.find(field)) {
        from += found + field.len();
        let colon = from + blanks(from);
        if bytes.get(colon) != Some(&b':') {
            continue;
        }
        let begin = colon + 1 + blanks(colon + 1);
        let end = value_end(bytes, begin);
        // The quotes of a text stay, so that the line is still JSON.
        let inside = match (
            bytes.get(begin),
            end.checked_sub(1).and_then(|last| bytes.get(last)),
        ) {
            (Some(b'"'), Some(b'"')) if end > begin + 1 => begin + 1..end - 1,
            (Some(b'"'), _) => begin + 1..end,
            _ => begin..end,
        };
        spans.push(inside);
        from = end.max(from);
    }
}

/// Behind the value that begins at `at`.
fn value_end(bytes: &[u8], at: usize) -> usize {
    let mut depth = 0usize;
    let mut quoted = false;
    let mut at = at;
    while let Some(byte) = bytes.get(at) {
        match byte {
            b'\\' if quoted => at += 1,
            b'"' => {
                quoted = !quoted;
                if !quoted && depth == 0 {
                    return at + 1;
                }
            }
            _ if quoted => {}
            b'{' | b'[' => depth += 1,
            b'}' | b']' | b',' if depth == 0 => return at,
            b'}' | b']' => {
                depth -= 1;
                if depth == 0 {
                    return at + 1;
                }
            }
            byte if depth == 0 && byte.is_ascii_whitespace() => return at,
            _ => {}
        }
        at += 1;
    }
    bytes.len()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn masked(entries: &[&str], line: &[u8]) -> String {
        let redaction = Redaction::new(entries.iter().copied()).expect("entries that can be used");
        let mut line = line.to_vec();
        redaction.mask(&mut line);
        String::from_utf8_lossy(&line).into_owned()
    }

    #[test]
    fn the_value_of_a_field_is_masked_wherever_it_stands() {
        let entries = ["password", "token"];
        for (line, shown) in [
            (
                r#"{"user":"ana","password":"hunter2"}"#,
                r#"{"user":"ana","password":"*******"}"#,
            ),
            (
                r#"{"password" : "a\"b" , "x": 1}"#,
                r#"{"password" : "****" , "x": 1}"#,
            ),
            (
                r#"in {"a":{"token":12345}} text"#,
                r#"in {"a":{"token":*****}} text"#,
            ),
            (
                r#"{"token":{"a":"}","b":[1]},"x":2}"#,
                r#"{"token":*****************,"x":2}"#,
            ),
            (r#"{"token":[1,2"#, r#"{"token":****"#),
            (r#"{"password":"cut off"#, r#"{"password":"*******"#),
            (r#"{"password":""}"#, r#"{"password":""}"#),
            (r#"password: no JSON field"#, r#"password: no JSON field"#),
            (
                r#"{"passwords":"x","a":"password"}"#,
                r#"{"passwords":"x","a":"password"}"#,
            ),
        ] {
            assert_eq!(masked(&entries, line.as_bytes()), shown);
        }
    }

    #[test]
    fn what_a_pattern_matches_is_masked_and_the_length_stays() {
        assert_eq!(
            masked(&["key=\\S+", "sk-[0-9]{4}"], b"a key=abc b sk-1234."),
            "a ******* b *******."
        );
        let mut odd = b"\xff\xc3\xa9 key=\xff\xfe! x".to_vec();
        let redaction = Redaction::new(["key=\\S+"]).expect("a pattern");
        redaction.mask(&mut odd);
        assert_eq!(odd, b"\xff\xc3\xa9 ******* x");
    }

    #[test]
    fn entries_are_bounded_and_checked() {
        let many = vec!["x="; ENTRIES_MAX + 1];
        assert!(Redaction::new(many).is_err());
        assert!(Redaction::new(["(x"]).unwrap_err().contains("`(x`"));
        assert!(Redaction::new([""]).is_err());
        assert!(Redaction::new(["=".repeat(ENTRY_BYTES_MAX + 1).as_str()]).is_err());
        assert!(Redaction::new(["(.{1000}){1000}"]).is_err());
    }

    #[test]
    fn a_hostile_line_takes_linear_time() {
        let mut line = vec![b'a'; 64 << 10];
        let redaction = Redaction::new(["(a+)+$x", "field"]).expect("entries");
        redaction.mask(&mut line);
        assert_eq!(line.len(), 64 << 10);
    }
}
