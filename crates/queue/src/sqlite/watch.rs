//! Hears from the kernel that the file changed, so that what another program pushed is seen within a millisecond or two.

use super::Message;
use rustix::fs::inotify;
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;
use std::sync::mpsc::Sender;
use std::time::Duration;

/// Our own commits ring, too: not more often than this.
const AT_MOST_EVERY: Duration = Duration::from_millis(1);

/// The thread that listens. Dropping it ends the thread.
pub(super) struct Watch {
    // Its other end is polled by the thread: closed means the end.
    _leash: Option<OwnedFd>,
}

impl Watch {
    /// Without it the bounded poll is all there is; that is no failure.
    pub fn start(path: &Path, writer: Sender<Message>) -> Watch {
        match begin(path, writer) {
            Ok(leash) => Watch { _leash: Some(leash) },
            Err(error) => {
                tracing::debug!(%error, "no notice of changes to the queue store; it is looked at every 250 ms");
                Watch { _leash: None }
            }
        }
    }
}

fn begin(path: &Path, writer: Sender<Message>) -> std::io::Result<OwnedFd> {
    let folder = path.parent().unwrap_or(Path::new("."));
    let name = path.file_name().map(|name| {
        let mut name = name.to_owned();
        name.push("-wal");
        name.into_encoded_bytes()
    });
    let name = name.unwrap_or_default();
    let fd = inotify::init(inotify::CreateFlags::CLOEXEC | inotify::CreateFlags::NONBLOCK)?;
    inotify::add_watch(
        &fd,
        folder,
        inotify::WatchFlags::MODIFY | inotify::WatchFlags::CREATE,
    )?;
    let (leash, end) = rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC)?;
    std::thread::Builder::new()
        .name("queue-watch".to_owned())
        .stack_size(128 << 10)
        .spawn(move || listen(&fd, &leash, &name, &writer))?;
    Ok(end)
}

fn listen(fd: &OwnedFd, leash: &OwnedFd, name: &[u8], writer: &Sender<Message>) {
    use rustix::event::{PollFd, PollFlags, poll};
    let mut buffer = [std::mem::MaybeUninit::uninit(); 4096];
    loop {
        let mut polled = [
            PollFd::from_borrowed_fd(fd.as_fd(), PollFlags::IN),
            PollFd::from_borrowed_fd(leash.as_fd(), PollFlags::IN),
        ];
        match poll(&mut polled, None) {
            Ok(_) => {}
            Err(rustix::io::Errno::INTR) => continue,
            Err(_) => return,
        }
        if !polled[1].revents().is_empty() {
            return;
        }
        let mut ours = false;
        let mut events = inotify::Reader::new(fd, &mut buffer);
        while let Ok(event) = events.next() {
            ours |= event.file_name().is_some_and(|file| file.to_bytes() == name);
        }
        if ours && writer.send(Message::Poke).is_err() {
            return;
        }
        std::thread::sleep(AT_MOST_EVERY);
    }
}
