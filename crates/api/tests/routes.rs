//! Every route of the OpenAPI document has a typed method of the client: all methods are called against a server that
//! notes what it was asked, and nothing documented may be left.

use gaffer_api::access::{TokenRequest, TokenScope, UserRequest};
use gaffer_api::routes::LogQuery;
use gaffer_api::routes::QueueTasksQuery;
use gaffer_api::types::queue::{
    ClaimRequest, PushBody, QueuePause, QueueState, RenewRequest, SettleRequest, TaskEdit,
};
use gaffer_api::types::task::{TaskGcRequest, TaskKillRequest, TaskRequest, TaskRetryRequest};
use gaffer_api::types::{
    ActionRequest, ApplyRequest, DrainRequest, JobsRequest, RunRequest, ScaleRequest, SignalRequest,
};
use gaffer_api::{Client, Endpoint};
use serde_json::{Value, json};
use std::collections::BTreeSet;
use std::sync::{Arc, Mutex};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;

const REFUSAL: &str = r#"{"error": {"code": "not-found", "message": "nothing here"}}"#;

/// `METHOD /path`, without the query.
type Asked = Arc<Mutex<BTreeSet<String>>>;

/// Answers everything with 404 and notes it.
async fn serve(listener: TcpListener, asked: Asked) {
    while let Ok((mut stream, _)) = listener.accept().await {
        let mut head = Vec::new();
        while !head.windows(4).any(|end| end == b"\r\n\r\n") {
            let mut part = [0; 4096];
            match stream.read(&mut part).await {
                Ok(read) if read > 0 => head.extend_from_slice(&part[..read]),
                _ => break,
            }
        }
        let text = String::from_utf8_lossy(&head).into_owned();
        let mut words = text.split_whitespace();
        if let (Some(method), Some(path)) = (words.next(), words.next()) {
            let path = path.split('?').next().unwrap_or_default();
            asked.lock().expect("no panic").insert(format!("{method} {path}"));
        }
        let answer = format!(
            "HTTP/1.1 404 Not Found\r\nconnection: close\r\ncontent-length: {}\r\n\r\n{REFUSAL}",
            REFUSAL.len()
        );
        // Whoever does not wait for it needs none.
        let _ = stream.write_all(answer.as_bytes()).await;
    }
}

fn signal() -> SignalRequest {
    SignalRequest {
        signal: "HUP".to_owned(),
        to: None,
    }
}

async fn call_jobs(client: &Client) {
    let scale = ScaleRequest {
        to: "2".to_owned(),
        force: false,
    };
    let _ = client.sessions().await;
    let _ = client.jobs(None, false).await;
    let _ = client.job("s", "j", true).await;
    let _ = client.job_put("s", "j", &json!({}), Some(1), None).await;
    let _ = client.job_delete("s", "j", None).await;
    let _ = client.instance("s", "j", 1).await;
    for instance in [None, Some(1)] {
        let action = ActionRequest::default();
        let _ = client.act("s", "j", instance, "stop", &action, None).await;
        let _ = client.signal("s", "j", instance, &signal()).await;
        let _ = client.deaths("s", "j", instance, 1, 1).await;
    }
    let each = JobsRequest::default();
    let _ = client.act_each("stop", &each, None).await;
    let _ = client.scale("s", "j", &scale, None).await;
    let _ = client.one_off("s", "j", &RunRequest::default(), None).await;
    let _ = client.stats(None).await;
    let _ = client.job_logs("s", "j", &LogQuery::default()).await.map(drop);
    let _ = client.logs(None, None, &LogQuery::default()).await.map(drop);
}

async fn call_runs(client: &Client) {
    let _ = client.run("r").await;
    let _ = client.runs_by_prefix("r").await;
    let _ = client.run_log("r", "stdout", "start", false).await.map(drop);
    let _ = client.run_stats("r").await;
    let _ = client.run_signal("r", &signal()).await;
    let _ = client.run_input("r", None, b"x".to_vec(), false).await;
    let _ = client.run_attach("r", true).await.map(drop);
    let _ = client.events(None, false, None).await.map(drop);
    let _ = client.stream().await.map(drop);
    let _ = client.operation("op-1", None).await;
    let _ = client.operation_cancel("op-1").await;
}

async fn call_node(client: &Client) {
    let apply = ApplyRequest::default();
    let _ = client.node().await;
    let _ = client.nodes().await;
    let _ = client.node_named("n").await;
    let _ = client.get_of_nodes("/v1/jobs", "*").await;
    let _ = client.node_drained(None).await;
    let _ = client.node_drain(&DrainRequest::default(), None).await;
    let _ = client.node_undrain().await;
    let _ = client.node_drain_at("n", &DrainRequest::default(), None).await;
    let _ = client.node_undrain_at("n").await;
    let _ = client.post_of_nodes("/v1/node/reload", &json!({}), "*").await;
    let _ = client.health().await;
    let _ = client.metrics().await;
    let _ = client.config().await;
    let _ = client.plan(&apply).await;
    let _ = client.apply(&apply, None).await;
    let _ = client.doctor().await;
    let _ = client.shutdown("leave").await;
    let _ = client.reload().await;
    let _ = client.webhooks().await;
    let _ = client.webhook("s", "w").await;
    let _ = client.webhook_test("s", "w").await;
    let _ = client.plugins().await;
}

async fn call_access(client: &Client) {
    let token = TokenRequest {
        name: "t".to_owned(),
        scope: TokenScope::Read,
        jobs: Vec::new(),
        expires: None,
    };
    let user = UserRequest {
        name: "u".to_owned(),
        password: "p".to_owned(),
        scope: TokenScope::Read,
        jobs: Vec::new(),
    };
    let _ = client.tokens().await;
    let _ = client.token_create(&token).await.map(drop);
    let _ = client.token("t").await;
    let _ = client.token_remove("t").await;
    let _ = client.users().await;
    let _ = client.user_create(&user).await;
    let _ = client.user("u").await;
    let _ = client.user_password("u", "p").await;
    let _ = client.user_remove("u").await;
}

async fn call_tasks(client: &Client) {
    let within = std::time::Duration::from_millis(1);
    let _ = client.tasks(None).await;
    let _ = client.task_start(&TaskRequest::default()).await;
    let _ = client.task("t", false).await;
    let _ = client.task_wait("t", None, within).await;
    let _ = client.task_kill("t", &TaskKillRequest::default()).await;
    let _ = client.task_retry("t", &TaskRetryRequest::default()).await;
    let _ = client.tasks_gc(&TaskGcRequest::default()).await;
    let _ = client.task_pause("t").await;
    let _ = client.task_resume("t").await;
    let _ = client.task_with_disk("t").await;
    let _ = client.task_step("t", "s").await;
    let _ = client.task_log("t", "s", "stdout", None, "end").await;
    let _ = client.task_files("t", "d").await;
    let _ = client.task_file("t", "f", 0).await;
}

async fn call_schedules(client: &Client) {
    let _ = client.schedules().await;
    let _ = client.schedule("s", "x", false).await;
    let _ = client.schedule_next("s", "x", 3, None).await;
    let _ = client.schedule_trigger("s", "x").await;
    let _ = client.schedule_pause("s", "x").await;
    let _ = client.schedule_resume("s", "x").await;
}

async fn call_queues(client: &Client) {
    let push = PushBody::One(Box::default());
    let within = std::time::Duration::from_millis(1);
    let _ = client.queues().await;
    let _ = client.queue("s", "q", false).await;
    let _ = client.queue_push("s", "q", &push).await;
    let _ = client.queue_tasks("s", "q", &QueueTasksQuery::default()).await;
    let _ = client.queue_stats("s", "q", "1h").await;
    let _ = client.queue_logs("s", "q", None, &LogQuery::default()).await;
    let _ = client.queue_pause("s", "q", &QueuePause::default()).await;
    let scale = ScaleRequest {
        to: "+1".to_owned(),
        force: false,
    };
    let _ = client.queue_scale("s", "q", &scale).await;
    let _ = client.queue_act("s", "q", "resume").await;
    let _ = client.queue_purge("s", "q", &QueueState::default()).await;
    let _ = client.queue_retry("s", "q", &QueueState::default()).await;
    let _ = client.queue_claim("s", "q", &ClaimRequest::default()).await;
    let _ = client.queued_task(1).await;
    let _ = client.queued_wait(1, within).await;
    let _ = client.queued_cancel(1).await;
    let _ = client.queued_retry(1).await;
    let _ = client.queued_edit(1, &TaskEdit::default()).await;
    let _ = client.queued_remove(1).await;
    let _ = client.queued_renew(1, &RenewRequest::default()).await;
    let _ = client.queued_settle(1, &SettleRequest::default()).await;
}

/// Is it a path of this template?
fn fits(path: &str, template: &str) -> bool {
    let (path, template) = (path.split('/'), template.split('/'));
    path.clone().count() == template.clone().count()
        && path
            .zip(template)
            .all(|(part, wanted)| wanted.starts_with('{') && !part.is_empty() || part == wanted)
}

#[tokio::test]
async fn every_documented_route_has_a_typed_method() {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let port = listener.local_addr().expect("an address").port();
    let asked = Asked::default();
    let server = tokio::spawn(serve(listener, asked.clone()));
    let client = Client::new(Endpoint::Tcp("127.0.0.1".to_owned(), port), None);
    call_jobs(&client).await;
    call_runs(&client).await;
    call_node(&client).await;
    call_access(&client).await;
    call_tasks(&client).await;
    call_queues(&client).await;
    call_schedules(&client).await;
    server.abort();

    let asked = asked.lock().expect("no panic");
    let document: Value =
        serde_json::from_str(include_str!("../../../openapi/gaffer.json")).expect("the document is JSON");
    let paths = document["paths"].as_object().expect("paths");
    let mut left = Vec::new();
    for (template, methods) in paths {
        for method in methods.as_object().expect("methods").keys() {
            let method = method.to_uppercase();
            let has_one = asked.iter().any(|asked| {
                asked
                    .split_once(' ')
                    .is_some_and(|(word, path)| word == method && fits(path, template))
            });
            if !has_one {
                left.push(format!("{method} {template}"));
            }
        }
    }
    assert!(paths.len() > 30, "{} routes are too few", paths.len());
    assert!(left.is_empty(), "no method for {left:?}; asked was {asked:#?}");
}
