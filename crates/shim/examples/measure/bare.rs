//! Bare loops: only the system calls that nobody can do without, each in a process of its own.

use crate::program::Told;
use std::ffi::{CString, c_int, c_void};
use std::io::{self, Read, Write};
use std::os::fd::AsRawFd;
use std::path::Path;
use std::process::{Child, ChildStdout, Command, Stdio};
use std::time::Instant;

/// Runs the loop that the words name.
pub fn run(words: &[String]) -> io::Result<()> {
    let word = |place: usize| words.get(place).map_or("", String::as_str);
    let number = |place: usize| word(place).parse().unwrap_or(1);
    match word(0) {
        "spawn" => spawn(number(1), word(2)),
        "respawn" => respawn(word(1), word(2)),
        "pump" => pump(number(1), number(2), number(3), Path::new(word(4))),
        other => Err(io::Error::other(format!("no bare loop `{other}`"))),
    }
}

/// A bare loop as a process of its own.
pub fn command(words: &[&str]) -> io::Result<Command> {
    let mut command = Command::new(std::env::current_exe()?);
    command.arg("bare").args(words).stdin(Stdio::null());
    Ok(command)
}

struct Program {
    path: CString,
    argv: Vec<*const libc::c_char>,
    _words: Vec<CString>,
}

extern "C" fn exec(program: *mut c_void) -> c_int {
    // SAFETY: the parent sleeps until the exec, so what it points at is alive and not changed.
    unsafe {
        let program = &*program.cast::<Program>();
        let none = [std::ptr::null::<libc::c_char>()];
        libc::execve(program.path.as_ptr(), program.argv.as_ptr(), none.as_ptr());
        libc::_exit(127)
    }
}

/// Starts programs the way vfork does: memory shared, parent asleep until the exec.
struct Cloner {
    program: Box<Program>,
    stack: Vec<u8>,
}

impl Cloner {
    fn new(words: &[&str]) -> io::Result<Cloner> {
        let words = words
            .iter()
            .map(|word| Ok(CString::new(*word)?))
            .collect::<io::Result<Vec<CString>>>()?;
        let path = words.first().cloned().unwrap_or_default();
        let argv = words
            .iter()
            .map(|word| word.as_ptr())
            .chain([std::ptr::null()])
            .collect();
        let program = Box::new(Program {
            path,
            argv,
            _words: words,
        });
        Ok(Cloner {
            program,
            stack: vec![0; 64 << 10],
        })
    }

    fn start(&mut self) -> io::Result<c_int> {
        let length = self.stack.len();
        let program: *mut Program = &raw mut *self.program;
        // SAFETY: the stack is ours and not used by anybody else while the parent sleeps; its end is aligned to 16.
        let pid = unsafe {
            let end = self.stack.as_mut_ptr().add(length);
            let top = end.wrapping_sub(end as usize % 16);
            let flags = libc::CLONE_VM | libc::CLONE_VFORK | libc::SIGCHLD;
            libc::clone(exec, top.cast(), flags, program.cast())
        };
        if pid < 0 {
            Err(io::Error::last_os_error())
        } else {
            Ok(pid)
        }
    }
}

fn reap(pid: c_int) {
    // SAFETY: no status is asked for.
    unsafe { libc::waitpid(pid, std::ptr::null_mut(), 0) };
}

/// Prints two lines of microseconds: all starts, all ends.
fn spawn(count: usize, path: &str) -> io::Result<()> {
    let mut cloner = Cloner::new(&[path])?;
    let begun = Instant::now();
    let pids = (0..count)
        .map(|_| cloner.start())
        .collect::<io::Result<Vec<c_int>>>()?;
    println!("{}", begun.elapsed().as_micros());
    // Somebody else's programs would be running by now as well.
    std::thread::sleep(std::time::Duration::from_millis(200));
    let begun = Instant::now();
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
        reap(pid);
    }
    println!("{}", begun.elapsed().as_micros());
    Ok(())
}

/// One child at a time, started again when it ends; somebody else kills it. Ends with its standard input.
fn respawn(path: &str, told: &str) -> io::Result<()> {
    let mut cloner = Cloner::new(&[path, told])?;
    loop {
        let pid = cloner.start()?;
        reap(pid);
        // SAFETY: a number.
        if unsafe { libc::getppid() } == 1 {
            return Ok(());
        }
    }
}

/// Kills the loop, then its last child.
pub fn end_respawn(mut loop_: Child, last: u32) -> io::Result<()> {
    let pidfd = gaffer_shim::client::pidfd(last)?;
    loop_.kill()?;
    loop_.wait()?;
    Ok(rustix::process::pidfd_send_signal(
        pidfd,
        rustix::process::Signal::KILL,
    )?)
}

/// The next pid that a loop's child tells, and when.
pub fn told(told: &mut Told) -> io::Result<(u32, Instant)> {
    Ok((told.next()?, Instant::now()))
}

/// Reads and writes until all writers are gone; prints the CPU time it took, in microseconds.
fn pump(writers: usize, block: usize, each: usize, dir: &Path) -> io::Result<()> {
    let mut children = Vec::new();
    let mut open: Vec<(ChildStdout, Segments)> = Vec::new();
    for number in 0..writers {
        let mut child = crate::logs::writer(block, each, &dir.join(format!("report-{number}")))?
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn()?;
        let pipe = child.stdout.take().ok_or_else(|| io::Error::other("no pipe"))?;
        open.push((pipe, Segments::new(dir, number)?));
        children.push(child);
    }
    let mut buffer = vec![0_u8; 65_536];
    while !open.is_empty() {
        let mut polled: Vec<libc::pollfd> = open
            .iter()
            .map(|(pipe, _)| libc::pollfd {
                fd: pipe.as_raw_fd(),
                events: libc::POLLIN,
                revents: 0,
            })
            .collect();
        // SAFETY: the array is as long as said.
        unsafe { libc::poll(polled.as_mut_ptr(), polled.len() as libc::nfds_t, -1) };
        let mut ready = polled.iter().map(|one| one.revents != 0);
        let mut failed = Ok(());
        open.retain_mut(|(pipe, segments)| {
            if !ready.next().unwrap_or(false) {
                return true;
            }
            match pipe
                .read(&mut buffer)
                .and_then(|read| segments.write(&buffer[..read]).map(|()| read))
            {
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

/// Files of 8 MiB, twelve of them kept, as the shim's are.
struct Segments {
    prefix: std::path::PathBuf,
    file: std::fs::File,
    written: usize,
    number: usize,
}

impl Segments {
    fn new(dir: &Path, writer: usize) -> io::Result<Segments> {
        let prefix = dir.join(format!("bare-{writer}"));
        let file = std::fs::File::create(prefix.with_extension("0"))?;
        Ok(Segments {
            prefix,
            file,
            written: 0,
            number: 0,
        })
    }

    fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
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
