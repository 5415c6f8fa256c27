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
    /// Stable word; all of them are in docs/errors.md.
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
    ($(#[doc = $doc:literal] $name:ident = $text:literal, $status:literal, $exit:literal;)*) => {
        /// Every error code.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub enum Code { $(#[doc = $doc] $name,)* }

        impl Code {
            /// All codes, in table order.
            pub const ALL: &[Code] = &[$(Code::$name),*];
            /// The stable word.
            pub const fn word(self) -> &'static str { match self { $(Code::$name => $text),* } }
            /// HTTP status.
            pub const fn status(self) -> u16 { match self { $(Code::$name => $status),* } }
            /// Exit code of a client: 1 failed, 2 usage or input, 3 not found, 4 conflict, 5 not allowed.
            pub const fn exit(self) -> u8 { match self { $(Code::$name => $exit),* } }
            /// What it means.
            pub fn meaning(self) -> &'static str { match self { $(Code::$name => $doc.trim(),)* } }
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
    /// No such route.
    RouteNotFound = "route-not-found", 404, 3;
    /// The route exists, the method does not.
    MethodNotAllowed = "method-not-allowed", 405, 2;
    /// No node of this name is known here.
    NodeNotFound = "node-not-found", 404, 3;
    /// No such job.
    JobNotFound = "job-not-found", 404, 3;
    /// No such instance.
    InstanceNotFound = "instance-not-found", 404, 3;
    /// No such run, or it has been pruned.
    RunNotFound = "run-not-found", 404, 3;
    /// No such task.
    TaskNotFound = "task-not-found", 404, 3;
    /// No such queue.
    QueueNotFound = "queue-not-found", 404, 3;
    /// No such schedule.
    ScheduleNotFound = "schedule-not-found", 404, 3;
    /// Its files cannot be used.
    TaskUnusable = "task-unusable", 409, 4;
    /// No such file below the working directory of that task.
    FileNotFound = "file-not-found", 404, 3;
    /// No such stream of that run.
    StreamNotFound = "stream-not-found", 404, 3;
    /// No such webhook.
    WebhookNotFound = "webhook-not-found", 404, 3;
    /// No such operation, or it has been forgotten.
    OperationNotFound = "operation-not-found", 404, 3;
    /// No such token or user.
    CredentialNotFound = "credential-not-found", 404, 3;
    /// The task is over already: nothing was changed.
    AlreadyFinished = "already-finished", 409, 4;
    /// The job exists already.
    JobExists = "job-exists", 409, 4;
    /// A token or user of this name exists already.
    NameTaken = "name-taken", 409, 4;
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
    /// The `Idempotency-Key` was used for another request.
    KeyReused = "key-reused", 409, 4;
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
    /// Another node does not answer, or cannot be asked.
    NodeUnreachable = "node-unreachable", 502, 1;
    /// Another node's answer cannot be used: too long, or of another form.
    BadAnswer = "bad-answer", 502, 1;
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

/// The table as a page: `docs/errors.md`.
pub fn codes_markdown() -> String {
    let mut page = String::from(
        "# Errors\n\n\
         <!-- Generated from crates/api/src/error.rs: cargo xtask gen -->\n\n\
         Every answer that is a refusal has the body `{\"error\": {\"code\", \"message\", \"hint\", \"details\", \"request\"}}`. The message \
         names the thing,\nthe hint says what to do, `details` names places in files and definitions, and `request` \
         stands in the daemon's log too. Codes are\nnever renamed. The last column is the exit code of `gaffer`; it \
         is 69 when no daemon answers.\n\n\
         | code | HTTP | meaning | exit |\n|---|---|---|---|\n",
    );
    for code in Code::ALL {
        let (word, status, meaning, exit) = (code.word(), code.status(), code.meaning(), code.exit());
        page.push_str(&format!("| `{word}` | {status} | {meaning} | {exit} |\n"));
    }
    page.push_str(
        "\nWhat one job of several is refused for is no error of the request: it is an outcome of its operation, with state \
         `refused` and the\ncode as its `reason_code`.\n",
    );
    page
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::path::Path;

    #[test]
    fn the_committed_table_of_errors_is_the_one_in_force() {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/errors.md");
        let page = codes_markdown();
        if std::env::var_os("BLESS").is_some() {
            std::fs::write(&path, &page).expect("written");
        }
        let committed = std::fs::read_to_string(&path).expect("docs/errors.md; BLESS=1 writes it");
        assert!(
            committed == page,
            "docs/errors.md is not the table; BLESS=1 writes it anew"
        );
    }

    #[test]
    fn the_exit_code_follows_from_the_status() {
        for code in Code::ALL {
            let exit = match code.status() {
                400 | 405 | 413 | 422 => 2,
                404 => 3,
                409 | 412 => 4,
                401 | 403 => 5,
                _ => 1,
            };
            assert_eq!(code.exit(), exit, "{}", code.word());
            assert_eq!(Code::from_word(code.word()), Some(*code));
        }
    }
}
