//! The PostgreSQL wire: psql, BI tools and drivers ask in SQL and find PostgreSQL's catalog.
//!
//! Statements are those of the room, read only, within its limits; what clients say beside them (`BEGIN`, `SET`,
//! `DISCARD` and the like) is answered as PostgreSQL would and changes nothing. Values of prepared statements go to the
//! engine as values. A cancel request and a connection that ends both end the statement.
//!
//! Who may come in is the caller's question: [`Gate`] is asked without a password first, with one then. The wire is not
//! encrypted; on other machines' networks it belongs behind a tunnel, like HTTP behind its proxy.
//!
//! Absent: `COPY`, cursors, `LISTEN`, several statements with values in one message (the protocol has none).

use std::collections::HashMap;
use std::net::IpAddr;
use std::ops::ControlFlow;
use std::sync::Arc;

use arrow::array::{AsArray as _, Int32Array, StringArray};
use arrow::datatypes::{DataType, Field, Schema};
use arrow_pg::datatypes::df::deserialize_parameters;
use arrow_pg::datatypes::{arrow_schema_to_pg_fields, encode_recordbatch, into_pg_type};
use async_trait::async_trait;
use datafusion::common::{ParamValues, ScalarValue};
use datafusion::error::DataFusionError;
use datafusion::execution::context::SessionContext;
use datafusion::logical_expr::{ColumnarValue, ScalarUDF, Signature, SimpleScalarUDF, Volatility, create_udf};
use datafusion::sql::sqlparser::ast::{
    Array, CloseCursor, Expr, Function, FunctionArg, FunctionArgExpr, FunctionArgumentList, FunctionArguments, Ident,
    Query, SetExpr, Statement as Sql, TableFactor, Value, ValueWithSpan, visit_expressions_mut,
};
use datafusion::sql::sqlparser::dialect::PostgreSqlDialect;
use datafusion::sql::sqlparser::parser::{Parser, ParserError};
use datafusion_pg_catalog::pg_catalog::context::EmptyContextProvider;
use datafusion_pg_catalog::setup_pg_catalog;
use datafusion_pg_catalog::sql::PostgresCompatibilityParser;
use futures::future::BoxFuture;
use futures::{Sink, SinkExt, StreamExt, stream};
use pgwire::api::auth::{
    ServerParameterProvider, StartupHandler, finish_authentication, protocol_negotiation,
    save_startup_parameters_to_metadata,
};
use pgwire::api::cancel::{CancelHandler, DefaultCancelHandler};
use pgwire::api::portal::{Format, Portal};
use pgwire::api::query::{ExtendedQueryHandler, SimpleQueryHandler};
use pgwire::api::results::{FieldInfo, QueryResponse, Response, Tag};
use pgwire::api::stmt::QueryParser;
use pgwire::api::store::PortalStore;
use pgwire::api::{
    ClientInfo, ClientPortalStore, ConnectionGuard, ConnectionHandle, ConnectionManager, PgWireConnectionState,
    PgWireServerHandlers, PidSecretKeyGenerator, RandomPidSecretKeyGenerator, Type,
};
use pgwire::error::{ErrorInfo, PgWireError, PgWireResult};
use pgwire::messages::startup::Authentication;
use pgwire::messages::{PgWireBackendMessage, PgWireFrontendMessage};
use tokio::net::TcpListener;
use tokio::sync::{Semaphore, watch};
use tokio::task::JoinSet;

use super::engine::{Answer, CATALOG, Described, Handle};
use super::error::Error;

/// Connections at a time; each holds a task and a few buffers. PostgreSQL's own default.
const CONNECTIONS_LIMIT: usize = 100;

/// Of the dialect and catalog, by which clients choose their questions; then whose server it is.
const VERSION: &str = concat!("16.6 (Volant ", env!("CARGO_PKG_VERSION"), ")");
/// The answer of `version()`, whose words clients read.
const VERSION_TEXT: &str = concat!("PostgreSQL 16.6 (Volant ", env!("CARGO_PKG_VERSION"), ")");

/// PostgreSQL's settings as they are here; what is not told at the start is answered when asked for.
const SETTINGS: [(&str, &str); 16] = [
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

/// Says whether a caller at this address may ask, by the token it gave as its password.
pub type Gate = Arc<dyn Fn(IpAddr, Option<String>) -> BoxFuture<'static, Result<(), Refusal>> + Send + Sync>;

/// Why a caller may not ask.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// In words for the caller.
    pub message: String,
    /// A token may help.
    pub needs_token: bool,
}

/// PostgreSQL's tables and functions about tables and functions.
pub(super) fn add_catalog(context: &SessionContext) -> Result<(), DataFusionError> {
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
    for name in ["pg_collation_is_visible", "pg_function_is_visible", "pg_type_is_visible"] {
        let yes = Arc::new(|_: &[ColumnarValue]| Ok(ColumnarValue::Scalar(ScalarValue::from(true))));
        let any = Signature::any(1, Volatility::Stable);
        let udf = SimpleScalarUDF::new_with_signature(name, any, DataType::Boolean, yes);
        context.register_udf(ScalarUDF::new_from_impl(udf));
    }
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
    Ok(())
}

/// Functions about sequences, indexes and descriptions, of which there are none: they answer NULL. With their arguments.
const NOTHING_SUCH: [(&str, Option<usize>); 5] = [
    ("pg_get_serial_sequence", Some(2)),
    ("pg_get_indexdef", None),
    ("json_build_object", None),
    ("col_description", Some(2)),
    ("obj_description", None),
];

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

/// Answers connections until `stopping` turns true.
///
/// # Errors
/// [`Error::Engine`] if PostgreSQL's catalog does not fit the engine.
pub async fn serve(
    listener: TcpListener,
    handle: &Handle,
    gate: Gate,
    mut stopping: watch::Receiver<bool>,
) -> Result<(), Error> {
    let handle = handle.in_postgres_dialect()?;
    let reader = Arc::new(Reader { handle: handle.clone(), parser: PostgresCompatibilityParser::new() });
    let service = Arc::new(Service { handle, reader });
    let manager = Arc::new(ConnectionManager::new());
    let handlers = Arc::new(Handlers {
        service,
        startup: Arc::new(Startup {
            gate,
            manager: Arc::clone(&manager),
            keys: RandomPidSecretKeyGenerator::default(),
        }),
        cancel: Arc::new(DefaultCancelHandler::new(manager)),
    });
    let places = Arc::new(Semaphore::new(CONNECTIONS_LIMIT));
    let mut connections = JoinSet::new();
    loop {
        let accepted = tokio::select! {
            () = crate::shutdown::requested(&mut stopping) => return Ok(()),
            Some(_) = connections.join_next() => continue,
            accepted = listener.accept() => accepted,
        };
        let socket = match accepted {
            Ok((socket, _)) => socket,
            Err(error) => {
                tracing::warn!(error = &error as &dyn std::error::Error, "no connection could be taken");
                // Out of descriptors: others must end first.
                tokio::time::sleep(std::time::Duration::from_millis(100)).await;
                continue;
            }
        };
        let Ok(place) = Arc::clone(&places).try_acquire_owned() else {
            metrics::counter!("volant_query_postgres_refused_total").increment(1);
            continue;
        };
        let handlers = Arc::clone(&handlers);
        connections.spawn(async move {
            let _place = place;
            let _count = Count::one_more();
            if let Err(error) = pgwire::tokio::process_socket(socket, None, handlers).await {
                tracing::debug!("a PostgreSQL connection ended: {error}");
            }
        });
    }
}

/// One connection in the gauge.
struct Count;

impl Count {
    fn one_more() -> Self {
        metrics::gauge!("volant_query_postgres_connections").increment(1);
        Self
    }
}

impl Drop for Count {
    fn drop(&mut self) {
        metrics::gauge!("volant_query_postgres_connections").decrement(1);
    }
}

struct Handlers {
    service: Arc<Service>,
    startup: Arc<Startup>,
    cancel: Arc<DefaultCancelHandler>,
}

impl PgWireServerHandlers for Handlers {
    fn simple_query_handler(&self) -> Arc<impl SimpleQueryHandler> {
        Arc::clone(&self.service)
    }

    fn extended_query_handler(&self) -> Arc<impl ExtendedQueryHandler> {
        Arc::clone(&self.service)
    }

    fn startup_handler(&self) -> Arc<impl StartupHandler> {
        Arc::clone(&self.startup)
    }

    fn cancel_handler(&self) -> Arc<impl CancelHandler> {
        Arc::clone(&self.cancel)
    }
}

/// Lets callers in.
struct Startup {
    gate: Gate,
    manager: Arc<ConnectionManager>,
    keys: RandomPidSecretKeyGenerator,
}

impl Startup {
    async fn ask<C: ClientInfo>(&self, client: &C, token: Option<String>) -> Result<(), Refusal> {
        (self.gate)(client.socket_addr().ip(), token).await
    }

    async fn welcome<C>(&self, client: &mut C) -> PgWireResult<()>
    where
        C: ClientInfo + Sink<PgWireBackendMessage> + Unpin + Send + Sync,
        C::Error: std::fmt::Debug,
        PgWireError: From<<C as Sink<PgWireBackendMessage>>::Error>,
    {
        let (pid, key) = self.keys.generate(client);
        client.set_pid_and_secret_key(pid, key.clone());
        // Where the protocol's loop looks for what a cancel request ends.
        let (connection, guard) = self.manager.register(pid, key);
        client.session_extensions().insert::<Arc<ConnectionHandle>>(connection);
        client.session_extensions().insert::<ConnectionGuard>(guard);
        finish_authentication(client, &Parameters).await
    }
}

#[async_trait]
impl StartupHandler for Startup {
    async fn on_startup<C>(&self, client: &mut C, message: PgWireFrontendMessage) -> PgWireResult<()>
    where
        C: ClientInfo + Sink<PgWireBackendMessage> + Unpin + Send + Sync,
        C::Error: std::fmt::Debug,
        PgWireError: From<<C as Sink<PgWireBackendMessage>>::Error>,
    {
        let refused = match message {
            PgWireFrontendMessage::Startup(ref startup) => {
                protocol_negotiation(client, startup).await?;
                save_startup_parameters_to_metadata(client, startup);
                match self.ask(client, None).await {
                    Ok(()) => return self.welcome(client).await,
                    Err(refusal) if refusal.needs_token => {
                        client.set_state(PgWireConnectionState::AuthenticationInProgress);
                        let ask = PgWireBackendMessage::Authentication(Authentication::CleartextPassword);
                        return Ok(client.send(ask).await?);
                    }
                    Err(refusal) => refusal,
                }
            }
            PgWireFrontendMessage::PasswordMessageFamily(password) => {
                let token = password.into_password()?.password;
                match self.ask(client, Some(token.as_str().to_owned())).await {
                    Ok(()) => return self.welcome(client).await,
                    Err(refusal) => refusal,
                }
            }
            _ => return Ok(()),
        };
        // invalid_password
        Err(PgWireError::UserError(Box::new(ErrorInfo::new("FATAL".into(), "28P01".into(), refused.message))))
    }
}

/// What a client is told of the server.
struct Parameters;

impl ServerParameterProvider for Parameters {
    fn server_parameters<C: ClientInfo>(&self, client: &C) -> Option<HashMap<String, String>> {
        let said = |name: &str| client.metadata().get(name).cloned().unwrap_or_default();
        let (user, application) = (said("user"), said("application_name"));
        let own = [
            ("server_version", VERSION),
            ("session_authorization", user.as_str()),
            ("application_name", application.as_str()),
        ];
        let told =
            SETTINGS.iter().copied().filter(|(name, _)| !name.starts_with("transaction") && *name != "time_zone");
        Some(told.chain(own).map(|(name, value)| (name.to_owned(), value.to_owned())).collect())
    }
}

/// Answers statements.
struct Service {
    handle: Handle,
    reader: Arc<Reader>,
}

/// Reads statements.
struct Reader {
    handle: Handle,
    parser: PostgresCompatibilityParser,
}

/// A statement that was read.
#[derive(Clone, Debug)]
enum Prepared {
    /// Answered by the engine.
    Query { sql: String, described: Described },
    /// Answered with these words.
    Said(Said),
}

/// What is said beside questions.
#[derive(Clone, Copy, Debug)]
enum Said {
    Begin,
    End(&'static str),
    Nothing(&'static str),
}

impl Said {
    fn response(self) -> Response {
        match self {
            Self::Begin => Response::TransactionStart(Tag::new("BEGIN")),
            Self::End(word) => Response::TransactionEnd(Tag::new(word)),
            Self::Nothing(word) => Response::Execution(Tag::new(word)),
        }
    }

    /// `None` for what the engine answers, or refuses.
    fn of(statement: &Sql) -> Option<Self> {
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

/// The statement in the engine's words: clients ask for settings of PostgreSQL's that no engine has.
fn asked(statement: &Sql) -> String {
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

/// Reads statements.
///
/// Those about PostgreSQL's catalog are put in the engine's words, which among other things takes lookups from rows of another
/// table for NULL. All others mean what they say.
fn read(parser: &PostgresCompatibilityParser, sql: &str) -> Result<Vec<Sql>, ParserError> {
    let lower = sql.to_ascii_lowercase();
    if !["pg_", "regclass", "regtype", "regproc"].iter().any(|word| lower.contains(word)) {
        return Parser::parse_sql(&PostgreSqlDialect {}, sql);
    }
    let mut statements = parser.parse(sql)?;
    statements.iter_mut().for_each(plainly);
    Ok(statements)
}

impl Reader {
    /// The statements of a message, put as the engine understands them.
    fn parse(&self, sql: &str) -> PgWireResult<Vec<Sql>> {
        read(&self.parser, sql).map_err(|error| {
            // syntax_error
            PgWireError::UserError(Box::new(ErrorInfo::new("ERROR".into(), "42601".into(), error.to_string())))
        })
    }
}

impl Service {
    async fn answer(&self, sql: &str, values: Vec<ScalarValue>, format: &Format) -> PgWireResult<Response> {
        let answer = self.handle.query_with(sql, values, self.handle.limits()).await.map_err(|error| said(&error))?;
        Ok(Response::Query(rows(answer, format)?))
    }
}

/// The type of a placeholder, if the statement tells it.
fn known_type(parameter: &Field) -> Option<&DataType> {
    Some(parameter.data_type()).filter(|data_type| !data_type.is_null())
}

/// An answer as rows of the wire.
fn rows(answer: Answer, format: &Format) -> PgWireResult<QueryResponse> {
    let fields = Arc::new(arrow_schema_to_pg_fields(&answer.schema, format, None)?);
    let of_rows = Arc::clone(&fields);
    let rows = answer.batches.flat_map(move |batch| match batch {
        Ok(batch) => {
            let rows: Vec<_> = encode_recordbatch(Arc::clone(&of_rows), batch).collect();
            stream::iter(rows)
        }
        Err(error) => stream::iter(vec![Err(said(&error))]),
    });
    Ok(QueryResponse::new(fields, rows))
}

/// An error of the room in the wire's words; codes are those of PostgreSQL's appendix A.
fn said(error: &Error) -> PgWireError {
    let code = match error {
        Error::Syntax { .. } | Error::ManyStatements { .. } | Error::Empty => "42601",
        Error::Statement { .. } => "42000",
        Error::NotReadOnly { .. } => "25006",
        Error::Time { .. } => "57014",
        Error::Memory { .. } => "53200",
        Error::Busy { .. } => "53300",
        Error::Rows { .. } | Error::TooLong { .. } => "54000",
        Error::Encode { .. } => "0A000",
        _ => "58000",
    };
    let mut info = ErrorInfo::new("ERROR".into(), code.into(), error.to_string());
    info.hint = error.hint().map(str::to_owned);
    PgWireError::UserError(Box::new(info))
}

#[async_trait]
impl SimpleQueryHandler for Service {
    async fn do_query<C>(&self, _client: &mut C, query: &str) -> PgWireResult<Vec<Response>>
    where
        C: ClientInfo + ClientPortalStore + Sink<PgWireBackendMessage> + Unpin + Send + Sync,
        C::PortalStore: PortalStore,
        C::Error: std::fmt::Debug,
        PgWireError: From<<C as Sink<PgWireBackendMessage>>::Error>,
    {
        let mut responses = Vec::new();
        for statement in self.reader.parse(query)? {
            responses.push(match Said::of(&statement) {
                Some(said) => said.response(),
                None => self.answer(&asked(&statement), Vec::new(), &Format::UnifiedText).await?,
            });
        }
        if responses.is_empty() {
            responses.push(Response::EmptyQuery);
        }
        Ok(responses)
    }
}

#[async_trait]
impl QueryParser for Reader {
    type Statement = Prepared;

    async fn parse_sql<C>(&self, _client: &C, sql: &str, _types: &[Option<Type>]) -> PgWireResult<Option<Prepared>>
    where
        C: ClientInfo + Unpin + Send + Sync,
    {
        let mut statements = self.parse(sql)?.into_iter();
        let (Some(statement), more) = (statements.next(), statements.len()) else { return Ok(None) };
        if more > 0 {
            return Err(said(&Error::ManyStatements { count: 1 + more }));
        }
        if let Some(said) = Said::of(&statement) {
            return Ok(Some(Prepared::Said(said)));
        }
        let sql = asked(&statement);
        let described = self.handle.describe(&sql).await.map_err(|error| said(&error))?;
        Ok(Some(Prepared::Query { sql, described }))
    }

    fn get_parameter_types(&self, statement: &Prepared) -> PgWireResult<Vec<Type>> {
        match statement {
            Prepared::Query { described, .. } => described
                .parameters
                .iter()
                .map(|field| known_type(field).map_or(Ok(Type::UNKNOWN), into_pg_type))
                .collect(),
            Prepared::Said(_) => Ok(Vec::new()),
        }
    }

    fn get_result_schema(&self, statement: &Prepared, format: Option<&Format>) -> PgWireResult<Vec<FieldInfo>> {
        let schema: &Schema = match statement {
            Prepared::Query { described, .. } => &described.schema,
            Prepared::Said(_) => return Ok(Vec::new()),
        };
        arrow_schema_to_pg_fields(schema, format.unwrap_or(&Format::UnifiedText), None)
    }
}

#[async_trait]
impl ExtendedQueryHandler for Service {
    type Statement = Prepared;
    type QueryParser = Reader;

    fn query_parser(&self) -> Arc<Reader> {
        Arc::clone(&self.reader)
    }

    async fn do_query<C>(&self, _client: &mut C, portal: &Portal<Prepared>, _rows_max: usize) -> PgWireResult<Response>
    where
        C: ClientInfo + ClientPortalStore + Sink<PgWireBackendMessage> + Unpin + Send + Sync,
        C::PortalStore: PortalStore<Statement = Prepared>,
        C::Error: std::fmt::Debug,
        PgWireError: From<<C as Sink<PgWireBackendMessage>>::Error>,
    {
        match &portal.statement.statement {
            Prepared::Said(said) => Ok(said.response()),
            Prepared::Query { sql, described } => {
                // What neither the statement nor the client gives a type is text.
                let given = |at: usize| portal.statement.parameter_types.get(at).and_then(Option::as_ref);
                let typed = |at: usize| given(at).is_some_and(|given| *given != Type::UNKNOWN);
                let types = described.parameters.iter().enumerate();
                let types: Vec<Option<&DataType>> =
                    types.map(|(at, field)| known_type(field).or((!typed(at)).then_some(&DataType::Utf8))).collect();
                let values = match deserialize_parameters(portal, &types)? {
                    ParamValues::List(values) => values.into_iter().map(|value| value.value).collect(),
                    // Placeholders with names are not PostgreSQL's.
                    ParamValues::Map(_) => Vec::new(),
                };
                self.answer(sql, values, &portal.result_column_format).await
            }
        }
    }
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
