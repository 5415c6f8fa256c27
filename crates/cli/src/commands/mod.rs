//! The commands, a file for each group of them.

pub mod act;
pub mod logs;
pub mod ps;
pub mod scale;
pub mod why;
