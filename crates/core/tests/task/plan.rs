//! The planner, scenario by scenario (P01 to P39), and that a decision costs the same in large tasks.

use crate::build::task;
use gaffer_core::task::plan::{End, Ending, Phase, Plan};
use gaffer_core::task::spec::{GraphError, Task};
use gaffer_core::time::{Duration, Mono};

const FAIL: Ending = Ending::Failure { fatal: false };

fn at(seconds: u64) -> Mono {
    Mono(seconds * 1_000_000_000)
}

struct Bench {
    task: Task,
    plan: Plan,
}

impl Bench {
    fn new(lines: &[&str]) -> Bench {
        let task = task(lines);
        task.check().expect("a graph that can be walked");
        let plan = Plan::new(&task, false);
        Bench { task, plan }
    }

    fn step(&self, name: &str) -> usize {
        self.task.step(name).expect("a step")
    }

    fn runnable(&mut self, now: u64) -> Vec<&str> {
        let steps = self.plan.runnable(at(now));
        steps
            .into_iter()
            .map(|step| &*self.task.steps[step].name)
            .collect()
    }

    fn begin(&mut self, name: &str) {
        self.plan.begin(self.step(name)).expect("may begin");
    }

    fn end(&mut self, name: &str, ending: Ending, now: u64) {
        let step = self.step(name);
        let end = End {
            ending,
            at: at(now),
            pause_min: Duration::ZERO,
            dice: 0.5,
        };
        self.plan
            .end(step, &self.task.steps[step], self.task.runs_max, end)
            .expect("may end");
    }

    fn run(&mut self, name: &str, ending: Ending, now: u64) {
        self.begin(name);
        self.end(name, ending, now);
    }

    fn phase(&self, name: &str) -> Phase {
        self.plan.phase(self.step(name))
    }
}

#[test]
fn p01_a_plan_without_steps_is_complete() {
    let mut bench = Bench::new(&[]);
    assert!(bench.runnable(0).is_empty());
    assert!(bench.plan.is_complete());
}

#[test]
fn p02_steps_without_order_are_all_runnable() {
    let mut bench = Bench::new(&["p1", "p2", "p3"]);
    assert_eq!(bench.runnable(0), ["p1", "p2", "p3"]);
    assert_eq!(bench.plan.running().count(), 0);
    assert!(!bench.plan.is_complete());
}

#[test]
fn p03_one_that_runs_is_not_runnable() {
    let mut bench = Bench::new(&["p1", "p2", "p3"]);
    bench.begin("p2");
    assert_eq!(bench.runnable(0), ["p1", "p3"]);
}

#[test]
fn p04_one_that_does_not_run_cannot_end() {
    let mut bench = Bench::new(&["p1", "p2", "p3"]);
    let step = bench.step("p3");
    let end = End {
        ending: Ending::Success,
        at: at(0),
        pause_min: Duration::ZERO,
        dice: 0.5,
    };
    let refused = bench.plan.end(step, &bench.task.steps[step], None, end);
    assert_eq!(refused.expect_err("not running").what, "ended");
    assert_eq!(bench.phase("p3"), Phase::Ready);
}

#[test]
fn p05_one_that_is_over_cannot_begin_again() {
    let mut bench = Bench::new(&["p1"]);
    bench.run("p1", Ending::Success, 1);
    assert_eq!(bench.plan.begin(0).expect_err("over").phase, Phase::Finished);
}

#[test]
fn p06_complete_only_after_the_last() {
    let mut bench = Bench::new(&["p1", "p2", "p3"]);
    for name in ["p1", "p2", "p3"] {
        assert!(!bench.plan.is_complete());
        bench.run(name, Ending::Success, 1);
    }
    assert!(bench.plan.is_complete());
}

#[test]
fn p07_in_a_chain_only_the_first_may_begin() {
    let mut bench = Bench::new(&["p1", "p2 after p1", "p3 after p2"]);
    assert_eq!(bench.runnable(0), ["p1"]);
    assert!(bench.plan.begin(1).is_err());
    assert!(bench.plan.begin(2).is_err());
}

#[test]
fn p08_the_second_follows_the_first() {
    let mut bench = Bench::new(&["p1", "p2 after p1", "p3 after p2"]);
    bench.run("p1", Ending::Success, 1);
    assert_eq!(bench.runnable(1), ["p2"]);
}

#[test]
fn p09_a_chain_beside_others() {
    let mut bench = Bench::new(&["p1", "p2 after p1", "q", "r"]);
    assert_eq!(bench.runnable(0), ["p1", "q", "r"]);
}

#[test]
fn p10_cycles_are_rejected_with_their_path() {
    for lines in [
        &["p1 after p2", "p2 after p1"][..],
        &["p1 after p3", "p2 after p1", "p3 after p2"],
        &["p1 after p1"],
    ] {
        let GraphError::Cycle(path) = task(lines).check().expect_err("a cycle") else {
            panic!("{lines:?} is a cycle");
        };
        assert_eq!(path.first(), path.last());
        assert_eq!(path.len(), lines.len() + 1);
    }
}

#[test]
fn p11_only_a_background_step_is_always_complete() {
    let mut bench = Bench::new(&["e bg"]);
    assert!(bench.plan.is_complete());
    bench.begin("e");
    assert!(bench.plan.is_complete());
    bench.end("e", FAIL, 1);
    assert!(bench.plan.is_complete());
    assert_eq!(bench.phase("e"), Phase::Finished);
    assert_eq!(bench.plan.failed(), 0);
}

#[test]
fn p12_background_steps_do_not_keep_a_plan_open() {
    let mut bench = Bench::new(&["p1", "p2 bg"]);
    bench.run("p1", FAIL, 1);
    assert!(bench.plan.is_complete());
    bench.run("p2", FAIL, 2);
    assert_eq!(bench.plan.failed(), 1);
}

#[test]
fn p13_an_endless_step_may_fail() {
    let mut bench = Bench::new(&["d daemon max=1"]);
    bench.run("d", FAIL, 1);
    assert!(bench.plan.is_complete());
    assert_eq!(bench.phase("d"), Phase::Failed);
}

#[test]
fn p14_the_second_failure_of_two() {
    let mut bench = Bench::new(&["d daemon max=2 gap=0"]);
    bench.run("d", FAIL, 1);
    assert!(!bench.plan.is_complete());
    assert_eq!(bench.runnable(1), ["d"]);
    bench.run("d", FAIL, 2);
    assert!(bench.plan.is_complete());
}

#[test]
fn p15_a_success_does_not_reset_failures() {
    let mut bench = Bench::new(&["d daemon max=2 gap=0"]);
    bench.run("d", FAIL, 1);
    bench.run("d", Ending::Success, 2);
    bench.run("d", FAIL, 3);
    assert!(bench.plan.is_complete());
}

#[test]
fn p16_an_endless_background_step_does_not_matter() {
    let mut bench = Bench::new(&["p1", "d daemon bg"]);
    bench.begin("d");
    bench.run("p1", Ending::Success, 1);
    assert!(bench.plan.is_complete());
}

#[test]
fn p17_nothing_may_wait_for_an_endless_step() {
    let wrong = task(&["d daemon", "p2 after d"]).check();
    assert!(matches!(wrong, Err(GraphError::AfterEndless(..))));
    let also = task(&["d daemon", "e daemon after d"]).check();
    assert!(matches!(also, Err(GraphError::AfterEndless(..))));
    task(&["p", "d daemon after p"])
        .check()
        .expect("the other way round is fine");
}

#[test]
fn p18_nothing_that_counts_may_wait_for_a_background_step() {
    let wrong = task(&["e bg", "p after e"]).check();
    assert!(matches!(wrong, Err(GraphError::AfterBackground(..))));
    task(&["e bg", "f bg after e"])
        .check()
        .expect("both in the background");
    task(&["p", "e bg after p"]).check().expect("the other way round");
}

#[test]
fn p19_success_lets_the_next_one_run() {
    let mut bench = Bench::new(&["p1", "p2 after p1"]);
    bench.run("p1", Ending::Success, 1);
    assert_eq!(bench.runnable(1), ["p2"]);
    assert!(!bench.plan.is_complete());
}

#[test]
fn p20_failure_for_good_is_a_deadlock_for_those_behind() {
    let mut bench = Bench::new(&["p1", "p2 after p1"]);
    bench.run("p1", FAIL, 1);
    assert!(bench.runnable(100).is_empty());
    assert!(!bench.plan.is_complete());
    assert!(bench.plan.is_deadlocked());
}

#[test]
fn p21_the_gap_counts_from_the_end() {
    let mut bench = Bench::new(&["d daemon gap=10 max=2"]);
    bench.run("d", Ending::Success, 5);
    assert!(bench.runnable(5).is_empty());
    assert!(bench.runnable(10).is_empty());
    assert_eq!(bench.runnable(15), ["d"]);
}

#[test]
fn p22_the_gap_counts_after_a_failure_too() {
    let mut bench = Bench::new(&["d daemon gap=10 max=2"]);
    bench.run("d", Ending::Success, 5);
    bench.run("d", FAIL, 10);
    assert!(bench.runnable(15).is_empty());
    assert_eq!(bench.runnable(20), ["d"]);
    bench.run("d", FAIL, 15);
    assert!(bench.runnable(1000).is_empty());
    assert_eq!(bench.phase("d"), Phase::Failed);
}

#[test]
fn p23_three_gaps() {
    let mut bench = Bench::new(&["d3 daemon gap=3", "d5 daemon gap=5", "d7 daemon gap=7"]);
    bench.run("d3", Ending::Success, 0);
    assert_eq!(bench.plan.wait_min(at(0)), Some(Duration::ZERO));
    assert_eq!(bench.runnable(3), ["d3", "d5", "d7"]);
}

#[test]
fn p24_the_smallest_wait_counts() {
    let mut bench = Bench::new(&["d3 daemon gap=3", "d5 daemon gap=5", "d7 daemon gap=7"]);
    bench.run("d7", Ending::Success, 1);
    bench.begin("d5");
    bench.begin("d3");
    assert_eq!(bench.plan.wait_min(at(2)), Some(Duration::from_secs(6)));
    bench.end("d5", Ending::Success, 2);
    bench.end("d3", Ending::Success, 2);
    assert_eq!(bench.plan.wait_min(at(3)), Some(Duration::from_secs(2)));
    assert_eq!(bench.runnable(5), ["d3"]);
    assert_eq!(bench.runnable(7), ["d3", "d5"]);
    assert_eq!(bench.runnable(8), ["d3", "d5", "d7"]);
}

#[test]
fn p25_when_all_failed_nothing_waits() {
    let mut bench = Bench::new(&["a", "b"]);
    bench.run("a", FAIL, 1);
    bench.run("b", FAIL, 1);
    assert!(bench.runnable(9).is_empty());
    assert_eq!(bench.plan.wait_min(at(9)), None);
}

#[test]
fn p26_pinned_as_failed_is_for_good() {
    let mut bench = Bench::new(&["a max=9"]);
    bench.begin("a");
    bench.plan.pin_failed(0).expect("runs");
    assert!(bench.runnable(1000).is_empty());
    assert_eq!(bench.phase("a"), Phase::Failed);
}

#[test]
fn p27_without_a_limit_an_endless_step_never_ends() {
    let mut bench = Bench::new(&["d daemon max=0 gap=0"]);
    for turn in 0..10 {
        bench.run("d", FAIL, turn);
        bench.run("d", Ending::Success, turn);
    }
    assert_eq!(bench.runnable(20), ["d"]);
}

#[test]
fn p28_without_a_limit_a_success_still_finishes() {
    let mut bench = Bench::new(&["a max=0 gap=0"]);
    bench.run("a", FAIL, 1);
    assert_eq!(bench.runnable(1), ["a"]);
    bench.run("a", Ending::Success, 2);
    assert_eq!(bench.phase("a"), Phase::Finished);
}

#[test]
fn p29_a_lost_run_is_no_failure_but_has_its_gap() {
    let mut bench = Bench::new(&["a max=2 gap=1"]);
    bench.run("a", FAIL, 1);
    bench.run("a", Ending::Lost, 2);
    assert!(bench.runnable(2).is_empty());
    assert_eq!(bench.runnable(3), ["a"]);
    bench.run("a", FAIL, 3);
    assert_eq!(bench.phase("a"), Phase::Failed);
}

#[test]
fn p30_each_plan_sees_its_own_steps() {
    let task = task(&["p1", "p2 after p1", "f1 final", "f2 final after f1"]);
    task.check().expect("two groups");
    assert_eq!(Plan::new(&task, false).runnable(at(0)), [0]);
    assert_eq!(Plan::new(&task, true).runnable(at(0)), [2]);
    let mixed = crate::build::task(&["p1", "f1 final after p1"]).check();
    assert!(matches!(mixed, Err(GraphError::Mixed(..))));
}

#[test]
fn p31_the_cap_counts_all_runs() {
    let mut bench = Bench::new(&["a max=100 gap=0"]);
    bench.task.runs_max = Some(3);
    for ending in [FAIL, Ending::Lost, FAIL] {
        bench.run("a", ending, 1);
    }
    assert!(bench.runnable(100).is_empty());
    assert_eq!(bench.phase("a"), Phase::Failed);
}

#[test]
fn p32_the_cap_ends_an_endless_step() {
    let mut bench = Bench::new(&["d daemon max=0 gap=0"]);
    bench.task.runs_max = Some(3);
    for ending in [FAIL, Ending::Success, Ending::Lost] {
        bench.run("d", ending, 1);
    }
    assert!(bench.runnable(100).is_empty());
}

#[test]
fn p33_the_cap_neither_fails_a_background_step_nor_a_success() {
    let mut bench = Bench::new(&["d daemon bg gap=0", "p"]);
    bench.task.runs_max = Some(3);
    for _ in 0..3 {
        bench.run("d", Ending::Success, 1);
    }
    assert_eq!(bench.runnable(9), ["p"]);
    assert_eq!(bench.phase("d"), Phase::Finished);
    assert!(bench.plan.is_healthy(Some(1)));
    let mut once = Bench::new(&["p"]);
    once.task.runs_max = Some(1);
    once.run("p", Ending::Success, 1);
    assert_eq!(once.phase("p"), Phase::Finished);
}

#[test]
fn p34_an_unknown_step_in_an_order_is_rejected() {
    let mut wrong = task(&["a"]);
    wrong.steps[0]
        .after
        .push((7, gaffer_core::task::spec::When::Done));
    assert!(matches!(wrong.check(), Err(GraphError::Unknown(..))));
    let twice = task(&["a", "a"]);
    assert!(matches!(twice.check(), Err(GraphError::Twice(..))));
}

#[test]
fn p35_a_background_step_that_failed_lets_others_behind_it_run() {
    let mut bench = Bench::new(&["e1 bg", "e2 bg after e1"]);
    bench.run("e1", FAIL, 1);
    assert_eq!(bench.runnable(1), ["e2"]);
}

#[test]
fn p36_a_background_step_behind_a_failure_never_runs() {
    let mut bench = Bench::new(&["a", "e bg after a", "b"]);
    bench.run("a", FAIL, 1);
    bench.run("b", Ending::Success, 1);
    assert!(bench.runnable(100).is_empty());
    assert!(bench.plan.is_complete());
}

#[test]
fn p37_the_first_run_waits_for_no_gap() {
    let mut bench = Bench::new(&["a gap=1000"]);
    assert_eq!(bench.plan.wait_min(at(0)), Some(Duration::ZERO));
}

#[test]
fn p38_as_many_as_there_are_slots() {
    let mut bench = Bench::new(&["a", "b", "c", "d", "e", "f"]);
    bench.begin("a");
    assert_eq!(bench.plan.picks(at(0), Some(2), false), [1]);
}

#[test]
fn p39_one_that_waits_holds_no_slot() {
    let mut bench = Bench::new(&["a max=2 gap=10", "b"]);
    bench.run("a", FAIL, 1);
    assert_eq!(bench.plan.picks(at(2), Some(1), false), [1]);
}

#[test]
fn a_step_that_waits_for_a_failure_runs_only_then() {
    let mut good = Bench::new(&["build", "alarm after build:failed", "note after alarm:ended"]);
    good.run("build", Ending::Success, 1);
    assert_eq!(good.phase("alarm"), Phase::Moot);
    assert_eq!(good.runnable(1), ["note"], "what will never run has ended");
    good.run("note", Ending::Success, 2);
    assert!(good.plan.is_complete());
    assert!(good.plan.is_healthy(Some(1)));

    let mut bad = Bench::new(&["build", "alarm after build:failed", "ship after build"]);
    bad.run("build", FAIL, 1);
    assert!(!bad.plan.is_healthy(Some(1)));
    assert!(bad.plan.is_handling());
    assert_eq!(bad.plan.picks(at(1), None, true), [1]);
    bad.run("alarm", Ending::Success, 2);
    assert!(!bad.plan.is_handling());
    assert!(bad.plan.is_deadlocked());
}

/// Steps of work for a whole chain and a whole fan, by the number of decisions asked for: it must not grow with the task.
#[test]
fn a_decision_costs_the_same_in_large_tasks() {
    for count in [1_000_usize, 50_000] {
        let mut large = task(&["a"]);
        let step = large.steps[0].clone();
        large.steps = (0..count)
            .map(|at| {
                let mut step = step.clone();
                step.name = format!("s{at}").into();
                // Chains of ten beside each other.
                if at % 10 != 0 {
                    step.after = vec![(at - 1, gaffer_core::task::spec::When::Done)];
                }
                step
            })
            .collect();
        let mut plan = Plan::new(&large, false);
        let mut done = 0;
        while !plan.is_complete() {
            let picks = plan.picks(at(0), Some(64), false);
            assert!(!picks.is_empty() && picks.len() <= 64);
            for step in picks {
                plan.begin(step).expect("picked");
                let end = End {
                    ending: Ending::Success,
                    at: at(0),
                    pause_min: Duration::ZERO,
                    dice: 0.5,
                };
                plan.end(step, &large.steps[step], None, end).expect("runs");
                done += 1;
            }
        }
        assert_eq!(done, count);
    }
}
