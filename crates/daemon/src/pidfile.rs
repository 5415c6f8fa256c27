//! The pidfile: one daemon per file, and never a number of somebody else.
//!
//! A file that names a live process is respected, unless that process began after the file was written: then its number
//! was given out again and the file is stale. The file is written beside its place and renamed, so that nobody ever reads
//! half of it, and removed at the end only if it still holds our number.

use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// The start of a process is known to a hundredth of a second, the time of a file to less: so much is no difference.
const SLACK: Duration = Duration::from_secs(2);

/// USER_HZ, which Linux fixed for all programs.
const TICKS_PER_SECOND: u64 = 100;

/// Why there is no pidfile.
#[derive(Debug, thiserror::Error)]
pub enum PidFileError {
    /// A live process is named in it.
    #[error("Already running on PID {pid} (or pid file '{path}' is stale)", path = .path.display())]
    Running {
        /// The process.
        pid: i32,
        /// The file.
        path: PathBuf,
    },
    /// It cannot be read or written.
    #[error("the pidfile {path} cannot be {what}: {source}", path = .path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// `read` or `written`.
        what: &'static str,
        /// Why not.
        source: std::io::Error,
    },
}

/// Ours from `write` to the drop.
#[derive(Debug)]
pub struct PidFile(PathBuf);

/// Is there another daemon of this file?
pub fn refuse_second(path: &Path) -> Result<(), PidFileError> {
    let io = |source| PidFileError::Io {
        path: path.to_owned(),
        what: "read",
        source,
    };
    let Some(pid) = holder(path).map_err(io)? else {
        return Ok(());
    };
    if pid.as_raw_nonzero().get() == own() || !is_alive(pid) || began_later(pid, path) {
        return Ok(());
    }
    Err(PidFileError::Running {
        pid: pid.as_raw_nonzero().get(),
        path: path.to_owned(),
    })
}

impl PidFile {
    /// Writes our number.
    pub fn write(path: &Path) -> Result<PidFile, PidFileError> {
        refuse_second(path)?;
        let mut beside = path.as_os_str().to_owned();
        beside.push(format!(".{}", own()));
        let beside = PathBuf::from(beside);
        let written = std::fs::OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(true)
            .mode(0o644)
            .open(&beside)
            .and_then(|mut file| file.write_all(format!("{}\n", own()).as_bytes()))
            .and_then(|()| std::fs::rename(&beside, path));
        match written {
            Ok(()) => Ok(PidFile(path.to_owned())),
            Err(source) => {
                // Perhaps it was never made.
                let _removed = std::fs::remove_file(&beside);
                Err(PidFileError::Io {
                    path: path.to_owned(),
                    what: "written",
                    source,
                })
            }
        }
    }
}

impl Drop for PidFile {
    fn drop(&mut self) {
        let ours = holder(&self.0).ok().flatten();
        if ours.is_some_and(|pid| pid.as_raw_nonzero().get() == own()) {
            // Left behind it names a process that is gone, which whoever reads it must expect anyway.
            let _removed = std::fs::remove_file(&self.0);
        }
    }
}

fn own() -> i32 {
    rustix::process::getpid().as_raw_nonzero().get()
}

/// The number in the file; none if there is no file or no number in it.
fn holder(path: &Path) -> std::io::Result<Option<rustix::process::Pid>> {
    match std::fs::read_to_string(path) {
        Ok(text) => Ok(text
            .trim()
            .parse()
            .ok()
            .filter(|pid| *pid > 0)
            .and_then(rustix::process::Pid::from_raw)),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

/// A zombie runs nothing.
fn is_alive(pid: rustix::process::Pid) -> bool {
    std::fs::read_to_string(format!("/proc/{}/stat", pid.as_raw_nonzero())).is_ok_and(|stat| {
        stat.rsplit_once(')')
            .is_some_and(|(_, rest)| !rest.starts_with(" Z"))
    })
}

/// Did the process begin after the file was written? Where that cannot be told: no.
fn began_later(pid: rustix::process::Pid, path: &Path) -> bool {
    let written = std::fs::metadata(path).and_then(|meta| meta.modified());
    match (written.ok(), beginning(pid)) {
        (Some(written), Some(began)) => began > written + SLACK,
        _ => false,
    }
}

fn beginning(pid: rustix::process::Pid) -> Option<SystemTime> {
    let stat = std::fs::read_to_string(format!("/proc/{}/stat", pid.as_raw_nonzero())).ok()?;
    // The name may hold blanks and brackets: what counts begins behind the last one. Field 22, proc(5).
    let ticks: u64 = stat
        .rsplit_once(')')?
        .1
        .split_whitespace()
        .nth(19)?
        .parse()
        .ok()?;
    let boot = std::fs::read_to_string("/proc/stat").ok()?;
    let boot: u64 = boot
        .lines()
        .find_map(|line| line.strip_prefix("btime "))?
        .trim()
        .parse()
        .ok()?;
    let since_boot = Duration::from_millis(ticks.saturating_mul(1000) / TICKS_PER_SECOND);
    Some(UNIX_EPOCH + Duration::from_secs(boot) + since_boot)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(text: &str) -> (PathBuf, PathBuf) {
        let dir = std::env::temp_dir().join(format!(
            "gaffer-pidfile-{}-{:?}",
            own(),
            std::thread::current().id()
        ));
        std::fs::create_dir_all(&dir).unwrap();
        let path = dir.join("pid");
        std::fs::write(&path, text).unwrap();
        (dir, path)
    }

    #[test]
    fn s14_5_a_live_process_is_respected_and_named() {
        let parent = std::os::unix::process::parent_id();
        let (dir, path) = file(&format!("{parent}\n"));
        let said = refuse_second(&path).unwrap_err().to_string();
        let wanted = format!(
            "Already running on PID {parent} (or pid file '{}' is stale)",
            path.display()
        );
        assert_eq!(said, wanted);
        // Written long before that process began: its number was given out again.
        let long_ago = SystemTime::now() - Duration::from_secs(40 * 365 * 86_400);
        std::fs::File::options()
            .write(true)
            .open(&path)
            .unwrap()
            .set_modified(long_ago)
            .unwrap();
        assert!(refuse_second(&path).is_ok());
        std::fs::remove_dir_all(dir).unwrap();
    }

    #[test]
    fn s14_5_only_our_own_is_removed() {
        let (dir, path) = file("no number\n");
        let ours = PidFile::write(&path).unwrap();
        assert_eq!(std::fs::read_to_string(&path).unwrap(), format!("{}\n", own()));
        drop(ours);
        assert!(!path.exists());
        let ours = PidFile::write(&path).unwrap();
        std::fs::write(&path, "1\n").unwrap();
        drop(ours);
        assert!(path.exists());
        std::fs::remove_dir_all(dir).unwrap();
    }
}
