//! Hazards A1: what a program is born with, and what happens if it cannot be.

use crate::harness::*;
use gaffer_shim::client;
use gaffer_shim::journal::Status;
use gaffer_shim::message::{PtySize, Rlimit, Scope, Stdin, User};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

fn file(path: &Path, mode: u32, text: &str) -> String {
    std::fs::write(path, text).unwrap();
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).unwrap();
    path.to_str().unwrap().to_owned()
}

fn exec_fails(argv: impl FnOnce(&Path) -> Vec<String>, errno: i32) -> String {
    let mut shim = Shim::start();
    let argv = argv(&shim.scratch.0);
    let words: Vec<&str> = argv.iter().map(String::as_str).collect();
    let spawn = shim.program("web.1", &words);
    let run = shim.spawn(spawn);
    let (stage, found, text) = shim.failed(run);
    assert_eq!((stage.as_str(), found), ("exec", errno), "{text}");
    // The slot is free again, and no status was invented.
    let mut next = shim.script("web.1", "exit 0");
    next.after = Some(run);
    let next = shim.spawn(next);
    assert_eq!(shim.status(next), Status::Code(0));
    text
}

#[test]
fn hazard_01_a_missing_program_is_an_enoent_with_its_path() {
    let text = exec_fails(|_| vec!["/no/such/program".to_owned()], libc::ENOENT);
    assert_eq!(text, "/no/such/program");
}

#[test]
fn hazard_01_a_program_that_is_nowhere_in_path_is_an_enoent_with_its_name() {
    assert_eq!(
        exec_fails(|_| vec!["no-such-program".to_owned()], libc::ENOENT),
        "no-such-program"
    );
}

#[test]
fn hazard_01_a_file_without_execute_permission_is_an_eacces() {
    let text = exec_fails(
        |dir| vec![file(&dir.join("plain"), 0o644, "#!/bin/sh\n")],
        libc::EACCES,
    );
    assert!(text.ends_with("/plain"));
}

#[test]
fn hazard_01_a_missing_interpreter_is_an_enoent_with_the_script() {
    let script = "#!/no/such/interpreter\n";
    let text = exec_fails(|dir| vec![file(&dir.join("script"), 0o755, script)], libc::ENOENT);
    assert!(text.ends_with("/script: its interpreter is missing"), "{text}");
}

#[test]
fn hazard_01_a_file_that_is_no_program_is_an_enoexec() {
    exec_fails(
        |dir| vec![file(&dir.join("noise"), 0o755, "\u{1}\u{2}\u{3}")],
        libc::ENOEXEC,
    );
}

#[test]
fn hazard_01_a_program_that_is_being_written_is_an_etxtbsy() {
    let mut writer = None;
    exec_fails(
        |dir| {
            let copy = dir.join("busy");
            std::fs::copy("/bin/true", &copy).unwrap();
            writer = Some(std::fs::OpenOptions::new().append(true).open(&copy).unwrap());
            vec![copy.to_str().unwrap().to_owned()]
        },
        libc::ETXTBSY,
    );
}

#[test]
fn hazard_01_an_argument_that_is_too_long_is_an_e2big() {
    exec_fails(
        |_| vec!["/bin/true".to_owned(), "x".repeat(200 << 10)],
        libc::E2BIG,
    );
}

type Change = Box<dyn Fn(&mut gaffer_shim::message::Spawn)>;

/// `(stage, errno, what breaks it)`.
fn broken_steps() -> Vec<(&'static str, i32, Change)> {
    vec![
        (
            "cwd",
            libc::ENOENT,
            Box::new(|s| s.cwd = "/no/such/dir".to_owned()),
        ),
        ("cwd", libc::ENOTDIR, Box::new(|s| s.cwd = "/dev/null".to_owned())),
        ("oom_score", libc::EINVAL, Box::new(|s| s.oom_score = 5000)),
        (
            "stdin",
            libc::ENOENT,
            Box::new(|s| s.stdin = Stdin::File("/no/such/file".to_owned())),
        ),
        (
            "rlimit",
            libc::EINVAL,
            Box::new(|s| {
                s.rlimits.push(Rlimit {
                    resource: 99,
                    soft: 1,
                    hard: 1,
                })
            }),
        ),
        (
            "rlimit",
            libc::EINVAL,
            Box::new(|s| {
                s.rlimits.push(Rlimit {
                    resource: 7,
                    soft: 9,
                    hard: 8,
                })
            }),
        ),
        (
            "groups",
            libc::EINVAL,
            Box::new(|s| {
                s.user = Some(User {
                    uid: 1,
                    gid: 1,
                    groups: vec![1; 70_000],
                })
            }),
        ),
        // Would leave the ids as they are: no way to root without being noticed.
        (
            "regain",
            libc::EPERM,
            Box::new(|s| {
                s.user = Some(User {
                    uid: u32::MAX,
                    gid: 1,
                    groups: vec![],
                })
            }),
        ),
    ]
}

#[test]
fn hazard_02_each_setup_step_that_fails_is_fatal_and_named() {
    let mut shim = Shim::start();
    for (place, (stage, errno, change)) in broken_steps().into_iter().enumerate() {
        let mut spawn = shim.script(&format!("job.{place}"), "echo it ran");
        change(&mut spawn);
        let run = shim.spawn(spawn);
        let (found, found_errno, text) = shim.failed(run);
        assert_eq!(
            (found.as_str(), found_errno),
            (stage, errno),
            "case {place}: {text}"
        );
        assert_eq!(shim.text(&format!("job.{place}"), "stdout"), "");
    }
}

#[test]
fn hazard_03_a_child_stuck_before_exec_is_killed_and_other_runs_are_reaped_meanwhile() {
    let mut shim = Shim::start();
    let other = shim.script("other.1", "exec sleep 1000");
    let other = shim.spawn(other);
    shim.started(other);
    let fifo = shim.scratch.0.join("fifo");
    let path = std::ffi::CString::new(fifo.to_str().unwrap()).unwrap();
    // SAFETY: a valid path.
    assert_eq!(unsafe { libc::mkfifo(path.as_ptr(), 0o600) }, 0);
    let mut stuck = shim.script("stuck.1", "exit 0");
    stuck.stdin = Stdin::File(fifo.to_str().unwrap().to_owned());
    stuck.start_deadline_ms = 500;
    let stuck = shim.spawn(stuck);
    shim.signal(other, libc::SIGKILL, Scope::Main).unwrap();
    assert_eq!(shim.status(other), Status::Signal(libc::SIGKILL, false));
    assert!(
        !shim
            .records
            .iter()
            .any(|r| format!("{r:?}").starts_with("StartFailed")),
        "the other run was reaped only after the stuck one"
    );
    let (stage, _, text) = shim.failed(stuck);
    assert_eq!(stage, "exec-stuck");
    assert!(text.starts_with("stdin"), "{text}");
    let mut again = shim.script("stuck.1", "exit 4");
    again.after = Some(stuck);
    let again = shim.spawn(again);
    assert_eq!(shim.status(again), Status::Code(4));
}

#[test]
fn hazard_05_no_descriptor_leaks_into_a_job() {
    // Open in us without close-on-exec, so in the shim when it starts.
    // SAFETY: a valid path; the descriptors stay open until the test process ends.
    let junk: Vec<i32> = (0..20)
        .map(|_| unsafe { libc::open(c"/dev/zero".as_ptr(), libc::O_RDONLY) })
        .collect();
    assert!(junk.iter().all(|fd| *fd > 2));
    let mut shim = Shim::start();
    // The last command keeps the shell from becoming `ls`, which has a directory open.
    let list = "ls -m /proc/$$/fd; true";
    let table = shim.outcome("a.1", |_| {}, list);
    assert_eq!(table.trim(), "0, 1, 2");
    let labelled = |spawn: &mut gaffer_shim::message::Spawn| {
        spawn.streams = vec!["control".to_owned(), "data".to_owned()];
    };
    assert_eq!(shim.outcome("b.1", labelled, list).trim(), "0, 1, 2, 3, 4");
    for fd in junk {
        // SAFETY: opened above.
        unsafe { libc::close(fd) };
    }
}

/// A program that makes the world hostile and then becomes the shim.
fn hostile(dir: &Path, what: &str) -> std::path::PathBuf {
    let shim = env!("CARGO_BIN_EXE_gaffer-shim");
    let path = dir.join("hostile");
    file(&path, 0o755, &format!("#!/bin/sh\n{what}\nexec {shim} \"$@\"\n"));
    path
}

#[test]
fn hazard_06_signals_are_unmasked_and_default_under_a_hostile_parent() {
    let wrapper = Scratch::new();
    let traps = "trap '' HUP INT QUIT TERM PIPE USR1 USR2 CHLD ALRM TTOU";
    let shim = hostile(&wrapper.0, traps);
    let mut shim = Shim::start_with(|_, dir| client::start_shim(&shim, dir).unwrap());
    let status = shim.outcome("a.1", |_| {}, "exec cat /proc/self/status");
    let masks: Vec<&str> = status
        .lines()
        .filter(|line| {
            ["SigBlk", "SigIgn", "SigCgt"]
                .iter()
                .any(|name| line.starts_with(name))
        })
        .collect();
    assert_eq!(masks.len(), 3);
    assert!(
        masks.iter().all(|line| line.ends_with("0000000000000000")),
        "{masks:?}"
    );
}

#[test]
fn hazard_07_a_job_has_its_own_group_and_no_terminal() {
    let mut shim = Shim::start();
    let stat = "read -r pid name state parent group session tty rest < /proc/self/stat; \
                echo $pid $group $session $tty";
    // `read` runs in the shell itself, so self is the shell.
    let ids = |text: String| -> Vec<i64> {
        text.split_whitespace()
            .map(|word| word.parse().unwrap())
            .collect()
    };
    let plain = ids(shim.outcome("a.1", |_| {}, stat));
    assert_eq!(plain[0], plain[1]);
    assert_ne!(plain[0], plain[2]);
    assert_eq!(plain[3], 0);
    let own = ids(shim.outcome("b.1", |spawn| spawn.own_session = true, stat));
    assert_eq!((own[0], own[0], 0), (own[1], own[2], own[3]));
}

#[test]
fn a_pty_is_the_controlling_terminal_and_its_output_is_kept() {
    let mut shim = Shim::start();
    let mut spawn = shim.script("a.1", "tty; stty size; read line; echo got $line");
    spawn.pty = Some(PtySize { cols: 99, rows: 33 });
    let run = shim.spawn(spawn);
    shim.started(run);
    shim.input(run, "stdin", b"some words\n", false).unwrap();
    assert_eq!(shim.status(run), Status::Code(0));
    let text = shim.text("a.1", "stdout");
    assert!(text.contains("/dev/pts/") && text.contains("33 99"), "{text}");
    assert!(text.contains("got some words"), "{text}");
}

#[test]
fn hazard_08_a_job_gets_the_environment_it_was_given_and_nothing_else() {
    let wrapper = Scratch::new();
    let outer =
        "export NOTIFY_SOCKET=/x LISTEN_FDS=3 WATCHDOG_USEC=1; umask 0; ulimit -S -n 300; renice 5 $$ >&2";
    let shim = hostile(&wrapper.0, outer);
    let mut shim = Shim::start_with(|_, dir| client::start_shim(&shim, dir).unwrap());
    let env = shim.outcome("a.1", |spawn| spawn.env.push(b"A=1".to_vec().into()), "exec env");
    let mut names: Vec<&str> = env.lines().filter_map(|line| line.split('=').next()).collect();
    names.retain(|name| !matches!(*name, "PWD" | "OLDPWD" | "SHLVL" | "_"));
    names.sort_unstable();
    assert_eq!(names, ["A", "GAFFER_RUN", "PATH"]);
    let rest = shim.outcome(
        "b.1",
        |_| {},
        "umask; nice; ulimit -S -n; cat /proc/self/oom_score_adj",
    );
    assert_eq!(rest, "0022\n0\n300\n0\n");
}

#[test]
fn hazard_09_privileges_are_dropped_for_good() {
    let mut shim = Shim::start();
    let user = |spawn: &mut gaffer_shim::message::Spawn| {
        spawn.user = Some(User {
            uid: 65534,
            gid: 65533,
            groups: vec![65533, 65530],
        });
        spawn.no_new_privs = true;
    };
    let script = "id -u; id -g; id -G; grep -E '^(Cap(Inh|Prm|Eff|Amb)|NoNewPrivs)' /proc/self/status";
    let text = shim.outcome("a.1", user, script);
    let lines: Vec<&str> = text.lines().collect();
    assert_eq!(lines[..3], ["65534", "65533", "65533 65530"]);
    for line in &lines[3..7] {
        assert!(line.ends_with("0000000000000000"), "{text}");
    }
    assert_eq!(lines[7], "NoNewPrivs:\t1");
}

#[test]
fn a_small_limit_of_descriptors_does_not_keep_a_run_from_starting() {
    let mut shim = Shim::start();
    let small = |spawn: &mut gaffer_shim::message::Spawn| {
        spawn.rlimits.push(Rlimit {
            resource: libc::RLIMIT_NOFILE,
            soft: 8,
            hard: 8,
        });
        spawn.stdin = Stdin::File("/dev/zero".to_owned());
    };
    assert_eq!(
        shim.outcome("a.1", small, "ulimit -n; head -c 2 | od -An -tx1"),
        "8\n 00 00\n"
    );
}

#[test]
fn the_program_is_searched_in_the_childs_own_path() {
    let mut shim = Shim::start();
    let bin = shim.scratch.0.join("bin");
    std::fs::create_dir(&bin).unwrap();
    file(&bin.join("special"), 0o755, "#!/bin/sh\necho special $0\n");
    let mut spawn = shim.program("a.1", &["special"]);
    spawn.env = vec![format!("PATH=/nowhere:{}", bin.display()).into_bytes().into()];
    let run = shim.spawn(spawn);
    assert_eq!(shim.status(run), Status::Code(0));
    let mut spawn = shim.program("b.1", &["special"]);
    spawn.env = Vec::new();
    spawn.path_fallback = Some(bin.to_str().unwrap().as_bytes().to_vec().into());
    let run = shim.spawn(spawn);
    assert_eq!(shim.status(run), Status::Code(0));
    assert!(shim.text("b.1", "stdout").starts_with("special"));
}

#[test]
fn hazard_37_a_start_that_would_eat_the_reserve_is_refused_with_numbers() {
    let wrapper = Scratch::new();
    let few = hostile(&wrapper.0, "ulimit -n 203");
    let mut shim = Shim::start_with(|_, dir| client::start_shim(&few, dir).unwrap());
    let mut runs = Vec::new();
    for place in 0..10 {
        let spawn = shim.script(&format!("a.{place}"), "exec sleep 1000");
        runs.push(shim.spawn(spawn));
    }
    let text = loop {
        match shim.talk.hear().unwrap() {
            gaffer_shim::message::FromShim::Refused { code, text, .. } => {
                assert_eq!(code, gaffer_shim::message::RefusedCode::NoDescriptors);
                break text;
            }
            _ => continue,
        }
    };
    assert!(text.contains("203"), "{text}");
    // Those that fit live on and can be ended.
    shim.started(runs[0]);
    shim.kill_tree(runs[0]).unwrap();
    assert_eq!(shim.status(runs[0]), Status::Signal(libc::SIGKILL, false));
}

/// A shim of a user without rights, behind these words.
fn unprivileged(before: &str) -> Shim {
    let wrapper = Scratch::new();
    let change = "chown -R 65534 $(dirname $2)/..; chmod 711 $(dirname $2)/..";
    let shim = env!("CARGO_BIN_EXE_gaffer-shim");
    let path = wrapper.0.join("unprivileged");
    let script =
        format!("#!/bin/sh\n{change}\nexec {before} setpriv --reuid=65534 --clear-groups {shim} \"$@\"\n");
    file(&path, 0o755, &script);
    Shim::start_with(|_, dir| client::start_shim(&path, dir).unwrap())
}

#[test]
fn who_may_not_be_less_nice_starts_runs_as_nice_as_it_is() {
    let mut shim = unprivileged("nice -n 5");
    let own = rustix::process::getpriority_process(None).unwrap();
    let usual = |_: &mut gaffer_shim::message::Spawn| {};
    assert_eq!(shim.outcome("a.1", usual, "nice"), format!("{}\n", own + 5));
    // What was asked for is not passed over.
    let mut asked = shim.script("b.1", "exit 0");
    asked.nice = own + 1;
    let asked = shim.spawn(asked);
    let (stage, errno, _) = shim.failed(asked);
    assert_eq!((stage.as_str(), errno), ("nice", libc::EACCES));
}

#[test]
fn an_unprivileged_shim_runs_its_own_user() {
    let mut shim = unprivileged("");
    let cgroup = shim.cgroup.clone();
    let own = |spawn: &mut gaffer_shim::message::Spawn| spawn.env.push(b"HOME=/".to_vec().into());
    assert_eq!(
        shim.outcome("a.1", own, "id -u; cat /proc/self/oom_score_adj"),
        "65534\n0\n"
    );
    let likely = |spawn: &mut gaffer_shim::message::Spawn| spawn.oom_score = 300;
    assert_eq!(
        shim.outcome("c.1", likely, "cat /proc/self/oom_score_adj"),
        "300\n"
    );
    // Its cgroup could not be made; the run goes without and says so.
    if cgroup.is_some() {
        let note = shim.record("Started", |record| match record {
            gaffer_shim::journal::Record::Started { cgroup, note, .. } => {
                Some((cgroup.clone(), note.clone()))
            }
            _ => None,
        });
        assert_eq!(note.0, None);
        assert!(note.1.unwrap().starts_with("cgroup not writable"));
    }
    let mut other = shim.script("b.1", "exit 0");
    other.user = Some(User {
        uid: 1,
        gid: 1,
        groups: vec![1],
    });
    let other = shim.spawn(other);
    let (stage, errno, _) = shim.failed(other);
    assert_eq!((stage.as_str(), errno), ("gid", libc::EPERM));
}

#[test]
fn hazard_36_a_shim_with_a_limit_too_low_ends_at_once_and_leaves_the_reason() {
    let wrapper = Scratch::new();
    let few = hostile(&wrapper.0, "ulimit -n 100");
    let dir = wrapper.0.join("1");
    let mut started = client::start_shim(&few, &dir).unwrap();
    assert_eq!(started.guard.wait().unwrap().code(), Some(1));
    let why = client::refusal(&dir).unwrap();
    assert!(why.contains("is 100") && why.contains("LimitNOFILE="), "{why}");
}

#[test]
fn hazard_36_a_run_that_no_shim_has_room_for_is_refused_for_good() {
    let wrapper = Scratch::new();
    let few = hostile(&wrapper.0, "ulimit -n 200");
    let mut shim = Shim::start_with(|_, dir| client::start_shim(&few, dir).unwrap());
    let mut spawn = shim.script("a.1", "exec sleep 1000");
    spawn.streams = (0..4).map(|n| format!("s{n}")).collect();
    shim.spawn(spawn);
    let (code, text) = loop {
        if let gaffer_shim::message::FromShim::Refused { code, text, .. } = shim.talk.hear().unwrap() {
            break (code, text);
        }
    };
    assert_eq!(code, gaffer_shim::message::RefusedCode::NeverFits);
    assert!(text.contains("needs 11"), "{text}");
}
