//! Scenarios of which only the store can tell: what a claim costs, and what goes when.

use gaffer_core::name::JobId;
use gaffer_core::queue::outcome::{self, Outcome};
use gaffer_core::queue::spec::{By, Queue, QueueId, Throttle};
use gaffer_core::queue::task::{Claimed, TaskState};
use gaffer_core::time::{Duration, Wall};
use gaffer_queue::Store;
use gaffer_queue::port::{Answer, Claim, NewTask, Request};
use gaffer_queue::rows::TaskRow;
use gaffer_queue::sqlite::Sqlite;
use std::path::Path;

const NOW: Wall = Wall(1_800_000_000_000);

fn open(path: &Path) -> Store {
    Store::Sqlite(Sqlite::open(path, Box::new(|| {})).expect("opened"))
}

fn queue() -> QueueId {
    JobId::parse("mail").expect("a name")
}

fn push() -> Request {
    Request::Push(vec![NewTask::new(queue(), "1")], NOW)
}

async fn claim(store: &Store, throttle: Throttle) -> Vec<Claimed> {
    let claim = Claim {
        queue: queue(),
        count: 4,
        owner: "a:1".into(),
        now: NOW,
        lease: Duration::from_secs(30),
        kinds: None,
        throttle,
        forget: false,
    };
    match store.get(Request::Claim(Box::new(claim))).await {
        Ok(Answer::Claimed(rows, _)) => rows,
        other => panic!("{other:?}"),
    }
}

async fn row(store: &Store, id: i64) -> Option<TaskRow> {
    match store.get(Request::Task(id)).await.expect("an answer") {
        Answer::Task(found) => found.map(|found| found.0),
        other => panic!("{other:?}"),
    }
}

/// Results are kept as long as was said, also in a row that is kept for longer; and for a minute in any case.
#[tokio::test]
async fn scenario_33_a_result_goes_when_its_time_is_over_and_its_row_stays() {
    let dir = tempfile::tempdir().expect("a directory");
    let store = open(&dir.path().join("queue.db"));
    let mut spec = Queue::of(By::Others);
    spec.keep.done = Duration::from_secs(3_600);
    for (id, keep, until) in [(1, 0, 60), (2, 60, 60), (3, 90, 90)] {
        spec.keep.result = Duration::from_secs(keep);
        store.get(push()).await.expect("pushed");
        let rows = claim(&store, Throttle::default()).await;
        let done = Outcome::Done(Some("\"ten bytes\"".into()));
        let settlement = outcome::settle(&spec, &rows[0], done, NOW, 0.5);
        store
            .get(Request::Settle(Box::new(settlement), NOW))
            .await
            .expect("settled");
        for (after, there) in [(until - 1, true), (until, false)] {
            let at = NOW.plus(Duration::from_secs(after));
            store.get(Request::Prune(at, 1_000)).await.expect("pruned");
            let row = row(&store, id).await.expect("its row is kept");
            assert_eq!(row.state, TaskState::Done);
            assert_eq!(row.result.is_some(), there, "kept {keep} s, after {after} s");
        }
    }
}

/// What SQLite does for a claim, counted in steps of its machine: the same with a million tasks for tomorrow.
#[test]
fn scenario_35_a_million_tasks_for_tomorrow_do_not_make_a_claim_dearer() {
    let dir = tempfile::tempdir().expect("a directory");
    let path = dir.path().join("queue.db");
    let runtime = tokio::runtime::Builder::new_current_thread()
        .build()
        .expect("a runtime");
    runtime.block_on(async {
        let store = open(&path);
        for _ in 0..8 {
            store.get(push()).await.expect("pushed");
        }
        store.close().await;
    });
    for_tomorrow(&path, 1);
    let before = steps(&path);
    for_tomorrow(&path, 1_000_000);
    let after = steps(&path);
    assert_eq!(
        before, after,
        "steps of SELECT, promotion, look for the next due one"
    );
    // The store takes them just so, in order, and nothing of what is for tomorrow.
    runtime.block_on(async {
        let store = open(&path);
        let upkeep = Request::Upkeep {
            owner: "a:1".into(),
            now: NOW,
        };
        let Answer::Upkept(upkept) = store.get(upkeep).await.expect("upkept") else {
            panic!("upkept");
        };
        assert_eq!(upkept.moved, [] as [QueueId; 0]);
        assert_eq!(upkept.next_due, Some(Wall(NOW.0 + 86_400_001)));
        let rows = claim(&store, Throttle::default()).await;
        let ids: Vec<i64> = rows.iter().map(|row| row.handle.task).collect();
        assert_eq!(ids, [1, 2, 3, 4]);
        let Answer::Counts(counts) = store.get(Request::Counts(queue())).await.expect("counted") else {
            panic!("counts");
        };
        assert_eq!((counts.queued, counts.running), (4, 4));
        store.close().await;
    });
}

fn for_tomorrow(path: &Path, count: i64) {
    let other = rusqlite::Connection::open(path).expect("opened");
    other
        .execute(
            "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < ?2)
             INSERT INTO task (queue, payload, state, run_at, created_at)
             SELECT 'default.mail', '1', 'scheduled', ?1 + i, ?1 FROM n",
            [NOW.0 + 86_400_000, count],
        )
        .expect("inserted");
}

/// Steps that the statements of a claim take, each with its plan.
fn steps(path: &Path) -> Vec<(i32, String)> {
    let connection = rusqlite::Connection::open(path).expect("opened");
    let statements = [
        "SELECT id FROM task WHERE queue = 'default.mail' AND state = 'queued' ORDER BY rank, id LIMIT 1000",
        "SELECT COUNT(*) FROM task WHERE state = 'running' AND queue = 'default.mail'",
        "SELECT id FROM task WHERE state = 'scheduled' AND run_at <= 1800000000000 ORDER BY run_at LIMIT 1000",
        "SELECT MIN(run_at) FROM task WHERE state = 'scheduled'",
        "SELECT MIN(lease_until) FROM task WHERE state = 'running' AND lease_owner <> 'a' AND lease_until > 1",
    ];
    statements.map(|sql| plan_and_steps(&connection, sql)).to_vec()
}

fn plan_and_steps(connection: &rusqlite::Connection, sql: &str) -> (i32, String) {
    let mut explain = connection
        .prepare(&format!("EXPLAIN QUERY PLAN {sql}"))
        .expect("a plan");
    let lines = explain
        .query_map([], |row| row.get::<_, String>("detail"))
        .expect("a plan");
    let plan: Vec<String> = lines.map(|line| line.expect("a line")).collect();
    let plan = plan.join("; ");
    assert!(plan.contains("INDEX task_"), "{sql}: {plan}");
    assert!(!plan.contains("TEMP B-TREE"), "{sql}: {plan}");
    let mut statement = connection.prepare(sql).expect("a statement");
    let mut rows = statement.query([]).expect("rows");
    while rows.next().expect("a row").is_some() {}
    drop(rows);
    (statement.get_status(rusqlite::StatementStatus::VmStep), plan)
}
