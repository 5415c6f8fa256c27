//! The core in a simulated world, over many seeds.

use crate::option;
use anyhow::{Result, bail};

/// `--seeds N` runs seeds from `--seed S` (0 unless said) on; `--seed S` alone runs that one.
pub fn simulate(words: &[String]) -> Result<()> {
    let first: u64 = option(words, "--seed")?.unwrap_or(0);
    let seeds: u64 = option(words, "--seeds")?.unwrap_or(1);
    bail!(
        "the simulated world is not built yet (seeds {first} to {})",
        first + seeds
    )
}
