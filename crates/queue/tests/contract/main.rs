//! What every store promises, said once and asked of each of them.

use gaffer_core::name::JobId;
use gaffer_core::queue::spec::{By, Conflict, Queue, QueueId, Throttle};
use gaffer_core::queue::task::{Claimed, Failure, Settlement, TaskId, TaskState};
use gaffer_core::queue::{outcome, outcome::Outcome};
use gaffer_core::time::{Duration, Wall};
use gaffer_queue::port::{Answer, Cancelled, Claim, Key, Moving, NewTask, Pushed, Request, Tick};
use gaffer_queue::rows::{Filter, MinuteRow, Mode, ScheduleRow, Signs, TaskRow};
use gaffer_queue::sqlite::Sqlite;
use gaffer_queue::{Store, StoreError};
use gaffer_testkit::postgres::Postgres;
use std::sync::Arc;

mod claims;
mod life;

const NOW: Wall = Wall(1_800_000_000_000);

fn queue() -> QueueId {
    JobId::parse("mail").expect("a name")
}

fn task(payload: &str) -> NewTask {
    NewTask {
        full: false,
        ..NewTask::new(queue(), payload)
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
    _dir: Option<tempfile::TempDir>,
}

impl Asked {
    fn sqlite() -> Asked {
        let dir = tempfile::tempdir().expect("a directory");
        let sqlite = Sqlite::open(&dir.path().join("queue.db"), Box::new(|| {})).expect("opened");
        Asked {
            store: Store::Sqlite(sqlite),
            _dir: Some(dir),
        }
    }

    async fn postgres(server: &Postgres, case: &str) -> Asked {
        server.sql_in("postgres", &format!("CREATE DATABASE {case}"));
        let url = server.url_of(case);
        let store = gaffer_queue::postgres::Postgres::open(&url, Box::new(|_| {})).await;
        Asked {
            store: Store::Postgres(store.expect("connected")),
            _dir: None,
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

/// Each case on a file of its own; and all of them on one server of PostgreSQL, each in a database of its own.
macro_rules! contract {
    ($($module:ident: $($case:ident)*;)*) => {
        $($(
            #[tokio::test]
            async fn $case() {
                $module::$case(Asked::sqlite()).await;
            }
        )*)*

        #[tokio::test(flavor = "multi_thread")]
        async fn postgres_keeps_the_contract() {
            let server = Postgres::start();
            $($(
                let store = Asked::postgres(&server, stringify!($case)).await;
                let case = tokio::spawn($module::$case(store)).await;
                assert!(case.is_ok(), "{}: see above", stringify!($case));
            )*)*
        }
    };
}

contract! {
    claims: tasks_are_claimed_in_the_order_of_their_priority_then_of_their_push
        a_fifo_queue_ignores_priorities
        hazard_49_an_outcome_counts_only_with_the_newest_claim_of_a_running_task
        a_failed_task_comes_back_when_its_time_has_come
        a13_01_at_most_once_the_row_is_gone_with_the_claim
        scenario_16_a_key_is_there_once_while_it_waits
        a_running_key_excludes_if_it_says_so
        a_done_key_excludes_until_its_time_is_over
        scenario_17_debounce_moves_the_waiting_one_and_max_delay_bounds_it
        replace_and_keep_earliest_and_error
        scenario_32_a_push_of_many_is_all_or_nothing
        scenario_18_no_two_of_one_key_run_and_other_keys_are_not_held_up
        a_limit_over_all_and_one_for_each_kind
        scenario_20_a_rate_lets_so_many_begin_and_says_when_the_next_may;
    life: a13_27_minutes_add_up_and_old_ones_go
        kinds_can_be_left_for_others
        what_was_not_begun_in_time_is_dead
        leases_are_renewed_by_their_holder_and_collected_from_others
        hazard_50_orphans_are_known_by_their_incarnation
        a_cancel_withdraws_what_waits_and_asks_for_the_end_of_what_runs
        scenario_09_a_dead_task_runs_again_under_its_number
        a_task_that_is_over_keeps_its_payload_and_a_new_one_has_the_other
        rows_go_when_their_time_is_over_and_not_before
        running_tasks_are_neither_removed_nor_purged
        scenario_15_waiting_is_worth_priority
        a_closed_queue_takes_nothing_and_modes_are_remembered
        lists_and_counts_are_what_is_there
        signs_are_what_alerts_are_made_from
        tasks_that_are_too_late_are_in_nobodys_way
        scenario_11_a_tick_is_pushed_once_by_whoever_comes_first
        scenario_13_a_tick_that_meets_its_key_moves_on_and_says_so
        a_tick_whose_push_is_refused_stays_where_it_is
        scenario_31_rows_of_an_outbox_become_tasks_once_and_are_remembered_with_them;
}
