//! What `gaffer help` says: the first screen, the topics, the examples of each command, and the reference page.

use crate::args::Cli;
use crate::failure::Failure;
use clap::{Command, CommandFactory};
use gaffer_config::nearest;
use std::fmt::Write as _;

/// The first screen.
pub const MAIN: &str = include_str!("topics/main.txt");

/// Topics of `gaffer help TOPIC`.
pub const TOPICS: [(&str, &str); 7] = [
    ("options", include_str!("topics/options.txt")),
    ("targets", include_str!("topics/targets.txt")),
    ("config", include_str!("topics/config.txt")),
    ("exit-codes", include_str!("topics/exit-codes.txt")),
    ("templates", include_str!("topics/templates.txt")),
    ("events", include_str!("topics/events.txt")),
    ("old-commands", include_str!("topics/old-commands.txt")),
];

/// Commands that exist in the design and come with later versions.
pub const LATER: [&str; 4] = ["top", "open", "import", "gc"];

/// Options that exist in the design and come with what they need.
const LATER_OPTIONS: [&str; 1] = ["--pin"];

/// Examples of `start`.
pub const START: &str = "\
Without a target the file in front of you runs here, on a private daemon that ends with it.
With targets the daemon of this node is asked to start them; a failed job's counters are reset.

Examples:
  gaffer start                      run gaffer.toml, else Procfile; Ctrl-C stops all
  gaffer start --profile dev        with a profile laid over it
  gaffer start -c worker=2 -E x=1   with two workers and a variable
  gaffer start web worker           ask the daemon to start these";
/// Examples of `dev`.
pub const DEV: &str = "\
Examples:
  gaffer dev                        the whole file, like gaffer start
  gaffer dev web                    only web, and what it waits for
  gaffer dev --stop-on failure      end everything when something fails";
/// Examples of `run`.
pub const RUN: &str = "\
The exit code is that of the program, or 128 + its signal.

Examples:
  gaffer run web -- rake db:seed    the definition of web, once, with these arguments
  gaffer run web -p LOG=debug       with another environment
  gaffer run -- make test           any command here, contained; nothing stays behind";
/// Examples of `job start`.
pub const START_JOB: &str = "\
Examples:
  gaffer job start web              the same as gaffer start web";
/// Examples of `stop`.
pub const STOP: &str = "\
A stop ends when everything is gone: the whole tree gets the signal, then KILL after stop.timeout.

Examples:
  gaffer stop web                   and it stays stopped, also over a restart of the daemon
  gaffer stop web.2 worker          one instance, and another job
  gaffer stop shop. --grace 2s      all jobs of session shop, KILL after two seconds";
/// Examples of `reload`.
pub const RELOAD: &str = "\
Examples:
  gaffer reload web                 as reload.how says; if a new run fails, the old ones stay
  gaffer reload web --how rolling   one after the other";
/// Examples of `scale`.
pub const SCALE: &str = "\
Examples:
  gaffer scale web=4                four instances
  gaffer scale web=+1 worker=-1     one more, one fewer
  gaffer scale web --auto           back to what the file says
  gaffer scale queue:mail=8         eight workers of a queue, also after a restart";
/// Examples of `signal`.
pub const SIGNAL: &str = "\
Examples:
  gaffer signal HUP web             to the main process of each instance
  gaffer signal USR1 web.2 --all-processes
  gaffer signal TERM @1115          to one run";
/// Examples of `send`.
pub const SEND: &str = "\
The job needs stdin = \"pipe\". The text goes out with a newline.

Examples:
  gaffer send repl 'print(1)'
  gaffer send importer - < data.csv";
/// Examples of `ps`.
pub const PS: &str = "\
Columns: session job state pid up cpu mem restarts reason run wish attempt started processes next number

Examples:
  gaffer ps                         the current session
  gaffer ps -w                      redrawn when something changes
  gaffer ps --session '*' --sort -mem
  gaffer ps --json | jq -r '.[] | select(.state != \"running\") | .job'";
/// Examples of `logs`.
pub const LOGS: &str = "\
Signs: | standard output   ! standard error   ─ what happened to it

Examples:
  gaffer logs -f web                the last 100 lines and what comes
  gaffer logs --since 10m --grep timeout
  gaffer logs --run @1115           all that one run wrote
  gaffer logs web --format raw      its bytes, exactly";
/// Examples of `wait`.
pub const WAIT: &str = "\
States: ready (default), running, stopped, done, empty. Exit code 1 with the reason if it cannot become so.

Examples:
  gaffer wait web --timeout 30s     until every instance is ready
  gaffer wait migrate=done          until it has ended well
  gaffer wait queue:thumbs=empty    until no task of a queue waits or runs
  gaffer wait op-12                 until an operation is over";
/// Examples of `events`.
pub const EVENTS: &str = "\
Examples:
  gaffer events -f --filter 'run.*'
  gaffer events web --since 1h --json";
/// Examples of `webhook`.
pub const WEBHOOK: &str = "\
Webhooks are written in a file: [webhook.NAME] with `url`; see docs/webhooks.md.

Examples:
  gaffer webhook ls
  gaffer webhook show ops
  gaffer webhook test ops           send one event now, exit 1 if it is not taken";
/// Examples of `apply`.
pub const APPLY: &str = "\
Only what changed is changed; a file with errors changes nothing.

Examples:
  gaffer plan; gaffer apply         look, then do
  gaffer apply --plan 7f3a19c2      exactly what was looked at, else exit 4
  gaffer apply -y                   without asking, also if jobs are removed";
/// Examples of `restart`.
pub const RESTART: &str =
    "As a stop, then a start: for a job that cannot run twice at once. Without a gap: gaffer reload.

Examples:
  gaffer restart web                returns when the new runs are ready
  gaffer restart web.2              only this instance
  gaffer restart shop. --force      KILL first, all jobs of session shop";
/// Examples of `pause`.
pub const PAUSE: &str =
    "The processes are frozen where they stand; nothing of them runs until they are thawed.

Examples:
  gaffer pause worker
  gaffer pause --all                all jobs of the session";
/// Examples of `resume`.
pub const RESUME: &str = "Examples:
  gaffer resume worker
  gaffer resume --all";
/// Examples of `attach`.
pub const ATTACH: &str = "With pty = true the program has a terminal of its own, and this becomes it. Otherwise its output is shown,
and lines typed go to its standard input if it has stdin = \"pipe\".

Examples:
  gaffer attach repl                Ctrl-] d leaves it running
  gaffer attach web.2 --read-only   only look
  echo 'print(1)' | gaffer attach repl";
/// Examples of `job`.
pub const JOB: &str = "The everyday verbs need no noun: gaffer stop web is gaffer job stop web.

Examples:
  gaffer job show web               state, and the definition that is in force
  gaffer job add tick -- sh -c 'while sleep 5; do date; done'
  gaffer job set tick instances=2
  gaffer job rm tick";
/// Examples of `job ls`.
pub const JOB_LS: &str = "Examples:
  gaffer job ls                     the same as gaffer ps";
/// Examples of `job show`.
pub const JOB_SHOW: &str = "Examples:
  gaffer job show web
  gaffer job show web --json | jq .spec";
/// Examples of `job add`.
pub const JOB_ADD: &str = "The job is kept by the daemon, without a file, until it is removed.

Examples:
  gaffer job add tick -- sleep 1000
  gaffer job add web -n 2 --env LOG=debug --cwd /srv/web -- python3 web.py
  gaffer job add api --set port=auto --set stop.timeout=20s -- ./api";
/// Examples of `job set`.
pub const JOB_SET: &str = "Only jobs made without a file: one of a file is changed there, and applied.

Examples:
  gaffer job set tick instances=3 stop.timeout=20s
  gaffer job set tick env.LOG=debug
  gaffer job set tick env.LOG=      removes it";
/// Examples of `job rm`.
pub const JOB_RM: &str = "Asks before; -y answers. Output and death records stay for a while.

Examples:
  gaffer job rm tick -y";
/// Examples of `why`.
pub const WHY: &str = "Each line is how one run ended, newest first; below it the last lines that it wrote.

Examples:
  gaffer why                        all jobs of the session
  gaffer why web.2 -n 3             the last three ends of this instance
  gaffer why --run @1115            one run";
/// Examples of `check`.
pub const CHECK: &str = "Exit code 0: no errors, 2: errors, each with its place. Needs no daemon.

Examples:
  gaffer check                      gaffer.toml, else Procfile, here or above
  gaffer check --strict shop.toml
  gaffer check --profile prod";
/// Examples of `plan`.
pub const PLAN: &str = "Nothing is changed. The hash names exactly this change: gaffer apply --plan HASH.

Examples:
  gaffer plan
  gaffer plan --exit-code           for scripts: 1 if there is something to do
  gaffer plan --json | jq .changes";
/// Examples of `init`.
pub const INIT: &str = "Looks for a Procfile and for what programs of this kind are usually started with.

Examples:
  gaffer init                       writes ./gaffer.toml; one that is there stays
  gaffer init --print               only shows it";
/// Examples of `export`.
pub const EXPORT: &str = "What the other form cannot say stands in it as a comment.

Examples:
  gaffer export --to systemd -o shop.service
  gaffer export web --to json
  gaffer export -f Procfile > gaffer.toml";
/// Examples of `doctor`.
pub const DOCTOR: &str = "Works without a daemon too. Exit code 1 if something is bad, 69 without a daemon.

Examples:
  gaffer doctor
  gaffer doctor --chaos             does it keep its promise on this machine?
  gaffer doctor --json | jq '.checks[] | select(.state != \"good\")'";
/// Examples of `lookup`.
pub const LOOKUP: &str = "\
Services are named by --lookup (or -L), several times or with commas; all are taken together.

Examples:
  gaffer lookup ls -L http://10.0.0.7:5010
  gaffer lookup watch -L http://10.0.0.7:5010";
/// Examples of `lookup ls`.
pub const LOOKUP_LS: &str = "Examples:
  gaffer lookup ls -L http://10.0.0.7:5010
  gaffer lookup ls -L http://10.0.0.7:5010 --json | jq -r '.[].node'";
/// Examples of `lookup watch`.
pub const LOOKUP_WATCH: &str = "Examples:
  gaffer lookup watch -L http://10.0.0.7:5010
  gaffer lookup watch -L unix:/run/l.sock --format jsonl | jq 'select(.event == \"remove_node\")'";
/// Examples of `node`.
pub const NODE: &str = "\
Your own file is $GAFFER_CONFIG, else ~/.config/gaffer/config.toml. With --lookup (-L) the nodes are those of the service.

Examples:
  gaffer node add alpha http://10.0.1.1:5000
  gaffer node ls
  gaffer ps --all-nodes";
/// Examples of `node ls`.
pub const NODE_LS: &str = "Examples:
  gaffer node ls
  gaffer node ls -L http://10.0.0.7:5010 --label zone=eu
  gaffer node ls --json | jq -r '.[] | select(.status != \"ok\").node'";
/// Examples of `node show`.
pub const NODE_SHOW: &str = "Examples:
  gaffer node show alpha
  gaffer node show alpha -L http://10.0.0.7:5010";
/// Examples of `node add`.
pub const NODE_ADD: &str = "\
--token-file names the file with the token that it takes, --cacert that of the authorities of its certificate;
--label, repeatable, is what to choose it by.

Examples:
  gaffer node add alpha https://10.0.1.1:5000 --label zone=eu
  gaffer node add beta https://10.0.1.2:5000 --token-file ~/.config/gaffer/beta.token --cacert ca.pem";
/// Examples of `node drain`.
pub const NODE_DRAIN: &str = "\
Queues claim nothing, schedules do nothing, and what would be something new is refused. Tasks go on to their end, or to
--deadline; then all jobs stop in order. Wishes stay: --undo lets them count again. It holds over restarts of the daemon.

Examples:
  gaffer node drain --deadline 10m
  gaffer node drain alpha --no-wait
  gaffer node drain --undo";
/// Examples of `node rm`.
pub const NODE_RM: &str = "Examples:
  gaffer node rm alpha";
/// Examples of `daemon`.
pub const DAEMON: &str = "Examples:
  gaffer daemon start               in the background, for this user
  gaffer daemon start -c gaffer.toml
  gaffer daemon stop --keep-running ends it; programs go on
  gaffer daemon restart             a new one takes charge; programs go on
  gaffer daemon install --print     a systemd unit";
/// Examples of `daemon start`.
pub const DAEMON_START: &str =
    "Comes back when it serves. Programs that an earlier daemon left running are taken charge of.

Examples:
  gaffer daemon start
  gaffer daemon start -c gaffer.toml
  gaffer daemon start --bind none   only the control socket";
/// Examples of `daemon stop`.
pub const DAEMON_STOP: &str = "Comes back when it has ended. Ctrl-C stops waiting, not the daemon.

Examples:
  gaffer daemon stop                all jobs are stopped, dependents first
  gaffer daemon stop --keep-running programs go on; the next daemon takes charge of them";
/// Examples of `daemon restart`.
pub const DAEMON_RESTART: &str = "Programs go on meanwhile; nothing that they write and no exit is lost.

Examples:
  gaffer daemon restart             with the file and addresses it has now
  gaffer daemon restart --bind 127.0.0.1:5001";
/// Examples of `daemon reload`.
pub const DAEMON_RELOAD: &str = "What changed in its file is applied; a file with errors changes nothing.

Examples:
  gaffer daemon reload              of a daemon started with -c FILE";
/// Examples of `daemon upgrade`.
pub const DAEMON_UPGRADE: &str = "Examples:
  cargo install …; gaffer daemon upgrade";
/// Examples of `daemon status`.
pub const DAEMON_STATUS: &str = "Examples:
  gaffer daemon status
  gaffer daemon status --json | jq .pid";
/// Examples of `daemon dial`.
pub const DAEMON_DIAL: &str =
    "What ssh:// nodes run on their machine; after one line of greeting, all is HTTP.

Examples:
  gaffer node add alpha ssh://ana@10.0.0.7      then gaffer runs:
  ssh -T -l ana -- 10.0.0.7 'exec gaffer daemon dial'";
/// Examples of `daemon install`.
pub const DAEMON_INSTALL: &str = "Examples:
  gaffer daemon install --print     look at it first
  gaffer daemon install             /etc/systemd/system/gafferd.service
  gaffer daemon install --user      for this user, without root";
/// Examples of `completions`.
pub const COMPLETIONS: &str = "Examples:
  gaffer completions bash > ~/.local/share/bash-completion/completions/gaffer
  gaffer completions zsh > ~/.zfunc/_gaffer
  gaffer completions fish > ~/.config/fish/completions/gaffer.fish";
/// Examples of `man`.
pub const MAN: &str = "Examples:
  gaffer man | man -l -";
/// Examples of `help`.
pub const HELP_CMD: &str = "Examples:
  gaffer help logs
  gaffer help job add
  gaffer help targets";

/// The command line as clap knows it, with our first screen.
pub fn command() -> Command {
    let names: Vec<String> = Cli::command()
        .get_subcommands()
        .map(|inner| inner.get_name().to_owned())
        .collect();
    names
        .into_iter()
        .fold(Cli::command().override_help(MAIN), |root, name| {
            root.mut_subcommand(name, with_more)
        })
}

/// Help that ends with where the rest is: the same dozen options on every screen would hide what matters.
fn with_more(command: Command) -> Command {
    let names: Vec<String> = command
        .get_subcommands()
        .map(|inner| inner.get_name().to_owned())
        .collect();
    let command = names
        .into_iter()
        .fold(command, |command, name| command.mut_subcommand(name, with_more));
    let before = command
        .get_after_help()
        .map(|text| format!("{text}\n\n"))
        .unwrap_or_default();
    command.after_help(format!("{before}Options of every command: gaffer help options"))
}

/// The text for `gaffer help TOPIC…`.
pub fn topic(words: &[String]) -> Result<String, Failure> {
    let Some(first) = words.first() else {
        return Ok(MAIN.to_owned());
    };
    if let Some((_, text)) = TOPICS.iter().find(|(name, _)| name == first) {
        return Ok((*text).to_owned());
    }
    let mut root = command();
    // Global options belong into the help of every command.
    root.build();
    let mut found = &mut root;
    for word in words {
        found = match found.find_subcommand_mut(word) {
            Some(command) => command,
            None => return Err(unknown_topic(word)),
        };
    }
    Ok(found.clone().render_help().to_string())
}

fn unknown_topic(word: &str) -> Failure {
    if LATER.contains(&word) {
        return later(word);
    }
    let commands = names();
    let known = commands
        .iter()
        .map(String::as_str)
        .chain(TOPICS.iter().map(|(name, _)| *name));
    let guess = nearest(word, known)
        .map(|near| format!("did you mean `gaffer help {near}`?"))
        .unwrap_or_default();
    Failure::usage(format!("there is no command and no topic `{word}`"))
        .hint_pair(&guess, "all commands:  gaffer help")
}

/// Names of all commands that are shown.
pub fn names() -> Vec<String> {
    Cli::command()
        .get_subcommands()
        .filter(|command| !command.is_hide_set())
        .map(|command| command.get_name().to_owned())
        .collect()
}

/// A command that nobody knows (yet).
pub fn unknown_command(word: &str) -> Failure {
    let noun = word.split(':').next().unwrap_or(word);
    if LATER.contains(&noun) {
        return later(word);
    }
    let names = names();
    let guess = nearest(word, names.iter().map(String::as_str))
        .map(|near| format!("did you mean `gaffer {near}`?"))
        .unwrap_or_default();
    Failure::usage(format!(
        "there is no command `gaffer {}`",
        crate::escape::escape(word)
    ))
    .hint_pair(&guess, "all commands:  gaffer help")
}

/// The answer to an option of the design that is not there yet, if that is what was wrong.
pub fn later_option(error: &clap::Error) -> Option<Failure> {
    use clap::error::{ContextKind, ContextValue, ErrorKind};
    if error.kind() != ErrorKind::UnknownArgument {
        return None;
    }
    let Some(ContextValue::String(option)) = error.get(ContextKind::InvalidArg) else {
        return None;
    };
    let name = option.split(['=', ' ']).next().unwrap_or_default();
    LATER_OPTIONS.contains(&name).then(|| {
        Failure::usage(format!("`{name}` comes with a later version"))
            .hint("what there is now: the same command with --help")
    })
}

fn later(word: &str) -> Failure {
    Failure::usage(format!("`gaffer {word}` comes with a later version"))
        .hint("what there is now:  gaffer help")
}

/// The reference page: every help text, in Markdown.
pub fn reference() -> String {
    let mut page = String::from("# Command line\n\nGenerated by `gaffer help --reference`; do not edit.\n\n");
    // Writing into a string cannot fail.
    let _ = writeln!(page, "```text\n{}```\n", MAIN);
    let mut root = command();
    root.build();
    for command in root.get_subcommands().filter(|command| !command.is_hide_set()) {
        section(&mut page, command, "gaffer", 2);
    }
    for (name, text) in TOPICS {
        let _ = writeln!(page, "## Topic: {name}\n\n```text\n{text}```\n");
    }
    page
}

fn section(page: &mut String, command: &Command, parent: &str, level: usize) {
    let name = format!("{parent} {}", command.get_name());
    let text = command.clone().term_width(100).render_help().to_string();
    let text: Vec<&str> = text.lines().map(str::trim_end).collect();
    let _ = writeln!(
        page,
        "{} {name}\n\n```text\n{}\n```\n",
        "#".repeat(level),
        text.join("\n").trim_end()
    );
    for inner in command
        .get_subcommands()
        .filter(|inner| !inner.is_hide_set() && inner.get_name() != "help")
    {
        section(page, inner, &name, level + 1);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_screen_names_every_command() {
        for name in names() {
            assert!(
                MAIN.split(|c: char| !c.is_ascii_alphanumeric() && c != '-')
                    .any(|word| word == name),
                "`{name}` is missing"
            );
        }
    }

    #[test]
    fn the_first_screen_and_the_topics_fit_a_terminal() {
        for (name, text) in TOPICS.iter().chain(&[("main", MAIN)]) {
            for line in text.lines() {
                assert!(line.chars().count() <= 80, "{name}: {line}");
            }
        }
    }

    #[test]
    fn a_later_command_is_named_as_such() {
        assert_eq!(
            unknown_command("import").message,
            "`gaffer import` comes with a later version"
        );
        assert_eq!(unknown_command("key:create").exit, 2);
    }

    #[test]
    fn a_typo_gets_the_sentence_of_the_design() {
        let failure = unknown_command("resart");
        assert_eq!(failure.message, "there is no command `gaffer resart`");
        assert_eq!(
            failure.hints,
            ["did you mean `gaffer restart`?          all commands:  gaffer help"]
        );
    }

    #[test]
    fn no_command_is_both_there_and_later() {
        assert!(names().iter().all(|name| !LATER.contains(&name.as_str())));
    }
}
