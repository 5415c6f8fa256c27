//! Programs that write: numbered lines, bursts, lines without an end.

use crate::arguments::Arguments;
use crate::{idle, pause_for};
use std::ffi::c_int;

/// Exit code when a write fails: a test that sees it knows that the reader went away.
const WRITE_FAILED: c_int = 91;

/// Writes all of it to a descriptor, unbuffered. False: the other end is gone.
pub fn write_all(descriptor: c_int, mut bytes: &[u8]) -> bool {
    while !bytes.is_empty() {
        // SAFETY: the pointer and length are those of a live slice.
        let wrote = unsafe { libc::write(descriptor, bytes.as_ptr().cast(), bytes.len()) };
        match usize::try_from(wrote) {
            Ok(wrote) => bytes = bytes.get(wrote..).unwrap_or_default(),
            Err(_) if std::io::Error::last_os_error().kind() == std::io::ErrorKind::Interrupted => {}
            Err(_) => return false,
        }
    }
    true
}

/// `PREFIX00000000 padding`, each line one write, so that a line is never torn by the writer.
///
/// With `--tally DIR` the prefix is `@` and the id of the run, and `DIR/ID` counts the lines written so far (eight bytes):
/// whoever checks the logs later knows what must be in them.
pub fn lines(arguments: &mut Arguments) -> Result<c_int, String> {
    let count = arguments.number("--count")?.unwrap_or(0);
    let every_us = arguments.number("--every-us")?.unwrap_or(0);
    let tally = arguments
        .text("--tally")
        .map(|dir| Tally::new(&dir))
        .transpose()?;
    let prefix = match &tally {
        Some(tally) => format!("@{} ", tally.run),
        None => arguments.text("--prefix").unwrap_or_default(),
    };
    let pad = arguments.number("--pad")?.unwrap_or(0);
    let code = arguments.number("--exit")?.unwrap_or(0);
    let descriptor = if arguments.flag("--stderr") { 2 } else { 1 };
    let padding = match pad {
        0 => String::new(),
        pad => format!(
            " {}",
            "x".repeat(usize::try_from(pad).map_err(|error| error.to_string())?)
        ),
    };
    let mut number = 0_u64;
    while count == 0 || number < count {
        if !write_all(descriptor, format!("{prefix}{number:08}{padding}\n").as_bytes()) {
            return Ok(WRITE_FAILED);
        }
        number += 1;
        if let Some(tally) = &tally {
            tally.set(number)?;
        }
        if every_us > 0 {
            std::thread::sleep(std::time::Duration::from_micros(every_us));
        }
    }
    c_int::try_from(code).map_err(|error| error.to_string())
}

struct Tally {
    run: String,
    file: std::fs::File,
}

impl Tally {
    fn new(dir: &str) -> Result<Tally, String> {
        let run = std::env::var("GAFFER_RUN").map_err(|error| format!("GAFFER_RUN: {error}"))?;
        let path = format!("{dir}/{run}");
        // A run that starts twice is what the test looks for: let it be seen.
        let file = std::fs::File::create_new(&path).map_err(|error| format!("{path}: {error}"))?;
        let tally = Tally { run, file };
        tally.set(0)?;
        Ok(tally)
    }

    fn set(&self, count: u64) -> Result<(), String> {
        let bytes = count.to_ne_bytes();
        std::os::unix::fs::FileExt::write_all_at(&self.file, &bytes, 0).map_err(|error| error.to_string())
    }
}

/// `--bytes` in writes of `--block`; then the nanoseconds it took go to `--report FILE`, in one step.
pub fn pour(arguments: &mut Arguments) -> Result<c_int, String> {
    let block =
        usize::try_from(arguments.number("--block")?.unwrap_or(65_536)).map_err(|error| error.to_string())?;
    let bytes =
        usize::try_from(arguments.number("--bytes")?.unwrap_or(0)).map_err(|error| error.to_string())?;
    let report = arguments.text("--report").ok_or("--report FILE")?;
    let mut text = vec![b'p'; block];
    if let Some(last) = text.last_mut() {
        *last = b'\n';
    }
    let begun = std::time::Instant::now();
    for _ in 0..bytes / block.max(1) {
        if !write_all(1, &text) {
            return Ok(WRITE_FAILED);
        }
    }
    let took = begun.elapsed().as_nanos().to_string();
    let draft = format!("{report}.new");
    let put = std::fs::write(&draft, took).and_then(|()| std::fs::rename(&draft, &report));
    put.map(|()| 0).map_err(|error| format!("{report}: {error}"))
}

/// So many bytes, and out at once: the end of the pipe is reached after the process is gone.
pub fn burst(arguments: &mut Arguments) -> Result<c_int, String> {
    let bytes = usize::try_from(arguments.required_number()?).map_err(|error| error.to_string())?;
    let mut text = vec![b'b'; bytes];
    if let Some(last) = text.last_mut() {
        *last = b'\n';
    }
    let code = if write_all(1, &text) { 0 } else { WRITE_FAILED };
    // SAFETY: ends the process; that nothing is cleaned up is the point.
    unsafe { libc::_exit(code) }
}

/// Never a newline.
pub fn endless_line(arguments: &mut Arguments) -> Result<c_int, String> {
    let mut left = arguments.required_number()?;
    let endless = left == 0;
    let block = [b'e'; 65_536];
    while endless || left > 0 {
        let now = if endless {
            block.len()
        } else {
            block.len().min(usize::try_from(left).unwrap_or(usize::MAX))
        };
        if !write_all(1, block.get(..now).unwrap_or(&block)) {
            return Ok(WRITE_FAILED);
        }
        left = left.saturating_sub(now as u64);
    }
    Ok(0)
}

/// One byte, at once, then nothing: `--to` names a file or FIFO that gets it instead of stdout.
pub fn first_byte(arguments: &mut Arguments) -> Result<c_int, String> {
    match arguments.text("--to") {
        None => {
            write_all(1, b".");
        }
        Some(path) => {
            let opened = std::fs::OpenOptions::new().append(true).create(true).open(&path);
            let mut file = opened.map_err(|error| format!("{path}: {error}"))?;
            std::io::Write::write_all(&mut file, b".").map_err(|error| format!("{path}: {error}"))?;
        }
    }
    idle()
}

/// What comes in goes out; then `eof`.
pub fn echo_stdin() -> Result<c_int, String> {
    let mut block = [0_u8; 4096];
    loop {
        // SAFETY: the pointer and length are those of a live array.
        let read = unsafe { libc::read(0, block.as_mut_ptr().cast(), block.len()) };
        match usize::try_from(read) {
            Ok(0) => {
                write_all(1, b"eof\n");
                return Ok(0);
            }
            Ok(read) => {
                if !write_all(1, block.get(..read).unwrap_or_default()) {
                    return Ok(WRITE_FAILED);
                }
            }
            Err(_) if std::io::Error::last_os_error().kind() == std::io::ErrorKind::WouldBlock => {
                pause_for(1)
            }
            Err(_) => return Err(format!("stdin: {}", std::io::Error::last_os_error())),
        }
    }
}
