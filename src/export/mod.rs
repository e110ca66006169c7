//! What people take away: rows of chosen sessions in the formats of their tools.
//!
//! In: a [`Selection`] (sessions, players, devices, days, strokes) of a [`Table`] and a [`Form`]. Out: bytes, made while
//! they are taken, one session in memory at a time. The rows come from the query room, so that open sessions, sealed
//! files, a bare folder and a running service are all the same here; archives (`archive.rs`) take the files themselves.
//!
//! Invariants: every column leaves with its value, its name and its unit; the order of rows is fixed (session, sensor,
//! time), so that the same selection of the same data gives the same rows; a selection that matches nothing is an error,
//! not an empty file.
//!
//! Absent: pictures and reports (the gateway draws those), names and openids of people.

mod archive;
mod bucket;
pub mod http;
mod made;
mod mat;
mod mcap;
mod selection;

pub(crate) use archive::text_of;
pub use archive::{ARCHIVE_VERSION, Archive, Entry, Manifest, Opened, SessionEntry, Written, described, hex};
pub use bucket::{Bucket, Outgoing};
pub use made::{ArchiveNote, archives_with, note_archive};
pub use selection::{Selection, SessionState, Table};

use std::path::Path;

use arrow::array::{
    Array as _, ArrayRef, AsArray as _, Float32Array, Float64Array, Int32Array, Int64Array, RecordBatch, StringArray,
};
use arrow::datatypes::{Float32Type, Float64Type, Int32Type, Int64Type};
use bytes::Bytes;
use futures::future::BoxFuture;
use futures::{StreamExt, TryStreamExt};

use crate::query::{self, ByteStream};

/// How rows are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Form {
    /// A format of SQL answers; any table, any number of sessions.
    Rows(query::Format),
    /// MCAP with JSON messages, a channel a sensor: one session's frames and strokes.
    Mcap,
    /// MATLAB level 5, matrices of each sensor: one session's frames and strokes.
    Mat,
}

impl Form {
    /// Every form by its name.
    pub const ALL: [(&'static str, Self); 7] = [
        ("parquet", Self::Rows(query::Format::Parquet)),
        ("csv", Self::Rows(query::Format::Csv)),
        ("arrow", Self::Rows(query::Format::Arrow)),
        ("jsonl", Self::Rows(query::Format::Jsonl)),
        ("json", Self::Rows(query::Format::Json)),
        ("mcap", Self::Mcap),
        ("mat", Self::Mat),
    ];

    /// The name, which is also the ending of a file.
    #[must_use]
    pub fn name(self) -> &'static str {
        Self::ALL.iter().find(|(_, form)| *form == self).map_or("", |(name, _)| name)
    }

    /// The form of a name.
    #[must_use]
    pub fn of(name: &str) -> Option<Self> {
        Self::ALL.iter().find(|(known, _)| *known == name).map(|(_, form)| *form)
    }

    /// The media type of the bytes.
    #[must_use]
    pub const fn content_type(self) -> &'static str {
        match self {
            Self::Rows(format) => format.content_type(),
            Self::Mcap => "application/vnd.mcap",
            Self::Mat => "application/x-matlab-data",
        }
    }
}

/// Why something could not be taken away.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The selection matches no session.
    #[error("no session matches: {selection}")]
    Nothing {
        /// What was asked for.
        selection: String,
    },
    /// The form holds one session.
    #[error("{form} holds one session, the selection matches {sessions}")]
    OneSession {
        /// The form.
        form: &'static str,
        /// How many matched.
        sessions: usize,
    },
    /// The form holds frames and strokes together, no other table.
    #[error("{form} holds the frames and strokes of a session, not the table {table}")]
    Whole {
        /// The form.
        form: &'static str,
        /// What was asked for.
        table: &'static str,
    },
    /// More sessions than one answer may have.
    #[error("the selection matches {sessions} sessions, one export takes {limit}")]
    TooMany {
        /// How many matched.
        sessions: usize,
        /// The limit.
        limit: usize,
    },
    /// The rows could not be read.
    #[error("read the rows to export")]
    Query {
        /// The cause.
        #[from]
        source: query::Error,
    },
    /// The format could not be written.
    #[error("write {form}")]
    Write {
        /// The form.
        form: &'static str,
        /// The cause.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// A file of an archive could not be read or written.
    #[error("{step} {}", path.display())]
    Io {
        /// What was done.
        step: &'static str,
        /// To what.
        path: std::path::PathBuf,
        /// The cause.
        #[source]
        source: std::io::Error,
    },
    /// A session's stored file.
    #[error("read a stored file")]
    Stored {
        /// The cause.
        #[source]
        source: crate::store::seal::Error,
    },
    /// The object store.
    #[error("reach {url}")]
    Bucket {
        /// The place, as it was named.
        url: String,
        /// The cause.
        #[source]
        source: object_store::Error,
    },
    /// An archive is made of sealed sessions.
    #[error("no session that matches is sealed yet: {selection}")]
    Unsealed {
        /// What was asked for.
        selection: String,
    },
    /// As many archives are being made as may be at once.
    #[error("{limit} archives are being made; ask again when one is done")]
    Busy {
        /// How many.
        limit: usize,
    },
    /// What is known of the sessions.
    #[error("read the catalog")]
    Catalog(#[from] crate::store::catalog::Error),
    /// What should be an archive is none, or is damaged or incomplete.
    #[error("{what} in {}", path.display())]
    Archive {
        /// What is wrong.
        what: String,
        /// The archive.
        path: std::path::PathBuf,
    },
}

/// Sessions of one export at most.
pub const SESSIONS_LIMIT: usize = 100_000;

/// Takes rows out. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Handle {
    query: query::Handle,
}

impl Handle {
    /// Over a query room.
    #[must_use]
    pub fn new(query: query::Handle) -> Self {
        Self { query }
    }

    /// The sessions that a selection matches, in order.
    ///
    /// # Errors
    /// [`Error::Nothing`], [`Error::TooMany`], [`Error::Query`].
    pub fn sessions<'a>(&'a self, selection: &'a Selection) -> BoxFuture<'a, Result<Vec<i64>, Error>> {
        Box::pin(async move {
            let answer = self.query.query(&selection.sessions_sql(), self.query.limits()).await?;
            let batches: Vec<RecordBatch> = answer.batches.try_collect().await?;
            let sessions: Vec<i64> = batches
                .iter()
                .flat_map(|batch| batch.column(0).as_primitive::<Int64Type>().values().to_vec())
                .collect();
            if sessions.is_empty() {
                return Err(Error::Nothing { selection: selection.to_string() });
            }
            if sessions.len() > SESSIONS_LIMIT {
                return Err(Error::TooMany { sessions: sessions.len(), limit: SESSIONS_LIMIT });
            }
            Ok(sessions)
        })
    }

    /// What there is of each session of a selection, in order.
    ///
    /// # Errors
    /// [`Error::Query`].
    pub fn states<'a>(&'a self, selection: &'a Selection) -> BoxFuture<'a, Result<Vec<SessionState>, Error>> {
        Box::pin(async move {
            let answer = self.query.query(&selection.states_sql(), self.query.limits()).await?;
            let batches: Vec<RecordBatch> = answer.batches.try_collect().await?;
            let states = batches.iter().flat_map(|batch| {
                let columns = [0, 1, 2, 3].map(|at| batch.column(at).as_primitive::<Int64Type>());
                (0..batch.num_rows()).map(move |row| {
                    let [session_id, frames, latest_us, analysed_us] =
                        columns.map(|column| column.is_valid(row).then(|| column.value(row)));
                    SessionState { session_id: session_id.unwrap_or_default(), frames, latest_us, analysed_us }
                })
            });
            Ok(states.collect())
        })
    }

    /// The rows of a selection as bytes. Dropping the stream ends the work.
    ///
    /// # Errors
    /// See [`Error`]; what goes wrong later comes as the last item of the stream.
    pub fn bytes<'a>(
        &'a self,
        selection: &'a Selection,
        table: Table,
        form: Form,
    ) -> BoxFuture<'a, Result<ByteStream, Error>> {
        Box::pin(async move {
            let sessions = self.sessions(selection).await?;
            let Form::Rows(format) = form else { return self.whole_session(&sessions, table, form).await };
            let statements = sessions.iter().map(|session| table.sql(*session, &selection.strokes)).collect();
            let answer = self.query.query_all(statements, self.query.limits()).await?;
            Ok(self.query.encode(answer, format))
        })
    }

    /// Frames and strokes of one session in one file.
    async fn whole_session(&self, sessions: &[i64], table: Table, form: Form) -> Result<ByteStream, Error> {
        let form_name = form.name();
        let &[session] = sessions else {
            return Err(Error::OneSession { form: form_name, sessions: sessions.len() });
        };
        if table != Table::Frames {
            return Err(Error::Whole { form: form_name, table: table.as_str() });
        }
        let rows = async |sql: String| -> Result<Vec<RecordBatch>, Error> {
            let answer = self.query.query(&sql, self.query.limits()).await?;
            Ok(answer.batches.try_collect().await?)
        };
        let about = rows(selection::about_sql(session)).await?;
        let strokes = rows(Table::Strokes.sql(session, &[])).await?;
        let frames = rows(match form {
            Form::Mcap => selection::frames_in_time_sql(session),
            _ => Table::Frames.sql(session, &[]),
        })
        .await?;
        let made = tokio::task::spawn_blocking(move || match form {
            Form::Mcap => mcap::write(session, &about, &frames, &strokes),
            _ => mat::write(session, &about, &frames, &strokes),
        });
        let made = made.await.map_err(|source| Error::Write { form: form_name, source: source.into() })?;
        let bytes = made.map_err(|source| Error::Write { form: form_name, source })?;
        Ok(futures::stream::once(async { Ok(Bytes::from(bytes)) }).boxed())
    }
}

/// The columns of a batch by name.
#[derive(Clone, Copy)]
struct Columns<'a>(&'a RecordBatch);

impl<'a> Columns<'a> {
    fn get<T>(self, name: &str, read: impl Fn(&'a ArrayRef) -> Option<&'a T>) -> Result<&'a T, Failure> {
        let column = self.0.column_by_name(name).and_then(read);
        column.ok_or_else(|| format!("the column {name} is not there, or of another type").into())
    }

    fn longs(self, name: &str) -> Result<&'a Int64Array, Failure> {
        self.get(name, |column| column.as_primitive_opt::<Int64Type>())
    }

    fn ints(self, name: &str) -> Result<&'a Int32Array, Failure> {
        self.get(name, |column| column.as_primitive_opt::<Int32Type>())
    }

    fn floats(self, name: &str) -> Result<&'a Float32Array, Failure> {
        self.get(name, |column| column.as_primitive_opt::<Float32Type>())
    }

    fn doubles(self, name: &str) -> Result<&'a Float64Array, Failure> {
        self.get(name, |column| column.as_primitive_opt::<Float64Type>())
    }

    fn texts(self, name: &str) -> Result<&'a StringArray, Failure> {
        self.get(name, |column| column.as_string_opt::<i32>())
    }

    /// `NAME_x`, `NAME_y`, `NAME_z`.
    fn axes(self, name: &str) -> Result<[&'a Float32Array; 3], Failure> {
        let axis = |axis| self.floats(&format!("{name}_{axis}"));
        Ok([axis("x")?, axis("y")?, axis("z")?])
    }
}

fn io_error(step: &'static str, path: &Path) -> impl FnOnce(std::io::Error) -> Error {
    let path = path.to_owned();
    move |source| Error::Io { step, path, source }
}

/// Why a format could not be written.
type Failure = Box<dyn std::error::Error + Send + Sync>;
