//! Reads the text of a statement and lets only reading statements through.

use std::ops::ControlFlow;

use datafusion::config::Dialect;
use datafusion::error::DataFusionError;
use datafusion::execution::context::SQLOptions;
use datafusion::logical_expr::LogicalPlan;
use datafusion::sql::parser::{DFParserBuilder, Statement};
use datafusion::sql::sqlparser::ast::{Statement as Sql, TableFactor, Visit as _, Visitor};
use datafusion::sql::sqlparser::dialect::{Dialect as SqlDialect, GenericDialect, PostgreSqlDialect};

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
        (Some(statement), 1) => check(&statement).map(|()| statement),
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
    if let ControlFlow::Break(error) = sql.visit(&mut Samples) {
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
