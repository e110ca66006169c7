//! The widest vectors that a machine has, for the loops that gain by them.

/// Runs `kernel` compiled for the vectors of the machine it runs on: 256 bits where an x86 has AVX2, else what every machine of
/// its kind has. The compiler neither fuses nor reorders what it computes there, so the width changes no bit.
///
/// Only what is inlined into the closure becomes wide: the closure and the functions it calls need `#[inline(always)]`.
#[inline(always)]
pub(crate) fn wide<R>(kernel: impl FnOnce() -> R) -> R {
    pulp::Arch::new().dispatch(kernel)
}
