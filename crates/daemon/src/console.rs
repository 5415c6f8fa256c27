//! `gafferd -vv`: what the programs write, between the lines of the log, as on the console of the original.
//!
//! It is a client of the daemon's own socket like any other: what it reads comes from the files, and if the log is slower
//! than the programs it is told of gaps, as others are.

use crate::setup::Plan;
use crate::writer;
use futures_util::StreamExt;
use gaffer_api::routes::LogQuery;
use gaffer_api::types::LogLine;
use gaffer_api::{Client, Endpoint};
use std::path::PathBuf;
use tracing::Level;

/// Begins, if that was asked for, with what programs have written since a time (RFC 3339).
pub fn begin(plan: &Plan, since: String) {
    if plan.shows_output {
        tokio::spawn(follow(plan.socket.clone(), since));
    }
}

/// Until the daemon ends.
async fn follow(socket: PathBuf, since: String) {
    let client = Client::new(Endpoint::Unix(socket), None);
    let wanted = LogQuery {
        follow: true,
        since: Some(since),
        ..LogQuery::default()
    };
    let mut lines = match client.logs(None, None, &wanted).await {
        Ok(lines) => lines,
        Err(error) => return tracing::warn!(error = %error, "console.failed"),
    };
    while let Some(Ok(line)) = lines.next().await {
        writer::line(Level::INFO, shown(&line));
    }
}

/// `TIME session.job.n | text`, `!` for standard error. A program cannot steer the terminal, nor write a line of the log's own.
fn shown(line: &LogLine) -> String {
    let sign = match line.stream.as_str() {
        "stderr" => '!',
        "gap" => '-',
        _ => '|',
    };
    let mut text = format!("{} {} {sign} ", line.time, line.subject);
    for char in line.text.chars() {
        match char {
            '\t' => text.push(char),
            char if char.is_control() => text.extend(char.escape_default()),
            char => text.push(char),
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hazard_32_control_sequences_are_shown_not_obeyed() {
        let line = LogLine {
            task: None,
            subject: "shop.web.1".to_owned(),
            run: None,
            stream: "stderr".to_owned(),
            time: "2026-11-22T14:02:19.012Z".to_owned(),
            offset: 0,
            text: "a\tb\u{1b}[2J\r".to_owned(),
            complete: true,
        };
        assert_eq!(
            shown(&line),
            "2026-11-22T14:02:19.012Z shop.web.1 ! a\tb\\u{1b}[2J\\r"
        );
    }
}
