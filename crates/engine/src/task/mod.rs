//! Tasks on disk: where their files are, and the streams of records that are their truth.
//!
//! | module | noun |
//! |---|---|
//! | [`layout`] | a checkpoint root: which files a task has, which tasks a root has |
//! | [`stream`] | the runner stream: appended durably, read whole or as it grows |
//! | [`wire`] | records as bytes |

pub mod layout;
pub mod stream;
pub mod wire;
