//! A task that this node has, from the claim to the store's word that its outcome is written.

use crate::queue::outcome::Outcome;
use crate::queue::task::{Claimed, Settlement};
use crate::time::Mono;

/// See the module.
#[derive(Clone, Debug)]
pub(super) struct Held {
    pub row: Claimed,
    /// Where it runs: counted from 0 in its queue.
    pub seat: u32,
    /// Until then nobody else may have it, if no renewal succeeds.
    pub lease_until: Mono,
    /// Its time is over then.
    pub timeout_at: Option<Mono>,
    pub phase: Phase,
}

/// Where it is.
#[derive(Clone, Debug)]
pub(super) enum Phase {
    /// A worker has it, or is being started.
    Working,
    /// The worker is asked to end.
    Ending { why: Why, kill_at: Option<Mono> },
    /// The main process ended, something of its tree is left.
    Clearing(Outcome),
    /// Over; the store has to write it down.
    Settling {
        settlement: Box<Settlement>,
        /// It has been asked; none: the last answer was that it cannot, and this is when it is asked again.
        again_at: Option<Mono>,
    },
}

/// Why a worker is asked to end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Why {
    Timeout,
    Cancelled,
    Stopping,
    /// The store was not reached for too long, or somebody else has the task: this attempt does not count any more.
    LeaseLost,
}

impl Held {
    /// A process or handler is busy with it.
    pub fn is_working(&self) -> bool {
        !matches!(self.phase, Phase::Settling { .. })
    }

    /// When it has to be looked at.
    pub fn deadline(&self) -> Option<Mono> {
        match &self.phase {
            Phase::Working => self.timeout_at,
            Phase::Ending { kill_at, .. } => *kill_at,
            Phase::Clearing(_) => None,
            Phase::Settling { again_at, .. } => *again_at,
        }
    }
}
