//! What only the file of a node promises: one process leads it, others may write, nothing is lost when it is closed anyhow.

use gaffer_core::name::JobId;
use gaffer_core::queue::spec::Throttle;
use gaffer_core::time::{Duration, Wall};
use gaffer_queue::port::{Answer, Claim, NewTask, Request};
use gaffer_queue::sqlite::Sqlite;
use gaffer_queue::{Store, StoreError};
use std::path::Path;
use std::sync::mpsc::channel;

const NOW: Wall = Wall(1_800_000_000_000);

fn open(path: &Path) -> Result<Store, StoreError> {
    Sqlite::open(path, Box::new(|| {})).map(Store::Sqlite)
}

fn push(payload: &str) -> Request {
    let queue = JobId::parse("mail").expect("a name");
    Request::Push(vec![NewTask::new(queue, payload)], NOW)
}

fn claim() -> Request {
    Request::Claim(Box::new(Claim {
        queue: JobId::parse("mail").expect("a name"),
        count: 10,
        owner: "a:1".into(),
        now: NOW,
        lease: Duration::from_secs(30),
        kinds: None,
        throttle: Throttle::default(),
        forget: false,
    }))
}

/// Scenario 4: two daemons on one file: the second refuses to start and names the first's pid.
#[tokio::test]
async fn scenario_04_a_second_process_is_told_who_leads_the_file() {
    let dir = tempfile::tempdir().expect("a directory");
    let path = dir.path().join("queue.db");
    let first = open(&path).expect("opened");
    let second = open(&path).err().expect("refused").to_string();
    assert!(
        second.contains(&format!("pid {}", std::process::id())),
        "{second}"
    );
    first.close().await;
    open(&path).expect("free again");
}

#[test]
fn a_store_of_this_process_that_is_ending_is_waited_for() {
    let dir = tempfile::tempdir().expect("a directory");
    let path = dir.path().join("queue.db");
    let first = open(&path).expect("opened");
    let (begun, begins) = channel();
    let second = std::thread::spawn({
        let path = path.clone();
        move || {
            begun.send(()).expect("waited for");
            open(&path).map(drop)
        }
    });
    begins.recv().expect("begun");
    first.end();
    second.join().expect("no panic").expect("opened");
}

/// Scenario 29: rows of plain SQL, of which nobody told, start within the poll: 250 ms, or 5 s on PostgreSQL.
#[tokio::test]
async fn scenario_29_what_another_program_inserts_is_heard_of_within_the_poll() {
    let dir = tempfile::tempdir().expect("a directory");
    let path = dir.path().join("queue.db");
    let (rung, bell) = channel();
    let ring = move || {
        // Nobody listens any more.
        let _gone = rung.send(());
    };
    let sqlite = Sqlite::open(&path, Box::new(ring)).expect("opened");
    let store = Store::Sqlite(sqlite);
    store.get(Request::Modes).await.expect("it runs");
    while bell.try_recv().is_ok() {}
    let other = rusqlite::Connection::open(&path).expect("another program");
    other
        .execute(
            "INSERT INTO task (queue, kind, payload) VALUES ('default.mail', 'hello', '{\"to\": \"ana\"}')",
            [],
        )
        .expect("inserted");
    bell.recv_timeout(std::time::Duration::from_secs(5))
        .expect("rung");
    let Answer::Claimed(rows, _) = store.get(claim()).await.expect("claimed") else {
        panic!("claimed");
    };
    assert_eq!(
        (rows[0].kind.as_deref(), &*rows[0].payload),
        (Some("hello"), "{\"to\": \"ana\"}")
    );
    // Our own changes are no news.
    store.get(push("1")).await.expect("pushed");
    store.get(Request::Modes).await.expect("it was looked at");
    assert!(bell.try_recv().is_err());
}

fn names(dir: &Path) -> Vec<std::ffi::OsString> {
    let entries = std::fs::read_dir(dir).expect("a directory");
    let mut names: Vec<_> = entries
        .map(|entry| entry.expect("an entry").file_name())
        .collect();
    names.sort();
    names
}

/// A13.7: 10 000 tasks queued in a tight loop never leave more than one wake-up of their program. Ours: no file at all, and they ring no more
/// often than once in a millisecond; the last ring comes when all of them are there.
#[tokio::test]
async fn a13_07_ten_thousand_pushes_in_a_loop_fold_into_a_few_rings() {
    const LAST: &str = "SELECT COALESCE(MAX(id), 0) FROM task";
    let dir = tempfile::tempdir().expect("a directory");
    let path = dir.path().join("queue.db");
    open(&path).expect("opened").close().await;
    let (rung, bell) = channel();
    let look = rusqlite::Connection::open(&path).expect("whoever is rung for");
    let ring = move || {
        let last: i64 = look.query_row(LAST, [], |row| row.get(0)).expect("a number");
        // Nobody listens any more.
        let _gone = rung.send(last);
    };
    let store = Store::Sqlite(Sqlite::open(&path, Box::new(ring)).expect("opened"));
    store.get(Request::Modes).await.expect("it runs");
    let other = rusqlite::Connection::open(&path).expect("another program");
    let fast = other.pragma_update(None, "synchronous", "OFF");
    fast.expect("a tight loop");
    let before = names(dir.path());
    let began = std::time::Instant::now();
    for _ in 0..10_000 {
        let insert = other.prepare_cached("INSERT INTO task (queue, payload) VALUES ('default.mail', '1')");
        insert
            .and_then(|mut insert| insert.execute([]))
            .expect("inserted");
    }
    assert_eq!(names(dir.path()), before, "nothing lies about");
    let mut rings = 0_u128;
    let mut last = 0;
    while last < 10_000 {
        let rung = bell.recv_timeout(std::time::Duration::from_secs(5));
        last = rung.unwrap_or_else(|_| panic!("no ring after {last}"));
        rings += 1;
    }
    // Those of the start are among them.
    let most = began.elapsed().as_millis() + 10;
    assert!(rings <= most, "{rings} rings in {most} ms");
}

#[tokio::test]
async fn a_damaged_file_is_refused_and_left_alone() {
    let dir = tempfile::tempdir().expect("a directory");
    let path = dir.path().join("queue.db");
    std::fs::write(
        &path,
        "this is no database, and long enough to be looked at".repeat(100),
    )
    .expect("written");
    let before = std::fs::read(&path).expect("read");
    let error = open(&path).err().expect("refused").to_string();
    assert!(error.contains("restore a copy"), "{error}");
    assert_eq!(std::fs::read(&path).expect("read"), before);
}

/// B4: an integrity quick check if the last stop was not clean.
#[tokio::test]
async fn a_file_that_was_not_closed_is_checked_before_anything_is_claimed() {
    let dir = tempfile::tempdir().expect("a directory");
    let path = dir.path().join("queue.db");
    let store = open(&path).expect("opened");
    for _ in 0..500 {
        store.get(push(&"9".repeat(500))).await.expect("pushed");
    }
    store.close().await;
    damage_a_page_of_tasks(&path);
    // Closed in order it is trusted: a look at every page would make each start of a large one slow.
    open(&path).expect("opened").close().await;
    let log = dir.path().join("queue.db-wal");
    let whole = |path: &Path| std::fs::read(path).unwrap_or_default();
    assert_eq!(whole(&log), b"");

    // As a kill leaves it.
    let writer = rusqlite::Connection::open(&path).expect("opened");
    writer
        .execute(
            "INSERT INTO task (queue, payload) VALUES ('default.mail', '2')",
            [],
        )
        .expect("inserted");
    let killed = tempfile::tempdir().expect("a directory");
    let copy = killed.path().join("queue.db");
    let copy_log = killed.path().join("queue.db-wal");
    std::fs::write(&copy, whole(&path)).expect("copied");
    std::fs::write(&copy_log, whole(&log)).expect("copied");
    let before = (whole(&copy), whole(&copy_log));
    assert!(!before.1.is_empty());
    let error = open(&copy).err().expect("refused").to_string();
    assert!(
        error.contains("page") && error.contains("restore a copy"),
        "{error}"
    );
    assert_eq!((whole(&copy), whole(&copy_log)), before, "left as it is");
}

/// Overwrites the header of a leaf in the middle that is full of tasks.
fn damage_a_page_of_tasks(path: &Path) {
    const PAGE: usize = 4096;
    const LEAF: u8 = 0x0D;
    let mut bytes = std::fs::read(path).expect("read");
    let payload = [b'9'; 100];
    let is_of_tasks = |page: &&mut [u8]| {
        page.first() == Some(&LEAF) && page.windows(payload.len()).any(|part| part == payload)
    };
    let mut pages: Vec<&mut [u8]> = bytes.chunks_mut(PAGE).filter(is_of_tasks).collect();
    let middle = pages.len() / 2;
    pages.get_mut(middle).expect("a page")[..8].fill(0xFF);
    std::fs::write(path, bytes).expect("written");
}

#[tokio::test]
async fn a_file_of_a_newer_version_is_refused() {
    let dir = tempfile::tempdir().expect("a directory");
    let path = dir.path().join("queue.db");
    open(&path).expect("opened").close().await;
    let connection = rusqlite::Connection::open(&path).expect("opened");
    connection.pragma_update(None, "user_version", 99).expect("set");
    drop(connection);
    assert!(matches!(open(&path), Err(StoreError::Newer(_))));
}

#[tokio::test]
async fn hazard_55_a_slow_reader_and_another_writer_hold_nobody_up() {
    let dir = tempfile::tempdir().expect("a directory");
    let path = dir.path().join("queue.db");
    let store = open(&path).expect("opened");
    let reader = rusqlite::Connection::open(&path).expect("a reader");
    reader
        .execute_batch("BEGIN; SELECT COUNT(*) FROM task;")
        .expect("a long look");
    let writer = rusqlite::Connection::open(&path).expect("a writer");
    writer
        .busy_timeout(std::time::Duration::from_secs(5))
        .expect("patient");
    for n in 0..20 {
        store.get(push("1")).await.expect("pushed");
        writer
            .execute(
                "INSERT INTO task (queue, payload) VALUES ('default.mail', '2')",
                [],
            )
            .unwrap_or_else(|error| panic!("insert {n}: {error}"));
    }
    let Answer::Claimed(rows, _) = store.get(claim()).await.expect("claimed") else {
        panic!("claimed");
    };
    assert_eq!(rows.len(), 10);
    reader.execute_batch("COMMIT").expect("over");
}

#[tokio::test]
async fn the_file_and_its_lock_are_private() {
    use std::os::unix::fs::PermissionsExt;
    let dir = tempfile::tempdir().expect("a directory");
    let path = dir.path().join("queue.db");
    let _store = open(&path).expect("opened");
    for name in ["queue.db", "queue.db-wal", "queue.db-owner"] {
        let mode = std::fs::metadata(dir.path().join(name))
            .expect(name)
            .permissions()
            .mode();
        assert_eq!(mode & 0o077, 0, "{name} is {mode:o}");
    }
}
