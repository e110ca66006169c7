//! MATLAB files of the legacy service: the matrix `allData`, MATLAB versions 5 to 7.2.
//!
//! Layout (MathWorks, "MAT-File Format", Level 5): a header of 128 bytes, whose last four are version and byte order; then
//! elements, each a tag (type, bytes) and its data, padded to 8 bytes. A matrix is an element of elements: flags,
//! dimensions, name, real part. A compressed element is a zlib stream of one element. This reader looks for one real
//! two-dimensional numeric matrix and passes over everything else, so that it holds a few hundred bytes and the numbers,
//! whatever the file claims: no length is believed beyond what is there, and no more than [`INFLATED_LIMIT_BYTES`] are
//! inflated. A general library would read, and allocate for, everything that a stranger puts into the file.
//!
//! Version 7.3 is another format (HDF5) and is refused by name.

use std::io::Read as _;

use flate2::read::ZlibDecoder;
use schemas::{FrameColumns, SensorRole};

/// Bytes that a file may inflate to: three million frames.
pub const INFLATED_LIMIT_BYTES: usize = 256 << 20;

/// Rows of a matrix at most: as many as fit as doubles. Small integers would inflate once more, to eight times as much.
const ROWS_LIMIT: usize = INFLATED_LIMIT_BYTES / (8 * COLUMNS);

/// The matrix that is looked for.
const VARIABLE: &str = "allData";
/// sensor, time, acc x y z, gyro x y z, angle x y z.
const COLUMNS: usize = 11;
/// A recording is this long at most, s; a day's clock in other units would be longer.
const DURATION_LIMIT_S: f64 = 24.0 * 3600.0;

const HEADER_BYTES: usize = 128;
const MI_COMPRESSED: u32 = 15;
const MI_MATRIX: u32 = 14;

/// Why a file could not be read.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("this is no MATLAB file")]
    NotMatlab,
    #[error("this is a MATLAB 7.3 file (HDF5): save it with -v7")]
    Version73,
    #[error("the file is damaged or cut off")]
    Damaged,
    #[error("the file inflates to more than {INFLATED_LIMIT_BYTES} bytes")]
    TooLarge,
    #[error("there is no variable {VARIABLE}")]
    NoVariable,
    #[error("{VARIABLE} is no real numeric matrix of {COLUMNS} columns: sensor, time, acc, gyro, angle")]
    NotAMatrix,
    #[error("{VARIABLE} has no row of a known sensor with a finite time")]
    NoRows,
    #[error("the times of {VARIABLE} span more than a day; they are seconds")]
    TooLong,
}

/// What a file held.
#[derive(Clone, Debug, PartialEq)]
pub struct MatRecording {
    /// Frames in time order; `device_time_raw` is ms since the first.
    pub frames: FrameColumns,
    /// Rows that are no frames: another sensor, no finite time or acceleration.
    pub left_out: usize,
    /// Time of the last frame, ms.
    pub duration_ms: i64,
}

/// Reads the recording of a file.
///
/// Sensor ids: 1 is waist and 2 shoulder. Where the file has both 3 and 4, or 3 alone, 3 is wrist and 4 racket, as the
/// firmware counts; where it has 4 without 3, 4 is the wrist, as the legacy `.mat` table had it. 5 is the racket there.
///
/// # Errors
/// See [`Error`].
pub fn read_mat(bytes: &[u8]) -> Result<MatRecording, Error> {
    read_within(bytes, INFLATED_LIMIT_BYTES)
}

fn read_within(bytes: &[u8], inflated_limit_bytes: usize) -> Result<MatRecording, Error> {
    if bytes.starts_with(b"\x89HDF\r\n\x1a\n") || bytes.starts_with(b"MATLAB 7.3") {
        return Err(Error::Version73);
    }
    let header = bytes.get(..HEADER_BYTES).ok_or(Error::NotMatlab)?;
    let order = match &header[126..] {
        b"IM" => Order::Little,
        b"MI" => Order::Big,
        _ => return Err(Error::NotMatlab),
    };
    match order.u16(&header[124..126]) {
        0x0100 => {}
        0x0200 => return Err(Error::Version73),
        _ => return Err(Error::NotMatlab),
    }
    let mut rest = &bytes[HEADER_BYTES..];
    let mut inflated_bytes = 0;
    while !rest.is_empty() {
        let (kind, data, after) = element(rest, order)?;
        rest = after;
        let matrix = match kind {
            MI_COMPRESSED => {
                let left = inflated_limit_bytes - inflated_bytes;
                let mut plain = Vec::new();
                let read = ZlibDecoder::new(data).take(left as u64 + 1).read_to_end(&mut plain);
                read.map_err(|_| Error::Damaged)?;
                if plain.len() > left {
                    return Err(Error::TooLarge);
                }
                inflated_bytes += plain.len();
                match element(&plain, order)? {
                    (MI_MATRIX, data, _) => matrix(data, order)?,
                    _ => None,
                }
            }
            MI_MATRIX => matrix(data, order)?,
            _ => None,
        };
        if let Some(matrix) = matrix {
            return recording(&matrix);
        }
    }
    Err(Error::NoVariable)
}

/// Reads one number of a type.
type Decode = fn(Order, &[u8]) -> f64;

#[derive(Clone, Copy, Debug)]
enum Order {
    Little,
    Big,
}

impl Order {
    /// A number of up to eight bytes, whatever is given.
    fn u64(self, bytes: &[u8]) -> u64 {
        let push = |value: u64, byte: &u8| value << 8 | u64::from(*byte);
        match self {
            Self::Little => bytes.iter().rev().fold(0, push),
            Self::Big => bytes.iter().fold(0, push),
        }
    }

    fn u32(self, bytes: &[u8]) -> u32 {
        self.u64(bytes) as u32
    }

    fn u16(self, bytes: &[u8]) -> u16 {
        self.u64(bytes) as u16
    }
}

/// The type and data of the first element, and what follows it.
fn element(bytes: &[u8], order: Order) -> Result<(u32, &[u8], &[u8]), Error> {
    let (tag, rest) = bytes.split_at_checked(8).ok_or(Error::Damaged)?;
    let first = order.u32(&tag[..4]);
    if first >> 16 != 0 {
        // The small form: up to four bytes of data are in the tag itself.
        let length = (first >> 16) as usize;
        let data = tag[4..].get(..length).ok_or(Error::Damaged)?;
        return Ok((first & 0xffff, data, rest));
    }
    let length = order.u32(&tag[4..]) as usize;
    let data = rest.get(..length).ok_or(Error::Damaged)?;
    let padding = if first == MI_COMPRESSED { 0 } else { length.next_multiple_of(8) - length };
    // The padding of the last element may be missing.
    let after = rest.get(length + padding..).unwrap_or_default();
    Ok((first, data, after))
}

/// The columns of a matrix that are read, one after the other.
struct Matrix {
    rows: usize,
    values: Vec<f64>,
}

/// The matrix of this element if it is the one that is looked for.
fn matrix(data: &[u8], order: Order) -> Result<Option<Matrix>, Error> {
    let (_, flags, rest) = element(data, order)?;
    let (_, dimensions, rest) = element(rest, order)?;
    let (_, name, rest) = element(rest, order)?;
    if name != VARIABLE.as_bytes() {
        return Ok(None);
    }
    let flags = order.u32(flags.get(..4).ok_or(Error::Damaged)?);
    // Classes 6 to 15 are double, single and the integers.
    let (class, is_complex) = (flags & 0xff, flags & 0x0800 != 0);
    if !(6..=15).contains(&class) || is_complex || dimensions.len() != 8 {
        return Err(Error::NotAMatrix);
    }
    let (rows, columns) = (order.u32(&dimensions[..4]) as usize, order.u32(&dimensions[4..]) as usize);
    let (kind, real, _) = element(rest, order)?;
    let (bytes_each, decode): (usize, Decode) = match kind {
        1 => (1, |order, bytes| f64::from(order.u64(bytes) as i8)),
        2 => (1, |order, bytes| f64::from(order.u64(bytes) as u8)),
        3 => (2, |order, bytes| f64::from(order.u16(bytes) as i16)),
        4 => (2, |order, bytes| f64::from(order.u16(bytes))),
        5 => (4, |order, bytes| f64::from(order.u32(bytes) as i32)),
        6 => (4, |order, bytes| f64::from(order.u32(bytes))),
        7 => (4, |order, bytes| f64::from(f32::from_bits(order.u32(bytes)))),
        9 => (8, |order, bytes| f64::from_bits(order.u64(bytes))),
        12 => (8, |order, bytes| order.u64(bytes) as i64 as f64),
        13 => (8, |order, bytes| order.u64(bytes) as f64),
        _ => return Err(Error::NotAMatrix),
    };
    if rows.checked_mul(columns).and_then(|cells| cells.checked_mul(bytes_each)) != Some(real.len()) {
        return Err(Error::Damaged);
    }
    if columns < COLUMNS {
        return Err(Error::NotAMatrix);
    }
    if rows > ROWS_LIMIT {
        return Err(Error::TooLarge);
    }
    let cells = real.chunks_exact(bytes_each).take(rows * COLUMNS);
    Ok(Some(Matrix { rows, values: cells.map(|bytes| decode(order, bytes)).collect() }))
}

fn recording(matrix: &Matrix) -> Result<MatRecording, Error> {
    let column = |index: usize| &matrix.values[index * matrix.rows..(index + 1) * matrix.rows];
    let (ids, times) = (column(0), column(1));
    let has = |id: f64| ids.contains(&id);
    let four = if has(4.0) && !has(3.0) { SensorRole::Wrist } else { SensorRole::Racket };
    let role = |id: f64| match id {
        1.0 => Some(SensorRole::Waist),
        2.0 => Some(SensorRole::Shoulder),
        3.0 => Some(SensorRole::Wrist),
        4.0 => Some(four),
        5.0 if four == SensorRole::Wrist || !has(4.0) => Some(SensorRole::Racket),
        _ => None,
    };
    let axes = |row: usize, first: usize| [0, 1, 2].map(|axis| column(first + axis)[row] as f32);
    let mut rows: Vec<(usize, SensorRole)> = (0..matrix.rows)
        .filter_map(|row| Some((row, role(ids[row])?)))
        .filter(|&(row, _)| times[row].is_finite() && axes(row, 2).iter().all(|value| value.is_finite()))
        .collect();
    rows.sort_by(|&(a, _), &(b, _)| times[a].total_cmp(&times[b]).then(a.cmp(&b)));
    let (Some(&(first, _)), Some(&(last, _))) = (rows.first(), rows.last()) else { return Err(Error::NoRows) };
    let (first_s, last_s) = (times[first], times[last]);
    if last_s - first_s > DURATION_LIMIT_S {
        return Err(Error::TooLong);
    }
    let ms = |row: usize| ((times[row] - first_s) * 1000.0).round() as i64;
    let mut frames = FrameColumns::with_capacity(rows.len());
    for &(row, role) in &rows {
        let values = [axes(row, 2), axes(row, 5), axes(row, 8)];
        frames.push_decoded(ids[row] as i32, role, Some(ms(row)), values);
    }
    Ok(MatRecording { duration_ms: ms(last), left_out: matrix.rows - rows.len(), frames })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn tagged(kind: u32, data: &[u8]) -> Vec<u8> {
        let mut bytes = kind.to_le_bytes().to_vec();
        bytes.extend((data.len() as u32).to_le_bytes());
        bytes.extend(data);
        bytes.resize(bytes.len().next_multiple_of(8), 0);
        bytes
    }

    /// A file with the matrix as doubles; `rows` are rows of eleven.
    fn file(name: &str, rows: &[[f64; 11]], compressed: bool) -> Vec<u8> {
        let mut bytes = vec![b' '; 124];
        bytes[..6].copy_from_slice(b"MATLAB");
        bytes.extend([0x00, 0x01, b'I', b'M']);
        let mut body = tagged(6, &[6, 0, 0, 0, 0, 0, 0, 0]);
        body.extend(tagged(5, &[(rows.len() as u32).to_le_bytes(), 11_u32.to_le_bytes()].concat()));
        body.extend(tagged(1, name.as_bytes()));
        let values: Vec<u8> =
            (0..11).flat_map(|column| rows.iter().flat_map(move |row| row[column].to_le_bytes())).collect();
        body.extend(tagged(9, &values));
        let matrix = tagged(MI_MATRIX, &body);
        if compressed {
            let mut zlib = flate2::read::ZlibEncoder::new(matrix.as_slice(), flate2::Compression::default());
            let mut data = Vec::new();
            zlib.read_to_end(&mut data).unwrap();
            bytes.extend(MI_COMPRESSED.to_le_bytes());
            bytes.extend((data.len() as u32).to_le_bytes());
            bytes.extend(data);
        } else {
            bytes.extend(matrix);
        }
        bytes
    }

    fn row(id: f64, t_s: f64) -> [f64; 11] {
        [id, t_s, 0.1, 0.2, 9.8, 10.0, 20.0, 30.0, 1.0, 2.0, 3.0]
    }

    #[test]
    fn times_come_from_the_file_and_rows_need_no_order() {
        let rows = [row(2.0, 7.010), row(1.0, 7.0), row(9.0, 7.0), row(1.0, f64::NAN)];
        for compressed in [false, true] {
            let read = read_mat(&file("allData", &rows, compressed)).unwrap();
            assert_eq!(read.frames.device_time_raw, [0, 10]);
            assert_eq!(read.frames.sensor, [SensorRole::Waist.to_byte(), SensorRole::Shoulder.to_byte()]);
            assert_eq!((read.left_out, read.duration_ms), (2, 10));
            assert_eq!(read.frames.gyro[0].map(f32::to_bits), [10.0_f32, 20.0, 30.0].map(f32::to_bits));
        }
    }

    #[test]
    fn sensor_four_is_the_wrist_only_where_there_is_no_three() {
        use SensorRole::{Racket, Shoulder, Waist, Wrist};
        let roles = |ids: &[f64]| {
            let rows: Vec<_> = ids.iter().enumerate().map(|(at, &id)| row(id, at as f64)).collect();
            let read = read_mat(&file("allData", &rows, true)).unwrap();
            read.frames.sensor.iter().map(|&byte| SensorRole::from_wire_id(i64::from(byte))).collect::<Vec<_>>()
        };
        assert_eq!(roles(&[1.0, 2.0, 4.0, 5.0]), [Waist, Shoulder, Wrist, Racket]);
        assert_eq!(roles(&[1.0, 2.0, 3.0, 4.0]), [Waist, Shoulder, Wrist, Racket]);
        assert_eq!(roles(&[3.0]), [Wrist]);
    }

    #[test]
    fn what_cannot_be_read_says_why() {
        let good = file("allData", &[row(1.0, 0.0)], false);
        let change = |at: usize, bytes: &[u8]| {
            let mut changed = good.clone();
            changed[at..at + bytes.len()].copy_from_slice(bytes);
            read_mat(&changed).unwrap_err()
        };
        assert!(matches!(read_mat(b""), Err(Error::NotMatlab)));
        assert!(matches!(read_mat(&[0; 500]), Err(Error::NotMatlab)));
        assert!(matches!(change(0, b"MATLAB 7.3 MAT-file"), Error::Version73));
        assert!(matches!(change(124, &[0, 2]), Error::Version73));
        assert!(matches!(read_mat(&file("other", &[row(1.0, 0.0)], false)), Err(Error::NoVariable)));
        assert!(matches!(read_mat(&file("allData", &[], true)), Err(Error::NoRows)));
        assert!(matches!(read_mat(&file("allData", &[row(7.0, 0.0)], true)), Err(Error::NoRows)));
        let long = [row(1.0, 0.0), row(1.0, 1e6)];
        assert!(matches!(read_mat(&file("allData", &long, true)), Err(Error::TooLong)));
        // A claim of four thousand million rows allocates nothing.
        assert!(matches!(change(128 + 8 + 16 + 8, &[0xff; 4]), Error::Damaged));
    }

    /// Files that SciPy wrote; `data/fixtures/mat/make.py` makes them.
    #[test]
    fn files_of_another_writer_are_read() {
        let read = |name: &str| {
            let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("data/fixtures/mat");
            read_mat(&std::fs::read(folder.join(name)).unwrap())
        };
        let planted = read("planted-v7.mat").unwrap();
        assert_eq!((planted.frames.len(), planted.left_out, planted.duration_ms), (9600, 0, 31_990));
        for name in ["small-v5.mat", "small-v7.mat"] {
            let small = read(name).unwrap();
            assert_eq!((small.frames.len(), small.left_out, small.duration_ms), (48, 12, 110), "{name}");
            assert_eq!(small.frames.sensor[3], SensorRole::Racket.to_byte());
            let bits = |axes: [f32; 3]| axes.map(f32::to_bits);
            assert_eq!(bits(small.frames.acc[3]), bits([4.5, 0.0, 9.75]), "{name}");
            assert_eq!(bits(small.frames.gyro[4]), bits([1.0, 1.0, -1.25]), "{name}");
        }
        assert!(matches!(read("v73.mat"), Err(Error::Version73)));
    }

    #[test]
    fn small_integers_do_not_become_eight_times_as_large() {
        let header = file("x", &[], false)[..128].to_vec();
        let of = |rows: usize, columns: usize| {
            let mut body = tagged(6, &[9, 0, 0, 0, 0, 0, 0, 0]);
            body.extend(tagged(5, &[(rows as u32).to_le_bytes(), (columns as u32).to_le_bytes()].concat()));
            body.extend(tagged(1, VARIABLE.as_bytes()));
            body.extend(tagged(2, &vec![1; rows * columns]));
            read_mat(&[header.clone(), tagged(MI_MATRIX, &body)].concat())
        };
        assert!(matches!(of(ROWS_LIMIT + 1, COLUMNS), Err(Error::TooLarge)));
        assert!(matches!(of(2, COLUMNS - 1), Err(Error::NotAMatrix)));
        let wide = of(2, COLUMNS + 3).unwrap();
        assert_eq!((wide.frames.len(), wide.frames.acc[0]), (2, [1.0; 3]));
    }

    #[test]
    fn a_stream_that_inflates_without_end_is_cut() {
        let limit_bytes = 1 << 20;
        let zeros = vec![0; limit_bytes + 1];
        let mut bomb = Vec::new();
        flate2::read::ZlibEncoder::new(zeros.as_slice(), flate2::Compression::best()).read_to_end(&mut bomb).unwrap();
        let mut bytes = file("x", &[], false)[..128].to_vec();
        bytes.extend(MI_COMPRESSED.to_le_bytes());
        bytes.extend((bomb.len() as u32).to_le_bytes());
        bytes.extend(bomb);
        assert!(matches!(read_within(&bytes, limit_bytes), Err(Error::TooLarge)));
        assert!(matches!(read_within(&bytes, limit_bytes + 1), Err(Error::NoVariable)), "zeros are no matrix");
    }

    #[test]
    fn a_file_cut_at_any_byte_is_an_error_or_the_same() {
        let rows: Vec<_> = (0..4).map(|at| row(1.0 + f64::from(at % 3), f64::from(at))).collect();
        for compressed in [false, true] {
            let whole = file("allData", &rows, compressed);
            let read = read_mat(&whole).unwrap();
            for length in 0..whole.len() {
                if let Ok(part) = read_mat(&whole[..length]) {
                    assert_eq!(part, read, "cut to {length}");
                }
            }
        }
    }

    proptest! {
        #[test]
        fn garbage_never_panics(mut bytes in proptest::collection::vec(any::<u8>(), 0..600), flips in proptest::collection::vec((0_usize..700, any::<u8>()), 0..6)) {
            drop(read_mat(&bytes));
            let mut damaged = file("allData", &[row(1.0, 0.0), row(2.0, 0.5)], bytes.len() % 2 == 0);
            for (at, value) in flips {
                if let Some(byte) = damaged.get_mut(at) {
                    *byte = value;
                }
            }
            drop(read_mat(&damaged));
            if bytes.len() > 128 {
                bytes[124..128].copy_from_slice(&[0, 1, b'I', b'M']);
                drop(read_mat(&bytes));
            }
        }
    }
}
