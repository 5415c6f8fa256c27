//! `gaffer init`: a first `gaffer.toml` from what lies in a folder.
//!
//! It writes only what it sees: the lines of a Procfile, or the one command that starts a known kind of program.
//! What it guesses is marked as a guess.

use crate::bundle::{GatherOptions, gather};
use crate::config::load;
use crate::diff::{command, quoted_key, toml_value};
use crate::host::Host;
use crate::procfile::session_of;
use serde_json::{Value, json};
use std::path::Path;

/// A program that a file in the folder tells of: file, job, command, remark.
const KNOWN: &[(&str, &str, &str, &str)] = &[
    (
        "manage.py",
        "web",
        "python3 manage.py runserver 127.0.0.1:$PORT",
        "Django",
    ),
    (
        "bin/rails",
        "web",
        "bin/rails server --port $PORT",
        "Ruby on Rails",
    ),
    ("config.ru", "web", "bundle exec rackup --port $PORT", "Rack"),
    ("app.py", "web", "python3 -u app.py", "Python"),
    ("main.py", "app", "python3 -u main.py", "Python"),
    ("server.js", "web", "node server.js", "Node.js"),
    ("Cargo.toml", "app", "cargo run", "Rust"),
    ("go.mod", "app", "go run .", "Go"),
];

/// The text of a `gaffer.toml` for this folder.
pub fn init(dir: &Path, host: &dyn Host) -> String {
    let mut out = String::from(
        "# What runs here. Keys: gaffer help config; look at it: gaffer check; run it: gaffer start\n",
    );
    let session = session_of(&dir.join("Procfile"));
    out.push_str(&format!("session = {}\n", toml_value(&json!(session))));
    if dir.join(".env").is_file() {
        out.push_str("env_file = [\"?.env\"]\n");
    }
    let found = from_procfile(dir, host)
        .or_else(|| from_package(dir))
        .or_else(|| from_files(dir));
    match found {
        Some(jobs) => out.push_str(&jobs),
        None => out.push_str(NOTHING),
    }
    out
}

const NOTHING: &str = "
# Nothing here says what to run. Write it down:
#
# [job.web]
# cmd = \"python3 -m http.server $PORT\"
# port = 8000
# ready.http = \"http://127.0.0.1:$PORT/\"
";

/// The lines of a Procfile, in their order, as they mean there: with the whole environment.
fn from_procfile(dir: &Path, host: &dyn Host) -> Option<String> {
    let path = dir.join("Procfile");
    if !path.is_file() {
        return None;
    }
    let bundle = gather(&[path], &GatherOptions::default()).ok()?;
    let config = match load(&bundle, host) {
        Ok(config) => config,
        Err(errors) => {
            let said = errors.render(false);
            let lines: Vec<String> = said
                .lines()
                .map(|line| format!("# {line}").trim_end().to_owned())
                .collect();
            return Some(format!(
                "\n# The Procfile cannot be read:\n{}\n",
                lines.join("\n")
            ));
        }
    };
    let mut out = String::from("\n[defaults]\nenv_inherit = \"all\"                    # as in a Procfile\n");
    let mut jobs: Vec<_> = config.jobs.iter().collect();
    jobs.sort_by_key(|(_, job)| job.spec.priority);
    for (id, job) in jobs {
        out.push_str(&format!("\n[job.{}]\n", quoted_key(id.job.as_str())));
        out.push_str(&format!("cmd = {}\n", command(&job.typed["cmd"])));
        if job
            .spec
            .launch
            .cmd
            .iter()
            .any(|word| word.contains("$PORT") || word.contains("${PORT}"))
        {
            out.push_str("port = \"auto\"                          # gives $PORT; or a number\n");
        }
    }
    Some(out)
}

/// `npm start`, if there is such a script.
fn from_package(dir: &Path) -> Option<String> {
    let text = crate::bundle::read_text(&dir.join("package.json")).ok()?;
    let package: Value = serde_json::from_str(&text).ok()?;
    let scripts = package.get("scripts")?.as_object()?;
    let script = ["start", "dev", "serve"]
        .into_iter()
        .find(|name| scripts.contains_key(*name))?;
    let runner = match () {
        () if dir.join("pnpm-lock.yaml").is_file() => "pnpm",
        () if dir.join("yarn.lock").is_file() => "yarn",
        () => "npm",
    };
    Some(job("web", &format!("{runner} run {script}"), "from package.json"))
}

fn from_files(dir: &Path) -> Option<String> {
    let (_, name, cmd, what) = KNOWN.iter().find(|(file, ..)| dir.join(file).is_file())?;
    Some(job(name, cmd, &format!("a guess: this looks like {what}")))
}

fn job(name: &str, cmd: &str, remark: &str) -> String {
    let port = if cmd.contains("$PORT") {
        "port = \"auto\"                          # gives $PORT; or a number\n"
    } else {
        ""
    };
    format!(
        "\n# {remark}\n[job.{name}]\ncmd = {}\nenv_inherit = \"all\"\n{port}",
        toml_value(&json!(cmd))
    )
}
