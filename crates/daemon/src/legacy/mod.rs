//! The API of the original gaffer, served beside `/v1`.

pub mod conversation;
pub mod sockjs;
pub mod websocket;
