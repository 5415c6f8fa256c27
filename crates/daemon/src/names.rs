//! Names from a URL, a query or a body, and what is said when they are wrong.

use crate::refusal::Refusal;
use gaffer::info::{OperationId, Target};
use gaffer_api::error::Code;
use gaffer_core::name::{JobId, JobName, Name, RunId};

/// A session from a path segment.
pub fn session(text: &str) -> Result<Name, Refusal> {
    Name::parse(text).map_err(|error| Refusal::new(Code::BadName, error.to_string()))
}

/// A job from two path segments.
pub fn job(session_text: &str, job_text: &str) -> Result<JobId, Refusal> {
    let session = session(session_text)?;
    let job = JobName::parse(job_text).map_err(|error| Refusal::new(Code::BadName, error.to_string()))?;
    Ok(JobId { session, job })
}

/// A job, or an instance of it.
pub fn target(session: &str, job_text: &str, instance: Option<u32>) -> Result<Target, Refusal> {
    Ok(Target {
        job: job(session, job_text)?,
        instance,
    })
}

/// `session.job` or `session.job.n`.
pub fn full(text: &str) -> Result<Target, Refusal> {
    let wrong = |message: String| {
        Refusal::new(Code::BadName, message).hint("write session.job, or session.job.2 for one instance")
    };
    let (session, rest) = text
        .split_once('.')
        .ok_or_else(|| wrong(format!("`{}` names no session", text.escape_debug())))?;
    // A job's name does not end in a number: the last part is an instance if it is one.
    let (job_text, instance) = match rest.rsplit_once('.') {
        Some((job, n)) if n.bytes().all(|byte| byte.is_ascii_digit()) => {
            let number = n
                .parse()
                .map_err(|_| wrong(format!("`{}` is no instance", n.escape_debug())))?;
            (job, Some(number))
        }
        _ => (rest, None),
    };
    target(session, job_text, instance)
}

/// A run id, whole.
pub fn run(text: &str) -> Result<RunId, Refusal> {
    RunId::parse(text.strip_prefix('@').unwrap_or(text)).map_err(|_| {
        Refusal::new(Code::RunNotFound, format!("no run @{text}"))
            .hint("a run is named by its whole id here; /v1/runs?prefix= finds it by its beginning")
    })
}

/// `op-12`.
pub fn operation(text: &str) -> Result<OperationId, Refusal> {
    let number = text.strip_prefix("op-").and_then(|number| number.parse().ok());
    number
        .map(OperationId)
        .ok_or_else(|| Refusal::new(Code::OperationNotFound, format!("no operation `{text}`")))
}
