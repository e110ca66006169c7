//! What is known of `frames` without reading a row: the footers of its files say it of each row group.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use arrow::array::{RecordBatch, RecordBatchOptions};
use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use async_trait::async_trait;
use datafusion::catalog::{Session, TableProvider};
use datafusion::common::{DataFusionError, Result, ScalarValue, project_schema};
use datafusion::datasource::memory::MemorySourceConfig;
use datafusion::datasource::physical_plan::parquet::metadata::DFParquetMetadata;
use datafusion::logical_expr::{Expr, TableProviderFilterPushDown, TableType};
use datafusion::parquet::file::metadata::{ParquetMetaData, RowGroupMetaData};
use datafusion::parquet::file::statistics::Statistics;
use datafusion::physical_expr::PhysicalExpr;
use datafusion::physical_expr::expressions::{CastExpr, IsNotNullExpr, col, lit};
use datafusion::physical_plan::ExecutionPlan;
use datafusion::physical_plan::empty::EmptyExec;
use datafusion::physical_plan::projection::ProjectionExec;
use datafusion::physical_plan::union::UnionExec;
use futures::{StreamExt as _, TryStreamExt as _};
use jiff::civil::Date;
use schemas::SessionId;

use super::provider::{SESSION_ID, Scope, StoredTable, chosen, days, partitioned_file};
use super::source::{LiveFrames, StoredFile, Within};
use super::tables::DATE;

/// The column that, with session and date, all rows of a row group have in common.
const SENSOR: &str = "sensor";
/// Footers that are read at once, those that are not in memory.
const FOOTERS_AT_ONCE: usize = 8;

/// True for the columns of which a row group has one value.
pub(super) fn is_key(column: &str) -> bool {
    [SESSION_ID, DATE, SENSOR].contains(&column)
}

/// What is known of a column.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fact {
    /// How many values are not null.
    Count,
    Min,
    Max,
}

impl Fact {
    /// The column that holds it; `None` if nothing is known of that column.
    pub(super) fn name_for(self, field: &Field) -> Option<String> {
        let is_whole = matches!(field.data_type(), DataType::Int32 | DataType::Int64);
        match self {
            _ if is_key(field.name()) => None,
            Self::Count => Some(format!("__count_{}", field.name())),
            // Bounds of floating-point columns leave out what is no number, those of texts may be cut.
            Self::Min if is_whole => Some(format!("__min_{}", field.name())),
            Self::Max if is_whole => Some(format!("__max_{}", field.name())),
            Self::Min | Self::Max => None,
        }
    }
}

/// `frames` with a row for several rows that share session, day and sensor: the three, their number [`RowGroups::ROWS`] and
/// the [`Fact`]s of every other column. Rows of which a footer does not say it stand for themselves.
#[derive(Debug)]
pub(super) struct RowGroups {
    table: StoredTable,
    columns: Vec<(Column, Arc<Field>)>,
    schema: SchemaRef,
}

/// What a column holds, by the place of the table's column.
#[derive(Clone, Copy, Debug)]
enum Column {
    Key(usize),
    Rows,
    Known(Fact, usize),
}

impl RowGroups {
    /// The column of the number of rows.
    pub(super) const ROWS: &'static str = "__rows";

    pub(super) fn new(table: StoredTable) -> Self {
        let fields = table.schema();
        let fields = fields.fields().iter().enumerate();
        // Keys with all that the table says of them, and of itself: this stands in the table's place in a plan.
        let keys = fields.clone().filter(|(_, field)| is_key(field.name()));
        let keys = keys.map(|(place, field)| (Column::Key(place), Arc::clone(field)));
        let rows = (Column::Rows, Arc::new(Field::new(Self::ROWS, DataType::Int64, false)));
        let known = fields.flat_map(|(place, field)| {
            [Fact::Count, Fact::Min, Fact::Max].into_iter().filter_map(move |fact| {
                let name = fact.name_for(field)?;
                let known = match fact {
                    Fact::Count => Field::new(name, DataType::Int64, false),
                    // With what the table says of the column: so does a bound of it.
                    Fact::Min | Fact::Max => Field::clone(field).with_name(name).with_nullable(true),
                };
                Some((Column::Known(fact, place), Arc::new(known)))
            })
        });
        let columns: Vec<_> = keys.chain([rows]).chain(known).collect();
        let fields = columns.iter().map(|(_, field)| Arc::clone(field)).collect::<Vec<_>>();
        let metadata = table.schema().metadata().clone();
        let schema = Arc::new(Schema::new_with_metadata(fields, metadata));
        Self { table, columns, schema }
    }
}

impl Column {
    /// The table's column that it is made from.
    const fn place(self) -> Option<usize> {
        match self {
            Self::Key(place) | Self::Known(_, place) => Some(place),
            Self::Rows => None,
        }
    }

    /// True if it is known of a file, or of live frames, by what the snapshot says of them.
    fn is_known_by_name(self, table: &Schema) -> bool {
        match self {
            Self::Key(place) => table.field(place).name() != SENSOR,
            Self::Rows => true,
            Self::Known(..) => false,
        }
    }
}

#[async_trait]
impl TableProvider for RowGroups {
    fn schema(&self) -> SchemaRef {
        Arc::clone(&self.schema)
    }

    fn table_type(&self) -> TableType {
        TableType::Base
    }

    async fn scan(
        &self,
        state: &dyn Session,
        projection: Option<&Vec<usize>>,
        filters: &[Expr],
        _limit: Option<usize>,
    ) -> Result<Arc<dyn ExecutionPlan>> {
        let scope = Scope::of(state)?;
        let snapshot = scope.snapshot().await?;
        let (files, live) = chosen(state, filters, &snapshot.frames, &snapshot.live)?;

        let asked = projection.cloned().unwrap_or_else(|| (0..self.columns.len()).collect());
        let schema = project_schema(&self.schema, Some(&asked))?;
        let parts = if scope.as_found {
            Parts { known: Vec::new(), files: scope.located(files)?, live }
        } else if asked.iter().all(|&at| self.columns[at].0.is_known_by_name(&self.table.schema())) {
            self.by_name(&asked, files, &live, &scope)?
        } else {
            self.by_footers(&asked, &scope.located(files)?, live, state).await?
        };
        let mut inputs: Vec<Arc<dyn ExecutionPlan>> = Vec::with_capacity(3);
        if let Some(batch) = batch_of(&parts.known, &schema)? {
            inputs.push(MemorySourceConfig::try_new_exec(&[vec![batch]], Arc::clone(&schema), None)?);
        }
        let needed = asked.iter().filter_map(|&at| self.columns[at].0.place()).collect::<BTreeSet<_>>();
        let needed = needed.into_iter().collect::<Vec<_>>();
        if !parts.files.is_empty() {
            let rows = self.table.scan_files(state, Some(&needed), &parts.files, None, scope.as_found).await?;
            inputs.push(self.row_by_row(&asked, rows)?);
        }
        if !parts.live.is_empty() {
            let rows = self.table.scan_live(state, Some(&needed), &parts.live)?;
            inputs.push(self.row_by_row(&asked, rows)?);
        }
        match inputs.len() {
            0 => Ok(Arc::new(EmptyExec::new(schema))),
            1 => Ok(inputs.remove(0)),
            _ => UnionExec::try_new(inputs),
        }
    }

    fn supports_filters_pushdown(&self, filters: &[&Expr]) -> Result<Vec<TableProviderFilterPushDown>> {
        Ok(vec![TableProviderFilterPushDown::Inexact; filters.len()])
    }
}

/// Where the asked columns are to be had.
struct Parts<'a> {
    /// Here: their values, row by row.
    known: Vec<Vec<ScalarValue>>,
    /// In these rows alone.
    files: Vec<StoredFile>,
    live: Vec<&'a LiveFrames>,
}

impl RowGroups {
    /// A row for each session of which the number of rows is known.
    fn by_name<'a>(
        &self,
        asked: &[usize],
        files: Vec<&StoredFile>,
        live: &[&LiveFrames],
        scope: &Scope,
    ) -> Result<Parts<'a>> {
        let table = self.table.schema();
        let row = |session_id: SessionId, date: Date, rows: u64| -> Vec<ScalarValue> {
            let value = |&at: &usize| match self.columns[at].0 {
                Column::Key(place) if table.field(place).name() == DATE => ScalarValue::Date32(Some(days(date))),
                Column::Key(_) => ScalarValue::Int64(Some(session_id.get())),
                Column::Rows | Column::Known(..) => ScalarValue::Int64(Some(rows as i64)),
            };
            asked.iter().map(value).collect()
        };
        let (counted, files): (Vec<_>, Vec<_>) = files.into_iter().partition(|file| file.rows.is_some());
        let of_files = counted.iter().map(|file| row(file.session_id, file.date, file.rows.unwrap_or(0)));
        let rows_of = |live: &LiveFrames| live.batches.iter().map(RecordBatch::num_rows).sum::<usize>() as u64;
        let of_live = live.iter().map(|live| row(live.session_id, live.date, rows_of(live)));
        Ok(Parts { known: of_files.chain(of_live).collect(), files: scope.located(files)?, live: Vec::new() })
    }

    /// A row for each row group whose footer tells what is asked.
    async fn by_footers<'a>(
        &self,
        asked: &[usize],
        files: &[StoredFile],
        live: Vec<&'a LiveFrames>,
        state: &dyn Session,
    ) -> Result<Parts<'a>> {
        let footers = footers(state, &self.table, files).await?;
        let mut parts = Parts { known: Vec::new(), files: Vec::new(), live };
        for file in files {
            let footer = &footers[&file.path];
            let of = footer.num_row_groups();
            for at in file.within.as_ref().map_or(0..of, |within| within.row_groups.clone()) {
                match footer.row_groups().get(at).and_then(|group| self.facts(asked, file, group)) {
                    Some(facts) => parts.known.push(facts),
                    None => {
                        let within = Some(Within { row_groups: at..at + 1, of });
                        parts.files.push(StoredFile { within, ..file.clone() });
                    }
                }
            }
        }
        Ok(parts)
    }

    /// The values of the asked columns of a row group; `None` if its footer does not tell one.
    fn facts(&self, asked: &[usize], file: &StoredFile, group: &RowGroupMetaData) -> Option<Vec<ScalarValue>> {
        let table = self.table.schema();
        let statistics = |place: usize| {
            let name = table.field(place).name();
            let mut columns = group.columns().iter();
            columns.find(|column| column.column_path().parts() == [name.as_str()])?.statistics()
        };
        let value = |&at: &usize| {
            let (column, field) = &self.columns[at];
            match *column {
                Column::Rows => Some(ScalarValue::Int64(Some(group.num_rows()))),
                Column::Key(place) => match table.field(place).name().as_str() {
                    SESSION_ID => Some(ScalarValue::Int64(Some(file.session_id.get()))),
                    DATE => Some(ScalarValue::Date32(Some(days(file.date)))),
                    _ => ScalarValue::from(the_text(statistics(place)?)?).cast_to(field.data_type()).ok(),
                },
                Column::Known(Fact::Count, place) => {
                    let nulls = i64::try_from(statistics(place)?.null_count_opt()?).ok()?;
                    Some(ScalarValue::Int64(Some(group.num_rows() - nulls)))
                }
                Column::Known(fact, place) => bound(fact, statistics(place)?, group.num_rows(), field.data_type()),
            }
        };
        asked.iter().map(value).collect()
    }

    /// The asked columns of rows that each stand for themselves.
    fn row_by_row(&self, asked: &[usize], rows: Arc<dyn ExecutionPlan>) -> Result<Arc<dyn ExecutionPlan>> {
        let table = self.table.schema();
        let schema = rows.schema();
        let value = |place: usize| col(table.field(place).name(), &schema);
        let columns = asked.iter().map(|&at| {
            let (column, field) = &self.columns[at];
            let expression: Arc<dyn PhysicalExpr> = match *column {
                Column::Key(place) | Column::Known(Fact::Min | Fact::Max, place) => value(place)?,
                Column::Rows => lit(1i64),
                Column::Known(Fact::Count, place) => {
                    Arc::new(CastExpr::new(Arc::new(IsNotNullExpr::new(value(place)?)), DataType::Int64, None))
                }
            };
            Ok((expression, field.name().clone()))
        });
        Ok(Arc::new(ProjectionExec::try_new(columns.collect::<Result<Vec<_>>>()?, rows)?))
    }
}

fn batch_of(rows: &[Vec<ScalarValue>], schema: &SchemaRef) -> Result<Option<RecordBatch>> {
    if rows.is_empty() {
        return Ok(None);
    }
    let column = |at: usize| ScalarValue::iter_to_array(rows.iter().filter_map(|row| row.get(at)).cloned());
    let columns = (0..schema.fields().len()).map(column).collect::<Result<Vec<_>>>()?;
    let options = RecordBatchOptions::new().with_row_count(Some(rows.len()));
    Ok(Some(RecordBatch::try_new_with_options(Arc::clone(schema), columns, &options)?))
}

/// The text that all rows have.
fn the_text(statistics: &Statistics) -> Option<&str> {
    let Statistics::ByteArray(texts) = statistics else { return None };
    let is_whole = texts.min_is_exact() && texts.max_is_exact() && texts.null_count_opt() == Some(0);
    let text = texts.min_opt().filter(|_| is_whole).filter(|&min| Some(min) == texts.max_opt())?;
    text.as_utf8().ok()
}

/// The least or greatest value; null if all are.
fn bound(fact: Fact, statistics: &Statistics, rows: i64, data_type: &DataType) -> Option<ScalarValue> {
    let of = |min: Option<i64>, max: Option<i64>| if fact == Fact::Min { min } else { max };
    let bound = match statistics {
        Statistics::Int64(values) => of(values.min_opt().copied(), values.max_opt().copied()),
        Statistics::Int32(values) => {
            of(values.min_opt().map(|&value| value.into()), values.max_opt().map(|&value| value.into()))
        }
        _ => return None,
    };
    let all_are_null = statistics.null_count_opt() == u64::try_from(rows).ok();
    if bound.is_none() && !all_are_null {
        return None;
    }
    ScalarValue::Int64(bound).cast_to(data_type).ok()
}

/// The footers of the files, by their paths.
async fn footers(
    state: &dyn Session,
    table: &StoredTable,
    files: &[StoredFile],
) -> Result<BTreeMap<String, Arc<ParquetMetaData>>> {
    let cache = state.runtime_env().cache_manager.get_file_metadata_cache();
    let mut each = BTreeMap::new();
    for file in files {
        if !each.contains_key(&file.path) {
            each.insert(file.path.clone(), partitioned_file(file)?.object_meta);
        }
    }
    let read = futures::stream::iter(each).map(|(path, object)| {
        let (files, cache) = (table.files.of(&object), Arc::clone(&cache));
        async move {
            let footer = DFParquetMetadata::new(&files, &object).with_file_metadata_cache(Some(cache));
            Ok::<_, DataFusionError>((path, footer.fetch_metadata().await?))
        }
    });
    read.buffer_unordered(FOOTERS_AT_ONCE).try_collect().await
}
