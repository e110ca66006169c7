//! Runs statements: admission, limits, threads, cancellation.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use arrow::array::RecordBatch;
use arrow::datatypes::{Field, Schema, SchemaRef};
use datafusion::catalog::information_schema::{INFORMATION_SCHEMA, InformationSchemaProvider};
use datafusion::catalog::{
    CatalogProvider, CatalogProviderList, MemoryCatalogProvider, MemoryCatalogProviderList, MemorySchemaProvider,
    SchemaProvider, TableProvider,
};
use datafusion::common::{ScalarValue, internal_datafusion_err};
use datafusion::config::Dialect;
use datafusion::datasource::MemTable;
use datafusion::error::DataFusionError;
use datafusion::execution::context::SessionContext;
use datafusion::execution::disk_manager::{DiskManagerBuilder, DiskManagerMode};
use datafusion::execution::memory_pool::GreedyMemoryPool;
use datafusion::execution::object_store::ObjectStoreUrl;
use datafusion::execution::runtime_env::RuntimeEnvBuilder;
use datafusion::execution::session_state::{SessionState, SessionStateBuilder};
use datafusion::execution::{SendableRecordBatchStream, TaskContext};
use datafusion::logical_expr::LogicalPlan;
use datafusion::physical_plan::execute_stream;
use datafusion::prelude::SessionConfig;
use futures::future::BoxFuture;
use futures::{Stream, StreamExt, TryStreamExt};
use tokio::runtime::Runtime;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc, oneshot};
use tokio::task::{AbortHandle, JoinHandle};
use tracing::Instrument;

use super::clustered::ByRuns;
use super::encode::{ByteStream, Format, Writer};
use super::error::Error;
use super::provider::{Listed, ListedTable, Scope, Stored, StoredTable};
use super::replaced::Files;
use super::rules::{ByRowGroups, RangeJoin};
use super::source::Source;
use super::views::VIEWS;
use super::yields::Yields;
use super::{functions, parameters, size, statement, tables, text};

pub(super) const CATALOG: &str = "volant";
pub(super) const SCHEMA: &str = "public";
/// The name under which the engine knows the data folder; plans show it instead of the path on this machine.
const FILES: &str = "volant://data";
/// Batches (of up to 8192 rows) that wait for a slow reader; the statement pauses when they are there.
const ANSWER_QUEUE: usize = 2;
/// Footers of Parquet files kept in memory, all files together.
const FOOTER_CACHE_BYTES: usize = 64 * 1024 * 1024;
/// How often a statement is begun when stored files change under it, and the pause before it begins again.
const ATTEMPTS_LIMIT: usize = 4;
const REPEAT_AFTER: Duration = Duration::from_millis(20);

/// The most one statement may take. At each limit the statement ends with the error of that name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Rows of the result. They are delivered up to the limit, then [`Error::Rows`].
    pub rows: u64,
    /// From admission to the last row taken, so a reader that stalls ends too: [`Error::Time`].
    pub wall_time: Duration,
    /// Memory for sorting, grouping and joining: [`Error::Memory`]. Nothing is spilled to disk.
    pub memory_bytes: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self { rows: 10_000_000, wall_time: Duration::from_mins(1), memory_bytes: 512 * 1024 * 1024 }
    }
}

impl Limits {
    /// These limits, but none above `most`.
    #[must_use]
    pub fn within(self, most: &Self) -> Self {
        Self {
            rows: self.rows.min(most.rows),
            wall_time: self.wall_time.min(most.wall_time),
            memory_bytes: self.memory_bytes.min(most.memory_bytes),
        }
    }
}

/// How the room works.
#[derive(Clone, Debug)]
pub struct Options {
    /// Threads of the room's runtime.
    pub workers: usize,
    /// Statements that run at once; further ones wait.
    pub running: usize,
    /// Statements that wait at once; further ones are refused with [`Error::Busy`].
    pub waiting: usize,
    /// How long one waits before it is refused with [`Error::Busy`].
    pub queue_timeout: Duration,
    /// What a caller may ask for at most.
    pub limits: Limits,
}

impl Default for Options {
    fn default() -> Self {
        let cores = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
        Self {
            workers: cores,
            running: 4,
            waiting: 32,
            queue_timeout: Duration::from_secs(10),
            limits: Limits::default(),
        }
    }
}

/// A stream of batches; the last item may be an error.
pub type BatchStream = Pin<Box<dyn Stream<Item = Result<RecordBatch, Error>> + Send>>;

/// A statement that is being answered. Dropping it ends the statement.
pub struct Answer {
    /// Number of the statement since the start, as in the log.
    pub query_id: u64,
    /// The columns, with their comments; every batch has exactly this schema.
    pub schema: SchemaRef,
    pub batches: BatchStream,
}

/// The query room. Cheap to clone; the threads end when the last clone is dropped.
#[derive(Clone)]
pub struct Handle {
    engine: Arc<Engine>,
    shared: Arc<Shared>,
}

impl std::fmt::Debug for Handle {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("query::Handle").field("options", &self.shared.options).finish_non_exhaustive()
    }
}

struct Shared {
    options: Options,
    running: Arc<Semaphore>,
    waiting: AtomicUsize,
    next_id: AtomicU64,
    runtime: Threads,
}

impl Handle {
    /// Starts the room's threads. `files` is the data folder, `source` says what is in it.
    ///
    /// # Errors
    /// [`Error::Start`] if the threads cannot be made, [`Error::Engine`] if the tables do not fit the engine.
    pub fn start(options: Options, files: Files, source: Arc<dyn Source>) -> Result<Self, Error> {
        let engine =
            Engine::new(&options, files, source).map_err(|source| Error::Engine { source: Box::new(source) })?;
        let runtime = Threads::start(options.workers).map_err(|source| Error::Start { source })?;
        Ok(Self {
            engine: Arc::new(engine),
            shared: Arc::new(Shared {
                running: Arc::new(Semaphore::new(options.running)),
                waiting: AtomicUsize::new(0),
                next_id: AtomicU64::new(1),
                options,
                runtime,
            }),
        })
    }

    /// The same room for statements in PostgreSQL's dialect, which also see PostgreSQL's catalog.
    #[cfg(feature = "postgres")]
    pub(super) fn in_postgres_dialect(&self) -> Result<Self, Error> {
        let engine = self.engine.in_postgres_dialect(&self.shared.options);
        let engine = engine.map_err(|source| Error::Engine { source: Box::new(source) })?;
        Ok(Self { engine: Arc::new(engine), shared: Arc::clone(&self.shared) })
    }

    /// What a caller may ask for at most.
    pub fn limits(&self) -> Limits {
        self.shared.options.limits
    }

    /// Answers one statement. The future resolves when the first rows are being made; `limits` are cut to
    /// [`Handle::limits`].
    ///
    /// # Errors
    /// See [`Error`]. Errors that appear while rows are made come as the last item of [`Answer::batches`].
    pub fn query(&self, sql: &str, limits: Limits) -> BoxFuture<'static, Result<Answer, Error>> {
        self.query_with(sql, Vec::new(), limits)
    }

    /// The same with values for the statement's placeholders, in the order of their numbers.
    pub(super) fn query_with(
        &self,
        sql: &str,
        values: Vec<ScalarValue>,
        limits: Limits,
    ) -> BoxFuture<'static, Result<Answer, Error>> {
        let (engine, shared) = (Arc::clone(&self.engine), Arc::clone(&self.shared));
        let sql = sql.to_owned();
        Box::pin(async move { shared.query(engine, sql, values, limits).await })
    }

    /// Answers one statement as bytes of a format, made where its rows are: number of the statement, and the bytes, of which a
    /// beginning of 64 KiB is held back until it is whole or all there is, so that what fails before is told instead.
    ///
    /// # Errors
    /// As [`Handle::query`], and [`Error::Encode`]; errors after the beginning come as the last item.
    pub fn query_as(
        &self,
        sql: &str,
        limits: Limits,
        format: Format,
    ) -> BoxFuture<'static, Result<(u64, ByteStream), Error>> {
        let (engine, shared) = (Arc::clone(&self.engine), Arc::clone(&self.shared));
        let sql = sql.to_owned();
        Box::pin(async move {
            let (writer, mut pieces) = Writer::new(format);
            let (query_id, mut task) = shared.begin(engine, sql, Vec::new(), limits, writer).await?;
            let Some(first) = pieces.recv().await else {
                // The task has ended without a byte: it failed, or there is none.
                return match task.error().await {
                    Some(error) => Err(error),
                    None => Ok((query_id, futures::stream::empty().boxed())),
                };
            };
            let rest = rest_of(pieces, task);
            Ok((query_id, futures::stream::once(async { Ok(first) }).chain(rest).boxed()))
        })
    }

    /// Answers statements that have the same columns one after the other, as if they were one; each within `limits`.
    ///
    /// # Errors
    /// As [`Handle::query`], for the first; of the others it comes as the last item of the answer.
    pub fn query_all(&self, statements: Vec<String>, limits: Limits) -> BoxFuture<'static, Result<Answer, Error>> {
        let handle = self.clone();
        Box::pin(async move {
            let first = statements.first().ok_or(Error::Empty)?;
            let schema = handle.describe(first).await?.schema;
            let query_id = handle.shared.next_id.fetch_add(1, Ordering::Relaxed);
            let announced_schema = Arc::clone(&schema);
            let engine_error = move |error| Error::from_engine(error, limits.memory_bytes);
            let batches = futures::stream::iter(statements)
                .then(move |sql| handle.query(&sql, limits))
                .map_ok(|answer| answer.batches)
                .try_flatten()
                .map(move |batch| announced(&announced_schema, &batch?).map_err(engine_error))
                .boxed();
            Ok(Answer { query_id, schema, batches })
        })
    }

    /// What a statement would answer with, without answering it.
    ///
    /// The columns are all said to be nullable: whether one is depends on what is stored when the statement runs.
    pub(super) fn describe(&self, sql: &str) -> BoxFuture<'static, Result<Described, Error>> {
        let (engine, shared) = (Arc::clone(&self.engine), Arc::clone(&self.shared));
        let sql = sql.to_owned();
        Box::pin(async move {
            let _permit = shared.admit().await?;
            let limits = shared.options.limits;
            let mut task = Task(shared.runtime.get().spawn(async move { engine.describe(&sql, &limits).await }));
            (&mut task.0).await.unwrap_or(Err(Error::Vanished))
        })
    }

    /// Every table and view: name, and columns with their comments.
    pub(super) fn tables(&self) -> &[(&'static str, SchemaRef)] {
        &self.engine.tables
    }

    /// Runs a task on the room's threads; it ends with the returned guard.
    pub(super) fn spawn(&self, task: impl Future<Output = ()> + Send + 'static) -> EndOnDrop {
        EndOnDrop(self.shared.runtime.get().spawn(task).abort_handle())
    }
}

impl Shared {
    async fn query(
        &self,
        engine: Arc<Engine>,
        sql: String,
        values: Vec<ScalarValue>,
        limits: Limits,
    ) -> Result<Answer, Error> {
        let (schema_sender, schema) = oneshot::channel();
        let (batch_sender, batches) = mpsc::channel(ANSWER_QUEUE);
        let taker = Reader { schema_sender: Some(schema_sender), batch_sender };
        let (query_id, mut task) = self.begin(engine, sql, values, limits, taker).await?;
        let Ok(schema) = schema.await else {
            // Nothing was announced, so the task has ended, and knows why.
            return Err(task.error().await.unwrap_or(Error::Vanished));
        };
        Ok(Answer { query_id, schema, batches: rest_of(batches, task).boxed() })
    }

    /// Admits a statement and starts its task: its number, and the task.
    async fn begin(
        &self,
        engine: Arc<Engine>,
        sql: String,
        values: Vec<ScalarValue>,
        limits: Limits,
        mut taker: impl Taker + 'static,
    ) -> Result<(u64, Task<()>), Error> {
        let limits = limits.within(&self.options.limits);
        let permit = self.admit().await?;
        let query_id = self.next_id.fetch_add(1, Ordering::Relaxed);
        let task = async move {
            let mut record = Record::start(permit);
            let work = engine.run(&sql, values, &limits, &mut taker, &mut record.rows);
            let result = match tokio::time::timeout(limits.wall_time, work).await {
                Ok(result) => result,
                Err(_) => Err(Error::Time { limit: limits.wall_time }),
            };
            record.end(result.as_ref().err());
            result
        };
        let task = task.instrument(tracing::info_span!("query", query.id = query_id));
        Ok((query_id, Task(self.runtime.get().spawn(task))))
    }

    async fn admit(&self) -> Result<OwnedSemaphorePermit, Error> {
        if let Ok(permit) = Arc::clone(&self.running).try_acquire_owned() {
            return Ok(permit);
        }
        let busy = || {
            metrics::counter!("volant_query_refused_total").increment(1);
            Error::Busy { running: self.options.running, waiting: self.options.waiting }
        };
        let _waiting = Waiting::enter(&self.waiting, self.options.waiting).ok_or_else(busy)?;
        match tokio::time::timeout(self.options.queue_timeout, Arc::clone(&self.running).acquire_owned()).await {
            Ok(Ok(permit)) => Ok(permit),
            Ok(Err(_)) | Err(_) => Err(busy()),
        }
    }
}

/// What a task hands out, then why it failed, if it did.
fn rest_of<T: Send + 'static>(items: mpsc::Receiver<T>, task: Task<()>) -> impl Stream<Item = Result<T, Error>> + Send {
    let items = futures::stream::unfold(Some((items, task)), |state| async move {
        let (mut items, mut task) = state?;
        match items.recv().await {
            Some(item) => Some((Ok(item), Some((items, task)))),
            None => task.error().await.map(|error| (Err(error), None)),
        }
    });
    items.fuse()
}

/// Takes an answer where it is made. Each answers false when nobody wants more.
pub(super) trait Taker: Send {
    /// The columns, before any row.
    fn begin(&mut self, schema: &SchemaRef) -> Result<bool, Error>;
    /// Rows, at least one.
    fn take(&mut self, batch: RecordBatch) -> impl Future<Output = Result<bool, Error>> + Send;
    /// There are no more rows.
    fn end(&mut self) -> impl Future<Output = Result<bool, Error>> + Send;
}

/// Hands rows as they are to somebody else.
struct Reader {
    schema_sender: Option<oneshot::Sender<SchemaRef>>,
    batch_sender: mpsc::Sender<RecordBatch>,
}

impl Taker for Reader {
    fn begin(&mut self, schema: &SchemaRef) -> Result<bool, Error> {
        Ok(self.schema_sender.take().is_none_or(|sender| sender.send(Arc::clone(schema)).is_ok()))
    }

    async fn take(&mut self, batch: RecordBatch) -> Result<bool, Error> {
        Ok(self.batch_sender.send(batch).await.is_ok())
    }

    async fn end(&mut self) -> Result<bool, Error> {
        Ok(true)
    }
}

/// A place in the queue; given back when dropped, also when the caller goes away while it waits.
struct Waiting<'a>(&'a AtomicUsize);

impl<'a> Waiting<'a> {
    fn enter(waiting: &'a AtomicUsize, limit: usize) -> Option<Self> {
        let entered = waiting.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |n| (n < limit).then_some(n + 1));
        entered.is_ok().then(|| Self(waiting))
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

/// What a statement would answer with.
#[derive(Clone, Debug)]
pub(super) struct Described {
    /// The columns, all nullable.
    pub(super) schema: SchemaRef,
    /// The placeholders in the order of their numbers; one whose type nothing tells is of the type `Null`.
    pub(super) parameters: Vec<Field>,
}

/// The statement's task; dropping it ends the task at its next pause.
struct Task<T>(JoinHandle<Result<T, Error>>);

impl Task<()> {
    async fn error(&mut self) -> Option<Error> {
        match (&mut self.0).await {
            Ok(result) => result.err(),
            Err(_) => Some(Error::Vanished),
        }
    }
}

impl<T> Drop for Task<T> {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// Ends a task when dropped.
pub(super) struct EndOnDrop(AbortHandle);

impl Drop for EndOnDrop {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// What is written down of a statement, whether it ends well, badly or because nobody wants it any more.
struct Record {
    rows: u64,
    started: Instant,
    outcome: &'static str,
    _permit: OwnedSemaphorePermit,
}

impl Record {
    fn start(permit: OwnedSemaphorePermit) -> Self {
        metrics::gauge!("volant_query_running").increment(1);
        Self { rows: 0, started: Instant::now(), outcome: "cancelled", _permit: permit }
    }

    fn end(&mut self, error: Option<&Error>) {
        self.outcome = error.map_or("ok", Error::code);
    }
}

impl Drop for Record {
    fn drop(&mut self) {
        let duration = self.started.elapsed();
        metrics::gauge!("volant_query_running").decrement(1);
        metrics::counter!("volant_query_statements_total", "outcome" => self.outcome).increment(1);
        metrics::counter!("volant_query_rows_total").increment(self.rows);
        metrics::histogram!("volant_query_duration_seconds").record(duration.as_secs_f64());
        tracing::debug!(
            query.rows = self.rows,
            query.outcome = self.outcome,
            duration_ms = duration.as_millis() as u64,
            "statement ended: {}, {} rows",
            self.outcome,
            self.rows
        );
    }
}

/// The room's runtime. Its threads give way to the rest of the process.
struct Threads(Option<Runtime>);

impl Threads {
    fn start(workers: usize) -> std::io::Result<Self> {
        tokio::runtime::Builder::new_multi_thread()
            .thread_name("volant-query")
            .worker_threads(workers.max(1))
            // File reads of all statements together.
            .max_blocking_threads(workers.max(1) * 4)
            .on_thread_start(crate::threads::give_way)
            .enable_time()
            .enable_io()
            .build()
            .map(|runtime| Self(Some(runtime)))
    }

    fn get(&self) -> &Runtime {
        self.0.as_ref().expect("the runtime is taken only in drop")
    }
}

impl Drop for Threads {
    fn drop(&mut self) {
        // Waiting for statements is neither needed (they only read) nor allowed where this may be dropped.
        if let Some(runtime) = self.0.take() {
            runtime.shutdown_background();
        }
    }
}

/// The engine with its tables; statements share it and change nothing in it.
struct Engine {
    state: SessionState,
    tables: Vec<(&'static str, SchemaRef)>,
    #[cfg_attr(not(feature = "postgres"), expect(dead_code, reason = "an engine in another dialect is made of it"))]
    files: Files,
    source: Arc<dyn Source>,
    dialect: Dialect,
}

impl Engine {
    fn new(options: &Options, files: Files, source: Arc<dyn Source>) -> Result<Self, DataFusionError> {
        let mut config = SessionConfig::new()
            .with_default_catalog_and_schema(CATALOG, SCHEMA)
            // There is one, of the tables as others see them.
            .with_information_schema(false)
            .with_target_partitions(options.workers.max(1));
        let settings = config.options_mut();
        settings.sql_parser.collect_spans = true;
        let disk = DiskManagerBuilder::default().with_mode(DiskManagerMode::Disabled);
        let environment = RuntimeEnvBuilder::new()
            .with_disk_manager_builder(disk)
            .with_metadata_cache_limit(FOOTER_CACHE_BYTES)
            .build_arc()?;
        let files_at = ObjectStoreUrl::parse(FILES)?;
        environment.register_object_store(files_at.as_ref(), Arc::new(files.clone()));
        let state = SessionStateBuilder::new()
            .with_config(config)
            .with_runtime_env(environment)
            .with_default_features()
            .with_optimizer_rule(Arc::new(RangeJoin))
            .with_optimizer_rule(Arc::new(ByRowGroups))
            .with_physical_optimizer_rule(Arc::new(ByRuns))
            .with_physical_optimizer_rule(Arc::new(Yields))
            .build();

        let mut context = SessionContext::new_with_state(state);
        functions::register(&mut context)?;
        let stored =
            |what| -> Arc<dyn TableProvider> { Arc::new(StoredTable::new(what, files.clone(), files_at.clone())) };
        let listed = |what| -> Arc<dyn TableProvider> { Arc::new(ListedTable(what)) };
        let mut schemas = Vec::new();
        let described = MemorySchemaProvider::new();
        let register = |schemas: &mut Vec<_>, name: &'static str, table: Arc<dyn TableProvider>| {
            let outside = text::Described::new(Arc::clone(&table));
            schemas.push((name, Arc::clone(&outside.schema)));
            described.register_table(name.to_owned(), Arc::new(outside))?;
            context.register_table(name, table)
        };
        for (name, table) in [
            ("frames", stored(Stored::Frames)),
            ("strokes", stored(Stored::Strokes)),
            ("results", stored(Stored::Results)),
            ("sessions", listed(Listed::Sessions)),
            ("devices", listed(Listed::Devices)),
            ("players", listed(Listed::Players)),
            ("notifications", listed(Listed::Notifications)),
            ("labels", listed(Listed::Labels)),
        ] {
            register(&mut schemas, name, table)?;
        }
        for view in VIEWS {
            register(&mut schemas, view.name, Arc::new(view.plan(&context.state())?))?;
        }
        let dictionary = tables::dictionary_batch(&schemas)?;
        let dictionary = text::retyped(&dictionary, &text::inside(&dictionary.schema()))?;
        let dictionary = MemTable::try_new(dictionary.schema(), vec![vec![dictionary]])?;
        register(&mut schemas, "data_dictionary", Arc::new(dictionary))?;
        add_information_schema(&context, Arc::new(described))?;
        Ok(Self { state: context.state(), tables: schemas, files, source, dialect: Dialect::Generic })
    }

    /// An engine of its own: what PostgreSQL's clients look for is nothing that others want to see.
    #[cfg(feature = "postgres")]
    fn in_postgres_dialect(&self, options: &Options) -> Result<Self, DataFusionError> {
        let engine = Self::new(options, self.files.clone(), Arc::clone(&self.source))?;
        let context = SessionContext::new_with_state(engine.state.clone());
        super::postgres::add_catalog(&context)?;
        Ok(Self { state: context.state(), dialect: Dialect::PostgreSQL, ..engine })
    }

    /// The state for one statement, with a snapshot of its own. Copied, not built: building one names every function anew.
    fn state_for_one(&self, as_found: bool) -> SessionState {
        let mut state = self.state.clone();
        state.config_mut().set_extension(Arc::new(Scope::new(Arc::clone(&self.source), as_found)));
        state.mark_start_execution();
        state
    }

    /// What one statement runs with: its own memory limit; the footer cache is common.
    fn context_for_one(&self, state: &SessionState, limits: &Limits) -> Result<Arc<TaskContext>, DataFusionError> {
        let environment = RuntimeEnvBuilder::from_runtime_env(self.state.runtime_env())
            .with_memory_pool(Arc::new(GreedyMemoryPool::new(limits.memory_bytes)))
            .build_arc()?;
        Ok(Arc::new(TaskContext::from(state).with_runtime(environment)))
    }

    /// The statement as a plan that only reads, and the state to go on with.
    async fn plan(&self, sql: &str, limits: &Limits, as_found: bool) -> Result<(SessionState, LogicalPlan), Error> {
        let mut statement = statement::parse(sql, self.dialect)?;
        let described = statement::described(&statement);
        if let Some((table, _)) = self.tables.iter().find(|(name, _)| described.as_deref() == Some(name)) {
            statement = statement::parse(&tables::description(table), self.dialect)?;
        }
        let state = self.state_for_one(as_found);
        let suggesting = |error| {
            let tables: Vec<&str> = self.tables.iter().map(|(name, _)| *name).collect();
            let functions: Vec<&str> = functions::names().collect();
            Error::from_engine(error, limits.memory_bytes).suggesting(&tables, &functions)
        };
        let plan = state.statement_to_plan(statement).await.map_err(suggesting)?;
        statement::check_plan(&plan)?;
        Ok((state, plan))
    }

    async fn describe(&self, sql: &str, limits: &Limits) -> Result<Described, Error> {
        let engine_error = |error| Error::from_engine(error, limits.memory_bytes);
        let (state, plan) = self.plan(sql, limits, false).await?;
        let parameters = parameters::of(&plan).map_err(engine_error)?;
        // The types after coercion are those of the answer; with placeholders left there is no answer to plan.
        let plan = if parameters.is_empty() { state.optimize(&plan).map_err(engine_error)? } else { plan };
        let schema = plan.schema().as_arrow();
        let fields = schema.fields().iter().map(|field| field.as_ref().clone().with_nullable(true));
        let schema = Schema::new_with_metadata(fields.collect::<Vec<_>>(), schema.metadata().clone());
        let parameters = text::outside(&Schema::new(parameters));
        let parameters = parameters.fields().iter().map(|field| Field::clone(field)).collect();
        Ok(Described { schema: text::outside(&schema), parameters })
    }

    /// Plans a statement and makes its first batch: most failures are then told instead of an answer, not in the middle of
    /// one.
    async fn begin(
        &self,
        sql: &str,
        values: &[ScalarValue],
        limits: &Limits,
        as_found: bool,
    ) -> Result<(SchemaRef, SendableRecordBatchStream, Option<RecordBatch>), Error> {
        let engine_error = |error| Error::from_engine(error, limits.memory_bytes);
        let (mut state, mut plan) = self.plan(sql, limits, as_found).await?;
        if !values.is_empty() {
            plan = plan.with_param_values(values.to_vec()).map_err(engine_error)?;
        }
        let plan = state.optimize(&plan).map_err(engine_error)?;
        let reads = size::reads(&plan, &state).await.map_err(engine_error)?;
        let settings = state.config_mut().options_mut();
        if reads.little {
            settings.execution.target_partitions = 1;
        }
        if reads.little || !reads.large_pieces {
            // To make a filter of what a join, an aggregate or a LIMIT has seen, and to prune by it, takes longer than the rows.
            settings.optimizer.enable_join_dynamic_filter_pushdown = false;
            settings.optimizer.enable_aggregate_dynamic_filter_pushdown = false;
            settings.optimizer.enable_topk_dynamic_filter_pushdown = false;
        }
        let plan = state.query_planner().create_physical_plan(&plan, &state).await.map_err(engine_error)?;
        let schema = text::outside(&plan.schema());
        let context = self.context_for_one(&state, limits).map_err(engine_error)?;
        let mut batches: SendableRecordBatchStream = execute_stream(plan, context).map_err(engine_error)?;
        let first = batches.next().await.transpose().map_err(engine_error)?;
        Ok((schema, batches, first))
    }

    async fn run(
        &self,
        sql: &str,
        values: Vec<ScalarValue>,
        limits: &Limits,
        taker: &mut impl Taker,
        rows: &mut u64,
    ) -> Result<(), Error> {
        let engine_error = |error| Error::from_engine(error, limits.memory_bytes);
        let mut attempt = 1;
        let (schema, mut batches, mut next) = loop {
            match self.begin(sql, &values, limits, attempt > 1).await {
                // The file of a session takes its new revision's bytes a moment before the catalog says so (or, after a
                // crash between the two, the second or so until it is sealed again).
                Err(Error::Stored { source }) if attempt < ATTEMPTS_LIMIT => {
                    metrics::counter!("volant_query_repeated_reads_total").increment(1);
                    tracing::debug!("stored data changed under a statement, which begins again: {source}");
                    attempt += 1;
                    tokio::time::sleep(REPEAT_AFTER).await;
                }
                begun => break begun?,
            }
        };
        if !taker.begin(&schema)? {
            return Ok(());
        }
        while let Some(batch) = next {
            let room = limits.rows.saturating_sub(*rows);
            let full = batch.num_rows() as u64 > room;
            let batch = if full { batch.slice(0, room as usize) } else { batch };
            *rows += batch.num_rows() as u64;
            if batch.num_rows() > 0 {
                let batch = announced(&schema, &batch).map_err(engine_error)?;
                if !taker.take(batch).await? {
                    return Ok(());
                }
            }
            if full {
                return Err(Error::Rows { limit: limits.rows });
            }
            next = batches.next().await.transpose().map_err(engine_error)?;
        }
        taker.end().await.map(drop)
    }
}

/// Adds the catalog in which clients look for tables and columns, with these descriptions of the tables.
fn add_information_schema(
    context: &SessionContext,
    described: Arc<MemorySchemaProvider>,
) -> Result<(), DataFusionError> {
    let outside = MemoryCatalogProvider::new();
    outside.register_schema(SCHEMA, described)?;
    let list = MemoryCatalogProviderList::new();
    list.register_catalog(CATALOG.to_owned(), Arc::new(outside));
    let functions = context.state().table_functions().clone();
    let information = InformationSchemaProvider::new(Arc::new(list)).with_table_functions(functions);
    let catalog = context.catalog(CATALOG).ok_or_else(|| internal_datafusion_err!("no catalog {CATALOG}"))?;
    catalog.register_schema(INFORMATION_SCHEMA, Arc::new(information))?;
    Ok(())
}

/// The batch under the announced schema: the engine may disagree with itself about nullability and comments, and strict
/// readers of the Arrow stream refuse that.
fn announced(schema: &SchemaRef, batch: &RecordBatch) -> Result<RecordBatch, DataFusionError> {
    Ok(text::retyped(batch, schema)?)
}
