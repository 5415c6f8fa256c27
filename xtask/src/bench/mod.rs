//! The numbers of SPECIFICATION.md, measured: real `gafferd`, and beside it a bare loop that does only the work itself.
//!
//! Ratios are taken within one run, bare and gaffer in turn, several rounds, medians: the machine may be slow or
//! busy, but it is so for both. Bare loops are processes of their own (`bare`), because what this program has
//! mapped would make their clones slower. Both sides start the same hand-made program of some 200 bytes, which tells
//! its pid through a FIFO: its first byte is what ends the stopwatch.

mod announce;
pub mod bare;
mod control;
mod floor;
mod footprint;
mod logs;
mod queue;
mod respawn;
mod start;
mod subscribers;
mod table;
mod tasks;

use crate::option;
use crate::shell::{cargo, programs, run};
use anyhow::{Result, bail};
use gaffer_testkit::Node;
use std::path::PathBuf;
pub use table::Table;

/// How much is measured.
pub struct Plan {
    /// Alternations of bare and gaffer.
    pub rounds: usize,
    /// A tenth of everything: to see that the benchmark works, not what the numbers are.
    pub quick: bool,
    /// Programs of the bench profile.
    pub bins: PathBuf,
    /// What nodes leave here goes when all is measured.
    pub kept: tempfile::TempDir,
}

impl Plan {
    /// A number of things, or a tenth of it.
    pub fn many(&self, number: usize) -> usize {
        if self.quick { number / 10 } else { number }
    }

    /// A node with the programs to be measured. Its files are on the disk of the temporary directory.
    pub fn node(&self) -> Node {
        Node::builder().bin_dir(&self.bins).start()
    }

    /// A node whose files stay until all is measured: for minutes, ext4 looks at every inode that was just freed before it
    /// gives another one (`recently_deleted`), so that the files of one round would be paid for by the next.
    pub fn node_that_keeps(&self) -> Node {
        let builder = Node::builder().bin_dir(&self.bins);
        builder.files_below(self.kept.path()).start()
    }
}

type Measurement = (&'static str, fn(&Plan, &mut Table) -> Result<()>);

const ALL: [Measurement; 10] = [
    ("start", start::start),
    ("stop", start::stop),
    ("respawn", respawn::respawn),
    ("footprint", footprint::footprint),
    ("logs", logs::logs),
    ("adopt", control::adopt),
    ("control", control::control),
    ("subscribers", subscribers::subscribers),
    ("tasks", tasks::tasks),
    ("queue", queue::queue),
];

/// Builds, measures what is asked for, prints the table. Fails when a target is missed.
pub fn bench(words: &[String]) -> Result<()> {
    if words.first().is_some_and(|word| word == "bare") {
        return bare::run(words.get(1..).unwrap_or_default());
    }
    let what = words
        .iter()
        .find(|word| !word.starts_with("--") && word.parse::<u64>().is_err());
    let what = what.map_or("all", String::as_str);
    let chosen: Vec<&Measurement> = ALL
        .iter()
        .filter(|(name, _)| what == "all" || what == *name)
        .collect();
    if chosen.is_empty() {
        bail!(
            "there is no benchmark `{what}`; there are: {}, all",
            ALL.map(|(name, _)| name).join(", ")
        );
    }
    run(&mut cargo(&[
        "build",
        "--workspace",
        "--bins",
        "--profile",
        "bench",
        "--locked",
    ]))?;
    let quick = words.iter().any(|word| word == "--quick");
    let plan = Plan {
        rounds: option(words, "--rounds")?.unwrap_or(5),
        quick,
        bins: programs("release")?,
        kept: tempfile::Builder::new().prefix("gaffer-bench-").tempdir()?,
    };
    let mut table = Table::default();
    for (name, measure) in chosen {
        println!("measuring {name}…");
        measure(&plan, &mut table)?;
    }
    print!("{table}");
    if quick {
        println!("(--quick: these are not the numbers of the specification)");
    } else if table.missed() > 0 {
        bail!("{} targets missed", table.missed());
    }
    Ok(())
}

/// The middle one.
pub fn median(values: &[f64]) -> f64 {
    percentile(values, 50.0)
}

/// The value below which so many percent are.
pub fn percentile(values: &[f64], percent: f64) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    let place = ((sorted.len() as f64 - 1.0).max(0.0) * percent / 100.0).round();
    sorted.get(place as usize).copied().unwrap_or(f64::NAN)
}
