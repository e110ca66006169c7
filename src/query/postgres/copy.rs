//! `COPY … TO STDOUT`: an answer as one stream, which is how drivers fetch much at once.
//!
//! The three forms of PostgreSQL's manual: text, CSV, and binary. Rows are made from those of the wire, whose values have the
//! same bytes.

use bytes::{BufMut as _, BytesMut};
use datafusion::sql::sqlparser::ast::{
    CopyLegacyCsvOption, CopyLegacyOption, CopyOption, CopySource, CopyTarget, Statement as Sql,
};
use pgwire::api::portal::Format;
use pgwire::messages::data::DataRow;

/// What stands before the first row of the binary form: signature, no flags, no extension.
const BINARY_HEADER: &[u8] = b"PGCOPY\n\xFF\r\n\0\0\0\0\0\0\0\0\0";
/// What stands after its last.
const BINARY_END: &[u8] = &[0xFF, 0xFF];

/// A statement that sends an answer as a stream.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Copy {
    /// The question whose answer is sent.
    pub(super) sql: String,
    form: Form,
    /// Names of the columns come first.
    header: bool,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Form {
    Text { delimiter: u8, null: String },
    Csv { delimiter: u8, quote: u8, escape: u8, null: String },
    Binary,
}

/// What a statement asks for before it is known to fit together.
#[derive(Default)]
struct Wanted {
    form: String,
    delimiter: Option<char>,
    null: Option<String>,
    quote: Option<char>,
    escape: Option<char>,
    header: bool,
}

impl Copy {
    /// `None` if the statement is none, or brings data, or writes a file of the server: what the engine then refuses.
    pub(super) fn of(statement: &Sql) -> Option<Result<Self, String>> {
        let Sql::Copy { source, to: true, target: CopyTarget::Stdout, options, legacy_options, .. } = statement else {
            return None;
        };
        let sql = match source {
            CopySource::Query(query) => query.to_string(),
            CopySource::Table { table_name, columns } if columns.is_empty() => format!("SELECT * FROM {table_name}"),
            CopySource::Table { table_name, columns } => {
                let columns: Vec<String> = columns.iter().map(ToString::to_string).collect();
                format!("SELECT {} FROM {table_name}", columns.join(", "))
            }
        };
        let mut wanted = Wanted::default();
        let read = options
            .iter()
            .try_for_each(|option| wanted.take(option))
            .and_then(|()| legacy_options.iter().try_for_each(|option| wanted.take_legacy(option)));
        Some(read.and_then(|()| wanted.form()).map(|form| Self { sql, form, header: wanted.header }))
    }

    /// How the rows that it is made of must be encoded.
    pub(super) fn format(&self) -> Format {
        if self.form == Form::Binary { Format::UnifiedBinary } else { Format::UnifiedText }
    }

    /// 1 for binary, as the wire numbers formats.
    pub(super) fn format_code(&self) -> i8 {
        i8::from(self.form == Form::Binary)
    }

    /// What comes before the first row.
    pub(super) fn begin<'a>(&self, names: impl Iterator<Item = &'a str>) -> BytesMut {
        let mut out = BytesMut::new();
        match &self.form {
            Form::Binary => out.put_slice(BINARY_HEADER),
            _ if self.header => self.fields(&mut out, names.map(|name| Some(name.as_bytes()))),
            _ => {}
        }
        out
    }

    /// Adds a row.
    pub(super) fn row(&self, out: &mut BytesMut, row: &DataRow) {
        if self.form == Form::Binary {
            out.put_i16(row.field_count);
            out.put_slice(&row.data);
        } else {
            self.fields(out, Fields(&row.data));
        }
    }

    /// Adds what comes after the last row.
    pub(super) fn end(&self, out: &mut BytesMut) {
        if self.form == Form::Binary {
            out.put_slice(BINARY_END);
        }
    }

    /// A line of text or CSV.
    fn fields<'a>(&self, out: &mut BytesMut, fields: impl Iterator<Item = Option<&'a [u8]>>) {
        let mut fields = fields.enumerate().peekable();
        while let Some((place, field)) = fields.next() {
            match &self.form {
                Form::Text { delimiter, null } => {
                    if place > 0 {
                        out.put_u8(*delimiter);
                    }
                    match field {
                        Some(value) => value.iter().for_each(|&byte| escaped(out, byte, *delimiter)),
                        None => out.put_slice(null.as_bytes()),
                    }
                }
                Form::Csv { delimiter, quote, escape, null } => {
                    if place > 0 {
                        out.put_u8(*delimiter);
                    }
                    // Alone in its line that would end the data for those who read it.
                    let mut ends = |value: &[u8]| value == br"\." && place == 0 && fields.peek().is_none();
                    match field {
                        None => out.put_slice(null.as_bytes()),
                        Some(value)
                            if value == null.as_bytes() || must_quote(value, *delimiter, *quote) || ends(value) =>
                        {
                            quoted(out, value, *quote, *escape);
                        }
                        Some(value) => out.put_slice(value),
                    }
                }
                Form::Binary => {}
            }
        }
        out.put_u8(b'\n');
    }
}

impl Wanted {
    fn take(&mut self, option: &CopyOption) -> Result<(), String> {
        match option {
            CopyOption::Format(name) => self.form = name.value.to_ascii_lowercase(),
            CopyOption::Delimiter(delimiter) => self.delimiter = Some(*delimiter),
            CopyOption::Null(null) => self.null = Some(null.clone()),
            CopyOption::Header(header) => self.header = *header,
            CopyOption::Quote(quote) => self.quote = Some(*quote),
            CopyOption::Escape(escape) => self.escape = Some(*escape),
            CopyOption::Encoding(name) if ["utf8", "utf-8"].contains(&name.to_ascii_lowercase().as_str()) => {}
            other => return Err(format!("COPY TO knows no {other}")),
        }
        Ok(())
    }

    /// Options as they were written before PostgreSQL 9.0, which drivers still do.
    fn take_legacy(&mut self, option: &CopyLegacyOption) -> Result<(), String> {
        match option {
            CopyLegacyOption::Binary => "binary".clone_into(&mut self.form),
            CopyLegacyOption::Delimiter(delimiter) => self.delimiter = Some(*delimiter),
            CopyLegacyOption::Null(null) => self.null = Some(null.clone()),
            CopyLegacyOption::Header => self.header = true,
            CopyLegacyOption::Csv(options) => {
                "csv".clone_into(&mut self.form);
                for option in options {
                    match option {
                        CopyLegacyCsvOption::Header => self.header = true,
                        CopyLegacyCsvOption::Quote(quote) => self.quote = Some(*quote),
                        CopyLegacyCsvOption::Escape(escape) => self.escape = Some(*escape),
                        other => return Err(format!("COPY TO knows no {other}")),
                    }
                }
            }
            other => return Err(format!("COPY TO knows no {other}")),
        }
        Ok(())
    }

    fn form(&self) -> Result<Form, String> {
        let byte = |what: &str, given: Option<char>, usual: u8| match given.map(u8::try_from) {
            None => Ok(usual),
            Some(Ok(byte)) if byte.is_ascii() && !b"\r\n".contains(&byte) => Ok(byte),
            Some(_) => Err(format!("the {what} of COPY must be one byte, and no end of a line")),
        };
        let null = |usual: &str| self.null.clone().unwrap_or_else(|| usual.to_owned());
        match self.form.as_str() {
            "" | "text" => Ok(Form::Text { delimiter: byte("delimiter", self.delimiter, b'\t')?, null: null(r"\N") }),
            "csv" => {
                let quote = byte("quote", self.quote, b'"')?;
                let delimiter = byte("delimiter", self.delimiter, b',')?;
                if quote == delimiter {
                    return Err("the delimiter and the quote of COPY must differ".to_owned());
                }
                Ok(Form::Csv { delimiter, quote, escape: byte("escape", self.escape, quote)?, null: null("") })
            }
            "binary" if self.header || self.delimiter.is_some() || self.null.is_some() => {
                Err("COPY in binary form has no header, delimiter or null".to_owned())
            }
            "binary" => Ok(Form::Binary),
            other => Err(format!("COPY knows the formats text, csv and binary, not {other}")),
        }
    }
}

/// The values of a row of the wire, each behind its length; a negative length is NULL.
struct Fields<'a>(&'a [u8]);

impl<'a> Iterator for Fields<'a> {
    type Item = Option<&'a [u8]>;

    fn next(&mut self) -> Option<Self::Item> {
        let (length, rest) = self.0.split_first_chunk::<4>()?;
        let Ok(length) = usize::try_from(i32::from_be_bytes(*length)) else {
            self.0 = rest;
            return Some(None);
        };
        let (value, rest) = rest.split_at_checked(length)?;
        self.0 = rest;
        Some(Some(value))
    }
}

fn escaped(out: &mut BytesMut, byte: u8, delimiter: u8) {
    let letter = match byte {
        b'\x08' => b'b',
        b'\x0C' => b'f',
        b'\n' => b'n',
        b'\r' => b'r',
        b'\t' => b't',
        b'\x0B' => b'v',
        byte if byte == b'\\' || byte == delimiter => byte,
        byte => return out.put_u8(byte),
    };
    out.put_slice(&[b'\\', letter]);
}

fn must_quote(value: &[u8], delimiter: u8, quote: u8) -> bool {
    value.iter().any(|byte| [delimiter, quote, b'\n', b'\r'].contains(byte))
}

fn quoted(out: &mut BytesMut, value: &[u8], quote: u8, escape: u8) {
    out.put_u8(quote);
    for &byte in value {
        if byte == quote || byte == escape {
            out.put_u8(escape);
        }
        out.put_u8(byte);
    }
    out.put_u8(quote);
}

#[cfg(test)]
mod tests {
    use super::*;
    use datafusion::sql::sqlparser::dialect::PostgreSqlDialect;
    use datafusion::sql::sqlparser::parser::Parser;

    fn copy(sql: &str) -> Option<Result<Copy, String>> {
        Copy::of(&Parser::parse_sql(&PostgreSqlDialect {}, sql).unwrap()[0])
    }

    fn row(values: &[Option<&str>]) -> DataRow {
        let mut data = BytesMut::new();
        for value in values {
            match value {
                Some(value) => {
                    data.put_i32(value.len() as i32);
                    data.put_slice(value.as_bytes());
                }
                None => data.put_i32(-1),
            }
        }
        DataRow::new(data, values.len() as i16)
    }

    fn lines(sql: &str, rows: &[&[Option<&str>]]) -> String {
        let copy = copy(sql).unwrap().unwrap();
        let mut out = copy.begin(["a", "b"].into_iter());
        for values in rows {
            copy.row(&mut out, &row(values));
        }
        copy.end(&mut out);
        String::from_utf8(out.to_vec()).unwrap()
    }

    #[test]
    fn the_question_is_the_query_or_the_tables_columns() {
        let asked = |sql: &str| copy(sql).unwrap().unwrap().sql;
        assert_eq!(asked("COPY (SELECT 1 AS a) TO STDOUT"), "SELECT 1 AS a");
        assert_eq!(asked("COPY strokes TO STDOUT WITH BINARY"), "SELECT * FROM strokes");
        assert_eq!(asked("COPY strokes (stroke, \"end\") TO STDOUT"), "SELECT stroke, \"end\" FROM strokes");
        for other in
            ["COPY strokes FROM STDIN", "COPY strokes TO '/tmp/file'", "COPY strokes TO PROGRAM 'cat'", "SELECT 1"]
        {
            assert_eq!(copy(other), None, "{other}");
        }
    }

    #[test]
    fn text_is_escaped_and_null_is_told_from_it() {
        let rows: &[&[Option<&str>]] = &[&[Some("a\tb\\N\n"), None], &[Some(""), Some("\\.")]];
        assert_eq!(lines("COPY t TO STDOUT", rows), "a\\tb\\\\N\\n\t\\N\n\t\\\\.\n");
        let bars = "COPY t TO STDOUT WITH (DELIMITER '|', NULL 'none', HEADER)";
        assert_eq!(lines(bars, &[&[Some("a|b"), None]]), "a|b\n".to_owned() + "a\\|b|none\n");
    }

    #[test]
    fn csv_quotes_what_would_be_read_otherwise() {
        let rows: &[&[Option<&str>]] = &[&[Some("a,\"b\""), None], &[Some(""), Some("two\nlines")]];
        assert_eq!(
            lines("COPY t TO STDOUT (FORMAT csv, HEADER true)", rows),
            "a,b\n\"a,\"\"b\"\"\",\n\"\",\"two\nlines\"\n"
        );
        assert_eq!(lines("COPY t TO STDOUT CSV", &[&[Some("\\.")], &[Some("\\."), Some("1")]]), "\"\\.\"\n\\.,1\n");
        let escaped = "COPY t TO STDOUT (FORMAT csv, QUOTE '''', ESCAPE '\\', NULL 'x', DELIMITER ';')";
        assert_eq!(lines(escaped, &[&[Some("it's;"), Some("x")], &[None, Some("xx")]]), "'it\\'s;';'x'\nx;xx\n");
    }

    #[test]
    fn binary_has_a_header_counts_and_an_end() {
        let copy = copy("COPY t TO STDOUT (FORMAT binary)").unwrap().unwrap();
        let mut out = copy.begin(["a"].into_iter());
        copy.row(&mut out, &row(&[Some("z"), None]));
        copy.end(&mut out);
        let mut right = b"PGCOPY\n\xFF\r\n\0\0\0\0\0\0\0\0\0".to_vec();
        right.extend_from_slice(b"\0\x02\0\0\0\x01z\xFF\xFF\xFF\xFF\xFF\xFF");
        assert_eq!(out.to_vec(), right);
        assert!(copy.format_code() == 1 && matches!(copy.format(), Format::UnifiedBinary));
    }

    #[test]
    fn what_does_not_fit_together_is_refused_in_words() {
        for (sql, word) in [
            ("COPY t TO STDOUT (FORMAT parquet)", "parquet"),
            ("COPY t TO STDOUT (FORMAT binary, HEADER)", "binary"),
            ("COPY t TO STDOUT (FORMAT csv, DELIMITER '\"')", "differ"),
            ("COPY t TO STDOUT (DELIMITER '\n')", "one byte"),
            ("COPY t TO STDOUT (ENCODING 'latin1')", "latin1"),
            ("COPY t TO STDOUT CSV FORCE QUOTE a", "FORCE QUOTE"),
        ] {
            let refused = copy(sql).unwrap().unwrap_err();
            assert!(refused.contains(word), "{sql}: {refused}");
        }
    }
}
