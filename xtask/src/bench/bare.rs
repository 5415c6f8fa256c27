//! Bare loops: only the system calls that nobody can do without, in a process of their own.
//!
//! `xtask bench bare spawn N PROGRAM` prints microseconds of starting and of ending N programs;
//! `floor N PROGRAM [ahead|none]` does the same with what a run needs (see `floor.rs`);
//! `resident` is a worker of a queue that says done to everything;
//! `steps N` starts and waits for N programs, 64 at once, and prints how many in a second;
//! `respawn PROGRAM` keeps one running until its standard input ends;
//! `pump WRITERS DIR -- PROGRAM…` moves what writers write into files.

use anyhow::{Context, Result, bail};
use rustix::event::{PollFd, PollFlags, poll};
use std::ffi::{CString, c_int, c_void};
use std::io::{Read, Write};
use std::os::fd::AsFd;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Instant;

/// Runs the loop that the words name.
pub fn run(words: &[String]) -> Result<()> {
    let word = |place: usize| words.get(place).map(String::as_str).context("a word is missing");
    match word(0)? {
        "spawn" => spawn(word(1)?.parse()?, word(2)?),
        "floor" => super::floor::floor(word(1)?.parse()?, word(2)?, word(3).ok()),
        "respawn" => respawn(word(1)?),
        "resident" => super::queue::resident(),
        "steps" => super::tasks::bare_steps(word(1)?.parse()?),
        "pump" => pump(
            word(1)?.parse()?,
            Path::new(word(2)?),
            words.get(4..).unwrap_or_default(),
        ),
        other => bail!("there is no bare loop `{other}`"),
    }
}

struct Program {
    path: CString,
    argv: [*const libc::c_char; 2],
    envp: [*const libc::c_char; 1],
}

extern "C" fn exec(program: *mut c_void) -> c_int {
    // SAFETY: the parent sleeps until the exec, so what it points at is alive and not changed.
    unsafe {
        let program = &*program.cast::<Program>();
        libc::execve(
            program.path.as_ptr(),
            program.argv.as_ptr(),
            program.envp.as_ptr(),
        );
        libc::_exit(127)
    }
}

/// Starts programs the way vfork does: memory shared, parent asleep until the exec.
struct Cloner {
    program: Box<Program>,
    stack: Vec<u8>,
}

impl Cloner {
    fn new(path: &str) -> Result<Cloner> {
        let path = CString::new(path)?;
        let argv = [path.as_ptr(), std::ptr::null()];
        let program = Box::new(Program {
            path,
            argv,
            envp: [std::ptr::null()],
        });
        Ok(Cloner {
            program,
            stack: vec![0; 64 * 1024],
        })
    }

    fn start(&mut self) -> Result<c_int> {
        let length = self.stack.len();
        let program: *mut Program = &raw mut *self.program;
        // SAFETY: the stack is ours and not used by anybody else while the parent sleeps; its end is aligned to 16.
        let pid = unsafe {
            let end = self.stack.as_mut_ptr().add(length);
            let top = end.wrapping_sub(end as usize % 16);
            libc::clone(
                exec,
                top.cast(),
                libc::CLONE_VM | libc::CLONE_VFORK | libc::SIGCHLD,
                program.cast(),
            )
        };
        if pid < 0 {
            Err(std::io::Error::last_os_error()).context("clone")
        } else {
            Ok(pid)
        }
    }
}

fn reap(pid: c_int) -> Result<()> {
    // SAFETY: no status is asked for.
    if unsafe { libc::waitpid(pid, std::ptr::null_mut(), 0) } < 0 {
        return Err(std::io::Error::last_os_error()).context("waitpid");
    }
    Ok(())
}

/// Prints four lines of microseconds: all starts, the first hundred, the last hundred, all ends.
fn spawn(count: usize, path: &str) -> Result<()> {
    let mut cloner = Cloner::new(path)?;
    let mut pids = Vec::with_capacity(count);
    let mut times = Vec::with_capacity(count + 1);
    times.push(Instant::now());
    for _ in 0..count {
        pids.push(cloner.start()?);
        times.push(Instant::now());
    }
    // Whoever reads the announcements says when all have come: an end before that would be measured with a start.
    println!("started");
    std::io::stdin().read_exact(&mut [0])?;
    let between = |from: usize, to: usize| match (times.get(from), times.get(to)) {
        (Some(from), Some(to)) => (*to - *from).as_micros(),
        _ => 0,
    };
    let few = 100.min(count);
    println!(
        "{}\n{}\n{}",
        between(0, count),
        between(0, few),
        between(count - few, count)
    );
    let stopped = Instant::now();
    for pid in &pids {
        #[expect(
            clippy::disallowed_methods,
            reason = "our own children, not yet reaped: the numbers are theirs"
        )]
        // SAFETY: plain numbers.
        unsafe {
            libc::kill(*pid, libc::SIGTERM)
        };
    }
    for pid in pids {
        reap(pid)?;
    }
    println!("{}", stopped.elapsed().as_micros());
    Ok(())
}

/// One child at a time, started again when it ends; somebody else kills it. Ends when it is itself killed.
fn respawn(path: &str) -> Result<()> {
    let mut cloner = Cloner::new(path)?;
    loop {
        let pid = cloner.start()?;
        reap(pid)?;
    }
}

/// Reads and writes until all writers are gone; prints the CPU time it took, in microseconds.
fn pump(writers: usize, dir: &Path, program: &[String]) -> Result<()> {
    let (name, words) = program.split_first().context("a program")?;
    let mut children = Vec::new();
    let mut open = Vec::new();
    for number in 0..writers {
        let mut command = Command::new(name);
        command.args(words.iter().map(|word| word.replace("%n", &number.to_string())));
        let mut child = command.stdin(Stdio::null()).stdout(Stdio::piped()).spawn()?;
        let pipe = child.stdout.take().context("a pipe")?;
        open.push((pipe, Segments::new(dir, number)?));
        children.push(child);
    }
    let mut block = vec![0_u8; 65_536];
    while !open.is_empty() {
        let ready: Vec<bool> = {
            let mut polled: Vec<PollFd<'_>> = open
                .iter()
                .map(|(pipe, _)| PollFd::from_borrowed_fd(pipe.as_fd(), PollFlags::IN))
                .collect();
            poll(&mut polled, None)?;
            polled.iter().map(|one| !one.revents().is_empty()).collect()
        };
        let mut place = 0;
        let mut failed = Ok(());
        open.retain_mut(|(pipe, segments)| {
            place += 1;
            if !ready.get(place - 1).copied().unwrap_or(false) {
                return true;
            }
            let moved = pipe.read(&mut block).map_err(anyhow::Error::from);
            match moved.and_then(|read| {
                segments
                    .write(block.get(..read).unwrap_or_default())
                    .map(|()| read)
            }) {
                Ok(read) => read > 0,
                Err(error) => {
                    failed = Err(error);
                    false
                }
            }
        });
        failed?;
    }
    for mut child in children {
        child.wait()?;
    }
    let usage = rustix::time::clock_gettime(rustix::time::ClockId::ProcessCPUTime);
    println!("{}", usage.tv_sec * 1_000_000 + usage.tv_nsec / 1000);
    Ok(())
}

/// Files of 8 MiB, twelve of them kept: what a job's stream has by default.
struct Segments {
    prefix: std::path::PathBuf,
    file: std::fs::File,
    written: usize,
    number: usize,
}

impl Segments {
    fn new(dir: &Path, writer: usize) -> Result<Segments> {
        let prefix = dir.join(format!("bare-{writer}"));
        let file = std::fs::File::create(prefix.with_extension("0"))?;
        Ok(Segments {
            prefix,
            file,
            written: 0,
            number: 0,
        })
    }

    fn write(&mut self, bytes: &[u8]) -> Result<()> {
        self.file.write_all(bytes)?;
        self.written += bytes.len();
        if self.written >= 8 << 20 {
            self.number += 1;
            self.written = 0;
            self.file = std::fs::File::create(self.prefix.with_extension(self.number.to_string()))?;
            if let Some(old) = self.number.checked_sub(12) {
                std::fs::remove_file(self.prefix.with_extension(old.to_string()))?;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bench::announce::Announcer;
    use std::time::Duration;

    #[test]
    fn programs_started_by_the_bare_loop_announce_themselves_and_end_on_term() {
        let mut announcer = Announcer::new().unwrap();
        let mut cloner = Cloner::new(announcer.program.to_str().unwrap()).unwrap();
        let mut pids: Vec<u32> = (0..50)
            .map(|_| u32::try_from(cloner.start().unwrap()).unwrap())
            .collect();
        let told = announcer.wait(50, Duration::from_secs(30)).unwrap();
        let mut told: Vec<u32> = told.into_iter().map(|(pid, _)| pid).collect();
        told.sort_unstable();
        pids.sort_unstable();
        assert_eq!(told, pids);
        for pid in pids {
            gaffer_testkit::process::Handle::open(pid)
                .unwrap()
                .signal(rustix::process::Signal::TERM);
            reap(c_int::try_from(pid).unwrap()).unwrap();
        }
        assert!(announcer.wait(1, Duration::from_millis(1)).is_err());
    }

    #[test]
    fn segments_of_the_bare_pump_are_bounded() {
        let dir = tempfile::tempdir().unwrap();
        let mut segments = Segments::new(dir.path(), 0).unwrap();
        let block = vec![0; 1 << 20];
        for _ in 0..8 * 20 {
            segments.write(&block).unwrap();
        }
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 12);
    }
}
