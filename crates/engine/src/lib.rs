//! The engine of gaffer as a library.

pub mod events;
pub mod handle;
pub mod info;
pub mod logs;

pub use handle::Handle;
