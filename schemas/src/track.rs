//! What the pipelines read: the samples of a recording, one track a sensor.

use serde::{Deserialize, Serialize};

use crate::SensorRole;

/// The samples of one sensor in time order. All vectors have the same length.
///
/// Values are as the sensor sent them: acceleration (specific force, gravity included) in g **or** m/s², which the
/// pipelines decide from the resting magnitude; angular velocity in °/s; angles in °. A component that is missing or
/// was not finite is NaN.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct SensorTrack {
    /// Time since the start of the session, ns, on the clock common to all sensors. Not decreasing.
    pub t_ns: Vec<i64>,
    /// Specific force x, y, z.
    pub acc: Vec<[f32; 3]>,
    /// Angular velocity x, y, z, °/s.
    pub gyro: Vec<[f32; 3]>,
    /// Roll, pitch, yaw of the device's own filter, °. NaN where the device sends none.
    pub angle: Vec<[f32; 3]>,
    /// Estimated error of this sensor's clock against the others', ns (one standard deviation); `None`: that of the
    /// recording, [`Track::sync_error_ns`].
    pub clock_error_ns: Option<i64>,
    /// Frames that carried no time of their own and are not among the samples, because most do carry one.
    pub untimed: usize,
}

impl SensorTrack {
    /// Whether frames without a time of their own are left out, of a sensor that sent `all` frames, `untimed` of them without: put
    /// where they arrived, a few would lie amid other movements and make every other time of the sensor doubtful. Where most
    /// have none, arrival is all there is.
    #[must_use]
    pub fn leaves_out(untimed: usize, all: usize) -> bool {
        untimed > 0 && 2 * untimed < all
    }

    /// Number of samples.
    #[must_use]
    pub fn len(&self) -> usize {
        self.t_ns.len()
    }

    /// True without samples.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.t_ns.is_empty()
    }

    /// Adds one sample.
    pub fn push(&mut self, t_ns: i64, acc: [f32; 3], gyro: [f32; 3], angle: [f32; 3]) {
        self.t_ns.push(t_ns);
        self.acc.push(acc);
        self.gyro.push(gyro);
        self.angle.push(angle);
    }

    /// Leaves the samples out that have no time of their own (true in `untimed`, one for each sample), if they are to be.
    pub fn leave_out(&mut self, untimed: &[bool]) {
        let count = untimed.iter().filter(|untimed| **untimed).count();
        if Self::leaves_out(count, self.len()) {
            let mut flags = untimed.iter();
            self.t_ns.retain(|_| flags.next() == Some(&false));
            for vectors in [&mut self.acc, &mut self.gyro, &mut self.angle] {
                let mut flags = untimed.iter();
                vectors.retain(|_| flags.next() == Some(&false));
            }
            self.untimed = count;
        }
    }
}

/// How a stretch of a sensor's stamps was put on the clock common to all sensors.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ClockNote {
    /// Which sensor.
    pub sensor: SensorRole,
    /// False: the sensor only counts, and `ahead_ms` is against where its count was first put.
    pub calibrated: bool,
    /// Begin of the stretch on the sensor's clock, s since session start.
    pub from_s: f64,
    /// The sensor's clock was ahead by so much then, ms.
    pub ahead_ms: f64,
    /// And ran so much faster, parts per million.
    pub drift_ppm: f64,
}

/// A recording as the pipelines see it.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Track {
    /// One entry for each place of [`SensorRole::CHAIN`]; `None` if that sensor sent nothing.
    pub sensors: [Option<SensorTrack>; 4],
    /// Estimated error between the clocks of different sensors, ns (one standard deviation): of the worst of them.
    pub sync_error_ns: i64,
    /// Clocks that were not on the common one and were put on it: `t_ns` is put right already.
    pub clocks: Vec<ClockNote>,
}

impl Track {
    /// The track of one sensor.
    #[must_use]
    pub fn get(&self, role: SensorRole) -> Option<&SensorTrack> {
        self.sensors[role.chain_index()?].as_ref()
    }

    /// The track of one sensor, made if absent. `None` for [`SensorRole::Unknown`], which is never analysed.
    pub fn get_or_insert(&mut self, role: SensorRole) -> Option<&mut SensorTrack> {
        Some(self.sensors[role.chain_index()?].get_or_insert_default())
    }

    /// Estimated error of a sensor's clock against the others', ns (one standard deviation): its own where it is known, else
    /// that of the recording. 0: nothing is stated.
    #[must_use]
    pub fn clock_error_ns(&self, role: SensorRole) -> i64 {
        self.get(role).and_then(|sensor| sensor.clock_error_ns).unwrap_or(self.sync_error_ns)
    }

    /// The sensors present with their places, proximal first.
    pub fn iter(&self) -> impl Iterator<Item = (SensorRole, &SensorTrack)> {
        SensorRole::CHAIN.into_iter().zip(&self.sensors).filter_map(|(role, track)| Some((role, track.as_ref()?)))
    }

    /// Number of samples of all sensors.
    #[must_use]
    pub fn len(&self) -> usize {
        self.iter().map(|(_, track)| track.len()).sum()
    }

    /// True without samples.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_minority_without_a_time_is_left_out() {
        let track = || {
            let mut track = SensorTrack::default();
            for i in 0..5_i16 {
                track.push(i64::from(i), [f32::from(i); 3], [f32::from(10 + i); 3], [f32::from(20 + i); 3]);
            }
            track
        };
        let mut few = track();
        few.leave_out(&[false, true, false, false, true]);
        assert_eq!((few.t_ns, few.untimed), (vec![0, 2, 3], 2));
        assert_eq!((few.acc[1][0], few.gyro[1][1], few.angle[2][2]), (2.0, 12.0, 23.0));
        for kept in [[false; 5], [true, true, true, false, false], [true; 5]] {
            let mut same = track();
            same.leave_out(&kept);
            assert_eq!(same, track());
        }
    }
}
