//! The look-up service from outside, and the daemon as its client: real programs, real sockets.

mod drain;
mod fleet;
mod peer;
mod registrar;
mod service;
