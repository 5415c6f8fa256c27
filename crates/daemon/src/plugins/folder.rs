//! What lies in the folder of plugins.

use gaffer_config::{PluginManifest, plugin_manifest};
use gaffer_core::name::Name;
use serde_json::Value;
use std::collections::BTreeSet;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

/// Largest manifest.
const MANIFEST_BYTES_MAX: u64 = 64 << 10;

/// Plugins looked at, at most.
const PLUGINS_MAX: usize = 1000;

/// A plugin as it was found.
#[derive(Clone, Debug, PartialEq)]
pub struct Folder {
    /// Name of the folder.
    pub name: String,
    /// Where it is.
    pub path: PathBuf,
    /// What it says of itself, if it does.
    pub manifest: Option<PluginManifest>,
    /// Has it pages?
    pub site: bool,
    /// Why it is skipped.
    pub problem: Option<String>,
}

impl Folder {
    /// Is there a program to keep running?
    pub fn runs(&self) -> bool {
        let command = self
            .manifest
            .as_ref()
            .and_then(|manifest| manifest.command.as_ref());
        self.problem.is_none() && command.is_some()
    }

    /// `cmd` of its job.
    pub fn command(&self) -> Value {
        let command = self
            .manifest
            .as_ref()
            .and_then(|manifest| manifest.command.clone());
        command.unwrap_or_default()
    }

    /// Of its manifest.
    pub fn version(&self) -> Option<&str> {
        let manifest = self.manifest.as_ref()?;
        Some(manifest.version.as_str()).filter(|text| !text.is_empty())
    }

    /// Of its manifest.
    pub fn description(&self) -> Option<&str> {
        let manifest = self.manifest.as_ref()?;
        Some(manifest.description.as_str()).filter(|text| !text.is_empty())
    }

    /// Names of plugins that must be there.
    pub fn requires(&self) -> &[String] {
        self.manifest.as_ref().map_or(&[], |manifest| &manifest.requires)
    }

    /// Patterns of the events that it is sent.
    pub fn events(&self) -> &[String] {
        self.manifest.as_ref().map_or(&[], |manifest| &manifest.events)
    }
}

/// All plugins in a folder, in the order of their names.
pub fn scan(dir: &Path) -> Vec<Folder> {
    let entries = match std::fs::read_dir(dir) {
        Ok(entries) => entries,
        Err(error) => {
            tracing::warn!(dir = %dir.display(), %error, "plugins.unreadable");
            return Vec::new();
        }
    };
    let mut folders: Vec<Folder> = entries
        .flatten()
        .filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir()))
        .filter_map(|entry| {
            let name = entry.file_name().into_string().ok()?;
            (!name.starts_with('.')).then(|| look(name, entry.path()))
        })
        .take(PLUGINS_MAX)
        .collect();
    folders.sort_by(|one, other| one.name.cmp(&other.name));
    check_requirements(&mut folders);
    folders
}

fn look(name: String, path: PathBuf) -> Folder {
    let manifest = match Name::parse(&name) {
        Err(error) => Err(error.to_string()),
        Ok(_) => read(&path, &name),
    };
    let (manifest, problem) = match manifest {
        Ok(manifest) => (manifest, None),
        Err(problem) => (None, Some(problem)),
    };
    let has_manifest = path.join("plugin.toml").exists();
    let site = path.join("_site").is_dir() || (!has_manifest && path.join("index.html").is_file());
    let problem = problem.or_else(|| {
        let empty = manifest
            .as_ref()
            .is_none_or(|manifest| manifest.command.is_none())
            && !site;
        empty.then(|| "it has neither a plugin.toml with a `command` nor pages in _site".to_owned())
    });
    Folder {
        name,
        path,
        manifest,
        site,
        problem,
    }
}

fn read(path: &Path, name: &str) -> Result<Option<PluginManifest>, String> {
    let file = path.join("plugin.toml");
    let meta = match std::fs::symlink_metadata(&file) {
        Ok(meta) => meta,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(format!("{}: {error}", file.display())),
    };
    if !meta.is_file() || meta.len() > MANIFEST_BYTES_MAX {
        return Err(format!("{} is no file of at most 64 KiB", file.display()));
    }
    for place in [path, &file] {
        check_owner(place)?;
    }
    let text = std::fs::read_to_string(&file).map_err(|error| format!("{}: {error}", file.display()))?;
    plugin_manifest(&file, &text, name)
        .map(Some)
        .map_err(|diagnostics| {
            let texts: Vec<String> = diagnostics.iter().map(|one| one.message.clone()).collect();
            format!("{}: {}", file.display(), texts.join("; "))
        })
}

/// What others may change must not become a program of ours.
fn check_owner(path: &Path) -> Result<(), String> {
    let meta = std::fs::metadata(path).map_err(|error| format!("{}: {error}", path.display()))?;
    let own = rustix::process::geteuid().as_raw();
    if meta.uid() != own && meta.uid() != 0 {
        return Err(format!("{} belongs to another user", path.display()));
    }
    match meta.mode() & 0o022 {
        0 => Ok(()),
        _ => Err(format!("{} can be written by others: chmod go-w", path.display())),
    }
}

/// A plugin without what it requires is skipped, and so is what requires that.
fn check_requirements(folders: &mut [Folder]) {
    loop {
        let there: BTreeSet<String> = folders
            .iter()
            .filter(|folder| folder.problem.is_none())
            .map(|folder| folder.name.clone())
            .collect();
        let mut settled = true;
        for folder in folders.iter_mut().filter(|folder| folder.problem.is_none()) {
            let missing: Vec<&str> = folder
                .requires()
                .iter()
                .map(String::as_str)
                .filter(|name| !there.contains(*name))
                .collect();
            if !missing.is_empty() {
                let missing = missing.join("`, `");
                folder.problem = Some(format!("`{}` requires `{missing}` to be used", folder.name));
                settled = false;
            }
        }
        if settled {
            return;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn folder(name: &str, requires: &[&str]) -> Folder {
        Folder {
            name: name.to_owned(),
            path: PathBuf::from(name),
            manifest: Some(PluginManifest {
                name: name.to_owned(),
                version: String::new(),
                description: String::new(),
                requires: requires.iter().map(|name| (*name).to_owned()).collect(),
                command: Some("x".into()),
                events: Vec::new(),
                scope: "read".to_owned(),
                jobs: Vec::new(),
            }),
            site: false,
            problem: None,
        }
    }

    #[test]
    fn s14_2_what_requires_a_skipped_plugin_is_skipped_too() {
        let mut folders = vec![
            folder("a", &["b"]),
            folder("b", &["c", "d"]),
            folder("d", &["e"]),
            folder("e", &["d"]),
        ];
        check_requirements(&mut folders);
        let problems: Vec<Option<&str>> = folders.iter().map(|one| one.problem.as_deref()).collect();
        let wanted = [
            Some("`a` requires `b` to be used"),
            Some("`b` requires `c` to be used"),
            None,
            None,
        ];
        assert_eq!(problems, wanted);
    }
}
