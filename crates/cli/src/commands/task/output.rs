//! What steps of a task write, line by line as it comes.

use gaffer_api::Client;
use gaffer_api::types::task::{Task, TaskStep};
use std::collections::BTreeMap;

/// A line that gets no end is shown when it is so long.
const LINE_BYTES_MAX: usize = 64 << 10;

/// So much of a stream is read at once: more is kept for the next time.
const READ_BYTES_MAX: u64 = 4 << 20;

/// How far the streams of a task have been read.
#[derive(Default)]
pub struct StepOutput {
    /// By step, attempt and stream.
    streams: BTreeMap<(String, u32, &'static str), Stream>,
}

/// A line.
pub struct StepLine {
    /// Who wrote it.
    pub step: String,
    /// `stdout` or `stderr`.
    pub stream: &'static str,
    /// With its end, if it has one.
    pub bytes: Vec<u8>,
}

/// How far a stream has been read, and the beginning of a line that has no end yet.
#[derive(Default)]
struct Stream {
    offset: u64,
    rest: Vec<u8>,
    /// Nothing more comes.
    over: bool,
}

impl StepOutput {
    /// Lines of these steps that are new: not all at once where there is much. None: there is nothing more by now.
    pub async fn lines(
        &mut self,
        client: &Client,
        task: &Task,
        wanted: impl Fn(&TaskStep) -> bool,
    ) -> Vec<StepLine> {
        let mut lines = Vec::new();
        for step in task.steps.iter().filter(|step| wanted(step)) {
            for run in step.runs.iter().filter(|run| run.run.is_some()) {
                for stream in ["stdout", "stderr"] {
                    let key = (step.name.clone(), run.attempt, stream);
                    let known = self.streams.entry(key).or_default();
                    if known.over {
                        continue;
                    }
                    // Looked at before it is read: what was written before the end is read after it.
                    let ended = run.ended_at.is_some();
                    let place = (&task.id[..], &step.name[..], run.attempt, stream);
                    known.read(client, place, ended, &mut lines).await;
                }
            }
        }
        lines
    }
}

impl Stream {
    async fn read(
        &mut self,
        client: &Client,
        (id, step, attempt, stream): (&str, &str, u32, &'static str),
        ended: bool,
        lines: &mut Vec<StepLine>,
    ) {
        let mut put = |bytes| {
            lines.push(StepLine {
                step: step.to_owned(),
                stream,
                bytes,
            });
        };
        let begun = self.offset;
        loop {
            let from = self.offset.to_string();
            let Ok((headers, bytes)) = client.task_log(id, step, stream, Some(attempt), &from).await else {
                return;
            };
            let next = headers.get("gaffer-offset");
            let next = next.and_then(|value| value.to_str().ok()?.parse().ok());
            self.offset = next.unwrap_or(self.offset + bytes.len() as u64);
            self.rest.extend_from_slice(&bytes);
            let whole = self
                .rest
                .iter()
                .rposition(|byte| *byte == b'\n')
                .map_or(0, |end| end + 1);
            for line in self.rest[..whole].split_inclusive(|byte| *byte == b'\n') {
                put(line.to_vec());
            }
            self.rest.drain(..whole);
            let last = bytes.is_empty();
            if self.rest.len() > LINE_BYTES_MAX || (last && ended && !self.rest.is_empty()) {
                put(std::mem::take(&mut self.rest));
            }
            self.over = last && ended;
            if last || self.offset - begun >= READ_BYTES_MAX {
                return;
            }
        }
    }
}
