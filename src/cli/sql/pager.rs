//! Answers longer than the screen, page by page.

use std::io::{self, IsTerminal as _, Write as _};
use std::process::{Command, Stdio};

/// What the shell of POSIX answers when there is no such command.
const NO_COMMAND: i32 = 127;

/// Writes a text to standard output: through `pager`, a command line, where somebody looks and it is longer than the screen.
pub(super) fn write(text: &str, pager: Option<&str>) -> io::Result<()> {
    let rows = console::Term::stdout().size_checked().map(|(rows, _)| usize::from(rows));
    // One line is the prompt's.
    let long = rows.is_some_and(|rows| text.lines().count() + 1 > rows);
    if let Some(pager) = pager.filter(|pager| !pager.is_empty() && long && io::stdout().is_terminal())
        && through(pager, text)?
    {
        return Ok(());
    }
    io::stdout().lock().write_all(text.as_bytes())
}

/// Gives a text to a command; false if there is none.
fn through(command: &str, text: &str) -> io::Result<bool> {
    let mut process = Command::new("sh").arg("-c").arg(command).stdin(Stdio::piped()).spawn()?;
    let written = process.stdin.take().map_or(Ok(()), |mut input| input.write_all(text.as_bytes()));
    let status = process.wait()?;
    match written {
        // Whoever leaves the pager early has seen enough.
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => Err(error),
        _ => Ok(status.code() != Some(NO_COMMAND)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pager_gets_the_whole_text_may_be_left_and_may_be_missing() {
        let folder = tempfile::tempdir().unwrap();
        let page = folder.path().join("page");
        let text = "row\n".repeat(100_000);
        assert!(through(&format!("cat > {}", page.display()), &text).unwrap());
        assert_eq!(std::fs::read_to_string(&page).unwrap(), text);
        assert!(through("head -n 1 > /dev/null", &text).unwrap(), "left early");
        assert!(!through("no-such-pager-anywhere 2> /dev/null", &text).unwrap());
    }
}
