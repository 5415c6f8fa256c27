//! The main promise, with real processes: whatever is killed, nothing is lost.

use gaffer_testkit::chaos::{Load, Until, survive};

#[test]
fn a_hundred_writing_jobs_survive_fifty_kills_of_the_daemon() {
    let report = survive(&Load {
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
