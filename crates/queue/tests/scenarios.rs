//! Scenarios of which only the store can tell: what goes when.

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

/// Scenario 33: a result is there as long as it is kept, then it is gone. Results are kept as long as was said, also in a row that is kept
/// for longer; and for a minute in any case.
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
