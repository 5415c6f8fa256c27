//! `[schedule.X]`: calendars with their zones, and what is wrong with a table.

mod fixture;

use fixture::toml;
use gaffer_config::{Calendar, LoadedSchedule, load_schedule_json};
use gaffer_core::schedule::{Does, JobAction, Look, Missed, Overlap, Schedule, Seen, Skipped, look};
use gaffer_core::time::{Duration, Wall};

fn at(text: &str) -> Wall {
    let at: jiff::Timestamp = text.parse().expect("a time");
    Wall(at.as_millisecond())
}

fn cron(text: &str, zone: &str) -> Calendar {
    Calendar::cron(text, Calendar::zone(zone).expect("a zone")).expect("a calendar")
}

/// The next ticks as the wall of the zone shows them.
fn next(calendar: &Calendar, from: &str, count: usize) -> Vec<String> {
    let mut after = at(from);
    let mut all = Vec::new();
    while all.len() < count {
        let Some(tick) = calendar.next(at(from), after) else {
            break;
        };
        all.push(calendar.local(tick));
        after = tick;
    }
    all
}

/// Scenario 12: a local time that does not exist runs once, after the gap; one that exists twice runs once, at the first.
#[test]
fn scenario_12_a_local_time_that_does_not_exist_ticks_after_the_gap() {
    let calendar = cron("30 2 * * *", "Europe/Berlin");
    assert_eq!(
        next(&calendar, "2026-03-28T00:00:00Z", 3),
        [
            "2026-03-28T02:30:00+01:00",
            "2026-03-29T03:00:00+02:00",
            "2026-03-30T02:30:00+02:00"
        ]
    );
}

/// Scenario 12: a local time that does not exist runs once, after the gap; one that exists twice runs once, at the first.
#[test]
fn scenario_12_a_local_time_that_exists_twice_ticks_once_at_the_first() {
    let calendar = cron("30 2 * * *", "Europe/Berlin");
    assert_eq!(
        next(&calendar, "2026-10-24T12:00:00Z", 2),
        ["2026-10-25T02:30:00+02:00", "2026-10-26T02:30:00+01:00"]
    );
    // Also for who looks in between.
    assert_eq!(
        next(&calendar, "2026-10-25T01:10:00Z", 1),
        ["2026-10-26T02:30:00+01:00"]
    );
}

#[test]
fn local_times_that_fall_together_are_one_tick() {
    let calendar = cron("*/15 2-3 * * *", "Europe/Berlin");
    assert_eq!(
        next(&calendar, "2026-03-29T00:00:00Z", 5),
        [
            "2026-03-29T03:00:00+02:00",
            "2026-03-29T03:15:00+02:00",
            "2026-03-29T03:30:00+02:00",
            "2026-03-29T03:45:00+02:00",
            "2026-03-30T02:00:00+02:00"
        ]
    );
}

#[test]
fn a_zone_that_skips_midnight_has_its_day() {
    // Cuba's clocks go from 00:00 to 01:00.
    let calendar = cron("@daily", "America/Havana");
    assert_eq!(
        next(&calendar, "2026-03-07T12:00:00Z", 2),
        ["2026-03-08T01:00:00-04:00", "2026-03-09T00:00:00-04:00"]
    );
}

#[test]
fn seconds_names_steps_and_last_days() {
    let take = |text: &str| next(&cron(text, "UTC"), "2026-11-27T10:00:00Z", 2);
    assert_eq!(
        take("*/20 * * * * *"),
        ["2026-11-27T10:00:20+00:00", "2026-11-27T10:00:40+00:00"]
    );
    assert_eq!(
        take("0 9 * * MON-FRI"),
        ["2026-11-30T09:00:00+00:00", "2026-12-01T09:00:00+00:00"]
    );
    assert_eq!(
        take("0 0 L FEB *"),
        ["2027-02-28T00:00:00+00:00", "2028-02-29T00:00:00+00:00"]
    );
    assert_eq!(
        take("@hourly"),
        ["2026-11-27T11:00:00+00:00", "2026-11-27T12:00:00+00:00"]
    );
    assert_eq!(
        take("@every 90s"),
        ["2026-11-27T10:01:30+00:00", "2026-11-27T10:03:00+00:00"]
    );
    // Vixie's rule: the 13th, and every Friday.
    assert_eq!(
        take("0 0 13 * FRI"),
        ["2026-12-04T00:00:00+00:00", "2026-12-11T00:00:00+00:00"]
    );
}

#[test]
fn an_interval_keeps_its_beat_whatever_the_wall_shows() {
    let zone = Calendar::zone("Europe/Berlin").expect("a zone");
    let calendar = Calendar::every(Duration::from_secs(3_600), zone).expect("a calendar");
    assert_eq!(
        next(&calendar, "2026-10-24T23:50:00Z", 3),
        [
            "2026-10-25T02:50:00+02:00",
            "2026-10-25T02:50:00+01:00",
            "2026-10-25T03:50:00+01:00"
        ]
    );
}

#[test]
fn an_instant_comes_once() {
    let zone = Calendar::zone("Europe/Berlin").expect("a zone");
    let calendar = Calendar::at("2026-12-24T18:00", zone).expect("a calendar");
    assert_eq!(
        next(&calendar, "2026-11-27T10:00:00Z", 2),
        ["2026-12-24T18:00:00+01:00"]
    );
}

#[test]
fn what_cannot_come_is_refused() {
    let refused = |text: &str| {
        let zone = Calendar::zone("UTC").expect("a zone");
        Calendar::cron(text, zone).expect_err("refused")
    };
    for text in [
        "",
        "* * *",
        "61 * * * *",
        "0 0 30 FEB *",
        "0 0 * * * * *",
        "0 0 * * FOO",
        "@sometimes",
    ] {
        assert!(!refused(text).is_empty(), "{text}");
    }
    assert!(refused("0 0 30 FEB *").contains("never"));
    assert!(Calendar::zone("Europe/Berlim").is_err());
}

// ── which ticks count ──

fn schedule(missed: Missed) -> Schedule {
    Schedule {
        does: Does::Job {
            job: "default.web".parse().expect("a name"),
            action: JobAction::Restart,
        },
        missed,
        missed_max: 100,
        overlap: Overlap::Skip,
        jitter: Duration::ZERO,
        fleet: false,
        start: true,
    }
}

fn look_at(calendar: &Calendar, seen: Seen, now: Wall) -> Look {
    look(
        "default.x",
        &schedule(Missed::Skip),
        &calendar.from(Wall(0)),
        seen,
        now,
    )
}

fn looked(schedule: &Schedule, seen: &str, now: &str) -> Look {
    let calendar = cron("* * * * *", "UTC");
    let seen = Seen {
        tick: at(seen),
        awake: None,
    };
    look("default.x", schedule, &calendar.from(Wall(0)), seen, at(now))
}

/// Scenario 11: a daemon that was down for 3 ticks: none is made up for, the last, or all, as it says, and none of them twice with two
/// nodes.
#[test]
fn scenario_11_missed_ticks_are_skipped_made_up_for_once_or_all() {
    let fired = |missed| looked(&schedule(missed), "2026-11-27T10:00:00Z", "2026-11-27T10:03:30Z").fire;
    assert!(fired(Missed::Skip).is_empty());
    assert_eq!(fired(Missed::Last), [at("2026-11-27T10:03:00Z")]);
    assert_eq!(
        fired(Missed::All),
        [
            at("2026-11-27T10:01:00Z"),
            at("2026-11-27T10:02:00Z"),
            at("2026-11-27T10:03:00Z")
        ]
    );
    let all = looked(
        &schedule(Missed::All),
        "2026-11-27T10:00:00Z",
        "2026-11-27T10:03:30Z",
    );
    assert_eq!(all.seen, at("2026-11-27T10:03:00Z"));
    assert_eq!(all.next, Some(at("2026-11-27T10:04:00Z")));
    let skipped = looked(
        &schedule(Missed::Skip),
        "2026-11-27T10:00:00Z",
        "2026-11-27T10:03:30Z",
    );
    let three = Skipped {
        count: 3,
        first: at("2026-11-27T10:01:00Z"),
        last: at("2026-11-27T10:03:00Z"),
    };
    assert_eq!(skipped.skipped, Some(three));
}

#[test]
fn a_tick_that_was_just_now_is_on_time() {
    let look = looked(
        &schedule(Missed::Skip),
        "2026-11-27T10:00:00Z",
        "2026-11-27T10:02:04Z",
    );
    assert_eq!(look.fire, [at("2026-11-27T10:02:00Z")]);
    assert_eq!(look.skipped.map(|skipped| skipped.count), Some(1));
    // One on time does for those before it.
    let last = looked(
        &schedule(Missed::Last),
        "2026-11-27T10:00:00Z",
        "2026-11-27T10:02:04Z",
    );
    assert_eq!(last.fire, [at("2026-11-27T10:02:00Z")]);
}

#[test]
fn a_pause_is_no_time_to_be_late_from() {
    let calendar = cron("* * * * *", "UTC");
    let seen = Seen {
        tick: at("2026-11-27T10:00:00Z"),
        awake: Some(at("2026-11-27T10:02:02Z")),
    };
    let look = look(
        "default.x",
        &schedule(Missed::Skip),
        &calendar.from(Wall(0)),
        seen,
        at("2026-11-27T10:02:04Z"),
    );
    assert!(look.fire.is_empty());
    assert_eq!(look.skipped.map(|skipped| skipped.count), Some(2));
}

#[test]
fn a_year_of_missed_ticks_costs_no_year() {
    let begun = std::time::Instant::now();
    let look = looked(
        &schedule(Missed::All),
        "2025-11-27T10:00:00Z",
        "2026-11-27T10:03:30Z",
    );
    assert_eq!(look.fire.len(), 100);
    assert_eq!(look.fire.last(), Some(&at("2026-11-27T10:03:00Z")));
    assert_eq!(look.skipped.map(|skipped| skipped.count), Some(900));
    // Half a million ticks one by one take far longer, on any machine.
    assert!(begun.elapsed() < Duration::from_secs(20));
}

#[test]
fn a_clock_that_was_years_ahead_does_not_silence_a_schedule() {
    let look = looked(
        &schedule(Missed::All),
        "2031-01-01T00:00:00Z",
        "2026-11-27T10:03:30Z",
    );
    assert!(look.fire.is_empty());
    assert_eq!(look.seen, at("2026-11-27T10:03:30Z"));
    assert_eq!(look.next, Some(at("2026-11-27T10:04:00Z")));
    // Nor does the end of a pause in those years.
    let calendar = cron("* * * * *", "UTC");
    let seen = Seen {
        tick: at("2026-11-27T10:01:00Z"),
        awake: Some(at("2031-01-01T00:00:00Z")),
    };
    let now = at("2026-11-27T10:02:03Z");
    let after = look_at(&calendar, seen, now);
    assert_eq!(after.fire, [at("2026-11-27T10:02:00Z")]);
    // A little back: what was dealt with is not dealt with twice.
    let little = looked(
        &schedule(Missed::All),
        "2026-11-27T10:04:00Z",
        "2026-11-27T10:03:30Z",
    );
    assert_eq!(little.next, Some(at("2026-11-27T10:05:00Z")));
}

#[test]
fn jitter_delays_each_tick_by_its_own_share_always_the_same() {
    let jittered = Schedule {
        jitter: Duration::from_secs(30),
        ..schedule(Missed::Skip)
    };
    let mut shares = std::collections::BTreeSet::new();
    for minute in 0..20 {
        let seen = format!("2026-11-27T10:{minute:02}:00Z");
        let one = looked(&jittered, &seen, &seen);
        assert_eq!(one, looked(&jittered, &seen, &seen));
        let next = one.next.expect("a next one");
        let share = next.0 - at(&seen).0 - 60_000;
        assert!((0..=30_000).contains(&share), "{share}");
        shares.insert(share);
        // Not before its share is over.
        let early = looked(&jittered, &seen, &seen);
        assert!(early.fire.is_empty());
    }
    assert!(shares.len() > 10);
}

// ── files ──

fn read(text: &str) -> Result<gaffer_config::Config, String> {
    toml(text).map_err(|errors| errors.render(false))
}

fn one(text: &str) -> LoadedSchedule {
    let config = read(text).expect("understood");
    config.schedules.values().next().cloned().expect("a schedule")
}

#[test]
fn a_schedule_is_read_and_read_back() {
    let text = r#"
        session = "shop"
        [task.nightly]
        cmd = "true"
        params = { day = "x" }
        [schedule.nightly]
        cron = "30 3 * * *"
        zone = "Europe/Berlin"
        task = "nightly"
        params = { day = "{{tick.date}}" }
        missed = "last"
        overlap = "queue"
    "#;
    let schedule = one(text);
    assert_eq!(schedule.id.to_string(), "shop.nightly");
    assert_eq!(schedule.spec.missed, Missed::Last);
    assert_eq!(schedule.spec.overlap, Overlap::Queue);
    // The day of the zone, not that of UTC.
    let filled = schedule.fill("{{tick.date}}", at("2026-11-26T23:30:00Z"));
    assert_eq!(filled.as_deref(), Ok("2026-11-27"));
    let again = load_schedule_json("shop", "nightly", &schedule.typed).expect("read back");
    assert_eq!(again.spec, schedule.spec);
    assert_eq!(again.typed, schedule.typed);
}

#[test]
fn a_command_is_a_task_of_its_own() {
    let config = read("[schedule.tidy]\nevery = \"1h\"\ncmd = \"rm -rf /srv/tmp\"\ntimeout = \"5m\"\n")
        .expect("understood");
    let id = "default.tidy".parse().expect("a name");
    assert!(config.tasks.contains_key(&id));
    let Does::Task { task, .. } = &config.schedules[&id].spec.does else {
        panic!("no task");
    };
    assert_eq!(*task, id);
    assert!(config.schedules[&id].typed.get("cmd").is_none());
}

#[test]
fn a_target_that_no_file_defines_is_warned_of() {
    let warned = |text: &str| {
        let config = read(text).expect("understood");
        let all: Vec<String> = config.warnings.iter().map(|one| one.render(false)).collect();
        all.join("\n")
    };
    for (does, kind) in [
        ("task = \"nope\"", "task"),
        ("queue = \"nope\"", "queue"),
        ("job = \"nope\"", "job"),
    ] {
        let said = warned(&format!("[schedule.x]\nevery = \"1h\"\n{does}\n"));
        assert!(said.contains(&format!("there is no {kind} `nope`")), "{said}");
        assert!(said.contains("gaffer.toml:1"), "{said}");
    }
    assert_eq!(warned("[schedule.x]\nevery = \"1h\"\ntask = \"far.nope\"\n"), "");
    assert_eq!(warned("[schedule.x]\nevery = \"1h\"\ncmd = \"true\"\n"), "");
    assert_eq!(
        warned("[queue.q]\n[schedule.x]\nevery = \"1h\"\nqueue = \"q\"\n"),
        ""
    );
}

#[test]
fn mistakes_are_named() {
    let refused = |text: &str| read(text).expect_err("refused");
    for (text, says) in [
        ("[schedule.x]\ntask = \"a\"", "needs `cron`, `every` or `at`"),
        (
            "[schedule.x]\nevery = \"1h\"",
            "needs `task`, `queue`, `job` or `cmd`",
        ),
        (
            "[schedule.x]\nevery = \"1h\"\ncron = \"@daily\"\ntask = \"a\"",
            "one `cron`, `every` or `at`",
        ),
        (
            "[schedule.x]\nevery = \"1h\"\ntask = \"a\"\nqueue = \"b\"",
            "one `task`, `queue`",
        ),
        (
            "[schedule.x]\nevery = \"100ms\"\ntask = \"a\"",
            "at least a second",
        ),
        (
            "[schedule.x]\ncron = \"61 * * * *\"\ntask = \"a\"",
            "cannot be understood",
        ),
        (
            "[schedule.x]\ncron = \"@daily\"\nzone = \"Berlin\"\ntask = \"a\"",
            "no time zone `Berlin`",
        ),
        (
            "[schedule.x]\nevery = \"1h\"\ntask = \"a\"\npayload = 1",
            "`payload` belongs to `queue`",
        ),
        (
            "[schedule.x]\nevery = \"1h\"\nqueue = \"a\"\npayload = \"{{tik}}\"",
            "there is no {{tik}}",
        ),
        (
            "[schedule.x]\nevery = \"1h\"\ncmd = \"true\"\ntask = \"a\"",
            "does one thing",
        ),
        (
            "[task.x]\ncmd = \"true\"\n[schedule.x]\nevery = \"1h\"\ncmd = \"true\"",
            "defined twice",
        ),
        (
            "[schedule.x]\nevry = \"1h\"\ntask = \"a\"",
            "did you mean `every`",
        ),
    ] {
        let why = refused(text);
        assert!(why.contains(says), "{text}\n{why}");
    }
}

/// A schedule under a clock on the wall that somebody sets: looked at when it says so, and at once when the clock was set, as the alarm of
/// the engine has it.
struct Wound {
    now: Wall,
    seen: Wall,
    fired: Vec<Wall>,
    skipped: usize,
}

impl Wound {
    fn at(now: &str) -> Wound {
        Wound {
            now: at(now),
            seen: at(now),
            fired: Vec::new(),
            skipped: 0,
        }
    }

    /// The clock is set by so much.
    fn set(&mut self, by_s: i64) {
        self.now.0 += by_s * 1_000;
    }

    /// Time goes by: all that is done in it.
    fn run(&mut self, schedule: &Schedule, calendar: &Calendar, for_s: i64) {
        let end = Wall(self.now.0 + for_s * 1_000);
        loop {
            let seen = Seen {
                tick: self.seen,
                awake: None,
            };
            let look = look(
                "default.x",
                schedule,
                &calendar.from(at("2026-11-27T10:00:00Z")),
                seen,
                self.now,
            );
            self.skipped += look.skipped.map_or(0, |skipped| skipped.count);
            self.fired.extend(look.fire);
            self.seen = look.seen;
            let next = look.next.expect("it goes on");
            assert!(next > self.now, "it looks at {next:?} again and again");
            if next > end {
                self.now = end;
                return;
            }
            self.now = next;
        }
    }

    fn assert_none_twice(&self) {
        let mut all = self.fired.clone();
        all.sort_unstable();
        all.dedup();
        assert_eq!(all.len(), self.fired.len(), "{:?}", self.fired);
    }
}

fn calendars() -> [Calendar; 2] {
    [
        cron("* * * * *", "Europe/Berlin"),
        Calendar::every(Duration::from_secs(60), Calendar::zone("UTC").expect("a zone")).expect("a calendar"),
    ]
}

/// B3.5: wall-clock changes re-arm the timer at once. An hour that never was is missed: what `missed` says of it is done.
#[test]
fn a_clock_that_jumps_an_hour_forward_misses_what_is_in_between() {
    for calendar in calendars() {
        for (missed, made_up) in [(Missed::Skip, 0), (Missed::Last, 1), (Missed::All, 60)] {
            let schedule = schedule(missed);
            let mut clock = Wound::at("2026-11-27T10:00:00Z");
            clock.run(&schedule, &calendar, 150);
            assert_eq!(clock.fired.len(), 2);
            clock.set(3_600);
            // At once: it is half a minute to the next tick.
            clock.run(&schedule, &calendar, 1);
            assert_eq!(
                (clock.fired.len(), clock.skipped),
                (2 + made_up, 60 - made_up),
                "{missed:?}"
            );
            clock.run(&schedule, &calendar, 299);
            assert_eq!(clock.fired.len(), 2 + made_up + 5, "{missed:?}");
            clock.assert_none_twice();
        }
    }
}

/// B3.5 and B4: a clock that jumps back an hour: nothing is done twice, and what was not done yet comes when its time does.
#[test]
fn a_clock_that_jumps_an_hour_back_does_no_tick_twice() {
    for calendar in calendars() {
        for missed in [Missed::Skip, Missed::Last, Missed::All] {
            let schedule = schedule(missed);
            let mut clock = Wound::at("2026-11-27T10:00:00Z");
            clock.run(&schedule, &calendar, 3_690);
            assert_eq!(clock.fired.len(), 61);
            clock.set(-3_600);
            clock.run(&schedule, &calendar, 3_600);
            assert_eq!(clock.fired.len(), 61, "the same hour once more: {missed:?}");
            clock.run(&schedule, &calendar, 300);
            assert_eq!((clock.fired.len(), clock.skipped), (66, 0));
            clock.assert_none_twice();
        }
    }
}
