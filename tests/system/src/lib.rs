//! Stories played by real processes, a real Redis and real containers.
