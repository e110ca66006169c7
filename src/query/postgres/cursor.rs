//! `DECLARE … CURSOR`, `FETCH` and `CLOSE`: an answer by portions, as drivers with server-side cursors ask for it.
//!
//! A cursor is a portal under the client's name, so that drivers may ask for its columns as they do of any portal. It goes forward only.
//! Its statement starts with the first `FETCH`, and counts as one that runs, time limit and all, until its last row is taken, it is
//! closed, or the transaction ends (`WITH HOLD`: the connection).

use std::collections::hash_map;
use std::sync::Arc;

use arrow::datatypes::{Schema, SchemaRef};
use arrow_pg::datatypes::arrow_schema_to_pg_fields;
use datafusion::sql::sqlparser::ast::{CloseCursor, FetchDirection, Statement as Sql, Value};
use futures::{Stream, StreamExt, stream};
use pgwire::api::portal::{Portal, PortalExecutionState};
use pgwire::api::results::{QueryResponse, Response, Tag};
use pgwire::api::stmt::StoredStatement;
use pgwire::api::store::{Entry, PortalStore};
use pgwire::api::{ClientInfo, ClientPortalStore};
use pgwire::error::{ErrorInfo, PgWireError, PgWireResult};
use pgwire::messages::data::DataRow;

use super::super::engine::Described;
use super::{Cancelled, Prepared, Reader, Service, connection, portals, said, values};

/// What is said of cursors.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Cursor {
    Declare {
        name: String,
        /// The question that it answers.
        sql: String,
        /// It outlives the transaction.
        hold: bool,
    },
    Fetch {
        name: String,
        /// `None`: all that are left.
        rows: Option<usize>,
    },
    /// `None`: all of them.
    Close { name: Option<String> },
}

impl Cursor {
    /// `None` if the statement is about no cursor; an error for what ours cannot do.
    pub(super) fn of(statement: &Sql) -> Option<Result<Self, String>> {
        match statement {
            Sql::Declare { stmts } => {
                let [declared] = stmts.as_slice() else { return None };
                let (Some(query), [name]) = (&declared.for_query, declared.names.as_slice()) else { return None };
                if declared.scroll == Some(true) {
                    return Some(Err("cursors go forward only: declare it without SCROLL".to_owned()));
                }
                if declared.binary == Some(true) {
                    return Some(Err("BINARY cursors are not known: fetch in binary instead".to_owned()));
                }
                let (name, hold) = (name.value.clone(), declared.hold == Some(true));
                Some(Ok(Self::Declare { name, sql: query.to_string(), hold }))
            }
            Sql::Fetch { name, direction, into: None, .. } => {
                Some(forward(direction).map(|rows| Self::Fetch { name: name.value.clone(), rows }))
            }
            Sql::Close { cursor } => Some(Ok(Self::Close {
                name: match cursor {
                    CloseCursor::All => None,
                    CloseCursor::Specific { name } => Some(name.value.clone()),
                },
            })),
            _ => None,
        }
    }
}

/// How many rows forward; `None`: all.
fn forward(direction: &FetchDirection) -> Result<Option<usize>, String> {
    let count = |value: &Value| match value {
        Value::Number(digits, _) => digits.parse().map_err(|_| format!("{digits} is no number of rows")),
        other => Err(format!("{other} is no number of rows")),
    };
    match direction {
        FetchDirection::Next | FetchDirection::Forward { limit: None } => Ok(Some(1)),
        FetchDirection::Count { limit } | FetchDirection::Forward { limit: Some(limit) } => {
            count(&limit.value).map(Some)
        }
        FetchDirection::All | FetchDirection::ForwardAll => Ok(None),
        _ => Err("cursors go forward only".to_owned()),
    }
}

/// A cursor that was declared.
pub(super) struct Declared {
    schema: SchemaRef,
    /// It outlives the transaction.
    hold: bool,
}

impl Reader {
    /// What a cursor's question wants, and what comes of a portion of it.
    pub(super) async fn describe_cursor<C: ClientInfo>(&self, client: &C, of: &Cursor) -> PgWireResult<Described> {
        let nothing = || Described { schema: Arc::new(Schema::empty()), parameters: Vec::new() };
        match of {
            Cursor::Declare { sql, .. } => self.handle.describe(sql).await.map_err(|error| said(&error)),
            Cursor::Fetch { name, .. } => {
                let connection = connection(client)?;
                let cursors = connection.cursors();
                let declared = cursors.get(name).ok_or_else(|| no_cursor(name))?;
                Ok(Described { schema: Arc::clone(&declared.schema), ..nothing() })
            }
            Cursor::Close { .. } => Ok(nothing()),
        }
    }
}

impl Service {
    /// Does what is said of a cursor; `bound` is the portal that says it, if it came in one.
    pub(super) async fn cursor<C>(
        &self,
        client: &C,
        of: &Cursor,
        described: &Described,
        bound: Option<&Portal<Prepared>>,
        cancelled: Cancelled,
    ) -> PgWireResult<Response>
    where
        C: ClientInfo + ClientPortalStore + Send + Sync,
        C::PortalStore: PortalStore,
    {
        match of {
            Cursor::Declare { name, sql, hold } => {
                match connection(client)?.cursors().entry(name.clone()) {
                    hash_map::Entry::Occupied(_) => {
                        // duplicate_cursor
                        let message = format!("cursor \"{name}\" already exists");
                        let error = ErrorInfo::new("ERROR".into(), "42P03".into(), message);
                        return Err(PgWireError::UserError(Box::new(error)));
                    }
                    hash_map::Entry::Vacant(place) => {
                        place.insert(Declared { schema: Arc::clone(&described.schema), hold: *hold });
                    }
                }
                let query = Prepared::Query { sql: sql.clone(), described: described.clone() };
                let types = bound.map(|bound| bound.statement.parameter_types.clone()).unwrap_or_default();
                let statement = Arc::new(StoredStatement::new(name.clone(), query, types));
                let mut portal = Portal::new_cursor(name.clone(), statement);
                if let Some(bound) = bound {
                    portal.parameter_format = bound.parameter_format.clone();
                    portal.parameters.clone_from(&bound.parameters);
                }
                portals(client)?.put_portal(Arc::new(portal));
                Ok(Response::Execution(Tag::new("DECLARE CURSOR")))
            }
            Cursor::Fetch { name, rows: most } => {
                let Some(Entry::Value(portal)) = portals(client)?.get_portal(name) else { return Err(no_cursor(name)) };
                let format = bound.map(|bound| bound.result_column_format.clone()).unwrap_or_default();
                let state = portal.state();
                let mut held = state.lock().await;
                if let (PortalExecutionState::Initial, Prepared::Query { sql, described }) =
                    (&*held, &portal.statement.statement)
                {
                    let values = values(&portal, described)?;
                    let rows = self.answer(sql, values, &format, cancelled.clone()).await?;
                    *held = PortalExecutionState::Suspended(rows);
                }
                drop(held);
                let fields = Arc::new(arrow_schema_to_pg_fields(&described.schema, &format, None)?);
                let mut rows = QueryResponse::new(fields, portion(state, most.unwrap_or(usize::MAX), cancelled));
                rows.set_command_tag("FETCH");
                Ok(Response::Query(rows))
            }
            Cursor::Close { name: Some(name) } => {
                if connection(client)?.cursors().remove(name).is_none() {
                    return Err(no_cursor(name));
                }
                portals(client)?.rm_portal(name);
                Ok(Response::Execution(Tag::new("CLOSE CURSOR")))
            }
            Cursor::Close { name: None } => {
                close_cursors(client, true)?;
                Ok(Response::Execution(Tag::new("CLOSE CURSOR ALL")))
            }
        }
    }
}

/// Closes a connection's cursors, those that outlive a transaction only if they are `held` too.
pub(super) fn close_cursors<C>(client: &C, held: bool) -> PgWireResult<()>
where
    C: ClientInfo + ClientPortalStore,
    C::PortalStore: PortalStore,
{
    let portals = portals(client)?;
    connection(client)?.cursors().retain(|name, cursor| {
        let stays = cursor.hold && !held;
        if !stays {
            portals.rm_portal(name);
        }
        stays
    });
    Ok(())
}

/// Rows of a portal that has begun, so many at most.
fn portion(
    state: Arc<tokio::sync::Mutex<PortalExecutionState>>,
    most: usize,
    cancelled: Cancelled,
) -> impl Stream<Item = PgWireResult<DataRow>> {
    stream::unfold(Some(most), move |left| {
        let (state, cancelled) = (Arc::clone(&state), cancelled.clone());
        async move {
            let left = left.filter(|&left| left > 0)?;
            let mut state = state.lock().await;
            let PortalExecutionState::Suspended(rows) = &mut *state else { return None };
            let row = tokio::select! {
                biased;
                () = cancelled => Some(Err(PgWireError::QueryCanceled)),
                row = rows.data_rows().next() => row,
            };
            if let Some(Ok(row)) = row {
                return Some((Ok(row), Some(left - 1)));
            }
            // The statement ends with its last row, or with its error.
            *state = PortalExecutionState::Finished;
            row.map(|error| (error, None))
        }
    })
}

fn no_cursor(name: &str) -> PgWireError {
    // invalid_cursor_name
    let message = format!("cursor \"{name}\" does not exist");
    PgWireError::UserError(Box::new(ErrorInfo::new("ERROR".into(), "34000".into(), message)))
}

#[cfg(test)]
mod tests {
    use datafusion::sql::sqlparser::dialect::PostgreSqlDialect;
    use datafusion::sql::sqlparser::parser::Parser;

    use super::*;

    fn read(sql: &str) -> Option<Result<Cursor, String>> {
        Cursor::of(&Parser::parse_sql(&PostgreSqlDialect {}, sql).unwrap()[0])
    }

    #[test]
    fn drivers_words_are_understood() {
        let declare = |hold| Cursor::Declare { name: "c 1".to_owned(), sql: "SELECT $1".to_owned(), hold };
        assert_eq!(read("DECLARE \"c 1\" CURSOR FOR SELECT $1"), Some(Ok(declare(false))));
        assert_eq!(read("DECLARE \"c 1\" NO SCROLL CURSOR WITH HOLD FOR SELECT $1"), Some(Ok(declare(true))));
        let fetch = |rows| Some(Ok(Cursor::Fetch { name: "c".to_owned(), rows }));
        assert_eq!(read("FETCH FORWARD 100 FROM c"), fetch(Some(100)));
        assert_eq!(read("FETCH 7 FROM c"), fetch(Some(7)));
        assert_eq!(read("FETCH NEXT FROM c"), fetch(Some(1)));
        assert_eq!(read("FETCH FORWARD ALL FROM c"), fetch(None));
        assert_eq!(read("CLOSE c"), Some(Ok(Cursor::Close { name: Some("c".to_owned()) })));
        assert_eq!(read("CLOSE ALL"), Some(Ok(Cursor::Close { name: None })));
        assert_eq!(read("SELECT 1"), None);
    }

    #[test]
    fn what_goes_back_is_refused() {
        for sql in [
            "FETCH BACKWARD 1 FROM c",
            "FETCH PRIOR FROM c",
            "FETCH ABSOLUTE 3 FROM c",
            "DECLARE c SCROLL CURSOR FOR SELECT 1",
        ] {
            assert!(read(sql).is_some_and(|said| said.is_err()), "{sql}");
        }
    }
}
