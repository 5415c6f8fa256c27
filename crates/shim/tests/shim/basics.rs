//! A run from birth to death.

use crate::harness::*;
use gaffer_shim::journal::{Record, Status};

#[test]
fn a_run_prints_exits_and_is_journalled_in_order() {
    let mut shim = Shim::start();
    let spawn = shim.script("web.1", "echo hello; echo oops >&2; exit 3");
    let run = shim.spawn(spawn);
    let Record::Exited {
        status,
        survivors,
        out_offset,
        err_offset,
        drained,
        by_guard,
        ..
    } = shim.exited(run)
    else {
        unreachable!()
    };
    assert_eq!(status, Status::Code(3));
    assert_eq!((survivors, out_offset, err_offset), (0, 6, 5));
    assert!(drained && !by_guard);
    assert_eq!(shim.text("web.1", "stdout"), "hello\n");
    assert_eq!(shim.text("web.1", "stderr"), "oops\n");
    let kinds: Vec<&str> = shim.records.iter().map(kind).collect();
    assert_eq!(kinds, ["Head", "Intent", "Born", "Started", "Exited"]);
}

fn kind(record: &Record) -> &'static str {
    match record {
        Record::Head { .. } => "Head",
        Record::Intent { .. } => "Intent",
        Record::Born { .. } => "Born",
        Record::Started { .. } => "Started",
        Record::StartFailed { .. } => "StartFailed",
        Record::Exited { .. } => "Exited",
        Record::TreeGone { .. } => "TreeGone",
        Record::Dropped { .. } => "Dropped",
    }
}
