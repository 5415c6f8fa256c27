//! The closed table of routes, and the document that is generated from it.

use crate::access::routes::gate;
use crate::http::{
    Shared, attach, config, drain, events, jobs, logs, metrics, nodes, operations, plugins, queues, runs,
    schedules, stats, stream, task_files, tasks, webhooks,
};
use axum::Router;
use axum::response::IntoResponse;
use hyper::header::CONTENT_TYPE;
use utoipa::OpenApi;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

/// What the document says beside the routes.
#[derive(OpenApi)]
#[openapi(
    info(
        title = "gaffer",
        description = "The native API of gafferd: jobs are launched, kept alive, watched, scaled, logged and stopped. \
            Errors have one shape; lists are bare arrays with `Link` for the next page; a changing request answers 202 \
            with an operation or, with `?wait=30s`, its outcome. \
            With `?node=PATTERN` an admin has a request carried out at all nodes that the pattern chooses: the answer is a \
            list of `OfNode`, one for each.",
        license(name = "Apache-2.0 OR MIT")
    ),
    components(schemas(
        gaffer_api::types::AttachMessage,
        gaffer_api::types::StreamRequest,
        gaffer_api::types::StreamItem,
        gaffer_api::types::OfNode,
    ))
)]
struct Document;

fn routes() -> OpenApiRouter<Shared> {
    OpenApiRouter::with_openapi(Document::openapi())
        .routes(routes!(jobs::sessions))
        .routes(routes!(jobs::list))
        .routes(routes!(jobs::show, jobs::put, jobs::remove))
        .routes(routes!(jobs::act_each))
        .routes(routes!(jobs::act))
        .routes(routes!(jobs::scale))
        .routes(routes!(jobs::signal))
        .routes(routes!(jobs::run))
        .routes(routes!(jobs::deaths))
        .routes(routes!(logs::job_logs))
        .routes(routes!(jobs::show_instance))
        .routes(routes!(jobs::act_instance))
        .routes(routes!(jobs::signal_instance))
        .routes(routes!(jobs::deaths_instance))
        .routes(routes!(stats::stats))
        .routes(routes!(runs::list))
        .routes(routes!(runs::show))
        .routes(routes!(runs::stats))
        .routes(routes!(runs::signal))
        .routes(routes!(runs::input))
        .routes(routes!(logs::run_log))
        .routes(routes!(logs::logs))
        .routes(routes!(attach::attach))
        .routes(routes!(events::events))
        .routes(routes!(stream::stream))
        .routes(routes!(tasks::list, tasks::start))
        .routes(routes!(tasks::show, queues::task_remove))
        .routes(routes!(tasks::wait))
        .routes(routes!(tasks::kill))
        .routes(routes!(tasks::retry))
        .routes(routes!(tasks::gc))
        .routes(routes!(tasks::pause))
        .routes(routes!(tasks::resume))
        .routes(routes!(tasks::step))
        .routes(routes!(tasks::log))
        .routes(routes!(task_files::list))
        .routes(routes!(task_files::content))
        .merge(queued())
        .routes(routes!(operations::show, operations::cancel))
        .routes(routes!(nodes::node))
        .routes(routes!(nodes::nodes))
        .routes(routes!(nodes::node_named))
        .routes(routes!(nodes::shutdown))
        .routes(routes!(nodes::reload))
        .routes(routes!(nodes::plan))
        .routes(routes!(nodes::apply))
        .routes(routes!(config::config))
        .routes(routes!(nodes::doctor))
        .routes(routes!(nodes::healthz))
        .routes(routes!(metrics::metrics))
        .merge(plugins::router())
        .merge(drain::router())
        .merge(webhooks::router())
        .merge(crate::access::tokens::router())
}

fn queued() -> OpenApiRouter<Shared> {
    OpenApiRouter::new()
        .routes(routes!(queues::task_cancel))
        .routes(routes!(queues::task_edit))
        .routes(routes!(queues::task_renew))
        .routes(routes!(queues::task_settle))
        .routes(routes!(queues::list))
        .routes(routes!(queues::show))
        .routes(routes!(logs::queue_logs))
        .routes(routes!(queues::stats))
        .routes(routes!(queues::push, queues::tasks))
        .routes(routes!(queues::pause))
        .routes(routes!(queues::scale))
        .routes(routes!(queues::purge))
        .routes(routes!(queues::retry))
        .routes(routes!(queues::claim))
        .routes(routes!(queues::act))
        .routes(routes!(schedules::list))
        .routes(routes!(schedules::show))
        .routes(routes!(schedules::next))
        .routes(routes!(schedules::trigger))
        .routes(routes!(schedules::pause))
        .routes(routes!(schedules::resume))
}

/// The router, with `/v1/openapi.json`.
pub fn router(app: Shared) -> Router {
    let (router, _) = routes().split_for_parts();
    router
        .merge(plugins::pages())
        .route("/v1/openapi.json", axum::routing::get(openapi))
        .route("/openapi.json", axum::routing::get(openapi))
        .merge(crate::legacy::channel::router(&app))
        .merge(crate::legacy::keys::router())
        // Behind all routes: what is merged after it would not be asked.
        .route_layer(axum::middleware::from_fn_with_state(app.clone(), gate))
        .fallback(crate::legacy::http::answer)
        .with_state(app)
}

/// Made when asked for: it is rarely needed and large.
async fn openapi() -> impl IntoResponse {
    ([(CONTENT_TYPE, "application/json")], openapi_json())
}

/// The document, as committed in `openapi/gaffer.json`.
pub fn openapi_json() -> String {
    let (_, document) = routes().split_for_parts();
    // A document of texts and maps always has a JSON form.
    let mut text = document.to_pretty_json().unwrap_or_default();
    text.push('\n');
    text
}
