//! Rows of text in aligned columns.

use std::io::{self, Write};

use jiff::Timestamp;
use unicode_width::UnicodeWidthStr as _;

/// Writes a header and rows; the last column is not padded.
pub(super) fn write<const N: usize>(out: &mut impl Write, header: [&str; N], rows: &[[String; N]]) -> io::Result<()> {
    let header = header.map(str::to_owned);
    let widths: [usize; N] = std::array::from_fn(|column| {
        rows.iter().chain([&header]).map(|row| row[column].width()).max().unwrap_or_default()
    });
    for row in [&header].into_iter().chain(rows) {
        let mut line = String::new();
        for (cell, width) in row.iter().zip(widths) {
            line.push_str(cell);
            line.extend(std::iter::repeat_n(' ', width - cell.width() + 2));
        }
        writeln!(out, "{}", line.trim_end())?;
    }
    Ok(())
}

/// µs since 1970 as a UTC time to the second; `-` without.
pub(super) fn utc(at_us: Option<i64>) -> String {
    let at = at_us.and_then(|at_us| Timestamp::from_second(at_us.div_euclid(1_000_000)).ok());
    at.map_or_else(|| "-".to_owned(), |at| at.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_as_wide_as_their_widest_cell() {
        let mut out = Vec::new();
        let rows = [["1".to_owned(), "扣杀".to_owned()], ["200".to_owned(), String::new()]];
        write(&mut out, ["id", "stroke"], &rows).unwrap();
        assert_eq!(String::from_utf8(out).unwrap(), "id   stroke\n1    扣杀\n200\n");
        assert_eq!((utc(Some(1_500_000)).as_str(), utc(None).as_str()), ("1970-01-01T00:00:01Z", "-"));
    }
}
