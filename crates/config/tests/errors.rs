//! Every error: what `gaffer check` says, word by word.

mod fixture;

use fixture::{FakeHost, ROOT, bundle, toml};
use gaffer_config::{Bundle, Severity, load, load_job_json};
use serde_json::json;

/// What `gaffer check` says about a text that has an error.
fn said(text: &str) -> String {
    toml(text).expect_err(text).render(false)
}

/// The message, and under the caret the hint, of the only error.
fn one(text: &str) -> String {
    let diagnostics = toml(text).expect_err(text);
    let lines: Vec<String> = diagnostics
        .iter()
        .map(|one| {
            let place = match (one.line, one.column) {
                (Some(line), Some(column)) => format!("{line}:{column} "),
                _ => String::new(),
            };
            let marked = one.excerpt.as_ref().map_or(String::new(), |excerpt| {
                let chars = excerpt
                    .text
                    .chars()
                    .skip(excerpt.start as usize)
                    .take(excerpt.len as usize);
                chars.collect()
            });
            let help = one
                .help
                .as_ref()
                .map(|help| format!(" | {help}"))
                .unwrap_or_default();
            format!("{place}{} [{marked}]{help}", one.message)
        })
        .collect();
    lines.join("\n")
}

/// What is said about a job with this line.
fn job(line: &str) -> String {
    one(&format!("[job.web]\ncmd = \"x\"\n{line}\n"))
}

fn compare(table: &[(&str, &str)], say: fn(&str) -> String) {
    let wrong: Vec<String> = table
        .iter()
        .filter(|(text, expected)| say(text) != *expected)
        .map(|(text, expected)| format!("{text}\n  said     {}\n  expected {expected}", say(text)))
        .collect();
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn a_wrong_line_of_a_job_is_told_with_its_place_and_what_to_write() {
    compare(LINES, job);
}

#[test]
fn a_wrong_file_is_told_with_its_place_and_what_to_write() {
    compare(FILES, one);
}

#[test]
fn the_screen_of_check_is_the_one_that_was_promised() {
    let screen = said(
        "session = \"shop\"

[job.redis]
cmd = \"redis-server --port 6379 --save ''\"
ready.tcp = \"127.0.0.1:6379\"

[job.migrate]
cmd = \"bin/migrate\"
restart = \"on-failure\"

[job.web]
cmd = \"bin/web\"

numprocesses = 3

[job.worker]
cmd = \"bin/worker\"

stop.timeout = 20
after = { redis = \"ready\", migrat = \"done\" }
",
    );
    assert_eq!(
        screen,
        "error: unknown key `numprocesses` in job `web`
  ┌─ gaffer.toml:14:1
14│ numprocesses = 3
  │ ^^^^^^^^^^^^ use `instances`
error: `stop.timeout` is a duration and needs a unit
  ┌─ gaffer.toml:19:16
19│ stop.timeout = 20
  │                ^^ write \"20s\"
error: job `worker` waits for `migrat`, which does not exist
  ┌─ gaffer.toml:20:28
20│ after = { redis = \"ready\", migrat = \"done\" }
  │                            ^^^^^^ did you mean `migrate`?
"
    );
}

#[test]
fn text_that_is_not_toml_is_told_in_the_same_way() {
    assert_eq!(
        said("[job.web]\ncmd = hello world\n"),
        "error: this is not TOML: string values must be quoted, expected literal string
  ┌─ gaffer.toml:2:7
 2│ cmd = hello world
  │       ^^^^^^^^^^^ a text needs quotes: cmd = \"hello world\"
"
    );
    assert!(said("[job.web]\ncmd: x\n").contains("TOML writes cmd = \"x\""));
    assert!(said("[job.a]\ncmd = \"x\"\n[job.a]\ncmd = \"y\"\n").contains("it stands there already"));
}

#[test]
fn colours_are_asked_for() {
    let diagnostics = toml("[job.a]").expect_err("a job without cmd");
    assert!(
        diagnostics
            .render(true)
            .starts_with("\x1b[31merror\x1b[0m: job `a` has no `cmd`\n  ┌─ \x1b[1mgaffer.toml:1:6\x1b[0m\n")
    );
    assert!(!diagnostics.render(false).contains('\x1b'));
}

#[test]
fn what_a_file_holds_cannot_steer_the_terminal() {
    let said = said("[job.a]\ncmd = \"x\"\n\"\\u001b[2J\" = 1\n");
    assert!(!said.contains('\x1b'), "{said:?}");
}

#[test]
fn a_diagnostic_survives_the_wire() {
    let diagnostics = toml("[job.a]\ncmd = \"x\"\nstop.timeout = 20\n").expect_err("no unit");
    let text = serde_json::to_string(&diagnostics).unwrap();
    let again: gaffer_config::Diagnostics = serde_json::from_str(&text).unwrap();
    assert_eq!(again.render(true), diagnostics.render(true));
    let one = again.iter().next().unwrap();
    assert_eq!(one.path.as_deref(), Some("job.a.stop.timeout"));
    assert_eq!(
        (one.severity, one.line, one.column),
        (Severity::Error, Some(3), Some(16))
    );
}

#[test]
fn a_thing_defined_twice_names_both_places() {
    let files = [
        (
            "gaffer.toml",
            "include = [\"conf.d/*.toml\"]\n[job.web]\ncmd = \"x\"\n",
        ),
        ("conf.d/web.toml", "\n[job.web]\ncmd = \"y\"\n"),
    ];
    let said = load(&bundle(&files), &ROOT).expect_err("twice").render(false);
    assert_eq!(
        said,
        "error: job `web` is defined twice
  ┌─ conf.d/web.toml:2:6
 2│ [job.web]
  │      ^^^ first in gaffer.toml:2
"
    );
}

#[test]
fn a_profile_that_is_nowhere_is_an_error() {
    let text = "[job.web]\ncmd = \"x\"\n[profile.staging]\njob.web.instances = 2\n";
    let bundle = Bundle {
        profiles: vec!["stagin".to_owned()],
        ..bundle(&[("gaffer.toml", text)])
    };
    let said = load(&bundle, &ROOT).expect_err("no such profile").render(false);
    assert_eq!(
        said,
        "error: there is no profile `stagin`\n  did you mean `staging`?\n"
    );
}

#[test]
fn a_count_for_no_job_is_an_error() {
    let mut bundle = bundle(&[("gaffer.toml", "[job.web]\ncmd = \"x\"\n")]);
    bundle.counts.insert("wbe".to_owned(), 2);
    let said = load(&bundle, &ROOT).expect_err("no such job").render(false);
    assert_eq!(
        said,
        "error: there is no job `wbe` to count\n  did you mean `web`?\n"
    );
}

#[test]
fn only_root_may_run_jobs_as_somebody_else() {
    let mine = FakeHost { uid: 1000 };
    let text = "[job.web]\ncmd = \"x\"\nuser = \"root\"\n";
    let said = load(&bundle(&[("gaffer.toml", text)]), &mine)
        .expect_err("not root")
        .render(false);
    assert!(
        said.starts_with("error: only root may run a job as `root`: the daemon is user 1000\n"),
        "{said}"
    );
    let own = text.replace("root", "deploy");
    let config = load(&bundle(&[("gaffer.toml", &own)]), &mine).unwrap();
    assert!(config.jobs.values().all(|job| job.spec.launch.user.is_none()));
    let groups = own.replace("user = \"deploy\"", "group = \"www\"");
    assert!(load(&bundle(&[("gaffer.toml", &groups)]), &mine).is_err());
}

#[test]
fn a_put_is_told_the_path_of_what_is_wrong() {
    let put = |body| load_job_json("shop", "web", &body, &ROOT).expect_err("wrong").0;
    let said = put(json!({ "cmd": "x", "stop": { "timeout": 20 } }));
    assert_eq!(said[0].path.as_deref(), Some("job.web.stop.timeout"));
    assert_eq!(said[0].message, "`stop.timeout` is a duration and needs a unit");
    assert_eq!(
        put(json!({ "cmd": "x", "instnces": 1 }))[0].help.as_deref(),
        Some("did you mean `instances`?")
    );
    assert_eq!(
        put(json!({ "cmd": "x", "extends": "T" }))[0].message,
        "`extends` is understood in files only"
    );
    assert_eq!(
        put(json!([1]))[0].message,
        "a job is an object with the keys of [job.X]"
    );
    assert_eq!(
        put(json!({ "cmd": "x", "name": "other" }))[0].message,
        "`name` is not that of the request"
    );
    assert_eq!(
        put(json!({ "cmd": "x", "after": ["web"] }))[0].message,
        "job `web` waits for itself"
    );
    assert_eq!(
        put(json!({ "cmd": "x {{vars.a}}" }))[0].message,
        "`{{vars.a}}` is not a reference (in `cmd`)"
    );
    assert!(load_job_json("s", "9", &json!({ "cmd": "x" }), &ROOT).is_err());
}

/// A line of `[job.web]`, which begins on line 1, and what is said: place, message, [marked text] | hint.
#[rustfmt::skip] // A table reads better as one.
const LINES: &[(&str, &str)] = &[
    ("numprocesses = 3", "3:1 unknown key `numprocesses` in job `web` [numprocesses] | use `instances`"),
    ("instnces = 3", "3:1 unknown key `instnces` in job `web` [instnces] | did you mean `instances`?"),
    (r#"signal = "TERM""#, "3:1 unknown key `signal` in job `web` [signal] | did you mean `stop.signal` or `reload.signal`?"),
    ("Instances = 3", "3:1 unknown key `Instances` in job `web` [Instances] | use `instances`"),
    (r#"env-file = "x""#, "3:1 unknown key `env-file` in job `web` [env-file] | use `env_file`"),
    ("graceful_timeout = 10", "3:1 unknown key `graceful_timeout` in job `web` [graceful_timeout] | use `stop.timeout`"),
    ("killasgroup = true", "3:1 unknown key `killasgroup` in job `web` [killasgroup] | use `stop.to`; KILL always goes to the whole tree"),
    ("zzz = 1", "3:1 unknown key `zzz` in job `web` [zzz]"),
    ("stop.zzz = 1", "3:6 unknown key `stop.zzz` in job `web` [zzz] | there are signal, timeout, to, cmd"),
    (r#"stop.timout = "1s""#, "3:6 unknown key `stop.timout` in job `web` [timout] | did you mean `stop.timeout`?"),
    (r#"timeout = "1h""#, "3:1 `timeout` has no meaning in job `web` [timeout] | a job has no end; to replace old runs there will be `recycle.age`"),
    ("stop.timeout = 20", r#"3:16 `stop.timeout` is a duration and needs a unit [20] | write "20s""#),
    (r#"stop.timeout = "20""#, r#"3:16 `stop.timeout` is a duration and needs a unit ["20"] | write "20s""#),
    ("stop.timeout = 1.5", r#"3:16 `stop.timeout` is a duration and needs a unit [1.5] | write "1.5s""#),
    (r#"stop.timeout = "-5s""#, r#"3:16 `stop.timeout` is a duration and must not be negative ["-5s"]"#),
    ("stop.timeout = -5", "3:16 `stop.timeout` is a duration and must not be negative [-5]"),
    (r#"stop.timeout = "5 parsecs""#, r#"3:16 `stop.timeout` is a duration, and `parsecs` is not a unit ["5 parsecs"] | there are ms, s, m, h, d and w"#),
    (r#"stop.timeout = "soon""#, r#"3:16 `stop.timeout` is a duration ["soon"] | write "30s", "250ms", "1h30m""#),
    ("stop.timeout = true", r#"3:16 `stop.timeout` is a duration, not true or false [true] | write "30s", "250ms", "1h30m""#),
    (r#"stop.timeout = "9999999w""#, r#"3:16 `stop.timeout` is longer than a hundred years ["9999999w"]"#),
    ("stop = 10", r#"3:8 `stop.timeout` is a duration and needs a unit [10] | write "10s""#),
    (r#"stop.signal = "TREM""#, r#"3:15 `stop.signal` names no signal: "TREM" ["TREM"] | did you mean "TERM"?"#),
    ("stop.signal = 99", r#"3:15 `stop.signal` is the name of a signal, not a number [99] | write "TERM", "HUP", "USR1", …"#),
    (r#"stop.to = "groop""#, r#"3:11 `stop.to` cannot be "groop" ["groop"] | did you mean "group"? (one of "main", "children", "group", "all")"#),
    ("logs.size = 100", r#"3:13 `logs.size` is a size and needs a unit [100] | write "100M", or "100B" for bytes"#),
    ("logs.size = 1048576", r#"3:13 `logs.size` is a size and needs a unit [1048576] | write "1M""#),
    (r#"logs.size = "1Q""#, r#"3:13 `logs.size` is a size, and `Q` is not a unit ["1Q"] | there are B, K, M, G and T"#),
    (r#"logs.segment = "200M""#, r#"3:16 `logs.segment` is larger than `logs.size` ["200M"]"#),
    (r#"logs.size = "1K""#, r#"3:13 `logs.size` must be at least 4K ["1K"] | to keep nothing, write logs.stdout = "null""#),
    (r#"logs.to = ["file:/x"]"#, r#"3:11 `logs.to` is not yet supported [["file:/x"]] | leave it out; `gaffer logs` shows what is kept"#),
    ("logs.redact = 3", "3:15 `logs.redact` is a list of texts, not a number [3]"),
    (r#"logs.redact = ["password", "(x"]"#, r#"3:15 `logs.redact` has `(x`, which is not a regular expression: found open group without closing ')' [["password", "(x"]] | a plain word is a JSON field: ["password", 'key=\S+']"#),
    (r#"logs.labels = ["a", "b", "c"]"#, r#"3:15 `logs.labels` has more than 2 entries [["a", "b", "c"]]"#),
    ("instances = -1", "3:13 `instances` must not be negative [-1]"),
    (r#"instances = "3""#, r#"3:13 `instances` is a whole number, not a text ["3"] | write 3, without quotes"#),
    ("instances = 1.5", "3:13 `instances` is a whole number, not a number with a fraction [1.5]"),
    ("instances = 1000000", "3:13 `instances` must be at most 100000 [1000000]"),
    ("instances = 99999999999999999999", "3:13 `instances` is a whole number, not a number that is too large [99999999999999999999]"),
    ("retry = 0", r#"3:9 `retry.attempts` must be at least 1 [0] | without end is "unlimited""#),
    ("retry.attempts = -1", r#"3:18 `retry.attempts` must be at least 1 [-1] | without end is "unlimited""#),
    ("retry.delay = []", "3:15 `retry.delay` has no entry [[]] | write one duration, or a list of them"),
    ("retry.factor = 0.5", "3:16 `retry.factor` must be at least 1 [0.5]"),
    ("retry.jitter = 2", "3:16 `retry.jitter` must be at most 1 [2]"),
    ("exit.ok = [300]", "3:12 `exit.ok` takes exit codes from 0 to 255 [300]"),
    (r#"exit.ok = ["FOO"]"#, r#"3:12 `exit.ok` names no signal: "FOO" ["FOO"] | write "TERM", "HUP", "USR1", …"#),
    ("port = 0", r#"3:8 `port` must be a port from 1 to 65535 [0] | any free one is "auto""#),
    (r#"port = "any""#, r#"3:8 `port` is a port number or "auto", not a text ["any"] | any free one is "auto""#),
    (r#"ports = { "a b" = 1 }"#, r#"3:11 `ports` has a port named `a b`: use letters, digits, `_` and `-` ["a b"]"#),
    (r#"ports = { "a-b" = 1, a_b = 2 }"#, "1:6 ports `a-b` and `a_b` would both be $PORT_A_B [web]"),
    ("ready = {}", "3:9 `ready` has no probe [{}] | exactly one of http, tcp, cmd, log, notify, after"),
    (r#"ready = { tcp = "x:1", http = "http://x" }"#, r#"3:9 `ready` has more than one probe: http, tcp [{ tcp = "x:1", http = "http://x" }] | exactly one of http, tcp, cmd, log, notify, after"#),
    (r#"ready = "soon""#, r#"3:9 `ready.http` is a URL that begins with http:// ["soon"] | write "http://127.0.0.1:$PORT/up""#),
    (r#"ready.http = "https://x""#, r#"3:14 `ready.http` is not yet supported with https:// ["https://x"] | a probe on this machine can do with http://"#),
    (r#"ready.http = "localhost:80""#, r#"3:14 `ready.http` is a URL that begins with http:// ["localhost:80"] | write "http://127.0.0.1:$PORT/up""#),
    (r#"ready.tcp = "localhost""#, r#"3:13 `ready.tcp` is an address ["localhost"] | write "127.0.0.1:6379" or "unix:PATH""#),
    (r#"ready.log = "(""#, r#"3:13 `ready.log` is not a regular expression: found open group without closing ')' ["("]"#),
    ("ready.notify = false", "3:16 `ready.notify` can only be true [false] | leave it out instead"),
    (r#"ready.after = "2m""#, r#"3:15 `ready.after` is longer than `ready.within` ["2m"] | it could never be ready"#),
    (r#"ready.every = "0s""#, "3:1 `ready` has no probe [ready] | exactly one of http, tcp, cmd, log, notify, after"),
    (r#"ready = { tcp = "x:1", shell = true }"#, "3:32 `ready.shell` needs `ready.cmd` [true]"),
    (r#"ready = { cmd = "x", every = "0s" }"#, r#"3:30 `ready.every` must be longer than nothing ["0s"]"#),
    (r#"health.heartbeat = "0s""#, r#"3:20 `health.heartbeat` must be longer than nothing ["0s"]"#),
    (r#"health = { heartbeat = "5s", via = "udp" }"#, r#"3:36 `health.via` cannot be "udp" ["udp"] | one of "notify""#),
    (r#"health = { cmd = "test -e $NOPE" }"#, r#"3:18 `$NOPE` in `health.cmd` cannot have a value ["test -e $NOPE"] | set it in `env`, take it with env_inherit, or write $$NOPE"#),
    (r#"restart = "allways""#, r#"3:11 `restart` cannot be "allways" ["allways"] | did you mean "always"? (one of "always", "on-failure", "never")"#),
    ("restart = true", r#"3:11 `restart` is a word, not true or false [true] | one of "always", "on-failure", "never""#),
    (r#"start = "on-socket""#, r#"3:9 `start` is not yet supported as "on-socket" ["on-socket"] | write true or false"#),
    (r#"start = "yes""#, r#"3:9 `start` is true or false, not a text ["yes"] | write true, without quotes"#),
    (r#"stdin = "socket:a""#, r#"3:9 `stdin` is not yet supported with "socket:" ["socket:a"]"#),
    (r#"stdin = "tty""#, r#"3:9 `stdin` cannot be "tty" ["tty"] | "null", "pipe" or "file:PATH""#),
    (r#"shell = "bash -c""#, r#"3:9 `shell` names a shell: one word ["bash -c"] | write true, "bash" or a path"#),
    ("argv0 = 3", r#"3:9 `argv0` is a text, not a number [3] | write "3""#),
    (r#"cmd2 = "x""#, "3:1 unknown key `cmd2` in job `web` [cmd2] | did you mean `cmd`?"),
    ("env = { A = true }", r#"3:13 `env` takes texts and numbers: `A` is true or false [true] | write "true""#),
    (r#"env = { "A=B" = "x" }"#, r#"3:9 `env` has a variable named `A=B`: a name has no `=` and is not empty ["A=B"]"#),
    (r#"env = { A = "$B" }"#, r#"3:13 `$B` in `env.A` cannot have a value ["$B"] | set it in `env`, take it with env_inherit, or write $$B"#),
    (r#"env = { A = "50%$" }"#, r#"3:13 a `$` that begins no name is written `$$` (in `env.A`) ["50%$"]"#),
    (r#"env = { A = "1", B = "$A" }"#, r#"3:22 `$A` in `env.B` means the layer below, where it has no value ["$A"] | use a variable of the file for both: {{vars.x}}"#),
    (r#"env = "A=1""#, r#"3:7 `env` is a table, not a text ["A=1"] | write env = { NAME = "value" }"#),
    (r#"env_inherit = "some""#, r#"3:15 `env_inherit` cannot be "some" ["some"] | "base", "all", "none", or a list of names: ["SSH_*"]"#),
    ("env_inherit = true", r#"3:15 `env_inherit` is a word, not true or false [true] | write "all""#),
    (r#"env_file = "nope.env""#, r#"3:12 `env_file` names nope.env, which does not exist ["nope.env"] | a file that may be missing is written "?path""#),
    (r#"user = "nobdy""#, r#"3:8 there is no user `nobdy` on this machine ["nobdy"] | create it, or name another one"#),
    ("user = 4242", "3:8 user 4242 has no name and no group here [4242] | write `group` too"),
    ("user = -1", "3:8 `user` is not an id [-1]"),
    (r#"group = "nogrp""#, r#"3:9 there is no group `nogrp` on this machine ["nogrp"] | create it, or name another one"#),
    (r#"cwd = "nowhere""#, r#"3:7 `cwd` is /app/nowhere, where there is no folder ["nowhere"] | it must exist when the file is used"#),
    (r#"cwd = "~/x""#, r#"3:7 `cwd` is /app/~/x, where there is no folder ["~/x"] | nothing but `$HOME` stands for the home folder"#),
    (r#"cwd = "$NOPE""#, r#"3:7 `$NOPE` in `cwd` cannot have a value ["$NOPE"] | set it in `env`, take it with env_inherit, or write $$NOPE"#),
    ("umask = 22", r#"3:9 `umask` is octal digits in quotes, not a number [22] | write "022""#),
    (r#"umask = "9""#, r#"3:9 `umask` is three octal digits ["9"] | write "022""#),
    ("nice = 100", "3:8 `nice` must be at most 19 [100]"),
    ("rlimits = { nofil = 3 }", "3:13 `rlimits` has no limit named `nofil` [nofil] | did you mean `nofile`?"),
    (r#"rlimits = { nofile = "10:5" }"#, r#"3:22 `rlimits` has a soft limit above the hard one for `nofile` ["10:5"] | write "SOFT:HARD""#),
    ("rlimits = { core = 5 }", r#"3:20 `rlimits` needs a unit for `core` [5] | write "64M", "SOFT:HARD" or "unlimited""#),
    (r#"rlimits = { nofile = "many" }"#, r#"3:22 `rlimits` cannot have "many" for `nofile` ["many"] | write 4096, "SOFT:HARD" or "unlimited""#),
    (r#"limits.memory = 5"#, r#"3:17 `limits.memory` is a size and needs a unit [5] | write "5M", or "5B" for bytes"#),
    (r#"limits.memory = "150%""#, r#"3:17 `limits.memory` is more than all ["150%"] | write "1%" to "100%""#),
    (r#"limits.cpu = 2"#, r#"3:14 `limits.cpu` is a share of one core [2] | write "150%""#),
    (r#"limits.cpus = "3-0""#, r#"3:15 `limits.cpus` is a text of numbers and ranges ["3-0"] | write "0-3,8""#),
    (r#"limits.pids = 0"#, "3:15 `limits.pids` must be at least 1 [0]"),
    (r#"limits.memroy = "1G""#, "3:8 unknown key `limits.memroy` in job `web` [memroy] | did you mean `limits.memory`?"),
    (r#"limits.scope = "job""#, "3:8 `limits.scope` is not yet supported [scope] | leave it out"),
    (r#"secrets = { a = "file:/x" }"#, "3:1 `secrets` is not yet supported [secrets] | leave it out"),
    (r#"sockets = ["a"]"#, "3:1 `sockets` is not yet supported [sockets] | leave it out"),
    (r#"on.before_start = "x""#, "3:1 `on` is not yet supported [on] | leave it out"),
    (r#"recycle.age = "1h""#, "3:1 `recycle` is not yet supported [recycle] | leave it out"),
    (r#"watch = ["src"]"#, "3:1 `watch` is not yet supported [watch] | leave it out"),
    ("events = {}", "3:1 `events` is not yet supported [events] | leave it out"),
    (r#"scale.on = "cpu""#, "3:7 `scale.on` is not yet supported [on] | leave it out"),
    ("scale = { min = 3, max = 2 }", "3:17 `scale.min` is above `scale.max` [3]"),
    (r#"idle_stop = "1m""#, "3:1 `idle_stop` is not yet supported [idle_stop] | leave it out"),
    (r#"reload = "surg""#, r#"3:10 `reload.how` cannot be "surg" ["surg"] | did you mean "surge"? (one of "surge", "rolling", "restart", "signal")"#),
    (r#"reload.signal = "HUP""#, r#"3:17 `reload.signal` needs `how = "signal"` ["HUP"] | write reload = { how = "signal", signal = … }"#),
    ("reload.batch = 0", r#"3:16 `reload.batch` is a number of instances or a share, at least 1 [0] | write 2 or "25%""#),
    (r#"reload.batch = "200%""#, r#"3:16 `reload.batch` is a number of instances or a share ["200%"] | write 2 or "25%""#),
    ("flapping = true", "3:12 `flapping` is a table, not true or false [true]"),
    ("flapping = { exits = 0 }", "3:22 `flapping.exits` must be at least 1 [0]"),
    ("flapping.attempts = 3", "3:10 unknown key `flapping.attempts` in job `web` [attempts] | use `flapping.exits`"),
    (r#"after = "db""#, r#"3:9 `after` is a list or a table, not a text ["db"] | write ["db"]"#),
    (r#"after = ["db"]"#, r#"3:10 job `web` waits for `db`, which does not exist ["db"]"#),
    (r#"after = { web = "ready" }"#, "3:11 jobs wait for each other in a circle: `web` → `web` [web] | one of them has to start first"),
    (r#"after = ["task:x"]"#, r#"3:10 job `web` waits for `task:x`, which does not exist ["task:x"]"#),
    (r#"after = { db = "reddy" }"#, r#"3:11 job `web` waits for `db`, which does not exist [db]
3:16 `after` cannot be "reddy" ["reddy"] | did you mean "ready"? (one of "started", "ready", "done", "ended")"#),
    (r#"extends = "T""#, r#"3:11 there is no template `T` ["T"]"#),
    (r#"unset = ["healht"]"#, r#"3:10 `unset` names `healht`, which is not a key ["healht"] | did you mean `health`?"#),
    (r#"session = "a.b""#, "1:6 `a.b` is not a name: dots are allowed in job names only [web]"),
    ("description = 3", r#"3:15 `description` is a text, not a number [3] | write "3""#),
    ("meta = { a = [1] }", "3:14 `meta` takes texts: `a` is a list [[1]]"),
    ("priority = 99999999999", "3:12 `priority` must be at most 1000000000 [99999999999]"),
    ("date = 2026-01-01", "3:1 unknown key `date` in job `web` [date]"),
    ("start_spacing = 2026-01-01", r#"3:17 `start_spacing` is a duration, not a date [2026-01-01] | write "30s", "250ms", "1h30m""#),
];

/// A whole file, and what is said.
#[rustfmt::skip] // A table reads better as one.
const FILES: &[(&str, &str)] = &[
    (r#"[job."9"]
cmd = "x""#, r#"1:6 `9` is not a job name: it must not be all digits ["9"]"#),
    (r#"[job."a b"]
cmd = "x""#, r#"1:6 `a b` is not a job name: ` ` is not allowed; use letters, digits, `_`, and after the first character `+` and `-` ["a b"]"#),
    (r#"[job.-a]
cmd = "x""#, "1:6 `-a` is not a job name: `-` is not allowed; use letters, digits, `_`, and after the first character `+` and `-` [-a]"),
    (r#"[job."a..b"]
cmd = "x""#, r#"1:6 `a..b` is not a job name: there must be something on both sides of a dot ["a..b"]"#),
    ("[job.a]", r#"1:6 job `a` has no `cmd` [a] | write what to run: cmd = "…""#),
    (r#"[job.a]
cmd = """#, r#"2:7 `cmd` is empty [""] | write the program to run"#),
    ("[job.a]
cmd = []", "2:7 `cmd` is empty [[]] | write the program to run"),
    ("[job.a]
cmd = 3", "2:7 `cmd` is a command: a text or a list of texts, not a number [3]"),
    (r#"[job.a]
cmd = "it's""#, r#"2:7 `cmd` cannot be split: a single quote is not closed ["it's"]"#),
    (r#"[job.a]
cmd = ["x", 3]"#, r#"2:13 `cmd` is a text, not a number [3] | write "3""#),
    (r#"[job.a]
cmd = "echo $FOO""#, r#"2:7 `$FOO` in `cmd` cannot have a value ["echo $FOO"] | set it in `env`, take it with env_inherit, or write $$FOO"#),
    (r#"[job.a]
cmd = "echo {{instnce}}""#, r#"2:7 `{{instnce}}` is not a reference (in `cmd`) ["echo {{instnce}}"] | did you mean {{instance}}?"#),
    (r#"[job.a]
cmd = "echo {{vars.x}}"
[vars]
y = 1"#, r#"2:7 `{{vars.x}}` is not in [vars] (in `cmd`) ["echo {{vars.x}}"]"#),
    (r#"[job.a]
cmd = "grep x$""#, r#"2:7 a `$` that begins no name is written `$$` (in `cmd`) ["grep x$"] | or let a shell have it: shell = true"#),
    (r#"[job.a]
cmd = "echo {{job-1}}""#, r#"2:7 `{{job-1}}` calculates with a text (in `cmd`) ["echo {{job-1}}"]"#),
    (r#"[job.a]
cmd = "echo {{params.x}}""#, r#"2:7 `{{params.x}}` has a value in steps of tasks only (in `cmd`) ["echo {{params.x}}"]"#),
    (r#"[job.a]
cmd = "echo ${X""#, r#"2:7 `${` is not closed (in `cmd`) ["echo ${X"] | or let a shell have it: shell = true"#),
    (r#"[job.a]
cmd = ["x", "y"]
shell = true"#, r#"2:7 `shell` runs a script: `cmd` must be one text [["x", "y"]] | write cmd = "…""#),
    (r#"[job.a]
cmd = "echo {{profile}}""#, r#"2:7 `{{profile}}` has no value without a selected profile (in `cmd`) ["echo {{profile}}"]"#),
    ("job = 3", "1:7 `job` is a table, not a number [3]"),
    ("[job]
a = 3", "2:5 `job.a` is a table, not a number [3]"),
    (r#"session = "a b""#, r#"1:11 `a b` is not a name: ` ` is not allowed; use letters, digits, `_`, and after the first character `+` and `-` ["a b"]"#),
    (r#"session = "1""#, r#"1:11 `1` is not a name: it must not be all digits ["1"]"#),
    (r#"[queue.x]
cmd = "x"
store = "mysql://root:secret@h/x""#, r#"3:9 `store` is neither `sqlite` nor the URL of a database ["mysql://root:secret@h/x"] | write "sqlite" or "postgres://USER@HOST/DATABASE""#),
    (r#"[queue.x]
cmd = "x"
pool = "p"
[queue.y]
cmd = "x"
pool = "p"
store = "sqlite""#, r#"6:8 pool `p`: queues `x` and `y` have different stores ["p"] | give them the same `store`, or pools of their own"#),
    (r#"[queue.x]
numworkers = 3"#, "2:1 unknown key `numworkers` in queue `x` [numworkers] | did you mean `workers`?"),
    (r#"[schedule.x]
cron = "x""#, "2:8 `cron` cannot be understood: it has 1 field, not five or six [\"x\"] | minute hour day month weekday: \"30 3 * * *\", \"0 9 * * MON-FRI\", \"@daily\""),
    (r#"[socket.x]
listen = "x""#, "1:2 `socket` is not yet supported [socket] | leave it out"),
    (r#"[webhook.x]
url = "x""#, r#"2:7 `url` begins with http:// or https:// ["x"] | url = "http://127.0.0.1:8080/hook""#),
    (r#"[node.x]
labels = { zone = "eu" }"#, "1:7 a node needs a `url` [x] | url = \"https://10.0.1.1:5000\""),
    (r#"[node.x]
url = "http://10.0.0.1:5000"
token_file = "t""#, r#"2:7 `token_file` would be shown to everybody on the way to this `url` ["http://10.0.0.1:5000"] | write https:// (a token goes in clear to this machine only)"#),
    (r#"[node.x]
url = "unix:/x"
adress = "x""#, "3:1 unknown key `adress` in a node [adress]"),
    (r#"[jobs.web]
cmd = "x""#, "1:2 unknown table `jobs` in the file [jobs] | use `job`"),
    (r#"cmd = "x""#, "1:1 unknown key `cmd` in the file [cmd] | put it into [job.NAME], or into [defaults] for all: defaults.cmd"),
    (r#"[program.web]
command = "x""#, "1:2 unknown table `program` in the file [program] | use `job`"),
    ("[defaults]
instances = 2", "2:1 `instances` is a key of jobs [instances] | put it into [defaults.job]"),
    (r#"[defaults.queue]
numworkers = 1"#, "2:1 unknown key `numworkers` in [defaults.queue] [numworkers] | did you mean `workers`?"),
    (r#"[defaults.job]
extends = "x""#, "2:1 `extends` has no meaning in [defaults.job] [extends]"),
    ("[defaults]
numprocesses = 2", "2:1 unknown key `numprocesses` in [defaults] [numprocesses] | use `instances`"),
    (r#"[template.T]
extends = "T"
[job.a]
extends = "T"
cmd = "x""#, r#"2:11 templates extend each other in a circle: T → T ["T"]"#),
    ("[template.T]
bad = 1", "2:1 unknown key `bad` in template `T` [bad]"),
    (r#"[profile.dev]
include = ["x"]"#, "2:1 `include` has no meaning inside of a profile [include]"),
    ("[profile.dev.job.a]
bad = 1", "2:1 unknown key `bad` in job `a` [bad]"),
    (r#"[job.a]
cmd = "x"
after = ["b"]
[job.b]
cmd = "x"
after = ["a"]"#, r#"3:10 jobs wait for each other in a circle: `a` → `b` → `a` ["b"] | one of them has to start first"#),
    (r#"[job.a]
cmd = "x"
after = { b = "done" }
[job.b]
cmd = "x""#, r#"3:11 job `a` waits for `b` to end, which is always restarted [b] | give it restart = "on-failure""#),
    (r#"[job.a]
cmd = "x"
after = ["bb"]
[job.b]
cmd = "x""#, r#"3:10 job `a` waits for `bb`, which does not exist ["bb"] | did you mean `b`?"#),
    (r#"include = ["nope.toml"]"#, r#"1:12 cannot read /app/nope.toml: there is no such file ["nope.toml"]"#),
    (r#"[gaffer]
bind = ["nope"]"#, r#"2:9 `bind` has "nope": the port is missing ["nope"] | host:port, [v6]:port or unix:PATH"#),
    (r#"[gaffer]
bind = [":5000"]"#, r#"2:9 `bind` has ":5000": the host is missing; all addresses are 0.0.0.0 or [::] [":5000"] | host:port, [v6]:port or unix:PATH"#),
    (r#"[gaffer]
log_level = "loud""#, r#"2:13 `log_level` cannot be "loud" ["loud"] | one of "error", "warn", "info", "debug", "trace""#),
    ("[gaffer]
tls = {}", "2:7 `tls` needs `cert` and `key` [{}] | tls = {cert = \"FILE\", key = \"FILE\"}"),
    ("[gaffer]
require_key = true", "2:1 unknown key `require_key` in [gaffer] [require_key] | use `require_token`"),
    (r#"[gaffer]
socket_owner = "nobdy""#, r#"2:16 `socket_owner` names "nobdy", whom this machine does not know ["nobdy"] | write "user:group""#),
    (r#"[gaffer]
socket_mode = "666""#, r#"2:15 `socket_mode` lets everybody on this machine control the daemon ["666"] | "660" and `socket_owner` let a group in"#),
    ("[gaffer]
statsd = true", "2:1 `statsd` is not yet supported [statsd] | leave it out"),
    (r#"[gaffer]
logs_total = "200%""#, r#"2:14 `logs_total` is more than all ["200%"] | write "1%" to "100%""#),
    (r#"[gaffer]
containment = "yes""#, r#"2:15 `containment` cannot be "yes" ["yes"] | one of "auto", "require", "off""#),
];
