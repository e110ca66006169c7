//! What the placeholders of a statement are.

use std::collections::BTreeMap;

use arrow::datatypes::{DataType, Field};
use datafusion::common::tree_node::{TreeNode as _, TreeNodeRecursion};
use datafusion::error::DataFusionError;
use datafusion::logical_expr::utils::merge_schema;
use datafusion::logical_expr::{Expr, ExprSchemable as _, LogicalPlan};

/// Values that a statement can take at most, as in PostgreSQL, whose wire counts them in 16 bits.
const PARAMETERS_LIMIT: usize = 65_535;

/// The placeholders in the order of their numbers; a type that nothing tells is null.
pub(super) fn of(plan: &LogicalPlan) -> Result<Vec<Field>, DataFusionError> {
    let mut found: Vec<_> = plan.get_parameter_fields()?.into_iter().collect();
    let number = |name: &str| name.trim_start_matches('$').parse::<usize>().unwrap_or(usize::MAX);
    found.sort_by_key(|(name, _)| number(name));
    let lists = lists(plan)?;
    let mut parameters: Vec<Field> = Vec::with_capacity(found.len());
    for (name, field) in found {
        // A number that does not stand in the statement has its place all the same: values come by number.
        let left_out = number(&name).saturating_sub(1).min(PARAMETERS_LIMIT);
        parameters
            .extend((parameters.len()..left_out).map(|at| Field::new(format!("${}", at + 1), DataType::Null, true)));
        let told = field.map(|field| field.data_type().clone()).or_else(|| lists.get(&name).cloned());
        parameters.push(Field::new(name, told.unwrap_or(DataType::Null), true));
    }
    Ok(parameters)
}

/// Lists that somebody looks into, `x = ANY($1)`: of what x is; and `$1::text[]`, where a function stands between.
fn lists(plan: &LogicalPlan) -> Result<BTreeMap<String, DataType>, DataFusionError> {
    let mut found = BTreeMap::new();
    plan.apply_with_subqueries(|node| {
        let schema = merge_schema(&node.inputs());
        node.apply_expressions(|expression| {
            expression.apply(|expression| {
                let (list, told) = match expression {
                    Expr::ScalarFunction(function) if function.name() == "array_has" => {
                        match function.args.as_slice() {
                            [list, value] => (list, value.get_type(&schema).map(|of| DataType::new_list(of, true))),
                            _ => return Ok(TreeNodeRecursion::Continue),
                        }
                    }
                    Expr::Cast(cast) => (cast.expr.as_ref(), expression.get_type(&schema)),
                    _ => return Ok(TreeNodeRecursion::Continue),
                };
                if let (Some(name), Ok(told @ DataType::List(_))) = (placeholder(list), told) {
                    found.insert(name.to_owned(), told);
                }
                Ok(TreeNodeRecursion::Continue)
            })
        })
    })?;
    Ok(found)
}

/// The placeholder's name, also inside a function that makes a list of it.
fn placeholder(list: &Expr) -> Option<&str> {
    match list {
        Expr::Placeholder(placeholder) => Some(&placeholder.id),
        Expr::ScalarFunction(function) => match function.args.as_slice() {
            [Expr::Placeholder(placeholder)] => Some(&placeholder.id),
            _ => None,
        },
        _ => None,
    }
}
