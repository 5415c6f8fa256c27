//! Taking charge of a task that is on disk, whole or not.

use super::definition::Definition;
use super::layout::{Place, Root};
use super::service::{self, Led};
use super::stream::{self, StreamError, Writer};
use crate::info::Error;
use gaffer_core::task::fold::History;
use gaffer_core::task::record::{Header, Record, Status, TaskState};
use std::sync::Arc;

/// Opens the stream of a task whose definition is not needed: nothing of it will be begun.
pub(super) fn bare(root: &Root, id: &str) -> Result<Led, Error> {
    let task = |text: String| Error::Task(format!("task {id}: {text}"));
    let (writer, records) = Writer::lead(&root.runner(id)).map_err(|error| task(error.to_string()))?;
    let history = History::replay(&records).map_err(|error| task(error.to_string()))?;
    let header = history.header.clone();
    let header = header.ok_or_else(|| task("its stream has no header: it never began".to_owned()))?;
    if root.place(id).is_none() {
        // It is over when its file moves: one that has gone is made for that.
        root.begin(id, b"{}\n").map_err(|error| task(error.to_string()))?;
    }
    Ok(Led {
        id: id.into(),
        header,
        definition: Definition::bare(&history),
        root: root.clone(),
        writer,
        records,
        by: "the checkpoint".into(),
    })
}

/// Ends a task whose stream has no header: one is made, and the task is over. A damaged stream is kept beside it. False: there is
/// a header.
pub(super) fn bury(root: &Root, id: &str, state: TaskState) -> Result<bool, Error> {
    let task = |error: &dyn std::fmt::Display| Error::Task(format!("task {id}: {error}"));
    let path = root.runner(id);
    let mut writer = match Writer::lead(&path) {
        Ok((_, records)) if records.iter().any(is_header) => return Ok(false),
        Ok((writer, _)) => writer,
        Err(StreamError::Corrupt { .. }) => {
            let begun = stream::read(&path).map_err(|error| task(&error))?;
            if begun.records.iter().any(is_header) {
                return Ok(false);
            }
            std::fs::rename(&path, path.with_extension("damaged")).map_err(|error| task(&error))?;
            Writer::lead(&path).map_err(|error| task(&error))?.0
        }
        Err(error) => return Err(task(&error)),
    };
    let uid = rustix::process::getuid().as_raw();
    let nobody: Arc<str> = "".into();
    let header = Header {
        task_id: id.into(),
        launched: service::now(),
        sandbox: nobody.clone(),
        hostname: nobody.clone(),
        user: nobody.clone(),
        uid: Some(uid),
        ports: Vec::new(),
        log_dir: nobody,
        retry_of: None,
    };
    let status = Status {
        state,
        at: service::now(),
        runner_pid: std::process::id(),
        runner_uid: uid,
    };
    let records = [Record::Header(header), Record::Status(status)];
    writer.append(&records).map_err(|error| task(&error))?;
    if root.place(id).is_none() {
        root.begin(id, b"{}\n").map_err(|error| task(&error))?;
    }
    root.finish(id).map_err(|error| task(&error))?;
    Ok(true)
}

/// Opens the stream and the definition of a task that is on disk.
pub(super) fn again(root: &Root, id: &str) -> Result<Led, String> {
    let (writer, records) = Writer::lead(&root.runner(id)).map_err(|error| error.to_string())?;
    let header = records.iter().find_map(|record| match record {
        Record::Header(header) => Some(header.clone()),
        _ => None,
    });
    let header = header.ok_or("its stream has no header: it never began")?;
    let path = root.task(id, Place::Active);
    let text = std::fs::read(&path).map_err(|error| format!("{}: {error}", path.display()))?;
    let definition = Definition::again(&text, &header).map_err(|error| error.to_string())?;
    Ok(Led {
        id: id.into(),
        header,
        definition,
        root: root.clone(),
        writer,
        records,
        by: "the checkpoint".into(),
    })
}

fn is_header(record: &Record) -> bool {
    matches!(record, Record::Header(_))
}
