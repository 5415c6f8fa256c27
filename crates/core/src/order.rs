//! Standing orders: a decision that is the same whatever the end of a run will be, made beforehand.
//!
//! Where a job restarts always and at once, nothing that happens to its run changes what follows. Then the shim is
//! told now what to start then ([`Command::Stand`]), and the daemon is not on the way between an exit and the next start.
//! An order is left as soon as a run is up and taken back as soon as anything would make the decision another one; what
//! crosses on the way is settled by the facts: a successor that is not wanted any more is ended like any other run.

use crate::group::Group;
use crate::hub::Hub;
use crate::instance::In;
use crate::instance::table::{Level, Phase};
use crate::io::{Command, Stamp, Successor};
use crate::job::{Job, Port, Restart};
use crate::name::{Place, Slot};
use crate::retry::{Ended, Verdict};
use crate::time::Duration;

impl Group {
    /// Leaves an order beside the run of a seat, replaces or withdraws it, as things are now.
    pub fn keep_order(&mut self, at: usize, hub: &mut Hub) {
        let stamp = self.order_stamp(at, hub);
        let seat = &mut self.seats[at];
        if seat.order.as_ref().map(|order| order.stamp) == stamp {
            return;
        }
        let Some(after) = seat.run() else {
            seat.order = None;
            return;
        };
        let (Some(stamp), Some(spec)) = (stamp, &self.spec) else {
            seat.order = None;
            hub.out.commands.push(Command::Withdraw { run: after });
            return;
        };
        let run = hub.next_run();
        seat.order = Some(Box::new(Successor { run, stamp }));
        hub.out.commands.push(Command::Stand {
            after,
            run,
            slot: Slot {
                job: self.id.clone(),
                place: seat.place,
            },
            launch: spec.launch.clone(),
            attempt: seat.attempt.saturating_add(1),
            stamp,
        });
    }

    /// What a successor would be born under; none: its start has to be decided when the run has ended.
    fn order_stamp(&self, at: usize, hub: &Hub) -> Option<Stamp> {
        let seat = &self.seats[at];
        let spec = self.spec.as_deref().filter(|spec| follows_at_once(spec))?;
        let Place::Instance { n, .. } = seat.place else {
            return None;
        };
        let reload = self.reload_of(seat.place);
        let quiet = hub.recovered && hub.shutdown.is_none() && self.held.is_none();
        let up = seat.phase() == Phase::Running && seat.want.level == Level::Up;
        let alone = seat.primary && !self.surging.contains(&n);
        if !quiet || !up || !alone || seat.outdated(self.digest, reload) || seat.before_restart() {
            return None;
        }
        // As bad an end as there can be: a later or better one leads to nothing else.
        let end = Ended {
            at: hub.now.mono,
            ok: false,
            never_ran: false,
            healthy: Duration::ZERO,
        };
        let verdict = seat
            .history
            .clone()
            .ended(end, &spec.retry, spec.flapping.as_ref(), 1.0);
        let again = matches!(verdict, Verdict::Again { after, .. } if after.is_zero());
        again.then(|| seat.stamp(reload, self.digest))
    }

    /// The shim has carried out an order: the run is there, wanted or not.
    pub fn succeed(&mut self, place: Place, successor: Successor, hub: &mut Hub) {
        let Some(at) = self.find(place) else { return };
        self.step(at, In::Succeeded(successor), hub);
        self.apply_want(at, hub);
        self.replace_if_told(at, hub);
        self.roll_on(hub);
    }
}

/// Every end of its runs is followed by the next one at once, and nothing else has a say in that.
fn follows_at_once(spec: &Job) -> bool {
    let retry = &spec.retry;
    let without_pause =
        retry.delay.iter().all(Duration::is_zero) && retry.increment.is_none_or(|more| more.is_zero());
    let common_count = spec.flapping.as_ref().is_some_and(|flapping| flapping.whole_job);
    let chosen_port = spec.launch.ports.values().any(|port| *port == Port::Auto);
    without_pause
        && spec.restart == Restart::Always
        && spec.exit.fatal.is_empty()
        && spec.after.is_empty()
        && spec.after_tasks.is_empty()
        && spec.start_spacing.is_zero()
        && !common_count
        && !chosen_port
}
