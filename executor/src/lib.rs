//! Runs on a node exactly what the manager assigned.
