//! The channels of the original's API from outside: a real `gafferd`, a plain WebSocket client, raw HTTP.

mod allowed;
mod canary;
mod client;
mod commands;
mod events;
mod greedy;
mod keys;
mod messages;
mod off;
mod pid_channels;
mod slow;
mod sockjs;
mod topics;
