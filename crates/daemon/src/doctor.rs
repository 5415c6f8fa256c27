//! What the host gives and what it lacks: the checks of `gaffer doctor`.
//!
//! Every check says what was seen, whether that is good, limited or bad, and what to do. None changes anything.

use crate::http::Live;
use gaffer::Handle;
use gaffer_api::types::{Check, Doctor};
use gaffer_config::format_size;
use rustix::fs::{StatVfs, statvfs};
use rustix::process::{Resource, getrlimit};
use std::fs;
use std::path::{Path, PathBuf};

/// How the daemon was started, as far as the checks need it.
#[derive(Clone, Debug)]
pub struct Setup {
    /// State directory.
    pub state_dir: PathBuf,
    /// Control socket.
    pub socket: PathBuf,
    /// Anonymous TCP is refused.
    pub require_token: bool,
}

/// Magic numbers of file systems (statfs(2)) on which locks or shared memory of a store cannot be trusted.
const REMOTE: &[(u64, &str)] = &[
    (0x6969, "NFS"),
    (0x517b, "SMB"),
    (0xff53_4d42, "CIFS"),
    (0xfe53_4d42, "SMB2"),
    (0x6573_5546, "FUSE"),
    (0x0102_1997, "9p"),
    (0x00c3_6400, "Ceph"),
    (0x5346_414f, "AFS"),
    (0x0bd0_0bd0, "Lustre"),
];

const TMPFS: u64 = 0x0102_1994;

/// Free space below which segments are removed soon.
const FREE_SHARE_MIN: u64 = 5;

/// All checks. Without a handle only the host is examined.
pub fn examine(setup: &Setup, handle: Option<&Handle>, listen: &[String]) -> Doctor {
    let mut checks = Vec::new();
    if let Some(handle) = handle {
        checks.push(daemon(setup, handle, listen));
        checks.extend(drain(handle));
        checks.push(containment(handle));
    }
    checks.push(kernel());
    checks.push(disk(&setup.state_dir));
    checks.push(limits());
    checks.push(unit());
    if let Some(handle) = handle {
        checks.push(users(handle));
    }
    Doctor { checks }
}

fn check(name: &str, state: &str, text: impl Into<String>, hint: Option<String>) -> Check {
    Check {
        name: name.to_owned(),
        state: state.to_owned(),
        text: text.into(),
        hint,
    }
}

/// A drained node is no fault, and easily forgotten.
fn drain(handle: &Handle) -> Option<Check> {
    let drain = handle.node().drain?;
    let (_, text) = crate::view::drain_state(&drain);
    let hint = "gaffer node drain --undo, once it is to take work again";
    Some(check(
        "drain",
        "limited",
        text.unwrap_or_default(),
        Some(hint.to_owned()),
    ))
}

fn daemon(setup: &Setup, handle: &Handle, listen: &[String]) -> Check {
    let node = handle.node();
    let mut places: Vec<String> = vec![setup.socket.display().to_string()];
    places.extend(listen.iter().filter(|place| !place.starts_with("unix:")).cloned());
    let silent = node.shims.iter().filter(|shim| shim.state != "connected").count();
    let who = match setup.require_token {
        true => "tcp needs a token",
        false => "tcp is open to this user and root only",
    };
    let text = format!(
        "gafferd {}, pid {}, start {}; {}; {who}",
        env!("CARGO_PKG_VERSION"),
        std::process::id(),
        node.epoch,
        places.join(" and ")
    );
    match silent {
        0 => check("daemon", "good", text, None),
        count => check(
            "daemon",
            "limited",
            format!("{text}; {count} of {} shims do not answer", node.shims.len()),
            Some("see gaffer node show; a stopped shim goes on with SIGCONT".to_owned()),
        ),
    }
}

/// Plugins, if there is a folder of them.
pub fn plugins(plugins: &crate::plugins::Plugins) -> Option<Check> {
    let dir = plugins.dir()?.display();
    let list = plugins.list();
    let skipped: Vec<&str> = list
        .iter()
        .filter_map(|plugin| plugin.problem.as_deref())
        .collect();
    let text = format!("{dir}: {} plugins", list.len());
    Some(match skipped.first() {
        None => check("plugins", "good", text, None),
        Some(first) => check(
            "plugins",
            "limited",
            format!("{text}, {} skipped: {first}", skipped.len()),
            Some("gaffer daemon reload, once that is mended".to_owned()),
        ),
    })
}

/// The daemon's own file: is what it says in force?
pub fn file(path: &Path, live: &Live) -> Check {
    let shown = path.display();
    if let Some(refused) = &live.refused {
        return check(
            "file",
            "bad",
            format!(
                "{shown} was refused at {}: {}; what was in force before still is",
                crate::view::time(refused.at),
                refused.reason
            ),
            Some(format!("gaffer check {shown}, then gaffer daemon reload")),
        );
    }
    match live.later.is_empty() {
        true => check("file", "good", format!("{shown} is in force"), None),
        false => check(
            "file",
            "limited",
            format!(
                "{shown}: changes of {} count at the next start",
                live.later.join(", ")
            ),
            Some("gaffer daemon restart; jobs go on".to_owned()),
        ),
    }
}

/// The store's own look at its file.
pub async fn store(handle: &Handle) -> Check {
    match handle.check_store().await {
        Ok(said) if said == "ok" => check("store", "good", "sqlite, checked", None),
        Ok(said) => check(
            "store",
            "bad",
            format!("sqlite says: {said}"),
            Some("restore the state directory from a backup".to_owned()),
        ),
        Err(error) => check(
            "store",
            "bad",
            error.to_string(),
            Some("make room, or make the state directory writable".to_owned()),
        ),
    }
}

const DELEGATE: &str =
    "give the daemon a cgroup of its own: Delegate=yes in its unit, then gaffer daemon restart";

fn containment(handle: &Handle) -> Check {
    let mut text = match handle.cgroup_base() {
        Some(base) => format!(
            "cgroup v2 below {}: a stop ends everything that a run started",
            base.display()
        ),
        None => {
            "process groups only: a program that hides from its group is looked for by scanning".to_owned()
        }
    };
    let unenforced = handle.unenforced();
    if !unenforced.is_empty() {
        text = format!("{text}; not enforced: {}", those(&unenforced));
    }
    match handle.cgroup_base() {
        Some(_) if unenforced.is_empty() => check("containment", "good", text, None),
        _ => check("containment", "limited", text, Some(DELEGATE.to_owned())),
    }
}

fn kernel() -> Check {
    let release = rustix::system::uname().release().to_string_lossy().into_owned();
    let version = version(&release);
    let has = |wanted: (u32, u32)| version >= wanted;
    let features = [
        ((5, 4), "pidfd"),
        ((5, 7), "birth in a cgroup"),
        ((5, 11), "close_range without copy"),
        ((5, 14), "cgroup.kill"),
        ((6, 15), "exit status survives the shim"),
    ];
    let (given, missing): (Vec<_>, Vec<_>) = features.iter().partition(|(since, _)| has(*since));
    let names =
        |list: &[&((u32, u32), &str)]| list.iter().map(|(_, name)| *name).collect::<Vec<_>>().join(", ");
    let text = format!("{release}: {}", names(&given));
    if !has((5, 4)) {
        return check(
            "kernel",
            "bad",
            text,
            Some("Linux 5.4 or later is needed".to_owned()),
        );
    }
    match missing.iter().any(|(since, _)| *since <= (5, 14)) {
        true => check(
            "kernel",
            "limited",
            format!("{text}; without {}", names(&missing)),
            Some("a newer kernel does more".to_owned()),
        ),
        false => check("kernel", "good", text, None),
    }
}

fn version(release: &str) -> (u32, u32) {
    let mut parts = release
        .split(|char: char| !char.is_ascii_digit())
        .map(|part| part.parse().unwrap_or(0));
    (parts.next().unwrap_or(0), parts.next().unwrap_or(0))
}

fn disk(state_dir: &Path) -> Check {
    let shown = state_dir.display();
    let (kind, space) = match (rustix::fs::statfs(state_dir), statvfs(state_dir)) {
        (Ok(kind), Ok(space)) => (kind, space),
        (Err(error), _) | (_, Err(error)) => {
            return check(
                "disk",
                "bad",
                format!("state dir {shown}: {error}"),
                Some("make it, or choose another with --state-dir".to_owned()),
            );
        }
    };
    // A signed word whose upper half may be the sign: the magic numbers have 32 bits.
    let magic = u64::from_ne_bytes(kind.f_type.to_ne_bytes()) & 0xffff_ffff;
    if let Some((_, name)) = REMOTE.iter().find(|(number, _)| *number == magic) {
        return check(
            "disk",
            "bad",
            format!("state dir {shown} is on {name}, where locks cannot be trusted"),
            Some("choose a local directory with --state-dir".to_owned()),
        );
    }
    let (free, total) = space_of(&space);
    let text = format!(
        "state dir {shown}: {} of {} free",
        format_size(free),
        format_size(total)
    );
    if total > 0 && free.saturating_mul(100) / total < FREE_SHARE_MIN {
        return check(
            "disk",
            "bad",
            format!("{text}; output may be dropped soon"),
            Some("free some, or keep less: logs.size of the jobs".to_owned()),
        );
    }
    match magic == TMPFS {
        true => check(
            "disk",
            "limited",
            format!("{text}, on tmpfs: gone after a reboot"),
            Some("choose a directory on disk with --state-dir".to_owned()),
        ),
        false => check("disk", "good", text, None),
    }
}

fn space_of(space: &StatVfs) -> (u64, u64) {
    (
        space.f_bavail.saturating_mul(space.f_frsize),
        space.f_blocks.saturating_mul(space.f_frsize),
    )
}

fn limits() -> Check {
    let nofile = getrlimit(Resource::Nofile);
    let (soft, hard) = (
        nofile.current.unwrap_or(u64::MAX),
        nofile.maximum.unwrap_or(u64::MAX),
    );
    // An idle run with captured output holds three descriptors of its shim.
    let runs = hard.saturating_sub(gaffer::SHIM_RESERVE) / 3;
    let mut text = format!("descriptors {soft} (hard {hard}): about {runs} runs per shim");
    let is_root = rustix::process::geteuid().is_root();
    let pages: Option<u64> = fs::read_to_string("/proc/sys/fs/pipe-user-pages-soft")
        .ok()
        .and_then(|text| text.trim().parse().ok());
    if let Some(pages) = pages.filter(|pages| !is_root && *pages > 0) {
        text.push_str(&format!(
            "; full pipes for {} streams, smaller ones beyond",
            pages / 16
        ));
    }
    match hard < 4096 {
        true => check(
            "limits",
            "limited",
            text,
            Some("raise LimitNOFILE of the unit, or ulimit -Hn".to_owned()),
        ),
        false => check("limits", "good", text, None),
    }
}

/// Under systemd: does the unit leave jobs alone when the daemon stops?
fn unit() -> Check {
    if std::env::var_os("INVOCATION_ID").is_none() {
        return check(
            "unit",
            "good",
            "not started by systemd; gaffer daemon install writes a unit",
            None,
        );
    }
    let own = fs::read_to_string("/proc/self/cgroup").unwrap_or_default();
    let group = own
        .lines()
        .find_map(|line| line.strip_prefix("0::"))
        .unwrap_or_default();
    if group.ends_with("/daemon") {
        return check("unit", "good", format!("systemd, delegated: {group}"), None);
    }
    check(
        "unit",
        "limited",
        format!("systemd, but the daemon is not in a delegated group of its own ({group})"),
        Some("gaffer daemon install writes a unit with Delegate=yes, DelegateSubgroup=daemon, KillMode=process".to_owned()),
    )
}

/// Jobs that run with the daemon's own user could kill its shims and write its state.
/// The first of many.
fn few(all: &[String], between: &str) -> String {
    let shown: Vec<&str> = all.iter().take(5).map(String::as_str).collect();
    let more = match all.len().saturating_sub(5) {
        0 => String::new(),
        more => format!(" and {more} more"),
    };
    format!("{}{more}", shown.join(between))
}

fn those(unenforced: &[(String, String)]) -> String {
    let all: Vec<String> = unenforced
        .iter()
        .map(|(who, what)| format!("{what} ({who})"))
        .collect();
    few(&all, "; ")
}

fn users(handle: &Handle) -> Check {
    let jobs = handle.jobs(None);
    let without: Vec<String> = jobs
        .iter()
        .filter(|job| job.spec.launch.user.is_none())
        .map(|job| job.view.job.to_string())
        .collect();
    if without.is_empty() {
        return check("users", "good", "every job has a user of its own", None);
    }
    let text = format!(
        "with the daemon's own user, so able to harm it: {}",
        few(&without, ", ")
    );
    match rustix::process::geteuid().is_root() {
        true => check(
            "users",
            "limited",
            format!("as root, {text}"),
            Some("give them a user: user = \"NAME\"".to_owned()),
        ),
        false => check("users", "good", text, None),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_kernel_release_is_read_whatever_follows_the_numbers() {
        assert_eq!(version("6.18.5-fly"), (6, 18));
        assert_eq!(version("5.4.0"), (5, 4));
        assert_eq!(version("odd"), (0, 0));
    }

    #[test]
    fn a_state_directory_that_is_not_there_is_bad_and_says_what_to_do() {
        let check = disk(Path::new("/nonexistent/state"));
        assert_eq!(check.state, "bad");
        assert!(check.hint.is_some());
    }
}
