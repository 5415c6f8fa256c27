//! Stages, limits, finalization and kills in the fake world; named by the scenario they are the core of. The same
//! scenarios with real processes are tests of the daemon.

use crate::build::task;
use crate::world::{Act, Script, World, exits, lasts};
use gaffer_core::io::Status;
use gaffer_core::task::record::TaskState;
use gaffer_core::task::runner::Input;
use gaffer_core::time::Duration;

fn world(lines: &[&str], script: Script) -> World {
    World::new(task(lines), script)
}

fn stubborn(ms: u64) -> Act {
    Act {
        on_term: None,
        ..lasts(ms, 0)
    }
}

const ENDLESS: u64 = 10_000_000;

#[test]
fn r01_three_layers_succeed_with_one_run_each() {
    let mut world = world(
        &[
            "t1",
            "t2",
            "t3 after t1",
            "t4 after t2",
            "t5 after t3,t4",
            "t6 after t3,t4",
        ],
        |_, _| exits(0),
    );
    assert_eq!(world.run(), TaskState::Success);
    for name in ["t1", "t2", "t3", "t4", "t5", "t6"] {
        assert_eq!(world.story(name), "SUCCESS");
    }
    assert_eq!(world.stages(), "ACTIVE CLEANING FINALIZING SUCCESS");
    assert_eq!((world.finished, world.finishes), (Some(TaskState::Success), 1));
}

#[test]
fn r03_one_at_a_time() {
    let mut spec = task(&["a", "b", "c"]);
    spec.concurrency = Some(1);
    let mut world = World::new(spec, |_, _| lasts(1_000, 0));
    assert_eq!(world.run(), TaskState::Success);
    let times: Vec<u64> = world.starts.iter().map(|(_, at)| *at).collect();
    assert!(times.windows(2).all(|pair| pair[1] - pair[0] >= 1_000));
    assert_eq!(world.at_once, 1);
}

#[test]
fn r05_success_at_the_first_second_and_third_try() {
    let mut world = world(
        &["a max=5 gap=1", "b max=5 gap=1", "c max=5 gap=1"],
        |name, attempt| match name {
            "a" => exits(0),
            "b" => exits(i32::from(attempt < 2)),
            _ => exits(i32::from(attempt < 3)),
        },
    );
    assert_eq!(world.run(), TaskState::Success);
    assert_eq!(world.story("a"), "SUCCESS");
    assert_eq!(world.story("b"), "FAILED SUCCESS");
    assert_eq!(world.story("c"), "FAILED FAILED SUCCESS");
}

#[test]
fn r10_a_run_that_was_decided_and_not_begun_is_begun_once() {
    let mut world = world(&["a"], |_, _| exits(0));
    // Header, ACTIVE and WAITING are written; the command is not carried out.
    world.fuse = Some(3);
    assert_eq!(world.run(), TaskState::Success);
    assert_eq!(world.story("a"), "SUCCESS");
    assert_eq!(world.starts.len(), 1);
}

#[test]
fn r11_a_run_that_vanished_is_lost_and_run_again() {
    let mut world = world(&["a"], |_, _| lasts(1_000, 0));
    world.lead();
    world.go(100);
    world.fuse = Some(0);
    world.shims_die = true;
    world.go(60_000);
    assert_eq!(world.story("a"), "LOST SUCCESS");
    assert_eq!(world.state(), TaskState::Success);
}

#[test]
fn r15_a_task_of_final_steps_only() {
    let mut world = world(&["f final"], |_, _| exits(0));
    assert_eq!(world.run(), TaskState::Success);
    assert_eq!(world.story("f"), "SUCCESS");
}

#[test]
fn r16_a_task_of_background_steps_only_starts_nothing() {
    let mut world = world(&["e bg"], |_, _| lasts(ENDLESS, 0));
    assert_eq!(world.run(), TaskState::Success);
    assert!(world.starts.is_empty());
}

#[test]
fn r17_signals_do_not_count_for_a_thermos_step() {
    let mut world = world(&["a"], |_, attempt| Act {
        status: if attempt < 3 {
            Status::Signal(9, false)
        } else {
            Status::Code(0)
        },
        ..exits(0)
    });
    assert_eq!(world.run(), TaskState::Success);
    assert_eq!(world.story("a"), "KILLED-9 KILLED-9 SUCCESS");
}

#[test]
fn signals_count_for_a_native_step() {
    let mut world = world(&["a signals"], |_, _| Act {
        status: Status::Signal(11, true),
        ..exits(0)
    });
    assert_eq!(world.run(), TaskState::Failed);
    assert_eq!(world.story("a"), "KILLED-11");
}

#[test]
fn e01_background_steps_are_ended_with_the_task() {
    let mut world = world(&["a", "e bg"], |name, _| {
        lasts(if name == "a" { 1_000 } else { ENDLESS }, 0)
    });
    assert_eq!(world.run(), TaskState::Success);
    assert_eq!(world.story("e"), "KILLED-15");
    assert_eq!(world.living_count(), 0);
}

#[test]
fn e03_a_background_step_in_its_pause_does_not_hold_the_end_up() {
    let mut world = world(&["a", "e bg daemon gap=100"], |name, _| {
        lasts(if name == "a" { 1_000 } else { 10 }, 0)
    });
    let begun = world.ms;
    world.lead();
    world.go(2_000);
    assert_eq!(world.state(), TaskState::Success);
    assert!(world.ms - begun <= 2_000);
    assert_eq!(world.story("e"), "SUCCESS");
}

#[test]
fn e05_what_ignores_term_uses_the_budget_up() {
    let mut spec = task(&["a", "e bg", "f final"]);
    spec.finalize_timeout = Duration::from_secs(3);
    let mut world = World::new(
        spec,
        |name, _| if name == "e" { stubborn(ENDLESS) } else { exits(0) },
    );
    assert_eq!(world.run(), TaskState::Success);
    assert_eq!(world.story("e"), "KILLED-1");
    assert_eq!(world.story("f"), "");
    assert_eq!(world.stages(), "ACTIVE CLEANING SUCCESS");
}

#[test]
fn f01_final_steps_run_behind_the_others() {
    let mut world = world(&["a", "f1 final", "f2 final after f1"], |_, _| exits(0));
    assert_eq!(world.run(), TaskState::Success);
    let names: Vec<&str> = world.starts.iter().map(|(name, _)| &**name).collect();
    assert_eq!(names, ["a", "f1", "f2"]);
}

#[test]
fn f03_a_failed_final_step_does_not_fail_the_task() {
    let mut world = world(&["a", "f1 final", "f2 final after f1"], |name, _| {
        exits(i32::from(name == "f1"))
    });
    assert_eq!(world.run(), TaskState::Success);
    assert_eq!(world.story("f1"), "FAILED");
    assert_eq!(world.story("f2"), "");
}

#[test]
fn f05_final_steps_run_after_a_failure_too() {
    let mut world = world(&["a", "f final"], |name, _| exits(i32::from(name == "a")));
    assert_eq!(world.run(), TaskState::Failed);
    assert_eq!(world.story("f"), "SUCCESS");
}

#[test]
fn f06_a_slow_final_step_is_killed_when_the_budget_ends() {
    let mut spec = task(&["a", "f final", "g final after f"]);
    spec.finalize_timeout = Duration::from_secs(3);
    let mut world = World::new(spec, |name, _| lasts(if name == "f" { 60_000 } else { 10 }, 0));
    assert_eq!(world.run(), TaskState::Success);
    assert_eq!(world.story("f"), "KILLED-1");
    assert_eq!(world.story("g"), "");
}

#[test]
fn f09_a_final_step_goes_on_under_a_new_runner() {
    let mut world = world(&["a", "f final"], |name, _| {
        lasts(if name == "f" { 5_000 } else { 10 }, 0)
    });
    world.lead();
    world.go(1_000);
    world.fuse = Some(0);
    world.go(60_000);
    assert_eq!(world.state(), TaskState::Success);
    assert_eq!(world.story("f"), "SUCCESS");
}

#[test]
fn f10_the_budget_counts_from_the_first_cleaning() {
    let mut spec = task(&["a", "e bg"]);
    spec.finalize_timeout = Duration::from_secs(6);
    let mut world = World::new(
        spec,
        |name, _| if name == "e" { stubborn(ENDLESS) } else { exits(0) },
    );
    world.lead();
    let begun = world.ms;
    world.go(3_000);
    assert_eq!(world.state(), TaskState::Cleaning);
    world.runner = None;
    world.go(2_900);
    assert_eq!(world.state(), TaskState::Cleaning);
    world.go(begun + 6_100 - world.ms);
    assert_eq!(world.state(), TaskState::Success);
}

#[test]
fn f11_without_a_budget_term_and_kill_come_together() {
    let mut spec = task(&["a", "e bg", "f final"]);
    spec.finalize_timeout = Duration::ZERO;
    let mut world = World::new(
        spec,
        |name, _| if name == "e" { stubborn(ENDLESS) } else { exits(0) },
    );
    assert_eq!(world.run(), TaskState::Success);
    assert_eq!(world.story("e"), "KILLED-1");
    assert_eq!(world.story("f"), "");
}

#[test]
fn l01_a_deadlock_fails_the_task() {
    let mut spec = task(&["a", "b after a", "c after b"]);
    spec.failures = Some(2);
    let mut world = World::new(spec, |name, _| exits(i32::from(name == "b")));
    assert_eq!(world.run(), TaskState::Failed);
    assert_eq!(
        (world.story("a"), world.story("b"), world.story("c")),
        ("SUCCESS".into(), "FAILED".into(), String::new())
    );
}

#[test]
fn l02_unlimited_failures_are_a_success_if_nobody_is_blocked() {
    let mut spec = task(&["a max=2 gap=0", "b max=2 gap=0", "c"]);
    spec.failures = None;
    let mut world = World::new(spec, |name, _| exits(i32::from(name != "c")));
    assert_eq!(world.run(), TaskState::Success);
    assert_eq!(world.story("a"), "FAILED FAILED");
}

#[test]
fn l03_a_blocked_step_fails_the_task_when_the_others_are_done() {
    let mut spec = task(&["a", "b after a", "c"]);
    spec.failures = None;
    let mut world = World::new(
        spec,
        |name, _| if name == "c" { lasts(3_000, 0) } else { exits(1) },
    );
    assert_eq!(world.run(), TaskState::Failed);
    assert_eq!(world.story("c"), "SUCCESS");
    assert_eq!(world.story("b"), "");
}

#[test]
fn l04_the_second_failure_ends_the_others() {
    let mut spec = task(&["a", "b", "s1", "s2"]);
    spec.failures = Some(2);
    let mut world = World::new(spec, |name, _| match name {
        "a" | "b" => exits(1),
        _ => lasts(ENDLESS, 0),
    });
    assert_eq!(world.run(), TaskState::Failed);
    assert_eq!(world.story("s1"), "KILLED-15");
}

#[test]
fn l06_a_daemon_fails_with_its_third_failure() {
    let mut world = world(&["d daemon max=3 gap=1"], |_, attempt| {
        exits(i32::from(attempt != 2))
    });
    assert_eq!(world.run(), TaskState::Failed);
    assert_eq!(world.story("d"), "FAILED SUCCESS FAILED FAILED");
}

#[test]
fn l07_pauses_lie_between_end_and_start() {
    let mut world = world(&["a max=0 gap=2"], |_, attempt| {
        lasts(500, i32::from(attempt < 4))
    });
    assert_eq!(world.run(), TaskState::Success);
    let times: Vec<u64> = world.starts.iter().map(|(_, at)| *at).collect();
    assert_eq!(times.len(), 4);
    assert!(times.windows(2).all(|pair| pair[1] - pair[0] >= 2_500));
}

#[test]
fn l08_a_background_step_does_not_hide_a_deadlock() {
    let mut spec = task(&["a", "b after a", "e bg"]);
    spec.failures = None;
    let mut world = World::new(
        spec,
        |name, _| if name == "e" { lasts(ENDLESS, 0) } else { exits(1) },
    );
    world.lead();
    world.go(1_000);
    assert_eq!(world.state(), TaskState::Failed);
}

#[test]
fn k02_a_killed_process_is_run_again_when_nothing_is_left() {
    let mut world = world(&["a"], |_, _| lasts(3_000, 0));
    world.lead();
    world.go(100);
    world.strike("a", 9);
    world.go(60_000);
    assert_eq!(world.story("a"), "KILLED-9 SUCCESS");
    assert_eq!(world.state(), TaskState::Success);
}

#[test]
fn k07_a_kill_runs_the_final_steps() {
    let mut world = world(&["a", "f final"], |name, _| {
        lasts(if name == "a" { ENDLESS } else { 10 }, 0)
    });
    world.lead();
    world.go(100);
    world.kill(TaskState::Killed, 60, false);
    world.go(60_000);
    assert_eq!(world.state(), TaskState::Killed);
    assert_eq!(world.story("a"), "KILLED-15");
    assert_eq!(world.story("f"), "SUCCESS");
}

#[test]
fn k09_a_kill_has_its_own_budget() {
    let mut spec = task(&["a"]);
    spec.finalize_timeout = Duration::from_secs(3);
    let mut world = World::new(spec, |_, _| stubborn(ENDLESS));
    world.lead();
    world.go(100);
    world.kill(TaskState::Killed, 60, false);
    world.go(50_000);
    assert_eq!(world.state(), TaskState::Cleaning);
    world.go(11_000);
    assert_eq!(world.state(), TaskState::Killed);
    assert_eq!(world.story("a"), "KILLED-1");
}

#[test]
fn k10_lose_is_immediate_and_runs_no_final_step() {
    let mut world = world(&["a", "f final"], |_, _| stubborn(ENDLESS));
    world.lead();
    world.go(100);
    world.kill(TaskState::Lost, 0, false);
    world.go(10);
    assert_eq!(world.state(), TaskState::Lost);
    assert_eq!(world.story("a"), "KILLED-1");
    assert_eq!(world.story("f"), "");
}

#[test]
fn k11_a_kill_does_not_wait_for_a_pause() {
    let mut world = world(&["a max=0 gap=1000"], |_, _| exits(1));
    world.lead();
    world.go(100);
    world.kill(TaskState::Killed, 60, false);
    world.go(10);
    assert_eq!(world.state(), TaskState::Killed);
    assert_eq!(world.story("a"), "FAILED");
}

#[test]
fn k13_a_hard_kill_asks_nobody() {
    let mut world = world(&["a", "f final"], |_, _| lasts(ENDLESS, 0));
    world.lead();
    world.go(100);
    world.runner = None;
    world.lead();
    world.kill(TaskState::Killed, 0, true);
    world.go(10);
    assert_eq!(world.stages(), "ACTIVE KILLED");
    assert_eq!(world.story("a"), "KILLED-9");
    assert_eq!(world.story("f"), "");
    assert_eq!(world.living_count(), 0);
}

#[test]
fn x07_what_cannot_be_started_fails_with_a_reason_and_counts() {
    let mut world = world(&["a max=2 gap=0"], |_, _| Act {
        unstartable: true,
        ..exits(0)
    });
    assert_eq!(world.run(), TaskState::Failed);
    assert_eq!(world.story("a"), "FAILED FAILED");
    let history = world.runner.as_ref().expect("a runner").history();
    assert_eq!(history.steps["a"][0].code, Some(127));
    assert!(world.starts[1].1 - world.starts[0].1 >= 100, "no busy loop");
}

#[test]
fn a_run_that_takes_too_long_is_ended_and_failed() {
    let mut world = world(&["a timeout=5"], |_, _| lasts(ENDLESS, 0));
    assert_eq!(world.run(), TaskState::Failed);
    assert_eq!(world.story("a"), "FAILED-15");
}

#[test]
fn a_task_that_takes_too_long_is_failed() {
    let mut spec = task(&["a", "f final"]);
    spec.timeout = Some(Duration::from_secs(5));
    let mut world = World::new(spec, |name, _| lasts(if name == "a" { ENDLESS } else { 10 }, 0));
    assert_eq!(world.run(), TaskState::Failed);
    assert_eq!(world.story("f"), "SUCCESS");
}

#[test]
fn a_paused_task_stands_still_across_runners_and_goes_on() {
    let mut world = world(&["a", "b after a"], |_, _| lasts(1_000, 0));
    world.lead();
    world.go(100);
    world.feed(gaffer_core::task::runner::Input::Pause(true));
    world.go(10_000);
    world.runner = None;
    world.go(10_000);
    assert_eq!(world.state(), TaskState::Active);
    assert_eq!(world.starts.len(), 1);
    world.feed(gaffer_core::task::runner::Input::Pause(false));
    world.go(10_000);
    assert_eq!(world.state(), TaskState::Success);
}

#[test]
fn a_step_for_a_failure_runs_before_the_task_fails() {
    let mut world = world(
        &["build", "alarm after build:failed", "ship after build"],
        |name, _| exits(i32::from(name == "build")),
    );
    assert_eq!(world.run(), TaskState::Failed);
    assert_eq!(world.story("alarm"), "SUCCESS");
    assert_eq!(world.story("ship"), "");
}

#[test]
fn k14_a_held_task_takes_over_ends_and_goes_nowhere_before_it_is_killed() {
    let mut world = world(&["a", "b after a"], |name, _| match name {
        "a" => lasts(1_000, 0),
        _ => exits(0),
    });
    world.go(500);
    assert_eq!(world.starts.len(), 1);
    world.feed(Input::Hold(true));
    world.go(5_000);
    assert_eq!((world.story("a").as_str(), world.starts.len()), ("SUCCESS", 1));
    assert_eq!(
        world.stages(),
        "ACTIVE",
        "its end is taken over, and nothing follows"
    );
    world.kill(TaskState::Killed, 60, true);
    assert_eq!(world.run(), TaskState::Killed);
    assert_eq!(
        (world.stages().as_str(), world.starts.len()),
        ("ACTIVE KILLED", 1)
    );
}

#[test]
fn e02_a_background_step_may_fail_for_good() {
    let mut world = world(&["a", "e bg max=2 gap=1"], |name, _| match name {
        "a" => lasts(10_000, 0),
        _ => exits(1),
    });
    assert_eq!(world.run(), TaskState::Success);
    assert_eq!(world.story("e"), "FAILED FAILED");
}

#[test]
fn e04_a_background_step_that_ends_badly_when_asked_to_harms_nobody() {
    let mut world = world(&["a", "e bg"], |name, _| match name {
        "a" => lasts(1_000, 0),
        _ => Act {
            on_term: Some(Status::Code(1)),
            ..lasts(ENDLESS, 0)
        },
    });
    assert_eq!(world.run(), TaskState::Success);
    assert_eq!(world.story("e"), "FAILED");
}

#[test]
fn f02_final_steps_begin_when_the_others_and_those_before_them_have_ended() {
    let mut world = world(&["a", "f1 final", "f2 final after f1"], |_, _| lasts(1_000, 0));
    assert_eq!(world.run(), TaskState::Success);
    let times: Vec<u64> = world.starts.iter().map(|(_, at)| *at).collect();
    assert!(
        times.windows(2).all(|pair| pair[1] - pair[0] >= 1_000),
        "{times:?}"
    );
    assert_eq!(world.at_once, 1);
}

#[test]
fn f04_a_final_step_that_fails_for_good_does_not_stop_another() {
    let mut world = world(&["a", "f1 final max=2 gap=1", "f2 final"], |name, _| {
        exits(i32::from(name == "f1"))
    });
    assert_eq!(world.run(), TaskState::Success);
    assert_eq!(world.story("f1"), "FAILED FAILED");
    assert_eq!(world.story("f2"), "SUCCESS");
}

#[test]
fn f07_an_endless_final_step_runs_until_the_budget_ends() {
    let mut spec = task(&["a", "f final daemon gap=1"]);
    spec.finalize_timeout = Duration::from_secs(6);
    let mut world = World::new(spec, |_, _| exits(0));
    assert_eq!(world.run(), TaskState::Success);
    let story = world.story("f");
    assert!(story.starts_with("SUCCESS SUCCESS SUCCESS"), "{story}");
    assert_eq!(world.living_count(), 0);
}

#[test]
fn f08_final_steps_are_as_many_at_once_as_others() {
    let mut spec = task(&["f1 final", "f2 final", "f3 final"]);
    spec.concurrency = Some(1);
    let mut world = World::new(spec, |_, _| lasts(2_000, 0));
    assert_eq!(world.run(), TaskState::Success);
    assert_eq!(world.at_once, 1);
    let times: Vec<u64> = world.starts.iter().map(|(_, at)| *at).collect();
    assert_eq!(times.len(), 3);
    assert!(
        times.windows(2).all(|pair| pair[1] - pair[0] >= 2_000),
        "{times:?}"
    );
}

#[test]
fn l05_one_failure_of_two_is_a_success() {
    let mut spec = task(&["a", "b"]);
    spec.failures = Some(2);
    let mut world = World::new(spec, |name, _| exits(i32::from(name == "a")));
    assert_eq!(world.run(), TaskState::Success);
    assert_eq!(
        (world.story("a"), world.story("b")),
        ("FAILED".into(), "SUCCESS".into())
    );
}

#[test]
fn l09_an_endless_step_keeps_a_task_alive_below_its_limit() {
    let mut spec = task(&["d daemon gap=1", "a"]);
    spec.failures = Some(2);
    let mut world = World::new(spec, |name, _| match name {
        "d" => lasts(1_000, 0),
        _ => exits(1),
    });
    world.lead();
    world.go(60_000);
    assert_eq!(world.state(), TaskState::Active);
    assert_eq!(world.story("a"), "FAILED");
    assert!(world.story("d").starts_with("SUCCESS SUCCESS SUCCESS"));
}

#[test]
fn k08_a_step_that_ends_well_when_asked_to_has_succeeded_in_a_killed_task() {
    let mut world = world(&["a"], |_, _| Act {
        on_term: Some(Status::Code(0)),
        ..lasts(ENDLESS, 0)
    });
    world.lead();
    world.go(100);
    world.kill(TaskState::Killed, 60, false);
    world.go(60_000);
    assert_eq!(world.story("a"), "SUCCESS");
    assert_eq!(world.state(), TaskState::Killed);
}
