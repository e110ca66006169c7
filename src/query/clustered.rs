//! Groups of rows that lie together.
//!
//! A row group of `frames` has one session, one day and one sensor, so thousands of rows in a row belong to one group. The engine
//! looks up the group of each row; [`ByRuns`] puts an operator in its place that looks up the group of a run of rows, and gives
//! each aggregate the run as a whole, which its fast kernels take. Rows that lie mixed, as live ones do, are sorted batch by
//! batch first.
//!
//! It is the first half of an aggregation, before the groups of all threads meet; the second is the engine's. The answer is
//! the same, but for the order in which floating-point numbers are added.

use std::collections::HashMap;
use std::fmt;
use std::ops::Range;
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, RecordBatch};
use arrow::compute::{SortColumn, lexsort_to_indices, partition, take_arrays};
use arrow::datatypes::{DataType, Date32Type, Int64Type, SchemaRef};
use datafusion::common::config::ConfigOptions;
use datafusion::common::tree_node::{Transformed, TransformedResult as _, TreeNode as _, TreeNodeRecursion};
use datafusion::common::{DataFusionError, Result, ScalarValue};
use datafusion::datasource::physical_plan::{FileGroup, FileScanConfig};
use datafusion::datasource::source::DataSourceExec;
use datafusion::execution::memory_pool::{MemoryConsumer, MemoryReservation};
use datafusion::execution::{SendableRecordBatchStream, TaskContext};
use datafusion::logical_expr::Accumulator;
use datafusion::physical_expr::PhysicalExpr;
use datafusion::physical_expr::expressions::Column;
use datafusion::physical_optimizer::PhysicalOptimizerRule;
use datafusion::physical_plan::aggregates::{
    AggregateExec, AggregateMode, aggregate_expressions, create_accumulators, evaluate_many,
};
use datafusion::physical_plan::filter::FilterExec;
use datafusion::physical_plan::metrics::{BaselineMetrics, ExecutionPlanMetricsSet, MetricsSet, RecordOutput as _};
use datafusion::physical_plan::projection::ProjectionExec;
use datafusion::physical_plan::stream::RecordBatchStreamAdapter;
use datafusion::physical_plan::union::UnionExec;
use datafusion::physical_plan::{
    ChildrenPropertiesMode, DisplayAs, DisplayFormatType, ExecutionPlan, InputOrderMode, PlanProperties,
    ReplaceChildrenOptions,
};
use futures::{StreamExt as _, TryStreamExt as _};

use super::row_groups::is_key;

/// Aggregates whose state is a number or a few, whatever the rows.
const SMALL: [&str; 10] = ["avg", "count", "max", "min", "stddev", "stddev_pop", "sum", "var", "var_pop", "var_samp"];
/// Shorter runs than so many rows, on average, are made longer by sorting.
const RUN_ROWS: usize = 16;

/// Puts [`Clustered`] in place of the engine's operator where rows come from files of `frames`.
#[derive(Debug)]
pub(super) struct ByRuns;

impl PhysicalOptimizerRule for ByRuns {
    fn name(&self) -> &'static str {
        "aggregate_by_runs"
    }

    fn schema_check(&self) -> bool {
        true
    }

    fn optimize(&self, plan: Arc<dyn ExecutionPlan>, _: &ConfigOptions) -> Result<Arc<dyn ExecutionPlan>> {
        plan.transform_down(|node| {
            Ok(match node.downcast_ref::<AggregateExec>().filter(|aggregate| is_clustered(aggregate)) {
                Some(aggregate) => Transformed::yes(Arc::new(Clustered::new(Arc::new(aggregate.clone())))),
                None => Transformed::no(node),
            })
        })
        .data()
    }
}

fn is_clustered(aggregate: &AggregateExec) -> bool {
    let groups = aggregate.group_expr();
    let is_key_column =
        |expr: &Arc<dyn PhysicalExpr>| expr.downcast_ref::<Column>().is_some_and(|column| is_key(column.name()));
    *aggregate.mode() == AggregateMode::Partial
        && *aggregate.input_order_mode() == InputOrderMode::Linear
        && aggregate.limit_options().is_none()
        && groups.is_single()
        && !groups.is_empty()
        && groups.expr().iter().all(|(expr, _)| is_key_column(expr))
        && aggregate.filter_expr().iter().all(Option::is_none)
        && aggregate.aggr_expr().iter().all(|function| {
            SMALL.contains(&function.fun().name())
                && !function.is_distinct()
                && !function.ignore_nulls()
                && function.order_bys().is_empty()
        })
        && reads_frames(aggregate.input())
}

/// True if rows come from files of `frames`, in the order in which they lie there.
fn reads_frames(plan: &Arc<dyn ExecutionPlan>) -> bool {
    if let Some(source) = plan.downcast_ref::<DataSourceExec>() {
        let files = (source.data_source().as_ref() as &dyn std::any::Any).downcast_ref::<FileScanConfig>();
        let mut files = files.into_iter().flat_map(|scan| &scan.file_groups).flat_map(FileGroup::iter);
        return files.next().is_some_and(|file| file.object_meta.location.as_ref().starts_with("frames/"));
    }
    let keeps_order = plan.is::<FilterExec>() || plan.is::<ProjectionExec>() || plan.is::<UnionExec>();
    keeps_order && plan.children().into_iter().any(reads_frames)
}

/// The first half of an aggregation, by runs of rows of the same group.
#[derive(Debug)]
struct Clustered {
    /// The operator that it stands for.
    aggregate: Arc<AggregateExec>,
    metrics: ExecutionPlanMetricsSet,
}

impl Clustered {
    fn new(aggregate: Arc<AggregateExec>) -> Self {
        Self { aggregate, metrics: ExecutionPlanMetricsSet::new() }
    }
}

impl DisplayAs for Clustered {
    fn fmt_as(&self, t: DisplayFormatType, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if !matches!(t, DisplayFormatType::TreeRender) {
            write!(f, "ByRuns: ")?;
        }
        self.aggregate.fmt_as(t, f)
    }
}

impl ExecutionPlan for Clustered {
    fn name(&self) -> &'static str {
        "ClusteredAggregateExec"
    }

    fn properties(&self) -> &Arc<PlanProperties> {
        self.aggregate.properties()
    }

    fn children(&self) -> Vec<&Arc<dyn ExecutionPlan>> {
        self.aggregate.children()
    }

    fn replace_children(
        self: Arc<Self>,
        children: Vec<Arc<dyn ExecutionPlan>>,
        options: ReplaceChildrenOptions,
    ) -> Result<Arc<dyn ExecutionPlan>> {
        let replaced = Arc::clone(&self.aggregate).replace_children(children, options)?;
        Ok(match replaced.downcast_ref::<AggregateExec>() {
            Some(aggregate) => Arc::new(Self::new(Arc::new(aggregate.clone()))),
            None => replaced,
        })
    }

    fn with_new_children(self: Arc<Self>, children: Vec<Arc<dyn ExecutionPlan>>) -> Result<Arc<dyn ExecutionPlan>> {
        self.replace_children(children, ReplaceChildrenOptions::new(ChildrenPropertiesMode::Recompute))
    }

    fn apply_expressions(
        &self,
        f: &mut dyn FnMut(&Arc<dyn PhysicalExpr>) -> Result<TreeNodeRecursion>,
    ) -> Result<TreeNodeRecursion> {
        self.aggregate.apply_expressions(f)
    }

    fn execute(&self, partition: usize, context: Arc<TaskContext>) -> Result<SendableRecordBatchStream> {
        let input = self.aggregate.input().execute(partition, Arc::clone(&context))?;
        let reservation = MemoryConsumer::new("ClusteredAggregate").register(context.memory_pool());
        let mut groups = Groups::of(&self.aggregate, reservation)?;
        let metrics = BaselineMetrics::new(&self.metrics, partition);
        let batch_rows = context.session_config().batch_size();
        let made = async move {
            let mut input = input;
            while let Some(batch) = input.next().await {
                let _timer = metrics.elapsed_compute().timer();
                groups.take(&batch?)?;
            }
            let batch = groups.finish()?.record_output(&metrics);
            let rows = batch.num_rows();
            let pieces = (0..rows).step_by(batch_rows.max(1));
            let pieces: Vec<_> = pieces.map(|from| Ok(batch.slice(from, batch_rows.min(rows - from)))).collect();
            Ok::<_, DataFusionError>(futures::stream::iter(pieces))
        };
        let batches = futures::stream::once(made).try_flatten();
        Ok(Box::pin(RecordBatchStreamAdapter::new(self.schema(), batches)))
    }

    fn metrics(&self) -> Option<MetricsSet> {
        Some(self.metrics.clone_inner())
    }
}

/// The groups that were met, each with an accumulator an aggregate.
struct Groups {
    aggregate: Arc<AggregateExec>,
    keys: Vec<Arc<dyn PhysicalExpr>>,
    arguments: Vec<Vec<Arc<dyn PhysicalExpr>>>,
    places: HashMap<Vec<ScalarValue>, usize>,
    accumulators: Vec<Vec<Box<dyn Accumulator>>>,
    schema: SchemaRef,
    reservation: MemoryReservation,
}

impl Groups {
    fn of(aggregate: &Arc<AggregateExec>, reservation: MemoryReservation) -> Result<Self> {
        let keys = aggregate.group_expr().input_exprs();
        Ok(Self {
            arguments: aggregate_expressions(aggregate.aggr_expr(), aggregate.mode(), keys.len())?,
            keys,
            places: HashMap::new(),
            accumulators: Vec::new(),
            schema: aggregate.schema(),
            aggregate: Arc::clone(aggregate),
            reservation,
        })
    }

    fn take(&mut self, batch: &RecordBatch) -> Result<()> {
        let rows = batch.num_rows();
        if rows == 0 {
            return Ok(());
        }
        let evaluated = self.keys.iter().map(|key| key.evaluate(batch)?.into_array(rows));
        let mut keys = evaluated.collect::<Result<Vec<_>>>()?;
        let mut arguments = evaluate_many(&self.arguments, batch)?;
        let mut runs = runs(&keys)?;
        if runs.len() > 1 && runs.len() > rows / RUN_ROWS {
            let columns: Vec<SortColumn> =
                keys.iter().map(|key| SortColumn { values: Arc::clone(key), options: None }).collect();
            let order = lexsort_to_indices(&columns, None)?;
            keys = take_arrays(&keys, &order, None)?;
            for argument in &mut arguments {
                *argument = take_arrays(argument, &order, None)?;
            }
            runs = self::runs(&keys)?;
        }
        for run in runs {
            let key = keys.iter().map(|column| ScalarValue::try_from_array(column, run.start));
            let place = self.place(key.collect::<Result<Vec<_>>>()?)?;
            for (accumulator, argument) in self.accumulators[place].iter_mut().zip(&arguments) {
                let values: Vec<ArrayRef> = argument.iter().map(|values| values.slice(run.start, run.len())).collect();
                accumulator.update_batch(&values)?;
            }
        }
        Ok(())
    }

    /// Where the accumulators of a group are; made at the first time.
    fn place(&mut self, key: Vec<ScalarValue>) -> Result<usize> {
        if let Some(&place) = self.places.get(&key) {
            return Ok(place);
        }
        let accumulators = create_accumulators(self.aggregate.aggr_expr())?;
        let bytes = accumulators.iter().map(|accumulator| accumulator.size()).sum::<usize>()
            + 2 * key.iter().map(ScalarValue::size).sum::<usize>();
        self.reservation.try_grow(bytes)?;
        self.accumulators.push(accumulators);
        self.places.insert(key, self.accumulators.len() - 1);
        Ok(self.accumulators.len() - 1)
    }

    /// A row a group: what it is of, and the states of its aggregates.
    fn finish(self) -> Result<RecordBatch> {
        if self.accumulators.is_empty() {
            return Ok(RecordBatch::new_empty(self.schema));
        }
        let mut rows: Vec<Vec<ScalarValue>> = vec![Vec::new(); self.accumulators.len()];
        for (key, place) in self.places {
            rows[place] = key;
        }
        for (row, accumulators) in rows.iter_mut().zip(self.accumulators) {
            for mut accumulator in accumulators {
                row.extend(accumulator.state()?);
            }
        }
        let column = |at: usize| ScalarValue::iter_to_array(rows.iter().map(|row| row[at].clone()));
        let columns = (0..self.schema.fields().len()).map(column).collect::<Result<Vec<_>>>()?;
        Ok(RecordBatch::try_new(self.schema, columns)?)
    }
}

/// Rows with the same keys that follow each other.
fn runs(keys: &[ArrayRef]) -> Result<Vec<Range<usize>>> {
    let rows = keys.first().map_or(0, Array::len);
    if keys.iter().all(is_constant) {
        return Ok(std::iter::once(0..rows).collect());
    }
    Ok(partition(keys)?.ranges())
}

/// True if all values are the same, as far as that is seen at a glance.
fn is_constant(values: &ArrayRef) -> bool {
    /// Longer texts are not in their view.
    const INLINED: u32 = 12;
    fn all_same<T: Copy + Eq>(values: &[T]) -> bool {
        // Counted to the end: so the machine compares many at once.
        values.first().is_some_and(|first| values.iter().filter(|value| *value != first).count() == 0)
    }
    if values.null_count() > 0 {
        return false;
    }
    match values.data_type() {
        DataType::Utf8View => {
            let views = values.as_string_view().views();
            views.first().is_some_and(|&first| first as u32 <= INLINED) && all_same(views)
        }
        DataType::Int64 => all_same(values.as_primitive::<Int64Type>().values()),
        DataType::Date32 => all_same(values.as_primitive::<Date32Type>().values()),
        _ => false,
    }
}
