//! What a process inherited, as one JSON document.

use crate::arguments::Arguments;
use crate::{idle, output};
use serde_json::{Map, Value, json};
use std::ffi::c_int;

/// Prints it, or puts it into `--to FILE` in one step (a reader never sees half of it).
pub fn dump(arguments: &mut Arguments) -> Result<c_int, String> {
    // Descriptors first: whatever is opened later is ours.
    let descriptors = descriptors();
    let text = format!("{:#}\n", all(descriptors));
    match arguments.text("--to") {
        None => {
            output::write_all(1, text.as_bytes());
        }
        Some(path) => {
            let draft = format!("{path}.new");
            let put = std::fs::write(&draft, &text).and_then(|()| std::fs::rename(&draft, &path));
            put.map_err(|error| format!("{path}: {error}"))?;
        }
    }
    if arguments.flag("--then-idle") {
        idle()
    } else {
        Ok(0)
    }
}

fn descriptors() -> Value {
    let mut found = Map::new();
    for number in 0..65_536 {
        // SAFETY: asks for flags of a number that may not be open; nothing is changed.
        let flags = unsafe { libc::fcntl(number, libc::F_GETFD) };
        if flags < 0 {
            continue;
        }
        let target = std::fs::read_link(format!("/proc/self/fd/{number}"));
        let target = target
            .map(|path| path.to_string_lossy().into_owned())
            .unwrap_or_default();
        // SAFETY: only looks at the descriptor.
        let terminal = unsafe { libc::isatty(number) } == 1;
        let entry = json!({"target": target, "cloexec": flags & libc::FD_CLOEXEC != 0, "terminal": terminal});
        found.insert(number.to_string(), entry);
    }
    Value::Object(found)
}

fn all(descriptors: Value) -> Value {
    let status = status();
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap_or_default();
    let stat: Vec<&str> = stat
        .rsplit_once(')')
        .map(|(_, rest)| rest.split_whitespace().collect())
        .unwrap_or_default();
    // Fields of proc(5) are numbered from 1, and two stand before the parenthesis.
    let field = |number: usize| stat.get(number - 3).and_then(|text| text.parse::<i64>().ok());
    let line = |path: &str| {
        std::fs::read_to_string(path)
            .map(|text| text.trim().to_owned())
            .unwrap_or_default()
    };
    let env: Map<String, Value> = std::env::vars_os()
        .map(|(key, value)| (key.to_string_lossy().into_owned(), json!(value.to_string_lossy())))
        .collect();
    let argv: Vec<String> = std::env::args_os()
        .map(|word| word.to_string_lossy().into_owned())
        .collect();
    json!({
        "pid": std::process::id(), "ppid": field(4), "pgid": field(5), "sid": field(6),
        "tty": field(7), "tty_group": field(8), "nice": field(19),
        "argv": argv, "env": env,
        "cwd": std::env::current_dir().map(|path| path.to_string_lossy().into_owned()).unwrap_or_default(),
        "fds": descriptors,
        "signals": {
            "blocked": status("SigBlk"), "ignored": status("SigIgn"), "caught": status("SigCgt"),
            "pending": status("SigPnd"), "shared_pending": status("ShdPnd"),
        },
        "umask": status("Umask"),
        "uids": numbers(&status("Uid")), "gids": numbers(&status("Gid")), "groups": numbers(&status("Groups")),
        "caps": {
            "inheritable": status("CapInh"), "permitted": status("CapPrm"), "effective": status("CapEff"),
            "bounding": status("CapBnd"), "ambient": status("CapAmb"),
        },
        "no_new_privs": status("NoNewPrivs"), "seccomp": status("Seccomp"), "threads": status("Threads"),
        "oom_score_adj": line("/proc/self/oom_score_adj"),
        "cgroup": line("/proc/self/cgroup"),
        "rlimits": rlimits(),
        "parent_death_signal": parent_death_signal(),
        // SAFETY: asks for a flag, no memory is touched.
        "dumpable": unsafe { libc::prctl(libc::PR_GET_DUMPABLE) },
        "regains_root": regains_root(),
    })
}

fn status() -> impl Fn(&str) -> String {
    let text = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    move |key: &str| {
        let value = text
            .lines()
            .find_map(|line| line.strip_prefix(key)?.strip_prefix(':'));
        value.unwrap_or_default().trim().to_owned()
    }
}

fn numbers(text: &str) -> Vec<u64> {
    text.split_whitespace()
        .filter_map(|word| word.parse().ok())
        .collect()
}

fn parent_death_signal() -> c_int {
    let mut signal: c_int = 0;
    // SAFETY: the call writes one int to the place it is given.
    unsafe { libc::prctl(libc::PR_GET_PDEATHSIG, &raw mut signal) };
    signal
}

/// Whether a program that is not root can become root again: null for root itself.
fn regains_root() -> Value {
    // SAFETY: no arguments.
    if unsafe { libc::geteuid() } == 0 {
        return Value::Null;
    }
    // SAFETY: plain calls; if one succeeds, that is the finding.
    json!(unsafe {
        libc::setuid(0) == 0 || libc::seteuid(0) == 0 || libc::setgroups(0, std::ptr::null()) == 0
    })
}

fn rlimits() -> Value {
    let kinds = [
        ("cpu", libc::RLIMIT_CPU),
        ("fsize", libc::RLIMIT_FSIZE),
        ("data", libc::RLIMIT_DATA),
        ("stack", libc::RLIMIT_STACK),
        ("core", libc::RLIMIT_CORE),
        ("rss", libc::RLIMIT_RSS),
        ("nproc", libc::RLIMIT_NPROC),
        ("nofile", libc::RLIMIT_NOFILE),
        ("memlock", libc::RLIMIT_MEMLOCK),
        ("as", libc::RLIMIT_AS),
        ("locks", libc::RLIMIT_LOCKS),
        ("sigpending", libc::RLIMIT_SIGPENDING),
        ("msgqueue", libc::RLIMIT_MSGQUEUE),
        ("nice", libc::RLIMIT_NICE),
        ("rtprio", libc::RLIMIT_RTPRIO),
        ("rttime", libc::RLIMIT_RTTIME),
    ];
    let mut found = Map::new();
    for (name, kind) in kinds {
        let mut limit = libc::rlimit {
            rlim_cur: 0,
            rlim_max: 0,
        };
        // SAFETY: the call fills the structure it is given.
        if unsafe { libc::getrlimit(kind, &raw mut limit) } == 0 {
            let shown = |value: libc::rlim_t| {
                if value == libc::RLIM_INFINITY {
                    json!("unlimited")
                } else {
                    json!(value)
                }
            };
            found.insert(
                name.to_owned(),
                json!([shown(limit.rlim_cur), shown(limit.rlim_max)]),
            );
        }
    }
    Value::Object(found)
}
