//! Webhooks and plugins with real nodes, a real receiver, and daemons that are killed in the wrong moment.

mod killed;
mod plugins;
mod receiver;
mod webhooks;
