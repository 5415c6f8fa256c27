//! Starts, stops, respawns, memory.

use crate::client::{Client, Scratch};
use crate::program::{self, Told};
use crate::{bare, compare, spread};
use gaffer_shim::identity::mono_ns;
use gaffer_shim::message::{Scope, ToShim};
use std::io;
use std::time::{Duration, Instant};

fn ms(duration: Duration) -> f64 {
    duration.as_secs_f64() * 1000.0
}

/// So many runs asked for at once, until the last `Started` is in the journal; then TERM to each, until the last
/// `Exited` is.
pub fn start(count: usize, rounds: usize) -> io::Result<()> {
    let (mut bare, mut shim) = ((Vec::new(), Vec::new()), (Vec::new(), Vec::new()));
    let (mut first, mut last, mut cpu) = (Vec::new(), Vec::new(), Vec::new());
    for _ in 0..rounds {
        let scratch = Scratch::new()?;
        let program = scratch.0.join("tiny");
        program::install(&program)?;
        let program = program.to_string_lossy().into_owned();
        let output = bare::command(&["spawn", &count.to_string(), &program])?.output()?;
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        let mut lines = text.lines().filter_map(|line| line.parse::<f64>().ok());
        bare.0.extend(lines.next().map(|us| us / 1000.0));
        bare.1.extend(lines.next().map(|us| us / 1000.0));

        let mut client = Client::start()?;
        let mut frames = Vec::new();
        let mut runs = Vec::new();
        for number in 0..count {
            let spawn = client.spawn(&format!("many/{number}"), &[&program]);
            runs.push(spawn.run);
            frames.extend(ToShim::Spawn(Box::new(spawn)).to_frame());
        }
        let before = client.cpu()?;
        let (begun, begun_ns) = (Instant::now(), mono_ns());
        client.send(&frames)?;
        shim.0
            .push(ms(client.until(|client| client.counts.0 == count)? - begun));
        cpu.push((client.cpu()? - before) * 1000.0);
        let at = |place: usize| {
            client
                .starts_ns
                .get(place)
                .map_or(0.0, |ns| (ns - begun_ns) as f64 / 1e6)
        };
        let few = 100.min(count);
        first.push(at(few - 1));
        last.push(at(count - 1) - at(count - few));

        std::thread::sleep(Duration::from_millis(200));
        let mut frames = Vec::new();
        for (req, run) in runs.iter().enumerate() {
            let (req, run) = (req as u64, *run);
            frames.extend(
                ToShim::Signal {
                    req,
                    run,
                    signal: libc::SIGTERM,
                    scope: Scope::Group,
                }
                .to_frame(),
            );
        }
        let begun = Instant::now();
        client.send(&frames)?;
        shim.1
            .push(ms(client.until(|client| client.counts.1 == count)? - begun));
    }
    compare(&format!("start {count}"), "ms", &bare.0, &shim.0);
    compare(&format!("stop {count}"), "ms", &bare.1, &shim.1);
    compare("  its first hundred, last hundred", "ms", &first, &last);
    println!(
        "  CPU of guard and shim for the starts: {:.0} ms",
        spread(&cpu).median
    );
    Ok(())
}

/// Kill to first byte of the successor. Each lives 30 ms.
pub fn respawn(count: usize, rounds: usize) -> io::Result<()> {
    let (mut bare, mut shim) = (Vec::new(), Vec::new());
    let (mut known, mut begun_to_byte) = (Vec::new(), Vec::new());
    for _ in 0..rounds {
        bare.extend(bare_respawn(count)?);
        let scratch = Scratch::new()?;
        let program = scratch.0.join("tiny");
        program::install(&program)?;
        let mut told = Told::new(&scratch.0)?;
        let words = [
            program.to_string_lossy().into_owned(),
            told.path.to_string_lossy().into_owned(),
        ];
        let words: Vec<&str> = words.iter().map(String::as_str).collect();
        let mut client = Client::start()?;
        let mut spawn = client.spawn("again", &words);
        client.say(&ToShim::Spawn(Box::new(spawn.clone())))?;
        let mut pid = told.next()?;
        for _ in 0..count {
            let before = spawn.run;
            client.until(|client| client.runs.contains_key(&before))?;
            spawn = client.spawn("again", &words);
            spawn.after = Some(before);
            let frame = ToShim::Spawn(Box::new(spawn.clone())).to_frame();
            let pidfd = gaffer_shim::client::pidfd(pid)?;
            std::thread::sleep(Duration::from_millis(30));
            let killed = Instant::now();
            rustix::process::pidfd_send_signal(pidfd, rustix::process::Signal::KILL)?;
            let exited = client.until(|client| client.runs.get(&before).is_some_and(|seen| seen.exited))?;
            let asked = Instant::now();
            client.send(&frame)?;
            pid = told.next()?;
            let byte = Instant::now();
            shim.push((byte - killed).as_secs_f64() * 1e6);
            known.push((exited - killed).as_secs_f64() * 1e6);
            begun_to_byte.push((byte - asked).as_secs_f64() * 1e6);
        }
    }
    compare("respawn", "µs", &bare, &shim);
    let p99 = |values: &[f64]| {
        let mut sorted = values.to_vec();
        sorted.sort_by(f64::total_cmp);
        sorted.get(sorted.len() * 99 / 100).copied().unwrap_or(f64::NAN)
    };
    println!("  p99: bare {:.1} µs, shim {:.1} µs", p99(&bare), p99(&shim));
    println!(
        "  kill to Exited read: {:.1} µs; Spawn sent to first byte: {:.1} µs (medians)",
        spread(&known).median,
        spread(&begun_to_byte).median
    );
    Ok(())
}

fn bare_respawn(count: usize) -> io::Result<Vec<f64>> {
    let scratch = Scratch::new()?;
    let program = scratch.0.join("tiny");
    program::install(&program)?;
    let mut told = Told::new(&scratch.0)?;
    let (program, path) = (
        program.to_string_lossy().into_owned(),
        told.path.to_string_lossy().into_owned(),
    );
    let child = bare::command(&["respawn", &program, &path])?.spawn()?;
    let mut took = Vec::new();
    let mut pid = told.next()?;
    for _ in 0..count {
        let pidfd = gaffer_shim::client::pidfd(pid)?;
        std::thread::sleep(Duration::from_millis(30));
        let begun = Instant::now();
        rustix::process::pidfd_send_signal(pidfd, rustix::process::Signal::KILL)?;
        let (next, at) = bare::told(&mut told)?;
        took.push((at - begun).as_secs_f64() * 1e6);
        pid = next;
    }
    bare::end_respawn(child, pid)?;
    Ok(took)
}

/// Memory of guard and shim with so many idle runs whose output is captured, and switches while nothing happens.
pub fn footprint(count: usize) -> io::Result<()> {
    let mut client = Client::start()?;
    let program = client.scratch.0.join("tiny");
    program::install(&program)?;
    let program = program.to_string_lossy().into_owned();
    for number in 0..count {
        let spawn = client.spawn(&format!("many/{number}"), &[&program]);
        client.say(&ToShim::Spawn(Box::new(spawn)))?;
    }
    client.until(|client| client.counts.0 == count)?;
    std::thread::sleep(Duration::from_secs(2));
    let pids = [client.guard_pid(), client.pid];
    for (name, pid) in ["guard", "shim"].iter().zip(pids) {
        println!("{name}: {}", memory(pid)?);
    }
    let before = switches(&pids)?;
    std::thread::sleep(Duration::from_secs(10));
    println!("context switches in 10 s at rest: {}", switches(&pids)? - before);
    Ok(())
}

fn memory(pid: u32) -> io::Result<String> {
    let text = std::fs::read_to_string(format!("/proc/{pid}/smaps_rollup"))?;
    let wanted = ["Pss:", "Pss_Anon:", "Pss_File:", "Pss_Shmem:", "Private_Dirty:"];
    let lines = text
        .lines()
        .filter(|line| wanted.iter().any(|name| line.starts_with(name)));
    let plain = lines.map(|line| line.split_whitespace().collect::<Vec<_>>().join(" "));
    Ok(plain.collect::<Vec<_>>().join(", "))
}

fn switches(pids: &[u32]) -> io::Result<u64> {
    let mut sum = 0;
    for pid in pids {
        for task in std::fs::read_dir(format!("/proc/{pid}/task"))? {
            let status = std::fs::read_to_string(task?.path().join("status"))?;
            let lines = status
                .lines()
                .filter_map(|line| line.split_once("_ctxt_switches:"));
            sum += lines
                .filter_map(|(_, number)| number.trim().parse::<u64>().ok())
                .sum::<u64>();
        }
    }
    Ok(sum)
}
