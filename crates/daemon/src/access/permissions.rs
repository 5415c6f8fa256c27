//! What a credential allows: flags, and lists of jobs for each strength.
//!
//! The strengths contain each other: admin, manage (definitions too), operate (what is there is started,
//! stopped, scaled, signalled), write (input), read. The lists of the original's keys are `manage`, `write` and `read`;
//! `operate` is what a native token of that scope has: whoever can define a job runs any program, so that the two differ.

use gaffer_core::name::{JobId, JobName, Name};
use serde::de::{IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use std::fmt;

/// Entries of one list at most.
const TARGETS_MAX: usize = 1000;

/// Length of an entry at most: a session, a dot and a job, of which each may be a pattern.
const TARGET_BYTES_MAX: usize = 300;

/// Whom a permission is about.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Target {
    /// `*`: all jobs, and what is about no single one.
    All,
    /// `shop`: a session and its jobs.
    Session(Name),
    /// `shop.web`: a job.
    Job(JobId),
    /// `shop.web-*`, `*.web`: the jobs whose whole name fits.
    Pattern(String),
}

/// A text that names no session, job or pattern.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is not a session, `session.job` or a pattern like `shop.*`")]
pub struct NoTarget(pub String);

impl Target {
    /// Reads `*`, `session`, `session.job`, or a pattern with `*`.
    pub fn parse(text: &str) -> Result<Target, NoTarget> {
        let wrong = || NoTarget(text.chars().take(80).collect());
        if text == "*" || text == "*.*" {
            return Ok(Target::All);
        }
        if text.len() > TARGET_BYTES_MAX {
            return Err(wrong());
        }
        if text.contains('*') {
            let plain = |c: char| c.is_ascii_alphanumeric() || "_+-.*".contains(c);
            let fits = text.chars().all(plain) && text.contains('.') && !text.contains("**");
            return if fits {
                Ok(Target::Pattern(text.to_owned()))
            } else {
                Err(wrong())
            };
        }
        match text.split_once('.') {
            None => Name::parse(text).map(Target::Session).map_err(|_| wrong()),
            Some((session, job)) => match (Name::parse(session), JobName::parse(job)) {
                (Ok(session), Ok(job)) => Ok(Target::Job(JobId { session, job })),
                _ => Err(wrong()),
            },
        }
    }

    fn has_job(&self, job: &JobId) -> bool {
        match self {
            Target::All => true,
            Target::Session(session) => *session == job.session,
            Target::Job(own) => own == job,
            Target::Pattern(pattern) => fits(pattern.as_bytes(), job.to_string().as_bytes()),
        }
    }

    /// All jobs of a session, also those that will be.
    fn has_session(&self, session: &str) -> bool {
        match self {
            Target::All => true,
            Target::Session(own) => own.as_str() == session,
            Target::Job(_) => false,
            Target::Pattern(pattern) => pattern
                .strip_suffix(".*")
                .is_some_and(|own| fits(own.as_bytes(), session.as_bytes())),
        }
    }

    /// Is whatever the other allows allowed by this one too? May say no where it would be yes.
    fn covers(&self, other: &Target) -> bool {
        match other {
            Target::All => *self == Target::All,
            Target::Session(session) => self.has_session(session.as_str()),
            Target::Job(job) => self.has_job(job),
            Target::Pattern(pattern) => {
                let of_session = pattern.split_once('.').map(|(session, _)| session);
                self == other
                    || of_session.is_some_and(|s| !s.contains('*') && self.has_session(s))
                    || *self == Target::All
            }
        }
    }
}

/// Does a text fit a pattern in which `*` is any text? Linear but for one step back per star.
fn fits(pattern: &[u8], text: &[u8]) -> bool {
    let (mut p, mut t) = (0, 0);
    let mut back: Option<(usize, usize)> = None;
    while t < text.len() {
        if pattern.get(p) == Some(&b'*') {
            back = Some((p, t));
            p += 1;
        } else if pattern.get(p) == text.get(t) {
            p += 1;
            t += 1;
        } else if let Some((star, from)) = back {
            back = Some((star, from + 1));
            p = star + 1;
            t = from + 1;
        } else {
            return false;
        }
    }
    pattern
        .get(p..)
        .is_some_and(|rest| rest.iter().all(|byte| *byte == b'*'))
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Target::All => f.write_str("*"),
            Target::Session(session) => session.fmt(f),
            Target::Job(job) => job.fmt(f),
            Target::Pattern(pattern) => f.write_str(pattern),
        }
    }
}

/// Targets of one strength.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Targets(pub Vec<Target>);

impl Targets {
    fn all(&self) -> bool {
        self.0.contains(&Target::All)
    }

    fn job(&self, job: &JobId) -> bool {
        self.0.iter().any(|target| target.has_job(job))
    }

    fn session(&self, session: &str) -> bool {
        self.0.iter().any(|target| target.has_session(session))
    }

    fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl Serialize for Targets {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_seq(self.0.iter().map(Target::to_string))
    }
}

/// A list, or an object whose members' names are the list.
impl<'de> Deserialize<'de> for Targets {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Targets, D::Error> {
        deserializer.deserialize_any(TargetsVisitor)
    }
}

struct TargetsVisitor;

fn add<E: serde::de::Error>(targets: &mut Vec<Target>, text: &str) -> Result<(), E> {
    if targets.len() == TARGETS_MAX {
        return Err(E::custom(format!("a list has at most {TARGETS_MAX} entries")));
    }
    targets.push(Target::parse(text).map_err(E::custom)?);
    Ok(())
}

impl<'de> Visitor<'de> for TargetsVisitor {
    type Value = Targets;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a list of sessions and jobs")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Targets, A::Error> {
        let mut targets = Vec::new();
        while let Some(text) = seq.next_element::<String>()? {
            add(&mut targets, &text)?;
        }
        Ok(Targets(targets))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Targets, A::Error> {
        let mut targets = Vec::new();
        while let Some((text, _)) = map.next_entry::<String, IgnoredAny>()? {
            add(&mut targets, &text)?;
        }
        Ok(Targets(targets))
    }

    fn visit_unit<E: serde::de::Error>(self) -> Result<Targets, E> {
        Ok(Targets::default())
    }
}

/// How strong a permission on jobs is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Strength {
    /// See state, output, events.
    Read,
    /// Write to its input.
    Write,
    /// Start, stop, scale, signal what is defined.
    Operate,
    /// Define and remove it too.
    Manage,
}

/// The permissions of a credential.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Permissions {
    /// Everything.
    #[serde(skip_serializing_if = "is_false")]
    pub admin: bool,
    /// Make keys, with no more than these permissions.
    #[serde(skip_serializing_if = "is_false")]
    pub create_key: bool,
    /// Make users.
    #[serde(skip_serializing_if = "is_false")]
    pub create_user: bool,
    /// Define, operate, write, read.
    #[serde(skip_serializing_if = "Targets::is_empty")]
    pub manage: Targets,
    /// Operate, write, read.
    #[serde(skip_serializing_if = "Targets::is_empty")]
    pub operate: Targets,
    /// Write, read.
    #[serde(skip_serializing_if = "Targets::is_empty")]
    pub write: Targets,
    /// Read.
    #[serde(skip_serializing_if = "Targets::is_empty")]
    pub read: Targets,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "the form that serde asks for")]
fn is_false(flag: &bool) -> bool {
    !flag
}

impl Permissions {
    /// Everything.
    pub fn admin() -> Permissions {
        Permissions {
            admin: true,
            ..Permissions::default()
        }
    }

    /// The lists that contain a strength.
    fn lists(&self, strength: Strength) -> impl Iterator<Item = &Targets> {
        let all = [
            (Strength::Manage, &self.manage),
            (Strength::Operate, &self.operate),
            (Strength::Write, &self.write),
            (Strength::Read, &self.read),
        ];
        all.into_iter()
            .filter_map(move |(own, list)| (own >= strength).then_some(list))
    }

    /// On all jobs, and on what is about no single one.
    pub fn on_all(&self, strength: Strength) -> bool {
        self.admin || self.lists(strength).any(Targets::all)
    }

    /// On a session: all its jobs.
    pub fn on_session(&self, strength: Strength, session: &str) -> bool {
        self.admin || self.lists(strength).any(|list| list.session(session))
    }

    /// On a job.
    pub fn on_job(&self, strength: Strength, job: &JobId) -> bool {
        self.admin || self.lists(strength).any(|list| list.job(job))
    }

    /// On anything at all.
    pub fn on_some(&self, strength: Strength) -> bool {
        self.admin || self.lists(strength).any(|list| !list.is_empty())
    }

    /// The first thing in `other` that is not in this: what a holder may not hand on.
    pub fn lacks(&self, other: &Permissions) -> Option<String> {
        if self.admin {
            return None;
        }
        let flags = [
            ("admin", other.admin),
            ("create_key", other.create_key && !self.create_key),
            ("create_user", other.create_user && !self.create_user),
        ];
        if let Some((flag, _)) = flags.into_iter().find(|(_, lacking)| *lacking) {
            return Some(flag.to_owned());
        }
        let lists = [
            (Strength::Manage, "manage", &other.manage),
            (Strength::Operate, "operate", &other.operate),
            (Strength::Write, "write", &other.write),
            (Strength::Read, "read", &other.read),
        ];
        for (strength, word, list) in lists {
            let covered = |wanted: &&Target| {
                !self
                    .lists(strength)
                    .any(|own| own.0.iter().any(|target| target.covers(wanted)))
            };
            if let Some(target) = list.0.iter().find(covered) {
                return Some(format!("{word} on {target}"));
            }
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn permissions(text: &str) -> Permissions {
        serde_json::from_str(text).expect("permissions")
    }

    fn job(text: &str) -> JobId {
        text.parse().expect("a job")
    }

    /// The table of section 7.3, row by row.
    #[test]
    fn s7_3_each_list_contains_the_weaker_ones_and_a_session_its_jobs() {
        let p = permissions(r#"{"manage": ["shop"], "write": ["bank.web"], "read": {"news": true}}"#);
        for (strength, target, may) in [
            (Strength::Manage, "shop.web", true),
            (Strength::Write, "shop.web", true),
            (Strength::Read, "shop.web", true),
            (Strength::Manage, "bank.web", false),
            (Strength::Operate, "bank.web", false),
            (Strength::Write, "bank.web", true),
            (Strength::Read, "bank.web", true),
            (Strength::Read, "bank.db", false),
            (Strength::Write, "news.x", false),
            (Strength::Read, "news.x", true),
            (Strength::Read, "shopping.web", false),
        ] {
            assert_eq!(p.on_job(strength, &job(target)), may, "{strength:?} {target}");
        }
        assert!(p.on_session(Strength::Manage, "shop") && !p.on_session(Strength::Write, "bank"));
        assert!(!p.on_all(Strength::Read) && !p.create_key && !p.admin);
        let all = permissions(r#"{"write": ["*"]}"#);
        assert!(all.on_all(Strength::Write) && all.on_all(Strength::Read) && !all.on_all(Strength::Manage));
        assert!(all.on_session(Strength::Read, "any") && all.on_job(Strength::Write, &job("a.b")));
        assert!(permissions(r#"{"admin": true}"#).on_all(Strength::Manage));
        assert_eq!(permissions("{}"), Permissions::default());
    }

    #[test]
    fn a_pattern_fits_whole_names_only() {
        let p = permissions(r#"{"operate": ["shop.web-*", "*.db"]}"#);
        for (name, may) in [
            ("shop.web-1", true),
            ("shop.web", false),
            ("shop.a.db", true),
            ("bank.db", true),
            ("bank.dbx", false),
            ("xshop.web-1", false),
        ] {
            assert_eq!(p.on_job(Strength::Operate, &job(name)), may, "{name}");
        }
        assert!(!p.on_session(Strength::Read, "shop"));
        assert!(permissions(r#"{"read": ["shop.*"]}"#).on_session(Strength::Read, "shop"));
    }

    #[test]
    fn d39_nobody_hands_on_what_he_lacks() {
        let own = permissions(r#"{"create_key": true, "manage": ["shop"], "read": ["*"]}"#);
        for fine in [
            "{}",
            r#"{"manage": ["shop.web"], "read": ["bank", "*"]}"#,
            r#"{"create_key": true, "write": ["shop"], "operate": ["shop.*", "shop.w*"]}"#,
        ] {
            assert_eq!(own.lacks(&permissions(fine)), None, "{fine}");
        }
        for (more, lacking) in [
            (r#"{"admin": true}"#, "admin"),
            (r#"{"create_user": true}"#, "create_user"),
            (r#"{"manage": ["*"]}"#, "manage on *"),
            (r#"{"write": ["shop", "bank.web"]}"#, "write on bank.web"),
            (r#"{"operate": ["*.web"]}"#, "operate on *.web"),
        ] {
            assert_eq!(own.lacks(&permissions(more)).as_deref(), Some(lacking), "{more}");
        }
        assert_eq!(
            Permissions::admin().lacks(&permissions(r#"{"admin": true}"#)),
            None
        );
        let one = permissions(r#"{"create_key": true, "read": ["shop.web"]}"#);
        assert!(one.lacks(&permissions(r#"{"read": ["shop"]}"#)).is_some());
    }

    #[test]
    fn nonsense_is_refused() {
        for text in [
            r#"{"read": ["a/b"]}"#,
            r#"{"read": [""]}"#,
            r#"{"read": ["../x"]}"#,
            r#"{"read": ["a**.b"]}"#,
            r#"{"read": [1]}"#,
            r#"{"read": "shop"}"#,
            r#"{"admin": "yes"}"#,
        ] {
            assert!(serde_json::from_str::<Permissions>(text).is_err(), "{text}");
        }
    }
}
