//! The formats: golden bytes, torn tails, bad middles, newer writers.

use gaffer_shim::frame::{self, Decoder, FrameError};
use gaffer_shim::journal::{Position, Reader, Record, RunIdWire, Status, Usage, segment_name};
use gaffer_shim::message::{FromShim, Heard, Scope, ToShim};
use gaffer_shim::stream::{IndexEntry, IndexKind, StreamReader, encode_entry};
use std::path::PathBuf;

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn scratch(name: &str) -> PathBuf {
    let dir = std::env::temp_dir().join(format!("gaffer-shim-{name}-{}", std::process::id()));
    let _ = std::fs::remove_dir_all(&dir);
    std::fs::create_dir_all(&dir).unwrap();
    dir
}

fn run(n: u32) -> RunIdWire {
    RunIdWire { epoch: 3, n }
}

fn exited(n: u32) -> Record {
    Record::Exited {
        run: run(n),
        status: Status::Signal(9, true),
        rusage: Usage {
            utime_us: 1,
            stime_us: 2,
            maxrss_kb: 3,
            minflt: 4,
            majflt: 5,
            inblock: 6,
            oublock: 7,
            nvcsw: 8,
            nivcsw: 9,
        },
        oom: true,
        survivors: 2,
        out_offset: 1000,
        err_offset: 70_000,
        drained: true,
        wall_ms: 1_800_000_000_000,
        mono_ns: 5_000_000_000,
        by_guard: false,
        pid: 4711,
        successor: None,
    }
}

fn encode(record: &Record) -> Vec<u8> {
    frame::encode(&minicbor::to_vec(record).unwrap())
}

#[test]
fn hazard_46_golden_bytes_of_records_and_messages_stay_as_they_are() {
    let golden = include_str!("golden.txt");
    let born = Record::Born { run: run(4), pid: 77 };
    let hello = ToShim::Hello {
        version: 1,
        epoch: 9,
        leash: None,
    };
    let signal = ToShim::Signal {
        req: 1,
        run: run(4),
        signal: 15,
        scope: Scope::Group,
    };
    let bell = FromShim::Bell {
        position: Position {
            segment: 2,
            offset: 300,
        },
    };
    let found = [
        ("born", encode(&born)),
        ("exited", encode(&exited(4))),
        ("hello", hello.to_frame()),
        ("signal", signal.to_frame()),
        ("bell", bell.to_frame()),
    ];
    let found: String = found
        .iter()
        .map(|(name, bytes)| format!("{name} {}\n", hex(bytes)))
        .collect();
    assert_eq!(found, golden);
}

#[test]
fn the_checksum_is_castagnolis() {
    // "123456789" has the check value e3069283; a frame's covers its length too.
    let frame = frame::encode(b"56789");
    let mut decoder = Decoder::new();
    decoder.push(&frame);
    assert_eq!(decoder.next_frame(), Ok(Some(b"56789".to_vec())));
    assert_eq!(frame::crc32c(b"123456789"), 0xE306_9283);
}

#[test]
fn run_ids_are_written_so_that_text_order_is_number_order() {
    assert_eq!(RunIdWire { epoch: 1, n: 5 }.to_string(), "1115");
    let mut ids: Vec<RunIdWire> = Vec::new();
    for epoch in [0, 1, 31, 32, 1023, 1024, u32::MAX] {
        for n in [0, 1, 31, 32, 33, 1 << 20, u32::MAX] {
            ids.push(RunIdWire { epoch, n });
        }
    }
    let mut texts: Vec<String> = ids.iter().map(RunIdWire::to_string).collect();
    texts.sort();
    ids.sort();
    assert_eq!(texts, ids.iter().map(RunIdWire::to_string).collect::<Vec<_>>());
}

#[test]
fn hazard_46_a_request_of_a_newer_daemon_is_reported_as_unknown_and_more_fields_are_skipped() {
    let mut newer = Vec::new();
    let mut encoder = minicbor::Encoder::new(&mut newer);
    encoder.array(2).unwrap().u32(4242).unwrap().array(0).unwrap();
    assert_eq!(ToShim::from_body(&newer).unwrap(), Heard::Unknown);
    let mut longer = Vec::new();
    let mut encoder = minicbor::Encoder::new(&mut longer);
    encoder.array(2).unwrap().u32(0).unwrap();
    encoder
        .array(5)
        .unwrap()
        .u32(2)
        .unwrap()
        .u32(9)
        .unwrap()
        .null()
        .unwrap()
        .str("new")
        .unwrap()
        .bool(true)
        .unwrap();
    assert_eq!(
        ToShim::from_body(&longer).unwrap(),
        Heard::Message(ToShim::Hello {
            version: 2,
            epoch: 9,
            leash: None
        })
    );
    assert!(ToShim::from_body(b"\xff\xff").is_err());
}

#[test]
fn hazard_33_a_journal_cut_at_every_byte_gives_all_whole_records() {
    let dir = scratch("cut");
    let records: Vec<Record> = (0..4).map(exited).collect();
    let frames: Vec<Vec<u8>> = records.iter().map(encode).collect();
    let whole: Vec<u8> = frames.concat();
    let path = dir.join(segment_name(1));
    for cut in 0..=whole.len() {
        std::fs::write(&path, &whole[..cut]).unwrap();
        let mut reader = Reader::open(&dir, Position::default()).unwrap();
        let mut count = 0;
        let mut ends = 0;
        while let Some((record, after)) = reader.read_next().unwrap() {
            assert_eq!(record, records[count]);
            ends += frames[count].len() as u64;
            assert_eq!(
                after,
                Position {
                    segment: 1,
                    offset: ends
                }
            );
            count += 1;
        }
        let expected = (0..=4)
            .rev()
            .find(|n| frames[..*n].concat().len() <= cut)
            .unwrap();
        assert_eq!(count, expected, "cut at {cut}");
        // The rest arrives: nothing was lost by having looked too early.
        std::fs::write(&path, &whole).unwrap();
        while reader.read_next().unwrap().is_some() {
            count += 1;
        }
        assert_eq!(count, 4, "cut at {cut}");
    }
    std::fs::remove_dir_all(dir).unwrap();
}

#[test]
fn hazard_33_any_flipped_byte_costs_at_most_its_own_record() {
    let dir = scratch("flip");
    let records: Vec<Record> = (0..3).map(exited).collect();
    let whole: Vec<u8> = records.iter().map(encode).collect::<Vec<_>>().concat();
    // A successor shows that the segment is complete.
    std::fs::write(dir.join(segment_name(2)), encode(&exited(99))).unwrap();
    for place in 0..whole.len() {
        let mut bad = whole.clone();
        bad[place] ^= 0x41;
        std::fs::write(dir.join(segment_name(1)), &bad).unwrap();
        let mut reader = Reader::open(&dir, Position::default()).unwrap();
        let mut found = Vec::new();
        while let Some((record, _)) = reader.read_next().unwrap() {
            found.push(record);
        }
        assert_eq!(found.len(), 3, "flipped byte {place}");
        assert_eq!(found[2], exited(99));
        assert!(reader.skipped_bytes() > 0);
    }
    std::fs::remove_dir_all(dir).unwrap();
}

#[test]
fn a_reader_goes_on_from_its_position_and_over_removed_segments() {
    let dir = scratch("position");
    std::fs::write(
        dir.join(segment_name(1)),
        [encode(&exited(1)), encode(&exited(2))].concat(),
    )
    .unwrap();
    std::fs::write(dir.join(segment_name(2)), encode(&exited(3))).unwrap();
    let mut reader = Reader::open(&dir, Position::default()).unwrap();
    let (_, after) = reader.read_next().unwrap().unwrap();
    let mut reader = Reader::open(&dir, after).unwrap();
    assert_eq!(reader.read_next().unwrap().unwrap().0, exited(2));
    std::fs::remove_file(dir.join(segment_name(1))).unwrap();
    let mut reader = Reader::open(&dir, after).unwrap();
    assert_eq!(reader.read_next().unwrap().unwrap().0, exited(3));
    assert!(reader.read_next().unwrap().is_none());
    std::fs::remove_dir_all(dir).unwrap();
}

#[test]
fn a_frame_that_claims_too_much_is_refused_before_it_is_read() {
    let mut decoder = Decoder::new();
    let mut head = frame::encode(b"");
    head[4..8].copy_from_slice(&u32::MAX.to_le_bytes());
    decoder.push(&head);
    assert_eq!(decoder.next_frame(), Err(FrameError::Length(u32::MAX as usize)));
}

#[test]
fn times_of_a_range_are_found_in_a_long_index_of_several_segments() {
    let dir = scratch("times");
    let entry = |offset: u64| IndexEntry {
        offset,
        wall_ms: offset as i64,
        mono_ns: 0,
        kind: IndexKind::Batch,
    };
    // Two segments; every offset of a batch twice, as where bytes were dropped.
    let all: Vec<IndexEntry> = (0..400).map(|n| entry(n / 2 * 10)).collect();
    for (first, half) in [(0, &all[..200]), (1000, &all[200..])] {
        let bytes: Vec<u8> = half.iter().flat_map(encode_entry).collect();
        std::fs::write(dir.join(format!("stdout.{first:020}.idx")), bytes).unwrap();
        std::fs::write(dir.join(format!("stdout.{first:020}.log")), [0; 1000]).unwrap();
    }
    let reader = StreamReader::open(&dir, "stdout");
    for (from, to) in [
        (0, 1),
        (5, 6),
        (10, 11),
        (990, 1011),
        (0, 2000),
        (1999, 2000),
        (3000, 3001),
    ] {
        let before = all.iter().rfind(|entry| entry.offset < from);
        let within = all.iter().filter(|entry| (from..to).contains(&entry.offset));
        let expected: Vec<IndexEntry> = before.into_iter().chain(within).copied().collect();
        assert_eq!(reader.times(from, to).unwrap(), expected, "{from}..{to}");
    }
    std::fs::remove_dir_all(dir).unwrap();
}
