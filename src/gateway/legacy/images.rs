//! Pictures of a session.

use super::Routes;

pub(super) fn routes() -> Routes {
    vec![]
}
