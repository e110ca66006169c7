//! What can go wrong with a statement, and whose doing it is.

use std::fmt;
use std::time::Duration;

use datafusion::common::utils::datafusion_strsim::levenshtein;
use datafusion::common::{Diagnostic, SchemaError};
use datafusion::error::DataFusionError;
use datafusion::sql::sqlparser::parser::ParserError;
use serde::Serialize;

/// A place in the text of a statement, both from 1.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Position {
    pub line: u64,
    pub column: u64,
}

impl fmt::Display for Position {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "line {}, column {}", self.line, self.column)
    }
}

/// Whose doing an error is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Class {
    /// The statement is wrong; repeating it gives the same.
    Caller,
    /// The statement asks for more than it may have.
    Limit,
    /// Files, catalog or disk; may pass.
    Environment,
    /// A mistake in this program.
    Bug,
}

/// Why a statement was not answered, or not to its end.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("there is no statement")]
    Empty,
    #[error("{count} statements came at once, one is answered")]
    ManyStatements { count: usize },
    #[error("the statement has {bytes} bytes, {limit_bytes} are allowed")]
    TooLong { bytes: usize, limit_bytes: usize },
    /// The text is not SQL.
    #[error("{message}{}", at(.position.as_ref()))]
    Syntax { message: String, position: Option<Position> },
    /// It is SQL, but names what does not exist, or does with it what cannot be done.
    #[error("{message}{}", at(.position.as_ref()))]
    Statement { message: String, position: Option<Position> },
    #[error("{statement} is refused, SQL here only reads")]
    NotReadOnly { statement: String },
    /// A value could not be computed: division by zero, a cast that does not fit.
    #[error("{message}")]
    Evaluate { message: String },
    #[error("the result has a column that {format} cannot hold: {message}")]
    Encode { format: &'static str, message: String },
    #[error("{running} statements run and {waiting} wait already")]
    Busy { running: usize, waiting: usize },
    #[error("the statement ran for its limit of {} s", .limit.as_secs_f64())]
    Time { limit: Duration },
    #[error("the statement needs more than its {limit_bytes} bytes of memory")]
    Memory { limit_bytes: usize },
    #[error("the result has more than {limit} rows")]
    Rows { limit: u64 },
    /// Stored files or the catalog could not be read.
    #[error("read the stored data")]
    Stored {
        #[source]
        source: Box<DataFusionError>,
    },
    #[error("start the query threads")]
    Start {
        #[source]
        source: std::io::Error,
    },
    #[error("open the data folder {path}")]
    Open {
        path: std::path::PathBuf,
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// The engine contradicted itself.
    #[error("run the statement")]
    Engine {
        #[source]
        source: Box<DataFusionError>,
    },
    #[error("the query task ended without an answer")]
    Vanished,
}

fn at(position: Option<&Position>) -> String {
    position.map(|position| format!(" ({position})")).unwrap_or_default()
}

impl Error {
    /// Whose doing it is.
    pub const fn class(&self) -> Class {
        match self {
            Self::Empty
            | Self::ManyStatements { .. }
            | Self::TooLong { .. }
            | Self::Syntax { .. }
            | Self::Statement { .. }
            | Self::NotReadOnly { .. }
            | Self::Evaluate { .. }
            | Self::Encode { .. } => Class::Caller,
            Self::Busy { .. } | Self::Time { .. } | Self::Memory { .. } | Self::Rows { .. } => Class::Limit,
            Self::Stored { .. } | Self::Start { .. } | Self::Open { .. } => Class::Environment,
            Self::Engine { .. } | Self::Vanished => Class::Bug,
        }
    }

    /// True if the same statement may succeed later.
    pub const fn is_retryable(&self) -> bool {
        matches!(self, Self::Busy { .. } | Self::Stored { .. })
    }

    /// A stable name for scripts.
    pub const fn code(&self) -> &'static str {
        match self {
            Self::Empty => "empty_statement",
            Self::ManyStatements { .. } => "many_statements",
            Self::TooLong { .. } => "statement_too_long",
            Self::Syntax { .. } => "bad_syntax",
            Self::Statement { .. } => "bad_statement",
            Self::NotReadOnly { .. } => "read_only",
            Self::Evaluate { .. } => "bad_value",
            Self::Encode { .. } => "bad_format",
            Self::Busy { .. } => "busy",
            Self::Time { .. } => "time_limit",
            Self::Memory { .. } => "memory_limit",
            Self::Rows { .. } => "row_limit",
            Self::Stored { .. } => "data_unreadable",
            Self::Start { .. } | Self::Open { .. } | Self::Engine { .. } | Self::Vanished => "internal",
        }
    }

    /// Where in the statement, if that is known.
    pub const fn position(&self) -> Option<Position> {
        match self {
            Self::Syntax { position, .. } | Self::Statement { position, .. } => *position,
            _ => None,
        }
    }

    /// What the caller can do about it, if there is something to do.
    pub const fn hint(&self) -> Option<&'static str> {
        match self {
            Self::Statement { .. } => Some(
                "SHOW TABLES lists the tables, DESCRIBE frames the columns of one, data_dictionary functions too; names are lower case",
            ),
            Self::NotReadOnly { .. } => Some("SELECT, WITH, VALUES, EXPLAIN, SHOW and DESCRIBE are answered"),
            Self::ManyStatements { .. } => Some("send them one by one"),
            Self::Encode { .. } => Some("ask for arrow, or cast the column to text"),
            Self::Busy { .. } => Some("try again in a moment"),
            Self::Time { .. } => Some("name a session_id or a date, so that fewer files are read"),
            Self::Memory { .. } => Some("name a session_id or a date, group by fewer values, or add LIMIT to ORDER BY"),
            Self::Rows { .. } => Some("add LIMIT, or export the session instead"),
            _ => None,
        }
    }

    /// With the table or the function that was meant, if the statement names one that is not there.
    pub(super) fn suggesting(self, tables: &[&str], functions: &[&str]) -> Self {
        let Self::Statement { message, position } = self else { return self };
        let known = if message.starts_with("table '") { tables } else { functions };
        let names_unknown = message.ends_with("not found") || message.starts_with("Invalid function");
        let unknown = message.split('\'').nth(1).and_then(|name| name.rsplit('.').next()).filter(|_| names_unknown);
        let message = match unknown.and_then(|name| likest(name, known)) {
            // The engine suggests functions of its own only.
            Some(meant) => format!("{}. Did you mean '{meant}'?", message.split(". Did").next().unwrap_or_default()),
            None => message,
        };
        Self::Statement { message, position }
    }

    /// Sorts an error of the engine; `memory_bytes` is what the statement was allowed.
    pub(super) fn from_engine(error: DataFusionError, memory_bytes: usize) -> Self {
        let position = error.diagnostic().and_then(position_of);
        let root = innermost(&error);
        match root {
            DataFusionError::SQL(parser_error, _) => from_parser(parser_error),
            DataFusionError::Plan(message) | DataFusionError::Configuration(message) => {
                Self::Statement { message: without_internals(&one_line(message)), position }
            }
            DataFusionError::NotImplemented(message) => {
                Self::Statement { message: format!("not supported here: {}", one_line(message)), position }
            }
            DataFusionError::SchemaError(schema_error, _) => {
                Self::Statement { message: schema_message(schema_error), position }
            }
            DataFusionError::Execution(message) => Self::Evaluate { message: one_line(message) },
            DataFusionError::ArrowError(arrow_error, _) => match **arrow_error {
                arrow::error::ArrowError::IoError(..)
                | arrow::error::ArrowError::ParquetError(_)
                | arrow::error::ArrowError::ExternalError(_) => Self::Stored { source: Box::new(error) },
                ref other => Self::Evaluate { message: one_line(&other.to_string()) },
            },
            DataFusionError::ResourcesExhausted(_) => Self::Memory { limit_bytes: memory_bytes },
            DataFusionError::ObjectStore(_)
            | DataFusionError::IoError(_)
            | DataFusionError::ParquetError(_)
            | DataFusionError::External(_) => Self::Stored { source: Box::new(error) },
            _ => Self::Engine { source: Box::new(error) },
        }
    }
}

/// The name that somebody may have meant: one that holds what was written or stands in it, else one that differs by few letters.
fn likest<'a>(written: &str, known: &[&'a str]) -> Option<&'a str> {
    let most = (written.chars().count() / 3).max(1);
    let differs =
        |name: &str| if name.contains(written) || written.contains(name) { 0 } else { levenshtein(written, name) };
    let found = known.iter().map(|name| (differs(name), *name)).min()?;
    (found.0 <= most && written.len() > 2).then_some(found.1)
}

/// The error below all layers that only add context.
fn innermost(error: &DataFusionError) -> &DataFusionError {
    match error {
        DataFusionError::Context(_, inner) | DataFusionError::Diagnostic(_, inner) => innermost(inner),
        DataFusionError::Shared(inner) => innermost(inner),
        DataFusionError::Collection(errors) => errors.first().map_or(error, innermost),
        DataFusionError::External(inner) => inner.downcast_ref::<DataFusionError>().map_or(error, innermost),
        DataFusionError::ArrowError(inner, _) => match &**inner {
            arrow::error::ArrowError::ExternalError(inner) => {
                inner.downcast_ref::<DataFusionError>().map_or(error, innermost)
            }
            _ => error,
        },
        _ => error,
    }
}

/// Sorts an error of the parser, whose texts end in `at Line: 1, Column: 8`.
fn from_parser(error: &ParserError) -> Error {
    let text = match error {
        ParserError::TokenizerError(text) | ParserError::ParserError(text) => text.as_str(),
        ParserError::RecursionLimitExceeded => "the statement is nested too deeply",
    };
    let Some((message, place)) = text.rsplit_once(" at Line: ") else {
        return Error::Syntax { message: one_line(text), position: None };
    };
    let position = place.split_once(", Column: ").and_then(|(line, column)| {
        Some(Position { line: line.trim().parse().ok()?, column: column.trim().parse().ok()? })
    });
    Error::Syntax { message: one_line(message), position }
}

fn position_of(diagnostic: &Diagnostic) -> Option<Position> {
    let start = diagnostic.span?.start;
    Some(Position { line: start.line, column: start.column })
}

fn schema_message(error: &SchemaError) -> String {
    one_line(&error.to_string())
}

/// What the engine says of a call that fits no signature, without what it says to those who work on it.
fn without_internals(message: &str) -> String {
    let told = message.find("No function matches").map_or(message, |from| &message[from..]);
    // Text is in views inside only.
    told.replace("Utf8View", "Utf8").replace("BinaryView", "Binary")
}

fn one_line(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}
