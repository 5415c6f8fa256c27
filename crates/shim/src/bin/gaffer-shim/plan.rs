//! From a `Spawn` to a [`Plan`]: pipes, strings, places of the program. All that may fail or allocate
//! happens here, before the clone.

use crate::child::{Plan, PlanUser, RESERVED, STAGES};
use crate::spawner::SPAWNERS_MAX;
use crate::sys;
use gaffer_shim::journal::Record;
use gaffer_shim::message::{Output, PtySize, Spawn, Stdin};
use rustix::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::ffi::{CString, c_char};
use std::io;
use std::sync::atomic::Ordering::SeqCst;

/// First reserved slot: what is below belongs to the programs themselves.
const FIRST_SLOT: i32 = 16;
/// Slots of one spawner: the journal, 0, 1, 2 and labels.
const SLOTS: i32 = (RESERVED - FIRST_SLOT) / SPAWNERS_MAX;
/// Most labelled streams of a run.
pub const LABELS_MAX: usize = (SLOTS - 4) as usize;

/// What all spawns of this shim share.
pub struct Kit {
    /// /dev/null, read and write.
    pub null: OwnedFd,
    pub shim_pid: i32,
    /// Soft and hard limit of descriptors the shim was started with.
    pub nofile: [u64; 2],
    /// oom_score_adj of the shim, which children begin with.
    pub oom_score: i32,
}

/// Why a start failed, before it is a record.
pub struct Failure {
    pub stage: &'static str,
    pub errno: i32,
    pub text: String,
}

impl Failure {
    /// A failed system call.
    pub fn system(stage: &'static str, error: &io::Error, text: &str) -> Failure {
        Failure {
            stage,
            errno: error.raw_os_error().unwrap_or(0),
            text: text.to_owned(),
        }
    }
}

/// The shim's ends.
#[derive(Default)]
pub struct Ours {
    /// To be read, by name of the stream.
    pub outputs: Vec<(String, OwnedFd)>,
    pub stdin: Option<OwnedFd>,
    pub terminal: Option<OwnedFd>,
    /// To be written, by label.
    pub labelled: Vec<(String, OwnedFd)>,
}

/// Ready to be cloned.
pub struct Prepared {
    pub plan: Plan,
    pub ours: Ours,
    /// The child's ends, by descriptor; `None`: /dev/null. Closed here once they are in their slots.
    theirs: Vec<Option<OwnedFd>>,
    /// Slots that hold one of them, which must not stay open here.
    filled: Vec<i32>,
    /// What the pointers of the plan point to.
    _strings: Vec<u8>,
}

/// Where children of a spawner find the journal.
pub fn journal_slot(spawner: i32) -> i32 {
    FIRST_SLOT + spawner * SLOTS
}

/// Fills the reserve with /dev/null, so that no other descriptor is ever given a number in it.
pub fn fill_reserve(null: &OwnedFd) -> io::Result<()> {
    for slot in 3..RESERVED {
        sys::dup_to(null, slot)?;
    }
    Ok(())
}

/// Builds everything a child needs.
pub fn prepare(spawn: &Spawn, kit: &Kit, spawner: i32) -> Result<Prepared, Failure> {
    let mut ours = Ours::default();
    let theirs =
        descriptors(spawn, &mut ours).map_err(|(stage, error)| Failure::system(stage, &error, ""))?;
    let (strings, argv, envp) = strings(spawn)?;
    let base = journal_slot(spawner);
    let slots = (0..theirs.len() as i32)
        .map(|place| (base + 1 + place, place))
        .collect();
    let plan = Plan {
        stage: 0.into(),
        errno: 0.into(),
        detail: 0.into(),
        shim_pid: kit.shim_pid,
        own_session: spawn.own_session,
        terminal: spawn.pty.is_some(),
        nice: spawn.nice,
        oom_score: if spawn.oom_score == kit.oom_score {
            Vec::new()
        } else {
            spawn.oom_score.to_string().into_bytes()
        },
        join: Vec::new(),
        rlimits: rlimits(spawn, kit),
        descriptors: slots,
        stdin_file: match &spawn.stdin {
            Stdin::File(path) if spawn.pty.is_none() => Some(c_string("stdin", path.as_bytes().to_vec())?),
            _ => None,
        },
        user: spawn.user.as_ref().map(|user| PlanUser {
            uid: user.uid,
            gid: user.gid,
            groups: user.groups.clone(),
        }),
        no_new_privs: spawn.no_new_privs,
        umask: spawn.umask,
        cwd: c_string("cwd", spawn.cwd.as_bytes().to_vec())?,
        root: spawn
            .root
            .as_ref()
            .map(|root| c_string("chroot", root.as_bytes().to_vec()))
            .transpose()?,
        born: crate::log::encode(&Record::Born {
            run: spawn.run,
            pid: u32::MAX,
        })
        .map_err(|error| Failure::system("journal", &error, ""))?,
        journal_slot: base,
        candidates: candidates(spawn)?,
        argv,
        envp,
    };
    Ok(Prepared {
        plan,
        ours,
        filled: Vec::new(),
        theirs,
        _strings: strings,
    })
}

/// Puts the child's ends into the slots of a spawner and closes them where they were.
pub fn place(prepared: &mut Prepared, kit: &Kit, spawner: i32) -> Result<(), Failure> {
    let base = journal_slot(spawner) + 1;
    for (place, fd) in std::mem::take(&mut prepared.theirs).into_iter().enumerate() {
        // The slots hold /dev/null unless they are filled.
        let Some(fd) = fd else { continue };
        let slot = base + place as i32;
        if let Err(error) = sys::dup_to(&fd, slot) {
            clear(prepared, kit);
            return Err(Failure::system("fds", &error, ""));
        }
        prepared.filled.push(slot);
    }
    Ok(())
}

/// Puts /dev/null back into the slots that were filled: a pipe with a writer here would never end.
pub fn clear(prepared: &Prepared, kit: &Kit) {
    for slot in &prepared.filled {
        // Both descriptors are open: this cannot fail.
        let _ = sys::dup_to(&kit.null, *slot);
    }
}

type Staged<T> = Result<T, (&'static str, io::Error)>;

/// The child's descriptors 0, 1, 2, 3… in order; our ends go to `ours`.
fn descriptors(spawn: &Spawn, ours: &mut Ours) -> Staged<Vec<Option<OwnedFd>>> {
    let stdio = |error| ("stdio", error);
    let mut theirs = Vec::new();
    if let Some(size) = spawn.pty {
        let uid = spawn.user.as_ref().map(|user| user.uid);
        let (master, slave) = terminal(size, uid).map_err(|error| ("pty", error))?;
        ours.outputs
            .push(("stdout".to_owned(), master.try_clone().map_err(stdio)?));
        ours.terminal = Some(master);
        theirs.push(Some(slave.try_clone().map_err(stdio)?));
        theirs.push(Some(slave.try_clone().map_err(stdio)?));
        theirs.push(Some(slave));
    } else {
        if spawn.stdin == Stdin::Pipe {
            let flags = rustix::pipe::PipeFlags::CLOEXEC;
            let (read, write) = rustix::pipe::pipe_with(flags).map_err(|e| stdio(e.into()))?;
            sys::set_nonblocking(&write).map_err(stdio)?;
            ours.stdin = Some(write);
            theirs.push(Some(read));
        } else if let Stdin::Data(data) = &spawn.stdin {
            theirs.push(Some(memory(data).map_err(stdio)?));
        } else {
            theirs.push(None);
        }
        for (name, output) in [("stdout", spawn.stdout), ("stderr", spawn.stderr)] {
            match output {
                Output::Keep => {
                    let (read, write) = sys::pipe_to_us().map_err(stdio)?;
                    ours.outputs.push((name.to_owned(), read));
                    theirs.push(Some(write));
                }
                Output::Merge if name == "stderr" => {
                    let same = theirs[1].as_ref().map(OwnedFd::try_clone);
                    theirs.push(same.transpose().map_err(stdio)?);
                }
                Output::Null | Output::Merge => theirs.push(None),
            }
        }
    }
    for label in &spawn.streams {
        let (our, their) = std::os::unix::net::UnixStream::pair().map_err(stdio)?;
        our.set_nonblocking(true).map_err(stdio)?;
        let our = OwnedFd::from(our);
        ours.outputs
            .push((label.clone(), our.try_clone().map_err(stdio)?));
        ours.labelled.push((label.clone(), our));
        theirs.push(Some(their.into()));
    }
    Ok(theirs)
}

/// A file in memory that holds these bytes, to be read from its beginning.
fn memory(data: &[u8]) -> io::Result<OwnedFd> {
    use std::io::{Seek, Write};
    let fd = rustix::fs::memfd_create(c"stdin", rustix::fs::MemfdFlags::CLOEXEC)?;
    let mut file = std::fs::File::from(fd);
    file.write_all(data)?;
    file.rewind()?;
    Ok(file.into())
}

/// A terminal: our side and the program's.
fn terminal(size: PtySize, uid: Option<u32>) -> io::Result<(OwnedFd, OwnedFd)> {
    use rustix::pty::{OpenptFlags, openpt, unlockpt};
    let master = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC)?;
    unlockpt(&master)?;
    let flags = libc::O_RDWR | libc::O_NOCTTY | libc::O_CLOEXEC;
    // SAFETY: descriptors and flags only; the result is a fresh descriptor.
    let slave = unsafe {
        let fd = sys::check(libc::ioctl(master.as_raw_fd(), libc::TIOCGPTPEER, flags))?;
        OwnedFd::from_raw_fd(fd)
    };
    if let Some(uid) = uid {
        rustix::fs::fchown(&slave, Some(rustix::fs::Uid::from_raw(uid)), None)?;
    }
    resize(&master, size)?;
    sys::set_nonblocking(&master)?;
    Ok((master, slave))
}

/// Tells a terminal its size.
pub fn resize(master: &OwnedFd, size: PtySize) -> io::Result<()> {
    let winsize = rustix::termios::Winsize {
        ws_row: size.rows,
        ws_col: size.cols,
        ws_xpixel: 0,
        ws_ypixel: 0,
    };
    Ok(rustix::termios::tcsetwinsize(master, winsize)?)
}

/// `nofile` is what the shim was started with unless the request says otherwise: the shim raised its own.
fn rlimits(spawn: &Spawn, kit: &Kit) -> Vec<(u32, [u64; 2])> {
    let mut limits = Vec::new();
    let nofile = libc::RLIMIT_NOFILE;
    if !spawn.rlimits.iter().any(|limit| limit.resource == nofile) {
        limits.push((nofile, kit.nofile));
    }
    limits.extend(
        spawn
            .rlimits
            .iter()
            .map(|limit| (limit.resource, [limit.soft, limit.hard])),
    );
    limits
}

type Strings = (Vec<u8>, Vec<*const c_char>, Vec<*const c_char>);

/// Arguments and environment, one after the other, and the pointers that exec wants.
fn strings(spawn: &Spawn) -> Result<Strings, Failure> {
    let missing = !spawn.env.iter().any(|line| line.starts_with(b"GAFFER_RUN="));
    let run = missing.then(|| format!("GAFFER_RUN={}", spawn.run).into_bytes());
    let argv0 = spawn.argv0.iter().map(|name| name.as_slice());
    let argv = argv0.chain(
        spawn
            .argv
            .iter()
            .skip(usize::from(spawn.argv0.is_some()))
            .map(|word| word.as_slice()),
    );
    let env = spawn.env.iter().map(|line| line.as_slice()).chain(run.as_deref());
    let bytes = argv.clone().chain(env.clone()).map(|text| text.len() + 1).sum();
    // As large as it will be: pointers into it stay valid.
    let mut all = Vec::with_capacity(bytes);
    let mut pointers = |texts: &mut dyn Iterator<Item = &[u8]>| {
        let mut list = Vec::with_capacity(texts.size_hint().0 + 1);
        for text in texts {
            if text.contains(&0) {
                return Err(Failure {
                    stage: "exec",
                    errno: libc::EINVAL,
                    text: String::from_utf8_lossy(text).into_owned(),
                });
            }
            let at = all.len();
            all.extend_from_slice(text);
            all.push(0);
            list.push(all[at..].as_ptr().cast::<c_char>());
        }
        list.push(std::ptr::null());
        Ok(list)
    };
    let (argv, envp) = (pointers(&mut argv.clone())?, pointers(&mut env.clone())?);
    Ok((all, argv, envp))
}

/// Where the program may be: itself if it has a slash, else in the child's PATH, the fallback, or the default.
fn candidates(spawn: &Spawn) -> Result<Vec<CString>, Failure> {
    let program = spawn.argv.first().map_or(&[][..], |word| word.as_slice());
    if program.contains(&b'/') || program.is_empty() {
        return Ok(vec![c_string("exec", program.to_vec())?]);
    }
    let own = spawn
        .env
        .iter()
        .rev()
        .find_map(|line| line.strip_prefix(b"PATH="));
    let own = own.filter(|path| !path.is_empty());
    let fallback = spawn.path_fallback.as_ref().map(|path| path.as_slice());
    let path = own.or(fallback).unwrap_or(b"/bin:/usr/bin");
    let mut places = Vec::new();
    for dir in path.split(|byte| *byte == b':') {
        let mut place = if dir.is_empty() {
            b".".to_vec()
        } else {
            dir.to_vec()
        };
        place.push(b'/');
        place.extend_from_slice(program);
        places.push(c_string("exec", place)?);
    }
    Ok(places)
}

fn c_string(stage: &'static str, bytes: Vec<u8>) -> Result<CString, Failure> {
    CString::new(bytes).map_err(|error| Failure {
        stage,
        errno: libc::EINVAL,
        text: String::from_utf8_lossy(&error.into_vec()).into_owned(),
    })
}

/// What a child that did not execute left behind, as a failure.
pub fn failure(spawn: &Spawn, plan: &Plan, stuck: bool) -> Failure {
    let stage = STAGES
        .get(plan.stage.load(SeqCst) as usize)
        .copied()
        .unwrap_or("exec");
    let detail = plan.detail.load(SeqCst) as usize;
    let text = match stage {
        "exec" => match plan.candidates.get(detail) {
            // Nothing was found anywhere: the word as typed says more than the last place.
            Some(_)
                if plan.candidates.len() > 1 && plan.errno.load(SeqCst) == libc::ENOENT && detail == 0 =>
            {
                String::from_utf8_lossy(spawn.argv.first().map_or(&[][..], |word| word)).into_owned()
            }
            Some(path) => {
                let path = path.to_string_lossy();
                let looked = std::path::Path::new(spawn.root.as_deref().unwrap_or("/"));
                let looked = looked.join(path.trim_start_matches('/'));
                let there = plan.errno.load(SeqCst) == libc::ENOENT && std::fs::metadata(looked).is_ok();
                if there {
                    format!("{path}: its interpreter is missing")
                } else {
                    path.into_owned()
                }
            }
            None => String::new(),
        },
        "cwd" => spawn.cwd.clone(),
        "chroot" => spawn.root.clone().unwrap_or_default(),
        "stdin" => match &spawn.stdin {
            Stdin::File(path) => path.clone(),
            Stdin::Null | Stdin::Pipe | Stdin::Data(_) => String::new(),
        },
        "rlimit" => plan
            .rlimits
            .get(detail)
            .map_or(String::new(), |(number, _)| number.to_string()),
        "limits" => match plan.join.get(detail) {
            Some(path) => path.to_string_lossy().into_owned(),
            None => String::new(),
        },
        "nice" => spawn.nice.to_string(),
        "oom_score" => spawn.oom_score.to_string(),
        "groups" | "gid" | "uid" | "regain" => spawn
            .user
            .as_ref()
            .map_or(String::new(), |user| format!("{}:{}", user.uid, user.gid)),
        _ => String::new(),
    };
    if stuck {
        return Failure {
            stage: "exec-stuck",
            errno: 0,
            text: format!("{stage} {text}").trim().to_owned(),
        };
    }
    Failure {
        stage,
        errno: plan.errno.load(SeqCst),
        text,
    }
}
