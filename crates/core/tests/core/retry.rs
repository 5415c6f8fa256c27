//! The retry policy alone: pace, end, crash loops.

use crate::bench::{ms, s};
use gaffer_core::job::{Flapping, Retry};
use gaffer_core::retry::{Ended, History, Verdict, delay};
use gaffer_core::time::{Duration, Mono};
use proptest::prelude::*;

fn plain() -> Retry {
    Retry {
        jitter: 0.0,
        ..Retry::default()
    }
}

fn ended(at_s: u64, ok: bool, healthy: Duration) -> Ended {
    Ended {
        at: Mono(at_s * 1_000_000_000),
        ok,
        never_ran: false,
        healthy,
    }
}

#[test]
fn delays_double_up_to_the_cap() {
    let delays: Vec<Duration> = (1..=11).map(|streak| delay(&plain(), streak, 0.5)).collect();
    let expected = [
        100, 200, 400, 800, 1_600, 3_200, 6_400, 12_800, 25_600, 30_000, 30_000,
    ]
    .map(ms);
    assert_eq!(delays, expected);
}

#[test]
fn a_list_of_delays_repeats_its_last_entry_and_an_increment_adds() {
    let list = Retry {
        delay: vec![s(1), s(5)],
        ..plain()
    };
    assert_eq!(
        [1, 2, 3, 9].map(|streak| delay(&list, streak, 0.5)),
        [s(1), s(5), s(5), s(5)]
    );
    let adding = Retry {
        delay: vec![s(1)],
        increment: Some(s(2)),
        ..plain()
    };
    assert_eq!(
        [1, 2, 3].map(|streak| delay(&adding, streak, 0.5)),
        [s(1), s(3), s(5)]
    );
}

#[test]
fn hazard_24_a_healthy_spell_forgets_failures_and_delay() {
    let mut history = History::default();
    for k in 1..=5 {
        let verdict = history.ended(ended(k, false, Duration::ZERO), &plain(), None, 0.5);
        assert_eq!(
            verdict,
            Verdict::Again {
                after: ms(100 << (k - 1)),
                failures: k as u32
            }
        );
    }
    let verdict = history.ended(ended(100, false, s(60)), &plain(), None, 0.5);
    assert_eq!(
        verdict,
        Verdict::Again {
            after: ms(100),
            failures: 1
        }
    );
}

#[test]
fn hazard_24_by_default_it_never_gives_up() {
    let mut history = History::default();
    for k in 1..10_000 {
        let verdict = history.ended(ended(k, false, Duration::ZERO), &plain(), None, 0.9);
        assert!(matches!(verdict, Verdict::Again { after, .. } if after <= s(30)));
    }
}

#[test]
fn attempts_bound_failures_in_a_row_and_not_good_ends() {
    let retry = Retry {
        attempts: Some(3),
        ..plain()
    };
    let mut history = History::default();
    for ok in [false, true, false, true] {
        assert!(matches!(
            history.ended(ended(1, ok, Duration::ZERO), &retry, None, 0.5),
            Verdict::Again { .. }
        ));
    }
    let verdict = history.ended(ended(1, false, Duration::ZERO), &retry, None, 0.5);
    assert_eq!(
        verdict,
        Verdict::GiveUp {
            failures: 3,
            flapping: false
        }
    );
}

#[test]
fn flapping_pauses_so_many_rounds_and_then_gives_up() {
    let flapping = Flapping {
        exits: 3,
        window: s(30),
        pause: s(7),
        rounds: Some(2),
        whole_job: false,
    };
    let mut history = History::default();
    let mut verdicts = Vec::new();
    for k in 0..9 {
        verdicts.push(history.ended(ended(k, true, s(1)), &plain(), Some(&flapping), 0.5));
    }
    let round = |verdict: &Verdict| match verdict {
        Verdict::Again { .. } => 0,
        Verdict::Pause { round, pause, .. } if *pause == s(7) => *round,
        Verdict::GiveUp { flapping: true, .. } => 9,
        other => panic!("{other:?}"),
    };
    assert_eq!(
        verdicts.iter().map(round).collect::<Vec<_>>(),
        [0, 0, 1, 0, 0, 2, 0, 0, 9]
    );
}

#[test]
fn exits_outside_the_window_are_no_crash_loop_and_a_longer_life_forgets_the_rounds() {
    let flapping = Flapping {
        exits: 2,
        window: s(10),
        pause: s(7),
        rounds: Some(1),
        whole_job: false,
    };
    let mut history = History::default();
    let mut end = |at, lived| history.ended(ended(at, true, s(lived)), &plain(), Some(&flapping), 0.5);
    assert!(matches!(end(0, 1), Verdict::Again { .. }));
    assert!(matches!(end(11, 1), Verdict::Again { .. }));
    assert!(matches!(end(12, 1), Verdict::Pause { round: 1, .. }));
    assert!(
        matches!(end(100, 11), Verdict::Again { .. }),
        "the history was cleared"
    );
    assert!(
        matches!(end(101, 1), Verdict::Pause { round: 1, .. }),
        "the long life gave the rounds back"
    );
}

#[test]
fn a_start_that_never_ran_waits_at_least_a_tenth_of_a_second() {
    let retry = Retry {
        delay: vec![Duration::ZERO],
        ..plain()
    };
    let never = Ended {
        never_ran: true,
        ..ended(1, false, Duration::ZERO)
    };
    let verdict = History::default().ended(never, &retry, None, 0.5);
    assert_eq!(
        verdict,
        Verdict::Again {
            after: ms(100),
            failures: 1
        }
    );
    let verdict = History::default().ended(ended(1, false, Duration::ZERO), &retry, None, 0.5);
    assert_eq!(
        verdict,
        Verdict::Again {
            after: Duration::ZERO,
            failures: 1
        }
    );
}

proptest! {
    #[test]
    fn no_delay_is_above_the_cap_or_outside_the_jitter(
        first in 0u64..100_000, factor in 0.0f64..10.0, cap in 0u64..1_000_000, jitter in 0.0f64..1.0,
        streak in 0u32..100_000, dice in 0.0f64..1.0, increment in proptest::option::of(0u64..100_000),
    ) {
        let retry = Retry {
            delay: vec![ms(first)], factor, max_delay: ms(cap), jitter, increment: increment.map(ms), ..Retry::default()
        };
        let chosen = delay(&retry, streak, dice);
        let middle = delay(&Retry { jitter: 0.0, ..retry.clone() }, streak, dice);
        prop_assert!(chosen <= ms(cap) + Duration::from_micros(1));
        let slack = Duration::from_micros(1);
        prop_assert!(chosen + slack >= middle.mul_f64(1.0 - jitter));
        prop_assert!(chosen <= middle.mul_f64(1.0 + jitter) + slack);
    }

    #[test]
    fn delays_never_shrink_as_failures_go_on(first in 0u64..10_000, factor in 1.0f64..4.0, streak in 1u32..60) {
        let retry = Retry { delay: vec![ms(first)], factor, jitter: 0.0, ..Retry::default() };
        prop_assert!(delay(&retry, streak + 1, 0.5) >= delay(&retry, streak, 0.5));
    }

    #[test]
    fn a_history_recalled_is_the_history_lived(ends in proptest::collection::vec((0u64..1_000, any::<bool>(), 0u64..100), 0..40)) {
        let flapping = Flapping { exits: 4, window: s(30), pause: s(7), rounds: Some(3), whole_job: false };
        let (mut lived, mut recalled) = (History::default(), History::default());
        let mut at = 0;
        for (pause, ok, healthy) in ends {
            at += pause;
            lived.ended(ended(at, ok, s(healthy)), &plain(), Some(&flapping), 0.3);
            recalled.recall(ended(at, ok, s(healthy)), &plain(), Some(&flapping));
        }
        prop_assert_eq!(lived, recalled);
    }
}
