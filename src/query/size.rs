//! How much a plan reads, as far as it matters for how many threads answer it.

use std::any::Any;

use datafusion::catalog::default_table_source::source_as_provider;
use datafusion::common::Result;
use datafusion::common::tree_node::TreeNodeRecursion;
use datafusion::execution::session_state::SessionState;
use datafusion::logical_expr::LogicalPlan;

use super::provider::{ListedTable, Scope, StoredTable};
use super::row_groups::RowGroups;

/// Files of sessions that one thread reads sooner than two that wait for each other.
const FILES_LIMIT: usize = 64;
/// The same for rows, of files of which they are known.
const ROWS_LIMIT: u64 = 1 << 17;

/// True if one thread answers an optimized plan as soon as several would: few files and rows, and nothing that makes many rows
/// of few.
pub(super) async fn reads_little(plan: &LogicalPlan, state: &SessionState) -> Result<bool> {
    let (mut stored, mut is_known) = (Vec::new(), true);
    plan.apply_with_subqueries(|node| {
        match node {
            LogicalPlan::TableScan(scan) => {
                let provider = source_as_provider(&scan.source)?;
                let provider = provider.as_ref() as &dyn Any;
                if let Some(table) = provider.downcast_ref::<StoredTable>() {
                    stored.push(table.clone());
                } else {
                    is_known &= provider.is::<ListedTable>() || provider.is::<RowGroups>();
                }
            }
            LogicalPlan::Join(join) => is_known &= !join.on.is_empty(),
            LogicalPlan::Unnest(_) | LogicalPlan::RecursiveQuery(_) | LogicalPlan::Extension(_) => is_known = false,
            _ => {}
        }
        Ok(if is_known { TreeNodeRecursion::Continue } else { TreeNodeRecursion::Stop })
    })?;
    if !is_known || stored.is_empty() {
        return Ok(is_known);
    }
    let scope = Scope::of(state)?;
    let snapshot = scope.snapshot().await?;
    let live = snapshot.live.iter().flat_map(|live| &live.batches).map(|batch| batch.num_rows() as u64);
    let live: u64 = live.sum();
    let (mut files, mut rows) = (0, 0);
    for table in &stored {
        files += table.files(snapshot).len();
        rows += table.files(snapshot).iter().filter_map(|file| file.rows).sum::<u64>();
        rows += if table.is_frames() { live } else { 0 };
    }
    Ok(files <= FILES_LIMIT && rows <= ROWS_LIMIT)
}
