//! Frames by HTTP.

use super::Routes;

pub(super) fn routes() -> Routes {
    vec![]
}
