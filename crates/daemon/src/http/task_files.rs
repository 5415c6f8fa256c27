//! Files in the working directory of a task. Whoever may read them may also start tasks, which can read what they like:
//! the directory may be any of this machine.

use crate::http::query::{Path, Query};
use crate::http::{Shared, body::Json};
use crate::refusal::{Answer, Refusal};
use crate::view::time;
use axum::extract::State;
use axum::response::IntoResponse;
use gaffer_api::error::{Code, ErrorBody};
use gaffer_api::types::task::{TaskFile, TaskFiles};
use gaffer_core::time::Wall;
use hyper::header::{HeaderName, HeaderValue};
use rustix::fd::OwnedFd;
use rustix::fs::{AtFlags, Dir, FileType, Mode, OFlags, ResolveFlags, Stat};
use rustix::io::Errno;
use serde::Deserialize;
use utoipa::IntoParams;

/// Bytes in one answer.
const PIECE_BYTES: u64 = 1 << 20;
/// Entries in one answer.
const ENTRIES_MAX: usize = 10_000;

/// Which directory.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct TaskFilesQuery {
    /// A directory below the working directory; none: itself.
    path: Option<String>,
}

/// Which part of which file.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct TaskFileQuery {
    /// A file below the working directory.
    path: String,
    /// Offset of the first byte, or `end`; none: 0.
    from: Option<String>,
    /// At most so many bytes: a mebibyte, which is also the most.
    length: Option<u64>,
}

/// Files of a directory below the working directory of a task, by name.
#[utoipa::path(get, path = "/v1/tasks/{id}/files", tag = "tasks", params(("id" = String, Path), TaskFilesQuery),
    responses((status = 200, body = TaskFiles), (status = "default", body = ErrorBody)))]
pub async fn list(
    State(app): State<Shared>,
    Path(id): Path<String>,
    Query(query): Query<TaskFilesQuery>,
) -> Answer<Json<TaskFiles>> {
    let path = query.path.unwrap_or_default();
    let flags = OFlags::RDONLY | OFlags::DIRECTORY;
    let listed = in_sandbox(&app, &id, path.clone(), flags, entries).await?;
    let (entries, truncated) = listed;
    Ok(Json(TaskFiles {
        path,
        entries,
        truncated,
    }))
}

/// At most a mebibyte of a file. `gaffer-from` names the offset of the first byte, `gaffer-offset` the one to go on with.
#[utoipa::path(get, path = "/v1/tasks/{id}/files/content", tag = "tasks", params(("id" = String, Path), TaskFileQuery),
    responses((status = 200, body = Vec<u8>, content_type = "application/octet-stream"),
        (status = "default", body = ErrorBody)))]
pub async fn content(
    State(app): State<Shared>,
    Path(id): Path<String>,
    Query(query): Query<TaskFileQuery>,
) -> Answer<impl IntoResponse> {
    let from =
        match query.from.as_deref() {
            None => Some(0),
            Some("end") => None,
            Some(text) => Some(text.parse::<u64>().map_err(|_| {
                Refusal::new(Code::BadValue, format!("`{}` is no offset", text.escape_debug()))
            })?),
        };
    let length = query.length.unwrap_or(PIECE_BYTES).min(PIECE_BYTES);
    // A pipe without a writer would be waited for.
    let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::NOCTTY;
    let read = in_sandbox(&app, &id, query.path, flags, move |file| {
        piece(file, from, length)
    });
    let (from, bytes) = read.await?;
    let next = from + bytes.len() as u64;
    let number = |number: u64| HeaderValue::from(number);
    Ok((
        [
            (HeaderName::from_static("gaffer-from"), number(from)),
            (HeaderName::from_static("gaffer-offset"), number(next)),
        ],
        bytes,
    ))
}

/// Opens what lies below the working directory, wherever links point, and does something with it.
async fn in_sandbox<T: Send + 'static>(
    app: &Shared,
    id: &str,
    path: String,
    flags: OFlags,
    work: impl FnOnce(&OwnedFd) -> Result<T, Errno> + Send + 'static,
) -> Answer<T> {
    let info = app.handle.task(id).await?;
    let header = info.history.header.as_ref();
    let never = || {
        Refusal::new(
            Code::TaskUnusable,
            format!("task {id} has no working directory yet"),
        )
    };
    let sandbox = header.ok_or_else(never)?.sandbox.clone();
    let shown = path.escape_debug().to_string();
    let done = tokio::task::spawn_blocking(move || {
        let root = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let root = rustix::fs::open(&*sandbox, root, Mode::empty())?;
        let below = if path.is_empty() { "." } else { &path };
        let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_MAGICLINKS;
        let file = rustix::fs::openat2(&root, below, flags | OFlags::CLOEXEC, Mode::empty(), resolve)?;
        work(&file)
    });
    match done.await {
        Ok(Ok(done)) => Ok(done),
        Ok(Err(error)) => Err(refusal(&shown, error)),
        Err(_) => Err(gaffer::info::Error::ShuttingDown.into()),
    }
}

fn refusal(path: &str, error: Errno) -> Refusal {
    let missing = |why: &str| Refusal::new(Code::FileNotFound, format!("`{path}` {why}"));
    match error {
        Errno::XDEV => missing("is not below the working directory of the task"),
        Errno::NOENT | Errno::NXIO => missing("is not there"),
        Errno::NOTDIR => missing("is no directory"),
        Errno::ISDIR => missing("is a directory: its files are at …/files"),
        Errno::INVAL => missing("is no file that can be read"),
        Errno::LOOP => missing("has too many links"),
        error => Refusal::new(Code::TaskUnusable, format!("`{path}`: {error}")),
    }
}

fn piece(file: &OwnedFd, from: Option<u64>, length: u64) -> Result<(u64, Vec<u8>), Errno> {
    let stat = rustix::fs::fstat(file)?;
    match FileType::from_raw_mode(stat.st_mode) {
        FileType::RegularFile => {}
        FileType::Directory => return Err(Errno::ISDIR),
        _ => return Err(Errno::INVAL),
    }
    let size = u64::try_from(stat.st_size).unwrap_or(0);
    let from = from.unwrap_or(size);
    let wanted = length.min(size.saturating_sub(from));
    let mut bytes = vec![0; usize::try_from(wanted).unwrap_or(0)];
    let mut filled = 0;
    while filled < bytes.len() {
        match rustix::io::pread(file, &mut bytes[filled..], from + filled as u64)? {
            0 => break,
            count => filled += count,
        }
    }
    bytes.truncate(filled);
    Ok((from, bytes))
}

fn entries(dir: &OwnedFd) -> Result<(Vec<TaskFile>, bool), Errno> {
    let mut found = Vec::new();
    for entry in Dir::read_from(dir)? {
        let entry = entry?;
        let name = entry.file_name();
        if matches!(name.to_bytes(), b"." | b"..") {
            continue;
        }
        if found.len() == ENTRIES_MAX {
            return Ok((sorted(found), true));
        }
        match rustix::fs::statat(dir, name, AtFlags::SYMLINK_NOFOLLOW) {
            Ok(stat) => found.push(entry_of(&name.to_string_lossy(), &stat)),
            // Removed meanwhile.
            Err(Errno::NOENT) => {}
            Err(error) => return Err(error),
        }
    }
    Ok((sorted(found), false))
}

fn sorted(mut entries: Vec<TaskFile>) -> Vec<TaskFile> {
    entries.sort_by(|a, b| a.name.cmp(&b.name));
    entries
}

fn entry_of(name: &str, stat: &Stat) -> TaskFile {
    let kind = match FileType::from_raw_mode(stat.st_mode) {
        FileType::RegularFile => "file",
        FileType::Directory => "directory",
        FileType::Symlink => "link",
        _ => "other",
    };
    TaskFile {
        name: name.to_owned(),
        kind: kind.to_owned(),
        size_bytes: u64::try_from(stat.st_size).unwrap_or(0),
        mode: format!("{:04o}", stat.st_mode & 0o7777),
        uid: stat.st_uid,
        gid: stat.st_gid,
        modified_at: time(Wall(stat.st_mtime.saturating_mul(1000))),
    }
}
