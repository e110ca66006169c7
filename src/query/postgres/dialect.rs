//! PostgreSQL's dialect: what its clients say, in the engine's words.

use std::ops::ControlFlow;

use datafusion::sql::sqlparser::ast::{
    AccessExpr, Array, ArrayElemTypeDef, CastKind, DataType, Expr, Function, FunctionArg, FunctionArgExpr,
    FunctionArgumentList, FunctionArguments, Ident, Query, SelectItem, SetExpr, Statement as Sql, TableAliasColumnDef,
    TableFactor, TableWithJoins, Value, ValueWithSpan, VisitMut as _, VisitorMut, visit_expressions_mut,
};
use datafusion::sql::sqlparser::dialect::PostgreSqlDialect;
use datafusion::sql::sqlparser::parser::{Parser, ParserError};
use datafusion_pg_catalog::sql::PostgresCompatibilityParser;
use pgwire::api::results::{Response, Tag};

use super::forms::read_forms;

/// Of the dialect and catalog, by which clients choose their questions; then whose server it is.
pub(super) const VERSION: &str = concat!("16.6 (Volant ", env!("CARGO_PKG_VERSION"), ")");
/// The answer of `version()`, whose words clients read.
pub(super) const VERSION_TEXT: &str = concat!("PostgreSQL 16.6 (Volant ", env!("CARGO_PKG_VERSION"), ")");

/// PostgreSQL's settings as they are here; what is not told at the start is answered when asked for.
pub(super) const SETTINGS: [(&str, &str); 18] = [
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
    ("max_index_keys", "32"),
    ("default_table_access_method", "heap"),
];

/// The value of one of them, or of the version.
pub(super) fn setting(name: &str) -> Option<&'static str> {
    let known = SETTINGS.iter().copied().chain([("server_version", VERSION)]);
    known.into_iter().find(|(known, _)| known.eq_ignore_ascii_case(name)).map(|(_, value)| value)
}

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
            Sql::UNLISTEN { .. } => Self::Nothing("UNLISTEN"),
            _ => return None,
        })
    }
}

/// Reads statements.
///
/// Those about PostgreSQL's catalog are put in the engine's words, which among other things takes lookups from rows of another
/// table for NULL. All others mean what they say, but for lists that came as text and forms of PostgreSQL's own ([`super::forms`]).
pub(super) fn read(parser: &PostgresCompatibilityParser, sql: &str) -> Result<Vec<Sql>, ParserError> {
    let lower = sql.to_ascii_lowercase();
    if !["pg_", "regclass", "regtype", "regproc"].iter().any(|word| lower.contains(word)) {
        let mut statements = Parser::parse_sql(&PostgreSqlDialect {}, sql)?;
        statements.iter_mut().try_for_each(read_forms)?;
        statements.iter_mut().for_each(read_lists);
        return Ok(statements);
    }
    // asyncpg asks for everything that a type is made of. Ours are numbers, texts and lists of them.
    let sql = if lower.contains("typeinfo_tree") { TYPES } else { sql };
    // The schema is meant, and the library looks for the name in ours.
    let sql = sql.replace("'pg_class'::regclass", "'pg_catalog.pg_class'::regclass");
    let mut statements = parser.parse(&sql)?;
    statements.iter_mut().try_for_each(read_forms)?;
    statements.iter_mut().for_each(plainly);
    statements.iter_mut().for_each(read_lists);
    Ok(statements)
}

/// Types by number, and those of their members, in asyncpg's columns.
const TYPES: &str = "\
    SELECT t.oid AS oid, 'pg_catalog' AS ns, t.typname AS name, t.typtype AS kind, CAST(NULL AS oid) AS basetype, \
    t.typelem AS elemtype, m.typdelim AS elemdelim, CAST(NULL AS oid) AS range_subtype, CAST(NULL AS text[]) AS attrtypoids, \
    CAST(NULL AS text[]) AS attrnames, CASE WHEN t.oid = ANY($1::oid[]) THEN 0 ELSE 1 END AS depth, \
    CAST(NULL AS text) AS basetype_name, m.typname AS elemtype_name, CAST(NULL AS text) AS range_subtype_name \
    FROM pg_catalog.pg_type t LEFT JOIN pg_catalog.pg_type m ON t.typelem = m.oid \
    WHERE t.oid = ANY($1::oid[]) \
    OR t.oid IN (SELECT l.typelem FROM pg_catalog.pg_type l WHERE l.oid = ANY($1::oid[])) \
    ORDER BY depth DESC";

/// True for [`TYPES`], however it was put since.
pub(super) fn asks_for_types(sql: &str) -> bool {
    sql.contains("attrtypoids")
}

/// Takes placeholders and texts for lists where a list is meant; see [`super::arrays`].
fn read_lists(statement: &mut Sql) {
    let is_text = |expression: &Expr| {
        let Expr::Value(value) = expression else { return false };
        matches!(value.value, Value::Placeholder(_) | Value::SingleQuotedString(_))
    };
    let flow: ControlFlow<()> = visit_expressions_mut(statement, |expression| {
        if let Expr::AnyOp { right: list, .. }
        | Expr::AllOp { right: list, .. }
        | Expr::Cast { expr: list, data_type: DataType::Array(_), .. } = expression
            && is_text(list)
        {
            **list = call(super::arrays::NAME, vec![(**list).clone()]);
        }
        // What the library makes of `= ANY` in statements about the catalog.
        if let Expr::Function(Function { name, args: FunctionArguments::List(list), .. }) = expression
            && name.to_string() == "array_contains"
            && let Some(FunctionArg::Unnamed(FunctionArgExpr::Expr(list))) = list.args.first_mut()
            && is_text(list)
        {
            *list = call(super::arrays::NAME, vec![list.clone()]);
        }
        ControlFlow::Continue(())
    });
    debug_assert!(flow.is_continue());
}

/// The statement in the engine's words: clients ask for settings of PostgreSQL's that no engine has.
pub(super) fn asked(statement: &Sql) -> String {
    let Sql::ShowVariable { variable } = statement else { return statement.to_string() };
    let name = variable.iter().map(|word| word.value.to_ascii_lowercase()).collect::<Vec<_>>().join("_");
    setting(&name).map_or_else(|| statement.to_string(), |value| format!("SELECT '{value}' AS \"{name}\""))
}

/// Tables of PostgreSQL's catalog that say nothing here: there are no defaults, sequences, constraints, indexes, collations.
const EMPTY_TABLES: [&str; 5] = ["pg_attrdef", "pg_sequence", "pg_constraint", "pg_index", "pg_collation"];
/// Their columns that hold lists.
const LISTS: [&str; 5] = ["conkey", "confkey", "indkey", "indclass", "indoption"];

/// Functions of one object's number, and the question that answers them; `$1` and `$2` are their arguments. Such a question must give
/// one row whatever is asked, so it asks for the largest.
const LOOKUPS: [(&str, usize, &str); 4] = [
    (
        "col_description",
        2,
        "SELECT max(found.description) FROM pg_catalog.pg_description found WHERE found.objoid = $1 AND found.objsubid = $2",
    ),
    (
        "obj_description",
        1,
        "SELECT max(found.description) FROM pg_catalog.pg_description found WHERE found.objoid = $1 AND found.objsubid = 0",
    ),
    (
        "obj_description",
        2,
        "SELECT max(found.description) FROM pg_catalog.pg_description found WHERE found.objoid = $1 AND found.objsubid = 0 \
         AND $2 = 'pg_class'",
    ),
    (
        "pg_get_viewdef",
        1,
        "SELECT max(found.definition) FROM pg_catalog.pg_views found JOIN pg_catalog.pg_class of ON of.relname = found.viewname \
         WHERE of.oid = $1",
    ),
];

/// Puts plainly what clients ask in ways that the engine cannot plan: one value looked up where nothing is is NULL, a list
/// there is one of numbers or NULL, its members are NULL, a description is looked up, the one value of a row of another table is
/// its largest, columns have names of their own, a function in an answer is its name, and a pattern is escaped by a backslash.
fn plainly(statement: &mut Sql) {
    let null_of = |data_type| Expr::Cast {
        kind: CastKind::Cast,
        expr: Box::new(Expr::Value(Value::Null.into())),
        data_type,
        array: false,
        format: None,
    };
    read_functions(statement);
    let flow = statement.visit(&mut NameColumns);
    debug_assert!(flow.is_continue());
    let flow: ControlFlow<()> = visit_expressions_mut(statement, |expression| {
        match expression {
            Expr::Subquery(query) if looks_up_nothing(query) => *expression = Expr::Value(Value::Null.into()),
            Expr::Subquery(query) => take_the_largest(query),
            Expr::CompoundFieldAccess { root, access_chain } if is_member_of_nothing(root, access_chain) => {
                *expression = null_of(DataType::SmallInt(None));
            }
            Expr::Function(function) if function.name.to_string().ends_with("_pg_expandarray") => {
                *expression = null_of(DataType::SmallInt(None));
            }
            Expr::Function(Function { name, args: FunctionArguments::List(list), .. })
                if ["unnest", "generate_subscripts"]
                    .iter()
                    .any(|of_list| name.to_string().to_ascii_lowercase().ends_with(of_list))
                    && list.args.iter().any(is_list_of_nothing) =>
            {
                list.args = vec![FunctionArg::Unnamed(FunctionArgExpr::Expr(list_of_zero()))];
                *name = vec![Ident::new("unnest")].into();
            }
            Expr::Function(function) if is_text_of_rights(function) => *expression = Expr::Value(Value::Null.into()),
            Expr::Function(function) if is_list_of_nobody(function) => {
                let of_text = ArrayElemTypeDef::SquareBracket(Box::new(DataType::Text), None);
                *expression = null_of(DataType::Array(of_text));
            }
            Expr::Function(function) => {
                if let Some(question) = looked_up(function) {
                    *expression = question;
                }
            }
            Expr::Cast { expr, data_type: DataType::Text, .. } => {
                if let Some(name) = name_of_function(expr) {
                    *expression = name;
                }
            }
            Expr::Like { pattern, escape_char, .. } => escape_by_backslash(pattern, escape_char),
            _ => {}
        }
        ControlFlow::Continue(())
    });
    debug_assert!(flow.is_continue());
}

/// Gives constants and [`LOOKUPS`] of a selection the names that PostgreSQL gives them, each another, which the engine wants.
struct NameColumns;

impl VisitorMut for NameColumns {
    type Break = ();

    fn pre_visit_query(&mut self, query: &mut Query) -> ControlFlow<()> {
        let SetExpr::Select(select) = query.body.as_mut() else { return ControlFlow::Continue(()) };
        let mut given: Vec<&str> = Vec::new();
        for (place, item) in select.projection.iter_mut().enumerate() {
            let SelectItem::UnnamedExpr(expr) = item else { continue };
            let name = match expr {
                Expr::Value(_) => "?column?",
                Expr::Function(function) => match lookup_named(function) {
                    Some((name, ..)) => name,
                    None => continue,
                },
                _ => continue,
            };
            let alias = if given.contains(&name) { format!("{name}{place}") } else { name.to_owned() };
            given.push(name);
            *item = SelectItem::ExprWithAlias { expr: expr.clone(), alias: Ident::with_quote('"', alias) };
        }
        ControlFlow::Continue(())
    }

    /// Members of a list of [`LISTS`] as rows: there are none that an object has, so one of number 0 stands for them. A column is
    /// called as its table, as PostgreSQL does.
    fn pre_visit_table_factor(&mut self, factor: &mut TableFactor) -> ControlFlow<()> {
        if let TableFactor::UNNEST { alias: Some(alias), array_exprs, .. } = factor
            && array_exprs.iter().all(is_list)
        {
            *array_exprs = vec![list_of_zero()];
            if alias.columns.is_empty() {
                alias.columns = vec![TableAliasColumnDef { name: alias.name.clone(), data_type: None }];
            }
        }
        ControlFlow::Continue(())
    }
}

/// A list of the number 0, which no object has.
fn list_of_zero() -> Expr {
    let zero = Expr::Value(Value::Number("0".to_owned(), false).into());
    Expr::Array(Array { elem: vec![zero], named: true })
}

/// One value of one row of PostgreSQL's tables, asked for without saying that there is one.
fn take_the_largest(query: &mut Query) {
    let SetExpr::Select(select) = query.body.as_mut() else { return };
    let of_theirs = |from: &TableWithJoins| match &from.relation {
        TableFactor::Table { name, .. } => name.to_string().starts_with("pg_"),
        _ => false,
    };
    let [SelectItem::UnnamedExpr(value) | SelectItem::ExprWithAlias { expr: value, .. }] =
        select.projection.as_mut_slice()
    else {
        return;
    };
    let plain = matches!(value, Expr::Identifier(_) | Expr::CompoundIdentifier(_) | Expr::BinaryOp { .. });
    if plain && select.selection.is_some() && select.from.iter().all(of_theirs) && query.limit_clause.is_none() {
        *value = call("max", vec![value.clone()]);
    }
}

/// A member of a list of [`LISTS`], or of a row of `_pg_expandarray`.
fn is_member_of_nothing(root: &Expr, members: &[AccessExpr]) -> bool {
    match members {
        [AccessExpr::Dot(Expr::Identifier(member))] => ["x", "n"].contains(&member.value.as_str()),
        [AccessExpr::Subscript(_)] => is_list(root),
        [.., AccessExpr::Dot(Expr::Identifier(list)), AccessExpr::Subscript(_)] => names_list(list),
        _ => false,
    }
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

/// `ARRAY(SELECT …)` about roles and options, of which there are none.
fn is_list_of_nobody(function: &Function) -> bool {
    let FunctionArguments::Subquery(query) = &function.args else { return false };
    let query = query.to_string();
    function.name.to_string().eq_ignore_ascii_case("array") && (query.contains("pg_") || query.contains("options"))
}

/// A list of rights as text: there are none, whoever may come in may ask everything.
fn is_text_of_rights(function: &Function) -> bool {
    let FunctionArguments::List(list) = &function.args else { return false };
    let of_rights = |argument: &FunctionArg| argument.to_string().to_ascii_lowercase().ends_with("acl");
    function.name.to_string().ends_with("array_to_string") && list.args.first().is_some_and(of_rights)
}

fn lookup_named(function: &Function) -> Option<(&'static str, usize, &'static str)> {
    let FunctionArguments::List(list) = &function.args else { return None };
    let name = function.name.to_string().to_ascii_lowercase();
    let name = name.rsplit('.').next().unwrap_or_default();
    // How a view's text is laid out may be asked for; it comes as it is.
    let taken = if name == "pg_get_viewdef" { 1 } else { list.args.len() };
    LOOKUPS.iter().copied().find(|(known, count, _)| *known == name && *count == taken)
}

/// Columns that hold functions: numbers to compare and join by, names to read.
const FUNCTION_COLUMNS: [&str; 4] = ["typinput", "typoutput", "typreceive", "typsend"];

/// The name of the function that such a column holds.
fn name_of_function(column: &Expr) -> Option<Expr> {
    let name = match column {
        Expr::Identifier(name) => name,
        Expr::CompoundIdentifier(path) => path.last()?,
        _ => return None,
    };
    let of = "SELECT max(found.proname) FROM pg_catalog.pg_proc found WHERE found.oid = $1";
    FUNCTION_COLUMNS.contains(&name.value.as_str()).then(|| question_of(of, &[column]))?
}

/// Gives the names of functions where the columns of an answer hold them.
fn read_functions(statement: &mut Sql) {
    let Sql::Query(query) = statement else { return };
    let SetExpr::Select(select) = query.body.as_mut() else { return };
    for item in &mut select.projection {
        let SelectItem::UnnamedExpr(column) = item else { continue };
        if let Some(expr) = name_of_function(column) {
            let alias = match column {
                Expr::CompoundIdentifier(path) => path.pop(),
                Expr::Identifier(name) => Some(name.clone()),
                _ => None,
            };
            *item = match alias {
                Some(alias) => SelectItem::ExprWithAlias { expr, alias },
                None => SelectItem::UnnamedExpr(expr),
            };
        }
    }
}

/// A function of [`LOOKUPS`] as its question.
fn looked_up(function: &Function) -> Option<Expr> {
    let FunctionArguments::List(list) = &function.args else { return None };
    let arguments: Vec<&Expr> = list
        .args
        .iter()
        .filter_map(|argument| match argument {
            FunctionArg::Unnamed(FunctionArgExpr::Expr(expression)) => Some(expression),
            _ => None,
        })
        .collect();
    let (_, _, question) = lookup_named(function)?;
    question_of(question, &arguments)
}

/// A question of [`LOOKUPS`]' kind with its arguments.
fn question_of(question: &str, arguments: &[&Expr]) -> Option<Expr> {
    let Sql::Query(mut query) = Parser::parse_sql(&PostgreSqlDialect {}, question).ok()?.pop()? else { return None };
    let flow: ControlFlow<()> = visit_expressions_mut(&mut query, |expression| {
        let place = match expression {
            Expr::Value(ValueWithSpan { value: Value::Placeholder(place), .. }) => place[1..].parse::<usize>().ok(),
            _ => None,
        };
        if let Some(argument) = place.and_then(|place| arguments.get(place - 1)) {
            *expression = (*argument).clone();
        }
        ControlFlow::Continue(())
    });
    debug_assert!(flow.is_continue());
    Some(Expr::Subquery(query))
}

fn is_list_of_nothing(argument: &FunctionArg) -> bool {
    matches!(argument, FunctionArg::Unnamed(FunctionArgExpr::Expr(list)) if is_list(list))
}

fn is_list(expression: &Expr) -> bool {
    match expression {
        Expr::CompoundIdentifier(path) => path.last().is_some_and(names_list),
        Expr::Identifier(column) => names_list(column),
        _ => false,
    }
}

/// Clients put a word of their own before the column's name.
fn names_list(column: &Ident) -> bool {
    let column = column.value.to_ascii_lowercase();
    LISTS.iter().any(|list| column.ends_with(list))
}

fn escape_by_backslash(pattern: &mut Expr, escape: &mut Option<ValueWithSpan>) {
    let Some(Value::SingleQuotedString(by)) = escape.as_ref().map(|escape| escape.value.clone()) else { return };
    if by == "\\" || by.chars().count() != 1 {
        return;
    }
    let text = |text: &str| Expr::Value(Value::SingleQuotedString(text.to_owned()).into());
    *pattern = call("replace", vec![pattern.clone(), text(&by), text("\\")]);
    *escape = None;
}

pub(super) fn call(name: &str, arguments: Vec<Expr>) -> Expr {
    Expr::Function(Function {
        name: vec![Ident::new(name)].into(),
        uses_odbc_syntax: false,
        parameters: FunctionArguments::None,
        args: FunctionArguments::List(FunctionArgumentList {
            duplicate_treatment: None,
            args: arguments.into_iter().map(|argument| FunctionArg::Unnamed(FunctionArgExpr::Expr(argument))).collect(),
            clauses: Vec::new(),
        }),
        filter: None,
        null_treatment: None,
        over: None,
        within_group: Vec::new(),
    })
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
        assert!(default.starts_with("SELECT NULL AS "), "{default}");
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
    fn descriptions_are_looked_up_and_columns_have_names() {
        let described = put("SELECT obj_description(c.oid, 'pg_class'), 1, 2 FROM pg_class c");
        assert!(
            described.contains("max(found.description)") && described.contains("found.objoid = c.oid"),
            "{described}"
        );
        assert!(
            described.contains("AS \"obj_description\", 1 AS \"?column?\", 2 AS \"?column?2\" FROM"),
            "{described}"
        );
        let text = put("SELECT pg_catalog.pg_get_viewdef('7'::pg_catalog.oid, true)");
        assert!(text.contains("max(found.definition)"), "{text}");
        let functions =
            put("SELECT t.oid, t.typreceive FROM pg_type t WHERE t.typreceive != 0 AND t.typsend::TEXT <> 'a'");
        assert!(functions.starts_with("SELECT t.oid, (SELECT max(found.proname)"), "{functions}");
        assert!(functions.contains("WHERE t.typreceive <> 0 AND (SELECT max("), "{functions}");
        let none = put("SELECT con.conkey[pos.n], (result.KEYS).x FROM pg_constraint con, pos, result");
        assert!(!none.contains("conkey") && !none.contains("KEYS"), "{none}");
        let own = put("SELECT 1, 1 FROM frames");
        assert_eq!(own, "SELECT 1, 1 FROM frames", "other statements mean what they say");
    }

    #[test]
    fn a_list_that_comes_as_text_is_read() {
        assert_eq!(
            put("SELECT count(*) FROM frames WHERE sensor = ANY($1)"),
            "SELECT count(*) FROM frames WHERE sensor = ANY(list_from_text($1))"
        );
        let cast = put("SELECT $1::bigint[], 'a'::text, ARRAY[1]::text[] FROM pg_class WHERE relkind = ANY($2)");
        assert!(cast.contains("list_from_text($1)::BIGINT[]"), "{cast}");
        assert!(cast.contains("array_contains(list_from_text($2), relkind)"), "{cast}");
        assert!(cast.contains("'a'::TEXT") && cast.contains("ARRAY[1]::TEXT[]"), "{cast}");
    }

    #[test]
    fn a_value_of_one_row_of_theirs_is_the_largest_and_one_of_ours_is_left() {
        let theirs =
            put("SELECT t.oid FROM pg_type t WHERE (SELECT c.relkind = 'c' FROM pg_class c WHERE c.oid = t.typrelid)");
        assert!(theirs.contains("(SELECT max(c.relkind = 'c') FROM"), "{theirs}");
        let ours = put("SELECT (SELECT s.stroke FROM strokes s WHERE s.session_id = 1) FROM pg_class");
        assert!(!ours.contains("max("), "{ours}");
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
