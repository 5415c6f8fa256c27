//! Units for systemd: what of a job it can do the same way; the rest is a comment.

use crate::config::{Config, LoadedJob};
use crate::export::{flat_env, in_start_order, variable_of};
use crate::template::{Piece, pieces};
use crate::units::exact_duration;
use gaffer_core::job::{
    Amount, Condition, EnvInherit, ExitMatch, Launch, Output, Port, ReloadHow, Restart, Scope, Stdin,
};
use gaffer_core::name::JobId;
use gaffer_core::signal;

/// All units, each after a comment with its file name.
pub(crate) fn units(config: &Config) -> String {
    let mut out = String::new();
    for (id, job) in in_start_order(&config.jobs) {
        out.push_str(&format!("# {}\n{}\n", file_name(id, job), unit(config, id, job)));
    }
    out
}

/// More than one instance is a template unit.
fn file_name(id: &JobId, job: &LoadedJob) -> String {
    let at = if job.spec.instances == 1 { "" } else { "@" };
    format!("{}-{}{at}.service", id.session, id.job)
}

fn description(id: &JobId, text: &str) -> String {
    let text = match text.is_empty() {
        true => format!("{id}"),
        false => text.replace(['\n', '\r'], " "),
    };
    format!("Description={}", text.replace('%', "%%"))
}

fn unit(config: &Config, id: &JobId, job: &LoadedJob) -> String {
    let spec = &job.spec;
    let mut lines = vec!["[Unit]".to_owned()];
    lines.push(description(id, &spec.description));
    for (other, condition) in &spec.after {
        let Some(dependency) = config.jobs.get(other) else {
            continue;
        };
        let name = match dependency.spec.instances {
            1 => file_name(other, dependency),
            _ => format!("{}-{}@1.service", other.session, other.job),
        };
        lines.push(format!("After={name}"));
        lines.push(format!("Wants={name}"));
        if *condition == Condition::Done {
            lines.push(format!(
                "# {name} must have ended with success: make it Type=oneshot"
            ));
        }
    }
    let tasks = spec.after_tasks.keys();
    lines.extend(tasks.map(|task| format!("# comes after task {task}, which is no unit")));
    if let Some(flapping) = &spec.flapping {
        lines.push(format!(
            "StartLimitIntervalSec={}",
            exact_duration(flapping.window)
        ));
        lines.push(format!("StartLimitBurst={}", flapping.exits));
    }
    lines.extend(["".to_owned(), "[Service]".to_owned(), "Type=exec".to_owned()]);
    launch(&spec.launch, &config.daemon.shell, &mut lines);
    lines.push(format!(
        "Restart={}",
        match spec.restart {
            Restart::Always => "always",
            Restart::OnFailure => "on-failure",
            Restart::Never => "no",
        }
    ));
    if let (Some(delay), true) = (spec.retry.delay.first(), spec.restart != Restart::Never) {
        lines.push(format!("RestartSec={}", exact_duration(*delay)));
    }
    stop(job, &mut lines);
    let ends = |ends: &[ExitMatch]| ends.iter().map(end).collect::<Vec<_>>().join(" ");
    if spec.exit.ok != [ExitMatch::Code(0)] {
        lines.push(format!("SuccessExitStatus={}", ends(&spec.exit.ok)));
    }
    if !spec.exit.fatal.is_empty() {
        lines.push(format!("RestartPreventExitStatus={}", ends(&spec.exit.fatal)));
    }
    for (key, there) in [
        ("ready", spec.ready.is_some()),
        ("health", spec.health.is_some()),
        ("scale", spec.scale_max.is_some()),
    ] {
        if there {
            lines.push(format!("# not said here: {key}"));
        }
    }
    lines.extend([
        "".to_owned(),
        "[Install]".to_owned(),
        "WantedBy=multi-user.target".to_owned(),
        String::new(),
    ]);
    lines.join("\n")
}

fn end(end: &ExitMatch) -> String {
    match end {
        ExitMatch::Code(code) => code.to_string(),
        ExitMatch::Signal(number) => {
            signal::short(*number).map_or(number.to_string(), |name| format!("SIG{name}"))
        }
    }
}

fn stop(job: &LoadedJob, lines: &mut Vec<String>) {
    let stop = &job.spec.stop;
    // Not `process`: the rest of the tree must go too.
    let mode = if stop.to == Scope::Main {
        "mixed"
    } else {
        "control-group"
    };
    lines.push(format!("KillMode={mode}"));
    if let Some(name) = signal::short(stop.signal) {
        lines.push(format!("KillSignal=SIG{name}"));
    }
    lines.push(format!("TimeoutStopSec={}", exact_duration(stop.timeout)));
    if let Some(cmd) = &stop.cmd {
        lines.push(exec("ExecStop", cmd));
    }
    if job.spec.reload.how == ReloadHow::Signal {
        let name = signal::short(job.spec.reload.signal).unwrap_or("HUP");
        lines.push(format!("ExecReload=kill -{name} $MAINPID"));
    }
}

fn launch(launch: &Launch, shell: &str, lines: &mut Vec<String>) {
    let mut words = launch.wrap.clone();
    if let Some(shell) = launch.shell_or(shell) {
        words.extend([shell.to_owned(), "-c".to_owned()]);
        words.extend(launch.cmd.iter().map(|script| script.replace('$', "$$")));
    } else {
        words.extend(launch.cmd.iter().cloned());
    }
    lines.push(exec("ExecStart", &words));
    lines.push(format!("WorkingDirectory={}", launch.cwd.replace('%', "%%")));
    if let Some(user) = &launch.user {
        lines.push(format!("User={}", user.name));
        lines.push(format!("Group={}", user.gid));
    }
    for (name, value) in flat_env(launch) {
        lines.push(format!(
            "Environment={}",
            quoted(&format!("{name}={}", translated(&value)))
        ));
    }
    lines.push("Environment=INSTANCE=%i".to_owned());
    if let Some(Port::Fixed(port)) = launch.port {
        lines.push(format!("Environment=PORT={port}"));
        lines.push("# instance n has PORT + n - 1".to_owned());
    }
    if launch.env_inherit == EnvInherit::All {
        lines.push("# env_inherit = \"all\": a service begins with the manager's environment".to_owned());
    }
    attributes(launch, lines);
    limits(launch, lines);
    streams(launch, lines);
}

fn attributes(launch: &Launch, lines: &mut Vec<String>) {
    lines.push(format!("UMask={:04o}", launch.umask));
    for (key, value) in [("Nice", launch.nice), ("OOMScoreAdjust", launch.oom_score)] {
        if value != 0 {
            lines.push(format!("{key}={value}"));
        }
    }
    if launch.no_new_privs {
        lines.push("NoNewPrivileges=yes".to_owned());
    }
    let limit = |value: u64| {
        if value == u64::MAX {
            "infinity".to_owned()
        } else {
            value.to_string()
        }
    };
    for (number, soft, hard) in &launch.rlimits {
        if let Some(name) = crate::rlimit::name(*number) {
            lines.push(format!(
                "Limit{}={}:{}",
                name.to_uppercase(),
                limit(*soft),
                limit(*hard)
            ));
        }
    }
}

fn limits(launch: &Launch, lines: &mut Vec<String>) {
    let Some(limits) = &launch.limits else { return };
    let amount = |amount: Amount| match amount {
        Amount::Bytes(bytes) => bytes.to_string(),
        Amount::Percent(share) => format!("{share}%"),
    };
    let said = [
        ("MemoryMax", limits.memory.map(amount)),
        ("MemoryHigh", limits.memory_high.map(amount)),
        ("MemoryLow", limits.memory_low.map(amount)),
        ("MemorySwapMax", limits.swap.map(amount)),
        ("CPUQuota", limits.cpu.map(|share| format!("{share}%"))),
        ("CPUWeight", limits.cpu_weight.map(|weight| weight.to_string())),
        ("IOWeight", limits.io_weight.map(|weight| weight.to_string())),
        ("TasksMax", limits.pids.map(|count| count.to_string())),
        ("AllowedCPUs", limits.cpus.clone()),
        ("AllowedMemoryNodes", limits.mems.clone()),
    ];
    let said = said.into_iter().filter_map(|(key, value)| Some((key, value?)));
    lines.extend(said.map(|(key, value)| format!("{key}={value}")));
    if limits.memory.is_some() {
        let policy = if limits.one_process { "continue" } else { "kill" };
        lines.push(format!("OOMPolicy={policy}"));
    }
    if !limits.io.is_empty() {
        lines.push("# not said here: limits.io".to_owned());
    }
}

fn streams(launch: &Launch, lines: &mut Vec<String>) {
    match &launch.stdin {
        Stdin::File(path) => lines.push(format!("StandardInput=file:{}", path.replace('%', "%%"))),
        Stdin::Pipe => lines.push("# not said here: stdin = \"pipe\"".to_owned()),
        Stdin::Null => {}
    }
    for (key, output) in [
        ("StandardOutput", launch.stdout),
        ("StandardError", launch.stderr),
    ] {
        match output {
            Output::Null => lines.push(format!("{key}=null")),
            Output::Stdout => lines.push(format!("{key}=inherit")),
            Output::Keep => {}
        }
    }
    for (what, there) in [
        ("pty", launch.pty),
        ("streams", !launch.streams.is_empty()),
        ("ports", !launch.ports.is_empty()),
    ] {
        if there {
            lines.push(format!("# not said here: {what}"));
        }
    }
}

fn exec(key: &str, words: &[String]) -> String {
    let words: Vec<String> = words.iter().map(|word| quoted(&translated(word))).collect();
    format!("{key}={}", words.join(" "))
}

/// `$X` stays what it is, `{{ref}}` is the variable that holds the same, `%` is literal.
fn translated(text: &str) -> String {
    let Ok(list) = pieces(text, false) else {
        return text.replace('%', "%%");
    };
    list.into_iter()
        .map(|piece| match piece {
            Piece::Text("$") => "$$".to_owned(),
            Piece::Text(text) => text.replace('%', "%%"),
            Piece::Literal(text) => format!("{{{{{}}}}}", text.replace('%', "%%")),
            Piece::Variable { name, .. } => format!("${{{name}}}"),
            Piece::Reference(reference) if reference.name == "instance" && reference.offset == 0 => {
                "%i".to_owned()
            }
            Piece::Reference(reference) => match variable_of(reference.name) {
                Some(name) => format!("${{{name}}}"),
                None => format!("{{{{{}}}}}", reference.text),
            },
        })
        .collect()
}

/// A word for a unit file.
fn quoted(word: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "_-./=:@%+,${}~".contains(c);
    if !word.is_empty() && word.chars().all(plain) {
        return word.to_owned();
    }
    let escaped = word
        .replace('\\', "\\\\")
        .replace('"', "\\\"")
        .replace('\n', "\\n")
        .replace('\t', "\\t");
    format!("\"{escaped}\"")
}
