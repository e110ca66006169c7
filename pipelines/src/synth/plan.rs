//! When which stroke is played, and what is done in between.

use rand::Rng;
use rand::seq::IndexedRandom;
use schemas::StrokeKind;

use super::background::Activity;
use super::random::stream;
use super::{Plan, Rallies};

/// One stroke to be played.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct PlannedStroke {
    /// When the racket is fastest and, unless it is a shadow stroke, meets the shuttle; s since session start.
    pub impact_s: f64,
    /// What it is. [`StrokeKind::Other`] is a racket movement of no class.
    pub kind: StrokeKind,
    /// Forehand or backhand; `None` lets the class's habits and chance decide.
    pub backhand: Option<bool>,
    /// False for a shadow stroke: no shuttle is met.
    pub has_impact: bool,
}

impl PlannedStroke {
    /// A stroke that meets the shuttle, on the side the class is usually played.
    #[must_use]
    pub const fn new(impact_s: f64, kind: StrokeKind) -> Self {
        Self { impact_s, kind, backhand: None, has_impact: true }
    }
}

/// Strokes in time order and the spells between them.
pub(super) struct Timetable {
    pub(super) strokes: Vec<PlannedStroke>,
    pub(super) spells: Vec<(Activity, f64, f64)>,
}

pub(super) fn timetable(plan: &Plan, duration_s: f64, seed: u64) -> Timetable {
    match plan {
        Plan::Strokes(strokes) => {
            let mut strokes = strokes.clone();
            strokes.sort_by(|a, b| a.impact_s.total_cmp(&b.impact_s));
            Timetable { strokes, spells: Vec::new() }
        }
        Plan::Rallies(rallies) => play(rallies, duration_s, seed),
    }
}

/// Shots that can be played from where the last own shot leaves a player, roughly: after attack from the back court comes
/// the net or the mid court, after the net everything.
fn fits(previous: Option<StrokeKind>, next: StrokeKind) -> bool {
    use StrokeKind::{Block, Kill, LongServe, NetShot, Push, ShortServe};
    match next {
        ShortServe | LongServe => previous.is_none(),
        Kill | Push => !matches!(previous, Some(LongServe)),
        NetShot | Block => previous != Some(Kill),
        _ => true,
    }
}

fn play(rallies: &Rallies, duration_s: f64, seed: u64) -> Timetable {
    let mut rng = stream(seed, 1);
    let mut strokes = Vec::new();
    let mut spells = Vec::new();
    let mut t_s = rallies.lead_in_s;
    let last_impact_s = duration_s - 1.2;
    let between = |rng: &mut rand_chacha::ChaCha8Rng, (low, high): (f64, f64)| low + (high - low) * rng.random::<f64>();
    // Every class comes up before one is repeated: a bag that is refilled when nothing in it fits.
    let mut bag: Vec<StrokeKind> = Vec::new();
    let mut rest_from_s = 0.2;
    while t_s < last_impact_s && !rallies.kinds.is_empty() {
        let wanted = rng.random_range(rallies.strokes.0..=rallies.strokes.1.max(rallies.strokes.0)).max(1);
        let rally_from_s = t_s - 1.4;
        rest(&mut spells, &mut rng, rest_from_s, rally_from_s, rallies.pick_ups);
        let mut previous = None;
        for _ in 0..wanted {
            if t_s >= last_impact_s {
                break;
            }
            if !bag.iter().any(|&kind| fits(previous, kind)) {
                bag.extend(rallies.kinds.iter().copied());
            }
            let fitting: Vec<usize> = (0..bag.len()).filter(|&i| fits(previous, bag[i])).collect();
            // A list of serves alone is a drill: then anything fits.
            let kind = match fitting.choose(&mut rng) {
                Some(&index) => bag.swap_remove(index),
                None => bag.swap_remove(rng.random_range(0..bag.len())),
            };
            let has_impact = rng.random::<f64>() >= rallies.shadow_share;
            strokes.push(PlannedStroke { impact_s: t_s, kind, backhand: None, has_impact });
            previous = Some(kind);
            t_s += between(&mut rng, rallies.gap_s);
        }
        let rally_to_s = strokes.last().map_or(t_s, |stroke| stroke.impact_s + 0.6);
        spells.push((Activity::Footwork, rally_from_s, rally_to_s));
        rest_from_s = rally_to_s;
        t_s += between(&mut rng, rallies.rest_s);
    }
    rest(&mut spells, &mut rng, rest_from_s, duration_s - 0.2, rallies.pick_ups);
    Timetable { strokes, spells }
}

/// Fills a rest with walking, fidgeting and, often, picking up the shuttle.
fn rest(
    spells: &mut Vec<(Activity, f64, f64)>,
    rng: &mut rand_chacha::ChaCha8Rng,
    from_s: f64,
    to_s: f64,
    pick_ups: f64,
) {
    let mut t_s = from_s;
    while to_s - t_s > 1.0 {
        let left_s = to_s - t_s;
        let activity = match rng.random::<f64>() {
            draw if left_s > 3.2 && draw < pick_ups => Activity::PickUp,
            draw if draw < 0.5 + 0.5 * pick_ups => Activity::Walking,
            _ => Activity::Fidgeting,
        };
        let wanted_s = match activity {
            Activity::PickUp => 2.8,
            _ => 2.0 + 3.0 * rng.random::<f64>(),
        };
        let end_s = t_s + wanted_s.min(left_s);
        spells.push((activity, t_s, end_s));
        t_s = end_s;
    }
}
