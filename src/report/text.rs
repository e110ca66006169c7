//! The report for a terminal: aligned columns, no colour, at most about a hundred columns wide.

use pipelines::{Analysis, Severity};

use super::figures::{
    ABSENT, Figure, advice_texts, bare_codes, chain_figures, classes, clock, count, drill_text, evidence_strokes,
    fixed, further_figures, issue_text, optional, reason, scores,
};
use crate::texts::{Lang, advice, class, label, sensor};

/// Columns that the longest bar takes.
const BAR_COLUMNS: usize = 32;

/// The report of an analysis as plain text, ending with a line feed.
#[must_use]
pub fn text(analysis: &Analysis, lang: Lang) -> String {
    let mut page = Page::default();
    let session = &analysis.session;
    page.line(format!(
        "{}: {} · {} {} · {} {}",
        label(lang, "duration"),
        clock(session.duration_s),
        count(session.frame_count),
        label(lang, "frames"),
        count(analysis.strokes.len()),
        label(lang, "strokes"),
    ));

    page.heading(label(lang, "strokes_by_class"));
    let classes = classes(analysis);
    if classes.is_empty() {
        page.line(format!("  {}", label(lang, "no_strokes")));
    }
    let most = classes.first().map_or(1, |&(_, count)| count.max(1));
    let rows = classes.iter().map(|&(name, count)| {
        let bar = "█".repeat((count * BAR_COLUMNS).div_ceil(most));
        [class(lang, name), count.to_string(), bar].to_vec()
    });
    page.table(&[Align::Left, Align::Right, Align::Left], rows);
    for drill in &session.drills {
        page.line(format!("  {}", drill_text(drill, lang)));
    }

    page.heading(label(lang, "kinetic_chain"));
    let figures = chain_figures(analysis, lang);
    let rows = figures.iter().map(|figure| {
        let recommended = format!("{} {}", label(lang, "recommended"), figure.shown_recommended());
        let interval = figure.shown().and_then(|_| figure.shown_interval());
        let interval = interval.map(|interval| label(lang, "interval").replace("{interval}", &interval));
        [
            figure.label.clone(),
            figure.shown().unwrap_or_else(|| ABSENT.to_owned()),
            recommended,
            interval.unwrap_or_default(),
        ]
        .to_vec()
    });
    page.table(&[Align::Left, Align::Right, Align::Left, Align::Left], rows);
    for (reason, names) in absences(analysis, &figures, lang) {
        page.line(format!("  {} ({}): {reason}", label(lang, "not_computed"), names.join(", ")));
    }

    let further = further_figures(analysis, lang);
    if !further.is_empty() {
        page.heading(label(lang, "further"));
        let rows = further.into_iter().map(|(name, shown, note)| [name.to_owned(), shown, note].to_vec());
        page.table(&[Align::Left, Align::Right, Align::Left], rows);
    }

    page.heading(label(lang, "scores"));
    let rows = scores(analysis, lang).map(|(name, label, value)| {
        let explained = if value.is_some() { String::new() } else { reason(analysis, name, lang).to_owned() };
        [label.to_owned(), optional(value, 1), explained].to_vec()
    });
    page.table(&[Align::Left, Align::Right, Align::Left], rows);

    page.heading(label(lang, "advice"));
    if session.recommendations.is_empty() && session.advice.is_empty() {
        page.line(format!("  {}", label(lang, "no_advice")));
    }
    for advice in &session.advice {
        let (text, reason) = advice_texts(advice, lang);
        page.line(format!("  • {text}"));
        page.line(format!("    {reason} {}", evidence_strokes(advice, lang).unwrap_or_default()));
    }
    for code in bare_codes(analysis) {
        page.line(format!("  • {}", advice(lang, code)));
    }

    page.heading(label(lang, "quality"));
    let head =
        ["sensor", "samples", "rate", "gaps", "lost", "saturated", "unit"].map(|key| label(lang, key).to_owned());
    let rows = session.sensors.iter().map(|(&role, quality)| {
        [
            sensor(lang, role).to_owned(),
            count(quality.samples),
            optional(quality.rate_hz, 1),
            count(quality.gaps),
            fixed(quality.gap_s, 2),
            fixed(quality.saturated_share * 100.0, 1),
            unit(quality.acc_to_mps2, lang).to_owned(),
        ]
        .to_vec()
    });
    let right = Align::Right;
    page.table(
        &[Align::Left, right, right, right, right, right, Align::Left],
        std::iter::once(head.to_vec()).chain(rows),
    );

    page.heading(label(lang, "issues"));
    if analysis.issues.is_empty() {
        page.line(format!("  {}", label(lang, "no_issues")));
    }
    for issue in &analysis.issues {
        page.line(format!("  {}: {}", severity(issue.severity, lang), issue_text(issue, lang)));
    }
    page.0
}

/// The reasons of absent figures, each once with the labels of the figures it removes.
fn absences<'a>(analysis: &'a Analysis, figures: &'a [Figure], lang: Lang) -> Vec<(&'a str, Vec<&'a str>)> {
    let mut absences: Vec<(&str, Vec<&str>)> = Vec::new();
    for figure in figures.iter().filter(|figure| figure.shown().is_none()) {
        let why = reason(analysis, figure.name, lang);
        match absences.iter_mut().find(|(known, _)| *known == why) {
            Some((_, labels)) => labels.push(&figure.label),
            None => absences.push((why, vec![&figure.label])),
        }
    }
    absences
}

/// The unit that acceleration was sent in.
pub(super) fn unit(acc_to_mps2: Option<f32>, lang: Lang) -> &'static str {
    match acc_to_mps2 {
        Some(1.0) => "m/s²",
        Some(_) => "g",
        None => label(lang, "undecided"),
    }
}

/// The word for how much an issue matters.
pub(super) fn severity(severity: Severity, lang: Lang) -> &'static str {
    match severity {
        Severity::Info => label(lang, "info"),
        Severity::Warning => label(lang, "warning"),
        Severity::Error => label(lang, "error"),
    }
}

#[derive(Clone, Copy)]
enum Align {
    Left,
    Right,
}

/// Text that grows line by line.
#[derive(Default)]
struct Page(String);

impl Page {
    fn line(&mut self, line: impl AsRef<str>) {
        self.0.push_str(line.as_ref().trim_end());
        self.0.push('\n');
    }

    fn heading(&mut self, heading: &str) {
        self.line("");
        self.line(heading);
    }

    /// Rows in columns as wide as their widest cell, indented by two.
    fn table(&mut self, aligns: &[Align], rows: impl IntoIterator<Item = Vec<String>>) {
        let rows: Vec<_> = rows.into_iter().collect();
        let widths: Vec<usize> = (0..aligns.len())
            .map(|column| rows.iter().map(|row| columns(&row[column])).max().unwrap_or_default())
            .collect();
        for row in &rows {
            let mut line = String::new();
            for ((cell, &width), align) in row.iter().zip(&widths).zip(aligns) {
                let padding = " ".repeat(width - columns(cell));
                line.push_str("  ");
                match align {
                    Align::Left => line.extend([cell.as_str(), padding.as_str()]),
                    Align::Right => line.extend([padding.as_str(), cell.as_str()]),
                }
            }
            self.line(line);
        }
    }
}

/// Columns a text takes on a terminal: two for each character of the wide East Asian blocks.
fn columns(text: &str) -> usize {
    let is_wide = |c: char| matches!(c, '\u{1100}'..='\u{115f}' | '\u{2e80}'..='\u{a4cf}' | '\u{ac00}'..='\u{d7a3}' | '\u{f900}'..='\u{faff}' | '\u{fe30}'..='\u{fe6f}' | '\u{ff00}'..='\u{ff60}' | '\u{ffe0}'..='\u{ffe6}');
    text.chars().map(|c| if is_wide(c) { 2 } else { 1 }).sum()
}
