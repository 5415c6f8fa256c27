//! What only a shared database promises: nodes share the work, a connection that breaks loses nothing and hides nothing.

use gaffer_core::name::JobId;
use gaffer_core::queue::outcome::{Outcome, settle};
use gaffer_core::queue::spec::{By, Queue, Throttle};
use gaffer_core::queue::task::TaskId;
use gaffer_core::time::{Duration, Wall};
use gaffer_queue::port::{Answer, Cancelled, Claim, NewTask, Request};
use gaffer_queue::postgres::{Postgres as Database, Rung};
use gaffer_queue::{Store, StoreError};
use gaffer_testkit::postgres::Postgres;
use gaffer_testkit::process::Handle;
use rustix::process::Signal;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::Notify;
use tokio::sync::mpsc::{UnboundedReceiver, unbounded_channel};

const NOW: Wall = Wall(1_800_000_000_000);
const LONG: std::time::Duration = std::time::Duration::from_secs(60);
/// Every so often a store looks by itself, and rings.
const POLL: std::time::Duration = std::time::Duration::from_secs(5);

async fn open(url: &str) -> (Store, UnboundedReceiver<Rung>) {
    let (ring, rung) = unbounded_channel();
    let bell = move |what| {
        // The test may have ended.
        let _gone = ring.send(what);
    };
    let store = Database::open(url, Box::new(bell)).await.expect("connected");
    (Store::Postgres(store), rung)
}

fn push(payloads: impl Iterator<Item = String>, full: bool) -> Request {
    let task = |payload: String| NewTask {
        full,
        ..NewTask::new(JobId::parse("mail").expect("a name"), payload)
    };
    Request::Push(payloads.map(task).collect(), NOW)
}

fn claim(owner: &str, count: u32) -> Request {
    Request::Claim(Box::new(Claim {
        queue: JobId::parse("mail").expect("a name"),
        count,
        owner: owner.into(),
        now: NOW,
        lease: Duration::from_secs(30),
        kinds: None,
        throttle: Throttle::default(),
        forget: false,
    }))
}

/// TLS is verified: authority and name of the host.
#[tokio::test]
async fn hazard_b7_a_database_far_away_is_spoken_to_through_tls_that_is_verified() {
    use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
    let authority = |name: &str| {
        let mut params = CertificateParams::new(Vec::new()).expect("no names");
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.distinguished_name.push(rcgen::DnType::CommonName, name);
        CertifiedIssuer::self_signed(params, KeyPair::generate().expect("a key")).expect("an authority")
    };
    let (ours, theirs) = (authority("ours"), authority("theirs"));
    let key = KeyPair::generate().expect("a key");
    let params = CertificateParams::new(vec!["localhost".to_owned()]).expect("a name");
    let made = params.signed_by(&key, &ours).expect("signed");
    let mut server = Postgres::start();
    let port = server.speak_tls(&made.pem(), &key.serialize_pem());
    let dir = tempfile::tempdir().expect("a directory");
    let file = |name: &str, text: String| {
        let path = dir.path().join(name);
        std::fs::write(&path, text).expect("written");
        path.display().to_string()
    };
    let (ca, other) = (file("ours.pem", ours.pem()), file("theirs.pem", theirs.pem()));
    let url = |host: &str, words: &str| format!("postgres://gaffer@{host}:{port}/queue{words}");
    let good = url("localhost", &format!("?sslmode=verify-full&sslrootcert={ca}"));
    let (store, _rung) = open(&good).await;
    store
        .get(push(["1".to_owned()].into_iter(), true))
        .await
        .expect("pushed");
    assert_eq!(claimed(&store, "a:1", 1).await.expect("claimed").len(), 1);
    let secret = "SELECT bool_and(ssl), count(*) > 0 FROM pg_stat_ssl JOIN pg_stat_activity USING (pid) WHERE application_name = 'gaffer'";
    assert_eq!(server.sql(secret), "t|t");
    store.close().await;

    let refused = async |url: String| {
        let opened = Database::open(&url, Box::new(|_| {})).await;
        opened.err().expect("refused").to_string()
    };
    let strange = refused(url("localhost", &format!("?sslmode=require&sslrootcert={other}"))).await;
    assert!(strange.contains("certificate"), "{strange}");
    let name = refused(url("127.0.0.1", &format!("?sslmode=require&sslrootcert={ca}"))).await;
    assert!(name.contains("certificate"), "{name}");
    // Without a word about it nothing is hidden.
    let (store, _rung) = open(&url("localhost", "")).await;
    assert_eq!(server.sql(secret), "f|t");
    store.close().await;

    let mut plain = Postgres::start();
    let none = refused(plain.url() + &format!("?sslmode=require&sslrootcert={ca}")).await;
    assert!(none.contains("TLS") || none.contains("tls"), "{none}");
    plain.crash();
}

async fn claimed(store: &Store, owner: &str, count: u32) -> Result<Vec<TaskId>, StoreError> {
    match store.get(claim(owner, count)).await? {
        Answer::Claimed(rows, _) => Ok(rows.iter().map(|row| row.handle.task).collect()),
        other => panic!("{other:?}"),
    }
}

/// The bell rings so; other rings are passed over.
async fn rings(rung: &mut UnboundedReceiver<Rung>, what: Rung) {
    let heard = async { while rung.recv().await.expect("a bell") != what {} };
    tokio::time::timeout(LONG, heard).await.expect("it rings");
}

/// Asks until the connection is there again.
async fn connected(store: &Store) {
    let again = async {
        let mut look = tokio::time::interval(std::time::Duration::from_millis(5));
        while store.get(Request::Modes).await.is_err() {
            look.tick().await;
        }
    };
    tokio::time::timeout(LONG, again).await.expect("connected again");
}

/// Scenario 5: two nodes on PostgreSQL: each task runs exactly once, and both get some.
#[tokio::test(flavor = "multi_thread")]
async fn scenario_05_nodes_share_ten_thousand_tasks_and_each_runs_once() {
    let server = Postgres::start();
    let (first, _) = open(&server.url()).await;
    let (second, _) = open(&server.url()).await;
    let tasks = (0..10_000).map(|n| n.to_string());
    first.get(push(tasks, false)).await.expect("pushed");
    let work = |store: Store, owner: &'static str| async move {
        let mut mine = Vec::new();
        loop {
            let more = claimed(&store, owner, 50).await.expect("claimed");
            if more.is_empty() {
                return mine;
            }
            mine.extend(more);
        }
    };
    let (one, two) = tokio::join!(
        tokio::spawn(work(first, "a:1")),
        tokio::spawn(work(second, "b:1"))
    );
    let (one, two) = (one.expect("no panic"), two.expect("no panic"));
    assert!(
        !one.is_empty() && !two.is_empty(),
        "{} and {}",
        one.len(),
        two.len()
    );
    let mut all = [one, two].concat();
    all.sort_unstable();
    assert!(all.windows(2).all(|pair| pair[0] != pair[1]), "each once");
    assert_eq!(all.len(), 10_000);
}

#[tokio::test(flavor = "multi_thread")]
async fn limits_hold_over_all_nodes() {
    let server = Postgres::start();
    let (first, _) = open(&server.url()).await;
    let (second, _) = open(&server.url()).await;
    let Request::Push(mut tasks, _) = push((0..100).map(|n| n.to_string()), false) else {
        panic!("a push");
    };
    // Nodes that want other rows do not meet at a row: only the limit is between them.
    for (n, task) in tasks.iter_mut().enumerate() {
        task.kind = Some(if n % 2 == 0 { "a".into() } else { "b".into() });
    }
    first.get(Request::Push(tasks, NOW)).await.expect("pushed");
    let limited = |kind: &str, most: u32| {
        let Request::Claim(mut claim) = claim(kind, 1) else {
            panic!("a claim");
        };
        claim.kinds = Some(vec![Some(kind.into())]);
        claim.throttle.total = Some(most);
        Request::Claim(claim)
    };
    let count = |answer: Result<Answer, StoreError>| match answer {
        Ok(Answer::Claimed(rows, again_at)) => (rows.len(), again_at.is_some()),
        other => panic!("{other:?}"),
    };
    for most in 1..=40 {
        let (one, two) = tokio::join!(first.get(limited("a", most)), second.get(limited("b", most)));
        let (one, two) = (count(one), count(two));
        assert_eq!(one.0 + two.0, 1, "{one:?} {two:?}");
        assert!(one.1 || two.1, "whoever got none is told when to look again");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn nodes_hear_of_each_others_pushes_and_operators() {
    let server = Postgres::start();
    let (first, mut rung) = open(&server.url()).await;
    let (second, _other) = open(&server.url()).await;
    rings(&mut rung, Rung::Tasks).await; // The look at the start.
    let began = Instant::now();
    for n in 0..5 {
        let pushed = second.get(push([n.to_string()].into_iter(), false)).await;
        pushed.expect("pushed");
        rings(&mut rung, Rung::Tasks).await;
    }
    assert!(began.elapsed() < POLL, "told, and not found by looks");
    let id = claimed(&first, "a:1", 1).await.expect("claimed")[0];
    let asked = second.get(Request::Cancel(id, NOW)).await;
    assert!(
        matches!(asked, Ok(Answer::Cancelled(Cancelled::Asked(_)))),
        "{asked:?}"
    );
    rings(&mut rung, Rung::Told).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn nodes_hear_of_what_another_one_gives_back() {
    let server = Postgres::start();
    let (first, mut rung) = open(&server.url()).await;
    let (second, _other) = open(&server.url()).await;
    rings(&mut rung, Rung::Tasks).await; // The look at the start.
    let pushed = second.get(push(std::iter::once("1".to_owned()), false)).await;
    pushed.expect("pushed");
    rings(&mut rung, Rung::Tasks).await;
    let began = Instant::now();
    for _ in 0..5 {
        let Ok(Answer::Claimed(rows, _)) = second.get(claim("b:1", 1)).await else {
            panic!("claimed")
        };
        let back = settle(&Queue::of(By::Others), &rows[0], Outcome::NotHanded, NOW, 0.5);
        let back = second.get(Request::Settle(Box::new(back), NOW)).await;
        assert_eq!(back, Ok(Answer::Settled(true)));
        rings(&mut rung, Rung::Tasks).await;
    }
    assert!(began.elapsed() < POLL, "told, and not found by looks");
    assert_eq!(claimed(&first, "a:1", 1).await.expect("claimed").len(), 1);
}

/// A13.15: a task that is queued in a transaction that rolls back does not run. A13.16: a task that is queued in a transaction is queued
/// after its commit. Scenario 31: a push in a transaction that rolls back is nothing, a committed one runs once.
#[tokio::test(flavor = "multi_thread")]
async fn a13_15_a13_16_scenario_31_a_task_is_pushed_with_the_transaction_of_its_program() {
    let server = Postgres::start();
    let (store, mut rung) = open(&server.url()).await;
    rings(&mut rung, Rung::Tasks).await;
    server.sql("BEGIN; SELECT gaffer.enqueue('mail', 'send', '{\"to\": \"ana\"}'); ROLLBACK");
    assert_eq!(
        claimed(&store, "a:1", 9).await.expect("claimed"),
        [] as [TaskId; 0]
    );
    let id = server.sql(
        "BEGIN; SELECT gaffer.enqueue('mail', 'send', '{\"to\": \"ana\"}', '{\"priority\": -3, \"unique_key\": \"k\"}'); COMMIT",
    );
    rings(&mut rung, Rung::Tasks).await;
    let began = Instant::now();
    for _ in 0..3 {
        server.sql("SELECT gaffer.enqueue('mail', 'send', '{}')");
        rings(&mut rung, Rung::Tasks).await;
    }
    assert!(began.elapsed() < POLL, "told, and not found by looks");
    let again = server.sql("SELECT gaffer.enqueue('mail', 'send', '{}', '{\"unique_key\": \"k\"}')");
    assert_eq!(again, id, "the one that waits has the key");
    let Ok(Answer::Task(Some(task))) = store.get(Request::Task(id.parse().expect("a number"))).await else {
        panic!("a task");
    };
    let row = &task.0;
    assert_eq!(
        (row.queue.as_str(), row.kind.as_deref(), row.priority),
        ("default.mail", Some("send"), -3)
    );
    let wrong = server.try_sql(
        "queue",
        "SELECT gaffer.enqueue('mail', 'send', '{}', '{\"prio\": 1}')",
    );
    assert!(wrong.expect_err("refused").contains("unknown option: prio"));
    assert_eq!(claimed(&store, "a:1", 9).await.expect("claimed").len(), 4);
}

/// Scenario 29: rows of plain SQL, of which nobody told, start within the poll: 250 ms, or 5 s on PostgreSQL.
#[tokio::test(flavor = "multi_thread")]
async fn scenario_29_a_row_that_nobody_told_of_is_found_by_the_poll() {
    let server = Postgres::start();
    let (store, mut rung) = open(&server.url()).await;
    rings(&mut rung, Rung::Tasks).await;
    let began = Instant::now();
    server.sql("INSERT INTO gaffer.task (queue) VALUES ('default.mail')");
    rings(&mut rung, Rung::Tasks).await;
    assert!(began.elapsed() < POLL * 2, "within the poll");
    assert_eq!(claimed(&store, "a:1", 9).await.expect("claimed").len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_acknowledged_survives_the_server_and_what_is_refused_is_not_there() {
    let mut server = Postgres::start();
    let (store, _rung) = open(&server.url()).await;
    let stop = Arc::new(AtomicBool::new(false));
    let pusher = |name: &'static str| {
        let (store, stop) = (store.clone(), stop.clone());
        tokio::spawn(async move {
            let mut known: BTreeMap<String, bool> = BTreeMap::new();
            for n in 0.. {
                if stop.load(Ordering::SeqCst) {
                    break;
                }
                let payload = format!("\"{name}{n}\"");
                let pushed = store.get(push([payload.clone()].into_iter(), true)).await;
                known.insert(payload, pushed.is_ok());
                if pushed.is_err() {
                    connected(&store).await;
                }
            }
            known
        })
    };
    let pushers = [pusher("a"), pusher("b"), pusher("c")];
    for round in 0..6 {
        if round % 3 == 2 {
            server.crash();
            assert!(store.get(Request::Modes).await.is_err(), "refused at once");
            server.start_again();
        } else {
            server.sql(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'gaffer'",
            );
        }
        connected(&store).await;
        store
            .get(push(["\"between\"".to_owned()].into_iter(), true))
            .await
            .expect("pushed");
    }
    stop.store(true, Ordering::SeqCst);
    let mut known = BTreeMap::new();
    for pusher in pushers {
        known.extend(pusher.await.expect("no panic"));
    }
    let there = server.sql("SELECT payload, COUNT(*) FROM gaffer.task GROUP BY payload");
    let there: BTreeMap<&str, &str> = there.lines().filter_map(|line| line.split_once('|')).collect();
    for (payload, pushed) in &known {
        let expected = pushed.then_some("1");
        assert_eq!(there.get(payload.as_str()).copied(), expected, "{payload}");
    }
}

/// Stands between a node and the server. The answer to the armed COMMIT is swallowed, and the connection cut.
struct Relay {
    dir: PathBuf,
    traps: Traps,
}

#[derive(Clone, Default)]
struct Traps {
    armed: Arc<AtomicBool>,
    /// The COMMIT itself does not arrive either.
    before: Arc<AtomicBool>,
    /// The COMMIT does not arrive before this is let go, and nothing is cut.
    held: Arc<AtomicBool>,
    let_go: Arc<Notify>,
}

impl Relay {
    fn start(server: &Path, dir: &Path) -> Relay {
        let listener = UnixListener::bind(dir.join(".s.PGSQL.5432")).expect("bound");
        let relay = Relay {
            dir: dir.to_owned(),
            traps: Traps::default(),
        };
        let (server, traps) = (server.join(".s.PGSQL.5432"), relay.traps.clone());
        tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                let Ok(upstream) = UnixStream::connect(&server).await else {
                    continue;
                };
                tokio::spawn(carry(client, upstream, traps.clone()));
            }
        });
        relay
    }

    fn url(&self) -> String {
        format!(
            "postgres://gaffer@{}/queue",
            self.dir.to_string_lossy().replace('/', "%2F")
        )
    }
}

async fn carry(client: UnixStream, server: UnixStream, traps: Traps) {
    let (mut from_client, mut to_client) = client.into_split();
    let (mut from_server, mut to_server) = server.into_split();
    let up = async {
        let mut buffer = vec![0; 65_536];
        while let Ok(count @ 1..) = from_client.read(&mut buffer).await {
            let mut cut = buffer[..count].windows(6).any(|word| word == b"COMMIT")
                && traps.armed.swap(false, Ordering::SeqCst);
            if cut && traps.held.load(Ordering::SeqCst) {
                traps.let_go.notified().await;
                cut = false;
            }
            if cut && traps.before.load(Ordering::SeqCst) {
                return;
            }
            if to_server.write_all(&buffer[..count]).await.is_err() || cut {
                return;
            }
        }
    };
    let down = async {
        // Cut or not: whatever comes first ends both.
        let _ended = tokio::io::copy(&mut from_server, &mut to_client).await;
    };
    tokio::select! {
        () = up => {}
        () = down => {}
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_commit_whose_answer_was_lost_is_found_out() {
    let server = Postgres::start();
    let dir = tempfile::tempdir().expect("a directory");
    let relay = Relay::start(server.dir(), dir.path());
    let (store, _rung) = open(&relay.url()).await;
    store
        .get(push((0..100).map(|n| n.to_string()), true))
        .await
        .expect("pushed");
    let mut mine: Vec<TaskId> = Vec::new();
    for round in 0..20 {
        relay.traps.before.store(round % 2 == 1, Ordering::SeqCst);
        relay.traps.armed.store(true, Ordering::SeqCst);
        if let Ok(rows) = claimed(&store, "a:1", 1).await {
            mine.extend(rows);
        }
        assert!(!relay.traps.armed.load(Ordering::SeqCst), "it was cut");
        connected(&store).await;
    }
    let running = server.sql("SELECT id FROM gaffer.task WHERE state = 'running' ORDER BY id");
    let running: Vec<TaskId> = running.lines().map(|id| id.parse().expect("a number")).collect();
    assert_eq!(
        running, mine,
        "no claim is ours without our knowing, and none is told that is not"
    );
    assert_eq!(mine.len(), 10, "of 20 COMMITs half never arrived");
}

/// Whoever asked was told that it is not ours: then the server must not do it afterwards.
#[tokio::test(flavor = "multi_thread")]
async fn a_commit_that_arrives_after_its_connection_was_given_up_is_none() {
    let server = Postgres::start();
    let dir = tempfile::tempdir().expect("a directory");
    let relay = Relay::start(server.dir(), dir.path());
    let (store, _rung) = open(&relay.url()).await;
    let pushed = store.get(push(["1".to_owned()].into_iter(), true)).await;
    pushed.expect("pushed");
    relay.traps.held.store(true, Ordering::SeqCst);
    relay.traps.armed.store(true, Ordering::SeqCst);
    let refused = tokio::time::timeout(LONG, claimed(&store, "a:1", 1)).await;
    let refused = refused.expect("an answer").expect_err("nobody answers");
    assert!(refused.to_string().contains("before it was written"), "{refused}");
    connected(&store).await;
    relay.traps.let_go.notify_waiters();
    let connections = "SELECT count(*) FROM pg_stat_activity WHERE application_name = 'gaffer'";
    let alone = async {
        let mut look = tokio::time::interval(std::time::Duration::from_millis(20));
        while server.sql(connections) != "1" {
            look.tick().await;
        }
    };
    let gone = tokio::time::timeout(LONG, alone).await;
    gone.expect("the old connection has ended");
    let running = server.sql("SELECT id FROM gaffer.task WHERE state = 'running'");
    assert_eq!(running, "", "nobody knows of it");
    assert_eq!(claimed(&store, "a:1", 1).await.expect("claimed").len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_says_nothing_is_given_up_and_what_it_did_is_found_out() {
    let server = Postgres::start();
    let (store, _rung) = open(&server.url()).await;
    store
        .get(push(["1".to_owned()].into_iter(), true))
        .await
        .expect("pushed");
    let writer = server.sql("SELECT pid FROM pg_stat_activity WHERE application_name = 'gaffer'");
    let writer = Handle::open(writer.parse().expect("one writer")).expect("it lives");
    assert!(writer.signal(Signal::STOP));
    let refused = tokio::time::timeout(LONG, store.get(claim("a:1", 1))).await;
    let refused = refused.expect("an answer").expect_err("nobody answers");
    assert!(refused.to_string().contains("does not answer"), "{refused}");
    connected(&store).await;
    let rows = claimed(&store, "a:1", 1).await.expect("claimed");
    assert_eq!(rows.len(), 1);
    writer.signal(Signal::CONT);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_wrong_with_a_database_is_said() {
    let server = Postgres::start();
    let refused = |url: String| async move {
        let opened = Database::open(&url, Box::new(|_| {})).await;
        opened.err().expect("refused").to_string()
    };
    let error = refused("postgres://gaffer@%2Fnowhere/queue".to_owned()).await;
    assert!(error.contains("No such file"), "{error}");
    let error = refused(server.url_of("nothing")).await;
    assert!(error.contains("database \"nothing\" does not exist"), "{error}");
    let error = refused(format!("{}?sslmode=require", server.url())).await;
    assert!(error.contains("does not support TLS"), "{error}");
    let error = refused("postgres://gaffer@h:x/queue".to_owned()).await;
    assert!(error.contains("its URL"), "{error}");
    let (store, _rung) = open(&server.url()).await;
    store.close().await;
    server.sql("INSERT INTO gaffer.version VALUES (99)");
    let error = refused(server.url()).await;
    assert!(error.contains("newer version (schema 99"), "{error}");
    assert!(store.get(Request::Modes).await.is_err(), "it is closed");
}
