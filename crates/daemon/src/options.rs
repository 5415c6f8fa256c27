//! What can be said on the command line of `gafferd`.

use clap::{Args, Parser};
use serde_json::{Value, json};
use std::path::{Path, PathBuf};

/// The daemon of a node: launches jobs, keeps them alive, and serves the API.
///
/// An option wins over its environment variable, and that over the file.
#[derive(Debug, Parser)]
#[command(
    name = "gafferd",
    version,
    max_term_width = 100,
    after_help = "\
Examples:
  gafferd                              start empty, or with what the store remembers
  gafferd -c gaffer.toml               apply a file, then serve
  gafferd -c . --bind 127.0.0.1:0      the file in this folder; a free port, printed when it serves
  gafferd --bind none                  control socket only
  gafferd --pidfile /run/g.pid --daemon   in the background, as the original

Without a file $GAFFERD_CONFIG is used, else gaffer.toml or gafferd.ini in /etc/gaffer (root) or ~/.gaffer.

Signals: TERM, INT and QUIT stop all jobs in order, save those with keep_running, and a second one kills;
HUP applies the file again. If gafferd is killed, its jobs go on, and the next gafferd takes charge of them."
)]
#[expect(
    clippy::struct_excessive_bools,
    reason = "each is a switch of the command line"
)]
pub struct Options {
    /// File (gaffer.toml, Procfile, gaffer.ini, …) to apply at the start, or its folder
    #[arg(short = 'c', long = "config", value_name = "FILE")]
    pub config: Option<PathBuf>,

    /// The same, as the original takes it
    #[arg(value_name = "FILE", conflicts_with = "config")]
    pub file: Option<PathBuf>,

    /// Where to listen, repeatable: HOST:PORT (port 0: a free one), unix:PATH, or none [default: 127.0.0.1:5000]
    #[arg(long, value_name = "ADDR")]
    pub bind: Vec<String>,

    /// Path of the control socket
    #[arg(long, value_name = "PATH", env = "GAFFER_SOCKET")]
    pub socket: Option<PathBuf>,

    /// Directory of the store, the shims and the logs
    #[arg(long, value_name = "DIR", env = "GAFFER_STATE_DIR")]
    pub state_dir: Option<PathBuf>,

    /// How much is written to the log: error, warn, info, debug, trace [default: info]
    #[arg(long, value_name = "LEVEL", value_parser = level)]
    pub log_level: Option<tracing::Level>,

    /// Profile of the file, repeatable
    #[arg(long, value_name = "NAME", env = "GAFFER_PROFILE", value_delimiter = ',')]
    pub profile: Vec<String>,

    /// Go to the background once it serves; the log goes to gafferd.log in the state directory
    #[arg(long)]
    pub daemon: bool,

    /// Write the process id to this file, and remove it at the end
    #[arg(long, value_name = "FILE")]
    pub pidfile: Option<PathBuf>,

    /// More in the log, and the log on standard error: -v debug, -vv trace, and what the programs write
    #[arg(short, long, action = clap::ArgAction::Count)]
    pub verbose: u8,

    /// Keys of `[gaffer]`.
    #[command(flatten)]
    pub keys: KeyOptions,

    /// Make a user with a key for everything, print the key and end
    #[arg(long)]
    pub create_admin_user: bool,

    /// Name of that user; asked for if it is missing
    #[arg(long, value_name = "NAME", requires = "create_admin_user")]
    pub username: Option<String>,

    /// Its password; better left out: it is asked for
    #[arg(
        long,
        value_name = "TEXT",
        requires = "create_admin_user",
        hide_env_values = true
    )]
    pub password: Option<String>,

    /// Print the users that are admins, with their keys, and end
    #[arg(long)]
    pub list_admins: bool,

    /// Take over users and keys of the original (auth.db and keys.db in this folder) and end
    #[arg(long, value_name = "DIR")]
    pub import_keys: Option<PathBuf>,

    /// Print the OpenAPI document and end
    #[arg(long, hide = true)]
    pub print_openapi: bool,

    /// Print a systemd unit for this program and end
    #[arg(long, hide = true)]
    pub print_unit: bool,

    /// Check what can be checked without serving, print it as JSON and end
    #[arg(long, hide = true)]
    pub doctor: bool,

    /// How often look-up services hear from this node
    #[arg(long, value_name = "D", hide = true, value_parser = gaffer_config::parse_duration)]
    pub lookup_ping: Option<std::time::Duration>,

    /// Stop all jobs and end when this descriptor reaches its end: the private daemon of `gaffer start`
    #[arg(long, value_name = "N", hide = true)]
    pub leash_fd: Option<i32>,

    /// Checkpoint root of the tasks: a runner of one task (`--task`), or an observer that leads none
    #[arg(long, value_name = "DIR", hide = true)]
    pub task_root: Option<PathBuf>,

    /// The task that this runner leads; it ends with the task, once its leash is broken
    #[arg(long, value_name = "ID", hide = true, requires = "task_root")]
    pub task: Option<String>,

    /// Print what a checkpoint file says as JSON, as far as it can be read, and end
    #[arg(long, value_name = "FILE", hide = true)]
    pub read_checkpoint: Option<PathBuf>,
}

/// Options of the original that are keys of `[gaffer]`. They win over the file, also when it is read again.
#[derive(Args, Clone, Debug, Default)]
#[command(next_help_heading = "Keys of [gaffer]")]
pub struct KeyOptions {
    /// Length of the queue of new connections (`backlog`)
    #[arg(long, value_name = "N")]
    pub backlog: Option<u32>,

    /// File for the log, - for standard error (`log_to`)
    #[arg(long, value_name = "FILE")]
    pub error_log: Option<PathBuf>,

    /// Everybody needs a token (`require_token`)
    #[arg(long, visible_alias = "require-token")]
    pub require_key: bool,

    /// Certificate of the server (`tls.cert`)
    #[arg(long, value_name = "FILE", requires = "keyfile")]
    pub certfile: Option<PathBuf>,

    /// Its key (`tls.key`)
    #[arg(long, value_name = "FILE", requires = "certfile")]
    pub keyfile: Option<PathBuf>,

    /// Look-up server, repeatable (`lookup`)
    #[arg(long, value_name = "URL", visible_alias = "lookup")]
    pub lookupd_address: Vec<String>,

    /// URL under which other nodes reach this one (`advertise`)
    #[arg(long, value_name = "URL", visible_alias = "advertise")]
    pub broadcast_address: Option<String>,

    /// Folder of plugins (`plugins_dir`)
    #[arg(
        short,
        long,
        value_name = "DIR",
        visible_alias = "plugins-dir",
        env = "GAFFER_PLUGIN_DIR"
    )]
    pub plugin_dir: Option<PathBuf>,
}

impl KeyOptions {
    /// As the text of a file that is laid over the daemon's own; empty if nothing was said. So they are checked, and
    /// refused, as keys of a file are.
    pub fn as_file(&self, verbose: bool) -> Result<String, String> {
        let mut text = String::new();
        let mut put = |key: &str, value: Value| text.push_str(&format!("gaffer.{key} = {value}\n"));
        let path = |path: &Path| {
            std::path::absolute(path)
                .map(|path| json!(path))
                .map_err(|error| format!("{}: {error}", path.display()))
        };
        if let Some(backlog) = self.backlog {
            put("backlog", json!(backlog));
        }
        match &self.error_log {
            Some(file) if file.as_os_str() != "-" => {
                let file =
                    std::path::absolute(file).map_err(|error| format!("{}: {error}", file.display()))?;
                put("log_to", json!(format!("file:{}", file.display())));
            }
            Some(_) => put("log_to", json!("stderr")),
            None if verbose => put("log_to", json!("stderr")),
            None => {}
        }
        if self.require_key {
            put("require_token", json!(true));
        }
        if let (Some(cert), Some(key)) = (&self.certfile, &self.keyfile) {
            put("tls.cert", path(cert)?);
            put("tls.key", path(key)?);
        }
        if !self.lookupd_address.is_empty() {
            put("lookup", json!(self.lookupd_address));
        }
        if let Some(url) = &self.broadcast_address {
            put("advertise", json!(url));
        }
        if let Some(dir) = &self.plugin_dir {
            put("plugins_dir", path(dir)?);
        }
        Ok(text)
    }
}

/// Levels, also by the original's names.
fn level(text: &str) -> Result<tracing::Level, String> {
    match text.to_ascii_lowercase().as_str() {
        "critical" => Ok(tracing::Level::ERROR),
        "warning" => Ok(tracing::Level::WARN),
        "error" | "warn" | "info" | "debug" | "trace" => {
            text.parse().map_err(|_| format!("`{text}` is no level"))
        }
        _ => Err("there are error, warn, info, debug and trace".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(line: &str) -> Options {
        Options::try_parse_from(line.split(' ')).unwrap()
    }

    #[test]
    fn s13_1_old_options_become_keys() {
        let options = parse(
            "gafferd /etc/g.ini --backlog 7 --error-log /l --require-key --certfile /c --keyfile /k --lookupd-address http://a:1 --lookupd-address http://b:1 --broadcast-address http://me:5000 -p /plugins",
        );
        assert_eq!(options.file.as_deref(), Some(Path::new("/etc/g.ini")));
        let expected = "gaffer.backlog = 7\ngaffer.log_to = \"file:/l\"\ngaffer.require_token = true\n\
                        gaffer.tls.cert = \"/c\"\ngaffer.tls.key = \"/k\"\n\
                        gaffer.lookup = [\"http://a:1\",\"http://b:1\"]\n\
                        gaffer.advertise = \"http://me:5000\"\ngaffer.plugins_dir = \"/plugins\"\n";
        assert_eq!(options.keys.as_file(false).unwrap(), expected);
        assert_eq!(parse("gafferd").keys.as_file(false).unwrap(), "");
    }

    #[test]
    fn s13_1_levels_have_the_originals_names_too() {
        for (word, wanted) in [
            ("critical", tracing::Level::ERROR),
            ("warning", tracing::Level::WARN),
            ("info", tracing::Level::INFO),
        ] {
            assert_eq!(
                parse(&format!("gafferd --log-level {word}")).log_level,
                Some(wanted)
            );
        }
    }
}
