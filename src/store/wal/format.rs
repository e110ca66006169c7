//! Bytes of segments and records; the layout is in the module above.

use schemas::{FrameColumns, SessionId};

use super::{Error, RECORD_LIMIT_FRAMES, WalRecord};

/// Bytes of a segment header.
pub(super) const SEGMENT_HEADER_BYTES: usize = 32;
/// Bytes of a record header.
pub(super) const RECORD_HEADER_BYTES: usize = 32;
const SEGMENT_MAGIC: [u8; 8] = *b"VOLWAL\r\n";
const SEGMENT_VERSION: u16 = 1;
/// How every record begins; the segment's salt follows.
pub(super) const RECORD_MAGIC: [u8; 4] = *b"VREC";
/// Bytes 0..28 of both headers are under the CRC in bytes 28..32.
const HEADER_CRC_AT: usize = 28;

/// The kind of a record of frames.
pub(super) const KIND_FRAMES: u8 = 1;
/// The kind of a stretch that recovery has set aside.
pub(super) const KIND_HOLE: u8 = 2;
/// Unknown kinds from here up must not be passed over.
pub(super) const KIND_MANDATORY_FROM: u8 = 128;
/// Version of the body of [`KIND_FRAMES`].
pub(super) const FRAMES_VERSION: u8 = 1;
const FRAMES_HEADER_BYTES: usize = 40;
/// All columns of one frame, none constant.
const FRAME_BYTES: usize = 4 + 1 + 8 + 8 + 1 + 8 + 3 * 12 + 4;
/// The longest body of any kind but a hole.
pub(super) const BODY_LIMIT_BYTES: usize = FRAMES_HEADER_BYTES + FRAME_BYTES * RECORD_LIMIT_FRAMES;

/// The size of a record of `frames` frames of which no column is constant, header included.
pub(super) const fn record_size_max(frames: usize) -> usize {
    (RECORD_HEADER_BYTES + FRAMES_HEADER_BYTES).saturating_add(FRAME_BYTES.saturating_mul(frames))
}

/// What the first bytes of a segment say.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct SegmentHeader {
    pub(super) number: u64,
    pub(super) salt: u32,
}

/// Why a segment header cannot be used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum BadHeader {
    Damaged,
    Newer(u16),
}

impl SegmentHeader {
    pub(super) fn encode(self) -> [u8; SEGMENT_HEADER_BYTES] {
        let mut bytes = Vec::with_capacity(SEGMENT_HEADER_BYTES);
        bytes.extend(SEGMENT_MAGIC);
        bytes.extend(SEGMENT_VERSION.to_le_bytes());
        bytes.extend([0; 6]);
        bytes.extend(self.number.to_le_bytes());
        bytes.extend(self.salt.to_le_bytes());
        bytes.extend(crc32c::crc32c(&bytes).to_le_bytes());
        bytes.try_into().expect("the fields above add up to 32 bytes")
    }

    pub(super) fn decode(bytes: &[u8]) -> Result<Self, BadHeader> {
        let fields = Fields::under_crc(bytes).filter(|fields| fields.bytes.starts_with(&SEGMENT_MAGIC));
        let mut fields = fields.ok_or(BadHeader::Damaged)?;
        let mut parse = || {
            fields.take::<8>()?;
            let version = u16::from_le_bytes(fields.take()?);
            fields.take::<6>()?;
            let number = u64::from_le_bytes(fields.take()?);
            let salt = u32::from_le_bytes(fields.take()?);
            Some((version, Self { number, salt }))
        };
        match parse() {
            Some((version, _)) if version > SEGMENT_VERSION => Err(BadHeader::Newer(version)),
            Some((_, header)) => Ok(header),
            None => Err(BadHeader::Damaged),
        }
    }
}

/// What the first bytes of a record say.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct RecordHeader {
    pub(super) salt: u32,
    pub(super) offset: u64,
    pub(super) kind: u8,
    pub(super) version: u8,
    pub(super) body_bytes: u32,
    pub(super) body_crc: u32,
}

impl RecordHeader {
    pub(super) fn encode(self) -> [u8; RECORD_HEADER_BYTES] {
        let mut bytes = Vec::with_capacity(RECORD_HEADER_BYTES);
        bytes.extend(RECORD_MAGIC);
        bytes.extend(self.salt.to_le_bytes());
        bytes.extend(self.offset.to_le_bytes());
        bytes.extend([self.kind, self.version, 0, 0]);
        bytes.extend(self.body_bytes.to_le_bytes());
        bytes.extend(self.body_crc.to_le_bytes());
        bytes.extend(crc32c::crc32c(&bytes).to_le_bytes());
        bytes.try_into().expect("the fields above add up to 32 bytes")
    }

    /// The header at `offset`, if there is one. `None` in `salt` takes any salt.
    pub(super) fn decode(bytes: &[u8], offset: u64, salt: Option<u32>) -> Option<Self> {
        if !bytes.starts_with(&RECORD_MAGIC) {
            return None;
        }
        let mut fields = Fields::under_crc(bytes)?;
        fields.take::<4>()?;
        let header = Self {
            salt: u32::from_le_bytes(fields.take()?),
            offset: u64::from_le_bytes(fields.take()?),
            kind: fields.take::<1>()?[0],
            version: fields.take::<1>()?[0],
            body_bytes: {
                fields.take::<2>()?;
                u32::from_le_bytes(fields.take()?)
            },
            body_crc: u32::from_le_bytes(fields.take()?),
        };
        let in_place = header.offset == offset && salt.is_none_or(|salt| salt == header.salt);
        let in_limit = header.kind == KIND_HOLE || header.body_bytes as usize <= BODY_LIMIT_BYTES;
        (in_place && in_limit).then_some(header)
    }

    /// Where the next record begins.
    pub(super) fn end(&self) -> u64 {
        self.offset.saturating_add(RECORD_HEADER_BYTES as u64).saturating_add(u64::from(self.body_bytes))
    }
}

/// A record that lacks only its place: the writer knows salt and offset, the encoder the rest.
#[derive(Debug)]
pub(super) struct Encoded {
    body: Vec<u8>,
    body_crc: u32,
}

impl Encoded {
    /// Bytes in the log, header included.
    pub(super) fn len(&self) -> usize {
        RECORD_HEADER_BYTES + self.body.len()
    }

    /// Appends the record as it stands at `offset` of a segment.
    pub(super) fn put(&self, salt: u32, offset: u64, out: &mut Vec<u8>) {
        let header = RecordHeader {
            salt,
            offset,
            kind: KIND_FRAMES,
            version: FRAMES_VERSION,
            body_bytes: u32::try_from(self.body.len()).expect("encode() keeps bodies below BODY_LIMIT_BYTES"),
            body_crc: self.body_crc,
        };
        out.extend_from_slice(&header.encode());
        out.extend_from_slice(&self.body);
    }
}

/// A value of a column, in a fixed number of bytes.
trait Cell: Copy {
    const BYTES: usize;
    /// Writes the value to exactly [`Cell::BYTES`] bytes.
    fn put(self, out: &mut [u8]);
    /// Reads the value from exactly [`Cell::BYTES`] bytes.
    fn get(bytes: &[u8]) -> Option<Self>;
    /// True if both have the same bits.
    fn same(self, other: Self) -> bool;
}

impl Cell for u8 {
    const BYTES: usize = 1;
    fn put(self, out: &mut [u8]) {
        out.copy_from_slice(&[self]);
    }
    fn get(bytes: &[u8]) -> Option<Self> {
        bytes.first().copied()
    }
    fn same(self, other: Self) -> bool {
        self == other
    }
}

impl Cell for i32 {
    const BYTES: usize = 4;
    fn put(self, out: &mut [u8]) {
        out.copy_from_slice(&self.to_le_bytes());
    }
    fn get(bytes: &[u8]) -> Option<Self> {
        bytes.first_chunk().map(|bytes| Self::from_le_bytes(*bytes))
    }
    fn same(self, other: Self) -> bool {
        self == other
    }
}

impl Cell for i64 {
    const BYTES: usize = 8;
    fn put(self, out: &mut [u8]) {
        out.copy_from_slice(&self.to_le_bytes());
    }
    fn get(bytes: &[u8]) -> Option<Self> {
        bytes.first_chunk().map(|bytes| Self::from_le_bytes(*bytes))
    }
    fn same(self, other: Self) -> bool {
        self == other
    }
}

impl Cell for [f32; 3] {
    const BYTES: usize = 12;
    fn put(self, out: &mut [u8]) {
        for (out, axis) in out.chunks_exact_mut(4).zip(self) {
            out.copy_from_slice(&axis.to_bits().to_le_bytes());
        }
    }
    fn get(bytes: &[u8]) -> Option<Self> {
        let (x, rest) = bytes.split_first_chunk()?;
        let (y, rest) = rest.split_first_chunk()?;
        let z = rest.first_chunk()?;
        Some([x, y, z].map(|bytes| f32::from_bits(u32::from_le_bytes(*bytes))))
    }
    fn same(self, other: Self) -> bool {
        self.map(f32::to_bits) == other.map(f32::to_bits)
    }
}

/// Appends a column; true if it was written as one constant.
fn put_column<T: Cell>(values: &[T], out: &mut Vec<u8>) -> bool {
    // The last value differs more often than the second, so that most columns are decided by one comparison.
    let constant = match (values.first(), values.last()) {
        (Some(&first), Some(&last)) => first.same(last) && values.iter().all(|&value| value.same(first)),
        _ => false,
    };
    let values = if constant { values.get(..1).unwrap_or_default() } else { values };
    let start = out.len();
    out.resize(start + values.len() * T::BYTES, 0);
    for (chunk, &value) in out.get_mut(start..).unwrap_or_default().chunks_exact_mut(T::BYTES).zip(values) {
        value.put(chunk);
    }
    constant
}

/// Takes the next column of `count` values from `bytes`.
fn take_column<T: Cell>(bytes: &mut &[u8], count: usize, constant: bool) -> Option<Vec<T>> {
    let stored = if constant { 1 } else { count };
    let (column, rest) = bytes.split_at_checked(stored.checked_mul(T::BYTES)?)?;
    *bytes = rest;
    if constant { Some(vec![T::get(column)?; count]) } else { column.chunks_exact(T::BYTES).map(T::get).collect() }
}

/// Encodes a record.
pub(super) fn encode(record: &WalRecord) -> Result<Encoded, Error> {
    let WalRecord { session_id, first_seq, content_hash, packet_ms, frames } = record;
    let FrameColumns { sensor_id, sensor, device_time_raw, t_ns, clock, received_at_us, acc, gyro, angle, flags } =
        frames;
    let count = frames.len();
    let lengths = [
        sensor_id.len(),
        device_time_raw.len(),
        t_ns.len(),
        clock.len(),
        received_at_us.len(),
        acc.len(),
        gyro.len(),
        angle.len(),
        flags.len(),
    ];
    if lengths.iter().any(|&length| length != count) {
        return Err(Error::Ragged { session_id: *session_id });
    }
    if count > RECORD_LIMIT_FRAMES {
        let limit_bytes = record_size_max(RECORD_LIMIT_FRAMES);
        return Err(Error::TooLarge { bytes: record_size_max(count), limit_bytes });
    }
    let mut body = Vec::with_capacity(FRAMES_HEADER_BYTES + FRAME_BYTES * count);
    body.extend(session_id.get().to_le_bytes());
    body.extend(first_seq.to_le_bytes());
    body.extend(content_hash.to_le_bytes());
    body.extend(packet_ms.to_le_bytes());
    body.extend((count as u32).to_le_bytes());
    body.extend([0; 4]);
    let constant = [
        put_column(sensor_id, &mut body),
        put_column(sensor, &mut body),
        put_column(device_time_raw, &mut body),
        put_column(t_ns, &mut body),
        put_column(clock, &mut body),
        put_column(received_at_us, &mut body),
        put_column(acc, &mut body),
        put_column(gyro, &mut body),
        put_column(angle, &mut body),
        put_column(flags, &mut body),
    ];
    let mask = constant.iter().enumerate().fold(0u16, |mask, (column, &bit)| mask | u16::from(bit) << column);
    if let Some(place) = body.get_mut(36..38) {
        place.copy_from_slice(&mask.to_le_bytes());
    }
    let body_crc = crc32c::crc32c(&body);
    Ok(Encoded { body, body_crc })
}

/// Decodes the body of a [`KIND_FRAMES`] record of version 1. `None` if it breaks the layout, which its CRC rules out
/// unless it was written wrongly.
pub(super) fn decode_frames(body: &[u8]) -> Option<WalRecord> {
    let mut fields = Fields { bytes: body };
    let session_id = SessionId(i64::from_le_bytes(fields.take()?));
    let first_seq = i64::from_le_bytes(fields.take()?);
    let content_hash = u64::from_le_bytes(fields.take()?);
    let packet_ms = i64::from_le_bytes(fields.take()?);
    let count = u32::from_le_bytes(fields.take()?) as usize;
    let mask = u16::from_le_bytes(fields.take()?);
    fields.take::<2>()?;
    // Constant columns let a short body claim any number of frames: the limit bounds what is allocated for it.
    if count > RECORD_LIMIT_FRAMES {
        return None;
    }
    let constant = |column: u16| mask >> column & 1 == 1;
    let mut rest = fields.bytes;
    let frames = FrameColumns {
        sensor_id: take_column(&mut rest, count, constant(0))?,
        sensor: take_column(&mut rest, count, constant(1))?,
        device_time_raw: take_column(&mut rest, count, constant(2))?,
        t_ns: take_column(&mut rest, count, constant(3))?,
        clock: take_column(&mut rest, count, constant(4))?,
        received_at_us: take_column(&mut rest, count, constant(5))?,
        acc: take_column(&mut rest, count, constant(6))?,
        gyro: take_column(&mut rest, count, constant(7))?,
        angle: take_column(&mut rest, count, constant(8))?,
        flags: take_column(&mut rest, count, constant(9))?,
    };
    rest.is_empty().then_some(WalRecord { session_id, first_seq, content_hash, packet_ms, frames })
}

/// Reads fields one after the other.
struct Fields<'a> {
    bytes: &'a [u8],
}

impl<'a> Fields<'a> {
    /// The fields of a 32-byte header whose CRC is right.
    fn under_crc(bytes: &'a [u8]) -> Option<Self> {
        let (covered, rest) = bytes.split_at_checked(HEADER_CRC_AT)?;
        let crc = u32::from_le_bytes(*rest.first_chunk()?);
        (crc == crc32c::crc32c(covered)).then_some(Self { bytes: covered })
    }

    fn take<const N: usize>(&mut self) -> Option<[u8; N]> {
        let (taken, rest) = self.bytes.split_first_chunk()?;
        self.bytes = rest;
        Some(*taken)
    }
}
