//! Names of the old APIs ↔ the engine's.
//!
//! | era | written | job |
//! |---|---|---|
//! | 0.5 | `shop.web`, `shop/web`; the first `.` separates, else the first `/` | `shop.web` |
//! | 0.5 | `web` | `default.web` |
//! | 0.4 | `web`; in a group `shop:web` | `default.web`; `shop.web` |
//! | both | only digits | a process |

use crate::legacy::error::{LegacyError, Result};
use gaffer_core::name::{DEFAULT_SESSION, JobId, JobName, Name};

/// A 0.5 name of a job that is looked for: one that cannot be a name is not found.
pub fn find(text: &str) -> Result<JobId> {
    let (session, job) = split(text);
    parts(session, job).map_err(|error| LegacyError::not_found(error.to_string()))
}

/// Session and job of a path, looked for.
pub fn find_in(session: &str, job: &str) -> Result<JobId> {
    parts(session, job).map_err(|error| LegacyError::not_found(error.to_string()))
}

/// A job to be made in a session. `session.` before the name says it once more; other dots belong to the name.
pub fn make_in(session: &str, name: &str) -> Result<JobId> {
    let own = name.strip_prefix(session).and_then(|rest| rest.strip_prefix('.'));
    parts(session, own.unwrap_or(name)).map_err(|error| LegacyError::bad_request(error.to_string()))
}

/// `session`, `job` of a 0.5 name.
pub fn split(text: &str) -> (&str, &str) {
    text.split_once('.')
        .or_else(|| text.split_once('/'))
        .unwrap_or((DEFAULT_SESSION, text))
}

fn parts(session: &str, job: &str) -> std::result::Result<JobId, gaffer_core::name::NameError> {
    Ok(JobId::new(Name::parse(session)?, JobName::parse(job)?))
}

/// What a 0.4 name means.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Old {
    /// Only digits.
    Pid(u64),
    /// A job.
    Job(JobId),
}

/// A 0.4 name in a path.
pub fn old(text: &str) -> Result<Old> {
    if let Some(pid) = pid(text) {
        return Ok(Old::Pid(pid));
    }
    old_job(text)
        .map(Old::Job)
        .map_err(|error| LegacyError::not_found(error.to_string()))
}

/// A job by its 0.4 name.
pub fn old_job(text: &str) -> std::result::Result<JobId, gaffer_core::name::NameError> {
    let (session, job) = text.split_once(':').unwrap_or((DEFAULT_SESSION, text));
    parts(session, job)
}

/// The 0.4 name of a job.
pub fn old_name(job: &JobId) -> String {
    match job.session.as_str() {
        DEFAULT_SESSION => job.job.to_string(),
        session => format!("{session}:{}", job.job),
    }
}

/// A process number, written in digits.
pub fn pid(text: &str) -> Option<u64> {
    let digits = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    digits.then(|| text.parse().ok()).flatten()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn s1_the_first_dot_separates_then_the_first_slash() {
        let named = |text: &str| find(text).map(|job| job.to_string());
        assert_eq!(named("a.b.c").as_deref(), Ok("a.b.c"));
        assert_eq!(split("a.b.c"), ("a", "b.c"));
        assert_eq!(split("a/b"), ("a", "b"));
        assert_eq!(named("web").as_deref(), Ok("default.web"));
        assert_eq!(find("7").map_err(|error| error.status), Err(404));
    }

    #[test]
    fn s11_flat_names_belong_to_the_default_session() {
        let job = old_job("shop:web").expect("a name");
        assert_eq!(
            (job.to_string().as_str(), old_name(&job).as_str()),
            ("shop.web", "shop:web")
        );
        let job = old_job("web").expect("a name");
        assert_eq!(
            (job.to_string().as_str(), old_name(&job).as_str()),
            ("default.web", "web")
        );
        assert_eq!(old("12"), Ok(Old::Pid(12)));
    }
}
