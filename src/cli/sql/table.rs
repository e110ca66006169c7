//! Answers as aligned text.

use std::fmt::Write;

use arrow::array::RecordBatch;
use arrow::datatypes::{DataType, Schema};
use arrow::error::ArrowError;
use arrow::util::display::{ArrayFormatter, FormatOptions};
use unicode_width::{UnicodeWidthChar, UnicodeWidthStr};

/// How wide a text may be, in columns of the terminal.
#[derive(Clone, Copy, Debug)]
pub(super) struct Width {
    /// A longer cell is shortened.
    pub(super) cell: usize,
    /// A wider table is narrowed, and turned on its side if that is not enough.
    pub(super) total: Option<usize>,
}

impl Width {
    /// Fits the terminal; without one, only single cells are limited.
    pub(super) fn of_terminal() -> Self {
        let terminal = console::Term::stdout();
        let total =
            terminal.is_term().then(|| terminal.size_checked()).flatten().map(|(_, columns)| usize::from(columns));
        Self { cell: 80, total }
    }
}

/// A column is not made narrower than this.
const NARROWEST: usize = 8;
const SEPARATOR: &str = " | ";

/// The rows with a header, numbers to the right. A plan (the answer to EXPLAIN) is printed as the text it is.
pub(super) fn render(schema: &Schema, batches: &[RecordBatch], width: Width) -> Result<String, ArrowError> {
    let options = FormatOptions::default().with_null("NULL");
    let mut rows: Vec<Vec<String>> = Vec::new();
    for batch in batches {
        let columns = batch
            .columns()
            .iter()
            .map(|column| ArrayFormatter::try_new(column, &options))
            .collect::<Result<Vec<_>, _>>()?;
        for row in 0..batch.num_rows() {
            rows.push(columns.iter().map(|column| column.value(row).try_to_string()).collect::<Result<_, _>>()?);
        }
    }
    let names = schema.fields().iter().map(|field| field.name().clone()).collect::<Vec<_>>();
    if names == ["plan_type", "plan"] {
        return Ok(plans(&rows));
    }
    let right = schema.fields().iter().map(|field| is_number(field.data_type())).collect::<Vec<_>>();
    let rows = rows.into_iter().map(|row| row.iter().map(|cell| one_line(cell)).collect()).collect::<Vec<Vec<_>>>();

    let mut widths = names.iter().map(|name| name.width()).collect::<Vec<_>>();
    for row in &rows {
        for (width, cell) in widths.iter_mut().zip(row) {
            *width = (*width).max(cell.width());
        }
    }
    for cell in &mut widths {
        *cell = (*cell).min(width.cell);
    }
    match width.total {
        Some(total) if !narrow(&mut widths, total) => Ok(on_its_side(&names, &rows, total)),
        _ => Ok(aligned(&names, &rows, &widths, &right)),
    }
}

/// Makes the widest columns narrower until the table fits; false if it cannot.
fn narrow(widths: &mut [usize], total: usize) -> bool {
    loop {
        let sum = widths.iter().sum::<usize>() + SEPARATOR.len() * widths.len().saturating_sub(1);
        if sum <= total {
            return true;
        }
        match widths.iter_mut().max() {
            Some(widest) if *widest > NARROWEST => *widest -= 1,
            _ => return false,
        }
    }
}

fn aligned(names: &[String], rows: &[Vec<String>], widths: &[usize], right: &[bool]) -> String {
    let mut text = String::new();
    let mut line = |cells: &[String], right: &dyn Fn(usize) -> bool| {
        let mut out = String::new();
        for (place, (cell, &width)) in cells.iter().zip(widths).enumerate() {
            if place > 0 {
                out.push_str(SEPARATOR);
            }
            out.push_str(&padded(cell, width, right(place)));
        }
        text.push_str(out.trim_end());
        text.push('\n');
    };
    line(names, &|place| right[place]);
    for row in rows {
        line(row, &|place| right[place]);
    }
    let rule = widths.iter().map(|&width| "-".repeat(width)).collect::<Vec<_>>().join("-+-");
    let header_end = text.find('\n').map_or(0, |end| end + 1);
    text.insert_str(header_end, &(rule + "\n"));
    text
}

/// A row after the other, a column a line, for tables that are wider than the terminal.
fn on_its_side(names: &[String], rows: &[Vec<String>], total: usize) -> String {
    let name_width = names.iter().map(|name| name.width()).max().unwrap_or(0);
    let cell_width = total.saturating_sub(name_width + SEPARATOR.len()).max(NARROWEST);
    let mut text = String::new();
    for (number, row) in rows.iter().enumerate() {
        // Writing to a String cannot fail.
        writeln!(text, "-[ row {} ]{}", number + 1, "-".repeat(name_width)).ok();
        for (name, cell) in names.iter().zip(row) {
            let line = format!("{}{SEPARATOR}{}", padded(name, name_width, false), shortened(cell, cell_width));
            text.push_str(line.trim_end());
            text.push('\n');
        }
    }
    text
}

fn plans(rows: &[Vec<String>]) -> String {
    let mut text = String::new();
    for row in rows {
        if let [kind, plan] = row.as_slice() {
            // Writing to a String cannot fail.
            writeln!(text, "-- {kind}\n{}", plan.trim_end()).ok();
        }
    }
    text
}

fn padded(cell: &str, width: usize, right: bool) -> String {
    let cell = shortened(cell, width);
    let space = " ".repeat(width - cell.width().min(width));
    if right { space + &cell } else { cell + &space }
}

/// At most `width` columns of the text; an ellipsis says that there is more.
fn shortened(cell: &str, width: usize) -> String {
    if cell.width() <= width {
        return cell.to_owned();
    }
    let mut taken = 0;
    let mut text = cell
        .chars()
        .take_while(|c| {
            taken += c.width().unwrap_or(0);
            taken < width
        })
        .collect::<String>();
    text.push('…');
    text
}

/// Control characters would move the cursor; a line break becomes a visible one.
fn one_line(cell: &str) -> String {
    cell.chars()
        .filter(|&c| c != '\r')
        .map(|c| {
            if c == '\n' {
                '↵'
            } else if c.is_control() {
                '·'
            } else {
                c
            }
        })
        .collect()
}

fn is_number(data_type: &DataType) -> bool {
    data_type.is_numeric()
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use arrow::array::{ArrayRef, Float64Array, Int64Array, StringArray};

    use super::*;

    fn batch() -> RecordBatch {
        RecordBatch::try_from_iter([
            ("n", Arc::new(Int64Array::from(vec![Some(1), None])) as ArrayRef),
            ("球", Arc::new(StringArray::from(vec!["高远球", "a\nb\u{1b}"]))),
            ("speed_mps", Arc::new(Float64Array::from(vec![1.5, 100.25]))),
        ])
        .unwrap()
    }

    fn text(total: Option<usize>, cell: usize) -> String {
        render(&batch().schema(), &[batch()], Width { cell, total }).unwrap()
    }

    #[test]
    fn columns_line_up_also_with_wide_characters() {
        assert_eq!(
            text(None, 80),
            "   n | 球     | speed_mps\n\
             -----+--------+----------\n   1 | 高远球 |       1.5\nNULL | a↵b·   |    100.25\n"
        );
    }

    #[test]
    fn long_cells_are_shortened_and_wide_tables_turned() {
        assert!(text(None, 5).contains("高远…"), "{}", text(None, 5));
        for line in text(Some(22), 80).lines() {
            assert!(line.width() <= 22, "{line}");
        }
        let turned = text(Some(10), 80);
        assert!(turned.starts_with("-[ row 1 ]") && turned.contains("n         | 1\n"), "{turned}");
    }

    #[test]
    fn a_plan_is_text() {
        let plan = RecordBatch::try_from_iter([
            ("plan_type", Arc::new(StringArray::from(vec!["physical_plan"])) as ArrayRef),
            ("plan", Arc::new(StringArray::from(vec!["A\n  B\n"]))),
        ])
        .unwrap();
        let text = render(&plan.schema(), &[plan], Width { cell: 3, total: Some(5) }).unwrap();
        assert_eq!(text, "-- physical_plan\nA\n  B\n");
    }
}
