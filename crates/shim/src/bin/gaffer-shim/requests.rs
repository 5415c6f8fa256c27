//! What a daemon asks of a living run: signals, kills, freezing, input, terminal size.

use crate::control::{Control, Live, Phase, token};
use crate::plan::{LABELS_MAX, resize};
use crate::sys;
use crate::timers::Timer;
use crate::tree::Tree;
use gaffer_shim::journal::RunIdWire;
use gaffer_shim::message::{FromShim, INPUT_MAX, Output, PtySize, ReplyCode, ReplyError, Scope, Spawn};
use rustix::fd::{AsFd, AsRawFd, BorrowedFd};
use std::io;

/// How long CONT waits behind TERM.
const CONT_AFTER_MS: u64 = 20;

/// Bytes on their way into a run.
pub struct PendingInput {
    conn: u64,
    req: u64,
    stream: String,
    data: Vec<u8>,
    sent: usize,
    eof: bool,
    watched: bool,
}

type Answer = Result<(), ReplyError>;

fn no(code: ReplyCode, errno: i32, text: &str) -> ReplyError {
    ReplyError {
        code,
        errno,
        text: text.to_owned(),
    }
}

fn system(error: &io::Error) -> ReplyError {
    no(
        ReplyCode::System,
        error.raw_os_error().unwrap_or(0),
        &error.to_string(),
    )
}

fn ended() -> ReplyError {
    no(ReplyCode::NoRun, libc::ESRCH, "no such run, or it has ended")
}

impl Live {
    /// Its processes, as far as they are known.
    pub fn tree(&self) -> Tree<'_> {
        let born = self.born.as_ref();
        let unreaped = matches!(self.phase, Phase::Alive | Phase::Ending);
        Tree {
            run: self.run,
            cgroup: born.and_then(|born| born.cgroup.as_deref()),
            leader: born.filter(|_| unreaped).map(|born| born.pid),
        }
    }

    fn writable(&self, stream: &str) -> Option<BorrowedFd<'_>> {
        let born = self.born.as_ref()?;
        if stream == "stdin" {
            return born
                .stdin
                .as_ref()
                .or(born.terminal.as_ref())
                .map(|fd| fd.as_fd());
        }
        born.labelled
            .iter()
            .find(|(label, _)| label == stream)
            .map(|(_, fd)| fd.as_fd())
    }
}

impl Control {
    /// Answers a request; one without a number is not waited for.
    pub fn reply(&mut self, conn: u64, req: u64, answer: Answer) {
        if req == 0 {
            return;
        }
        self.say(
            conn,
            &FromShim::Reply {
                req,
                error: answer.err(),
            },
        );
    }

    fn find(&self, run: RunIdWire) -> Result<&Live, ReplyError> {
        let key = self.keys.get(&run).ok_or_else(ended)?;
        self.runs
            .get(key)
            .map(|live| &**live)
            .filter(|live| live.born.is_some())
            .ok_or_else(ended)
    }

    /// Sends a signal; CONT follows TERM, so that a stopped process can act on it.
    pub fn signal(&mut self, run: RunIdWire, signal: i32, scope: Scope) -> Answer {
        match signal {
            libc::SIGCONT => self.find(run).map(drop)?,
            libc::SIGTERM | libc::SIGHUP | libc::SIGINT | libc::SIGQUIT => {
                self.signal_once(run, signal, scope)?;
            }
            _ => return self.signal_once(run, signal, scope),
        }
        self.cont_later(run, scope);
        Ok(())
    }

    /// A moment later, once, and only to who is still there: hardly anybody is stopped when it is asked to end, and of a
    /// thousand that obey none has to be signalled twice.
    fn cont_later(&mut self, run: RunIdWire, scope: Scope) {
        let Some(key) = self.keys.get(&run).copied() else {
            return;
        };
        if let Some(live) = self.runs.get_mut(&key)
            && live.cont.replace(scope).is_none()
        {
            self.arm(CONT_AFTER_MS, Timer::Cont { key });
        }
    }

    /// Lets a run go on that somebody had stopped.
    pub fn cont(&mut self, key: u64) {
        let Some(live) = self.runs.get_mut(&key) else {
            return;
        };
        let run = live.run;
        if let Some(scope) = live.cont.take() {
            // Who ended meanwhile needs none.
            let _ = self.signal_once(run, libc::SIGCONT, scope);
        }
    }

    fn signal_once(&self, run: RunIdWire, signal: i32, scope: Scope) -> Answer {
        let live = self.find(run)?;
        let Some(born) = &live.born else {
            return Err(ended());
        };
        match scope {
            Scope::Main => sys::signal(&born.pidfd, signal).map_err(|error| system(&error)),
            Scope::Group => {
                // As long as its leader is not reaped, the group's number cannot belong to others.
                if !matches!(live.phase, Phase::Alive | Phase::Ending) {
                    return Err(ended());
                }
                match sys::signal_group(&born.pidfd, signal) {
                    // A kernel before 6.9: one by one.
                    Err(error) if error.raw_os_error() == Some(libc::EINVAL) => {
                        live.tree().signal_group(signal);
                        Ok(())
                    }
                    result => result.map_err(|error| system(&error)),
                }
            }
            Scope::Children | Scope::All => {
                let count = live.tree().signal(signal, scope == Scope::All);
                if count == 0 && scope == Scope::All {
                    Err(ended())
                } else {
                    Ok(())
                }
            }
        }
    }

    /// Kills all that is left of a run.
    pub fn kill_tree(&mut self, run: RunIdWire) -> Answer {
        let live = self.find(run)?;
        live.tree().kill().map_err(|error| system(&error))
    }

    /// Freezes or thaws a run.
    pub fn freeze(&mut self, run: RunIdWire, on: bool) -> Answer {
        let live = self.find(run)?;
        let tree = live.tree();
        match tree.cgroup {
            Some(path) => std::fs::write(format!("{path}/cgroup.freeze"), if on { "1" } else { "0" })
                .map_err(|error| system(&error))?,
            None => {
                tree.signal(if on { libc::SIGSTOP } else { libc::SIGCONT }, true);
            }
        }
        if let Some(live) = self.keys.get(&run).and_then(|key| self.runs.get_mut(key)) {
            live.frozen = on;
        }
        Ok(())
    }

    /// Changes the size of a terminal.
    pub fn resize(&mut self, run: RunIdWire, cols: u16, rows: u16) -> Answer {
        let live = self.find(run)?;
        let terminal = live.born.as_ref().and_then(|born| born.terminal.as_ref());
        let terminal = terminal.ok_or_else(|| no(ReplyCode::NoSuch, 0, "the run has no terminal"))?;
        resize(terminal, PtySize { cols, rows }).map_err(|error| system(&error))
    }

    /// Writes bytes to a run; the answer comes when all are written.
    pub fn input(&mut self, conn: u64, req: u64, run: RunIdWire, stream: &str, data: Vec<u8>, eof: bool) {
        let begun = self.begin_input(conn, req, run, stream, data, eof);
        match begun {
            Ok(key) => self.on_input_room(key),
            Err(error) => self.reply(conn, req, Err(error)),
        }
    }

    fn begin_input(
        &mut self,
        conn: u64,
        req: u64,
        run: RunIdWire,
        stream: &str,
        data: Vec<u8>,
        eof: bool,
    ) -> Result<u64, ReplyError> {
        if data.len() > INPUT_MAX {
            return Err(no(ReplyCode::TooLong, 0, "too many bytes at once"));
        }
        let live = self.find(run)?;
        if live.input.is_some() {
            return Err(no(ReplyCode::Busy, 0, "an earlier input is still being written"));
        }
        if live.writable(stream).is_none() {
            return Err(no(
                ReplyCode::NoSuch,
                0,
                "the run has no such input, or it is closed",
            ));
        }
        let key = *self.keys.get(&run).ok_or_else(ended)?;
        let live = self.runs.get_mut(&key).ok_or_else(ended)?;
        let mut data = data;
        let terminal = live.born.as_ref().is_some_and(|born| born.terminal.is_some());
        if eof && terminal && stream == "stdin" {
            // A terminal has no end of file, only the character that means it.
            data.push(4);
        }
        let stream = stream.to_owned();
        live.input = Some(PendingInput {
            conn,
            req,
            stream,
            data,
            sent: 0,
            eof,
            watched: false,
        });
        Ok(key)
    }

    /// There may be room for more of a pending input.
    pub fn on_input_room(&mut self, key: u64) {
        let Some(live) = self.runs.get_mut(&key) else {
            return;
        };
        let Some(mut input) = live.input.take() else {
            return;
        };
        let Some(fd) = live.writable(&input.stream) else {
            return;
        };
        let result = loop {
            if input.sent == input.data.len() {
                break Ok(());
            }
            match rustix::io::write(fd, &input.data[input.sent..]) {
                Ok(count) => input.sent += count,
                Err(rustix::io::Errno::INTR) => {}
                Err(rustix::io::Errno::AGAIN) => {
                    if !input.watched {
                        input.watched = self.epoll.add(&fd, libc::EPOLLOUT, token::INPUT | key).is_ok();
                    }
                    live.input = Some(input);
                    return;
                }
                Err(error) => break Err(system(&error.into())),
            }
        };
        if input.watched {
            self.epoll.remove(&fd);
        }
        if input.eof {
            close_input(live, &input.stream);
        }
        self.reply(input.conn, input.req, result);
    }

    /// The run is over: what could not be written is answered.
    pub fn drop_input(&mut self, input: Option<&PendingInput>) {
        if let Some(input) = input {
            self.reply(input.conn, input.req, Err(ended()));
        }
    }
}

fn close_input(live: &mut Live, stream: &str) {
    let Some(born) = &mut live.born else { return };
    if stream == "stdin" {
        born.stdin = None;
    } else if let Some((_, fd)) = born.labelled.iter().find(|(label, _)| label == stream) {
        // The other direction goes on. Fails only if the peer is gone already.
        // SAFETY: a descriptor and a constant.
        let _ = unsafe { libc::shutdown(fd.as_raw_fd(), libc::SHUT_WR) };
    }
}

/// What is wrong with a request, if anything.
pub fn nonsense(spawn: &Spawn) -> Option<String> {
    let plain = |label: &String| {
        let chars = label
            .bytes()
            .all(|b| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'-' | b'+'));
        chars
            && !label.is_empty()
            && label.len() <= 64
            && label != "stdout"
            && label != "stderr"
            && label != "stdin"
    };
    if spawn.argv.is_empty() {
        return Some("no program".to_owned());
    }
    if spawn.streams.len() > LABELS_MAX {
        return Some(format!("{} streams, at most {LABELS_MAX}", spawn.streams.len()));
    }
    if let Some(label) = spawn.streams.iter().find(|label| !plain(label)) {
        return Some(format!("stream name {label:?}"));
    }
    if spawn.stdout == Output::Merge {
        return Some("stdout cannot be merged into itself".to_owned());
    }
    if !spawn.log_dir.starts_with('/') || !spawn.cwd.starts_with('/') {
        return Some("directories must be absolute".to_owned());
    }
    if spawn.cgroup.as_ref().is_some_and(|base| !base.starts_with('/')) {
        return Some("the cgroup must be absolute".to_owned());
    }
    let mut groups = spawn.limits.iter().flat_map(|limits| &limits.groups);
    if groups.any(|group| !group.dir.starts_with('/')) {
        return Some("the groups of limits must be absolute".to_owned());
    }
    None
}
