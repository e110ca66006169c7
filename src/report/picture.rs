//! The curves of a session as one picture: the image of the legacy service, 1800 × 900, as JPEG or PNG.
//!
//! Drawn as SVG first, with colours and a font of its own, so that every machine makes the same pixels.

use std::fmt::Write as _;
use std::sync::{Arc, LazyLock};

use pipelines::Analysis;
use resvg::tiny_skia::{Color, Pixmap, Transform};
use resvg::usvg::{Options, Tree, fontdb};

use super::Curve;
use super::html::escape;
use super::plots::{color, round_step};
use crate::texts::{Lang, sensor};

const WIDTH: f64 = 1800.0;
const HEIGHT: f64 = 900.0;
const LEFT: f64 = 150.0;
const RIGHT: f64 = 60.0;
const TOP: f64 = 130.0;
const BOTTOM: f64 = 790.0;
/// JPEG quality: text stays clean, a picture has about 150 kB.
const QUALITY: u8 = 90;

/// DejaVu Sans with the characters that pictures use; its licence is beside it.
static FONTS: LazyLock<Arc<fontdb::Database>> = LazyLock::new(|| {
    let mut fonts = fontdb::Database::new();
    fonts.load_font_data(include_bytes!("font/DejaVuSans-subset.ttf").to_vec());
    fonts.set_sans_serif_family("DejaVu Sans");
    Arc::new(fonts)
});

/// How a picture is encoded.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum PictureFormat {
    Jpeg,
    Png,
}

impl PictureFormat {
    /// The format that a file name asks for.
    #[must_use]
    pub fn of_name(name: &str) -> Option<Self> {
        let (_, ending) = name.rsplit_once('.')?;
        match ending.to_ascii_lowercase().as_str() {
            "jpg" | "jpeg" => Some(Self::Jpeg),
            "png" => Some(Self::Png),
            _ => None,
        }
    }

    #[must_use]
    pub const fn content_type(self) -> &'static str {
        match self {
            Self::Jpeg => "image/jpeg",
            Self::Png => "image/png",
        }
    }
}

/// A picture could not be made. Its input is ours, so this is a mistake of ours.
#[derive(Debug, thiserror::Error)]
pub enum PictureError {
    #[error("draw the picture")]
    Draw(#[from] resvg::usvg::Error),
    #[error("make room for the picture")]
    Room,
    #[error("encode the picture as JPEG")]
    Jpeg(#[from] jpeg_encoder::EncodingError),
    #[error("encode the picture as PNG")]
    Png,
}

/// The curves of angular rate of all sensors over time, with the strokes marked. `analysis` may be absent.
///
/// # Errors
/// See [`PictureError`].
pub fn picture(
    title: &str,
    curves: &[Curve],
    analysis: Option<&Analysis>,
    format: PictureFormat,
) -> Result<Vec<u8>, PictureError> {
    let svg = svg(title, curves, analysis);
    let options = Options { fontdb: Arc::clone(&FONTS), ..Options::default() };
    let tree = Tree::from_str(&svg, &options)?;
    let mut pixmap = Pixmap::new(WIDTH as u32, HEIGHT as u32).ok_or(PictureError::Room)?;
    pixmap.fill(Color::WHITE);
    resvg::render(&tree, Transform::identity(), &mut pixmap.as_mut());
    match format {
        PictureFormat::Png => pixmap.encode_png().map_err(|_| PictureError::Png),
        PictureFormat::Jpeg => {
            let mut bytes = Vec::new();
            let encoder = jpeg_encoder::Encoder::new(&mut bytes, QUALITY);
            encoder.encode(pixmap.data(), WIDTH as u16, HEIGHT as u16, jpeg_encoder::ColorType::Rgba)?;
            Ok(bytes)
        }
    }
}

/// The drawing. Texts are English, as on the legacy picture.
fn svg(title: &str, curves: &[Curve], analysis: Option<&Analysis>) -> String {
    let curves: Vec<_> = curves.iter().filter(|curve| !curve.runs.is_empty()).collect();
    let strokes = analysis.map_or(&[][..], |analysis| &analysis.strokes);
    // As on the legacy picture and in the peaks' answers, the earliest sample is at 0.
    let first_s = curves.iter().filter_map(|curve| curve.runs.first()?.first()).map(|point| point.t_s).reduce(f64::min);
    let first_s = first_s.unwrap_or_default();
    let end_s = (curves.iter().map(|curve| curve.end_s()).fold(first_s, f64::max) - first_s).max(0.1);
    let top_dps = curves.iter().map(|curve| curve.peak_dps()).fold(0.0, f64::max).max(1.0) * 1.05;
    let x = |t_s: f64| LEFT + (WIDTH - LEFT - RIGHT) * (t_s / end_s).clamp(0.0, 1.0);
    let y = |rate_dps: f64| BOTTOM - (BOTTOM - TOP) * (rate_dps / top_dps).clamp(0.0, 1.0);
    let mut out = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"{WIDTH}\" height=\"{HEIGHT}\" font-family=\"DejaVu Sans\" \
         font-size=\"22\" fill=\"#333\"><text x=\"{LEFT}\" y=\"52\" font-size=\"32\">{}</text>",
        escape(title)
    );
    let mut add = |element: std::fmt::Arguments<'_>| out.write_fmt(element).expect("writing to a string cannot fail");
    // Bands of the strokes lie behind everything.
    for stroke in strokes {
        let [start, end] = [stroke.start_ms, stroke.end_ms].map(|ms| x(ms / 1e3 - first_s));
        let width = (end - start).max(1.5);
        add(format_args!(
            "<rect x=\"{start:.1}\" y=\"{TOP}\" width=\"{width:.1}\" height=\"{:.1}\" fill=\"#ECEFF1\"/>",
            BOTTOM - TOP
        ));
    }
    let step = round_step(top_dps, 8.0);
    for tick in 0..=(top_dps / step).floor() as usize {
        let rate = tick as f64 * step;
        add(format_args!(
            "<path d=\"M{LEFT} {0:.1}H{1}\" stroke=\"#DDD\"/><text x=\"{2}\" y=\"{3:.1}\" text-anchor=\"end\">{rate:.0}</text>",
            y(rate),
            WIDTH - RIGHT,
            LEFT - 14.0,
            y(rate) + 8.0
        ));
    }
    let step = round_step(end_s, 14.0);
    let decimals = usize::from(step < 1.0) + usize::from(step < 0.1);
    for tick in 0..=(end_s / step + 1e-9).floor() as usize {
        let t_s = tick as f64 * step;
        add(format_args!(
            "<path d=\"M{0:.1} {TOP}V{BOTTOM}\" stroke=\"#E8E8E8\"/><text x=\"{0:.1}\" y=\"{1}\" text-anchor=\"middle\">{t_s:.decimals$}</text>",
            x(t_s),
            BOTTOM + 36.0
        ));
    }
    for stroke in strokes {
        let impact = x(stroke.impact_ms / 1e3 - first_s);
        add(format_args!(
            "<path d=\"M{impact:.1} {TOP}V{BOTTOM}\" stroke=\"#78909C\" stroke-dasharray=\"5 5\"/><path d=\"M{impact:.1} {TOP}l-7 -13h14z\" fill=\"#546E7A\"/>"
        ));
    }
    for curve in &curves {
        for run in &curve.runs {
            let mut path = String::with_capacity(run.len() * 28);
            for (at, point) in run.iter().enumerate() {
                let command = if at == 0 { 'M' } else { 'L' };
                write!(path, "{command}{:.1} {:.1}", x(point.t_s - first_s), y(point.max_dps))
                    .expect("writing to a string cannot fail");
                if point.max_dps - point.min_dps > top_dps / 200.0 {
                    write!(path, "V{:.1}", y(point.min_dps)).expect("writing to a string cannot fail");
                }
            }
            add(format_args!(
                "<path d=\"{path}\" fill=\"none\" stroke=\"{}\" stroke-width=\"2.2\" stroke-linejoin=\"round\" stroke-opacity=\"0.9\"/>",
                color(curve.sensor)
            ));
        }
    }
    add(format_args!(
        "<path d=\"M{LEFT} {TOP}V{BOTTOM}H{}\" fill=\"none\" stroke=\"#777\" stroke-width=\"1.5\"/>",
        WIDTH - RIGHT
    ));
    // The legend stands above the curves, where nothing is hidden.
    let mut at = LEFT;
    for curve in &curves {
        let name = sensor(Lang::En, curve.sensor);
        add(format_args!(
            "<rect x=\"{at:.0}\" y=\"76\" width=\"34\" height=\"12\" rx=\"3\" fill=\"{}\"/><text x=\"{:.0}\" y=\"90\">{name}</text>",
            color(curve.sensor),
            at + 44.0
        ));
        at += 44.0 + 14.0 * name.len() as f64 + 40.0;
    }
    if !strokes.is_empty() {
        add(format_args!(
            "<path d=\"M{at:.0} 76h14l-7 13z\" fill=\"#546E7A\"/><text x=\"{:.0}\" y=\"90\">impact of {} strokes</text>",
            at + 26.0,
            strokes.len()
        ));
    }
    if curves.is_empty() {
        add(format_args!(
            "<text x=\"{}\" y=\"{}\" text-anchor=\"middle\" font-size=\"30\" fill=\"#888\">no angular rate was recorded</text>",
            WIDTH / 2.0,
            HEIGHT / 2.0
        ));
    }
    add(format_args!(
        "<text x=\"{}\" y=\"870\" text-anchor=\"middle\" font-size=\"26\">Time (s)</text><text transform=\"translate(44 {}) rotate(-90)\" text-anchor=\"middle\" font-size=\"26\">Angular velocity (°/s)</text></svg>",
        f64::midpoint(LEFT, WIDTH - RIGHT),
        f64::midpoint(TOP, BOTTOM)
    ));
    out
}
