//! Rules for the optimizer that know what questions of movement look like.
//!
//! - [`RangeJoin`]: rows within a fixed distance of others, "frames within 100 ms of an impact". The engine joins on what is
//!   equal and compares all pairs of a session; here both sides are cut into buckets as wide as the range, so that a row meets
//!   the rows of two buckets.
//! - [`CountRows`]: how many rows a session or a day has is known without reading a file.
//!
//! Each leaves a plan with the same answer, and every condition of the statement in it.

use std::any::Any;
use std::sync::Arc;

use arrow::datatypes::DataType;
use datafusion::catalog::default_table_source::{provider_as_source, source_as_provider};
use datafusion::common::tree_node::Transformed;
use datafusion::common::{Column, DFSchema, ExprSchema, Result, ScalarValue};
use datafusion::functions::core::expr_fn::coalesce;
use datafusion::functions_aggregate::sum::sum;
use datafusion::functions_nested::expr_fn::make_array;
use datafusion::logical_expr::expr::{AggregateFunction, AggregateFunctionParams, ScalarFunction};
use datafusion::logical_expr::utils::{conjunction, split_conjunction};
use datafusion::logical_expr::{
    Aggregate, Between, BinaryExpr, Expr, Filter, Join, JoinType, LogicalPlan, LogicalPlanBuilder, Operator,
    SubqueryAlias, TableScan, col, lit,
};
use datafusion::optimizer::{ApplyOrder, OptimizerConfig, OptimizerRule};

use super::provider::{RowCounts, StoredTable};
use super::tables::DATE;

/// Columns of the buckets, one a side.
const BUCKETS: [&str; 2] = ["__bucket_left", "__bucket_right"];

/// Joins rows of a fixed distance by buckets.
#[derive(Debug)]
pub(super) struct RangeJoin;

impl OptimizerRule for RangeJoin {
    fn name(&self) -> &'static str {
        "range_join_by_buckets"
    }

    fn apply_order(&self) -> Option<ApplyOrder> {
        Some(ApplyOrder::BottomUp)
    }

    fn supports_rewrite(&self) -> bool {
        true
    }

    fn rewrite(&self, plan: LogicalPlan, _: &dyn OptimizerConfig) -> Result<Transformed<LogicalPlan>> {
        let LogicalPlan::Join(join) = &plan else { return Ok(Transformed::no(plan)) };
        let is_done =
            |(left, _): &(Expr, Expr)| matches!(left, Expr::Column(column) if BUCKETS.contains(&column.name()));
        // Without equal keys a bucket would be the only one, and rows without one are joined by other means.
        if join.join_type != JoinType::Inner || join.on.is_empty() || join.on.iter().any(is_done) {
            return Ok(Transformed::no(plan));
        }
        match join.filter.as_ref().and_then(|filter| Range::of(filter, join)) {
            Some(range) => Ok(Transformed::yes(range.join(join)?)),
            None => Ok(Transformed::no(plan)),
        }
    }
}

/// `low <= left - right <= high` of two columns.
#[derive(Debug)]
struct Range {
    left: Column,
    right: Column,
    low: i64,
    high: i64,
}

impl Range {
    /// The first pair of columns whose distance the filter bounds on both sides.
    fn of(filter: &Expr, join: &Join) -> Option<Self> {
        let mut bounds: Vec<(Column, Column, Option<i64>, Option<i64>)> = Vec::new();
        for condition in split_conjunction(filter) {
            for (distance, low, high) in bounds_of(condition) {
                let Some((left, right, turned)) = distance.between(join.left.schema(), join.right.schema()) else {
                    continue;
                };
                // From bounds of (±(left - right) + constant) to those of left - right.
                let shifted = |bound: Option<i64>| bound.and_then(|bound| bound.checked_sub(distance.constant));
                let (low, high) = if turned {
                    (shifted(high).and_then(i64::checked_neg), shifted(low).and_then(i64::checked_neg))
                } else {
                    (shifted(low), shifted(high))
                };
                match bounds.iter_mut().find(|(l, r, ..)| *l == left && *r == right) {
                    Some((_, _, known_low, known_high)) => {
                        *known_low = (*known_low).max(low);
                        *known_high = [*known_high, high].into_iter().flatten().min();
                    }
                    None => bounds.push((left, right, low, high)),
                }
            }
        }
        bounds.into_iter().find_map(|(left, right, low, high)| {
            let (low, high) = (low?, high?);
            (low <= high && high.checked_sub(low).is_some()).then_some(Self { left, right, low, high })
        })
    }

    /// The join with a bucket as a further key. A bucket is as wide as the range, so what is in range of a row lies in the
    /// bucket of the range's lower end or in the next: one side has each row for both, the other each row once.
    fn join(&self, join: &Join) -> Result<LogicalPlan> {
        let width = (self.high - self.low).max(1);
        // The side that is doubled: rather not the one with the samples.
        let double_right = !has_frames(&join.right) || has_frames(&join.left);
        let [left_name, right_name] = BUCKETS;
        let (left, right) = if double_right {
            // left lies in [right + low, right + high].
            let first = (Expr::Column(self.right.clone()) + lit(self.low)) / lit(width);
            (once(&join.left, &self.left, width, left_name)?, doubled(&join.right, first, right_name)?)
        } else {
            // right lies in [left - high, left - low].
            let first = (Expr::Column(self.left.clone()) - lit(self.high)) / lit(width);
            (doubled(&join.left, first, left_name)?, once(&join.right, &self.right, width, right_name)?)
        };
        let mut on = join.on.clone();
        on.push((col(left_name), col(right_name)));
        let joined = Join::try_new(
            Arc::new(left),
            Arc::new(right),
            on,
            join.filter.clone(),
            join.join_type,
            join.join_constraint,
            join.null_equality,
            join.null_aware,
        )?;
        LogicalPlanBuilder::from(LogicalPlan::Join(joined)).project(columns_of(&join.schema))?.build()
    }
}

fn columns_of(schema: &DFSchema) -> Vec<Expr> {
    schema.columns().into_iter().map(Expr::Column).collect()
}

fn once(side: &Arc<LogicalPlan>, column: &Column, width: i64, name: &str) -> Result<LogicalPlan> {
    let bucket = (Expr::Column(column.clone()) / lit(width)).alias(name);
    let columns = columns_of(side.schema()).into_iter().chain([bucket]);
    LogicalPlanBuilder::from(Arc::clone(side)).project(columns)?.build()
}

fn doubled(side: &Arc<LogicalPlan>, first: Expr, name: &str) -> Result<LogicalPlan> {
    let buckets = make_array(vec![first.clone(), first + lit(1i64)]).alias(name);
    let columns = columns_of(side.schema()).into_iter().chain([buckets]);
    LogicalPlanBuilder::from(Arc::clone(side)).project(columns)?.unnest_column(Column::from_name(name))?.build()
}

fn has_frames(plan: &LogicalPlan) -> bool {
    let is_frames = matches!(plan, LogicalPlan::TableScan(scan) if frames_of(scan).is_some());
    is_frames || plan.inputs().into_iter().any(has_frames)
}

/// A sum of columns, each once with + or −, and a constant.
#[derive(Clone, Debug, Default)]
struct Linear {
    plus: Vec<Column>,
    minus: Vec<Column>,
    constant: i64,
}

impl Linear {
    fn of(expr: &Expr) -> Option<Self> {
        match expr {
            Expr::Column(column) => Some(Self { plus: vec![column.clone()], ..Self::default() }),
            Expr::Literal(ScalarValue::Int64(Some(constant)), _) => {
                Some(Self { constant: *constant, ..Self::default() })
            }
            Expr::Alias(alias) => Self::of(&alias.expr),
            Expr::BinaryExpr(BinaryExpr { left, op: Operator::Plus, right }) => Self::of(left)?.plus(Self::of(right)?),
            Expr::BinaryExpr(BinaryExpr { left, op: Operator::Minus, right }) => {
                Self::of(left)?.plus(Self::of(right)?.turned()?)
            }
            _ => None,
        }
    }

    fn plus(mut self, other: Self) -> Option<Self> {
        self.plus.extend(other.plus);
        self.minus.extend(other.minus);
        self.constant = self.constant.checked_add(other.constant)?;
        Some(self)
    }

    fn turned(self) -> Option<Self> {
        Some(Self { plus: self.minus, minus: self.plus, constant: self.constant.checked_neg()? })
    }

    /// The columns of the left and the right side if it is `left - right`, or with true `right - left`, of 64-bit integers.
    fn between(&self, left: &DFSchema, right: &DFSchema) -> Option<(Column, Column, bool)> {
        let ([plus], [minus]) = (self.plus.as_slice(), self.minus.as_slice()) else { return None };
        let is_in = |column: &Column, schema: &DFSchema| {
            schema.field_from_column(column).is_ok_and(|field| *field.data_type() == DataType::Int64)
        };
        if is_in(plus, left) && is_in(minus, right) {
            Some((plus.clone(), minus.clone(), false))
        } else if is_in(plus, right) && is_in(minus, left) {
            Some((minus.clone(), plus.clone(), true))
        } else {
            None
        }
    }
}

/// What a condition says of a distance: bounds of the whole sum. A strict bound counts as the wider one that is not.
fn bounds_of(condition: &Expr) -> Vec<(Linear, Option<i64>, Option<i64>)> {
    let at_least = |more: &Expr, less: &Expr| {
        let sum = Linear::of(more)?.plus(Linear::of(less)?.turned()?)?;
        Some((sum, Some(0), None))
    };
    match condition {
        Expr::Between(Between { expr, negated: false, low, high }) => {
            [at_least(expr, low), at_least(high, expr)].into_iter().flatten().collect()
        }
        Expr::BinaryExpr(BinaryExpr { left, op, right }) => match (op, absolute(left), absolute(right)) {
            (Operator::Lt | Operator::LtEq, Some(distance), _) => within(distance, right),
            (Operator::Gt | Operator::GtEq, _, Some(distance)) => within(distance, left),
            (Operator::Lt | Operator::LtEq, ..) => at_least(right, left).into_iter().collect(),
            (Operator::Gt | Operator::GtEq, ..) => at_least(left, right).into_iter().collect(),
            _ => Vec::new(),
        },
        _ => Vec::new(),
    }
}

/// The argument of `abs`.
fn absolute(expr: &Expr) -> Option<&Expr> {
    match expr {
        Expr::ScalarFunction(ScalarFunction { func, args }) if func.name() == "abs" => args.first(),
        _ => None,
    }
}

fn within(distance: &Expr, limit: &Expr) -> Vec<(Linear, Option<i64>, Option<i64>)> {
    match (Linear::of(distance), limit) {
        (Some(sum), Expr::Literal(ScalarValue::Int64(Some(limit)), _)) if *limit >= 0 => {
            vec![(sum, Some(-limit), Some(*limit))]
        }
        _ => Vec::new(),
    }
}

/// Counts rows of sessions and days by what is known of their files.
#[derive(Debug)]
pub(super) struct CountRows;

impl OptimizerRule for CountRows {
    fn name(&self) -> &'static str {
        "count_rows_by_files"
    }

    fn apply_order(&self) -> Option<ApplyOrder> {
        Some(ApplyOrder::BottomUp)
    }

    fn supports_rewrite(&self) -> bool {
        true
    }

    fn rewrite(&self, plan: LogicalPlan, _: &dyn OptimizerConfig) -> Result<Transformed<LogicalPlan>> {
        let LogicalPlan::Aggregate(aggregate) = &plan else { return Ok(Transformed::no(plan)) };
        let keys_are_known = !aggregate.group_expr.is_empty() && aggregate.group_expr.iter().all(is_known);
        if !keys_are_known || aggregate.aggr_expr.is_empty() || !aggregate.aggr_expr.iter().all(is_count_of_rows) {
            return Ok(Transformed::no(plan));
        }
        let Some(input) = counted(&aggregate.input)? else { return Ok(Transformed::no(plan)) };
        let (qualifier, _) = input.schema().qualified_field_with_unqualified_name(RowCounts::ROWS)?;
        let rows = Column::new(qualifier.cloned(), RowCounts::ROWS);
        let total = sum(Expr::Column(rows)).alias(RowCounts::ROWS);
        let counts = Aggregate::try_new(Arc::new(input), aggregate.group_expr.clone(), vec![total])?;
        // Under the names that the counts had.
        let keys = aggregate.group_expr.len();
        let columns = aggregate.schema.columns().into_iter().enumerate().map(|(place, column)| {
            if place < keys {
                Expr::Column(column)
            } else {
                coalesce(vec![col(RowCounts::ROWS), lit(0i64)]).alias_qualified(column.relation.clone(), column.name)
            }
        });
        let counted = LogicalPlanBuilder::from(LogicalPlan::Aggregate(counts)).project(columns.collect::<Vec<_>>())?;
        Ok(Transformed::yes(counted.build()?))
    }
}

/// True if all that an expression needs is known of a file without reading it.
fn is_known(expr: &Expr) -> bool {
    let columns = expr.column_refs();
    !expr.is_volatile() && columns.iter().all(|column| column.name == DATE || column.name == "session_id")
}

fn is_count_of_rows(expr: &Expr) -> bool {
    let Expr::AggregateFunction(AggregateFunction { func, params }) = expr else {
        return matches!(expr, Expr::Alias(alias) if is_count_of_rows(&alias.expr));
    };
    let AggregateFunctionParams { args, distinct, filter, order_by, .. } = params;
    let of_rows = matches!(args.as_slice(), [Expr::Literal(value, _)] if !value.is_null());
    func.name() == "count" && of_rows && !distinct && filter.is_none() && order_by.is_empty()
}

/// The input with the rows' counts in place of the rows; `None` if it is not `frames` alone, filtered by what is known.
fn counted(plan: &LogicalPlan) -> Result<Option<LogicalPlan>> {
    match plan {
        LogicalPlan::TableScan(scan) => {
            let Some(table) = frames_of(scan).filter(|_| scan.fetch.is_none() && scan.filters.iter().all(is_known))
            else {
                return Ok(None);
            };
            let source = provider_as_source(Arc::new(RowCounts(table)));
            let counts = LogicalPlanBuilder::scan(scan.table_name.clone(), source, None)?;
            match conjunction(scan.filters.iter().cloned()) {
                Some(filter) => counts.filter(filter)?.build().map(Some),
                None => counts.build().map(Some),
            }
        }
        LogicalPlan::Filter(Filter { predicate, input, .. }) if is_known(predicate) => {
            let Some(input) = counted(input)? else { return Ok(None) };
            Ok(Some(LogicalPlan::Filter(Filter::try_new(predicate.clone(), Arc::new(input))?)))
        }
        LogicalPlan::SubqueryAlias(SubqueryAlias { input, alias, .. }) => {
            let Some(input) = counted(input)? else { return Ok(None) };
            Ok(Some(LogicalPlan::SubqueryAlias(SubqueryAlias::try_new(Arc::new(input), alias.clone())?)))
        }
        _ => Ok(None),
    }
}

/// The table of a scan, if it is `frames`.
fn frames_of(scan: &TableScan) -> Option<StoredTable> {
    let provider = source_as_provider(&scan.source).ok()?;
    (provider.as_ref() as &dyn Any).downcast_ref::<StoredTable>().filter(|table| table.is_frames()).cloned()
}
