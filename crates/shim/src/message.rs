//! What daemon and shim say to each other: CBOR bodies of [`crate::frame`]s, fields and variants by number.
//!
//! Version history: 1 — this file. Numbers are never reused; a reader skips fields it does not know and
//! reports variants it does not know as [`Heard::Unknown`].
//!
//! ```text
//! daemon                                   shim
//!   Hello{version, epoch, leash}   ──▶     closes older connections, discards their unread requests
//!                                  ◀──     HelloReply{table, position} or Refused + close
//!   Spawn{run, slot, after, …}     ──▶     Bell{position} (the fact is in the journal), or Refused{run}
//!   Stand{run, slot, after, …}     ──▶     at the end of `after`: Exited{successor}, Intent{run}, one append
//!   Signal/KillTree/Freeze/Input/… ──▶     Reply{req}
//!                                  ◀──     Bell{position}: something was appended, read from your cursor
//!   Bye / Exit                     ──▶
//! ```

use crate::journal::{Position, RunIdWire};
use minicbor::bytes::ByteVec;
use minicbor::{Decode, Encode};

/// Version of these messages. 2 — `Spawn.root`, 3 — `Spawn.limits`, which an older shim would pass over: only shims
/// of this version are given new runs.
pub const VERSION: u32 = 3;

/// A request to a shim.
#[derive(Clone, Debug, PartialEq, Encode, Decode)]
pub enum ToShim {
    /// Must be first.
    #[n(0)]
    Hello {
        /// [`VERSION`] of the speaker.
        #[n(0)]
        version: u32,
        /// Of this daemon start. Lower ones are refused for ever after.
        #[n(1)]
        epoch: u32,
        /// What to do if the connection ends without `Bye`.
        #[n(2)]
        leash: Option<Leash>,
    },
    /// Start a run. Answered by a `Bell` (see `Started`, `StartFailed` in the journal) or `Refused`.
    #[n(1)]
    Spawn(#[n(0)] Box<Spawn>),
    /// Send a signal.
    #[n(2)]
    Signal {
        /// Given back in `Reply`.
        #[n(0)]
        req: u64,
        /// To this run.
        #[n(1)]
        run: RunIdWire,
        /// Number, 0 only tests.
        #[n(2)]
        signal: i32,
        /// Who of it. CONT follows TERM by itself.
        #[n(3)]
        scope: Scope,
    },
    /// Kill all that is left of a run's tree.
    #[n(3)]
    KillTree {
        /// Given back in `Reply`.
        #[n(0)]
        req: u64,
        /// Of this run.
        #[n(1)]
        run: RunIdWire,
    },
    /// Freeze or thaw (cgroup.freeze; STOP/CONT to the tree without one).
    #[n(4)]
    Freeze {
        /// Given back in `Reply`.
        #[n(0)]
        req: u64,
        /// This run.
        #[n(1)]
        run: RunIdWire,
        /// Frozen?
        #[n(2)]
        on: bool,
    },
    /// Bytes for `stdin` or a labelled stream. `Reply` comes when all are written.
    #[n(5)]
    Input {
        /// Given back in `Reply`.
        #[n(0)]
        req: u64,
        /// To this run.
        #[n(1)]
        run: RunIdWire,
        /// `stdin` or a label of `Spawn.streams`.
        #[n(2)]
        stream: String,
        /// At most [`INPUT_MAX`] bytes at once.
        #[n(3)]
        #[cbor(with = "minicbor::bytes")]
        data: Vec<u8>,
        /// Close it afterwards.
        #[n(4)]
        eof: bool,
    },
    /// Change the size of a run's terminal.
    #[n(6)]
    Resize {
        /// Given back in `Reply`.
        #[n(0)]
        req: u64,
        /// This run.
        #[n(1)]
        run: RunIdWire,
        /// Columns.
        #[n(2)]
        cols: u16,
        /// Rows.
        #[n(3)]
        rows: u16,
    },
    /// New log bounds for a directory, live.
    #[n(7)]
    LogsPolicy {
        /// Given back in `Reply`.
        #[n(0)]
        req: u64,
        /// As in `Spawn.log_dir`.
        #[n(1)]
        log_dir: String,
        /// New bounds.
        #[n(2)]
        bounds: LogBounds,
    },
    /// The daemon leaves on purpose: no leash. The shim lives on.
    #[n(8)]
    Bye,
    /// Leave now if there are no runs (else as soon as the last one is gone).
    #[n(9)]
    Exit,
    /// Standing order: start this run as soon as its `after` has ended with nothing left of its tree. Good for one
    /// end of a run that is alive now; the newest counts, and any other request about that run or its slot, or
    /// a `Hello`, makes it void. Never answered: `Exited` says whether it was carried out.
    #[n(10)]
    Stand(#[n(0)] Box<Spawn>),
    /// The standing order beside this run is void.
    #[n(11)]
    Withdraw {
        /// The run that lives.
        #[n(0)]
        run: RunIdWire,
    },
}

/// Most bytes of one `Input`.
pub const INPUT_MAX: usize = 64 << 10;

/// What becomes of the runs if the daemon is killed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode)]
pub struct Leash {
    /// How long a successor may take, default 10,000.
    #[n(0)]
    pub wait_ms: u64,
}

/// Who of a run gets a signal.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode)]
#[cbor(index_only)]
pub enum Scope {
    /// The main process.
    #[n(0)]
    Main,
    /// All of its tree but the main process.
    #[n(1)]
    Children,
    /// Its process group.
    #[n(2)]
    Group,
    /// Its whole tree.
    #[n(3)]
    All,
}

/// All that a start depends on. Everything is resolved: the shim looks up no names.
#[derive(Clone, Debug, PartialEq, Encode, Decode)]
pub struct Spawn {
    /// New id.
    #[n(0)]
    pub run: RunIdWire,
    /// What may have one live run. Opaque.
    #[n(1)]
    pub slot: String,
    /// The slot's last run, which must have ended with nothing left of its tree.
    #[n(2)]
    pub after: Option<RunIdWire>,
    /// Opaque, given back in `Intent` and in the table: restart number, launch digest.
    #[n(3)]
    pub stamp: [u64; 2],
    /// Ordinal of the run in its slot.
    #[n(4)]
    pub attempt: u32,
    /// Opaque text kept in `Intent`.
    #[n(5)]
    pub label: String,
    /// Program first. A program without a slash is searched in the child's own PATH, else
    /// `path_fallback`, else `/bin:/usr/bin`.
    #[n(6)]
    pub argv: Vec<ByteVec>,
    /// Name shown to the program instead of `argv[0]`.
    #[n(7)]
    pub argv0: Option<ByteVec>,
    /// `K=V` each. Complete: the shim adds `GAFFER_RUN=<run text>` only if it is missing.
    #[n(8)]
    pub env: Vec<ByteVec>,
    /// Searched if `env` has no PATH.
    #[n(9)]
    pub path_fallback: Option<ByteVec>,
    /// Absolute.
    #[n(10)]
    pub cwd: String,
    /// Whom to become; none: the shim's own user.
    #[n(11)]
    pub user: Option<User>,
    /// File mode mask.
    #[n(12)]
    pub umask: u32,
    /// Nice value.
    #[n(13)]
    pub nice: i32,
    /// oom_score_adj.
    #[n(14)]
    pub oom_score: i32,
    /// Set no_new_privs.
    #[n(15)]
    pub no_new_privs: bool,
    /// Limits to set; `nofile` not named here is what the daemon was started with.
    #[n(16)]
    pub rlimits: Vec<Rlimit>,
    /// A session of its own.
    #[n(17)]
    pub own_session: bool,
    /// A terminal: then stdin, stdout and stderr are it, output goes to the stream `stdout`.
    #[n(18)]
    pub pty: Option<PtySize>,
    /// Standard input.
    #[n(19)]
    pub stdin: Stdin,
    /// Labels of two-way sockets on descriptors 3 and up. What the program writes goes to streams of
    /// these names.
    #[n(20)]
    pub streams: Vec<String>,
    /// Standard output: `Keep` or `Null`.
    #[n(21)]
    pub stdout: Output,
    /// Standard error.
    #[n(22)]
    pub stderr: Output,
    /// Directory of its segments, absolute; made with the first byte.
    #[n(23)]
    pub log_dir: String,
    /// Bounds of each of its streams.
    #[n(24)]
    pub bounds: LogBounds,
    /// The run's directory is made below this one (cgroup v2). `None`: without.
    #[n(25)]
    pub cgroup: Option<String>,
    /// A child that has not executed after this long is killed: `exec-stuck`. 0: 10,000.
    #[n(26)]
    pub start_deadline_ms: u64,
    /// How the leash asks it to end.
    #[n(27)]
    pub stop: Stop,
    /// `Exited` is synced before the bell.
    #[n(28)]
    pub sync: bool,
    /// Root directory of the program, absolute; `cwd` and the places of its program are below it. `None`: the shim's.
    #[n(29)]
    pub root: Option<String>,
    /// Limits of its processes together. `None`: none.
    #[n(30)]
    pub limits: Option<Limits>,
}

/// Limits that the kernel keeps by cgroups.
#[derive(Clone, Debug, Default, PartialEq, Eq, Encode, Decode)]
pub struct Limits {
    /// Files of the run's own group (v2).
    #[n(0)]
    pub own: Vec<LimitFile>,
    /// Further groups (v1): one is made for the run below each of these directories, and joined before the exec.
    #[n(1)]
    pub groups: Vec<LimitGroup>,
    /// Without such a group the start fails; otherwise a note says so.
    #[n(2)]
    pub required: bool,
}

/// Where a run has a further group.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct LimitGroup {
    /// Directory of the controller, absolute. The group has the run's name.
    #[n(0)]
    pub dir: String,
    /// Written before anybody is in it, in this order.
    #[n(1)]
    pub files: Vec<LimitFile>,
}

/// A file of a group, and what is written to it.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct LimitFile {
    /// `memory.max`
    #[n(0)]
    pub name: String,
    /// What the kernel takes. A value that it refuses fails the start.
    #[n(1)]
    pub text: String,
}

/// Whom a run becomes.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct User {
    /// User id.
    #[n(0)]
    pub uid: u32,
    /// Group id.
    #[n(1)]
    pub gid: u32,
    /// Supplementary groups, all of them.
    #[n(2)]
    pub groups: Vec<u32>,
}

/// One resource limit.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode)]
pub struct Rlimit {
    /// `RLIMIT_*` number.
    #[n(0)]
    pub resource: u32,
    /// Soft; `u64::MAX` is unlimited.
    #[n(1)]
    pub soft: u64,
    /// Hard.
    #[n(2)]
    pub hard: u64,
}

/// Size of a terminal.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode)]
pub struct PtySize {
    /// Columns.
    #[n(0)]
    pub cols: u16,
    /// Rows.
    #[n(1)]
    pub rows: u16,
}

/// Standard input of a run.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub enum Stdin {
    /// /dev/null.
    #[n(0)]
    Null,
    /// Written by `Input`.
    #[n(1)]
    Pipe,
    /// Opened read-only by the child, as its user.
    #[n(2)]
    File(#[n(0)] String),
    /// These bytes, then the end: the program reads them from memory, whatever becomes of anybody else.
    #[n(3)]
    Data(#[n(0)] ByteVec),
}

/// Where an output goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode)]
#[cbor(index_only)]
pub enum Output {
    /// Into segments.
    #[n(0)]
    Keep,
    /// /dev/null.
    #[n(1)]
    Null,
    /// stderr only: the same pipe as stdout.
    #[n(2)]
    Merge,
}

/// How much is kept of one stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode)]
pub struct LogBounds {
    /// Bytes kept per stream, oldest segments go first.
    #[n(0)]
    pub size: u64,
    /// A segment is replaced at this size.
    #[n(1)]
    pub segment: u64,
    /// Full disk: true lets the program wait, false drops and counts.
    #[n(2)]
    pub block_when_full: bool,
}

/// How a run is asked to end when the leash is gone.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode)]
pub struct Stop {
    /// Signal number.
    #[n(0)]
    pub signal: i32,
    /// Who gets it.
    #[n(1)]
    pub scope: Scope,
    /// Then KILL.
    #[n(2)]
    pub timeout_ms: u64,
}

/// What a shim says.
#[derive(Clone, Debug, PartialEq, Encode, Decode)]
pub enum FromShim {
    /// To `Hello`.
    #[n(0)]
    HelloReply {
        /// [`VERSION`] of the shim.
        #[n(0)]
        version: u32,
        /// Accepted epoch.
        #[n(1)]
        epoch: u32,
        /// Shim process.
        #[n(2)]
        pid: u32,
        /// Guard process.
        #[n(3)]
        guard_pid: u32,
        /// End of the journal at this moment.
        #[n(4)]
        position: Position,
        /// Runs that live or whose tree does. With the fence, "not in the table" means never.
        #[n(5)]
        table: Vec<LiveRun>,
        /// Last run of each slot this shim ever served: `(slot, run)`.
        #[n(6)]
        slots: Vec<SlotLast>,
    },
    /// The journal has grown up to here.
    #[n(1)]
    Bell {
        /// Its end.
        #[n(0)]
        position: Position,
    },
    /// To a request with a number; one with 0 is answered by nothing.
    #[n(2)]
    Reply {
        /// Of the request.
        #[n(0)]
        req: u64,
        /// None: done.
        #[n(1)]
        error: Option<ReplyError>,
    },
    /// A `Spawn` was not accepted: nothing was started and never will be under this id.
    #[n(3)]
    Refused {
        /// Of the request.
        #[n(0)]
        run: RunIdWire,
        /// Why.
        #[n(1)]
        code: RefusedCode,
        /// In words, with numbers.
        #[n(2)]
        text: String,
    },
    /// `Hello` with an epoch below one that was accepted before. The connection is closed.
    #[n(4)]
    Fenced {
        /// The one in force.
        #[n(0)]
        epoch: u32,
    },
}

/// A run in the table of `HelloReply`.
#[derive(Clone, Debug, PartialEq, Encode, Decode)]
pub struct LiveRun {
    /// Which.
    #[n(0)]
    pub run: RunIdWire,
    /// Where.
    #[n(1)]
    pub slot: String,
    /// As given in `Spawn`.
    #[n(2)]
    pub stamp: [u64; 2],
    /// Main process; 0 while it is being started.
    #[n(3)]
    pub pid: u32,
    /// Boot-time clock of its start.
    #[n(4)]
    pub started_mono_ns: u64,
    /// Wall clock of its start.
    #[n(5)]
    pub started_wall_ms: i64,
    /// Its main process ended, the tree lives.
    #[n(6)]
    pub exited: bool,
    /// Frozen by `Freeze`.
    #[n(7)]
    pub frozen: bool,
}

/// Last run of a slot.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct SlotLast {
    /// Which.
    #[n(0)]
    pub slot: String,
    /// Its newest run.
    #[n(1)]
    pub run: RunIdWire,
}

/// A request failed.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct ReplyError {
    /// What kind.
    #[n(0)]
    pub code: ReplyCode,
    /// errno, 0 if none.
    #[n(1)]
    pub errno: i32,
    /// In words.
    #[n(2)]
    pub text: String,
}

/// Kinds of failed requests.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode)]
#[cbor(index_only)]
pub enum ReplyCode {
    /// No such run, or it has ended.
    #[n(0)]
    NoRun,
    /// The run has no such stream, terminal or cgroup.
    #[n(1)]
    NoSuch,
    /// An earlier `Input` is still being written.
    #[n(2)]
    Busy,
    /// Too long.
    #[n(3)]
    TooLong,
    /// The kernel said no: see errno.
    #[n(4)]
    System,
}

/// Why a `Spawn` was refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode)]
#[cbor(index_only)]
pub enum RefusedCode {
    /// `after` is not the slot's last run.
    #[n(0)]
    Outdated,
    /// The slot's last run, or its tree, lives.
    #[n(1)]
    SlotBusy,
    /// It would eat the descriptors reserved for supervision: open a further shim.
    #[n(2)]
    NoDescriptors,
    /// The request makes no sense.
    #[n(3)]
    Invalid,
    /// The shim is leaving.
    #[n(4)]
    Leaving,
    /// The intent could not be written.
    #[n(5)]
    Journal,
    /// It would eat the reserve of a shim without any run, too: a further shim is of no use.
    #[n(6)]
    NeverFits,
}

/// A decoded body.
#[derive(Clone, Debug, PartialEq)]
pub enum Heard<M> {
    /// A message.
    Message(M),
    /// A variant of a newer speaker.
    Unknown,
}

/// The body is not a message at all.
#[derive(Debug, thiserror::Error)]
#[error("malformed message: {0}")]
pub struct MessageError(#[from] minicbor::decode::Error);

impl ToShim {
    /// As a whole frame.
    pub fn to_frame(&self) -> Vec<u8> {
        crate::frame::encode(&minicbor::to_vec(self).unwrap_or_default())
    }

    /// From a frame's body.
    pub fn from_body(body: &[u8]) -> Result<Heard<ToShim>, MessageError> {
        heard(minicbor::decode(body))
    }
}

impl FromShim {
    /// As a whole frame.
    pub fn to_frame(&self) -> Vec<u8> {
        crate::frame::encode(&minicbor::to_vec(self).unwrap_or_default())
    }

    /// From a frame's body.
    pub fn from_body(body: &[u8]) -> Result<Heard<FromShim>, MessageError> {
        heard(minicbor::decode(body))
    }
}

fn heard<M>(result: Result<M, minicbor::decode::Error>) -> Result<Heard<M>, MessageError> {
    match result {
        Ok(message) => Ok(Heard::Message(message)),
        Err(error) if error.is_unknown_variant() => Ok(Heard::Unknown),
        Err(error) => Err(MessageError(error)),
    }
}
