//! Three components and the few things done with them.

/// x, y, z.
pub(super) type V3 = [f64; 3];

pub(super) fn add(a: V3, b: V3) -> V3 {
    [a[0] + b[0], a[1] + b[1], a[2] + b[2]]
}

pub(super) fn scale(a: V3, k: f64) -> V3 {
    [a[0] * k, a[1] * k, a[2] * k]
}

pub(super) fn cross(a: V3, b: V3) -> V3 {
    [a[1] * b[2] - a[2] * b[1], a[2] * b[0] - a[0] * b[2], a[0] * b[1] - a[1] * b[0]]
}

pub(super) fn norm(a: V3) -> f64 {
    (a[0] * a[0] + a[1] * a[1] + a[2] * a[2]).sqrt()
}

pub(super) fn unit(a: V3) -> V3 {
    scale(a, 1.0 / norm(a).max(1e-12))
}

pub(super) fn lerp(a: V3, b: V3, share: f64) -> V3 {
    std::array::from_fn(|i| a[i] + share * (b[i] - a[i]))
}
