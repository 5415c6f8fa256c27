//! What a run of a step wrote, by the names under which people look for it.
//!
//! A shim writes segments, `stdout.<offset>.log`. Links beside them have the names of Thermos: `stdout` is the newest
//! segment, `stdout.1` the one before. They are made when the run begins, and once more when it has ended.

use super::layout;
use gaffer_shim::stream::{ReadAt, StreamReader, segment_name, segments};
use std::io;
use std::path::{Path, PathBuf};

/// Streams that have a file.
const STREAMS: [&str; 2] = ["stdout", "stderr"];

/// A piece of output.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Piece {
    /// Offset of its first byte: what lies before it is kept no more.
    pub from: u64,
    /// The bytes.
    pub bytes: Vec<u8>,
}

/// Directory of one run's output.
pub fn directory(log_dir: &str, step: &str, attempt: u32) -> PathBuf {
    let number = usize::try_from(attempt.saturating_sub(1)).unwrap_or_default();
    layout::run_logs(Path::new(log_dir), step, number)
}

/// At most `max` bytes of a stream from an offset; none: from its end. Empty where nothing (more) was written.
pub fn read(dir: &Path, stream: &str, from: Option<u64>, max: usize) -> io::Result<Piece> {
    let mut reader = StreamReader::open(dir, stream);
    let mut at = match from {
        Some(from) => from,
        None => reader.range()?.1,
    };
    let mut piece = Piece {
        from: at,
        bytes: Vec::new(),
    };
    let mut buffer = vec![0; max];
    while piece.bytes.len() < max {
        let room = max - piece.bytes.len();
        match reader.read_at(at, &mut buffer[..room])? {
            ReadAt::Bytes(0) => break,
            ReadAt::Bytes(count) => {
                piece.bytes.extend_from_slice(&buffer[..count]);
                at += count as u64;
            }
            ReadAt::Gap(next) if piece.bytes.is_empty() => {
                piece.from = next;
                at = next;
            }
            // The next answer begins behind it.
            ReadAt::Gap(_) => break,
        }
    }
    Ok(piece)
}

/// Makes the links before a run begins: to the segments that it will write first.
pub(super) fn link_first(dir: &Path) -> io::Result<()> {
    let mut builder = std::fs::DirBuilder::new();
    std::os::unix::fs::DirBuilderExt::mode(&mut builder, 0o700);
    builder.recursive(true).create(dir)?;
    for stream in STREAMS {
        link(dir, stream, &segment_name(stream, 0, "log"))?;
    }
    Ok(())
}

/// Makes the links as the segments are that a run has left.
pub(super) fn link_last(dir: &Path) -> io::Result<()> {
    let mut builder = std::fs::DirBuilder::new();
    std::os::unix::fs::DirBuilderExt::mode(&mut builder, 0o700);
    builder.recursive(true).create(dir)?;
    for stream in STREAMS {
        let kept = segments(dir, stream)?;
        for (age, first) in kept.iter().rev().enumerate() {
            let name = match age {
                0 => stream.to_owned(),
                age => format!("{stream}.{age}"),
            };
            link(dir, &name, &segment_name(stream, *first, "log"))?;
        }
        if kept.is_empty() {
            // Nothing was written: an empty file, and not a link to none.
            nothing(&dir.join(stream))?;
        }
    }
    Ok(())
}

/// An empty file in place of a link, or of nothing.
fn nothing(path: &Path) -> io::Result<()> {
    let new = || std::fs::File::options().write(true).create_new(true).open(path);
    match new() {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
            if std::fs::symlink_metadata(path)?.is_symlink() {
                std::fs::remove_file(path)?;
                new()?;
            }
            Ok(())
        }
        made => made.map(drop),
    }
}

/// Puts a link to a file of the same directory in place, whatever was there.
fn link(dir: &Path, name: &str, target: &str) -> io::Result<()> {
    let path = dir.join(name);
    match std::os::unix::fs::symlink(target, &path) {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
        made => return made,
    }
    if std::fs::read_link(&path).is_ok_and(|known| known == Path::new(target)) {
        return Ok(());
    }
    let fresh = dir.join(format!(".{name}.new"));
    match std::fs::remove_file(&fresh) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    std::os::unix::fs::symlink(target, &fresh)?;
    std::fs::rename(&fresh, &path)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn links_have_the_names_of_thermos() {
        let dir = tempfile::tempdir().expect("a directory");
        let run = dir.path().join("step/0");
        link_first(&run).expect("linked");
        std::fs::write(run.join(segment_name("stdout", 0, "log")), "one").expect("written");
        assert_eq!(std::fs::read(run.join("stdout")).expect("read"), b"one");
        std::fs::write(run.join(segment_name("stdout", 3, "log")), "two").expect("written");
        link_last(&run).expect("linked");
        assert_eq!(std::fs::read(run.join("stdout")).expect("read"), b"two");
        assert_eq!(std::fs::read(run.join("stdout.1")).expect("read"), b"one");
        assert_eq!(std::fs::read(run.join("stderr")).expect("there"), b"");
    }

    #[test]
    fn output_is_read_over_segments_and_from_what_is_kept() {
        let dir = tempfile::tempdir().expect("a directory");
        for (first, text) in [(2, "cd"), (4, "ef")] {
            std::fs::write(dir.path().join(segment_name("stdout", first, "log")), text).expect("written");
        }
        let piece = |from, max| read(dir.path(), "stdout", from, max).expect("read");
        assert_eq!(
            (piece(Some(0), 9).from, &piece(Some(0), 9).bytes[..]),
            (2, &b"cdef"[..])
        );
        assert_eq!(piece(Some(3), 2).bytes, b"de");
        assert_eq!((piece(None, 9).from, piece(None, 9).bytes.len()), (6, 0));
    }
}
