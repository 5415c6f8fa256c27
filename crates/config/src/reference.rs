//! The reference page of `gaffer.toml`, from the table of keys.

use crate::diff::ChangeClass;
use crate::keys::{DAEMON, JOB, Key, NODE, OLD, PLUGIN, TOP, Use, WEBHOOK};
use crate::keys_queue::{kind_keys, queue_keys};
use crate::keys_schedule::schedule_keys;
use crate::keys_task::{step_keys, task_keys};
use crate::kind::Type;

const HEAD: &str = "\
# gaffer.toml

Written by `cargo xtask gen` from the table of keys in `crates/config/src/keys.rs`; do not edit.

Values: durations have units (`\"250ms\"`, `\"30s\"`, `\"1h30m\"`, `\"7d\"`), sizes too, 1024-based (`\"64K\"`, `\"512M\"`). A
command is words (`[\"prog\", \"a b\"]`) or a text that is split like a shell does it, without a shell. `$NAME`,
`${NAME}`, `${NAME:-text}` are the environment of the run, `$$` is a dollar; `{{ref}}` is gaffer: `vars.N`, `session`,
`job`, `instance`, `node`, `run`, `attempt`, `user`, `profile`, `ports.N`, `file.dir`, in steps `task.name`, `task.id`, `task.dir`,
`step`, `params.N`, `steps.S.outputs.N` and `steps.S.exit_code` too, with `{{instance-1:02}}` for an
offset and a width; `{{&x}}` is `{{x}}` literally.

Merging, later wins: built-in, `[defaults]`, `[defaults.job]` or `[defaults.step]`, `[template.T]` named by `extends`, the object, selected
`[profile.P]` in the order given. Tables merge key by key, everything else replaces; `unset` removes what was inherited.

The environment is built in layers: `env_inherit`, `[env]`, each `env_file`, `env`, then what gaffer sets: `INSTANCE`,
`PORT`, `PORT_*`, `GAFFER_{NODE,SESSION,JOB,INSTANCE,RUN,ATTEMPT}`, `NOTIFY_SOCKET`, `WATCHDOG_USEC`. `$X` in a value
is the layer below. A one-off has instance 0.

*Change* says when a new value counts: **live**, running processes keep running; **reload**, the job is reloaded as
`reload.how` says; **next**, from the next start of a run; **daemon**, from the next start of the daemon. *Not yet*:
the key is known and refused.
";

const FILES: &str = "
## Other files

**Files of variables** (`env_file`, `.env`): `NAME=value`, `export NAME=value`; `#` begins a comment, after a blank in
unquoted values; `'…'` is literal, `\"…\"` knows `\\n \\r \\t \\\" \\\\ \\$`, both may span lines; `$X`, `${X}`,
`${X:-text}` in unquoted and double-quoted values is an earlier line of the file, else the layer below, else nothing.
The daemon reads them when a definition is applied or put, when a job is reloaded, and when it starts; it keeps their
paths, never their values. With another content the job is reloaded by the next `apply`, or by `gaffer reload JOB`.
Where one is missing when the daemon starts, running processes go on; a start fails and names it.

**Procfile**: `name: command`, one a line. Commands are split without a shell. Jobs get the whole environment
(`env_inherit = \"all\"`) and `.env` of the folder, start in the order of their lines, and belong to a session with the
folder's name. With `--port 5000` the first gets port 5000, each further one a port 100 above.

**gaffer.ini**, **JSON job files**: those of the original gaffer; unknown properties are kept in `meta`. Differences: a
relative path is relative to the file, `cwd` is the file's folder unless given, output is kept also where
`redirect_output` does not name it.
";

/// The page, in Markdown.
pub fn reference_markdown() -> String {
    let mut out = HEAD.to_owned();
    section(&mut out, "Top level", TOP);
    section(&mut out, "`[job.X]`", JOB);
    section(&mut out, "`[task.X]`", task_keys());
    section(&mut out, "`[task.X.step.Y]`", step_keys());
    section(&mut out, "`[queue.X]`", queue_keys());
    section(&mut out, "`[queue.X.kind.K]`", kind_keys());
    section(&mut out, "`[schedule.X]`", schedule_keys());
    section(&mut out, "`[webhook.X]`", WEBHOOK);
    section(&mut out, "`[node.X]`, also in the user's own `config.toml`", NODE);
    section(&mut out, "`[gaffer]`", DAEMON);
    section(&mut out, "`plugin.toml`", PLUGIN);
    out.push_str(FILES);
    out.push_str("\n## Old names\n\n| written elsewhere | here |\n|---|---|\n");
    for (old, new) in OLD {
        out.push_str(&format!("| `{old}` | `{}` |\n", new.replace('|', "\\|")));
    }
    out
}

fn section(out: &mut String, title: &str, keys: &[Key]) {
    out.push_str(&format!(
        "\n## {title}\n\n| key | takes | default | change | meaning |\n|---|---|---|---|---|\n"
    ));
    for key in keys {
        let (takes, change) = match key.used {
            Use::NotYet => ("not yet".to_owned(), String::new()),
            Use::Refused(help) => (format!("refused: {help}"), String::new()),
            Use::File => (takes(key.ty), "–".to_owned()),
            _ => (takes(key.ty), class(key.class).to_owned()),
        };
        let default = if key.default.is_empty() {
            String::new()
        } else {
            default(key.default)
        };
        let short = key
            .short
            .map(|short| format!("; a plain value is `{short}`"))
            .unwrap_or_default();
        out.push_str(&format!(
            "| `{}` | {takes} | {default} | {change} | {}{short} |\n",
            key.path,
            key.doc.replace('|', "\\|")
        ));
    }
}

/// A value is shown as one, a remark as a remark.
fn default(text: &str) -> String {
    let value = text.starts_with(['"', '[', '{']) && !text.contains(", with") || text.parse::<f64>().is_ok();
    if value || ["true", "false"].contains(&text) {
        format!("`{text}`")
    } else {
        text.to_owned()
    }
}

fn class(class: ChangeClass) -> &'static str {
    match class {
        ChangeClass::Live => "live",
        ChangeClass::NextStart => "next",
        ChangeClass::Reload => "reload",
        ChangeClass::Daemon => "daemon",
    }
}

fn takes(ty: Type) -> String {
    match ty {
        Type::Bool => "true or false".to_owned(),
        Type::Int(min, max) => format!("{min} to {max}"),
        Type::Count(min) => format!("number from {min}, `\"unlimited\"`"),
        Type::Number(min, max) => format!("number, {min} to {max}"),
        Type::Duration => "duration".to_owned(),
        Type::Durations => "duration, or a list".to_owned(),
        Type::Size => "size".to_owned(),
        Type::SizeOrShare => "size or share".to_owned(),
        Type::Percent => "percent".to_owned(),
        Type::Numbers => "numbers and ranges".to_owned(),
        Type::Command => "command".to_owned(),
        Type::Text | Type::LogTo | Type::Owner => "text".to_owned(),
        Type::Texts => "list of texts".to_owned(),
        Type::Labels(max) => format!("list of texts, at most {max}"),
        Type::Name => "name".to_owned(),
        Type::Path => "path".to_owned(),
        Type::Paths => "list of paths".to_owned(),
        Type::Word(words) => words
            .iter()
            .map(|word| format!("`\"{word}\"`"))
            .collect::<Vec<_>>()
            .join(", "),
        Type::Octal => "octal digits".to_owned(),
        Type::Signal => "name of a signal".to_owned(),
        Type::Ends => "list of codes and signals".to_owned(),
        Type::User => "name or id".to_owned(),
        Type::Users => "list of names or ids".to_owned(),
        Type::Shell => "true, false or the name of a shell".to_owned(),
        Type::Inherit => "`\"base\"`, `\"all\"`, `\"none\"`, list of patterns".to_owned(),
        Type::Env => "table of texts and numbers".to_owned(),
        Type::Map => "table of texts".to_owned(),
        Type::Rlimits => "table of numbers and sizes".to_owned(),
        Type::Port => "port or `\"auto\"`".to_owned(),
        Type::Ports => "table of ports".to_owned(),
        Type::Stdin => "`\"null\"`, `\"pipe\"`, `\"file:PATH\"`".to_owned(),
        Type::Start => "true or false".to_owned(),
        Type::After => "list of names, or table".to_owned(),
        Type::AfterStep => "list of steps, or table".to_owned(),
        Type::Order => "list of names, or list of lists".to_owned(),
        Type::Params => "table of texts, `{ required = true }`".to_owned(),
        Type::Batch => "count or share".to_owned(),
        Type::Regex => "regular expression".to_owned(),
        Type::Redact => "list of words and regular expressions".to_owned(),
        Type::Url => "URL".to_owned(),
        Type::Address => "address".to_owned(),
        Type::True => "`true`".to_owned(),
        Type::Empty => "`[]`".to_owned(),
        Type::Any => "anything".to_owned(),
        Type::Table => "table".to_owned(),
    }
}
