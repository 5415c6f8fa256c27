//! The main promise, with real processes: whatever is killed, nothing is lost.

use gaffer_testkit::chaos::{Load, Until, Victims, survive};

#[test]
fn hazard_19_a_hundred_writing_jobs_survive_fifty_kills_of_the_daemon() {
    let report = survive(&Load {
        victims: Victims::Daemon,
        jobs: 100,
        until: Until::Kills(50),
        seed: 1,
        bin_dir: None,
    });
    println!("{report}");
    assert!(
        report.lines > 10_000 && report.runs > 150,
        "too little happened: {report}"
    );
}

#[test]
fn hazard_19_forty_writing_jobs_survive_kills_of_daemon_and_shims() {
    let report = survive(&Load {
        victims: Victims::Shims,
        jobs: 40,
        until: Until::Kills(25),
        seed: 2,
        bin_dir: None,
    });
    println!("{report}");
    assert!(
        report.lines > 1_000 && report.runs > 100,
        "too little happened: {report}"
    );
}

#[test]
fn hazard_19_forty_writing_jobs_survive_kills_of_daemon_shims_and_guards() {
    let report = survive(&Load {
        victims: Victims::All,
        jobs: 40,
        until: Until::Kills(25),
        seed: 3,
        bin_dir: None,
    });
    println!("{report}");
    assert!(
        report.lines > 1_000 && report.runs > 100,
        "too little happened: {report}"
    );
}
