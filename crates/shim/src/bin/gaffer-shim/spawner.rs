//! Spawners: prepare, clone, wait for the child's exec.
//!
//! A vfork parent sleeps until the exec, and an exec on a hung filesystem never comes. So the thread that
//! clones is not the one that reaps: control kills a child past its deadline by the pidfd that clone left in
//! [`InFlight`], and lets another spawner start if even that hangs.

use crate::child::Plan;
use crate::control::{Born, Event, Failed};
use crate::disk::{Attach, Desk, DiskJob, Exit};
use crate::limit;
use crate::log::{Journal, now};
use crate::mailbox::Mailbox;
use crate::plan::{self, Failure, Kit};
use crate::pump::{self, Target};
use crate::share::Share;
use crate::sys::{self, CloneArgs, Epoll, Whom};
use gaffer_shim::identity;
use gaffer_shim::journal::Record;
use gaffer_shim::message::Spawn;
use rustix::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd};
use std::collections::VecDeque;
use std::io;
use std::sync::atomic::{AtomicBool, AtomicI32, AtomicU64, Ordering::SeqCst};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};

/// Most spawners at once: each owns a share of the reserved descriptors.
pub const SPAWNERS_MAX: i32 = 6;
/// Spawners from the start: most of them sleep in a child's exec, or for a lock of the kernel, while others prepare.
pub const SPAWNERS: i32 = 4;
const STACK_BYTES: usize = 64 << 10;

/// What control may look at while a spawner sleeps.
#[derive(Default)]
pub struct InFlight {
    /// Boot-time clock of the clone; 0: still queued.
    pub begun_ns: AtomicU64,
    /// Written by the kernel; 0: no child yet.
    pub pid: AtomicI32,
    /// Written by the kernel; 0: no child yet.
    pidfd: AtomicI32,
    /// Control has killed the child.
    pub killed: AtomicBool,
    /// Held while the pidfd may not vanish.
    fate: Mutex<Fate>,
}

/// How a start in flight ended, as far as spawner and control must agree.
#[derive(Clone, Copy, Default, PartialEq)]
enum Fate {
    #[default]
    Open,
    /// Its spawner is back and tells the rest.
    Over,
    /// Control has told that it failed; its spawner says nothing more.
    GivenUp,
}

impl InFlight {
    /// Kills the child if it has not executed yet.
    pub fn kill(&self) {
        let fate = self.fate.lock().unwrap_or_else(PoisonError::into_inner);
        let fd = self.pidfd.load(SeqCst);
        if *fate == Fate::Open && fd > 0 {
            self.killed.store(true, SeqCst);
            // SAFETY: open until the fate is sealed, which this lock prevents.
            let fd = unsafe { rustix::fd::BorrowedFd::borrow_raw(fd) };
            // It may have executed or ended at this very moment; then its spawner knows better.
            let _ = sys::signal(&fd, libc::SIGKILL);
        }
    }
}

impl InFlight {
    /// The child was killed and still does not end: control tells that the start failed. False: too late,
    /// its spawner is back.
    pub fn give_up(&self) -> bool {
        let mut fate = self.fate.lock().unwrap_or_else(PoisonError::into_inner);
        if *fate == Fate::Over {
            return false;
        }
        *fate = Fate::GivenUp;
        true
    }

    /// Its spawner is back. False: control has given up.
    fn seal(&self) -> bool {
        let mut fate = self.fate.lock().unwrap_or_else(PoisonError::into_inner);
        let open = *fate == Fate::Open;
        if open {
            *fate = Fate::Over;
        }
        open
    }
}

/// A start whose intent is on file.
pub struct SpawnJob {
    pub key: u64,
    pub spawn: Box<Spawn>,
    pub inflight: Arc<InFlight>,
    /// Where stdout and stderr end.
    pub begins: [u64; 2],
}

/// What a spawner is given to do.
enum Work {
    Start(SpawnJob),
    /// An end with a standing order: the end is recorded first, in place of the disk thread.
    Succeed(Box<Exit>),
}

/// Starts that wait for a spawner.
#[derive(Default)]
pub struct SpawnQueue {
    waiting: Mutex<Waiting>,
    news: Condvar,
}

#[derive(Default)]
struct Waiting {
    work: VecDeque<Work>,
    /// Spawners that sleep, or were woken and have not yet looked.
    idle: usize,
}

impl SpawnQueue {
    fn lock(&self) -> MutexGuard<'_, Waiting> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// At the end.
    pub fn push(&self, job: SpawnJob) {
        self.push_all(std::iter::once(job));
    }

    /// Several at the end.
    pub fn push_all(&self, jobs: impl Iterator<Item = SpawnJob>) {
        let mut waiting = self.lock();
        let before = waiting.work.len();
        waiting.work.extend(jobs.map(Work::Start));
        let wake = (waiting.work.len() - before).min(waiting.idle);
        drop(waiting);
        for _ in 0..wake {
            self.news.notify_one();
        }
    }

    /// To a spawner that has nothing else to do. Given back if there is none: an end must not wait for a start.
    pub fn hand(&self, exit: Box<Exit>) -> Result<(), Box<Exit>> {
        let mut waiting = self.lock();
        if waiting.idle <= waiting.work.len() {
            return Err(exit);
        }
        waiting.work.push_back(Work::Succeed(exit));
        drop(waiting);
        self.news.notify_one();
        Ok(())
    }

    fn pop(&self) -> Work {
        let mut waiting = self.lock();
        loop {
            if let Some(work) = waiting.work.pop_front() {
                return work;
            }
            waiting.idle += 1;
            waiting = self.news.wait(waiting).unwrap_or_else(PoisonError::into_inner);
            waiting.idle -= 1;
        }
    }
}

/// One thread that clones.
pub struct Spawner {
    pub number: i32,
    pub journal: Arc<Journal>,
    pub queue: Arc<SpawnQueue>,
    pub disk: Arc<Mailbox<DiskJob>>,
    pub desk: Arc<Desk>,
    pub control: Arc<Mailbox<Event>>,
    pub kit: Arc<Kit>,
    /// The disk thread's, and what the guard sees: pipes are known to both before a program can write.
    pub pipes: Arc<Epoll>,
    pub share: &'static Share,
}

/// A stack for children, with a page below that faults.
struct Stack(*mut u8);

impl Stack {
    fn new() -> io::Result<Stack> {
        let (read_write, flags) = (
            libc::PROT_READ | libc::PROT_WRITE,
            libc::MAP_PRIVATE | libc::MAP_ANONYMOUS,
        );
        // SAFETY: a fresh mapping at a place of the kernel's choice.
        let base = unsafe { libc::mmap(std::ptr::null_mut(), STACK_BYTES, read_write, flags, -1, 0) };
        if base == libc::MAP_FAILED {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: within the mapping just made.
        sys::check(unsafe { libc::mprotect(base, 4096, libc::PROT_NONE) })?;
        Ok(Stack(base.cast()))
    }
}

/// What a spawner keeps from one child to the next.
struct Bench {
    stack: Stack,
    /// Segment of the journal that is in its slot; 0: none yet.
    journal: u64,
    /// Directory that cgroups were made in last, and its path.
    base: Option<(String, OwnedFd)>,
}

/// A child that has executed.
struct Running {
    pidfd: OwnedFd,
    pid: u32,
    start_ticks: u64,
    cgroup: Option<String>,
    note: Option<String>,
}

impl Spawner {
    /// Until the process ends.
    pub fn run(self) -> ! {
        let mut bench = Stack::new().map(|stack| Bench {
            stack,
            journal: 0,
            base: None,
        });
        loop {
            let job = match self.queue.pop() {
                Work::Start(job) => job,
                Work::Succeed(exit) => match self.succeed(exit) {
                    Some(job) => job,
                    None => continue,
                },
            };
            job.inflight.begun_ns.store(now().1, SeqCst);
            let outcome = match &mut bench {
                Ok(bench) => self.spawn(&job, bench),
                Err(error) => Err(Failure::system("clone", error, "no stack")),
            };
            if let Err(failure) = outcome {
                self.report_failure(&job, failure);
            }
        }
    }

    /// Does the disk thread's part of an exit, unless it is at work itself: then that is where the exit goes.
    fn succeed(&self, exit: Box<Exit>) -> Option<SpawnJob> {
        match self.desk.try_exit(exit) {
            Ok(job) => job,
            Err(exit) => {
                self.disk.send(DiskJob::Exit(exit));
                None
            }
        }
    }

    fn report_failure(&self, job: &SpawnJob, failure: Failure) {
        let (wall_ms, mono_ns) = now();
        let record = Record::StartFailed {
            run: job.spawn.run,
            stage: failure.stage.to_owned(),
            errno: failure.errno,
            text: failure.text,
            wall_ms,
            mono_ns,
        };
        let failed = Failed {
            cgroup: own_cgroup(&job.spawn),
        };
        self.append(
            record,
            Event::Spawned {
                key: job.key,
                outcome: Err(failed),
                position: Default::default(),
            },
        );
    }

    /// Appends and tells control; without room the disk thread does both later.
    fn append(&self, record: Record, mut event: Event) {
        match self.journal.append(std::slice::from_ref(&record)) {
            Ok(position) => {
                event.set_position(position);
                self.control.send(event);
            }
            Err(_) => self.disk.send(DiskJob::Append {
                record: Box::new(record),
                event,
            }),
        }
    }

    fn spawn(&self, job: &SpawnJob, bench: &mut Bench) -> Result<(), Failure> {
        let spawn = &*job.spawn;
        crate::stop::at(2);
        let mut prepared = plan::prepare(spawn, &self.kit, self.number)?;
        let (cgroup, mut note) = match make_cgroup(spawn, &mut bench.base) {
            Ok(cgroup) => (cgroup, None),
            Err(error) => (None, Some(format!("cgroup not writable: {error}"))),
        };
        let own = cgroup.as_ref().map(|(path, _)| path.as_str());
        let (join, unlimited) = limit::prepare(spawn, own)?;
        prepared.plan.join = join;
        note = note.or(unlimited);
        plan::place(&mut prepared, &self.kit, self.number)?;
        if let Err(error) = self
            .journal
            .pin_to(plan::journal_slot(self.number), &mut bench.journal)
        {
            plan::clear(&prepared, &self.kit);
            return Err(Failure::system("journal", &error, ""));
        }
        // Before the program can write: should the shim be killed, the guard knows what to read. If there is to be
        // no program these pipes just end.
        self.attach(job, std::mem::take(&mut prepared.ours.outputs));
        let cloned = self.clone_child(job, &mut prepared.plan, &bench.stack, cgroup, note);
        self.journal.unpin();
        plan::clear(&prepared, &self.kit);
        let Some(running) = cloned? else {
            return Ok(());
        };
        crate::stop::at(8);
        self.report_start(job, prepared.ours, running);
        Ok(())
    }

    fn clone_child(
        &self,
        job: &SpawnJob,
        plan: &mut Plan,
        stack: &Stack,
        cgroup: Option<(String, OwnedFd)>,
        mut note: Option<String>,
    ) -> Result<Option<Running>, Failure> {
        let inflight = &job.inflight;
        let mut args = clone_args(inflight, stack);
        let mut cgroup_path = None;
        let mut result = -1;
        let before_ns = now().1;
        if let Some((path, fd)) = &cgroup {
            args.flags |= sys::flag::INTO_CGROUP;
            args.cgroup = fd.as_raw_fd() as u64;
            // SAFETY: the stack is this thread's and the plan outlives the sleep in here.
            result = unsafe { sys::clone_into(&args, crate::child::enter, (&raw mut *plan).cast()) };
            cgroup_path = Some(path.clone());
            if result < 0 && -result as i32 != libc::EAGAIN && -result as i32 != libc::ENOMEM {
                let error = io::Error::from_raw_os_error(-result as i32);
                if job.spawn.limits.as_ref().is_some_and(|limits| limits.required) {
                    return Err(Failure::system("cgroup", &error, path));
                }
                note = Some(format!("cannot be born into {path}: {error}"));
                args.flags &= !sys::flag::INTO_CGROUP;
                tree_remove(path);
                cgroup_path = None;
            }
        }
        if cgroup_path.is_none() {
            // SAFETY: as above.
            result = unsafe { sys::clone_into(&args, crate::child::enter, (&raw mut *plan).cast()) };
        }
        if result < 0 {
            let error = io::Error::from_raw_os_error(-result as i32);
            return Err(Failure::system("clone", &error, ""));
        }
        let pid = result as u32;
        let start_ticks = identity::ticks_between(before_ns, now().1)
            .or_else(|| identity::start_ticks(pid))
            .unwrap_or(0);
        let ours_to_tell = inflight.seal();
        // SAFETY: the kernel opened it for us during clone; nobody else owns it.
        let pidfd = unsafe { OwnedFd::from_raw_fd(inflight.pidfd.load(SeqCst)) };
        let errno = plan.errno.load(SeqCst);
        let killed = inflight.killed.load(SeqCst);
        if !ours_to_tell {
            let _ = sys::reap_wait(Whom::Pidfd(pidfd.as_fd()));
            return Ok(None);
        }
        let not_executed = errno != 0 || self.ended_before_exec(&pidfd);
        if !not_executed {
            return Ok(Some(Running {
                pidfd,
                pid,
                start_ticks,
                cgroup: cgroup_path,
                note,
            }));
        }
        // It never became the program: nobody but us may know its status.
        let _ = sys::reap_wait(Whom::Pidfd(pidfd.as_fd()));
        Err(plan::failure(&job.spawn, plan, killed && errno == 0))
    }

    /// A child that was killed before its exec left no errno. Its exit signal tells: only exec sets it to
    /// SIGCHLD, so a wait without `__WALL` does not see it.
    fn ended_before_exec(&self, pidfd: &OwnedFd) -> bool {
        // The pidfd itself cannot be asked: we are woken before a dying child is a zombie.
        match sys::peek(Whom::Pidfd(pidfd.as_fd())) {
            Ok(_) => false,
            Err(error) => error.raw_os_error() == Some(libc::ECHILD),
        }
    }

    fn attach(&self, job: &SpawnJob, outputs: Vec<(String, OwnedFd)>) {
        let spawn = &*job.spawn;
        let dir: Arc<str> = spawn.log_dir.as_str().into();
        let mut pipes = Vec::with_capacity(outputs.len());
        for (name, fd) in outputs {
            let label = spawn.streams.iter().position(|label| *label == name);
            let (name, number) = match (name.as_str(), label) {
                ("stdout", _) => ("stdout".into(), 0),
                ("stderr", _) => ("stderr".into(), 1),
                (_, label) => (name.into(), 2 + label.unwrap_or(0) as u32),
            };
            let target = Target {
                dir: dir.clone(),
                name,
                bounds: spawn.bounds,
            };
            let place = self
                .share
                .pipe_opened(fd.as_raw_fd(), spawn.run, number, spawn.bounds);
            pipes.push(Attach {
                run: spawn.run,
                target,
                // What a label's stream holds is found when it is written to, before anybody asks where it ends.
                begin: job.begins.get(number as usize).copied().unwrap_or(0),
                fd,
                place,
                shared: number > 1 || spawn.pty.is_some(),
            });
        }
        // Nothing can be written yet and nothing ends, as the other ends are still here: no event comes before the
        // disk thread finds this, whenever it looks. A pipe that cannot be watched is closed: the program gets
        // EPIPE, nobody gets silence.
        pipes.retain(|attach| {
            let watched = pump::watch(&self.pipes, &attach.fd).is_ok();
            if !watched {
                self.share.pipe_closed(attach.place);
            }
            watched
        });
        if !pipes.is_empty() {
            self.disk.leave(DiskJob::Attach(pipes));
        }
    }

    fn report_start(&self, job: &SpawnJob, ours: plan::Ours, running: Running) {
        let spawn = &*job.spawn;
        let (wall_ms, mono_ns) = now();
        let inode = identity::pidfd_inode(&running.pidfd);
        let record = Record::Started {
            run: spawn.run,
            pid: running.pid,
            start_ticks: running.start_ticks,
            pidfd_inode: inode,
            cgroup: running.cgroup.clone(),
            wall_ms,
            mono_ns,
            note: running.note,
        };
        crate::tree::leader_born(running.pid);
        let born = Born {
            pid: running.pid,
            pidfd: running.pidfd,
            stdin: ours.stdin,
            terminal: ours.terminal,
            labelled: ours.labelled,
            cgroup: running.cgroup,
            wall_ms,
            mono_ns,
        };
        self.append(
            record,
            Event::Spawned {
                key: job.key,
                outcome: Ok(Box::new(born)),
                position: Default::default(),
            },
        );
    }
}

/// As vfork, with a shared descriptor table and what tells control of the child.
fn clone_args(inflight: &InFlight, stack: &Stack) -> CloneArgs {
    CloneArgs {
        flags: sys::flag::VM
            | sys::flag::VFORK
            | sys::flag::FILES
            | sys::flag::PIDFD
            | sys::flag::PARENT_SETTID
            | sys::flag::CLEAR_SIGHAND,
        pidfd: inflight.pidfd.as_ptr() as u64,
        parent_tid: inflight.pid.as_ptr() as u64,
        // None until the exec, so that reaping strangers cannot take a child that is being made.
        exit_signal: 0,
        stack: stack.0 as u64,
        stack_size: STACK_BYTES as u64,
        ..CloneArgs::default()
    }
}

/// Where a run is born.
pub fn own_cgroup(spawn: &Spawn) -> Option<String> {
    spawn.cgroup.as_ref().map(|base| format!("{base}/{}", spawn.run))
}

fn tree_remove(path: &str) {
    crate::tree::remove(path, 0);
}

/// The run's own cgroup, made and opened. Below the directory of the last one, paths are short.
fn make_cgroup(
    spawn: &Spawn,
    known: &mut Option<(String, OwnedFd)>,
) -> io::Result<Option<(String, OwnedFd)>> {
    use rustix::fs::{Mode, OFlags};
    use rustix::io::Errno;
    let Some(base) = &spawn.cgroup else {
        return Ok(None);
    };
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    if known.as_ref().is_none_or(|(path, _)| path != base) {
        *known = None;
    }
    let name = spawn.run.to_string();
    for again in [true, false] {
        if known.is_none() {
            std::fs::create_dir_all(base)?;
            let fd = rustix::fs::open(base.as_str(), flags, Mode::empty())?;
            *known = Some((base.clone(), fd));
        }
        let Some((_, fd)) = known else { break };
        match rustix::fs::mkdirat(&*fd, name.as_str(), Mode::from_raw_mode(0o777)) {
            // The base was removed, perhaps made again: then this descriptor is of nothing.
            Err(Errno::NOENT | Errno::NODEV) if again => *known = None,
            Ok(()) | Err(Errno::EXIST) => {
                let fd = rustix::fs::openat(&*fd, name.as_str(), flags, Mode::empty())?;
                return Ok(Some((format!("{base}/{name}"), fd)));
            }
            Err(error) => return Err(error.into()),
        }
    }
    Err(io::ErrorKind::NotFound.into())
}
