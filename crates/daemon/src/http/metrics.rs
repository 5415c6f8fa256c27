//! `/metrics` in the OpenMetrics text format, made anew for each request from what the engine counts.

use crate::http::Shared;
use crate::refusal::{Answer, Refusal};
use crate::view;
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use gaffer_api::error::Code;
use hyper::header::CONTENT_TYPE;
use prometheus_client::encoding::text::encode;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;

type Labels = Vec<(String, String)>;

/// Metrics of the node.
#[utoipa::path(get, path = "/metrics", tag = "nodes",
    responses((status = 200, content_type = "application/openmetrics-text", body = String)))]
pub async fn metrics(State(app): State<Shared>) -> Answer<Response> {
    if !app.live().metrics {
        return Err(Refusal::new(Code::RouteNotFound, "metrics are off").hint("[gaffer] metrics = true"));
    }
    let registry = registry(&app);
    let mut text = String::new();
    encode(&mut text, &registry)
        .map_err(|error| Refusal::new(Code::Internal, format!("the metrics cannot be written: {error}")))?;
    let kind = "application/openmetrics-text; version=1.0.0; charset=utf-8";
    Ok(([(CONTENT_TYPE, kind)], text).into_response())
}

fn registry(app: &Shared) -> Registry {
    let mut registry = Registry::with_prefix("gaffer");
    let counters = app.handle.counters();
    let mut count = |name: &str, help: &str, value: u64| {
        let counter: Counter = Counter::default();
        counter.inc_by(value);
        registry.register(name, help, counter);
    };
    count(
        "runs_started",
        "Runs started by this daemon",
        counters.runs_started,
    );
    count(
        "runs_exited_ok",
        "Runs that ended as wished",
        counters.runs_exited_ok,
    );
    count(
        "runs_exited_failed",
        "Runs that ended otherwise",
        counters.runs_exited_failed,
    );
    count(
        "starts_failed",
        "Starts that failed before the program ran",
        counters.starts_failed,
    );
    count("restarts", "New runs that nobody asked for", counters.restarts);
    count(
        "runs_adopted",
        "Runs taken over from an earlier daemon",
        counters.adopted,
    );
    count("events", "Events told", counters.events);
    count(
        "log_dropped_bytes",
        "Bytes of output that the disk could not take",
        counters.log_bytes_dropped,
    );
    count(
        "daemon_log_dropped_lines",
        "Lines of the daemon's own log that nobody took in time",
        crate::writer::dropped(),
    );
    count("store_commits", "Transactions of the store", counters.commits);

    let node = app.handle.node();
    let mut gauge = |name: &str, help: &str, value: i64| {
        let gauge: Gauge = Gauge::default();
        gauge.set(value);
        registry.register(name, help, gauge);
    };
    gauge("jobs", "Jobs", i64::from(node.jobs));
    gauge("runs", "Live runs", i64::from(node.runs));
    gauge(
        "shims",
        "Shims",
        i64::try_from(node.shims.len()).unwrap_or(i64::MAX),
    );
    gauge(
        "start_time_seconds",
        "When this daemon started, Unix time",
        node.started.0 / 1000,
    );

    registry.register("instances", "Instances by state", instances(app));
    registry
}

/// Instances by session, job and state.
fn instances(app: &Shared) -> Family<Labels, Gauge> {
    let instances: Family<Labels, Gauge> = Family::default();
    for job in app.handle.jobs(None) {
        for one in &job.view.instances {
            instances
                .get_or_create(&vec![
                    ("session".to_owned(), job.view.job.session.as_str().to_owned()),
                    ("job".to_owned(), job.view.job.job.as_str().to_owned()),
                    ("state".to_owned(), view::state(one.state).to_owned()),
                ])
                .inc();
        }
    }
    instances
}
