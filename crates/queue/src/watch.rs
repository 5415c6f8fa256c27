//! Hears from the kernel that a file of SQLite changed, so that what another program wrote is seen within a millisecond or two.

use rustix::fs::inotify;
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;
use std::time::Duration;

/// Our own commits ring, too: not more often than this.
const AT_MOST_EVERY: Duration = Duration::from_millis(1);

/// The thread that listens. Dropping it ends the thread.
pub(crate) struct Watch {
    // Its other end is polled by the thread: closed means the end.
    _leash: Option<OwnedFd>,
}

impl Watch {
    /// `ring` is called when the file, or its log, may have changed, and says whether anybody still listens. Without notices the
    /// bounded poll is all there is; that is no failure.
    pub fn start(path: &Path, ring: impl Fn() -> bool + Send + 'static) -> Watch {
        match begin(path, ring) {
            Ok(leash) => Watch { _leash: Some(leash) },
            Err(error) => {
                tracing::debug!(%error, file = %path.display(), "no notice of changes; it is looked at every 250 ms");
                Watch { _leash: None }
            }
        }
    }
}

fn begin(path: &Path, ring: impl Fn() -> bool + Send + 'static) -> std::io::Result<OwnedFd> {
    let folder = path.parent().unwrap_or(Path::new("."));
    let file = path.file_name().unwrap_or_default().as_encoded_bytes().to_vec();
    let log = [&file[..], b"-wal"].concat();
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
        .spawn(move || listen(&fd, &leash, &[file, log], ring))?;
    Ok(end)
}

fn listen(fd: &OwnedFd, leash: &OwnedFd, names: &[Vec<u8>], ring: impl Fn() -> bool) {
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
            let file = event.file_name().map(std::ffi::CStr::to_bytes);
            ours |= file.is_some_and(|file| names.iter().any(|name| name == file));
        }
        if ours && !ring() {
            return;
        }
        std::thread::sleep(AT_MOST_EVERY);
    }
}
