//! `arg_max(value, by)` and `arg_min(value, by)`: which stroke was the fastest.
//!
//! Each is another way to write `first_value(value ORDER BY by DESC)` over the rows that have a `by`, which the engine computes.

use std::sync::Arc;

use arrow::datatypes::DataType;
use datafusion::common::{Result, internal_err, not_impl_err, plan_err};
use datafusion::functions_aggregate::first_last::first_value_udaf;
use datafusion::logical_expr::expr::{AggregateFunction, AggregateFunctionParams, Sort};
use datafusion::logical_expr::function::{AccumulatorArgs, AggregateFunctionSimplification};
use datafusion::logical_expr::{Accumulator, AggregateUDF, AggregateUDFImpl, Expr, Signature, Volatility};

/// Both, with their other names.
pub(super) fn functions() -> [AggregateUDF; 2] {
    [("arg_max", "max_by", false), ("arg_min", "min_by", true)].map(|(name, other, smallest)| {
        let signature = Signature::any(2, Volatility::Immutable);
        AggregateUDF::from(AtExtreme { name, others: [other.to_owned()], smallest, signature })
    })
}

#[derive(Debug, PartialEq, Eq, Hash)]
struct AtExtreme {
    name: &'static str,
    others: [String; 1],
    smallest: bool,
    signature: Signature,
}

impl AggregateUDFImpl for AtExtreme {
    fn name(&self) -> &str {
        self.name
    }

    fn aliases(&self) -> &[String] {
        &self.others
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, types: &[DataType]) -> Result<DataType> {
        match types {
            [value, _] => Ok(value.clone()),
            _ => plan_err!("{} takes a value and what to go by", self.name),
        }
    }

    fn accumulator(&self, _: AccumulatorArgs<'_>) -> Result<Box<dyn Accumulator>> {
        let (name, order) = (self.name, if self.smallest { "ASC" } else { "DESC" });
        not_impl_err!("{name} with OVER; write first_value(value) OVER (ORDER BY by {order} NULLS LAST)")
    }

    fn simplify(&self) -> Option<AggregateFunctionSimplification> {
        let smallest = self.smallest;
        Some(Box::new(move |call: AggregateFunction, _| {
            let AggregateFunctionParams { args, distinct, filter, order_by, null_treatment } = call.params;
            let Ok([value, by]) = <[Expr; 2]>::try_from(args) else {
                return internal_err!("two arguments, as the signature says");
            };
            let has_it = by.clone().is_not_null();
            let filter = filter.map_or_else(|| has_it.clone(), |filter| filter.and(has_it.clone()));
            let order_by = [vec![Sort::new(by, smallest, false)], order_by].concat();
            let filter = Some(Box::new(filter));
            let params = AggregateFunctionParams { args: vec![value], distinct, filter, order_by, null_treatment };
            Ok(Expr::AggregateFunction(AggregateFunction { func: Arc::clone(&first_value_udaf()), params }))
        }))
    }
}
