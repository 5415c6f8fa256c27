//! Examples of `push`, and of `queue` and `schedule` with their verbs.

/// Examples of `push`.
pub const PUSH: &str = "\
The number of the task is printed when it is in the store: from then on it is not lost. A task that is pushed with the key of one
that waits is that one. With --wait: exit 0 done; 1 dead, cancelled, lost, or the time is over (--timeout).

Examples:
  gaffer push thumbs '{\"file\": \"a.jpg\"}'
  gaffer push thumbs --kind video --in 10m '{\"file\": \"b.mp4\"}'
  gaffer push thumbs --wait '{\"file\": \"a.jpg\"}'        prints the result
  find . -name '*.jpg' | jq -cR '{file: .}' | gaffer push thumbs --lines";
/// Examples of `queue`.
pub const QUEUE: &str = "\
A queue is a durable backlog of tasks: [queue.NAME] in gaffer.toml says who works on it.

Examples:
  gaffer queue ls
  gaffer queue tasks thumbs --state dead
  gaffer queue retry thumbs --state dead";
/// Examples of `queue ls`.
pub const LS: &str = "\
Examples:
  gaffer queue ls --json";
/// Examples of `queue show`.
pub const SHOW: &str = "\
Examples:
  gaffer queue show thumbs
  gaffer queue show 4711 --json             state, attempts, result, error";
/// Examples of `queue tasks`.
pub const TASKS: &str = "\
Examples:
  gaffer queue tasks thumbs --state dead --since 1d
  gaffer queue tasks thumbs --kind video -n 200 --json";
/// Examples of `queue stats`.
pub const STATS: &str = "\
Statistics are kept by the minute for `keep.stats` (7 days); in a store that nodes share they are
of all of them. --json has each minute, with the tasks that waited at its end.

Examples:
  gaffer queue stats thumbs
  gaffer queue stats thumbs --window 1d --json";
/// Examples of `queue pause`.
pub const PAUSE: &str = "\
Pushes are taken all the same: they wait.

Examples:
  gaffer queue pause thumbs                 what runs, runs to its end
  gaffer queue pause thumbs --running       what runs is frozen";
/// Examples of `queue resume`.
pub const RESUME: &str = "\
Examples:
  gaffer queue resume thumbs";
/// Examples of `queue close`.
pub const CLOSE: &str = "\
Examples:
  gaffer queue close thumbs                 pushes are refused with exit code 4";
/// Examples of `queue open`.
pub const OPEN: &str = "\
Examples:
  gaffer queue open thumbs";
/// Examples of `queue drain`.
pub const DRAIN: &str = "\
Tasks for a later time are not waited for. The queue stays closed:  gaffer queue open QUEUE

Examples:
  gaffer queue drain thumbs --deadline 5m";
/// Examples of `queue cancel`.
pub const CANCEL: &str = "\
Examples:
  gaffer queue cancel 4711 4712";
/// Examples of `queue retry`.
pub const RETRY: &str = "\
The number stays the same; attempts are counted anew.

Examples:
  gaffer queue retry 4711
  gaffer queue retry thumbs --state dead";
/// Examples of `queue edit`.
pub const EDIT: &str = "\
A task that waits gets it. In the place of one that is over there is a new one, whose number is printed.

Examples:
  gaffer queue edit 4711 '{\"file\": \"c.jpg\"}'";
/// Examples of `queue rm`.
pub const RM: &str = "\
Examples:
  gaffer queue rm 4711 -y";
/// Examples of `queue purge`.
pub const PURGE: &str = "\
Examples:
  gaffer queue purge thumbs --state dead -y";
/// Examples of `schedule`.
pub const SCHEDULE: &str = "\
A schedule is a calendar or an interval that starts a task, pushes to a queue or acts on a job: [schedule.NAME] in gaffer.toml.

Examples:
  gaffer schedule ls
  gaffer schedule next nightly
  gaffer schedule trigger nightly";
/// Examples of `schedule ls`.
pub const SCHEDULE_LS: &str = "\
Examples:
  gaffer schedule ls --json";
/// Examples of `schedule show`.
pub const SCHEDULE_SHOW: &str = "\
Examples:
  gaffer schedule show nightly";
/// Examples of `schedule pause`.
pub const SCHEDULE_PAUSE: &str = "\
It stays so over a restart of the daemon. What is active goes on.

Examples:
  gaffer schedule pause nightly";
/// Examples of `schedule resume`.
pub const SCHEDULE_RESUME: &str = "\
What was missed meanwhile is skipped or made up for, as `missed` says.

Examples:
  gaffer schedule resume nightly";
/// Examples of `schedule trigger`.
pub const SCHEDULE_TRIGGER: &str = "\
Its next time stays what it was. What it began is printed. Exit code 4: the one before it goes on, and `overlap` says skip.

Examples:
  gaffer schedule trigger nightly";
/// Examples of `schedule next`.
pub const SCHEDULE_NEXT: &str = "\
Without a daemon the file here is read; an interval is then counted from --from, or from now.

Examples:
  gaffer schedule next nightly -n 5
  gaffer schedule next nightly --from 2027-03-27T00:00:00Z";
