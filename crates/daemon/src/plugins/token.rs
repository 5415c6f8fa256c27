//! The credential of a plugin's program: a token with the scope of its manifest, in a file that only we may read.

use crate::access::keyring::New;
use crate::access::permissions::Permissions;
use crate::access::store::{Kind, Record};
use crate::http::Shared;
use crate::plugins::Folder;
use gaffer_config::PluginManifest;
use serde_json::json;
use std::collections::BTreeSet;
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

/// How tokens of plugins are called: `plugin deaths`.
const NAMED: &str = "plugin ";

fn dir(app: &Shared) -> PathBuf {
    app.setup.state_dir.join("plugins")
}

fn file(app: &Shared, name: &str) -> PathBuf {
    dir(app).join(format!("{name}.token"))
}

fn records(app: &Shared) -> Vec<Record> {
    let mut records = app.keyring.list(Kind::Token);
    records.retain(|record| name_of(record).is_some());
    records
}

/// The plugin that a token is for.
fn name_of(record: &Record) -> Option<&str> {
    record.name.as_deref()?.strip_prefix(NAMED)
}

/// The file with a token that allows what the manifest says; the error is a sentence.
pub async fn provide(app: &Shared, folder: &Folder) -> Result<PathBuf, String> {
    let path = file(app, &folder.name);
    let Some(manifest) = &folder.manifest else {
        return Ok(path);
    };
    let may = permissions(manifest)?;
    let known: Vec<Record> = records(app)
        .into_iter()
        .filter(|record| name_of(record) == Some(folder.name.as_str()))
        .collect();
    let text = std::fs::read_to_string(&path).unwrap_or_default();
    let good =
        matches!(known.as_slice(), [one] if one.may == may) && app.keyring.resolve(text.trim()).is_some();
    if good {
        return Ok(path);
    }
    for record in &known {
        app.keyring
            .remove(&record.id)
            .await
            .map_err(|error| error.to_string())?;
    }
    let new = New {
        name: Some(format!("{NAMED}{}", folder.name)),
        scope: Some(manifest.scope.clone()),
        may,
        by: "plugins".to_owned(),
        ..New::default()
    };
    let (_, text) = app.keyring.add(new).await.map_err(|error| error.to_string())?;
    write(&path, &text).map_err(|error| format!("{}: {error}", path.display()))?;
    Ok(path)
}

/// Revokes the tokens of plugins that are not there any more.
pub async fn revoke_others(app: &Shared, wanted: &BTreeSet<&str>) {
    for record in records(app) {
        let Some(name) = name_of(&record).filter(|name| !wanted.contains(name)) else {
            continue;
        };
        if let Err(error) = app.keyring.remove(&record.id).await {
            tracing::warn!(plugin = name, %error, "plugin.token-not-revoked");
        }
        let _gone = std::fs::remove_file(file(app, name));
    }
}

fn permissions(manifest: &PluginManifest) -> Result<Permissions, String> {
    let jobs = &manifest.jobs;
    let allowed = match manifest.scope.as_str() {
        "admin" => json!({ "admin": true }),
        "operate" => json!({ "operate": jobs }),
        _ => json!({ "read": jobs }),
    };
    serde_json::from_value(allowed).map_err(|error| format!("`for` in plugin.toml: {error}"))
}

/// Private from its first moment, and whole or not there.
fn write(path: &Path, text: &str) -> io::Result<()> {
    if let Some(dir) = path.parent()
        && !dir.is_dir()
    {
        std::fs::DirBuilder::new().mode(0o700).create(dir)?;
    }
    let next = path.with_extension("new");
    let _old = std::fs::remove_file(&next);
    let mut file = std::fs::OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(&next)?;
    file.write_all(text.as_bytes())?;
    file.write_all(b"\n")?;
    std::fs::rename(&next, path)
}
