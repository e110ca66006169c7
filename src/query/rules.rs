//! Rules for the optimizer that know what questions of movement look like.
//!
//! - [`RangeJoin`]: rows within a fixed distance of others, "frames within 100 ms of an impact". The engine joins on what is
//!   equal and compares all pairs of a session; here both sides are cut into buckets as wide as the range, so that a row meets
//!   the rows of two buckets.
//! - [`ByRowGroups`]: how many frames there are, from when to when and of which sensors, is known without reading one.
//!
//! Each leaves a plan with the same answer, and every condition of the statement in it.

use std::any::Any;
use std::sync::Arc;

use arrow::datatypes::DataType;
use datafusion::catalog::default_table_source::{provider_as_source, source_as_provider};
use datafusion::common::tree_node::Transformed;
use datafusion::common::{Column, DFSchema, ExprSchema, Result, ScalarValue, TableReference};
use datafusion::functions::core::expr_fn::coalesce;
use datafusion::functions_aggregate::sum::sum_udaf;
use datafusion::functions_nested::expr_fn::make_array;
use datafusion::logical_expr::expr::{AggregateFunction, AggregateFunctionParams, ScalarFunction};
use datafusion::logical_expr::utils::{conjunction, split_conjunction};
use datafusion::logical_expr::{
    Aggregate, Between, BinaryExpr, Expr, Filter, Join, JoinType, LogicalPlan, LogicalPlanBuilder, Operator,
    Projection, SubqueryAlias, TableScan, col, lit,
};
use datafusion::optimizer::{ApplyOrder, OptimizerConfig, OptimizerRule};

use super::provider::StoredTable;
use super::row_groups::{Fact, RowGroups, is_key};

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

/// Answers what the footers of the files tell, grouped by session, day and sensor: numbers of rows and of values, least and
/// greatest whole numbers, and which sensors, sessions and days there are.
#[derive(Debug)]
pub(super) struct ByRowGroups;

impl OptimizerRule for ByRowGroups {
    fn name(&self) -> &'static str {
        "aggregate_by_row_groups"
    }

    fn apply_order(&self) -> Option<ApplyOrder> {
        Some(ApplyOrder::BottomUp)
    }

    fn supports_rewrite(&self) -> bool {
        true
    }

    fn rewrite(&self, plan: LogicalPlan, _: &dyn OptimizerConfig) -> Result<Transformed<LogicalPlan>> {
        let LogicalPlan::Aggregate(aggregate) = &plan else { return Ok(Transformed::no(plan)) };
        let schema = aggregate.input.schema();
        let parts = aggregate.aggr_expr.iter().map(|expr| Part::of(expr, schema)).collect::<Option<Vec<_>>>();
        let (Some(parts), true) = (parts, aggregate.group_expr.iter().all(is_of_keys)) else {
            return Ok(Transformed::no(plan));
        };
        let Some(input) = by_row_groups(&aggregate.input)? else { return Ok(Transformed::no(plan)) };
        let (qualifier, _) = input.schema().qualified_field_with_unqualified_name(RowGroups::ROWS)?;
        let qualifier = qualifier.cloned();
        let part_name = |at: usize| format!("__part_{at}");
        let aggregates = parts.iter().enumerate().map(|(at, part)| part.over(qualifier.as_ref()).alias(part_name(at)));
        let made = Aggregate::try_new(Arc::new(input), aggregate.group_expr.clone(), aggregates.collect())?;
        // Under the names that they had.
        let keys = made.schema.columns().into_iter().take(made.schema.fields().len() - parts.len());
        let keys = keys.collect::<Vec<_>>();
        let names = aggregate.schema.columns().into_iter().skip(keys.len());
        let values = parts.iter().enumerate().zip(names).map(|((at, part), name)| {
            let value =
                if part.is_count() { coalesce(vec![col(part_name(at)), lit(0i64)]) } else { col(part_name(at)) };
            value.alias_qualified(name.relation, name.name)
        });
        let columns = keys.into_iter().map(Expr::Column).chain(values).collect::<Vec<_>>();
        Ok(Transformed::yes(LogicalPlanBuilder::from(LogicalPlan::Aggregate(made)).project(columns)?.build()?))
    }
}

/// True if a row group has one value of it.
fn is_of_keys(expr: &Expr) -> bool {
    !expr.is_volatile() && expr.column_refs().iter().all(|column| is_key(&column.name))
}

/// An aggregate that row groups tell.
#[derive(Debug)]
enum Part {
    /// How many rows there are, or values of a column: the sum of a column.
    Count { of: String, filter: Option<Box<Expr>> },
    /// The least or greatest value: that of a column.
    Bound { function: AggregateFunction, of: String },
    /// Of the keys alone, and the same however often a row is there.
    OfKeys(Expr),
}

impl Part {
    fn of(expr: &Expr, schema: &DFSchema) -> Option<Self> {
        let function = match expr {
            Expr::AggregateFunction(function) => function,
            Expr::Alias(alias) => return Self::of(&alias.expr, schema),
            _ => return None,
        };
        let AggregateFunctionParams { args, distinct, filter, order_by, .. } = &function.params;
        if !order_by.is_empty() || !filter.as_ref().is_none_or(|filter| is_of_keys(filter)) {
            return None;
        }
        let fact = |fact: Fact, column: &Column| fact.name_for(schema.field_from_column(column).ok()?);
        let filter = filter.clone();
        match (function.func.name(), args.as_slice()) {
            ("count", [Expr::Literal(value, _)]) if !distinct && !value.is_null() => {
                Some(Self::Count { of: RowGroups::ROWS.to_owned(), filter })
            }
            // Keys are never null.
            ("count", [Expr::Column(column)]) if !distinct && is_key(&column.name) => {
                Some(Self::Count { of: RowGroups::ROWS.to_owned(), filter })
            }
            ("count", [Expr::Column(column)]) if !distinct => {
                Some(Self::Count { of: fact(Fact::Count, column)?, filter })
            }
            ("count", [argument]) if *distinct && is_of_keys(argument) => Some(Self::OfKeys(expr.clone())),
            ("min" | "max", [argument]) if is_of_keys(argument) => Some(Self::OfKeys(expr.clone())),
            ("min", [Expr::Column(column)]) => {
                Some(Self::Bound { function: function.clone(), of: fact(Fact::Min, column)? })
            }
            ("max", [Expr::Column(column)]) => {
                Some(Self::Bound { function: function.clone(), of: fact(Fact::Max, column)? })
            }
            _ => None,
        }
    }

    const fn is_count(&self) -> bool {
        matches!(self, Self::Count { .. })
    }

    /// The aggregate over row groups.
    fn over(&self, qualifier: Option<&TableReference>) -> Expr {
        let column = |of: &String| Expr::Column(Column::new(qualifier.cloned(), of));
        match self {
            Self::Count { of, filter } => {
                let params = AggregateFunctionParams {
                    args: vec![column(of)],
                    distinct: false,
                    filter: filter.clone(),
                    order_by: Vec::new(),
                    null_treatment: None,
                };
                Expr::AggregateFunction(AggregateFunction { func: sum_udaf(), params })
            }
            Self::Bound { function, of } => {
                let params = AggregateFunctionParams { args: vec![column(of)], ..function.params.clone() };
                Expr::AggregateFunction(AggregateFunction { func: Arc::clone(&function.func), params })
            }
            Self::OfKeys(expr) => expr.clone(),
        }
    }
}

/// The input with row groups in place of rows; `None` if it is not `frames` alone, filtered by what a row group has one of.
fn by_row_groups(plan: &LogicalPlan) -> Result<Option<LogicalPlan>> {
    match plan {
        LogicalPlan::TableScan(scan) => {
            let Some(table) = frames_of(scan).filter(|_| scan.fetch.is_none() && scan.filters.iter().all(is_of_keys))
            else {
                return Ok(None);
            };
            let source = provider_as_source(Arc::new(RowGroups::new(table)));
            let filters = scan.filters.clone();
            let groups = LogicalPlanBuilder::scan_with_filters(scan.table_name.clone(), source, None, filters)?;
            // What the table does with a filter exactly, is to be done here.
            match conjunction(scan.filters.iter().cloned()) {
                Some(filter) => groups.filter(filter)?.build().map(Some),
                None => groups.build().map(Some),
            }
        }
        LogicalPlan::Filter(Filter { predicate, input, .. }) if is_of_keys(predicate) => {
            let Some(input) = by_row_groups(input)? else { return Ok(None) };
            Ok(Some(LogicalPlan::Filter(Filter::try_new(predicate.clone(), Arc::new(input))?)))
        }
        // Columns left out on the way are columns all the same.
        LogicalPlan::Projection(Projection { expr, input, .. })
            if expr.iter().all(|expr| matches!(expr, Expr::Column(_))) =>
        {
            by_row_groups(input)
        }
        LogicalPlan::SubqueryAlias(SubqueryAlias { input, alias, .. }) => {
            let Some(input) = by_row_groups(input)? else { return Ok(None) };
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
