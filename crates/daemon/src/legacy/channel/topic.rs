//! Topics that can be followed: `SOURCE` or `SOURCE:target`. The source may be written in any case, the target is taken
//! as it is: names have capitals.

use crate::legacy::events::Pattern;
use crate::legacy::names;
use gaffer_core::name::JobId;

/// What a topic is about.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Topic {
    /// `EVENTS`, `EVENTS:<pattern>`
    Events(Pattern),
    /// `JOB:<s.j>`
    Job(JobId),
    /// `PROCESS:<pid>`
    Process(u64),
    /// `STATS:<pid>`
    ProcessStats(u64),
    /// `STATS:<s.j>`
    JobStats(JobId),
    /// `STREAM:<pid>`, `STREAM:<pid>.<label>`
    Stream(u64, Option<String>),
}

/// Reads a topic; or the word for what is wrong.
pub fn read(text: &str) -> Result<Topic, &'static str> {
    let (source, target) = text.split_once(':').unwrap_or((text, ""));
    let job = || names::find(target).map_err(|_| "not_found");
    let invalid = "invalid_topic";
    match source.to_ascii_uppercase().as_str() {
        "EVENTS" => Ok(Topic::Events(Pattern::parse(target))),
        _ if target.is_empty() => Err(invalid),
        "JOB" => job().map(Topic::Job),
        "PROCESS" => names::pid(target).map(Topic::Process).ok_or(invalid),
        "STATS" => match names::pid(target) {
            Some(pid) => Ok(Topic::ProcessStats(pid)),
            None => job().map(Topic::JobStats),
        },
        "STREAM" => {
            let (pid, label) = target
                .split_once('.')
                .map_or((target, None), |(pid, label)| (pid, Some(label)));
            let pid = names::pid(pid).ok_or(invalid)?;
            Ok(Topic::Stream(pid, label.map(str::to_owned)))
        }
        _ => Err(invalid),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn s8_4_topics() {
        let job = names::find("Shop.Web").expect("a name");
        assert_eq!(read("EVENTS"), Ok(Topic::Events(Pattern::parse("."))));
        assert_eq!(read("events:job.a."), Ok(Topic::Events(Pattern::parse("job.a"))));
        // D32: capitals are kept.
        assert_eq!(read("job:Shop.Web"), Ok(Topic::Job(job.clone())));
        assert_eq!(read("STATS:Shop.Web"), Ok(Topic::JobStats(job)));
        assert_eq!(read("Process:12"), Ok(Topic::Process(12)));
        assert_eq!(read("STATS:3"), Ok(Topic::ProcessStats(3)));
        assert_eq!(read("STREAM:3"), Ok(Topic::Stream(3, None)));
        assert_eq!(read("STREAM:3.a.b"), Ok(Topic::Stream(3, Some("a.b".to_owned()))));
        for wrong in [
            "",
            "NEWS",
            "NEWS:1",
            "JOB",
            "JOB:",
            "PROCESS:x",
            "STREAM:x",
            "STREAM:.out",
            "STREAM",
        ] {
            assert_eq!(read(wrong), Err("invalid_topic"), "{wrong}");
        }
        assert_eq!(read("JOB:a b.c"), Err("not_found"));
    }
}
