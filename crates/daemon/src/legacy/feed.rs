//! Output as it comes, read once for all who follow it.
//!
//! The first follower of a stream of a run starts a reader of its files, the last one's leaving ends it. What it reads
//! goes to all followers at once and waits for none: a follower that is too slow finds that pieces are gone, and reads
//! what it has missed from the files by itself, at its own pace. Only what the files do not hold any more is lost, and it
//! is told how much that was. So a thousand followers cost one reader, and a follower that stands still costs nothing.

use crate::http::Shared;
use gaffer::info::Cursor;
use gaffer::logs::{Chunk, LogReader};
use gaffer_core::name::{RunId, Slot};
use std::collections::HashMap;
use std::fmt::Write;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Duration;
use tokio::sync::broadcast;
use tokio::sync::broadcast::error::RecvError;

/// Bytes of a piece.
const PIECE_BYTES_MAX: usize = 16 << 10;

/// Pieces that are kept for followers that are a little behind.
const PIECES_KEPT: usize = 32;

/// With many followers output is gathered for a moment: it costs each of them a wake-up.
const GATHER: Duration = Duration::from_millis(10);

/// So many are many.
const MANY: usize = 8;

/// When files cannot be read, they are looked at again after this time.
const LOOK_AGAIN: Duration = Duration::from_millis(200);

/// What is read for others at present.
#[derive(Default)]
pub struct Feeds(Mutex<HashMap<Key, (Arc<Feed>, Pieces)>>);

type Key = (RunId, String);

type Pieces = broadcast::Sender<Arc<Piece>>;

/// One stream of one run, followed by some.
struct Feed {
    slot: Slot,
    stream: String,
    /// Offset behind the last piece. Locked while a piece is handed out, so that who joins misses none.
    at: Mutex<u64>,
    /// Where the run's bytes end, once it has ended.
    end: OnceLock<u64>,
}

/// Some output.
#[derive(Debug)]
pub struct Piece {
    from: u64,
    to: u64,
    /// What it is.
    pub what: What,
    json: OnceLock<String>,
}

/// Output, or that there was some.
#[derive(Debug, PartialEq, Eq)]
pub enum What {
    /// As the program wrote it.
    Bytes(Vec<u8>),
    /// So many bytes are not kept any more, or never were for lack of space.
    Missed(u64),
}

impl Piece {
    fn new(from: u64, to: u64, what: What) -> Piece {
        Piece {
            from,
            to,
            what,
            json: OnceLock::new(),
        }
    }

    /// Unique within its run's stream.
    pub fn id(&self) -> String {
        let mut id = String::with_capacity(32);
        // Writing to a String cannot fail.
        let _written = write!(id, "{:016x}{:016x}", self.from, self.to);
        id
    }

    /// The bytes as a JSON text, made once for all; bytes that are no text are replaced.
    pub fn json(&self) -> &str {
        self.json.get_or_init(|| match &self.what {
            // A text always has a JSON form.
            What::Bytes(bytes) => serde_json::to_string(&String::from_utf8_lossy(bytes)).unwrap_or_default(),
            What::Missed(bytes) => bytes.to_string(),
        })
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Follows a stream of a run from where it was when it joined.
pub struct Follower {
    app: Shared,
    feed: Arc<Feed>,
    pieces: broadcast::Receiver<Arc<Piece>>,
    at: u64,
    /// The next piece; what lies before it is read from the files first.
    next: Option<Arc<Piece>>,
    /// No more pieces come: what is left is in the files.
    over: bool,
    own: Option<LogReader>,
}

impl Feeds {
    /// Joins: output from now on.
    pub fn follow(
        self: &Arc<Feeds>,
        app: &Shared,
        run: RunId,
        slot: &Slot,
        stream: &str,
    ) -> Result<Follower, gaffer::info::Error> {
        let key = (run, stream.to_owned());
        let mut feeds = lock(&self.0);
        if let Some((feed, pieces)) = feeds.get(&key) {
            return Ok(Follower::join(app, feed.clone(), pieces));
        }
        let cursor = app.handle.events().newest();
        let mut reader = app.handle.log(slot, stream)?;
        let (_, at) = reader.range()?;
        let (pieces, _) = broadcast::channel(PIECES_KEPT);
        let feed = Arc::new(Feed {
            slot: slot.clone(),
            stream: stream.to_owned(),
            at: Mutex::new(at),
            end: OnceLock::new(),
        });
        let follower = Follower::join(app, feed.clone(), &pieces);
        feeds.insert(key.clone(), (feed.clone(), pieces.clone()));
        let source = Source {
            app: app.clone(),
            feeds: self.clone(),
            key,
            feed,
            pieces,
            reader,
            at,
            end: None,
            cursor,
        };
        tokio::spawn(source.serve());
        Ok(follower)
    }
}

/// Reads for all.
struct Source {
    app: Shared,
    feeds: Arc<Feeds>,
    key: Key,
    feed: Arc<Feed>,
    pieces: Pieces,
    reader: LogReader,
    at: u64,
    end: Option<u64>,
    cursor: Cursor,
}

impl Source {
    async fn serve(mut self) {
        self.look().await;
        loop {
            let full = self.hand_out();
            if self.end.is_some_and(|end| self.at >= end) {
                // An end is set once.
                let _set = self.feed.end.set(self.at);
                lock(&self.feeds.0).remove(&self.key);
                return;
            }
            if full {
                tokio::task::yield_now().await;
            } else {
                self.wait().await;
            }
            if self.pieces.receiver_count() == 0 {
                // Whoever joins does so under this lock.
                let mut feeds = lock(&self.feeds.0);
                if self.pieces.receiver_count() == 0 {
                    feeds.remove(&self.key);
                    return;
                }
            }
        }
    }

    /// Waits for output, for the end of the run, or until nobody follows any more.
    async fn wait(&mut self) {
        if self.pieces.receiver_count() > MANY {
            tokio::time::sleep(GATHER).await;
        }
        let log = self.app.handle.events();
        tokio::select! {
            grown = self.reader.grown(self.at) => if grown.is_err() {
                tokio::time::sleep(LOOK_AGAIN).await;
            },
            () = log.wait(self.cursor), if self.end.is_none() => {
                if news_of(&self.app, self.key.0, &mut self.cursor) {
                    self.look().await;
                }
            }
            () = self.pieces.closed() => {}
        }
    }

    /// Has the run ended, and where?
    async fn look(&mut self) {
        match self.app.handle.run(self.key.0).await {
            Ok(info) if info.ended.is_some() => {
                let end = info.logs.get(&self.feed.stream).and_then(|(_, to)| *to);
                self.end = Some(end.unwrap_or(self.at));
            }
            Ok(_) => {}
            // Forgotten: it has long ended.
            Err(_) => self.end = Some(self.at),
        }
    }

    /// Hands out what there is, at most one piece; true: there may be more.
    fn hand_out(&mut self) -> bool {
        let mut gathered = Vec::new();
        let from = self.at;
        self.reader.hold_unfinished(self.end.is_none());
        while gathered.len() < PIECE_BYTES_MAX {
            let room = self.end.map_or(u64::MAX, |end| end.saturating_sub(self.at));
            let room = usize::try_from(room).unwrap_or(usize::MAX);
            let max = room.min(PIECE_BYTES_MAX - gathered.len());
            let chunk = match max {
                0 => None,
                // What cannot be read now is looked at again.
                max => self.reader.read(self.at, max).unwrap_or(None),
            };
            match chunk {
                Some(Chunk::Bytes { data, .. }) => {
                    self.at += data.len() as u64;
                    gathered.extend(data);
                }
                Some(Chunk::Gap { from: lost, to }) => {
                    self.publish(from, std::mem::take(&mut gathered));
                    self.at = to;
                    self.publish_missed(lost, to, to - lost);
                    return true;
                }
                Some(Chunk::Dropped { bytes, .. }) => {
                    self.publish(from, std::mem::take(&mut gathered));
                    self.publish_missed(self.at, self.at, bytes);
                    return true;
                }
                None => {
                    self.publish(from, gathered);
                    return false;
                }
            }
        }
        self.publish(from, gathered);
        true
    }

    fn publish(&self, from: u64, bytes: Vec<u8>) {
        if !bytes.is_empty() {
            let to = from + bytes.len() as u64;
            self.send(Piece::new(from, to, What::Bytes(bytes)));
        }
    }

    fn publish_missed(&self, from: u64, to: u64, bytes: u64) {
        self.send(Piece::new(from, to, What::Missed(bytes)));
    }

    fn send(&self, piece: Piece) {
        let mut at = lock(&self.feed.at);
        *at = piece.to;
        // Nobody follows any more: then nobody misses it.
        let _nobody = self.pieces.send(Arc::new(piece));
    }
}

/// Reads on in the events; is there anything that may be the end of this run?
fn news_of(app: &Shared, run: RunId, cursor: &mut Cursor) -> bool {
    let records = app.handle.events().read(*cursor, 256);
    if let Some(last) = records.last() {
        *cursor = last.cursor;
    }
    records
        .iter()
        .any(|record| record.event.run == Some(run) || record.event.event == "gap")
}

/// Resolves when a run has ended.
pub async fn ended(app: &Shared, run: RunId) {
    let log = app.handle.events();
    let mut cursor = log.newest();
    loop {
        match app.handle.run(run).await {
            Ok(info) if info.ended.is_none() => {}
            _ => return,
        }
        loop {
            log.wait(cursor).await;
            if news_of(app, run, &mut cursor) {
                break;
            }
        }
    }
}

impl Follower {
    fn join(app: &Shared, feed: Arc<Feed>, pieces: &Pieces) -> Follower {
        let at = lock(&feed.at);
        let (pieces, from) = (pieces.subscribe(), *at);
        drop(at);
        Follower {
            app: app.clone(),
            feed,
            pieces,
            at: from,
            next: None,
            over: false,
            own: None,
        }
    }

    /// The next output (cancel-safe); none: the run has ended, and this was all.
    pub async fn next(&mut self) -> Option<Arc<Piece>> {
        loop {
            if let Some(upto) = self.upto()
                && self.at < upto
            {
                if let Some(piece) = self.catch_up(upto).await {
                    return Some(piece);
                }
                continue;
            }
            self.own = None;
            if let Some(piece) = self.next.take() {
                self.at = piece.to;
                return Some(piece);
            }
            if self.over {
                return None;
            }
            match self.pieces.recv().await {
                Ok(piece) => self.next = Some(piece),
                // The next that there is shows what is missing.
                Err(RecvError::Lagged(_)) => {}
                Err(RecvError::Closed) => self.over = true,
            }
        }
    }

    /// Where the files may be read to.
    fn upto(&self) -> Option<u64> {
        match &self.next {
            Some(piece) => Some(piece.from),
            None if self.over => self.feed.end.get().copied(),
            None => None,
        }
    }

    async fn catch_up(&mut self, upto: u64) -> Option<Arc<Piece>> {
        // Others get their turn between pieces.
        tokio::task::yield_now().await;
        let from = self.at;
        let max = usize::try_from(upto - from)
            .unwrap_or(usize::MAX)
            .min(PIECE_BYTES_MAX);
        if self.own.is_none() {
            self.own = self.app.handle.log(&self.feed.slot, &self.feed.stream).ok();
        }
        let reader = self.own.as_mut();
        let chunk = reader.and_then(|reader| reader.read(from, max).ok().flatten());
        let what = match chunk {
            Some(Chunk::Bytes { data, .. }) => {
                self.at = from + data.len() as u64;
                What::Bytes(data)
            }
            Some(Chunk::Gap { to, .. }) => {
                self.at = to.min(upto);
                What::Missed(self.at - from)
            }
            Some(Chunk::Dropped { bytes, .. }) => What::Missed(bytes),
            // They were there when they were announced.
            None => {
                self.at = upto;
                What::Missed(upto - from)
            }
        };
        Some(Arc::new(Piece::new(from, self.at, what)))
    }
}
