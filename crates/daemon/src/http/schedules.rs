//! Schedules: when they tick next, what they did, held back and triggered.

use crate::access::Access;
use crate::http::Shared;
use crate::http::body::Json;
use crate::http::query::{Path, Query};
use crate::http::queues::id_of;
use crate::refusal::{Answer, Refusal};
use crate::view_schedule as view;
use axum::Extension;
use axum::extract::State;
use gaffer_api::error::{Code, ErrorBody};
use gaffer_api::types::schedule::{Schedule, ScheduleTick, ScheduleTriggered};
use gaffer_core::time::Wall;
use serde::Deserialize;
use utoipa::IntoParams;

/// Most ticks of one answer.
const TICKS_MAX: usize = 1_000;

/// Parameters of a schedule.
#[derive(Debug, Default, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct ScheduleQuery {
    /// With its definition.
    #[serde(default)]
    spec: bool,
}

/// All schedules of this node, in the order of their names.
#[utoipa::path(get, path = "/v1/schedules", tag = "schedules",
    responses((status = 200, body = Vec<Schedule>), (status = "default", body = ErrorBody)))]
pub async fn list(State(app): State<Shared>) -> Answer<Json<Vec<Schedule>>> {
    let all = app.handle.schedules().await;
    Ok(Json(all.iter().map(|info| view::schedule(info, false)).collect()))
}

/// One schedule.
#[utoipa::path(get, path = "/v1/schedules/{session}/{schedule}", tag = "schedules",
    params(("session" = String, Path), ("schedule" = String, Path), ScheduleQuery),
    responses((status = 200, body = Schedule), (status = "default", body = ErrorBody)))]
pub async fn show(
    State(app): State<Shared>,
    Path((session, schedule)): Path<(String, String)>,
    Query(query): Query<ScheduleQuery>,
) -> Answer<Json<Schedule>> {
    let info = app.handle.schedule(&id_of(&session, &schedule)?).await?;
    Ok(Json(view::schedule(&info, query.spec)))
}

/// Parameters of the ticks to come.
#[derive(Debug, Default, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct NextQuery {
    /// So many: 10, at most 1000.
    count: Option<usize>,
    /// After this time (RFC 3339); now.
    from: Option<String>,
}

/// Its next ticks.
#[utoipa::path(get, path = "/v1/schedules/{session}/{schedule}/next", tag = "schedules",
    params(("session" = String, Path), ("schedule" = String, Path), NextQuery),
    responses((status = 200, body = Vec<ScheduleTick>), (status = "default", body = ErrorBody)))]
pub async fn next(
    State(app): State<Shared>,
    Path((session, schedule)): Path<(String, String)>,
    Query(query): Query<NextQuery>,
) -> Answer<Json<Vec<ScheduleTick>>> {
    let id = id_of(&session, &schedule)?;
    let count = query.count.unwrap_or(10);
    if count > TICKS_MAX {
        let message = format!("{count} ticks are too many: at most {TICKS_MAX}");
        return Err(Refusal::new(Code::BadValue, message));
    }
    let from = query.from.as_deref().map(|text| {
        let at = text.parse::<jiff::Timestamp>();
        at.map(|at| Wall(at.as_millisecond())).map_err(|_| {
            Refusal::new(Code::BadValue, format!("`{}` is no time", text.escape_debug()))
                .hint("write 2026-11-22T14:00:00Z")
        })
    });
    let ticks = app.handle.schedule_next(&id, from.transpose()?, count)?;
    let calendar = app.handle.schedule(&id).await?.loaded.calendar;
    Ok(Json(
        ticks.into_iter().map(|at| view::tick(&calendar, at)).collect(),
    ))
}

/// Acts now, whatever the clock says and also while it is paused. Its next tick stays what it was.
#[utoipa::path(post, path = "/v1/schedules/{session}/{schedule}/trigger", tag = "schedules",
    params(("session" = String, Path), ("schedule" = String, Path)),
    responses((status = 200, body = ScheduleTriggered), (status = "default", body = ErrorBody)))]
pub async fn trigger(
    State(app): State<Shared>,
    Extension(access): Extension<Access>,
    Path((session, schedule)): Path<(String, String)>,
) -> Answer<Json<ScheduleTriggered>> {
    let id = id_of(&session, &schedule)?;
    let triggered = app.handle.schedule_trigger(&id, access.actor()).await?;
    Ok(Json(ScheduleTriggered {
        became: triggered.became,
        waits: triggered.waits,
    }))
}

/// It does nothing until it is resumed, also over a restart of the daemon.
#[utoipa::path(post, path = "/v1/schedules/{session}/{schedule}/pause", tag = "schedules",
    params(("session" = String, Path), ("schedule" = String, Path)),
    responses((status = 200, body = Schedule), (status = "default", body = ErrorBody)))]
pub async fn pause(
    State(app): State<Shared>,
    Extension(access): Extension<Access>,
    Path((session, schedule)): Path<(String, String)>,
) -> Answer<Json<Schedule>> {
    set(&app, &access, &session, &schedule, true).await
}

/// It goes on. What was missed meanwhile is skipped or made up for, as its `missed` says.
#[utoipa::path(post, path = "/v1/schedules/{session}/{schedule}/resume", tag = "schedules",
    params(("session" = String, Path), ("schedule" = String, Path)),
    responses((status = 200, body = Schedule), (status = "default", body = ErrorBody)))]
pub async fn resume(
    State(app): State<Shared>,
    Extension(access): Extension<Access>,
    Path((session, schedule)): Path<(String, String)>,
) -> Answer<Json<Schedule>> {
    set(&app, &access, &session, &schedule, false).await
}

async fn set(
    app: &Shared,
    access: &Access,
    session: &str,
    schedule: &str,
    on: bool,
) -> Answer<Json<Schedule>> {
    let id = id_of(session, schedule)?;
    app.handle.schedule_pause(&id, on, access.actor()).await?;
    let info = app.handle.schedule(&id).await?;
    Ok(Json(view::schedule(&info, false)))
}
