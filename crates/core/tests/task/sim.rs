//! The crash matrix in the simulated world: twenty graphs, the runner killed behind any record, command and fact. The final
//! state and the successes must be those of the undisturbed run.

use crate::build::task;
use crate::world::{Act, Script, World, exits, lasts};
use gaffer_core::io::Status;
use gaffer_core::retry::Dice;
use gaffer_core::task::fold::History;
use gaffer_core::task::spec::Task;

fn all_good(_: &str, _: u32) -> Act {
    lasts(700, 0)
}

/// Every name that holds an `x` fails for good, every one with a `y` fails once, every one with a `z` dies once by a signal.
fn by_name(name: &str, attempt: u32) -> Act {
    let long = if name.contains('e') { 10_000_000 } else { 900 };
    match name {
        name if name.contains('x') => exits(1),
        name if name.contains('y') => exits(i32::from(attempt == 1)),
        name if name.contains('z') && attempt == 1 => Act {
            status: Status::Signal(9, false),
            ..exits(0)
        },
        _ => lasts(long, 0),
    }
}

fn graphs() -> Vec<(Task, Script)> {
    let plain: [&[&str]; 14] = [
        &["a"],
        &["a", "b after a", "c after b", "d after c"],
        &["a", "b after a", "c after a", "d after b,c"],
        &["a", "b", "c", "d", "f"],
        &["a", "e1 bg"],
        &["a", "e1 bg", "e2 bg after e1"],
        &["a", "f1 final", "f2 final after f1"],
        &["y1 max=3 gap=1", "b after y1"],
        &["x1 max=2 gap=1", "b after x1", "f final"],
        &["z1 gap=1", "b after z1"],
        &["a", "x1 bg", "f final"],
        &["f final"],
        &[
            "y1 max=2 gap=0",
            "y2 max=2 gap=3",
            "c after y1,y2",
            "f1 final",
            "fy final max=2 gap=1",
        ],
        &[
            "a",
            "b after a",
            "x1 after b",
            "ok after x1:failed",
            "no after a:failed",
            "any after no:ended",
        ],
    ];
    let mut graphs: Vec<(Task, Script)> = plain
        .iter()
        .map(|lines| (task(lines), by_name as Script))
        .collect();
    let mut serial = task(&["a", "b", "c", "d after a", "y1 max=2 gap=1"]);
    serial.concurrency = Some(1);
    graphs.push((serial, by_name));
    let mut two = task(&["x1", "x2", "a", "b after a", "c after b"]);
    two.failures = Some(2);
    graphs.push((two, by_name));
    let mut any = task(&["x1", "x2 max=2 gap=1", "a", "b after a"]);
    any.failures = None;
    graphs.push((any, by_name));
    let mut blocked = task(&["x1", "b after x1", "c"]);
    blocked.failures = None;
    graphs.push((blocked, by_name));
    let mut capped = task(&["z1 gap=0", "d daemon bg gap=1", "a after z1"]);
    capped.runs_max = Some(4);
    graphs.push((capped, by_name));
    let wide: Vec<String> = (0..12)
        .map(|at| format!("w{at}"))
        .chain(["end after w0,w5,w11".to_owned()])
        .collect();
    let wide: Vec<&str> = wide.iter().map(String::as_str).collect();
    graphs.push((task(&wide), all_good));
    graphs
}

/// Successes of steps that count: how often a background step comes round depends on the time a kill costs.
fn effects(world: &World) -> Vec<(String, u32)> {
    let counts = |name: &str| {
        let step = world.spec.step(name).expect("a step");
        !world.spec.steps[step].background
    };
    world
        .successes
        .iter()
        .filter(|(name, _)| counts(name))
        .map(|(name, count)| (name.to_string(), *count))
        .collect()
}

#[test]
fn there_are_twenty_graphs() {
    assert_eq!(graphs().len(), 20);
}

#[test]
fn killed_behind_any_record_command_or_fact_a_task_ends_as_undisturbed() {
    for (index, (spec, script)) in graphs().into_iter().enumerate() {
        let mut undisturbed = World::new(spec.clone(), script);
        let state = undisturbed.run();
        for fuse in 0..10_000 {
            let mut world = World::new(spec.clone(), script);
            world.fuse = Some(fuse);
            let ended = world.run();
            let burnt = world.fuse.is_none();
            assert_eq!(ended, state, "graph {index}, killed behind {fuse}");
            assert_eq!(
                effects(&world),
                effects(&undisturbed),
                "graph {index}, killed behind {fuse}"
            );
            check_end(&world);
            if !burnt {
                break;
            }
        }
    }
}

#[test]
fn killed_a_thousand_times_at_random_nothing_is_run_twice() {
    let graphs = graphs();
    let mut dice = Dice::new(20_261_125);
    let mut kills = 0;
    while kills < 1_000 {
        let (spec, script) = &graphs[(dice.next_u64() % graphs.len() as u64) as usize];
        let mut undisturbed = World::new(spec.clone(), *script);
        let state = undisturbed.run();
        let mut world = World::new(spec.clone(), *script);
        for _ in 0..50 {
            world.fuse = Some((dice.next_u64() % 12) as u32);
            if world.runner.is_none() {
                world.lead();
            }
            world.go(dice.next_u64() % 1_500);
            kills += u32::from(world.fuse.is_none());
        }
        world.fuse = None;
        world.go(24 * 3_600_000);
        assert_eq!(world.state(), state);
        assert_eq!(effects(&world), effects(&undisturbed));
        check_end(&world);
    }
}

/// What holds at every end.
fn check_end(world: &World) {
    let runner = world.runner.as_ref().expect("a runner");
    let folded = History::replay(&world.stream).expect("what was written can be read");
    assert_eq!(runner.history(), &folded, "the stream is the state");
    assert_eq!(world.finished, Some(folded.state()), "its file has moved");
    assert_eq!(world.living_count(), 0, "no process survives its task");
    for (name, runs) in &folded.steps {
        let step = &world.spec.steps[world.spec.step(name).expect("a step")];
        let successes = runs.iter().filter(|run| run.state.upper() == "SUCCESS").count();
        assert!(step.restart_always || successes <= 1, "{name} succeeded twice");
    }
}
