//! The long version of the promise: kill daemon and shims again and again under load, lose nothing.

use crate::option;
use crate::shell::{cargo, programs, run};
use anyhow::Result;
use gaffer_testkit::chaos::{Load, Until, Victims};
use std::time::Duration;

/// `--minutes M --jobs N --seed S --kill daemon|shims|all`.
pub fn chaos(words: &[String]) -> Result<()> {
    let minutes: u64 = option(words, "--minutes")?.unwrap_or(10);
    let jobs = option(words, "--jobs")?.unwrap_or(100);
    let victims = option(words, "--kill")?.unwrap_or(Victims::Shims);
    let clock = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH)?;
    let seed = option(words, "--seed")?.unwrap_or_else(|| u64::from(clock.subsec_nanos()));
    run(&mut cargo(&["build", "--workspace", "--bins", "--locked"]))?;
    println!("seed {seed}, {jobs} jobs, {minutes} minutes; killed is {victims}");
    let load = Load {
        victims,
        jobs,
        until: Until::Elapsed(Duration::from_secs(minutes * 60)),
        seed,
        bin_dir: Some(programs("debug")?),
    };
    let report = gaffer_testkit::chaos::survive(&load);
    println!("{report}");
    Ok(())
}
