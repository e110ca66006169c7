//! `volant sql`: ask a data folder or a running server, once or interactively.

mod pager;
mod remote;
mod shell;
mod table;

use std::io::{self, IsTerminal, Read, Write};
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::{Duration, Instant};

use arrow::array::RecordBatch;
use arrow::datatypes::SchemaRef;
use bytes::Bytes;
use clap::ValueEnum;
use futures::StreamExt;
use futures::stream::BoxStream;

use crate::query;
use crate::store::space::is_full_disk;
use remote::Remote;

/// Ask questions about recordings in SQL.
///
/// `SELECT * FROM data_dictionary` lists tables, columns with units, and functions; `\d` lists tables, `\d TABLE` columns. Without STATEMENT
/// the command is interactive, or reads statements from standard input if that is not a terminal.
#[derive(Clone, Debug, clap::Args)]
#[command(
    after_help = "Exit status: 0 answered, 1 the statement is wrong, 2 the command line is wrong, 3 a limit ended it, \
                        4 the data or the server cannot be reached, 130 interrupted."
)]
pub struct Args {
    /// The statement to answer; several are separated by ';'
    pub statement: Option<String>,
    /// Data folder to read; the server need not run
    #[arg(long, env = "VOLANT_DATA_DIR", default_value = "./volant-data", value_name = "DIR")]
    pub data_dir: PathBuf,
    /// Ask a running server instead, e.g. http://127.0.0.1:8000
    #[arg(long, value_name = "URL")]
    pub url: Option<String>,
    /// A token of that server, with the scope sql
    #[arg(long, value_name = "TOKEN", env = "VOLANT_TOKEN", hide_env_values = true)]
    pub token: Option<String>,
    /// How to write the answer
    #[arg(long, value_enum, default_value_t = Format::Table)]
    pub format: Format,
    /// Rows that a table shows at most; 0 shows all
    #[arg(long, default_value_t = 1000, value_name = "N")]
    pub max_rows: usize,
    /// What shows answers longer than the screen when statements are typed in; empty: nothing
    #[arg(long, env = "PAGER", default_value = "less -SRFX", value_name = "COMMAND")]
    pub pager: String,
    /// End a statement after this many seconds
    #[arg(long, value_name = "SECONDS")]
    pub timeout: Option<u64>,
}

/// How answers are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Format {
    /// Aligned columns for reading
    Table,
    /// RFC 4180 with a header
    Csv,
    /// One array of row objects
    Json,
    /// A row object a line
    Jsonl,
    /// Arrow IPC stream
    Arrow,
    /// Parquet file
    Parquet,
}

impl Format {
    const fn outside(self) -> Option<query::Format> {
        match self {
            Self::Table => None,
            Self::Csv => Some(query::Format::Csv),
            Self::Json => Some(query::Format::Json),
            Self::Jsonl => Some(query::Format::Jsonl),
            Self::Arrow => Some(query::Format::Arrow),
            Self::Parquet => Some(query::Format::Parquet),
        }
    }
}

/// What one statement may take on a folder of one's own: nobody else waits.
const LOCAL_LIMITS: query::Limits =
    query::Limits { rows: u64::MAX, wall_time: Duration::from_hours(1), memory_bytes: 4 << 30 };

/// Runs the command.
///
/// # Errors
/// Only what has no exit status of its own: standard input or output fail.
pub async fn run(args: Args) -> anyhow::Result<ExitCode> {
    let database = match Database::open(&args) {
        Ok(database) => database,
        Err(failure) => return Ok(failure.report(io::stderr().lock())?),
    };
    if matches!(args.format, Format::Arrow | Format::Parquet) && io::stdout().is_terminal() {
        writeln!(io::stderr(), "error: this format is binary\nhint: redirect it, for instance > answer.parquet")?;
        return Ok(ExitCode::from(2));
    }
    let text = match args.statement {
        Some(ref statement) => statement.clone(),
        None if io::stdin().is_terminal() => return shell::run(&database, &args).await,
        None => {
            let mut text = String::new();
            io::stdin().read_to_string(&mut text)?;
            text
        }
    };
    let (mut statements, rest) = shell::split(&text);
    if statements.is_empty() || !shell::is_blank(rest) {
        statements.push(rest);
    }
    let mut shown = shell::Shown { timing: true, paging: false };
    for statement in statements {
        let done = tokio::select! {
            done = shell::answer(&database, statement, &args, &mut shown) => done,
            _ = tokio::signal::ctrl_c() => return Ok(ExitCode::from(130)),
        };
        match done {
            Ok(true) => {}
            Ok(false) => break,
            Err(failure) => return Ok(failure.report(io::stderr().lock())?),
        }
    }
    Ok(ExitCode::SUCCESS)
}

/// Where the answers come from.
enum Database {
    Local(query::Handle),
    Remote(Remote),
}

/// An answer as batches.
struct Rows {
    schema: SchemaRef,
    batches: BoxStream<'static, Result<RecordBatch, Failure>>,
}

impl Database {
    fn open(args: &Args) -> Result<Self, Failure> {
        if let Some(url) = &args.url {
            return Remote::new(url, args.token.as_deref(), args.timeout).map(Self::Remote);
        }
        let folder = query::Folder::open(&args.data_dir).map_err(|error| {
            Failure::new(4, chain(&error)).hint("--data-dir names the folder of the server, --url asks a running one")
        })?;
        let limits = query::Limits {
            wall_time: args.timeout.map_or(LOCAL_LIMITS.wall_time, Duration::from_secs),
            ..LOCAL_LIMITS
        };
        let options = query::Options { limits, ..query::Options::default() };
        Ok(Self::Local(query::Handle::start(options, folder.files(), Arc::new(folder))?))
    }

    async fn rows(&self, sql: &str) -> Result<Rows, Failure> {
        match self {
            Self::Local(handle) => {
                let answer = handle.query(sql, handle.limits()).await?;
                Ok(Rows { schema: answer.schema, batches: answer.batches.map(|batch| Ok(batch?)).boxed() })
            }
            Self::Remote(remote) => remote.rows(sql).await,
        }
    }

    async fn bytes(
        &self,
        sql: &str,
        format: query::Format,
    ) -> Result<BoxStream<'static, Result<Bytes, Failure>>, Failure> {
        match self {
            Self::Local(handle) => {
                let answer = handle.query(sql, handle.limits()).await?;
                Ok(handle.encode(answer, format).map(|piece| Ok(piece?)).boxed())
            }
            Self::Remote(remote) => remote.bytes(sql, format).await,
        }
    }
}

/// Answers one statement on standard output; what is said about it goes to standard error.
async fn print(database: &Database, sql: &str, args: &Args, timing: bool, pager: Option<&str>) -> Result<(), Failure> {
    let started = Instant::now();
    let Some(format) = args.format.outside() else {
        let Rows { schema, mut batches } = database.rows(sql).await?;
        let limit = if args.max_rows == 0 { usize::MAX } else { args.max_rows };
        let (mut shown, mut count, mut more) = (Vec::new(), 0, false);
        while let Some(batch) = batches.next().await {
            let batch = batch?;
            let room = limit - count;
            count += batch.num_rows().min(room);
            more = batch.num_rows() > room;
            shown.push(if more { batch.slice(0, room) } else { batch });
            if more {
                break;
            }
        }
        // Ends the statement where not everything is shown.
        drop(batches);
        let text = table::render(&schema, &shown, table::Width::of_terminal())
            .map_err(|error| Failure::new(1, error.to_string()).hint("--format json shows every type"))?;
        pager::write(&text, pager)?;
        let rows = if count == 1 { "row" } else { "rows" };
        let seconds = started.elapsed().as_secs_f64();
        let note = if more { "first " } else { "" };
        let hint = if more { ", --max-rows 0 shows all" } else { "" };
        if timing {
            writeln!(io::stderr(), "({note}{count} {rows}, {seconds:.3} s{hint})")?;
        }
        return Ok(());
    };
    let mut pieces = database.bytes(sql, format).await?;
    let mut output = io::stdout().lock();
    while let Some(piece) = pieces.next().await {
        output.write_all(&piece?)?;
    }
    output.flush()?;
    if timing {
        writeln!(io::stderr(), "({:.3} s)", started.elapsed().as_secs_f64())?;
    }
    Ok(())
}

/// Why there is no answer, for people and for scripts.
#[derive(Debug)]
struct Failure {
    exit: u8,
    message: String,
    hint: Option<String>,
}

impl Failure {
    fn new(exit: u8, message: impl Into<String>) -> Self {
        Self { exit, message: message.into(), hint: None }
    }

    fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }

    /// Says it and gives the exit status. A reader that has closed the pipe has what it wanted.
    fn report(&self, mut to: impl Write) -> io::Result<ExitCode> {
        if self.exit != 0 {
            writeln!(to, "error: {}", self.message)?;
            if let Some(hint) = &self.hint {
                writeln!(to, "hint: {hint}")?;
            }
        }
        Ok(ExitCode::from(self.exit))
    }
}

impl From<query::Error> for Failure {
    fn from(error: query::Error) -> Self {
        let exit = match error.class() {
            query::Class::Caller => 1,
            query::Class::Limit => 3,
            query::Class::Environment | query::Class::Bug => 4,
        };
        // Also reading a folder that nobody has open needs a little room for the catalog.
        let hint = if is_full_disk(&error) { Some(super::FULL_DISK_HINT) } else { error.hint() };
        Self { exit, message: chain(&error), hint: hint.map(str::to_owned) }
    }
}

impl From<io::Error> for Failure {
    fn from(error: io::Error) -> Self {
        let exit = if error.kind() == io::ErrorKind::BrokenPipe { 0 } else { 4 };
        Self::new(exit, format!("write the answer: {error}"))
    }
}

/// An error with its causes, on one line.
fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let next = error.to_string();
        // The engine's word for what is ours.
        let next = next.strip_prefix("External error: ").unwrap_or(&next);
        // Layers that print their source say everything twice otherwise.
        if !text.contains(next) {
            text.push_str(": ");
            text.push_str(next);
        }
        cause = error.source();
    }
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}
