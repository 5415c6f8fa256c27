//! `/metrics` in the OpenMetrics text format, made anew for each request from what the engine counts.

use crate::http::Shared;
use crate::refusal::{Answer, Refusal};
use crate::view;
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use gaffer::queue::{BOUNDS, Latencies, QueueInfo};
use gaffer_api::error::Code;
use gaffer_core::queue::alert::CODES;
use hyper::header::CONTENT_TYPE;
use prometheus_client::encoding::text::encode;
use prometheus_client::encoding::{EncodeMetric, MetricEncoder, NoLabelSet};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::{MetricType, TypedMetric};
use prometheus_client::registry::Registry;
use std::sync::{Arc, Mutex, PoisonError};

type Labels = Vec<(String, String)>;

/// Metrics of the node.
#[utoipa::path(get, path = "/metrics", tag = "nodes",
    responses((status = 200, content_type = "application/openmetrics-text", body = String)))]
pub async fn metrics(State(app): State<Shared>) -> Answer<Response> {
    if !app.live().metrics {
        return Err(Refusal::new(Code::RouteNotFound, "metrics are off").hint("[gaffer] metrics = true"));
    }
    let mut registry = registry(&app);
    queues(&app, &mut registry).await;
    webhooks(&app, &mut registry).await;
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

/// Webhooks by session and name: what became of their events, and what still waits. One that the store cannot tell of is
/// left out.
async fn webhooks(app: &Shared, registry: &mut Registry) {
    let hooks = app.handle.hooks();
    if hooks.is_empty() {
        return;
    }
    let deliveries: Family<Labels, Counter> = Family::default();
    let (waiting, oldest): (Family<Labels, Gauge>, Family<Labels, Gauge>) = Default::default();
    for hook in hooks.iter() {
        let id = hook.webhook.id();
        let (Ok(counts), Ok(due)) = (app.handle.hook_counts(&id).await, app.handle.hook_due(&id).await)
        else {
            continue;
        };
        let labels = vec![
            ("session".to_owned(), hook.webhook.session.to_string()),
            ("webhook".to_owned(), hook.webhook.name.to_string()),
        ];
        for (result, count) in [
            ("delivered", counts.delivered),
            ("given-up", counts.given_up),
            ("dropped", counts.dropped),
        ] {
            let mut labels = labels.clone();
            labels.push(("result".to_owned(), result.to_owned()));
            deliveries.get_or_create(&labels).inc_by(count);
        }
        let number = |number: u64| i64::try_from(number).unwrap_or(i64::MAX);
        waiting.get_or_create(&labels).set(number(counts.waiting));
        let age = due.map_or(0, |due| view::now().0.saturating_sub(due.event.time.0) / 1000);
        oldest.get_or_create(&labels).set(age.max(0));
    }
    registry.register(
        "webhook_deliveries",
        "Events of webhooks that are over, by what became of them",
        deliveries,
    );
    registry.register("webhook_waiting", "Events in the outbox", waiting);
    registry.register(
        "webhook_oldest_seconds",
        "Age of the oldest event in the outbox, 0 if there is none",
        oldest,
    );
}

/// Queues by session and name. A store that does not answer costs only these: the rest of the page is needed most just then.
async fn queues(app: &Shared, registry: &mut Registry) {
    let all = match app.handle.queues().await {
        Ok(all) => all,
        Err(error) => {
            tracing::warn!(%error, "no metrics of queues: the store does not answer");
            return;
        }
    };
    let (all, silent): (Vec<_>, Vec<_>) = all.into_iter().partition(|one| one.store_trouble.is_none());
    for queue in silent {
        let why = queue.store_trouble.unwrap_or_default();
        tracing::warn!(queue = %queue.id, why, "no metrics of this queue: its store does not answer");
    }
    if all.is_empty() {
        return;
    }
    let tasks: Family<Labels, Gauge> = Family::default();
    let oldest: Family<Labels, Gauge> = Family::default();
    let busy: Family<Labels, Gauge> = Family::default();
    let paused: Family<Labels, Gauge> = Family::default();
    let done: Family<Labels, Gauge> = Family::default();
    let now = gaffer::clock::wall().0;
    for queue in &all {
        let labels = labels_of(queue);
        let counts = &queue.counts;
        for (state, count) in [
            ("queued", counts.queued),
            ("scheduled", counts.scheduled),
            ("running", counts.running),
            ("dead", counts.dead),
        ] {
            let mut labels = labels.clone();
            labels.push(("state".to_owned(), state.to_owned()));
            tasks.get_or_create(&labels).set(whole(count));
        }
        let age = counts.oldest.map_or(0, |since| (now - since.0).max(0) / 1000);
        oldest.get_or_create(&labels).set(age);
        busy.get_or_create(&labels).set(i64::from(queue.busy));
        paused.get_or_create(&labels).set(i64::from(queue.mode.paused));
        done.get_or_create(&labels).set(whole(queue.done_per_min));
    }
    queue_work(&all, registry);
    registry.register(
        "queue_alert",
        "1 while something is wrong, by the code of the alert",
        queue_alerts(&all),
    );
    registry.register("queue_tasks", "Tasks by state, counted up to 100000", tasks);
    registry.register(
        "queue_oldest_age_seconds",
        "How long the oldest task that may run has waited",
        oldest,
    );
    registry.register("queue_busy", "Tasks that workers of this node have", busy);
    registry.register("queue_paused", "1 while nothing is claimed", paused);
    registry.register("queue_done_per_minute", "Tasks done in the last minute", done);
}

/// One for each code, so that an alert that ends is told as well.
fn queue_alerts(all: &[QueueInfo]) -> Family<Labels, Gauge> {
    let alerts: Family<Labels, Gauge> = Family::default();
    for queue in all {
        for code in CODES {
            let mut labels = labels_of(queue);
            labels.push(("code".to_owned(), code.to_owned()));
            let holds = queue.alerts.iter().any(|alert| alert.code == code);
            alerts.get_or_create(&labels).set(i64::from(holds));
        }
    }
    alerts
}

/// What workers of queues did since the daemon began.
fn queue_work(all: &[QueueInfo], registry: &mut Registry) {
    let finished: Family<Labels, Counter> = Family::default();
    let retried: Family<Labels, Counter> = Family::default();
    let leases: Family<Labels, Counter> = Family::default();
    let waited: Family<Labels, Times> = Family::default();
    let took: Family<Labels, Times> = Family::default();
    for queue in all {
        let labels = labels_of(queue);
        let stats = &queue.stats;
        for (state, count) in [
            ("done", stats.done),
            ("dead", stats.dead),
            ("cancelled", stats.cancelled),
            ("lost", stats.lost),
        ] {
            let mut labels = labels.clone();
            labels.push(("state".to_owned(), state.to_owned()));
            finished.get_or_create(&labels).inc_by(count);
        }
        retried.get_or_create(&labels).inc_by(stats.retried);
        leases.get_or_create(&labels).inc_by(stats.leases_lost);
        waited.get_or_create(&labels).set(stats.waited);
        took.get_or_create(&labels).set(stats.took);
    }
    registry.register(
        "queue_finished",
        "Tasks that workers finished, by their last state",
        finished,
    );
    registry.register(
        "queue_retried",
        "Attempts that failed and are followed by another",
        retried,
    );
    registry.register(
        "queue_leases_lost",
        "Attempts that did not count any more",
        leases,
    );
    registry.register(
        "queue_wait_seconds",
        "From when a task could begin until it began",
        waited,
    );
    registry.register(
        "queue_run_seconds",
        "From the beginning of an attempt until its outcome was in the store",
        took,
    );
}

fn labels_of(queue: &QueueInfo) -> Labels {
    vec![
        ("session".to_owned(), queue.id.session.as_str().to_owned()),
        ("queue".to_owned(), queue.id.job.as_str().to_owned()),
    ]
}

/// Times of a queue as the engine counted them.
#[derive(Clone, Debug, Default)]
struct Times(Arc<Mutex<Latencies>>);

impl Times {
    fn set(&self, times: Latencies) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = times;
    }
}

impl TypedMetric for Times {
    const TYPE: MetricType = MetricType::Histogram;
}

impl EncodeMetric for Times {
    fn encode(&self, mut encoder: MetricEncoder) -> Result<(), std::fmt::Error> {
        let times = *self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let bounds = BOUNDS.iter().copied().chain([f64::INFINITY]);
        let buckets: Vec<(f64, u64)> = bounds.zip(times.buckets).collect();
        let count = times.buckets.iter().sum();
        encoder.encode_histogram::<NoLabelSet>(times.sum.as_secs_f64(), count, &buckets, None)
    }

    fn metric_type(&self) -> MetricType {
        Self::TYPE
    }
}

fn whole(count: u64) -> i64 {
    i64::try_from(count).unwrap_or(i64::MAX)
}
