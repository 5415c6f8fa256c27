//! Asks the programs of a task to end by HTTP, before they are signalled: thermos.md 18.3.

use crate::handle::Handle;
use crate::owner::lock;
use gaffer_config::Lifecycle;
use http_body_util::Empty;
use hyper::body::Bytes;
use hyper_util::rt::TokioIo;
use std::time::Duration;
use tokio::net::TcpStream;
use tokio::time::{Instant, sleep, timeout};

/// Who does not answer by then is not asked any more.
const ANSWER_TIME_MAX: Duration = Duration::from_secs(1);
/// Asked so often whether it has ended.
const LOOK_EVERY: Duration = Duration::from_millis(100);

impl Handle {
    /// Makes the calls of a task that has any, and waits for its end as they say. An answer of any kind is an answer; where none comes
    /// the next call is made at once. True: it has ended.
    pub(super) async fn ask_to_end(&self, id: &str) -> bool {
        let Some((lifecycle, port)) = self.lifecycle_of(id) else {
            return false;
        };
        for call in &lifecycle.calls {
            let asked = timeout(ANSWER_TIME_MAX, post(port, &call.endpoint)).await;
            if !asked.is_ok_and(|answered| answered) {
                continue;
            }
            let until = Instant::now() + call.wait;
            while self.is_active(id) && Instant::now() < until {
                sleep(LOOK_EVERY).await;
            }
            if !self.is_active(id) {
                return true;
            }
        }
        false
    }

    fn lifecycle_of(&self, id: &str) -> Option<(Lifecycle, u16)> {
        let state = lock(&self.state);
        let active = state.tasks.active.get(id)?;
        let lifecycle = active.definition.lifecycle.clone()?;
        let mut ports = active.header.ports.iter();
        let (_, port) = ports.find(|(name, _)| **name == *lifecycle.port)?;
        Some((lifecycle, *port))
    }

    fn is_active(&self, id: &str) -> bool {
        lock(&self.state).tasks.active.contains_key(id)
    }
}

/// Did anybody answer?
async fn post(port: u16, path: &str) -> bool {
    let Ok(stream) = TcpStream::connect(("localhost", port)).await else {
        return false;
    };
    let handshake = hyper::client::conn::http1::handshake(TokioIo::new(stream));
    let Ok((mut sender, connection)) = handshake.await else {
        return false;
    };
    let driver = tokio::spawn(connection);
    let request = hyper::Request::post(path)
        .header("host", format!("localhost:{port}"))
        .header("user-agent", "gaffer")
        .body(Empty::<Bytes>::new());
    let answered = match request {
        Ok(request) => sender.send_request(request).await.is_ok(),
        Err(_) => false,
    };
    driver.abort();
    answered
}
