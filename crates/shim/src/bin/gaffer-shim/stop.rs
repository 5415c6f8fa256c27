//! Stops for tests, in debug builds only: the shim dies or stands still at a step of the spawn table or of an exit.
//!
//! `GAFFER_SHIM_FAIL=STEP` kills it there. `GAFFER_SHIM_HALT=STEP:FILE` stops it (SIGSTOP) there, once: whoever removes
//! FILE stops, so a test arms it when it likes and then kills whom it likes.
//!
//! | step | is behind |
//! |---|---|
//! | 2 | `Intent` |
//! | 3, 4 | clone; half of the child's setup |
//! | 5, 6 | all of the setup; `Born` |
//! | 7, 8 | the end of the death signal; the way back from clone |
//! | 9, 10 | the peek at an exit; its `Exited` |

use std::ffi::CString;
use std::sync::OnceLock;

struct Stop {
    step: u32,
    armed: Option<CString>,
}

static STOP: OnceLock<Stop> = OnceLock::new();

/// Reads the environment; without a call there is no stop.
pub fn read() {
    if !cfg!(debug_assertions) {
        return;
    }
    let halt = std::env::var("GAFFER_SHIM_HALT").ok().and_then(|text| {
        let (step, file) = text.split_once(':')?;
        Some(Stop {
            step: step.parse().ok()?,
            armed: Some(CString::new(file).ok()?),
        })
    });
    let fail = || {
        let step = std::env::var("GAFFER_SHIM_FAIL").ok()?.parse().ok()?;
        Some(Stop { step, armed: None })
    };
    if let Some(stop) = halt.or_else(fail) {
        let _ = STOP.set(stop);
    }
}

/// The version that this shim tells: another one in a debug build with `GAFFER_SHIM_VERSION`.
pub fn version() -> u32 {
    let told = cfg!(debug_assertions).then(|| std::env::var("GAFFER_SHIM_VERSION").ok());
    let told = told.flatten().and_then(|text| text.parse().ok());
    told.unwrap_or(gaffer_shim::message::VERSION)
}

/// The signal that is due at this step. Callable between clone and exec.
pub fn due(step: u32) -> Option<i32> {
    let stop = STOP.get().filter(|stop| stop.step == step)?;
    let Some(armed) = &stop.armed else {
        return Some(libc::SIGKILL);
    };
    // SAFETY: a valid path; the call itself touches no memory of ours.
    let removed = unsafe { libc::syscall(libc::SYS_unlinkat, libc::AT_FDCWD, armed.as_ptr(), 0) };
    (removed == 0).then_some(libc::SIGSTOP)
}

/// Stops or ends this process if that is due. Not for children before their exec.
pub fn at(step: u32) {
    if let Some(signal) = due(step) {
        // SAFETY: a number; both signals are for the whole process whatever thread they are sent to.
        unsafe { libc::raise(signal) };
    }
}
