//! Procfile, gaffer.ini and JSON job files.

mod fixture;

use fixture::{ROOT, bundle};
use gaffer_config::{Bundle, Config, load};
use gaffer_core::job::{EnvInherit, Output, Port, Stdin};
use gaffer_core::name::JobId;
use std::time::Duration;

fn read(files: &[(&str, &str)]) -> Config {
    load(&bundle(files), &ROOT).unwrap_or_else(|error| panic!("{error}"))
}

fn said(name: &str, text: &str) -> String {
    match load(&bundle(&[(name, text)]), &ROOT) {
        Ok(config) => config.warnings.iter().map(|one| one.render(false)).collect(),
        Err(error) => error.render(false),
    }
}

fn job<'a>(config: &'a Config, name: &str) -> &'a gaffer_core::job::Job {
    &config.jobs[&JobId::parse(name).unwrap()].spec
}

#[test]
fn a_procfile_keeps_its_order_and_gets_the_environment_and_the_folders_name() {
    let text = "# shop\nweb: python3 web.py --name 'a b' {{x}}\n\nworker:\tpython3 worker.py $GAFFER_JOB\r\n";
    let config = read(&[
        ("Procfile", text),
        (".env", "A=1\nGAFFER_REDIRECT_INPUT=worker other\n"),
    ]);
    assert_eq!(config.session.as_str(), "app");
    let web = job(&config, "app.web");
    assert_eq!(web.launch.cmd, ["python3", "web.py", "--name", "a b", "{{&x}}"]);
    assert_eq!(
        (&web.launch.env_inherit, web.priority, web.launch.port),
        (&EnvInherit::All, 0, None)
    );
    assert_eq!(web.launch.env[0][0], ("A".to_owned(), "1".to_owned()));
    assert_eq!(web.launch.stdin, Stdin::Null);
    let worker = job(&config, "app.worker");
    assert_eq!((worker.priority, &worker.launch.stdin), (1, &Stdin::Pipe));
    assert_eq!(worker.launch.cwd, "/app");
}

#[test]
fn ports_of_a_procfile_are_a_hundred_apart() {
    let bundle = Bundle {
        base_port: Some(5000),
        ..bundle(&[("Procfile", "a: x $PORT\nb: y\n")])
    };
    let config = load(&bundle, &ROOT).unwrap();
    assert_eq!(job(&config, "app.a").launch.port, Some(Port::Fixed(5000)));
    assert_eq!(job(&config, "app.b").launch.port, Some(Port::Fixed(5100)));
    assert!(config.warnings.is_empty());
}

#[test]
fn a_wrong_procfile_is_told_line_by_line() {
    let text = "web\tpython3 web.py\n\tworker: x\nclock : y\nnothing here\nempty:\na: x\na: y\nb.c: z\n";
    assert_eq!(
        said("Procfile", text),
        "error: a tab follows `web`
  ┌─ Procfile:1:4
 1│ web python3 web.py
  │    ^ write `web: …`: a colon belongs there
error: the line begins with a tab
  ┌─ Procfile:2:1
 2│  worker: x
  │ ^ begin it with the name
error: a blank stands before the colon
  ┌─ Procfile:3:6
 3│ clock : y
  │      ^ write `clock: …`
error: the line has no colon after its name
  ┌─ Procfile:4:1
 4│ nothing here
  │ ^^^^^^^ write `name: command`
error: `empty` has no command
  ┌─ Procfile:5:1
 5│ empty:
  │ ^^^^^^ write what to run after the colon
error: `a` stands there twice
  ┌─ Procfile:7:1
 7│ a: y
  │ ^ each name once
error: `.` cannot be part of a name
  ┌─ Procfile:8:2
 8│ b.c: z
  │  ^ use letters, digits, `_` and `-`
"
    );
    assert!(
        said("Procfile", "a: it's\n")
            .contains("`cmd` cannot be split: a single quote is not closed\n  ┌─ Procfile:1:4")
    );
    assert!(said("Procfile", "# nothing\n").contains("there is no line `name: command` in it"));
}

#[test]
fn odd_lines_of_a_procfile_are_warned_about() {
    let text = "release: bin/migrate\na: cd x && y\nb: K=v prog\nc: prog -p $PORT\n";
    assert_eq!(
        said("Procfile", text),
        "warning: `&&` is passed to the program as a word: no shell runs this line
  ┌─ Procfile:2:4
 2│ a: cd x && y
  │    ^^^^^^^^^ write sh -c '…'
warning: no shell runs this line: a variable cannot be set in front
  ┌─ Procfile:3:4
 3│ b: K=v prog
  │    ^^^^^^^^ write env NAME=value program, or put it into .env
warning: `$PORT` comes from the environment or .env
  ┌─ Procfile:4:4
 4│ c: prog -p $PORT
  │    ^^^^^^^^^^^^^ gaffer gives ports with --port 5000
"
    );
}

#[test]
fn the_release_line_of_a_procfile_is_a_task_that_starts_by_itself() {
    let config = read(&[("Procfile", "release: bin/migrate\nweb: bin/web\n")]);
    let task = config.tasks.values().next().expect("a task");
    assert_eq!((task.id.job.as_str(), task.start), ("release", true));
    assert_eq!(config.jobs.len(), 1, "and no job");
}

#[test]
fn an_ini_of_the_original_is_read() {
    let text = "
; comment
[DEFAULT]
home = /srv
[gaffer]
bind = 127.0.0.1:5000, :80, [::1]
backlog = 64
log_level = warning
error_log = -
require_key = yes
include = more.ini
[process:shop:web]
CMD = bin/web --dir %(home)s
args = -p $PORT
  --more '100%%'
numprocesses = 2
flapping = 2, 1., 7., 5
graceful_timeout = 2.5
redirect_output = out, err
redirect_input = on
uid = 1000
gid = www
priority = 3
[env:shop:web]
rails_env = production
[job:plain]
cmd = sleep 1
os_env = false
detach = 1
custom = kept
";
    let config = read(&[
        ("gaffer.ini", text),
        ("more.ini", "[job:plain]\nnumprocesses = 7\n"),
    ]);
    let web = job(&config, "shop.web");
    assert_eq!(
        web.launch.cmd,
        ["bin/web", "--dir", "/srv", "-p", "$PORT", "--more", "100%"]
    );
    assert_eq!(
        (web.instances, web.priority, web.stop.timeout),
        (2, 3, Duration::from_millis(2_500))
    );
    let flapping = web.flapping.clone().unwrap();
    assert_eq!(
        (flapping.exits, flapping.rounds, flapping.whole_job),
        (2, Some(5), true)
    );
    assert_eq!(
        (flapping.window, flapping.pause),
        (Duration::from_secs(1), Duration::from_secs(7))
    );
    assert_eq!(
        (&web.launch.stdin, &web.launch.env_inherit),
        (&Stdin::Pipe, &EnvInherit::All)
    );
    let user = web.launch.user.clone().unwrap();
    assert_eq!((user.uid, user.gid), (1000, 33));
    assert!(web.launch.env[0].contains(&("RAILS_ENV".to_owned(), "production".to_owned())));
    let plain = job(&config, "plain");
    assert_eq!((plain.instances, plain.keep_running), (7, true));
    assert_eq!(plain.launch.env_inherit, EnvInherit::None);
    // Beside a job with a priority, one without starts last.
    assert!(plain.priority > web.priority);
    assert_eq!(plain.meta["custom"], "kept");
    assert_eq!(config.daemon.bind, ["127.0.0.1:5000", "0.0.0.0:80", "[::1]:5000"]);
    assert_eq!((config.daemon.backlog, config.daemon.require_token), (64, true));
}

#[test]
fn a_wrong_ini_is_told_with_its_place() {
    let text = "x = 1\n[gaffer]\nbnd = x\n[gaffer]\n[job:a]\ncmd = x\ncmd = y\nnonsense\n[job:b]\ncmd = 50%\n[jobs:c]\ncmd = x\n[ssl]\n[job:d]\n[env:q]\nA = 1\n";
    assert_eq!(
        said("gaffer.ini", text),
        "error: a key stands before the first section
  ┌─ gaffer.ini:1:1
 1│ x = 1
  │ ^^^^^ write [gaffer] or [job:NAME] above it
error: unknown key `bnd` in [gaffer]
  ┌─ gaffer.ini:3:1
 3│ bnd = x
  │ ^^^ did you mean `bind`?
error: section [gaffer] comes twice
  ┌─ gaffer.ini:4:1
 4│ [gaffer]
  │ ^^^^^^^^ first in gaffer.ini:2
error: `cmd` comes twice in [job:a]
  ┌─ gaffer.ini:7:1
 7│ cmd = y
  │ ^^^ first in gaffer.ini:6
error: this line has neither `=` nor `:`
  ┌─ gaffer.ini:8:1
 8│ nonsense
  │ ^^^^^^^^ write key = value; an indented line continues a value
error: a lone `%` in `cmd`
  ┌─ gaffer.ini:10:7
10│ cmd = 50%
  │       ^^^ a percent sign is written %%
error: unknown section [jobs:c]
  ┌─ gaffer.ini:11:1
11│ [jobs:c]
  │ ^^^^^^^^ there are [gaffer], [job:NAME], [env:NAME]
error: [ssl] needs `certfile` and `keyfile`
  ┌─ gaffer.ini:13:1
13│ [ssl]
  │ ^^^^^ each names a PEM file
warning: [job:d] has no `cmd`: it is left out
  ┌─ gaffer.ini:14:1
14│ [job:d]
  │ ^^^^^^^
error: [env:q] belongs to no job
  ┌─ gaffer.ini:15:1
15│ [env:q]
  │ ^^^^^^^
"
    );
}

#[test]
fn json_job_files_are_read_with_the_defaults_of_the_api() {
    let one = read(&[(
        "web.json",
        r#"{"name": "shop.web", "cmd": "x", "args": ["a b", "$HOME", "{{y}}"], "env": {"A": "$B"}}"#,
    )]);
    let web = job(&one, "shop.web");
    assert_eq!(web.launch.cmd, ["x", "a b", "$HOME", "{{&y}}"]);
    assert_eq!(web.launch.env_inherit, EnvInherit::None);
    assert_eq!(web.launch.env[0], [("A".to_owned(), "$$B".to_owned())]);
    let many = read(&[(
        "jobs.json",
        r#"{"jobs": [{"name": "a", "cmd": "echo $X", "args": ["b c"], "shell": true, "flapping": {"attempts": 3},
            "redirect_output": ["o", "o"], "os_env": true, "graceful_timeout": 0.5, "start": false, "extra": [1]},
            {"name": "b/c", "cmd": "x", "instances": 2, "stop": "5s"}]}"#,
    )]);
    let a = job(&many, "a");
    assert_eq!(
        (a.launch.shell.as_deref(), a.launch.cmd[0].as_str()),
        (Some(""), "echo $X 'b c'")
    );
    assert_eq!(
        (a.launch.stderr, a.start, a.stop.timeout),
        (Output::Stdout, false, Duration::from_millis(500))
    );
    assert_eq!(a.flapping.clone().unwrap().exits, 3);
    assert_eq!(a.meta["extra"], "[1]");
    let c = job(&many, "b.c");
    assert_eq!((c.instances, c.stop.timeout), (2, Duration::from_secs(5)));
}

#[test]
fn a_table_of_the_original_has_its_old_defaults() {
    let json = read(&[(
        "x.json",
        r#"{"name": "a", "cmd": "x", "flapping": {"window": 3}}"#,
    )]);
    let flapping = job(&json, "a").flapping.clone().unwrap();
    assert_eq!((flapping.exits, flapping.window), (2, Duration::from_secs(3)));
    let today = fixture::toml("[job.a]\ncmd = \"x\"\nflapping = {}\n").unwrap();
    assert_eq!(job(&today, "a").flapping.clone().unwrap().exits, 5);
}

#[test]
fn a_wrong_json_file_is_told_with_its_place() {
    assert_eq!(
        said("x.json", "{\"name\": \"a\",\n \"cmd\": 'x'}"),
        "error: this is not JSON: a value is expected here (texts and keys need double quotes)
  ┌─ x.json:2:9
 2│  \"cmd\": 'x'}
  │         ^
"
    );
    assert!(said("x.json", "{\"cmd\": \"x\"}").contains("a job needs a `name`"));
    assert!(said("x.json", "[3]").contains("a job is an object, not a number"));
    assert!(
        said(
            "x.json",
            "{\"name\": \"a\", \"cmd\": \"x\", \"flapping\": {\"atempts\": 1}}"
        )
        .contains("unknown member `atempts`")
    );
    assert!(
        said("x.json", "{\"name\": \"a\", \"cmd\": \"x\", \"uid\": \"nobdy\"}")
            .contains("there is no user `nobdy`")
    );
    assert!(
        said(
            "x.json",
            "{\"name\": \"a\", \"cmd\": \"x\", \"graceful_timeout\": -1}"
        )
        .contains("number of seconds")
    );
}

#[test]
fn s12_2_k16_endpoints_in_use_say_where_and_with_which_certificate() {
    let ini = |names: &str, more: &str| {
        format!(
            "[gaffer]\nbind = 127.0.0.1:7000\nhttp_endpoints = {names}\n[endpoint:a]\nbind = 127.0.0.1:7001, unix:/run/a\n\
             certfile = a.pem\nkeyfile = a.key\n[endpoint:b]\nbind = 127.0.0.1:7002\n\
             [endpoint:c]\nbind = [::1]\ncertfile = a.pem\nkeyfile = a.key\n{more}"
        )
    };
    let of = |names: &str, more: &str| read(&[("gafferd.ini", &ini(names, more))]).daemon;
    let both = of("a, c", "[ssl]\ncertfile = other.pem\nkeyfile = other.key\n");
    assert_eq!(
        both.bind,
        ["127.0.0.1:7001", "unix:/run/a", "[::1]:5000"],
        "endpoints win"
    );
    let tls = both.tls.expect("a certificate");
    assert!(
        tls.cert.ends_with("a.pem") && tls.key.ends_with("a.key"),
        "{tls:?}"
    );
    let plain = of("b", "");
    assert_eq!((plain.bind, plain.tls), (vec!["127.0.0.1:7002".to_owned()], None));
    let mixed = said("gafferd.ini", &ini("a, b", ""));
    assert!(mixed.contains("endpoints with different certificates"), "{mixed}");
    let half = said(
        "gafferd.ini",
        "[gaffer]\nhttp_endpoints = d\n[endpoint:d]\nbind = 127.0.0.1:1\ncertfile = x\n",
    );
    assert!(half.contains("`certfile` and `keyfile`, or neither"), "{half}");
    let none = said("gafferd.ini", "[gaffer]\nhttp_endpoints = e\n");
    assert!(none.contains("there is no section [endpoint:e]"), "{none}");
}

#[test]
fn k1_a_job_that_says_nothing_of_its_grace_has_thirty_seconds() {
    for (name, text) in [
        ("gaffer.ini", "[job:web]\ncmd = x\n"),
        ("job.json", r#"{"name": "web", "cmd": "x"}"#),
        ("Procfile", "web: x\n"),
        ("gaffer.toml", "[job.web]\ncmd = \"x\"\n"),
    ] {
        let config = read(&[(name, text)]);
        let jobs: Vec<_> = config.jobs.values().collect();
        assert_eq!(jobs.len(), 1, "{name}");
        assert_eq!(jobs[0].spec.stop.timeout, Duration::from_secs(30), "{name}");
    }
}

#[test]
fn k3_a_daemon_that_is_not_told_otherwise_listens_on_this_machine_only() {
    for (name, text) in [
        ("gaffer.ini", "[gaffer]\n[job:web]\ncmd = x\n"),
        ("gaffer.toml", "[job.web]\ncmd = \"x\"\n"),
    ] {
        assert_eq!(read(&[(name, text)]).daemon.bind, ["127.0.0.1:5000"], "{name}");
    }
}
