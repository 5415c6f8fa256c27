//! Calendars: when a schedule ticks.
//!
//! | written | ticks |
//! |---|---|
//! | `cron`, five or six fields (seconds first), or `@daily` and the like | whenever the clock on the wall of the zone shows such a time |
//! | `every` | each so often since the schedule was first seen, whatever the clock on the wall does |
//! | `at` | once |
//!
//! If both the day of the month and the day of the week are given, either will do, as in Vixie's cron.
//!
//! **Summer time.** A local time that does not exist ticks at the first instant after the gap. One that exists twice ticks once, at the
//! first. Where several local times fall together they are one tick.

use croner::Cron;
use croner::parser::{CronParser, Year};
use gaffer_core::schedule::Ticks;
use gaffer_core::time::{Duration, Wall};
use jiff::civil::DateTime;
use jiff::tz::{AmbiguousOffset, TimeZone};
use jiff::{SignedDuration, Timestamp};

/// Local times that are looked at for one tick: more than a night's worth of seconds that are there twice.
const TRIES: usize = 20_000;
/// Shortest interval.
const EVERY_MIN: Duration = Duration::from_secs(1);

/// When a schedule ticks.
#[derive(Clone, Debug)]
pub struct Calendar {
    rule: Rule,
    zone: TimeZone,
    text: String,
}

#[derive(Clone, Debug)]
enum Rule {
    Cron(Box<Cron>),
    Every(Duration),
    At(Wall),
}

impl Calendar {
    /// Five or six fields, `@daily`, `@every 90s`.
    ///
    /// # Errors
    ///
    /// A sentence: what is wrong with it.
    pub fn cron(text: &str, zone: TimeZone) -> Result<Calendar, String> {
        if let Some(every) = text.trim().strip_prefix("@every ") {
            let parsed = crate::units::parse_duration(every.trim());
            let every = parsed.map_err(|_| format!("`{every}` is no duration"))?;
            return Calendar::every(every, zone);
        }
        let fields = text.split_whitespace().count();
        if !text.trim().starts_with('@') && !(5..=6).contains(&fields) {
            let s = if fields == 1 { "" } else { "s" };
            return Err(format!("it has {fields} field{s}, not five or six"));
        }
        let parser = CronParser::builder().year(Year::Disallowed).build();
        let cron = parser.parse(text).map_err(|error| error.to_string())?;
        let calendar = Calendar {
            rule: Rule::Cron(Box::new(cron)),
            zone,
            text: text.split_whitespace().collect::<Vec<_>>().join(" "),
        };
        match calendar.next(Wall(0), Wall(0)) {
            Some(_) => Ok(calendar),
            None => Err("no day is like that: it would never come".to_owned()),
        }
    }

    /// Each so often.
    ///
    /// # Errors
    ///
    /// It is shorter than a second.
    pub fn every(every: Duration, zone: TimeZone) -> Result<Calendar, String> {
        if every < EVERY_MIN {
            return Err("it must be at least a second".to_owned());
        }
        let text = format!("every {}", crate::units::exact_duration(every));
        let rule = Rule::Every(every);
        Ok(Calendar { rule, zone, text })
    }

    /// Once: `2026-12-24T18:00:00Z`, or a local time of the zone.
    ///
    /// # Errors
    ///
    /// It cannot be read.
    pub fn at(text: &str, zone: TimeZone) -> Result<Calendar, String> {
        let at = match text.parse::<Timestamp>() {
            Ok(at) => at,
            Err(_) => {
                let local: DateTime = text.parse().map_err(|_| "it is no time".to_owned())?;
                instant(&zone, local).ok_or("it is out of range")?
            }
        };
        Ok(Calendar {
            rule: Rule::At(Wall(at.as_millisecond())),
            zone,
            text: format!("at {text}"),
        })
    }

    /// The zone of this name, as the system knows it.
    ///
    /// # Errors
    ///
    /// There is none.
    pub fn zone(name: &str) -> Result<TimeZone, String> {
        if name.eq_ignore_ascii_case("utc") {
            return Ok(TimeZone::UTC);
        }
        TimeZone::get(name)
            .map_err(|_| "write it as the time zone database does, like Europe/Berlin".to_owned())
    }

    /// The first tick after this time. An interval is counted from `anchor`.
    pub fn next(&self, anchor: Wall, after: Wall) -> Option<Wall> {
        match &self.rule {
            Rule::At(at) => (*at > after).then_some(*at),
            Rule::Every(every) => {
                let every = i64::try_from(every.as_millis()).ok()?;
                let passed = after.0.checked_sub(anchor.0)?.div_euclid(every);
                anchor
                    .0
                    .checked_add(passed.checked_add(1)?.checked_mul(every)?)
                    .map(Wall)
            }
            Rule::Cron(cron) => self.next_local(cron, after),
        }
    }

    fn next_local(&self, cron: &Cron, after: Wall) -> Option<Wall> {
        let at = Timestamp::from_second(after.0.div_euclid(1_000)).ok()?;
        // The search knows no zone: what a local time is on the time line is said here alone.
        let mut local = self.zone.to_datetime(at).to_zoned(TimeZone::UTC).ok()?;
        for _ in 0..TRIES {
            local = cron.find_next_occurrence(&local, false).ok()?;
            let tick = Wall(instant(&self.zone, local.datetime())?.as_millisecond());
            if tick > after {
                return Some(tick);
            }
        }
        None
    }

    /// Ticks, with intervals counted from `anchor`.
    pub fn from(&self, anchor: Wall) -> Anchored<'_> {
        Anchored {
            calendar: self,
            anchor,
        }
    }

    /// As it was written: `30 3 * * *`, `every 90s`, `at 2026-12-24 18:00`.
    pub fn text(&self) -> &str {
        &self.text
    }

    /// Name of the zone.
    pub fn zone_name(&self) -> &str {
        self.zone.iana_name().unwrap_or("UTC")
    }

    /// An instant as the clock on the wall of the zone shows it: `2026-11-27T03:30:00+01:00`.
    pub fn local(&self, at: Wall) -> String {
        let Ok(at) = Timestamp::from_millisecond(at.0) else {
            return String::new();
        };
        let zoned = at.to_zoned(self.zone.clone());
        zoned.strftime("%Y-%m-%dT%H:%M:%S%:z").to_string()
    }

    /// The day of an instant in the zone: `2026-11-27`.
    pub fn day(&self, at: Wall) -> String {
        let at = Timestamp::from_millisecond(at.0).unwrap_or(Timestamp::UNIX_EPOCH);
        at.to_zoned(self.zone.clone()).date().to_string()
    }
}

/// A calendar whose intervals have a beginning.
#[derive(Clone, Copy, Debug)]
pub struct Anchored<'a> {
    calendar: &'a Calendar,
    anchor: Wall,
}

impl Ticks for Anchored<'_> {
    fn next(&self, after: Wall) -> Option<Wall> {
        self.calendar.next(self.anchor, after)
    }
}

/// The instant of a local time: the first after a gap, the first of two.
fn instant(zone: &TimeZone, local: DateTime) -> Option<Timestamp> {
    let ambiguous = zone.to_ambiguous_timestamp(local);
    match ambiguous.offset() {
        AmbiguousOffset::Unambiguous { offset } => offset.to_timestamp(local).ok(),
        AmbiguousOffset::Fold { before, .. } => before.to_timestamp(local).ok(),
        AmbiguousOffset::Gap { before, .. } => {
            let beyond = before.to_timestamp(local).ok()?;
            let beyond = beyond.checked_add(SignedDuration::from_secs(1)).ok()?;
            zone.preceding(beyond).next().map(|change| change.timestamp())
        }
    }
}
