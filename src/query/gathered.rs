//! Batches that are worth handling.
//!
//! `strokes` and `results` have a row group a session, of some two hundred rows or of one, and the Parquet reader gives each as a
//! batch of its own. What an operator does for a batch takes longer than what it does for so few rows; [`Gathers`] puts an
//! operator right above the reader that makes large batches of small ones.

use std::fmt;
use std::sync::Arc;

use arrow::compute::BatchCoalescer;
use datafusion::common::config::ConfigOptions;
use datafusion::common::tree_node::{Transformed, TransformedResult as _, TreeNode as _, TreeNodeRecursion};
use datafusion::common::{Result, Statistics};
use datafusion::datasource::physical_plan::parquet::ParquetAccessPlan;
use datafusion::datasource::physical_plan::{FileGroup, FileScanConfig};
use datafusion::datasource::source::DataSourceExec;
use datafusion::execution::{SendableRecordBatchStream, TaskContext};
use datafusion::physical_expr::PhysicalExpr;
use datafusion::physical_optimizer::PhysicalOptimizerRule;
use datafusion::physical_plan::statistics::{ChildStats, StatisticsArgs};
use datafusion::physical_plan::stream::RecordBatchStreamAdapter;
use datafusion::physical_plan::{
    ChildrenPropertiesMode, DisplayAs, DisplayFormatType, ExecutionPlan, PlanProperties, ReplaceChildrenOptions,
};
use futures::StreamExt as _;

/// Puts [`Gathered`] above scans of many small row groups.
#[derive(Debug)]
pub(super) struct Gathers;

impl PhysicalOptimizerRule for Gathers {
    fn name(&self) -> &'static str {
        "gather_small_batches"
    }

    fn schema_check(&self) -> bool {
        true
    }

    fn optimize(&self, plan: Arc<dyn ExecutionPlan>, _: &ConfigOptions) -> Result<Arc<dyn ExecutionPlan>> {
        plan.transform_up(|node| {
            Ok(if reads_small_row_groups(&node) {
                Transformed::yes(Arc::new(Gathered { input: node }))
            } else {
                Transformed::no(node)
            })
        })
        .data()
    }
}

/// True for scans of files, other than those of `frames`, of more than one session.
fn reads_small_row_groups(plan: &Arc<dyn ExecutionPlan>) -> bool {
    let Some(source) = plan.downcast_ref::<DataSourceExec>() else { return false };
    let scan = (source.data_source().as_ref() as &dyn std::any::Any).downcast_ref::<FileScanConfig>();
    let files = || scan.into_iter().flat_map(|scan| &scan.file_groups).flat_map(FileGroup::iter);
    // What has extensions is a pack, of which row groups are chosen.
    let many = files().nth(1).is_some() || files().any(|file| file.extensions.get::<ParquetAccessPlan>().is_some());
    many && files().all(|file| !file.object_meta.location.as_ref().starts_with("frames/"))
}

/// The same rows in the same order, in batches of the usual size.
#[derive(Debug)]
struct Gathered {
    input: Arc<dyn ExecutionPlan>,
}

impl DisplayAs for Gathered {
    fn fmt_as(&self, t: DisplayFormatType, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if matches!(t, DisplayFormatType::TreeRender) { Ok(()) } else { write!(f, "GatheredExec") }
    }
}

impl ExecutionPlan for Gathered {
    fn name(&self) -> &'static str {
        "GatheredExec"
    }

    fn properties(&self) -> &Arc<PlanProperties> {
        self.input.properties()
    }

    fn children(&self) -> Vec<&Arc<dyn ExecutionPlan>> {
        vec![&self.input]
    }

    fn maintains_input_order(&self) -> Vec<bool> {
        vec![true]
    }

    fn replace_children(
        self: Arc<Self>,
        children: Vec<Arc<dyn ExecutionPlan>>,
        _: ReplaceChildrenOptions,
    ) -> Result<Arc<dyn ExecutionPlan>> {
        Ok(match children.into_iter().next() {
            Some(input) => Arc::new(Self { input }),
            None => self,
        })
    }

    fn with_new_children(self: Arc<Self>, children: Vec<Arc<dyn ExecutionPlan>>) -> Result<Arc<dyn ExecutionPlan>> {
        self.replace_children(children, ReplaceChildrenOptions::new(ChildrenPropertiesMode::Recompute))
    }

    fn apply_expressions(
        &self,
        _: &mut dyn FnMut(&Arc<dyn PhysicalExpr>) -> Result<TreeNodeRecursion>,
    ) -> Result<TreeNodeRecursion> {
        Ok(TreeNodeRecursion::Continue)
    }

    fn execute(&self, partition: usize, context: Arc<TaskContext>) -> Result<SendableRecordBatchStream> {
        let coalescer = BatchCoalescer::new(self.schema(), context.session_config().batch_size());
        let input = self.input.execute(partition, context)?;
        let batches = futures::stream::try_unfold((input, Some(coalescer)), async |(mut input, coalescer)| {
            let Some(mut coalescer) = coalescer else { return Ok(None) };
            while !coalescer.has_completed_batch() {
                match input.next().await {
                    Some(batch) => coalescer.push_batch(batch?)?,
                    None => {
                        coalescer.finish_buffered_batch()?;
                        return Ok(coalescer.next_completed_batch().map(|last| (last, (input, None))));
                    }
                }
            }
            Ok(coalescer.next_completed_batch().map(|batch| (batch, (input, Some(coalescer)))))
        });
        Ok(Box::pin(RecordBatchStreamAdapter::new(self.schema(), batches)))
    }

    fn child_stats_requests(&self, partition: Option<usize>) -> Vec<ChildStats> {
        vec![ChildStats::At(partition)]
    }

    fn statistics_from_inputs(&self, of: &[Arc<Statistics>], _: &StatisticsArgs) -> Result<Arc<Statistics>> {
        Ok(Arc::clone(&of[0]))
    }
}
