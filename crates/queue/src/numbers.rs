//! Numbers of tasks where one node has several stores.
//!
//! Each store counts its tasks from 1. What a node shows, and its workers are told, has the number of the store in front of the last twelve
//! digits: task 17 of store 2 is 2000000000017. Store 0 is the node's own, so its numbers are as they are in it. All of them are
//! whole in programs that keep numbers as floating point.

use crate::port::{Answer, Done, Pushed, Request, Store, StoreError, answered};
use crate::rows::ScheduleRow;
use gaffer_core::queue::task::{Claimed, TaskId};

/// Number of a store within a node; 0 is the node's own.
pub type StoreNumber = u16;

/// Numbers that a store can give.
pub const PER_STORE: i64 = 1_000_000_000_000;

/// Largest number of a store: with it all numbers of tasks are below 2^53.
pub const STORE_MAX: StoreNumber = 9_000;

/// The store that a task is in.
pub fn store_of(task: TaskId) -> StoreNumber {
    StoreNumber::try_from(task.div_euclid(PER_STORE)).unwrap_or(StoreNumber::MAX)
}

/// A store, as its node counts the tasks in it. Cheap to clone.
#[derive(Clone)]
pub struct Numbered {
    store: Store,
    base: i64,
}

impl Numbered {
    /// The store with this number.
    pub fn new(store: Store, number: StoreNumber) -> Numbered {
        Numbered {
            store,
            base: i64::from(number) * PER_STORE,
        }
    }

    /// See [`Store::ask`].
    pub fn ask(&self, mut request: Request, done: Done) {
        let base = self.base;
        if base == 0 {
            return self.store.ask(request, done);
        }
        to_store(&mut request, base);
        let renumbered = move |mut answer: Result<Answer, StoreError>| {
            match &mut answer {
                Ok(answer) => to_node(answer, base),
                Err(StoreError::Duplicate { id, .. }) => *id += base,
                Err(_) => {}
            }
            done(answer);
        };
        self.store.ask(request, Box::new(renumbered));
    }

    /// See [`Store::get`].
    pub async fn get(&self, request: Request) -> Result<Answer, StoreError> {
        answered(|done| self.ask(request, done)).await
    }

    /// See [`Store::end`].
    pub fn end(&self) {
        self.store.end();
    }

    /// See [`Store::close`].
    pub async fn close(&self) {
        self.store.close().await;
    }
}

/// What a schedule did last is a task of a queue if it is a number.
fn became(row: &mut ScheduleRow, by: i64) {
    let task = row
        .became
        .as_deref()
        .and_then(|became| became.parse::<TaskId>().ok());
    if let Some(task) = task {
        row.became = Some((task + by).to_string());
    }
}

fn to_store(request: &mut Request, base: i64) {
    match request {
        Request::Settle(settlement, _) => settlement.handle.task -= base,
        Request::Renew(handles, _) => handles.iter_mut().for_each(|(handle, _)| handle.task -= base),
        Request::Cancel(task, _)
        | Request::Again(task, _)
        | Request::Edit { task, .. }
        | Request::Remove(task)
        | Request::Task(task) => *task -= base,
        Request::Tasks(filter) => filter.before = filter.before.map(|task| task - base),
        Request::Tick(tick) => {
            became(&mut tick.row, -base);
            became(&mut tick.duplicate, -base);
        }
        Request::Schedule(_, Some(row)) => became(row, -base),
        Request::Push(..)
        | Request::Claim(_)
        | Request::Upkeep { .. }
        | Request::Orphans { .. }
        | Request::Purge(..)
        | Request::Prune(..)
        | Request::Age(..)
        | Request::Mode(..)
        | Request::Modes
        | Request::Schedule(_, None)
        | Request::Schedules
        | Request::Move(_)
        | Request::Moved(_)
        | Request::Forget(_)
        | Request::Count(..)
        | Request::Minutes(..)
        | Request::Counts(_)
        | Request::Signs(..) => {}
    }
}

fn claimed(rows: &mut [Claimed], base: i64) {
    rows.iter_mut().for_each(|row| row.handle.task += base);
}

fn pushed(all: &mut [Pushed], base: i64) {
    all.iter_mut().for_each(|one| one.id += base);
}

fn to_node(answer: &mut Answer, base: i64) {
    match answer {
        Answer::Pushed(all) | Answer::Taken(Some(all)) => pushed(all, base),
        Answer::Ticked(Some(Some(one))) => one.id += base,
        Answer::Claimed(rows, _) | Answer::Orphans(rows) => claimed(rows, base),
        Answer::Upkept(upkept) => claimed(&mut upkept.expired, base),
        Answer::Renewed(kept) => kept.iter_mut().for_each(|(handle, _)| handle.task += base),
        Answer::Again(Ok((task, _))) => *task += base,
        Answer::Schedules(rows) => rows.values_mut().for_each(|row| became(row, base)),
        Answer::Task(Some(found)) => found.0.id += base,
        Answer::Tasks(rows) => rows.iter_mut().for_each(|row| row.id += base),
        Answer::Taken(None)
        | Answer::Ticked(_)
        | Answer::Again(Err(_))
        | Answer::Task(None)
        | Answer::Settled(_)
        | Answer::Cancelled(_)
        | Answer::Removed(_)
        | Answer::Purged(_)
        | Answer::Minutes(_)
        | Answer::Moved(_)
        | Answer::Noted
        | Answer::Modes(_)
        | Answer::Counts(_)
        | Answer::Signs(_) => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::port::{Claim, NewTask, Tick};
    use crate::rows::Filter;
    use crate::sqlite::Sqlite;
    use gaffer_core::name::JobId;
    use gaffer_core::queue::spec::Throttle;
    use gaffer_core::time::{Duration, Wall};

    const NOW: Wall = Wall(1_000_000);
    const BASE: i64 = 3 * PER_STORE;

    fn queue() -> JobId {
        JobId::parse("q").expect("a name")
    }

    #[test]
    fn the_number_of_a_task_says_its_store() {
        assert_eq!(store_of(1), 0);
        assert_eq!(store_of(PER_STORE - 1), 0);
        assert_eq!(store_of(BASE + 17), 3);
        // Nothing that anybody types is taken for another store's.
        assert_eq!(store_of(-1), StoreNumber::MAX);
        assert_eq!(store_of(i64::MAX), StoreNumber::MAX);
        assert!(i64::from(STORE_MAX) * PER_STORE + PER_STORE < 1 << 53);
    }

    #[tokio::test]
    async fn a_task_has_one_number_in_all_that_is_asked_and_answered() {
        let dir = tempfile::tempdir().expect("temporary directory");
        let file = Sqlite::open(&dir.path().join("queue.db"), Box::new(|| {})).expect("a store");
        let store = Numbered::new(Store::Sqlite(file), 3);
        let push = Request::Push(vec![NewTask::new(queue(), "1"), NewTask::new(queue(), "2")], NOW);
        let Ok(Answer::Pushed(pushed)) = store.get(push).await else {
            panic!("pushed")
        };
        assert_eq!((pushed[0].id, pushed[1].id), (BASE + 1, BASE + 2));
        let claim = Claim {
            queue: queue(),
            count: 1,
            owner: "node:1".into(),
            now: NOW,
            lease: Duration::from_secs(30),
            kinds: None,
            throttle: Throttle::default(),
            forget: false,
        };
        let Ok(Answer::Claimed(rows, _)) = store.get(Request::Claim(Box::new(claim))).await else {
            panic!("claimed")
        };
        let handle = rows[0].handle;
        assert_eq!(handle.task, BASE + 1);
        let renew = Request::Renew(vec![(handle, Duration::from_secs(30))], NOW);
        assert_eq!(store.get(renew).await, Ok(Answer::Renewed(vec![(handle, false)])));
        let orphans = Request::Orphans {
            node: "node:".into(),
            owner: "node:2".into(),
        };
        let Ok(Answer::Orphans(rows)) = store.get(orphans).await else {
            panic!("orphans")
        };
        assert_eq!(rows[0].handle, handle);
        let page = Filter {
            before: Some(BASE + 2),
            limit: 10,
            ..Filter::default()
        };
        let Ok(Answer::Tasks(rows)) = store.get(Request::Tasks(page)).await else {
            panic!("tasks")
        };
        assert_eq!(rows.iter().map(|row| row.id).collect::<Vec<_>>(), [BASE + 1]);
        let Ok(Answer::Task(Some(found))) = store.get(Request::Task(BASE + 2)).await else {
            panic!("a task")
        };
        assert_eq!(found.0.id, BASE + 2);
        assert_eq!(
            store.get(Request::Task(2)).await,
            Ok(Answer::Task(None)),
            "not by its number there"
        );
        store.close().await;
    }

    #[tokio::test]
    async fn what_is_tried_anew_says_where_it_came_from_by_the_number_that_people_know() {
        let dir = tempfile::tempdir().expect("temporary directory");
        let file = Sqlite::open(&dir.path().join("queue.db"), Box::new(|| {})).expect("a store");
        let store = Numbered::new(Store::Sqlite(file), 3);
        let push = Request::Push(vec![NewTask::new(queue(), "1")], NOW);
        store.get(push).await.expect("pushed");
        store
            .get(Request::Cancel(BASE + 1, NOW))
            .await
            .expect("cancelled");
        let edit = Request::Edit {
            task: BASE + 1,
            payload: "2".into(),
            now: NOW,
            shown: BASE + 1,
        };
        let Ok(Answer::Again(Ok((new, _)))) = store.get(edit).await else {
            panic!("a new one")
        };
        assert_eq!(new, BASE + 2);
        let Ok(Answer::Task(Some(found))) = store.get(Request::Task(new)).await else {
            panic!("a task")
        };
        let from = format!("{{\"from\":{}}}", BASE + 1);
        assert_eq!(found.0.meta.as_deref(), Some(from.as_str()));
        store.close().await;
    }

    #[tokio::test]
    async fn what_a_schedule_became_is_a_task_of_its_store() {
        let dir = tempfile::tempdir().expect("temporary directory");
        let file = Sqlite::open(&dir.path().join("queue.db"), Box::new(|| {})).expect("a store");
        let store = Numbered::new(Store::Sqlite(file), 3);
        let tick = |known, seen| Tick {
            schedule: "default.s".into(),
            known,
            row: ScheduleRow {
                seen,
                became: Some("task:unlike-a-number".to_owned()),
                ..ScheduleRow::default()
            },
            duplicate: ScheduleRow::default(),
            push: Some(NewTask::new(queue(), "1")),
            now: NOW,
        };
        let Ok(Answer::Ticked(Some(Some(pushed)))) =
            store.get(Request::Tick(Box::new(tick(Wall(0), Wall(1))))).await
        else {
            panic!("pushed")
        };
        let Ok(Answer::Schedules(mut rows)) = store.get(Request::Schedules).await else {
            panic!("rows")
        };
        let row = rows.remove("default.s").expect("a row");
        assert_eq!(row.became, Some((BASE + 1).to_string()));
        assert_eq!(pushed.id, BASE + 1);
        // Written back as it was read, it is the same.
        store
            .get(Request::Schedule("default.s".into(), Some(row.clone())))
            .await
            .expect("noted");
        let Ok(Answer::Schedules(again)) = store.get(Request::Schedules).await else {
            panic!("rows")
        };
        assert_eq!(again.get("default.s"), Some(&row));
        store.close().await;
    }
}
