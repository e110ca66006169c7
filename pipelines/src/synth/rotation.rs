//! Rotations as unit quaternions, just enough for rigid segments.

use rand::Rng;

use super::vector::{V3, cross, norm, scale};

/// A rotation, written `to_from_from` where it is named (`world_from_sensor`). Always of unit length.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Rotation {
    w: f64,
    v: V3,
}

impl Default for Rotation {
    fn default() -> Self {
        Self::IDENTITY
    }
}

impl Rotation {
    /// No rotation.
    pub const IDENTITY: Self = Self { w: 1.0, v: [0.0; 3] };

    /// The rotation about the axis and by the length (radians) of `vector`.
    #[must_use]
    pub fn from_vector_rad(vector: V3) -> Self {
        let angle = norm(vector);
        if angle < 1e-12 {
            return Self::IDENTITY;
        }
        let (sin, cos) = (0.5 * angle).sin_cos();
        Self { w: cos, v: scale(vector, sin / angle) }
    }

    /// Rotation by `deg` about `axis`, which need not be of unit length.
    #[must_use]
    pub fn about_deg(axis: V3, deg: f64) -> Self {
        let length = norm(axis).max(1e-12);
        Self::from_vector_rad(scale(axis, deg.to_radians() / length))
    }

    /// A rotation drawn evenly from all rotations.
    #[must_use]
    pub fn random(rng: &mut impl Rng) -> Self {
        // Marsaglia's method: two points in the unit disc make a point on the four-sphere.
        let mut disc = || loop {
            let x: f64 = rng.random_range(-1.0..1.0);
            let y: f64 = rng.random_range(-1.0..1.0);
            let s = x * x + y * y;
            if s > 0.0 && s < 1.0 {
                return (x, y, s);
            }
        };
        let (x, y, s1) = disc();
        let (z, w, s2) = disc();
        let k = ((1.0 - s1) / s2).sqrt();
        Self { w: x, v: [y, z * k, w * k] }.normalized()
    }

    /// `self` after `other`.
    #[must_use]
    pub fn then_from(self, other: Self) -> Self {
        let dot = self.v[0] * other.v[0] + self.v[1] * other.v[1] + self.v[2] * other.v[2];
        let c = cross(self.v, other.v);
        let v = std::array::from_fn(|i| self.w * other.v[i] + other.w * self.v[i] + c[i]);
        Self { w: self.w * other.w - dot, v }
    }

    /// The reverse rotation.
    #[must_use]
    pub fn inverse(self) -> Self {
        Self { w: self.w, v: scale(self.v, -1.0) }
    }

    /// `vector` turned by this rotation.
    #[must_use]
    pub fn rotate(self, vector: V3) -> V3 {
        let t = scale(cross(self.v, vector), 2.0);
        let u = cross(self.v, t);
        std::array::from_fn(|i| vector[i] + self.w * t[i] + u[i])
    }

    /// Back to unit length after many products.
    #[must_use]
    pub(super) fn normalized(self) -> Self {
        let k = 1.0 / (self.w * self.w + self.v[0] * self.v[0] + self.v[1] * self.v[1] + self.v[2] * self.v[2]).sqrt();
        Self { w: self.w * k, v: scale(self.v, k) }
    }

    /// Axis times angle of the shorter way round, radians.
    #[must_use]
    pub fn to_vector_rad(self) -> V3 {
        let (w, v) = if self.w < 0.0 { (-self.w, scale(self.v, -1.0)) } else { (self.w, self.v) };
        let sin = norm(v);
        if sin < 1e-9 {
            return scale(v, 2.0);
        }
        scale(v, 2.0 * sin.atan2(w) / sin)
    }

    /// Roll, pitch, yaw in degrees (z-y-x order): roll and yaw wrap at ±180, pitch stays within ±90.
    #[must_use]
    pub fn roll_pitch_yaw_deg(self) -> V3 {
        let (w, [x, y, z]) = (self.w, self.v);
        [
            (2.0 * (w * x + y * z)).atan2(1.0 - 2.0 * (x * x + y * y)).to_degrees(),
            (2.0 * (w * y - z * x)).clamp(-1.0, 1.0).asin().to_degrees(),
            (2.0 * (w * z + x * y)).atan2(1.0 - 2.0 * (y * y + z * z)).to_degrees(),
        ]
    }
}

#[cfg(test)]
mod tests {
    use rand::SeedableRng;
    use rand_chacha::ChaCha8Rng;

    use super::*;

    #[test]
    fn rotations_compose_invert_and_read_back() {
        let mut rng = ChaCha8Rng::seed_from_u64(1);
        for _ in 0..200 {
            let (a, b) = (Rotation::random(&mut rng), Rotation::random(&mut rng));
            let v = [0.3, -1.2, 2.0];
            let (once, twice) = (a.then_from(b).rotate(v), a.rotate(b.rotate(v)));
            let back = a.inverse().rotate(a.rotate(v));
            let again = Rotation::from_vector_rad(a.to_vector_rad()).rotate(v);
            for i in 0..3 {
                assert!((once[i] - twice[i]).abs() < 1e-12);
                assert!((back[i] - v[i]).abs() < 1e-12);
                assert!((again[i] - a.rotate(v)[i]).abs() < 1e-9);
            }
            let [roll, pitch, yaw] = a.roll_pitch_yaw_deg();
            let euler = Rotation::about_deg([0.0, 0.0, 1.0], yaw)
                .then_from(Rotation::about_deg([0.0, 1.0, 0.0], pitch))
                .then_from(Rotation::about_deg([1.0, 0.0, 0.0], roll));
            for i in 0..3 {
                assert!((euler.rotate(v)[i] - a.rotate(v)[i]).abs() < 1e-6);
            }
        }
    }
}
