//! Notes: files of JSON, a line each, that only ever grow.
//!
//! A crash may tear the last line. It is passed over by whoever reads, and the next note begins on a line of its own.

use std::fs::File;
use std::io::{self, Read as _, Seek as _, SeekFrom, Write as _};
use std::path::Path;

use serde::Serialize;
use serde::de::DeserializeOwned;

/// Adds a note, synced; the file is made if absent.
///
/// # Errors
/// What the disk refuses, and values that are no JSON.
pub fn add(path: &Path, note: &impl Serialize) -> io::Result<()> {
    let mut file = File::options().create(true).read(true).append(true).open(path)?;
    let mut lines = Vec::new();
    if file.seek(SeekFrom::End(0))? > 0 {
        file.seek(SeekFrom::End(-1))?;
        let mut last = [0];
        file.read_exact(&mut last)?;
        if last != *b"\n" {
            lines.push(b'\n');
        }
    }
    serde_json::to_writer(&mut lines, note)?;
    lines.push(b'\n');
    file.write_all(&lines)?;
    file.sync_all()
}

/// The notes of a file, the oldest first; none if it is absent. Lines that are no such note are passed over.
///
/// # Errors
/// What the disk refuses.
pub fn read<T: DeserializeOwned>(path: &Path) -> io::Result<Vec<T>> {
    Ok(read_each(path)?.into_iter().flatten().collect())
}

/// The same with `None` for each line that is no such note, for whom it matters that one is lost.
///
/// # Errors
/// What the disk refuses.
pub fn read_each<T: DeserializeOwned>(path: &Path) -> io::Result<Vec<Option<T>>> {
    let text = match std::fs::read(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        text => text?,
    };
    let lines = text.split(|&byte| byte == b'\n').filter(|line| !line.is_empty());
    Ok(lines.map(|line| serde_json::from_slice(line).ok()).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_torn_line_costs_no_other_and_can_be_counted() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("notes.jsonl");
        assert_eq!(read::<i64>(&path).unwrap(), Vec::<i64>::new());
        add(&path, &[1]).unwrap();
        add(&path, &[22]).unwrap();
        let whole = std::fs::read(&path).unwrap();
        for cut in 0..=whole.len() {
            std::fs::write(&path, &whole[..cut]).unwrap();
            let torn = read_each::<[i64; 1]>(&path).unwrap().iter().filter(|note| note.is_none()).count();
            assert_eq!(torn, usize::from(matches!(cut, 1 | 2 | 5..=7)), "{cut}");
            add(&path, &[333]).unwrap();
            let found: Vec<[i64; 1]> = read(&path).unwrap();
            let before = if cut >= whole.len() - 1 { 2 } else { usize::from(cut >= 3) };
            assert_eq!(found, [[1], [22]].into_iter().take(before).chain([[333]]).collect::<Vec<_>>(), "{cut}");
        }
    }
}
