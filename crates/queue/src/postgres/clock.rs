//! Times in the tables are the database's: a node whose clock goes wrong neither loses leases nor takes those of others.

use crate::port::{Answer, NewTask, Pushed, Request};
use crate::rows::TaskRow;
use gaffer_core::queue::task::Claimed;
use gaffer_core::time::Wall;

/// Clocks that differ by less are the same.
const SAME: i64 = 100;

/// What has to be added to a time of this node, in milliseconds; `asked` and `told` are the node's before and after the question.
pub(super) fn difference(asked: Wall, database: i64, told: Wall) -> i64 {
    let difference = database - (asked.0 + (told.0 - asked.0) / 2);
    if difference.abs() < SAME { 0 } else { difference }
}

fn add(at: &mut Wall, by: i64) {
    at.0 = at.0.saturating_add(by);
}

fn add_to(at: &mut Option<Wall>, by: i64) {
    if let Some(at) = at {
        add(at, by);
    }
}

fn new_task(task: &mut NewTask, by: i64) {
    add_to(&mut task.run_at, by);
    add_to(&mut task.begin_by, by);
    add_to(&mut task.created, by);
    if let Some(key) = &mut task.unique {
        add_to(&mut key.done_until, by);
    }
}

/// The node's times become the database's. Ticks of schedules are times of the calendar, which all nodes share: they stay.
pub(super) fn to_database(request: &mut Request, by: i64) {
    match request {
        _ if by == 0 => {}
        Request::Push(tasks, now) => {
            tasks.iter_mut().for_each(|task| new_task(task, by));
            add(now, by);
        }
        Request::Claim(claim) => add(&mut claim.now, by),
        Request::Settle(settlement, now) => {
            add_to(&mut settlement.run_at, by);
            add_to(&mut settlement.expires, by);
            add_to(&mut settlement.result_until, by);
            add(now, by);
        }
        Request::Tick(tick) => {
            tick.push.iter_mut().for_each(|task| new_task(task, by));
            add(&mut tick.now, by);
        }
        Request::Move(moving) => {
            moving.tasks.iter_mut().for_each(|task| new_task(task, by));
            add(&mut moving.now, by);
        }
        Request::Renew(_, now)
        | Request::Upkeep { now, .. }
        | Request::Cancel(_, now)
        | Request::Again(_, now)
        | Request::Edit { now, .. }
        | Request::Prune(now, _)
        | Request::Age(_, _, now)
        | Request::Signs(_, now) => add(now, by),
        Request::Tasks(filter) => add_to(&mut filter.since, by),
        Request::Orphans { .. }
        | Request::Remove(_)
        | Request::Purge(..)
        | Request::Mode(..)
        | Request::Modes
        | Request::Count(..)
        | Request::Minutes(..)
        | Request::Moved(_)
        | Request::Forget(_)
        | Request::Schedule(..)
        | Request::Schedules
        | Request::Task(_)
        | Request::Counts(_) => {}
    }
}

fn claimed(rows: &mut [Claimed], by: i64) {
    for row in rows {
        add(&mut row.created, by);
        add(&mut row.runnable, by);
    }
}

fn row(row: &mut TaskRow, by: i64) {
    add(&mut row.created, by);
    for at in [
        &mut row.run_at,
        &mut row.lease_until,
        &mut row.started,
        &mut row.finished,
        &mut row.expires,
    ] {
        add_to(at, by);
    }
}

/// The database's times become the node's.
pub(super) fn to_node(answer: &mut Answer, by: i64) {
    let by = -by;
    let pushed = |pushed: &mut Pushed| add_to(&mut pushed.due, by);
    match answer {
        _ if by == 0 => {}
        Answer::Pushed(all) => all.iter_mut().for_each(pushed),
        Answer::Ticked(Some(Some(one))) => pushed(one),
        Answer::Claimed(rows, again_at) => {
            claimed(rows, by);
            add_to(again_at, by);
        }
        Answer::Upkept(upkept) => {
            claimed(&mut upkept.expired, by);
            add_to(&mut upkept.next_due, by);
            add_to(&mut upkept.next_lease, by);
        }
        Answer::Orphans(rows) => claimed(rows, by),
        Answer::Task(Some(task)) => {
            row(&mut task.0, by);
            for attempt in &mut task.1 {
                add_to(&mut attempt.started, by);
                add(&mut attempt.finished, by);
            }
        }
        Answer::Tasks(rows) => rows.iter_mut().for_each(|one| row(one, by)),
        Answer::Counts(counts) => add_to(&mut counts.oldest, by),
        // Minutes are those of the nodes that counted.
        Answer::Signs(signs) => {
            signs.died.iter_mut().for_each(|(_, first)| add(first, by));
            signs.kinds.iter_mut().for_each(|(_, at)| add(at, by));
        }
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rows::{Counts, Signs};
    use gaffer_core::name::JobId;

    #[test]
    fn a_difference_is_measured_from_the_middle_and_small_ones_are_none() {
        assert_eq!(difference(Wall(1_000), 1_050, Wall(1_002)), 0);
        assert_eq!(difference(Wall(1_000), 61_005, Wall(1_010)), 60_000);
        assert_eq!(difference(Wall(100_000), 40_005, Wall(100_010)), -60_000);
    }

    #[test]
    fn what_goes_in_comes_out_as_it_was() {
        let now = Wall(5_000);
        let mut request = Request::Upkeep {
            owner: "a".into(),
            now,
        };
        to_database(&mut request, 300);
        assert!(matches!(request, Request::Upkeep { now: Wall(5_300), .. }));
        let mut answer = Answer::Counts(Counts {
            oldest: Some(Wall(5_300)),
            ..Counts::default()
        });
        to_node(&mut answer, 300);
        assert!(matches!(
            answer,
            Answer::Counts(Counts {
                oldest: Some(Wall(5_000)),
                ..
            })
        ));
        let mut answer = Answer::Signs(Signs {
            died: Some((1, Wall(5_300))),
            finished: Some(now),
            kinds: vec![(None, Wall(5_400))],
            ..Signs::default()
        });
        to_node(&mut answer, 300);
        let Answer::Signs(signs) = answer else {
            panic!("signs")
        };
        assert_eq!((signs.died, signs.finished), (Some((1, now)), Some(now)));
        assert_eq!(signs.kinds, [(None, Wall(5_100))]);
        let queue = JobId::parse("q").expect("a name");
        let mut age = Request::Age(queue, gaffer_core::time::Duration::from_secs(1), now);
        to_database(&mut age, -300);
        assert!(matches!(age, Request::Age(_, _, Wall(4_700))));
    }
}
