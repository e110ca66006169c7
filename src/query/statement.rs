//! Reads the text of a statement and lets only reading statements through.

use std::collections::HashMap;
use std::convert::Infallible;
use std::ops::ControlFlow;

use datafusion::config::Dialect;
use datafusion::error::DataFusionError;
use datafusion::execution::context::SQLOptions;
use datafusion::logical_expr::LogicalPlan;
use datafusion::sql::parser::{DFParserBuilder, Statement};
use datafusion::sql::sqlparser::ast::{
    Expr, Ident, Query, SelectItem, SetExpr, Statement as Sql, TableFactor, Visit, VisitMut, Visitor, VisitorMut,
};
use datafusion::sql::sqlparser::dialect::{Dialect as SqlDialect, GenericDialect, PostgreSqlDialect};
use datafusion::sql::sqlparser::parser::Parser;

use super::error::Error;

/// The longest statement, in bytes. Long IN lists fit, a pasted data file does not.
pub(super) const STATEMENT_LIMIT_BYTES: usize = 64 * 1024;

/// The deepest nesting that the parser follows.
const NESTING_LIMIT: usize = 50;

/// Parses exactly one statement that only reads.
///
/// What is refused here is decided by the kind of the statement; [`check_plan`] looks a second time, into the plan.
pub(super) fn parse(sql: &str, dialect: Dialect) -> Result<Statement, Error> {
    if sql.len() > STATEMENT_LIMIT_BYTES {
        return Err(Error::TooLong { bytes: sql.len(), limit_bytes: STATEMENT_LIMIT_BYTES });
    }
    let parse_error = |error: DataFusionError| Error::from_engine(error, 0);
    let dialect: &dyn SqlDialect =
        if dialect == Dialect::PostgreSQL { &PostgreSqlDialect {} } else { &GenericDialect {} };
    let mut statements = DFParserBuilder::new(sql)
        .with_dialect(dialect)
        .with_recursion_limit(NESTING_LIMIT)
        .build()
        .map_err(parse_error)?
        .parse_statements()
        .map_err(parse_error)?;
    let count = statements.len();
    match (statements.pop_front(), count) {
        (Some(mut statement), 1) => {
            check(&statement)?;
            name_columns(&mut statement);
            Ok(statement)
        }
        (None, _) => Err(Error::Empty),
        (Some(_), count) => Err(Error::ManyStatements { count }),
    }
}

fn check(statement: &Statement) -> Result<(), Error> {
    match statement {
        Statement::Statement(sql) => check_sql(sql),
        Statement::Explain(explain) => check(&explain.statement),
        Statement::CreateExternalTable(_) | Statement::CopyTo(_) | Statement::Reset(_) => {
            Err(refused(&statement.to_string()))
        }
    }
}

/// Finds tables of which only a sample is asked for; the engine would read all of them, and not say so.
struct Samples;

impl Visitor for Samples {
    type Break = Error;

    fn pre_visit_table_factor(&mut self, factor: &TableFactor) -> ControlFlow<Error> {
        match factor {
            TableFactor::Table { sample: Some(_), .. } => {
                let what = "TABLESAMPLE; write WHERE random() < 0.01";
                ControlFlow::Break(Error::from_engine(DataFusionError::NotImplemented(what.to_owned()), 0))
            }
            _ => ControlFlow::Continue(()),
        }
    }
}

fn check_sql(sql: &Sql) -> Result<(), Error> {
    if let ControlFlow::Break(error) = Visit::visit(sql, &mut Samples) {
        return Err(error);
    }
    match sql {
        Sql::Query(_)
        | Sql::ExplainTable { .. }
        | Sql::ShowVariable { .. }
        | Sql::ShowVariables { .. }
        | Sql::ShowColumns { .. }
        | Sql::ShowTables { .. }
        | Sql::ShowFunctions { .. }
        | Sql::ShowCreate { .. } => Ok(()),
        Sql::Explain { statement, .. } => check_sql(statement),
        other => Err(refused(&other.to_string())),
    }
}

/// Puts the answer's columns in the engine's words, and gives names to those that it would give the same name, which it refuses: all
/// subqueries are `(<subquery>)` to it, and what is written twice is called the same.
fn name_columns(statement: &mut Statement) {
    match statement {
        Statement::Statement(sql) => {
            let ControlFlow::Continue(()) = VisitMut::visit(sql.as_mut(), &mut Names);
        }
        Statement::Explain(explain) => name_columns(&mut explain.statement),
        Statement::CreateExternalTable(_) | Statement::CopyTo(_) | Statement::Reset(_) => {}
    }
}

struct Names;

impl VisitorMut for Names {
    type Break = Infallible;

    fn pre_visit_query(&mut self, query: &mut Query) -> ControlFlow<Infallible> {
        name_columns_of(&mut query.body);
        ControlFlow::Continue(())
    }
}

/// A name that the statement does not give is cut to so many characters.
const NAME_LIMIT_CHARS: usize = 60;

fn name_columns_of(body: &mut SetExpr) {
    match body {
        SetExpr::Select(select) => {
            let mut seen = HashMap::new();
            for item in &mut select.projection {
                let SelectItem::UnnamedExpr(expr) = item else { continue };
                let mut name: String = expr.to_string();
                let before = seen.entry(name.to_lowercase()).or_insert(0);
                *before += 1;
                let has_query = Visit::visit(expr, &mut FindsQuery).is_break();
                if !has_query && *before == 1 {
                    continue;
                }
                if name.chars().count() > NAME_LIMIT_CHARS {
                    name = name.chars().take(NAME_LIMIT_CHARS).chain(['…']).collect();
                }
                if *before > 1 {
                    name = format!("{name}_{}", *before - 1);
                }
                let alias = Ident::with_quote('"', name);
                *item = SelectItem::ExprWithAlias { expr: expr.clone(), alias };
            }
            for item in &mut select.projection {
                if let SelectItem::ExprWithAlias { expr: expr @ Expr::Exists { .. }, .. } = item {
                    exists_as_count(expr);
                }
            }
        }
        SetExpr::SetOperation { left, right, .. } => {
            name_columns_of(left);
            name_columns_of(right);
        }
        // Queries within are visited themselves.
        _ => {}
    }
}

/// The engine knows `EXISTS` in a condition, not in an answer.
fn exists_as_count(expr: &mut Expr) {
    let Expr::Exists { subquery, negated } = expr else { return };
    let comparison = if *negated { "= 0" } else { "> 0" };
    let sql = format!("SELECT count(*) {comparison} FROM (SELECT 1 FROM ({subquery}) AS asked LIMIT 1) AS found");
    if let Ok(Sql::Query(query)) = Parser::parse_sql(&GenericDialect {}, &sql).map(|mut sql| sql.swap_remove(0)) {
        *expr = Expr::Subquery(query);
    }
}

struct FindsQuery;

impl Visitor for FindsQuery {
    type Break = ();

    fn pre_visit_query(&mut self, _: &Query) -> ControlFlow<()> {
        ControlFlow::Break(())
    }
}

/// The table that a `DESCRIBE` names, if it does so in one word.
pub(super) fn described(statement: &Statement) -> Option<String> {
    match statement {
        Statement::Statement(sql) => match &**sql {
            Sql::ExplainTable { table_name, .. } => match table_name.0.as_slice() {
                [part] => part.as_ident().map(|name| name.value.to_lowercase()),
                _ => None,
            },
            _ => None,
        },
        _ => None,
    }
}

/// Refuses a plan that would change anything, wherever in the plan that is.
pub(super) fn check_plan(plan: &LogicalPlan) -> Result<(), Error> {
    SQLOptions::new()
        .with_allow_ddl(false)
        .with_allow_dml(false)
        .with_allow_statements(false)
        .verify_plan(plan)
        .map_err(|error| refused(error.message().rsplit(' ').next().unwrap_or_default()))
}

/// The refusal, naming the statement by its first word.
fn refused(statement: &str) -> Error {
    let word = statement.split(|c: char| !c.is_ascii_alphanumeric() && c != '_').find(|word| !word.is_empty());
    Error::NotReadOnly { statement: word.unwrap_or("the statement").to_ascii_uppercase() }
}
