//! Answers to requests that named an `Idempotency-Key`: the same key again gets the same answer for ten minutes.

use crate::refusal::Refusal;
use gaffer_api::error::Code;
use hyper::StatusCode;
use hyper::body::Bytes;
use std::collections::HashMap;
use std::hash::{BuildHasher, RandomState};
use std::sync::{Mutex, OnceLock, PoisonError};
use std::time::{Duration, Instant};

/// How long an answer is remembered.
const REMEMBERED: Duration = Duration::from_secs(600);

/// Most keys at once; each holds one small answer.
const KEYS_MAX: usize = 1024;

/// Longest key.
pub const KEY_BYTES_MAX: usize = 128;

/// An answer that can be given again.
#[derive(Clone, Debug)]
pub struct Remembered {
    /// Status.
    pub status: StatusCode,
    /// JSON.
    pub body: Bytes,
}

/// What a key stands for: one request of one user.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Asked {
    /// Method and path, for people.
    pub line: String,
    /// Options and peer.
    pub rest: String,
    /// Of the body.
    pub body: Digest,
}

/// Length and hash of a body. It tells mistakes apart, not attackers: a peer can only confuse its own requests.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Digest(usize, u64);

impl Digest {
    /// Of these bytes, for this process.
    pub fn of(bytes: &[u8]) -> Digest {
        static SEED: OnceLock<RandomState> = OnceLock::new();
        Digest(bytes.len(), SEED.get_or_init(RandomState::new).hash_one(bytes))
    }
}

struct Entry {
    asked: Asked,
    since: Instant,
    /// None while the first one is under way.
    answer: Option<Remembered>,
}

/// What to do with a request that has a key.
#[derive(Debug)]
pub enum Turn {
    /// Carry it out, then [`Answers::remember`] or [`Answers::forget`].
    First,
    /// Answer this.
    Again(Remembered),
}

/// The memory.
#[derive(Default)]
pub struct Answers {
    entries: Mutex<HashMap<String, Entry>>,
}

impl Answers {
    /// Is this request the first with its key?
    pub fn turn(&self, key: &str, asked: &Asked, now: Instant) -> Result<Turn, Refusal> {
        if key.is_empty() || key.len() > KEY_BYTES_MAX {
            return Err(Refusal::new(
                Code::BadValue,
                format!("an Idempotency-Key has 1 to {KEY_BYTES_MAX} characters"),
            ));
        }
        let mut entries = self.entries.lock().unwrap_or_else(PoisonError::into_inner);
        entries.retain(|_, entry| now.duration_since(entry.since) < REMEMBERED);
        match entries.get(key) {
            Some(entry) if entry.asked != *asked => Err(reused(key, &entry.asked, asked)),
            Some(Entry {
                answer: Some(answer), ..
            }) => Ok(Turn::Again(answer.clone())),
            Some(_) => Err(Refusal::new(
                Code::Busy,
                "the first request with this Idempotency-Key is still under way",
            )),
            None if entries.len() >= KEYS_MAX => Err(Refusal::new(
                Code::Busy,
                format!("{KEYS_MAX} Idempotency-Keys are remembered already"),
            )),
            None => {
                let entry = Entry {
                    asked: asked.clone(),
                    since: now,
                    answer: None,
                };
                entries.insert(key.to_owned(), entry);
                Ok(Turn::First)
            }
        }
    }

    /// The first one was answered.
    pub fn remember(&self, key: &str, answer: Remembered) {
        let mut entries = self.entries.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(entry) = entries.get_mut(key) {
            entry.answer = Some(answer);
        }
    }

    /// The first one failed on our side, or its client went away: it may be tried again.
    pub fn forget(&self, key: &str) {
        self.entries
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .remove(key);
    }
}

fn reused(key: &str, first: &Asked, now: &Asked) -> Refusal {
    let with = match (first.line == now.line, first.rest == now.rest) {
        (false, _) => "",
        (true, true) => " with another body",
        (true, false) => " with other options or by another user",
    };
    let text = format!(
        "the Idempotency-Key `{key}` was used for {}{with}: nothing was done",
        first.line
    );
    Refusal::new(Code::KeyReused, text)
        .hint("each request has a key of its own; the same key only repeats the same request")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn asked(line: &str, body: &str) -> Asked {
        Asked {
            line: line.to_owned(),
            rest: String::new(),
            body: Digest::of(body.as_bytes()),
        }
    }

    fn answer() -> Remembered {
        Remembered {
            status: StatusCode::ACCEPTED,
            body: Bytes::from_static(b"{}"),
        }
    }

    #[test]
    fn a_key_is_one_request_for_ten_minutes() {
        let answers = Answers::default();
        let now = Instant::now();
        assert!(matches!(
            answers.turn("k", &asked("POST /a", "{}"), now),
            Ok(Turn::First)
        ));
        assert!(
            answers.turn("k", &asked("POST /a", "{}"), now).is_err(),
            "the first one is under way"
        );
        answers.remember("k", answer());
        assert!(matches!(
            answers.turn("k", &asked("POST /a", "{}"), now),
            Ok(Turn::Again(_))
        ));
        assert!(
            answers.turn("k", &asked("POST /b", "{}"), now).is_err(),
            "another request"
        );
        assert!(
            answers.turn("k", &asked("POST /a", "{1}"), now).is_err(),
            "another body"
        );
        assert!(matches!(
            answers.turn("k", &asked("POST /b", "{}"), now + REMEMBERED),
            Ok(Turn::First)
        ));
    }

    #[test]
    fn the_memory_is_bounded() {
        let answers = Answers::default();
        let now = Instant::now();
        for n in 0..KEYS_MAX {
            assert!(answers.turn(&n.to_string(), &asked("POST /a", "{}"), now).is_ok());
        }
        assert!(answers.turn("one more", &asked("POST /a", "{}"), now).is_err());
        answers.forget("0");
        assert!(answers.turn("one more", &asked("POST /a", "{}"), now).is_ok());
    }
}
