//! Where text comes from: the disk while gathering, the bundle while loading.

use crate::bundle::{Bundle, read_text};
use std::collections::BTreeMap;
use std::path::{Component, Path, PathBuf};

/// Why a file is not there.
#[derive(Clone, Debug)]
pub(crate) enum Unread {
    /// There is none.
    Missing,
    /// There is one, but.
    Failed(String),
}

/// Gives text for absolute paths.
pub(crate) trait Source {
    fn read(&mut self, path: &Path) -> Result<String, Unread>;
    /// Sorted paths that match an absolute pattern.
    fn glob(&mut self, pattern: &Path) -> Vec<PathBuf>;
}

/// The disk; keeps all that it was asked for.
#[derive(Default)]
pub(crate) struct Disk {
    pub files: BTreeMap<PathBuf, String>,
    pub unread: BTreeMap<PathBuf, String>,
    pub globs: BTreeMap<String, Vec<PathBuf>>,
}

impl Source for Disk {
    fn read(&mut self, path: &Path) -> Result<String, Unread> {
        if let Some(text) = self.files.get(path) {
            return Ok(text.clone());
        }
        match read_text(path) {
            Ok(text) => {
                self.files.insert(path.to_owned(), text.clone());
                Ok(text)
            }
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Err(Unread::Missing),
            Err(error) => {
                let text = plain(&error);
                self.unread.insert(path.to_owned(), text.clone());
                Err(Unread::Failed(text))
            }
        }
    }

    fn glob(&mut self, pattern: &Path) -> Vec<PathBuf> {
        let found = glob(pattern);
        self.globs
            .insert(pattern.to_string_lossy().into_owned(), found.clone());
        found
    }
}

/// The gathered text.
pub(crate) struct Gathered<'a>(pub &'a Bundle);

impl Source for Gathered<'_> {
    fn read(&mut self, path: &Path) -> Result<String, Unread> {
        match (self.0.files.get(path), self.0.unread.get(path)) {
            (Some(text), _) => Ok(text.clone()),
            (None, Some(why)) => Err(Unread::Failed(why.clone())),
            (None, None) => Err(Unread::Missing),
        }
    }

    fn glob(&mut self, pattern: &Path) -> Vec<PathBuf> {
        self.0
            .globs
            .get(&*pattern.to_string_lossy())
            .cloned()
            .unwrap_or_default()
    }
}

/// `permission denied` instead of `Permission denied (os error 13)`.
pub(crate) fn plain(error: &std::io::Error) -> String {
    let text = error.to_string();
    let text = text.split(" (os error").next().unwrap_or_default();
    let mut chars = text.chars();
    match chars.next() {
        Some(first) => first.to_lowercase().chain(chars).collect(),
        None => text.to_owned(),
    }
}

/// Does a pattern ask for more than one path?
pub(crate) fn is_glob(text: &str) -> bool {
    text.contains(['*', '?'])
}

/// More matches than anybody has files of configuration.
const MATCHES_MAX: usize = 10_000;

/// `*` and `?` inside of one part of the path; a hidden file needs its dot written.
fn glob(pattern: &Path) -> Vec<PathBuf> {
    let mut found = vec![PathBuf::from("/")];
    for part in pattern.components() {
        let Component::Normal(part) = part else { continue };
        let text = part.to_string_lossy();
        let mut next = Vec::new();
        for folder in found {
            if !is_glob(&text) {
                next.push(folder.join(part));
                continue;
            }
            let Ok(entries) = std::fs::read_dir(&folder) else {
                continue;
            };
            for entry in entries.flatten() {
                let name = entry.file_name().to_string_lossy().into_owned();
                if matches(&text, &name) && next.len() < MATCHES_MAX {
                    next.push(folder.join(name));
                }
            }
        }
        found = next;
    }
    found.retain(|path| path.is_file());
    found.sort();
    found
}

/// Glob over one name, without backtracking more than one star.
pub(crate) fn matches(pattern: &str, name: &str) -> bool {
    if name.starts_with('.') && !pattern.starts_with('.') {
        return false;
    }
    wild(pattern, name)
}

/// `*` any characters, `?` one.
pub(crate) fn wild(pattern: &str, text: &str) -> bool {
    let (pattern, text): (Vec<char>, Vec<char>) = (pattern.chars().collect(), text.chars().collect());
    let (mut p, mut t) = (0, 0);
    let mut star: Option<(usize, usize)> = None;
    while t < text.len() {
        match pattern.get(p) {
            Some('*') => {
                star = Some((p, t));
                p += 1;
            }
            Some(&c) if c == '?' || c == text[t] => {
                p += 1;
                t += 1;
            }
            _ => match star {
                Some((at, from)) => {
                    star = Some((at, from + 1));
                    p = at + 1;
                    t = from + 1;
                }
                None => return false,
            },
        }
    }
    pattern[p..].iter().all(|&c| c == '*')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stars_match_inside_of_one_name() {
        assert!(matches("*.toml", "a.toml"));
        assert!(!matches("*.toml", ".a.toml"));
        assert!(matches("a?c*", "abc"));
        assert!(!matches("a?c", "abd"));
        assert!(wild("LC_*", "LC_ALL"));
        assert!(!wild("*a*a*a*a*b", &"a".repeat(2_000)));
    }
}
