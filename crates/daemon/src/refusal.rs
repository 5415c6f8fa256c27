//! What a handler answers instead of a result, and how errors of the engine become one.
//!
//! A refusal travels as an extension of an empty response; the outermost layer (`http::finish`) writes the
//! body, because only there the id of the request is known.

use axum::response::{IntoResponse, Response};
use gaffer::info::Error;
use gaffer_api::error::{ApiError, Code, Detail};
use hyper::StatusCode;

/// A refusal; boxed, as results that carry it are returned everywhere.
#[derive(Clone, Debug)]
pub struct Refusal(pub Box<ApiError>);

/// Extension of an answer whose body is as its protocol wants it, also if it is an error and no JSON.
#[derive(Clone, Copy, Debug)]
pub struct Written;

/// Result of a handler.
pub type Answer<T> = Result<T, Refusal>;

impl Refusal {
    /// Without a hint.
    pub fn new(code: Code, message: impl Into<String>) -> Refusal {
        Refusal(Box::new(ApiError::new(code, message)))
    }

    /// Adds what to do.
    #[must_use]
    pub fn hint(mut self, hint: impl Into<String>) -> Refusal {
        self.0.hint = Some(hint.into());
        self
    }

    /// HTTP status.
    pub fn status(&self) -> StatusCode {
        StatusCode::from_u16(self.0.code().status()).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR)
    }
}

impl IntoResponse for Refusal {
    fn into_response(self) -> Response {
        let mut response = self.status().into_response();
        response.extensions_mut().insert(self);
        response
    }
}

impl From<Error> for Refusal {
    fn from(error: Error) -> Refusal {
        let text = error.to_string();
        let (code, hint) = match error {
            Error::JobNotFound(job, similar) => return job_not_found(&job, similar),
            Error::Config(diagnostics) => return invalid_config(&diagnostics),
            Error::InstanceNotFound(..) => (Code::InstanceNotFound, None),
            Error::RunNotFound(_) => (
                Code::RunNotFound,
                Some("old runs are forgotten: [gaffer] history".to_owned()),
            ),
            Error::StreamNotFound { .. } => (
                Code::StreamNotFound,
                Some("streams are stdout, stderr and the job's labels".to_owned()),
            ),
            Error::JobExists(_) => (
                Code::JobExists,
                Some("replace it with its revision in If-Match".to_owned()),
            ),
            Error::RevisionMismatch { .. } => (
                Code::RevisionMismatch,
                Some("get the job again and repeat the change".to_owned()),
            ),
            Error::OwnedByFile { file, line, .. } => (
                Code::OwnedByFile,
                Some(format!("edit {file}:{line} and apply it")),
            ),
            Error::PlanStale(_) => (
                Code::PlanStale,
                Some("plan again, look, then apply the new hash".to_owned()),
            ),
            Error::OutOfBounds(_) => (
                Code::OutOfBounds,
                Some("change scale.min or scale.max, or force it".to_owned()),
            ),
            Error::NotWritable(_) => (Code::NotWritable, None),
            Error::WrongState(_) => (Code::WrongState, None),
            Error::Invalid(_) => (Code::BadValue, None),
            Error::Unreachable(_) => (
                Code::Unreachable,
                Some("its runs go on; the shim is asked again and again".to_owned()),
            ),
            Error::Store(_) => (
                Code::StoreFailed,
                Some("nothing was changed; make room in the state directory and repeat".to_owned()),
            ),
            Error::TaskNotFound(_) => (Code::TaskNotFound, Some("all tasks: gaffer task ls".to_owned())),
            Error::QueueNotFound(_) => (
                Code::QueueNotFound,
                Some("all queues: gaffer queue ls".to_owned()),
            ),
            Error::ScheduleNotFound(_) => (
                Code::ScheduleNotFound,
                Some("all schedules: gaffer schedule ls".to_owned()),
            ),
            Error::QueuedTaskNotFound(_) => (
                Code::TaskNotFound,
                Some("how long tasks are kept: keep of the queue".to_owned()),
            ),
            Error::Task(_) => (Code::TaskUnusable, None),
            Error::ShuttingDown => (
                Code::ShuttingDown,
                Some("a new daemon will take charge; try again".to_owned()),
            ),
        };
        let refusal = Refusal::new(code, text);
        match hint {
            Some(hint) => refusal.hint(hint),
            None => refusal,
        }
    }
}

fn job_not_found(job: &gaffer_core::name::JobId, similar: Option<gaffer_core::name::JobId>) -> Refusal {
    let message = format!(
        "no job `{}` in session {}",
        job.job.as_str(),
        job.session.as_str()
    );
    let refusal = Refusal::new(Code::JobNotFound, message);
    match similar {
        Some(similar) if similar.session == job.session => {
            refusal.hint(format!("did you mean `{}`?", similar.job.as_str()))
        }
        Some(similar) => refusal.hint(format!("did you mean `{similar}`?")),
        None => refusal,
    }
}

/// A configuration with errors, place by place.
pub fn invalid_config(diagnostics: &gaffer_config::Diagnostics) -> Refusal {
    let details: Vec<Detail> = diagnostics.0.iter().map(detail).collect();
    let message = match details.len() {
        1 => "the configuration has an error".to_owned(),
        count => format!("the configuration has {count} errors"),
    };
    let mut refusal = Refusal::new(Code::InvalidConfig, message).hint("nothing was changed");
    refusal.0.details = details;
    refusal
}

fn detail(diagnostic: &gaffer_config::Diagnostic) -> Detail {
    Detail {
        path: diagnostic.path.clone(),
        file: diagnostic.file.as_ref().map(|file| file.display().to_string()),
        line: diagnostic.line,
        column: diagnostic.column,
        message: diagnostic.message.clone(),
        hint: diagnostic.help.clone(),
        rendered: Some(diagnostic.render(false)),
    }
}
