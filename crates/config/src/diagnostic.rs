//! What is wrong, where, and what to do: `gaffer check` prints these, the API sends them.
//!
//! A diagnostic carries its excerpt, so that it can be printed by a client that does not have the file.

use serde::{Deserialize, Serialize};
use std::fmt;
use std::path::PathBuf;

/// Does it stop the file from being used?
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Severity {
    /// Nothing is changed.
    Error,
    /// Used all the same.
    Warning,
}

/// The line that is meant, with the part of it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Excerpt {
    /// The line, without its end.
    pub text: String,
    /// First marked character, from 0.
    pub start: u32,
    /// Marked characters, at least 1.
    pub len: u32,
}

/// One error or warning.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Diagnostic {
    /// Error or warning.
    pub severity: Severity,
    /// What is wrong: a lower-case sentence without full stop.
    pub message: String,
    /// The file, as seen from the folder of the first file.
    pub file: Option<PathBuf>,
    /// From 1.
    pub line: Option<u32>,
    /// From 1, in characters.
    pub column: Option<u32>,
    /// The line itself.
    pub excerpt: Option<Excerpt>,
    /// What to do about it.
    pub help: Option<String>,
    /// `job.web.stop.timeout`.
    pub path: Option<String>,
}

/// Errors and warnings in the order of the files.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
pub struct Diagnostics(pub Vec<Diagnostic>);

impl Diagnostic {
    /// An error without a place.
    pub fn error(message: impl Into<String>) -> Diagnostic {
        Diagnostic {
            severity: Severity::Error,
            message: message.into(),
            file: None,
            line: None,
            column: None,
            excerpt: None,
            help: None,
            path: None,
        }
    }

    /// The same, as a warning.
    #[must_use]
    pub fn as_warning(mut self) -> Diagnostic {
        self.severity = Severity::Warning;
        self
    }

    /// With a hint.
    #[must_use]
    pub fn help(mut self, help: impl Into<String>) -> Diagnostic {
        self.help = Some(help.into());
        self
    }

    /// With the dotted path of the key.
    #[must_use]
    pub fn at_path(mut self, path: impl Into<String>) -> Diagnostic {
        self.path = Some(path.into());
        self
    }

    /// As `gaffer check` prints it, each line ended; with colours if asked for.
    pub fn render(&self, color: bool) -> String {
        let paint = Paint(color);
        let mut out = String::new();
        let (word, role) = match self.severity {
            Severity::Error => ("error", RED),
            Severity::Warning => ("warning", YELLOW),
        };
        out.push_str(&format!("{}: {}\n", paint.with(role, word), clean(&self.message)));
        let Some((file, line)) = self.file.as_ref().zip(self.line) else {
            if let Some(file) = &self.file {
                let place = clean(&file.display().to_string());
                out.push_str(&format!("  ┌─ {}\n", paint.with(BOLD, &place)));
            }
            if let Some(help) = &self.help {
                out.push_str(&format!("  {}\n", paint.with(GREEN, &clean(help))));
            }
            return out;
        };
        let number = line.to_string();
        let width = number.len().max(2);
        let mut place = format!("{}:{line}", clean(&file.display().to_string()));
        if let Some(column) = self.column {
            place.push_str(&format!(":{column}"));
        }
        out.push_str(&format!("{:width$}┌─ {}\n", "", paint.with(BOLD, &place)));
        let help = self.help.as_deref().map(clean).unwrap_or_default();
        let Some(excerpt) = &self.excerpt else {
            if !help.is_empty() {
                out.push_str(&format!("{:width$}│ {}\n", "", paint.with(GREEN, &help)));
            }
            return out;
        };
        let (text, start, len) = excerpt.window();
        out.push_str(&format!("{number:>width$}│ {text}\n"));
        let mut marks = format!("{:start$}{}", "", paint.with(role, &"^".repeat(len)));
        if !help.is_empty() {
            marks.push(' ');
            marks.push_str(&paint.with(GREEN, &help));
        }
        out.push_str(&format!("{:width$}│ {marks}\n", ""));
        out
    }
}

impl Excerpt {
    /// Longest excerpt shown, in characters: a long line is cut around its mark.
    const SHOWN: usize = 100;

    /// The part that is shown, with the mark in it.
    fn window(&self) -> (String, usize, usize) {
        let chars: Vec<char> = self.text.chars().collect();
        let start = (self.start as usize).min(chars.len());
        let len = (self.len as usize).max(1);
        if chars.len() <= Excerpt::SHOWN {
            let text: String = chars.into_iter().map(visible).collect();
            let room = text.chars().count().saturating_sub(start).max(1);
            return (text, start, len.min(room));
        }
        let from = start.saturating_sub(20);
        let to = (from + Excerpt::SHOWN).min(chars.len());
        let mut text = String::new();
        if from > 0 {
            text.push('…');
        }
        text.extend(chars[from..to].iter().copied().map(visible));
        if to < chars.len() {
            text.push('…');
        }
        let start = start - from + usize::from(from > 0);
        let len = len.min((to - from + 1).saturating_sub(start).max(1));
        (text, start, len)
    }
}

/// A control character would move the cursor; a tab would move the caret.
fn visible(c: char) -> char {
    match c {
        '\t' => ' ',
        c if c.is_control() => '\u{fffd}',
        c => c,
    }
}

/// A message may quote what a file holds: one line, nothing that steers a terminal.
fn clean(text: &str) -> String {
    text.chars().map(visible).collect()
}

const RED: &str = "31";
const YELLOW: &str = "33";
const GREEN: &str = "32";
const BOLD: &str = "1";

struct Paint(bool);

impl Paint {
    fn with(&self, role: &str, text: &str) -> String {
        if self.0 && !text.is_empty() {
            format!("\x1b[{role}m{text}\x1b[0m")
        } else {
            text.to_owned()
        }
    }
}

impl Diagnostics {
    /// Number of errors (not warnings).
    pub fn errors(&self) -> usize {
        self.0
            .iter()
            .filter(|one| one.severity == Severity::Error)
            .count()
    }

    /// Each in turn.
    pub fn iter(&self) -> std::slice::Iter<'_, Diagnostic> {
        self.0.iter()
    }

    /// Number of all.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// None at all?
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// All of them, as `gaffer check` prints them; the line with their number is the caller's.
    pub fn render(&self, color: bool) -> String {
        self.0.iter().map(|one| one.render(color)).collect()
    }
}

impl fmt::Display for Diagnostic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.render(false).trim_end())
    }
}

impl fmt::Display for Diagnostics {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.render(false).trim_end())
    }
}

impl From<Diagnostic> for Diagnostics {
    fn from(one: Diagnostic) -> Diagnostics {
        Diagnostics(vec![one])
    }
}

impl<'a> IntoIterator for &'a Diagnostics {
    type Item = &'a Diagnostic;
    type IntoIter = std::slice::Iter<'a, Diagnostic>;
    fn into_iter(self) -> Self::IntoIter {
        self.0.iter()
    }
}

impl IntoIterator for Diagnostics {
    type Item = Diagnostic;
    type IntoIter = std::vec::IntoIter<Diagnostic>;
    fn into_iter(self) -> Self::IntoIter {
        self.0.into_iter()
    }
}
