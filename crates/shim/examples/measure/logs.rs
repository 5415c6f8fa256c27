//! Output: rates, CPU, and how soon a line after silence is readable.

use crate::client::{Client, Scratch};
use crate::{bare, compare, spread};
use gaffer_shim::message::{Stdin, ToShim};
use gaffer_shim::stream::StreamReader;
use std::io::{self, Write};
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

/// Blocks of 64 KiB and lines of 100 bytes, one writer and eight; a late line.
pub fn logs(rounds: usize) -> io::Result<()> {
    for (what, block, bytes) in [("64 KiB", 65_536, 1024 << 20), ("100 B", 100, 100 << 20)] {
        for writers in [1, 8] {
            let (mut bare, mut shim) = ((Vec::new(), Vec::new()), (Vec::new(), Vec::new()));
            for _ in 0..rounds {
                let (rate, cpu) = bare_pump(writers, block, bytes / writers)?;
                bare.0.push(rate);
                bare.1.push(cpu);
                let (rate, cpu) = shim_pump(writers, block, bytes / writers)?;
                shim.0.push(rate);
                shim.1.push(cpu);
            }
            compare(&format!("{what}, {writers} writers"), "MiB/s", &bare.0, &shim.0);
            compare("  CPU of the pump", "ms", &bare.1, &shim.1);
        }
    }
    late_line()
}

/// Writes so many bytes in blocks; reports the nanoseconds from the first write to the last.
pub fn pour(block: usize, bytes: usize, report: &str) -> io::Result<()> {
    let mut line = vec![b'x'; block];
    line[block - 1] = b'\n';
    let mut out = std::mem::ManuallyDrop::new(unsafe_stdout());
    let begun = Instant::now();
    for _ in 0..bytes / block {
        out.write_all(&line)?;
    }
    let took = begun.elapsed().as_nanos().to_string();
    std::fs::write(format!("{report}.new"), took)?;
    std::fs::rename(format!("{report}.new"), report)
}

/// Standard output without a buffer.
fn unsafe_stdout() -> std::fs::File {
    use std::os::fd::FromRawFd;
    // SAFETY: nobody else uses it, and it is never closed.
    unsafe { std::fs::File::from_raw_fd(1) }
}

/// This program as a writer.
pub fn writer(block: usize, bytes: usize, report: &Path) -> io::Result<Command> {
    let mut command = Command::new(std::env::current_exe()?);
    command
        .arg("pour")
        .arg(block.to_string())
        .arg(bytes.to_string())
        .arg(report);
    Ok(command)
}

/// MiB per second, all writers together.
fn rate(dir: &Path, writers: usize, each: usize) -> io::Result<f64> {
    let mut longest = 0.0_f64;
    for writer in 0..writers {
        let text = std::fs::read_to_string(dir.join(format!("report-{writer}")))?;
        longest = longest.max(text.trim().parse::<f64>().unwrap_or(f64::NAN) / 1e9);
    }
    Ok((writers * each) as f64 / f64::from(1 << 20) / longest)
}

fn bare_pump(writers: usize, block: usize, each: usize) -> io::Result<(f64, f64)> {
    let scratch = Scratch::new()?;
    let numbers = [writers, block, each].map(|number| number.to_string());
    let dir = scratch.0.to_string_lossy().into_owned();
    let output = bare::command(&["pump", &numbers[0], &numbers[1], &numbers[2], &dir])?.output()?;
    let cpu_us: f64 = String::from_utf8_lossy(&output.stdout)
        .trim()
        .parse()
        .unwrap_or(f64::NAN);
    Ok((rate(&scratch.0, writers, each)?, cpu_us / 1000.0))
}

fn shim_pump(writers: usize, block: usize, each: usize) -> io::Result<(f64, f64)> {
    let mut client = Client::start()?;
    let before = client.cpu()?;
    for number in 0..writers {
        let command = writer(block, each, &client.scratch.0.join(format!("report-{number}")))?;
        let words = std::iter::once(command.get_program()).chain(command.get_args());
        let words: Vec<String> = words.map(|word| word.to_string_lossy().into_owned()).collect();
        let words: Vec<&str> = words.iter().map(String::as_str).collect();
        let spawn = client.spawn(&format!("writer/{number}"), &words);
        client.say(&ToShim::Spawn(Box::new(spawn)))?;
    }
    client.until(|client| client.counts.1 == writers)?;
    Ok((
        rate(&client.scratch.0, writers, each)?,
        (client.cpu()? - before) * 1000.0,
    ))
}

/// From the byte given to `cat` until it is in the segment.
fn late_line() -> io::Result<()> {
    let mut client = Client::start()?;
    let mut spawn = client.spawn("late", &["/bin/cat"]);
    spawn.stdin = Stdin::Pipe;
    let run = spawn.run;
    let dir = spawn.log_dir.clone();
    client.say(&ToShim::Spawn(Box::new(spawn)))?;
    client.until(|client| client.counts.0 == 1)?;
    let mut took = Vec::new();
    for round in 1..=50_u64 {
        std::thread::sleep(Duration::from_millis(50));
        let begun = Instant::now();
        let (stream, data) = ("stdin".to_owned(), b"x\n".to_vec());
        client.say(&ToShim::Input {
            req: round,
            run,
            stream,
            data,
            eof: false,
        })?;
        while StreamReader::open(Path::new(&dir), "stdout")
            .range()
            .map_or(0, |range| range.1)
            < 2 * round
        {
            if begun.elapsed() > Duration::from_secs(10) {
                return Err(io::Error::other("the line does not come"));
            }
        }
        took.push(begun.elapsed().as_secs_f64() * 1000.0);
    }
    let took = spread(&took);
    println!(
        "late line: {:.2} ms ({:.2}-{:.2})",
        took.median, took.least, took.greatest
    );
    Ok(())
}
