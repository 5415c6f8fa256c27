//! The core in a simulated world, over many seeds.

use crate::option;
use anyhow::{Result, bail};
use gaffer_testkit::sim::{Failure, Options, Stats, run};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

/// Every so many seeds, one is run twice: the same seed gives the same transcript.
const TWICE_ONE_IN: u64 = 16;

/// `--seeds N` runs N seeds from `--seed S` (0 unless said) on; `--seed S` alone shows all of that one. `--steps N`
/// makes each longer.
pub fn simulate(words: &[String]) -> Result<()> {
    let first: u64 = option(words, "--seed")?.unwrap_or(0);
    let mut options = Options::default();
    if let Some(steps) = option(words, "--steps")? {
        options.steps = steps;
    }
    match option(words, "--seeds")? {
        Some(seeds) => many(first, seeds, options),
        None => one(
            first,
            Options {
                whole_transcript: true,
                ..options
            },
        ),
    }
}

fn one(seed: u64, options: Options) -> Result<()> {
    match run(seed, options) {
        Ok(stats) => println!("seed {seed}: {}", said(&stats)),
        Err(failure) => bail!("{failure}"),
    }
    Ok(())
}

fn said(stats: &Stats) -> String {
    let Stats {
        steps,
        kills,
        spawns,
        digest,
        ..
    } = stats;
    format!("{steps} steps, {kills} kills, {spawns} runs, transcript {digest:016x}")
}

fn many(first: u64, seeds: u64, options: Options) -> Result<()> {
    let begun = Instant::now();
    let next = AtomicU64::new(first);
    let end = first.saturating_add(seeds);
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    let outcomes: Vec<Result<Stats, Box<Failure>>> = std::thread::scope(|scope| {
        let workers: Vec<_> = (0..threads)
            .map(|_| scope.spawn(|| work(&next, end, options)))
            .collect();
        // A panic in the core is a finding; its message was printed with its seed by the hook of the thread.
        workers
            .into_iter()
            .map(|worker| {
                worker
                    .join()
                    .unwrap_or_else(|panic| std::panic::resume_unwind(panic))
            })
            .collect()
    });
    let mut sum = Stats::default();
    for outcome in outcomes {
        let stats = outcome.map_err(|failure| {
            anyhow::anyhow!("{failure}\nagain: cargo xtask sim --seed {}", failure.seed)
        })?;
        sum.steps += stats.steps;
        sum.kills += stats.kills;
        sum.spawns += stats.spawns;
        sum.succeeded += stats.succeeded;
    }
    let Stats {
        steps,
        kills,
        spawns,
        succeeded,
        ..
    } = sum;
    let seconds = begun.elapsed().as_secs_f64();
    println!(
        "{seeds} seeds from {first}: {steps} steps, {kills} kills of the daemon, {spawns} runs ({succeeded} by standing order) in {seconds:.1}s; all sentences held"
    );
    Ok(())
}

/// Takes seeds until there are none left; the first that fails ends it for all.
fn work(next: &AtomicU64, end: u64, options: Options) -> Result<Stats, Box<Failure>> {
    let mut sum = Stats::default();
    loop {
        let seed = next.fetch_add(1, Ordering::Relaxed);
        if seed >= end {
            return Ok(sum);
        }
        let stats = seed_checked(seed, options).inspect_err(|_| next.store(end, Ordering::Relaxed))?;
        sum.steps += stats.steps;
        sum.kills += stats.kills;
        sum.spawns += stats.spawns;
        sum.succeeded += stats.succeeded;
    }
}

fn seed_checked(seed: u64, options: Options) -> Result<Stats, Box<Failure>> {
    // A panic loses the seed otherwise.
    let stats = std::panic::catch_unwind(|| run(seed, options)).unwrap_or_else(|panic| {
        let said = panic
            .downcast_ref::<String>()
            .cloned()
            .or_else(|| panic.downcast_ref::<&str>().map(|text| (*text).to_owned()));
        Err(Failure {
            seed,
            what: format!("panicked: {}", said.unwrap_or_default()),
            transcript: Vec::new(),
        })
    })?;
    if seed.is_multiple_of(TWICE_ONE_IN) {
        let again = run(seed, options)?;
        if again.digest != stats.digest {
            let what = format!(
                "another transcript the second time: {:016x}, {:016x}",
                stats.digest, again.digest
            );
            return Err(Box::new(Failure {
                seed,
                what,
                transcript: Vec::new(),
            }));
        }
    }
    Ok(stats)
}
