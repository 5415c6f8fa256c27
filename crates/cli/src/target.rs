//! Targets (ux.md 4.3): what `web`, `web.2`, `shop.web.2`, `shop.`, `'*.web'`, `17` and `@01k9` mean.
//!
//! Parsing knows only the text. What a dotted name means depends on the jobs that exist, because job names may hold
//! dots themselves: the reading with the current session comes first.

use crate::failure::Failure;
use gaffer_api::types::Job;
use gaffer_config::nearest;

/// Shortest beginning of a run id.
const RUN_PREFIX_MIN: usize = 4;

/// What was written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Target {
    /// `web`, `web.2`, `shop.web`: still to be looked up.
    Name(String),
    /// `shop.` or `shop.*`.
    Session(String),
    /// `'*.web'`, over full names.
    Glob(String),
    /// `@01k9`, without the `@`.
    Run(String),
    /// `17`: the live run of this small number.
    Number(u64),
}

/// What it selects. A job with no instance and no run is meant whole.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Selected {
    /// Session.
    pub session: String,
    /// Job.
    pub job: String,
    /// One instance of it.
    pub instance: Option<u32>,
    /// One run of it.
    pub run: Option<String>,
}

impl Selected {
    fn whole(job: &Job) -> Selected {
        Selected {
            session: job.session.clone(),
            job: job.job.clone(),
            instance: None,
            run: None,
        }
    }

    /// `web` or `web.2`, with the session if it is not the current one.
    pub fn shown(&self, scope: &Scope) -> String {
        let mut name = match scope {
            Scope::One(session) if *session == self.session => self.job.clone(),
            _ => format!("{}.{}", self.session, self.job),
        };
        if let Some(instance) = self.instance {
            name.push_str(&format!(".{instance}"));
        }
        if let Some(run) = &self.run {
            name.push_str(&format!(" @{run}"));
        }
        name
    }
}

/// Where short names are looked up.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Scope {
    /// The current session.
    One(String),
    /// `--session '*'`.
    All,
}

impl Scope {
    /// Whether a session belongs to it.
    pub fn holds(&self, session: &str) -> bool {
        match self {
            Scope::One(one) => one == session,
            Scope::All => true,
        }
    }

    /// `session shop` or `any session`.
    pub fn describe(&self) -> String {
        match self {
            Scope::One(session) => format!("session {session}"),
            Scope::All => "any session".to_owned(),
        }
    }
}

/// Reads a target.
pub fn parse(text: &str) -> Result<Target, Failure> {
    if text.is_empty() {
        return Err(Failure::usage("a target is empty").hint("what can be written: gaffer help targets"));
    }
    if let Some(run) = text.strip_prefix('@') {
        if run.len() < RUN_PREFIX_MIN {
            let message =
                format!("`{text}` is too short for a run: at least {RUN_PREFIX_MIN} characters after the @");
            return Err(Failure::usage(message));
        }
        return Ok(Target::Run(run.to_ascii_lowercase()));
    }
    if text.bytes().all(|b| b.is_ascii_digit()) {
        return text
            .parse()
            .map(Target::Number)
            .map_err(|_| Failure::usage(format!("`{text}` is too large for the number of a process")));
    }
    if let Some((kind, _)) = text.split_once(':')
        && ["task", "queue", "schedule", "step"].contains(&kind)
    {
        return Err(Failure::usage(format!("`{text}` is no job"))
            .hint(format!("`{kind}:` goes with  gaffer logs, why, wait")));
    }
    let dotted = text.replacen('/', ".", 1);
    if let Some(session) = dotted.strip_suffix(".*").or_else(|| dotted.strip_suffix('.'))
        && !is_glob(session)
    {
        return Ok(Target::Session(session.to_owned()));
    }
    if is_glob(&dotted) {
        return Ok(Target::Glob(dotted));
    }
    Ok(Target::Name(dotted))
}

fn is_glob(text: &str) -> bool {
    text.contains(['*', '?', '['])
}

/// Finds what a target means among the jobs of the node. `looking`: the command changes nothing, so that a job which
/// exists in exactly one other session will do.
pub fn resolve(
    target: &Target,
    jobs: &[Job],
    scope: &Scope,
    looking: bool,
) -> Result<Vec<Selected>, Failure> {
    match target {
        Target::Session(session) => {
            let found: Vec<Selected> = jobs
                .iter()
                .filter(|job| job.session == *session)
                .map(Selected::whole)
                .collect();
            if found.is_empty() {
                return Err(no_session(session, jobs));
            }
            Ok(found)
        }
        Target::Glob(pattern) => {
            let matches = |job: &&Job| glob(pattern, &format!("{}.{}", job.session, job.job));
            let found: Vec<Selected> = jobs.iter().filter(matches).map(Selected::whole).collect();
            if found.is_empty() {
                return Err(Failure::not_found(format!("nothing matches `{pattern}`"))
                    .hint("patterns are over full names, as in 'shop.w*'          all jobs:  gaffer ps --session '*'"));
            }
            Ok(found)
        }
        Target::Name(name) => by_name(name, jobs, scope, looking),
        Target::Number(number) => by_number(*number, jobs).map(|one| vec![one]),
        Target::Run(run) => Err(Failure::usage(format!(
            "`@{run}` names a run; this command takes jobs and instances"
        ))),
    }
}

/// The live run with this number, of an instance or a one-off.
fn by_number(number: u64, jobs: &[Job]) -> Result<Selected, Failure> {
    let of_job = |job: &Job, kept: bool| {
        let places = if kept { &job.instances } else { &job.one_offs };
        let found = places
            .iter()
            .find(|place| place.number == Some(number) && place.pid.is_some())?;
        Some(Selected {
            instance: u32::try_from(found.instance).ok().filter(|_| kept),
            run: found.run.clone(),
            ..Selected::whole(job)
        })
    };
    let found = jobs
        .iter()
        .find_map(|job| of_job(job, true).or_else(|| of_job(job, false)));
    found.ok_or_else(|| {
        Failure::not_found(format!("no process has the number {number} now"))
            .hint("all numbers:  gaffer ps --columns job,number,pid --session '*'")
    })
}

fn by_name(name: &str, jobs: &[Job], scope: &Scope, looking: bool) -> Result<Vec<Selected>, Failure> {
    let in_scope: Vec<&Job> = jobs.iter().filter(|job| scope.holds(&job.session)).collect();
    let here = |job: &&&Job| reading(name, &job.job, job).is_some();
    if let Some(job) = in_scope.iter().find(here) {
        let found: Vec<&&Job> = in_scope.iter().filter(here).collect();
        // Only with `--session '*'` can there be several: then all are meant.
        return match found.as_slice() {
            [_] => select(name, &job.job, job).map(|selected| vec![selected]),
            several => several.iter().map(|job| select(name, &job.job, job)).collect(),
        };
    }
    let full = |job: &Job| format!("{}.{}", job.session, job.job);
    if let Some(job) = jobs.iter().find(|job| reading(name, &full(job), job).is_some()) {
        return select(name, &full(job), job).map(|selected| vec![selected]);
    }
    let of_session: Vec<Selected> = jobs
        .iter()
        .filter(|job| job.session == name)
        .map(Selected::whole)
        .collect();
    if !of_session.is_empty() {
        return Ok(of_session);
    }
    let elsewhere: Vec<&Job> = jobs
        .iter()
        .filter(|job| reading(name, &job.job, job).is_some())
        .collect();
    match elsewhere.as_slice() {
        [job] if looking => select(name, &job.job, job).map(|selected| vec![selected]),
        _ => Err(no_job(name, &in_scope, &elsewhere, scope)),
    }
}

/// How a written name reads as a job: whole, or one instance of it.
fn reading(name: &str, job_name: &str, _job: &Job) -> Option<Option<u32>> {
    let rest = name.strip_prefix(job_name)?;
    if rest.is_empty() {
        return Some(None);
    }
    let digits = rest.strip_prefix('.')?;
    (!digits.is_empty() && digits.bytes().all(|b| b.is_ascii_digit())).then(|| digits.parse().ok())
}

fn select(name: &str, job_name: &str, job: &Job) -> Result<Selected, Failure> {
    let instance = reading(name, job_name, job).flatten();
    if let Some(n) = instance
        && !job.instances.iter().any(|known| known.instance == u64::from(n))
    {
        let known: Vec<String> = job
            .instances
            .iter()
            .map(|known| known.instance.to_string())
            .collect();
        let failure = Failure::not_found(format!("job `{}` has no instance {n}", job.job));
        return Err(match known.as_slice() {
            [] => failure.hint(format!("it has none now; more:  gaffer scale {}=1", job.job)),
            _ => failure.hint(format!(
                "it has {}; more:  gaffer scale {}={n}",
                known.join(", "),
                job.job
            )),
        });
    }
    Ok(Selected {
        instance,
        ..Selected::whole(job)
    })
}

fn no_job(name: &str, here: &[&Job], elsewhere: &[&Job], scope: &Scope) -> Failure {
    let failure = Failure::not_found(format!("no job `{name}` in {}", scope.describe()));
    if let Some(job) = elsewhere.first() {
        return failure.hint_pair(
            &format!("did you mean `{}.{}`?", job.session, job.job),
            "all jobs:  gaffer ps --session '*'",
        );
    }
    let near = nearest(name, here.iter().map(|job| job.job.as_str()));
    let guess = near
        .map(|near| format!("did you mean `{near}`?"))
        .unwrap_or_default();
    failure.hint_pair(&guess, "all jobs:  gaffer ps")
}

fn no_session(session: &str, jobs: &[Job]) -> Failure {
    let failure = Failure::not_found(format!("no session `{session}`"));
    let near = nearest(session, jobs.iter().map(|job| job.session.as_str()));
    let guess = near
        .map(|near| format!("did you mean `{near}.`?"))
        .unwrap_or_default();
    failure.hint_pair(&guess, "all jobs:  gaffer ps --session '*'")
}

/// Shell patterns: `*`, `?`, `[a-z]`, `[!x]`. Linear in the text for each `*`, without recursion.
pub fn glob(pattern: &str, text: &str) -> bool {
    let (pattern, text): (Vec<char>, Vec<char>) = (pattern.chars().collect(), text.chars().collect());
    let (mut p, mut t) = (0, 0);
    let mut retry: Option<(usize, usize)> = None;
    while t < text.len() {
        let step = match pattern.get(p) {
            Some('*') => {
                retry = Some((p + 1, t));
                p += 1;
                continue;
            }
            Some('?') => Some(1),
            Some('[') => class(&pattern[p..], text[t]),
            Some(c) if *c == text[t] => Some(1),
            _ => None,
        };
        match (step, retry) {
            (Some(width), _) => {
                p += width;
                t += 1;
            }
            // The last star takes one character more.
            (None, Some((after, at))) => {
                p = after;
                t = at + 1;
                retry = Some((after, at + 1));
            }
            (None, None) => return false,
        }
    }
    pattern[p..].iter().all(|c| *c == '*')
}

/// Width of a class in the pattern if it matches; an unclosed one is a plain bracket.
fn class(pattern: &[char], c: char) -> Option<usize> {
    let Some(end) = pattern.iter().skip(2).position(|c| *c == ']').map(|at| at + 2) else {
        return (c == '[').then_some(1);
    };
    let negated = matches!(pattern[1], '!' | '^');
    let set = &pattern[1 + usize::from(negated)..end];
    let mut found = false;
    let mut i = 0;
    while i < set.len() {
        if i + 2 < set.len() && set[i + 1] == '-' {
            found |= (set[i]..=set[i + 2]).contains(&c);
            i += 3;
        } else {
            found |= set[i] == c;
            i += 1;
        }
    }
    (found != negated).then_some(end + 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn job(session: &str, name: &str, instances: u64) -> Job {
        let list: Vec<serde_json::Value> = (1..=instances)
            .map(|n| {
                serde_json::json!({"instance": n, "run": null, "pid": null, "state": "running", "wish": "running", "reason": "",
                    "reason_code": "", "started_at": null, "ready_at": null, "up_ms": null, "next_try_at": null,
                    "restarts": 0, "attempt": 1})
            })
            .collect();
        let value = serde_json::json!({"session": session, "job": name, "wish": "running", "state": "running", "summary": "",
            "reason": "", "reason_code": "", "target": instances, "priority": 0, "revision": 1, "instances": list});
        serde_json::from_value(value).unwrap()
    }

    fn node() -> Vec<Job> {
        vec![
            job("shop", "web", 2),
            job("shop", "b.c", 1),
            job("shop", "worker", 1),
            job("mail", "web", 1),
            job("mail", "smtp", 1),
            job("b", "c", 1),
        ]
    }

    fn find(text: &str, looking: bool) -> Result<Vec<String>, Failure> {
        let scope = Scope::One("shop".to_owned());
        let found = resolve(&parse(text)?, &node(), &scope, looking)?;
        Ok(found.iter().map(|one| one.shown(&Scope::All)).collect())
    }

    #[test]
    fn short_names_are_of_the_current_session() {
        assert_eq!(find("web", false).unwrap(), ["shop.web"]);
        assert_eq!(find("web.2", false).unwrap(), ["shop.web.2"]);
        assert_eq!(find("shop.web.2", false).unwrap(), ["shop.web.2"]);
        assert_eq!(find("shop/web", false).unwrap(), ["shop.web"]);
        assert_eq!(find("mail.web", false).unwrap(), ["mail.web"]);
    }

    #[test]
    fn a_job_name_with_a_dot_wins_over_another_session() {
        assert_eq!(find("b.c", false).unwrap(), ["shop.b.c"]);
        assert_eq!(find("b.c.1", false).unwrap(), ["shop.b.c.1"]);
    }

    #[test]
    fn a_session_can_be_named_in_three_ways() {
        for text in ["mail.", "mail.*", "mail"] {
            assert_eq!(find(text, false).unwrap(), ["mail.web", "mail.smtp"], "{text}");
        }
        assert_eq!(find("nobody.", false).unwrap_err().exit, 3);
    }

    #[test]
    fn patterns_are_over_full_names_and_must_match_something() {
        assert_eq!(find("*.web", false).unwrap(), ["shop.web", "mail.web"]);
        assert_eq!(find("shop.w*", false).unwrap(), ["shop.web", "shop.worker"]);
        assert_eq!(find("x*", false).unwrap_err().exit, 3);
    }

    #[test]
    fn only_looking_reaches_into_another_session() {
        assert_eq!(find("smtp", true).unwrap(), ["mail.smtp"]);
        let refused = find("smtp", false).unwrap_err();
        assert_eq!(refused.exit, 3);
        assert!(refused.hints[0].starts_with("did you mean `mail.smtp`?"));
    }

    #[test]
    fn a_typo_is_answered_with_the_nearest_name() {
        let failure = find("wbe", false).unwrap_err();
        assert_eq!(failure.message, "no job `wbe` in session shop");
        assert_eq!(
            failure.hints,
            ["did you mean `web`?                     all jobs:  gaffer ps"]
        );
    }

    #[test]
    fn an_instance_that_does_not_exist_says_which_do() {
        let failure = find("web.7", false).unwrap_err();
        assert_eq!(
            (failure.exit, failure.hints[0].as_str()),
            (3, "it has 1, 2; more:  gaffer scale web=7")
        );
    }

    #[test]
    fn runs_need_four_characters_and_digits_are_numbers() {
        assert_eq!(parse("@01k9").unwrap(), Target::Run("01k9".to_owned()));
        assert_eq!(parse("@01k").unwrap_err().exit, 2);
        assert_eq!(parse("17").unwrap(), Target::Number(17));
        assert_eq!(parse("99999999999999999999").unwrap_err().exit, 2);
        assert_eq!(find("17", false).unwrap_err().exit, 3);
        assert_eq!(parse("task:7").unwrap_err().exit, 2);
    }

    #[test]
    fn globs_do_what_a_shell_does() {
        for (pattern, text, matches) in [
            ("*", "", true),
            ("a*c*e", "abcde", true),
            ("a*c*e", "abcdf", false),
            ("w?b", "web", true),
            ("w[a-f]b", "web", true),
            ("w[!e]b", "web", false),
            ("[", "[", true),
            ("a**b", "ab", true),
        ] {
            assert_eq!(glob(pattern, text), matches, "{pattern} on {text}");
        }
    }
}
