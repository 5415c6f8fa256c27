//! Between clone and exec: the child's own setup, in named stages.
//!
//! The child shares the memory of the shim (its spawner sleeps until the exec), so it uses raw system calls
//! only: nothing here allocates, locks, panics or touches errno. What goes wrong is left in the plan.
//!
//! ```text
//! death signal ─ unshare the table ─ session/group ─ limits ─ nice ─ oom_score ─ rlimit ─ stdio ─ pty ─
//! chroot ─ groups ─ gid ─ uid ─ regain ─ no_new_privs ─ umask ─ death signal again ─ cwd ─ stdin ─
//! Born (permission to exec) ─ no death signal ─ parent lives? ─ mask ─ exec
//! ```

use crate::sys::call;
use gaffer_shim::frame;
use std::ffi::{CStr, CString, c_char};
use std::sync::atomic::{AtomicI32, AtomicU32, Ordering::Relaxed};

/// Stages in order; [`Plan::stage`] is an index.
pub const STAGES: [&str; 23] = [
    "clone",
    "parent",
    "fds",
    "session",
    "group",
    "nice",
    "oom_score",
    "rlimit",
    "stdio",
    "pty",
    "groups",
    "gid",
    "uid",
    "regain",
    "no_new_privs",
    "umask",
    "cwd",
    "stdin",
    "journal",
    "mask",
    "exec",
    "chroot",
    "limits",
];

/// First descriptor that is not reserved for children.
pub const RESERVED: i32 = 88;

/// All the child needs, made ready by the spawner. Lives in the spawner's memory.
pub struct Plan {
    /// Stage the child is in.
    pub stage: AtomicU32,
    /// Why it ended before exec.
    pub errno: AtomicI32,
    /// Index of the rlimit or candidate concerned.
    pub detail: AtomicU32,
    pub shim_pid: i32,
    pub own_session: bool,
    pub terminal: bool,
    pub nice: i32,
    /// Text for oom_score_adj; empty: it is what the shim has.
    pub oom_score: Vec<u8>,
    /// Files of cgroups that it writes itself into.
    pub join: Vec<CString>,
    pub rlimits: Vec<(u32, [u64; 2])>,
    /// `(reserved slot, descriptor of the program)`, the latter rising from 0.
    pub descriptors: Vec<(i32, i32)>,
    pub stdin_file: Option<CString>,
    pub user: Option<PlanUser>,
    pub no_new_privs: bool,
    pub umask: u32,
    pub cwd: CString,
    pub root: Option<CString>,
    /// Frame of `Born` whose last four bytes are to be the pid.
    pub born: Vec<u8>,
    pub journal_slot: i32,
    /// Where the program may be, in order.
    pub candidates: Vec<CString>,
    pub argv: Vec<*const c_char>,
    pub envp: Vec<*const c_char>,
}

/// Whom to become.
pub struct PlanUser {
    pub uid: u32,
    pub gid: u32,
    pub groups: Vec<u32>,
}

/// Entry point on the child's own stack.
///
/// # Safety
/// `plan` is a valid [`Plan`] that outlives the child's time before exec.
pub unsafe extern "C" fn enter(plan: *mut u8) -> ! {
    // SAFETY: promised by the caller; only this child writes to it until the spawner wakes.
    let plan = unsafe { &mut *plan.cast::<Plan>() };
    let Err(errno) = set_up(plan);
    plan.errno.store(errno, Relaxed);
    loop {
        // By a signal: should the shim be dead, its guard must not take this for the program's own exit code.
        // SAFETY: numbers only; they end this process and no other.
        unsafe {
            let own = call(libc::SYS_getpid, [0; 5]) as usize;
            call(libc::SYS_kill, [own, libc::SIGKILL as usize, 0, 0, 0]);
        }
    }
}

enum Never {}

fn done(result: isize) -> Result<usize, i32> {
    if result < 0 {
        Err(-result as i32)
    } else {
        Ok(result as usize)
    }
}

/// A system call whose pointers come from the plan.
fn sys(number: libc::c_long, args: [usize; 5]) -> Result<usize, i32> {
    // SAFETY: every pointer passed in this file is to the plan or to this stack.
    done(unsafe { call(number, args) })
}

fn enter_stage(plan: &Plan, stage: u32) {
    plan.stage.store(stage, Relaxed);
}

fn set_up(plan: &mut Plan) -> Result<Never, i32> {
    let unsigned = |value: i32| value as usize;
    enter_stage(plan, 1);
    die_with_parent(plan)?;
    stop_point(plan, 3);
    enter_stage(plan, 2);
    // The descriptor rule: everything above the reserve stays with the shim, the rest is our own from here.
    sys(
        libc::SYS_close_range,
        [unsigned(RESERVED), u32::MAX as usize, CLOSE_RANGE_UNSHARE, 0, 0],
    )?;
    if plan.own_session || plan.terminal {
        enter_stage(plan, 3);
        sys(libc::SYS_setsid, [0; 5])?;
    } else {
        enter_stage(plan, 4);
        sys(libc::SYS_setpgid, [0; 5])?;
    }
    join(plan)?;
    limits(plan)?;
    descriptors(plan)?;
    stop_point(plan, 4);
    if let Some(root) = &plan.root {
        enter_stage(plan, 21);
        sys(libc::SYS_chroot, [root.as_ptr() as usize, 0, 0, 0, 0])?;
        // Out of the directory that lies outside, also should the next one not be there.
        sys(libc::SYS_chdir, [c"/".as_ptr() as usize, 0, 0, 0, 0])?;
    }
    if let Some(user) = &plan.user {
        become_user(plan, user)?;
    }
    if plan.no_new_privs {
        enter_stage(plan, 14);
        sys(libc::SYS_prctl, [libc::PR_SET_NO_NEW_PRIVS as usize, 1, 0, 0, 0])?;
    }
    enter_stage(plan, 15);
    sys(libc::SYS_umask, [plan.umask as usize, 0, 0, 0, 0])?;
    // A change of ids has cleared the death signal.
    die_with_parent(plan)?;
    enter_stage(plan, 16);
    sys(libc::SYS_chdir, [plan.cwd.as_ptr() as usize, 0, 0, 0, 0])?;
    if let Some(path) = &plan.stdin_file {
        enter_stage(plan, 17);
        let flags = (libc::O_RDONLY | libc::O_CLOEXEC | libc::O_NOCTTY) as usize;
        let at = libc::AT_FDCWD as usize;
        let fd = sys(libc::SYS_openat, [at, path.as_ptr() as usize, flags, 0, 0])?;
        sys(libc::SYS_dup3, [fd, 0, 0, 0, 0])?;
    }
    be_born(plan)?;
    execute(plan)
}

const CLOSE_RANGE_UNSHARE: usize = 2;

/// Until the exec, the end of the shim is the end of this child.
fn die_with_parent(plan: &Plan) -> Result<(), i32> {
    sys(
        libc::SYS_prctl,
        [libc::PR_SET_PDEATHSIG as usize, libc::SIGKILL as usize, 0, 0, 0],
    )?;
    parent_lives(plan)
}

/// The shim may have died before the death signal was set, or after it was cleared.
fn parent_lives(plan: &Plan) -> Result<(), i32> {
    let parent = sys(libc::SYS_getppid, [0; 5])?;
    if parent == plan.shim_pid as usize {
        Ok(())
    } else {
        Err(libc::ESRCH)
    }
}

/// Into the groups that limit it.
fn join(plan: &Plan) -> Result<(), i32> {
    enter_stage(plan, 22);
    for (place, path) in plan.join.iter().enumerate() {
        plan.detail.store(place as u32, Relaxed);
        write_file(path, b"0")?;
    }
    Ok(())
}

fn limits(plan: &Plan) -> Result<(), i32> {
    enter_stage(plan, 5);
    let which = libc::PRIO_PROCESS as usize;
    let nice = plan.nice as isize as usize;
    match sys(libc::SYS_setpriority, [which, 0, nice, 0, 0]) {
        // Without privilege under a higher value there is no way back to the usual one: the program has what we have.
        Err(libc::EACCES | libc::EPERM) if plan.nice == 0 => {}
        set => drop(set?),
    }
    enter_stage(plan, 6);
    if !plan.oom_score.is_empty() {
        match set_oom_score(plan) {
            // The files of an undumpable process belong to root, and without privilege we are not root. The
            // memory is the shim's, so for these three calls it can be looked into by its own user.
            Err(libc::EACCES) => {
                let dumpable = libc::PR_SET_DUMPABLE as usize;
                sys(libc::SYS_prctl, [dumpable, 1, 0, 0, 0])?;
                let result = set_oom_score(plan);
                sys(libc::SYS_prctl, [dumpable, 0, 0, 0, 0])?;
                result?;
            }
            result => result?,
        }
    }
    enter_stage(plan, 7);
    for (place, (resource, values)) in plan.rlimits.iter().enumerate() {
        plan.detail.store(place as u32, Relaxed);
        sys(
            libc::SYS_prlimit64,
            [0, *resource as usize, values.as_ptr() as usize, 0, 0],
        )?;
    }
    Ok(())
}

fn set_oom_score(plan: &Plan) -> Result<(), i32> {
    write_file(c"/proc/self/oom_score_adj", &plan.oom_score)
}

fn write_file(path: &CStr, text: &[u8]) -> Result<(), i32> {
    let flags = (libc::O_WRONLY | libc::O_CLOEXEC) as usize;
    let at = libc::AT_FDCWD as usize;
    let fd = sys(libc::SYS_openat, [at, path.as_ptr() as usize, flags, 0, 0])?;
    let written = sys(libc::SYS_write, [fd, text.as_ptr() as usize, text.len(), 0, 0]);
    sys(libc::SYS_close, [fd, 0, 0, 0, 0])?;
    written.map(drop)
}

fn descriptors(plan: &Plan) -> Result<(), i32> {
    enter_stage(plan, 8);
    let mut next = 0;
    for (slot, target) in &plan.descriptors {
        sys(libc::SYS_dup3, [*slot as usize, *target as usize, 0, 0, 0])?;
        next = *target as usize + 1;
    }
    // The rest of the reserve goes, so that a small limit of descriptors leaves room; the journal stays
    // until the exec closes it.
    let journal = plan.journal_slot as usize;
    sys(libc::SYS_close_range, [next, journal - 1, 0, 0, 0])?;
    sys(libc::SYS_close_range, [journal + 1, u32::MAX as usize, 0, 0, 0])?;
    if plan.terminal {
        enter_stage(plan, 9);
        sys(libc::SYS_ioctl, [0, libc::TIOCSCTTY as usize, 0, 0, 0])?;
    }
    Ok(())
}

/// Groups, gid, uid, in this order; then proof that there is no way back.
fn become_user(plan: &Plan, user: &PlanUser) -> Result<(), i32> {
    let (uid, gid) = (user.uid as usize, user.gid as usize);
    let had = sys(libc::SYS_geteuid, [0; 5])?;
    if had == 0 {
        enter_stage(plan, 10);
        let groups = &user.groups;
        sys(
            libc::SYS_setgroups,
            [groups.len(), groups.as_ptr() as usize, 0, 0, 0],
        )?;
    }
    enter_stage(plan, 11);
    sys(libc::SYS_setresgid, [gid, gid, gid, 0, 0])?;
    enter_stage(plan, 12);
    sys(libc::SYS_setresuid, [uid, uid, uid, 0, 0])?;
    enter_stage(plan, 13);
    let clear = libc::PR_CAP_AMBIENT_CLEAR_ALL as usize;
    sys(libc::SYS_prctl, [libc::PR_CAP_AMBIENT as usize, clear, 0, 0, 0])?;
    let mut ids = [0u32; 6];
    let at = ids.as_mut_ptr() as usize;
    sys(libc::SYS_getresuid, [at, at + 4, at + 8, 0, 0])?;
    sys(libc::SYS_getresgid, [at + 12, at + 16, at + 20, 0, 0])?;
    let wanted = [user.uid, user.uid, user.uid, user.gid, user.gid, user.gid];
    if ids != wanted {
        return Err(libc::EPERM);
    }
    if uid != 0 && sys(libc::SYS_setuid, [0; 5]).is_ok() {
        return Err(libc::EPERM);
    }
    Ok(())
}

/// Appends `Born`. A child that cannot write it has no permission to exec.
fn be_born(plan: &mut Plan) -> Result<(), i32> {
    enter_stage(plan, 18);
    stop_point(plan, 5);
    let pid = sys(libc::SYS_getpid, [0; 5])? as u32;
    let length = plan.born.len();
    plan.born[length - 4..].copy_from_slice(&pid.to_be_bytes());
    frame::seal(&mut plan.born);
    let at = plan.born.as_ptr() as usize;
    let written = sys(libc::SYS_write, [plan.journal_slot as usize, at, length, 0, 0])?;
    if written != length {
        return Err(libc::ENOSPC);
    }
    stop_point(plan, 6);
    Ok(())
}

fn execute(plan: &Plan) -> Result<Never, i32> {
    enter_stage(plan, 1);
    sys(libc::SYS_prctl, [libc::PR_SET_PDEATHSIG as usize, 0, 0, 0, 0])?;
    stop_point(plan, 7);
    parent_lives(plan)?;
    enter_stage(plan, 19);
    let none = 0u64;
    let set = libc::SIG_SETMASK as usize;
    sys(libc::SYS_rt_sigprocmask, [set, &raw const none as usize, 0, 8, 0])?;
    enter_stage(plan, 20);
    let (argv, envp) = (plan.argv.as_ptr() as usize, plan.envp.as_ptr() as usize);
    let mut worst = libc::ENOENT;
    for (place, path) in plan.candidates.iter().enumerate() {
        let at = path.as_ptr() as usize;
        let Err(errno) = sys(libc::SYS_execve, [at, argv, envp, 0, 0]) else {
            continue;
        };
        match errno {
            libc::ENOENT if plan.candidates.len() > 1 => {
                // It is there: then its interpreter is not, and going on would hide that.
                let here = libc::AT_FDCWD as usize;
                if sys(libc::SYS_faccessat, [here, at, 0, 0, 0]).is_ok() {
                    plan.detail.store(place as u32, Relaxed);
                    return Err(errno);
                }
            }
            libc::ENOTDIR if plan.candidates.len() > 1 => {}
            libc::EACCES => {
                if worst != libc::EACCES {
                    plan.detail.store(place as u32, Relaxed);
                }
                worst = libc::EACCES;
            }
            _ => {
                plan.detail.store(place as u32, Relaxed);
                return Err(errno);
            }
        }
    }
    Err(worst)
}

/// For tests. When the shim is killed at this very step, the child waits for its death signal while there is one;
/// afterwards it goes on as far as it gets. When the step is only halted, it is the child that stands still.
fn stop_point(plan: &Plan, step: u32) {
    let signal_to = |pid: usize, signal: i32| {
        let _ = sys(libc::SYS_kill, [pid, signal as usize, 0, 0, 0]);
    };
    match crate::stop::due(step) {
        None => {}
        Some(libc::SIGSTOP) => signal_to(sys(libc::SYS_getpid, [0; 5]).unwrap_or(0), libc::SIGSTOP),
        Some(signal) => {
            signal_to(plan.shim_pid as usize, signal);
            if step < 7 {
                loop {
                    let _ = sys(libc::SYS_ppoll, [0; 5]);
                }
            }
        }
    }
}
