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
        let say = |hint: &str| Some(hint.to_owned());
        let (code, hint) = match error {
            Error::JobNotFound(job, similar) => return job_not_found(&job, similar),
            Error::Config(diagnostics) => return invalid_config(&diagnostics),
            Error::InstanceNotFound(..) => (Code::InstanceNotFound, None),
            Error::RunNotFound(_) => (Code::RunNotFound, say("old runs are forgotten: [gaffer] history")),
            Error::StreamNotFound { .. } => (
                Code::StreamNotFound,
                say("streams are stdout, stderr and the job's labels"),
            ),
            Error::JobExists(_) => (Code::JobExists, say("replace it with its revision in If-Match")),
            Error::RevisionMismatch { .. } => (
                Code::RevisionMismatch,
                say("get the job again and repeat the change"),
            ),
            Error::OwnedByFile { file, line, .. } => (
                Code::OwnedByFile,
                Some(format!("edit {file}:{line} and apply it")),
            ),
            Error::PlanStale(_) => (Code::PlanStale, say("plan again, look, then apply the new hash")),
            Error::OutOfBounds(_) => (
                Code::OutOfBounds,
                say("change scale.min or scale.max, or force it"),
            ),
            Error::NotWritable(_) => (Code::NotWritable, None),
            Error::AlreadyFinished(..) => (Code::AlreadyFinished, None),
            Error::WrongState(_) => (Code::WrongState, None),
            Error::Invalid(_) => (Code::BadValue, None),
            Error::Unreachable(_) => (
                Code::Unreachable,
                say("its runs go on; the shim is asked again and again"),
            ),
            Error::Store(_) => (
                Code::StoreFailed,
                say("nothing was changed; make room in the state directory and repeat"),
            ),
            Error::QueueStore(_) => (
                Code::StoreFailed,
                say("nothing was changed; repeat it when the store answers: gaffer queue ls, gaffer doctor"),
            ),
            Error::TaskNotFound(_) => (Code::TaskNotFound, say("all tasks: gaffer task ls")),
            Error::QueueNotFound(_) => (Code::QueueNotFound, say("all queues: gaffer queue ls")),
            Error::ScheduleNotFound(_) => (Code::ScheduleNotFound, say("all schedules: gaffer schedule ls")),
            Error::QueuedTaskNotFound(_) => (
                Code::TaskNotFound,
                say("how long tasks are kept: keep of the queue"),
            ),
            Error::Task(_) => (Code::TaskUnusable, None),
            Error::ShuttingDown => (
                Code::ShuttingDown,
                say("a new daemon will take charge; try again"),
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
