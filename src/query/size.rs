//! How much a plan reads, as far as it matters for how it is answered.

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

/// What a plan reads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Reads {
    /// Few files and rows, and nothing that makes many rows of few: one thread answers it as soon as several would.
    pub(super) little: bool,
    /// Files of `frames`, or nobody knows what. A session's part of the other tables is a row or a few hundred, which are read
    /// sooner than anything finds out that they need not be.
    pub(super) large_pieces: bool,
}

/// Looks at an optimized plan.
pub(super) async fn reads(plan: &LogicalPlan, state: &SessionState) -> Result<Reads> {
    let (mut stored, mut makes_many, mut is_known) = (Vec::new(), false, true);
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
            LogicalPlan::Join(join) => makes_many |= join.on.is_empty(),
            LogicalPlan::Unnest(_) | LogicalPlan::RecursiveQuery(_) => makes_many = true,
            LogicalPlan::Extension(_) => is_known = false,
            _ => {}
        }
        Ok(if is_known { TreeNodeRecursion::Continue } else { TreeNodeRecursion::Stop })
    })?;
    let large_pieces = !is_known || stored.iter().any(StoredTable::is_frames);
    let is_small = is_known && !makes_many;
    if !is_small || stored.is_empty() {
        return Ok(Reads { little: is_small, large_pieces });
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
    Ok(Reads { little: files <= FILES_LIMIT && rows <= ROWS_LIMIT, large_pieces })
}
