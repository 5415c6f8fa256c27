//! Queues with handlers of this process. `cargo xtask bench queue` runs it and says what the numbers are compared with.
//!
//! ```text
//! queue rate COUNT relaxed|full [URL]  tasks per second, from the push to the end; in a file, or a database
//! queue wake COUNT                  median milliseconds from a push to the beginning of its handler
//! queue backlog COUNT               tasks per second with so many more that wait, and the mebibytes that this program has then
//! queue rest                        context switches of this program in ten seconds of nothing
//! ```

use gaffer::queue::{NewPush, QueueTask};
use gaffer::{Engine, Handle, Settings};
use gaffer_core::name::JobId;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::error::Error;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};
use tokio::sync::{Notify, mpsc};

type Result<T> = std::result::Result<T, Box<dyn Error + Send + Sync>>;

/// Tasks of one push.
const BATCH: usize = 100;
/// Pushes at once.
const PUSHERS: usize = 8;

struct Bench {
    _engine: Engine,
    handle: Handle,
    queue: JobId,
    _dir: tempfile::TempDir,
}

impl Bench {
    async fn new(keys: &str) -> Result<Bench> {
        Bench::on(None, keys).await
    }

    async fn on(url: Option<&str>, keys: &str) -> Result<Bench> {
        let dir = tempfile::tempdir()?;
        let mut settings = Settings::new(dir.path().join("state"));
        settings.queue_store = url.map(str::to_owned);
        let engine = Engine::open(settings).await?;
        let handle = engine.handle();
        let root = PathBuf::from("/srv/gaffer.toml");
        let bundle = gaffer_config::Bundle {
            files: BTreeMap::from([(root.clone(), format!("[queue.q]\n{keys}"))]),
            root,
            ..gaffer_config::Bundle::default()
        };
        let source = gaffer::info::ApplySource::Files(Box::new(bundle));
        let options = gaffer::info::ApplyOptions::default();
        handle.apply(source, options, "bench".into()).await?;
        Ok(Bench {
            _engine: engine,
            handle,
            queue: JobId::parse("q")?,
            _dir: dir,
        })
    }

    async fn push(&self, count: usize) -> Result<()> {
        let mut pushers = Vec::new();
        for pusher in 0..PUSHERS {
            let (handle, queue) = (self.handle.clone(), self.queue.clone());
            let own = count / PUSHERS + usize::from(pusher < count % PUSHERS);
            pushers.push(tokio::spawn(async move {
                let mut left = own;
                while left > 0 {
                    let size = left.min(BATCH);
                    handle.queue_push(&queue, &pushes(size), "bench".into()).await?;
                    left -= size;
                }
                Result::Ok(())
            }));
        }
        for pusher in pushers {
            pusher.await??;
        }
        Ok(())
    }

    /// Counts what is done; rings when it is all.
    fn count(&self, all: usize) -> Result<(Arc<AtomicUsize>, Arc<Notify>)> {
        let (done, bell) = (Arc::new(AtomicUsize::new(0)), Arc::new(Notify::new()));
        let (count, ring) = (done.clone(), bell.clone());
        let handler = move |_task: QueueTask| {
            let (count, ring) = (count.clone(), ring.clone());
            async move {
                if count.fetch_add(1, Ordering::SeqCst) + 1 == all {
                    ring.notify_one();
                }
                Ok(Value::Null)
            }
        };
        self.handle.queue_handler(&self.queue, handler)?;
        Ok((done, bell))
    }

    /// Until nothing runs: the outcomes are in the store, too.
    async fn idle(&self) -> Result<()> {
        loop {
            let info = self.handle.queue(&self.queue).await?;
            if info.counts.running == 0 && info.busy == 0 {
                return Ok(());
            }
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    }
}

fn pushes(count: usize) -> Vec<NewPush> {
    let push = NewPush {
        payload: json!({ "n": 1 }),
        ..NewPush::default()
    };
    vec![push; count]
}

async fn rate(count: usize, durability: &str, url: Option<&str>) -> Result<f64> {
    let keys = format!("workers = 128\ndurability = \"{durability}\"\n");
    let bench = Bench::on(url, &keys).await?;
    let (_, bell) = bench.count(count)?;
    let begun = Instant::now();
    bench.push(count).await?;
    bell.notified().await;
    bench.idle().await?;
    Ok(count as f64 / begun.elapsed().as_secs_f64())
}

async fn wake(count: usize) -> Result<f64> {
    let bench = Bench::new("durability = \"relaxed\"\n").await?;
    let (tx, mut begun) = mpsc::unbounded_channel();
    let handler = move |_task: QueueTask| {
        let _gone = tx.send(Instant::now());
        async { Ok(Value::Null) }
    };
    bench.handle.queue_handler(&bench.queue, handler)?;
    let mut times = Vec::new();
    for _ in 0..count {
        let asked = Instant::now();
        bench
            .handle
            .queue_push(&bench.queue, &pushes(1), "bench".into())
            .await?;
        let begun = begun.recv().await.ok_or("no handler")?;
        times.push(begun.saturating_duration_since(asked).as_secs_f64() * 1e3);
        bench.idle().await?;
    }
    times.sort_by(f64::total_cmp);
    Ok(times[times.len() / 2])
}

/// Tasks per second while `backlog` others wait behind them.
async fn backlog(backlog: usize) -> Result<(f64, f64)> {
    let measured = 20_000;
    let bench = Bench::new("workers = 128\ndurability = \"relaxed\"\n").await?;
    bench.push(backlog + measured).await?;
    let (_, bell) = bench.count(measured)?;
    let begun = Instant::now();
    bell.notified().await;
    let rate = measured as f64 / begun.elapsed().as_secs_f64();
    Ok((rate, resident()?))
}

/// What this program has in memory, in mebibytes.
fn resident() -> Result<f64> {
    let status = std::fs::read_to_string("/proc/self/status")?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let kib: f64 = line
        .and_then(|line| line.trim().split(' ').next())
        .unwrap_or("0")
        .parse()?;
    Ok(kib / 1024.0)
}

async fn rest() -> Result<f64> {
    let bench = Bench::new("").await?;
    let (_, bell) = bench.count(1)?;
    bench.push(1).await?;
    bell.notified().await;
    // Its log is emptied, and what was begun has ended.
    tokio::time::sleep(Duration::from_secs(3)).await;
    let before = switches()?;
    tokio::time::sleep(Duration::from_secs(10)).await;
    Ok(switches()? - before)
}

/// Voluntary switches of all threads.
fn switches() -> Result<f64> {
    let mut all = 0.0;
    for task in std::fs::read_dir("/proc/self/task")? {
        let status = std::fs::read_to_string(task?.path().join("status"))?;
        let line = status
            .lines()
            .find_map(|line| line.strip_prefix("voluntary_ctxt_switches:"));
        all += line.unwrap_or("0").trim().parse::<f64>()?;
    }
    Ok(all)
}

fn main() -> Result<()> {
    let words: Vec<String> = std::env::args()
        .skip(1)
        .filter(|word| !word.starts_with("--"))
        .collect();
    let number = |at: usize| words.get(at).and_then(|word| word.parse::<usize>().ok());
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    runtime.block_on(async {
        match words.first().map(String::as_str) {
            Some("rate") => {
                let durability = words.get(2).map_or("full", String::as_str);
                let url = words.get(3).map(String::as_str);
                println!("{:.0}", rate(number(1).unwrap_or(50_000), durability, url).await?);
            }
            Some("wake") => println!("{:.3}", wake(number(1).unwrap_or(500)).await?),
            Some("backlog") => {
                let (rate, memory) = backlog(number(1).unwrap_or(1_000)).await?;
                println!("{rate:.0} {memory:.1}");
            }
            Some("rest") => println!("{:.0}", rest().await?),
            _ => return Err("which? rate, wake, backlog or rest".into()),
        }
        Ok(())
    })
}
