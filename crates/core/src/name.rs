//! Names and their one grammar (product.md): `[A-Za-z0-9_][A-Za-z0-9_+-]{0,63}`, not all digits;
//! job names may hold dots inside.
//!
//! | text | means |
//! |---|---|
//! | `shop.web` | job `web` of session `shop`; the first dot separates |
//! | `shop.web.2` | slot of instance 2; `shop.web.2~1` is its second lane |
//! | `shop.web/7` | slot of the 7th one-off |
//! | `@1115` or `1115` | run: epoch 1, number 5 |

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

/// Longest part of a name, in bytes.
pub const PART_MAX: usize = 64;
/// Longest job name with all its dots, in bytes: it is one directory's name.
pub const JOB_NAME_MAX: usize = 192;
/// The session of a job that names none.
pub const DEFAULT_SESSION: &str = "default";

/// A session, template, profile, … name.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Name(Arc<str>);

/// A job's name; dots inside are allowed, each part follows the grammar, the last part is not all digits.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct JobName(Arc<str>);

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

/// A text that is not a name, with the rule it breaks.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{text}` is not a {what}: {rule}")]
pub struct NameError {
    /// What was given.
    pub text: String,
    /// `name`, `job name`, `slot`, `run id`.
    pub what: &'static str,
    /// The rule it breaks.
    pub rule: Rule,
}

/// A rule of the grammar.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Rule {
    /// Nothing there.
    #[error("a name has at least one character")]
    Empty,
    /// More than [`PART_MAX`] or [`JOB_NAME_MAX`] bytes.
    #[error("a name has at most 64 characters (192 with dots)")]
    TooLong,
    /// A character outside the grammar.
    #[error("`{0}` is not allowed; use letters, digits, `_`, and after the first character `+` and `-`")]
    Character(char),
    /// Only digits: it would be taken for an instance or a process number.
    #[error("it must not be all digits")]
    AllDigits,
    /// A session's or template's name with a dot.
    #[error("dots are allowed in job names only")]
    Dot,
    /// `a..b`, `.a`, `a.`.
    #[error("there must be something on both sides of a dot")]
    EmptyPart,
    /// A slot without a usable number.
    #[error("it ends with the number of an instance (`.1`, `.1~1`) or of a one-off (`/1`)")]
    Number,
    /// A run id of another shape.
    #[error("run ids are two numbers in base 32, each after its digit count")]
    RunId,
}

fn check_part(part: &str) -> Result<(), Rule> {
    let Some(first) = part.chars().next() else {
        return Err(Rule::Empty);
    };
    let plain = |c: char| c.is_ascii_alphanumeric() || c == '_';
    if !plain(first) {
        return Err(Rule::Character(first));
    }
    if let Some(bad) = part.chars().find(|&c| !plain(c) && c != '+' && c != '-') {
        return Err(Rule::Character(bad));
    }
    if part.len() > PART_MAX {
        return Err(Rule::TooLong);
    }
    Ok(())
}

fn all_digits(text: &str) -> bool {
    text.bytes().all(|b| b.is_ascii_digit())
}

impl Name {
    /// Checks the grammar.
    pub fn parse(text: &str) -> Result<Name, NameError> {
        let checked = if text.contains('.') {
            Err(Rule::Dot)
        } else {
            check_part(text)
        };
        let checked = checked.and(if all_digits(text) {
            Err(Rule::AllDigits)
        } else {
            Ok(())
        });
        match checked {
            Ok(()) => Ok(Name(text.into())),
            Err(rule) => Err(NameError {
                text: text.into(),
                what: "name",
                rule,
            }),
        }
    }

    /// `default`.
    pub fn default_session() -> Name {
        Name(DEFAULT_SESSION.into())
    }

    /// The text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl JobName {
    /// Checks the grammar.
    pub fn parse(text: &str) -> Result<JobName, NameError> {
        match JobName::check(text) {
            Ok(()) => Ok(JobName(text.into())),
            Err(rule) => Err(NameError {
                text: text.into(),
                what: "job name",
                rule,
            }),
        }
    }

    fn check(text: &str) -> Result<(), Rule> {
        if text.is_empty() {
            return Err(Rule::Empty);
        }
        if text.len() > JOB_NAME_MAX {
            return Err(Rule::TooLong);
        }
        for part in text.split('.') {
            if part.is_empty() {
                return Err(Rule::EmptyPart);
            }
            check_part(part)?;
        }
        // `web.2` is instance 2 of `web`; only the last part can be taken for that.
        match text.rsplit('.').next() {
            Some(last) if all_digits(last) => Err(Rule::AllDigits),
            _ => Ok(()),
        }
    }

    /// The text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl JobId {
    /// Puts both together.
    pub fn new(session: Name, job: JobName) -> JobId {
        JobId { session, job }
    }

    /// `a.b.c` is session `a`, job `b.c`; without a dot the session is `default`.
    pub fn parse(text: &str) -> Result<JobId, NameError> {
        JobId::parse_in(text, &Name::default_session())
    }

    /// Like [`JobId::parse`], with another session for names without a dot.
    pub fn parse_in(text: &str, session: &Name) -> Result<JobId, NameError> {
        match text.split_once('.') {
            Some((session, job)) => Ok(JobId {
                session: Name::parse(session)?,
                job: JobName::parse(job)?,
            }),
            None => Ok(JobId {
                session: session.clone(),
                job: JobName::parse(text)?,
            }),
        }
    }
}

impl Slot {
    /// Lane 0 of instance `n`.
    pub fn instance(job: JobId, n: u32) -> Slot {
        Slot {
            job,
            place: Place::Instance { n, lane: 0 },
        }
    }

    /// Reads what [`fmt::Display`] wrote.
    pub fn parse(text: &str) -> Result<Slot, NameError> {
        let wrong = || NameError {
            text: text.into(),
            what: "slot",
            rule: Rule::Number,
        };
        if let Some((job, number)) = text.split_once('/') {
            let n = number_of::<u64>(number).ok_or_else(wrong)?;
            return Ok(Slot {
                job: JobId::parse(job)?,
                place: Place::OneOff(n),
            });
        }
        let (job, number) = text.rsplit_once('.').ok_or_else(wrong)?;
        let (number, lane) = match number.split_once('~') {
            Some((number, "1")) => (number, 1),
            Some(_) => return Err(wrong()),
            None => (number, 0),
        };
        let n = number_of::<u32>(number).ok_or_else(wrong)?;
        Ok(Slot {
            job: JobId::parse(job)?,
            place: Place::Instance { n, lane },
        })
    }
}

/// A number from 1, written in the only way.
fn number_of<N: FromStr + PartialEq + From<u8>>(text: &str) -> Option<N> {
    if text.starts_with('0') || !all_digits(text) {
        None
    } else {
        text.parse().ok()
    }
}

impl Place {
    /// Instance number, if it is one.
    pub fn number(self) -> Option<u32> {
        match self {
            Place::Instance { n, .. } => Some(n),
            Place::OneOff(_) => None,
        }
    }
}

const CROCKFORD: &[u8; 32] = b"0123456789abcdefghjkmnpqrstvwxyz";

impl RunId {
    /// Reads the text form, with or without `@`, in either case; `o` is 0, `i` and `l` are 1.
    pub fn parse(text: &str) -> Result<RunId, NameError> {
        let wrong = || NameError {
            text: text.into(),
            what: "run id",
            rule: Rule::RunId,
        };
        let digits = text.strip_prefix('@').unwrap_or(text).as_bytes();
        let (epoch, rest) = base32_read(digits).ok_or_else(wrong)?;
        let (n, rest) = base32_read(rest).ok_or_else(wrong)?;
        if rest.is_empty() {
            Ok(RunId { epoch, n })
        } else {
            Err(wrong())
        }
    }
}

fn base32_read(text: &[u8]) -> Option<(u32, &[u8])> {
    let (&count, rest) = text.split_first()?;
    let count = usize::from(base32_digit(count)?);
    if count == 0 || count > 7 || rest.len() < count {
        return None;
    }
    let (digits, rest) = rest.split_at(count);
    let mut value = 0u64;
    for &digit in digits {
        value = value * 32 + u64::from(base32_digit(digit)?);
    }
    // One number has one text: a leading zero would give it a second.
    if count > 1 && base32_digit(digits[0]) == Some(0) {
        return None;
    }
    Some((u32::try_from(value).ok()?, rest))
}

fn base32_digit(digit: u8) -> Option<u8> {
    let digit = match digit.to_ascii_lowercase() {
        b'o' => b'0',
        b'i' | b'l' => b'1',
        other => other,
    };
    CROCKFORD.iter().position(|&c| c == digit).map(|at| at as u8)
}

fn base32_write(f: &mut fmt::Formatter<'_>, value: u32) -> fmt::Result {
    let count = (32 - value.leading_zeros()).div_ceil(5).max(1);
    write!(f, "{count}")?;
    for at in (0..count).rev() {
        let digit = CROCKFORD[(value >> (5 * at) & 31) as usize];
        write!(f, "{}", char::from(digit))?;
    }
    Ok(())
}

impl fmt::Display for RunId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        base32_write(f, self.epoch)?;
        base32_write(f, self.n)
    }
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0)
    }
}

impl fmt::Display for JobName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0)
    }
}

impl fmt::Display for JobId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.session, self.job)
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Place::Instance { n, lane: 0 } => write!(f, ".{n}"),
            Place::Instance { n, lane } => write!(f, ".{n}~{lane}"),
            Place::OneOff(n) => write!(f, "/{n}"),
        }
    }
}

impl fmt::Display for Slot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}{}", self.job, self.place)
    }
}

impl FromStr for Name {
    type Err = NameError;
    fn from_str(text: &str) -> Result<Name, NameError> {
        Name::parse(text)
    }
}

impl FromStr for JobName {
    type Err = NameError;
    fn from_str(text: &str) -> Result<JobName, NameError> {
        JobName::parse(text)
    }
}

impl FromStr for JobId {
    type Err = NameError;
    fn from_str(text: &str) -> Result<JobId, NameError> {
        JobId::parse(text)
    }
}

impl FromStr for Slot {
    type Err = NameError;
    fn from_str(text: &str) -> Result<Slot, NameError> {
        Slot::parse(text)
    }
}

impl FromStr for RunId {
    type Err = NameError;
    fn from_str(text: &str) -> Result<RunId, NameError> {
        RunId::parse(text)
    }
}
