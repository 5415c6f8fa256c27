//! The channels of the original's API from outside: a real `gafferd`, a plain WebSocket client, raw HTTP.

mod client;
mod commands;
mod keys;
mod messages;
mod pid_channels;
mod slow;
mod sockjs;
mod topics;
