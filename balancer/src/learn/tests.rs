//! What becomes of readings.
