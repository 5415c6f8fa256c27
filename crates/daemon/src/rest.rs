//! Going to rest: after a burst, memory that it took is given back. Nothing happens while nothing happens.

use gaffer::Handle;
use std::time::Duration;

/// Quiet for so long is rest.
const QUIET: Duration = Duration::from_secs(3);
/// Fewer events than this since the last time are not worth it.
const EVENTS_MIN: u64 = 64;

/// Until the daemon ends.
pub(crate) async fn watch(handle: Handle) {
    let events = handle.events();
    let mut given_back = events.newest();
    let mut seen = given_back;
    loop {
        events.wait(seen).await;
        // A burst is waited out.
        loop {
            seen = events.newest();
            tokio::time::sleep(QUIET).await;
            if events.newest() == seen {
                break;
            }
        }
        if seen.seq - given_back.seq >= EVENTS_MIN {
            given_back = seen;
            gaffer::give_back();
        }
    }
}
