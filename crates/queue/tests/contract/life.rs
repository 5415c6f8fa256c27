//! What becomes of tasks, what operators do, schedules.

use super::*;

pub async fn kinds_can_be_left_for_others(store: Asked) {
    let mut new = task("1");
    new.kind = Some("new".into());
    store.id(new).await;
    let known = store.id(task("2")).await;
    assert_eq!(store.ids(|claim| claim.kinds = Some(vec![None])).await, [known]);
}

pub async fn what_was_not_begun_in_time_is_dead(store: Asked) {
    let mut late = task("1");
    late.begin_by = Some(Wall(NOW.0 - 1));
    let late = store.id(late).await;
    let good = store.id(task("2")).await;
    assert_eq!(store.ids(|_| {}).await, [good]);
    let row = store.row(late).await.expect("a dead letter");
    assert_eq!(row.state, TaskState::Dead);
    assert_eq!(row.error.map(|error| error.kind), Some("expired".to_owned()));
}

pub async fn leases_are_renewed_by_their_holder_and_collected_from_others(store: Asked) {
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

pub async fn hazard_50_orphans_are_known_by_their_incarnation(store: Asked) {
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

pub async fn a_cancel_withdraws_what_waits_and_asks_for_the_end_of_what_runs(store: Asked) {
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

/// Scenario 9: a dead task that is tried again has its number, and begins to count anew.
pub async fn scenario_09_a_dead_task_runs_again_under_its_number(store: Asked) {
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

pub async fn a_task_that_is_over_keeps_its_payload_and_a_new_one_has_the_other(store: Asked) {
    let id = store.id(task("1")).await;
    let edit = |id| Request::Edit {
        task: id,
        payload: "2".into(),
        now: NOW,
        shown: id,
    };
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

pub async fn rows_go_when_their_time_is_over_and_not_before(store: Asked) {
    let id = store.id(task("1")).await;
    let (rows, _) = store.claim(|_| {}).await;
    store.settle(&rows[0], Outcome::Done(None)).await;
    let prune = |ms| Request::Prune(Wall(NOW.0 + ms), 1_000);
    assert_eq!(store.ask(prune(59_000)).await, Answer::Purged(0));
    assert_eq!(store.ask(prune(60_000)).await, Answer::Purged(1));
    assert_eq!(store.row(id).await, None);
}

pub async fn running_tasks_are_neither_removed_nor_purged(store: Asked) {
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

/// Scenario 15: with aging a task that has waited long overtakes fresh ones of a better priority.
pub async fn scenario_15_waiting_is_worth_priority(store: Asked) {
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

pub async fn a_closed_queue_takes_nothing_and_modes_are_remembered(store: Asked) {
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

pub async fn lists_and_counts_are_what_is_there(store: Asked) {
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

pub async fn signs_are_what_alerts_are_made_from(store: Asked) {
    let signs = async |since: Wall| match store.ask(Request::Signs(queue(), since)).await {
        Answer::Signs(mut signs) => {
            signs.log_bytes = None;
            signs.kinds.sort();
            signs
        }
        other => panic!("{other:?}"),
    };
    assert_eq!(signs(NOW).await, Signs::default(), "an empty queue has none");
    for _ in 0..3 {
        store.id(task("1")).await;
    }
    let (rows, _) = store.claim(|claim| claim.count = 2).await;
    for row in &rows {
        store
            .settle(row, Outcome::Fatal(Failure::of("exit:3", "exit 3")))
            .await;
    }
    let mut other = task("2");
    other.kind = Some("b".into());
    other.run_at = Some(Wall(NOW.0 - 7));
    store.id(other).await;
    let minute = |minute: i64, done: u64| MinuteRow {
        queue: queue().to_string(),
        minute: Wall(NOW.0 + minute * 60_000),
        done,
        begun: 1,
        ..MinuteRow::default()
    };
    store
        .ask(Request::Count(vec![minute(-70, 1), minute(-2, 1)], Vec::new()))
        .await;
    store.id(task("3")).await;
    store.ask(Request::Count(vec![minute(-1, 0)], Vec::new())).await;
    let hour = Wall(NOW.0 - 3_600_000);
    let before = |ms: i64| Wall(NOW.0 - ms);
    assert_eq!(
        signs(hour).await,
        Signs {
            died: Some((2, NOW)),
            finished: Some(before(60_000)),
            waiting: vec![(before(60_000), 2), (NOW, 3)],
            kinds: vec![(None, NOW), (Some("b".to_owned()), before(7))],
            log_bytes: None,
        }
    );
    assert_eq!(signs(Wall(NOW.0 + 1)).await.died, None, "none since then");
    store.ask(Request::Again(rows[0].handle.task, NOW)).await;
    assert_eq!(signs(hour).await.died, Some((1, NOW)), "one runs again");
}

pub async fn tasks_that_are_too_late_are_in_nobodys_way(store: Asked) {
    let mut late = task("1");
    late.begin_by = Some(Wall(NOW.0 - 1));
    store.push(vec![late.clone(); 3]).await.expect("pushed");
    let good = store.id(task("2")).await;
    assert_eq!(store.ids(|claim| claim.count = 1).await, [good]);
    // However many they are: then the store says that it is to be asked again.
    store.push(vec![late; 1_500]).await.expect("pushed");
    let good = store.id(task("3")).await;
    let (rows, again_at) = store.claim(|claim| claim.count = 1).await;
    let rows = match (rows.len(), again_at) {
        (0, Some(NOW)) => store.claim(|claim| claim.count = 1).await.0,
        _ => rows,
    };
    assert_eq!(rows.iter().map(|row| row.handle.task).collect::<Vec<_>>(), [good]);
}
/// A13.27: tasks that finish in two minutes: a row of statistics for each kind and minute.
pub async fn a13_27_minutes_add_up_and_old_ones_go(store: Asked) {
    let minute = |minute: i64, done: u64, longest: u64| MinuteRow {
        queue: queue().to_string(),
        minute: Wall(minute * 60_000),
        done,
        begun: done,
        took_ms: (longest * done, longest),
        ..MinuteRow::default()
    };
    let kept = |from: i64| vec![(queue(), Wall(from * 60_000))];
    store.id(task("1")).await;
    store
        .ask(Request::Count(vec![minute(5, 2, 10), minute(6, 1, 1)], kept(0)))
        .await;
    store.ask(Request::Count(vec![minute(6, 3, 7)], kept(0))).await;
    let all = store.ask(Request::Minutes(queue(), Wall(0))).await;
    let mut both = minute(6, 4, 7);
    both.took_ms = (22, 7);
    let known: Vec<MinuteRow> = [minute(5, 2, 10), both.clone()]
        .into_iter()
        .map(|row| MinuteRow { waiting: 1, ..row })
        .collect();
    assert_eq!(all, Answer::Minutes(known));
    store.ask(Request::Count(Vec::new(), kept(6))).await;
    both.waiting = 1;
    let left = store.ask(Request::Minutes(queue(), Wall(0))).await;
    assert_eq!(left, Answer::Minutes(vec![both]));
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

/// Scenario 11: a daemon that was down for 3 ticks: none is made up for, the last, or all, as it says, and none of them twice with two
/// nodes.
pub async fn scenario_11_a_tick_is_pushed_once_by_whoever_comes_first(store: Asked) {
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

/// Scenario 13: a tick that meets the task of the one before it is skipped and recorded.
pub async fn scenario_13_a_tick_that_meets_its_key_moves_on_and_says_so(store: Asked) {
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

pub async fn a_tick_whose_push_is_refused_stays_where_it_is(store: Asked) {
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

/// Scenario 31: the numbers of the rows are remembered in the transaction of the tasks, and nobody moves what somebody else moved.
pub async fn scenario_31_rows_of_an_outbox_become_tasks_once_and_are_remembered_with_them(store: Asked) {
    let moving = |known: &[i64], ids: &[i64]| {
        let tasks = ids.iter().map(|id| task(&id.to_string())).collect();
        let (known, ids) = (known.to_vec(), ids.to_vec());
        let source = "n:mail:/app.db".into();
        let now = NOW;
        Request::Move(Box::new(Moving {
            source,
            known,
            ids,
            tasks,
            now,
        }))
    };
    let moved = || Request::Moved("n:mail:/app.db".into());
    assert_eq!(store.ask(moved()).await, Answer::Moved(Vec::new()));
    let Answer::Taken(Some(first)) = store.ask(moving(&[], &[1, 2])).await else {
        panic!("the first is taken");
    };
    assert_eq!(first.len(), 2);
    assert_eq!(
        store.ask(moving(&[], &[1, 2])).await,
        Answer::Taken(None),
        "again"
    );
    assert_eq!(store.ask(moved()).await, Answer::Moved(vec![1, 2]));
    assert_eq!(
        store.ask(moving(&[1], &[3])).await,
        Answer::Taken(None),
        "another one knew less"
    );
    let Answer::Taken(Some(_)) = store.ask(moving(&[1, 2], &[3])).await else {
        panic!("what follows is taken");
    };
    assert_eq!(store.ask(moved()).await, Answer::Moved(vec![3]));
    let (rows, _) = store.claim(|claim| claim.count = 10).await;
    let payloads: Vec<&str> = rows.iter().map(|row| &*row.payload).collect();
    assert_eq!(payloads, ["1", "2", "3"]);
    let closed = Mode {
        closed: true,
        ..Mode::default()
    };
    store.ask(Request::Mode(queue(), closed)).await;
    let refused = store.store.get(moving(&[3], &[4])).await;
    assert_eq!(refused, Err(StoreError::Closed(queue())));
    assert_eq!(
        store.ask(moved()).await,
        Answer::Moved(vec![3]),
        "nothing is half-done"
    );
    assert_eq!(
        store.ask(Request::Forget("n:mail:/app.db".into())).await,
        Answer::Noted
    );
    assert_eq!(store.ask(moved()).await, Answer::Moved(Vec::new()));
}
