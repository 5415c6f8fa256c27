//! Credentials that `gaffer login` keeps for later commands: one section for each daemon, by its URL.
//!
//! Written is `$GAFFER_CONFIG`, else `$XDG_CONFIG_HOME/gaffer/config.toml` (`~/.config`); read is also the original's
//! `~/.gaffer/gaffer.ini`. TOML has sections `[login."URL"]` (beside the nodes of `gaffer
//! node`), ini `[node "URL"]`, both with `key`, `cacert`, `certfile`
//! and `keyfile`. A file is changed line by line, so that what else is in it stays, by a new file with mode 0600 that
//! takes the old one's name.

use crate::failure::Failure;
use gaffer_api::Endpoint;
use gaffer_api::tls::TlsOptions;
use serde::Deserialize;
use std::collections::BTreeMap;
use std::fs::{DirBuilder, File, OpenOptions};
use std::io::{ErrorKind, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

/// What is kept about a daemon.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub struct Stored {
    /// Key or token.
    pub key: Option<String>,
    /// PEM file of the authorities that are believed.
    pub cacert: Option<PathBuf>,
    /// PEM file of our certificate.
    pub certfile: Option<PathBuf>,
    /// PEM file of its private key.
    pub keyfile: Option<PathBuf>,
}

impl Stored {
    /// The TLS part, with paths from the folder of the file on.
    pub fn tls(&self, folder: &Path) -> TlsOptions {
        let absolute = |path: &Option<PathBuf>| path.as_ref().map(|path| folder.join(path));
        TlsOptions {
            ca: absolute(&self.cacert),
            cert: absolute(&self.certfile),
            key: absolute(&self.keyfile),
        }
    }
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Document {
    login: BTreeMap<String, Stored>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Form {
    Toml,
    Ini,
}

impl Form {
    fn of(path: &Path) -> Form {
        match path.extension().and_then(|extension| extension.to_str()) {
            Some("ini") => Form::Ini,
            _ => Form::Toml,
        }
    }

    fn header(self, url: &str) -> String {
        match self {
            Form::Toml => format!("[login.{}]", quoted(url)),
            Form::Ini => format!("[node \"{url}\"]"),
        }
    }

    fn key(self, key: &str) -> String {
        match self {
            Form::Toml => format!("key = {}", quoted(key)),
            Form::Ini => format!("key = {key}"),
        }
    }

    /// The URL of a section's first line.
    fn url(self, line: &str) -> Option<&str> {
        let inner = line.trim().strip_prefix('[')?.split_once(']')?.0.trim();
        let rest = match self {
            Form::Toml => inner.strip_prefix("login")?.trim_start().strip_prefix('.')?,
            Form::Ini => inner.strip_prefix("node")?,
        };
        let rest = rest.trim_start();
        let quote = rest.chars().next().filter(|c| matches!(c, '"' | '\''))?;
        rest.strip_prefix(quote)?.strip_suffix(quote)
    }

    fn read(self, text: &str) -> Result<BTreeMap<String, Stored>, String> {
        match self {
            Form::Toml => toml::from_str::<Document>(text)
                .map(|document| document.login)
                .map_err(|error| error.message().to_owned()),
            Form::Ini => Ok(read_ini(text)),
        }
    }
}

/// A basic string of TOML, whose escapes are those of JSON.
fn quoted(text: &str) -> String {
    serde_json::Value::from(text).to_string()
}

fn read_ini(text: &str) -> BTreeMap<String, Stored> {
    let mut found: BTreeMap<String, Stored> = BTreeMap::new();
    let mut url = None;
    for line in text.lines().map(str::trim) {
        if line.starts_with('[') {
            url = Form::Ini.url(line);
            continue;
        }
        let pair = line.split_once('=').filter(|_| !line.starts_with(['#', ';']));
        if let (Some(url), Some((name, value))) = (url, pair) {
            let stored = found.entry(url.to_owned()).or_default();
            let value = value.trim().trim_matches('"');
            match name.trim() {
                "key" => stored.key = Some(value.to_owned()),
                "cacert" => stored.cacert = Some(value.into()),
                "certfile" => stored.certfile = Some(value.into()),
                "keyfile" => stored.keyfile = Some(value.into()),
                _ => {}
            }
        }
    }
    found
}

fn home() -> Option<PathBuf> {
    std::env::var_os("HOME")
        .map(PathBuf::from)
        .filter(|path| path.is_absolute())
}

fn named() -> Option<PathBuf> {
    std::env::var_os("GAFFER_CONFIG")
        .filter(|path| !path.is_empty())
        .map(PathBuf::from)
}

/// The file that a login is written to.
fn own_file() -> Option<PathBuf> {
    let xdg = std::env::var_os("XDG_CONFIG_HOME").map(PathBuf::from);
    let folder = xdg.filter(|path| path.is_absolute());
    let folder = folder.or_else(|| home().map(|home| home.join(".config")));
    named().or_else(|| folder.map(|folder| folder.join("gaffer/config.toml")))
}

/// The files that are looked into, the first that knows the daemon wins.
fn files() -> Vec<PathBuf> {
    if let Some(named) = named() {
        return vec![named];
    }
    let old = home().map(|home| home.join(".gaffer/gaffer.ini"));
    own_file().into_iter().chain(old).collect()
}

fn is_of(url: &str, endpoint: &Endpoint) -> bool {
    Endpoint::parse(url).is_ok_and(|known| known == *endpoint)
}

fn read(path: &Path) -> Result<Option<String>, Failure> {
    match std::fs::read_to_string(path) {
        Ok(text) => Ok(Some(text)),
        Err(error) if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory) => Ok(None),
        Err(error) => Err(Failure::usage(format!(
            "{} cannot be read: {error}",
            path.display()
        ))),
    }
}

/// What is known about a daemon, and the folder of the file that says it.
pub fn find(endpoint: &Endpoint) -> Result<(Stored, PathBuf), Failure> {
    for path in files() {
        let Some(text) = read(&path)? else { continue };
        let nodes = Form::of(&path)
            .read(&text)
            .map_err(|why| Failure::usage(format!("{}: {why}", path.display())))?;
        if let Some((_, stored)) = nodes.into_iter().find(|(url, _)| is_of(url, endpoint)) {
            let folder = path.parent().map(Path::to_owned).unwrap_or_default();
            return Ok((stored, folder));
        }
    }
    Ok((Stored::default(), PathBuf::new()))
}

/// Keeps a key for a daemon; the file that it is in.
pub fn save(endpoint: &Endpoint, key: &str) -> Result<PathBuf, Failure> {
    let path = own_file().ok_or_else(|| {
        Failure::failed("there is no place to keep the key: HOME is not set")
            .hint("name a file: GAFFER_CONFIG")
    })?;
    // A link stays one.
    let path = std::fs::canonicalize(&path).unwrap_or(path);
    let before = read(&path)?.unwrap_or_default();
    let form = Form::of(&path);
    if key.chars().any(char::is_control) {
        return Err(Failure::failed("the key has characters that no key has"));
    }
    let text = with_key(form, &before, endpoint, key);
    let known = form
        .read(&text)
        .map_err(|why| Failure::failed(format!("{}: {why}", path.display())))?;
    let kept = known
        .iter()
        .any(|(url, stored)| is_of(url, endpoint) && stored.key.as_deref() == Some(key));
    if !kept {
        let why = format!(
            "{} is written in a way that cannot be changed here",
            path.display()
        );
        return Err(Failure::failed(why).hint("take its section of this node out, and log in again"));
    }
    write(&path, &text)
        .map(|()| path.clone())
        .map_err(|error| Failure::failed(format!("{} cannot be written: {error}", path.display())))
}

fn with_key(form: Form, before: &str, endpoint: &Endpoint, key: &str) -> String {
    let mut lines: Vec<String> = before.lines().map(str::to_owned).collect();
    let starts = |line: &String| line.trim_start().starts_with('[');
    let at = lines
        .iter()
        .position(|line| form.url(line).is_some_and(|url| is_of(url, endpoint)));
    match at {
        Some(at) => {
            let len = lines[at + 1..].iter().position(starts);
            let end = len.map_or(lines.len(), |len| at + 1 + len);
            let is_key = |line: &String| line.split_once('=').is_some_and(|(name, _)| name.trim() == "key");
            match lines[at + 1..end].iter().position(is_key) {
                Some(i) => lines[at + 1 + i] = form.key(key),
                None => lines.insert(at + 1, form.key(key)),
            }
        }
        None => {
            if lines.last().is_some_and(|line| !line.trim().is_empty()) {
                lines.push(String::new());
            }
            lines.extend([form.header(&endpoint.to_string()), form.key(key)]);
        }
    }
    lines.join("\n") + "\n"
}

fn write(path: &Path, text: &str) -> std::io::Result<()> {
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty());
    if let Some(folder) = folder {
        DirBuilder::new().recursive(true).mode(0o700).create(folder)?;
    }
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let new = path.with_file_name(format!(".{name}.{}", std::process::id()));
    let written = write_new(&new, text).and_then(|()| std::fs::rename(&new, path));
    if written.is_err() {
        // It is in nobody's way; the error is that of the write.
        let _ = std::fs::remove_file(&new);
        return written;
    }
    match folder {
        Some(folder) => File::open(folder)?.sync_all(),
        None => Ok(()),
    }
}

fn write_new(path: &Path, text: &str) -> std::io::Result<()> {
    let mut file = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(path)?;
    file.write_all(text.as_bytes())?;
    file.sync_all()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn endpoint(url: &str) -> Endpoint {
        Endpoint::parse(url).expect("a URL")
    }

    #[test]
    fn s12_6_the_originals_file_is_read() {
        let text =
            "# mine\n[other]\nkey = no\n[node \"http://127.0.0.1:5000\"]\nkey = abc\ncacert = ca.pem\n";
        let found = read_ini(text);
        let stored = &found["http://127.0.0.1:5000"];
        assert_eq!(stored.key.as_deref(), Some("abc"));
        assert_eq!(stored.tls(Path::new("/x")).ca, Some(PathBuf::from("/x/ca.pem")));
        assert_eq!(found.len(), 1);
    }

    #[test]
    fn a_key_is_added_or_replaced_and_the_rest_stays() {
        let one = endpoint("https://a.example:5000");
        for form in [Form::Toml, Form::Ini] {
            let text = with_key(form, "", &one, "first");
            let text = with_key(
                form,
                &format!("# a word\n{text}"),
                &endpoint("/run/g.sock"),
                "other",
            );
            let text = with_key(form, &text, &one, "second");
            let found = form.read(&text).expect(&text);
            assert!(text.starts_with("# a word\n"), "{text}");
            assert_eq!(found.len(), 2, "{text}");
            assert_eq!(found["https://a.example:5000"].key.as_deref(), Some("second"));
            assert_eq!(found["/run/g.sock"].key.as_deref(), Some("other"));
        }
    }

    #[test]
    fn a_url_may_be_written_in_another_way() {
        let text = with_key(
            Form::Toml,
            "[login.'127.0.0.1']\ncacert = 'x'\n",
            &endpoint("http://127.0.0.1:5000/"),
            "k",
        );
        assert_eq!(text, "[login.'127.0.0.1']\nkey = \"k\"\ncacert = 'x'\n");
    }
}
