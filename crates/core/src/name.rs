//! Names and their one grammar (product.md): `[A-Za-z0-9_][A-Za-z0-9_+-]{0,63}`, not all digits;
//! job names may hold dots inside.

/// A session, template, profile, … name.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Name(Box<str>);

/// A job's name; dots inside are allowed, each part follows the grammar, the last part is not all digits.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct JobName(Box<str>);

/// `session.job`: the first dot separates.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct JobId {
    /// The application it belongs to.
    pub session: Name,
    /// Its name there.
    pub job: JobName,
}

/// What may have at most one live run.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Slot {
    /// The job.
    pub job: JobId,
    /// The place in it.
    pub place: Place,
}

/// A place of a job that holds one run at a time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Place {
    /// Instance `n` from 1. `lane` is 0 or 1: during a surge reload the new run lives in the other lane.
    Instance {
        /// Number, from 1.
        n: u32,
        /// 0 or 1.
        lane: u8,
    },
    /// The n-th one-off of the job.
    OneOff(u64),
}

/// Unique for ever on one node: `epoch` is one synced store write per daemon start, `n` counts in it.
///
/// As text: both numbers in lower-case Crockford base 32, each after its digit count (`1`‑based, one
/// char), so that text order is number order and ids stay short: epoch 1, n 5 is `1115`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RunId {
    /// Start of the daemon that made it.
    pub epoch: u32,
    /// Count within.
    pub n: u32,
}
