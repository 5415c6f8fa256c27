//! What is done with this repository, the same on every machine: `cargo xtask WHAT`.

mod bench;
mod chaos;
mod ci;
mod demo;
mod deny;
mod generate;
mod shell;
mod simulate;
mod tidy;

use anyhow::{Result, bail, ensure};

const USAGE: &str = "\
cargo xtask ci                              everything that must pass (./test calls it)
            tidy                            rules of style that no other tool checks
            deny                            licences, banned crates, sources (rules of deny.toml)
            gen [--check]                   write generated files anew, or only compare
            sim --seeds N [--seed S]        the core in a simulated world; --seed S shows one run
            bench [start|stop|respawn|footprint|logs|adopt|control|subscribers|tasks|all] [--rounds N] [--quick]
            chaos --minutes M [--jobs N] [--seed S]
            outage [--seconds N]            the look-up tests with outages that last (60 s)
            demo                            the example app, and what happens when something is killed
";

fn main() -> std::process::ExitCode {
    match run() {
        Ok(()) => std::process::ExitCode::SUCCESS,
        // Without a backtrace: what is wrong is nearly always outside of this program.
        Err(error) => {
            eprintln!("error: {error:#}");
            std::process::ExitCode::FAILURE
        }
    }
}

fn run() -> Result<()> {
    let mut words: Vec<String> = std::env::args().skip(1).collect();
    let what = if words.is_empty() {
        "help".to_owned()
    } else {
        words.remove(0)
    };
    match what.as_str() {
        "ci" => ci::ci(),
        "tidy" => tidy::tidy(),
        "deny" => deny::deny(),
        "gen" => generate::generate(words.iter().any(|word| word == "--check")),
        "sim" => simulate::simulate(&words),
        "bench" => bench::bench(&words),
        "chaos" => chaos::chaos(&words),
        "outage" => outage(option(&words, "--seconds")?.unwrap_or(60)),
        "demo" => demo::demo(),
        "help" | "--help" | "-h" => {
            print!("{USAGE}");
            Ok(())
        }
        other => bail!("there is no `cargo xtask {other}`\n{USAGE}"),
    }
}

/// Look-up services that are away, and a network that is cut, for so long and not only for as long as it takes to notice.
fn outage(seconds: u64) -> Result<()> {
    let names = "test(was_away_learns_everything_again) | test(behind_a_dead_network)";
    let status = std::process::Command::new("cargo")
        .args([
            "nextest",
            "run",
            "-p",
            "gafferd",
            "--test",
            "lookup",
            "--no-capture",
            "-E",
            names,
        ])
        .env("GAFFER_TEST_OUTAGE_S", seconds.to_string())
        .status()?;
    ensure!(status.success(), "the fleet's view was not right again");
    Ok(())
}

/// The value of an option among the words.
fn option<T: std::str::FromStr>(words: &[String], name: &str) -> Result<Option<T>> {
    let Some(place) = words.iter().position(|word| word == name) else {
        return Ok(None);
    };
    match words.get(place + 1).map(|word| word.parse()) {
        Some(Ok(value)) => Ok(Some(value)),
        _ => bail!("{name} needs a value"),
    }
}
