//! The daemon of a node: HTTP, WebSocket, and the life around the engine.
//!
//! Nothing is decided here. Requests become calls of the engine's handle, its answers become the shapes of
//! `gaffer-api`, its events become lines of the log. What is here is the boundary: who may ask ([`guard`], [`peer`]), how
//! much and how long ([`http`]), and the beginning and the end ([`life`]).

pub mod access;
pub mod background;
pub mod bound;
pub mod checkpoint;
mod console;
pub mod doctor;
pub mod fleet;
pub mod guard;
pub mod http;
pub mod journal;
pub mod legacy;
pub mod life;
pub mod listen;
pub mod lookup;
pub mod names;
pub mod notify;
pub mod oom;
pub mod options;
pub mod peer;
pub mod pidfile;
pub mod plugins;
pub mod refusal;
pub mod reload;
mod rest;
pub mod setup;
pub mod sink;
pub mod tls;
pub mod unit;
pub mod view;
pub mod view_queue;
pub mod view_schedule;
pub mod view_task;
pub mod webhooks;
pub mod writer;
