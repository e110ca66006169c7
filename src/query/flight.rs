//! Flight SQL: the fast door, for ADBC, JDBC and whatever else speaks Arrow over gRPC.
//!
//! Stateless. A ticket is the statement itself; the handle of a prepared statement is its text with the values bound to
//! it (`Prepared`), so that a restart, another node or a client that goes away leaves nothing behind. Who may ask is
//! the gateway's business; it serves [`router`] behind its own layers.
//!
//! A client is promised the columns before it takes the rows, and strict ones compare. What the engine announces depends
//! on the data (a column of an empty table is never null), so both answers say that every column may be null.

use std::pin::Pin;
use std::sync::{Arc, LazyLock};

use arrow::array::{Int32Array, RecordBatch, RecordBatchOptions, StringArray};
use arrow::compute::cast;
use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use arrow::error::ArrowError;
use arrow::ipc::reader::StreamReader;
use arrow::ipc::writer::{IpcWriteOptions, StreamWriter};
use arrow_flight::decode::FlightRecordBatchStream;
use arrow_flight::encode::FlightDataEncoderBuilder;
use arrow_flight::error::FlightError;
use arrow_flight::flight_service_server::{FlightService, FlightServiceServer};
use arrow_flight::sql::metadata::{
    SqlInfoData, SqlInfoDataBuilder, XdbcTypeInfo, XdbcTypeInfoData, XdbcTypeInfoDataBuilder,
};
use arrow_flight::sql::server::{FlightSqlService, PeekableFlightDataStream};
use arrow_flight::sql::{
    ActionClosePreparedStatementRequest, ActionCreatePreparedStatementRequest, ActionCreatePreparedStatementResult,
    CommandGetCatalogs, CommandGetCrossReference, CommandGetDbSchemas, CommandGetExportedKeys, CommandGetImportedKeys,
    CommandGetPrimaryKeys, CommandGetSqlInfo, CommandGetTableTypes, CommandGetTables, CommandGetXdbcTypeInfo,
    CommandPreparedStatementQuery, CommandPreparedStatementUpdate, CommandStatementIngest, CommandStatementQuery,
    CommandStatementUpdate, DoPutPreparedStatementResult, Nullable, ProstMessageExt, Searchable, SqlInfo,
    TicketStatementQuery, XdbcDataType,
};
use arrow_flight::{
    Action, FlightData, FlightDescriptor, FlightEndpoint, FlightInfo, HandshakeRequest, HandshakeResponse, IpcMessage,
    SchemaAsIpc, Ticket,
};
use axum::Router;
use datafusion::common::ScalarValue;
use futures::{Stream, StreamExt, TryStreamExt};
use prost::Message;
use tonic::{Request, Response, Status, Streaming};

use super::engine::{CATALOG, Described, Handle, SCHEMA};
use super::error::{Class, Error};
use super::views::VIEWS;

/// Rows that a client may bind to one prepared statement; each is a set of values.
const BOUND_ROWS_LIMIT: usize = 1;

/// The service as routes of a gRPC server.
pub fn router(handle: Handle) -> Router {
    tonic::service::Routes::new(FlightServiceServer::new(Flight { handle })).prepare().into_axum_router()
}

#[derive(Clone)]
struct Flight {
    handle: Handle,
}

/// The handle of a prepared statement.
#[derive(Clone, PartialEq, Message)]
struct Prepared {
    #[prost(string, tag = "1")]
    sql: String,
    /// An Arrow IPC stream with one row, a column a placeholder; empty: nothing is bound.
    #[prost(bytes = "vec", tag = "2")]
    values: Vec<u8>,
}

impl Prepared {
    fn of(handle: &[u8]) -> Result<Self, Status> {
        Self::decode(handle).map_err(|_| Status::invalid_argument("this is no prepared statement of this service"))
    }

    fn values(&self) -> Result<Vec<ScalarValue>, Status> {
        if self.values.is_empty() {
            return Ok(Vec::new());
        }
        let refused = |error: ArrowError| Status::invalid_argument(format!("the bound values: {error}"));
        let mut values = Vec::new();
        for batch in StreamReader::try_new(self.values.as_slice(), None).map_err(refused)? {
            let batch = batch.map_err(refused)?;
            if batch.num_rows() == 0 {
                continue;
            }
            for column in batch.columns() {
                values.push(
                    ScalarValue::try_from_array(column, 0)
                        .map_err(|error| Status::invalid_argument(format!("the bound values: {error}")))?,
                );
            }
        }
        Ok(values)
    }
}

type DoGet = Pin<Box<dyn Stream<Item = Result<FlightData, Status>> + Send>>;

fn status(error: &Error) -> Status {
    let message = match error.hint() {
        Some(hint) => format!("{error}; {hint}"),
        None => error.to_string(),
    };
    if matches!(error.class(), Class::Environment | Class::Bug) {
        tracing::error!(error = error as &dyn std::error::Error, "failed to answer a statement: {error}");
    }
    match error {
        Error::NotReadOnly { .. } => Status::permission_denied(message),
        Error::Busy { .. } => Status::unavailable(message),
        Error::Time { .. } => Status::deadline_exceeded(message),
        Error::Memory { .. } | Error::Rows { .. } => Status::resource_exhausted(message),
        _ if error.class() == Class::Caller => Status::invalid_argument(message),
        _ => Status::internal(message),
    }
}

fn no_updates() -> Status {
    Status::permission_denied("updates are refused, SQL here only reads")
}

#[expect(clippy::needless_pass_by_value, reason = "it stands where results map their errors")]
fn internal(error: ArrowError) -> Status {
    Status::internal(error.to_string())
}

/// Where to get what was described.
fn info(descriptor: FlightDescriptor, schema: &Schema, ticket: Vec<u8>) -> Result<Response<FlightInfo>, Status> {
    let endpoint = FlightEndpoint::new().with_ticket(Ticket::new(ticket));
    let info = FlightInfo::new().try_with_schema(schema).map_err(internal)?.with_endpoint(endpoint);
    Ok(Response::new(info.with_descriptor(descriptor)))
}

fn schema_bytes(schema: &Schema) -> Result<prost::bytes::Bytes, Status> {
    let IpcMessage(bytes) = SchemaAsIpc::new(schema, &IpcWriteOptions::default()).try_into().map_err(internal)?;
    Ok(bytes)
}

/// One batch as an answer.
fn listed(schema: SchemaRef, batch: Result<RecordBatch, ArrowError>) -> Response<DoGet> {
    let batch = batch.map_err(FlightError::Arrow);
    let stream = FlightDataEncoderBuilder::new().with_schema(schema).build(futures::stream::once(async { batch }));
    Response::new(Box::pin(stream.map_err(Status::from)))
}

/// The batch under the announced columns.
fn as_announced(schema: &SchemaRef, batch: &RecordBatch) -> Result<RecordBatch, ArrowError> {
    let columns = batch
        .columns()
        .iter()
        .zip(schema.fields())
        .map(|(column, field)| cast(column, field.data_type()))
        .collect::<Result<_, _>>()?;
    let options = RecordBatchOptions::new().with_row_count(Some(batch.num_rows()));
    RecordBatch::try_new_with_options(Arc::clone(schema), columns, &options)
}

impl Flight {
    async fn describe(&self, sql: &str) -> Result<Described, Status> {
        self.handle.describe(sql).await.map_err(|error| status(&error))
    }

    /// Runs a statement; the client's going away drops the stream, and that ends the statement.
    async fn answer(&self, sql: &str, values: Vec<ScalarValue>) -> Result<Response<DoGet>, Status> {
        let Described { schema, .. } = self.describe(sql).await?;
        let answer = self.handle.query_with(sql, values, self.handle.limits()).await.map_err(|error| status(&error))?;
        // With values bound the types are final only now.
        let schema = if schema.fields().len() == answer.schema.fields().len() { schema } else { answer.schema };
        let announced = Arc::clone(&schema);
        let batches = answer.batches.map(move |batch| match batch {
            Ok(batch) => as_announced(&announced, &batch).map_err(FlightError::Arrow),
            Err(error) => Err(FlightError::Tonic(Box::new(status(&error)))),
        });
        let stream = FlightDataEncoderBuilder::new().with_schema(schema).build(batches).map_err(Status::from);
        Ok(Response::new(Box::pin(stream)))
    }
}

fn table_type(name: &str) -> &'static str {
    if VIEWS.iter().any(|view| view.name == name) { "VIEW" } else { "BASE TABLE" }
}

/// The columns that tell the rows of a table apart.
const PRIMARY_KEYS: &[(&str, &[&str])] = &[
    ("frames", &["session_id", "seq"]),
    ("strokes", &["session_id", "stroke_index"]),
    ("results", &["session_id"]),
    ("sessions", &["session_id"]),
    ("devices", &["device_code"]),
    ("players", &["user_id"]),
    ("notifications", &["notification_id", "channel"]),
    ("labels", &["session_id", "impact_ns"]),
];

fn primary_keys_schema() -> SchemaRef {
    Arc::new(Schema::new(vec![
        Field::new("catalog_name", DataType::Utf8, true),
        Field::new("db_schema_name", DataType::Utf8, true),
        Field::new("table_name", DataType::Utf8, false),
        Field::new("column_name", DataType::Utf8, false),
        Field::new("key_name", DataType::Utf8, true),
        Field::new("key_sequence", DataType::Int32, false),
    ]))
}

fn primary_keys(table: &str) -> Result<RecordBatch, ArrowError> {
    let keys = PRIMARY_KEYS.iter().find(|(name, _)| *name == table).map_or(&[][..], |(_, keys)| keys);
    let text = |value: Option<&'static str>| Arc::new(keys.iter().map(|_| value).collect::<StringArray>());
    RecordBatch::try_new(
        primary_keys_schema(),
        vec![
            text(Some(CATALOG)),
            text(Some(SCHEMA)),
            Arc::new(StringArray::from_iter_values(keys.iter().map(|_| table))),
            Arc::new(StringArray::from_iter_values(keys)),
            text(None),
            Arc::new(Int32Array::from_iter_values(1..=keys.len() as i32)),
        ],
    )
}

/// Foreign keys, of which there are none.
fn foreign_keys_schema() -> SchemaRef {
    let text = |name: &str, nullable| Field::new(name, DataType::Utf8, nullable);
    Arc::new(Schema::new(vec![
        text("pk_catalog_name", true),
        text("pk_db_schema_name", true),
        text("pk_table_name", false),
        text("pk_column_name", false),
        text("fk_catalog_name", true),
        text("fk_db_schema_name", true),
        text("fk_table_name", false),
        text("fk_column_name", false),
        Field::new("key_sequence", DataType::Int32, false),
        text("fk_key_name", true),
        text("pk_key_name", true),
        Field::new("update_rule", DataType::UInt8, false),
        Field::new("delete_rule", DataType::UInt8, false),
    ]))
}

fn no_foreign_keys() -> Response<DoGet> {
    listed(foreign_keys_schema(), Ok(RecordBatch::new_empty(foreign_keys_schema())))
}

static SQL_INFO: LazyLock<SqlInfoData> = LazyLock::new(|| {
    let mut info = SqlInfoDataBuilder::new();
    info.append(SqlInfo::FlightSqlServerName, "Volant");
    info.append(SqlInfo::FlightSqlServerVersion, env!("CARGO_PKG_VERSION"));
    // Of the columnar format, not of a library.
    info.append(SqlInfo::FlightSqlServerArrowVersion, "1.5");
    info.append(SqlInfo::FlightSqlServerReadOnly, true);
    info.append(SqlInfo::FlightSqlServerSql, true);
    info.append(SqlInfo::FlightSqlServerSubstrait, false);
    // 0: no transactions.
    info.append(SqlInfo::FlightSqlServerTransaction, 0i32);
    info.append(SqlInfo::FlightSqlServerCancel, false);
    info.append(SqlInfo::SqlDdlCatalog, false);
    info.append(SqlInfo::SqlDdlSchema, false);
    info.append(SqlInfo::SqlDdlTable, false);
    info.append(SqlInfo::SqlIdentifierQuoteChar, "\"");
    info.build().expect("every kind of information is given once, in its own type")
});

static XDBC_TYPES: LazyLock<XdbcTypeInfoData> = LazyLock::new(|| {
    let mut types = XdbcTypeInfoDataBuilder::new();
    let quote = Some("'");
    for (name, data_type, size, quote, radix) in [
        ("BOOLEAN", XdbcDataType::XdbcBit, 1, None, None),
        ("INTEGER", XdbcDataType::XdbcInteger, 32, None, Some(2)),
        ("BIGINT", XdbcDataType::XdbcBigint, 64, None, Some(2)),
        ("REAL", XdbcDataType::XdbcReal, 24, None, Some(2)),
        ("DOUBLE", XdbcDataType::XdbcDouble, 53, None, Some(2)),
        ("VARCHAR", XdbcDataType::XdbcVarchar, i32::MAX, quote, None),
        ("DATE", XdbcDataType::XdbcDate, 10, quote, None),
        ("TIMESTAMP", XdbcDataType::XdbcTimestamp, 29, quote, None),
    ] {
        types.append(XdbcTypeInfo {
            type_name: name.to_owned(),
            data_type,
            column_size: Some(size),
            literal_prefix: quote.map(str::to_owned),
            literal_suffix: quote.map(str::to_owned),
            create_params: None,
            nullable: Nullable::NullabilityNullable,
            case_sensitive: data_type == XdbcDataType::XdbcVarchar,
            searchable: Searchable::Full,
            unsigned_attribute: radix.map(|_| false),
            fixed_prec_scale: false,
            auto_increment: None,
            local_type_name: Some(name.to_owned()),
            minimum_scale: None,
            maximum_scale: None,
            sql_data_type: data_type,
            datetime_subcode: None,
            num_prec_radix: radix,
            interval_precision: None,
        });
    }
    types.build().expect("every type is described in whole")
});

/// `FlightInfo` of a catalog call: the columns, and the call itself as ticket.
macro_rules! describe_catalog_call {
    ($query:ident, $request:ident, $schema:expr) => {{
        let ticket = $query.as_any().encode_to_vec();
        info($request.into_inner(), $schema.as_ref(), ticket)
    }};
}

#[tonic::async_trait]
impl FlightSqlService for Flight {
    type FlightService = Self;

    /// The layer in front has checked the caller, and made a password that is a token the bearer's: say it back, so that
    /// a client that logs in by name and password goes on with it.
    async fn do_handshake(
        &self,
        request: Request<Streaming<HandshakeRequest>>,
    ) -> Result<Response<Pin<Box<dyn Stream<Item = Result<HandshakeResponse, Status>> + Send>>>, Status> {
        let authorization = request.metadata().get("authorization").cloned();
        let answer = HandshakeResponse { protocol_version: 0, payload: prost::bytes::Bytes::new() };
        let stream: Pin<Box<dyn Stream<Item = _> + Send>> = Box::pin(futures::stream::iter([Ok(answer)]));
        let mut response = Response::new(stream);
        if let Some(authorization) = authorization {
            response.metadata_mut().insert("authorization", authorization);
        }
        Ok(response)
    }

    async fn get_flight_info_statement(
        &self,
        query: CommandStatementQuery,
        request: Request<FlightDescriptor>,
    ) -> Result<Response<FlightInfo>, Status> {
        let described = self.describe(&query.query).await?;
        let ticket = TicketStatementQuery { statement_handle: query.query.into_bytes().into() };
        info(request.into_inner(), &described.schema, ticket.as_any().encode_to_vec())
    }

    async fn do_get_statement(
        &self,
        ticket: TicketStatementQuery,
        _: Request<Ticket>,
    ) -> Result<Response<<Self as FlightService>::DoGetStream>, Status> {
        let sql = std::str::from_utf8(&ticket.statement_handle)
            .map_err(|_| Status::invalid_argument("this is no ticket of this service"))?;
        self.answer(sql, Vec::new()).await
    }

    async fn do_action_create_prepared_statement(
        &self,
        query: ActionCreatePreparedStatementRequest,
        _: Request<Action>,
    ) -> Result<ActionCreatePreparedStatementResult, Status> {
        let Described { schema, parameters } = self.describe(&query.query).await?;
        // A placeholder that may be anything is asked for as text.
        let text =
            |field: Field| if field.data_type().is_null() { field.with_data_type(DataType::Utf8) } else { field };
        let parameters: Vec<Field> = parameters.into_iter().map(text).collect();
        let prepared = Prepared { sql: query.query, values: Vec::new() };
        let parameter_schema =
            if parameters.is_empty() { prost::bytes::Bytes::new() } else { schema_bytes(&Schema::new(parameters))? };
        Ok(ActionCreatePreparedStatementResult {
            prepared_statement_handle: prepared.encode_to_vec().into(),
            dataset_schema: schema_bytes(&schema)?,
            parameter_schema,
        })
    }

    /// Nothing is kept of a prepared statement, so nothing is to be closed.
    async fn do_action_close_prepared_statement(
        &self,
        _: ActionClosePreparedStatementRequest,
        _: Request<Action>,
    ) -> Result<(), Status> {
        Ok(())
    }

    async fn do_put_prepared_statement_query(
        &self,
        query: CommandPreparedStatementQuery,
        request: Request<PeekableFlightDataStream>,
    ) -> Result<DoPutPreparedStatementResult, Status> {
        let mut prepared = Prepared::of(&query.prepared_statement_handle)?;
        let batches = FlightRecordBatchStream::new_from_flight_data(
            request.into_inner().map_err(|status| FlightError::Tonic(Box::new(status))),
        );
        let batches: Vec<RecordBatch> = batches.try_collect().await?;
        let rows: usize = batches.iter().map(RecordBatch::num_rows).sum();
        if rows > BOUND_ROWS_LIMIT {
            return Err(Status::invalid_argument(format!("{rows} rows are bound, a statement takes one")));
        }
        if let Some(first) = batches.first() {
            let mut bytes = Vec::new();
            let mut writer = StreamWriter::try_new(&mut bytes, &first.schema()).map_err(internal)?;
            for batch in &batches {
                writer.write(batch).map_err(internal)?;
            }
            writer.finish().map_err(internal)?;
            drop(writer);
            prepared.values = bytes;
        }
        Ok(DoPutPreparedStatementResult { prepared_statement_handle: Some(prepared.encode_to_vec().into()) })
    }

    async fn get_flight_info_prepared_statement(
        &self,
        query: CommandPreparedStatementQuery,
        request: Request<FlightDescriptor>,
    ) -> Result<Response<FlightInfo>, Status> {
        let prepared = Prepared::of(&query.prepared_statement_handle)?;
        let described = self.describe(&prepared.sql).await?;
        info(request.into_inner(), &described.schema, query.as_any().encode_to_vec())
    }

    async fn do_get_prepared_statement(
        &self,
        query: CommandPreparedStatementQuery,
        _: Request<Ticket>,
    ) -> Result<Response<<Self as FlightService>::DoGetStream>, Status> {
        let prepared = Prepared::of(&query.prepared_statement_handle)?;
        let values = prepared.values()?;
        self.answer(&prepared.sql, values).await
    }

    async fn do_put_statement_update(
        &self,
        _: CommandStatementUpdate,
        _: Request<PeekableFlightDataStream>,
    ) -> Result<i64, Status> {
        Err(no_updates())
    }

    async fn do_put_prepared_statement_update(
        &self,
        _: CommandPreparedStatementUpdate,
        _: Request<PeekableFlightDataStream>,
    ) -> Result<i64, Status> {
        Err(no_updates())
    }

    async fn do_put_statement_ingest(
        &self,
        _: CommandStatementIngest,
        _: Request<PeekableFlightDataStream>,
    ) -> Result<i64, Status> {
        Err(no_updates())
    }

    async fn get_flight_info_catalogs(
        &self,
        query: CommandGetCatalogs,
        request: Request<FlightDescriptor>,
    ) -> Result<Response<FlightInfo>, Status> {
        describe_catalog_call!(query, request, query.into_builder().schema())
    }

    async fn do_get_catalogs(
        &self,
        query: CommandGetCatalogs,
        _: Request<Ticket>,
    ) -> Result<Response<<Self as FlightService>::DoGetStream>, Status> {
        let mut builder = query.into_builder();
        builder.append(CATALOG);
        Ok(listed(builder.schema(), builder.build().map_err(into_arrow)))
    }

    async fn get_flight_info_schemas(
        &self,
        query: CommandGetDbSchemas,
        request: Request<FlightDescriptor>,
    ) -> Result<Response<FlightInfo>, Status> {
        describe_catalog_call!(query, request, query.clone().into_builder().schema())
    }

    async fn do_get_schemas(
        &self,
        query: CommandGetDbSchemas,
        _: Request<Ticket>,
    ) -> Result<Response<<Self as FlightService>::DoGetStream>, Status> {
        let mut builder = query.into_builder();
        builder.append(CATALOG, SCHEMA);
        Ok(listed(builder.schema(), builder.build().map_err(into_arrow)))
    }

    async fn get_flight_info_tables(
        &self,
        query: CommandGetTables,
        request: Request<FlightDescriptor>,
    ) -> Result<Response<FlightInfo>, Status> {
        describe_catalog_call!(query, request, query.clone().into_builder().schema())
    }

    async fn do_get_tables(
        &self,
        query: CommandGetTables,
        _: Request<Ticket>,
    ) -> Result<Response<<Self as FlightService>::DoGetStream>, Status> {
        let mut builder = query.into_builder();
        for (name, schema) in self.handle.tables() {
            builder.append(CATALOG, SCHEMA, name, table_type(name), schema)?;
        }
        Ok(listed(builder.schema(), builder.build().map_err(into_arrow)))
    }

    async fn get_flight_info_table_types(
        &self,
        query: CommandGetTableTypes,
        request: Request<FlightDescriptor>,
    ) -> Result<Response<FlightInfo>, Status> {
        describe_catalog_call!(query, request, query.into_builder().schema())
    }

    async fn do_get_table_types(
        &self,
        query: CommandGetTableTypes,
        _: Request<Ticket>,
    ) -> Result<Response<<Self as FlightService>::DoGetStream>, Status> {
        let mut builder = query.into_builder();
        builder.append("BASE TABLE");
        builder.append("VIEW");
        Ok(listed(builder.schema(), builder.build().map_err(into_arrow)))
    }

    async fn get_flight_info_sql_info(
        &self,
        query: CommandGetSqlInfo,
        request: Request<FlightDescriptor>,
    ) -> Result<Response<FlightInfo>, Status> {
        describe_catalog_call!(query, request, query.clone().into_builder(&SQL_INFO).schema())
    }

    async fn do_get_sql_info(
        &self,
        query: CommandGetSqlInfo,
        _: Request<Ticket>,
    ) -> Result<Response<<Self as FlightService>::DoGetStream>, Status> {
        let builder = query.into_builder(&SQL_INFO);
        Ok(listed(builder.schema(), builder.build().map_err(into_arrow)))
    }

    async fn get_flight_info_xdbc_type_info(
        &self,
        query: CommandGetXdbcTypeInfo,
        request: Request<FlightDescriptor>,
    ) -> Result<Response<FlightInfo>, Status> {
        describe_catalog_call!(query, request, query.into_builder(&XDBC_TYPES).schema())
    }

    async fn do_get_xdbc_type_info(
        &self,
        query: CommandGetXdbcTypeInfo,
        _: Request<Ticket>,
    ) -> Result<Response<<Self as FlightService>::DoGetStream>, Status> {
        let builder = query.into_builder(&XDBC_TYPES);
        Ok(listed(builder.schema(), builder.build().map_err(into_arrow)))
    }

    async fn get_flight_info_primary_keys(
        &self,
        query: CommandGetPrimaryKeys,
        request: Request<FlightDescriptor>,
    ) -> Result<Response<FlightInfo>, Status> {
        describe_catalog_call!(query, request, primary_keys_schema())
    }

    async fn do_get_primary_keys(
        &self,
        query: CommandGetPrimaryKeys,
        _: Request<Ticket>,
    ) -> Result<Response<<Self as FlightService>::DoGetStream>, Status> {
        Ok(listed(primary_keys_schema(), primary_keys(&query.table)))
    }

    async fn get_flight_info_exported_keys(
        &self,
        query: CommandGetExportedKeys,
        request: Request<FlightDescriptor>,
    ) -> Result<Response<FlightInfo>, Status> {
        describe_catalog_call!(query, request, foreign_keys_schema())
    }

    async fn do_get_exported_keys(
        &self,
        _: CommandGetExportedKeys,
        _: Request<Ticket>,
    ) -> Result<Response<<Self as FlightService>::DoGetStream>, Status> {
        Ok(no_foreign_keys())
    }

    async fn get_flight_info_imported_keys(
        &self,
        query: CommandGetImportedKeys,
        request: Request<FlightDescriptor>,
    ) -> Result<Response<FlightInfo>, Status> {
        describe_catalog_call!(query, request, foreign_keys_schema())
    }

    async fn do_get_imported_keys(
        &self,
        _: CommandGetImportedKeys,
        _: Request<Ticket>,
    ) -> Result<Response<<Self as FlightService>::DoGetStream>, Status> {
        Ok(no_foreign_keys())
    }

    async fn get_flight_info_cross_reference(
        &self,
        query: CommandGetCrossReference,
        request: Request<FlightDescriptor>,
    ) -> Result<Response<FlightInfo>, Status> {
        describe_catalog_call!(query, request, foreign_keys_schema())
    }

    async fn do_get_cross_reference(
        &self,
        _: CommandGetCrossReference,
        _: Request<Ticket>,
    ) -> Result<Response<<Self as FlightService>::DoGetStream>, Status> {
        Ok(no_foreign_keys())
    }

    async fn register_sql_info(&self, _: i32, _: &SqlInfo) {}
}

/// The builders of catalog answers fail with Flight's own error.
fn into_arrow(error: FlightError) -> ArrowError {
    ArrowError::ExternalError(Box::new(error))
}
