//! The interactive prompt.

use std::io::{self, Write};
use std::process::ExitCode;
use std::sync::Arc;

use arrow::array::{AsArray, RecordBatch, StringArray};
use futures::TryStreamExt;
use rustyline::completion::{Completer, Pair};
use rustyline::error::ReadlineError;
use rustyline::highlight::Highlighter;
use rustyline::hint::Hinter;
use rustyline::history::DefaultHistory;
use rustyline::validate::{ValidationContext, ValidationResult, Validator};
use rustyline::{Context, Editor, Helper};
use tokio::sync::{mpsc, oneshot};

use super::pager;
use super::table::{self, Width};
use super::{Args, Database, Failure, print};

const PROMPT: &str = "volant> ";
/// Where statements are remembered, in the user's home folder.
const HISTORY_FILE: &str = ".volant_history";
const HISTORY_LINES: usize = 1000;

const HELP: &str = "\
SELECT …;     answers a statement; it may have several lines and ends with ;
\\d            tables
\\d TABLE      columns of a table, with units
\\timing       row count and time on or off
\\pager        answers longer than the screen page by page, on or off
\\q            quit (or Ctrl-D)
Ctrl-C        ends the running statement, or drops the line
";

const KEYWORDS: &[&str] = &[
    "SELECT",
    "FROM",
    "WHERE",
    "GROUP BY",
    "ORDER BY",
    "LIMIT",
    "HAVING",
    "JOIN",
    "LEFT JOIN",
    "USING",
    "WITH",
    "EXPLAIN",
    "ANALYZE",
    "DESCRIBE",
    "SHOW TABLES",
    "DISTINCT",
    "BETWEEN",
    "IS NULL",
    "IS NOT NULL",
    "count(*)",
    "approx_percentile_cont",
    "date_trunc",
    "to_timestamp_micros",
    "UNION ALL",
    "DESC",
];

/// Reads and answers until the user leaves.
pub(super) async fn run(database: &Database, args: &Args) -> anyhow::Result<ExitCode> {
    // Asking for the names also shows at once whether anybody answers.
    let names = match names(database).await {
        Ok(names) => names,
        Err(failure) => return Ok(failure.report(io::stderr().lock())?),
    };
    writeln!(io::stderr(), "Volant SQL, read-only. \\d lists the tables, \\? helps, \\q quits.")?;
    let (line_sender, mut lines) = mpsc::channel::<(String, oneshot::Sender<()>)>(1);
    let reader = std::thread::Builder::new()
        .name("volant-sql-input".to_owned())
        .spawn(move || read_lines(names, &line_sender))?;
    let mut shown = Shown { timing: true, paging: true };
    while let Some((input, done)) = lines.recv().await {
        if !answer_all(database, args, &input, &mut shown).await? {
            break;
        }
        // The reader waits for this; if it is gone, so is the loop.
        done.send(()).ok();
    }
    drop(lines);
    match reader.join() {
        Ok(Ok(())) => Ok(ExitCode::SUCCESS),
        Ok(Err(error)) => Err(error.into()),
        Err(_) => Err(anyhow::anyhow!("the input thread ended unexpectedly")),
    }
}

/// How answers are shown, as the user switched it.
pub(super) struct Shown {
    /// Row count and time with each.
    pub(super) timing: bool,
    /// Long ones page by page.
    pub(super) paging: bool,
}

impl Shown {
    fn pager<'a>(&self, args: &'a Args) -> Option<&'a str> {
        self.paging.then_some(args.pager.as_str())
    }
}

/// Answers what was entered; false if the user wants to leave.
async fn answer_all(database: &Database, args: &Args, input: &str, shown: &mut Shown) -> anyhow::Result<bool> {
    let (mut statements, rest) = split(input);
    if !is_blank(rest) {
        statements.push(rest);
    }
    for statement in statements {
        let done = tokio::select! {
            done = answer(database, statement, args, shown) => done,
            _ = tokio::signal::ctrl_c() => {
                writeln!(io::stderr(), "cancelled")?;
                return Ok(true);
            }
        };
        match done {
            Ok(true) => {}
            Ok(false) => return Ok(false),
            Err(failure) => {
                failure.report(io::stderr().lock())?;
                return Ok(true);
            }
        }
    }
    Ok(true)
}

/// Answers one statement or command; false if it was the one to leave by.
pub(super) async fn answer(
    database: &Database,
    statement: &str,
    args: &Args,
    shown: &mut Shown,
) -> Result<bool, Failure> {
    match statement.trim().strip_prefix('\\') {
        Some(command) => meta(database, command, args, shown).await,
        None => print(database, statement, args, shown.timing, shown.pager(args)).await.map(|()| true),
    }
}

/// A command that is no SQL; false to leave.
async fn meta(database: &Database, command: &str, args: &Args, shown: &mut Shown) -> Result<bool, Failure> {
    let mut words = command.split_whitespace();
    match (words.next(), words.next()) {
        (Some("q" | "quit"), None) => return Ok(false),
        (Some("timing"), None) => {
            shown.timing = !shown.timing;
            writeln!(io::stderr(), "timing is {}", if shown.timing { "on" } else { "off" })?;
        }
        (Some("pager"), None) => {
            shown.paging = !shown.paging;
            writeln!(io::stderr(), "the pager is {}", if shown.paging { "on" } else { "off" })?;
        }
        (Some("d"), None) => {
            let sql = "SELECT table_name, table_type FROM information_schema.tables \
                       WHERE table_schema = 'public' ORDER BY table_name";
            let answer = database.rows(sql).await?;
            show(&answer.batches.try_collect::<Vec<_>>().await?, shown.pager(args))?;
        }
        (Some("d"), Some(table)) => {
            let sql = format!("SELECT * FROM \"{}\" LIMIT 0", table.replace('"', "\"\""));
            show(&[columns(&database.rows(&sql).await?.schema)?], shown.pager(args))?;
        }
        (Some("?" | "h" | "help"), None) => io::stdout().lock().write_all(HELP.as_bytes())?,
        _ => return Err(Failure::new(1, format!("\\{command} is no command")).hint("\\? lists them")),
    }
    Ok(true)
}

fn show(batches: &[RecordBatch], pager: Option<&str>) -> Result<(), Failure> {
    if let Some(first) = batches.first() {
        let text = table::render(&first.schema(), batches, Width { cell: 120, ..Width::of_terminal() })
            .map_err(|error| Failure::new(4, error.to_string()))?;
        pager::write(&text, pager)?;
    }
    Ok(())
}

/// What a schema says of its columns.
fn columns(schema: &arrow::datatypes::Schema) -> Result<RecordBatch, Failure> {
    let column = |of: &dyn Fn(&arrow::datatypes::Field) -> String| -> arrow::array::ArrayRef {
        Arc::new(StringArray::from_iter_values(schema.fields().iter().map(|field| of(field))))
    };
    RecordBatch::try_from_iter([
        ("column", column(&|field| field.name().clone())),
        ("type", column(&|field| field.data_type().to_string())),
        ("null", column(&|field| if field.is_nullable() { "yes" } else { "no" }.to_owned())),
        ("meaning", column(&|field| field.metadata().get("comment").cloned().unwrap_or_default())),
    ])
    .map_err(|error| Failure::new(4, error.to_string()))
}

/// Names of tables and columns, for completion.
async fn names(database: &Database) -> Result<Vec<String>, Failure> {
    let sql = "SELECT DISTINCT table_name AS name FROM information_schema.columns WHERE table_schema = 'public' \
               UNION SELECT DISTINCT column_name FROM information_schema.columns WHERE table_schema = 'public'";
    let batches = database.rows(sql).await?.batches.try_collect::<Vec<_>>().await?;
    let mut names = KEYWORDS.iter().map(|&word| word.to_owned()).collect::<Vec<_>>();
    for batch in &batches {
        if let Some(column) = batch.column(0).as_string_opt::<i32>() {
            names.extend(column.iter().flatten().map(str::to_owned));
        }
    }
    names.sort_unstable();
    Ok(names)
}

/// The blocking side: edits lines until the end of input.
fn read_lines(names: Vec<String>, lines: &mpsc::Sender<(String, oneshot::Sender<()>)>) -> Result<(), ReadlineError> {
    let config = rustyline::Config::builder().max_history_size(HISTORY_LINES)?.history_ignore_space(true).build();
    let mut editor = Editor::<Prompt, DefaultHistory>::with_config(config)?;
    editor.set_helper(Some(Prompt { names }));
    let history = std::env::home_dir().map(|home| home.join(HISTORY_FILE));
    if let Some(path) = &history {
        // The first time there is none.
        editor.load_history(path).ok();
    }
    loop {
        match editor.readline(PROMPT) {
            Ok(line) if is_blank(&line) => {}
            Ok(line) => {
                editor.add_history_entry(line.as_str())?;
                let (done, wait) = oneshot::channel();
                if lines.blocking_send((line, done)).is_err() || wait.blocking_recv().is_err() {
                    break;
                }
            }
            Err(ReadlineError::Interrupted) => {}
            Err(ReadlineError::Eof) => break,
            Err(error) => return Err(error),
        }
    }
    if let Some(path) = &history {
        // A home folder that cannot be written costs the history, not the session.
        editor.save_history(path).ok();
    }
    Ok(())
}

/// Decides when the input is complete, and completes words.
struct Prompt {
    names: Vec<String>,
}

impl Helper for Prompt {}
impl Highlighter for Prompt {}

impl Hinter for Prompt {
    type Hint = String;
}

impl Validator for Prompt {
    fn validate(&self, context: &mut ValidationContext) -> rustyline::Result<ValidationResult> {
        let input = context.input();
        let complete = is_blank(input) || is_blank(split(input).1);
        Ok(if complete { ValidationResult::Valid(None) } else { ValidationResult::Incomplete })
    }
}

impl Completer for Prompt {
    type Candidate = Pair;

    fn complete(&self, line: &str, position: usize, _context: &Context<'_>) -> rustyline::Result<(usize, Vec<Pair>)> {
        let before = &line[..position];
        let start = before
            .rfind(|c: char| !c.is_alphanumeric() && c != '_')
            .map_or(0, |place| place + before[place..].chars().next().map_or(1, char::len_utf8));
        let word = before[start..].to_lowercase();
        if word.is_empty() {
            return Ok((start, Vec::new()));
        }
        let candidates = self
            .names
            .iter()
            .filter(|name| name.to_lowercase().starts_with(&word))
            .map(|name| Pair { display: name.clone(), replacement: name.clone() })
            .collect();
        Ok((start, candidates))
    }
}

/// The statements that end with `;`, commands such as `\d`, which end with their line, and what follows the last of them. Quoted
/// texts and comments may hold `;`.
pub(super) fn split(text: &str) -> (Vec<&str>, &str) {
    let bytes = text.as_bytes();
    let (mut statements, mut start, mut place) = (Vec::new(), 0, 0);
    while place < bytes.len() {
        match bytes[place] {
            b';' => {
                let statement = &text[start..place];
                if !is_blank(statement) {
                    statements.push(statement);
                }
                start = place + 1;
            }
            b'\\' if is_blank(&text[start..place]) => {
                let length = text[place..].find('\n').unwrap_or(text.len() - place);
                statements.push(text[place..place + length].trim_end().trim_end_matches(';'));
                place += length;
                start = place;
            }
            quote @ (b'\'' | b'"') => match text[place + 1..].find(char::from(quote)) {
                Some(length) => place += length + 1,
                None => return (statements, &text[start..]),
            },
            b'-' if bytes.get(place + 1) == Some(&b'-') => match text[place..].find('\n') {
                Some(length) => place += length,
                None => break,
            },
            b'/' if bytes.get(place + 1) == Some(&b'*') => match text[place..].find("*/") {
                Some(length) => place += length + 1,
                None => return (statements, &text[start..]),
            },
            _ => {}
        }
        place += 1;
    }
    (statements, &text[start..])
}

/// True if there is nothing but white space and finished comments.
pub(super) fn is_blank(text: &str) -> bool {
    let mut rest = text.trim_start();
    loop {
        if let Some(comment) = rest.strip_prefix("--") {
            rest = comment.split_once('\n').map_or("", |(_, after)| after).trim_start();
        } else if let Some((_, after)) = rest.strip_prefix("/*").and_then(|comment| comment.split_once("*/")) {
            rest = after.trim_start();
        } else {
            return rest.is_empty();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn statements_end_at_semicolons_outside_of_quotes_and_comments() {
        for (text, statements, rest) in [
            ("", &[][..], ""),
            ("SELECT 1", &[], "SELECT 1"),
            ("SELECT 1;", &["SELECT 1"], ""),
            ("SELECT ';' -- ;\n, \";\" /* ; */; x", &["SELECT ';' -- ;\n, \";\" /* ; */"], " x"),
            ("a; ;-- end\n; b;", &["a", " b"], ""),
            ("SELECT 'it''s';", &["SELECT 'it''s'"], ""),
            ("SELECT 'open;", &[], "SELECT 'open;"),
            ("a; /* open ;", &["a"], " /* open ;"),
            ("SELECT '高;远';", &["SELECT '高;远'"], ""),
            ("\\d", &["\\d"], ""),
            ("\\d frames;\nSELECT\n1; -- then\n \\timing\nx", &["\\d frames", "\nSELECT\n1", "\\timing"], "\nx"),
            ("SELECT '\\d';", &["SELECT '\\d'"], ""),
        ] {
            assert_eq!(split(text), (statements.to_vec(), rest), "{text}");
        }
    }

    #[test]
    fn comments_alone_are_blank() {
        for blank in ["", " \n", "-- note", "-- a\n-- b\n", "/* a */ -- b"] {
            assert!(is_blank(blank), "{blank:?}");
        }
        for text in ["x", "-- a\nx", "/* a */ x", "/* open"] {
            assert!(!is_blank(text), "{text:?}");
        }
    }

    #[test]
    fn words_are_completed_from_the_tables() {
        let prompt = Prompt { names: vec!["frames".to_owned(), "frames_si".to_owned(), "SELECT".to_owned()] };
        let history = DefaultHistory::new();
        let complete = |line: &str| {
            let (start, found) = prompt.complete(line, line.len(), &Context::new(&history)).unwrap();
            (start, found.into_iter().map(|pair| pair.replacement).collect::<Vec<_>>())
        };
        assert_eq!(complete("sel"), (0, vec!["SELECT".to_owned()]));
        assert_eq!(complete("SELECT * FROM fra"), (14, vec!["frames".to_owned(), "frames_si".to_owned()]));
        assert_eq!(complete("SELECT '高远球' fra").1.len(), 2);
        assert_eq!(complete("SELECT ").1.len(), 0);
    }
}
