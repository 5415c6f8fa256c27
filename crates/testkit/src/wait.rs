//! Waiting for a condition: a level, never an edge, and never longer than a deadline.

use std::time::{Duration, Instant};

/// Asks until the answer is yes.
///
/// # Panics
/// When `within` has passed; the message says `what` was waited for.
#[track_caller]
pub fn wait_until(within: Duration, what: &str, mut condition: impl FnMut() -> bool) {
    wait_for(within, what, || condition().then_some(()));
}

/// Asks until there is an answer, and gives it.
///
/// # Panics
/// When `within` has passed; the message says `what` was waited for.
#[track_caller]
pub fn wait_for<T>(within: Duration, what: &str, mut answer: impl FnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + within;
    loop {
        if let Some(found) = answer() {
            return found;
        }
        assert!(Instant::now() < deadline, "waited {within:?} in vain: {what}");
        std::thread::sleep(Duration::from_millis(3));
    }
}
