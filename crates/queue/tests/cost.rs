//! What a claim costs, asked of the store itself: every statement of every connection is counted in steps of SQLite's machine. Alone in its
//! program, for it counts all of them.

use gaffer_core::name::JobId;
use gaffer_core::queue::spec::{QueueId, Throttle};
use gaffer_core::time::{Duration, Wall};
use gaffer_queue::Store;
use gaffer_queue::port::{Answer, Claim, NewTask, Request};
use gaffer_queue::sqlite::Sqlite;
use rusqlite::ffi;
use std::ffi::{CStr, c_char, c_int, c_uint, c_void};
use std::path::Path;
use std::sync::Mutex;

const NOW: Wall = Wall(1_800_000_000_000);
const TOMORROW: Wall = Wall(NOW.0 + 86_400_000);

/// A statement, its steps, and how many of them passed through a whole table or sorted.
type Ran = (String, c_int, c_int);

static RAN: Mutex<Vec<Ran>> = Mutex::new(Vec::new());

unsafe extern "C" fn ended(_: c_uint, _: *mut c_void, statement: *mut c_void, _: *mut c_void) -> c_int {
    // SAFETY: SQLite gives a statement that it has just run.
    let ran = unsafe {
        let statement = statement.cast::<ffi::sqlite3_stmt>();
        let count = |what| ffi::sqlite3_stmt_status(statement, what, 1);
        let sql = CStr::from_ptr(ffi::sqlite3_sql(statement));
        let passed = count(ffi::SQLITE_STMTSTATUS_FULLSCAN_STEP) + count(ffi::SQLITE_STMTSTATUS_SORT);
        let steps = count(ffi::SQLITE_STMTSTATUS_VM_STEP);
        (sql.to_string_lossy().into_owned(), steps, passed)
    };
    RAN.lock().expect("no panic").push(ran);
    0
}

unsafe extern "C" fn opened(
    connection: *mut ffi::sqlite3,
    _: *mut *mut c_char,
    _: *const ffi::sqlite3_api_routines,
) -> c_int {
    // SAFETY: SQLite gives a connection that was just opened.
    unsafe {
        ffi::sqlite3_trace_v2(
            connection,
            ffi::SQLITE_TRACE_PROFILE as c_uint,
            Some(ended),
            std::ptr::null_mut(),
        )
    }
}

/// From now on every connection of this program is counted.
fn count_all() {
    // SAFETY: the function lives as long as the program.
    let done = unsafe { ffi::sqlite3_auto_extension(Some(opened)) };
    assert_eq!(done, ffi::SQLITE_OK);
}

fn queue() -> QueueId {
    JobId::parse("mail").expect("a name")
}

fn open(path: &Path) -> Store {
    Store::Sqlite(Sqlite::open(path, Box::new(|| {})).expect("opened"))
}

/// So many tasks for tomorrow, and some that can run.
async fn filled(path: &Path, for_tomorrow: i64) -> Store {
    open(path).close().await;
    let other = rusqlite::Connection::open(path).expect("opened");
    let rows = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < ?2)
        INSERT INTO task (queue, payload, state, run_at, created_at) SELECT 'default.mail', '1', 'scheduled', ?1 + i, ?1 FROM n";
    other.execute(rows, [TOMORROW.0, for_tomorrow]).expect("inserted");
    drop(other);
    let store = open(path);
    let tasks = (0..16).map(|n| NewTask {
        kind: (n % 2 == 0).then(|| "even".into()),
        limit_key: Some("key".into()),
        ..NewTask::new(queue(), "1")
    });
    let pushed = store.get(Request::Push(tasks.collect(), NOW)).await;
    pushed.expect("pushed");
    store
}

/// The claim of a queue in its four forms, with the look for what is due before it: what was got, and what it took.
async fn worked(store: &Store) -> (Vec<usize>, Vec<Ran>) {
    RAN.lock().expect("no panic").clear();
    let owner: std::sync::Arc<str> = "a:1".into();
    let upkeep = Request::Upkeep {
        owner: owner.clone(),
        now: NOW,
    };
    let Ok(Answer::Upkept(upkept)) = store.get(upkeep).await else {
        panic!("upkept");
    };
    assert_eq!(upkept.moved, [] as [QueueId; 0], "nothing of tomorrow's");
    assert_eq!(upkept.next_due, Some(Wall(TOMORROW.0 + 1)));
    let limited = Throttle {
        total: Some(50),
        per_kind: Some(50),
        per_key: Some(50),
        rate: Some((50, Duration::from_secs(1))),
        ..Throttle::default()
    };
    let only = Some(vec![Some("even".into())]);
    let forms = [
        (Throttle::default(), None, false),
        (Throttle::default(), None, true),
        (limited, None, false),
        (Throttle::default(), only, false),
    ];
    let mut got = Vec::new();
    for (throttle, kinds, forget) in forms {
        let claim = Claim {
            queue: queue(),
            count: 4,
            owner: owner.clone(),
            now: NOW,
            lease: Duration::from_secs(30),
            kinds,
            throttle,
            forget,
        };
        let Ok(Answer::Claimed(rows, _)) = store.get(Request::Claim(Box::new(claim))).await else {
            panic!("claimed");
        };
        got.push(rows.len());
    }
    let ran = std::mem::take(&mut *RAN.lock().expect("no panic"));
    // The thread of the store looks now and then whether others wrote.
    let own = |(sql, _, _): &Ran| !sql.starts_with("PRAGMA");
    (got, ran.into_iter().filter(own).collect())
}

/// Scenario 35: with 1 000 000 tasks for tomorrow the claim of those that can run costs what it cost before.
#[tokio::test]
async fn scenario_35_a_million_tasks_for_tomorrow_do_not_make_a_claim_dearer() {
    count_all();
    let dir = tempfile::tempdir().expect("a directory");
    let few = filled(&dir.path().join("few.db"), 1).await;
    let (got, alone) = worked(&few).await;
    assert_eq!(got, [4, 4, 4, 2], "in each form");
    let claims = |(sql, steps, _): &Ran| sql.contains("state = 'queued' ORDER BY rank") && *steps > 0;
    assert_eq!(alone.iter().filter(|ran| claims(ran)).count(), 4, "{alone:?}");
    let many = filled(&dir.path().join("many.db"), 1_000_000).await;
    let (same, beside) = worked(&many).await;
    assert_eq!(same, got);
    assert_eq!(
        alone, beside,
        "statements, steps, and whole tables passed through"
    );
    let passed: Vec<&Ran> = beside.iter().filter(|(_, _, passed)| *passed > 0).collect();
    assert_eq!(passed, [] as [&Ran; 0]);
    few.close().await;
    many.close().await;
}
