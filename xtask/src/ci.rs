//! Everything that must pass, in the order in which it is cheapest to fail.

use crate::shell::{cargo, programs, run};
use crate::{deny, generate, simulate, tidy};
use anyhow::{Result, bail};
use std::time::Instant;

/// Seeds of the simulation in every run; `cargo xtask sim` does more.
const SEEDS: &str = "500";

type Step = (&'static str, fn() -> Result<()>);

const STEPS: [Step; 10] = [
    ("format", || run(&mut cargo(&["fmt", "--all", "--check"]))),
    ("tidy", tidy::tidy),
    ("deny", deny::deny),
    ("clippy", || {
        run(&mut cargo(&[
            "clippy",
            "--workspace",
            "--all-targets",
            "--locked",
            "--",
            "-D",
            "warnings",
        ]))
    }),
    ("docs", || {
        let mut docs = cargo(&["doc", "--workspace", "--no-deps", "--locked"]);
        run(docs.env("RUSTDOCFLAGS", "-D warnings"))
    }),
    // Tests of one package start programs of others; cargo would not build those for them.
    ("programs", || {
        run(&mut cargo(&["build", "--workspace", "--bins", "--locked"]))
    }),
    ("tests", tests),
    ("doc tests", || {
        // Doc tests are built in a temporary directory: they would not find the shim by looking beside themselves.
        let shim = programs("debug")?.join("gaffer-shim");
        run(cargo(&["test", "--workspace", "--doc", "--locked"]).env("GAFFER_SHIM", shim))
    }),
    ("generated files", || generate::generate(true)),
    ("simulation", || {
        simulate::simulate(&["--seeds".to_owned(), SEEDS.to_owned()])
    }),
];

/// Runs all steps; stops at the first that fails.
pub fn ci() -> Result<()> {
    let begun = Instant::now();
    let mut lines = Vec::new();
    for (name, step) in STEPS {
        println!("── {name}");
        let started = Instant::now();
        let outcome = step();
        lines.push(format!("{:>7.1}s  {name}", started.elapsed().as_secs_f64()));
        if let Err(error) = outcome {
            println!("{}", lines.join("\n"));
            bail!("{name}: {error:#}");
        }
    }
    println!(
        "{}\n{:>7.1}s  all passed",
        lines.join("\n"),
        begun.elapsed().as_secs_f64()
    );
    Ok(())
}

fn tests() -> Result<()> {
    if has_nextest() {
        return run(&mut cargo(&[
            "nextest",
            "run",
            "--workspace",
            "--locked",
            "--profile",
            "ci",
        ]));
    }
    println!("cargo-nextest is not installed: cargo test instead, in one process per test program");
    // Few threads: many of the tests start real daemons.
    let words = [
        "test",
        "--workspace",
        "--lib",
        "--bins",
        "--tests",
        "--locked",
        "--",
        "--test-threads",
        "2",
    ];
    run(&mut cargo(&words))
}

fn has_nextest() -> bool {
    let probe = cargo(&["nextest", "--version"])
        .stdout(std::process::Stdio::null())
        .stderr(std::process::Stdio::null())
        .status();
    probe.is_ok_and(|status| status.success())
}
