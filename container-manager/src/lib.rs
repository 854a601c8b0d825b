//! Keeps every service at the right number of instances.
