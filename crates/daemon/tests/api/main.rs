//! The daemon from outside: the real program, its sockets, its exit codes.

mod guard;
mod jobs;
mod limits;
mod lists;
mod many;
mod node;
mod old_options;
mod sockets;
mod start;
mod streams;
mod woven;
