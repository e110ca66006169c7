//! The tables as DataFusion sees them.

use std::collections::BTreeMap;
use std::sync::Arc;

use arrow::array::{ArrayRef, BooleanArray, Date32Array, Int64Array, RecordBatch};
use arrow::compute::and;
use arrow::datatypes::{DataType, Field, Fields, Schema, SchemaRef};
use async_trait::async_trait;
use datafusion::catalog::{Session, TableProvider};
use datafusion::common::stats::Precision;
use datafusion::common::{DFSchema, Result, ScalarValue, Statistics, internal_datafusion_err, project_schema};
use datafusion::datasource::file_format::parquet::ParquetFormat;
use datafusion::datasource::listing::PartitionedFile;
use datafusion::datasource::memory::MemorySourceConfig;
use datafusion::datasource::physical_plan::parquet::{ParquetAccessPlan, RowGroupAccess};
use datafusion::datasource::physical_plan::{FileGroup, FileScanConfigBuilder, ParquetSource};
use datafusion::datasource::source::DataSourceExec;
use datafusion::datasource::table_schema::TableSchema;
use datafusion::error::DataFusionError;
use datafusion::execution::object_store::ObjectStoreUrl;
use datafusion::logical_expr::{Expr, TableProviderFilterPushDown, TableType};
use datafusion::physical_plan::ExecutionPlan;
use datafusion::physical_plan::empty::EmptyExec;
use datafusion::physical_plan::union::UnionExec;
use jiff::civil::Date;
use object_store::{ObjectMeta, ObjectStoreExt};
use schemas::SessionId;
use tokio::sync::OnceCell;

use super::replaced::{AsKnown, Files};
use super::source::{LiveFrames, Snapshot, Source, StoredFile};
use super::tables::{self, DATE};
use super::text;

/// The column that, with the date, is known of a file without opening it.
pub(super) const SESSION_ID: &str = "session_id";

/// What one statement reads, so that a table that it names twice is the same table.
#[derive(Debug)]
pub(super) struct Scope {
    source: Arc<dyn Source>,
    snapshot: OnceCell<Snapshot>,
    /// Files are asked for their size before they are read.
    pub(super) as_found: bool,
}

impl Scope {
    /// With `as_found`, what the source says of a file's size and rows is not believed: a new revision may have taken the
    /// file's name while the source still knows the one before.
    pub(super) fn new(source: Arc<dyn Source>, as_found: bool) -> Self {
        Self { source, snapshot: OnceCell::new(), as_found }
    }

    pub(super) fn of(state: &dyn Session) -> Result<Arc<Self>> {
        state
            .config()
            .get_extension::<Self>()
            .ok_or_else(|| internal_datafusion_err!("a table was scanned outside of a statement"))
    }

    /// The files with their places in packs.
    pub(super) fn located(&self, files: Vec<&StoredFile>) -> Result<Vec<StoredFile>> {
        let mut files: Vec<StoredFile> = files.into_iter().cloned().collect();
        self.source.locate(&mut files).map_err(DataFusionError::External)?;
        Ok(files)
    }

    /// The snapshot of the statement, taken when the first table is scanned.
    pub(super) async fn snapshot(&self) -> Result<&Snapshot> {
        self.snapshot.get_or_try_init(|| self.source.snapshot()).await.map_err(DataFusionError::External)
    }
}

/// A table that is stored as Parquet, a file a session.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Stored {
    /// With the live frames of open sessions.
    Frames,
    Strokes,
    Results,
}

#[derive(Clone, Debug)]
pub(super) struct StoredTable {
    what: Stored,
    schema: TableSchema,
    pub(super) files: Files,
    files_at: ObjectStoreUrl,
}

impl StoredTable {
    pub(super) fn new(what: Stored, files: Files, files_at: ObjectStoreUrl) -> Self {
        let file_schema = match what {
            Stored::Frames => schemas::frames::frames_schema(),
            Stored::Strokes => schemas::tables::strokes_schema(),
            Stored::Results => schemas::tables::results_schema(),
        };
        let schema = TableSchema::builder(text::inside(&file_schema))
            .with_table_partition_cols(vec![Arc::new(tables::date_field())])
            .build();
        Self { what, schema, files, files_at }
    }

    /// The files that it has in a snapshot.
    pub(super) const fn files<'a>(&self, snapshot: &'a Snapshot) -> &'a Arc<Vec<StoredFile>> {
        match self.what {
            Stored::Frames => &snapshot.frames,
            Stored::Strokes => &snapshot.strokes,
            Stored::Results => &snapshot.results,
        }
    }

    pub(super) fn is_frames(&self) -> bool {
        self.what == Stored::Frames
    }

    pub(super) async fn scan_files(
        &self,
        state: &dyn Session,
        projection: Option<&Vec<usize>>,
        files: &[StoredFile],
        limit: Option<usize>,
        as_found: bool,
    ) -> Result<Arc<dyn ExecutionPlan>> {
        let mut statistics = Statistics::new_unknown(self.schema.table_schema());
        if let Some(rows) = files.iter().map(|file| file.rows).sum::<Option<u64>>()
            && !as_found
        {
            statistics.num_rows = Precision::Exact(rows as usize);
        }
        let mut files = partitioned_files(files)?;
        if as_found {
            for file in &mut files {
                file.object_meta = self.files.head(&file.object_meta.location).await?;
            }
        }
        let groups = FileGroup::new(files).split_files(state.config().target_partitions());
        let footers = state.runtime_env().cache_manager.get_file_metadata_cache();
        let source = ParquetSource::new(self.schema.clone())
            .with_table_parquet_options(ParquetFormat::default().options().clone())
            .with_parquet_file_reader_factory(Arc::new(AsKnown { files: self.files.clone(), footers }));
        let config = FileScanConfigBuilder::new(self.files_at.clone(), Arc::new(source))
            .with_file_groups(groups)
            .with_statistics(statistics)
            .with_projection_indices(projection.cloned())?
            .with_limit(limit)
            .build();
        Ok(DataSourceExec::from_data_source(config))
    }

    pub(super) fn scan_live(
        &self,
        state: &dyn Session,
        projection: Option<&Vec<usize>>,
        live: &[&LiveFrames],
    ) -> Result<Arc<dyn ExecutionPlan>> {
        let mut partitions = vec![Vec::new(); state.config().target_partitions().min(live.len())];
        for (place, session) in live.iter().enumerate() {
            let slot = place % partitions.len();
            for batch in session.batches.iter().filter(|batch| batch.num_rows() > 0) {
                partitions[slot].push(self.as_stored(batch, session.date, projection)?);
            }
        }
        Ok(MemorySourceConfig::try_new_exec(
            &partitions,
            project_schema(self.schema.table_schema(), projection)?,
            None,
        )?)
    }

    /// Columns of a live batch, with the partition column that a file would get from its folder.
    fn as_stored(&self, batch: &RecordBatch, date: Date, projection: Option<&Vec<usize>>) -> Result<RecordBatch> {
        let mut columns: Vec<ArrayRef> = batch.columns().to_vec();
        columns.push(Arc::new(Date32Array::from_value(days(date), batch.num_rows())));
        let fields =
            batch.schema().fields().iter().cloned().chain([Arc::new(tables::date_field())]).collect::<Fields>();
        let batch = RecordBatch::try_new(Arc::new(Schema::new(fields)), columns)?;
        let batch = projection.map_or_else(|| Ok(batch.clone()), |columns| batch.project(columns))?;
        Ok(text::retyped(&batch, &project_schema(self.schema.table_schema(), projection)?)?)
    }
}

#[async_trait]
impl TableProvider for StoredTable {
    fn schema(&self) -> SchemaRef {
        Arc::clone(self.schema.table_schema())
    }

    fn table_type(&self) -> TableType {
        TableType::Base
    }

    async fn scan(
        &self,
        state: &dyn Session,
        projection: Option<&Vec<usize>>,
        filters: &[Expr],
        limit: Option<usize>,
    ) -> Result<Arc<dyn ExecutionPlan>> {
        let scope = Scope::of(state)?;
        let snapshot = scope.snapshot().await?;
        let live = if self.is_frames() { snapshot.live.as_slice() } else { &[] };
        let (files, live) = chosen(state, filters, self.files(snapshot), live)?;

        let mut inputs = Vec::with_capacity(2);
        if !files.is_empty() {
            let files = scope.located(files)?;
            inputs.push(self.scan_files(state, projection, &files, limit, scope.as_found).await?);
        }
        if !live.is_empty() {
            inputs.push(self.scan_live(state, projection, &live)?);
        }
        match inputs.len() {
            0 => Ok(Arc::new(EmptyExec::new(project_schema(self.schema.table_schema(), projection)?))),
            1 => Ok(inputs.remove(0)),
            _ => UnionExec::try_new(inputs),
        }
    }

    /// The date comes from the folder, so a filter on it is done once files are chosen. A filter on the session chooses
    /// files as well, but what a file says of itself decides; all others go down to the row groups' statistics.
    fn supports_filters_pushdown(&self, filters: &[&Expr]) -> Result<Vec<TableProviderFilterPushDown>> {
        Ok(filters
            .iter()
            .map(|filter| {
                let refs = filter.column_refs();
                let by_date = !refs.is_empty() && refs.iter().all(|column| column.name == DATE);
                if by_date && !filter.is_volatile() {
                    TableProviderFilterPushDown::Exact
                } else {
                    TableProviderFilterPushDown::Inexact
                }
            })
            .collect())
    }
}

/// Those of which rows may pass the filters.
pub(super) fn chosen<'a>(
    state: &dyn Session,
    filters: &[Expr],
    files: &'a [StoredFile],
    live: &'a [LiveFrames],
) -> Result<(Vec<&'a StoredFile>, Vec<&'a LiveFrames>)> {
    let places = files.iter().map(|file| (file.session_id, file.date));
    let places = places.chain(live.iter().map(|session| (session.session_id, session.date))).collect::<Vec<_>>();
    let keep = wanted(state, filters, &places)?;
    let (keep_files, keep_live) = keep.split_at(files.len());
    let files = files.iter().zip(keep_files).filter_map(|(file, &keep)| keep.then_some(file)).collect();
    let live = live.iter().zip(keep_live).filter_map(|(live, &keep)| keep.then_some(live)).collect();
    Ok((files, live))
}

/// For each (session, date): may rows of it pass the filters? Filters that need other columns say nothing about that.
fn wanted(state: &dyn Session, filters: &[Expr], places: &[(SessionId, Date)]) -> Result<Vec<bool>> {
    let schema = Arc::new(Schema::new(vec![
        Field::new(SESSION_ID, DataType::Int64, false),
        Field::new(DATE, DataType::Date32, false),
    ]));
    let batch = RecordBatch::try_new(
        Arc::clone(&schema),
        vec![
            Arc::new(places.iter().map(|(session_id, _)| session_id.get()).collect::<Int64Array>()),
            Arc::new(places.iter().map(|&(_, date)| Some(days(date))).collect::<Date32Array>()),
        ],
    )?;
    let df_schema = DFSchema::try_from(schema)?;
    let mut keep = BooleanArray::from(vec![true; places.len()]);
    for filter in filters {
        let refs = filter.column_refs();
        let decidable = !refs.is_empty() && refs.iter().all(|column| column.name == DATE || column.name == SESSION_ID);
        if !decidable || filter.is_volatile() {
            continue;
        }
        let answer =
            state.create_physical_expr(filter.clone(), &df_schema)?.evaluate(&batch)?.into_array(places.len())?;
        let answer = answer
            .as_any()
            .downcast_ref::<BooleanArray>()
            .ok_or_else(|| internal_datafusion_err!("a filter that is not boolean: {filter}"))?;
        // Null is not true: a filter that is null for a session lets no row of it pass.
        let answer = answer.iter().map(|passes| Some(passes.unwrap_or(false))).collect::<BooleanArray>();
        keep = and(&keep, &answer)?;
    }
    Ok(keep.iter().map(|keep| keep.unwrap_or(false)).collect())
}

/// The files to scan: those of one session as they are, and each pack once, with the row groups of all sessions in it that
/// are wanted.
fn partitioned_files(files: &[StoredFile]) -> Result<Vec<PartitionedFile>> {
    let mut scans = Vec::with_capacity(files.len());
    let mut packs: BTreeMap<&str, (&StoredFile, Vec<RowGroupAccess>)> = BTreeMap::new();
    for file in files {
        let Some(within) = &file.within else {
            scans.push(partitioned_file(file)?);
            continue;
        };
        let (_, groups) = packs.entry(&file.path).or_insert_with(|| (file, vec![RowGroupAccess::Skip; within.of]));
        for group in within.row_groups.clone() {
            groups[group] = RowGroupAccess::Scan;
        }
    }
    for (file, groups) in packs.into_values() {
        scans.push(partitioned_file(file)?.with_extension(ParquetAccessPlan::new(groups)));
    }
    Ok(scans)
}

pub(super) fn partitioned_file(file: &StoredFile) -> Result<PartitionedFile> {
    let meta = ObjectMeta {
        location: object_store::path::Path::parse(&file.path)
            .map_err(|error| DataFusionError::External(error.into()))?,
        last_modified: arrow::temporal_conversions::timestamp_us_to_datetime(file.version)
            .unwrap_or_default()
            .and_utc(),
        size: file.bytes,
        e_tag: None,
        version: None,
    };
    Ok(PartitionedFile::new_from_meta(meta).with_partition_values(vec![ScalarValue::Date32(Some(days(file.date)))]))
}

/// Days since 1970-01-01, as Arrow counts dates.
pub(super) fn days(date: Date) -> i32 {
    let days = date.duration_since(Date::constant(1970, 1, 1)).as_hours() / 24;
    i32::try_from(days).expect("a civil date lies within 10000 years of 1970")
}

/// A table whose rows the catalog has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Listed {
    Sessions,
    Devices,
    Players,
    Notifications,
    Labels,
}

#[derive(Debug)]
pub(super) struct ListedTable(pub(super) Listed);

#[async_trait]
impl TableProvider for ListedTable {
    fn schema(&self) -> SchemaRef {
        let outside = match self.0 {
            Listed::Sessions => tables::sessions_schema(),
            Listed::Devices => tables::devices_schema(),
            Listed::Players => tables::players_schema(),
            Listed::Notifications => tables::notifications_schema(),
            Listed::Labels => tables::labels_schema(),
        };
        text::inside(&outside)
    }

    fn table_type(&self) -> TableType {
        TableType::Base
    }

    async fn scan(
        &self,
        state: &dyn Session,
        projection: Option<&Vec<usize>>,
        _filters: &[Expr],
        _limit: Option<usize>,
    ) -> Result<Arc<dyn ExecutionPlan>> {
        let source = &Scope::of(state)?.source;
        let batch = match self.0 {
            Listed::Sessions => tables::sessions_batch(&source.sessions().await.map_err(DataFusionError::External)?),
            Listed::Devices => tables::devices_batch(&source.devices().await.map_err(DataFusionError::External)?),
            Listed::Players => tables::players_batch(&source.players().await.map_err(DataFusionError::External)?),
            Listed::Notifications => {
                tables::notifications_batch(&source.notifications().await.map_err(DataFusionError::External)?)
            }
            Listed::Labels => tables::labels_batch(&source.labels().await.map_err(DataFusionError::External)?),
        }?;
        let batch = text::retyped(&batch, &self.schema())?;
        Ok(MemorySourceConfig::try_new_exec(&[vec![batch]], self.schema(), projection.cloned())?)
    }
}
