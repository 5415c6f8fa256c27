//! The files of a configuration as text, gathered so that they can be sent to a daemon.
//!
//! [`gather`] reads what the first file names: what it includes. It finds that out by running the front of the
//! loader on the disk and keeping everything that was asked for; [`crate::load`] runs the same front on the kept
//! text. Files of variables stay where they are, for their values may be secrets: whoever loads reads them.

use crate::diagnostic::{Diagnostic, Diagnostics};
use crate::front::front;
use crate::report::Report;
use crate::source::{Disk, Source, Unread};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

/// Largest file that is read as a configuration.
pub const FILE_MAX: u64 = 16 << 20;

/// Format of a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Kind {
    /// `gaffer.toml`.
    Toml,
    /// `Procfile`, with `.env` beside it.
    Procfile,
    /// `gaffer.ini`.
    Ini,
    /// JSON job file.
    Json,
}

/// Files and the choices that go with them.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Bundle {
    /// Absolute path of the first file.
    pub root: PathBuf,
    /// Further files (`-f A -f B`), each laid over those before it.
    #[serde(default)]
    pub overlays: Vec<PathBuf>,
    /// Text of every file that was read, by absolute path.
    pub files: BTreeMap<PathBuf, String>,
    /// Files that were asked for and could not be read, with the reason.
    #[serde(default)]
    pub unread: BTreeMap<PathBuf, String>,
    /// What each glob pattern of `include` matched.
    #[serde(default)]
    pub globs: BTreeMap<String, Vec<PathBuf>>,
    /// Format of the first file, if its name does not say.
    #[serde(default)]
    pub kind: Option<Kind>,
    /// `--profile`, in order.
    #[serde(default)]
    pub profiles: Vec<String>,
    /// `-E x=v`.
    #[serde(default)]
    pub vars: BTreeMap<String, String>,
    /// `-e FILE`, absolute, later wins.
    #[serde(default)]
    pub env_files: Vec<PathBuf>,
    /// `-c job=n`.
    #[serde(default)]
    pub counts: BTreeMap<String, u32>,
    /// `--port`: first port of the first Procfile job; each further job begins 100 later.
    #[serde(default)]
    pub base_port: Option<u16>,
    /// `gaffer start`: jobs get the whole environment unless they say otherwise.
    #[serde(default)]
    pub inherit_env: bool,
}

/// Choices for [`gather`]; they end up in the [`Bundle`].
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct GatherOptions {
    /// Format of the first file, if its name does not say.
    pub kind: Option<Kind>,
    /// `--profile`, in order.
    pub profiles: Vec<String>,
    /// `-E x=v`.
    pub vars: BTreeMap<String, String>,
    /// `-e FILE`, later wins.
    pub env_files: Vec<PathBuf>,
    /// `-c job=n`.
    pub counts: BTreeMap<String, u32>,
    /// `--port`.
    pub base_port: Option<u16>,
    /// `gaffer start`: jobs get the whole environment unless they say otherwise.
    pub inherit_env: bool,
}

/// `gaffer.toml`, else `Procfile`, in this folder or the nearest one above that has one of them.
pub fn find_file(dir: &Path) -> Option<PathBuf> {
    dir.ancestors()
        .flat_map(|folder| [folder.join("gaffer.toml"), folder.join("Procfile")])
        .find(|path| path.is_file())
}

/// Reads the files from the disk. Errors are only what keeps a named file from being read; what is wrong
/// inside is said by [`crate::load`].
pub fn gather(paths: &[PathBuf], options: &GatherOptions) -> Result<Bundle, Diagnostics> {
    let mut bundle = Bundle {
        kind: options.kind,
        profiles: options.profiles.clone(),
        vars: options.vars.clone(),
        counts: options.counts.clone(),
        base_port: options.base_port,
        inherit_env: options.inherit_env,
        ..Bundle::default()
    };
    let mut named = paths.iter();
    let Some(root) = named.next() else {
        return Err(Diagnostic::error("there is no file to read").into());
    };
    bundle.root = absolute(root)?;
    bundle.overlays = named
        .map(|path| absolute(path.as_path()))
        .collect::<Result<_, _>>()?;
    bundle.env_files = options
        .env_files
        .iter()
        .map(|path| absolute(path.as_path()))
        .collect::<Result<_, _>>()?;
    let mut disk = Disk::default();
    let mut wrong = Vec::new();
    for path in std::iter::once(&bundle.root).chain(&bundle.overlays) {
        if let Err(why) = disk.read(path) {
            let why = match why {
                Unread::Missing => "there is no such file".to_owned(),
                Unread::Failed(text) => text,
            };
            wrong.push(Diagnostic::error(format!(
                "cannot read {}: {why}",
                path.display()
            )));
        }
    }
    if !wrong.is_empty() {
        return Err(Diagnostics(wrong));
    }
    // Only what it reads is of interest; its findings are told by `load`.
    let mut report = Report::new(Path::new("/"));
    front(&bundle, &mut disk, &mut report);
    bundle.files = disk.files;
    bundle.unread = disk.unread;
    bundle.globs = disk.globs;
    Ok(bundle)
}

/// Names of a folder's configuration, best first.
const IN_FOLDER: &[&str] = &[
    "gaffer.toml",
    "gafferd.toml",
    "gafferd.ini",
    "gaffer.ini",
    "Procfile",
];

/// The absolute path; for a folder, the file in it.
fn absolute(path: &Path) -> Result<PathBuf, Diagnostics> {
    let cannot = |why: String| {
        Diagnostics::from(Diagnostic::error(format!(
            "cannot read {}: {why}",
            path.display()
        )))
    };
    let full = std::path::absolute(path).map_err(|error| cannot(crate::source::plain(&error)))?;
    if full.to_str().is_none() {
        return Err(cannot("its path is not UTF-8 text".to_owned()));
    }
    if !full.is_dir() {
        return Ok(full);
    }
    let inside = IN_FOLDER
        .iter()
        .map(|name| full.join(name))
        .find(|file| file.is_file());
    inside.ok_or_else(|| cannot(format!("the folder has none of {}", IN_FOLDER.join(", "))))
}

/// A file as text: not larger than [`FILE_MAX`], UTF-8, without a byte-order mark.
pub(crate) fn read_text(path: &Path) -> io::Result<String> {
    let file = std::fs::File::open(path)?;
    if file.metadata()?.is_dir() {
        return Err(io::Error::new(io::ErrorKind::IsADirectory, "it is a folder"));
    }
    let mut bytes = Vec::new();
    file.take(FILE_MAX + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > FILE_MAX {
        return Err(io::Error::new(
            io::ErrorKind::FileTooLarge,
            "it is larger than 16M",
        ));
    }
    let text = String::from_utf8(bytes).map_err(|error| {
        let good = &error.as_bytes()[..error.utf8_error().valid_up_to()];
        let line = good.iter().filter(|&&byte| byte == b'\n').count() + 1;
        io::Error::new(
            io::ErrorKind::InvalidData,
            format!("line {line} is not UTF-8 text"),
        )
    })?;
    Ok(match text.strip_prefix('\u{feff}') {
        Some(rest) => rest.to_owned(),
        None => text,
    })
}
