//! PostgreSQL's tables and functions about tables and functions.
//!
//! Most come from a library. Completed here is what says something of Volant: comments with units, the text of views, its
//! functions, and columns that clients ask for although they are always null.

use std::collections::HashMap;
use std::sync::Arc;

use arrow::array::{AsArray as _, Int32Array, StringArray};
use arrow::datatypes::{DataType, Int32Type};
use async_trait::async_trait;
use datafusion::catalog::information_schema::INFORMATION_SCHEMA;
use datafusion::catalog::{SchemaProvider, TableProvider};
use datafusion::common::ScalarValue;
use datafusion::datasource::ViewTable;
use datafusion::error::DataFusionError;
use datafusion::execution::context::SessionContext;
use datafusion::execution::session_state::SessionState;
use datafusion::logical_expr::{ColumnarValue, ScalarUDF, Signature, SimpleScalarUDF, Volatility, create_udf};
use datafusion_pg_catalog::pg_catalog::context::EmptyContextProvider;
use datafusion_pg_catalog::setup_pg_catalog;
use pgwire::api::Type;

use super::super::engine::CATALOG;
use super::super::functions::FUNCTIONS;
use super::super::views::{VIEWS, View, plan_of};
use super::arrays::ListFromText;
use super::dialect::{SETTINGS, VERSION_TEXT, setting};

/// The schema of PostgreSQL's own tables.
const SCHEMA: &str = "pg_catalog";

/// Adds them to an engine of their own.
pub(in crate::query) fn add_catalog(context: &SessionContext) -> Result<(), DataFusionError> {
    setup_pg_catalog(context, CATALOG, EmptyContextProvider).map_err(|error| *error)?;
    let answer = Arc::new(|_: &[ColumnarValue]| Ok(ColumnarValue::Scalar(ScalarValue::from(VERSION_TEXT))));
    context.register_udf(create_udf("version", Vec::new(), DataType::Utf8, Volatility::Stable, answer));
    let number = Arc::new(|arguments: &[ColumnarValue]| {
        let names = ColumnarValue::values_to_arrays(arguments)?;
        let names: &StringArray = names[0].as_string();
        let numbers = names.iter().map(|name| TYPES.iter().find(|known| Some(known.name()) == name));
        let numbers: Int32Array = numbers.map(|known| known.map(|known| known.oid() as i32)).collect();
        Ok(ColumnarValue::Array(Arc::new(numbers)))
    });
    let text = vec![DataType::Utf8];
    context.register_udf(create_udf("to_regtype", text, DataType::Int32, Volatility::Stable, number));
    let setting = Arc::new(|arguments: &[ColumnarValue]| {
        let names = ColumnarValue::values_to_arrays(arguments)?;
        let names: &StringArray = names[0].as_string();
        let values: StringArray = names.iter().map(|name| setting(name?)).collect();
        Ok(ColumnarValue::Array(Arc::new(values)))
    });
    context.register_udf(create_udf(
        "current_setting",
        vec![DataType::Utf8],
        DataType::Utf8,
        Volatility::Stable,
        setting,
    ));
    for (name, of_function) in [
        ("pg_get_function_arguments", (|function| function.arguments) as fn(&Function) -> &'static str),
        ("pg_get_function_identity_arguments", |function| function.arguments),
        ("pg_get_function_result", |function| function.result),
    ] {
        let told = Arc::new(move |arguments: &[ColumnarValue]| {
            let numbers = ColumnarValue::values_to_arrays(arguments)?;
            let numbers = numbers[0].as_primitive::<Int32Type>().iter();
            let texts: StringArray = numbers.map(|number| function_of(number?).as_ref().map(of_function)).collect();
            Ok(ColumnarValue::Array(Arc::new(texts)))
        });
        let number = vec![DataType::Int32];
        context.register_udf(create_udf(name, number, DataType::Utf8, Volatility::Stable, told));
    }
    for name in ["pg_collation_is_visible", "pg_function_is_visible", "pg_type_is_visible"] {
        let yes = Arc::new(|_: &[ColumnarValue]| Ok(ColumnarValue::Scalar(ScalarValue::from(true))));
        let any = Signature::any(1, Volatility::Stable);
        let udf = SimpleScalarUDF::new_with_signature(name, any, DataType::Boolean, yes);
        context.register_udf(ScalarUDF::new_from_impl(udf));
    }
    context.register_udf(ScalarUDF::new_from_impl(ListFromText::new()));
    let none = Arc::new(|_: &[ColumnarValue]| Ok(ColumnarValue::Scalar(ScalarValue::from(0_i32))));
    context.register_udf(create_udf("pg_my_temp_schema", Vec::new(), DataType::Int32, Volatility::Stable, none));
    for (name, arguments) in NOTHING_SUCH {
        let none = Arc::new(|_: &[ColumnarValue]| Ok(ColumnarValue::Scalar(ScalarValue::Utf8(None))));
        let udf = SimpleScalarUDF::new_with_signature(
            name,
            arguments.map_or(Signature::variadic_any(Volatility::Stable), |n| Signature::any(n, Volatility::Stable)),
            DataType::Utf8,
            none,
        );
        context.register_udf(ScalarUDF::new_from_impl(udf));
    }
    complete(context)
}

/// Functions about sequences, indexes, sizes, places and sources, of which there are none: they answer NULL. With their arguments.
const NOTHING_SUCH: [(&str, Option<usize>); 11] = [
    ("pg_get_serial_sequence", Some(2)),
    ("pg_get_indexdef", None),
    ("pg_get_functiondef", Some(1)),
    ("pg_get_function_sqlbody", Some(1)),
    ("shobj_description", Some(2)),
    ("json_build_object", None),
    ("pg_size_pretty", Some(1)),
    ("pg_table_size", Some(1)),
    ("pg_database_size", Some(1)),
    ("pg_tablespace_location", Some(1)),
    ("pg_tablespace_size", Some(1)),
];

/// Puts the tables that say something of Volant before the library's and the engine's of the same name.
fn complete(context: &SessionContext) -> Result<(), DataFusionError> {
    let state = context.state();
    let missing = || DataFusionError::Plan("PostgreSQL's catalog is not there".to_owned());
    let catalog = context.catalog(CATALOG).ok_or_else(missing)?;
    let theirs = [
        ("pg_class", CLASSES.to_owned()),
        ("pg_description", DESCRIPTIONS.to_owned()),
        ("pg_proc", functions_too()),
        ("pg_settings", settings()),
        ("pg_type", types()),
        ("pg_views", views()),
    ];
    // All are planned before any takes a place: they read those whose place they take.
    let mut completed = Vec::new();
    for (schema, tables) in [(SCHEMA, theirs.to_vec()), (INFORMATION_SCHEMA, vec![("columns", columns())])] {
        let library = catalog.schema(schema).ok_or_else(missing)?;
        let mut own: HashMap<&str, Arc<dyn TableProvider>> = HashMap::new();
        for (name, sql) in tables {
            own.insert(name, Arc::new(view(&state, sql)?));
        }
        completed.push((schema, Arc::new(Completed { library, own })));
    }
    for (schema, completed) in completed {
        catalog.register_schema(schema, completed)?;
    }
    Ok(())
}

fn view(state: &SessionState, sql: String) -> Result<ViewTable, DataFusionError> {
    Ok(ViewTable::new(plan_of(state, &sql)?, Some(sql)))
}

/// A schema of the library or the engine, with tables of our own in place of some.
#[derive(Debug)]
struct Completed {
    library: Arc<dyn SchemaProvider>,
    own: HashMap<&'static str, Arc<dyn TableProvider>>,
}

#[async_trait]
impl SchemaProvider for Completed {
    fn table_names(&self) -> Vec<String> {
        self.library.table_names()
    }

    async fn table(&self, name: &str) -> Result<Option<Arc<dyn TableProvider>>, DataFusionError> {
        match self.own.get(name) {
            Some(table) => Ok(Some(Arc::clone(table))),
            None => self.library.table(name).await,
        }
    }

    fn table_exist(&self, name: &str) -> bool {
        self.library.table_exist(name)
    }
}

/// Relations, with lists that are always null.
const CLASSES: &str = "SELECT *, arrow_cast(NULL, 'List(Utf8)') AS reloptions, arrow_cast(NULL, 'List(Utf8)') AS relacl \
                       FROM pg_catalog.pg_class";

/// What tables, views and their columns are, as the data dictionary says.
const DESCRIPTIONS: &str = "\
    SELECT c.oid AS objoid, k.oid AS classoid, d.ordinal_position AS objsubid, d.comment AS description \
    FROM pg_catalog.pg_class c \
    JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace AND n.nspname = 'public' \
    JOIN data_dictionary d ON d.table_name = c.relname AND d.comment IS NOT NULL \
    CROSS JOIN (SELECT max(oid) AS oid FROM pg_catalog.pg_class WHERE relname = 'pg_class') k";

/// A function of Volant's, as clients see it.
struct Function {
    number: i32,
    name: &'static str,
    arguments: &'static str,
    result: &'static str,
}

impl Function {
    fn is_table(&self) -> bool {
        self.result == TABLE
    }
}

/// Numbers of our functions count on from here, above those of PostgreSQL's own and of tables.
const FUNCTIONS_FROM: i32 = 1_000_000_000;

/// What a table function gives.
const TABLE: &str = "SETOF record";

/// What an aggregate gives: the type of its first argument.
const AGGREGATED: &str = "anyelement";

/// What the others give.
const RESULTS: [(&str, &str); 5] = [
    ("vector_magnitude", "double precision"),
    ("session_time_to_utc", "timestamp without time zone"),
    ("arg_max", AGGREGATED),
    ("arg_min", AGGREGATED),
    ("json_get_float", "double precision"),
];

/// In the order of the data dictionary.
fn functions() -> impl Iterator<Item = Function> {
    FUNCTIONS.iter().zip(FUNCTIONS_FROM..).map(|(&(call, _), number)| {
        let (name, rest) = call.split_once('(').unwrap_or((call, ""));
        let arguments = rest.split_once(')').map_or("", |(arguments, _)| arguments);
        let result = RESULTS.iter().find(|(known, _)| *known == name).map_or(TABLE, |(_, result)| result);
        Function { number, name, arguments, result }
    })
}

fn function_of(number: i32) -> Option<Function> {
    functions().find(|function| function.number == number)
}

/// PostgreSQL's functions and Volant's.
fn functions_too() -> String {
    let (record, anything) = (Type::RECORD.oid(), Type::ANY.oid());
    let rows = functions().map(|function| {
        let Function { number, name, arguments, .. } = function;
        let count = arguments.split(',').count();
        let kinds = vec![anything.to_string(); count].join(" ");
        let (set, kind) = if function.is_table() { (true, record) } else { (false, anything) };
        let form = if function.result == AGGREGATED { 'a' } else { 'f' };
        format!("({number}, '{name}', {count}, '{kinds}', {set}, {kind}, '{form}')")
    });
    let rows = rows.collect::<Vec<_>>().join(", ");
    // The columns of `pg_proc` in its order; a name of their own each, because a projection needs that.
    let columns = [
        "CAST(f.number AS INT)",
        "f.name",
        "n.oid",
        "CAST(10 AS INT)",
        "CAST(12 AS INT)",
        "CAST(1 AS REAL)",
        "CAST(0 AS REAL)",
        "CAST(0 AS INT)",
        "'-'",
        "f.form",
        "false",
        "false",
        "true",
        "f.is_set",
        "'s'",
        "'s'",
        "CAST(f.arguments AS SMALLINT)",
        "CAST(0 AS SMALLINT)",
        "CAST(f.kind AS INT)",
        "f.kinds",
        "NULL",
        "NULL",
        "NULL",
        "NULL",
        "NULL",
        "f.name",
        "NULL",
        "NULL",
        "NULL",
        "NULL",
    ];
    let columns: Vec<String> = columns.iter().enumerate().map(|(at, column)| format!("{column} AS c{at}")).collect();
    format!(
        "SELECT * FROM pg_catalog.pg_proc UNION ALL SELECT {} FROM (VALUES {rows}) AS f (number, name, arguments, kinds, is_set, kind, form) \
         JOIN pg_catalog.pg_namespace n ON n.nspname = 'public'",
        columns.join(", ")
    )
}

/// Types, whose functions are numbers as in PostgreSQL; the library has their names.
fn types() -> String {
    let functions = ["typinput", "typoutput", "typreceive", "typsend"];
    let numbers = functions.map(|column| format!("coalesce(of_{column}.oid, 0) AS {column}")).join(", ");
    let of_name = "(SELECT proname, max(oid) AS oid FROM pg_catalog.pg_proc GROUP BY proname)";
    let joins = functions
        .map(|column| format!("LEFT JOIN {of_name} of_{column} ON of_{column}.proname = t.{column}"))
        .join(" ");
    format!("SELECT t.* REPLACE ({numbers}) FROM pg_catalog.pg_type t {joins}")
}

/// Columns, with the types' names as in PostgreSQL.
fn columns() -> String {
    let cases = ARROW_TYPES.map(|(arrow, theirs)| format!("WHEN data_type = '{arrow}' THEN '{theirs}'")).join(" ");
    format!(
        "SELECT * REPLACE (CASE {cases} WHEN starts_with(data_type, 'Timestamp') THEN 'timestamp without time zone' \
         ELSE lower(data_type) END AS data_type) FROM information_schema.columns"
    )
}

/// Types of columns by their names in Arrow and in PostgreSQL.
const ARROW_TYPES: [(&str, &str); 8] = [
    ("Boolean", "boolean"),
    ("Int16", "smallint"),
    ("Int32", "integer"),
    ("Int64", "bigint"),
    ("Float32", "real"),
    ("Float64", "double precision"),
    ("Utf8", "text"),
    ("Date32", "date"),
];

/// Settings as a table.
fn settings() -> String {
    let rows = SETTINGS.map(|(name, value)| format!("('{name}', '{value}')")).join(", ");
    let unsaid = [
        "unit",
        "category",
        "short_desc",
        "extra_desc",
        "context",
        "vartype",
        "source",
        "min_val",
        "max_val",
        "enumvals",
    ];
    let unsaid = unsaid.map(|column| format!("CAST(NULL AS TEXT) AS {column}")).join(", ");
    format!(
        "SELECT s.name, s.setting, {unsaid}, s.setting AS boot_val, s.setting AS reset_val, CAST(NULL AS TEXT) AS sourcefile, \
         CAST(NULL AS INT) AS sourceline, false AS pending_restart FROM (VALUES {rows}) AS s (name, setting)"
    )
}

/// Views and their text.
fn views() -> String {
    let row = |view: &View| format!("('public', '{}', 'postgres', '{}')", view.name, view.sql.replace('\'', "''"));
    let rows = VIEWS.iter().map(row).collect::<Vec<_>>().join(", ");
    format!("SELECT * FROM (VALUES {rows}) AS v (schemaname, viewname, viewowner, definition)")
}

/// The types that answers have.
const TYPES: [Type; 13] = [
    Type::BOOL,
    Type::BYTEA,
    Type::INT2,
    Type::INT4,
    Type::INT8,
    Type::FLOAT4,
    Type::FLOAT8,
    Type::NUMERIC,
    Type::TEXT,
    Type::VARCHAR,
    Type::DATE,
    Type::TIMESTAMP,
    Type::TIMESTAMPTZ,
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_function_says_what_it_takes_and_gives() {
        for (function, (call, comment)) in functions().zip(FUNCTIONS) {
            assert!(call.starts_with(function.name) && !function.arguments.is_empty(), "{call}");
            assert_eq!(function.is_table(), comment.starts_with("table:"), "{call}: has no row in RESULTS");
            assert_eq!(function_of(function.number).map(|found| found.name), Some(function.name));
        }
    }
}
