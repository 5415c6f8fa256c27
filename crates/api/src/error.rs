//! The one table of errors: code, HTTP status, exit code. Codes are never renamed.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// Body of every error answer: `{"error": {…}}`.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct ErrorBody {
    /// The error.
    pub error: ApiError,
}

/// One error.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema, thiserror::Error)]
#[error("{message}")]
pub struct ApiError {
    /// Stable word from [`Code`].
    pub code: String,
    /// What is wrong, naming the thing.
    pub message: String,
    /// What to do about it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hint: Option<String>,
    /// Places, for files and specs.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub details: Vec<Detail>,
    /// Id of the request, also in the daemon's log.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub request: String,
}

/// A place that an error is about.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Detail {
    /// `job.web.stop.timeout`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub path: Option<String>,
    /// File name as given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub file: Option<String>,
    /// From 1.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub line: Option<u32>,
    /// From 1, in characters.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub column: Option<u32>,
    /// What is wrong there.
    pub message: String,
    /// What to do.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hint: Option<String>,
    /// The message as `gaffer check` prints it, with excerpt and caret.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rendered: Option<String>,
}

macro_rules! codes {
    ($($(#[$doc:meta])* $name:ident = $text:literal, $status:literal, $exit:literal;)*) => {
        /// Every error code.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub enum Code { $($(#[$doc])* $name,)* }

        impl Code {
            /// All codes, in table order.
            pub const ALL: &[Code] = &[$(Code::$name),*];
            /// The stable word.
            pub const fn word(self) -> &'static str { match self { $(Code::$name => $text),* } }
            /// HTTP status.
            pub const fn status(self) -> u16 { match self { $(Code::$name => $status),* } }
            /// Exit code of a client: 1 failed, 2 usage or input, 3 not found, 4 conflict, 5 not allowed.
            pub const fn exit(self) -> u8 { match self { $(Code::$name => $exit),* } }
            /// Looks a word up.
            pub fn from_word(word: &str) -> Option<Code> { match word { $($text => Some(Code::$name),)* _ => None } }
        }
    };
}

codes! {
    /// The request cannot be read: not JSON, wrong type, unknown field.
    BadRequest = "bad-request", 400, 2;
    /// A name breaks the grammar.
    BadName = "bad-name", 400, 2;
    /// A number, signal, duration or cursor is not one.
    BadValue = "bad-value", 400, 2;
    /// A file or spec has errors; `details` names each place.
    InvalidConfig = "invalid-config", 422, 2;
    /// The body is larger than allowed.
    BodyTooLarge = "body-too-large", 413, 2;
    /// Something that comes in a later version.
    NotYet = "not-yet", 422, 2;
    /// No such route.
    RouteNotFound = "route-not-found", 404, 3;
    /// The route exists, the method does not.
    MethodNotAllowed = "method-not-allowed", 405, 2;
    /// No such session.
    SessionNotFound = "session-not-found", 404, 3;
    /// No such job.
    JobNotFound = "job-not-found", 404, 3;
    /// No such instance.
    InstanceNotFound = "instance-not-found", 404, 3;
    /// No such run, or it has been pruned.
    RunNotFound = "run-not-found", 404, 3;
    /// No such stream of that run.
    StreamNotFound = "stream-not-found", 404, 3;
    /// No such operation, or it has been forgotten.
    OperationNotFound = "operation-not-found", 404, 3;
    /// The job exists already.
    JobExists = "job-exists", 409, 4;
    /// `If-Match` names another revision.
    RevisionMismatch = "revision-mismatch", 412, 4;
    /// The job comes from a file; it is changed there.
    OwnedByFile = "owned-by-file", 409, 4;
    /// What was planned is not what would be done now.
    PlanStale = "plan-stale", 409, 4;
    /// `scale.min` or `scale.max` forbids it.
    OutOfBounds = "out-of-bounds", 409, 4;
    /// The run has ended, or has no such pipe.
    NotWritable = "not-writable", 409, 4;
    /// The state does not allow it.
    WrongState = "wrong-state", 409, 4;
    /// The daemon is ending.
    ShuttingDown = "shutting-down", 503, 1;
    /// A credential is needed.
    Unauthorized = "unauthorized", 401, 5;
    /// The credential is not enough, or the origin is not ours.
    Forbidden = "forbidden", 403, 5;
    /// The `Host` header is not one of ours.
    BadHost = "bad-host", 403, 5;
    /// The shim of that run does not answer.
    Unreachable = "unreachable", 503, 1;
    /// A wait came to its end.
    TimedOut = "timed-out", 408, 1;
    /// The store cannot be written: full or read-only.
    StoreFailed = "store-failed", 507, 1;
    /// Too many at once.
    Busy = "busy", 429, 1;
    /// Our mistake.
    Internal = "internal", 500, 1;
}

impl ApiError {
    /// An error without hint or details.
    pub fn new(code: Code, message: impl Into<String>) -> ApiError {
        ApiError {
            code: code.word().to_owned(),
            message: message.into(),
            hint: None,
            details: Vec::new(),
            request: String::new(),
        }
    }

    /// Adds what to do.
    #[must_use]
    pub fn hint(mut self, hint: impl Into<String>) -> ApiError {
        self.hint = Some(hint.into());
        self
    }

    /// The code, `Internal` for words this version does not know.
    pub fn code(&self) -> Code {
        Code::from_word(&self.code).unwrap_or(Code::Internal)
    }
}
