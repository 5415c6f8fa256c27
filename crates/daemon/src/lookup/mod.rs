//! Finding nodes: the look-up service `gaffer-lookupd`, and the daemon as one of its clients.
//!
//! The service keeps everything in memory, on purpose: what it knows of a node lives as long as that node's connection,
//! and a node tells everything again whenever it connects. So there is nothing to restore, two services need not know
//! each other, and one that was away is right again as soon as the nodes have come back. It has no authority: it says
//! where nodes claim to be, and whoever goes there asks the node itself.
//!
//! | part | what it is |
//! |---|---|
//! | [`registry`] | who is there and what they have; bounded; tells watchers |
//! | [`http`] | the lists, and what every request passes |
//! | [`node_socket`], [`watch`] | the two WebSockets |
//! | [`service`] | listeners and the life of the program |
//! | [`registrar`] | `gafferd` as a client: keeps every service up to date |

pub mod http;
pub mod node_socket;
pub mod options;
pub mod registrar;
pub mod registry;
pub mod service;
pub mod watch;
