//! What is loaded, stored, exported and read again stays the same; what differs is named.

mod fixture;

use fixture::{ROOT, bundle, toml};
use gaffer_config::{
    ChangeClass, Config, ExportFormat, LoadedJob, StoredHost, SystemHost, diff, export, init, load,
    load_again, load_job_json,
};
use gaffer_core::job::Job;
use gaffer_core::name::{JobId, Name};
use serde_json::json;
use std::collections::BTreeMap;

const SHOP: &str = r#"
session = "shop"
env_file = [".env"]
env = { LEVEL = "info", PATH = "/own:$PATH" }

[job.redis]
cmd = "redis-server --port 6379 --save ''"
ready.tcp = "127.0.0.1:6379"
priority = -1

[job.web]
cmd = ["bin/web", "--name", "w {{instance-1:02}}", "$PORT", "it's", "100%", "a\"b\\c"]
cwd = "web"
instances = 2
port = 8080
ports.admin = "auto"
after = ["redis"]
ready.http = "http://127.0.0.1:$PORT/up"
health = { cmd = "check 'a b'", every = "5s" }
stop = { timeout = "20s", cmd = "bin/stop $GAFFER_PID" }
user = "deploy"
env = { A = "$B-{{job}}", LEVEL = "$LEVEL!" }
rlimits = { nofile = "10:20" }
limits = { memory = "50%", cpu = "150%", cpus = "0-1", io = ["8:0 rbps=1"], oom = "process" }
retry = { delay = ["1s", "1m30s"], attempts = 5 }
flapping = { exits = 3 }
meta.team = "x y"
exit.fatal = [3, "SEGV"]

[job.script]
cmd = "echo $HOME | cat\necho done"
shell = "bash"
env_inherit = ["SSH_*", "PATH"]
restart = "on-failure"
stdin = "pipe"

[job."dotted.name"]
cmd = "x"
session = "other"
"#;

fn shop() -> Config {
    load(&bundle(&[("gaffer.toml", SHOP)]), &ROOT).unwrap_or_else(|error| panic!("{error}"))
}

fn job<'a>(config: &'a Config, name: &str) -> &'a LoadedJob {
    &config.jobs[&JobId::parse(name).unwrap()]
}

#[test]
fn the_text_of_the_store_means_the_same() {
    for (id, job) in &shop().jobs {
        let text = job.typed.to_string();
        let typed = serde_json::from_str(&text).unwrap();
        let again = load_job_json(id.session.as_str(), id.job.as_str(), &typed, &ROOT)
            .unwrap_or_else(|error| panic!("{id}: {error}"));
        assert_eq!(again.spec, job.spec, "{id}");
        assert_eq!(again.launch_digest, job.launch_digest, "{id}");
        assert_eq!(again.typed.to_string(), text, "{id}");
        assert!(diff(job, &again).is_empty());
    }
}

#[test]
fn what_a_job_waits_for_means_the_same_in_the_store() {
    let config = toml(
        "session = \"s\"\n[job.\"b.c\"]\ncmd = \"x\"\n[job.d]\ncmd = \"x\"\n[job.a]\ncmd = \"x\"\nafter = { \"b.c\" = \"started\", d = \"ready\" }\n",
    )
    .unwrap();
    let a = job(&config, "s.a");
    assert_eq!(a.typed["after"].to_string(), r#"{"d":"ready","s.b.c":"started"}"#);
    let again = load_job_json("s", "a", &a.typed, &ROOT).unwrap();
    assert_eq!(again.spec.after, a.spec.after);
}

#[test]
fn a_stored_job_is_understood_after_its_user_and_folder_have_gone() {
    let config = shop();
    let web = job(&config, "shop.web");
    // Neither `deploy` nor `/app/web` is on the machine that runs this test.
    let again =
        load_job_json("shop", "web", &web.typed, &StoredHost).unwrap_or_else(|error| panic!("{error}"));
    assert_eq!(again.spec.launch.user, web.spec.launch.user);
    assert_eq!(again.spec.launch.cwd, web.spec.launch.cwd);
    assert_eq!(again.launch_digest, web.launch_digest);
    // Nor is its file of variables: it cannot be started, and its runs are not outdated.
    let unread = again.spec.launch.unread.as_deref();
    assert_eq!(unread, Some("cannot read /app/.env: no such file or directory"));
}

#[test]
fn hazard_b7_values_of_files_of_variables_are_in_no_definition() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("secret.env");
    let write = |text: &str| std::fs::write(&file, text).unwrap();
    write("TOKEN=canary\nGONE=canary\n");
    let body =
        json!({ "cmd": "x", "cwd": "/", "env_file": file, "env_without": ["GONE"], "env": { "A": "1" } });
    let put = || load_job_json("s", "web", &body, &SystemHost).unwrap_or_else(|error| panic!("{error}"));
    let first = put();
    assert!(!first.typed.to_string().contains("canary"), "{}", first.typed);
    let token = [("TOKEN".to_owned(), "canary".to_owned())];
    assert_eq!(first.spec.launch.env[0], token);
    let stored =
        || load_job_json("s", "web", &first.typed, &StoredHost).unwrap_or_else(|error| panic!("{error}"));
    assert_eq!(
        (stored().spec, stored().launch_digest),
        (first.spec.clone(), first.launch_digest)
    );
    let definitions = gaffer_config::Definitions {
        jobs: &BTreeMap::from([(JobId::parse("s.web").unwrap(), stored())]),
        tasks: &BTreeMap::new(),
        queues: &BTreeMap::new(),
        schedules: &BTreeMap::new(),
    };
    let text = definitions.to_toml(&Name::default_session());
    assert!(
        text.contains("env_file = [") && text.contains("env.A") && !text.contains("canary"),
        "{text}"
    );
    // Another content is another launch, which is told without saying it.
    write("TOKEN=canary-2\n");
    let second = put();
    assert_ne!(second.launch_digest, first.launch_digest);
    let changes = diff(&stored(), &second);
    assert_eq!(changes.len(), 1, "{changes:?}");
    assert_eq!(
        (changes[0].path.as_str(), changes[0].class),
        ("env_file", ChangeClass::Reload)
    );
    assert!(!format!("{changes:?}").contains("canary"));
    // What is in force is still the first; read again, it is the second.
    assert_eq!(stored().launch_digest, first.launch_digest);
    assert_eq!(
        load_again("s", "web", &first.typed).unwrap().launch_digest,
        second.launch_digest
    );
    // A line that is none is told by its place.
    write("A=1\nnonsense canary\n");
    let error = load_job_json("s", "web", &body, &SystemHost)
        .unwrap_err()
        .to_string();
    assert!(
        error.contains("secret.env:2") && !error.contains("canary"),
        "{error}"
    );
    let unread = stored().spec.launch.unread.clone().unwrap();
    assert!(
        unread.contains("secret.env: this line has no `=` in line 2"),
        "{unread}"
    );
    std::fs::remove_file(&file).unwrap();
    let error = load_again("s", "web", &first.typed).unwrap_err().to_string();
    assert!(error.contains("secret.env: no such file or directory"), "{error}");
    assert_eq!(stored().launch_digest, first.launch_digest);
}

#[test]
fn a_put_is_completed_and_then_stable() {
    let body =
        json!({ "cmd": "run 'a b'", "stop": "5s", "env_file": ["/app/.env"], "name": "web", "session": "s" });
    let first = load_job_json("s", "web", &body, &ROOT).unwrap_or_else(|error| panic!("{error}"));
    assert_eq!(
        first.typed.to_string(),
        r#"{"cmd":["run","a b"],"cwd":"/app","env_digest":"ca6a7cfa2152bec8","env_file":["/app/.env"],"stop":{"timeout":"5s"}}"#
    );
    let second = load_job_json("s", "web", &first.typed, &ROOT).unwrap();
    assert_eq!(
        (second.spec, second.launch_digest),
        (first.spec, first.launch_digest)
    );
    assert!(second.origin.is_none());
}

#[test]
fn the_digest_counts_what_a_run_is_born_with_and_nothing_else() {
    let digest =
        |line: &str| job(&toml(&format!("[job.a]\ncmd = \"x y\"\n{line}\n")).unwrap(), "a").launch_digest;
    let plain = digest("");
    for same in [
        "instances = 3",
        "stop = \"1s\"",
        "restart = \"never\"",
        "umask = \"022\"",
        "retry = 3",
        "nice = 0",
        "description = \"x\"",
    ] {
        assert_eq!(digest(same), plain, "{same}");
    }
    let mut seen = vec![plain];
    for other in [
        "umask = \"077\"",
        "env.A = \"1\"",
        "env.A = \"2\"",
        "port = 1",
        "user = \"deploy\"",
        "user = 1000",
        "group = \"www\"",
        "ready.tcp = \"x:1\"",
        "pty = true",
        "logs.stdout = \"null\"",
    ] {
        let digest = digest(other);
        assert!(!seen.contains(&digest), "{other}");
        seen.push(digest);
    }
    // The bytes on disk of every installation depend on it.
    assert_eq!(plain, 0xf933_0251_9376_f9ba, "{plain:x}");
}

#[test]
fn changes_are_named_key_by_key_with_their_effect() {
    let old = toml("[job.a]\ncmd = \"x --old\"\nenv.LOG = \"info\"\ninstances = 2\nstop = \"1s\"\nafter = [\"b\"]\n[job.b]\ncmd = \"x\"\n").unwrap();
    let new = toml("[job.a]\ncmd = \"x --new 'a b'\"\nenv = { LOG = \"debug\", MORE = 1 }\ninstances = 3\nafter = { b = \"ready\" }\nready.tcp = \"x:1\"\n[job.b]\ncmd = \"x\"\n").unwrap();
    let changes = diff(job(&old, "a"), job(&new, "a"));
    let lines: Vec<String> = changes
        .iter()
        .map(|change| {
            let side = |value: &Option<String>| value.clone().unwrap_or_else(|| "-".to_owned());
            format!(
                "{} {} → {} {:?}",
                change.path,
                side(&change.old),
                side(&change.new),
                change.class
            )
        })
        .collect();
    assert_eq!(
        lines,
        [
            "cmd \"x --old\" → \"x --new 'a b'\" Reload",
            "env.LOG \"info\" → \"debug\" Reload",
            "env.MORE - → 1 Reload",
            "ready.tcp - → \"x:1\" Reload",
            "stop.timeout \"1s\" → - NextStart",
            "instances 2 → 3 Live",
        ]
    );
    assert_eq!(changes[0].class, ChangeClass::Reload);
}

/// The jobs without what an export cannot keep: layers of environment become one.
fn plain(job: &Job) -> Job {
    let mut job = job.clone();
    std::sync::Arc::make_mut(&mut job.launch).env.clear();
    job
}

#[test]
fn an_export_to_toml_loads_to_the_same_jobs() {
    let config = shop();
    let text = export(&config, ExportFormat::Toml);
    let again = toml(&text).unwrap_or_else(|error| panic!("{error}\n{text}"));
    assert_eq!(again.session, config.session);
    assert_eq!(again.jobs.len(), config.jobs.len());
    for (id, job) in &config.jobs {
        assert_eq!(plain(&again.jobs[id].spec), plain(&job.spec), "{id}\n{text}");
    }
    // With the file of variables and what is below it, not with what the file says.
    assert_eq!(
        job(&again, "shop.web").spec.launch.env,
        job(&config, "shop.web").spec.launch.env
    );
    assert!(
        text.contains("env_file = [\"/app/.env\"]") && !text.contains("-file"),
        "{text}"
    );
    assert_eq!(export(&again, ExportFormat::Toml), text);
}

#[test]
fn a_procfile_comes_back_as_it_was() {
    let text =
        "web: python3 web.py --name 'a b' \"it's\"\nworker: python3 worker.py $GAFFER_JOB $$ ${A}b {{x}}\n";
    let config = load(&bundle(&[("Procfile", text)]), &ROOT).unwrap();
    let out = export(&config, ExportFormat::Procfile);
    let again = load(&bundle(&[("Procfile", &out)]), &ROOT).unwrap_or_else(|error| panic!("{error}\n{out}"));
    for (id, job) in &config.jobs {
        assert_eq!(again.jobs[id].spec, job.spec, "{out}");
    }
}

#[test]
fn what_a_procfile_cannot_say_is_a_comment() {
    assert_eq!(
        export(&toml("[job.a]\ncmd = \"run {{instance}} {{ports.p}}\"\nports.p = 1\n[job.b]\ncmd = \"x | y\"\nshell = true\n[job.c]\ncmd = \"x {{instance-1}}\"\n").unwrap(), ExportFormat::Procfile),
        "a: run $INSTANCE $PORT_P\n# a: not said here: ports\nb: /bin/sh -c 'x | y'\n# c: a Procfile cannot say this name or command\n"
    );
}

#[test]
fn ini_and_json_of_the_original_come_back() {
    let text = "session = \"shop\"\n[job.web]\ncmd = \"web --dir 50% 'a b' $X\"\nenv_inherit = \"all\"\ninstances = 2\nuser = \"deploy\"\nstop = \"2s500ms\"\nkeep_running = true\nstdin = \"pipe\"\nenv = { A = \"1%\" }\nflapping = { exits = 3, scope = \"job\" }\nstart = false\nno_new_privs = true\n";
    let config = toml(text).unwrap_or_else(|error| panic!("{error}"));
    for (format, name) in [
        (ExportFormat::Ini, "gaffer.ini"),
        (ExportFormat::Json, "jobs.json"),
    ] {
        let out = export(&config, format);
        let again = load(&bundle(&[(name, &out)]), &ROOT).unwrap_or_else(|error| panic!("{error}\n{out}"));
        let (mut expected, mut found) = (
            (*job(&config, "shop.web").spec).clone(),
            (*job(&again, "shop.web").spec).clone(),
        );
        // `no_new_privs` and the like have no words there; unknown ones would end up here.
        for job in [&mut expected, &mut found] {
            job.meta.clear();
        }
        assert_eq!(found, expected, "{out}");
    }
}

#[test]
fn units_for_systemd_say_the_same() {
    let config = toml(
        "session = \"shop\"\n[job.db]\ncmd = \"db\"\n[job.web]\ncmd = \"web --name 'a b' 50% {{instance}} $HOME\"\ninstances = 2\nafter = [\"db\"]\nuser = \"deploy\"\nenv.A = \"x y\"\nrlimits.nofile = 100\nlimits = { memory = \"1G\", cpu = \"50%\", pids = 9 }\nhealth.tcp = \"x:1\"\nexit.fatal = [3]\n",
    )
    .unwrap();
    let text = export(&config, ExportFormat::Systemd);
    assert!(
        text.starts_with(
            "# shop-db.service\n[Unit]\nDescription=shop.db\n\n[Service]\nType=exec\nExecStart=db\n"
        ),
        "{text}"
    );
    let web = text.split("# shop-web@.service\n").nth(1).unwrap();
    assert_eq!(
        web,
        "[Unit]
Description=shop.web
After=shop-db.service
Wants=shop-db.service

[Service]
Type=exec
ExecStart=web --name \"a b\" 50%% %i ${HOME}
WorkingDirectory=/app
User=deploy
Group=1000
Environment=\"A=x y\"
Environment=INSTANCE=%i
UMask=0022
NoNewPrivileges=yes
LimitNOFILE=100:100
MemoryMax=1073741824
CPUQuota=50%
TasksMax=9
OOMPolicy=kill
Restart=always
RestartSec=100ms
KillMode=mixed
KillSignal=SIGTERM
TimeoutStopSec=30s
RestartPreventExitStatus=3
# not said here: health

[Install]
WantedBy=multi-user.target

"
    );
}

#[test]
fn init_writes_a_file_that_loads_and_runs_what_lies_there() {
    let dir = tempfile::tempdir().unwrap();
    let read = |dir: &std::path::Path| {
        let text = init(dir, &gaffer_config::SystemHost::new());
        let config = toml(&text).unwrap_or_else(|error| panic!("{error}\n{text}"));
        (text, config)
    };
    let (text, config) = read(dir.path());
    assert!(config.jobs.is_empty() && text.contains("# [job.web]"), "{text}");
    std::fs::write(dir.path().join("manage.py"), "").unwrap();
    let (text, config) = read(dir.path());
    assert!(
        text.contains("a guess: this looks like Django") && config.jobs.len() == 1,
        "{text}"
    );
    std::fs::write(
        dir.path().join("package.json"),
        r#"{"scripts": {"start": "node x"}}"#,
    )
    .unwrap();
    assert!(read(dir.path()).0.contains("cmd = \"npm run start\""));
    std::fs::write(dir.path().join("Procfile"), "web: serve -p $PORT\nb: x 'y z'\n").unwrap();
    std::fs::write(dir.path().join(".env"), "A=1\n").unwrap();
    let (text, config) = read(dir.path());
    assert_eq!(config.jobs.len(), 2);
    assert!(
        text.contains("cmd = \"x 'y z'\"") && text.contains("env_file = [\"?.env\"]"),
        "{text}"
    );
    std::fs::write(dir.path().join("Procfile"), "web\tserve\n").unwrap();
    assert!(read(dir.path()).0.contains("# error: a tab follows `web`"));
}

const WORK: &str = r#"
session = "shop"
env_file = [".env"]
env = { LEVEL = "info" }

[job.web]
cmd = "bin/web"
after = { etl = "done" }

[task.etl]
params = { day = "today", region = "{{session}}" }
unique = "task"
start = true
keep = { done = "7d" }
concurrency = 2
stop.timeout = "1m"

[task.etl.step.zip]
cmd = ["zip", "{{params.day}}", "a b"]
user = "deploy"
env = { TOKEN_LEVEL = "$LEVEL!" }

[task.etl.step.load]
cmd = "load | tee out"
shell = true
after = ["zip"]
retry = { attempts = 3, delay = "2s" }
final = false

[task.alone]
cmd = "x --y"
timeout = "5s"

[queue.mail]
cmd = ["bin/mail", "{{payload.to}}"]
workers = 3
retry = { attempts = 4, crashes = 2 }
throttle = { total = 5, rate = "100/min" }
schema = { type = "object", properties = { cmd = { type = "array" } } }
redact = ["card.number"]
exit.snooze = [75]
keep = { done = "1h" }

[queue.mail.kind.welcome]
cmd = "bin/welcome"
timeout = "3s"

[queue.mail.kind.etl]
task = "etl"

[queue.far]
delivery = "at-most-once"
session = "other"

[schedule.nightly]
cron = "30 3 * * *"
zone = "Europe/Berlin"
queue = "mail"
kind = "welcome"
payload = { to = "{{tick.date}}", cmd = ["a", "b c"] }
missed = "last"

[schedule.clean]
every = "15m"
cmd = "rm -r 'old files'"
"#;

#[test]
fn an_export_to_toml_loads_to_the_same_tasks_queues_and_schedules() {
    let files = [("gaffer.toml", WORK), (".env", "TOKEN=canary\n")];
    let read = |text: &str| {
        load(&bundle(&[("gaffer.toml", text), files[1]]), &ROOT)
            .unwrap_or_else(|error| panic!("{error}\n{text}"))
    };
    let config = read(WORK);
    let text = export(&config, ExportFormat::Toml);
    assert!(!text.contains("canary"), "{text}");
    let again = read(&text);
    assert_eq!(export(&again, ExportFormat::Toml), text);
    let specs = |config: &Config| {
        let tasks = config.tasks.iter().map(|(id, one)| {
            let rest = (
                one.unique.clone(),
                one.start,
                one.after.clone(),
                one.params.clone(),
            );
            format!("{id} {:?} {rest:?} {:?}", one.spec, one.keep)
        });
        let queues = config
            .queues
            .iter()
            .map(|(id, one)| format!("{id} {:?}", one.spec));
        let schedules = config
            .schedules
            .iter()
            .map(|(id, one)| format!("{id} {:?}", one.spec));
        tasks.chain(queues).chain(schedules).collect::<Vec<_>>()
    };
    let (before, after) = (specs(&config), specs(&again));
    assert_eq!(before.len(), 7, "etl, alone, clean; mail, far; nightly, clean");
    for (before, after) in before.iter().zip(&after) {
        assert_eq!(after, before, "{text}");
    }
    for format in [ExportFormat::Procfile, ExportFormat::Ini, ExportFormat::Systemd] {
        let out = export(&config, format);
        let told = "# not said here: task alone, task clean, task etl, queue far, queue mail, schedule clean, schedule nightly";
        assert!(out.contains(told), "{out}");
    }
}
