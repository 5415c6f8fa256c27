//! Errors of the old APIs. The original had three shapes, and clients read each of them: the bodies here satisfy all.

use gaffer::info::Error;
use hyper::StatusCode;
use serde_json::{Value, json};

/// Result of an operation.
pub type Result<T> = std::result::Result<T, LegacyError>;

/// A refusal in the words of the old APIs.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{reason}")]
pub struct LegacyError {
    /// HTTP status, which is also `errno`.
    pub status: u16,
    /// Code word: `not_found`, `process_conflict`, `bad_request`, `bad_value`, `bad_signal`, …
    pub word: &'static str,
    /// In words.
    pub reason: String,
}

impl LegacyError {
    /// Any.
    pub fn new(status: u16, word: &'static str, reason: impl Into<String>) -> LegacyError {
        LegacyError {
            status,
            word,
            reason: reason.into(),
        }
    }

    /// 404 `not_found`.
    pub fn not_found(reason: impl Into<String>) -> LegacyError {
        LegacyError::new(404, "not_found", reason)
    }

    /// 400 `bad_request`.
    pub fn bad_request(reason: impl Into<String>) -> LegacyError {
        LegacyError::new(400, "bad_request", reason)
    }

    /// 400 `bad_value`.
    pub fn bad_value(reason: impl Into<String>) -> LegacyError {
        LegacyError::new(400, "bad_value", reason)
    }

    /// 403 `forbidden`.
    pub fn forbidden(reason: impl Into<String>) -> LegacyError {
        LegacyError::new(403, "forbidden", reason)
    }

    /// Status of the answer.
    pub fn code(&self) -> StatusCode {
        StatusCode::from_u16(self.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR)
    }

    /// `{"error", "reason", "errno"}`. What the original's framework refused has a number as `error`; who may not ask
    /// gets its one word as `reason`, and the sentence as `message`.
    pub fn body(&self) -> Value {
        match self.status {
            401 | 403 if self.word != "forbidden_write" => {
                json!({ "error": self.status, "reason": self.word, "errno": self.status, "message": self.reason })
            }
            405 => json!({ "error": self.status, "reason": self.reason, "errno": self.status }),
            _ => json!({ "error": self.word, "reason": self.reason, "errno": self.status }),
        }
    }
}

impl From<Error> for LegacyError {
    fn from(error: Error) -> LegacyError {
        let reason = error.to_string();
        let (status, word) = match error {
            Error::JobNotFound(..) | Error::InstanceNotFound(..) | Error::RunNotFound(_) => {
                (404, "not_found")
            }
            Error::StreamNotFound { .. } => (404, "stream_not_found"),
            // No route of the original is about tasks.
            Error::TaskNotFound(_)
            | Error::QueueNotFound(_)
            | Error::ScheduleNotFound(_)
            | Error::QueuedTaskNotFound(_) => (404, "not_found"),
            Error::Task(_) | Error::AlreadyFinished(..) => (409, "conflict"),
            Error::JobExists(_) => (409, "process_conflict"),
            Error::RevisionMismatch { .. } | Error::OwnedByFile { .. } | Error::PlanStale(_) => {
                (409, "conflict")
            }
            Error::OutOfBounds(_) => (400, "bad_value"),
            Error::NotWritable(_) => (403, "forbidden"),
            Error::WrongState(_) | Error::Invalid(_) => (400, "bad_request"),
            Error::Config(diagnostics) => return config(&diagnostics),
            Error::Unreachable(_) | Error::ShuttingDown => (503, "unavailable"),
            Error::Store(_) | Error::QueueStore(_) => (500, "store_failed"),
        };
        LegacyError::new(status, word, reason)
    }
}

/// The first mistake, and how many more there are.
pub fn config(diagnostics: &gaffer_config::Diagnostics) -> LegacyError {
    let errors = diagnostics
        .iter()
        .filter(|one| one.severity == gaffer_config::Severity::Error);
    let mut messages = errors.map(|one| one.message.clone());
    let first = messages.next().unwrap_or_else(|| "it has errors".to_owned());
    let reason = match messages.count() {
        0 => format!("invalid process config: {first}"),
        more => format!("invalid process config: {first}; and {more} more"),
    };
    LegacyError::bad_request(reason)
}
