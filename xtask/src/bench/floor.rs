//! The floor: what a run asks of the kernel when it has a cgroup, two pipes and two facts on file, and nothing else.
//!
//! `xtask bench bare floor N PROGRAM` prints microseconds of starting and of ending N programs, as the bare loop does;
//! with `ahead` the cgroups are there before the stopwatch starts, with `none` there are none. Two
//! threads start, because a machine with two cores lets them; one ends. Nobody decides anything, nobody is told, no
//! environment is built: what a supervisor of this design takes is more than this.

use anyhow::{Context, Result, bail, ensure};
use gaffer_shim::clone::{CloneArgs, clone_into, flag};
use gaffer_testkit::process::cgroup_parent;
use rustix::fs::{Mode, OFlags};
use rustix::pipe::{PipeFlags, pipe_with};
use std::ffi::CString;
use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Instant;

const STARTERS: usize = 2;
const STACK: usize = 64 << 10;
/// Slots of a starter lie here: above is the shared table, below is the child's own.
const RESERVED: i32 = 32;
/// Bytes of an `Intent`, a `Started` and an `Exited`.
const FACTS: [usize; 3] = [256, 200, 120];

struct Child {
    slots: [i32; 2],
    path: CString,
    argv: [*const libc::c_char; 2],
    envp: [*const libc::c_char; 1],
}

/// Where programs are born.
#[derive(Clone, Copy, PartialEq)]
enum Births {
    /// In a cgroup made at the start.
    Made,
    /// In a cgroup that is there already.
    Ahead,
    /// In ours.
    None,
}

/// A run's ends of things.
struct Run {
    pidfd: OwnedFd,
    pipes: [OwnedFd; 2],
}

extern "C" fn enter(child: *mut u8) -> ! {
    const UNSHARE: u32 = 2;
    // SAFETY: the starter sleeps until the exec, so what it points at is alive; plain system calls only.
    unsafe {
        let child = &*child.cast::<Child>();
        libc::syscall(libc::SYS_close_range, RESERVED, u32::MAX, UNSHARE);
        for (slot, own) in child.slots.iter().zip(1..) {
            libc::syscall(libc::SYS_dup3, *slot, own, 0);
        }
        libc::syscall(libc::SYS_close_range, 3, u32::MAX, 0);
        libc::execve(child.path.as_ptr(), child.argv.as_ptr(), child.envp.as_ptr());
        libc::_exit(127)
    }
}

/// Removes the groups also when something failed.
struct Groups(PathBuf);

impl Drop for Groups {
    fn drop(&mut self) {
        gaffer_testkit::process::end_cgroup(&self.0);
    }
}

/// Prints two lines of microseconds: all starts, all ends.
pub fn floor(count: usize, program: &str, births: Option<&str>) -> Result<()> {
    let births = match births {
        None => Births::Made,
        Some("ahead") => Births::Ahead,
        Some("none") => Births::None,
        Some(other) => bail!("there is no floor `{other}`"),
    };
    let parent = cgroup_parent().context("no cgroup v2 hierarchy")?;
    let base = Groups(parent.join(format!("gaffer-floor-{}", std::process::id())));
    std::fs::create_dir(&base.0)?;
    let dir = tempfile::Builder::new().prefix("gaffer-bench-").tempdir()?;
    let journal = File::options()
        .append(true)
        .create(true)
        .open(dir.path().join("journal"))?;
    raise_descriptors()?;
    for _ in 0..RESERVED {
        // Until the end of this process, but for the slots of starters.
        std::mem::forget(File::open("/dev/null")?);
    }
    if births == Births::Ahead {
        for place in 0..count {
            std::fs::create_dir(base.0.join(group_name(place)))?;
        }
    }
    let next = AtomicUsize::new(0);
    let begun = Instant::now();
    let mut runs = Vec::with_capacity(count);
    std::thread::scope(|scope| -> Result<()> {
        let start = |number| starter(number, count, program, (&base.0, births), &journal, &next);
        let threads: Vec<_> = (0..STARTERS)
            .map(|number| scope.spawn(move || start(number)))
            .collect();
        for thread in threads {
            runs.extend(thread.join().ok().context("a starter")??);
        }
        Ok(())
    })?;
    let started = begun.elapsed().as_micros();
    println!("started");
    std::io::stdin().read_exact(&mut [0])?;
    println!("{started}");
    let begun = Instant::now();
    for run in &runs {
        signal(&run.pidfd)?;
    }
    for run in runs {
        end(run, &journal)?;
    }
    println!("{}", begun.elapsed().as_micros());
    Ok(())
}

fn group_name(place: usize) -> String {
    format!("r{place}")
}

fn raise_descriptors() -> Result<()> {
    let mut limit = rustix::process::getrlimit(rustix::process::Resource::Nofile);
    limit.current = limit.maximum;
    Ok(rustix::process::setrlimit(
        rustix::process::Resource::Nofile,
        limit,
    )?)
}

fn starter(
    number: usize,
    count: usize,
    program: &str,
    (base, births): (&Path, Births),
    journal: &File,
    next: &AtomicUsize,
) -> Result<Vec<Run>> {
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let base = rustix::fs::open(base, flags, Mode::empty())?;
    let path = CString::new(program)?;
    let argv = [path.as_ptr(), std::ptr::null()];
    // Below RESERVED, and nobody else's: the numbers of the files that fill the reserve.
    let first = 8 + 2 * i32::try_from(number)?;
    let mut child = Child {
        slots: [first, first + 1],
        path,
        argv,
        envp: [std::ptr::null()],
    };
    let mut stack = vec![0_u8; STACK];
    let (fact, mut runs) = (vec![b'.'; FACTS[0]], Vec::new());
    loop {
        let place = next.fetch_add(1, Ordering::Relaxed);
        if place >= count {
            for slot in child.slots {
                // The last ends to write to: else these pipes would never end.
                // SAFETY: a slot of ours, which nobody uses any more.
                unsafe { libc::close(slot) };
            }
            return Ok(runs);
        }
        let name = group_name(place);
        if births == Births::Made {
            rustix::fs::mkdirat(&base, name.as_str(), Mode::from_raw_mode(0o777))?;
        }
        let group = match births {
            Births::None => None,
            _ => Some(rustix::fs::openat(&base, name.as_str(), flags, Mode::empty())?),
        };
        let pipes = pipes_into(child.slots)?;
        (&*journal).write_all(&fact)?;
        let mut pidfd = -1_i32;
        let args = CloneArgs {
            flags: flag::VM
                | flag::VFORK
                | flag::FILES
                | flag::PIDFD
                | flag::CLEAR_SIGHAND
                | group.as_ref().map_or(0, |_| flag::INTO_CGROUP),
            pidfd: &raw mut pidfd as u64,
            exit_signal: libc::SIGCHLD as u64,
            stack: stack.as_mut_ptr() as u64,
            stack_size: STACK as u64,
            cgroup: group.as_ref().map_or(0, |group| group.as_raw_fd() as u64),
            ..CloneArgs::default()
        };
        // SAFETY: the stack is this thread's, which sleeps until the exec.
        let pid = unsafe { clone_into(&args, enter, (&raw mut child).cast()) };
        ensure!(
            pid > 0,
            "clone3: {}",
            std::io::Error::from_raw_os_error(-pid as i32)
        );
        (&*journal).write_all(fact.get(..FACTS[1]).unwrap_or_default())?;
        // SAFETY: the kernel opened it for us.
        let pidfd = unsafe { OwnedFd::from_raw_fd(pidfd) };
        runs.push(Run { pidfd, pipes });
    }
}

/// Two pipes whose other ends are in the slots.
fn pipes_into(slots: [i32; 2]) -> Result<[OwnedFd; 2]> {
    let (out, out_end) = pipe_with(PipeFlags::CLOEXEC | PipeFlags::NONBLOCK)?;
    let (err, err_end) = pipe_with(PipeFlags::CLOEXEC | PipeFlags::NONBLOCK)?;
    for (end, slot) in [&out_end, &err_end].into_iter().zip(slots) {
        // SAFETY: the slot holds a file of ours that nobody uses.
        let copied = unsafe { libc::dup3(end.as_raw_fd(), slot, libc::O_CLOEXEC) };
        ensure!(copied >= 0, "dup3");
    }
    Ok([out, err])
}

fn signal(pidfd: &OwnedFd) -> Result<()> {
    Ok(rustix::process::pidfd_send_signal(
        pidfd,
        rustix::process::Signal::TERM,
    )?)
}

/// Peek, drain, append, reap.
fn end(run: Run, journal: &File) -> Result<()> {
    use rustix::process::{WaitId, WaitIdOptions, waitid};
    use std::os::fd::AsFd;
    let status = |options| waitid(WaitId::PidFd(run.pidfd.as_fd()), WaitIdOptions::EXITED | options);
    status(WaitIdOptions::NOWAIT)?;
    for pipe in run.pipes {
        // Empty, and without a writer.
        let _end = rustix::io::read(&pipe, &mut [0])?;
    }
    (&*journal).write_all(&[b'.'; FACTS[2]])?;
    status(WaitIdOptions::empty())?;
    Ok(())
}
