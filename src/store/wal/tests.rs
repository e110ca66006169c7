use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};

use proptest::prelude::*;
use tempfile::TempDir;

use super::format::{RECORD_HEADER_BYTES, RecordHeader, SEGMENT_HEADER_BYTES, decode_frames};
use super::writer::Medium;
use super::*;

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap()
}

fn options(dir: &Path) -> Options {
    Options { min_free_bytes: 0, seed: 7, ..Options::new(dir) }
}

/// A record whose frames carry odd bits: NaN payloads, infinities, negative zero, extremes.
fn record(session: i64, first_seq: i64, count: usize) -> WalRecord {
    let odd = [f32::from_bits(0x7fc0_1234), f32::from_bits(0xffa0_0001), f32::INFINITY, -0.0, f32::MIN_POSITIVE, 9.81];
    let mut frames = FrameColumns::default();
    for row in 0..count {
        let value = |salt: usize| odd[(row * 7 + salt + first_seq as usize) % odd.len()];
        frames.sensor_id.push((row % 4) as i32 + 1);
        frames.sensor.push((row % 4) as u8 + 1);
        frames.device_time_raw.push(if row % 5 == 0 { i64::MIN } else { first_seq * 1000 + row as i64 });
        frames.t_ns.push((first_seq + row as i64) * 5_000_000);
        frames.clock.push(row as u8);
        frames.received_at_us.push(1_700_000_000_000_000 + first_seq);
        frames.acc.push([value(0), value(1), value(2)]);
        frames.gyro.push([value(3), value(4), value(5)]);
        frames.angle.push([f32::NAN; 3]);
        frames.flags.push(4);
    }
    WalRecord { session_id: SessionId(session), first_seq, content_hash: first_seq as u64, packet_ms: i64::MIN, frames }
}

/// Everything of a record, floats as bits, so that NaN equals itself.
type Bits = (SessionId, i64, u64, i64, Vec<i64>, Vec<u32>);

fn bits(record: &WalRecord) -> Bits {
    let frames = &record.frames;
    let integers = [&frames.sensor_id, &frames.flags].into_iter().flatten().copied().map(i64::from);
    let bytes = [&frames.sensor, &frames.clock].into_iter().flatten().copied().map(i64::from);
    let longs = [&frames.device_time_raw, &frames.t_ns, &frames.received_at_us].into_iter().flatten().copied();
    let floats = [&frames.acc, &frames.gyro, &frames.angle].into_iter().flatten().flatten().map(|x| x.to_bits());
    (
        record.session_id,
        record.first_seq,
        record.content_hash,
        record.packet_ms,
        integers.chain(bytes).chain(longs).collect(),
        floats.collect(),
    )
}

async fn append(log: &Handle, record: &WalRecord) -> Result<(), Arc<Error>> {
    let permit = log.reserve(record.frames.len()).await.map_err(Arc::new)?;
    log.append(permit, record).await.unwrap()
}

fn open(options: Options) -> (Handle, RecoveryReport, Vec<Bits>) {
    let mut replayed = Vec::new();
    let (log, report) = Handle::open(options, |record| replayed.push(bits(&record))).unwrap();
    assert_eq!(report.records, replayed.len() as u64);
    (log, report, replayed)
}

/// Writes records to a fresh log of one segment; gives its bytes and where each record ends.
fn one_segment(records: &[WalRecord]) -> (Vec<u8>, Vec<usize>) {
    let dir = TempDir::new().unwrap();
    runtime().block_on(async {
        let (log, ..) = open(options(dir.path()));
        for record in records {
            append(&log, record).await.unwrap();
        }
        log.close().await.unwrap();
    });
    let bytes = std::fs::read(dir.path().join(segment_name(1))).unwrap();
    let mut ends = vec![SEGMENT_HEADER_BYTES];
    while let Some(head) = bytes.get(ends[ends.len() - 1]..).filter(|rest| !rest.is_empty()) {
        let offset = ends[ends.len() - 1] as u64;
        ends.push(RecordHeader::decode(&head[..RECORD_HEADER_BYTES], offset, None).unwrap().end() as usize);
    }
    assert_eq!(ends.len(), records.len() + 1);
    (bytes, ends)
}

/// A log folder whose segment 1 has these bytes.
fn log_of(bytes: &[u8]) -> TempDir {
    let dir = TempDir::new().unwrap();
    std::fs::write(dir.path().join(segment_name(1)), bytes).unwrap();
    dir
}

/// Small, because a test that tries every byte syncs the disk some ten times for each.
fn few_records() -> Vec<WalRecord> {
    vec![record(1, 0, 1), record(2, 0, 0), record(1, 1, 2)]
}

fn records() -> Vec<WalRecord> {
    vec![record(1, 0, 2), record(2, 0, 1), record(1, 2, 0), record(1, 2, 3)]
}

#[test]
fn what_was_acknowledged_comes_back_in_order_over_many_segments() {
    let dir = TempDir::new().unwrap();
    let options = Options { segment_limit_bytes: 2000, ..options(dir.path()) };
    let written: Vec<_> = (0..40).map(|i| record(i % 3 + 1, i, (i % 9) as usize)).collect();
    runtime().block_on(async {
        let (log, ..) = open(options.clone());
        for record in &written {
            append(&log, record).await.unwrap();
        }
        log.close().await.unwrap();
        let refused = log.reserve(1).await;
        assert!(matches!(refused, Err(Error::Closed)));
    });
    let (_log, report, replayed) = open(options);
    assert_eq!(replayed, written.iter().map(bits).collect::<Vec<_>>());
    assert!(report.segments > 5, "{report:?}");
    assert_eq!((report.damaged_bytes, report.damaged_spots), (0, 0));
    assert!(!report.lost_data());
}

#[test]
fn erased_sessions_are_in_no_segment_and_the_others_stay_as_they_are() {
    let dir = TempDir::new().unwrap();
    let options = Options { segment_limit_bytes: 2000, ..options(dir.path()) };
    let written: Vec<_> = (0..40).map(|i| record(i % 3 + 1, i, (i % 9) as usize)).collect();
    let (before, after) = written.split_at(30);
    let theirs = HashSet::from([SessionId(2)]);
    runtime().block_on(async {
        let (log, ..) = open(options.clone());
        for record in before {
            append(&log, record).await.unwrap();
        }
        // Released or not, in full segments and in the one that is written.
        log.release(SessionId(2));
        let erased = log.erase(theirs.clone()).await.unwrap();
        assert!(erased > 5, "{erased} records of segments that others need");
        assert_eq!(log.erase(theirs.clone()).await.unwrap(), 0, "nothing of them is left");
        for record in after.iter().filter(|record| record.session_id != SessionId(2)) {
            append(&log, record).await.unwrap();
        }
        log.close().await.unwrap();
        assert!(matches!(log.erase(theirs.clone()).await, Err(Error::Closed)));
    });
    // A crash while a segment was written anew leaves this.
    let unborn = dir.path().join(format!("_{}.tmp", segment_name(1)));
    std::fs::write(&unborn, b"half").unwrap();
    let (_log, report, replayed) = open(options);
    let kept = written.iter().filter(|record| record.session_id != SessionId(2));
    assert_eq!(replayed, kept.map(bits).collect::<Vec<_>>());
    assert_eq!((report.damaged_bytes, report.lost_data()), (0, false), "{report:?}");
    assert!(!unborn.exists());
}

#[test]
fn a_segment_of_erased_sessions_alone_is_deleted_and_one_that_cannot_be_written_anew_stays() {
    let dir = TempDir::new().unwrap();
    runtime().block_on(async {
        let (log, ..) = open(options(dir.path()));
        append(&log, &record(1, 0, 3)).await.unwrap();
        assert_eq!(log.erase(HashSet::from([SessionId(1)])).await.unwrap(), 0, "it goes as a whole");
        assert!(!dir.path().join(segment_name(1)).exists());
        append(&log, &record(1, 0, 3)).await.unwrap();
        append(&log, &record(2, 0, 3)).await.unwrap();
        // Something that cannot be written over stands where the new segment is to be made.
        let unborn = dir.path().join(format!("_{}.tmp", segment_name(2)));
        std::fs::create_dir(&unborn).unwrap();
        let failed = log.erase(HashSet::from([SessionId(1)])).await;
        assert!(matches!(failed, Err(Error::Erase { .. })), "{failed:?}");
        assert!(log.health().is_good());
        append(&log, &record(2, 3, 3)).await.unwrap();
        std::fs::remove_dir(&unborn).unwrap();
        assert_eq!(log.erase(HashSet::from([SessionId(1)])).await.unwrap(), 1);
        log.close().await.unwrap();
    });
    let (_log, _, replayed) = open(options(dir.path()));
    assert_eq!(replayed, [record(2, 0, 3), record(2, 3, 3)].iter().map(bits).collect::<Vec<_>>());
}

#[test]
fn a_log_cut_at_every_byte_replays_a_prefix_and_takes_records_again() {
    let records = few_records();
    let (bytes, ends) = one_segment(&records);
    let expected: Vec<_> = records.iter().map(bits).collect();
    let next = record(9, 9, 2);
    for cut in 0..=bytes.len() {
        let dir = log_of(&bytes[..cut]);
        let whole = ends[1..].iter().filter(|&&end| end <= cut).count();

        let mut read = Vec::new();
        let seen = read_only(dir.path(), |record| read.push(bits(&record))).unwrap();
        assert_eq!(read, expected[..whole], "read-only, cut at {cut}");

        let (log, report, replayed) = open(options(dir.path()));
        assert_eq!(replayed, expected[..whole], "cut at {cut}");
        let good = if cut < SEGMENT_HEADER_BYTES { 0 } else { ends[whole] };
        assert_eq!(report.damaged_bytes as usize, cut - good, "cut at {cut}");
        assert_eq!(report.torn_bytes, report.damaged_bytes, "cut at {cut}");
        assert_eq!((seen.damaged_bytes, seen.torn_bytes), (report.damaged_bytes, report.torn_bytes), "cut at {cut}");
        assert!(!report.lost_data(), "cut at {cut}");
        let aside: Vec<u8> = report.set_aside.iter().flat_map(|path| std::fs::read(path).unwrap()).collect();
        assert_eq!(aside, bytes[good..cut], "cut at {cut}");

        runtime().block_on(async {
            append(&log, &next).await.unwrap();
            log.close().await.unwrap();
        });
        let (_log, report, replayed) = open(options(dir.path()));
        assert_eq!(report.damaged_bytes, 0, "cut at {cut}: a repaired log is whole");
        assert_eq!(replayed[..whole], expected[..whole], "cut at {cut}");
        assert_eq!(replayed[whole..], [bits(&next)], "cut at {cut}");
    }
}

#[test]
fn a_flipped_bit_never_makes_a_wrong_record_and_never_costs_a_second_one() {
    let records = few_records();
    let (bytes, ends) = one_segment(&records);
    let expected: Vec<_> = records.iter().map(bits).collect();
    for at in 0..bytes.len() {
        let mut damaged = bytes.clone();
        damaged[at] ^= 1 << (at % 8);
        let dir = log_of(&damaged);
        // The reserved bytes of a segment header may be anything; the record hit is the one that ends behind `at`.
        let hit = ends.iter().position(|&end| end > at).unwrap();
        let kept: Vec<_> =
            expected.iter().enumerate().filter(|(i, _)| i + 1 != hit).map(|(_, record)| record.clone()).collect();

        let mut read = Vec::new();
        read_only(dir.path(), |record| read.push(bits(&record))).unwrap();
        assert_eq!(read, kept, "read-only, flipped at {at}");

        let (log, report, replayed) = open(options(dir.path()));
        assert_eq!(replayed, kept, "flipped at {at}");
        let lost = if hit == 0 { SEGMENT_HEADER_BYTES } else { ends[hit] - ends[hit - 1] };
        assert_eq!(report.damaged_bytes as usize, lost, "flipped at {at}");
        assert_eq!(report.set_aside.len(), 1, "flipped at {at}");
        let from = ends.get(hit.wrapping_sub(1)).copied().unwrap_or(0);
        assert_eq!(std::fs::read(&report.set_aside[0]).unwrap(), damaged[from..from + lost], "flipped at {at}");
        drop(log);

        let (_log, report, replayed) = open(options(dir.path()));
        assert_eq!((report.damaged_bytes, report.left_in_place), (0, 0), "flipped at {at}: damage is met once");
        assert_eq!(replayed, kept, "flipped at {at}, second time");
    }
}

#[test]
fn damage_in_an_old_segment_is_loss_and_a_torn_end_of_the_newest_is_not() {
    let records = records();
    let (bytes, _) = one_segment(&records);
    for (number_of_cut, lost) in [(1, true), (2, false)] {
        let dir = TempDir::new().unwrap();
        runtime().block_on(async {
            let (log, ..) = open(Options { segment_limit_bytes: 1, ..options(dir.path()) });
            for record in &records[..2] {
                append(&log, record).await.unwrap();
            }
            log.close().await.unwrap();
        });
        let path = dir.path().join(segment_name(number_of_cut));
        let whole = std::fs::read(&path).unwrap();
        std::fs::write(&path, &whole[..whole.len() - 1]).unwrap();
        let (_log, report, replayed) = open(options(dir.path()));
        assert_eq!(report.lost_data(), lost);
        assert_eq!(replayed.len(), 1);
    }
    // Garbage behind the last record is no torn record.
    let dir = log_of(&[&bytes[..], &[0xA5; 100]].concat());
    let (_log, report, replayed) = open(options(dir.path()));
    assert_eq!((replayed.len(), report.damaged_bytes, report.torn_bytes), (4, 100, 0));
    assert!(report.lost_data());
    // Zeros behind the last record are assigned space that was never written.
    let dir = log_of(&[&bytes[..], &[0; 5000]].concat());
    let (_log, report, replayed) = open(options(dir.path()));
    assert_eq!((replayed.len(), report.damaged_bytes, report.set_aside.len()), (4, 0, 0));
    assert_eq!(std::fs::read(dir.path().join(segment_name(1))).unwrap(), bytes);
}

#[test]
fn the_image_of_a_record_inside_a_packet_is_never_taken_for_one() {
    // A stranger sends frames whose bytes are a whole log; then the record around them is damaged.
    let (image, _) = one_segment(&[record(66, 0, 2)]);
    let mut outer = record(1, 0, image.len() / 12 + 1);
    for (frame, chunk) in outer.frames.acc.iter_mut().zip(image.chunks(12)) {
        for (axis, chunk) in frame.iter_mut().zip(chunk.chunks_exact(4)) {
            *axis = f32::from_le_bytes(chunk.try_into().unwrap());
        }
    }
    let (mut bytes, ends) = one_segment(&[outer, record(2, 0, 1)]);
    bytes[ends[0]] ^= 1;
    let dir = log_of(&bytes);
    let (_log, _, replayed) = open(options(dir.path()));
    assert_eq!(replayed, [bits(&record(2, 0, 1))]);
}

#[test]
fn a_segment_under_a_second_name_is_not_replayed_twice() {
    let (bytes, _) = one_segment(&records());
    let dir = log_of(&bytes);
    std::fs::write(dir.path().join(segment_name(2)), &bytes).unwrap();
    let (_log, report, replayed) = open(options(dir.path()));
    assert_eq!(replayed.len(), 4);
    assert_eq!(report.set_aside.len(), 1);
}

/// Replaces the header of record 0 by one of another kind or version, with a right CRC.
fn with_kind(bytes: &[u8], kind: u8, version: u8) -> Vec<u8> {
    let at = SEGMENT_HEADER_BYTES;
    let header = RecordHeader::decode(&bytes[at..at + RECORD_HEADER_BYTES], at as u64, None).unwrap();
    let mut bytes = bytes.to_vec();
    bytes[at..at + RECORD_HEADER_BYTES].copy_from_slice(&RecordHeader { kind, version, ..header }.encode());
    bytes
}

#[test]
fn a_newer_log_is_refused_untouched_and_newer_optional_records_are_passed_over() {
    let (bytes, _) = one_segment(&records());
    let dir = log_of(&with_kind(&bytes, 77, 9));
    let (_log, report, replayed) = open(options(dir.path()));
    assert_eq!((report.skipped_records, replayed.len(), report.damaged_bytes), (1, 3, 0));

    let mut newer_segment = bytes.clone();
    newer_segment[8] = 2;
    let crc = crc32c::crc32c(&newer_segment[..28]);
    newer_segment[28..32].copy_from_slice(&crc.to_le_bytes());
    for newer in [with_kind(&bytes, 128, 1), with_kind(&bytes, 1, 2), newer_segment] {
        let dir = log_of(&newer);
        let error = Handle::open(options(dir.path()), |_| {}).unwrap_err();
        assert!(matches!(error, Error::Newer { .. }), "{error:?}");
        assert!(matches!(read_only(dir.path(), |_| {}), Err(Error::Newer { .. })));
        assert_eq!(std::fs::read(dir.path().join(segment_name(1))).unwrap(), newer);
    }
}

#[test]
fn one_log_has_one_owner() {
    let dir = TempDir::new().unwrap();
    let (log, ..) = open(options(dir.path()));
    assert!(matches!(Handle::open(options(dir.path()), |_| {}), Err(Error::Locked { .. })));
    let clone = log.clone();
    drop(log);
    assert!(matches!(Handle::open(options(dir.path()), |_| {}), Err(Error::Locked { .. })));
    drop(clone);
    open(options(dir.path()));
}

#[test]
fn a_reader_beside_the_writer_sees_what_was_acknowledged() {
    let dir = TempDir::new().unwrap();
    assert_eq!(read_only(&dir.path().join("absent"), |_| {}).unwrap(), RecoveryReport::default());
    runtime().block_on(async {
        let (log, ..) = open(Options { segment_limit_bytes: 600, ..options(dir.path()) });
        for (count, record) in records().iter().enumerate() {
            append(&log, record).await.unwrap();
            let mut read = 0;
            let report = read_only(dir.path(), |_| read += 1).unwrap();
            assert_eq!((read, report.damaged_bytes), (count + 1, 0));
        }
    });
}

#[test]
fn segments_whose_sessions_are_all_released_are_deleted() {
    let dir = TempDir::new().unwrap();
    let count = || {
        let entries = std::fs::read_dir(dir.path()).unwrap();
        entries.filter(|entry| segment_number(Path::new(&entry.as_ref().unwrap().file_name())).is_some()).count()
    };
    let one_record_each = Options { segment_limit_bytes: 400, ..options(dir.path()) };
    runtime().block_on(async {
        let (log, ..) = open(one_record_each.clone());
        for (session, seq) in [(1, 0), (2, 0), (1, 10)] {
            append(&log, &record(session, seq, 5)).await.unwrap();
        }
        assert_eq!(count(), 3);
        log.release(SessionId(1));
        // The jobs of one caller are done in order: the release is over when the next append is.
        append(&log, &record(3, 0, 1)).await.unwrap();
        assert_eq!(count(), 2, "session 1 is gone, its full active segment too");
        // What comes after the release is needed again.
        append(&log, &record(1, 15, 5)).await.unwrap();
        log.close().await.unwrap();
    });
    runtime().block_on(async {
        let (log, _, replayed) = open(one_record_each.clone());
        assert_eq!(
            replayed.iter().map(|record| (record.0.get(), record.1)).collect::<Vec<_>>(),
            [(2, 0), (3, 0), (1, 15)]
        );
        for session in 1..=3 {
            log.release(SessionId(session));
        }
        log.close().await.unwrap();
        assert_eq!(count(), 0, "recovered segments are deleted too");
    });
}

#[test]
fn callers_at_the_same_time_keep_their_own_order() {
    let dir = TempDir::new().unwrap();
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(4).enable_all().build().unwrap();
    let options = Options { segment_limit_bytes: 20_000, queue_limit_bytes: 5_000, ..options(dir.path()) };
    runtime.block_on(async {
        let (log, ..) = open(options.clone());
        let tasks: Vec<_> = (1..=8)
            .map(|session| {
                let log = log.clone();
                tokio::spawn(async move {
                    let mut durable = Vec::new();
                    for seq in 0..60 {
                        let permit = log.reserve(3).await.unwrap();
                        durable.push(log.append(permit, &record(session, seq, 3)));
                    }
                    for durable in durable {
                        durable.await.unwrap().unwrap();
                    }
                })
            })
            .collect();
        for task in tasks {
            task.await.unwrap();
        }
        log.close().await.unwrap();
    });
    let (_log, _, replayed) = open(options);
    let mut by_session: HashMap<SessionId, Vec<i64>> = HashMap::new();
    for record in replayed {
        by_session.entry(record.0).or_default().push(record.1);
    }
    assert_eq!(by_session.len(), 8);
    assert!(by_session.values().all(|seqs| seqs.iter().copied().eq(0..60)));
}

#[test]
fn closing_finishes_what_is_queued_and_refuses_the_rest() {
    let dir = TempDir::new().unwrap();
    runtime().block_on(async {
        let (log, ..) = open(options(dir.path()));
        let spare = log.reserve(1).await.unwrap();
        let mut durable = Vec::new();
        for seq in 0..10 {
            let permit = log.reserve(2).await.unwrap();
            durable.push(log.append(permit, &record(1, seq, 2)));
        }
        log.close().await.unwrap();
        for durable in durable {
            durable.await.unwrap().unwrap();
        }
        let late = log.append(spare, &record(1, 10, 1)).await.unwrap();
        assert!(matches!(*late.unwrap_err(), Error::Closed));
        log.close().await.unwrap();
    });
    assert_eq!(open(options(dir.path())).2.len(), 10);
}

#[test]
fn records_that_break_the_contract_are_refused_alone() {
    let dir = TempDir::new().unwrap();
    runtime().block_on(async {
        let (log, ..) = open(options(dir.path()));
        let mut ragged = record(1, 0, 3);
        ragged.frames.gyro.pop();
        let error = append(&log, &ragged).await.unwrap_err();
        assert!(matches!(*error, Error::Ragged { .. }) && error.class() == Class::Bug);

        let small = log.reserve(1).await.unwrap();
        let error = log.append(small, &record(1, 0, 200)).await.unwrap().unwrap_err();
        assert!(matches!(*error, Error::Unreserved { .. }));

        let error = log.reserve(RECORD_LIMIT_FRAMES).await.unwrap_err();
        assert!(matches!(error, Error::TooLarge { .. }), "larger than the queue");
        assert!(matches!(log.reserve(usize::MAX).await, Err(Error::TooLarge { .. })));
        append(&log, &record(1, 0, 3)).await.unwrap();
        assert!(log.health().is_good());
    });
}

#[test]
fn room_in_the_queue_is_a_limit_and_comes_back() {
    let dir = TempDir::new().unwrap();
    runtime().block_on(async {
        let (log, ..) = open(Options { queue_limit_bytes: 1000, ..options(dir.path()) });
        let first = log.try_reserve(10).unwrap().unwrap();
        assert!(log.try_reserve(10).unwrap().is_none());
        drop(first);
        let permit = log.try_reserve(10).unwrap().unwrap();
        log.append(permit, &record(1, 0, 10)).await.unwrap().unwrap();
        // The room is given back when the record is resolved or just after.
        drop(log.reserve(10).await.unwrap());
    });
}

/// A disk with a budget of bytes, whose syncs can be made to fail.
#[derive(Clone, Debug, Default)]
struct Faults {
    used: Arc<AtomicU64>,
    limit: Arc<AtomicU64>,
    free: Arc<AtomicU64>,
    failing_sync: Arc<AtomicU64>,
}

struct FaultyDisk(Disk, Faults);
struct FaultyMedium(Box<dyn Medium>, u64, Faults);

impl Storage for FaultyDisk {
    fn create(&mut self, path: &Path) -> io::Result<Box<dyn Medium>> {
        Ok(Box::new(FaultyMedium(self.0.create(path)?, 0, self.1.clone())))
    }
    fn rename(&mut self, from: &Path, to: &Path) -> io::Result<()> {
        self.0.rename(from, to)
    }
    fn free_bytes(&mut self) -> io::Result<u64> {
        Ok(self.1.free.load(Ordering::Relaxed))
    }
}

impl Medium for FaultyMedium {
    fn write_all_at(&mut self, bytes: &[u8], offset: u64) -> io::Result<()> {
        let room = self.2.limit.load(Ordering::Relaxed).saturating_sub(self.2.used.load(Ordering::Relaxed));
        let fits = bytes.len().min(room as usize);
        // As a real disk does, it takes what fits before it complains.
        self.0.write_all_at(&bytes[..fits], offset)?;
        let grown = (offset + fits as u64).saturating_sub(self.1);
        self.1 += grown;
        self.2.used.fetch_add(grown, Ordering::Relaxed);
        if fits < bytes.len() { Err(io::ErrorKind::StorageFull.into()) } else { Ok(()) }
    }
    fn sync_data(&mut self) -> io::Result<()> {
        match self.2.failing_sync.load(Ordering::Relaxed) {
            0 => self.0.sync_data(),
            code => Err(io::Error::from_raw_os_error(code as i32)),
        }
    }
    fn set_len(&mut self, len: u64) -> io::Result<()> {
        self.2.used.fetch_sub(self.1.saturating_sub(len), Ordering::Relaxed);
        self.1 = len;
        self.0.set_len(len)
    }
}

fn open_faulty(options: Options) -> (Handle, Faults) {
    let faults = Faults::default();
    faults.limit.store(u64::MAX, Ordering::Relaxed);
    faults.free.store(u64::MAX, Ordering::Relaxed);
    let disk = FaultyDisk(Disk::new(&options.dir), faults.clone());
    (Handle::open_on(lock(&options.dir).unwrap(), options, Box::new(disk), |_| {}).unwrap().0, faults)
}

#[test]
fn a_full_disk_refuses_records_and_goes_on_when_there_is_room() {
    let dir = TempDir::new().unwrap();
    let (log, faults) = open_faulty(options(dir.path()));
    runtime().block_on(async {
        append(&log, &record(1, 0, 8)).await.unwrap();
        for seq in 1..4 {
            // A part of the next record still fits, which must be taken back.
            faults.limit.store(faults.used.load(Ordering::Relaxed) + 100, Ordering::Relaxed);
            let error = append(&log, &record(1, seq, 8)).await.unwrap_err();
            assert!(matches!(*error, Error::NoSpace { .. }) && error.is_retryable(), "{error:?}");
            assert!(matches!(log.health(), Health::Failing(_)));
        }
        faults.limit.store(u64::MAX, Ordering::Relaxed);
        append(&log, &record(1, 8, 3)).await.unwrap();
        assert!(log.health().is_good());
        log.close().await.unwrap();
    });
    drop(log);
    let (_log, report, replayed) = open(options(dir.path()));
    assert_eq!(report.damaged_bytes, 0);
    assert_eq!(replayed, [bits(&record(1, 0, 8)), bits(&record(1, 8, 3))]);
}

#[test]
fn a_probe_tells_what_an_append_would_find() {
    let dir = TempDir::new().unwrap();
    let (log, faults) = open_faulty(Options { min_free_bytes: 1000, ..options(dir.path()) });
    runtime().block_on(async {
        let is_good = async |room| log.probe(room).await.is_good();
        assert!(is_good(Room::ForASession).await);
        // Enough for those who record, not for another.
        faults.free.store(1249, Ordering::Relaxed);
        assert!(is_good(Room::ForARecord).await && !is_good(Room::ForASession).await);
        faults.free.store(1250, Ordering::Relaxed);
        assert!(is_good(Room::ForASession).await);
        // Filled by somebody else, before any append.
        faults.free.store(999, Ordering::Relaxed);
        assert!(!is_good(Room::ForARecord).await && !log.health().is_good());
        faults.free.store(1000, Ordering::Relaxed);
        assert!(is_good(Room::ForARecord).await && log.health().is_good());
        // A quota does not show in the free space.
        append(&log, &record(1, 0, 8)).await.unwrap();
        faults.limit.store(faults.used.load(Ordering::Relaxed), Ordering::Relaxed);
        assert!(is_good(Room::ForARecord).await, "nobody has met it yet");
        append(&log, &record(1, 8, 8)).await.unwrap_err();
        assert!(!is_good(Room::ForARecord).await);
        faults.limit.store(u64::MAX, Ordering::Relaxed);
        assert!(is_good(Room::ForARecord).await && log.health().is_good());
        append(&log, &record(1, 8, 8)).await.unwrap();
        log.close().await.unwrap();
        assert!(is_good(Room::ForARecord).await, "the end of a log that never failed");
    });
    let files: Vec<_> = std::fs::read_dir(dir.path()).unwrap().map(|file| file.unwrap().file_name()).collect();
    assert!(!files.iter().any(|name| name.to_string_lossy().contains("probe")), "{files:?}");
}

#[test]
fn records_are_refused_while_the_disk_is_nearly_full() {
    let dir = TempDir::new().unwrap();
    // Free space is looked up for every new segment, here for every record.
    let (log, faults) = open_faulty(Options { min_free_bytes: 1 << 20, segment_limit_bytes: 1, ..options(dir.path()) });
    runtime().block_on(async {
        append(&log, &record(1, 0, 8)).await.unwrap();
        faults.free.store((1 << 20) - 1, Ordering::Relaxed);
        let error = append(&log, &record(1, 8, 8)).await.unwrap_err();
        let cause = std::error::Error::source(&*error).unwrap().to_string();
        assert!(matches!(*error, Error::NoSpace { .. }) && cause.contains("1048576 must stay"), "{cause}");
        faults.free.store(1 << 20, Ordering::Relaxed);
        append(&log, &record(1, 8, 8)).await.unwrap();
    });
}

#[test]
fn a_full_disk_at_the_birth_of_a_segment_is_survived() {
    let dir = TempDir::new().unwrap();
    let (log, faults) = open_faulty(options(dir.path()));
    runtime().block_on(async {
        faults.limit.store(10, Ordering::Relaxed);
        let error = append(&log, &record(1, 0, 1)).await.unwrap_err();
        assert!(matches!(*error, Error::NoSpace { .. }));
        faults.limit.store(u64::MAX, Ordering::Relaxed);
        append(&log, &record(1, 0, 1)).await.unwrap();
        log.close().await.unwrap();
    });
    drop(log);
    let (_log, report, replayed) = open(options(dir.path()));
    assert_eq!((replayed.len(), report.damaged_bytes), (1, 0));
}

#[test]
fn a_failed_sync_poisons_the_log_and_keeps_what_was_acknowledged() {
    let dir = TempDir::new().unwrap();
    let (log, faults) = open_faulty(options(dir.path()));
    runtime().block_on(async {
        append(&log, &record(1, 0, 4)).await.unwrap();
        faults.failing_sync.store(5, Ordering::Relaxed); // EIO
        let error = append(&log, &record(1, 4, 4)).await.unwrap_err();
        assert!(matches!(*error, Error::Sync { .. }) && !error.is_retryable(), "{error:?}");
        // The disk seems well again, but what it holds is not known.
        faults.failing_sync.store(0, Ordering::Relaxed);
        let error = append(&log, &record(1, 8, 4)).await.unwrap_err();
        assert!(matches!(*error, Error::Poisoned(_)), "{error:?}");
        assert!(matches!(log.health(), Health::Poisoned(_)));
        assert!(matches!(log.close().await, Err(Error::Poisoned(_))));
    });
    drop(log);
    let (_log, _, replayed) = open(options(dir.path()));
    assert_eq!(replayed, [bits(&record(1, 0, 4))]);
}

fn any_frames() -> impl Strategy<Value = FrameColumns> {
    let axes = || any::<[u32; 3]>().prop_map(|bits| bits.map(f32::from_bits));
    let frame = (
        (any::<i32>(), any::<u8>(), any::<i64>(), any::<i64>()),
        (any::<u8>(), any::<i64>(), axes(), axes(), axes(), any::<i32>()),
    );
    // Repeating one frame makes the columns constant.
    let frames = prop_oneof![
        proptest::collection::vec(frame.clone(), 0..40),
        (frame, 0usize..40).prop_map(|(frame, count)| vec![frame; count]),
    ];
    frames.prop_map(|rows| {
        let mut frames = FrameColumns::with_capacity(rows.len());
        for ((sensor_id, sensor, raw, t_ns), (clock, received_at_us, acc, gyro, angle, flags)) in rows {
            frames.sensor_id.push(sensor_id);
            frames.sensor.push(sensor);
            frames.device_time_raw.push(raw);
            frames.t_ns.push(t_ns);
            frames.clock.push(clock);
            frames.received_at_us.push(received_at_us);
            frames.acc.push(acc);
            frames.gyro.push(gyro);
            frames.angle.push(angle);
            frames.flags.push(flags);
        }
        frames
    })
}

#[derive(Clone, Debug)]
enum Action {
    Append { session: i64, count: usize },
    Release { session: i64 },
    Reopen { close_first: bool },
}

fn any_action() -> impl Strategy<Value = Action> {
    prop_oneof![
        6 => (1i64..5, 0usize..12).prop_map(|(session, count)| Action::Append { session, count }),
        2 => (1i64..5).prop_map(|session| Action::Release { session }),
        1 => any::<bool>().prop_map(|close_first| Action::Reopen { close_first }),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, ..ProptestConfig::default() })]

    #[test]
    fn a_body_decodes_to_what_was_encoded(
        session in any::<i64>(), first_seq in any::<i64>(), content_hash in any::<u64>(), packet_ms in any::<i64>(),
        frames in any_frames(),
    ) {
        let record = WalRecord { session_id: SessionId(session), first_seq, content_hash, packet_ms, frames };
        let encoded = format::encode(&record).unwrap();
        prop_assert!(encoded.len() <= format::record_size_max(record.frames.len()));
        let mut bytes = Vec::new();
        encoded.put(5, 32, &mut bytes);
        prop_assert_eq!(bytes.len(), encoded.len());
        let header = RecordHeader::decode(&bytes[..RECORD_HEADER_BYTES], 32, Some(5)).unwrap();
        prop_assert_eq!(header.end() as usize, 32 + bytes.len());
        let body = &bytes[RECORD_HEADER_BYTES..];
        prop_assert_eq!(bits(&decode_frames(body).unwrap()), bits(&record));
        prop_assert!(decode_frames(&body[..body.len() - 1]).is_none());
        prop_assert!(RecordHeader::decode(&bytes, 33, Some(5)).is_none(), "another place");
        prop_assert!(RecordHeader::decode(&bytes, 32, Some(6)).is_none(), "another segment");
    }

    #[test]
    fn any_bytes_are_opened_without_panic(bytes in proptest::collection::vec(any::<u8>(), 0..400), with_header in any::<bool>()) {
        let header = format::SegmentHeader { number: 1, salt: 3 }.encode();
        let bytes = if with_header { [&header[..], &bytes].concat() } else { bytes };
        let dir = log_of(&bytes);
        decode_frames(&bytes);
        read_only(dir.path(), |_| {}).unwrap();
        let (_log, report, replayed) = open(options(dir.path()));
        prop_assert!(replayed.is_empty());
        prop_assert_eq!(report.left_in_place, 0);
    }

    /// Whatever is done, a reopened log holds, in order, all records that were not released, and no record twice. A record
    /// that was released may come back as long as its segment also holds others.
    #[test]
    fn a_log_agrees_with_a_list(actions in proptest::collection::vec(any_action(), 1..40), limit in 200u64..3000) {
        let dir = TempDir::new().unwrap();
        let options = Options { segment_limit_bytes: limit, ..options(dir.path()) };
        let runtime = runtime();
        // (record, still needed)
        let mut model: Vec<(Bits, bool)> = Vec::new();
        let (mut log, ..) = open(options.clone());
        for (step, action) in actions.into_iter().chain([Action::Reopen { close_first: true }]).enumerate() {
            match action {
                Action::Append { session, count } => {
                    let record = record(session, step as i64, count);
                    runtime.block_on(append(&log, &record)).unwrap();
                    model.push((bits(&record), true));
                }
                Action::Release { session } => {
                    log.release(SessionId(session));
                    for (record, needed) in &mut model {
                        *needed &= record.0 != SessionId(session);
                    }
                }
                Action::Reopen { close_first } => {
                    if close_first {
                        runtime.block_on(log.close()).unwrap();
                    }
                    drop(log);
                    let (reopened, report, replayed) = open(options.clone());
                    prop_assert_eq!(report.damaged_bytes, 0);
                    let mut rest = replayed.iter();
                    for (record, needed) in &model {
                        let mut ahead = rest.clone();
                        match ahead.next() {
                            Some(next) if next == record => rest = ahead,
                            _ => prop_assert!(!needed, "a needed record is missing or out of order"),
                        }
                    }
                    prop_assert_eq!(rest.count(), 0, "an unknown record");
                    // What came back counts as needed until it is released again, as after a real restart.
                    model = replayed.into_iter().map(|record| (record, true)).collect();
                    log = reopened;
                }
            }
        }
    }
}

/// Latency and throughput on the machine at hand: `cargo nextest run --run-ignored only -E 'test(wal_speed)' --no-capture`.
#[test]
#[ignore = "a measurement, not a check"]
fn wal_speed() {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    for (devices, in_flight, count) in [(1, 1, 2000), (8, 1, 2000), (8, 16, 8000)] {
        let dir = TempDir::new_in(std::env::current_dir().unwrap()).unwrap();
        let (log, ..) = open(options(dir.path()));
        let started = std::time::Instant::now();
        let mut micros: Vec<u128> = runtime.block_on(async {
            let tasks: Vec<_> = (1..=devices)
                .map(|session| {
                    let log = log.clone();
                    tokio::spawn(async move {
                        let record = record(session, 0, 40);
                        let mut micros = Vec::new();
                        let mut waiting = std::collections::VecDeque::new();
                        for _ in 0..count {
                            let permit = log.reserve(40).await.unwrap();
                            waiting.push_back((std::time::Instant::now(), log.append(permit, &record)));
                            if waiting.len() >= in_flight {
                                let (at, durable) = waiting.pop_front().unwrap();
                                durable.await.unwrap().unwrap();
                                micros.push(at.elapsed().as_micros());
                            }
                        }
                        micros
                    })
                })
                .collect();
            let mut micros = Vec::new();
            for task in tasks {
                micros.extend(task.await.unwrap());
            }
            micros
        });
        micros.sort_unstable();
        let seconds = started.elapsed().as_secs_f64();
        let records = devices as usize * count;
        println!(
            "{devices} devices, {in_flight} in flight: {:.0} records/s, {:.2} M frames/s, ack p50 {} µs, p99 {} µs",
            records as f64 / seconds,
            records as f64 * 40.0 / seconds / 1e6,
            micros[micros.len() / 2],
            micros[micros.len() * 99 / 100]
        );
    }
}
