//! The files of one load and what was found wrong in them.

use crate::diagnostic::{Diagnostic, Diagnostics, Excerpt, Severity};
use crate::node::Span;
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

struct FileText {
    path: PathBuf,
    text: String,
    /// Byte offsets at which lines begin.
    lines: Vec<usize>,
    /// What it says may be secret: only the place of a mistake is told.
    private: bool,
}

/// More than this nobody reads; one mistake in a template may be met a thousand times.
const SHOWN_MAX: usize = 100;

/// Collects diagnostics, gives them their place.
pub(crate) struct Report {
    files: Vec<FileText>,
    found: Vec<(Span, Diagnostic)>,
    /// Places and messages already said.
    said: BTreeSet<(Span, String)>,
    errors: usize,
    /// Paths are shown from here.
    base: PathBuf,
}

impl Report {
    pub fn new(base: &Path) -> Report {
        Report {
            files: Vec::new(),
            found: Vec::new(),
            said: BTreeSet::new(),
            errors: 0,
            base: base.to_owned(),
        }
    }

    /// A file of variables.
    pub fn add_private_file(&mut self, path: &Path, text: &str) -> u32 {
        let file = self.add_file(path, text);
        if let Some(file) = self.files.last_mut() {
            file.private = true;
        }
        file
    }

    pub fn add_file(&mut self, path: &Path, text: &str) -> u32 {
        let starts = text
            .bytes()
            .enumerate()
            .filter(|(_, byte)| *byte == b'\n')
            .map(|(at, _)| at + 1);
        let lines = std::iter::once(0).chain(starts).collect();
        self.files.push(FileText {
            path: path.to_owned(),
            text: text.to_owned(),
            lines,
            private: false,
        });
        u32::try_from(self.files.len() - 1).unwrap_or(u32::MAX)
    }

    pub fn path_of(&self, span: Span) -> Option<&Path> {
        self.files.get(span.file as usize).map(|file| file.path.as_path())
    }

    /// Folder of the file in which something was written.
    pub fn folder_of(&self, span: Span) -> Option<&Path> {
        self.path_of(span).and_then(Path::parent)
    }

    pub fn line_of(&self, span: Span) -> Option<u32> {
        let file = self.files.get(span.file as usize)?;
        u32::try_from(file.line_at(span.start as usize) + 1).ok()
    }

    /// `gaffer.toml:14`, for a second place inside a message.
    pub fn place(&self, span: Span) -> String {
        match (self.path_of(span), self.line_of(span)) {
            (Some(path), Some(line)) => format!("{}:{line}", self.shown(path).display()),
            _ => "the definition".to_owned(),
        }
    }

    fn shown(&self, path: &Path) -> PathBuf {
        path.strip_prefix(&self.base).unwrap_or(path).to_owned()
    }

    pub fn error(&mut self, span: Span, path: &str, message: impl Into<String>, help: &str) {
        self.push(Severity::Error, span, path, message.into(), help);
    }

    pub fn warning(&mut self, span: Span, path: &str, message: impl Into<String>, help: &str) {
        self.push(Severity::Warning, span, path, message.into(), help);
    }

    fn push(&mut self, severity: Severity, span: Span, path: &str, message: String, help: &str) {
        if span != Span::NONE && !self.said.insert((span, message.clone())) {
            return;
        }
        if severity == Severity::Error {
            self.errors += 1;
        }
        if self.found.len() >= SHOWN_MAX {
            return;
        }
        let mut one = Diagnostic::error(message);
        one.severity = severity;
        one.help = Some(help.to_owned()).filter(|help| !help.is_empty());
        one.path = Some(path.to_owned()).filter(|path| !path.is_empty());
        if let Some(file) = self.files.get(span.file as usize) {
            let (line, excerpt) = file.excerpt(span);
            one.file = Some(self.shown(&file.path));
            one.line = u32::try_from(line + 1).ok();
            one.column = Some(excerpt.start + 1);
            one.excerpt = Some(excerpt).filter(|_| !file.private);
        }
        self.found.push((span, one));
    }

    pub fn has_errors(&self) -> bool {
        self.errors > 0
    }

    /// Everything found, files in the order of reading, places in the order of the file.
    pub fn finish(self) -> Diagnostics {
        let mut found = self.found;
        found.sort_by_key(|(span, _)| *span);
        Diagnostics(found.into_iter().map(|(_, one)| one).collect())
    }
}

impl FileText {
    fn line_at(&self, offset: usize) -> usize {
        self.lines
            .partition_point(|&start| start <= offset)
            .saturating_sub(1)
    }

    fn excerpt(&self, span: Span) -> (usize, Excerpt) {
        let start = (span.start as usize).min(self.text.len());
        let line = self.line_at(start);
        let from = self.lines[line];
        let to = self.lines.get(line + 1).copied().unwrap_or(self.text.len());
        let text = self
            .text
            .get(from..to)
            .unwrap_or_default()
            .trim_end_matches(['\n', '\r']);
        let chars_before = |offset: usize| {
            text.char_indices()
                .take_while(|(at, _)| from + at < offset)
                .count()
        };
        let first = chars_before(start);
        let last = chars_before((span.end as usize).max(start));
        let small = |number: usize| u32::try_from(number).unwrap_or(u32::MAX);
        let len = small(last.saturating_sub(first).max(1));
        (
            line,
            Excerpt {
                text: text.to_owned(),
                start: small(first),
                len,
            },
        )
    }
}
