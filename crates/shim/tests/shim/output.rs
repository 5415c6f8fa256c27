//! Hazards A4: what programs write.

use crate::harness::*;
use gaffer_shim::journal::{Record, Status};
use gaffer_shim::message::Output;
use gaffer_shim::stream::{IndexKind, ReadAt, StreamReader, segments};

#[test]
fn hazard_31_the_last_bytes_are_there_when_the_exit_is() {
    let mut shim = Shim::start();
    for round in 0..10 {
        let slot = format!("a.{round}");
        let spawn = shim.script(&slot, "head -c 1048576 /dev/zero; exit 0");
        let run = shim.spawn(spawn);
        let Record::Exited {
            out_offset, drained, ..
        } = shim.exited(run)
        else {
            unreachable!()
        };
        assert_eq!((out_offset, drained), (1 << 20, true));
        assert_eq!(shim.output(&slot, "stdout").len(), 1 << 20);
    }
}

#[test]
fn runs_of_a_slot_continue_its_streams() {
    let mut shim = Shim::start();
    let first = shim.script("a.1", "echo one");
    let first = shim.spawn(first);
    shim.exited(first);
    let mut second = shim.script("a.1", "echo two");
    second.after = Some(first);
    let second = shim.spawn(second);
    let offset = shim.record("Intent", |record| match record {
        Record::Intent { run, out_offset, .. } if *run == second => Some(*out_offset),
        _ => None,
    });
    shim.exited(second);
    assert_eq!(offset, 4);
    assert_eq!(shim.text("a.1", "stdout"), "one\ntwo\n");
}

#[test]
fn stderr_may_be_merged_and_either_may_be_discarded() {
    let mut shim = Shim::start();
    let mut spawn = shim.script("a.1", "echo 1; echo 2 >&2; echo 3; echo 4 >&2");
    spawn.stderr = Output::Merge;
    let run = shim.spawn(spawn);
    shim.exited(run);
    assert_eq!(shim.text("a.1", "stdout"), "1\n2\n3\n4\n");
    let mut spawn = shim.script("b.1", "echo 1; echo 2 >&2");
    spawn.stdout = Output::Null;
    let run = shim.spawn(spawn);
    shim.exited(run);
    assert_eq!(
        (shim.text("b.1", "stdout"), shim.text("b.1", "stderr")),
        (String::new(), "2\n".to_owned())
    );
}

#[test]
fn hazard_30_rotation_keeps_every_byte_within_the_bound() {
    let mut shim = Shim::start();
    let mut spawn = shim.script(
        "a.1",
        "i=0; while [ $i -lt 20000 ]; do echo line $i; i=$((i+1)); done",
    );
    spawn.bounds.segment = 8192;
    spawn.bounds.size = 64 << 20;
    let run = shim.spawn(spawn);
    shim.exited(run);
    let expected: String = (0..20000).map(|i| format!("line {i}\n")).collect();
    assert_eq!(shim.text("a.1", "stdout"), expected);
    let dir = shim.scratch.0.join("logs/a.1");
    assert!(segments(&dir, "stdout").unwrap().len() > 10);
}

#[test]
fn hazard_30_oldest_segments_go_and_a_reader_is_told_of_the_gap() {
    let mut shim = Shim::start();
    let mut spawn = shim.script("a.1", "head -c 1000000 /dev/zero; printf end");
    spawn.bounds.segment = 16 << 10;
    spawn.bounds.size = 64 << 10;
    let run = shim.spawn(spawn);
    shim.exited(run);
    let dir = shim.scratch.0.join("logs/a.1");
    let mut reader = StreamReader::open(&dir, "stdout");
    let (first, end) = reader.range().unwrap();
    assert_eq!(end, 1_000_003);
    assert!(end - first <= 64 << 10 && end - first >= 32 << 10, "{first}");
    assert_eq!(reader.read_at(0, &mut [0; 16]).unwrap(), ReadAt::Gap(first));
    let mut tail = [0; 3];
    assert_eq!(reader.read_at(end - 3, &mut tail).unwrap(), ReadAt::Bytes(3));
    assert_eq!(&tail, b"end");
}

#[test]
fn hazard_30_a_removed_segment_or_directory_is_replaced() {
    let mut shim = Shim::start();
    let mut spawn = shim.script("a.1", "while read line; do echo $line; done");
    spawn.stdin = gaffer_shim::message::Stdin::Pipe;
    let run = shim.spawn(spawn);
    shim.started(run);
    let dir = shim.scratch.0.join("logs/a.1");
    let say = |shim: &mut Shim, word: &str, end: u64| {
        shim.input(run, "stdin", format!("{word}\n").as_bytes(), false)
            .unwrap();
        wait_for("the line", || {
            let (_, found) = StreamReader::open(&dir, "stdout").range().unwrap();
            (found == end).then_some(())
        });
    };
    say(&mut shim, "one", 4);
    std::fs::remove_file(dir.join("stdout.00000000000000000000.log")).unwrap();
    say(&mut shim, "two", 8);
    assert_eq!(shim.text("a.1", "stdout"), "two\n");
    std::fs::remove_dir_all(&dir).unwrap();
    say(&mut shim, "three", 14);
    assert_eq!(shim.text("a.1", "stdout"), "three\n");
    shim.kill_tree(run).unwrap();
    shim.exited(run);
}

#[test]
fn hazard_32_an_endless_line_needs_no_memory() {
    let mut shim = Shim::start();
    let before = memory_kb(shim.pid);
    let mut spawn = shim.script("a.1", "head -c 200000000 /dev/zero | tr '\\0' 'x'");
    spawn.bounds.segment = 1 << 20;
    spawn.bounds.size = 4 << 20;
    let run = shim.spawn(spawn);
    let Record::Exited { out_offset, .. } = shim.exited(run) else {
        unreachable!()
    };
    assert_eq!(out_offset, 200_000_000);
    let grown = memory_kb(shim.pid).saturating_sub(before);
    assert!(grown < 2048, "grew by {grown} KiB");
}

fn memory_kb(pid: u32) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = status.lines().find(|line| line.starts_with("RssAnon:")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse().unwrap()
}

#[test]
fn the_index_tells_when_bytes_came() {
    let mut shim = Shim::start();
    let before = gaffer_shim::identity::wall_ms();
    let mut spawn = shim.script("a.1", "echo one; read go; echo two");
    spawn.stdin = gaffer_shim::message::Stdin::Pipe;
    let run = shim.spawn(spawn);
    wait_for("the first line", || {
        (shim.text("a.1", "stdout") == "one\n").then_some(())
    });
    let between = gaffer_shim::identity::mono_ns();
    shim.input(run, "stdin", b"go\n", false).unwrap();
    shim.exited(run);
    let reader = StreamReader::open(&shim.scratch.0.join("logs/a.1"), "stdout");
    let times = reader.times(0, 8).unwrap();
    assert_eq!(times.iter().map(|entry| entry.offset).collect::<Vec<_>>(), [0, 4]);
    assert!(times.iter().all(|entry| entry.kind == IndexKind::Batch));
    assert!(times[0].mono_ns <= between && between < times[1].mono_ns);
    assert!(times[0].wall_ms >= before);
    assert_eq!(reader.wall_at(6).unwrap(), Some(times[1].wall_ms));
    assert_eq!(reader.wall_at(2).unwrap(), Some(times[0].wall_ms));
}

struct SmallDisk(std::path::PathBuf);

impl SmallDisk {
    /// A filesystem of so many bytes; none if we may not mount.
    fn mount(at: &std::path::Path, bytes: u64) -> Option<SmallDisk> {
        std::fs::create_dir_all(at).unwrap();
        let c_path = std::ffi::CString::new(at.to_str().unwrap()).unwrap();
        let options = std::ffi::CString::new(format!("size={bytes}")).unwrap();
        // SAFETY: valid strings.
        let result = unsafe {
            libc::mount(
                c"tmpfs".as_ptr(),
                c_path.as_ptr(),
                c"tmpfs".as_ptr(),
                0,
                options.as_ptr().cast(),
            )
        };
        (result == 0).then(|| SmallDisk(at.to_path_buf()))
    }

    fn grow(&self, bytes: u64) {
        let c_path = std::ffi::CString::new(self.0.to_str().unwrap()).unwrap();
        let options = std::ffi::CString::new(format!("size={bytes}")).unwrap();
        // SAFETY: valid strings.
        let result = unsafe {
            let data = options.as_ptr().cast();
            libc::mount(
                c"tmpfs".as_ptr(),
                c_path.as_ptr(),
                c"tmpfs".as_ptr(),
                libc::MS_REMOUNT,
                data,
            )
        };
        assert_eq!(result, 0);
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        let c_path = std::ffi::CString::new(self.0.to_str().unwrap()).unwrap();
        // SAFETY: a valid path.
        unsafe { libc::umount2(c_path.as_ptr(), libc::MNT_DETACH) };
    }
}

#[test]
fn hazard_29_every_byte_dropped_on_a_full_disk_is_counted() {
    let mut shim = Shim::start();
    let logs = shim.scratch.0.join("logs/a.1");
    // Needs the right to mount; without it there is no small disk to fill.
    let Some(_disk) = SmallDisk::mount(&logs, 64 << 10) else {
        return;
    };
    let mut spawn = shim.script("a.1", "head -c 1000000 /dev/zero");
    spawn.bounds.segment = 1 << 20;
    let run = shim.spawn(spawn);
    let Record::Exited {
        status, out_offset, ..
    } = shim.exited(run)
    else {
        unreachable!()
    };
    assert_eq!(status, Status::Code(0));
    shim.read_on();
    let dropped: u64 = shim
        .records
        .iter()
        .map(|record| match record {
            Record::Dropped { bytes, .. } => *bytes,
            _ => 0,
        })
        .sum();
    assert!(dropped > 0);
    assert_eq!(out_offset + dropped, 1_000_000);
    assert_eq!(shim.output("a.1", "stdout").len() as u64, out_offset);
}

#[test]
fn hazard_29_old_segments_make_room_on_a_full_disk() {
    let mut shim = Shim::start();
    let logs = shim.scratch.0.join("logs/a.1");
    let Some(_disk) = SmallDisk::mount(&logs, 128 << 10) else {
        return;
    };
    let mut spawn = shim.script("a.1", "head -c 1000000 /dev/zero; printf end");
    spawn.bounds.segment = 16 << 10;
    let run = shim.spawn(spawn);
    let Record::Exited { out_offset, .. } = shim.exited(run) else {
        unreachable!()
    };
    assert_eq!(out_offset, 1_000_003);
    assert!(shim.text("a.1", "stdout").ends_with("end"));
    assert!(
        !shim
            .records
            .iter()
            .any(|record| matches!(record, Record::Dropped { .. }))
    );
}

#[test]
fn hazard_28_a_program_may_be_made_to_wait_for_room_and_loses_nothing() {
    let mut shim = Shim::start();
    let logs = shim.scratch.0.join("logs/a.1");
    let Some(disk) = SmallDisk::mount(&logs, 64 << 10) else {
        return;
    };
    let mut spawn = shim.script("a.1", "head -c 9000000 /dev/zero");
    spawn.bounds.segment = 16 << 20;
    spawn.bounds.block_when_full = true;
    let run = shim.spawn(spawn);
    let pid = shim.started(run);
    wait_for("the disk to be full", || {
        let (_, end) = StreamReader::open(&logs, "stdout").range().unwrap();
        (end > 32 << 10).then_some(())
    });
    assert!(!is_over(pid));
    // Others are served meanwhile.
    let other = shim.script("b.1", "echo hello");
    let other = shim.spawn(other);
    assert_eq!(shim.status(other), Status::Code(0));
    assert_eq!(shim.text("b.1", "stdout"), "hello\n");
    disk.grow(32 << 20);
    let Record::Exited { out_offset, .. } = shim.exited(run) else {
        unreachable!()
    };
    assert_eq!(out_offset, 9_000_000);
    shim.read_on();
    assert!(
        !shim
            .records
            .iter()
            .any(|record| matches!(record, Record::Dropped { .. }))
    );
}
