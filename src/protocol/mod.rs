//! Wire messages to domain values and back; the only room that knows the wire.
