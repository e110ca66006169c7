//! The PostgreSQL wire: psql, BI tools and drivers ask in SQL and find PostgreSQL's catalog.
//!
//! Statements are those of the room, read only, within its limits; what clients say beside them (`BEGIN`, `SET`,
//! `DISCARD` and the like) is answered as PostgreSQL would and changes nothing. Values of prepared statements go to the
//! engine as values. A cancel request and a connection that ends both end the statement, also while its rows are sent; rows are
//! sent as the engine makes them, and none wait here.
//!
//! Who may come in is the caller's question: [`Gate`] is asked without a password first, with one then. The wire is not
//! encrypted; on other machines' networks it belongs behind a tunnel, like HTTP behind its proxy.
//!
//! Much at once leaves by `COPY … TO STDOUT`, in text, CSV or binary, as ADBC, connectorx and psql's `\copy` ask for it, or by
//! portions through a cursor, as psycopg and SQLAlchemy do.
//!
//! Absent: `COPY … FROM`, cursors that go back, `LISTEN`, several statements with values in one message (the protocol has none).

mod arrays;
mod catalog;
mod copy;
mod cursor;
mod dialect;
mod forms;

pub(super) use catalog::add_catalog;

use std::collections::HashMap;
use std::future::pending;
use std::io;
use std::net::IpAddr;
use std::pin::pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use arrow::datatypes::{DataType, Field, Schema};
use arrow_pg::datatypes::df::deserialize_parameters;
use arrow_pg::datatypes::{arrow_schema_to_pg_fields, encode_recordbatch, into_pg_type};
use async_trait::async_trait;
use datafusion::common::{ParamValues, ScalarValue};
use datafusion::sql::sqlparser::ast::Statement as Sql;
use datafusion_pg_catalog::sql::PostgresCompatibilityParser;
use futures::future::{BoxFuture, Shared};
use futures::{FutureExt, Sink, SinkExt, StreamExt, stream};
use pgwire::api::auth::{
    ServerParameterProvider, StartupHandler, finish_authentication, protocol_negotiation,
    save_startup_parameters_to_metadata,
};
use pgwire::api::cancel::{CancelHandler, DefaultCancelHandler};
use pgwire::api::portal::{Format, Portal, PortalExecutionState};
use pgwire::api::query::{ExtendedQueryHandler, SimpleQueryHandler, send_partial_query_response};
use pgwire::api::results::{FieldInfo, QueryResponse, Response, Tag};
use pgwire::api::stmt::QueryParser;
use pgwire::api::store::{Entry, MemPortalStore, PortalStore};
use pgwire::api::{
    ClientInfo, ClientPortalStore, ConnectionGuard, ConnectionHandle, ConnectionManager, DEFAULT_NAME,
    PgWireConnectionState, PgWireServerHandlers, PidSecretKeyGenerator, RandomPidSecretKeyGenerator, Type,
};
use pgwire::error::{ErrorInfo, PgWireError, PgWireResult};
use pgwire::messages::copy::{CopyData, CopyDone, CopyOutResponse};
use pgwire::messages::extendedquery::Execute;
use pgwire::messages::startup::Authentication;
use pgwire::messages::{PgWireBackendMessage, PgWireFrontendMessage};
use tokio::io::Interest;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, watch};
use tokio::task::JoinSet;

use copy::Copy;
use cursor::{Cursor, Declared, close_cursors};
use dialect::{SETTINGS, Said, VERSION, asked, read};

use super::engine::{Answer, Described, Handle};
use super::error::Error;

/// What a peer said before it hung up is heard for so long.
const LAST_WORDS: Duration = Duration::from_millis(500);

/// Connections at a time; each holds a task and a few buffers. PostgreSQL's own default.
const CONNECTIONS_LIMIT: usize = 100;

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
            if let Err(error) = converse(socket, handlers).await {
                tracing::debug!("a PostgreSQL connection ended: {error}");
            }
        });
    }
}

/// Answers a connection until it ends; what its statement does then, ends with it.
async fn converse(socket: TcpStream, handlers: Arc<Handlers>) -> io::Result<()> {
    // While a statement is answered nobody reads: a second handle of the socket sees the peer go.
    let socket = socket.into_std()?;
    let watched = TcpStream::from_std(socket.try_clone()?)?;
    let mut conversation = pin!(pgwire::tokio::process_socket(TcpStream::from_std(socket)?, None, handlers));
    tokio::select! {
        ended = &mut conversation => return ended,
        () = hung_up(&watched) => {}
    }
    // What was said before (a cancel request is sent so) is heard out.
    tokio::time::timeout(LAST_WORDS, conversation).await.unwrap_or(Ok(()))
}

/// Returns when the peer closed its side of the connection.
async fn hung_up(socket: &TcpStream) {
    while let Ok(ready) = socket.ready(Interest::READABLE).await
        && !ready.is_read_closed()
    {
        // Words for the protocol, which takes them by the other handle: wait for the next change.
        socket.try_io(Interest::READABLE, || Err(io::ErrorKind::WouldBlock.into())).unwrap_or(());
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
        // Under a name of our own: the protocol's loop hears of a cancel until the first row only.
        let (connection, guard) = self.manager.register(pid, key);
        client.session_extensions().insert(Connection { handle: connection, _guard: guard, cursors: Mutex::default() });
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

/// Settings whose names begin so are answered, not told at the start.
const UNTOLD: [&str; 4] = ["transaction", "time_zone", "default_table", "max_index"];

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
        let told = SETTINGS.iter().copied().filter(|(name, _)| !UNTOLD.iter().any(|untold| name.starts_with(untold)));
        Some(told.chain(own).map(|(name, value)| (name.to_owned(), value.to_owned())).collect())
    }
}

/// What is known of a connection between its messages.
struct Connection {
    /// What a cancel request finds.
    handle: Arc<ConnectionHandle>,
    _guard: ConnectionGuard,
    /// Its cursors by name; their portals are the protocol's.
    cursors: Mutex<HashMap<String, Declared>>,
}

impl Connection {
    fn cursors(&self) -> MutexGuard<'_, HashMap<String, Declared>> {
        // A change is one call, complete before anything that could panic.
        self.cursors.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Resolves when the statement is to be cancelled.
type Cancelled = Shared<BoxFuture<'static, ()>>;

/// What cancels the statements of the message that is answered now.
async fn cancelled<C: ClientInfo>(client: &C) -> Cancelled {
    let Some(connection) = client.session_extensions().get::<Connection>() else { return pending().boxed().shared() };
    let request = connection.handle.start_query().await;
    let request = async {
        // A sender that is dropped asks for nothing: the next message has its own.
        if request.await.is_err() {
            pending::<()>().await;
        }
    };
    request.boxed().shared()
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
    /// Answered by the engine, as a stream.
    Copy(Copy),
    /// Said of a cursor; with what its question wants and answers.
    Cursor { said: Cursor, described: Described },
    /// Answered with these words.
    Said(Said),
}

impl Reader {
    /// The statements of a message, put as the engine understands them.
    fn parse(&self, sql: &str) -> PgWireResult<Vec<Sql>> {
        let statements = read(&self.parser, sql).map_err(|error| {
            // syntax_error
            PgWireError::UserError(Box::new(ErrorInfo::new("ERROR".into(), "42601".into(), error.to_string())))
        })?;
        // The engine would stumble over its words before it refused it.
        if statements.iter().any(|statement| matches!(statement, Sql::Copy { to: false, .. })) {
            return Err(said(&Error::NotReadOnly { statement: "COPY FROM".to_owned() }));
        }
        Ok(statements)
    }
}

impl Service {
    async fn answer(
        &self,
        sql: &str,
        values: Vec<ScalarValue>,
        format: &Format,
        cancelled: Cancelled,
    ) -> PgWireResult<QueryResponse> {
        let answer = tokio::select! {
            answer = self.handle.query_with(sql, values, self.handle.limits()) => answer.map_err(|error| said(&error))?,
            () = cancelled.clone() => return Err(PgWireError::QueryCanceled),
        };
        rows(answer, format, cancelled)
    }

    /// Sends an answer as a stream. An error on the way ends it with the error, which a client takes for the end of the copy.
    async fn copy<C>(&self, client: &mut C, copy: &Copy) -> PgWireResult<Response>
    where
        C: ClientInfo + Sink<PgWireBackendMessage> + Unpin + Send + Sync,
        PgWireError: From<<C as Sink<PgWireBackendMessage>>::Error>,
    {
        let cancelled = cancelled(client).await;
        let mut rows = self.answer(&copy.sql, Vec::new(), &copy.format(), cancelled).await?;
        let names: Vec<String> = rows.row_schema().iter().map(|field| field.name().to_owned()).collect();
        let columns = i16::try_from(names.len()).unwrap_or(i16::MAX);
        let formats = vec![i16::from(copy.format_code()); names.len()];
        let begins = CopyOutResponse::new(copy.format_code(), columns, formats);
        client.send(PgWireBackendMessage::CopyOutResponse(begins)).await?;
        // The binary form's beginning comes with the first row, as PostgreSQL sends it and drivers expect it.
        let mut out = copy.begin(names.iter().map(String::as_str));
        if copy.format_code() == 0 && !out.is_empty() {
            client.feed(PgWireBackendMessage::CopyData(CopyData::new(out.split().freeze()))).await?;
        }
        let mut count = 0;
        while let Some(row) = rows.data_rows().next().await {
            copy.row(&mut out, &row?);
            client.feed(PgWireBackendMessage::CopyData(CopyData::new(out.split().freeze()))).await?;
            count += 1;
        }
        copy.end(&mut out);
        if !out.is_empty() {
            client.feed(PgWireBackendMessage::CopyData(CopyData::new(out.freeze()))).await?;
        }
        client.feed(PgWireBackendMessage::CopyDone(CopyDone::new())).await?;
        Ok(Response::Execution(Tag::new("COPY").with_rows(count)))
    }
}

/// What is known of the connection.
fn connection<C: ClientInfo>(client: &C) -> PgWireResult<Arc<Connection>> {
    client.session_extensions().get::<Connection>().ok_or(PgWireError::NotReadyForQuery)
}

/// The portals of a connection, whichever protocol asks.
fn portals<C>(client: &C) -> PgWireResult<&MemPortalStore<Prepared>>
where
    C: ClientPortalStore,
    C::PortalStore: PortalStore,
{
    client.portal_store().as_any().downcast_ref().ok_or(PgWireError::NotReadyForQuery)
}

/// The values of a portal's placeholders.
fn values(portal: &Portal<Prepared>, described: &Described) -> PgWireResult<Vec<ScalarValue>> {
    // What neither the statement nor the client gives a type is text.
    let given = |at: usize| portal.statement.parameter_types.get(at).and_then(Option::as_ref);
    let typed = |at: usize| given(at).is_some_and(|given| *given != Type::UNKNOWN);
    let types = described.parameters.iter().enumerate();
    let types: Vec<Option<&DataType>> = types
        .map(|(at, field)| match known_type(field) {
            // A text that stands for a list is read when the statement runs.
            Some(DataType::List(_)) if typed(at) => None,
            Some(DataType::List(_)) if portal.parameter_format.is_text(at) => Some(&DataType::Utf8),
            None if !typed(at) => Some(&DataType::Utf8),
            known => known,
        })
        .collect();
    Ok(match deserialize_parameters(portal, &types)? {
        ParamValues::List(values) => values.into_iter().map(|value| value.value).collect(),
        // Placeholders with names are not PostgreSQL's.
        ParamValues::Map(_) => Vec::new(),
    })
}

/// What cannot be sent as a stream in the way that was asked for.
fn refused(message: String) -> PgWireError {
    // feature_not_supported
    PgWireError::UserError(Box::new(ErrorInfo::new("ERROR".into(), "0A000".into(), message)))
}

/// The placeholder of the question for types, `oid[]`, whose members come in four bytes.
fn numbers_of_types() -> Field {
    Field::new("$types", DataType::new_list(DataType::Int32, true), true)
}

/// The type of a placeholder, if the statement tells it.
fn known_type(parameter: &Field) -> Option<&DataType> {
    Some(parameter.data_type()).filter(|data_type| !data_type.is_null())
}

/// An answer as rows of the wire, until it is cancelled.
fn rows(answer: Answer, format: &Format, cancelled: Cancelled) -> PgWireResult<QueryResponse> {
    let fields = Arc::new(arrow_schema_to_pg_fields(&answer.schema, format, None)?);
    let of_rows = Arc::clone(&fields);
    let batches = stream::unfold(Some((answer.batches, cancelled)), |state| async move {
        let (mut batches, cancelled) = state?;
        tokio::select! {
            biased;
            () = cancelled.clone() => Some((Err(PgWireError::QueryCanceled), None)),
            batch = batches.next() => {
                batch.map(|batch| (batch.map_err(|error| said(&error)), Some((batches, cancelled))))
            }
        }
    });
    let rows = batches.flat_map(move |batch| match batch {
        Ok(batch) => {
            let rows: Vec<_> = encode_recordbatch(Arc::clone(&of_rows), batch).collect();
            stream::iter(rows)
        }
        Err(error) => stream::iter(vec![Err(error)]),
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
        Error::Evaluate { .. } => "22000",
        Error::Encode { .. } => "0A000",
        _ => "58000",
    };
    let mut info = ErrorInfo::new("ERROR".into(), code.into(), error.to_string());
    info.hint = error.hint().map(str::to_owned);
    PgWireError::UserError(Box::new(info))
}

#[async_trait]
impl SimpleQueryHandler for Service {
    async fn do_query<C>(&self, client: &mut C, query: &str) -> PgWireResult<Vec<Response>>
    where
        C: ClientInfo + ClientPortalStore + Sink<PgWireBackendMessage> + Unpin + Send + Sync,
        C::PortalStore: PortalStore,
        C::Error: std::fmt::Debug,
        PgWireError: From<<C as Sink<PgWireBackendMessage>>::Error>,
    {
        let mut responses = Vec::new();
        let statements = self.reader.parse(query)?;
        if let Some(copy) = statements.iter().find_map(Copy::of) {
            // Its stream is sent here, before answers to others could be.
            if statements.len() > 1 {
                return Err(refused("COPY must be the only statement of its message".to_owned()));
            }
            return Ok(vec![self.copy(client, &copy.map_err(refused)?).await?]);
        }
        let cancelled = cancelled(client).await;
        for statement in statements {
            if let Some(cursor) = Cursor::of(&statement) {
                let cursor = cursor.map_err(refused)?;
                let described = self.reader.describe_cursor(client, &cursor).await?;
                responses.push(self.cursor(client, &cursor, &described, None, cancelled.clone()).await?);
                continue;
            }
            let said = Said::of(&statement);
            if matches!(said, Some(Said::End(_))) {
                close_cursors(client, false)?;
            }
            responses.push(match said {
                Some(said) => said.response(),
                None => {
                    let sql = asked(&statement);
                    let format = &Format::UnifiedText;
                    Response::Query(self.answer(&sql, Vec::new(), format, cancelled.clone()).await?)
                }
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

    async fn parse_sql<C>(&self, client: &C, sql: &str, _types: &[Option<Type>]) -> PgWireResult<Option<Prepared>>
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
        if let Some(copy) = Copy::of(&statement) {
            let copy = copy.map_err(refused)?;
            self.handle.describe(&copy.sql).await.map_err(|error| said(&error))?;
            return Ok(Some(Prepared::Copy(copy)));
        }
        if let Some(cursor) = Cursor::of(&statement) {
            let cursor = cursor.map_err(refused)?;
            let described = self.describe_cursor(client, &cursor).await?;
            return Ok(Some(Prepared::Cursor { said: cursor, described }));
        }
        let sql = asked(&statement);
        let mut described = self.handle.describe(&sql).await.map_err(|error| said(&error))?;
        if dialect::asks_for_types(&sql) {
            described.parameters = vec![numbers_of_types()];
        }
        Ok(Some(Prepared::Query { sql, described }))
    }

    fn get_parameter_types(&self, statement: &Prepared) -> PgWireResult<Vec<Type>> {
        match statement {
            Prepared::Query { described, .. } | Prepared::Cursor { described, .. } => described
                .parameters
                .iter()
                .map(|field| match known_type(field) {
                    _ if *field == numbers_of_types() => Ok(Type::OID_ARRAY),
                    Some(known) => into_pg_type(known),
                    None => Ok(Type::UNKNOWN),
                })
                .collect(),
            Prepared::Copy(_) | Prepared::Said(_) => Ok(Vec::new()),
        }
    }

    fn get_result_schema(&self, statement: &Prepared, format: Option<&Format>) -> PgWireResult<Vec<FieldInfo>> {
        let schema: &Schema = match statement {
            Prepared::Query { described, .. } | Prepared::Cursor { said: Cursor::Fetch { .. }, described } => {
                &described.schema
            }
            Prepared::Copy(_) | Prepared::Cursor { .. } | Prepared::Said(_) => return Ok(Vec::new()),
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

    async fn do_query<C>(&self, client: &mut C, portal: &Portal<Prepared>, _rows_max: usize) -> PgWireResult<Response>
    where
        C: ClientInfo + ClientPortalStore + Sink<PgWireBackendMessage> + Unpin + Send + Sync,
        C::PortalStore: PortalStore<Statement = Prepared>,
        C::Error: std::fmt::Debug,
        PgWireError: From<<C as Sink<PgWireBackendMessage>>::Error>,
    {
        match &portal.statement.statement {
            Prepared::Said(said) => {
                if matches!(said, Said::End(_)) {
                    close_cursors(client, false)?;
                }
                Ok(said.response())
            }
            Prepared::Copy(copy) => self.copy(client, copy).await,
            Prepared::Cursor { said, described } => {
                let cancelled = cancelled(client).await;
                self.cursor(client, said, described, Some(portal), cancelled).await
            }
            Prepared::Query { sql, described } => {
                let values = values(portal, described)?;
                let cancelled = cancelled(client).await;
                let rows = self.answer(sql, values, &portal.result_column_format, cancelled).await?;
                Ok(Response::Query(rows))
            }
        }
    }

    /// As the protocol has it, but that rows go out as they are made: the library would collect them first.
    async fn on_execute<C>(&self, client: &mut C, message: Execute) -> PgWireResult<()>
    where
        C: ClientInfo + ClientPortalStore + Sink<PgWireBackendMessage> + Unpin + Send + Sync,
        C::PortalStore: PortalStore<Statement = Prepared>,
        C::Error: std::fmt::Debug,
        PgWireError: From<<C as Sink<PgWireBackendMessage>>::Error>,
    {
        let name = message.name.as_deref().unwrap_or(DEFAULT_NAME);
        let portal = match client.portal_store().get_portal(name) {
            Some(Entry::Value(portal))
                if matches!(
                    portal.statement.statement,
                    Prepared::Query { .. } | Prepared::Cursor { said: Cursor::Fetch { .. }, .. }
                ) =>
            {
                portal
            }
            _ => return self._on_execute(client, message).await,
        };
        if !matches!(client.state(), PgWireConnectionState::ReadyForQuery) {
            return Err(PgWireError::NotReadyForQuery);
        }
        client.set_state(PgWireConnectionState::QueryInProgress);
        let rows_max = usize::try_from(message.max_rows).unwrap_or(0);
        let state = portal.state();
        let mut state = state.lock().await;
        if matches!(*state, PortalExecutionState::Initial)
            && let Response::Query(rows) = ExtendedQueryHandler::do_query(self, client, &portal, rows_max).await?
        {
            *state = PortalExecutionState::Suspended(rows);
        }
        let more = match &mut *state {
            PortalExecutionState::Suspended(rows) => send_partial_query_response(client, rows, rows_max).await?,
            PortalExecutionState::Initial | PortalExecutionState::Finished => {
                let none = Tag::new("SELECT").with_rows(0);
                client.feed(PgWireBackendMessage::CommandComplete(none.into())).await?;
                false
            }
        };
        if !more {
            *state = PortalExecutionState::Finished;
        }
        client.set_state(PgWireConnectionState::ReadyForQuery);
        Ok(())
    }
}
