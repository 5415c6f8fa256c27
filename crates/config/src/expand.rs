//! The last step before a spawn: templates and variables of a launch get the values of one run.

use crate::launch::{BASE_VARIABLES, USER_VARIABLES, port_variable};
use crate::source::wild;
use crate::template::{Piece, pieces};
use gaffer_core::job::{EnvInherit, Launch, Stdin};
use gaffer_core::name::JobId;
use std::collections::BTreeMap;

/// What is known of a run when it is started.
#[derive(Clone, Copy, Debug)]
pub struct RunContext<'a> {
    /// Name of the node.
    pub node: &'a str,
    /// The job.
    pub job: &'a JobId,
    /// Number of the instance; none for a one-off, which is instance 0.
    pub instance: Option<u32>,
    /// Run id as text.
    pub run: &'a str,
    /// Ordinal of the run in its slot.
    pub attempt: u32,
    /// Chosen ports by name; `port` goes by the empty name.
    pub ports: &'a BTreeMap<String, u16>,
    /// The daemon's own environment.
    pub base_env: &'a BTreeMap<String, String>,
    /// What `shell = true` is: `[gaffer] shell`.
    pub shell: &'a str,
    /// Of a step: the task that it belongs to.
    pub task: Option<&'a TaskRun<'a>>,
    /// Of a worker: the task that it is started for; none: it is a resident one, or no worker.
    pub queue: Option<&'a QueueRun<'a>>,
    /// Set by the engine on top of everything: `NOTIFY_SOCKET`, `WATCHDOG_USEC`, …
    pub added: &'a [(String, String)],
}

/// What a run of a step knows of its task.
#[derive(Clone, Copy)]
pub struct TaskRun<'a> {
    /// Name of the task.
    pub name: &'a str,
    /// Its id.
    pub id: &'a str,
    /// Its own directory.
    pub dir: &'a str,
    /// Name of the step.
    pub step: &'a str,
    /// Values of `{{params.N}}`.
    pub params: &'a BTreeMap<String, String>,
    /// Value of `{{steps.S.outputs.N}}` by `S` and `N`, of `{{steps.S.exit_code}}` by `S` and none.
    pub said: &'a dyn Fn(&str, Option<&str>) -> Option<String>,
}

/// What a worker knows of its queue and its task.
#[derive(Clone, Copy)]
pub struct QueueRun<'a> {
    /// Name of the queue.
    pub name: &'a str,
    /// The task; none: a resident worker, which is told later.
    pub id: Option<i64>,
    /// Its kind.
    pub kind: Option<&'a str>,
    /// The number that grows with every claim.
    pub token: u64,
    /// Value at a path of the payload; the whole one by the empty path.
    pub payload: &'a dyn Fn(&str) -> Option<String>,
}

impl std::fmt::Debug for QueueRun<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "task {:?} of queue {}", self.id, self.name)
    }
}

impl std::fmt::Debug for TaskRun<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "step {} of task {}", self.step, self.id)
    }
}

/// A launch with everything filled in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Expanded {
    /// Program and arguments: `wrap`, then `cmd`, or the shell with its script.
    pub argv: Vec<String>,
    /// Name shown to the program.
    pub argv0: Option<String>,
    /// The whole environment, sorted by name.
    pub env: Vec<(String, String)>,
    /// Working directory.
    pub cwd: String,
    /// Standard input with its path filled in.
    pub stdin: Stdin,
}

/// A start that cannot be: something has no value.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ExpandError {
    /// A file of variables of the job is not there, or cannot be read.
    #[error("{0}")]
    Unread(String),
    /// `$NAME` without a value.
    #[error("`${name}` in {place} has no value in the environment of the run")]
    NoVariable {
        /// The name.
        name: String,
        /// `cmd`, `env.PATH`, `cwd`, …
        place: String,
    },
    /// `{{…}}` that this run does not have.
    #[error("`{{{{{name}}}}}` in {place} is not known for this run")]
    NoReference {
        /// The reference.
        name: String,
        /// `cmd`, `env.PATH`, `cwd`, …
        place: String,
    },
    /// A `$` or `{{` that begins nothing.
    #[error("{text} in {place}")]
    Syntax {
        /// What is wrong.
        text: String,
        /// `cmd`, `env.PATH`, `cwd`, …
        place: String,
    },
    /// A NUL cannot be part of an argument, a variable or a path.
    #[error("{place} holds a NUL character")]
    Nul {
        /// Where.
        place: String,
    },
}

/// Variables of a service manager above the daemon, or of the shell that started it: they are about the daemon,
/// not about its jobs. `GAFFER_*` too: a token is among them.
const NEVER_INHERITED: &[&str] = &[
    "NOTIFY_SOCKET",
    "WATCHDOG_*",
    "LISTEN_*",
    "INVOCATION_ID",
    "JOURNAL_STREAM",
    "MAINPID",
    "SYSTEMD_EXEC_PID",
    "CREDENTIALS_DIRECTORY",
    "GAFFER_*",
    "INSTANCE",
    "PWD",
    "OLDPWD",
    "SHLVL",
    "_",
];

/// Fills in a launch for one run: builds the environment in layers, then the words.
pub fn expand(launch: &Launch, context: &RunContext<'_>) -> Result<Expanded, ExpandError> {
    if let Some(why) = &launch.unread {
        return Err(ExpandError::Unread(why.clone()));
    }
    let own = own_variables(context);
    let mut filler = Filler {
        launch,
        context,
        env: inherited(launch, context.base_env),
        own: &own,
    };
    for layer in &launch.env {
        let values: Vec<(String, String)> = layer
            .iter()
            .map(|(name, value)| {
                Ok((
                    name.clone(),
                    filler.fill(value, false, &|| format!("env.{name}"))?,
                ))
            })
            .collect::<Result<_, ExpandError>>()?;
        // All of a layer at once: its values see the layer below only.
        filler.env.extend(values);
    }
    if launch.pty {
        filler
            .env
            .entry("TERM".to_owned())
            .or_insert_with(|| "xterm-256color".to_owned());
    }
    let argv = argv(launch, &filler)?;
    let place = |name: &'static str| move || name.to_owned();
    let argv0 = launch
        .argv0
        .as_ref()
        .map(|text| filler.fill(text, false, &place("argv0")))
        .transpose()?;
    let cwd = filler.fill(&launch.cwd, false, &place("cwd"))?;
    if !cwd.starts_with('/') {
        let text = format!("`{cwd}` is not an absolute path");
        return Err(ExpandError::Syntax {
            text,
            place: "cwd".to_owned(),
        });
    }
    let stdin = match &launch.stdin {
        Stdin::File(path) => Stdin::File(filler.fill(path, false, &place("stdin"))?),
        other => other.clone(),
    };
    let mut env = filler.env;
    env.extend(own);
    env.extend(context.added.iter().cloned());
    if let Some((name, _)) = env
        .iter()
        .find(|(name, value)| name.contains(['\0', '=']) || value.contains('\0'))
    {
        return Err(ExpandError::Nul {
            place: format!("env.{}", name.escape_debug()),
        });
    }
    Ok(Expanded {
        argv,
        argv0,
        env: env.into_iter().collect(),
        cwd,
        stdin,
    })
}

fn argv(launch: &Launch, filler: &Filler<'_>) -> Result<Vec<String>, ExpandError> {
    let mut argv = Vec::with_capacity(launch.wrap.len() + launch.cmd.len() + 2);
    for word in &launch.wrap {
        argv.push(filler.fill(word, false, &|| "wrap".to_owned())?);
    }
    if let Some(shell) = launch.shell_or(filler.context.shell) {
        argv.push(shell.to_owned());
        argv.push("-c".to_owned());
    }
    let scripted = launch.shell.is_some();
    for word in &launch.cmd {
        argv.push(filler.fill(word, scripted, &|| "cmd".to_owned())?);
    }
    Ok(argv)
}

/// What the launch takes from the daemon.
fn inherited(launch: &Launch, base: &BTreeMap<String, String>) -> BTreeMap<String, String> {
    let any = |patterns: &[&str], name: &str| patterns.iter().any(|pattern| wild(pattern, name));
    let taken = |name: &str| match &launch.env_inherit {
        EnvInherit::None => false,
        EnvInherit::Base => any(BASE_VARIABLES, name),
        EnvInherit::All => !any(NEVER_INHERITED, name),
        EnvInherit::Patterns(patterns) => {
            // A name written in full is meant.
            patterns.iter().any(|pattern| pattern == name)
                || (patterns.iter().any(|pattern| wild(pattern, name)) && !any(NEVER_INHERITED, name))
        }
    };
    let mut env: BTreeMap<String, String> = base
        .iter()
        .filter(|(name, _)| taken(name))
        .map(|(name, value)| (name.clone(), value.clone()))
        .collect();
    if launch.env_inherit == EnvInherit::None {
        return env;
    }
    for name in USER_VARIABLES {
        let value = match &launch.user {
            Some(user) => Some(match *name {
                "HOME" => user.home.clone(),
                "SHELL" => user.shell.clone(),
                _ => user.name.clone(),
            }),
            None => base.get(*name).cloned(),
        };
        if let Some(value) = value {
            env.insert((*name).to_owned(), value);
        }
    }
    env
}

/// Variables that gaffer sets on top.
fn own_variables(context: &RunContext<'_>) -> BTreeMap<String, String> {
    let mut own = BTreeMap::from([
        ("GAFFER_NODE".to_owned(), context.node.to_owned()),
        ("GAFFER_SESSION".to_owned(), context.job.session.to_string()),
        ("GAFFER_RUN".to_owned(), context.run.to_owned()),
        ("GAFFER_ATTEMPT".to_owned(), context.attempt.to_string()),
    ]);
    if let Some(queue) = context.queue {
        own.insert("GAFFER_QUEUE".to_owned(), queue.name.to_owned());
        if let Some(id) = queue.id {
            own.insert("GAFFER_TASK".to_owned(), id.to_string());
            own.insert("GAFFER_TOKEN".to_owned(), queue.token.to_string());
        }
        if let Some(kind) = queue.kind {
            own.insert("GAFFER_KIND".to_owned(), kind.to_owned());
        }
    }
    match context.task {
        None if context.queue.is_some() => {}
        Some(task) => {
            own.insert("GAFFER_TASK".to_owned(), task.id.to_owned());
            own.insert("GAFFER_STEP".to_owned(), task.step.to_owned());
        }
        None => {
            let instance = context.instance.unwrap_or(0).to_string();
            own.insert("INSTANCE".to_owned(), instance.clone());
            own.insert("GAFFER_INSTANCE".to_owned(), instance);
            own.insert("GAFFER_JOB".to_owned(), context.job.job.to_string());
        }
    }
    for (name, port) in context.ports {
        let variable = if name.is_empty() {
            "PORT".to_owned()
        } else {
            port_variable(name)
        };
        own.insert(variable, port.to_string());
    }
    own
}

struct Filler<'a> {
    launch: &'a Launch,
    context: &'a RunContext<'a>,
    /// Layers so far.
    env: BTreeMap<String, String>,
    own: &'a BTreeMap<String, String>,
}

impl Filler<'_> {
    fn variable(&self, name: &str) -> Option<&str> {
        let added = || {
            self.context
                .added
                .iter()
                .rev()
                .find(|(known, _)| known == name)
                .map(|(_, value)| value)
        };
        let value = added()
            .or_else(|| self.own.get(name))
            .or_else(|| self.env.get(name));
        value.map(String::as_str)
    }

    fn reference(&self, name: &str) -> Option<String> {
        let context = self.context;
        if let Some(queue) = context.queue {
            match name {
                "queue" => return Some(queue.name.to_owned()),
                "kind" => return Some(queue.kind.unwrap_or_default().to_owned()),
                "task.id" => return queue.id.map(|id| id.to_string()),
                "payload" => return (queue.payload)(""),
                "job" | "instance" => return None,
                _ => {}
            }
            if let Some(path) = name.strip_prefix("payload.") {
                return (queue.payload)(path);
            }
        }
        if let Some(task) = context.task {
            match name {
                "task.name" => return Some(task.name.to_owned()),
                "task.id" => return Some(task.id.to_owned()),
                "task.dir" => return Some(task.dir.to_owned()),
                "step" => return Some(task.step.to_owned()),
                "job" | "instance" => return None,
                _ => {}
            }
            if let Some(param) = name.strip_prefix("params.") {
                return task.params.get(param).cloned();
            }
            if let Some(rest) = name.strip_prefix("steps.") {
                return match rest.splitn(3, '.').collect::<Vec<_>>()[..] {
                    [step, "outputs", name] => (task.said)(step, Some(name)),
                    [step, "exit_code"] => (task.said)(step, None),
                    _ => None,
                };
            }
        }
        Some(match name {
            "session" => context.job.session.to_string(),
            "job" => context.job.job.to_string(),
            "instance" => context.instance.unwrap_or(0).to_string(),
            "node" => context.node.to_owned(),
            "run" => context.run.to_owned(),
            "attempt" => context.attempt.to_string(),
            "user" => match &self.launch.user {
                Some(user) => user.name.clone(),
                None => context
                    .base_env
                    .get("USER")
                    .or_else(|| context.base_env.get("LOGNAME"))?
                    .clone(),
            },
            _ => context.ports.get(name.strip_prefix("ports.")?)?.to_string(),
        })
    }

    fn fill(&self, text: &str, scripted: bool, place: &dyn Fn() -> String) -> Result<String, ExpandError> {
        let list = pieces(text, scripted).map_err(|text| ExpandError::Syntax { text, place: place() })?;
        let mut out = String::with_capacity(text.len());
        for piece in list {
            match piece {
                Piece::Text(text) => out.push_str(text),
                Piece::Literal(text) => {
                    out.push_str("{{");
                    out.push_str(text);
                    out.push_str("}}");
                }
                Piece::Variable { name, otherwise } => {
                    let value = self
                        .variable(name)
                        .filter(|value| otherwise.is_none() || !value.is_empty());
                    match value.or(otherwise) {
                        Some(value) => out.push_str(value),
                        None => {
                            return Err(ExpandError::NoVariable {
                                name: name.to_owned(),
                                place: place(),
                            });
                        }
                    }
                }
                Piece::Reference(reference) => {
                    let unknown = || ExpandError::NoReference {
                        name: reference.name.to_owned(),
                        place: place(),
                    };
                    let value = self.reference(reference.name).ok_or_else(unknown)?;
                    let text = reference.format(&value);
                    out.push_str(&text.map_err(|text| ExpandError::Syntax { text, place: place() })?);
                }
            }
        }
        if out.contains('\0') {
            return Err(ExpandError::Nul { place: place() });
        }
        Ok(out)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use gaffer_core::job::User;

    fn base() -> BTreeMap<String, String> {
        [
            ("PATH", "/bin"),
            ("LC_ALL", "C"),
            ("HOME", "/root"),
            ("USER", "root"),
            ("SECRET", "s"),
            ("NOTIFY_SOCKET", "/n"),
            ("GAFFER_TOKEN", "t"),
        ]
        .map(|(name, value)| (name.to_owned(), value.to_owned()))
        .into()
    }

    fn run(launch: &Launch) -> Result<Expanded, ExpandError> {
        let (base, job) = (base(), JobId::parse("shop.web").unwrap());
        let ports = BTreeMap::from([(String::new(), 5000), ("admin-ui".to_owned(), 6000)]);
        let added = [("NOTIFY_SOCKET".to_owned(), "/mine".to_owned())];
        let context = RunContext {
            node: "alpha",
            job: &job,
            instance: Some(2),
            run: "1115",
            attempt: 3,
            ports: &ports,
            base_env: &base,
            shell: "/bin/sh",
            task: None,
            queue: None,
            added: &added,
        };
        expand(launch, &context)
    }

    fn words(words: &[&str]) -> Vec<String> {
        words.iter().map(|word| (*word).to_owned()).collect()
    }

    fn value<'a>(expanded: &'a Expanded, name: &str) -> Option<&'a str> {
        expanded
            .env
            .iter()
            .find(|(known, _)| known == name)
            .map(|(_, value)| value.as_str())
    }

    #[test]
    fn hazard_08_the_environment_is_built_not_copied() {
        let expanded = run(&Launch::of(words(&["x"]))).unwrap();
        assert_eq!(value(&expanded, "PATH"), Some("/bin"));
        assert_eq!(value(&expanded, "LC_ALL"), Some("C"));
        assert_eq!(value(&expanded, "HOME"), Some("/root"));
        assert_eq!(value(&expanded, "SECRET"), None);
        assert_eq!(value(&expanded, "GAFFER_TOKEN"), None);
        assert_eq!(value(&expanded, "NOTIFY_SOCKET"), Some("/mine"));
        assert_eq!(value(&expanded, "PORT"), Some("5000"));
        assert_eq!(value(&expanded, "PORT_ADMIN_UI"), Some("6000"));
        assert_eq!(value(&expanded, "GAFFER_ATTEMPT"), Some("3"));
        let all = Launch {
            env_inherit: EnvInherit::All,
            ..Launch::of(words(&["x"]))
        };
        let expanded = run(&all).unwrap();
        assert_eq!(value(&expanded, "SECRET"), Some("s"));
        assert_eq!(value(&expanded, "GAFFER_TOKEN"), None);
        let none = Launch {
            env_inherit: EnvInherit::None,
            ..Launch::of(words(&["x"]))
        };
        assert_eq!(value(&run(&none).unwrap(), "PATH"), None);
        assert_eq!(value(&run(&none).unwrap(), "HOME"), None);
    }

    #[test]
    fn a_value_sees_the_layer_below() {
        let mut launch = Launch::of(words(&[
            "$A",
            "${B:-none}",
            "$$",
            "{{instance-1:02}}",
            "{{&job}}",
            "{{ports.admin-ui}}",
        ]));
        let layer = |pairs: &[(&str, &str)]| {
            pairs
                .iter()
                .map(|(a, b)| ((*a).to_owned(), (*b).to_owned()))
                .collect()
        };
        launch.env = vec![
            layer(&[("A", "1")]),
            layer(&[("A", "$A-$PORT-{{job}}"), ("PATH", "/x:$PATH")]),
        ];
        let expanded = run(&launch).unwrap();
        assert_eq!(
            expanded.argv,
            ["1-5000-web", "none", "$", "01", "{{job}}", "6000"]
        );
        assert_eq!(value(&expanded, "PATH"), Some("/x:/bin"));
    }

    #[test]
    fn what_has_no_value_fails_with_its_name_and_place() {
        let error = run(&Launch::of(words(&["x", "$NOPE"]))).unwrap_err();
        assert_eq!(
            error.to_string(),
            "`$NOPE` in cmd has no value in the environment of the run"
        );
        let error = run(&Launch::of(words(&["{{ports.nope}}"]))).unwrap_err();
        assert_eq!(
            error.to_string(),
            "`{{ports.nope}}` in cmd is not known for this run"
        );
    }

    #[test]
    fn a_script_keeps_its_dollars() {
        let mut launch = Launch::of(words(&["echo $A {{instance}} $$"]));
        launch.shell = Some("bash".to_owned());
        launch.wrap = words(&["nice", "-n5"]);
        assert_eq!(
            run(&launch).unwrap().argv,
            ["nice", "-n5", "bash", "-c", "echo $A 2 $$"]
        );
    }

    #[test]
    fn a_shell_without_a_name_is_that_of_the_daemon() {
        let mut launch = Launch::of(words(&["true"]));
        launch.shell = Some(String::new());
        assert_eq!(run(&launch).unwrap().argv, ["/bin/sh", "-c", "true"]);
    }

    #[test]
    fn home_follows_the_user() {
        let mut launch = Launch::of(words(&["{{user}}"]));
        launch.user = Some(User {
            name: "ana".to_owned(),
            uid: 7,
            gid: 7,
            groups: Vec::new(),
            home: "/home/ana".to_owned(),
            shell: "/bin/zsh".to_owned(),
        });
        let expanded = run(&launch).unwrap();
        assert_eq!(expanded.argv, ["ana"]);
        assert_eq!(value(&expanded, "HOME"), Some("/home/ana"));
        assert_eq!(value(&expanded, "LOGNAME"), Some("ana"));
    }

    #[test]
    fn what_is_escaped_comes_out_as_it_was() {
        for text in [
            "$HOME", "{{job}}", "100%", "$", "{{&x}}", "{{{x}}}", "}}{{", "${A:-b}", "$$",
        ] {
            let escaped = crate::template::escape_templates(text);
            let expanded = run(&Launch::of(vec![escaped])).unwrap();
            assert_eq!(expanded.argv, [text]);
        }
    }
}
