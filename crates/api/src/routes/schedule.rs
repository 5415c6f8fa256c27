//! The routes of schedules.

use super::{Result, escape, query};
use crate::client::Client;
use crate::types::schedule::{Schedule, ScheduleTick, ScheduleTriggered};
use serde_json::json;

fn path(session: &str, schedule: &str) -> String {
    format!("/v1/schedules/{}/{}", escape(session), escape(schedule))
}

impl Client {
    /// All schedules, in the order of their names.
    pub async fn schedules(&self) -> Result<Vec<Schedule>> {
        self.get_list("/v1/schedules").await
    }

    /// One schedule; with `spec` its definition too.
    pub async fn schedule(&self, session: &str, schedule: &str, spec: bool) -> Result<Schedule> {
        let query = query(&[("spec", spec.then(|| "true".to_owned()))]);
        self.get(&format!("{}{query}", path(session, schedule))).await
    }

    /// Its next ticks, after `from` (RFC 3339) or now.
    pub async fn schedule_next(
        &self,
        session: &str,
        schedule: &str,
        count: u32,
        from: Option<&str>,
    ) -> Result<Vec<ScheduleTick>> {
        let query = query(&[
            ("count", Some(count.to_string())),
            ("from", from.map(str::to_owned)),
        ]);
        self.get(&format!("{}/next{query}", path(session, schedule)))
            .await
    }

    /// Acts now.
    pub async fn schedule_trigger(&self, session: &str, schedule: &str) -> Result<ScheduleTriggered> {
        self.post(&format!("{}/trigger", path(session, schedule)), &json!({}))
            .await
    }

    /// It does nothing until it is resumed, also over a restart.
    pub async fn schedule_pause(&self, session: &str, schedule: &str) -> Result<Schedule> {
        self.post(&format!("{}/pause", path(session, schedule)), &json!({}))
            .await
    }

    /// It goes on.
    pub async fn schedule_resume(&self, session: &str, schedule: &str) -> Result<Schedule> {
        self.post(&format!("{}/resume", path(session, schedule)), &json!({}))
            .await
    }
}
