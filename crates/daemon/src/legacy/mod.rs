//! The APIs of the original gaffer, 0.5 and 0.4, for its clients, scripts and habits: a translation and nothing more.
//!
//! Nothing in here keeps a process alive, counts an exit or stores a wish: a request of an old client becomes a call of the
//! engine's handle, as a request of `/v1` does, and what the engine tells becomes the old words. Whoever uses both at once
//! sees the same jobs.
//!
//! | module | holds |
//! |---|---|
//! | `names` | `session.job`, `group:name` ↔ the engine's job ids |
//! | `template` | a job as the old API writes it ↔ a definition; the object as it came is kept in `meta` |
//! | `objects` | job info, process info, statistics, as clients read them |
//! | `ops` | what can be asked: load, start, scale, commit, signal, send … |
//! | `events` | the engine's event log ↔ ordered 0.5 topics, their patterns, and the 0.4 names |
//! | `error` | error bodies that satisfy every old client |
//! | `conversation`, `websocket`, `sockjs` | two-way talks with a client, bounded in both directions |
//! | `channel` | topics and commands over one conversation |
//! | `pid_channel` | a process's output and input over a WebSocket |
//! | `feed` | output, read once for all who follow it |
//!
//! Where old and new think differently:
//!
//! - *A process is a run.* Its small number is the engine's (`Handle::pid_of`), so it is the same after a restart of the
//!   daemon. What is being stopped is invisible at once, as it was.
//! - *`stop` forgets the count:* the job is wished down and scaled to 0; `start` takes the definition's number again.
//! - *A job loaded with `start: false`* is down, and scaling or reloading it starts it.
//! - *A commit is a one-off.*
//! - *A bad definition loads nothing:* also one whose program cannot be executed.

pub mod channel;
pub mod conversation;
pub mod error;
pub mod events;
pub mod feed;
pub mod names;
pub mod objects;
pub mod ops;
pub mod pid_channel;
pub mod sockjs;
pub mod template;
pub mod websocket;
