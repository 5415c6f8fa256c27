//! Pushing, claiming, keys, limits.

use super::*;

pub async fn tasks_are_claimed_in_the_order_of_their_priority_then_of_their_push(store: Asked) {
    let first = store.id(task("1")).await;
    let second = store.id(task("2")).await;
    let mut urgent = task("3");
    urgent.priority = -5;
    let urgent = store.id(urgent).await;
    assert_eq!(store.ids(|claim| claim.count = 2).await, [urgent, first]);
    assert_eq!(store.ids(|_| {}).await, [second]);
    assert_eq!(store.ids(|_| {}).await, [] as [TaskId; 0], "nobody gets it twice");
}

pub async fn a_fifo_queue_ignores_priorities(store: Asked) {
    let first = store.id(task("1")).await;
    let mut second = task("2");
    (second.priority, second.fifo) = (-5, true);
    let second = store.id(second).await;
    assert_eq!(store.ids(|_| {}).await, [first, second]);
}

pub async fn hazard_49_an_outcome_counts_only_with_the_newest_claim_of_a_running_task(store: Asked) {
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

pub async fn a_failed_task_comes_back_when_its_time_has_come(store: Asked) {
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

/// A13.1: an idle queue: a task that is queued starts within milliseconds, and its row is gone before it starts.
pub async fn a13_01_at_most_once_the_row_is_gone_with_the_claim(store: Asked) {
    let id = store.id(task("1")).await;
    assert_eq!(store.ids(|claim| claim.forget = true).await, [id]);
    assert_eq!(store.row(id).await, None);
}

/// Scenario 16: a unique key queued twice is one row with one number, and the second is told so; while one runs another may wait, unless
/// running counts, too.
pub async fn scenario_16_a_key_is_there_once_while_it_waits(store: Asked) {
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

pub async fn a_running_key_excludes_if_it_says_so(store: Asked) {
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

pub async fn a_done_key_excludes_until_its_time_is_over(store: Asked) {
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

/// Scenario 17: debounce moves the one run to after the last push; `max_delay` bounds that.
pub async fn scenario_17_debounce_moves_the_waiting_one_and_max_delay_bounds_it(store: Asked) {
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

pub async fn replace_and_keep_earliest_and_error(store: Asked) {
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

/// Scenario 32: a push of many with one that is refused: none is queued, and the error names which.
pub async fn scenario_32_a_push_of_many_is_all_or_nothing(store: Asked) {
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

/// Scenario 18: one at once per key: never two of a key, and other keys are not held up.
pub async fn scenario_18_no_two_of_one_key_run_and_other_keys_are_not_held_up(store: Asked) {
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

pub async fn a_limit_over_all_and_one_for_each_kind(store: Asked) {
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

/// Scenario 20: a rate of 10/s lets 10 begin, and so many more as flow in.
pub async fn scenario_20_a_rate_lets_so_many_begin_and_says_when_the_next_may(store: Asked) {
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
