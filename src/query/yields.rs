//! Joins that can be given up.
//!
//! A task ends where it pauses. The engine pauses for its sources; a join makes any number of rows of one batch of a source, and
//! whoever takes them goes on as long as there are more. [`Yields`] lets the task pause between batches of a join, now and
//! then, so that a statement that nobody wants any more ends soon.

use std::sync::Arc;

use datafusion::common::Result;
use datafusion::common::config::ConfigOptions;
use datafusion::common::tree_node::{Transformed, TransformedResult as _, TreeNode as _};
use datafusion::physical_optimizer::PhysicalOptimizerRule;
use datafusion::physical_plan::ExecutionPlan;
use datafusion::physical_plan::coop::CooperativeExec;
use datafusion::physical_plan::joins::{CrossJoinExec, HashJoinExec, NestedLoopJoinExec, SortMergeJoinExec};

/// Puts a place to pause above every join.
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
            Ok(if is_join { Transformed::yes(Arc::new(CooperativeExec::new(node))) } else { Transformed::no(node) })
        })
        .data()
    }
}
