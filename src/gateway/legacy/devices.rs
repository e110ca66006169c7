//! Devices that poll, and commands to devices.

use super::Routes;

pub(super) fn routes() -> Routes {
    vec![]
}
