//! Generated four-sensor sessions with planted truth.
