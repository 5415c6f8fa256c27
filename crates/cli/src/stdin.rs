//! Standard input without blocking anything else: read by a thread of its own that nobody waits for at the end.

use std::io::Read;
use tokio::sync::mpsc;

/// Bytes of one read.
const CHUNK_BYTES: usize = 16 << 10;

/// What comes on standard input; the channel closes at its end.
pub fn chunks() -> mpsc::Receiver<Vec<u8>> {
    // A small bound: a program that does not read stops us from reading.
    let (tx, rx) = mpsc::channel(4);
    std::thread::spawn(move || {
        let mut buffer = vec![0; CHUNK_BYTES];
        loop {
            match std::io::stdin().lock().read(&mut buffer) {
                Ok(0) => return,
                Ok(read) => {
                    if tx.blocking_send(buffer[..read].to_vec()).is_err() {
                        return;
                    }
                }
                Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
                Err(_) => return,
            }
        }
    });
    rx
}
