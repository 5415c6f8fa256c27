//! Generated files that are committed, so that their difference is the review of a change.
//!
//! Two ways: a program prints the file, or a test compares it (and writes it when `BLESS=1`).

use crate::shell::{cargo, output, programs, root, run};
use anyhow::{Result, bail};
use std::process::Command;

/// Path, program, its words.
const PRINTED: [(&str, &str, &[&str]); 1] = [("openapi/gaffer.json", "gafferd", &["--print-openapi"])];

/// Tests that compare committed files: states of the machine, schema and reference of the configuration, errors, help texts,
/// reference of the command line.
const BLESSED: [&[&str]; 4] = [
    &["gaffer-core", "--test", "core", "states"],
    &["gaffer-config", "--test", "generated"],
    &["gaffer-api", "--lib", "error"],
    &["gaffer-cli", "--test", "help"],
];

/// Writes them, or with `check` only compares (the blessed ones are compared by the tests themselves).
pub fn generate(check: bool) -> Result<()> {
    let mut stale = Vec::new();
    if !check {
        run(&mut cargo(&["build", "--workspace", "--bins"]))?;
    }
    for (path, program, words) in PRINTED {
        let text = output(Command::new(programs("debug")?.join(program)).args(words))?;
        let place = root().join(path);
        let same = std::fs::read_to_string(&place).is_ok_and(|committed| committed == text);
        match (same, check) {
            (true, _) => {}
            (false, true) => stale.push(path),
            (false, false) => {
                if let Some(folder) = place.parent() {
                    std::fs::create_dir_all(folder)?;
                }
                std::fs::write(&place, text)?;
                println!("wrote {path}");
            }
        }
    }
    if !stale.is_empty() {
        bail!("not as generated: {}; run `cargo xtask gen`", stale.join(", "));
    }
    if !check {
        for tests in BLESSED {
            run(cargo(&["test", "--quiet", "-p"]).args(tests).env("BLESS", "1"))?;
        }
    }
    Ok(())
}
