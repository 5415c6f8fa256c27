//! Defaults, templates, profiles, overlays, includes, the environment: what comes out of several places.

mod fixture;

use fixture::{ROOT, bundle, toml};
use gaffer_config::{Bundle, Config, GatherOptions, RunContext, SystemHost, expand, find_file, gather, load};
use gaffer_core::job::{Condition, EnvInherit, Port, ProbeKind, ReloadHow, Stdin};
use gaffer_core::name::JobId;
use std::collections::BTreeMap;
use std::time::Duration;

fn ok(text: &str) -> Config {
    toml(text).unwrap_or_else(|error| panic!("{error}"))
}

fn job<'a>(config: &'a Config, name: &str) -> &'a gaffer_config::LoadedJob {
    &config.jobs[&JobId::parse(name).unwrap()]
}

/// The environment of instance 1, without what gaffer sets.
fn env(config: &Config, name: &str) -> BTreeMap<String, String> {
    let id = JobId::parse(name).unwrap();
    let base = BTreeMap::from([
        ("PATH".to_owned(), "/bin".to_owned()),
        ("SECRET".to_owned(), "s".to_owned()),
    ]);
    let context = RunContext {
        node: "n",
        job: &id,
        instance: Some(1),
        run: "1111",
        attempt: 1,
        ports: &BTreeMap::new(),
        base_env: &base,
        shell: "/bin/sh",
        task: None,
        queue: None,
        added: &[],
    };
    let expanded = expand(&config.jobs[&id].spec.launch, &context).unwrap();
    let own = |name: &str| name.starts_with("GAFFER_") || name == "INSTANCE";
    expanded.env.into_iter().filter(|(name, _)| !own(name)).collect()
}

fn pairs(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
    pairs
        .iter()
        .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))
        .collect()
}

#[test]
fn later_places_win_and_tables_merge_key_by_key() {
    let config = ok(r#"
        [defaults]
        stop = { timeout = "1s", signal = "INT" }
        nice = 1
        [defaults.job]
        instances = 2
        retry.delay = "1s"
        [template.base]
        stop.timeout = "2s"
        nice = 2
        restart = "never"
        [template.T]
        extends = "base"
        nice = 3
        [job.web]
        extends = "T"
        cmd = "x"
        stop = "3s"
        retry = 7
    "#);
    let spec = &job(&config, "web").spec;
    assert_eq!((spec.stop.timeout, spec.stop.signal), (Duration::from_secs(3), 2));
    assert_eq!(
        (spec.launch.nice, spec.instances, spec.retry.attempts),
        (3, 2, Some(7))
    );
    assert_eq!(spec.retry.delay, [Duration::from_secs(1)]);
    assert_eq!(spec.restart, gaffer_core::job::Restart::Never);
}

#[test]
fn unset_removes_what_was_inherited() {
    let config = ok(r#"
        env = { A = "1", B = "2" }
        [defaults]
        health.http = "http://x/"
        logs.size = "1G"
        [job.web]
        cmd = "x"
        unset = ["health", "env.A", "logs.size"]
    "#);
    assert!(job(&config, "web").spec.health.is_none());
    assert_eq!(job(&config, "web").spec.logs.size, 100 << 20);
    assert_eq!(env(&config, "web"), pairs(&[("B", "2"), ("PATH", "/bin")]));
}

#[test]
fn a_probe_of_another_kind_replaces_the_inherited_one() {
    let config = ok(
        "[defaults]\nready = { http = \"http://x/\", every = \"1s\" }\n[job.a]\ncmd = \"x\"\nready.tcp = \"x:1\"\n",
    );
    let probe = job(&config, "a").spec.ready.clone().unwrap();
    assert_eq!(probe.kind, ProbeKind::Tcp("x:1".to_owned()));
    assert_eq!(probe.every, Duration::from_secs(1));
}

#[test]
fn profiles_lie_over_everything_in_the_order_given() {
    let text = r#"
        env.LOG = "info"
        [job.web]
        cmd = "x"
        instances = 3
        [job.debugger]
        cmd = "x"
        profiles = ["dev"]
        [profile.dev]
        job.web = { instances = 1 }
        env.LOG = "debug"
        [profile.dev.job.extra]
        cmd = "x"
        [profile.big.job.web]
        instances = 9
    "#;
    let load = |profiles: &[&str]| {
        let profiles = profiles.iter().map(|name| (*name).to_owned()).collect();
        load(
            &Bundle {
                profiles,
                ..bundle(&[("gaffer.toml", text)])
            },
            &ROOT,
        )
        .unwrap()
    };
    let plain = load(&[]);
    assert_eq!((plain.jobs.len(), job(&plain, "web").spec.instances), (1, 3));
    let dev = load(&["dev"]);
    assert_eq!((dev.jobs.len(), job(&dev, "web").spec.instances), (3, 1));
    assert_eq!(env(&dev, "web")["LOG"], "debug");
    assert_eq!(job(&load(&["dev", "big"]), "web").spec.instances, 9);
    assert_eq!(job(&load(&["big", "dev"]), "web").spec.instances, 1);
}

#[test]
fn a_second_file_lies_over_the_first() {
    let mut bundle = bundle(&[
        (
            "gaffer.toml",
            "session = \"shop\"\nenv.A = \"1\"\n[job.web]\ncmd = \"x\"\ninstances = 2\n",
        ),
        (
            "over.toml",
            "env.A = \"2\"\n[job.web]\ninstances = 5\n[job.more]\ncmd = \"y\"\n",
        ),
    ]);
    bundle.overlays = vec!["/app/over.toml".into()];
    let config = load(&bundle, &ROOT).unwrap();
    assert_eq!(job(&config, "shop.web").spec.instances, 5);
    assert_eq!(env(&config, "shop.web")["A"], "2");
    assert_eq!(config.jobs.len(), 2);
}

#[test]
fn included_files_inherit_and_have_their_own_folder() {
    let config = load(
        &bundle(&[
            ("gaffer.toml", "session = \"shop\"\ninclude = [\"conf.d/*.toml\"]\n[defaults]\nnice = 4\n[vars]\nx = \"root\"\n"),
            ("conf.d/a.toml", "[defaults]\numask = \"077\"\n[vars]\nx = \"a\"\ny = \"b\"\n[job.a]\ncmd = \"x {{vars.x}} {{vars.y}} {{file.dir}}\"\n"),
        ]),
        &ROOT,
    )
    .unwrap();
    let launch = &job(&config, "shop.a").spec.launch;
    assert_eq!((launch.nice, launch.umask), (4, 0o077));
    assert_eq!(launch.cmd, ["x", "root", "b", "/app/conf.d"]);
    assert_eq!(launch.cwd, "/app/conf.d");
    let origin = job(&config, "shop.a").origin.clone().unwrap();
    assert_eq!((origin.file.as_str(), origin.line), ("/app/conf.d/a.toml", 6));
}

#[test]
fn the_environment_is_built_in_layers() {
    let config = load(
        &bundle(&[
            (
                "gaffer.toml",
                "env_file = [\"?missing\", \".env\"]\nenv = { A = \"1\", PATH = \"/own:$PATH\" }\n[job.web]\ncmd = \"x\"\nenv.A = \"$A-job\"\nenv_file = \"job.env\"\n",
            ),
            (".env", "A=\"$A-file\"\nB='$lit {{job}}'\n"),
            ("job.env", "A=$A-own\nC=${NOWHERE}\n"),
        ]),
        &ROOT,
    )
    .unwrap();
    let expected = pairs(&[
        ("A", "1-file-own-job"),
        ("B", "$lit {{job}}"),
        ("C", ""),
        ("PATH", "/own:/bin"),
    ]);
    assert_eq!(env(&config, "web"), expected);
}

#[test]
fn gaffer_start_gives_the_whole_environment_unless_told_otherwise() {
    let text = "[job.a]\ncmd = \"x\"\n[job.b]\ncmd = \"x\"\nenv_inherit = \"none\"\n";
    let config = load(
        &Bundle {
            inherit_env: true,
            ..bundle(&[("gaffer.toml", text)])
        },
        &ROOT,
    )
    .unwrap();
    assert_eq!(env(&config, "a")["SECRET"], "s");
    assert_eq!(env(&config, "b"), pairs(&[]));
}

#[test]
fn values_of_the_command_line_win() {
    let text = "[vars]\nx = \"file\"\n[job.web]\ncmd = \"echo {{vars.x}}\"\nenv.A = \"1\"\n";
    let mut bundle = bundle(&[("gaffer.toml", text), ("cli.env", "B=2\n")]);
    bundle.vars.insert("x".to_owned(), "$HOME two words".to_owned());
    bundle.counts.insert("web".to_owned(), 4);
    bundle.env_files = vec!["/app/cli.env".into()];
    let config = load(&bundle, &ROOT).unwrap();
    let job = job(&config, "web");
    // A value never becomes two words, and is never looked at again.
    assert_eq!(job.spec.launch.cmd, ["echo", "$$HOME two words"]);
    assert_eq!(job.spec.instances, 4);
    assert_eq!(env(&config, "web")["B"], "2");
}

/// Every key once.
const EVERYTHING: &str = r#"
        session = "shop"
        [gaffer]
        shell = "/bin/dash"
        bind = ["unix:/run/x", "[::1]:80"]
        history = { runs = 5 }
        logs_total = "5%"
        [job.db]
        cmd = "x"
        restart = "on-failure"
        [job.web]
        cmd = "echo $X | cat"
        shell = true
        argv0 = "w"
        wrap = "nice -n 5"
        cwd = "web"
        user = "deploy"
        group = "www"
        groups = ["www", 7]
        rlimits = { nofile = "10:20", core = "0B", cpu = "9s" }
        port = 80
        ports = { admin = "auto" }
        stdin = "file:in.txt"
        pty = true
        streams = ["a"]
        logs = { stdout = "null", stderr = "stdout", size = "1M", when_full = "block", redact = "password" }
        health = { heartbeat = "5s", action = "alert" }
        ready.notify = true
        exit = { ok = [0, "HUP"], fatal = 3 }
        after = { db = "done", "other.x" = "started" }
        after_change = "restart"
        flapping = {}
        reload = "surge"
        scale = { min = 1, max = 3 }
        essential = true
        keep_running = true
        meta.team = "a"
    "#;

#[test]
fn every_key_finds_its_place_in_the_job() {
    let config = ok(EVERYTHING);
    let loaded = job(&config, "shop.web");
    let (spec, launch) = (&loaded.spec, &loaded.spec.launch);
    assert_eq!((launch.shell.as_deref(), launch.cmd.len()), (Some(""), 1));
    assert_eq!(launch.cwd, "/app/web");
    let user = launch.user.clone().unwrap();
    assert_eq!((user.uid, user.gid, user.groups), (1000, 33, vec![7, 33]));
    assert!(launch.no_new_privs);
    assert_eq!(launch.rlimits, [(0, 9, 9), (4, 0, 0), (7, 10, 20)]);
    assert_eq!(
        (launch.port, launch.ports["admin"]),
        (Some(Port::Fixed(80)), Port::Auto)
    );
    assert_eq!(launch.stdin, Stdin::File("/app/in.txt".to_owned()));
    assert_eq!(spec.logs.segment, 512 << 10);
    assert_eq!(spec.stop.to, gaffer_core::job::Scope::Group);
    assert_eq!(
        spec.health.clone().unwrap().kind,
        ProbeKind::Heartbeat(Duration::from_secs(5))
    );
    assert!(!spec.health_restarts);
    assert_eq!(spec.reload.how, ReloadHow::Surge);
    assert_eq!(spec.after[&JobId::parse("shop.db").unwrap()], Condition::Done);
    assert_eq!(spec.after[&JobId::parse("other.x").unwrap()], Condition::Started);
    assert_eq!(spec.flapping.clone().unwrap().exits, 5);
    assert_eq!(config.daemon.bind, ["unix:/run/x", "[::1]:80"]);
    assert_eq!(config.daemon.history.runs, 5);
    // A surge on one port: odd, but allowed.
    assert_eq!(config.warnings.len(), 1, "{:?}", config.warnings);
}

#[test]
fn defaults_are_those_of_the_core() {
    let config = ok("[job.web]\ncmd = \"x\"\n");
    let mut expected = gaffer_core::job::Job::of(gaffer_core::job::Launch::of(vec!["x".to_owned()]));
    let launch = std::sync::Arc::make_mut(&mut expected.launch);
    launch.cwd = "/app".to_owned();
    launch.env_inherit = EnvInherit::Base;
    assert_eq!(*job(&config, "web").spec, expected);
}

#[test]
fn files_are_gathered_from_the_disk_with_all_they_name() {
    let dir = tempfile::tempdir().unwrap();
    let at = |name: &str| dir.path().join(name);
    std::fs::create_dir_all(at("conf.d/deep")).unwrap();
    std::fs::write(
        at("gaffer.toml"),
        "include = [\"conf.d/*.toml\"]\nenv_file = [\".env.{{profile}}\"]\n[profile.dev]\n",
    )
    .unwrap();
    std::fs::write(
        at("conf.d/a.toml"),
        "[job.a]\ncmd = \"x\"\nenv_file = \"a.env\"\n",
    )
    .unwrap();
    std::fs::write(at("conf.d/a.env"), "A=1\n").unwrap();
    std::fs::write(at(".env.dev"), "D=1\n").unwrap();
    std::fs::write(at("conf.d/.hidden.toml"), "nonsense").unwrap();
    let found = find_file(&at("conf.d/deep")).unwrap();
    assert_eq!(found, at("gaffer.toml"));
    let options = GatherOptions {
        profiles: vec!["dev".to_owned()],
        ..GatherOptions::default()
    };
    let bundle = gather(&[found], &options).unwrap();
    let names: Vec<String> = bundle
        .files
        .keys()
        .map(|path| path.strip_prefix(dir.path()).unwrap().display().to_string())
        .collect();
    assert_eq!(names, ["conf.d/a.toml", "gaffer.toml"]);
    // But for the files of variables, the bundle is all that is needed, also after a journey.
    let sent: Bundle = serde_json::from_str(&serde_json::to_string(&bundle).unwrap()).unwrap();
    std::fs::remove_file(at("conf.d/a.toml")).unwrap();
    let config = load(&sent, &SystemHost::new()).unwrap();
    assert_eq!(env(&config, "a")["D"], "1");
}

#[test]
fn a_file_that_cannot_be_read_is_named_with_the_reason() {
    let dir = tempfile::tempdir().unwrap();
    let at = |name: &str| dir.path().join(name);
    let said = |path| {
        gather(&[path], &GatherOptions::default())
            .unwrap_err()
            .to_string()
    };
    assert!(said(at("none.toml")).ends_with("none.toml: there is no such file"));
    assert!(
        said(at(".")).contains("the folder has none of gaffer.toml"),
        "{}",
        said(at("."))
    );
    std::fs::write(at("bad.toml"), b"a = 1\nb = \"\xff\"\n").unwrap();
    assert!(said(at("bad.toml")).ends_with("line 2 is not UTF-8 text"));
    std::fs::write(
        at("gaffer.toml"),
        "env_file = [\"bad.toml\"]\n[job.a]\ncmd = \"x\"\n",
    )
    .unwrap();
    let bundle = gather(&[at("gaffer.toml")], &GatherOptions::default()).unwrap();
    let said = load(&bundle, &SystemHost::new()).unwrap_err().to_string();
    assert!(
        said.contains("bad.toml: line 2 is not UTF-8 text\n  ┌─ gaffer.toml:1:13"),
        "{said}"
    );
}
