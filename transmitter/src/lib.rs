//! Measures the node and its instances every second and sends it on.
