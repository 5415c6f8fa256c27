//! Examples of `task` and its verbs.

/// Examples of `task`.
pub const TASK: &str = "\
A task is work that runs to its end: steps with an order, retries and final steps, and a checkpoint that is
the truth. Whoever leads it may be killed at any time; whoever comes next goes on where it was.

Examples:
  gaffer task run etl.json --id etl-1 --root /srv/tasks    run it here; the exit code is its result
  gaffer task status etl-1 --root /srv/tasks               look, also while it runs or long after
  gaffer task start etl.json                               hand it to the daemon";
/// Examples of `task run`.
pub const RUN: &str = "\
Exit code: 0 success; 1 failed, killed or lost; 2 the file; 4 another runner leads it, or it is another task.
Ctrl-C ends the task in order, with its final steps; the second time it kills. If this program and its daemon
are killed, the steps go on: the same command with the same --id takes charge of them. A step that is done is never
run again. Without --root: $GAFFER_TASK_ROOT, else /var/lib/gaffer-tasks (root) or ~/.local/state/gaffer-tasks.

Examples:
  gaffer task run etl.json
  gaffer task run etl.json --id etl-1 --root /srv/tasks --port http=8080 -E day=monday
  gaffer task run --detach -- make world";
/// Examples of `task start`.
pub const START: &str = "\
Examples:
  gaffer task start etl.json                prints the id; the daemon leads it
  gaffer task start etl.json --wait         and waits: the exit code is its result
  gaffer task start -- make world";
/// Examples of `task ls`.
pub const LS: &str = "\
Examples:
  gaffer task ls --active
  gaffer task ls --root /srv/tasks --json | jq -r '.[] | select(.state == \"failed\") | .id'";
/// Examples of `task status`.
pub const STATUS: &str = "\
Examples:
  gaffer task status etl-1 --json
  gaffer task status etl-1 --root /srv/tasks";
/// Examples of `task gc`.
pub const GC: &str = "\
Checkpoint, output and working directory go. A working directory that you named (--cwd), or in which another task works,
stays. Active tasks are never touched.

Examples:
  gaffer task gc --age 30d --dry-run
  gaffer task gc --count 100 --size 20G -y
  gaffer task gc nightly-1 --root /srv/tasks";
/// Examples of `task retry`.
pub const RETRY: &str = "\
A new task is started, in the same folder: steps that succeeded count as done, with their outputs; those that did not, or
STEP, run again, with all that waits for them and the final steps. Its id is printed.

Examples:
  gaffer task retry nightly-1
  gaffer task retry nightly-1 --from load --wait";
/// Examples of `task show`.
pub const SHOW: &str = "\
Examples:
  gaffer task show etl-1                                   with its definition
  gaffer task show --raw /srv/tasks/checkpoints/etl-1/runner
                                                           what a checkpoint says, also a damaged one";
/// Examples of `task logs`.
pub const LOGS: &str = "\
Files: LOG_DIR/STEP/RUN/stdout and stderr, runs from 0 (gaffer task show names LOG_DIR).

Examples:
  gaffer task logs etl-1                    what all steps wrote, by step
  gaffer task logs etl-1 load -f            the newest run of a step, byte by byte, until the task is over
  gaffer task logs etl-1 load --attempt 1";
/// Examples of `task why`.
pub const WHY: &str = "\
Examples:
  gaffer task why etl-1                     what did not go well, and the last lines of it";
/// Examples of `task wait`.
pub const WAIT: &str = "\
Examples:
  gaffer task wait etl-1 --timeout 10m      exit 0 only if it succeeded";
/// Examples of `task kill`.
pub const KILL: &str = "\
In order: TERM to what runs, then the final steps; KILL when the grace is over.

Examples:
  gaffer task kill etl-1
  gaffer task kill etl-1 --force            KILL now, no final steps
  gaffer task kill etl-1 --root /srv/tasks  also if nobody leads it any more";
/// Examples of `task pause`.
pub const PAUSE: &str = "\
Examples:
  gaffer task pause etl-1                   what runs is frozen, nothing new begins";
/// Examples of `task resume`.
pub const RESUME: &str = "\
Examples:
  gaffer task resume etl-1";
