//! Schedules.

use serde::{Deserialize, Serialize};
use serde_json::Value;
use utoipa::ToSchema;

/// A schedule: `GET /v1/schedules/{session}/{schedule}`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Schedule {
    /// Session.
    pub session: String,
    /// Name in its session.
    pub schedule: String,
    /// `waiting active paused over`.
    pub state: String,
    /// One sentence; empty if there is nothing to say.
    pub summary: String,
    /// When it ticks: `30 3 * * *`, `every 90s`, `at 2026-12-24T18:00:00Z`.
    pub when: String,
    /// Its time zone.
    pub zone: String,
    /// What it does: `task nightly`, `queue mail`, `job web restart`.
    pub does: String,
    /// Its next tick; none: it is paused, or there is none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next_at: Option<String>,
    /// The same as the clock on the wall of its zone shows it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next_local: Option<String>,
    /// The tick that was acted upon last.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_tick_at: Option<String>,
    /// When that was.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_at: Option<String>,
    /// What it became: `task:ID`, the number of a queued task, an operation.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_became: Option<String>,
    /// Why a tick after that was given up.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_skipped: Option<String>,
    /// A tick that waits for the end of the one before it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub waiting_at: Option<String>,
    /// What it became goes on.
    pub active: bool,
    /// It does nothing until it is resumed.
    pub paused: bool,
    /// Who paused or resumed it last.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub changed_by: Option<String>,
    /// When.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub changed_at: Option<String>,
    /// File that it comes from.
    pub file: String,
    /// Its definition as in the file; with `?spec=true`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub spec: Option<Value>,
}

/// A tick to come.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct ScheduleTick {
    /// RFC 3339, UTC.
    pub at: String,
    /// As the clock on the wall of the schedule's zone shows it.
    pub local: String,
}

/// What came of `trigger`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct ScheduleTriggered {
    /// What it became: `task:ID`, the number of a queued task, an operation.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub became: Option<String>,
    /// It waits for the end of the one before it.
    pub waits: bool,
}
