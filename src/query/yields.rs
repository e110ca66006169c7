//! Joins that can be given up.
//!
//! A task ends where it pauses. The engine pauses for its sources; a join makes any number of rows of one batch of a source, and
//! whoever takes them goes on as long as there are more. [`Yields`] lets the task pause between batches of a join, now and
//! then, so that a statement that nobody wants any more ends soon.
//!
//! A join of every row with every row may work for minutes on one batch and find nothing: its rows are handed to it in
//! [`Portions`], with a pause before each.

use std::fmt;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::{Duration, Instant};

use arrow::array::RecordBatch;
use arrow::datatypes::SchemaRef;
use datafusion::common::Result;
use datafusion::common::config::ConfigOptions;
use datafusion::common::tree_node::{Transformed, TransformedResult as _, TreeNode as _, TreeNodeRecursion};
use datafusion::execution::{SendableRecordBatchStream, TaskContext};
use datafusion::physical_expr::PhysicalExpr;
use datafusion::physical_optimizer::PhysicalOptimizerRule;
use datafusion::physical_plan::coop::CooperativeExec;
use datafusion::physical_plan::execution_plan::{ChildrenPropertiesMode, ReplaceChildrenOptions};
use datafusion::physical_plan::joins::{CrossJoinExec, HashJoinExec, NestedLoopJoinExec, SortMergeJoinExec};
use datafusion::physical_plan::{DisplayAs, DisplayFormatType, ExecutionPlan, PlanProperties, RecordBatchStream};
use futures::{Stream, StreamExt as _};

/// Puts a place to pause above every join, and portions below those of every row with every row.
#[derive(Debug)]
pub(super) struct Yields;

impl PhysicalOptimizerRule for Yields {
    fn name(&self) -> &'static str {
        "joins_yield"
    }

    fn schema_check(&self) -> bool {
        true
    }

    fn optimize(&self, plan: Arc<dyn ExecutionPlan>, _: &ConfigOptions) -> Result<Arc<dyn ExecutionPlan>> {
        plan.transform_up(|node| {
            let is_join = node.is::<HashJoinExec>()
                || node.is::<CrossJoinExec>()
                || node.is::<NestedLoopJoinExec>()
                || node.is::<SortMergeJoinExec>();
            if !is_join {
                return Ok(Transformed::no(node));
            }
            let node = if node.is::<NestedLoopJoinExec>() { in_portions(node)? } else { node };
            Ok(Transformed::yes(Arc::new(CooperativeExec::new(node))))
        })
        .data()
    }
}

/// A join that goes over all of its first input for each batch of its second, which comes in portions.
fn in_portions(join: Arc<dyn ExecutionPlan>) -> Result<Arc<dyn ExecutionPlan>> {
    let mut inputs: Vec<_> = join.children().into_iter().map(Arc::clone).collect();
    if let Some(second) = inputs.last_mut() {
        *second = Arc::new(Portions { input: Arc::clone(second) });
    }
    join.replace_children(inputs, ReplaceChildrenOptions::new(ChildrenPropertiesMode::Keep))
}

/// The same rows in the same order in batches of as many rows as keep whoever takes them busy for some milliseconds.
#[derive(Debug)]
struct Portions {
    input: Arc<dyn ExecutionPlan>,
}

impl DisplayAs for Portions {
    fn fmt_as(&self, _: DisplayFormatType, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("PortionsExec")
    }
}

impl ExecutionPlan for Portions {
    fn name(&self) -> &'static str {
        "PortionsExec"
    }

    fn properties(&self) -> &Arc<PlanProperties> {
        self.input.properties()
    }

    fn maintains_input_order(&self) -> Vec<bool> {
        vec![true]
    }

    fn children(&self) -> Vec<&Arc<dyn ExecutionPlan>> {
        vec![&self.input]
    }

    fn apply_expressions(
        &self,
        _: &mut dyn FnMut(&Arc<dyn PhysicalExpr>) -> Result<TreeNodeRecursion>,
    ) -> Result<TreeNodeRecursion> {
        Ok(TreeNodeRecursion::Continue)
    }

    fn replace_children(
        self: Arc<Self>,
        mut children: Vec<Arc<dyn ExecutionPlan>>,
        _: ReplaceChildrenOptions,
    ) -> Result<Arc<dyn ExecutionPlan>> {
        Ok(Arc::new(Self { input: children.swap_remove(0) }))
    }

    fn with_new_children(self: Arc<Self>, children: Vec<Arc<dyn ExecutionPlan>>) -> Result<Arc<dyn ExecutionPlan>> {
        self.replace_children(children, ReplaceChildrenOptions::new(ChildrenPropertiesMode::Recompute))
    }

    fn execute(&self, partition: usize, context: Arc<TaskContext>) -> Result<SendableRecordBatchStream> {
        Ok(Box::pin(PortionStream {
            input: self.input.execute(partition, context)?,
            rest: None,
            rows: PORTION_ROWS_FIRST,
            handed: None,
            paused: false,
        }))
    }
}

const PORTION_ROWS_FIRST: usize = 64;
const PORTION_ROWS_MAX: usize = 8192;
/// Portions that took less to work on are doubled, those that took more are halved.
const BRIEF: Duration = Duration::from_millis(5);
const LONG: Duration = Duration::from_millis(50);

struct PortionStream {
    input: SendableRecordBatchStream,
    /// What is left of a batch.
    rest: Option<RecordBatch>,
    /// Rows of the next portion.
    rows: usize,
    /// When the last portion was handed out.
    handed: Option<Instant>,
    /// The task has paused before the next portion.
    paused: bool,
}

impl Stream for PortionStream {
    type Item = Result<RecordBatch>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        if let Some(handed) = self.handed.take() {
            let took = handed.elapsed();
            if took < BRIEF {
                self.rows = (2 * self.rows).min(PORTION_ROWS_MAX);
            } else if took > LONG {
                self.rows = (self.rows / 2).max(1);
            }
        }
        let batch = match self.rest.take() {
            Some(batch) => batch,
            None => match ready!(self.input.poll_next_unpin(context)) {
                Some(Ok(batch)) => batch,
                end => return Poll::Ready(end),
            },
        };
        if !std::mem::replace(&mut self.paused, true) {
            self.rest = Some(batch);
            context.waker().wake_by_ref();
            return Poll::Pending;
        }
        self.paused = false;
        let rows = self.rows.min(batch.num_rows());
        if rows < batch.num_rows() {
            self.rest = Some(batch.slice(rows, batch.num_rows() - rows));
        }
        self.handed = Some(Instant::now());
        Poll::Ready(Some(Ok(batch.slice(0, rows))))
    }
}

impl RecordBatchStream for PortionStream {
    fn schema(&self) -> SchemaRef {
        self.input.schema()
    }
}
