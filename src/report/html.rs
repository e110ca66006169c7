//! The report as one HTML page that stands alone: style and plots inside, nothing loaded, no script. It follows the
//! reader's light or dark setting and prints on white.

use std::borrow::Cow;
use std::fmt::{self, Write as _};

use pipelines::{Analysis, Severity, Stroke};

use super::figures::{
    ABSENT, advice_texts, bare_codes, chain_figures, clock, count, delays_ms, drill_text, evidence_strokes, fixed,
    further_figures, issue_text, metric, optional, reason, scores, sureness,
};
use super::text::{severity, unit};
use super::{Curve, plots};
use crate::texts::{Lang, advice, class, label, sensor};

/// Strokes that the table lists; a longer page is for SQL.
const TABLE_ROW_LIMIT: usize = 300;

/// Who and what was recorded; everything that the analysis itself does not know.
#[derive(Clone, Debug, Default)]
pub struct Context {
    /// What stands above the report, a file name for instance; absent: a general title.
    pub title: Option<String>,
    /// The session's number.
    pub session_id: Option<String>,
    /// The device's code.
    pub device: Option<String>,
    /// The player's name.
    pub player: Option<String>,
    /// Start of the session, µs since 1970 UTC.
    pub started_at_us: Option<i64>,
    /// |ω| of each sensor, from [`Curve::of_track`]. Empty: the page says that there is nothing to draw.
    pub curves: Vec<Curve>,
}

/// The text with everything that HTML reads as markup made harmless.
pub(super) fn escape(text: &str) -> Cow<'_, str> {
    if !text.contains(['&', '<', '>', '"', '\'']) {
        return Cow::Borrowed(text);
    }
    let mut escaped = String::with_capacity(text.len() + 16);
    for c in text.chars() {
        match c {
            '&' => escaped.push_str("&amp;"),
            '<' => escaped.push_str("&lt;"),
            '>' => escaped.push_str("&gt;"),
            '"' => escaped.push_str("&quot;"),
            '\'' => escaped.push_str("&#39;"),
            other => escaped.push(other),
        }
    }
    Cow::Owned(escaped)
}

/// The page of an analysis.
#[must_use]
pub fn html(analysis: &Analysis, context: &Context, lang: Lang) -> String {
    let mut page = Page { out: String::with_capacity(128 * 1024), lang };
    let title = context.title.as_deref().unwrap_or(label(lang, "title"));
    page.add(format_args!(
        "<!doctype html>\n<html lang=\"{}\">\n<head>\n<meta charset=\"utf-8\">\n\
         <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n\
         <title>{}</title>\n<style>\n{}</style>\n</head>\n<body>\n<main>\n",
        lang.tag(),
        escape(title),
        include_str!("style.css")
    ));
    page.header(analysis, context, title);
    page.advice(analysis);
    page.chain(analysis);
    page.further(analysis);
    page.classes(analysis);
    page.curves(analysis, context);
    page.stroke_table(analysis);
    page.quality(analysis);
    page.footer(analysis);
    page.out.push_str("</main>\n</body>\n</html>\n");
    page.out
}

struct Page {
    out: String,
    lang: Lang,
}

impl Page {
    fn add(&mut self, markup: fmt::Arguments<'_>) {
        self.out.write_fmt(markup).expect("writing to a string cannot fail");
    }

    fn label(&self, key: &'static str) -> Cow<'static, str> {
        escape(label(self.lang, key))
    }

    /// Opens a section; the caller closes it.
    fn section(&mut self, key: &'static str) {
        let heading = self.label(key);
        self.add(format_args!("<section>\n<h2>{heading}</h2>\n"));
    }

    fn note(&mut self, text: &str) {
        let text = escape(text);
        self.add(format_args!("<p class=\"note\">{text}</p>\n"));
    }

    fn header(&mut self, analysis: &Analysis, context: &Context, title: &str) {
        let session = &analysis.session;
        let mut facts = Vec::new();
        for (key, value) in [("session", &context.session_id), ("device", &context.device), ("player", &context.player)]
        {
            if let Some(value) = value {
                facts.push(format!("{} <b>{}</b>", self.label(key), escape(value)));
            }
        }
        if let Some(at) = context.started_at_us.and_then(|us| jiff::Timestamp::from_microsecond(us).ok()) {
            facts.push(at.strftime("%Y-%m-%d %H:%M:%S UTC").to_string());
        }
        self.add(format_args!("<header>\n<h1>{}</h1>\n<p class=\"facts\">{}</p>\n", escape(title), facts.join(" · ")));

        let per_minute = (session.duration_s > 0.0).then(|| analysis.strokes.len() as f64 / session.duration_s * 60.0);
        let tiles = [
            ("strokes", count(analysis.strokes.len())),
            ("duration", clock(session.duration_s)),
            ("strokes_per_minute", optional(per_minute, 1)),
            ("frames", count(session.frame_count)),
        ];
        self.out.push_str("<div class=\"tiles\">\n");
        for (key, value) in tiles {
            let name = self.label(key);
            self.add(format_args!("<div class=\"tile\"><b>{value}</b><span>{name}</span></div>\n"));
        }
        self.out.push_str("</div>\n");

        self.out.push_str("<div class=\"scores\">\n");
        for (index, (name, label, value)) in scores(analysis, self.lang).into_iter().enumerate() {
            let main = if index == 0 { " main" } else { "" };
            let label = escape(label);
            match value {
                Some(score) => self.add(format_args!(
                    "<div class=\"score{main}\"><span>{label}</span><b>{}</b><i style=\"--part:{}%\"></i></div>\n",
                    fixed(score, 1),
                    fixed(score.clamp(0.0, 100.0), 1)
                )),
                None => self.add(format_args!(
                    "<div class=\"score{main} absent\"><span>{label}</span><b>{ABSENT}</b><small>{}</small></div>\n",
                    escape(reason(analysis, name, self.lang))
                )),
            }
        }
        self.out.push_str("</div>\n</header>\n");
    }

    fn advice(&mut self, analysis: &Analysis) {
        self.section("advice");
        let session = &analysis.session;
        if session.recommendations.is_empty() && session.advice.is_empty() {
            self.note(label(self.lang, "no_advice"));
        } else {
            self.out.push_str("<ul class=\"advice\">\n");
            for advice in &session.advice {
                let (text, reason) = advice_texts(advice, self.lang);
                let strokes = evidence_strokes(advice, self.lang).unwrap_or_default();
                self.add(format_args!(
                    "<li>{}<small>{} {}</small></li>\n",
                    escape(text),
                    escape(reason),
                    escape(&strokes)
                ));
            }
            for code in bare_codes(analysis) {
                let sentence = escape(advice(self.lang, code));
                self.add(format_args!("<li>{sentence}</li>\n"));
            }
            self.out.push_str("</ul>\n");
        }
        self.out.push_str("</section>\n");
    }

    fn chain(&mut self, analysis: &Analysis) {
        let lang = self.lang;
        self.section("kinetic_chain");
        self.out.push_str("<div class=\"figures\">\n");
        for figure in chain_figures(analysis, lang) {
            let name = escape(&figure.label).into_owned();
            match figure.shown() {
                Some(shown) => {
                    let interval = figure
                        .shown_interval()
                        .map(|interval| label(lang, "interval").replace("{interval}", &interval) + " · ");
                    self.add(format_args!(
                        "<div class=\"figure\"><span>{name}</span><b>{shown}</b><small>{}{} {}</small></div>\n",
                        escape(&interval.unwrap_or_default()),
                        escape(label(lang, "recommended")),
                        figure.shown_recommended()
                    ));
                }
                None => self.add(format_args!(
                    "<div class=\"figure absent\"><span>{name}</span><b>{ABSENT}</b><small>{}: {}</small></div>\n",
                    escape(label(lang, "not_computed")),
                    escape(reason(analysis, figure.name, lang))
                )),
            }
        }
        self.out.push_str("</div>\n");
        match plots::chain(analysis, lang) {
            Some(plot) => {
                self.out.push_str(&plot.svg);
                let mut note = label(lang, "kinetic_chain_note").to_owned();
                if plot.beyond > 0 {
                    note.push(' ');
                    note.push_str(&label(lang, "chain_first").replace("{count}", &plot.drawn.to_string()));
                }
                if plot.without_peaks > 0 {
                    note.push(' ');
                    note.push_str(&label(lang, "chain_left_out").replace("{count}", &plot.without_peaks.to_string()));
                }
                self.note(&note);
            }
            None => self.note(label(lang, "no_chain")),
        }
        self.out.push_str("</section>\n");
    }

    /// What else was measured; nothing where nothing was.
    fn further(&mut self, analysis: &Analysis) {
        let figures = further_figures(analysis, self.lang);
        if figures.is_empty() {
            return;
        }
        self.section("further");
        self.out.push_str("<div class=\"scroll\"><table><tbody>\n");
        for (name, shown, note) in figures {
            self.add(format_args!(
                "<tr><td>{}</td><td class=\"n\">{}</td><td>{}</td></tr>\n",
                escape(name),
                escape(&shown),
                escape(&note)
            ));
        }
        self.out.push_str("</tbody></table></div>\n");
        self.note(label(self.lang, "further_note"));
        self.out.push_str("</section>\n");
    }

    fn classes(&mut self, analysis: &Analysis) {
        self.section("strokes_by_class");
        match plots::strokes_by_class(analysis, self.lang) {
            Some(svg) => self.out.push_str(&svg),
            None => self.note(label(self.lang, "no_strokes")),
        }
        for drill in &analysis.session.drills {
            self.note(&drill_text(drill, self.lang));
        }
        self.out.push_str("</section>\n");
    }

    fn curves(&mut self, analysis: &Analysis, context: &Context) {
        self.section("angular_rate");
        match plots::curves(analysis, &context.curves, self.lang) {
            Some(svg) => {
                self.out.push_str(&svg);
                self.note(label(self.lang, "angular_rate_note"));
            }
            None => self.note(label(self.lang, "no_curves")),
        }
        self.out.push_str("</section>\n");
    }

    fn stroke_table(&mut self, analysis: &Analysis) {
        let all = analysis.strokes.len();
        if all == 0 {
            return;
        }
        let lang = self.lang;
        self.section("every_stroke");
        self.table_head(&[
            ("number", true),
            ("at", true),
            ("stroke", false),
            ("confidence", false),
            ("found_on", false),
            ("peak_rate", true),
            ("peak_acceleration", true),
            ("racket_speed", true),
            ("delays", true),
            ("order", true),
        ]);
        for (index, stroke) in analysis.strokes.iter().take(TABLE_ROW_LIMIT).enumerate() {
            self.add(format_args!(
                "<tr><td class=\"n\">{}</td><td class=\"n\">{}</td><td>{}</td><td>{}</td><td>{}</td>",
                index + 1,
                clock(stroke.impact_ms / 1e3),
                escape(&called(stroke, lang)),
                confidence(stroke, lang),
                escape(sensor(lang, stroke.sensor)),
            ));
            for (name, decimals) in [("peak_gyro_dps", 0), ("peak_accel_mps2", 0), ("racket_head_speed_mps", 1)] {
                self.add(format_args!("<td class=\"n\">{}</td>", optional(metric(stroke, name), decimals)));
            }
            let delays = delays_ms(stroke).map(|delay| optional(delay, 0)).join(" / ");
            let order = optional(metric(stroke, "order_tau"), 2);
            self.add(format_args!("<td class=\"n\">{delays}</td><td class=\"n\">{order}</td></tr>\n"));
        }
        self.out.push_str("</tbody></table></div>\n");
        if all > TABLE_ROW_LIMIT {
            let note = label(lang, "strokes_shown")
                .replace("{shown}", &TABLE_ROW_LIMIT.to_string())
                .replace("{count}", &all.to_string());
            self.note(&note);
        }
        self.out.push_str("</section>\n");
    }

    fn table_head(&mut self, columns: &[(&'static str, bool)]) {
        self.out.push_str("<div class=\"scroll\"><table><thead><tr>");
        for &(key, is_number) in columns {
            let name = self.label(key);
            let class = if is_number { " class=\"n\"" } else { "" };
            self.add(format_args!("<th{class}>{name}</th>"));
        }
        self.out.push_str("</tr></thead><tbody>\n");
    }

    fn quality(&mut self, analysis: &Analysis) {
        let lang = self.lang;
        self.section("quality");
        if !analysis.session.sensors.is_empty() {
            self.table_head(&[
                ("sensor", false),
                ("samples", true),
                ("rate", true),
                ("gaps", true),
                ("lost", true),
                ("saturated", true),
                ("unit", false),
            ]);
            for (&role, quality) in &analysis.session.sensors {
                self.add(format_args!(
                    "<tr><td><i class=\"swatch\" style=\"background:{}\"></i>{}</td><td class=\"n\">{}</td>\
                     <td class=\"n\">{}</td><td class=\"n\">{}</td><td class=\"n\">{}</td><td class=\"n\">{}</td><td>{}</td></tr>\n",
                    plots::color(role),
                    escape(sensor(lang, role)),
                    count(quality.samples),
                    optional(quality.rate_hz, 1),
                    count(quality.gaps),
                    fixed(quality.gap_s, 2),
                    fixed(quality.saturated_share * 100.0, 1),
                    escape(unit(quality.acc_to_mps2, lang)),
                ));
            }
            self.out.push_str("</tbody></table></div>\n");
        }
        self.out.push_str("</section>\n");

        self.section("issues");
        if analysis.issues.is_empty() {
            self.note(label(lang, "no_issues"));
        } else {
            self.out.push_str("<ul class=\"issues\">\n");
            for issue in &analysis.issues {
                let word = escape(severity(issue.severity, lang));
                let kind = match issue.severity {
                    Severity::Info => "info",
                    Severity::Warning => "warning",
                    Severity::Error => "error",
                };
                self.add(format_args!("<li class=\"{kind}\"><b>{word}</b> {}</li>\n", escape(issue_text(issue, lang))));
            }
            self.out.push_str("</ul>\n");
        }
        self.out.push_str("</section>\n");
    }

    fn footer(&mut self, analysis: &Analysis) {
        let provenance = &analysis.provenance;
        let short = |hash: &str| hash.chars().take(12).collect::<String>();
        let model = match (&provenance.model, &provenance.model_sha256) {
            (Some(name), Some(hash)) => format!("{name} ({})", short(hash)),
            (Some(name), None) => name.clone(),
            (None, _) => label(self.lang, "no_model").to_owned(),
        };
        let text = label(self.lang, "provenance")
            .replace("{pipeline}", &provenance.pipeline)
            .replace("{params}", &short(&provenance.params_sha256))
            .replace("{model}", &model);
        let text = escape(&text);
        self.add(format_args!("<footer><p>{text}</p><p>Volant</p></footer>\n"));
    }
}

/// The name of a stroke, where the model was not sure with what it came nearest to.
fn called(stroke: &Stroke, lang: Lang) -> String {
    match stroke.nearest() {
        Some((name, _)) => label(lang, "unsure").replace("{stroke}", &class(lang, name)),
        None => class(lang, &stroke.stroke),
    }
}

fn confidence(stroke: &Stroke, lang: Lang) -> String {
    match sureness(stroke) {
        Some(confidence) => format!(
            "<i class=\"meter\" style=\"--part:{}%\"></i>{}",
            fixed(confidence.clamp(0.0, 1.0) * 100.0, 0),
            fixed(confidence, 2)
        ),
        None => format!("{ABSENT} <small>{}</small>", escape(label(lang, "no_confidence"))),
    }
}
