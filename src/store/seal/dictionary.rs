//! A column of measured values as a dictionary whose numbers compress.
//!
//! A writer of Parquet numbers the values of a dictionary as they come and packs the numbers bit by bit: a compressor, which sees
//! bytes, finds noise. Here a number takes two whole bytes. Of *n* values in the order of their size, √*n* neighbours share the upper
//! byte, so that both bytes take about √*n* values each: zstd counts all bytes of a page in one table, and if the
//! two took different ones, telling them apart would cost a bit a byte. What is stored comes near the entropy of the values, and below it
//! where movement repeats. In the dictionary the numbers that the √*n* leave free repeat the value before them, and which of the neighbours
//! has which number is free too: sorted by their lowest byte, they share bytes with those before. A reader finds an ordinary
//! dictionary: the width of the numbers stands in every page.
//!
//! Values that hardly repeat (a filter computed them) would fill the dictionary for nothing; of those only the bytes of the exponent
//! repeat, which splitting brings together. Which form is smaller is known before the column is encoded.

use std::collections::BTreeMap;

use arrow::array::{Array as _, Float32Array};
use arrow::buffer::NullBuffer;
use bytes::Bytes;
use parquet::basic::{Compression, Encoding, PageType, ZstdLevel};
use parquet::column::page::{CompressedPage, Page, PageWriter as _};
use parquet::column::writer::ColumnCloseResult;
use parquet::errors::ParquetError;
use parquet::file::metadata::{ColumnChunkMetaData, OffsetIndexBuilder, PageEncodingStats};
use parquet::file::properties::DEFAULT_DATA_PAGE_ROW_COUNT_LIMIT;
use parquet::file::statistics::Statistics;
use parquet::file::writer::{SerializedPageWriter, TrackedWrite};
use parquet::schema::types::ColumnDescPtr;

/// The most values that numbers of two bytes tell apart.
const VALUES_LIMIT: usize = 1 << 16;
/// The values that one byte tells apart.
const BYTE: usize = 1 << 8;
/// Rows of a page, as everywhere in the file: a reader of a few seconds skips the others.
const PAGE_ROWS: usize = DEFAULT_DATA_PAGE_ROW_COUNT_LIMIT;

/// The different values of a column and their numbers.
pub(super) struct Dictionary {
    /// How many numbers there are.
    length: usize,
    /// The values by number.
    compressed: Vec<u8>,
    /// Level of zstd.
    level: i32,
    /// A number takes two bytes.
    wide: bool,
    /// Of each value of the column, without those that are null.
    numbers: Vec<u16>,
    least: f32,
    greatest: f32,
    /// What the column is expected to take, bytes.
    pub(super) expected_bytes: f64,
}

/// A column of a row group, as it goes into the file.
pub(super) struct Chunk {
    pub(super) bytes: Bytes,
    pub(super) close: ColumnCloseResult,
}

/// Bits whose order is that of the numbers, −0 before 0.
const fn sortable(bits: u32) -> u32 {
    if bits >> 31 == 0 { bits | 1 << 31 } else { !bits }
}

const fn from_sortable(bits: u32) -> u32 {
    if bits >> 31 == 1 { bits & !(1 << 31) } else { !bits }
}

/// A value as sortable bits, and where in the column it stands.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Entry(u64);

impl Entry {
    fn new(value: f32, place: u32) -> Self {
        Self(u64::from(sortable(value.to_bits())) << 32 | u64::from(place))
    }

    const fn bits(self) -> u32 {
        from_sortable((self.0 >> 32) as u32)
    }

    const fn place(self) -> usize {
        self.0 as u32 as usize
    }

    const fn is_of(self, other: Self) -> bool {
        self.0 >> 32 == other.0 >> 32
    }
}

impl Dictionary {
    /// `None` if there are no values, or too many different ones.
    pub(super) fn of(column: &Float32Array, level: i32) -> Result<Option<Self>, ParquetError> {
        let present = column.iter().flatten().zip(0_u32..);
        let mut all: Vec<Entry> = present.map(|(value, place)| Entry::new(value, place)).collect();
        all.sort_unstable();
        let (Some(&first), Some(&last)) = (all.first(), all.last()) else { return Ok(None) };
        // The places of each value, the values by their size.
        let mut runs: Vec<&[Entry]> = all.chunk_by(|a, b| a.is_of(*b)).collect();
        if runs.len() > VALUES_LIMIT {
            return Ok(None);
        }
        let wide = runs.len() > BYTE;
        let neighbours = if wide { (runs.len() as f64).sqrt().ceil() as usize } else { BYTE };
        let mut values: Vec<u32> = Vec::new();
        let mut numbers = vec![0_u16; all.len()];
        let mut bytes = [0_u64; BYTE];
        for (upper, block) in runs.chunks_mut(neighbours).enumerate() {
            values.resize(upper * BYTE, values.last().copied().unwrap_or(0));
            block.sort_by_key(|run| run.first().map(|entry| (entry.bits() as u8, *entry)));
            for (lower, run) in block.iter().enumerate() {
                values.extend(run.first().map(|entry| entry.bits()));
                for entry in *run {
                    if let Some(number) = numbers.get_mut(entry.place()) {
                        // Both are below 256.
                        *number = (upper << 8 | lower) as u16;
                    }
                }
                for byte in [lower, upper].into_iter().take(1 + usize::from(wide)) {
                    if let Some(count) = bytes.get_mut(byte) {
                        *count += run.len() as u64;
                    }
                }
            }
        }
        let plain: Vec<u8> = values.iter().flat_map(|value| value.to_le_bytes()).collect();
        let compressed = zstd::bulk::compress(&plain, level).map_err(external)?;
        let expected_bytes = entropy_bytes(&bytes) + compressed.len() as f64;
        let [least, greatest] = [first, last].map(|entry| f32::from_bits(entry.bits()));
        Ok(Some(Self { length: values.len(), compressed, level, wide, numbers, least, greatest, expected_bytes }))
    }

    /// The column's pages and what is said of them.
    pub(super) fn encode(&self, column: &Float32Array, descr: ColumnDescPtr) -> Result<Chunk, ParquetError> {
        let mut zstd = zstd::bulk::Compressor::new(self.level).map_err(external)?;
        let mut sink = TrackedWrite::new(Vec::new());
        let mut pages = SerializedPageWriter::new(&mut sink);
        let mut written = Written::default();
        let dictionary = Page::DictionaryPage {
            buf: self.compressed.clone().into(),
            num_values: self.length as u32,
            encoding: Encoding::PLAIN,
            is_sorted: false,
        };
        written.add(&pages.write_page(CompressedPage::new(dictionary, 4 * self.length))?);
        let mut offsets = OffsetIndexBuilder::new();
        let mut data_page_offset = None;
        let mut numbers = self.numbers.as_slice();
        for first in (0..column.len()).step_by(PAGE_ROWS) {
            let rows = column.slice(first, PAGE_ROWS.min(column.len() - first));
            let (of_page, rest) = numbers.split_at((rows.len() - rows.null_count()).min(numbers.len()));
            numbers = rest;
            let body = self.page(&rows, of_page);
            let page = Page::DataPage {
                buf: zstd.compress(&body).map_err(external)?.into(),
                num_values: rows.len() as u32,
                encoding: Encoding::RLE_DICTIONARY,
                def_level_encoding: Encoding::RLE,
                rep_level_encoding: Encoding::RLE,
                statistics: None,
            };
            let spec = pages.write_page(CompressedPage::new(page, body.len()))?;
            data_page_offset.get_or_insert(spec.offset as i64);
            offsets.append_row_count(rows.len() as i64);
            offsets.append_offset_and_size(spec.offset as i64, spec.compressed_size as i32);
            written.add(&spec);
        }
        pages.close()?;
        let bytes = sink.into_inner()?;
        let encodings = [(PageType::DICTIONARY_PAGE, Encoding::PLAIN), (PageType::DATA_PAGE, Encoding::RLE_DICTIONARY)];
        let metadata = ColumnChunkMetaData::builder(descr)
            .set_compression(Compression::ZSTD(ZstdLevel::try_new(self.level)?))
            .set_encodings(vec![Encoding::PLAIN, Encoding::RLE, Encoding::RLE_DICTIONARY])
            .set_page_encoding_stats(
                encodings
                    .map(|(page_type, encoding)| PageEncodingStats {
                        page_type,
                        encoding,
                        count: written.pages.get(&page_type).copied().unwrap_or(0),
                    })
                    .to_vec(),
            )
            .set_num_values(column.len() as i64)
            .set_total_compressed_size(written.compressed as i64)
            .set_total_uncompressed_size(written.uncompressed as i64)
            .set_dictionary_page_offset(Some(0))
            .set_data_page_offset(data_page_offset.unwrap_or(0))
            .set_statistics(self.statistics(column.null_count()))
            .build()?;
        Ok(Chunk {
            close: ColumnCloseResult {
                bytes_written: bytes.len() as u64,
                rows_written: column.len() as u64,
                metadata,
                bloom_filter: None,
                column_index: None,
                offset_index: Some(offsets.build()),
            },
            bytes: bytes.into(),
        })
    }

    /// A page's body: which rows have a value, and the numbers of the values.
    fn page(&self, rows: &Float32Array, numbers: &[u16]) -> Vec<u8> {
        let mut body = Vec::with_capacity(2 * rows.len() + 32);
        let levels = levels(rows.nulls(), rows.len());
        body.extend((levels.len() as u32).to_le_bytes());
        body.extend(levels);
        // One byte for the width of a number in bits, then one run of packed numbers, a multiple of eight.
        body.push(if self.wide { 16 } else { 8 });
        let groups = numbers.len().div_ceil(8);
        varint(&mut body, groups << 1 | 1);
        let end = body.len() + groups * 8 * if self.wide { 2 } else { 1 };
        for number in numbers {
            let [low, high] = number.to_le_bytes();
            body.push(low);
            if self.wide {
                body.push(high);
            }
        }
        body.resize(end, 0);
        body
    }

    fn statistics(&self, nulls: usize) -> Statistics {
        // Zero has two signs, and readers may hold the two for the same.
        let signed = |value: f32, zero: f32| if value == 0.0 { zero } else { value };
        let (least, greatest) = (Some(signed(self.least, -0.0)), Some(signed(self.greatest, 0.0)));
        Statistics::float(least, greatest, None, Some(nulls as u64), false)
    }
}

/// What the column takes if the bytes of its values are split by weight (byte-stream-split) instead.
pub(super) fn split_bytes(column: &Float32Array) -> f64 {
    let mut counts = [[0_u64; BYTE]; 4];
    for value in column.iter().flatten() {
        for (of_byte, byte) in counts.iter_mut().zip(value.to_le_bytes()) {
            if let Some(count) = of_byte.get_mut(usize::from(byte)) {
                *count += 1;
            }
        }
    }
    counts.iter().map(|counts| entropy_bytes(counts)).sum()
}

/// What so many of each byte take when each is coded as often as it comes.
fn entropy_bytes(counts: &[u64]) -> f64 {
    let all = counts.iter().sum::<u64>() as f64;
    let counts = counts.iter().filter(|&&count| count > 0).map(|&count| count as f64);
    counts.map(|count| count * (all / count).log2()).sum::<f64>() / 8.0
}

/// Which rows have a value, as levels of one bit.
fn levels(nulls: Option<&NullBuffer>, rows: usize) -> Vec<u8> {
    let mut out = Vec::new();
    match nulls.filter(|nulls| nulls.null_count() > 0) {
        None => {
            varint(&mut out, rows << 1);
            out.push(1);
        }
        Some(nulls) => {
            varint(&mut out, rows.div_ceil(8) << 1 | 1);
            let mut bits = nulls.iter();
            for _ in 0..rows.div_ceil(8) {
                out.push((0..8).fold(0, |byte, bit| byte | u8::from(bits.next().unwrap_or(false)) << bit));
            }
        }
    }
    out
}

/// Seven bits a byte, the lowest first.
fn varint(out: &mut Vec<u8>, mut value: usize) {
    while value >= 1 << 7 {
        out.push(value as u8 | 1 << 7);
        value >>= 7;
    }
    out.push(value as u8);
}

fn external(error: std::io::Error) -> ParquetError {
    ParquetError::External(Box::new(error))
}

#[derive(Default)]
struct Written {
    compressed: usize,
    uncompressed: usize,
    pages: BTreeMap<PageType, i32>,
}

impl Written {
    fn add(&mut self, page: &parquet::column::page::PageWriteSpec) {
        self.compressed += page.compressed_size;
        self.uncompressed += page.uncompressed_size;
        *self.pages.entry(page.page_type).or_default() += 1;
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use arrow::array::{ArrayRef, AsArray as _, RecordBatch};
    use arrow::compute::concat_batches;
    use arrow::datatypes::{DataType, Field, Float32Type, Schema, SchemaRef};
    use parquet::arrow::ArrowWriter;
    use parquet::arrow::arrow_reader::{
        ArrowReaderOptions, ParquetRecordBatchReaderBuilder, RowSelection, RowSelector,
    };
    use parquet::file::metadata::PageIndexPolicy;
    use parquet::file::properties::WriterProperties;
    use proptest::prelude::*;

    use super::*;

    fn schema() -> SchemaRef {
        Arc::new(Schema::new(vec![Field::new("value", DataType::Float32, true)]))
    }

    /// A file of one column, written by this module; `None` where it leaves the column to others.
    fn file(column: &Float32Array) -> Option<Bytes> {
        let dictionary = Dictionary::of(column, 16).unwrap()?;
        let (mut writer, _) =
            ArrowWriter::try_new(Vec::new(), schema(), None).unwrap().into_serialized_writer().unwrap();
        let chunk = dictionary.encode(column, writer.schema_descr().column(0)).unwrap();
        let mut group = writer.next_row_group().unwrap();
        group.append_column(&chunk.bytes, chunk.close).unwrap();
        group.close().unwrap();
        Some(writer.into_inner().unwrap().into())
    }

    /// The same by the writer that everybody has.
    fn usual_file(column: &Float32Array) -> Bytes {
        usual_file_with(column, WriterProperties::default())
    }

    fn usual_file_with(column: &Float32Array, properties: WriterProperties) -> Bytes {
        let mut writer = ArrowWriter::try_new(Vec::new(), schema(), Some(properties)).unwrap();
        writer.write(&RecordBatch::try_new(schema(), vec![Arc::new(column.clone()) as ArrayRef]).unwrap()).unwrap();
        writer.into_inner().unwrap().into()
    }

    fn opened(file: &Bytes) -> ParquetRecordBatchReaderBuilder<Bytes> {
        let options = ArrowReaderOptions::new().with_page_index_policy(PageIndexPolicy::Required);
        ParquetRecordBatchReaderBuilder::try_new_with_options(file.clone(), options).unwrap()
    }

    fn bits(column: &Float32Array) -> Vec<Option<u32>> {
        column.iter().map(|value| value.map(f32::to_bits)).collect()
    }

    fn read(builder: ParquetRecordBatchReaderBuilder<Bytes>) -> Vec<Option<u32>> {
        let batches: Vec<RecordBatch> = builder.build().unwrap().map(Result::unwrap).collect();
        bits(concat_batches(&schema(), &batches).unwrap().column(0).as_primitive::<Float32Type>())
    }

    fn check(column: &Float32Array) {
        let ours = file(column).expect("a dictionary");
        assert_eq!(read(opened(&ours)), bits(column));
        let usual = usual_file(column);
        let said = |file: &Bytes| {
            let metadata = Arc::clone(opened(file).metadata());
            let chunk = metadata.row_group(0).column(0);
            let statistics = chunk.statistics().unwrap().clone();
            (metadata.file_metadata().num_rows(), chunk.num_values(), format!("{statistics:?}"))
        };
        assert_eq!(said(&ours), said(&usual));
    }

    #[test]
    fn any_number_of_different_values_comes_back_up_to_the_limit() {
        for different in [1_u32, 2, 255, 256, 257, 65_535, 65_536] {
            // Every value, those about a page's end too, and some again.
            let values = (0..different.max(200) + 70_000).map(|row| (row % different) as f32 * 0.061 - 100.0);
            check(&Float32Array::from_iter_values(values));
        }
        let too_many = Float32Array::from_iter_values((0..65_537_u32).map(|value| value as f32));
        assert!(file(&too_many).is_none() && file(&Float32Array::new_null(3)).is_none(), "left to the usual writer");
    }

    #[test]
    fn a_reader_skips_to_any_row() {
        let column: Float32Array =
            (0..200_000_u32).map(|row| (row % 11 != 3).then(|| f32::from((row * 7 % 5_003) as u16) * 0.061)).collect();
        let file = file(&column).unwrap();
        for (first, rows) in [(0, 1), (65_530, 12), (131_071, 2), (199_999, 1), (70_000, 100_000)] {
            let wanted = RowSelection::from(vec![RowSelector::skip(first), RowSelector::select(rows)]);
            assert_eq!(read(opened(&file).with_row_selection(wanted)), bits(&column.slice(first, rows)));
        }
    }

    /// Numbers of about a bell's shape, none of them expected.
    fn bell(rows: usize, deviation: f64) -> Vec<f64> {
        let mut state = 7_u64;
        let mut drawn = || {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (state >> 11) as f64 / (1_u64 << 53) as f64
        };
        (0..rows).map(|_| ((0..12).map(|_| drawn()).sum::<f64>() - 6.0) * deviation).collect()
    }

    /// What a converter of 16 bits gives, in m/s²: the factor fills all the bytes of a float.
    fn converted(steps: &[f64]) -> Float32Array {
        steps.iter().map(|step| Some((step.round() * 9.806_65 * 16.0 / 32_768.0) as f32)).collect()
    }

    #[test]
    fn what_a_converter_gives_takes_hardly_more_than_it_tells() {
        let steps = bell(120_000, 300.0);
        let mut counts = vec![0_u64; 3_700];
        for step in &steps {
            counts[(step.round() + 1_850.0) as usize] += 1;
        }
        let column = converted(&steps);
        let dictionary = Dictionary::of(&column, 16).unwrap().unwrap();
        let took = file(&column).unwrap().len() as f64;
        let told = entropy_bytes(&counts) + dictionary.compressed.len() as f64;
        assert!((0.97..1.02).contains(&(took / dictionary.expected_bytes)), "{took} {}", dictionary.expected_bytes);
        assert!(took < 1.06 * told, "{took} {told}");
        assert!(took < usual_file(&column).len() as f64, "{took} {}", usual_file(&column).len());
    }

    #[test]
    fn the_smaller_form_is_known_before() {
        let split = |column: &Float32Array| {
            let properties = WriterProperties::builder()
                .set_dictionary_enabled(false)
                .set_encoding(Encoding::BYTE_STREAM_SPLIT)
                .set_compression(Compression::ZSTD(ZstdLevel::try_new(1).unwrap()));
            usual_file_with(column, properties.build()).len()
        };
        let walk: Vec<f64> = bell(50_000, 9.0)
            .into_iter()
            .scan(0.0, |sum, step| {
                *sum += step.round();
                Some(*sum)
            })
            .collect();
        let computed: Float32Array = bell(50_000, 300.0).into_iter().map(|value| Some(value as f32)).collect();
        for (column, is_smaller) in [
            (converted(&bell(50_000, 300.0)), true),
            (converted(&walk), true),
            (converted(&bell(500, 300.0)), false),
            (computed, false),
        ] {
            let dictionary = Dictionary::of(&column, 16).unwrap().unwrap();
            assert_eq!(dictionary.expected_bytes < split_bytes(&column), is_smaller, "{} rows", column.len());
            assert_eq!(file(&column).unwrap().len() < split(&column), is_smaller, "{} rows", column.len());
        }
    }

    proptest! {
        #[test]
        fn any_column_comes_back(values in proptest::collection::vec(
            prop_oneof![
                Just(None), Just(Some(0.0)), Just(Some(-0.0)), Just(Some(f32::INFINITY)), Just(Some(f32::NEG_INFINITY)),
                (-40_i16..40).prop_map(|value| Some(f32::from(value) * 0.25)), proptest::num::f32::NORMAL.prop_map(Some),
                proptest::num::f32::SUBNORMAL.prop_map(Some),
            ],
            1..600,
        )) {
            let column = Float32Array::from(values);
            if column.null_count() < column.len() {
                check(&column);
            }
        }
    }
}
