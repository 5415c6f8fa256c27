//! Measures a shim alone: a client that speaks the protocol, beside bare loops that do only the work itself.
//!
//! ```text
//! cargo build --profile bench -p gaffer-shim --bins --examples
//! target/release/examples/measure start 1000 5     N runs started and stopped, rounds
//! target/release/examples/measure respawn 100 5    kills, rounds: kill to first byte of the successor
//! target/release/examples/measure footprint 1000   memory of guard and shim with N idle runs, switches at rest
//! target/release/examples/measure logs 5           rounds: rates and CPU of the pump
//! ```
//!
//! Bare and shim take turns within one run, because the machine may be slow or busy, but it is so for both. A
//! bare loop is a process of its own. The whole way, with the daemon in it, is what `cargo xtask bench` measures.

mod bare;
mod client;
mod logs;
mod program;
mod runs;

use std::io;

fn main() -> io::Result<()> {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let word = |place: usize| words.get(place).map_or("", String::as_str);
    let number = |place: usize, default: usize| word(place).parse().unwrap_or(default);
    match word(0) {
        "start" => runs::start(number(1, 1000), number(2, 5)),
        "respawn" => runs::respawn(number(1, 100), number(2, 5)),
        "footprint" => runs::footprint(number(1, 1000)),
        "logs" => logs::logs(number(1, 5)),
        "bare" => bare::run(&words[1..]),
        "pour" => logs::pour(number(1, 100), number(2, 0), word(3)),
        other => Err(io::Error::other(format!(
            "`{other}` is none of: start respawn footprint logs"
        ))),
    }
}

/// Median, least and greatest.
pub struct Spread {
    /// The middle one.
    pub median: f64,
    /// The least one.
    pub least: f64,
    /// The greatest one.
    pub greatest: f64,
}

/// Of some values.
pub fn spread(values: &[f64]) -> Spread {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    let at = |place: usize| sorted.get(place).copied().unwrap_or(f64::NAN);
    Spread {
        median: at(sorted.len() / 2),
        least: at(0),
        greatest: at(sorted.len().saturating_sub(1)),
    }
}

/// One line: what, bare, shim, ratio of the medians.
pub fn compare(what: &str, unit: &str, bare: &[f64], shim: &[f64]) {
    let (bare, shim) = (spread(bare), spread(shim));
    println!(
        "{what:<34} bare {:8.1} ({:.1}-{:.1}) {unit}   shim {:8.1} ({:.1}-{:.1}) {unit}   ratio {:.2}",
        bare.median,
        bare.least,
        bare.greatest,
        shim.median,
        shim.least,
        shim.greatest,
        shim.median / bare.median
    );
}
