//! A thousand subscribers to one chatty process, a tenth of whom stop reading: what it costs the daemon, and whether anybody
//! else is delayed.
//!
//! The process notes when it begins and ends by itself. One subscriber alone is measured first, then the thousand, in turn.

use super::{Plan, Table, median};
use anyhow::{Context, Result, bail};
use gaffer_testkit::{Node, wait_for};
use rustix::event::epoll;
use serde_json::json;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::os::fd::AsFd;
use std::time::{Duration, Instant};

const PATIENCE: Duration = Duration::from_secs(60);
/// Lines of one round.
const LINES: usize = 5_000;

/// What one round brought.
struct Round {
    /// From the first line to the last, by the process itself.
    took_ms: f64,
    /// From its end until the last reading subscriber had all.
    behind_ms: f64,
    /// Memory of the daemon, before anybody came and at most.
    grown_mib: f64,
}

/// One process, one and a thousand WebSockets.
pub fn subscribers(plan: &Plan, table: &mut Table) -> Result<()> {
    let _raised = gaffer_shim::limit::raise();
    let mut node = Node::builder().bin_dir(&plan.bins).bind("127.0.0.1:0").start();
    let count = plan.many(1000);
    let (mut alone, mut crowd) = (Vec::new(), Vec::new());
    for number in 0..plan.rounds {
        alone.push(round(&mut node, &format!("one{number}"), 1, 0)?);
        crowd.push(round(&mut node, &format!("many{number}"), count, count / 10)?);
    }
    let of =
        |rounds: &[Round], value: fn(&Round) -> f64| median(&rounds.iter().map(value).collect::<Vec<_>>());
    let what = format!("{count} subscribers, {} of them not reading", count / 10);
    table.at_most(
        &format!("{LINES} lines of a process with {what}, by its time with one"),
        "ms",
        of(&alone, |round| round.took_ms),
        of(&crowd, |round| round.took_ms),
        1.5,
    );
    table.absolute(
        &format!("{what}: all readers have the last line behind its end"),
        "ms",
        of(&crowd, |round| round.behind_ms),
        30_000.0,
    );
    table.absolute(
        &format!("{what}: memory of the daemon grown"),
        "MiB",
        of(&crowd, |round| round.grown_mib),
        128.0,
    );
    Ok(())
}

fn round(node: &mut Node, name: &str, count: usize, stalled: usize) -> Result<Round> {
    let notes = node.root().join(format!("{name}.notes"));
    let script = format!(
        "read go; date +%s%N > {notes:?}; awk 'BEGIN {{ for (i = 0; i < {LINES}; i++) {{ \
         print i, \"a line as programs write them, of a usual length\"; fflush() }} }}'; \
         date +%s%N >> {notes:?}; echo LAST; exec sleep 600"
    );
    node.put_job(
        "bench",
        name,
        &json!({"cmd": ["/bin/sh", "-c", script], "stdin": "pipe"}),
    );
    node.wait_job("bench", name, PATIENCE, |job| job["state"] == "running");
    let pid = number_of(node, name)?;
    let before = memory_kib(node)?;
    let mut sockets = Vec::new();
    for _ in 0..count {
        sockets.push(subscribe(node, pid)?);
    }
    let sent = node.cli(&["send", &format!("bench.{name}"), "go"]);
    anyhow::ensure!(
        sent.status.success(),
        "gaffer send: {}",
        String::from_utf8_lossy(&sent.stderr)
    );
    let (last, most) = read_all(node, &mut sockets[stalled..])?;
    let noted = wait_for(PATIENCE, "the process has noted its end", || {
        let text = std::fs::read_to_string(&notes).ok()?;
        let times: Vec<i128> = text.lines().filter_map(|line| line.parse().ok()).collect();
        <[i128; 2]>::try_from(times).ok()
    });
    node.cli(&["job", "rm", "-y", &format!("bench.{name}")]);
    let ms = |ns: i128| ns as f64 / 1e6;
    Ok(Round {
        took_ms: ms(noted[1] - noted[0]),
        behind_ms: ms(last - noted[1]).max(0.0),
        grown_mib: most.saturating_sub(before) as f64 / 1024.0,
    })
}

/// The small number of a job's process, by the API that has it.
fn number_of(node: &mut Node, name: &str) -> Result<u64> {
    let found = node.get(&format!("/jobs/bench/{name}/pids"));
    found["pids"][0]
        .as_u64()
        .with_context(|| format!("a process of {name}: {found}"))
}

fn memory_kib(node: &Node) -> Result<u64> {
    let pid = node.daemon_pid().context("a daemon")?;
    let text = std::fs::read_to_string(format!("/proc/{pid}/status"))?;
    let line = text
        .lines()
        .find_map(|line| line.strip_prefix("VmRSS:"))
        .context("VmRSS")?;
    line.split_whitespace()
        .next()
        .and_then(|word| word.parse().ok())
        .context("a number")
}

/// A WebSocket that has subscribed to the output of a process.
fn subscribe(node: &Node, pid: u64) -> Result<TcpStream> {
    let address = node.addresses().first().context("an address")?;
    let mut socket = TcpStream::connect(address)?;
    socket.set_read_timeout(Some(PATIENCE))?;
    let head = format!(
        "GET /channel/websocket HTTP/1.1\r\nHost: {address}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
         Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n"
    );
    socket.write_all(head.as_bytes())?;
    read_until(&mut socket, b"\r\n\r\n")?;
    let message = json!({"event": "SUB", "data": {"topic": format!("STREAM:{pid}")}}).to_string();
    // A masked text frame (RFC 6455, 5.2) with the mask of all zeros.
    let length = u8::try_from(message.len()).context("a short message")?;
    let mut frame = vec![0x81, 0x80 | length, 0, 0, 0, 0];
    frame.extend_from_slice(message.as_bytes());
    socket.write_all(&frame)?;
    read_until(&mut socket, b"}")?;
    Ok(socket)
}

fn read_until(socket: &mut TcpStream, end: &[u8]) -> Result<()> {
    let mut seen = Vec::new();
    let mut byte = [0];
    while !seen.ends_with(end) {
        if socket.read(&mut byte)? == 0 {
            bail!("the daemon closed: {}", String::from_utf8_lossy(&seen));
        }
        seen.push(byte[0]);
    }
    Ok(())
}

/// Reads all sockets until each has seen the last line; the wall time of that, and the most memory that the daemon had.
fn read_all(node: &Node, sockets: &mut [TcpStream]) -> Result<(i128, u64)> {
    let poll = epoll::create(epoll::CreateFlags::CLOEXEC)?;
    for (at, socket) in sockets.iter().enumerate() {
        socket.set_nonblocking(true)?;
        let data = epoll::EventData::new_u64(at as u64);
        epoll::add(&poll, socket.as_fd(), data, epoll::EventFlags::IN)?;
    }
    let mut tails = vec![Vec::new(); sockets.len()];
    let (mut left, mut most) = (sockets.len(), 0);
    let mut buffer = vec![0; 64 << 10];
    let begun = Instant::now();
    let mut events = Vec::with_capacity(256);
    while left > 0 {
        if begun.elapsed() > PATIENCE {
            bail!("{left} subscribers have not seen the last line");
        }
        events.clear();
        let second = rustix::event::Timespec {
            tv_sec: 1,
            tv_nsec: 0,
        };
        epoll::wait(&poll, rustix::buffer::spare_capacity(&mut events), Some(&second))?;
        most = most.max(memory_kib(node)?);
        for event in &events {
            let at = usize::try_from(event.data.u64())?;
            let read = match sockets[at].read(&mut buffer) {
                Ok(0) => bail!("the daemon closed a subscriber that reads"),
                Ok(read) => read,
                Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => continue,
                Err(error) => return Err(error.into()),
            };
            let tail: &mut Vec<u8> = &mut tails[at];
            tail.extend_from_slice(&buffer[..read]);
            if tail.windows(4).any(|window| window == b"LAST") {
                left -= 1;
                epoll::delete(&poll, sockets[at].as_fd())?;
            }
            let keep = tail.len().saturating_sub(3);
            tail.drain(..keep);
        }
    }
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH)?;
    Ok((i128::try_from(now.as_nanos())?, most))
}
