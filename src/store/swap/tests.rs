use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
use schemas::{FrameColumns, SensorRole, SessionId};
use tempfile::TempDir;

use super::*;
use crate::store::audit::{Expected, audit};
use crate::store::pack::{Packs, locate};
use crate::store::results::{StrokeRow, read_strokes, write_strokes};
use crate::store::seal::{Manifest, found_above, read_frames, read_track, remove_unfinished, write_frames};

/// 2026-11-23 00:00 UTC.
const STARTED_AT_US: i64 = 1_795_392_000_000_000;

fn always() -> bool {
    true
}

fn frames(session: i64, rows: usize) -> FrameColumns {
    let mut frames = FrameColumns::default();
    for row in 0..rows {
        let sensor = [SensorRole::Racket, SensorRole::Wrist][row % 2];
        let value = session as f32 + row as f32 / 64.0;
        frames.push_decoded(i32::from(sensor.to_byte()), sensor, Some(row as i64 * 5), [[value; 3]; 3]);
        frames.t_ns[row] = row as i64 * 5_000_000;
    }
    frames
}

fn seal(paths: &Paths, session: i64, revision: u32, rows: usize) -> Manifest {
    let metadata = [("volant.sync_error_ns".to_owned(), "1500000".to_owned())];
    let frames = frames(session, rows);
    write_frames(paths, SessionId(session), STARTED_AT_US, revision, &frames, |_| Some(9.80665), &metadata).unwrap()
}

fn strokes(session: i64) -> Vec<StrokeRow> {
    let stroke = |index| StrokeRow {
        session_id: session,
        stroke_index: index,
        stroke: "smash".to_owned(),
        probabilities: "{}".to_owned(),
        metrics: "{}".to_owned(),
        ..StrokeRow::default()
    };
    (1..session as i32).map(stroke).collect()
}

/// Four sessions of one day: the frames' manifests.
fn day(paths: &Paths) -> Vec<Manifest> {
    for session in 1..=4 {
        write_strokes(paths, SessionId(session), STARTED_AT_US, &strokes(session)).unwrap();
    }
    (1..=4).map(|session| seal(paths, session, 1, 100 * session as usize)).collect()
}

fn pack(paths: &Paths, table: Table) -> Packed {
    let folder = paths.folder(TablePath::new(table, SessionId(1), STARTED_AT_US));
    pack_day(paths, table, &folder, &Sizes::default(), false, &always).unwrap()
}

/// Name and bytes of every file below the tables.
fn tree(paths: &Paths) -> Vec<(PathBuf, Vec<u8>)> {
    let mut tree = Vec::new();
    for table in Table::ALL {
        for folder in entries(&paths.table(table)).unwrap() {
            for file in entries(&folder).unwrap() {
                let bytes = fs::read(&file).unwrap();
                tree.push((file, bytes));
            }
        }
    }
    tree
}

fn names(paths: &Paths, table: Table) -> Vec<String> {
    let folder = paths.folder(TablePath::new(table, SessionId(1), STARTED_AT_US));
    let names = entries(&folder).unwrap();
    names.iter().map(|file| file.file_name().unwrap().to_str().unwrap().to_owned()).collect()
}

fn expected(manifests: &[Manifest]) -> Vec<Expected> {
    manifests.iter().map(Expected::from).collect()
}

#[test]
fn a_day_is_packed_and_undone_to_the_byte() {
    let dir = TempDir::new().unwrap();
    let paths = Paths::new(dir.path());
    let manifests = day(&paths);
    let before = tree(&paths);
    let packed = pack(&paths, Table::Frames);
    assert_eq!((packed.files, packed.packs), (4, 1));
    assert_eq!(packed.file_bytes, manifests.iter().map(|manifest| manifest.bytes).sum::<u64>());
    assert!(packed.pack_bytes < packed.file_bytes, "{packed:?}");
    assert_eq!(names(&paths, Table::Frames), ["1-4-4.parquet"]);
    assert_eq!(pack(&paths, Table::Strokes).files, 4);
    assert_eq!(pack(&paths, Table::Frames), Packed::default(), "a second run finds nothing to do");

    for manifest in &manifests {
        let file = locate(&paths, manifest.path).unwrap();
        assert!(file.is_packed());
        assert_eq!(file.sha256().unwrap(), (manifest.bytes, manifest.sha256.clone()));
        let session = manifest.path.session_id();
        let track = read_track(&file).unwrap();
        assert_eq!((track.len(), track.sync_error_ns), (manifest.rows as usize, 1_500_000));
        let columns = read_frames(&file).unwrap();
        assert_eq!(columns.acc, frames(session.get(), manifest.rows as usize).acc);
        let theirs = TablePath::new(Table::Strokes, session, STARTED_AT_US);
        assert_eq!(read_strokes(&locate(&paths, theirs).unwrap()).unwrap(), strokes(session.get()));
    }
    // An outside engine reads the pack as a file like any other.
    let pack_file = paths.folder(manifests[0].path).join("1-4-4.parquet");
    let reader = ParquetRecordBatchReaderBuilder::try_new(File::open(pack_file).unwrap()).unwrap();
    assert_eq!(reader.metadata().num_row_groups(), 8, "a row group a sensor and session");
    assert!(reader.metadata().row_groups().iter().all(|group| group.sorting_columns().is_some()));
    assert!(reader.schema().fields().iter().all(|field| field.metadata().contains_key("comment")));
    assert_eq!(reader.build().unwrap().map(|batch| batch.unwrap().num_rows()).sum::<usize>(), 1000);

    let report = audit(&paths, &expected(&manifests), |_| {}).unwrap();
    assert!(report.is_whole(), "{report:?}");
    assert_eq!((report.files, report.packed_files, report.packs), (8, 8, 2));
    let found = found_above(&paths, SessionId(2)).unwrap();
    assert_eq!(
        found.iter().map(|found| &found.sha256).collect::<Vec<_>>(),
        [&manifests[2].sha256, &manifests[3].sha256]
    );
    assert!(found.iter().all(|found| found.sync_error_ns == 1_500_000 && found.started_at_us == STARTED_AT_US));

    assert_eq!(undo_all(&paths, &always).unwrap(), 2);
    assert_eq!(tree(&paths), before);
    assert_eq!(undo_all(&paths, &always).unwrap(), 0);
    assert!(remove_unfinished(&paths).unwrap() > 0);
    assert_eq!(entries(&paths.swap()).unwrap(), Vec::<PathBuf>::new());
    assert_eq!(tree(&paths), before);
}

#[test]
fn what_was_replaced_stays_readable_until_it_is_deleted() {
    let dir = TempDir::new().unwrap();
    let paths = Paths::new(dir.path());
    let manifests = day(&paths);
    pack(&paths, Table::Frames);
    let name = manifests[1].path.to_string();
    let kept = replaced(&paths, &name, None).unwrap();
    assert_eq!(TableFile::open(&kept).unwrap().sha256().unwrap().1, manifests[1].sha256);
    assert_eq!(remove_replaced(&paths, Some(0)).unwrap(), Some(0));
    assert_eq!(remove_replaced(&paths, Some(i64::MAX)).unwrap(), Some(4));
    assert_eq!(replaced(&paths, &name, None), None);
    // Nobody deletes while somebody packs.
    let _packing = Generation::new(&paths).unwrap();
    assert_eq!(remove_replaced(&paths, None).unwrap(), None);
}

#[test]
fn a_session_that_is_written_again_gets_its_file_back_first() {
    let dir = TempDir::new().unwrap();
    let paths = Paths::new(dir.path());
    let manifests = day(&paths);
    let before = tree(&paths);
    pack(&paths, Table::Frames);
    let second = seal(&paths, 2, 2, 250);
    let after = tree(&paths);
    assert_eq!(after.len(), before.len());
    for ((file, old), (name, new)) in before.iter().zip(&after) {
        assert_eq!(file, name);
        assert_eq!(old == new, *file != paths.file(second.path), "{}", file.display());
    }
    // The next run packs the day again, the new revision in it.
    pack(&paths, Table::Frames);
    assert_eq!(locate(&paths, second.path).unwrap().sha256().unwrap().1, second.sha256);
    assert_eq!(locate(&paths, manifests[2].path).unwrap().sha256().unwrap().1, manifests[2].sha256);
    // A further session of the day stands beside the pack, and does not touch it.
    let fifth = seal(&paths, 5, 1, 10);
    assert_eq!(names(&paths, Table::Frames), ["1-4-4.parquet", "5.parquet"]);
    assert!(!locate(&paths, fifth.path).unwrap().is_packed());
}

#[test]
fn a_file_that_changes_while_it_is_packed_is_not_replaced() {
    let dir = TempDir::new().unwrap();
    let paths = Paths::new(dir.path());
    day(&paths);
    let folder = paths.folder(TablePath::new(Table::Frames, SessionId(1), STARTED_AT_US));
    // Asked whether to go on, the files have been read and nothing is replaced yet.
    let republish = || {
        seal(&paths, 3, 2, 333);
        true
    };
    let packed = pack_day(&paths, Table::Frames, &folder, &Sizes::default(), false, &republish);
    assert!(matches!(packed, Err(Error::Changed { .. })), "{packed:?}");
    assert_eq!(names(&paths, Table::Frames), ["1.parquet", "2.parquet", "3.parquet", "4.parquet"]);
    assert_eq!(
        read_track(&locate(&paths, TablePath::new(Table::Frames, SessionId(3), STARTED_AT_US)).unwrap()).unwrap().len(),
        333
    );
    let kept = entries(&paths.swap()).unwrap();
    let name = TablePath::new(Table::Frames, SessionId(3), STARTED_AT_US).to_string();
    assert_eq!(kept.len(), 1, "nothing half is left");
    assert!(kept[0].join(name).is_file(), "only what the new revision replaced");
}

/// Bytes to place, while they are read the day is packed.
struct Packing<'a> {
    paths: &'a Paths,
    bytes: &'a [u8],
    is_packed: bool,
}

impl io::Read for Packing<'_> {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        if !std::mem::replace(&mut self.is_packed, true) {
            assert_eq!(pack(self.paths, Table::Frames).files, 4);
        }
        self.bytes.read(out)
    }
}

#[test]
fn a_writer_that_began_before_the_day_was_packed_begins_again() {
    let dir = TempDir::new().unwrap();
    let paths = Paths::new(dir.path());
    let manifests = day(&paths);
    let bytes = fs::read(paths.file(manifests[1].path)).unwrap();
    let place = |is_packed| {
        let mut source = Packing { paths: &paths, bytes: &bytes, is_packed };
        crate::store::place(&paths, manifests[1].path, &mut source, &manifests[1].sha256)
    };
    let error = place(false).unwrap_err();
    assert!(matches!(error, Error::Changed { .. }) && error.is_retryable(), "{error:?}");
    assert_eq!(names(&paths, Table::Frames), ["1-4-4.parquet"], "the temporary file went with its writer");
    assert_eq!(place(true).unwrap(), manifests[1].bytes);
    assert_eq!(names(&paths, Table::Frames), ["1.parquet", "2.parquet", "3.parquet", "4.parquet"]);
    assert!(audit(&paths, &expected(&manifests), |_| {}).unwrap().is_whole());
}

#[test]
fn sizes_decide_what_is_packed_with_what() {
    let dir = TempDir::new().unwrap();
    let paths = Paths::new(dir.path());
    let manifests = day(&paths);
    let folder = paths.folder(manifests[0].path);
    let run = |sizes: &Sizes, dry_run| pack_day(&paths, Table::Frames, &folder, sizes, dry_run, &always).unwrap();
    let sizes = Sizes::default();
    let smallest = Sizes { small_bytes: manifests[0].bytes + 1, ..sizes };
    assert_eq!(run(&smallest, false), Packed::default(), "one alone stays");
    let pairs = Sizes { pack_sessions: 2, ..sizes };
    let planned = run(&pairs, true);
    assert_eq!((planned.files, planned.packs), (4, 2));
    assert_eq!(names(&paths, Table::Frames).len(), 4, "a dry run changes nothing");
    assert_eq!(pack_day(&paths, Table::Frames, &folder, &pairs, false, &|| false).unwrap(), Packed::default());
    assert_eq!(names(&paths, Table::Frames).len(), 4, "nor does one that was cancelled");
    // What is no file of a session stays where it is.
    fs::write(folder.join("notes.txt"), "mine").unwrap();
    fs::write(folder.join("9.parquet"), "no parquet").unwrap();
    fs::copy(paths.file(manifests[0].path), folder.join("8.parquet")).unwrap();
    assert_eq!(run(&pairs, false).packs, 2);
    assert_eq!(names(&paths, Table::Frames), ["1-2-2.parquet", "3-4-2.parquet", "8.parquet", "9.parquet", "notes.txt"]);
}

#[test]
fn a_damaged_pack_is_an_error_and_no_panic() {
    let dir = TempDir::new().unwrap();
    let paths = Paths::new(dir.path());
    let manifests = day(&paths);
    pack(&paths, Table::Frames);
    let file = paths.folder(manifests[0].path).join("1-4-4.parquet");
    let bytes = fs::read(&file).unwrap();
    let lost = || audit(&paths, &expected(&manifests), |_| {}).unwrap().lost;
    for cut in (0..bytes.len()).step_by(997) {
        fs::write(&file, &bytes[..cut]).unwrap();
        assert!(!lost().is_empty(), "cut at {cut}");
        assert!(undo_for(&paths, manifests[0].path).is_err());
    }
    for at in (0..bytes.len()).step_by(487) {
        let mut flipped = bytes.clone();
        flipped[at] ^= 0x10;
        fs::write(&file, &flipped).unwrap();
        // Some bytes are of the pack alone, padding of no session's file; none may panic, and undoing gives back what was
        // packed or nothing.
        drop(lost());
        if undo_for(&paths, manifests[0].path).is_ok() && !file.exists() {
            assert!(lost().is_empty(), "flipped at {at}");
            pack(&paths, Table::Frames);
        }
    }
    fs::write(&file, &bytes).unwrap();
    assert!(lost().is_empty());
}

#[test]
fn packs_are_remembered_until_their_folder_changes() {
    let dir = TempDir::new().unwrap();
    let paths = Paths::new(dir.path());
    let manifests = day(&paths);
    let packs = Packs::default();
    let beside = || packs.beside(&paths, manifests[0].path).unwrap();
    assert!(beside().is_empty());
    pack(&paths, Table::Frames);
    let found = beside();
    assert_eq!(found.iter().flat_map(|pack| &pack.members).map(|member| member.rows).sum::<u64>(), 1000);
    assert!(std::sync::Arc::ptr_eq(&found, &beside()));
    undo_for(&paths, manifests[3].path).unwrap();
    assert!(beside().is_empty());
    let elsewhere = TablePath::new(Table::Results, SessionId(1), 0);
    assert!(packs.beside(&paths, elsewhere).unwrap().is_empty());
}

#[test]
fn the_audit_holds_packed_files_against_the_sums_they_had() {
    let dir = TempDir::new().unwrap();
    let paths = Paths::new(dir.path());
    for session in 3..=4 {
        write_strokes(&paths, SessionId(session), STARTED_AT_US, &strokes(session)).unwrap();
    }
    pack(&paths, Table::Strokes);
    let file = paths.folder(TablePath::new(Table::Strokes, SessionId(3), STARTED_AT_US)).join("3-4-2.parquet");
    let bytes = fs::read(&file).unwrap();
    // The catalog knows no sum of them, and a flipped page may decode: the pack tells.
    for at in (4..500).step_by(7) {
        let mut flipped = bytes.clone();
        flipped[at] ^= 0x10;
        fs::write(&file, &flipped).unwrap();
        assert!(!audit(&paths, &[], |_| {}).unwrap().lost.is_empty(), "flipped at {at} of {}", bytes.len());
    }
}

#[test]
fn a_damaged_pack_does_not_keep_others_from_being_written() {
    let dir = TempDir::new().unwrap();
    let paths = Paths::new(dir.path());
    let manifests = day(&paths);
    let folder = paths.folder(manifests[0].path);
    let third = folder.join("3.parquet");
    let aside = dir.path().join("aside");
    fs::rename(&third, &aside).unwrap();
    pack(&paths, Table::Frames);
    fs::rename(&aside, &third).unwrap();
    assert_eq!(names(&paths, Table::Frames), ["1-4-3.parquet", "3.parquet"]);
    fs::write(folder.join("1-4-3.parquet"), "damaged").unwrap();
    assert_eq!(seal(&paths, 3, 2, 300).revision, 2, "it has a file of its own");
    seal(&paths, 5, 1, 10);
    // Of one that may be in the pack nobody knows: it must not be there twice.
    assert!(undo_for(&paths, manifests[1].path).is_err());
    assert!(pack_day(&paths, Table::Frames, &folder, &Sizes::default(), false, &always).is_ok());
}

#[test]
fn a_file_is_deleted_out_of_its_pack_and_not_beside_an_exchange() {
    let dir = TempDir::new().unwrap();
    let paths = Paths::new(dir.path());
    let at = |session| TablePath::new(Table::Frames, SessionId(session), STARTED_AT_US);
    assert!(!delete(&paths, at(1)).unwrap(), "there is not even a folder");
    day(&paths);
    let folder = paths.folder(at(1));
    pack_day(&paths, Table::Frames, &folder, &Sizes::default(), false, &always).unwrap();
    assert_eq!(names(&paths, Table::Frames), ["1-4-4.parquet"]);
    assert!(delete(&paths, at(2)).unwrap());
    assert_eq!(names(&paths, Table::Frames), ["1.parquet", "3.parquet", "4.parquet"]);
    assert!(!delete(&paths, at(2)).unwrap());

    let exchanging = locked(&paths.table(Table::Frames), File::lock).unwrap();
    let (said, heard) = std::sync::mpsc::channel();
    let beside = paths.clone();
    let named = std::thread::Builder::new().name("deletes".to_owned());
    let deleting = named.spawn(move || said.send(delete(&beside, at(3)).unwrap())).unwrap();
    assert!(heard.recv_timeout(std::time::Duration::from_millis(200)).is_err());
    assert!(paths.file(at(3)).exists());
    drop(exchanging);
    assert!(heard.recv().unwrap());
    deleting.join().unwrap().unwrap();
    assert_eq!(names(&paths, Table::Frames), ["1.parquet", "4.parquet"]);
}

#[test]
fn a_file_that_is_replaced_is_kept_for_who_reads_it_by_its_length() {
    let dir = TempDir::new().unwrap();
    let paths = Paths::new(dir.path());
    let name = TablePath::new(Table::Frames, SessionId(1), STARTED_AT_US).to_string();
    let lengths = [100, 300, 200].map(|rows| seal(&paths, 1, 1, rows).bytes);
    let contents = |bytes| replaced(&paths, &name, bytes).map(|file| fs::metadata(file).unwrap().len());
    assert_eq!(contents(Some(lengths[0])), Some(lengths[0]));
    assert_eq!(contents(Some(lengths[1])), Some(lengths[1]));
    assert_eq!(contents(Some(lengths[2])), None, "it is in its place");
    assert_eq!(contents(None), Some(lengths[1]), "the last one");
    assert_eq!(remove_replaced(&paths, Some(0)).unwrap(), Some(0), "nothing is that old");
    assert_eq!(remove_replaced(&paths, None).unwrap(), Some(2));
    assert_eq!(contents(None), None);
}
