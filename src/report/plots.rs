//! The plots as inline SVG: fixed sizes, fixed decimals, no script, no outside font; so the same analysis gives the
//! same bytes. Colours of text and rules come from the page's style and follow light, dark and print; colours of
//! sensors are those that players know from the earlier service.

use std::fmt::Write as _;

use pipelines::{Analysis, Stroke};
use schemas::SensorRole;

use super::Curve;
use super::figures::{classes, clock, count, fixed, metric, sureness};
use super::html::escape;
use crate::texts::{Lang, class, label, sensor};

/// Width of every plot in its own units; the page scales it.
const WIDTH: f64 = 1000.0;
/// Room for labels at the left of a plot.
const LEFT: f64 = 118.0;
const RIGHT: f64 = 14.0;
/// Strokes that the chain plot draws; a page with more rows is not read.
const CHAIN_ROW_LIMIT: usize = 60;

/// The sensor's colour.
pub(super) const fn color(role: SensorRole) -> &'static str {
    match role {
        SensorRole::Waist => "#FF6384",
        SensorRole::Shoulder => "#36A2EB",
        SensorRole::Wrist => "#FFCE56",
        SensorRole::Racket => "#4BC0C0",
        SensorRole::Unknown => "#999999",
    }
}

/// An SVG drawing that grows element by element.
struct Svg(String);

impl Svg {
    /// `title` is read out in place of the picture.
    fn new(height: f64, title: &str) -> Self {
        let mut svg = Self(String::new());
        svg.add(format_args!(
            "<svg viewBox=\"0 0 {} {}\" role=\"img\" aria-label=\"{}\">",
            fixed(WIDTH, 0),
            fixed(height, 0),
            escape(title)
        ));
        svg
    }

    fn add(&mut self, element: std::fmt::Arguments<'_>) {
        self.0.write_fmt(element).expect("writing to a string cannot fail");
        self.0.push('\n');
    }

    fn text(&mut self, x: f64, y: f64, class: &str, text: &str) {
        let text = escape(text);
        self.add(format_args!("<text x=\"{x:.1}\" y=\"{y:.1}\" class=\"{class}\">{text}</text>"));
    }

    fn line(&mut self, [x1, y1, x2, y2]: [f64; 4], class: &str) {
        self.add(format_args!("<line x1=\"{x1:.1}\" y1=\"{y1:.1}\" x2=\"{x2:.1}\" y2=\"{y2:.1}\" class=\"{class}\"/>"));
    }

    fn finish(mut self) -> String {
        self.0.push_str("</svg>\n");
        self.0
    }
}

/// A round step (1, 2 or 5 times a power of ten) so that `span` has at most `most` of them.
pub(super) fn round_step(span: f64, most: f64) -> f64 {
    let least = (span / most).max(f64::MIN_POSITIVE);
    let magnitude = 10f64.powf(least.log10().floor());
    [1.0, 2.0, 5.0, 10.0]
        .into_iter()
        .map(|factor| factor * magnitude)
        .find(|&step| step >= least * 0.999)
        .unwrap_or(least)
}

/// |ω| of each sensor in a lane of its own, with the strokes as bands behind.
pub(super) fn curves(analysis: &Analysis, curves: &[Curve], lang: Lang) -> Option<String> {
    const LANE: f64 = 84.0;
    const LANE_GAP: f64 = 14.0;
    const TOP: f64 = 22.0;
    let curves: Vec<_> = curves.iter().filter(|curve| !curve.runs.is_empty()).collect();
    let end_s = curves.iter().map(|curve| curve.end_s()).fold(analysis.session.duration_s, f64::max);
    if curves.is_empty() || end_s <= 0.0 {
        return None;
    }
    let bottom = TOP + curves.len() as f64 * (LANE + LANE_GAP) - LANE_GAP;
    let plot_width = WIDTH - LEFT - RIGHT;
    let x = |t_s: f64| LEFT + plot_width * (t_s / end_s).clamp(0.0, 1.0);

    let mut svg = Svg::new(bottom + 40.0, label(lang, "angular_rate"));
    let mut free_from = 0.0;
    for (index, stroke) in analysis.strokes.iter().enumerate() {
        let [start, impact, end] = [stroke.start_ms, stroke.impact_ms, stroke.end_ms].map(|ms| x(ms / 1e3));
        svg.add(format_args!(
            "<rect x=\"{start:.1}\" y=\"{TOP:.1}\" width=\"{:.1}\" height=\"{:.1}\" class=\"band\"><title>{} {} {}</title></rect>",
            (end - start).max(0.8),
            bottom - TOP,
            index + 1,
            escape(&class(lang, &stroke.stroke)),
            clock(stroke.impact_ms / 1e3),
        ));
        svg.line([impact, TOP, impact, bottom], "impact");
        // Numbers stand where there is room for them; the table has them all.
        let number = (index + 1).to_string();
        let half_width = 3.6 * number.len() as f64;
        if impact - half_width >= free_from {
            svg.text(impact, TOP - 7.0, "mid small", &number);
            free_from = impact + half_width + 5.0;
        }
    }

    for (lane, curve) in curves.iter().enumerate() {
        let top = TOP + lane as f64 * (LANE + LANE_GAP);
        let base = top + LANE;
        let peak_dps = curve.peak_dps().max(1.0);
        let y = |rate_dps: f64| base - LANE * rate_dps / peak_dps;
        svg.line([LEFT, base, WIDTH - RIGHT, base], "rule");
        let middle = top + LANE / 2.0;
        svg.add(format_args!(
            "<rect x=\"0\" y=\"{:.1}\" width=\"10\" height=\"10\" rx=\"2\" fill=\"{}\"/>",
            middle - 14.0,
            color(curve.sensor)
        ));
        svg.text(16.0, middle - 5.0, "strong", sensor(lang, curve.sensor));
        svg.text(16.0, middle + 12.0, "small", &format!("≤ {} °/s", count(peak_dps.round() as usize)));
        for run in &curve.runs {
            let mut path = String::with_capacity(run.len() * 24);
            for (at, point) in run.iter().enumerate() {
                let command = if at == 0 { 'M' } else { 'L' };
                write!(path, "{command}{:.1} {:.1}", x(point.t_s), y(point.max_dps))
                    .expect("writing to a string cannot fail");
                if point.max_dps - point.min_dps > peak_dps / 100.0 {
                    write!(path, "V{:.1}", y(point.min_dps)).expect("writing to a string cannot fail");
                }
            }
            svg.add(format_args!("<path d=\"{path}\" class=\"curve\" stroke=\"{}\"/>", color(curve.sensor)));
        }
    }

    let step = round_step(end_s, 12.0).max(0.1);
    let ticks = (end_s / step).floor() as usize;
    for tick in 0..=ticks {
        let t_s = tick as f64 * step;
        svg.line([x(t_s), bottom, x(t_s), bottom + 5.0], "rule");
        let text = if end_s >= 90.0 {
            clock(t_s).trim_end_matches(".0").to_owned()
        } else {
            format!("{} s", fixed(t_s, usize::from(step < 1.0)))
        };
        svg.text(x(t_s), bottom + 19.0, "mid small", &text);
    }
    svg.text(LEFT + plot_width / 2.0, bottom + 36.0, "mid small", label(lang, "time_axis"));
    Some(svg.finish())
}

/// Strokes by class: a bar for the count, and beside it each stroke's confidence as a dot from 0 to 1.
pub(super) fn strokes_by_class(analysis: &Analysis, lang: Lang) -> Option<String> {
    const ROW: f64 = 30.0;
    const BAR_END: f64 = 560.0;
    const DOTS: f64 = 660.0;
    let classes = classes(analysis);
    let most = classes.first()?.1.max(1) as f64;
    let bottom = 26.0 + classes.len() as f64 * ROW;
    let dot_x = |confidence: f64| DOTS + (WIDTH - RIGHT - 6.0 - DOTS) * confidence.clamp(0.0, 1.0);

    let mut svg = Svg::new(bottom + 8.0, label(lang, "strokes_by_class"));
    svg.text(dot_x(0.0), 14.0, "small", "0");
    svg.text(dot_x(0.5), 14.0, "mid small", label(lang, "confidence"));
    svg.text(dot_x(1.0), 14.0, "end small", "1");
    for (row, (name, number)) in classes.iter().enumerate() {
        let middle = 26.0 + (row as f64 + 0.5) * ROW;
        svg.text(LEFT - 12.0, middle + 4.0, "end", &class(lang, name));
        let width = (BAR_END - LEFT) * *number as f64 / most;
        svg.add(format_args!(
            "<rect x=\"{LEFT:.1}\" y=\"{:.1}\" width=\"{width:.1}\" height=\"18\" rx=\"3\" class=\"bar\"/>",
            middle - 9.0
        ));
        svg.text(LEFT + width + 8.0, middle + 4.5, "strong", &number.to_string());
        svg.line([dot_x(0.0), middle, dot_x(1.0), middle], "rule");
        for confidence in confidences(analysis, name) {
            svg.add(format_args!(
                "<circle cx=\"{:.1}\" cy=\"{middle:.1}\" r=\"4.5\" class=\"dot\"/>",
                dot_x(confidence)
            ));
        }
    }
    Some(svg.finish())
}

fn confidences<'a>(analysis: &'a Analysis, class: &'a str) -> impl Iterator<Item = f64> + 'a {
    analysis.strokes.iter().filter(move |stroke| stroke.stroke == class).filter_map(sureness)
}

/// When each sensor of a stroke turned fastest, ms relative to the impact, proximal first; sensors without a peak are
/// left out.
fn peaks_ms(stroke: &Stroke) -> Vec<(SensorRole, f64)> {
    SensorRole::CHAIN
        .into_iter()
        .filter_map(|role| Some((role, -metric(stroke, &format!("peak_before_impact_{role}_ms"))?)))
        .collect()
}

/// The median over strokes of each sensor's peak time, ms relative to the impact.
fn median_peaks_ms(rows: &[Row<'_>]) -> Vec<(SensorRole, f64)> {
    SensorRole::CHAIN
        .into_iter()
        .filter_map(|role| {
            let mut times: Vec<f64> =
                rows.iter().flat_map(|row| &row.peaks).filter(|(of, _)| *of == role).map(|&(_, ms)| ms).collect();
            times.sort_by(f64::total_cmp);
            Some((role, f64::midpoint(*times.get(times.len().checked_sub(1)? / 2)?, *times.get(times.len() / 2)?)))
        })
        .collect()
}

/// A stroke with peaks on two sensors or more.
struct Row<'a> {
    number: usize,
    stroke: &'a Stroke,
    peaks: Vec<(SensorRole, f64)>,
}

/// The chain plot, and how many strokes it shows, leaves out for want of peaks, and leaves out for want of room.
pub(super) struct ChainPlot {
    pub(super) svg: String,
    pub(super) drawn: usize,
    pub(super) without_peaks: usize,
    pub(super) beyond: usize,
}

/// When each sensor peaks before the impact, a row a stroke, under a row with the medians of all strokes.
pub(super) fn chain(analysis: &Analysis, lang: Lang) -> Option<ChainPlot> {
    const TOP: f64 = 34.0;
    const MEDIAN_ROW: f64 = 40.0;
    const ROWS_TOP: f64 = TOP + MEDIAN_ROW;
    const AXIS_LEFT: f64 = LEFT + 30.0;
    let rows: Vec<Row<'_>> = analysis
        .strokes
        .iter()
        .enumerate()
        .map(|(index, stroke)| Row { number: index + 1, stroke, peaks: peaks_ms(stroke) })
        .filter(|row| row.peaks.len() > 1)
        .collect();
    if rows.is_empty() {
        return None;
    }
    let median = median_peaks_ms(&rows);
    let drawn = rows.len().min(CHAIN_ROW_LIMIT);
    let row_height = (420.0 / drawn as f64).clamp(15.0, 24.0);

    let times = || rows[..drawn].iter().flat_map(|row| &row.peaks).chain(&median).map(|&(_, ms)| ms);
    let (first_ms, last_ms) = (times().fold(-20.0, f64::min), times().fold(0.0, f64::max));
    let step = round_step(last_ms - first_ms, 12.0);
    let (first_tick, last_tick) = ((first_ms / step).floor(), (last_ms / step).ceil());
    let width = WIDTH - RIGHT - 10.0 - AXIS_LEFT;
    let x = |ms: f64| AXIS_LEFT + width * (ms / step - first_tick) / (last_tick - first_tick);

    let bottom = ROWS_TOP + drawn as f64 * row_height + 4.0;
    let mut svg = Svg::new(bottom + 42.0, label(lang, "kinetic_chain"));
    for (place, role) in SensorRole::CHAIN.into_iter().enumerate() {
        let at = AXIS_LEFT + 100.0 * place as f64;
        svg.add(format_args!("<circle cx=\"{at:.1}\" cy=\"10\" r=\"5.5\" fill=\"{}\"/>", color(role)));
        svg.text(at + 11.0, 14.5, "", sensor(lang, role));
    }
    for tick in first_tick as i64..=last_tick as i64 {
        let ms = tick as f64 * step;
        let class = if tick == 0 { "impact" } else { "grid" };
        svg.line([x(ms), TOP - 6.0, x(ms), bottom], class);
        svg.text(x(ms), bottom + 17.0, "mid small", &fixed(ms, usize::from(step < 1.0)).replace('-', "−"));
    }
    svg.text(AXIS_LEFT + width / 2.0, bottom + 35.0, "mid small", label(lang, "chain_axis"));

    let middle = TOP + 14.0;
    svg.text(AXIS_LEFT - 22.0, middle + 4.5, "end strong", label(lang, "median"));
    chain_row(&mut svg, &median, middle, 8.5, x);
    for (index, row) in rows[..drawn].iter().enumerate() {
        let middle = ROWS_TOP + (index as f64 + 0.5) * row_height;
        let text = format!("{} {}", class(lang, &row.stroke.stroke), row.number);
        svg.text(AXIS_LEFT - 22.0, middle + 4.0, "end small", &text);
        chain_row(&mut svg, &row.peaks, middle, 5.0, x);
    }
    Some(ChainPlot {
        svg: svg.finish(),
        drawn,
        without_peaks: analysis.strokes.len() - rows.len(),
        beyond: rows.len() - drawn,
    })
}

fn chain_row(svg: &mut Svg, peaks: &[(SensorRole, f64)], middle: f64, radius: f64, x: impl Fn(f64) -> f64) {
    let first = peaks.iter().map(|&(_, ms)| ms).fold(f64::INFINITY, f64::min);
    let last = peaks.iter().map(|&(_, ms)| ms).fold(f64::NEG_INFINITY, f64::max);
    svg.line([x(first), middle, x(last), middle], "link");
    for &(role, ms) in peaks {
        svg.add(format_args!(
            "<circle cx=\"{:.1}\" cy=\"{middle:.1}\" r=\"{radius:.1}\" fill=\"{}\" class=\"peak\"/>",
            x(ms),
            color(role)
        ));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn steps_are_round() {
        for (span, most, step) in [(62.0, 12.0, 10.0), (600.0, 12.0, 50.0), (3.0, 12.0, 0.5), (160.0, 10.0, 20.0)] {
            assert!((round_step(span, most) - step).abs() < 1e-9, "{span} {most}: {}", round_step(span, most));
        }
    }
}
