//! The HTTP contract of gaffer under `/v1`: JSON types, the error table, and a client for TCP, unix sockets and `ssh`.
//!
//! Names of fields follow ux.md §7: times are RFC 3339 UTC strings `*_at`, durations `*_ms`, sizes
//! `*_bytes`. Fields only get added. State objects carry `wish`, `state`, `summary`, `reason` and
//! `reason_code`: clients derive nothing.

pub mod access;
pub mod client;
pub mod endpoint;
pub mod error;
pub mod hooks;
pub mod keys;
pub mod lookup;
pub mod old;
pub mod routes;
pub mod ssh;
pub mod tls;
pub mod types;

pub use client::{Client, ClientError};
pub use endpoint::Endpoint;
