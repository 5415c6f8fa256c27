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

#[test]
fn the_journal_is_cut_into_segments_that_begin_with_the_table() {
    let mut shim = Shim::start_with(|binary, dir| {
        let wrapper = dir.parent().unwrap().parent().unwrap().join("small");
        let text = format!(
            "#!/bin/sh\nexec {} \"$@\" --segment-bytes 4096\n",
            binary.display()
        );
        std::fs::write(&wrapper, text).unwrap();
        let mode = std::os::unix::fs::PermissionsExt::from_mode(0o755);
        std::fs::set_permissions(&wrapper, mode).unwrap();
        gaffer_shim::client::start_shim(&wrapper, dir).unwrap()
    });
    let long = shim.script("long.1", "exec sleep 1000");
    let long = shim.spawn(long);
    let pid = shim.started(long);
    let mut before = None;
    for _ in 0..100 {
        let mut spawn = shim.script("web.1", "exit 0");
        spawn.after = before;
        let run = shim.spawn(spawn);
        assert_eq!(shim.status(run), Status::Code(0));
        before = Some(run);
    }
    let segments = gaffer_shim::journal::segments(&shim.dir).unwrap();
    assert!(segments.len() > 3, "{segments:?}");
    // What a daemon does once everything before is settled.
    for segment in &segments[..segments.len() - 1] {
        std::fs::remove_file(shim.dir.join(gaffer_shim::journal::segment_name(*segment))).unwrap();
    }
    shim.kill_shim();
    kill(pid, libc::SIGKILL);
    assert_eq!(shim.status(long), Status::Signal(libc::SIGKILL, false));
    shim.guard_ends();
}

#[test]
fn the_start_time_on_file_is_the_one_that_proc_tells() {
    let mut shim = Shim::start();
    let runs: Vec<_> = (0..20)
        .map(|n| {
            let spawn = shim.script(&format!("web.{n}"), "exec sleep 60");
            shim.spawn(spawn)
        })
        .collect();
    for run in runs {
        let pid = shim.started(run);
        let ticks = shim.record("Started", |record| match record {
            Record::Started {
                run: of, start_ticks, ..
            } if *of == run => Some(*start_ticks),
            _ => None,
        });
        assert_eq!(Some(ticks), gaffer_shim::identity::start_ticks(pid));
    }
}
