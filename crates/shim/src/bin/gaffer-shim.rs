//! The shim process.

fn main() {}
