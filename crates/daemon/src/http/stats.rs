//! Samples of live runs: a list, or a stream of them.

use crate::http::events::{Form, HEARTBEAT};
use crate::http::page::{self, Labels};
use crate::http::query::{self, Query};
use crate::http::{App, Shared};
use crate::names;
use crate::refusal::Answer;
use crate::view;
use axum::body::Body;
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use futures_util::stream;
use gaffer_api::error::ErrorBody;
use gaffer_api::types::RunStats;
use gaffer_core::name::{Place, RunId, Slot};
use hyper::body::Bytes;
use hyper::header::{CONTENT_TYPE, HeaderMap};
use serde::Deserialize;
use std::convert::Infallible;
use std::time::Duration;
use tokio::time::Instant;
use utoipa::IntoParams;

/// Shortest pause between samples, whatever `[gaffer] stats_every` says.
const EVERY_MIN: Duration = Duration::from_millis(100);

/// Shortest pause between samples, and the usual one: `[gaffer] stats_every`.
pub fn every_min(app: &App) -> Duration {
    app.handle.tuning().stats_every.max(EVERY_MIN)
}

/// Parameters of samples.
#[derive(Debug, Default, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct StatsQuery {
    /// Only this session.
    session: Option<String>,
    /// Only jobs of this name.
    job: Option<String>,
    /// Only instances in this state.
    state: Option<String>,
    /// Only jobs with this label, `zone=eu`: of `meta`, or of the node. Several with commas.
    label: Option<String>,
    /// Stay and send samples of all live runs again and again.
    #[serde(default)]
    follow: bool,
    /// Pause between them: 1s at least, and unless asked otherwise.
    every: Option<String>,
    /// Items of a page: 200, at most 1000. A stream has no pages.
    limit: Option<usize>,
    /// From the `Link` of the page before.
    cursor: Option<String>,
}

/// Which live runs are wanted.
#[derive(Clone, Debug, Default)]
pub struct Wanted {
    /// Of this session.
    pub session: Option<String>,
    /// Of jobs of this name.
    pub job: Option<String>,
    /// Of instances in this state.
    pub state: Option<String>,
    /// With these labels.
    pub labels: Labels,
}

impl Wanted {
    /// The live runs that there are now.
    pub fn runs(&self, app: &App) -> Vec<(RunId, Slot)> {
        let node = app.labels();
        let mut runs = Vec::new();
        for info in app.handle.jobs(self.session.as_deref()) {
            let named = self
                .job
                .as_deref()
                .is_none_or(|job| info.view.job.job.as_str() == job);
            if !named || !self.labels.are_of(&info.spec.meta, &node) {
                continue;
            }
            let views = info.view.instances.into_iter().filter(|one| one.pid.is_some());
            let views = views.filter(|one| {
                let state = view::state(one.state);
                self.state.as_deref().is_none_or(|wanted| wanted == state)
            });
            runs.extend(views.filter_map(|one| Some((one.run?, one.slot))));
        }
        runs
    }
}

/// Samples runs; one that ended meanwhile has none.
pub async fn sample(app: &App, runs: Vec<(RunId, Slot)>) -> Vec<RunStats> {
    let mut samples = Vec::with_capacity(runs.len());
    for (run, slot) in runs {
        if let Ok(sample) = app.handle.run_stats(run).await {
            samples.push(RunStats {
                run: run.to_string(),
                session: slot.job.session.to_string(),
                job: slot.job.job.to_string(),
                instance: match slot.place {
                    Place::Instance { n, .. } => Some(n),
                    Place::OneOff(_) => None,
                },
                stats: view::stats(&sample, false),
            });
        }
    }
    samples
}

/// Samples of all live runs, in the order of their ids; with `follow` again and again, as JSON lines or, by `Accept`,
/// as server-sent events.
#[utoipa::path(get, path = "/v1/stats", tag = "runs", params(StatsQuery),
    responses((status = 200, body = Vec<RunStats>, description = "the next page is in `Link`; with `follow` lines of `RunStats`"),
        (status = "default", body = ErrorBody)))]
pub async fn stats(
    State(app): State<Shared>,
    Query(query): Query<StatsQuery>,
    headers: HeaderMap,
) -> Answer<Response> {
    if let Some(session) = &query.session {
        names::session(session)?;
    }
    let wanted = Wanted {
        session: query.session.clone(),
        job: query.job.clone(),
        state: query.state.clone(),
        labels: Labels::parse(query.label.as_deref())?,
    };
    let limit = page::limit(query.limit, page::USUAL)?;
    let every = query.every.as_deref().map(query::duration).transpose()?;
    if query.follow {
        let (form, now) = (Form::of(&headers), Instant::now());
        let every = every.unwrap_or_default().max(every_min(&app));
        let feed = Feed {
            app,
            wanted,
            every,
            form,
            due: now,
            beat: now + HEARTBEAT,
        };
        let body = Body::from_stream(stream::unfold(feed, Feed::next));
        return Ok(([(CONTENT_TYPE, form.kind())], body).into_response());
    }
    let mut runs = wanted.runs(&app);
    let next = page::cut(
        &mut runs,
        |(run, _)| run.to_string(),
        limit,
        query.cursor.as_deref(),
    );
    let parameters = [
        ("session", query.session),
        ("job", query.job),
        ("state", query.state),
        ("label", query.label),
        ("limit", Some(limit.to_string())),
    ];
    let link = page::link("/v1/stats", &parameters, next);
    Ok((link, crate::http::body::Json(sample(&app, runs).await)).into_response())
}

/// Pulled by the client: samples that a slow one has no time for are not taken.
struct Feed {
    app: Shared,
    wanted: Wanted,
    every: Duration,
    form: Form,
    due: Instant,
    beat: Instant,
}

impl Feed {
    async fn next(mut self) -> Option<(Result<Bytes, Infallible>, Feed)> {
        loop {
            tokio::select! {
                () = tokio::time::sleep_until(self.due.min(self.beat)) => {}
                () = self.app.closed() => return None,
            }
            let now = Instant::now();
            if now >= self.due {
                self.due = now + self.every;
                let text = self.samples().await;
                if !text.is_empty() {
                    self.beat = now + HEARTBEAT;
                    return Some((Ok(text.into()), self));
                }
            }
            if now >= self.beat {
                self.beat = now + HEARTBEAT;
                let beat = Bytes::from_static(self.form.heartbeat().as_bytes());
                return Some((Ok(beat), self));
            }
        }
    }

    async fn samples(&self) -> String {
        let mut text = String::new();
        for sample in sample(&self.app, self.wanted.runs(&self.app)).await {
            // Strings and numbers always have a JSON form.
            let json = serde_json::to_string(&sample).unwrap_or_default();
            self.form.write(&mut text, &sample.stats.at, "stats", &json);
        }
        text
    }
}
