//! What every store promises, said once and asked of each of them.

use gaffer_core::name::JobId;
use gaffer_core::queue::spec::{By, Conflict, Queue, QueueId, Throttle};
use gaffer_core::queue::task::{Claimed, Failure, Settlement, TaskId, TaskState};
use gaffer_core::queue::{outcome, outcome::Outcome};
use gaffer_core::time::{Duration, Wall};
use gaffer_queue::port::{Answer, Cancelled, Claim, Key, NewTask, Pushed, Request, Tick};
use gaffer_queue::rows::{Filter, Mode, ScheduleRow, TaskRow};
use gaffer_queue::sqlite::Sqlite;
use gaffer_queue::{Store, StoreError};
use std::sync::Arc;

const NOW: Wall = Wall(1_800_000_000_000);

fn queue() -> QueueId {
    JobId::parse("mail").expect("a name")
}

fn task(payload: &str) -> NewTask {
    NewTask {
        queue: queue(),
        kind: None,
        payload: payload.into(),
        meta: None,
        priority: 0,
        fifo: false,
        run_at: None,
        unique: None,
        limit_key: None,
        attempts_max: None,
        timeout_ms: None,
        begin_by: None,
        full: false,
    }
}

fn key(text: &str, conflict: Conflict) -> Key {
    Key {
        key: text.into(),
        while_running: false,
        done_until: None,
        conflict,
        max_delay: None,
    }
}

/// A store, with its answers taken apart.
struct Asked {
    store: Store,
    _dir: tempfile::TempDir,
}

impl Asked {
    fn sqlite() -> Asked {
        let dir = tempfile::tempdir().expect("a directory");
        let sqlite = Sqlite::open(&dir.path().join("queue.db"), Box::new(|| {})).expect("opened");
        Asked {
            store: Store::Sqlite(sqlite),
            _dir: dir,
        }
    }

    async fn ask(&self, request: Request) -> Answer {
        self.store.get(request).await.expect("an answer")
    }

    async fn push(&self, tasks: Vec<NewTask>) -> Result<Vec<Pushed>, StoreError> {
        match self.store.get(Request::Push(tasks, NOW)).await? {
            Answer::Pushed(pushed) => Ok(pushed),
            other => panic!("{other:?}"),
        }
    }

    async fn id(&self, task: NewTask) -> TaskId {
        self.push(vec![task]).await.expect("pushed")[0].id
    }

    async fn claim(&self, change: impl FnOnce(&mut Claim)) -> (Vec<Claimed>, Option<Wall>) {
        let mut claim = Claim {
            queue: queue(),
            count: 10,
            owner: "a:1".into(),
            now: NOW,
            lease: Duration::from_secs(30),
            kinds: None,
            throttle: Throttle::default(),
            forget: false,
        };
        change(&mut claim);
        match self.ask(Request::Claim(Box::new(claim))).await {
            Answer::Claimed(rows, again_at) => (rows, again_at),
            other => panic!("{other:?}"),
        }
    }

    async fn ids(&self, change: impl FnOnce(&mut Claim)) -> Vec<TaskId> {
        let (rows, _) = self.claim(change).await;
        rows.iter().map(|row| row.handle.task).collect()
    }

    async fn settle(&self, row: &Claimed, outcome: Outcome) -> bool {
        let settlement = settlement(row, outcome);
        match self.ask(Request::Settle(Box::new(settlement), NOW)).await {
            Answer::Settled(written) => written,
            other => panic!("{other:?}"),
        }
    }

    async fn row(&self, id: TaskId) -> Option<TaskRow> {
        match self.ask(Request::Task(id)).await {
            Answer::Task(found) => found.map(|found| found.0),
            other => panic!("{other:?}"),
        }
    }

    async fn state(&self, id: TaskId) -> Option<TaskState> {
        self.row(id).await.map(|row| row.state)
    }
}

fn settlement(row: &Claimed, outcome: Outcome) -> Settlement {
    outcome::settle(&Queue::of(By::Others), row, outcome, NOW, 0.5)
}

fn failed() -> Outcome {
    Outcome::Failed(Failure::of("exit:1", "exit 1"))
}

#[tokio::test]
async fn tasks_are_claimed_in_the_order_of_their_priority_then_of_their_push() {
    let store = Asked::sqlite();
    let first = store.id(task("1")).await;
    let second = store.id(task("2")).await;
    let mut urgent = task("3");
    urgent.priority = -5;
    let urgent = store.id(urgent).await;
    assert_eq!(store.ids(|claim| claim.count = 2).await, [urgent, first]);
    assert_eq!(store.ids(|_| {}).await, [second]);
    assert_eq!(store.ids(|_| {}).await, [] as [TaskId; 0], "nobody gets it twice");
}

#[tokio::test]
async fn a_fifo_queue_ignores_priorities() {
    let store = Asked::sqlite();
    let first = store.id(task("1")).await;
    let mut second = task("2");
    (second.priority, second.fifo) = (-5, true);
    let second = store.id(second).await;
    assert_eq!(store.ids(|_| {}).await, [first, second]);
}

#[tokio::test]
async fn hazard_49_an_outcome_counts_only_with_the_newest_claim_of_a_running_task() {
    let store = Asked::sqlite();
    let id = store.id(task("1")).await;
    let (rows, _) = store.claim(|_| {}).await;
    let old = rows[0].clone();
    assert_eq!((old.handle.token, old.attempt), (1, 1));
    assert!(store.settle(&old, Outcome::NotHanded).await);
    let (rows, _) = store.claim(|_| {}).await;
    let new = rows[0].clone();
    assert_eq!(
        (new.handle.token, new.attempt),
        (2, 1),
        "given back: it does not count"
    );
    assert!(!store.settle(&old, Outcome::Done(None)).await, "stale");
    assert_eq!(store.state(id).await, Some(TaskState::Running));
    assert!(store.settle(&new, Outcome::Done(Some("7".into()))).await);
    assert!(!store.settle(&new, failed()).await, "settled once");
    let row = store.row(id).await.expect("kept");
    assert_eq!((row.state, row.result.as_deref()), (TaskState::Done, Some("7")));
}

#[tokio::test]
async fn a_failed_task_comes_back_when_its_time_has_come() {
    let store = Asked::sqlite();
    let id = store.id(task("1")).await;
    let (rows, _) = store.claim(|_| {}).await;
    assert!(store.settle(&rows[0], failed()).await);
    assert_eq!(store.state(id).await, Some(TaskState::Scheduled));
    assert_eq!(store.ids(|_| {}).await, [] as [TaskId; 0]);
    let upkeep = |now| Request::Upkeep {
        owner: "a:1".into(),
        now,
    };
    let Answer::Upkept(early) = store.ask(upkeep(NOW)).await else {
        panic!("upkept");
    };
    assert_eq!(early.moved, [] as [QueueId; 0]);
    let due = early.next_due.expect("a time");
    let Answer::Upkept(late) = store.ask(upkeep(due)).await else {
        panic!("upkept");
    };
    assert_eq!((late.moved, late.next_due), (vec![queue()], None));
    let (rows, _) = store.claim(|claim| claim.now = due).await;
    assert_eq!((rows[0].handle.task, rows[0].attempt), (id, 2));
    let Answer::Task(Some(found)) = store.ask(Request::Task(id)).await else {
        panic!("a task");
    };
    assert_eq!(found.1.len(), 1, "the failed attempt is in its log");
    assert_eq!(
        found.1[0].error.as_ref().map(|error| &*error.kind),
        Some("exit:1")
    );
}

#[tokio::test]
async fn a13_01_at_most_once_the_row_is_gone_with_the_claim() {
    let store = Asked::sqlite();
    let id = store.id(task("1")).await;
    assert_eq!(store.ids(|claim| claim.forget = true).await, [id]);
    assert_eq!(store.row(id).await, None);
}

#[tokio::test]
async fn scenario_16_a_key_is_there_once_while_it_waits() {
    let store = Asked::sqlite();
    let keyed = || NewTask {
        unique: Some(key("k", Conflict::Return)),
        ..task("1")
    };
    let first = store.push(vec![keyed()]).await.expect("pushed")[0];
    let again = store.push(vec![keyed()]).await.expect("pushed")[0];
    assert_eq!((again.id, again.duplicate), (first.id, true));
    let (rows, _) = store.claim(|_| {}).await;
    let second = store.push(vec![keyed()]).await.expect("pushed")[0];
    assert!(
        !second.duplicate,
        "a running one excludes nobody, unless asked to"
    );
    // Its retry meets the one that waits.
    assert!(store.settle(&rows[0], failed()).await);
    assert_eq!(
        store.state(first.id).await,
        Some(TaskState::Cancelled),
        "superseded"
    );
}

#[tokio::test]
async fn a_running_key_excludes_if_it_says_so() {
    let store = Asked::sqlite();
    let keyed = || {
        let mut key = key("k", Conflict::Return);
        key.while_running = true;
        NewTask {
            unique: Some(key),
            ..task("1")
        }
    };
    let first = store.id(keyed()).await;
    store.claim(|_| {}).await;
    assert_eq!(store.push(vec![keyed()]).await.expect("pushed")[0].id, first);
}

#[tokio::test]
async fn a_done_key_excludes_until_its_time_is_over() {
    let store = Asked::sqlite();
    let keyed = || {
        let mut key = key("k", Conflict::Return);
        key.while_running = true;
        key.done_until = Some(NOW.plus(Duration::from_secs(60)));
        NewTask {
            unique: Some(key),
            ..task("1")
        }
    };
    let first = store.id(keyed()).await;
    let (rows, _) = store.claim(|_| {}).await;
    let mut done = settlement(&rows[0], Outcome::Done(None));
    done.holds_key = true;
    store.ask(Request::Settle(Box::new(done), NOW)).await;
    assert_eq!(store.push(vec![keyed()]).await.expect("pushed")[0].id, first);
    let later = NOW.plus(Duration::from_secs(61));
    let Answer::Pushed(pushed) = store.ask(Request::Push(vec![keyed()], later)).await else {
        panic!("pushed");
    };
    assert!(!pushed[0].duplicate);
}

#[tokio::test]
async fn scenario_17_debounce_moves_the_waiting_one_and_max_delay_bounds_it() {
    let store = Asked::sqlite();
    let at = |ms: i64, most: Option<u64>| NewTask {
        run_at: Some(Wall(NOW.0 + ms)),
        unique: Some(Key {
            max_delay: most.map(Duration::from_millis),
            ..key("k", Conflict::Debounce)
        }),
        ..task("1")
    };
    let id = store.id(at(1_000, None)).await;
    store.push(vec![at(1_400, None)]).await.expect("moved");
    assert_eq!(
        store.row(id).await.expect("there").run_at,
        Some(Wall(NOW.0 + 1_400))
    );
    store.push(vec![at(2_600, Some(1_500))]).await.expect("moved");
    assert_eq!(
        store.row(id).await.expect("there").run_at,
        Some(Wall(NOW.0 + 1_500))
    );
}

#[tokio::test]
async fn replace_and_keep_earliest_and_error() {
    let store = Asked::sqlite();
    let with = |payload: &str, ms: i64, conflict| NewTask {
        run_at: Some(Wall(NOW.0 + ms)),
        unique: Some(key("k", conflict)),
        ..task(payload)
    };
    let id = store.id(with("1", 5_000, Conflict::Return)).await;
    store
        .push(vec![with("2", 9_000, Conflict::KeepEarliest)])
        .await
        .expect("kept");
    let row = store.row(id).await.expect("there");
    assert_eq!(
        (row.payload.as_str(), row.run_at),
        ("1", Some(Wall(NOW.0 + 5_000)))
    );
    store
        .push(vec![with("3", 9_000, Conflict::Replace)])
        .await
        .expect("replaced");
    let row = store.row(id).await.expect("there");
    assert_eq!(
        (row.payload.as_str(), row.run_at),
        ("3", Some(Wall(NOW.0 + 9_000)))
    );
    let refused = store.push(vec![with("4", 0, Conflict::Error)]).await;
    assert_eq!(
        refused,
        Err(StoreError::Duplicate {
            index: 0,
            key: "k".into(),
            id
        })
    );
}

#[tokio::test]
async fn scenario_32_a_push_of_many_is_all_or_nothing() {
    let store = Asked::sqlite();
    let keyed = || NewTask {
        unique: Some(key("k", Conflict::Error)),
        ..task("1")
    };
    let refused = store.push(vec![task("1"), keyed(), task("2"), keyed()]).await;
    assert!(
        matches!(refused, Err(StoreError::Duplicate { index: 3, .. })),
        "{refused:?}"
    );
    assert_eq!(store.ids(|_| {}).await, [] as [TaskId; 0]);
    let pushed = store
        .push((0..1_000).map(|_| task("1")).collect())
        .await
        .expect("pushed");
    assert!(pushed.windows(2).all(|pair| pair[0].id < pair[1].id));
}

#[tokio::test]
async fn scenario_18_no_two_of_one_key_run_and_other_keys_are_not_held_up() {
    let store = Asked::sqlite();
    let of = |customer: &str| NewTask {
        limit_key: Some(customer.into()),
        ..task("1")
    };
    let mut ids = Vec::new();
    for _ in 0..5 {
        ids.push(store.id(of("a")).await);
    }
    let b = store.id(of("b")).await;
    let limited = |claim: &mut Claim| claim.throttle.per_key = Some(1);
    let (rows, _) = store.claim(limited).await;
    let claimed: Vec<TaskId> = rows.iter().map(|row| row.handle.task).collect();
    assert_eq!(claimed, [ids[0], b]);
    assert_eq!(store.ids(limited).await, [] as [TaskId; 0]);
    store.settle(&rows[0], Outcome::Done(None)).await;
    assert_eq!(store.ids(limited).await, [ids[1]]);
}

#[tokio::test]
async fn a_limit_over_all_and_one_for_each_kind() {
    let store = Asked::sqlite();
    for kind in ["x", "x", "y", "y"] {
        let mut one = task("1");
        one.kind = Some(kind.into());
        store.id(one).await;
    }
    let (rows, _) = store.claim(|claim| claim.throttle.per_kind = Some(1)).await;
    let kinds: Vec<_> = rows
        .iter()
        .map(|row| row.kind.clone().unwrap_or_default())
        .collect();
    assert_eq!(kinds, ["x".into(), "y".into()] as [Arc<str>; 2]);
    let (rows, _) = store.claim(|claim| claim.throttle.total = Some(3)).await;
    assert_eq!(rows.len(), 1, "two run already");
}

#[tokio::test]
async fn scenario_20_a_rate_lets_so_many_begin_and_says_when_the_next_may() {
    let store = Asked::sqlite();
    store
        .push((0..30).map(|_| task("1")).collect())
        .await
        .expect("pushed");
    let rate = |now: Wall| {
        move |claim: &mut Claim| {
            claim.count = 100;
            claim.now = now;
            claim.throttle.rate = Some((10, Duration::from_secs(1)));
        }
    };
    let (rows, again) = store.claim(rate(NOW)).await;
    assert_eq!(rows.len(), 10);
    assert_eq!(again, Some(Wall(NOW.0 + 100)));
    let (rows, _) = store.claim(rate(Wall(NOW.0 + 250))).await;
    assert_eq!(rows.len(), 2, "a quarter of a second later");
    let (rows, _) = store.claim(rate(Wall(NOW.0 - 60_000))).await;
    assert_eq!(rows.len(), 0, "a clock that is set back gives nothing");
}

#[tokio::test]
async fn kinds_can_be_left_for_others() {
    let store = Asked::sqlite();
    let mut new = task("1");
    new.kind = Some("new".into());
    store.id(new).await;
    let known = store.id(task("2")).await;
    assert_eq!(store.ids(|claim| claim.kinds = Some(vec![None])).await, [known]);
}

#[tokio::test]
async fn what_was_not_begun_in_time_is_dead() {
    let store = Asked::sqlite();
    let mut late = task("1");
    late.begin_by = Some(Wall(NOW.0 - 1));
    let late = store.id(late).await;
    let good = store.id(task("2")).await;
    assert_eq!(store.ids(|_| {}).await, [good]);
    let row = store.row(late).await.expect("a dead letter");
    assert_eq!(row.state, TaskState::Dead);
    assert_eq!(row.error.map(|error| error.kind), Some("expired".to_owned()));
}

#[tokio::test]
async fn leases_are_renewed_by_their_holder_and_collected_from_others() {
    let store = Asked::sqlite();
    let id = store.id(task("1")).await;
    let (rows, _) = store.claim(|claim| claim.owner = "ext:far".into()).await;
    let handle = rows[0].handle;
    let later = Wall(NOW.0 + 20_000);
    let renew = Request::Renew(vec![(handle, Duration::from_secs(30))], later);
    assert_eq!(store.ask(renew).await, Answer::Renewed(vec![(handle, false)]));
    let upkeep = |now| Request::Upkeep {
        owner: "a:1".into(),
        now: Wall(now),
    };
    let Answer::Upkept(early) = store.ask(upkeep(NOW.0 + 49_000)).await else {
        panic!("upkept");
    };
    assert_eq!(
        (early.expired.len(), early.next_lease),
        (0, Some(Wall(NOW.0 + 50_000)))
    );
    let Answer::Upkept(late) = store.ask(upkeep(NOW.0 + 50_000)).await else {
        panic!("upkept");
    };
    assert_eq!(late.expired.len(), 1);
    assert_eq!(late.expired[0].handle, handle);
    assert_eq!(
        store.state(id).await,
        Some(TaskState::Running),
        "what follows is decided elsewhere"
    );
}

#[tokio::test]
async fn hazard_50_orphans_are_known_by_their_incarnation() {
    let store = Asked::sqlite();
    store
        .push(vec![task("1"), task("2"), task("3")])
        .await
        .expect("pushed");
    let old = store
        .ids(|claim| (claim.count, claim.owner) = (1, "a:1".into()))
        .await;
    store
        .ids(|claim| (claim.count, claim.owner) = (1, "a:2".into()))
        .await;
    store
        .ids(|claim| (claim.count, claim.owner) = (1, "b:1".into()))
        .await;
    let Answer::Orphans(orphans) = store
        .ask(Request::Orphans {
            node: "a:".into(),
            owner: "a:2".into(),
        })
        .await
    else {
        panic!("orphans");
    };
    let ids: Vec<TaskId> = orphans.iter().map(|row| row.handle.task).collect();
    assert_eq!(ids, old);
}

#[tokio::test]
async fn a_cancel_withdraws_what_waits_and_asks_for_the_end_of_what_runs() {
    let store = Asked::sqlite();
    let waiting = store.id(task("1")).await;
    let answer = store.ask(Request::Cancel(waiting, NOW)).await;
    assert_eq!(answer, Answer::Cancelled(Cancelled::Now(queue())));
    let running = store.id(task("2")).await;
    let (rows, _) = store.claim(|_| {}).await;
    let answer = store.ask(Request::Cancel(running, NOW)).await;
    assert_eq!(answer, Answer::Cancelled(Cancelled::Asked(queue())));
    let renew = Request::Renew(vec![(rows[0].handle, Duration::from_secs(30))], NOW);
    assert_eq!(
        store.ask(renew).await,
        Answer::Renewed(vec![(rows[0].handle, true)])
    );
    store.settle(&rows[0], Outcome::Cancelled).await;
    let answer = store.ask(Request::Cancel(running, NOW)).await;
    assert_eq!(answer, Answer::Cancelled(Cancelled::Over(TaskState::Cancelled)));
    assert_eq!(
        store.ask(Request::Cancel(99, NOW)).await,
        Answer::Cancelled(Cancelled::Unknown)
    );
}

#[tokio::test]
async fn scenario_09_a_dead_task_runs_again_under_its_number() {
    let store = Asked::sqlite();
    let id = store.id(task("1")).await;
    let (rows, _) = store.claim(|_| {}).await;
    let fatal = Outcome::Fatal(Failure::of("exit:3", "exit 3"));
    store.settle(&rows[0], fatal).await;
    assert_eq!(store.state(id).await, Some(TaskState::Dead));
    let Answer::Again(again) = store.ask(Request::Again(id, NOW)).await else {
        panic!("again");
    };
    assert_eq!(again.map(|(id, _)| id), Ok(id));
    let (rows, _) = store.claim(|_| {}).await;
    assert_eq!(
        (rows[0].handle.task, rows[0].attempt, rows[0].handle.token),
        (id, 1, 2)
    );
    let Answer::Again(again) = store.ask(Request::Again(id, NOW)).await else {
        panic!("again");
    };
    assert_eq!(again, Err(Some(TaskState::Running)));
}

#[tokio::test]
async fn a_task_that_is_over_keeps_its_payload_and_a_new_one_has_the_other() {
    let store = Asked::sqlite();
    let id = store.id(task("1")).await;
    let edit = |id| Request::Edit(id, "2".into(), NOW);
    let Answer::Again(Ok((same, _))) = store.ask(edit(id)).await else {
        panic!("edited");
    };
    assert_eq!(same, id);
    let (rows, _) = store.claim(|_| {}).await;
    assert_eq!(&*rows[0].payload, "2");
    store.settle(&rows[0], Outcome::Done(None)).await;
    let Answer::Again(Ok((new, _))) = store.ask(edit(id)).await else {
        panic!("edited");
    };
    assert_ne!(new, id);
    assert_eq!(
        store.row(new).await.expect("there").meta.as_deref(),
        Some("{\"from\":1}")
    );
}

#[tokio::test]
async fn rows_go_when_their_time_is_over_and_not_before() {
    let store = Asked::sqlite();
    let id = store.id(task("1")).await;
    let (rows, _) = store.claim(|_| {}).await;
    store.settle(&rows[0], Outcome::Done(None)).await;
    let prune = |ms| Request::Prune(Wall(NOW.0 + ms), 1_000);
    assert_eq!(store.ask(prune(59_000)).await, Answer::Purged(0));
    assert_eq!(store.ask(prune(60_000)).await, Answer::Purged(1));
    assert_eq!(store.row(id).await, None);
}

#[tokio::test]
async fn running_tasks_are_neither_removed_nor_purged() {
    let store = Asked::sqlite();
    let id = store.id(task("1")).await;
    store.claim(|_| {}).await;
    let waits = store.id(task("2")).await;
    assert_eq!(
        store.ask(Request::Remove(id)).await,
        Answer::Removed(Some(TaskState::Running))
    );
    let purge = |state| Request::Purge(queue(), state, 100);
    assert_eq!(store.ask(purge(TaskState::Running)).await, Answer::Purged(0));
    assert_eq!(store.ask(purge(TaskState::Queued)).await, Answer::Purged(1));
    assert_eq!(store.row(waits).await, None);
    assert_eq!(store.state(id).await, Some(TaskState::Running));
}

#[tokio::test]
async fn scenario_15_waiting_is_worth_priority() {
    let store = Asked::sqlite();
    let mut old = task("1");
    old.priority = 5;
    let old = store.id(old).await;
    let later = Wall(NOW.0 + 60_000);
    let fresh = task("2");
    store.ask(Request::Push(vec![fresh], later)).await;
    store
        .ask(Request::Age(queue(), Duration::from_secs(10), later))
        .await;
    assert_eq!(store.ids(|claim| claim.count = 1).await, [old]);
}

#[tokio::test]
async fn a_closed_queue_takes_nothing_and_modes_are_remembered() {
    let store = Asked::sqlite();
    let mode = Mode {
        closed: true,
        by: "ana".to_owned(),
        ..Mode::default()
    };
    store.ask(Request::Mode(queue(), mode.clone())).await;
    assert_eq!(
        store.push(vec![task("1")]).await,
        Err(StoreError::Closed(queue()))
    );
    let Answer::Modes(modes) = store.ask(Request::Modes).await else {
        panic!("modes");
    };
    assert_eq!(modes.get("default.mail"), Some(&mode));
}

#[tokio::test]
async fn lists_and_counts_are_what_is_there() {
    let store = Asked::sqlite();
    for _ in 0..5 {
        store.id(task("1")).await;
    }
    let mut later = task("2");
    later.run_at = Some(Wall(NOW.0 + 1_000));
    store.id(later).await;
    store.claim(|claim| claim.count = 2).await;
    let Answer::Counts(counts) = store.ask(Request::Counts(queue())).await else {
        panic!("counts");
    };
    assert_eq!(
        (counts.queued, counts.running, counts.scheduled, counts.dead),
        (3, 2, 1, 0)
    );
    assert_eq!(counts.oldest, Some(NOW));
    let list = |state, before| Filter {
        queue: Some("default.mail".to_owned()),
        state,
        before,
        limit: 2,
        ..Filter::default()
    };
    let Answer::Tasks(rows) = store
        .ask(Request::Tasks(list(Some(TaskState::Queued), None)))
        .await
    else {
        panic!("tasks");
    };
    let ids: Vec<TaskId> = rows.iter().map(|row| row.id).collect();
    assert_eq!(ids, [5, 4], "newest first");
    let Answer::Tasks(rows) = store
        .ask(Request::Tasks(list(Some(TaskState::Queued), Some(4))))
        .await
    else {
        panic!("tasks");
    };
    assert_eq!(rows.len(), 1);
}

fn tick(known: i64, to: i64, push: Option<NewTask>) -> Request {
    let row = ScheduleRow {
        seen: Wall(to),
        fired: Some(Wall(to)),
        ..ScheduleRow::default()
    };
    let duplicate = ScheduleRow {
        seen: Wall(to),
        note: Some("1 goes on".to_owned()),
        ..ScheduleRow::default()
    };
    Request::Tick(Box::new(Tick {
        schedule: "default.s".into(),
        known: Wall(known),
        row,
        duplicate,
        push,
        now: NOW,
    }))
}

async fn schedule_row(store: &Asked) -> ScheduleRow {
    let Answer::Schedules(mut rows) = store.ask(Request::Schedules).await else {
        panic!("schedules");
    };
    rows.remove("default.s").unwrap_or_default()
}

#[tokio::test]
async fn scenario_11_a_tick_is_pushed_once_by_whoever_comes_first() {
    let store = Asked::sqlite();
    let Answer::Ticked(Some(Some(pushed))) = store.ask(tick(0, 60, Some(task("1")))).await else {
        panic!("pushed");
    };
    // The second one knew the same.
    assert_eq!(
        store.ask(tick(0, 60, Some(task("1")))).await,
        Answer::Ticked(None)
    );
    let row = schedule_row(&store).await;
    assert_eq!((row.seen, row.became), (Wall(60), Some(pushed.id.to_string())));
    assert_eq!(store.ids(|claim| claim.count = 10).await, [pushed.id]);
    // What only moves forward moves forward.
    assert_eq!(store.ask(tick(60, 120, None)).await, Answer::Ticked(Some(None)));
    assert_eq!(schedule_row(&store).await.seen, Wall(120));
}

#[tokio::test]
async fn scenario_13_a_tick_that_meets_its_key_moves_on_and_says_so() {
    let store = Asked::sqlite();
    let mut one = task("1");
    let mut own = key("schedule:default.s", Conflict::Return);
    own.while_running = true;
    one.unique = Some(own);
    store.ask(tick(0, 60, Some(one.clone()))).await;
    store.claim(|claim| claim.count = 1).await;
    let Answer::Ticked(Some(Some(second))) = store.ask(tick(60, 120, Some(one))).await else {
        panic!("an answer");
    };
    assert!(second.duplicate);
    let row = schedule_row(&store).await;
    assert_eq!((row.seen, row.note.as_deref()), (Wall(120), Some("1 goes on")));
}

#[tokio::test]
async fn a_tick_whose_push_is_refused_stays_where_it_is() {
    let store = Asked::sqlite();
    store.ask(tick(0, 60, None)).await;
    let closed = Mode {
        closed: true,
        ..Mode::default()
    };
    store.ask(Request::Mode(queue(), closed)).await;
    let refused = store.store.get(tick(60, 120, Some(task("1")))).await;
    assert_eq!(refused, Err(StoreError::Closed(queue())));
    assert_eq!(schedule_row(&store).await.seen, Wall(60));
    let row = ScheduleRow {
        paused: true,
        changed_by: "ana".to_owned(),
        ..schedule_row(&store).await
    };
    store
        .ask(Request::Schedule("default.s".into(), Some(row.clone())))
        .await;
    assert_eq!(schedule_row(&store).await, row);
    store.ask(Request::Schedule("default.s".into(), None)).await;
    assert_eq!(schedule_row(&store).await, ScheduleRow::default());
}

#[tokio::test]
async fn tasks_that_are_too_late_are_in_nobodys_way() {
    let store = Asked::sqlite();
    let mut late = task("1");
    late.begin_by = Some(Wall(NOW.0 - 1));
    store.push(vec![late.clone(); 3]).await.expect("pushed");
    let good = store.id(task("2")).await;
    assert_eq!(store.ids(|claim| claim.count = 1).await, [good]);
    // However many they are: then the store says that it is to be asked again.
    store.push(vec![late; 1_500]).await.expect("pushed");
    let good = store.id(task("3")).await;
    let (rows, again_at) = store.claim(|claim| claim.count = 1).await;
    assert_eq!((rows.len(), again_at), (0, Some(NOW)));
    assert_eq!(store.ids(|claim| claim.count = 1).await, [good]);
}
