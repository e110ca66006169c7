//! Devices as firmware V3.3 makes them, for tests, demos and load.
