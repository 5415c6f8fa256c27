//! The file in front of the user: found here or in a folder above, and what it is called.

use std::path::{Path, PathBuf};

/// The file for a folder, this one if none is given.
pub fn find(dir: Option<&Path>) -> Option<PathBuf> {
    let here = match dir {
        Some(dir) => dir.to_owned(),
        None => std::env::current_dir().ok()?,
    };
    find_above(&here)
}

fn find_above(dir: &Path) -> Option<PathBuf> {
    dir.ancestors().find_map(|dir| {
        ["gaffer.toml", "Procfile"]
            .map(|name| dir.join(name))
            .into_iter()
            .find(|path| path.is_file())
    })
}

/// The session that a file names, without reading more of it than needed: short names must work also while the
/// file has errors.
pub fn session_of(path: &Path) -> Option<String> {
    if path
        .extension()
        .is_some_and(|extension| extension == "toml")
    {
        let text = std::fs::read_to_string(path).ok()?;
        return session_line(&text).or_else(|| Some("default".to_owned()));
    }
    let folder = path
        .canonicalize()
        .ok()?
        .parent()?
        .file_name()?
        .to_string_lossy()
        .into_owned();
    Some(folder)
}

fn session_line(text: &str) -> Option<String> {
    for line in text
        .lines()
        .map(str::trim)
        .take_while(|line| !line.starts_with('['))
    {
        if let Some(value) = line
            .strip_prefix("session")
            .and_then(|rest| rest.trim_start().strip_prefix('='))
        {
            let value = value.trim_start();
            let quote = value.chars().next().filter(|c| matches!(c, '"' | '\''))?;
            return value[1..].split(quote).next().map(str::to_owned);
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_session_is_read_from_a_file_with_errors() {
        assert_eq!(
            session_line("# x\nsession = \"shop\" # y\n[job.web]\nbroken"),
            Some("shop".to_owned())
        );
        assert_eq!(session_line("[job.web]\nsession = \"other\""), None);
    }
}
