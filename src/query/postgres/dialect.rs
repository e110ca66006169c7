//! PostgreSQL's dialect: what its clients say, in the engine's words.

use std::ops::ControlFlow;

use datafusion::sql::sqlparser::ast::{
    Array, CloseCursor, Expr, Function, FunctionArg, FunctionArgExpr, FunctionArgumentList, FunctionArguments, Ident,
    Query, SetExpr, Statement as Sql, TableFactor, Value, ValueWithSpan, visit_expressions_mut,
};
use datafusion::sql::sqlparser::dialect::PostgreSqlDialect;
use datafusion::sql::sqlparser::parser::{Parser, ParserError};
use datafusion_pg_catalog::sql::PostgresCompatibilityParser;
use pgwire::api::results::{Response, Tag};

/// Of the dialect and catalog, by which clients choose their questions; then whose server it is.
pub(super) const VERSION: &str = concat!("16.6 (Volant ", env!("CARGO_PKG_VERSION"), ")");
/// The answer of `version()`, whose words clients read.
pub(super) const VERSION_TEXT: &str = concat!("PostgreSQL 16.6 (Volant ", env!("CARGO_PKG_VERSION"), ")");

/// PostgreSQL's settings as they are here; what is not told at the start is answered when asked for.
pub(super) const SETTINGS: [(&str, &str); 16] = [
    ("server_encoding", "UTF8"),
    ("client_encoding", "UTF8"),
    ("integer_datetimes", "on"),
    ("in_hot_standby", "on"),
    ("is_superuser", "off"),
    ("default_transaction_read_only", "on"),
    ("standard_conforming_strings", "on"),
    ("DateStyle", "ISO, YMD"),
    ("IntervalStyle", "postgres"),
    ("TimeZone", "UTC"),
    ("time_zone", "UTC"),
    ("search_path", "public"),
    // One statement sees one snapshot; the next sees what came since.
    ("transaction_isolation", "read committed"),
    ("transaction_isolation_level", "read committed"),
    ("transaction_read_only", "on"),
    ("max_identifier_length", "63"),
];

/// What is said beside questions.
#[derive(Clone, Copy, Debug)]
pub(super) enum Said {
    Begin,
    End(&'static str),
    Nothing(&'static str),
}

impl Said {
    pub(super) fn response(self) -> Response {
        match self {
            Self::Begin => Response::TransactionStart(Tag::new("BEGIN")),
            Self::End(word) => Response::TransactionEnd(Tag::new(word)),
            Self::Nothing(word) => Response::Execution(Tag::new(word)),
        }
    }

    /// `None` for what the engine answers, or refuses.
    pub(super) fn of(statement: &Sql) -> Option<Self> {
        Some(match statement {
            Sql::StartTransaction { .. } => Self::Begin,
            Sql::Commit { .. } => Self::End("COMMIT"),
            Sql::Rollback { .. } => Self::End("ROLLBACK"),
            Sql::Set(_) => Self::Nothing("SET"),
            Sql::Savepoint { .. } => Self::Nothing("SAVEPOINT"),
            Sql::ReleaseSavepoint { .. } => Self::Nothing("RELEASE"),
            Sql::Reset(_) => Self::Nothing("RESET"),
            Sql::Discard { .. } => Self::Nothing("DISCARD ALL"),
            Sql::Deallocate { .. } => Self::Nothing("DEALLOCATE"),
            Sql::Close { cursor: CloseCursor::All } => Self::Nothing("CLOSE CURSOR ALL"),
            Sql::UNLISTEN { .. } => Self::Nothing("UNLISTEN"),
            _ => return None,
        })
    }
}

/// Reads statements.
///
/// Those about PostgreSQL's catalog are put in the engine's words, which among other things takes lookups from rows of another
/// table for NULL. All others mean what they say.
pub(super) fn read(parser: &PostgresCompatibilityParser, sql: &str) -> Result<Vec<Sql>, ParserError> {
    let lower = sql.to_ascii_lowercase();
    if !["pg_", "regclass", "regtype", "regproc"].iter().any(|word| lower.contains(word)) {
        return Parser::parse_sql(&PostgreSqlDialect {}, sql);
    }
    let mut statements = parser.parse(sql)?;
    statements.iter_mut().for_each(plainly);
    Ok(statements)
}

/// The statement in the engine's words: clients ask for settings of PostgreSQL's that no engine has.
pub(super) fn asked(statement: &Sql) -> String {
    let setting = match statement {
        Sql::ShowVariable { variable } => {
            variable.iter().map(|word| word.value.to_ascii_lowercase()).collect::<Vec<_>>().join("_")
        }
        _ => return statement.to_string(),
    };
    let known = SETTINGS
        .iter()
        .copied()
        .chain([("server_version", VERSION)])
        .find(|(name, _)| name.eq_ignore_ascii_case(&setting));
    known.map_or_else(|| statement.to_string(), |(name, value)| format!("SELECT '{value}' AS \"{name}\""))
}

/// Tables of PostgreSQL's catalog that say nothing here: there are no defaults, sequences, constraints, indexes, collations.
const EMPTY_TABLES: [&str; 5] = ["pg_attrdef", "pg_sequence", "pg_constraint", "pg_index", "pg_collation"];
/// Their columns that hold lists.
const LISTS: [&str; 5] = ["conkey", "confkey", "indkey", "indclass", "indoption"];

/// Puts plainly what clients ask in ways that the engine cannot plan: one value looked up where nothing is is NULL, a list
/// there is one of numbers, and a pattern is escaped by a backslash.
fn plainly(statement: &mut Sql) {
    let flow: ControlFlow<()> = visit_expressions_mut(statement, |expression| {
        match expression {
            Expr::Subquery(query) if looks_up_nothing(query) => *expression = Expr::Value(Value::Null.into()),
            Expr::Function(Function { name, args: FunctionArguments::List(list), .. })
                if ["unnest", "generate_subscripts"].iter().any(|of_list| name.to_string().ends_with(of_list))
                    && list.args.iter().any(is_list_of_nothing) =>
            {
                let zero = Expr::Value(Value::Number("0".to_owned(), false).into());
                let numbers = Expr::Array(Array { elem: vec![zero], named: true });
                list.args = vec![FunctionArg::Unnamed(FunctionArgExpr::Expr(numbers))];
                *name = vec![Ident::new("unnest")].into();
            }
            Expr::Like { pattern, escape_char, .. } => escape_by_backslash(pattern, escape_char),
            _ => {}
        }
        ControlFlow::Continue(())
    });
    debug_assert!(flow.is_continue());
}

fn looks_up_nothing(query: &Query) -> bool {
    let SetExpr::Select(select) = query.body.as_ref() else { return false };
    let collation = select.projection.iter().any(|item| item.to_string().ends_with("typcollation"));
    select.from.iter().any(|from| match &from.relation {
        TableFactor::Table { name, .. } => {
            let table = name.0.last().and_then(|part| part.as_ident()).map(|table| table.value.as_str());
            table.is_some_and(|table| EMPTY_TABLES.contains(&table) || (collation && table == "pg_type"))
        }
        _ => false,
    })
}

fn is_list_of_nothing(argument: &FunctionArg) -> bool {
    let FunctionArg::Unnamed(FunctionArgExpr::Expr(Expr::CompoundIdentifier(path))) = argument else { return false };
    path.last().is_some_and(|column| LISTS.contains(&column.value.as_str()))
}

fn escape_by_backslash(pattern: &mut Expr, escape: &mut Option<ValueWithSpan>) {
    let Some(Value::SingleQuotedString(by)) = escape.as_ref().map(|escape| escape.value.clone()) else { return };
    if by == "\\" || by.chars().count() != 1 {
        return;
    }
    let text = |text: &str| Expr::Value(Value::SingleQuotedString(text.to_owned()).into());
    let arguments = [pattern.clone(), text(&by), text("\\")];
    *pattern = Expr::Function(Function {
        name: vec![Ident::new("replace")].into(),
        uses_odbc_syntax: false,
        parameters: FunctionArguments::None,
        args: FunctionArguments::List(FunctionArgumentList {
            duplicate_treatment: None,
            args: arguments.map(|argument| FunctionArg::Unnamed(FunctionArgExpr::Expr(argument))).into(),
            clauses: Vec::new(),
        }),
        filter: None,
        null_treatment: None,
        over: None,
        within_group: Vec::new(),
    });
    *escape = None;
}

#[cfg(test)]
mod tests {
    use super::*;

    fn put(sql: &str) -> String {
        asked(&read(&PostgresCompatibilityParser::new(), sql).unwrap()[0])
    }

    #[test]
    fn what_the_engine_cannot_plan_is_put_plainly() {
        let default =
            put("SELECT (SELECT d.adbin FROM pg_catalog.pg_attrdef d WHERE d.adnum = a.attnum) FROM frames a");
        assert!(default.starts_with("SELECT NULL FROM"), "{default}");
        let own = put("SELECT (SELECT max(seq) FROM strokes s WHERE s.session_id = a.session_id) FROM frames a");
        assert!(own.contains("max(seq)"), "a question about our own tables stays: {own}");
        let escaped = put("SELECT relname FROM pg_class WHERE relname LIKE 'b/_' ESCAPE '/'");
        assert!(escaped.ends_with(r"LIKE replace('b/_', '/', '\')"), "{escaped}");
        assert_eq!(
            put("SHOW transaction isolation level"),
            "SELECT 'read committed' AS \"transaction_isolation_level\""
        );
    }

    #[test]
    fn what_is_said_beside_questions_is_answered_and_what_writes_is_not() {
        let said = |sql: &str| Said::of(&PostgresCompatibilityParser::new().parse(sql).unwrap()[0]).is_some();
        for sql in ["BEGIN", "COMMIT", "ROLLBACK", "SET TimeZone = 'UTC'", "DISCARD ALL", "SAVEPOINT a"] {
            assert!(said(sql), "{sql}");
        }
        for sql in ["SELECT 1", "DROP TABLE frames", "DELETE FROM frames", "SHOW TABLES"] {
            assert!(!said(sql), "{sql}");
        }
    }
}
